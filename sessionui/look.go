package sessionui

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/words"
)

// This file reads the sessions. What was read is a picture, which never changes: pages read it without a lock.

const (
	// firstPage is how long a page waits for the sessions. What was not read by then it does not show, and says so.
	firstPage = 850 * time.Millisecond

	// wholeLook bounds a request that waits for all sessions.
	wholeLook = 2 * time.Minute

	// A picture that was made faster than quick is not used twice: nobody sees what is over.
	quick = 100 * time.Millisecond

	// maxRows bounds the memory: a row takes about 250 bytes and the values shown. Further sessions are counted only.
	maxRows = 200_000

	maxShown = 200 // bytes of a value that are kept
)

// A row is what a page keeps of a session.
type row struct {
	id                    string
	trouble               *trouble // why it is unreadable; nil = it is not
	created, access, ends int64    // milliseconds since 1970; 0 = not known
	size                  int
	shown                 []shown // as Options.Show
	device, addr          string
}

// shown is the value of a member.
type shown struct {
	text string
	hash uint64 // 0: not a string and not a number
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (r *row) endsAt() time.Time   { return moment(r.ends) }
func (r *row) accessed() time.Time { return moment(r.access) }

// usedSince reports whether the session was used since old was read. A store that reckons the last access from the time
// that is left gives one that is some milliseconds off, another one at each read.
func (r *row) usedSince(old *row) bool { return r.access-old.access > time.Second.Milliseconds() }

func (r *row) state(now time.Time) string {
	switch {
	case r.trouble != nil:
		return unreadable
	case r.ends != 0 && r.ends < now.UnixMilli():
		return expired
	}
	return alive
}

// A trouble is why a session cannot be read, and what to do.
type trouble struct {
	is           error
	Text, Advice string
}

var troubles = []*trouble{
	{filestore.ErrCorrupt, "holds no session", "Its visitor gets a new session. End it when nobody needs what it holds; filestore check says more."},
	{filestore.ErrDecrypt, "cannot be decrypted", "It was encrypted with another secret or key, or changed since. Give the older secret too, or end it."},
	{filestore.ErrTooLarge, "is too large", "Raise MaxSize in all programs, or keep less in a session; filestore check says how large it is."},
	{filestore.ErrUnsafeFile, "is not a file to read", "A link, a directory or somebody else's file: find out who put it there, then remove it."},
}

var otherTrouble = &trouble{nil, "cannot be read now", "The log says why. If it stays so, run filestore check as the directory's owner, or look at the server."}

func troubleOf(err error) *trouble {
	for _, t := range troubles {
		if errors.Is(err, t.is) {
			return t
		}
	}
	return otherTrouble
}

// row returns the row of an entry, as a scan yields it.
func (o *operator) row(e filestore.Entry, err error) *row {
	if e.Session == nil {
		return &row{id: e.ID, trouble: troubleOf(err), shown: make([]shown, len(o.opts.Show))}
	}
	sess := e.Session
	r := &row{id: e.ID, created: millis(sess.Created), access: millis(sess.LastAccess), ends: millis(o.endOf(sess)), size: sess.Size()}
	r.shown = make([]shown, len(o.opts.Show))
	if now := time.Now().UnixMilli(); errors.Is(err, filestore.ErrExpired) && (r.ends == 0 || r.ends >= now) {
		r.ends = now - 1 // the Source knows, whatever the clocks say
	}
	for i, member := range o.opts.Show {
		if raw := format.MemberOfValid(sess.Values, member); raw != "" {
			if key, ok := format.KeyOf(raw); ok {
				r.shown[i].hash = keyHash(key)
			}
			r.shown[i].text = clip(textOf(raw))
		}
	}
	r.device = device(textOf(format.MemberOfValid(sess.Values, "__note.agent")))
	r.addr = clip(textOf(format.MemberOfValid(sess.Values, "__note.addr")))
	return r
}

// clip copies what is kept of s, which may be part of something large.
func clip(s string) string {
	if len(s) <= maxShown {
		return string([]byte(s))
	}
	return words.Cut(string([]byte(s[:maxShown])), maxShown/4)
}

// textOf returns a JSON value as it is shown: a string without its quotes.
func textOf(raw string) string {
	if raw != "" && raw[0] == '"' {
		return format.String(raw)
	}
	return raw
}

// endOf returns when a session ends, or the zero time if the Source does not tell its TTL.
func (o *operator) endOf(sess *filestore.Session) time.Time {
	if sess.Cookie.OriginalMaxAge == 0 && !o.ttlKnown {
		return time.Time{}
	}
	ends := sess.ExpiresAt(o.ttl)
	if last := sess.Created.Add(o.lifetime); o.lifetime > 0 && !sess.Created.IsZero() && last.Before(ends) {
		ends = last
	}
	return ends
}

// A picture is the sessions as they were at a moment.
type picture struct {
	rows  []*row
	rest  figures // of the sessions beyond maxRows
	whole bool    // all sessions were looked at
	err   error   // why the look ended early; nil = it took too long, or did not
	at    time.Time
	took  time.Duration
}

// figures are what the page says of all sessions.
type figures struct {
	Live, Expired, Unreadable int
	Bytes                     int64
	Largest                   int
	oldest                    int64 // created; 0 = not known
}

func (c *figures) add(r *row, now time.Time) {
	switch r.state(now) {
	case alive:
		c.Live++
		if r.created != 0 {
			c.oldest = min(cmp.Or(c.oldest, math.MaxInt64), r.created)
		}
	case expired:
		c.Expired++
	default:
		c.Unreadable++
	}
	c.Bytes += int64(r.size)
	c.Largest = max(c.Largest, r.size)
}

func (p *picture) figures(now time.Time) figures {
	c := p.rest
	for _, r := range p.rows {
		c.add(r, now)
	}
	return c
}

// count is the number of sessions that were looked at.
func (p *picture) count() int {
	return len(p.rows) + p.rest.Live + p.rest.Expired + p.rest.Unreadable
}

// fresh reports whether the picture may be used again. What took long is used for ten times as long.
func (p *picture) fresh(now time.Time, watched bool) bool {
	return p.took >= quick && (watched && p.whole || now.Sub(p.at) < min(10*p.took, time.Minute))
}

// look returns a picture for a page. If whole is set, it waits for all sessions, or until ctx is done.
func (o *operator) look(ctx context.Context, whole bool) *picture {
	limit := firstPage
	if whole {
		limit = wholeLook
	}
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if !o.take(own) { // somebody else looks, and shows how far it is
		return o.picture.Load()
	}
	defer o.give()
	if p := o.picture.Load(); p.fresh(time.Now(), o.hub.isWatching()) && (p.whole || !whole) {
		return p
	}
	return o.scan(own)
}

// patient gives an answer the time of a look at all sessions, whatever the server's WriteTimeout is.
func patient(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wholeLook + writeTimeout)) // an error means that there is none
}

