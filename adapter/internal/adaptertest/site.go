package adaptertest

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var ctx = context.Background()

func init() { gob.Register([]any{}) }

// A Site is a framework that keeps its sessions in an adapter, and how it differs from others. Each
// difference is in the comment of the adapter's package.
type Site struct {
	Name    string                                                            // of the tests
	Start   func(s *filestore.Store, answer Answer) (url string, stop func()) // serves all paths
	Cookie  string                                                            // the name of the session's cookie
	Sign    func(id string) string                                            // the cookie's value for an id; nil: it is the id
	Life    time.Duration                                                     // of a session
	Values  map[any]any                                                       // come back as they were
	Garbage []string                                                          // a file's member "data" that the adapter cannot decode

	Visitor Visitor // who leaves nothing
	// Ids that a client has made up, two at least, and a session begins under each; nil: there are none.
	Adopts []string
	// In a cookie %41 is A.
	Unescapes bool
	// The answer to a cookie that the site cannot have set; 0: 200, with a new session.
	BadCookie int
	// The answer does not tell an error of storing the session: that comes after it, or the framework drops the error.
	Late bool
	// Each value is stored by itself, at once: what one request sets is not one change to others.
	ByValue bool
	// A login whose session has been destroyed meanwhile stores nothing, but is not an error.
	Quiet bool
	// The answer to such a login takes away the cookie that the browser has by then, or sets a useless one.
	Unsets bool
	// A session lives for its time after the last save, not after the last request.
	SaveRenews bool
	// What is changed in place is not stored.
	PutOnly bool
	// Of two requests at the same moment the later wins whole, also if it has changed nothing.
	NoMerge bool
	// A destroyed session leaves a file that says so, but the answer to a slow request sets its cookie again. One
	// that was removed otherwise comes back with the slow request.
	Buries bool
	// A destroyed session always comes back with a slow request.
	Returns bool
}

// A Visitor says what one who leaves nothing gets.
type Visitor int

const (
	Pending  Visitor = iota // an id, and no file
	Nameless                // nothing
	Stored                  // an id and a file
)

// A Session is the framework's session of one request.
type Session struct {
	ID     func() string
	Get    func(key any) any // nil if there is none
	Set    func(key, value any)
	Delete func(key any)
	Renew  func() error // gives the session a new id, as at a login
	End    func() error // destroys the session, as at a logout
	Save   func() error // nil if the framework saves by itself
}

// An Answer is what a site's handler makes of a request and its session.
type Answer func(path string, query func(name string) string, s Session) (code int, body string)

// Main is for TestMain. The test binary is also the other process of the sites.
func Main(m *testing.M, sites ...*Site) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	workers := make(map[string]func([]string))
	for _, x := range sites {
		workers[x.Name] = func(args []string) {
			s, err := filestore.Open(args[0], storetest.Quick())
			if err != nil {
				panic(err)
			}
			url, _ := x.Start(s, x.answer)
			fmt.Println(url)
			io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
		}
	}
	storetest.Work(workers)
	os.Exit(m.Run())
}

// Serve is Site.Start for a handler.
func Serve(h http.Handler) (url string, stop func()) {
	srv := httptest.NewServer(h)
	return srv.URL, srv.Close
}

// A request with wait=1 sends what it waits for, once it has its session.
var entered = make(chan chan struct{})

func (x *Site) answer(path string, query func(string) string, s Session) (code int, body string) {
	body, err := x.act(path, query, s)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return http.StatusConflict, err.Error()
	case err != nil:
		return http.StatusInternalServerError, err.Error()
	}
	return http.StatusOK, body
}

func (x *Site) act(path string, query func(string) string, s Session) (body string, err error) {
	s.Get("user") // some frameworks load the session only now
	if k := query("before"); k != "" {
		s.Set(k, "before")
	}
	if query("wait") != "" {
		leave := make(chan struct{})
		entered <- leave
		<-leave
	}
	get := func(key string) string {
		if v := s.Get(key); v != nil {
			return fmt.Sprint(v)
		}
		return ""
	}
	switch path {
	// These read.
	case "/get":
		return get(query("k")), nil
	case "/id":
		return s.ID(), nil
	case "/read":
		n, copied, padded := get("n"), get("copy"), get("pad")
		if x.ByValue { // then each is whole, whatever the others are
			n = strings.TrimRight(padded, "abcdefghijklmnopqrstuvwxyz")
			copied = n
		}
		if n == "" || copied != n || padded != pad(n) {
			return "n is " + n + ", copy " + copied, nil
		}
		return "whole", nil
	case "/compare":
		for k, want := range x.Values {
			if got := s.Get(k); !reflect.DeepEqual(got, want) {
				return fmt.Sprintf("%v is %#v, want %#v", k, got, want), nil
			}
		}
		return "the same", nil

	// And these write.
	case "/set":
		s.Set(query("k"), query("v"))
	case "/unset":
		s.Delete(query("k"))
	case "/count":
		n, _ := strconv.Atoi(get("n"))
		body = strconv.Itoa(n + 1)
		s.Set("n", body)
	case "/write":
		s.Set("n", query("n"))
		s.Set("copy", query("n"))
		s.Set("pad", pad(query("n")))
	case "/fill":
		for k, v := range x.Values {
			s.Set(k, v)
		}
	case "/list":
		s.Set("list", []any{"tea"})
	case "/inplace":
		s.Get("list").([]any)[0] = "mug"
	case "/login":
		if err = s.Renew(); err == nil {
			s.Set("user", query("user"))
		}
	case "/logout":
		s.Set("user", "changed on the way out")
		err = s.End()
	default:
		err = fmt.Errorf("no such path: %s", path)
	}
	if err == nil && s.Save != nil {
		err = s.Save()
	}
	return body, err
}

