package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// Most of these tests sleep until a session ends.
func TestMain(m *testing.M) {
	storetest.Parallel(100)
	os.Exit(m.Run())
}

func TestStore(t *testing.T) {
	t.Parallel()
	for _, lifetime := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprint("lifetime ", lifetime), func(t *testing.T) {
			t.Parallel()
			sessiontest.Run(t, func(*testing.T) session.Store {
				s := sessiontest.NewStore()
				s.Limit = lifetime
				return s
			})
		})
	}
}

func TestFilestore(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]filestore.Options{"": {}, " without flush and cache": {NoSync: true, CacheSize: -1}, " with a lifetime": {Lifetime: time.Hour}} {
		o.LockTimeout = time.Minute // their flushes wait for each other
		t.Run("filestore"+name, func(t *testing.T) {
			t.Parallel()
			sessiontest.Run(t, func(t *testing.T) session.Store {
				s, err := filestore.Open(t.TempDir(), &o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			})
		})
	}
}

// Three methods suffice: embedding the interface hides all others.
func TestThreeMethods(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(*testing.T) session.Store { return struct{ session.Store }{sessiontest.NewStore()} })
}

// A broken Store breaks one promise.
type broken struct {
	*sessiontest.Store
	how  string
	mu   sync.Mutex
	last map[string]*filestore.Session

	newest string // the id that was set last
}

func (s *broken) Get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := s.Store.Get(ctx, id)
	switch {
	case s.how == "returns nil, nil" && errors.Is(err, filestore.ErrNotFound):
		return nil, nil
	case s.how == "ignores the expiry" && errors.Is(err, filestore.ErrExpired):
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.last[id], nil
	}
	return sess, err
}

func (s *broken) Set(ctx context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	s.last[id], s.newest = sess, id
	s.mu.Unlock()
	if s.how == "forgets the beginning" {
		own := *sess
		own.Created = time.Time{}
		sess = &own
	}
	return s.Store.Set(ctx, id, sess)
}

func (s *broken) Lifetime() time.Duration {
	if s.how == "knows no end" {
		return time.Hour
	}
	return 0
}

func (s *broken) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Find(ctx, member, value) {
			s.mu.Lock()
			late := s.how == "finds late" && e.ID == s.newest
			s.mu.Unlock()
			if late || s.how == "finds no number" && member == "user" && e.Session.Values["user"][0] != '"' {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (s *broken) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {
		for e, err := range s.Store.Watch(ctx) {
			if !(s.how == "tells of no end" && e.Op == filestore.Destroyed) && !yield(e, err) {
				return
			}
		}
	}
}

func (s *broken) OnReap(fn func(removed int)) {
	s.Store.OnReap(fn)
	if s.how == "counts twice" {
		s.Store.OnReap(fn)
	}
}

func (s *broken) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	err := s.Store.Touch(ctx, id, c)
	if s.how == "resurrects" && errors.Is(err, filestore.ErrNotFound) {
		return s.Store.Set(ctx, id, &filestore.Session{})
	}
	return err
}

func (s *broken) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if s.how == "takes polling for use" {
		return s.Store.Update(ctx, id, func(sess *filestore.Session) error {
			err := fn(sess)
			sess.NoTouch = false
			return err
		})
	}
	if s.how != "loses updates" && s.how != "shares its values" {
		return s.Store.Update(ctx, id, fn)
	}
	sess, err := s.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	err = fn(sess)
	time.Sleep(time.Millisecond)
	if err != nil && s.how == "loses updates" {
		return err
	}
	return errors.Join(s.Store.Set(ctx, id, sess), err)
}

