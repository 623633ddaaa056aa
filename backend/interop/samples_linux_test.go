package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// A sample is a session that both sides make in the same way.
type sample struct {
	name  string
	node  object // options of express-session's cookie
	goes  session.CookieOptions
	steps []step
}

// The values are put in by the order of their names, because a new document of Go's is in that order, and Node's in that
// of the steps. They do not have U+2028 and U+2029, which Go escapes and Node does not.
var samples = []sample{
	{"plain", object{}, session.CookieOptions{},
		[]step{{"put", "user", object{"id": 7, "name": "Ærøskøbing <b> & \"é\" 😀"}}, {"put", "views", 1}}},
	{"maxAge", object{"maxAge": 3_600_000, "sameSite": "lax"}, session.CookieOptions{MaxAge: time.Hour, SameSite: http.SameSiteLaxMode},
		[]step{{"put", "views", 2}}},
	{"every attribute", object{"maxAge": 60_000, "secure": true, "partitioned": true, "priority": "high", "httpOnly": false, "domain": "example.com", "path": "/run", "sameSite": "strict"},
		session.CookieOptions{MaxAge: time.Minute, Secure: session.SecureAlways, Partitioned: true, Priority: "high", Readable: true, Domain: "example.com", Path: "/run", SameSite: http.SameSiteStrictMode},
		[]step{{"put", "views", 3}}},
	{"values", object{}, session.CookieOptions{},
		[]step{{"put", "a", nil}, {"put", "b", []any{}}, {"put", "c", object{}}, {"put", "d", []any{1, "two", object{"x": nil}, true}},
			{"put", "e", 1.5}, {"put", "f", 1e21}, {"put", "g", -1}, {"put", "h", 1 << 53}, {"put", "i", 1e-7}, {"put", "j", ""},
			{"put", "k", "\\ \" / \b\f\n\r\t\x01 \u007f </script> é 😀"}, {"put", "l l", "a name with a space"}, {"put", "ключ", 0.1}}},
}

// begin makes the sample's session at Node and at Go, and returns their ids.
func (v *env) begin(t *testing.T, s store, sample sample) (node, goes string) {
	t.Helper()
	m := &session.Manager{Store: s, Secrets: []string{secret}, Cookie: sample.goes, TrustProxy: true}
	n := object{"secret": secret, "cookie": sample.node, "proxy": true}
	node, _ = v.nodeSite(t, n).begin(t, sample.steps...)
	goes, _ = goSite(t, m).begin(t, sample.steps...)
	return node, goes
}

// document returns what the engine has.
func (v *env) document(t *testing.T, id string) string {
	t.Helper()
	doc, _, err := v.row(id)
	must(t, err)
	return doc
}

// nodeGet returns the session as Node's store returns it, in JSON as it would be text.
func (v *env) nodeGet(t *testing.T, id string) string {
	t.Helper()
	var raw json.RawMessage
	must(t, v.n.Call("get", object{"engine": v.num, "id": id}, &raw))
	return undefined.ReplaceAllString(string(raw), "")
}

// undefined are the members of the cookie that connect-mongo stores as null.
var undefined = regexp.MustCompile(`"(partitioned|priority|secure|domain)":null,|,"sameSite":null`)

// What Node has written is read by Go, and stays as it is byte for byte if Go does not change it.
func TestNodeWrites(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, -1)
		for _, sample := range samples {
			t.Run(sample.name, func(t *testing.T) {
				id, _ := v.begin(t, s, sample)
				wrote := v.document(t, id)
				text, one := wrote, "1"
				if v.objects {
					text, one = v.nodeGet(t, id), `{"$numberInt":"1"}`
				}
				sess, err := s.Get(ctx, id)
				must(t, err)
				doc, err := sess.Document()
				must(t, err)
				if string(doc) != text {
					t.Errorf("Document() = %s\nNode wrote   %s", doc, text)
				}
				must(t, s.Touch(ctx, id, nil))
				if got := v.document(t, id); got != wrote {
					t.Errorf("after Go's Touch there is %s\nNode wrote %s", got, wrote)
				}
				must(t, s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("zoë", 1) }))
				got, own := split(v.document(t, id))
				if want := strings.TrimSuffix(wrote, "}") + `,"zoë":` + one + "}"; got != want {
					t.Errorf("after Go's Put there is %s\nwant %s", got, want)
				}
				if !slices.Equal(own, []string{"__created"}) {
					t.Errorf("Go has added %q, want __created", own)
				}
			})
		}
	})
}

