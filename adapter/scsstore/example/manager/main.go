// Command manager is what the second diff of the README makes of the program: session.Manager in place of scs.
package main

import (
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

type visits struct{ Count int }

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}} // take a secret of your own
	sessions.Cookie.MaxAge = 24 * time.Hour

	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// Check the password first.
		if err := session.From(r).Login(r.FormValue("user")); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
	})
	http.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Logout(); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		user, _ := session.Value[string](s, "user")
		v, _ := session.Value[visits](s, "visits")
		v.Count++
		s.Put("visits", v) // an error if it is not JSON
		fmt.Fprintf(w, "Hello %s, you have been here %d times.\n", user, v.Count)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.DefaultServeMux)))
}
