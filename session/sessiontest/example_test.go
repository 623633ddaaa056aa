package sessiontest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// To test a handler as somebody who has logged in, and as a visitor. In a test it is a *testing.T that is told.
func ExampleLogin() {
	m := &session.Manager{Store: sessiontest.NewStore(), Secrets: []string{"only for tests"}}
	account := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := session.From(r).User()
		if user == "" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		fmt.Fprintf(w, "Hello, %s.", user)
	}))

	w := httptest.NewRecorder()
	account.ServeHTTP(w, sessiontest.Login(httptest.NewRequest("GET", "/account", nil), m, "anna", nil))
	fmt.Println(w.Code, w.Body)

	w = httptest.NewRecorder()
	account.ServeHTTP(w, httptest.NewRequest("GET", "/account", nil))
	fmt.Println(w.Code, w.Header().Get("Location"))
	// Output:
	// 200 Hello, anna.
	// 303 /login
}
