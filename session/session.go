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
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Store is what the middleware needs of a session store. *filestore.Store is one.
//
// Get returns an error that errors.Is filestore.ErrNotFound if there is no such
// session or it has expired; Destroy then succeeds. An error of Get that is
// filestore.ErrCorrupt, ErrDecrypt, ErrTooLarge or ErrUnsafeFile says that this one
// session cannot be read: its visitor gets a new one. Any other error is a store
// that fails. An id is any string that one of the Secrets has signed. When a session
// expires is the Store's to say, by ExpiresAt; the middleware sets LastAccess
// whenever it stores. Set may keep what it is given, and Get return what it keeps:
// the middleware copies. Set stores the session whether or not there is one. All
// must be safe for concurrent use.
//
// A Store may do better by also being an Updater, a Creator, a Toucher or a Lifer.
// Without the first two a session is read again before it is written, which narrows
// the races that these close. Without Toucher unchanged sessions are not touched:
// they expire when they have not changed for their life, however much they are used,
// and a change that comes too late is an error.
type Store interface {
	Get(ctx context.Context, id string) (*filestore.Session, error)
	Set(ctx context.Context, id string, s *filestore.Session) error
	Destroy(ctx context.Context, id string) error
}

// A Toucher marks a session as accessed without writing its values, and fails
// with filestore.ErrNotFound if it is gone. With a nil cookie the session keeps its
// own, whose Expires starts again. It may spare the write if the last access is
// younger than half of the session's life.
type Toucher interface {
	Touch(ctx context.Context, id string, c *filestore.Cookie) error
}

// An Updater reads, changes and writes a session in one step, and fails with
// filestore.ErrNotFound if it is gone. It may call fn more than once.
type Updater interface {
	Update(ctx context.Context, id string, fn func(*filestore.Session) error) error
}

// A Creator stores a new session, and fails with fs.ErrExist if the id is taken.
type Creator interface {
	Create(ctx context.Context, id string, s *filestore.Session) error
}

// A Lifer tells how long a session lives after its last access if its cookie has
// no maxAge. It is asked once, when the Handler is made. Of a Store that does not
// tell, a minute is assumed when a session has to be kept alive under a slow request.
type Lifer interface {
	TTL() time.Duration
}

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

// Handler gives every request that next serves its session. It panics if m
// cannot work: without Store or Secrets, or with a cookie that no browser would
// take whatever the request.
//
// If only the request shows that no browser would take the cookie, as one that must
// be Secure on a request that came over plain HTTP, a new session is not stored,
// so that such requests leave no files, and the log says once what cures it.
func (m *Manager) Handler(next http.Handler) http.Handler {
	if err := m.check(); err != nil {
		panic("session: " + err.Error())
	}
	m.share()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.From(r) != nil || !pathMatch(originalPath(r), cmp.Or(m.Path, m.path())) {
			next.ServeHTTP(w, r)
			return
		}
		s, err := m.load(r)
		if err != nil {
			m.fail(w, r, err)
			return
		}
		rw := &response{ResponseWriter: w, session: s, header: w.Header().Clone()}
		own := s.r
		defer handBack(r, own)
		defer s.stop()
		next.ServeHTTP(rw, own)
		rw.finish()
	})
}

// handBack shows whoever is outside what became of the request within: the mux
// below notes its pattern in our copy, the server looks there for uploaded files.
// It writes only what differs, and neither the context nor the body: others may be
// reading the request.
func handBack(r, own *http.Request) {
	set(&r.Method, own.Method)
	set(&r.URL, own.URL)
	set(&r.Host, own.Host)
	set(&r.RemoteAddr, own.RemoteAddr)
	set(&r.RequestURI, own.RequestURI)
	set(&r.MultipartForm, own.MultipartForm)
	if r.Form == nil && own.Form != nil {
		r.Form, r.PostForm = own.Form, own.PostForm
	}
	if r.Trailer == nil && own.Trailer != nil {
		r.Trailer = own.Trailer
	}
	if r.Pattern == "" && own.Pattern != "" {
		r.Pattern = own.Pattern
		for part := range strings.SplitSeq(own.Pattern, "{") { // its wildcards: {name}, {name...}
			if name, _, ok := strings.Cut(part, "}"); ok {
				name = strings.TrimSuffix(name, "...")
				r.SetPathValue(name, own.PathValue(name))
			}
		}
	}
}

