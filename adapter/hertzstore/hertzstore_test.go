package hertzstore_test

import (
	"context"
	"encoding/gob"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/middlewares/server/recovery"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/gorilla/securecookie"
	gsessions "github.com/gorilla/sessions"
	"github.com/hertz-contrib/sessions"
	"github.com/hertz-contrib/sessions/tester"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
	"github.com/sessionfilestore/filestore/adapter/hertzstore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var key = []byte("an authentication key of 32 bytes")

var site = &adaptertest.Site{
	Name: "hertz",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		return serve(s, func(_ context.Context, c *app.RequestContext) { respond(c, answer) })
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

// serve serves all paths over TCP: Hertz is not net/http.
func serve(s *filestore.Store, handlers ...app.HandlerFunc) (url string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	h := server.New(server.WithListener(ln), server.WithExitWaitTime(0))
	h.Use(recovery.Recovery(), sessions.New("s", hertzstore.New(s, key)))
	h.GET("/*path", handlers...)
	var wg sync.WaitGroup
	wg.Go(func() { h.Run() })
	url = "http://" + ln.Addr().String()
	for !h.IsRunning() { // before that a Shutdown is refused
		time.Sleep(time.Millisecond)
	}
	return url, func() { h.Shutdown(context.Background()); ln.Close(); wg.Wait() }
}

func respond(c *app.RequestContext, answer adaptertest.Answer) {
	s := sessions.Default(c)
	query := func(name string) string { return strings.Clone(c.Query(name)) } // Hertz uses the memory again
	code, body := answer(strings.Clone(string(c.Path())), query, adaptertest.Session{
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
}

func TestMain(m *testing.M) {
	hlog.SetOutput(io.Discard)
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

// Every function of hertz-contrib's package tester.
func TestTester(t *testing.T) {
	newStore := func(t *testing.T) sessions.Store { return hertzstore.New(open(t), []byte("secret")) }
	t.Run("GetSet", func(t *testing.T) { tester.GetSet(t, newStore) })
	t.Run("DeleteKey", func(t *testing.T) { tester.DeleteKey(t, newStore) })
	t.Run("Flashes", func(t *testing.T) { tester.Flashes(t, newStore) })
	t.Run("Clear", func(t *testing.T) { tester.Clear(t, newStore) })
	t.Run("Options", func(t *testing.T) { tester.Options(t, newStore) })
	t.Run("Many", func(t *testing.T) { tester.Many(t, newStore) })
}

func TestOptions(t *testing.T) {
	store := hertzstore.New(open(t), key)
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

// The cookie is set when the handlers have returned. If this fails, the package's comment is out of date.
func TestCookie(t *testing.T) {
	dir := t.TempDir()
	url, stop := serve(storetest.Open(t, dir, nil), func(_ context.Context, c *app.RequestContext) {
		s := sessions.Default(c)
		s.Set("user", "alice")
		if string(c.Path()) == "/once" { // the browser's cookie ends with the browser
			s.Options(sessions.Options{Path: "/"})
		}
		ok(t, s.Save())
		if string(c.Path()) == "/panic" {
			panic("on purpose")
		}
		if string(c.Path()) == "/stream" {
			c.Response.HijackWriter(resp.NewChunkedBodyWriter(&c.Response, c.GetWriter()))
			c.Write([]byte("alice"))
			ok(t, c.Flush())
			return
		}
		c.String(http.StatusOK, "alice")
	})
	t.Cleanup(stop)
	for path, want := range map[string]struct {
		code  int
		set   bool
		lasts bool
	}{"/": {200, true, true}, "/once": {200, true, false}, "/panic": {500, false, false}, "/stream": {200, false, false}} {
		b := storetest.NewBrowser(t, url)
		res, err := b.Client.Get(url + path)
		ok(t, err)
		res.Body.Close()
		set := res.Cookies()
		if res.StatusCode != want.code || (len(set) == 1) != want.set || want.set && (set[0].MaxAge > 0) != want.lasts {
			t.Errorf("%s = %d, cookies %v", path, res.StatusCode, set)
		}
	}
	if n := len(storetest.Files(t, dir)); n != 4 { // what was saved is, whatever became of the answer
		t.Errorf("%d files, want 4", n)
	}
}
