package scsstore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/adapter/scsstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var (
	_ scs.CtxStore         = (*scsstore.Store)(nil)
	_ scs.IterableStore    = (*scsstore.Store)(nil)
	_ scs.IterableCtxStore = (*scsstore.Store)(nil)
	_ scs.Codec            = scsstore.JSONCodec{}
)

var site = &adaptertest.Site{
	Name: "scs",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		m := scs.New()
		m.Store = scsstore.New(s)
		m.Codec = scsstore.JSONCodec{}
		m.IdleTimeout = 3 * time.Hour
		return adaptertest.Serve(m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			code, body := answer(r.URL.Path, r.FormValue, adaptertest.Session{
				ID:     func() string { return m.Token(ctx) },
				Get:    func(key any) any { return m.Get(ctx, key.(string)) },
				Set:    func(key, value any) { m.Put(ctx, key.(string), value) },
				Delete: func(key any) { m.Remove(ctx, key.(string)) },
				Renew:  func() error { return m.RenewToken(ctx) },
				End:    func() error { return m.Destroy(ctx) },
			})
			w.WriteHeader(code)
			w.Write([]byte(body))
		})))
	},
	Cookie: "session",
	Life:   3 * time.Hour,
	Values: map[any]any{
		"string": "é<&>", "binary": "\xff\x00", "int": -5, "int64": int64(math.MaxInt64), "float": 3.0, "bool": true, "bytes": []byte{0, 255}, "list": []any{1, 2.0, "x", nil},
	},
	Visitor: adaptertest.Nameless,
	NoMerge: true,
	Buries:  true,
	Unsets:  true,
}

func TestMain(m *testing.M) {
	gob.Register(time.Time{}) // as an application does
	adaptertest.Main(m, site)
}

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	return storetest.Open(t, dir, nil)
}

func find(t *testing.T, s *scsstore.Store, token, want string) {
	t.Helper()
	b, found, err := s.Find(token)
	if err != nil || found != (want != "") || string(b) != want {
		t.Errorf("Find(%.20q) = %q, %v, %v, want %q", token, b, found, err, want)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// What the tests of every store of scs's ask.
func TestStore(t *testing.T) {
	soon := func() time.Time { return time.Now().Add(time.Minute) }
	run := func(name string, fn func(t *testing.T, s *scsstore.Store, dir string)) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fn(t, scsstore.New(open(t, dir)), dir)
		})
	}
	run("find", func(t *testing.T, s *scsstore.Store, _ string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), soon()))
		find(t, s, "session_token", "encoded_data")
	})
	run("find missing", func(t *testing.T, s *scsstore.Store, _ string) {
		b, found, err := s.Find("missing_session_token")
		if b != nil || found || err != nil {
			t.Errorf("Find = %q, %v, %v", b, found, err)
		}
	})
	run("save new", func(t *testing.T, s *scsstore.Store, dir string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), soon()))
		find(t, scsstore.New(open(t, dir)), "session_token", "encoded_data")
	})
	run("save updated", func(t *testing.T, s *scsstore.Store, _ string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), soon()))
		ok(t, s.Commit("session_token", []byte("new_encoded_data"), soon()))
		find(t, s, "session_token", "new_encoded_data")
	})
	run("expiry", func(t *testing.T, s *scsstore.Store, _ string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), time.Now().Add(time.Second)))
		find(t, s, "session_token", "encoded_data")
		time.Sleep(1002 * time.Millisecond)
		find(t, s, "session_token", "")
	})
	run("delete", func(t *testing.T, s *scsstore.Store, _ string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), soon()))
		ok(t, s.Delete("session_token"))
		find(t, s, "session_token", "")
	})
	run("cleanup", func(t *testing.T, s *scsstore.Store, dir string) {
		ok(t, s.Commit("session_token", []byte("encoded_data"), time.Now().Add(50*time.Millisecond))) // what has ended by then is not stored
		ok(t, s.Commit("another", []byte("x"), time.Now().Add(time.Minute)))
		ok(t, s.Delete("another"))
		time.Sleep(60 * time.Millisecond)
		if n, err := open(t, dir).Reap(context.Background()); n != 1 || err != nil {
			t.Errorf("Reap = %d, %v, want the one that has expired", n, err)
		}
	})

	// What they forget.
	run("delete what is not there", func(t *testing.T, s *scsstore.Store, dir string) {
		for _, token := range []string{"missing", "", "../x", "a/b", "\x00", strings.Repeat("x", 10_000)} {
			ok(t, s.Delete(token))
			find(t, s, token, "")
		}
		if names := storetest.Files(t, dir); len(names) > 0 {
			t.Errorf("Delete has made %q", names)
		}
	})
	run("all", func(t *testing.T, s *scsstore.Store, _ string) {
		if all, err := s.All(); all == nil || len(all) > 0 || err != nil {
			t.Errorf("All = %v, %v, want an empty map", all, err)
		}
		want := map[string][]byte{"a": []byte("1"), "b/c": []byte(`{"x":1}`)}
		for token, b := range want {
			ok(t, s.Commit(token, b, soon()))
		}
		ok(t, s.Commit("gone", []byte("x"), soon()))
		ok(t, s.Delete("gone"))
		ok(t, s.Commit("over", []byte("x"), time.Now().Add(time.Millisecond)))
		time.Sleep(5 * time.Millisecond)
		if all, err := s.All(); !reflect.DeepEqual(all, want) || err != nil {
			t.Errorf("All = %q, %v, want %q", all, err, want)
		}
	})
	run("a deadline in the past", func(t *testing.T, s *scsstore.Store, _ string) {
		ok(t, s.Commit("session_token", []byte("x"), soon()))
		ok(t, s.Commit("session_token", []byte("x"), time.Now().Add(-time.Second)))
		find(t, s, "session_token", "")
	})
	run("the caller's bytes", func(t *testing.T, s *scsstore.Store, _ string) {
		b := []byte("encoded_data")
		ok(t, s.Commit("session_token", b, soon()))
		clear(b)
		got, _, _ := s.Find("session_token")
		clear(got)
		find(t, s, "session_token", "encoded_data")
	})
}

