package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/live"
	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// The test binary is also the Go site, in its own process as for its users.
const serveEnv = "FILESTORE_EXPRESS_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		main()
		os.Exit(0)
	}
	storetest.Main(m, nil)
}

const timeout = 20 * time.Second

// A process is one of the two sites.
type process struct {
	name string // as its pages show it
	url  string
	cmd  *exec.Cmd
}

var listening = regexp.MustCompile(`http://\S+`)

// A place is where both sites keep their sessions.
type place struct {
	dir     string // of the files; the secret is beside it in any case
	url     string // of the server; "" = in files
	encrypt bool
}

// start starts a site there and waits until it listens.
func (at place) start(t *testing.T, name string) *process {
	t.Helper()
	p := &process{name: name}
	args := []string{"--addr", "127.0.0.1:0", "--dir", at.dir, "--store", at.url} // Go does not mind two dashes
	if at.encrypt {
		args = append(args, "--encrypt")
	}
	if name == "Go" {
		p.cmd = exec.Command(os.Args[0], append(args, "--express", "")...)
	} else {
		p.cmd = exec.Command("node", append([]string{"app.js"}, args...)...)
	}
	p.cmd.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=")
	p.cmd.Stderr = os.Stderr
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return p
	}
	t.Cleanup(p.stop)
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(stdout).ReadString('\n')
		line <- s
		io.Copy(io.Discard, stdout)
	}()
	select {
	case s := <-line:
		if p.url = listening.FindString(s); p.url == "" {
			t.Errorf("%s does not say where it listens: %q", name, s)
		}
	case <-time.After(timeout):
		t.Errorf("%s does not start", name)
	}
	return p
}

// stop kills the process: what it has acknowledged must be there when it comes back.
func (p *process) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// startBoth starts both at once.
func (at place) startBoth(t *testing.T) (goes, node *process) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { goes = at.start(t, "Go") })
	wg.Go(func() { node = at.start(t, "Express") })
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return goes, node
}

// A browser has one cookie jar for both sites: cookies ignore ports.
type browser struct {
	t *testing.T
	http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, http.Client{Jar: jar, Timeout: timeout}}
}

func (b *browser) read(resp *http.Response, err error) (int, string) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (b *browser) get(p *process, path string) string {
	b.t.Helper()
	status, body := b.read(b.Get(p.url + path))
	if status != http.StatusOK {
		b.t.Fatalf("%s: GET %s = %d %s", p.name, path, status, body)
	}
	return body
}

var viewsRE = regexp.MustCompile(`id="count">(\d+)</p>`)

// visit counts, and returns the number on the page that comes then.
func (b *browser) visit(p *process) int {
	b.t.Helper()
	status, body := b.read(b.PostForm(p.url+"/count", nil))
	m := viewsRE.FindStringSubmatch(body)
	if status != http.StatusOK || m == nil || !strings.Contains(body, "<h1>"+p.name+"</h1>") {
		b.t.Fatalf("%s: POST /count = %d %s", p.name, status, body)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// views returns the number of views from the JSON, without counting one.
func (b *browser) views(p *process) state {
	b.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(b.get(p, "/views")), &s); err != nil {
		b.t.Fatal(err)
	}
	if s.Server != p.name {
		b.t.Errorf("%s: GET /views says it is %s", p.name, s.Server)
	}
	return s
}

func (b *browser) login(p *process, password string) (int, string) {
	b.t.Helper()
	return b.read(b.PostForm(p.url+"/login", url.Values{"username": {"user1"}, "password": {password}}))
}

func (b *browser) logout(p *process) {
	b.t.Helper()
	if status, body := b.read(b.PostForm(p.url+"/logout", nil)); status != http.StatusOK || strings.Contains(body, "Hello") {
		b.t.Errorf("%s: POST /logout = %d %s", p.name, status, body)
	}
}

func (b *browser) cookie(p *process) string {
	b.t.Helper()
	u, err := url.Parse(p.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == cookieName {
			return c.Value
		}
	}
	return ""
}

// as returns a browser that has only the given session cookie.
func as(t *testing.T, p *process, cookie string) *browser {
	t.Helper()
	b := newBrowser(t)
	u, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	b.Jar.SetCookies(u, []*http.Cookie{{Name: cookieName, Value: cookie, Path: "/"}})
	return b
}

func TestSites(t *testing.T) {
	interop.NPM(t, ".")
	t.Run("files", func(t *testing.T) { testSites(t, place{}) })
	t.Run("files, encrypted", func(t *testing.T) { testSites(t, place{encrypt: true}) })
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { testSites(t, place{url: s.url(t)}) })
	}
	for _, s := range servers {
		t.Run(s.name+", encrypted", func(t *testing.T) {
			url := s.url(t)
			if s.name == "mongodb" {
				testSites(t, place{url: url, encrypt: true})
			} else {
				testNotEncrypted(t, url)
			}
		})
	}
}

