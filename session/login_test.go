package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// login is a handler that logs the user of its query in.
func login(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Login(r.FormValue("user")); err != nil {
		panic(err)
	}
}

// kept returns the session id as the Store has it.
func kept(t testing.TB, s session.Store, id string) *filestore.Session {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil {
		t.Fatalf("Get = %v", err)
	}
	return sess
}

// ended fails unless the Store says that there is no session id.
func ended(t testing.TB, s session.Store, id, when string) {
	t.Helper()
	if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("%s: Get = %v, want ErrNotFound", when, err)
	}
}

// A login gives a new id and keeps the values. When it returns the Store has all of it.
func TestLogin(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		m.Cookie.MaxAge = time.Hour
		m.Note = func(r *http.Request) session.Note {
			return session.Note{Agent: strings.Repeat("ü", 200), Addr: session.Network(r.RemoteAddr)}
		}
		var before, after string
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			before = sess.ID()
			put(w, r) // the cart, if there is one in this request
			sess.Put("now", 1)
			sess.Cookie.OriginalMaxAge = 2 * time.Hour // ends with the old session
			if _, again := sess.Values["user"]; sess.AuthenticatedAt().IsZero() == again || sess.Fresh(time.Hour) != again {
				t.Errorf("before Login AuthenticatedAt = %v", sess.AuthenticatedAt())
			}
			if err := sess.Login("anna"); err != nil {
				t.Errorf("Login = %v", err)
			}
			if got := sess.User(); got != "anna" {
				t.Errorf("after Login User = %q", got)
			}
			after = sess.ID()
			got := kept(t, s, after)
			for key, want := range map[string]string{"cart": `"1"`, "now": "1", "user": `"anna"`, "__note": `{"agent":"` + strings.Repeat("ü", 128) + `","addr":"127.0.0.0/24"}`} {
				if string(got.Values[key]) != want || string(sess.Values[key]) != want {
					t.Errorf("after Login the member %s is %s in the Store and %s here, want %s", key, got.Values[key], sess.Values[key], want)
				}
			}
			if d := time.Since(sess.AuthenticatedAt()); d < 0 || d > time.Minute || !sess.Fresh(time.Minute) || sess.Fresh(0) {
				t.Errorf("AuthenticatedAt is %v ago", d)
			}
			if got.Cookie.OriginalMaxAge != time.Hour {
				t.Errorf("the cookie lives for %v, want an hour, as Manager.Cookie says", got.Cookie.OriginalMaxAge)
			}
			if d := time.Since(got.Created); d < 0 || d > time.Minute {
				t.Errorf("created %v ago, want now", d)
			}
			ended(t, s, before, "after Login, under the old id")
			sess.Put("later", 2)
		}})
		b := newBrowser(t, srv)
		b.get("/put?cart=1")
		old := b.cookie()
		b.get("/login")
		if got := b.get("/show").body; !strings.Contains(got, `"user":"anna"`) || !strings.Contains(got, `"later":2`) {
			t.Errorf("after the login the session has %s", got)
		}
		if got := do(t, srv, "/show", old).body; got != "{}\n" {
			t.Errorf("the old cookie opens %s", got)
		}
		if before == after {
			t.Error("Login kept the id")
		}
		// A visitor without a session logs in at once, and a second login begins anew.
		b = newBrowser(t, srv)
		b.get("/login?cart=1")
		first := kept(t, s, after)
		b.get("/login")
		ended(t, s, before, "after a second Login")
		if again := kept(t, s, after); again.Created.Before(first.Created) {
			t.Errorf("created at %v, and at %v by the second Login", first.Created, again.Created)
		}
	})
}

// A user does not get the values of whoever was logged in before, but those of a visitor, and one's own.
func TestLoginOfAnother(t *testing.T) {
	for _, tt := range []struct {
		was  any
		want int
	}{{nil, 3}, {"anna", 3}, {"bert", 2}, {7, 2}, {map[string]any{"id": 7}, 3}} {
		s := newStore(t)
		m := manager(s)
		sess := new(filestore.Session)
		sess.Put("cart", 1)
		if tt.was != nil {
			sess.Put("user", tt.was)
		}
		s.Store.Set(ctx, "id", sess)
		id := ""
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("anna"); err != nil {
				t.Error(err)
			}
			id = session.From(r).ID()
		})
		if got := kept(t, s, id); len(got.Values) != tt.want || string(got.Values["user"]) != `"anna"` {
			t.Errorf("after a Login of anna in a session of %v it has %s", tt.was, got.Values)
		}
	}
}

