package sessionui_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

func TestEnd(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true, Who: func(*http.Request) string { return "olga" }})
	y.put("id-of-anna", map[string]any{"user": "anna"})
	y.put("id-of-bert", map[string]any{"user": "bert"})
	y.file("torn", `{"cook`)
	page := get(y.page, "/?state=alive&sort=size")
	handle := page.handleOf("anna")
	a := do(y.page, form("/?state=alive&sort=size", url.Values{"do": {"end"}, "handle": {handle}}))
	if a.Code != 303 || !slices.Equal(y.ids(), []string{"id-of-bert", "torn"}) {
		t.Fatalf("the end of anna's = %d, left: %q", a.Code, y.ids())
	}
	where := a.Header().Get("Location")
	if next := get(y.page, "/"+where); !strings.Contains(next.body, "1 session ended.") || len(next.handles()) != 1 || !strings.Contains(where, "state=alive") {
		t.Errorf("the page after it, %s, shows %q", where, next.handles())
	}
	if next := get(y.page, "/?said=9.9.0.AAAAAAAAAAAAAAAA"); strings.Contains(next.body, "ended.") {
		t.Error("a link tells tales")
	}
	want := session.Event{Kind: session.Ended, Handle: handle, User: "anna", Reason: sessionui.ByOperator, Sessions: 1}
	if got := y.told(); len(got) != 1 || got[0] != want {
		t.Errorf("events %+v, want %+v", got, want)
	}
	if log := y.logged(); !strings.Contains(log, "who=olga") || !strings.Contains(log, "session="+handle) || !strings.Contains(log, "sessions=1") || strings.Contains(log, "id-of") {
		t.Errorf("the log is %s", log)
	}
	for _, gone := range []string{handle, "", "x", "id-of-bert", strings.Repeat("A", 22)} {
		if a := do(y.page, form("/", url.Values{"do": {"end"}, "handle": {gone}})); a.Code != 404 {
			t.Errorf("the end of %q = %d, want 404", gone, a.Code)
		}
		if a := get(y.page, "/?session="+gone); a.Code != 404 {
			t.Errorf("the page of %q = %d, want 404", gone, a.Code)
		}
	}
	// An operator may end what cannot be read, when it is named.
	torn := get(y.page, "/?state=unreadable").handles()
	if a := do(y.page, form("/", url.Values{"do": {"end"}, "handle": {torn[0]}})); a.Code != 303 || !slices.Equal(y.ids(), []string{"id-of-bert"}) {
		t.Errorf("the end of the torn file = %d, left: %q", a.Code, y.ids())
	}
}

// What cannot be ended says why.
func TestEndUnsafe(t *testing.T) {
	y := newYard(t, sessionui.Options{Write: true})
	if err := os.Mkdir(filepath.Join(y.dir, "folder.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := do(y.page, form("/", url.Values{"do": {"end"}, "handle": {get(y.page, "/").handles()[0]}}))
	if a.Code != 409 || !strings.Contains(a.body, "find out who put it there") || len(y.told()) != 0 {
		t.Errorf("the end of a directory = %d %s", a.Code, a.body)
	}
}

// A look that has read a session before its end does not show it.
func TestEndDuringALook(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	y.put("anna", map[string]any{"user": "anna"})
	y.put("bert", map[string]any{"user": "bert"})
	s := &paused{Store: y.s, read: make(chan struct{}), goOn: make(chan struct{})}
	page := sessionui.Operator(s, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	handle := get(page, "/").handleOf("anna")
	s.pause = true
	whole := make(chan answer)
	go func() { whole <- get(page, "/?whole=1") }()
	<-s.read
	if a := do(page, form("/", url.Values{"do": {"end"}, "handle": {handle}})); a.Code != 303 {
		t.Fatalf("the end = %d", a.Code)
	}
	close(s.goOn)
	if a := <-whole; a.figure("live") != "1" || strings.Contains(a.body, handle) {
		t.Errorf("the look shows %q", a.handles())
	}
}

// paused waits at the end of a Scan, if it is to.
type paused struct {
	*filestore.Store
	pause      bool
	read, goOn chan struct{}
}

func (s *paused) Scan(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Scan(ctx) {
			if !yield(e, err) {
				return
			}
		}
		if s.pause {
			close(s.read)
			<-s.goOn
		}
	}
}

// Whoever is let in has ten seconds for the form, and the answer may take longer.
func TestLateForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{n: 20, each: time.Second}
		page := sessionui.Operator(s, &sessionui.Options{Write: true})
		for late, want := range map[time.Duration]string{9 * time.Second: "303", 11 * time.Second: "400"} {
			client, server := net.Pipe()
			l := &once{server, make(chan struct{})}
			srv := &http.Server{Handler: page}
			go srv.Serve(l)
			body := "do=end-matching&n=20"
			fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n", len(body))
			time.Sleep(late)
			go io.WriteString(client, body)
			answer, err := bufio.NewReader(client).ReadString('\n')
			if err != nil || !strings.Contains(answer, want) {
				t.Errorf("to a form after %v: %q, %v", late, answer, err)
			}
			client.Close()
			srv.Close()
		}
	})
}

