package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessionfilestore/filestore"
)

// Sign returns value with its signature, as cookie-signature does: value, a dot,
// and the HMAC-SHA256 in base64 without padding. express-session's cookies carry
// it behind the prefix "s:".
func Sign(value, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(value))
	return value + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// Unsign returns the value that one of the secrets has signed. It compares in
// constant time and always tries all secrets.
func Unsign(signed string, secrets ...string) (value string, ok bool) {
	dot := strings.LastIndexByte(signed, '.')
	if dot < 0 {
		return "", false
	}
	for _, secret := range secrets {
		// Whole strings, as in Node: of the encodings of one MAC only the canonical counts.
		if hmac.Equal([]byte(Sign(signed[:dot], secret)), []byte(signed)) {
			ok = true
		}
	}
	if !ok {
		return "", false
	}
	return signed[:dot], true
}

// A browser sends several cookies of one name if they differ in path or domain. More
// than these few are not its doing.
const maxCookies = 8

// cookieIDs yields the ids in the request's session cookies that we have signed, in
// the order of the header, with whether an old secret did.
func (m *Manager) cookieIDs(r *http.Request) iter.Seq2[string, bool] {
	return func(yield func(id string, old bool) bool) {
		tried := 0
		for value := range cookieValues(r, m.name()) {
			signed, ok := strings.CutPrefix(value, "s:")
			if !ok || tried == maxCookies {
				continue
			}
			tried++
			id, ok := Unsign(signed, m.Secrets...)
			if !ok || id == "" {
				continue
			}
			first := len(m.Secrets) == 1
			if !first {
				_, first = Unsign(signed, m.Secrets[0])
			}
			if !yield(id, !first) {
				return
			}
		}
	}
}

// cookieValues reads the request's cookies of a name as the npm package cookie
// does: a value is percent-decoded once, not query-decoded: a plus stays a plus.
// net/http refuses values that Node accepts.
func cookieValues(r *http.Request, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, header := range r.Header["Cookie"] {
			for pair := range strings.SplitSeq(header, ";") {
				key, value, ok := strings.Cut(pair, "=")
				if !ok || strings.Trim(key, " \t") != name {
					continue
				}
				value = strings.Trim(value, " \t")
				if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
					value = value[1 : len(value)-1]
				}
				if decoded, err := url.PathUnescape(value); err == nil && utf8.ValidString(decoded) {
					value = decoded
				}
				if !yield(value) {
					return
				}
			}
		}
	}
}

// setCookie returns the Set-Cookie header for the session, attributes in Node's
// order. Node leaves Max-Age out, which browsers prefer to Expires: it does not
// depend on their clock.
func (s *Session) setCookie() string {
	c := &s.Cookie
	var b strings.Builder
	b.WriteString(s.m.name() + "=" + encodeURIComponent("s:"+Sign(s.id, s.m.Secrets[0])))
	if !c.Expires.IsZero() {
		seconds := math.Ceil(time.Until(c.Expires).Seconds())
		fmt.Fprintf(&b, "; Max-Age=%.0f", max(0, seconds))
	}
	if c.Domain != "" {
		b.WriteString("; Domain=" + c.Domain)
	}
	if c.Path != "" {
		b.WriteString("; Path=" + c.Path)
	}
	if !c.Expires.IsZero() {
		b.WriteString("; Expires=" + c.Expires.UTC().Format(http.TimeFormat))
	}
	if c.HTTPOnly {
		b.WriteString("; HttpOnly")
	}
	if c.Secure {
		b.WriteString("; Secure")
	}
	if c.Partitioned {
		b.WriteString("; Partitioned")
	}
	if c.Priority != "" {
		b.WriteString("; Priority=" + capital(c.Priority))
	}
	if c.SameSite != "" {
		b.WriteString("; SameSite=" + capital(c.SameSite))
	}
	return b.String()
}

func capital(s string) string {
	return strings.ToUpper(s[:1]) + strings.ToLower(s[1:])
}

