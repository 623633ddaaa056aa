package ginstore_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/filesystem"
	"github.com/gin-contrib/sessions/tester"
	"github.com/gin-gonic/gin"
	gsessions "github.com/gorilla/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginstore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
)

var key = []byte("an authentication key of 32 bytes")

func open(t testing.TB, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	ok(t, err)
	return names
}

func wantFiles(t testing.TB, dir string, n int) {
	t.Helper()
	if names := files(t, dir); len(names) != n {
		t.Errorf("%d files, want %d", len(names), n)
	}
}

// Every function of gin-contrib's package tester.
func TestTester(t *testing.T) {
	newStore := func(t *testing.T) sessions.Store { return ginstore.New(open(t, t.TempDir()), []byte("secret")) }
	t.Run("GetSet", func(t *testing.T) { tester.GetSet(t, newStore) })
	t.Run("DeleteKey", func(t *testing.T) { tester.DeleteKey(t, newStore) })
	t.Run("Flashes", func(t *testing.T) { tester.Flashes(t, newStore) })
	t.Run("Clear", func(t *testing.T) { tester.Clear(t, newStore) })
	t.Run("Options", func(t *testing.T) { tester.Options(t, newStore) })
	t.Run("Many", func(t *testing.T) { tester.Many(t, newStore) })
	t.Run("ManyStores", func(t *testing.T) { tester.ManyStores(t, newStore) })
}

func TestOptions(t *testing.T) {
	store := ginstore.New(open(t, t.TempDir()), key)
	options := func() *gsessions.Options {
		t.Helper()
		session, err := store.New(httptest.NewRequest("GET", "/", nil), "s")
		ok(t, err)
		return session.Options
	}
	if got, want := *options(), *gorillastore.New(nil, key).Options; got != want {
		t.Errorf("Options are %+v, want gorillastore's, %+v", got, want)
	}
	store.Options(sessions.Options{Path: "/x", Domain: "example.com", MaxAge: 7, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	want := gsessions.Options{Path: "/x", Domain: "example.com", MaxAge: 7, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if got := *options(); got != want {
		t.Errorf("Options are %+v, want %+v", got, want)
	}
	store.(interface{ MaxAge(int) }).MaxAge(9)
	if got := options().MaxAge; got != 9 {
		t.Errorf("MaxAge is %d, want 9", got)
	}
}

type site struct {
	loaded, release chan struct{} // what /slow waits for between loading and saving
}

func (s *site) handler(store sessions.Store) http.Handler {
	router := gin.New()
	router.Use(sessions.Sessions("s", store))
	save := func(c *gin.Context, session sessions.Session) {
		if err := session.Save(); err != nil {
			c.String(http.StatusInternalServerError, "%v", err)
			return
		}
		c.String(http.StatusOK, "ok")
	}
	router.GET("/", func(c *gin.Context) {
		session := sessions.Default(c)
		c.String(http.StatusOK, "%v %v %v", session.Get("user"), session.Get("cart"), session.Get("slow"))
	})
	router.GET("/put", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set(c.Query("key"), c.Query("value"))
		save(c, session)
	})
	router.GET("/once", func(c *gin.Context) { // a cookie that ends with the browser
		session := sessions.Default(c)
		session.Options(sessions.Options{Path: "/"})
		save(c, session)
	})
	router.GET("/unset", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Delete(c.Query("key"))
		save(c, session)
	})
	router.GET("/login", func(c *gin.Context) {
		session := sessions.Default(c)
		if session.Get("user"); c.Query("slow") != "" {
			s.loaded <- struct{}{}
			<-s.release
		}
		session.Options(sessions.Options{Path: "/", MaxAge: -1})
		if err := session.Save(); err != nil {
			c.String(http.StatusInternalServerError, "%v", err)
			return
		}
		session.Options(sessions.Options{Path: "/", MaxAge: 86400, HttpOnly: true})
		session.Set("user", c.Query("user"))
		save(c, session)
	})
	router.GET("/logout", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Clear()
		session.Options(sessions.Options{Path: "/", MaxAge: -1})
		save(c, session)
	})
	router.GET("/slow", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Get("user")
		s.loaded <- struct{}{}
		<-s.release
		session.Set("slow", true)
		save(c, session)
	})
	// For the torture: values that tell whether they are one version's.
	router.GET("/write", func(c *gin.Context) {
		session := sessions.Default(c)
		i, _ := strconv.Atoi(c.Query("i"))
		known := session.Get("text") != nil
		session.Set("i", i)
		session.Set("text", text(i))
		if err := session.Save(); err != nil || !known && c.Query("first") == "" {
			c.String(http.StatusInternalServerError, "no session, %v", err)
		}
	})
	router.GET("/read", func(c *gin.Context) {
		session := sessions.Default(c)
		i, _ := session.Get("i").(int)
		switch session.Get("text") {
		case nil:
			c.String(http.StatusInternalServerError, "no session")
		case text(i):
		default:
			c.String(http.StatusConflict, "torn")
		}
	})
	return router
}

