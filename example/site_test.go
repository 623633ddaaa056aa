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
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
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
	b.want(b.get("/user"), http.StatusSeeOther, "/")
	b.want(b.login("mypassword"), http.StatusSeeOther, "/user")
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
	b.want(b.get("/"), http.StatusSeeOther, "/user")
}

func TestWrongPasswordFlashesOnce(t *testing.T) { onEach(t, testWrongPasswordFlashesOnce) }

func testWrongPasswordFlashesOnce(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	for _, form := range []url.Values{
		{"username": {"user1"}, "password": {"x"}},
		{"username": {"nobody"}, "password": {""}},
		{},
	} {
		b.want(b.post("/user", form), http.StatusSeeOther, "/")
		for i, want := range []int{1, 0, 0} {
			if got := strings.Count(b.get("/").body, "Wrong username or password."); got != want {
				t.Errorf("after %v visit %d shows the message %d times, want %d", form, i+1, got, want)
			}
		}
	}
	b.want(b.get("/user"), http.StatusSeeOther, "/")
}

func TestLoginChangesTheID(t *testing.T) { onEach(t, testLoginChangesTheID) }

func testLoginChangesTheID(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	b.login("wrong") // the message makes a session
	old := b.cookie()
	if old == "" || !at.has(t, sessionID(t, old)) {
		t.Fatalf("no session before the login: cookie %q", old)
	}
	b.want(b.login("mypassword"), http.StatusSeeOther, "/user")
	if sessionID(t, b.cookie()) == sessionID(t, old) {
		t.Error("the id is the same after the login")
	}
	if at.has(t, sessionID(t, old)) {
		t.Error("the session of the old id is still there")
	}
	thief := newBrowser(t, base)
	for _, path := range []string{"/user", "/admin", "/dashboard"} {
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
	b.login("wrong") // leaves a session with a message
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
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			base := at.serve(t, false)
			b := newBrowser(t, base)
			b.login("mypassword")
			b.views()
			old := b.cookie()
			a := b.want(b.do(method, "/logout", "", "Accept", "text/html,*/*;q=0.8"), http.StatusSeeOther, "/")
			const clear = "connect.sid=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax"
			if got := a.Header["Set-Cookie"]; len(got) != 1 || got[0] != clear {
				t.Errorf("Set-Cookie = %q, want %q", got, clear)
			}
			if b.cookie() != "" {
				t.Errorf("the browser keeps the cookie %q", b.cookie())
			}
			thief := newBrowser(t, base)
			replay := []string{"Cookie", cookieName + "=" + old}
			thief.want(thief.get("/user", replay...), http.StatusSeeOther, "/")
			thief.want(thief.get("/admin", replay...), http.StatusForbidden, "")
			thief.want(thief.get("/dashboard", replay...), http.StatusUnauthorized, "")
			if at.has(t, sessionID(t, old)) {
				t.Error("the session is stored after the logout")
			}
			b.want(b.do(method, "/logout", ""), http.StatusSeeOther, "/") // again, with nothing to end
		})
	}
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
			b.wantJSON(b.get("/dashboard"), http.StatusUnauthorized, `{"error":"log in first"}`)
			a := b.want(b.do("POST", "/login", test.body, "Content-Type", test.contentType), test.status, "")
			if test.status != http.StatusOK {
				if b.cookie() != "" {
					t.Errorf("a refused login sets the cookie %q", b.cookie())
				}
				b.want(b.get("/dashboard"), http.StatusUnauthorized, "")
				return
			}
			b.wantJSON(a, http.StatusOK, `{"user":"user1"}`)
			b.wantJSON(b.get("/dashboard"), http.StatusOK, `{"user":"user1","views":0}`)
			b.wantJSON(b.do("POST", "/logout", "", "Accept", "application/json"), http.StatusOK, `{"ok":true}`)
			b.wantJSON(b.get("/dashboard"), http.StatusUnauthorized, `{"error":"log in first"}`)
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

