package sessionui

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/words"
	"github.com/sessionfilestore/filestore/session"
)

// This file makes the operator's pages of what is known.

// A view is what all templates get.
type view struct {
	Title   string
	Nav     template.HTML
	Write   bool
	Filter  filter
	Now     span
	Data    any
	Said    string // what was done
	Problem string // why it was not
}

func (o *operator) view(title string, f filter, data any) view {
	return view{Title: title, Write: o.opts.Write, Filter: f, Now: ago(time.Now(), time.Now()), Data: data}
}

var operatorPages = parse("operator.html", template.FuncMap{
	"digits": digits, "rough": rough, "line": words.Line, "size": words.Size, "plural": words.Plural,
	"list": func(v ...string) []string { return v },
})

func (o *operator) render(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	if o.opts.Nav != nil {
		v.Nav = o.opts.Nav(r)
	}
	render(w, r, o.opts.Logger, status, operatorPages, name, v)
}

// fail answers with a short text and a way back.
func (o *operator) fail(w http.ResponseWriter, r *http.Request, status int, text string) {
	f, wrong := parseFilter(r.URL.Query(), o.opts.Show)
	if wrong != "" {
		f, _ = parseFilter(nil, nil)
	}
	v := o.view(http.StatusText(status), f, nil)
	v.Problem = text
	o.render(w, r, status, "failed", v)
}

// A line is a session in the table.
type line struct {
	Handle, Short string
	Current       bool
	State         string
	Trouble       *trouble
	Shown         []string
	Made, Used    span
	Ends          span
	Size          string
	Device, Addr  string
}

func (o *operator) line(r *row, now time.Time, current string) line {
	l := line{
		Handle: o.handle(r.id), Current: current != "" && r.id == current, State: r.state(now), Trouble: r.trouble,
		Made: ago(now, moment(r.created)), Used: ago(now, r.accessed()), Ends: later(now, r.endsAt()),
		Size: words.Size(int64(r.size)), Device: cmp.Or(r.device, unknown), Addr: cmp.Or(words.Line(r.addr), unknown),
	}
	l.Short = l.Handle[:8]
	if r.trouble != nil || r.size == 0 {
		l.Size = unknown
	}
	if l.State == expired {
		l.Ends = ago(now, r.endsAt())
	}
	for _, v := range r.shown {
		l.Shown = append(l.Shown, cmp.Or(words.Cut(words.Line(v.text), 48), unknown))
	}
	return l
}

// A sheet is what the overview shows.
type sheet struct {
	Figures                     figures
	ExpiredKnown, TroublesKnown bool
	Oldest                      span
	Bytes, Largest              string
	Reap                        *reap
	ReapKnown                   bool
	Space                       *filestore.Space
	SpaceNote                   string
	Charts                      []chart
	Show                        []string
	Wide                        int // the columns of what cannot be read
	Lines                       []line
	Matching, Endable           int
	MatchingAll                 bool
	First, Last, Pages          int
	Prev, Next                  string
	Events                      []happened
	Counted, Unlisted           int
	Whole, Failed               bool
}

// A reap is the last pass of the reaper.
type reap struct {
	When    span
	Took    string
	Removed int64
	Failed  bool
}

// A happened is a line of the list of events.
type happened struct {
	When          span
	Kind          string
	Handle, Short string
	Who           string
	Gone          bool
}

func (o *operator) overview(w http.ResponseWriter, r *http.Request) {
	f, wrong := parseFilter(r.URL.Query(), o.opts.Show)
	if wrong != "" {
		v := o.view("Sessions", f, nil)
		v.Problem = wrong
		o.render(w, r, http.StatusBadRequest, "failed", v)
		return
	}
	whole := r.URL.Query().Has("whole")
	if whole {
		patient(w)
	}
	p := o.look(r.Context(), whole)
	o.sample()
	v := o.view("Sessions", f, o.sheet(r, p, &f, whole))
	v.Filter = f // with a page that is there
	if !o.hub.isWatching() && !p.at.IsZero() {
		v.Now = ago(time.Now(), p.at)
	}
	v.Said = o.said(r.URL.Query().Get("said"))
	o.render(w, r, http.StatusOK, "overview", v)
}

