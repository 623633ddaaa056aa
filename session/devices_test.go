package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
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
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// finders are Stores that are Finders.
func finders(t *testing.T, test func(t *testing.T, s session.Store)) {
	t.Run("filestore", func(t *testing.T) { test(t, newStore(t)) })
	t.Run("memory", func(t *testing.T) { test(t, sessiontest.NewStore()) })
}

// logIn returns the id of a new session of user.
func logIn(t testing.TB, m *session.Manager, user string) (id string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", "a browser of "+user)
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login(user); err != nil {
			t.Errorf("Login = %v", err)
		}
		id = session.From(r).ID()
	})).ServeHTTP(w, r)
	return id
}

// handles returns the handles of a user's sessions, the last login first.
func handles(t testing.TB, m *session.Manager, user string) (handles []string) {
	t.Helper()
	infos, err := m.Sessions(ctx, user)
	if err != nil {
		t.Errorf("Sessions(%q) = %v", user, err)
	}
	for _, info := range infos {
		handles = append(handles, info.Handle)
	}
	return handles
}

// handleOf returns the handle of anna's session id.
func handleOf(t testing.TB, m *session.Manager, id string) (handle string) {
	t.Helper()
	request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
		infos, err := m.Sessions(r.Context(), "anna")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			if info.Current {
				handle = info.Handle
			}
		}
	})
	return handle
}

// A user sees their own sessions, whatever program made them, and ends one, all, or all others.
func TestSessions(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		m.Note = func(r *http.Request) session.Note { return session.Note{Agent: r.UserAgent()} }
		ids := []string{logIn(t, m, "anna"), logIn(t, m, "anna"), logIn(t, m, "anna")}
		bert := logIn(t, m, "bert")
		for id, user := range map[string]any{"number": 7, "text": "7", "object": map[string]int{"id": 7}, "null": nil, "long": "77"} { // as Express may have them
			sess := new(filestore.Session)
			sess.Put("user", user)
			if err := s.Set(ctx, id, sess); err != nil {
				t.Fatal(err)
			}
		}
		if got := handles(t, m, "7"); len(got) != 2 {
			t.Errorf("the user 7 has %d sessions, want 2", len(got))
		}
		var infos []session.Info
		request(m, ids[1], "/", func(w http.ResponseWriter, r *http.Request) {
			var err error
			if infos, err = m.Sessions(r.Context(), "anna"); err != nil {
				t.Error(err)
			}
		})
		if len(infos) != 3 {
			t.Fatalf("anna has %d sessions, want 3", len(infos))
		}
		current := 0
		for i, info := range infos {
			if i > 0 && info.Authenticated.After(infos[i-1].Authenticated) {
				t.Error("the last login is not the first")
			}
			if info.User != "anna" || info.Note.Agent != "a browser of anna" || time.Since(info.LastAccess) > time.Minute || info.Created.IsZero() ||
				info.Ends.Sub(info.LastAccess) != time.Hour {
				t.Errorf("%+v", info)
			}
			if info.Current {
				current++
			}
			for _, id := range append(ids, bert) {
				if len(info.Handle) < 16 || strings.Contains(id, info.Handle) || strings.Contains(info.Handle, id) {
					t.Errorf("the handle %s shows the id %s", info.Handle, id)
				}
			}
		}
		if current != 1 {
			t.Errorf("%d sessions are the current one", current)
		}
		// Only one's own, and only by a handle.
		theirs := handles(t, m, "bert")[0]
		for _, handle := range []string{theirs, "", ids[0], infos[0].Handle[1:]} {
			if err := m.End(ctx, "anna", handle); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("End of anna's session %s = %v, want ErrNotFound", handle, err)
			}
		}
		if err := m.End(ctx, "anna", infos[2].Handle); err != nil {
			t.Errorf("End = %v", err)
		}
		if got := handles(t, m, "anna"); !slices.Equal(got, []string{infos[0].Handle, infos[1].Handle}) {
			t.Errorf("after End anna has the sessions %q", got)
		}
		// EndOthers keeps one's own, which is any of them.
		own := ids[0]
		if _, err := s.Get(ctx, own); err != nil {
			own = ids[1]
		}
		request(m, own, "/", func(w http.ResponseWriter, r *http.Request) {
			if n, err := session.From(r).EndOthers(); n != 1 || err != nil {
				t.Errorf("EndOthers = %d, %v, want 1", n, err)
			}
		})
		kept(t, s, own)
		if n, err := m.EndAll(ctx, "anna"); n != 1 || err != nil {
			t.Errorf("EndAll = %d, %v, want 1", n, err)
		}
		if n, err := m.EndAll(ctx, "anna"); n != 0 || err != nil {
			t.Errorf("EndAll again = %d, %v, want 0", n, err)
		}
		kept(t, s, bert)
		if n, err := m.EndAll(ctx, "7"); n != 2 || err != nil {
			t.Errorf("EndAll of the user 7 = %d, %v, want 2", n, err)
		}
		for _, id := range []string{"object", "null", "long"} {
			kept(t, s, id)
		}
	})
}

