package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// The wanted signatures are from cookie-signature 1.0.7.
func TestSign(t *testing.T) {
	for _, tt := range []struct{ value, secret, want string }{
		{"2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", "keyboard cat", "o1ec9kD5x6UjLWKhJgWkG+uCLTTu2+SwTy7KsPF44nk"},
		{"abcDEF_-0123456789abcDEF_-012345", "s3cr3t-ключ-🔑", "YPFM2THgGGqUu5QgbiQeCqY0T2xcTlP2oslWNaP4Jlg"},
		{`a b/+="é~!*'().;`, "keyboard cat", "8diJuJrqWyTlFYi564FoVQxbek5y5hO+E2enri2vMMY"},
		{"YH7h3CPKKWJa10-xJyEDqzbM56c8xblR", "k", "bb6hlAmTId6FememldKlp0CH7ImDnz8j+nWk6FfbSMk"},
		{"abc", "\x00\x01\x02\xff", "OwtLeIq3gRlzB4XCTgsWHSJBG26DTfXb7DJWRv5wyPQ"},
	} {
		signed := tt.value + "." + tt.want
		if got := session.Sign(tt.value, tt.secret); got != signed {
			t.Errorf("Sign(%q) = %q, want %q", tt.value, got, signed)
		}
		if got, ok := session.Unsign(signed, "wrong", tt.secret); got != tt.value || !ok {
			t.Errorf("Unsign(%q) = %q, %v, want the value", signed, got, ok)
		}
		for _, bad := range []string{signed + "=", signed[:len(signed)-1], signed + "A", tt.value, "", ".", tt.value + ".", strings.ReplaceAll(signed, "+", "-") + "x"} {
			if got, ok := session.Unsign(bad, tt.secret); ok || got != "" {
				t.Errorf("Unsign(%q) = %q, %v, want false", bad, got, ok)
			}
		}
		if _, ok := session.Unsign(signed); ok {
			t.Error("Unsign without secrets succeeded")
		}
	}
}

// F2: Unsign accepts no changed signature.
func TestMutatedSignatures(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=."
	good := session.Sign("2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", secret)
	for range 10_000 {
		b := []byte(good)
		for range 1 + rand.N(3) {
			b[rand.N(len(b))] = alphabet[rand.N(len(alphabet))]
		}
		if _, ok := session.Unsign(string(b), secret); ok && !bytes.Equal(b, []byte(good)) {
			t.Fatalf("Unsign accepts %q", b)
		}
	}
	// Try every other encoding of the last base64 digit, whose two low bits mean nothing.
	for _, c := range alphabet {
		if alt := good[:len(good)-1] + string(c); alt != good {
			if _, ok := session.Unsign(alt, secret); ok {
				t.Errorf("Unsign accepts %q, another encoding of the same MAC", alt)
			}
		}
	}
}

// F5: Unsign compares MACs in constant time only.
func TestConstantTime(t *testing.T) {
	src, err := os.ReadFile("cookie.go")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "cookie.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		fn, ok := n.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "Unsign" {
			return true
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				found = found || n.Sel.Name == "Equal"
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "bytes" {
					t.Error("Unsign uses package bytes")
				}
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					t.Error("Unsign compares with == or !=")
				}
			case *ast.BranchStmt:
				t.Error("the loop over the secrets stops early")
			case *ast.RangeStmt:
				ast.Inspect(n.Body, func(n ast.Node) bool {
					if _, ok := n.(*ast.ReturnStmt); ok {
						t.Error("the loop over the secrets returns early")
					}
					return true
				})
			}
			return true
		})
		return false
	})
	if !found {
		t.Error("Unsign does not use hmac.Equal")
	}
}

