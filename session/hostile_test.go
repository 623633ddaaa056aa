package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// events collects what OnEvent is told.
type events struct {
	mu  sync.Mutex
	all []session.Event
}

func (e *events) hear(_ context.Context, ev session.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) take() (all []session.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, e.all = e.all, nil
	return all
}

// An own Renew or Login of a request does not close its Done.
func TestHostileDoneStaysOpenInOwnRenew(t *testing.T) {
	t.Parallel() // it waits more than it runs
	for name, replace := range replacers {
		for _, limit := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " ", limit), func(t *testing.T) {
				var closed atomic.Int32
				var wg sync.WaitGroup
				for range storetest.Brief(5, 20) {
					m := manager(newStore(t))
					m.MaxPerUser = limit
					wg.Go(func() {
						id := logIn(t, m, "anna")
						request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
							done := session.From(r).Done()
							time.Sleep(50 * time.Millisecond)
							if err := replace(session.From(r)); err != nil {
								t.Error(err)
							}
							time.Sleep(50 * time.Millisecond)
							select {
							case <-done:
								closed.Add(1)
							default:
							}
						})
					})
				}
				wg.Wait()
				if n := closed.Load(); n > 0 {
					t.Errorf("in %d of 20 requests their own %s has closed Done", n, name)
				}
			})
		}
	}
}

// panicUpdate panics for one damaged session.
type panicUpdate struct {
	*sessiontest.Store
	id string
}

func (s panicUpdate) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if id == s.id {
		panic("a defect")
	}
	return s.Store.Update(ctx, id, fn)
}

// A Store that panics for one session fails the request that ends it, and not the program.
func TestHostilePanicInEndAll(t *testing.T) {
	if os.Getenv("HOSTILE_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHostilePanicInEndAll$")
		cmd.Env = append(os.Environ(), "HOSTILE_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("a panic of the Store in EndAll ends the program: %v\n%.400s", err, out)
		}
		return
	}
	s := sessiontest.NewStore()
	id := logIn(t, manager(s), "anna")
	m := manager(panicUpdate{s, id})
	func() {
		defer func() { recover() }() // as net/http does
		m.EndAll(ctx, "anna")
	}()
}

// On a full disk a user can log out, and be logged out: to remove a file needs no room.
func TestHostileEndOnAFullDisk(t *testing.T) {
	for name, end := range map[string]func(m *session.Manager, id string) error{
		"Destroy": func(m *session.Manager, id string) (err error) {
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Destroy() })
			return err
		},
		"Logout": func(m *session.Manager, id string) (err error) {
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Logout() })
			return err
		},
		"End":    func(m *session.Manager, id string) error { return m.End(ctx, "anna", handleOf(t, m, id)) },
		"EndAll": func(m *session.Manager, id string) error { _, err := m.EndAll(ctx, "anna"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			memory := sessiontest.NewStore()
			var full error
			m := manager(failingStore{memory, &full})
			id := logIn(t, m, "anna")
			full = syscall.ENOSPC
			if err := end(m, id); err != nil {
				t.Errorf("%s on a full disk = %v", name, err)
			}
			if _, err := memory.Get(ctx, id); err == nil {
				t.Errorf("after %s on a full disk the session lives", name)
			}
		})
	}
}

