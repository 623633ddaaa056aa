package session_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// keepUser does what people write to get a new id with the same user.
func keepUser(r *http.Request) error {
	s := session.From(r)
	user, err := session.Value[string](s, "user")
	if err == nil {
		err = s.Regenerate()
	}
	s.Put("user", user) // even if Regenerate failed
	return err
}

// F8: Regenerate gives a new id at once, empties the session, and makes the old cookie worthless.
func TestRegenerate(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			before := sess.ID()
			if err := sess.Regenerate(); err != nil {
				t.Error(err)
			}
			if sess.ID() == before || len(sess.Values) != 0 {
				t.Errorf("Regenerate kept the id, or %d values", len(sess.Values))
			}
			sess.Put("user", "anna")
		}})
		b := newBrowser(t, srv)
		b.get("/put?cart=1")
		old := b.cookie()
		if a := b.get("/login"); cookieOf(a) == "" || cookieOf(a) == old {
			t.Errorf("login set the cookie %q, it was %q, want another", cookieOf(a), old)
		}
		if got, want := b.get("/show").body, `{"user":"anna"}`+"\n"; got != want {
			t.Errorf("after the login the session has %s, want %s", got, want)
		}
		a := do(t, srv, "/show", old)
		if a.body != "{}\n" {
			t.Errorf("the old cookie opens %s, want an empty session", a.body)
		}
	})
}

// A logout beside a Regenerate wins, whichever comes first. The user was logged in again under the new
// id.
func TestLogoutBesideRegenerate(t *testing.T) {
	for _, first := range []string{"logout", "regenerate", "regenerate, save"} {
		stores(t, func(t *testing.T, s session.Store) {
			m := manager(s)
			var id, next string
			var err error
			srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show})
			id = idOf(t, cookieOf(do(t, srv, "/put?user=anna", "")))
			logout := func(during func()) {
				request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { during(); destroy(w, r) })
			}
			w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
				if first == "logout" {
					logout(func() {})
					err = keepUser(r)
				} else {
					logout(func() { // the logout has loaded the old session
						err = keepUser(r)
						if first == "regenerate, save" {
							session.From(r).Save()
						}
					})
				}
				next = session.From(r).ID()
			})
			if first == "logout" != errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("%s first: Regenerate = %v", first, err)
			}
			if w.Code != 200 || first != "regenerate, save" && w.Header().Get("Set-Cookie") != "" { // a cookie would be for a session that is gone
				t.Errorf("%s first: status %d, want 200, cookie %q, want none", first, w.Code, w.Header().Get("Set-Cookie"))
			}
			for _, id := range []string{id, next} {
				if sess, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("%s first: the user is logged in after the logout: %v, %v", first, sess, err)
				}
			}
		})
	}
}

// beforeDestroy does something once, when a session is about to be destroyed.
type beforeDestroy struct {
	*filestore.Store
	do *func()
}

func (s beforeDestroy) Destroy(ctx context.Context, id string) error {
	if do := *s.do; do != nil {
		*s.do = nil
		do()
	}
	return s.Store.Destroy(ctx, id)
}

// A logout that has begun to destroy the session also ends those that replace it until it is gone.
func TestRegenerateDuringLogout(t *testing.T) {
	for _, times := range []int{1, 3} {
		s := newStore(t)
		var do func()
		m := manager(beforeDestroy{s.Store, &do})
		s.Store.Set(ctx, "id", new(filestore.Session))
		do = func() {
			request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
				for range times {
					if err := keepUser(r); err != nil {
						t.Errorf("Regenerate = %v", err)
					}
				}
			})
		}
		w := request(m, "id", "/", destroy)
		if live := s.live(t); len(live) > 0 || w.Code != 200 || do != nil {
			t.Errorf("%d times: status %d, live sessions %q, want none", times, w.Code, live)
		}
	}
}

