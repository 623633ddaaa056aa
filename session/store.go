package session

// This file says what a Store must do and what it may do, and makes up for the
// optional methods that a Store does not have.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A Store keeps sessions. *filestore.Store is one, and the modules under backend/ have
// others. To write your own begin with these three methods, and test it with
// sessiontest.Run.
//
// All methods must be safe for concurrent use. An id is any string that one of the
// Secrets has signed: it need not be an id that the Store would accept.
//
// The middleware finds out by type assertion what else a Store can do:
//
//   - Updater and Creator change and make sessions without losing what others do. Without
//     them the middleware reads a session again before it writes it, which narrows the
//     races that they close.
//   - Toucher keeps sessions alive that are used but not changed. Without it a session ends
//     when it has not changed for its life, and a change that comes too late is an error.
//   - Finder finds the sessions of a user.
//   - Lifer, Limiter, Watcher and Reaper tell the middleware what it would have to guess,
//     or ask for again and again.
type Store interface {
	// Get returns the session id. If there is none, or it has expired, the error is
	// filestore.ErrNotFound, as errors.Is tells. If this one session cannot be read,
	// it is filestore.ErrCorrupt, ErrDecrypt, ErrTooLarge or ErrUnsafeFile, and the
	// visitor gets a new session. Any other error means that the Store fails. A nil
	// session without an error is not allowed.
	//
	// The Store decides when a session expires, by filestore.Session.ExpiresAt. Get
	// may return what the Store keeps, because the middleware copies it.
	Get(ctx context.Context, id string) (*filestore.Session, error)

	// Set stores s as the session id, whether or not there is one. It may keep s. The
	// middleware has set s.LastAccess.
	Set(ctx context.Context, id string, s *filestore.Session) error

	// Destroy removes the session id. It succeeds if there is none.
	Destroy(ctx context.Context, id string) error
}

// A Toucher marks sessions as accessed.
type Toucher interface {
	// Touch sets the last access to now, and the cookie to c; the values stay. A nil c
	// keeps the session's cookie, whose Expires starts again. If there is no such
	// session, Touch fails with filestore.ErrNotFound and makes none. It may spare the
	// write if less than half of the session's life has passed since the last access.
	Touch(ctx context.Context, id string, c *filestore.Cookie) error
}

// An Updater changes sessions without losing a parallel change.
type Updater interface {
	// Update reads the session id, calls fn with it and stores the result, in one
	// step. It may call fn more than once. If there is no such session, it fails with
	// filestore.ErrNotFound and does not call fn. If fn returns an error, Update
	// returns it and stores nothing.
	Update(ctx context.Context, id string, fn func(*filestore.Session) error) error
}

// A Creator stores new sessions without overwriting any.
type Creator interface {
	// Create stores s as the session id. It fails with fs.ErrExist if there is one.
	Create(ctx context.Context, id string, s *filestore.Session) error
}

// A Lifer knows how long its sessions live.
type Lifer interface {
	// TTL returns how long a session lives after its last access if its cookie has no
	// maxAge. It is called once, by Manager.Handler. To keep a session alive under a
	// slow request, a minute is assumed of a Store that is not a Lifer.
	TTL() time.Duration
}

// A Limiter ends sessions some time after they were created, however much they are used.
type Limiter interface {
	// Lifetime returns that time, or 0 if there is no limit. It is called once, by
	// Manager.Handler: no cookie lives longer.
	Lifetime() time.Duration
}

// A Finder finds a user's sessions. Without it Manager.Sessions, End and EndAll,
// Session.EndOthers and a Login with Manager.MaxPerUser fail with errors.ErrUnsupported.
type Finder interface {
	// Find yields the live sessions that have value, as a string or a number, as their
	// member; a dot in member leads into an object. A session is found if it was stored
	// before the call, by any process, and still is there; if it gets another id meanwhile
	// by Renew, it is found under one of them. An error about one session comes with an
	// Entry that has its ID and no Session, and the loop goes on.
	Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error]
}

// A Watcher tells of changes. Without it Session.Done asks the Store again and again.
type Watcher interface {
	// Watch yields changes of sessions, by any process, until ctx is done. An error says
	// that some may have been missed. It may end after one.
	Watch(ctx context.Context) iter.Seq2[filestore.Event, error]
}

// A Reaper removes sessions that have expired, and tells how many.
type Reaper interface {
	// OnReap lets the Store call fn after each pass that has removed some. It is called
	// once, by Manager.Handler, if there is a Manager.OnEvent.
	OnReap(fn func(removed int))
}

// get is Store.Get, but returns a copy, because the Store may keep the session.
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

// unreadable reports whether err is about this one session, so that reading it again
// would fail again.
func unreadable(err error) bool {
	return errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrDecrypt) ||
		errors.Is(err, filestore.ErrTooLarge) || errors.Is(err, filestore.ErrUnsafeFile)
}

// create stores a new session and refuses an id that is in use: two users must
// never share a session, whatever GenID does.
func (m *Manager) create(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess // a copy, because the Store may keep it
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
	if err != nil {
		return err
	}
	if err := fn(sess); err != nil {
		return err
	}
	return m.Store.Set(ctx, id, sess)
}

// createNew is create for an id of newID. That the Store refuses the id does not say that
// a session is gone.
func (m *Manager) createNew(ctx context.Context, id string, sess *filestore.Session) error {
	err := m.create(ctx, id, sess)
	if errors.Is(err, filestore.ErrNotFound) {
		return fmt.Errorf("genid: %v", err)
	}
	return err
}

// take removes a session, unless check returns an error for what the Store has by then. If
// the Store is an Updater, only one of several callers succeeds, and the others get
// ErrNotFound: Destroy does not tell them apart.
func (m *Manager) take(ctx context.Context, id string, check func(*filestore.Session) error) error {
	err := m.update(ctx, id, func(sess *filestore.Session) error {
		if err := check(sess); err != nil {
			return err
		}
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil // which expires it
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.Store.Destroy(ctx, id); err != nil {
		slog.WarnContext(ctx, "session: a session that has ended could not be destroyed and is left to be reaped", "err", err)
	}
	return nil
}
