package session_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// request lets h serve a request with the cookie of the session id.
func request(m *session.Manager, id, target string, h http.HandlerFunc) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.Header.Set("Cookie", signed(id))
	w := httptest.NewRecorder()
	m.Handler(h).ServeHTTP(w, r)
	return w
}

// F16: the middleware stores, touches and sends the cookie exactly as express-session decides, with the
// fewest calls of the Store.
func TestDecisions(t *testing.T) {
	save := func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Save(); err != nil {
			t.Error(err)
		}
	}
	reload := func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Reload(); err != nil {
			t.Error(err)
		}
	}
	maxAge := func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Cookie.OriginalMaxAge = 2 * time.Hour
	}
	type want struct {
		calls  string
		cookie bool
	}
	s := newStore(t)
	for _, resave := range []bool{false, true} {
		for _, uninit := range []bool{false, true} {
			for _, rolling := range []bool{false, true} {
				for _, age := range []time.Duration{0, time.Hour} {
					touchOr := "touch"
					if resave {
						touchOr = "update"
					}
					created := ""
					if uninit {
						created = "create"
					}
					srv := serve(t, &session.Manager{Store: s, Secrets: []string{secret}, Resave: resave, SaveUninitialized: uninit, Rolling: rolling, Cookie: session.CookieOptions{MaxAge: age}},
						map[string]http.HandlerFunc{"/none": none, "/put": put, "/save": save, "/reload": reload, "/regenerate": regenerate, "/destroy": destroy, "/maxage": maxAge, "/show": show,
							"/putsave":    func(w http.ResponseWriter, r *http.Request) { put(w, r); save(w, r) },
							"/destroyput": func(w http.ResponseWriter, r *http.Request) { destroy(w, r); put(w, r) },
							"/late":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); put(w, r) },
						})
					for name, tt := range map[string]struct {
						path   string
						cookie string // "own" means the cookie of an existing session
						want
					}{
						"new, unmodified":            {"/none", "", want{created, uninit}},
						"new, modified":              {"/put?a=1", "", want{"create", true}},
						"new, save":                  {"/save", "", want{"create", uninit}},
						"existing, unmodified":       {"/none", "own", want{"get " + touchOr, rolling}},
						"existing, modified":         {"/put?a=2", "own", want{"get update", rolling || age != 0}},
						"existing, save":             {"/save", "own", want{"get update touch", rolling}},
						"existing, modified, save":   {"/putsave?a=3", "own", want{"get update touch", rolling || age != 0}},
						"existing, reload":           {"/reload", "own", want{"get get " + touchOr, rolling}},
						"existing, regenerate":       {"/regenerate", "own", want{"get create update destroy", true}},
						"existing, destroy":          {"/destroy", "own", want{"get destroy", false}},
						"existing, only the cookie":  {"/maxage", "own", want{"get " + touchOr, true}},
						"unknown id, unmodified":     {"/none", signed("unknown"), want{strings.TrimSpace("get " + created), uninit}},
						"bad signature, unmodified":  {"/none", signed("unknown") + "x", want{created, uninit}},
						"unsigned, modified":         {"/put?a=1", "connect.sid=unknown", want{"create", true}},
						"unknown id, modified":       {"/put?a=1", signed("unknown"), want{"get create", true}},
						"new, regenerate":            {"/regenerate", "", want{"create", true}},
						"new, destroy":               {"/destroy", "", want{"", false}},
						"existing, destroy, put":     {"/destroyput?a=1", "own", want{"get destroy", false}},
						"existing, put after header": {"/late?a=4", "own", want{"get update", rolling}},
					} {
						cookie := tt.cookie
						if cookie == "own" {
							cookie = cookieOf(do(t, srv, "/put?a=1", ""))
						}
						if tt.path == "/late?a=4" { // the header needs its own calls first
							switch {
							case resave:
								tt.calls = "get update update"
							case rolling:
								tt.calls = "get touch update"
							}
						}
						s.take()
						a := do(t, srv, tt.path, cookie)
						if got := s.take(); got != tt.calls {
							t.Errorf("%s (resave %v, saveUninitialized %v, rolling %v, maxAge %v): calls %q, want %q", name, resave, uninit, rolling, age, got, tt.calls)
						}
						if got := a.Header.Get("Set-Cookie") != ""; got != tt.want.cookie {
							t.Errorf("%s (resave %v, saveUninitialized %v, rolling %v, maxAge %v): cookie %v, want %v", name, resave, uninit, rolling, age, got, tt.want.cookie)
						}
						if name == "existing, only the cookie" {
							if sess, err := s.Store.Get(ctx, idOf(t, cookie)); err != nil || sess.Cookie.OriginalMaxAge != 2*time.Hour {
								t.Errorf("a change of maxAge did not reach the store: %+v, %v", sess, err)
							}
						}
					}
				}
			}
		}
	}
}

