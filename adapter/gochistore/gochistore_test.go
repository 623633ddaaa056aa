package gochistore_test

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
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

	"gitea.com/go-chi/session"
	"github.com/go-chi/chi/v5"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gochistore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
)

// The test binary is also the other process: a site, or a writer of one session.
const (
	serveEnv = "GOCHISTORE_SERVE"
	writeEnv = "GOCHISTORE_WRITE"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
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
		p := provider(must(filestore.Open(os.Getenv(writeEnv), options())), 3600)
		sess := must(p.Read("victim"))
		for n, _ := sess.Get("n").(int); ; {
			n++
			if err := errors.Join(sess.Set("n", n), sess.Set("copy", n), sess.Set("pad", strings.Repeat("x", n*997%20_000)), sess.Release()); err != nil {
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

func provider(s *filestore.Store, seconds int64) session.Provider {
	p := gochistore.NewProvider(s)
	if err := p.Init(seconds, ""); err != nil {
		panic(err)
	}
	return p
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A site is chi with the middleware on a store.
type site struct {
	http.Handler
	entered, leave chan struct{} // of /slow
}

var registered atomic.Int64

// register makes s a provider, under a name that is new also when the tests run twice.
func register(s *filestore.Store) string {
	name := fmt.Sprint("provider", registered.Add(1))
	gochistore.Register(name, s)
	return name
}

func newSite(s *filestore.Store, opt session.Options) *site {
	opt.Provider = register(s)
	x := &site{nil, make(chan struct{}), make(chan struct{})}
	r := chi.NewRouter()
	x.Handler = r
	r.Use(must(session.Sessioner(opt)))
	handle := func(path string, h func(w http.ResponseWriter, r *http.Request, s session.Store) error) {
		r.Get(path, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r, session.GetSession(r)); err != nil {
				http.Error(w, err.Error(), http.StatusTeapot) // no error of the middleware's
			}
		})
	}
	handle("/set", func(_ http.ResponseWriter, r *http.Request, s session.Store) error {
		return s.Set(r.FormValue("k"), r.FormValue("v"))
	})
	handle("/get", func(w http.ResponseWriter, r *http.Request, s session.Store) error {
		_, err := fmt.Fprint(w, s.Get(r.FormValue("k")))
		return err
	})
	handle("/id", func(w http.ResponseWriter, _ *http.Request, s session.Store) error {
		_, err := io.WriteString(w, s.ID())
		return err
	})
	handle("/login", func(w http.ResponseWriter, r *http.Request, _ session.Store) error {
		s, err := session.RegenerateSession(w, r)
		if err != nil {
			return err
		}
		return s.Set("user", r.FormValue("user"))
	})
	handle("/flush", func(_ http.ResponseWriter, _ *http.Request, s session.Store) error { return s.Flush() })
	handle("/logout", func(w http.ResponseWriter, r *http.Request, s session.Store) error {
		return errors.Join(s.Set("user", "changed on the way out"), s.Destroy(w, r))
	})
	handle("/unset", func(_ http.ResponseWriter, r *http.Request, s session.Store) error { return s.Delete(r.FormValue("k")) })
	handle("/slowlogin", func(w http.ResponseWriter, r *http.Request, s session.Store) error {
		err := s.Set("colour", "slow")
		x.entered <- struct{}{}
		<-x.leave
		if err == nil {
			s, err = session.RegenerateSession(w, r)
		}
		if err != nil {
			return err
		}
		return s.Set("user", r.FormValue("user"))
	})
	handle("/slow", func(_ http.ResponseWriter, r *http.Request, s session.Store) error {
		x.entered <- struct{}{}
		<-x.leave
		if k := r.FormValue("k"); k != "" {
			return s.Set(k, "slow")
		}
		return nil
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

// What the framework's Test_Sessioner tests.
func TestRegister(t *testing.T) {
	s := open(t, t.TempDir())
	twice := register(s)
	panics := func(what, name string, s *filestore.Store) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("Register of %s does not panic", what)
			}
		}()
		gochistore.Register(name, s)
	}
	panics("a name twice", twice, s)
	panics("the framework's own", "file", s)
	panics("no Store", "none", nil)
	if _, err := session.Sessioner(session.Options{Provider: "none"}); err == nil {
		t.Error("a provider that is not registered is found")
	}
	for _, seconds := range []int64{0, -1} {
		if err := gochistore.NewProvider(s).Init(seconds, ""); err == nil {
			t.Errorf("Init(%d) = nil", seconds)
		}
	}
	long := provider(s, 1<<63-1)
	if long.Read("long"); !must(long.Exist("long")) {
		t.Error("a long life ends at once")
	}
	for range 2 { // several middlewares may use one name
		if _, err := session.Sessioner(session.Options{Provider: twice, ProviderConfig: "ignored"}); err != nil {
			t.Error(err)
		}
	}
}

// The framework's testProvider, "Basic operation".
func TestBasic(t *testing.T) {
	c := chi.NewRouter()
	c.Use(must(session.Sessioner(session.Options{Provider: register(open(t, t.TempDir()))})))
	var initial string
	c.Get("/", func(w http.ResponseWriter, r *http.Request) {
		sess := session.GetSession(r)
		sess.Set("uname", "unknwon")
		initial = sess.ID()
	})
	c.Get("/reg", func(w http.ResponseWriter, r *http.Request) {
		sess := session.GetSession(r)
		if sess.ID() != initial {
			t.Errorf("id %s, want %s", sess.ID(), initial)
		}
		raw, err := session.RegenerateSession(w, r)
		if err != nil || raw != sess || sess.ID() == initial || sess.Get("uname") != "unknwon" {
			t.Errorf("regenerated: %v, %v; id %s, before %s; uname %v", raw == sess, err, sess.ID(), initial, sess.Get("uname"))
		}
		sess.Set("uname", "lunny")
		if sess.Get("uname") != "lunny" {
			t.Errorf("uname %v", sess.Get("uname"))
		}
	})
	c.Get("/get", func(w http.ResponseWriter, r *http.Request) {
		sess := session.GetSession(r)
		if raw, err := sess.Read(sess.ID()); err != nil || raw == nil {
			t.Errorf("Read = %v, %v", raw, err)
		}
		if sess.Get("uname") != "lunny" {
			t.Errorf("uname %v", sess.Get("uname"))
		}
		if err := sess.Delete("uname"); err != nil || sess.Get("uname") != nil {
			t.Errorf("uname %v after Delete, %v", sess.Get("uname"), err)
		}
		if err := sess.Destroy(w, r); err != nil {
			t.Error(err)
		}
	})
	cookie := ""
	for _, path := range []string{"/", "/reg", "/get"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("Cookie", cookie)
		c.ServeHTTP(w, r)
		cookie = w.Header().Get("Set-Cookie")
	}
}

// The framework's testProvider, "Regenrate empty session", "GC session" and "Detect invalid sid".
func TestSuite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		serve := func(cookie string, h http.HandlerFunc) {
			c := chi.NewRouter()
			c.Use(must(session.Sessioner(session.Options{Provider: register(s), Gclifetime: 1})))
			c.Get("/", h)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Cookie", cookie)
			c.ServeHTTP(httptest.NewRecorder(), r)
		}
		serve("MacaronSession=ad2c7e3cbecfcf48; Path=/;", func(w http.ResponseWriter, r *http.Request) {
			if raw, err := session.GetSession(r).RegenerateID(w, r); err != nil || raw == nil {
				t.Errorf("RegenerateID = %v, %v", raw, err)
			}
		})
		serve("", func(_ http.ResponseWriter, r *http.Request) {
			sess := session.GetSession(r)
			sess.Set("uname", "unknwon")
			if sess.ID() == "" || sess.Get("uname") != "unknwon" {
				t.Errorf("session %q has %v", sess.ID(), sess.Get("uname"))
			}
			if err := sess.Flush(); err != nil || sess.Get("uname") != nil {
				t.Errorf("uname %v after Flush, %v", sess.Get("uname"), err)
			}
			time.Sleep(2 * time.Second)
			sess.GC()
			if n, err := sess.Count(); n != 0 || err != nil {
				t.Errorf("Count = %d, %v", n, err)
			}
		})
		serve("", func(_ http.ResponseWriter, r *http.Request) {
			raw, err := session.GetSession(r).Read("../session/ad2c7e3cbecfcf486")
			if raw != nil || err == nil || !strings.Contains(err.Error(), "invalid 'sid': ") {
				t.Errorf("Read = %v, %v", raw, err)
			}
		})
	})
}

