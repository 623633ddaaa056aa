package irisstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/kataras/iris/v12"
	"github.com/kataras/iris/v12/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/irisstore"
)

// A site with a counter, and a login, which gives the session a new id.
func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	db := irisstore.New(store)
	man := sessions.New(sessions.Config{Cookie: "visits", Expires: 24 * time.Hour, AllowReclaim: true})
	man.UseDatabase(db)
	app := iris.New()
	app.Use(man.Handler())
	app.Get("/", func(c iris.Context) {
		views := sessions.Get(c).Increment("views", 1)
		_ = man.ShiftExpiration(c) // so that the session lives on with its use; before the first byte of the answer
		c.Writef("You have been here %d times.", views)
	})
	app.Get("/login", func(c iris.Context) {
		s, err := db.Renew(c, man) // check the password first
		if err == nil {
			err = db.Set(s.ID(), "user", "anna", s.Lifetime.DurationUntilExpiration(), false) // Session.Set would drop the error
		}
		if err != nil {
			c.StopWithError(http.StatusInternalServerError, err)
			return
		}
		c.Writef("Hello %s, you have been here %d times.", s.GetString("user"), s.GetIntDefault("views", 0))
	})
	if err := app.Build(); err != nil {
		panic(err)
	}

	var cookie string
	for _, path := range []string{"/", "/", "/login"} {
		r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		app.ServeHTTP(w, r)
		fmt.Println(w.Body)
		if set := w.Result().Cookies(); len(set) > 0 {
			cookie = set[0].Name + "=" + set[0].Value
		}
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
	// Hello anna, you have been here 2 times.
}
