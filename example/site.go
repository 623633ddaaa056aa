package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/session"
)

// The members of a session, beside the flash messages. They are stored under these
// names, so that another program can share them.
const (
	userMember  = "user"  // string: the name of the user who is logged in
	viewsMember = "views" // number: visits to /admin
)

const (
	cookieName = "connect.sid"
	maxAge     = 24 * time.Hour
	maxBody    = 16 << 10
)

// users has the passwords in the clear, because everybody may log in here. In your
// program keep hashes, made with argon2id or bcrypt.
var users = map[string]string{"user1": "mypassword", admin: "password"}

const admin = "admin2"

// recoveryCodes are the users' codes for the case that a password is lost, until the program ends. In your program keep
// hashes of these too.
var recoveryCodes = map[string]string{"user1": rand.Text(), admin: rand.Text()}

// authenticate takes the same time for every password and for unknown names, because
// it compares digests, which all have the same length.
func authenticate(name, password string) bool {
	want, known := users[name]
	a, b := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && known
}

// A site serves all pages.
type site struct {
	store      stores.Store
	files      bool   // the sessions are files
	where      string // the directory or the server
	secret     string
	trustProxy bool
	quit       context.Context // is done when the program ends

	sessions *session.Manager // made by handler
}

// handler returns the routes behind what they all share: from the outside in, the
// headers, the limit on bodies, the ban on POST from other sites, the session.
func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", page(s.home))
	mux.Handle("POST /user", page(s.postUser))
	mux.Handle("GET /user", page(s.user))
	// For whoever types the address; the pages have a form. Another site can link to it, but then somebody only has to
	// log in again.
	mux.Handle("GET /logout", page(s.logout))
	mux.Handle("POST /logout", page(s.logout))
	mux.Handle("GET /admin", page(s.admin))
	mux.Handle("POST /login", page(s.postLogin))
	mux.Handle("GET /dashboard", page(s.dashboard))
	mux.Handle("GET /private", page(s.private))
	mux.Handle("GET /cookies", page(s.cookies))
	mux.Handle("POST /cookies", page(s.setCookie))
	mux.Handle("POST /cookies/clear", page(s.clearCookie))
	mux.Handle("GET /session", page(s.session))
	mux.Handle("GET /devices", http.RedirectHandler(devicesPath, http.StatusMovedPermanently)) // where it was
	mux.Handle("POST /logout/everywhere", page(s.logoutEverywhere))
	mux.Handle("GET /recovery", page(s.recovery))
	mux.Handle("GET /confirm", page(s.confirm))
	mux.Handle("POST /confirm", page(s.postConfirm))
	mux.Handle("GET /live", page(s.live))
	for _, name := range []string{"style.css", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, assets, name) })
	}

	s.sessions = &session.Manager{
		Store:   s.store,
		Secrets: []string{s.secret},
		Name:    cookieName,
		Cookie:  session.CookieOptions{MaxAge: maxAge},
		// Each visit prolongs the session in its file. Rolling also tells the browser,
		// which would otherwise drop the cookie a day after the login.
		Rolling:    true,
		TrustProxy: s.trustProxy,
		Note:       s.note,
		Prolongs:   prolongs,
		OnEvent:    audit,
	}
	mux.Handle(devicesPath, s.devices())
	mux.Handle(operatorPath, s.operator())
	h := s.sessions.Handler(mux)
	h = http.NewCrossOriginProtection().Handler(h)
	h = http.MaxBytesHandler(h, maxBody)
	return headers(h)
}

// prolongs leaves out what a page asks for by itself: it may be open in a forgotten tab.
func prolongs(r *http.Request) bool {
	byScript := r.URL.Path == operatorPath && r.Header.Get("Sec-Fetch-Dest") == "empty"
	return r.URL.Path != "/live" && !byScript
}

