package filestore

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Session is what one file holds: the cookie's attributes, the time of the last access, and the
// application's members. It is not safe for concurrent use; every Get returns a Session of its own.
// The zero Session is empty and ready to use.
type Session struct {
	Cookie     Cookie
	LastAccess time.Time // in the file to the millisecond; Set, Touch and Update write the present instead

	// Values holds the application's members as JSON, byte for byte as they stand in the file.
	// Replace a value, do not change its bytes in place. The names "cookie" and "__lastAccess" are
	// the store's own.
	Values map[string]json.RawMessage

	assumed bool     // LastAccess is the present because the file's lies ahead: see date
	order   []string // the members' names as the file had them, so that a rewrite moves none
}

// A Cookie holds the attributes of the session's cookie, under express-session's names. As there,
// it is the loaded session's cookie that the browser is sent, not the server's configuration.
//
// The zero Cookie is written as express-session's default: no maxAge, httpOnly, path "/". Any other
// is written as it is: one with an OriginalMaxAge needs HTTPOnly and Path set as well. Members of a
// file's cookie that Cookie has no field for, and values that a field cannot tell apart (null,
// false and 0), survive a round trip. Cookies can be compared with ==.
type Cookie struct {
	OriginalMaxAge time.Duration // life after each access; 0 = none of its own, so the store's TTL, and the browser's cookie ends with the browser
	Expires        time.Time     // what the browser was told; it has no say in when the session ends
	HTTPOnly       bool
	Secure         bool
	Partitioned    bool
	Path           string
	Domain         string
	SameSite       string // "strict", "lax", "none" or ""
	Priority       string // "low", "medium", "high" or ""

	raw string // the file's own text, only where the fields would be written otherwise
}

// A Codec stands between the JSON of a session and the bytes of its file. Decode must refuse what
// Encode did not make. Both may be called concurrently, must not keep their arguments, and must put
// neither the id nor session data in errors.
type Codec interface {
	Encode(id string, doc []byte) ([]byte, error)
	Decode(id string, file []byte) ([]byte, error)
}

const (
	cookieMember     = "cookie"
	lastAccessMember = "__lastAccess"

	clockSkew = 5 * time.Minute
	maxDepth  = 10_000 // encoding/json reads no deeper
)

// Put stores v, encoded as JSON, under key. It fails where v has no JSON form, and for the two
// names that are the store's own; the session is then unchanged.
func (s *Session) Put(key string, v any) error {
	raw, err := encodeJSON(v)
	if err := cmp.Or(checkKey(key), err); err != nil {
		return err
	}
	if s.Values == nil {
		s.Values = make(map[string]json.RawMessage)
	}
	s.Values[key] = raw
	return nil
}

// Value returns the member key of s as a T. A missing key is the zero T; a member that is no T is
// an error, which does not show it.
func Value[T any](s *Session, key string) (T, error) {
	var v, zero T
	if raw, ok := s.Values[key]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return zero, fmt.Errorf("filestore: the member %q is no %T", key, v)
		}
	}
	return v, nil
}

// ExpiresAt returns the instant after which the session has expired, for a store whose TTL is ttl:
// the cookie's OriginalMaxAge after the last access, or ttl where the cookie has none. As in
// session-file-store Cookie.Expires has no say.
func (s *Session) ExpiresAt(ttl time.Duration) time.Time { return s.LastAccess.Add(s.life(ttl)) }

func (s *Session) life(ttl time.Duration) time.Duration {
	if s.Cookie.OriginalMaxAge != 0 {
		return s.Cookie.OriginalMaxAge
	}
	return ttl
}

// expired is session-file-store's rule: strictly later than the last millisecond, and at once where
// the life is nothing.
func (s *Session) expired(now time.Time, ttl time.Duration) bool {
	return s.life(ttl) <= 0 || s.ExpiresAt(ttl).Before(now.Truncate(time.Millisecond))
}

// date makes LastAccess trustworthy, so that no session is immortal: where the file does not say,
// it is when the file was written, and what lies ahead by more than clocks differ is now. Touch and
// the reaper write the latter down, or it would be assumed anew at each look.
func (s *Session) date(now, mtime time.Time) {
	if s.LastAccess.IsZero() {
		s.LastAccess = mtime
	}
	if s.LastAccess.After(now.Add(clockSkew)) {
		s.LastAccess, s.assumed = now.Truncate(time.Millisecond), true
	}
}

