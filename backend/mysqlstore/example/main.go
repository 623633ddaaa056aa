package main

import (
	"database/sql"
	"fmt"
	"log"
	"net/http"

	_ "github.com/go-sql-driver/mysql"

	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	db, err := sql.Open("mysql", "user:password@tcp(127.0.0.1:3306)/site?clientFoundRows=true&innodb_lock_wait_timeout=4")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := mysqlstore.New(db, &mysqlstore.Options{CreateTable: true})
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
