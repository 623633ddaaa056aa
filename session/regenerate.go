package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/sessionfilestore/filestore"
)

// This file gives a session a new id: Regenerate and Renew here, Login in login.go.

// Regenerate destroys the session and begins an empty one under a new id, with a new cookie
// as Manager.Cookie says. Whoever knew the old id has nothing of the new session. At a login
// call Login instead, and to keep the values Renew.
//
// The new session is stored before the old one goes. If several requests replace one
// session at the same moment, one of them succeeds. Regenerate fails
//
//   - with filestore.ErrNotFound if another request has destroyed or replaced the session.
//     What is put in afterwards is lost, so that a request that copies the user from the old
//     session into the new one does not undo a logout.
//   - with ErrTooLate if the browser cannot be told the new id any more.
//   - with ErrCookie if no browser would accept the cookie.
//
// After an error no new session has begun, and the old one is as it was. Only if the Store
// fails in the last step, which removes the old session, that session may be gone.
//
// For some seconds a request with the old id gets a session that is not stored and
// sets no cookie, so that its late answer does not undo a login in the browser. See
// also Destroy. Other processes and other Managers do not know of the replacement.
func (s *Session) Regenerate() error {
	return s.succeed("regenerate", successor{})
}

// Renew gives the session a new id. Its values, its cookie, the time when it was created
// and that of the login stay. If the Store is an Updater, a change that another request
// makes meanwhile is not lost. A session that is new, and not stored yet, only gets another
// id. In all else Renew is like Regenerate.
func (s *Session) Renew() error {
	return s.succeed("renew", successor{values: true, same: true})
}

// A successor says what a session that replaces another takes over from it.
type successor struct {
	values bool               // else it begins empty
	same   bool               // also cookie and Created: it is the same session under a new id
	login  func(values) error // nil, or what Login puts in
}

// succeed lets another session take the place of s.
func (s *Session) succeed(op string, next successor) error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	if err := s.takeOver(next); err != nil {
		return fmt.Errorf("session: %s: %w", op, err)
	}
	if err := s.limit(); err != nil {
		s.reportLater(fmt.Errorf("session: %s: MaxPerUser: %w", op, err))
	}
	return nil
}

// takeOver is succeed. Its caller has the turn.
func (s *Session) takeOver(next successor) error {
	id, err := s.m.newID(s.r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if next.same {
		err = s.syncExpires()
	}
	c := s.pending()
	late := s.left || s.ended
	if next.same && s.over {
		err = filestore.ErrNotFound
	}
	s.mu.Unlock()
	select {
	case <-s.done:
		late = true
	default:
	}
	if err != nil {
		return err
	}
	fresh, err := next.of(&c, &filestore.Session{Cookie: c.cookie, Created: c.created, Values: values{}})
	if err != nil {
		return err
	}
	switch reason := s.m.checkNewCookie(&fresh.Cookie, s.secure); {
	case late:
		return ErrTooLate
	case reason != nil:
		return reason
	}
	s.mu.Lock()
	s.moving = true // for Done: that the old id goes is not the end
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moving = false
	}()
	if c.stored {
		fresh, err = s.replace(&c, id, next)
	} else if next.login != nil { // a session without a user is stored when the response leaves
		err = s.m.createNew(s.ctx, id, fresh)
	}
	if err != nil {
		return err
	}
	stored := c.stored || next.login != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	since := change{values: s.Values, base: c.values} // what was put in beside us
	s.setNew(id, fresh)
	s.renewed = s.renewed || stored || !next.same
	if stored {
		s.stored, s.accessed = true, true
		s.base = maps.Clone(fresh.Values)
		s.saved = s.base
		s.livesFor(s.m.life(&fresh.Cookie))
	}
	if next.values {
		since.apply(s.Values)
	}
	switch {
	case next.login != nil:
		s.note(LoggedIn, id, s.base)
	case stored: // else it is made when the response leaves
		s.note(Renewed, id, s.base)
	}
	return nil
}

// of returns the session that succeeds now, which has the change c still to come.
func (next successor) of(c *change, now *filestore.Session) (*filestore.Session, error) {
	fresh := c.m.newSession(c.secure)
	if next.same {
		fresh.Cookie, fresh.Created = now.Cookie, now.Created
		if c.cookieToo {
			fresh.Cookie = c.cookie
		}
	}
	if next.values {
		c.apply(now.Values)
		fresh.Values = now.Values
	}
	if next.same && fresh.Values[authenticatedMember] != nil {
		fresh.Values[originMember] = json.RawMessage(origin(c.id, fresh.Values))
	}
	if next.login != nil {
		if err := next.login(fresh.Values); err != nil {
			return nil, err
		}
	}
	c.m.renew(&fresh.Cookie, fresh.Created)
	return fresh, nil
}

// replace stores a successor of the session of c as id, then removes the session of c. At
// every moment at least one of them is there, unless somebody else destroys the old one:
// then the new one goes too. Until the old one has gone the new one does not count as a
// login, see provisional.
func (s *Session) replace(c *change, id string, next successor) (fresh *filestore.Session, err error) {
	taken := false
	for round := 0; ; round++ {
		var was values // what the successor was made of
		now := &filestore.Session{Values: values{}}
		if next.values {
			if now, err = s.m.get(s.ctx, c.id); err == nil {
				was = maps.Clone(now.Values)
			}
		}
		if err == nil {
			fresh, err = next.of(c, now)
		}
		pending := false
		if err == nil {
			at, _ := authenticated(fresh.Values)
			pending = s.m.MaxPerUser > 0 && !at.IsZero()
			err = s.putNew(c.id, id, fresh, round == 0, pending)
		}
		if round == 0 && err != nil { // nothing has changed
			return nil, s.gone(err)
		}
		if err == nil {
			err = s.m.take(s.ctx, c.id, func(old *filestore.Session) error {
				if next.values && !equal(was, old.Values) {
					return errChanged
				}
				return nil
			})
		}
		taken = taken || err == nil
		if err == nil && pending {
			err = s.putNew(c.id, id, fresh, false, false)
		}
		switch {
		case err == nil:
			return fresh, nil
		case errors.Is(err, errChanged) && round < 100: // take its values over again
			continue
		}
		s.m.shared.forgetReplaced(c.id, id)
		if taken {
			s.mu.Lock()
			s.note(LoggedOut, c.id, c.base)
			s.mu.Unlock()
		}
		return nil, join(s.gone(err), s.m.Store.Destroy(s.ctx, id))
	}
}

var errChanged = errors.New("other requests change the session all the time")

// putNew stores fresh as the session id, which replaces the session old. From the second
// time on the id may be known to others, who may have ended it.
func (s *Session) putNew(old, id string, fresh *filestore.Session, first, pending bool) error {
	own := *fresh
	if pending {
		own.Values = provisional(fresh.Values)
	}
	if !first {
		return s.m.update(s.ctx, id, func(sess *filestore.Session) error {
			sess.Cookie, sess.Values = own.Cookie, maps.Clone(own.Values)
			return nil
		})
	}
	if err := s.m.createNew(s.ctx, id, &own); err != nil {
		return err
	}
	s.m.shared.noteReplaced(old, id) // before the old one goes: a logout that misses it must know the new one
	return nil
}

// gone notes that the session is over if err says that it is not there any more.
func (s *Session) gone(err error) error {
	if errors.Is(err, filestore.ErrNotFound) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over = true
	}
	return err
}