// audit logs what happens to sessions. A handle opens nothing, so that it may stand in a log.
func audit(ctx context.Context, e session.Event) {
	slog.InfoContext(ctx, "session "+string(e.Kind), "session", e.Handle, "user", e.User, "reason", e.Reason, "sessions", e.Sessions)
}

// headers keeps every answer out of caches: each depends on the visitor, and some set a
// cookie that is a login.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// A page is a handler that gets the user who is logged in, "" for nobody, and returns
// the errors that it cannot answer itself.
type page func(w http.ResponseWriter, r *http.Request, user string) error

func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, err := currentUser(r)
	if err == nil {
		err = p(w, r, user)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
	case errors.Is(err, filestore.ErrNotFound): // another request has logged out or in meanwhile
		redirect(w, r, "/")
	case errors.As(err, &tooLarge):
		http.Error(w, "Too large.", http.StatusRequestEntityTooLarge)
	case errors.Is(err, errBadRequest):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		slog.ErrorContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "err", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
}

var errBadRequest = errors.New("bad request")

//go:embed pages.html style.css icon.svg
var assets embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{"visit": visit}).ParseFS(assets, "pages.html"))

// A view is what the templates get.
type view struct {
	Path, User, Admin string
	Flashes           map[string][]string
	Data              any
}

// visit returns what the frame of all pages shows. The messages are shown once.
func visit(r *http.Request) (*view, error) {
	user, err := currentUser(r)
	if err != nil {
		return nil, err
	}
	flashes := map[string][]string{}
	for _, kind := range []string{"error", "info"} {
		if flashes[kind], err = session.From(r).Flashes(kind); err != nil {
			return nil, err
		}
	}
	return &view{Path: r.URL.Path, User: user, Admin: admin, Flashes: flashes}, nil
}

// render answers with the template name. The template finds data in .Data.
func render(w http.ResponseWriter, r *http.Request, status int, name string, data any) error {
	v, err := visit(r)
	if err != nil {
		return err
	}
	v.Data = data
	// Into a buffer first: after half a page it is too late for an error.
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, name, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(buf.Bytes()) // an error means that the client has gone
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
	return nil
}

type object = map[string]any

func redirect(w http.ResponseWriter, r *http.Request, to string) error {
	http.Redirect(w, r, to, http.StatusSeeOther) // the browser goes on with GET
	return nil
}

// currentUser returns the user who is logged in, "" for nobody.
func currentUser(r *http.Request) (string, error) {
	return session.Value[string](session.From(r), userMember)
}

// login makes the request's session that of the user name. Login gives it a new id, so that somebody who knew the old
// one, or planted it, is not logged in. The visitor's values stay, but one user does not get those of another.
func login(r *http.Request, name string) error {
	s := session.From(r)
	was, err := currentUser(r)
	if err != nil {
		return err
	}
	if was != "" && was != name {
		if err := s.Regenerate(); err != nil {
			return err
		}
	}
	return s.Login(name)
}

func (s *site) home(w http.ResponseWriter, r *http.Request, user string) error {
	if user != "" {
		return redirect(w, r, "/user")
	}
	return render(w, r, http.StatusOK, "login", nil)
}

func (s *site) postUser(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := readCredentials(r)
	if err != nil {
		return err
	}
	if !authenticate(c.Username, c.Password) {
		if err := session.From(r).Flash("error", "Wrong username or password."); err != nil {
			return err
		}
		return redirect(w, r, "/")
	}
	if err := login(r, c.Username); err != nil {
		return err
	}
	return redirect(w, r, "/user")
}

func (s *site) user(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return redirect(w, r, "/")
	}
	return render(w, r, http.StatusOK, "welcome", nil)
}

// logout removes the session, so that every copy of its cookie is worthless, and the browser's cookie.
func (s *site) logout(w http.ResponseWriter, r *http.Request, _ string) error {
	if err := session.From(r).Logout(); err != nil {
		return err
	}
	if wantsJSON(r) {
		return writeJSON(w, http.StatusOK, object{"ok": true})
	}
	return redirect(w, r, "/")
}

