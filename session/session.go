// Package session is express-session for net/http: a middleware that gives each
// request its session, stores it when it changed, and keeps its cookie, in the
// format and by the rules of the npm package. Go and Express applications that
// share a store, a secret and a cookie name share their logins.
//
// It departs from express-session where that is unsafe:
//
//   - A changed session is stored before the response header leaves, so that a
//     client that follows a redirect finds it, and once more at the end if the
//     handler changed it after that.
//   - Of a loaded session only the members that the request changed or deleted
//     are written, into what the store holds by then. Parallel requests that
//     change different members lose nothing (of one member the later write wins:
//     to count, use filestore.Store.Update), and a session that another request
//     destroyed stays destroyed.
//   - The store's own __lastAccess does not count as a change.
//   - If the store fails, the request fails, through Manager.ErrorFunc: nobody
//     gets an empty session in place of one that could not be read.
//   - Cookies are SameSite=Lax, and Secure over TLS, unless told otherwise; the
//     defaults of resave and saveUninitialized are false.
//
// A response that sets a session cookie must not be cached by shared caches;
// like express-session the package adds no Cache-Control header of its own.
//
// As in express-session, a signature says nothing of the cookie's name: Managers
// that are not to open each other's sessions need a store or a secret each. Of
// Handlers within each other the outermost gives the session.
package session

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
// Get returns an error that errors.Is filestore.ErrNotFound, or nil and no error,
// where there is no such session or it has expired; Destroy then succeeds. An id
// is any string that one of the Secrets has signed. When a session expires is the
// Store's to say, by ExpiresAt; the middleware sets LastAccess whenever it stores.
// Set may keep what it is given, and Get return what it keeps: the middleware
// copies. Set stores the session
// whether or not there is one. All must be safe for concurrent use.
//
// A Store may do better by also being a Toucher, an Updater or a Creator; of one
// that is not, a session is read again before it is written, which narrows the
// races that these close, and unchanged sessions are not touched: they expire
// when they have not changed for their life, however much they are used.
type Store interface {
	Get(ctx context.Context, id string) (*filestore.Session, error)
	Set(ctx context.Context, id string, s *filestore.Session) error
	Destroy(ctx context.Context, id string) error
}

// A Toucher marks a session as accessed without writing its values, and fails
// with filestore.ErrNotFound where it is gone.
type Toucher interface {
	Touch(ctx context.Context, id string, c *filestore.Cookie) error
}

// An Updater reads, changes and writes a session in one step, and fails with
// filestore.ErrNotFound where it is gone.
type Updater interface {
	Update(ctx context.Context, id string, fn func(*filestore.Session) error) error
}

// A Creator stores a new session, and fails with fs.ErrExist where the id is taken.
type Creator interface {
	Create(ctx context.Context, id string, s *filestore.Session) error
}

// Manager holds the settings of the middleware. Store and Secrets are required.
// It must not be changed after the first call of Handler.
type Manager struct {
	Store Store

	// Secrets sign the cookie: the first signs, all verify. A cookie that was
	// signed with a later one is signed anew when it is next set. None may be
	// shorter than 8 bytes.
	Secrets []string

	Name   string // of the cookie; "" = connect.sid
	Cookie CookieOptions

	Resave            bool // store loaded sessions although they have not changed
	Rolling           bool // set the cookie on every response; without it browsers drop a cookie with a MaxAge at the end they were last told, which was when the session last changed
	SaveUninitialized bool // store new sessions although nothing was put in
	TrustProxy        bool // believe X-Forwarded-Proto; only behind a proxy that sets it

	// GenID makes the ids of new sessions. nil = 24 bytes of crypto/rand in
	// base64url, as in express-session.
	GenID func(*http.Request) (string, error)

	// ErrorFunc answers a request whose session could not be loaded (From is
	// then nil) or stored. What the handler has begun of a response is dropped,
	// and if ErrorFunc writes nothing the answer is 500. It is also told of what
	// can change no answer: errors after the header has left, and of Touch; what
	// it writes then goes nowhere. nil = log the error and answer 500.
	ErrorFunc func(http.ResponseWriter, *http.Request, error)
}

