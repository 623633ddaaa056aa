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
	"github.com/sessionfilestore/filestore/internal/format"
)

// This file decides what is stored, touched and sent, and when.

// The next five functions decide as express-session's functions of these names, with
// two differences. There isSaved also wants the id to be the old one, so that a
// regenerated session is saved twice, and a changed cookie is sent only with rolling.

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
	return s.m.Rolling && !s.keepsEnd() || s.resign || differ(s.Cookie, s.firstCookie) || !s.Cookie.Expires.IsZero() && s.isModified()
}

func equal(a, b values) bool { return maps.EqualFunc(a, b, equalJSON) }

func equalJSON(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

// differ reports whether a and b differ in more than Expires, which every request
// moves.
func differ(a, b filestore.Cookie) bool {
	a.Expires = b.Expires
	return a != b
}

func (s *Session) cookieChanged() bool { return differ(s.Cookie, s.baseCookie) }

// renew lets the cookie's time start again, as express-session's touch does. It ends with
// the Store's Lifetime, which has begun at created.
func (m *Manager) renew(c *filestore.Cookie, created time.Time) {
	c.Expires = time.Time{}
	if c.OriginalMaxAge == 0 {
		return
	}
	now := time.Now()
	if created.IsZero() { // it will be, when the session is written
		created = now.Truncate(time.Millisecond)
	}
	c.Expires = now.Add(format.Capped(c.OriginalMaxAge, now, created, m.shared.lifetime)).Truncate(time.Millisecond)
}

// syncExpires makes OriginalMaxAge and Expires agree: the one that the handler has set
// counts. Its caller holds mu.
func (s *Session) syncExpires() error {
	c, was := &s.Cookie, &s.lastCookie
	if c.OriginalMaxAge == was.OriginalMaxAge && !c.Expires.Equal(was.Expires) {
		c.OriginalMaxAge = untilExpires(c.Expires)
	}
	if c.OriginalMaxAge != was.OriginalMaxAge { // if not, another program may have written it, and it stays
		if err := checkLife("Session.Cookie.OriginalMaxAge", c.OriginalMaxAge); err != nil {
			return err
		}
	}
	if !s.keepsEnd() || c.OriginalMaxAge != was.OriginalMaxAge {
		s.m.renew(c, s.born)
	}
	s.lastCookie = *c
	return nil
}

// untilExpires returns the OriginalMaxAge of a cookie that expires at that time.
func untilExpires(at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	// In whole milliseconds, so that renew computes the same time again. Not 0, which
	// would mean no maxAge.
	return cmp.Or(at.Truncate(time.Millisecond).Sub(time.Now().Truncate(time.Millisecond)), -time.Millisecond)
}

// unreachable returns why no browser can find s again, or nil if one can. Its caller
// holds mu.
func (s *Session) unreachable() error {
	switch {
	case s.id == s.cookieID || s.id == s.sentID:
		return nil
	case s.left || s.ended:
		return ErrTooLate
	}
	return s.m.checkNewCookie(&s.Cookie, s.secure)
}

// A decision says what to do with a session.
type decision struct {
	cookie, store bool  // send the cookie, store the session
	unsure        bool  // store it only if it is overwritten
	changed       bool  // something is lost if it is not stored
	unreachable   error // why no browser can find it again
}

// decide also reports whether the session is over.
func (s *Session) decide() (d decision, over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return d, true, nil
	}
	if err := s.syncExpires(); err != nil {
		return d, false, err
	}
	d.cookie, d.store = !s.left && s.shouldSetCookie(), s.shouldSave()
	// touch stores a changed cookie too. But it runs once, only with a Toucher, and only
	// for a session that the request's cookie named.
	_, toucher := s.m.Store.(Toucher)
	d.store = d.store || s.stored && s.cookieChanged() && (!toucher || s.accessed || s.keepsEnd() || s.cookieID != s.id)
	d.unsure = !d.store && s.stored && len(s.written) > 0
	d.changed = s.isModified() || s.cookieChanged()
	d.unreachable = s.unreachable()
	return d, false, nil
}

// commit stores the session if it should, and returns the Set-Cookie header to send,
// or "". Its caller has the turn.
func (s *Session) commit() (header string, err error) {
	d, over, err := s.decide()
	switch {
	case over:
		return s.clearing(), nil
	case err != nil:
		return "", err
	case d.unreachable != nil && (d.cookie || d.store):
		return "", s.notStored(d)
	case d.unsure:
		if d.store, err = s.overwritten(); err != nil {
			return "", s.ignoreGone(err, true)
		}
		d.changed = d.changed || d.store
	}
	switch {
	case d.store:
		err = s.ignoreGone(s.save(), d.changed)
		s.mu.Lock()
		s.accessed = s.accessed || err == nil
		s.mu.Unlock()
	case d.cookie: // but not for a session that is gone
		if err := s.touch(true); err != nil { // the page can be sent, but not a cookie that promises a longer life
			s.reportLater(err)
			return "", nil
		}
	}
	header, warning := s.cookieHeader(d.cookie)
	if warning != nil {
		s.m.warnOnce(warning)
	}
	return header, err
}

// hasReplaced reports whether the session has replaced the one that the browser knows.
func (s *Session) hasReplaced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed && s.cookieID != "" && s.stored
}

