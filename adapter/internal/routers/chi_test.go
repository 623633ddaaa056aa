package routers_test

import (
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/session"
)

var chiRouter = &routertest.Site{
	Name:          "chi",
	Module:        "github.com/go-chi/chi/v5",
	LeavesUploads: true,
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		r := chi.NewRouter()
		if recovers {
			r.Use(middleware.Recoverer)
		}
		r.Use(m.Handler)
		r.HandleFunc("/app/{action}", func(w http.ResponseWriter, r *http.Request) {
			app.Answer(session.From(r), chi.URLParam(r, "action"), r.URL.Query()).Write(w, r)
		})
		mux := app.ServeMux()
		r.Handle("/events", mux)
		r.Handle("/upload", mux)
		r.Handle("/upgrade", mux)
		return routertest.Serve(r)
	},
}
