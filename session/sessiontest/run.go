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
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// Run tests a session.Store. open returns an empty one for each test, which runs beside others. What
// else the Store is, a session.Creator, Updater or Toucher, is found and tested. The sessions that Run
// makes have lives of their own, from a second on; waiting for their ends takes some seconds.
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
		"Middleware":  testMiddleware,
		"Replacement": testReplacement,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
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

func set(t *testing.T, s session.Store, id string, sess *filestore.Session) {
	t.Helper()
	if err := s.Set(ctx, id, sess); err != nil {
		t.Fatalf("Set = %v", err)
	}
}

// same fails unless the session id holds doc. A store may keep JSON in another spelling.
func same(t *testing.T, s session.Store, id, doc string) {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil {
		t.Errorf("Get = %v, want %s", err, doc)
		return
	}
	got, err := json.Marshal(sess.Values)
	if err != nil {
		t.Error(err)
		return
	}
	if g, w := normal(t, got), normal(t, []byte(doc)); g != w {
		t.Errorf("Get has %s, want %s", g, w)
	}
}

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

// gone fails unless Get says that there is no session id, in the one way that it may.
func gone(t *testing.T, s session.Store, id string) {
	t.Helper()
	if sess, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) || sess != nil {
		t.Errorf("Get = %v, %v, want no session and ErrNotFound", sess, err)
	}
}

func testGet(t *testing.T, s session.Store) {
	gone(t, s, id)
	set(t, s, id, with(t, `{"a":1}`))
	same(t, s, id, `{"a":1}`)
	set(t, s, id, with(t, `{"b":2}`))
	same(t, s, id, `{"b":2}`)
	sess, err := s.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if c := sess.Cookie; c.OriginalMaxAge != time.Minute || !c.HTTPOnly || c.Path != "/" {
		t.Errorf("the cookie is %+v", c)
	}
	if d := time.Since(sess.LastAccess).Abs(); d > 10*time.Second {
		t.Errorf("the last access was %v ago", d)
	}
	c := filestore.Cookie{OriginalMaxAge: time.Hour, Expires: time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC(), Secure: true, Partitioned: true,
		Path: "/app", Domain: "example.com", SameSite: "strict", Priority: "high"}
	all := with(t, `{}`)
	all.Cookie = c
	set(t, s, id, all)
	if sess, err = s.Get(ctx, id); err != nil || !sess.Cookie.Expires.Equal(c.Expires) {
		t.Fatalf("Get = %v, %v", sess, err)
	}
	if sess.Cookie.Expires = c.Expires; sess.Cookie != c {
		t.Errorf("the cookie is %+v, want %+v", sess.Cookie, c)
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
		same(t, s, id, doc)
	}
}

// An id is whatever one of the secrets has signed, which need not be one.
func testIDs(t *testing.T, s session.Store) {
	for _, good := range []string{id, "-_-", "0", strings.Repeat("a", 200)} {
		set(t, s, good, with(t, `{"a":1}`))
		same(t, s, good, `{"a":1}`)
	}
	for _, bad := range []string{"", "../x", "a/b", "a b", "x\x00y", "\xff", "*", "%", "_", strings.Repeat("a", 100_000)} {
		gone(t, s, bad)
	}
}

func testDestroy(t *testing.T, s session.Store) {
	if err := s.Destroy(ctx, id); err != nil {
		t.Errorf("Destroy of nothing = %v", err)
	}
	set(t, s, id, with(t, `{"a":1}`))
	set(t, s, "other", with(t, `{"a":2}`))
	for range 2 {
		if err := s.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy = %v", err)
		}
		gone(t, s, id)
	}
	same(t, s, "other", `{"a":2}`)
}

// lasting returns a session that lives for d.
func lasting(t *testing.T, d time.Duration) *filestore.Session {
	t.Helper()
	sess := with(t, `{"a":1}`)
	sess.Cookie.OriginalMaxAge = d
	sess.Cookie.Expires = time.Now().Add(d)
	return sess
}

