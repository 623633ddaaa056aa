package sessionui_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
	"github.com/sessionfilestore/filestore/sessionui"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	sessions := &session.Manager{
		Store:   store,
		Secrets: []string{"a long random secret"},
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: session.Network(r.RemoteAddr)}
		},
	}
	quit, stop := context.WithCancel(context.Background())
	defer stop()

	operator := sessionui.Operator(store, &sessionui.Options{
		Show:    []string{"user"},
		Write:   true,
		Who:     func(r *http.Request) string { return session.From(r).User() },
		Context: quit,
	})
	devices := sessionui.Devices(sessions, &sessionui.DevicesOptions{
		Confirm: func(r *http.Request) bool { return session.From(r).Fresh(5 * time.Minute) },
		Login:   "/login",
	})
	mux := http.NewServeMux()
	mux.Handle("/account/devices/", devices)
	mux.HandleFunc("/admin/sessions/", func(w http.ResponseWriter, r *http.Request) {
		if session.From(r).User() != "olga" { // who is an operator
			http.Error(w, "For operators only.", http.StatusForbidden)
			return
		}
		operator.ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: sessions.Handler(mux)}
	srv.RegisterOnShutdown(stop)

	for _, user := range []string{"anna", "olga"} {
		r := sessiontest.Login(httptest.NewRequest("GET", "/admin/sessions/", nil), sessions, user, nil)
		w := httptest.NewRecorder()
		srv.Handler.ServeHTTP(w, r)
		fmt.Printf("%s %d %q\n", user, w.Code, regexp.MustCompile(`data-figure="live">\d+`).FindString(w.Body.String()))
	}
	// Output:
	// anna 403 ""
	// olga 200 "data-figure=\"live\">2"
}
