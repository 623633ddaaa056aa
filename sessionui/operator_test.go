package sessionui_test

import (
	"context"
	"fmt"
	"html"
	"html/template"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
	"github.com/sessionfilestore/filestore/sessionui"
)

// Without Options.Write nothing can be ended, whatever is sent, and the page has no buttons for it.
func TestReadOnly(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}})
	y.put("id-of-anna", map[string]any{"user": "anna"})
	page := get(y.page, "/")
	handle := page.handleOf("anna")
	for _, target := range []string{"/", "/?session=" + handle} {
		if a := get(y.page, target); a.Code != 200 || strings.Contains(a.body, "data-action") || strings.Contains(a.body, `method="post"`) {
			t.Errorf("GET %s = %d, with forms that change something:\n%s", target, a.Code, a.body)
		}
	}
	if a := get(y.page, "/?ask=1"); a.Code != 403 {
		t.Errorf("the question is asked: %d", a.Code)
	}
	for _, values := range []url.Values{{"do": {"end"}, "handle": {handle}}, {"do": {"end-matching"}, "n": {"1"}}, nil} {
		if a := do(y.page, form("/", values)); a.Code != 403 {
			t.Errorf("POST %v = %d, want 403", values, a.Code)
		}
	}
	if got := y.ids(); len(got) != 1 || len(y.told()) > 0 {
		t.Errorf("left: %q, events %v", got, y.told())
	}
}

// What Options.Nav returns for a request stands on each page, below the link that skips to the sessions.
func TestNav(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true, Nav: func(r *http.Request) template.HTML {
		return template.HTML(`<nav><a href="/">` + r.Header.Get("Visitor") + `</a></nav>`)
	}})
	y.put("id-of-anna", map[string]any{"user": "anna"})
	handle := get(y.page, "/").handleOf("anna")
	for target, status := range map[string]int{"/": 200, "/?session=" + handle: 200, "/?ask=1": 200, "/?session=none": 404, "/?idle=x": 400} {
		r := httptest.NewRequest("GET", target, nil)
		r.Header.Set("Visitor", "bert")
		a := do(y.page, r)
		nav := strings.Index(a.body, `<section class="nav" aria-label="Site"><nav><a href="/">bert</a></nav></section>`)
		if a.Code != status || nav < 0 || nav > strings.Index(a.body, "<main") || nav < strings.Index(a.body, `class="skip"`) {
			t.Errorf("GET %s = %d, want %d and the site's links:\n%s", target, a.Code, status, a.body)
		}
	}
	if a := get(newYard(t, sessionui.Options{}).page, "/"); strings.Contains(a.body, `class="nav"`) {
		t.Errorf("without Nav there are links:\n%s", a.body)
	}
}

// A POST that does not surely come from the page itself changes nothing.
func TestCrossSite(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true})
	y.put("id-of-anna", map[string]any{"user": "anna"})
	handle := get(y.page, "/").handleOf("anna")
	post := func(headers ...string) *http.Request {
		r := form("http://site.example/", url.Values{"do": {"end"}, "handle": {handle}})
		r.Header.Del("Sec-Fetch-Site")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	for _, headers := range [][]string{
		{}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "cross-site", "Origin", "http://site.example"},
		{"Origin", "http://other.example"}, {"Origin", "null"}, {"Origin", "http://site.example:81"}, {"Referer", "http://site.example/"},
	} {
		if a := do(y.page, post(headers...)); a.Code != 403 || len(y.ids()) != 1 {
			t.Errorf("a POST with %q = %d, left: %q", headers, a.Code, y.ids())
		}
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
		if a := do(y.page, httptest.NewRequest(method, "/?do=end&handle="+handle, nil)); a.Code != 405 || len(y.ids()) != 1 {
			t.Errorf("%s = %d, left: %q", method, a.Code, y.ids())
		}
	}
	// What a GET carries does nothing, and what the query of a POST carries is not the form.
	get(y.page, "/?do=end&handle="+handle)
	r := form("/?do=end&handle="+handle, nil)
	if a := do(y.page, r); a.Code != 400 || len(y.ids()) != 1 {
		t.Errorf("a form in the query = %d, left: %q", a.Code, y.ids())
	}
	large := form("/", url.Values{"do": {"end"}, "handle": {handle}, "x": {strings.Repeat("x", 1<<20)}})
	if a := do(y.page, large); a.Code != 400 || len(y.ids()) != 1 {
		t.Errorf("a form of 1 MB = %d, left: %q", a.Code, y.ids())
	}
	if a := do(y.page, post("Origin", "http://site.example")); a.Code != 303 || len(y.ids()) != 0 { // an old browser
		t.Errorf("a POST with the right Origin = %d, left: %q", a.Code, y.ids())
	}
}

