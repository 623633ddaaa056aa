package browser

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	window "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

// Every wait of a browser has this bound, so that a page that does not come fails its test.
const patience = 60 * time.Second

// shared is the browser of all tests: each visitor has cookies of their own, and a start takes a second.
var shared struct {
	once sync.Once
	ctx  context.Context
	err  error
	end  func()
}

// chromium returns the browser. Each tab of it is a visitor with cookies of their own. With options it is one of the test's
// own.
func chromium(t testing.TB, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		skip.Test(t, "NOT LOOKED AT: there is no chromium")
	}
	if len(more) > 0 {
		ctx, end, err := launch(path, more...)
		if err != nil {
			t.Fatalf("chromium does not start: %v", err)
		}
		t.Cleanup(end)
		return ctx
	}
	shared.once.Do(func() { shared.ctx, shared.end, shared.err = launch(path) })
	if shared.err != nil {
		t.Fatalf("chromium does not start: %v", shared.err)
	}
	return shared.ctx
}

// launch starts a browser. Its caller calls end.
func launch(path string, more ...chromedp.ExecAllocatorOption) (ctx context.Context, end func(), err error) {
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		return nil, nil, err
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(dir),
		chromedp.NoSandbox, // the tests may run as root
		chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("font-render-hinting", "none"), chromedp.WSURLReadTimeout(patience))
	allocator, cancel1 := chromedp.NewExecAllocator(context.Background(), append(opts, more...)...)
	ctx, cancel2 := chromedp.NewContext(allocator)
	end = func() {
		chromedp.Cancel(ctx)
		cancel2()
		cancel1()
		os.RemoveAll(dir)
	}
	if err := chromedp.Do(ctx); err != nil {
		end()
		return nil, nil, err
	}
	return ctx, end, nil
}

// A visitor is a browser with cookies of its own.
type visitor struct {
	t   testing.TB
	ctx context.Context

	refused string // a status that the visitor's requests are meant to meet, as the browser complains of it: "status of 403"

	mu         sync.Mutex
	complaints []string // of the browser: violations of the policy, errors of scripts
}