func testExpiry(t *testing.T, s session.Store) {
	set(t, s, "expired", lasting(t, -time.Second))
	gone(t, s, "expired")
	set(t, s, "short", lasting(t, 2*time.Second))
	set(t, s, "long", lasting(t, time.Hour))
	same(t, s, "short", `{"a":1}`)
	time.Sleep(3500 * time.Millisecond) // a store may count whole seconds
	gone(t, s, "short")
	same(t, s, "long", `{"a":1}`)
	set(t, s, "short", with(t, `{"b":2}`)) // the id is free
	same(t, s, "short", `{"b":2}`)
}

// A reader sees one of the values that were stored.
func testParallel(t *testing.T, s session.Store) {
	doc := func(n int) string { return fmt.Sprintf(`{"a":%d,"fill":%q,"b":%d}`, n, strings.Repeat("x", 1000*n), n) }
	set(t, s, id, with(t, doc(1)))
	var wg sync.WaitGroup
	for n := 1; n <= 4; n++ {
		sess := with(t, doc(n))
		wg.Go(func() {
			for range 25 {
				if err := s.Set(ctx, id, sess); err != nil {
					t.Errorf("Set = %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				sess, err := s.Get(ctx, id)
				if err != nil || string(sess.Values["a"]) != string(sess.Values["b"]) {
					t.Errorf("Get = %v, %v", sess, err)
				}
			}
		})
	}
	wg.Wait()
}

func testCreator(t *testing.T, s session.Store) {
	c, ok := s.(session.Creator)
	if !ok {
		t.Skip("it is not a Creator")
	}
	if err := c.Create(ctx, id, with(t, `{"a":1}`)); err != nil {
		t.Fatalf("Create = %v", err)
	}
	if err := c.Create(ctx, id, with(t, `{"a":2}`)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of a taken id = %v", err)
	}
	same(t, s, id, `{"a":1}`)
	set(t, s, "expired", lasting(t, -time.Second))
	if err := c.Create(ctx, "expired", with(t, `{"a":3}`)); err != nil {
		t.Errorf("Create over an expired session = %v", err)
	}
	same(t, s, "expired", `{"a":3}`)
	made := count(t, 16, func(n int) error { return c.Create(ctx, "parallel", with(t, fmt.Sprintf(`{"n":%d}`, n))) }, fs.ErrExist)
	if made != 1 {
		t.Errorf("%d of 16 made the session", made)
	}
}

// count calls fn n times at once and returns how often it succeeded. It may fail with sentinel only.
func count(t *testing.T, n int, fn func(n int) error, sentinel error) (succeeded int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := fn(i)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				succeeded++
			} else if !errors.Is(err, sentinel) {
				t.Errorf("%v, want %v", err, sentinel)
			}
		})
	}
	wg.Wait()
	return succeeded
}

func testUpdater(t *testing.T, s session.Store) {
	u, ok := s.(session.Updater)
	if !ok {
		t.Skip("it is not an Updater")
	}
	never := func(*filestore.Session) error { t.Error("fn was called"); return nil }
	for _, none := range []string{id, "../x", "expired"} {
		if none == "expired" {
			set(t, s, none, lasting(t, -time.Second))
		}
		if err := u.Update(ctx, none, never); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Update of nothing = %v", err)
		}
		gone(t, s, none)
	}
	set(t, s, id, with(t, `{"n":0}`))
	own := errors.New("no")
	if err := u.Update(ctx, id, func(sess *filestore.Session) error { sess.Put("n", 7); return own }); !errors.Is(err, own) {
		t.Errorf("Update = %v, want fn's error", err)
	}
	same(t, s, id, `{"n":0}`)
	const writers, rounds = 8, 10
	add := func(sess *filestore.Session) error {
		n, err := filestore.Value[int](sess, "n")
		if err == nil {
			err = sess.Put("n", n+1)
		}
		return err
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
		same(t, s, id, fmt.Sprintf(`{"n":%d}`, writers*rounds))
	}
	// Of several who end a session, by giving it no life, one does.
	if n := count(t, 8, func(int) error {
		return u.Update(ctx, id, func(sess *filestore.Session) error {
			sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
			return nil
		})
	}, filestore.ErrNotFound); n != 1 {
		t.Errorf("%d of 8 ended the session", n)
	}
	gone(t, s, id)
}

