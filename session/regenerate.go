package session

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
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
// browser, and a Destroy by a request that had loaded the old session destroys the
// new one too. Other processes do not know of the replacement.
func (s *Session) Regenerate() error {
	if s == nil {
		return ErrNoSession
	}
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
	fresh := s.m.newSession(s.r)
	s.mu.Lock()
	old, stored := s.id, s.stored
	late := s.left || s.ended || s.r.Context().Err() != nil
	s.mu.Unlock()
	switch reason := s.m.unsettable(&fresh.Cookie, s.r); {
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
		s.stored, s.saved = true, s.base
	}
	return nil
}

// replace stores fresh as the session id, and removes the session old. Whatever
// happens, at least one of them is there until somebody destroys it, and if the old
// one has gone in another way the new one goes too.
func (s *Session) replace(old, id string, fresh *filestore.Session) error {
	ctx := s.context()
	renew(&fresh.Cookie)
	if err := s.m.create(ctx, id, fresh); err != nil {
		return err
	}
	s.m.shared.replaced(old, id) // before: a logout that finds the old one gone must know
	err := s.m.take(ctx, old)
	if err == nil {
		return nil
	}
	s.m.shared.forget(old, id)
	if errors.Is(err, filestore.ErrNotFound) {
		s.mu.Lock()
		s.destroyed = true
		s.mu.Unlock()
	}
	return join(err, s.m.Store.Destroy(ctx, id))
}

// shared is what the requests of a Manager share.
type shared struct {
	mu         sync.Mutex
	said       map[string]bool
	successors map[[sha256.Size]byte]successor // by the old id
	order      []replacement                   // of the same, oldest first
}

type successor struct {
	id string
	at time.Time
}

type replacement struct {
	old [sha256.Size]byte
	at  time.Time
}

const (
	// How long a replaced id is known: longer than the browser needs to hear of the
	// new one, and than requests take that were sent before.
	rememberReplaced = 10 * time.Second

	maxReplaced = 10_000 // remembered at a time
)

var sharing sync.Mutex // guards Manager.shared while Handlers are made

func (m *Manager) share() {
	sharing.Lock()
	defer sharing.Unlock()
	if m.shared == nil {
		m.shared = &shared{said: make(map[string]bool), successors: make(map[[sha256.Size]byte]successor)}
	}
}

// replaced notes that the session old has become the session id.
func (s *shared) replaced(old, id string) {
	now, key := time.Now(), sha256.Sum256([]byte(old))
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && (now.Sub(s.order[0].at) > rememberReplaced || len(s.order) >= maxReplaced) {
		if first := s.order[0]; s.successors[first.old].at.Equal(first.at) {
			delete(s.successors, first.old)
		}
		s.order = s.order[1:]
	}
	s.successors[key] = successor{id, now}
	s.order = append(s.order, replacement{key, now})
}

// forget takes back what replaced noted, unless another id has come in between.
func (s *shared) forget(old, id string) {
	key := sha256.Sum256([]byte(old))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.successors[key].id == id {
		delete(s.successors, key)
	}
}

// successor returns the id that has just replaced the session id, else "".
func (s *shared) successor(id string) string {
	key := sha256.Sum256([]byte(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	if next, ok := s.successors[key]; ok && time.Since(next.at) <= rememberReplaced {
		return next.id
	}
	return ""
}

// say logs a warning about the settings once.
func (m *Manager) say(warning string) {
	m.shared.mu.Lock()
	first := !m.shared.said[warning]
	m.shared.said[warning] = true
	m.shared.mu.Unlock()
	if first {
		slog.Warn(warning)
	}
}
