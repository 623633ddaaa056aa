package ginsession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/ginsession"
	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

// routes adds the routes of the stories, as gin's users write them.
func routes(r *gin.Engine, app *routertest.App) {
	r.MaxMultipartMemory = routertest.UploadMemory
	r.Any("/app/:action", func(c *gin.Context) {
		reply := app.Answer(session.From(c.Request), c.Param("action"), c.Request.URL.Query())
		if reply.Location != "" {
			c.Redirect(reply.Code, reply.Location)
			return
		}
		c.String(reply.Code, "%s", reply.Body)
	})
	r.POST("/upload", func(c *gin.Context) {
		header, err := c.FormFile("file")
		if err != nil {
			c.AbortWithError(http.StatusBadRequest, err)
			return
		}
		reply := app.UploadPart(session.From(c.Request), header)
		c.String(reply.Code, "%s", reply.Body)
	})
	r.GET("/upgrade", func(c *gin.Context) { app.Upgrade(c.Writer, c.Request) })
	r.GET("/events", func(c *gin.Context) {
		app.Events(session.From(c.Request), c.Request.URL.Query(), func(data string) error {
			c.SSEvent("message", data)
			c.Writer.Flush()
			return nil
		})
	})
}

func engine(recovers bool) *gin.Engine {
	r := gin.New()
	if recovers {
		r.Use(gin.RecoveryWithWriter(io.Discard))
	}
	return r
}

var site = &routertest.Site{
	Name:   "gin",
	Module: "github.com/gin-gonic/gin",
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		r := engine(recovers)
		r.Use(ginsession.New(m))
		routes(r, app)
		return routertest.Serve(r)
	},
}

// around is gin within Manager.Handler, which is one line. What it lacks is why there is package ginsession; see also
// TestAround.
var around = &routertest.Site{
	Name:           "gin, Manager.Handler around it",
	Module:         "github.com/gin-gonic/gin",
	RecoversInside: true,
	AlsoLost:       []string{"gin's `Stream`"}, // TestAround
	Start: func(m *session.Manager, app *routertest.App, recovers bool) (string, func()) {
		r := engine(recovers)
		routes(r, app)
		return routertest.Serve(m.Handler(r))
	},
}

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter, gin.DefaultErrorWriter = io.Discard, io.Discard
	routertest.Main(m, false, site, around)
}

func TestSites(t *testing.T) {
	for _, x := range []*routertest.Site{site, around} {
		t.Run(x.Name, func(t *testing.T) { routertest.Run(t, x) })
	}
}

func TestReadme(t *testing.T) { storetest.Readme(t) }

func TestPage(t *testing.T) { routertest.Page(t, "../../docs/FRAMEWORKS.md", site, around) }

func manager(s session.Store) *session.Manager {
	return &session.Manager{Store: s, Secrets: []string{"keyboard cat"}}
}

// working is held by a handler of serve, so that send returns when the handler has.
var working sync.Mutex

// serve runs h until the end of the test, for one request at a time.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	url, stop := routertest.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		working.Lock()
		defer working.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(stop)
	return url
}

func put(t *testing.T, c *gin.Context, key, value string) {
	t.Helper()
	if err := session.From(c.Request).Put(key, value); err != nil {
		t.Error(err)
	}
}

// An answer is what a client sees of a response.
type answer struct {
	Code   int
	Header http.Header
	Body   string
}

func send(t *testing.T, method, url, cookie string) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	res.Header.Del("Date")
	working.Lock()
	defer working.Unlock()
	return answer{res.StatusCode, res.Header, string(body)}
}

// cookie returns the Cookie header for what a sets.
func (a answer) cookie() string {
	head, _, _ := strings.Cut(a.Header.Get("Set-Cookie"), ";")
	return head
}

