package fiberstore_test

// Fiber itself on the Storage, v3 and v2, over TCP: sessions, the other middlewares, processes.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	fiber2 "github.com/gofiber/fiber/v2"
	fiber2log "github.com/gofiber/fiber/v2/log"
	cache2 "github.com/gofiber/fiber/v2/middleware/cache"
	csrf2 "github.com/gofiber/fiber/v2/middleware/csrf"
	idempotency2 "github.com/gofiber/fiber/v2/middleware/idempotency"
	limiter2 "github.com/gofiber/fiber/v2/middleware/limiter"
	session2 "github.com/gofiber/fiber/v2/middleware/session"
	"github.com/gofiber/fiber/v3"
	fiberlog "github.com/gofiber/fiber/v3/log"
	"github.com/gofiber/fiber/v3/middleware/cache"
	"github.com/gofiber/fiber/v3/middleware/csrf"
	"github.com/gofiber/fiber/v3/middleware/idempotency"
	"github.com/gofiber/fiber/v3/middleware/limiter"
	"github.com/gofiber/fiber/v3/middleware/session"
	"github.com/gofiber/storage/memory/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/fiberstore"
)

const workerVar = "FIBERSTORE_WORKER"

func TestMain(m *testing.M) {
	fiberlog.SetOutput(io.Discard)
	fiber2log.SetOutput(io.Discard)
	if name := os.Getenv(workerVar); name != "" {
		workers[name](os.Args[1])
		return
	}
	os.Exit(m.Run())
}

// workers run in processes of their own, on a directory.
var workers = map[string]func(dir string){}

func worker(t *testing.T, name, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), workerVar+"="+name)
	cmd.Stderr = new(bytes.Buffer)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// A site is an application of Fiber; its paths are handlers.
type site struct {
	url              string
	entered, release chan struct{} // of the slow handler
}

// sess is what v3 and v2 have in common.
type sess interface {
	Regenerate() error
	Destroy() error
}

type handler func(s sess, get func(string) any, set func(string, any), arg string) (string, error)

func (h *site) handlers() map[string]handler {
	return map[string]handler{
		"/me": func(_ sess, get func(string) any, _ func(string, any), _ string) (string, error) {
			return fmt.Sprint(get("user")), nil
		},
		"/login": func(s sess, _ func(string) any, set func(string, any), arg string) (string, error) {
			set("user", arg)
			return "", s.Regenerate()
		},
		"/logout": func(s sess, _ func(string) any, _ func(string, any), _ string) (string, error) {
			return "", s.Destroy()
		},
		"/count": func(_ sess, get func(string) any, set func(string, any), _ string) (string, error) {
			n, _ := get("n").(int)
			set("n", n+1)
			return fmt.Sprint(n + 1), nil
		},
		"/slow": func(_ sess, get func(string) any, set func(string, any), _ string) (string, error) {
			h.entered <- struct{}{}
			<-h.release
			set("slow", true)
			return fmt.Sprint(get("user")), nil
		},
	}
}

// middle is the session of v3's middleware.
type middle struct{ *session.Middleware }

// framework is one version of Fiber.
type framework struct {
	name   string
	listen func(h *site, s fiber.Storage, ln net.Listener) (shutdown func() error)
}

var frameworks = []framework{
	{"v3", func(h *site, s fiber.Storage, ln net.Listener) func() error {
		app := fiber.New()
		app.Use(session.New(session.Config{Storage: s, Next: func(c fiber.Ctx) bool { return c.Path() == "/none" }}))
		for path, handle := range h.handlers() {
			app.Get(path, func(c fiber.Ctx) error {
				m := session.FromContext(c)
				body, err := handle(middle{m}, func(k string) any { return m.Get(k) }, func(k string, v any) { m.Set(k, v) }, strings.Clone(c.Query("arg")))
				if err != nil {
					return err
				}
				return c.SendString(body)
			})
		}
		return serve3(app, ln)
	}},
	{"v2", func(h *site, s fiber.Storage, ln net.Listener) func() error {
		app := fiber2.New(fiber2.Config{DisableStartupMessage: true})
		store := session2.New(session2.Config{Storage: s})
		for path, handle := range h.handlers() {
			app.Get(path, func(c *fiber2.Ctx) error {
				m, err := store.Get(c)
				if err != nil {
					return err
				}
				body, err := handle(m, m.Get, m.Set, strings.Clone(c.Query("arg")))
				if err == nil && path != "/logout" {
					err = m.Save()
				}
				if err != nil {
					return err
				}
				return c.SendString(body)
			})
		}
		return serve2(app, ln)
	}},
}

