package beegostore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/hex"
	"errors"
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
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beego/beego/v2/core/logs"
	"github.com/beego/beego/v2/server/web"
	beegocontext "github.com/beego/beego/v2/server/web/context"
	filter "github.com/beego/beego/v2/server/web/filter/session"
	"github.com/beego/beego/v2/server/web/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/beegostore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
)

// With this variable set the test binary is another process on the directory that BEEGOSTORE_TEST_DIR
// names: a site, or a writer of one session by the provider of the name.
const (
	child    = "BEEGOSTORE_TEST_CHILD"
	childDir = "BEEGOSTORE_TEST_DIR"
)

func TestMain(m *testing.M) {
	logs.SetLevel(logs.LevelEmergency)
	switch mode := os.Getenv(child); mode {
	case "":
		os.Exit(m.Run())
	case "site":
		s, err := filestore.Open(os.Getenv(childDir), options)
		if err != nil {
			panic(err)
		}
		fmt.Println(newSite(register(s), 3600).URL)
	default:
		var p session.Provider
		if mode == "file" {
			p, _ = session.GetProvider("file")
			_ = p.SessionInit(none, 3600, os.Getenv(childDir))
		} else {
			s, err := filestore.Open(os.Getenv(childDir), options)
			if err != nil {
				panic(err)
			}
			p, _ = session.GetProvider(register(s))
			_ = p.SessionInit(none, 3600, "")
		}
		fmt.Println("ready")
		go func() {
			for i := 0; ; i++ {
				write(p, i)
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
	os.Exit(0)
}

// start starts the test binary as another process, and returns its first line.
func start(t *testing.T, mode, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+mode, childDir+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(string(line[:n]))
}

var options = &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)}

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// none is what beego passes here and there.
var none context.Context

var names atomic.Int64

func register(s *filestore.Store) string {
	name := fmt.Sprintf("filestore-%d", names.Add(1))
	beegostore.Register(name, s)
	return name
}

// provide returns the provider on a new directory.
func provide(t *testing.T, seconds int64) (session.Provider, *filestore.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	p, err := session.GetProvider(register(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SessionInit(context.Background(), seconds, "whatever"); err != nil {
		t.Fatal(err)
	}
	return p, s, dir
}

func read(t *testing.T, p session.Provider, sid string) session.Store {
	t.Helper()
	st, err := p.SessionRead(none, sid)
	if err != nil {
		t.Fatalf("SessionRead(%.20q) = %v", sid, err)
	}
	return st
}

// begin stores a session.
func begin(t *testing.T, p session.Provider, sid string) session.Store {
	t.Helper()
	st := read(t, p, sid)
	_ = st.Set(none, "n", 1)
	st.SessionRelease(none, nil)
	exists(t, p, sid, true)
	return st
}

func exists(t *testing.T, p session.Provider, sid string, want bool) {
	t.Helper()
	if got, err := p.SessionExist(none, sid); err != nil || got != want {
		t.Errorf("SessionExist(%.20q) = %v, %v, want %v", sid, got, err, want)
	}
}

// expire makes the one session in dir as old as if nobody had used it for hours.
func expire(t *testing.T, dir string) {
	t.Helper()
	name := only(t, dir)
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(old, []byte(`"__lastAccess":`))
	if i < 0 {
		t.Fatalf("%s", old)
	}
	ago := time.Now().Add(-9 * time.Hour).UnixMilli()
	if err := os.WriteFile(name, fmt.Appendf(old[:i:i], `"__lastAccess":%d}`, ago), 0o600); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func only(t *testing.T, dir string) string {
	t.Helper()
	names := files(t, dir)
	if len(names) != 1 {
		t.Fatalf("%d session files, want 1: %q", len(names), names)
	}
	return names[0]
}

func logged(t *testing.T) *bytes.Buffer {
	b := new(bytes.Buffer)
	session.SLogger.SetOutput(b)
	t.Cleanup(func() { session.SLogger.SetOutput(os.Stderr) })
	return b
}

// The cases of beego's sess_file_test.go. Of them only those differ that want an error of SessionExist for
// an id that is too short, where we say that there is no such session, and SessionAll does not count
// sessions that hold nothing.
func TestBeegosOwn(t *testing.T) {
	const sid, sidNew = "Session_id", "Session_id_new"
	id := func(i int) string { return fmt.Sprintf("%s_%d", sid, i) }
	p, _, dir := provide(t, 180)
	exists(t, p, sid, false)
	exists(t, p, "", false)
	exists(t, p, "1", false)
	st := read(t, p, sid)
	exists(t, p, sid, true)
	_ = st.Set(none, "sessionValue", 18975)
	if v := st.Get(none, "sessionValue"); v != 18975 {
		t.Errorf("Get = %v", v)
	}
	for _, short := range []string{"", "1"} {
		if st, err := p.SessionRead(none, short); st != nil || !errors.Is(err, filestore.ErrInvalidID) {
			t.Errorf("SessionRead(%q) = %v, %v", short, st, err)
		}
	}
	if _, err := p.SessionRegenerate(none, sid, sidNew); err != nil {
		t.Error(err)
	}
	exists(t, p, sid, false)
	exists(t, p, sidNew, true)
	if err := p.SessionDestroy(none, sidNew); err != nil {
		t.Error(err)
	}
	exists(t, p, sidNew, false)
	if err := p.SessionDestroy(none, sidNew); err != nil {
		t.Error(err)
	}

	for i := range 546 {
		if got := begin(t, p, id(i)).SessionID(none); got != id(i) {
			t.Errorf("SessionID = %q, want %q", got, id(i))
		}
	}
	if n := p.SessionAll(none); n != 546 {
		t.Errorf("SessionAll = %d, want 546", n)
	}

	st = read(t, p, sid)
	for i := range 100 {
		_ = st.Set(none, i, i)
		if v := st.Get(none, i); v != i {
			t.Errorf("Get(%d) = %v", i, v)
		}
	}
	_ = st.Delete(none, 1)
	if v := st.Get(none, 1); v != nil || st.Get(none, 2) != 2 {
		t.Errorf("Get = %v after Delete", v)
	}
	_ = st.Flush(none)
	for i := range 100 {
		if v := st.Get(none, i); v != nil {
			t.Errorf("Get(%d) = %v after Flush", i, v)
		}
	}

	for i := range 85 {
		st := read(t, p, id(i))
		_ = st.Set(none, i, i)
		if i%2 == 0 {
			st.SessionRelease(none, httptest.NewRecorder())
		} else {
			st.SessionReleaseIfPresent(none, httptest.NewRecorder())
		}
	}
	for i := range 85 {
		if v := read(t, p, id(i)).Get(none, i); v != i {
			t.Errorf("Get(%d) = %v after the release", i, v)
		}
	}

	for _, release := range []func(session.Store){
		func(st session.Store) { st.SessionReleaseIfPresent(none, httptest.NewRecorder()) },
		func(st session.Store) { st.SessionRelease(none, nil) },
	} {
		st := read(t, p, sid)
		_ = st.Set(none, "a", 1)
		if err := p.SessionDestroy(none, sid); err != nil {
			t.Error(err)
		}
		release(st)
		exists(t, p, sid, false)
	}

	for _, name := range files(t, dir) {
		os.Remove(name)
	}
	begin(t, p, sid)
	expire(t, dir)
	p.SessionGC(none)
	exists(t, p, sid, false)
	if n := p.SessionAll(none); n != 0 {
		t.Errorf("SessionAll = %d after all have expired", n)
	}
	_ = read(t, p, sid) // an expired one begins anew
	exists(t, p, sid, true)
}

type user struct {
	Name string
	Tags []string
}

// Values come back as the types that they were, also to another process.
func TestTypes(t *testing.T) {
	gob.Register(user{})
	p, _, dir := provide(t, 180)
	values := map[any]any{
		"int": 1, "int64": int64(1) << 60, "float": 1.5, "bool": true, "string": "\xff\x00é", "bytes": []byte{0, 1}, 7: "an int's", "time": time.Unix(1, 2).UTC(),
		"map": map[string]any{"a": 1}, "slice": []any{1, "x"}, "user": user{"asta", []string{"a"}}, "duration": time.Second,
	}
	gob.Register(time.Time{})
	gob.Register(time.Duration(0))
	st := read(t, p, "sid")
	for k, v := range values {
		_ = st.Set(none, k, v)
	}
	st.SessionRelease(none, nil)
	p2, err := session.GetProvider(register(open(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []session.Provider{p, p2} {
		st := read(t, p, "sid")
		for k, v := range values {
			if got := st.Get(none, k); !reflect.DeepEqual(got, v) {
				t.Errorf("Get(%v) = %#v, want %#v", k, got, v)
			}
		}
	}
}

// A nil value is none; one that gob refuses is logged, not stored, and stops nothing else.
func TestUnstorable(t *testing.T) {
	log := logged(t)
	p, _, dir := provide(t, 180)
	st := read(t, p, "sid")
	_ = st.Set(none, "a", 1)
	_ = st.Set(none, "b", 2)
	_ = st.Set(none, "a", nil)
	st.SessionRelease(none, nil)
	st = read(t, p, "sid")
	if a, b := st.Get(none, "a"), st.Get(none, "b"); a != nil || b != 2 {
		t.Errorf("Get = %v, %v", a, b)
	}
	before, _ := os.ReadFile(only(t, dir))
	_ = st.Set(none, "f", func() {})
	st.SessionRelease(none, nil)
	if after, _ := os.ReadFile(only(t, dir)); !bytes.Equal(before, after) || !strings.Contains(log.String(), "beegostore: release: encode: gob") || strings.Contains(log.String(), "sid") {
		t.Errorf("logged %q, and the file became %s", log, after)
	}
	_ = st.Delete(none, "f")
	_ = st.Set(none, "c", 3)
	st.SessionRelease(none, nil)
	if v := read(t, p, "sid").Get(none, "c"); v != 3 {
		t.Errorf("Get = %v", v)
	}
}

// A release writes only if something has changed, in place too.
func TestWrites(t *testing.T) {
	p, _, dir := provide(t, 3600)
	st := read(t, p, "sid")
	_ = st.Set(none, "cart", map[string]int{"a": 1, "b": 2, "c": 3})
	_ = st.Set(none, "n", 1)
	st.SessionRelease(none, nil)
	name := only(t, dir)
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // gob's order of a map's members is another each time
		st := read(t, p, "sid")
		_ = st.Get(none, "cart")
		_ = st.Set(none, "n", 1)
		st.SessionRelease(none, nil)
		if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
			t.Fatalf("the file was replaced, %v", err)
		}
	}
	st = read(t, p, "sid")
	st.Get(none, "cart").(map[string]int)["d"] = 4
	st.SessionRelease(none, nil)
	st.Get(none, "cart").(map[string]int)["e"] = 5
	st.SessionRelease(none, nil) // and once more
	if cart := read(t, p, "sid").Get(none, "cart").(map[string]int); cart["d"] != 4 || cart["e"] != 5 {
		t.Errorf("cart = %v", cart)
	}
	st = read(t, p, "sid")
	for _, n := range []int{2, 1} { // back to what was loaded
		_ = st.Set(none, "n", n)
		st.SessionRelease(none, nil)
		if got := read(t, p, "sid").Get(none, "n"); got != n {
			t.Errorf("n = %v, want %d", got, n)
		}
	}
}

// The life is the manager's, from the last release that moved it; 0 is the store's TTL.
func TestLife(t *testing.T) {
	ctx := context.Background()
	for seconds, want := range map[int64]time.Duration{
		180: 3 * time.Minute, 0: time.Hour, -5: time.Hour, 1 << 62: 100 * 365 * 24 * time.Hour,
	} {
		p, s, _ := provide(t, seconds)
		begin(t, p, "sid")
		sess, err := s.Get(ctx, "sid")
		if err != nil || sess.ExpiresAt(time.Hour).Sub(sess.LastAccess) != want {
			t.Errorf("for %d s: %+v, %v, want %v", seconds, sess, err, want)
		}
	}

	p, s, _ := provide(t, 180)
	old, _ := s.Get(ctx, "sid")
	if old != nil {
		t.Fatal("not a new directory")
	}
	begin(t, p, "sid")
	st := read(t, p, "sid")
	_ = p.SessionInit(none, 7200, "") // a life that has changed is taken over by an unchanged session
	st.SessionRelease(none, nil)
	sess, err := s.Get(ctx, "sid")
	if err != nil || sess.ExpiresAt(0).Sub(sess.LastAccess) != 2*time.Hour {
		t.Errorf("%+v, %v", sess, err)
	}
}

// A session is renewed by a release that changes nothing.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, TouchAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, _ := session.GetProvider(register(s))
	_ = p.SessionInit(none, 3600, "")
	st := begin(t, p, "sid")
	before, _ := s.Get(context.Background(), "sid")
	for start := time.Now(); time.Since(start) < 3*time.Millisecond; { // files have milliseconds
	}
	st.SessionRelease(none, nil)
	after, err := s.Get(context.Background(), "sid")
	if err != nil || !after.LastAccess.After(before.LastAccess) {
		t.Errorf("last access %v, then %v, %v", before.LastAccess, after, err)
	}
}

func TestRegenerate(t *testing.T) {
	log := logged(t)
	p, _, dir := provide(t, 180)
	st := begin(t, p, "old")

	// An id that is taken, by whomever, is refused, and nothing is lost.
	begin(t, p, "taken")
	for _, sid := range []string{"taken", "old"} {
		if st, err := p.SessionRegenerate(none, "old", sid); st != nil || !errors.Is(err, os.ErrExist) || strings.Contains(err.Error(), sid) {
			t.Errorf("SessionRegenerate to %s = %v, %v", sid, st, err)
		}
	}
	exists(t, p, "old", true)

	st2, err := p.SessionRegenerate(none, "old", "new")
	if err != nil || st2.Get(none, "n") != 1 || st2.SessionID(none) != "new" {
		t.Fatalf("SessionRegenerate = %v, %v", st2, err)
	}
	exists(t, p, "old", false)
	_ = st2.Set(none, "m", 2)
	st2.SessionRelease(none, nil)
	_ = st.Set(none, "stale", true)
	st.SessionRelease(none, nil) // of a request that began before
	exists(t, p, "old", false)
	if st := read(t, p, "new"); st.Get(none, "n") != 1 || st.Get(none, "m") != 2 || st.Get(none, "stale") != nil {
		t.Error("the new session is not what it was")
	}

	if st, err := p.SessionRegenerate(none, "old", "again"); st != nil || !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("the second SessionRegenerate = %v, %v", st, err)
	}
	for i, missing := range []string{"none", "", "x", "../../etc/passwd", "\x00", strings.Repeat("x", 10_000)} {
		sid := fmt.Sprint("sid", i)
		st, err := p.SessionRegenerate(none, missing, sid)
		if err != nil || st.SessionID(none) != sid {
			t.Fatalf("SessionRegenerate(%.20q) = %v, %v", missing, st, err)
		}
		exists(t, p, sid, true)
		if missing != "" && missing != "x" {
			exists(t, p, missing, false)
		}
	}

	// Where the old cannot be read it stays, and an empty one begins.
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := p.SessionRegenerate(none, "bad", "good"); err != nil || st.SessionID(none) != "good" {
		t.Errorf("SessionRegenerate(bad) = %v, %v", st, err)
	}
	if st, err := p.SessionRegenerate(none, "new", "bad"); st != nil || !errors.Is(err, os.ErrExist) {
		t.Errorf("SessionRegenerate to bad = %v, %v", st, err)
	}
	if err := p.SessionDestroy(none, "bad"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "bad.json")); string(got) != "{" {
		t.Errorf("the file is now %q, %v", got, err)
	}
	if strings.Count(log.String(), "file holds no session") != 2 || strings.Contains(log.String(), "bad") {
		t.Errorf("logged %q", log)
	}
}

// Any id has a session of its own, and none leaves the directory.
func TestIDs(t *testing.T) {
	p, _, dir := provide(t, 180)
	ids := []string{"../../up", "/etc/passwd", "a/b", "..", "\x00\x00", "con", "prefix:0123", "a.json", strings.Repeat("x", 10_000), "\xff\xfe"}
	for _, sid := range ids {
		exists(t, p, sid, false)
		st := read(t, p, sid)
		_ = st.Set(none, "id", sid)
		st.SessionRelease(none, nil)
	}
	for _, sid := range ids {
		if v := read(t, p, sid).Get(none, "id"); v != sid {
			t.Errorf("Get(id) of %.20q = %.20q", sid, v)
		}
	}
	if n := len(files(t, dir)); n != len(ids) {
		t.Errorf("%d files, want %d", n, len(ids))
	}
	if around, _ := os.ReadDir(filepath.Dir(dir)); len(around) != 1 {
		t.Errorf("beside the directory are %v", around)
	}
}

// A closed store's errors are passed on or logged, and nothing panics; a canceled request is stored.
func TestContexts(t *testing.T) {
	log := logged(t)
	p, s, _ := provide(t, 180)
	gone, cancel := context.WithCancel(context.Background())
	st := read(t, p, "sid")
	cancel()
	_ = st.Set(gone, "n", 1)
	st.SessionRelease(gone, nil)
	if v := read(t, p, "sid").Get(none, "n"); v != 1 {
		t.Errorf("Get = %v after a release by a client that has gone", v)
	}
	if err := p.SessionDestroy(gone, "sid"); err != nil {
		t.Error(err)
	}
	exists(t, p, "sid", false)

	st = begin(t, p, "sid2")
	_ = st.Set(none, "n", 2)
	s.Close()
	_, err1 := p.SessionExist(none, "sid")
	_, err2 := p.SessionRead(none, "sid")
	_, err3 := p.SessionRegenerate(none, "sid", "sid3")
	for _, err := range []error{err1, err2, err3, p.SessionDestroy(none, "sid")} {
		if !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
	st.SessionRelease(none, nil)
	if p.SessionAll(none) != 0 || strings.Count(log.String(), "store is closed") != 3 || strings.Contains(log.String(), "sid") {
		t.Errorf("logged %q", log)
	}
}

// Register replaces the provider of a name, for managers that are made later.
func TestRegister(t *testing.T) {
	a, b := open(t, t.TempDir()), open(t, t.TempDir())
	beegostore.Register("twice", a)
	m, err := session.NewManager("twice", &session.ManagerConfig{Gclifetime: 60})
	if err != nil {
		t.Fatal(err)
	}
	beegostore.Register("twice", b)
	m2, err := session.NewManager("twice", &session.ManagerConfig{Gclifetime: 60})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, m.GetProvider(), "sid")
	if m.GetActiveSession() != 1 || m2.GetActiveSession() != 0 {
		t.Errorf("%d and %d sessions, want 1 and 0", m.GetActiveSession(), m2.GetActiveSession())
	}
}

// A site is beego's server on a provider.
type site struct {
	*httptest.Server
	started, resume chan struct{} // of /slow
}

// controller is for what beego does in Controller alone.
type controller struct {
	web.Controller
	Site *site // exported, or beego does not copy it
}

func (c *controller) Login() {
	if err := c.SessionRegenerateID(); err != nil {
		c.Ctx.Output.SetStatus(500)
		return
	}
	_ = c.SetSession("user", c.GetString("user"))
	c.Ctx.WriteString("welcome")
}

// SlowLogin answers 409 where there is no session to go on with.
func (c *controller) SlowLogin() {
	_ = c.SetSession("slow", true)
	c.Site.started <- struct{}{}
	<-c.Site.resume
	if err := c.SessionRegenerateID(); err != nil {
		if errors.Is(err, filestore.ErrNotFound) {
			c.Ctx.Output.SetStatus(409)
		}
		return
	}
	_ = c.SetSession("user", c.GetString("user"))
}

func (c *controller) Logout() {
	if err := c.DestroySession(); err != nil {
		c.Ctx.Output.SetStatus(500)
	}
	c.Ctx.WriteString("bye")
}

// LogoutByManager leaves the session with the request, so that beego releases it afterwards.
func (c *controller) LogoutByManager() {
	web.GlobalSessions.SessionDestroy(c.Ctx.ResponseWriter, c.Ctx.Request)
	_ = c.SetSession("farewell", true)
	c.Ctx.WriteString("bye")
}

func newSite(provider string, seconds int64) *site {
	cfg := *web.BConfig
	cfg.RunMode = web.PROD
	cfg.WebConfig.AutoRender = false
	cfg.WebConfig.Session.SessionOn = true
	var err error
	web.GlobalSessions, err = session.NewManager(provider, &session.ManagerConfig{CookieName: "sid", EnableSetCookie: true, Gclifetime: seconds})
	if err != nil {
		panic(err)
	}
	app := web.NewHttpServerWithCfg(&cfg)
	s := &site{started: make(chan struct{}), resume: make(chan struct{})}
	app.Router("/login", &controller{}, "get:Login")
	app.Router("/slowlogin", &controller{Site: s}, "get:SlowLogin")
	app.Router("/logout", &controller{}, "get:Logout")
	app.Router("/logout2", &controller{}, "get:LogoutByManager")
	app.Get("/user", func(ctx *beegocontext.Context) { ctx.WriteString(fmt.Sprint(ctx.Input.Session("user"))) })
	app.Get("/count", func(ctx *beegocontext.Context) {
		n, _ := ctx.Input.Session("n").(int)
		ctx.Output.Session("n", n+1)
		ctx.WriteString(strconv.Itoa(n + 1))
	})
	app.Get("/forget", func(ctx *beegocontext.Context) { _ = ctx.Input.CruSession.Delete(none, "user") })
	app.Get("/seen", func(ctx *beegocontext.Context) { ctx.WriteString(fmt.Sprint(ctx.Input.Session("slow"))) })
	app.Get("/slow", func(ctx *beegocontext.Context) {
		ctx.Output.Session("slow", true)
		s.started <- struct{}{}
		<-s.resume
		ctx.WriteString(fmt.Sprint(ctx.Input.Session("user")))
	})
	app.Handlers.Init()
	s.Server = httptest.NewServer(app.Handlers)
	return s
}

func openSite(t *testing.T, dir string) (*site, *filestore.Store) {
	t.Helper()
	s := open(t, dir)
	site := newSite(register(s), 3600)
	t.Cleanup(site.Close)
	return site, s
}

type browser struct {
	t    *testing.T
	jar  http.CookieJar
	site string
}

func newBrowser(t *testing.T, site string) *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{t, jar, site}
}

func (b *browser) do(path string) (int, string) {
	b.t.Helper()
	resp, err := (&http.Client{Jar: b.jar}).Get(b.site + path)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return resp.StatusCode, string(body)
}

func (b *browser) get(path, want string) {
	b.t.Helper()
	if code, got := b.do(path); code != 200 || got != want {
		b.t.Errorf("GET %s = %d %q, want %q", path, code, got, want)
	}
}

func (b *browser) id() string {
	u, _ := url.Parse(b.site)
	for _, c := range b.jar.Cookies(u) {
		return c.Value
	}
	return ""
}

func (b *browser) setID(id string) {
	u, _ := url.Parse(b.site)
	b.jar.SetCookies(u, []*http.Cookie{{Name: "sid", Value: url.QueryEscape(id), Path: "/"}})
}

func TestSite(t *testing.T) {
	dir := t.TempDir()
	site, s := openSite(t, dir)
	b := newBrowser(t, site.URL)
	b.get("/count", "1")
	planted := b.id()
	b.get("/login?user=asta", "welcome")
	if id := b.id(); id == planted || id == "" {
		t.Errorf("the login left the id as it was: %v", id == planted)
	}
	b.get("/user", "asta")
	b.get("/count", "2")
	only(t, dir)
	other := newBrowser(t, site.URL)
	other.setID(planted)
	other.get("/user", "<nil>")

	// A restart.
	site.Close()
	s.Close()
	site, _ = openSite(t, dir)
	b.site, other.site = site.URL, site.URL
	b.setID(b.id()) // the port is another, and the cookie of none
	b.get("/user", "asta")
	b.get("/count", "3")

	stolen := b.id()
	b.get("/logout", "bye")
	if b.id() != "" {
		t.Error("the browser has its cookie still")
	}
	b.setID(stolen)
	b.get("/user", "<nil>")
	if b.id() == stolen {
		t.Error("the id of a session that was destroyed was adopted")
	}

	b.get("/login?user=asta", "welcome")
	stolen = b.id()
	b.get("/logout2", "bye")
	b.setID(stolen)
	b.get("/user", "<nil>")

	// Expiry.
	for _, name := range files(t, dir) {
		os.Remove(name)
	}
	b.get("/login?user=asta", "welcome")
	b.get("/user", "asta")
	expire(t, dir)
	old := b.id()
	b.get("/user", "<nil>")
	if b.id() == old {
		t.Error("the id of a session that has expired was adopted")
	}
}

// A slow request does not bring back what was destroyed, or moved by a login, while it ran.
func TestLogoutDuringSlowRequest(t *testing.T) {
	for _, path := range []string{"/logout", "/logout2", "/login?user=other"} {
		t.Run(path[1:6], func(t *testing.T) {
			dir := t.TempDir()
			site, s := openSite(t, dir)
			b := newBrowser(t, site.URL)
			b.get("/count", "1")
			b.get("/login?user=asta", "welcome")
			old := b.id()
			slow := newBrowser(t, site.URL)
			slow.setID(old)
			done := make(chan struct{})
			go func() {
				defer close(done)
				slow.get("/slow", "asta")
			}()
			<-site.started
			if code, _ := b.do(path); code != 200 {
				t.Errorf("GET %s = %d", path, code)
			}
			site.resume <- struct{}{}
			<-done
			if _, err := s.Get(context.Background(), old); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("the session is back: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, old+".json")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its file is back: %v", err)
			}
			slow.get("/user", "<nil>")
		})
	}
}

