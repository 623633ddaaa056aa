package ginstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginstore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	files, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer files.Close()

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(sessions.Sessions("visits", ginstore.New(files, []byte("keyboard cat"))))
	router.GET("/", func(c *gin.Context) {
		session := sessions.Default(c)
		views, _ := session.Get("views").(int)
		session.Set("views", views+1)
		if err := session.Save(); err != nil {
			c.AbortWithError(http.StatusInternalServerError, err)
			return
		}
		c.String(http.StatusOK, "You have been here %d times.", views+1)
	})

	var cookie string
	for range 2 {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		router.ServeHTTP(w, r)
		cookie = w.Header().Get("Set-Cookie")
		fmt.Println(w.Body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
