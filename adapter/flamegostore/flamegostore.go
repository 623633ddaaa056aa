// Package flamegostore keeps the sessions of github.com/flamego/session in a filestore.Store:
//
//	f.Use(session.Sessioner(flamegostore.Options(store, session.Options{})))
//
// The framework's contract holds, and filestore's promises for single sessions hold too: a reader sees
// one complete version, what was stored stays, and what was destroyed stays away, also when the request
// that destroyed a session, or a slower one, saves it at its end. The framework's file store then makes
// it again.
//
//   - A new session is pending until it holds a value at the end of a request: a visitor who leaves nothing
//     leaves no file.
//   - Save stores the keys that the request has changed, also in place; all others stay as parallel requests
//     have them by then, so that a slow request does not undo a logout that deletes a key. If nothing has
//     changed it moves the deadline, as Touch does; filestore.Options.TouchAfter spares most of these writes.
//   - Session.RegenerateID, which a login should call, moves the session at once: what the request has put in
//     goes to the new id, and the old session is removed. The framework's file store keeps it. If the session was
//     destroyed meanwhile, or moved by another request, the error is filestore.ErrNotFound, and the client keeps
//     its id.
//   - The framework adopts any id of its form that a client sends. With Options it does not: a client gets a
//     new id if it sends one that no session has. Only this process knows the ids of pending sessions, and
//     remembers 10,000: after a restart, and from another process, their next request gets a new id.
//   - A session counts as none if it cannot be read, as its file is damaged or encrypted otherwise, or as its
//     values cannot be decoded. The file stays, and Config.Logger is told each time. With Options the visitor gets
//     a new session, under a new id. With Initer alone they get an empty one under the old id: a RegenerateID moves
//     it, but a Save cannot store it.
//   - Other errors of Read and Save, such as an I/O error, make the framework panic, and
//     flamego.Recovery answers 500. Save comes after the handler: what that has written may be on its way.
//   - Save and Destroy do their work although the client has gone, like those of the framework's file store.
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
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/flamego/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// Config is what session.Options.Config may hold. Its zero value stands for the framework's defaults, and so does
// no Config.
type Config struct {
	Lifetime time.Duration   // of a session after its last request, at least a second; 0 = 1 h
	Encoder  session.Encoder // nil = session.GobEncoder
	Decoder  session.Decoder // nil = session.GobDecoder
	Logger   *slog.Logger    // told of files that cannot be read; nil = slog.Default()
}

// Options returns opt for sessions in s: with the Initer, and with a ReadIDFunc. The latter reads
// the id by opt's own, or else from the cookie, and passes it on only if there is such a session.
func Options(s *filestore.Store, opt session.Options) session.Options {
	read := opt.ReadIDFunc
	if read == nil {
		name := cmp.Or(opt.Cookie.Name, "flamego_session") // as the framework has it
		read = func(r *http.Request) string {
			cookie, err := r.Cookie(name)
			if err != nil {
				return ""
			}
			return cookie.Value
		}
	}
	var made *store
	opt.Initer = func(ctx context.Context, args ...interface{}) (session.Store, error) {
		var err error
		made, err = newStore(s, args)
		return made, err
	}
	opt.ReadIDFunc = func(r *http.Request) string {
		id := read(r)
		if id == "" {
			return ""
		}
		if ok, err := made.sessions.Exist(r.Context(), id); !ok && err == nil {
			return ""
		}
		return id // Read tells the error
	}
	return opt
}

// Initer returns the session.Initer whose sessions are in s; use Options. It fails if the config is not a
// Config.
func Initer(s *filestore.Store) session.Initer {
	return func(_ context.Context, args ...interface{}) (session.Store, error) { return newStore(s, args) }
}

func newStore(s *filestore.Store, args []interface{}) (*store, error) {
	x := new(store)
	for _, arg := range args {
		switch arg := arg.(type) {
		case nil: // the framework's way to pass none
		case Config:
			x.cfg = arg
		case session.IDWriter:
			x.writeID = arg
		default:
			return nil, fmt.Errorf("flamegostore: the config is a %T, want a %T", arg, x.cfg)
		}
	}
	if s == nil {
		return nil, errors.New("flamegostore: the Store is nil")
	}
	if x.writeID == nil {
		return nil, errors.New("flamegostore: there is no session.IDWriter")
	}
	if x.cfg.Lifetime < 0 {
		return nil, errors.New("flamegostore: Config.Lifetime is negative")
	}
	if 0 < x.cfg.Lifetime && x.cfg.Lifetime < time.Second {
		return nil, fmt.Errorf("flamegostore: Config.Lifetime is %v, and must be at least a second: for seconds write 3600*time.Second", x.cfg.Lifetime)
	}
	x.cfg.Lifetime = cmp.Or(x.cfg.Lifetime, time.Hour)
	if x.cfg.Encoder == nil {
		x.cfg.Encoder = session.GobEncoder
	}
	if x.cfg.Decoder == nil {
		x.cfg.Decoder = session.GobDecoder
	}
	maps := record.Maps[any]{
		Files:  s,
		Encode: func(values map[any]any) ([]byte, error) { return x.cfg.Encoder(values) },
		Decode: func(data []byte) (map[any]any, error) { return x.cfg.Decoder(data) },
	}
	x.sessions = record.NewSessions(maps, func(err error) {
		cmp.Or(x.cfg.Logger, slog.Default()).Warn("flamegostore: a session that cannot be read counts as none", "err", err)
	})
	return x, nil
}

