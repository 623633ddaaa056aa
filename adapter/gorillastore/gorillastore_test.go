package gorillastore_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var _ sessions.Store = (*gorillastore.Store)(nil)

var (
	ctx      = context.Background()
	key      = []byte("an authentication key of 32 bytes")
	blockKey = []byte("a block key of 32 bytes, exactly")
)

func open(t testing.TB, dir string) *filestore.Store {
	t.Helper()
	return storetest.Open(t, dir, nil)
}

func newStore(t testing.TB) (*gorillastore.Store, string) {
	t.Helper()
	dir := t.TempDir()
	return gorillastore.New(open(t, dir), key), dir
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request is one from a browser that has these cookies.
func request(cookies ...*http.Cookie) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return r
}

// load is New, which must not fail.
func load(t testing.TB, s sessions.Store, cookies ...*http.Cookie) *sessions.Session {
	t.Helper()
	session, err := s.New(request(cookies...), "s")
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return session
}

// save saves and returns the cookie that was set, nil if none was.
func save(t testing.TB, session *sessions.Session, cookies ...*http.Cookie) *http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if err := session.Save(request(cookies...), w); err != nil {
		t.Fatalf("Save: %v", err)
	}
	if set := w.Result().Cookies(); len(set) > 0 {
		return set[len(set)-1]
	}
	return nil
}

// begin makes a session that is loaded from its cookie.
func begin(t testing.TB, s sessions.Store, values map[any]any) (*sessions.Session, *http.Cookie) {
	t.Helper()
	session := load(t, s)
	if values != nil {
		session.Values = values
	}
	cookie := save(t, session)
	loaded := load(t, s, cookie)
	if loaded.IsNew || loaded.ID == "" {
		t.Fatal("what was saved is not there")
	}
	return loaded, cookie
}

func wantFiles(t testing.TB, dir string, n int) {
	t.Helper()
	if names := storetest.Files(t, dir); len(names) != n {
		t.Errorf("%d files, want %d", len(names), n)
	}
}

// sign is securecookie's Encode as it was at the time of at.
func sign(name string, value any, at time.Time) *http.Cookie {
	b, err := securecookie.GobEncoder{}.Serialize(value)
	if err != nil {
		panic(err)
	}
	text := fmt.Sprintf("%d|%s", at.Unix(), base64.URLEncoding.EncodeToString(b))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(name + "|" + text))
	return &http.Cookie{Name: name, Value: base64.URLEncoding.EncodeToString(append([]byte(text+"|"), mac.Sum(nil)...))}
}

type FlashMessage struct {
	Type    int
	Message string
}

type point struct{ X, Y int }

func init() {
	gob.Register(FlashMessage{})
	gob.Register(point{})
}

