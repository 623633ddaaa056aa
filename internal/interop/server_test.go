package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// both returns an Express server and a Go server on one directory.
func both(t *testing.T, dir string, maxAge time.Duration, opts *filestore.Options) []site {
	t.Helper()
	n := driver(t)
	cookie := object{}
	if maxAge != 0 {
		cookie["maxAge"] = maxAge.Milliseconds()
	}
	m := &session.Manager{Store: open(t, dir, opts), Cookie: session.CookieOptions{MaxAge: maxAge}}
	return []site{
		nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"cookie": cookie}}),
		goSite(t, m),
	}
}

// pairs calls f with each server as the first and the other as the second.
func pairs(sites []site, f func(a, b site)) {
	f(sites[0], sites[1])
	f(sites[1], sites[0])
}

func TestSharedSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sites := both(t, dir, 0, nil)

	t.Run("03 a session goes back and forth", func(t *testing.T) {
		pairs(sites, func(a, b site) {
			cookie := a.run(t, "", step{"put", "user", "açaí \u2028 <&>"}, step{"count", "views"}).pair(t)
			for i := 2; i <= 20; i += 2 {
				for k, s := range []site{b, a} {
					got := s.run(t, cookie, step{"count", "views"})
					if got.value("views") != fmt.Sprint(i+k) {
						t.Fatalf("%s counts views = %s, want %d", s.name, got.value("views"), i+k)
					}
					var user string
					if err := json.Unmarshal(got.Session["user"], &user); err != nil || user != "açaí \u2028 <&>" {
						t.Fatalf("%s has user = %q, %v", s.name, user, err)
					}
				}
			}
		})
	})

	t.Run("16 a member that one deletes is gone for the other", func(t *testing.T) {
		pairs(sites, func(a, b site) {
			cookie := a.run(t, "", step{"put", "one", 1}, step{"put", "two", 2}).pair(t)
			b.run(t, cookie, step{"delete", "one"})
			if got := a.run(t, cookie); got.value("one") != "" || got.value("two") != "2" {
				t.Errorf("after %s has deleted one, %s has %s and %s", b.name, a.name, got.value("one"), got.value("two"))
			}
		})
	})

	t.Run("41 regenerate", func(t *testing.T) {
		pairs(sites, func(a, b site) {
			first := a.run(t, "", step{"put", "cart", 1})
			cookie := first.pair(t)
			second := b.run(t, cookie, step{"regenerate"}, step{"put", "user", "user1"})
			if second.ID == first.ID || second.pair(t) == cookie {
				t.Errorf("%s: regenerate kept the id", b.name)
			}
			if exists(dir, first.ID+".json") || !exists(dir, second.ID+".json") {
				t.Errorf("%s: old file there %v, new file there %v", b.name, exists(dir, first.ID+".json"), exists(dir, second.ID+".json"))
			}
			if second.value("cart") != "" {
				t.Errorf("%s: regenerate kept the data", b.name)
			}
			if got := a.run(t, second.pair(t)); got.ID != second.ID || got.value("user") != `"user1"` {
				t.Errorf("%s does not know the session that %s made: %+v", a.name, b.name, got)
			}
			for _, s := range sites {
				if got := s.run(t, cookie); got.ID == first.ID || got.value("cart") != "" {
					t.Errorf("%s: the old cookie still opens %+v", s.name, got)
				}
			}
			// A regenerated session is stored and its cookie sent even if it is unmodified.
			third := b.run(t, second.pair(t), step{"regenerate"})
			if third.pair(t) == second.pair(t) || !exists(dir, third.ID+".json") || exists(dir, second.ID+".json") {
				t.Errorf("%s: regenerate alone: %+v", b.name, third)
			}
		})
	})

	t.Run("42 destroy", func(t *testing.T) {
		pairs(sites, func(a, b site) {
			first := a.run(t, "", step{"put", "user", "user1"})
			cookie := first.pair(t)
			if got := b.run(t, cookie, step{"destroy"}); len(got.SetCookie) != 0 {
				t.Errorf("%s: destroy sets %q", b.name, got.SetCookie)
			}
			if exists(dir, first.ID+".json") {
				t.Errorf("%s: destroy left the file", b.name)
			}
			for _, s := range sites {
				if got := s.run(t, cookie); got.ID == first.ID || got.value("user") != "" || len(got.SetCookie) != 0 {
					t.Errorf("%s: after destroy the cookie opens %+v", s.name, got)
				}
			}
			if exists(dir, first.ID+".json") {
				t.Errorf("a look has brought the file back")
			}
		})
	})

	// Node would make the file again. In Go a logout stays.
	t.Run("17 a session destroyed during a request of Go's stays destroyed", func(t *testing.T) {
		a, b := sites[0], sites[1]
		first := a.run(t, "", step{"put", "user", "user1"})
		cookie := first.pair(t)
		m := &session.Manager{Store: open(t, dir, nil), Secrets: []string{secret}}
		served := make(chan error, 1)
		mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r)
			a.run(t, cookie, step{"destroy"}) // another request, to the other server
			served <- s.Put("late", 1)
		})
		r, err := http.NewRequest("GET", "http://example.com/", nil)
		must(t, err)
		r.Header.Set("Cookie", cookie)
		w := newDiscard()
		m.Handler(mux).ServeHTTP(w, r)
		must(t, <-served)
		if exists(dir, first.ID+".json") {
			t.Error("the session is back")
		}
		if got := w.Header()["Set-Cookie"]; len(got) > 0 {
			t.Errorf("Set-Cookie %q for a session that is gone", got)
		}
		if got := b.run(t, cookie); got.value("user") != "" {
			t.Errorf("the cookie opens %+v", got)
		}
	})
}

