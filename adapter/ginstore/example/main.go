package main

import (
	"log"
	"net/http"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginstore"
)

func main() {
	files, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer files.Close()

	router := gin.Default()
	router.Use(sessions.Sessions("visits", ginstore.New(files, []byte("keyboard cat")))) // take a key of your own

	router.GET("/", func(c *gin.Context) {
		session := sessions.Default(c)
		views, _ := session.Get("views").(int)
		session.Set("views", views+1)
		if err := session.Save(); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.String(http.StatusOK, "You have been here %d times.\n", views+1)
	})
	log.Fatal(router.Run("localhost:8080"))
}
