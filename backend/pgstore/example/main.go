package main

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	pool, err := pgxpool.New(context.Background(), "postgres://user:password@127.0.0.1/site")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := pgstore.New(pool, &pgstore.Options{CreateTable: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}} // take a secret of your own

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		views, err := session.Value[int](s, "views")
		if err == nil {
			err = s.Put("views", views+1)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "You have been here %d times.\n", views+1)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.DefaultServeMux)))
}
