// Package gorillastore keeps the sessions of github.com/gorilla/sessions in files, also for
// echo-contrib's session middleware (echo v4 and v5) and for goth (gothic.Store):
//
//	store := gorillastore.New(files, authenticationKey)
//	session, err := store.Get(r, "name")
//
// It takes the place of sessions.FilesystemStore. Sessions survive restarts and kill -9, and any
// number of processes may share the directory. The browser's cookie carries the id, signed, and
// encrypted if there is a second key. The file has the values as gob, so that types other than the
// basic ones need a gob.Register. What gob cannot encode fails in Save before anything is written.
// Each session name has a file of its own.
//
// A session lives for its Options.MaxAge after the last Save, in the file as in the browser. With a
// MaxAge of 0 the browser drops the cookie when it ends, and the file lives for the filestore.Store's
// TTL after the last access. (FilesystemStore deletes such a session.) The signature's own limit, in
// gorilla's stores 30 days whatever Options say, is off, so that a handler may give a session any
// MaxAge; [Store.MaxAge] sets one, which then holds for all.
//
// A loaded session is saved only if it still exists. If a logout has destroyed it meanwhile, or its
// time is over, Save stores nothing, leaves the cookie alone, as the browser may have got a newer one,
// and returns nil. Else it stores the keys of Values that the request has changed, also in place; all others
// stay as parallel requests have them by then, so that a slow request does not undo a logout that deletes
// a key. If nothing has changed it writes only if the last access is at least [filestore.Options.TouchAfter] old.
//
// At a login give the session a new id, so that an id which somebody planted in the browser before is
// worth nothing:
//
//	session.ID = ""
//	err := session.Save(r, w) // stores the values under a new id, and removes the old file
//
// Of two requests that do so with one session at once only the first stores anything. The other way is
// to Save with a MaxAge of -1, which removes the session, set the MaxAge back, and Save again; if the session
// was gone already, neither way stores anything.
//
// As with gorilla's stores a new Session is returned beside every error, so that
// session, _ := store.Get(r, name) works. A cookie that no key has signed is securecookie's error. A cookie
// whose session is gone is not an error: the session is new, and never gets the id that the client has
// sent. The same holds if a session cannot be read, as its file is damaged or encrypted otherwise, or has values of
// a type that gob does not know: the file stays, also after a logout, and the Logger is told each time. New returns
// an error of the filestore.Store, such as an I/O error: answer 500.
package gorillastore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// A Store is a sessions.Store. Its fields are to be set before the first request; after that it is
// safe for concurrent use, a Session is not. It does not close the filestore.Store.
type Store struct {
	Codecs  []securecookie.Codec // sign and encrypt the cookie: the first encodes, all decode
	Options *sessions.Options    // of new and loaded sessions; each gets a copy
	Logger  *slog.Logger         // told of files that cannot be read; nil = slog.Default()

	maps record.Maps[any]

	// What the Sessions in use were loaded or last saved as, by their weak pointers: a Session has no
	// room for it.
	copies sync.Map
}

// New returns a Store on s. The keys come in pairs, one to sign and one to encrypt the cookie. The
// latter may be nil or, in the last pair, left out; see sessions.NewCookieStore.
//
// The Options are FilesystemStore's, path "/" and 30 days, with HttpOnly and SameSite=Lax besides. Set
// Secure if the site is served over TLS.
func New(s *filestore.Store, keyPairs ...[]byte) *Store {
	store := &Store{
		Codecs:  securecookie.CodecsFromPairs(keyPairs...),
		Options: &sessions.Options{Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode},
		maps:    record.Maps[any]{Files: s, Encode: encode, Decode: decode},
	}
	store.MaxAge(0) // no limit for the signature: the file ends with its session
	store.Options.MaxAge = 86400 * 30
	return store
}

func encode(values map[any]any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(values)
	return b.Bytes(), err
}

func decode(data []byte) (values map[any]any, err error) {
	return values, gob.NewDecoder(bytes.NewReader(data)).Decode(&values)
}

// MaxAge sets Options.MaxAge, and makes cookies invalid that are older than age seconds, also those
// that were given out before; 0 is no limit. A handler may then choose only shorter lives.
func (s *Store) MaxAge(age int) {
	s.Options.MaxAge = age
	for _, codec := range s.Codecs {
		if sc, ok := codec.(*securecookie.SecureCookie); ok {
			sc.MaxAge(age)
		}
	}
}

