package interop

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
)

// bubble is the time at which a synctest bubble begins. The clock of Node is stopped at it, too.
var bubble = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// An expiry is a file, and the ttl with which it is judged.
type expiry struct {
	name         string
	originalMax  string // JSON; "" = the cookie has none
	lastAccess   string // JSON; "" = absent
	ttl          time.Duration
	expires      string        // of the cookie; "" = null
	after        time.Duration // the time from the beginning of the bubble until it is judged; the cases are in this order
	departure    string        // why Go differs from Node; "" = it must not
	goLives      bool          // with a departure
	ageOfTheFile time.Duration // mtime before the bubble's beginning
}

func (e expiry) text() string {
	cookie := ""
	if e.originalMax != "" {
		cookie = `"originalMaxAge":` + e.originalMax + ","
	}
	expires := "null"
	if e.expires != "" {
		expires = `"` + e.expires + `"`
	}
	cookie = `{"cookie":{` + cookie + `"expires":` + expires + `,"httpOnly":true,"path":"/"}`
	if e.lastAccess != "" {
		cookie += `,"__lastAccess":` + e.lastAccess
	}
	return cookie + "}"
}

// goTTL returns ttl as Options.TTL, in which 0 is the default. In Node 0 is no life, like a negative ttl.
func (e expiry) goTTL() time.Duration {
	if e.ttl == 0 {
		return -1
	}
	return e.ttl
}