// Run finds a broken promise, and says which one.
func TestRunFails(t *testing.T) {
	t.Parallel()
	wants := map[string]string{
		"resurrects":         "Toucher: after Touch, which must not bring a session back",
		"shares its values":  "Updater: after Update with an fn that fails, which must store nothing",
		"loses updates":      "Updater: after parallel Updates that each add 1, of which none may be lost",
		"returns nil, nil":   "Get: before any Set: Get(\"2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx\") returns the error <nil>, want filestore.ErrNotFound",
		"ignores the expiry": "Expiry: a session that lives for 2 s, after 3.5 s",

		"takes polling for use": "Updater: after an Update with NoTouch the LastAccess is",
		"forgets the beginning": "Limiter: after Set of the session that Get returned, Update and Touch it was Created at",
		"knows no end":          "Limiter: a session that was created 1h0m1s ago, with a Lifetime of 1h0m0s",
		"finds late":            "Finder: Find of the session that was just set finds []",
		"finds no number":       "Finder: Find(\"user\", \"77\") finds [], want [\"n77\"]",
		"tells of no end":       "Watcher: Watch did not yield a Changed and a Destroyed within 10 s",
		"counts twice":          "Reaper: OnReap has told of 4 sessions, want the 2 that had expired",
	}
	if os.Getenv("SESSIONTEST_BROKEN") != "" {
		for how := range wants {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				sessiontest.Run(t, func(*testing.T) session.Store {
					return &broken{Store: sessiontest.NewStore(), how: how, last: make(map[string]*filestore.Session)}
				})
			})
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRunFails$", "-test.parallel", "100") // most of the time they sleep
	cmd.Env = append(os.Environ(), "SESSIONTEST_BROKEN=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("the broken Stores pass Run")
	}
	for how, want := range wants {
		test, message, _ := strings.Cut(want, ": ")
		_, failed, ok := strings.Cut(string(out), "--- FAIL: TestRunFails/"+strings.ReplaceAll(how, " ", "_")+"/"+test+" ")
		failed, _, _ = strings.Cut(failed, "--- FAIL")
		if !ok || !strings.Contains(failed, message) {
			t.Errorf("a Store that %s: %s does not fail with %q:\n%s", how, test, message, failed)
		}
	}
}

// Request works with any Manager, whatever its name, path and cookie.
func TestRequest(t *testing.T) {
	for name, m := range map[string]*session.Manager{
		"plain":  {},
		"secure": {Name: "__Host-sid", Cookie: session.CookieOptions{Secure: session.SecureAlways, SameSite: http.SameSiteStrictMode}},
		"path":   {Cookie: session.CookieOptions{Path: "/app", MaxAge: time.Hour}},
		"served": {Path: "/app", Cookie: session.CookieOptions{Path: "/x"}},
	} {
		m.Store, m.Secrets = sessiontest.NewStore(), []string{"keyboard cat", "an older one"}
		for _, values := range []map[string]any{{"user": "anna", "n": 1}, nil} {
			r := sessiontest.Request(httptest.NewRequest("POST", "/app/x", nil), m, values)
			w := httptest.NewRecorder()
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r)
				user, err := session.Value[string](s, "user")
				_, saved := m.Store.Get(r.Context(), s.ID())
				fmt.Fprint(w, user, " ", len(s.Values), " ", err, " ", saved)
			})).ServeHTTP(w, r)
			want := "anna 2 <nil> <nil>"
			if values == nil {
				want = " 0 <nil> <nil>"
			}
			if w.Body.String() != want {
				t.Errorf("%s: %q, want %q", name, w.Body, want)
			}
		}
	}
}

// Login makes a request of a user who has just logged in.
func TestLogin(t *testing.T) {
	m := &session.Manager{Store: sessiontest.NewStore(), Secrets: []string{"keyboard cat"}, User: "passport.user"}
	r := sessiontest.Login(httptest.NewRequest("GET", "/", nil), m, "anna", map[string]any{"cart": 1})
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		if infos, err := m.Sessions(r.Context(), "anna"); len(infos) != 1 || err != nil || !infos[0].Current || !s.Fresh(time.Minute) || string(s.Values["cart"]) != "1" {
			t.Errorf("the sessions are %+v, %v, and this one has %s", infos, err, s.Values)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}

// The function of an Update may use the Store, and runs again if the session has changed meanwhile.
func TestUpdateAgain(t *testing.T) {
	t.Parallel()
	s := sessiontest.NewStore()
	if err := s.Set(t.Context(), "id", &filestore.Session{}); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := s.Update(t.Context(), "id", func(sess *filestore.Session) error {
		if runs++; runs == 1 {
			other, err := s.Get(t.Context(), "id")
			if err == nil {
				err = errors.Join(other.Put("theirs", 1), s.Set(t.Context(), "id", other))
			}
			return errors.Join(err, sess.Put("lost", 1))
		}
		return sess.Put("mine", 2)
	})
	sess, getErr := s.Get(t.Context(), "id")
	if err != nil || getErr != nil || runs != 2 || string(sess.Values["theirs"]) != "1" || string(sess.Values["mine"]) != "2" || len(sess.Values) != 2 {
		t.Errorf("%v, %v after %d runs, want 2: %v", err, getErr, runs, sess)
	}
	err = s.Update(t.Context(), "id", func(*filestore.Session) error { return s.Destroy(t.Context(), "id") })
	if !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Update of a session that is destroyed meanwhile = %v", err)
	}
}
