package session_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// FORMAT 2.5: what cookie-signature 1.0.7 makes of these.
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
			t.Errorf("Unsign(%q) = %q, %v", signed, got, ok)
		}
		for _, bad := range []string{signed + "=", signed[:len(signed)-1], signed + "A", tt.value, "", ".", tt.value + ".", strings.ReplaceAll(signed, "+", "-") + "x"} {
			if got, ok := session.Unsign(bad, tt.secret); ok || got != "" {
				t.Errorf("Unsign(%q) = %q, %v", bad, got, ok)
			}
		}
		if _, ok := session.Unsign(signed); ok {
			t.Error("Unsign without secrets succeeded")
		}
	}
}

// F2: no mutation is accepted.
func TestMutatedSignatures(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=."
	good := session.Sign("2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", secret)
	for range 10_000 {
		b := []byte(good)
		for range 1 + rand.N(3) {
			b[rand.N(len(b))] = alphabet[rand.N(len(alphabet))]
		}
		if _, ok := session.Unsign(string(b), secret); ok && !bytes.Equal(b, []byte(good)) {
			t.Fatalf("accepted %q", b)
		}
	}
	// Every alternative encoding of the last base64 digit, whose two low bits say nothing.
	for _, c := range alphabet {
		if alt := good[:len(good)-1] + string(c); alt != good {
			if _, ok := session.Unsign(alt, secret); ok {
				t.Errorf("accepted %q", alt)
			}
		}
	}
}

// F5: in this package a MAC is compared in constant time or not at all.
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
					t.Error("bytes is used in Unsign")
				}
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					t.Error("== in Unsign")
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

// 33: attributes, their order and spelling are Node's.
func TestSetCookie(t *testing.T) {
	const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"
	const head = "connect.sid=s%3A2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.o1ec9kD5x6UjLWKhJgWkG%2BuCLTTu2%2BSwTy7KsPF44nk"
	expires := func(d time.Duration) string {
		return "; Expires=" + time.Now().Add(d).UTC().Format(http.TimeFormat)
	}
	for _, tt := range []struct {
		o    session.CookieOptions
		want func() string
	}{
		{session.CookieOptions{}, func() string { return "; Path=/; HttpOnly; SameSite=Lax" }},
		{session.CookieOptions{SameSite: http.SameSiteDefaultMode}, func() string { return "; Path=/; HttpOnly" }},
		{session.CookieOptions{SameSite: http.SameSiteDefaultMode, Readable: true}, func() string { return "; Path=/" }},
		{session.CookieOptions{MaxAge: time.Hour}, func() string { return "; Path=/" + expires(time.Hour) + "; HttpOnly; SameSite=Lax" }},
		{session.CookieOptions{Expires: time.Now().Add(48 * time.Hour)}, func() string { return "; Path=/" + expires(48*time.Hour) + "; HttpOnly; SameSite=Lax" }},
		{session.CookieOptions{Path: "/app", Domain: "example.com", MaxAge: time.Minute, Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true, Priority: "high"},
			func() string {
				return "; Domain=example.com; Path=/app" + expires(time.Minute) + "; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None"
			}},
		{session.CookieOptions{SameSite: http.SameSiteStrictMode, Priority: "Low", Secure: session.SecureNever}, func() string { return "; Path=/; HttpOnly; Priority=Low; SameSite=Strict" }},
	} {
		ok := false
		var got, want string
		for range 3 { // the second may turn meanwhile
			m := manager(&memory{m: make(map[string]*filestore.Session)})
			m.Cookie = tt.o
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
	// Added to other cookies, not in their place.
	m := manager(&memory{m: make(map[string]*filestore.Session)})
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
		put(w, r)
	})).ServeHTTP(w, httptest.NewRequest("GET", "/?a=1", nil))
	if c := w.Header()["Set-Cookie"]; len(c) != 2 || !strings.HasPrefix(c[0], "other=") {
		t.Errorf("cookies %q", c)
	}
}

// No header panics or is taken for a session that we did not sign.
func FuzzCookieHeader(f *testing.F) {
	const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"
	for _, seed := range []string{signed(id), "connect.sid=s:" + session.Sign(id, secret), "a=b; " + signed("x"), `connect.sid="s:`, "connect.sid=%73%3A.", ";;==;"} {
		f.Add(seed)
	}
	looked := ""
	m := manager(lookFunc(func(id string) { looked = id }))
	h := m.Handler(http.HandlerFunc(none))
	f.Fuzz(func(t *testing.T, header string) {
		looked = ""
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", header)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if looked != "" && looked != id && looked != "x" {
			t.Errorf("looked up %q for %q", looked, header)
		}
	})
}

func FuzzSign(f *testing.F) {
	f.Add("value", "secret", 0, byte(0))
	f.Add("a.b", "", 3, byte(1))
	f.Fuzz(func(t *testing.T, value, secret string, at int, flip byte) {
		s := session.Sign(value, secret)
		if got, ok := session.Unsign(s, secret); got != value || !ok {
			t.Errorf("Unsign(Sign(%q)) = %q, %v", value, got, ok)
		}
		if flip != 0 && len(s) > 0 {
			b := []byte(s)
			b[uint(at)%uint(len(b))] ^= flip
			if got, ok := session.Unsign(string(b), secret); ok {
				t.Errorf("accepted %q for %q as %q", b, s, got)
			}
		}
		session.Unsign(value, secret)
	})
}
