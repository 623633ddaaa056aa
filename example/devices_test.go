package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/internal/skip"
)

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	iPhone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)

// as logs a user in with a browser, and returns that.
func as(t *testing.T, base, user, agent string, header ...string) *browser {
	t.Helper()
	b := newBrowser(t, base)
	form := url.Values{"username": {user}, "password": {users[user]}}
	b.want(b.post("/user", form, append(header, "User-Agent", agent)...), http.StatusSeeOther, "/")
	return b
}

var handleRE = regexp.MustCompile(`data-session="([^"]*)"( data-current)?`)

// handles returns the handles on the list of the user, which must have n sessions, without that of the browser's own.
func (b *browser) handles(n int) (others []string) {
	b.t.Helper()
	a := b.want(b.get(devicesPath), http.StatusOK, "")
	all := handleRE.FindAllStringSubmatch(a.body, -1)
	for _, m := range all {
		if m[2] == "" {
			others = append(others, m[1])
		}
	}
	if buttons := strings.Count(a.body, `data-action="sign-out"`); len(all) != n || len(others) != n-1 || buttons != n-1 {
		b.t.Fatalf("the list has %d sessions, %d others and %d buttons, want %d and one less:\n%s", len(all), len(others), buttons, n, a.body)
	}
	return others
}

// press posts a form of one of the pages about sessions.
func (b *browser) press(path, do, handle string) answer {
	b.t.Helper()
	return b.post(path, url.Values{"do": {do}, "handle": {handle}}, "Sec-Fetch-Site", "same-origin")
}

func (b *browser) signOut(handle string) answer { return b.press(devicesPath, "sign-out", handle) }
func (b *browser) signOutOthers() answer        { return b.press(devicesPath, "sign-out-others", "") }

// isIn fails unless the browser is logged in, or is not.
func (b *browser) isIn(in bool, when string) {
	b.t.Helper()
	if got := b.get("/user").StatusCode == http.StatusOK; got != in {
		b.t.Errorf("%s: logged in is %v, want %v", when, got, in)
	}
}

// thief has a copy of the cookie that b has now.
func (b *browser) thief() *browser {
	b.t.Helper()
	other := newBrowser(b.t, b.base)
	site, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	other.client.Jar.SetCookies(site, []*http.Cookie{{Name: cookieName, Value: b.cookie(), Path: "/"}})
	return other
}

// later lets the login of a browser be so long ago.
func later(t *testing.T, at place, b *browser, ago time.Duration) {
	t.Helper()
	at.update(t, sessionID(t, b.cookie()), func(s *filestore.Session) error {
		ms, err := filestore.Value[int64](s, "__authenticated")
		if err != nil || ms == 0 {
			t.Errorf("__authenticated is %d, %v", ms, err)
		}
		return s.Put("__authenticated", ms-ago.Milliseconds())
	})
}

// A user sees the sessions of all browsers, and no others, and ends one of them: its cookie opens nothing any more.
func TestDevices(t *testing.T) { onEach(t, testDevices) }

