package gfstore_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/gogf/gf/v2/frame/g"
	"github.com/gogf/gf/v2/net/ghttp"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gfstore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	s := g.Server("views")
	s.SetSessionStorage(gfstore.New(store))
	s.BindHandler("/", func(r *ghttp.Request) {
		views := r.Session.MustGet("views").Int() + 1
		r.Session.MustSet("views", views)
		r.Response.Writef("You have been here %d times.", views)
	})
	quiet(s)
	if err := s.Start(); err != nil {
		panic(err)
	}
	defer s.Shutdown()

	var cookie string
	for range 2 {
		var body string
		body, cookie = visit(s, cookie)
		fmt.Println(body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}

// A middleware that does not adopt ids from clients, and makes ids that nobody can guess.
func Example_ids() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	s := g.Server("ids")
	storage := gfstore.New(store)
	s.SetSessionStorage(storage)
	s.Use(func(r *ghttp.Request) {
		_ = r.Session.SetIdFunc(func(time.Duration) string { return rand.Text() })
		if known, err := storage.GetSession(r.Context(), r.GetSessionId(), 0); known == nil && err == nil {
			_ = r.Session.SetId("") // so that a new one is made when it is needed
		}
		r.Middleware.Next()
	})
	s.BindHandler("/", func(r *ghttp.Request) {
		views := r.Session.MustGet("views").Int() + 1
		r.Session.MustSet("views", views)
		r.Response.Writef("You have been here %d times.", views)
	})
	quiet(s)
	if err := s.Start(); err != nil {
		panic(err)
	}
	defer s.Shutdown()

	cookie := "gfsessionid=planted"
	for range 2 {
		var body string
		body, cookie = visit(s, cookie)
		fmt.Println(body, len(cookie))
	}
	sess, err := store.Get(ctx, "planted")
	fmt.Println(sess == nil, err != nil)
	// Output:
	// You have been here 1 times. 38
	// You have been here 2 times. 38
	// true true
}

func quiet(s *ghttp.Server) {
	s.SetAddr("127.0.0.1:0")
	s.SetDumpRouterMap(false)
	s.Logger().SetStdoutPrint(false)
}

// visit returns the answer and the session's cookie.
func visit(s *ghttp.Server, cookie string) (body, newCookie string) {
	r, _ := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/", s.GetListenedPort()), nil)
	r.Header.Set("Cookie", cookie)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		cookie = c.Name + "=" + c.Value
	}
	b, _ := io.ReadAll(resp.Body)
	return string(b), cookie
}
