// Package fiberstore keeps in files what the middlewares of github.com/gofiber/fiber store, v3 and v2:
//
//	app.Use(session.New(session.Config{Storage: fiberstore.New(store)}))
//
// Sessions, cached responses, rate limits and CSRF tokens survive restarts and kill -9, and any number
// of processes may share the directory. Give each middleware a directory of its own, without other
// programs' sessions. Reset removes all sessions that are there, also those of others. And if a client sends the
// key of something else as its session's id, such as a CSRF token, the session middleware answers 500, on any
// storage.
//
// Fiber does not tell a Storage enough for three things:
//
//   - A save is the same Set for a new session as for a loaded one, and a rate limit is rightly set
//     again after a Delete. So a slow request that finishes after the logout brings its session back.
//     If that matters, keep the time of the login in the session, and the time of the user's last
//     logout elsewhere, and compare.
//   - Of two requests of one session at the same moment, the later save wins whole, also if it has changed
//     nothing: a slow request undoes a logout that deletes a key. Log out by Destroy.
//   - The session middleware saves a session for each request without a cookie, even an empty one. If bots
//     come by, have it skip what does not need a session, by its Config.Next.
//
// A file that cannot be read as a session (damaged, not decrypted, too large, a link, another user's)
// counts as none, and the Logger is told: an error would be a 500 on every page of its visitor. So they get a
// session with a new id, and the file stays as it is. The other middlewares set such a key again, which replaces
// the file, and idempotency runs its handler again.
//
// Errors that are not a single file's, such as filestore.ErrClosed or EIO, stay errors, and the session middleware
// answers with 500: close the filestore.Store after the app's Shutdown. The cache, csrf and limiter of v2
// ignore them.
//
// Fiber's sessions are set in every request. If the bytes are the same and the deadline would move
// by less than 1 % of the life, nothing is written: an idle session may end earlier by that much. What
// such a Set has found is as durable as the Set that wrote it. Fiber encodes a session's members in a
// random order, so that about (9-n)/8 of these writes are spared for sessions with n members, up to 8, and few for
// larger ones. An absolute timeout is one member more.
package fiberstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// A Storage is a fiber.Storage, of v3 and of v2. It is safe for concurrent use. A nil context is
// context.Background(). A call ends when its context is done; Fiber's own never is. It waits
// for a lock for filestore.Options.LockTimeout at most.
type Storage struct {
	Logger *slog.Logger // told of files that cannot be read; nil = slog.Default(); to be set before the first use

	store  *filestore.Store
	closed atomic.Bool
}

// New returns a Storage on s, which stays its owner's to close.
func New(s *filestore.Store) *Storage { return &Storage{store: s} }

var errClosed = fmt.Errorf("fiberstore: %w", filestore.ErrClosed)

// enter admits a call, and replaces a nil ctx. The filestore.Store looks whether ctx is done.
func (s *Storage) enter(ctx context.Context) (context.Context, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	return record.Background(ctx), nil
}

// Get is GetWithContext without a context.
func (s *Storage) Get(key string) ([]byte, error) {
	return s.GetWithContext(context.Background(), key)
}

// GetWithContext returns key's value, in memory of the caller's own. It is nil, without an error,
// if there is none, if its time is over, or if its file cannot be read.
func (s *Storage) GetWithContext(ctx context.Context, key string) ([]byte, error) {
	ctx, err := s.enter(ctx)
	if err != nil || key == "" {
		return nil, err
	}
	// Fiber's strings may lie in a buffer that the next request is read into.
	data, _, err := record.Get(ctx, s.store, strings.Clone(key))
	if record.Unreadable(err) {
		// Not with ctx: a handler might keep it, and Fiber uses it again.
		cmp.Or(s.Logger, slog.Default()).Warn("fiberstore: a file that cannot be read counts as none", "err", err)
		return nil, nil
	}
	if err != nil || len(data) == 0 { // Set never stores that, and v3's session middleware takes it for an error
		return nil, err
	}
	return data, nil
}

// Set is SetWithContext without a context.
func (s *Storage) Set(key string, val []byte, exp time.Duration) error {
	return s.SetWithContext(context.Background(), key, val, exp)
}

// SetWithContext stores val under key for exp; 0 or less is record.Forever. It does
// not keep val. As in Fiber's own storages an empty key or value is ignored.
func (s *Storage) SetWithContext(ctx context.Context, key string, val []byte, exp time.Duration) error {
	ctx, err := s.enter(ctx)
	if err != nil || key == "" || len(val) == 0 {
		return err
	}
	key = strings.Clone(key)
	if exp <= 0 || exp > record.Forever {
		exp = record.Forever
	}
	// No lock: if another has changed or deleted the value since we looked, this Set came before that.
	if sess, err := s.store.Get(ctx, record.ID(key)); err == nil && record.Unchanged(sess, key, val, exp, bytes.Equal) {
		return nil
	}
	return record.Set(ctx, s.store, key, val, exp)
}

// Delete is DeleteWithContext without a context.
func (s *Storage) Delete(key string) error { return s.DeleteWithContext(context.Background(), key) }

// DeleteWithContext removes key's value, also if it cannot be read. There need not be any.
func (s *Storage) DeleteWithContext(ctx context.Context, key string) error {
	ctx, err := s.enter(ctx)
	if err != nil || key == "" {
		return err
	}
	return record.Delete(ctx, s.store, strings.Clone(key))
}

// Reset is ResetWithContext without a context.
func (s *Storage) Reset() error { return s.ResetWithContext(context.Background()) }

// ResetWithContext removes all sessions in the directory, not only Fiber's, as filestore.Store.Clear
// does. A file that cannot be read stays.
func (s *Storage) ResetWithContext(ctx context.Context) error {
	ctx, err := s.enter(ctx)
	if err != nil {
		return err
	}
	return s.store.Clear(ctx)
}

// Close makes all later calls fail with filestore.ErrClosed. It does not wait for those under way, nor
// close the filestore.Store, which others may use. A second Close does nothing.
func (s *Storage) Close() error {
	s.closed.Store(true)
	return nil
}
