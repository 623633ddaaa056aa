package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// This file looks at the two examples as a visitor does.

var urlRE = regexp.MustCompile(`http://\S+`)

// An example is the running program.
type example struct {
	t   *testing.T
	dir string // in which it was started
	url string
	cmd *exec.Cmd
}

func startExample(t *testing.T) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	e.start("127.0.0.1:" + storetest.SitePort(t)) // a test can start it there again
	return e
}

func (e *example) start(addr string) {
	e.t.Helper()
	cmd, out := start(e.t, filepath.Join("..", "..", "example"), e.dir, "-addr", addr)
	line, err := out.ReadString('\n')
	if e.url = urlRE.FindString(line); err != nil || e.url == "" {
		e.t.Fatalf("the example says %q, %v", line, err)
	}
	e.cmd = cmd
}

// shell runs a command that the page shows, as somebody does who copies it into a terminal.
func (e *example) shell(command string) {
	e.t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = e.dir
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		e.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// signIn fills the form of the page.
func (v *visitor) signIn(user, password string) {
	v.t.Helper()
	v.keys("#username", user)
	v.keys("#password", password+"\r")
}

func (v *visitor) state() string {
	return ask[string](v, `document.querySelector("[data-state]").dataset.state`)
}

// member is the value of a member of the file on the page, "" if there is none.
func (v *visitor) member(name string) string {
	return ask[string](v, fmt.Sprintf(`[...document.querySelectorAll("[data-member]")].filter(m => m.dataset.member === %q).map(m => m.querySelector("i").textContent).join()`, `"`+name+`"`))
}

// The visitor's file on the home page follows what they do, and what happens to it; without JavaScript when they look again.
func TestExampleLive(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	for name, scripted := range map[string]bool{"with": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startExample(t)
			v := visit(t, browser)
			if !scripted {
				v.scriptless()
			}
			v.open(e.url)
			// sees waits until the page shows what has happened elsewhere: by itself, or when the visitor looks again.
			sees := func(what string, ok func() bool) {
				t.Helper()
				v.until(what, func() bool {
					if ok() {
						return true
					}
					if !scripted {
						v.click("#again")
					}
					return false
				})
			}
			if got := v.state(); got != "none" || v.count("#rm, #kill, #who") != 0 {
				t.Errorf("at first the state is %q", got)
			}
			v.click("#plus")
			v.until("the first count", func() bool { return v.member("views") == "1" && v.text("#count") == "1" })
			if v.count("#who") != 0 {
				t.Error("somebody is logged in")
			}
			before := v.text("#where")
			v.signIn("user1", "mypassword")
			v.until("the login", func() bool { return v.member("user") == `"user1"` && v.count("#who") == 1 })
			if now := v.text("#where"); now == before || v.member("views") != "1" {
				t.Errorf("the file %s is %s after the login, with the number %s", before, now, v.member("views"))
			}
			if scripted { // the page stays, and marks what has changed
				v.until("it is live", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
				v.do(chromedp.Evaluate[chromedp.Void]("window.same = true"), chromedp.Focus(chromedp.CSS("#plus")))
				v.do(chromedp.KeyEvent("\r"))
				v.until("the mark", func() bool {
					return v.member("views") == "2" && v.count(`.changed[data-member='"views"']`) == 1 && v.count(`.changed[data-member='"user"']`) == 0
				})
				if got := v.text("#live"); got != "Live. Changed just now: views." {
					t.Errorf("the page says %q", got)
				}
				if !ask[bool](v, `window.same === true && document.activeElement.id === "plus"`) {
					t.Error("the page was loaded again, or the focus is somewhere else")
				}
			} else {
				v.click("#plus")
			}
			v.until("the second count", func() bool { return v.member("views") == "2" })

			e.shell(v.text("#kill"))
			if err := e.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the program ends with %v", err)
			}
			e.start(strings.TrimPrefix(e.url, "http://"))
			sees("that they are still here", func() bool {
				return v.count("#file .notice.good") == 1 && strings.HasPrefix(v.text("#file .notice.good"), "You are still here.")
			})
			v.complained() // of the connections that were refused
			if v.member("user") != `"user1"` || v.member("views") != "2" {
				t.Errorf("after the kill the user is %s, and the number %s", v.member("user"), v.member("views"))
			}
			if scripted {
				v.until("it is live again", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
				v.complained()
			}

			e.shell(v.text("#rm"))
			sees("that they are out", func() bool { return v.state() == "out" && v.count("#who") == 0 && v.count("#username") == 1 })
			if got := v.text("#file .big"); got != "You are out." {
				t.Errorf("the page says %q", got)
			}

			// A page for users only leads to the login and back. Each page has the button to log out.
			v.open(e.url + "/private")
			v.signIn("admin2", "password")
			v.until("the private page", func() bool { return v.text("h1") == "Private" })
			v.open(e.url + operatorPath)
			if got := v.text("#who"); got != "admin2" {
				t.Errorf("on the operator's page the user is %q", got)
			}
			v.click("#logout")
			v.until("the home page", func() bool { return v.count("#username") == 1 && v.state() == "none" })
		})
	}
}

