package flamegostore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flamego/flamego"
	"github.com/flamego/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/flamegostore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
)

var ctx = context.Background()

// The test binary is also the other process: a site, or a writer of one session.
const (
	serveEnv = "FLAMEGOSTORE_SERVE"
	writeEnv = "FLAMEGOSTORE_WRITE"
)

func TestMain(m *testing.M) {
	flamego.SetEnv(flamego.EnvTypeProd)
	gob.Register(time.Time{})
	gob.Register(&cart{})
	gob.Register(map[string]int{})
	switch {
	case os.Getenv(serveEnv) != "":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			fmt.Println("http://" + l.Addr().String())
			go http.Serve(l, newSite(must(filestore.Open(os.Getenv(serveEnv), options())), session.Options{}))
			io.Copy(io.Discard, os.Stdin) // ends with our parent
		}
	case os.Getenv(writeEnv) != "":
		store := initer(must(filestore.Open(os.Getenv(writeEnv), options())))
		sess := must(store.Read(ctx, "victim"))
		for n, _ := sess.Get("n").(int); ; {
			n++
			sess.Set("n", n)
			sess.Set("copy", n)
			sess.Set("pad", strings.Repeat("x", n*997%20_000))
			if err := store.Save(ctx, sess); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println(n)
		}
	default:
		os.Exit(m.Run())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type cart struct{ Items []string }

func options() *filestore.Options {
	return &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if names, _ := filepath.Glob(filepath.Join(dir, ".*~")); len(names) > 0 {
			t.Errorf("temporary files are left: %q", names)
		}
	})
	return s
}

// The framework passes this beside the config.
var idWriter session.IDWriter = func(http.ResponseWriter, *http.Request, string) {}

func initer(s *filestore.Store, cfg ...any) session.Store {
	return must(flamegostore.Initer(s)(ctx, append(cfg, idWriter)...))
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A site is the whole of Flamego on a store.
type site struct {
	*flamego.Flame
	entered, leave chan struct{} // of /slow
}

func newSite(s *filestore.Store, opt session.Options) *site {
	return siteWith(flamegostore.Options(s, opt))
}

func siteWith(opt session.Options) *site {
	x := &site{flamego.NewWithLogger(io.Discard), make(chan struct{}), make(chan struct{})}
	x.Use(flamego.Recovery(), session.Sessioner(opt))
	x.Get("/set", func(c flamego.Context, s session.Session) { s.Set(c.Query("k"), c.Query("v")) })
	x.Get("/get", func(c flamego.Context, s session.Session) string { return fmt.Sprint(s.Get(c.Query("k"))) })
	x.Get("/id", func(s session.Session) string { return s.ID() })
	x.Get("/logout", func(c flamego.Context, s session.Session, store session.Store) error {
		s.Set("user", "changed on the way out")
		return store.Destroy(c.Request().Context(), s.ID())
	})
	x.Get("/unset", func(c flamego.Context, s session.Session) { s.Delete(c.Query("k")) })
	x.Get("/buy", func(s session.Session) { // changes a value in place
		if c, ok := s.Get("cart").(*cart); ok {
			c.Items = append(c.Items, "tea")
		} else {
			s.Set("cart", &cart{})
		}
	})
	x.Get("/cart", func(s session.Session) string { return fmt.Sprint(s.Get("cart").(*cart).Items) })
	login := func(c flamego.Context, s session.Session) {
		if err := s.RegenerateID(c.ResponseWriter(), c.Request().Request); err != nil {
			http.Error(c.ResponseWriter(), err.Error(), http.StatusTeapot) // no error of the middleware's
			return
		}
		s.Set("user", c.Query("user"))
	}
	x.Get("/login", login)
	x.Get("/slowlogin", func(c flamego.Context, s session.Session) {
		s.Set("colour", "slow")
		x.entered <- struct{}{}
		<-x.leave
		login(c, s)
	})
	x.Get("/slow", func(c flamego.Context, s session.Session) {
		x.entered <- struct{}{}
		<-x.leave
		if k := c.Query("k"); k != "" {
			s.Set(k, "slow")
		}
	})
	return x
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr, Timeout: 30 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	code, body := fetch(t, c, url)
	if code != http.StatusOK {
		t.Fatalf("GET %s = %d %q", url, code, body)
	}
	return body
}

func fetch(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(body)
}

// age makes the sessions in dir last accessed by d earlier.
func age(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	member := regexp.MustCompile(`"__lastAccess":(\d+)`)
	for _, name := range files(t, dir) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		ms, _ := strconv.ParseInt(string(member.FindSubmatch(data)[1]), 10, 64)
		data = member.ReplaceAll(data, fmt.Appendf(nil, `"__lastAccess":%d`, ms-d.Milliseconds()))
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The framework's TestFileStore.
func TestFileStore(t *testing.T) {
	f := flamego.NewWithLogger(io.Discard)
	f.Use(session.Sessioner(session.Options{Initer: flamegostore.Initer(open(t, t.TempDir()))}))
	f.Get("/set", func(s session.Session) { s.Set("username", "flamego") })
	f.Get("/get", func(s session.Session) {
		if len(s.ID()) != 16 || s.Get("username") != "flamego" {
			t.Errorf("session %q has %v", s.ID(), s.Get("username"))
		}
		s.Delete("username")
		if v := s.Get("username"); v != nil {
			t.Errorf("Get = %v after Delete", v)
		}
		s.Set("random", "value")
		s.Flush()
		if v := s.Get("random"); v != nil {
			t.Errorf("Get = %v after Flush", v)
		}
	})
	f.Get("/destroy", func(c flamego.Context, sess session.Session, store session.Store) error {
		return store.Destroy(c.Request().Context(), sess.ID())
	})
	cookie := ""
	for _, path := range []string{"/set", "/get", "/destroy"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("Cookie", cookie)
		f.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("%s = %d", path, w.Code)
		}
		if path == "/set" {
			cookie = w.Header().Get("Set-Cookie")
		}
	}
}

func save(t *testing.T, store session.Store, id string) {
	t.Helper()
	sess := must(store.Read(ctx, id))
	sess.Set("saved", true)
	if err := store.Save(ctx, sess); err != nil {
		t.Fatal(err)
	}
}

// The framework's TestFileStore_GC and TestMemoryStore_GC: an expired session that is read begins anew, empty.
func TestGC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store := initer(open(t, dir), flamegostore.Config{Lifetime: time.Second})
		for _, id := range []string{"222", "333"} {
			sess := must(store.Read(ctx, id))
			sess.Set("name", "flamego")
			if err := store.Save(ctx, sess); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		save(t, store, "111")
		if store.Exist(ctx, "222") {
			t.Error("an expired session exists")
		}
		if sess := must(store.Read(ctx, "222")); sess.Get("name") != nil {
			t.Errorf("an expired session has %v", sess.Get("name"))
		}
		save(t, store, "222")
		if err := store.GC(ctx); err != nil {
			t.Fatal(err)
		}
		if !store.Exist(ctx, "111") || !store.Exist(ctx, "222") || store.Exist(ctx, "333") || len(files(t, dir)) != 2 {
			t.Errorf("after GC: %v, %v, %v, files %q", store.Exist(ctx, "111"), store.Exist(ctx, "222"), store.Exist(ctx, "333"), files(t, dir))
		}
	})
}

