// The example is one small site with the session flows that every web framework's
// tutorial shows, on package session and a directory of session files:
//
//	go run ./example [-addr 127.0.0.1:8080] [-dir ./sessions] [-encrypt] [-trust-proxy]
//
// Sessions survive a restart, also after kill -9; look at them with ls and cat.
// (To try that build the program first: "go run" is another process than the site.)
//
//	GET  /               the login form, with the message of a failed login
//	POST /user           logs in: username=user1, password=mypassword
//	GET  /user           the welcome page
//	GET  /logout, POST   ends the session and clears its cookie
//	GET  /admin          counts this session's visits; only for users
//	POST /login          the same login for programs: a JSON object or a form in, JSON out
//	GET  /dashboard      JSON for users, else 401
//	POST /logout         answers programs in JSON
//	GET  /private        Basic auth, once per session: admin2, password; a login of its own
//	GET  /cookies        cookies as cookie-parser has them, signed and not; as JSON too
//	POST /cookies        sets one: name, value, signed=on
//	POST /cookies/clear  clears one: name
//	GET  /session        the visitor's own session file
//
// A program needs nothing but a cookie jar. Where both exist, JSON is for those
// who send it or an Accept header with application/json:
//
//	curl -b jar -c jar -d username=user1 -d password=mypassword http://127.0.0.1:8080/login
//	curl -b jar -c jar http://127.0.0.1:8080/dashboard
//	curl -b jar -c jar -H 'Accept: application/json' -X POST http://127.0.0.1:8080/logout
//
// The cookies are signed with $SESSION_SECRET or, without it, with a secret that
// the first start leaves beside the sessions, in ./sessions.secret. An Express
// application with the same directory and the same secret shares all logins.
//
// With -encrypt the session files are encrypted with that secret too, as
// session-file-store does where its option secret is set. Sessions that are there
// in plain are then no longer read: start on an empty directory.
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
	"syscall"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/secret"
	"github.com/sessionfilestore/filestore/kruptein"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "filestore example:", err)
		os.Exit(1)
	}
}

// shutdownTimeout is more than the 5 seconds after which http.Server.Shutdown
// gives up connections that browsers open ahead and never use.
const shutdownTimeout = 10 * time.Second

// run serves the site until SIGINT or SIGTERM.
func run(args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("example", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "listen on `host:port`; port 0 takes a free one")
	dir := flags.String("dir", "./sessions", "keep the sessions in `directory`")
	encrypt := flags.Bool("encrypt", false, "encrypt the session files, as session-file-store does with its secret")
	trustProxy := flags.Bool("trust-proxy", false, "believe X-Forwarded-Proto; only behind a proxy that sets it")
	flags.Parse(args) // exits by itself
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	// Before the line that says that the site is there: who has read it may send signals.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	key, err := secret.Load(*dir)
	if err != nil {
		return err
	}
	opts := new(filestore.Options)
	if *encrypt {
		opts.Codec = kruptein.New(key) // where no Node is to read the files package sealed is better
	}
	store, err := filestore.Open(*dir, opts)
	if err != nil {
		return err
	}
	// Last of all: requests under way still need the store.
	defer func() { err = errors.Join(err, store.Close()) }()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           (&site{store: store, dir: *dir, secret: key, trustProxy: *trustProxy}).handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than the store's LockTimeout, so that its error still arrives
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Fprintf(stdout, "filestore example: http://%s  sessions in %s\n", ln.Addr(), *dir)

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
