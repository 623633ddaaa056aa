package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/sessionui"
	"github.com/spf13/cobra"
)

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:        "serve [DIR]",
		SuggestFor: []string{"ui", "web", "browse", "open"},
		Short:      "Show the sessions in a browser",
		Long: `serve shows the sessions on a page in a browser of this machine, until Ctrl-C: how many there are, what
comes and goes, a filter, and each session without the values that --show does not name. It prints the
address, which has a key in it: whoever has the address may look. It can be opened in several browsers.

The page can end sessions only with --write. Each end is told on stderr.

Without --ttl it is not known when a session without a maxAge of its own ends, and none of these has expired. With
--store the --ttl that is not given is the default of the engine's npm package: 24h, for MongoDB 336h. Redis,
PostgreSQL and MySQL do not keep when a session was used last: the page reckons that from its end and --ttl.

With --store it shows the sessions in Redis, PostgreSQL, MySQL or MongoDB instead of --dir:

` + open.Usage + `

A URL with a password goes into an environment variable, as in: --store env:NAME

On a server without a browser, forward the port: ssh -L 8080:127.0.0.1:8080 host, there filestore serve
--port 8080, and here open the address that it prints.`,
		Example: `  filestore serve --dir /var/lib/site/sessions --show user
  filestore serve --write --port 8080
  SITE=redis://:password@127.0.0.1 filestore serve --store env:SITE --ttl 24h`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.show, "show", nil, "`PATHS` of members whose values are shown; a dot goes into objects: user,passport.user")
	fs.BoolVar(&f.write, "write", false, "let the page end sessions")
	fs.StringVar(&f.store, "store", "", "the `URL` of an engine that has the sessions, or env:NAME")
	fs.Uint16Var(&f.port, "port", 0, "the `PORT` on 127.0.0.1; 0 = one that is free")
	return cmd
}

type serveFlags struct {
	show  []string
	store string
	write bool
	port  uint16
}

func (a *app) serve(ctx context.Context, f serveFlags) error {
	show, err := splitPaths(f.show)
	if err != nil {
		return err
	}
	for _, path := range show {
		if checkPath(path) != nil {
			return fmt.Errorf("--show %s: a path that names no member", given(path))
		}
	}
	s, err := a.source(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(f.port))))
	if err != nil {
		return err
	}
	page := sessionui.Operator(s, &sessionui.Options{
		Show: show, Write: f.write, Context: ctx, NoStats: true, // the reaper is another program's
		Who:    func(*http.Request) string { return "filestore serve" },
		Logger: slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	d := newDoor(l.Addr().String(), page)
	if a.json {
		err = a.printJSON(map[string]string{"url": d.url()})
	} else {
		_, err = fmt.Fprintf(a.out, "%s\nCtrl-C ends it.\n", d.url())
	}
	if err != nil {
		l.Close()
		return err
	}
	return serveUntil(ctx, l, d)
}

// source opens what is to be shown.
func (a *app) source(ctx context.Context, f serveFlags) (s closingSource, err error) {
	if f.store == "" {
		if a.ttlGiven {
			return a.open(filestore.Options{ReadOnly: !f.write})
		}
		a.ttl = 100 * 365 * day
		s, err := a.open(filestore.Options{ReadOnly: !f.write})
		if err != nil {
			return nil, err
		}
		return untimed{s}, nil
	}
	if a.dirNamed != "" {
		return nil, fmt.Errorf("--store and the directory %s exclude each other", given(a.dir))
	}
	url, err := locate("--store", f.store)
	if err != nil {
		return nil, err
	}
	if a.secretFile != "" || a.sealedKeyFile != "" {
		return nil, errors.New("--secret-file and --key-file are a directory's")
	}
	silenceClients()
	var ttl time.Duration // the engine's default, which is that of its npm package
	if a.ttlGiven {
		ttl = a.ttl
	}
	return open.Open(ctx, url, &open.Options{TTL: ttl, Lifetime: a.lifetime, Timeout: engineTimeout, ReapInterval: -1, MaxSize: maxSize,
		Logger: slog.New(slog.DiscardHandler), NoIndex: true}) // what is only looked at stays as it is
}

// untimed is a store whose TTL nobody has said. A session without a maxAge does not expire in it: it may be alive for a
// program with a longer TTL than any that this one could suppose, and the page can end all that have expired.
type untimed struct{ *filestore.Store }

// TTL hides the Store's, which is not the site's: the page then does not say when such a session ends.
func (untimed) TTL() {}

type closingSource interface {
	sessionui.Source
	io.Closer
}

// serveUntil serves until ctx is done, and waits a moment for what is under way.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // browsers keep connections that they do not use
		defer cancel()
		stopped <- srv.Shutdown(soon)
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	if err := <-stopped; err != nil {
		return srv.Close()
	}
	return nil
}

// A door lets those through to a page who have the address that was printed, from browsers of this machine.
//
// The key in the address is good for a cookie, which is also sent when somebody clicks the address on another site, such as
// a terminal in a browser. It is for one path only, with a random name: browsers send a cookie to all
// ports of a host, and so to servers of others on this machine.
type door struct {
	addr              string // host and port
	key, path, ticket string
	page              http.Handler
}

func newDoor(addr string, page http.Handler) *door {
	return &door{addr, rand.Text(), "/" + rand.Text()[:8] + "/", rand.Text(), page}
}

const ticketName = "filestore-serve"

func (d *door) url() string {
	return (&url.URL{Scheme: "http", Host: d.addr, Path: "/", RawQuery: "key=" + d.key}).String()
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "same-origin")
	_, port, _ := net.SplitHostPort(d.addr)
	host := r.Host
	if port == "80" && host != "" && !strings.Contains(host, ":") { // which browsers leave out
		host += ":80"
	}
	if host != d.addr && host != "localhost:"+port { // a site whose name leads here (DNS rebinding)
		http.Error(w, "This is not the address that filestore serve has printed.", http.StatusMisdirectedRequest)
		return
	}
	c, err := r.Cookie(ticketName)
	switch {
	case r.URL.Path == "/" && same(r.URL.Query().Get("key"), d.key) && r.Method == http.MethodGet:
		http.SetCookie(w, &http.Cookie{Name: ticketName, Value: d.ticket, Path: d.path, HttpOnly: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, d.path, http.StatusSeeOther)
	case r.URL.Path == d.path && err == nil && same(c.Value, d.ticket):
		d.page.ServeHTTP(w, r)
	default:
		http.Error(w, "Open the address that filestore serve has printed.", http.StatusForbidden)
	}
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
