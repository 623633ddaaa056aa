package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/flamego/flamego"
	"github.com/flamego/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/flamegostore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	f := flamego.Classic()
	f.Use(session.Sessioner(flamegostore.Options(store, session.Options{})))
	f.Get("/", func(s session.Session) string {
		views, _ := s.Get("views").(int)
		s.Set("views", views+1)
		return fmt.Sprintf("You have been here %d times.\n", views+1)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", f))
}