// MarshalJSON returns the document that the session's file holds under a nil Codec: without space
// between the members, in the order that the file had, new members last; of a new session
// __lastAccess last, as Node writes it.
func (s *Session) MarshalJSON() ([]byte, error) {
	all := make(map[string]json.RawMessage, len(s.Values)+2)
	for name, raw := range s.Values {
		if raw == nil {
			raw = json.RawMessage("null")
		}
		if err := checkKey(name); err != nil || !json.Valid(raw) {
			return nil, cmp.Or(err, errors.New("filestore: a value of the session is not JSON"))
		}
		all[name] = raw
	}
	cookie, err := s.Cookie.marshal()
	if err != nil {
		return nil, err
	}
	all[cookieMember] = cookie
	if !s.LastAccess.IsZero() {
		all[lastAccessMember] = strconv.AppendInt(nil, s.LastAccess.UnixMilli(), 10)
	}
	names := slices.Clone(s.order)
	if names == nil {
		names = []string{cookieMember}
	}
	buf := object(append(append(names, slices.Sorted(maps.Keys(s.Values))...), lastAccessMember), all)
	// Values that are sound alone can nest too deep together with the document; what could not be
	// read again must not be written.
	if len(buf) > 2*maxDepth && !json.Valid(buf) {
		return nil, fmt.Errorf("filestore: values nest deeper than %d", maxDepth)
	}
	return buf, nil
}

func checkKey(key string) error {
	if key == cookieMember || key == lastAccessMember {
		return fmt.Errorf("filestore: the member %q is the store's own", key)
	}
	if !utf8.ValidString(key) {
		return errors.New("filestore: a member's name is not UTF-8")
	}
	return nil
}

// object returns the JSON object of the members raw, each once, in the order of names. It uses raw up.
func object(names []string, raw map[string]json.RawMessage) []byte {
	buf := []byte{'{'}
	for _, name := range names {
		value, ok := raw[name]
		if !ok {
			continue
		}
		delete(raw, name)
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		key, _ := encodeJSON(name) // a string always has a JSON form
		buf = append(append(append(buf, key...), ':'), value...)
	}
	return append(buf, '}')
}

// encodeJSON is json.Marshal without its escaping of <, > and &, which Node does not do either.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// UnmarshalJSON reads what MarshalJSON and session-file-store write. A document that is not an
// object with a cookie object is ErrCorrupt. Of members that occur twice the last counts, as in
// Node; names are matched to the letter. A __lastAccess that is no sane number leaves LastAccess
// zero: the store then dates the session by its file.
func (s *Session) UnmarshalJSON(doc []byte) error {
	// encoding/json would match names in any case and rewrite numbers and lone surrogates, so it
	// only judges, and the members are cut out of the text.
	if !json.Valid(doc) {
		return fmt.Errorf("%w: not JSON", ErrCorrupt)
	}
	if bytes.TrimLeft(doc, jsonSpace)[0] != '{' {
		return fmt.Errorf("%w: not an object", ErrCorrupt)
	}
	n := Session{Values: make(map[string]json.RawMessage)}
	var cookie, lastAccess json.RawMessage
	for name, raw := range members(bytes.Clone(doc)) {
		old := n.Values[name]
		switch name {
		case cookieMember:
			old, cookie = cookie, raw
		case lastAccessMember:
			old, lastAccess = lastAccess, raw
		default:
			n.Values[name] = raw
		}
		if old == nil {
			n.order = append(n.order, name)
		}
	}
	if cookie == nil || cookie[0] != '{' {
		return fmt.Errorf("%w: no cookie object", ErrCorrupt)
	}
	n.Cookie = unmarshalCookie(cookie)
	const maxDate = 8.64e15 // the last instant of ECMAScript
	if ms, err := strconv.ParseFloat(string(lastAccess), 64); err == nil && ms >= 0 && ms <= maxDate {
		n.LastAccess = time.UnixMilli(int64(ms))
	}
	*s = n
	return nil
}

const jsonSpace = " \t\r\n"

// members yields the members of the valid JSON object doc, sharing its bytes.
func members(doc []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		skip := func(i int) int {
			for strings.IndexByte(jsonSpace, doc[i]) >= 0 {
				i++
			}
			return i
		}
		i := skip(skip(0) + 1)
		for doc[i] != '}' {
			end := valueEnd(doc, i)
			name := decodeString(doc[i:end])
			i = skip(skip(end) + 1)
			end = valueEnd(doc, i)
			if !yield(name, doc[i:end:end]) {
				return
			}
			if i = skip(end); doc[i] == ',' {
				i = skip(i + 1)
			}
		}
	}
}

