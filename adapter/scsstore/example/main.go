package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/scsstore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	sessions := scs.New()
	sessions.Store = scsstore.New(store)
	sessions.Codec = scsstore.JSONCodec{} // so that the files can be read; leave it out and they hold gob

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		views := sessions.GetInt(r.Context(), "views") + 1
		sessions.Put(r.Context(), "views", views)
		fmt.Fprintf(w, "You have been here %d times.\n", views)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.LoadAndSave(mux)))
}
