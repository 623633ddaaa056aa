package ginsession_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginsession"
	"github.com/sessionfilestore/filestore/session"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()
	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery(), ginsession.New(sessions))
	router.GET("/", func(c *gin.Context) {
		user, err := session.Value[string](session.From(c.Request), "user")
		if err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.String(http.StatusOK, "Hello, %s.", user)
	})
	router.POST("/login", func(c *gin.Context) {
		if err := session.From(c.Request).Login(c.Query("username")); err != nil { // check the password first
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.Redirect(http.StatusSeeOther, "/")
	})

	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequest("POST", "/login?username=anna", nil))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", w.Header().Get("Set-Cookie"))
	w = httptest.NewRecorder()
	router.ServeHTTP(w, r)
	fmt.Println(w.Body)
	// Output: Hello, anna.
}
