package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

const secret = "keyboard cat"

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.Parallel(6)
	storetest.Main(m, workers)
}

type object = map[string]any

// A store has all the methods that the middleware can use.
type store interface {
	session.Store
	session.Toucher
	session.Updater
	session.Creator
	session.Lifer
	All(context.Context) iter.Seq2[filestore.Entry, error]
	Close() error
}

// An engine is what the tests must know of a database and of its two stores.
type engine struct {
	name  string
	npm   string                        // its name in driver.js
	start func(t testing.TB) string     // starts the server, and returns where it is
	node  func(addr string) object      // the options there
	open  func(addr string) (db, error) // connects Go

	objects       bool // the document is not text
	staleSaveEnds bool // a save of Node's with a cookie that has expired by its document destroys the session
}

// A db is Go's connection to a server.
type db struct {
	open  func(touchAfter time.Duration) (store, error)          // its other options are the defaults
	row   func(id string) (doc string, end time.Time, err error) // what is there, live or not; filestore.ErrNotFound
	close func()
}

var engines = []*engine{redisEngine, pgEngine, mysqlEngine, mongoEngine, objectsEngine}

// An env is an engine with its server and both clients.
type env struct {
	*engine
	db
	addr string
	n    *interop.Node
	num  int // its number in n
}

// Each engine's env lives until the tests end: to start a server can take seconds.
var shared struct {
	mu   sync.Mutex
	envs map[*engine]*env
}

// env returns e's env, which the first test makes.
func (e *engine) env(t *testing.T) *env {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if v := shared.envs[e]; v != nil {
		return v
	}
	l := storetest.Lasting(t)
	interop.NPM(l, ".")
	script, err := filepath.Abs("driver.js")
	must(t, err)
	v := &env{engine: e, addr: e.start(l)}
	v.db, err = e.open(v.addr)
	must(t, err)
	l.Cleanup(v.close)
	s, err := v.db.open(0) // which makes what the engine needs
	must(t, err)
	must(t, s.Close())
	v.n = interop.StartNode(l, l.TempDir(), script)
	must(t, v.n.Call("open", object{"name": e.npm, "options": e.node(v.addr)}, &v.num))
	if shared.envs == nil {
		shared.envs = make(map[*engine]*env)
	}
	shared.envs[e] = v
	return v
}

// each runs fn for each engine.
func each(t *testing.T, fn func(t *testing.T, v *env)) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			fn(t, e.env(t))
		})
	}
}

// must is for calls that must succeed.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// goStore opens a Store, until the end of the test.
func (v *env) goStore(t *testing.T, touchAfter time.Duration) store {
	t.Helper()
	s, err := v.db.open(touchAfter)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// A site is a running server, in Go or Node, with the route /run. It performs steps on the session of the request, and
// answers with the session after them.
type site struct{ name, url string }

// A step is the name of an operation on the session, and its arguments.
type step []any

// An answer is the response to a request to /run.
type answer struct {
	Status    int                        `json:"-"`
	SetCookie []string                   `json:"-"`
	ID        string                     `json:"id"`
	Session   map[string]json.RawMessage `json:"session"`
	Error     string                     `json:"error"`
}

var client = &http.Client{Timeout: 30 * time.Second}

func (s site) address(steps ...step) string {
	raw, err := json.Marshal(append([]step{}, steps...))
	if err != nil {
		panic(err) // the tests' own values
	}
	return s.url + "/run?" + url.Values{"steps": {string(raw)}}.Encode()
}

// run sends the steps to the site, which must perform them. cookie is the whole Cookie header.
func (s site) run(t testing.TB, cookie string, steps ...step) answer {
	t.Helper()
	a, err := s.try(cookie, steps...)
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("%s answers %v with %d %s, %v", s.name, steps, a.Status, a.Error, err)
	}
	return a
}

// try is run for steps that may fail.
func (s site) try(cookie string, steps ...step) (a answer, err error) {
	r, err := http.NewRequest("GET", s.address(steps...), nil)
	if err != nil {
		return a, err
	}
	r.Header.Set("X-Forwarded-Proto", "https") // for the sites that trust it
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	resp, err := client.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.Status, a.SetCookie = resp.StatusCode, resp.Header["Set-Cookie"]
	body, err := io.ReadAll(resp.Body)
	return a, errors.Join(err, json.Unmarshal(body, &a))
}

// pair returns the Set-Cookie as a browser would send it back, or "".
func (a answer) pair() string {
	for _, c := range a.SetCookie {
		if pair, _, _ := strings.Cut(c, ";"); !strings.HasSuffix(pair, "=") {
			return pair
		}
	}
	return ""
}

// begin lets the site make a session by the steps.
func (s site) begin(t testing.TB, steps ...step) (id, cookie string) {
	t.Helper()
	a := s.run(t, "", steps...)
	if a.pair() == "" {
		t.Fatalf("%s sets no cookie after %v", s.name, steps)
	}
	return a.ID, a.pair()
}

// sites returns an Express server and a Go server on one engine, with the same secrets.
func (v *env) sites(t *testing.T, s store, secrets ...string) [2]site {
	t.Helper()
	return [2]site{v.nodeSite(t, object{"secret": secrets}), goSite(t, &session.Manager{Store: s, Secrets: secrets})}
}

// nodeSite starts an Express application with these options of express-session.
func (v *env) nodeSite(t *testing.T, options object) site {
	t.Helper()
	var port int
	must(t, v.n.Call("app", object{"engine": v.num, "options": options}, &port))
	return site{"Node", fmt.Sprintf("http://127.0.0.1:%d", port)}
}

// goSite starts a server with package session. Its cookies have the attributes of express-session's defaults.
func goSite(t *testing.T, m *session.Manager) site {
	t.Helper()
	if m.Cookie.Secure == session.SecureAuto {
		m.Cookie.Secure = session.SecureNever
	}
	if m.Cookie.SameSite == 0 {
		m.Cookie.SameSite = http.SameSiteDefaultMode
	}
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		var steps []step
		err := json.Unmarshal([]byte(r.FormValue("steps")), &steps)
		for i := 0; i < len(steps) && err == nil; i++ {
			err = goStep(s, steps[i])
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			json.NewEncoder(w).Encode(object{"error": err.Error()})
			return
		}
		json.NewEncoder(w).Encode(object{"id": s.ID(), "session": s.Session})
	})))
	t.Cleanup(server.Close)
	return site{"Go", server.URL}
}

// goStep does the same as step in driver.js, except that a login keeps the session's values.
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
	case "maxAge":
		ms, _ := step[1].(float64) // null is none
		s.Cookie.OriginalMaxAge = time.Duration(ms) * time.Millisecond
		return nil
	case "save":
		return s.Save()
	case "regenerate":
		return s.Regenerate()
	case "login":
		return s.Login(step[1].(string))
	case "renew":
		return s.Renew()
	case "destroy":
		return s.Destroy()
	case "logout":
		return s.Logout()
	case "meanwhile":
		r, err := http.NewRequest("GET", step[1].(string), nil)
		if err != nil {
			return err
		}
		r.Header.Set("Cookie", step[2].(string))
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return fmt.Errorf("no step %v", step[0])
}
