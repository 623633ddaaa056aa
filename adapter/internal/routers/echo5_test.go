package routers_test

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/session"
)

var echo5 = &routertest.Site{
	Name:   "echo v5",
	Module: "github.com/labstack/echo/v5",
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		e := echo.New()
		e.Logger = slog.New(slog.DiscardHandler)
		if recovers {
			e.Use(middleware.Recover())
		}
		e.Use(echo.WrapMiddleware(m.Handler))
		e.Any("/app/:action", func(c *echo.Context) error {
			reply := app.Answer(session.From(c.Request()), c.Param("action"), c.QueryParams())
			switch {
			case reply.Location != "":
				return c.Redirect(reply.Code, reply.Location)
			case reply.Code >= 400:
				return echo.NewHTTPError(reply.Code, reply.Body)
			}
			return c.String(reply.Code, reply.Body)
		})
		e.GET("/events", func(c *echo.Context) error {
			c.Response().Header().Set("Content-Type", "text/event-stream")
			return app.Events(session.From(c.Request()), c.QueryParams(), func(data string) error {
				fmt.Fprintf(c.Response(), "data: %s\n\n", data)
				return http.NewResponseController(c.Response()).Flush()
			})
		})
		e.POST("/upload", func(c *echo.Context) error {
			if err := c.Request().ParseMultipartForm(routertest.UploadMemory); err != nil {
				return err
			}
			header, err := c.FormFile("file")
			if err != nil {
				return err
			}
			reply := app.UploadPart(session.From(c.Request()), header)
			return c.String(reply.Code, reply.Body)
		})
		e.GET("/upgrade", func(c *echo.Context) error {
			app.Upgrade(c.Response(), c.Request())
			return nil
		})
		return routertest.Serve(e)
	},
}