// discard is a ResponseWriter that keeps only the header.
type discard struct{ header http.Header }

func newDiscard() discard                     { return discard{http.Header{}} }
func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

func TestStoredCookie(t *testing.T) {
	t.Parallel()
	n := driver(t)

	t.Run("43 stored cookie attributes win over the configuration", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		// The cookies of both servers, and a third that both would set otherwise.
		nodes := nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"rolling": true,
			"cookie": object{"maxAge": 3_600_000, "sameSite": "lax", "httpOnly": true}}})
		goes := goSite(t, &session.Manager{Store: store, Rolling: true,
			Cookie: session.CookieOptions{MaxAge: 2 * time.Hour, Domain: "example.com", SameSite: http.SameSiteStrictMode, Readable: true, Priority: "high"}})
		pairs([]site{nodes, goes}, func(a, b site) {
			first := a.run(t, "", step{"put", "views", 1})
			for range 2 {
				second := b.run(t, first.pair(t), step{"count", "views"})
				mask := func(h string) string { return expiresRE.ReplaceAllString(h, "Expires=…") }
				if len(second.SetCookie) != 1 || mask(second.SetCookie[0]) != mask(first.SetCookie[0]) {
					t.Errorf("%s sets %q\nwant %s's own %q", b.name, second.SetCookie, a.name, first.SetCookie)
				}
				var was, is struct{ OriginalMaxAge float64 }
				must(t, json.Unmarshal(first.Session["cookie"], &was))
				must(t, json.Unmarshal(second.Session["cookie"], &is))
				if d := was.OriginalMaxAge - is.OriginalMaxAge; d < 0 || d > 1000 {
					t.Errorf("%s: originalMaxAge %v became %v", b.name, was.OriginalMaxAge, is.OriginalMaxAge)
				}
			}
		})
	})

	t.Run("43 a stored secure cookie is not sent over plain HTTP", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		text := strings.Replace(doc(time.Now(), `"views":1`), `"httpOnly"`, `"secure":true,"httpOnly"`, 1)
		plant(t, dir, anID+".json", text)
		for _, s := range []site{
			nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"rolling": true, "proxy": true}}),
			goSite(t, &session.Manager{Store: store, Rolling: true, TrustProxy: true}),
		} {
			if got := s.run(t, signed(anID, secret)); got.ID != anID || len(got.SetCookie) != 0 {
				t.Errorf("%s: over plain HTTP id %s, Set-Cookie %q, want %s and none", s.name, got.ID, got.SetCookie, anID)
			}
			got := s.runTo(t, signed(anID, secret), "", https)
			if len(got.SetCookie) != 1 || !strings.Contains(got.SetCookie[0], "; Secure") {
				t.Errorf("%s: over TLS Set-Cookie %q, want Secure", s.name, got.SetCookie)
			}
		}
	})

	// Both servers send the same header, or none, for attributes that neither would write to a file.
	t.Run("43 odd stored attributes", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		sites := []site{
			nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"rolling": true, "proxy": true}}),
			goSite(t, &session.Manager{Store: store, Rolling: true, TrustProxy: true}),
		}
		said := func(s site, cookie string) string {
			plant(t, dir, anID+".json", fmt.Sprintf(`{"cookie":%s,"views":1,"__lastAccess":%d}`, cookie, time.Now().UnixMilli()))
			a := s.runTo(t, signed(anID, secret), "", https)
			return fmt.Sprint(a.Status, " ", expiresRE.ReplaceAllString(strings.Join(a.SetCookie, "\n"), "Expires=…"))
		}
		for _, cookie := range []string{
			`{}`,
			`{"originalMaxAge":null,"expires":null}`,
			`{"path":null}`, `{"path":""}`, `{"path":"/x"}`, `{"path":"no slash"}`, `{"path":"/;x"}`,
			`{"httpOnly":null}`, `{"httpOnly":false}`, `{"httpOnly":0}`, `{"httpOnly":1}`, `{"httpOnly":""}`, `{"httpOnly":"no"}`,
			`{"secure":null}`, `{"secure":1}`, `{"secure":"auto"}`,
			`{"partitioned":1}`, `{"partitioned":false}`, `{"partitioned":"x"}`,
			`{"domain":""}`, `{"domain":"example.com"}`, `{"domain":".example.com"}`, `{"domain":"bad domain"}`, `{"domain":"a;b"}`, `{"domain":null}`,
			`{"sameSite":true}`, `{"sameSite":false}`, `{"sameSite":null}`, `{"sameSite":"LAX"}`, `{"sameSite":"Strict"}`, `{"sameSite":"bogus"}`, `{"sameSite":""}`,
			`{"priority":"HIGH"}`, `{"priority":"bogus"}`, `{"priority":null}`, `{"priority":""}`,
			`{"expires":"garbage"}`, `{"expires":false}`,
			`{"originalMaxAge":false,"expires":false}`,
			`{"originalMaxAge":600000,"expires":null}`, `{"originalMaxAge":600000}`, `{"originalMaxAge":600000.5}`,
			`{"maxAge":5}`, `{"foo":"bar"}`, `{"data":1}`,
		} {
			if node, goes := said(sites[0], cookie), said(sites[1], cookie); node != goes {
				t.Errorf("stored %s\nNode says %s\nGo says   %s", cookie, node, goes)
			}
		}
		// A touch computes expires from originalMaxAge, which is missing here.
		t.Run("expires without originalMaxAge", func(t *testing.T) {
			for _, cookie := range []string{`{"expires":"2037-01-01T00:00:00.000Z"}`, `{"originalMaxAge":null,"expires":"2037-01-01T00:00:00.000Z"}`} {
				if node, goes := said(sites[0], cookie), said(sites[1], cookie); node != goes {
					t.Errorf("stored %s\nNode says %s\nGo says   %s", cookie, node, goes)
				}
			}
		})
		// In Go an OriginalMaxAge of 0 means none. In Node the session lives on by the ttl, but its cookie
		// tells the browser to drop it.
		t.Run("originalMaxAge 0 is none", func(t *testing.T) {
			cookie := `{"originalMaxAge":0,"expires":null}`
			if node := said(sites[0], cookie); !strings.Contains(node, "Expires=") {
				t.Errorf("Node says %s, want an Expires", node)
			}
			if goes := said(sites[1], cookie); strings.Contains(goes, "Expires=") {
				t.Errorf("Go says %s, want no Expires", goes)
			}
			if text := read(t, dir, anID+".json"); !strings.Contains(text, `"cookie":`+cookie) {
				t.Errorf("Go has changed the cookie: %s", text)
			}
		})
	})

	t.Run("43 a maxAge that the handler sets is stored", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		sites := []site{nodeSite(t, n, object{"options": object{"path": dir}}), goSite(t, &session.Manager{Store: store})}
		pairs(sites, func(a, b site) {
			first := a.run(t, "", step{"put", "views", 1})
			b.run(t, first.pair(t), step{"maxAge", 7_200_000})
			s, err := store.Get(ctx, first.ID)
			if err != nil {
				t.Fatalf("Get() = %v", err)
			}
			if d := 2*time.Hour - s.Cookie.OriginalMaxAge; d < 0 || d > time.Second {
				t.Errorf("%s: OriginalMaxAge = %v, want 2h", b.name, s.Cookie.OriginalMaxAge)
			}
			if got := time.Until(s.Cookie.Expires); got < time.Hour || got > 2*time.Hour {
				t.Errorf("%s: Expires in %v, want in 2h", b.name, got)
			}
		})
	})

	t.Run("45 originalMaxAge does not drift upward", func(t *testing.T) {
		dir := t.TempDir()
		const maxAge = time.Minute
		sites := both(t, dir, maxAge, &filestore.Options{TouchAfter: -1})
		store := open(t, dir, nil)
		pairs(sites, func(a, b site) {
			first := a.run(t, "", step{"put", "views", 1})
			last := maxAge
			for i := range 31 {
				s := []site{a, b}[i%2]
				if i > 0 { // at first what the new session has
					var do []step
					if i%3 == 1 {
						do = steps(step{"count", "views"})
					}
					s.run(t, first.pair(t), do...)
				}
				sess, err := store.Get(ctx, first.ID)
				if err != nil {
					t.Fatalf("Get() = %v", err)
				}
				got := sess.Cookie.OriginalMaxAge
				// Node computes it from Expires each time and may lose a millisecond. Go leaves it as it is.
				if d := last - got; d < 0 || s.name == "go" && d != 0 || d > time.Second {
					t.Errorf("%s: OriginalMaxAge was %v and is %v", s.name, last, got)
				}
				if left := time.Until(sess.Cookie.Expires); left > maxAge || left < maxAge-10*time.Second {
					t.Errorf("%s: Expires in %v, want in a minute", s.name, left)
				}
				last = got
			}
		})
	})
}