// Several look at a session that cannot be read any more: what others read is not changed. (For -race.)
func TestOneTurnsUnreadable(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}})
	y.put("one", map[string]any{"user": "anna"})
	handle := get(y.page, "/").handleOf("anna")
	y.file("one", `{"cook`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if a := get(y.page, "/?session="+handle); a.Code != 200 || !strings.Contains(a.body, "It holds no session.") {
				t.Errorf("= %d %s", a.Code, a.body)
			}
		})
	}
	wg.Wait()
}

// Texts that a page must neither obey nor let through.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `javascript:alert(1)`, `</title><script>alert(1)</script>`,
	`<svg onload=alert(1)>`, `{{.Handle}}`, `${alert(1)}`, "\u202egnirts\u202c", "\u2066\u2069\u200f\u061c", "a\x00b\x1b[31mc\u0085d\u009be", "\ufeff\u2028\u2029",
	`--><script>`, `]]><script>`, `<a href="//other.example">`, "`alert(1)`", `&lt;script&gt;`, "%3Cscript%3E",
}

// obeyed are the characters that change how others are shown.
var obeyed = regexp.MustCompile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

var (
	tag       = regexp.MustCompile(`<[a-zA-Z/!][^>]*>`)
	quoted    = regexp.MustCompile(`="[^"]*"`)
	known     = regexp.MustCompile(`^</?(html|head|meta|title|link|body|a|header|h[12]|span|p|main|div|section|dl|dt|dd|small|figure|figcaption|svg|path|rect|ul|ol|li|b|form|label|input|select|option|button|table|thead|tbody|tr|th|td|bdi|time|nav|!doctype)\b`)
	forbidden = regexp.MustCompile(`(?i)\s(on[a-z]+|style|srcdoc|formaction)=?`)
	address   = regexp.MustCompile(`\s(?:href|action|src)="([^"]*)"`)
)

// checkPage says whether a page is as harmless as it must be. What a visitor has typed stays as it is in the fields.
func checkPage(t *testing.T, what, body string) {
	t.Helper()
	for _, tag := range tag.FindAllString(body, -1) {
		bare := quoted.ReplaceAllString(tag, "=")
		if !known.MatchString(tag) && tag != `<script src="?asset=script.js" defer>` && tag != "</script>" || forbidden.MatchString(bare) || strings.Count(bare, "<") > 1 {
			t.Errorf("%s has the tag %s", what, tag)
		}
		if m := address.FindStringSubmatch(tag); m != nil && !strings.HasPrefix(m[1], "?") && m[1] != "#sessions" {
			t.Errorf("%s leads to %s", what, m[1])
		}
		if strings.HasPrefix(tag, "<input") {
			body = strings.Replace(body, tag, "", 1)
		}
	}
	if at := obeyed.FindStringIndex(body); at != nil {
		t.Errorf("%s has the character %q", what, body[at[0]:at[1]])
	}
}