// nodeSession writes a session of anna as Node does, without __created.
func nodeSession(t *testing.T, dir, id string) {
	t.Helper()
	doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"anna","__lastAccess":%d}`, time.Now().UnixMilli())
	if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
}

// findHook calls seen once for the session id when Find has it.
type findHook struct {
	*filestore.Store
	seen func(id string)
}

func (s *findHook) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Find(ctx, member, value) {
			if s.seen != nil {
				s.seen(e.ID)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// A session that Node has written, or that is older than __created, ends like others if it is renewed meanwhile.
func TestHostileEndOfNodeSessionBesideRenew(t *testing.T) {
	for _, where := range []string{"here", "another process"} {
		t.Run("End "+where, func(t *testing.T) {
			rec := newStore(t)
			s := &findHook{Store: rec.Store}
			m := manager(s)
			nodeSession(t, rec.dir, "node")
			handle := handles(t, m, "anna")[0] // without a request, which would write __created
			var next string
			s.seen = func(id string) {
				s.seen = nil
				with := m
				if where != "here" {
					with = manager(s)
				}
				request(with, "node", "/", func(w http.ResponseWriter, r *http.Request) {
					if err := session.From(r).Renew(); err != nil {
						t.Error(err)
					}
					next = session.From(r).ID()
				})
			}
			err := m.End(ctx, "anna", handle)
			if err != nil {
				return
			}
			if _, err := rec.Store.Get(ctx, next); err == nil {
				t.Error("End returns nil, and the session lives under its new id")
			}
		})
		t.Run("Logout "+where, func(t *testing.T) {
			rec := newStore(t)
			m := manager(rec)
			nodeSession(t, rec.dir, "node")
			with := m
			if where != "here" {
				with = manager(rec)
			}
			var next string
			request(m, "node", "/", func(w http.ResponseWriter, r *http.Request) {
				request(with, "node", "/", func(w http.ResponseWriter, r *http.Request) {
					if err := session.From(r).Renew(); err != nil {
						t.Error(err)
					}
					next = session.From(r).ID()
				})
				if err := session.From(r).Logout(); err != nil {
					t.Error(err)
				}
			})
			if _, err := rec.Store.Get(ctx, next); err == nil {
				t.Error("Logout returns nil, and the session lives under its new id")
			}
		})
	}
}

// One end of one session is one event.
func TestHostileOneEndOneEvent(t *testing.T) {
	count := func(all []session.Event) (n int) {
		for _, e := range all {
			if e.Kind == session.LoggedOut || e.Kind == session.Ended {
				n++
			}
		}
		return n
	}
	logout := func(m *session.Manager, id string) {
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() })
	}
	for name, inside := range map[string]func(m *session.Manager, id string){
		"Logout beside Logout":  logout,
		"Logout beside EndAll":  func(m *session.Manager, id string) { m.EndAll(ctx, "anna") },
		"Logout beside End":     func(m *session.Manager, id string) { m.End(ctx, "anna", handleOf(t, m, id)) },
		"Logout beside Destroy": func(m *session.Manager, id string) { request(m, id, "/", destroy) },
	} {
		t.Run(name, func(t *testing.T) {
			s := sessiontest.NewStore()
			m := manager(s)
			var heard events
			m.OnEvent = heard.hear
			id := logIn(t, m, "anna")
			heard.take()
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
				inside(m, id)
				session.From(r).Logout()
			})
			if all := heard.take(); count(all) != 1 {
				t.Errorf("one session has ended, and the events are %+v", all)
			}
		})
	}
	t.Run("Logout of what another request has renewed", func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		var heard events
		m.OnEvent = heard.hear
		id := logIn(t, m, "anna")
		var next string
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Renew() })
			next = handles(t, m, "anna")[0]
			heard.take()
			session.From(r).Logout()
		})
		if all := heard.take(); len(all) != 1 || all[0].Handle != next {
			t.Errorf("the session %s has ended, and the events are %+v", next, all)
		}
	})
	t.Run("Logout with the old cookie", func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		var heard events
		m.OnEvent = heard.hear
		id := logIn(t, m, "anna")
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Renew() })
		heard.take()
		logout(m, id)
		if len(handles(t, m, "anna")) != 0 {
			t.Fatal("it lives")
		}
		if all := heard.take(); count(all) != 1 {
			t.Errorf("one session has ended, and the events are %+v", all)
		}
	})
}

// OnEvent may use the session, also when the header leaves.
func TestHostileOnEventWhileTheHeaderLeaves(t *testing.T) {
	t.Run("Put", func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		m.OnEvent = func(ctx context.Context, e session.Event) { session.FromContext(ctx).Put("seen", string(e.Kind)) }
		var sess *session.Session
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sess = session.From(r)
			sess.Put("a", 1)
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		if got := kept(t, s, sess.ID()); got.Values["seen"] == nil {
			t.Errorf("what OnEvent has put in before the end of the request is lost: %s", got.Values)
		}
	})
	t.Run("Renew", func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		var err error
		m.OnEvent = func(ctx context.Context, e session.Event) {
			if e.Kind == session.Created {
				err = session.FromContext(ctx).Renew()
			}
		}
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("a", 1)
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if err != nil {
			return // ErrTooLate would be right
		}
		id := idOf(t, w.Result().Cookies()[0].Value)
		if _, getErr := s.Get(ctx, id); getErr != nil {
			t.Errorf("Renew in OnEvent = nil, and the cookie that the browser gets opens nothing: %v", getErr)
		}
	})
}

// OnEvent(Unreadable) may use the session.
func TestHostileOnEventUnreadable(t *testing.T) {
	s := sessiontest.NewStore()
	var stored []string
	three := &threeRecorder{s, &stored}
	m := manager(three)
	m.OnEvent = func(ctx context.Context, e session.Event) {
		if e.Kind == session.Unreadable {
			sess := session.FromContext(ctx)
			sess.Put("odd", 1)
			sess.Save()
		}
	}
	request(m, "bad", "/", func(w http.ResponseWriter, r *http.Request) {})
	if slices.Contains(stored, "") {
		t.Errorf("Save in OnEvent(Unreadable) stores a session with the id \"\"")
	}
}

type threeRecorder struct {
	s      *sessiontest.Store
	stored *[]string
}

func (r *threeRecorder) Get(ctx context.Context, id string) (*filestore.Session, error) {
	if id == "bad" {
		return nil, filestore.ErrCorrupt
	}
	return r.s.Get(ctx, id)
}
func (r *threeRecorder) Set(ctx context.Context, id string, s *filestore.Session) error {
	*r.stored = append(*r.stored, id)
	return nil
}
func (r *threeRecorder) Destroy(ctx context.Context, id string) error { return r.s.Destroy(ctx, id) }

// After an error of Login nobody has logged in, also in its last step.
func TestHostileLoginFailsInItsLastStep(t *testing.T) {
	for _, what := range []string{"disk full", "EndAll"} {
		t.Run(what, func(t *testing.T) {
			memory := sessiontest.NewStore()
			old := &filestore.Session{}
			old.Put("cart", "full")
			memory.Set(ctx, "old", old)
			var full error
			updates := 0
			var m *session.Manager
			s := stepping{failingStore{memory, &full}, func(op string) {
				switch {
				case op == "update":
					if updates++; updates == 2 && what == "disk full" {
						full = syscall.ENOSPC
					}
				case op == "created" && what == "EndAll":
					manager(memory).EndAll(ctx, "anna")
				}
			}}
			m = manager(finderOf{s, memory})
			m.MaxPerUser = 3
			var err error
			s.request(m, "old", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Login("anna") })
			full = nil
			if err == nil {
				return
			}
			for e := range memory.Find(ctx, "user", "anna") {
				t.Errorf("Login = %v, and anna has the session %s", err, e.Session.Values)
			}
		})
	}
}

type finderOf struct {
	stepping
	session.Finder
}

// A session whose maxAge another request has shortened ends then, also for who waits for its Done.
func TestHostileDoneOfAShortenedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		m.Prolongs = func(r *http.Request) bool { return r.URL.Path != "/stream" }
		id := logIn(t, m, "anna")
		var took time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			request(m, id, "/stream", func(w http.ResponseWriter, r *http.Request) {
				begun := time.Now()
				<-session.From(r).Done()
				took = time.Since(begun)
			})
		})
		time.Sleep(5 * time.Second)
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = 10 * time.Second
		})
		wg.Wait()
		if took > 17*time.Second {
			t.Errorf("Done was closed after %v, want 15 s", took)
		}
	})
}

// countGets counts Gets of a Store with a Watch that works.
type countGets struct {
	*sessiontest.Store
	gets *atomic.Int64
}

func (s countGets) Get(ctx context.Context, id string) (*filestore.Session, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, id)
}

// With a watch that works, streams that come do not let all others be asked for again and again.
func TestHostileDoneAsksOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gets atomic.Int64
		s := countGets{sessiontest.NewStore(), &gets}
		m := manager(s)
		m.Prolongs = func(r *http.Request) bool { return false } // no beats
		over := make(chan struct{})
		var wg sync.WaitGroup
		open := func() {
			id := logIn(t, m, "anna")
			wg.Go(func() {
				request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
					session.From(r).Done()
					<-over
				})
			})
		}
		for range 1000 {
			open()
		}
		time.Sleep(time.Minute)
		before := gets.Load()
		for range 60 {
			open()
			time.Sleep(time.Second)
		}
		n := gets.Load() - before
		close(over)
		wg.Wait()
		if n > 60*20 {
			t.Errorf("a new stream a second beside 1,000 costs %d Gets in a minute", n)
		}
	})
}

// The cookie of a session without __created ends with the Lifetime that begins now.
func TestHostileLifetimeOfANodeCookie(t *testing.T) {
	rec := newStore(t)
	o := filestore.Options{Lifetime: time.Hour, ReapInterval: -1}
	s, err := filestore.Open(rec.dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := manager(s)
	m.Rolling = true
	doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":86400000,"expires":null,"httpOnly":true,"path":"/"},"user":"anna","__lastAccess":%d}`, time.Now().UnixMilli())
	os.WriteFile(filepath.Join(rec.dir, "node.json"), []byte(doc), 0o600)
	w := request(m, "node", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Put("a", 1) })
	if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge > 3600 {
		t.Errorf("with a Lifetime of an hour the cookies are %v", c)
	}
	if sess, err := s.Get(ctx, "node"); err != nil || sess.Cookie.Expires.After(sess.Created.Add(time.Hour)) {
		t.Errorf("the file's cookie expires at %v, created %v, %v", sess.Cookie.Expires, sess.Created, err)
	}
}

