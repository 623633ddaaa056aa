package session_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// long is n in the long form of a test, with FILESTORE_LONG set, else short.
func long(short, n int) int {
	if os.Getenv("FILESTORE_LONG") != "" {
		return n
	}
	return short
}

var ctx = context.Background()

const secret = "keyboard cat"

// A recorder is a filestore.Store that remembers what was asked of it.
type recorder struct {
	*filestore.Store
	dir string

	mu    sync.Mutex
	calls []string
	fail  error  // what every call returns, if not nil
	only  string // unless it is another than this one, if not ""
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

// failOn lets the calls of op fail.
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
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, TouchAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &recorder{Store: s, dir: dir}
}

func (s *recorder) files(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A browser is a client with a cookie jar that does not follow redirects.
type browser struct {
	t    testing.TB
	base string
	http.Client
}

func newBrowser(t testing.TB, srv *httptest.Server) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, base: srv.URL}
	b.Client = *srv.Client()
	b.Jar = jar
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

type answer struct {
	*http.Response
	body string
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	res, err := b.Get(b.base + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res, string(body)}
}

// cookie returns the raw Cookie header that the browser would send.
func (b *browser) cookie() string {
	u, _ := url.Parse(b.base)
	var pairs []string
	for _, c := range b.Jar.Cookies(u) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// do is a request with a Cookie header and no jar.
func do(t testing.TB, srv *httptest.Server, path, cookie string) answer {
	t.Helper()
	req, err := http.NewRequest("GET", srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

func cookieOf(a answer) string {
	head, _, _ := strings.Cut(a.Header.Get("Set-Cookie"), ";")
	return head
}

func signed(id string) string {
	return "connect.sid=" + url.QueryEscape("s:"+session.Sign(id, secret))
}

func manager(s session.Store) *session.Manager {
	return &session.Manager{Store: s, Secrets: []string{secret}}
}

func serve(t testing.TB, m *session.Manager, handlers map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range handlers {
		mux.Handle(path, h)
	}
	srv := httptest.NewServer(m.Handler(mux))
	t.Cleanup(srv.Close)
	return srv
}

// put is a handler that stores k=v from its query.
func put(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	for k, v := range r.URL.Query() {
		if err := s.Put(k, v[0]); err != nil {
			panic(err)
		}
	}
}

// show is a handler that prints the session's values as JSON.
func show(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(session.From(r).Values)
}

func regenerate(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Regenerate(); err != nil {
		panic(err)
	}
}

func destroy(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Destroy(); err != nil {
		panic(err)
	}
}

func none(http.ResponseWriter, *http.Request) {}

// plain has only what Store demands.
type plain struct{ s *recorder }

func (p plain) Get(ctx context.Context, id string) (*filestore.Session, error) {
	return p.s.Get(ctx, id)
}
func (p plain) Set(ctx context.Context, id string, sess *filestore.Session) error {
	p.s.call("set")
	return p.s.Store.Set(ctx, id, sess)
}
func (p plain) Destroy(ctx context.Context, id string) error { return p.s.Destroy(ctx, id) }

// memory hands out the very sessions that it keeps: the middleware must not
// change them behind its back.
type memory struct {
	mu sync.Mutex
	m  map[string]*filestore.Session
}

func (s *memory) Get(_ context.Context, id string) (*filestore.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess, ok := s.m[id]; ok {
		return sess, nil
	}
	return nil, filestore.ErrNotFound
}

func (s *memory) Set(_ context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := *sess
	own.Values = maps.Clone(sess.Values)
	s.m[id] = &own
	return nil
}

func (s *memory) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
	return nil
}

// stores runs a test over a store with everything, one with only what is
// demanded, and one that hands out what it keeps.
func stores(t *testing.T, test func(t *testing.T, s session.Store)) {
	t.Run("filestore", func(t *testing.T) { test(t, newStore(t)) })
	t.Run("plain", func(t *testing.T) { test(t, plain{newStore(t)}) })
	t.Run("memory", func(t *testing.T) { test(t, &memory{m: make(map[string]*filestore.Session)}) })
}

func TestSessionOverRequests(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/destroy": destroy,
			"/delete": func(w http.ResponseWriter, r *http.Request) { session.From(r).Delete("a") }})
		anna, bert := newBrowser(t, srv), newBrowser(t, srv)
		anna.get("/put?a=1")
		bert.get("/put?a=2")
		anna.get("/put?b=3")
		if got, want := anna.get("/show").body, `{"a":"1","b":"3"}`+"\n"; got != want {
			t.Errorf("anna has %s, want %s", got, want)
		}
		if got, want := bert.get("/show").body, `{"a":"2"}`+"\n"; got != want {
			t.Errorf("bert has %s, want %s", got, want)
		}
		anna.get("/delete")
		if got, want := anna.get("/show").body, `{"b":"3"}`+"\n"; got != want {
			t.Errorf("anna has %s, want %s", got, want)
		}
		old := anna.cookie()
		if a := anna.get("/destroy"); a.Header.Get("Set-Cookie") != "" {
			t.Errorf("Destroy set the cookie %q", a.Header.Get("Set-Cookie"))
		}
		if got := do(t, srv, "/show", old).body; got != "{}\n" {
			t.Errorf("after Destroy the old cookie opens %s", got)
		}
		if got, want := bert.get("/show").body, `{"a":"2"}`+"\n"; got != want {
			t.Errorf("bert has %s, want %s", got, want)
		}
	})
}

