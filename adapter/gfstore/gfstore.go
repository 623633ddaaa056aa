// Package gfstore keeps the sessions of GoFrame, github.com/gogf/gf/v2, in files:
//
//	s := g.Server()
//	s.SetSessionStorage(gfstore.New(store))
//
// They survive restarts and kill -9, and any number of processes may share the directory. As with
// gsession.StorageFile a session's values are kept as JSON, which can be read in the file, and come
// back as strings, bools, [encoding/json.Number], maps and slices, which GoFrame's Var converts:
// r.Session.Get("n").Int(). What was changed without a Set is not stored.
//
// A session ends SessionMaxAge (0: the store's TTL) after it was last changed or, with values in it,
// used. A use writes only if the last one is at least [filestore.Options.TouchAfter] old. Of two
// requests that change one session at the same moment the later wins, as GoFrame stores whole sessions.
//
// A session that has been removed does not come back: GoFrame hands to SetSession the very map that
// it got of GetSession, so that a loaded session is told from a new one, and of a loaded one only what
// is still there is replaced. What a slow request has changed is dropped, and its RegenerateId is an
// [filestore.ErrNotFound]. (With StorageFile it brings the session back, and so does each logout by
// RemoveAll, empty.) What the request that removes all sets afterwards is a new session of the same id.
//
// Three things no storage can help, as GoFrame does not ask it:
//
//   - An id that is unknown is adopted from the client. Whoever plants a cookie knows the id of the
//     session that begins under it: call r.Session.RegenerateId(true) at login.
//   - ghttp makes ids of a hash of the client's address and headers, the time, and three random
//     characters. SetIdFunc before the first use of the session makes better ones; the second example
//     is a middleware for both.
//   - ghttp stores the session after it has sent the answer, and shows an error of that, such as a full
//     disk, in its debug mode alone. A handler that must know, or that redirects to where the session
//     is needed, calls r.Session.Close() first; it may be called more than once.
//
// A file that cannot be read is an error of the session's methods, with which the Must methods panic,
// and ghttp answers 500; the file stays.
package gfstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/gogf/gf/v2/container/gmap"
	"github.com/gogf/gf/v2/os/gsession"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// New returns a storage on s. It does not close s. The methods of single values return
// gsession.ErrorDisabled, as those of StorageFile: GoFrame then works on the map of GetSession.
func New(s *filestore.Store) gsession.Storage {
	return &storage{s: s, origins: make(map[weak.Pointer[gmap.StrAnyMap]]origin)}
}

type storage struct {
	gsession.StorageBase
	s *filestore.Store

	mu      sync.Mutex
	origins map[weak.Pointer[gmap.StrAnyMap]]origin // of the maps that requests have
}

// An origin says what session a map is of.
type origin struct {
	id         string
	generation string
	values     uintptr // the map within; GoFrame replaces it when it removes all
}

// generation is the member that tells a session from another, later one of the same id: GoFrame keeps
// the client's id after a logout.
const generation = "generation"

// New makes an id, for who uses gsession without ghttp.
func (s *storage) New(context.Context, time.Duration) (string, error) { return rand.Text(), nil }

// GetSession returns nil for a session that is missing or has expired, and for an id that is none.
// When a session ends was said when it was stored or used.
func (s *storage) GetSession(ctx context.Context, id string, _ time.Duration) (*gmap.StrAnyMap, error) {
	sess, err := s.s.Get(record.Background(ctx), record.ID(id))
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	doc, made, err := read(sess, id)
	if made == "" || err != nil {
		return nil, err
	}
	var values map[string]any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber() // as StorageFile, so that long integers stay what they were
	if err := dec.Decode(&values); err != nil || values == nil {
		return nil, fmt.Errorf("gfstore: %w: its data are no JSON object", filestore.ErrCorrupt)
	}
	data := gmap.NewStrAnyMapFrom(values, true)
	s.remember(data, id, made)
	return data, nil
}

