package filestore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Locks. A session's lock is one of a fixed set of files in .locks, chosen by a
// hash of its id, made at Open and never unlinked by us. A lock file per
// session would have to be deleted some day, and then one process locks the
// deleted file and another its successor.
//
// Between processes the operating system's flock excludes, and a crash frees
// it. Between goroutines of a Store it does not, so a channel of one slot
// queues them in front of it, in order; only the head of the queue polls the
// file, with a bound. Nothing holds two locks.
//
// The number of stripes, their names and the hash are part of the format of a
// directory: all processes on it must agree.
const (
	lockDir = ".locks"
	stripes = 64

	pollMin = 100 * time.Microsecond
	pollMax = 4 * time.Millisecond

	// A lock file that somebody deleted may still be held through its old
	// inode, by a writer that has seen it in place for the last time and is
	// about to rename. The first holders of its successor wait until that
	// writer, microseconds from its rename, is done.
	settle = 20 * time.Millisecond
)

type stripe struct {
	name string        // "00" to "3f"
	slot chan struct{} // whoever has put its token in may use file
	file *flock.Flock
}

// A lock is held until unlock. stands is asked at the last moment before a
// change takes effect.
type lock struct {
	s      *Store
	stripe *stripe
	fi     fs.FileInfo // the locked file
}

func (s *Store) stripe(id string) *stripe {
	h := fnv.New32a()
	h.Write([]byte(id))
	return &s.stripes[h.Sum32()%stripes]
}

func (st *stripe) path() string { return lockDir + "/" + st.name }

// openLocks makes the lock files that are missing and tries one, so that a file
// system without locks is an error here and not unlocked work later.
func (s *Store) openLocks() error {
	err := s.root.Mkdir(lockDir, 0o700)
	if err == nil {
		err = s.adopt(lockDir, 0o700)
	}
	readOnly := errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
	if fi, statErr := s.root.Lstat(lockDir); statErr == nil && !fi.IsDir() {
		return fmt.Errorf("%w: %s is no directory", ErrUnsafeFile, lockDir)
	} else if statErr == nil {
		folded, foldErr := s.root.Lstat(".LOCKS")
		s.fold = foldErr == nil && os.SameFile(fi, folded)
	} else if !readOnly {
		return errors.Join(err, statErr)
	}
	for i := range s.stripes {
		st := &s.stripes[i]
		st.name = fmt.Sprintf("%02x", i)
		st.slot = make(chan struct{}, 1)
		st.file = flock.New(s.lockPath(st.path()), flock.SetFlag(lockFlags))
		if !readOnly {
			err = s.makeLock(st)
			readOnly = errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
			if err != nil && !readOnly {
				return err
			}
		}
	}
	if readOnly {
		s.opts.Logger.Warn("filestore: no writing here, sessions can only be read", "dir", s.path, "err", bare(err))
		return nil
	}
	l, _, err := s.tryLock(&s.stripes[0])
	if l != nil {
		l.unlock()
	}
	return err
}

// adopt sets the mode, whatever the umask, and for root the owner.
func (s *Store) adopt(name string, mode fs.FileMode) error {
	if s.uid >= 0 {
		if err := s.root.Lchown(name, s.uid, s.gid); err != nil {
			return err
		}
	}
	return s.root.Chmod(name, mode)
}

// lockPath is the path by which flock finds a file of the directory that we
// opened, even after its name has changed, where the system has such paths.
func (s *Store) lockPath(name string) string {
	if runtime.GOOS == "linux" {
		self := fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd())
		if fi, err := os.Stat(self); err == nil {
			if dir, err := s.dir.Stat(); err == nil && os.SameFile(fi, dir) {
				return self + "/" + name
			}
		}
	}
	return filepath.Join(s.path, filepath.FromSlash(name))
}

