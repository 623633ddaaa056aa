package irisstore_test

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kataras/golog"
	"github.com/kataras/iris/v12"
	"github.com/kataras/iris/v12/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/adapter/irisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var (
	_ sessions.Database               = (*irisstore.Database)(nil)
	_ sessions.DatabaseRequestHandler = (*irisstore.Database)(nil)
)

var site = &adaptertest.Site{
	Name: "iris",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		db, man := manager(s, sessions.Config{Expires: day})
		return serve(man, func(c iris.Context) { respond(c, db, man, answer) })
	},
	Cookie:    "s",
	Life:      day,
	Values:    map[any]any{"float": 1.5, "int": 3.0, "bool": true, "string": "é<&>\x00", "map": map[string]any{"a": []any{1.0, "x"}}, "$bytes": map[string]any{"$bytes": "AA=="}, "": "", "nil": nil},
	Garbage:   []string{`"AAAA"`, `"bnVsbA=="`},
	Adopts:    []string{"mine", "../../etc/passwd", "..", strings.Repeat("x", 3000)},
	Late:      true,
	Unescapes: true,
	Unsets:    true,
	ByValue:   true,
	PutOnly:   true,
}

var ctx = context.Background()

const day = 24 * time.Hour

// logged is the output of the default logger of package log, as it is by then.
type logged struct{}

func (logged) Write(p []byte) (int, error) { log.Print(string(p)); return len(p), nil }

func manager(s *filestore.Store, cfg sessions.Config) (*irisstore.Database, *sessions.Sessions) {
	db := irisstore.New(s)
	cfg.Cookie, cfg.AllowReclaim, cfg.DisableSubdomainPersistence = "s", true, true
	cfg.Logger = golog.New().SetOutput(logged{})
	man := sessions.New(cfg)
	man.UseDatabase(db)
	return db, man
}

// serve serves all paths.
func serve(man *sessions.Sessions, handlers ...iris.Handler) (url string, stop func()) {
	app := iris.New()
	app.Logger().SetOutput(logged{})
	app.Use(man.Handler())
	app.Get("/{any:path}", handlers...)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		app.Run(iris.Listener(ln), iris.WithoutStartupLog, iris.WithoutInterruptHandler, iris.WithoutServerError(iris.ErrServerClosed))
	})
	url = "http://" + ln.Addr().String()
	if res, err := http.Get(url); err == nil { // a shutdown before it serves would do nothing
		res.Body.Close()
	}
	return url, func() { app.Shutdown(ctx); ln.Close(); wg.Wait() }
}

func respond(c iris.Context, db *irisstore.Database, man *sessions.Sessions, answer adaptertest.Answer) {
	s := sessions.Get(c)
	code, body := answer(c.Path(), c.URLParam, adaptertest.Session{
		ID:     func() string { return s.ID() },
		Get:    func(key any) any { return s.Get(key.(string)) },
		Set:    func(key, value any) { s.Set(key.(string), value) },
		Delete: func(key any) { s.Delete(key.(string)) },
		Renew: func() error {
			next, err := db.Renew(c, man)
			if err == nil {
				s = next
			}
			return err
		},
		End: func() error { man.Destroy(c); return nil },
	})
	if err := man.ShiftExpiration(c); err != nil && !errors.Is(err, sessions.ErrNotFound) {
		code, body = http.StatusInternalServerError, err.Error()
	}
	c.StatusCode(code)
	c.WriteString(body)
}

func TestMain(m *testing.M) { adaptertest.Main(m, site) }

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

type cart struct {
	Item  string
	Count int
}

