package routers_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	fiberrecover "github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/session"
)

// This file has Fiber, which is not a net/http router, in three ways.

// fiberSessions gives each request of a Fiber app its session, which is session.FromContext(c.Context()).
func fiberSessions(m *session.Manager) fiber.Handler {
	type key struct{}
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r.Context().Value(key{}).(func(context.Context))(r.Context())
	}))
	return func(c fiber.Ctx) error {
		r, err := adaptor.ConvertRequest(c, true)
		if err != nil {
			return err
		}
		before := c.Context()
		defer c.SetContext(before)
		w := &answer{header: make(http.Header)}
		h.ServeHTTP(w, r.WithContext(context.WithValue(before, key{}, func(ctx context.Context) {
			c.SetContext(ctx)
			err = c.Next()
		})))
		if w.code != 0 { // ErrorFunc has answered instead of the handler
			c.Response().Reset()
			c.Response().SetStatusCode(w.code)
			c.Response().SetBody(w.body.Bytes())
			err = nil
		}
		for name, values := range w.header { // the cookie
			for _, v := range values {
				c.Response().Header.Add(name, v)
			}
		}
		return err
	}
}

// answer is what session.Manager itself writes.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *answer) Header() http.Header  { return w.header }
func (w *answer) WriteHeader(code int) { w.code = cmp.Or(w.code, code) }
func (w *answer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// serveFiber runs a Fiber app on Fiber's own server.
func serveFiber(app *fiber.App) (string, func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true})
	}()
	return "http://" + l.Addr().String(), func() {
		app.ShutdownWithTimeout(time.Second)
		<-done
	}
}

func newFiber(recovers bool) *fiber.App {
	app := fiber.New(fiber.Config{BodyLimit: 64 << 20})
	if recovers {
		app.Use(fiberrecover.New())
	}
	return app
}

func fiberQuery(c fiber.Ctx) url.Values {
	q, _ := url.ParseQuery(string(c.Request().URI().QueryString()))
	return q
}

var fiber3 = &routertest.Site{
	Name:           "fiber v3",
	Module:         "github.com/gofiber/fiber/v3",
	OnlyRecovering: true,
	Late:           true,
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		f := newFiber(recovers)
		f.Use(fiberSessions(m))
		f.All("/app/:action", func(c fiber.Ctx) error {
			reply := app.Answer(session.FromContext(c.Context()), c.Params("action"), fiberQuery(c))
			switch {
			case reply.Location != "":
				return c.Redirect().Status(reply.Code).To(reply.Location)
			case reply.Code >= 400:
				return fiber.NewError(reply.Code, reply.Body)
			}
			return c.Status(reply.Code).SendString(reply.Body)
		})
		f.Get("/events", func(c fiber.Ctx) error {
			s, q := session.FromContext(c.Context()), fiberQuery(c)
			if err := app.Begin(s); err != nil {
				return err
			}
			c.Set("Content-Type", "text/event-stream")
			return c.SendStreamWriter(func(w *bufio.Writer) { // it runs when this handler has returned
				app.Events(s, q, func(data string) error {
					fmt.Fprintf(w, "data: %s\n\n", data)
					return w.Flush()
				})
			})
		})
		f.Post("/upload", func(c fiber.Ctx) error {
			header, err := c.FormFile("file")
			if err != nil {
				return err
			}
			reply := app.UploadPart(session.FromContext(c.Context()), header)
			return c.Status(reply.Code).SendString(reply.Body)
		})
		f.Get("/upgrade", func(c fiber.Ctx) error {
			s := session.FromContext(c.Context())
			if err := app.Open(s); err != nil {
				return err
			}
			c.Set("Connection", "Upgrade")
			c.Set("Upgrade", "lines")
			c.RequestCtx().Hijack(func(conn net.Conn) { app.Lines(s, conn) }) // it runs when this handler has returned
			return c.SendStatus(http.StatusSwitchingProtocols)
		})
		return serveFiber(f)
	},
}

// fiber3Mounted serves net/http handlers on Fiber's server.
var fiber3Mounted = &routertest.Site{
	Name:           "fiber v3, net/http handlers",
	Module:         "github.com/gofiber/fiber/v3",
	LeavesUploads:  true,
	OnlyRecovering: true,
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		f, mux := newFiber(recovers), app.ServeMux()
		f.Use(adaptor.HTTPHandler(m.Handler(mux)))
		return serveFiber(f)
	},
}

// fiber3Middleware is the middleware by Fiber's adaptor for middleware: it ends before the handler begins.
var fiber3Middleware = &routertest.Site{
	Name:     "fiber v3, HTTPMiddleware",
	Module:   "github.com/gofiber/fiber/v3",
	ReadOnly: true,
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		f := newFiber(recovers)
		f.Use(adaptor.HTTPMiddleware(m.Handler))
		f.All("/app/:action", func(c fiber.Ctx) error {
			reply := app.Answer(session.FromContext(c.RequestCtx()), c.Params("action"), fiberQuery(c))
			return c.Status(reply.Code).SendString(reply.Body)
		})
		return serveFiber(f)
	},
}
