package filestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
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

	assumed bool      // LastAccess is not the file's, which lies ahead: see date
	from    *document // whose order of the members a rewrite keeps; nil = none
}

// A Codec stands between the JSON of a session and the bytes of its file. Packages kruptein and
// sealed have some that encrypt. Decode must refuse, with an ErrDecrypt, what Encode did not make;
// other errors are taken for a failure that may pass. Both may be called concurrently, must not keep
// their arguments, and must put neither the id nor session data in errors. If they can wait, see
// ContextCodec.
type Codec interface {
	Encode(id string, doc []byte) ([]byte, error)
	Decode(id string, file []byte) ([]byte, error)
}

// A ContextCodec is a Codec whose work can wait, as package kruptein's does for the keys of others. A
// Store calls these methods where its Codec has them. ctx is the operation's, and ends at the latest
// with the Store; what ends for it must return its error, and no ErrDecrypt: the file may be sound.
type ContextCodec interface {
	Codec
	EncodeContext(ctx context.Context, id string, doc []byte) ([]byte, error)
	DecodeContext(ctx context.Context, id string, file []byte) ([]byte, error)
}

// code has the Codec make something else of data, by the method that it has.
func (s *Store) code(ctx context.Context, id string, data []byte, plain func(c Codec, id string, data []byte) ([]byte, error),
	waits func(c ContextCodec, ctx context.Context, id string, data []byte) ([]byte, error)) ([]byte, error) {
	if s.opts.Codec == nil {
		return data, nil
	}
	c, ok := s.opts.Codec.(ContextCodec)
	if !ok {
		return plain(s.opts.Codec, id, data)
	}
	ctx, cancel := s.untilClose(ctx)
	defer cancel()
	data, err := waits(c, ctx, id, data)
	return data, s.closedOr(err)
}

// closedOr is err, unless it is that Close has ended a wait.
func (s *Store) closedOr(err error) error {
	if errors.Is(err, context.Canceled) && s.done.Err() != nil {
		return ErrClosed
	}
	return err
}

const (
	cookieMember     = "cookie"
	lastAccessMember = "__lastAccess"

	clockSkew = 5 * time.Minute
	maxDepth  = 10_000 // encoding/json reads no deeper
)

// Put stores v, encoded as JSON, under key. It fails if v has no JSON form, also if a string in it
// is not UTF-8 (store bytes as []byte), and for the two names that are reserved; the session is
// then unchanged.
func (s *Session) Put(key string, v any) error {
	raw, err := encodeJSON(v)
	if err == nil {
		err = checkText(v, raw)
	}
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
	return s.life(ttl) <= 0 || s.ExpiresAt(ttl).UnixMilli() < now.UnixMilli()
}

// date makes sure that no session lives for ever. A missing last access becomes the file's mtime. One
// that lies in the future by more than clockSkew becomes the file's ctime, or now if that is earlier;
// Touch and the reaper write it down.
func (s *Session) date(now time.Time, file version) {
	if s.LastAccess.IsZero() {
		s.LastAccess = time.Unix(0, file.mtime)
	}
	if s.LastAccess.After(now.Add(clockSkew)) {
		at := time.Unix(0, min(file.ctime, now.UnixNano()))
		s.LastAccess, s.assumed = at.Truncate(time.Millisecond), true
	}
}

// MarshalJSON returns the document that the session's file holds under a nil Codec: without space
// between the members, in the order that the file had, new members last; of a new session
// __lastAccess last, as Node writes it.
func (s *Session) MarshalJSON() ([]byte, error) {
	cookie, err := s.Cookie.marshal()
	if err != nil {
		return nil, err
	}
	size := len(cookie) + 64
	for name, raw := range s.Values {
		if err := checkKey(name); err != nil || raw != nil && !json.Valid(raw) {
			return nil, cmp.Or(err, errors.New("filestore: a value of the session is not JSON"))
		}
		size += len(name) + len(raw) + 8
	}
	buf := append(make([]byte, 0, size), '{')
	add := func(name string, raw []byte) {
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = append(appendString(buf, name), ':')
		if raw == nil {
			raw = []byte("null")
		}
		buf = append(buf, raw...)
	}
	fresh, dated := len(s.Values), s.LastAccess.IsZero()
	lastAccess := strconv.AppendInt(nil, s.LastAccess.UnixMilli(), 10)
	from := cmp.Or(s.from, newDocument)
	for name := range from.members() {
		raw, ok := s.Values[name]
		switch {
		case name == cookieMember:
			add(name, cookie)
		case name == lastAccessMember && !dated:
			add(name, lastAccess)
			dated = true
		case ok:
			add(name, raw)
			fresh--
		}
	}
	if fresh > 0 {
		old := make(map[string]bool, len(from.ends))
		for name := range from.members() {
			old[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(s.Values)) {
			if !old[name] {
				add(name, s.Values[name])
			}
		}
	}
	if !dated {
		add(lastAccessMember, lastAccess)
	}
	buf = append(buf, '}')
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

// appendString appends s as a JSON string.
func appendString(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			raw, _ := encodeJSON(s) // a string always has a JSON form
			return append(buf, raw...)
		}
	}
	return append(append(append(buf, '"'), s...), '"')
}

// encodeJSON is json.Marshal without its escaping of <, > and &, which Node does not do either.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// checkText fails if raw, which encodeJSON has made of v, does not hold all of v's strings: for
// bytes that are not UTF-8 encoding/json writes the escape of U+FFFD, without an error.
func checkText(v any, raw []byte) error {
	if !utf8.Valid(raw) || bytes.Contains(raw, []byte(`\ufffd`)) && !validText(reflect.ValueOf(v)) {
		return errors.New("filestore: a string is not UTF-8, which JSON cannot hold: use []byte")
	}
	return nil
}

