package session

import (
	"errors"
	"fmt"

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