// The attributes, their order and their spelling are as Node writes them.
func TestSetCookie(t *testing.T) {
	const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"
	const head = "connect.sid=s%3A2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.o1ec9kD5x6UjLWKhJgWkG%2BuCLTTu2%2BSwTy7KsPF44nk"
	expires := func(d time.Duration) string {
		return "; Expires=" + time.Now().Add(d).UTC().Format(http.TimeFormat)
	}
	maxAge := func(d time.Duration) string { return fmt.Sprintf("; Max-Age=%.0f", d.Seconds()) }
	for _, tt := range []struct {
		o    session.CookieOptions
		want func() string
	}{
		{session.CookieOptions{}, func() string { return "; Path=/; HttpOnly; SameSite=Lax" }},
		{session.CookieOptions{SameSite: http.SameSiteDefaultMode}, func() string { return "; Path=/; HttpOnly" }},
		{session.CookieOptions{SameSite: http.SameSiteDefaultMode, Readable: true}, func() string { return "; Path=/" }},
		{session.CookieOptions{MaxAge: time.Hour}, func() string { return maxAge(time.Hour) + "; Path=/" + expires(time.Hour) + "; HttpOnly; SameSite=Lax" }},
		{session.CookieOptions{Expires: time.Now().Add(48 * time.Hour)}, func() string {
			return maxAge(48*time.Hour) + "; Path=/" + expires(48*time.Hour) + "; HttpOnly; SameSite=Lax"
		}},
		{session.CookieOptions{Path: "/app", Domain: "example.com", MaxAge: time.Minute, Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true, Priority: "high"},
			func() string {
				return maxAge(time.Minute) + "; Domain=example.com; Path=/app" + expires(time.Minute) + "; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None"
			}},
		{session.CookieOptions{SameSite: http.SameSiteStrictMode, Priority: "Low", Secure: session.SecureNever}, func() string { return "; Path=/; HttpOnly; Priority=Low; SameSite=Strict" }},
	} {
		ok := false
		var got, want string
		for range 3 { // Max-Age may differ by a second
			m := manager(sessiontest.NewStore())
			m.Cookie = tt.o
			if !tt.o.Expires.IsZero() {
				m.Cookie.Expires = time.Now().Add(48 * time.Hour) // again: another second may have begun
			}
			m.TrustProxy = true
			m.GenID = func(*http.Request) (string, error) { return id, nil }
			r := httptest.NewRequest("GET", "/app?a=1", nil)
			if tt.o.Secure == session.SecureAlways {
				r.Header.Set("X-Forwarded-Proto", "https")
			}
			w := httptest.NewRecorder()
			m.Handler(http.HandlerFunc(put)).ServeHTTP(w, r)
			got, want = w.Header().Get("Set-Cookie"), head+tt.want()
			if ok = got == want; ok {
				break
			}
		}
		if !ok {
			t.Errorf("%+v:\n got %s\nwant %s", tt.o, got, want)
		}
	}
	// The cookie is added to others and does not replace them.
	m := manager(sessiontest.NewStore())
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
		put(w, r)
	})).ServeHTTP(w, httptest.NewRequest("GET", "/?a=1", nil))
	if c := w.Header()["Set-Cookie"]; len(c) != 2 || !strings.HasPrefix(c[0], "other=") {
		t.Errorf("cookies %q, want the handler's and the session's", c)
	}
}

// No header makes the middleware panic, or opens a session that we did not sign.
func FuzzCookieHeader(f *testing.F) {
	const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"
	for _, seed := range []string{signed(id), "connect.sid=s:" + session.Sign(id, secret), "a=b; " + signed("x"), `connect.sid="s:`, "connect.sid=%73%3A.", ";;==;"} {
		f.Add(seed)
	}
	looked := ""
	m := manager(filtered{sessiontest.NewStore(), func(id string, _ *filestore.Session, err error) (*filestore.Session, error) {
		looked = id
		return nil, err
	}})
	h := m.Handler(http.HandlerFunc(none))
	f.Fuzz(func(t *testing.T, header string) {
		looked = ""
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", header)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if looked != "" && looked != id && looked != "x" {
			t.Errorf("the store was asked for %q, for the header %q", looked, header)
		}
	})
}

