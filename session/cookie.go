package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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

// cookieID returns the id in the request's session cookie, "" if there is none
// that we have signed.
func (m *Manager) cookieID(r *http.Request) string {
	signed, ok := strings.CutPrefix(cookieValue(r, m.name()), "s:")
	if !ok {
		return ""
	}
	id, _ := Unsign(signed, m.Secrets...)
	return id
}

// cookieValue reads the request's cookies as the npm package cookie does: the
// first of a name counts, and its value is percent-decoded once, not
// query-decoded: a plus stays a plus. net/http refuses values that Node accepts.
func cookieValue(r *http.Request, name string) string {
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
				return decoded
			}
			return value
		}
	}
	return ""
}

// setCookie adds the session's cookie to the header, attributes in Node's order,
// never with Max-Age. What the stored session has for attributes is checked as
// Node does: a session without its cookie rather than a header out of a file.
func (s *Session) setCookie(h http.Header) error {
	c := &s.Cookie
	if err := checkAttributes(c); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(s.m.name() + "=" + encodeURIComponent("s:"+Sign(s.id, s.m.Secrets[0])))
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
	h.Add("Set-Cookie", b.String())
	return nil
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
func (m *Manager) newCookie(r *http.Request) filestore.Cookie {
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
		c.OriginalMaxAge = o.Expires.Sub(time.Now().Truncate(time.Millisecond)) // renew adds it to such a time again
	}
	secure := m.isSecure(r)
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
		if secure {
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
		return fmt.Errorf("Manager.Name %q is no cookie name", m.Name)
	case m.path()[0] != '/':
		return fmt.Errorf("CookieOptions.Path %q does not start with /", o.Path)
	case o.MaxAge < 0:
		return errors.New("CookieOptions.MaxAge is negative")
	case o.Secure < SecureAuto || o.Secure > SecureNever:
		return fmt.Errorf("CookieOptions.Secure is %d", o.Secure)
	case o.SameSite < SameSiteAuto || o.SameSite > http.SameSiteNoneMode:
		return fmt.Errorf("CookieOptions.SameSite is %d", o.SameSite)
	}
	never := o.Secure == SecureNever
	switch {
	case strings.HasPrefix(m.name(), "__Host-") && (never || o.Domain != "" || m.path() != "/"):
		return errors.New("a __Host- cookie must be secure, for the path / and without a domain")
	case strings.HasPrefix(m.name(), "__Secure-") && never:
		return errors.New("a __Secure- cookie must be secure")
	}
	return checkAttributes(&filestore.Cookie{Path: o.Path, Domain: o.Domain, Priority: o.Priority})
}

func checkAttributes(c *filestore.Cookie) error {
	switch {
	case c.Domain != "" && !domainRE.MatchString(c.Domain):
		return fmt.Errorf("the cookie's domain %q is none", c.Domain)
	case !pathRE.MatchString(c.Path):
		return fmt.Errorf("the cookie's path %q is none", c.Path)
	case !oneOf(c.Priority, "low", "medium", "high"):
		return fmt.Errorf("the cookie's priority %q is none", c.Priority)
	case !oneOf(c.SameSite, "strict", "lax", "none"):
		return fmt.Errorf("the cookie's sameSite %q is none", c.SameSite)
	}
	return nil
}

// oneOf also takes "", and any case, as the npm package cookie does.
func oneOf(s string, words ...string) bool {
	return s == "" || slices.Contains(words, strings.ToLower(s))
}
