package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

func TestMain(m *testing.M) {
	storetest.InMemory()
	storetest.Parallel(8)
	storetest.Main(m, map[string]func([]string){"slow requests": slowRequests})
}

var ctx = context.Background()

const secret = "keyboard cat"

// A browser is a client that has a cookie jar and does not follow redirects.
type browser struct {
	t    testing.TB
	base string
	http.Client
}

func newBrowser(t testing.TB, srv *httptest.Server) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, base: srv.URL}
	b.Client = *srv.Client()
	b.Jar = jar
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

type answer struct {
	*http.Response
	body string
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	res, err := b.Get(b.base + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res, string(body)}
}

// cookie returns the raw Cookie header that the browser would send.
func (b *browser) cookie() string {
	u, _ := url.Parse(b.base)
	var pairs []string
	for _, c := range b.Jar.Cookies(u) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// do sends a request with a Cookie header, without a jar.
func do(t testing.TB, srv *httptest.Server, path, cookie string) answer {
	t.Helper()
	req, err := http.NewRequest("GET", srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}

func cookieOf(a answer) string {
	head, _, _ := strings.Cut(a.Header.Get("Set-Cookie"), ";")
	return head
}

func signed(id string) string {
	return "connect.sid=" + url.QueryEscape("s:"+session.Sign(id, secret))
}

func manager(s session.Store) *session.Manager {
	return &session.Manager{Store: s, Secrets: []string{secret}}
}

func serve(t testing.TB, m *session.Manager, handlers map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range handlers {
		mux.Handle(path, h)
	}
	srv := httptest.NewServer(m.Handler(mux))
	t.Cleanup(srv.Close)
	return srv
}

// put is a handler that stores k=v from its query.
func put(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	for k, v := range r.URL.Query() {
		if err := s.Put(k, v[0]); err != nil {
			panic(err)
		}
	}
}

// show is a handler that prints the session's values as JSON.
func show(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(session.From(r).Values)
}

func regenerate(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Regenerate(); err != nil {
		panic(err)
	}
}

func destroy(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Destroy(); err != nil {
		panic(err)
	}
}

func none(http.ResponseWriter, *http.Request) {}

func TestSessionOverRequests(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/destroy": destroy,
			"/delete": func(w http.ResponseWriter, r *http.Request) { session.From(r).Delete("a") }})
		anna, bert := newBrowser(t, srv), newBrowser(t, srv)
		anna.get("/put?a=1")
		bert.get("/put?a=2")
		anna.get("/put?b=3")
		if got, want := anna.get("/show").body, `{"a":"1","b":"3"}`+"\n"; got != want {
			t.Errorf("anna has %s, want %s", got, want)
		}
		if got, want := bert.get("/show").body, `{"a":"2"}`+"\n"; got != want {
			t.Errorf("bert has %s, want %s", got, want)
		}
		anna.get("/delete")
		if got, want := anna.get("/show").body, `{"b":"3"}`+"\n"; got != want {
			t.Errorf("anna has %s, want %s", got, want)
		}
		old := anna.cookie()
		if a := anna.get("/destroy"); a.Header.Get("Set-Cookie") != "" {
			t.Errorf("Destroy sets the cookie %q, want none", a.Header.Get("Set-Cookie"))
		}
		if got := do(t, srv, "/show", old).body; got != "{}\n" {
			t.Errorf("after Destroy the old cookie opens %s", got)
		}
		if got, want := bert.get("/show").body, `{"a":"2"}`+"\n"; got != want {
			t.Errorf("bert has %s, want %s", got, want)
		}
	})
}

func idOf(t testing.TB, cookie string) string {
	t.Helper()
	value, err := url.PathUnescape(strings.TrimPrefix(cookie, "connect.sid="))
	if err != nil {
		t.Fatal(err)
	}
	id, ok := session.Unsign(strings.TrimPrefix(value, "s:"), secret)
	if !ok {
		t.Fatalf("cookie %q does not verify", cookie)
	}
	return id
}

func TestReload(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/reload": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		sess.Put("mine", 1)
		if err := s.Store.Update(ctx, sess.ID(), func(other *filestore.Session) error { return other.Put("theirs", 2) }); err != nil {
			t.Error(err)
		}
		if err := sess.Reload(); err != nil {
			t.Error(err)
		}
		show(w, r)
	}, "/new": func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Reload(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Reload of a new session = %v, want ErrNotFound", err)
		}
		sess := session.From(r)
		sess.Put("a", 1)
		if err := sess.Save(); err != nil {
			t.Error(err)
		}
		if err := sess.Reload(); err != nil {
			t.Error(err)
		}
	}})
	b := newBrowser(t, srv)
	b.get("/put?a=1")
	if got, want := b.get("/reload").body, `{"a":"1","theirs":2}`+"\n"; got != want {
		t.Errorf("after Reload the session has %s, want %s", got, want)
	}
	if got, want := b.get("/show").body, `{"a":"1","theirs":2}`+"\n"; got != want {
		t.Errorf("after Reload the next request has %s, want %s", got, want)
	}
	if a := do(t, srv, "/new", ""); cookieOf(a) == "" {
		t.Error("a new session that was saved and reloaded has no cookie")
	}
}