// The tests of gorilla's own stores.
func TestGorilla(t *testing.T) {
	t.Run("GH8", func(t *testing.T) { // the Options of a session are its own
		store := gorillastore.New(open(t, t.TempDir()))
		store.Options.Path = "/"
		session, err := store.New(request(), "hello")
		ok(t, err)
		store.Options.Path = "/foo"
		if session.Options.Path != "/" {
			t.Errorf("bad session path: %q", session.Options.Path)
		}
		session.Options.MaxAge = 1
		if store.Options.MaxAge == 1 {
			t.Error("a session has changed the store's Options")
		}
	})
	t.Run("GH2MaxLength", func(t *testing.T) { // here it is the size of the file that is limited
		dir := t.TempDir()
		small, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, MaxSize: 4096})
		ok(t, err)
		defer small.Close()
		for s, want := range map[*filestore.Store]error{small: filestore.ErrTooLarge, open(t, dir): nil} {
			session := load(t, gorillastore.New(s, key))
			session.Values["big"] = make([]byte, 4096*2)
			w := httptest.NewRecorder()
			if err := session.Save(request(), w); !errors.Is(err, want) || (w.Header()["Set-Cookie"] == nil) != (want != nil) {
				t.Errorf("Save = %v, want %v; cookies %q", err, want, w.Header()["Set-Cookie"])
			}
		}
	})
	t.Run("GH8Delete", func(t *testing.T) {
		store, dir := newStore(t)
		session := load(t, store)
		save(t, session)
		wantFiles(t, dir, 1)
		session.Options.MaxAge = -1
		if c := save(t, session); c.MaxAge != -1 || c.Value != "" {
			t.Errorf("cookie %v", c)
		}
		wantFiles(t, dir, 0)
		save(t, session) // once more, as sessions.Save of a middleware may
		wantFiles(t, dir, 0)
	})
	t.Run("GH8Delete2", func(t *testing.T) { // MaxAge 0, which FilesystemStore deletes: it is to be stored
		store, dir := newStore(t)
		session := load(t, store)
		save(t, session)
		session.Options.MaxAge = 0
		c := save(t, session)
		if c.MaxAge != 0 || !c.Expires.IsZero() || c.Value == "" {
			t.Errorf("cookie %v", c)
		}
		wantFiles(t, dir, 1)
		if load(t, store, c).IsNew {
			t.Error("a session with MaxAge 0 is not kept")
		}
	})
	t.Run("Flashes", func(t *testing.T) {
		store, _ := newStore(t)
		var c *http.Cookie
		round := func(fn func(session *sessions.Session)) {
			t.Helper()
			r, w := request(), httptest.NewRecorder()
			if c != nil {
				r.AddCookie(c)
			}
			session, err := store.Get(r, "session-key")
			ok(t, err)
			fn(session)
			ok(t, sessions.Save(r, w))
			if again, err := store.Get(r.WithContext(r.Context()), "session-key"); again != session || err != nil {
				t.Errorf("another session in a copy of the request, %v", err)
			}
			if _, err = store.Get(r, "session:key"); err == nil || err.Error() != "sessions: invalid character in cookie name: session:key" {
				t.Errorf("Get with a bad name: %v", err)
			}
			set := w.Result().Cookies()
			if len(set) != 1 {
				t.Fatalf("cookies %v", set)
			}
			c = set[0]
		}
		want := func(session *sessions.Session, want []any, name ...string) {
			t.Helper()
			if got := session.Flashes(name...); !reflect.DeepEqual(got, want) {
				t.Errorf("Flashes = %v, want %v", got, want)
			}
		}
		round(func(session *sessions.Session) {
			want(session, nil)
			session.AddFlash("foo")
			session.AddFlash("bar")
			session.AddFlash("baz", "custom_key")
		})
		round(func(session *sessions.Session) {
			want(session, []any{"foo", "bar"})
			want(session, nil)
			want(session, []any{"baz"}, "custom_key")
			want(session, nil, "custom_key")
		})
		round(func(session *sessions.Session) {
			want(session, nil)
			session.AddFlash(&FlashMessage{42, "foo"})
		})
		round(func(session *sessions.Session) { want(session, []any{FlashMessage{42, "foo"}}) })
	})
	t.Run("MapPanic", func(t *testing.T) { // a session that is not of New's
		store, dir := newStore(t)
		session := sessions.NewSession(store, "s")
		session.Values["data"] = "hello-world"
		c := save(t, session)
		if got := load(t, store, c).Values["data"]; got != "hello-world" {
			t.Errorf("data = %v", got)
		}
		wantFiles(t, dir, 1)
		// Also with the cookie of a session that has ended meanwhile.
		ok(t, os.Remove(storetest.Files(t, dir)[0]))
		session = sessions.NewSession(store, "s")
		session.Values["data"] = "again"
		if c = save(t, session, c); load(t, store, c).Values["data"] != "again" {
			t.Error("not stored beside a stale cookie")
		}
	})
}

