package routers_test

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/a-h/templ"
	"github.com/gorilla/mux"
	"github.com/starfederation/datastar-go/datastar"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/session"
)

// This file has the routers of net/http handlers, and what draws pages and events in them.

// serveMux is net/http alone. Its events are plain Server-Sent Events.
var serveMux = &routertest.Site{
	Name:       "net/http",
	NoRecovery: true,
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		mux := app.ServeMux()
		return routertest.Serve(m.Handler(mux))
	},
}

var gorillaMux = &routertest.Site{
	Name:          "gorilla/mux",
	Module:        "github.com/gorilla/mux",
	LeavesUploads: true,
	NoRecovery:    true, // gorilla/handlers has one, which is net/http's
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		r := mux.NewRouter()
		r.Use(m.Handler)
		r.HandleFunc("/app/{action}", func(w http.ResponseWriter, r *http.Request) {
			app.Answer(session.From(r), mux.Vars(r)["action"], r.URL.Query()).Write(w, r)
		})
		std := app.ServeMux()
		r.Handle("/events", std)
		r.Handle("/upload", std)
		r.Handle("/upgrade", std)
		return routertest.Serve(r)
	},
}

// templPages answers with components, which get their session by the context. Only the redirect is a handler's.
var templPages = &routertest.Site{
	Name:       "templ",
	Module:     "github.com/a-h/templ",
	NoRecovery: true,
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		std := app.ServeMux()
		mux := http.NewServeMux()
		mux.Handle("/", std)
		mux.Handle("/app/flash", std)
		mux.HandleFunc("/app/{action}", func(w http.ResponseWriter, r *http.Request) {
			page := templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
				reply := app.Answer(session.FromContext(ctx), r.PathValue("action"), r.URL.Query())
				if reply.Code >= 500 {
					return errors.New(reply.Body)
				}
				_, err := io.WriteString(w, templ.EscapeString(reply.Body))
				return err
			})
			templ.Handler(page).ServeHTTP(w, r)
		})
		mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
			page := templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
				return app.Events(session.FromContext(ctx), r.URL.Query(), func(data string) error {
					io.WriteString(w, "<p>"+data+"</p>")
					return templ.Flush().Render(ctx, w)
				})
			})
			templ.Handler(page, templ.WithStreaming()).ServeHTTP(w, r)
		})
		return routertest.Serve(m.Handler(mux))
	},
}

// datastarEvents sends its events as patches of a page.
var datastarEvents = &routertest.Site{
	Name:       "datastar",
	Module:     "github.com/starfederation/datastar-go",
	NoRecovery: true,
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		mux := http.NewServeMux()
		mux.Handle("/", app.ServeMux())
		mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r)
			if err := app.Begin(s); err != nil { // before NewSSE, which sends the header
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			sse := datastar.NewSSE(w, r)
			app.Events(s, r.URL.Query(), func(data string) error {
				return sse.PatchElements("<p id=news>" + data + "</p>")
			})
		})
		return routertest.Serve(m.Handler(mux))
	},
}
