package format

import (
	"cmp"
	"math"
	"strconv"
	"time"
)

// ClockSkew is how far the clocks of programs on one directory may differ.
const ClockSkew = 5 * time.Minute

// ClockStep returns by how much the clock was set between two instants: the time that has passed by it,
// less the time that has passed by the steady one.
func ClockStep(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// parseTime returns the instant in raw, the JSON of a __lastAccess, to the millisecond; the zero time
// if raw is not a number that can be one.
func parseTime(raw string) time.Time {
	const last = 8.64e15 // of ECMAScript
	ms, err := strconv.ParseFloat(raw, 64)
	if err != nil || ms < 0 || ms > last {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// Dated reports whether the file itself says when the session was accessed, and did not say so while
// the clock was ahead.
func Dated(said, now time.Time) bool { return !said.IsZero() && !said.After(now.Add(ClockSkew)) }

// LastAccess makes sure that no session lives for ever. said is the file's __lastAccess: if it is
// missing, the last access is the file's mtime. A last access that lies in the future by more than
// ClockSkew becomes the file's ctime, or now if that is earlier; assumed tells of that.
func LastAccess(said, mtime, ctime, now time.Time) (at time.Time, assumed bool) {
	if said.IsZero() {
		said = mtime
	}
	if Dated(said, now) {
		return said, false
	}
	if ctime.After(now) {
		ctime = now
	}
	return ctime.Truncate(time.Millisecond), true
}

// MaxAge returns the life in raw, the JSON of a cookie's originalMaxAge in milliseconds. It follows
// JavaScript for numbers, null and booleans: null, false and 0 are "none", true is 1 ms. Any other type
// is "none" too. (Node would concatenate a string and let the session live for ever.)
func MaxAge(raw string) time.Duration {
	if raw == "true" {
		return time.Millisecond
	}
	ms, _ := strconv.ParseFloat(raw, 64) // with an error an infinity if raw is out of range, else 0
	ns := ms * float64(time.Millisecond)
	switch {
	case ns >= math.MaxInt64:
		return math.MaxInt64
	case ns <= math.MinInt64:
		return math.MinInt64
	case ns != 0 && math.Abs(ns) < 1: // a fraction of a nanosecond is not "none"
		return time.Duration(math.Copysign(1, ns))
	}
	return time.Duration(ns)
}

// Life returns how long a session lives after an access: its cookie's maxAge, or ttl if it has none.
func Life(maxAge, ttl time.Duration) time.Duration { return cmp.Or(maxAge, ttl) }

// Capped returns life, cut so that a session that was created then ends when lifetime has passed. There is no
// limit if lifetime or created is zero.
func Capped(life time.Duration, lastAccess, created time.Time, lifetime time.Duration) time.Duration {
	if lifetime == 0 || created.IsZero() {
		return life
	}
	return min(life, created.Add(lifetime).Sub(lastAccess))
}

// Created returns when a session was created, or zero if that is not known: said is the file's __created,
// which counts for nothing if it lies ahead.
func Created(said, now time.Time) time.Time {
	if !Dated(said, now) {
		return time.Time{}
	}
	return said
}

// Expired is session-file-store's rule: a session has expired strictly after the last millisecond of
// its life, and at once if its life is nothing.
func Expired(lastAccess time.Time, life time.Duration, now time.Time) bool {
	return life <= 0 || lastAccess.Add(life).UnixMilli() < now.UnixMilli()
}

// Mtime returns the modification time for the file of a session that ends then. To the reaper it is a
// hint, and to whoever runs ls -l.
func Mtime(ends time.Time) time.Time {
	const latest = min(1<<33, math.MaxInt) // seconds, the year 2242; beyond 2262 the os package overflows, a 32-bit system in 2038
	if ends.Unix() > latest {
		return time.Unix(latest, 0)
	}
	return ends.Truncate(time.Millisecond)
}

// NotDue reports whether the times of a file tell that its session has not ended: the reaper then
// neither reads nor removes it. A file that was changed in the future, as the ctime shows, was changed
// while the clock was ahead, and its mtime tells nothing.
func NotDue(mtime, ctime, now time.Time) bool {
	return mtime.After(now) && !ctime.After(now.Add(ClockSkew))
}
