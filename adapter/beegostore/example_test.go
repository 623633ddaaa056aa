package beegostore_test

import (
	"fmt"
	"net/http/httptest"
	"os"

	"github.com/beego/beego/v2/server/web"
	"github.com/beego/beego/v2/server/web/context"
	filter "github.com/beego/beego/v2/server/web/filter/session"
	"github.com/beego/beego/v2/server/web/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/beegostore"
)

// Beego's session filter is for programs that do not call web.Run.
func Example() {
	dir, _ := os.MkdirTemp("", "sessions-")
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	beegostore.Register("filestore", store)
	site := web.NewControllerRegister()
	site.InsertFilterChain("/*", filter.Session("filestore",
		session.CfgCookieName("sid"), session.CfgSetCookie(true), session.CfgGcLifeTime(3600)))
	site.Get("/", func(ctx *context.Context) {
		views, _ := ctx.Input.Session("views").(int)
		ctx.Output.Session("views", views+1)
		ctx.WriteString(fmt.Sprintf("You have been here %d times.", views+1))
	})
	site.Init()

	var cookie string
	for range 2 {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		site.ServeHTTP(w, r)
		if c := w.Header().Get("Set-Cookie"); c != "" {
			cookie = c
		}
		fmt.Println(w.Body)
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
