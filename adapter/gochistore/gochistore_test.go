package gochistore_test

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
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
	"github.com/sessionfilestore/filestore/internal/storetest"
)

type cart struct{ Items []string }

var site = &adaptertest.Site{
	Name: "chi",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		r := chi.NewRouter()
		r.Use(must(session.Sessioner(session.Options{Provider: register(s), Maxlifetime: 3 * 3600})))
		r.Get("/*", func(w http.ResponseWriter, r *http.Request) {
			s := session.GetSession(r)
			code, body := answer(r.URL.Path, r.FormValue, adaptertest.Session{
				ID:     s.ID,
				Get:    func(key any) any { return s.Get(key) },
				Set:    func(key, value any) { s.Set(key, value) },
				Delete: func(key any) { s.Delete(key) },
				Renew: func() error {
					_, err := session.RegenerateSession(w, r)
					return err
				},
				End: func() error { return s.Destroy(w, r) },
			})
			w.WriteHeader(code)
			w.Write([]byte(body))
		})
		return adaptertest.Serve(r)
	},
	Cookie: "MacaronSession",
	Life:   3 * time.Hour,
	Values: map[any]any{
		"string": "x\x00\xff", "int": 1, "int64": int64(1), "uint8": uint8(1), "float": 1.0, "bool": true, "bytes": []byte{0, 1}, 5: "a number's", int64(5): "another's",
		"time": time.Unix(5, 6).UTC(), "map": map[string]int{"a": 1}, "cart": &cart{Items: []string{"tea"}}, "any": map[string]any{"a": []any{1, "b"}},
	},
	Garbage: []string{`"aGVsbG8="`, `""`},
}

func TestMain(m *testing.M) {
	gob.Register(time.Time{})
	gob.Register(&cart{})
	gob.Register(map[string]int{})
	adaptertest.Main(m, site)
}

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func open(t *testing.T) *filestore.Store {
	t.Helper()
	return storetest.Open(t, t.TempDir(), nil)
}

func provider(s *filestore.Store, seconds int64) session.Provider {
	p := gochistore.New(s)
	if err := p.Init(seconds, ""); err != nil {
		panic(err)
	}
	return p
}

var registered atomic.Int64

// register makes s a provider, under a name that is new also when the tests run twice.
func register(s *filestore.Store) string {
	name := fmt.Sprint("provider", registered.Add(1))
	gochistore.Register(name, s)
	return name
}

// What the framework's Test_Sessioner tests.
func TestRegister(t *testing.T) {
	s := open(t)
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
		if err := gochistore.New(s).Init(seconds, ""); err == nil {
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
	c.Use(must(session.Sessioner(session.Options{Provider: register(open(t))})))
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
		s := open(t)
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

// A session that ends between Exist and Read begins anew, without what it held.
func TestLogoutBetween(t *testing.T) {
	p := provider(open(t), 3600)
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
	h, opts := new(hook), storetest.Quick()
	opts.Codec = h
	return storetest.Open(t, dir, opts), h
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
	os.Remove(name)
}

// A session lives for the maximal lifetime exactly, from each Release.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := provider(storetest.Open(t, dir, nil), 60)
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
		if p.GC(); len(storetest.Files(t, dir)) > 0 {
			t.Errorf("files %q after GC", storetest.Files(t, dir))
		}
		if v := must(p.Read("id")).Get("k"); v != nil {
			t.Errorf("an expired session has %v", v)
		}
	})
}