// F8, FORMAT 41: Regenerate gives a new id at once, empties, and kills the old one.
func TestRegenerate(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			before := sess.ID()
			if err := sess.Regenerate(); err != nil {
				t.Error(err)
			}
			if sess.ID() == before || len(sess.Values) != 0 {
				t.Errorf("Regenerate left the id or %d values", len(sess.Values))
			}
			sess.Put("user", "anna")
		}})
		b := newBrowser(t, srv)
		b.get("/put?cart=1")
		old := b.cookie()
		if a := b.get("/login"); cookieOf(a) == "" || cookieOf(a) == old {
			t.Errorf("login set the cookie %q, it was %q", cookieOf(a), old)
		}
		if got, want := b.get("/show").body, `{"user":"anna"}`+"\n"; got != want {
			t.Errorf("after login: %s, want %s", got, want)
		}
		a := do(t, srv, "/show", old)
		if a.body != "{}\n" {
			t.Errorf("the old cookie opens %s", a.body)
		}
	})
}

// E1, P5: a slow request that saves after another request's logout leaves the
// session destroyed.
func TestLogoutDuringSlowRequest(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		for range long(1, 50) { // times seven
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
							t.Errorf("Save after another's logout = %v", err)
						}
						if err := sess.Reload(); !errors.Is(err, filestore.ErrNotFound) {
							t.Errorf("Reload after another's logout = %v", err)
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
					t.Errorf("%s: status %d", name, a.StatusCode)
				}
				if _, ok := s.(session.Toucher); a.Header.Get("Set-Cookie") != "" && (name != "rolling" || ok) {
					t.Errorf("%s: the slow request set %q", name, a.Header.Get("Set-Cookie"))
				}
				if got := do(t, srv, "/show", cookie).body; got != "{}\n" {
					t.Errorf("%s: the session is back: %s", name, got)
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
			gate.Wait() // both have loaded
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
		} else { // without Update only requests that overlap, but do not save at once, are safe
			gate.Done()
			do(t, srv, "/slow?a=1", cookie)
			gate.Add(1)
			do(t, srv, "/slow?b=2", cookie)
		}
		wg.Wait()
		if got, want := b.get("/show").body, `{"a":"1","b":"2","stays":"3"}`+"\n"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// The redirect race: whoever follows the 302 as soon as the header is there
// finds the session, although the handler is still running.
func TestRedirectRace(t *testing.T) {
	s := newStore(t)
	missed := 0
	release := make(chan bool, 1)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/show": show, "/put": put, "/go": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		http.Redirect(w, r, "/show", http.StatusFound)
		http.NewResponseController(w).Flush()
		<-release
	}})
	for i := range 100 {
		b := newBrowser(t, srv)
		if i%2 == 1 { // an existing session
			b.get("/put?a=1")
		}
		req, _ := http.NewRequest("GET", fmt.Sprintf("%s/go?n=%d", srv.URL, i), nil)
		res, err := b.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if a := b.get("/show"); !strings.Contains(a.body, fmt.Sprintf(`"n":"%d"`, i)) {
			missed++
		}
		release <- true
		res.Body.Close()
	}
	if missed > 0 {
		t.Errorf("missed %d of 100", missed)
	}
}