func TestLogin(t *testing.T) {
	dir := t.TempDir()
	url, c := serve(t, newSite(open(t, dir), session.Options{})), newClient(t)
	before := get(t, c, url+"/id") // an anonymous visit, to which nothing is put in
	if now := get(t, c, url+"/id"); now != before {
		t.Errorf("an empty session is %s and then %s", before, now)
	}
	get(t, c, url+"/set?k=colour&v=red")
	get(t, c, url+"/login?user=alice")
	id := get(t, c, url+"/id")
	if user, colour := get(t, c, url+"/get?k=user"), get(t, c, url+"/get?k=colour"); user != "alice" || colour != "red" || id == before {
		t.Errorf("user %s, colour %s, id %s, before %s", user, colour, id, before)
	}
	if names := files(t, dir); len(names) != 1 || filepath.Base(names[0]) != id+".json" {
		t.Errorf("files %q of session %s", names, id)
	}
	// The middleware releases the session that the handler has changed and destroyed.
	get(t, c, url+"/logout")
	if names := files(t, dir); len(names) != 0 {
		t.Errorf("files %q after the logout", names)
	}
	if user, now := get(t, c, url+"/get?k=user"), get(t, c, url+"/id"); user != "<nil>" || now == id {
		t.Errorf("after the logout the user is %s, the session %s, before %s", user, now, id)
	}
	// The first request of a client may be its login, or its logout.
	c = newClient(t)
	get(t, c, url+"/logout")
	get(t, c, url+"/login?user=bob")
	if user := get(t, c, url+"/get?k=user"); user != "bob" {
		t.Errorf("user %s", user)
	}
	// What was emptied is empty.
	get(t, c, url+"/flush")
	if user := get(t, c, url+"/get?k=user"); user != "<nil>" {
		t.Errorf("user %s after Flush", user)
	}
}