// Values are what sessions.DefaultTranscoder makes of them, and the file can be read.
func TestValues(t *testing.T) {
	dir := t.TempDir()
	db := irisstore.New(storetest.Open(t, dir, nil))
	db.Acquire("id", day)
	set := func(key string, value any) {
		t.Helper()
		if err := db.Set("id", key, value, day, false); err != nil {
			t.Errorf("Set(%T) = %v", value, err)
		}
	}
	set("user", "anna é")
	set("cart", cart{"tea", 2})
	set("n", 7)
	if text, err := os.ReadFile(filepath.Join(dir, "id.json")); err != nil || !strings.Contains(string(text), `"data":{"cart":{"Item":"tea","Count":2},"n":7,"user":"anna é"}`) {
		t.Errorf("the file is %s, %v", text, err)
	}
	if err := db.Set("id", "bad", func() {}, day, false); err == nil || db.Len("id") != 3 {
		t.Errorf("Set of a func = %v, Len %d", err, db.Len("id"))
	}
	var c cart
	if err := db.Decode("id", "cart", &c); err != nil || c != (cart{"tea", 2}) {
		t.Errorf("Decode = %v, %v", c, err)
	}
	if err := db.Decode("id", "none", &c); err != nil || c.Item != "tea" {
		t.Errorf("Decode of what is not there = %v, %v", c, err)
	}
	if err := db.Decode("id", "user", &c); err == nil {
		t.Error("Decode of another type is not an error")
	}
	all := make(map[string]any)
	if err := db.Visit("id", func(k string, v any) { all[k] = v }); err != nil || !reflect.DeepEqual(all, map[string]any{"user": "anna é", "n": 7.0, "cart": map[string]any{"Item": "tea", "Count": 2.0}}) {
		t.Errorf("Visit: %v, %v", all, err)
	}
	if !db.Delete("id", "n") || db.Delete("id", "n") || db.Get("id", "n") != nil {
		t.Error("Delete does not tell what it has done")
	}
	if err := db.Clear("id"); err != nil || db.Len("id") != 0 || len(storetest.Files(t, dir)) != 1 {
		t.Errorf("Clear = %v: %d values, files %q", err, db.Len("id"), storetest.Files(t, dir))
	}

	defer func(tr sessions.Transcoder) { sessions.DefaultTranscoder = tr }(sessions.DefaultTranscoder)
	sessions.DefaultTranscoder = sessions.GobTranscoder{}
	for _, v := range []any{1, int64(2), "\xff\x00", []byte{0, 1}, time.Unix(1, 2).UTC()} {
		if set("gob", v); !reflect.DeepEqual(db.Get("id", "gob"), v) {
			t.Errorf("with GobTranscoder %#v is %#v", v, db.Get("id", "gob"))
		}
	}
}

// A session lives for Expires; with 0 for good, and with a negative one for the Store's TTL after its last request.
func TestExpires(t *testing.T) {
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	for expires, life := range map[time.Duration]time.Duration{time.Minute: time.Minute, 0: 100 * 365 * day, -1: 0} {
		db, man := manager(s, sessions.Config{Expires: expires})
		url, stop := serve(man, func(c iris.Context) {
			switch c.Path() {
			case "/set":
				sessions.Get(c).Set("user", "anna")
			case "/renew":
				if _, err := db.Renew(c, man); err != nil {
					t.Error(err)
				}
			default:
				c.WriteString(sessions.Get(c).GetString("user"))
			}
		})
		b := storetest.NewBrowser(t, url)
		for _, path := range []string{"/set", "/renew"} {
			b.Get(path)
			id := b.Cookie("s")
			b.Want("/", "anna")
			sess, err := s.Get(t.Context(), id)
			if err != nil || sess.Cookie.OriginalMaxAge.Round(time.Second) != life {
				t.Errorf("Expires %v, %s: %v, %v", expires, path, sess, err)
			}
			storetest.Age(t, filepath.Join(dir, id+".json"), 40*time.Second)
			b.Want("/", "anna")
			b.Get("/set") // nor does a change prolong it
			sess, err = s.Get(t.Context(), id)
			if err != nil || (time.Since(sess.LastAccess) < 30*time.Second) != (expires < 0) {
				t.Errorf("Expires %v, %s: 40 seconds later %v, %v", expires, path, sess, err)
			}
		}
		stop()
	}
}