// Two browsers that have logged in within one millisecond are two sessions.
func TestHostileTwinsOfAMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		a, b := logIn(t, m, "anna"), logIn(t, m, "anna")
		request(m, a, "/", func(w http.ResponseWriter, r *http.Request) { // a second click on "log out"
			request(m, a, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() })
			session.From(r).Logout()
		})
		if _, err := s.Get(ctx, b); err != nil {
			t.Errorf("two Logouts of one session have ended another browser's: %v", err)
		}
	})
}

// A JSON that is none, which a handler has put in directly, is an error of Login and no panic.
func TestHostileLoginWithOddValues(t *testing.T) {
	for _, raw := range []string{"", " ", "{", `{"a"`, `{"a":`, `{"a":1`, `{1:2}`, "{}x"} {
		func() {
			defer func() {
				if v := recover(); v != nil {
					t.Errorf("Login with the value %q panics: %v", raw, v)
				}
			}()
			s := sessiontest.NewStore()
			m := manager(s)
			m.User = "passport.user"
			s.Set(ctx, "id", new(filestore.Session))
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session.From(r).Values["passport"] = json.RawMessage(raw)
				session.From(r).Login("anna")
			})).ServeHTTP(httptest.NewRecorder(), func() *http.Request {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Cookie", signed("id"))
				return r
			}())
		}()
	}
}

