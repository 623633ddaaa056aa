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
// http.ResponseController.
type response struct {
	http.ResponseWriter
	session *Session
	header  http.Header // as it was before the handler
	left    bool        // the header has left, or is about to with the next write
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
	cookie, err := w.session.commit()
	if err != nil {
		w.dropped = true
		h := w.Header()
		clear(h)
		maps.Copy(h, w.header)
		w.session.m.fail(w.ResponseWriter, w.session.r, err)
		return errDropped
	}
	if cookie {
		err := w.session.setCookie(w.Header())
		w.session.report(err)
	}
	return nil
}

var errDropped = errors.New("session: the response was dropped: its session could not be stored")

// finish ends the request after the handler: with the header, if the handler
// wrote nothing, and with what it changed after the header had left.
func (w *response) finish() {
	if w.leave() != nil {
		return
	}
	_, err := w.session.commit()
	if err == nil {
		err = w.session.access()
	}
	w.session.report(err)
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
	s.touch()
	cookie = s.shouldSetCookie() && (!s.Cookie.Secure || s.m.isSecure(s.r))
	switch {
	case s.shouldSave():
		err = s.gone(s.Save())
		s.accessed = err == nil
	case cookie: // not for a session that is gone
		err = s.access()
	}
	return cookie && !s.destroyed && err == nil, err
}

// access marks a session that is not stored as accessed.
func (s *Session) access() error {
	t, ok := s.m.Store.(Toucher)
	if !ok || s.accessed || s.destroyed || !s.shouldTouch() {
		return nil
	}
	s.accessed = true
	return s.gone(t.Touch(s.context(), s.id, &s.Cookie))
}

// gone makes no error of a session that another request destroyed meanwhile:
// its user has logged out, and it stays so.
func (s *Session) gone(err error) error {
	if s.stored && errors.Is(err, filestore.ErrNotFound) {
		s.destroyed = true
		return nil
	}
	return err
}

// discard takes the answer of an ErrorFunc that comes too late.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

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
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack stores the session first; setting the cookie is then up to the handler.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.leave(); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
