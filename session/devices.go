package session

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file finds and ends the sessions of one user.

// Info describes a session in a list for its user.
type Info struct {
	// Handle names the session to Manager.End. It is not a credential and cannot be turned
	// into the id. It stays the same while the session lives and Secrets[0] stays, also if
	// Renew gives the session another id; only that of a session without a Login, as
	// Node's, changes with the id.
	Handle string

	User          string
	Created       time.Time // zero if it is not known
	Authenticated time.Time // see Session.AuthenticatedAt
	LastAccess    time.Time
	Ends          time.Time // unless it is used before; zero if the Store is not a Lifer and the cookie has no maxAge
	Note          Note
	Current       bool // it is the session of the context
}

var errNoFinder = fmt.Errorf("the Store is not a Finder: %w", errors.ErrUnsupported)

// Sessions returns the sessions of user, the last login first. It finds every session that
// was stored before the call, by any process, if the Store's Find does. (A session without
// a Login, as Node's, that gets another id at that moment can be there twice.) ctx can be a
// request's: then the request's own session is marked as Current.
//
// It fails with ErrNoUser if user is "", and with errors.ErrUnsupported if the Store is not
// a Finder. If some sessions cannot be read, it returns the others and an error.
func (m *Manager) Sessions(ctx context.Context, user string) ([]Info, error) {
	if err := m.ready(); err != nil {
		return nil, err
	}
	found, err := m.find(ctx, user)
	current := m.fromContext(ctx).ID()
	var infos []Info
	for _, e := range found {
		info := m.info(e)
		info.Current = e.ID == current
		if n := len(infos); n > 0 && infos[n-1].Handle == info.Handle { // just being renewed
			infos[n-1].Current = infos[n-1].Current || info.Current
			continue
		}
		infos = append(infos, info)
	}
	if err != nil {
		return infos, fmt.Errorf("session: sessions: %w", err)
	}
	return infos, nil
}

func (m *Manager) info(e filestore.Entry) Info {
	sess := e.Session
	info := Info{
		Handle: m.handle(e.ID, sess.Values), User: m.userOf(sess.Values), Created: sess.Created, LastAccess: sess.LastAccess, Note: noteOf(sess.Values),
	}
	info.Authenticated, _ = authenticated(sess.Values)
	if sess.Cookie.OriginalMaxAge != 0 || m.shared.ttlKnown {
		info.Ends = m.endOf(sess)
	}
	return info
}

// find returns the sessions of user, the last login first. The order of two sessions is the
// same for all programs, and stays if one gets another id.
func (m *Manager) find(ctx context.Context, user string) (found []filestore.Entry, err error) {
	f, ok := m.Store.(Finder)
	switch {
	case user == "":
		return nil, ErrNoUser
	case !ok:
		return nil, errNoFinder
	}
	for e, findErr := range f.Find(ctx, m.user(), user) {
		switch {
		case findErr != nil:
			err = join(err, findErr)
		case m.isOf(e.Session.Values, user):
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b filestore.Entry) int {
		if c := loggedIn(b).Compare(loggedIn(a)); c != 0 {
			return c
		}
		return cmp.Compare(origin(b.ID, b.Session.Values), origin(a.ID, a.Session.Values)) // not the id, which Renew changes
	})
	return found, err
}

// loggedIn returns when the user of a session has logged in, or what comes closest. Not the
// last access: that would change the order.
func loggedIn(e filestore.Entry) time.Time {
	if at, _ := authenticated(e.Session.Values); !at.IsZero() {
		return at
	}
	return e.Session.Created
}

// End ends the session of user that has the handle, for any process: what its requests
// change from then on is lost. It fails with filestore.ErrNotFound if user does not have
// such a session. A session that gets another id meanwhile, by Renew, ends too. End fails
// with ErrNoUser and errors.ErrUnsupported as Sessions does.
func (m *Manager) End(ctx context.Context, user, handle string) error {
	if err := m.ready(); err != nil {
		return err
	}
	since := time.Now()
	found, err := m.find(ctx, user)
	i := slices.IndexFunc(found, func(e filestore.Entry) bool {
		return subtle.ConstantTimeCompare([]byte(m.handle(e.ID, e.Session.Values)), []byte(handle)) == 1
	})
	if i < 0 {
		return fmt.Errorf("session: end: %w", cmp.Or(err, filestore.ErrNotFound))
	}
	n, events, err := m.endUntilNone(ctx, user, ByEnd, m.same(found[i], since))
	m.tell(ctx, events...)
	switch {
	case n > 0 && ctx.Err() == nil: // that others cannot be read does not matter
		return nil
	case err == nil: // others were faster: they have ended it, or taken it over
		if _, getErr := m.get(ctx, found[i].ID); errors.Is(getErr, filestore.ErrNotFound) {
			return nil
		}
		err = filestore.ErrNotFound
	}
	return fmt.Errorf("session: end: %w", err)
}

