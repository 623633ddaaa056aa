package session

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A session must not end while a request that came in time is under way. So a timer
// touches it, in beats: the first is the access, soon after the request's arrival if
// nothing was stored by then, the others come before the session would end. Most requests
// are over before the first.

const (
	soon        = time.Second     // after its arrival a request is an access
	unknownLife = time.Minute     // assumed of a Store that is not a Lifer
	longestRest = 5 * time.Second // between two looks, as another request may shorten the session's life
)

// life returns how long a session with the cookie c lives after its last access.
func (m *Manager) life(c *filestore.Cookie) time.Duration {
	if c.OriginalMaxAge != 0 {
		return c.OriginalMaxAge
	}
	return m.shared.ttl
}

// keep notes when the session that was just loaded ends, and begins its beats.
func (s *Session) keep() {
	left := s.m.life(&s.Cookie)
	if !s.LastAccess.IsZero() && (s.Cookie.OriginalMaxAge != 0 || s.m.shared.ttlKnown) {
		left = time.Until(s.LastAccess.Add(left))
	}
	wait := min(soon, left/5)
	s.mu.Lock()
	s.until = time.Now().Add(left)
	s.plan(wait)
	s.mu.Unlock()
	if wait < soon/20 { // it came in time, and no timer is as sure as to do it now
		s.prolong()
	}
}

// lives notes that the session lives for d from now at least. Its caller has mu.
func (s *Session) lives(d time.Duration) {
	s.until = time.Now().Add(d)
	s.plan(d - d/5) // a margin for a slow machine
}

// plan lets the next beat come after d. Its caller has mu.
func (s *Session) plan(d time.Duration) {
	if _, ok := s.m.Store.(Toucher); !ok {
		return
	}
	s.unplan()
	if !s.ended {
		s.beats.Add(1)
		s.timer = time.AfterFunc(max(time.Millisecond, min(d, longestRest)), s.beat)
	}
}

func (s *Session) unplan() {
	if s.timer != nil && s.timer.Stop() {
		s.beats.Done()
	}
	s.timer = nil
}

// stop ends the beats; none is under way when it returns.
func (s *Session) stop() {
	s.mu.Lock()
	s.ended = true
	s.unplan()
	s.mu.Unlock()
	s.beats.Wait()
}

func (s *Session) beat() {
	defer s.beats.Done()
	defer func() {
		if v := recover(); v != nil { // here no server recovers: one damaged session would end the program
			slog.ErrorContext(s.ctx, "session: the Store has panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default: // a method is at work, and may be replacing the session
		s.mu.Lock()
		defer s.mu.Unlock()
		s.plan(time.Until(s.until) / 5)
		return
	}
	s.prolong()
}

// prolong touches the session if that has not been done yet, or if it is about to end, and
// plans the next beat. It looks at nothing that belongs to the handler.
func (s *Session) prolong() {
	t, ok := s.m.Store.(Toucher)
	s.mu.Lock()
	id, life, first := s.id, s.m.life(&s.baseCookie), !s.accessed
	idle := !ok || s.ended || s.over || !s.stored // until something is stored
	s.mu.Unlock()
	if idle {
		return
	}
	left := life / 2 // if the write was spared
	var err error
	if !first {
		var sess *filestore.Session
		if sess, err = s.m.get(s.ctx, id); err == nil {
			life = s.m.life(&sess.Cookie)
			left = time.Until(sess.LastAccess.Add(life))
		}
	}
	if err == nil && (first || left <= life/4) {
		left = life / 2
		err = t.Touch(s.ctx, id, nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.accessed = true
		s.lives(left)
	case !errors.Is(err, filestore.ErrNotFound):
		s.plan(time.Until(s.until) / 5) // again
	case time.Now().Before(s.until):
		s.over = true // before its time only a logout ends a session
	}
}