// Users of odd characters log in, are found, and are told apart.
func TestHostileUsers(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		for _, path := range []string{"user", "passport.user"} {
			m := manager(s)
			m.User = path
			m.MaxPerUser = 1
			users := []string{"\x00", "a\x00b", "\ufffd", "\u2028", "<script>", "7", "07", "7.0", "-0", "1e5", "null", "true", `"`, `\u0041`, "A", "a.b", "%", "*", " ", strings.Repeat("x", 100_000), "{}", "[]", "\u00fc", "u\u0308"}
			for _, u := range users {
				logIn(t, m, u)
			}
			for _, u := range users {
				infos, err := m.Sessions(ctx, u)
				if err != nil || len(infos) != 1 || infos[0].User != u {
					t.Errorf("%s: Sessions(%.20q) = %d, %v", path, u, len(infos), err)
				}
			}
			for _, u := range users {
				if n, err := m.EndAll(ctx, u); n != 1 || err != nil {
					t.Errorf("%s: EndAll(%.20q) = %d, %v", path, u, n, err)
				}
			}
		}
	})
}

// A full first use of a Manager that panicked does not leave handles without a key.
type panicTTL struct {
	*sessiontest.Store
	once *bool
}

func (s panicTTL) TTL() time.Duration {
	if !*s.once {
		*s.once = true
		panic("not connected yet")
	}
	return time.Hour
}

