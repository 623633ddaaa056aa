package sessionui

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/session"
)

// A Source has the sessions that Operator shows: a *filestore.Store, or a Store of one of the packages in backend.
//
// Operator finds more by type assertion, by the names of the methods of *filestore.Store. Without Scan it does not know
// what cannot be read, without Stats neither the last pass of the reaper nor errors, without Space not how much room
// there is, without TTL not when a session ends whose cookie has no maxAge. It says so. With Scan and Stats it knows what
// has expired and was not reaped. Without Watch and Get it reads all sessions again and again while somebody looks.
// Without Update a session that changes at the moment when it ends can come back; without Get too it is not looked at
// again when it ends. With Find a filter also finds
// sessions that are too many to be listed.
type Source interface {
	// All yields the live sessions, as filestore.Store.All does.
	All(ctx context.Context) iter.Seq2[filestore.Entry, error]

	// Destroy removes the session id. It succeeds if there is none.
	Destroy(ctx context.Context, id string) error
}

// Options are the settings of Operator. The zero value of each field, and a nil *Options, stand for the default.
type Options struct {
	// Show has the members whose values are shown; a dot goes into objects, as in filestore.Store.Find. Of all other
	// members the names and sizes are shown. Only by members of Show can the page be filtered.
	Show []string

	// Nav returns what stands above each page, for whoever asks for it: the site's own links, and a form to log out. It is
	// not escaped, so make it with html/template. The policy of this package holds for it: no inline script or style. Links,
	// a nav and a button of class plain have the look of the page. nil = nothing.
	Nav func(*http.Request) template.HTML

	// Write lets the page end sessions. Without it there are no buttons, and a POST is refused.
	Write bool

	// Who names the visitor, for the log. nil = nobody is named.
	Who func(*http.Request) string

	// Key is a secret of which the handles are made: with the same key they are the same after a restart, and in all
	// programs. At least 16 bytes. nil = a random one.
	Key []byte

	// Logger is told of each end and of errors. nil = slog.Default().
	Logger *slog.Logger

	// User is the member that says whose a session is, for OnEvent. "" = "user".
	User string

	// OnEvent is told of each session that was ended, for an audit log: give it the function of session.Manager.OnEvent.
	// The goroutine of the request calls it, when all that it ends have ended. The Handle is this page's, and not the
	// Manager's. The User is "" if the session had expired or could not be read.
	OnEvent func(context.Context, session.Event)

	// NoStats says that the counters of the Source are not the site's, because this program only looks at its sessions:
	// the page then shows neither the last pass of the reaper nor errors. Without it they are those of this program only,
	// if several share the sessions.
	NoStats bool

	// Context is how long the sessions are watched also if nobody looks, so that the charts show the whole last hour: give
	// it one that ends when the program does. The live streams end with it too. nil = they are watched while somebody
	// looks.
	Context context.Context
}

// Operator returns a page that shows the sessions of s to whoever calls it: the caller must authenticate, and let only
// operators through. The form of a POST may come up to ten seconds after that.
//
// The page shows how many sessions there are and what became of them in the last hour, finds them by a filter, shows one
// without the values that Options.Show does not name, and, with Options.Write, ends one or all that a filter means. It
// counts those again when it ends them, each at the moment of its end: a session that is not meant any more stays. It
// never ends one with them that cannot be read. While JavaScript runs in the browser and the page is visible, it
// follows what happens.
//
// A page is there within a second. If not all sessions could be read by then, it says so. It lists at most 200,000
// sessions, in about 100 MB, and counts the others. No look at the sessions goes on after its request, and no goroutine if
// nobody looks, unless there is an Options.Context. A live stream ends with its request, and when its http.Server shuts
// down; at the latest after five minutes, and then the browser asks for another one.
//
// It panics if Options.Key is too short or a member of Show has an empty name.
func Operator(s Source, o *Options) http.Handler {
	op := &operator{source: s, turn: make(chan struct{}, 1), streams: make(chan struct{}, maxStreams)}
	if o != nil {
		op.opts = *o
	}
	op.opts.Show = slices.Clone(op.opts.Show)
	for _, member := range op.opts.Show {
		if !format.ValidMember(member) {
			panic("sessionui: a member of Options.Show has an empty name")
		}
	}
	switch n := len(op.opts.Key); {
	case n == 0:
		op.opts.Key = make([]byte, 32)
		rand.Read(op.opts.Key)
	case n < 16:
		panic("sessionui: Options.Key is shorter than 16 bytes")
	}
	op.opts.Key = slices.Clone(op.opts.Key)
	op.opts.Logger = cmp.Or(op.opts.Logger, slog.Default())
	op.opts.User = cmp.Or(op.opts.User, "user")
	if op.opts.Who == nil {
		op.opts.Who = func(*http.Request) string { return "" }
	}
	op.scanner, _ = s.(scanner)
	op.statser, _ = s.(statser)
	op.spacer, _ = s.(spacer)
	op.getter, _ = s.(getter)
	op.updater, _ = s.(session.Updater)
	op.finder, _ = s.(session.Finder)
	op.watcher, _ = s.(session.Watcher)
	if l, ok := s.(session.Lifer); ok {
		op.ttl, op.ttlKnown = l.TTL(), true
	}
	if l, ok := s.(session.Limiter); ok {
		op.lifetime = l.Lifetime()
	}
	op.picture.Store(new(picture))
	op.hub.viewers = make(map[chan struct{}]bool)
	op.hub.dirty = make(chan struct{}, 1)
	if ctx := op.opts.Context; ctx == nil {
		op.opts.Context = context.Background()
	} else if ctx.Err() == nil {
		c := op.join()
		context.AfterFunc(ctx, func() { op.leave(c) })
	}
	return op
}

