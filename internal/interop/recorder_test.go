package interop

import (
	"context"
	"sync"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// store has all the methods that the middleware can use.
type store interface {
	session.Store
	session.Toucher
	session.Updater
	session.Creator
}

// A recorder notes the calls of the methods of a store, by the names in express-session. There "set" is both
// Create, for a new session, and Update, for a loaded one.
type recorder struct {
	Store store

	mu    sync.Mutex
	calls []string
}

func (r *recorder) note(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, name)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *recorder) Get(ctx context.Context, id string) (*filestore.Session, error) {
	r.note("get")
	return r.Store.Get(ctx, id)
}

func (r *recorder) Set(ctx context.Context, id string, s *filestore.Session) error {
	r.note("set")
	return r.Store.Set(ctx, id, s)
}

func (r *recorder) Create(ctx context.Context, id string, s *filestore.Session) error {
	r.note("set")
	return r.Store.Create(ctx, id, s)
}

func (r *recorder) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	r.note("set")
	return r.Store.Update(ctx, id, fn)
}

func (r *recorder) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	r.note("touch")
	return r.Store.Touch(ctx, id, c)
}

func (r *recorder) Destroy(ctx context.Context, id string) error {
	r.note("destroy")
	return r.Store.Destroy(ctx, id)
}
