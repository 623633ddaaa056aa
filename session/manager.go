package session

// This file has the settings. cookie.go checks them.

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Manager holds the settings of the middleware. Store and Secrets are required.
// It must not be changed after the first call of Handler. Printing it with fmt
// or log/slog shows none of its fields.
type Manager struct {
	Store Store

	// Secrets sign the cookie: the first signs, all verify. A cookie that was
	// signed with another than the first is signed again by the next response. Each
	// must have at least 8 bytes.
	Secrets []string

	// Name is the cookie's name; "" means connect.sid.
	Name string

	// Cookie has the attributes of new sessions' cookies.
	Cookie CookieOptions

	// Path is the path of the requests that have a session, as this server sees
	// them; "" means Cookie.Path, which is what the browser sees. They differ behind
	// a proxy that strips a prefix: there Path is "/", and Cookie.Path the prefix.
	Path string

	// Resave stores loaded sessions even if they have not changed.
	Resave bool

	// Rolling sends the cookie with every response to a stored session, so that its MaxAge
	// begins again at each visit. With MaxAge you nearly always want it: without it a
	// browser drops the cookie a MaxAge after the session last changed, however often the
	// site is used. It is false by default, as in express-session.
	Rolling bool

	// SaveUninitialized stores new sessions even if nothing was put in.
	SaveUninitialized bool

	// TrustProxy believes X-Forwarded-Proto. Set it only behind a proxy that sets
	// that header.
	TrustProxy bool

	// User is the member of a session that says whose it is, as a string or a number; a
	// dot leads into an object: "passport.user". "" means "user". Login writes it.
	User string

	// MaxPerUser is how many sessions a user can have: Login ends those that have logged
	// in first. 0 means any number. The Store must be a Finder. The first Find of a
	// filestore.Store reads all sessions: with 100,000 the first Login takes seconds.
	MaxPerUser int

	// Note says what Login keeps for the user's list of sessions, in the member __note.
	// nil means nothing. It is personal data, and stays in the file as long as the
	// session. It may be called concurrently.
	Note func(*http.Request) Note

	// Prolongs reports whether a request counts as an access. nil means that all do. If it
	// returns false, the request is as if its handler had called Session.NoTouch at once.
	// It is called for requests whose session was found.
	Prolongs func(*http.Request) bool

	// OnEvent is told what has happened to sessions, after the Store has answered: for an
	// audit log. It is called in the goroutine of the request, and may use its session; for
	// what the Store's reaper has removed, in that of the reaper. It may be called
	// concurrently.
	OnEvent func(context.Context, Event)

	// ClearSiteData lets Logout also send Clear-Site-Data: "cookies", with which the browser
	// drops all cookies of the site and its subdomains. Some browsers take seconds for it.
	ClearSiteData bool

	// GenID makes the ids of new sessions. nil means 24 bytes of crypto/rand in
	// base64url, as in express-session. It may be called concurrently, and may use
	// the request's session. Its ids must pass filestore.ValidID.
	GenID func(*http.Request) (string, error)

	// ErrorFunc answers a request whose session could not be loaded or stored. nil means
	// log the error and answer 500.
	//
	// If the session could not be loaded, the handler does not run, and Manager.From
	// returns nil.
	// If it could not be stored, what the handler has begun of a response is dropped. If
	// ErrorFunc writes nothing, the answer is 500.
	//
	// ErrorFunc also gets errors that come too late to change the answer: those after the
	// header has left, and those of Touch. What it writes then is discarded.
	ErrorFunc func(http.ResponseWriter, *http.Request, error)

	shared *shared // made by the first call of Handler
}

// Secure says whether browsers may send the cookie over TLS only.
type Secure int

const (
	// SecureAuto makes the cookie Secure if the request that began it came over TLS. Behind
	// a proxy that ends TLS set Manager.TrustProxy too, or no cookie is Secure. The cookie
	// of a session that began over plain HTTP stays as it is until Login or Regenerate.
	SecureAuto Secure = iota

	// SecureAlways makes every cookie Secure. Over plain HTTP no cookie is set at all.
	SecureAlways

	// SecureNever leaves Secure out.
	SecureNever
)

// SameSiteAuto is express-session's 'auto': None for a Secure cookie over TLS, else
// Lax, because browsers accept None only for Secure cookies.
const SameSiteAuto http.SameSite = -1

// CookieOptions are the attributes of a new session's cookie. A session that
// was stored before keeps its own, as in express-session.
type CookieOptions struct {
	// Path is the cookie's path; "" means "/". It also says which requests have a
	// session: see Manager.Path.
	Path string

	// Domain is the cookie's domain; "" means the host alone.
	Domain string

	// MaxAge is the session's life after its last access, at least a second. 0 means
	// the store's TTL, and a cookie that ends with the browser.
	MaxAge time.Duration

	// Expires is express-session's option of that name. You hardly ever want it: use MaxAge,
	// or filestore.Options.Lifetime, which ends a session however much it is used. Expires
	// ends none at that date: it only sets the MaxAge of a new session to the time that is
	// left until then, and each access prolongs the session by as much. After the date no new
	// session gets a cookie, and Handler panics. It counts only if MaxAge is 0.
	Expires time.Time

	// Secure is SecureAuto by default.
	Secure Secure

	// SameSite is Lax by default. http.SameSiteDefaultMode leaves the attribute out.
	SameSite http.SameSite

	// Partitioned sets the attribute of that name (CHIPS); browsers want Secure too.
	Partitioned bool

	// Priority is "low", "medium", "high", or "" for no attribute.
	Priority string

	// Readable leaves HttpOnly out, so that scripts can read the cookie.
	Readable bool
}

// Format prints only the type, whatever the verb: m holds secrets.
func (m Manager) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Manager") }

// LogValue does the same for log/slog.
func (m Manager) LogValue() slog.Value { return slog.StringValue("session.Manager") }
