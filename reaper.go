package filestore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// Two workers: checking a session is mostly waiting for system calls.
const reapers = 2

// reapLoop is the background reaper. It runs until Close. Every process on a directory has one: there is
// no lock that lets only one work, as a stopped process that held it would stop reaping everywhere.
func (s *Store) reapLoop() {
	wait := s.opts.ReapInterval / 10 // the first pass is early, for programs that often restart
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-s.done.Done():
			return
		case <-time.After(wait):
			wait = s.opts.ReapInterval
		}
		// After a step ahead everything may seem to have expired. If the clock stays there, the next pass
		// removes it. If it is set right in time, nobody is logged out.
		if step := format.ClockStep(last, time.Now()); step > format.ClockSkew {
			s.opts.Logger.Warn("filestore: reap left out, the clock was set ahead", "dir", s.here().dir.Path(), "by", step)
			continue
		}
		if _, err := s.Reap(s.done); err != nil && s.done.Err() == nil {
			s.opts.Logger.Error("filestore: reap", "dir", s.here().dir.Path(), "err", err)
		}
	}
}

// Reap makes one pass over the directory: it removes the sessions that have expired and the
// temporary files of dead writers, and returns the number of sessions removed. A session that is
// renewed before its removal stays. Files that cannot be read, and files that are not ours, stay. Reap
// goes on after an error and returns the first. Any number of processes may reap at once. A pass also
// drops from the cache the sessions that others have ended or changed.
//
// A file's modification time says when its session ends, by the TTL of the program that wrote it. A
// file is read once that time has passed, and given a later one if the session lives, as a file that
// Node wrote. A file whose time lies ahead stays, so that a program with a short TTL, or with none set,
// does not end a session that another one's TTL keeps alive. So does a session that was written before
// a TTL was shortened.
func (s *Store) Reap(ctx context.Context) (n int, err error) {
	began, unreadable := time.Now(), 0
	err = s.within(ctx, func(p *place) error {
		if p.locks == nil {
			return errReadOnly
		}
		ps, err := p.reap(ctx)
		n, unreadable = n+ps.removed, ps.unreadable
		return err
	})
	err = wrap("reap", "", err)
	s.counts.passed(began, n, unreadable, err)
	s.tellReaped(n)
	return n, err
}

