// Package beegostore keeps the sessions of github.com/beego/beego/v2 in files. Register a store under
// a name, and have beego take it:
//
//	beegostore.Register("filestore", store)
//	web.BConfig.WebConfig.Session.SessionOn = true
//	web.BConfig.WebConfig.Session.SessionProvider = "filestore"
//
// They survive restarts and kill -9, and any number of processes may share the directory. Values are
// kept by session.EncodeGob, with their types, as by beego's file provider: a type of your own must
// be known to gob.Register before a session with it is read, so also after a restart. A nil value is
// none; beego's file provider panics on it.
//
// A session is stored when beego makes it, and ends Maxlifetime (if that is 0: Gclifetime; if that
// is 0 too: the store's TTL) after it was last released. A release writes if the values have changed,
// in place too, or the last access is at least [filestore.Options.TouchAfter] old. Of two requests
// that change one session at the same moment the later wins, as beego releases whole sessions.
//
// A session that has been destroyed or regenerated does not come back: SessionRelease, which is what
// beego calls, stores only what is still there, just as SessionReleaseIfPresent. With beego's file
// provider a slow request brings it back.
//
// No client chooses its id: beego asks SessionExist first, and makes a new id where there is none.
// SessionRead, and so [session.Manager.GetSessionStore], makes the session that it is asked for;
// one that is destroyed just between the two calls therefore begins anew, empty, under the same id.
//
// A file that cannot be read is an error, which beego answers with 503, and stays. (With package
// filter/session beego logs the error and serves the request without a session.) But a release
// returns no error, and SessionDestroy's is dropped by beego: what they fail to do is logged to
// session.SLogger, and the client learns nothing of it.
//
// In beego, SessionRegenerateID and DestroySession go by the id in the request's cookie. If that names
// no session any more, the first begins an empty session, without what the request has put in, and
// the second does not destroy the one that the request has been given.
package beegostore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/beego/beego/v2/server/web/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// Register makes s beego's session provider name, in place of any that has the name: managers that
// were made before keep theirs. Call it before anything is served, as beego guards its list of
// providers by no lock. All managers of one name have the lifetime of the last. The provider does
// not close s, and leaves reaping to it.
func Register(name string, s *filestore.Store) {
	session.Register(name, &provider{s: s})
}

type provider struct {
	s    *filestore.Store
	life atomic.Int64 // a time.Duration
}

// SessionInit takes the sessions' life in seconds. There is nothing to configure.
func (p *provider) SessionInit(_ context.Context, seconds int64, _ string) error {
	seconds = max(0, min(seconds, int64(record.Forever/time.Second)))
	p.life.Store(int64(time.Duration(seconds) * time.Second))
	return nil
}

// SessionExist reports that there is a session sid.
func (p *provider) SessionExist(ctx context.Context, sid string) (bool, error) {
	_, ok, err := record.Get(record.Background(ctx), p.s, sid)
	return ok, err
}

// SessionRead returns the session sid, which it makes where there is none.
func (p *provider) SessionRead(ctx context.Context, sid string) (session.Store, error) {
	ctx = record.Background(ctx)
	if len(sid) < 2 { // no manager makes such an id
		return nil, fmt.Errorf("beegostore: %w", filestore.ErrInvalidID)
	}
	err := fs.ErrExist
	for i := 0; i < 3 && errors.Is(err, fs.ErrExist); i++ { // another request may make it first
		var data []byte
		var ok bool
		data, ok, err = record.Get(ctx, p.s, sid)
		if err == nil && !ok {
			err = p.create(ctx, sid, nil)
		}
		if err == nil {
			return p.open(sid, data)
		}
	}
	return nil, err
}

// create stores a session at once, so that every release is one of a session that was there.
func (p *provider) create(ctx context.Context, sid string, data []byte) error {
	return record.Create(ctx, p.s, sid, data, time.Duration(p.life.Load()))
}

// open must return no store, not a nil one, with an error: beego looks whether it is nil.
func (p *provider) open(sid string, data []byte) (session.Store, error) {
	values, err := decode(data)
	if err != nil {
		return nil, err
	}
	return &store{p: p, sid: sid, data: data, values: values}, nil
}

