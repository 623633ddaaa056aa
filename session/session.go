// Package session gives each request of a net/http server its session. It stores the
// session if the handler changed it, and looks after the cookie:
//
//	sessions := &session.Manager{Store: store, Secrets: []string{secret}} // store is from filestore.Open
//	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
//		// Check the password here.
//		if err := session.From(r).Login(r.FormValue("user")); err != nil {
//			http.Error(w, "Please try again.", http.StatusInternalServerError)
//		}
//	})
//	err := http.ListenAndServe("localhost:8000", sessions.Handler(mux))
//
// Session.Login, Renew and Logout log users in and out, under new ids. A Manager knows whose
// sessions are whose: see Manager.Sessions, End and EndAll, Session.EndOthers and
// Manager.MaxPerUser. Session.Done tells open connections that their session has ended.
//
// # What to know
//
// A session is a JSON object, and a member is one of its keys. Put writes a member, and
// Value reads it.
//
// By default a login ends after an hour without a visit, or with the browser:
// filestore.Options.TTL is that hour. See CookieOptions.MaxAge, Manager.Rolling and
// filestore.Options.Lifetime. The cookie is HttpOnly, SameSite=Lax, and Secure over TLS.
//
// A changed session is stored before the response header leaves, so that a client that
// follows a redirect finds it. If the handler changes it after that, it is stored again at
// the end. Unless SaveUninitialized is set, a visitor for whom nothing was put in leaves no
// session.
//
// A request writes only the members that it changed or deleted, into what the store holds
// by then. Parallel requests that change different members lose nothing, flash messages are
// united, and a session that another request destroyed stays destroyed. If two requests
// write the same member, the later write wins: to count, use filestore.Store.Update.
//
// If the store fails, the request fails, through Manager.ErrorFunc. A session that cannot
// be read is different, because its file is damaged for example: it is kept, the log says
// so, and its visitor gets a new one, under a new id.
//
// Handlers outside of Manager.Handler have no session: From returns nil, and the methods of
// a nil Session fail with ErrNoSession.
//
// Shared caches must not keep a response that sets a session cookie. The package adds no
// Cache-Control header.
//
// The signature does not cover the cookie's name. If two Managers must not open each
// other's sessions, give each its own store or secret. The Handlers of several Managers may
// be nested: each has its own session, and needs its own cookie name or path.
//
// # Beside express-session
//
// The format and the rules are those of the npm package express-session. Go and Express
// applications that share a store, a secret and a cookie name share their logins. This
// package departs from express-session only to be safer:
//
//   - A changed session is stored before the header leaves, and only its changed members
//     are written, as above. A store that fails and a session that cannot be read are
//     answered as above, and the defaults of the cookie are those above.
//   - The access is the arrival of a request. If the Store is a Toucher, a session
//     does not end while a request that came in time is under way, and the
//     request's changes are stored however long it takes.
//   - A new id is stored before the old session goes, and the old session can be
//     replaced only once: see Session.Regenerate.
//   - If a request has several cookies of the name, the first that verifies and
//     opens a session counts. express-session takes the first, whatever it is.
//   - A session that no cookie can reach is not stored: see Manager.Handler.
//   - A cookie that the handler changed is sent, and one that was signed with an
//     old secret is signed again. A cookie with Expires has Max-Age too, which does
//     not depend on the client's clock.
//   - The reserved members __lastAccess and __created do not count as a change.
//   - The cookie's path covers requests as in RFC 6265: /app does not cover
//     /application.
//   - resave and saveUninitialized are false by default.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessionfilestore/filestore"
)