// A program that asks for an id gets it, in a file of its own.
func TestMalformed(t *testing.T) {
	malformed := []string{
		"", ".", "..", "../../etc/passwd", "..%2F..%2Fetc", "a/b", "a\\b", "\x00", "abc\x00def", "con", "NUL.json", "x.json", ".locks", "victim.json",
		"\xff\xfe", "é", strings.Repeat("a", 10_000), strings.Repeat("/", 10_000), "ABCDEF0123456789", "abcdef012345678!", " ",
	}
	dir := t.TempDir()
	p := provider(storetest.Open(t, dir, nil), 3600)
	for _, id := range append(malformed, "abcdef0123456789", "0000000000000000") {
		if exist, err := p.Exist(id); exist || err != nil {
			t.Errorf("Exist(%.40q) = %v, %v", id, exist, err)
		}
		if err := p.Destroy(id); err != nil {
			t.Errorf("Destroy(%.40q) = %v", id, err)
		}
	}
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
	for _, name := range storetest.Files(t, dir) {
		if !regexp.MustCompile(`^(ABCDEF0123456789|sha256-[0-9a-f]{64})\.json$`).MatchString(filepath.Base(name)) {
			t.Errorf("file %s", name)
		}
	}
}

// ours is a session of the provider with this data.
func ours(data string) string {
	return fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":%s,"generation":"x","__lastAccess":%d}`, data, time.Now().UnixMilli())
}

// What a provider says of files that are damaged, or not ours.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	p := provider(storetest.Open(t, dir, nil), 3600)
	const id = "5ec7e75ec7e75ec7"
	name := filepath.Join(dir, id+".json")
	for _, text := range []string{"", "hello", `{"cookie":{},"data":"?"`, ours(`"?"`), ours(`"aGVsbG8="`), ours(`""`)} {
		storetest.Write(t, name, []byte(text))
		if exist, err := p.Exist(id); exist || err != nil {
			t.Errorf("%q: Exist = %v, %v", text, exist, err)
		}
		if _, err := p.Count(); err != nil {
			t.Errorf("%q: Count = %v", text, err)
		}
		if _, err := p.Read(id); !errors.Is(err, filestore.ErrCorrupt) || !strings.HasPrefix(err.Error(), "gochistore: ") || strings.Contains(err.Error(), id) {
			t.Errorf("%q: Read = %v", text, err)
		}
		if p.GC(); len(storetest.Files(t, dir)) != 1 {
			t.Fatalf("%q: GC has removed it", text)
		}
	}
	if runtime.GOOS != "windows" {
		if err := errors.Join(os.Remove(name), os.Symlink("elsewhere", name)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Read(id); !errors.Is(err, filestore.ErrUnsafeFile) {
			t.Errorf("Read of a symbolic link = %v", err)
		}
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"alice","__lastAccess":%d}`, time.Now().UnixMilli())
	storetest.Write(t, name, []byte(express))
	if exist, err := p.Exist(id); exist || err != nil {
		t.Errorf("Exist of an Express session = %v, %v", exist, err)
	}
	sess := must(p.Read(id))
	if sess.Set("user", "bob"); !errors.Is(sess.Release(), fs.ErrExist) || must(p.Count()) != 0 {
		t.Error("an Express session was released, or counts")
	}
	if err := p.Destroy(id); err != nil {
		t.Errorf("Destroy of an Express session = %v", err)
	}
	if _, err := p.Regenerate(id, "new"); err != nil {
		t.Errorf("Regenerate of an Express session = %v", err)
	}
	if now, err := os.ReadFile(name); err != nil || string(now) != express {
		t.Errorf("the Express session is %q, %v", now, err)
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
				s.Set(i, i)
			}
			s.Set("cart", &cart{Items: []string{"tea"}})
		})
		for range 10 { // gob has them in another order each time
			step("nothing in many values", 0, nothing)
		}
		step("Flush", 1, func(s session.RawStore) { s.Flush() })
		if v := must(p.Read("id")).Get(1); v != nil {
			t.Errorf("Get = %v after Flush", v)
		}
		step("nothing after Flush", 0, nothing)
		step("a value", 1, func(s session.RawStore) { s.Set("n", 4) })
		step("the value as another type", 1, func(s session.RawStore) { s.Set("n", int64(4)) })
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

type unregistered struct{ A int }

func TestErrors(t *testing.T) {
	s := open(t)
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
	logged := storetest.Log(t)
	if p.GC(); logged.String() != "" {
		t.Errorf("logged %q", logged)
	}
}
