// Package routertest tells the stories that hold for session.Manager in every router: what a router cannot do is a
// field of its Site, and the stories prove that too. Only tests import it.
package routertest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// A Site is a router with the middleware in it, and what it cannot do.
type Site struct {
	Name   string // of the tests, and in docs/FRAMEWORKS.md
	Module string // the framework's; "" for net/http
	// Start serves app. If recovers is set, the router's own recovery is there too, as its users would put it. The
	// routes are:
	//
	//	/app/{action}  answers what App.Answer says, with GET and POST
	//	/events        App.Events
	//	/upload        App.Upload of the part "file" of a form
	//	/upgrade       App.Upgrade
	Start func(m *session.Manager, app *App, recovers bool) (url string, stop func())
	// Request makes the request for a path and query of those above, if it is not a GET of url with that.
	Request func(url, path string) *http.Request
	// Body is what an answer says, if that is not its text.
	Body func(text string) string

	// NoRecovery: the router does not have a recovery.
	NoRecovery bool
	// OnlyRecovering: without its recovery a panic ends the program.
	OnlyRecovering bool
	// RecoversInside: the router's recovery is within the middleware, so that a request that has panicked stores
	// what it has put in before.
	RecoversInside bool
	// NoRedirect: a handler cannot redirect. One that tries sets the header Location.
	NoRedirect bool
	// Late: streams and upgraded connections begin when the session's request is over: what is put in then is lost,
	// and Done is closed. A panic in them ends the program.
	Late bool
	// LeavesUploads: the router copies the request, so that nobody removes the temporary files of a large upload. It is
	// so without the middleware too.
	LeavesUploads bool
	// FailsHard: if the store fails when the answer is to leave, the connection breaks instead of ErrorFunc's answer.
	FailsHard bool
	// ReadOnly: what a handler puts in is lost, whatever it does. Only the story of a reader is told.
	ReadOnly bool
	// AlsoLost has the words of docs/FRAMEWORKS.md for what other tests prove to be lost.
	AlsoLost []string
}

// An App has what the handlers of a Site do.
type App struct {
	m       *session.Manager
	entered chan chan struct{} // who waits sends what it waits for
	over    chan struct{}      // closed when nobody is to wait any more
}

// NewApp returns an App whose sessions are m's.
func NewApp(m *session.Manager) *App { return &App{m, make(chan chan struct{}), make(chan struct{})} }

// A Reply is an answer.
type Reply struct {
	Code     int
	Body     string
	Location string // of a redirect
}

// wait tells the story that the handler has come so far, and waits until it may go on.
func (a *App) wait(done <-chan struct{}) {
	leave := make(chan struct{})
	select {
	case a.entered <- leave:
	case <-a.over:
		return
	}
	select {
	case <-leave:
	case <-done:
	case <-a.over:
	}
}

// Answer does what a request of /app/ wants.
func (a *App) Answer(s *session.Session, action string, q url.Values) Reply {
	body, err := a.act(s, action, q)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return Reply{Code: http.StatusConflict, Body: "gone"}
	case err != nil:
		return Reply{Code: http.StatusInternalServerError, Body: err.Error()}
	case action == "flash":
		return Reply{Code: http.StatusSeeOther, Location: "/app/flashes"}
	}
	return Reply{Code: http.StatusOK, Body: body}
}

func (a *App) act(s *session.Session, action string, q url.Values) (string, error) {
	if q.Has("wait") {
		a.wait(nil)
	}
	switch action {
	case "get":
		return session.Value[string](s, q.Get("k"))
	case "id":
		return s.ID(), nil
	case "flashes":
		messages, err := s.Flashes("info")
		return strings.Join(messages, ","), err
	case "devices":
		user, err := session.Value[string](s, "user")
		if err != nil {
			return "", err
		}
		list, err := a.m.Sessions(context.Background(), user)
		return fmt.Sprint(len(list)), err

	case "set":
		return "", s.Put(q.Get("k"), q.Get("v"))
	case "flash":
		return "", s.Flash("info", q.Get("msg"))
	case "login":
		return "", s.Login(q.Get("user"))
	case "logout":
		return "", s.Logout()
	case "panic":
		if err := s.Put(q.Get("k"), "half"); err != nil {
			return "", err
		}
		panic("on purpose")
	}
	return "", fmt.Errorf("no such action: %s", action)
}

// Begin puts in what an event stream puts in before its first event. Events calls it too.
func (a *App) Begin(s *session.Session) error { return s.Put("stream", "begun") }