// The errors that callers act on; use errors.Is. Errors of the Store are returned
// unchanged or wrapped.
var (
	// ErrNoSession is returned by the methods of a nil Session, and by Value for one: the
	// request has not passed through Manager.Handler, or its path is not one that the Manager
	// serves.
	ErrNoSession = errors.New("session: no Manager.Handler is around this handler, or the request's path is not one that the Manager serves (see Manager.Path)")

	// ErrTooLate is returned by Regenerate, and by Save of a new session, if the
	// browser cannot be told a new id any more: the response header has left, or the
	// request's context is done, because the client, an http.TimeoutHandler or a
	// deadline has given the response up. Nothing has changed then. ErrorFunc gets it
	// if a new session was changed after the header left.
	ErrTooLate = errors.New("session: the response has left, or was given up")

	// ErrCookie is returned for a cookie that no browser would accept, so that a new
	// session could never be found again. Its text says why, and what cures it.
	ErrCookie = errors.New("session: no browser would accept the cookie")

	errBusy = errors.New("session: another method of the session has not returned")
)

// Session is the session of one request; From returns it. Read members with Value, and
// write them with Put and Delete. The middleware stores what has changed, before the
// response leaves. What is put in after the end of the request is lost, and if the handler
// panics, nothing more is stored.
//
// The methods, and Value, are safe for concurrent use, so that a handler does no harm
// after an http.TimeoutHandler has given up on it. Methods that use the Store wait for
// each other, for half a minute at most; then they fail. A nil Session is a request without
// one: its methods do nothing, and those that return an error return ErrNoSession. Because
// many programs do not look at the error of Put and Flash, the first such loss in a process
// also goes to slog.Default.
//
// To change the cookie's life set Cookie.OriginalMaxAge, after any Login or Regenerate,
// because these begin a new cookie. 0 makes a cookie that ends with the browser, a positive
// value must be at least a second, and a negative one ends the session. Expires follows it.
// If only Cookie.Expires is set, OriginalMaxAge becomes the time until then. A change of the
// cookie alone does not make a new session worth storing.
//
// The embedded filestore.Session is for one goroutine, and a nil Session has none. Do
// not keep it: Regenerate and Reload replace it. A direct change of Values is found
// by comparing it with what was loaded; a Put or Delete counts even if it changes nothing.
type Session struct {
	*filestore.Session

	m     *Manager
	outer *Session // the session of the Manager around m, or nil

	// r belongs to the handlers: once it has arrived, only GenID and ErrorFunc look
	// at it.
	r       *http.Request
	ctx     context.Context // outlives the client: if the browser has gone, a login or logout must still be stored
	done    <-chan struct{} // closed when the response is given up
	secure  bool            // the request came over TLS, as far as that can be trusted
	host    string
	cookies []string // the request's Cookie headers

	turn chan struct{} // a lock of one slot: its holder may call the Store and GenID

	// mu guards what follows and the filestore.Session. It is never held while
	// foreign code runs, because that may look at the session.
	mu       sync.Mutex
	id       string
	cookieID string // the id from the request's cookie if the store knew it, else ""
	sentID   string // the id in the response header, else ""
	resign   bool   // the request's cookie was signed with an old secret
	renewed  bool   // the id is not the one with which the request began
	replaced string // the id from the request's cookie if another request has just replaced it, else ""
	stored   bool   // the store has, or had, a session of this id
	over     bool   // nothing is stored any more: destroyed here or elsewhere, replaced elsewhere, or the Store has panicked
	accessed bool   // the middleware has stored or touched it
	left     bool   // the response header has left
	ended    bool   // the handler has returned
	lateErr  error  // errors that did not change the response, for ErrorFunc at its end

	arrived time.Time // when the request came
	born    time.Time // Created, as the store has it
	noTouch bool      // the request does not prolong the session
	clears  bool      // the response clears the cookie
	moving  bool      // the request is giving the session a new id
	events  []Event   // to be told when the turn ends

	door       chan struct{} // Done's; nil if nobody has asked
	doorClosed bool          // the session or the request is over
	doorSince  time.Time     // when somebody asked, or the id changed
	doorEnds   time.Time     // when the session ends, as the store has it

	base        values          // what the store has, as far as we know; a change is a difference from it
	written     map[string]bool // the members that Put and Delete were called for since
	read        map[string]bool // the kinds of flash messages that were read since
	saved       values          // express-session's savedHash; nil if never saved
	first       values          // express-session's originalHash
	baseCookie  filestore.Cookie
	firstCookie filestore.Cookie
	lastCookie  filestore.Cookie // as the middleware left it: any difference is the handler's

	until time.Time      // the earliest time at which the session can end, as far as we know
	timer *time.Timer    // of the next beat
	beats sync.WaitGroup // counts the beats that are planned or under way
}