func TestHostileTexts(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user", "deep.x"}, Write: true})
	for i, s := range hostile {
		y.put(fmt.Sprintf("id%d", i), map[string]any{"user": s, "m" + s: s, "deep": map[string]any{"x": s}, "__note": map[string]string{"agent": s, "addr": s}})
	}
	y.file("cookie", `{"cookie":{"originalMaxAge":3600000,"path":"<script>alert(1)</script>","domain":"\u202e\u001b","sameSite":"\"><img src=x>","priority":"<b>"},"user":"odd"}`)
	page := get(y.page, "/")
	checkPage(t, "the overview", page.body)
	if n := len(page.handles()); n != len(hostile)+1 {
		t.Fatalf("%d rows", n)
	}
	if !strings.Contains(page.body, `\u202egnirts`) || !strings.Contains(page.body, `\x1b[31mc`) {
		t.Error("characters that are not obeyed are not shown either")
	}
	for _, handle := range page.handles() {
		checkPage(t, "a session's page", get(y.page, "/?session="+handle).body)
	}
	for _, s := range hostile {
		for _, name := range []string{"value", "idle", "ends", "state", "sort", "member", "page", "said", "session", "asset"} {
			q := url.Values{"member": {"user"}, "value": {"x"}}
			q.Set(name, s)
			checkPage(t, "?"+name+"="+s, get(y.page, "/?"+q.Encode()).body)
			q.Set("ask", "1")
			checkPage(t, "?ask=1&"+name+"="+s, get(y.page, "/?"+q.Encode()).body)
		}
	}
	// A filter by such a value finds it.
	for _, s := range hostile {
		if n := len(get(y.page, "/?"+url.Values{"member": {"user"}, "value": {s}}.Encode()).handles()); n != 1 {
			t.Errorf("by %q the page finds %d sessions", s, n)
		}
	}
}

// No page shows what opens a session, or what Show does not name.
func TestNothingSecret(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	const secret = "the secret of the site's cookies"
	m := &session.Manager{Store: y.s, Secrets: []string{secret}, Cookie: session.CookieOptions{MaxAge: time.Hour}, Note: func(r *http.Request) session.Note {
		return session.Note{Agent: "Firefox/1 Linux unique-agent", Addr: "192.0.2.77"}
	}}
	key := []byte("a key of thirty-two bytes, or so")
	page := sessionui.Operator(y.s, y.options(sessionui.Options{Show: []string{"user"}, Write: true, Key: key}))
	site := m.Handler(http.StripPrefix("/admin", page))
	devices := m.Handler(sessionui.Devices(m, nil))
	r := sessiontest.Login(httptest.NewRequest("GET", "/admin/", nil), m, "anna", map[string]any{"password": "hidden-value", "cart": map[string]any{"item": "hidden-item"}})
	y.put("0123456789abcdef-id-of-another", map[string]any{"user": "anna", "token": "hidden-token", "n": 1234567891})
	y.file("id-torn", `{"cookie":{},"x":"hidden-torn`)
	y.file("id-over", old(2*time.Hour, `,"user":"bert","x":"hidden-over"`))
	cookie := r.Header.Get("Cookie")
	secrets := []string{secret, string(key), "hidden-", "unique-agent", "1234567891"}
	secrets = append(secrets, y.ids()...)
	for _, id := range y.ids() { // nor a part of one
		secrets = append(secrets, id[:min(len(id), 12)])
	}
	_, value, _ := strings.Cut(cookie, "=")
	value, _ = url.PathUnescape(value)
	secrets = append(secrets, value, strings.Split(strings.TrimPrefix(value, "s:"), ".")[1])
	check := func(what string, a answer) {
		t.Helper()
		text := html.UnescapeString(a.body) + a.Header().Get("Location") + "\n" + y.logged()
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s shows %q:\n%s", what, s, text)
			}
		}
	}
	visit := func(h http.Handler, target string) answer {
		q := httptest.NewRequest("GET", target, nil)
		q.Header.Set("Cookie", cookie)
		a := do(h, q)
		check(target, a)
		return a
	}
	overview := visit(site, "/admin/")
	if !strings.Contains(overview.body, " data-current") || strings.Count(overview.body, " data-current") != 1 || len(overview.handles()) != 4 {
		t.Errorf("the visitor's own session is not marked, or rows are missing: %s", overview.body)
	}
	for _, handle := range overview.handles() {
		visit(site, "/admin/?session="+handle)
	}
	for _, target := range []string{"/admin/?ask=1", "/admin/?member=user&value=anna", "/admin/?member=password&value=hidden-value-", "/admin/?session=x"} {
		if !strings.Contains(target, "hidden-value") { // the visitor's own question comes back
			visit(site, target)
		}
	}
	if a := get(page, "/?member=password&value=x"); a.Code != 400 {
		t.Errorf("a filter by a member that is not shown = %d: its answer tells a value", a.Code)
	}
	list := visit(devices, "/")
	if n := len(list.handles()); n != 2 {
		t.Errorf("anna has %d devices, want 2", n)
	}
	for _, h := range list.handles() {
		if slices.Contains(overview.handles(), h) {
			t.Error("both pages have the same handle for a session")
		}
	}
	again := get(sessionui.Operator(y.s, &sessionui.Options{Key: key}), "/").handles()
	other := get(sessionui.Operator(y.s, nil), "/").handles()
	slices.Sort(again)
	was := overview.handles()
	slices.Sort(was)
	if !slices.Equal(again, was) || slices.Contains(other, was[0]) {
		t.Errorf("with the same key the handles are %q, were %q, and with another %q", again, was, other)
	}
}

