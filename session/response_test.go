package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// F13: however the header leaves, the session is stored before, and the header has the cookie once.
func TestHeaderLeaves(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	stored := func(r *http.Request) error { // at the moment when the handler goes on
		_, err := s.Store.Get(ctx, session.From(r).ID())
		return err
	}
	want := map[string]int{}
	handlers := map[string]http.HandlerFunc{
		"/nothing":    func(w http.ResponseWriter, r *http.Request) { put(w, r) },
		"/write":      func(w http.ResponseWriter, r *http.Request) { put(w, r); w.Write([]byte("x")) },
		"/many":       func(w http.ResponseWriter, r *http.Request) { put(w, r); fmt.Fprint(w, "a"); fmt.Fprint(w, "b") },
		"/string":     func(w http.ResponseWriter, r *http.Request) { put(w, r); io.WriteString(w, "x") },
		"/status":     func(w http.ResponseWriter, r *http.Request) { put(w, r); w.WriteHeader(404); fmt.Fprint(w, "x") },
		"/304":        func(w http.ResponseWriter, r *http.Request) { put(w, r); w.WriteHeader(304) },
		"/204":        func(w http.ResponseWriter, r *http.Request) { put(w, r); w.WriteHeader(204) },
		"/redirect":   func(w http.ResponseWriter, r *http.Request) { put(w, r); http.Redirect(w, r, "/", http.StatusFound) },
		"/flusher":    func(w http.ResponseWriter, r *http.Request) { put(w, r); w.(http.Flusher).Flush() },
		"/controller": func(w http.ResponseWriter, r *http.Request) { put(w, r); http.NewResponseController(w).Flush() },
		"/readfrom": func(w http.ResponseWriter, r *http.Request) {
			put(w, r)
			w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
		},
		"/file": func(w http.ResponseWriter, r *http.Request) { put(w, r); http.ServeFile(w, r, file) },
		"/panic-after": func(w http.ResponseWriter, r *http.Request) {
			put(w, r)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"/copy": func(w http.ResponseWriter, r *http.Request) {
			put(w, r)
			f, err := os.Open(file)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			io.Copy(w, f)
		},
		"/early": func(w http.ResponseWriter, r *http.Request) {
			put(w, r)
			http.NewResponseController(w).Flush()
			if err := stored(r); err != nil {
				t.Errorf("after the header left the session is not stored: %v", err)
			}
			session.From(r).Put("late", "1")
		},
	}
	for path := range handlers {
		want[path] = 200
	}
	want["/status"], want["/304"], want["/204"], want["/redirect"] = 404, 304, 204, 302
	srv := serve(t, manager(s), handlers)
	for path := range handlers {
		s.take()
		req, _ := http.NewRequest("GET", srv.URL+path+"?a=1", nil)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want[path] || len(res.Header["Set-Cookie"]) != 1 {
			t.Errorf("%s: status %d, cookies %q, want one", path, res.StatusCode, res.Header["Set-Cookie"])
			continue
		}
		if (path == "/file" || path == "/copy") && len(body) != 100_000 {
			t.Errorf("%s: %d bytes", path, len(body))
		}
		calls := "create"
		sess, err := s.Store.Get(ctx, idOf(t, cookieOf(answer{res, ""})))
		if err != nil || string(sess.Values["a"]) != `"1"` {
			t.Errorf("%s: the session is %v, %v, want a = \"1\"", path, sess, err)
			continue
		}
		if path == "/early" {
			calls = "create update"
			if string(sess.Values["late"]) != `"1"` {
				t.Errorf("%s: what was put in after the header is missing", path)
			}
		}
		if got := s.take(); got != calls {
			t.Errorf("%s: store calls %q, want %q", path, got, calls)
		}
	}
}

// F13: if the handler panics before the header leaves, nothing is stored.
func TestPanic(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/panic": func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Put("b", 1)
		panic(http.ErrAbortHandler)
	}})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	req, _ := http.NewRequest("GET", srv.URL+"/panic", nil)
	req.Header.Set("Cookie", cookie)
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		res.Body.Close()
		t.Errorf("status %d after a panic, want no answer", res.StatusCode)
	}
	if got := do(t, srv, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("after the panic the session has %s", got)
	}
}