func testDevices(t *testing.T, at place) {
	base := at.serve(t, true)
	newBrowser(t, base).post("/count", nil) // a session of nobody
	a := as(t, base, "user1", firefox, "X-Forwarded-For", "192.0.2.1, 203.0.113.77")
	b := as(t, base, "user1", iPhone)
	other := as(t, base, admin, firefox)
	a.handles(2)
	other.handles(1)
	list := a.get(devicesPath).body
	for _, want := range []string{"Firefox on Linux", "Safari on iPhone", "203.0.113.0/24", "127.0.0.0/24", "<dt>Network</dt>", `<a href="/account/devices/" aria-current="page">`} {
		if strings.Count(list, want) == 0 {
			t.Errorf("the list has no %q:\n%s", want, list)
		}
	}
	for _, secret := range []string{sessionID(t, a.cookie()), sessionID(t, b.cookie()), "203.0.113.77"} {
		if strings.Contains(list, secret) {
			t.Errorf("the list shows %s", secret)
		}
	}
	stolen, id := b.thief(), sessionID(t, b.cookie())
	handle := a.handles(2)[0]
	for what, wrong := range map[string]string{"no": "", "a wrong": "x", "somebody else's": "", "an id as a": sessionID(t, b.cookie())} {
		if what == "somebody else's" {
			second := as(t, base, admin, iPhone)
			wrong = other.handles(2)[0]
			second.post("/logout", nil)
		}
		if body := a.want(a.signOut(wrong), http.StatusNotFound, "").body; !strings.Contains(body, "not one of your devices") {
			t.Errorf("%s handle: no message in\n%s", what, body)
		}
	}
	other.want(other.signOut(handle), http.StatusNotFound, "")
	b.isIn(true, "after another user had the handle")

	a.want(a.signOut(handle), http.StatusSeeOther, "?")
	if body := a.get(devicesPath).body; !strings.Contains(body, "The device is signed out.") {
		t.Errorf("no message in\n%s", body)
	}
	b.isIn(false, "after the end")
	stolen.isIn(false, "a copy of the cookie after the end")
	if at.has(t, id) {
		t.Error("the session is stored after the end")
	}
	a.isIn(true, "the browser with the button")
	other.isIn(true, "another user")
	a.handles(1)
	if body := a.want(a.signOut(handle), http.StatusNotFound, "").body; !strings.Contains(body, "signed out already") {
		t.Errorf("no message in\n%s", body)
	}
	a.want(a.get("/devices"), http.StatusMovedPermanently, devicesPath)
	newBrowser(t, base).want(newBrowser(t, base).get(devicesPath), http.StatusSeeOther, "/?next="+devicesPath)
}

// Everywhere else leaves this session alone, everywhere leaves none. A thief who has a copy of another browser's cookie
// is out with it.
func TestLogoutEverywhere(t *testing.T) { onEach(t, testLogoutEverywhere) }

func testLogoutEverywhere(t *testing.T, at place) {
	base := at.serve(t, false)
	a, b, c := as(t, base, "user1", firefox), as(t, base, "user1", iPhone), as(t, base, "user1", "curl/8")
	other := as(t, base, admin, firefox)
	stolen := c.thief()
	stolen.isIn(true, "the thief")
	a.want(a.signOutOthers(), http.StatusSeeOther, "?")
	if body := a.get(devicesPath).body; !strings.Contains(body, "Other devices signed out: 2.") {
		t.Errorf("no message in\n%s", body)
	}
	for _, out := range []*browser{b, c, stolen} {
		out.isIn(false, "after everywhere else")
		out.want(out.signOutOthers(), http.StatusSeeOther, "/?next="+devicesPath)
		out.want(out.post("/logout/everywhere", nil), http.StatusSeeOther, "/")
	}
	a.handles(1)

	b = as(t, base, "user1", iPhone)
	stolen = a.thief()
	a.want(a.post("/logout/everywhere", nil), http.StatusSeeOther, "/")
	if a.cookie() != "" {
		t.Error("the cookie is there after everywhere")
	}
	for _, out := range []*browser{a, b, stolen} {
		out.isIn(false, "after everywhere")
	}
	other.isIn(true, "another user")
	if n := len(at.ids(t)); n != 1 {
		t.Errorf("left are %d sessions, want the other user's", n)
	}
}

// What matters asks for the password again after five minutes. Then the session has a new id and its old values.
func TestPasswordAgain(t *testing.T) { onEach(t, testPasswordAgain) }