func (o *operator) sheet(r *http.Request, p *picture, f *filter, whole bool) *sheet {
	now := time.Now()
	s := &sheet{
		Figures: p.figures(now), TroublesKnown: o.scanner != nil, ExpiredKnown: o.scanner != nil && o.statser != nil, ReapKnown: o.counts(),
		Charts: o.history.charts(p, now, o.counts()), Show: o.opts.Show, Wide: 6 + len(o.opts.Show),
		Counted: p.count(), Whole: p.whole, Unlisted: p.count() - len(p.rows), Failed: p.err != nil, Bytes: unknown, Largest: unknown,
	}
	if s.Figures.Largest > 0 || p.whole && p.count() == 0 { // or else the Source does not tell
		s.Bytes, s.Largest = words.Size(s.Figures.Bytes), words.Size(int64(s.Figures.Largest))
	}
	s.Oldest = ago(now, moment(s.Figures.oldest))
	if o.counts() {
		if st := o.statser.Stats(); !st.LastReap.IsZero() {
			s.Reap = &reap{ago(now, st.LastReap), st.LastReapTook.Round(time.Millisecond).String(), st.LastReapRemoved, st.LastReapError != ""}
		}
	}
	if o.spacer != nil {
		ctx, cancel := context.WithTimeout(r.Context(), firstPage)
		defer cancel()
		switch sp, err := o.spacer.Space(ctx); {
		case err == nil:
			s.Space = &sp
		case errors.Is(err, errors.ErrUnsupported):
			s.SpaceNote = "this system is not asked"
		default:
			s.SpaceNote = "not known"
		}
	}
	find := r.Context()
	if !whole { // the Source may read all sessions to find some
		var cancel context.CancelFunc
		find, cancel = context.WithTimeout(find, firstPage)
		defer cancel()
	}
	rows, all := o.matching(find, *f, p)
	s.Matching, s.MatchingAll, s.Endable = len(rows), all, len(endable(rows))
	slices.SortFunc(rows, f.order())
	s.Pages = max((len(rows)+pageSize-1)/pageSize, 1)
	f.Page = min(f.Page, s.Pages)
	from, to := (f.Page-1)*pageSize, min(f.Page*pageSize, len(rows))
	current := session.From(r).ID()
	for _, row := range rows[from:to] {
		s.Lines = append(s.Lines, o.line(row, now, current))
	}
	s.First, s.Last = min(from+1, to), to
	if f.Page > 1 {
		s.Prev = f.With("page", strconv.Itoa(f.Page-1))
	}
	if f.Page < s.Pages {
		s.Next = f.With("page", strconv.Itoa(f.Page+1))
	}
	for _, e := range o.history.recent() {
		l := o.line(e.row, now, "")
		who := ""
		if len(l.Shown) > 0 && l.Shown[0] != unknown {
			who = l.Shown[0]
		}
		s.Events = append(s.Events, happened{ago(now, e.at), e.kind, l.Handle, l.Short, who, e.gone})
	}
	return s
}

// A member is a line of a session's members.
type member struct {
	Name, Size, Value string
	Shown             bool
}

// A detail is what the page of one session shows.
type detail struct {
	line
	Names   []string // of Shown
	Cookie  []attribute
	Members []member
	Gone    bool // its members cannot be read
}

// An attribute is one of the cookie's.
type attribute struct{ Name, Value string }

// one shows one session.
func (o *operator) one(w http.ResponseWriter, r *http.Request) {
	f, wrong := parseFilter(r.URL.Query(), o.opts.Show)
	if wrong != "" {
		f, _ = parseFilter(nil, nil)
	}
	patient(w)
	row := o.find(r.Context(), r.URL.Query().Get("session"), f)
	if row == nil {
		o.fail(w, r, http.StatusNotFound, "There is no such session, or it has ended.")
		return
	}
	d := &detail{Names: o.opts.Show}
	sess, err := o.read(r.Context(), row.id)
	switch {
	case sess != nil:
		row = o.row(filestore.Entry{ID: row.id, Session: sess}, nil)
		d.Cookie, d.Members = attributes(sess), o.members(sess)
	case errors.Is(err, filestore.ErrNotFound):
		o.fail(w, r, http.StatusNotFound, "There is no such session, or it has ended.")
		return
	default:
		now := *row // others read the picture's
		now.trouble = cmp.Or(row.trouble, troubleOf(err))
		row = &now
	}
	d.line = o.line(row, time.Now(), session.From(r).ID())
	o.render(w, r, http.StatusOK, "one", o.view("Session "+d.Short, f, d))
}

