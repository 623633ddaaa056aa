package scsstore_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/adapter/scsstore"
)

var (
	_ scs.CtxStore         = (*scsstore.Store)(nil)
	_ scs.IterableStore    = (*scsstore.Store)(nil)
	_ scs.IterableCtxStore = (*scsstore.Store)(nil)
	_ scs.Codec            = scsstore.JSONCodec{}
)

// With this variable set the test binary is a site on the directory that it names.
const beSite = "SCSSTORE_TEST_SITE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(beSite); dir != "" {
		s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1})
		if err != nil {
			panic(err)
		}
		srv := httptest.NewServer(newSite(scsstore.New(s)).handler())
		fmt.Println(srv.URL)
		io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
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
		ok(t, s.Commit("session_token", []byte("encoded_data"), time.Now().Add(time.Millisecond)))
		ok(t, s.Commit("another", []byte("x"), time.Now().Add(time.Minute)))
		ok(t, s.Delete("another"))
		time.Sleep(5 * time.Millisecond)
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
		if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(names) > 0 {
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

// A damaged file is none, which the Logger is told, is kept, and yet can be logged out of; a closed
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

// What is committed after a Delete, in whatever process, is dropped, also where the
// session was about to end, or had just ended.
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

// A site is an application on scs.
type site struct {
	*scs.SessionManager
	slow chan chan bool // each /slow sends what it waits for
}

func newSite(s scs.Store) *site {
	m := scs.New()
	m.Store = s
	m.Codec = scsstore.JSONCodec{}
	return &site{m, make(chan chan bool, 1)}
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	slowly := func(r *http.Request) {
		if r.FormValue("slow") != "" {
			c := make(chan bool)
			s.slow <- c
			<-c
		}
	}
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		slowly(r)
		if err := s.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		s.Put(r.Context(), "user", r.FormValue("user"))
	})
	mux.HandleFunc("/user", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s.GetString(r.Context(), "user")) })
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		s.Put(r.Context(), "n", s.GetInt(r.Context(), "n")+1)
		fmt.Fprint(w, s.GetInt(r.Context(), "n"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		s.Put(r.Context(), "slow", true)
		c := make(chan bool)
		s.slow <- c
		<-c
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		slowly(r)
		if err := s.Destroy(r.Context()); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	return s.LoadAndSave(mux)
}

type browser struct {
	t *testing.T
	http.Client
	base string
}

func newBrowser(t *testing.T, base string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, http.Client{Jar: jar, Timeout: 20 * time.Second}, base}
}

func (b *browser) get(path string) string {
	b.t.Helper()
	resp, err := b.Get(b.base + path)
	if err != nil {
		b.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		b.t.Errorf("%s = %d %s", path, resp.StatusCode, body)
	}
	return string(body)
}

func (b *browser) want(path, body string) {
	b.t.Helper()
	if got := b.get(path); got != body {
		b.t.Errorf("%s = %q, want %q", path, got, body)
	}
}

// cookie is the token that the browser has, or gives it another.
func (b *browser) cookie(set ...*http.Cookie) string {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.base, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if set != nil {
		b.Jar.SetCookies(r.URL, set)
	}
	for _, c := range b.Jar.Cookies(r.URL) {
		return c.Value
	}
	return ""
}

func TestHTTP(t *testing.T) {
	dir := t.TempDir()
	s := newSite(scsstore.New(open(t, dir)))
	srv := httptest.NewServer(s.handler())
	defer srv.Close()
	b := newBrowser(t, srv.URL)

	// Logout of what was never saved, a login, a new token for it.
	b.want("/logout", "")
	b.want("/count", "1")
	before := b.cookie()
	b.want("/login?user=anna", "")
	b.want("/user", "anna")
	if b.cookie() == before {
		t.Error("the login has kept the token")
	}
	stale := newBrowser(t, srv.URL)
	stale.cookie(&http.Cookie{Name: "session", Value: before})
	stale.want("/user", "")

	// A token of the client's choosing is never adopted.
	for _, token := range []string{"chosen", "../chosen", strings.Repeat("x", 3000)} {
		c := newBrowser(t, srv.URL)
		c.cookie(&http.Cookie{Name: "session", Value: token})
		c.want("/count", "1")
		if c.cookie() == token {
			t.Errorf("the token %.20q is adopted", token)
		}
	}

	// The file can be read.
	file, err := os.ReadFile(filepath.Join(dir, b.cookie()+".json"))
	if err != nil || !bytes.Contains(file, []byte(`"user":"anna"`)) {
		t.Errorf("the file is %s, %v", file, err)
	}

	// A request that has loaded the session before a logout and stores it after.
	done := make(chan struct{})
	go func() { defer close(done); b.get("/slow") }()
	wait := <-s.slow
	late := newBrowser(t, srv.URL)
	token := b.cookie()
	late.cookie(&http.Cookie{Name: "session", Value: token})
	late.want("/user", "anna")
	late.want("/logout", "")
	wait <- true
	<-done
	again := newBrowser(t, srv.URL)
	again.cookie(&http.Cookie{Name: "session", Value: token})
	again.want("/user", "")
	if _, found, err := s.Store.Find(token); found || err != nil {
		t.Errorf("Find after the logout = %v, %v", found, err)
	}

	// Many at once.
	b.want("/login?user=berta", "")
	token = b.cookie()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c := newBrowser(t, srv.URL)
			c.cookie(&http.Cookie{Name: "session", Value: token})
			for range 25 {
				c.want("/user", "berta")
				c.get("/count")
			}
		})
	}
	wg.Wait()

	// After a restart all are still there.
	srv.Close()
	srv = httptest.NewServer(newSite(scsstore.New(open(t, dir))).handler())
	defer srv.Close()
	b = newBrowser(t, srv.URL)
	b.cookie(&http.Cookie{Name: "session", Value: token})
	b.want("/user", "berta")
}