// If somebody outside recovers, the answer is his, by whatever writer, and stores nothing of what the handler has put
// in. A session that has got a new id before the panic is not lost: the answer has its cookie.
func TestPanicRecovered(t *testing.T) {
	for _, by := range []string{"the handler's", "his own"} {
		s := newStore(t)
		var handlers http.ResponseWriter
		inner := manager(s).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers = w
			switch put(w, r); r.URL.Path {
			case "/show":
				show(w, r)
			case "/renew":
				if err := session.From(r).Renew(); err != nil {
					t.Error(err)
				}
				put(w, r)
				panic("on purpose")
			case "/panic":
				panic("on purpose")
			}
		}))
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if recover() != nil {
					if by == "the handler's" {
						w = handlers
					}
					w.WriteHeader(http.StatusTeapot)
					fmt.Fprint(w, "recovered")
				}
			}()
			inner.ServeHTTP(w, r)
		}))
		defer srv.Close()
		cookie := cookieOf(do(t, srv, "/?a=1", ""))
		for _, c := range []string{"", cookie} {
			s.take()
			a := do(t, srv, "/panic?a=2", c)
			if a.StatusCode != http.StatusTeapot || a.body != "recovered" || a.Header["Set-Cookie"] != nil {
				t.Errorf("by %s writer: %d %q, cookies %q", by, a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			if calls := s.take(); calls != "" && calls != "get" {
				t.Errorf("by %s writer: store calls %q", by, calls)
			}
		}
		if got := do(t, srv, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
			t.Errorf("by %s writer: after the panic the session has %s", by, got)
		}
		a := do(t, srv, "/renew?b=2", cookie)
		if a.StatusCode != http.StatusTeapot || len(a.Header["Set-Cookie"]) != 1 {
			t.Fatalf("by %s writer: after Renew %d, cookies %q", by, a.StatusCode, a.Header["Set-Cookie"])
		}
		if got := do(t, srv, "/show", cookieOf(a)).body; !strings.Contains(got, `"a":"1"`) {
			t.Errorf("by %s writer: after Renew and a panic the session has %s", by, got)
		}
	}
}

// An informational response does not count as the header.
func TestEarlyHints(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		if calls := s.take(); calls != "" {
			t.Errorf("the store is called at the hint: %s", calls)
		}
		put(w, r)
		w.WriteHeader(200)
	}})
	hints := 0
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints++
		if h.Get("Set-Cookie") != "" {
			t.Error("the hint has a cookie")
		}
		return nil
	}}), "GET", srv.URL+"/?a=1", nil)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if hints != 1 || len(res.Header["Set-Cookie"]) != 1 {
		t.Errorf("%d hints, cookies %q, want one of each", hints, res.Header["Set-Cookie"])
	}
}

// F13: a Hijack stores the session first. What the handler changes after it is stored at the end.
func TestHijack(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/hijack": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if sess, err := s.Store.Get(ctx, session.From(r).ID()); err != nil || string(sess.Values["b"]) != `"2"` {
			t.Errorf("at the hijack the session is %v, %v, want b = \"2\"", sess, err)
		}
		session.From(r).Put("c", "3")
		buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
		buf.Flush()
	}})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /hijack?b=2 HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cookie)
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // the handler may still be storing
		if do(t, srv, "/show", cookie).body == `{"a":"1","b":"2","c":"3"}`+"\n" {
			return
		}
	}
	t.Errorf("after the hijack the session has %s", do(t, srv, "/show", cookie).body)
}

// F13: the handler can do what the writer below can do, and gets ErrNotSupported for the rest.
func TestController(t *testing.T) {
	m := manager(newStore(t))
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if _, _, err := rc.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack of a recorder = %v, want ErrNotSupported", err)
		}
		if err := rc.Flush(); err != nil {
			t.Errorf("Flush of a recorder = %v", err)
		}
		if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); !ok || u.Unwrap() == nil {
			t.Error("the writer has no Unwrap")
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// F13: the middleware works over HTTP/2, which has other writers.
func TestHTTP2(t *testing.T) {
	s := newStore(t)
	srv := httptest.NewUnstartedServer(manager(s).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		fmt.Fprint(w, r.Proto)
		http.NewResponseController(w).Flush()
		show(w, r)
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	b := newBrowser(t, srv)
	a := b.get("/?a=1")
	if a.body != `HTTP/2.0{"a":"1"}`+"\n" || !strings.Contains(a.Header.Get("Set-Cookie"), "; Secure;") {
		t.Errorf("body %q, cookie %q", a.body, a.Header.Get("Set-Cookie"))
	}
	if a := b.get("/?b=2"); a.body != `HTTP/2.0{"a":"1","b":"2"}`+"\n" {
		t.Errorf("body %q", a.body)
	}
}

// Destroy works even if the client has gone.
func TestClientGone(t *testing.T) {
	s := newStore(t)
	begun, gone, done := make(chan bool), make(chan bool), make(chan bool)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show, "/logout": func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-gone
		<-r.Context().Done()
		if err := session.From(r).Destroy(); err != nil {
			t.Errorf("Destroy after the client had gone: %v", err)
		}
		done <- true
	}})
	cookie := cookieOf(do(t, srv, "/put?a=1", ""))
	c, cancel := context.WithCancel(ctx)
	req, _ := http.NewRequestWithContext(c, "GET", srv.URL+"/logout", nil)
	req.Header.Set("Cookie", cookie)
	go http.DefaultTransport.RoundTrip(req)
	<-begun
	cancel()
	gone <- true
	<-done
	if got := do(t, srv, "/show", cookie).body; got != "{}\n" {
		t.Errorf("after the logout the session has %s", got)
	}
}

