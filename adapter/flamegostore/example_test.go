package flamegostore_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"

	"github.com/flamego/flamego"
	"github.com/flamego/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/flamegostore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	f := flamego.NewWithLogger(io.Discard)
	f.Use(session.Sessioner(flamegostore.Options(store, session.Options{})))
	f.Get("/", func(s session.Session) string {
		views, _ := s.Get("views").(int)
		s.Set("views", views+1)
		return fmt.Sprintf("You have been here %d times.", views+1)
	})

	var cookie string
	for range 2 {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		f.ServeHTTP(w, r)
		cookie = w.Header().Get("Set-Cookie")
		fmt.Println(w.Body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
