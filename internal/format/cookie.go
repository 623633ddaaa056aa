package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Cookie is what a document's cookie object holds, see filestore.Cookie.
type Cookie struct {
	OriginalMaxAge time.Duration
	Expires        time.Time

	HTTPOnly, Secure, Partitioned    bool
	Path, Domain, SameSite, Priority string
}

// DefaultCookie is express-session's.
var DefaultCookie = Cookie{HTTPOnly: true, Path: "/"}

// ParseCookie reads the object raw. What it lacks is what express-session would supply.
func ParseCookie(raw string) Cookie {
	c := DefaultCookie
	for m := range Members(raw) {
		c.set(m.Name, m.Raw)
	}
	return c
}

// set sets the named field from its JSON text, which may be of any type.
func (c *Cookie) set(name, raw string) {
	text := func(field *string) {
		if s := String(raw); s != *field {
			*field = strings.Clone(s) // so that it does not keep the whole document
		}
	}
	switch name {
	case "originalMaxAge":
		c.OriginalMaxAge = MaxAge(raw)
	case "partitioned":
		c.Partitioned = True(raw)
	case "priority":
		text(&c.Priority)
	case "expires":
		t, err := time.Parse(time.RFC3339, String(raw))
		if c.Expires = t.UTC(); err != nil || !writable(t) {
			c.Expires = time.Time{}
		}
	case "secure":
		c.Secure = True(raw)
	case "httpOnly":
		c.HTTPOnly = True(raw)
	case "domain":
		text(&c.Domain)
	case "path":
		text(&c.Path)
	case "sameSite":
		if text(&c.SameSite); raw == "true" {
			c.SameSite = "strict"
		}
	}
}

// writable reports whether t has the form that all readers of expires know.
func writable(t time.Time) bool { y := t.UTC().Year(); return 0 <= y && y <= 9999 }

// Check returns why the cookie has no JSON that reads the same, or nil.
func (c *Cookie) Check() error {
	if !utf8.ValidString(c.Path + c.Domain + c.SameSite + c.Priority) {
		return errors.New("filestore: an attribute of the cookie is not UTF-8")
	}
	if !writable(c.Expires) {
		return fmt.Errorf("filestore: the cookie expires in the year %d", c.Expires.Year())
	}
	return nil
}

// JSON returns the cookie as express-session would write it.
func (c *Cookie) JSON() []byte {
	b := append(make([]byte, 0, 192), `{"originalMaxAge":`...)
	if age := c.OriginalMaxAge; age != 0 {
		ms := age.Milliseconds()
		if ms == 0 { // less than a millisecond must not become "none"
			ms = int64(max(-1, min(1, age)))
		}
		b = strconv.AppendInt(b, ms, 10)
	} else {
		b = append(b, "null"...)
	}
	flag := func(name string, v bool) {
		if v {
			b = append(b, `,"`+name+`":true`...)
		}
	}
	text := func(name, v string) {
		if v != "" {
			b = AppendString(append(b, `,"`+name+`":`...), v)
		}
	}
	flag("partitioned", c.Partitioned)
	text("priority", c.Priority)
	if c.Expires.IsZero() {
		b = append(b, `,"expires":null`...)
	} else {
		b = c.Expires.UTC().AppendFormat(b, `,"expires":"2006-01-02T15:04:05.000Z"`)
	}
	flag("secure", c.Secure)
	b = strconv.AppendBool(append(b, `,"httpOnly":`...), c.HTTPOnly)
	text("domain", c.Domain)
	if c.Path == "" { // without the member it would be read as "/"
		b = append(b, `,"path":null`...)
	}
	text("path", c.Path)
	text("sameSite", c.SameSite)
	return append(b, '}')
}
