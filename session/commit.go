package session

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	changed := c.OriginalMaxAge != was.OriginalMaxAge
	renew(c)
	s.lastCookie = *c
	if !changed {
		return nil // what others have written into the file is theirs to answer for
	}
	return checkLife("Session.Cookie.OriginalMaxAge", c.OriginalMaxAge)
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
	case s.Cookie.OriginalMaxAge < 0:
		return fmt.Errorf("%w: it has expired; look at CookieOptions.Expires, which has passed, or at what the handler sets", ErrCookie)
	}
	return s.m.unsettable(&s.Cookie, s.r)
}

// commit stores the session if it should be, and returns the Set-Cookie header that
// should be sent, "" if none. Its caller has the turn.
func (s *Session) commit() (header string, err error) {
	s.mu.Lock()
	if s.destroyed {
		s.mu.Unlock()
		return "", nil
	}
	err = s.follow()
	cookie, store := s.shouldSetCookie(), s.shouldSave()
	// A changed cookie is otherwise left to access, of which there is one, for
	// sessions that the request's cookie named.
	store = store || s.stored && s.cookieChanged() && (s.accessed || s.cookieID != s.id)
	unsure := !store && s.stored && len(s.written) > 0
	nobody := !s.stored && s.r.Context().Err() != nil
	changed := s.isModified() || s.cookieChanged()
	reach := s.reach()
	s.mu.Unlock()
	switch {
	case err != nil:
		return "", err
	case reach != nil && (cookie || store):
		return "", s.unreachable(reach, changed)
	case nobody:
		return "", nil // is there to take the cookie of a new session
	case unsure:
		if store, err = s.undone(); err != nil {
			return "", s.gone(err, true)
		}
		changed = changed || store
	}
	switch {
	case store:
		err = s.gone(s.save(), changed)
		s.mu.Lock()
		s.accessed = err == nil
		s.mu.Unlock()
	case cookie: // not for a session that is gone
		err := s.access()
		s.mu.Lock()
		s.touchErr = join(s.touchErr, err)
		cookie = s.touchErr == nil // else it would promise what the store has not
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !cookie || s.destroyed || s.left || err != nil {
		return "", err
	}
	switch reason := s.m.unsettable(&s.Cookie, s.r); {
	case reason == nil:
	case !errors.Is(reason, ErrCookie):
		s.touchErr = join(s.touchErr, reason)
		return "", nil
	default: // of a loaded session, whose cookie somebody has made so: what Node does, but not in silence
		s.m.say(reason.Error())
		if s.Cookie.Secure {
			return "", nil
		}
	}
	s.sentID = s.id
	return s.setCookie(), nil
}

// unreachable tells that a new session is not stored; changed says whether
// anything is lost by that.
func (s *Session) unreachable(reason error, changed bool) error {
	switch {
	case errors.Is(reason, ErrCookie): // it is about the settings, so that each request would tell it
		s.m.say(reason.Error())
		return nil
	case changed:
		return reason
	}
	return nil
}

// A change is what a request has made of its session, as the Store is to have it.
type change struct {
	id           string
	stored       bool
	values, base values
	written      map[string]bool
	cookie       filestore.Cookie
	cookieToo    bool
}

// pending returns the change that is to be stored; its caller has mu.
func (s *Session) pending() change {
	return change{s.id, s.stored, maps.Clone(s.Values), s.base, maps.Clone(s.written), s.Cookie, s.cookieChanged()}
}

// save stores the session. Its caller has the turn.
func (s *Session) save() error {
	s.mu.Lock()
	err := s.follow()
	reach := s.reach()
	c, destroyed := s.pending(), s.destroyed
	s.mu.Unlock()
	switch {
	case destroyed:
		return fmt.Errorf("session: save: %w", filestore.ErrNotFound)
	case err != nil:
		return err
	case !c.stored && reach != nil:
		return fmt.Errorf("session: save: %w", reach)
	case c.stored:
		err = s.m.update(s.context(), c.id, c.merge)
	default:
		err = s.m.create(s.context(), c.id, &filestore.Session{Cookie: c.cookie, Values: c.values})
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = true
	s.base, s.saved, s.baseCookie = c.values, c.values, c.cookie
	s.forgetWritten(c)
	s.lives(time.Now(), 1)
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
				raw = uniteFlash(old, raw, now[key])
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
	sess, err := s.m.get(s.context(), c.id)
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
		}
	}
}

// create stores a new session and refuses an id that is in use: two users must
// never meet in one session, whatever GenID does.
func (m *Manager) create(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess // the Store may keep it
	own.Values, own.LastAccess = maps.Clone(sess.Values), time.Now()
	if c, ok := m.Store.(Creator); ok {
		return c.Create(ctx, id, &own)
	}
	_, err := m.get(ctx, id)
	if err == nil {
		return fmt.Errorf("session: create: %w", fs.ErrExist)
	}
	if !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	return m.Store.Set(ctx, id, &own)
}

