package interop

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// A vector is a signed cookie that Node has set.
type vector struct {
	secret, secretHex string
	id, name          string
	node              object                 // express-session's cookie options
	header            string                 // Set-Cookie
	options           *session.CookieOptions // nil if Go's server refuses the id or the secret
}

var vectors = []vector{
	{secret: secret, id: anID, name: "connect.sid", node: object{}, options: &session.CookieOptions{},
		header: `connect.sid=s%3A2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.o1ec9kD5x6UjLWKhJgWkG%2BuCLTTu2%2BSwTy7KsPF44nk; Path=/; HttpOnly`},
	{secret: "s3cr3t-ключ-🔑", id: "abcDEF_-0123456789abcDEF_-012345", name: "sid",
		node:    object{"path": "/app", "expires": "2030-01-01T00:00:00.000Z", "secure": true, "sameSite": "lax"},
		options: &session.CookieOptions{Path: "/app", Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Secure: session.SecureAlways, SameSite: http.SameSiteLaxMode},
		header:  `sid=s%3AabcDEF_-0123456789abcDEF_-012345.YPFM2THgGGqUu5QgbiQeCqY0T2xcTlP2oslWNaP4Jlg; Path=/app; Expires=Tue, 01 Jan 2030 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax`},
	{secret: secret, id: `a b/+="é~!*'().;`, name: "connect.sid", node: object{},
		header: `connect.sid=s%3Aa%20b%2F%2B%3D%22%C3%A9~!*'().%3B.8diJuJrqWyTlFYi564FoVQxbek5y5hO%2BE2enri2vMMY; Path=/; HttpOnly`},
	{secret: "k", id: "YH7h3CPKKWJa10-xJyEDqzbM56c8xblR", name: "__Host-sid",
		node:   object{"expires": "1970-01-01T00:00:00.000Z", "httpOnly": false, "secure": true, "sameSite": "none", "partitioned": true, "priority": "high"},
		header: `__Host-sid=s%3AYH7h3CPKKWJa10-xJyEDqzbM56c8xblR.bb6hlAmTId6FememldKlp0CH7ImDnz8j%2BnWk6FfbSMk; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure; Partitioned; Priority=High; SameSite=None`},
	{secretHex: "000102ff", id: "abc", name: "connect.sid", node: object{},
		header: `connect.sid=s%3Aabc.OwtLeIq3gRlzB4XCTgsWHSJBG26DTfXb7DJWRv5wyPQ; Path=/; HttpOnly`},
}

