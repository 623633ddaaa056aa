package session

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

// This file keeps a session alive while a request that came in time is under way. A
// timer touches it, in beats. The first beat comes soon after the request's arrival,
// unless the session was stored by then. The others come before the session would end.
// Most requests are over before the first.

const (
	// firstBeat is the longest wait for the first beat: an access is late by no more.
	firstBeat = time.Second

	// unknownLife is the life that we assume if the Store is not a Lifer. Such a Store is
	// touched more often than need be, and a session that lives less may end early.
	unknownLife = time.Minute

	// longestRest is the longest wait between two beats, because another request may
	// shorten the session's life. A life shorter than this is seen too late.
	longestRest = 5 * time.Second
)

// life returns how long a session with the cookie c lives after its last access.
func (m *Manager) life(c *filestore.Cookie) time.Duration {
	if c.OriginalMaxAge != 0 {
		return c.OriginalMaxAge
	}
	return m.shared.ttl
}

// keepAlive notes when the session that was just loaded ends, and plans the first beat.
func (s *Session) keepAlive() {
	left := s.m.life(&s.Cookie)
	if !s.LastAccess.IsZero() && (s.Cookie.OriginalMaxAge != 0 || s.m.shared.ttlKnown) {
		left = time.Until(s.LastAccess.Add(left))
	}
	wait := min(firstBeat, left/5)
	s.mu.Lock()
	s.setUntil(left)
	s.planBeat(wait)
	s.mu.Unlock()
	if wait < firstBeat/20 { // the session ends within a quarter of a second: a timer may be late
		s.prolong()
	}
}

// livesFor notes that the session lives at least for d from now. Its caller holds mu.
func (s *Session) livesFor(d time.Duration) {
	if s.keepsEnd() {
		return
	}
	s.setUntil(d)
	s.planBeat(d - d/5) // a margin for a slow machine
}

// setUntil notes that the session ends d from now, or when its Lifetime is over. Its
// caller holds mu.
func (s *Session) setUntil(d time.Duration) {
	now := time.Now()
	s.until = now.Add(format.Capped(d, now, s.born, s.m.shared.lifetime))
}

// endOf returns when a session of the Store ends.
func (m *Manager) endOf(sess *filestore.Session) time.Time {
	life := format.Capped(m.life(&sess.Cookie), sess.LastAccess, sess.Created, m.shared.lifetime)
	return sess.LastAccess.Add(life)
}

// NoTouch lets this request leave the session's end where it is, and its cookie too: for
// requests that no user has made, as those of a page that polls. What the request changes
// is stored all the same. Call it early: after a second the request has counted, and at
// once if the session ends within the next quarter of a second. Manager.Prolongs is exact. A
// session that the request makes, or gives a new id, begins now.
//
// A Store that does not know filestore.Session.NoTouch prolongs a session that this request
// changes.
func (s *Session) NoTouch() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noTouch = true
	s.cancelBeat()
}

// keepsEnd reports whether this request does not count as an access. Its caller holds mu.
func (s *Session) keepsEnd() bool { return s.noTouch && s.stored && !s.renewed }

// planBeat sets the timer of the next beat to d, or sooner. Its caller holds mu.
func (s *Session) planBeat(d time.Duration) {
	if _, ok := s.m.Store.(Toucher); !ok {
		return
	}
	s.cancelBeat()
	if !s.ended && !s.keepsEnd() {
		s.beats.Add(1)
		s.timer = time.AfterFunc(max(time.Millisecond, min(d, longestRest)), s.beat)
	}
}

func (s *Session) cancelBeat() {
	if s.timer != nil && s.timer.Stop() {
		s.beats.Done()
	}
	s.timer = nil
}

// stopBeats ends the beats. None is under way when it returns.
func (s *Session) stopBeats() {
	s.mu.Lock()
	s.ended = true
	s.cancelBeat()
	s.mu.Unlock()
	s.beats.Wait()
}

func (s *Session) beat() {
	defer s.beats.Done()
	defer logPanic(s.ctx)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default: // a method is at work, and may be replacing the session: try again
		s.mu.Lock()
		defer s.mu.Unlock()
		s.planBeat(time.Until(s.until) / 5)
		return
	}
	s.prolong()
}

// logPanic is for goroutines of our own, in which no server recovers: one damaged session
// would end the program.
func logPanic(ctx context.Context) {
	if v := recover(); v != nil {
		slog.ErrorContext(ctx, "session: the Store or OnEvent has panicked", "panic", v, "stack", string(debug.Stack()))
	}
}

// prolong touches the session if that has not been done yet or if it is about to end,
// and plans the next beat. It does not look at what belongs to the handler.
func (s *Session) prolong() {
	t, ok := s.m.Store.(Toucher)
	s.mu.Lock()
	id, life, first := s.id, s.m.life(&s.baseCookie), !s.accessed
	idle := !ok || s.ended || s.over || s.keepsEnd() || !s.stored // save plans the next beat
	s.mu.Unlock()
	if idle {
		return
	}
	left, err := s.touchIfDue(t, id, life, first)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.accessed = true
		s.livesFor(left)
	case !errors.Is(err, filestore.ErrNotFound):
		s.planBeat(time.Until(s.until) / 5) // try again
	case time.Now().Before(s.until):
		s.over = true // only a logout ends a session before its time
	}
}

// touchIfDue touches the session id if this is the first time or its end is near, and
// returns how long it lives at least.
func (s *Session) touchIfDue(t Toucher, id string, life time.Duration, first bool) (left time.Duration, err error) {
	if !first {
		sess, err := s.m.get(s.ctx, id)
		if err != nil {
			return 0, err
		}
		life = s.m.life(&sess.Cookie)
		left = time.Until(sess.LastAccess.Add(life))
	}
	if first || left <= life/4 {
		left = life / 2 // not life: the Store may have spared the write
		err = t.Touch(s.ctx, id, nil)
	}
	return left, err
}
