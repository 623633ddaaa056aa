package routertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

const cookieName = "connect.sid"

// patience bounds each wait for something that must come, and silence is how long a connection must stay open.
const (
	patience = 20 * time.Second
	silence  = 300 * time.Millisecond
)

func manager(store session.Store) *session.Manager {
	return &session.Manager{
		Store: store, Secrets: []string{"keyboard cat"},
		ErrorFunc: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "sorry", http.StatusServiceUnavailable)
		},
	}
}

// Run tells the stories of a Site.
func Run(t *testing.T, x *Site) {
	stories := []struct {
		name string
		tell func(p *place)
		skip bool
	}{
		{"Reader", reader, false},
		{"Visitor", visitor, x.ReadOnly},
		{"Login", login, x.ReadOnly},
		{"Parallel", parallel, x.ReadOnly},
		{"Logout", logout, x.ReadOnly},
		{"Flash", flash, x.ReadOnly},
		{"Stream", stream, x.ReadOnly},
		{"StreamEnds", streamEnds, x.ReadOnly},
		{"Upload", upload, x.ReadOnly},
		{"Upgrade", upgrade, x.ReadOnly},
		{"StoreFails", storeFails, x.ReadOnly},
		{"Killed", killed, x.ReadOnly},
	}
	for _, s := range stories {
		if !s.skip {
			t.Run(s.name, func(t *testing.T) { s.tell(x.open(t, true)) })
		}
	}
	for _, recovers := range []bool{false, true} {
		if x.ReadOnly || recovers && x.NoRecovery || !recovers && x.OnlyRecovering {
			continue
		}
		t.Run(fmt.Sprintf("Panic/recovers=%v", recovers), func(t *testing.T) {
			p := x.open(t, recovers)
			p.recovers = recovers
			panics(p)
		})
	}
}

// A place is a Site that runs.
type place struct {
	*Site
	t        *testing.T
	m        *session.Manager
	app      *App
	dir, url string
	store    *filestore.Store
	recovers bool
}

func (x *Site) open(t *testing.T, recovers bool) *place {
	t.Helper()
	p := &place{Site: x, t: t, dir: t.TempDir()}
	p.store = storetest.Open(t, p.dir, nil)
	p.m = manager(p.store)
	p.app = NewApp(p.m)
	url, stop := x.Start(p.m, p.app, recovers && !x.NoRecovery)
	t.Cleanup(func() {
		close(p.app.over)
		stop()
	})
	p.url = url
	return p
}

// A browser is a visitor of a place, who follows no redirects by itself.
type browser struct {
	*storetest.Browser
	p *place
}

func (p *place) browser() *browser { return &browser{storetest.NewBrowser(p.t, p.url), p} }

// with returns a browser that has this cookie.
func (p *place) with(cookie string) *browser {
	b := p.browser()
	b.Browser = b.With(cookieName, cookie)
	return b
}

func (b *browser) cookie() string { return b.Cookie(cookieName) }

func (b *browser) send(ctx context.Context, path string) (*http.Response, error) {
	var r *http.Request
	if b.p.Request != nil {
		r = b.p.Request(b.URL, path)
	} else {
		r, _ = http.NewRequest("GET", b.URL+path, nil)
	}
	return b.Client.Do(r.WithContext(ctx))
}

// try returns the answer of a server that may hang up; then the code is 0.
func (b *browser) try(path string) (code int, body string, h http.Header) {
	res, err := b.send(context.Background(), path)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), res.Header
	}
	body = string(text)
	if b.p.Body != nil && res.StatusCode == http.StatusOK {
		body = b.p.Body(body)
	}
	return res.StatusCode, body, res.Header
}

func (b *browser) want(path, body string) {
	b.p.t.Helper()
	code, got, _ := b.try(path)
	if code != http.StatusOK || got != body {
		b.p.t.Errorf("%s = %d %q, want %q", path, code, got, body)
	}
}

func (b *browser) get(path string) string {
	b.p.t.Helper()
	code, body, _ := b.try(path)
	if code != http.StatusOK {
		b.p.t.Errorf("%s = %d %q", path, code, body)
	}
	return body
}

