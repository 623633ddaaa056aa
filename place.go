package filestore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/index"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// A place is an opened directory with all that goes with it. If the directory is deleted, another place
// succeeds it in the Store; operations that are under way in the old one end there.
type place struct {
	*Store
	ext   format.Extension
	dir   *disk.Dir
	locks *lock.Table                   // nil: read-only
	cache *lru.Cache[string, *document] // nil: none
	index *index.Index                  // nil: none

	ops   sync.WaitGroup // the operations under way
	moved sync.Once      // logs that it was moved
	scans sync.Once      // logs that Find has no index
}

// newPlace takes over dir, and closes it if it fails.
func (s *Store) newPlace(dir *disk.Dir) (*place, error) {
	p := &place{Store: s, ext: format.Extension(s.opts.Extension), dir: dir}
	if s.opts.CacheSize > 0 {
		p.cache, _ = lru.New[string, *document](s.opts.CacheSize) // its only error is a size below 1
	}
	if mode := dir.Info().Mode; mode&0o022 != 0 && disk.Modes {
		s.opts.Logger.Warn("filestore: others may write to the session directory", "dir", dir.Path(), "mode", mode)
	}
	if s.opts.ReadOnly {
		return p, nil
	}
	p.index = p.newIndex()
	var err error
	if p.locks, err = lock.Open(dir, p.ext, s.opts.Logger); err != nil {
		dir.Close()
		return nil, wrap("open", "", err)
	}
	p.locks.Counts = &s.counts.locks
	return p, nil
}

// reopen puts another place in that of old, whose directory was deleted: the one at its path.
func (s *Store) reopen(old *place) error {
	s.reopening.Lock()
	defer s.reopening.Unlock()
	if s.here() != old {
		return nil // somebody else has just done so
	}
	dir, err := old.dir.Reopen()
	if err != nil {
		return err
	}
	p, err := s.newPlace(dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return dir.Close()
	}
	s.at = p
	s.own.Go(func() {
		s.opts.Logger.Warn("filestore: the session directory was deleted; opened the one at its path", "dir", dir.Path())
		old.index.Close()
		old.ops.Wait()
		old.dir.Close()
	})
	return nil
}

// here returns the present place. Its directory can be closed meanwhile. So without enter only its Path,
// InPlace, Names and Lstat may be used.
func (s *Store) here() *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// enter admits an operation, unless the Store is closed or ctx is done; ops.Done of the place must
// follow. Close waits for all that have entered.
func (s *Store) enter(ctx context.Context) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.at.ops.Add(1)
	return s.at, nil
}

// within runs fn in the present place. If fn fails because the directory was deleted, within runs it
// again in the place that succeeds it.
func (s *Store) within(ctx context.Context, fn func(p *place) error) (err error) {
	for range 100 { // one more is enough, unless somebody deletes all the time
		var gone bool
		p, enterErr := s.enter(ctx)
		if enterErr != nil {
			return enterErr
		}
		if gone, err = p.attempt(fn); !gone {
			return err
		}
		openErr := s.reopen(p)
		if openErr != nil && err == ErrNotFound { // true in any case
			return err
		}
		if openErr != nil && !errors.Is(openErr, disk.ErrGone) {
			return openErr
		}
	}
	return err
}

// attempt looks after each failure whether the directory is gone, as that gives many.
func (p *place) attempt(fn func(p *place) error) (gone bool, err error) {
	defer p.ops.Done()
	err = fn(p)
	return err != nil && (p.dir.Gone() || errors.Is(err, disk.ErrGone)), err
}

// there is disk.ErrGone if the directory was deleted, for those who list it and would find it empty.
func (p *place) there() error {
	if p.dir.Gone() {
		return disk.ErrGone
	}
	if p.locks != nil && !p.dir.InPlace() && errors.Is(p.locks.Remake(), disk.ErrGone) {
		return disk.ErrGone
	}
	return nil
}

// A target is a valid id, and what goes with it.
type target struct {
	id, name string    // name is the file's
	cached   *document // nil: none
}

func (p *place) target(id string) target {
	if p.cache != nil {
		if d, ok := p.cache.Get(id); ok {
			return target{id, d.origin.name, d}
		}
	}
	return target{id: id, name: p.ext.File(id)}
}

