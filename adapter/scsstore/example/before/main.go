// Command before is what the first diff of the README begins with: an scs application whose sessions are in memory.
package main

import (
	"encoding/gob"
	"fmt"
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"
)

type visits struct{ Count int }

func main() {
	gob.Register(visits{})
	sessions := scs.New()

	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// Check the password first.
		if err := sessions.RenewToken(r.Context()); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		sessions.Put(r.Context(), "user", r.FormValue("user"))
	})
	http.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.Destroy(r.Context()); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		v, _ := sessions.Get(r.Context(), "visits").(visits)
		v.Count++
		sessions.Put(r.Context(), "visits", v)
		fmt.Fprintf(w, "Hello %s, you have been here %d times.\n", sessions.GetString(r.Context(), "user"), v.Count)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.LoadAndSave(http.DefaultServeMux)))
}
