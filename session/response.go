package session

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
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
	cookie  string      // the Set-Cookie that we have added to it
	dropped bool        // ErrorFunc has answered: the handler's writes go nowhere
}

// leave does what is to be done before the header leaves; it returns an error
// if ErrorFunc has answered instead.
func (w *response) leave() error {
	if w.dropped {
		return errDropped
	}
	if w.left {
		return nil
	}
	w.left = true
	h := w.Header()
	if w.cookie != "" { // of a header that then did not leave; the id may have changed since
		h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(c string) bool { return c == w.cookie })
	}
	var err error
	if w.cookie, err = w.session.depart(); err == nil {
		if w.cookie != "" {
			h.Add("Set-Cookie", w.cookie)
		}
		return nil
	}
	clear(h)
	maps.Copy(h, w.header)
	if w.cookie != "" { // of a session that has replaced another: without it its user had none
		h.Add("Set-Cookie", w.cookie)
	}
	w.dropped = true
	w.session.m.fail(w.ResponseWriter, w.session.r, err)
	return errDropped
}

var errDropped = errors.New("session: the response was dropped: its session could not be stored")

// depart commits the session whose response header is about to leave.
func (s *Session) depart() (cookie string, err error) {
	done := false
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left = true
		s.over = s.over || !done // the Store has panicked; not again in finish
	}()
	end, err := s.takeTurn()
	if err != nil {
		done = true
		return "", err
	}
	defer end()
	cookie, err = s.commit()
	if err != nil {
		cookie = ""
		if s.hasReplaced() {
			cookie, _ = s.answer(true)
		}
	}
	done = true
	return cookie, err
}

// unsupported is for what the writer below cannot do: the header has not left, if it
// had not before.
func (w *response) unsupported(before bool, err error) {
	if before || !errors.Is(err, http.ErrNotSupported) {
		return
	}
	w.left = false
	s := w.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.sentID = false, ""
}

// finish ends the request after the handler: with the header, if the handler
// wrote nothing, and with what it changed after the header had left.
func (w *response) finish() {
	late := w.left
	if w.leave() != nil {
		return
	}
	s := w.session
	end, err := s.takeTurn()
	if err != nil {
		s.report(err)
		return
	}
	func() {
		defer end() // ErrorFunc may want to use the session
		if late {
			_, err = s.commit()
		}
		if err == nil {
			err = s.access(false)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		err, s.touchErr = join(s.touchErr, err), nil
	}()
	s.report(err)
}

// join is errors.Join, but leaves a single error as it is.
func join(a, b error) error {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return errors.Join(a, b)
}

// report hands ErrorFunc an error that can change nothing of the response.
func (s *Session) report(err error) {
	if err != nil {
		s.m.fail(discard{http.Header{}}, s.r, err)
	}
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
	w.yes = w.yes || code >= 200 || code == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(code)
}

func (w *answered) Write(b []byte) (int, error) {
	w.yes = true
	return w.ResponseWriter.Write(b)
}

// FlushError keeps a flush alone from passing for a success.
func (w *answered) FlushError() error {
	if !w.yes {
		w.WriteHeader(http.StatusInternalServerError)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *answered) Flush() { w.FlushError() }

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
	before := w.left
	if err := w.leave(); err != nil {
		return err
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.unsupported(before, err)
	return err
}

// Hijack stores the session first; setting the cookie is then up to the handler.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	before := w.left
	if err := w.leave(); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.unsupported(before, err)
	return conn, rw, err
}
