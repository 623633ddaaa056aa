package gorillastore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	files, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer files.Close()

	sessions := gorillastore.New(files, []byte("keyboard cat"))
	site := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r, "visits")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		views, _ := session.Values["views"].(int)
		session.Values["views"] = views + 1
		if err := session.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
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

// At a login the session gets a new id, and the old one opens nothing any more.
func ExampleStore_Save_login() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	files, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer files.Close()
	sessions := gorillastore.New(files, []byte("keyboard cat"))

	login := func(w http.ResponseWriter, r *http.Request) {
		session, err := sessions.Get(r, "login")
		if err == nil {
			session.Values["user"] = "alice"
			session.ID = ""
			err = session.Save(r, w)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}

	w := httptest.NewRecorder()
	login(w, httptest.NewRequest("POST", "/login", nil))
	first := w.Result().Cookies()[0]

	r, w := httptest.NewRequest("POST", "/login", nil), httptest.NewRecorder()
	r.AddCookie(first)
	login(w, r)
	second := w.Result().Cookies()[0]

	for _, cookie := range []*http.Cookie{first, second} {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(cookie)
		session, _ := sessions.Get(r, "login")
		fmt.Println(session.IsNew, session.Values["user"])
	}
	// Output:
	// true <nil>
	// false alice
}