// ways are all ways in which a handler of gin lets the header leave.
func ways(t *testing.T) map[string]func(c *gin.Context) {
	file := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]func(c *gin.Context){
		"/nothing":    func(c *gin.Context) {},
		"/status":     func(c *gin.Context) { c.Status(http.StatusTeapot) },
		"/status-now": func(c *gin.Context) { c.Status(http.StatusTeapot); c.Writer.WriteHeaderNow() },
		"/now-twice": func(c *gin.Context) {
			c.Writer.WriteHeaderNow()
			c.Status(http.StatusTeapot)
			c.Writer.WriteHeaderNow()
		},
		"/string":        func(c *gin.Context) { c.String(http.StatusCreated, "text") },
		"/json":          func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"a": 1}) },
		"/empty":         func(c *gin.Context) { c.String(http.StatusOK, "") },
		"/204":           func(c *gin.Context) { c.String(http.StatusNoContent, "not sent") },
		"/304":           func(c *gin.Context) { c.Status(http.StatusNotModified); c.Writer.WriteHeaderNow() },
		"/redirect":      func(c *gin.Context) { c.Redirect(http.StatusFound, "/") },
		"/abort":         func(c *gin.Context) { c.Abort() },
		"/abort-status":  func(c *gin.Context) { c.AbortWithStatus(http.StatusForbidden) },
		"/abort-json":    func(c *gin.Context) { c.AbortWithStatusJSON(http.StatusForbidden, gin.H{}) },
		"/abort-error":   func(c *gin.Context) { c.AbortWithError(http.StatusBadGateway, errors.New("no")) },
		"/write":         func(c *gin.Context) { c.Writer.Write([]byte("a")); c.Writer.Write([]byte("b")) },
		"/write-string":  func(c *gin.Context) { c.Writer.WriteString("a") },
		"/write-nothing": func(c *gin.Context) { c.Writer.Write(nil) },
		"/flush":         func(c *gin.Context) { c.Writer.Flush(); c.Writer.WriteString("a") },
		"/controller":    func(c *gin.Context) { http.NewResponseController(c.Writer).Flush(); c.Writer.WriteString("a") },
		"/flush-alone":   func(c *gin.Context) { c.Writer.Flush() },
		"/deadline": func(c *gin.Context) {
			if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Time{}); err != nil {
				t.Error(err)
			}
		},
		"/copy":         func(c *gin.Context) { io.Copy(c.Writer, strings.NewReader("text")) },
		"/file":         func(c *gin.Context) { c.File(file) },
		"/attachment":   func(c *gin.Context) { c.FileAttachment(file, "name.txt") },
		"/file-from-fs": func(c *gin.Context) { c.FileFromFS("file.txt", http.Dir(filepath.Dir(file))) },
		"/reader":       func(c *gin.Context) { c.DataFromReader(http.StatusOK, 4, "text/plain", strings.NewReader("text"), nil) },
		"/event":        func(c *gin.Context) { c.SSEvent("message", "one") },
		"/stream":       func(c *gin.Context) { n := 0; c.Stream(func(w io.Writer) bool { n++; fmt.Fprint(w, n); return n < 3 }) },
		"/net-http": func(c *gin.Context) {
			gin.WrapF(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })(c)
		},
		"/net-http-err":    func(c *gin.Context) { http.Error(c.Writer, "no", http.StatusNotFound) },
		"/status-of-first": func(c *gin.Context) { c.String(http.StatusOK, "a"); c.String(http.StatusTeapot, "b") },
		"/negotiate":       func(c *gin.Context) { c.IndentedJSON(http.StatusOK, []int{1}) },
	}
}

// However the header leaves, it has the cookie once, the session is stored before, and gin's own view of the answer, and
// the client's, are as they are without the middleware.
func TestHeaderLeaves(t *testing.T) {
	store := sessiontest.NewStore()
	all := ways(t)
	var seen []string
	build := func(own ...gin.HandlerFunc) string {
		r := gin.New()
		r.Use(func(c *gin.Context) { // as a logger
			c.Next()
			seen = append(seen, fmt.Sprint(c.Writer.Status(), c.Writer.Size(), c.Writer.Written(), c.IsAborted(), len(c.Errors)))
		})
		r.Use(own...)
		for path, way := range all {
			for _, method := range []string{"GET", "POST", "HEAD"} {
				r.Handle(method, path, func(c *gin.Context) {
					if len(own) > 0 {
						put(t, c, "a", "1")
					}
					w := c.Writer
					way(c)
					seen = append(seen, fmt.Sprint(w.Status(), w.Size(), w.Written(), w.Pusher() != nil))
					if w != c.Writer {
						t.Error("the writer has changed")
					}
				})
			}
		}
		return serve(t, r)
	}
	with, without := build(ginsession.New(manager(store))), build()
	for path := range all {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			seen = nil
			got := send(t, method, with+path, "")
			seenWith := seen
			seen = nil
			want := send(t, method, without+path, "")
			if len(got.Header["Set-Cookie"]) != 1 {
				t.Errorf("%s %s: the cookies are %q", method, path, got.Header["Set-Cookie"])
				continue
			}
			id, _, _ := strings.Cut(strings.TrimPrefix(got.cookie(), "connect.sid=s%3A"), ".")
			if sess, err := store.Get(ctx, id); err != nil || string(sess.Values["a"]) != `"1"` {
				t.Errorf("%s %s: the session is %v, %v", method, path, sess, err)
			}
			got.Header.Del("Set-Cookie")
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %s: the answer is %.300v, without the middleware %.300v", method, path, got, want)
			}
			if !slices.Equal(seenWith, seen) {
				t.Errorf("%s %s: gin sees %q, without the middleware %q", method, path, seenWith, seen)
			}
		}
	}
}