// A bad cookie is an error with a new session beside it; a session that is gone is not an error. The client's id is
// never taken.
func TestNew(t *testing.T) {
	store, dir := newStore(t)
	_, good := begin(t, store, map[any]any{"user": "alice"})
	other := gorillastore.New(open(t, dir), []byte("another key"))
	_, foreign := begin(t, other, nil)
	value := func(v string) *http.Cookie { return &http.Cookie{Name: "s", Value: v} }
	now := time.Now()

	for name, c := range map[string]*http.Cookie{
		"empty": value(""), "no base64": value("?"), "10 kB": value(strings.Repeat("x", 10_000)), "id alone": value(strings.Repeat("A", 52)),
		"cut": value(good.Value[:len(good.Value)-4]), "changed": value("AA" + good.Value[2:]), "another key": foreign,
		"another name": value(sign("t", "x", now).Value), "of a CookieStore": sign("s", map[any]any{"a": 1}, now), "traversal": value("../../etc/passwd"),
	} {
		session, err := store.New(request(c), "s")
		var sc securecookie.Error
		if session == nil || !session.IsNew || session.ID != "" || len(session.Values) > 0 || !errors.As(err, &sc) {
			t.Errorf("%s: New = %+v, %v", name, session, err)
		}
		theirs, theirErr := sessions.NewFilesystemStore(dir, key).New(request(c), "s")
		if theirErr == nil || err == nil || theirErr.Error() != err.Error() || theirs.IsNew != session.IsNew {
			t.Errorf("%s: error %v, FilesystemStore's %v", name, err, theirErr)
		}
		// The idiom: session, _ := store.Get.
		if c := save(t, session, c); load(t, store, c).IsNew {
			t.Errorf("%s: what was saved then is not there", name)
		}
	}

	// Signed, but no session of ours. The file of an Express application is not one.
	ok(t, os.WriteFile(filepath.Join(dir, "express.json"), []byte(`{"cookie":{"originalMaxAge":null},"user":"eve","__lastAccess":9999999999999}`), 0o600))
	ok(t, os.WriteFile(filepath.Join(filepath.Dir(dir), "outside.json"), []byte(`{"cookie":{},"data":"","__lastAccess":9999999999999}`), 0o600))
	for _, id := range []string{"", "missing", "express", "../outside", "/etc/passwd", "a\x00b", "\xff", ".", "..", "CON", "x.json", strings.Repeat("A", 52), strings.Repeat("x", 2000)} {
		before := len(storetest.Files(t, dir))
		c := sign("s", id, now)
		session := load(t, store, c)
		if !session.IsNew || session.ID != "" || len(session.Values) > 0 {
			t.Errorf("id %.20q: %+v", id, session)
		}
		if save(t, session, c); session.ID == id || !regexp.MustCompile(`^[A-Z2-7]{52}$`).MatchString(session.ID) {
			t.Errorf("id %.20q was taken, or none given: %q", id, session.ID)
		}
		wantFiles(t, dir, before+1)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "express.json")); err != nil || !bytes.Contains(b, []byte("eve")) {
		t.Errorf("another's file is now %s, %v", b, err)
	}
	if load(t, store, good).Values["user"] != "alice" {
		t.Error("the good one is gone")
	}
}