func FuzzSign(f *testing.F) {
	f.Add("value", "secret", 0, byte(0))
	f.Add("a.b", "", 3, byte(1))
	f.Fuzz(func(t *testing.T, value, secret string, at int, flip byte) {
		s := session.Sign(value, secret)
		if got, ok := session.Unsign(s, secret); got != value || !ok {
			t.Errorf("Unsign(Sign(%q)) = %q, %v, want the value", value, got, ok)
		}
		if flip != 0 && len(s) > 0 {
			b := []byte(s)
			b[uint(at)%uint(len(b))] ^= flip
			if got, ok := session.Unsign(string(b), secret); ok {
				t.Errorf("Unsign accepts %q, changed from %q, as %q", b, s, got)
			}
		}
		session.Unsign(value, secret)
	})
}

// F7: if there are several cookies of the name, the first that verifies and opens a session counts. Browsers
// send two after a change of Path or Domain, and the first may be stale for ever.
func TestSeveralCookies(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show})
	anna := cookieOf(do(t, srv, "/put?user=anna", ""))
	bert := cookieOf(do(t, srv, "/put?user=bert", ""))
	if err := s.Store.Set(ctx, "expired", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: -1, Path: "/"}}); err != nil {
		t.Fatal(err)
	}
	const annas, none = `{"user":"anna"}` + "\n", "{}\n"
	junk := strings.Repeat("connect.sid=s:x.y; ", 7)
	for cookies, want := range map[string]string{
		"connect.sid=; " + anna:                            annas,
		"connect.sid; " + anna:                             annas,
		"connect.sid=garbage; " + anna:                     annas,
		"connect.sid=%zz; " + anna:                         annas,
		`connect.sid=""; ` + anna:                          annas,
		"connect.sid=s%3Aforged.signature; " + anna:        annas,
		anna + "x; " + anna:                                annas,
		signed("gone") + "; " + anna:                       annas,
		signed("../x") + "; " + anna:                       annas,
		signed("expired") + "; " + signed("") + ";" + anna: annas,
		anna + "; " + bert:                                 annas,
		anna + "; " + signed("gone"):                       annas,
		junk + anna:                                        annas,
		strings.Repeat("connect.sid=; ", 100) + anna:       annas,
		"connect.sid=garbage; " + signed("gone"):           none,
	} {
		if got := do(t, srv, "/show", cookies).body; got != want {
			t.Errorf("%q opens %s, want %s", cookies, got, want)
		}
	}
	// The cookies may be in several headers.
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Cookie"] = []string{signed("gone"), "a=b; " + anna}
	w := httptest.NewRecorder()
	manager(s).Handler(http.HandlerFunc(show)).ServeHTTP(w, r)
	if w.Body.String() != annas {
		t.Errorf("two headers open %s, want anna's session", w.Body)
	}
	// Only the first eight are tried.
	s.take()
	var many strings.Builder
	for i := range 1000 {
		many.WriteString(signed(fmt.Sprint("gone", i)) + "; ")
	}
	if got := do(t, srv, "/show", many.String()[:1<<16]+"; "+anna).body; got != none {
		t.Errorf("after a thousand signed cookies the next opens %s, want none", got)
	}
	if n := strings.Count(s.take(), "get"); n != 8 {
		t.Errorf("%d look-ups, want 8", n)
	}
}

// F3: a cookie that was signed with an old secret is signed again, even if it has no MaxAge.
func TestOldSecret(t *testing.T) {
	for _, age := range []time.Duration{0, time.Hour} {
		s := newStore(t)
		before := manager(s)
		before.Cookie.MaxAge = age
		cookie := cookieOf(do(t, serve(t, before, map[string]http.HandlerFunc{"/put": put}), "/put?a=1", ""))
		m := &session.Manager{Store: s, Secrets: []string{"a new secret", secret}, Cookie: before.Cookie}
		srv := serve(t, m, map[string]http.HandlerFunc{"/show": show})
		fresh := cookieOf(do(t, srv, "/show", cookie))
		value, _ := url.QueryUnescape(strings.TrimPrefix(fresh, "connect.sid=s%3A"))
		if id, ok := session.Unsign(value, "a new secret"); !ok || id != idOf(t, cookie) {
			t.Errorf("maxAge %v: the response has the cookie %q, want it signed with the new secret", age, fresh)
		}
		if a := do(t, srv, "/show", fresh); a.body != `{"a":"1"}`+"\n" || cookieOf(a) != "" {
			t.Errorf("maxAge %v: the new cookie opens %s, and the response sets %q, want none", age, a.body, cookieOf(a))
		}
	}
}