// soon runs fn beside the test, and returns what the handler that waits then waits for, and a function that waits for
// fn.
func (p *place) soon(fn func()) (leave chan struct{}, wait func()) {
	p.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	wait = func() {
		p.t.Helper()
		select {
		case <-done:
		case <-time.After(patience):
			p.t.Error("the request has not ended")
		}
	}
	select {
	case leave = <-p.app.entered:
	case <-done:
		p.t.Fatal("the request has ended, and should wait")
	case <-time.After(patience):
		p.t.Fatal("the handler has not begun")
	}
	return leave, wait
}

func (p *place) wantSessions(n int) {
	p.t.Helper()
	if files := storetest.Files(p.t, p.dir); len(files) != n {
		p.t.Errorf("there are %d sessions, want %d", len(files), n)
	}
}

// plant logs a user in without the site, and returns the cookie.
func (p *place) plant(user string) (cookie string) {
	p.t.Helper()
	url, stop := Serve(p.m.Handler(p.app.ServeMux()))
	p.t.Cleanup(stop)
	b := storetest.NewBrowser(p.t, url)
	b.Get("/app/login?user=" + user)
	return b.Cookie(cookieName)
}

// A handler finds the session that a plain net/http program has made, and stores what it puts in.
func reader(p *place) {
	b := p.with(p.plant("anna"))
	b.want("/app/get?k=user", "anna")
	p.browser().want("/app/get?k=user", "")
	b.get("/app/set?k=colour&v=red")
	want := "red"
	if p.ReadOnly {
		want = ""
	}
	b.want("/app/get?k=colour", want) // if it is there, the site is not ReadOnly any more
}

// Who puts nothing in leaves no file and gets no cookie, whether there is a route or not.
func visitor(p *place) {
	b := p.browser()
	b.want("/app/get?k=user", "")
	if p.Request == nil {
		if code, body, _ := b.try("/nowhere"); code != http.StatusNotFound {
			p.t.Errorf("without a route the answer is %d %q", code, body)
		}
	}
	if c := b.cookie(); c != "" {
		p.t.Errorf("the visitor has the cookie %q", c)
	}
	p.wantSessions(0)
}

// A login gives the session a new id and keeps its values; the old cookie opens nothing. Two logins of a user are two
// devices.
func login(p *place) {
	b := p.browser()
	b.get("/app/set?k=cart&v=tea")
	planted, id := b.cookie(), b.get("/app/id")
	if planted == "" {
		p.t.Fatal("the session has no cookie")
	}
	b.get("/app/login?user=anna")
	if b.cookie() == planted || b.get("/app/id") == id {
		p.t.Error("the login has left the id as it was")
	}
	b.want("/app/get?k=user", "anna")
	b.want("/app/get?k=cart", "tea")
	p.with(planted).want("/app/get?k=cart", "")
	p.wantSessions(1)

	second := p.browser()
	second.get("/app/login?user=anna")
	second.want("/app/devices", "2")
	b.get("/app/logout")
	second.want("/app/devices", "1")
	b.want("/app/get?k=user", "")
	p.wantSessions(1)
}

// Requests that are all in their handlers at the same moment lose nothing that they put in.
func parallel(p *place) {
	const n = 12
	b := p.browser()
	b.get("/app/login?user=anna")
	cookie := b.cookie()
	var requests sync.WaitGroup
	var handlers []chan struct{}
	for i := range n {
		requests.Go(func() {
			p.with(cookie).get(fmt.Sprintf("/app/set?wait=1&k=key%d&v=%d", i, i))
		})
	}
	for range n {
		select {
		case leave := <-p.app.entered:
			handlers = append(handlers, leave)
		case <-time.After(patience):
			p.t.Fatal("not all handlers have begun")
		}
	}
	for _, leave := range handlers {
		close(leave)
	}
	requests.Wait()
	for i := range n {
		b.want(fmt.Sprintf("/app/get?k=key%d", i), fmt.Sprint(i))
	}
	b.want("/app/get?k=user", "anna")
	p.wantSessions(1)
}

