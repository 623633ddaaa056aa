package sessionui_test

import (
	"context"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
	"github.com/sessionfilestore/filestore/sessionui"
)

// A desk is a site with the page of devices.
type desk struct {
	t    testing.TB
	m    *session.Manager
	site http.Handler

	mu     sync.Mutex
	events []string
}

func newDesk(t testing.TB, o *sessionui.DevicesOptions) *desk {
	d := &desk{t: t}
	d.m = &session.Manager{
		Store: sessiontest.NewStore(), Secrets: []string{"a secret of the tests"}, Cookie: session.CookieOptions{MaxAge: time.Hour},
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: r.Header.Get("X-Addr")}
		},
	}
	d.m.OnEvent = func(_ context.Context, e session.Event) {
		if e.Kind == session.Ended {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, e.User+" "+e.Reason)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", sessionui.Devices(d.m, o))
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login(r.Header.Get("X-User")); err != nil {
			t.Error(err)
		}
	})
	d.site = d.m.Handler(mux)
	return d
}

// A device is a browser in which a user has logged in.
type device struct {
	d      *desk
	cookie string
}

func (d *desk) login(user, agent, addr string) device {
	r := httptest.NewRequest("GET", "/login", nil)
	r.Header.Set("User-Agent", agent)
	r.Header.Set("X-Addr", addr)
	r.Header.Set("X-User", user)
	cookie, _, _ := strings.Cut(do(d.site, r).Header().Get("Set-Cookie"), ";")
	return device{d, cookie}
}

func (v device) get() answer {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", v.cookie)
	return do(v.d.site, r)
}

func (v device) post(values url.Values) answer {
	r := form("/", values)
	r.Header.Set("Cookie", v.cookie)
	return do(v.d.site, r)
}

const (
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
	safari  = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)

// Users see their own devices and end those, and no others.
func TestDevices(t *testing.T) {
	d := newDesk(t, nil)
	if a := do(d.site, httptest.NewRequest("GET", "/", nil)); a.Code != 403 || len(a.handles()) > 0 {
		t.Errorf("nobody's devices = %d", a.Code)
	}
	a, a2, a3, b := d.login("anna", firefox, "192.0.2.0/24"), d.login("anna", safari, "198.51.100.0/24"), d.login("anna", "", ""), d.login("bert", firefox, "")
	page := a.get()
	if page.Code != 200 || len(page.handles()) != 3 || strings.Count(page.body, " data-current") != 1 {
		t.Fatalf("anna's devices = %d: %s", page.Code, page.body)
	}
	here := page.row("data-current")
	for _, want := range []string{"Firefox on Linux", "192.0.2.0/24", "This device", "now"} {
		if !strings.Contains(here, want) {
			t.Errorf("the card of this device lacks %q: %s", want, here)
		}
	}
	if strings.Contains(here, "<form") || page.row("Safari on iPhone") == "" || !strings.Contains(page.row("Unknown device"), `data-action="sign-out"`) {
		t.Errorf("the cards are %s", page.body)
	}
	foreign := b.get().handles()[0]
	for _, handle := range []string{foreign, "", "x"} {
		if got := a.post(url.Values{"do": {"sign-out"}, "handle": {handle}, "user": {"bert"}}); got.Code != 404 || b.get().Code != 200 {
			t.Errorf("anna ends %q = %d", handle, got.Code)
		}
	}
	got := a.post(url.Values{"do": {"sign-out"}, "handle": {page.handleOf("Safari on iPhone")}})
	if got.Code != 303 || got.Header().Get("Location") != "?" || a2.get().Code != 403 || a3.get().Code != 200 {
		t.Errorf("anna ends her iPhone = %d", got.Code)
	}
	if next := a.get(); !strings.Contains(next.body, "The device is signed out.") || len(next.handles()) != 2 {
		t.Errorf("the next page is %s", next.body)
	}
	if next := a.get(); strings.Contains(next.body, "signed out.") {
		t.Error("it says so again")
	}
	d.login("anna", safari, "")
	if got := a.post(url.Values{"do": {"sign-out-others"}}); got.Code != 303 || a3.get().Code != 403 || a.get().Code != 200 {
		t.Errorf("anna ends the others = %d", got.Code)
	}
	if n := len(a.get().handles()); n != 1 || strings.Contains(a.get().body, "sign-out-others") {
		t.Errorf("anna has %d devices", n)
	}
	if b.get().Code != 200 {
		t.Error("bert was signed out")
	}
	if want := "anna Manager.End, anna Session.EndOthers, anna Session.EndOthers"; strings.Join(d.events, ", ") != want {
		t.Errorf("events %q, want %q", d.events, want)
	}
	if got := a.post(url.Values{"do": {"x"}}); got.Code != 400 {
		t.Errorf("an unknown action = %d", got.Code)
	}
	r := form("/", url.Values{"do": {"sign-out-others"}})
	r.Header.Set("Cookie", a.cookie)
	r.Header.Del("Sec-Fetch-Site")
	if got := do(d.site, r); got.Code != 403 {
		t.Errorf("a POST of unknown origin = %d", got.Code)
	}
	// Their own, by hand: as a logout.
	if got := a.post(url.Values{"do": {"sign-out"}, "handle": {a.get().handles()[0]}}); got.Code != 303 || a.get().Code != 403 {
		t.Errorf("anna ends her own = %d", got.Code)
	}
}

