package sessionui

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/words"
	"github.com/sessionfilestore/filestore/session"
)

// DevicesOptions are the settings of Devices. The zero value of each field, and a nil *DevicesOptions, stand for the
// default.
type DevicesOptions struct {
	// Confirm reports whether a request may sign out: for example whether the form value password is the user's, or
	// whether session.Session.Fresh says that they have logged in lately. It is asked at each POST. If it returns false
	// nothing ends, and the page asks. Whoever has stolen a cookie could sign out its owner otherwise. Limit the attempts,
	// as at the login. nil = no question.
	Confirm func(*http.Request) bool

	// Login is where the page sends those whom Confirm does not let through, a link to a page where they log in again.
	// "" = the page asks for a password itself.
	Login string

	// Layout is the page around the list. It gets a Page. The policy of this package holds for all of it: scripts and
	// styles must be files of the same host. nil = a plain page.
	Layout *template.Template

	// Words has other words for those of the page, which DevicesWords returns: {"Sign out": "Abmelden"}. A word with
	// a %d, or a %s, must keep it. nil = all in English.
	Words map[string]string
}

// A Page is what DevicesOptions.Layout gets.
type Page struct {
	Title   string
	Content template.HTML // the list, and the link to its style sheet
	Request *http.Request
}

var devicesWords = []string{
	"en", // the language, for the attribute lang
	"Your devices",
	"You are signed in on these devices. If you do not know one of them, sign it out and change your password.",
	"This device", "Unknown device", "%s on %s", // the browser and the system
	"Unknown browser", "Go program", "Python program",
	"Last seen", "Signed in", "Ends", "Address",
	"2006-01-02 15:04 UTC", // when a session ends, as package time has it
	"Sign out", "Sign out %s", "Sign out all other devices",
	"The device is signed out.", "Other devices signed out: %d.",
	"This is not one of your devices, or it is signed out already.",
	"Some devices may be missing: they could not be read.",
	"%d more devices are not shown.",
	"Is it you?", "Your password", "Confirm", "Cancel", "That was not right. Nothing was signed out.",
	"Log in again first. Then come back and sign out.", "Log in again",
	"Nobody is signed in.", "This site cannot list your devices.", "That did not work. Try again later.",
	"now", "1 minute ago", "%d minutes ago", "1 hour ago", "%d hours ago", "%d days ago",
}

// DevicesWords returns the words that DevicesOptions.Words can replace.
func DevicesWords() []string { return append([]string(nil), devicesWords...) }

const maxDevices = 100

// flashKind is the kind of the messages that a POST leaves for the next page.
const flashKind = "sessionui"

// Devices returns a page on which the user of the request's session sees their own sessions and signs them out. It
// belongs behind m.Handler, at a path where the request has a session. The user is whoever m.User says that the
// session belongs to; if nobody has logged in the answer is 403, and if m.Store is not a session.Finder 501.
//
// A session of somebody else is 404, like one that does not exist. Each end is logged with slog.Default and told to
// m.OnEvent.
//
// It panics if a word of DevicesOptions.Words replaces none, or does not keep its %d or %s.
func Devices(m *session.Manager, o *DevicesOptions) http.Handler {
	d := &devices{m: m}
	if o != nil {
		d.opts = *o
	}
	d.words = make(map[string]string)
	for _, w := range devicesWords {
		d.words[w] = w
	}
	for w, now := range d.opts.Words {
		_, known := d.words[w]
		for _, verb := range []string{"%d", "%s"} {
			if !known || strings.Count(w, verb) != strings.Count(now, verb) || strings.Count(w, "%") != strings.Count(now, "%") {
				panic(fmt.Sprintf("sessionui: DevicesOptions.Words: %q cannot stand for %q", now, w))
			}
		}
		d.words[w] = now
	}
	d.pages = parse("devices.html", template.FuncMap{"word": d.word})
	return d
}

type devices struct {
	m     *session.Manager
	opts  DevicesOptions
	words map[string]string
	pages *template.Template
}

// word returns the words that stand for w. Templates call it, and so a word that is not in the list fails in the tests.
func (d *devices) word(w string, args ...any) (string, error) {
	now, ok := d.words[w]
	if !ok {
		return "", fmt.Errorf("no such word: %q", w)
	}
	if len(args) > 0 {
		return fmt.Sprintf(now, args...), nil
	}
	return now, nil
}

// A card is a session on the page.
type card struct {
	Handle, Device, Addr string
	Phone, Current       bool
	Seen, Made, Ends     span
}

// A devicesView is what the templates get.
type devicesView struct {
	Cards      []card
	Others     bool // there are others to sign out
	Incomplete bool
	More       int
	Said       string // a key of Words
	Number     int    // for Said
	Bad        string // a key of Words

	Login, Do, Handle string // for the question
}

func (d *devices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if begin(w, r) {
		return
	}
	s := d.m.From(r)
	user := s.User()
	switch {
	case user == "":
		d.render(w, r, http.StatusForbidden, "message", &devicesView{Bad: "Nobody is signed in."})
	case r.Method == http.MethodPost:
		d.post(w, r, s, user)
	default:
		d.list(w, r, http.StatusOK, user, &devicesView{})
	}
}

