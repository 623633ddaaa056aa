// Package session is express-session for net/http: a middleware that gives each
// request its session, stores it when it changed, and keeps its cookie, in the
// format and by the rules of the npm package. Go and Express applications that
// share a store, a secret and a cookie name share their logins.
//
// It departs from express-session if that is unsafe:
//
//   - A changed session is stored before the response header leaves, so that a
//     client that follows a redirect finds it, and once more at the end if the
//     handler changed it after that.
//   - Of a loaded session only the members that the request wrote or deleted are
//     written, into what the store holds by then. Parallel requests that change
//     different members lose nothing (of one member the later write wins: to count,
//     use filestore.Store.Update), flash messages are united, and a session that
//     another request destroyed stays destroyed.
//   - The arrival of a request is the access. A session does not end while a
//     request that came in time is under way, if the Store is a Toucher, and what
//     the request changes is stored however long it takes.
//   - A new id is stored before the old session goes, and the old session can be
//     replaced once: see Session.Regenerate.
//   - Of several cookies of the name the first that verifies and opens a session
//     counts. express-session takes the first, whatever it is.
//   - A session that no cookie can reach is not stored: see Manager.Handler.
//   - A cookie that the handler changed is sent, and one that was signed with an
//     old secret is signed anew. A cookie with Expires has Max-Age too, which does
//     not depend on the client's clock.
//   - The store's own __lastAccess does not count as a change.
//   - If the store fails, the request fails, through Manager.ErrorFunc. A session
//     that cannot be read, because its file is damaged for example, is different:
//     it is kept, the log is told, and its visitor gets a new one, under a new id.
//   - The cookie's path covers requests as in RFC 6265: /app does not cover
//     /application.
//   - Cookies are SameSite=Lax, and Secure over TLS, unless told otherwise; the
//     defaults of resave and saveUninitialized are false.
//
// A response that sets a session cookie must not be cached by shared caches;
// like express-session the package adds no Cache-Control header of its own.
//
// As in express-session, a signature says nothing of the cookie's name: Managers
// that are not to open each other's sessions need a store or a secret each.
// Handlers of several Managers may stand within each other: each has a session of
// its own, and needs a cookie name or path of its own.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Manager holds the settings of the middleware. Store and Secrets are required.
// It must not be changed after the first call of Handler. Printed, it shows none of
// them.
type Manager struct {
	Store Store

	// Secrets sign the cookie: the first signs, all verify. A cookie that was
	// signed with a later one is signed anew by the next response. None may be
	// shorter than 8 bytes.
	Secrets []string

	Name   string // of the cookie; "" = connect.sid
	Cookie CookieOptions

	// Path is the path of the requests that have a session, as this server sees
	// them; "" = Cookie.Path, which is what the browser sees. They differ behind a
	// proxy that strips a prefix: there Path is "/", and Cookie.Path the prefix.
	Path string

	Resave            bool // store loaded sessions although they have not changed
	Rolling           bool // set the cookie on every response to a stored session; without it a browser drops a cookie with a MaxAge that long after the session last changed, however often the site is used
	SaveUninitialized bool // store new sessions although nothing was put in
	TrustProxy        bool // believe X-Forwarded-Proto; only behind a proxy that sets it

	// GenID makes the ids of new sessions. nil = 24 bytes of crypto/rand in
	// base64url, as in express-session.
	GenID func(*http.Request) (string, error)

	// ErrorFunc answers a request whose session could not be loaded (Manager.From
	// is then nil) or stored. What the handler has begun of a response is dropped,
	// and if ErrorFunc writes nothing the answer is 500. It is also told of what
	// can change no answer: errors after the header has left, and of Touch; what
	// it writes then goes nowhere. nil = log the error and answer 500.
	ErrorFunc func(http.ResponseWriter, *http.Request, error)

	shared *shared // set by the first Handler
}

// Secure says whether browsers may send the cookie over TLS only.
type Secure int

const (
	SecureAuto   Secure = iota // as the request came that made the session
	SecureAlways               // and over plain HTTP no cookie is set at all
	SecureNever
)

// SameSiteAuto is express-session's 'auto': None over TLS, else Lax. It is Lax too
// if the cookie is not Secure, as browsers do not take None then.
const SameSiteAuto http.SameSite = -1