func text(i int) string { return strings.Repeat(string(rune('a'+i%26)), i%2000) }

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

func (b *browser) want(path, want string) {
	b.t.Helper()
	res, err := b.client.Get(b.base + path)
	if err != nil {
		b.t.Error(err)
		return
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != want {
		b.t.Errorf("%s: %d %q, %v, want %q", path, res.StatusCode, body, err, want)
	}
}

func (b *browser) cookies() []*http.Cookie {
	u, _ := url.Parse(b.base)
	return b.client.Jar.Cookies(u)
}

// another has the same cookies, and none in common with the first from then on.
func (b *browser) another() *browser {
	other := newBrowser(b.t, b.base)
	u, _ := url.Parse(b.base)
	other.client.Jar.SetCookies(u, b.cookies())
	return other
}

func start(t testing.TB, handler http.Handler) *httptest.Server {
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return srv
}

const nobody = "<nil> <nil> <nil>"

func TestHTTP(t *testing.T) {
	dir := t.TempDir()
	s := &site{make(chan struct{}), make(chan struct{})}
	first := open(t, dir)
	srv := start(t, s.handler(ginstore.New(first, key)))
	b := newBrowser(t, srv.URL)

	b.want("/", nobody)
	wantFiles(t, dir, 0)
	b.want("/put?key=cart&value=1", "ok")
	planted := b.another()
	b.want("/login?user=alice", "ok")
	b.want("/", "alice 1 <nil>")
	planted.want("/", nobody)
	wantFiles(t, dir, 1)

	// Without a MaxAge it is kept, and the browser's cookie ends with it.
	b.want("/once", "ok")
	b.want("/", "alice 1 <nil>")
	wantFiles(t, dir, 1)

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { b.want("/put?key=cart&value=2", "ok") })
	}
	wg.Wait()
	b.want("/", "alice 2 <nil>")

	// A logout that deletes a key, and one that a slow login follows.
	wg.Go(func() { b.want("/slow", "ok") })
	<-s.loaded
	b.want("/unset?key=user", "ok")
	s.release <- struct{}{}
	wg.Wait()
	b.want("/", "<nil> 2 true")
	late := b.another()
	wg.Go(func() { late.want("/login?user=alice&slow=1", "ok") })
	<-s.loaded
	b.want("/logout", "ok")
	s.release <- struct{}{}
	wg.Wait()
	late.want("/", nobody)
	wantFiles(t, dir, 0)
	b.want("/put?key=cart&value=2", "ok")

	// The logout race.
	stolen := b.another()
	wg.Go(func() { b.want("/slow", "ok") })
	<-s.loaded
	b.want("/logout", "ok")
	wantFiles(t, dir, 0)
	s.release <- struct{}{}
	wg.Wait()
	wantFiles(t, dir, 0)
	stolen.want("/", nobody)
	if len(b.cookies()) > 0 {
		t.Error("the slow request has set the cookie again")
	}
	// The login race.
	b.want("/put?key=cart&value=1", "ok")
	wg.Go(func() { b.want("/slow", "ok") })
	<-s.loaded
	b.want("/login?user=bob", "ok")
	s.release <- struct{}{}
	wg.Wait()
	b.want("/", "bob 1 <nil>")
	wantFiles(t, dir, 1)

	// Restart.
	srv.Close()
	ok(t, first.Close())
	srv = start(t, s.handler(ginstore.New(open(t, dir), key)))
	b.base = srv.URL
	b.want("/", "bob 1 <nil>")

	// Expiry.
	file := files(t, dir)[0]
	fresh, err := os.ReadFile(file)
	ok(t, err)
	ok(t, os.WriteFile(file, regexp.MustCompile(`"__lastAccess":\d+`).ReplaceAll(fresh, []byte(`"__lastAccess":1700000000000`)), 0o600))
	b.want("/", nobody)
	ok(t, os.WriteFile(file, fresh, 0o600))
	b.want("/", "bob 1 <nil>")

	// Damage and bad cookies are logged, without the id; a new session takes the place, the file stays.
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	ok(t, os.WriteFile(file, []byte(`{"cookie":`), 0o600))
	b.want("/", nobody)
	b.want("/put?key=cart&value=3", "ok")
	wantFiles(t, dir, 2)
	b.want("/", "<nil> 3 <nil>")
	if text, err := os.ReadFile(file); err != nil || string(text) != `{"cookie":` {
		t.Errorf("the damaged file is now %q, %v", text, err)
	}
	id := strings.TrimSuffix(filepath.Base(file), ".json")
	if !strings.Contains(log.String(), filestore.ErrCorrupt.Error()) || strings.Contains(log.String(), id) {
		t.Errorf("log %s", &log)
	}
	u, _ := url.Parse(srv.URL)
	for _, value := range []string{"", "forged", id, "../" + id, strings.Repeat("x", 10_000)} {
		forged := newBrowser(t, srv.URL)
		forged.client.Jar.SetCookies(u, []*http.Cookie{{Name: "s", Value: value, Path: "/"}})
		forged.want("/", nobody)
		forged.want("/put?key=cart&value=4", "ok")
		forged.want("/", "<nil> 4 <nil>")
	}
	wantFiles(t, dir, 7)
}

