package filestore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
)

// A Session is what one file holds: the cookie's attributes, the time of the last access, and the
// application's members. It is not safe for concurrent use; every Get returns a Session of its own.
// The zero Session is empty and ready to use.
type Session struct {
	Cookie Cookie

	// LastAccess is in the file to the millisecond. Set, Touch and Update write the present instead; see NoTouch.
	LastAccess time.Time

	// Created is when the session began, in the file to the millisecond. It is zero for a session that only
	// Node has written, and for one that is not stored yet: the next write then sets it to the present.
	Created time.Time

	// Values holds the application's members as JSON, byte for byte as they stand in the file.
	// Replace a value, do not change its bytes in place. The names "cookie", "__lastAccess" and "__created"
	// are reserved.
	Values map[string]json.RawMessage

	// NoTouch makes a write of this Session by Set or Update no access: LastAccess stays as it is, and with it
	// the session's end. It is not in the file, and false in each Session that a Store returns.
	NoTouch bool

	assumed  bool          // LastAccess is not the file's, which lies in the future
	from     *document     // a rewrite keeps its order of the members; nil = none
	lifetime time.Duration // Options.Lifetime of the Store that it comes from
}

// A Codec stands between the JSON of a session and the bytes of its file. Packages kruptein and
// sealed have some that encrypt. Decode must return an error wrapping ErrDecrypt for anything that
// Encode did not produce; other errors count as temporary. Both must be safe for concurrent use, must
// not keep their arguments, and must put neither the id nor session data in errors. If they can wait,
// see ContextCodec.
type Codec interface {
	Encode(id string, doc []byte) ([]byte, error)
	Decode(id string, file []byte) ([]byte, error)
}

// A ContextCodec is a Codec whose work can wait, as package kruptein's does for its turn to derive a
// key. If a Codec has these methods, a Store calls them. ctx is the operation's, and ends with the Store
// at the latest. A method that ends with ctx must return ctx's error and not ErrDecrypt: the file may be
// sound.
type ContextCodec interface {
	Codec
	EncodeContext(ctx context.Context, id string, doc []byte) ([]byte, error)
	DecodeContext(ctx context.Context, id string, file []byte) ([]byte, error)
}

// Put stores v, encoded as JSON, under key. It fails if v has no JSON form, also if a string in it
// is not UTF-8 (store bytes as []byte), and for the names that are reserved; the session is
// then unchanged.
func (s *Session) Put(key string, v any) error {
	raw, err := format.Encode(v)
	if err := cmp.Or(checkKey(key), err); err != nil {
		return err
	}
	if s.Values == nil {
		s.Values = make(map[string]json.RawMessage)
	}
	s.Values[key] = raw
	return nil
}

// Value returns the member key of s as a T. A missing key is the zero T. A member that is not a T is
// an error, which does not show the member.
func Value[T any](s *Session, key string) (T, error) {
	var v, zero T
	if raw, ok := s.Values[key]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return zero, fmt.Errorf("filestore: member %q is not a %T", key, v)
		}
	}
	return v, nil
}

// ExpiresAt returns the instant after which the session has expired, for a store whose TTL is ttl:
// the cookie's OriginalMaxAge after the last access, or ttl if the cookie has none. If the session comes
// from a Store with a Lifetime, it ends at the latest when that has passed since Created. As in
// session-file-store, Cookie.Expires has no say.
func (s *Session) ExpiresAt(ttl time.Duration) time.Time { return s.LastAccess.Add(s.life(ttl)) }

func (s *Session) life(ttl time.Duration) time.Duration {
	return format.Capped(format.Life(s.Cookie.OriginalMaxAge, ttl), s.LastAccess, s.Created, s.lifetime)
}

// Size returns the length in bytes of the document that s was read from: that of its file if there is no Codec. It is 0
// for a session that was not read.
func (s *Session) Size() int {
	if s.from == nil {
		return 0
	}
	return s.from.size
}

// MarshalJSON returns the document that the session's file holds under a nil Codec: without space
// between the members, in the order that the file had, new members last. In a new session __lastAccess
// is last, as Node writes it.
func (s *Session) MarshalJSON() ([]byte, error) { return s.document(s.LastAccess) }

// Document is MarshalJSON without __lastAccess. That is the form of the stores that keep a session's end
// beside it: those of Express for Redis, PostgreSQL, MySQL and MongoDB. UnmarshalJSON reads it too, and
// leaves LastAccess zero.
func (s *Session) Document() ([]byte, error) { return s.document(time.Time{}) }

// document leaves out the last access if it is zero.
func (s *Session) document(lastAccess time.Time) ([]byte, error) {
	cookie, err := s.Cookie.marshal()
	if err != nil {
		return nil, err
	}
	for name, raw := range s.Values {
		if err := checkKey(name); err != nil {
			return nil, err
		}
		if raw != nil && !json.Valid(raw) {
			return nil, errors.New("filestore: a value of the session is not JSON")
		}
	}
	var order *format.Document
	if s.from != nil {
		order = &s.from.members
	}
	return order.Join(format.Parts{Cookie: string(cookie), LastAccess: lastAccess, Created: s.Created}, s.Values)
}

func checkKey(key string) error {
	if key == format.CookieMember || key == format.LastAccessMember || key == format.CreatedMember {
		return fmt.Errorf("filestore: the member %q is reserved", key)
	}
	if !utf8.ValidString(key) {
		return errors.New("filestore: a member's name is not UTF-8")
	}
	return nil
}

// UnmarshalJSON reads what MarshalJSON and session-file-store write. A document that is not an
// object with a cookie object is ErrCorrupt. Of members that occur twice the last counts, as in
// Node; names are matched to the letter. A __lastAccess that is not a sane number leaves LastAccess
// zero: the store then dates the session by its file.
func (s *Session) UnmarshalJSON(doc []byte) error {
	d, err := decode(doc)
	if err != nil {
		return err
	}
	*s = Session{Cookie: d.cookie, LastAccess: d.lastAccess, Created: d.created, from: d, Values: d.members.Values()}
	return nil
}

// An origin is the file that a document was read from. It is zero if there is none.
type origin struct {
	name string
	disk.Seen
}

// A document is a decoded session that is shared and never changed: callers get copies.
type document struct {
	cookie     Cookie
	lastAccess time.Time
	created    time.Time
	members    format.Document
	size       int // of the text that it was decoded from
	origin     origin
}

func decode(doc []byte) (*document, error) {
	members, p, err := format.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return &document{cookie: unmarshalCookie(p.Cookie), lastAccess: p.LastAccess, created: p.Created, members: members, size: len(doc)}, nil
}