// makeLock makes the stripe's lock file where it is missing.
func (s *Store) makeLock(st *stripe) error {
	fi, err := s.root.Lstat(st.path())
	switch {
	case err == nil && !fi.Mode().IsRegular():
		return fmt.Errorf("%w: lock file is %s", ErrUnsafeFile, kind(fi.Mode()))
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := s.root.Mkdir(lockDir, 0o700); err == nil { // all of it may have been deleted
		err = s.adopt(lockDir, 0o700)
		if err != nil {
			return err
		}
	}
	f, err := s.root.OpenFile(st.path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody else just made it
	}
	if err != nil {
		return err
	}
	f.Close()
	return s.adopt(st.path(), 0o600)
}

// lock waits for the lock of the session id: until ctx is done, or
// Options.LockTimeout has passed.
func (s *Store) lock(ctx context.Context, id string) (*lock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.LockTimeout, ErrLockTimeout)
	defer cancel()
	st := s.stripe(id)
	select {
	case st.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for pause := pollMin; ; pause = min(2*pause, pollMax) {
		l, retry, err := s.tryFile(st)
		if l != nil {
			return l, nil
		}
		if err != nil && !retry {
			<-st.slot
			return nil, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)): // the processes must not keep step
		case <-ctx.Done():
			<-st.slot
			return nil, context.Cause(ctx)
		}
	}
}

// tryLock is lock without waiting; ok is false where somebody holds it.
func (s *Store) tryLock(st *stripe) (l *lock, ok bool, err error) {
	select {
	case st.slot <- struct{}{}:
	default:
		return nil, false, nil
	}
	for range 100 {
		l, retry, err := s.tryFile(st)
		if l != nil {
			return l, true, nil
		}
		if !retry {
			<-st.slot
			return nil, false, err
		}
	}
	<-st.slot
	return nil, false, nil
}

// tryFile tries the stripe's file; its caller has the slot. With no lock and no
// error somebody else holds it; retry says that another attempt can differ.
func (s *Store) tryFile(st *stripe) (l *lock, retry bool, err error) {
	ok, err := st.file.TryLock()
	switch {
	case errors.Is(err, syscall.EINTR): // gofrs/flock hands it to its caller
		return nil, true, err
	case errors.Is(err, fs.ErrNotExist):
		if err := s.makeLock(st); err != nil {
			return nil, false, err
		}
		return nil, true, err
	case err != nil:
		if fi, statErr := s.root.Lstat(st.path()); statErr == nil && !fi.Mode().IsRegular() {
			err = fmt.Errorf("%w: lock file is %s", ErrUnsafeFile, kind(fi.Mode()))
		}
		return nil, false, err
	case !ok:
		return nil, false, nil
	}
	l = &lock{s: s, stripe: st}
	if l.fi, err = st.file.Stat(); err == nil && !l.fi.Mode().IsRegular() {
		err = fmt.Errorf("%w: lock file is %s", ErrUnsafeFile, kind(l.fi.Mode()))
	}
	if err != nil {
		l.release()
		return nil, false, err
	}
	if age := time.Since(l.fi.ModTime()).Abs(); age < settle {
		time.Sleep(settle - age)
	}
	if l.stands() != nil { // deleted or replaced between its opening and its locking
		l.release()
		return nil, true, errLockLost
	}
	return l, false, nil
}

var errLockLost = fmt.Errorf("%w: the lock file was replaced", ErrUnsafeFile)

// stands reports an error where the locked file is no longer the one that
// others would lock.
func (l *lock) stands() error {
	fi, err := l.s.root.Lstat(l.stripe.path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !os.SameFile(fi, l.fi) {
		return errLockLost
	}
	return nil
}

func (l *lock) unlock() {
	l.release()
	<-l.stripe.slot
}

// release frees the file and keeps the slot.
func (l *lock) release() {
	for range 100 {
		if l.stripe.file.Unlock() == nil {
			return
		}
	}
	// Unlock keeps lock and descriptor when it fails. A new Flock lets the
	// runtime close the descriptor of the old, which frees the lock.
	l.stripe.file = flock.New(l.stripe.file.Path(), flock.SetFlag(lockFlags))
}
