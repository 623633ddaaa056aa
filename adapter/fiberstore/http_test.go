package fiberstore_test

// Fiber itself on the Storage, v3 and v2, over TCP: sessions, the other middlewares.

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/fiberstore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// The sites are Fiber's versions, each with its default idle timeout.
var (
	v3 = newSite("v3", 30*time.Minute, func(s fiber.Storage, answer adaptertest.Answer) (string, func() error) {
		app := fiber.New()
		app.Use(session.New(session.Config{Storage: s, Next: func(c fiber.Ctx) bool { return c.Path() == "/none" }}))
		app.Get("/none", func(fiber.Ctx) error { return nil })
		app.Get("/*", func(c fiber.Ctx) error {
			m := session.FromContext(c)
			query := func(name string) string { return strings.Clone(c.Query(name)) } // the next request is read into its buffer
			code, body := answer(strings.Clone(c.Path()), query, adaptertest.Session{
				ID: m.ID, Get: m.Get, Set: m.Set, Delete: m.Delete, Renew: m.Regenerate, End: m.Destroy,
			})
			return c.Status(code).SendString(body)
		})
		return serve3(app)
	})
	v2 = newSite("v2", 24*time.Hour, func(s fiber.Storage, answer adaptertest.Answer) (string, func() error) {
		app := fiber2.New(fiber2.Config{DisableStartupMessage: true})
		store := session2.New(session2.Config{Storage: s})
		app.Get("/none", func(*fiber2.Ctx) error { return nil })
		app.Get("/*", func(c *fiber2.Ctx) error {
			m, err := store.Get(c)
			if err != nil {
				return err
			}
			query := func(name string) string { return strings.Clone(c.Query(name)) }
			code, body := answer(strings.Clone(c.Path()), query, adaptertest.Session{
				ID:     m.ID,
				Get:    func(key any) any { return m.Get(key.(string)) },
				Set:    func(key, value any) { m.Set(key.(string), value) },
				Delete: func(key any) { m.Delete(key.(string)) },
				Renew:  m.Regenerate,
				End:    m.Destroy,
			})
			if c.Path() != "/logout" { // in each request, as v3's middleware
				if err := m.Save(); err != nil {
					return err
				}
			}
			return c.Status(code).SendString(body)
		})
		return serve2(app)
	})
)

func newSite(name string, idle time.Duration, serve func(fiber.Storage, adaptertest.Answer) (string, func() error)) *adaptertest.Site {
	return &adaptertest.Site{
		Name: name,
		Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
			url, shutdown := serve(fiberstore.New(s), answer)
			return url, func() { shutdown() }
		},
		Cookie:  "session_id",
		Life:    idle,
		Values:  map[any]any{"int": 1, "int64": int64(1), "float": 1.0, "bool": true, "string": "\xff\x00é", "bytes": []byte{0, 1}, "any": []any{1, "x"}},
		Visitor: adaptertest.Stored,
		NoMerge: true,
		Returns: true,
	}
}

func serve3(app *fiber.App) (url string, shutdown func() error) {
	return serve(func(ln net.Listener) { app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }, app.Shutdown)
}

func serve2(app *fiber2.App) (url string, shutdown func() error) {
	return serve(func(ln net.Listener) { app.Listener(ln) }, app.Shutdown)
}

func serve(listen func(net.Listener), shutdown func() error) (string, func() error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { listen(ln) })
	url := "http://" + ln.Addr().String()
	// A shutdown before Fiber serves would do nothing.
	res, err := client.Get(url + "/none")
	if err != nil {
		panic(err)
	}
	res.Body.Close()
	return url, func() error { err := shutdown(); ln.Close(); wg.Wait(); return err }
}

