package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
)

func main() {
	files, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()

	sessions := gorillastore.New(files, []byte("keyboard cat")) // take a key of your own

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r, "visits")
		if err == nil {
			views, _ := session.Values["views"].(int)
			session.Values["views"] = views + 1
			err = session.Save(r, w)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "You have been here %d times.\n", session.Values["views"])
	})
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