// visit opens a new tab for a visitor. No complaint of the browser may be left when the test ends.
func visit(t testing.TB, browser context.Context, actions ...action) *visitor {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	v := &visitor{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(ev any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		switch ev := ev.(type) {
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError || ev.Entry.Source == log.EntrySourceSecurity {
				v.complaints = append(v.complaints, ev.Entry.Text+" "+ev.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			v.complaints = append(v.complaints, ev.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(v, log.Enable, cdp.Empty{})
	v.do(append([]action{chromedp.EmulateViewport(1280, 900)}, actions...)...)
	t.Cleanup(func() {
		for _, c := range v.complained() {
			if v.refused == "" || !strings.Contains(c, v.refused) {
				t.Errorf("the browser complains: %s", c)
			}
		}
		cancel()
	})
	return v
}

// complained returns the complaints, and forgets them.
func (v *visitor) complained() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.complaints
	v.complaints = nil
	return c
}

type action = chromedp.Action[chromedp.Void]

// get runs an action that has a result.
func get[T any](v *visitor, a chromedp.Action[T]) T {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	got, err := chromedp.Run(ctx, a)
	if err != nil {
		v.t.Fatal(err)
	}
	return got
}

// call sends a command to the browser.
func call[P, R any](v *visitor, cmd cdp.Command[P, R], params P) R {
	v.t.Helper()
	return get(v, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, cmd, params) })
}

// scriptless switches JavaScript off.
func (v *visitor) scriptless() {
	v.t.Helper()
	call(v, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// window minimizes the visitor's window, so that the page is hidden, or brings it back.
func (v *visitor) window(state window.WindowState) {
	v.t.Helper()
	id := call(v, window.GetWindowForTarget, window.GetWindowForTargetParams{}).WindowID
	call(v, window.SetWindowBounds, window.SetWindowBoundsParams{WindowID: id, Bounds: &window.Bounds{WindowState: state}})
	want := state == window.WindowStateMinimized
	v.until("the page is hidden or not", func() bool { return ask[bool](v, "document.hidden") == want })
}

func (v *visitor) do(actions ...action) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

func (v *visitor) open(url string) {
	v.t.Helper()
	v.do(chromedp.Navigate(url))
}

// click clicks on the first element that sel selects, again if a live page puts another one in its place just then.
func (v *visitor) click(sel string) {
	v.t.Helper()
	v.again(sel, chromedp.Click(chromedp.CSS(sel), chromedp.NodeVisible))
}

// keys types into the first element that sel selects, also if another page is just coming.
func (v *visitor) keys(sel, text string) {
	v.t.Helper()
	v.again(sel, chromedp.SendKeys(chromedp.CSS(sel), text))
}

// again does what it does to the element sel, again if the element goes just then.
func (v *visitor) again(sel string, do action) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	for {
		err := chromedp.Do(ctx, do)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "node with given id") {
			v.t.Fatalf("%s: %v", sel, err)
		}
	}
}

// ask evaluates an expression, again if the page changes just then.
func ask[T any](v *visitor, expression string) (got T) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	for {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
		if err == nil {
			return got
		}
		if ctx.Err() != nil {
			v.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// location is the address of the page, also if another page is just coming.
func (v *visitor) location() string {
	v.t.Helper()
	return ask[string](v, "location.href")
}

// text is the text of the first element that sel selects, when it is there.
func (v *visitor) text(sel string) (s string) {
	v.t.Helper()
	v.until("an element "+sel, func() bool {
		found := ask[[]string](v, fmt.Sprintf("[...document.querySelectorAll(%q)].slice(0, 1).map(e => e.textContent)", sel))
		if len(found) > 0 {
			s = found[0]
		}
		return len(found) > 0
	})
	return s
}

// count is the number of elements that sel selects now.
func (v *visitor) count(sel string) int {
	v.t.Helper()
	return ask[int](v, fmt.Sprintf("document.querySelectorAll(%q).length", sel))
}

// until waits for ok.
func (v *visitor) until(what string, ok func() bool) {
	v.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			v.t.Fatalf("not within %v: %s, at %s", patience, what, v.location())
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)

// A site has the pages at two paths, behind a session.
type site struct {
	*httptest.Server
	store   *filestore.Store
	dir     string
	manager *session.Manager
}

func newSite(t testing.TB, o *sessionui.Options, d *sessionui.DevicesOptions) *site {
	t.Helper()
	s := &site{dir: filepath.Join(t.TempDir(), "sessions")}
	var err error
	if s.store, err = filestore.Open(s.dir, &filestore.Options{ReapInterval: -1, NoSync: true, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	s.manager = &session.Manager{
		Store: s.store, Secrets: []string{"a secret of the tests"}, Cookie: session.CookieOptions{MaxAge: 24 * time.Hour},
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: session.Network(r.RemoteAddr)}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	opts := *o
	opts.Context, opts.Logger = ctx, quiet
	mux := http.NewServeMux()
	mux.Handle("/admin/sessions/", sessionui.Operator(s.store, &opts))
	mux.Handle("/account/devices/", sessionui.Devices(s.manager, d))
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login(r.FormValue("user")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		fmt.Fprintf(w, "<!doctype html><title>in</title><p id=in>in as %s", r.FormValue("user"))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<!doctype html><title>who</title><p id=who>%s", cmp.Or(session.From(r).User(), "nobody"))
	})
	s.Server = httptest.NewServer(s.manager.Handler(mux))
	t.Cleanup(func() {
		cancel()
		s.Server.Close()
	})
	return s
}

const (
	operatorPath = "/admin/sessions/"
	devicesPath  = "/account/devices/"
)

// login logs in as user.
func (v *visitor) login(s *site, user string) {
	v.t.Helper()
	v.open(s.URL + "/login?user=" + user)
	if got := v.text("#in"); got != "in as "+user {
		v.t.Fatalf("the login says %q", got)
	}
}

// who is the user whom the site takes the visitor for.
func (v *visitor) who(s *site) string {
	v.t.Helper()
	v.open(s.URL + "/")
	return v.text("#who")
}

func TestMain(m *testing.M) {
	if os.Getenv("SESSIONUI_WRITER") != "" { // see TestLive
		write()
		return
	}
	code := m.Run()
	if shared.end != nil {
		shared.end()
	}
	for _, dir := range built {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func put(t testing.TB, s *filestore.Store, id string, maxAge time.Duration, members map[string]any) {
	t.Helper()
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: maxAge, HTTPOnly: true, Path: "/", SameSite: "lax"}}
	for name, v := range members {
		if err := sess.Put(name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Set(context.Background(), id, sess); err != nil {
		t.Fatal(err)
	}
}

func write() {
	s, err := filestore.Open(os.Getenv("SESSIONUI_WRITER"), &filestore.Options{ReapInterval: -1})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	for line := range strings.Lines(os.Getenv("SESSIONUI_DO")) {
		do, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch do {
		case "put":
			sess := new(filestore.Session)
			sess.Put("user", "written")
			if err := s.Set(context.Background(), id, sess); err != nil {
				panic(err)
			}
		case "destroy":
			if err := s.Destroy(context.Background(), id); err != nil {
				panic(err)
			}
		}
	}
}
