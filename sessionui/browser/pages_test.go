package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	window "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/sessionui"
)

// both runs a test with JavaScript and without.
func both(t *testing.T, test func(t *testing.T, visit func() *visitor)) {
	browser := chromium(t)
	for name, off := range map[string]bool{"with": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			test(t, func() *visitor {
				v := visit(t, browser)
				if off {
					v.scriptless()
				}
				return v
			})
		})
	}
}

// Two browsers log in as one user; one ends the other, which is out at its next click.
func TestTwoBrowsers(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
		a, b, c := visit(), visit(), visit()
		for _, v := range []*visitor{a, b} {
			v.login(s, "anna")
		}
		c.login(s, "bert")
		a.open(s.URL + devicesPath)
		if n, here := a.count("[data-session]"), a.count("[data-session][data-current]"); n != 2 || here != 1 {
			t.Fatalf("anna sees %d devices, %d of them here", n, here)
		}
		a.click(`form[data-action="sign-out"] button`)
		if got := a.text(".notice.good"); got != "The device is signed out." {
			t.Errorf("the page says %q", got)
		}
		if a.who(s) != "anna" || b.who(s) != "nobody" || c.who(s) != "bert" {
			t.Errorf("they are %s, %s and %s", a.who(s), b.who(s), c.who(s))
		}
		b.login(s, "anna")
		c.login(s, "anna")
		a.open(s.URL + devicesPath)
		a.click(`form[data-action="sign-out-others"] button`)
		if got := a.text(".notice.good"); got != "Other devices signed out: 2." {
			t.Errorf("the page says %q", got)
		}
		if a.who(s) != "anna" || b.who(s) != "nobody" || c.who(s) != "nobody" {
			t.Errorf("they are %s, %s and %s", a.who(s), b.who(s), c.who(s))
		}
		// The operator ends one, and all of a user's.
		b.login(s, "bert")
		c.login(s, "anna")
		b.until("the operator sees three sessions, and which is here", func() bool { // without JavaScript a page is as old as the server's list
			b.open(s.URL + operatorPath)
			return b.count("tr[data-session]") == 3 && b.count("tr[data-session][data-current]") == 1
		})
		b.keys(`input[name="value"]`, "anna\r")
		b.until("the filter is in the address", func() bool { return strings.Contains(b.location(), "value=anna") })
		b.until("anna's two sessions", func() bool { return b.count("tr[data-session]") == 2 })
		b.click(`form[data-action="end-matching"] button`)
		if got := b.text(`form[data-action="confirm"] button`); got != "End 2 sessions" {
			t.Errorf("the question is %q", got)
		}
		b.click(`form[data-action="confirm"] button`)
		if got := b.text(".notice.good"); got != "2 sessions ended." {
			t.Errorf("the page says %q", got)
		}
		if a.who(s) != "nobody" || b.who(s) != "bert" || c.who(s) != "nobody" {
			t.Errorf("they are %s, %s and %s", a.who(s), b.who(s), c.who(s))
		}
		a.login(s, "anna")
		b.open(s.URL + operatorPath + "?member=user&value=anna")
		b.click("tr[data-session] a.handle")
		b.until("the session's page", func() bool { return strings.HasPrefix(b.text("h1"), "Session ") })
		b.click(`form[data-action="end"] button`)
		if got := b.text(".notice.good"); got != "1 session ended." || a.who(s) != "nobody" {
			t.Errorf("the page says %q, and anna is %s", got, a.who(s))
		}
	})
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{}, &sessionui.DevicesOptions{Confirm: func(r *http.Request) bool { return r.PostFormValue("password") == "right" }})
		a, b := visit(), visit()
		a.refused = "status of 403" // the question
		a.login(s, "anna")
		b.login(s, "anna")
		a.open(s.URL + devicesPath)
		a.click(`form[data-action="sign-out"] button`)
		for _, password := range []string{"wrong", "right"} {
			if b.who(s) != "anna" {
				t.Fatal("the other is out before the password was right")
			}
			a.keys(`form[data-action="confirm"] input[name="password"]`, password)
			a.click(`form[data-action="confirm"] button`)
			want := map[string]string{"wrong": ".notice.bad", "right": ".notice.good"}[password]
			a.until("the answer to "+password, func() bool { return a.count(want) == 1 })
		}
		if got := a.text(".notice.good"); got != "The device is signed out." || b.who(s) != "nobody" {
			t.Errorf("the page says %q, and the other is %s", got, b.who(s))
		}
	})
}

