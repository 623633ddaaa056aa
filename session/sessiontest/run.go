package sessiontest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// Run tests that a session.Store keeps its promises. open is called for each subtest and returns a
// Store without sessions; the subtests run in parallel. Run looks for the optional interfaces
// session.Creator, Updater, Toucher, Lifer, Limiter, Finder, Watcher and Reaper, tests those that it
// finds, and logs which they are. (A Reaper is tested if it has Reap, as filestore's Store has.)
//
// Each failure says which promise is broken. The sessions have lives of a second and more, and Run
// takes some seconds because it waits until they end. It stores ids of up to 200 bytes, and values of
// up to 100 KB. A Lifetime must be none, or a minute and more. It does not test that sessions survive a
// restart.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for name, test := range map[string]func(t *testing.T, s session.Store){
		"Get":         testGet,
		"Values":      testValues,
		"IDs":         testIDs,
		"Destroy":     testDestroy,
		"Expiry":      testExpiry,
		"Parallel":    testParallel,
		"Creator":     testCreator,
		"Updater":     testUpdater,
		"Toucher":     testToucher,
		"Lifer":       testLifer,
		"Limiter":     testLimiter,
		"Finder":      testFinder,
		"Watcher":     testWatcher,
		"Reaper":      testReaper,
		"Sessions":    testSessions,
		"Middleware":  testMiddleware,
		"Replacement": testReplacement,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			if l, ok := s.(session.Limiter); ok && l.Lifetime() != 0 && l.Lifetime() < time.Minute {
				t.Fatalf("Lifetime = %v, want 0, or a minute and more for these tests", l.Lifetime())
			}
			test(t, s)
		})
	}
}

// as returns s as an optional interface, whose name is what, or skips the test.
func as[T any](t *testing.T, s session.Store, what string) T {
	t.Helper()
	v, ok := s.(T)
	if !ok {
		t.Skipf("not tested: %T is not a session.%s, which is optional", s, what)
	}
	t.Logf("%T is a session.%s", s, what)
	return v
}

var ctx = context.Background()

const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"

// with returns a session that lives for a minute after its last access, with the JSON doc as its values.
func with(t *testing.T, doc string) *filestore.Session {
	t.Helper()
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: time.Minute, HTTPOnly: true, Path: "/"}, LastAccess: time.Now()}
	if err := json.Unmarshal([]byte(doc), &sess.Values); err != nil {
		t.Fatal(err)
	}
	return sess
}

// lasting returns a session that lives for d, with the values {"a":1}.
func lasting(t *testing.T, d time.Duration) *filestore.Session {
	t.Helper()
	sess := with(t, `{"a":1}`)
	sess.Cookie.OriginalMaxAge = d
	sess.Cookie.Expires = time.Now().Add(d)
	return sess
}

func set(t *testing.T, s session.Store, id string, sess *filestore.Session) {
	t.Helper()
	if err := s.Set(ctx, id, sess); err != nil {
		t.Fatalf("Set(%.40q) = %v", id, err)
	}
}

// look returns the session id, or an error that says that Get has not.
func look(s session.Store, id string) (*filestore.Session, error) {
	sess, err := s.Get(ctx, id)
	if err != nil || sess == nil {
		return nil, fmt.Errorf("Get(%.40q) returns no session, and the error %v", id, err)
	}
	return sess, nil
}

// get returns the session id, which must be there.
func get(t *testing.T, s session.Store, id string) *filestore.Session {
	t.Helper()
	sess, err := look(s, id)
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

// holds fails unless Get returns the session id with the values doc. A Store may spell JSON in another
// way. when says what has happened before.
func holds(t *testing.T, s session.Store, id, doc, when string) {
	t.Helper()
	sess, err := look(s, id)
	if err != nil {
		t.Errorf("%s: %v, want one with the values %.200s", when, err, doc)
		return
	}
	got, err := json.Marshal(sess.Values)
	if err != nil {
		t.Errorf("%s: the values of Get(%.40q) are not JSON: %v", when, id, err)
		return
	}
	if g, w := normal(t, got), normal(t, []byte(doc)); g != w {
		t.Errorf("%s: Get(%.40q) has the values %.200s, want %.200s", when, id, g, w)
	}
}

// normal returns doc with its members in one order and without white space.
func normal(t *testing.T, doc []byte) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// gone fails unless Get says that there is no session id. There is one way to say so.
func gone(t *testing.T, s session.Store, id, when string) {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if sess != nil {
		t.Errorf("%s: Get(%.40q) returns a session, and the error %v, want no session", when, id, err)
	}
	if !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("%s: Get(%.40q) returns the error %v, want filestore.ErrNotFound", when, id, err)
	}
}

