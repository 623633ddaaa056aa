package gorillastore_test

import (
	"encoding/gob"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	echosession "github.com/labstack/echo-contrib/session"
	echosession5 "github.com/labstack/echo-contrib/v5/session"
	"github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"
	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/faux"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// The site is the same in each framework.
var sites = []*adaptertest.Site{newSite("gorilla", gorilla), newSite("echo4", echoV4), newSite("echo5", echoV5)}

func newSite(name string, framework func(sessions.Store, adaptertest.Answer) http.Handler) *adaptertest.Site {
	return &adaptertest.Site{
		Name: name,
		Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
			return adaptertest.Serve(framework(gorillastore.New(s, key), answer))
		},
		Cookie: "s",
		Sign: func(id string) string {
			return sign("s", id, time.Now()).Value
		},
		Life: 30 * 24 * time.Hour,
		Values: map[any]any{
			"int": 1, "int64": int64(1), "float": 1.0, "bool": true, "string": "\xff\x00é", "bytes": []byte{0, 1}, 7: "an int's", "time": time.Unix(1, 2).UTC(),
			"any": []any{1, "x"}, "point": point{1, 2},
		},
		Garbage:    []string{`"AAAA"`},
		Visitor:    adaptertest.Nameless,
		BadCookie:  http.StatusInternalServerError,
		Quiet:      true,
		SaveRenews: true,
	}
}

type getter func(name string) (*sessions.Session, error)

// respond answers a request; an error of Get is the framework's to answer.
func respond(get getter, answer adaptertest.Answer, w http.ResponseWriter, r *http.Request) error {
	session, err := get("s")
	if err != nil {
		return err
	}
	code, body := answer(r.URL.Path, r.FormValue, adaptertest.Session{
		ID:     func() string { return session.ID },
		Get:    func(key any) any { return session.Values[key] },
		Set:    func(key, value any) { session.Values[key] = value },
		Delete: func(key any) { delete(session.Values, key) },
		Renew:  func() error { session.ID = ""; return nil },
		End:    func() error { session.Options.MaxAge = -1; return nil },
		Save:   func() error { return session.Save(r, w) },
	})
	w.WriteHeader(code)
	fmt.Fprint(w, body)
	return nil
}

func gorilla(store sessions.Store, answer adaptertest.Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		get := func(name string) (*sessions.Session, error) { return store.Get(r, name) }
		if err := respond(get, answer, w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

func echoV4(store sessions.Store, answer adaptertest.Answer) http.Handler {
	e := echo.New()
	e.Use(echosession.Middleware(store))
	e.Any("/*", func(c echo.Context) error {
		get := func(name string) (*sessions.Session, error) { return echosession.Get(name, c) }
		return respond(get, answer, c.Response(), c.Request())
	})
	return e
}

func echoV5(store sessions.Store, answer adaptertest.Answer) http.Handler {
	e := echo5.New()
	e.Logger = nil
	e.HTTPErrorHandler = func(c *echo5.Context, err error) { c.String(http.StatusInternalServerError, err.Error()) }
	e.Use(echosession5.Middleware(store))
	e.Any("/*", func(c *echo5.Context) error {
		get := func(name string) (*sessions.Session, error) { return echosession5.Get(name, c) }
		return respond(get, answer, c.Response(), c.Request())
	})
	return e
}

func TestMain(m *testing.M) {
	gob.Register(time.Time{})
	adaptertest.Main(m, sites...)
}

func TestSites(t *testing.T) {
	for _, x := range sites {
		adaptertest.Run(t, x)
	}
}

// goth keeps the state of an authentication in a session, and removes it when that is over.
func TestGoth(t *testing.T) {
	store, dir := newStore(t)
	defer func(s sessions.Store) { gothic.Store = s }(gothic.Store)
	gothic.Store = store
	goth.UseProviders(&faux.Provider{})
	defer goth.ClearProviders()
	mux := http.NewServeMux()
	mux.HandleFunc("/auth", gothic.BeginAuthHandler)
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		user, err := gothic.CompleteUserAuth(w, r)
		fmt.Fprint(w, user.Provider, user.UserID, " ", err)
	})
	site, stop := adaptertest.Serve(mux)
	t.Cleanup(stop)

	begin := func() (b *storetest.Browser, state string) {
		t.Helper()
		b = storetest.NewBrowser(t, site)
		res, err := b.Client.Get(site + "/auth?provider=faux")
		ok(t, err)
		res.Body.Close()
		u, err := res.Location()
		ok(t, err)
		if state = u.Query().Get("state"); res.StatusCode != http.StatusTemporaryRedirect || state == "" {
			t.Fatalf("%d to %s", res.StatusCode, u)
		}
		return b, url.QueryEscape(state)
	}

	b, state := begin()
	wantFiles(t, dir, 1)
	stolen := b.With("_gothic_session", b.Cookie("_gothic_session"))
	b.Want("/callback?provider=faux&state="+state, "fauxid <nil>")
	wantFiles(t, dir, 0)
	for _, b := range []*storetest.Browser{b, stolen} { // once only
		b.Want("/callback?provider=faux&state="+state, " could not find a matching session for this request")
	}

	b, _ = begin()
	b.Want("/callback?provider=faux&state=forged", " state token mismatch")
	wantFiles(t, dir, 0)
	b, state = begin()
	storetest.NewBrowser(t, site).Want("/callback?provider=faux&state="+state, " could not find a matching session for this request")
	wantFiles(t, dir, 1)
	b.Want("/callback?provider=faux&state="+state, "fauxid <nil>")
	wantFiles(t, dir, 0)
}
