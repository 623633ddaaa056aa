package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/session"
)

// A setting is one combination of the options on which the decisions depend.
type setting struct {
	resave, saveUninitialized, rolling, maxAge bool
}

func (s setting) String() string {
	var b strings.Builder
	for _, f := range []struct {
		on   bool
		name string
	}{{s.resave, "resave"}, {s.saveUninitialized, "saveUninitialized"}, {s.rolling, "rolling"}, {s.maxAge, "maxAge"}} {
		if f.on {
			b.WriteString("+" + f.name)
		}
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()[1:]
}

// The session that the request of a scenario brings.
const (
	noCookie = iota
	existing
	unknownID
	badSignature
)

// A scenario is a row of the table that was measured with express-session: what a handler does, and what the
// middleware then does. The store does not change the session that it is given.
type scenario struct {
	name    string
	brings  int
	steps   []step
	calls   func(setting) string // of the store, in order
	cookie  func(setting) bool   // Set-Cookie
	noGo    bool                 // Go has no such step
	goes    string               // what Go calls instead: it asks no store to destroy what was never stored, and stores a new session before the old one goes
	goLooks bool                 // Go looks whether another request has changed meanwhile what this one has written, as the later write counts
	goSets  bool                 // Go sends the cookie in any case: the handler has changed it
}

func always(setting) bool    { return true }
func never(setting) bool     { return false }
func rolling(s setting) bool { return s.rolling }
func unasked(s setting) bool { return s.saveUninitialized }
func moved(s setting) bool   { return s.rolling || s.maxAge }

func just(s string) func(setting) string { return func(setting) string { return s } }

// renewed returns the calls for a loaded session that has not changed.
func renewed(before string) func(setting) string {
	return func(s setting) string {
		if s.resave {
			return before + "set"
		}
		return before + "touch"
	}
}

func ifUninitialized(before, then string) func(setting) string {
	return func(s setting) string {
		if s.saveUninitialized {
			return strings.TrimSpace(before + " " + then)
		}
		return before
	}
}

var put = step{"put", "more", 1}

var scenarios = []scenario{
	{name: "new, unmodified", calls: ifUninitialized("", "set"), cookie: unasked},
	{name: "new, modified", steps: steps(put), calls: just("set"), cookie: always},
	{name: "new, save", steps: steps(step{"save"}), calls: just("set"), cookie: unasked},
	{name: "existing, unmodified", brings: existing, calls: renewed("get "), cookie: rolling},
	{name: "existing, modified", brings: existing, steps: steps(put), calls: just("get set"), cookie: moved},
	{name: "existing, save", brings: existing, steps: steps(step{"save"}), calls: just("get set touch"), cookie: rolling},
	{name: "existing, modified, save", brings: existing, steps: steps(put, step{"save"}), calls: just("get set touch"), cookie: moved},
	{name: "existing, reload", brings: existing, steps: steps(step{"reload"}), calls: renewed("get get "), cookie: rolling},
	{name: "existing, regenerate", brings: existing, steps: steps(step{"regenerate"}), calls: just("get destroy set"), cookie: always, goes: "get set set destroy"},
	{name: "existing, destroy", brings: existing, steps: steps(step{"destroy"}), calls: just("get destroy"), cookie: never},
	{name: "existing, null", brings: existing, steps: steps(step{"null"}), calls: just("get"), cookie: never, noGo: true},
	{name: "existing, maxAge", brings: existing, steps: steps(step{"maxAge", 120_000}), calls: renewed("get "), cookie: rolling, goSets: true},
	{name: "unknown id", brings: unknownID, calls: ifUninitialized("get", "set"), cookie: unasked},
	{name: "bad signature", brings: badSignature, calls: ifUninitialized("", "set"), cookie: unasked},

	// These are not in the table. They follow from several of its rows.
	{name: "new, put and deleted", steps: steps(put, step{"delete", "more"}), calls: ifUninitialized("", "set"), cookie: unasked},
	{name: "new, modified, save", steps: steps(put, step{"save"}), calls: just("set"), cookie: always},
	{name: "new, save, modified", steps: steps(step{"save"}, put), calls: just("set set"), cookie: always},
	{name: "new, destroy", steps: steps(step{"destroy"}), calls: just("destroy"), cookie: never, goes: "nothing"},
	{name: "new, regenerate", steps: steps(step{"regenerate"}), calls: just("destroy set"), cookie: always, goes: "set"},
	{name: "new, save, destroy", steps: steps(step{"save"}, step{"destroy"}), calls: just("set destroy"), cookie: never},
	{name: "new, save, regenerate", steps: steps(step{"save"}, step{"regenerate"}), calls: just("set destroy set"), cookie: always, goes: "set set set destroy"},
	{name: "existing, put and deleted", brings: existing, steps: steps(put, step{"delete", "more"}), calls: renewed("get "), cookie: rolling, goLooks: true},
	{name: "existing, put again the same", brings: existing, steps: steps(step{"put", "views", 1}), calls: renewed("get "), cookie: rolling, goLooks: true},
	{name: "existing, save, modified", brings: existing, steps: steps(step{"save"}, put), calls: just("get set set"), cookie: moved},
	{name: "existing, modified, reload", brings: existing, steps: steps(put, step{"reload"}), calls: renewed("get get "), cookie: rolling},
	{name: "existing, reload, modified", brings: existing, steps: steps(step{"reload"}, put), calls: just("get get set"), cookie: moved},
	{name: "existing, regenerate, modified", brings: existing, steps: steps(step{"regenerate"}, put), calls: just("get destroy set"), cookie: always, goes: "get set set destroy set"},
	{name: "existing, modified, regenerate", brings: existing, steps: steps(put, step{"regenerate"}), calls: just("get destroy set"), cookie: always, goes: "get set set destroy"},
	{name: "existing, save, destroy", brings: existing, steps: steps(step{"save"}, step{"destroy"}), calls: just("get set destroy"), cookie: never},
	{name: "unknown id, modified", brings: unknownID, steps: steps(put), calls: just("get set"), cookie: always},
	{name: "bad signature, modified", brings: badSignature, steps: steps(put), calls: just("set"), cookie: always},
}

// Both servers keep to the table with each setting. Node has a MemoryStore here, because FileStore changes
// the session that it stores. Go does not have that defect; see TestFileStoreDecisions.
func TestDecisions(t *testing.T) {
	t.Parallel()
	n := driver(t)
	for bits := range 16 {
		s := setting{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0}
		t.Run("40 "+s.String(), func(t *testing.T) {
			for _, site := range []site{nodeDecider(t, n, s, true, ""), goDecider(t, s)} {
				for _, sc := range scenarios {
					if sc.noGo && site.name == "go" {
						continue
					}
					calls, cookie := decide(t, site, sc)
					want, sent := sc.calls(s), sc.cookie(s)
					if site.name == "go" {
						if sc.goes != "" {
							want = strings.TrimPrefix(sc.goes, "nothing")
						}
						if sc.goLooks {
							want = strings.Replace(want, "get touch", "get get touch", 1)
						}
						sent = sent || sc.goSets
					}
					if calls != want {
						t.Errorf("%s, %s: the store's calls are %q, want %q", site.name, sc.name, calls, want)
					}
					if cookie != sent {
						t.Errorf("%s, %s: Set-Cookie is sent: %v, want %v", site.name, sc.name, cookie, sent)
					}
				}
			}
		})
	}
}

// With session-file-store the decisions differ, as documented: its set changes the session, which then
// counts as modified.
func TestFileStoreDecisions(t *testing.T) {
	t.Parallel()
	n := driver(t)
	for bits := range 16 {
		s := setting{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0}
		t.Run("40 "+s.String(), func(t *testing.T) {
			site := nodeDecider(t, n, s, false, t.TempDir())
			for _, sc := range scenarios[:14] {
				calls, cookie := sc.calls(s), sc.cookie(s)
				switch sc.name {
				case "new, save":
					calls, cookie = "set set", true
				case "existing, save", "existing, modified, save":
					calls, cookie = "get set set", s.rolling || s.maxAge
				case "existing, unmodified", "existing, reload":
					cookie = s.rolling || s.resave && s.maxAge
				case "existing, maxAge":
					cookie = s.rolling || s.resave
				}
				gotCalls, gotCookie := decide(t, site, sc)
				if gotCalls != calls || gotCookie != cookie {
					t.Errorf("%s: calls %q, Set-Cookie %v, want %q, %v", sc.name, gotCalls, gotCookie, calls, cookie)
				}
			}
		})
	}
}

func nodeDecider(t *testing.T, n *Node, s setting, memory bool, dir string) site {
	t.Helper()
	cookie := object{}
	if s.maxAge {
		cookie["maxAge"] = 60_000
	}
	return nodeSite(t, n, object{"memory": memory, "options": object{"path": dir},
		"session": object{"resave": s.resave, "saveUninitialized": s.saveUninitialized, "rolling": s.rolling, "cookie": cookie}})
}

func goDecider(t *testing.T, s setting) site {
	t.Helper()
	m := &session.Manager{Store: open(t, t.TempDir(), nil), Resave: s.resave, SaveUninitialized: s.saveUninitialized, Rolling: s.rolling}
	if s.maxAge {
		m.Cookie.MaxAge = time.Minute
	}
	return goSite(t, m)
}

// decide lets the site serve the scenario's request.
func decide(t *testing.T, s site, sc scenario) (calls string, cookie bool) {
	t.Helper()
	header := ""
	switch sc.brings {
	case existing:
		header = s.run(t, "", step{"put", "views", 1}).pair(t)
	case unknownID:
		header = signed(anID, secret)
	case badSignature:
		header = signed(anID, "another secret")
	}
	s.calls()
	a := s.run(t, header, sc.steps...)
	if a.Status != 200 {
		t.Errorf("%s, %s: status %d, %s", s.name, sc.name, a.Status, a.Error)
	}
	if len(a.SetCookie) > 1 {
		t.Errorf("%s, %s: two cookies: %q", s.name, sc.name, a.SetCookie)
	}
	return strings.Join(s.calls(), " "), len(a.SetCookie) > 0
}