// With this variable set the test binary is another process: "site" or "writer",
// a directory, and for the writer whose store it is and a cookie.
const child = "GINSTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard
	args := strings.Split(os.Getenv(child), "|")
	switch args[0] {
	case "site":
		fmt.Println(httptest.NewServer((&site{}).handler(stores["ginstore"](args[1]))).URL)
		io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
	case "writer":
		slog.SetDefault(slog.New(slog.DiscardHandler)) // gin-contrib's, of sessions that it cannot read
		handler := (&site{}).handler(stores[args[2]](args[1]))
		fmt.Println("ready")
		go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
		for i := 0; ; i++ {
			serve(handler, fmt.Sprintf("/write?i=%d", i), args[3])
		}
	default:
		os.Exit(m.Run())
	}
}

var stores = map[string]func(dir string) sessions.Store{
	"ginstore": func(dir string) sessions.Store {
		files, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1})
		if err != nil {
			panic(err)
		}
		return ginstore.New(files, key)
	},
	"filesystem": func(dir string) sessions.Store {
		store := filesystem.NewStore(dir, key)
		store.(interface{ MaxLength(int) }).MaxLength(0)
		return store
	},
}

func serve(handler http.Handler, path, cookie string) *http.Response {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	if cookie != "" {
		r.Header.Set("Cookie", "s="+cookie)
	}
	handler.ServeHTTP(w, r)
	return w.Result()
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
	here := newBrowser(t, start(t, (&site{}).handler(ginstore.New(open(t, dir), key))).URL)
	there := *here // with the same cookies
	var kill func()
	there.base, kill = spawn(t, "site", dir)
	here.want("/login?user=alice", "ok")
	there.want("/", "alice <nil> <nil>")
	stolen := here.another()
	there.want("/logout", "ok")
	stolen.want("/", nobody)
	wantFiles(t, dir, 0)
	there.want("/login?user=bob", "ok")
	kill()
	here.want("/", "bob <nil> <nil>")
	there.base, _ = spawn(t, "site", dir)
	there.want("/", "bob <nil> <nil>")
}

// Counts: readers of one session beside writers, in this process alone and with another, beside
// gin-contrib's filesystem store.
func TestCounts(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	run := time.Second / 2
	if os.Getenv("FILESTORE_LONG") != "" {
		run = 20 * time.Second
	}
	for name := range stores {
		for _, two := range []bool{false, true} {
			if bad := torture(t, name, run, two); bad > 0 && name == "ginstore" {
				t.Error("ours must be 0")
			}
		}
	}
}

func torture(t *testing.T, name string, run time.Duration, two bool) int {
	dir := t.TempDir()
	handler, kill, beside := (&site{}).handler(stores[name](dir)), func() {}, "this process alone"
	set := serve(handler, "/write?i=1&first=1", "").Cookies()
	if len(set) != 1 {
		t.Fatal("no cookie")
	}
	cookie := set[0].Value
	if two {
		beside = "another process writing too, then killed"
		_, kill = spawn(t, "writer", dir, name, cookie)
	}
	var reads, writes, failed, torn atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(run)
	for w := range 2 {
		wg.Go(func() {
			for i := w; time.Now().Before(end); i++ {
				writes.Add(1)
				if serve(handler, fmt.Sprintf("/write?i=%d", i), cookie).StatusCode != 200 {
					failed.Add(1)
				}
			}
		})
		wg.Go(func() {
			for time.Now().Before(end) {
				reads.Add(1)
				switch serve(handler, "/read", cookie).StatusCode {
				case 200:
				case http.StatusConflict:
					torn.Add(1)
				default:
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	kill() // in the midst of a write, most often
	lost := 0
	if serve(handler, "/read", cookie).StatusCode != 200 {
		lost++
	}
	t.Logf("%s, %s: %d reads and %d writes, %d failed, %d torn; lost in the end: %d",
		name, beside, reads.Load(), writes.Load(), failed.Load(), torn.Load(), lost)
	if reads.Load() < 10 || writes.Load() < 10 {
		t.Error("too few to tell")
	}
	return int(failed.Load()+torn.Load()) + lost
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