// validText reports whether all strings that v holds are UTF-8. encoding/json has been through v,
// so there are no cycles.
func validText(v reflect.Value) bool {
	if !v.IsValid() {
		return true
	}
	switch t := v.Type(); {
	case t.Implements(reflect.TypeFor[json.Marshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()):
		return true // its JSON is its own, with escapes that it means
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && v.CanInterface():
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		return err != nil || utf8.Valid(text)
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return validText(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !validText(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for key, elem := range v.Seq2() {
			if !validText(key) || !validText(elem) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" && !validText(v.Field(i)) {
				return false
			}
		}
	}
	return true
}

// UnmarshalJSON reads what MarshalJSON and session-file-store write. A document that is not an
// object with a cookie object is ErrCorrupt. Of members that occur twice the last counts, as in
// Node; names are matched to the letter. A __lastAccess that is no sane number leaves LastAccess
// zero: the store then dates the session by its file.
func (s *Session) UnmarshalJSON(doc []byte) error {
	d, err := decode(doc)
	if err == nil {
		*s = Session{Cookie: d.cookie, LastAccess: d.lastAccess, from: d, Values: d.copyValues()}
	}
	return err
}

// A document is a decoded session that is shared and never changed: to callers go copies. Many are
// held, so it is packed.
type document struct {
	cookie        Cookie
	lastAccess    time.Time
	names, values string // of the members in order, each once, with nothing between; the store's own have an empty value
	ends          []ends

	file    string // its name
	version        // and its state
	settled bool   // it was read late enough after it was changed to go by its version
}

// ends are where a member's name and value end in those of its document; the next begin there.
type ends struct{ name, value uint32 }

// newDocument has what a new session's file begins with.
var newDocument = &document{names: cookieMember, ends: []ends{{name: uint32(len(cookieMember))}}}

// members yields the names, and where the values are.
func (d *document) members() iter.Seq2[string, [2]uint32] {
	return func(yield func(string, [2]uint32) bool) {
		var at ends
		for _, end := range d.ends {
			if !yield(d.names[at.name:end.name], [2]uint32{at.value, end.value}) {
				return
			}
			at = end
		}
	}
}

// size is d's approximate memory use in bytes.
func (d *document) size() int64 {
	return int64(len(d.names) + len(d.values) + len(d.cookie.raw) + 8*len(d.ends))
}

// copyValues returns the application's members, in bytes of their own.
func (d *document) copyValues() map[string]json.RawMessage {
	b := []byte(d.values)
	values := make(map[string]json.RawMessage, max(0, len(d.ends)-2)) // up to 8 a map is half as large
	for name, at := range d.members() {
		if at[0] < at[1] {
			values[name] = b[at[0]:at[1]:at[1]]
		}
	}
	return values
}

func decode(doc []byte) (*document, error) {
	// encoding/json would match names in any case and rewrite numbers and lone surrogates, so it
	// only judges, and the members are cut out of the text.
	if !json.Valid(doc) {
		return nil, fmt.Errorf("%w: not JSON", ErrCorrupt)
	}
	if bytes.TrimLeft(doc, jsonSpace)[0] != '{' {
		return nil, fmt.Errorf("%w: not an object", ErrCorrupt)
	}
	text := string(doc)
	var room [16]member
	order := room[:0]
	at := make(map[string]int)
	for m := range members(text) {
		i, twice := at[m.name]
		if twice && strings.Contains(m.name, "\ufffd") {
			return nil, fmt.Errorf("%w: names that are not Unicode, and alike", ErrCorrupt) // of which one would be lost
		}
		if !twice {
			i = len(order)
			at[m.name] = i
			order = append(order, m)
		}
		order[i] = m
	}
	own := func(name string) string {
		i, ok := at[name]
		if !ok {
			return ""
		}
		raw := order[i].raw
		order[i].raw = ""
		return raw
	}
	d := new(document)
	cookie := own(cookieMember)
	if !strings.HasPrefix(cookie, "{") {
		return nil, fmt.Errorf("%w: no cookie object", ErrCorrupt)
	}
	d.cookie = unmarshalCookie(cookie)
	const maxDate = 8.64e15 // the last instant of ECMAScript
	ms, err := strconv.ParseFloat(own(lastAccessMember), 64)
	if err == nil && ms >= 0 && ms <= maxDate {
		d.lastAccess = time.UnixMilli(int64(ms))
	}
	d.pack(order)
	return d, nil
}

func (d *document) pack(order []member) {
	var names, values int
	d.ends = make([]ends, len(order))
	for i, m := range order {
		names, values = names+len(m.name), values+len(m.raw)
		d.ends[i] = ends{uint32(names), uint32(values)}
	}
	var b strings.Builder
	b.Grow(names + values)
	for _, m := range order {
		b.WriteString(m.name)
	}
	for _, m := range order {
		b.WriteString(m.raw)
	}
	d.names, d.values = b.String()[:names], b.String()[names:]
}

const jsonSpace = " \t\r\n"

// A member of an object, its value as it stands in the object's text.
type member struct{ name, raw string }

// members yields the members of the valid JSON object doc.
func members(doc string) iter.Seq[member] {
	return func(yield func(member) bool) {
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
			if !yield(member{name, doc[i:end]}) {
				return
			}
			if i = skip(end); doc[i] == ',' {
				i = skip(i + 1)
			}
		}
	}
}

// valueEnd returns where the value that starts at doc[i] ends.
func valueEnd(doc string, i int) int {
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
func decodeString(raw string) string {
	if raw[0] == '"' && strings.IndexByte(raw, '\\') < 0 && utf8.ValidString(raw) {
		return raw[1 : len(raw)-1]
	}
	var s string
	json.Unmarshal([]byte(raw), &s)
	return s
}
