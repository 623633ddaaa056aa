package session_test

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// A recorder is a filestore.Store that remembers its calls, and can let them fail.
type recorder struct {
	*filestore.Store
	dir string

	mu    sync.Mutex
	calls []string
	fail  error  // returned by every call, unless nil
	only  string // the one call that fails, or "" for all
}

func (s *recorder) call(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, op)
	if s.only != "" && s.only != op {
		return nil
	}
	return s.fail
}

// take returns the calls since the last take.
func (s *recorder) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

func (s *recorder) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// failOn lets only the calls of op fail.
func (s *recorder) failOn(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.only = err, op
}

func (s *recorder) Get(ctx context.Context, id string) (*filestore.Session, error) {
	if err := s.call("get"); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, id)
}

func (s *recorder) Create(ctx context.Context, id string, sess *filestore.Session) error {
	if err := s.call("create"); err != nil {
		return err
	}
	return s.Store.Create(ctx, id, sess)
}

func (s *recorder) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if err := s.call("update"); err != nil {
		return err
	}
	return s.Store.Update(ctx, id, fn)
}

func (s *recorder) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	if err := s.call("touch"); err != nil {
		return err
	}
	return s.Store.Touch(ctx, id, c)
}

func (s *recorder) Destroy(ctx context.Context, id string) error {
	if err := s.call("destroy"); err != nil {
		return err
	}
	return s.Store.Destroy(ctx, id)
}

func newStore(t testing.TB) *recorder {
	t.Helper()
	dir := t.TempDir()
	o := storetest.Quick()
	o.TouchAfter = -1
	return &recorder{Store: storetest.Open(t, dir, storetest.Contested(dir, o)), dir: dir}
}

// live returns the ids of the live sessions.
func (s *recorder) live(t testing.TB) []string {
	t.Helper()
	var ids []string
	for e, err := range s.Store.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

func openStore(t *testing.T, o filestore.Options) *filestore.Store {
	t.Helper()
	o.NoSync, o.ReapInterval = true, -1
	dir := t.TempDir()
	return storetest.Open(t, dir, storetest.Contested(dir, &o))
}

// three hides all but the methods that a Store must have.
type three struct{ session.Store }

// A filtered Store is like three, and get changes what Get returns.
type filtered struct {
	session.Store
	get func(id string, sess *filestore.Session, err error) (*filestore.Session, error)
}

func (f filtered) Get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := f.Store.Get(ctx, id)
	return f.get(id, sess, err)
}

// silent returns s with ErrNotFound as the only error of Get: it does not say that a session has expired.
func silent(s session.Store) session.Store {
	return filtered{s, func(_ string, sess *filestore.Session, err error) (*filestore.Session, error) {
		if err != nil {
			return nil, filestore.ErrNotFound
		}
		return sess, nil
	}}
}

// stores runs a test over a Store that has every optional method, one that has none,
// and one that hands out the very sessions that it keeps.
func stores(t *testing.T, test func(t *testing.T, s session.Store)) {
	t.Run("filestore", func(t *testing.T) { test(t, newStore(t)) })
	t.Run("three", func(t *testing.T) { test(t, three{newStore(t)}) })
	t.Run("memory", func(t *testing.T) { test(t, &MemoryStore{TTL: time.Hour}) })
}

// The Stores of these tests keep the promises of a Store. Three methods suffice.
func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) session.Store{
		"recorder": func(t *testing.T) session.Store { return newStore(t) },
		"three":    func(t *testing.T) session.Store { return three{newStore(t)} },
		"silent":   func(t *testing.T) session.Store { return silent(newStore(t)) },
		"memory":   func(t *testing.T) session.Store { return &MemoryStore{TTL: time.Hour} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sessiontest.Run(t, open)
		})
	}
}

// A Get that returns neither a session nor an error is a defect of the Store, but does not make us panic.
func TestStoreThatReturnsNil(t *testing.T) {
	store := filtered{new(MemoryStore), func(_ string, sess *filestore.Session, _ error) (*filestore.Session, error) { return sess, nil }}
	srv := serve(t, manager(store), map[string]http.HandlerFunc{"/show": show})
	if a := do(t, srv, "/show", signed("id")); a.StatusCode != 500 {
		t.Errorf("Get returns neither a session nor an error: status %d %q, want 500", a.StatusCode, a.body)
	}
}