// Nor does it undo a logout that deletes a key, nor log in anew by a new id.
func TestSlowRequests(t *testing.T) {
	dir := t.TempDir()
	site, _ := openSite(t, dir)
	slowly := func(b *browser, path string, want int, meanwhile func()) {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if code, _ := b.do(path); code != want {
				t.Errorf("GET %s = %d, want %d", path, code, want)
			}
		}()
		<-site.started
		meanwhile()
		site.resume <- struct{}{}
		<-done
	}
	b := newBrowser(t, site.URL)
	b.get("/login?user=asta", "welcome")
	slowly(b, "/slow", 200, func() { b.get("/forget", "") })
	b.get("/user", "<nil>")
	b.get("/seen", "true")

	for _, logout := range []string{"/logout", "/logout2"} {
		b = newBrowser(t, site.URL)
		b.get("/login?user=asta", "welcome")
		before := len(files(t, dir))
		slow := newBrowser(t, site.URL)
		slow.setID(b.id())
		slowly(slow, "/slowlogin?user=asta", 409, func() { b.get(logout, "bye") })
		slow.get("/user", "<nil>")
		if after := len(files(t, dir)); after != before-1 {
			t.Errorf("%d files, want %d", after, before-1)
		}
	}
}

// A visitor who leaves nothing leaves no file. What he does later is of one session, whatever he does at once.
func TestPending(t *testing.T) {
	dir := t.TempDir()
	site, _ := openSite(t, dir)
	b := newBrowser(t, site.URL)
	for range 10 {
		newBrowser(t, site.URL).get("/user", "<nil>")
		b.get("/user", "<nil>")
	}
	id := b.id()
	b.get("/logout2", "bye") // which puts something in
	b.get("/user", "<nil>")
	if names := files(t, dir); len(names) > 0 || b.id() == id {
		t.Errorf("files %q; the id is the same: %v", names, b.id() == id)
	}
	id = b.id()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.do("/slow")
	}()
	<-site.started
	b.get("/count", "1")
	site.resume <- struct{}{}
	<-done
	b.get("/count", "2")
	b.get("/seen", "true")
	only(t, dir)
	if b.id() != id {
		t.Error("the session has got another id")
	}
	// What was put in before a login comes along.
	b = newBrowser(t, site.URL)
	b.get("/user", "<nil>")
	id = b.id()
	go func() { <-site.started; site.resume <- struct{}{} }()
	if code, _ := b.do("/slowlogin?user=asta"); code != 200 {
		t.Errorf("/slowlogin = %d", code)
	}
	b.get("/user", "asta")
	b.get("/seen", "true")
	if n := len(files(t, dir)); n != 2 || b.id() == id {
		t.Errorf("%d files; the id is the same: %v", n, b.id() == id)
	}
}

