// Package flamegostore keeps the sessions of github.com/flamego/session in a filestore.Store:
//
//	f.Use(session.Sessioner(session.Options{Initer: flamegostore.Initer(store)}))
//
// The framework's contract holds, and of filestore's promises those for single sessions: a reader sees
// one complete version, what was stored stays, and what was destroyed stays away, also when the request
// that destroyed a session, or a slower one, saves it at its end: the framework's file store then makes
// it again.
//
//   - Read makes the session that it does not find, at once and empty, so that Save only ever replaces
//     what still exists. The framework reads only ids that it has just made up, or that exist: it adopts
//     none of a client's choosing. A session that ends between those two looks begins anew under its id,
//     empty.
//   - Save writes nothing where the session is as it was loaded; it moves the deadline, which
//     filestore.Options.TouchAfter spares most writes. Parallel requests that change one session do not
//     merge: the last Save wins, as the framework has it, but requests that change nothing undo nothing.
//   - Save and Destroy do their work although the client has gone, as those of the framework's file store.
//   - A session that has expired is not found. One that cannot be read, as its file is damaged, exists
//     and is an error of Read; the framework panics at errors of Read and Save, from which
//     flamego.Recovery makes a 500. Save comes after the handler: what that has written may be on its way.
//   - The framework never renews an id. Put nothing of worth into a session before a login.
//   - GC is Store.Reap. The framework calls it as long as the program runs: once the Store is closed,
//     Options.ErrorFunc is told so each time.
//
// The Store stays its owner's to close.
package flamegostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/flamego/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// Config is what session.Options.Config may hold. Its zero value, and none, stand for the framework's
// defaults.
type Config struct {
	Lifetime time.Duration   // of a session after its last request; 0 = 1 h
	Encoder  session.Encoder // nil = session.GobEncoder
	Decoder  session.Decoder // nil = session.GobDecoder
}

// Initer returns the session.Initer whose sessions are in s. It fails where the config is anything but a
// Config.
func Initer(s *filestore.Store) session.Initer {
	return func(_ context.Context, args ...interface{}) (session.Store, error) {
		var cfg Config
		for _, arg := range args {
			switch arg := arg.(type) {
			case nil: // the framework's way to pass none
			case Config:
				cfg = arg
			default:
				return nil, fmt.Errorf("flamegostore: the config is a %T, want a %T", arg, cfg)
			}
		}
		if s == nil {
			return nil, errors.New("flamegostore: the Store is nil")
		}
		if cfg.Lifetime < 0 {
			return nil, errors.New("flamegostore: Config.Lifetime is negative")
		}
		cfg.Lifetime = cmp.Or(cfg.Lifetime, time.Hour)
		if cfg.Encoder == nil {
			cfg.Encoder = session.GobEncoder
		}
		if cfg.Decoder == nil {
			cfg.Decoder = session.GobDecoder
		}
		return &store{s, cfg}, nil
	}
}

type store struct {
	files *filestore.Store
	cfg   Config
}

// A loaded session knows what its file held.
type loaded struct {
	*session.BaseSession

	mu   sync.Mutex // guards data, and makes a Save whole
	data []byte
}

// Exist is true where Read will find a session, or fail: so the framework, which gives out a new session
// where there is none, gets to know the error.
func (s *store) Exist(ctx context.Context, sid string) bool {
	_, ok, err := record.Get(record.Background(ctx), s.files, sid)
	return ok || err != nil
}

// Read returns the session sid, and makes it where there is none.
func (s *store) Read(ctx context.Context, sid string) (session.Session, error) {
	ctx = record.Background(ctx)
	data, ok, err := record.Get(ctx, s.files, sid)
	if err == nil && !ok {
		data, err = s.create(ctx, sid)
	}
	if errors.Is(err, fs.ErrExist) { // somebody else just made it, or it is no session of ours
		var again error
		if data, ok, again = record.Get(ctx, s.files, sid); ok || again != nil {
			err = again
		}
	}
	if err != nil {
		return nil, wrap(err)
	}
	values, err := s.cfg.Decoder(data)
	if err != nil {
		return nil, fmt.Errorf("flamegostore: decode: %w", err)
	}
	x := &loaded{BaseSession: session.NewBaseSession(sid, s.cfg.Encoder), data: data}
	x.SetData(values)
	return x, nil
}

func (s *store) create(ctx context.Context, sid string) ([]byte, error) {
	data, err := s.cfg.Encoder(session.Data{})
	if err != nil {
		return nil, err
	}
	return data, record.Create(ctx, s.files, sid, data, s.cfg.Lifetime)
}

// Destroy removes the session sid. There need not be one.
func (s *store) Destroy(ctx context.Context, sid string) error {
	return wrap(record.Delete(finish(ctx), s.files, sid))
}

// Save stores what has changed in sess, unless the session was destroyed meanwhile. A session that is
// not of Read's making is stored in any case.
func (s *store) Save(ctx context.Context, sess session.Session) error {
	ctx = finish(ctx)
	x, ours := sess.(*loaded)
	if ours {
		x.mu.Lock()
		defer x.mu.Unlock()
	}
	data, err := sess.Encode()
	switch {
	case err != nil:
		return fmt.Errorf("flamegostore: encode: %w", err)
	case !ours:
		return wrap(record.Set(ctx, s.files, sess.ID(), data, s.cfg.Lifetime))
	case record.Same(x.data, data, s.cfg.Decoder): // a value may have been changed in place
		err = record.Touch(ctx, s.files, x.ID(), s.cfg.Lifetime)
	default:
		if err = record.Replace(ctx, s.files, x.ID(), data, s.cfg.Lifetime); err == nil {
			x.data = data
		}
	}
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	return wrap(err)
}

// GC removes the sessions that have expired.
func (s *store) GC(ctx context.Context) error {
	_, err := s.files.Reap(record.Background(ctx))
	return wrap(err)
}

// finish is for what must not be left undone because a client has gone; Options.LockTimeout ends its waits.
func finish(ctx context.Context) context.Context {
	return context.WithoutCancel(record.Background(ctx))
}

func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return context.Canceled // bare, or the framework does not know it and panics
	default:
		return fmt.Errorf("flamegostore: %w", err)
	}
}