// Iris's timer calls Release too: it ends no session that was prolonged, here or in another process.
func TestTimer(t *testing.T) {
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	here, there := irisstore.New(s), irisstore.New(s)
	for name, prolong := range map[string]*irisstore.Database{"here": here, "there": there} {
		const life = 2 * time.Second
		here.Acquire(name, life)
		if err := here.Set(name, "user", "anna", life, false); err != nil {
			t.Fatal(err)
		}
		end := here.Acquire(name, life).Time // another request at the same moment: Iris has two timers
		there.Acquire(name, life)
		if err := prolong.OnUpdateExpiration(name, day); err != nil {
			t.Fatal(err)
		}
		fired := make(chan error)
		time.AfterFunc(time.Until(end), func() { fired <- here.Release(name) })
		if err := <-fired; err != nil {
			t.Error(err)
		}
		if here.Acquire(name, life); here.Get(name, "user") != "anna" {
			t.Errorf("prolonged %s, the session has ended with Iris's timer", name)
		}
		if err := here.Release(name); err != nil || there.Get(name, "user") != nil {
			t.Errorf("after a logout the user is %v, %v", there.Get(name, "user"), err)
		}
	}
}

// A logout in another process is one here, after a request: the listeners are called, and the id is free for a login.
func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	db, man := manager(s, sessions.Config{Expires: day})
	ended := make(chan string, 10)
	man.OnDestroy(func(id string) { ended <- id })
	url, stop := serve(man, func(c iris.Context) {
		if user := c.URLParam("user"); user != "" {
			if c.URLParamExists("late") { // the other logout comes between the request's begin and its Renew
				if err := s.Destroy(ctx, sessions.Get(c).ID()); err != nil {
					t.Error(err)
				}
			}
			next, err := db.Renew(c, man)
			if err != nil {
				c.StopWithError(http.StatusConflict, err)
				return
			}
			next.Set("user", user)
			return
		}
		c.WriteString(sessions.Get(c).GetString("user"))
	})
	t.Cleanup(stop)
	b := storetest.NewBrowser(t, url)
	b.Get("/?user=anna")
	id := b.Cookie("s")
	for len(ended) > 0 {
		<-ended // the id of before the login
	}
	if err := s.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.Want("/", "")
	if got := <-ended; got != id {
		t.Error("another session has ended")
	}
	b.Get("/?user=berta")
	b.Want("/", "berta")
	if b.Cookie("s") == id {
		t.Error("the login has left the id as it was")
	}
	if code, body := b.Do("/?user=carla&late"); code != http.StatusConflict || len(storetest.Files(t, dir)) != 0 {
		t.Errorf("a login that is slower than the logout = %d %q, files %q", code, body, storetest.Files(t, dir))
	}
}

// signer is a context.SecureCookie, as gorilla's securecookie.
type signer struct{}

func (signer) Encode(_ string, value any) (string, error) { return value.(string) + ".signed", nil }

func (signer) Decode(_, value string, to any) error {
	id, ok := strings.CutSuffix(value, ".signed")
	if !ok {
		return errors.New("not signed")
	}
	*to.(*string) = id
	return nil
}

// With Config.Encoding a client cannot make up an id, and all else is as before.
func TestEncoding(t *testing.T) {
	dir := t.TempDir()
	db, man := manager(storetest.Open(t, dir, nil), sessions.Config{Expires: day, Encoding: signer{}})
	url, stop := serve(man, func(c iris.Context) {
		s := sessions.Get(c)
		if c.Path() == "/login" {
			var err error
			if s, err = db.Renew(c, man); err != nil {
				t.Error(err)
			}
			s.Set("user", "anna")
		}
		c.WriteString(s.ID() + " " + s.GetString("user"))
	})
	t.Cleanup(stop)
	b := storetest.NewBrowser(t, url).With("s", "mine")
	first := b.Get("/")
	if first == "mine " || b.Get("/") != first || b.Cookie("s") != strings.TrimSpace(first)+".signed" {
		t.Errorf("the session is %q, and then %q; the cookie %q", first, b.Get("/"), b.Cookie("s"))
	}
	after := b.Get("/login")
	b.Want("/", after)
	if !strings.HasSuffix(after, " anna") || strings.HasPrefix(after, first) || len(storetest.Files(t, dir)) != 1 {
		t.Errorf("after the login it is %q, files %q", after, storetest.Files(t, dir))
	}
}

// onEncode is called before a session is written.
type onEncode struct{ fn func() }

