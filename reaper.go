package filestore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Node's temporary files do not show whether their writer lives. It keeps one for milliseconds.
const staleAfter = time.Hour

// reapLoop is the background reaper. It runs until Close. Every process on a directory has one: a
// lock to have but one at work would let a stopped process stop them all.
func (s *Store) reapLoop() {
	tick := time.NewTicker(s.opts.ReapInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done.Done():
			return
		case <-tick.C:
		}
		if _, err := s.reap(s.done); err != nil && s.done.Err() == nil {
			s.opts.Logger.Error("filestore: reap", "dir", s.path, "err", err)
		}
	}
}

// Reap makes one pass over the directory: it removes the sessions that have expired and the
// temporary files of dead writers, and returns the number of sessions removed. A session that is
// renewed before its removal stays. What cannot be read, and what is not ours, stays. Reap goes on
// after an error and returns the first. Any number of processes may reap at once.
func (s *Store) Reap(ctx context.Context) (n int, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, wrap("reap", "", err)
	}
	defer s.ops.Done()
	return s.reap(ctx)
}

func (s *Store) reap(ctx context.Context) (n int, err error) {
	// The first pass reads every file: the ends that their mtimes tell may be those of another TTL.
	trust, unreadable := s.swept.Load(), 0
	for entry, listErr := range s.list() {
		if listErr = cmp.Or(s.interrupted(ctx), listErr); listErr != nil {
			return n, cmp.Or(err, wrap("reap", "", listErr))
		}
		id, ok := s.id(entry.Name())
		if !ok {
			err = cmp.Or(err, wrap("reap", "", s.sweep(entry)))
			continue
		}
		removed, oneErr := s.reapOne(ctx, id, entry, trust)
		switch {
		case removed:
			n++
		case errors.Is(oneErr, fs.ErrNotExist): // somebody else was faster
		case noSession(oneErr):
			unreadable++
		default:
			err = cmp.Or(err, wrap("reap", id, oneErr))
		}
	}
	s.swept.Store(true)
	if unreadable > 0 {
		s.opts.Logger.Warn("filestore: reap passed over files that hold no session", "dir", s.path, "files", unreadable)
	}
	return n, err
}

// reapOne removes the session id if it has expired. It looks twice, the second time under the lock:
// a session that is renewed in between must stay.
func (s *Store) reapOne(ctx context.Context, id string, entry fs.DirEntry, trust bool) (removed bool, err error) {
	fi, err := entry.Info()
	if err != nil || trust && ahead(fi.ModTime()) {
		return false, err
	}
	sess, err := s.load(id, entry.Name())
	if err == nil && sess.assumed { // see date
		return false, s.update(ctx, id, entry.Name(), func(*Session) error { return nil })
	}
	if errors.Is(err, ErrExpired) {
		err = s.removeIf(ctx, id, func(err error) bool {
			removed = errors.Is(err, ErrExpired)
			return removed
		})
	}
	return removed && err == nil, err
}

// ahead reports that mtime tells credibly of an expiry to come, so that the file need not be read.
// Our writers stamp the expiry, in whole milliseconds; the time of a write, by Node or an editor, has
// a rest.
func ahead(mtime time.Time) bool {
	return mtime.After(time.Now()) && mtime.Nanosecond()%int(time.Millisecond) == 0
}

var ourTemp = regexp.MustCompile(`^\.([0-3][0-9a-f])-[A-Z2-7]{26}~$`) // see replace

// sweep removes a temporary file whose writer is dead.
func (s *Store) sweep(entry fs.DirEntry) error {
	name := entry.Name()
	if m := ourTemp.FindStringSubmatch(name); m != nil {
		// Its writer holds the stripe's lock until it has renamed or removed it.
		i, _ := strconv.ParseUint(m[1], 16, 8)
		l, err := s.tryLock(&s.stripes[i])
		if l == nil {
			return err
		}
		defer l.unlock()
	} else if fi, err := entry.Info(); err != nil || !nodeTemp(name, s.opts.Extension) || time.Since(fi.ModTime()) < staleAfter {
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

// nodeTemp reports whether name is what write-file-atomic calls the temporary file of a session:
// <id><extension>.<digits>.
func nodeTemp(name, extension string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > len(extension) && i < len(name)-1 && strings.HasSuffix(name[:i], extension) &&
		strings.Trim(name[i+1:], "0123456789") == ""
}