// Secure says whether browsers may send the cookie over TLS only.
type Secure int

const (
	SecureAuto   Secure = iota // as the request came that made the session
	SecureAlways               // and over plain HTTP no cookie is set at all
	SecureNever
)

// SameSiteAuto is express-session's 'auto': None over TLS, else Lax.
const SameSiteAuto http.SameSite = -1

// CookieOptions are the attributes of a new session's cookie. A session that
// was stored before keeps its own, as in express-session.
type CookieOptions struct {
	Path        string        // "" = "/"; requests outside it have no session
	Domain      string        // "" = the host alone
	MaxAge      time.Duration // the session's life after its last access; 0 = the store's TTL, and the cookie ends with the browser
	Expires     time.Time     // rarely: in place of MaxAge the time from the session's start to this date; as in express-session each access then prolongs it
	Secure      Secure
	SameSite    http.SameSite // 0 = Lax; http.SameSiteDefaultMode = no attribute
	Partitioned bool
	Priority    string // "", "low", "medium" or "high"
	Readable    bool   // true leaves HttpOnly out: scripts can read the cookie
}

// Session is the session of one request. What the handler has put in is stored
// by the middleware; a panic in the handler stores nothing more.
//
// Its methods, and Value, may be called concurrently, so that a handler that an
// http.TimeoutHandler has given up on harms nobody; what it puts in after that
// goes nowhere. The fields of the filestore.Session within, Values and Cookie,
// are for one goroutine, and Regenerate and Reload replace it: do not keep it.
// To change the cookie's life set Cookie.OriginalMaxAge, after any Regenerate;
// Expires follows it. That alone is no change for which a new session is stored.
type Session struct {
	*filestore.Session

	mu        sync.Mutex
	m         *Manager
	r         *http.Request
	id        string
	cookieID  string // the id that the request's cookie brought and the store knew, else ""
	renewed   bool   // Regenerate gave it another id than it had when the request began
	stored    bool   // the store has, or had, a session of this id
	destroyed bool
	accessed  bool  // the middleware has stored or touched it
	touchErr  error // of a touch before the header left, to be reported after it

	base       values // what the store has, as far as we know; changes are told against it
	baseCookie filestore.Cookie
	saved      values // express-session's savedHash: nil = never saved
	first      values // express-session's originalHash
}

type values = map[string]json.RawMessage

type contextKey struct{}

// From returns the session of r, nil if r has not passed through a Manager's
// Handler or is outside its cookie's path.
func From(r *http.Request) *Session {
	s, _ := r.Context().Value(contextKey{}).(*Session)
	return s
}

// Value returns the member key of s as a T; a missing key is the zero T.
func Value[T any](s *Session, key string) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return filestore.Value[T](s.Session, key)
}

// Put stores v, encoded as JSON, under key; see filestore.Session.Put.
func (s *Session) Put(key string, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Session.Put(key, v)
}

// Handler gives every request that next serves its session. It panics if m
// cannot work: without Store or Secrets, or with a cookie whose name or attributes
// have no valid form.
func (m *Manager) Handler(next http.Handler) http.Handler {
	if err := m.check(); err != nil {
		panic("session: " + err.Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if From(r) != nil || !strings.HasPrefix(originalPath(r), m.path()) {
			next.ServeHTTP(w, r)
			return
		}
		s, err := m.load(r)
		if err != nil {
			m.fail(w, r, err)
			return
		}
		rw := &response{ResponseWriter: w, session: s, header: w.Header().Clone()}
		s.r = r.WithContext(context.WithValue(r.Context(), contextKey{}, s))
		defer func() { // the server removes the files of an upload, but of its own request only
			if r.MultipartForm == nil {
				r.MultipartForm = s.r.MultipartForm
			}
		}()
		next.ServeHTTP(rw, s.r)
		rw.finish()
	})
}

