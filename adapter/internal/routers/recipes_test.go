package routers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/a-h/templ"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-fuego/fuego"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/recover"
	"github.com/labstack/echo/v5"
	echomiddleware "github.com/labstack/echo/v5/middleware"
	"github.com/starfederation/datastar-go/datastar"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// This file has the pieces of docs/FRAMEWORKS.md, to the letter, and runs them. fiberSessions is in fiber_test.go.

func chiSite(m *session.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer, m.Handler)
	r.Get("/", func(w http.ResponseWriter, r *http.Request) {
		user, err := session.Value[string](session.From(r), "user")
		if err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "Hello, %s.", user)
	})
	return r
}

func echoSite(m *session.Manager) http.Handler {
	e := echo.New()
	e.Use(echomiddleware.Recover(), echo.WrapMiddleware(m.Handler))
	e.GET("/", func(c *echo.Context) error {
		user, err := session.Value[string](session.From(c.Request()), "user")
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, "Hello, "+user+".")
	})
	return e
}

func fiberSite(m *session.Manager) *fiber.App {
	app := fiber.New()
	app.Use(recover.New(), fiberSessions(m))
	app.Get("/", func(c fiber.Ctx) error {
		user, err := session.Value[string](session.FromContext(c.Context()), "user")
		if err != nil {
			return err
		}
		return c.SendString("Hello, " + user + ".")
	})
	return app
}

type greeting struct {
	Body struct {
		Text string `json:"text"`
	}
}

func humaSite(m *session.Manager) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, huma.DefaultConfig("A site", "1.0.0"))
	huma.Get(api, "/", func(ctx context.Context, _ *struct{}) (*greeting, error) {
		user, err := session.Value[string](session.FromContext(ctx), "user")
		if err != nil {
			return nil, err
		}
		g := &greeting{}
		g.Body.Text = "Hello, " + user + "."
		return g, nil
	})
	return m.Handler(mux)
}

func fuegoSite(m *session.Manager) *fuego.Server {
	s := fuego.NewServer()
	fuego.Use(s, m.Handler)
	fuego.Get(s, "/", func(c fuego.ContextNoBody) (string, error) {
		user, err := session.Value[string](session.FromContext(c.Context()), "user")
		return "Hello, " + user + ".", err
	})
	return s
}

// hello is what templ makes of: templ hello() { <p>Hello, { user(ctx) }.</p> }
func hello() templ.Component {
	return templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		_, err := fmt.Fprintf(w, "<p>Hello, %s.</p>", templ.EscapeString(user(ctx)))
		return err
	})
}

// user returns who is logged in, for components. It returns "" if nobody is.
func user(ctx context.Context) string {
	user, err := session.Value[string](session.FromContext(ctx), "user")
	if err != nil {
		return ""
	}
	return user
}

func templSite(m *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", templ.Handler(hello()))
	return m.Handler(mux)
}

func news(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	s.NoTouch() // or an open page keeps its user logged in
	done := s.Done()
	if err := s.Put("seen", "news"); err != nil { // before NewSSE, which sends the header with the cookie
		http.Error(w, "Please try again.", http.StatusInternalServerError)
		return
	}
	sse := datastar.NewSSE(w, r)
	sse.PatchElements(`<p id="news">Hello, ` + templ.EscapeString(user(r.Context())) + `.</p>`)
	select {
	case <-done: // the session has ended, or got a new id
		sse.Redirect("/login")
	case <-r.Context().Done():
	}
}

func connectSite(m *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/site.v1.Site/Hello", connect.NewUnaryHandler("/site.v1.Site/Hello",
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			user, err := session.Value[string](session.FromContext(ctx), "user")
			if err != nil || user == "" {
				return nil, connect.NewError(connect.CodeUnauthenticated, err)
			}
			return connect.NewResponse(wrapperspb.String("Hello, " + user + ".")), nil
		}))
	return m.Handler(mux)
}

func manager() *session.Manager {
	return &session.Manager{Store: sessiontest.NewStore(), Secrets: []string{"only for tests"}}
}