// valueEnd returns where the value that starts at doc[i] ends.
func valueEnd(doc []byte, i int) int {
	depth := 0
	for ; ; i++ {
		switch doc[i] {
		case '"':
			for i++; doc[i] != '"'; i++ {
				if doc[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default: // a number or a literal goes on until something that cannot be part of it
			if strings.IndexByte(jsonSpace+",:]}", doc[i+1]) < 0 {
				continue
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
}

// decodeString returns the JSON string raw, "" for any other value.
func decodeString(raw []byte) string {
	if raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	json.Unmarshal(raw, &s)
	return s
}

var defaultCookie = Cookie{HTTPOnly: true, Path: "/"}

// plain returns the JSON of the cookie's fields, as express-session would write it.
func (c *Cookie) plain() []byte {
	j := struct {
		OriginalMaxAge *int64  `json:"originalMaxAge"`
		Partitioned    bool    `json:"partitioned,omitempty"`
		Priority       string  `json:"priority,omitempty"`
		Expires        *string `json:"expires"`
		Secure         bool    `json:"secure,omitempty"`
		HTTPOnly       bool    `json:"httpOnly"`
		Domain         string  `json:"domain,omitempty"`
		Path           string  `json:"path,omitempty"`
		SameSite       string  `json:"sameSite,omitempty"`
	}{nil, c.Partitioned, c.Priority, nil, c.Secure, c.HTTPOnly, c.Domain, c.Path, c.SameSite}
	if age := c.OriginalMaxAge; age != 0 {
		ms := age.Milliseconds()
		if ms == 0 { // less than a millisecond must not become "none"
			ms = int64(max(-1, min(1, age)))
		}
		j.OriginalMaxAge = &ms
	}
	if !c.Expires.IsZero() {
		expires := c.Expires.UTC().Format("2006-01-02T15:04:05.000Z")
		j.Expires = &expires
	}
	raw, _ := encodeJSON(j) // it has no values that could fail
	return raw
}

// setField is the way back: raw may be of any type.
func (c *Cookie) setField(name string, raw json.RawMessage) {
	switch name {
	case "originalMaxAge":
		c.OriginalMaxAge = decodeMaxAge(raw)
	case "partitioned":
		c.Partitioned = truthy(raw)
	case "priority":
		c.Priority = decodeString(raw)
	case "expires":
		t, err := time.Parse(time.RFC3339, decodeString(raw))
		if c.Expires = t.UTC(); err != nil || !writable(t) {
			c.Expires = time.Time{}
		}
	case "secure":
		c.Secure = truthy(raw)
	case "httpOnly":
		c.HTTPOnly = truthy(raw)
	case "domain":
		c.Domain = decodeString(raw)
	case "path":
		c.Path = decodeString(raw)
	case "sameSite":
		if c.SameSite = decodeString(raw); string(raw) == "true" {
			c.SameSite = "strict"
		}
	}
}

// truthy is JavaScript's, for what a cookie's flag may have become.
func truthy(raw json.RawMessage) bool {
	n, err := strconv.ParseFloat(string(raw), 64)
	return string(raw) != "false" && string(raw) != "null" && string(raw) != `""` && (err != nil || n != 0)
}

// decodeMaxAge follows JavaScript for numbers, null and booleans: null, false and 0 are none, true
// is 1 ms. Any other type is none too; Node would concatenate strings and let the session live for
// ever.
func decodeMaxAge(raw json.RawMessage) time.Duration {
	if string(raw) == "true" {
		return time.Millisecond
	}
	ms, _ := strconv.ParseFloat(string(raw), 64) // out of range it is an infinity, else 0
	ns := ms * float64(time.Millisecond)
	switch {
	case ns >= math.MaxInt64:
		return math.MaxInt64
	case ns <= math.MinInt64:
		return math.MinInt64
	case ns != 0 && math.Abs(ns) < 1: // a fraction of a nanosecond is not "none"
		return time.Duration(math.Copysign(1, ns))
	}
	return time.Duration(ns)
}

// unmarshalCookie reads the object raw. What it lacks is what express-session would supply.
func unmarshalCookie(raw json.RawMessage) Cookie {
	c := defaultCookie
	for name, value := range members(raw) {
		c.setField(name, value)
	}
	if !bytes.Equal(c.plain(), raw) {
		c.raw = string(raw)
		text, _ := c.marshal() // so that of equal cookies it is the same
		c.raw = string(text)
	}
	return c
}

// writable reports whether t has the form that all readers of expires know.
func writable(t time.Time) bool { y := t.UTC().Year(); return 0 <= y && y <= 9999 }

// marshal writes the members that the cookie was loaded with, each with its old text unless its
// field has changed, and then those of the other fields that have.
func (c *Cookie) marshal() ([]byte, error) {
	switch {
	case *c == Cookie{}:
		return defaultCookie.plain(), nil
	case !writable(c.Expires):
		return nil, fmt.Errorf("filestore: the cookie expires in the year %d", c.Expires.Year())
	case c.raw == "":
		return c.plain(), nil
	}
	loaded := defaultCookie
	var names []string
	texts := make(map[string]json.RawMessage)
	for name, raw := range members([]byte(c.raw)) {
		names, texts[name] = append(names, name), raw
		loaded.setField(name, raw)
	}
	was := maps.Collect(members(loaded.plain()))
	for name, raw := range members(c.plain()) {
		if !bytes.Equal(raw, was[name]) {
			names, texts[name] = append(names, name), raw
		}
		delete(was, name)
	}
	for name := range was { // a field that is empty now
		delete(texts, name)
	}
	return object(names, texts), nil
}
