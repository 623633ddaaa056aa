package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// size returns a number of bytes in a few characters: "1.5 KiB".
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1024, 0
	for x >= 1000 && unit < 4 {
		x, unit = x/1024, unit+1
	}
	if x < 9.95 && x != float64(int(x)) {
		return fmt.Sprintf("%.1f %ciB", x, "KMGTP"[unit])
	}
	return fmt.Sprintf("%.0f %ciB", x, "KMGTP"[unit])
}

var units = []struct {
	name string
	d    time.Duration
}{
	{"year", 365 * day}, {"day", day}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second},
}

const day = 24 * time.Hour

// inWords returns d in words: "23 hours".
func inWords(d time.Duration) string {
	for _, u := range units {
		if n := d / u.d; n > 0 {
			return plural(int(n), u.name)
		}
	}
	return "less than a second"
}

// short returns d for a table: "23h", "5d".
func short(d time.Duration) string {
	for _, u := range units[1:] {
		if n := d / u.d; n > 0 {
			return strconv.Itoa(int(n)) + u.name[:1]
		}
	}
	return "0s"
}

// plural returns "1 session", "2 sessions".
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// age is the duration of a flag. It may also be in days and weeks: "2d", "1w12h".
type age time.Duration

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "duration" }

func (a *age) Set(s string) error {
	bad := errors.New("not a duration such as 90m, 36h, 2d or 1w")
	var total time.Duration
	rest := s
	for _, u := range []struct {
		letter string
		d      time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		n, after, ok := strings.Cut(rest, u.letter)
		if !ok {
			continue
		}
		count, err := strconv.ParseUint(n, 10, 12) // up to 4,095, so that nothing overflows
		if err != nil {
			return bad
		}
		total, rest = total+time.Duration(count)*u.d, after
	}
	if rest != "" || s == "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || d > 4096*day {
			return bad
		}
		total += d
	}
	*a = age(total)
	return nil
}

// cut returns the first n characters of s, and an ellipsis if there are more.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := 0
	for count := 0; i < len(s) && count < n; count++ {
		_, w := utf8.DecodeRuneInString(s[i:])
		i += w
	}
	if i == len(s) {
		return s
	}
	return s[:i] + ellipsis
}