// A status is not yet an answer: what is put in after it is stored, and its cookie set.
func TestStatusIsNotTheHeader(t *testing.T) {
	store := sessiontest.NewStore()
	r := gin.New()
	r.Use(ginsession.New(manager(store)))
	r.POST("/", func(c *gin.Context) {
		c.Redirect(http.StatusSeeOther, "/next") // after a POST it has no body
		put(t, c, "a", "1")
	})
	if a := send(t, "POST", serve(t, r), ""); a.Code != http.StatusSeeOther || len(a.Header["Set-Cookie"]) != 1 {
		t.Errorf("%d, cookies %q", a.Code, a.Header["Set-Cookie"])
	}
}

// failing is a Store that can be made to fail.
type failing struct {
	*sessiontest.Store
	err *error
}

func (s failing) Get(ctx context.Context, id string) (*filestore.Session, error) {
	if *s.err != nil {
		return nil, *s.err
	}
	return s.Store.Get(ctx, id)
}

func (s failing) Create(ctx context.Context, id string, sess *filestore.Session) error {
	if *s.err != nil {
		return *s.err
	}
	return s.Store.Create(ctx, id, sess)
}

// If the session cannot be loaded no handler is called. If it cannot be stored all that handlers and middlewares write
// is dropped, also if ErrorFunc writes nothing, which is a 500.
func TestStoreFails(t *testing.T) {
	for name, errorFunc := range map[string]func(http.ResponseWriter, *http.Request, error){
		"nil": nil, "silent": func(http.ResponseWriter, *http.Request, error) {},
		"own": func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "sorry", http.StatusInternalServerError)
		},
	} {
		var down error
		called, finished := 0, 0
		m := manager(failing{sessiontest.NewStore(), &down})
		m.ErrorFunc = errorFunc
		r := gin.New()
		r.Use(func(c *gin.Context) {
			c.Next()
			finished++
			if c.Writer.Status() != http.StatusInternalServerError {
				t.Errorf("%s: gin sees %d", name, c.Writer.Status())
			}
		})
		r.Use(ginsession.New(m))
		all := ways(t)
		all["/hijack"] = func(c *gin.Context) {
			if _, _, err := c.Writer.Hijack(); err == nil {
				t.Errorf("%s: the connection can be taken over", name)
			}
		}
		for path, way := range all {
			r.GET(path, func(c *gin.Context) {
				called++
				put(t, c, "a", "1")
				way(c)
				c.Status(http.StatusOK) // too late, or not
				c.String(http.StatusOK, "the handler's")
			})
		}
		url := serve(t, r)
		down = errors.New("the store is down")
		for path := range all {
			a := send(t, "GET", url+path, "")
			if a.Code != http.StatusInternalServerError || strings.Contains(a.Body, "handler") || a.Header["Set-Cookie"] != nil || a.Header["Location"] != nil ||
				(a.Body == "sorry\n") != (name == "own") || (a.Body == "") != (name == "silent") {
				t.Errorf("%s, %s: %v", name, path, a)
			}
		}
		if called != len(all) || finished != len(all) {
			t.Errorf("%s: %d handlers were called, and %d middlewares finished, of %d", name, called, finished, len(all))
		}
		called = 0
		cookie := "connect.sid=s%3A" + session.Sign("some-id", "keyboard cat")
		if a := send(t, "GET", url+"/string", cookie); a.Code != http.StatusInternalServerError || called != 0 {
			t.Errorf("%s: with a cookie %d, and %d handlers were called", name, a.Code, called)
		}
	}
}

// A recovery behind the middleware makes an answer of a panic, and what the handler has put in is stored; the package's
// comment says so.
func TestRecoveryBehind(t *testing.T) {
	r := gin.New()
	r.Use(ginsession.New(manager(sessiontest.NewStore())), gin.RecoveryWithWriter(io.Discard))
	r.GET("/panic", func(c *gin.Context) { put(t, c, "a", "half"); panic("on purpose") })
	if a := send(t, "GET", serve(t, r)+"/panic", ""); a.Code != http.StatusInternalServerError || len(a.Header["Set-Cookie"]) != 1 {
		t.Errorf("%d, cookies %q: say what holds in the package's comment", a.Code, a.Header["Set-Cookie"])
	}
}

