package session_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/sealed"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// The cookie's path decides which requests have a session, even below a StripPrefix.
func TestPath(t *testing.T) {
	m := manager(newStore(t))
	m.Cookie.Path = "/app"
	var got *session.Session
	h := m.Handler(http.StripPrefix("/app", m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = session.From(r)
		if got != nil {
			got.Put("a", 1)
		}
	}))))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/app/x", nil))
	if got == nil || len(w.Header()["Set-Cookie"]) != 1 || !strings.Contains(w.Header().Get("Set-Cookie"), "; Path=/app;") {
		t.Errorf("/app/x: session %v, cookies %q, want one with Path=/app", got, w.Header()["Set-Cookie"])
	}
	got = nil
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = session.From(r) })).ServeHTTP(w, httptest.NewRequest("GET", "/other", nil))
	if got != nil {
		t.Error("/other has a session")
	}
	if session.From(httptest.NewRequest("GET", "/", nil)) != nil {
		t.Error("a request that passed through no Handler has a session")
	}
}

// Paths match as in RFC 6265, 5.1.4, and behind a proxy that strips a prefix.
func TestPathMatch(t *testing.T) {
	for _, tt := range []struct {
		cookie, served, target string
		want                   bool
	}{
		{"", "", "/", true},
		{"", "", "/x/y", true},
		{"", "", "*", true},
		{"/app", "", "/app", true},
		{"/app", "", "/app/", true},
		{"/app", "", "/app/x", true},
		{"/app", "", "/app?x=/", true},
		{"/app", "", "/application", false},
		{"/app", "", "/app2/x", false},
		{"/app", "", "/ap", false},
		{"/app", "", "/", false},
		{"/app", "", "*", false},
		{"/app", "", "/App", false},
		{"/app/", "", "/app/x", true},
		{"/app/", "", "/app", false},
		{"/app/", "", "/application", false},
		{"/app", "/", "/x", true}, // the proxy strips /app
		{"/app", "/", "/", true},
		{"/app", "/inner", "/inner/x", true}, // or replaces it by another
		{"/app", "/inner", "/app/x", false},
		{"/", "/api", "/api/x", true}, // only part of the site has sessions
		{"/", "/api", "/apis", false},
	} {
		m := manager(newStore(t))
		m.Cookie.Path, m.Path = tt.cookie, tt.served
		r := httptest.NewRequest("GET", "/", nil)
		r.RequestURI, r.URL.Path = tt.target, strings.TrimSuffix(tt.target, "?x=/")
		found := false
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r)
			found = s != nil
			s.Put("a", 1)
		})).ServeHTTP(w, r)
		if found != tt.want {
			t.Errorf("cookie path %q, Path %q: %s has a session: %v, want %v", tt.cookie, tt.served, tt.target, found, tt.want)
		}
		path := "; Path=" + tt.cookie + ";"
		if tt.cookie == "" {
			path = "; Path=/;"
		}
		if c := w.Header().Get("Set-Cookie"); found && !strings.Contains(c, path) {
			t.Errorf("cookie path %q: the cookie is %q", tt.cookie, c)
		}
	}
}

// Requests within the cookie's path have a session, however the path is spelled.
func TestPathSpelling(t *testing.T) {
	for path, uris := range map[string][]string{"/": {"/", "http://example.com", "http://example.com/x", "/%zz"}, "/app": {"/app", "/app/x", "/%61pp/x", "http://example.com/app"}} {
		m := manager(newStore(t))
		m.Cookie.Path = path
		for _, uri := range uris {
			r := httptest.NewRequest("GET", "/app", nil)
			r.RequestURI = uri
			if u, err := url.ParseRequestURI(uri); err == nil {
				r.URL = u
			}
			found := false
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { found = session.From(r) != nil })).ServeHTTP(httptest.NewRecorder(), r)
			if !found {
				t.Errorf("path %s: %s has no session", path, uri)
			}
		}
	}
}

// F10: visitors in whose sessions nothing is put leave no file, and get no cookie.
func TestNoFilesForVisitors(t *testing.T) {
	s := newStore(t)
	h := manager(s).Handler(http.HandlerFunc(show))
	for range storetest.Long(10_000, 100_000) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if c := w.Header().Get("Set-Cookie"); c != "" {
			t.Fatalf("a visitor who does nothing gets the cookie %q", c)
		}
	}
	if n := len(storetest.Files(t, s.dir)); n != 0 || s.take() != "" {
		t.Errorf("%d files, want none, and no call of the store", n)
	}
}