// Of what a logout and a login, or two of them, do to one session at the same moment, one happens, and the other
// is told: the user does not come back.
func TestRenewToken(t *testing.T) {
	dir := t.TempDir()
	s := newSite(scsstore.New(open(t, dir)))
	srv := httptest.NewServer(s.handler())
	defer srv.Close()
	there := httptest.NewServer(newSite(scsstore.New(open(t, dir))).handler())
	defer there.Close()
	for _, c := range []struct{ slow, fast, user string }{
		{"/login?user=anna&slow=1", "/logout", ""},
		{"/login?user=anna&slow=1", "/login?user=berta", "berta"},
		{"/logout?slow=1", "/login?user=berta", "berta"},
		{"/logout?slow=1", "/logout", ""},
	} {
		for _, base := range []string{srv.URL, there.URL} {
			slow, fast := newBrowser(t, srv.URL), newBrowser(t, base)
			slow.want("/login?user=anna", "")
			slow.want("/count", "1")
			fast.cookie(&http.Cookie{Name: "session", Value: slow.cookie()})
			var status int
			done := make(chan struct{})
			go func() {
				defer close(done)
				resp, err := slow.Get(slow.base + c.slow)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				status = resp.StatusCode
			}()
			wait := <-s.slow
			fast.want(c.fast, "")
			wait <- true
			<-done
			if status != 500 {
				t.Errorf("%s after %s = %d", c.slow, c.fast, status)
			}
			slow.want("/user", "")
			fast.want("/user", c.user)
			fast.want("/logout", "")
		}
	}
	// Twice in one request, and a logout after a login in one, there is nothing that was destroyed.
	m := newSite(scsstore.New(open(t, dir)))
	h := m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ok(t, m.RenewToken(r.Context()))
		ok(t, m.RenewToken(r.Context()))
		m.Put(r.Context(), "user", "anna")
		ok(t, m.Destroy(r.Context()))
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// A session that cannot be read is none: the visitor gets another, and may log in, and the file stays.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	store := scsstore.New(open(t, dir))
	store.Logger = slog.New(slog.DiscardHandler)
	s := newSite(store)
	srv := httptest.NewServer(s.handler())
	defer srv.Close()
	b := newBrowser(t, srv.URL)
	b.want("/login?user=anna", "")
	old := b.cookie()
	path := filepath.Join(dir, old+".json")
	for _, text := range []string{"", "damaged", `{"cookie":{},"data":"?","__lastAccess":9999999999999}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for p, user := range map[string]string{"/user": "", "/count": "", "/login?user=berta": "berta", "/logout": ""} {
			b := newBrowser(t, srv.URL)
			b.cookie(&http.Cookie{Name: "session", Value: old, Path: "/"})
			b.get(p)
			if b.cookie() == old && p != "/user" {
				t.Errorf("%q: the token is the same after %s", text, p)
			}
			b.want("/user", user)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%q has become %q, %v", text, now, err)
		}
	}
}

// With an idle timeout a session lives while it is used, and ends if it is not.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(scsstore.New(open(t, t.TempDir())))
	s.IdleTimeout = 2 * time.Second
	srv := httptest.NewServer(s.handler())
	defer srv.Close()
	b := newBrowser(t, srv.URL)
	b.want("/login?user=anna", "")
	token := b.cookie()
	for range 4 {
		time.Sleep(700 * time.Millisecond)
		b.cookie(&http.Cookie{Name: "session", Value: token}) // browsers count in seconds
		b.want("/user", "anna")
	}
	time.Sleep(2100 * time.Millisecond)
	b.cookie(&http.Cookie{Name: "session", Value: token})
	b.want("/user", "")
}

// Two processes on one directory share each login and each logout; one is killed
// and nothing that it has answered is lost.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	start := func() (*exec.Cmd, string) {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), beSite+"="+dir)
		stdin, err := cmd.StdinPipe()
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
		t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
		var url string
		if _, err := fmt.Fscanln(out, &url); err != nil {
			t.Fatal(err)
		}
		return cmd, url
	}
	one, first := start()
	_, second := start()
	b := newBrowser(t, first)
	b.want("/login?user=anna", "")
	for i := range 10 {
		b.base = []string{first, second}[i%2]
		b.want("/count", fmt.Sprint(i+1))
	}
	one.Process.Kill()
	one.Wait()
	b.base = second
	b.want("/count", "11")
	_, b.base = start()
	b.want("/user", "anna")
	token := b.cookie()
	b.want("/logout", "")
	b.base = second
	b.cookie(&http.Cookie{Name: "session", Value: token})
	b.want("/user", "")
}

// Beside any number of writers each Find returns one commit whole.
func TestTorn(t *testing.T) {
	s := scsstore.New(open(t, t.TempDir()))
	later := time.Now().Add(time.Hour)
	ok(t, s.Commit("token", bytes.Repeat([]byte{1}, 1000), later))
	stop := time.Now().Add(500 * time.Millisecond)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				ok(t, s.Commit("token", bytes.Repeat([]byte{byte(i)}, 1+n%10_000), later))
			}
		})
		wg.Go(func() {
			for time.Now().Before(stop) {
				b, found, err := s.Find("token")
				if err != nil || !found || len(b) == 0 || len(bytes.Trim(b, string(b[:1]))) > 0 {
					t.Errorf("Find = %.20q, %v, %v", b, found, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func init() { gob.Register(time.Time{}) } // as an application does

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
