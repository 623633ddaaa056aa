package session_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// A late answer with the old cookie must not undo a login in the browser.
func TestLateAnswerSetsNoCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.SaveUninitialized = true
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Regenerate(); err != nil {
			t.Error(err)
		}
		put(w, r)
	}})
	old := cookieOf(do(t, srv, "/put?cart=1", ""))
	fresh := cookieOf(do(t, srv, "/login?user=anna", old))
	for _, path := range []string{"/show", "/put?a=1"} {
		if a := do(t, srv, path, old); a.Header.Get("Set-Cookie") != "" || a.StatusCode != 200 {
			t.Errorf("%s with the old cookie: status %d, want 200, cookie %q, want none", path, a.StatusCode, a.Header.Get("Set-Cookie"))
		}
	}
	if n := len(storetest.Files(t, s.dir)); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
	// A new login with the old cookie works.
	if a := do(t, srv, "/login?user=bert", old); cookieOf(a) == "" || do(t, srv, "/show", cookieOf(a)).body != `{"user":"bert"}`+"\n" {
		t.Errorf("a login with the old cookie sets %q", a.Header.Get("Set-Cookie"))
	}
	if got := do(t, srv, "/show", fresh).body; got != `{"user":"anna"}`+"\n" {
		t.Errorf("the first login has %s", got)
	}
	// An unknown id does not count as replaced.
	if a := do(t, srv, "/put?a=1", signed("unknown")); cookieOf(a) == "" {
		t.Error("a request with an unknown id gets no cookie")
	}
}

// What is remembered of a replaced session is its id, and not the Cookie header of which the id was a part.
func TestReplacedKeepsNoHeader(t *testing.T) {
	const logins, size = 100, 1 << 20
	m := manager(sessiontest.NewStore())
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for range logins {
		id := logIn(t, m, "anna")
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", "connect.sid=s:"+session.Sign(id, secret)+"; other="+strings.Repeat("x", size))
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Renew(); err != nil || session.From(r).ID() == id {
				t.Errorf("Renew = %v", err)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
	if after := heap(); after > before+logins*size/4 {
		t.Errorf("%d kB are kept after %d logins", (after-before)>>10, logins)
	}
	runtime.KeepAlive(m)
}

// Three requests have loaded one session. One replaces it, another fails to, and the third logs out: the
// new session is destroyed.
func TestLogoutAfterFailedRegenerate(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	sess := new(filestore.Session)
	sess.Put("user", "anna")
	s.Store.Set(ctx, "id", sess)
	nested := func(h http.HandlerFunc) { request(m, "id", "/", h) }
	nested(func(w http.ResponseWriter, r1 *http.Request) {
		nested(func(w http.ResponseWriter, r2 *http.Request) {
			nested(func(w http.ResponseWriter, r3 *http.Request) {
				if err := keepUser(r3); err != nil {
					t.Error(err)
				}
			})
			if err := keepUser(r2); !errors.Is(err, filestore.ErrNotFound) {
				t.Error(err)
			}
		})
		if err := session.From(r1).Destroy(); err != nil {
			t.Error(err)
		}
	})
	for _, id := range s.live(t) {
		sess, _ := s.Store.Get(ctx, id)
		t.Errorf("after the logout there is a session with the user %s", sess.Values["user"])
	}
	// A late answer with the old id still sets no cookie.
	sess = new(filestore.Session)
	s.Store.Set(ctx, "id2", sess)
	request(m, "id2", "/", func(w http.ResponseWriter, r1 *http.Request) {
		request(m, "id2", "/", regenerate)
		session.From(r1).Regenerate()
	})
	if c := request(m, "id2", "/?a=1", put).Header().Get("Set-Cookie"); c != "" {
		t.Errorf("a late answer sets the cookie %.40q, want none", c)
	}
}

// A logout that has loaded the old session destroys the new one, even long after the replacement.
func TestSlowLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{})
		m := manager(s)
		s.Set(ctx, "id", new(filestore.Session))
		var err error
		var next string
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { keepUser(r); next = session.From(r).ID() })
			time.Sleep(11 * time.Second)
			err = session.From(r).Destroy()
		})
		if _, e := s.Get(ctx, next); e == nil {
			t.Errorf("Destroy = %v, and the user is still logged in", err)
		}
	})
}

// A logout with the old cookie destroys the new session.
func TestLogoutWithOldCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	s.Store.Set(ctx, "id", new(filestore.Session))
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { keepUser(r) })
	var err error
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Destroy() })
	if live := s.live(t); len(live) != 0 {
		t.Errorf("Destroy = %v, live sessions %q, want none", err, live)
	}
}

// Destroy ends even if GenID repeats ids.
func TestIDsInACircle(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	n := 0
	m.GenID = func(*http.Request) (string, error) { n++; return []string{"b", "a"}[(n-1)%2], nil }
	s.Store.Set(ctx, "a", new(filestore.Session))
	begun := time.Now()
	request(m, "a", "/", func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Regenerate()
		if err := session.From(r).Regenerate(); err != nil {
			t.Error(err)
		}
		s.take()
		session.From(r).Destroy()
		if calls := strings.Count(s.take(), "destroy"); calls > 10 {
			t.Errorf("%d calls of Destroy in %v, want one for each id", calls, time.Since(begun))
		}
	})
}