// read returns a session, also if it has expired.
func (o *operator) read(ctx context.Context, id string) (*filestore.Session, error) {
	if o.getter != nil {
		sess, err := o.get(ctx, id)
		if !errors.Is(err, filestore.ErrExpired) {
			return sess, err
		}
	}
	own, cancel := context.WithTimeout(ctx, wholeLook)
	defer cancel()
	for e, err := range o.all(own) {
		switch {
		case err != nil && e.ID == "":
			return nil, err
		case e.ID == id:
			return e.Session, err
		}
	}
	return nil, filestore.ErrNotFound
}

func attributes(sess *filestore.Session) []attribute {
	c := sess.Cookie
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	life, expires := "ends with the browser", unknown
	if c.OriginalMaxAge != 0 {
		life = words.InWords(c.OriginalMaxAge)
	}
	if !c.Expires.IsZero() {
		expires = clock(c.Expires)
	}
	return []attribute{
		{"Max-Age", life}, {"Expires", expires}, {"HttpOnly", yes(c.HTTPOnly)}, {"Secure", yes(c.Secure)}, {"SameSite", cmp.Or(c.SameSite, unknown)},
		{"Path", cmp.Or(words.Cut(c.Path, maxShown), unknown)}, {"Domain", cmp.Or(words.Cut(c.Domain, maxShown), unknown)}, {"Partitioned", yes(c.Partitioned)}, {"Priority", cmp.Or(c.Priority, unknown)},
	}
}

const (
	maxMembers = 500
	maxValue   = 4096 // bytes
)

// members lists the members of a session, with the values that may be shown. A member of Show that lies in an object has a
// line of its own.
func (o *operator) members(sess *filestore.Session) (list []member) {
	for _, name := range slices.Sorted(maps.Keys(sess.Values)) {
		if len(list) == maxMembers {
			list = append(list, member{Name: "…", Size: words.Plural(len(sess.Values)-maxMembers, "more member")})
			break
		}
		m := member{Name: words.Cut(words.Line(name), maxShown), Size: words.Size(int64(len(sess.Values[name])))}
		if slices.Contains(o.opts.Show, name) && !strings.Contains(name, ".") { // a dot in Show goes into objects
			m.Shown, m.Value = true, valueOf(format.MemberOf(sess.Values, name))
		}
		list = append(list, m)
		for _, path := range o.opts.Show {
			raw := format.MemberOf(sess.Values, path)
			if strings.HasPrefix(path, name+".") && raw != "" {
				list = append(list, member{words.Line(path), words.Size(int64(len(raw))), valueOf(raw), true})
			}
		}
	}
	return list
}

func valueOf(raw string) string {
	s := textOf(raw)
	if len(s) > maxValue {
		s = s[:maxValue] + words.Ellipsis
	}
	return words.Line(s)
}

// A question is what the page before an end-matching shows.
type question struct {
	N     int
	Exact bool
	Again bool // many more match by now
	Own   bool // the visitor's session is one of them
}

// asking shows how many sessions a filter means and asks whether to end them.
func (o *operator) asking(w http.ResponseWriter, r *http.Request) {
	f, wrong := parseFilter(r.URL.Query(), o.opts.Show)
	switch {
	case !o.opts.Write:
		o.fail(w, r, http.StatusForbidden, "This page is read-only.")
		return
	case wrong != "":
		o.fail(w, r, http.StatusBadRequest, wrong)
		return
	}
	patient(w)
	o.ask(w, r, http.StatusOK, f, -1)
}

// ask asks about n sessions; if n is negative it looks how many there are.
func (o *operator) ask(w http.ResponseWriter, r *http.Request, status int, f filter, n int) {
	rows, all := o.matching(r.Context(), f, o.look(r.Context(), true))
	q := &question{N: n, Exact: all, Again: n >= 0}
	if rows = endable(rows); n < 0 {
		q.N = len(rows)
	}
	current := session.From(r).ID()
	q.Own = current != "" && slices.ContainsFunc(rows, func(r *row) bool { return r.id == current })
	o.render(w, r, status, "ask", o.view("End sessions", f, q))
}