// once accepts one connection.
type once struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *once) Close() error   { close(l.closed); return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// A session that a request has in hand does not come back when it was ended on the page.
func TestEndDuringUpdate(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true})
	y.put("busy", map[string]any{"user": "anna"})
	handle := get(y.page, "/").handleOf("anna")
	for range 20 {
		y.put("busy", map[string]any{"user": "anna"})
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					y.s.Update(ctx, "busy", func(sess *filestore.Session) error { return sess.Put("n", n) })
				}
			}
		}()
		if a := do(y.page, form("/", url.Values{"do": {"end"}, "handle": {handle}})); a.Code != 303 {
			t.Errorf("the end = %d", a.Code)
		}
		time.Sleep(2 * time.Millisecond)
		close(stop)
		<-done
		if got := y.ids(); len(got) != 0 {
			t.Fatalf("after its end there is %q", got)
		}
	}
}

func TestEndMatching(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true})
	for i := range 5 {
		y.put(fmt.Sprintf("anna%d", i), map[string]any{"user": "anna"})
		y.put(fmt.Sprintf("bert%d", i), map[string]any{"user": "bert"})
	}
	y.file("torn", `{"cook`)
	y.file("over", old(2*time.Hour, `,"user":"anna"`))
	const which = "/?member=user&value=anna"
	page := get(y.page, which)
	if !regexp.MustCompile(`data-action="end-matching"`).MatchString(page.body) || !strings.Contains(page.body, "End the 6 that match") {
		t.Error("the page does not offer to end those that match")
	}
	ask := get(y.page, which+"&ask=1")
	if ask.Code != 200 || !strings.Contains(ask.body, `data-action="confirm"`) || !strings.Contains(ask.body, "End 6 sessions") || !strings.Contains(ask.body, "user = anna") || len(y.ids()) != 12 {
		t.Fatalf("the question = %d %s", ask.Code, ask.body)
	}
	// Between the question and the answer one becomes another's, one goes, and one comes.
	y.put("anna0", map[string]any{"user": "clara"})
	y.s.Destroy(ctx, "anna1")
	y.put("anna9", map[string]any{"user": "anna"})
	a := do(y.page, form(which, url.Values{"do": {"end-matching"}, "n": {"6"}}))
	if want := []string{"anna0", "bert0", "bert1", "bert2", "bert3", "bert4", "torn"}; a.Code != 303 || !slices.Equal(y.ids(), want) {
		t.Fatalf("the answer = %d, left: %q, want %q", a.Code, y.ids(), want)
	}
	if next := get(y.page, "/"+a.Header().Get("Location")); !strings.Contains(next.body, "5 sessions ended. You were asked about 6.") {
		t.Errorf("what was done is not said: %s", next.body)
	}
	if got := y.told(); len(got) != 5 {
		t.Errorf("%d events, want 5: %v", len(got), got)
	}
	if log := y.logged(); !strings.Contains(log, "sessions=5") {
		t.Errorf("the log is %s", log)
	}
	// Many more than the visitor has seen: nobody ends.
	for i := range 30 {
		y.put(fmt.Sprintf("dora%d", i), map[string]any{"user": "dora"})
	}
	a = do(y.page, form("/?member=user&value=dora", url.Values{"do": {"end-matching"}, "n": {"2"}}))
	if a.Code != 409 || len(y.ids()) != 37 || !strings.Contains(a.body, "End 30 sessions") {
		t.Errorf("30 instead of 2 = %d, left: %d", a.Code, len(y.ids()))
	}
	// All, but what cannot be read.
	a = do(y.page, form("/", url.Values{"do": {"end-matching"}, "n": {"36"}}))
	if a.Code != 303 || !slices.Equal(y.ids(), []string{"torn"}) {
		t.Errorf("all = %d, left: %q", a.Code, y.ids())
	}
	for _, bad := range []url.Values{{"do": {"end-matching"}}, {"do": {"end-matching"}, "n": {"x"}}, {"do": {"clear"}}} {
		if a := do(y.page, form("/", bad)); a.Code != 400 {
			t.Errorf("POST %v = %d", bad, a.Code)
		}
	}
	if a := do(y.page, form("/?member=role&value=x", url.Values{"do": {"end-matching"}, "n": {"1"}})); a.Code != 400 {
		t.Errorf("by a member that is not shown = %d", a.Code)
	}
}

