package record

// This file is for the adapters whose frameworks know a session by its id alone: beego's, go-chi's and flamego's.

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"time"
	"weak"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sessionfilestore/filestore"
)

// Sessions are Maps whose new sessions are pending: they have no file until they hold a value, so that a
// visitor who leaves nothing leaves no file.
//
// Only this process knows such a session, while a request has it, and after that until 10,000 others have begun.
// Another process does not know its id, nor does this one after a restart.
type Sessions struct {
	Maps[any]
	Log func(error) // told of files that cannot be read

	mu      sync.Mutex
	used    map[string]weak.Pointer[state] // of the sessions that requests have, or pending has
	pending *lru.Cache[string, *state]
}

const pendingMax = 10_000

// A Held is a session that a request has. It is not safe for concurrent use.
type Held struct {
	Copy
	*state
}

// A state is what all requests that have a session share. It is guarded by Sessions.mu.
type state struct {
	id        string // also for its size: the runtime puts tiny objects together, which then have one weak pointer
	stored    bool   // in a file, now or before
	destroyed bool
}

// NewSessions returns the sessions in m.
func NewSessions(m Maps[any], log func(error)) *Sessions {
	pending, err := lru.New[string, *state](pendingMax)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Sessions{Maps: m, Log: log, used: make(map[string]weak.Pointer[state]), pending: pending}
}

// Exist reports that there is a session id, also if it is pending. It reports false if the file cannot be read.
func (s *Sessions) Exist(ctx context.Context, id string) (bool, error) {
	_, _, err := s.Load(ctx, id)
	if !errors.Is(err, filestore.ErrNotFound) {
		return err == nil, s.Readable(err)
	}
	if errors.Is(err, errForeign) {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.used[id].Value()
	return st != nil && !st.stored && !st.destroyed, nil
}

// Readable returns err, unless the cause is a file that cannot be read: then it logs err.
func (s *Sessions) Readable(err error) error {
	if Unreadable(err) {
		s.Log(err)
		return nil
	}
	return err
}

// Read returns the session id. If there is none, a pending one begins.
func (s *Sessions) Read(ctx context.Context, id string) (map[any]any, *Held, error) {
	values, c, err := s.Load(ctx, id)
	if errors.Is(err, filestore.ErrNotFound) {
		values, h := s.Begin(id)
		return values, h, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return values, &Held{*c, s.hold(id, true)}, nil
}

// Begin returns a pending session id.
func (s *Sessions) Begin(id string) (map[any]any, *Held) {
	return make(map[any]any), &Held{Copy{Key: id}, s.hold(id, false)}
}

func (s *Sessions) hold(id string, stored bool) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.used[id].Value()
	if st == nil || st.destroyed || st.stored && !stored { // then it is another session
		st = &state{id: id}
		p := weak.Make(st)
		s.used[id] = p
		runtime.AddCleanup(st, func(p weak.Pointer[state]) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.used[id] == p {
				delete(s.used, id)
			}
		}, p)
	}
	if stored {
		st.stored = true
		s.pending.Remove(id)
	} else {
		s.pending.Add(id, st)
	}
	return st
}

// Save is Maps.Save. The error is ErrNotFound also if a pending session has been destroyed.
func (s *Sessions) Save(ctx context.Context, h *Held, mine map[any]any, life time.Duration) error {
	if s.gone(h) {
		return filestore.ErrNotFound
	}
	err := s.Maps.Save(ctx, &h.Copy, mine, life)
	if err == nil && s.gone(h) { // since we looked; there may not have been a file to destroy
		if _, err = s.take(ctx, &h.Copy); err == nil {
			err = filestore.ErrNotFound
		}
	}
	return err
}

// gone reports that h has been destroyed. It also notes whether h is stored.
func (s *Sessions) gone(h *Held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Stored() && !h.stored {
		h.stored = true
		s.pending.Remove(h.Key)
	}
	return h.destroyed
}

// end makes the requests that have the session id store nothing more. It reports that there are such requests, and
// that their session was in a file.
func (s *Sessions) end(id string) (stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.Remove(id)
	st := s.used[id].Value()
	if st == nil {
		return false
	}
	st.destroyed = true
	return st.stored
}

// Destroy removes the session id. There need not be one. A file that cannot be read stays, and so does
// somebody else's.
func (s *Sessions) Destroy(ctx context.Context, id string) error {
	s.end(id) // first: what is pending may be stored at this moment
	_, _, err := s.Load(ctx, id)
	switch {
	case err == nil:
		return Delete(ctx, s.Files, id)
	case errors.Is(err, filestore.ErrNotFound):
		return nil
	}
	return s.Readable(err)
}

// Regenerate moves the session old to id, which must be free. If there is no session old, a pending one begins.
// But if a request of this process still has old, it was destroyed meanwhile. Then the error is ErrNotFound, so that
// a slow login does not undo a logout.
func (s *Sessions) Regenerate(ctx context.Context, old, id string, life time.Duration) (map[any]any, *Held, error) {
	err := Free(ctx, s.Files, id)
	if old == id {
		err = fs.ErrExist
	}
	if err != nil {
		return nil, nil, err
	}
	mine, c, err := s.Load(ctx, old)
	switch {
	case err == nil:
		if err = s.Move(ctx, c, id, mine, life); err != nil {
			return nil, nil, err
		}
		return s.Read(ctx, id)
	case errors.Is(err, filestore.ErrNotFound):
		if s.end(old) {
			return nil, nil, err
		}
	default:
		if err = s.Readable(err); err != nil {
			return nil, nil, err
		}
	}
	mine, h := s.Begin(id)
	return mine, h, nil
}

// Renew is Regenerate for the session that a request has, with mine.
func (s *Sessions) Renew(ctx context.Context, h *Held, id string, mine map[any]any, life time.Duration) error {
	if s.gone(h) {
		return filestore.ErrNotFound
	}
	c := Copy{Key: id}
	if h.Stored() {
		c = h.Copy
		if err := s.Move(ctx, &c, id, mine, life); err != nil {
			return err
		}
	} else {
		s.end(h.Key)
	}
	*h = Held{c, s.hold(id, c.Stored())}
	return nil
}
