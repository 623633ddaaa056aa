// The same small site twice, in Go and in Node (app.js): a counter and a login, on one
// directory of sessions and with one secret. A user who logs in on one side is logged in
// on the other, and both sides count on the same counter. So a site can move from Express
// to Go, route by route, without logging anybody out.
//
// The Go side has a page that Express has nothing for, /devices: a list of the user's sessions, those of
// Node's logins too, with a button that ends one for both.
//
//	go run ./example/express [-addr 127.0.0.1:8081] [-dir ./sessions] [-encrypt] [-store redis://…]
//	node example/express/app.js [--addr 127.0.0.1:3000] [--dir ./sessions] [--encrypt] [--store redis://…]
//
// With the same -store on both sides the sessions are on a server: redis://, postgres://, mysql:// or mongodb://. Node
// then uses connect-redis, connect-pg-simple, express-mysql-session or connect-mongo.
//
// The cookies are signed with $SESSION_SECRET. If it is not set, the side that starts
// first makes a secret in ./sessions.secret. With -encrypt on both sides the
// sessions are encrypted with the same secret, if they are in files or in MongoDB: the other npm stores cannot do that.
package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/secret"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "express example:", err)
		os.Exit(1)
	}
}

// run serves the site until SIGINT or SIGTERM.
func run(args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("express", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:8081", "listen on `host:port`; port 0 takes a free one")
	dir := flags.String("dir", "./sessions", "keep the sessions in `directory`, as app.js does")
	storeURL := flags.String("store", "", stores.Usage+", as app.js does with --store")
	encrypt := flags.Bool("encrypt", false, "encrypt the sessions, as app.js does with --encrypt; in files and MongoDB only")
	flags.Parse(args) // exits by itself

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	key, err := secret.Load(*dir)
	if err != nil {
		return err
	}
	var codec filestore.Codec
	if *encrypt {
		if codec, err = newCodec(*storeURL, key); err != nil {
			return err
		}
	}
	// The reaper is on here and off in app.js, because ours deletes nothing that it cannot read.
	store, where, err := stores.Open(ctx, *dir, *storeURL, lifetime, codec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           handler(store, key),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(stdout, "Go: http://%s  sessions in %s\n", ln.Addr(), where)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // a second signal ends the program at once
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// newCodec returns the Codec of the npm store, if it has one.
func newCodec(storeURL, key string) (filestore.Codec, error) {
	c := kruptein.New(key) // session-file-store's
	switch scheme, _, _ := strings.Cut(storeURL, ":"); scheme {
	case "":
	case "mongodb", "mongodb+srv":
		c.ASN1, c.EncodeAs, c.PBKDF2 = true, "base64", true // connect-mongo's crypto
	default:
		return nil, errors.New("-encrypt: of the npm stores only session-file-store and connect-mongo can encrypt")
	}
	return c, nil
}

// These must be the same on both sides, and so must the secret: the cookie's name, and
// the names of the session's members.
const (
	cookieName  = "connect.sid"
	maxAge      = 24 * time.Hour
	userMember  = "user"
	viewsMember = "views"
)

// lifetime ends a session on this side, however much it is used. Node does not know of it.
const lifetime = 7 * 24 * time.Hour

// sessions is for the page that lists them.
type sessions struct{ *session.Manager }

func handler(store session.Store, secret string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", home)
	mux.HandleFunc("GET /views", views)
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /logout", logout)
	m := sessions{&session.Manager{
		Store:   store,
		Secrets: []string{secret},
		Name:    cookieName,
		Cookie:  session.CookieOptions{MaxAge: maxAge},
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: session.Network(r.RemoteAddr)}
		},
	}}
	mux.HandleFunc("GET /devices", m.devices)
	mux.HandleFunc("POST /devices/end", m.end)
	h := http.NewCrossOriginProtection().Handler(m.Handler(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // each page depends on the visitor
		h.ServeHTTP(w, r)
	})
}

// state is what a page shows.
type state struct {
	Server string `json:"server"`
	User   string `json:"user"`
	Views  int    `json:"views"`
}

func stateOf(s *session.Session) (state, error) {
	user, err1 := session.Value[string](s, userMember)
	views, err2 := session.Value[int](s, viewsMember)
	return state{"Go", user, views}, errors.Join(err1, err2)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{.Server}}</title>
<h1>This is {{.Server}}</h1>
<p>Views: {{.Views}}</p>
{{if .User}}<p>Hello, {{.User}}.</p>
<form method="post" action="/logout"><button>Log out</button></form>
{{else}}<form method="post" action="/login">
<input name="username" placeholder="user1" required>
<input name="password" placeholder="mypassword" type="password" required>
<button>Log in</button>
</form>
{{end}}</html>
`))

func home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	v, err := stateOf(s)
	v.Views++
	if err = errors.Join(err, s.Put(viewsMember, v.Views)); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page.Execute(w, v)
}

func views(w http.ResponseWriter, r *http.Request) {
	v, err := stateOf(session.From(r))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(v)
}

func login(w http.ResponseWriter, r *http.Request) {
	user, password := r.PostFormValue("username"), r.PostFormValue("password")
	// In the clear, because everybody may log in here. In your program keep hashes.
	if user != "user1" || subtle.ConstantTimeCompare([]byte(password), []byte("mypassword")) == 0 {
		http.Error(w, "Wrong username or password.", http.StatusUnauthorized)
		return
	}
	// Login makes worthless any id that somebody planted in the browser before, and keeps the views.
	if err := session.From(r).Login(user); err != nil {
		fail(w, err)
		return
	}
	// The session is stored before the redirect leaves; Node needs a save here.
	http.Redirect(w, r, "/", http.StatusFound)
}

func logout(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Logout(); err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusFound)
}

var devicesPage = template.Must(template.New("devices").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Sessions</title>
<h1>Your sessions, on both sides</h1>
<ul>
{{range .List}}<li>{{if .Current}}This one, {{if $.Fresh}}fresh{{else}}not fresh{{end}}.{{end}}
{{if .Authenticated.IsZero}}Logged in by Node.{{else}}Logged in by Go, {{.Authenticated.UTC.Format "2 Jan 15:04 MST"}}, {{.Note.Agent}} from {{.Note.Addr}}.{{end}}
<form method="post" action="/devices/end"><button name="handle" value="{{.Handle}}">End</button></form>
{{else}}<li>Nobody is logged in.
{{end}}</ul>
</html>
`))

func (m sessions) devices(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	var page struct {
		List  []session.Info
		Fresh bool
	}
	user, err := session.Value[string](s, userMember)
	if err == nil && user != "" {
		page.List, err = m.Sessions(r.Context(), user)
	}
	if err != nil {
		fail(w, err)
		return
	}
	page.Fresh = s.Fresh(5 * time.Minute)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	devicesPage.Execute(w, page)
}

func (m sessions) end(w http.ResponseWriter, r *http.Request) {
	user, err := session.Value[string](session.From(r), userMember)
	if err == nil && user != "" {
		err = m.End(r.Context(), user, r.PostFormValue("handle"))
	}
	if err != nil && !errors.Is(err, filestore.ErrNotFound) { // if it has ended already, all is well
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/devices", http.StatusFound)
}

func fail(w http.ResponseWriter, err error) {
	fmt.Fprintln(os.Stderr, "express example:", err)
	http.Error(w, "Internal Server Error", http.StatusInternalServerError)
}