// If several requests replace one session, one succeeds.
func TestParallelRegenerate(t *testing.T) {
	for range storetest.Long(20, 500) {
		s := newStore(t)
		m := manager(s)
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put})
		id := idOf(t, cookieOf(do(t, srv, "/put?user=anna", "")))
		var loaded, wg sync.WaitGroup
		loaded.Add(8)
		var mu sync.Mutex
		var won []string
		for range 8 {
			wg.Go(func() {
				var err error
				var next string
				w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
					loaded.Done()
					loaded.Wait()
					err = keepUser(r)
					next = session.From(r).ID()
				})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && len(w.Result().Cookies()) == 1:
					won = append(won, next)
				case !errors.Is(err, filestore.ErrNotFound) || len(w.Result().Cookies()) != 0:
					t.Errorf("Regenerate = %v, cookies %q, want nil and one, or ErrNotFound and none", err, w.Header()["Set-Cookie"])
				}
			})
		}
		wg.Wait()
		if live := s.live(t); len(won) != 1 || !slices.Equal(live, won) {
			t.Fatalf("%d requests succeeded, and %d sessions are live, want 1 and the same", len(won), len(live))
		}
	}
}

// If a login cannot be stored, the old session is as it was, and its cookie is valid.
func TestRegenerateFails(t *testing.T) {
	for _, op := range []string{"create", "update", "get"} {
		s := newStore(t)
		m := manager(s)
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			before := sess.ID()
			s.failOn(op, syscall.ENOSPC)
			err := sess.Regenerate()
			s.failOn("", nil)
			if op == "get" { // which Regenerate does not call
				if err != nil {
					t.Errorf("%s fails: Regenerate = %v, want nil", op, err)
				}
				return
			}
			if !errors.Is(err, syscall.ENOSPC) || sess.ID() != before || string(sess.Values["cart"]) != `"1"` {
				t.Errorf("%s fails: Regenerate = %v, want ENOSPC; id kept %v, values %s", op, err, sess.ID() == before, sess.Values)
			}
			http.Error(w, "sorry", 500)
		}})
		cookie := cookieOf(do(t, srv, "/put?cart=1", ""))
		do(t, srv, "/login", cookie)
		if op == "get" {
			continue
		}
		if got := do(t, srv, "/show", cookie).body; got != `{"cart":"1"}`+"\n" || len(s.live(t)) != 1 {
			t.Errorf("%s fails: the old cookie opens %s, %d sessions", op, got, len(s.live(t)))
		}
	}
}

// If Regenerate returns nil after a Destroy that failed, the old cookie opens nothing. It did.
func TestRegenerateAfterFailedDestroy(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	for _, op := range []string{"destroy", ""} { // the store fails in Destroy alone, or in everything
		for _, again := range []bool{true, false} {
			var first, second error
			srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/logout": func(w http.ResponseWriter, r *http.Request) {
				s.failOn(op, fs.ErrPermission)
				first = session.From(r).Destroy()
				if again {
					s.setFail(nil)
				}
				second = session.From(r).Regenerate()
				s.setFail(nil)
			}})
			cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
			do(t, srv, "/logout", cookie)
			if first == nil {
				t.Error("Destroy = nil although the store fails")
			}
			if got := do(t, srv, "/show", cookie).body; second == nil && got != "{}\n" {
				t.Errorf("failing %q, again %v: Regenerate returned nil, and the old cookie opens %s", op, again, got)
			}
			if again && second != nil {
				t.Errorf("failing %q: Regenerate = %v, want nil", op, second)
			}
		}
	}
}

// Regenerate leaves the session alone if the browser cannot be told a new id any more.
func TestRegenerateTooLate(t *testing.T) {
	for name, tt := range map[string]struct {
		wrap   func(h http.Handler) http.Handler
		before func(w http.ResponseWriter, r *http.Request)
	}{
		"header written": {nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }},
		"body written":   {nil, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) }},
		"flushed":        {nil, func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }},
		"redirected":     {nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }},
		"client gone": {func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, cancel := context.WithCancel(r.Context())
				r = r.WithContext(context.WithValue(c, cancelKey{}, cancel))
				h.ServeHTTP(w, r)
			})
		}, func(w http.ResponseWriter, r *http.Request) { r.Context().Value(cancelKey{}).(context.CancelFunc)() }},
		"timed out outside": {func(h http.Handler) http.Handler {
			return http.TimeoutHandler(h, 10*time.Millisecond, "")
		}, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		s := newStore(t)
		m := manager(s)
		done := make(chan error, 1)
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put})
		cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
		h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tt.before(w, r)
			done <- keepUser(r)
		}))
		if tt.wrap != nil {
			h = tt.wrap(h)
		}
		late := httptest.NewServer(h)
		do(t, late, "/", cookie)
		if err := <-done; !errors.Is(err, session.ErrTooLate) {
			t.Errorf("%s: Regenerate = %v, want ErrTooLate", name, err)
		}
		late.Close()
		if live := s.live(t); len(live) != 1 || live[0] != idOf(t, cookie) {
			t.Errorf("%s: the live sessions are %q, want the old one", name, live)
		}
	}
}

