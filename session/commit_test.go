package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// request lets h serve a request that brings the session id.
func request(m *session.Manager, id, target string, h http.HandlerFunc) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.Header.Set("Cookie", signed(id))
	w := httptest.NewRecorder()
	m.Handler(h).ServeHTTP(w, r)
	return w
}

func openStore(t *testing.T, o filestore.Options) *filestore.Store {
	t.Helper()
	o.NoSync, o.ReapInterval = true, -1
	s, err := filestore.Open(t.TempDir(), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// lives are a store's settings, and a session whose life they rule.
var lives = map[string]struct {
	o    filestore.Options
	sess filestore.Session
	life time.Duration
}{
	"ttl of a second":    {filestore.Options{TTL: time.Second}, filestore.Session{}, time.Second},
	"ttl of two seconds": {filestore.Options{TTL: 2 * time.Second, TouchAfter: -1}, filestore.Session{}, 2 * time.Second},
	"ttl of an hour":     {filestore.Options{}, filestore.Session{}, time.Hour},
	"touches spared":     {filestore.Options{TTL: time.Minute, TouchAfter: 29 * time.Second}, filestore.Session{}, time.Minute},
	"maxAge":             {filestore.Options{}, filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 5 * time.Second, Path: "/"}}, 5 * time.Second},
}

// An event stream that was opened in time logged its user out: the session was touched when it
// closed. A request that is under way keeps its session.
func TestStreamKeepsItsSession(t *testing.T) {
	for name, l := range lives {
		for _, age := range []float64{0, 0.3, 0.75, 0.99} { // of the life, at its arrival
			t.Run(fmt.Sprint(name, " ", age), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, l.o)
					if err := s.Set(ctx, "id", &l.sess); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(age * float64(l.life)))
					w := request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
						w.(http.Flusher).Flush()
						for range 100 {
							time.Sleep(l.life / 20)
							if _, err := s.Reap(ctx); err != nil {
								t.Fatal(err)
							}
							if _, err := s.Get(ctx, "id"); err != nil {
								t.Fatalf("beside the stream: %v", err)
							}
						}
					})
					if w.Code != 200 {
						t.Errorf("status %d", w.Code)
					}
				})
			})
		}
	}
}

// What a request changes that came in time is stored however long it takes. It was a 500, or a 200
// for nothing, if the reaper came first.
func TestSlowRequestIsStored(t *testing.T) {
	for name, l := range lives {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, l.o)
				if err := s.Set(ctx, "id", &l.sess); err != nil {
					t.Fatal(err)
				}
				time.Sleep(l.life * 3 / 4)
				w := request(manager(s), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
					for range 50 {
						time.Sleep(l.life / 10)
						s.Reap(ctx)
					}
					put(w, r)
				})
				sess, err := s.Get(ctx, "id")
				if w.Code != 200 || err != nil || string(sess.Values["a"]) != `"1"` {
					t.Errorf("status %d, %v, %v", w.Code, sess, err)
				}
			})
		})
	}
}

// The arrival is the access: an hour's work on a page does not prolong the session by an hour.
func TestArrivalIsTheAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TouchAfter: -1})
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		arrived := time.Now()
		request(manager(s), "id", "/", func(http.ResponseWriter, *http.Request) { time.Sleep(40 * time.Minute) })
		sess, err := s.Get(ctx, "id")
		if err != nil {
			t.Fatal(err)
		}
		if d := sess.LastAccess.Sub(arrived); d < 0 || d > time.Second {
			t.Errorf("the last access is %v after the arrival", d)
		}
	})
}

// A logout beside a slow request wins, however often that one was kept alive.
func TestLogoutBesideStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: 2 * time.Second})
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		m := manager(s)
		w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(7 * time.Second)
			request(m, "id", "/", destroy)
			time.Sleep(7 * time.Second)
			put(w, r)
		})
		if _, err := s.Get(ctx, "id"); w.Code != 200 || !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("status %d, %v", w.Code, err)
		}
	})
}

// bare has only what Store demands, and tells how long its sessions live.
type bare struct{ s *filestore.Store }

func (b bare) Get(ctx context.Context, id string) (*filestore.Session, error) {
	return b.s.Get(ctx, id)
}
func (b bare) Set(ctx context.Context, id string, sess *filestore.Session) error {
	return b.s.Set(ctx, id, sess)
}
func (b bare) Destroy(ctx context.Context, id string) error { return b.s.Destroy(ctx, id) }
func (b bare) TTL() time.Duration                           { return b.s.TTL() }