func serve3(app *fiber.App, ln net.Listener) func() error {
	var wg sync.WaitGroup
	wg.Go(func() { app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) })
	return func() error { err := app.Shutdown(); ln.Close(); wg.Wait(); return err }
}

func serve2(app *fiber2.App, ln net.Listener) func() error {
	var wg sync.WaitGroup
	wg.Go(func() { app.Listener(ln) })
	return func() error { err := app.Shutdown(); ln.Close(); wg.Wait(); return err }
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return ln
}

// start serves f's site on s until stop, or the end of the test.
func (f framework) start(t testing.TB, s fiber.Storage) (h *site, stop func()) {
	t.Helper()
	ln := listen(t)
	h = &site{"http://" + ln.Addr().String(), make(chan struct{}), make(chan struct{})}
	stop = sync.OnceFunc(shutdown(t, f.listen(h, s, ln), h.url))
	t.Cleanup(stop)
	return h, stop
}

func shutdown(t testing.TB, fn func() error, url string) func() {
	// A shutdown before Fiber serves would do nothing.
	res, err := client.Get(url + "/none")
	must(t, err)
	res.Body.Close()
	return func() {
		if err := fn(); err != nil {
			t.Error(err)
		}
	}
}

func each(t *testing.T, fn func(t *testing.T, f framework)) {
	for _, f := range frameworks {
		t.Run(f.name, func(t *testing.T) { fn(t, f) })
	}
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

// A browser keeps cookies, whatever they say of their end.
type browser map[string]string

func (b browser) do(t testing.TB, method, url string, header ...string) (status int, body string, res *http.Response) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	must(t, err)
	for name, value := range b {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err = client.Do(r)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	for _, c := range res.Cookies() {
		b[c.Name] = c.Value
		if c.MaxAge < 0 || c.Value == "" {
			delete(b, c.Name)
		}
	}
	return res.StatusCode, string(text), res
}

func (b browser) get(t testing.TB, url string) string {
	t.Helper()
	status, body, _ := b.do(t, "GET", url)
	if status != 200 {
		t.Errorf("GET %s = %d %s", url, status, body)
	}
	return body
}

func (b browser) id() string { return b["session_id"] }

func fileOf(dir string, b browser) string { return filepath.Join(dir, b.id()+".json") }

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// A login gives a new id, a restart changes nothing, a logout ends the session and its file.
func TestSessions(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		dir := t.TempDir()
		s, store := open(t, dir, quick())
		h, stop := f.start(t, s)
		b := browser{}
		if got := b.get(t, h.url+"/me"); got != "<nil>" {
			t.Errorf("a stranger is %q", got)
		}
		stranger := browser{"session_id": b.id()}
		b.get(t, h.url+"/count")
		b.get(t, h.url+"/login?arg=ann")
		if b.id() == stranger.id() || b.get(t, h.url+"/me") != "ann" || exists(fileOf(dir, stranger)) {
			t.Errorf("after the login: same id %v, user %q", b.id() == stranger.id(), b.get(t, h.url+"/me"))
		}
		if got := stranger.get(t, h.url+"/me"); got != "<nil>" {
			t.Errorf("the id of before the login is %q's", got)
		}

		stop()
		must(t, s.Close())
		must(t, store.Close())
		s, _ = open(t, dir, quick())
		h, _ = f.start(t, s)
		if got, n := b.get(t, h.url+"/me"), b.get(t, h.url+"/count"); got != "ann" || n != "2" {
			t.Errorf("after a restart %q, visit %s", got, n)
		}

		old := browser{"session_id": b.id()}
		b.get(t, h.url+"/logout")
		if b.id() != "" || exists(fileOf(dir, old)) {
			t.Errorf("after the logout the cookie is %q, the file is there: %v", b.id(), exists(fileOf(dir, old)))
		}
		if got := old.get(t, h.url+"/me"); got != "<nil>" {
			t.Errorf("after the logout the id is %q's", got)
		}
	})
}

