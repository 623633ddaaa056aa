package session

// This file leads from a request to its session: which requests have one, which
// session it is, and who answers if it cannot be loaded.

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Handler returns next with a session for every request on Manager.Path. It panics if
// m cannot work: without Store or Secrets, or with a cookie that no browser would ever
// accept.
//
// A cookie may turn out to be unacceptable only when a request comes, for example if
// it must be Secure and the request came over plain HTTP. Then a new session is not
// stored, so that such requests leave no files, and the log says once what cures it.
func (m *Manager) Handler(next http.Handler) http.Handler {
	if err := m.check(); err != nil {
		panic("session: " + err.Error())
	}
	m.initShared()
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
		defer m.shared.doors.shut(s)
		defer s.stopBeats()
		returned := false
		defer func() {
			if !returned {
				rw.abandon()
			}
		}()
		next.ServeHTTP(rw, own)
		returned = true
		rw.finish()
	})
}

// handBack copies to r what the handlers within have noted in own: a mux its pattern,
// ParseMultipartForm the uploaded files, which the server removes. It writes only what
// differs, and neither context nor body, because others may be reading r.
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
		for part := range strings.SplitSeq(own.Pattern, "{") { // wildcards are {name} and {name...}
			if name, _, ok := strings.Cut(part, "}"); ok {
				name = strings.TrimSuffix(name, "...")
				r.SetPathValue(name, own.PathValue(name))
			}
		}
	}
}

// set changes *field only if need be: others may be reading it.
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
	if u.Path == "*" { // OPTIONS * is about the server as a whole
		return "/"
	}
	return cmp.Or(u.Path, "/")
}

// pathMatch is the path-match of RFC 6265, 5.1.4.
func pathMatch(path, cookiePath string) bool {
	rest, ok := strings.CutPrefix(path, cookiePath)
	return ok && (rest == "" || strings.HasSuffix(cookiePath, "/") || rest[0] == '/')
}

// fail answers with ErrorFunc, or with a 500.
func (m *Manager) fail(w http.ResponseWriter, r *http.Request, err error) {
	if m.ErrorFunc != nil {
		answer := &answered{ResponseWriter: w}
		defer func() { // even if it panics and somebody recovers
			if !answer.yes {
				w.WriteHeader(http.StatusInternalServerError) // silence would be a 200
			}
		}()
		m.ErrorFunc(answer, r, err)
		return
	}
	slog.ErrorContext(r.Context(), "session", "err", err)
	http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
}

// load returns the session that r's cookies name, or a new one.
func (m *Manager) load(r *http.Request) (*Session, error) {
	s := &Session{
		Session: new(filestore.Session), m: m, outer: From(r), turn: make(chan struct{}, 1),
		done: r.Context().Done(), secure: m.isSecure(r), host: r.Host, cookies: r.Header["Cookie"],
	}
	s.r = r.WithContext(context.WithValue(r.Context(), contextKey{}, s))
	s.ctx = context.WithoutCancel(s.r.Context())
	s.arrived = time.Now()
	loaded := false
	defer func() {
		if !loaded { // an error or a panic ends the request, and a callback may have asked for Done
			s.stopBeats()
			m.shared.doors.shut(s)
		}
	}()
	m.warnSameCookie(s)
	// cookieIDs verifies first: an id that we did not sign costs no look-up.
	for id, old := range m.cookieIDs(r) {
		sess, err := m.get(s.ctx, id)
		switch {
		case err == nil:
			s.id, s.cookieID, s.resign = id, id, old
			s.setLoaded(sess)
			s.first, s.firstCookie = s.base, s.baseCookie
			if !m.Resave {
				s.saved = s.base
			}
			s.noTouch = m.Prolongs != nil && !m.Prolongs(s.r)
			s.keepAlive()
			s.tell()
			loaded = true
			return s, nil
		case unreadable(err):
			s.events = append(s.events, Event{Kind: Unreadable, Handle: m.handle(id, nil), Reason: reasonOf(err), Sessions: 1})
			slog.WarnContext(s.ctx, "session: this session cannot be read: it is kept, and the visitor gets a new one", "err", err)
		case !errors.Is(err, filestore.ErrNotFound):
			m.tell(context.WithoutCancel(r.Context()), s.events...)
			return nil, err
		}
		// A new session never gets an unknown id, although we signed it.
		if s.replaced == "" && m.shared.wasReplaced(id) {
			s.replaced = id
		}
	}
	id, err := m.newID(s.r)
	if err != nil {
		m.tell(context.WithoutCancel(r.Context()), s.events...)
		return nil, err
	}
	s.setNew(id, m.newSession(s.secure))
	// The request may have been sent before a login whose answer the browser has by
	// now. A cookie for a new session would undo that login.
	s.over = s.replaced != "" && m.shared.justReplaced(s.replaced)
	s.tell()
	loaded = true
	return s, nil
}

func (m *Manager) newSession(secure bool) *filestore.Session {
	return &filestore.Session{Cookie: m.newCookie(secure), Created: time.Now().Truncate(time.Millisecond), Values: values{}}
}

// newID returns an id for a new session. GenID may fail, and may call methods of the
// session: the caller holds no mu.
func (m *Manager) newID(r *http.Request) (string, error) {
	if m.GenID == nil {
		b := make([]byte, 24)
		rand.Read(b) // crashes the program if there is no randomness
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