// Order, pages and back: links only.
func TestLinks(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
		for i := range 120 {
			put(t, s.store, fmt.Sprint("id", i), time.Hour, map[string]any{"user": fmt.Sprintf("user%03d", i), "pad": strings.Repeat("x", i)})
		}
		v := visit()
		v.open(s.URL + operatorPath)
		v.click("#by-size")
		first := func() string { return v.text("tr[data-session] td") }
		v.until("the largest is first", func() bool { return first() == "user119" })
		v.click("#by-size")
		v.until("the smallest is first", func() bool { return first() == "user000" })
		v.click("#p-next")
		v.until("the second page", func() bool { return first() == "user050" })
		v.click("#p-next")
		v.until("the third page", func() bool { return first() == "user100" && v.count("tr[data-session]") == 20 })
		v.click("tr[data-session] a.handle")
		v.click(".back a")
		v.until("back on the third page", func() bool { return first() == "user100" })
	})
}

// What is not a time stays in its field, beside the browser's own words, and the rest of the filter with it.
func TestTimes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{}, nil)
		v := visit()
		v.open(s.URL + operatorPath)
		idle := `input[name="idle"]`
		for _, wrong := range []string{"soon", "5", "2 d", "-1h"} {
			v.open(s.URL + operatorPath)
			v.keys(idle, wrong+"\r")
			if bad := v.count(`input[name="idle"]:invalid`); bad != 1 || strings.Contains(v.location(), "idle=") {
				t.Errorf("%q is sent", wrong)
			}
		}
		for _, right := range []string{"90m", "1w12h", "2d", "1.5h"} {
			v.open(s.URL + operatorPath)
			v.keys(idle, right+"\r")
			v.until(right+" is sent", func() bool {
				return strings.Contains(v.location(), "idle="+right) && v.count("#found") == 1
			})
		}
	})
}

// The page follows what another process does, with the focus where it was, and does not while it is hidden.
func TestLive(t *testing.T) {
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
	var streams atomic.Int32
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("stream") {
			streams.Add(1)
			defer streams.Add(-1)
		}
		inner.ServeHTTP(w, r)
	})
	put(t, s.store, "stays", time.Hour, map[string]any{"user": "stays"})
	v := visit(t, browser)
	v.open(s.URL + operatorPath)
	v.until("it is live", func() bool { return v.text("#status") == "Live" })
	v.do(chromedp.Focus(chromedp.CSS(`tr[data-session] button`)))
	focus := func() string { return ask[string](v, "document.activeElement.id") }
	was := focus()
	if !strings.HasPrefix(was, "e-") {
		t.Fatalf("the focus is on %q", was)
	}
	elsewhere(t, s.dir, "put one\nput two")
	v.until("two more", func() bool { return v.count("tr[data-session]") == 3 && v.text(`[data-figure="live"]`) == "3" })
	v.until("they are in the list", func() bool { return strings.Contains(v.text("#events"), "made") })
	if now := focus(); now != was {
		t.Errorf("the focus was on %q and is on %q", was, now)
	}
	elsewhere(t, s.dir, "destroy one\ndestroy two")
	v.until("they are gone", func() bool { return v.count("tr[data-session]") == 1 && v.text(`[data-figure="live"]`) == "1" })

	v.window(window.WindowStateMinimized)
	v.until("the stream has ended", func() bool { return streams.Load() == 0 })
	elsewhere(t, s.dir, "put three")
	time.Sleep(1200 * time.Millisecond)
	if n := v.count("tr[data-session]"); n != 1 {
		t.Errorf("the hidden page shows %d sessions", n)
	}
	v.window(window.WindowStateNormal)
	v.until("it is live again", func() bool { return v.count("tr[data-session]") == 2 })

	// Nothing moves under a pointer that is about to click.
	at := ask[[]float64](v, `(() => { const b = document.querySelector("tr[data-session] button").getBoundingClientRect(); return [b.x + b.width/2, b.y + b.height/2] })()`)
	v.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
	under := `document.querySelector("button:hover").id`
	aim := ask[string](v, under)
	elsewhere(t, s.dir, "put four")
	v.until("the figures say so", func() bool { return v.text(`[data-figure="live"]`) == "3" })
	if now := ask[string](v, under); now != aim || v.count("tr[data-session]") != 2 {
		t.Errorf("under the pointer was %q and is %q, of %d rows", aim, now, v.count("tr[data-session]"))
	}
	v.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 5, 5))
	v.until("the rows follow", func() bool { return v.count("tr[data-session]") == 3 })

	// The last one goes while it has the focus: that stays near.
	v.do(chromedp.Focus(chromedp.CSS(`tr[data-session] button`)))
	elsewhere(t, s.dir, "destroy three\ndestroy four\ndestroy stays")
	v.until("none is left", func() bool { return v.count("tr[data-session]") == 0 })
	if now := focus(); now != "sessions" {
		t.Errorf("the focus is on %q", now)
	}
}

