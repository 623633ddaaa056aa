package gorillastore_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	echosession "github.com/labstack/echo-contrib/session"
	echosession5 "github.com/labstack/echo-contrib/v5/session"
	"github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"
	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/faux"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
)

// A site is the same in each framework: serve answers a request, and an error
// of it is the framework's to answer.
type site struct {
	loaded, release chan struct{} // what /slow waits for between loading and saving
}

type getter func(name string) (*sessions.Session, error)

func (s *site) serve(get getter, w http.ResponseWriter, r *http.Request) error {
	session, err := get("s")
	if err != nil {
		return err
	}
	switch r.URL.Path {
	case "/login":
		session.ID = ""
		session.Values["user"] = r.FormValue("user")
	case "/logout":
		session.Options.MaxAge = -1
	case "/slow":
		s.loaded <- struct{}{}
		<-s.release
		session.Values["slow"] = true
	case "/unset":
		delete(session.Values, r.FormValue("key"))
	case "/put":
		session.Values[r.FormValue("key")] = r.FormValue("value")
	default:
		fmt.Fprint(w, session.IsNew, session.Values)
		return nil
	}
	if err := session.Save(r, w); err != nil {
		return err
	}
	fmt.Fprint(w, "ok")
	return nil
}

func (s *site) gorilla(store sessions.Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		get := func(name string) (*sessions.Session, error) { return store.Get(r, name) }
		if err := s.serve(get, w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

func (s *site) echo4(store sessions.Store) http.Handler {
	e := echo.New()
	e.Use(echosession.Middleware(store))
	e.Any("/*", func(c echo.Context) error {
		get := func(name string) (*sessions.Session, error) { return echosession.Get(name, c) }
		return s.serve(get, c.Response(), c.Request())
	})
	return e
}

func (s *site) echo5(store sessions.Store) http.Handler {
	e := echo5.New()
	e.Logger = nil
	e.HTTPErrorHandler = func(c *echo5.Context, err error) { c.String(http.StatusInternalServerError, err.Error()) }
	e.Use(echosession5.Middleware(store))
	e.Any("/*", func(c *echo5.Context) error {
		get := func(name string) (*sessions.Session, error) { return echosession5.Get(name, c) }
		return s.serve(get, c.Response(), c.Request())
	})
	return e
}

var frameworks = map[string]func(*site, sessions.Store) http.Handler{
	"gorilla": (*site).gorilla, "echo v4": (*site).echo4, "echo v5": (*site).echo5,
}

type browser struct {
	t      testing.TB
	client *http.Client
	base   string
}

func newBrowser(t testing.TB, base string) *browser {
	jar, err := cookiejar.New(nil)
	ok(t, err)
	return &browser{t, &http.Client{Jar: jar}, base}
}

func (b *browser) get(path string) (code int, body string) {
	b.t.Helper()
	res, err := b.client.Get(b.base + path)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Error(err)
	}
	return res.StatusCode, string(text)
}

func (b *browser) want(path, want string) {
	b.t.Helper()
	if code, body := b.get(path); code != 200 || body != want {
		b.t.Errorf("%s: %d %q, want %q", path, code, body, want)
	}
}

func (b *browser) cookie() *http.Cookie {
	u, _ := url.Parse(b.base)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == "s" {
			return c
		}
	}
	return nil
}

// another has the same cookies, and none in common with the first from then on.
func (b *browser) another() *browser {
	other := newBrowser(b.t, b.base)
	u, _ := url.Parse(b.base)
	other.client.Jar.SetCookies(u, b.client.Jar.Cookies(u))
	return other
}

