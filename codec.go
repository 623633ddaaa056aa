package filestore

import (
	"bytes"
	"encoding/json"
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

// A Session is what one file holds: the cookie's attributes, the time of the
// last access, and the application's members. It is not safe for concurrent
// use; every Get returns a Session of its own.
//
// The zero Session is empty and ready to use.
type Session struct {
	Cookie     Cookie
	LastAccess time.Time // in the file to the millisecond; Set, Touch and Update write the present

	// Values holds the application's members as JSON, byte for byte as they
	// stand in the file. Replace a value, do not change its bytes in place.
	// The names "cookie" and "__lastAccess" are the store's own.
	Values map[string]json.RawMessage

	assumed bool // LastAccess is not what the file says

	order []string // the members' names as the file had them, so that a rewrite moves none
}

// A Cookie holds the attributes of the session's cookie, under express-session's
// names. A loaded session's cookie decides what the browser is sent, not the
// server's configuration, as in express-session.
//
// The zero Cookie is written as express-session's default: no maxAge, httpOnly,
// path "/". Members of a file's cookie that Cookie has no field for, and values
// that a field cannot tell apart (null, false and 0), survive a round trip.
type Cookie struct {
	OriginalMaxAge time.Duration // life after each access; 0 = none of its own: the store's TTL rules, and the browser's cookie ends with the browser
	Expires        time.Time     // what the browser was told; it does not decide when the session ends
	HTTPOnly       bool
	Secure         bool
	Partitioned    bool
	Path           string
	Domain         string
	SameSite       string // "strict", "lax", "none" or ""
	Priority       string // "low", "medium", "high" or ""

	// The file's own text, kept only where the fields would be written
	// otherwise. A string, so that Cookies can be compared with ==.
	raw string
}

// A Codec stands between the JSON of a session and the bytes of its file.
// Decode must refuse what Encode did not make. Both may be called concurrently,
// must not keep their arguments, and must not put id or session data in errors.
type Codec interface {
	Encode(id string, doc []byte) ([]byte, error)
	Decode(id string, file []byte) ([]byte, error)
}

const (
	cookieMember     = "cookie"
	lastAccessMember = "__lastAccess"
)

// Put stores v, encoded as JSON, under key. It fails where v has no JSON form,
// and for the two names that are the store's own; the session is then unchanged.
func (s *Session) Put(key string, v any) error {
	if err := checkKey(key); err != nil {
		return err
	}
	raw, err := encodeJSON(v)
	if err != nil {
		return fmt.Errorf("filestore: put: %w", err)
	}
	if s.Values == nil {
		s.Values = make(map[string]json.RawMessage)
	}
	s.Values[key] = raw
	return nil
}

// Value returns the member key of s as a T. A missing key is the zero T; a
// member that is no T is an error of encoding/json.
func Value[T any](s *Session, key string) (T, error) {
	var v T
	raw, ok := s.Values[key]
	if !ok {
		return v, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("filestore: value: %w", err)
	}
	return v, nil
}

// ExpiresAt returns the instant after which the session has expired, for a
// store whose TTL is ttl: the cookie's OriginalMaxAge after the last access, or
// ttl where the cookie has none. Cookie.Expires has no say, as in
// session-file-store.
func (s *Session) ExpiresAt(ttl time.Duration) time.Time {
	return s.LastAccess.Add(s.life(ttl))
}

func (s *Session) life(ttl time.Duration) time.Duration {
	if s.Cookie.OriginalMaxAge != 0 {
		return s.Cookie.OriginalMaxAge
	}
	return ttl
}

// expired is session-file-store's rule: strictly later than the last
// millisecond, and at once where the life is nothing.
func (s *Session) expired(now time.Time, ttl time.Duration) bool {
	return s.life(ttl) <= 0 || s.ExpiresAt(ttl).Before(now.Truncate(time.Millisecond))
}

// date makes LastAccess trustworthy, so that no session is immortal: what the
// file does not say is when it was written, and what lies ahead by more than
// clocks differ is now. The reaper writes such an assumption down.
func (s *Session) date(now, mtime time.Time) {
	if s.LastAccess.IsZero() {
		s.LastAccess, s.assumed = mtime, true
	}
	if s.LastAccess.After(now.Add(clockSkew)) {
		s.LastAccess, s.assumed = now, true
	}
}

const clockSkew = 5 * time.Minute

// MarshalJSON returns the document that the session's file holds under a nil
// Codec: compact JSON in the member order that the file had, new members last.
func (s *Session) MarshalJSON() ([]byte, error) {
	buf := make([]byte, 0, 512)
	for _, key := range s.keys() {
		buf = append(buf, ',')
		var err error
		switch key {
		case cookieMember:
			buf = append(buf, `"cookie":`...)
			buf, err = s.Cookie.append(buf)
		case lastAccessMember:
			buf = append(buf, `"__lastAccess":`...)
			buf = strconv.AppendInt(buf, s.LastAccess.UnixMilli(), 10)
		default:
			buf, err = appendMember(buf, key, s.Values[key])
		}
		if err != nil {
			return nil, err
		}
	}
	buf[0] = '{'
	buf = append(buf, '}')
	// Values that are sound alone can nest too deep together with the document;
	// what could not be read again must not be written.
	if len(buf) > 2*maxDepth && !json.Valid(buf) {
		return nil, fmt.Errorf("filestore: values nest deeper than %d", maxDepth)
	}
	return buf, nil
}

// maxDepth is where encoding/json stops.
const maxDepth = 10_000

// keys lists the members to write: those that the file had where it had them,
// then the new ones, sorted; __lastAccess last of a new session, as Node does.
func (s *Session) keys() []string {
	keys := make([]string, 0, len(s.Values)+2)
	ordered := make(map[string]bool, len(s.order))
	for _, key := range s.order {
		ordered[key] = true
		if _, ok := s.Values[key]; ok || key == cookieMember || key == lastAccessMember && !s.LastAccess.IsZero() {
			keys = append(keys, key)
		}
	}
	if !ordered[cookieMember] {
		keys = append(keys, cookieMember)
	}
	old := len(keys)
	for key := range maps.Keys(s.Values) {
		if !ordered[key] {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys[old:])
	if !ordered[lastAccessMember] && !s.LastAccess.IsZero() {
		keys = append(keys, lastAccessMember)
	}
	return keys
}

func checkKey(key string) error {
	if key == cookieMember || key == lastAccessMember {
		return fmt.Errorf("filestore: the member %q is the store's own", key)
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("filestore: a member's name is not valid UTF-8")
	}
	return nil
}

func appendMember(buf []byte, key string, raw json.RawMessage) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	name, err := encodeJSON(key)
	if err != nil {
		return nil, err
	}
	buf = append(append(buf, name...), ':')
	if len(raw) == 0 {
		return append(buf, "null"...), nil
	}
	if !json.Valid(raw) {
		return nil, fmt.Errorf("filestore: a value of the session is not JSON")
	}
	return append(buf, raw...), nil
}

// encodeJSON is json.Marshal without its escaping of <, > and &, which Node
// does not do either.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// UnmarshalJSON reads what MarshalJSON and session-file-store write. A document
// that is not an object with a cookie object is ErrCorrupt. Of members that
// occur twice the last counts, as in Node; names are matched to the letter. A
// __lastAccess that is no sane number leaves LastAccess zero: the store then
// dates the session by its file.
func (s *Session) UnmarshalJSON(doc []byte) error {
	// encoding/json would match member names in any case and rewrite numbers
	// and lone surrogates, so it only judges here and members are cut out.
	if !json.Valid(doc) {
		return fmt.Errorf("%w: not JSON", ErrCorrupt)
	}
	if first := bytes.TrimLeft(doc, jsonSpace); first[0] != '{' {
		return fmt.Errorf("%w: not an object", ErrCorrupt)
	}
	n := Session{Values: make(map[string]json.RawMessage)}
	var cookie json.RawMessage
	seen := make(map[string]bool)
	for key, raw := range members(bytes.Clone(doc)) {
		switch key {
		case cookieMember:
			cookie = raw
		case lastAccessMember:
			n.LastAccess = decodeLastAccess(raw)
		default:
			n.Values[key] = raw
		}
		if !seen[key] {
			seen[key] = true
			n.order = append(n.order, key)
		}
	}
	if len(cookie) == 0 || cookie[0] != '{' {
		return fmt.Errorf("%w: no cookie object", ErrCorrupt)
	}
	n.Cookie = decodeCookie(cookie)
	*s = n
	return nil
}

// decodeLastAccess is zero for what Date.now cannot have returned.
func decodeLastAccess(raw json.RawMessage) time.Time {
	const maxDate = 8.64e15 // ECMAScript's last instant
	ms, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(ms >= 0 && ms <= maxDate) {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

const jsonSpace = " \t\r\n"

// members yields the members of the valid JSON object doc, whose bytes it shares.
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
			key := decodeString(doc[i:end])
			start := skip(skip(end) + 1)
			end = valueEnd(doc, start)
			if !yield(key, doc[start:end:end]) {
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
			continue
		case '}', ']':
			depth--
		default: // within a number or a literal; it ends before what cannot be part of one
			if i+1 < len(doc) && strings.IndexByte(jsonSpace+",:]}", doc[i+1]) < 0 {
				continue
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
}

// decodeString returns the JSON string raw, and "" for any other value.
func decodeString(raw []byte) string {
	if raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	json.Unmarshal(raw, &s) // anything but a string leaves ""
	return s
}

// A cookieField is one member that Cookie has a field for, in the order that
// express-session writes them. get returns the field's JSON, "" to leave the
// member out; set takes the member's, of whatever type it is.
type cookieField struct {
	name string
	get  func(*Cookie) string
	set  func(*Cookie, json.RawMessage)
}

var cookieFields = []cookieField{
	{"originalMaxAge",
		func(c *Cookie) string {
			if c.OriginalMaxAge == 0 {
				return "null"
			}
			ms := c.OriginalMaxAge.Milliseconds()
			if ms == 0 { // what is shorter than a millisecond must not become "none"
				ms = int64(max(-1, min(1, c.OriginalMaxAge)))
			}
			return strconv.FormatInt(ms, 10)
		},
		func(c *Cookie, raw json.RawMessage) { c.OriginalMaxAge = decodeMaxAge(raw) }},
	boolField("partitioned", func(c *Cookie) *bool { return &c.Partitioned }),
	stringField("priority", func(c *Cookie) *string { return &c.Priority }),
	{"expires",
		func(c *Cookie) string {
			if c.Expires.IsZero() {
				return "null"
			}
			return c.Expires.UTC().Format(`"` + jsDate + `"`)
		},
		func(c *Cookie, raw json.RawMessage) {
			c.Expires, _ = time.Parse(time.RFC3339, decodeString(raw))
		}},
	boolField("secure", func(c *Cookie) *bool { return &c.Secure }),
	{"httpOnly",
		func(c *Cookie) string { return strconv.FormatBool(c.HTTPOnly) },
		func(c *Cookie, raw json.RawMessage) { c.HTTPOnly = truthy(raw) }},
	stringField("domain", func(c *Cookie) *string { return &c.Domain }),
	stringField("path", func(c *Cookie) *string { return &c.Path }),
	{"sameSite",
		stringField("sameSite", func(c *Cookie) *string { return &c.SameSite }).get,
		func(c *Cookie, raw json.RawMessage) {
			c.SameSite = decodeString(raw)
			if string(raw) == "true" {
				c.SameSite = "strict"
			}
		}},
}

const jsDate = "2006-01-02T15:04:05.000Z" // Date.prototype.toJSON

func boolField(name string, field func(*Cookie) *bool) cookieField {
	return cookieField{name,
		func(c *Cookie) string {
			if !*field(c) {
				return ""
			}
			return "true"
		},
		func(c *Cookie, raw json.RawMessage) { *field(c) = truthy(raw) }}
}

func stringField(name string, field func(*Cookie) *string) cookieField {
	return cookieField{name,
		func(c *Cookie) string {
			if *field(c) == "" {
				return ""
			}
			raw, _ := encodeJSON(*field(c)) // a string always has a JSON form
			return string(raw)
		},
		func(c *Cookie, raw json.RawMessage) { *field(c) = decodeString(raw) }}
}

// truthy is JavaScript's notion for the values that a cookie's flag may have.
func truthy(raw json.RawMessage) bool {
	switch s := string(raw); s {
	case "true":
		return true
	case "false", "null", `""`:
		return false
	default:
		n, err := strconv.ParseFloat(s, 64)
		return err != nil || n != 0
	}
}

// decodeMaxAge follows JavaScript for numbers, null and booleans: null, false
// and 0 are none, true is 1 ms. Any other type is none too: Node would
// concatenate strings and let the session live for ever.
func decodeMaxAge(raw json.RawMessage) time.Duration {
	if string(raw) == "true" {
		return time.Millisecond
	}
	ms, err := strconv.ParseFloat(string(raw), 64)
	if err != nil && math.Abs(ms) <= math.MaxFloat64 { // an overflow is an infinity, not a failure
		return 0
	}
	ns := ms * float64(time.Millisecond)
	switch {
	case ns >= math.MaxInt64:
		return math.MaxInt64
	case ns <= math.MinInt64:
		return math.MinInt64
	case ns > 0 && ns < 1, ns < 0 && ns > -1: // a fraction of a nanosecond is not "none"
		return time.Duration(math.Copysign(1, ns))
	}
	return time.Duration(ns)
}

var defaultCookie = Cookie{HTTPOnly: true, Path: "/"}

// decodeCookie reads the object raw. Members that are missing get what
// express-session's Cookie would give them.
func decodeCookie(raw json.RawMessage) Cookie {
	c := defaultCookie
	for key, value := range members(raw) {
		if f := findField(key); f != nil {
			f.set(&c, value)
		}
	}
	if plain, err := c.append(nil); err != nil || !bytes.Equal(plain, raw) {
		c.raw = string(raw)
	}
	return c
}

func findField(name string) *cookieField {
	for i := range cookieFields {
		if cookieFields[i].name == name {
			return &cookieFields[i]
		}
	}
	return nil
}

// append writes the members that the cookie was loaded with, in their order,
// each with its old text unless its field has changed, then the rest.
func (c *Cookie) append(buf []byte) ([]byte, error) {
	if *c == (Cookie{}) {
		c = &defaultCookie
	}
	if y := c.Expires.UTC().Year(); !c.Expires.IsZero() && (y < 0 || y > 9999) {
		return nil, fmt.Errorf("filestore: the cookie's Expires is in the year %d", y)
	}
	old := make(map[string]json.RawMessage)
	var names []string
	was := defaultCookie
	if c.raw != "" {
		for key, raw := range members([]byte(c.raw)) {
			if _, ok := old[key]; !ok {
				names = append(names, key)
			}
			old[key] = raw
			if f := findField(key); f != nil {
				f.set(&was, raw)
			}
		}
	}
	for _, f := range cookieFields {
		if _, ok := old[f.name]; !ok && (c.raw == "" || f.get(c) != f.get(&was)) {
			names = append(names, f.name)
		}
	}
	start := len(buf)
	for _, name := range names {
		value := string(old[name])
		if f := findField(name); f != nil && (value == "" || f.get(c) != f.get(&was)) {
			value = f.get(c)
		}
		if value == "" {
			continue
		}
		key, err := encodeJSON(name)
		if err != nil {
			return nil, err
		}
		buf = append(append(append(append(buf, ','), key...), ':'), value...)
	}
	if len(buf) == start {
		return append(buf, "{}"...), nil
	}
	buf[start] = '{'
	return append(buf, '}'), nil
}
