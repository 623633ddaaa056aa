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
// session.Creator, Updater, Toucher and Lifer, tests those that it finds, and logs which they are.
//
// Each failure says which promise is broken. The sessions have lives of a second and more, and Run
// takes some seconds because it waits until they end. It stores ids of up to 200 bytes, and values of
// up to 100 KB. It does not test that sessions survive a restart.
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
		"Middleware":  testMiddleware,
		"Replacement": testReplacement,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
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

// get returns the session id, which must be there.
func get(t *testing.T, s session.Store, id string) *filestore.Session {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil || sess == nil {
		t.Fatalf("Get(%.40q) returns no session, and the error %v", id, err)
	}
	return sess
}

// holds fails unless Get returns the session id with the values doc. A Store may spell JSON in another
// way. when says what has happened before.
func holds(t *testing.T, s session.Store, id, doc, when string) {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil || sess == nil {
		t.Errorf("%s: Get(%.40q) returns no session, and the error %v, want one with the values %.200s", when, id, err, doc)
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
	set(t, s, "short", lasting(t, 2*time.Second))
	set(t, s, "long", lasting(t, time.Hour))
	holds(t, s, "short", `{"a":1}`, "a session that lives for 2 s, at once")
	time.Sleep(3500 * time.Millisecond) // a Store may count whole seconds
	gone(t, s, "short", "a session that lives for 2 s, after 3.5 s")
	holds(t, s, "long", `{"a":1}`, "a session that lives for an hour, after 3.5 s")
	set(t, s, "short", with(t, `{"b":2}`))
	holds(t, s, "short", `{"b":2}`, "after Set with the id of an expired session")
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
	set(t, s, id, lasting(t, 4*time.Second))
	was := get(t, s, id).Cookie
	time.Sleep(2500 * time.Millisecond)
	if err := c.Touch(ctx, id, nil); err != nil {
		t.Errorf("Touch = %v", err)
	}
	time.Sleep(2500 * time.Millisecond)
	holds(t, s, id, `{"a":1}`, "a session that lives for 4 s, touched after 2.5 s, 2.5 s later")
	other := get(t, s, id).Cookie
	if !other.Expires.After(was.Expires) || other.OriginalMaxAge != was.OriginalMaxAge {
		t.Errorf("after Touch with a nil cookie the cookie is %+v, was %+v, want the same with a later Expires", other, was)
	}
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