// E1, P5: if a slow request saves after another request's logout, the session stays destroyed.
func TestLogoutDuringSlowRequest(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		for range storetest.Long(1, 50) { // each runs seven cases
			for name, m := range map[string]*session.Manager{
				"changed": {}, "resave": {Resave: true}, "rolling": {Rolling: true, Cookie: session.CookieOptions{MaxAge: time.Hour}},
				"early": {}, "explicit": {}, "touch": {Cookie: session.CookieOptions{MaxAge: time.Hour}}, "uninitialized": {SaveUninitialized: true, Resave: true},
			} {
				m.Store, m.Secrets = s, []string{secret}
				begun, loggedOut := make(chan bool), make(chan bool)
				srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/destroy": destroy, "/show": show, "/slow": func(w http.ResponseWriter, r *http.Request) {
					sess := session.From(r)
					if name == "early" {
						http.NewResponseController(w).Flush()
					}
					begun <- true
					<-loggedOut
					switch name {
					case "changed", "early":
						sess.Put("late", 1)
					case "explicit":
						sess.Put("late", 1)
						if err := sess.Save(); !errors.Is(err, filestore.ErrNotFound) {
							t.Errorf("Save after another request's logout = %v, want ErrNotFound", err)
						}
						if err := sess.Reload(); !errors.Is(err, filestore.ErrNotFound) {
							t.Errorf("Reload after another request's logout = %v, want ErrNotFound", err)
						}
					}
				}})
				b := newBrowser(t, srv)
				b.get("/put?a=1")
				cookie := b.cookie()
				done := make(chan answer)
				go func() { done <- do(t, srv, "/slow", cookie) }()
				<-begun
				b.get("/destroy")
				loggedOut <- true
				a := <-done
				if a.StatusCode != 200 {
					t.Errorf("%s: status %d, want 200", name, a.StatusCode)
				}
				if _, ok := s.(session.Toucher); a.Header.Get("Set-Cookie") != "" && (name != "rolling" || ok) {
					t.Errorf("%s: the slow request sets the cookie %q", name, a.Header.Get("Set-Cookie"))
				}
				if got := do(t, srv, "/show", cookie).body; got != "{}\n" {
					t.Errorf("%s: the session is back after the logout: %s", name, got)
				}
			}
		}
	})
}

// Parallel requests of one session that change different members lose nothing.
func TestParallelRequests(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		var gate sync.WaitGroup
		gate.Add(2)
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/slow": func(w http.ResponseWriter, r *http.Request) {
			gate.Done()
			gate.Wait() // until both have loaded the session
			put(w, r)
			session.From(r).Delete("old" + r.URL.RawQuery[:1])
		}})
		b := newBrowser(t, srv)
		b.get("/put?olda=1&oldb=2&stays=3")
		cookie := b.cookie()
		var wg sync.WaitGroup
		if _, ok := s.(session.Updater); ok {
			for _, q := range []string{"a=1", "b=2"} {
				wg.Go(func() { do(t, srv, "/slow?"+q, cookie) })
			}
		} else { // without Update two saves at the same moment are not safe
			gate.Done()
			do(t, srv, "/slow?a=1", cookie)
			gate.Add(1)
			do(t, srv, "/slow?b=2", cookie)
		}
		wg.Wait()
		if got, want := b.get("/show").body, `{"a":"1","b":"2","stays":"3"}`+"\n"; got != want {
			t.Errorf("the session has %s, want %s", got, want)
		}
	})
}