// F9: each visitor gets another id, in the form of express-session.
func TestIDs(t *testing.T) {
	seen := make(map[string]bool)
	m := manager(sessiontest.NewStore())
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := session.From(r).ID()
		if len(id) != 32 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || seen[id] {
			t.Fatalf("the id is %q, want 32 characters of base64url, each time others", id)
		}
		seen[id] = true
	}))
	for range 20_000 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
}

// A zero reads as zeros, in place of random numbers.
type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// F9: all 24 bytes of an id come from crypto/rand.
func TestIDsAreFromCryptoRand(t *testing.T) {
	s := newStore(t)
	random := rand.Reader
	defer func() { rand.Reader = random }()
	rand.Reader = zero{}
	m := manager(s)
	var id string
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { id = session.From(r).ID() })).
		ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if want := strings.Repeat("A", 32); id != want {
		t.Errorf("the id is %q, want %q", id, want)
	}
}

// A14, A15, F9: GenID's errors, invalid ids and ids in use are errors of the request.
func TestGenID(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		next, fail := "same_id", error(nil)
		m := manager(s)
		m.GenID = func(*http.Request) (string, error) { return next, fail }
		var reported error
		m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) { reported = err; w.WriteHeader(500) }
		srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/show": show, "/regenerate": func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Regenerate(); err != nil {
				http.Error(w, err.Error(), 500)
			}
		}})
		cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
		if a := do(t, srv, "/put?user=bert", ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || !errors.Is(reported, fs.ErrExist) {
			t.Errorf("a second session with the same id: status %d, cookie %q, error %v, want 500, none and ErrExist", a.StatusCode, a.Header.Get("Set-Cookie"), reported)
		}
		if got := do(t, srv, "/show", cookie).body; got != `{"user":"anna"}`+"\n" {
			t.Errorf("the first session is now %s", got)
		}
		for _, next = range []string{"../x", "", "a/b", "x\n"} {
			reported = nil
			for _, path := range []string{"/put?a=1", "/show"} {
				if a := do(t, srv, path, ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || !errors.Is(reported, filestore.ErrInvalidID) {
					t.Errorf("GenID returns %q: status %d, error %v, want 500 and ErrInvalidID", next, a.StatusCode, reported)
				}
			}
		}
		fail = errors.New("no entropy")
		if a := do(t, srv, "/show", ""); a.StatusCode != 500 || !errors.Is(reported, fail) {
			t.Errorf("GenID fails: status %d, error %v, want 500 and GenID's error", a.StatusCode, reported)
		}
		if a := do(t, srv, "/regenerate", cookie); a.StatusCode != 500 {
			t.Errorf("GenID fails in Regenerate: status %d, want 500", a.StatusCode)
		}
	})
}

// Each of two nested Managers has its own session. The inner one silently used the outer one's.
func TestNestedManagers(t *testing.T) {
	site, admin := newStore(t), newStore(t)
	outer, inner := manager(site), manager(admin)
	inner.Name, inner.Cookie.Path = "admin.sid", "/admin"
	srv := serve(t, outer, map[string]http.HandlerFunc{"/admin/": inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, i := outer.From(r), inner.From(r)
		if o == nil || i == nil || o == i || session.From(r) != i {
			t.Errorf("outer session %v, inner session %v, want two, and From to give the inner", o != nil, i != nil)
		}
		o.Put("seen", "admin")
		i.Put("user", r.URL.Query().Get("user"))
		if r.URL.Path == "/admin/login" {
			if err := i.Regenerate(); err != nil {
				t.Error(err)
			}
			i.Put("user", "root")
		}
	})).ServeHTTP, "/": func(w http.ResponseWriter, r *http.Request) {
		if inner.From(r) != nil || session.From(r) != outer.From(r) {
			t.Error("a request outside the inner Manager has its session")
		}
		show(w, r)
	}})
	b := newBrowser(t, srv)
	text := logged(t, func() {
		if a := b.get("/admin/?user=anna"); len(a.Cookies()) != 2 {
			t.Errorf("cookies %q, want two", a.Header["Set-Cookie"])
		}
		b.get("/admin/login")
		if got := b.get("/").body; got != `{"seen":"admin"}`+"\n" {
			t.Errorf("the outer session has %s", got)
		}
	})
	if text != "" {
		t.Errorf("log %s, want none", text)
	}
	if len(storetest.Files(t, site.dir)) != 1 || len(storetest.Files(t, admin.dir)) != 1 {
		t.Errorf("%d and %d sessions, want 1 and 1", len(storetest.Files(t, site.dir)), len(storetest.Files(t, admin.dir)))
	}
	if sess, err := admin.Store.Get(ctx, admin.live(t)[0]); err != nil || string(sess.Values["user"]) != `"root"` {
		t.Errorf("the inner session is %v, %v, want the user root", sess, err)
	}

	// If both have one cookie, the browser can keep only one, and the log says so.
	same := manager(admin)
	text = logged(t, func() {
		w := httptest.NewRecorder()
		outer.Handler(same.Handler(http.HandlerFunc(none))).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	})
	if !strings.Contains(text, "Name") {
		t.Errorf("two Managers with one cookie: log %q, want a warning", text)
	}
}