// The user is written where Manager.User says, beside what else is there.
func TestLoginInAnObject(t *testing.T) {
	for _, tt := range []struct{ member, values, want string }{
		{"passport.user", `{}`, `{"passport":{"user":"anna"}}`},
		{"passport.user", `{"passport":null}`, `{"passport":{"user":"anna"}}`},
		{"passport.user", `{"passport":{"a":1.0,"user":{"id":7},"b":[ ]}}`, `{"passport":{"a":1.0,"user":"anna","b":[ ]}}`},
		{"passport.user", `{"passport":"no object"}`, ""},
		{"a.b.c", `{"a":{"b":{"x":1}}}`, `{"a":{"b":{"x":1,"c":"anna"}}}`},
		{"user", `{"user":{"id":7}}`, `{"user":"anna"}`},
	} {
		s := newStore(t)
		m := manager(s)
		m.User = tt.member
		sess := new(filestore.Session)
		if err := json.Unmarshal([]byte(tt.values), &sess.Values); err != nil {
			t.Fatal(err)
		}
		if err := s.Store.Set(ctx, "id", sess); err != nil {
			t.Fatal(err)
		}
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			id := "id"
			err := session.From(r).Login("anna")
			if (err == nil) != (tt.want != "") {
				t.Errorf("Login into %s of %s = %v", tt.member, tt.values, err)
			}
			if tt.want != "" {
				id = session.From(r).ID()
			} else {
				tt.want = tt.values
			}
			got := kept(t, s, id)
			delete(got.Values, "__authenticated")
			text, _ := json.Marshal(got.Values)
			if string(text) != strings.ReplaceAll(tt.want, "[ ]", "[]") {
				t.Errorf("Login into %s of %s: the values are %s, want %s", tt.member, tt.values, text, tt.want)
			}
		})
	}
	for _, member := range []string{".user", "user.", "a..b", ".", "cookie", "__note", "__created.x", "__lastAccess"} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "Manager.User") {
					t.Errorf("Handler with the User %q panics with %v", member, v)
				}
			}()
			m := manager(newStore(t))
			m.User = member
			m.Handler(http.NotFoundHandler())
		}()
	}
}

func TestLoginRefuses(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	if err := s.Store.Set(ctx, "id", new(filestore.Session)); err != nil {
		t.Fatal(err)
	}
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		if err := sess.Login(""); !errors.Is(err, session.ErrNoUser) {
			t.Errorf("Login of nobody = %v, want ErrNoUser", err)
		}
		if err := sess.Login("a\xff"); err == nil {
			t.Error("Login takes a user that is not UTF-8")
		}
		w.WriteHeader(200)
		if err := sess.Login("anna"); !errors.Is(err, session.ErrTooLate) {
			t.Errorf("Login after the header = %v, want ErrTooLate", err)
		}
		if got := kept(t, s, "id"); len(got.Values) != 0 {
			t.Errorf("after Logins that failed the session has %s", got.Values)
		}
	})
	m = manager(three{s})
	m.MaxPerUser = 3
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login("anna"); !errors.Is(err, errors.ErrUnsupported) || len(s.live(t)) != 1 {
			t.Errorf("Login with MaxPerUser, and a Store that is not a Finder = %v, want ErrUnsupported and no change", err)
		}
	})
}

// A stepping Store runs before in front of the nth call of an operation of its own request.
type stepping struct {
	session.Store
	before func(op string)
}

func (s stepping) Get(ctx context.Context, id string) (*filestore.Session, error) {
	s.step(ctx, "get")
	return s.Store.Get(ctx, id)
}

func (s stepping) Create(ctx context.Context, id string, sess *filestore.Session) error {
	s.step(ctx, "create")
	err := s.Store.(session.Creator).Create(ctx, id, sess)
	s.step(ctx, "created")
	return err
}

func (s stepping) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	s.step(ctx, "update")
	return s.Store.(session.Updater).Update(ctx, id, fn)
}

func (s stepping) Destroy(ctx context.Context, id string) error {
	s.step(ctx, "destroy")
	return s.Store.Destroy(ctx, id)
}

type stepKey struct{}

func (s stepping) step(ctx context.Context, op string) {
	if ctx.Value(stepKey{}) != nil {
		s.before(op)
	}
}

// request is request whose calls of the Store are steps.
func (s stepping) request(m *session.Manager, id string, h http.HandlerFunc) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), stepKey{}, true))
	r.Header.Set("Cookie", signed(id))
	w := httptest.NewRecorder()
	m.Handler(h).ServeHTTP(w, r)
	return w
}

