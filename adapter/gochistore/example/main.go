package main

import (
	"fmt"
	"log"
	"net/http"

	"gitea.com/go-chi/session"
	"github.com/go-chi/chi/v5"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gochistore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	gochistore.Register("filestore", store)
	sessioner, err := session.Sessioner(session.Options{Provider: "filestore"})
	if err != nil {
		log.Fatal(err)
	}

	r := chi.NewRouter()
	r.Use(sessioner)
	r.Get("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.GetSession(r)
		views, _ := s.Get("views").(int)
		if err := s.Set("views", views+1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "You have been here %d times.\n", views+1)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", r))
}