// CookieOptions are the attributes of a new session's cookie. A session that
// was stored before keeps its own, as in express-session.
type CookieOptions struct {
	Path        string        // "" = "/"; also which requests have a session, see Manager.Path
	Domain      string        // "" = the host alone
	MaxAge      time.Duration // the session's life after its last access, at least a second; 0 = the store's TTL, and the cookie ends with the browser
	Expires     time.Time     // rarely: in place of MaxAge the time from the session's start to this date; as in express-session each access then prolongs it. Once it has passed no session can begin
	Secure      Secure
	SameSite    http.SameSite // 0 = Lax; http.SameSiteDefaultMode = no attribute
	Partitioned bool
	Priority    string // "", "low", "medium" or "high"
	Readable    bool   // true leaves HttpOnly out: scripts can read the cookie
}

// The errors that callers act on; use errors.Is. Those of the Store come as they are.
var (
	// ErrNoSession is what the methods of a nil Session return, and Value of one.
	ErrNoSession = errors.New("session: the request has no session: it did not pass through Manager.Handler, or its path is not one that the Manager serves (see Manager.Path)")

	// ErrTooLate is what Regenerate, and Save of a new session, return once the
	// response header has left or the request's context is done, because the client,
	// an http.TimeoutHandler or a deadline has given the response up: the browser
	// could not be told a new id. Nothing has changed then. ErrorFunc gets it if a new
	// session was changed after the header.
	ErrTooLate = errors.New("session: the response has left, or was given up")

	// ErrCookie is a cookie that no browser would take, so that a new session
	// could never be found again. Its text says why, and what cures it.
	ErrCookie = errors.New("session: no browser would take the cookie")

	errBusy = errors.New("session: another method of the session has not returned")
)

// Session is the session of one request. What the handler has put in is stored
// by the middleware; a panic in the handler stores nothing more.
//
// Its methods, and Value, may be called concurrently, so that a handler that an
// http.TimeoutHandler has given up on harms nobody; what is put in after the end of
// the request goes nowhere. Those that use the Store wait for each other, for half a
// minute at most; then they fail. Of a nil Session they do nothing, and return
// ErrNoSession if they return an error. What belongs to the filestore.Session within
// is for one goroutine, and does not exist of a nil Session; Regenerate and Reload
// replace it: do not keep it. What is changed in Values directly is told by comparing
// it with what was loaded; Put and Delete also count if they change nothing.
//
// To change the cookie's life set Cookie.OriginalMaxAge, after any Regenerate:
// 0 is a cookie that ends with the browser, anything positive must be at least a
// second, and a negative one ends the session.
// Expires follows it. If only Cookie.Expires is set, OriginalMaxAge becomes the time
// until then. That alone is no change for which a new session is stored.
type Session struct {
	*filestore.Session

	m     *Manager
	outer *Session // of the Manager around this one's

	// The request is the handlers': beside GenID and ErrorFunc nothing looks at it
	// after it has arrived.
	r      *http.Request
	ctx    context.Context // outlives the client: a browser that has gone must not undo a login that it was told of, nor a logout
	done   <-chan struct{} // the response was given up
	secure bool            // the request came over TLS, as far as that can be trusted
	host   string

	turn chan struct{} // whoever has put a token in may call the Store and GenID

	// mu guards what follows and the filestore.Session. It is never held while
	// foreign code runs: that may look at the session.
	mu       sync.Mutex
	id       string
	cookieID string // the id that the request's cookie brought and the store knew, else ""
	sentID   string // the id in the response header, else ""
	resign   bool   // the request's cookie was signed with an old secret
	renewed  bool   // it got another id than it had when the request began
	replaced string // the id that the request's cookie brought and that another request has just replaced, else ""
	stored   bool   // the store has, or had, a session of this id
	over     bool   // nothing is stored any more: destroyed here or elsewhere, replaced elsewhere, or the Store has panicked
	accessed bool   // the middleware has stored or touched it
	left     bool   // the response header has left
	ended    bool   // the handler has returned
	touchErr error  // of a touch before the header left, to be reported after it

	base        values          // what the store has, as far as we know; changes are told against it
	written     map[string]bool // the members that Put and Delete were called for since
	read        map[string]bool // the kinds of flash messages that were read since
	saved       values          // express-session's savedHash: nil = never saved
	first       values          // express-session's originalHash
	baseCookie  filestore.Cookie
	firstCookie filestore.Cookie
	lastCookie  filestore.Cookie // as the middleware left it: a difference is the handler's

	until time.Time      // when the session ends, as far as we know, at the earliest
	timer *time.Timer    // of the next beat
	beats sync.WaitGroup // those planned or under way
}

type values = map[string]json.RawMessage

type contextKey struct{}

// From returns the session of r, nil if r has not passed through a Manager's
// Handler or is outside the path that it serves. If several Managers have given r
// a session it is that of the innermost; see Manager.From.
func From(r *http.Request) *Session { return FromContext(r.Context()) }