// replacers give a session a new id and keep its values.
var replacers = map[string]func(s *session.Session) error{
	"Renew": (*session.Session).Renew,
	"Login": func(s *session.Session) error { return s.Login("anna") },
}

// Before each step of Renew and of Login another request changes the session, logs out, or replaces it too. The
// change is not lost, the logout stands, and one session is left at most.
func TestStepsOfALogin(t *testing.T) {
	for name, replace := range replacers {
		for _, step := range []string{"get", "create", "created", "update", "destroy"} {
			for _, other := range []string{"change", "logout", "replace", "disk full"} {
				t.Run(strings.Join([]string{name, step, other}, " "), func(t *testing.T) {
					memory := sessiontest.NewStore()
					old := &filestore.Session{}
					old.Put("user", "anna")
					if err := memory.Set(ctx, "old", old); err != nil {
						t.Fatal(err)
					}
					armed, happened := false, false
					m := manager(nil)
					var s stepping
					var full error
					failing := failingStore{memory, &full}
					s = stepping{failing, func(op string) {
						if op != step || !armed {
							return
						}
						armed = false
						happened = true
						switch other {
						case "change":
							request(m, "old", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Put("b", 2) })
						case "logout":
							request(m, "old", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() })
						case "replace":
							request(m, "old", "/", func(w http.ResponseWriter, r *http.Request) {
								if err := replace(session.From(r)); err != nil && step != "destroy" {
									t.Errorf("the other %s = %v", name, err)
								}
							})
						case "disk full":
							full = syscall.ENOSPC
						}
					}}
					m.Store = s
					var err error
					var id string
					s.request(m, "old", func(w http.ResponseWriter, r *http.Request) {
						armed = true
						session.From(r).Put("a", 1)
						err = replace(session.From(r))
						id = session.From(r).ID()
					})
					if !happened {
						t.Fatal("the step did not come")
					}
					full = nil
					var live []string
					for e := range memory.Find(ctx, "user", "anna") {
						live = append(live, e.ID)
					}
					early := step != "destroy" // before the old session was taken
					switch {
					case other == "change":
						got := kept(t, memory, id)
						if err != nil || len(live) != 1 || string(got.Values["a"]) != "1" || early && string(got.Values["b"]) != "2" {
							t.Errorf("%s = %v, and the session has %s, want both changes", name, err, got.Values)
						}
					case other == "logout" && early:
						if !errors.Is(err, filestore.ErrNotFound) || len(live) != 0 {
							t.Errorf("%s = %v, and the live sessions are %q, want ErrNotFound and none", name, err, live)
						}
					case other == "logout": // the old id is known to be replaced: the new session ends
						if len(live) != 0 {
							t.Errorf("the live sessions are %q, want none", live)
						}
					case other == "replace" && early:
						if !errors.Is(err, filestore.ErrNotFound) || len(live) != 1 || live[0] == id {
							t.Errorf("%s = %v, and the live sessions are %q, want ErrNotFound and the other's", name, err, live)
						}
					case other == "disk full" && early && step != "get":
						if !errors.Is(err, syscall.ENOSPC) || len(live) != 1 || live[0] != "old" {
							t.Errorf("%s = %v, and the live sessions are %q, want ENOSPC and the old one", name, err, live)
						}
					}
					if len(live) > 1 && early { // then the other's was a login of its own
						t.Errorf("the live sessions are %q", live)
					}
				})
			}
		}
	}
}

// A failingStore is a Store whose disk can be full: then only Get and Destroy work.
type failingStore struct {
	*sessiontest.Store
	full *error
}

func (s failingStore) Create(ctx context.Context, id string, sess *filestore.Session) error {
	if *s.full != nil {
		return *s.full
	}
	return s.Store.Create(ctx, id, sess)
}

func (s failingStore) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if *s.full != nil {
		return *s.full
	}
	return s.Store.Update(ctx, id, fn)
}

// What is put in beside a Login is not lost.
func TestPutBesideLogin(t *testing.T) {
	for range storetest.Brief(10, 50) {
		s := newStore(t)
		m := manager(s)
		if err := s.Store.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		var id string
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			var wg sync.WaitGroup
			for n := range 4 {
				wg.Go(func() { sess.Put(fmt.Sprint(n), n) })
			}
			if err := sess.Login("anna"); err != nil {
				t.Error(err)
			}
			wg.Wait()
			id = sess.ID()
		})
		if got := kept(t, s, id); len(got.Values) != 6 {
			t.Fatalf("the session has %s, want four members and Login's two", got.Values)
		}
	}
}