func testPasswordAgain(t *testing.T, at place) {
	base := at.serve(t, false)
	a, b := as(t, base, "user1", firefox), as(t, base, "user1", iPhone)
	code := regexp.MustCompile(`id="code">([A-Z2-7]{26})<`)
	if body := a.want(a.get("/recovery"), http.StatusOK, "").body; !code.MatchString(body) {
		t.Errorf("no code right after the login:\n%s", body)
	}
	a.views()
	handle := a.handles(2)[0]
	later(t, at, a, freshFor-10*time.Second)
	a.want(a.get("/recovery"), http.StatusOK, "")
	later(t, at, a, 10*time.Second)
	a.want(a.get("/recovery"), http.StatusSeeOther, "/confirm?next=/recovery")
	for _, ask := range []answer{a.signOut(handle), a.signOutOthers()} {
		if a.want(ask, http.StatusForbidden, ""); !strings.Contains(ask.body, `href="/confirm?next=/account/devices/"`) {
			t.Errorf("no link to the password in\n%s", ask.body)
		}
	}
	a.want(a.post("/logout/everywhere", nil), http.StatusSeeOther, "/confirm?next=/account/devices/")
	b.isIn(true, "after buttons that ask for the password")
	confirm := func(password, next string) answer {
		return a.post("/confirm", url.Values{"password": {password}, "next": {next}, "username": {admin}})
	}
	for _, wrong := range []string{"", "x", users[admin]} {
		a.want(confirm(wrong, devicesPath), http.StatusSeeOther, "/confirm?next=/account/devices/")
		if body := a.want(a.get("/confirm?next="+devicesPath), http.StatusOK, "").body; !strings.Contains(body, "Wrong password.") || !strings.Contains(body, `value="/account/devices/"`) {
			t.Errorf("after a wrong password:\n%s", body)
		}
		a.want(a.get("/recovery"), http.StatusSeeOther, "/confirm?next=/recovery")
	}
	stolen, id := a.thief(), sessionID(t, a.cookie())
	a.want(confirm("mypassword", "/recovery"), http.StatusSeeOther, "/recovery")
	if body := a.want(a.get("/recovery"), http.StatusOK, "").body; !code.MatchString(body) {
		t.Errorf("no code:\n%s", body)
	}
	if got := a.views(); got != 2 {
		t.Errorf("the counter is at %d after the second login, want 2: the values stay", got)
	}
	stolen.isIn(false, "a copy of the cookie from before")
	if at.has(t, id) {
		t.Error("the session of the old id is there")
	}
	a.want(a.signOut(a.handles(2)[0]), http.StatusSeeOther, "?") // of two, not three
	b.isIn(false, "after a button right after the password")
	for _, evil := range []string{"https://other.example/", "//other.example", "/user", ""} {
		a.want(confirm("mypassword", evil), http.StatusSeeOther, "/recovery")
	}
	nobody := newBrowser(t, base)
	nobody.want(nobody.get("/recovery"), http.StatusSeeOther, "/?next=/recovery")
	nobody.want(nobody.get("/confirm"), http.StatusSeeOther, "/")
	nobody.want(nobody.post("/confirm", url.Values{"password": {"mypassword"}}), http.StatusSeeOther, "/")
}

// A second user in one browser gets nothing of the first one's session.
func TestAnotherUserBeginsAnew(t *testing.T) { onEach(t, testAnotherUserBeginsAnew) }

func testAnotherUserBeginsAnew(t *testing.T, at place) {
	base := at.serve(t, false)
	b := as(t, base, "user1", firefox)
	b.views()
	stolen := b.thief()
	b.want(b.post("/login", url.Values{"username": {admin}, "password": {users[admin]}}), http.StatusOK, "")
	if got := b.views(); got != 1 {
		t.Errorf("the second user's first visit is number %d", got)
	}
	stolen.isIn(false, "the first user's cookie")
	b.handles(1)
}

// soon is long enough for what happens within a second on a machine that is busy.
const soon = 20 * time.Second

// watch opens the live page. The first line has come when it returns; the rest comes from the channel at its end.
func (b *browser) watch(header ...string) (rest chan string) {
	b.t.Helper()
	return b.follow("/live", `\d\d:\d\d:\d\d`, header...)
}