// A handler that a TimeoutHandler has given up on may use the session while the middleware stores it. The
// process died of it.
func TestTimeoutHandlerInside(t *testing.T) {
	s := newStore(t)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
			sess.Put("a", sess.ID())
			sess.Delete("b")
			session.Value[string](sess, "a")
			sess.Flash("k", "m")
			sess.Flashes("k")
		}
		sess.Save()
		sess.Reload()
		sess.Regenerate()
		sess.Destroy()
	})
	h := manager(s).Handler(http.TimeoutHandler(slow, 5*time.Millisecond, "timeout"))
	given := 0
	for range 20 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code == http.StatusServiceUnavailable {
			given++
		}
	}
	if given == 0 {
		t.Error("no handler was given up on: this test tests nothing")
	}
	time.Sleep(30 * time.Millisecond) // so that the last handlers end before the store is closed
}

// Reload of a new session fails even if another session has its id. The visitor got that session, and a
// signed cookie for it.
func TestReloadOfATakenID(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.GenID = func(*http.Request) (string, error) { return "taken", nil }
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": put, "/reload": func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Reload(); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Reload = %v, want ErrNotFound", err)
		}
		show(w, r)
	}})
	do(t, srv, "/put?user=anna", "")
	if a := do(t, srv, "/reload", ""); a.body != "{}\n" || cookieOf(a) != "" {
		t.Errorf("a visitor got the values %q and the cookie %q, want none", a.body, cookieOf(a))
	}
}

// The methods of a nil Session, which a request outside the Manager's path has, do not panic.
func TestNilSession(t *testing.T) {
	var s *session.Session
	for name, err := range map[string]error{
		"Put":        s.Put("a", 1),
		"Flash":      s.Flash("a", "b"),
		"Save":       s.Save(),
		"Reload":     s.Reload(),
		"Regenerate": s.Regenerate(),
		"Destroy":    s.Destroy(),
		"Login":      s.Login("anna"),
		"Renew":      s.Renew(),
		"Logout":     s.Logout(),
		"EndOthers":  func() error { _, err := s.EndOthers(); return err }(),
		"Flashes":    func() error { _, err := s.Flashes("a"); return err }(),
		"FlashesAs":  func() error { _, err := session.FlashesAs[int](s, "a"); return err }(),
		"Value":      func() error { _, err := session.Value[string](s, "a"); return err }(),
	} {
		if !errors.Is(err, session.ErrNoSession) || !strings.Contains(err.Error(), "path") {
			t.Errorf("%s of a nil Session = %v, want ErrNoSession", name, err)
		}
	}
	s.Delete("a")
	s.NoTouch()
	if !s.AuthenticatedAt().IsZero() || s.Fresh(time.Hour) {
		t.Error("a nil Session is authenticated")
	}
	select {
	case <-s.Done():
	default:
		t.Error("the Done of a nil Session is open")
	}
	if id := s.ID(); id != "" {
		t.Errorf("ID of a nil Session = %q", id)
	}
	if text := fmt.Sprint(s); text == "" {
		t.Error("fmt prints nothing for a nil Session")
	}
	if session.From(httptest.NewRequest("GET", "/", nil)) != nil || session.FromContext(context.Background()) != nil {
		t.Error("a request that passed through no Handler has a session")
	}
}

// Who forgets Manager.Handler, and the errors of Put and Flash, is told once by the log.
func TestForgottenHandler(t *testing.T) {
	session.ForgetLost()
	log := logged(t, func() {
		for range 2 {
			s := session.From(httptest.NewRequest("GET", "/", nil))
			s.Put("visits", 1)
			s.Flash("info", "Saved.")
		}
	})
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, "Put has kept nothing") || !strings.Contains(log, "no Manager.Handler is around this handler") {
		t.Errorf("the log has %q", log)
	}
	session.ForgetLost()
	if log := logged(t, func() { session.From(httptest.NewRequest("GET", "/", nil)).Flash("info", "Saved.") }); !strings.Contains(log, "Flash has kept nothing") {
		t.Errorf("the log has %q", log)
	}
}

var holder *session.Session

type looking struct{ X int }

func (l *looking) UnmarshalJSON(b []byte) error { holder.ID(); return nil }

func within(t *testing.T, name string, f func()) {
	t.Helper()
	done := make(chan bool)
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Errorf("%s: deadlock", name)
	}
}

type lookingTTL struct{ *recorder }

func (s lookingTTL) TTL() time.Duration {
	if holder != nil {
		holder.ID()
	}
	return time.Hour
}

// No lock is held while foreign code runs, because it may look at the session.
func TestForeignCodeLooksAtTheSession(t *testing.T) {
	m := manager(newStore(t))
	within(t, "Value", func() {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			holder = session.From(r)
			holder.Put("a", 1)
			session.Value[looking](holder, "a")
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	})
	within(t, "FlashesAs", func() {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			holder = session.From(r)
			holder.Flash("a", "x")
			session.FlashesAs[looking](holder, "a")
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	})
	holder = nil
	m = manager(lookingTTL{newStore(t)})
	within(t, "TTL", func() {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			holder = session.From(r)
			holder.Put("a", 1)
			holder.Save()
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	})
}