// If two parallel requests write one member, the later wins, even if it writes what it loaded, or
// deletes a member that it did not see.
func TestPutBack(t *testing.T) {
	for name, tt := range map[string]struct{ first, other, second, want string }{
		"put what was loaded":      {"a=1", "a=2", "a=1", `{"a":"1"}`},
		"delete what was not":      {"a=1", "b=2", "-b", `{"a":"1"}`},
		"put, and put back":        {"a=1", "a=2", "a=3 a=1", `{"a":"1"}`},
		"put, and delete":          {"a=1", "b=2", "b=3 -b", `{"a":"1"}`},
		"delete, and put back":     {"a=1", "-a", "-a a=1", `{"a":"1"}`},
		"other members are others": {"a=1&b=1", "b=2&c=3", "a=1", `{"a":"1","b":"2","c":"3"}`},
		"nothing":                  {"a=1", "a=2", "", `{"a":"2"}`},
	} {
		t.Run(name, func(t *testing.T) {
			stores(t, func(t *testing.T, s session.Store) {
				do1 := func(w http.ResponseWriter, r *http.Request, query string) {
					for part := range strings.FieldsSeq(query) {
						if key, ok := strings.CutPrefix(part, "-"); ok {
							session.From(r).Delete(key)
							continue
						}
						r.URL.RawQuery = part
						put(w, r)
					}
				}
				m := manager(s)
				var id string
				srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/slow": func(w http.ResponseWriter, r *http.Request) {
					request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { do1(w, r, tt.other) })
					do1(w, r, tt.second)
				}})
				cookie := cookieOf(do(t, srv, "/put?"+tt.first, ""))
				id = idOf(t, cookie)
				do(t, srv, "/slow", cookie)
				if got := do(t, srv, "/show", cookie).body; got != tt.want+"\n" {
					t.Errorf("the session has %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// A Put of the value that is there writes nothing.
func TestPutTheSame(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	s.take()
	do(t, srv, "/put?a=1", cookie)
	if calls := s.take(); calls != "get get touch" {
		t.Errorf("Put of the same value: store calls %q, want get get touch", calls)
	}
}

// A cookie that the handler changes is stored and sent. It was only stored.
func TestChangedCookieIsSent(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for name, tt := range map[string]struct {
		change func(*filestore.Cookie)
		want   func(age time.Duration, c *http.Cookie) bool
	}{
		"no longer remembered": {func(c *filestore.Cookie) { c.OriginalMaxAge = 0 },
			func(age time.Duration, c *http.Cookie) bool { return age == 0 && c.Expires.IsZero() && c.MaxAge == 0 }},
		"shorter": {func(c *filestore.Cookie) { c.OriginalMaxAge = time.Hour },
			func(age time.Duration, c *http.Cookie) bool { return age == time.Hour && c.MaxAge == 3600 }},
		"longer": {func(c *filestore.Cookie) { c.OriginalMaxAge = 2 * month },
			func(age time.Duration, c *http.Cookie) bool { return age == 2*month && c.MaxAge == 5184000 }},
		"strict": {func(c *filestore.Cookie) { c.SameSite = "strict" },
			func(age time.Duration, c *http.Cookie) bool {
				return age == month && c.SameSite == http.SameSiteStrictMode
			}},
		// A change of Expires alone was ignored.
		"expires": {func(c *filestore.Cookie) { c.Expires = time.Now().Add(time.Hour) },
			func(age time.Duration, c *http.Cookie) bool {
				return age > 59*time.Minute && age <= time.Hour && time.Until(c.Expires) < time.Hour
			}},
		"expires with the browser": {func(c *filestore.Cookie) { c.Expires = time.Time{} },
			func(age time.Duration, c *http.Cookie) bool { return age == 0 && c.Expires.IsZero() }},
		"expired": {func(c *filestore.Cookie) { c.Expires = time.Now().Add(-time.Hour) },
			func(age time.Duration, c *http.Cookie) bool { return age < 0 && c.MaxAge < 0 }},
		"both": {func(c *filestore.Cookie) { c.Expires, c.OriginalMaxAge = time.Now().Add(time.Minute), time.Hour },
			func(age time.Duration, c *http.Cookie) bool { return age == time.Hour && c.MaxAge == 3600 }},
	} {
		for _, putToo := range []bool{false, true} {
			for _, flush := range []bool{false, true} {
				s := newStore(t)
				m := manager(s)
				m.Cookie.MaxAge = month
				srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/change": func(w http.ResponseWriter, r *http.Request) {
					if putToo {
						put(w, r)
					}
					tt.change(&session.From(r).Cookie)
					if flush {
						w.(http.Flusher).Flush()
					}
				}})
				cookie := cookieOf(do(t, srv, "/put?a=1", ""))
				a := do(t, srv, "/change?b=2", cookie)
				data, err := os.ReadFile(filepath.Join(s.dir, idOf(t, cookie)+".json"))
				if err != nil {
					t.Fatal(err)
				}
				var sess filestore.Session
				if err := sess.UnmarshalJSON(data); err != nil {
					t.Fatal(err)
				}
				if len(a.Cookies()) != 1 || !tt.want(sess.Cookie.OriginalMaxAge, a.Cookies()[0]) {
					t.Errorf("%s, put %v, flush %v: the file has the life %v, the browser got %q", name, putToo, flush, sess.Cookie.OriginalMaxAge, a.Header["Set-Cookie"])
				}
			}
		}
	}
}

// A life that was meant in seconds is refused, whether it is in the options or set by the handler.
func TestLifeInSeconds(t *testing.T) {
	s := newStore(t)
	for _, d := range []time.Duration{1, 3600, 604_800, 999 * time.Millisecond} {
		m := manager(s)
		m.Cookie.MaxAge = d
		if text := refused(m); !strings.Contains(text, "time.Second") {
			t.Errorf("MaxAge %d: Handler panics with %q, want advice", d, text)
		}
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/remember": func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = d
			put(w, r)
			if err := session.From(r).Save(); err == nil {
				t.Errorf("OriginalMaxAge %d: Save = nil, want an error", d)
			}
		}})
		cookie := cookieOf(do(t, srv, "/put?a=1", ""))
		for _, c := range []string{cookie, ""} {
			if a := do(t, srv, "/remember?a=2", c); a.StatusCode != 500 || len(a.Cookies()) != 0 {
				t.Errorf("OriginalMaxAge %d: status %d, want 500, cookies %q, want none", d, a.StatusCode, a.Header["Set-Cookie"])
			}
		}
		if sess, err := s.Store.Get(ctx, idOf(t, cookie)); err != nil || string(sess.Values["a"]) != `"1"` {
			t.Errorf("OriginalMaxAge %d: the session is %v, %v, want it unchanged", d, sess, err)
		}
	}
	// A short life that Node has written stays.
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 900 * time.Millisecond, Path: "/"}}
	if err := s.Store.Set(ctx, "short", sess); err != nil {
		t.Fatal(err)
	}
	if w := request(manager(s), "short", "/?a=1", put); w.Code != 200 {
		t.Errorf("a short life that is in the file: status %d, want 200", w.Code)
	}
}