// A change that is lost is never a 200, unless somebody logged out: here nothing can keep the session
// alive, as the Store cannot touch it, or fails to.
func TestLostChangeIsTold(t *testing.T) {
	for _, how := range []string{"no Toucher", "failing Touch", "maxAge, no Lifer"} {
		for _, reap := range []bool{false, true} {
			for _, change := range []bool{false, true} {
				t.Run(fmt.Sprint(how, " reap ", reap, " change ", change), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := openStore(t, filestore.Options{TTL: time.Minute})
						sess := new(filestore.Session)
						var store session.Store = bare{s}
						switch how {
						case "failing Touch":
							rec := &recorder{Store: s}
							rec.failOn("touch", errors.New("no"))
							store = rec
						case "maxAge, no Lifer":
							store = plain{&recorder{Store: s}}
							sess.Cookie.OriginalMaxAge = time.Minute
						}
						if err := s.Set(ctx, "id", sess); err != nil {
							t.Fatal(err)
						}
						w := request(manager(store), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
							time.Sleep(2 * time.Minute)
							if reap {
								s.Reap(ctx)
							}
							if change {
								put(w, r)
							}
						})
						if want := map[bool]int{true: 500, false: 200}[change]; w.Code != want || w.Header().Get("Set-Cookie") != "" {
							t.Errorf("status %d, want %d, cookie %q", w.Code, want, w.Header().Get("Set-Cookie"))
						}
					})
				})
			}
		}
	}
}

// The beats of a request end with it, also if it panics.
func TestBeatsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &recorder{Store: openStore(t, filestore.Options{TTL: time.Second})}
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { recover() }()
			request(manager(s), "id", "/", func(http.ResponseWriter, *http.Request) {
				time.Sleep(3 * time.Second)
				panic(http.ErrAbortHandler)
			})
		}()
		s.take()
		time.Sleep(time.Minute)
		if calls := s.take(); calls != "" {
			t.Errorf("after the request: %s", calls)
		}
	})
}

// Of two parallel requests that write one member the later wins, also if it writes what it loaded,
// or deletes what was not there.
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
					t.Errorf("%s, want %s", got, tt.want)
				}
			})
		})
	}
}

// Putting what is there already writes nothing.
func TestPutTheSame(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	s.take()
	do(t, srv, "/put?a=1", cookie)
	if calls := s.take(); calls != "get get touch" {
		t.Errorf("store calls %q", calls)
	}
}

// A cookie that the handler changed was stored, and not sent.
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
		// Expires alone was ignored without a word.
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
					t.Errorf("%s, put %v, flush %v: the file has %v, the browser got %q", name, putToo, flush, sess.Cookie.OriginalMaxAge, a.Header["Set-Cookie"])
				}
			}
		}
	}
}

// A life that was meant in seconds is refused, wherever it is said.
func TestLifeInSeconds(t *testing.T) {
	s := newStore(t)
	for _, d := range []time.Duration{1, 3600, 604_800, 999 * time.Millisecond} {
		m := manager(s)
		m.Cookie.MaxAge = d
		if text := refused(m); !strings.Contains(text, "time.Second") {
			t.Errorf("MaxAge %d: %q", d, text)
		}
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/remember": func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = d
			put(w, r)
		}})
		cookie := cookieOf(do(t, srv, "/put?a=1", ""))
		for _, c := range []string{cookie, ""} {
			if a := do(t, srv, "/remember?a=2", c); a.StatusCode != 500 || len(a.Cookies()) != 0 {
				t.Errorf("OriginalMaxAge %d: %d, %q", d, a.StatusCode, a.Header["Set-Cookie"])
			}
		}
		if sess, err := s.Store.Get(ctx, idOf(t, cookie)); err != nil || string(sess.Values["a"]) != `"1"` {
			t.Errorf("OriginalMaxAge %d: the session is %v, %v", d, sess, err)
		}
	}
	// What Node has written is Node's.
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 900 * time.Millisecond, Path: "/"}}
	if err := s.Store.Set(ctx, "short", sess); err != nil {
		t.Fatal(err)
	}
	if w := request(manager(s), "short", "/?a=1", put); w.Code != 200 {
		t.Errorf("a short life in the file: %d", w.Code)
	}
}

// refused returns why Handler refuses m, "" if it does not.
func refused(m *session.Manager) (why string) {
	defer func() {
		if v := recover(); v != nil {
			why = fmt.Sprint(v)
		}
	}()
	m.Handler(http.NotFoundHandler())
	return ""
}