// key returns the secret as Go has it: bytes in a string.
func (v vector) key(t *testing.T) string {
	t.Helper()
	if v.secretHex == "" {
		return v.secret
	}
	b, err := hex.DecodeString(v.secretHex)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wireValue returns the value in a Set-Cookie header.
func wireValue(header string) string {
	pair, _, _ := strings.Cut(header, ";")
	_, value, _ := strings.Cut(pair, "=")
	return value
}

// https are the headers of a request that came over TLS, for a server that trusts proxies.
var https = http.Header{"X-Forwarded-Proto": {"https"}}

func TestCookieVectors(t *testing.T) {
	t.Parallel()
	n := driver(t)
	for i, v := range vectors {
		name := fmt.Sprintf("27 vector %d", i+1)
		t.Run(name, func(t *testing.T) {
			value := wireValue(v.header)
			plain, err := url.PathUnescape(value)
			if err != nil {
				t.Fatal(err)
			}
			signed := strings.TrimPrefix(plain, "s:")
			by := object{"value": v.id, "signed": signed, "secret": v.secret, "secretHex": v.secretHex}
			if got := session.Sign(v.id, v.key(t)); got != signed {
				t.Errorf("Sign() = %q, want %q", got, signed)
			}
			if got := call[string](t, n, "sign", by); got != signed {
				t.Errorf("Node signs %q, want %q", got, signed)
			}
			if got, ok := session.Unsign(signed, v.key(t)); got != v.id || !ok {
				t.Errorf("Unsign() = %q, %v, want %q", got, ok, v.id)
			}
			if got := call[any](t, n, "unsign", by); got != v.id {
				t.Errorf("Node unsigns %v, want %q", got, v.id)
			}
			if got := call[string](t, n, "cookie", by); got != value {
				t.Errorf("Node's cookie is %q, want %q", got, value)
			}

			o := object{"name": v.name, "cookie": v.node, "secret": v.secret, "proxy": true}
			a := nodeSite(t, n, object{"memory": true, "ids": []string{v.id}, "secretHex": v.secretHex, "session": o}).under(v).
				runTo(t, "", "", https, step{"put", "views", 1})
			if len(a.SetCookie) != 1 || a.SetCookie[0] != v.header {
				t.Errorf("Node sets %q\nwant %q", a.SetCookie, v.header)
			}
			if v.options == nil {
				return
			}
			m := &session.Manager{Store: open(t, t.TempDir(), nil), Secrets: []string{v.secret}, Name: v.name, Cookie: *v.options, TrustProxy: true,
				GenID: func(*http.Request) (string, error) { return v.id, nil }}
			b := goSite(t, m).under(v).runTo(t, "", "", https, step{"put", "views", 1})
			if len(b.SetCookie) != 1 || b.SetCookie[0] != v.header {
				t.Errorf("Go sets %q\nwant %q", b.SetCookie, v.header)
			}
		})
	}
}

// under returns the site below the vector's path. Elsewhere there is not a session.
func (s site) under(v vector) site {
	if path, ok := v.node["path"].(string); ok {
		s.url += path
	}
	return s
}

var expiresRE = regexp.MustCompile(`Expires=([^;]*)`)

// Go accepts and sets every cookie that was seen when the samples were made.
func TestSampleCookies(t *testing.T) {
	t.Parallel()
	n := driver(t)
	all, cookieSecret := manifest(t)
	seen := 0
	for _, s := range all {
		t.Run("27 and 33 "+s.Dir, func(t *testing.T) {
			for _, c := range s.Captures {
				for _, header := range c.SetCookie {
					seen++
					plain, err := url.PathUnescape(wireValue(header))
					if err != nil {
						t.Fatal(err)
					}
					signed := strings.TrimPrefix(plain, "s:")
					if got := session.Sign(s.SID, cookieSecret); got != signed {
						t.Errorf("Sign() = %q, want %q", got, signed)
					}
					if id, ok := session.Unsign(signed, cookieSecret); id != s.SID || !ok {
						t.Errorf("Unsign(%q) = %q, %v, want %q", signed, id, ok, s.SID)
					}
					if got := call[any](t, n, "unsign", object{"signed": session.Sign(s.SID, cookieSecret), "secret": cookieSecret}); got != s.SID {
						t.Errorf("Node unsigns %v, want %q", got, s.SID)
					}

					// The header has the expiry of the file, to the second.
					sess := checkText(t, string(c.File))
					told := ""
					if m := expiresRE.FindStringSubmatch(header); m != nil {
						told = m[1]
					}
					want := ""
					if !sess.Cookie.Expires.IsZero() {
						want = sess.Cookie.Expires.Format(http.TimeFormat)
					}
					if told != want {
						t.Errorf("Expires=%s, but the file has %v", told, sess.Cookie.Expires)
					}

					// A Go server with the same options sets the same cookie. The options are taken from the
					// cookie in the file.
					o := session.CookieOptions{MaxAge: sess.Cookie.OriginalMaxAge, Domain: sess.Cookie.Domain, Partitioned: sess.Cookie.Partitioned,
						Priority: sess.Cookie.Priority, Readable: !sess.Cookie.HTTPOnly,
						SameSite: map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode}[sess.Cookie.SameSite]}
					m := &session.Manager{Store: open(t, t.TempDir(), nil), Secrets: []string{cookieSecret}, Cookie: o,
						GenID: func(*http.Request) (string, error) { return s.SID, nil }}
					if o.Partitioned { // Node set it without Secure, which no browser accepts and Go refuses
						m.TrustProxy, m.Cookie.Secure = true, session.SecureAlways
					}
					a := goSite(t, m).runTo(t, "", "", https, step{"put", "views", 1})
					mask := func(h string) string {
						return strings.Replace(expiresRE.ReplaceAllString(h, "Expires=…"), "; Secure; Partitioned", "; Partitioned", 1)
					}
					if len(a.SetCookie) != 1 || mask(a.SetCookie[0]) != mask(header) {
						t.Errorf("Go sets %q\nwant %q", a.SetCookie, header)
					}
				}
			}
		})
	}
	if seen != 12 {
		t.Errorf("%d cookies in the manifest, want 12", seen)
	}
}

