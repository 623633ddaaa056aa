// Package ginsession gives the handlers of github.com/gin-gonic/gin the sessions of package session:
//
//	router.Use(gin.Recovery(), ginsession.New(m))
//
// A handler gets its session by session.From(c.Request), and all that package session promises holds: a changed session
// is stored before the response header leaves, however gin makes it leave. Some of it depends on how gin is used:
//
//   - Recovery comes before it, as in gin.Default. A recovery behind it answers a panic as a handler does, and then
//     what the handler has put in before the panic is stored.
//   - c.Status and c.Redirect only note the status. What a handler puts in after them is stored in time, unless
//     something was written.
//   - In goroutines use the session, which is safe for that, or c.Copy and then session.From. What is put in when the
//     handler has returned is lost.
//   - A gin.Context is not the request's context: session.FromContext(c) is nil, unless the engine has
//     ContextWithFallback.
//   - A middleware that is before this one in the chain finds no session, also when the request comes back to it.
//   - Engine.HandleContext wants this middleware on the new route too. On a route without it a session that is new
//     gets no cookie.
//
// Several Managers may be nested.
package ginsession

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore/session"
)

// New returns a middleware that gives each request on m.Path its session. It panics if m cannot work, as
// session.Manager.Handler does.
//
// If the session cannot be loaded, m.ErrorFunc has answered, and the handlers behind are not called. If it cannot be
// stored, m.ErrorFunc has answered, and what the handlers write is dropped.
func New(m *session.Manager) gin.HandlerFunc {
	h := m.Handler(http.HandlerFunc(serve))
	return func(c *gin.Context) {
		before := c.Writer
		if w, ok := c.Request.Context().Value(writerKey{m}).(*writer); ok && w.c == c { // Engine.HandleContext has put gin's writer back
			c.Writer = w
			c.Next()
			return
		}
		r := c.Request
		v := &visit{ResponseWriter: before, m: m, c: c}
		defer func() { // also if a handler panics: the answer of a recovery is not ours
			c.Writer, c.Request = before, r
		}()
		h.ServeHTTP(v, r)
		if !v.passed {
			c.Abort()
		}
	}
}

// A visit is gin's writer, and leads from a request within Manager.Handler to its gin.Context.
type visit struct {
	gin.ResponseWriter
	m      *session.Manager
	c      *gin.Context
	passed bool
}

// Unwrap leads to what gin.ResponseWriter does not have, such as deadlines.
func (v *visit) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// writerKey leads to the writer of a request that has passed, in its context.
type writerKey struct{ m *session.Manager }

// serve is the handler within Manager.Handler.
func serve(w http.ResponseWriter, r *http.Request) {
	v, ok := w.(*visit)
	if ok { // the request's path has no sessions
		v.passed = true
		v.c.Next()
		return
	}
	v = w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(*visit)
	v.passed = true
	own := &writer{ResponseWriter: v.ResponseWriter, session: w, c: v.c}
	// In place: Manager.Handler looks at r again, for the forms that handlers have parsed.
	*r = *r.WithContext(context.WithValue(r.Context(), writerKey{v.m}, own))
	v.c.Writer, v.c.Request = own, r
	v.c.Next()
}

// A writer is the handlers' writer. What makes the header leave goes through session, which stores the session first.
// The status, the size and whatever else gin wants to know are those of its own writer below.
type writer struct {
	gin.ResponseWriter                     // gin's
	session            http.ResponseWriter // around it
	c                  *gin.Context        // whose writer this is
	leaves             bool                // session has been asked to let the header leave
}

func (w *writer) Unwrap() http.ResponseWriter { return w.session }

// WriteHeader notes the status, as gin's does. Once the header was to leave it is session that knows whether the
// answer is still the handlers'.
func (w *writer) WriteHeader(code int) {
	if w.leaves {
		w.session.WriteHeader(code)
		return
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *writer) WriteHeaderNow() {
	if !w.Written() {
		w.Write(nil)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.leaves = true
	return w.session.Write(b)
}

func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *writer) Flush() { w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	w.leaves = true
	return http.NewResponseController(w.session).Flush()
}

// Hijack stores the session first. The handler must then set the cookie itself.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.leaves = true
	return http.NewResponseController(w.session).Hijack()
}