// logged returns the log while f runs.
func logged(t *testing.T, f func()) string {
	t.Helper()
	var buf bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, nil)))
	defer slog.SetDefault(before)
	f()
	return buf.String()
}

// If no browser accepts the cookie, a new session leaves no file, and the log says once what cures it.
func TestUnsettable(t *testing.T) {
	for name, tt := range map[string]struct {
		m     session.Manager
		tls   bool
		cure  string
		check func(c *filestore.Cookie)
	}{
		"always secure, plain HTTP": {session.Manager{Cookie: session.CookieOptions{Secure: session.SecureAlways}}, false, "TrustProxy", nil},
		"SameSite=None, plain HTTP": {session.Manager{Cookie: session.CookieOptions{SameSite: http.SameSiteNoneMode}}, false, "SameSite", nil},
		"Partitioned, plain HTTP":   {session.Manager{Cookie: session.CookieOptions{Partitioned: true}}, false, "Partitioned", nil},
		"__Host-, plain HTTP":       {session.Manager{Name: "__Host-sid"}, false, "Manager.Name", nil},
		"__host-, plain HTTP":       {session.Manager{Name: "__host-sid"}, false, "Manager.Name", nil},
		"__Secure-, plain HTTP":     {session.Manager{Name: "__Secure-sid"}, false, "Manager.Name", nil},
		"__Http-, plain HTTP":       {session.Manager{Name: "__Http-sid"}, false, "Manager.Name", nil},
		"set in the handler":        {session.Manager{}, false, "SameSite", func(c *filestore.Cookie) { c.SameSite = "none" }},
		"secure in the handler":     {session.Manager{}, false, "TrustProxy", func(c *filestore.Cookie) { c.Secure = true }},
		"__Host- with a path":       {session.Manager{Name: "__Host-sid"}, true, "path /", func(c *filestore.Cookie) { c.Path = "/app" }},
		"expired":                   {session.Manager{}, false, "Expires", func(c *filestore.Cookie) { c.Expires = time.Unix(1, 0) }},
		"all is well":               {session.Manager{}, false, "", nil},
		"secure over TLS":           {session.Manager{Name: "__Host-sid", Cookie: session.CookieOptions{Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true}}, true, "", nil},
	} {
		for _, uninitialized := range []bool{false, true} {
			s := newStore(t)
			m := tt.m
			m.Store, m.Secrets, m.SaveUninitialized = s, []string{secret}, uninitialized
			h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				put(w, r)
				if tt.check != nil {
					tt.check(&session.From(r).Cookie)
				}
				if r.URL.Path == "/save" {
					if err := session.From(r).Save(); (tt.cure == "") != (err == nil) || err != nil && !errors.Is(err, session.ErrCookie) {
						t.Errorf("%s: Save = %v, want ErrCookie or, if all is well, nil", name, err)
					}
				}
			}))
			cookies := 0
			text := logged(t, func() {
				for i := range 10 {
					target := []string{"http://example.com/?a=1", "http://example.com/save?a=1"}[i%2]
					if tt.tls {
						target = strings.Replace(target, "http:", "https:", 1)
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
					cookies += len(w.Result().Cookies())
					if w.Code != 200 {
						t.Errorf("%s: status %d, want 200", name, w.Code)
					}
				}
			})
			if tt.cure == "" {
				if cookies != 10 || text != "" || len(storetest.Files(t, s.dir)) != 10 {
					t.Errorf("%s: %d cookies and %d files, want 10; log %s, want none", name, cookies, len(storetest.Files(t, s.dir)), text)
				}
				continue
			}
			if cookies != 0 || len(storetest.Files(t, s.dir)) != 0 || strings.Count(text, "\n") != 1 || !strings.Contains(text, tt.cure) {
				t.Errorf("%s: %d cookies and %d files, want none; log %s, want one line that says what cures it", name, cookies, len(storetest.Files(t, s.dir)), text)
			}
		}
	}
}