// A session that cannot be read counts as none. The Logger is told, and the file stays.
func TestUnreadable(t *testing.T) {
	for name, damage := range map[string]struct {
		file string
		want error
	}{
		"no JSON": {"{", filestore.ErrCorrupt},
		"no gob":  {`{"cookie":{},"data":"AAAA","generation":"x","__lastAccess":9999999999999}`, filestore.ErrCorrupt},
		"data":    {`{"cookie":{},"data":"?","generation":"x","__lastAccess":9999999999999}`, filestore.ErrCorrupt},
		"device":  {"", filestore.ErrUnsafeFile},
	} {
		store, dir := newStore(t)
		loaded, c := begin(t, store, nil)
		file := storetest.Files(t, dir)[0]
		ok(t, os.Remove(file))
		if damage.file == "" {
			if err := os.Symlink(os.DevNull, file); err != nil {
				continue // Windows, mostly
			}
		} else {
			ok(t, os.WriteFile(file, []byte(damage.file), 0o600))
		}
		var log bytes.Buffer
		store.Logger = slog.New(slog.NewTextHandler(&log, nil))
		r := request(c)
		session, err := store.Get(r, "s")
		if err != nil || session == nil || !session.IsNew || session.ID != "" {
			t.Errorf("%s: Get = %+v, %v", name, session, err)
		}
		if text := log.String(); !strings.Contains(text, damage.want.Error()) || strings.Contains(text, loaded.ID) {
			t.Errorf("%s: logged %q", name, text)
		}
		if damage.file != "" && name != "no gob" && name != "data" {
			if err := loaded.Save(r, httptest.NewRecorder()); !errors.Is(err, damage.want) || strings.Contains(err.Error(), loaded.ID) {
				t.Errorf("%s: Save of the loaded session: %v", name, err)
			}
			// Nor does it go on under a new id, and nothing of that is left.
			loaded.ID = ""
			w := httptest.NewRecorder()
			if err := loaded.Save(r, w); !errors.Is(err, damage.want) || loaded.ID != "" || w.Header()["Set-Cookie"] != nil {
				t.Errorf("%s: Save under a new id: %v", name, err)
			}
			wantFiles(t, dir, 1)
		}
		save(t, session, c) // a new one beside it
		wantFiles(t, dir, 2)
		if b, err := os.ReadFile(file); err != nil || string(b) != damage.file {
			t.Errorf("%s: the file is now %q, %v", name, b, err)
		}
		session, _ = store.New(r, "s")
		session.Options.MaxAge = -1
		save(t, session, c)
		if b, err := os.ReadFile(file); err != nil || string(b) != damage.file {
			t.Errorf("%s: the file after a logout is %q, %v", name, b, err)
		}
		wantFiles(t, dir, 2)
	}

	// Encrypted otherwise.
	store, dir := newStore(t)
	_, c := begin(t, store, nil)
	locked, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, Codec: refuse{}})
	ok(t, err)
	var log bytes.Buffer
	other := gorillastore.New(locked, key)
	other.Logger = slog.New(slog.NewTextHandler(&log, nil))
	if session := load(t, other, c); !session.IsNew || !strings.Contains(log.String(), filestore.ErrDecrypt.Error()) {
		t.Errorf("New = %+v, logged %q", session, log.String())
	}
	// Closed: it is not ours to close, and says so.
	ok(t, locked.Close())
	closed := gorillastore.New(locked, key)
	session, err := closed.New(request(c), "s")
	if !errors.Is(err, filestore.ErrClosed) || session == nil {
		t.Errorf("New = %v, %v, want ErrClosed", session, err)
	}
	for _, maxAge := range []int{-1, 0, 1} {
		session.Options.MaxAge = maxAge
		w := httptest.NewRecorder()
		if err := session.Save(request(c), w); !errors.Is(err, filestore.ErrClosed) || len(w.Result().Cookies()) > 0 {
			t.Errorf("Save = %v with cookies %v, want ErrClosed", err, w.Result().Cookies())
		}
	}
	wantFiles(t, dir, 1)
}

type refuse struct{}

func (refuse) Encode(_ string, b []byte) ([]byte, error) { return b, nil }
func (refuse) Decode(string, []byte) ([]byte, error)     { return nil, filestore.ErrDecrypt }

// What gob can encode comes back; what it cannot is refused before anything is
// written, and so are keys that make no cookie.
func TestValues(t *testing.T) {
	store, dir := newStore(t)
	values := map[any]any{
		"s": "t", "": "", 1: int64(2), int64(1): uint8(3), 2.5: true, math.Inf(1): []byte{0, 255}, true: []string{"a"}, "nil": nil, nil: 1,
		point{1, 2}: point{3, 4}, "any": []any{1, "x", point{5, 6}}, "\xff\x00": "\xff", "long": strings.Repeat("é", 100_000),
	}
	loaded, c := begin(t, store, values)
	if !reflect.DeepEqual(loaded.Values, values) {
		t.Errorf("values %v", loaded.Values)
	}
	empty, _ := begin(t, store, map[any]any{})
	if empty.Values == nil || len(empty.Values) > 0 {
		t.Errorf("values %v", empty.Values)
	}
	empty.Values = nil
	save(t, empty)
	wantFiles(t, dir, 2)

	type unregistered struct{ X int }
	var null *int
	for name, bad := range map[string]map[any]any{
		"key": {unregistered{1}: 1}, "value": {"x": unregistered{1}}, "func": {"x": func() {}}, "chan": {make(chan int): 1}, "null": {"x": null},
	} {
		before := save(t, load(t, store, c), c)
		for i, session := range []*sessions.Session{load(t, store), load(t, store, c)} {
			session.Values = bad
			id, w := session.ID, httptest.NewRecorder()
			err := session.Save(request(c), w)
			if err == nil || !strings.Contains(err.Error(), "gorillastore: encode: gob: ") || w.Header()["Set-Cookie"] != nil || session.ID != id {
				t.Errorf("%s, %d: Save = %v", name, i, err)
			}
		}
		wantFiles(t, dir, 2)
		if !reflect.DeepEqual(load(t, store, before).Values, values) {
			t.Errorf("%s: the file has changed", name)
		}
	}

	for name, keys := range map[string][][]byte{"no keys": nil, "empty key": {{}}, "short block key": {key, []byte("short")}} {
		session := load(t, gorillastore.New(open(t, dir), keys...))
		if err := session.Save(request(), httptest.NewRecorder()); err == nil || session.ID != "" {
			t.Errorf("%s: Save = %v", name, err)
		}
		wantFiles(t, dir, 2)
	}
}

