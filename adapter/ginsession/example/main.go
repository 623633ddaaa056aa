package main

import (
	"log"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginsession"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	router := gin.Default()
	router.Use(ginsession.New(&session.Manager{Store: store, Secrets: []string{"keyboard cat"}})) // take a secret of your own

	router.GET("/", func(c *gin.Context) {
		s := session.From(c.Request)
		user, err := session.Value[string](s, "user")
		if err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		messages, err := s.Flashes("info")
		if err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.JSON(http.StatusOK, gin.H{"user": user, "messages": messages})
	})
	router.POST("/login", func(c *gin.Context) {
		s := session.From(c.Request)
		// Check the password first. The session gets a new id: whoever planted the old one has nothing of it.
		if err := s.Login(c.PostForm("username")); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		s.Flash("info", "Welcome back.")
		c.Redirect(http.StatusSeeOther, "/")
	})
	router.POST("/logout", func(c *gin.Context) {
		if err := session.From(c.Request).Logout(); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.Redirect(http.StatusSeeOther, "/")
	})
	log.Fatal(router.Run("localhost:8080"))
}