// A choice returns those of a user's sessions that are to end, in the order of find; ended
// says how many have ended so far.
type choice func(all []filestore.Entry, ended int) []filestore.Entry

// same chooses the session e under whatever id it has by now. A session that Login has made
// has an origin. If another one, as Node's, is gone, what could be it is chosen: if it says
// when it was created a session that says the same, or else one that was made since.
func (m *Manager) same(e filestore.Entry, since time.Time) choice {
	created := e.Session.Created
	_, loggedIn := e.Session.Values[authenticatedMember]
	since = since.Truncate(time.Millisecond)
	return func(all []filestore.Entry, ended int) []filestore.Entry {
		if ended > 0 {
			return nil
		}
		is := m.isSession(e.ID, e.Session.Values)
		guess := !loggedIn && !slices.ContainsFunc(all, func(other filestore.Entry) bool { return other.ID == e.ID })
		return slices.DeleteFunc(all, func(other filestore.Entry) bool {
			_, otherIn := other.Session.Values[authenticatedMember]
			at := other.Session.Created
			switch {
			case is(other):
				return false
			case !guess, otherIn:
				return true
			case created.IsZero():
				return at.Before(since)
			}
			return !at.Equal(created)
		})
	}
}

// isSession tells of others whether they surely are the session id, which holds v, under an
// id that it has got by now.
func (m *Manager) isSession(id string, v values) func(filestore.Entry) bool {
	from, ids := origin(id, v), append(m.shared.successors(id), id)
	return func(other filestore.Entry) bool {
		return slices.Contains(ids, other.ID) || origin(other.ID, other.Session.Values) == from
	}
}

func (m *Manager) endedBy(reason string, e filestore.Entry) Event {
	return Event{Kind: Ended, Handle: m.handle(e.ID, e.Session.Values), User: m.userOf(e.Session.Values), Reason: reason, Sessions: 1}
}

// EndAll ends all sessions of user, for any process, and returns their number. A Login that
// runs meanwhile either fails, or its session ends too, or it is stored after that and
// counts as a later one. A session that belongs to another user by then stays. If the
// request of ctx has one of the sessions, it is as after Session.Destroy: Login can follow.
// EndAll goes on after an error and returns all; it fails with ErrNoUser and
// errors.ErrUnsupported as Sessions does.
func (m *Manager) EndAll(ctx context.Context, user string) (n int, err error) {
	if err := m.ready(); err != nil {
		return 0, err
	}
	n, events, err := m.endUntilNone(ctx, user, ByEndAll, func(all []filestore.Entry, _ int) []filestore.Entry { return all })
	m.tell(ctx, events...)
	if err != nil {
		err = fmt.Errorf("session: end all: %w", err)
	}
	return n, err
}

// EndOthers ends all other sessions of the user whose session s is, and returns their
// number; see Manager.EndAll. It fails with ErrNoUser if nobody has logged in, and with
// filestore.ErrNotFound if s is not stored or was destroyed by then: a session that was
// stolen and ended must not end those of its owner.
func (s *Session) EndOthers() (n int, err error) {
	end, err := s.takeTurn()
	if err != nil {
		return 0, err
	}
	defer end()
	s.mu.Lock()
	id, ok := s.id, s.stored && !s.over
	s.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("session: end others: %w", filestore.ErrNotFound)
	}
	now, err := s.m.get(s.ctx, id)
	if err != nil {
		return 0, fmt.Errorf("session: end others: %w", err)
	}
	n, events, err := s.m.endUntilNone(s.ctx, s.m.userOf(now.Values), ByOthers, func(all []filestore.Entry, _ int) []filestore.Entry {
		return slices.DeleteFunc(all, s.m.isSession(id, now.Values)) // another request may be renewing it
	})
	s.noteEnded(events)
	if err != nil {
		err = fmt.Errorf("session: end others: %w", err)
	}
	return n, err
}

