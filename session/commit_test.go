package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			if err := session.From(r).Save(); err == nil {
				t.Errorf("OriginalMaxAge %d: saved", d)
			}
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

// Also by a Store that is not a Toucher.
func TestChangedCookieIsStored(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		s.Set(ctx, "id", &filestore.Session{LastAccess: time.Now()})
		w := request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Cookie.OriginalMaxAge = 30 * 24 * time.Hour
		})
		sess, err := s.Get(ctx, "id")
		if err != nil || sess.Cookie.OriginalMaxAge != 30*24*time.Hour {
			t.Errorf("sent %q; stored %v, %v", w.Header().Get("Set-Cookie"), sess.Cookie.OriginalMaxAge, err)
		}
	})
}