// admin counts with Store.Update and not in this request's copy of the session, so that
// two tabs that load at the same moment count two.
func (s *site) admin(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return render(w, r, http.StatusForbidden, "refused", "users")
	}
	var views int
	err := s.store.Update(r.Context(), session.From(r).ID(), func(sess *filestore.Session) (err error) {
		if views, err = filestore.Value[int](sess, viewsMember); err != nil {
			return err
		}
		views++
		return sess.Put(viewsMember, views)
	})
	if errors.Is(err, filestore.ErrNotFound) { // just logged out in another tab
		return redirect(w, r, "/")
	}
	if err != nil {
		return err
	}
	return render(w, r, http.StatusOK, "admin", views)
}

func (s *site) postLogin(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := readCredentials(r)
	if err != nil {
		return err
	}
	if !authenticate(c.Username, c.Password) {
		return writeJSON(w, http.StatusUnauthorized, object{"error": "wrong username or password"})
	}
	if err := login(r, c.Username); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, object{"user": c.Username})
}

func (s *site) dashboard(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return writeJSON(w, http.StatusUnauthorized, object{"error": "log in first"})
	}
	views, err := session.Value[int](session.From(r), viewsMember)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, object{"user": user, "views": views})
}

type credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// readCredentials reads a JSON object or an HTML form, whichever the Content-Type says.
func readCredentials(r *http.Request) (c credentials, err error) {
	if !sendsJSON(r) {
		if err := r.ParseForm(); err != nil {
			return c, fmt.Errorf("%w: %w", errBadRequest, err)
		}
		return credentials{r.PostForm.Get("username"), r.PostForm.Get("password")}, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return c, nil
}

func sendsJSON(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && mediaType == "application/json"
}

// wantsJSON reports whether a program asks. Browsers ask for text/html.
func wantsJSON(r *http.Request) bool {
	return sendsJSON(r) || strings.Contains(r.Header.Get("Accept"), "application/json")
}

// private is a second way to log in, with the browser's password box. Once the session
// has the user, the header is neither needed nor read.
func (s *site) private(w http.ResponseWriter, r *http.Request, user string) error {
	if user != admin {
		name, password, ok := r.BasicAuth()
		// A picture on another site could have a password in its address: its visitor would be
		// logged in as somebody else without knowing.
		foreign := r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate"
		if !authenticate(name, password) || !ok || name != admin || foreign {
			w.Header().Set("WWW-Authenticate", `Basic realm="private", charset="UTF-8"`)
			return render(w, r, http.StatusUnauthorized, "unauthorized", nil)
		}
		if err := login(r, name); err != nil {
			return err
		}
	}
	return render(w, r, http.StatusOK, "private", nil)
}

// session shows visitors their own session and no other, because the file's name has the id,
// and with it and a signature anybody could be them.
func (s *site) session(w http.ResponseWriter, r *http.Request, _ string) error {
	id := session.From(r).ID()
	sess, err := s.store.Get(r.Context(), id)
	if errors.Is(err, filestore.ErrNotFound) { // nothing was put in yet, so that there is none
		return render(w, r, http.StatusOK, "session", nil)
	}
	if err != nil {
		return err
	}
	// As it is stored, byte for byte, unless it is encrypted.
	document, where := sess.Document, s.where
	if s.files {
		document, where = sess.MarshalJSON, filepath.Join(s.where, id+".json")
	}
	text, err := document()
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return err
	}
	ends := sess.ExpiresAt(stores.TTL)
	return render(w, r, http.StatusOK, "session", object{
		"IsFile": s.files,
		"Where":  where,
		"JSON":   pretty.String(),
		"Ends":   ends.UTC().Format(time.RFC1123),
		"Left":   time.Until(ends).Round(time.Second),
	})
}