// A logout stays, whatever a slow request that began before it puts in.
func logout(p *place) {
	b := p.browser()
	b.get("/app/login?user=anna")
	cookie := b.cookie()
	slow := p.with(cookie)
	leave, wait := p.soon(func() {
		if code, body, _ := slow.try("/app/set?wait=1&k=colour&v=red"); code != http.StatusOK {
			p.t.Errorf("the answer to the slow request is %d %q", code, body)
		}
	})
	b.get("/app/logout")
	if b.cookie() != "" {
		p.t.Error("the logout has left the cookie")
	}
	p.wantSessions(0)
	close(leave)
	wait()
	p.wantSessions(0)
	for _, b := range []*browser{b, slow, p.with(cookie)} {
		b.want("/app/get?k=user", "")
		b.want("/app/get?k=colour", "")
	}
}

// A message is there for the page after the redirect, however fast the browser is, and only once.
func flash(p *place) {
	b := p.browser()
	for i := range 30 {
		code, body, h := b.try(fmt.Sprint("/app/flash?msg=saved", i))
		if h.Get("Location") == "" {
			p.t.Fatal("the handler has not tried to redirect")
		}
		if p.NoRedirect {
			if code != http.StatusOK {
				p.t.Fatalf("the handler answers %d: say whether the site is still NoRedirect", code)
			}
		} else if code != http.StatusSeeOther || h.Get("Location") != "/app/flashes" {
			p.t.Fatalf("the redirect is %d to %q: %q", code, h.Get("Location"), body)
		}
		b.want("/app/flashes", fmt.Sprint("saved", i))
		b.want("/app/flashes", "")
	}
	p.wantSessions(1)
}

// A reading is what arrives of a stream.
type reading struct {
	mu     sync.Mutex
	header http.Header
	text   bytes.Buffer
	err    error
	more   chan struct{} // has a token if something has come
}

// read sends a request, and reads the answer until its end, or until ctx is done.
func (b *browser) read(ctx context.Context, path string, into *reading) {
	tell := func(fn func()) {
		into.mu.Lock()
		defer into.mu.Unlock()
		fn()
		select {
		case into.more <- struct{}{}:
		default:
		}
	}
	res, err := b.send(ctx, path)
	if err != nil {
		tell(func() { into.err = err })
		return
	}
	defer res.Body.Close()
	tell(func() { into.header = res.Header })
	buf := make([]byte, 4096)
	for err == nil {
		var n int
		n, err = res.Body.Read(buf)
		tell(func() { into.text.Write(buf[:n]) })
	}
	tell(func() { into.err = err })
}

// await waits until the stream has this text, and returns whether it has come in that time.
func (r *reading) await(text string, d time.Duration) bool {
	timeout := time.After(d)
	for {
		r.mu.Lock()
		found, ended := strings.Contains(r.text.String(), text), r.err != nil
		r.mu.Unlock()
		if found || ended {
			return found
		}
		select {
		case <-r.more:
		case <-timeout:
			return false
		}
	}
}

func newReading() *reading { return &reading{more: make(chan struct{}, 1)} }

// The first event arrives while the handler is at work, with the cookie before it, and the session is stored by then.
// What is put in after the first event is stored when the stream ends.
func stream(p *place) {
	b, got := p.browser(), newReading()
	leave, wait := p.soon(func() { b.read(context.Background(), "/events", got) })
	if !got.await("one", patience) {
		p.t.Error("the first event has not arrived while the handler was at work")
	}
	got.mu.Lock()
	header := got.header
	got.mu.Unlock()
	if len(header["Set-Cookie"]) != 1 {
		p.t.Errorf("before the first event the cookies are %q", header["Set-Cookie"])
	}
	other := p.with(b.cookie())
	other.want("/app/get?k=stream", "begun")
	other.want("/app/get?k=late", "")
	close(leave)
	wait()
	if !got.await("two", 0) || got.err != io.EOF {
		p.t.Errorf("the stream is %q, and ends with %v", &got.text, got.err)
	}
	b.want("/app/get?k=stream", "begun")
	late := "yes"
	if p.Late {
		late = ""
	}
	b.want("/app/get?k=late", late)
	p.wantSessions(1)
}