type cancelKey struct{}

// A TimeoutHandler within has given the handler up, and the response has left.
func TestRegenerateAfterTimeoutWithin(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	done, answered := make(chan error, 1), make(chan bool)
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/slow": http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-answered
		done <- keepUser(r)
	}), 10*time.Millisecond, "").ServeHTTP})
	cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
	if a := do(t, srv, "/slow", cookie); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", a.StatusCode)
	}
	close(answered)
	if err := <-done; !errors.Is(err, session.ErrTooLate) {
		t.Errorf("Regenerate = %v, want ErrTooLate", err)
	}
	if live := s.live(t); len(live) != 1 || live[0] != idOf(t, cookie) {
		t.Errorf("the live sessions are %q, want the old one", live)
	}
}

// After a Flush or Hijack that the writer does not support, only the cookie of the new id is in the
// header. That of the old id was left.
func TestRegenerateAfterFailedFlush(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	for name, try := range map[string]func(w http.ResponseWriter) error{
		"Hijack": func(w http.ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
		"Flush":  func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		for _, c := range []string{"", signed("old")} {
			if err := s.Store.Set(ctx, "old", new(filestore.Session)); err != nil {
				t.Fatal(err)
			}
			rec := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/?a=1", nil)
			if c != "" {
				r.Header.Set("Cookie", c)
			}
			var id string
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
				put(w, r)
				if err := try(w); !errors.Is(err, http.ErrNotSupported) {
					t.Errorf("%s = %v, want ErrNotSupported", name, err)
				}
				if err := session.From(r).Regenerate(); err != nil {
					t.Errorf("after a failed %s: Regenerate = %v", name, err)
				}
				id = session.From(r).ID()
			})).ServeHTTP(struct{ http.ResponseWriter }{rec}, r)
			cookies := rec.Header()["Set-Cookie"]
			if len(cookies) != 2 || !strings.HasPrefix(cookies[0], "other=") || !strings.HasPrefix(cookies[1], signed(id)) {
				t.Errorf("after a failed %s: cookies %q, want that of %s", name, cookies, id)
			}
		}
	}
}

// Once CookieOptions.Expires has passed, no session can begin, and Regenerate replaces none.
func TestRegenerateAfterExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{})
		m := manager(s)
		m.Cookie.Expires = time.Now().Add(10 * time.Second)
		h := m.Handler
		var err error
		handler := h(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Regenerate() }))
		s.Set(ctx, "id", new(filestore.Session)) // lives for an hour
		time.Sleep(20 * time.Second)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", signed("id"))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		_, gone := s.Get(ctx, "id")
		if !errors.Is(err, session.ErrCookie) || gone != nil {
			t.Errorf("Regenerate = %v, want ErrCookie; the old session: %v; status %d, cookie %q", err, gone, w.Code, w.Header().Get("Set-Cookie"))
		}
	})
}

// A save during a Regenerate counts as a save beside a logout, and not as a failure.
func TestSaveBesideRegenerate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: time.Minute})
		m := manager(slowDestroy{s})
		s.Set(ctx, "id", new(filestore.Session))
		go request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Millisecond); regenerate(w, r) })
		w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) { time.Sleep(500 * time.Millisecond); put(w, r) })
		w2 := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) { put(w, r) })
		time.Sleep(3 * time.Second)
		if w.Code != 200 || w2.Code != 200 {
			t.Errorf("status %d and %d, want 200", w.Code, w2.Code)
		}
	})
}

