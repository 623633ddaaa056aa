package scsstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/scsstore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	sessions := scs.New()
	sessions.Store = scsstore.New(store)
	site := sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		views := sessions.GetInt(r.Context(), "views") + 1
		sessions.Put(r.Context(), "views", views)
		fmt.Fprintf(w, "You have been here %d times.", views)
	}))

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