func TestHostilePanicInTTL(t *testing.T) {
	var once bool
	s := sessiontest.NewStore()
	m := manager(panicTTL{s, &once})
	func() {
		defer func() { recover() }()
		m.Sessions(ctx, "anna") // in a handler of its own, that net/http recovers
	}()
	ref := manager(s)
	id := logIn(t, ref, "anna")
	want := handleOf(t, ref, id)
	if got := handleOf(t, m, id); got != want {
		t.Errorf("after a panic of TTL the handle is %s, want %s: its key is empty", got, want)
	}
}

// NoTouch leaves the cookie in the file where it is, whatever else of the cookie changes.
func TestHostileNoTouchAndCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	sess := &filestore.Session{NoTouch: true, LastAccess: at, Cookie: filestore.Cookie{OriginalMaxAge: time.Hour, Expires: at.Add(time.Hour).UTC(), Path: "/", HTTPOnly: true}}
	s.Store.Set(ctx, "id", sess)
	w := request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		session.From(r).NoTouch()
		session.From(r).Cookie.SameSite = "strict"
	})
	got := kept(t, s, "id")
	if !got.LastAccess.Equal(at) || !got.Cookie.Expires.Equal(at.Add(time.Hour)) {
		t.Errorf("after NoTouch and a change of SameSite the last access has moved by %v, the cookie by %v; sent %v", got.LastAccess.Sub(at), got.Cookie.Expires.Sub(at.Add(time.Hour)), w.Header()["Set-Cookie"])
	}
}

// Clear-Site-Data of the application stays.
func TestHostileClearSiteData(t *testing.T) {
	s := sessiontest.NewStore()
	m := manager(s)
	m.ClearSiteData = true
	id := logIn(t, m, "anna")
	w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
		session.From(r).Logout()
	})
	all := strings.Join(w.Header()["Clear-Site-Data"], ",")
	for _, want := range []string{`"cache"`, `"storage"`, `"cookies"`} {
		if !strings.Contains(all, want) {
			t.Errorf("Clear-Site-Data is %s, want also %s", all, want)
		}
	}
}

// A panic in OnEvent, which is the application's, fails what it is called in. What the reaper tells is called in nobody's.
func TestHostilePanicInOnEventOfTheReaper(t *testing.T) {
	if os.Getenv("HOSTILE_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHostilePanicInOnEventOfTheReaper$")
		cmd.Env = append(os.Environ(), "HOSTILE_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("a panic of OnEvent ends the program: %v\n%.400s", err, out)
		}
		return
	}
	s, err := filestore.Open(t.TempDir(), &filestore.Options{ReapInterval: 100 * time.Millisecond, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	m := manager(s)
	m.OnEvent = func(ctx context.Context, e session.Event) { panic("a defect") }
	m.Handler(http.NotFoundHandler())
	if err := s.Set(ctx, "id", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: -time.Second, Path: "/"}}); err != nil {
		t.Fatal(err)
	}
	for s.Stats().Reaped == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	s.Close()
}

