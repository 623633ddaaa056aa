package format_test

import (
	"math"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
)

var now = time.UnixMilli(1_795_249_098_866)

// The last access of a session is at most clockSkew in the future, whatever the file says.
func TestLastAccess(t *testing.T) {
	const skew = format.ClockSkew
	ago := now.Add(-time.Minute)
	for _, tt := range []struct {
		what               string
		said, mtime, ctime time.Time
		want               time.Time
		assumed            bool
	}{
		{"said", ago, now, now, ago, false},
		{"within the clocks' difference", now.Add(skew), ago, ago, now.Add(skew), false},
		{"ahead", now.Add(skew + 1), ago, ago, ago, true},
		{"ahead, and its ctime too", now.Add(time.Hour), ago, now.Add(time.Hour), now, true},
		{"not said", time.Time{}, ago, now, ago, false},
		{"not said, the mtime ahead", time.Time{}, now.Add(time.Hour), ago, ago, true},
		{"not said, both ahead", time.Time{}, now.Add(time.Hour), now.Add(time.Hour), now, true},
	} {
		at, assumed := format.LastAccess(tt.said, tt.mtime, tt.ctime, now)
		if !at.Equal(tt.want) || assumed != tt.assumed {
			t.Errorf("%s: %v, %v, want %v, %v", tt.what, at, assumed, tt.want, tt.assumed)
		}
	}
}

func TestExpired(t *testing.T) {
	for _, tt := range []struct {
		maxAge, ttl, since time.Duration
		want               bool
	}{
		{0, time.Second, time.Second, false}, // the last millisecond is alive
		{0, time.Second, time.Second + time.Millisecond, true},
		{2 * time.Second, time.Second, 2 * time.Second, false},
		{time.Millisecond, time.Hour, 2 * time.Millisecond, true},
		{-1, time.Hour, 0, true},
		{0, -1, 0, true},
		{math.MaxInt64, 1, 0, false},
	} {
		if got := format.Expired(now.Add(-tt.since), format.Life(tt.maxAge, tt.ttl), now); got != tt.want {
			t.Errorf("maxAge %v, TTL %v, after %v: %v", tt.maxAge, tt.ttl, tt.since, got)
		}
	}
}

// The mtime of a file is the end of its session. Until then the file is not due.
func TestMtime(t *testing.T) {
	end := now.Add(time.Hour + 123*time.Microsecond)
	if got := format.Mtime(end); !got.Equal(now.Add(time.Hour)) {
		t.Errorf("Mtime(%v) = %v", end, got)
	}
	for _, far := range []time.Time{now.Add(math.MaxInt64), time.Unix(1<<40, 0)} {
		if got := format.Mtime(far); got.Before(now.AddDate(10, 0, 0)) || got.UnixNano() < 0 {
			t.Errorf("Mtime(%v) = %v", far, got)
		}
	}
	for _, tt := range []struct {
		mtime, ctime time.Duration // from now
		want         bool
	}{
		{1, -1, true}, {0, -1, false}, {-1, -1, false},
		{time.Hour, format.ClockSkew, true}, {time.Hour, format.ClockSkew + 1, false},
	} {
		if got := format.NotDue(now.Add(tt.mtime), now.Add(tt.ctime), now); got != tt.want {
			t.Errorf("NotDue(%v, %v) = %v", tt.mtime, tt.ctime, got)
		}
	}
}

func TestMaxAge(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		"null": 0, "false": 0, "0": 0, "-0": 0, `"5000"`: 0, `""`: 0, "{}": 0, "[]": 0,
		"5000": 5 * time.Second, "1": time.Millisecond, "1500.75": 1_500_750 * time.Microsecond, "true": time.Millisecond,
		"-1": -time.Millisecond, "-1e300": math.MinInt64, "1e-300": 1, "-1e-300": -1, "1e18": math.MaxInt64, "1e400": math.MaxInt64,
	} {
		if got := format.MaxAge(raw); got != want {
			t.Errorf("MaxAge(%s) = %v, want %v", raw, got, want)
		}
	}
}

func TestClockStep(t *testing.T) {
	from := time.Now()
	if step := format.ClockStep(from, from.Add(time.Hour)); step != 0 {
		t.Errorf("an hour passed: %v", step)
	}
	set := from.Round(0).Add(time.Hour) // as if the steady clock had stood still
	if step := format.ClockStep(from.Round(0), set); step != 0 {
		t.Errorf("without a steady clock: %v", step)
	}
}