// The response to a request whose store fails, which is not in the table of Node.
func TestCorruptSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sites := both(t, dir, 0, nil)
	for _, test := range []struct {
		name   string
		site   site
		status int
		kept   bool
	}{
		{"14 Node answers 500 and deletes the file", sites[0], http.StatusInternalServerError, false},
		{"14 Go keeps the file and begins a new session", sites[1], http.StatusOK, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			plant(t, dir, anID+".json", `{"cookie":`)
			a := test.site.run(t, signed(anID, secret), step{"put", "views", 1})
			if a.Status != test.status || (len(a.SetCookie) == 1) != test.kept || a.ID == anID {
				t.Errorf("status %d, id %s, Set-Cookie %q", a.Status, a.ID, a.SetCookie)
			}
			if got := exists(dir, anID+".json"); got != test.kept {
				t.Errorf("the file is there: %v, want %v", got, test.kept)
			}
		})
	}
}

// A client that follows a redirect as soon as it can finds the session as it was left. Node promises that
// only after req.session.save().
func TestRedirect(t *testing.T) {
	t.Parallel()
	const rounds = 50
	dir := t.TempDir()
	sites := both(t, dir, 0, nil)
	nodes, goes := sites[0], sites[1]
	for _, test := range []struct {
		name     string
		from, to site
		steps    []step
	}{
		{"44 Go to Go", goes, goes, nil},
		{"44 Go to Node", goes, nodes, nil},
		{"44 Node to Go, after save", nodes, goes, steps(step{"save"})},
		{"44 Node to Node, after save", nodes, nodes, steps(step{"save"})},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Run("existing session", func(t *testing.T) {
				cookie := test.from.run(t, "", step{"put", "round", -1}).pair(t)
				for i := range rounds {
					do := append(steps(step{"put", "round", i}), test.steps...)
					follow(t, test.from, cookie, test.to, do...)
					if got := test.to.run(t, cookie).value("round"); got != fmt.Sprint(i) {
						t.Fatalf("round %d: %s has round = %s", i, test.to.name, got)
					}
				}
			})
			t.Run("login", func(t *testing.T) {
				for i := range rounds {
					cookie := test.from.run(t, "", step{"put", "round", -1}).pair(t)
					do := append(steps(step{"regenerate"}, step{"put", "user", i}), test.steps...)
					set := follow(t, test.from, cookie, test.to, do...)
					if set == "" {
						t.Fatalf("round %d: no Set-Cookie", i)
					}
					if got := test.to.run(t, set).value("user"); got != fmt.Sprint(i) {
						t.Fatalf("round %d: %s has user = %s", i, test.to.name, got)
					}
				}
			})
		})
	}
}

