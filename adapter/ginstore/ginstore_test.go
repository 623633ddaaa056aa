package ginstore_test

import (
	"encoding/gob"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/tester"
	"github.com/gin-gonic/gin"
	"github.com/gorilla/securecookie"
	gsessions "github.com/gorilla/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginstore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var key = []byte("an authentication key of 32 bytes")

var site = &adaptertest.Site{
	Name: "gin",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		router := gin.New()
		router.Use(sessions.Sessions("s", ginstore.New(s, key)))
		router.GET("/*path", func(c *gin.Context) {
			s := sessions.Default(c)
			code, body := answer(c.Request.URL.Path, c.Query, adaptertest.Session{
				ID:     s.ID,
				Get:    s.Get,
				Set:    s.Set,
				Delete: s.Delete,
				Renew: func() error {
					s.Options(sessions.Options{Path: "/", MaxAge: -1})
					err := s.Save()
					s.Options(sessions.Options{Path: "/", MaxAge: 30 * 86400, HttpOnly: true})
					return err
				},
				End: func() error {
					s.Clear()
					s.Options(sessions.Options{Path: "/", MaxAge: -1})
					return nil
				},
				Save: s.Save,
			})
			c.String(code, "%s", body)
		})
		return adaptertest.Serve(router)
	},
	Cookie: "s",
	Sign: func(id string) string {
		value, err := securecookie.EncodeMulti("s", id, securecookie.CodecsFromPairs(key)...)
		if err != nil { // the cookie is too long
			return id
		}
		return value
	},
	Life: 30 * 24 * time.Hour,
	Values: map[any]any{
		"int": 1, "int64": int64(1), "float": 1.0, "bool": true, "string": "\xff\x00é", "bytes": []byte{0, 1}, 7: "an int's", "time": time.Unix(1, 2).UTC(), "any": []any{1, "x"},
	},
	Garbage:    []string{`"AAAA"`},
	Visitor:    adaptertest.Nameless,
	Quiet:      true,
	Unsets:     true,
	PutOnly:    true,
	SaveRenews: true,
}

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard
	gob.Register(time.Time{})
	adaptertest.Main(m, site)
}

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

func open(t testing.TB) *filestore.Store {
	t.Helper()
	return storetest.Open(t, t.TempDir(), nil)
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every function of gin-contrib's package tester.
func TestTester(t *testing.T) {
	newStore := func(t *testing.T) sessions.Store { return ginstore.New(open(t), []byte("secret")) }
	t.Run("GetSet", func(t *testing.T) { tester.GetSet(t, newStore) })
	t.Run("DeleteKey", func(t *testing.T) { tester.DeleteKey(t, newStore) })
	t.Run("Flashes", func(t *testing.T) { tester.Flashes(t, newStore) })
	t.Run("Clear", func(t *testing.T) { tester.Clear(t, newStore) })
	t.Run("Options", func(t *testing.T) { tester.Options(t, newStore) })
	t.Run("Many", func(t *testing.T) { tester.Many(t, newStore) })
	t.Run("ManyStores", func(t *testing.T) { tester.ManyStores(t, newStore) })
}

func TestOptions(t *testing.T) {
	store := ginstore.New(open(t), key)
	options := func() *gsessions.Options {
		t.Helper()
		session, err := store.New(httptest.NewRequest("GET", "/", nil), "s")
		ok(t, err)
		return session.Options
	}
	if got, want := *options(), *gorillastore.New(nil, key).Options; got != want {
		t.Errorf("Options are %+v, want gorillastore's, %+v", got, want)
	}
	store.Options(sessions.Options{Path: "/x", Domain: "example.com", MaxAge: 7, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	want := gsessions.Options{Path: "/x", Domain: "example.com", MaxAge: 7, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if got := *options(); got != want {
		t.Errorf("Options are %+v, want %+v", got, want)
	}
	store.(interface{ MaxAge(int) }).MaxAge(9)
	if got := options().MaxAge; got != 9 {
		t.Errorf("MaxAge is %d, want 9", got)
	}
}

// Without a MaxAge the session is kept, and the browser's cookie ends with the browser.
func TestOnce(t *testing.T) {
	dir := t.TempDir()
	router := gin.New()
	router.Use(sessions.Sessions("s", ginstore.New(storetest.Open(t, dir, nil), key)))
	router.GET("/once", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Set("user", "alice")
		s.Options(sessions.Options{Path: "/"})
		ok(t, s.Save())
	})
	router.GET("/user", func(c *gin.Context) { c.String(http.StatusOK, "%v", sessions.Default(c).Get("user")) })
	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequest("GET", "/once", nil))
	set := w.Result().Cookies()
	if len(set) != 1 || set[0].MaxAge != 0 || !set[0].Expires.IsZero() || len(storetest.Files(t, dir)) != 1 {
		t.Fatalf("cookies %v, files %q", set, storetest.Files(t, dir))
	}
	r := httptest.NewRequest("GET", "/user", nil)
	r.AddCookie(set[0])
	w = httptest.NewRecorder()
	if router.ServeHTTP(w, r); w.Body.String() != "alice" {
		t.Errorf("the user is %q", w.Body)
	}
}