// What Go has written for a new session is what Node has written for the same one, byte for byte, except for __created.
func TestGoWrites(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, -1)
		for _, sample := range samples {
			t.Run(sample.name, func(t *testing.T) {
				node, goes := v.begin(t, s, sample)
				got, own := split(v.document(t, goes))
				if want := v.document(t, node); masked(got) != masked(want) {
					t.Errorf("Go writes   %s\nNode writes %s", got, want)
				}
				if !slices.Equal(own, []string{"__created"}) {
					t.Errorf("Go has added %q, want __created", own)
				}
				got, _ = split(v.nodeGet(t, goes))
				if want := v.nodeGet(t, node); masked(got) != masked(want) {
					t.Errorf("Node reads %s\nwant       %s", got, want)
				}
				a, err := s.Get(ctx, goes)
				must(t, err)
				b, err := s.Get(ctx, node)
				must(t, err)
				if d := a.Cookie.Expires.Sub(b.Cookie.Expires).Abs(); d > 10*time.Second || a.Cookie.Expires.IsZero() != b.Cookie.Expires.IsZero() {
					t.Errorf("expires is %v of Go and %v of Node", a.Cookie.Expires, b.Cookie.Expires)
				}
			})
		}
	})
}

// The members that Go writes for itself begin with two underscores, and these are all. Without them a login is what
// Express has after regenerate and req.session.user.
func TestMembersOfGo(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, -1)
		note := func(*http.Request) session.Note { return session.Note{Agent: "a browser", Addr: "192.0.2.0/24"} }
		plain := goSite(t, &session.Manager{Store: s, Secrets: []string{secret}})
		notes := goSite(t, &session.Manager{Store: s, Secrets: []string{secret}, Note: note})
		nodeID, _ := v.nodeSite(t, object{"secret": secret}).begin(t, step{"login", "anna"})
		want := v.document(t, nodeID)
		for _, test := range []struct {
			site  site
			then  []step // after the login
			names []string
		}{
			{plain, nil, []string{"__authenticated", "__created"}},
			{notes, nil, []string{"__authenticated", "__created", "__note"}},
			{plain, []step{{"renew"}}, []string{"__authenticated", "__created", "__origin"}},
			{notes, []step{{"renew"}}, []string{"__authenticated", "__created", "__note", "__origin"}},
		} {
			_, cookie := test.site.begin(t, step{"login", "anna"})
			doc := v.document(t, test.site.run(t, cookie, test.then...).ID)
			got, own := split(doc)
			if slices.Sort(own); got != want || !slices.Equal(own, test.names) {
				t.Errorf("after a login and %v there is %s with %q\nwant %s with %q", test.then, got, own, want, test.names)
			}
		}
	})
}

var ownMember = regexp.MustCompile(`,"(__\w+)":(\{[^{}]*\}|"[^"]*"|\d+)`)

// blanks are what an Update puts before the last brace. JSON ignores them.
var blanks = regexp.MustCompile(`[ \t]{16}}$`)

// split returns the document without the members of Go's own, and their names.
func split(doc string) (rest string, names []string) {
	doc = blanks.ReplaceAllString(doc, "}")
	for _, m := range ownMember.FindAllStringSubmatch(doc, -1) {
		names = append(names, m[1])
	}
	return ownMember.ReplaceAllString(doc, ""), names
}

var (
	expires = regexp.MustCompile(`"expires":("[^"]*"|\{"\$date":\{[^{}]*\}\})`)
	maxAge  = regexp.MustCompile(`("originalMaxAge":\D*)(\d+)`)
)

// masked returns the document without what depends on the moment. Node can lose a millisecond of the maxAge.
func masked(doc string) string {
	doc = maxAge.ReplaceAllStringFunc(doc, func(m string) string {
		parts := maxAge.FindStringSubmatch(m)
		ms, _ := strconv.Atoi(parts[2])
		return fmt.Sprint(parts[1], (ms+99)/100*100)
	})
	return expires.ReplaceAllString(doc, `"expires":"…"`)
}