// A context that has panicked does not keep the writer: who recovers answers by gin's own.
func TestWriterIsPutBack(t *testing.T) {
	var before, after gin.ResponseWriter
	var request *http.Request
	r := gin.New()
	r.Use(func(c *gin.Context) {
		before, request = c.Writer, c.Request
		defer func() {
			after = c.Writer
			if c.Request != request {
				t.Error("the request has changed")
			}
			if recover() != nil {
				c.String(http.StatusTeapot, "recovered")
			}
		}()
		c.Next()
	}, ginsession.New(manager(sessiontest.NewStore())))
	r.GET("/panic", func(c *gin.Context) { put(t, c, "a", "half"); panic("on purpose") })
	r.GET("/ok", func(c *gin.Context) {})
	url := serve(t, r)
	if a := send(t, "GET", url+"/panic", ""); a.Code != http.StatusTeapot || a.Body != "recovered" || a.Header["Set-Cookie"] != nil || before != after {
		t.Errorf("%v, the same writer: %v", a, before == after)
	}
	if send(t, "GET", url+"/ok", ""); before != after {
		t.Error("after a request another writer is there")
	}
}

// A request that HandleContext leads to another route keeps its session and the writer.
func TestHandleContext(t *testing.T) {
	store := sessiontest.NewStore()
	r := gin.New()
	own := r.Group("/", ginsession.New(manager(store)))
	lead := func(to string) gin.HandlerFunc {
		return func(c *gin.Context) {
			put(t, c, "before", "1")
			c.Request.URL.Path = to
			r.HandleContext(c)
			put(t, c, "after", "1")
		}
	}
	own.GET("/with", lead("/to/with"))
	own.GET("/without", lead("/to/without"))
	own.GET("/back", func(c *gin.Context) {
		c.Request.URL.Path = "/to/nothing"
		r.HandleContext(c)
		put(t, c, "after", "1")
		c.String(http.StatusOK, "back")
	})
	own.GET("/to/nothing", func(c *gin.Context) {})
	own.GET("/to/with", func(c *gin.Context) { put(t, c, "within", "1"); c.String(http.StatusOK, "there") })
	r.GET("/to/without", func(c *gin.Context) { c.String(http.StatusOK, "there") })
	url := serve(t, r)
	a := send(t, "GET", url+"/with", "")
	if a.Body != "there" || len(a.Header["Set-Cookie"]) != 1 {
		t.Fatalf("%v", a)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(a.cookie(), "connect.sid=s%3A"), ".")
	sess, err := store.Get(ctx, id)
	if err != nil || sess.Values["before"] == nil || sess.Values["within"] == nil || sess.Values["after"] == nil {
		t.Errorf("the session is %v, %v", sess, err)
	}
	if a := send(t, "GET", url+"/without", ""); a.Body != "there" || a.Header["Set-Cookie"] != nil {
		t.Errorf("to a route without the middleware: %v: say what holds in the package's comment", a)
	}
	if a := send(t, "GET", url+"/back", ""); a.Code != http.StatusOK || len(a.Header["Set-Cookie"]) > 1 {
		t.Errorf("back from a route that writes nothing: %v", a)
	}
}

// A request that a handler sends to another engine gets that engine's answer, and keeps its session.
func TestOtherEngine(t *testing.T) {
	m := manager(sessiontest.NewStore())
	inner := gin.New()
	inner.Use(ginsession.New(m))
	inner.GET("/*path", func(c *gin.Context) { put(t, c, "a", "1"); c.String(http.StatusOK, "inner") })
	r := gin.New()
	r.Use(ginsession.New(m))
	r.GET("/mounted", gin.WrapH(inner))
	r.GET("/recorded", func(c *gin.Context) {
		w := httptest.NewRecorder()
		inner.ServeHTTP(w, c.Request)
		c.String(http.StatusOK, "outer "+w.Body.String())
	})
	url := serve(t, r)
	for path, body := range map[string]string{"/mounted": "inner", "/recorded": "outer inner"} {
		if a := send(t, "GET", url+path, ""); a.Body != body || len(a.Header["Set-Cookie"]) != 1 {
			t.Errorf("%s: %v", path, a)
		}
	}
}