func testGet(t *testing.T, s session.Store) {
	gone(t, s, id, "before any Set")
	set(t, s, id, with(t, `{"a":1}`))
	holds(t, s, id, `{"a":1}`, "after Set")
	set(t, s, id, with(t, `{"b":2}`))
	holds(t, s, id, `{"b":2}`, "after a second Set, which replaces the session")
	sess := get(t, s, id)
	if c := sess.Cookie; c.OriginalMaxAge != time.Minute || !c.HTTPOnly || c.Path != "/" {
		t.Errorf("Get has the cookie %+v, want OriginalMaxAge, HTTPOnly and Path as they were set", c)
	}
	if d := time.Since(sess.LastAccess).Abs(); d > 10*time.Second {
		t.Errorf("Get has a LastAccess %v from now, want the time of Set", d)
	}
	c := filestore.Cookie{OriginalMaxAge: time.Hour, Expires: time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC(), Secure: true, Partitioned: true,
		Path: "/app", Domain: "example.com", SameSite: "strict", Priority: "high"}
	all := with(t, `{}`)
	all.Cookie = c
	set(t, s, id, all)
	got := get(t, s, id).Cookie
	if !got.Expires.Equal(c.Expires) {
		t.Errorf("Get has a cookie that Expires at %v, want %v, to the millisecond", got.Expires, c.Expires)
	}
	if got.Expires = c.Expires; got != c {
		t.Errorf("Get has the cookie %+v, want every field as it was set: %+v", got, c)
	}
}