// start serves handler; the Close of what it returns waits for its requests.
func start(t testing.TB, handler http.Handler) *httptest.Server {
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

const (
	nobody = "true map[]"
	alice  = "false map[user:alice]"
)

func TestHTTP(t *testing.T) {
	for name, framework := range frameworks {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := &site{make(chan struct{}), make(chan struct{})}
			files1 := open(t, dir)
			srv := start(t, framework(s, gorillastore.New(files1, key)))
			b := newBrowser(t, srv.URL)

			// No session for whoever saves none; an id of ours for whoever does.
			b.want("/", nobody)
			wantFiles(t, dir, 0)
			b.want("/put?key=cart&value=1", "ok")
			b.want("/", "false map[cart:1]")
			planted := b.another()

			// Login: a new id, what was in the session before stays, and the old id is worth nothing.
			b.want("/login?user=alice", "ok")
			b.want("/", "false map[cart:1 user:alice]")
			planted.want("/", nobody)
			wantFiles(t, dir, 1)

			// Parallel requests: each is answered, and all that they have put in is there.
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { b.want(fmt.Sprintf("/put?key=k%d&value=x", i%4), "ok") })
			}
			wg.Wait()
			b.want("/", "false map[cart:1 k0:x k1:x k2:x k3:x user:alice]")
			wantFiles(t, dir, 1)

			// A logout that deletes a key is undone by no slow request.
			wg.Go(func() { b.want("/slow", "ok") })
			<-s.loaded
			b.want("/unset?key=user", "ok")
			s.release <- struct{}{}
			wg.Wait()
			b.want("/", "false map[cart:1 k0:x k1:x k2:x k3:x slow:true]")

			// The logout race, with the cookie that the slow request came with.
			stolen := b.another()
			wg.Go(func() { b.want("/slow", "ok") })
			<-s.loaded
			b.want("/logout", "ok")
			wantFiles(t, dir, 0)
			s.release <- struct{}{}
			wg.Wait()
			wantFiles(t, dir, 0)
			stolen.want("/", nobody)
			if c := b.cookie(); c != nil {
				t.Error("the slow request has set the cookie again")
			}
			// And the login race: the slow request leaves the new cookie alone.
			b.want("/put?key=cart&value=1", "ok")
			wg.Go(func() { b.want("/slow", "ok") })
			<-s.loaded
			b.want("/login?user=bob", "ok")
			s.release <- struct{}{}
			wg.Wait()
			b.want("/", "false map[cart:1 user:bob]")
			wantFiles(t, dir, 1)

			// Restart.
			srv.Close()
			ok(t, files1.Close())
			srv = start(t, framework(s, gorillastore.New(open(t, dir), key)))
			b.base = srv.URL
			b.want("/", "false map[cart:1 user:bob]")

			// Expiry.
			age(t, files(t, dir)[0], 31*24*time.Hour)
			b.want("/", nobody)
			b.want("/login?user=alice", "ok")
			b.want("/", alice)

			// A bad cookie is an error, here 500. A damaged file is none: it stays, and there is another session.
			forged := newBrowser(t, srv.URL)
			u, _ := url.Parse(srv.URL)
			forged.client.Jar.SetCookies(u, []*http.Cookie{{Name: "s", Value: "forged", Path: "/"}})
			if code, _ := forged.get("/"); code != 500 {
				t.Errorf("a forged cookie: %d", code)
			}
			wantFiles(t, dir, 2) // the expired one too
			for _, file := range files(t, dir) {
				ok(t, os.WriteFile(file, []byte(`{"cookie":`), 0o600))
			}
			damaged := files(t, dir)
			for path, want := range map[string]string{"/": nobody, "/login?user=alice": "ok", "/put?key=a&value=b": "ok", "/logout": "ok"} {
				b.another().want(path, want)
			}
			b.want("/login?user=alice", "ok")
			b.want("/", alice)
			wantFiles(t, dir, 5)
			for _, file := range damaged {
				if text, err := os.ReadFile(file); err != nil || string(text) != `{"cookie":` {
					t.Errorf("a damaged file is now %s, %v", text, err)
				}
			}
		})
	}
}

// goth keeps the state of an authentication in a session, and removes it when that is over.
func TestGoth(t *testing.T) {
	store, dir := newStore(t)
	defer func(s sessions.Store) { gothic.Store = s }(gothic.Store)
	gothic.Store = store
	goth.UseProviders(&faux.Provider{})
	defer goth.ClearProviders()
	mux := http.NewServeMux()
	mux.HandleFunc("/auth", gothic.BeginAuthHandler)
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		user, err := gothic.CompleteUserAuth(w, r)
		fmt.Fprint(w, user.Provider, user.UserID, " ", err)
	})
	srv := start(t, mux)

	begin := func() (b *browser, state string) {
		t.Helper()
		b = newBrowser(t, srv.URL)
		b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		res, err := b.client.Get(srv.URL + "/auth?provider=faux")
		ok(t, err)
		res.Body.Close()
		u, err := res.Location()
		ok(t, err)
		if state = u.Query().Get("state"); res.StatusCode != http.StatusTemporaryRedirect || state == "" {
			t.Fatalf("%d to %s", res.StatusCode, u)
		}
		return b, url.QueryEscape(state)
	}

	b, state := begin()
	wantFiles(t, dir, 1)
	stolen := b.another()
	b.want("/callback?provider=faux&state="+state, "fauxid <nil>")
	wantFiles(t, dir, 0)
	for _, b := range []*browser{b, stolen} { // once only
		b.want("/callback?provider=faux&state="+state, " could not find a matching session for this request")
	}

	b, _ = begin()
	b.want("/callback?provider=faux&state=forged", " state token mismatch")
	wantFiles(t, dir, 0)
	b, state = begin()
	newBrowser(t, srv.URL).want("/callback?provider=faux&state="+state, " could not find a matching session for this request")
	wantFiles(t, dir, 1)
	b.want("/callback?provider=faux&state="+state, "fauxid <nil>")
	wantFiles(t, dir, 0)
}

// With this variable set the test binary is another process: "site" or "writer",
// a directory, and for the writer whose store it is and a cookie.
const child = "GORILLASTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	args := strings.Split(os.Getenv(child), "|")
	switch args[0] {
	case "site":
		files, err := filestore.Open(args[1], &filestore.Options{NoSync: true, ReapInterval: -1})
		if err != nil {
			panic(err)
		}
		fmt.Println(httptest.NewServer((&site{}).gorilla(gorillastore.New(files, key))).URL)
		io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
	case "writer":
		store := stores[args[2]](args[1])
		fmt.Println("ready")
		go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
		for i := 0; ; i++ {
			write(store, &http.Cookie{Name: "s", Value: args[3]}, i)
		}
	default:
		os.Exit(m.Run())
	}
}

