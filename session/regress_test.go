package session_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// Each test here is named for a bug that it keeps away.

// A handler that a TimeoutHandler inside has given up on goes on putting things
// in while the response is committed: the process died of it.
func TestTimeoutHandlerInside(t *testing.T) {
	s := newStore(t)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
			sess.Put("a", sess.ID())
			sess.Delete("b")
			session.Value[string](sess, "a")
			sess.Flash("k", "m")
			sess.Flashes("k")
		}
		sess.Save()
		sess.Reload()
		sess.Regenerate()
		sess.Destroy()
	})
	h := manager(s).Handler(http.TimeoutHandler(slow, 5*time.Millisecond, "timeout"))
	given := 0
	for range 20 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code == http.StatusServiceUnavailable {
			given++
		}
	}
	if given == 0 {
		t.Error("no handler was given up on: the test tests nothing")
	}
	time.Sleep(30 * time.Millisecond) // for the last handlers' end, before the store's
}

// A slow request that changed nothing put the cookie back that it had loaded.
func TestTouchKeepsAnothersCookie(t *testing.T) {
	s := newStore(t)
	begun, remembered := make(chan bool), make(chan bool)
	m := manager(s.Store)
	m.Cookie.MaxAge = time.Hour
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put,
		"/slow": func(http.ResponseWriter, *http.Request) { begun <- true; <-remembered },
		"/remember": func(_ http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = 30 * 24 * time.Hour
		},
	})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	done := make(chan answer)
	go func() { done <- do(t, srv, "/slow", cookie) }()
	<-begun
	do(t, srv, "/remember", cookie)
	remembered <- true
	<-done
	sess, err := s.Store.Get(ctx, idOf(t, cookie))
	if err != nil || sess.Cookie.OriginalMaxAge != 30*24*time.Hour || time.Until(sess.Cookie.Expires) < 29*24*time.Hour {
		t.Errorf("the session has %+v, %v", sess.Cookie, err)
	}
}

// Reload of a new session gave its visitor the session that had its id, and a
// signed cookie for it.
func TestReloadOfATakenID(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.GenID = func(*http.Request) (string, error) { return "taken", nil }
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/reload": func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Reload(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Reload = %v", err)
		}
		show(w, r)
	}})
	do(t, srv, "/put?user=anna", "")
	if a := do(t, srv, "/reload", ""); a.body != "{}\n" || cookieOf(a) != "" {
		t.Errorf("a visitor got %q and the cookie %q", a.body, cookieOf(a))
	}
}

// Requests within the cookie's path had no session, depending on their spelling.
func TestPathSpelling(t *testing.T) {
	for path, uris := range map[string][]string{"/": {"/", "http://example.com", "http://example.com/x", "/%zz"}, "/app": {"/app", "/app/x", "/%61pp/x", "http://example.com/app"}} {
		m := manager(newStore(t))
		m.Cookie.Path = path
		for _, uri := range uris {
			r := httptest.NewRequest("GET", "/app", nil)
			r.RequestURI = uri
			if u, err := url.ParseRequestURI(uri); err == nil {
				r.URL = u
			}
			found := false
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { found = session.From(r) != nil })).ServeHTTP(httptest.NewRecorder(), r)
			if !found {
				t.Errorf("path %s: %s has no session", path, uri)
			}
		}
	}
}

// A change of the cookie after a Save, or after the header, was told to the
// browser at most.
func TestCookieChangedLate(t *testing.T) {
	const month = 30 * 24 * time.Hour
	s := newStore(t)
	m := manager(s)
	m.Cookie.MaxAge = time.Hour
	remember := func(r *http.Request) { session.From(r).Cookie.OriginalMaxAge = month }
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put,
		"/login": func(w http.ResponseWriter, r *http.Request) {
			regenerate(w, r)
			put(w, r)
			if err := session.From(r).Save(); err != nil {
				t.Error(err)
			}
			remember(r)
		},
		"/flush":   func(w http.ResponseWriter, r *http.Request) { put(w, r); w.(http.Flusher).Flush(); remember(r) },
		"/touched": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); remember(r) },
	})
	for _, path := range []string{"/login?b=2", "/flush?b=2", "/touched"} {
		cookie := cookieOf(do(t, srv, "/put?a=1", ""))
		if fresh := cookieOf(do(t, srv, path, cookie)); fresh != "" {
			cookie = fresh
		}
		if sess, err := s.Store.Get(ctx, idOf(t, cookie)); err != nil || sess.Cookie.OriginalMaxAge != month {
			t.Errorf("%s: %+v, %v", path, sess, err)
		}
	}
}

