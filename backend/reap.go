package backend

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// reapLoop is the background reaper. It runs until Close. Several programs need not reap at the same moment, so
// a pass comes after 50 to 150 % of the interval, as in connect-pg-simple.
func (s *Store) reapLoop() {
	for {
		wait := s.opts.ReapInterval/2 + rand.N(s.opts.ReapInterval)
		select {
		case <-s.done.Done():
			return
		case <-time.After(wait):
		}
		if _, err := s.Reap(s.done); err != nil && s.done.Err() == nil {
			s.opts.Logger.Error("filestore: reap", "err", err)
		}
	}
}

// Reap removes the sessions whose time is over, and returns their number. On an engine that does so by itself
// it fails with errors.ErrUnsupported.
func (s *Store) Reap(ctx context.Context) (n int, err error) {
	r, ok := s.engine.(Reaper)
	if !ok {
		return 0, s.wrap("reap", "", errors.ErrUnsupported)
	}
	err = s.do(ctx, "reap", "", func(ctx context.Context) (err error) {
		n, err = r.Reap(ctx)
		return err
	})
	s.mu.Lock()
	fns := s.onReap // append does not change what is in it
	s.mu.Unlock()
	for _, fn := range fns {
		if n > 0 {
			fn(n)
		}
	}
	return n, err
}

// OnReap registers fn, which is called after each Reap of this Store, also in the background, that has removed
// sessions, with their number. An engine that removes them by itself tells nobody.
func (s *Store) OnReap(fn func(removed int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onReap = append(s.onReap, fn)
}