// A slow request that has the session, with changes or without, does not bring it back.
func TestLogoutRace(t *testing.T) {
	for _, query := range []string{"", "?k=colour"} {
		dir := t.TempDir()
		x := newSite(open(t, dir), session.Options{})
		url, c := serve(t, x), newClient(t)
		get(t, c, url+"/login?user=alice")
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

// A slow request that has the session of before a login does not bring it back, and has no part in the new one.
func TestLoginRace(t *testing.T) {
	dir := t.TempDir()
	x := newSite(open(t, dir), session.Options{})
	url, c := serve(t, x), newClient(t)
	get(t, c, url+"/set?k=colour&v=red")
	var wg sync.WaitGroup
	wg.Go(func() { fetch(t, c, url+"/slow?k=user") })
	<-x.entered
	get(t, c, url+"/login?user=alice")
	id := get(t, c, url+"/id")
	x.leave <- struct{}{}
	wg.Wait()
	if names := files(t, dir); len(names) != 1 || filepath.Base(names[0]) != id+".json" {
		t.Errorf("files %q of session %s", names, id)
	}
	if user := get(t, c, url+"/get?k=user"); user != "alice" {
		t.Errorf("user %s", user)
	}
}

// Nor does it where the logout only deletes a key: of two requests each stores what it has changed.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	x := newSite(open(t, dir), session.Options{})
	here, c := serve(t, x), newClient(t)
	there := serve(t, newSite(open(t, dir), session.Options{}))
	for _, other := range []string{here, there} {
		get(t, c, here+"/login?user=alice")
		get(t, c, here+"/set?k=shape&v=round")
		var wg sync.WaitGroup
		wg.Go(func() { fetch(t, c, here+"/slow?k=colour") })
		<-x.entered
		get(t, c, other+"/unset?k=user")
		get(t, c, other+"/set?k=shape&v=square")
		x.leave <- struct{}{}
		wg.Wait()
		for k, want := range map[string]string{"user": "<nil>", "shape": "square", "colour": "slow"} {
			if got := get(t, c, other+"/get?k="+k); got != want {
				t.Errorf("%s is %s, want %s", k, got, want)
			}
		}
	}
}

// Nor does a slow request that regenerates the session after the logout, wherever that was: it gets an
// error, and no session.
func TestRegenerateAfterLogout(t *testing.T) {
	dir := t.TempDir()
	x := newSite(open(t, dir), session.Options{})
	here := serve(t, x)
	there := serve(t, newSite(open(t, dir), session.Options{}))
	for _, other := range []string{here, there} {
		c := newClient(t)
		get(t, c, here+"/login?user=alice")
		old := get(t, c, here+"/id")
		var wg sync.WaitGroup
		wg.Go(func() {
			if code, body := fetch(t, c, here+"/slowlogin?user=alice"); code != http.StatusTeapot || !strings.Contains(body, "no such session") {
				t.Errorf("/slowlogin = %d %q", code, body)
			}
		})
		<-x.entered
		get(t, c, other+"/logout")
		late := newClient(t) // asks with the old id
		late.Jar.SetCookies(must(late.Get(other)).Request.URL, []*http.Cookie{{Name: "MacaronSession", Value: old}})
		if user := get(t, late, here+"/get?k=user"); user != "<nil>" {
			t.Errorf("user %s", user)
		}
		x.leave <- struct{}{}
		wg.Wait()
		if names := files(t, dir); len(names) != 0 {
			t.Errorf("files %q", names)
		}
		if user := get(t, c, here+"/get?k=user"); user != "<nil>" {
			t.Errorf("user %s", user)
		}
	}
}

// Of two requests that regenerate one session one gets it.
func TestRegenerateTwice(t *testing.T) {
	dir := t.TempDir()
	x := newSite(open(t, dir), session.Options{})
	url, c := serve(t, x), newClient(t)
	get(t, c, url+"/set?k=shape&v=round")
	var codes [2]int
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() { codes[i], _ = fetch(t, c, url+fmt.Sprint("/slowlogin?user=u", i)) })
		<-x.entered
	}
	x.leave <- struct{}{}
	x.leave <- struct{}{}
	wg.Wait()
	if codes[0]+codes[1] != http.StatusOK+http.StatusTeapot || len(files(t, dir)) != 1 {
		t.Errorf("the answers are %v, the files %q", codes, files(t, dir))
	}
	if user, shape := get(t, c, url+"/get?k=user"), get(t, c, url+"/get?k=shape"); len(user) != 2 || shape != "round" {
		t.Errorf("user %s, shape %s", user, shape)
	}
}