// list shows the sessions of user.
func (d *devices) list(w http.ResponseWriter, r *http.Request, status int, user string, deck *devicesView) {
	infos, err := d.m.Sessions(r.Context(), user)
	if errors.Is(err, errors.ErrUnsupported) {
		d.render(w, r, http.StatusNotImplemented, "message", &devicesView{Bad: "This site cannot list your devices."})
		return
	}
	if err != nil {
		slog.ErrorContext(r.Context(), "sessionui: the list of devices is not complete", "err", err)
		deck.Incomplete = true
	}
	now := time.Now()
	for _, info := range infos {
		deck.Others = deck.Others || !info.Current
		c := card{Handle: info.Handle, Device: d.device(info.Note.Agent), Addr: words.Line(info.Note.Addr), Current: info.Current, Phone: isPhone(info.Note.Agent),
			Seen: d.ago(now, info.LastAccess), Made: d.ago(now, cmpTime(info.Authenticated, info.Created)), Ends: d.date(info.Ends)}
		if info.Current { // first, also if there are many
			deck.Cards = append([]card{c}, deck.Cards...)
		} else {
			deck.Cards = append(deck.Cards, c)
		}
	}
	if n := len(deck.Cards); n > maxDevices {
		deck.More, deck.Cards = n-maxDevices, deck.Cards[:maxDevices]
	}
	flashes, err := d.m.From(r).Flashes(flashKind)
	if err != nil {
		slog.ErrorContext(r.Context(), "sessionui: what was done cannot be shown", "err", err)
	}
	for _, n := range flashes {
		deck.Said = "The device is signed out."
		if deck.Number, err = strconv.Atoi(n); err == nil {
			deck.Said = "Other devices signed out: %d."
		}
	}
	d.render(w, r, status, "list", deck)
}

func cmpTime(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

// device is the function device in the words of the site.
func (d *devices) device(agent string) string {
	browser, system := parts(agent)
	browser = cmp.Or(d.words[browser], browser)
	if browser != "" && system != "" {
		return fmt.Sprintf(d.words["%s on %s"], browser, system)
	}
	return cmp.Or(browser, system, d.words["Unknown device"])
}

func isPhone(agent string) bool { return first(agent, "iPhone=x", "Android=x", "Mobile=x") != "" }

// date is a moment that lies far enough from now to be a day.
func (d *devices) date(t time.Time) span {
	if t.IsZero() {
		return span{Text: unknown}
	}
	return span{t.UTC().Format(d.words["2006-01-02 15:04 UTC"]), iso(t), clock(t)}
}

func (d *devices) ago(now, t time.Time) span {
	if t.IsZero() {
		return span{Text: unknown}
	}
	s := span{"", iso(t), clock(t)}
	n, unit := int(now.Sub(t)/time.Minute), "minute"
	if n >= 60 {
		n, unit = n/60, "hour"
	}
	if unit == "hour" && n >= 48 {
		n, unit = n/24, "day"
	}
	switch {
	case n < 1:
		s.Text = d.words["now"]
	case n == 1:
		s.Text = d.words["1 "+unit+" ago"]
	default:
		s.Text = fmt.Sprintf(d.words["%d "+unit+"s ago"], n)
	}
	return s
}

func (d *devices) post(w http.ResponseWriter, r *http.Request, s *session.Session, user string) {
	do, handle := r.PostForm.Get("do"), r.PostForm.Get("handle")
	if do != "sign-out" && do != "sign-out-others" {
		http.Error(w, "There is no such action.", http.StatusBadRequest)
		return
	}
	// The body may have come long after the session was read. Whoever was signed out since must not sign out others.
	switch _, err := d.m.Store.Get(r.Context(), s.ID()); {
	case errors.Is(err, filestore.ErrNotFound):
		d.render(w, r, http.StatusForbidden, "message", &devicesView{Bad: "Nobody is signed in."})
		return
	case err != nil:
		slog.ErrorContext(r.Context(), "sessionui: signing out has failed", "who", user, "err", err)
		d.list(w, r, http.StatusInternalServerError, user, &devicesView{Bad: "That did not work. Try again later."})
		return
	}
	if d.opts.Confirm != nil && !d.opts.Confirm(r) {
		deck := &devicesView{Login: d.opts.Login, Do: do, Handle: handle}
		if r.PostForm.Has("password") {
			deck.Bad = "That was not right. Nothing was signed out."
		}
		d.render(w, r, http.StatusForbidden, "question", deck)
		return
	}
	n, said := 1, "one"
	var err error
	if do == "sign-out" {
		err = d.m.End(r.Context(), user, handle)
	} else {
		n, err = s.EndOthers()
		handle, said = "", strconv.Itoa(n) // the form's handle was not looked at
	}
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		d.list(w, r, http.StatusNotFound, user, &devicesView{Bad: "This is not one of your devices, or it is signed out already."})
	case err != nil:
		slog.ErrorContext(r.Context(), "sessionui: signing out has failed", "who", user, "sessions", n, "err", err)
		d.list(w, r, http.StatusInternalServerError, user, &devicesView{Bad: "That did not work. Try again later."})
	default:
		slog.InfoContext(r.Context(), "sessionui: signed out", "who", user, "session", handle, "sessions", n)
		if err := s.Flash(flashKind, said); err != nil && !errors.Is(err, filestore.ErrNotFound) { // their own session may be what ended
			slog.ErrorContext(r.Context(), "sessionui: what was done cannot be shown", "err", err)
		}
		redirect(w, "?")
	}
}

// render answers with a template in the site's page, or in a plain one.
func (d *devices) render(w http.ResponseWriter, r *http.Request, status int, name string, deck *devicesView) {
	t, around := d.pages, "page"
	var buf bytes.Buffer
	err := d.pages.ExecuteTemplate(&buf, name, deck)
	if d.opts.Layout != nil {
		t, around = d.opts.Layout, d.opts.Layout.Name()
	}
	if err != nil {
		slog.ErrorContext(r.Context(), "sessionui: a page could not be made", "err", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	render(w, r, slog.Default(), status, t, around, Page{d.words["Your devices"], template.HTML(buf.String()), r})
}