// Two tabs of one browser: a login, a count and a logout in one are seen in the other.
func TestExampleTwoTabs(t *testing.T) {
	t.Parallel()
	e := startExample(t)
	v := visit(t, chromium(t))
	v.open(e.url)
	v.click("#plus")
	v.until("it is live", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
	// The other tab is a script of this one: it has the same cookie, and does not tell this page.
	post := func(path string) {
		t.Helper()
		v.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`fetch(%q, {method: "POST", body: new URLSearchParams({username: "user1", password: "mypassword"})}).then(() => {})`, path), chromedp.EvalAwaitPromise))
	}
	// What the visitor types meanwhile stays, and so does what the server says to it, and where they wanted to go.
	v.refused = "status of 422"
	v.open(e.url + "/private")
	v.keys("#username", "user1")
	post("/count")
	v.until("the count", func() bool { return v.member("views") == "2" })
	v.keys("#password", "wrong\r")
	v.until("the refusal", func() bool { return v.count(".notice.bad") == 1 && strings.HasPrefix(v.text("#live"), "Live") })
	post("/count")
	v.until("the next count", func() bool { return v.member("views") == "3" })
	if v.count(".notice.bad") != 1 {
		t.Error("the refusal has gone")
	}
	v.signIn("user1", "mypassword")
	v.until("the private page", func() bool { return v.text("h1") == "Private" })
	v.click("#logout")
	v.until("the home page", func() bool { return v.count("#username") == 1 && v.state() == "none" })

	v.click("#plus")
	v.until("it is live again", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
	post("/user")
	v.until("the login", func() bool { return v.count("#who") == 1 && v.member("user") == `"user1"` })
	post("/count")
	v.until("the count", func() bool { return v.member("views") == "2" })
	// A click that keeps the page takes no message from the next one.
	v.do(chromedp.Evaluate[chromedp.Void](`fetch("/confirm", {method: "POST", redirect: "manual", body: new URLSearchParams({password: "wrong"})}).then(() => {})`, chromedp.EvalAwaitPromise))
	v.click("#plus")
	v.until("the next count", func() bool { return v.member("views") == "3" })
	v.open(e.url)
	if got := v.text(".notice"); got != "Wrong password." {
		t.Errorf("the message is %q", got)
	}
	v.until("it is live again", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
	post("/logout")
	v.until("the logout", func() bool { return v.count("#who") == 0 && v.state() != "stored" })
}

// misshapen are the elements that are wider than the screen, and the words that are broken; commands and the file may break.
const misshapen = `(() => {
	const wide = [...document.querySelectorAll("body *:not(.unseen, .skip, svg *)")].filter(e => e.getBoundingClientRect().right > innerWidth + .5).map(e => "wide: " + e.outerHTML.slice(0, 150));
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (const range = new Range(); texts.nextNode();) {
		const text = texts.currentNode;
		if (text.parentElement.closest("pre, code, script, iframe, bdi, .unseen, .skip")) continue;
		for (const m of text.data.matchAll(/[^\s-–]+/g)) {
			range.setStart(text, m.index);
			range.setEnd(text, m.index + m[0].length);
			if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) wide.push("broken: " + m[0]);
		}
	}
	return wide;
})()`

func (v *visitor) shapely(name string) {
	v.t.Helper()
	if wrong := ask[[]string](v, misshapen); len(wrong) > 0 {
		v.t.Errorf("%s: %d, such as %s", name, len(wrong), wrong[0])
	}
}

// No page of the example makes the browser complain, is wider than its screen, breaks a word, or shuts anybody out.
func TestExampleLook(t *testing.T) {
	t.Parallel()
	axe := axe(t)
	browser := chromium(t)
	e := startExample(t)
	nobody, admin, refused := visit(t, browser), visit(t, browser), visit(t, browser)
	refused.refused = "status of 4" // what they ask for is refused: the browser says so
	admin.open(e.url + "/?next=/dashboard")
	admin.signIn("admin2", "password")
	admin.until("the dashboard", func() bool { return admin.text("h1") == "Dashboard" })
	admin.open(e.url + "/cookies")
	admin.keys("[name=name]", "a")
	admin.keys("[name=value]", "b\r")
	admin.until("the cookie", func() bool { return admin.count("tbody tr") == 1 })
	pages := []struct {
		v    *visitor
		path string
	}{
		{nobody, "/"}, {nobody, "/?next=/private"}, {nobody, "/session"}, {nobody, "/cookies"}, {nobody, "/logout"},
		{admin, "/"}, {admin, "/user"}, {admin, "/private"}, {admin, "/dashboard"}, {admin, "/session"}, {admin, "/cookies"}, {admin, "/admin"},
		{admin, "/recovery"}, {admin, "/confirm"}, {admin, devicesPath}, {admin, operatorPath}, {admin, "/api/dashboard"},
		{refused, "/none"}, {refused, "/admin"}, {refused, "/user"},
	}
	for _, p := range pages {
		if p.v == refused && p.path == "/user" { // a wrong password
			p.v.open(e.url)
			p.v.signIn("user1", "wrong")
			p.v.until("the refusal", func() bool { return p.v.count(".notice.bad") == 1 })
		} else {
			p.v.open(e.url + p.path)
		}
		for _, c := range screens {
			p.v.look(c)
			p.v.shapely(p.path + ", " + c.name)
		}
		for i, c := range audited {
			// All pages have the same colours, and most the same parts.
			if home := p.path == "/" || p.path == "/cookies"; home || i == 0 && !strings.HasPrefix(p.path, "/api") {
				p.v.look(c)
				p.v.accessible(axe, p.path+", "+c.name)
			}
		}
	}
	// The keyboard reaches each link, field and button of the home page, and shows where it is.
	for _, v := range []*visitor{nobody, admin} {
		v.look(screens[0])
		v.open(e.url)
		stops := v.count("a, button, input:not([type=hidden]), [tabindex='0']")
		for range stops {
			v.do(chromedp.KeyEvent("\t"))
			if !ask[bool](v, `(() => { const e = document.activeElement, s = getComputedStyle(e); e.seen = true;
				return e !== document.body && s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 })()`) {
				t.Errorf("a stop is not seen: %s", ask[string](v, "document.activeElement.outerHTML.slice(0, 200)"))
			}
		}
		if seen := ask[int](v, `[...document.querySelectorAll("body *")].filter(e => e.seen).length`); seen < stops {
			t.Errorf("%d of %d stops were reached", seen, stops)
		}
	}
	v := visit(t, browser)
	call(v, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agents[1]})
	for _, c := range screens {
		c.height = 835
		c.width = map[int64]int64{1280: 1100, 360: 360}[c.width]
		v.look(c)
		v.open(e.url)
		if v.count("#username") == 1 {
			v.click("#plus")
			v.until("the file", func() bool { return v.state() == "stored" })
			v.shoot("example-visitor-"+c.name, c)
			v.signIn("user1", "mypassword")
			v.until("the login", func() bool { return v.count("#who") == 1 })
		}
		v.until("it is live", func() bool { return strings.HasPrefix(v.text("#live"), "Live") })
		v.click("#plus")
		v.until("the mark", func() bool { return v.count(`.changed[data-member='"views"']`) == 1 })
		v.do(chromedp.Evaluate[chromedp.Void]("document.activeElement.blur()"))
		v.shoot("example-"+c.name, c)
	}
}