// A damaged file counts as none, and the Logger is told. It is kept, and yet can be logged out of. A closed
// store and a context that is done are errors.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	store := open(t, dir)
	s := scsstore.New(store)
	path := filepath.Join(dir, "token.json")
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	ok(t, s.Commit("other", []byte("x"), later))
	var log bytes.Buffer
	s.Logger = slog.New(slog.NewTextHandler(&log, nil))
	find(t, s, "token", "")
	if text := log.String(); !strings.Contains(text, filestore.ErrCorrupt.Error()) || strings.Contains(text, "token") {
		t.Errorf("logged %q", text)
	}
	if all, err := s.All(); len(all) != 1 || err != nil {
		t.Errorf("All = %q, %v", all, err)
	}
	if err := s.Commit("token", nil, later); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("Commit = %v, want ErrCorrupt", err)
	}
	if b, err := os.ReadFile(path); string(b) != "damaged" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	ok(t, s.Delete("token"))
	find(t, s, "token", "")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := s.FindCtx(ctx, "x")
	_, err2 := s.AllCtx(ctx)
	ok(t, s.Commit("x", []byte("x"), later))
	ok(t, s.DeleteCtx(ctx, "x"))
	find(t, s, "x", "")
	for _, err := range []error{err, err2, s.CommitCtx(ctx, "x", nil, later)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that is done: %v", err)
		}
	}
	store.Close()
	_, _, err = s.Find("x")
	_, err2 = s.All()
	for _, err := range []error{err, err2, s.Commit("x", nil, later), s.Delete("x")} {
		if !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// What is committed after a Delete, in any process, is dropped, also if the session was about to end, or had just
// ended.
func TestDestroyedStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, other := scsstore.New(open(t, dir)), scsstore.New(open(t, dir))
	deadline := time.Now().Add(time.Second)
	ok(t, s.Commit("token", []byte("secret data"), deadline))
	ok(t, s.Delete("token"))
	for _, s := range []*scsstore.Store{s, other} {
		ok(t, s.Commit("token", []byte("late"), time.Now().Add(time.Hour)))
		ok(t, s.Commit("token", []byte("late"), time.Now().Add(-time.Hour)))
		if err := s.Delete("token"); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("the second Delete = %v", err)
		}
		find(t, s, "token", "")
	}
	file, err := os.ReadFile(filepath.Join(dir, "token.json"))
	if err != nil || bytes.Contains(file, []byte("data")) || bytes.Contains(file, []byte("c2Vj")) {
		t.Errorf("what is left is %s, %v", file, err)
	}
	ended := make(chan time.Time)
	time.AfterFunc(time.Until(deadline)+20*time.Millisecond, func() { ended <- time.Now() })
	ok(t, s.Commit("ended", []byte("x"), deadline))
	<-ended
	ok(t, s.Delete("ended"))
	if err := s.Delete("ended"); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("the second Delete of what had ended = %v", err)
	}
	for _, token := range []string{"token", "ended"} {
		ok(t, other.Commit(token, []byte("late"), time.Now().Add(time.Hour)))
		find(t, s, token, "")
	}
	left, err := open(t, dir).Get(context.Background(), "token")
	if err != nil || left.Cookie.OriginalMaxAge > 6*time.Minute {
		t.Errorf("what is left: %+v, %v", left, err)
	}
}

