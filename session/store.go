package session

// This file is what the middleware needs of a Store, and what it does where the
// Store is no more than that.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Store is what the middleware needs of a session store. *filestore.Store is one.
//
// Get returns an error that errors.Is filestore.ErrNotFound if there is no such
// session or it has expired; Destroy then succeeds. An error of Get that is
// filestore.ErrCorrupt, ErrDecrypt, ErrTooLarge or ErrUnsafeFile says that this one
// session cannot be read: its visitor gets a new one. Any other error is a store
// that fails. An id is any string that one of the Secrets has signed. When a session
// expires is the Store's to say, by ExpiresAt; the middleware sets LastAccess
// whenever it stores. Set may keep what it is given, and Get return what it keeps:
// the middleware copies. Set stores the session whether or not there is one. All
// must be safe for concurrent use.
//
// A Store may do better by also being an Updater, a Creator, a Toucher or a Lifer.
// Without the first two a session is read again before it is written, which narrows
// the races that these close. Without Toucher unchanged sessions are not touched:
// they expire when they have not changed for their life, however much they are used,
// and a change that comes too late is an error.
type Store interface {
	Get(ctx context.Context, id string) (*filestore.Session, error)
	Set(ctx context.Context, id string, s *filestore.Session) error
	Destroy(ctx context.Context, id string) error
}

// A Toucher marks a session as accessed without writing its values, and fails
// with filestore.ErrNotFound if it is gone. With a nil cookie the session keeps its
// own, whose Expires starts again. It may spare the write if the last access is
// younger than half of the session's life.
type Toucher interface {
	Touch(ctx context.Context, id string, c *filestore.Cookie) error
}

// An Updater reads, changes and writes a session in one step, and fails with
// filestore.ErrNotFound if it is gone. It may call fn more than once.
type Updater interface {
	Update(ctx context.Context, id string, fn func(*filestore.Session) error) error
}

// A Creator stores a new session, and fails with fs.ErrExist if the id is taken.
type Creator interface {
	Create(ctx context.Context, id string, s *filestore.Session) error
}

// A Lifer tells how long a session lives after its last access if its cookie has
// no maxAge. It is asked once, when the Handler is made. Of a Store that does not
// tell, a minute is assumed when a session has to be kept alive under a slow request.
type Lifer interface {
	TTL() time.Duration
}

// get is Store.Get, whose result the Store may keep.
func (m *Manager) get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := m.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if sess == nil {
		return nil, errors.New("session: Store.Get returned neither a session nor an error")
	}
	own := *sess
	own.Values = maps.Clone(sess.Values)
	if own.Values == nil {
		own.Values = values{}
	}
	return &own, nil
}

// unreadable reports that err is about one session, and will be the same next time.
func unreadable(err error) bool {
	return errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrDecrypt) ||
		errors.Is(err, filestore.ErrTooLarge) || errors.Is(err, filestore.ErrUnsafeFile)
}

// create stores a new session and refuses an id that is in use: two users must
// never meet in one session, whatever GenID does.
func (m *Manager) create(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess // the Store may keep it
	own.Values, own.LastAccess = maps.Clone(sess.Values), time.Now()
	if c, ok := m.Store.(Creator); ok {
		return c.Create(ctx, id, &own)
	}
	_, err := m.get(ctx, id)
	if err == nil {
		return fmt.Errorf("session: create: %w", fs.ErrExist)
	}
	if !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	return m.Store.Set(ctx, id, &own)
}

func (m *Manager) update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	if u, ok := m.Store.(Updater); ok {
		return u.Update(ctx, id, fn)
	}
	sess, err := m.get(ctx, id)
	if err == nil {
		err = fn(sess)
	}
	if err != nil {
		return err
	}
	return m.Store.Set(ctx, id, sess)
}

// take removes a session. Of several callers one succeeds, the others get an
// ErrNotFound, if the Store is an Updater: Destroy alone does not tell.
func (m *Manager) take(ctx context.Context, id string) error {
	err := m.update(ctx, id, func(sess *filestore.Session) error {
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil // it has expired
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.Store.Destroy(ctx, id); err != nil {
		slog.WarnContext(ctx, "session: a session that was replaced is left to expire", "err", err)
	}
	return nil
}