// A mux and the handlers within note things in the request, and these are visible outside.
func TestRequestIsHandedBack(t *testing.T) {
	m := manager(newStore(t))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /things/{id}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		r.ParseMultipartForm(1 << 20)
		io.WriteString(w, r.FormValue("a"))
	})
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = "192.0.2.7:1" // as a middleware behind a proxy does
		mux.ServeHTTP(w, r)
	}))
	for _, panics := range []bool{false, true} {
		r := httptest.NewRequest("POST", "/things/7/x/y", strings.NewReader("a=1"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		before := r.Context()
		func() {
			defer func() { recover() }()
			if panics {
				m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r); panic(1) })).ServeHTTP(httptest.NewRecorder(), r)
				return
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}()
		if r.Pattern != "POST /things/{id}/{rest...}" || r.PathValue("id") != "7" || r.PathValue("rest") != "x/y" ||
			r.PostForm.Get("a") != "1" || r.RemoteAddr != "192.0.2.7:1" || r.Context() != before {
			t.Errorf("panics %v: pattern %q, id %q, rest %q, form %v, from %s", panics, r.Pattern, r.PathValue("id"), r.PathValue("rest"), r.PostForm, r.RemoteAddr)
		}
	}
}

// C1, F14: if a file cannot be read, it is kept, the visitor gets a new session under a new id, and the log
// says so. The answer was 500 on every page, even at login.
func TestUnreadableSession(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	codec, err := sealed.New(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o      filestore.Options
		damage func(t *testing.T, file string, data []byte) error
	}{
		"empty": {filestore.Options{}, func(t *testing.T, file string, data []byte) error { return os.WriteFile(file, nil, 0o600) }},
		"torn": {filestore.Options{}, func(t *testing.T, file string, data []byte) error {
			return os.WriteFile(file, data[:len(data)/2], 0o600)
		}},
		"no session": {filestore.Options{}, func(t *testing.T, file string, data []byte) error {
			return os.WriteFile(file, []byte(`{"a":1}`), 0o600)
		}},
		"too large": {filestore.Options{MaxSize: 300}, func(t *testing.T, file string, data []byte) error {
			return os.WriteFile(file, bytes.Replace(data, []byte(`"anna"`), []byte(`"`+strings.Repeat("a", 300)+`"`), 1), 0o600)
		}},
		"a directory": {filestore.Options{}, func(t *testing.T, file string, data []byte) error {
			return errors.Join(os.Remove(file), os.Mkdir(file, 0o700))
		}},
		"a link": {filestore.Options{}, func(t *testing.T, file string, data []byte) error {
			other := filepath.Join(t.TempDir(), "x")
			err := errors.Join(os.WriteFile(other, data, 0o600), os.Remove(file), os.Symlink(other, file))
			if fi, statErr := os.Lstat(file); statErr != nil || fi.Mode()&os.ModeSymlink == 0 {
				skip.Test(t, "this system only pretends to make symbolic links") // Wine
			}
			return err
		}},
		"two names": {filestore.Options{}, func(t *testing.T, file string, data []byte) error { return os.Link(file, file+".backup") }},
		"encrypted": {filestore.Options{}, func(t *testing.T, file string, data []byte) error {
			b, err := codec.Encode("x", data)
			return errors.Join(err, os.WriteFile(file, b, 0o600))
		}},
		"not encrypted": {filestore.Options{Codec: codec}, func(t *testing.T, file string, data []byte) error {
			return os.WriteFile(file, []byte(`{"cookie":{}}`), 0o600)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := tt.o
			o.NoSync, o.ReapInterval = true, -1
			s, err := filestore.Open(dir, &o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/login": func(w http.ResponseWriter, r *http.Request) { regenerate(w, r); put(w, r) }})
			old := cookieOf(do(t, srv, "/put?user=anna", ""))
			file := filepath.Join(dir, idOf(t, old)+".json")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(t, file, data); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(file)
			var fresh string
			text := logged(t, func() {
				if a := do(t, srv, "/show", old); a.StatusCode != 200 || a.body != "{}\n" {
					t.Errorf("a page: status %d, values %s, want 200 and an empty session", a.StatusCode, a.body)
				}
				a := do(t, srv, "/login?user=bert", old)
				fresh = cookieOf(a)
				if a.StatusCode != 200 || fresh == "" || fresh == old {
					t.Errorf("login: status %d, cookie %q, want 200 and a new id", a.StatusCode, fresh)
				}
			})
			if strings.Count(text, "\n") != 2 || strings.Contains(text, idOf(t, old)) || strings.Contains(text, "anna") {
				t.Errorf("log %s, want two lines without the id and the values", text)
			}
			if got := do(t, srv, "/show", fresh).body; got != `{"user":"bert"}`+"\n" {
				t.Errorf("after the login the session has %s", got)
			}
			if got := do(t, srv, "/show", old+"; "+fresh).body; got != `{"user":"bert"}`+"\n" {
				t.Errorf("with both cookies the session has %s", got)
			}
			if after, _ := os.ReadFile(file); !bytes.Equal(after, before) {
				t.Errorf("the file is now %s", after)
			}
			if _, err := os.Lstat(file); err != nil {
				t.Errorf("the file is gone: %v", err)
			}
		})
	}
}

// The files of an upload are removed. The server looks for them in its own request, not in our copy.
func TestUploadsAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if os.TempDir() != os.Getenv("TMPDIR") {
		skip.Test(t, "this system's temporary directory cannot be set") // Windows
	}
	h := manager(newStore(t)).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 10); err != nil {
			t.Error(err)
		}
		if files, _ := os.ReadDir(os.TempDir()); len(files) != 1 {
			t.Errorf("%d files while the request is handled, want 1", len(files))
		}
	}))
	srv := httptest.NewServer(h)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "x")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(make([]byte, 1<<20))
	form.Close()
	res, err := http.Post(srv.URL, form.FormDataContentType(), &body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	srv.Close()
	if files, _ := os.ReadDir(os.TempDir()); len(files) != 0 {
		t.Errorf("%d files are left", len(files))
	}
}