// Handler refuses a cookie that no browser will ever accept.
func TestRefusedCookies(t *testing.T) {
	for name, m := range map[string]*session.Manager{
		"SameSite=None, never secure": {Cookie: session.CookieOptions{SameSite: http.SameSiteNoneMode, Secure: session.SecureNever}},
		"Partitioned, never secure":   {Cookie: session.CookieOptions{Partitioned: true, Secure: session.SecureNever}},
		"__Host- with a domain":       {Name: "__Host-sid", Cookie: session.CookieOptions{Domain: "example.com"}},
		"__Host- with a path":         {Name: "__Host-sid", Cookie: session.CookieOptions{Path: "/app"}},
		"__Host-, never secure":       {Name: "__Host-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"__Secure-, never secure":     {Name: "__Secure-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"a Kelvin sign, folds to k":   {Cookie: session.CookieOptions{Domain: "\u212aexample.com"}},
		"__host-, never secure":       {Name: "__host-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"__Http-, never secure":       {Name: "__Http-sid", Cookie: session.CookieOptions{Secure: session.SecureNever}},
		"__Http-, readable":           {Name: "__Http-sid", Cookie: session.CookieOptions{Readable: true}},
		"__Host-Http-, readable":      {Name: "__Host-Http-sid", Cookie: session.CookieOptions{Readable: true}},
		"__HOST- with a domain":       {Name: "__HOST-sid", Cookie: session.CookieOptions{Domain: "example.com"}},
		"a long name":                 {Name: strings.Repeat("x", 4000)},
		"a long path":                 {Cookie: session.CookieOptions{Path: "/" + strings.Repeat("x", 1024)}},
		"expires in the past":         {Cookie: session.CookieOptions{Expires: time.Now().Add(-time.Minute)}},
		"expires in 1970":             {Cookie: session.CookieOptions{Expires: time.Unix(1, 0)}},
		"a relative Manager.Path":     {Path: "app"},
	} {
		m.Store, m.Secrets = sessiontest.NewStore(), []string{secret}
		if refused(m) == "" {
			t.Errorf("%s: Handler accepts it", name)
		}
	}
	for name, m := range map[string]*session.Manager{
		"SameSiteAuto, never secure": {Cookie: session.CookieOptions{SameSite: session.SameSiteAuto, Secure: session.SecureNever}},
		"expires, but MaxAge counts": {Cookie: session.CookieOptions{Expires: time.Unix(1, 0), MaxAge: time.Hour}},
		"the longest name":           {Name: strings.Repeat("x", 3000)},
		"__Host-":                    {Name: "__Host-sid"},
		"a second":                   {Cookie: session.CookieOptions{MaxAge: time.Second}},
	} {
		m.Store, m.Secrets = sessiontest.NewStore(), []string{secret}
		if why := refused(m); why != "" {
			t.Errorf("%s: Handler refuses it: %s", name, why)
		}
	}
}

// If Expires passes while the program runs, no session can begin, and the log says so.
func TestExpiresPasses(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.Cookie.Expires = time.Now().Add(100 * time.Millisecond)
	h := m.Handler(http.HandlerFunc(put))
	time.Sleep(150 * time.Millisecond)
	text := logged(t, func() {
		for range 3 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/?a=1", nil))
			if w.Code != 200 || w.Header().Get("Set-Cookie") != "" {
				t.Errorf("status %d, want 200, cookie %q, want none", w.Code, w.Header().Get("Set-Cookie"))
			}
		}
	})
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, "Expires") || len(storetest.Files(t, s.dir)) != 0 {
		t.Errorf("%d files, want none, log %s, want one line about Expires", len(storetest.Files(t, s.dir)), text)
	}
}

