package filestore

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Node's temporary files carry no sign of whether their writer lives. write-file-atomic
// keeps one for milliseconds; an hour is beyond any clock's doubt.
const staleAfter = time.Hour

// reapLoop is the background reaper. It runs until Close.
func (s *Store) reapLoop() {
	tick := time.NewTicker(s.opts.ReapInterval)
	defer tick.Stop()
	skipped := false
	for {
		select {
		case <-s.done.Done():
			return
		case <-tick.C:
		}
		// One process at a time is enough, but a stopped process must not stop
		// all: nobody skips twice running, so that what has expired is gone
		// after two intervals.
		unlock, ok := s.tryReapLock()
		if !ok && !skipped {
			skipped = true
			continue
		}
		skipped = false
		if _, err := s.reap(s.done); err != nil && !errors.Is(err, context.Canceled) {
			s.opts.Logger.Error("filestore: reap", "dir", s.path, "err", err)
		}
		unlock()
	}
}

// tryReapLock tries the lock that says that a process reaps this directory: an
// flock on .locks itself. Where that cannot be, reapers only double their work.
func (s *Store) tryReapLock() (unlock func(), ok bool) {
	l := flock.New(s.lockPath(lockDir), flock.SetFlag(lockFlags))
	ok, err := l.TryLock()
	return func() { l.Unlock() }, ok || err != nil
}

// Reap makes one pass over the directory: it removes the sessions that have
// expired and the temporary files that dead writers left, and returns the
// number of sessions removed. A session that is renewed before its removal
// stays. Files that cannot be read, and all that is not ours, stay. Reap goes
// on after an error and returns the first ones joined.
//
// Any number of processes may reap at once. The background reaper of a Store
// leaves a pass to another process that is at one.
func (s *Store) Reap(ctx context.Context) (n int, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, wrap("reap", "", err)
	}
	defer s.leave()
	unlock, _ := s.tryReapLock()
	defer unlock()
	return s.reap(ctx)
}

func (s *Store) reap(ctx context.Context) (n int, err error) {
	select { // a second pass at the same time would only wait for the first one's locks
	case s.reaping <- struct{}{}:
		defer func() { <-s.reaping }()
	case <-ctx.Done():
		return 0, wrap("reap", "", ctx.Err())
	case <-s.done.Done():
		return 0, wrap("reap", "", ErrClosed)
	}
	var errs failures
	unreadable := 0
	for entry, err := range s.list() {
		if err == nil {
			err = s.interrupted(ctx)
		}
		if err != nil {
			errs.add(wrap("reap", "", err))
			break
		}
		id, ok := s.id(entry.Name())
		if !ok {
			errs.add(wrap("reap", "", s.sweep(entry)))
			continue
		}
		removed, err := s.reapOne(ctx, id, entry)
		switch {
		case removed:
			n++
		case errors.Is(err, fs.ErrNotExist): // somebody else was faster
		case noSession(err):
			unreadable++
		default:
			errs.add(wrap("reap", id, err))
		}
	}
	if unreadable > 0 {
		s.opts.Logger.Warn("filestore: reap left files that hold no session", "dir", s.path, "files", unreadable)
	}
	return n, errs.join()
}

// reapOne removes the session id if it has expired. It looks twice, the second
// time under the lock: a session that is renewed in between must stay.
func (s *Store) reapOne(ctx context.Context, id string, entry fs.DirEntry) (removed bool, err error) {
	fi, err := entry.Info()
	if err != nil {
		return false, err
	}
	if s.ahead(fi) {
		return false, nil
	}
	sess, err := s.load(id, entry.Name())
	switch {
	case err == nil && sess.assumed:
		// It counts as accessed now, and would at every look: write that down.
		return false, s.update(ctx, "reap", id, entry.Name(), func(*Session) error { return nil })
	case !errors.Is(err, ErrExpired):
		return false, err
	}
	err = s.removeIf(ctx, id, func(err error) bool {
		removed = errors.Is(err, ErrExpired)
		return removed
	})
	return removed && err == nil, err
}

// ahead reports that the file's mtime says, credibly, that its session expires
// in the future, so that it need not be read. Our writers stamp the expiry, in
// whole milliseconds; a time of writing, by Node or an editor, is not.
func (s *Store) ahead(fi fs.FileInfo) bool {
	t := fi.ModTime()
	return t.After(time.Now()) && t.Nanosecond()%int(time.Millisecond) == 0
}

// sweep removes a temporary file whose writer is dead.
func (s *Store) sweep(entry fs.DirEntry) error {
	name := entry.Name()
	if st := s.ourTemp(name); st != nil {
		// Its writer holds the stripe's lock until it has renamed or removed it.
		l, ok, err := s.tryLock(st)
		if !ok {
			return err
		}
		defer l.unlock()
	} else if fi, err := entry.Info(); !nodeTemp(name, s.opts.Extension) || err != nil || time.Since(fi.ModTime()) < staleAfter {
		return nil
	}
	if fi, err := s.root.Lstat(name); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	if err := s.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ourTemp returns the stripe that the writer of the temporary file name holds,
// nil if it is no temporary file of ours. See replace.
func (s *Store) ourTemp(name string) *stripe {
	if len(name) != len(".3f-~")+26 || name[0] != '.' || name[3] != '-' || name[len(name)-1] != '~' ||
		strings.Trim(name[4:len(name)-1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return nil
	}
	for i := range s.stripes {
		if s.stripes[i].name == name[1:3] {
			return &s.stripes[i]
		}
	}
	return nil
}

// nodeTemp reports whether name is one that write-file-atomic gives to the
// temporary file of a session: <id><extension>.<digits>.
func nodeTemp(name, extension string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > 0 && i < len(name)-1 && strings.Trim(name[i+1:], "0123456789") == "" &&
		len(name[:i]) > len(extension) && strings.HasSuffix(name[:i], extension)
}