// A session ends an idle time after the last request, not earlier.
func TestExpiry(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		dir := t.TempDir()
		s, _ := open(t, dir, quick())
		h, _ := f.start(t, s)
		b := browser{}
		b.get(t, h.url+"/login?arg=ann")
		idle := map[string]time.Duration{"v3": 30 * time.Minute, "v2": 24 * time.Hour}[f.name]
		for range 3 { // each request begins it anew
			rewind(t, fileOf(dir, b), idle-time.Minute)
			if got := b.get(t, h.url+"/me"); got != "ann" {
				t.Fatalf("a minute before its end the session is %q's", got)
			}
		}
		old := b.id()
		rewind(t, fileOf(dir, b), idle+time.Second)
		if got := b.get(t, h.url+"/me"); got != "<nil>" || b.id() == old {
			t.Errorf("after its end the session is %q's, the id is the same: %v", got, b.id() == old)
		}
	})
}

// v3's absolute timeout ends a session that is in use.
func TestAbsoluteTimeout(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, quick())
	app := fiber.New()
	app.Use(session.New(session.Config{Storage: s, IdleTimeout: time.Second, AbsoluteTimeout: time.Second, CookieSessionOnly: true}))
	app.Get("/", func(c fiber.Ctx) error { return nil })
	ln := listen(t)
	url := "http://" + ln.Addr().String()
	t.Cleanup(shutdown(t, serve3(app, ln), url))
	b := browser{}
	begin := time.Now()
	b.get(t, url)
	first := browser{"session_id": b.id()}
	for b.id() == first.id() && time.Since(begin) < 10*time.Second {
		time.Sleep(10 * time.Millisecond)
		b.get(t, url)
	}
	if d := time.Since(begin); d < time.Second*98/100 || d > 5*time.Second || exists(fileOf(dir, first)) {
		t.Errorf("the session lived for %v, and its file is there: %v", d, exists(fileOf(dir, first)))
	}
}

// Parallel requests on one session all succeed, and none loses it. Of their counts Fiber loses some, on
// any storage: each saves the whole session.
func TestParallel(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		dir := t.TempDir()
		s, _ := open(t, dir, quick())
		h, _ := f.start(t, s)
		b := browser{}
		b.get(t, h.url+"/login?arg=ann")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				own := browser{"session_id": b.id()}
				for range 10 {
					own.get(t, h.url+"/count")
					if got := own.get(t, h.url+"/me"); got != "ann" || own.id() != b.id() {
						t.Errorf("the session is %q's", got)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("80 visits at once were counted as %s", b.get(t, h.url+"/count"))
		if n := len(files(t, dir)); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// What the package comment says of the logout race: a slow request brings the session back, as with
// Fiber's own storage. There is nothing here that a Storage could tell a save from.
func TestLogoutRace(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		mem := memory.New()
		defer mem.Close()
		dir := t.TempDir()
		s, _ := open(t, dir, quick())
		for name, storage := range map[string]fiber.Storage{"fiberstore": s, "memory": mem} {
			h, _ := f.start(t, storage)
			b := browser{}
			b.get(t, h.url+"/login?arg=ann")
			slow, look := browser{"session_id": b.id()}, browser{"session_id": b.id()}
			id := b.id()
			var wg sync.WaitGroup
			wg.Go(func() { slow.get(t, h.url+"/slow") })
			<-h.entered
			b.get(t, h.url+"/logout")
			if val := get(t, storage, id); val != "" {
				t.Errorf("%s: after the logout there is %q", name, val)
			}
			h.release <- struct{}{}
			wg.Wait()
			t.Logf("%s: after the logout, and a slow request that had begun before, the old cookie is %q's", name, look.get(t, h.url+"/me"))
		}
	})
}

// Requests that only read a session of one member write nothing.
func TestReadersWriteNothing(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		dir := t.TempDir()
		s, _ := open(t, dir, quick())
		h, _ := f.start(t, s)
		b := browser{}
		b.get(t, h.url+"/login?arg=ann")
		before := read(t, fileOf(dir, b)) // with the time of its last access
		for range 10 {
			b.get(t, h.url+"/me")
		}
		if after := read(t, fileOf(dir, b)); after != before {
			t.Errorf("it was\n%s\nand is\n%s", before, after)
		}
		b.get(t, h.url+"/count")
		writes, last := 0, read(t, fileOf(dir, b))
		for range 100 {
			b.get(t, h.url+"/me")
			if now := read(t, fileOf(dir, b)); now != last {
				writes, last = writes+1, now
			}
		}
		t.Logf("of a session with two members %d of 100 reading requests wrote", writes)
	})
}