type values = map[string]json.RawMessage

type contextKey struct{}

// From returns the session of r. It is nil if r has not passed through a Manager's
// Handler, or is outside the path that the Manager serves. If several Managers have
// given r a session, From returns that of the innermost; see Manager.From.
func From(r *http.Request) *Session { return FromContext(r.Context()) }

// FromContext is like From, for the context of a request.
func FromContext(ctx context.Context) *Session {
	s, _ := ctx.Value(contextKey{}).(*Session)
	return s
}

// From returns the session that m has given r, or nil if there is none.
func (m *Manager) From(r *http.Request) *Session { return m.fromContext(r.Context()) }

func (m *Manager) fromContext(ctx context.Context) *Session {
	s := FromContext(ctx)
	for s != nil && s.m != m {
		s = s.outer
	}
	return s
}

// Value returns the member key of s as a T, or the zero T if there is none. Its error
// is ErrNoSession, or says that the member is not a T.
func Value[T any](s *Session, key string) (T, error) {
	if s == nil {
		var zero T
		return zero, ErrNoSession
	}
	s.mu.Lock()
	one := &filestore.Session{}
	if raw, ok := s.Values[key]; ok {
		one.Values = values{key: raw}
	}
	s.mu.Unlock() // T may have an UnmarshalJSON
	return filestore.Value[T](one, key)
}

// Put stores v, encoded as JSON, under key; see filestore.Session.Put. The names
// __authenticated, __note and __origin are reserved too: Login and Renew write them.
func (s *Session) Put(key string, v any) error {
	if s == nil {
		return lost("Put")
	}
	if reserved(key) {
		return fmt.Errorf("session: the member %q is reserved", key)
	}
	var encoded filestore.Session // not under the lock: v may have a MarshalJSON
	if err := encoded.Put(key, v); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, encoded.Values[key])
	return nil
}

// told says that the log has been told of a change that had no session.
var told atomic.Bool

// lost returns ErrNoSession, and tells the log if it is the first time. There is no Manager
// that could remember that.
func lost(method string) error {
	if told.CompareAndSwap(false, true) {
		slog.Warn("session: "+method+" has kept nothing; this is said once", "err", ErrNoSession)
	}
	return ErrNoSession
}

// put writes a member. Its caller holds mu.
func (s *Session) put(key string, raw json.RawMessage) {
	if s.Values == nil {
		s.Values = values{}
	}
	s.Values[key] = raw
	s.noteWritten(key)
}

// noteWritten remembers that key was written or deleted, even if it is as before: if
// another request has changed it meanwhile, this write is the later one. Its caller
// holds mu.
func (s *Session) noteWritten(key string) {
	if s.written == nil {
		s.written = make(map[string]bool)
	}
	s.written[key] = true
}

// Delete removes the member key.
func (s *Session) Delete(key string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.Values, key)
	s.noteWritten(key)
}

// ID returns the session's id, or "" for a nil Session. It is a credential: whoever
// has it and a signature is this session's user.
func (s *Session) ID() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// setLoaded makes sess, which was just read from the store, the session's contents.
func (s *Session) setLoaded(sess *filestore.Session) {
	s.Session = sess
	s.stored, s.born = true, sess.Created
	s.base, s.written, s.read = maps.Clone(s.Values), nil, nil
	s.baseCookie, s.lastCookie = s.Cookie, s.Cookie
}