// The session is stored before the header of a redirect leaves, even if the handler then goes on for long.
func TestRedirectWhileHandling(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sites := both(t, dir, 0, nil)
	m := &session.Manager{Store: open(t, dir, nil), Secrets: []string{secret}}
	proceed := make(chan struct{})
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Put("user", "user1")
		http.Redirect(w, r, "/", http.StatusFound)
		http.NewResponseController(w).Flush()
		<-proceed
	})))
	t.Cleanup(server.Close)
	for _, to := range sites {
		t.Run("44 Go to "+to.name, func(t *testing.T) {
			for _, cookie := range []string{"", sites[0].run(t, "", step{"put", "views", 1}).pair(t)} {
				r, err := http.NewRequest("GET", server.URL, nil)
				must(t, err)
				if cookie != "" {
					r.Header.Set("Cookie", cookie)
				}
				resp, err := client.Do(r)
				must(t, err)
				if cookie == "" {
					cookie = answer{SetCookie: resp.Header["Set-Cookie"]}.pair(t)
				}
				if got := to.run(t, cookie).value("user"); got != `"user1"` {
					t.Errorf("user = %s while the handler still runs, want user1", got)
				}
				proceed <- struct{}{}
				resp.Body.Close()
			}
		})
	}
}

// follow requests the steps with a redirect as the answer. It returns the cookie as soon as the header is
// there, without waiting for the body or the end of the response.
func follow(t *testing.T, s site, cookie string, to site, steps ...step) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), callTimeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(callTimeout))
	raw, err := json.Marshal(steps)
	must(t, err)
	query := url.Values{"steps": {string(raw)}, "to": {to.url}}.Encode()
	if _, err := fmt.Fprintf(conn, "GET /run?%s HTTP/1.1\r\nHost: example.com\r\nCookie: %s\r\nConnection: close\r\n\r\n", query, cookie); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	set, location := "", false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(errors.Join(errors.New("no header"), err))
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		switch strings.ToLower(name) {
		case "set-cookie":
			set, _, _ = strings.Cut(value, ";")
		case "location":
			location = true
		case "":
			if !location {
				t.Fatalf("%s does not redirect", s.name)
			}
			return set
		}
	}
}
