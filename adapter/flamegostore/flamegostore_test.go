package flamegostore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
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
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var ctx = context.Background()

type cart struct{ Items []string }

// The sites differ in who looks whether there is a session: with Initer alone nobody does, and the framework
// adopts the ids of clients.
var (
	site    = newSite("Options", nil, flamegostore.Options)
	adopter = newSite("Initer", []string{"abcdefghijklmnop", "0000000000000000"}, func(s *filestore.Store, opt session.Options) session.Options {
		opt.Initer = flamegostore.Initer(s)
		return opt
	})
)

func newSite(name string, adopts []string, options func(*filestore.Store, session.Options) session.Options) *adaptertest.Site {
	return &adaptertest.Site{
		Name: name,
		Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
			return adaptertest.Serve(handler(options(s, session.Options{Config: flamegostore.Config{Lifetime: 3 * time.Hour}}), answer))
		},
		Cookie: "flamego_session",
		Life:   3 * time.Hour,
		Values: map[any]any{
			"string": "x\x00\xff", "int": 1, "int64": int64(1), "uint8": uint8(1), "float": 1.0, "bool": true, "bytes": []byte{0, 1}, 5: "a number's", "time": time.Unix(5, 6).UTC(),
			"map": map[string]int{"a": 1}, "cart": &cart{Items: []string{"tea"}}, "strings": []string{"a"},
		},
		Garbage: []string{`"aGVsbG8="`, `""`},
		Adopts:  adopts,
	}
}

func handler(opt session.Options, answer adaptertest.Answer) http.Handler {
	f := flamego.NewWithLogger(io.Discard)
	f.Use(flamego.Recovery(), session.Sessioner(opt))
	f.Get("/{path}", func(c flamego.Context, s session.Session, store session.Store) {
		code, body := answer(c.Request().URL.Path, func(name string) string { return c.Query(name) }, adaptertest.Session{
			ID:     s.ID,
			Get:    s.Get,
			Set:    s.Set,
			Delete: s.Delete,
			Renew:  func() error { return s.RegenerateID(c.ResponseWriter(), c.Request().Request) },
			End:    func() error { return store.Destroy(c.Request().Context(), s.ID()) },
		})
		if code == http.StatusOK && body == "" {
			return // Save comes after the handler: what that has written is on its way
		}
		c.ResponseWriter().WriteHeader(code)
		io.WriteString(c.ResponseWriter(), body)
	})
	return f
}

func TestMain(m *testing.M) {
	flamego.SetEnv(flamego.EnvTypeProd)
	gob.Register(time.Time{})
	gob.Register(&cart{})
	gob.Register(map[string]int{})
	adaptertest.Main(m, site, adopter)
}

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestAdopter(t *testing.T) { adaptertest.Run(t, adopter) }

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

// The framework passes this beside the config.
var idWriter session.IDWriter = func(http.ResponseWriter, *http.Request, string) {}

func initer(s *filestore.Store, cfg ...any) session.Store {
	return must(flamegostore.Initer(s)(ctx, append(cfg, idWriter)...))
}

// The framework's TestFileStore.
func TestFileStore(t *testing.T) {
	f := flamego.NewWithLogger(io.Discard)
	f.Use(session.Sessioner(session.Options{Initer: flamegostore.Initer(open(t))}))
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
		store := initer(storetest.Open(t, dir, nil), flamegostore.Config{Lifetime: time.Second})
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
		if !store.Exist(ctx, "111") || !store.Exist(ctx, "222") || store.Exist(ctx, "333") || len(storetest.Files(t, dir)) != 2 {
			t.Errorf("after GC: %v, %v, %v, files %q", store.Exist(ctx, "111"), store.Exist(ctx, "222"), store.Exist(ctx, "333"), storetest.Files(t, dir))
		}
	})
}

func idSite(s *filestore.Store, opt session.Options) *flamego.Flame {
	f := flamego.NewWithLogger(io.Discard)
	f.Use(flamego.Recovery(), session.Sessioner(flamegostore.Options(s, opt)))
	f.Get("/id", func(s session.Session) string { return s.ID() })
	return f
}

