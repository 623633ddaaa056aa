package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file moves a site's sessions from one Store to another while it runs.

// A FullStore has all methods that Moving needs. *filestore.Store is one, and so are the Stores of the packages in
// backend.
type FullStore interface {
	Store
	Toucher
	Updater
	Creator
	Lifer
	Limiter
	Finder
}

// A MovingStore has the sessions of two Stores. It moves each session from one to the other when it is used for the
// first time, so that nobody is logged out when a site changes its Store. When all sessions have moved or ended, use the
// new Store alone. (To move all at once, stop the site and use the command filestore move.) Make one with Moving.
//
// All programs of the site must use a MovingStore before the first one moves a session: for one that has only the old
// Store, a session that has moved is empty. Express cannot share the sessions meanwhile. Any number of programs can
// move at once. If one dies, another one finishes what it has begun. A session keeps its id, values, cookie and end,
// and one that was destroyed comes back in neither Store. A session of more than three quarters of the new Store's
// MaxSize cannot move, as its copy is larger for a moment. One whose id the new Store does not take is not found any
// more: MySQL takes 128 characters.
//
// A MovingStore is safe for concurrent use. Its TTL and Lifetime are those of the new Store; the old one should have the
// same. It does not close the Stores.
type MovingStore struct{ to, from FullStore }

// A session moves in four steps. Each changes one Store, and anybody can repeat it:
//
//  1. to gets a copy, whose values are hidden in the member __moving. It does not count as a session, and holds nothing
//     if somebody uses to alone.
//  2. from gets a mark in the place of the session, which has no values but __moved. If the session has changed since it
//     was copied, this does not happen, and step 1 begins again. From now on the copy counts.
//  3. The copy gets its values.
//  4. The mark is destroyed.
//
// So a copy without a mark is one of a session that was destroyed meanwhile. Destroy removes from from first: nobody who
// moves can then take step 2, and whoever has taken it before finds no copy for step 3, or finishes it before Destroy
// removes it.
const (
	movingMember = "__moving"
	movedMember  = "__moved"
)

func isCopy(sess *filestore.Session) bool { return sess.Values[movingMember] != nil }
func isMark(sess *filestore.Session) bool { return sess.Values[movedMember] != nil }

// Moving returns the MovingStore that moves sessions to the Store to.
func Moving(to, from FullStore) *MovingStore { return &MovingStore{to, from} }

// TTL returns that of the new Store.
func (s *MovingStore) TTL() time.Duration { return s.to.TTL() }

// Lifetime returns that of the new Store.
func (s *MovingStore) Lifetime() time.Duration { return s.to.Lifetime() }

// in runs op on the session id in to. If it is not there, it is moved first.
func (s *MovingStore) in(ctx context.Context, id string, op func() error) error {
	err := op()
	if !errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	if moveErr := s.move(ctx, id); moveErr != nil && !errors.Is(moveErr, filestore.ErrNotFound) {
		return moveErr
	}
	return op() // also if there is nothing to move: somebody may have moved it just now
}

// errCopy says that there is only a copy.
var errCopy = fmt.Errorf("session: the session has not moved yet: %w", filestore.ErrNotFound)

// Get returns the session id, and moves it first if it has to.
func (s *MovingStore) Get(ctx context.Context, id string) (sess *filestore.Session, err error) {
	err = s.in(ctx, id, func() error {
		if sess, err = s.to.Get(ctx, id); err == nil && isCopy(sess) {
			sess, err = nil, errCopy
		}
		return err
	})
	return sess, err
}

// Set stores sess as the session id in the new Store, and removes what the old one has.
func (s *MovingStore) Set(ctx context.Context, id string, sess *filestore.Session) error {
	if err := s.to.Set(ctx, id, sess); err != nil {
		return err
	}
	return s.from.Destroy(ctx, id)
}

// Create is Set for a new session. It fails with fs.ErrExist if one of the Stores has one.
func (s *MovingStore) Create(ctx context.Context, id string, sess *filestore.Session) error {
	switch _, err := s.from.Get(ctx, id); {
	case err == nil, unreadable(err):
		return fmt.Errorf("session: create: %w", fs.ErrExist)
	case !errors.Is(err, filestore.ErrNotFound), errors.Is(err, filestore.ErrInvalidID):
		return err
	}
	return s.to.Create(ctx, id, sess)
}

// Update changes the session id; see Updater. It moves it first if it has to.
func (s *MovingStore) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	var own error // of fn
	err := s.in(ctx, id, func() error {
		err := s.to.Update(ctx, id, func(sess *filestore.Session) error {
			if isCopy(sess) {
				return errCopy
			}
			own = fn(sess)
			return own
		})
		if own != nil {
			return nil
		}
		return err
	})
	if own != nil {
		return own
	}
	return err
}

