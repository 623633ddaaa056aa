package session

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Regenerate destroys the session and begins a new, empty one under a new id.
// Call it whenever the user's rights change, at login above all: an id that
// somebody planted in the browser before is then worth nothing. The new cookie is
// as Manager.Cookie says.
//
// The new session is stored before the old one goes, and of several requests that
// replace one session at the same moment one succeeds. If the old session is gone by
// then, because another request destroyed or replaced it, Regenerate fails with
// filestore.ErrNotFound, and what is put in afterwards goes nowhere: a request that
// copies the user from the old session into the new must not undo a logout. It fails
// with ErrTooLate once the browser cannot be told the new id any more, and with
// ErrCookie if no browser would take it. After any error the old session is as it was,
// and no new one has begun. (If the Store fails in the last step, in which the old
// session goes, it may be gone.)
//
// For some seconds a request that still brings the old id gets a session that is not
// stored and sets no cookie, so that its late answer does not undo a login in the
// browser; and see Destroy. Other processes, and other Managers, do not know of the
// replacement.
func (s *Session) Regenerate() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	if err := s.regenerate(); err != nil {
		return fmt.Errorf("session: regenerate: %w", err)
	}
	return nil
}

func (s *Session) regenerate() error {
	id, err := s.m.newID(s.r)
	if err != nil {
		return err
	}
	fresh := s.m.newSession(s.secure)
	s.mu.Lock()
	old, stored := s.id, s.stored
	late := s.left || s.ended
	s.mu.Unlock()
	select {
	case <-s.done:
		late = true
	default:
	}
	switch reason := s.m.settable(&fresh.Cookie, s.secure); {
	case late:
		return ErrTooLate
	case reason != nil:
		return reason
	}
	if stored {
		if err := s.replace(old, id, fresh); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.become(id, fresh)
	s.renewed = true
	if stored {
		s.stored, s.saved, s.accessed = true, s.base, true
		s.lives(s.m.life(&fresh.Cookie))
	}
	return nil
}

// replace stores fresh as the session id, and removes the session old. Whatever
// happens, at least one of them is there until somebody destroys it, and if the old
// one has gone in another way the new one goes too.
func (s *Session) replace(old, id string, fresh *filestore.Session) error {
	renew(&fresh.Cookie)
	if err := s.m.create(s.ctx, id, fresh); errors.Is(err, filestore.ErrNotFound) {
		return fmt.Errorf("genid: %v", err) // an invalid id: it says nothing of the old session
	} else if err != nil {
		return err
	}
	s.m.shared.replace(old, id) // before: a logout that finds the old one gone must know
	err := s.m.take(s.ctx, old)
	if err == nil {
		return nil
	}
	s.m.shared.forget(old, id)
	if errors.Is(err, filestore.ErrNotFound) {
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
	}
	return join(err, s.m.Store.Destroy(s.ctx, id))
}

// shared is what the requests of a Manager share.
type shared struct {
	ttl      time.Duration // how long a session lives whose cookie does not say
	ttlKnown bool

	mu    sync.Mutex
	said  map[string]bool
	next  map[string][]replacement // by the old id
	order []string                 // of the same, oldest first
}

type replacement struct {
	id string // the new one
	at time.Time
}

const (
	// How long an answer to the old id sets no cookie: longer than the browser needs to
	// hear of the new one.
	quiet = 10 * time.Second

	// How long a logout with the old id destroys the new session.
	rememberReplaced = time.Hour

	maxReplaced = 10_000 // remembered at a time
)

var sharing sync.Mutex // guards Manager.shared while Handlers are made

func (m *Manager) share() {
	sharing.Lock()
	defer sharing.Unlock()
	if m.shared != nil {
		return
	}
	m.shared = &shared{ttl: unknownLife, said: make(map[string]bool), next: make(map[string][]replacement)}
	if l, ok := m.Store.(Lifer); ok {
		m.shared.ttl, m.shared.ttlKnown = l.TTL(), true
	}
}

// replace notes that the session old is becoming the session id.
func (s *shared) replace(old, id string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 {
		first := s.next[s.order[0]]
		if len(s.order) < maxReplaced && len(first) > 0 && now.Sub(first[len(first)-1].at) < rememberReplaced {
			break
		}
		delete(s.next, s.order[0])
		s.order = s.order[1:]
	}
	if _, ok := s.next[old]; !ok {
		s.order = append(s.order, old)
	}
	s.next[old] = append(s.next[old], replacement{id, now})
}

// forget takes back what replace noted. (The id stays in order, where it does no harm.)
func (s *shared) forget(old, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next[old] = slices.DeleteFunc(s.next[old], func(r replacement) bool { return r.id == id })
}

// successors returns the ids that have replaced the sessions ids, and those that have
// replaced these in turn.
func (s *shared) successors(ids ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	seen := make(map[string]bool) // a GenID may go round in a circle
	for len(ids) > 0 {
		next := s.next[ids[0]]
		ids = ids[1:]
		for _, r := range next {
			if !seen[r.id] {
				seen[r.id] = true
				found, ids = append(found, r.id), append(ids, r.id)
			}
		}
	}
	return found
}

// wasReplaced reports whether the session id has been replaced.
func (s *shared) wasReplaced(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.next[id]) > 0
}

// justReplaced reports whether that was a moment ago.
func (s *shared) justReplaced(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.next[id], func(r replacement) bool { return time.Since(r.at) < quiet })
}

// say logs a warning about the settings once.
func (m *Manager) say(warning error) {
	text := warning.Error()
	m.shared.mu.Lock()
	first := !m.shared.said[text]
	m.shared.said[text] = true
	m.shared.mu.Unlock()
	if first {
		slog.Warn(text)
	}
}
