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
// cookie just before the header leaves, however the handler makes it leave.
// http.ResponseController and Unwrap reach the other abilities of the writer below.
type response struct {
	http.ResponseWriter
	session *Session
	header  http.Header // as it was before the handler
	left    bool        // the header has left, or leaves with the next write
	cookie  string      // the Set-Cookie that we have added
	dropped bool        // ErrorFunc has answered, and the handler's writes are discarded
}

// leave must be called before the header leaves. It returns an error if ErrorFunc has
// answered instead of the handler.
func (w *response) leave() error {
	if w.dropped {
		return errDropped
	}
	if w.left {
		return nil
	}
	w.left = true
	defer w.session.tell() // when the header has the cookie, whatever OnEvent does
	h := w.Header()
	cookie, err := w.session.commitHeader()
	if err != nil {
		clear(h)
		maps.Copy(h, w.header)
	}
	w.setCookie(cookie)
	if err == nil && w.session.m.ClearSiteData && w.session.isLogout() {
		h.Add("Clear-Site-Data", `"cookies"`)
	}
	if err != nil {
		w.dropped = true
		w.session.m.fail(w.ResponseWriter, w.session.r, err)
		return errDropped
	}
	return nil
}

// setCookie adds the Set-Cookie header, in place of one from an attempt that failed: see unsupported. The id may have
// changed since.
func (w *response) setCookie(cookie string) {
	h := w.Header()
	if w.cookie != "" {
		h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(c string) bool { return c == w.cookie })
	}
	if w.cookie = cookie; cookie != "" {
		h.Add("Set-Cookie", cookie)
	}
}

// abandon is for a handler that has panicked. Nothing more is stored, and whoever recovers may answer, by this writer
// too. If the session has replaced another, the answer has its cookie: else the user would have no session.
func (w *response) abandon() {
	if w.left {
		return
	}
	w.left = true
	if w.session.hasReplaced() {
		cookie, _ := w.session.cookieHeader(true)
		w.setCookie(cookie)
	}
}

var errDropped = errors.New("session: the response was dropped: its session could not be stored")

// commitHeader commits the session just before the response header leaves. With an
// error it still returns the cookie of a session that has replaced another: without
// that cookie the user would have no session.
func (s *Session) commitHeader() (cookie string, err error) {
	done := false
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left = true
		s.over = s.over || !done // the Store has panicked: finish must not call it again
	}()
	if err := s.waitTurn(); err != nil {
		done = true
		return "", err
	}
	defer func() { <-s.turn }()
	cookie, err = s.commit()
	if err != nil {
		cookie = ""
		if s.hasReplaced() {
			cookie, _ = s.cookieHeader(true)
		}
	}
	done = true
	return cookie, err
}

// unsupported takes leave back if the writer below cannot do what was asked, because the
// header has not left then. before says that it had left earlier.
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

// finish ends the request after the handler. It sends the header if the handler wrote
// nothing, and stores what the handler changed after the header had left.
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
		defer end()                     // before report: ErrorFunc may use the session
		if late || s.m.OnEvent != nil { // which may have put something in
			_, err = s.commit()
		}
		if err == nil {
			err = s.touch(false)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		err, s.lateErr = join(s.lateErr, err), nil
	}()
	s.report(err)
}

// join is errors.Join, but returns a single error as it is.
func join(a, b error) error {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return errors.Join(a, b)
}

// report tells ErrorFunc of an error that does not change the response.
func (s *Session) report(err error) {
	if err != nil {
		s.m.fail(discard{http.Header{}}, s.r, err)
	}
}

// discard takes what an ErrorFunc writes too late.
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

// FlushError sends a 500 if nothing was written: a flush alone would be a 200.
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

// ReadFrom lets io.Copy use sendfile.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if err := w.leave(); err != nil {
		return 0, err
	}
	return io.Copy(w.ResponseWriter, r) // uses the writer's ReadFrom if it has one
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

// Hijack stores the session first. The handler must then set the cookie itself.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	before := w.left
	if err := w.leave(); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.unsupported(before, err)
	return conn, rw, err
}