// The framework's TestSessioner.
func TestSessioner(t *testing.T) {
	f := newSite(open(t, t.TempDir()), session.Options{})
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
	f.ServeHTTP(w, r)
	id, cookie := w.Body.String(), w.Header().Get("Set-Cookie")
	if want := "flamego_session=" + id + "; Path=/; HttpOnly; SameSite=Lax"; cookie != want {
		t.Errorf("cookie %q, want %q", cookie, want)
	}
	w, r = httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
	r.Header.Set("Cookie", cookie)
	f.ServeHTTP(w, r)
	if w.Body.String() != id || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("the session %s is %s on the second request, which sets the cookie %q", id, w.Body, w.Header().Get("Set-Cookie"))
	}
}

// The framework's TestSessioner_Header.
func TestHeader(t *testing.T) {
	f := newSite(open(t, t.TempDir()), session.Options{
		ReadIDFunc: func(r *http.Request) string { return r.Header.Get("Session-Id") },
		WriteIDFunc: func(w http.ResponseWriter, r *http.Request, sid string, created bool) {
			w.Header().Set("Session-Id", sid)
		},
	})
	var ids [2]string
	for i := range ids {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
		r.Header.Set("Session-Id", ids[0])
		f.ServeHTTP(w, r)
		if ids[i] = w.Header().Get("Session-Id"); w.Body.String() != ids[i] {
			t.Errorf("session %q, header %q", w.Body, ids[i])
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("sessions %q", ids)
	}
}

// The framework's TestSessioner_ContextCancel, and what it leaves: the change is stored, the logout done. A request that
// was given up before it came to the session is not served, and nothing panics.
func TestCancel(t *testing.T) {
	s := open(t, t.TempDir())
	f := flamego.NewWithLogger(io.Discard) // no Recovery
	f.Use(session.Sessioner(session.Options{Initer: flamegostore.Initer(s)}))
	reqCtx, cancel := context.WithCancel(ctx)
	var id string
	f.Get("/", func(sess session.Session) {
		cancel()
		id = sess.ID()
		sess.Set("k", "v")
	})
	f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(reqCtx))
	if v := must(initer(s).Read(ctx, id)).Get("k"); v != "v" {
		t.Errorf("the session holds %v", v)
	}
	out := must(initer(s).Read(ctx, "out"))
	if err := initer(s).Destroy(reqCtx, out.ID()); err != nil || initer(s).Exist(ctx, "out") {
		t.Errorf("Destroy after the client has gone = %v", err)
	}
	for _, cookie := range []string{"", id} {
		f := flamego.NewWithLogger(io.Discard)
		reqCtx, cancel := context.WithCancel(ctx)
		f.Use(session.Sessioner(session.Options{
			Initer:     flamegostore.Initer(s),
			ReadIDFunc: func(*http.Request) string { cancel(); return cookie }, // the last moment before the look-up
		}))
		f.Get("/", func() { t.Error("a cancelled request is served") })
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(reqCtx))
		if w.Code != http.StatusUnprocessableEntity {
			t.Errorf("a cancelled request gets %d", w.Code)
		}
	}
}

