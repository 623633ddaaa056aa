package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/session"
)

const testSecret = "a secret of the tests"

// checkDir checks that dir has whole sessions, the locks, and nothing else.
func checkDir(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == ".locks" {
			continue
		}
		if !strings.HasSuffix(e.Name(), ".json") {
			t.Errorf("%s is left in the directory", e.Name())
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Error(err)
		} else if err := new(filestore.Session).UnmarshalJSON(data); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
}

// A browser keeps cookies and follows no redirects.
type browser struct {
	t      *testing.T
	base   string
	client http.Client
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &browser{t, base, http.Client{Jar: jar, Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

type answer struct {
	*http.Response
	body string
}

// do sends a request with the header's fields given as pairs.
func (b *browser) do(method, path, body string, header ...string) answer {
	b.t.Helper()
	req, err := http.NewRequest(method, b.base+path, strings.NewReader(body))
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
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp, string(data)}
}

func (b *browser) get(path string, header ...string) answer {
	b.t.Helper()
	return b.do("GET", path, "", header...)
}

func (b *browser) post(path string, form url.Values, header ...string) answer {
	b.t.Helper()
	return b.do("POST", path, form.Encode(), append(header, "Content-Type", "application/x-www-form-urlencoded")...)
}

func (b *browser) login(password string) answer {
	b.t.Helper()
	return b.post("/user", url.Values{"username": {"user1"}, "password": {password}})
}

// want checks the status, and the Location of a redirect.
func (b *browser) want(a answer, status int, location string) answer {
	b.t.Helper()
	if a.StatusCode != status || a.Header.Get("Location") != location {
		b.t.Fatalf("%s %s = %d to %q, want %d to %q\n%s", a.Request.Method, a.Request.URL.Path,
			a.StatusCode, a.Header.Get("Location"), status, location, a.body)
	}
	return a
}

// cookie returns the value of the session cookie as it is sent, or "".
func (b *browser) cookie() string {
	b.t.Helper()
	u, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == cookieName {
			return c.Value
		}
	}
	return ""
}

// sessionID returns the id in a session cookie.
func sessionID(t *testing.T, cookie string) string {
	t.Helper()
	value, err := url.PathUnescape(cookie)
	if err != nil {
		t.Fatal(err)
	}
	id, ok := session.Unsign(strings.TrimPrefix(value, "s:"), testSecret)
	if !ok {
		t.Fatalf("the cookie %q is not signed", cookie)
	}
	return id
}

var viewsRE = regexp.MustCompile(`id="views">(\d+)<`)

func (b *browser) views() int {
	b.t.Helper()
	a := b.want(b.get("/admin"), http.StatusOK, "")
	m := viewsRE.FindStringSubmatch(a.body)
	if m == nil {
		b.t.Fatalf("no count in\n%s", a.body)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestLogin(t *testing.T) { onEach(t, testLogin) }

func testLogin(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	if a := b.want(b.get("/"), http.StatusOK, ""); !strings.Contains(a.body, `name="password"`) || b.cookie() != "" {
		t.Errorf("GET / = cookie %q and\n%s\nwant a form and no cookie", b.cookie(), a.body)
	}
	b.want(b.get("/user"), http.StatusSeeOther, "/?next=/user")
	b.want(b.login("mypassword"), http.StatusSeeOther, "/")
	a := b.want(b.get("/user"), http.StatusOK, "")
	for _, want := range []string{"Welcome, user1", `action="/logout"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("GET /user has no %q:\n%s", want, a.body)
		}
	}
	// A visit prolongs the cookie.
	if c := a.Cookies(); len(c) != 1 || c[0].Value != b.cookie() || time.Until(c[0].Expires) < maxAge-time.Minute {
		t.Errorf("GET /user sets the cookies %v", c)
	}
	if a := b.want(b.get("/"), http.StatusOK, ""); strings.Contains(a.body, `name="password"`) || !strings.Contains(a.body, `id="who">user1</a>`) {
		t.Errorf("after the login the home page is\n%s", a.body)
	}
}

// A login leads to the page that somebody wanted, and to no other site.
func TestLoginGoesBack(t *testing.T) {
	base := files(t).serve(t, false)
	for _, path := range []string{"/private", "/dashboard", devicesPath} {
		b := newBrowser(t, base)
		to := b.want(b.get(path), http.StatusSeeOther, "/?next="+path).Header.Get("Location")
		if field := `name="next" value="` + path + `"`; !strings.Contains(b.get(to).body, field) {
			t.Errorf("the form has no %s", field)
		}
		form := url.Values{"username": {"user1"}, "password": {"x"}, "next": {path}}
		if a := b.want(b.post("/user", form), http.StatusUnprocessableEntity, ""); !strings.Contains(a.body, `name="next" value="`+path+`"`) {
			t.Errorf("after a wrong password the form does not know %s", path)
		}
		form.Set("password", "mypassword")
		b.want(b.post("/user", form), http.StatusSeeOther, path)
		if a := b.want(b.get(path), http.StatusOK, ""); !strings.Contains(a.body, "user1") {
			t.Errorf("%s does not say who is logged in:\n%s", path, a.body)
		}
	}
	for _, evil := range []string{"https://other.example/", "//other.example/private", "/private/../..//x", "/logout", "/none", "private"} {
		b := newBrowser(t, base)
		b.want(b.post("/user", url.Values{"username": {"user1"}, "password": {"mypassword"}, "next": {evil}}), http.StatusSeeOther, "/")
		if body := newBrowser(t, base).get("/?next=" + url.QueryEscape(evil)).body; strings.Contains(body, "other.example") || strings.Contains(body, `name="next"`) {
			t.Errorf("the form takes %q", evil)
		}
	}
}

func TestWrongPassword(t *testing.T) { onEach(t, testWrongPassword) }

func testWrongPassword(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	for _, form := range []url.Values{
		{"username": {"user1"}, "password": {"x"}},
		{"username": {"nobody"}, "password": {""}},
		{},
	} {
		a := b.want(b.post("/user", form), http.StatusUnprocessableEntity, "")
		if strings.Count(a.body, "Wrong username or password.") != 1 || !strings.Contains(a.body, `name="password"`) {
			t.Errorf("after %v the page is\n%s", form, a.body)
		}
		if strings.Contains(b.get("/").body, "Wrong") {
			t.Errorf("after %v the message is shown again", form)
		}
	}
	b.want(b.get("/user"), http.StatusSeeOther, "/?next=/user")
}

// Visitors who have left nothing leave no session: whatever they ask for, and however many passwords they try.
func TestNothingToKeep(t *testing.T) { onEach(t, testNothingToKeep) }

func testNothingToKeep(t *testing.T, at place) {
	base := at.serve(t, false)
	form := url.Values{"username": {"user1"}, "password": {"x"}, "name": {"a"}}
	for range 5 {
		b := newBrowser(t, base)
		for _, path := range []string{"/", "/?next=/private", "/user", "/logout", "/admin", "/private", "/dashboard", "/api/dashboard", "/api/whoami", "/cookies",
			"/session", changesPath, "/devices", devicesPath, operatorPath, "/recovery", "/confirm", "/live", "/none", "/api/none", "/favicon.ico", "/style.css"} {
			if a := b.get(path); a.StatusCode >= 500 {
				t.Errorf("GET %s = %d", path, a.StatusCode)
			}
		}
		for _, path := range []string{"/user", "/login", "/logout", "/confirm", "/logout/everywhere", "/cookies", "/cookies/clear", devicesPath, operatorPath, "/none"} {
			if a := b.post(path, form, "Sec-Fetch-Site", "same-origin"); a.StatusCode >= 500 {
				t.Errorf("POST %s = %d", path, a.StatusCode)
			}
		}
		b.get("/api/whoami", "Authorization", "Basic eDp5")
		b.do("POST", "/login", "{", "Content-Type", "application/json")
		b.do("POST", "/user", "a="+strings.Repeat("x", maxBody), "Content-Type", "application/x-www-form-urlencoded")
		if b.cookie() != "" {
			t.Fatalf("there is a cookie %q", b.cookie())
		}
	}
	if ids := at.ids(t); len(ids) != 0 {
		t.Errorf("%d sessions are stored", len(ids))
	}
	newBrowser(t, base).post("/count", nil)
	if ids := at.ids(t); len(ids) != 1 {
		t.Errorf("after a click %d sessions are stored: nothing is tested", len(ids))
	}
}

func TestLoginChangesTheID(t *testing.T) { onEach(t, testLoginChangesTheID) }

func testLoginChangesTheID(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	b.post("/count", nil) // begins a session
	old := b.cookie()
	if old == "" || !at.has(t, sessionID(t, old)) {
		t.Fatalf("no session before the login: cookie %q", old)
	}
	b.want(b.login("mypassword"), http.StatusSeeOther, "/")
	if !strings.Contains(b.get("/").body, `id="count">1</p>`) {
		t.Error("the login has not kept the visitor's number")
	}
	if sessionID(t, b.cookie()) == sessionID(t, old) {
		t.Error("the id is the same after the login")
	}
	if at.has(t, sessionID(t, old)) {
		t.Error("the session of the old id is still there")
	}
	thief := newBrowser(t, base)
	for _, path := range []string{"/user", "/admin", "/dashboard", "/api/dashboard", "/private"} {
		if a := thief.get(path, "Cookie", cookieName+"="+old); a.StatusCode == http.StatusOK {
			t.Errorf("GET %s with the old cookie = 200", path)
		}
	}
}

func TestCountersAreApart(t *testing.T) { onEach(t, testCountersAreApart) }

func testCountersAreApart(t *testing.T, at place) {
	base := at.serve(t, false)
	a, b := newBrowser(t, base), newBrowser(t, base)
	if r := a.want(a.get("/admin"), http.StatusForbidden, ""); !strings.Contains(r.body, `href="/"`) {
		t.Errorf("the refusal does not link to the login:\n%s", r.body)
	}
	a.login("mypassword")
	b.login("mypassword")
	for i := 1; i <= 20; i++ {
		if got := a.views(); got != i {
			t.Fatalf("first browser, visit %d: got %d", i, got)
		}
		if i%2 == 0 { // out of step, so that a shared counter would not look right
			continue
		}
		if got := b.views(); got != (i+1)/2 {
			t.Fatalf("second browser, visit %d: got %d", (i+1)/2, got)
		}
	}
	for i := 11; i <= 20; i++ {
		if got := b.views(); got != i {
			t.Fatalf("second browser, visit %d: got %d", i, got)
		}
	}
	// The page says that Home's button counts with it.
	a.post("/count", nil)
	if got, page := a.views(), a.get("/admin").body; got != 22 || !strings.Contains(page, "counts on with Home’s number") {
		t.Errorf("after a click at Home: %d\n%s", got, page)
	}
}

// However many tabs load at once, no visit is lost and no count is shown twice.
func TestParallelVisitsAllCount(t *testing.T) { onEach(t, testParallelVisitsAllCount) }

func testParallelVisitsAllCount(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	const tabs, visits = 8, 10
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range tabs {
		wg.Go(func() {
			for range visits {
				req, err := http.NewRequest("GET", base+"/admin", nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := b.client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				m := viewsRE.FindSubmatch(body)
				if err != nil || m == nil {
					t.Errorf("GET /admin = %d, %v\n%s", resp.StatusCode, err, body)
					return
				}
				mu.Lock()
				if seen[string(m[1])] {
					t.Errorf("the count %s was given twice", m[1])
				}
				seen[string(m[1])] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := b.views(); got != tabs*visits+1 {
		t.Errorf("after %d visits the next is number %d", tabs*visits, got)
	}
}

// If several logins are sent at once, one succeeds, and no other shows an error page.
func TestParallelLogins(t *testing.T) { onEach(t, testParallelLogins) }

func testParallelLogins(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	b.post("/count", nil) // begins a session
	old := b.cookie()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			req, err := http.NewRequest("POST", base+"/login", strings.NewReader("username=user1&password=mypassword"))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Cookie", cookieName+"="+old)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode >= 500 {
				t.Errorf("a login answers %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	if at.has(t, sessionID(t, old)) {
		t.Error("the session from before the login is there")
	}
}

func TestLogout(t *testing.T) { onEach(t, testLogout) }

func testLogout(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	b.views()
	old := b.cookie()
	if a := b.want(b.get("/logout"), http.StatusOK, ""); !strings.Contains(a.body, `<form method="post" action="/logout"><button>`) {
		t.Errorf("GET /logout has no button:\n%s", a.body)
	}
	b.isIn(true, "after GET /logout")
	a := b.want(b.do("POST", "/logout", "", "Accept", "text/html,*/*;q=0.8"), http.StatusSeeOther, "/")
	const clear = "connect.sid=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax"
	if got := a.Header["Set-Cookie"]; len(got) != 1 || got[0] != clear {
		t.Errorf("Set-Cookie = %q, want %q", got, clear)
	}
	if b.cookie() != "" {
		t.Errorf("the browser keeps the cookie %q", b.cookie())
	}
	thief := newBrowser(t, base)
	replay := []string{"Cookie", cookieName + "=" + old}
	thief.want(thief.get("/user", replay...), http.StatusSeeOther, "/?next=/user")
	thief.want(thief.get("/admin", replay...), http.StatusForbidden, "")
	thief.want(thief.get("/api/dashboard", replay...), http.StatusUnauthorized, "")
	if body := thief.get("/", replay...).body; !strings.Contains(body, "You are out.") {
		t.Errorf("the home page does not say so:\n%s", body)
	}
	if at.has(t, sessionID(t, old)) {
		t.Error("the session is stored after the logout")
	}
	b.want(b.do("POST", "/logout", ""), http.StatusSeeOther, "/") // again, with nothing to end
}

func TestJSON(t *testing.T) {
	base := files(t).serve(t, false)
	const jsonType, formType = "application/json; charset=utf-8", "application/x-www-form-urlencoded"
	for _, test := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"json", jsonType, `{"username":"user1","password":"mypassword"}`, http.StatusOK},
		{"form", formType, `username=user1&password=mypassword`, http.StatusOK},
		{"wrong json", jsonType, `{"username":"user1","password":"password"}`, http.StatusUnauthorized},
		{"wrong form", formType, `username=user1&password=`, http.StatusUnauthorized},
		{"no body", "", "", http.StatusUnauthorized},
		{"half an object", jsonType, `{"username":"user1","passw`, http.StatusBadRequest},
		{"two objects", jsonType, `{"username":"user1","password":"mypassword"}{}`, http.StatusBadRequest},
		{"other types", jsonType, `{"username":["user1"],"password":1}`, http.StatusBadRequest},
		{"bad form", formType, `username=%zz`, http.StatusBadRequest},
		{"large json", jsonType, `{"username":"` + strings.Repeat("x", maxBody) + `"}`, http.StatusRequestEntityTooLarge},
		{"large form", formType, `username=` + strings.Repeat("x", maxBody), http.StatusRequestEntityTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBrowser(t, base)
			b.wantJSON(b.get("/api/dashboard"), http.StatusUnauthorized, `{"error":"log in first"}`)
			a := b.want(b.do("POST", "/login", test.body, "Content-Type", test.contentType), test.status, "")
			if test.status != http.StatusOK {
				if b.cookie() != "" {
					t.Errorf("a refused login sets the cookie %q", b.cookie())
				}
				b.want(b.get("/api/dashboard"), http.StatusUnauthorized, "")
				return
			}
			b.wantJSON(a, http.StatusOK, `{"user":"user1"}`)
			b.wantJSON(b.get("/api/dashboard"), http.StatusOK, `{"user":"user1","views":0}`)
			b.wantJSON(b.do("POST", "/logout", "", "Accept", "application/json"), http.StatusOK, `{"ok":true}`)
			b.wantJSON(b.get("/api/dashboard"), http.StatusUnauthorized, `{"error":"log in first"}`)
			b.wantJSON(b.do("POST", "/logout", "{}", "Content-Type", jsonType), http.StatusOK, `{"ok":true}`)
		})
	}
}

func (b *browser) wantJSON(a answer, status int, body string) {
	b.t.Helper()
	b.want(a, status, "")
	if got := a.Header.Get("Content-Type"); got != "application/json" || a.body != body+"\n" {
		b.t.Errorf("%s = %s %s, want JSON %s", a.Request.URL.Path, got, a.body, body)
	}
}

func TestBasicAuth(t *testing.T) { onEach(t, testBasicAuth) }

// Basic auth is for programs: it makes no session, and does not turn a user into another one.
func testBasicAuth(t *testing.T, at place) {
	base := at.serve(t, false)
	user, nobody := newBrowser(t, base), newBrowser(t, base)
	auth := func(name, password string) []string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(name, password)
		return []string{"Authorization", r.Header.Get("Authorization")}
	}
	user.login("mypassword")
	user.views()
	before := user.cookie()
	for _, b := range []*browser{user, nobody} {
		for _, header := range [][]string{nil, auth(admin, "wrong"), auth(admin, ""), auth("", ""), {"Authorization", "Bearer x"}} {
			a := b.get("/api/whoami", header...)
			b.wantJSON(a, http.StatusUnauthorized, `{"error":"wrong username or password"}`)
			if got := a.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Basic realm="api"`) {
				t.Errorf("WWW-Authenticate = %q", got)
			}
		}
		a := b.get("/api/whoami", auth(admin, "password")...)
		b.wantJSON(a, http.StatusOK, `{"user":"admin2"}`)
	}
	if user.cookie() != before || user.views() != 2 || nobody.cookie() != "" || len(at.ids(t)) != 1 {
		t.Errorf("the cookies are %v and %q, of %d sessions", user.cookie() == before, nobody.cookie(), len(at.ids(t)))
	}
	if body := user.get("/private").body; !strings.Contains(body, "you are user1") || !strings.Contains(body, "curl -u admin2:password "+base+"/api/whoami") {
		t.Errorf("the private page is\n%s", body)
	}
	nobody.want(nobody.get("/private", auth(admin, "password")...), http.StatusSeeOther, "/?next=/private")
}

// The commands that pages show do what they say.
func TestCommandsOnPages(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		skip.Test(t, "the commands were not run: curl is not installed")
	}
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	b.views()
	for path, want := range map[string]string{
		"/private":   `{"user":"admin2"}` + "\n",
		"/dashboard": `{"user":"user1"}` + "\n" + `{"user":"user1","views":0}` + "\n",
	} {
		m := regexp.MustCompile(`(?s)<code id="curl">(.*?)</code>`).FindStringSubmatch(b.get(path).body)
		if m == nil {
			t.Fatalf("%s shows no command", path)
		}
		cmd := exec.Command("sh", "-c", "set -e\n"+strings.ReplaceAll(html.UnescapeString(m[1]), "curl ", "curl -sS "))
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %s prints %q, %v", path, m[1], out, err)
		}
	}
	if body := b.get("/dashboard").body; !strings.Contains(body, "<dd>1</dd>") {
		t.Errorf("the dashboard is\n%s", body)
	}
}

// What goes wrong is a page with a way back, or JSON for programs.
func TestErrorPages(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	large := "a=" + strings.Repeat("x", maxBody)
	const form = "application/x-www-form-urlencoded"
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/none", "", http.StatusNotFound},
		{"POST", "/none", "", http.StatusNotFound},
		{"GET", "/count", "", http.StatusNotFound},
		{"POST", "/user", "username=%zz", http.StatusBadRequest},
		{"POST", "/user", large, http.StatusRequestEntityTooLarge},
		{"POST", "/cookies", "name=", http.StatusBadRequest},
	} {
		a := b.want(b.do(test.method, test.path, test.body, "Content-Type", form), test.status, "")
		for _, want := range []string{`<a href="/">Back to the home page</a>`, `id="who">user1</a>`, `href="/style.css"`} {
			if !strings.Contains(a.body, want) {
				t.Errorf("%s %s has no %s:\n%s", test.method, test.path, want, a.body)
			}
		}
	}
	b.wantJSON(b.get("/api/none"), http.StatusNotFound, `{"error":"There is no such page."}`)
	b.wantJSON(b.get("/none", "Accept", "application/json"), http.StatusNotFound, `{"error":"There is no such page."}`)
}

func (b *browser) cookies() (j jar) {
	b.t.Helper()
	a := b.want(b.get("/cookies", "Accept", "application/json"), http.StatusOK, "")
	if err := json.Unmarshal([]byte(a.body), &j); err != nil {
		b.t.Fatal(err)
	}
	return j
}

func TestCookies(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	values := map[string]string{"a": "1+1 = 2%", "b": `ü; "x", \`, "c": "", "d": "s.x"}
	for name, value := range values {
		a := b.want(b.post("/cookies", url.Values{"name": {name}, "value": {value}}), http.StatusSeeOther, "/cookies")
		if want := name + "=" + url.PathEscape(value) + "; "; !strings.HasPrefix(a.Header["Set-Cookie"][0], want) {
			t.Errorf("Set-Cookie = %q, want %q", a.Header["Set-Cookie"], want)
		}
		a = b.want(b.post("/cookies", url.Values{"name": {"signed-" + name}, "value": {value}, "signed": {"on"}}), http.StatusSeeOther, "/cookies")
		if want := "signed-" + name + "=" + url.PathEscape("s:"+session.Sign(value, testSecret)) + "; "; !strings.HasPrefix(a.Header["Set-Cookie"][0], want) {
			t.Errorf("Set-Cookie = %q, want %q", a.Header["Set-Cookie"], want)
		}
	}
	j := b.cookies()
	signed := map[string]string{}
	for name, value := range values {
		signed["signed-"+name] = value
	}
	if !maps.Equal(j.Cookies, values) || !maps.Equal(j.Signed, signed) || len(j.Refused) != 0 {
		t.Errorf("got %+v, want %v and the same signed", j, values)
	}
	if body := html.UnescapeString(b.get("/cookies").body); !strings.Contains(body, values["b"]) || strings.Contains(body, sessionID(t, b.cookie())) {
		t.Errorf("the page lacks a cookie or shows the session's:\n%s", body)
	}
	a := b.want(b.post("/cookies/clear", url.Values{"name": {"signed-a"}}), http.StatusSeeOther, "/cookies")
	if want := "signed-a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"; a.Header["Set-Cookie"][0] != want {
		t.Errorf("Set-Cookie = %q, want %q", a.Header["Set-Cookie"], want)
	}
	if _, ok := b.cookies().Signed["signed-a"]; ok {
		t.Error("a cleared cookie is still there")
	}
}

// Cookies are read as Node sends them: %2B and a raw plus are a plus, and the first of two counts.
func TestCookiesAsNodeSendsThem(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	sent := "a=%2B+; a=2; b=%E0%A4%A; s=" + strings.ReplaceAll(url.QueryEscape("s:"+session.Sign("x y", testSecret)), "+", "%20")
	a := b.get("/cookies", "Accept", "application/json", "Cookie", sent)
	b.wantJSON(a, http.StatusOK, `{"cookies":{"a":"++","b":"%E0%A4%A"},"signedCookies":{"s":"x y"},"refused":[]}`)
}

func TestTamperedCookieIsRefused(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	good := session.Sign("user", testSecret)
	for _, bad := range []string{
		strings.Replace(good, "user", "root", 1), good[:len(good)-1], good + "A", "user", "user.", ".", "",
		session.Sign("user", "another secret"),
	} {
		a := b.get("/cookies", "Accept", "application/json", "Cookie", "role="+url.PathEscape("s:"+bad))
		b.wantJSON(a, http.StatusOK, `{"cookies":{},"signedCookies":{},"refused":["role"]}`)
	}
	if a := b.get("/cookies", "Cookie", "role=s%3Achief.x"); !strings.Contains(a.body, "refused") || strings.Contains(a.body, "chief") {
		t.Errorf("the page takes a tampered cookie:\n%s", a.body)
	}
}

// The page must not set or clear the session cookie, nor a cookie that no browser accepts.
func TestCookiesThatAreNotSet(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	id := sessionID(t, b.cookie())
	for _, form := range []url.Values{
		{"name": {cookieName}, "value": {"x"}},
		{"name": {""}, "value": {"x"}},
		{"name": {"a b"}, "value": {"x"}},
		{"name": {"a=b; c"}, "value": {"x"}},
		{"name": {"a\r\nX-Evil"}, "value": {"x"}},
		{"name": {"a"}, "value": {strings.Repeat("x", maxCookie)}},
		{"name": {"a"}, "value": {id}, "signed": {"on"}},
	} {
		a := b.want(b.post("/cookies", form), http.StatusBadRequest, "")
		if strings.Contains(fmt.Sprint(a.Header["Set-Cookie"]), "a=") {
			t.Errorf("%v: Set-Cookie = %q", form, a.Header["Set-Cookie"])
		}
	}
	b.want(b.post("/cookies/clear", url.Values{"name": {cookieName}}), http.StatusBadRequest, "")
	b.want(b.get("/user"), http.StatusOK, "")
}

var (
	preRE   = regexp.MustCompile(`(?s)<pre id="json"[^>]*>(.*?)</pre>`)
	tagRE   = regexp.MustCompile(`<[^>]*>`)
	whereRE = regexp.MustCompile(`<code id="where">(.*?)</code>`)
)

// The session's page shows what is stored, and where, but not the whole id. So does the home page.
func TestSessionPage(t *testing.T) { onEach(t, testSessionPage) }

func testSessionPage(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	if a := b.want(b.get("/session"), http.StatusOK, ""); preRE.MatchString(a.body) || b.cookie() != "" {
		t.Errorf("a visitor without a session gets cookie %q and\n%s", b.cookie(), a.body)
	}
	other := newBrowser(t, base)
	other.login("mypassword")
	b.login("mypassword")
	b.views()
	for _, path := range []string{"/session", "/"} {
		testSessionOn(t, at, b, other, path)
	}
}

func testSessionOn(t *testing.T, at place, b, other *browser, path string) {
	a := b.want(b.get(path), http.StatusOK, "")
	where, pre := whereRE.FindStringSubmatch(a.body), preRE.FindStringSubmatch(a.body)
	if where == nil || pre == nil {
		t.Fatalf("no session in\n%s", a.body)
	}
	id := sessionID(t, b.cookie())
	_, want := at.open(t, nil)
	if at.url == "" {
		want = filepath.Join(want, id[:8]+"….json")
	} else {
		want += " " + id[:8] + "…"
	}
	if got := html.UnescapeString(where[1]); got != want {
		t.Errorf("it is in %q, want %q", got, want)
	}
	stored := at.stored(t, id)
	var shown, compact bytes.Buffer // an engine's document can have white space
	if err := errors.Join(json.Compact(&shown, []byte(html.UnescapeString(tagRE.ReplaceAllString(pre[1], "")))), json.Compact(&compact, []byte(stored))); err != nil {
		t.Fatal(err)
	}
	if shown.String() != compact.String() || !strings.Contains(stored, `"user":"user1"`) {
		t.Errorf("shown  %s\nstored %s", shown.Bytes(), stored)
	}
	if strings.Contains(a.body, sessionID(t, other.cookie())[:8]) || strings.Contains(a.body, id) {
		t.Error("the page shows another visitor's session, or a whole id")
	}
}

func TestSecureBehindProxy(t *testing.T) {
	for _, trust := range []bool{false, true} {
		for proto, https := range map[string]bool{"https": true, "HTTPS, http": true, "http, https": false, "http": false, "": false} {
			t.Run(fmt.Sprintf("%v %s", trust, proto), func(t *testing.T) {
				base := files(t).serve(t, trust)
				b := newBrowser(t, base)
				header := []string{"X-Forwarded-Proto", proto}
				login := b.post("/user", url.Values{"username": {"user1"}, "password": {"mypassword"}}, header...)
				b.want(login, http.StatusSeeOther, "/")
				set := b.want(b.post("/cookies", url.Values{"name": {"a"}, "value": {"1"}}, header...), http.StatusSeeOther, "/cookies")
				for _, a := range []answer{login, set} {
					got := a.Header["Set-Cookie"]
					if len(got) == 0 || strings.Contains(got[0], "; Secure") != (trust && https) {
						t.Errorf("%s: Set-Cookie = %q", a.Request.URL.Path, got)
					}
				}
			})
		}
	}
}

func TestOtherSitesCannotPost(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	b.login("mypassword")
	for _, path := range []string{"/user", "/login", "/logout", "/count", "/cookies", "/cookies/clear", devicesPath, operatorPath, "/logout/everywhere", "/confirm"} {
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://other.example"}} {
			a := b.want(b.post(path, url.Values{"username": {"user1"}, "password": {"mypassword"}, "name": {"a"}}, header...), http.StatusForbidden, "")
			if a.Header["Set-Cookie"] != nil {
				t.Errorf("POST %s sets %q", path, a.Header["Set-Cookie"])
			}
		}
	}
	b.want(b.get("/user"), http.StatusOK, "")
}

func TestNothingIsCached(t *testing.T) {
	base := files(t).serve(t, false)
	b := newBrowser(t, base)
	for range 2 { // once as nobody, once as user1
		for _, path := range []string{"/", "/user", "/admin", "/api/dashboard", "/dashboard", "/private", "/cookies", "/session", "/devices", devicesPath, operatorPath, "/style.css", "/recovery", "/confirm", "/none"} {
			if got := b.get(path).Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("GET %s: Cache-Control = %q", path, got)
			}
		}
		if got := b.login("mypassword").Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("POST /user: Cache-Control = %q", got)
		}
	}
}