// limit ends sessions of the user of s, who has logged in, if there are too many. Whoever
// logs in or renews calls it when that is done. So the last of them sees all sessions. Nobody
// ends one of those that stay in the end.
func (s *Session) limit() error {
	s.mu.Lock()
	_, ok := s.base[authenticatedMember]
	user := s.m.userOf(s.base)
	s.mu.Unlock()
	if s.m.MaxPerUser == 0 || !ok || user == "" {
		return nil
	}
	_, events, err := s.m.endUntilNone(s.ctx, user, ByLimit, func(all []filestore.Entry, _ int) []filestore.Entry {
		surplus := s.m.surplus(slices.Clone(all))
		if len(surplus) == 0 {
			return nil
		}
		// A session that is being replaced may have been found, and its successor too. What a
		// second look finds again was there at one moment.
		again, _ := s.m.find(s.ctx, user) // an error comes again with the next look
		return s.m.surplus(slices.DeleteFunc(all, func(e filestore.Entry) bool {
			return !slices.ContainsFunc(again, func(still filestore.Entry) bool { return still.ID == e.ID })
		}))
	})
	s.noteEnded(events)
	return err
}

// surplus returns those that are too many, in the order of find.
func (m *Manager) surplus(all []filestore.Entry) []filestore.Entry {
	all = slices.DeleteFunc(all, func(e filestore.Entry) bool {
		_, pending := authenticated(e.Session.Values)
		return pending
	})
	return all[min(len(all), m.MaxPerUser):]
}

const (
	maxRounds = 100 // of looks: two are enough, unless somebody logs in or renews all the time
	enders    = 8   // to end a session is mostly waiting for the disk
)

// endUntilNone ends those of user's sessions that choose returns, which gets them in the
// order of find. It looks again until there are none: a session that is gone when it is to
// be ended may have got another id.
func (m *Manager) endUntilNone(ctx context.Context, user, reason string, choose choice) (n int, events []Event, err error) {
	done := make(map[string]bool) // ended, gone, or an error that would come again
	for range maxRounds {
		if ctx.Err() != nil {
			return n, events, join(err, ctx.Err())
		}
		found, findErr := m.find(ctx, user)
		found = slices.DeleteFunc(choose(found, n), func(e filestore.Entry) bool { return done[e.ID] })
		if len(found) == 0 {
			return n, events, join(err, findErr)
		}
		for i, endErr := range m.endAtOnce(ctx, user, found) {
			done[found[i].ID] = endErr != errNotTheirs
			switch {
			case endErr == nil:
				n++
				events = append(events, m.endedBy(reason, found[i]))
				m.forget(ctx, found[i].ID)
			case !errors.Is(endErr, filestore.ErrNotFound) && endErr != errNotTheirs:
				err = join(err, endErr)
			}
		}
	}
	return n, events, join(err, errors.New("somebody logs in, or renews a session, all the time"))
}

// forget lets the session of the request of ctx be over, if it has that id.
func (m *Manager) forget(ctx context.Context, id string) {
	s := m.fromContext(ctx)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == id {
		s.over, s.stored, s.Values = true, false, values{}
		s.closeDoor()
	}
}

var errNotTheirs = errors.New("the session belongs to another user by now")

// endAtOnce ends sessions of user, some at a time, and returns the errors in their order.
func (m *Manager) endAtOnce(ctx context.Context, user string, all []filestore.Entry) []error {
	errs, panics := make([]error, len(all)), make([]any, len(all))
	var wg sync.WaitGroup
	slots := make(chan struct{}, enders)
	for i, e := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() {
				panics[i] = recover()
				<-slots
			}()
			errs[i] = m.end(ctx, e.ID, func(now *filestore.Session) error {
				if !m.isOf(now.Values, user) {
					return errNotTheirs
				}
				return nil
			})
		})
	}
	wg.Wait()
	for _, v := range panics {
		if v != nil {
			panic(v) // in a goroutine that the server knows
		}
	}
	return errs
}

// end is take for who only ends a session. If the Store cannot write, because the disk is
// full for example, it removes the session all the same.
func (m *Manager) end(ctx context.Context, id string, check func(*filestore.Session) error) error {
	var refused error
	err := m.take(ctx, id, func(now *filestore.Session) error {
		refused = check(now)
		return refused
	})
	switch {
	case err == nil, refused != nil:
		return cmp.Or(refused, err)
	case errors.Is(err, filestore.ErrNotFound), ctx.Err() != nil:
		return err
	}
	now, getErr := m.get(ctx, id)
	if getErr != nil {
		return join(err, getErr)
	}
	if err := check(now); err != nil {
		return err
	}
	return m.Store.Destroy(ctx, id)
}