// The framework's TestSession_Flash.
func TestFlash(t *testing.T) {
	s := open(t, t.TempDir())
	for _, opt := range []session.Options{{Initer: flamegostore.Initer(s)}, flamegostore.Options(s, session.Options{})} {
		f := flamego.NewWithLogger(io.Discard)
		f.Use(session.Sessioner(opt))
		f.Get("/", func(f session.Flash) string {
			if s, ok := f.(string); ok {
				return s
			}
			return "no flash"
		})
		f.Get("/set", func(s session.Session) { s.SetFlash("a message") })
		url, c := serve(t, f), newClient(t)
		for _, step := range []struct{ path, want string }{{"/", "no flash"}, {"/set", ""}, {"/", "a message"}, {"/", "no flash"}} {
			if got := get(t, c, url+step.path); got != step.want {
				t.Errorf("%s = %q, want %q", step.path, got, step.want)
			}
		}
	}
}

func TestLogin(t *testing.T) {
	dir := t.TempDir()
	url, c := serve(t, newSite(open(t, dir), session.Options{})), newClient(t)
	get(t, c, url+"/set?k=user&v=alice")
	id := get(t, c, url+"/id")
	get(t, c, url+"/set?k=colour&v=red")
	if user, colour := get(t, c, url+"/get?k=user"), get(t, c, url+"/get?k=colour"); user != "alice" || colour != "red" {
		t.Errorf("user %s, colour %s", user, colour)
	}
	if names := files(t, dir); len(names) != 1 || filepath.Base(names[0]) != id+".json" {
		t.Errorf("files %q of session %s", names, id)
	}
	// A login.
	get(t, c, url+"/login?user=bob")
	before := id
	if id = get(t, c, url+"/id"); id == before || get(t, c, url+"/get?k=user") != "bob" || get(t, c, url+"/get?k=colour") != "red" {
		t.Errorf("after the login the id is %s, before %s", id, before)
	}
	if names := files(t, dir); len(names) != 1 || filepath.Base(names[0]) != id+".json" {
		t.Errorf("files %q of session %s", names, id)
	}
	get(t, c, url+"/buy")
	get(t, c, url+"/buy")
	if got := get(t, c, url+"/cart"); got != "[tea]" {
		t.Errorf("in the cart is %s", got)
	}
	// The middleware saves the session that the handler has destroyed.
	get(t, c, url+"/logout")
	if names := files(t, dir); len(names) != 0 {
		t.Errorf("files %q after the logout", names)
	}
	if user, now := get(t, c, url+"/get?k=user"), get(t, c, url+"/id"); user != "<nil>" || now == id {
		t.Errorf("after the logout the user is %s, the session %s, before %s", user, now, id)
	}
}

// A slow request that has the session, with changes or without, does not bring it back.
func TestLogoutRace(t *testing.T) {
	for _, query := range []string{"", "?k=colour"} {
		dir := t.TempDir()
		x := newSite(open(t, dir), session.Options{})
		url, c := serve(t, x), newClient(t)
		get(t, c, url+"/set?k=user&v=alice")
		id := get(t, c, url+"/id")
		var wg sync.WaitGroup
		wg.Go(func() {
			if code, body := fetch(t, c, url+"/slow"+query); code != http.StatusOK {
				t.Errorf("/slow = %d %q", code, body)
			}
		})
		<-x.entered
		get(t, c, url+"/logout")
		x.leave <- struct{}{}
		wg.Wait()
		if names := files(t, dir); len(names) != 0 {
			t.Errorf("/slow%s has left %q", query, names)
		}
		if user, now := get(t, c, url+"/get?k=user"), get(t, c, url+"/id"); user != "<nil>" || now == id {
			t.Errorf("after the logout the user is %s", user)
		}
	}
}

// Nor does it where the logout only deletes a key: of two requests each stores what it has changed.
func TestMerge(t *testing.T) {
	x := newSite(open(t, t.TempDir()), session.Options{})
	url, c := serve(t, x), newClient(t)
	get(t, c, url+"/login?user=alice")
	get(t, c, url+"/set?k=shape&v=round")
	var wg sync.WaitGroup
	wg.Go(func() { fetch(t, c, url+"/slow?k=colour") })
	<-x.entered
	get(t, c, url+"/unset?k=user")
	get(t, c, url+"/set?k=shape&v=square")
	x.leave <- struct{}{}
	wg.Wait()
	for k, want := range map[string]string{"user": "<nil>", "shape": "square", "colour": "slow"} {
		if got := get(t, c, url+"/get?k="+k); got != want {
			t.Errorf("%s is %s, want %s", k, got, want)
		}
	}
}