// Parallel requests on one session lose no login and see no half of a session.
func TestParallel(t *testing.T) {
	site, _ := openSite(t, t.TempDir())
	b := newBrowser(t, site.URL)
	b.get("/count", "1")
	b.get("/login?user=asta", "welcome")
	id := b.id()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b := newBrowser(t, site.URL)
			b.setID(id)
			for range 25 {
				b.get("/user", "asta")
				if code, n := b.do("/count"); code != 200 || n == "1" {
					t.Errorf("GET /count = %d %q", code, n)
				}
			}
			if b.id() != id {
				t.Error("a request was given another session")
			}
		})
	}
	wg.Wait()
}

// What the client sends is never taken for an id that is not there, whatever it is.
func TestClientsIDs(t *testing.T) {
	dir := t.TempDir()
	site, _ := openSite(t, dir)
	for _, id := range []string{"", "x", "mine", "../../etc/passwd", "\x00", "a/b", strings.Repeat("x", 10_000), strings.Repeat("a", 32)} {
		b := newBrowser(t, site.URL)
		b.setID(id)
		b.get("/count", "1")
		got := b.id()
		if raw, err := hex.DecodeString(got); err != nil || len(raw) != 16 || got == id {
			t.Errorf("for %.20q the session has the id %q", id, got)
		}
		b.get("/count", "2")
	}
	if n := len(files(t, dir)); n != 8 {
		t.Errorf("%d files, want 8", n)
	}
}