// encodeURIComponent is JavaScript's; package url has none that spares the same characters.
func encodeURIComponent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.!~*'()", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// newCookie returns the attributes that the options give a session made now.
func (m *Manager) newCookie(secure bool) filestore.Cookie {
	o := &m.Cookie
	c := filestore.Cookie{
		OriginalMaxAge: o.MaxAge,
		HTTPOnly:       !o.Readable,
		Partitioned:    o.Partitioned,
		Path:           m.path(),
		Domain:         o.Domain,
		Priority:       o.Priority,
	}
	if c.OriginalMaxAge == 0 && !o.Expires.IsZero() {
		c.OriginalMaxAge = untilExpires(o.Expires)
	}
	c.Secure = o.Secure == SecureAlways || o.Secure == SecureAuto && secure
	switch o.SameSite {
	case 0, http.SameSiteLaxMode:
		c.SameSite = "lax"
	case http.SameSiteStrictMode:
		c.SameSite = "strict"
	case http.SameSiteNoneMode:
		c.SameSite = "none"
	case SameSiteAuto:
		c.SameSite = "lax"
		if secure && c.Secure { // browsers take no other
			c.SameSite = "none"
		}
	}
	return c
}

// isSecure reports whether the client came over TLS, as far as that can be trusted.
func (m *Manager) isSecure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if !m.TrustProxy {
		return false
	}
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	return strings.EqualFold(strings.TrimSpace(proto), "https")
}

func (m *Manager) name() string {
	if m.Name == "" {
		return "connect.sid"
	}
	return m.Name
}

func (m *Manager) path() string {
	if m.Cookie.Path == "" {
		return "/"
	}
	return m.Cookie.Path
}