// spawn starts another process and returns its first line; kill ends it as kill -9 does.
func spawn(t testing.TB, args ...string) (line string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+strings.Join(args, "|"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	ok(t, err)
	stdout, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		stdin.Close()
		cmd.Wait()
	})
	t.Cleanup(kill)
	line, err = bufio.NewReader(stdout).ReadString('\n')
	ok(t, err)
	return strings.TrimSpace(line), kill
}

// Two processes on one directory, of which one is killed.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	here := newBrowser(t, start(t, (&site{}).gorilla(gorillastore.New(open(t, dir), key))).URL)
	there := *here // with the same cookies
	var kill func()
	there.base, kill = spawn(t, "site", dir)

	here.want("/login?user=alice", "ok")
	there.want("/", alice)
	there.want("/put?key=cart&value=1", "ok")
	here.want("/", "false map[cart:1 user:alice]")
	stolen := here.another()
	there.want("/logout", "ok")
	here.want("/", nobody)
	stolen.want("/", nobody)
	wantFiles(t, dir, 0)

	there.want("/login?user=alice", "ok")
	kill()
	here.want("/", alice)
	there.base, _ = spawn(t, "site", dir)
	there.want("/", alice)
}

var stores = map[string]func(dir string) sessions.Store{
	"gorillastore": func(dir string) sessions.Store {
		files, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1})
		if err != nil {
			panic(err)
		}
		return gorillastore.New(files, key)
	},
	"FilesystemStore": func(dir string) sessions.Store {
		store := sessions.NewFilesystemStore(dir, key)
		store.MaxLength(0)
		return store
	},
}

// write saves a session whose values tell whether they are one version's.
func write(store sessions.Store, c *http.Cookie, i int) error {
	session, err := store.New(request(c), "s")
	if err != nil && session.ID == "" {
		return err
	}
	if session.ID == "" {
		return errors.New("no session")
	}
	// FilesystemStore, which keeps the id beside an error, writes the file anew.
	session.Values["i"], session.Values["text"] = i, strings.Repeat(string(rune('a'+i%26)), i%20_000)
	return errors.Join(err, session.Save(request(c), httptest.NewRecorder()))
}

// Counts: readers of one session beside writers, in this process alone and with another, and
// logouts undone.
func TestCounts(t *testing.T) {
	run := time.Second / 2
	if os.Getenv("FILESTORE_LONG") != "" {
		run = 20 * time.Second
	}
	for name, newStore := range stores {
		bad := torture(t, name, run, false) + torture(t, name, run, true)

		store, undone := newStore(t.TempDir()), 0
		for range 100 {
			loaded, c := begin(t, store, map[any]any{"user": "alice"})
			logout := load(t, store, c)
			logout.Options.MaxAge = -1
			save(t, logout, c)
			save(t, loaded, c)
			if session, err := store.New(request(c), "s"); err == nil && !session.IsNew {
				undone++
			}
		}
		t.Logf("%s: of 100 logouts %d undone", name, undone)
		if name == "gorillastore" && bad+undone > 0 {
			t.Error("ours must be 0")
		}
	}
}

func torture(t *testing.T, name string, run time.Duration, two bool) int {
	dir := t.TempDir()
	store, kill, beside := stores[name](dir), func() {}, "this process alone"
	_, c := begin(t, store, map[any]any{"i": 0, "text": ""})
	if two {
		beside = "another process writing too, then killed"
		_, kill = spawn(t, "writer", dir, name, c.Value)
	}
	var reads, writes, failed, torn atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(run)
	for w := range 2 {
		wg.Go(func() {
			for i := w; time.Now().Before(end); i++ {
				writes.Add(1)
				if write(store, c, i) != nil {
					failed.Add(1)
				}
			}
		})
		wg.Go(func() {
			for time.Now().Before(end) {
				reads.Add(1)
				session, err := store.New(request(c), "s")
				if err != nil || session.IsNew {
					failed.Add(1)
					continue
				}
				i, _ := session.Values["i"].(int)
				if session.Values["text"] != strings.Repeat(string(rune('a'+i%26)), i%20_000) {
					torn.Add(1)
				}
			}
		})
	}
	wg.Wait()
	kill() // in the midst of a write, most often
	lost := 0
	if session, err := store.New(request(c), "s"); err != nil || session.IsNew {
		lost++
	}
	t.Logf("%s, %s: %d reads and %d writes, %d failed, %d torn; lost in the end: %d",
		name, beside, reads.Load(), writes.Load(), failed.Load(), torn.Load(), lost)
	if reads.Load() < 10 || writes.Load() < 10 {
		t.Error("too few to tell")
	}
	return int(failed.Load()+torn.Load()) + lost
}
