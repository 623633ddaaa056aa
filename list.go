package filestore

import (
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

// list yields the directory's entries in batches' memory, in no order. What
// appears or vanishes meanwhile may or may not be among them. The caller has
// entered the Store.
func (s *Store) list() iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		dir, err := s.root.Open(".") // of its own: a descriptor has one position
		if err != nil {
			yield(nil, err)
			return
		}
		defer dir.Close()
		for {
			entries, err := dir.ReadDir(1024)
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// IDs yields the id of each session file, in no order, without reading the
// file: the session may have expired, or the file may hold none. Sessions that
// come or go meanwhile may or may not be among them. After an error it ends.
func (s *Store) IDs(ctx context.Context) iter.Seq2[string, error] {
	return s.ids(ctx, "ids")
}

func (s *Store) ids(ctx context.Context, op string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := s.interrupted(ctx)
		for entry, listErr := range s.list() { // not entered: Close must not wait for the caller's loop
			if err == nil {
				err = listErr
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

// interrupted is for what goes on for long: Close must not wait for its end.
func (s *Store) interrupted(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.done.Err() != nil {
		return ErrClosed
	}
	return nil
}

// All yields the live sessions, in no order. Expired sessions and files that
// hold no session are passed over; for a session that could not be read for
// another reason it yields the error, with the Entry's ID set, and goes on.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for id, err := range s.ids(ctx, "all") {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			sess, err := s.load(id, id+s.opts.Extension)
			if noSession(err) {
				continue
			}
			if !yield(Entry{id, sess}, wrap("all", id, err)) {
				return
			}
		}
	}
}

// noSession reports errors that tell of the file, not of the attempt to read it.
func noSession(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsafeFile)
}

// Len returns the number of live sessions. It reads each.
func (s *Store) Len(ctx context.Context) (int, error) {
	n := 0
	for _, err := range s.All(ctx) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// Clear destroys all sessions, the expired ones too. Everything else in the
// directory stays, also files that are named like sessions but hold none. A
// session that is made meanwhile may survive. It goes on after an error and
// returns all of them joined.
func (s *Store) Clear(ctx context.Context) error {
	var errs failures
	for id, err := range s.ids(ctx, "clear") {
		if err == nil {
			err = wrap("clear", id, s.removeIf(ctx, id, func(err error) bool {
				return err == nil || errors.Is(err, ErrExpired)
			}))
		}
		errs.add(err)
	}
	if err := s.enter(ctx); err != nil {
		errs.add(wrap("clear", "", err))
		return errs.join()
	}
	defer s.leave()
	errs.add(wrap("clear", "", s.sync()))
	return errs.join()
}

// removeIf removes the session id, under its lock, if the outcome of loading it
// is one that doomed agrees to.
func (s *Store) removeIf(ctx context.Context, id string, doomed func(error) bool) error {
	name := id + s.opts.Extension
	l, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer l.unlock()
	if _, err := s.load(id, name); !doomed(err) {
		if noSession(err) {
			err = nil
		}
		return err
	}
	return s.remove(l, name)
}

// failures joins the first errors of a pass; a hundred thousand tell no more.
type failures struct {
	errs []error
}

func (f *failures) add(err error) {
	if err != nil && len(f.errs) < 10 {
		f.errs = append(f.errs, err)
	}
}

func (f *failures) join() error { return errors.Join(f.errs...) }
