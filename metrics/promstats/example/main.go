package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/metrics/promstats"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	prometheus.MustRegister(promstats.New(store, nil))

	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}} // take a secret of your own
	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
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

	go func() { log.Fatal(http.ListenAndServe("localhost:8081", promhttp.Handler())) }() // not for the public
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(site)))
}