// The grammar of RFC 6265, as the npm package cookie enforces it.
var (
	nameRE   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	domainRE = regexp.MustCompile(`^\.?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	pathRE   = regexp.MustCompile(`^[ -:=-~]*$`)
)

const minSecret = 8

// check refuses settings with which no cookie would be safe or arrive at all.
// It names no secret.
func (m *Manager) check() error {
	o := &m.Cookie
	if m.Store == nil {
		return errors.New("Manager.Store is nil")
	}
	if len(m.Secrets) == 0 {
		return errors.New("Manager.Secrets is empty")
	}
	for i, secret := range m.Secrets {
		if len(secret) < minSecret {
			return fmt.Errorf("Manager.Secrets[%d] is shorter than %d bytes", i, minSecret)
		}
	}
	switch {
	case !nameRE.MatchString(m.name()):
		return fmt.Errorf("Manager.Name %q is not a valid cookie name", m.Name)
	case len(m.name()) > maxName:
		return fmt.Errorf("Manager.Name is longer than %d bytes: browsers drop large cookies", maxName)
	case m.path()[0] != '/':
		return fmt.Errorf("CookieOptions.Path %q does not start with /", o.Path)
	case m.Path != "" && m.Path[0] != '/':
		return fmt.Errorf("Manager.Path %q does not start with /", m.Path)
	case len(o.Path) > maxAttribute || len(o.Domain) > maxAttribute:
		return fmt.Errorf("CookieOptions.Path or Domain is longer than %d bytes: browsers ignore it", maxAttribute)
	case o.MaxAge < 0:
		return errors.New("CookieOptions.MaxAge is negative")
	case o.MaxAge == 0 && !o.Expires.IsZero() && !o.Expires.After(time.Now()):
		return fmt.Errorf("CookieOptions.Expires, %v, has passed", o.Expires)
	case o.Secure < SecureAuto || o.Secure > SecureNever:
		return fmt.Errorf("CookieOptions.Secure is %d", o.Secure)
	case o.SameSite < SameSiteAuto || o.SameSite > http.SameSiteNoneMode:
		return fmt.Errorf("CookieOptions.SameSite is %d", o.SameSite)
	}
	if err := checkLife("CookieOptions.MaxAge", o.MaxAge); err != nil {
		return err
	}
	c := filestore.Cookie{Path: m.path(), Domain: o.Domain, Priority: o.Priority, HTTPOnly: !o.Readable, Partitioned: o.Partitioned, Secure: o.Secure != SecureNever}
	if o.SameSite == http.SameSiteNoneMode {
		c.SameSite = "none"
	}
	if err := checkAttributes(&c); err != nil {
		return err
	}
	if why := m.refused(&c); why != "" {
		return errors.New("no browser takes the cookie: " + why)
	}
	return nil
}

// Browsers drop a cookie whose name and value have more than 4,096 bytes together (a
// signed id has up to 250, of which each may be escaped), and ignore an attribute of
// more than 1,024.
const (
	maxName      = 3000
	maxAttribute = 1024
)

// checkLife refuses what was meant in seconds: 3600 is 3.6 microseconds.
func checkLife(name string, d time.Duration) error {
	if 0 < d && d < time.Second {
		return fmt.Errorf("%s is %v, and must be at least a second: for seconds write 3600*time.Second", name, d)
	}
	return nil
}

func checkAttributes(c *filestore.Cookie) error {
	switch {
	case c.Domain != "" && !domainRE.MatchString(c.Domain):
		return fmt.Errorf("invalid cookie domain %q", c.Domain)
	case !pathRE.MatchString(c.Path):
		return fmt.Errorf("invalid cookie path %q", c.Path)
	case !oneOf(c.Priority, "low", "medium", "high"):
		return fmt.Errorf("invalid cookie priority %q", c.Priority)
	case !oneOf(c.SameSite, "strict", "lax", "none"):
		return fmt.Errorf("invalid cookie sameSite %q", c.SameSite)
	}
	return nil
}

// oneOf also takes "", and any case, as the npm package cookie does.
func oneOf(s string, words ...string) bool {
	return s == "" || slices.Contains(words, strings.ToLower(s))
}

// settable says why a new session with the cookie c can have none: as unsettable, or
// because its time is over before it begins.
func (m *Manager) settable(c *filestore.Cookie, secure bool) error {
	if c.OriginalMaxAge < 0 {
		return fmt.Errorf("%w: it has expired; look at CookieOptions.Expires, which has passed, or at what the handler sets", ErrCookie)
	}
	return m.unsettable(c, secure)
}

// unsettable says why no browser would take c in the response to a request that came
// over TLS, if secure, or over plain HTTP: an ErrCookie if the settings or the server's surroundings are the cause. What a stored session
// has for attributes is checked as Node does: a session without its cookie rather than
// a header out of a file.
func (m *Manager) unsettable(c *filestore.Cookie, secure bool) error {
	if err := checkAttributes(c); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	why := m.refused(c)
	if c.Secure && !secure {
		why = "it is Secure, and the request came over plain HTTP"
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %s; behind a proxy that ends TLS set Manager.TrustProxy, for plain HTTP change CookieOptions.Secure, SameSite and Partitioned, or Manager.Name", ErrCookie, why)
}

// refused says which rule of browsers the cookie c breaks, "" if none. The rules are
// those of RFC 6265bis, 5.7, and of CHIPS.
func (m *Manager) refused(c *filestore.Cookie) string {
	name := strings.ToLower(m.name())
	host := strings.HasPrefix(name, "__host-")
	script := strings.HasPrefix(name, "__http-") || strings.HasPrefix(name, "__host-http-")
	switch {
	case c.Secure:
	case strings.EqualFold(c.SameSite, "none"):
		return "SameSite=None must be Secure"
	case c.Partitioned:
		return "Partitioned must be Secure"
	case host, script, strings.HasPrefix(name, "__secure-"):
		return "a name that begins with __Host-, __Secure- or __Http- must be Secure"
	}
	switch {
	case host && (c.Domain != "" || c.Path != "/"):
		return "a name that begins with __Host- must have the path / and no domain"
	case script && !c.HTTPOnly:
		return "a name that begins with __Http- or __Host-Http- must be HttpOnly"
	}
	return ""
}

// domainMatch is that of RFC 6265, 5.1.3, of the host of a request.
func domainMatch(host, domain string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host, domain = strings.ToLower(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// lookAround tells of a Manager around this one whose cookie takes the place of ours
// in the browser, and the other way round.
func (m *Manager) lookAround(s *Session) {
	for o := s.outer; o != nil; o = o.outer {
		if o.m.name() == m.name() && o.m.path() == m.path() && o.m.Cookie.Domain == m.Cookie.Domain {
			m.say(fmt.Errorf("session: two Managers within each other set the cookie %s for the path %s: give each a Name of its own", m.name(), m.path()))
		}
	}
}