// A stream that waits for Done ends when its user logs out elsewhere. One whose client has gone does no harm.
func streamEnds(p *place) {
	b, got := p.browser(), newReading()
	b.get("/app/login?user=anna")
	cookie := b.cookie()
	if p.Late { // it has ended before it begins
		done := make(chan struct{})
		go func() { defer close(done); b.read(context.Background(), "/events?end=1", got) }()
		select {
		case <-p.app.entered:
		case <-time.After(patience):
			p.t.Error("the stream has not begun")
		}
		select {
		case <-done:
		case <-time.After(patience):
			p.t.Error("Done is open in a stream: the site is not Late any more")
		}
		return
	}
	_, wait := p.soon(func() { b.read(context.Background(), "/events?end=1", got) })
	if !got.await("one", patience) {
		p.t.Error("the first event has not arrived")
	}
	p.with(cookie).get("/app/logout")
	wait()
	if !got.await("two", 0) {
		p.t.Errorf("the stream is %q, and ends with %v", &got.text, got.err)
	}
	p.wantSessions(0)

	b, got = p.browser(), newReading()
	ctx, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	leave, wait := p.soon(func() { b.read(ctx, "/events", got) })
	if !got.await("one", patience) {
		p.t.Error("the first event has not arrived")
	}
	hangUp()
	wait()
	close(leave)
	b.want("/app/get?k=stream", "begun")
}

// A form with a file arrives, and leaves no temporary file.
func upload(p *place) {
	tmp := p.t.TempDir()
	p.t.Setenv("TMPDIR", tmp)
	const large = 2 * UploadMemory
	b := p.browser()
	b.get("/app/login?user=anna")
	send := func() (code int, body, sum string) {
		file := make([]byte, large)
		rand.Read(file)
		hash := sha256.Sum256(file)
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		w.WriteField("title", "a file")
		part, _ := w.CreateFormFile("file", "file.bin")
		part.Write(file)
		w.Close()
		res, err := b.Client.Post(b.URL+"/upload", w.FormDataContentType(), &form)
		if err != nil {
			return 0, err.Error(), ""
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text), hex.EncodeToString(hash[:])
	}
	code, body, sum := send()
	if code != http.StatusOK {
		p.t.Errorf("POST /upload = %d %q", code, body)
	}
	b.want("/app/get?k=file", sum)
	b.want("/app/get?k=user", "anna")
	var left []string
	filepath.WalkDir(tmp, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, path)
		}
		return nil
	})
	if (len(left) > 0) != p.LeavesUploads {
		p.t.Errorf("the upload has left %q; LeavesUploads is %v", left, p.LeavesUploads)
	}
}

// A handler takes the connection over. The session is stored before that, and again at the end; and when its user logs
// out, the connection is closed.
func upgrade(p *place) {
	for _, query := range []string{"", "?old=1"} {
		for _, byUser := range []bool{false, true} {
			b := p.browser()
			b.get("/app/login?user=anna")
			conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
			if err != nil {
				p.t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "GET /upgrade%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lines\r\nCookie: %s=%s\r\n\r\n", query, cookieName, b.cookie())
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				p.t.Fatalf("the answer to /upgrade%s is %v, %v", query, res, err)
			}
			asks := func() {
				p.t.Helper()
				fmt.Fprintln(conn, "user")
				if line, err := in.ReadString('\n'); line != "anna <nil>\n" || err != nil {
					p.t.Errorf("the connection says %q, %v", line, err)
				}
			}
			asks()
			b.want("/app/get?k=socket", "open")
			if byUser {
				b.get("/app/logout")
			}
			if !byUser || p.Late {
				time.Sleep(silence)
				asks() // it is still open
				fmt.Fprintln(conn)
			}
			if text, err := io.ReadAll(in); len(text) > 0 || err != nil {
				p.t.Errorf("at its end the connection says %q, %v", text, err)
			}
			switch {
			case byUser:
			case p.Late:
				b.want("/app/get?k=socket", "open")
			default:
				p.eventually(func() bool { return b.get("/app/get?k=socket") == "closed" }, "what was put in at the end of the connection")
			}
			b.get("/app/logout")
			b.want("/app/get?k=user", "")
			p.wantSessions(0)
		}
	}
}