func TestHeaders(t *testing.T) {
	y := newYard(t, sessionui.Options{Write: true, Show: []string{"user"}})
	y.put("id", map[string]any{"user": "anna"})
	handle := get(y.page, "/").handles()[0]
	requests := []*http.Request{form("/", nil), httptest.NewRequest("POST", "/", nil), httptest.NewRequest("PUT", "/", nil), httptest.NewRequest("HEAD", "/", nil)}
	for _, target := range []string{"/", "/?session=" + handle, "/?session=x", "/?ask=1", "/?asset=style.css", "/?asset=script.js", "/?asset=icon.svg", "/?asset=x", "/?asset=../operator.go", "/?state=x"} {
		requests = append(requests, httptest.NewRequest("GET", target, nil))
	}
	for _, r := range requests {
		a := do(y.page, r)
		h := a.Header()
		csp := h.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "http") {
			t.Errorf("%s %s: policy %q", r.Method, r.URL, csp)
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s %s: headers %v", r.Method, r.URL, h)
		}
		if a.Code == 200 && h.Get("Content-Type") == "" {
			t.Errorf("%s %s has no type", r.Method, r.URL)
		}
	}
}

// The pages work wherever they are: their links and redirects name neither a host nor a path.
func TestAnywhere(t *testing.T) {
	y := newYard(t, sessionui.Options{Write: true, Show: []string{"user"}})
	for i := range 120 {
		y.put(fmt.Sprintf("id%d", i), map[string]any{"user": "anna"})
	}
	stripped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a proxy
		r.URL.Path, r.RequestURI, r.Host = "/", "/", "inside:8080"
		y.page.ServeHTTP(w, r)
	})
	for path, h := range map[string]http.Handler{
		"/": y.page, "/admin/sessions/": y.page, "/admin/sessions": y.page, "/a/": http.StripPrefix("/a", y.page), "/b": http.StripPrefix("/b", y.page), "/outside/": stripped,
	} {
		page := get(h, path+"?page=2&sort=size")
		if page.Code != 200 || len(page.handles()) != 50 {
			t.Fatalf("GET %s = %d with %d rows", path, page.Code, len(page.handles()))
		}
		for _, target := range []string{path, path + "?page=2&sort=size", path + "?ask=1", path + "?session=" + page.handles()[0], path + "?session=x"} {
			for _, m := range address.FindAllStringSubmatch(get(h, target).body, -1) {
				if link := html.UnescapeString(m[1]); !strings.HasPrefix(link, "?") && link != "#sessions" {
					t.Errorf("%s links to %q", target, link)
				}
			}
		}
		a := do(h, form(path, url.Values{"do": {"end"}, "handle": {page.handles()[0]}}))
		if where := a.Header().Get("Location"); a.Code != 303 || !strings.HasPrefix(where, "?") {
			t.Errorf("after a POST at %s: %d, to %q", path, a.Code, where)
		}
	}
}