// The framework's TestSessioner.
func TestSessioner(t *testing.T) {
	f := idSite(open(t), session.Options{})
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
	f := idSite(open(t), session.Options{
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
	s := open(t)
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
	s := open(t)
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
		url, stop := adaptertest.Serve(f)
		t.Cleanup(stop)
		b := storetest.NewBrowser(t, url)
		for _, step := range []struct{ path, want string }{{"/", "no flash"}, {"/set", ""}, {"/", "a message"}, {"/", "no flash"}} {
			b.Want(step.path, step.want)
		}
	}
}

// A session that ends between Exist and Read begins anew, without what it held.
func TestLogoutBetween(t *testing.T) {
	store := initer(open(t))
	sess := must(store.Read(ctx, "between"))
	sess.Set("user", "alice")
	if err := errors.Join(store.Save(ctx, sess), store.Destroy(ctx, "between"), store.Destroy(ctx, "between")); err != nil {
		t.Fatal(err)
	}
	if again := must(store.Read(ctx, "between")); again.Get("user") != nil {
		t.Errorf("user %v", again.Get("user"))
	}
}

// A session lives for its Lifetime exactly.
func TestLifetime(t *testing.T) {
	for lifetime, want := range map[time.Duration]time.Duration{0: time.Hour, 3 * time.Hour: 3 * time.Hour, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			store := initer(open(t), nil, flamegostore.Config{Lifetime: lifetime})
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
}

// A program that asks for an id gets it, in a file of its own.
func TestMalformed(t *testing.T) {
	malformed := []string{
		"", ".", "..", "../../etc/passwd", "..%2F..%2Fetc", "a/b", "a\\b", "\x00", "abc\x00def", "con", "NUL.json", "x.json", ".locks", "victim.json",
		"\xff\xfe", "é", strings.Repeat("a", 10_000), strings.Repeat("/", 10_000), "ABCDEFGHIJKLMNOP", "abcdefghijklmno!", " ",
	}
	dir := t.TempDir()
	store := initer(storetest.Open(t, dir, nil))
	for _, id := range append(malformed, "abcdefghijklmnop", "0000000000000000") {
		if store.Exist(ctx, id) {
			t.Errorf("Exist(%.40q)", id)
		}
		if err := store.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy(%.40q) = %v", id, err)
		}
	}
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
	for _, name := range storetest.Files(t, dir) {
		if !regexp.MustCompile(`^(ABCDEFGHIJKLMNOP|sha256-[0-9a-f]{64})\.json$`).MatchString(filepath.Base(name)) {
			t.Errorf("file %s", name)
		}
	}
}

// A session that cannot be read counts as none, and GC leaves its file. Config.Logger is told. A session of Express is not
// ours, and is not saved over.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	logged := new(bytes.Buffer)
	store := initer(storetest.Open(t, dir, nil), flamegostore.Config{Logger: slog.New(slog.NewTextHandler(logged, nil))})
	const id = "secretsecret1234"
	name := filepath.Join(dir, id+".json")
	for what, text := range map[string]string{
		"damaged": "hello",
		"Express": `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"alice","__lastAccess":` + fmt.Sprint(time.Now().UnixMilli()) + `}`,
	} {
		logged.Reset()
		storetest.Write(t, name, []byte(text))
		if store.Exist(ctx, id) {
			t.Errorf("%s: it exists", what)
		}
		if told := strings.Contains(logged.String(), "a session that cannot be read counts as none"); told != (what == "damaged") || strings.Contains(logged.String(), id) {
			t.Errorf("%s: logged %q", what, logged)
		}
		sess := must(store.Read(ctx, id))
		sess.Set("user", "bob")
		if err := store.Save(ctx, sess); !errors.Is(err, fs.ErrExist) && !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("%s: Save = %v", what, err)
		}
		if err := errors.Join(store.Destroy(ctx, id), store.GC(ctx)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(name); err != nil || string(now) != text {
			t.Errorf("%s: the file holds %q, %v", what, now, err)
		}
	}
	os.Remove(name)
}

// counter counts the writes of a store.
type counter struct{ writes atomic.Int64 }

func (c *counter) Encode(_ string, doc []byte) ([]byte, error)  { c.writes.Add(1); return doc, nil }
func (c *counter) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

// A Save writes where something has changed, whatever way, and only there.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := storetest.Quick()
		count := new(counter)
		opts.Codec = count
		s := storetest.Open(t, t.TempDir(), opts)
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
				s.Set(i, i)
			}
			s.Set("cart", &cart{Items: []string{"tea"}})
		})
		for range 10 { // gob has them in another order each time
			step("nothing in many values", 0, nothing)
		}
		step("Flush", 1, session.Session.Flush)
		step("nothing after Flush", 0, nothing)
		step("a value", 1, func(s session.Session) { s.Set("n", 4) })
		step("the value as another type", 1, func(s session.Session) { s.Set("n", int64(4)) })
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

type unregistered struct{ A int }

func TestErrors(t *testing.T) {
	s := open(t)
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

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Read(ctx, id)
	for i, err := range []error{err, store.Save(ctx, sess), store.Destroy(ctx, id), store.GC(ctx)} {
		if !errors.Is(err, filestore.ErrClosed) || strings.Contains(err.Error(), id) {
			t.Errorf("after Close, %d: %v", i, err)
		}
	}
}

// Encoder and Decoder are the Config's.
func TestCodec(t *testing.T) {
	dir := t.TempDir()
	store := initer(storetest.Open(t, dir, nil), flamegostore.Config{
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