// start serves an app until stop, or the end of the test.
func start(t *testing.T, app any) (url string, stop func()) {
	t.Helper()
	var shutdown func() error
	switch app := app.(type) {
	case *fiber.App:
		url, shutdown = serve3(app)
	case *fiber2.App:
		url, shutdown = serve2(app)
	}
	stop = sync.OnceFunc(func() {
		if err := shutdown(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return url, stop
}

func TestMain(m *testing.M) {
	fiberlog.SetOutput(io.Discard)
	fiber2log.SetOutput(io.Discard)
	adaptertest.Main(m, v3, v2)
}

func TestV3(t *testing.T) { adaptertest.Run(t, v3) }

func TestV2(t *testing.T) { adaptertest.Run(t, v2) }

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

// v3's absolute timeout ends a session that is in use.
func TestAbsoluteTimeout(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, storetest.Quick())
	app := fiber.New()
	app.Use(session.New(session.Config{Storage: s, IdleTimeout: time.Second, AbsoluteTimeout: time.Second, CookieSessionOnly: true}))
	app.Get("/", func(c fiber.Ctx) error { return nil })
	url, _ := start(t, app)
	b := browser{}
	exists := func(b browser) bool {
		_, err := os.Lstat(filepath.Join(dir, b.id()+".json"))
		return err == nil
	}
	begin := time.Now()
	b.get(t, url)
	first := browser{"session_id": b.id()}
	for b.id() == first.id() && time.Since(begin) < 30*time.Second {
		time.Sleep(10 * time.Millisecond)
		b.get(t, url)
	}
	if d := time.Since(begin); d < time.Second*98/100 || d > 20*time.Second || exists(first) {
		t.Errorf("the session lived for %v, and its file is there: %v", d, exists(first))
	}
}

// A value that is not a session's, here a CSRF token, is a 500, and does not end the server. If this fails, the package
// comment is out of date.
func TestSharedKey(t *testing.T) {
	s, _ := open(t, t.TempDir(), storetest.Quick())
	app := fiber.New()
	app.Use(session.New(session.Config{Storage: s}), csrf.New(csrf.Config{Storage: s}))
	app.Get("/me", func(c fiber.Ctx) error { return nil })
	url, _ := start(t, app)
	b := browser{}
	b.get(t, url+"/me")
	for range 2 {
		if status, _, _ := (browser{"session_id": b["csrf_"]}).do(t, "GET", url+"/me"); status != 500 {
			t.Errorf("the answer is %d", status)
		}
		b.get(t, url+"/me")
	}
}

// The other middlewares go on after a restart where they were, and put up with a damaged file.
func TestMiddlewares(t *testing.T) {
	type starter func(t *testing.T, s fiber.Storage, run func() string) (url string, stop func())
	for name, begin := range map[string]starter{
		"v3": func(t *testing.T, s fiber.Storage, run func() string) (string, func()) {
			app := fiber.New()
			answer := func(c fiber.Ctx) error { return c.SendString(run()) }
			app.Get("/cache", cache.New(cache.Config{Storage: s, Expiration: time.Hour}), answer)
			app.Get("/limiter", limiter.New(limiter.Config{Storage: s, Max: 3, Expiration: time.Hour}), answer)
			app.All("/csrf", csrf.New(csrf.Config{Storage: s}), answer)
			app.Post("/idempotency", idempotency.New(idempotency.Config{Storage: s}), answer)
			return start(t, app)
		},
		"v2": func(t *testing.T, s fiber.Storage, run func() string) (string, func()) {
			app := fiber2.New(fiber2.Config{DisableStartupMessage: true})
			answer := func(c *fiber2.Ctx) error { return c.SendString(run()) }
			app.Get("/cache", cache2.New(cache2.Config{Storage: s, Expiration: time.Hour}), answer)
			app.Get("/limiter", limiter2.New(limiter2.Config{Storage: s, Max: 3, Expiration: time.Hour}), answer)
			app.All("/csrf", csrf2.New(csrf2.Config{Storage: s}), answer)
			app.Post("/idempotency", idempotency2.New(idempotency2.Config{Storage: s}), answer)
			return start(t, app)
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
			s, store := open(t, dir, storetest.Quick())
			url, stop := begin(t, s, run)
			restart := func() {
				t.Helper()
				stop()
				must(t, store.Close())
				s, store = open(t, dir, storetest.Quick())
				url, stop = begin(t, s, run)
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
			for _, name := range storetest.Files(t, dir) {
				storetest.Write(t, name, []byte("{"))
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
			if n := len(storetest.Files(t, dir)); n != 1 {
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
