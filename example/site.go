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
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/live"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/session"
)

// The members of a session, beside the flash messages. They are stored under these
// names, so that another program can share them.
const (
	userMember  = "user"  // string: the name of the user who is logged in
	viewsMember = "views" // number: clicks on Count, and visits to /admin
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
	feed       *live.Feed
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
	mux.Handle("GET /user", forUsers(s.user))
	mux.Handle("GET /logout", page(s.askLogout))
	mux.Handle("POST /logout", page(s.logout))
	mux.Handle("POST /count", page(s.count))
	mux.Handle("GET /admin", page(s.admin))
	mux.Handle("GET /private", forUsers(s.private))
	mux.Handle("GET /dashboard", forUsers(s.dashboard))
	mux.Handle("POST /login", page(s.postLogin))
	mux.Handle("GET /api/dashboard", page(s.apiDashboard))
	mux.Handle("GET /api/whoami", page(s.whoami))
	mux.Handle("GET /cookies", page(s.cookies))
	mux.Handle("POST /cookies", page(s.setCookie))
	mux.Handle("POST /cookies/clear", page(s.clearCookie))
	mux.Handle("GET /session", page(s.session))
	mux.Handle("GET "+changesPath, s.feed)
	mux.Handle("GET /devices", http.RedirectHandler(devicesPath, http.StatusMovedPermanently)) // where it was
	mux.Handle("POST /logout/everywhere", forUsers(s.logoutEverywhere))
	mux.Handle("GET /recovery", forUsers(s.recovery))
	mux.Handle("GET /confirm", forUsers(s.confirm))
	mux.Handle("POST /confirm", forUsers(s.postConfirm))
	mux.Handle("GET /live", forUsers(s.live))
	mux.Handle("/", page(s.notFound))
	live.Mount(mux)

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

const changesPath = "/session/changes"

// prolongs leaves out what a page asks for by itself: it may be open in a forgotten tab.
func prolongs(r *http.Request) bool {
	byScript := r.URL.Path == operatorPath && r.Header.Get("Sec-Fetch-Dest") == "empty"
	return r.URL.Path != "/live" && r.URL.Path != changesPath && !byScript && !live.Asks(r)
}

// audit logs what happens to sessions. A handle opens nothing, so that it may stand in a log.
func audit(ctx context.Context, e session.Event) {
	slog.InfoContext(ctx, "session "+string(e.Kind), "session", e.Handle, "user", e.User, "reason", e.Reason, "sessions", e.Sessions)
}

// policy lets pages load nothing but the site's style sheet and icon.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// headers keeps every answer out of caches: each depends on the visitor, and some set a
// cookie that is a login.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", policy)
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
		fail(w, r, http.StatusRequestEntityTooLarge, "That is more than this site takes.")
	case errors.Is(err, errBadRequest):
		fail(w, r, http.StatusBadRequest, err.Error())
	default:
		slog.ErrorContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "err", err)
		fail(w, r, http.StatusInternalServerError, "That did not work. The log says why.")
	}
}

// forUsers is a page for those who are logged in. Others are sent to the login, and come back.
func forUsers(p page) page {
	return func(w http.ResponseWriter, r *http.Request, user string) error {
		if user == "" {
			return toLogin(w, r)
		}
		return p(w, r, user)
	}
}

// The pages that a login leads to, if somebody wanted to go there. An address from a form must not lead to another site,
// nor to a page that does something.
var afterLogin = []string{"/", "/user", "/private", "/dashboard", "/recovery", "/live", devicesPath, operatorPath}

func toLogin(w http.ResponseWriter, r *http.Request) error {
	if !slices.Contains(afterLogin, r.URL.Path) {
		return redirect(w, r, "/")
	}
	return redirect(w, r, "/?next="+r.URL.Path)
}

// fail answers with a page about an error, or with JSON.
func fail(w http.ResponseWriter, r *http.Request, status int, text string) error {
	if wantsJSON(r) || strings.HasPrefix(r.URL.Path, "/api/") || r.URL.Path == "/login" {
		return writeJSON(w, status, object{"error": text})
	}
	if err := render(w, r, status, "error", object{"Title": http.StatusText(status), "Text": text}); err != nil {
		http.Error(w, text, status) // a page shows who is logged in, and the session cannot be read
	}
	return nil
}

func (s *site) notFound(w http.ResponseWriter, r *http.Request, _ string) error {
	return fail(w, r, http.StatusNotFound, "There is no such page.")
}

var errBadRequest = errors.New("bad request")

//go:embed pages.html
var assets embed.FS

var pages = template.Must(template.Must(template.New("").Funcs(template.FuncMap{"visit": visit}).ParseFS(live.Assets, "file.html")).ParseFS(assets, "pages.html"))

// A view is what the templates get.
type view struct {
	Path, User, Admin string
	Script            bool // the page has live.js
	Flashes           map[string][]string
	Data              any
}

