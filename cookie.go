package filestore

import (
	"strings"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
)

// A Cookie holds the attributes of the session's cookie, under express-session's names. As there,
// it is the loaded session's cookie that the browser is sent, not the server's configuration.
//
// The zero Cookie is written as express-session's default: no maxAge, httpOnly, path "/". Any other
// is written as it is: one with an OriginalMaxAge needs HTTPOnly and Path set as well. Members of a
// file's cookie that Cookie has no field for, and values that a field cannot tell apart (null,
// false and 0), stay as they are in the file until a field changes, as Expires does at each access of a
// session with a maxAge. A changed cookie is written as express-session writes it. Cookies can be
// compared with ==; two that were loaded from different texts are not equal.
type Cookie struct {
	// OriginalMaxAge is the session's life after each access. 0 = the store's TTL; the browser's cookie
	// then ends with the browser.
	OriginalMaxAge time.Duration

	// Expires is what the browser was told. It has no say in when the session ends.
	Expires time.Time

	HTTPOnly    bool
	Secure      bool
	Partitioned bool
	Path        string
	Domain      string
	SameSite    string // "strict", "lax", "none" or ""
	Priority    string // "low", "medium", "high" or ""

	raw string // the file's own text, if the fields would be written otherwise
}

// fields returns c without its text.
func (c *Cookie) fields() format.Cookie {
	return format.Cookie{OriginalMaxAge: c.OriginalMaxAge, Expires: c.Expires, HTTPOnly: c.HTTPOnly, Secure: c.Secure,
		Partitioned: c.Partitioned, Path: c.Path, Domain: c.Domain, SameSite: c.SameSite, Priority: c.Priority}
}

// unmarshalCookie reads the object raw.
func unmarshalCookie(raw string) Cookie {
	f := format.ParseCookie(raw)
	c := Cookie{f.OriginalMaxAge, f.Expires, f.HTTPOnly, f.Secure, f.Partitioned, f.Path, f.Domain, f.SameSite, f.Priority, ""}
	if string(f.JSON()) != raw {
		c.raw = strings.Clone(raw) // which is part of the whole document
	}
	return c
}

// marshal returns the text that the cookie was loaded from, if no field has changed since, and else what
// express-session would write.
func (c *Cookie) marshal() ([]byte, error) {
	if *c == (Cookie{}) {
		return format.DefaultCookie.JSON(), nil
	}
	f := c.fields()
	if err := f.Check(); err != nil {
		return nil, err
	}
	if c.raw != "" && f == format.ParseCookie(c.raw) {
		return []byte(c.raw), nil
	}
	return f.JSON(), nil
}