// Get returns the request's session of this name, the same one whenever it is called in the request.
func (s *Store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New returns the request's session of this name, read again. It is never nil, even with an error.
func (s *Store) New(r *http.Request, name string) (*sessions.Session, error) {
	session := sessions.NewSession(s, name)
	opts := *s.Options
	session.Options, session.IsNew = &opts, true
	cookie, err := r.Cookie(name)
	if err != nil {
		return session, nil
	}
	id, err := s.decode(name, cookie.Value)
	if err != nil {
		return session, err // as it is: callers ask it for securecookie.Error
	}
	values, c, err := s.maps.Load(r.Context(), id)
	if err == nil && c.Life == 0 {
		// No Save prolongs the life of a session that is only read, and no cookie limits it. That
		// this may fail, as on a full disk, is no reason to refuse what has been read.
		if touch := s.maps.Files.Touch(r.Context(), record.ID(id), nil); errors.Is(touch, filestore.ErrNotFound) {
			err = touch
		}
	}
	switch {
	case err == nil:
		session.ID, session.Values, session.IsNew = id, values, false
		s.setCopy(session, c)
	case record.Unreadable(err):
		cmp.Or(s.Logger, slog.Default()).Warn("gorillastore: a session that cannot be read counts as none", "err", err)
	case !errors.Is(err, filestore.ErrNotFound):
		return session, fmt.Errorf("gorillastore: %w", err)
	}
	return session, nil
}

func (s *Store) decode(name, value string) (id string, err error) {
	err = securecookie.DecodeMulti(name, value, &id, s.Codecs...)
	return id, err
}

// Save stores the session and sets its cookie. With a negative Options.MaxAge it removes both. An ID
// that a handler has put in place of the session's becomes its id.
func (s *Store) Save(r *http.Request, w http.ResponseWriter, session *sessions.Session) error {
	ctx := context.Background()
	if r != nil {
		ctx = context.WithoutCancel(r.Context()) // a browser that has gone must not undo a logout
	}
	var value string
	var err error
	if session.Options.MaxAge < 0 {
		err = s.remove(ctx, r, session)
	} else {
		value, err = s.store(ctx, session)
	}
	if errors.Is(err, filestore.ErrNotFound) {
		return nil // it was destroyed meanwhile, and stays so
	}
	if err != nil {
		return fmt.Errorf("gorillastore: %w", err)
	}
	http.SetCookie(w, sessions.NewCookie(session.Name(), value, session.Options))
	return nil
}

// store returns the cookie's value.
func (s *Store) store(ctx context.Context, session *sessions.Session) (string, error) {
	id, c := cmp.Or(session.ID, newID()), s.copyOf(session)
	value, err := securecookie.EncodeMulti(session.Name(), id, s.Codecs...) // before the file: the keys may be no good
	if err != nil {
		return "", err
	}
	if !c.Stored() && session.ID != "" && !session.IsNew { // a copy of a loaded one: what was loaded is not known
		if _, c, err = s.maps.Load(ctx, id); err != nil {
			return "", err
		}
	}
	life := time.Duration(min(int64(session.Options.MaxAge), int64(record.Forever/time.Second))) * time.Second
	switch {
	case !c.Stored():
		c.Key = id
		err = s.maps.Create(ctx, c, session.Values, life)
	case c.Key == id:
		err = s.maps.Save(ctx, c, session.Values, life)
	default:
		err = s.maps.Move(ctx, c, id, session.Values, life)
	}
	if err != nil {
		return "", err
	}
	session.ID = id
	s.setCopy(session, c)
	return value, nil
}

func (s *Store) remove(ctx context.Context, r *http.Request, session *sessions.Session) error {
	c := s.copyOf(session)
	if c.Stored() {
		err := s.maps.Remove(ctx, c)
		if errors.Is(err, filestore.ErrNotFound) {
			return nil // the session stays as it is, and no Save stores it under a new id
		}
		if err != nil {
			return err
		}
	}
	if session.ID != "" && session.ID != c.Key {
		if err := record.Delete(ctx, s.maps.Files, session.ID); err != nil {
			return err
		}
	}
	if r != nil {
		// One that New could not load, as the store failed, has no id, but is to go like any other.
		if cookie, err := r.Cookie(session.Name()); err == nil {
			id, _ := s.decode(session.Name(), cookie.Value)
			_, _, err := s.maps.Load(ctx, id)
			if err == nil {
				err = record.Delete(ctx, s.maps.Files, id)
			}
			if err != nil && !errors.Is(err, filestore.ErrNotFound) && !record.Unreadable(err) { // the latter stays
				return err
			}
		}
	}
	session.ID, session.IsNew = "", true
	s.setCopy(session, new(record.Copy))
	return nil
}

// copyOf returns what the session was loaded or last saved as, or a Copy of none.
func (s *Store) copyOf(session *sessions.Session) *record.Copy {
	if c, ok := s.copies.Load(weak.Make(session)); ok {
		return c.(*record.Copy)
	}
	return new(record.Copy)
}

func (s *Store) setCopy(session *sessions.Session, c *record.Copy) {
	key := weak.Make(session)
	if _, ok := s.copies.Swap(key, c); !ok {
		runtime.AddCleanup(session, func(key weak.Pointer[sessions.Session]) { s.copies.Delete(key) }, key)
	}
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // crashes the program rather than return without 32 random bytes
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
}