// raw sends a cookie that net/http would not.
func raw(t *testing.T, url, id string) (status, newID string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	fmt.Fprintf(conn, "GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: session_id=%s\r\n\r\n", id)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil { // refused by fasthttp without a word
		return "", ""
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		newID = c.Value
	}
	return res.Status, newID
}

// An id that the client has made up is never adopted, whatever it is, and names no file.
func TestIDs(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		s, _ := open(t, dir, quick())
		h, _ := f.start(t, s)
		must(t, os.WriteFile(filepath.Join(parent, "up.json"), live(`"data":"eA=="`), 0o600))
		ids := map[string]bool{}
		for _, id := range []string{
			"", "../up", "..%2Fup", "../up.json", "/etc/passwd", "a\x00b", "chosen", strings.Repeat("x", 200), strings.Repeat("y", 3000), strings.Repeat("z", 10_000),
			"sha256-" + strings.Repeat("0", 64), ".locks/00", "\xff", "a b", `"q"`,
		} {
			status, newID := raw(t, h.url, id)
			if newID == id && id != "" {
				t.Errorf("the id %.40q was adopted", id)
			}
			if newID != "" {
				ids[newID] = true
			} else if len(id) < 4000 && !strings.ContainsRune(id, 0) {
				t.Errorf("the id %.40q: %q, no session", id, status)
			}
		}
		if n := len(files(t, dir)); n != len(ids) {
			t.Errorf("%d files for %d sessions", n, len(ids))
		}
		if all, _ := os.ReadDir(parent); len(all) != 2 {
			t.Errorf("outside the directory there are %v", all)
		}
	})
}

// A damaged file costs its visitor the session and nobody anything else: a new id, and the file stays.
func TestDamagedSession(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		plain, sealed := t.TempDir(), t.TempDir()
		s, _ := open(t, plain, quick())
		plainSite, _ := f.start(t, s)
		opts := quick()
		opts.Codec = sealer{}
		s, _ = open(t, sealed, opts)
		sealedSite, _ := f.start(t, s)
		for name, damage := range damage {
			t.Run(name, func(t *testing.T) {
				dir, h := plain, plainSite
				if sealedDamage[name] {
					dir, h = sealed, sealedSite
				}
				b := browser{}
				b.get(t, h.url+"/login?arg=ann")
				old := browser{"session_id": b.id()}
				damage(t, fileOf(dir, old))
				before, err := os.Lstat(fileOf(dir, old))
				must(t, err)
				for range 3 {
					again := browser{"session_id": old.id()}
					if got := again.get(t, h.url+"/count"); got != "1" || again.id() == old.id() {
						t.Errorf("visit %s, the id is the same: %v", got, again.id() == old.id())
					}
					if got := again.get(t, h.url+"/count"); got != "2" {
						t.Errorf("with the new id visit %s", got)
					}
				}
				after, err := os.Lstat(fileOf(dir, old))
				if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
					t.Errorf("the file has not stayed: %v", err)
				}
			})
		}
		t.Run("express", func(t *testing.T) {
			dir, h := plain, plainSite
			doc := live(`"user":"ann"`)
			must(t, os.WriteFile(filepath.Join(dir, "express.json"), doc, 0o600))
			b := browser{"session_id": "express"}
			if got := b.get(t, h.url+"/me"); got != "<nil>" || b.id() == "express" || read(t, filepath.Join(dir, "express.json")) != string(doc) {
				t.Errorf("a session of Express is %q's here", got)
			}
		})
	})
}

// A value that is no session's, here a CSRF token, is a 500, and ends no server. If this fails, the package
// comment is out of date.
func TestSharedKey(t *testing.T) {
	s, _ := open(t, t.TempDir(), quick())
	app := fiber.New()
	app.Use(session.New(session.Config{Storage: s}), csrf.New(csrf.Config{Storage: s}))
	app.Get("/me", func(c fiber.Ctx) error { return nil })
	ln := listen(t)
	url := "http://" + ln.Addr().String()
	t.Cleanup(shutdown(t, serve3(app, ln), url))
	b := browser{}
	b.get(t, url+"/me")
	for range 2 {
		if status, _, _ := (browser{"session_id": b["csrf_"]}).do(t, "GET", url+"/me"); status != 500 {
			t.Errorf("the answer is %d", status)
		}
		b.get(t, url+"/me")
	}
}