// Store.TTL and the like may use another Manager.
func TestHostileTTLUsesAManager(t *testing.T) {
	if os.Getenv("HOSTILE_CHILD") == "" { // the lock that stays is one of the whole program
		cmd := exec.Command(os.Args[0], "-test.run=^TestHostileTTLUsesAManager$")
		cmd.Env = append(os.Environ(), "HOSTILE_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("a Store whose TTL makes another Manager's Handler: %v\n%.200s", err, out)
		}
		return
	}
	other := manager(sessiontest.NewStore())
	m := manager(&usingTTL{sessiontest.NewStore(), other})
	within(t, "Handler", func() { m.Handler(http.NotFoundHandler()) })
}

type usingTTL struct {
	*sessiontest.Store
	m *session.Manager
}

func (s *usingTTL) TTL() time.Duration {
	s.m.Handler(http.NotFoundHandler())
	return time.Hour
}

// Methods of the Manager and Handlers may be called at once, also first.
func TestHostileManagerAtOnce(t *testing.T) {
	for range 20 {
		s := sessiontest.NewStore()
		m := manager(s)
		m.MaxPerUser = 3
		var heard events
		m.OnEvent = heard.hear
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				switch n % 4 {
				case 0:
					m.Sessions(ctx, "anna")
				case 1:
					m.EndAll(ctx, "anna")
				case 2:
					m.End(ctx, "anna", "x")
				case 3:
					logIn(t, m, "anna")
				}
			})
		}
		wg.Wait()
	}
}

// All methods of one session at once, over its end.
func TestHostileMethodsAtOnce(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		m.MaxPerUser = 2
		var heard events
		m.OnEvent = heard.hear
		for range 10 {
			id := logIn(t, m, "anna")
			var left sync.WaitGroup
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
				sess := session.From(r)
				for n, fn := range []func(){
					func() { sess.Login("anna") }, func() { sess.Renew() }, func() { sess.Logout() }, func() { sess.Done() }, func() { sess.NoTouch() },
					func() { sess.EndOthers() }, func() { m.EndAll(r.Context(), "anna") }, func() { sess.Fresh(time.Hour); sess.AuthenticatedAt() },
					func() { m.Sessions(r.Context(), "anna") }, func() { sess.Flash("a", "b") }, func() { sess.Regenerate() }, func() { sess.Save() }, func() { sess.Reload() },
				} {
					left.Add(1)
					go func() {
						defer left.Done()
						for range 3 {
							fn()
						}
					}()
					if n == 6 {
						w.Write(nil)
					}
				}
			})
			left.Wait()
		}
	})
}

// What a NoTouch request stores does not put off the end, for who waits for Done either.
func TestHostileDoneAfterNoTouchAndSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		m.Prolongs = func(r *http.Request) bool { return false }
		id := logIn(t, m, "anna")
		begun := time.Now()
		var took time.Duration
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(50 * time.Minute)
			session.From(r).Put("seen", 1)
			if err := session.From(r).Save(); err != nil {
				t.Error(err)
			}
			<-session.From(r).Done()
			took = time.Since(begun)
		})
		if took > time.Hour+2*time.Second {
			t.Errorf("the session ends after an hour, and Done was closed after %v", took)
		}
	})
}

// A password is changed: all sessions end, and this browser logs in again.
func TestHostileLoginAfterEndAll(t *testing.T) {
	s := sessiontest.NewStore()
	m := manager(s)
	id := logIn(t, m, "anna")
	request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := m.EndAll(r.Context(), "anna"); err != nil {
			t.Error(err)
		}
		if err := session.From(r).Login("anna"); err != nil {
			t.Errorf("Login after the request's own EndAll = %v", err)
		}
	})
}