// setNew makes s the new session fresh, which is not stored.
func (s *Session) setNew(id string, fresh *filestore.Session) {
	s.m.shared.doors.move(s, s.id, id)
	s.id, s.Session, s.born = id, fresh, fresh.Created
	s.stored, s.over, s.clears = false, false, false
	s.base, s.first, s.saved, s.written, s.read = values{}, values{}, nil, nil, nil
	s.baseCookie, s.firstCookie, s.lastCookie = fresh.Cookie, fresh.Cookie, fresh.Cookie
}

// longestTurn bounds the wait for another method of the same session. Without it a
// GenID or Store that calls such a method would wait for itself. It is longer than
// a call of the Store should take: filestore's LockTimeout is 5 seconds.
const longestTurn = 30 * time.Second

// takeTurn waits until no other method of s is using the Store. The caller must call
// end.
func (s *Session) takeTurn() (end func(), err error) {
	if s == nil {
		return nil, ErrNoSession
	}
	if err := s.waitTurn(); err != nil {
		return nil, err
	}
	return func() {
		<-s.turn
		s.tell()
	}, nil
}

// waitTurn is takeTurn for who tells what was noted at another time.
func (s *Session) waitTurn() error {
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	timeout := time.NewTimer(longestTurn)
	defer timeout.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-timeout.C:
		return errBusy
	}
}

// Destroy removes the session from the store. What is put in afterwards is lost: to
// say goodbye with Flash, call Regenerate instead, which also begins a new session. If
// another request of this Manager has given the session a new id in the last hour, the
// new session is destroyed too, because the user has logged out. The browser keeps its
// cookie, as in express-session, but the cookie opens nothing any more; see Logout.
func (s *Session) Destroy() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	return s.destroy(func(id string) (values, error) {
		err := s.m.Store.Destroy(s.ctx, id)
		if err != nil {
			return nil, err
		}
		return s.base, nil
	})
}

// destroy ends the session, and those that have replaced it. end returns what one held that
// it has ended. Its caller has the turn.
func (s *Session) destroy(end func(id string) (values, error)) (err error) {
	s.mu.Lock()
	s.over = true
	s.Values = values{}
	own, loaded := s.id, s.replaced
	var ids []string // empty if nothing is stored, which spares the Store a flush
	if s.stored {
		ids = []string{own}
	}
	s.mu.Unlock()
	destroyed := make(map[string]bool)
	ids = append(ids, s.m.shared.successors(own, loaded)...)
	for rounds := 0; len(ids) > 0; rounds++ {
		if rounds == 100 { // one or two are enough, unless somebody replaces it all the time
			return join(err, errors.New("session: destroy: it is replaced all the time"))
		}
		for _, id := range ids {
			held, endErr := end(id)
			err = join(err, endErr)
			destroyed[id] = true
			if held != nil {
				s.mu.Lock()
				s.note(LoggedOut, id, held)
				s.mu.Unlock()
			}
		}
		// Another request may have replaced one of them just before it was destroyed. Afterwards none can.
		ids = slices.DeleteFunc(s.m.shared.successors(own, loaded), func(id string) bool { return destroyed[id] })
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = false // so that Regenerate has nothing to replace
	s.closeDoor()
	return nil
}

// Reload replaces the session's contents by what the store has now. If the session
// is gone or was never stored, it fails with filestore.ErrNotFound and changes
// nothing.
func (s *Session) Reload() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	id, ok := s.id, s.stored && !s.over // if the store has this id all the same, it is somebody else's session
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("session: reload: %w", filestore.ErrNotFound)
	}
	sess, err := s.m.get(s.ctx, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLoaded(sess)
	if s.saved != nil {
		s.saved = s.base
	}
	return nil
}

// Save stores the session now. It fails with filestore.ErrNotFound if the session was
// destroyed meanwhile, and does not bring it back. It fails with ErrTooLate or
// ErrCookie if the session is new and no cookie can reach it any more.
func (s *Session) Save() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	return s.save()
}

// Format prints only the type, whatever the verb: the id is a credential.
func (s *Session) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Session") }

// LogValue does the same for log/slog.
func (s *Session) LogValue() slog.Value { return slog.StringValue("session.Session") }
