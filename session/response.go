package session

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"

	"github.com/sessionfilestore/filestore"
)

// response is the handler's ResponseWriter. It stores the session and sets its
// cookie just before the header leaves, by whichever way the handler makes it
// leave. Other abilities of the writer below are reached with
// http.ResponseController or Unwrap.
type response struct {
	http.ResponseWriter
	session *Session
	header  http.Header // as it was before the handler
	left    bool        // the header has left, or is about to with the next write
	cookie  bool        // it has the session's cookie
	dropped bool        // ErrorFunc has answered: the handler's writes go nowhere
}

// leave does what is to be done before the header leaves; it returns an error
// where ErrorFunc has answered instead.
func (w *response) leave() error {
	if w.dropped {
		return errDropped
	}
	if w.left {
		return nil
	}
	w.left = true
	s := w.session
	s.mu.Lock()
	cookie, err := s.commit()
	var cookieErr error
	if cookie && err == nil && !w.cookie {
		cookieErr = s.setCookie(w.Header())
		w.cookie = cookieErr == nil
	}
	s.mu.Unlock() // ErrorFunc may want to look at the session
	s.report(cookieErr)
	if err == nil {
		return nil
	}
	w.dropped = true
	h := w.Header()
	clear(h)
	maps.Copy(h, w.header)
	s.m.fail(w.ResponseWriter, s.r, err)
	return errDropped
}

var errDropped = errors.New("session: the response was dropped: its session could not be stored")

// unsupported is for what the writer below cannot do: the header has not left.
func (w *response) unsupported(err error) {
	w.left = w.left && !errors.Is(err, http.ErrNotSupported)
}

// finish ends the request after the handler: with the header, if the handler
// wrote nothing, and with what it changed after the header had left.
func (w *response) finish() {
	late := w.left
	if w.leave() != nil {
		return
	}
	s := w.session
	s.mu.Lock()
	var err error
	if late {
		_, err = s.commit()
	}
	if err == nil {
		err = s.access()
	}
	s.mu.Unlock()
	s.report(err)
}

// report hands ErrorFunc an error that can change nothing of the response.
func (s *Session) report(err error) {
	if err != nil {
		s.m.fail(discard{http.Header{}}, s.r, err)
	}
}

// commit stores the session if it should be, and reports whether its cookie
// should be set.
func (s *Session) commit() (cookie bool, err error) {
	if s.destroyed {
		return false, nil
	}
	renew(&s.Cookie)
	cookie = s.shouldSetCookie() && (!s.Cookie.Secure || s.m.isSecure(s.r))
	switch {
	// A changed cookie is otherwise left to access, of which there is one, for
	// sessions that the request's cookie named.
	case s.shouldSave(), s.stored && s.cookieChanged() && (s.accessed || s.cookieID != s.id):
		err = s.gone(s.save(), s.isModified() || s.cookieChanged())
		s.accessed = err == nil
	case cookie: // not for a session that is gone
		if err := s.access(); err != nil {
			s.touchErr = err
			cookie = false
		}
	}
	return cookie && !s.destroyed, err
}

// access marks a session that is not stored as accessed.
func (s *Session) access() error {
	if err := s.touchErr; err != nil {
		s.touchErr = nil
		return err
	}
	t, ok := s.m.Store.(Toucher)
	if !ok || s.accessed || s.destroyed || !s.shouldTouch() {
		return nil
	}
	s.accessed = true
	c := &s.Cookie
	if _, ok := t.(*filestore.Store); ok && !s.cookieChanged() {
		// Its own, which another request may have changed meanwhile. That nil
		// means this is not part of Toucher.
		c = nil
	}
	err := s.gone(t.Touch(s.context(), s.id, c), false)
	s.baseCookie = s.Cookie
	return err
}

// gone makes no error of a session that another request destroyed meanwhile:
// its user has logged out, and it stays so. One that has expired since it was
// loaded is gone too, but then a change that is lost must be told.
func (s *Session) gone(err error, changed bool) error {
	if !s.stored || !errors.Is(err, filestore.ErrNotFound) || changed && errors.Is(err, filestore.ErrExpired) {
		return err
	}
	s.destroyed = true
	return nil
}

// discard takes the answer of an ErrorFunc that comes too late.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// answered notes whether an ErrorFunc has written anything.
type answered struct {
	http.ResponseWriter
	yes bool
}

func (w *answered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answered) WriteHeader(code int) {
	w.yes = true
	w.ResponseWriter.WriteHeader(code)
}

func (w *answered) Write(b []byte) (int, error) {
	w.yes = true
	return w.ResponseWriter.Write(b)
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(code int) {
	if code >= 100 && code < 200 && code != http.StatusSwitchingProtocols {
		if !w.dropped {
			w.ResponseWriter.WriteHeader(code) // the real header is still to come
		}
		return
	}
	if w.leave() == nil {
		w.ResponseWriter.WriteHeader(code)
	}
}

func (w *response) Write(b []byte) (int, error) {
	if err := w.leave(); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps io.Copy's way to sendfile.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if err := w.leave(); err != nil {
		return 0, err
	}
	return io.Copy(w.ResponseWriter, r) // uses its ReadFrom if it has one
}

// Flush is for code that asks for an http.Flusher.
func (w *response) Flush() { w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *response) FlushError() error {
	if err := w.leave(); err != nil {
		return err
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.unsupported(err)
	return err
}

// Hijack stores the session first; setting the cookie is then up to the handler.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.leave(); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.unsupported(err)
	return conn, rw, err
}