// follow opens a page that goes on, up to a line that matches first.
func (b *browser) follow(path, first string, header ...string) (rest chan string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	b.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", b.base+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := resp.Header["Set-Cookie"]; resp.StatusCode != http.StatusOK || got != nil {
		b.t.Fatalf("GET %s = %d, Set-Cookie %q", path, resp.StatusCode, got)
	}
	r := bufio.NewReader(resp.Body)
	for line := ""; !regexp.MustCompile(first).MatchString(line); {
		if line, err = r.ReadString('\n'); err != nil {
			b.t.Fatal(err)
		}
	}
	rest = make(chan string, 1)
	go func() {
		defer resp.Body.Close()
		body, err := io.ReadAll(r)
		if err != nil {
			body = append(body, err.Error()...)
		}
		rest <- string(body)
	}()
	return rest
}

var stream = []string{"Accept", "text/event-stream"}

// A live page ends within a second of its session: see also TestLiveInAnotherProcess. Other pages go on.
func TestLive(t *testing.T) { onEach(t, testLive) }

func testLive(t *testing.T, at place) {
	t.Parallel() // it only waits
	base := at.serve(t, false)
	for name, end := range map[string]func(b, other *browser){
		"logout in another tab":     func(b, _ *browser) { b.thief().post("/logout", nil) },
		"end by another browser":    func(_, o *browser) { o.signOut(o.handles(2)[0]) },
		"everywhere else":           func(_, o *browser) { o.signOutOthers() },
		"the password, for a fresh": func(b, _ *browser) { b.thief().post("/confirm", url.Values{"password": {"mypassword"}}) },
	} {
		t.Run(name, func(t *testing.T) {
			b, other := as(t, base, "user1", firefox), as(t, base, "user1", iPhone)
			page, events, stays := b.watch(), b.watch(stream...), other.watch(stream...)
			began := time.Now()
			end(b, other)
			if got := <-page; !strings.HasSuffix(got, "</p>\n") || !strings.Contains(got, `role="status">Your session has ended`) {
				t.Errorf("the page ends with %q", got)
			}
			if got := <-events; !strings.HasSuffix(got, "event: end\ndata: the session has ended, or has a new id\n\n") {
				t.Errorf("the stream ends with %q", got)
			}
			t.Logf("after %v", time.Since(began))
			select {
			case got := <-stays:
				t.Errorf("the other browser's stream has ended: %q", got)
			default:
			}
			other.post("/logout/everywhere", nil) // also the session that began again
			<-stays
		})
	}
	nobody := newBrowser(t, base)
	nobody.want(nobody.get("/live", stream...), http.StatusSeeOther, "/?next=/live")
	// A HEAD ends at once, so that its connection can be used again.
	b := as(t, base, "user1", firefox)
	for _, path := range []string{"/live", "/user"} {
		b.want(b.do("HEAD", path, ""), http.StatusOK, "")
	}
}

// Watching does not keep a session alive: what is stored stays as it is, and so does the end. It outlasts the server's
// WriteTimeout.
func TestLiveDoesNotProlong(t *testing.T) { onEach(t, testLiveDoesNotProlong) }