// pad is another one for each n, as what two requests have set to the same is merged.
func pad(n string) string {
	i, _ := strconv.Atoi(n)
	return n + strings.Repeat(string(rune('a'+i%26)), i*997%20_000)
}

// A place is a Site that is served on a directory.
type place struct {
	*Site
	t     *testing.T
	dir   string
	store *filestore.Store
	url   string
	stop  func()
}

// open serves x until stop, or the end of the test.
func (x *Site) open(t *testing.T, dir string, opts *filestore.Options) *place {
	t.Helper()
	p := &place{Site: x, t: t, dir: dir, store: storetest.Open(t, dir, storetest.Contested(dir, opts))}
	p.url, p.stop = x.Start(p.store, x.answer)
	t.Cleanup(func() { p.stop() })
	return p
}

// close ends what open has begun.
func (p *place) close() {
	p.t.Helper()
	p.stop()
	p.stop = func() {}
	if err := p.store.Close(); err != nil {
		p.t.Error(err)
	}
}

// another serves the directory in another process.
func (p *place) another() (url string, kill func()) {
	p.t.Helper()
	other := storetest.Start(p.t, p.Name, p.dir)
	return other.Line(p.t), other.Kill
}

// signs reports that an id is not a cookie.
func (x *Site) signs() bool { return x.Sign != nil && x.Sign("a") != "a" }

func (p *place) browser() *storetest.Browser { return storetest.NewBrowser(p.t, p.url) }

// with returns a browser with the cookie of the session id.
func (p *place) with(id string) *storetest.Browser { return p.browser().With(p.Cookie, p.cookie(id)) }

func (p *place) cookie(id string) string {
	if p.Sign == nil {
		return id
	}
	return p.Sign(id)
}

// login returns a browser whose user is logged in, its cookie, and the file of its session.
func (p *place) login(user string) (b *storetest.Browser, cookie, file string) {
	p.t.Helper()
	b = p.browser()
	b.Get("/login?user=" + user)
	return b, b.Cookie(p.Cookie), filepath.Join(p.dir, b.Get("/id")+".json")
}

// at is b at another address, with the same cookies.
func at(b *storetest.Browser, url string) *storetest.Browser {
	other := *b
	other.URL = url
	return &other
}

// alive reports that there is a session in file. What Site.Buries leaves is not one, and holds nothing.
func (p *place) alive(file string) bool {
	p.t.Helper()
	sess, err := p.store.Get(ctx, strings.TrimSuffix(filepath.Base(file), ".json"))
	if errors.Is(err, filestore.ErrNotFound) {
		return false
	}
	if err != nil {
		p.t.Errorf("Get: %v", err)
		return false
	}
	if _, dead := sess.Values["destroyed"]; dead && p.Buries {
		if len(sess.Values) != 1 {
			p.t.Errorf("a destroyed session has left %v", sess.Values)
		}
		return false
	}
	return true
}

// wantRenewed waits until the session in file was accessed just now: some frameworks store it after the answer.
func (p *place) wantRenewed(file string) {
	p.t.Helper()
	id := strings.TrimSuffix(filepath.Base(file), ".json")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		sess, err := p.store.Get(ctx, id)
		if err == nil && time.Since(sess.LastAccess) < 20*time.Second {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the session is not renewed: %+v, %v", sess, err)
		}
	}
}

// sessions returns how many are alive.
func (p *place) sessions() (n int) {
	p.t.Helper()
	for _, file := range storetest.Files(p.t, p.dir) {
		if p.alive(file) {
			n++
		}
	}
	return n
}

func (p *place) wantSessions(want int) {
	p.t.Helper()
	if n := p.sessions(); n != want {
		p.t.Errorf("%d sessions, want %d", n, want)
	}
}

// slowly makes a request, and calls meanwhile after its handler has got the session, before that goes on.
func slowly(b *storetest.Browser, path string, meanwhile func()) (code int, body string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, body = b.Do(path + "&wait=1")
	}()
	select {
	case leave := <-entered:
		meanwhile()
		close(leave)
	case <-done: // the handler has not got that far, which its answer tells
	}
	<-done
	return code, body
}