// originalPath is the path that the client asked for, before any StripPrefix.
func originalPath(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		u = r.URL
	}
	return cmp.Or(u.Path, "/")
}

func (m *Manager) fail(w http.ResponseWriter, r *http.Request, err error) {
	if m.ErrorFunc != nil {
		answer := &answered{ResponseWriter: w}
		m.ErrorFunc(answer, r, err)
		if !answer.yes {
			w.WriteHeader(http.StatusInternalServerError) // it must not pass for a success
		}
		return
	}
	slog.ErrorContext(r.Context(), "session", "err", err)
	http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
}

// get is Store.Get, whose result the Store may keep, without Node's nil for none.
func (m *Manager) get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := m.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if sess == nil {
		return nil, filestore.ErrNotFound
	}
	own := *sess
	own.Values = maps.Clone(sess.Values)
	if own.Values == nil {
		own.Values = values{}
	}
	return &own, nil
}

// load finds the session that the request's cookie names, or makes a new one.
func (m *Manager) load(r *http.Request) (*Session, error) {
	s := &Session{m: m, r: r}
	// The signature comes first: no look-up for an id that we did not sign.
	if id := m.cookieID(r); id != "" {
		sess, err := m.get(s.context(), id)
		switch {
		case err == nil:
			s.id, s.cookieID = id, id
			s.adopt(sess)
			s.first = s.base
			if !m.Resave {
				s.saved = s.base
			}
			return s, nil
		case !errors.Is(err, filestore.ErrNotFound):
			return nil, err
		}
		// An unknown id is never adopted, although we signed it.
	}
	return s, s.generate()
}

// adopt makes sess, as the store has it, the session's contents.
func (s *Session) adopt(sess *filestore.Session) {
	s.Session = sess
	s.stored = true
	s.settle()
}

// settle notes that the store has what the session has.
func (s *Session) settle() { s.base, s.baseCookie = maps.Clone(s.Values), s.Cookie }

// generate makes s a new, empty session.
func (s *Session) generate() error {
	id, err := s.m.newID(s.r)
	if err != nil {
		return err
	}
	s.id = id
	s.Session = &filestore.Session{Cookie: s.m.newCookie(s.r), Values: values{}}
	s.stored, s.destroyed = false, false
	s.base, s.first, s.saved = values{}, values{}, nil
	return nil
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

// ID returns the session's id, a credential: whoever has it and a signature is
// this session's user.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Delete removes the member key.
func (s *Session) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.Values, key)
}

// Regenerate destroys the session and begins a new, empty one under a new id.
// Call it whenever the user's rights change, at login above all: an id that
// somebody planted in the browser before is then worth nothing. The new cookie is
// as Manager.Cookie says. If the store
// fails to destroy the old session the error is returned, and the session is
// new nevertheless; if GenID fails it stays as it was, but for the store.
func (s *Session) Regenerate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.stored && !s.destroyed {
		err = s.m.Store.Destroy(s.context(), s.id)
	}
	s.renewed = true
	return errors.Join(err, s.generate())
}

// Destroy removes the session from the store. What is put in afterwards goes
// nowhere; for a word of farewell by Flash, call Regenerate instead, which
// destroys and begins anew. The browser keeps its cookie, as in express-session,
// but it opens nothing any more.
func (s *Session) Destroy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.destroyed = true
	s.Values = values{}
	if !s.stored {
		return nil // no flush to the disk for whoever has no session
	}
	return s.m.Store.Destroy(s.context(), s.id)
}

// Reload replaces the session's contents by what the store has now. It fails
// with filestore.ErrNotFound, and changes nothing, if the session is gone or was
// never stored.
func (s *Session) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed || !s.stored { // not even if the store has one of this id: it is somebody else's
		return fmt.Errorf("session: reload: %w", filestore.ErrNotFound)
	}
	sess, err := s.m.get(s.context(), s.id)
	if err != nil {
		return err
	}
	s.adopt(sess)
	if s.saved != nil {
		s.saved = s.base
	}
	return nil
}

