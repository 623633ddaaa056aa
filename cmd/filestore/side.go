package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// A side is where sessions are moved from, or to.
type side interface {
	// all yields the sessions. If one has expired, the error is filestore.ErrExpired; another one says why it cannot be
	// read. An error without an id ends it.
	all(ctx context.Context) iter.Seq2[item, error]

	// ids yields the ids of the sessions.
	ids(ctx context.Context) iter.Seq2[string, error]

	// find returns the live session id.
	find(ctx context.Context, id string) (item, error)

	// store stores sessions. It says what became of each: nil, fs.ErrExist if a live session has the id, or why it is
	// not stored. err has ended it; errLeft is then about those that it has not come to.
	store(ctx context.Context, items []item) (results []error, err error)

	// remove removes sessions if they are still as they were found. See store for what it returns.
	remove(ctx context.Context, items []item) (results []error, err error)

	close() error
}

var errLeft = errors.New("not tried")

// left returns n times errLeft.
func left(n int) []error {
	results := make([]error, n)
	for i := range results {
		results[i] = errLeft
	}
	return results
}

// A dirSide is a directory.
type dirSide struct {
	*reader
	w *writer // nil if it is only read
}

func (d *dirSide) item(e entry) item {
	return item{id: e.id, sess: e.sess, ends: e.ends, seen: e.info.Seen(e.file)}
}