func testLiveDoesNotProlong(t *testing.T, at place) {
	t.Parallel() // it only waits
	base := at.serveWithin(t, false, 1500*time.Millisecond)
	b := as(t, at.serve(t, false), "user1", firefox) // a login can take longer, and a cookie is for all ports
	id := sessionID(t, b.cookie())
	store, _ := at.open(t, nil)
	ends := func() time.Time {
		t.Helper()
		s, err := store.Get(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		return s.ExpiresAt(stores.TTL)
	}
	// Long enough ago that any other page would write it.
	at.update(t, id, func(s *filestore.Session) error {
		s.NoTouch, s.LastAccess = true, time.Now().Add(-12*time.Hour)
		return nil
	})
	text, end := at.stored(t, id), ends()
	if left := time.Until(end); left > 13*time.Hour {
		t.Fatalf("it lives for %v", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(resp.Body)
	for lines := 0; lines < 3; { // three seconds: a request that counts is an access after one
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "<li>") {
			lines++
		}
	}
	cancel()
	resp.Body.Close()
	const rounding = 2 * time.Second // servers keep the end in seconds
	if got := at.stored(t, id); got != text || ends().Sub(end).Abs() > rounding {
		t.Errorf("the session was\n%s until %v, and is after three seconds of watching\n%s until %v", text, end, got, ends())
	}
	b.get("/user")
	if ends().Sub(end) < 11*time.Hour {
		t.Error("a visit does not prolong it: nothing is tested")
	}
}

// The log says who has logged in and out, and what has ended by what. It has no id and no address.
func TestAuditLog(t *testing.T) {
	base := files(t).serve(t, false)
	var mu sync.Mutex
	var buf bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}), nil)))
	defer slog.SetDefault(was)
	newBrowser(t, base).login("wrong")
	a, b := as(t, base, "user1", firefox), as(t, base, "user1", iPhone)
	ids := []string{sessionID(t, a.cookie()), sessionID(t, b.cookie())}
	handle := a.handles(2)[0]
	a.signOut(handle)
	a.post("/logout", nil)
	mu.Lock()
	defer mu.Unlock()
	log := buf.String()
	var got []string
	for _, m := range regexp.MustCompile(`msg="session ([a-z ]+)" session=(\S+) user=(\S+) reason=(\S+) sessions=1\n`).FindAllStringSubmatch(log, -1) {
		got = append(got, strings.Join([]string{m[1], m[3], m[4]}, " "))
		if m[1] == "ended" && m[2] != handle {
			t.Errorf("the session that has ended is %s, want %s", m[2], handle)
		}
	}
	want := []string{`logged in user1 ""`, `logged in user1 ""`, "ended user1 Manager.End", `logged out user1 ""`}
	if !slices.Equal(got, want) {
		t.Errorf("events\n%q\nwant\n%q in\n%s", got, want, log)
	}
	for _, secret := range append(ids, "127.0.0.1", "mypassword", cookieName) {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %s:\n%s", secret, log)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Without a proxy that is trusted the network is the connection's, whatever the client claims.
func TestForwardedForOnlyBehindAProxy(t *testing.T) {
	for trust, want := range map[bool]string{false: "<bdi>127.0.0.0/24</bdi>", true: "<bdi>2001:db8:1::/48</bdi>"} {
		base := files(t).serve(t, trust)
		b := as(t, base, "user1", firefox, "X-Forwarded-For", "198.51.100.1, 2001:db8:1:2::3")
		if body := b.get(devicesPath).body; !strings.Contains(body, want) || strings.Contains(body, "198.51") {
			t.Errorf("trusted %v: no %q in\n%s", trust, want, body)
		}
	}
}

// Two programs on the same sessions: a browser at one sees and ends the session of a browser at the other, and the live
// page there ends too.
func TestLiveInAnotherProcess(t *testing.T) { onEach(t, testLiveInAnotherProcess) }

func testLiveInAnotherProcess(t *testing.T, at place) {
	t.Parallel() // it only waits
	p, q := at.start(t), at.start(t)
	for range 3 {
		a, b := as(t, p.url, "user1", firefox), as(t, q.url, "user1", iPhone)
		events := b.watch(stream...)
		handle := a.handles(2)[0]
		began := time.Now()
		a.signOut(handle)
		if got := <-events; !strings.HasSuffix(got, "a new id\n\n") {
			t.Errorf("the stream ends with %q", got)
		}
		t.Logf("after %v", time.Since(began))
		b.isIn(false, "after the end by another process")
		a.want(a.post("/logout", nil), http.StatusSeeOther, "/")
	}
	if at.url == "" {
		checkDir(t, at.dir)
	}
}

// The program ends although somebody watches.
func TestShutdownEndsLivePages(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "sessions"))
	events := as(t, p.url, "user1", firefox).watch(stream...)
	file := as(t, p.url, "user1", firefox).follow(changesPath, "data: look")
	page := as(t, p.url, admin, firefox).follow(operatorPath+"?stream=1", "data: 1", "Sec-Fetch-Dest", "empty")
	if err := p.Process.Signal(os.Interrupt); err != nil {
		skip.Test(t, err.Error())
	}
	if got := <-events; strings.Contains(got, "event: end") || strings.Contains(got, "EOF") {
		t.Errorf("the stream ends with %q", got)
	}
	if got := <-file; strings.Contains(got, "event: end") || strings.Contains(got, "EOF") {
		t.Errorf("the file's stream ends with %q", got)
	}
	if got := <-page; strings.Contains(got, "EOF") {
		t.Errorf("the operator's stream ends with %q", got)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}