// A visitor who leaves nothing leaves no file. The session keeps its id meanwhile, its parallel requests
// are of one session, and a login takes along what the request has put in before.
func TestPending(t *testing.T) {
	dir := t.TempDir()
	s, h := openHooked(t, dir)
	x := newSite(s, session.Options{})
	url, c := serve(t, x), newClient(t)
	for range 20 {
		get(t, newClient(t), url+"/get?k=user")
		get(t, c, url+"/get?k=user")
	}
	id := get(t, c, url+"/id")
	if names := files(t, dir); len(names) != 0 || h.writes.Load() != 0 {
		t.Errorf("%d writes, files %q", h.writes.Load(), names)
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
	before := len(files(t, dir))
	c = newClient(t)
	get(t, c, url+"/id")
	wg.Go(func() { fetch(t, c, url+"/slow?k=user") })
	<-x.entered
	get(t, c, url+"/logout")
	x.leave <- struct{}{}
	wg.Wait()
	if names := files(t, dir); len(names) != before {
		t.Errorf("a pending session that was destroyed has left a file: %q", names)
	}
	// Another process gives it a new id, and a login all the same.
	there := serve(t, newSite(open(t, dir), session.Options{}))
	c = newClient(t)
	get(t, c, url+"/id")
	get(t, c, there+"/login?user=bob")
	if user := get(t, c, url+"/get?k=user"); user != "bob" {
		t.Errorf("user %s", user)
	}
}

// A session that ends between Exist and Read begins anew, without what it held.
func TestLogoutBetween(t *testing.T) {
	p := provider(open(t, t.TempDir()), 3600)
	sess := must(p.Read("between"))
	if err := errors.Join(sess.Set("user", "alice"), sess.Release(), p.Destroy("between"), p.Destroy("between")); err != nil {
		t.Fatal(err)
	}
	if again := must(p.Read("between")); again.Get("user") != nil {
		t.Errorf("user %v", again.Get("user"))
	}
}

// A hook counts a store's writes, and runs before the next one, which does not have its lock yet.
type hook struct {
	writes atomic.Int64
	once   func()
}

func (h *hook) Encode(_ string, doc []byte) ([]byte, error) {
	h.writes.Add(1)
	if fn := h.once; fn != nil {
		h.once = nil
		fn()
	}
	return doc, nil
}

func (h *hook) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

func openHooked(t *testing.T, dir string) (*filestore.Store, *hook) {
	t.Helper()
	h, opts := new(hook), options()
	opts.Codec = h
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, h
}

func TestRegenerate(t *testing.T) {
	dir := t.TempDir()
	s, h := openHooked(t, dir)
	p := provider(s, 3600)
	put := func(id, colour string) {
		t.Helper()
		sess := must(p.Read(id))
		if err := errors.Join(sess.Set("colour", colour), sess.Release()); err != nil {
			t.Fatal(err)
		}
	}
	colour := func(id string) any {
		t.Helper()
		if !must(p.Exist(id)) {
			return "none"
		}
		return must(p.Read(id)).Get("colour")
	}
	put("old", "red")
	put("taken", "blue")
	sess, err := p.Regenerate("old", "new")
	if err != nil || sess.ID() != "new" || sess.Get("colour") != "red" || colour("new") != "red" || colour("old") != "none" {
		t.Fatalf("Regenerate = %v; colour %v, was %v", err, colour("new"), colour("old"))
	}
	if err := errors.Join(sess.Set("colour", "green"), sess.Release()); err != nil || colour("new") != "green" {
		t.Errorf("Release of the new session: %v, %v", colour("new"), err)
	}
	for _, to := range []string{"taken", "new"} {
		if _, err := p.Regenerate("new", to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Regenerate to %s = %v", to, err)
		}
	}
	if colour("new") != "green" || colour("taken") != "blue" {
		t.Errorf("after a refusal: %v, %v", colour("new"), colour("taken"))
	}
	if sess, err := p.Regenerate("missing", "empty"); err != nil || sess.Get("colour") != nil || colour("missing") != "none" || colour("empty") != nil {
		t.Errorf("Regenerate of none = %v, %v", sess, err)
	}
	if _, err := p.Regenerate("missing", "missing"); err == nil || colour("missing") != "none" {
		t.Errorf("Regenerate of none to itself = %v", err)
	}

	// Meanwhile the old one is destroyed: a logout.
	put("old", "red")
	h.once = func() { p.Destroy("old") }
	if _, err = p.Regenerate("old", "out"); !errors.Is(err, filestore.ErrNotFound) || colour("out") != "none" || colour("old") != "none" {
		t.Errorf("Regenerate beside a logout = %v; colour %v", err, colour("out"))
	}
	// Or another request has changed it.
	put("old", "red")
	h.once = func() { put("old", "violet") }
	sess, err = p.Regenerate("old", "changed")
	if err != nil || sess.Get("colour") != "violet" || colour("changed") != "violet" || colour("old") != "none" {
		t.Errorf("Regenerate beside a change = %v; colour %v", err, colour("changed"))
	}
	// Or it cannot be read any more: then there is no new one.
	put("old", "red")
	name := filepath.Join(dir, "old.json")
	h.once = func() { os.WriteFile(name, []byte("damaged"), 0o600) }
	if _, err := p.Regenerate("old", "none"); !errors.Is(err, filestore.ErrCorrupt) || colour("none") != "none" {
		t.Errorf("Regenerate beside damage = %v, and the new one has %v", err, colour("none"))
	}
	if sess, err := p.Regenerate("old", "begun"); err != nil || sess.Get("colour") != nil {
		t.Errorf("Regenerate of what is damaged = %v", err)
	}
	if _, err := p.Regenerate("new", "old"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Regenerate to what is damaged = %v", err)
	}
	if file, err := os.ReadFile(name); string(file) != "damaged" {
		t.Errorf("the damaged file holds %q, %v", file, err)
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
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := provider(open(t, dir), 60)
		sess := must(p.Read("id"))
		if err := errors.Join(sess.Set("k", "v"), sess.Release()); err != nil {
			t.Fatal(err)
		}
		for range 3 { // each request is a new start, also one that changes nothing
			time.Sleep(time.Minute - 1)
			if !must(p.Exist("id")) {
				t.Fatal("ended too early")
			}
			if err := must(p.Read("id")).Release(); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := p.Count(); n != 1 || err != nil {
			t.Errorf("Count = %d, %v", n, err)
		}
		time.Sleep(time.Minute + time.Millisecond)
		if n, err := p.Count(); must(p.Exist("id")) || n != 0 || err != nil {
			t.Errorf("after the end it exists: %v; Count = %d, %v", must(p.Exist("id")), n, err)
		}
		if err := errors.Join(sess.Set("k", "w"), sess.Release()); err != nil || must(p.Exist("id")) {
			t.Errorf("Release of what has expired = %v, and it exists: %v", err, must(p.Exist("id")))
		}
		if p.GC(); len(files(t, dir)) > 0 {
			t.Errorf("files %q after GC", files(t, dir))
		}
		if v := must(p.Read("id")).Get("k"); v != nil {
			t.Errorf("an expired session has %v", v)
		}
	})
	dir := t.TempDir()
	url, c := serve(t, newSite(open(t, dir), session.Options{Maxlifetime: 3 * 3600})), newClient(t)
	get(t, c, url+"/login?user=alice")
	id := get(t, c, url+"/id")
	for range 2 { // the first renews it
		age(t, dir, 3*time.Hour-time.Minute)
		if user := get(t, c, url+"/get?k=user"); user != "alice" {
			t.Errorf("user %s before the end", user)
		}
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
	get(t, c, here+"/login?user=alice")
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
	p, last := provider(s, 3600), 0
	for range rounds {
		cmd, out := start(t, writeEnv, dir)
		for range 20 + rand.N(100) {
			if !out.Scan() {
				t.Fatal("the writer has ended")
			}
			if last, err = strconv.Atoi(out.Text()); err != nil {
				t.Fatal(out.Text())
			}
			sess := must(p.Read("victim"))
			if n, _ := sess.Get("n").(int); n < last || sess.Get("copy") != n || sess.Get("pad") != strings.Repeat("x", n*997%20_000) {
				t.Fatalf("beside the writer, after %d: %v, %v", last, n, sess.Get("copy"))
			}
		}
		cmd.Process.Kill()
		for out.Scan() { // what it was told before it died
			last, _ = strconv.Atoi(out.Text())
		}
		kill(cmd)
		sess := must(p.Read("victim"))
		if n, _ := sess.Get("n").(int); n < last || n > last+1 || sess.Get("copy") != n {
			t.Errorf("after %d and kill -9: %v, %v", last, n, sess.Get("copy"))
		}
	}
}

var malformed = []string{
	"", ".", "..", "../../etc/passwd", "..%2F..%2Fetc", "a/b", "a\\b", "\x00", "abc\x00def", "con", "NUL.json", "x.json", ".locks", "victim.json",
	"\xff\xfe", "é", strings.Repeat("a", 10_000), strings.Repeat("/", 10_000), "ABCDEF0123456789", "abcdef012345678!", " ",
}

// Ids that can name no session, and those of a client's choosing, are not found and not adopted.
func TestMalformed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	p, f := provider(s, 3600), newSite(s, session.Options{})
	for _, id := range append(malformed, "abcdef0123456789", "0000000000000000") {
		if exist, err := p.Exist(id); exist || err != nil {
			t.Errorf("Exist(%.40q) = %v, %v", id, exist, err)
		}
		if err := p.Destroy(id); err != nil {
			t.Errorf("Destroy(%.40q) = %v", id, err)
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
		r.Header.Set("Cookie", "MacaronSession="+id)
		f.ServeHTTP(w, r)
		if now := w.Body.String(); w.Code != http.StatusOK || len(now) != 16 || now == id || must(p.Exist(id)) {
			t.Errorf("cookie %.40q: %d, session %q", id, w.Code, now)
		}
	}
	// A program that asks for one gets it, in a file of its own.
	for _, id := range malformed {
		sess := must(p.Read(id))
		if err := errors.Join(sess.Set("id", id), sess.Release()); err != nil {
			t.Errorf("Release of %.40q = %v", id, err)
		}
	}
	for _, id := range malformed {
		if sess := must(p.Read(id)); sess.Get("id") != id {
			t.Errorf("Read(%.40q) has %.40q", id, sess.Get("id"))
		}
	}
	for _, name := range files(t, dir) {
		if !regexp.MustCompile(`^([0-9a-f]{16}|ABCDEF0123456789|sha256-[0-9a-f]{64})\.json$`).MatchString(filepath.Base(name)) {
			t.Errorf("file %s", name)
		}
	}
}

// captureLog returns what the middleware logs from now on, to the end of the test.
func captureLog(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer // log.Logger has a lock
	log.SetOutput(&b)
	t.Cleanup(func() { log.SetOutput(io.Discard) })
	return &b
}

// A session that cannot be read is none: its visitor gets another, of a new id, and may log in, and the
// file stays as it is. An Express session is not ours.
func TestDamaged(t *testing.T) {
	logged, dir := captureLog(t), t.TempDir()
	s := open(t, dir)
	srv := httptest.NewServer(newSite(s, session.Options{}))
	defer srv.Close()
	url, c, p := srv.URL, newClient(t), provider(s, 3600)
	get(t, c, url+"/login?user=alice")
	id := get(t, c, url+"/id")
	name := filepath.Join(dir, id+".json")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data := regexp.MustCompile(`"data":"[^"]*"`)
	for what, text := range map[string][]byte{
		"an empty file": nil, "half a file": whole[:len(whole)/2], "no JSON": []byte("hello"), "no base64": data.ReplaceAll(whole, []byte(`"data":"?"`)),
		"no gob": data.ReplaceAll(whole, []byte(`"data":"aGVsbG8="`)), "empty gob": data.ReplaceAll(whole, []byte(`"data":""`)),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/id", "/set?k=colour&v=red", "/login?user=bob", "/logout"} {
			c := newClient(t)
			c.Jar.SetCookies(must(c.Get(url+"/get")).Request.URL, []*http.Cookie{{Name: "MacaronSession", Value: id}})
			if code, body := fetch(t, c, url+path); code != http.StatusOK || body == id {
				t.Errorf("%s: %s = %d %q", what, path, code, body)
			}
			if now := get(t, c, url+"/id"); now == id {
				t.Errorf("%s: the id is the same after %s", what, path)
			}
			if user, want := get(t, c, url+"/get?k=user"), map[bool]string{true: "bob", false: "<nil>"}[path == "/login?user=bob"]; user != want {
				t.Errorf("%s: user %s after %s", what, user, path)
			}
		}
		if exist, err := p.Exist(id); exist || err != nil {
			t.Errorf("%s: Exist = %v, %v", what, exist, err)
		}
		if _, err := p.Count(); err != nil {
			t.Errorf("%s: Count = %v", what, err)
		}
		_, err := p.Read(id)
		if !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		} else if !strings.HasPrefix(err.Error(), "gochistore: ") || strings.Contains(err.Error(), id) {
			t.Errorf("%s: error %q", what, err)
		}
		p.GC()
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
		if _, err := p.Read(id); !errors.Is(err, filestore.ErrUnsafeFile) {
			t.Errorf("Read of a symbolic link = %v", err)
		}
		os.Remove(name)
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"alice","__lastAccess":%d}`, time.Now().UnixMilli())
	if err := os.WriteFile(name, []byte(express), 0o600); err != nil {
		t.Fatal(err)
	}
	if exist, err := p.Exist(id); exist || err != nil {
		t.Errorf("Exist of an Express session = %v, %v", exist, err)
	}
	n := must(p.Count())
	sess := must(p.Read(id))
	if sess.Set("user", "bob"); !errors.Is(sess.Release(), fs.ErrExist) || must(p.Count()) != n {
		t.Error("an Express session was released, or counts")
	}
	if err := p.Destroy(id); err != nil {
		t.Errorf("Destroy of an Express session = %v", err)
	}
	if _, err := p.Regenerate(id, "new"); err != nil {
		t.Errorf("Regenerate of an Express session = %v", err)
	}
	if now := get(t, c, url+"/id"); now == id {
		t.Error("an Express session was taken for ours")
	}
	if now, err := os.ReadFile(name); err != nil || string(now) != express {
		t.Errorf("the Express session is %q, %v", now, err)
	}
	srv.Close() // and all that logs has ended
	if text := logged.String(); !strings.Contains(text, "gochistore: a session that cannot be read counts as none: filestore: get ") || strings.Contains(text, id) {
		t.Errorf("logged %q", text)
	}
}

// A Release writes where something has changed, whatever way, and only there.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := openHooked(t, t.TempDir())
		p := provider(s, 3600)
		step := func(what string, want int64, fn func(session.RawStore)) {
			t.Helper()
			before := h.writes.Load()
			sess := must(p.Read("id"))
			fn(sess)
			if err := sess.Release(); err != nil {
				t.Fatal(err)
			}
			if got := h.writes.Load() - before; got != want {
				t.Errorf("%s: %d writes, want %d", what, got, want)
			}
		}
		nothing := func(session.RawStore) {}
		step("a new session", 0, nothing)
		step("a value that is gone by the end", 0, func(s session.RawStore) { s.Set("n", 1); s.Delete("n") })
		step("twenty values", 1, func(s session.RawStore) {
			for i := range 20 {
				s.Set("key"+strconv.Itoa(i), i)
			}
			s.Set("cart", &cart{Items: []string{"tea"}})
			s.Set("since", time.Now())
		})
		for range 10 {
			step("nothing in many values", 0, nothing)
		}
		step("the same value", 0, func(s session.RawStore) { s.Set("key3", 3) })
		step("a value of the same size", 1, func(s session.RawStore) { s.Set("key3", 4) })
		step("a change in place", 1, func(s session.RawStore) { s.Get("cart").(*cart).Items[0] = "mug" })
		step("a deletion", 1, func(s session.RawStore) { s.Delete("key5") })
		step("Flush", 1, func(s session.RawStore) { s.Flush() })
		step("nothing after Flush", 0, nothing)
		step("a value", 1, func(s session.RawStore) { s.Set("n", 4) })
		step("the value as another type", 1, func(s session.RawStore) { s.Set("n", int64(4)) })
		time.Sleep(time.Minute)
		step("nothing after a minute", 1, nothing)
		step("nothing at once", 0, nothing)
		p = provider(s, 7200)
		step("another lifetime", 1, nothing)
		time.Sleep(90 * time.Minute)
		if !must(p.Exist("id")) {
			t.Error("the new lifetime does not count")
		}
		sess := must(p.Read("id"))
		for i := range 3 {
			before := h.writes.Load()
			if err := errors.Join(sess.Set("n", i/2), sess.Release()); err != nil || h.writes.Load()-before != []int64{1, 0, 1}[i] {
				t.Errorf("Release %d in one request: %v, %d writes", i, err, h.writes.Load()-before)
			}
		}
	})
}

// Values come back as the types that they were.
func TestTypes(t *testing.T) {
	dir := t.TempDir()
	values := map[any]any{
		"string": "x\x00\xff", "int": 1, "int64": int64(1), "uint8": uint8(1), "float": 1.0, "bool": true, "bytes": []byte{0, 1}, 5: "a number's", int64(5): "another's",
		"time": time.Unix(5, 6).UTC(), "map": map[string]int{"a": 1}, "cart": &cart{Items: []string{"tea"}}, "any": map[string]any{"a": []any{1, "b"}},
	}
	s := open(t, dir)
	sess := must(provider(s, 60).Read("id"))
	for k, v := range values {
		if err := sess.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(sess.Release(), s.Close()); err != nil {
		t.Fatal(err)
	}
	sess = must(provider(open(t, dir), 60).Read("id"))
	for k, v := range values {
		if got := sess.Get(k); !reflect.DeepEqual(got, v) {
			t.Errorf("Get(%v) = %#v, want %#v", k, got, v)
		}
	}
}

type unregistered struct{ A int }

func TestErrors(t *testing.T) {
	s := open(t, t.TempDir())
	p := provider(s, 3600)
	const id = "5ec7e75ec7e75ec7"
	sess := must(p.Read(id))
	sess.Set("k", unregistered{})
	if err := sess.Release(); err == nil || !strings.HasPrefix(err.Error(), "gochistore: encode: ") {
		t.Errorf("Release of an unregistered type = %v", err)
	}
	sess.Set("k", strings.Repeat("x", 2<<20))
	if err := sess.Release(); !errors.Is(err, filestore.ErrTooLarge) || strings.Contains(err.Error(), id) {
		t.Errorf("Release of 2 MiB = %v", err)
	}
	sess.Set("k", "v")
	if err := sess.Release(); err != nil {
		t.Error(err)
	}

	var wg sync.WaitGroup
	for range 8 { // all find none at first; and one session may be used by many goroutines
		wg.Go(func() {
			if _, err := p.Read("together"); err != nil {
				t.Error(err)
			}
			for i := range 20 {
				if err := errors.Join(sess.Set(i, sess.Get(i+1)), sess.Delete(i), sess.Release()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	f := newSite(s, session.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, readErr := p.Read(id)
	_, regenerateErr := p.Regenerate(id, "new")
	_, countErr := p.Count()
	for i, err := range []error{readErr, regenerateErr, countErr, sess.Release(), p.Destroy(id)} {
		if !errors.Is(err, filestore.ErrClosed) || strings.Contains(err.Error(), id) {
			t.Errorf("after Close, %d: %v", i, err)
		}
	}
	logged := captureLog(t)
	if p.GC(); logged.Len() > 0 {
		t.Errorf("logged %q", logged.String())
	}
	for _, cookie := range []string{"", "MacaronSession=" + id} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/id", nil)
		r.Header.Set("Cookie", cookie)
		f.ServeHTTP(w, r)
		if w.Code != http.StatusInternalServerError {
			t.Errorf("after Close: %d", w.Code)
		}
	}
}

// torture has readers and writers on one session, shared out among the providers, and counts what goes
// wrong.
func torture(t *testing.T, providers ...session.Provider) (reads, failed, torn, lost int64) {
	t.Helper()
	const id = "7074747074747074"
	write := func(p session.Provider, n int) error {
		sess, err := p.Read(id)
		if err != nil {
			return err
		}
		pad := strings.Repeat(string(rune('a'+n%26)), n*997%20_000)
		return errors.Join(sess.Set("n", n), sess.Set("copy", n), sess.Set("pad", pad), sess.Release())
	}
	if err := write(providers[0], 1); err != nil {
		t.Fatal(err)
	}
	var r, f, to, l atomic.Int64
	stop := time.Now().Add(600 * time.Millisecond)
	var wg sync.WaitGroup
	for i := range 4 {
		p := providers[i%len(providers)]
		wg.Go(func() {
			for time.Now().Before(stop) {
				r.Add(1)
				if write(p, rand.N(1_000_000)) != nil {
					f.Add(1)
				}
			}
		})
		wg.Go(func() {
			for time.Now().Before(stop) {
				r.Add(1)
				if exist, err := p.Exist(id); !exist || err != nil {
					l.Add(1)
					continue
				}
				sess, err := p.Read(id)
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
	dir := t.TempDir()
	var theirs [2]session.Provider // as two processes have them
	for i := range theirs {
		theirs[i] = new(session.FileProvider)
		if err := theirs[i].Init(3600, dir); err != nil {
			t.Fatal(err)
		}
	}
	reads, failed, torn, lost := torture(t, theirs[0])
	t.Logf("the framework's file provider: of %d reads %d failed, %d torn, %d found no session", reads, failed, torn, lost)
	reads, failed, torn, lost = torture(t, theirs[0], theirs[1])
	t.Logf("two of them: of %d reads %d failed, %d torn, %d found no session", reads, failed, torn, lost)
	dir = t.TempDir()
	reads, failed, torn, lost = torture(t, provider(open(t, dir), 3600), provider(open(t, dir), 3600))
	t.Logf("two of ours: of %d reads %d failed, %d torn, %d found no session", reads, failed, torn, lost)
	if reads == 0 || failed+torn+lost > 0 {
		t.Error("not all reads have found the session whole")
	}
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