// An error of the store is a 500, and ends no server, also without the recover middleware.
func TestErrors(t *testing.T) {
	s, store := open(t, t.TempDir(), quick())
	app := fiber.New()
	app.Use(session.New(session.Config{Storage: s}))
	app.Get("/me", func(c fiber.Ctx) error { return nil })
	ln := listen(t)
	v3 := "http://" + ln.Addr().String()
	t.Cleanup(shutdown(t, serve3(app, ln), v3))
	v2, _ := frameworks[1].start(t, s)
	must(t, store.Close())
	for _, url := range []string{v3, v2.url} {
		for _, b := range []browser{{}, {"session_id": "any"}} { // Set fails, Get fails
			if status, body, _ := b.do(t, "GET", url+"/me"); status != 500 || strings.Contains(body, "any") {
				t.Errorf("%d %s", status, body)
			}
		}
	}
}

// The other middlewares go on after a restart where they were, and put up with a damaged file.
func TestMiddlewares(t *testing.T) {
	type start func(t *testing.T, s fiber.Storage, run func() string) (url string, stop func())
	for name, start := range map[string]start{
		"v3": func(t *testing.T, s fiber.Storage, run func() string) (string, func()) {
			app := fiber.New()
			answer := func(c fiber.Ctx) error { return c.SendString(run()) }
			app.Get("/cache", cache.New(cache.Config{Storage: s, Expiration: time.Hour}), answer)
			app.Get("/limiter", limiter.New(limiter.Config{Storage: s, Max: 3, Expiration: time.Hour}), answer)
			app.All("/csrf", csrf.New(csrf.Config{Storage: s}), answer)
			app.Post("/idempotency", idempotency.New(idempotency.Config{Storage: s}), answer)
			ln := listen(t)
			url := "http://" + ln.Addr().String()
			stop := sync.OnceFunc(shutdown(t, serve3(app, ln), url))
			t.Cleanup(stop)
			return url, stop
		},
		"v2": func(t *testing.T, s fiber.Storage, run func() string) (string, func()) {
			app := fiber2.New(fiber2.Config{DisableStartupMessage: true})
			answer := func(c *fiber2.Ctx) error { return c.SendString(run()) }
			app.Get("/cache", cache2.New(cache2.Config{Storage: s, Expiration: time.Hour}), answer)
			app.Get("/limiter", limiter2.New(limiter2.Config{Storage: s, Max: 3, Expiration: time.Hour}), answer)
			app.All("/csrf", csrf2.New(csrf2.Config{Storage: s}), answer)
			app.Post("/idempotency", idempotency2.New(idempotency2.Config{Storage: s}), answer)
			ln := listen(t)
			url := "http://" + ln.Addr().String()
			stop := sync.OnceFunc(shutdown(t, serve2(app, ln), url))
			t.Cleanup(stop)
			return url, stop
		},
	} {
		t.Run(name, func(t *testing.T) {
			const key = "00000000-0000-0000-0000-000000000000" // as idempotency wants it
			var runs int
			run := func() string { runs++; return fmt.Sprintf("run %d", runs) } // in one request after another
			check := func(what, got, want string) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			dir := t.TempDir()
			s, store := open(t, dir, quick())
			url, stop := start(t, s, run)
			restart := func() {
				t.Helper()
				stop()
				must(t, store.Close())
				s, store = open(t, dir, quick())
				url, stop = start(t, s, run)
			}
			do := func(b browser, method, path string, header ...string) (int, string) {
				t.Helper()
				status, body, _ := b.do(t, method, url+path, header...)
				return status, body
			}
			path := "/cache?q=..%2F&u=../../x"
			_, body := do(browser{}, "GET", path)
			check("the first", body, "run 1")
			_, body = do(browser{}, "GET", path)
			check("cached", body, "run 1")
			restart()
			_, body = do(browser{}, "GET", path)
			check("cached, after a restart", body, "run 1")
			for _, name := range files(t, dir) {
				must(t, os.WriteFile(name, []byte("{"), 0o600))
			}
			_, body = do(browser{}, "GET", path)
			check("after damage", body, "run 2")
			_, body = do(browser{}, "GET", path)
			check("cached again", body, "run 2")
			must(t, s.Reset())

			for range 3 {
				status, _ := do(browser{}, "GET", "/limiter")
				check("limiter", fmt.Sprint(status), "200")
			}
			restart()
			status, _ := do(browser{}, "GET", "/limiter")
			check("limiter, after a restart", fmt.Sprint(status), "429")
			if n := len(files(t, dir)); n != 1 {
				t.Errorf("the limiter has %d files", n)
			}
			must(t, s.Reset())

			b := browser{}
			do(b, "GET", "/csrf")
			token := b["csrf_"]
			restart()
			status, _ = do(b, "POST", "/csrf", "X-Csrf-Token", token)
			check("csrf, after a restart", fmt.Sprint(status), "200")
			check("csrf, the token", b["csrf_"], token)
			status, _ = do(browser{"csrf_": "chosen"}, "POST", "/csrf", "X-Csrf-Token", "chosen")
			check("csrf, a token of the client's choosing", fmt.Sprint(status), "403")
			must(t, s.Reset())

			runs = 0
			_, body = do(browser{}, "POST", "/idempotency", "X-Idempotency-Key", key)
			check("idempotency", body, "run 1")
			restart()
			_, body = do(browser{}, "POST", "/idempotency", "X-Idempotency-Key", key)
			check("idempotency, after a restart", body, "run 1")
		})
	}
}