// FORMAT 2.3, the "any store" column, and the calls that the store sees.
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
						cookie string // "" new, "own" existing, "unknown"
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
						if tt.path == "/late?a=4" { // first what the header needs
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

func idOf(t testing.TB, cookie string) string {
	t.Helper()
	value, err := url.PathUnescape(strings.TrimPrefix(cookie, "connect.sid="))
	if err != nil {
		t.Fatal(err)
	}
	id, ok := session.Unsign(strings.TrimPrefix(value, "s:"), secret)
	if !ok {
		t.Fatalf("cookie %q does not verify", cookie)
	}
	return id
}

// F1, F2, F4, F6, A16: a cookie that we did not sign costs no look-up; one that
// names nothing gives a new id; none makes or opens another's session.
func TestForgedCookies(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show})
	good := cookieOf(do(t, srv, "/put?user=anna", ""))
	raw, _ := url.PathUnescape(good)
	s.take()
	bad := []string{"connect.sid=", "connect.sid=s:", "connect.sid=s:.", "connect.sid=.", "connect.sid", "connect.sid=s%3A.", "connect.sid=j:{}",
		"connect.sid=" + idOf(t, good), "connect.sid=s:" + idOf(t, good), good + "=", good + "A", good + "%3D", good[:len(good)-1], "Connect.sid=" + raw[12:], "connect.sid=%", "connect.sid=%zz",
		strings.Replace(good, "s%3A", "S%3A", 1), strings.Replace(good, "s%3A", "", 1), strings.ReplaceAll(good, "%", "%25"), // A10: decoded once
	}
	for i := len("connect.sid="); i < len(raw); i++ { // F2: every position
		c := []byte(raw)
		c[i] ^= 1
		bad = append(bad, string(c))
	}
	for _, cookie := range bad {
		a := do(t, srv, "/show", cookie)
		if a.body != "{}\n" || a.StatusCode != 200 {
			t.Errorf("%q: %d %s", cookie, a.StatusCode, a.body)
		}
		if calls := s.take(); calls != "" {
			t.Errorf("%q: store calls %q, want none", cookie, calls)
		}
	}
	for _, cookie := range []string{raw, good, good + " ", `connect.sid="` + raw[12:] + `"`, "a=b; " + good + "; connect.sid=x", "connect.sid=x; " + good, ";;=;a;" + good} { // 27
		if a := do(t, srv, "/show", cookie); a.body != `{"user":"anna"}`+"\n" {
			t.Errorf("%q: %s", cookie, a.body)
		}
	}
	// F4, A16: signed, but nothing or nowhere.
	for _, id := range []string{"fixated_id_0123456789", "../../x", "../" + idOf(t, good), "", "a/b", "CON", strings.Repeat("a", 300), "x\x00"} {
		before := len(s.files(t))
		a := do(t, srv, "/put?user=eve", signed(id))
		if a.StatusCode != 200 || idOf(t, cookieOf(a)) == id {
			t.Errorf("signed %q: %d, cookie %q", id, a.StatusCode, cookieOf(a))
		}
		if n := len(s.files(t)); n != before+1 {
			t.Errorf("signed %q: %d new files", id, n-before)
		}
		if _, err := s.Store.Get(ctx, id); err == nil {
			t.Errorf("signed %q was adopted", id)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(s.dir)); len(entries) != 1 {
		t.Errorf("%d entries beside the store", len(entries))
	}
}

