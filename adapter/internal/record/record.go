// Package record keeps in session files what other session packages hand over: bytes that mean
// nothing here, under a key, for a time.
//
// The file is a session like any other, so that Node's reaper leaves it alone. Its cookie has the lifetime. Its
// member "data" has the bytes: as JSON if they are a JSON object, and in base64 otherwise. Its member "key" has the
// key if that is not the file's name.
package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessionfilestore/filestore"
)

// Forever is the life of a session that shall not end; longer lives are cut to it.
const Forever = 100 * 365 * 24 * time.Hour

const (
	dataMember = "data"
	keyMember  = "key"
	hashed     = "sha256-"
)

// ID returns the id of key's session: the key itself if it is like the ids that session packages make,
// and else its hash. Two keys never have the same id.
func ID(key string) string {
	if filestore.ValidID(key) && !strings.ContainsAny(key, ".,~") && !strings.HasPrefix(key, hashed) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hashed + hex.EncodeToString(sum[:])
}

// Put makes sess, which may be new, the session of key with data for life. A life of 0 is the
// store's TTL.
func Put(sess *filestore.Session, key string, data []byte, life time.Duration) error {
	sess.Cookie = cookie(life)
	var v any = base64.StdEncoding.EncodeToString(data)
	if object(data) {
		v = json.RawMessage(data)
	}
	err := sess.Put(dataMember, v)
	if raw, ok := v.(json.RawMessage); ok && err == nil {
		sess.Values[dataMember] = raw // Put has made it compact
	}
	if ID(key) != key && err == nil {
		err = sess.Put(keyMember, []byte(key)) // in base64, as a key need not be UTF-8
	}
	return err
}

func cookie(life time.Duration) filestore.Cookie {
	life = min(life, Forever)
	if up := life % time.Millisecond; up > 0 { // files have milliseconds, and nothing shall end early
		life += time.Millisecond - up
	}
	c := filestore.Cookie{OriginalMaxAge: life, HTTPOnly: true, Path: "/"}
	if life != 0 {
		c.Expires = time.Now().Add(life).Truncate(time.Millisecond)
	}
	return c
}

// object reports that data would come back from a member as it is.
func object(data []byte) bool {
	return len(data) > 1 && data[0] == '{' && data[len(data)-1] == '}' && utf8.Valid(data) && json.Valid(data)
}

// Data returns key's bytes in sess, in memory of their own, and false if it is not key's.
func Data(sess *filestore.Session, key string) (data []byte, ok bool, err error) {
	own, ok := Key(sess, ID(key))
	raw := sess.Values[dataMember]
	members := 1
	if ID(key) != key {
		members = 2
	}
	if !ok || own != key || raw == nil || len(sess.Values) != members { // a session with more members is somebody else's
		return nil, false, nil
	}
	if raw[0] == '{' {
		return raw, true, nil // a session that was loaded is the caller's own
	}
	var text *string // nil if it is null
	if err = json.Unmarshal(raw, &text); err == nil && text != nil {
		data, err = base64.StdEncoding.DecodeString(*text)
	}
	if err != nil || text == nil {
		return nil, false, corrupt(key, errors.New("data is not base64"))
	}
	return data, true, nil
}

func corrupt(key string, cause error) error {
	sum := sha256.Sum256([]byte(ID(key)))
	return &filestore.Error{Op: "get", ID: hex.EncodeToString(sum[:4]), Err: fmt.Errorf("%w: %w", filestore.ErrCorrupt, cause)}
}

// Unreadable reports that err will be the same next time, as the file is the cause. For its visitor there is no
// such session: otherwise every request of that browser would be answered with an error, the login too.
func Unreadable(err error) bool {
	return errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrDecrypt) || errors.Is(err, filestore.ErrTooLarge) ||
		errors.Is(err, filestore.ErrUnsafeFile) || errors.Is(err, fs.ErrPermission) // the system's own error for another user's file
}

// Key returns the key of the session id, and false if no key has that id.
func Key(sess *filestore.Session, id string) (key string, ok bool) {
	if !strings.HasPrefix(id, hashed) {
		return id, true
	}
	b, err := filestore.Value[[]byte](sess, keyMember)
	return string(b), err == nil && ID(string(b)) == id
}

// Get returns key's bytes; ok is false if there are none, or if their time is over.
func Get(ctx context.Context, s *filestore.Store, key string) (data []byte, ok bool, err error) {
	sess, err := s.Get(ctx, ID(key))
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return Data(sess, key)
}

// Set stores data under key for life, whatever was there.
func Set(ctx context.Context, s *filestore.Store, key string, data []byte, life time.Duration) error {
	sess := new(filestore.Session)
	if err := Put(sess, key, data, life); err != nil {
		return err
	}
	return s.Set(ctx, ID(key), sess)
}

// Create is Set for a key that is free. If it is not, the error is fs.ErrExist.
func Create(ctx context.Context, s *filestore.Store, key string, data []byte, life time.Duration) error {
	sess := new(filestore.Session)
	if err := Put(sess, key, data, life); err != nil {
		return err
	}
	return s.Create(ctx, ID(key), sess)
}

// Free returns fs.ErrExist if the key is taken, be it by a file that cannot be read.
func Free(ctx context.Context, s *filestore.Store, key string) error {
	_, err := s.Get(ctx, ID(key))
	if err == nil || Unreadable(err) {
		return fs.ErrExist
	}
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	return err
}

// Touch starts the life of the session again, unless it was used lately: see filestore.Store.Touch.
func Touch(ctx context.Context, s *filestore.Store, key string, life time.Duration) error {
	c := cookie(life)
	return s.Touch(ctx, ID(key), &c)
}

// Unchanged reports that sess is key's, that same finds its bytes equal to data, and that its deadline would move
// ahead by less than 1 % of life.
func Unchanged(sess *filestore.Session, key string, data []byte, life time.Duration, same func(a, b []byte) bool) bool {
	later := life - time.Until(sess.ExpiresAt(0))
	old, ok, err := Data(sess, key)
	return ok && err == nil && -time.Millisecond <= later && later < life/100 && same(old, data) // files have milliseconds
}

// Same reports whether a and b are encodings of the same values. The bytes alone do not tell: gob takes a
// map's members in any order, and even the length changes with it.
func Same[T any](a, b []byte, decode func([]byte) (T, error)) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := decode(a)
	if err != nil {
		return false
	}
	y, err := decode(b)
	return err == nil && reflect.DeepEqual(x, y)
}

// Background is ctx, or the background if a framework passes none.
func Background(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// Delete removes key's bytes. There need not be any.
func Delete(ctx context.Context, s *filestore.Store, key string) error {
	return s.Destroy(ctx, ID(key))
}

// All yields the sessions that have a key and bytes, in no order, and what could not be read as an error.
func All(ctx context.Context, s *filestore.Store) iter.Seq2[Entry, error] { return all(ctx, s, Data) }

func all(ctx context.Context, s *filestore.Store, read func(*filestore.Session, string) ([]byte, bool, error)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range s.All(ctx) {
			var r Entry
			if err == nil {
				var ok bool
				if r.Key, ok = Key(e.Session, e.ID); !ok {
					continue
				}
				if r.Data, ok, err = read(e.Session, r.Key); !ok { // damaged, or somebody else's
					continue
				}
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// An Entry is one of All's.
type Entry struct {
	Key  string
	Data []byte
}