// Committing the same again writes nothing, with scs's codec too, whose bytes
// differ each time, unless the deadline has moved.
func TestUnchanged(t *testing.T) {
	for name, codec := range map[string]scs.Codec{"gob": scs.GobCodec{}, "JSON": scsstore.JSONCodec{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := scsstore.New(open(t, dir))
			values := map[string]any{"a": 1, "b": "two", "c": time.Now(), "d": []byte("x"), "e": 1.5, "f": true}
			absolute := time.Now().Add(24 * time.Hour)
			encoded := func() []byte {
				t.Helper()
				b, err := codec.Encode(absolute, values)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			stat := func() os.FileInfo {
				t.Helper()
				fi, err := os.Stat(filepath.Join(dir, "token.json"))
				if err != nil {
					t.Fatal(err)
				}
				return fi
			}
			ok(t, s.Commit("token", encoded(), time.Now().Add(time.Hour)))
			first := stat()
			for range 20 {
				ok(t, s.Commit("token", encoded(), time.Now().Add(time.Hour+30*time.Second)))
			}
			if !os.SameFile(first, stat()) {
				t.Error("what has not changed is written")
			}
			for what, change := range map[string]func() time.Duration{
				"a value":            func() time.Duration { values["a"] = 2; return time.Hour },
				"a deadline, later":  func() time.Duration { return time.Hour + 2*time.Minute },
				"a deadline, sooner": func() time.Duration { return time.Hour - time.Second },
			} {
				old := stat()
				life := change()
				ok(t, s.Commit("token", encoded(), time.Now().Add(life)))
				if os.SameFile(old, stat()) {
					t.Errorf("%s has changed and is not written", what)
				}
				ok(t, s.Commit("token", append(encoded(), ' '), time.Now().Add(time.Hour)))
			}
		})
	}
}

func TestJSONCodec(t *testing.T) {
	c := scsstore.JSONCodec{}
	deadline := time.Date(2030, 1, 2, 3, 4, 5, 678901234, time.UTC)
	values := map[string]any{
		"string": "açaí 日本 😀 <&>\u2028", "binary": "\xff\x00", "bool": true, "nil": nil, "int": -5, "big": math.MaxInt, "int32": int32(math.MinInt32), "int64": int64(math.MaxInt64),
		"float": 3.0, "pi": math.Pi, "large": 1e300, "small": 5e-324, "zero": math.Copysign(0, -1), "inf": math.Inf(-1), "bytes": []byte{0, 255}, "empty": []byte{},
		"time": time.Date(2026, 1, 1, 0, 0, 0, 1, time.FixedZone("", 3600)), "list": []any{1, 2.0, "x", nil, []any{int64(3)}},
		"map": map[string]any{"a": 1, "b": map[string]any{"$type": "int64", "value": "x"}}, "$type": "a member of this name", "": 0, "__rememberMe": true,
		"local": time.Date(1880, 1, 1, 0, 0, 0, 0, time.FixedZone("LMT", 3208)),
	}
	b, err := c.Encode(deadline, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, readable := range []string{`"deadline":"2030-01-02T03:04:05.678901234Z"`, `"string":"açaí 日本 😀 <&>`, `"int":-5`, `"float":3.0`} {
		if !bytes.Contains(b, []byte(readable)) {
			t.Errorf("no %s in %s", readable, b)
		}
	}
	again, _ := c.Encode(deadline, values)
	if !bytes.Equal(b, again) {
		t.Error("Encode is not the same twice")
	}
	at, got, err := c.Decode(b)
	if err != nil || !at.Equal(deadline) {
		t.Fatal(at, err)
	}
	if x, y := got["time"].(time.Time), values["time"].(time.Time); !x.Equal(y) {
		t.Errorf("time %v, want %v", x, y)
	}
	if x, y := got["local"].(time.Time), values["local"].(time.Time); !x.Equal(y) {
		t.Errorf("time %v, want %v", x, y)
	}
	for _, name := range []string{"time", "local"} {
		delete(got, name)
		delete(values, name)
	}
	if !reflect.DeepEqual(got, values) || !math.Signbit(got["zero"].(float64)) {
		t.Errorf("Decode = %#v\nwant %#v", got, values)
	}

	for _, bad := range []any{struct{ A int }{1}, []string{"x"}, map[string]int{}, uint(1), &values, func() {}, []any{int8(1)}, map[string]any{"\xff": 1},
		time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 0, 0, 0, time.FixedZone("", 25*3600))} {
		if b, err := c.Encode(deadline, map[string]any{"x": bad}); err == nil {
			t.Errorf("Encode(%T) = %s, want an error", bad, b)
		}
	}
	for _, bad := range []string{"", "x", "[]", `"x"`, `{"deadline":1}`, `{"values":[]}`, `{"values":{"x":99999999999999999999}}`, `{"values":{"x":{"$type":"x"}}}`,
		`{"values":{"x":{"$type":"int32","value":3000000000}}}`, `{"values":{"x":{"$type":1}}}`, `{"values":{"x":{"$type":"bytes","value":"?"}}}`, `{"values":{"x":{"$type":"time","value":"secret"}}}`} {
		_, values, err := c.Decode([]byte(bad))
		if err == nil || values != nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "99999") {
			t.Errorf("Decode(%s) = %v, %v", bad, values, err)
		}
	}
	if _, values, err := c.Decode([]byte(`{"deadline":"2030-01-02T03:04:05Z"}`)); values == nil || err != nil {
		t.Errorf("Decode without values = %v, %v; scs writes into them", values, err)
	}
}