// Renew keeps all but the id.
func TestRenew(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		m := manager(s)
		m.Cookie.MaxAge = time.Hour
		created := time.Now().Add(-2 * time.Hour).Truncate(time.Millisecond)
		sess := &filestore.Session{Created: created, LastAccess: time.Now(), Cookie: filestore.Cookie{OriginalMaxAge: 720 * time.Hour, Path: "/app", HTTPOnly: true}}
		sess.Put("user", "anna")
		sess.Put("__authenticated", created.UnixMilli())
		if err := s.Set(ctx, "id", sess); err != nil {
			t.Fatal(err)
		}
		m.Path = "/"
		var id string
		w := request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("a", 1)
			if err := session.From(r).Renew(); err != nil {
				t.Errorf("Renew = %v", err)
			}
			id = session.From(r).ID()
			if at := session.From(r).AuthenticatedAt(); !at.Equal(created) {
				t.Errorf("AuthenticatedAt = %v, want %v", at, created)
			}
		})
		got := kept(t, s, id)
		if !got.Created.Equal(created) || got.Cookie.OriginalMaxAge != 720*time.Hour || got.Cookie.Path != "/app" || len(got.Values) != 4 { // and where it comes from
			t.Errorf("after Renew the session was created at %v, has the cookie %+v and %s", got.Created, got.Cookie, got.Values)
		}
		ended(t, s, "id", "after Renew")
		if c := w.Result().Cookies(); len(c) != 1 || c[0].Path != "/app" || c[0].MaxAge != 720*60*60 {
			t.Errorf("the cookies are %v", c)
		}
	})
}

// Where there is no session Renew makes none.
func TestRenewOfNothing(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	for name, id := range map[string]string{"a visitor": "", "a session that is gone": "gone"} {
		w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			before := session.From(r).ID()
			if err := session.From(r).Renew(); err != nil || session.From(r).ID() == before {
				t.Errorf("Renew of %s = %v", name, err)
			}
		})
		if c := w.Result().Cookies(); len(c) != 0 || len(s.live(t)) != 0 {
			t.Errorf("Renew of %s sends %v and leaves the sessions %q", name, c, s.live(t))
		}
	}
	s.Store.Set(ctx, "old", new(filestore.Session))
	request(m, "old", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Renew() })
	w := request(m, "old", "/", func(w http.ResponseWriter, r *http.Request) { // which comes late
		if err := session.From(r).Renew(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Renew with the old cookie = %v, want ErrNotFound", err)
		}
	})
	if c := w.Result().Cookies(); len(c) != 0 || len(s.live(t)) != 1 {
		t.Errorf("Renew with the old cookie sends %v, and there are %d sessions", c, len(s.live(t)))
	}
	request(m, "", "/", func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Put("a", 1)
		session.From(r).Renew()
		if err := errors.Join(session.From(r).Logout(), session.From(r).Renew()); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Renew after Logout = %v, want ErrNotFound", err)
		}
	})
}