// F7: huge and many cookies are bounded work.
func TestManyCookies(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	h := m.Handler(http.HandlerFunc(show))
	for name, cookie := range map[string]string{
		"1 MiB value":    "connect.sid=s:" + strings.Repeat("a", 1<<20),
		"10,000 cookies": strings.Repeat("a=b; ", 10_000) + "connect.sid=s:x.y",
		"a million ;":    strings.Repeat(";", 1<<20),
		"a million %":    "connect.sid=s:" + strings.Repeat("%", 1<<20),
		"a million dots": "connect.sid=s:" + strings.Repeat(".", 1<<20),
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		start := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if d := time.Since(start); d > time.Second || w.Body.String() != "{}\n" {
			t.Errorf("%s: %s after %v", name, w.Body, d)
		}
	}
	if calls := s.take(); calls != "" {
		t.Errorf("store calls %q", calls)
	}
}

// F3, 28: rotation.
func TestRotation(t *testing.T) {
	s := newStore(t)
	handlers := map[string]http.HandlerFunc{"/put": put, "/show": show}
	old := serve(t, manager(s), handlers)
	cookie := cookieOf(do(t, old, "/put?a=1", ""))
	m := &session.Manager{Store: s, Secrets: []string{"a new secret", "another one", secret}}
	rotated := serve(t, m, handlers)
	if got := do(t, rotated, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("with the old secret in the list: %s", got)
	}
	rolling := serve(t, &session.Manager{Store: s, Secrets: m.Secrets, Rolling: true}, handlers)
	fresh := cookieOf(do(t, rolling, "/show", cookie))
	if fresh == "" || fresh == cookie {
		t.Errorf("not signed anew: %q", fresh)
	}
	removed := serve(t, &session.Manager{Store: s, Secrets: []string{"a new secret"}}, handlers)
	if got := do(t, removed, "/show", fresh).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("signed with the first secret: %s", got)
	}
	if got := do(t, removed, "/show", cookie).body; got != "{}\n" {
		t.Errorf("signed with a removed secret: %s", got)
	}
}

// F9, 32: ids.
// A zero is no source of random numbers.
type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// F9: ids come from crypto/rand, all 24 bytes.
func TestIDsAreFromCryptoRand(t *testing.T) {
	s := newStore(t)
	random := rand.Reader
	defer func() { rand.Reader = random }()
	rand.Reader = zero{}
	m := manager(s)
	var id string
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { id = session.From(r).ID() })).
		ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if want := strings.Repeat("A", 32); id != want {
		t.Errorf("the id is %q, want %q", id, want)
	}
}

// A14: a genid that gives another's id gets an error; the other session is as it was.
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
				t.Errorf("%s: status %d", path, a.StatusCode)
			}
			sess, err := s.Get(ctx, "anna")
			if err != nil || string(sess.Values["user"]) != `"anna"` {
				t.Errorf("%s: the other session is %v, %v", path, sess, err)
			}
		}
	})
}

func TestIDs(t *testing.T) {
	seen := make(map[string]bool)
	m := manager(&memory{m: make(map[string]*filestore.Session)})
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := session.From(r).ID()
		if len(id) != 32 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}))
	for range 20_000 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
}

// F10: visitors who do nothing leave nothing.
func TestNoFilesForVisitors(t *testing.T) {
	s := newStore(t)
	h := manager(s).Handler(http.HandlerFunc(show))
	for range long(10_000, 100_000) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if c := w.Header().Get("Set-Cookie"); c != "" {
			t.Fatalf("cookie %q", c)
		}
	}
	if n := len(s.files(t)); n != 0 || s.take() != "" {
		t.Errorf("%d files", n)
	}
}