// If two logouts, or a logout and a login, come at the same moment, one succeeds, and the other is told. The suite
// has the rest.
func TestRenewToken(t *testing.T) {
	dir := t.TempDir()
	managers := []*scs.SessionManager{scs.New(), scs.New()} // as two processes have them
	for _, m := range managers {
		m.Store = scsstore.New(open(t, dir))
	}
	load := func(i int, token string) (*scs.SessionManager, context.Context) {
		t.Helper()
		ctx, err := managers[i].Load(context.Background(), token)
		ok(t, err)
		return managers[i], ctx
	}
	commit := func(m *scs.SessionManager, ctx context.Context) string {
		t.Helper()
		token, _, err := m.Commit(ctx)
		ok(t, err)
		return token
	}
	for _, there := range []int{0, 1} {
		for _, renews := range []bool{true, false} {
			m, ctx := load(0, "")
			m.Put(ctx, "user", "anna")
			token := commit(m, ctx)
			slow, slowCtx := load(0, token)
			fast, fastCtx := load(there, token)
			user := ""
			if renews {
				ok(t, fast.RenewToken(fastCtx))
				user = "berta"
				fast.Put(fastCtx, "user", user)
				fastToken := commit(fast, fastCtx)
				fast, fastCtx = load(there, fastToken)
			} else {
				ok(t, fast.Destroy(fastCtx))
			}
			if err := slow.Destroy(slowCtx); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("the slow logout = %v", err)
			}
			if got := fast.GetString(fastCtx, "user"); got != user {
				t.Errorf("the user is %q, want %q", got, user)
			}
			m, ctx = load(0, token)
			if m.Exists(ctx, "user") {
				t.Error("the old token opens a session")
			}
		}
	}
	// Twice in one request, and a logout after a login in one, there is nothing that was destroyed.
	m := managers[0]
	h := m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ok(t, m.RenewToken(r.Context()))
		ok(t, m.RenewToken(r.Context()))
		m.Put(r.Context(), "user", "anna")
		ok(t, m.Destroy(r.Context()))
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// With JSONCodec the file can be read.
func TestReadable(t *testing.T) {
	dir := t.TempDir()
	m := scs.New()
	m.Store, m.Codec = scsstore.New(open(t, dir)), scsstore.JSONCodec{}
	ctx, err := m.Load(context.Background(), "")
	ok(t, err)
	m.Put(ctx, "user", "anna")
	token, _, err := m.Commit(ctx)
	ok(t, err)
	if file, err := os.ReadFile(filepath.Join(dir, token+".json")); err != nil || !bytes.Contains(file, []byte(`"user":"anna"`)) {
		t.Errorf("the file is %s, %v", file, err)
	}
}