// If the domain does not cover the host, the log says so once. The cookie is sent all the same, because
// a proxy may have changed the host.
func TestForeignDomain(t *testing.T) {
	for host, foreign := range map[string]bool{"example.com": false, "www.example.com:8080": false, "EXAMPLE.com": false,
		"localhost:8080": true, "example.org": true, "badexample.com": true} {
		for _, domain := range []string{"example.com", ".example.com"} {
			m := manager(newStore(t))
			m.Cookie.Domain = domain
			text := logged(t, func() {
				for range 3 {
					r := httptest.NewRequest("GET", "/?a=1", nil)
					r.Host = host
					w := httptest.NewRecorder()
					m.Handler(http.HandlerFunc(put)).ServeHTTP(w, r)
					if len(w.Result().Cookies()) != 1 {
						t.Errorf("%s: cookies %q, want one", host, w.Header()["Set-Cookie"])
					}
				}
			})
			if n := strings.Count(text, "\n"); n != map[bool]int{true: 1, false: 0}[foreign] {
				t.Errorf("domain %s, host %s: log %s", domain, host, text)
			}
		}
	}
}

// F1, F2, F4, F6, A16: a cookie that we did not sign costs no look-up. A signed cookie without a session
// gives a new id. No forged cookie makes a session or opens another's.
func TestForgedCookies(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/put": put, "/show": show})
	good := cookieOf(do(t, srv, "/put?user=anna", ""))
	raw, _ := url.PathUnescape(good)
	s.take()
	bad := []string{"connect.sid=", "connect.sid=s:", "connect.sid=s:.", "connect.sid=.", "connect.sid", "connect.sid=s%3A.", "connect.sid=j:{}",
		"connect.sid=" + idOf(t, good), "connect.sid=s:" + idOf(t, good), good + "=", good + "A", good + "%3D", good[:len(good)-1], "Connect.sid=" + raw[12:], "connect.sid=%", "connect.sid=%zz",
		strings.Replace(good, "s%3A", "S%3A", 1), strings.Replace(good, "s%3A", "", 1), strings.ReplaceAll(good, "%", "%25"), // A10: it is decoded only once
	}
	for i := len("connect.sid="); i < len(raw); i++ { // F2: change every byte
		c := []byte(raw)
		c[i] ^= 1
		bad = append(bad, string(c))
	}
	for _, cookie := range bad {
		a := do(t, srv, "/show", cookie)
		if a.body != "{}\n" || a.StatusCode != 200 {
			t.Errorf("%q: status %d, values %s, want 200 and an empty session", cookie, a.StatusCode, a.body)
		}
		if calls := s.take(); calls != "" {
			t.Errorf("%q: store calls %q, want none", cookie, calls)
		}
	}
	for _, cookie := range []string{raw, good, good + " ", `connect.sid="` + raw[12:] + `"`, "a=b; " + good + "; connect.sid=x", "connect.sid=x; " + good, ";;=;a;" + good} {
		if a := do(t, srv, "/show", cookie); a.body != `{"user":"anna"}`+"\n" {
			t.Errorf("%q opens %s, want anna's session", cookie, a.body)
		}
	}
	// F4, A16: we have signed these, but there is no such session, or it is outside the directory.
	for _, id := range []string{"fixated_id_0123456789", "../../x", "../" + idOf(t, good), "", "a/b", "CON", strings.Repeat("a", 300), "x\x00"} {
		before := len(storetest.Files(t, s.dir))
		a := do(t, srv, "/put?user=eve", signed(id))
		if a.StatusCode != 200 || idOf(t, cookieOf(a)) == id {
			t.Errorf("signed %q: status %d, cookie %q, want 200 and another id", id, a.StatusCode, cookieOf(a))
		}
		if n := len(storetest.Files(t, s.dir)); n != before+1 {
			t.Errorf("signed %q: %d new files, want 1", id, n-before)
		}
		if _, err := s.Store.Get(ctx, id); err == nil {
			t.Errorf("a new session got the id that the request brought, %q", id)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(s.dir)); len(entries) != 1 {
		t.Errorf("%d entries beside the store, want 1", len(entries))
	}
}

// F7: however large and many the cookies are, the work has a bound.
func TestManyCookies(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	h := m.Handler(http.HandlerFunc(show))
	for name, cookie := range map[string]string{
		"1 MiB value":    "connect.sid=s:" + strings.Repeat("a", 1<<20),
		"10,000 cookies": strings.Repeat("a=b; ", 10_000) + "connect.sid=s:x.y",
		"a million ;":    strings.Repeat(";", 1<<20),
		"a million %":    "connect.sid=s:" + strings.Repeat("%", 1<<20),
		"a million dots": "connect.sid=s:" + strings.Repeat(".", 1<<20),
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		start := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if d := time.Since(start); d > 10*time.Second || w.Body.String() != "{}\n" {
			t.Errorf("%s: %s after %v, want an empty session within 10 s", name, w.Body, d)
		}
	}
	if calls := s.take(); calls != "" {
		t.Errorf("store calls %q, want none", calls)
	}
}

// F3: an old secret verifies as long as it is in the list, and the first secret signs.
func TestRotation(t *testing.T) {
	s := newStore(t)
	handlers := map[string]http.HandlerFunc{"/put": put, "/show": show}
	old := serve(t, manager(s), handlers)
	cookie := cookieOf(do(t, old, "/put?a=1", ""))
	m := &session.Manager{Store: s, Secrets: []string{"a new secret", "another one", secret}}
	rotated := serve(t, m, handlers)
	if got := do(t, rotated, "/show", cookie).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("with the old secret in the list the cookie opens %s", got)
	}
	rolling := serve(t, &session.Manager{Store: s, Secrets: m.Secrets, Rolling: true}, handlers)
	fresh := cookieOf(do(t, rolling, "/show", cookie))
	if fresh == "" || fresh == cookie {
		t.Errorf("the response has the cookie %q, want it signed with the new secret", fresh)
	}
	removed := serve(t, &session.Manager{Store: s, Secrets: []string{"a new secret"}}, handlers)
	if got := do(t, removed, "/show", fresh).body; got != `{"a":"1"}`+"\n" {
		t.Errorf("a cookie signed with the first secret opens %s", got)
	}
	if got := do(t, removed, "/show", cookie).body; got != "{}\n" {
		t.Errorf("a cookie signed with a removed secret opens %s, want none", got)
	}
}