// The admin sees everybody's sessions and ends them, and nobody else does. What is ended is out at its next click, and
// the page shows no id.
func TestOperator(t *testing.T) { onEach(t, testOperator) }

func testOperator(t *testing.T, at place) {
	base := at.serve(t, false)
	a, b, boss := as(t, base, "user1", firefox), as(t, base, "user1", iPhone), as(t, base, admin, firefox)
	newBrowser(t, base).want(newBrowser(t, base).get(operatorPath), http.StatusSeeOther, "/?next="+operatorPath)
	if body := a.want(a.get(operatorPath), http.StatusForbidden, "").body; strings.Contains(body, "data-session") || !strings.Contains(body, "only for admin2") {
		t.Errorf("the refusal is\n%s", body)
	}
	if body := boss.get(operatorPath).body; !strings.Contains(body, `<a href="/user" id="who">admin2</a>`) || !strings.Contains(body, `action="/logout"`) {
		t.Errorf("the page does not say who is logged in, or has no button to log out:\n%s", body)
	}
	for who, sees := range map[*browser]bool{a: false, boss: true} {
		if got := strings.Contains(who.get("/user").body, `href="/admin/sessions/"`); got != sees {
			t.Errorf("a link to the page: %v, want %v", got, sees)
		}
	}
	var body string // of the page that see has seen last
	see := func(query string, n int) (others []string) {
		t.Helper()
		body = boss.want(boss.get(operatorPath+query), http.StatusOK, "").body
		all := handleRE.FindAllStringSubmatch(body, -1)
		for _, m := range all {
			if m[2] == "" {
				others = append(others, m[1])
			}
		}
		if len(all) != n || !strings.Contains(body, "Safari on iPhone") && n == 3 {
			t.Fatalf("%d sessions, want %d:\n%s", len(all), n, body)
		}
		for _, who := range []*browser{a, b, boss} {
			if who.cookie() != "" && strings.Contains(body, sessionID(t, who.cookie())) {
				t.Errorf("the page shows an id:\n%s", body)
			}
		}
		return others
	}
	if got := see("", 3); len(got) != 2 {
		t.Fatalf("%d sessions are not the admin's own", len(got))
	}
	see("?member=user&value=user1", 2)
	var handle string // of a's, by its device: both logins may be of one millisecond
	for _, row := range strings.Split(body, "<tr ") {
		if m := handleRE.FindStringSubmatch(row); m != nil && strings.Contains(row, "Firefox on Linux") {
			handle = m[1]
		}
	}
	for _, wrong := range []answer{a.press(operatorPath, "end", handle), boss.post(operatorPath, url.Values{"do": {"end"}, "handle": {handle}})} {
		boss.want(wrong, http.StatusForbidden, "")
	}
	a.isIn(true, "after somebody else, and a request from nowhere")
	stolen := a.thief()
	if got := boss.press(operatorPath, "end", handle); got.StatusCode != http.StatusSeeOther {
		t.Fatalf("the end = %d\n%s", got.StatusCode, got.body)
	}
	a.isIn(false, "after the end")
	stolen.isIn(false, "a copy of the cookie after the end")
	b.isIn(true, "the other browser")
	boss.isIn(true, "the admin")
	if got := see("?member=user&value=user1", 1); got[0] == handle {
		t.Error("what was ended is there")
	}
}