// With the same options both servers set the same cookie.
func TestSetCookie(t *testing.T) {
	t.Parallel()
	n := driver(t)
	hour := int(time.Hour / time.Millisecond)
	date := time.Date(2037, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		node   object
		goes   session.CookieOptions
		header http.Header
	}{
		{"none", object{}, session.CookieOptions{}, nil},
		{"httpOnly false", object{"httpOnly": false}, session.CookieOptions{Readable: true}, nil},
		{"path", object{"path": "/run"}, session.CookieOptions{Path: "/run"}, nil},
		{"domain", object{"domain": ".example.com"}, session.CookieOptions{Domain: ".example.com"}, nil},
		{"sameSite lax", object{"sameSite": "lax"}, session.CookieOptions{SameSite: http.SameSiteLaxMode}, nil},
		{"sameSite strict", object{"sameSite": "strict"}, session.CookieOptions{SameSite: http.SameSiteStrictMode}, nil},
		{"sameSite true", object{"sameSite": true}, session.CookieOptions{SameSite: http.SameSiteStrictMode}, nil},
		{"sameSite none over TLS", object{"sameSite": "none", "secure": true}, session.CookieOptions{SameSite: http.SameSiteNoneMode, Secure: session.SecureAlways}, https},
		{"sameSite auto", object{"sameSite": "auto"}, session.CookieOptions{SameSite: session.SameSiteAuto}, nil},
		{"sameSite auto over TLS", object{"sameSite": "auto", "secure": true}, session.CookieOptions{SameSite: session.SameSiteAuto, Secure: session.SecureAlways}, https},
		{"secure over TLS", object{"secure": true}, session.CookieOptions{Secure: session.SecureAlways}, https},
		{"secure over plain HTTP", object{"secure": true}, session.CookieOptions{Secure: session.SecureAlways}, nil},
		{"partitioned over TLS", object{"partitioned": true, "secure": true}, session.CookieOptions{Partitioned: true, Secure: session.SecureAlways}, https},
		{"priority low", object{"priority": "low"}, session.CookieOptions{Priority: "low"}, nil},
		{"priority in capitals", object{"priority": "MEDIUM"}, session.CookieOptions{Priority: "MEDIUM"}, nil},
		{"maxAge", object{"maxAge": hour}, session.CookieOptions{MaxAge: time.Hour}, nil},
		{"expires", object{"expires": date.Format("2006-01-02T15:04:05.000Z")}, session.CookieOptions{Expires: date}, nil},
		{"all", object{"maxAge": hour, "domain": "example.com", "path": "/", "httpOnly": true, "secure": true, "sameSite": "lax", "partitioned": true, "priority": "high"},
			session.CookieOptions{MaxAge: time.Hour, Domain: "example.com", Path: "/", Secure: session.SecureAlways, SameSite: http.SameSiteLaxMode, Partitioned: true, Priority: "high"}, https},
	} {
		t.Run("33 "+test.name, func(t *testing.T) {
			node := nodeSite(t, n, object{"memory": true, "ids": []string{anID}, "session": object{"cookie": test.node, "proxy": true}})
			goes := goSite(t, &session.Manager{Store: open(t, t.TempDir(), nil), Cookie: test.goes, TrustProxy: true,
				GenID: func(*http.Request) (string, error) { return anID, nil }})
			want := node.runTo(t, "", "", test.header, step{"put", "views", 1}).SetCookie
			got := goes.runTo(t, "", "", test.header, step{"put", "views", 1}).SetCookie
			if len(got) != len(want) || len(got) > 1 {
				t.Fatalf("Go sets %q, Node %q", got, want)
			}
			if len(got) == 0 {
				return
			}
			g, w := got[0], want[0]
			if _, ok := test.node["maxAge"]; ok { // counts from now, which may not be the same second for both
				var at [2]time.Time
				for i, h := range []*string{&g, &w} {
					m := expiresRE.FindStringSubmatch(*h)
					if m == nil {
						t.Fatalf("no Expires in %q", *h)
					}
					var err error
					if at[i], err = time.Parse(http.TimeFormat, m[1]); err != nil {
						t.Fatal(err)
					}
					*h = expiresRE.ReplaceAllString(*h, "Expires=…")
				}
				if d := at[0].Sub(at[1]).Abs(); d > 10*time.Second {
					t.Errorf("Expires are %v apart", d)
				}
			}
			if g != w {
				t.Errorf("Go sets %q\nNode    %q", g, w)
			}
		})
	}
}

