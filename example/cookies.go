package main

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessionfilestore/filestore/session"
)

// This file handles cookies without a session, in the format of Express's res.cookie and
// res.clearCookie and of the npm package cookie-parser: values are percent-encoded, and
// a signed value is s: followed by the value and its signature.

// A jar has what cookie-parser calls req.cookies and req.signedCookies. Names with a wrong
// signature are apart, so that nobody takes one for a value.
type jar struct {
	Cookies map[string]string `json:"cookies"`
	Signed  map[string]string `json:"signedCookies"`
	Refused []string          `json:"refused"`
}

func (s *site) readCookies(r *http.Request) jar {
	j := jar{map[string]string{}, map[string]string{}, []string{}}
	seen := map[string]bool{cookieName: true} // the session's cookie is not shown
	for _, c := range r.Cookies() {
		if seen[c.Name] { // as in Node the first of several with one name counts
			continue
		}
		seen[c.Name] = true
		value := c.Value
		// Decoded as a path, not as a query: a plus stays a plus.
		if decoded, err := url.PathUnescape(value); err == nil && utf8.ValidString(decoded) {
			value = decoded
		}
		signed, ok := strings.CutPrefix(value, "s:")
		if !ok {
			j.Cookies[c.Name] = value
		} else if plain, ok := session.Unsign(signed, s.secret); ok {
			j.Signed[c.Name] = plain
		} else {
			j.Refused = append(j.Refused, c.Name)
		}
	}
	return j
}

func (s *site) cookies(w http.ResponseWriter, r *http.Request, _ string) error {
	if wantsJSON(r) {
		return writeJSON(w, http.StatusOK, s.readCookies(r))
	}
	return render(w, r, http.StatusOK, "cookies", s.readCookies(r))
}

// looksLikeID matches session ids. We sign nothing that looks like one: a signature does
// not say for which cookie it was made, so that the result could be used as a session
// cookie.
var looksLikeID = regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`)

const maxCookie = 3 << 10 // browsers drop cookies of more than 4 KiB, attributes included

func (s *site) setCookie(w http.ResponseWriter, r *http.Request, _ string) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	value := r.PostForm.Get("value")
	if r.PostForm.Get("signed") != "" {
		if looksLikeID.MatchString(value) {
			return fmt.Errorf("%w: a value that looks like a session id is not signed", errBadRequest)
		}
		value = "s:" + session.Sign(value, s.secret)
	}
	c := &http.Cookie{
		Name:     r.PostForm.Get("name"),
		Value:    url.PathEscape(value),
		Path:     "/",
		HttpOnly: true,
		Secure:   s.isSecure(r),
		SameSite: http.SameSiteLaxMode,
	}
	if c.Valid() != nil || c.Name == cookieName || len(c.Name)+len(c.Value) > maxCookie {
		return fmt.Errorf("%w: not a cookie that can be set here, or too long", errBadRequest)
	}
	http.SetCookie(w, c)
	return redirect(w, r, "/cookies")
}

func (s *site) clearCookie(w http.ResponseWriter, r *http.Request, _ string) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	name := r.PostForm.Get("name")
	if (&http.Cookie{Name: name}).Valid() != nil || name == cookieName {
		return fmt.Errorf("%w: not a cookie that can be cleared here", errBadRequest)
	}
	expire(w, name)
	return redirect(w, r, "/cookies")
}

// expire does what res.clearCookie(name) does. Browsers remove a cookie only if name, path
// and domain are as when it was set.
func expire(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", Expires: time.Unix(0, 0)})
}

// isSecure reports whether the client came over TLS, by the rules of
// session.Manager.TrustProxy.
func (s *site) isSecure(r *http.Request) bool {
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	return r.TLS != nil || s.trustProxy && strings.EqualFold(strings.TrimSpace(proto), "https")
}