type store struct {
	sessions *record.Sessions
	cfg      Config
	writeID  session.IDWriter
}

// Exist reports that there is a session sid, and also that it cannot tell: Read will.
func (s *store) Exist(ctx context.Context, sid string) bool {
	ok, err := s.sessions.Exist(record.Background(ctx), sid)
	return ok || err != nil
}

// Read returns the session sid. If it cannot be read, or there is not one, an empty one begins.
func (s *store) Read(ctx context.Context, sid string) (session.Session, error) {
	values, held, err := s.sessions.Read(record.Background(ctx), sid)
	if record.Unreadable(err) {
		err = s.sessions.Readable(err)
		values, held = s.sessions.Begin(sid)
	}
	if err != nil {
		return nil, wrap(err)
	}
	return &loaded{BaseSession: session.NewBaseSessionWithData(sid, s.cfg.Encoder, nil, values), store: s, held: held}, nil
}

// Destroy removes the session sid. There need not be one.
func (s *store) Destroy(ctx context.Context, sid string) error {
	return wrap(s.sessions.Destroy(finish(ctx), sid))
}

// Touch starts the life of the session sid again, if there is one.
func (s *store) Touch(ctx context.Context, sid string) error {
	ctx = finish(ctx)
	_, _, err := s.sessions.Load(ctx, sid) // the framework may have adopted the id of another program's session
	if record.Unreadable(err) {
		return nil // Read has told it, and begun another
	}
	if err == nil {
		err = record.Touch(ctx, s.sessions.Files, sid, s.cfg.Lifetime)
	}
	return wrap(present(err))
}

// present returns err, unless it says that the session is gone.
func present(err error) error {
	if errors.Is(err, filestore.ErrNotFound) {
		return nil
	}
	return err
}

// Save stores what has changed in sess, unless the session was destroyed meanwhile. A session that
// does not come from Read is stored in any case.
func (s *store) Save(ctx context.Context, sess session.Session) error {
	x, ours := sess.(*loaded)
	if !ours {
		other, err := s.Read(ctx, sess.ID())
		if err != nil {
			return err
		}
		x = other.(*loaded)
	}
	values, err := s.values(sess)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return wrap(present(s.sessions.Save(finish(ctx), x.held, values, s.cfg.Lifetime)))
}

// values returns what sess holds: it shows that only as its Encoder encodes it.
func (s *store) values(sess session.Session) (map[any]any, error) {
	data, err := sess.Encode()
	if err != nil {
		return nil, fmt.Errorf("flamegostore: encode: %w", err)
	}
	values, err := s.cfg.Decoder(data)
	if err != nil {
		return nil, fmt.Errorf("flamegostore: decode: %w", err)
	}
	return values, nil
}

// GC removes the sessions that have expired.
func (s *store) GC(ctx context.Context) error {
	_, err := s.sessions.Files.Reap(record.Background(ctx))
	return wrap(err)
}

// A loaded session is one request's.
type loaded struct {
	*session.BaseSession
	store *store

	mu   sync.Mutex // guards held
	held *record.Held
}

func (x *loaded) ID() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.held.Key
}

// HasChanged reports that a Save would store something: a value may have been changed in place.
func (x *loaded) HasChanged() bool {
	data, err := x.Encode()
	if err != nil {
		return true // Save tells the error
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	changed, err := x.store.sessions.Changed(&x.held.Copy, data)
	return changed || err != nil
}

// RegenerateID moves the session to a new id, at once, and tells that to the client. The error is
// filestore.ErrNotFound if the session was destroyed meanwhile, or moved by another request.
func (x *loaded) RegenerateID(w http.ResponseWriter, r *http.Request) error {
	values, err := x.store.values(x)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var sid string // as the framework makes them
	err = session.NewBaseSession(x.held.Key, nil, func(_ http.ResponseWriter, _ *http.Request, id string) { sid = id }).RegenerateID(w, r)
	if err != nil {
		return wrap(err)
	}
	if err := x.store.sessions.Renew(finish(r.Context()), x.held, sid, values, x.store.cfg.Lifetime); err != nil {
		return wrap(err)
	}
	x.store.writeID(w, r, sid)
	return nil
}

// finish is for what must be done although the client has gone; Options.LockTimeout ends its waits.
func finish(ctx context.Context) context.Context {
	return context.WithoutCancel(record.Background(ctx))
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("flamegostore: %w", err)
}