// visit returns what the frame of all pages shows. The messages are shown once, and to a person.
func visit(r *http.Request) (*view, error) {
	user, err := currentUser(r)
	if err != nil {
		return nil, err
	}
	v := &view{Path: r.URL.Path, User: user, Admin: admin, Flashes: map[string][]string{}}
	if live.Asks(r) {
		return v, nil
	}
	for _, kind := range []string{"error", "info"} {
		if v.Flashes[kind], err = session.From(r).Flashes(kind); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// render answers with the template name. The template finds data in .Data.
func render(w http.ResponseWriter, r *http.Request, status int, name string, data any) error {
	v, err := visit(r)
	if err != nil {
		return err
	}
	v.Data = data
	if v.Script = name == "home"; v.Script {
		w.Header().Set("Content-Security-Policy", policy+"; script-src 'self'; connect-src 'self'")
	}
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

// A homePage is what the home page shows.
type homePage struct {
	File  *live.File
	Views int
	Wrong bool   // the password was
	Next  string // where to go after the login
	Kill  string // the command
}

func (s *site) home(w http.ResponseWriter, r *http.Request, _ string) error {
	return s.showHome(w, r, http.StatusOK)
}

func (s *site) showHome(w http.ResponseWriter, r *http.Request, status int) error {
	file, err1 := s.feed.Look(r)
	views, err2 := session.Value[int](session.From(r), viewsMember)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return render(w, r, status, "home", homePage{File: file, Views: views, Wrong: status == http.StatusUnprocessableEntity, Next: next(r, afterLogin), Kill: killCommand()})
}

func killCommand() string {
	if runtime.GOOS == "windows" {
		return fmt.Sprintf("taskkill /F /PID %d", os.Getpid())
	}
	return fmt.Sprintf("kill -9 %d", os.Getpid())
}

// next is where a visitor wanted to go: one of the pages, or else the first.
func next(r *http.Request, pages []string) string {
	if n := r.FormValue("next"); slices.Contains(pages, n) {
		return n
	}
	return pages[0]
}

// postUser shows the form again after a wrong password. A message for the next page would need a session, and whoever
// tries passwords would get a file for each. In your program limit the attempts.
func (s *site) postUser(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := readCredentials(r)
	if err != nil {
		return err
	}
	if !authenticate(c.Username, c.Password) {
		return s.showHome(w, r, http.StatusUnprocessableEntity)
	}
	if err := login(r, c.Username); err != nil {
		return err
	}
	return redirect(w, r, next(r, afterLogin))
}

func (s *site) user(w http.ResponseWriter, r *http.Request, _ string) error {
	return render(w, r, http.StatusOK, "welcome", nil)
}

// askLogout is for whoever types the address. A GET must not log out: another site's picture could.
func (s *site) askLogout(w http.ResponseWriter, r *http.Request, _ string) error {
	return render(w, r, http.StatusOK, "logout page", nil)
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

// plusOne counts with Store.Update and not in this request's copy of the session, so that two tabs that load at the same
// moment count two.
func (s *site) plusOne(r *http.Request) (views int, err error) {
	err = s.store.Update(r.Context(), session.From(r).ID(), func(sess *filestore.Session) (err error) {
		if views, err = filestore.Value[int](sess, viewsMember); err != nil {
			return err
		}
		views++
		return sess.Put(viewsMember, views)
	})
	return views, err
}

// count is for everybody: with the first click a visitor begins a session, which a login continues under another id.
func (s *site) count(w http.ResponseWriter, r *http.Request, user string) error {
	_, err := s.plusOne(r)
	if errors.Is(err, filestore.ErrNotFound) && user == "" {
		err = session.From(r).Put(viewsMember, 1)
	}
	if err != nil {
		return err
	}
	return redirect(w, r, "/")
}

func (s *site) admin(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return render(w, r, http.StatusForbidden, "refused", "users")
	}
	views, err := s.plusOne(r)
	if err != nil { // ErrNotFound: just logged out in another tab
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

// dashboard shows people what apiDashboard tells programs.
func (s *site) dashboard(w http.ResponseWriter, r *http.Request, user string) error {
	views, err := session.Value[int](session.From(r), viewsMember)
	if err != nil {
		return err
	}
	return render(w, r, http.StatusOK, "dashboard", object{"Views": views, "Site": s.address(r)})
}

func (s *site) apiDashboard(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return writeJSON(w, http.StatusUnauthorized, object{"error": "log in first"})
	}
	views, err := session.Value[int](session.From(r), viewsMember)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, object{"user": user, "views": views})
}

// address is that of the site, as the visitor knows it.
func (s *site) address(r *http.Request) string {
	if s.isSecure(r) {
		return "https://" + r.Host
	}
	return "http://" + r.Host
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

func (s *site) private(w http.ResponseWriter, r *http.Request, _ string) error {
	return render(w, r, http.StatusOK, "private", object{"Site": s.address(r)})
}

// whoami is for programs that keep no cookies. It makes no session and changes none: a password in a header must not turn
// somebody who is logged in into somebody else.
func (s *site) whoami(w http.ResponseWriter, r *http.Request, _ string) error {
	name, password, _ := r.BasicAuth()
	if !authenticate(name, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="api", charset="UTF-8"`)
		return writeJSON(w, http.StatusUnauthorized, object{"error": "wrong username or password"})
	}
	return writeJSON(w, http.StatusOK, object{"user": name})
}

// session shows visitors their own session and no other.
func (s *site) session(w http.ResponseWriter, r *http.Request, _ string) error {
	file, err := s.feed.Look(r)
	if err != nil {
		return err
	}
	return render(w, r, http.StatusOK, "session", file)
}
