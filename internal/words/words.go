// Package words says numbers, sizes and times in few words, for people who look at sessions.
package words

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Size returns a number of bytes in a few characters: "1.5 KiB".
func Size(n int64) string {
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
	{"year", 365 * Day}, {"day", Day}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second},
}

// Day is 24 hours.
const Day = 24 * time.Hour

// InWords returns d in words: "23 hours".
func InWords(d time.Duration) string {
	for _, u := range units {
		if n := d / u.d; n > 0 {
			return Plural(int(n), u.name)
		}
	}
	return "less than a second"
}

// Short returns d for a table: "23h", "5d".
func Short(d time.Duration) string {
	for _, u := range units[1:] {
		if n := d / u.d; n > 0 {
			return strconv.Itoa(int(n)) + u.name[:1]
		}
	}
	return "0s"
}

// Plural returns "1 session", "2 sessions".
func Plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// An Age is the duration of a flag. It may also be in days and weeks: "2d", "1w12h".
type Age time.Duration

func (a *Age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *Age) Type() string { return "duration" }

func (a *Age) Set(s string) error {
	bad := errors.New("not a duration such as 90m, 36h, 2d or 1w")
	var total time.Duration
	rest := s
	for _, u := range []struct {
		letter string
		d      time.Duration
	}{{"w", 7 * Day}, {"d", Day}} {
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
		if err != nil || d < 0 || d > 4096*Day {
			return bad
		}
		total += d
	}
	*a = Age(total)
	return nil
}

// Ellipsis stands for what was cut off.
const Ellipsis = "…"

// Cut returns the first n characters of s, and an Ellipsis if there are more.
func Cut(s string, n int) string {
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
	return s[:i] + Ellipsis
}

// Line returns s on one line, with escapes for control characters, for characters that change the direction of
// others, and for bytes that are not UTF-8: who reads it sees them, and no terminal and no browser obeys them.
func Line(s string) string {
	q := strconv.Quote(s)
	if q = q[1 : len(q)-1]; q == s {
		return s
	}
	return unquoted.Replace(q)
}

var unquoted = strings.NewReplacer(`\"`, `"`, `\\`, `\`)