func testBasicAuth(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	auth := func(name, password string) []string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(name, password)
		return []string{"Authorization", r.Header.Get("Authorization")}
	}
	b.login("mypassword")
	before := b.cookie()
	for _, header := range [][]string{nil, auth(admin, "wrong"), auth(admin, ""), auth("", ""), auth("user1", "mypassword"), {"Authorization", "Bearer x"}} {
		a := b.want(b.get("/private", header...), http.StatusUnauthorized, "")
		if got := a.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Basic realm="private"`) {
			t.Errorf("WWW-Authenticate = %q", got)
		}
	}
	b.want(b.get("/private", auth(admin, "password")...), http.StatusOK, "")
	if sessionID(t, b.cookie()) == sessionID(t, before) || at.has(t, sessionID(t, before)) {
		t.Error("the session has its old id")
	}
	for range 3 {
		if a := b.want(b.get("/private"), http.StatusOK, ""); !strings.Contains(a.body, "You are "+admin) {
			t.Errorf("GET /private =\n%s", a.body)
		}
	}
	other := newBrowser(t, base)
	other.want(other.get("/private"), http.StatusUnauthorized, "")
	b.get("/logout")
	b.want(b.get("/private"), http.StatusUnauthorized, "")
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
	preRE   = regexp.MustCompile(`(?s)<pre id="json">(.*?)</pre>`)
	whereRE = regexp.MustCompile(`<code id="where">(.*?)</code>`)
)

// The session's page shows what is stored, byte for byte, and where.
func TestSessionPage(t *testing.T) { onEach(t, testSessionPage) }

func testSessionPage(t *testing.T, at place) {
	base := at.serve(t, false)
	b := newBrowser(t, base)
	if a := b.want(b.get("/session"), http.StatusOK, ""); preRE.MatchString(a.body) || b.cookie() != "" {
		t.Errorf("a visitor without a session gets cookie %q and\n%s", b.cookie(), a.body)
	}
	other := newBrowser(t, base)
	other.login("mypassword")
	b.login("<script>") // a message, then a login
	b.login("mypassword")
	b.views()
	a := b.want(b.get("/session"), http.StatusOK, "")
	where, pre := whereRE.FindStringSubmatch(a.body), preRE.FindStringSubmatch(a.body)
	if where == nil || pre == nil {
		t.Fatalf("no session in\n%s", a.body)
	}
	id := sessionID(t, b.cookie())
	_, want := at.open(t, nil)
	if at.url == "" {
		want = filepath.Join(want, id+".json")
	}
	if got := html.UnescapeString(where[1]); got != want {
		t.Errorf("it is in %q, want %q", got, want)
	}
	stored := at.stored(t, id)
	var shown, compact bytes.Buffer // an engine's document can have white space
	if err := errors.Join(json.Compact(&shown, []byte(html.UnescapeString(pre[1]))), json.Compact(&compact, []byte(stored))); err != nil {
		t.Fatal(err)
	}
	if shown.String() != compact.String() || !strings.Contains(stored, `"user":"user1"`) {
		t.Errorf("shown  %s\nstored %s", shown.Bytes(), stored)
	}
	if strings.Contains(a.body, sessionID(t, other.cookie())) {
		t.Error("the page shows another visitor's session")
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
				b.want(login, http.StatusSeeOther, "/user")
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
	for _, path := range []string{"/user", "/login", "/logout", "/cookies", "/cookies/clear", devicesPath, operatorPath, "/logout/everywhere", "/confirm"} {
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
		for _, path := range []string{"/", "/user", "/admin", "/dashboard", "/private", "/cookies", "/session", "/devices", devicesPath, operatorPath, "/style.css", "/recovery", "/confirm", "/none"} {
			if got := b.get(path).Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("GET %s: Cache-Control = %q", path, got)
			}
		}
		if got := b.login("mypassword").Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("POST /user: Cache-Control = %q", got)
		}
	}
}