// compareExpiry writes the files of the cases and compares the verdicts of both sides.
func compareExpiry(t *testing.T, cases []expiry) (live int) {
	t.Helper()
	dir := t.TempDir()
	id := func(i int) string { return fmt.Sprintf("case-%d", i) }
	verdicts := make([]struct{ Get, Rule bool }, len(cases))
	n := driver(t)
	groups := make(map[time.Duration][]int) // by the instant of judgement
	for i, e := range cases {
		plant(t, dir, id(i)+".json", e.text())
		written := bubble.Add(-e.ageOfTheFile)
		must(t, os.Chtimes(filepath.Join(dir, id(i)+".json"), written, written))
		groups[e.after] = append(groups[e.after], i)
	}
	for after, members := range groups {
		var asked []object
		for _, i := range members {
			asked = append(asked, object{"sid": id(i), "ttl": cases[i].ttl.Seconds()})
		}
		got := call[[]struct{ Get, Rule bool }](t, n, "verdicts",
			object{"dir": dir, "now": bubble.Add(after).UnixMilli(), "cases": asked})
		for k, i := range members {
			verdicts[i] = got[k]
		}
	}
	synctest.Test(t, func(t *testing.T) {
		stores := make(map[time.Duration]*filestore.Store)
		for i, e := range cases { // in order of e.after
			time.Sleep(time.Until(bubble.Add(e.after)))
			s := stores[e.goTTL()]
			if s == nil {
				var err error
				s, err = filestore.Open(dir, &filestore.Options{TTL: e.goTTL(), ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				stores[e.goTTL()] = s
			}
			live += judge(t, s, id(i), e, verdicts[i])
		}
	})
	return live
}

// judge compares Get with Node. It returns 1 for a live session.
func judge(t *testing.T, s *filestore.Store, id string, e expiry, node struct{ Get, Rule bool }) int {
	t.Helper()
	_, err := s.Get(ctx, id)
	if err != nil && !errors.Is(err, filestore.ErrExpired) {
		t.Errorf("%s: Get() of %s = %v", e.name, e.text(), err)
		return 0
	}
	if node.Get != node.Rule {
		t.Errorf("%s: Node's get and isExpired differ for %s", e.name, e.text())
	}
	want := node.Get
	if e.departure != "" {
		want = e.goLives
	}
	if got := err == nil; got != want {
		t.Errorf("%s: at %d, ttl %v, %s: Go finds it alive %v, want %v (Node %v)", e.name, time.Now().UnixMilli(), e.ttl, e.text(), got, want, node.Get)
	}
	if err == nil {
		return 1
	}
	return 0
}

func ms(t time.Time) string { return fmt.Sprint(t.UnixMilli()) }

func TestExpiry(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return ms(bubble.Add(d)) }
	minute := "60000"
	cases := []expiry{
		{name: "07 the last millisecond", lastAccess: at(-time.Hour), ttl: time.Hour},
		{name: "07 one later", lastAccess: at(-time.Hour - time.Millisecond), ttl: time.Hour},
		{name: "07 one earlier", lastAccess: at(-time.Hour + time.Millisecond), ttl: time.Hour},
		{name: "07 of maxAge: the last millisecond", originalMax: minute, lastAccess: at(-time.Minute), ttl: time.Hour},
		{name: "07 of maxAge: one later", originalMax: minute, lastAccess: at(-time.Minute - time.Millisecond), ttl: time.Hour},
		{name: "08 maxAge longer than the ttl", originalMax: "7200000", lastAccess: at(-90 * time.Minute), ttl: time.Hour},
		{name: "08 maxAge shorter than the ttl", originalMax: minute, lastAccess: at(-2 * time.Minute), ttl: time.Hour},
		{name: "09 maxAge 0, within the ttl", originalMax: "0", lastAccess: at(-time.Minute), ttl: time.Hour},
		{name: "09 maxAge null, within the ttl", originalMax: "null", lastAccess: at(-time.Minute), ttl: time.Hour},
		{name: "09 maxAge false, within the ttl", originalMax: "false", lastAccess: at(-time.Minute), ttl: time.Hour},
		{name: "09 no maxAge, within the ttl", lastAccess: at(-time.Minute), ttl: time.Hour},
		{name: "09 maxAge 0, beyond the ttl", originalMax: "0", lastAccess: at(-2 * time.Hour), ttl: time.Hour},
		{name: "09 maxAge null, beyond the ttl", originalMax: "null", lastAccess: at(-2 * time.Hour), ttl: time.Hour},
		{name: "09 maxAge false, beyond the ttl", originalMax: "false", lastAccess: at(-2 * time.Hour), ttl: time.Hour},
		{name: "10 expires has passed", lastAccess: at(-time.Minute), ttl: time.Hour, expires: "1999-01-01T00:00:00.000Z"},
		{name: "10 expires is far", lastAccess: at(-2 * time.Hour), ttl: time.Hour, expires: "2099-01-01T00:00:00.000Z"},
		{name: "10 expires is not a date", originalMax: minute, lastAccess: at(-time.Second), ttl: time.Hour, expires: "soon"},
		{name: "12 ttl 0", lastAccess: at(0), ttl: 0},
		{name: "12 ttl negative", lastAccess: at(0), ttl: -time.Second},
		{name: "12 ttl 0 with a maxAge", originalMax: minute, lastAccess: at(0), ttl: 0},
		{name: "12 maxAge negative", originalMax: "-1", lastAccess: at(0), ttl: time.Hour},
		{name: "12 maxAge true is 1 ms", originalMax: "true", lastAccess: at(-time.Millisecond), ttl: time.Hour},
		{name: "12 maxAge true is not more", originalMax: "true", lastAccess: at(-2 * time.Millisecond), ttl: time.Hour},
		{name: "07 a last access a little ahead", lastAccess: at(time.Minute), ttl: time.Hour},

		// Here the time is within a millisecond: Date.now() does not have fractions.
		{name: "07 within the last millisecond", lastAccess: at(-time.Hour), ttl: time.Hour, after: 999 * time.Microsecond},
		{name: "07 after it", lastAccess: at(-time.Hour), ttl: time.Hour, after: time.Millisecond},
	}
	if live := compareExpiry(t, cases); live < 5 || live > len(cases)-5 {
		t.Errorf("%d of %d cases are alive: they tell little", live, len(cases))
	}
}

// Go departs from Node if a session would live for ever, or if a clock was wrong.
func TestExpiryDepartures(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return ms(bubble.Add(d)) }
	const byFile = "without a valid last access the mtime of the file counts"
	const noAge = "a maxAge that is not a number does not count"
	const ahead = "a last access far ahead is now"
	var cases []expiry
	for _, bad := range []string{"", "null", `"946684800000"`, `"x"`, "-1", "1e400", "true", "[]", "{}"} {
		name := "11 __lastAccess " + bad
		cases = append(cases,
			expiry{name: name, lastAccess: bad, ttl: time.Hour, departure: byFile, goLives: true, ageOfTheFile: time.Minute},
			expiry{name: name + " of an old file", lastAccess: bad, ttl: time.Hour, departure: byFile, goLives: false, ageOfTheFile: 2 * time.Hour},
			expiry{name: name + " with a maxAge", originalMax: "60000", lastAccess: bad, ttl: time.Hour, departure: byFile, goLives: false, ageOfTheFile: 2 * time.Minute})
	}
	for _, text := range []string{`"1000"`, `"x"`, `""`, "[]", "{}", "[1000]"} {
		name := "12 maxAge " + text
		cases = append(cases,
			expiry{name: name, originalMax: text, lastAccess: at(-time.Minute), ttl: time.Hour, departure: noAge, goLives: true},
			expiry{name: name + " beyond the ttl", originalMax: text, lastAccess: at(-2 * time.Hour), ttl: time.Hour, departure: noAge, goLives: false})
	}
	for _, d := range []time.Duration{6 * time.Minute, 24 * time.Hour, 1000 * time.Hour} {
		cases = append(cases,
			expiry{name: "11 __lastAccess ahead", lastAccess: at(d), ttl: time.Hour, departure: ahead, goLives: true},
			expiry{name: "11 __lastAccess ahead, ttl negative", lastAccess: at(d), ttl: -time.Second, departure: ahead, goLives: false})
	}
	compareExpiry(t, cases)
}