// The user of a session is spelled in one way, in Info and in all Events.
func TestHostileOneUserOneSpelling(t *testing.T) {
	s := sessiontest.NewStore()
	m := manager(s)
	var heard events
	m.OnEvent = heard.hear
	for range 2 {
		sess := &filestore.Session{LastAccess: time.Now(), Values: map[string]json.RawMessage{"user": json.RawMessage("4.2e1")}}
		s.Set(ctx, "id", sess)
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() })
		s.Set(ctx, "id", sess)
		m.EndAll(ctx, "42")
	}
	all := heard.take()
	for _, e := range all {
		if e.User != all[0].User {
			t.Errorf("one session is %s's in one event and %s's in another", all[0].User, e.User)
			break
		}
	}
}

// Done, asked for in Prolongs and GenID, leaves nothing behind, also if the request then fails.
func TestHostileDoneInACallbackOfAFailure(t *testing.T) {
	if os.Getenv("HOSTILE_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHostileDoneInACallbackOfAFailure$")
		cmd.Env = append(os.Environ(), "HOSTILE_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("goroutines remain: %v\n%.200s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) {}
		m.GenID = func(r *http.Request) (string, error) {
			m.From(r).Done()
			return "", fmt.Errorf("no id")
		}
		m.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		synctest.Wait()
	})
}

// EndAll and a MaxPerUser go on past an entry that Find still has and Get has not: a Store that lags.
func TestHostileStaleFind(t *testing.T) {
	s := &stale{Store: sessiontest.NewStore()}
	m := manager(s)
	logIn(t, m, "anna")
	for e := range s.Store.Find(ctx, "user", "anna") {
		s.ghost = e
	}
	s.Store.Destroy(ctx, s.ghost.ID)
	logIn(t, m, "anna")
	s.finds.Store(0)
	n, err := m.EndAll(ctx, "anna")
	t.Logf("EndAll = %d, %v after %d Finds", n, err, s.finds.Load())
	if err != nil || s.finds.Load() > 10 {
		t.Errorf("EndAll beside an entry that is gone = %d, %v after %d Finds", n, err, s.finds.Load())
	}
}

type stale struct {
	*sessiontest.Store
	ghost filestore.Entry
	finds atomic.Int64
}

func (s *stale) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		s.finds.Add(1)
		for e, err := range s.Store.Find(ctx, member, value) {
			if !yield(e, err) {
				return
			}
		}
		if s.ghost.Session != nil {
			yield(s.ghost, nil)
		}
	}
}

// Logins and Renews of one user at once, over two Stores on one directory, leave as many as MaxPerUser says.
func TestHostileLoginsBesideRenews(t *testing.T) {
	dir := t.TempDir()
	a, sa := processes(dir)
	defer sa.Close()
	b, sb := processes(dir)
	defer sb.Close()
	for round := range storetest.Brief(5, 60) {
		var ids []string
		for range 3 {
			ids = append(ids, logIn(t, a, "anna"))
		}
		var wg sync.WaitGroup
		for n, id := range ids {
			for _, m := range []*session.Manager{a, b} {
				wg.Go(func() {
					request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
						session.From(r).Renew()
						if n == 0 {
							session.From(r).Login("anna")
						}
					})
				})
				wg.Go(func() { logIn(failing{}, m, "anna") })
			}
		}
		wg.Wait()
		if n := len(handles(t, a, "anna")); n != 3 {
			t.Fatalf("round %d: anna has %d sessions, want 3", round, n)
		}
	}
}

