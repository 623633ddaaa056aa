package main

import (
	"fmt"
	"log"
	"net/http"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sessionfilestore/filestore/backend/mongostore"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.New(client.Database("test").Collection("sessions"), nil)
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