// A stored session keeps the cookie attributes from its file, and they are checked before they are sent.
func TestStoredCookie(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	m.Rolling = true
	m.Cookie = session.CookieOptions{MaxAge: time.Hour, SameSite: http.SameSiteStrictMode}
	var reported atomic.Int64
	m.ErrorFunc = func(http.ResponseWriter, *http.Request, error) { reported.Add(1) }
	srv := serve(t, m, map[string]http.HandlerFunc{"/none": none, "/app/none": none})
	for cookie, want := range map[string]string{
		`{"originalMaxAge":null,"expires":null,"httpOnly":false,"path":"/app","sameSite":true}`: "; Path=/app; SameSite=Strict",
		`{"originalMaxAge":null,"domain":"example.com","priority":"HIGH","partitioned":true}`:   "; Domain=example.com; Path=/; HttpOnly; Partitioned; Priority=High",
		`{"originalMaxAge":null,"path":null}`:                                                   "; HttpOnly",
		`{"originalMaxAge":null,"secure":true}`:                                                 "", // over plain HTTP
		`{"originalMaxAge":null,"path":"/; Domain=evil"}`:                                       "error",
		`{"originalMaxAge":null,"domain":"a;b"}`:                                                "error",
		`{"originalMaxAge":null,"sameSite":"never"}`:                                            "error",
		`{"originalMaxAge":null,"priority":"x\r\nSet-Cookie: a=b"}`:                             "error",
	} {
		reported.Store(0)
		doc := fmt.Sprintf(`{"cookie":%s,"__lastAccess":%d}`, cookie, time.Now().UnixMilli())
		os.WriteFile(filepath.Join(s.dir, "id.json"), []byte(doc), 0o600)
		got := do(t, srv, "/none", signed("id")).Header.Get("Set-Cookie")
		_, got, _ = strings.Cut(got, strings.TrimPrefix(signed("id"), "connect.sid="))
		if want == "error" {
			if got != "" || reported.Load() != 1 {
				t.Errorf("%s: cookie %q, want none, %d errors, want 1", cookie, got, reported.Load())
			}
		} else if got != want {
			t.Errorf("%s: %q, want %q", cookie, got, want)
		}
	}
}

