// The same small site twice, in Go and in Express (app.js): a counter and a login, on one directory of sessions and with
// one secret. A user who logs in on one side is logged in on the other, and both sides count on the same counter. So a
// site can move from Express to Go, route by route, without logging anybody out.
//
//	go run ./example/express [-addr 127.0.0.1:8081] [-express 127.0.0.1:8082] [-dir ./sessions] [-encrypt] [-store redis://…]
//
// It starts both, and shows them side by side on http://127.0.0.1:8081, with the session file between them. It needs Node:
// the first time it installs Express beside app.js, by npm ci. With -express "" it serves the Go side only; then start the
// other one with node example/express/app.js, which takes the same flags. If one side ends, so does the other.
//
// The Go side has a page that Express has nothing for, /devices: a list of the user's sessions, those of
// Express's logins too, with a button that ends one for both.
//
// With -store the sessions are on a server: redis://, postgres://, mysql:// or mongodb://. Express then uses connect-redis,
// connect-pg-simple, express-mysql-session or connect-mongo.
//
// The cookies are signed with $SESSION_SECRET. If it is not set, the side that starts
// first makes a secret in ./sessions.secret. With -encrypt the
// sessions are encrypted with the same secret, if they are in files or in MongoDB: the other npm stores cannot do that.
package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"embed"
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
	"sync"
	"syscall"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/live"
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
	expressAddr := flags.String("express", "127.0.0.1:8082", "let Express listen on `host:port`, on the host of -addr, as they share a cookie; \"\" = do not start it")
	dir := flags.String("dir", "./sessions", "keep the sessions in `directory`, as app.js does")
	storeURL := flags.String("store", "", stores.Usage+", as app.js does with --store")
	encrypt := flags.Bool("encrypt", false, "encrypt the sessions, as app.js does with --encrypt; in files and MongoDB only")
	flags.Parse(args) // exits by itself
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

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
	defer ln.Close()

	s := &site{url: "http://" + ln.Addr().String(), store: store}
	express := new(child) // none
	if *expressAddr != "" {
		args := []string{"--addr", *expressAddr, "--dir", *dir, "--store", *storeURL, "--beside", s.url}
		if *encrypt {
			args = append(args, "--encrypt")
		}
		express, err = startExpress(ctx, args...)
		switch {
		case ctx.Err() != nil && err != nil: // Ctrl-C meanwhile
			return nil
		case err != nil:
			return err
		}
		defer express.stop()
		s.express = express.url
	}

	quit, end := context.WithCancel(context.Background())
	s.feed = live.New(store, live.Options{Where: where, Files: *storeURL == "", Encrypted: *encrypt, Cookie: cookieName, TTL: stores.TTL, Quit: quit})
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	running.Go(func() { s.feed.Run(quit) })
	srv := &http.Server{
		Handler:           s.handler(key),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
	}
	srv.RegisterOnShutdown(end) // Shutdown waits for streams, which do not end by themselves
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(stdout, "Go: %s  sessions in %s\n", s.url, where)
	if s.express != "" {
		fmt.Fprintf(stdout, "Express: %s  Both side by side: open %s\n", s.express, s.url)
	}

	select {
	case err := <-served:
		return err
	case <-express.ended:
		err = fmt.Errorf("app.js has ended, and so does this program: %v", express.cmd.ProcessState)
	case <-ctx.Done():
	}
	stop() // a second signal ends the program at once
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(ctx))
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

// A site serves the Go side, and the page that has both.
type site struct {
	url, express string // of this side and of the other, "" = it is not shown
	store        session.Store
	feed         *live.Feed
	sessions     *session.Manager // made by handler
}

const changesPath = "/changes"

