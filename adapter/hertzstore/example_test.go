package hertzstore_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/ut"
	"github.com/cloudwego/hertz/pkg/route"
	"github.com/hertz-contrib/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/hertzstore"
)

func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	files, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer files.Close()

	router := route.NewEngine(config.NewOptions(nil))
	router.Use(sessions.New("visits", hertzstore.New(files, []byte("keyboard cat"))))
	router.GET("/", func(_ context.Context, c *app.RequestContext) {
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
		w := ut.PerformRequest(router, "GET", "/", nil, ut.Header{Key: "Cookie", Value: cookie})
		cookie = w.Header().Get("Set-Cookie")
		fmt.Println(w.Body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