// A body comes with a delay.
type slowBody struct {
	io.Reader
	wait func()
}

func (b slowBody) Read(p []byte) (int, error) {
	b.wait()
	return b.Reader.Read(p)
}

// Whoever has stolen a session and was signed out does not sign out its owner by a request that has begun before.
func TestDevicesEndedMeanwhile(t *testing.T) {
	d := newDesk(t, nil)
	owner, thief := d.login("anna", firefox, ""), d.login("anna", safari, "")
	page := owner.get()
	values := url.Values{"do": {"sign-out"}, "handle": {page.handleOf("Firefox")}}
	r := form("/", values)
	r.Header.Set("Cookie", thief.cookie)
	var once sync.Once
	r.Body = io.NopCloser(slowBody{strings.NewReader(values.Encode()), func() {
		once.Do(func() {
			if a := owner.post(url.Values{"do": {"sign-out"}, "handle": {page.handleOf("Safari")}}); a.Code != 303 {
				t.Errorf("the owner signs out the thief = %d", a.Code)
			}
		})
	}})
	if a := do(d.site, r); a.Code != 403 || owner.get().Code != 200 {
		t.Errorf("the thief signs out the owner = %d", a.Code)
	}
}

func TestDevicesConfirm(t *testing.T) {
	d := newDesk(t, &sessionui.DevicesOptions{Confirm: func(r *http.Request) bool { return r.PostFormValue("password") == "right" }})
	a, b := d.login("anna", firefox, ""), d.login("anna", safari, "")
	handle := a.get().handleOf("Safari")
	first := url.Values{"do": {"sign-out"}, "handle": {handle}}
	question := a.post(first)
	if question.Code != 403 || !strings.Contains(question.body, `data-action="confirm"`) || !strings.Contains(question.body, `value="`+handle+`"`) || b.get().Code != 200 {
		t.Fatalf("without a password = %d %s", question.Code, question.body)
	}
	first.Set("password", "wrong")
	if wrong := a.post(first); wrong.Code != 403 || !strings.Contains(wrong.body, "not right") || strings.Contains(wrong.body, "wrong\"") || b.get().Code != 200 {
		t.Errorf("with a wrong password = %d %s", wrong.Code, wrong.body)
	}
	first.Set("password", "right")
	if right := a.post(first); right.Code != 303 || b.get().Code != 403 {
		t.Errorf("with the right password = %d", right.Code)
	}
	others := a.post(url.Values{"do": {"sign-out-others"}})
	if others.Code != 403 || !strings.Contains(others.body, `value="sign-out-others"`) {
		t.Errorf("all others without a password = %d", others.Code)
	}
	d = newDesk(t, &sessionui.DevicesOptions{Confirm: func(r *http.Request) bool { return session.From(r).Fresh(time.Hour) && false }, Login: "/login?next=devices"})
	a = d.login("anna", firefox, "")
	if got := a.post(url.Values{"do": {"sign-out-others"}}); got.Code != 403 || !strings.Contains(got.body, `href="/login?next=devices"`) || strings.Contains(got.body, "password") {
		t.Errorf("with Login = %d %s", got.Code, got.body)
	}
}

