package words

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Size(0), "0 B"}, {Size(999), "999 B"}, {Size(1000), "1.0 KiB"}, {Size(1024), "1 KiB"}, {Size(1536), "1.5 KiB"},
		{Size(10 << 10), "10 KiB"}, {Size(1000 << 10), "1.0 MiB"}, {Size(1 << 20), "1 MiB"}, {Size(1 << 62), "4096 PiB"},
		{InWords(0), "less than a second"}, {InWords(time.Second), "1 second"}, {InWords(59 * time.Second), "59 seconds"},
		{InWords(119 * time.Minute), "1 hour"}, {InWords(23*time.Hour + 59*time.Minute), "23 hours"}, {InWords(48 * time.Hour), "2 days"},
		{InWords(400 * Day), "1 year"}, {InWords(-time.Hour), "less than a second"},
		{Short(0), "0s"}, {Short(90 * time.Second), "1m"}, {Short(36 * time.Hour), "1d"}, {Short(800 * Day), "800d"},
		{Plural(0, "session"), "0 sessions"}, {Plural(1, "session"), "1 session"},
		{Cut("añb", 2), "añ…"}, {Cut("añ", 2), "añ"}, {Cut("\xff\xff\xff", 2), "\xff\xff…"},
		{Line("a\nb \"c\" ä"), `a\nb "c" ä`},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2d": 2 * Day, "1w": 7 * Day, "1w2d3h": 9*Day + 3*time.Hour, "1d30m": Day + 30*time.Minute, "0": 0,
	} {
		var a Age
		if err := a.Set(in); err != nil || time.Duration(a) != want {
			t.Errorf("age %q = %v, %v, want %v", in, time.Duration(a), err, want)
		}
	}
	for _, in := range []string{"", "d", "-1d", "1d-2h", "1.5d", "1d1w", "2x", "1", "9999999w", "99999999h", "2dd"} {
		var a Age
		if err := a.Set(in); err == nil {
			t.Errorf("age %q = %v, want an error", in, time.Duration(a))
		}
	}
}