// A damaged file stays, and its client gets another session; a session of Express is none of ours.
func TestForeign(t *testing.T) {
	log := logged(t)
	dir := t.TempDir()
	site, s := openSite(t, dir)
	soon := time.Now().UnixMilli()
	for id, content := range map[string]string{
		"aacorrupt": `{"cookie":`,
		"bbcorrupt": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"?","generation":"x","__lastAccess":%d}`, soon),
		"cccorrupt": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"Z29i","generation":"x","__lastAccess":%d}`, soon),
	} {
		name := filepath.Join(dir, id+".json")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for path, user := range map[string]string{"/user": "<nil>", "/count": "<nil>", "/login?user=x": "x", "/logout": "<nil>"} {
			b := newBrowser(t, site.URL)
			b.setID(id)
			if code, body := b.do(path); code != 200 || b.id() == id {
				t.Errorf("GET %s of %s = %d %q", path, id, code, body)
			}
			b.get("/user", user)
		}
		p, _ := session.GetProvider(register(s))
		if st, err := p.SessionRead(none, id); st != nil || !errors.Is(err, filestore.ErrCorrupt) || strings.Contains(err.Error(), id) {
			t.Errorf("SessionRead(%s) = %v, %v", id, st, err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("the file of %s is now %q, %v", id, got, err)
		}
		os.Remove(name)
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},"user":"tj","__lastAccess":%d}`, soon)
	name := filepath.Join(dir, "express.json")
	if err := os.WriteFile(name, []byte(express), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, site.URL)
	b.setID("express")
	b.get("/user", "<nil>")
	if b.id() == "express" {
		t.Error("a session of Express was taken for ours")
	}
	p, _ := session.GetProvider(register(s))
	if log.Len() == 0 || strings.Contains(log.String(), "corrupt") {
		t.Errorf("logged %q", log)
	}
	log.Reset()
	st := read(t, p, "express")
	_ = st.Set(none, "user", "asta")
	st.SessionRelease(none, nil)
	if !strings.Contains(log.String(), "file already exists") {
		t.Errorf("logged %q", log)
	}
	log.Reset()
	if err := p.SessionDestroy(none, "express"); err != nil {
		t.Error(err)
	}
	if st, err := p.SessionRegenerate(none, "express", "other"); err != nil || st.Get(none, "user") != nil {
		t.Errorf("SessionRegenerate(express) = %v, %v", st, err)
	}
	if n := p.SessionAll(none); n != 6 { // of /count and /login
		t.Errorf("SessionAll = %d, want 6", n)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != express {
		t.Errorf("the file of Express is now %q, %v", got, err)
	}
	if log.Len() > 0 {
		t.Errorf("logged %q", log)
	}
}

// The filter of package filter/session, which passes the request's context to the release.
func TestFilter(t *testing.T) {
	s := open(t, t.TempDir())
	name := register(s)
	h := web.NewControllerRegister()
	h.InsertFilterChain("*", filter.Session(session.ProviderType(name), session.CfgCookieName("sid"), session.CfgSetCookie(true), session.CfgGcLifeTime(3600)))
	h.Get("/count", func(ctx *beegocontext.Context) {
		st, err := ctx.Session()
		if err != nil {
			t.Error(err)
			return
		}
		n, _ := st.Get(none, "n").(int)
		_ = st.Set(none, "n", n+1)
		ctx.WriteString(strconv.Itoa(n + 1))
	})
	h.Init()
	srv := httptest.NewServer(h)
	defer srv.Close()
	b := newBrowser(t, srv.URL)
	b.get("/count", "1")
	b.get("/count", "2")
}

// Two processes are one site, and what one has answered outlives its kill -9.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	site, _ := openSite(t, dir)
	cmd, theirs := start(t, "site", dir)
	b := newBrowser(t, site.URL) // cookies do not tell ports apart
	b.get("/login?user=asta", "welcome")
	for i := range 20 {
		b.site = []string{site.URL, theirs}[i%2]
		b.get("/count", strconv.Itoa(i+1))
		b.get("/user", "asta")
	}

	rounds := 5
	if os.Getenv("FILESTORE_LONG") != "" {
		rounds = 100
	}
	for round := range rounds {
		var last atomic.Int64
		var wg sync.WaitGroup
		w := newBrowser(t, theirs)
		w.get("/count", "1")
		last.Store(1)
		for range 4 { // sessions beside, so that it dies in the middle of some write
			wg.Go(func() {
				c := &http.Client{}
				for {
					resp, err := c.Get(theirs + "/count")
					if err != nil {
						return
					}
					resp.Body.Close()
				}
			})
		}
		wg.Go(func() {
			for {
				resp, err := (&http.Client{Jar: w.jar}).Get(theirs + "/count")
				if err != nil {
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if n, _ := strconv.ParseInt(string(body), 10, 64); err == nil && n > 0 {
					last.Store(n)
				}
			}
		})
		for last.Load() < int64(10+round) {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Kill()
		cmd.Wait()
		wg.Wait()
		w.site = site.URL
		if _, body := w.do("/count"); body != strconv.FormatInt(last.Load()+1, 10) && body != strconv.FormatInt(last.Load()+2, 10) {
			t.Errorf("GET /count = %s, of which %d was answered", body, last.Load())
		}
		b.site = site.URL
		b.get("/user", "asta")
		cmd, theirs = start(t, "site", dir)
	}
	for _, name := range files(t, dir) {
		data, err := os.ReadFile(name)
		if err == nil {
			err = new(filestore.Session).UnmarshalJSON(data)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const tortured = "0123456789abcdef"

func write(p session.Provider, i int) {
	st, err := p.SessionRead(none, tortured)
	if err != nil {
		return // the readers count those
	}
	_ = st.Set(none, "v", strings.Repeat(string(rune('a'+i%26)), 20_000))
	st.SessionRelease(none, nil)
}

// torture reads a session beside writers of it.
func torture(p session.Provider, writers int, d time.Duration) (reads, failed, torn, lost int64) {
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for w := range writers {
		wg.Go(func() {
			for i := w; time.Now().Before(end); i++ {
				write(p, i)
			}
		})
	}
	var r, f, x, l atomic.Int64
	for range 3 {
		wg.Go(func() {
			for time.Now().Before(end) {
				r.Add(1)
				st, err := p.SessionRead(none, tortured)
				if err != nil {
					f.Add(1)
					continue
				}
				v, ok := st.Get(none, "v").(string)
				if !ok {
					l.Add(1)
				} else if len(v) != 20_000 || strings.Trim(v, v[:1]) != "" {
					x.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return r.Load(), f.Load(), x.Load(), l.Load()
}

// No read beside writers fails, is torn or finds nothing; beego's file provider is counted beside it.
func TestTorture(t *testing.T) {
	logged(t)
	d := 500 * time.Millisecond
	if os.Getenv("FILESTORE_LONG") != "" {
		d = 30 * time.Second
	}
	for _, writers := range []int{3, 0} {
		name := "goroutines"
		if writers == 0 {
			name = "another process"
		}
		p, _, dir := provide(t, 3600)
		write(p, 0)
		if writers == 0 {
			start(t, "filestore", dir)
		}
		reads, failed, torn, lost := torture(p, writers, d)
		t.Logf("beegostore beside writers in %s: %d reads, %d failed, %d torn, %d lost", name, reads, failed, torn, lost)
		if failed+torn+lost > 0 || reads == 0 {
			t.Error("want none")
		}

		dir = t.TempDir()
		p, _ = session.GetProvider("file")
		_ = p.SessionInit(none, 3600, dir)
		write(p, 0)
		if writers == 0 {
			start(t, "file", dir)
		}
		reads, failed, torn, lost = torture(p, writers, d)
		t.Logf("beego's file provider beside writers in %s: %d reads, %d failed, %d torn, %d lost", name, reads, failed, torn, lost)
	}
}

// beego's file provider beside a logout.
func TestTheirLogout(t *testing.T) {
	p, _ := session.GetProvider("file")
	_ = p.SessionInit(none, 3600, t.TempDir())
	back := 0
	for range 100 {
		slow := read(t, p, tortured)
		_ = p.SessionDestroy(none, tortured)
		slow.SessionRelease(none, nil)
		if ok, _ := p.SessionExist(none, tortured); ok {
			back++
		}
		_ = p.SessionDestroy(none, tortured)
	}
	t.Logf("beego's file provider brought %d of 100 sessions back", back)
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
