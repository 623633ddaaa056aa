package main

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(999), "999 B"}, {size(1000), "1.0 KiB"}, {size(1024), "1 KiB"}, {size(1536), "1.5 KiB"},
		{size(10 << 10), "10 KiB"}, {size(1000 << 10), "1.0 MiB"}, {size(1 << 20), "1 MiB"}, {size(1 << 62), "4096 PiB"},
		{inWords(0), "less than a second"}, {inWords(time.Second), "1 second"}, {inWords(59 * time.Second), "59 seconds"},
		{inWords(119 * time.Minute), "1 hour"}, {inWords(23*time.Hour + 59*time.Minute), "23 hours"}, {inWords(48 * time.Hour), "2 days"},
		{inWords(400 * day), "1 year"}, {inWords(-time.Hour), "less than a second"},
		{short(0), "0s"}, {short(90 * time.Second), "1m"}, {short(36 * time.Hour), "1d"}, {short(800 * day), "800d"},
		{plural(0, "session"), "0 sessions"}, {plural(1, "session"), "1 session"},
		{cut("añb", 2), "añ…"}, {cut("añ", 2), "añ"}, {cut("\xff\xff\xff", 2), "\xff\xff…"},
		{show("ä"), "ä"}, {show(""), `""`}, {show("a\x1bb"), `"a\x1bb"`}, {show("a\xff"), `"a\xff"`}, {show("\ufffd"), "\ufffd"}, {show("\u202e"), `"\u202e"`},
		{oneLine("a\nb \"c\" ä"), `a\nb "c" ä`},
		{string(safeJSON([]byte("\"ä\u009b\U000e0001\xff\""))), `"ä\u009b\udb40\udc01\ufffd"`},
		{encodeURIComponent("é!"), "%C3%A9!"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2d": 2 * day, "1w": 7 * day, "1w2d3h": 9*day + 3*time.Hour, "1d30m": day + 30*time.Minute, "0": 0,
	} {
		var a age
		if err := a.Set(in); err != nil || time.Duration(a) != want {
			t.Errorf("age %q = %v, %v, want %v", in, time.Duration(a), err, want)
		}
	}
	for _, in := range []string{"", "d", "-1d", "1d-2h", "1.5d", "1d1w", "2x", "1", "9999999w", "99999999h", "2dd"} {
		var a age
		if err := a.Set(in); err == nil {
			t.Errorf("age %q = %v, want an error", in, time.Duration(a))
		}
	}
}