// A14, A15, F9: ids of a custom GenID.
func TestGenID(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		next, fail := "same_id", error(nil)
		m := manager(s)
		m.GenID = func(*http.Request) (string, error) { return next, fail }
		var reported error
		m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) { reported = err; w.WriteHeader(500) }
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/regenerate": func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Regenerate(); err != nil {
				http.Error(w, err.Error(), 500)
			}
		}})
		cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
		if a := do(t, srv, "/put?user=bert", ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || !errors.Is(reported, fs.ErrExist) {
			t.Errorf("a second session of one id: %d, %q, %v", a.StatusCode, a.Header.Get("Set-Cookie"), reported)
		}
		if got := do(t, srv, "/show", cookie).body; got != `{"user":"anna"}`+"\n" {
			t.Errorf("the first session is now %s", got)
		}
		for _, next = range []string{"../x", "", "a/b", "x\n"} {
			reported = nil
			for _, path := range []string{"/put?a=1", "/show"} {
				if a := do(t, srv, path, ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || !errors.Is(reported, filestore.ErrInvalidID) {
					t.Errorf("id %q: %d, %v", next, a.StatusCode, reported)
				}
			}
		}
		fail = errors.New("no entropy")
		if a := do(t, srv, "/show", ""); a.StatusCode != 500 || !errors.Is(reported, fail) {
			t.Errorf("GenID failed: %d, %v", a.StatusCode, reported)
		}
		if a := do(t, srv, "/regenerate", cookie); a.StatusCode != 500 {
			t.Errorf("GenID failed in Regenerate: %d", a.StatusCode)
		}
	})
}

// F14, C1: a store that fails means no answer in the session's name.
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
			t.Error("Write after the session could not be stored succeeded")
		}
	}, "/late": func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
		put(w, r)
		s.setFail(fs.ErrPermission)
	}})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))

	// At the load.
	s.setFail(fs.ErrPermission)
	if a := do(t, srv, "/fail", cookie); a.StatusCode != 503 || a.body != "sorry\n" || ran != 0 || reported() != fs.ErrPermission {
		t.Errorf("load: %d %q, handler ran %d times, %v", a.StatusCode, a.body, ran, reported())
	}
	s.setFail(nil)
	// At the save: nothing of the handler's answer leaves.
	for _, c := range []string{cookie, ""} {
		a := do(t, srv, "/fail?b=1", c)
		if a.StatusCode != 503 || a.body != "sorry\n" || a.Header.Get("Location") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("save: %d %q %v", a.StatusCode, a.body, a.Header)
		}
		s.setFail(nil)
	}
	// Too late for another answer: reported all the same.
	if a := do(t, srv, "/late?c=1", cookie); a.StatusCode != 200 || a.body != "hello" || reported() != fs.ErrPermission {
		t.Errorf("late: %d %q, reported %v", a.StatusCode, a.body, reported())
	}
	s.setFail(nil)
	if got := do(t, srv, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("the session is now %s", got)
	}
	// Without an ErrorFunc.
	srv = serve(t, manager(s), map[string]http.HandlerFunc{"/show": show})
	s.setFail(fs.ErrPermission)
	if a := do(t, srv, "/show", cookie); a.StatusCode != 500 || strings.Contains(a.body, "corrupt") || strings.Contains(a.body, "session") {
		t.Errorf("default: %d %q", a.StatusCode, a.body)
	}
}

func TestReload(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/reload": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		sess.Put("mine", 1)
		if err := s.Store.Update(ctx, sess.ID(), func(other *filestore.Session) error { return other.Put("theirs", 2) }); err != nil {
			t.Error(err)
		}
		if err := sess.Reload(); err != nil {
			t.Error(err)
		}
		show(w, r)
	}, "/new": func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Reload(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Reload of a new session = %v", err)
		}
		sess := session.From(r)
		sess.Put("a", 1)
		if err := sess.Save(); err != nil {
			t.Error(err)
		}
		if err := sess.Reload(); err != nil {
			t.Error(err)
		}
	}})
	b := newBrowser(t, srv)
	b.get("/put?a=1")
	if got, want := b.get("/reload").body, `{"a":"1","theirs":2}`+"\n"; got != want {
		t.Errorf("after Reload: %s, want %s", got, want)
	}
	if got, want := b.get("/show").body, `{"a":"1","theirs":2}`+"\n"; got != want {
		t.Errorf("after Reload and the end: %s, want %s", got, want)
	}
	if a := do(t, srv, "/new", ""); cookieOf(a) == "" {
		t.Error("a new session that was saved and reloaded has no cookie")
	}
}