func testValues(t *testing.T, s session.Store) {
	for _, doc := range []string{
		`{}`,
		`{"user":"anna","n":0,"f":-1.5,"t":true,"z":null,"l":[1,[2,{}]],"o":{"o":{"k":"v"}}}`,
		`{"big":12345678901234567890,"small":1e-7}`,
		`{"unicode":"ü € 🔑 \u2028 </script> \"\\ \n","ключ":1,"":2}`,
		`{"long":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		set(t, s, id, with(t, doc))
		holds(t, s, id, doc, "all JSON comes back as it was set")
	}
}

// The middleware calls Get with any string that one of the Secrets has signed.
func testIDs(t *testing.T, s session.Store) {
	for _, good := range []string{id, "-_-", "0", strings.Repeat("a", 200)} {
		set(t, s, good, with(t, `{"a":1}`))
		holds(t, s, good, `{"a":1}`, "after Set")
	}
	for _, bad := range []string{"", "../x", "a/b", "a b", "x\x00y", "\xff", "*", "%", "_", strings.Repeat("a", 100_000)} {
		gone(t, s, bad, "an id that was never set, of whatever characters")
	}
}

func testDestroy(t *testing.T, s session.Store) {
	if err := s.Destroy(ctx, id); err != nil {
		t.Errorf("Destroy of a session that does not exist = %v, want nil", err)
	}
	set(t, s, id, with(t, `{"a":1}`))
	set(t, s, "other", with(t, `{"a":2}`))
	for range 2 {
		if err := s.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy = %v, want nil, the second time too", err)
		}
		gone(t, s, id, "after Destroy")
	}
	holds(t, s, "other", `{"a":2}`, "after Destroy of another session")
}

func testExpiry(t *testing.T, s session.Store) {
	set(t, s, "expired", lasting(t, -time.Second))
	gone(t, s, "expired", "a session whose time is over")
	set(t, s, "long", lasting(t, time.Hour))
	timely(t, "a session that lives for 2 s, at once", 2*time.Second, func() error {
		set(t, s, "short", lasting(t, 2*time.Second))
		_, err := look(s, "short")
		return err
	})
	time.Sleep(3500 * time.Millisecond) // a Store may count whole seconds
	gone(t, s, "short", "a session that lives for 2 s, after 3.5 s")
	holds(t, s, "long", `{"a":1}`, "a session that lives for an hour, after 3.5 s")
	set(t, s, "short", with(t, `{"b":2}`))
	holds(t, s, "short", `{"b":2}`, "after Set with the id of an expired session")
}

// timely calls fn, and again if it fails after the time of a session in it may have been over: the machine can be busy.
func timely(t *testing.T, when string, limit time.Duration, fn func() error) {
	t.Helper()
	for try := 1; ; try++ {
		began := time.Now()
		err := fn()
		if err == nil {
			return
		}
		if took := time.Since(began); took < limit || try == 10 {
			t.Fatalf("%s: %v; it took %v", when, err, took)
		}
	}
}

// A reader sees one of the values that were set; there is no third possibility.
func testParallel(t *testing.T, s session.Store) {
	doc := func(n int) string { return fmt.Sprintf(`{"a":%d,"fill":%q,"b":%d}`, n, strings.Repeat("x", 1000*n), n) }
	set(t, s, id, with(t, doc(1)))
	var wg sync.WaitGroup
	for n := 1; n <= 4; n++ {
		sess := with(t, doc(n))
		wg.Go(func() {
			for range 25 {
				if err := s.Set(ctx, id, sess); err != nil {
					t.Errorf("Set beside others = %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				sess, err := s.Get(ctx, id)
				if err != nil || sess == nil {
					t.Errorf("Get beside Set returns no session, and the error %v, want one at every moment", err)
				} else if a, b := sess.Values["a"], sess.Values["b"]; string(a) != string(b) {
					t.Errorf("Get beside Set has a = %s of one Set and b = %s of another, want one whole session", a, b)
				}
			}
		})
	}
	wg.Wait()
}

// count calls fn n times at once and returns how often it succeeded. Otherwise it must fail with
// sentinel.
func count(t *testing.T, n int, fn func(n int) error, sentinel error) (succeeded int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := fn(i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				succeeded++
			case !errors.Is(err, sentinel):
				t.Errorf("one of %d parallel calls = %v, want nil or %v", n, err, sentinel)
			}
		})
	}
	wg.Wait()
	return succeeded
}

func testCreator(t *testing.T, s session.Store) {
	c := as[session.Creator](t, s, "Creator")
	if err := c.Create(ctx, id, with(t, `{"a":1}`)); err != nil {
		t.Fatalf("Create = %v", err)
	}
	if err := c.Create(ctx, id, with(t, `{"a":2}`)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create with the id of a session = %v, want fs.ErrExist", err)
	}
	holds(t, s, id, `{"a":1}`, "after a second Create, which must fail")
	set(t, s, "expired", lasting(t, -time.Second))
	if err := c.Create(ctx, "expired", with(t, `{"a":3}`)); err != nil {
		t.Errorf("Create with the id of an expired session = %v, want nil", err)
	}
	holds(t, s, "expired", `{"a":3}`, "after Create with the id of an expired session")
	made := count(t, 16, func(n int) error { return c.Create(ctx, "parallel", with(t, fmt.Sprintf(`{"n":%d}`, n))) }, fs.ErrExist)
	if made != 1 {
		t.Errorf("%d of 16 parallel calls of Create with one id returned nil, want 1", made)
	}
}

func testUpdater(t *testing.T, s session.Store) {
	u := as[session.Updater](t, s, "Updater")
	never := func(*filestore.Session) error {
		t.Error("Update calls fn although there is no session")
		return nil
	}
	for _, none := range []string{id, "../x", "expired"} {
		if none == "expired" {
			set(t, s, none, lasting(t, -time.Second))
		}
		if err := u.Update(ctx, none, never); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Update(%q), which does not exist, = %v, want filestore.ErrNotFound", none, err)
		}
		gone(t, s, none, "after Update, which must not bring a session back")
	}
	set(t, s, id, with(t, `{"n":0}`))
	own := errors.New("no")
	if err := u.Update(ctx, id, func(sess *filestore.Session) error { sess.Put("n", 7); return own }); !errors.Is(err, own) {
		t.Errorf("Update with an fn that fails = %v, want fn's error", err)
	}
	holds(t, s, id, `{"n":0}`, "after Update with an fn that fails, which must store nothing")
	const writers, rounds = 8, 10
	add := func(sess *filestore.Session) error {
		n, err := filestore.Value[int](sess, "n")
		if err != nil {
			return err
		}
		return sess.Put("n", n+1)
	}
	done := count(t, writers, func(int) error {
		for range rounds {
			if err := u.Update(ctx, id, add); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if done == writers {
		holds(t, s, id, fmt.Sprintf(`{"n":%d}`, writers*rounds), "after parallel Updates that each add 1, of which none may be lost")
	}
	// A write that is not an access, as of a page that polls.
	before := get(t, s, id).LastAccess
	time.Sleep(accuracy + 1100*time.Millisecond)
	if err := u.Update(ctx, id, func(sess *filestore.Session) error { sess.NoTouch = true; return sess.Put("n", 1) }); err != nil {
		t.Errorf("Update = %v", err)
	}
	if sess := get(t, s, id); !same(sess.LastAccess, before) || sess.NoTouch {
		t.Errorf("after an Update with NoTouch the LastAccess is %v, want %v as before, and NoTouch %v, want false", sess.LastAccess, before, sess.NoTouch)
	}
	// The middleware ends a session by giving it no life: one of several that do so succeeds.
	if n := count(t, 8, func(int) error {
		return u.Update(ctx, id, func(sess *filestore.Session) error {
			sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
			return nil
		})
	}, filestore.ErrNotFound); n != 1 {
		t.Errorf("%d of 8 parallel Updates that let the session expire returned nil, want 1: it is gone for the others", n)
	}
	gone(t, s, id, "after an Update that let the session expire")
}

func testToucher(t *testing.T, s session.Store) {
	c := as[session.Toucher](t, s, "Toucher")
	for _, none := range []string{id, "../x", "expired"} {
		if none == "expired" {
			set(t, s, none, lasting(t, -time.Second))
		}
		if err := c.Touch(ctx, none, nil); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Touch(%q), which does not exist, = %v, want filestore.ErrNotFound", none, err)
		}
		gone(t, s, none, "after Touch, which must not bring a session back")
	}
	const life, pause = 4 * time.Second, 2500 * time.Millisecond
	var before, after *filestore.Session
	timely(t, "a session that lives for 4 s, touched after 2.5 s, 2.5 s later", life, func() (err error) {
		set(t, s, id, lasting(t, life))
		if before, err = look(s, id); err != nil {
			return err
		}
		time.Sleep(pause)
		if err := c.Touch(ctx, id, nil); err != nil {
			return err
		}
		touched := time.Now()
		time.Sleep(pause)
		if after, err = look(s, id); err != nil && time.Since(touched) < life {
			t.Fatalf("a session that lives for 4 s, 2.5 s after Touch: %v", err)
		}
		return err
	})
	if got := normal(t, []byte(values(t, after))); got != `{"a":1}` {
		t.Errorf("after Touch the values are %s, want {\"a\":1}", got)
	}
	was, other := before.Cookie, after.Cookie
	if !other.Expires.After(was.Expires) || other.OriginalMaxAge != was.OriginalMaxAge {
		t.Errorf("after Touch with a nil cookie the cookie is %+v, was %+v, want the same with a later Expires", other, was)
	}
	set(t, s, id, with(t, `{"a":1}`))
	other.OriginalMaxAge, other.Expires, other.SameSite = time.Hour, time.Now().Add(time.Hour).Truncate(time.Millisecond), "strict"
	if err := c.Touch(ctx, id, &other); err != nil {
		t.Errorf("Touch with a cookie = %v", err)
	}
	if got := get(t, s, id).Cookie; got.OriginalMaxAge != time.Hour || got.SameSite != "strict" {
		t.Errorf("after Touch with the cookie %+v Get has the cookie %+v", other, got)
	}
	holds(t, s, id, `{"a":1}`, "after Touch with a cookie, which must keep the values")
}

func testLifer(t *testing.T, s session.Store) {
	l := as[session.Lifer](t, s, "Lifer")
	ttl := l.TTL()
	if ttl <= 0 {
		t.Fatalf("TTL = %v, want the life of a session without a maxAge", ttl)
	}
	sess := with(t, `{"a":1}`)
	sess.Cookie.OriginalMaxAge = 0
	set(t, s, id, sess)
	if ttl > 10*time.Second {
		holds(t, s, id, `{"a":1}`, fmt.Sprintf("a session without a maxAge, with a TTL of %v, at once", ttl))
	}
}

// A session has a beginning, which only another Set of a new session changes.
func testLimiter(t *testing.T, s session.Store) {
	l := as[session.Limiter](t, s, "Limiter")
	lifetime := l.Lifetime()
	begun := time.Now().Truncate(time.Millisecond)
	set(t, s, id, with(t, `{"a":1}`))
	created := get(t, s, id).Created
	if created.Before(begun) || time.Since(created) < 0 {
		t.Errorf("a session that was set at %v was Created at %v", begun, created)
	}
	time.Sleep(10 * time.Millisecond)
	set(t, s, id, get(t, s, id))
	if u, ok := s.(session.Updater); ok {
		if err := u.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("b", 2) }); err != nil {
			t.Errorf("Update = %v", err)
		}
	}
	if c, ok := s.(session.Toucher); ok {
		if err := c.Touch(ctx, id, nil); err != nil {
			t.Errorf("Touch = %v", err)
		}
	}
	if got := get(t, s, id).Created; !got.Equal(created) {
		t.Errorf("after Set of the session that Get returned, Update and Touch it was Created at %v, want %v as before", got, created)
	}
	if c, ok := s.(session.Creator); ok {
		sess := with(t, `{"a":1}`)
		sess.Created = begun.Add(-30 * time.Second)
		if err := c.Create(ctx, "made", sess); err != nil {
			t.Fatalf("Create = %v", err)
		}
		if got := get(t, s, "made").Created; !got.Equal(sess.Created) {
			t.Errorf("after Create of a session that was Created at %v, as Renew makes one, it was Created at %v", sess.Created, got)
		}
	}
	if lifetime == 0 {
		return
	}
	if c, ok := s.(session.Toucher); ok {
		sess := lasting(t, 10*lifetime)
		sess.Created, sess.Cookie.Expires = begun, begun.Add(time.Second)
		set(t, s, "touched", sess)
		if err := c.Touch(ctx, "touched", nil); err != nil {
			t.Errorf("Touch = %v", err)
		}
		if got := get(t, s, "touched"); got.Cookie.Expires.After(got.Created.Add(lifetime)) {
			t.Errorf("Touch lets the cookie expire %v after the session was created, want at most its Lifetime of %v", got.Cookie.Expires.Sub(got.Created), lifetime)
		}
	}
	old := with(t, `{"user":"old"}`)
	old.Created = time.Now().Add(-lifetime - time.Second)
	set(t, s, "old", old)
	gone(t, s, "old", fmt.Sprintf("a session that was created %v ago, with a Lifetime of %v", lifetime+time.Second, lifetime))
	if f, ok := s.(session.Finder); ok {
		if got := found(t, f, "user", "old"); len(got) > 0 {
			t.Errorf("Find finds %q, want none whose Lifetime is over", got)
		}
	}
	timely(t, "a session a second before its Lifetime is over", time.Second, func() error {
		old.Created, old.Cookie.OriginalMaxAge = time.Now().Add(time.Second-lifetime), 10*lifetime
		set(t, s, "old", old)
		_, err := look(s, "old")
		return err
	})
	time.Sleep(2500 * time.Millisecond)
	gone(t, s, "old", "a session whose Lifetime is over")
}

// found returns the ids that Find yields.
func found(t *testing.T, f session.Finder, member, value string) []string {
	t.Helper()
	var ids []string
	for e, err := range f.Find(ctx, member, value) {
		if err != nil || e.Session == nil {
			t.Errorf("Find(%q, %q) yields %+v and the error %v", member, value, e, err)
		}
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids
}

// A Store that keeps the end of a session, in whole seconds, knows the last access to a second. If the machine is busy its
// answer can come so much later.
const accuracy = 2 * time.Second

func same(a, b time.Time) bool { return a.Sub(b).Abs() < accuracy }

func testFinder(t *testing.T, s session.Store) {
	f := as[session.Finder](t, s, "Finder")
	for id, doc := range map[string]string{
		"a1": `{"user":"anna"}`, "a2": `{"n":1,"user":"anna"}`, "b": `{"user":"bert"}`, "A": `{"user":"Anna"}`, "none": `{}`, "other": `{"User":"anna","users":"anna"}`,
		"n7": `{"user":7}`, "s7": `{"user":"7"}`, "n77": `{"user":77}`, "l": `{"user":["anna","7"]}`, "o": `{"user":{"id":"anna"}}`, "z": `{"user":null}`, "t": `{"user":true}`,
		"p1": `{"passport":{"user":"anna"}}`, "p2": `{"passport":{"user":7,"x":{}}}`, "p3": `{"passport":"user"}`, "deep": `{"a":{"b":{"c":"anna"}}}`,
		"big": `{"user":9007199254740993}`, "near": `{"user":9007199254740992}`, "odd": `{"user":"a\"\\\u00fc\n/"}`,
	} {
		set(t, s, id, with(t, doc))
	}
	set(t, s, "expired", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: -time.Second, Path: "/"}, Values: map[string]json.RawMessage{"user": json.RawMessage(`"anna"`)}})
	for _, tt := range []struct {
		member, value string
		want          []string
	}{
		{"user", "anna", []string{"a1", "a2"}}, {"user", "bert", []string{"b"}}, {"user", "Anna", []string{"A"}}, {"user", "ann", nil}, {"user", "nobody", nil},
		{"user", "7", []string{"n7", "s7"}}, {"user", "77", []string{"n77"}}, {"user", "null", nil}, {"user", "true", nil}, {"user", "%", nil}, {"user", "_nna", nil},
		{"user.id", "anna", []string{"o"}}, {"passport.user", "anna", []string{"p1"}}, {"passport.user", "7", []string{"p2"}}, {"a.b.c", "anna", []string{"deep"}},
		{"user", "9007199254740993", []string{"big"}}, {"user", "a\"\\ü\n/", []string{"odd"}}, {"user", "' OR ''='", nil},
	} {
		if got := found(t, f, tt.member, tt.value); !slices.Equal(got, tt.want) {
			t.Errorf("Find(%q, %q) finds %q, want %q", tt.member, tt.value, got, tt.want)
		}
	}
	for e := range f.Find(ctx, "user", "anna") {
		if e.Session == nil {
			continue
		}
		got, want := *e.Session, get(t, s, e.ID)
		holds(t, s, e.ID, values(t, &got), "Find yields what Get returns")
		if got.Cookie != want.Cookie || !same(got.LastAccess, want.LastAccess) || !got.Created.Equal(want.Created) {
			t.Errorf("Find yields the session %+v, want what Get returns: %+v", got, *want)
		}
	}
	stops(t, "Find", func() {
		for range f.Find(ctx, "user", "anna") {
			break
		}
	})
	set(t, s, "a1", with(t, `{"user":"bert"}`))
	if err := s.Destroy(ctx, "a2"); err != nil {
		t.Errorf("Destroy = %v", err)
	}
	if a, b := found(t, f, "user", "anna"), found(t, f, "user", "bert"); len(a) != 0 || !slices.Equal(b, []string{"a1", "b"}) {
		t.Errorf("after a change of user and a Destroy Find finds %q and %q, want none and a1, b", a, b)
	}
	// What was set before the call is found, beside others that come and go.
	count(t, 8, func(n int) error {
		for i := range 20 {
			id, user := fmt.Sprintf("p%d-%d", n, i), fmt.Sprintf("user%d", n)
			set(t, s, id, with(t, `{"user":"`+user+`"}`))
			if got := found(t, f, "user", user); !slices.Equal(got, []string{id}) {
				t.Errorf("Find of the session that was just set finds %q, want %q", got, id)
			}
			if err := s.Destroy(ctx, id); err != nil {
				return err
			}
			if got := found(t, f, "user", user); len(got) != 0 {
				t.Errorf("Find after Destroy finds %q", got)
			}
		}
		return nil
	}, nil)
}

// values returns those of sess as JSON.
func values(t *testing.T, sess *filestore.Session) string {
	t.Helper()
	text, err := json.Marshal(sess.Values)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// stops fails if loop panics, as a range loop does whose iterator goes on after the loop has ended.
func stops(t *testing.T, what string, loop func()) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("%s goes on after the loop over it has ended: %v", what, v)
		}
	}()
	loop()
}

func testWatcher(t *testing.T, s session.Store) {
	w := as[session.Watcher](t, s, "Watcher")
	testWatch(t, s, w)
	stops(t, "Watch", func() { // the loop below ends at its first event
		var setting sync.WaitGroup
		defer setting.Wait()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		setting.Go(func() {
			for ctx.Err() == nil {
				if err := s.Set(ctx, id, with(t, `{}`)); err != nil && ctx.Err() == nil {
					t.Errorf("Set = %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
		for range w.Watch(ctx) {
			break
		}
	})
}

func testWatch(t *testing.T, s session.Store, w session.Watcher) {
	set(t, s, id, with(t, `{}`))
	watching, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	events := make(chan filestore.Event)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(events)
		for e, err := range w.Watch(watching) {
			if err != nil {
				t.Errorf("Watch yields the error %v", err)
			}
			events <- e
		}
	})
	changes := time.NewTicker(50 * time.Millisecond) // Watch does not say from when on it watches
	defer changes.Stop()
	destroyed := false
	for {
		select {
		case e, ok := <-events:
			switch {
			case !ok:
				if watching.Err() != context.Canceled {
					t.Error("Watch did not yield a Changed and a Destroyed within 10 s")
				}
				return
			case e.ID != id:
				t.Errorf("Watch yields the event %+v of a session that nobody changed", e)
			case e.Op == filestore.Changed && !destroyed:
				destroyed = true
				if err := s.Destroy(ctx, id); err != nil {
					t.Errorf("Destroy = %v", err)
				}
			case e.Op == filestore.Destroyed && destroyed:
				cancel() // and Watch ends
			}
		case <-changes.C:
			if !destroyed && watching.Err() == nil {
				set(t, s, id, with(t, `{}`))
			}
		}
	}
}

func testReaper(t *testing.T, s session.Store) {
	r := as[session.Reaper](t, s, "Reaper")
	reaper, ok := r.(interface {
		Reap(ctx context.Context) (int, error)
	})
	if !ok {
		t.Skipf("not tested: %T has no Reap", s)
	}
	var mu sync.Mutex
	told := 0
	r.OnReap(func(removed int) {
		mu.Lock()
		defer mu.Unlock()
		told += removed
	})
	set(t, s, "live", with(t, `{}`))
	set(t, s, "expired", lasting(t, -time.Second))
	set(t, s, "short", lasting(t, time.Second))
	time.Sleep(2500 * time.Millisecond)
	for range 2 {
		if _, err := reaper.Reap(ctx); err != nil {
			t.Errorf("Reap = %v", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if told != 2 {
		t.Errorf("OnReap has told of %d sessions, want the 2 that had expired", told)
	}
	holds(t, s, "live", `{}`, "after Reap")
}

// A user's sessions, as the middleware finds and ends them.
func testSessions(t *testing.T, s session.Store) {
	as[session.Finder](t, s, "Finder")
	m := manager(t, s)
	m.MaxPerUser = 2
	login := func(cookies []*http.Cookie) []*http.Cookie {
		return serve(m, cookies, func(_ http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("anna"); err != nil {
				t.Errorf("Login = %v", err)
			}
		}).Cookies()
	}
	count := func() int {
		infos, err := m.Sessions(ctx, "anna")
		if err != nil {
			t.Errorf("Sessions = %v", err)
		}
		return len(infos)
	}
	for n, want := range []int{1, 2, 2} {
		login(nil)
		time.Sleep(5 * time.Millisecond) // of two logins in one millisecond either is the first
		if got := count(); got != want {
			t.Errorf("after %d logins with MaxPerUser 2 there are %d sessions, want %d", n+1, got, want)
		}
	}
	serve(m, login(nil), func(_ http.ResponseWriter, r *http.Request) {
		if n, err := session.From(r).EndOthers(); n != 1 || err != nil {
			t.Errorf("EndOthers = %d, %v, want 1", n, err)
		}
		if n, err := m.EndAll(ctx, "anna"); n != 1 || err != nil {
			t.Errorf("EndAll = %d, %v, want 1", n, err)
		}
		session.From(r).Put("late", 1)
	})
	if got := count(); got != 0 {
		t.Errorf("after EndAll beside a request that then stores there are %d sessions, want none", got)
	}
}

// serve lets handler answer a request with the cookies.
func serve(m *session.Manager, cookies []*http.Cookie, handler http.HandlerFunc) *http.Response {
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	m.Handler(handler).ServeHTTP(w, r)
	return w.Result()
}

// manager returns a Manager whose errors fail the test.
func manager(t *testing.T, s session.Store) *session.Manager {
	return &session.Manager{Store: s, Secrets: []string{"keyboard cat"}, ErrorFunc: func(w http.ResponseWriter, _ *http.Request, err error) {
		t.Errorf("the Store fails a request: %v", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}}
}

func testMiddleware(t *testing.T, s session.Store) {
	m := manager(t, s)
	var first, second string
	login := serve(m, nil, func(_ http.ResponseWriter, r *http.Request) {
		first = session.From(r).ID()
		session.From(r).Put("user", "anna")
	})
	user := func(cookies []*http.Cookie) (user string) {
		serve(m, cookies, func(_ http.ResponseWriter, r *http.Request) {
			var err error
			if user, err = session.Value[string](session.From(r), "user"); err != nil {
				t.Error(err)
			}
		})
		return user
	}
	if got := user(login.Cookies()); got != "anna" {
		t.Errorf("after a login the next request has the user %q, want anna", got)
	}
	renewed := serve(m, login.Cookies(), func(_ http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Regenerate(); err != nil {
			t.Errorf("Regenerate = %v", err)
		}
		second = session.From(r).ID()
		session.From(r).Put("user", "bert")
	})
	if got := user(renewed.Cookies()); got != "bert" {
		t.Errorf("after Regenerate the new cookie opens the session of %q, want bert", got)
	}
	if got := user(login.Cookies()); got != "" {
		t.Errorf("after Regenerate the old cookie opens the session of %q, want none", got)
	}
	gone(t, s, first, "after Regenerate, under the old id")
	serve(m, renewed.Cookies(), func(_ http.ResponseWriter, r *http.Request) { // a slow request, and a logout meanwhile
		serve(m, renewed.Cookies(), func(_ http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Destroy(); err != nil {
				t.Errorf("Destroy = %v", err)
			}
		})
		session.From(r).Put("late", 1)
	})
	gone(t, s, second, "after a logout beside a slow request that then stores")
}

// If the Store is an Updater, one of several requests that replace one session succeeds.
func testReplacement(t *testing.T, s session.Store) {
	as[session.Updater](t, s, "Updater")
	m := manager(t, s)
	cookies := serve(m, nil, func(_ http.ResponseWriter, r *http.Request) { session.From(r).Put("user", "anna") }).Cookies()
	const requests = 4
	var loaded atomic.Int32
	all := make(chan bool)
	if n := count(t, requests, func(int) (err error) {
		serve(m, cookies, func(_ http.ResponseWriter, r *http.Request) {
			if loaded.Add(1) == requests {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(10 * time.Second):
				t.Error("a request did not get its session within 10 s")
			}
			err = session.From(r).Regenerate()
		})
		return err
	}, filestore.ErrNotFound); n != 1 {
		t.Errorf("%d of %d requests that call Regenerate on one session succeeded, want 1", n, requests)
	}
}