// Touch marks the session id as accessed now; see Toucher. It moves it first if it has to.
func (s *MovingStore) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	if _, err := s.Get(ctx, id); err != nil { // to touch a copy is not enough
		return err
	}
	return s.to.Touch(ctx, id, c)
}

// Destroy removes the session id from both Stores.
func (s *MovingStore) Destroy(ctx context.Context, id string) error {
	err := s.from.Destroy(ctx, id) // first, see above
	return join(err, s.to.Destroy(ctx, id))
}

// Find yields the sessions of both Stores; see Finder. They stay where they are.
func (s *MovingStore) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		// In the order in which a session moves, so that none slips by: from, half moved, to.
		var old []filestore.Entry
		for e, err := range s.from.Find(ctx, member, value) {
			if err == nil {
				old = append(old, e)
			} else if !yield(e, err) {
				return
			}
		}
		for e, err := range s.from.Find(ctx, movedMember, "1") {
			if err == nil {
				err = s.finish(ctx, e.ID)
			}
			if err != nil && !yield(filestore.Entry{ID: e.ID}, err) {
				return
			}
		}
		seen := make(map[string]bool)
		for e, err := range s.to.Find(ctx, member, value) {
			seen[e.ID] = true
			if !yield(e, err) {
				return
			}
		}
		for _, e := range old {
			if !seen[e.ID] && !yield(e, nil) {
				return
			}
		}
	}
}

var errMark = errors.New("moved by others")

// move moves the session id. It fails with filestore.ErrNotFound if from does not have it.
func (s *MovingStore) move(ctx context.Context, id string) error {
	for range 100 {
		sess, err := s.from.Get(ctx, id)
		if err == nil && !isMark(sess) {
			if err = s.copy(ctx, id, sess); err != nil {
				return err
			}
			err = s.from.Update(ctx, id, func(now *filestore.Session) error { // step 2
				switch {
				case isMark(now):
					return errMark
				case now.Cookie != sess.Cookie || !equal(now.Values, sess.Values):
					return errChanged
				}
				now.Values, now.NoTouch = values{movedMember: json.RawMessage("1")}, true
				return nil
			})
		}
		switch {
		case err == nil, err == errMark:
			return s.finish(ctx, id)
		case errors.Is(err, filestore.ErrNotFound):
			return join(err, s.discard(ctx, id))
		case err != errChanged:
			return err
		}
	}
	return errChanged
}

// copy is step 1.
func (s *MovingStore) copy(ctx context.Context, id string, sess *filestore.Session) error {
	doc, err := sess.Document()
	if err != nil {
		return err
	}
	hidden, err := json.Marshal(doc) // in base64, so that not a byte changes
	if err != nil {
		return err
	}
	own := *sess
	own.Values, own.NoTouch = values{movingMember: hidden}, true
	for {
		err := s.to.Create(ctx, id, &own)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		err = s.to.Update(ctx, id, func(now *filestore.Session) error {
			if !isCopy(now) {
				return errMark // there it is already, newer than in from
			}
			now.Cookie, now.LastAccess, now.Values, now.NoTouch = own.Cookie, own.LastAccess, maps.Clone(own.Values), true
			return nil
		})
		switch {
		case err == errMark:
			return nil
		case !errors.Is(err, filestore.ErrNotFound) || ctx.Err() != nil:
			return err
		}
	}
}

// finish takes the steps 3 and 4.
func (s *MovingStore) finish(ctx context.Context, id string) error {
	err := s.to.Update(ctx, id, func(sess *filestore.Session) error {
		if !isCopy(sess) {
			return errMark
		}
		var doc []byte
		own := new(filestore.Session)
		err := json.Unmarshal(sess.Values[movingMember], &doc)
		if err == nil {
			err = own.UnmarshalJSON(doc)
		}
		if err != nil {
			return fmt.Errorf("session: the copy of a session that moves: %w", filestore.ErrCorrupt)
		}
		own.LastAccess, own.NoTouch = sess.LastAccess, true
		if own.Created.IsZero() {
			own.Created = sess.Created
		}
		*sess = *own
		return nil
	})
	if err != nil && err != errMark && !errors.Is(err, filestore.ErrNotFound) { // it was destroyed: so goes the mark
		return err
	}
	return s.from.Destroy(ctx, id)
}

// discard removes the copy of a session that is gone from from, if that is all that there is. (If it had moved, step 3
// was before step 4.)
func (s *MovingStore) discard(ctx context.Context, id string) error {
	err := s.to.Update(ctx, id, func(sess *filestore.Session) error {
		if !isCopy(sess) {
			return errMark
		}
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
		return nil
	})
	switch {
	case err == nil:
		return s.to.Destroy(ctx, id)
	case err == errMark, errors.Is(err, filestore.ErrNotFound):
		return nil
	}
	return err
}