// A Flush that the writer does not support does not make a header come back that has left.
func TestFailedFlushAfterHeader(t *testing.T) {
	for _, c := range []string{"old", ""} {
		s := newStore(t)
		s.Store.Set(ctx, "old", new(filestore.Session))
		rec := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/?a=1", nil)
		if c != "" {
			r.Header.Set("Cookie", signed(c))
		}
		var err error
		manager(s).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("x"))
			http.NewResponseController(w).Flush()
			if c != "" {
				err = session.From(r).Regenerate()
			} else {
				put(w, r)
				err = session.From(r).Save()
			}
		})).ServeHTTP(struct{ http.ResponseWriter }{rec}, r)
		res := rec.Result()
		if !errors.Is(err, session.ErrTooLate) {
			t.Errorf("cookie %q: error %v, want ErrTooLate; sent cookies %q; live sessions %q", c, err, res.Header["Set-Cookie"], s.live(t))
		}
	}
}

func TestFailedHijackHTTP2(t *testing.T) {
	s := newStore(t)
	s.Store.Set(ctx, "old", new(filestore.Session))
	var err error
	srv := httptest.NewUnstartedServer(manager(s).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		http.NewResponseController(w).Hijack()
		err = session.From(r).Regenerate()
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header.Set("Cookie", signed("old"))
	res, e := srv.Client().Do(req)
	if e != nil {
		t.Fatal(e)
	}
	io.ReadAll(res.Body)
	res.Body.Close()
	if err == nil {
		t.Errorf("%s: Regenerate after the header left = nil, want an error; cookies %q, live sessions %q", res.Proto, res.Header["Set-Cookie"], s.live(t))
	}
}

// If the session cannot be stored, the answer is not 200, whatever ErrorFunc does.
func TestErrorFuncAborts(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	srv := serve(t, m, map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		s.setFail(syscall.ENOSPC)
		defer func() {
			recover()
			within(t, "methods after", func() { session.From(r).Put("b", 1); session.From(r).Save(); session.From(r).Destroy() })
			w.Write([]byte("x"))
		}()
		w.Write([]byte("x"))
	}})
	req, _ := http.NewRequest("GET", srv.URL+"/?a=1", nil)
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		t.Logf("status %d %q", res.StatusCode, res.Header["Set-Cookie"])
		if res.StatusCode == 200 {
			t.Error("status 200 although the session could not be stored")
		}
		res.Body.Close()
	}
}

func TestErrorFuncPanics(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { panic("defect") }
	w := request(m, "none", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "sorry", 500)
			}
		}()
		put(w, r)
		s.setFail(syscall.ENOSPC)
		w.Write([]byte("x"))
	})
	s.setFail(nil)
	if w.Code != 500 {
		t.Errorf("status %d, want 500", w.Code)
	}
}

func TestErrorFuncFlushes(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) { http.NewResponseController(w).Flush() }
	srv := serve(t, m, map[string]http.HandlerFunc{"/": none})
	s.setFail(errors.New("no"))
	if a := do(t, srv, "/", signed("id")); a.StatusCode != 500 {
		t.Errorf("status %d, want 500", a.StatusCode)
	}
}

// A client that closes its writing half after the request gets its answer.
func TestHalfClosedClient(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		put(w, r)
	}})
	conn, _ := net.Dial("tcp", srv.Listener.Addr().String())
	fmt.Fprint(conn, "GET /?a=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(bufio.NewReader(conn))
	if !strings.Contains(string(b), "Set-Cookie") {
		t.Errorf("the answer is %.80q, want one with a cookie", b)
	}
}

