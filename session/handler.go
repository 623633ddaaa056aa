package session

// This file gives a request its session, and hands the request back.

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

	"github.com/sessionfilestore/filestore"
)

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