// eventually waits for what happens when a connection was closed, which nothing tells.
func (p *place) eventually(ok func() bool, what string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Errorf("%s is missing", what)
			return
		}
	}
}

// A handler that panics stores nothing of what it has put in, and spoils nothing of what was there before: not before
// its answer has begun, and not in the middle of a stream. Its router goes on.
func panics(p *place) {
	fresh := p.browser()
	code, body, h := fresh.try("/app/panic?k=cart")
	files := 0
	if p.recovers && p.RecoversInside {
		files = 1
	}
	p.wantSessions(files)
	if got := fresh.cookie() != ""; got != (files == 1) {
		p.t.Errorf("the visitor of a handler that panics has a cookie: %v; RecoversInside is %v", got, p.RecoversInside)
	}
	if p.recovers && code != http.StatusInternalServerError || !p.recovers && code != 0 && code < 500 {
		p.t.Errorf("the answer of a handler that panics is %d %q %v", code, body, h)
	}

	b := p.browser()
	b.get("/app/login?user=anna")
	files++
	b.get("/app/set?k=cart&v=tea")
	cookie := b.cookie()
	b.try("/app/panic?k=cart")
	want := "tea"
	if p.recovers && p.RecoversInside {
		want = "half"
	}
	b.want("/app/get?k=cart", want)
	b.want("/app/get?k=user", "anna")
	if b.cookie() != cookie {
		p.t.Error("the cookie is another one")
	}
	p.wantSessions(files)

	if p.Late {
		return
	}
	got := newReading()
	leave, wait := p.soon(func() { b.read(context.Background(), "/events?panic=1", got) })
	if !got.await("one", patience) {
		p.t.Error("the first event has not arrived")
	}
	close(leave)
	wait()
	if got.await("two", 0) {
		p.t.Error("the second event has arrived after a panic")
	}
	b.want("/app/get?k=stream", "begun")
	late := ""
	if p.recovers && p.RecoversInside {
		late = "yes"
	}
	b.want("/app/get?k=late", late)
	b.want("/app/get?k=user", "anna")
}

// If the store fails, the answer is that of ErrorFunc, whatever the handler has said, and shows no id.
func storeFails(p *place) {
	b := p.browser()
	b.get("/app/login?user=anna")
	id := b.get("/app/id")
	late := p.browser()
	leave, wait := p.soon(func() {
		code, body, h := late.try("/app/set?wait=1&k=colour&v=red")
		if hard := code == 0; hard != p.FailsHard {
			p.t.Errorf("the connection is broken: %v; FailsHard is %v", hard, p.FailsHard)
		} else if !hard && (code != http.StatusServiceUnavailable || !strings.Contains(body, "sorry") || len(h["Set-Cookie"]) > 0) {
			p.t.Errorf("the answer to who cannot be stored is %d %q, with the cookies %q", code, body, h["Set-Cookie"])
		}
	})
	if err := p.store.Close(); err != nil {
		p.t.Fatal(err)
	}
	close(leave)
	wait()
	code, body, _ := b.try("/app/get?k=user")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "sorry") || strings.Contains(body, id) {
		p.t.Errorf("the answer to who cannot be loaded is %d %q", code, body)
	}
	p.wantSessions(1)
}

// What another process has answered is here after its kill -9.
func killed(p *place) {
	b := p.browser()
	b.get("/app/login?user=anna")
	process := storetest.Start(p.t, p.Name, p.dir)
	url := process.Line(p.t)
	there, bert := &browser{storetest.NewBrowser(p.t, url).With(cookieName, b.cookie()), p}, &browser{storetest.NewBrowser(p.t, url), p}
	there.want("/app/get?k=user", "anna")
	there.get("/app/set?k=cart&v=tea")
	bert.get("/app/login?user=bert")
	there.get("/app/login?user=anna") // again: a new id
	process.Kill()
	b.want("/app/get?k=user", "")
	p.with(there.cookie()).want("/app/get?k=cart", "tea")
	p.with(bert.cookie()).want("/app/get?k=user", "bert")
	p.wantSessions(2)
}