// SessionRegenerate moves the session oldsid to sid. If it is gone sid is a new one.
func (p *provider) SessionRegenerate(ctx context.Context, oldsid, sid string) (session.Store, error) {
	ctx = context.WithoutCancel(record.Background(ctx)) // no half of it
	data, ok, err := record.Get(ctx, p.s, oldsid)
	if err == nil {
		_, err = decode(data)
	}
	if err == nil {
		err = p.create(ctx, sid, data) // first, so that whatever happens the values are in one of them
	}
	if err != nil {
		return nil, err
	}
	if ok {
		// Another request may have changed the session meanwhile, or destroyed it: a logout.
		var now []byte
		now, ok, err = record.Take(ctx, p.s, oldsid)
		if !ok || !bytes.Equal(now, data) {
			data = now
			err = errors.Join(err, record.Replace(ctx, p.s, sid, data, time.Duration(p.life.Load())))
		}
		if err != nil {
			return nil, errors.Join(err, record.Delete(ctx, p.s, sid))
		}
	}
	return p.open(sid, data)
}

// SessionDestroy removes the session sid. There need not be one.
func (p *provider) SessionDestroy(ctx context.Context, sid string) error {
	ctx = context.WithoutCancel(record.Background(ctx)) // whoever has gone wants to be logged out all the same
	_, ok, err := record.Get(ctx, p.s, sid)
	if ok { // a client's id may name what is no session of beego's
		err = record.Delete(ctx, p.s, sid)
	}
	if err != nil {
		session.SLogger.Println("beegostore: destroy:", err) // beego looks at no error here
	}
	return err
}

// SessionAll returns the number of live sessions, without those of others in the directory.
func (p *provider) SessionAll(ctx context.Context) int {
	n := 0
	for _, err := range record.All(record.Background(ctx), p.s) {
		if err != nil {
			session.SLogger.Println("beegostore: all:", err)
			continue
		}
		n++
	}
	return n
}

// SessionGC does nothing: the filestore.Store has a reaper of its own.
func (p *provider) SessionGC(context.Context) {}

// A store is the session of one request.
type store struct {
	p   *provider
	sid string

	mu     sync.RWMutex
	values map[any]any
	data   []byte // what the file has
}

func (s *store) Set(_ context.Context, key, value any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value == nil { // gob has none, and EncodeGob would panic
		delete(s.values, key)
		return nil
	}
	s.values[key] = value
	return nil
}

func (s *store) Get(_ context.Context, key any) any {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.values[key]
}

func (s *store) Delete(_ context.Context, key any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *store) Flush(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = make(map[any]any)
	return nil
}

func (s *store) SessionID(context.Context) string { return s.sid }

func (s *store) SessionReleaseIfPresent(ctx context.Context, w http.ResponseWriter) {
	s.SessionRelease(ctx, w)
}

func (s *store) SessionRelease(ctx context.Context, _ http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx = context.WithoutCancel(record.Background(ctx)) // a client that has gone was told of what was done
	if err := s.save(ctx); err != nil && !errors.Is(err, filestore.ErrNotFound) {
		session.SLogger.Println("beegostore: release:", err)
	}
}

// save is an ErrNotFound if the session has been destroyed meanwhile, or its time is over.
func (s *store) save(ctx context.Context) error {
	life := time.Duration(s.p.life.Load())
	// Not the bytes are compared, which gob writes in another order each time, nor is it enough that
	// nothing was set: what Get returned may have been changed in place.
	if old, err := decode(s.data); err == nil && reflect.DeepEqual(old, s.values) {
		return record.Touch(ctx, s.p.s, s.sid, life)
	}
	data, err := session.EncodeGob(s.values)
	if err != nil {
		return err
	}
	if err := record.Replace(ctx, s.p.s, s.sid, data, life); err != nil {
		return err
	}
	s.data = data
	return nil
}

func decode(data []byte) (map[any]any, error) {
	if len(data) == 0 {
		return make(map[any]any), nil
	}
	values, err := session.DecodeGob(data)
	if err != nil {
		return nil, fmt.Errorf("beegostore: %w: %w", filestore.ErrCorrupt, err)
	}
	return values, nil
}