// The same cookies open a session on both servers.
func TestCookieHeaders(t *testing.T) {
	t.Parallel()
	n := driver(t)
	dir := t.TempDir()
	store := open(t, dir, nil)
	for _, id := range []string{anID, "other"} {
		must(t, store.Set(ctx, id, goValues(t)))
	}
	const old = "the secret before"
	secrets := []string{secret, old}
	sites := []site{
		nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"secret": secrets}}),
		goSite(t, &session.Manager{Store: store, Secrets: secrets}),
	}
	raw := "s:" + session.Sign(anID, secret)
	mac := raw[strings.LastIndexByte(raw, '.')+1:]
	escaped := strings.TrimPrefix(signed(anID, secret), "connect.sid=")
	flip := func(s string, i int) string {
		b := []byte(s)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return string(b)
	}
	if !strings.ContainsAny(mac, "+/") {
		t.Fatalf("the MAC %s shows nothing of escapes", mac)
	}
	const is = "connect.sid="
	for _, test := range []struct {
		name, header, want string // want = the id of the session that is opened
	}{
		{"27 escaped", is + escaped, anID},
		{"27 not escaped", is + raw, anID},
		{"27 escaped in lower case", is + strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3A", "%3a").Replace(escaped), anID},
		{"27 every byte escaped", is + func() string {
			var b strings.Builder
			for i := range len(raw) {
				fmt.Fprintf(&b, "%%%02X", raw[i])
			}
			return b.String()
		}(), anID},
		{"27 escaped twice", is + url.QueryEscape(escaped), ""},
		{"27 a plus is a plus", is + strings.ReplaceAll(escaped, "%2B", "+"), anID},
		{"27 a plus is not a space", is + strings.ReplaceAll(escaped, "%2B", "%20"), ""},
		{"27 a malformed escape", is + raw + "%zz", ""},
		{"27 the first of a name counts", is + escaped + "; " + signed("other", secret), anID},
		{"27 the first of a name counts, the other way round", signed("other", secret) + "; " + is + escaped, "other"},
		{"27 quoted", is + `"` + escaped + `"`, anID},
		{"27 half quoted", is + `"` + escaped, ""},
		{"27 spaces and tabs", "a=b;\t connect.sid \t=  " + escaped + " \t;c=d", anID},
		{"27 no space", "a=b;" + is + escaped + ";c=d", anID},
		{"27 among others", `x="a; b"; y; =z; ` + is + escaped, anID},
		{"27 the name in capitals", "Connect.Sid=" + escaped, ""},
		{"27 the name as an ending", "xconnect.sid=" + escaped, ""},

		{"28 signed with the old secret", signed(anID, old), anID},
		{"28 signed with a secret that is gone", signed(anID, "a third secret"), ""},

		{"29 unsigned", is + anID, ""},
		{"29 unsigned with s:", is + "s:" + anID, ""},
		{"29 signed, without s:", is + strings.TrimPrefix(raw, "s:"), ""},
		{"29 JSON", is + `j:{"id":"` + anID + `"}`, ""},
		{"29 JSON, signed", is + "j:" + strings.TrimPrefix(raw, "s:"), ""},
		{"29 padded", is + raw + "=", ""},
		{"29 padded, escaped", is + escaped + "%3D", ""},
		{"29 base64url", is + strings.NewReplacer("+", "-", "/", "_").Replace(raw), ""},
		{"29 the MAC's first character", is + flip(raw, strings.LastIndexByte(raw, '.')+1), ""},
		{"29 the MAC's last character", is + flip(raw, len(raw)-1), ""},
		{"29 the same MAC in another encoding", is + raw[:len(raw)-1] + string(raw[len(raw)-1]+1), ""},
		{"29 the MAC cut short", is + raw[:len(raw)-1], ""},
		{"29 no MAC", is + "s:" + anID + ".", ""},
		{"29 the id", is + flip(raw, 3), ""},
		{"29 more after the MAC", is + raw + "x", ""},
		{"29 empty", is, ""},
		{"29 s:", is + "s:", ""},
		{"29 s:.", is + "s:.", ""},
		{"29 an empty id, signed", signed("", secret), ""},
		{"29 no cookie", "", ""},

		{"30 unknown, signed", signed("0123456789abcdefghijABCDEFGHIJ-_", secret), ""},
		{"30 unknown, signed, no id of Go's", signed("a b", secret), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, s := range sites {
				s.calls()
				a := s.run(t, test.header)
				opened := a.ID
				if a.ID != anID && a.ID != "other" {
					opened = ""
					if !newID.MatchString(a.ID) {
						t.Errorf("%s: new id %q is not express-session's form", s.name, a.ID)
					}
					if strings.Contains(test.header, a.ID) {
						t.Errorf("%s has adopted the id %q", s.name, a.ID)
					}
					if exists(dir, a.ID+".json") || len(a.SetCookie) > 0 {
						t.Errorf("%s has stored an empty session", s.name)
					}
				}
				if opened != test.want {
					t.Errorf("%s: %q opens %q, want %q", s.name, test.header, opened, test.want)
				}
				calls := s.calls()
				if test.want == "" && !strings.HasPrefix(test.name, "30") && len(calls) > 0 {
					t.Errorf("%s: the store was asked (%q) before the signature was known to be right", s.name, calls)
				}
			}
		})
	}

	t.Run("27 more than one Cookie header", func(t *testing.T) {
		for _, test := range []struct {
			headers []string
			want    string
		}{
			{[]string{"a=b", signed(anID, secret)}, anID},
			{[]string{signed(anID, secret), signed("other", secret)}, anID},
			{[]string{signed("other", secret), signed(anID, secret)}, "other"},
		} {
			for _, s := range sites {
				a := s.runTo(t, "", "", http.Header{"Cookie": test.headers})
				if a.ID != test.want && (test.want != "" || a.ID == anID || a.ID == "other") {
					t.Errorf("%s: %q opens %q, want %q", s.name, test.headers, a.ID, test.want)
				}
			}
		}
	})

	// Node takes the first cookie of a name, so that a stale or foreign cookie of another path or domain
	// locks its user out. Go takes the first that opens a session.
	t.Run("27 the first of a name is bad", func(t *testing.T) {
		for _, bad := range []string{is, is + "bad", signed(anID, "another secret"), signed("0123456789abcdefghijABCDEFGHIJ-_", secret)} {
			header := bad + "; " + signed(anID, secret)
			if a := sites[0].run(t, header); a.ID == anID {
				t.Errorf("node: %q opens %q", header, a.ID)
			}
			if a := sites[1].run(t, header); a.ID != anID {
				t.Errorf("go: %q opens %q, want %q", header, a.ID, anID)
			}
		}
	})

	// Node compares paths as texts, so that /app is below /ap. Browsers send no cookie there.
	t.Run("33 the path of another directory", func(t *testing.T) {
		node := nodeSite(t, n, object{"memory": true, "session": object{"cookie": object{"path": "/ap"}}})
		goes := goSite(t, &session.Manager{Store: open(t, t.TempDir(), nil), Cookie: session.CookieOptions{Path: "/ap"}})
		node.url, goes.url = node.url+"/app", goes.url+"/app"
		if a := node.run(t, "", step{"put", "views", 1}); len(a.SetCookie) != 1 {
			t.Errorf("node: Set-Cookie %q", a.SetCookie)
		}
		if a := goes.run(t, "", step{"put", "views", 1}); len(a.SetCookie) != 0 || a.Status != http.StatusInternalServerError { // there is not a session for the value
			t.Errorf("go: status %d, Set-Cookie %q", a.Status, a.SetCookie)
		}
	})

	// Behind a proxy that ends TLS and is not trusted no cookie is sent. Node stores a session all the same,
	// one for each request.
	t.Run("33 a cookie that cannot be sent", func(t *testing.T) {
		node := nodeSite(t, n, object{"memory": true, "session": object{"cookie": object{"secure": true}}})
		goes := goSite(t, &session.Manager{Store: open(t, t.TempDir(), nil), Cookie: session.CookieOptions{Secure: session.SecureAlways}})
		for s, want := range map[*site]string{&node: "set", &goes: ""} {
			a := s.run(t, "", step{"put", "views", 1})
			if calls := strings.Join(s.calls(), " "); a.Status != 200 || len(a.SetCookie) != 0 || calls != want {
				t.Errorf("%s: status %d, Set-Cookie %q, the store's calls are %q, want %q", s.name, a.Status, a.SetCookie, calls, want)
			}
		}
	})

	// Both open the same session for any header.
	t.Run("27 random headers", func(t *testing.T) {
		const seed = 1_795_249_098
		rnd := rand.New(rand.NewPCG(seed, 0))
		bits := []string{is, escaped, raw, "s:", "s%3A", anID, mac, ".", "%", "%2", "%2B", "%00", "%ff", "%C3%A9", "%E2", "+", "=", ";", "; ", " ", "\t", `"`, ",", "connect.sid", "x=y", "other", "j:"}
		opened := 0
		for range 250 {
			var header string
			switch rnd.IntN(2) {
			case 0: // a good one, spoilt or not
				header = []string{is + escaped, is + raw, signed("other", secret)}[rnd.IntN(3)]
				for range rnd.IntN(3) {
					i := rnd.IntN(len(header) + 1)
					header = header[:i] + bits[rnd.IntN(len(bits))] + header[i:]
				}
				header = strings.Repeat("x=y; ", rnd.IntN(2)) + header + strings.Repeat(" ;a=b", rnd.IntN(2))
			default:
				for range rnd.IntN(8) {
					header += bits[rnd.IntN(len(bits))]
				}
			}
			var ids []string
			for _, s := range sites {
				id := s.run(t, header).ID
				if id != anID && id != "other" {
					id = ""
				}
				ids = append(ids, id)
			}
			if ids[0] != ids[1] {
				t.Errorf("seed %d: %q opens %q in Node and %q in Go", seed, header, ids[0], ids[1])
			}
			if ids[0] != "" {
				opened++
			}
		}
		if opened < 30 || opened > 200 {
			t.Errorf("%d of 250 headers open a session: they tell little", opened)
		}
		t.Logf("seed %d: %d of 250 open a session", seed, opened)
	})

	t.Run("28 a cookie that is set again is signed with the first secret", func(t *testing.T) {
		rolling := []site{
			nodeSite(t, n, object{"options": object{"path": dir}, "session": object{"secret": secrets, "rolling": true}}),
			goSite(t, &session.Manager{Store: store, Secrets: secrets, Rolling: true}),
		}
		for _, s := range rolling {
			if got := s.run(t, signed(anID, old)).pair(t); got != signed(anID, secret) {
				t.Errorf("%s sets %q, want %q", s.name, got, signed(anID, secret))
			}
		}
	})

	t.Run("30 an unknown id is never adopted when something is put in", func(t *testing.T) {
		for _, s := range sites {
			unknown := "unknown0123456789abcdefghijABCDE"
			a := s.run(t, signed(unknown, secret), step{"put", "views", 1})
			if a.ID == unknown || exists(dir, unknown+".json") || !exists(dir, a.ID+".json") {
				t.Errorf("%s: id %q, file of the unknown id %v", s.name, a.ID, exists(dir, unknown+".json"))
			}
			if got := a.pair(t); got != signed(a.ID, secret) {
				t.Errorf("%s sets %q", s.name, got)
			}
		}
	})

	t.Run("32 ids are express-session's form", func(t *testing.T) {
		seen := make(map[string]bool)
		for range 100 {
			for _, s := range sites {
				id := s.run(t, "").ID
				if !newID.MatchString(id) || seen[id] || !filestore.ValidID(id) {
					t.Errorf("%s: id %q", s.name, id)
				}
				seen[id] = true
			}
		}
	})
}

var newID = regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`)
