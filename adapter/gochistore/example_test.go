package gochistore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"gitea.com/go-chi/session"
	"github.com/go-chi/chi/v5"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gochistore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	provider := "filestore in " + dir // a name is for good, and this may run twice
	gochistore.Register(provider, store)
	sessioner, err := session.Sessioner(session.Options{Provider: provider})
	if err != nil {
		panic(err)
	}
	site := chi.NewRouter()
	site.Use(sessioner)
	site.Get("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.GetSession(r)
		views, _ := s.Get("views").(int)
		s.Set("views", views+1)
		fmt.Fprintf(w, "You have been here %d times.", views+1)
	})

	var cookie string
	for range 2 {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		site.ServeHTTP(w, r)
		cookie = w.Header().Get("Set-Cookie")
		fmt.Println(w.Body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