// refused returns why Handler refuses m, or "".
func refused(m *session.Manager) (why string) {
	defer func() {
		if v := recover(); v != nil {
			why = fmt.Sprint(v)
		}
	}()
	m.Handler(http.NotFoundHandler())
	return ""
}

// A change of the cookie is stored even if the Store is not a Toucher.
func TestChangedCookieIsStored(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		s.Set(ctx, "id", &filestore.Session{LastAccess: time.Now()})
		w := request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = 30 * 24 * time.Hour
		})
		sess, err := s.Get(ctx, "id")
		if err != nil || sess.Cookie.OriginalMaxAge != 30*24*time.Hour {
			t.Errorf("sent %q; stored the life %v, %v, want 30 days", w.Header().Get("Set-Cookie"), sess.Cookie.OriginalMaxAge, err)
		}
	})
}

// A touch keeps a cookie that another request has changed meanwhile. A slow request put its own back.
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
		t.Errorf("the session has the cookie %+v, %v, want a life of 30 days", sess.Cookie, err)
	}
}

// A change of the cookie is stored even after a Save, or after the header. It was sent at most.
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
			t.Errorf("%s: the session is %+v, %v, want a life of 30 days", path, sess, err)
		}
	}
}

// If Touch fails, ErrorFunc gets the error, the page is sent, and the cookie is not prolonged.
func TestFailingTouch(t *testing.T) {
	for _, rolling := range []bool{true, false} {
		s := newStore(t)
		m := manager(s)
		m.Rolling = rolling
		var n atomic.Int64
		m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
			n.Add(1)
			session.From(r).ID() // blocks if a lock is held
			http.Error(w, "no", 500)
		}
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/fail": func(w http.ResponseWriter, r *http.Request) {
			s.setFail(fs.ErrPermission)
			io.WriteString(w, "page")
		}})
		cookie := cookieOf(do(t, srv, "/put?a=1", ""))
		if a := do(t, srv, "/fail", cookie); a.StatusCode != 200 || a.body != "page" || n.Load() != 1 || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("rolling %v: status %d %q, want the page; %d errors, want 1; cookie %q, want none", rolling, a.StatusCode, a.body, n.Load(), a.Header.Get("Set-Cookie"))
		}
	}
}