func (h *onEncode) Decode(_ string, file []byte) ([]byte, error) { return file, nil }
func (h *onEncode) Encode(_ string, doc []byte) ([]byte, error)  { h.fn(); return doc, nil }

// A Set and a Release at the same moment, in any order: nothing comes back.
func TestReleaseRace(t *testing.T) {
	hook, opts := &onEncode{fn: func() {}}, storetest.Quick()
	opts.Codec = hook
	dir := t.TempDir()
	db := irisstore.New(storetest.Open(t, dir, opts))
	release := func() {
		if err := db.Release("id"); err != nil {
			t.Error(err)
		}
	}
	set := func(key string) {
		if err := db.Set("id", key, 1, day, false); err != nil {
			t.Error(err)
		}
	}
	gone := func() {
		t.Helper()
		if names := storetest.Files(t, dir); len(names) > 0 || db.Get("id", "a") != nil {
			t.Fatalf("left: %q", names)
		}
	}
	db.Acquire("id", day)
	hook.fn = sync.OnceFunc(release) // after Set has found the session, and before it has a file
	set("a")
	gone()
	hook.fn = func() {}
	for range 200 {
		db.Acquire("id", day)
		var wg sync.WaitGroup
		wg.Go(func() { set("a") })
		wg.Go(func() { set("b") })
		wg.Go(release)
		wg.Wait()
		gone()
	}
}

// A full disk makes Encode fail, if it is true.
type full struct{ atomic.Bool }

func (f *full) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

func (f *full) Encode(_ string, doc []byte) ([]byte, error) {
	if f.Load() {
		return nil, syscall.ENOSPC
	}
	return doc, nil
}

// A login that cannot be stored leaves the browser its cookie, and the session as it was.
func TestFailedLogin(t *testing.T) {
	disk, opts := new(full), storetest.Quick()
	opts.Codec = disk
	dir := t.TempDir()
	db, man := manager(storetest.Open(t, dir, opts), sessions.Config{Expires: day})
	url, stop := serve(man, func(c iris.Context) {
		switch c.Path() {
		case "/set":
			sessions.Get(c).Set("colour", "red")
		case "/login":
			if _, err := db.Renew(c, man); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Renew = %v", err)
			}
		}
		c.WriteString(sessions.Get(c).GetString("colour"))
	})
	t.Cleanup(stop)
	b := storetest.NewBrowser(t, url)
	b.Want("/set", "red")
	before := b.Cookie("s")
	disk.Store(true)
	b.Want("/login", "red")
	disk.Store(false)
	b.Want("/", "red")
	if b.Cookie("s") != before || len(storetest.Files(t, dir)) != 1 {
		t.Errorf("the cookie is the same: %v; files %q", b.Cookie("s") == before, storetest.Files(t, dir))
	}
}

// What Iris drops, a caller of the Database is told.
func TestErrors(t *testing.T) {
	s := storetest.Open(t, t.TempDir(), nil)
	db, man := manager(s, sessions.Config{Expires: day})
	url, stop := serve(man, func(c iris.Context) { // a session that the request has destroyed is a new one
		man.Destroy(c)
		next, err := db.Renew(c, man)
		if err != nil || next == nil {
			t.Errorf("Renew after Destroy = %v, %v", next, err)
		}
	})
	t.Cleanup(stop)
	storetest.NewBrowser(t, url).Get("/")

	db.Acquire("id", day)
	if err := db.Set("id", "a", 1, day, false); err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, release := db.Close(), db.Release("other")
	for what, err := range map[string]error{
		"Set": db.Set("id", "a", 2, day, false), "Clear": db.Clear("id"), "Decode": db.Decode("id", "a", new(int)), "Visit": db.Visit("id", nil),
		"OnUpdateExpiration": db.OnUpdateExpiration("id", day), "Release": release,
	} {
		if !errors.Is(err, filestore.ErrClosed) || strings.Contains(err.Error(), "id ") {
			t.Errorf("%s of a closed Store = %v", what, err)
		}
	}
	if db.Delete("id", "a") || db.Len("id") != 0 || db.OnUpdateExpiration("none", day) != sessions.ErrNotFound {
		t.Error("a closed Store has values")
	}
}
