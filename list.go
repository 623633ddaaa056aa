package filestore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
)

// An Entry is one session of All.
type Entry struct {
	ID      string
	Session *Session
}

// IDs yields the id of each session file, in no order, without reading the file: the session may
// have expired, or the file hold none. Sessions that come or go meanwhile may or may not be among
// them. It ends after an error.
func (s *Store) IDs(ctx context.Context) iter.Seq2[string, error] { return s.ids(ctx, "ids") }

func (s *Store) ids(ctx context.Context, op string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.interrupted(ctx)
		for entry, listErr := range s.list() { // without enter: Close must not wait for the caller's loop
			if listErr != nil { // maybe because the Store was closed
				err = cmp.Or(s.interrupted(ctx), listErr)
			}
			if err != nil {
				break
			}
			if k, ok := s.keyOf(entry.Name()); ok && entry.Type().IsRegular() && !yield(k.id, nil) {
				return
			}
			err = s.interrupted(ctx)
		}
		if err != nil {
			yield("", wrap(op, "", err))
		}
	}
}

// list yields the entries of the directory, holding a batch of them at a time.
func (s *Store) list() iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		dir, err := s.dir.root.Open(".") // of its own: a descriptor has one position
		if err == nil {
			defer dir.Close()
		}
		for err == nil {
			var entries []fs.DirEntry
			entries, err = dir.ReadDir(1024)
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
		}
		if err != io.EOF {
			yield(nil, err)
		}
	}
}

// interrupted tells long work to end.
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
		for id, err := range s.ids(ctx, "all") {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if s.enter(ctx) != nil {
				continue // ids will say so
			}
			sess, err := s.load(key{id: id, name: id + s.opts.Extension}, false) // a scan must not empty the cache
			s.ops.Done()
			if !noSession(err) && !yield(Entry{id, sess}, wrap("all", id, err)) {
				return
			}
		}
	}
}

// noSession tells of the file, not of the attempt to read it.
func noSession(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsafeFile)
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

// Clear destroys all sessions, the expired ones too. Everything else in the directory stays, also
// what is named like a session but holds none. A session that is made meanwhile may survive. Clear
// goes on after an error and returns the first.
func (s *Store) Clear(ctx context.Context) (err error) {
	if err := s.enter(ctx); err != nil {
		return wrap("clear", "", err)
	}
	defer s.ops.Done()
	for id, idErr := range s.ids(ctx, "clear") {
		if idErr == nil {
			_, removeErr := s.removeIf(ctx, key{id: id, name: id + s.opts.Extension}, nil, func(err error) bool {
				return err == nil || errors.Is(err, ErrExpired)
			})
			idErr = wrap("clear", id, removeErr)
		}
		err = cmp.Or(err, idErr)
	}
	return cmp.Or(err, wrap("clear", "", s.sync()))
}

// removeIf removes a session, under its lock, if doomed says so of the outcome of loading it.
// The file need not be read again where it still is the one of d, which may be nil.
func (s *Store) removeIf(ctx context.Context, k key, d *document, doomed func(error) bool) (removed bool, err error) {
	st, err := s.lock(ctx, k.id)
	if err != nil {
		return false, err
	}
	defer st.unlock()
	m, err := s.stat(k.name)
	if d == nil || !d.settled || err != nil || m.version != d.version {
		d, err = s.document(k, false)
	}
	if err == nil {
		err = s.judge(d, new(Session))
	}
	if doomed(err) {
		err = s.remove(st, k)
		return err == nil, err
	}
	if noSession(err) {
		err = nil
	}
	return false, err
}
