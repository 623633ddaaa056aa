package session

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file decides what is stored, touched and sent, and when.

// The next five decide as express-session's functions of these names. (There
// isSaved also asks whether the id is the old one, and so saves a regenerated
// session twice; and a changed cookie is sent with rolling only.)

func (s *Session) isModified() bool {
	return s.renewed || !equal(s.first, s.Values)
}

func (s *Session) isSaved() bool {
	return s.saved != nil && equal(s.saved, s.Values)
}

func (s *Session) shouldSave() bool {
	if !s.m.SaveUninitialized && s.saved == nil && s.cookieID != s.id {
		return s.isModified()
	}
	return !s.isSaved()
}

func (s *Session) shouldTouch() bool {
	return s.cookieID == s.id && !s.shouldSave()
}

func (s *Session) shouldSetCookie() bool {
	if s.cookieID != s.id {
		return s.m.SaveUninitialized || s.isModified()
	}
	return s.m.Rolling || s.resign || differ(s.Cookie, s.firstCookie) || !s.Cookie.Expires.IsZero() && s.isModified()
}

func equal(a, b values) bool { return maps.EqualFunc(a, b, equalJSON) }

func equalJSON(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

// differ reports a change of anything but Expires, which every request moves.
func differ(a, b filestore.Cookie) bool {
	a.Expires = b.Expires
	return a != b
}

func (s *Session) cookieChanged() bool { return differ(s.Cookie, s.baseCookie) }

// renew is express-session's touch: the cookie's time starts again.
func renew(c *filestore.Cookie) {
	c.Expires = time.Time{}
	if c.OriginalMaxAge != 0 {
		c.Expires = time.Now().Add(c.OriginalMaxAge).Truncate(time.Millisecond)
	}
}

// follow makes the cookie's two times one: what the handler has set counts. Its
// caller has mu.
func (s *Session) follow() error {
	c, was := &s.Cookie, &s.lastCookie
	if c.OriginalMaxAge == was.OriginalMaxAge && !c.Expires.Equal(was.Expires) {
		c.OriginalMaxAge = untilExpires(c.Expires)
	}
	if c.OriginalMaxAge != was.OriginalMaxAge { // what others have written into the file is theirs to answer for
		if err := checkLife("Session.Cookie.OriginalMaxAge", c.OriginalMaxAge); err != nil {
			return err
		}
	}
	renew(c)
	s.lastCookie = *c
	return nil
}

// untilExpires returns the OriginalMaxAge of a cookie that expires then.
func untilExpires(at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	// In whole milliseconds, so that it leads to at again, and not 0, which is none.
	return cmp.Or(at.Truncate(time.Millisecond).Sub(time.Now().Truncate(time.Millisecond)), -time.Millisecond)
}

// reach says why no browser can find the new session s again: its caller has mu.
func (s *Session) reach() error {
	switch {
	case s.id == s.cookieID || s.id == s.sentID:
		return nil
	case s.left || s.ended:
		return ErrTooLate
	}
	return s.m.settable(&s.Cookie, s.secure)
}

// A decision is what is to become of a session.
type decision struct {
	cookie, store bool
	unsure        bool  // whether to store: see undone
	changed       bool  // something is lost if it is not stored
	reach         error // why a new session cannot be found again
}

func (s *Session) decide() (d decision, over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return d, true, nil
	}
	if err := s.follow(); err != nil {
		return d, false, err
	}
	d.cookie, d.store = !s.left && s.shouldSetCookie(), s.shouldSave()
	// A changed cookie is otherwise left to access, of which there is one, for
	// sessions that the request's cookie named.
	_, toucher := s.m.Store.(Toucher)
	d.store = d.store || s.stored && s.cookieChanged() && (!toucher || s.accessed || s.cookieID != s.id)
	d.unsure = !d.store && s.stored && len(s.written) > 0
	d.changed = s.isModified() || s.cookieChanged()
	d.reach = s.reach()
	return d, false, nil
}

// commit stores the session if it should be, and returns the Set-Cookie header that
// should be sent, "" if none. Its caller has the turn.
func (s *Session) commit() (header string, err error) {
	d, over, err := s.decide()
	switch {
	case over, err != nil:
		return "", err
	case d.reach != nil && (d.cookie || d.store):
		return "", s.unreachable(d)
	case d.unsure:
		if d.store, err = s.undone(); err != nil {
			return "", s.gone(err, true)
		}
		d.changed = d.changed || d.store
	}
	switch {
	case d.store:
		err = s.gone(s.save(), d.changed)
		s.mu.Lock()
		s.accessed = s.accessed || err == nil
		s.mu.Unlock()
	case d.cookie: // not for a session that is gone
		err = s.access(true)
		if err != nil { // no reason to refuse the page, but the cookie would promise what the store has not
			s.later(err)
			return "", nil
		}
	}
	header, warning := s.answer(d.cookie)
	if warning != nil {
		s.m.say(warning)
	}
	return header, err
}

// hasReplaced reports that the session has replaced the one that the browser knows.
func (s *Session) hasReplaced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed && s.cookieID != "" && s.stored
}