type (
	scanner interface {
		Scan(context.Context) iter.Seq2[filestore.Entry, error]
	}
	statser interface{ Stats() filestore.Stats }
	spacer  interface {
		Space(context.Context) (filestore.Space, error)
	}
	getter interface {
		Get(ctx context.Context, id string) (*filestore.Session, error)
	}
)

type operator struct {
	source Source
	opts   Options

	// What the source can do beside; nil = it cannot.
	scanner scanner
	statser statser
	spacer  spacer
	getter  getter
	updater session.Updater
	finder  session.Finder
	watcher session.Watcher

	ttl, lifetime time.Duration
	ttlKnown      bool

	turn    chan struct{} // a lock of one slot: its holder changes the picture
	picture atomic.Pointer[picture]
	history history
	hub     hub
	streams chan struct{} // a slot for each
	servers servers
}

func (o *operator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if begin(w, r) {
		return
	}
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost:
		o.post(w, r)
	case q.Has("stream"):
		if r.Method == http.MethodGet {
			o.stream(w, r)
		}
	case q.Has("session"):
		o.one(w, r)
	case q.Has("ask"):
		o.asking(w, r)
	default:
		o.overview(w, r)
	}
}

// mac is a keyed hash of text, for one purpose.
func (o *operator) mac(purpose, text string) string {
	h := hmac.New(sha256.New, o.opts.Key)
	h.Write([]byte("sessionui " + purpose + "\n" + text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

func (o *operator) handle(id string) string { return o.mac("handle", id) }

// find returns the row with a handle, nil if there is none. The filter is the one of the page that shows the handle.
func (o *operator) find(ctx context.Context, handle string, f filter) *row {
	among := func(rows []*row) *row {
		i := slices.IndexFunc(rows, func(r *row) bool { return hmac.Equal([]byte(o.handle(r.id)), []byte(handle)) })
		if i < 0 {
			return nil
		}
		return rows[i]
	}
	p := o.picture.Load()
	if r := among(p.rows); r != nil {
		return r
	}
	if f.Member != "" && p.count() > len(p.rows) { // the page may have found what is not listed
		if rows, _ := o.matching(ctx, f, p); among(rows) != nil {
			return among(rows)
		}
	}
	return among(o.look(ctx, true).rows)
}

// matching returns the rows that a filter means, in no order. all is false if there may be more.
func (o *operator) matching(ctx context.Context, f filter, p *picture) (rows []*row, all bool) {
	match := f.prepare(o.opts.Show, time.Now())
	if f.Member != "" && o.finder != nil && p.count() > len(p.rows) { // more than are listed
		own, cancel := context.WithTimeout(ctx, wholeLook)
		defer cancel()
		for e, err := range o.finder.Find(own, f.Member, f.Value) {
			if err != nil && e.ID == "" {
				return rows, false
			}
			if r := o.row(e, err); match(r) && len(rows) < maxRows {
				rows = append(rows, r)
			}
		}
		return rows, len(rows) < maxRows && f.State == alive // it finds no expired ones
	}
	for _, r := range p.rows {
		if match(r) {
			rows = append(rows, r)
		}
	}
	return rows, p.whole && p.count() == len(p.rows)
}

// counts reports whether the Source's counters are the site's.
func (o *operator) counts() bool { return o.statser != nil && !o.opts.NoStats }

// userOf returns whose a session is.
func (o *operator) userOf(sess *filestore.Session) string {
	return textOf(format.MemberOf(sess.Values, o.opts.User))
}