// After a Hijack or Flush that the writer cannot do the cookie was missing.
func TestFailedHijack(t *testing.T) {
	m := manager(newStore(t))
	for name, try := range map[string]func(w http.ResponseWriter) error{
		"Hijack": func(w http.ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
		"Flush":  func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		rec := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("b", 1)
			if err := try(w); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s = %v", name, err)
			}
			put(w, r)
			io.WriteString(w, "x")
		})).ServeHTTP(struct{ http.ResponseWriter }{rec}, httptest.NewRequest("GET", "/?a=1", nil))
		if c := rec.Header()["Set-Cookie"]; len(c) != 1 {
			t.Errorf("after a failed %s: cookies %q", name, c)
		}
	}
}

// An ErrorFunc that only counts made a success of a failure.
func TestSilentErrorFunc(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	var n atomic.Int64
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { n.Add(1) }
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		s.setFail(fs.ErrPermission)
		w.WriteHeader(http.StatusOK)
		http.SetCookie(w, &http.Cookie{Name: "after", Value: "x"})
	}})
	if a := do(t, srv, "/put?a=1", ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || n.Load() != 1 {
		t.Errorf("at the save: %d, %q, %d errors", a.StatusCode, a.Header.Get("Set-Cookie"), n.Load())
	}
	if a := do(t, srv, "/put?a=1", signed("id")); a.StatusCode != 500 || n.Load() != 2 {
		t.Errorf("at the load: %d, %d errors", a.StatusCode, n.Load())
	}
}

// A failing Touch is reported, and no reason to refuse the page; its cookie is
// not prolonged.
func TestFailingTouch(t *testing.T) {
	for _, rolling := range []bool{true, false} {
		s := newStore(t)
		m := manager(s)
		m.Rolling = rolling
		var n atomic.Int64
		m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
			n.Add(1)
			session.From(r).ID() // holds no lock
			http.Error(w, "no", 500)
		}
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/fail": func(w http.ResponseWriter, r *http.Request) {
			s.setFail(fs.ErrPermission)
			io.WriteString(w, "page")
		}})
		cookie := cookieOf(do(t, srv, "/put?a=1", ""))
		if a := do(t, srv, "/fail", cookie); a.StatusCode != 200 || a.body != "page" || n.Load() != 1 || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("rolling %v: %d %q, %d errors, %q", rolling, a.StatusCode, a.body, n.Load(), a.Header.Get("Set-Cookie"))
		}
	}
}

// nilStore says of what it does not have nothing at all, as stores in Node do.
type nilStore struct{ memory }

func (s *nilStore) Get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, _ := s.memory.Get(ctx, id)
	return sess, nil
}

// There is one way to say "none". Anything else is a defect of the Store, and no reason to panic.
func TestStoreThatReturnsNil(t *testing.T) {
	srv := serve(t, manager(&nilStore{memory{m: make(map[string]*filestore.Session)}}), map[string]http.HandlerFunc{"/show": show})
	if a := do(t, srv, "/show", signed("id")); a.StatusCode != 500 {
		t.Errorf("neither a session nor an error: %d %q", a.StatusCode, a.body)
	}
}

// Names that promise what the attributes break, and a domain that was let through: the Kelvin sign
// folds to a k.
func TestUnusableCookies(t *testing.T) {
	s := &memory{}
	for name, m := range map[string]*session.Manager{
		"__Host- with a domain": {Name: "__Host-sid", Cookie: session.CookieOptions{Domain: "example.com"}},
		"__Host- with a path":   {Name: "__Host-sid", Cookie: session.CookieOptions{Path: "/app"}},
		"__Host-, not secure":   {Name: "__Host-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"__Secure-, not secure": {Name: "__Secure-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"Kelvin":                {Cookie: session.CookieOptions{Domain: "\u212aexample.com"}},
	} {
		m.Store, m.Secrets = s, []string{secret}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			m.Handler(http.NotFoundHandler())
		}()
	}
	m := manager(s)
	m.Name = "__Host-sid"
	m.Handler(http.NotFoundHandler())
}

// A store that keeps what Set gives it, and ends sessions by ExpiresAt, works:
// sessions had no LastAccess, and went on changing under it.
func TestOwnStore(t *testing.T) {
	s := &MemoryStore{TTL: time.Hour}
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/late": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		w.(http.Flusher).Flush()
		session.From(r).Values["b"] = []byte(`"unsaved"`)
		if kept, err := s.Get(ctx, session.From(r).ID()); err != nil || len(kept.Values) != 1 {
			t.Errorf("the store has %+v, %v", kept, err)
		}
		session.From(r).Delete("b")
	}})
	b := newBrowser(t, srv)
	b.get("/late?a=1")
	b.get("/put?c=2")
	if got, want := b.get("/show").body, `{"a":"1","c":"2"}`+"\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for id := range s.sessions {
		sess, err := s.Get(ctx, id)
		if err != nil || time.Since(sess.LastAccess) > time.Minute {
			t.Errorf("dated %v, %v", sess, err)
		}
	}
}