// elsewhere lets another process work on the directory.
func elsewhere(t *testing.T, dir, do string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SESSIONUI_WRITER="+dir, "SESSIONUI_DO="+do)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Texts that a browser must not obey.
var hostile = []string{
	`<script>window.pwned=1</script>`, `"><img src=x onerror="window.pwned=1">`, `' autofocus onfocus='window.pwned=1`, `javascript:window.pwned=1`,
	`</title><script>window.pwned=1</script>`, `<svg onload=window.pwned=1>`, `<a href="javascript:window.pwned=1">x</a>`, "\u202e<b>\u202c", "a\x00\x1b[31m\u0085",
	`<iframe srcdoc="<script>parent.pwned=1</script>">`, `<style>*{display:none}</style>`, `--><script>window.pwned=1</script>`, `<base href="//other.example/">`,
}

func TestHostileTexts(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
		v := visit()
		v.login(s, "anna")
		for i, text := range hostile {
			put(t, s.store, fmt.Sprint("id", i), time.Hour, map[string]any{"user": text, "m" + text: text, "__note": map[string]string{"agent": text, "addr": text}})
			put(t, s.store, fmt.Sprint("anna", i), time.Hour, map[string]any{"user": "anna", "__note": map[string]string{"agent": text, "addr": text}})
		}
		// A flash message that somebody else has left for the page.
		for e, err := range s.store.Find(context.Background(), "user", "anna") {
			if err == nil && !strings.HasPrefix(e.ID, "anna") {
				s.store.Update(context.Background(), e.ID, func(sess *filestore.Session) error {
					return sess.Put("flash", map[string][]string{"sessionui": hostile})
				})
			}
		}
		check := func() {
			t.Helper()
			if got := ask[string](v, "String(window.pwned)"); got != "undefined" {
				t.Errorf("a text was obeyed on %s", v.location())
			}
			if n := v.count(`main script, main iframe, main img, main style, base, [onerror], [onfocus], [onload], [href^="javascript:"]`); n != 0 {
				t.Errorf("%d elements came from texts on %s", n, v.location())
			}
		}
		v.open(s.URL + devicesPath)
		check()
		if n := v.count("[data-session]"); n != len(hostile)+1 {
			t.Errorf("%d cards", n)
		}
		v.open(s.URL + operatorPath)
		check()
		if n := v.count("tr[data-session]"); n != 2*len(hostile)+1 {
			t.Errorf("%d rows", n)
		}
		hrefs := get(v, chromedp.Evaluate[[]string](`[...document.querySelectorAll("tr[data-session] a.handle")].map(a => a.href)`))
		for _, href := range hrefs {
			v.open(href)
			check()
		}
	})
}

// A form on another site does nothing, whether or not the browser sends the cookie with it.
func TestCrossSite(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
		var handle string
		evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<!doctype html><title>evil</title>
<form id=operator method=post action="%[1]s%[2]s"><input name=do value=end><input name=handle value="%[4]s"><button>a prize</button></form>
<form id=devices method=post action="%[1]s%[3]s"><input name=do value=sign-out-others><button>a prize</button></form>`, s.URL, operatorPath, devicesPath, handle)
		}))
		t.Cleanup(evil.Close) // after the visitor has gone
		v := visit()
		v.refused = "status of 403"
		v.login(s, "anna")
		put(t, s.store, "other", time.Hour, map[string]any{"user": "bert"})
		v.open(s.URL + operatorPath + "?member=user&value=bert")
		handle = get(v, chromedp.AttributeValue(chromedp.CSS("tr[data-session]"), "data-session")).Value
		for _, origin := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)} { // the same site, and another
			for _, form := range []string{"#operator", "#devices"} {
				v.open(origin)
				v.click(form + " button")
				v.until("the answer", func() bool { return strings.Contains(v.text("body"), "does not come from this page") })
			}
		}
		if _, err := s.store.Get(context.Background(), "other"); err != nil {
			t.Errorf("bert's session is gone: %v", err)
		}
	})
}

// The collector of complaints finds violations: without that the other tests would prove nothing.
func TestComplaints(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><link rel=icon href="data:,"><title>x</title><p style="color:red">x</p><script>1</script>`)
	}))
	defer srv.Close()
	for _, off := range []bool{false, true} {
		v := visit(t, browser)
		if off {
			v.scriptless()
		}
		v.open(srv.URL)
		v.until("a complaint", func() bool { return strings.Contains(strings.Join(v.complained(), "\n"), "Content Security Policy") })
		v.complained()
	}
}