// Programs that share the secret have the same handles, also before the first Handler, and others have not.
func TestHandles(t *testing.T) {
	s := sessiontest.NewStore()
	m := manager(s)
	id := logIn(t, m, "anna")
	other, stranger := manager(s), manager(s)
	stranger.Secrets = []string{"another secret", secret}
	a, b, c := handles(t, m, "anna"), handles(t, other, "anna"), handles(t, stranger, "anna")
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("the handles are %q, %q, and %q with another secret", a, b, c)
	}
	for range 3 { // use does not change a handle
		request(m, id, "/", put)
	}
	if again := handles(t, m, "anna"); !slices.Equal(a, again) {
		t.Errorf("the handles were %q and are %q", a, again)
	}
}

// What is not possible is refused, with the sentinel that says why.
func TestSessionsRefuse(t *testing.T) {
	m := manager(sessiontest.NewStore())
	bare := manager(three{sessiontest.NewStore()})
	broken := &session.Manager{Store: sessiontest.NewStore()}
	for _, tt := range []struct {
		m    *session.Manager
		user string
		want error
	}{{m, "", session.ErrNoUser}, {bare, "anna", errors.ErrUnsupported}, {broken, "anna", nil}} {
		_, err := tt.m.Sessions(ctx, tt.user)
		_, allErr := tt.m.EndAll(ctx, tt.user)
		for name, err := range map[string]error{"Sessions": err, "EndAll": allErr, "End": tt.m.End(ctx, tt.user, "handle")} {
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s of %q = %v, want %v", name, tt.user, err, tt.want)
			}
		}
	}
	s := newStore(t)
	m = manager(s)
	s.Store.Set(ctx, "nobody", new(filestore.Session))
	request(m, "nobody", "/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := session.From(r).EndOthers(); !errors.Is(err, session.ErrNoUser) {
			t.Errorf("EndOthers of nobody = %v, want ErrNoUser", err)
		}
	})
	request(m, "unknown", "/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := session.From(r).EndOthers(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("EndOthers of a session that is not stored = %v, want ErrNotFound", err)
		}
	})
	// A session that was ended cannot end its owner's.
	stolen, own := logIn(t, m, "anna"), logIn(t, m, "anna")
	request(m, stolen, "/", func(w http.ResponseWriter, r *http.Request) {
		request(m, own, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).EndOthers() })
		if n, err := session.From(r).EndOthers(); n != 0 || !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("EndOthers of a session that was ended = %d, %v, want ErrNotFound", n, err)
		}
	})
	kept(t, s, own)
}

// A hooked Store calls find in front of each Find, and seen for each session that Find yields.
type hooked struct {
	*sessiontest.Store
	find func()
	seen func(id string)
	fail map[string]error // Update's, by id
}