func (d *dirSide) all(ctx context.Context) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		for e, err := range d.reader.all(ctx) {
			it := item{id: e.id}
			switch {
			case err == nil && e.expired:
				err = filestore.ErrExpired
			case err == nil:
				it = d.item(e)
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

func (d *dirSide) ids(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range d.names(ctx) {
			if id, ok := d.idOf(name); (ok || err != nil) && !yield(id, err) {
				return
			}
		}
	}
}

// find returns the session with the end that store has given it, also if --ttl is shorter.
func (d *dirSide) find(ctx context.Context, id string) (item, error) {
	e, err := d.read(d.a.ext.File(id))
	if err == nil && e.expired {
		err = filestore.ErrExpired
	}
	if err != nil {
		return item{}, err
	}
	it := d.item(e)
	if at := e.info.ModTime(); e.notDue(d.a.now()) && at.After(it.ends) {
		it.ends = at
	}
	return it, nil
}

// store stages the sessions as import does. They are on the disk when it returns. The time of a file is the session's
// end also if it has no maxAge: the programs then look at the file when it ends, and not before.
func (d *dirSide) store(ctx context.Context, items []item) ([]error, error) {
	results := left(len(items))
	m := &importer{writer: d.w, settle: func(at int, err error) { results[at] = err }}
	var err error
	for i, it := range items {
		m.at = i
		if err = d.stage(ctx, m, it); fatal(err) {
			break
		}
		if err != nil {
			results[i] = err
		}
		err = nil
	}
	err = cmp.Or(err, m.commit(ctx))
	if flushErr := d.w.flush(); flushErr != nil { // nothing is safe
		return left(len(items)), flushErr
	}
	if line, ok := errors.AsType[*lineError](err); ok {
		err = line.Unwrap()
	}
	return results, readOnlyHere(cause(err))
}

func (d *dirSide) stage(ctx context.Context, m *importer, it item) error {
	if _, ok := d.idOf(d.a.ext.File(it.id)); !ok {
		return filestore.ErrInvalidID
	}
	doc, err := it.sess.MarshalJSON()
	if err != nil {
		return err
	}
	return m.stage(ctx, it.id, doc, format.Mtime(it.ends))
}

func (d *dirSide) remove(ctx context.Context, items []item) ([]error, error) {
	results := left(len(items))
	for i, it := range items {
		err := d.w.remove(ctx, it.id, it.seen)
		if err == lock.ErrConflict && !d.exists(d.a.ext.File(it.id)) {
			err = nil // others have removed it
		}
		if fatal(err) {
			return results, readOnlyHere(cause(err))
		}
		results[i] = err
	}
	return results, nil
}

func (d *dirSide) close() error {
	defer d.reader.close()
	if d.w == nil {
		return nil
	}
	return d.w.flush()
}

const (
	// An engine's Store tells a session's last access by its end and the TTL. If the TTL is longer than any session
	// lives, it tells the end of each one.
	anyTTL = 100 * 365 * day

	engineTimeout = 30 * time.Second
)

// An engineSide is an engine.
type engineSide struct {
	a *app
	*open.Store
}

// capped returns until when a session lives that would live until ends.
func (e engineSide) capped(ends time.Time, sess *filestore.Session) time.Time {
	return ends.Add(format.Capped(0, ends, sess.Created, e.a.lifetime))
}

func (e engineSide) item(id string, sess *filestore.Session) item {
	now, maxAge := e.a.now(), sess.Cookie.OriginalMaxAge
	ends := sess.LastAccess.Add(format.Life(maxAge, anyTTL))
	none := ends.Sub(now) > anyTTL/2 && maxAge == 0
	if none {
		ends = now.Add(e.a.ttl)
	}
	if sess.LastAccess = ends.Add(-format.Life(maxAge, e.a.ttl)); sess.LastAccess.After(now) {
		sess.LastAccess = now
	}
	return item{id: id, sess: sess, ends: e.capped(ends, sess), none: none}
}

func (e engineSide) all(ctx context.Context) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		for entry, err := range e.Scan(ctx) {
			it := item{id: entry.ID}
			if err == nil {
				if it = e.item(entry.ID, entry.Session); !it.ends.After(e.a.now()) {
					err = filestore.ErrExpired
				}
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

func (e engineSide) ids(ctx context.Context) iter.Seq2[string, error] { return e.IDs(ctx) }

func (e engineSide) find(ctx context.Context, id string) (item, error) {
	sess, err := e.Get(ctx, id)
	if err != nil {
		return item{}, err
	}
	return e.item(id, sess), nil
}

// store stores all at once. If that is refused it stores each half, so that one session does not keep out the others.
func (e engineSide) store(ctx context.Context, items []item) ([]error, error) {
	entries := make([]filestore.Entry, len(items))
	for i, it := range items {
		sess := *it.sess
		sess.LastAccess = it.ends.Add(-format.Life(sess.Cookie.OriginalMaxAge, anyTTL))
		entries[i] = filestore.Entry{ID: it.id, Session: &sess}
	}
	stored, err := e.Import(ctx, entries)
	results := left(len(items))
	if err == nil {
		for i, ok := range stored {
			switch {
			case ok:
				results[i] = nil
			case items[i].ends.After(e.a.now()):
				results[i] = fs.ErrExist
			default:
				results[i] = filestore.ErrExpired
			}
		}
		return results, nil
	}
	if _, getErr := e.Get(ctx, items[0].id); getErr != nil && !aboutSession(getErr) {
		return results, err // the engine answers nothing at all
	}
	if len(items) == 1 {
		return []error{err}, nil
	}
	half := len(items) / 2
	first, err := e.store(ctx, items[:half])
	if err != nil {
		return append(first, left(len(items)-half)...), err
	}
	rest, err := e.store(ctx, items[half:])
	return append(first, rest...), err
}

func (e engineSide) remove(ctx context.Context, items []item) ([]error, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.id
	}
	if err := e.DestroyAll(ctx, ids); err != nil {
		return left(len(items)), err
	}
	return make([]error, len(items)), nil
}

func (e engineSide) close() error { return e.Store.Close() }

// A dryRun is a side that is only looked at.
type dryRun struct{ side }

func (d dryRun) store(ctx context.Context, items []item) ([]error, error) {
	results := left(len(items))
	for i, it := range items {
		_, err := d.find(ctx, it.id)
		switch {
		case err == nil:
			results[i] = fs.ErrExist
		case errors.Is(err, filestore.ErrNotFound):
			results[i] = nil
		case aboutSession(err):
			results[i] = err
		default:
			return results, err
		}
	}
	return results, nil
}

func (dryRun) remove(_ context.Context, items []item) ([]error, error) {
	return make([]error, len(items)), nil
}