// Beside Logins and Renews in two Stores EndAll leaves none that began before it.
func TestHostileEndAllBesideRenews(t *testing.T) {
	dir := t.TempDir()
	a, sa := processes(dir, "0")
	defer sa.Close()
	b, sb := processes(dir, "0")
	defer sb.Close()
	for round := range storetest.Brief(5, 60) {
		id := logIn(t, a, "anna")
		var wg sync.WaitGroup
		for _, m := range []*session.Manager{a, b} {
			for range 3 {
				wg.Go(func() {
					request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
						for range 3 {
							session.From(r).Renew()
						}
						session.From(r).Put("late", 1)
					})
				})
			}
		}
		if _, err := b.EndAll(ctx, "anna"); err != nil {
			t.Errorf("EndAll = %v", err)
		}
		wg.Wait()
		if n := len(handles(t, a, "anna")); n != 0 {
			t.Fatalf("round %d: after EndAll beside Renews anna has %d sessions", round, n)
		}
	}
}

// The same with sessions that Node has written.
func TestHostileLogoutOfNodeSessionBesideRenews(t *testing.T) {
	dir := t.TempDir()
	a, sa := processes(dir, "0")
	defer sa.Close()
	b, sb := processes(dir, "0")
	defer sb.Close()
	lost := 0
	for round := range storetest.Brief(5, 60) {
		id := fmt.Sprint("node", round)
		nodeSession(t, dir, id)
		var wg sync.WaitGroup
		var err error
		loaded, goOn := make(chan bool), make(chan bool)
		wg.Go(func() {
			request(b, id, "/", func(w http.ResponseWriter, r *http.Request) {
				close(loaded)
				<-goOn
				session.From(r).Renew()
			})
		})
		request(a, id, "/", func(w http.ResponseWriter, r *http.Request) {
			<-loaded
			close(goOn)
			time.Sleep(time.Duration(round%10) * 100 * time.Microsecond)
			err = session.From(r).Logout()
		})
		wg.Wait()
		if n := len(handles(t, a, "anna")); n != 0 && err == nil {
			lost++
		}
		a.EndAll(ctx, "anna")
	}
	if lost > 0 {
		t.Errorf("in %d rounds a Logout that returned nil left a session", lost)
	}
}

// A panic in OnEvent, of which somebody inside recovers, leaves no session that the browser does not know.
func TestHostilePanicInOnEventWhileTheHeaderLeaves(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.OnEvent = func(ctx context.Context, e session.Event) { panic("a defect") }
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(500)
			}
		}()
		session.From(r).Put("a", 1)
		w.Write(nil)
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if n := len(s.live(t)); n != 0 && len(w.Result().Cookies()) == 0 {
		t.Errorf("%d session is stored, and no cookie is sent", n)
	}
}

// An end that a failing Login causes is told of too.
func TestHostileEventOfAFailedLogin(t *testing.T) {
	memory := sessiontest.NewStore()
	old := &filestore.Session{}
	old.Put("user", "anna")
	memory.Set(ctx, "old", old)
	var full error
	updates := 0
	s := stepping{failingStore{memory, &full}, func(op string) {
		if op == "update" {
			if updates++; updates == 2 {
				full = syscall.ENOSPC
			}
		}
	}}
	m := manager(finderOf{s, memory})
	m.MaxPerUser = 3
	var heard events
	m.OnEvent = heard.hear
	s.request(m, "old", func(w http.ResponseWriter, r *http.Request) { session.From(r).Login("anna") })
	if _, err := memory.Get(ctx, "old"); err != nil && len(heard.take()) == 0 {
		t.Error("anna's session is gone, and no event says so")
	}
}

// A handler's own context, and that of a session of an outer Manager, mark the right session as Current.
func TestHostileCurrentOfNested(t *testing.T) {
	s := sessiontest.NewStore()
	a, b := manager(s), manager(s)
	b.Name = "other"
	id := logIn(t, a, "anna")
	logIn(t, a, "anna")
	current := 0
	request(a, id, "/", func(w http.ResponseWriter, r *http.Request) {
		b.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			infos, err := a.Sessions(r.Context(), "anna")
			if err != nil {
				t.Error(err)
			}
			for _, i := range infos {
				if i.Current {
					current++
				}
			}
		})).ServeHTTP(w, r)
	})
	if current != 1 {
		t.Errorf("%d sessions are current", current)
	}
}