func (s hooked) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		if s.find != nil {
			s.find()
		}
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

func (s hooked) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if err := s.fail[id]; err != nil {
		return err
	}
	return s.Store.Update(ctx, id, fn)
}

func (s hooked) Destroy(ctx context.Context, id string) error {
	if err := s.fail[id]; err != nil {
		return err
	}
	return s.Store.Destroy(ctx, id)
}

// A session that gets another id, or another user, between the look and its end.
func TestEndBesideRenew(t *testing.T) {
	ends := map[string]func(m *session.Manager, handle, own string) error{
		"End":    func(m *session.Manager, handle, own string) error { return m.End(ctx, "anna", handle) },
		"EndAll": func(m *session.Manager, _, _ string) error { _, err := m.EndAll(ctx, "anna"); return err },
		"EndOthers": func(m *session.Manager, _, own string) (err error) {
			request(m, own, "/", func(w http.ResponseWriter, r *http.Request) { _, err = session.From(r).EndOthers() })
			return err
		},
	}
	for name, end := range ends {
		for _, other := range []string{"renew", "another process renews", "another user takes it over", "logout"} {
			t.Run(name+" "+other, func(t *testing.T) {
				s := &hooked{Store: sessiontest.NewStore()}
				m := manager(s)
				own, id := logIn(t, m, "anna"), logIn(t, m, "anna")
				elsewhere := manager(s) // does not know what m replaces
				var next string
				handle := handleOf(t, m, id)
				s.seen = func(seen string) {
					if seen != id {
						return
					}
					s.seen = nil
					with := m
					if other == "another process renews" {
						with = elsewhere
					}
					request(with, id, "/", func(w http.ResponseWriter, r *http.Request) {
						switch other {
						case "logout":
							session.From(r).Logout()
						case "another user takes it over":
							session.From(r).Put("user", "bert")
						default:
							session.From(r).Renew()
						}
						next = session.From(r).ID()
					})
				}
				if err := end(m, handle, own); err != nil && !errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("%s = %v", name, err)
				}
				if other == "another user takes it over" {
					kept(t, s, next)
					return
				}
				ended(t, s, next, name)
			})
		}
	}
}

// EndOthers keeps the session of its own browser, also if another process gives it a new id meanwhile. Its handle stays.
func TestEndOthersKeepsItsOwn(t *testing.T) {
	s := &hooked{Store: sessiontest.NewStore()}
	m, elsewhere := manager(s), manager(s)
	own, other := logIn(t, m, "anna"), logIn(t, m, "anna")
	handle := handleOf(t, m, own)
	next := ""
	s.find = func() {
		s.find = nil
		request(elsewhere, own, "/", func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Renew(); err != nil {
				t.Error(err)
			}
			next = session.From(r).ID()
		})
	}
	request(m, own, "/", func(w http.ResponseWriter, r *http.Request) {
		if n, err := session.From(r).EndOthers(); n != 1 || err != nil {
			t.Errorf("EndOthers = %d, %v, want 1", n, err)
		}
	})
	kept(t, s, next)
	ended(t, s, other, "EndOthers")
	if got := handles(t, m, "anna"); len(got) != 1 || got[0] != handle {
		t.Errorf("after Renew the handles are %q, want %q", got, handle)
	}
	if err := m.End(ctx, "anna", handle); err != nil {
		t.Errorf("End by the handle from before Renew = %v", err)
	}
	ended(t, s, next, "End")
}