// axe is the text of a script that finds what keeps people from using a page.
func axe(t *testing.T) string {
	t.Helper()
	interop.NPM(t, ".")
	text, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// accessible fails if axe finds something serious on the page. Frames are pages of their own. Of a list it looks at eight
// sessions: the others have the same markup, and axe takes as long as all the rest for them.
func (v *visitor) accessible(axe, name string) {
	v.t.Helper()
	// With what the user agent says of itself, as its own code is not bound by the page's policy.
	if !ask[bool](v, "'axe' in window") {
		v.do(chromedp.Evaluate[chromedp.Void](axe + ";0"))
	}
	found := get(v, chromedp.Evaluate[string](`axe.run({exclude: ["[data-session]:nth-of-type(n+9)"]}, {resultTypes: ["violations"], iframes: false}).then(r => JSON.stringify(r.violations.map(v =>
		({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html + " " + n.failureSummary)}))))`, chromedp.EvalAwaitPromise))
	var violations []struct {
		ID, Impact, Help string
		Nodes            []string
	}
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		v.t.Fatal(err)
	}
	for _, f := range violations {
		if f.Impact == "serious" || f.Impact == "critical" {
			v.t.Errorf("%s: %s (%s)\n%s", name, f.Help, f.ID, strings.Join(f.Nodes, "\n"))
		} else {
			v.t.Logf("%s: %s: %s", name, f.Impact, f.Help)
		}
	}
}

// axe finds nothing serious on any page, on no screen.
func TestAxe(t *testing.T) {
	t.Parallel()
	axe := axe(t)
	browser := chromium(t)
	s := newSite(t, &sessionui.Options{Show: []string{"user", "role"}, Write: true}, &sessionui.DevicesOptions{Confirm: func(r *http.Request) bool { return false }})
	populate(t, s)
	v := visit(t, browser)
	v.refused = "status of 40" // two pages are 400 and 403
	v.login(s, "anna")
	v.open(s.URL + operatorPath + "?state=alive")
	one := get(v, chromedp.AttributeValue(chromedp.CSS("tr[data-current] a.handle"), "href")).Value
	torn := ""
	pages := map[string]func(){
		"operator":   func() { v.open(s.URL + operatorPath) },
		"unreadable": func() { v.open(s.URL + operatorPath + "?state=unreadable") },
		"expired":    func() { v.open(s.URL + operatorPath + "?state=expired") },
		"none":       func() { v.open(s.URL + operatorPath + "?member=user&value=nobody") },
		"one":        func() { v.open(s.URL + operatorPath + one) },
		"torn": func() {
			v.open(s.URL + operatorPath + "?state=unreadable")
			torn = get(v, chromedp.AttributeValue(chromedp.CSS("a.handle"), "href")).Value
			v.open(s.URL + operatorPath + torn)
		},
		"ask":     func() { v.open(s.URL + operatorPath + "?ask=1") },
		"failed":  func() { v.open(s.URL + operatorPath + "?idle=x") },
		"devices": func() { v.open(s.URL + devicesPath) },
		"confirm": func() {
			v.open(s.URL + devicesPath)
			v.click(`form[data-action="sign-out"] button`)
			v.until("the question", func() bool { return v.count(`form[data-action="confirm"]`) == 1 })
		},
	}
	for name, open := range pages {
		open()
		for _, c := range audited {
			v.look(c)
			v.accessible(axe, name+", "+c.name)
		}
	}
}

