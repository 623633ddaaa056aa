package backend

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A Reaper is an Engine that does not remove rows by itself when their time is over.
type Reaper interface {
	Engine

	// Reap removes the rows that are not live any more, and returns their number. It calls alive whenever the server has
	// answered.
	Reap(ctx context.Context, alive func()) (int, error)
}

// A ReapingStore is a Store on a Reaper, with a background reaper.
type ReapingStore struct {
	*Store
	engine Reaper

	mu     sync.Mutex
	onReap []func(removed int)
}

// NewReaping returns the Store on e, and starts its background reaper; see New.
func NewReaping(e Reaper, o Options) (*ReapingStore, error) {
	s, err := New(e, o)
	if err != nil {
		return nil, err
	}
	r := &ReapingStore{Store: s, engine: e}
	if s.opts.ReapInterval > 0 {
		s.ops.Go(r.reapLoop)
	}
	return r, nil
}

// reapLoop is the background reaper. It runs until Close. Several programs need not reap at the same moment, so
// a pass comes after 50 to 150 % of the interval, as in connect-pg-simple.
func (s *ReapingStore) reapLoop() {
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

// Reap removes the sessions whose time is over, and returns their number. One that is renewed meanwhile stays. Any
// number of programs may reap at once. It takes as long as there are sessions to remove; Options.Timeout bounds each wait
// for the server.
func (s *ReapingStore) Reap(ctx context.Context) (n int, err error) {
	err = s.patient(ctx, "reap", func(ctx context.Context, alive func()) (err error) {
		n, err = s.engine.Reap(ctx, alive)
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
// sessions, with their number, in the goroutine of the Reap.
func (s *ReapingStore) OnReap(fn func(removed int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onReap = append(s.onReap, fn)
}