// Events sends "one" and "two", and between them waits until it may go on. If q has "end", it waits until the session
// ends too. If q has "panic" it panics instead of sending "two".
func (a *App) Events(s *session.Session, q url.Values, send func(data string) error) error {
	if err := a.Begin(s); err != nil {
		return err
	}
	var done <-chan struct{}
	if q.Has("end") {
		done = s.Done()
	}
	if err := send("one"); err != nil {
		return err
	}
	a.wait(done)
	s.Put("late", "yes") // an error if the session has ended
	if q.Has("panic") {
		panic("on purpose")
	}
	return send("two")
}

// UploadMemory is how much of an upload a site should keep in memory, if it can say so. The rest is a temporary file.
const UploadMemory = 1 << 20

// Upload notes what a file has.
func (a *App) Upload(s *session.Session, file io.Reader) Reply {
	hash := sha256.New()
	_, err := io.Copy(hash, file)
	if err == nil {
		err = s.Put("file", hex.EncodeToString(hash.Sum(nil)))
	}
	if err != nil {
		return Reply{Code: http.StatusInternalServerError, Body: err.Error()}
	}
	return Reply{Code: http.StatusOK}
}

// UploadPart is Upload for a router that hands over a part of the form.
func (a *App) UploadPart(s *session.Session, part *multipart.FileHeader) Reply {
	file, err := part.Open()
	if err != nil {
		return Reply{Code: http.StatusInternalServerError, Body: err.Error()}
	}
	defer file.Close()
	return a.Upload(s, file)
}

// Open puts in what a handler puts in before it takes the connection over. Upgrade calls it too.
func (a *App) Open(s *session.Session) error { return s.Put("socket", "open") }

// Upgrade takes the connection over for Lines. A query "old" wants an http.Hijacker, as older packages do.
func (a *App) Upgrade(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	hijack := http.NewResponseController(w).Hijack
	if r.URL.Query().Has("old") {
		hijack = w.(http.Hijacker).Hijack
	}
	err := a.Open(s)
	done := s.Done()
	var conn net.Conn
	var buf *bufio.ReadWriter
	if err == nil {
		conn, buf, err = hijack()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	buf.Flush()
	ended, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		defer conn.Close()
		select {
		case <-done:
		case <-ended:
		}
	}()
	a.Lines(s, buf)
	close(ended)
	<-closed
}

// Lines answers each line with the value of the member that it names, until a line is empty or the connection ends.
func (a *App) Lines(s *session.Session, conn io.ReadWriter) {
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSpace(line); err != nil || line == "" {
			s.Put("socket", "closed")
			return
		}
		v, err := session.Value[string](s, line)
		fmt.Fprintln(conn, v, err)
		if f, ok := conn.(interface{ Flush() error }); ok {
			f.Flush()
		}
	}
}

// ServeMux returns the routes of the app in net/http. A Site whose framework has nothing of its own for some of them
// uses it for those.
func (a *App) ServeMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/app/{action}", func(w http.ResponseWriter, r *http.Request) {
		a.Answer(session.From(r), r.PathValue("action"), r.URL.Query()).Write(w, r)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		a.Events(session.From(r), r.URL.Query(), func(data string) error {
			fmt.Fprintf(w, "data: %s\n\n", data)
			return http.NewResponseController(w).Flush()
		})
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		var file multipart.File
		err := r.ParseMultipartForm(UploadMemory)
		if err == nil {
			file, _, err = r.FormFile("file")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		defer file.Close()
		a.Upload(session.From(r), file).Write(w, r)
	})
	mux.HandleFunc("/upgrade", a.Upgrade)
	return mux
}

// Write is how net/http answers.
func (x Reply) Write(w http.ResponseWriter, r *http.Request) {
	if x.Location != "" {
		http.Redirect(w, r, x.Location, x.Code)
		return
	}
	w.WriteHeader(x.Code)
	io.WriteString(w, x.Body)
}

// Serve is Site.Start for a handler.
func Serve(h http.Handler) (url string, stop func()) {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // panics
	srv.Start()
	return srv.URL, func() {
		srv.CloseClientConnections()
		srv.Close()
	}
}

// Main is for TestMain. The test binary is also the other process of the sites. lasting says that a router has
// goroutines that never end.
func Main(m *testing.M, lasting bool, sites ...*Site) {
	workers := make(map[string]func([]string))
	for _, x := range sites {
		workers[x.Name] = func(args []string) {
			store, err := filestore.Open(args[0], storetest.Quick())
			if err != nil {
				panic(err)
			}
			m := manager(store)
			url, _ := x.Start(m, NewApp(m), true)
			fmt.Println(url)
			bufio.NewReader(os.Stdin).ReadString('\n') // until it is closed, or we are killed
		}
	}
	if lasting {
		slog.SetDefault(slog.New(slog.DiscardHandler))
		storetest.Work(workers)
		os.Exit(m.Run())
	}
	storetest.Main(m, workers)
}
