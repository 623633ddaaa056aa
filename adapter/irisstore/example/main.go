package main

import (
	"log"
	"time"

	"github.com/kataras/iris/v12"
	"github.com/kataras/iris/v12/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/irisstore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	man := sessions.New(sessions.Config{Cookie: "visits", Expires: 24 * time.Hour, AllowReclaim: true})
	man.UseDatabase(irisstore.New(store))

	app := iris.New()
	app.Use(man.Handler())
	app.Get("/", func(c iris.Context) {
		c.Writef("You have been here %d times.\n", sessions.Get(c).Increment("views", 1))
	})
	log.Print(app.Listen("localhost:8080"))
}
