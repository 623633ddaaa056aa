package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file tells open connections that their session has ended.

// Done returns a channel that is closed within a second of the end of the session, by
// whatever process: by a logout, Manager.End and the like, or because its time is over. It
// is also closed when the request's handler has returned. Let it end a WebSocket or an event
// stream:
//
//	select {
//	case msg := <-messages:
//		…
//	case <-session.From(r).Done():
//		return
//	}
//
// If another request gives the session a new id, as a login does, Done is closed too: the
// client must come again, with its new cookie. All sessions of a Manager share one watch of
// the Store. The Done of a nil Session is closed.
func (s *Session) Done() <-chan struct{} {
	if s == nil {
		return closed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.door != nil:
	case s.ended || s.over:
		s.door, s.doorClosed = closed, true
	default:
		s.door, s.doorEnds = make(chan struct{}), s.until
		s.m.shared.doors.open(s, s.id)
	}
	return s.door
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// closeDoor closes Done's channel. Its caller holds mu.
func (s *Session) closeDoor() {
	if s.door != nil && !s.doorClosed {
		close(s.door)
		s.doorClosed = true
	}
}

const (
	// lookEvery is how often a Store is asked that does not tell of changes.
	lookEvery = 400 * time.Millisecond

	// settling is how long another one is asked too: after a watch has begun, which does not
	// say when it works, and of a session that may have ended just before somebody asked.
	settling = 2 * time.Second
)

// doors are the sessions whose end somebody waits for. While there are some, a goroutine
// follows the Store. Who holds the mu of a Session may take that of doors, and not the
// other way round.
type doors struct {
	mu   sync.Mutex
	byID map[string][]*Session
	stop func() // ends the goroutine and waits for it; nil if there is none
}

func (d *doors) open(s *Session, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byID == nil {
		d.byID = make(map[string][]*Session)
	}
	d.byID[id] = append(d.byID[id], s)
	s.doorSince = time.Now()
	if d.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.follow(ctx, s.m) })
	d.stop = func() {
		cancel()
		wg.Wait()
	}
}

// move tells that s has the new id. Its caller holds the mu of s, as those of open and
// leave do.
func (d *doors) move(s *Session, old, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drop(s, old) {
		d.byID[id] = append(d.byID[id], s)
		s.doorSince = time.Now()
	}
}

// drop forgets s. Its caller holds mu.
func (d *doors) drop(s *Session, id string) bool {
	i := slices.Index(d.byID[id], s)
	if i < 0 {
		return false
	}
	if d.byID[id] = slices.Delete(d.byID[id], i, i+1); len(d.byID[id]) == 0 {
		delete(d.byID, id)
	}
	return true
}

// shut ends the wait of a request that is over. The last one stops the goroutine.
func (d *doors) shut(s *Session) {
	if stop := d.leave(s); stop != nil {
		stop()
	}
}

// leave forgets s, and returns what stops the goroutine if that was the last one.
func (d *doors) leave(s *Session) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.door == nil {
		return nil
	}
	s.closeDoor()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(s, s.id)
	if len(d.byID) == 0 {
		stop, d.stop = d.stop, nil
	}
	return stop
}

// sessions returns those with the id, or all.
func (d *doors) sessions(id string, all bool) []*Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !all {
		return slices.Clone(d.byID[id])
	}
	var list []*Session
	for _, some := range d.byID {
		list = append(list, some...)
	}
	return list
}

// follow closes the doors of sessions that have ended, until ctx is done.
func (d *doors) follow(ctx context.Context, m *Manager) {
	type change struct {
		id  string
		all bool // some changes may have been missed
	}
	var changes chan change // nil: nobody tells
	if w, ok := m.Store.(Watcher); ok {
		changes = make(chan change)
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() {
			defer close(changes)
			defer logPanic(ctx)
			for e, err := range w.Watch(ctx) {
				if err == nil && len(d.sessions(e.ID, false)) == 0 {
					continue
				}
				select {
				case changes <- change{e.ID, err != nil}:
				case <-ctx.Done():
				}
			}
		})
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case c, ok := <-changes:
			if !ok { // the watch has failed
				changes = nil
			}
			m.look(ctx, d.sessions(c.id, c.all))
		case <-tick.C:
			ask := changes == nil || time.Since(began) < settling
			m.look(ctx, slices.DeleteFunc(d.sessions("", true), func(s *Session) bool { return !ask && !s.isDue() }))
		}
	}
}

// isDue reports whether the session can have expired, or has come just now, or its request
// knows that it is over.
func (s *Session) isDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over || s.stored && (time.Now().After(s.doorEnds) || time.Since(s.doorSince) < settling)
}

// look closes the doors of those sessions that have ended.
func (m *Manager) look(ctx context.Context, sessions []*Session) {
	for _, s := range sessions {
		s.mu.Lock()
		id, over, ask := s.id, s.over, s.stored && !s.doorClosed && !s.moving
		s.mu.Unlock()
		var ends time.Time
		if !over && ask {
			over, ends = m.isGone(ctx, id)
		}
		s.mu.Lock()
		switch {
		case s.id != id || s.moving && !s.over: // its own request gives it another id
		case over:
			s.closeDoor()
		case !ends.IsZero():
			s.doorEnds = ends
		}
		s.mu.Unlock()
	}
}

// isGone reports whether the Store says that the session id is not there any more, or else
// when it ends; zero if the Store fails.
func (m *Manager) isGone(ctx context.Context, id string) (gone bool, ends time.Time) {
	defer logPanic(ctx)
	sess, err := m.Store.Get(ctx, id)
	switch {
	case errors.Is(err, filestore.ErrNotFound), unreadable(err):
		return true, ends
	case err != nil || sess == nil:
		return false, ends
	}
	return false, m.endOf(sess)
}
