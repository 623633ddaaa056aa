package main

import (
	"fmt"
	"log"

	"github.com/beego/beego/v2/server/web"
	"github.com/beego/beego/v2/server/web/context"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/beegostore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	beegostore.Register("filestore", store)
	web.BConfig.WebConfig.Session.SessionOn = true
	web.BConfig.WebConfig.Session.SessionProvider = "filestore"

	web.Get("/", func(ctx *context.Context) {
		views, _ := ctx.Input.Session("views").(int)
		ctx.Output.Session("views", views+1)
		ctx.WriteString(fmt.Sprintf("You have been here %d times.\n", views+1))
	})
	web.Run("localhost:8080")
}
