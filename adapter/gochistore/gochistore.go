// Package gochistore keeps the sessions of gitea.com/go-chi/session, Gitea's and Forgejo's middleware, in
// a filestore.Store:
//
//	gochistore.Register("filestore", store)
//	sessioner, err := session.Sessioner(session.Options{Provider: "filestore"})
//
// The framework's contract holds, and of filestore's promises those for single sessions: a reader sees
// one complete version, where the framework's file provider takes a half-written file for an empty
// session; what was stored stays, and what was destroyed stays away, also when the request that destroyed
// a session, or a slower one, releases it at its end.
//
//   - Read makes the session that it does not find, at once and empty, as the framework's providers do, so
//     that Release only ever replaces what still exists. The middleware reads only ids that it has just
//     made up, or that exist: it adopts none of a client's choosing. A session that ends between those two
//     looks begins anew under its id, empty; session.Store.Read makes whatever id the program asks for.
//   - Release, which the middleware calls at the end of each request, writes nothing where the session is
//     as it was loaded; it moves the deadline, which filestore.Options.TouchAfter spares most writes. A
//     session lives for Options.Maxlifetime seconds after its last Release. One that was emptied is stored
//     as empty: the framework's file provider leaves the old values in the file. Parallel requests that
//     change one session do not merge: the last Release wins, as the framework has it, but requests that
//     change nothing undo nothing.
//   - Exist never fails: a session that cannot be read, as its file is damaged, exists, and Read tells the
//     error, for which the middleware answers 500. It logs errors of Release.
//   - Regenerate refuses an id that is taken.
//   - Count reads each session, and does not count those of other programs.
//   - GC is Store.Reap; the framework goes on calling it after the Store was closed, to no effect.
//
// The Store stays its owner's to close. Options.ProviderConfig has no meaning here.
package gochistore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"sync"
	"time"

	"gitea.com/go-chi/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// Register makes s the provider name of session.Options. As session.RegisterFn it panics where the name is
// taken, for names are for the whole program and for good, and must not be called concurrently.
func Register(name string, s *filestore.Store) {
	if s == nil {
		panic("gochistore: the Store is nil")
	}
	session.RegisterFn(name, func() session.Provider { return &provider{files: s} })
}

// The interface has no context; waits are bound by Options.LockTimeout.
var ctx = context.Background()

type provider struct {
	files *filestore.Store
	life  time.Duration
}

// Init sets the life of a session, in seconds.
func (p *provider) Init(maxLifetime int64, _ string) error {
	if maxLifetime <= 0 {
		return errors.New("gochistore: the maximal lifetime is not positive")
	}
	p.life = time.Duration(min(maxLifetime, int64(record.Forever/time.Second))) * time.Second
	return nil
}

// Read returns the session sid, and makes it where there is none. A session that is made in Release only
// would not exist for the next request, of which the framework would then regenerate, or destroy, the
// wrong one.
func (p *provider) Read(sid string) (session.RawStore, error) {
	data, ok, err := record.Get(ctx, p.files, sid)
	if err == nil && !ok {
		if data, err = empty(); err == nil {
			err = p.create(sid, data)
		}
	}
	if errors.Is(err, fs.ErrExist) { // somebody else just made it, or it is no session of ours
		var again error
		if data, ok, again = record.Get(ctx, p.files, sid); ok || again != nil {
			err = again
		}
	}
	if err != nil {
		return nil, wrap(err)
	}
	return p.open(sid, data)
}

func empty() ([]byte, error) { return session.EncodeGob(map[interface{}]interface{}{}) }

func (p *provider) create(sid string, data []byte) error {
	return record.Create(ctx, p.files, sid, data, p.life)
}

func (p *provider) open(sid string, data []byte) (session.RawStore, error) {
	values, err := session.DecodeGob(data)
	if err != nil {
		return nil, fmt.Errorf("gochistore: decode: %w", err)
	}
	return &rawStore{p: p, sid: sid, values: values, data: data}, nil
}

// Exist is true where Read will find a session, or fail: so the middleware, which gives out a new session
// where there is none, gets to know the error.
func (p *provider) Exist(sid string) (bool, error) {
	_, ok, err := record.Get(ctx, p.files, sid)
	return ok || err != nil, nil
}

// Destroy removes the session sid. There need not be one.
func (p *provider) Destroy(sid string) error {
	return wrap(record.Delete(ctx, p.files, sid))
}

// Regenerate moves the session oldsid to sid, which must be free. Where there is none, an empty one begins.
func (p *provider) Regenerate(oldsid, sid string) (session.RawStore, error) {
	if oldsid == sid {
		return nil, wrap(fs.ErrExist)
	}
	data, ok, err := p.values(oldsid)
	if err == nil {
		_, err = session.DecodeGob(data) // what cannot be decoded stays where it is
	}
	if err == nil {
		err = p.create(sid, data) // first, so that whatever happens the values are in one of them
	}
	if err != nil {
		return nil, wrap(err)
	}
	if ok {
		// Another request may have changed the old session meanwhile, or destroyed it: a logout.
		now, ok, err := record.Take(ctx, p.files, oldsid)
		if err == nil && !ok {
			now, err = empty()
		}
		if err == nil && !bytes.Equal(now, data) {
			data = now
			err = record.Replace(ctx, p.files, sid, data, p.life)
		}
		if err != nil { // two ids for one session are one too many
			return nil, wrap(errors.Join(err, record.Delete(ctx, p.files, sid)))
		}
	}
	return p.open(sid, data)
}

// values returns the bytes of the session sid; none has those of an empty one.
func (p *provider) values(sid string) (data []byte, ok bool, err error) {
	if data, ok, err = record.Get(ctx, p.files, sid); err == nil && !ok {
		data, err = empty()
	}
	return data, ok, err
}

// Count returns the number of sessions that are alive.
func (p *provider) Count() (n int, err error) {
	for _, err := range record.All(ctx, p.files) {
		if err != nil {
			return 0, wrap(err)
		}
		n++
	}
	return n, nil
}

// GC removes the sessions that have expired.
func (p *provider) GC() {
	if _, err := p.files.Reap(ctx); err != nil && !errors.Is(err, filestore.ErrClosed) {
		log.Print("gochistore: ", err) // as the framework's providers, which have nobody to tell either
	}
}

// A rawStore is one request's copy of a session.
type rawStore struct {
	p   *provider
	sid string

	mu     sync.RWMutex // guards values and data
	values map[interface{}]interface{}
	data   []byte // what the file held
}

func (s *rawStore) Set(key, value interface{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
	return nil
}

func (s *rawStore) Get(key interface{}) interface{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.values[key]
}

func (s *rawStore) Delete(key interface{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *rawStore) ID() string { return s.sid }

func (s *rawStore) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.values)
	return nil
}

// Release stores what has changed, unless the session was destroyed meanwhile.
func (s *rawStore) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := session.EncodeGob(s.values)
	if err != nil {
		return fmt.Errorf("gochistore: encode: %w", err)
	}
	if record.Same(s.data, data, session.DecodeGob) { // a value may have been changed in place
		err = record.Touch(ctx, s.p.files, s.sid, s.p.life)
	} else if err = record.Replace(ctx, s.p.files, s.sid, data, s.p.life); err == nil {
		s.data = data
	}
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	return wrap(err)
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("gochistore: %w", err)
}
