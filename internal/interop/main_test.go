package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// A number at the beginning of a subtest's name, such as "05", is a row of "Beside Node" in docs/HAZARDS.md.

const secret = "keyboard cat"

// anID is an id that express-session could have made.
const anID = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.InMemory()
	storetest.Main(m, nil)
}

// driver starts driver.js in a directory of its own, until the end of the test.
func driver(t *testing.T) *Node {
	t.Helper()
	NPM(t, ".")
	script, err := filepath.Abs("driver.js")
	if err != nil {
		t.Fatal(err)
	}
	return StartNode(t, t.TempDir(), script)
}

// call is Node.Call for a call that must succeed.
func call[T any](t *testing.T, n *Node, op string, args any) T {
	t.Helper()
	var v T
	if err := n.Call(op, args, &v); err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return v
}

// must is for Go calls that must succeed.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

// A nodeStore is a FileStore in the driver.
type nodeStore struct {
	n   *Node
	num int
}

func nodeOpen(t *testing.T, n *Node, dir string, options object) nodeStore {
	t.Helper()
	o := object{"path": dir}
	for k, v := range options {
		o[k] = v
	}
	return nodeStore{n, call[int](t, n, "open", o)}
}

// get returns the session as JSON that Node wrote, "null" if there is none.
func (s nodeStore) get(id string) (json.RawMessage, error) {
	var raw json.RawMessage
	err := s.n.Call("get", object{"store": s.num, "sid": id}, &raw)
	return raw, err
}

func (s nodeStore) set(id string, doc any) error {
	return s.n.Call("set", object{"store": s.num, "sid": id, "session": doc}, nil)
}

func (s nodeStore) touch(id string, doc any) error {
	return s.n.Call("touch", object{"store": s.num, "sid": id, "session": doc}, nil)
}

func (s nodeStore) destroy(id string) error {
	return s.n.Call("destroy", object{"store": s.num, "sid": id}, nil)
}

func (s nodeStore) reap() error {
	return s.n.Call("reap", object{"store": s.num}, nil)
}

