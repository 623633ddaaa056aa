package main

import (
	"log"

	"github.com/gogf/gf/v2/frame/g"
	"github.com/gogf/gf/v2/net/ghttp"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gfstore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	s := g.Server()
	s.SetSessionStorage(gfstore.New(store))
	s.BindHandler("/", func(r *ghttp.Request) {
		views := r.Session.MustGet("views").Int() + 1
		r.Session.MustSet("views", views)
		r.Response.Writef("You have been here %d times.\n", views)
	})
	s.SetAddr("localhost:8080")
	s.Run()
}
