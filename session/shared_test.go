package session_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
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
			t.Errorf("%s with the old cookie: %d, %q", path, a.StatusCode, a.Header.Get("Set-Cookie"))
		}
	}
	if n := len(s.files(t)); n != 1 {
		t.Errorf("%d files", n)
	}
	// But whoever logs in again gets a session.
	if a := do(t, srv, "/login?user=bert", old); cookieOf(a) == "" || do(t, srv, "/show", cookieOf(a)).body != `{"user":"bert"}`+"\n" {
		t.Errorf("a login with the old cookie: %q", a.Header.Get("Set-Cookie"))
	}
	if got := do(t, srv, "/show", fresh).body; got != `{"user":"anna"}`+"\n" {
		t.Errorf("the first login has %s", got)
	}
	// An id that was destroyed, or never was, is no replaced one.
	if a := do(t, srv, "/put?a=1", signed("unknown")); cookieOf(a) == "" {
		t.Error("no cookie for an unknown id")
	}
}

// Of three requests that have loaded one session the first replaces it, the second fails to, and the
// third logs out.
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
		t.Errorf("after the logout there is a session of %s", sess.Values["user"])
	}
	// and the late answer
	sess = new(filestore.Session)
	s.Store.Set(ctx, "id2", sess)
	request(m, "id2", "/", func(w http.ResponseWriter, r1 *http.Request) {
		request(m, "id2", "/", regenerate)
		session.From(r1).Regenerate()
	})
	if c := request(m, "id2", "/?a=1", put).Header().Get("Set-Cookie"); c != "" {
		t.Errorf("a late answer sets %.40q", c)
	}
}

// A logout that had loaded the old session, long after it was replaced.
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
			t.Errorf("Destroy = %v, and the user is logged in", err)
		}
	})
}

// A logout that was sent before the browser had the new cookie.
func TestLogoutWithOldCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	s.Store.Set(ctx, "id", new(filestore.Session))
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { keepUser(r) })
	var err error
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Destroy() })
	if live := s.live(t); len(live) != 0 {
		t.Errorf("Destroy = %v, live %q", err, live)
	}
}

// A GenID that comes back to an old id.
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
			t.Errorf("%d calls of Destroy in %v", calls, time.Since(begun))
		}
	})
}
