// Package scsstore keeps the sessions of github.com/alexedwards/scs in files:
//
//	sessions := scs.New()
//	sessions.Store = scsstore.New(store)
//
// They survive restarts and kill -9, and any number of processes may share the directory. The data is
// opaque to the store; with JSONCodec it can be read in the file.
//
// A session that has been destroyed does not come back: scs does not tell a store whether the session
// that it commits is new, so a destroyed one leaves a file that says so, to all processes, until its old
// deadline, and for five minutes at least. What a slow request commits after the logout is dropped. (scs does not
// learn of that, and may set the dead session's cookie again. A session that was not destroyed by scs, but by
// [filestore.Store.Destroy] or rm, or that has expired, does not leave such a file, nor does one whose file could
// not be read or written when it was destroyed: a slow request brings it back.) Of two requests that commit one
// session at the same moment the later wins whole, as scs commits whole sessions and does not say what they were: a
// slow request undoes a logout that only removes a key, and with an IdleTimeout also if it has changed nothing. Log
// out by Destroy.
//
// RenewToken destroys the session and stores it anew. It returns [filestore.ErrNotFound] if the session has
// been destroyed since the request loaded it, as by a logout, or renewed by another request. The store cannot tell
// the two from Destroy: of two logouts of one session at the same moment one gets that error, and a logout that
// gets it has perhaps come after a RenewToken. Then the renewed session lives on.
//
// A session whose file cannot be read, as it is damaged or encrypted otherwise, counts as none: its visitor gets a
// new one, under a new token, the file stays, and the Logger is told each time. scs returns an error if the
// application's Codec cannot decode the data.
//
// With an IdleTimeout scs commits every session in every request. If nothing has changed but the
// deadline, and that by less than 1 % of what is left of it, nothing is written: a session may end
// earlier by that much than scs has said. Different bytes are compared as scs.GobCodec encodes them: do not use a
// codec of your own that encodes a struct with its two fields and more by gob.
package scsstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// A Store is an scs.CtxStore and scs.IterableCtxStore, also without the contexts. It is safe for
// concurrent use. It does not close the filestore.Store.
type Store struct {
	Logger *slog.Logger // told of files that cannot be read; nil = slog.Default(); to be set before the first use

	store *filestore.Store
}

// New returns a Store on s.
func New(s *filestore.Store) *Store { return &Store{store: s} }

// destroyed is the only member of the file that a destroyed session leaves. The command filestore tells such a file by it.
const destroyed = "destroyed"

// Find is FindCtx without a context.
func (s *Store) Find(token string) (b []byte, found bool, err error) {
	return s.FindCtx(context.Background(), token)
}

// FindCtx returns the data of a session. It is not found if it is missing, expired or destroyed, or if
// its file cannot be read.
func (s *Store) FindCtx(ctx context.Context, token string) (b []byte, found bool, err error) {
	b, found, err = record.Get(ctx, s.store, token)
	return b, found, s.readable(err)
}

// readable returns err, unless the cause is a file that cannot be read: then it logs err.
func (s *Store) readable(err error) error {
	if record.Unreadable(err) {
		cmp.Or(s.Logger, slog.Default()).Warn("scsstore: a session that cannot be read counts as none", "err", err)
		return nil
	}
	return err
}

// Commit is CommitCtx without a context.
func (s *Store) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// CommitCtx stores a session until expiry. It does nothing if the session has been destroyed, and
// removes it if expiry has passed.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	life := time.Until(expiry)
	if life <= 0 {
		if err := s.DeleteCtx(ctx, token); err != errDestroyed {
			return err
		}
		return nil
	}
	id := record.ID(token)
	if sess, err := s.store.Get(ctx, id); err == nil && record.Unchanged(sess, token, b, life, same) {
		return nil
	}
	// Not Set: between the two another request of the session may make it, and destroy it.
	err := fs.ErrExist
	for i := 0; i < 3 && errors.Is(err, fs.ErrExist); i++ {
		err = s.store.Update(ctx, id, func(sess *filestore.Session) error {
			if sess.Values[destroyed] != nil {
				return errDestroyed
			}
			return record.Put(sess, token, b, life)
		})
		if err == errDestroyed {
			return nil
		}
		if errors.Is(err, filestore.ErrNotFound) {
			err = record.Create(ctx, s.store, token, b, life)
		}
	}
	return err
}

var errDestroyed = fmt.Errorf("scsstore: the session has been destroyed: %w", filestore.ErrNotFound)

// Delete is DeleteCtx without a context.
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// DeleteCtx destroys a session; there need not be one. But if the file that it left says that it has been destroyed
// already, the error is filestore.ErrNotFound. It ignores cancellation: a browser that has gone must not undo the
// logout.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	ctx, id := context.WithoutCancel(ctx), record.ID(token)
	err := fs.ErrExist
	for i := 0; i < 3 && errors.Is(err, fs.ErrExist); i++ {
		err = s.store.Update(ctx, id, func(sess *filestore.Session) error {
			if sess.Values[destroyed] != nil {
				return errDestroyed
			}
			return bury(sess, time.Until(sess.ExpiresAt(0)))
		})
		if errors.Is(err, filestore.ErrExpired) { // but a request that has loaded it may be under way
			sess := new(filestore.Session)
			if err = bury(sess, 0); err == nil {
				err = s.store.Create(ctx, id, sess)
			}
		}
	}
	switch {
	case err == errDestroyed, errors.Is(err, filestore.ErrLockTimeout):
		return err
	case err == nil, errors.Is(err, filestore.ErrNotFound):
		return nil
	}
	// A logout must also succeed if the disk is full, or the file damaged.
	return s.store.Destroy(ctx, id)
}

// slowest is how long a request may take that has loaded a session. With an idle timeout it may store the session
// after the old deadline.
const slowest = 5 * time.Minute

// bury makes sess say that it has been destroyed.
func bury(sess *filestore.Session, left time.Duration) error {
	sess.Values = nil
	sess.Cookie = filestore.Cookie{OriginalMaxAge: max(left.Truncate(time.Millisecond), slowest), HTTPOnly: true, Path: "/"}
	return sess.Put(destroyed, true)
}

// All is AllCtx without a context.
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }

// AllCtx returns the data of all sessions by token. Files that do not hold a session, or cannot be read, are
// passed over.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	all := make(map[string][]byte)
	for e, err := range record.All(ctx, s.store) {
		if err == nil {
			all[e.Key] = e.Data
		} else if err = s.readable(err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func same(a, b []byte) bool { return record.Same(a, b, decodeGob) }

// data is what scs.GobCodec encodes.
type data struct {
	Deadline time.Time
	Values   map[string]any
}

func decodeGob(b []byte) (d data, err error) {
	r := bytes.NewReader(b)
	if err = gob.NewDecoder(r).Decode(&d); err == nil && r.Len() > 0 {
		err = errors.New("more than scs.GobCodec encodes")
	}
	return d, err
}
