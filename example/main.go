// The example is one small site with the session flows that every web framework's
// tutorial shows, on package session and a directory of session files:
//
//	go run ./example [-addr 127.0.0.1:8080] [-dir ./sessions] [-lifetime 168h] [-encrypt] [-trust-proxy]
//
// Sessions survive a restart, and kill -9; look at them with ls and cat. The home page shows the command for kill, as
// "go run" is another process than the site.
//
// With -store they are on a server instead, and many of these programs can share them. The pages are the same:
//
//	go run ./example -store redis://127.0.0.1:6379
//	go run ./example -store postgres://user:password@127.0.0.1/site
//	go run ./example -store mysql://user:password@127.0.0.1/site
//	go run ./example -store mongodb://127.0.0.1/site
//
// The database site must be there; its table is made. Other users of the machine can see the arguments of a program, and
// so the password: in your program read it from a file or the environment.
//
//	GET  /                      the visitor's own session, live, beside what changes it: log in, count, rm, kill -9
//	POST /user                  logs in: username=user1, password=mypassword; 422 and the form again if that is wrong
//	GET  /user                  the welcome page
//	POST /logout                ends the session and clears its cookie; GET shows a page with the button
//	POST /count                 counts in the session, also of a visitor who has not logged in
//	GET  /account/devices/      the user's sessions, in all browsers; a button ends one, or all others, or all
//	GET  /admin/sessions/       everybody's sessions, for admin2 (password) only; buttons end one, or all that a filter means
//	POST /logout/everywhere     ends all sessions of the user
//	GET  /recovery              a page that asks for the password again if that was more than 5 minutes ago
//	GET  /live                  the time, once a second, until the session ends; for programs as an event stream
//	GET  /admin                 counts this session's visits; for users only
//	GET  /private               a page for users: others log in first, and come back
//	GET  /dashboard             the same for what a program gets
//	POST /login                 the same login for programs: takes a JSON object or a form, answers in JSON
//	GET  /api/dashboard         JSON for users, else 401
//	GET  /api/whoami            JSON for those who send admin2 and password by Basic auth, else 401; makes no session
//	GET  /cookies               the cookies as cookie-parser reads them, plain and signed; also as JSON
//	POST /cookies               sets one: name, value, signed=on
//	POST /cookies/clear         clears one: name
//	GET  /session               the visitor's own session, as it is stored
//	GET  /session/changes       an event each time when it changes
//
// All pages work without JavaScript. A program needs nothing but a cookie jar. If a page has HTML and JSON, a request gets
// JSON if it sends JSON or an Accept header with application/json:
//
//	curl -b jar -c jar -d username=user1 -d password=mypassword http://127.0.0.1:8080/login
//	curl -b jar -c jar http://127.0.0.1:8080/api/dashboard
//	curl -b jar -c jar -H 'Accept: application/json' -X POST http://127.0.0.1:8080/logout
//
// A session ends a day after its last use, or a week after the login, whatever its use: then the password is asked for
// again. What happens to sessions is in the log: logins, logouts, what was ended, and by what.
//
// The cookies are signed with $SESSION_SECRET. If it is not set, the first start makes
// a secret and keeps it beside the sessions, in ./sessions.secret, with -store too. On several machines set the variable.
// An Express application with the same sessions and the same secret shares all logins.
//
// With -encrypt the sessions are encrypted with that secret too, as
// session-file-store does with its option secret. Plain sessions cannot be read then:
// start without any.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/live"
	"github.com/sessionfilestore/filestore/example/secret"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/kruptein"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "filestore example:", err)
		os.Exit(1)
	}
}

// shutdownTimeout is longer than 5 seconds: after those http.Server.Shutdown closes the
// connections that browsers open ahead and never use.
const shutdownTimeout = 10 * time.Second

// run serves the site until SIGINT or SIGTERM.
func run(args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("example", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on `host:port`; port 0 takes a free one")
	dir := flags.String("dir", "./sessions", "keep the sessions in `directory`; with -store only the secret, beside it")
	storeURL := flags.String("store", "", stores.Usage)
	encrypt := flags.Bool("encrypt", false, "encrypt the sessions, as session-file-store does with its secret")
	lifetime := flags.Duration("lifetime", 7*24*time.Hour, "end a session this `long` after its login, however much it is used; 0 = never")
	trustProxy := flags.Bool("trust-proxy", false, "believe X-Forwarded-Proto and -For; only behind a proxy that sets them")
	flags.Parse(args) // exits by itself
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	key, err := secret.Load(*dir)
	if err != nil {
		return err
	}
	var codec filestore.Codec
	if *encrypt {
		codec = kruptein.New(key) // if Node need not read the sessions, package sealed is better
	}
	store, where, err := stores.Open(context.Background(), *dir, *storeURL, *lifetime, codec)
	if err != nil {
		return err
	}
	// Close the store last: requests under way still need it.
	defer func() { err = errors.Join(err, store.Close()) }()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	// Before the line that says that the site is there: who has read it may send signals.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	quit, end := context.WithCancel(context.Background())
	feed := live.New(store, live.Options{Where: where, Files: *storeURL == "", Encrypted: *encrypt, Cookie: cookieName, TTL: stores.TTL, Quit: quit})
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	running.Go(func() { feed.Run(quit) })
	srv := &http.Server{
		Handler:           (&site{store: store, feed: feed, secret: key, trustProxy: *trustProxy, quit: quit}).handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than the store's LockTimeout, so that its error still arrives
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	srv.RegisterOnShutdown(end) // Shutdown waits for live pages, which do not end by themselves
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(stdout, "filestore example: http://%s  sessions in %s\n", ln.Addr(), where)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a second signal ends the program at once
	slog.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shutdown: %w", err), srv.Close())
	}
	<-served // http.ErrServerClosed
	return nil
}