// Keys may be rotated, and the second of a pair encrypts the cookie.
func TestKeys(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old := gorillastore.New(s, key, blockKey)
	session, c := begin(t, old, map[any]any{"user": "alice"})
	raw, err := base64.URLEncoding.DecodeString(c.Value)
	ok(t, err)
	inner, err := base64.URLEncoding.DecodeString(strings.Split(string(raw), "|")[1])
	ok(t, err)
	if bytes.Contains(inner, []byte(session.ID)) || strings.Contains(c.Value, session.ID) {
		t.Error("the id can be read in the cookie")
	}
	rotated := gorillastore.New(s, []byte("a new key"), nil, key, blockKey)
	loaded := load(t, rotated, c)
	if loaded.Values["user"] != "alice" {
		t.Fatal("the old key is not known")
	}
	c = save(t, loaded, c)
	if load(t, gorillastore.New(s, []byte("a new key")), c).Values["user"] != "alice" {
		t.Error("the new key does not sign")
	}
	if _, err := old.New(request(c), "s"); err == nil {
		t.Error("the old key still signs")
	}
	wantFiles(t, dir, 1)
}

// A session lives for its MaxAge after the last Save.
func TestLife(t *testing.T) {
	const day = 86400
	store, dir := newStore(t)
	try := func(store *gorillastore.Store, maxAge int, after time.Duration) (alive bool, err error) {
		t.Helper()
		for _, name := range storetest.Files(t, dir) {
			ok(t, os.Remove(name))
		}
		session := load(t, store)
		session.Options.MaxAge = maxAge
		save(t, session)
		storetest.Age(t, storetest.Files(t, dir)[0], after)
		session, err = store.New(request(sign("s", session.ID, time.Now().Add(-after))), "s")
		return !session.IsNew, err
	}
	for _, c := range []struct {
		maxAge int
		after  time.Duration
		alive  bool
	}{
		{60, 59 * time.Second, true}, {60, 61 * time.Second, false},
		{0, 59 * time.Minute, true}, {0, 61 * time.Minute, false}, // the store's TTL
		{60 * day, 45 * day * time.Second, true}, {60 * day, 61 * day * time.Second, false}, // longer than securecookie's 30 days
		{math.MaxInt, 40 * 365 * day * time.Second, true},
	} {
		if alive, err := try(store, c.maxAge, c.after); alive != c.alive || err != nil {
			t.Errorf("MaxAge %d, after %v: alive %v, %v", c.maxAge, c.after, alive, err)
		}
	}

	// The store's own limit counts for all.
	store.MaxAge(30 * day)
	for after, want := range map[time.Duration]bool{29 * day * time.Second: true, 31 * day * time.Second: false} {
		if alive, err := try(store, 60*day, after); alive != want || (err == nil) != want {
			t.Errorf("after %v: alive %v, %v", after, alive, err)
		}
	}
	if session := load(t, store); session.Options.MaxAge != 30*day {
		t.Errorf("MaxAge %d", session.Options.MaxAge)
	}
	store.MaxAge(0)
	if alive, err := try(store, 60*day, 31*day*time.Second); !alive || err != nil {
		t.Errorf("without a limit: alive %v, %v", alive, err)
	}

	// What is only read, under a cookie that the browser keeps, lives on; another does not.
	for maxAge, want := range map[int]bool{0: true, 3600: false} {
		session := load(t, store)
		session.Options.MaxAge = maxAge
		c := save(t, session)
		file := filepath.Join(dir, session.ID+".json")
		for range 2 {
			storetest.Age(t, file, 50*time.Minute)
			session = load(t, store, c)
		}
		if session.IsNew == want {
			t.Errorf("MaxAge %d, read after 50 and 100 minutes: IsNew %v", maxAge, session.IsNew)
		}
	}

	// A handler's MaxAge is the session's, in the cookie as in the file, and all Options are the cookie's.
	session := load(t, store)
	session.Options = &sessions.Options{Path: "/x", Domain: "example.com", MaxAge: 7, Secure: true, HttpOnly: true, Partitioned: true, SameSite: http.SameSiteNoneMode}
	c := save(t, session)
	if c.Path != "/x" || c.Domain != "example.com" || c.MaxAge != 7 || !c.Secure || !c.HttpOnly || !c.Partitioned || c.SameSite != http.SameSiteNoneMode {
		t.Errorf("cookie %v", c)
	}
	e, err := open(t, dir).Get(ctx, session.ID)
	if err != nil || e.Cookie.OriginalMaxAge != 7*time.Second {
		t.Errorf("the file lives for %v, %v", e.Cookie.OriginalMaxAge, err)
	}
}