// again is look that does not use a picture twice, and waits as long as ctx.
func (o *operator) again(ctx context.Context) *picture {
	if !o.take(ctx) {
		return o.picture.Load()
	}
	defer o.give()
	return o.scan(ctx)
}

// take waits for the turn to change the picture.
func (o *operator) take(ctx context.Context) bool {
	select {
	case o.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (o *operator) give() { <-o.turn }

// all yields the sessions, and what cannot be read if the Source tells.
func (o *operator) all(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	if o.scanner != nil {
		return o.scanner.Scan(ctx)
	}
	return o.source.All(ctx)
}

// scan makes the next picture, until ctx is done. Its caller has the turn. Meanwhile others see how far it is, if they
// have nothing better.
func (o *operator) scan(ctx context.Context) *picture {
	was, began := o.picture.Load(), time.Now()
	p := &picture{at: began}
	lap := began
	for e, err := range o.all(ctx) {
		if err != nil && e.ID == "" {
			if p.err = err; ctx.Err() != nil {
				p.err = nil
			}
			break
		}
		r := o.row(e, err)
		if len(p.rows) < maxRows {
			p.rows = append(p.rows, r)
		} else {
			p.rest.add(r, began)
		}
		if p.count()%64 != 0 {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if now := time.Now(); now.Sub(lap) > 500*time.Millisecond {
			lap = now
			if !was.whole {
				part := *p
				part.rows, part.took = slices.Clip(slices.Clone(p.rows)), now.Sub(began)
				o.picture.Store(&part)
			}
		}
	}
	p.rows = o.history.left(p.rows)
	p.took = time.Since(began)
	p.whole = ctx.Err() == nil && p.err == nil
	if p.err != nil && !errors.Is(p.err, filestore.ErrClosed) {
		o.opts.Logger.ErrorContext(ctx, "sessionui: the sessions could not all be read", "err", p.err)
	}
	if !p.whole && was.whole && p.at.Sub(was.at) < time.Minute {
		return was // better complete than new
	}
	o.history.compare(was, p)
	o.picture.Store(p)
	return p
}

// apply reads again what has changed. Its caller has the turn.
func (o *operator) apply(ctx context.Context, ids map[string]bool) {
	was := o.picture.Load()
	now := make(map[string]*row, len(ids))
	for id := range ids {
		sess, err := o.get(ctx, id)
		switch {
		case errors.Is(err, filestore.ErrExpired): // it stays until it is reaped
		case errors.Is(err, filestore.ErrNotFound):
			now[id] = nil
		case ctx.Err() != nil:
			return
		default:
			now[id] = o.row(filestore.Entry{ID: id, Session: sess}, err)
		}
	}
	o.replace(was, now)
}

// get is the Source's Get. It is no error of the site if the page meets what cannot be read.
func (o *operator) get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := o.getter.Get(ctx, id)
	o.history.met(err)
	return sess, err
}

// replace makes a picture in which some rows are others, or gone if they are nil.
func (o *operator) replace(was *picture, now map[string]*row) {
	p := *was
	p.rows = make([]*row, 0, len(was.rows)+len(now))
	seen := make(map[string]bool, len(now))
	gone := make(map[string]*row, len(now))
	for _, r := range was.rows {
		next, changed := now[r.id]
		if !changed {
			p.rows = append(p.rows, r)
			continue
		}
		seen[r.id], gone[r.id] = true, r
		if next != nil {
			p.rows = append(p.rows, next)
		}
	}
	for id, r := range now {
		if r != nil && !seen[id] && len(p.rows) < maxRows {
			p.rows = append(p.rows, r)
		}
	}
	if was.whole {
		o.history.change(gone, now)
	}
	o.picture.Store(&p)
}