// A changer changes a session between the page's second count and its end.
type changer struct {
	*filestore.Store
	change func()
}

func (c *changer) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	c.change()
	return c.Store.Update(ctx, id, fn)
}

func (c *changer) Destroy(ctx context.Context, id string) error {
	c.change()
	return c.Store.Destroy(ctx, id)
}

// The last look at a session is that of the write which ends it.
func TestEndMatchingUnderTheLock(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	c := &changer{Store: y.s}
	page := sessionui.Operator(c, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	y.put("one", map[string]any{"user": "anna"})
	c.change = func() { put(t, y.s, "one", map[string]any{"user": "bert"}) }
	a := do(page, form("/?member=user&value=anna", url.Values{"do": {"end-matching"}, "n": {"1"}}))
	if a.Code != 303 || len(y.ids()) != 1 || len(y.told()) != 0 {
		t.Errorf("= %d, left: %q, events %v", a.Code, y.ids(), y.told())
	}
}

// A session that cannot be read by the time when those that match end is not one of them.
func TestEndMatchingTurnsUnreadable(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	c := &changer{Store: y.s}
	page := sessionui.Operator(c, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	y.put("one", map[string]any{"user": "anna"})
	c.change = func() { y.file("one", `{"cook`) }
	a := do(page, form("/?member=user&value=anna", url.Values{"do": {"end-matching"}, "n": {"1"}}))
	if a.Code != 303 || len(y.ids()) != 1 || len(y.told()) != 0 || !strings.Contains(y.logged(), "failed=1") {
		t.Errorf("= %d, left: %q, events %v, log %s", a.Code, y.ids(), y.told(), y.logged())
	}
}

// Of several who end a session one only does, and the others hear that it has ended.
func TestEndTwice(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	c := &changer{Store: y.s}
	page := sessionui.Operator(c, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	y.put("one", map[string]any{"user": "anna"})
	handle := get(page, "/").handleOf("anna")
	c.change = func() { // another one is between the two steps of an end
		y.s.Update(ctx, "one", func(sess *filestore.Session) error {
			sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
			return nil
		})
	}
	if a := do(page, form("/", url.Values{"do": {"end"}, "handle": {handle}})); a.Code != 404 || len(y.told()) != 0 {
		t.Errorf("the second end = %d, events %v", a.Code, y.told())
	}
}

// A quitter's visitor goes away between the two steps of an end.
type quitter struct {
	*filestore.Store
	quit func()
}

func (q quitter) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	defer q.quit()
	return q.Store.Update(ctx, id, fn)
}

// A session that has ended is told of, whatever becomes of the request.
func TestEndCanceled(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	own, cancel := context.WithCancel(ctx)
	page := sessionui.Operator(quitter{y.s, cancel}, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	y.put("one", map[string]any{"user": "anna"})
	r := form("/", url.Values{"do": {"end"}, "handle": {get(page, "/").handleOf("anna")}})
	if a := do(page, r.WithContext(own)); a.Code != 303 || len(y.ids()) != 0 || len(y.told()) != 1 {
		t.Errorf("= %d, left: %q, events %v, log %s", a.Code, y.ids(), y.told(), y.logged())
	}
}