func TestFilterAndOrder(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user", "passport.user"}})
	for i := range 60 {
		y.put(fmt.Sprintf("id%02d", i), map[string]any{"user": fmt.Sprintf("u%02d", i), "pad": strings.Repeat("x", i)})
	}
	y.put("number", map[string]any{"user": 42})
	y.put("text", map[string]any{"user": "42"})
	y.put("deep", map[string]any{"passport": map[string]any{"user": "anna"}})
	y.put("long", map[string]any{"user": strings.Repeat("l", 1000)})
	y.file("idle", old(50*time.Minute, `,"user":"idle"`))
	y.file("over", old(70*time.Minute, `,"user":"over"`))
	y.file("torn", `{`)
	y.file("large", old(0, `,"user":"`+strings.Repeat("x", 5000)+`"`))
	for query, want := range map[string]int{
		"state=alive": 65, "state=expired": 1, "state=unreadable": 2, "member=user&value=42": 2, "member=passport.user&value=anna": 1,
		"member=user&value=" + strings.Repeat("l", 1000): 1, "member=user&value=" + strings.Repeat("l", 999): 0, "member=user&value=x": 0,
		"idle=30m": 2, "idle=30m&state=alive": 1, "idle=1w": 0, "ends=15m": 1, "ends=1h": 1, "ends=2d": 65, "member=user&value=": 68, "member=user&value=U01": 0,
	} {
		a := get(y.page, "/?"+query)
		all := len(a.handles())
		if want > 50 {
			all += len(get(y.page, "/?page=2&"+query).handles())
		}
		if a.Code != 200 || all != want {
			t.Errorf("?%s = %d with %d rows, want %d", query, a.Code, all, want)
		}
	}
	page := get(y.page, "/")
	if page.figure("live") != "65" || page.figure("expired") != "1" || page.figure("unreadable") != "2" {
		t.Errorf("figures: %s live, %s expired, %s unreadable", page.figure("live"), page.figure("expired"), page.figure("unreadable"))
	}
	seen := map[string]bool{}
	for _, p := range []string{"1", "2", "3", "99", "-1", "x"} {
		for _, h := range get(y.page, "/?sort=-size&page="+p).handles() {
			seen[h] = true
		}
	}
	if len(seen) != 68 {
		t.Errorf("all pages together show %d sessions, want 68", len(seen))
	}
	if a := get(y.page, "/?sort=-size&state=alive"); !strings.Contains(a.row(a.handles()[0]), "llll") || !strings.Contains(a.row(a.handles()[1]), "u59") {
		t.Errorf("the largest is %s", a.row(a.handles()[0]))
	}
	if a := get(y.page, "/?sort=access"); !strings.Contains(a.row(a.handles()[2]), "over") || !strings.Contains(a.row(a.handles()[3]), "idle") {
		t.Errorf("the longest idle is %s", a.row(a.handles()[2]))
	}
	if row := get(y.page, "/?state=unreadable").row("is too large"); !strings.Contains(row, "unreadable") || !strings.Contains(row, "MaxSize") {
		t.Errorf("the row of what is too large: %s", row)
	}
	for _, bad := range []string{"state=x", "sort=x", "idle=x", "ends=-1h", "idle=1y", "member=x&value=y"} {
		if a := get(y.page, "/?"+bad); a.Code != 400 {
			t.Errorf("?%s = %d, want 400", bad, a.Code)
		}
	}
}

// A poor is a Source that can do nothing beside.
type poor struct{ s *filestore.Store }

func (p poor) All(ctx context.Context) iter.Seq2[filestore.Entry, error] { return p.s.All(ctx) }
func (p poor) Destroy(ctx context.Context, id string) error              { return p.s.Destroy(ctx, id) }

