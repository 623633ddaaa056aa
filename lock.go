package filestore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A session's lock is one of a fixed set of files in .locks, chosen by a hash of its id, made at
// Open and never unlinked. (A lock file per session would have to be deleted some day, and then one
// process locks the deleted file and another its successor.)
//
// Between processes the system's flock excludes, and a crash frees it. Between goroutines it does
// not, so a channel of one slot queues them, in order; only the head of the queue polls the file.
// Nothing holds two locks.
//
// The number of stripes, their names and the hash belong to the format of a directory: all processes
// on it must agree.
const (
	lockDir = ".locks"
	stripes = 64

	pollMin = 100 * time.Microsecond
	pollMax = 4 * time.Millisecond

	// A lock file that somebody deleted may still be held, through its old inode, by a writer that
	// has seen it in its place for the last time and is about to rename. The first holders of its
	// successor wait until that writer, microseconds from its rename, is through.
	settle = 20 * time.Millisecond

	// Goroutines that hand a lock to each other leave other processes, which poll, no moment to get
	// it. After a tenure they let one go by.
	tenure = 50 * time.Millisecond
)

type stripe struct {
	name string        // "00" to "3f"
	slot chan struct{} // whoever has put a token in may use file
	file *flock.Flock

	began, freed time.Time // of the present tenure, and its last unlock
}

// A lock is held until unlock.
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

// openLocks makes the lock files that are missing and tries one, so that a file system without locks
// is an error here and not unlocked work later.
func (s *Store) openLocks() error {
	if fi, err := s.root.Lstat(lockDir); err == nil && !fi.IsDir() {
		return errLockFile
	}
	var err error
	for i := range s.stripes {
		st := &s.stripes[i]
		st.name = fmt.Sprintf("%02x", i)
		st.slot = make(chan struct{}, 1)
		st.file = newFlock(s.lockPath(st.path()))
		if err == nil {
			err = s.makeLock(st)
		}
	}
	if err == nil {
		var l *lock
		if l, err = s.tryLock(&s.stripes[0]); l != nil {
			l.unlock()
		}
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		s.opts.Logger.Warn("filestore: sessions can only be read here", "dir", s.path, "err", err)
		err = nil
	}
	upper, upperErr := s.root.Lstat(".LOCKS")
	lower, lowerErr := s.root.Lstat(lockDir)
	s.fold = upperErr == nil && lowerErr == nil && os.SameFile(upper, lower)
	return err
}

func newFlock(path string) *flock.Flock { return flock.New(path, flock.SetFlag(lockFlags)) }

// lockPath is how flock finds a file of the directory that we opened: by a path that holds when the
// directory's name has changed, where the system has one.
func (s *Store) lockPath(name string) string {
	self := fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd())
	fi, err := os.Stat(self)
	dir, dirErr := s.dir.Stat()
	if err == nil && dirErr == nil && os.SameFile(fi, dir) {
		return self + "/" + name
	}
	return filepath.Join(s.path, filepath.FromSlash(name))
}

// makeLock makes the stripe's lock file if it is missing.
func (s *Store) makeLock(st *stripe) error {
	fi, err := s.root.Lstat(st.path())
	if err == nil && !fi.Mode().IsRegular() {
		return errLockFile
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = s.root.Mkdir(lockDir, 0o700); err == nil {
		var dir *os.File
		if dir, err = s.root.Open(lockDir); err == nil {
			if _, full := dir.ReadDir(1); full == io.EOF { // else it is not what we made
				err = s.adopt(dir, 0o700)
			}
			dir.Close()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := s.root.OpenFile(st.path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody else just made it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return s.adopt(f, 0o600)
}

// adopt gives what we made the mode, whatever the umask, and the directory's owner if we are root.
// Never by name: the owner could have put root's own files there.
func (s *Store) adopt(f *os.File, mode fs.FileMode) error {
	if s.uid >= 0 {
		if err := f.Chown(s.uid, s.gid); err != nil {
			return err
		}
	}
	if runtime.GOOS == "windows" && mode == 0o700 {
		return nil // has no mode for directories
	}
	return f.Chmod(mode)
}

// lock waits for the lock of the session id, until ctx is done or Options.LockTimeout has passed.
func (s *Store) lock(ctx context.Context, id string) (*lock, error) {
	timeout := time.NewTimer(s.opts.LockTimeout)
	defer timeout.Stop()
	st := s.stripe(id)
	select {
	case st.slot <- struct{}{}:
	case <-timeout.C:
		return nil, ErrLockTimeout
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if now := time.Now(); now.Sub(st.freed) > time.Millisecond {
		st.began = now
	} else if now.Sub(st.began) > tenure {
		time.Sleep(pollMax * 3 / 2)
		st.began = time.Now()
	}
	for pause := pollMin; ; pause = min(2*pause, pollMax) {
		l, err := s.tryFile(st)
		if l != nil {
			return l, nil
		}
		if err == nil {
			select {
			case <-time.After(pause/2 + rand.N(pause)): // the processes must not keep step
				continue
			case <-timeout.C:
				err = ErrLockTimeout
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		<-st.slot
		return nil, err
	}
}

// tryLock is lock without waiting: nil where somebody holds it.
func (s *Store) tryLock(st *stripe) (*lock, error) {
	select {
	case st.slot <- struct{}{}:
	default:
		return nil, nil
	}
	l, err := s.tryFile(st)
	if l == nil {
		<-st.slot
	}
	return l, err
}

// tryFile tries the stripe's file; its caller has the slot. No lock and no error: try again.
func (s *Store) tryFile(st *stripe) (*lock, error) {
	ok, err := st.file.TryLock()
	switch {
	case errors.Is(err, syscall.EINTR): // gofrs/flock hands it to its caller
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.makeLock(st)
	case err != nil:
		if fi, statErr := s.root.Lstat(st.path()); statErr == nil && !fi.Mode().IsRegular() {
			err = errLockFile
		}
		return nil, err
	case !ok:
		return nil, nil
	}
	l := &lock{s: s, stripe: st}
	if l.fi, err = st.file.Stat(); err == nil && !l.fi.Mode().IsRegular() {
		err = errLockFile
	}
	if err == nil {
		if age := time.Since(l.fi.ModTime()).Abs(); age < settle {
			time.Sleep(settle - age)
		}
		if err = l.stands(); err == nil {
			return l, nil
		}
	}
	l.release()
	if errors.Is(err, errLockLost) { // between its opening and its locking
		return nil, nil
	}
	return nil, err
}

var (
	errLockFile = fmt.Errorf("lock: %w: not a regular file", ErrUnsafeFile)
	errLockLost = fmt.Errorf("lock: %w: the file was replaced", ErrUnsafeFile)
)

// stands is asked at the last moment before a change takes effect: it fails where the locked file is
// no longer the one that others would lock.
func (l *lock) stands() error {
	fi, err := l.s.root.Lstat(l.stripe.path())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, l.fi) {
		return errLockLost
	}
	return err
}

func (l *lock) unlock() {
	l.release()
	l.stripe.freed = time.Now()
	<-l.stripe.slot
}

// release frees the file and keeps the slot. gofrs/flock keeps lock and descriptor when its unlock
// fails, by an interruption; if it goes on failing, a new Flock lets the runtime close the old
// one's descriptor, which frees the lock.
func (l *lock) release() {
	for range 100 {
		if l.stripe.file.Unlock() == nil {
			return
		}
	}
	l.stripe.file = newFlock(l.stripe.file.Path())
}