// Two Managers, one behind the other, each have a session and a cookie, and so has one whose path covers a part.
func TestNested(t *testing.T) {
	a, b, part := manager(sessiontest.NewStore()), manager(sessiontest.NewStore()), manager(sessiontest.NewStore())
	b.Name, part.Name, part.Cookie.Path = "b.sid", "part.sid", "/part"
	r := gin.New()
	r.Use(ginsession.New(a), ginsession.New(b), ginsession.New(part))
	r.GET("/*path", func(c *gin.Context) {
		for _, m := range []*session.Manager{a, b, part} {
			if s := m.From(c.Request); s != nil {
				s.Put("a", 1)
			}
		}
		c.String(http.StatusOK, "%v", part.From(c.Request) != nil)
	})
	url := serve(t, r)
	if a := send(t, "GET", url+"/", ""); a.Body != "false" || len(a.Header["Set-Cookie"]) != 2 {
		t.Errorf("%v", a)
	}
	if a := send(t, "GET", url+"/part/1", ""); a.Body != "true" || len(a.Header["Set-Cookie"]) != 3 {
		t.Errorf("%v", a)
	}
}

// A goroutine uses the session by a copy of the context, beside the handler.
func TestCopy(t *testing.T) {
	store := sessiontest.NewStore()
	r := gin.New()
	r.Use(ginsession.New(manager(store)))
	r.GET("/", func(c *gin.Context) {
		done := make(chan struct{})
		own := c.Copy()
		go func() {
			defer close(done)
			for range 100 {
				put(t, own, "beside", "1")
			}
		}()
		for range 100 {
			put(t, c, "a", "1")
		}
		<-done
		c.Status(http.StatusOK)
	})
	a := send(t, "GET", serve(t, r), "")
	id, _, _ := strings.Cut(strings.TrimPrefix(a.cookie(), "connect.sid=s%3A"), ".")
	if sess, err := store.Get(ctx, id); err != nil || sess.Values["beside"] == nil || sess.Values["a"] == nil {
		t.Errorf("the session is %v, %v", sess, err)
	}
}

// A Context is not the request's context, unless the engine says so.
func TestFromContext(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		r := gin.New()
		r.ContextWithFallback = fallback
		r.Use(ginsession.New(manager(sessiontest.NewStore())))
		r.GET("/", func(c *gin.Context) {
			if s := session.FromContext(c); (s != nil) != fallback {
				t.Errorf("ContextWithFallback %v: the session is there: %v", fallback, s != nil)
			}
		})
		send(t, "GET", serve(t, r), "")
	}
}

// Around an engine one line is enough, but Stream panics, because it wants an http.CloseNotifier.
func TestAround(t *testing.T) {
	r := gin.New()
	r.Use(gin.RecoveryWithWriter(io.Discard))
	r.GET("/", ways(t)["/stream"])
	if a := send(t, "GET", serve(t, manager(sessiontest.NewStore()).Handler(r)), ""); a.Code != http.StatusInternalServerError {
		t.Errorf("%v: gin's Stream works in Manager.Handler now: say so in docs/FRAMEWORKS.md", a)
	}
}

// New panics with settings that cannot work.
func TestNewPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic without a store")
		}
	}()
	ginsession.New(&session.Manager{Secrets: []string{"keyboard cat"}})
}

// The sessions are those of a plain net/http program, in both directions.
func TestShared(t *testing.T) {
	dir := t.TempDir()
	r := gin.New()
	r.Use(ginsession.New(manager(storetest.Open(t, dir, nil))))
	app := routertest.NewApp(manager(storetest.Open(t, dir, nil)))
	routes(r, app)
	inGin := serve(t, r)
	plain := serve(t, manager(storetest.Open(t, dir, nil)).Handler(app.ServeMux()))
	for _, sites := range [][2]string{{inGin, plain}, {plain, inGin}} {
		cookie := send(t, "GET", sites[0]+"/app/login?user=anna", "").cookie()
		if a := send(t, "GET", sites[1]+"/app/get?k=user", cookie); a.Body != "anna" {
			t.Errorf("the other program has the user %v", a)
		}
		if a := send(t, "GET", sites[1]+"/app/logout", cookie); a.Code != http.StatusOK {
			t.Errorf("%v", a)
		}
		if a := send(t, "GET", sites[0]+"/app/get?k=user", cookie); a.Body != "" {
			t.Errorf("after the logout in the other program the user is %q", a.Body)
		}
	}
}

// A request costs little more than in Manager.Handler.
func BenchmarkRequest(b *testing.B) {
	m := manager(sessiontest.NewStore())
	h := gin.New()
	h.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "x") })
	own := gin.New()
	own.Use(ginsession.New(m))
	own.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "x") })
	for name, h := range map[string]http.Handler{"gin": h, "around": m.Handler(h), "ginsession": own} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest("GET", "/", nil)
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