// FromContext is From for the context of a request.
func FromContext(ctx context.Context) *Session {
	s, _ := ctx.Value(contextKey{}).(*Session)
	return s
}

// From returns the session that m has given r, nil if there is none.
func (m *Manager) From(r *http.Request) *Session {
	s := From(r)
	for s != nil && s.m != m {
		s = s.outer
	}
	return s
}

// Value returns the member key of s as a T; a missing key is the zero T.
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

// Put stores v, encoded as JSON, under key; see filestore.Session.Put.
func (s *Session) Put(key string, v any) error {
	if s == nil {
		return ErrNoSession
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

// put writes a member; its caller has mu.
func (s *Session) put(key string, raw json.RawMessage) {
	if s.Values == nil {
		s.Values = values{}
	}
	s.Values[key] = raw
	s.note(key)
}

// note remembers that key was written or deleted, also if it is as before: of two
// requests the later counts.
func (s *Session) note(key string) {
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
	s.note(key)
}

// ID returns the session's id, a credential: whoever has it and a signature is
// this session's user. It is "" of a nil Session.
func (s *Session) ID() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// adopt makes sess, as the store has it, the session's contents.
func (s *Session) adopt(sess *filestore.Session) {
	s.Session = sess
	s.stored = true
	s.base, s.written, s.read = maps.Clone(s.Values), nil, nil
	s.baseCookie, s.lastCookie = s.Cookie, s.Cookie
}

// become makes s the new session fresh, which is not stored.
func (s *Session) become(id string, fresh *filestore.Session) {
	s.id, s.Session = id, fresh
	s.stored, s.over = false, false
	s.base, s.first, s.saved, s.written, s.read = values{}, values{}, nil, nil, nil
	s.baseCookie, s.firstCookie, s.lastCookie = fresh.Cookie, fresh.Cookie, fresh.Cookie
}

// longestTurn bounds the wait for another method of the same session, and so for a
// GenID or Store that calls one of those that wait.
const longestTurn = 30 * time.Second

// takeTurn waits until no other method of s is using the Store. end ends the turn.
func (s *Session) takeTurn() (end func(), err error) {
	if s == nil {
		return nil, ErrNoSession
	}
	end = func() { <-s.turn }
	select {
	case s.turn <- struct{}{}:
		return end, nil
	default:
	}
	timeout := time.NewTimer(longestTurn)
	defer timeout.Stop()
	select {
	case s.turn <- struct{}{}:
		return end, nil
	case <-timeout.C:
		return nil, errBusy
	}
}

// Destroy removes the session from the store. What is put in afterwards goes
// nowhere; for a word of farewell by Flash, call Regenerate instead, which
// destroys and begins anew. If another request has given the session a new id in the
// last hour that is destroyed too: a logout that was sent before is one all the same.
// The browser keeps its cookie, as in express-session, but it opens nothing any more.
func (s *Session) Destroy() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	s.over = true
	s.Values = values{}
	var ids []string // none: no flush to the disk for whoever has no session
	if s.stored {
		ids = []string{s.id}
	}
	ids = append(ids, s.m.shared.successors(s.id, s.replaced)...)
	s.mu.Unlock()
	for _, id := range ids {
		err = join(err, s.m.Store.Destroy(s.ctx, id))
	}
	if err == nil {
		s.mu.Lock()
		s.stored = false // so that Regenerate has nothing to replace
		s.mu.Unlock()
	}
	return err
}

// Reload replaces the session's contents by what the store has now. It fails
// with filestore.ErrNotFound, and changes nothing, if the session is gone or was
// never stored.
func (s *Session) Reload() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	id, ok := s.id, s.stored && !s.over // not even if the store has one of this id: it is somebody else's
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
	s.adopt(sess)
	if s.saved != nil {
		s.saved = s.base
	}
	return nil
}

// Save stores the session now. It fails with filestore.ErrNotFound if the
// session was destroyed meanwhile: it is not brought back. A new session that no
// cookie can reach any more is an ErrTooLate or an ErrCookie.
func (s *Session) Save() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	return s.save()
}

// Format prints of m whatever the verb only what it is: it holds secrets.
func (m Manager) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Manager") }

// LogValue is Format for log/slog.
func (m Manager) LogValue() slog.Value { return slog.StringValue("session.Manager") }

// Format prints of s whatever the verb only what it is: its id is a credential.
func (s *Session) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Session") }

// LogValue is Format for log/slog.
func (s *Session) LogValue() slog.Value { return slog.StringValue("session.Session") }