// Save stores the session now. It fails with filestore.ErrNotFound if the
// session was destroyed meanwhile: it is not brought back.
func (s *Session) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save()
}

func (s *Session) save() error {
	if s.destroyed {
		return fmt.Errorf("session: save: %w", filestore.ErrNotFound)
	}
	renew(&s.Cookie)
	ctx := s.context()
	var err error
	if s.stored {
		err = s.m.update(ctx, s.id, s.merge)
	} else {
		err = s.create(ctx)
	}
	if err != nil {
		return err
	}
	s.stored = true
	s.settle()
	s.saved = s.base
	return nil
}

// merge applies what this request has changed to what the store has by now.
func (s *Session) merge(sess *filestore.Session) error {
	if sess.Values == nil {
		sess.Values = make(values)
	}
	for key, raw := range s.Values {
		if old, ok := s.base[key]; !ok || !bytes.Equal(old, raw) {
			sess.Values[key] = raw
		}
	}
	for key := range s.base {
		if _, ok := s.Values[key]; !ok {
			delete(sess.Values, key)
		}
	}
	if s.cookieChanged() {
		sess.Cookie = s.Cookie
	}
	renew(&sess.Cookie)
	sess.LastAccess = time.Now()
	return nil
}

// cookieChanged is about more than the running Expires.
func (s *Session) cookieChanged() bool {
	c := s.Cookie
	c.Expires = s.baseCookie.Expires
	return c != s.baseCookie
}

// create stores a new session and refuses an id that is in use: two users must
// never meet in one session, whatever GenID does.
func (s *Session) create(ctx context.Context) error {
	sess := *s.Session // the Store may keep it
	sess.Values, sess.LastAccess = maps.Clone(s.Values), time.Now()
	if c, ok := s.m.Store.(Creator); ok {
		return c.Create(ctx, s.id, &sess)
	}
	_, err := s.m.get(ctx, s.id)
	if err == nil {
		return fmt.Errorf("session: create: %w", fs.ErrExist)
	}
	if !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	return s.m.Store.Set(ctx, s.id, &sess)
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

// context outlives the client: a browser that has gone must not undo a login
// that it was told of, nor a logout.
func (s *Session) context() context.Context { return context.WithoutCancel(s.r.Context()) }

// renew is express-session's touch: the cookie runs anew from now.
func renew(c *filestore.Cookie) {
	c.Expires = time.Time{}
	if c.OriginalMaxAge != 0 {
		c.Expires = time.Now().Add(c.OriginalMaxAge).Truncate(time.Millisecond)
	}
}

// The next five decide as express-session's functions of these names. (There
// isSaved also asks whether the id is the old one, and so saves a regenerated
// session twice.)

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
	return s.m.Rolling || !s.Cookie.Expires.IsZero() && s.isModified()
}

func equal(a, b values) bool {
	return maps.EqualFunc(a, b, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) })
}

// Flash keeps msg under kind until Flashes reads it, in a later request most
// often. The member and its shape are those of connect-flash.
func (s *Session) Flash(kind string, msg string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	flash, err := filestore.Value[map[string][]string](s.Session, flashMember)
	if err != nil {
		return err
	}
	if flash == nil {
		flash = make(map[string][]string)
	}
	flash[kind] = append(flash[kind], msg)
	return s.Session.Put(flashMember, flash)
}

// Flashes returns the messages of kind, oldest first, and forgets them.
func (s *Session) Flashes(kind string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	flash, err := filestore.Value[map[string][]string](s.Session, flashMember)
	if err != nil {
		return nil, err
	}
	msgs, ok := flash[kind]
	if !ok {
		return nil, nil
	}
	delete(flash, kind)
	return msgs, s.Session.Put(flashMember, flash)
}

const flashMember = "flash"
