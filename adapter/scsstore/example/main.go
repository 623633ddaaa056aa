package main

import (
	"encoding/gob"
	"fmt"
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/scsstore"
)

type visits struct{ Count int }

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	gob.Register(visits{})
	sessions := scs.New()
	sessions.Store = scsstore.New(store)

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