// Of the sessions of one user the last logins stay.
func TestMaxPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		m.MaxPerUser = 3
		var ids []string
		for range 5 {
			ids = append(ids, logIn(t, m, "anna"))
			time.Sleep(time.Second)
		}
		bert := logIn(t, m, "bert")
		for i, id := range ids {
			if _, err := s.Get(ctx, id); (err == nil) != (i >= 2) {
				t.Errorf("session %d of 5: %v", i+1, err)
			}
		}
		kept(t, s, bert)
		// A login in a session of one's own takes no other's place.
		request(m, ids[4], "/", func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("anna"); err != nil {
				t.Error(err)
			}
		})
		if n := len(handles(t, m, "anna")); n != 3 {
			t.Errorf("anna has %d sessions, want 3", n)
		}
		kept(t, s, ids[2])
	})
}

// Whatever a file says of a login, its session can be renewed, and a login that was left pending does not count.
func TestRenewOfOddLogins(t *testing.T) {
	for _, raw := range []string{`"x"`, "-1", "null", "0", "1e400", "{}", fmt.Sprint(-time.Now().UnixMilli())} {
		s := sessiontest.NewStore()
		m := manager(s)
		m.MaxPerUser = 1
		sess := new(filestore.Session)
		sess.Put("user", "anna")
		sess.Values["__authenticated"] = json.RawMessage(raw)
		s.Set(ctx, "id", sess)
		var id string
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Renew(); err != nil || !session.From(r).AuthenticatedAt().IsZero() {
				t.Errorf("Renew of a session with the __authenticated %s = %v, and it was at %v", raw, err, session.From(r).AuthenticatedAt())
			}
			id = session.From(r).ID()
		})
		if got := kept(t, s, id); string(got.Values["__authenticated"]) != raw {
			t.Errorf("after Renew __authenticated is %s, was %s", got.Values["__authenticated"], raw)
		}
	}
}

// Logins at once leave as many as they may, in any order.
func TestManyLoginsAtOnce(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		for range storetest.Brief(3, 10) {
			m := manager(s)
			m.MaxPerUser = 3
			var wg sync.WaitGroup
			for n := range 20 {
				wg.Go(func() {
					id := logIn(t, m, "anna")
					for range n % 3 { // some log in again, or get a new id, unless others have ended their session
						request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
							change := session.From(r).Renew
							if n%2 == 0 {
								change = func() error { return session.From(r).Login("anna") }
							}
							if session.From(r).ID() != id {
								return
							}
							if err := change(); err != nil && !errors.Is(err, filestore.ErrNotFound) {
								t.Error(err)
							}
							id = session.From(r).ID()
						})
					}
				})
			}
			wg.Wait()
			if n := len(handles(t, m, "anna")); n != 3 {
				t.Errorf("after 20 logins at once anna has %d sessions, want 3", n)
			}
		}
	})
}

// A session that cannot be ended is an error, the others end all the same, and nobody waits for ever.
func TestEndAllWithErrors(t *testing.T) {
	s := &hooked{Store: sessiontest.NewStore(), fail: make(map[string]error)}
	m := manager(s)
	ids := []string{logIn(t, m, "anna"), logIn(t, m, "anna"), logIn(t, m, "anna")}
	s.fail[ids[1]] = syscall.EIO
	if n, err := m.EndAll(ctx, "anna"); n != 2 || !errors.Is(err, syscall.EIO) {
		t.Errorf("EndAll = %d, %v, want 2 and EIO", n, err)
	}
	kept(t, s, ids[1])
	s.fail = nil
	s.find = func() { logIn(t, m, "anna") } // somebody logs in all the time
	if n, err := m.EndAll(ctx, "anna"); n < 2 || err == nil {
		t.Errorf("EndAll beside logins without end = %d, %v", n, err)
	}
	s.find = nil
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.EndAll(canceled, "anna"); !errors.Is(err, context.Canceled) {
		t.Errorf("EndAll with a context that is done = %v", err)
	}
}