// A session that ended after it was loaded stays gone, whatever is saved.
func TestGoneStaysGone(t *testing.T) {
	for name, end := range map[string]func(store *gorillastore.Store, dir string, c *http.Cookie){
		"logout": func(store *gorillastore.Store, _ string, c *http.Cookie) {
			session := load(t, store, c)
			session.Options.MaxAge = -1
			save(t, session, c)
		},
		"Clear": func(_ *gorillastore.Store, dir string, _ *http.Cookie) { ok(t, open(t, dir).Clear(ctx)) },
		"rm":    func(_ *gorillastore.Store, dir string, _ *http.Cookie) { ok(t, os.Remove(storetest.Files(t, dir)[0])) },
		"expiry": func(_ *gorillastore.Store, dir string, _ *http.Cookie) {
			storetest.Age(t, storetest.Files(t, dir)[0], 31*24*time.Hour)
		},
	} {
		store, dir := newStore(t)
		loaded, c := begin(t, store, map[any]any{"user": "alice"})
		same, copied := load(t, store, c), *load(t, store, c)
		rotate := load(t, store, c)
		first := load(t, store) // saved once, and then gone too
		save(t, first)
		ok(t, open(t, dir).Destroy(ctx, first.ID))
		end(store, dir, c)
		rotate.ID = ""
		for what, session := range map[string]*sessions.Session{"loaded": loaded, "another": same, "copy": &copied, "rotated": rotate, "new": first} {
			session.Values["late"] = true
			if set := save(t, session, c); set != nil {
				t.Errorf("%s, %s: the cookie is set", name, what)
			}
			if n, err := open(t, dir).Len(ctx); n != 0 || err != nil {
				t.Errorf("%s, %s: %d sessions, %v", name, what, n, err)
			}
		}
		if !load(t, store, c).IsNew {
			t.Errorf("%s: the cookie opens a session", name)
		}
		// Nor does it go on as a new session.
		for _, session := range []*sessions.Session{loaded, same, first} {
			session.ID = ""
			for _, maxAge := range []int{-1, 60, -1, 60} {
				session.Options.MaxAge = maxAge
				save(t, session, c)
			}
			if n, err := open(t, dir).Len(ctx); n != 0 || err != nil {
				t.Errorf("%s: %d sessions, %v", name, n, err)
			}
		}
	}
}