// sessionOf returns the session that the file name belongs to; false for other names.
func (p *place) sessionOf(name string) (target, bool) {
	id, ok := p.ext.ID(name)
	return target{id: id, name: name}, ok && p.claimed(id) == nil
}

// claimed returns ErrInvalidID if the name of the session id belongs to a store with a longer extension.
func (p *place) claimed(id string) error {
	mark := p.ext.Claim(id)
	if mark == "" {
		return nil
	}
	_, err := p.dir.Lstat(mark)
	switch {
	case err == nil:
		return ErrInvalidID
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// do is the frame of an operation on one session; the id is checked before any system call.
func (s *Store) do(ctx context.Context, op, id string, fn func(p *place, t target) error) error {
	if !format.Extension(s.opts.Extension).ValidID(id) {
		return wrap(op, id, ErrInvalidID)
	}
	return wrap(op, id, s.within(ctx, func(p *place) error {
		if err := p.claimed(id); err != nil {
			return err
		}
		return fn(p, p.target(id))
	}))
}

// write is do for what waits for the disk at its end. Nobody need wait for that but its caller: whoever comes
// next finds the change.
func (s *Store) write(ctx context.Context, op, id string, fn func(p *place, t target) error) error {
	return s.do(ctx, op, id, func(p *place, t target) error {
		if p.locks == nil {
			return errReadOnly
		}
		if err := fn(p, t); err != nil {
			return err
		}
		return p.dir.Sync()
	})
}

// What a session's file may hold if it does not matter, and if there is no file.
var anything, nothing = new(document), new(document)

// locked makes a change under the session's lock. The lock is held for a look and the change, never while a
// Codec works or somebody's function runs. So what depends on the contents of a file reads it before: was is
// what it has read. If the file is another one by then the error is lock.ErrConflict.
func (p *place) locked(ctx context.Context, t target, was *document, change func(*lock.Stripe) error) error {
	l, err := p.locks.Lock(ctx, t.id, p.opts.LockTimeout)
	if err != nil {
		return err
	}
	defer l.Unlock()
	if was != anything {
		if same, err := p.dir.Still(t.name, was.origin.Seen); err != nil || !same {
			return cmp.Or(err, lock.ErrConflict)
		}
	}
	return change(l)
}

// setTurn is the turn in which the Sets of the session id go.
func setTurn(id string) string { return "set " + id }

// inTurn runs fn in the turn, which is an id or, as no id has a space in it, a word before one. fn gets what the place
// holds of the session id by then. While it runs again after a conflict the Sets of the session wait, for a moment: many
// of them, one after the other, leave it no gap.
func (p *place) inTurn(ctx context.Context, turn, id string, fn func(target) error) error {
	wait := p.opts.LockTimeout
	return p.locks.InTurn(ctx, turn, wait, p.locks.Ahead(ctx, setTurn(id), wait, func() error { return fn(p.target(id)) }))
}

// interrupted returns why a long scan must stop, or nil.
func (s *Store) interrupted(ctx context.Context) error {
	if s.done.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
}

// untilClose returns a context for long work: Close does not wait for all the locks that it would take.
func (s *Store) untilClose(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.done, cancel)
	return ctx, func() { stop(); cancel() }
}

// closedOr returns err, or ErrClosed if Close has ended a wait.
func (s *Store) closedOr(err error) error {
	if errors.Is(err, context.Canceled) && s.done.Err() != nil {
		return ErrClosed
	}
	return err
}

// code passes data through the Codec, by the method that it has.
func (s *Store) code(ctx context.Context, id string, data []byte, plain func(c Codec, id string, data []byte) ([]byte, error),
	waits func(c ContextCodec, ctx context.Context, id string, data []byte) ([]byte, error)) ([]byte, error) {
	if s.opts.Codec == nil {
		return data, nil
	}
	c, ok := s.opts.Codec.(ContextCodec)
	if !ok {
		return plain(s.opts.Codec, id, data)
	}
	ctx, cancel := s.untilClose(ctx)
	defer cancel()
	data, err := waits(c, ctx, id, data)
	return data, s.closedOr(err)
}