// A page that looks again by itself does not keep the admin logged in; a click does.
func TestOperatorDoesNotProlong(t *testing.T) {
	for dest, want := range map[string]bool{"empty": false, "document": true, "": true} {
		r, err := http.NewRequest("GET", operatorPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Dest", dest)
		if got := prolongs(r); got != want {
			t.Errorf("Sec-Fetch-Dest %q prolongs: %v, want %v", dest, got, want)
		}
	}
}

// Nor does the home page, when live.js looks or waits; a click does, whatever its header.
func TestLiveFileDoesNotProlong(t *testing.T) {
	for _, test := range []struct {
		method, path, by string
		want             bool
	}{
		{"GET", "/", "", true}, {"GET", "/", "live.js", false}, {"GET", changesPath, "", false}, {"POST", "/count", "live.js", true}, {"GET", "/session", "", true},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Header.Set("X-Requested-With", test.by)
		if got := prolongs(r); got != test.want {
			t.Errorf("%+v: prolongs is %v", test, got)
		}
	}
}

// A look of live.js does not take the message that is for a person.
func TestLiveFileLeavesMessages(t *testing.T) {
	base := files(t).serve(t, false)
	b := as(t, base, "user1", firefox)
	b.want(b.post("/confirm", url.Values{"password": {"x"}}), http.StatusSeeOther, "/confirm?next=/recovery")
	if body := b.get("/", "X-Requested-With", "live.js").body; strings.Contains(body, `role="alert"`) {
		t.Error("the script gets the message")
	}
	if body := b.get("/confirm").body; !strings.Contains(body, `role="alert">Wrong password.`) {
		t.Errorf("the visitor does not get it:\n%s", body)
	}
}

// The frame of the list is the site's, and its policy is sessionui's: nothing in the page is inline.
func TestPolicies(t *testing.T) {
	base := files(t).serve(t, false)
	boss := as(t, base, admin, firefox)
	for path, script := range map[string]bool{"/": true, "/user": false, "/session": false, devicesPath: true, operatorPath: true} {
		a := boss.want(boss.get(path), http.StatusOK, "")
		policy := a.Header["Content-Security-Policy"]
		if len(policy) != 1 || strings.Contains(policy[0], "unsafe") || strings.Contains(policy[0], "script-src") != script {
			t.Errorf("%s: the policy is %q", path, policy)
		}
		if strings.Contains(a.body, "data:") || strings.Contains(a.body, "<style") || strings.Contains(a.body, " style=") || strings.Contains(a.body, "<script>") || strings.Contains(a.body, "onclick") {
			t.Errorf("%s has a style or a script inline:\n%s", path, a.body)
		}
	}
	for path, kind := range map[string]string{"/style.css": "text/css", "/live.js": "text/javascript", "/icon.svg": "image/svg+xml", "/favicon.ico": "image/svg+xml"} {
		if a := boss.want(boss.get(path), http.StatusOK, ""); !strings.HasPrefix(a.Header.Get("Content-Type"), kind) {
			t.Errorf("%s is %q", path, a.Header.Get("Content-Type"))
		}
	}
}

// A session ends a week after its login although it is used, also for a program with another -lifetime. The cookie does
// not promise more.
func TestLifetimeFlag(t *testing.T) { onEach(t, testLifetimeFlag) }

func testLifetimeFlag(t *testing.T, at place) {
	p := at.start(t)
	b := as(t, p.url, "user1", firefox)
	ids := at.ids(t)
	if len(ids) != 1 {
		t.Fatalf("%d sessions", len(ids))
	}
	created := func(ago time.Duration) {
		t.Helper()
		at.update(t, ids[0], func(s *filestore.Session) error {
			s.Created = time.Now().Add(-ago)
			return nil
		})
	}
	const week = 7 * 24 * time.Hour
	created(week - time.Minute)
	a := b.want(b.get("/user"), http.StatusOK, "")
	if c := a.Cookies(); len(c) != 1 || c[0].MaxAge > 60 || c[0].MaxAge < 1 {
		t.Errorf("a minute before the end the cookies are %v", c)
	}
	created(week + time.Second)
	b.isIn(false, "after a week")
	forever := at.start(t, "-lifetime", "0")
	b.base = forever.url
	b.isIn(true, "in a program without a lifetime")
	if err := run([]string{"-dir", at.dir, "-store", at.url, "-lifetime", "-1s"}, io.Discard); err == nil {
		t.Error("a negative lifetime is taken")
	}
}