func TestRecipes(t *testing.T) {
	for name, site := range map[string]func(*session.Manager) http.Handler{
		"chi": chiSite, "echo": echoSite, "huma": humaSite, "templ": templSite,
		"fuego": func(m *session.Manager) http.Handler { return fuegoSite(m).Mux },
		"fiber": func(m *session.Manager) http.Handler { return adaptor.FiberApp(fiberSite(m)) },
	} {
		m := manager()
		w := httptest.NewRecorder()
		site(m).ServeHTTP(w, sessiontest.Login(httptest.NewRequest("GET", "/", nil), m, "anna", nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Hello, anna.") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// The stream of news has the cookie, and ends at a logout with a redirect.
func TestRecipeNews(t *testing.T) {
	m := manager()
	r := sessiontest.Login(httptest.NewRequest("GET", "/", nil), m, "anna", nil)
	srv := httptest.NewServer(m.Handler(http.HandlerFunc(news)))
	defer srv.Close()
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header = r.Header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 4096)
	if n, err := res.Body.Read(first); !strings.Contains(string(first[:n]), "Hello, anna.") {
		t.Errorf("the first event is %q, %v", first[:n], err)
	}
	if n, err := m.EndAll(context.Background(), "anna"); n != 1 || err != nil {
		t.Errorf("EndAll = %d, %v", n, err)
	}
	if rest, err := io.ReadAll(res.Body); !strings.Contains(string(rest), "/login") || err != nil {
		t.Errorf("the rest is %q, %v", rest, err)
	}
}

// Connect's own client, with a cookie jar's cookie or without.
func TestRecipeConnect(t *testing.T) {
	m := manager()
	srv := httptest.NewServer(connectSite(m))
	defer srv.Close()
	client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](http.DefaultClient, srv.URL+"/site.v1.Site/Hello")
	req := connect.NewRequest(&emptypb.Empty{})
	if _, err := client.CallUnary(context.Background(), req); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("without a cookie: %v", err)
	}
	r := sessiontest.Login(httptest.NewRequest("GET", "/", nil), m, "anna", nil)
	req = connect.NewRequest(&emptypb.Empty{})
	req.Header().Set("Cookie", r.Header.Get("Cookie"))
	res, err := client.CallUnary(context.Background(), req)
	if err != nil || res.Msg.GetValue() != "Hello, anna." {
		t.Errorf("%v, %v", res, err)
	}
}

// What an error handler puts in is lost in the routers that call it when the middleware has returned.
func TestErrorHandlerIsLate(t *testing.T) {
	put := func(ctx context.Context) { session.FromContext(ctx).Put("late", true) }
	for name, site := range map[string]func(m *session.Manager) http.Handler{
		"echo": func(m *session.Manager) http.Handler {
			e := echo.New()
			e.HTTPErrorHandler = func(c *echo.Context, _ error) {
				put(c.Request().Context())
				c.NoContent(http.StatusTeapot)
			}
			e.Use(echo.WrapMiddleware(m.Handler))
			e.GET("/", func(c *echo.Context) error {
				session.From(c.Request()).Put("early", true)
				return errors.New("no")
			})
			return e
		},
		"fiber": func(m *session.Manager) http.Handler {
			app := fiber.New(fiber.Config{ErrorHandler: func(c fiber.Ctx, _ error) error {
				put(c.Context())
				return c.SendStatus(http.StatusTeapot)
			}})
			app.Use(fiberSessions(m))
			app.Get("/", func(c fiber.Ctx) error {
				session.FromContext(c.Context()).Put("early", true)
				return errors.New("no")
			})
			return adaptor.FiberApp(app)
		},
	} {
		m := manager()
		w := httptest.NewRecorder()
		site(m).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != http.StatusTeapot || len(w.Header()["Set-Cookie"]) != 1 {
			t.Errorf("%s: %d, cookies %q", name, w.Code, w.Header()["Set-Cookie"])
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", w.Header().Get("Set-Cookie"))
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			v := session.From(r).Values
			if string(v["early"]) != "true" || v["late"] != nil {
				t.Errorf("%s: the session has %s", name, v)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}