// OnReap registers fn, which is called after each pass of this Store's reaper that has removed sessions, with
// their number, also if the pass ended with an error. It does not tell of sessions that the reapers of other
// Stores and processes remove. Functions are called in the order in which they were registered, in the goroutine
// of the pass: that of the background reaper, or the caller of Reap, which may be several at once. No lock is
// held: fn may use the Store, but not close it. Until it returns the next pass in the background does not begin,
// and Close waits for it.
//
// A panic in fn is treated as one in a Codec is: nothing recovers it. It reaches the caller of Reap; in the
// background it ends the program. The pass is finished and counted by then.
func (s *Store) OnReap(fn func(removed int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onReap = append(s.onReap, fn)
}

// tellReaped calls the functions of OnReap.
func (s *Store) tellReaped(removed int) {
	if removed == 0 {
		return
	}
	s.mu.Lock()
	fns := s.onReap // append does not change what is in it
	s.mu.Unlock()
	for _, fn := range fns {
		fn(removed)
	}
}

// A pass is what one Reap has found. Its workers share it.
type pass struct {
	mu         sync.Mutex
	removed    int
	unreadable int
	stuck      map[int]bool // the locks of a stopped holder: to wait once is enough
	err        error        // the first
}

func (p *place) reap(ctx context.Context) (*pass, error) {
	ps := &pass{stuck: make(map[int]bool)}
	if err := p.there(); err != nil {
		return ps, err
	}
	if !p.dir.InPlace() {
		p.moved.Do(func() {
			p.opts.Logger.Warn("filestore: the session directory was moved; this program goes on in it", "dir", p.dir.Path())
		})
	}
	ctx, cancel := p.untilClose(ctx)
	defer cancel()
	due := make(chan target, 64)
	var workers sync.WaitGroup
	for range reapers {
		workers.Go(func() {
			for t := range due {
				p.visit(ctx, ps, t)
			}
		})
	}
	listErr := p.reapNames(ctx, ps, due)
	close(due)
	workers.Wait()
	p.forget(ctx)
	if ps.unreadable > 0 {
		p.opts.Logger.Warn("filestore: reap passed over files that hold no session", "dir", p.dir.Path(), "files", ps.unreadable)
	}
	return ps, cmp.Or(ps.err, listErr, wrap("reap", "", p.interrupted(ctx)))
}

// reapNames goes through the directory. It sweeps temporary files, and hands on the sessions that may have
// ended.
func (p *place) reapNames(ctx context.Context, ps *pass, due chan<- target) error {
	for name, err := range p.dir.Names() {
		if err := cmp.Or(p.interrupted(ctx), err); err != nil {
			return wrap("reap", "", err)
		}
		t, ok := p.sessionOf(name)
		if !ok {
			ps.fail(wrap("reap", "", p.sweep(name)))
			continue
		}
		if i, err := p.dir.Stat(name); err != nil || !format.NotDue(i.ModTime(), i.ChangeTime(), time.Now()) {
			due <- t
		}
	}
	return wrap("reap", "", p.interrupted(ctx))
}

func (ps *pass) fail(err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.err = cmp.Or(ps.err, err)
}

// visit deals with one session that may have ended, and notes the outcome.
func (p *place) visit(ctx context.Context, ps *pass, t target) {
	l := p.locks.Index(t.id)
	ps.mu.Lock()
	stuck := ps.stuck[l]
	ps.mu.Unlock()
	if stuck || ctx.Err() != nil { // reap reports the end of ctx
		return
	}
	removed, err := p.reapOne(ctx, t)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch {
	case removed:
		ps.removed++
	case errors.Is(err, ErrNotFound): // somebody else was faster
	case noSession(err):
		ps.unreadable++
	default:
		ps.stuck[l] = errors.Is(err, ErrLockTimeout) && !errors.Is(err, lock.ErrConflict)
		if p.done.Err() != nil {
			err = ErrClosed
		}
		ps.err = cmp.Or(ps.err, wrap("reap", t.id, err))
	}
}

// reapOne removes a session if it has expired and its file does not tell of a later end. A session that is
// renewed before its removal stays.
func (p *place) reapOne(ctx context.Context, t target) (removed bool, err error) {
	err = p.locks.Again(ctx, p.opts.LockTimeout, func() error {
		d, err := p.document(ctx, t, false)
		if err != nil {
			return err
		}
		var sess Session
		v := d.origin.Version
		switch err := p.check(d, &sess); {
		case errors.Is(err, ErrExpired) && format.NotDue(v.ModTime(), v.ChangeTime(), time.Now()):
			return nil
		case errors.Is(err, ErrExpired):
			err = p.remove(ctx, t, d)
			removed = err == nil
			return err
		case err != nil:
			return err
		case sess.assumed: // write down a last access that is not in the future
			return p.update(ctx, t, func(*Session) error { return nil })
		}
		if mtime := p.mtime(&sess, nil); !d.lastAccess.IsZero() && mtime.After(v.ModTime()) {
			// So that the next pass need not read it. Only the owner may: else it is read each time. It takes
			// no lock, as it sets the time of the file that was read or of none.
			p.dir.SetTime(t.name, v, mtime)
		}
		return nil
	})
	return removed, err
}

// sweep removes a temporary file that nobody will miss.
func (p *place) sweep(name string) error {
	id, node := p.ext.NodeTemp(name)
	if !format.IsTemp(name) && (!node || p.claimed(id) != nil) {
		return nil
	}
	i, err := p.dir.Stat(name)
	if err != nil || !i.Mode.IsRegular() || !p.ext.Leftover(name, i.ModTime(), i.ChangeTime(), time.Now()) {
		return nil
	}
	if err := p.dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