// Every event comes once, after the Store has answered, and shows no id.
func TestEvents(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		m.MaxPerUser = 2
		var mu sync.Mutex
		var events []session.Event
		var ids []string
		m.OnEvent = func(ctx context.Context, e session.Event) {
			if s := session.FromContext(ctx); s != nil { // it may use the session; EndAll was called without one
				s.Save()
			}
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
		take := func(want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			var got []string
			for _, e := range events {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.User, e.Reason)))
				if e.Sessions != 1 || len(e.Handle) != 22 {
					t.Errorf("%+v", e)
				}
				for _, id := range ids {
					if strings.Contains(fmt.Sprint(e), id) {
						t.Errorf("%+v shows the id %s", e, id)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the events are %q, want %q", got, want)
			}
			events = nil
		}
		b := newBrowser(t, serve(t, m, map[string]http.HandlerFunc{"/put": put, "/login": login, "/show": show,
			"/regenerate": regenerate, "/logout": func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() },
			"/renew": func(w http.ResponseWriter, r *http.Request) { session.From(r).Renew() }, "/destroy": destroy,
			"/others": func(w http.ResponseWriter, r *http.Request) { session.From(r).EndOthers() }}))
		get := func(path string) {
			b.get(path)
			if c := b.cookie(); c != "" {
				ids = append(ids, idOf(t, c))
			}
		}
		get("/show")
		take()
		get("/put?cart=1")
		take("created")
		get("/put?cart=2")
		take()
		get("/login?user=anna")
		take("logged in anna")
		get("/renew")
		take("renewed anna")
		get("/logout")
		take("logged out anna")
		get("/logout")
		take()
		get("/login?user=bert")
		take("logged in bert")
		get("/regenerate")
		take("renewed")
		get("/destroy")
		take("logged out")
		get("/login?user=anna")
		ids = append(ids, logIn(t, m, "anna"), logIn(t, m, "anna"))
		take("logged in anna", "logged in anna", "logged in anna", "ended anna Manager.MaxPerUser")
		if _, err := m.EndAll(ctx, "anna"); err != nil {
			t.Error(err)
		}
		take("ended anna Manager.EndAll", "ended anna Manager.EndAll")
		ids = append(ids, logIn(t, m, "anna"))
		get("/login?user=anna")
		get("/others")
		take("logged in anna", "logged in anna", "ended anna Session.EndOthers")
		if err := m.End(ctx, "anna", handles(t, m, "anna")[0]); err != nil {
			t.Error(err)
		}
		take("ended anna Manager.End")
	})
}

// What the reaper removes is told of once for a pass, whatever number of Handlers there is.
func TestReapedEvent(t *testing.T) {
	finders(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		var events []session.Event
		m.OnEvent = func(_ context.Context, e session.Event) { events = append(events, e) }
		m.Handler(http.NotFoundHandler())
		m.Handler(http.NotFoundHandler())
		reap := s.(interface {
			Reap(context.Context) (int, error)
		}).Reap
		for _, id := range []string{"a", "b", "c"} {
			sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: -time.Second, Path: "/"}}
			if err := s.Set(ctx, id, sess); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := reap(ctx); err != nil {
				t.Error(err)
			}
		}
		if want := (session.Event{Kind: session.Ended, Reason: session.ByExpiry, Sessions: 3}); len(events) != 1 || events[0] != want {
			t.Errorf("the events are %+v, want %+v", events, want)
		}
	})
}

// A session that cannot be read is told of.
func TestUnreadableEvent(t *testing.T) {
	s := newStore(t)
	m := manager(filtered{s, func(id string, sess *filestore.Session, err error) (*filestore.Session, error) {
		return nil, fmt.Errorf("get %s: %w", id, filestore.ErrCorrupt)
	}})
	var events []session.Event
	m.OnEvent = func(_ context.Context, e session.Event) { events = append(events, e) }
	request(m, "damaged", "/", none)
	if len(events) != 1 || events[0].Kind != session.Unreadable || events[0].Reason != filestore.ErrCorrupt.Error() || strings.Contains(fmt.Sprint(events), "damaged") {
		t.Errorf("the events are %+v", events)
	}
}