// After a Hijack or Flush that the writer does not support, the cookie is set. It was missing.
func TestFailedHijack(t *testing.T) {
	m := manager(newStore(t))
	for name, try := range map[string]func(w http.ResponseWriter) error{
		"Hijack": func(w http.ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
		"Flush":  func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	} {
		rec := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("b", 1)
			if err := try(w); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s = %v, want ErrNotSupported", name, err)
			}
			put(w, r)
			io.WriteString(w, "x")
		})).ServeHTTP(struct{ http.ResponseWriter }{rec}, httptest.NewRequest("GET", "/?a=1", nil))
		if c := rec.Header()["Set-Cookie"]; len(c) != 1 {
			t.Errorf("after a failed %s: cookies %q, want one", name, c)
		}
	}
}

// If ErrorFunc writes nothing, the answer is 500. It was 200.
func TestSilentErrorFunc(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	var n atomic.Int64
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { n.Add(1) }
	srv := serve(t, m, map[string]http.HandlerFunc{"/put": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		s.setFail(fs.ErrPermission)
		w.WriteHeader(http.StatusOK)
		http.SetCookie(w, &http.Cookie{Name: "after", Value: "x"})
	}})
	if a := do(t, srv, "/put?a=1", ""); a.StatusCode != 500 || a.Header.Get("Set-Cookie") != "" || n.Load() != 1 {
		t.Errorf("at the save: status %d, want 500, cookie %q, want none, %d errors, want 1", a.StatusCode, a.Header.Get("Set-Cookie"), n.Load())
	}
	if a := do(t, srv, "/put?a=1", signed("id")); a.StatusCode != 500 || n.Load() != 2 {
		t.Errorf("at the load: status %d, want 500, %d errors in all, want 2", a.StatusCode, n.Load())
	}
}

// A client that follows a redirect as soon as the header is there finds the session, although the handler
// is still running.
func TestRedirectRace(t *testing.T) {
	s := newStore(t)
	missed := 0
	release := make(chan bool, 1)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/show": show, "/put": put, "/go": func(w http.ResponseWriter, r *http.Request) {
		put(w, r)
		http.Redirect(w, r, "/show", http.StatusFound)
		http.NewResponseController(w).Flush()
		<-release
	}})
	for i := range 100 {
		b := newBrowser(t, srv)
		if i%2 == 1 { // with an existing session
			b.get("/put?a=1")
		}
		req, _ := http.NewRequest("GET", fmt.Sprintf("%s/go?n=%d", srv.URL, i), nil)
		res, err := b.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if a := b.get("/show"); !strings.Contains(a.body, fmt.Sprintf(`"n":"%d"`, i)) {
			missed++
		}
		release <- true
		res.Body.Close()
	}
	if missed > 0 {
		t.Errorf("%d of 100 redirects found no session", missed)
	}
}

// If the Store panics and a middleware within recovers, the request ends. It hung.
func TestPanickingStore(t *testing.T) {
	for _, op := range []string{"create", "update", "touch", "destroy"} {
		s := &panicking{recorder: newStore(t)}
		m := manager(s)
		m.Rolling = true
		cookie := cookieOf(answer{request(m, "none", "/?a=1", put).Result(), ""})
		s.at = op
		handler := map[string]http.HandlerFunc{"create": put, "update": put, "touch": none, "destroy": destroy}[op]
		r := httptest.NewRequest("GET", "/?b=1", nil)
		if op != "create" {
			r.Header.Set("Cookie", cookie)
		}
		w := httptest.NewRecorder()
		done := make(chan bool)
		go func() {
			defer close(done)
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: the panic did not reach the handler", op)
					}

					session.From(r).ID()
					w.WriteHeader(500)
				}()
				handler(w, r)
				w.Write([]byte("x"))
			})).ServeHTTP(w, r)
		}()
		select {
		case <-done:
			if w.Code != 500 {
				t.Errorf("%s: status %d, want 500", op, w.Code)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the request hangs", op)
		}
	}
}

// panicking panics in one method.
type panicking struct {
	*recorder
	at string
}

func (s *panicking) try(op string) {
	if s.at == op {
		panic("the store has a defect")
	}
}

func (s *panicking) Create(ctx context.Context, id string, sess *filestore.Session) error {
	s.try("create")
	return s.recorder.Create(ctx, id, sess)
}

func (s *panicking) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	s.try("update")
	return s.recorder.Update(ctx, id, fn)
}

func (s *panicking) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	s.try("touch")
	return s.recorder.Touch(ctx, id, c)
}

func (s *panicking) Destroy(ctx context.Context, id string) error {
	s.try("destroy")
	return s.recorder.Destroy(ctx, id)
}