func testToucher(t *testing.T, s session.Store) {
	c, ok := s.(session.Toucher)
	if !ok {
		t.Skip("it is not a Toucher")
	}
	for _, none := range []string{id, "../x", "expired"} {
		if none == "expired" {
			set(t, s, none, lasting(t, -time.Second))
		}
		if err := c.Touch(ctx, none, nil); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Touch of nothing = %v", err)
		}
		gone(t, s, none)
	}
	set(t, s, id, lasting(t, 4*time.Second))
	before, err := s.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	if err := c.Touch(ctx, id, nil); err != nil {
		t.Errorf("Touch = %v", err)
	}
	time.Sleep(2500 * time.Millisecond) // past its first end
	same(t, s, id, `{"a":1}`)
	after, err := s.Get(ctx, id)
	if err != nil || !after.Cookie.Expires.After(before.Cookie.Expires) || after.Cookie.OriginalMaxAge != before.Cookie.OriginalMaxAge {
		t.Errorf("after a Touch without a cookie: %+v, %v, it was %+v", after, err, before.Cookie)
	}
	other := after.Cookie
	other.OriginalMaxAge, other.Expires, other.SameSite = time.Hour, time.Now().Add(time.Hour).Truncate(time.Millisecond), "strict"
	if err := c.Touch(ctx, id, &other); err != nil {
		t.Errorf("Touch = %v", err)
	}
	if after, err = s.Get(ctx, id); err != nil || after.Cookie.OriginalMaxAge != time.Hour || after.Cookie.SameSite != "strict" {
		t.Errorf("after a Touch with a cookie: %+v, %v", after, err)
	}
	same(t, s, id, `{"a":1}`)
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

func manager(s session.Store) *session.Manager {
	return &session.Manager{Store: s, Secrets: []string{"keyboard cat"}}
}

func testMiddleware(t *testing.T, s session.Store) {
	m := manager(s)
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
		t.Errorf("the user is %q", got)
	}
	renewed := serve(m, login.Cookies(), func(_ http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Regenerate(); err != nil {
			t.Errorf("Regenerate = %v", err)
		}
		second = session.From(r).ID()
		session.From(r).Put("user", "bert")
	})
	if got := user(renewed.Cookies()); got != "bert" || user(login.Cookies()) != "" {
		t.Errorf("after Regenerate the user is %q, with the old cookie %q", got, user(login.Cookies()))
	}
	gone(t, s, first)
	serve(m, renewed.Cookies(), func(_ http.ResponseWriter, r *http.Request) { // a slow request, and a logout meanwhile
		serve(m, renewed.Cookies(), func(_ http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Destroy(); err != nil {
				t.Errorf("Destroy = %v", err)
			}
		})
		session.From(r).Put("late", 1)
	})
	gone(t, s, second)
}

// Of several requests that replace one session one does, if the Store is an Updater.
func testReplacement(t *testing.T, s session.Store) {
	if _, ok := s.(session.Updater); !ok {
		t.Skip("it is not an Updater")
	}
	m := manager(s)
	cookies := serve(m, nil, func(_ http.ResponseWriter, r *http.Request) { session.From(r).Put("user", "anna") }).Cookies()
	var loaded sync.WaitGroup
	loaded.Add(4)
	if n := count(t, 4, func(int) (err error) {
		serve(m, cookies, func(_ http.ResponseWriter, r *http.Request) {
			loaded.Done()
			loaded.Wait()
			err = session.From(r).Regenerate()
		})
		return err
	}, filestore.ErrNotFound); n != 1 {
		t.Errorf("%d of 4 replaced the session", n)
	}
}
