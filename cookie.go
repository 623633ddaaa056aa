package filestore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

var defaultCookie = Cookie{HTTPOnly: true, Path: "/"}

// plain returns the JSON of the cookie's fields, as express-session would write it.
func (c *Cookie) plain() []byte {
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
			b = format.AppendString(append(b, `,"`+name+`":`...), v)
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

// setField sets the named field from its JSON text, which may be of any type.
func (c *Cookie) setField(name, raw string) {
	text := func(field *string) {
		if s := format.String(raw); s != *field {
			*field = strings.Clone(s) // so that it does not keep the whole document
		}
	}
	switch name {
	case "originalMaxAge":
		c.OriginalMaxAge = format.MaxAge(raw)
	case "partitioned":
		c.Partitioned = format.True(raw)
	case "priority":
		text(&c.Priority)
	case "expires":
		t, err := time.Parse(time.RFC3339, format.String(raw))
		if c.Expires = t.UTC(); err != nil || !writable(t) {
			c.Expires = time.Time{}
		}
	case "secure":
		c.Secure = format.True(raw)
	case "httpOnly":
		c.HTTPOnly = format.True(raw)
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

// unmarshalCookie reads the object raw. What it lacks is what express-session would supply.
func unmarshalCookie(raw string) Cookie {
	c := defaultCookie
	for m := range format.Members(raw) {
		c.setField(m.Name, m.Raw)
	}
	if string(c.plain()) != raw {
		c.raw = strings.Clone(raw) // which is part of the whole document
	}
	return c
}

// writable reports whether t has the form that all readers of expires know.
func writable(t time.Time) bool { y := t.UTC().Year(); return 0 <= y && y <= 9999 }

// marshal returns the text that the cookie was loaded from, if no field has changed since, and else what
// express-session would write.
func (c *Cookie) marshal() ([]byte, error) {
	switch {
	case *c == Cookie{}:
		return defaultCookie.plain(), nil
	case !utf8.ValidString(c.Path + c.Domain + c.SameSite + c.Priority):
		return nil, errors.New("filestore: an attribute of the cookie is not UTF-8")
	case !writable(c.Expires):
		return nil, fmt.Errorf("filestore: the cookie expires in the year %d", c.Expires.Year())
	case c.raw != "" && *c == unmarshalCookie(c.raw):
		return []byte(c.raw), nil
	}
	return c.plain(), nil
}