// in evaluates an expression in the frame of the page whose address begins with url, also if that is another origin.
func (v *visitor) in(url, expression string) (s string) {
	v.t.Helper()
	v.until("an answer of the frame "+url, func() bool {
		tree := call(v, page.GetFrameTree, cdp.Empty{}).FrameTree
		for _, f := range tree.ChildFrames {
			if !strings.HasPrefix(f.Frame.URL, url) {
				continue
			}
			// The frame may load another page at any moment; then this is tried again.
			got, err := chromedp.Run(v.ctx, func(ctx context.Context, t *chromedp.Target) (runtime.EvaluateResult, error) {
				world, err := cdp.Call(ctx, t, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: f.Frame.ID})
				if err != nil {
					return runtime.EvaluateResult{}, err
				}
				return cdp.Call(ctx, t, runtime.Evaluate, runtime.EvaluateParams{Expression: expression, ContextID: world.ExecutionContextID})
			})
			if err == nil && got.ExceptionDetails == nil && got.Result != nil {
				return json.Unmarshal([]byte(got.Result.Value), &s) == nil
			}
		}
		return false
	})
	return s
}

// Go and Express on one page: what somebody does on one side is seen on the other, and in the file.
func TestExpressExample(t *testing.T) {
	t.Parallel()
	folder := filepath.Join("..", "..", "example", "express")
	interop.NPM(t, folder)
	axe := axe(t)
	browser := chromium(t)
	dir := t.TempDir()
	_, out := start(t, folder, dir, "-addr", "127.0.0.1:0", "-express", "127.0.0.1:0")
	one, err1 := out.ReadString('\n')
	two, err2 := out.ReadString('\n')
	goes, express := urlRE.FindString(one), urlRE.FindString(two)
	if err1 != nil || err2 != nil || goes == "" || express == "" {
		t.Fatalf("the program says %q, %q, %v, %v", one, two, err1, err2)
	}
	for name, scripted := range map[string]bool{"with": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			v := visit(t, browser)
			if !scripted {
				v.scriptless()
			}
			v.open(goes)
			// shows waits until a side shows something; then both sides must, at the latest when the visitor looks again.
			shows := func(side, sel, want string) {
				t.Helper()
				for i, side := range []string{side, goes + "/column", express} {
					if i == 1 && !scripted {
						v.click("#again")
					}
					v.until(fmt.Sprintf("%s is %q on %s", sel, want, side), func() bool {
						return v.in(side, fmt.Sprintf(`String(document.querySelector(%q)?.textContent)`, sel)) == want
					})
				}
			}
			call(v, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agents[1]})
			press := func(side, sel string) {
				t.Helper()
				v.in(side, fmt.Sprintf(`(document.querySelector(%q).click(), "")`, sel))
			}
			for i, side := range []string{goes + "/column", express, goes + "/column", express} {
				n := fmt.Sprint(i + 1)
				press(side, "#plus")
				shows(side, "#count", n)
				v.until("the file", func() bool { return v.member("views") == n })
			}
			sides := []string{goes + "/column", express}
			for i, side := range sides {
				other := sides[1-i]
				v.in(side, `(document.querySelector("#username").value = "user1", document.querySelector("#password").value = "mypassword", document.querySelector(".login button").click(), "")`)
				shows(side, "#who", "user1")
				v.until("the file", func() bool { return v.member("user") == `"user1"` })
				if i == 0 && scripted {
					for _, c := range screens {
						c.width, c.height = map[int64]int64{1280: 1100, 360: 360}[c.width], 1110
						v.look(c)
						if os.Getenv("SESSIONUI_SHOTS") != "" {
							time.Sleep(3500 * time.Millisecond) // the marks of the login go
						}
						press(other, "#plus")
						v.until("the mark", func() bool { return v.count(`.changed[data-member='"views"']`) == 1 })
						v.shapely(c.name)
						v.shoot("express-"+c.name, c)
						v.accessible(axe, c.name)
					}
				}
				press(other, "#logout")
				shows(other, "#who", "undefined")
			}
		})
	}
	// Each side alone, and the list of sessions.
	v := visit(t, browser)
	for _, url := range []string{express, goes + "/column", goes + "/devices"} {
		v.open(url)
		for _, c := range screens {
			v.look(c)
			v.shapely(url + ", " + c.name)
		}
		for _, c := range audited {
			v.look(c)
			v.accessible(axe, url+", "+c.name)
		}
	}
}