// Nor does a slow request that moves the session to a new id after the logout, nor one of two that do so
// at once: it gets an error, and no session.
func TestRegenerateID(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, opt := range []session.Options{{Initer: flamegostore.Initer(s)}, flamegostore.Options(s, session.Options{})} {
		x := siteWith(opt)
		url := serve(t, x)
		for _, meanwhile := range []string{"/logout", "/login?user=bob"} {
			c, slow := newClient(t), newClient(t)
			get(t, c, url+"/login?user=alice")
			slow.Jar = c.Jar
			var wg sync.WaitGroup
			wg.Go(func() {
				if code, body := fetch(t, slow, url+"/slowlogin?user=alice"); code != http.StatusTeapot || !strings.Contains(body, "no such session") {
					t.Errorf("/slowlogin = %d %q", code, body)
				}
			})
			<-x.entered
			get(t, c, url+meanwhile)
			before := files(t, dir)
			if meanwhile == "/logout" { // under the id that the framework adopts another session may begin
				get(t, c, url+"/set?k=user&v=carol")
				before = files(t, dir)
			}
			x.leave <- struct{}{}
			wg.Wait()
			if now := files(t, dir); !reflect.DeepEqual(now, before) {
				t.Errorf("files %q, before %q", now, before)
			}
			want := map[string]string{"/logout": "carol", "/login?user=bob": "bob"}[meanwhile]
			if user, colour := get(t, c, url+"/get?k=user"), get(t, c, url+"/get?k=colour"); user != want || colour != "<nil>" {
				t.Errorf("user %s, colour %s", user, colour)
			}
		}
	}
}

// A visitor who leaves nothing leaves no file. What parallel requests of his put in is in one session, and a
// login takes along what its request has put in before.
func TestPending(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, opt := range []session.Options{{Initer: flamegostore.Initer(s)}, flamegostore.Options(s, session.Options{})} {
		x := siteWith(opt)
		url, c := serve(t, x), newClient(t)
		before := len(files(t, dir))
		for range 10 {
			get(t, newClient(t), url+"/get?k=user")
			get(t, c, url+"/get?k=user")
		}
		id := get(t, c, url+"/id")
		if now := len(files(t, dir)); now != before {
			t.Errorf("%d files, before %d", now, before)
		}
		var wg sync.WaitGroup
		for _, k := range []string{"a", "b", "c"} {
			wg.Go(func() { fetch(t, c, url+"/slow?k="+k) })
			<-x.entered
		}
		for range 3 {
			x.leave <- struct{}{}
		}
		wg.Wait()
		if all := get(t, c, url+"/get?k=a") + get(t, c, url+"/get?k=b") + get(t, c, url+"/get?k=c"); all != "slowslowslow" || get(t, c, url+"/id") != id {
			t.Errorf("of three requests of a pending session %s is left", all)
		}
		c = newClient(t)
		id = get(t, c, url+"/id")
		wg.Go(func() { fetch(t, c, url+"/slowlogin?user=alice") })
		<-x.entered
		x.leave <- struct{}{}
		wg.Wait()
		if got := get(t, c, url+"/get?k=user") + get(t, c, url+"/get?k=colour"); got != "aliceslow" || get(t, c, url+"/id") == id {
			t.Errorf("after the login %s, the id is %s", got, get(t, c, url+"/id"))
		}
		// What destroys it destroys it for its other requests too.
		before = len(files(t, dir))
		c = newClient(t)
		get(t, c, url+"/id")
		wg.Go(func() { fetch(t, c, url+"/slow?k=user") })
		<-x.entered
		get(t, c, url+"/logout")
		x.leave <- struct{}{}
		wg.Wait()
		if now := len(files(t, dir)); now != before {
			t.Errorf("%d files, before %d", now, before)
		}
	}
}

// A session that ends between Exist and Read begins anew, without what it held.
func TestLogoutBetween(t *testing.T) {
	store := initer(open(t, t.TempDir()))
	sess := must(store.Read(ctx, "between"))
	sess.Set("user", "alice")
	if err := errors.Join(store.Save(ctx, sess), store.Destroy(ctx, "between"), store.Destroy(ctx, "between")); err != nil {
		t.Fatal(err)
	}
	if again := must(store.Read(ctx, "between")); again.Get("user") != nil {
		t.Errorf("user %v", again.Get("user"))
	}
}

// Of parallel requests those that change nothing undo nothing.
func TestParallel(t *testing.T) {
	x := newSite(open(t, t.TempDir()), session.Options{})
	url, c := serve(t, x), newClient(t)
	get(t, c, url+"/set?k=user&v=alice")
	var wg sync.WaitGroup
	wg.Go(func() { fetch(t, c, url+"/slow") })
	<-x.entered
	get(t, c, url+"/set?k=user&v=bob")
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if _, user := fetch(t, c, url+"/get?k=user"); user != "bob" {
					t.Errorf("user %q", user)
				}
			}
		})
	}
	x.leave <- struct{}{}
	for i := range 50 {
		get(t, c, url+"/set?k=n&v="+strconv.Itoa(i))
	}
	wg.Wait()
	if user, n := get(t, c, url+"/get?k=user"), get(t, c, url+"/get?k=n"); user != "bob" || n != "49" {
		t.Errorf("user %s, n %s", user, n)
	}
}