// A Save stores what its request has changed, and undoes nothing that others have.
func TestMerge(t *testing.T) {
	store, _ := newStore(t)
	for _, rotate := range []bool{false, true} {
		_, c := begin(t, store, map[any]any{"user": "alice", "list": []int{1, 2}, "n": 1})
		slow, fast := load(t, store, c), load(t, store, c)
		delete(fast.Values, "user")
		fast.Values["n"] = 2
		save(t, fast, c)
		slow.Values["list"].([]int)[0] = 3
		slow.Values["late"] = true
		if rotate {
			slow.ID = ""
		}
		set := save(t, slow, c)
		want := map[any]any{"list": []int{3, 2}, "n": 2, "late": true}
		if got := load(t, store, set).Values; !reflect.DeepEqual(got, want) {
			t.Errorf("values %v, want %v", got, want)
		}
		slow.Values["n"] = 3 // and once more
		save(t, slow, c)
		if got := load(t, store, set).Values; got["n"] != 3 || got["user"] != nil {
			t.Errorf("values %v", got)
		}
	}
}

// ID = "" gives a session a new id and removes the old file.
func TestNewID(t *testing.T) {
	store, dir := newStore(t)
	session, c := begin(t, store, map[any]any{"cart": 1})
	stale, old := load(t, store, c), session.ID
	session.Values["user"], session.ID = "alice", ""
	set := save(t, session, c)
	wantFiles(t, dir, 1)
	if session.ID == old || session.ID == "" || !load(t, store, c).IsNew {
		t.Error("the old id still opens a session")
	}
	if got := load(t, store, set).Values; got["user"] != "alice" || got["cart"] != 1 {
		t.Errorf("values %v", got)
	}
	// A slow request under the old id neither undoes that nor takes the browser's cookie.
	stale.Values["late"] = true
	if save(t, stale, c) != nil || load(t, store, set).Values["late"] != nil {
		t.Error("the old session is back")
	}
	stale.Options.MaxAge = -1
	save(t, stale, c)
	wantFiles(t, dir, 1)

	// The same Session again: changed, again a new id, twice in a row.
	session.Values["n"] = 1
	if got := load(t, store, save(t, session, c)).Values["n"]; got != 1 {
		t.Errorf("n = %v", got)
	}
	for range 2 {
		session.ID = ""
		set = save(t, session)
		wantFiles(t, dir, 1)
	}
	if load(t, store, set).IsNew {
		t.Error("it is gone")
	}

	// A new one, saved twice, and then with another id before its first request ends.
	fresh := load(t, store)
	for i := range 2 {
		fresh.Values["i"] = i
		if c = save(t, fresh); !fresh.IsNew || load(t, store, c).Values["i"] != i {
			t.Errorf("saved for the %d. time: %v", i+1, fresh)
		}
	}
	wantFiles(t, dir, 2)
	fresh.ID = ""
	save(t, fresh)
	wantFiles(t, dir, 2)
	if !load(t, store, c).IsNew {
		t.Error("the old id still opens a session")
	}

	// The other way: end it, and go on.
	session, c = begin(t, store, map[any]any{"x": 1})
	wantFiles(t, dir, 3)
	old, session.Options.MaxAge = session.ID, -1
	save(t, session, c)
	wantFiles(t, dir, 2)
	session.Options.MaxAge = 60
	set = save(t, session, c)
	if wantFiles(t, dir, 3); session.ID == old || load(t, store, set).Values["x"] != 1 || !load(t, store, c).IsNew {
		t.Error("the id is the old one, or the session gone")
	}

	// An id of the handler's own: a new one is used, one in use is not, and the old file goes as well.
	taken := session.ID
	session, c = begin(t, store, nil)
	session.ID = taken
	if err := session.Save(request(c), httptest.NewRecorder()); !errors.Is(err, fs.ErrExist) || strings.Contains(err.Error(), taken) {
		t.Errorf("Save under an id that is taken = %v", err)
	}
	if load(t, store, c).IsNew || load(t, store, set).Values["x"] != 1 {
		t.Error("one of the two is gone")
	}
	session.ID = "../mine"
	if got := load(t, store, save(t, session, c)); got.ID != "../mine" || !load(t, store, c).IsNew {
		t.Errorf("id %q", got.ID)
	}
	wantFiles(t, dir, 4)
}