// If the new id is invalid, the error is not ErrNotFound, because the old session is there.
func TestRegenerateInvalidID(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.GenID = func(*http.Request) (string, error) { return "abc.json", nil }
	s.Store.Set(ctx, "id", new(filestore.Session))
	var err error
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Regenerate() })
	if errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Regenerate = %v, want no ErrNotFound: the old session is there: %q", err, s.live(t))
	}
}

// If a value that is put in after Regenerate cannot be stored, the error answer still has the new cookie:
// without it the visitor would have no session.
func TestFullDiskAfterRegenerate(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	s.Store.Set(ctx, "id", new(filestore.Session))
	w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
		regenerate(w, r)
		put(w, r)
		s.setFail(syscall.ENOSPC)
		w.Write([]byte("x"))
		s.setFail(nil)
	})
	live := s.live(t)
	if len(live) != 1 || w.Code != 500 || idOf(t, cookieOf(answer{w.Result(), ""})) != live[0] {
		t.Errorf("status %d, want 500, cookie %q, live sessions %q, want the one in the cookie", w.Code, w.Header().Get("Set-Cookie"), live)
	}
}

// However writes, logouts and changes of the id meet, one session is left, and none after a logout.
func TestEverythingAtOnce(t *testing.T) {
	for i := range storetest.Brief(10, storetest.Long(40, 1000)) {
		s := newStore(t)
		m := manager(s)
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put})
		id := idOf(t, cookieOf(do(t, srv, "/put?user=anna", "")))
		n := 2 + rand.N(5)
		var loaded, wg sync.WaitGroup
		loaded.Add(n)
		ops := make([]int, n)
		for k := range n {
			ops[k] = rand.N(6)
		}
		codes := make([]int, n)
		for k := range n {
			wg.Go(func() {
				w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
					sess := session.From(r)
					loaded.Done()
					loaded.Wait()
					time.Sleep(time.Duration(rand.N(300)) * time.Microsecond)
					switch ops[k] {
					case 0:
						sess.Put("a", k)
					case 1:
						sess.Destroy()
					case 2:
						keepUser(r)
					case 3:
						if keepUser(r) == nil {
							keepUser(r)
						}
					case 4:
						sess.Flash("a", "x")
						sess.Save()
					case 5:
						keepUser(r)
						sess.Save()
					}
				})
				codes[k] = w.Code
				if ops[k] < 2 || ops[k] == 4 {
					if c := w.Header().Get("Set-Cookie"); c != "" {
						t.Errorf("operation %d sets the cookie %q", ops[k], c)
					}
				}
			})
		}
		wg.Wait()
		destroyed, renewed := false, false
		for _, op := range ops {
			destroyed = destroyed || op == 1
			renewed = renewed || op == 2 || op == 3 || op == 5
		}
		live := s.live(t)
		want := 1
		if destroyed {
			want = 0
		}
		if len(live) != want {
			t.Errorf("round %d: operations %v: live sessions %q", i, ops, live)
		}
		if renewed && len(live) == 1 && live[0] == id {
			t.Errorf("round %d: operations %v: the old id is alive", i, ops)
		}
		for k, code := range codes {
			if code != 200 {
				t.Errorf("operations %v: status of operation %d is %d, want 200", ops, ops[k], code)
			}
		}
		srv.Close()
	}
}

// E3: requests with the old id, beside a Regenerate, do not bring the old session back.
func TestRegenerateBesideWriters(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		if err := sess.Regenerate(); err != nil {
			t.Error(err)
		}
		sess.Put("user", "anna")
	}})
	for range storetest.Long(30, 1000) {
		b := newBrowser(t, srv)
		b.get("/put?cart=1")
		old := b.cookie()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { do(t, srv, fmt.Sprintf("/put?k%d=1", i), old) })
		}
		b.get("/login")
		wg.Wait()
		if _, err := s.Store.Get(ctx, idOf(t, old)); !errors.Is(err, filestore.ErrNotFound) {
			t.Fatalf("the old session is there: Get = %v", err)
		}
		if got := b.get("/show").body; got != `{"user":"anna"}`+"\n" {
			t.Errorf("the new session has %s", got)
		}
	}
}
