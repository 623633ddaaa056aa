// Package gorillastore keeps the sessions of github.com/gorilla/sessions in files, also for
// echo-contrib's session middleware (echo v4 and v5) and for goth (gothic.Store):
//
//	store := gorillastore.New(files, authenticationKey)
//	session, err := store.Get(r, "name")
//
// It takes the place of sessions.FilesystemStore. Sessions survive restarts and kill -9, and any
// number of processes may share the directory. The browser's cookie carries the id, signed, and
// encrypted where there is a second key; the file has the values as gob, so that types other than the
// basic ones need a gob.Register. What gob cannot encode fails in Save before anything is written.
// Each session name has a file of its own.
//
// A session lives for its Options.MaxAge after the last Save, in the file as in the browser. With a
// MaxAge of 0 the browser drops the cookie when it ends, and the file lives for the filestore.Store's
// TTL after the last access. (FilesystemStore deletes such a session.) The signature's own limit, in
// gorilla's stores 30 days whatever Options say, is off, so that a handler may give a session any
// MaxAge; [Store.MaxAge] sets one, which then holds for all.
//
// A loaded session is saved only where it still exists. If a logout has destroyed it meanwhile, or its
// time is over, Save stores nothing, leaves the cookie alone, as the browser may have got a newer one,
// and returns nil. Of two requests that change one session at the same moment the later wins, as
// gorilla saves whole sessions.
//
// At a login give the session a new id, so that one that somebody planted in the browser before is
// worth nothing:
//
//	session.ID = ""
//	err := session.Save(r, w) // stores the values under a new id, and removes the old file
//
// Of two requests that do so with one session at once only the first stores anything. The other way is
// to Save with a MaxAge of -1, which removes the session, set the MaxAge back, and Save again.
//
// As with gorilla's stores a new Session is returned beside every error, so that
// session, _ := store.Get(r, name) works. A cookie that no key has signed is securecookie's error. One
// whose session is gone is none: the session is new, and never gets the id that the client has
// sent. A file that cannot be read is filestore's error, such as filestore.ErrCorrupt: answer 500. It is
// not removed for that; but whoever ignores the error and saves replaces the browser's cookie.
package gorillastore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
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
	Options *sessions.Options    // of new and loaded sessions, each of which gets a copy

	files *filestore.Store

	// The ids of the Sessions in use, by their weak pointers: a Session has no room for the id that
	// it had before a handler changed it.
	ids sync.Map
}

// New returns a Store on s. The keys come in pairs, one to sign and one to encrypt the cookie, of which
// the latter may be nil or, in the last pair, left out; see sessions.NewCookieStore.
//
// The Options are FilesystemStore's, path "/" and 30 days, and moreover HttpOnly and SameSite=Lax. Set
// Secure where the site is served over TLS.
func New(s *filestore.Store, keyPairs ...[]byte) *Store {
	store := &Store{
		Codecs:  securecookie.CodecsFromPairs(keyPairs...),
		Options: &sessions.Options{Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode},
		files:   s,
	}
	store.MaxAge(0) // no limit for the signature: the file ends with its session
	store.Options.MaxAge = 86400 * 30
	return store
}

// MaxAge sets Options.MaxAge, and makes cookies invalid that are older than age seconds, those too
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

// New returns the request's session of this name, read anew. It is never nil, not with an error either.
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
	values, err := s.load(r.Context(), id)
	if errors.Is(err, filestore.ErrNotFound) {
		return session, nil
	}
	if err != nil {
		return session, fmt.Errorf("gorillastore: %w", err)
	}
	session.ID, session.Values, session.IsNew = id, values, false
	s.setStoredAs(session, id)
	return session, nil
}

func (s *Store) decode(name, value string) (id string, err error) {
	err = securecookie.DecodeMulti(name, value, &id, s.Codecs...)
	return id, err
}

func (s *Store) load(ctx context.Context, id string) (values map[any]any, err error) {
	sess, err := s.files.Get(ctx, record.ID(id))
	if err != nil {
		return nil, err
	}
	data, ok, err := record.Data(sess, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, filestore.ErrNotFound // somebody else's file
	}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&values); err != nil {
		return nil, fmt.Errorf("%w: its values: %w", filestore.ErrCorrupt, err)
	}
	if sess.Cookie.OriginalMaxAge == 0 {
		// No Save prolongs the life of a session that is only read, and no cookie limits it. That
		// this may fail, as on a full disk, is no reason to refuse what has been read.
		if err := s.files.Touch(ctx, record.ID(id), nil); errors.Is(err, filestore.ErrNotFound) {
			return nil, err
		}
	}
	return values, nil
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
	var data bytes.Buffer
	if err := gob.NewEncoder(&data).Encode(session.Values); err != nil {
		return "", fmt.Errorf("the session's values cannot be stored: %w", err)
	}
	id, old := session.ID, s.storedAs(session)
	if id == "" {
		id = newID()
	}
	value, err := securecookie.EncodeMulti(session.Name(), id, s.Codecs...) // before the file: the keys may be no good
	if err != nil {
		return "", err
	}
	life := time.Duration(min(int64(session.Options.MaxAge), int64(record.Forever/time.Second))) * time.Second
	if id == old || old == "" && session.ID != "" && !session.IsNew { // the latter is a copy of a loaded one
		err = record.Replace(ctx, s.files, id, data.Bytes(), life)
	} else {
		err = s.create(ctx, id, data.Bytes(), life, old)
	}
	if err != nil {
		return "", err
	}
	session.ID = id
	s.setStoredAs(session, id)
	return value, nil
}

func (s *Store) remove(ctx context.Context, r *http.Request, session *sessions.Session) error {
	ids := []string{session.ID, s.storedAs(session)}
	if r != nil {
		// One whose file could not be read has no id, but is to go like any other.
		if cookie, err := r.Cookie(session.Name()); err == nil {
			id, _ := s.decode(session.Name(), cookie.Value)
			ids = append(ids, id)
		}
	}
	for _, id := range slices.Compact(ids) {
		if id == "" {
			continue
		}
		if err := record.Delete(ctx, s.files, id); err != nil {
			return err
		}
	}
	session.ID, session.IsNew = "", true
	s.setStoredAs(session, "")
	return nil
}

// storedAs returns the id under which the session was loaded or last saved, "" if it was not.
func (s *Store) storedAs(session *sessions.Session) string {
	id, _ := s.ids.Load(weak.Make(session))
	text, _ := id.(string)
	return text
}

func (s *Store) setStoredAs(session *sessions.Session, id string) {
	key := weak.Make(session)
	if _, ok := s.ids.Swap(key, id); !ok {
		runtime.AddCleanup(session, func(key weak.Pointer[sessions.Session]) { s.ids.Delete(key) }, key)
	}
}

// create stores a new session, in place of the session old, if there is an old.
func (s *Store) create(ctx context.Context, id string, data []byte, life time.Duration, old string) error {
	err := record.Create(ctx, s.files, id, data, life)
	if err != nil || old == "" {
		return err
	}
	// A session that is logged out at this moment must not go on under a new id.
	_, ok, err := record.Take(ctx, s.files, old)
	if err == nil && !ok {
		err = filestore.ErrNotFound
	}
	if err != nil {
		return errors.Join(err, record.Delete(ctx, s.files, id))
	}
	return nil
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // crashes the program rather than return without 32 random bytes
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
}