// answer returns the Set-Cookie header of a session that is stored, and what is to be
// said of it.
func (s *Session) answer(cookie bool) (header string, warning error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !cookie || s.over || !s.stored {
		return "", nil
	}
	c := &s.Cookie
	switch warning = s.m.unsettable(c, s.secure); {
	case warning != nil && !errors.Is(warning, ErrCookie):
		s.touchErr = join(s.touchErr, warning)
		return "", nil
	case warning != nil && c.Secure:
		// Of a loaded session, whose cookie somebody has made so: what Node does, but not in silence.
		return "", warning
	case warning == nil && c.Domain != "" && !domainMatch(s.host, c.Domain):
		warning = fmt.Errorf("session: the cookie's domain %s does not cover the host of a request, so that browsers drop it unless a proxy has changed the host", c.Domain)
	}
	s.sentID = s.id
	return s.setCookie(), warning
}

// unreachable tells that a new session is not stored.
func (s *Session) unreachable(d decision) error {
	switch {
	case errors.Is(d.reach, ErrCookie): // it is about the settings, so that each request would tell it
		s.m.say(d.reach)
		return nil
	case d.changed:
		return d.reach
	}
	return nil
}

// later keeps an error that can change nothing of the response until its end.
func (s *Session) later(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touchErr = join(s.touchErr, err)
}

// A change is what a request has made of its session, as the Store is to have it.
type change struct {
	id           string
	stored       bool
	values, base values
	written      map[string]bool
	read         map[string]bool // kinds of flash messages
	cookie       filestore.Cookie
	cookieToo    bool
}

// pending returns the change that is to be stored; its caller has mu.
func (s *Session) pending() change {
	return change{s.id, s.stored, maps.Clone(s.Values), s.base, maps.Clone(s.written), maps.Clone(s.read), s.Cookie, s.cookieChanged()}
}

// save stores the session. Its caller has the turn.
func (s *Session) save() error {
	s.mu.Lock()
	err := s.follow()
	reach := s.reach()
	c, over, ended := s.pending(), s.over, s.ended
	s.mu.Unlock()
	switch {
	case ended:
		return fmt.Errorf("session: save: %w", ErrTooLate)
	case over:
		return fmt.Errorf("session: save: %w", filestore.ErrNotFound)
	case err != nil:
		return err
	case !c.stored && reach != nil:
		return fmt.Errorf("session: save: %w", reach)
	case c.stored:
		err = s.m.update(s.ctx, c.id, c.merge)
	default:
		err = s.m.create(s.ctx, c.id, &filestore.Session{Cookie: c.cookie, Values: c.values})
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = true
	s.base, s.saved, s.baseCookie = c.values, c.values, c.cookie
	s.forgetWritten(c)
	s.lives(s.m.life(&c.cookie))
	return nil
}

// merge applies the change to what the store has by now.
func (c *change) merge(sess *filestore.Session) error {
	if sess.Values == nil {
		sess.Values = make(values)
	}
	c.apply(sess.Values)
	if c.cookieToo {
		sess.Cookie = c.cookie
	}
	renew(&sess.Cookie)
	sess.LastAccess = time.Now()
	return nil
}

func (c *change) apply(now values) {
	for key, raw := range c.values {
		if old, ok := c.base[key]; !ok || c.written[key] || !bytes.Equal(old, raw) {
			if key == flashMember {
				raw = uniteFlash(old, raw, now[key], c.read)
			}
			now[key] = raw
		}
	}
	for key := range c.base {
		if _, ok := c.values[key]; !ok {
			delete(now, key)
		}
	}
	for key := range c.written {
		if _, ok := c.values[key]; !ok {
			delete(now, key)
		}
	}
}

// undone reports whether the store has something else by now than what this
// request has written, although that is what it loaded.
func (s *Session) undone() (bool, error) {
	s.mu.Lock()
	c := s.pending()
	s.mu.Unlock()
	sess, err := s.m.get(s.ctx, c.id)
	if err != nil {
		return false, err
	}
	was := maps.Clone(sess.Values)
	c.apply(sess.Values)
	if !equal(was, sess.Values) {
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetWritten(c) // what others write from now on is later
	return false, nil
}

// forgetWritten notes that the store has what c has written. Its caller has mu.
func (s *Session) forgetWritten(c change) {
	for key := range c.written {
		if equalJSON(s.Values[key], c.values[key]) { // else it was written again meanwhile
			delete(s.written, key)
			if key == flashMember {
				s.read = nil
			}
		}
	}
}

// access touches a loaded session that is not stored. If it has been touched already,
// it looks whether the session is still there if that is to be known.
func (s *Session) access(look bool) error {
	t, ok := s.m.Store.(Toucher)
	s.mu.Lock()
	id, is, base, accessed := s.id, s.Cookie, s.baseCookie, s.accessed
	if !ok || s.over || !s.shouldTouch() || accessed && !look {
		s.mu.Unlock()
		return nil
	}
	s.accessed = true
	s.mu.Unlock()
	if accessed {
		_, err := s.m.get(s.ctx, id)
		return s.gone(err, false)
	}
	c := &is
	if !differ(is, base) {
		c = nil // its own, which another request may have changed meanwhile
	}
	if err := s.gone(t.Touch(s.ctx, id, c), false); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.baseCookie = is
	s.lives(s.m.life(&is) / 2) // the write may have been spared
	return nil
}

// gone turns an ErrNotFound into nil if another request has destroyed the session
// meanwhile: its user has logged out, and the logout stands. Losing a change is an
// error if the session has merely expired, as it then seems, or may have.
func (s *Session) gone(err error, changed bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stored || !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	s.over = true
	if changed && (errors.Is(err, filestore.ErrExpired) || time.Now().After(s.until)) && !s.m.shared.wasReplaced(s.id) {
		return err
	}
	return nil
}
