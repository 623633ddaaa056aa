package filestore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"syscall"
)

// An Entry is one session of All.
type Entry struct {
	ID      string
	Session *Session
}

// IDs yields the id of each session file, in no order, without reading the file: the session may
// have expired, or the file hold none. Sessions that come or go meanwhile may or may not be among
// them. It ends after an error.
func (s *Store) IDs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for k, err := range s.keys(ctx, "ids") {
			if err == nil {
				if m, err := s.look(k); err != nil || !m.regular {
					continue
				}
			}
			if !yield(k.id, err) {
				return
			}
		}
	}
}

// keys yields what is named like a session.
func (s *Store) keys(ctx context.Context, op string) iter.Seq2[key, error] {
	return func(yield func(key, error) bool) {
		p := s.here()
		err := s.within(ctx, func(in *place) error { p = in; return in.there() })
		for name, listErr := range p.list() { // without enter: Close must not wait for the caller's loop
			if listErr != nil { // maybe because the Store was closed
				err = cmp.Or(s.interrupted(ctx), listErr)
			}
			if err != nil {
				break
			}
			if k, ok := p.keyOf(name); ok && !yield(k, nil) {
				return
			}
			err = s.interrupted(ctx)
		}
		if err != nil {
			yield(key{}, wrap(op, "", err))
		}
	}
}

// there is errGone where the directory was deleted, for those who list it and would find it empty.
func (s *place) there() error {
	if s.dir.gone() || !s.opts.ReadOnly && !s.inPlace() && s.makeLock(&s.stripes[0]) == errGone {
		return errGone
	}
	return nil
}

// look is directory.stat for those who have not entered.
func (s *Store) look(k key) (meta, error) {
	p, err := s.enter(context.Background())
	if err != nil {
		return meta{}, err
	}
	defer p.ops.Done()
	return p.dir.stat(k.name)
}

// list yields the names in the directory, holding a batch of them at a time. It tells no types, for
// which the os package looks at each file.
func (s *place) list() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir, err := s.dir.root.Open(".") // of its own: a descriptor has one position
		if err == nil {
			defer dir.Close()
		}
		for err == nil {
			var names []string
			names, err = dir.Readdirnames(1024)
			for _, name := range names {
				if !yield(name, nil) {
					return
				}
			}
		}
		deleted := errors.Is(err, syscall.ENOENT) || errors.Is(err, fs.ErrClosed) && s.done.Err() == nil
		if err != io.EOF && !deleted { // of which nothing is left
			yield("", err)
		}
	}
}

// interrupted returns why a long scan must stop, or nil.
func (s *Store) interrupted(ctx context.Context) error {
	if s.done.Err() != nil {
		return ErrClosed
	}
	return ctx.Err()
}

// All yields the live sessions, in no order. Expired sessions and files that hold no session are
// passed over; for a session that could not be read for another reason it yields the error, with an
// Entry that has the ID and no Session, and goes on.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for k, err := range s.keys(ctx, "all") {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			p, err := s.enter(ctx)
			if err != nil {
				continue // keys will say so
			}
			sess, err := p.load(ctx, k, false) // a scan must not empty the cache
			p.ops.Done()
			if !noSession(err) && !yield(Entry{k.id, sess}, wrap("all", k.id, err)) {
				return
			}
		}
	}
}

// Len returns the number of live sessions. It reads each.
func (s *Store) Len(ctx context.Context) (n int, err error) {
	for _, err := range s.All(ctx) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// Clear destroys all sessions, the expired ones too, and those larger than Options.MaxSize. Everything
// else in the directory stays, also what is named like a session but holds none. A session that is made
// meanwhile may survive. Clear goes on after an error and returns the first.
func (s *Store) Clear(ctx context.Context) error {
	return wrap("clear", "", s.within(ctx, func(p *place) error { return p.clear(ctx) }))
}

func (s *place) clear(ctx context.Context) error {
	if s.opts.ReadOnly {
		return errReadOnly
	}
	err := s.there()
	if err != nil {
		return err
	}
	own, cancel := s.untilClose(ctx)
	defer cancel()
	stuck := make(map[*stripe]bool) // whose holder is stopped: to wait once is enough
	for k, oneErr := range s.keys(ctx, "clear") {
		st := s.stripe(k.id)
		if oneErr == nil && !stuck[st] {
			_, oneErr = s.removeIf(own, k, nil, true)
			stuck[st] = errors.Is(oneErr, ErrLockTimeout)
			oneErr = wrap("clear", k.id, s.closedOr(oneErr))
		}
		err = cmp.Or(err, oneErr)
	}
	return cmp.Or(err, wrap("clear", "", s.sync()))
}

// removeIf removes a session, under its lock, if it has expired and its file does not tell of a later
// end; with all also one that lives. The file need not be read again where it still is the one of d,
// which may be nil.
func (s *place) removeIf(ctx context.Context, k key, d *document, all bool) (removed bool, err error) {
	st, err := s.lock(ctx, k.id)
	if err != nil {
		return false, err
	}
	defer st.unlock()
	m, err := s.dir.stat(k.name)
	if d == nil || !d.settled || err != nil || m.version != d.version {
		d, err = s.document(ctx, k, false)
	}
	if err == nil && (all || errors.Is(s.judge(d, new(Session)), ErrExpired) && !ahead(d.version)) {
		err = s.remove(st, k)
		return err == nil, err
	}
	if noSession(err) {
		err = nil
	}
	return false, err
}
