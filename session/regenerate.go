package session

import (
	"errors"
	"fmt"

	"github.com/sessionfilestore/filestore"
)

// Regenerate destroys the session and begins a new, empty one under a new id. Call it
// whenever the user's rights change, above all at login: it makes worthless any id
// that somebody planted in the browser before. The new cookie is as Manager.Cookie
// says.
//
// The new session is stored before the old one goes. If several requests replace one
// session at the same moment, one of them succeeds. If another request has destroyed
// or replaced the old session, Regenerate fails with filestore.ErrNotFound, and what
// is put in afterwards is lost: a request that copies the user from the old session
// into the new one must not undo a logout. It fails with ErrTooLate if the browser
// cannot be told the new id any more, and with ErrCookie if no browser would accept
// the cookie. After an error the old session is as it was, and no new one has begun;
// only if the Store fails in the last step, which removes the old session, that
// session may be gone.
//
// For some seconds a request with the old id gets a session that is not stored and
// sets no cookie, so that its late answer does not undo a login in the browser. See
// also Destroy. Other processes and other Managers do not know of the replacement.
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
	switch reason := s.m.checkNewCookie(&fresh.Cookie, s.secure); {
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
	s.setNew(id, fresh)
	s.renewed = true
	if stored {
		s.stored, s.saved, s.accessed = true, s.base, true
		s.livesFor(s.m.life(&fresh.Cookie))
	}
	return nil
}

// replace stores fresh as the session id, then removes the session old. At every moment
// at least one of them is there, unless somebody else destroys the old one: then the new
// one goes too.
func (s *Session) replace(old, id string, fresh *filestore.Session) error {
	s.m.renew(&fresh.Cookie, fresh.Created)
	err := s.m.create(s.ctx, id, fresh)
	if errors.Is(err, filestore.ErrNotFound) { // the new id is invalid; the old session is there
		return fmt.Errorf("genid: %v", err)
	}
	if err != nil {
		return err
	}
	s.m.shared.noteReplaced(old, id) // before the old one goes: a logout that misses it must know the new one
	if err := s.m.take(s.ctx, old); err != nil {
		s.m.shared.forgetReplaced(old, id)
		if errors.Is(err, filestore.ErrNotFound) {
			s.mu.Lock()
			s.over = true
			s.mu.Unlock()
		}
		return join(err, s.m.Store.Destroy(s.ctx, id))
	}
	return nil
}