func (m *Manager) update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if u, ok := m.Store.(Updater); ok {
		return u.Update(ctx, id, fn)
	}
	sess, err := m.get(ctx, id)
	if err == nil {
		err = fn(sess)
	}
	if err != nil {
		return err
	}
	return m.Store.Set(ctx, id, sess)
}

// take removes a session. Of several callers one succeeds, the others get an
// ErrNotFound, if the Store is an Updater: Destroy alone does not tell.
func (m *Manager) take(ctx context.Context, id string) error {
	err := m.update(ctx, id, func(sess *filestore.Session) error {
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil // it has expired
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.Store.Destroy(ctx, id); err != nil {
		slog.WarnContext(ctx, "session: a session that was replaced is left to expire", "err", err)
	}
	return nil
}

// access touches a loaded session that is not stored.
func (s *Session) access() error {
	t, ok := s.m.Store.(Toucher)
	s.mu.Lock()
	if !ok || s.accessed || s.destroyed || !s.shouldTouch() {
		s.mu.Unlock()
		return nil
	}
	s.accessed = true
	id, is := s.id, s.Cookie
	c := &is
	if !s.cookieChanged() {
		c = nil // its own, which another request may have changed meanwhile
	}
	s.mu.Unlock()
	err := s.gone(t.Touch(s.context(), id, c), false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.baseCookie = is
		s.lives(time.Now(), 2)
	}
	return err
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
	s.destroyed = true
	if changed && (errors.Is(err, filestore.ErrExpired) || !s.until.IsZero() && time.Now().After(s.until)) {
		return err
	}
	return nil
}

// life returns how long a session with the cookie c lives after its last access, 0
// if the Store does not tell.
func (m *Manager) life(c *filestore.Cookie) time.Duration {
	if c.OriginalMaxAge != 0 {
		return c.OriginalMaxAge
	}
	if l, ok := m.Store.(Lifer); ok {
		return l.TTL()
	}
	return 0
}

// lives notes that the session was accessed, and so lives for part of its life
// at least. Its caller has mu.
func (s *Session) lives(now time.Time, part time.Duration) {
	if life := s.m.life(&s.Cookie); life > 0 {
		if end := now.Add(life / part); end.After(s.until) {
			s.until = end
		}
	}
}

// A beat touches the session of a request that is under way. The first one is the
// access, soon after the request's arrival if nothing was stored by then; the others
// come when the session would end. Most requests are over before the first.

const (
	soon        = time.Second // after its arrival a request is an access
	unknownLife = time.Minute
)

// keep plans the first beat for a request that has arrived.
func (s *Session) keep(arrived time.Time) {
	if _, ok := s.m.Store.(Toucher); !ok {
		return
	}
	wait := soon
	if !s.until.IsZero() {
		wait = min(wait, s.until.Sub(arrived)/5)
	}
	if wait < soon/20 { // it came in time, and no timer is as sure as to do it now
		s.beats.Add(1)
		s.beat()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan(wait)
}

// plan lets beat run after d. Its caller has mu.
func (s *Session) plan(d time.Duration) {
	s.beats.Add(1)
	s.timer = time.AfterFunc(d, s.beat)
}

func (s *Session) beat() {
	defer s.beats.Done()
	s.mu.Lock()
	id, first := s.id, !s.accessed
	over := s.ended || s.destroyed || !s.stored
	s.accessed = true
	s.mu.Unlock()
	if over {
		return
	}
	next, err := s.prolong(id, first)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch gone := errors.Is(err, filestore.ErrNotFound); {
	case gone && s.id == id:
		// Before its time only a logout ends a session. Later, what is to be stored will tell.
		s.destroyed = s.destroyed || time.Now().Before(s.until)
		return
	case err != nil && !gone && first:
		s.touchErr = join(s.touchErr, err)
	}
	if !s.ended {
		s.plan(next)
	}
}

// prolong touches the session id, at once or if it is about to end, and returns when
// to look again.
func (s *Session) prolong(id string, now bool) (next time.Duration, err error) {
	ctx := s.context()
	sess, err := s.m.get(ctx, id)
	if err != nil {
		return time.Second, err
	}
	life := cmp.Or(s.m.life(&sess.Cookie), unknownLife)
	margin, end := life/5, sess.LastAccess.Add(life) // for a slow machine
	if left := time.Until(end); !now && left > margin {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.until = end
		return left - margin, nil
	}
	err = s.m.Store.(Toucher).Touch(ctx, id, nil)
	if err == nil {
		s.mu.Lock()
		s.lives(time.Now(), 2)
		s.mu.Unlock()
	}
	return max(life/2-margin, 10*time.Millisecond), err // half of it may have been spared
}

// stop ends the beats; none is under way when it returns.
func (s *Session) stop() {
	s.mu.Lock()
	s.ended = true
	if s.timer != nil && s.timer.Stop() {
		s.beats.Done()
	}
	s.timer = nil
	s.mu.Unlock()
	s.beats.Wait()
}
