package beegostore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	"github.com/sessionfilestore/filestore/internal/storetest"
)

type user struct {
	Name string
	Tags []string
}

// The sites differ in their logout. The manager's leaves the session with the request, and beego releases it.
var (
	site    = newSite("DestroySession", (*controller).DestroySession)
	manager = newSite("SessionDestroy", func(c *controller) error {
		web.GlobalSessions.SessionDestroy(c.Ctx.ResponseWriter, c.Ctx.Request)
		return c.SetSession("user", "set afterwards")
	})
)

func newSite(name string, logout func(*controller) error) *adaptertest.Site {
	return &adaptertest.Site{
		Name: name,
		Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
			cfg := *web.BConfig
			cfg.RunMode = web.PROD
			cfg.WebConfig.AutoRender = false
			cfg.WebConfig.Session.SessionOn = true
			var err error
			web.GlobalSessions, err = session.NewManager(register(s), &session.ManagerConfig{CookieName: "sid", EnableSetCookie: true, Gclifetime: 3 * 3600})
			if err != nil {
				panic(err)
			}
			app := web.NewHttpServerWithCfg(&cfg)
			app.Router("/*", &controller{Serve: answer, Logout: logout}, "get:Get")
			app.Handlers.Init()
			return adaptertest.Serve(app.Handlers)
		},
		Cookie: "sid",
		Sign:   url.QueryEscape,
		Life:   3 * time.Hour,
		Values: map[any]any{
			"int": 1, "int64": int64(1) << 60, "float": 1.5, "bool": true, "string": "\xff\x00é", "bytes": []byte{0, 1}, 7: "an int's", "time": time.Unix(1, 2).UTC(),
			"map": map[string]any{"a": 1}, "slice": []any{1, "x"}, "type": user{"asta", []string{"a"}}, "duration": time.Second,
		},
		Garbage: []string{`"Z29i"`},
	}
}

// controller is for what beego does in Controller alone. Its exported fields are copied by beego.
type controller struct {
	web.Controller
	Serve  adaptertest.Answer
	Logout func(*controller) error
}

func (c *controller) Get() {
	code, body := c.Serve(c.Ctx.Request.URL.Path, func(name string) string { return c.GetString(name) }, adaptertest.Session{
		ID:     func() string { return c.CruSession.SessionID(none) },
		Get:    c.GetSession,
		Set:    func(key, value any) { c.SetSession(key, value) },
		Delete: func(key any) { c.DelSession(key) },
		Renew:  c.SessionRegenerateID,
		End:    func() error { return c.Logout(c) },
	})
	c.Ctx.ResponseWriter.WriteHeader(code)
	c.Ctx.WriteString(body)
}

func TestMain(m *testing.M) {
	logs.SetLevel(logs.LevelEmergency)
	session.SLogger.SetOutput(toLog{})
	gob.Register(user{})
	gob.Register(time.Time{})
	gob.Register(time.Duration(0))
	adaptertest.Main(m, site, manager)
}

// toLog passes on to package log.
type toLog struct{}

func (toLog) Write(p []byte) (int, error) { return log.Writer().Write(p) }

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestManager(t *testing.T) { adaptertest.Run(t, manager) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	return storetest.Open(t, dir, nil)
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

func only(t *testing.T, dir string) string {
	t.Helper()
	names := storetest.Files(t, dir)
	if len(names) != 1 {
		t.Fatalf("%d session files, want 1: %q", len(names), names)
	}
	return names[0]
}

func logged(t *testing.T) *bytes.Buffer {
	b := new(bytes.Buffer)
	session.SLogger.SetOutput(b)
	t.Cleanup(func() { session.SLogger.SetOutput(toLog{}) })
	return b
}

// The cases of beego's sess_file_test.go. Two things differ: they want an error of
// SessionExist for an id that is too short, and we say that there is no such session; and SessionAll does not count
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

	for _, name := range storetest.Files(t, dir) {
		os.Remove(name)
	}
	begin(t, p, sid)
	storetest.Age(t, only(t, dir), 9*time.Hour)
	p.SessionGC(none)
	exists(t, p, sid, false)
	if n := p.SessionAll(none); n != 0 {
		t.Errorf("SessionAll = %d after all have expired", n)
	}
	_ = read(t, p, sid) // an expired one begins anew
	exists(t, p, sid, true)
}

// To set a nil value is to delete it. A value that gob refuses is logged and not stored, and does not stop others.
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

	// An id that is taken is refused, and nothing is lost.
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

	// If the old one cannot be read it stays, and an empty one begins.
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
	if n := len(storetest.Files(t, dir)); n != len(ids) {
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

// What a provider says of files that are damaged, or not ours.
func TestUnreadable(t *testing.T) {
	log := logged(t)
	p, _, dir := provide(t, 3600)
	const id = "5ec7e75ec7e75ec7"
	name := filepath.Join(dir, id+".json")
	for _, data := range []string{"", `"data":"?","generation":"x"`, `"data":"Z29i","generation":"x"`} {
		storetest.Write(t, name, fmt.Appendf(nil, `{"cookie":{"originalMaxAge":3600000},%s,"__lastAccess":%d}`, data, time.Now().UnixMilli()))
		if st, err := p.SessionRead(none, id); st != nil || !errors.Is(err, filestore.ErrCorrupt) || strings.Contains(err.Error(), id) {
			t.Errorf("SessionRead of %s = %v, %v", data, st, err)
		}
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},"user":"tj","__lastAccess":%d}`, time.Now().UnixMilli())
	storetest.Write(t, name, []byte(express))
	st := read(t, p, id)
	_ = st.Set(none, "user", "asta")
	st.SessionRelease(none, nil)
	if !strings.Contains(log.String(), "file already exists") {
		t.Errorf("logged %q", log)
	}
	log.Reset()
	if err := p.SessionDestroy(none, id); err != nil {
		t.Error(err)
	}
	if st, err := p.SessionRegenerate(none, id, "other"); err != nil || st.Get(none, "user") != nil {
		t.Errorf("SessionRegenerate = %v, %v", st, err)
	}
	if n := p.SessionAll(none); n != 0 {
		t.Errorf("SessionAll = %d, want 0", n)
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
	url, stop := adaptertest.Serve(h)
	defer stop()
	b := storetest.NewBrowser(t, url)
	b.Want("/count", "1")
	b.Want("/count", "2")
}