func TestRestart(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	for i, want := range []string{"<nil>", "alice", "alice"} {
		s := open(t, dir)
		srv := httptest.NewServer(newSite(s, session.Options{}))
		if user := get(t, c, srv.URL+"/get?k=user"); user != want {
			t.Errorf("user %s after %d restarts, want %s", user, i, want)
		}
		get(t, c, srv.URL+"/set?k=user&v=alice")
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestExpiry(t *testing.T) {
	for lifetime, want := range map[time.Duration]time.Duration{0: time.Hour, 3 * time.Hour: 3 * time.Hour, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			store := initer(open(t, t.TempDir()), nil, flamegostore.Config{Lifetime: lifetime})
			sess := must(store.Read(ctx, "id"))
			sess.Set("k", "v")
			if err := store.Save(ctx, sess); err != nil {
				t.Fatal(err)
			}
			for range 3 { // each request is a new start, also one that changes nothing
				time.Sleep(want - 1)
				if !store.Exist(ctx, "id") {
					t.Fatalf("lifetime %v: ended too early", lifetime)
				}
				if err := store.Save(ctx, must(store.Read(ctx, "id"))); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(want + time.Millisecond)
			if store.Exist(ctx, "id") {
				t.Errorf("lifetime %v: does not end", lifetime)
			}
			if err := store.Save(ctx, sess); err != nil || store.Exist(ctx, "id") {
				t.Errorf("lifetime %v: Save of what has expired = %v, and it exists: %v", lifetime, err, store.Exist(ctx, "id"))
			}
		})
	}
	dir := t.TempDir()
	url, c := serve(t, newSite(open(t, dir), session.Options{Config: flamegostore.Config{Lifetime: 3 * time.Hour}})), newClient(t)
	get(t, c, url+"/set?k=user&v=alice")
	id := get(t, c, url+"/id")
	age(t, dir, 3*time.Hour-time.Minute)
	if user := get(t, c, url+"/get?k=user"); user != "alice" { // which renews it
		t.Errorf("user %s before the end", user)
	}
	age(t, dir, 3*time.Hour-time.Minute)
	if user := get(t, c, url+"/get?k=user"); user != "alice" {
		t.Errorf("user %s although it was renewed", user)
	}
	age(t, dir, 3*time.Hour+time.Minute)
	if user, now := get(t, c, url+"/get?k=user"), get(t, c, url+"/id"); user != "<nil>" || now == id {
		t.Errorf("user %s after the end", user)
	}
}

// start runs this binary as another process, and returns what it prints.
func start(t *testing.T, env, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		_, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return cmd, bufio.NewScanner(out)
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// Two processes serve one directory, and one is killed.
func TestProcesses(t *testing.T) {
	dir, c := t.TempDir(), newClient(t)
	x := newSite(open(t, dir), session.Options{})
	here := serve(t, x)
	serveThere := func() (*exec.Cmd, string) {
		cmd, out := start(t, serveEnv, dir)
		if !out.Scan() {
			t.Fatal("the other process does not serve")
		}
		return cmd, out.Text()
	}
	other, there := serveThere()
	get(t, c, here+"/set?k=user&v=alice")
	if user := get(t, c, there+"/get?k=user"); user != "alice" {
		t.Fatalf("user %s in the other process", user)
	}
	var wg sync.WaitGroup
	for i, url := range []string{here, there, here, there} {
		wg.Go(func() {
			for n := range 50 {
				if code, body := fetch(t, c, fmt.Sprintf("%s/set?k=k%d&v=%d", url, i, n)); code != http.StatusOK {
					t.Errorf("/set = %d %q", code, body)
				}
				if _, user := fetch(t, c, url+"/get?k=user"); user != "alice" {
					t.Errorf("user %s", user)
				}
			}
		})
	}
	wg.Wait()

	kill(other)
	if user := get(t, c, here+"/get?k=user"); user != "alice" {
		t.Errorf("user %s after kill -9 of the other process", user)
	}
	_, there = serveThere()
	if user := get(t, c, there+"/get?k=user"); user != "alice" {
		t.Errorf("user %s in its successor", user)
	}

	wg.Go(func() { fetch(t, c, here+"/slow?k=colour") })
	<-x.entered
	get(t, c, there+"/logout")
	x.leave <- struct{}{}
	wg.Wait()
	if user := get(t, c, here+"/get?k=user"); user != "<nil>" {
		t.Errorf("user %s after the logout in the other process", user)
	}
}

// What a killed writer was told is stored, and nothing half of it.
func TestKill(t *testing.T) {
	rounds := 3
	if os.Getenv("FILESTORE_LONG") != "" {
		rounds = 100
	}
	dir := t.TempDir()
	s, err := filestore.Open(dir, options()) // not open: killed writers leave temporary files
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	store, last := initer(s), 0
	for range rounds {
		cmd, out := start(t, writeEnv, dir)
		for range 20 + rand.N(100) {
			if !out.Scan() {
				t.Fatal("the writer has ended")
			}
			if last, err = strconv.Atoi(out.Text()); err != nil {
				t.Fatal(out.Text())
			}
			sess := must(store.Read(ctx, "victim"))
			if n, _ := sess.Get("n").(int); n < last || sess.Get("copy") != n || sess.Get("pad") != strings.Repeat("x", n*997%20_000) {
				t.Fatalf("beside the writer, after %d: %v, %v", last, n, sess.Get("copy"))
			}
		}
		cmd.Process.Kill()
		for out.Scan() { // what it was told before it died
			last, _ = strconv.Atoi(out.Text())
		}
		kill(cmd)
		sess := must(store.Read(ctx, "victim"))
		if n, _ := sess.Get("n").(int); n < last || n > last+1 || sess.Get("copy") != n {
			t.Errorf("after %d and kill -9: %v, %v", last, n, sess.Get("copy"))
		}
	}
}

var malformed = []string{
	"", ".", "..", "../../etc/passwd", "..%2F..%2Fetc", "a/b", "a\\b", "\x00", "abc\x00def", "con", "NUL.json", "x.json", ".locks", "victim.json",
	"\xff\xfe", "é", strings.Repeat("a", 10_000), strings.Repeat("/", 10_000), "ABCDEFGHIJKLMNOP", "abcdefghijklmno!", " ",
}

// Ids that can name no session, and those of a client's choosing, are not found and not adopted.
func TestMalformed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	store, f := initer(s), newSite(s, session.Options{})
	for _, id := range append(malformed, "abcdefghijklmnop", "0000000000000000") {
		if store.Exist(ctx, id) {
			t.Errorf("Exist(%.40q)", id)
		}
		if err := store.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy(%.40q) = %v", id, err)
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
		r.Header.Set("Cookie", "flamego_session="+id)
		f.ServeHTTP(w, r)
		if now := w.Body.String(); w.Code != http.StatusOK || len(now) != 16 || now == id || store.Exist(ctx, id) {
			t.Errorf("cookie %.40q: %d, session %q", id, w.Code, now)
		}
	}
	// A program that asks for one gets it, in a file of its own.
	for _, id := range malformed {
		sess := must(store.Read(ctx, id))
		sess.Set("id", id)
		if err := store.Save(ctx, sess); err != nil {
			t.Errorf("Save(%.40q) = %v", id, err)
		}
	}
	for _, id := range malformed {
		if sess := must(store.Read(ctx, id)); sess.Get("id") != id {
			t.Errorf("Read(%.40q) has %.40q", id, sess.Get("id"))
		}
	}
	for _, name := range files(t, dir) {
		if !regexp.MustCompile(`^([0-9a-z]{16}|ABCDEFGHIJKLMNOP|sha256-[0-9a-f]{64})\.json$`).MatchString(filepath.Base(name)) {
			t.Errorf("file %s", name)
		}
	}
}

// A session that cannot be read is none: its visitor gets another, of a new id, and may log in, and the file
// stays as it is. An Express session is not ours.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var told atomic.Int64
	logged := new(lockedBuffer)
	cfg := flamegostore.Config{Logger: slog.New(slog.NewTextHandler(logged, nil))}
	f := newSite(s, session.Options{Config: cfg, ErrorFunc: func(error) { told.Add(1) }})
	url, c, store := serve(t, f), newClient(t), initer(s, cfg)
	adopting := serve(t, siteWith(session.Options{Initer: flamegostore.Initer(s), Config: cfg}))
	get(t, c, url+"/set?k=user&v=alice")
	id := get(t, c, url+"/id")
	name := filepath.Join(dir, id+".json")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data := regexp.MustCompile(`"data":"[^"]*"`)
	for what, text := range map[string][]byte{
		"an empty file": nil, "half a file": whole[:len(whole)/2], "no JSON": []byte("hello"), "no base64": data.ReplaceAll(whole, []byte(`"data":"?"`)),
		"no gob": data.ReplaceAll(whole, []byte(`"data":"aGVsbG8="`)),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for path, user := range map[string]string{"/id": "<nil>", "/set?k=colour&v=red": "<nil>", "/login?user=bob": "bob", "/logout": "<nil>"} {
			c := clientWith(t, url, id)
			if code, body := fetch(t, c, url+path); code != http.StatusOK || body == id {
				t.Errorf("%s: %s = %d %q", what, path, code, body)
			}
			if now := get(t, c, url+"/id"); now == id {
				t.Errorf("%s: the id is the same after %s", what, path)
			}
			if got := get(t, c, url+"/get?k=user"); got != user {
				t.Errorf("%s: user %s after %s", what, got, path)
			}
		}
		c := clientWith(t, adopting, id)
		if user := get(t, c, adopting+"/get?k=user"); user != "<nil>" {
			t.Errorf("%s: user %s", what, user)
		}
		if code, _ := fetch(t, c, adopting+"/set?k=colour&v=red"); code != http.StatusInternalServerError {
			t.Errorf("%s: /set = %d, and nothing can be stored", what, code)
		}
		get(t, c, adopting+"/login?user=bob")
		if user := get(t, c, adopting+"/get?k=user"); user != "bob" || get(t, c, adopting+"/id") == id {
			t.Errorf("%s: user %s", what, user)
		}
		if !strings.Contains(logged.String(), "a session that cannot be read counts as none") || strings.Contains(logged.String(), id) {
			t.Errorf("%s: logged %q", what, logged.String())
		}
		if err := store.GC(ctx); err != nil {
			t.Error(err)
		}
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, text) {
			t.Errorf("%s: the file holds %q, %v", what, now, err)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Symlink("elsewhere", name); err != nil {
			t.Fatal(err)
		}
		if now := get(t, clientWith(t, url, id), url+"/id"); now == id || !strings.Contains(logged.String(), "unsafe file") {
			t.Errorf("the session of a symbolic link is %s, logged %q", now, logged.String())
		}
		os.Remove(name)
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"alice","__lastAccess":%d}`, time.Now().UnixMilli())
	if err := os.WriteFile(name, []byte(express), 0o600); err != nil {
		t.Fatal(err)
	}
	if store.Exist(ctx, id) {
		t.Error("an Express session exists")
	}
	sess := must(store.Read(ctx, id))
	if sess.Set("user", "bob"); !errors.Is(store.Save(ctx, sess), fs.ErrExist) {
		t.Error("an Express session was saved")
	}
	if now := get(t, c, url+"/id"); now == id {
		t.Error("an Express session was taken for ours")
	}
	if now, err := os.ReadFile(name); err != nil || string(now) != express {
		t.Errorf("the Express session is %q, %v", now, err)
	}
	if told.Load() != 0 {
		t.Errorf("%d errors of GC", told.Load())
	}
}

// clientWith returns a client that has the cookie id.
func clientWith(t *testing.T, site, id string) *http.Client {
	t.Helper()
	c := newClient(t)
	c.Jar.SetCookies(must(url.Parse(site)), []*http.Cookie{{Name: "flamego_session", Value: id, Path: "/"}})
	return c
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// counter counts the writes of a store.
type counter struct{ writes atomic.Int64 }

func (c *counter) Encode(_ string, doc []byte) ([]byte, error)  { c.writes.Add(1); return doc, nil }
func (c *counter) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

// A Save writes where something has changed, whatever way, and only there.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		count := new(counter)
		opts.Codec = count
		s := must(filestore.Open(t.TempDir(), opts))
		defer s.Close()
		store := initer(s)
		step := func(what string, want int64, fn func(session.Session)) {
			t.Helper()
			before := count.writes.Load()
			sess := must(store.Read(ctx, "id"))
			fn(sess)
			if err := store.Save(ctx, sess); err != nil {
				t.Fatal(err)
			}
			if got := count.writes.Load() - before; got != want {
				t.Errorf("%s: %d writes, want %d", what, got, want)
			}
		}
		nothing := func(session.Session) {}
		step("a new session", 0, nothing)
		step("a value that is gone by the end", 0, func(s session.Session) { s.Set("n", 1); s.Delete("n") })
		step("twenty values", 1, func(s session.Session) {
			for i := range 20 {
				s.Set("key"+strconv.Itoa(i), i)
			}
			s.Set("cart", &cart{Items: []string{"tea"}})
			s.Set("since", time.Now())
		})
		for range 10 {
			step("nothing in many values", 0, nothing)
		}
		step("the same value", 0, func(s session.Session) { s.Set("key3", 3) })
		step("a value of the same size", 1, func(s session.Session) { s.Set("key3", 4) })
		step("a change in place", 1, func(s session.Session) { s.Get("cart").(*cart).Items[0] = "mug" })
		step("a deletion", 1, func(s session.Session) { s.Delete("key5") })
		step("Flush", 1, session.Session.Flush)
		step("nothing after Flush", 0, nothing)
		step("a value", 1, func(s session.Session) { s.Set("n", 4) })
		step("the value as another type", 1, func(s session.Session) { s.Set("n", int64(4)) })
		time.Sleep(time.Minute)
		step("nothing after a minute", 1, nothing)
		step("nothing at once", 0, nothing)
		store = initer(s, flamegostore.Config{Lifetime: 2 * time.Hour})
		step("another Lifetime", 1, nothing)
		time.Sleep(90 * time.Minute)
		if !store.Exist(ctx, "id") {
			t.Error("the new Lifetime does not count")
		}
		sess := must(store.Read(ctx, "id"))
		for i := range 3 {
			before := count.writes.Load()
			sess.Set("n", i/2)
			if err := store.Save(ctx, sess); err != nil || count.writes.Load()-before != []int64{1, 0, 1}[i] {
				t.Errorf("Save %d in one request: %v, %d writes", i, err, count.writes.Load()-before)
			}
		}
	})
}

// Values come back as the types that they were.
func TestTypes(t *testing.T) {
	dir := t.TempDir()
	values := map[any]any{
		"string": "x\x00\xff", "int": 1, "int64": int64(1), "uint8": uint8(1), "float": 1.0, "bool": true, "bytes": []byte{0, 1}, 5: "a number's", "time": time.Unix(5, 6).UTC(),
		"map": map[string]int{"a": 1}, "cart": &cart{Items: []string{"tea"}}, "strings": []string{"a"},
	}
	s := open(t, dir)
	store := initer(s)
	sess := must(store.Read(ctx, "id"))
	for k, v := range values {
		sess.Set(k, v)
	}
	if err := errors.Join(store.Save(ctx, sess), s.Close()); err != nil {
		t.Fatal(err)
	}
	sess = must(initer(open(t, dir)).Read(ctx, "id"))
	for k, v := range values {
		if got := sess.Get(k); !reflect.DeepEqual(got, v) {
			t.Errorf("Get(%v) = %#v, want %#v", k, got, v)
		}
	}
}

type unregistered struct{ A int }

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, arg := range []any{1, &flamegostore.Config{}, session.FileConfig{}, flamegostore.Config{Lifetime: -1}, flamegostore.Config{Lifetime: 3600}} {
		if _, err := flamegostore.Initer(s)(ctx, arg); err == nil || !strings.HasPrefix(err.Error(), "flamegostore: ") {
			t.Errorf("Initer with %T = %v", arg, err)
		}
	}
	if _, err := flamegostore.Initer(nil)(ctx); err == nil {
		t.Error("Initer takes no Store")
	}
	store := initer(s)
	const id = "secretsecret1234"
	var none context.Context
	sess := must(store.Read(none, id))
	if !store.Exist(none, id) {
		t.Error("Exist without a context = false")
	}
	if err := errors.Join(store.Save(none, sess), store.GC(none), store.Destroy(none, "other")); err != nil {
		t.Error(err)
	}

	sess.Set("k", unregistered{})
	if err := store.Save(ctx, sess); err == nil || !strings.HasPrefix(err.Error(), "flamegostore: encode: ") {
		t.Errorf("Save of an unregistered type = %v", err)
	}
	sess.Set("k", strings.Repeat("x", 2<<20))
	if err := store.Save(ctx, sess); !errors.Is(err, filestore.ErrTooLarge) || strings.Contains(err.Error(), id) {
		t.Errorf("Save of 2 MiB = %v", err)
	}
	sess.Set("k", "v")
	if err := store.Save(ctx, sess); err != nil {
		t.Error(err)
	}

	// A session of another store, as when moving.
	base := session.NewBaseSession("moved", session.GobEncoder, idWriter)
	base.Set("k", "v")
	if err := store.Save(ctx, base); err != nil || must(store.Read(ctx, "moved")).Get("k") != "v" {
		t.Errorf("Save of a BaseSession = %v", err)
	}

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := store.Read(cancelled, id); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v, want context.Canceled", err)
	}

	var wg sync.WaitGroup
	for range 8 { // all find none at first
		wg.Go(func() {
			if _, err := store.Read(ctx, "together"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	f := newSite(s, session.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Read(ctx, id)
	for i, err := range []error{err, store.Save(ctx, sess), store.Destroy(ctx, id), store.GC(ctx)} {
		if !errors.Is(err, filestore.ErrClosed) || strings.Contains(err.Error(), id) {
			t.Errorf("after Close, %d: %v", i, err)
		}
	}
	for _, cookie := range []string{"", "flamego_session=" + id} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
		r.Header.Set("Cookie", cookie)
		f.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("after Close: %d", w.Code)
		}
	}
}

// Encoder and Decoder are the Config's.
func TestCodec(t *testing.T) {
	dir := t.TempDir()
	store := initer(open(t, dir), flamegostore.Config{
		Encoder: func(d session.Data) ([]byte, error) {
			m := make(map[string]any)
			for k, v := range d {
				m[k.(string)] = v
			}
			return json.Marshal(m)
		},
		Decoder: func(b []byte) (session.Data, error) {
			var m map[string]any
			d, err := make(session.Data), json.Unmarshal(b, &m)
			for k, v := range m {
				d[k] = v
			}
			return d, err
		},
	})
	sess := must(store.Read(ctx, "id"))
	sess.Set("user", "alice")
	if err := store.Save(ctx, sess); err != nil {
		t.Fatal(err)
	}
	if file, err := os.ReadFile(filepath.Join(dir, "id.json")); err != nil || !bytes.Contains(file, []byte(`"data":{"user":"alice"}`)) {
		t.Errorf("the file is %s, %v", file, err)
	}
	if user := must(store.Read(ctx, "id")).Get("user"); user != "alice" {
		t.Errorf("user %v", user)
	}
}

// torture has readers and writers on one session, and counts what goes wrong.
func torture(t *testing.T, store session.Store) (reads, failed, torn, lost int64) {
	t.Helper()
	const id = "torturetorture12"
	write := func(n int) error {
		sess, err := store.Read(ctx, id)
		if err != nil {
			return err
		}
		sess.Set("n", n)
		sess.Set("copy", n)
		sess.Set("pad", strings.Repeat(string(rune('a'+n%26)), n*997%20_000))
		return store.Save(ctx, sess)
	}
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	var r, f, to, l atomic.Int64
	stop := time.Now().Add(time.Second)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				r.Add(1)
				if write(rand.N(1_000_000)) != nil {
					f.Add(1)
				}
			}
		})
		wg.Go(func() {
			for time.Now().Before(stop) {
				r.Add(1)
				if !store.Exist(ctx, id) {
					l.Add(1)
					continue
				}
				sess, err := store.Read(ctx, id)
				if err != nil {
					f.Add(1)
					continue
				}
				n, ok := sess.Get("n").(int)
				if !ok {
					l.Add(1)
				} else if sess.Get("copy") != n || sess.Get("pad") != strings.Repeat(string(rune('a'+n%26)), n*997%20_000) {
					to.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return r.Load(), f.Load(), to.Load(), l.Load()
}

// Beside readers and writers of one session no read fails, none is torn, and the session is always there.
func TestTorture(t *testing.T) {
	theirs, err := session.FileIniter()(ctx, session.FileConfig{RootDir: t.TempDir()}, idWriter)
	if err != nil {
		t.Fatal(err)
	}
	reads, failed, torn, lost := torture(t, theirs)
	t.Logf("the framework's file store: of %d reads %d failed, %d torn, %d found no session", reads, failed, torn, lost)
	reads, failed, torn, lost = torture(t, initer(open(t, t.TempDir())))
	t.Logf("ours: of %d reads %d failed, %d torn, %d found no session", reads, failed, torn, lost)
	if reads == 0 || failed+torn+lost > 0 {
		t.Error("not all reads have found the session whole")
	}
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