// Note, Prolongs, GenID and OnEvent may use the session too, also if it is at work.
func TestCallbacksUseTheSession(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	s.Store.Set(ctx, "id", new(filestore.Session))
	calls := make(map[string]int)
	use := func(r *http.Request, name string) {
		sess := m.From(r)
		sess.Put(name, 1)
		if name != "GenID" { // which is called in the middle
			if err := sess.Save(); err != nil {
				t.Errorf("Save in %s = %v", name, err)
			}
		}
		calls[name]++
	}
	m.Note = func(r *http.Request) session.Note { use(r, "Note"); return session.Note{Agent: "a\xff\n"} }
	m.Prolongs = func(r *http.Request) bool { use(r, "Prolongs"); return true }
	m.GenID = func(r *http.Request) (string, error) { use(r, "GenID"); return "next", nil }
	m.OnEvent = func(ctx context.Context, e session.Event) {
		sess := session.FromContext(ctx)
		sess.Put("OnEvent", 1)
		if err := sess.Save(); err != nil {
			t.Errorf("Save in OnEvent = %v", err)
		}
		calls["OnEvent"]++
	}
	within(t, "callbacks", func() {
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("anna"); err != nil {
				t.Error(err)
			}
		})
	})
	if got := kept(t, s, "next"); len(got.Values) != 7 || string(got.Values["__note"]) != `{"agent":"a?\n"}` {
		t.Errorf("after %v the session has %s, want the members of four callbacks and Login's three", calls, got.Values)
	}
}

// The members that Login writes are not the application's.
func TestReservedMembers(t *testing.T) {
	request(manager(newStore(t)), "id", "/", func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"cookie", "__lastAccess", "__created", "__authenticated", "__note"} {
			if err := session.From(r).Put(name, 1); err == nil || len(session.From(r).Values) != 0 {
				t.Errorf("Put(%q) = %v", name, err)
			}
		}
	})
}

type lookingLog struct{ slog.Handler }

func (lookingLog) Enabled(context.Context, slog.Level) bool { return true }

func (lookingLog) Handle(context.Context, slog.Record) error {
	holder.ID()
	return nil
}

func TestLogLooksAtTheSession(t *testing.T) {
	old := slog.Default()
	defer slog.SetDefault(old)
	slog.SetDefault(slog.New(lookingLog{slog.DiscardHandler}))
	s := newStore(t)
	m := manager(s)
	m.Rolling = true
	s.Store.Set(ctx, "id", &filestore.Session{Cookie: filestore.Cookie{Path: "/", SameSite: "none"}})
	within(t, "log", func() {
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { holder = session.From(r) })
	})
}

// However a Manager or a Session is printed, no secret, id or value shows.
func TestNothingIsPrinted(t *testing.T) {
	m := manager(newStore(t))
	srv := serve(t, m, map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		sess.Put("user", "anna")
		for _, v := range []any{m, *m, sess, struct {
			M session.Manager
			S *session.Session
		}{*m, sess}, []any{m, sess}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				if text := fmt.Sprintf(verb, v); strings.Contains(text, secret) || strings.Contains(text, sess.ID()) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
					t.Errorf("%s of a %T: %s", verb, v, text)
				}
			}
			text := logged(t, func() { slog.Error("x", "v", v) })
			if strings.Contains(text, secret) || strings.Contains(text, sess.ID()) {
				t.Errorf("log of a %T: %s", v, text)
			}
		}
	}})
	do(t, srv, "/", "")
}

// A value that is put in after the end of the request is not stored.
func TestAfterTheEnd(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	s.Store.Set(ctx, "id", new(filestore.Session))
	var sess *session.Session
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { sess = session.From(r) })
	sess.Put("late", 1)
	err := sess.Save()
	got, _ := s.Store.Get(ctx, "id")
	if len(got.Values) > 0 {
		t.Errorf("Save = %v, stored %s, want nothing", err, got.Values)
	}
}

type slowUpdate struct{ *filestore.Store }

func (s slowUpdate) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	time.Sleep(40 * time.Second)
	return s.Store.Update(ctx, id, fn)
}

// If another method does not return, the answer is 500. After it Regenerate is too late.
func TestBusySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{})
		m := manager(slowUpdate{s})
		s.Set(ctx, "id", new(filestore.Session))
		var err error
		w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			put(w, r)
			done := make(chan bool)
			go func() { session.From(r).Save(); close(done) }()
			time.Sleep(time.Second)
			w.Write([]byte("x"))
			<-done
			err = session.From(r).Regenerate()
		})
		_, gone := s.Get(ctx, "id")
		if !errors.Is(err, session.ErrTooLate) {
			t.Errorf("status %d, Regenerate = %v, want ErrTooLate; cookie %q, the old session %v", w.Code, err, w.Header().Get("Set-Cookie"), gone)
		}
	})
}