// The cookie's path rules which requests have a session; mounting below it does not matter.
func TestPath(t *testing.T) {
	m := manager(newStore(t))
	m.Cookie.Path = "/app"
	var got *session.Session
	h := m.Handler(http.StripPrefix("/app", m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = session.From(r)
		if got != nil {
			got.Put("a", 1)
		}
	}))))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/app/x", nil))
	if got == nil || len(w.Header()["Set-Cookie"]) != 1 || !strings.Contains(w.Header().Get("Set-Cookie"), "; Path=/app;") {
		t.Errorf("/app/x: session %v, cookies %q", got, w.Header()["Set-Cookie"])
	}
	got = nil
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = session.From(r) })).ServeHTTP(w, httptest.NewRequest("GET", "/other", nil))
	if got != nil {
		t.Error("/other has a session")
	}
	if session.From(httptest.NewRequest("GET", "/", nil)) != nil {
		t.Error("a request that passed no Handler has a session")
	}
}

// 43, E: what the file says of the cookie rules, and is checked before it is sent.
func TestStoredCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.Rolling = true
	m.Cookie = session.CookieOptions{MaxAge: time.Hour, SameSite: http.SameSiteStrictMode}
	var reported atomic.Int64
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { reported.Add(1) }
	srv := serve(t, m, map[string]http.HandlerFunc{"/none": none, "/app/none": none})
	for cookie, want := range map[string]string{
		`{"originalMaxAge":null,"expires":null,"httpOnly":false,"path":"/app","sameSite":true}`: "; Path=/app; SameSite=Strict",
		`{"originalMaxAge":null,"domain":"example.com","priority":"HIGH","partitioned":true}`:   "; Domain=example.com; Path=/; HttpOnly; Partitioned; Priority=High",
		`{"originalMaxAge":null,"path":null}`:                                                   "; HttpOnly",
		`{"originalMaxAge":null,"secure":true}`:                                                 "", // over plain HTTP
		`{"originalMaxAge":null,"path":"/; Domain=evil"}`:                                       "error",
		`{"originalMaxAge":null,"domain":"a;b"}`:                                                "error",
		`{"originalMaxAge":null,"sameSite":"never"}`:                                            "error",
		`{"originalMaxAge":null,"priority":"x\r\nSet-Cookie: a=b"}`:                             "error",
	} {
		reported.Store(0)
		doc := fmt.Sprintf(`{"cookie":%s,"__lastAccess":%d}`, cookie, time.Now().UnixMilli())
		os.WriteFile(filepath.Join(s.dir, "id.json"), []byte(doc), 0o600)
		got := do(t, srv, "/none", signed("id")).Header.Get("Set-Cookie")
		_, got, _ = strings.Cut(got, strings.TrimPrefix(signed("id"), "connect.sid="))
		if want == "error" {
			if got != "" || reported.Load() != 1 {
				t.Errorf("%s: %q, %d errors", cookie, got, reported.Load())
			}
		} else if got != want {
			t.Errorf("%s: %q, want %q", cookie, got, want)
		}
	}
}

