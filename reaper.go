package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
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
	wait := s.opts.ReapInterval / 10 // the first pass is early, for programs that often start anew
	for {
		select {
		case <-s.done.Done():
			return
		case <-time.After(wait):
			wait = s.opts.ReapInterval
		}
		// After a step ahead everything may seem to have expired. If the clock stays there the next pass
		// will remove it, if it is set right in time nobody is logged out.
		if step := s.clockStep(); step > 0 {
			s.opts.Logger.Warn("filestore: reap left out, the clock was set ahead", "dir", s.path, "by", step)
			s.passed()
			continue
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
	trust := s.clockStep() == 0
	unreadable := 0
	stuck := make(map[*stripe]bool) // whose holder is stopped: to wait once is enough
	for entry, listErr := range s.list() {
		if listErr = cmp.Or(s.interrupted(ctx), listErr); listErr != nil {
			return n, cmp.Or(err, wrap("reap", "", listErr))
		}
		id, ok := s.id(entry.Name())
		if !ok {
			err = cmp.Or(err, wrap("reap", "", s.sweep(entry)))
			continue
		}
		if stuck[s.stripe(id)] {
			continue
		}
		removed, oneErr := s.reapOne(ctx, id, entry, trust)
		switch {
		case removed:
			n++
		case errors.Is(oneErr, ErrNotFound): // somebody else was faster
		case noSession(oneErr):
			unreadable++
		default:
			stuck[s.stripe(id)] = errors.Is(oneErr, ErrLockTimeout)
			err = cmp.Or(err, wrap("reap", id, oneErr))
		}
	}
	if unreadable > 0 {
		s.opts.Logger.Warn("filestore: reap passed over files that hold no session", "dir", s.path, "files", unreadable)
	}
	if err == nil {
		s.passed()
	}
	return n, err
}

func (s *Store) passed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reaped = time.Now()
}

// clockStep returns by how much the clock was set since the last pass; the longest step there is
// before the first, of which we know nothing.
func (s *Store) clockStep() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reaped.IsZero() {
		return math.MinInt64
	}
	now := time.Now()
	step := now.Round(0).Sub(s.reaped.Round(0)) - now.Sub(s.reaped) // by the clock, less by the steady one
	if step.Abs() < clockSkew {
		return 0
	}
	return step
}

// reapOne removes the session id if it has expired. It looks twice, the second time under the lock:
// a session that is renewed in between must stay.
func (s *Store) reapOne(ctx context.Context, id string, entry fs.DirEntry, trust bool) (removed bool, err error) {
	if trust {
		fi, err := entry.Info()
		if err == nil && s.ahead(fi.ModTime()) {
			return false, nil
		}
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

// stamp returns the mtime for the file of sess: when it expires, with a tag of whose notion that is
// below the millisecond.
func (s *Store) stamp(sess *Session) time.Time {
	ttl := s.opts.TTL
	if sess.Cookie.OriginalMaxAge != 0 {
		ttl = ownLife
	}
	const latest = 1 << 33 // seconds, the year 2242; beyond 2262 the os package overflows
	at := sess.ExpiresAt(s.opts.TTL)
	if at.Unix() > latest {
		at = time.Unix(latest, 0)
	}
	return at.Truncate(time.Millisecond).Add(tag(ttl))
}

// ahead reports that mtime tells credibly of an expiry to come, so that the file need not be read: it
// carries the tag of our TTL, or of sessions with a life of their own. The time of a write by Node, a
// touch -d, and the stamp of a store with another TTL do not.
func (s *Store) ahead(mtime time.Time) bool {
	rest := time.Duration(mtime.Nanosecond()) % time.Millisecond
	return mtime.After(time.Now()) && (rest == tag(s.opts.TTL) || rest == tag(ownLife))
}

const ownLife time.Duration = 0 // no TTL is 0

// tag is a multiple of 100 ns, which is as fine as file systems go, and never 0.
func tag(ttl time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprint(h, int64(ttl))
	return time.Duration(1+h.Sum32()%9999) * 100
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
	} else if !s.staleNode(entry) {
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

// nodeTemp takes apart what write-file-atomic calls the temporary file of a session:
// <id><extension>.<a hash of 32 bits, in decimal>.
func nodeTemp(name, extension string) (id, hash string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || i == len(name)-1 || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", "", false
	}
	id, ok = strings.CutSuffix(name[:i], extension)
	return id, name[i+1:], ok
}

// staleNode reports whether entry is a temporary file of Node's that nobody will miss. Numbers that
// are short for a hash, which few are, it leaves to those who rotate or date their files.
func (s *Store) staleNode(entry fs.DirEntry) bool {
	id, hash, ok := nodeTemp(entry.Name(), s.opts.Extension)
	n, err := strconv.ParseUint(hash, 10, 32)
	if !ok || !ValidID(id) || err != nil || n < 1e8 || hash[0] == '0' {
		return false
	}
	fi, err := entry.Info()
	return err == nil && time.Since(fi.ModTime()) >= staleAfter
}
