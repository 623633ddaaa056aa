package main

import (
	"context"
	"log"
	"net/http"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/hertz-contrib/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/hertzstore"
)

func main() {
	files, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()

	h := server.Default(server.WithHostPorts("localhost:8080"))
	h.Use(sessions.New("visits", hertzstore.New(files, []byte("keyboard cat")))) // take a key of your own

	h.GET("/", func(_ context.Context, c *app.RequestContext) {
		session := sessions.Default(c)
		views, _ := session.Get("views").(int)
		session.Set("views", views+1)
		if err := session.Save(); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.String(http.StatusOK, "You have been here %d times.\n", views+1)
	})
	h.Spin()
}