// A handler that was given up on may read the request while it is handed back.
func TestHandBackBesideGivenUp(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
			r.PathValue("x")
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/{x}", m.Handler(http.TimeoutHandler(slow, 5*time.Millisecond, "")))
	for range 5 {
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil))
	}
	time.Sleep(50 * time.Millisecond)
}

func TestHandBackBesideSetPathValue(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
			r.PathValue("x")
		}
	})
	h := m.Handler(http.TimeoutHandler(slow, 5*time.Millisecond, ""))
	for range 5 {
		r := httptest.NewRequest("GET", "/a", nil)
		r.Pattern = "/{x}"
		r.SetPathValue("x", "1")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	time.Sleep(50 * time.Millisecond)
}

// Others may read the request while it is under way.
func TestHandBackBesideReaders(t *testing.T) {
	m := manager(newStore(t))
	h := m.Handler(http.HandlerFunc(none))
	for range 20 {
		r := httptest.NewRequest("GET", "/a", nil)
		done := make(chan bool)
		go func() {
			for range 1000 {
				_ = r.URL.Path + r.Method
			}
			close(done)
		}()
		h.ServeHTTP(httptest.NewRecorder(), r)
		<-done
	}
}

// The end of a request does not read the header, because a handler that was given up on may write it.
func TestHeaderOfGivenUp(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.TrustProxy = true
	m.Cookie.Secure = session.SecureAlways
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Put("a", 1)
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
			r.Header.Set("X-Request-Id", "1")
		}
	})
	h := m.Handler(http.TimeoutHandler(slow, 5*time.Millisecond, ""))
	for range 5 {
		r := httptest.NewRequest("GET", "/a", nil)
		r.Header.Set("X-Forwarded-Proto", "https")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	time.Sleep(50 * time.Millisecond)
}

// GenID may use the session for which it makes an id.
func TestGenIDLooksAtTheSession(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	n := 0
	m.GenID = func(r *http.Request) (string, error) {
		n++
		sess := session.From(r)
		session.Value[string](sess, "user")
		sess.Put("n", n)
		sess.Delete("n")
		return strings.Repeat("x", 20+n) + sess.ID(), nil
	}
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/regenerate": regenerate})
	cookie := cookieOf(do(t, srv, "/put?user=anna", ""))
	if a := do(t, srv, "/regenerate", cookie); a.StatusCode != 200 || cookieOf(a) == "" {
		t.Errorf("status %d, cookie %q, want 200 and a cookie", a.StatusCode, cookieOf(a))
	}
}
