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
			if id, ok := s.id(entry.Name()); ok && entry.Type().IsRegular() && !yield(id, nil) {
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
		dir, err := s.root.Open(".") // of its own: a descriptor has one position
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
			sess, err := s.load(id, id+s.opts.Extension)
			if err != nil && s.interrupted(ctx) != nil {
				continue // ids will say so
			}
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
			idErr = wrap("clear", id, s.removeIf(ctx, id, func(err error) bool {
				return err == nil || errors.Is(err, ErrExpired)
			}))
		}
		err = cmp.Or(err, idErr)
	}
	return cmp.Or(err, wrap("clear", "", s.sync()))
}

// removeIf removes the session id, under its lock, if doomed says so of the outcome of loading it.
func (s *Store) removeIf(ctx context.Context, id string, doomed func(error) bool) error {
	l, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer l.unlock()
	name := id + s.opts.Extension
	if _, err := s.load(id, name); doomed(err) {
		return s.remove(l, name)
	} else if !noSession(err) {
		return err
	}
	return nil
}