// An address that can be read in part only does not mean all sessions.
func TestMalformedQuery(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"user"}, Write: true})
	y.put("one", map[string]any{"user": "anna"})
	for _, query := range []string{"member=user&value=a;b", "member=user&value=%zz", "ask=1&member=user&value=100%"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		if a := do(y.page, r); a.Code != 400 {
			t.Errorf("GET ?%s = %d", query, a.Code)
		}
		r = form("/", url.Values{"do": {"end-matching"}, "n": {"1"}})
		r.URL.RawQuery = query
		if a := do(y.page, r); a.Code != 400 || len(y.ids()) != 1 {
			t.Errorf("POST ?%s = %d", query, a.Code)
		}
	}
}

// A member whose own name has a dot is not the one that Show means.
func TestDotInName(t *testing.T) {
	y := newYard(t, sessionui.Options{Show: []string{"a.b"}})
	y.put("one", map[string]any{"a.b": 1, "a": map[string]any{"b": "inner"}})
	body := get(y.page, "/?session="+get(y.page, "/").handles()[0]).body
	if shown, hidden := strings.Count(body, "inner"), strings.Count(body, "not shown"); shown != 1 || hidden != 2 {
		t.Errorf("the value of a.b is there %d times, and %d members are not shown", shown, hidden)
	}
}

// Fixed has these sessions and no others, and forgets none.
type fixed []filestore.Entry

func (f fixed) All(context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for _, e := range f {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (fixed) Destroy(context.Context, string) error { return nil }

// Whose last access is not known is not idle, and whose end is not known may be the oldest.
func TestUnknownTimes(t *testing.T) {
	page := sessionui.Operator(fixed{{ID: "one", Session: &filestore.Session{Created: time.Now().Add(-time.Hour)}}}, nil)
	if n := len(get(page, "/?idle=1m").handles()); n != 0 {
		t.Error("a session whose last access is not known counts as idle")
	}
	if a := get(page, "/"); !regexp.MustCompile(`<dt>Oldest</dt><dd><time[^>]*>1h ago<`).MatchString(a.body) {
		t.Error("the oldest is not known")
	}
}

// What a Source does not tell the page does not show as zero.
func TestPoorSource(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	page := sessionui.Operator(poor{y.s}, y.options(sessionui.Options{Show: []string{"user"}, Write: true}))
	y.put("id", map[string]any{"user": "anna"})
	y.put("two", map[string]any{"user": "bert"})
	sess := new(filestore.Session) // without a maxAge
	sess.Put("user", "clara")
	y.s.Set(ctx, "three", sess)
	y.file("torn", `{`)
	a := get(page, "/")
	if a.figure("live") != "3" || a.figure("expired") != "not known" || a.figure("unreadable") != "not known" {
		t.Errorf("figures: %q, %q, %q", a.figure("live"), a.figure("expired"), a.figure("unreadable"))
	}
	if !strings.Contains(a.body, "Errors are not counted here.") || strings.Contains(a.body, "Free space") {
		t.Errorf("errors or room are shown: %s", a.body)
	}
	if row := a.row("clara"); !strings.Contains(row, `data-label="Ends in">–`) {
		t.Errorf("without a TTL the end is shown: %s", row)
	}
	if one := get(page, "/?session="+a.handleOf("anna")); one.Code != 200 || !strings.Contains(one.body, "anna") {
		t.Errorf("a session's page = %d", one.Code)
	}
	if a := do(page, form("/", url.Values{"do": {"end"}, "handle": {a.handleOf("anna")}})); a.Code != 303 || slices.Contains(y.ids(), "id") {
		t.Errorf("the end = %d, left: %q", a.Code, y.ids())
	}
	if a := do(page, form("/?member=user&value=bert", url.Values{"do": {"end-matching"}, "n": {"1"}})); a.Code != 303 || slices.Contains(y.ids(), "two") {
		t.Errorf("the end of those that match = %d, left: %q", a.Code, y.ids())
	}
}

// A slow is a Source of n sessions that takes some time for each.
type slow struct {
	n     int
	each  time.Duration
	loops atomic.Int32 // that run now
}

func (s *slow) All(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		s.loops.Add(1)
		defer s.loops.Add(-1)
		for i := range s.n {
			select {
			case <-ctx.Done():
				yield(filestore.Entry{}, ctx.Err())
				return
			case <-time.After(s.each):
			}
			if !yield(filestore.Entry{ID: fmt.Sprint("id", i), Session: &filestore.Session{LastAccess: time.Now(), Cookie: filestore.Cookie{OriginalMaxAge: time.Hour}}}, nil) {
				return
			}
		}
	}
}

func (s *slow) Destroy(context.Context, string) error { return nil }

// A page does not wait for all sessions, and says so; no look goes on after its request.
func TestSlowSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{n: 3000, each: time.Millisecond}
		page := sessionui.Operator(s, nil)
		began := time.Now()
		a := get(page, "/")
		if took := time.Since(began); took > time.Second || a.Code != 200 || !strings.Contains(a.body, "Counted so far: 8") || !strings.Contains(a.body, "whole=1") || s.loops.Load() != 0 {
			t.Errorf("the first page took %v and says %s; %d loops go on", took, a.figure("live"), s.loops.Load())
		}
		began = time.Now()
		if get(page, "/?page=2"); time.Since(began) > 200*time.Millisecond {
			t.Errorf("the next page took %v", time.Since(began))
		}
		if a := get(page, "/?whole=1"); a.figure("live") != "3000" || strings.Contains(a.body, "so far") || s.loops.Load() != 0 {
			t.Errorf("the whole page shows %s; %d loops go on", a.figure("live"), s.loops.Load())
		}
		began = time.Now()
		if a := get(page, "/?page=3"); time.Since(began) > 200*time.Millisecond || a.figure("live") != "3000" {
			t.Errorf("the next page took %v and shows %s", time.Since(began), a.figure("live"))
		}
		time.Sleep(time.Hour)
		// A visitor who goes ends the look.
		gone, cancel := context.WithCancel(ctx)
		time.AfterFunc(50*time.Millisecond, cancel)
		began = time.Now()
		do(page, httptest.NewRequest("GET", "/?whole=1", nil).WithContext(gone))
		if took := time.Since(began); took > 60*time.Millisecond || s.loops.Load() != 0 {
			t.Errorf("after its visitor had gone a look went on for %v; %d loops go on", took-50*time.Millisecond, s.loops.Load())
		}
	})
}