// F11: secure cookies and proxies.
func TestSecure(t *testing.T) {
	for _, tt := range []struct {
		secure  session.Secure
		trust   bool
		tls     bool
		header  string
		want    string // "none", "plain", "secure"
		sameSit http.SameSite
	}{
		{session.SecureAuto, false, false, "", "plain", 0},
		{session.SecureAuto, false, false, "https", "plain", 0}, // a spoofed header is ignored
		{session.SecureAuto, true, false, "https", "secure", 0},
		{session.SecureAuto, true, false, " HTTPS , http", "secure", 0},
		{session.SecureAuto, true, false, "http, https", "plain", 0},
		{session.SecureAuto, false, true, "", "secure", 0},
		{session.SecureAlways, false, false, "", "none", 0},
		{session.SecureAlways, false, false, "https", "none", 0},
		{session.SecureAlways, true, false, "https", "secure", 0},
		{session.SecureAlways, false, true, "http", "secure", 0},
		{session.SecureNever, true, true, "https", "plain", 0},
		{session.SecureAuto, false, true, "", "secure", session.SameSiteAuto},
		{session.SecureAuto, false, false, "", "plain", session.SameSiteAuto},
	} {
		m := manager(newStore(t))
		m.TrustProxy = tt.trust
		m.Cookie.Secure, m.Cookie.SameSite = tt.secure, tt.sameSit
		h := m.Handler(http.HandlerFunc(put))
		r := httptest.NewRequest("GET", "http://example.com/?a=1", nil)
		if tt.tls {
			r = httptest.NewRequest("GET", "https://example.com/?a=1", nil)
		}
		if tt.header != "" {
			r.Header.Set("X-Forwarded-Proto", tt.header)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		cookie := w.Header().Get("Set-Cookie")
		got := "none"
		if strings.Contains(cookie, "; Secure") {
			got = "secure"
		} else if cookie != "" {
			got = "plain"
		}
		if got != tt.want {
			t.Errorf("%+v: %q", tt, cookie)
		}
		if tt.sameSit == session.SameSiteAuto && strings.Contains(cookie, "SameSite=None") != tt.tls {
			t.Errorf("SameSiteAuto with TLS %v: %q", tt.tls, cookie)
		}
	}
}

// F12, F15: what cannot work is refused when the handler is made, and the
// message names no secret.
func TestRefusedConfiguration(t *testing.T) {
	s := &memory{}
	for name, m := range map[string]*session.Manager{
		"no store":         {Secrets: []string{secret}},
		"no secrets":       {Store: s},
		"empty secrets":    {Store: s, Secrets: []string{}},
		"empty secret":     {Store: s, Secrets: []string{""}},
		"short secret":     {Store: s, Secrets: []string{"hunter2"}},
		"empty old secret": {Store: s, Secrets: []string{secret, ""}},
		"name":             {Store: s, Secrets: []string{secret}, Name: "a b"},
		"name injection":   {Store: s, Secrets: []string{secret}, Name: "a=b;c"},
		"name newline":     {Store: s, Secrets: []string{secret}, Name: "a\r\n"},
		"path":             {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "/; Domain=x"}},
		"path newline":     {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "/\r\nX: y"}},
		"relative path":    {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "x"}},
		"domain":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Domain: "a b"}},
		"domain injection": {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Domain: "a.com; Secure"}},
		"priority":         {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Priority: "urgent"}},
		"maxAge":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{MaxAge: -1}},
		"sameSite":         {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{SameSite: 9}},
		"secure":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Secure: 9}},
	} {
		func() {
			defer func() {
				text := fmt.Sprint(recover())
				if text == "<nil>" || strings.Contains(text, "hunter2") || strings.Contains(text, secret) {
					t.Errorf("%s: panic %q", name, text)
				}
			}()
			m.Handler(http.NotFoundHandler())
		}()
	}
}

// E3: requests that go on with the old id beside a Regenerate leave nothing of it.
func TestRegenerateBesideWriters(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		if err := sess.Regenerate(); err != nil {
			t.Error(err)
		}
		sess.Put("user", "anna")
	}})
	for range long(30, 1000) {
		b := newBrowser(t, srv)
		b.get("/put?cart=1")
		old := b.cookie()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { do(t, srv, fmt.Sprintf("/put?k%d=1", i), old) })
		}
		b.get("/login")
		wg.Wait()
		if _, err := s.Store.Get(ctx, idOf(t, old)); !errors.Is(err, filestore.ErrNotFound) {
			t.Fatalf("the old session is there: %v", err)
		}
		if got := b.get("/show").body; got != `{"user":"anna"}`+"\n" {
			t.Errorf("the new session has %s", got)
		}
	}
}

// F16: what does not touch the session sets no cookie, even when the browser has one.
func TestNoCookieOnUntouched(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.Cookie.MaxAge = time.Hour
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/static": none})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	for _, c := range []string{cookie, ""} {
		if a := do(t, srv, "/static", c); a.Header.Get("Set-Cookie") != "" {
			t.Errorf("Set-Cookie on an untouched path: %q", a.Header.Get("Set-Cookie"))
		}
	}
}