func set[T comparable](field *T, to T) {
	if *field != to {
		*field = to
	}
}

// originalPath is the path that the client asked for, before any StripPrefix.
func originalPath(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		u = r.URL
	}
	if u.Path == "*" { // the server as a whole
		return "/"
	}
	return cmp.Or(u.Path, "/")
}

// pathMatch is that of RFC 6265, 5.1.4.
func pathMatch(path, cookiePath string) bool {
	rest, ok := strings.CutPrefix(path, cookiePath)
	return ok && (rest == "" || strings.HasSuffix(cookiePath, "/") || rest[0] == '/')
}

func (m *Manager) fail(w http.ResponseWriter, r *http.Request, err error) {
	if m.ErrorFunc != nil {
		answer := &answered{ResponseWriter: w}
		defer func() { // also if it panics, and somebody recovers
			if !answer.yes {
				w.WriteHeader(http.StatusInternalServerError) // it must not pass for a success
			}
		}()
		m.ErrorFunc(answer, r, err)
		return
	}
	slog.ErrorContext(r.Context(), "session", "err", err)
	http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
}

// get is Store.Get, whose result the Store may keep.
func (m *Manager) get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := m.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if sess == nil {
		return nil, errors.New("session: Store.Get returned neither a session nor an error")
	}
	own := *sess
	own.Values = maps.Clone(sess.Values)
	if own.Values == nil {
		own.Values = values{}
	}
	return &own, nil
}

// unreadable reports that err is about one session, and will be the same next time.
func unreadable(err error) bool {
	return errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrDecrypt) ||
		errors.Is(err, filestore.ErrTooLarge) || errors.Is(err, filestore.ErrUnsafeFile)
}

// load finds the session that the request's cookies name, or makes a new one.
func (m *Manager) load(r *http.Request) (*Session, error) {
	s := &Session{
		Session: new(filestore.Session), m: m, outer: From(r), turn: make(chan struct{}, 1),
		ctx: context.WithoutCancel(r.Context()), done: r.Context().Done(), secure: m.isSecure(r), host: r.Host,
	}
	s.r = r.WithContext(context.WithValue(r.Context(), contextKey{}, s))
	m.lookAround(s)
	// The signature comes first: no look-up for an id that we did not sign.
	for id, old := range m.cookieIDs(r) {
		sess, err := m.get(s.ctx, id)
		switch {
		case err == nil:
			s.id, s.cookieID, s.resign = id, id, old
			s.adopt(sess)
			s.first, s.firstCookie = s.base, s.baseCookie
			if !m.Resave {
				s.saved = s.base
			}
			s.keep()
			return s, nil
		case unreadable(err):
			slog.WarnContext(s.ctx, "session: a session that cannot be read is kept, and its visitor gets a new one", "err", err)
		case !errors.Is(err, filestore.ErrNotFound):
			return nil, err
		}
		// An unknown id is never adopted, although we signed it.
		if s.replaced == "" && m.shared.wasReplaced(id) {
			s.replaced = id
		}
	}
	id, err := m.newID(s.r)
	if err != nil {
		return nil, err
	}
	s.become(id, m.newSession(s.secure))
	// A request that was sent before the login whose answer the browser has by now:
	// a cookie for a new session would undo that.
	s.over = s.replaced != "" && m.shared.justReplaced(s.replaced)
	return s, nil
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

func (m *Manager) newSession(secure bool) *filestore.Session {
	return &filestore.Session{Cookie: m.newCookie(secure), Values: values{}}
}

func (m *Manager) newID(r *http.Request) (string, error) {
	if m.GenID == nil {
		b := make([]byte, 24)
		rand.Read(b) // crashes the program rather than return without 24 random bytes
		return base64.RawURLEncoding.EncodeToString(b), nil
	}
	id, err := m.GenID(r)
	if err != nil {
		return "", fmt.Errorf("session: genid: %w", err)
	}
	if !filestore.ValidID(id) {
		return "", fmt.Errorf("session: genid: %w", filestore.ErrInvalidID)
	}
	return id, nil
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