// What can be wrong with the settings is said at once.
func TestOptions(t *testing.T) {
	for _, o := range []sessionui.Options{{Key: []byte("short")}, {Show: []string{""}}, {Show: []string{"a..b"}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Operator takes %+v", o)
				}
			}()
			sessionui.Operator(&slow{}, &o)
		}()
	}
}

func BenchmarkPages(b *testing.B) {
	y := newYard(b, sessionui.Options{})
	for i := range 100_000 {
		y.file(fmt.Sprintf("abcdefghijklmnopqrstuvwx%08d", i), old(time.Duration(i)*time.Millisecond,
			fmt.Sprintf(`,"user":"user%d","cart":[1,2,3],"__note":{"agent":"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0","addr":"192.0.2.0/24"}`, i%1000)))
	}
	y.page = sessionui.Operator(y.s, y.options(sessionui.Options{Show: []string{"user"}}))
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			page := sessionui.Operator(y.s, y.options(sessionui.Options{Show: []string{"user"}}))
			if a := get(page, "/"); a.Code != 200 {
				b.Fatal(a.Code)
			} else if n := strings.Count(a.body, "so far"); n > 0 {
				b.ReportMetric(1, "incomplete")
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			page := sessionui.Operator(y.s, y.options(sessionui.Options{Show: []string{"user"}}))
			if a := get(page, "/?whole=1"); a.figure("live") != "100000" {
				b.Fatal(a.figure("live"))
			}
		}
	})
	for _, query := range []string{"page=2", "sort=size", "member=user&value=user7", "state=expired"} {
		b.Run("next/"+query, func(b *testing.B) {
			for b.Loop() {
				get(y.page, "/?"+query)
			}
		})
	}
}