// Every text of the page can be put into another language, and Layout is around it.
func TestDevicesWords(t *testing.T) {
	words := make(map[string]string)
	for i, w := range sessionui.DevicesWords() {
		words[w] = fmt.Sprintf("wort%d", i)
		for _, verb := range []string{"%d", "%s"} {
			words[w] += strings.Repeat(" "+verb, strings.Count(w, verb))
		}
	}
	layout := template.Must(template.New("site").Parse(`<!doctype html><title>{{.Title}}</title><body><i>{{.Request.URL.Path}}</i>{{.Content}}`))
	for _, o := range []sessionui.DevicesOptions{{Words: words}, {Words: words, Layout: layout}, {Words: words, Confirm: func(*http.Request) bool { return false }}, {Words: words, Confirm: func(*http.Request) bool { return false }, Login: "/x"}} {
		d := newDesk(t, &o)
		a := d.login("anna", firefox, "")
		for i := range 130 {
			d.login("anna", []string{"", firefox, "other"}[i%3], fmt.Sprint(i))
		}
		for _, agent := range []string{"x", "Go-http-client/2.0", "python-requests/2", "Go-http-client/2.0 Linux"} {
			d.login("anna", agent, "")
		}
		var pages []answer
		pages = append(pages, a.get(), do(d.site, httptest.NewRequest("GET", "/", nil)))
		handle := pages[0].handles()[1]
		pages = append(pages, a.post(url.Values{"do": {"sign-out"}, "handle": {"x"}}), a.post(url.Values{"do": {"sign-out"}, "handle": {handle}}), a.get(),
			a.post(url.Values{"do": {"sign-out-others"}, "password": {"x"}}), a.get())
		for _, p := range pages {
			text := regexp.MustCompile(`<[^>]*>|2\d\d\d-\d\d-\d\d \d\d:\d\d UTC|wort\d+|Firefox|Linux|–`).ReplaceAllString(p.body, "")
			if m := regexp.MustCompile(`[a-zA-Z]{2,}.*`).FindString(text); m != "" {
				t.Errorf("not a replaced word: %q in\n%s", m, p.body)
			}
			if o.Layout != nil && p.body != "" && !strings.Contains(p.body, "<i>/</i>") {
				t.Errorf("without the Layout: %s", p.body)
			}
		}
	}
	for _, bad := range []map[string]string{{"No such word": "x"}, {"%d days ago": "vor Tagen"}, {"Sign out": "%d"}, {"Sign out": "100 %"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Devices takes the words %q", bad)
				}
			}()
			sessionui.Devices(new(session.Manager), &sessionui.DevicesOptions{Words: bad})
		}()
	}
}

func TestDevicesHostile(t *testing.T) {
	d := newDesk(t, nil)
	a := d.login("anna", firefox, "")
	for _, s := range hostile {
		d.login("anna", s, s)
		d.login(s, firefox, s)
	}
	page := a.get()
	checkPage(t, "the page", page.body)
	if n := len(page.handles()); n != len(hostile)+1 {
		t.Errorf("%d cards", n)
	}
	for _, s := range hostile {
		checkPage(t, "the question", a.post(url.Values{"do": {"sign-out"}, "handle": {s}}).body)
	}
}

// A Store that cannot list a user's sessions.
func TestDevicesUnsupported(t *testing.T) {
	m := &session.Manager{Store: struct{ session.Store }{sessiontest.NewStore()}, Secrets: []string{"a secret of the tests"}}
	site := m.Handler(sessionui.Devices(m, nil))
	r := sessiontest.Login(httptest.NewRequest("GET", "/", nil), m, "anna", nil)
	if a := do(site, r); a.Code != 501 {
		t.Errorf("= %d", a.Code)
	}
	if a := do(sessionui.Devices(m, nil), httptest.NewRequest("GET", "/", nil)); a.Code != 403 { // not behind the Manager
		t.Errorf("without a session = %d", a.Code)
	}
}