// Two processes serve one directory: a login and a logout in one are the other's too.
func TestTwoProcesses(t *testing.T) {
	each(t, func(t *testing.T, f framework) {
		dir := t.TempDir()
		s, _ := open(t, dir, quick())
		here, _ := f.start(t, s)
		_, out := worker(t, "serve "+f.name, dir)
		there, err := out.ReadString('\n')
		must(t, err)
		there = strings.TrimSpace(there)
		b := browser{}
		b.get(t, here.url+"/login?arg=ann")
		for i := range 20 {
			url := []string{here.url, there}[i%2]
			if got, n := b.get(t, url+"/me"), b.get(t, url+"/count"); got != "ann" || n != fmt.Sprint(i+1) {
				t.Fatalf("request %d: %q, visit %s", i, got, n)
			}
		}
		old := browser{"session_id": b.id()}
		b.get(t, there+"/logout")
		if got := old.get(t, here.url+"/me"); got != "<nil>" {
			t.Errorf("after the logout there, here it is %q's", got)
		}
	})
}

func init() {
	for _, f := range frameworks {
		workers["serve "+f.name] = func(dir string) {
			store, err := filestore.Open(dir, quick())
			if err != nil {
				log.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("http://" + ln.Addr().String())
			f.listen(new(site), fiberstore.New(store), ln)
			select {} // until it is killed
		}
	}
	workers["write"] = func(dir string) {
		store, err := filestore.Open(dir, quick())
		if err != nil {
			log.Fatal(err)
		}
		s := fiberstore.New(store)
		for i := 0; ; i++ {
			err := errors.Join(s.Set(fmt.Sprintf("%d/%d", os.Getpid(), i), letter(i), time.Hour), s.Set("shared", letter(i), time.Hour))
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(i)
		}
	}
}

// A process that is killed loses nothing that was acknowledged, and tears nothing.
func TestKill(t *testing.T) {
	rounds := 3
	if os.Getenv("FILESTORE_LONG") != "" {
		rounds = 50
	}
	dir := t.TempDir()
	s, store := open(t, dir, quick())
	must(t, s.Set("shared", letter(0), time.Hour))
	for range rounds {
		cmd, out := worker(t, "write", dir)
		for range 50 {
			_, err := out.ReadString('\n')
			must(t, err)
			if val, err := s.Get("shared"); err != nil || !whole(val) {
				t.Fatalf("Get beside a writer = %d bytes, %v", len(val), err)
			}
			must(t, s.Set("shared", letter(1), time.Hour))
		}
		must(t, cmd.Process.Kill())
		rest, err := io.ReadAll(out)
		must(t, err)
		for i := range 50 + bytes.Count(rest, []byte("\n")) {
			if val, err := s.Get(fmt.Sprintf("%d/%d", cmd.Process.Pid, i)); err != nil || !bytes.Equal(val, letter(i)) {
				t.Fatalf("acknowledged value %d = %d bytes, %v", i, len(val), err)
			}
		}
		must(t, s.Set("shared", letter(2), time.Hour)) // nobody is in the way
		if val, err := s.Get("shared"); err != nil || !bytes.Equal(val, letter(2)) {
			t.Fatalf("Get after the kill = %d bytes, %v", len(val), err)
		}
	}
	_, err := store.Reap(ctx) // which removes the temporary files of the dead
	must(t, err)
}