// testNotEncrypted tests that both sites refuse to encrypt, because the npm store cannot.
func testNotEncrypted(t *testing.T, url string) {
	dir := filepath.Join(t.TempDir(), "sessions")
	args := []string{"--addr", "127.0.0.1:0", "--dir", dir, "--store", url, "--encrypt"}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for name, cmd := range map[string]*exec.Cmd{
		"Go":      exec.CommandContext(ctx, os.Args[0], append(args, "--express", "")...),
		"Both":    exec.CommandContext(ctx, os.Args[0], append(args, "--express", "127.0.0.1:0")...),
		"Express": exec.CommandContext(ctx, "node", append([]string{"app.js"}, args...)...),
	} {
		cmd.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=")
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("encrypt: of the npm stores only session-file-store and connect-mongo can encrypt")) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// servers returns a new place on each kind of server that the tests can start.
var servers []struct {
	name string
	url  func(testing.TB) string
}

// testSites tests both sites on a place that neither has seen before.
func testSites(t *testing.T, at place) {
	t.Parallel()
	parent := t.TempDir()
	at.dir = filepath.Join(parent, "sessions")
	goes, node := at.startBoth(t)
	// pairs runs f with each site as the first, and with the other.
	pairs := func(t *testing.T, f func(t *testing.T, a, b *process)) {
		t.Run("Go then Node", func(t *testing.T) { f(t, goes, node) })
		t.Run("Node then Go", func(t *testing.T) { f(t, node, goes) })
	}

	t.Run("one secret, made once", func(t *testing.T) {
		names, err := filepath.Glob(filepath.Join(parent, "*"))
		want := []string{at.dir, at.dir + ".secret"}
		if at.url != "" {
			want = want[1:]
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("the files are %q, %v, want %q", names, err, want)
		}
		fi, err := os.Stat(at.dir + ".secret")
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 && filepath.Separator == '/' {
			t.Errorf("the secret's mode is %v", fi.Mode())
		}
	})

	t.Run("visitors who leave nothing get no session", func(t *testing.T) {
		for _, p := range []*process{goes, node} {
			b := newBrowser(t)
			b.get(p, "/column")
			b.get(p, "/style.css")
			if got, want := b.views(p), (state{Server: p.name}); got != want {
				t.Errorf("views = %+v, want %+v", got, want)
			}
			if c := b.cookie(p); c != "" {
				t.Errorf("%s sets the cookie %q", p.name, c)
			}
		}
	})

	t.Run("a count without a gap", func(t *testing.T) {
		pairs(t, func(t *testing.T, first, second *process) {
			b := newBrowser(t)
			rounds := 50
			if at.encrypt {
				rounds = 10 // each takes Node some tenths of a second
			}
			for i := range rounds {
				p, other := first, second
				if i%2 == 1 {
					p, other = second, first
				}
				if got := b.visit(p); got != i+1 {
					t.Fatalf("request %d, to %s: %d views", i+1, p.name, got)
				}
				if got := b.views(other).Views; got != i+1 {
					t.Fatalf("after request %d %s has %d views", i+1, other.name, got)
				}
			}
		})
	})

	t.Run("the pages are the same", func(t *testing.T) {
		b := newBrowser(t)
		mask := func(p *process) string {
			return viewsRE.ReplaceAllString(strings.ReplaceAll(b.get(p, "/column"), p.name, "…"), "")
		}
		if a, b := mask(goes), mask(node); a != b {
			t.Errorf("logged out:\n%s\n%s", a, b)
		}
		b.login(goes, "mypassword")
		if a, b := mask(goes), mask(node); a != b || !strings.Contains(a, "Hello, <b id=\"who\">user1</b>.") {
			t.Errorf("logged in:\n%s\n%s", a, b)
		}
	})

	t.Run("login here is login there, and logout too", func(t *testing.T) {
		pairs(t, func(t *testing.T, first, second *process) {
			b := newBrowser(t)
			b.visit(first)
			b.visit(second)
			before := b.cookie(first)
			if status, body := b.login(first, "mypassword"); status != http.StatusOK || !strings.Contains(body, "Hello, <b id=\"who\">user1</b>.") {
				t.Fatalf("login at %s = %d %s", first.name, status, body)
			}
			after := b.cookie(first)
			if after == before {
				t.Error("the session has the same id as before the login")
			}
			for _, p := range []*process{second, first} {
				if got := b.views(p); got.User != "user1" || got.Views < 2 {
					t.Errorf("%s: after the login %+v, want user1, and the views of before", p.name, got)
				}
				if got := as(t, p, before).views(p); got.User != "" || got.Views != 0 {
					t.Errorf("%s: the cookie from before the login opens %+v", p.name, got)
				}
			}
			b.logout(second)
			for _, p := range []*process{first, second} {
				if got := b.views(p).User; got != "" {
					t.Errorf("%s: after logout at %s the user is %q", p.name, second.name, got)
				}
				if got := as(t, p, after).views(p); got.User != "" || got.Views != 0 {
					t.Errorf("%s: after logout the old cookie opens %+v", p.name, got)
				}
			}
			if c := b.cookie(first); c == after {
				t.Error("logout has left the cookie")
			}
		})
	})

	t.Run("a wrong password", func(t *testing.T) {
		for _, p := range []*process{goes, node} {
			b := newBrowser(t)
			if status, body := b.login(p, "password"); status != http.StatusUnauthorized || !strings.Contains(body, "Wrong username or password.") || b.cookie(p) != "" {
				t.Errorf("%s: %d, cookie %q\n%s", p.name, status, b.cookie(p), body)
			}
			if got := b.views(p).User; got != "" {
				t.Errorf("%s: the user is %q", p.name, got)
			}
		}
	})

	t.Run("no login from another site's page", func(t *testing.T) {
		for _, p := range []*process{goes, node} {
			for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://example.com"} {
				form := url.Values{"username": {"user1"}, "password": {"mypassword"}}
				r, err := http.NewRequest("POST", p.url+"/login", strings.NewReader(form.Encode()))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.Header.Set(name, value)
				b := newBrowser(t)
				if status, _ := b.read(b.Do(r)); status != http.StatusForbidden || b.cookie(p) != "" {
					t.Errorf("%s: with %s: %s: %d, want 403", p.name, name, value, status)
				}
			}
		}
	})

	testMembers(t, at, goes, node)

	t.Run("still logged in after both were killed", func(t *testing.T) {
		there, here := newBrowser(t), newBrowser(t)
		there.login(goes, "mypassword")
		here.login(node, "mypassword")
		want := []int{there.visit(goes), here.visit(node)}
		goes.stop()
		node.stop()
		goes, node = at.startBoth(t)
		for i, b := range []*browser{there, here} {
			for _, p := range []*process{goes, node} {
				if got := b.views(p); got.User != "user1" || got.Views != want[i] {
					t.Errorf("%s: %+v, want user1 and %d views", p.name, got, want[i])
				}
			}
			want[i]++
			if got := b.visit([]*process{node, goes}[i]); got != want[i] {
				t.Errorf("the next visit is number %d, want %d", got, want[i])
			}
		}
	})

	t.Run("nothing but sessions is left", func(t *testing.T) {
		if at.url != "" {
			return
		}
		entries, err := os.ReadDir(at.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := e.Name(); name != ".locks" && filepath.Ext(name) != ".json" {
				t.Errorf("%s is left", name)
			} else if name != ".locks" {
				text, err := os.ReadFile(filepath.Join(at.dir, name))
				if plain := bytes.Contains(text, []byte(`"cookie"`)); err != nil || plain == at.encrypt {
					t.Errorf("encrypted: %v, and %s, %v, is\n%s", at.encrypt, name, err, text)
				}
			}
		}
	})
}

// A member that is not a number is an error, and stays as it is.
func TestCountSparesWhatItCannotRead(t *testing.T) {
	store := sessiontest.NewStore()
	h := (&site{store: store, feed: live.New(store, live.Options{Quit: t.Context()})}).handler("a secret of the tests")
	count := func(cookies ...*http.Cookie) *http.Response {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/count", nil)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		h.ServeHTTP(w, r)
		return w.Result()
	}
	cookie := count().Cookies()[0]
	value, err := url.QueryUnescape(cookie.Value)
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(value, "s:"), ".")
	err = store.Update(t.Context(), id, func(s *filestore.Session) error { return s.Put(viewsMember, "many") })
	if err != nil {
		t.Fatal(err)
	}
	resp := count(cookie)
	sess, err := store.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := filestore.Value[string](sess, viewsMember); resp.StatusCode != http.StatusInternalServerError || got != "many" {
		t.Errorf("POST /count = %s, and the member is %q, %v", resp.Status, got, err)
	}
}