func (s *site) handler(secret string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.both)
	mux.HandleFunc("GET /column", column)
	mux.HandleFunc("GET /views", views)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /logout", logout)
	mux.HandleFunc("GET /devices", s.devices)
	mux.HandleFunc("POST /devices/end", s.end)
	mux.Handle("GET "+changesPath, s.feed)
	live.Mount(mux)
	s.sessions = &session.Manager{
		Store:   s.store,
		Secrets: []string{secret},
		Name:    cookieName,
		Cookie:  session.CookieOptions{MaxAge: maxAge},
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: session.Network(r.RemoteAddr)}
		},
		// What a page asks for by itself does not keep its visitor logged in.
		Prolongs: func(r *http.Request) bool {
			return r.URL.Path != changesPath && !live.Asks(r)
		},
	}
	h := http.NewCrossOriginProtection().Handler(s.sessions.Handler(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // each page depends on the visitor
		w.Header().Set("Content-Security-Policy", policy+"; frame-ancestors 'self'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r)
	})
}

// app.js has the same, but may be framed by the page that has both.
const policy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'"

// state is what a column shows.
type state struct {
	Server string `json:"server"`
	User   string `json:"user"`
	Views  int    `json:"views"`
	Wrong  bool   `json:"-"` // the password was
}

func stateOf(s *session.Session) (state, error) {
	user, err1 := session.Value[string](s, userMember)
	views, err2 := session.Value[int](s, viewsMember)
	return state{Server: "Go", User: user, Views: views}, errors.Join(err1, err2)
}

//go:embed pages.html
var assets embed.FS

var pages = template.Must(template.Must(template.ParseFS(live.Assets, "file.html")).ParseFS(assets, "pages.html"))

func render(w http.ResponseWriter, status int, name string, data any) {
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, name, data); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(buf.Bytes())
}

// both is the page with two columns. Each is a frame, so that each is nothing but what its own server sends; the cookie is
// the same in both, because cookies ignore ports.
func (s *site) both(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.express == "":
		http.Redirect(w, r, "/column", http.StatusFound)
		return
	case "http://"+r.Host != s.url: // localhost is another host than 127.0.0.1: the frames would have another cookie
		http.Redirect(w, r, s.url, http.StatusFound)
		return
	}
	file, err := s.feed.Look(r)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Security-Policy", policy+"; frame-ancestors 'none'; frame-src 'self' "+s.express)
	render(w, http.StatusOK, "both", map[string]any{"Express": s.express, "File": file})
}

func column(w http.ResponseWriter, r *http.Request) {
	v, err := stateOf(session.From(r))
	if err != nil {
		fail(w, err)
		return
	}
	render(w, http.StatusOK, "column", v)
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

func count(w http.ResponseWriter, r *http.Request) {
	s := session.From(r)
	v, err := stateOf(s)
	if err == nil {
		err = s.Put(viewsMember, v.Views+1)
	}
	if err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/column", http.StatusFound)
}

func login(w http.ResponseWriter, r *http.Request) {
	user, password := r.PostFormValue("username"), r.PostFormValue("password")
	// In the clear, because everybody may log in here. In your program keep hashes.
	if user != "user1" || subtle.ConstantTimeCompare([]byte(password), []byte("mypassword")) == 0 {
		v, err := stateOf(session.From(r))
		if err != nil {
			fail(w, err)
			return
		}
		v.Wrong = true
		render(w, http.StatusUnauthorized, "column", v)
		return
	}
	// Login makes worthless any id that somebody planted in the browser before, and keeps the views.
	if err := session.From(r).Login(user); err != nil {
		fail(w, err)
		return
	}
	// The session is stored before the redirect leaves; Node needs a save here.
	http.Redirect(w, r, "/column", http.StatusFound)
}

func logout(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Logout(); err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/column", http.StatusFound)
}

func (s *site) devices(w http.ResponseWriter, r *http.Request) {
	sess := session.From(r)
	var page struct {
		List  []session.Info
		Fresh bool
	}
	user, err := session.Value[string](sess, userMember)
	if err == nil && user != "" {
		page.List, err = s.sessions.Sessions(r.Context(), user)
	}
	if err != nil {
		fail(w, err)
		return
	}
	page.Fresh = sess.Fresh(5 * time.Minute)
	render(w, http.StatusOK, "devices", page)
}

func (s *site) end(w http.ResponseWriter, r *http.Request) {
	user, err := session.Value[string](session.From(r), userMember)
	if err == nil && user != "" {
		err = s.sessions.End(r.Context(), user, r.PostFormValue("handle"))
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