// cookieHeader returns the Set-Cookie header, or "" if the session is not stored or send
// is false. The warning is for the log.
func (s *Session) cookieHeader(send bool) (header string, warning error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !send || s.over || !s.stored {
		return "", nil
	}
	c := &s.Cookie
	switch warning = s.m.checkCookie(c, s.secure); {
	case warning != nil && !errors.Is(warning, ErrCookie):
		s.lateErr = join(s.lateErr, warning)
		return "", nil
	case warning != nil && c.Secure:
		// Somebody has given a loaded session such a cookie. Node sends nothing either, but
		// does not say so.
		return "", warning
	case warning == nil && c.Domain != "" && !domainMatch(s.host, c.Domain):
		warning = fmt.Errorf("session: the cookie's domain %s does not cover the host of a request, so that browsers drop it, unless a proxy has changed the host", c.Domain)
	}
	s.sentID = s.id
	return s.setCookie(), warning
}

// notStored says why a new session is not stored: in the log if the settings are the
// cause, else by its error if something is lost.
func (s *Session) notStored(d decision) error {
	switch {
	case errors.Is(d.unreachable, ErrCookie): // an error would repeat itself at every request
		s.m.warnOnce(d.unreachable)
		return nil
	case d.changed:
		return d.unreachable
	}
	return nil
}

// reportLater keeps an error for the end of the request, because it does not change the
// response.
func (s *Session) reportLater(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lateErr = join(s.lateErr, err)
}

// A change is what a request has done to its session and the Store does not have yet.
// Its fields are those of Session.
type change struct {
	m             *Manager
	id            string
	stored        bool
	secure        bool
	noTouch       bool
	created       time.Time
	values, base  values
	written, read map[string]bool
	cookie        filestore.Cookie
	cookieToo     bool // the cookie has changed
}

// pending returns the change to store. Its caller holds mu.
func (s *Session) pending() change {
	return change{
		m: s.m, id: s.id, stored: s.stored, secure: s.secure, noTouch: s.keepsEnd(), created: s.born,
		values: maps.Clone(s.Values), base: s.base, written: maps.Clone(s.written), read: maps.Clone(s.read),
		cookie: s.Cookie, cookieToo: s.cookieChanged(),
	}
}

// save stores the session. Its caller has the turn.
func (s *Session) save() error {
	s.mu.Lock()
	err := s.syncExpires()
	unreachable := s.unreachable()
	c, over, ended := s.pending(), s.over, s.ended
	s.mu.Unlock()
	switch {
	case ended:
		return fmt.Errorf("session: save: %w", ErrTooLate)
	case over:
		return fmt.Errorf("session: save: %w", filestore.ErrNotFound)
	case err != nil:
		return err
	case !c.stored && unreachable != nil:
		return fmt.Errorf("session: save: %w", unreachable)
	case c.stored:
		err = s.m.update(s.ctx, c.id, c.merge)
	default:
		err = s.m.create(s.ctx, c.id, &filestore.Session{Cookie: c.cookie, Created: c.created, Values: c.values})
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = true
	s.base, s.saved, s.baseCookie = c.values, c.values, c.cookie
	s.forgetWritten(c)
	s.livesFor(s.m.life(&c.cookie))
	if !c.stored {
		s.note(Created, s.id, s.base)
	}
	return nil
}

// merge makes the change in sess, which the store has by now.
func (c *change) merge(sess *filestore.Session) error {
	if sess.Values == nil {
		sess.Values = make(values)
	}
	c.apply(sess.Values)
	if c.cookieToo {
		sess.Cookie = c.cookie
	}
	sess.NoTouch = c.noTouch
	if !c.noTouch { // or else c.cookie has a new end only if the handler has set one
		sess.LastAccess = time.Now()
		c.m.renew(&sess.Cookie, sess.Created)
	}
	return nil
}

// apply makes the change in now, the values that the store has by now.
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

// overwritten reports whether another request has changed a member that this request
// wrote as it was, so that this request must store it again.
func (s *Session) overwritten() (bool, error) {
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
	s.forgetWritten(c) // if another request writes from now on, its write is the later one
	return false, nil
}

// forgetWritten notes that the store has what c wrote. Its caller holds mu.
func (s *Session) forgetWritten(c change) {
	for key := range c.written {
		if equalJSON(s.Values[key], c.values[key]) { // if not, it was written again meanwhile
			delete(s.written, key)
			if key == flashMember {
				s.read = nil
			}
		}
	}
}

// touch touches a loaded session that need not be stored, once. After that it only
// looks whether the session is still there, and only if look is set.
func (s *Session) touch(look bool) error {
	t, ok := s.m.Store.(Toucher)
	s.mu.Lock()
	id, cookie, base, accessed := s.id, s.Cookie, s.baseCookie, s.accessed
	accessed = accessed || s.keepsEnd()
	if !ok || s.over || !s.shouldTouch() || accessed && !look {
		s.mu.Unlock()
		return nil
	}
	s.accessed = s.accessed || !accessed
	s.mu.Unlock()
	if accessed {
		_, err := s.m.get(s.ctx, id)
		return s.ignoreGone(err, false)
	}
	c := &cookie
	if !differ(cookie, base) {
		c = nil // keep the stored one, which another request may have changed meanwhile
	}
	if err := s.ignoreGone(t.Touch(s.ctx, id, c), false); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.baseCookie = cookie
	s.livesFor(s.m.life(&cookie) / 2) // the Store may have spared the write
	return nil
}

// ignoreGone turns ErrNotFound into nil, because another request has logged the user out
// and the logout stands. But if the session may merely have expired, losing a change is
// still an error.
func (s *Session) ignoreGone(err error, changed bool) error {
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