// F11: the cookie is Secure over TLS, and X-Forwarded-Proto counts only with TrustProxy.
func TestSecure(t *testing.T) {
	for _, tt := range []struct {
		secure  session.Secure
		trust   bool
		tls     bool
		header  string
		want    string // "none", "plain", "secure"
		sameSit http.SameSite
	}{
		{session.SecureAuto, false, false, "", "plain", 0},
		{session.SecureAuto, false, false, "https", "plain", 0}, // a spoofed header is ignored
		{session.SecureAuto, true, false, "https", "secure", 0},
		{session.SecureAuto, true, false, " HTTPS , http", "secure", 0},
		{session.SecureAuto, true, false, "http, https", "plain", 0},
		{session.SecureAuto, false, true, "", "secure", 0},
		{session.SecureAlways, false, false, "", "none", 0},
		{session.SecureAlways, false, false, "https", "none", 0},
		{session.SecureAlways, true, false, "https", "secure", 0},
		{session.SecureAlways, false, true, "http", "secure", 0},
		{session.SecureNever, true, true, "https", "plain", 0},
		{session.SecureAuto, false, true, "", "secure", session.SameSiteAuto},
		{session.SecureAuto, false, false, "", "plain", session.SameSiteAuto},
	} {
		m := manager(newStore(t))
		m.TrustProxy = tt.trust
		m.Cookie.Secure, m.Cookie.SameSite = tt.secure, tt.sameSit
		h := m.Handler(http.HandlerFunc(put))
		r := httptest.NewRequest("GET", "http://example.com/?a=1", nil)
		if tt.tls {
			r = httptest.NewRequest("GET", "https://example.com/?a=1", nil)
		}
		if tt.header != "" {
			r.Header.Set("X-Forwarded-Proto", tt.header)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		cookie := w.Header().Get("Set-Cookie")
		got := "none"
		if strings.Contains(cookie, "; Secure") {
			got = "secure"
		} else if cookie != "" {
			got = "plain"
		}
		if got != tt.want {
			t.Errorf("%+v: the cookie is %q", tt, cookie)
		}
		if tt.sameSit == session.SameSiteAuto && strings.Contains(cookie, "SameSite=None") != tt.tls {
			t.Errorf("SameSiteAuto with TLS %v: %q", tt.tls, cookie)
		}
	}
}

// F12, F15: Handler refuses settings that cannot work, and its message shows no secret.
func TestRefusedConfiguration(t *testing.T) {
	s := sessiontest.NewStore()
	for name, m := range map[string]*session.Manager{
		"no store":         {Secrets: []string{secret}},
		"no secrets":       {Store: s},
		"empty secrets":    {Store: s, Secrets: []string{}},
		"empty secret":     {Store: s, Secrets: []string{""}},
		"short secret":     {Store: s, Secrets: []string{"hunter2"}},
		"empty old secret": {Store: s, Secrets: []string{secret, ""}},
		"name":             {Store: s, Secrets: []string{secret}, Name: "a b"},
		"name injection":   {Store: s, Secrets: []string{secret}, Name: "a=b;c"},
		"name newline":     {Store: s, Secrets: []string{secret}, Name: "a\r\n"},
		"path":             {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "/; Domain=x"}},
		"path newline":     {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "/\r\nX: y"}},
		"relative path":    {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Path: "x"}},
		"domain":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Domain: "a b"}},
		"domain injection": {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Domain: "a.com; Secure"}},
		"priority":         {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Priority: "urgent"}},
		"maxAge":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{MaxAge: -1}},
		"sameSite":         {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{SameSite: 9}},
		"secure":           {Store: s, Secrets: []string{secret}, Cookie: session.CookieOptions{Secure: 9}},
	} {
		if why := refused(m); why == "" || strings.Contains(why, "hunter2") || strings.Contains(why, secret) {
			t.Errorf("%s: Handler panics with %q, want a reason without the secret", name, why)
		}
	}
}