// A session whose last access is assumed still ends: the reaper writes it down.
func TestExpiryAssumed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := open(t, dir, nil)
	plant(t, dir, "ahead.json", doc(time.Now().Add(1000*time.Hour), ""))
	plant(t, dir, "none.json", `{"cookie":{}}`)
	if n, err := store.Reap(ctx); n != 0 || err != nil {
		t.Fatalf("Reap() = %d, %v, want 0", n, err)
	}
	sess := checkText(t, read(t, dir, "ahead.json"))
	if age := time.Since(sess.LastAccess).Abs(); age > time.Minute {
		t.Errorf("11 after Reap ahead.json was last accessed at %v, want now", sess.LastAccess)
	}
	// Its mtime is good enough as a date. Writing it down would prolong the session.
	if got, want := read(t, dir, "none.json"), `{"cookie":{}}`; got != want {
		t.Errorf("11 after Reap none.json is %s, want %s", got, want)
	}
}

// Both sides judge 500 random files alike.
func TestExpiryRandom(t *testing.T) {
	t.Parallel()
	const seed = 1_795_249_098
	rnd := rand.New(rand.NewPCG(seed, 0))
	pick := func(values ...string) string { return values[rnd.IntN(len(values))] }
	// span is often close to one of the lives below.
	span := func() time.Duration {
		switch rnd.IntN(4) {
		case 0:
			return time.Duration(rnd.Int64N(int64(3 * time.Hour))).Truncate(time.Millisecond)
		case 1:
			return time.Hour + time.Duration(rnd.IntN(5)-2)*time.Millisecond
		case 2:
			return time.Minute + time.Duration(rnd.IntN(5)-2)*time.Millisecond
		}
		return time.Duration(rnd.IntN(5)) * time.Millisecond
	}
	cases := make([]expiry, 500)
	for i := range cases {
		e := expiry{name: fmt.Sprintf("07 random case %d", i)}
		fraction := false
		switch rnd.IntN(10) {
		case 0:
			e.originalMax = pick("null", "false", "0", "-0", "0.0", "")
		case 1:
			e.originalMax = pick("-1", "-60000", "-0.5", "-1e300", "-9007199254740993")
		case 2:
			e.originalMax = pick("1e300", "9223372036854775807", "9223372036855", "1e18", "18446744073709551616", "253402300799999", "1e400")
		case 3:
			e.originalMax, fraction = pick("59999.5", "60000.75", "3600000.001", "0.5", "1e-7", "1.5", "6.00005e4"), true
		case 4:
			e.originalMax = pick("true", "1", "2")
		case 5, 6:
			e.originalMax = pick("null", "false", "0")
		default:
			e.originalMax = fmt.Sprint(span().Milliseconds())
		}
		// The last access is never ahead, because the end of a negative life would depend on how far.
		last := ms(bubble.Add(-span()))
		switch rnd.IntN(10) {
		case 0:
			last = pick("0", "1", "946684800", "1e11", "9.46e11") // seconds for milliseconds; long ago
		case 1:
			if !fraction { // Date.now() does not have fractions, and two can add up
				last += pick(".0", ".25", ".999")
			}
		}
		e.lastAccess = last
		e.ttl = []time.Duration{time.Hour, time.Hour, time.Minute, 1500 * time.Millisecond, time.Second, 0, -time.Second, 24 * time.Hour, 100 * 365 * 24 * time.Hour}[rnd.IntN(9)]
		e.expires = pick("", "", "1990-01-01T00:00:00.000Z", "2030-01-01T00:00:00.000Z", "x")
		cases[i] = e
	}
	live := compareExpiry(t, cases)
	if live < 100 || live > 400 {
		t.Errorf("%d of %d random cases are alive: they tell little", live, len(cases))
	}
	t.Logf("seed %d: %d of %d alive", seed, live, len(cases))
}