// SetSession stores data, which is a new session's or what GetSession returned, and then perhaps
// under a new id.
func (s *storage) SetSession(ctx context.Context, id string, data *gmap.StrAnyMap, ttl time.Duration) error {
	ctx = context.WithoutCancel(record.Background(ctx)) // a client that has gone was told of what was done
	doc, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("gfstore: %w", err)
	}
	from, loaded := s.origin(data)
	switch {
	case loaded && from.id == id:
		err := s.s.Update(ctx, record.ID(id), func(sess *filestore.Session) error {
			if _, made, err := read(sess, id); made != from.generation || err != nil {
				return cmp.Or(err, filestore.ErrNotFound) // that one is gone, and this is another
			}
			return put(sess, id, doc, ttl, from.generation)
		})
		if errors.Is(err, filestore.ErrNotFound) {
			return nil // it was removed meanwhile
		}
		return err
	case loaded: // by RegenerateId
		old, err := s.s.Get(ctx, record.ID(from.id))
		if err != nil {
			return err
		}
		if _, made, err := read(old, from.id); made != from.generation || err != nil {
			return cmp.Or(err, fmt.Errorf("gfstore: %w", filestore.ErrNotFound))
		}
	case data.IsEmpty():
		return nil // after a logout, say
	}
	made, err := s.create(ctx, id, doc, ttl)
	if err == nil {
		s.remember(data, id, made)
	}
	return err
}

// create stores a session that was not loaded.
func (s *storage) create(ctx context.Context, id string, doc []byte, ttl time.Duration) (made string, err error) {
	made = rand.Text()
	fresh := new(filestore.Session)
	if err := put(fresh, id, doc, ttl, made); err != nil {
		return "", err
	}
	err = fs.ErrExist
	for i := 0; i < 3 && errors.Is(err, fs.ErrExist); i++ {
		if err = s.s.Create(ctx, record.ID(id), fresh); !errors.Is(err, fs.ErrExist) {
			break
		}
		// Another request of the same client came first, as neither found a session.
		taken := err
		err = s.s.Update(ctx, record.ID(id), func(sess *filestore.Session) error {
			_, first, err := read(sess, id)
			if first == "" || err != nil {
				return cmp.Or(err, taken)
			}
			made = first
			return put(sess, id, doc, ttl, made)
		})
		if errors.Is(err, filestore.ErrNotFound) { // and has gone again
			err = taken
		}
	}
	return made, err
}

// UpdateTTL renews a session that is still there.
func (s *storage) UpdateTTL(ctx context.Context, id string, ttl time.Duration) error {
	err := record.Touch(context.WithoutCancel(record.Background(ctx)), s.s, id, ttl)
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	return err
}

// RemoveAll destroys a session. There need not be one.
func (s *storage) RemoveAll(ctx context.Context, id string) error {
	ctx = context.WithoutCancel(record.Background(ctx)) // whoever has gone wants to be logged out all the same
	sess, err := s.s.Get(ctx, record.ID(id))
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, made, err := read(sess, id); made == "" || err != nil {
		return err // the id is the client's choice, and may name what is no session of GoFrame's
	}
	return record.Delete(ctx, s.s, id)
}

func (s *storage) remember(data *gmap.StrAnyMap, id, generation string) {
	p := weak.Make(data) // GoFrame does not tell when a request is over
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.origins[p]; !ok {
		runtime.AddCleanup(data, s.forget, p)
	}
	s.origins[p] = origin{id, generation, valuesOf(data)}
}

func (s *storage) forget(p weak.Pointer[gmap.StrAnyMap]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.origins, p)
}

// origin returns false for a map that is not of a stored session, or no longer: its request has
// removed all.
func (s *storage) origin(data *gmap.StrAnyMap) (origin, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.origins[weak.Make(data)]
	return o, ok && o.values == valuesOf(data)
}

func valuesOf(data *gmap.StrAnyMap) (p uintptr) {
	data.RLockFunc(func(m map[string]any) { p = reflect.ValueOf(m).Pointer() })
	return p
}

// read takes the generation out of sess, without which it is as record makes them, and returns "" if
// sess is none of ours.
func read(sess *filestore.Session, id string) (doc []byte, made string, err error) {
	made, err = filestore.Value[string](sess, generation)
	if made == "" || err != nil {
		return nil, "", nil
	}
	delete(sess.Values, generation)
	doc, ok, err := record.Data(sess, id)
	if !ok {
		return nil, "", err
	}
	return doc, made, nil
}

func put(sess *filestore.Session, id string, doc []byte, ttl time.Duration, made string) error {
	if err := record.Put(sess, id, doc, ttl); err != nil {
		return err
	}
	return sess.Put(generation, made)
}
