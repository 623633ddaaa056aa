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

// Sign returns value with its signature, as the npm package cookie-signature does:
// value, a dot, and the HMAC-SHA256 in base64 without padding. In express-session's
// cookies it follows the prefix "s:".
func Sign(value, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(value))
	return value + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// Unsign returns the value in signed, if one of the secrets has signed it. It compares
// in constant time and always tries all secrets.
func Unsign(signed string, secrets ...string) (value string, ok bool) {
	dot := strings.LastIndexByte(signed, '.')
	if dot < 0 {
		return "", false
	}
	for _, secret := range secrets {
		// Compare the text, as Node does: a MAC has several base64 encodings, and only the
		// canonical one counts.
		if hmac.Equal([]byte(Sign(signed[:dot], secret)), []byte(signed)) {
			ok = true
		}
	}
	if !ok {
		return "", false
	}
	return signed[:dot], true
}

// maxCookies is how many signed cookies of the name are tried. A browser sends several
// if they differ in path or domain, but seldom more than two or three.
const maxCookies = 8

// cookieIDs yields the ids in the request's session cookies that we have signed, in the
// order of the header. old says that the first secret did not sign it.
func (m *Manager) cookieIDs(r *http.Request) iter.Seq2[string, bool] {
	return func(yield func(id string, old bool) bool) {
		tried := 0
		for value := range cookieValues(r.Header["Cookie"], m.name()) {
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

// cookieValues yields the values of the cookies of a name in Cookie headers, read as the npm
// package cookie does: net/http refuses values that Node accepts. A value is
// percent-decoded once, and a plus stays a plus.
func cookieValues(headers []string, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, header := range headers {
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

// setCookie returns the session's Set-Cookie header.
func (s *Session) setCookie() string {
	return s.m.setCookie(encodeURIComponent("s:"+Sign(s.id, s.m.Secrets[0])), &s.Cookie)
}

// clearing returns the Set-Cookie header that takes the cookie from the browser again, if
// Logout has asked for it, or "".
func (s *Session) clearing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.clears || s.left {
		return ""
	}
	known := s.sentID != ""
	for range cookieValues(s.cookies, s.m.name()) {
		known = true
	}
	c := s.baseCookie
	if !known || checkAttributes(&c) != nil {
		return ""
	}
	c.Expires = time.Unix(0, 0)
	return s.m.setCookie("", &c)
}

// setCookie returns a Set-Cookie header with the attributes in Node's order. It also has
// Max-Age, which Node leaves out: browsers prefer it to Expires, and it does not depend on
// their clock.
func (m *Manager) setCookie(value string, c *filestore.Cookie) string {
	var b strings.Builder
	b.WriteString(m.name() + "=" + value)
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

// encodeURIComponent is the JavaScript function. No function of package url leaves the
// same characters alone.
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

// newCookie returns the cookie of a session that begins now.
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
		if secure && c.Secure { // browsers accept no other
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

// minSecret is the least length of a secret in bytes. It catches "" and "secret", not
// every secret that can be guessed.
const minSecret = 8

// check returns an error if with these settings no cookie would be safe, or none would
// arrive. The error shows no secret.
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
	case m.MaxPerUser < 0:
		return errors.New("Manager.MaxPerUser is negative")
	case slices.Contains(m.userPath(), ""):
		return fmt.Errorf("Manager.User %q has an empty part", m.User)
	case reserved(m.userPath()[0]):
		return fmt.Errorf("Manager.User %q is a reserved member", m.User)
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
	if why := m.brokenRule(&c); why != "" {
		return errors.New("no browser accepts the cookie: " + why)
	}
	return nil
}

// Browsers drop a cookie whose name and value have more than 4,096 bytes together, and
// ignore an attribute of more than 1,024. A signed id has up to 250 bytes,
// which percent-encoding may treble.
const (
	maxName      = 3000
	maxAttribute = 1024
)

// checkLife refuses a number that was meant as seconds: 3600 is 3.6 microseconds.
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

// checkNewCookie is checkCookie for a new session. It also returns an ErrCookie if the
// session's time is over before it begins.
func (m *Manager) checkNewCookie(c *filestore.Cookie, secure bool) error {
	if c.OriginalMaxAge < 0 {
		return fmt.Errorf("%w: it has expired; either CookieOptions.Expires has passed, or the handler has set a time in the past", ErrCookie)
	}
	return m.checkCookie(c, secure)
}

// checkCookie returns an error if no browser would accept c in the response to a request
// that came over TLS, if secure, or over plain HTTP. It is an ErrCookie if the settings
// or the proxy are the cause. Any other error is about an attribute that somebody has
// written into a stored session: as in Node such a session gets no cookie.
func (m *Manager) checkCookie(c *filestore.Cookie, secure bool) error {
	if err := checkAttributes(c); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	why := m.brokenRule(c)
	if c.Secure && !secure {
		why = "it is Secure, and the request came over plain HTTP"
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %s; behind a proxy that ends TLS set Manager.TrustProxy, for plain HTTP change CookieOptions.Secure, SameSite and Partitioned, or Manager.Name", ErrCookie, why)
}

// brokenRule returns the browsers' rule that the cookie c breaks, or "". The rules are
// those of RFC 6265bis, 5.7, and of CHIPS.
func (m *Manager) brokenRule(c *filestore.Cookie) string {
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

// domainMatch is the domain-match of RFC 6265, 5.1.3. host may have a port.
func domainMatch(host, domain string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host, domain = strings.ToLower(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// warnSameCookie warns of a Manager around this one if the browser cannot keep the
// cookies of both.
func (m *Manager) warnSameCookie(s *Session) {
	for o := s.outer; o != nil; o = o.outer {
		if o.m.name() == m.name() && o.m.path() == m.path() && o.m.Cookie.Domain == m.Cookie.Domain {
			m.warnOnce(fmt.Errorf("session: two nested Managers set the cookie %s for the path %s: give each its own Name", m.name(), m.path()))
		}
	}
}