// A Store may keep what Set gives it, and may let sessions end by ExpiresAt. Sessions had no LastAccess,
// and changed after Set.
func TestOwnStore(t *testing.T) {
	s := &MemoryStore{TTL: time.Hour}
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/late": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		w.(http.Flusher).Flush()
		session.From(r).Values["b"] = []byte(`"unsaved"`)
		if kept, err := s.Get(ctx, session.From(r).ID()); err != nil || len(kept.Values) != 1 {
			t.Errorf("the store has %+v, %v, want what was stored", kept, err)
		}
		session.From(r).Delete("b")
	}})
	b := newBrowser(t, srv)
	b.get("/late?a=1")
	b.get("/put?c=2")
	if got, want := b.get("/show").body, `{"a":"1","c":"2"}`+"\n"; got != want {
		t.Errorf("the session has %s, want %s", got, want)
	}
	for id := range s.sessions {
		sess, err := s.Get(ctx, id)
		if err != nil || time.Since(sess.LastAccess) > time.Minute {
			t.Errorf("the session is %v, %v, want a LastAccess of now", sess, err)
		}
	}
}

// A14: if GenID returns another session's id, the request fails, and the other session is as it was.
func TestGenIDOfAnother(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		anna := &filestore.Session{LastAccess: time.Now()}
		anna.Put("user", "anna")
		if err := s.Set(ctx, "anna", anna); err != nil {
			t.Fatal(err)
		}
		m := manager(s)
		m.GenID = func(*http.Request) (string, error) { return "anna", nil }
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/login": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			if err := sess.Regenerate(); err == nil {
				sess.Put("user", "eve")
			}
		}})
		for _, path := range []string{"/login", "/put?user=eve"} {
			if a := do(t, srv, path, ""); a.StatusCode != 500 {
				t.Errorf("%s: status %d, want 500", path, a.StatusCode)
			}
			sess, err := s.Get(ctx, "anna")
			if err != nil || string(sess.Values["user"]) != `"anna"` {
				t.Errorf("%s: the other session is %v, %v, want it unchanged", path, sess, err)
			}
		}
	})
}

// F14: if the Store fails, the handler's answer is not sent.
func TestStoreErrors(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	var mu sync.Mutex
	var last error
	reported := func() error { mu.Lock(); defer mu.Unlock(); return last }
	m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
		mu.Lock()
		defer mu.Unlock()
		last = err
		http.Error(w, "sorry", http.StatusServiceUnavailable)
	}
	ran := 0
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/fail": func(w http.ResponseWriter, r *http.Request) {
		ran++
		put(w, r)
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Location", "/welcome")
		s.setFail(fs.ErrPermission)
		w.WriteHeader(302)
		if _, err := w.Write([]byte("hello")); err == nil {
			t.Error("Write = nil although the session could not be stored")
		}
	}, "/late": func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
		put(w, r)
		s.setFail(fs.ErrPermission)
	}})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))

	// Get fails.
	s.setFail(fs.ErrPermission)
	if a := do(t, srv, "/fail", cookie); a.StatusCode != 503 || a.body != "sorry\n" || ran != 0 || reported() != fs.ErrPermission {
		t.Errorf("Get fails: status %d %q, the handler ran %d times, error %v", a.StatusCode, a.body, ran, reported())
	}
	s.setFail(nil)
	// Update or Create fails: nothing of the handler's answer leaves.
	for _, c := range []string{cookie, ""} {
		a := do(t, srv, "/fail?b=1", c)
		if a.StatusCode != 503 || a.body != "sorry\n" || a.Header.Get("Location") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("Update or Create fails: status %d %q, header %v", a.StatusCode, a.body, a.Header)
		}
		s.setFail(nil)
	}
	// Update fails too late for another answer: ErrorFunc gets the error all the same.
	if a := do(t, srv, "/late?c=1", cookie); a.StatusCode != 200 || a.body != "hello" || reported() != fs.ErrPermission {
		t.Errorf("Update fails after the header: status %d %q, error %v", a.StatusCode, a.body, reported())
	}
	s.setFail(nil)
	if got := do(t, srv, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("the session is now %s", got)
	}
	// Without an ErrorFunc.
	srv = serve(t, manager(s), map[string]http.HandlerFunc{"/show": show})
	s.setFail(fs.ErrPermission)
	if a := do(t, srv, "/show", cookie); a.StatusCode != 500 || strings.Contains(a.body, "corrupt") || strings.Contains(a.body, "session") {
		t.Errorf("without an ErrorFunc: status %d %q, want 500 without details", a.StatusCode, a.body)
	}
}