// The keyboard alone: the first stop skips to the sessions, each stop is seen, and Enter signs out.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}, Write: true}, nil)
		for i := range 60 {
			put(t, s.store, fmt.Sprint("id", i), time.Hour, map[string]any{"user": "anna"})
		}
		v := visit()
		v.login(s, "anna")
		next := func() {
			t.Helper()
			v.do(chromedp.KeyEvent("\t"))
			seen := ask[bool](v, `(() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
				return e !== document.body && s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && b.width > 0 && b.top >= 0 && b.bottom <= innerHeight })()`)
			if !seen {
				t.Errorf("a stop is not seen: %s", ask[string](v, "document.activeElement.outerHTML"))
			}
		}
		v.open(s.URL + operatorPath)
		next()
		if got := ask[string](v, "document.activeElement.className"); got != "skip" {
			t.Errorf("the first stop is %q", got)
		}
		v.do(chromedp.KeyEvent("\r"))
		v.until("the sessions have the focus", func() bool { return ask[string](v, "document.activeElement.id") == "sessions" })
		for range 8 {
			next()
		}
		v.open(s.URL + devicesPath)
		next()
		if got := ask[string](v, `document.activeElement.closest("form").dataset.action`); got != "sign-out" {
			t.Fatalf("the first stop is in a form %q", got)
		}
		v.do(chromedp.KeyEvent("\r"))
		v.until("one device is signed out", func() bool { return v.count("[role=status]") == 1 && v.count("[data-session]") == 60 })
	})
}

// Someone who only looks has no buttons.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, visit func() *visitor) {
		s := newSite(t, &sessionui.Options{Show: []string{"user"}}, nil)
		v := visit()
		v.login(s, "anna")
		v.open(s.URL + operatorPath)
		if n := v.count("[data-action]"); n != 0 || v.count("tr[data-session]") != 1 {
			t.Errorf("%d forms that change something", n)
		}
	})
}

// built has the folders of the programs that build has built.
var built []string

// build builds the program of a folder, once for all tests.
func build(t *testing.T, folder string) (path string) {
	t.Helper()
	build, _ := builds.LoadOrStore(folder, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "built")
		if err != nil {
			return "", err
		}
		building.Lock()
		built = append(built, dir)
		building.Unlock()
		path := filepath.Join(dir, filepath.Base(folder))
		cmd := exec.Command("go", "build", "-o", path, ".")
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return path, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	builds   sync.Map // of functions, by folder
	building sync.Mutex
)

// start starts the program of a folder in the directory at, "" for this one. It ends with the test.
func start(t *testing.T, folder, at string, args ...string) (cmd *exec.Cmd, stdout *bufio.Reader) {
	t.Helper()
	cmd = exec.Command(build(t, folder), args...)
	cmd.Dir, cmd.Env = at, append(os.Environ(), "SESSION_SECRET=")
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // fails if the test has waited
	})
	return cmd, bufio.NewReader(pipe)
}

// The command serves the page to a browser of this machine, and not to another site whose name leads here.
func TestServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	put(t, store, "one", time.Hour, map[string]any{"user": "anna"})
	_, out := start(t, filepath.Join("..", "..", "cmd", "filestore"), "", "serve", "--dir", dir, "--write", "--json", "--show", "user")
	var said struct{ URL string }
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		t.Fatal(err)
	}
	browser := chromium(t, chromedp.Flag("host-resolver-rules", "MAP evil.example 127.0.0.1"))
	v := visit(t, browser)
	v.open(said.URL)
	if n := v.count("tr[data-session]"); n != 1 {
		t.Fatalf("the page shows %d sessions", n)
	}
	if strings.Contains(v.location(), "key=") {
		t.Errorf("the key stays in the address: %s", v.location())
	}
	v.until("it is live", func() bool { return v.text("#status") == "Live" })
	put(t, store, "two", time.Hour, map[string]any{"user": "bert"})
	v.until("bert is there", func() bool { return v.count("tr[data-session]") == 2 })
	page := v.location()
	v.click(`form[data-action="end"] button`)
	v.until("one was ended", func() bool { return v.count(".notice.good") == 1 && v.count("tr[data-session]") == 1 })
	for _, url := range []string{said.URL, page} {
		e := visit(t, browser)
		e.refused = "status of 421"
		e.open(strings.Replace(url, "127.0.0.1", "evil.example", 1))
		if got := e.text("body"); !strings.Contains(got, "not the address") {
			t.Errorf("by another name the page is %q", got)
		}
	}
	stranger := visit(t, browser)
	stranger.refused = "status of 403"
	stranger.open(page)
	if got := stranger.text("body"); !strings.Contains(got, "Open the address") {
		t.Errorf("without the key the page is %q", got)
	}
}
