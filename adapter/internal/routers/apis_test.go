package routers_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-fuego/fuego"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/session"
)

// This file has the frameworks whose handlers are functions of a context.

type humaInput struct {
	Action string `path:"action"`
	query  url.Values
}

func (in *humaInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	in.query = u.Query()
	return nil
}

type humaOutput struct {
	Status      int
	Location    string `header:"Location"`
	ContentType string `header:"Content-Type"`
	Body        []byte
}

var humaAPI = &routertest.Site{
	Name:       "huma v2",
	Module:     "github.com/danielgtaylor/huma/v2",
	NoRecovery: true,
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		mux := http.NewServeMux()
		api := humago.New(mux, huma.DefaultConfig("a site", "1"))
		huma.Register(api, huma.Operation{Method: "GET", Path: "/app/{action}"}, func(ctx context.Context, in *humaInput) (*humaOutput, error) {
			reply := app.Answer(session.FromContext(ctx), in.Action, in.query)
			if reply.Code >= 400 {
				return nil, huma.NewError(reply.Code, reply.Body)
			}
			return &humaOutput{reply.Code, reply.Location, "text/plain", []byte(reply.Body)}, nil
		})
		huma.Register(api, huma.Operation{Method: "GET", Path: "/events"}, func(ctx context.Context, in *struct{ humaQuery }) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				c.SetHeader("Content-Type", "text/event-stream")
				w := c.BodyWriter()
				app.Events(session.FromContext(c.Context()), in.query, func(data string) error {
					fmt.Fprintf(w, "data: %s\n\n", data)
					w.(http.Flusher).Flush()
					return nil
				})
			}}, nil
		})
		huma.Register(api, huma.Operation{Method: "POST", Path: "/upload", MaxBodyBytes: 64 << 20}, func(ctx context.Context, in *struct{ RawBody multipart.Form }) (*humaOutput, error) {
			file, err := in.RawBody.File["file"][0].Open()
			if err != nil {
				return nil, err
			}
			defer file.Close()
			reply := app.Upload(session.FromContext(ctx), file)
			return &humaOutput{Status: reply.Code, Body: []byte(reply.Body)}, nil
		})
		huma.Register(api, huma.Operation{Method: "GET", Path: "/upgrade"}, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				r, w := humago.Unwrap(c)
				app.Upgrade(w, r)
			}}, nil
		})
		return routertest.Serve(m.Handler(mux))
	},
}

type humaQuery struct{ query url.Values }

func (in *humaQuery) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	in.query = u.Query()
	return nil
}

var fuegoServer = &routertest.Site{
	Name:       "fuego",
	Module:     "github.com/go-fuego/fuego",
	FailsHard:  true,
	NoRecovery: true,
	Start: func(m *session.Manager, app *routertest.App, _ bool) (string, func()) {
		s := fuego.NewServer(fuego.WithoutLogger(), fuego.WithEngineOptions(fuego.WithOpenAPIConfig(fuego.OpenAPIConfig{Disabled: true, DisableMessages: true})))
		fuego.Use(s, m.Handler)
		fuego.Get(s, "/app/{action}", func(c fuego.ContextNoBody) (string, error) {
			r := c.Request()
			reply := app.Answer(session.From(r), c.PathParam("action"), r.URL.Query())
			switch {
			case reply.Location != "":
				_, err := c.Redirect(reply.Code, reply.Location)
				return "", err
			case reply.Code >= 400:
				return "", fuego.HTTPError{Status: reply.Code, Detail: reply.Body, Err: errors.New(reply.Body)}
			}
			return reply.Body, nil
		})
		mux := app.ServeMux()
		fuego.GetStd(s, "/events", mux.ServeHTTP)
		fuego.PostStd(s, "/upload", mux.ServeHTTP)
		fuego.GetStd(s, "/upgrade", mux.ServeHTTP)
		return routertest.Serve(s.Mux)
	},
}

// connectService has a unary procedure and one that streams, whose message is the path and query of the other sites.
// Uploads and upgrades are plain handlers beside them.
var connectService = &routertest.Site{
	Name:           "Connect",
	Module:         "connectrpc.com/connect",
	NoRedirect:     true,
	RecoversInside: true,
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		var opts []connect.HandlerOption
		if recovers {
			opts = append(opts, connect.WithRecover(func(context.Context, connect.Spec, http.Header, any) error {
				return connect.NewError(connect.CodeInternal, errors.New("panic"))
			}))
		}
		mux := http.NewServeMux()
		mux.Handle("/", app.ServeMux())
		mux.Handle("/site.v1/Answer", connect.NewUnaryHandler("/site.v1/Answer", func(ctx context.Context, req *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			action, query, _ := strings.Cut(req.Msg.GetValue(), "?")
			q, _ := url.ParseQuery(query)
			reply := app.Answer(session.FromContext(ctx), strings.TrimPrefix(action, "/app/"), q)
			if reply.Code >= 400 {
				return nil, connect.NewError(connect.CodeInternal, errors.New(reply.Body))
			}
			res := connect.NewResponse(wrapperspb.String(reply.Body))
			if reply.Location != "" {
				res.Header().Set("Location", reply.Location)
			}
			return res, nil
		}, opts...))
		mux.Handle("/site.v1/Events", connect.NewServerStreamHandler("/site.v1/Events", func(ctx context.Context, req *connect.Request[wrapperspb.StringValue], out *connect.ServerStream[wrapperspb.StringValue]) error {
			_, query, _ := strings.Cut(req.Msg.GetValue(), "?")
			q, _ := url.ParseQuery(query)
			return app.Events(session.FromContext(ctx), q, func(data string) error {
				return out.Send(wrapperspb.String(data))
			})
		}, opts...))
		return routertest.Serve(m.Handler(mux))
	},
	Request: func(url, path string) *http.Request {
		msg, _ := json.Marshal(path)
		if strings.HasPrefix(path, "/events") {
			frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
			r, _ := http.NewRequest("POST", url+"/site.v1/Events", bytes.NewReader(frame))
			r.Header.Set("Content-Type", "application/connect+json")
			return r
		}
		r, _ := http.NewRequest("POST", url+"/site.v1/Answer", bytes.NewReader(msg))
		r.Header.Set("Content-Type", "application/json")
		return r
	},
	Body: func(text string) (value string) {
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return "not a JSON string: " + text
		}
		return value
	},
}