// Logout clears the cookie that the browser has: with the session's own attributes.
func TestLogout(t *testing.T) {
	s := newStore(t)
	for _, tt := range []struct {
		cookie filestore.Cookie
		want   string
	}{
		{filestore.Cookie{HTTPOnly: true, Path: "/", SameSite: "lax"}, "Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax"},
		{filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/app", Domain: "example.com", Secure: true, Partitioned: true, SameSite: "none"},
			"Max-Age=0; Domain=example.com; Path=/app; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; Partitioned; SameSite=None"},
	} {
		m := manager(s)
		m.Path = "/"
		if err := s.Store.Set(ctx, "id", &filestore.Session{Cookie: tt.cookie}); err != nil {
			t.Fatal(err)
		}
		w := request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("late", 1)
			if err := session.From(r).Logout(); err != nil {
				t.Error(err)
			}
			if n := len(s.live(t)); n != 0 {
				t.Errorf("after Logout there are %d sessions", n)
			}
			w.Write([]byte("bye"))
		})
		if got := w.Result().Header["Set-Cookie"]; len(got) != 1 || got[0] != "connect.sid=; "+tt.want || w.Header().Get("Clear-Site-Data") != "" {
			t.Errorf("Logout sends %q, want %q", got, "connect.sid=; "+tt.want)
		}
		// Twice, and with a cookie that opens nothing any more.
		m.ClearSiteData = true
		w = request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			if err := errors.Join(session.From(r).Logout(), session.From(r).Logout()); err != nil {
				t.Error(err)
			}
		})
		if got := w.Result().Header["Set-Cookie"]; len(got) != 1 || !strings.HasPrefix(got[0], "connect.sid=; Max-Age=0; Path=/;") || w.Header().Get("Clear-Site-Data") != `"cookies"` {
			t.Errorf("a second Logout sends %q and Clear-Site-Data %q", got, w.Header().Get("Clear-Site-Data"))
		}
	}
	// Without a cookie there is nothing to clear, after an error nothing must be cleared, and a new session has a cookie.
	m := manager(s)
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { session.From(r).Logout() })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := w.Header()["Set-Cookie"]; got != nil {
		t.Errorf("Logout of a visitor without a cookie sends %q", got)
	}
	s.Store.Set(ctx, "id", new(filestore.Session))
	w = request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		s.setFail(syscall.EIO)
		if err := session.From(r).Logout(); !errors.Is(err, syscall.EIO) {
			t.Errorf("Logout = %v, want EIO", err)
		}
	})
	if got := w.Header()["Set-Cookie"]; got != nil || len(s.live(t)) != 1 {
		t.Errorf("a Logout that failed sends %q", got)
	}
	s.setFail(nil)
	w = request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		if err := errors.Join(session.From(r).Logout(), session.From(r).Regenerate(), session.From(r).Flash("info", "bye")); err != nil {
			t.Error(err)
		}
	})
	if got := w.Header()["Set-Cookie"]; len(got) != 1 || !strings.HasPrefix(got[0], "connect.sid=s%3A") {
		t.Errorf("Regenerate after Logout sends %q, want the cookie of the new session", got)
	}
	s.Store.Set(ctx, "id", new(filestore.Session))
	w = request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		if err := session.From(r).Logout(); err != nil {
			t.Error(err)
		}
	})
	if got := w.Header()["Set-Cookie"]; got != nil {
		t.Errorf("after the header has left Logout sends %q", got)
	}
	ended(t, s, "id", "after a Logout behind the header")
}

// Fresh counts from the last Login, not from an access, and not from a time in the future.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := manager(s)
		var id string
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("anna"); err != nil {
				t.Error(err)
			}
			id = session.From(r).ID()
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		at := time.Now()
		for _, tt := range []struct {
			wait time.Duration
			want bool
		}{{5 * time.Minute, true}, {5*time.Minute - time.Nanosecond, true}, {time.Nanosecond, false}} {
			time.Sleep(tt.wait)
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
				sess := session.From(r)
				if got := sess.Fresh(10 * time.Minute); got != tt.want || !sess.AuthenticatedAt().Equal(at.Truncate(time.Millisecond)) {
					t.Errorf("%v after the Login Fresh(10m) = %v, AuthenticatedAt %v", time.Since(at), got, sess.AuthenticatedAt())
				}
			})
		}
		for _, raw := range []string{"null", `"1"`, "-5", "1e400", "{}", fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())} {
			sess := &filestore.Session{LastAccess: time.Now()}
			sess.Put("__authenticated", json.RawMessage(raw))
			if strings.HasPrefix(raw, "1e") {
				sess.Values["__authenticated"] = json.RawMessage(raw)
			}
			s.Set(ctx, "odd", sess)
			request(m, "odd", "/", func(w http.ResponseWriter, r *http.Request) {
				if s := session.From(r); !s.AuthenticatedAt().IsZero() || s.Fresh(100*time.Hour) {
					t.Errorf("__authenticated %s: AuthenticatedAt = %v", raw, s.AuthenticatedAt())
				}
			})
		}
	})
}

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.77": "192.0.2.0/24", "192.0.2.77:4711": "192.0.2.0/24", "[2001:db8:1:2::3]:80": "2001:db8:1::/48", "2001:db8:1:2::3": "2001:db8:1::/48",
		"[2001:db8:1:2::3]": "2001:db8:1::/48", "::ffff:192.0.2.77": "192.0.2.0/24", "[fe80::1%eth0]:1": "fe80::/48", "": "", "@": "", "localhost:80": "", "1.2.3": "",
		"192.0.2.77, 10.0.0.1": "", "/run/a.sock": "",
	} {
		if got := session.Network(addr); got != want {
			t.Errorf("Network(%q) = %q, want %q", addr, got, want)
		}
	}
}