// If many give one session a new id at once, or end it, one succeeds.
func TestNewIDRace(t *testing.T) {
	store, dir := newStore(t)
	for range 20 {
		_, c := begin(t, store, map[any]any{"user": "alice"})
		var wg sync.WaitGroup
		won := make(chan *http.Cookie, 8)
		start := make(chan struct{})
		for i := range 8 {
			session := load(t, store, c)
			if session.ID = ""; i == 0 {
				session.Options.MaxAge = -1
			}
			wg.Go(func() {
				<-start
				w := httptest.NewRecorder()
				if err := session.Save(request(c), w); err != nil {
					t.Error(err)
				}
				for _, c := range w.Result().Cookies() {
					if c.Value != "" {
						won <- c
					}
				}
			})
		}
		close(start)
		wg.Wait()
		if n := len(won); n > 1 || len(storetest.Files(t, dir)) != n {
			t.Fatalf("%d have a new id, %d files", n, len(storetest.Files(t, dir)))
		}
		if len(won) == 1 {
			if load(t, store, <-won).Values["user"] != "alice" {
				t.Fatal("the winner's session is empty")
			}
			ok(t, os.Remove(storetest.Files(t, dir)[0]))
		}
		if !load(t, store, c).IsNew {
			t.Fatal("the old id opens a session")
		}
	}
}

// Each name has a session and a file of its own.
func TestNames(t *testing.T) {
	store, dir := newStore(t)
	r, w := request(), httptest.NewRecorder()
	for _, name := range []string{"a", "b"} {
		session, err := store.Get(r, name)
		ok(t, err)
		session.Values["is"] = name
	}
	ok(t, sessions.Save(r, w))
	wantFiles(t, dir, 2)
	cookies := w.Result().Cookies()
	r, w = request(cookies...), httptest.NewRecorder()
	a, err := store.Get(r, "a")
	ok(t, err)
	b, err := store.Get(r, "b")
	ok(t, err)
	if a.Values["is"] != "a" || b.Values["is"] != "b" || a.ID == b.ID {
		t.Errorf("a %v, b %v", a, b)
	}
	a.Options.MaxAge = -1
	ok(t, sessions.Save(r, w))
	wantFiles(t, dir, 1)
	// The cookie of one name does not open the other.
	for _, c := range cookies {
		c.Name = map[string]string{"a": "b", "b": "a"}[c.Name]
	}
	if b, err = store.New(request(cookies...), "b"); err == nil || !b.IsNew {
		t.Errorf("New = %v, %v with the cookie of another name", b, err)
	}
}

// A browser that has gone does not undo what its request saved, and Save does not need a request.
func TestContext(t *testing.T) {
	store, dir := newStore(t)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	session := load(t, store)
	ok(t, session.Save(request().WithContext(gone), httptest.NewRecorder()))
	wantFiles(t, dir, 1)
	ok(t, session.Save(nil, httptest.NewRecorder()))
	session.ID = ""
	ok(t, session.Save(nil, httptest.NewRecorder()))
	wantFiles(t, dir, 1)
	session.Options.MaxAge = -1
	ok(t, session.Save(nil, httptest.NewRecorder()))
	wantFiles(t, dir, 0)
}

// What the store knows of Sessions goes with them.
func TestMemory(t *testing.T) {
	store, dir := newStore(t)
	session, c := begin(t, store, nil)
	for range 1000 {
		load(t, store, c)
	}
	copies := reflect.ValueOf(store).Elem().FieldByName("copies").Addr()
	count := func() (n int) {
		(*sync.Map)(copies.UnsafePointer()).Range(func(any, any) bool { n++; return true })
		return n
	}
	for deadline := time.Now().Add(5 * time.Second); count() > 10; time.Sleep(time.Millisecond) {
		runtime.GC() // which runs the cleanups a little later
		if time.Now().After(deadline) {
			t.Fatalf("%d are remembered", count())
		}
	}
	session.ID = ""
	save(t, session)
	wantFiles(t, dir, 1)
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
