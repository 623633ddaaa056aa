package filestore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sessionfilestore/filestore/internal/lock"
)

// An Entry is one session of All.
type Entry struct {
	ID      string
	Session *Session
}

// IDs yields the id of each session file, in no order, without reading the file: the session may have
// expired, or the file may not hold one. Sessions that come or go meanwhile may or may not be among
// them. It ends after an error.
func (s *Store) IDs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for t, err := range s.targets(ctx, "ids") {
			if err == nil && !s.isFile(t) {
				continue
			}
			if !yield(t.id, err) {
				return
			}
		}
	}
}

func (s *Store) isFile(t target) bool {
	p, err := s.enter(context.Background())
	if err != nil {
		return false // targets will say so
	}
	defer p.ops.Done()
	i, err := p.dir.Stat(t.name)
	return err == nil && i.Mode.IsRegular()
}

// targets yields the names that are those of sessions.
func (s *Store) targets(ctx context.Context, op string) iter.Seq2[target, error] {
	return func(yield func(target, error) bool) {
		p := s.here()
		err := s.within(ctx, func(in *place) error { p = in; return in.there() })
		if err == nil {
			for name, listErr := range p.dir.Names() { // not under enter: Close must not wait for the caller's loop
				if err = cmp.Or(s.interrupted(ctx), listErr); err != nil {
					break
				}
				if t, ok := p.sessionOf(name); ok && !yield(t, nil) {
					return
				}
			}
		}
		if err = cmp.Or(err, s.interrupted(ctx)); err != nil {
			yield(target{}, wrap(op, "", err))
		}
	}
}

// All yields the live sessions, in no order. Expired sessions and files that hold no session are
// passed over. For a session that could not be read for another reason it yields the error, with an
// Entry that has the ID and no Session, and goes on.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for t, err := range s.targets(ctx, "all") {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			p, err := s.enter(ctx)
			if err != nil {
				continue // targets will say so
			}
			sess, err := p.load(ctx, t, false) // a scan must not empty the cache
			p.ops.Done()
			if !noSession(err) && !yield(Entry{t.id, sess}, wrap("all", t.id, err)) {
				return
			}
		}
	}
}

// Scan yields all sessions with a file, in no order, also those that All passes over: one that has expired and was not
// reaped comes with its Session and an error that is ErrExpired; for one that could not be read, whatever the reason,
// Scan yields an Entry that has the ID and no Session, and the error. It goes on after both. An error without an ID ends
// it. Files are read a few hundred ahead of the loop, by several goroutines, so that a Session is as its file was a
// moment before.
//
// An expired session comes with its Session because nobody has removed it yet: an operator who asks why the directory
// is large wants to see whose it was, and since when it waits.
func (s *Store) Scan(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		// While the loop has one batch the next is read.
		var batch, ready []scanned
		turn := func() (goOn bool) {
			wait := s.read(ctx, batch)
			defer wait()
			goOn = s.yield(ctx, ready, yield)
			batch, ready = ready[:0], batch
			return goOn
		}
		var end error
		for t, err := range s.targets(ctx, "scan") {
			if end = err; end != nil {
				break
			}
			if batch = append(batch, scanned{target: t}); len(batch) == scanBatch && !turn() {
				return
			}
		}
		for range 2 { // the batch that waits, and the one that is not full
			if !turn() {
				return
			}
		}
		if end != nil {
			yield(Entry{}, end)
		}
	}
}

const scanBatch = 256 // files: enough to keep the readers busy, and few in memory

type scanned struct {
	target
	sess *Session
	err  error
}

// read begins to read the batch; wait returns when it is read.
func (s *Store) read(ctx context.Context, batch []scanned) (wait func()) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), 8, len(batch)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(batch)); i = next.Add(1) - 1 {
				batch[i].sess, batch[i].err = s.scanOne(ctx, batch[i].target)
			}
		})
	}
	return wg.Wait
}

// yield yields the batch. It returns false if the loop has ended.
func (s *Store) yield(ctx context.Context, batch []scanned, yield func(Entry, error) bool) bool {
	for _, f := range batch {
		if errors.Is(f.err, ErrNotFound) && f.sess == nil || s.interrupted(ctx) != nil { // targets will say so
			continue
		}
		if !yield(Entry{f.id, f.sess}, wrap("scan", f.id, f.err)) {
			return false
		}
	}
	return true
}

func (s *Store) scanOne(ctx context.Context, t target) (*Session, error) {
	p, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer p.ops.Done()
	d, err := p.document(ctx, t, false) // a scan must not empty the cache
	if err != nil {
		return nil, err
	}
	sess := new(Session)
	if err = p.check(d, sess); err != nil && !errors.Is(err, ErrExpired) {
		return nil, err
	}
	sess.Values = d.members.Values()
	return sess, err
}

// Len returns the number of live sessions. It reads each.
func (s *Store) Len(ctx context.Context) (n int, err error) {
	for _, err := range s.All(ctx) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// Clear destroys all sessions, also those that have expired or are larger than Options.MaxSize. Everything
// else in the directory stays, also a file that is named like a session but does not hold one. A session
// that is made meanwhile may survive. Clear goes on after an error and returns the first.
func (s *Store) Clear(ctx context.Context) error {
	return wrap("clear", "", s.within(ctx, func(p *place) error { return p.clear(ctx) }))
}

func (p *place) clear(ctx context.Context) error {
	if p.locks == nil {
		return errReadOnly
	}
	err := p.there()
	if err != nil {
		return err
	}
	own, cancel := p.untilClose(ctx)
	defer cancel()
	stuck := make(map[int]bool) // the locks of a stopped holder: to wait once is enough
	for t, oneErr := range p.targets(ctx, "clear") {
		l := p.locks.Index(t.id)
		if oneErr == nil && !stuck[l] {
			oneErr = p.locks.Again(own, p.opts.LockTimeout, func() error {
				d, err := p.document(own, t, false)
				if err == nil {
					err = counted(&p.counts.destroys, p.remove(own, t, d))
				}
				if noSession(err) {
					return nil
				}
				return err
			})
			stuck[l] = errors.Is(oneErr, ErrLockTimeout) && !errors.Is(oneErr, lock.ErrConflict)
			oneErr = wrap("clear", t.id, p.closedOr(oneErr))
		}
		err = cmp.Or(err, oneErr)
	}
	return cmp.Or(err, wrap("clear", "", p.dir.Sync()))
}