// open opens a Store whose end is checked. Many of these tests leave files that do not hold a session.
func open(t *testing.T, dir string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	var o filestore.Options
	if opts != nil {
		o = *opts
	}
	if o.ReapInterval == 0 {
		o.ReapInterval = -1
	}
	o.NoSync = true
	o.Logger = slog.New(slog.DiscardHandler)
	return storetest.OpenDamaged(t, dir, &o)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// plant writes a file with mode 0644, as Node does.
func plant(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// doc returns the document of a session with the given last access.
func doc(lastAccess time.Time, members string) string {
	if members != "" {
		members += ","
	}
	return fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},%s"__lastAccess":%d}`,
		members, lastAccess.UnixMilli())
}

// decode parses JSON and keeps the digits of numbers.
func decode(t *testing.T, text []byte) object {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v object
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// sameValues reports members of a and b that differ, except __lastAccess and cookie.
func sameValues(t *testing.T, what string, a, b []byte) {
	t.Helper()
	x, y := decode(t, a), decode(t, b)
	for _, v := range []object{x, y} {
		delete(v, "cookie")
		delete(v, "__lastAccess")
	}
	if !reflect.DeepEqual(x, y) {
		t.Errorf("%s: values are %v, want %v", what, x, y)
	}
}

// A site is a running server, in Go or Node, with the route /run. It performs steps on the session of the
// request, and answers with the session after them.
type site struct {
	name  string
	url   string
	calls func() []string // returns the methods of the store that were called since the last time
}

// A step is the name of an operation on the session, and its arguments.
type step []any

var steps = func(s ...step) []step { return s }

// An answer is the response to a request to /run.
type answer struct {
	Status    int
	Location  string
	SetCookie []string
	Server    string                     `json:"server"`
	ID        string                     `json:"id"`
	Session   map[string]json.RawMessage `json:"session"`
	Error     string                     `json:"error"`
}

// value returns the session's member key as JSON, "" if there is none.
func (a answer) value(key string) string { return string(a.Session[key]) }

var client = &http.Client{
	Timeout:       callTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// run sends the steps to the site. cookie is the whole Cookie header.
func (s site) run(t *testing.T, cookie string, steps ...step) answer {
	t.Helper()
	return s.runTo(t, cookie, "", nil, steps...)
}

// runTo is run with a redirect as the answer, and with more request headers.
func (s site) runTo(t *testing.T, cookie, to string, header http.Header, steps ...step) answer {
	t.Helper()
	raw, err := json.Marshal(append([]step{}, steps...))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("GET", s.url+"/run?"+url.Values{"steps": {string(raw)}, "to": {to}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	a := answer{Status: resp.StatusCode, Location: resp.Header.Get("Location"), SetCookie: resp.Header["Set-Cookie"]}
	if to == "" || a.Status != http.StatusFound {
		json.Unmarshal(body, &a)
	}
	if s.name == "go" {
		for i := range a.SetCookie {
			a.SetCookie[i] = withoutMaxAge(t, a.SetCookie[i])
		}
	}
	return a
}

var maxAgeRE = regexp.MustCompile(`; Max-Age=([0-9]+)`)

// withoutMaxAge removes Max-Age from Go's Set-Cookie. Node sends only Expires, which depends on the clock of
// the client. The rest must be the same, byte for byte.
func withoutMaxAge(t *testing.T, header string) string {
	t.Helper()
	expires, maxAge := expiresRE.FindStringSubmatch(header), maxAgeRE.FindStringSubmatch(header)
	if (expires == nil) != (maxAge == nil) {
		t.Errorf("Go sets %q: one of Expires and Max-Age without the other", header)
	}
	if expires == nil || maxAge == nil {
		return header
	}
	at, err := time.Parse(http.TimeFormat, expires[1])
	must(t, err)
	seconds, err := strconv.Atoi(maxAge[1])
	must(t, err)
	if d := time.Duration(seconds)*time.Second - max(0, time.Until(at)); d.Abs() > 10*time.Second {
		t.Errorf("Go sets %q: Max-Age and Expires are %v apart", header, d)
	}
	return maxAgeRE.ReplaceAllString(header, "")
}

// pair returns the first Set-Cookie as a browser would send it back.
func (a answer) pair(t *testing.T) string {
	t.Helper()
	if len(a.SetCookie) == 0 {
		t.Fatalf("no Set-Cookie in the answer %+v", a)
	}
	pair, _, _ := strings.Cut(a.SetCookie[0], ";")
	return pair
}

// signed returns the Cookie header for the session id.
func signed(id, secret string) string {
	return "connect.sid=" + url.QueryEscape("s:"+session.Sign(id, secret)) // the same as encodeURIComponent for these ids
}

// nodeSite starts an Express app in the driver. See app in driver.js.
func nodeSite(t *testing.T, n *Node, args object) site {
	t.Helper()
	s, ok := args["session"].(object)
	if !ok {
		s = object{}
	}
	if _, ok := s["secret"]; !ok {
		s["secret"] = secret
	}
	args["session"] = s
	started := call[struct{ App, Port int }](t, n, "app", args)
	return site{"node", fmt.Sprintf("http://127.0.0.1:%d", started.Port), func() []string {
		return call[[]string](t, n, "calls", started.App)
	}}
}

// goSite starts a server with package session. Without Secrets it has the secret of the tests. Its cookies
// have the attributes of express-session's defaults.
func goSite(t *testing.T, m *session.Manager) site {
	t.Helper()
	if m.Secrets == nil {
		m.Secrets = []string{secret}
	}
	if m.Cookie.Secure == session.SecureAuto {
		m.Cookie.Secure = session.SecureNever
	}
	if m.Cookie.SameSite == 0 {
		m.Cookie.SameSite = http.SameSiteDefaultMode
	}
	rec := &recorder{Store: m.Store.(store)}
	m.Store = rec
	run := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		var steps []step
		err := json.Unmarshal([]byte(r.FormValue("steps")), &steps)
		for i := 0; i < len(steps) && err == nil; i++ {
			err = goStep(s, steps[i])
		}
		if err != nil {
			http.Error(w, `{"error":"a step"}`, http.StatusInternalServerError)
			return
		}
		if to := r.FormValue("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		json.NewEncoder(w).Encode(object{"server": "go", "id": s.ID(), "session": s.Session})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /run", run)
	mux.HandleFunc("GET /app/run", run)
	server := httptest.NewServer(m.Handler(mux))
	t.Cleanup(server.Close)
	return site{"go", server.URL, rec.take}
}

// goStep does the same as step in driver.js.
func goStep(s *session.Session, step step) error {
	switch step[0] {
	case "put":
		return s.Put(step[1].(string), step[2])
	case "delete":
		s.Delete(step[1].(string))
		return nil
	case "count":
		n, err := session.Value[int](s, step[1].(string))
		if err != nil {
			return err
		}
		return s.Put(step[1].(string), n+1)
	case "save":
		return s.Save()
	case "reload":
		return s.Reload()
	case "regenerate":
		return s.Regenerate()
	case "destroy":
		return s.Destroy()
	case "maxAge":
		s.Cookie.OriginalMaxAge = time.Duration(step[1].(float64)) * time.Millisecond
		return nil
	}
	return fmt.Errorf("no step %v", step[0])
}
