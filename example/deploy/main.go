// Command deploy is a small site to copy: a form with a password, and all that it needs to run under systemd or in a
// container, behind a proxy or with a certificate of its own. docs/RECIPES.md says how.
package main

import (
	"context"
	"flag"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/crypto/bcrypt"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

var (
	addr       = flag.String("addr", "localhost:8000", "listen on `host:port`; :8000 is all addresses")
	sessions   = flag.String("sessions", "./sessions", "keep the sessions in `directory`")
	secrets    = flag.String("secrets", "./secrets", "`file` of the cookie's secrets, one a line, the newest first")
	trustProxy = flag.Bool("trust-proxy", false, "believe X-Forwarded-Proto; only behind a proxy that sets it")
	domain     = flag.String("domain", "", "serve TLS, with a certificate of Let's Encrypt for this `host`")
	certs      = flag.String("certs", "./certs", "keep the certificates in `directory`")
)

// hash makes what is kept of a password. bcrypt takes 72 bytes of it at most.
func hash(password string) []byte {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		log.Fatal(err)
	}
	return h
}

var (
	users  = map[string][]byte{"anna": hash("correct horse")} // yours are in a database
	nobody = hash("")                                         // of the same cost
)

// right takes as long for a name that nobody has as for a wrong password: the time does not tell who is a user.
func right(user, password string) bool {
	h, known := users[user]
	if !known {
		h = nobody
	}
	return bcrypt.CompareHashAndPassword(h, []byte(password)) == nil && known
}

var form = template.Must(template.New("form").Parse(`<!doctype html>
<title>Log in</title>
{{with .Wrong}}<p role="alert">{{.}}</p>{{end}}
<form method="post">
{{if .AskName}}<label>Name <input name="user" value="{{.User}}" autocomplete="username" required></label>{{end}}
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form>
`))

type fields struct {
	AskName     bool
	User, Wrong string
}

func show(w http.ResponseWriter, status int, f fields) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	form.Execute(w, f)
}

// logIn answers the two forms. In a real site limit the attempts, by name and by address.
func logIn(w http.ResponseWriter, r *http.Request, f fields, next string) {
	if !right(f.User, r.PostFormValue("password")) {
		f.Wrong = "That was not right."
		show(w, http.StatusUnprocessableEntity, f) // nothing is put into the session, so none is stored
		return
	}
	if err := session.From(r).Login(f.User); err != nil {
		http.Error(w, "Please try again.", http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		show(w, http.StatusOK, fields{AskName: true})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		logIn(w, r, fields{AskName: true, User: r.PostFormValue("user")}, "/")
	})
	// The password again, of the user who is logged in.
	mux.HandleFunc("GET /confirm", forUsers(func(w http.ResponseWriter, r *http.Request, user string) {
		show(w, http.StatusOK, fields{User: user})
	}))
	mux.HandleFunc("POST /confirm", forUsers(func(w http.ResponseWriter, r *http.Request, user string) {
		logIn(w, r, fields{User: user}, "/code")
	}))
	mux.HandleFunc("GET /code", forUsers(func(w http.ResponseWriter, r *http.Request, _ string) {
		if !session.From(r).Fresh(5 * time.Minute) {
			http.Redirect(w, r, "/confirm", http.StatusSeeOther)
			return
		}
		w.Write([]byte("Your recovery code is 1234-5678.\n"))
	}))
	mux.HandleFunc("GET /{$}", forUsers(func(w http.ResponseWriter, r *http.Request, user string) {
		w.Write([]byte("Hello, " + user + ".\n"))
	}))
}

// forUsers sends everybody else to the form.
func forUsers(h func(w http.ResponseWriter, r *http.Request, user string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user := session.From(r).User(); user != "" {
			h(w, r, user)
			return
		}
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}
}

// shutdownTimeout is shorter than systemd's TimeoutStopSec, and Docker's ten seconds.
const shutdownTimeout = 8 * time.Second

func main() {
	flag.Parse()
	lines, err := os.ReadFile(*secrets)
	if err != nil {
		log.Fatal(err)
	}
	store, err := filestore.Open(*sessions, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	m := &session.Manager{Store: store, Secrets: strings.Fields(string(lines)), TrustProxy: *trustProxy}
	mux := http.NewServeMux()
	routes(mux)
	server := &http.Server{
		Addr:              *addr,
		Handler:           http.NewCrossOriginProtection().Handler(m.Handler(mux)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	serve := server.ListenAndServe
	if *domain != "" {
		tls := &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(*domain), Cache: autocert.DirCache(*certs)}
		server.TLSConfig = tls.TLSConfig()
		serve = func() error { return server.ListenAndServeTLS("", "") }
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- serve() }()
	select {
	case err := <-failed:
		log.Fatal(err) // and not Close: the store needs none to be whole
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil { // it waits for the requests under way
		log.Print(err)
	}
}
