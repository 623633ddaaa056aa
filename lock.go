package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	pollMax = time.Millisecond

	// Goroutines that hand a lock to each other leave other processes, which poll, no moment to get
	// it. After a tenure they let one go by.
	tenure = 50 * time.Millisecond
)

type stripe struct {
	name string        // "00" to "3f"
	slot chan struct{} // whoever has put a token in may use the rest
	file *flock.Flock

	fi           fs.FileInfo // the file last locked, found to be the directory's
	began, freed time.Time   // of the present tenure, and its last unlock
}

// stripe returns the one of the session id, by the 32-bit FNV-1a hash.
func (s *place) stripe(id string) *stripe {
	if s.fold { // ids that share a file must share a lock
		id = strings.ToLower(id)
	}
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return &s.stripes[h%stripes]
}

func (st *stripe) path() string { return lockDir + "/" + st.name }

// openLocks makes the lock files that are missing and tries one, so that a file system without locks
// is an error here and not unlocked work later, as is a directory that cannot be written.
func (s *place) openLocks() error {
	if fi, err := s.dir.root.Lstat(lockDir); err == nil && !fi.IsDir() {
		return errLockFile
	}
	var err error
	for i := range s.stripes {
		st := &s.stripes[i]
		st.name = fmt.Sprintf("%02x", i)
		st.slot = make(chan struct{}, 1)
		st.file = newFlock(filepath.Join(s.path, filepath.FromSlash(st.path())))
		if err == nil {
			err = s.makeLock(st)
		}
	}
	if err == nil {
		err = s.markExtension()
	}
	if err == nil {
		var ok bool
		if ok, err = s.tryLock(&s.stripes[0]); ok {
			s.stripes[0].unlock()
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// A writer will get the error again, unless by then there is room.
		s.opts.Logger.Warn("filestore: sessions can only be read here", "dir", s.path, "err", err)
		err = nil
	}
	for _, name := range []string{".", lockDir} { // the lock files may all be there
		if err == nil {
			err = s.dir.writable(name)
		}
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("the directory cannot be written: %w", err)
	}
	upper, upperErr := s.dir.root.Lstat(".LOCKS")
	lower, lowerErr := s.dir.root.Lstat(lockDir)
	s.fold = upperErr == nil && lowerErr == nil && os.SameFile(upper, lower)
	return err
}

func newFlock(path string) *flock.Flock { return flock.New(path, flock.SetFlag(lockFlags)) }

// follow reaches the lock file through /proc/self/fd if the directory has been renamed. We do not
// always use that path because opening it takes twice as long.
func (s *place) follow(st *stripe) {
	self := fmt.Sprintf("/proc/self/fd/%d", s.dir.fd)
	fi, err := os.Stat(self)
	dir, dirErr := s.dir.file.Stat()
	if err == nil && dirErr == nil && os.SameFile(fi, dir) && !s.inPlace() {
		st.file = newFlock(self + "/" + st.path())
	}
}

// A store whose extension has two parts, as ".admin.json", leaves a file in .locks that tells one with
// ".json" that "x.admin.json" is the session x of another store, and not x.admin of its own, under
// another lock.
func extensionMark(first, last string) string { return lockDir + "/ext" + first + last }

func (s *place) markExtension() error {
	if strings.Count(s.opts.Extension, ".") < 2 {
		return nil
	}
	return s.makeEmpty(extensionMark("", s.opts.Extension))
}

// others reports that the name of the session id belongs to a store with a longer extension.
func (s *place) others(id string) bool {
	i := strings.LastIndexByte(id, '.')
	if i < 0 {
		return false
	}
	_, err := s.dir.root.Lstat(extensionMark(id[i:], s.opts.Extension))
	return err == nil
}

// makeLock makes the stripe's lock file if it is missing.
func (s *place) makeLock(st *stripe) error {
	fi, err := s.dir.root.Lstat(st.path())
	if err == nil && !fi.Mode().IsRegular() {
		return errLockFile
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err = s.dir.root.Mkdir(lockDir, 0o700); errors.Is(err, syscall.ENOENT) {
		return errGone // not each file system shows that by the number of links
	}
	if err == nil {
		var dir *os.File
		if dir, err = s.dir.root.Open(lockDir); err == nil {
			if _, full := dir.ReadDir(1); full == io.EOF { // else it is not what we made
				err = s.adopt(dir, 0o700)
			}
			dir.Close()
		}
		if err == nil {
			err = s.markExtension()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.makeEmpty(st.path())
}

// makeEmpty makes a file in .locks, unless there is one.
func (s *place) makeEmpty(name string) error {
	f, err := s.dir.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
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
func (s *place) adopt(f *os.File, mode fs.FileMode) error {
	if s.owner.given {
		if err := f.Chown(s.owner.uid, s.owner.gid); err != nil {
			return err
		}
	}
	if runtime.GOOS == "windows" && mode == 0o700 {
		return nil // has no mode for directories
	}
	return f.Chmod(mode)
}

// lock waits for the lock of the session id, until ctx is done or Options.LockTimeout has passed.
func (s *place) lock(ctx context.Context, id string) (*stripe, error) {
	if s.opts.ReadOnly {
		return nil, errReadOnly
	}
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
		ok, err := s.tryFile(st)
		if ok {
			return st, nil
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

// tryLock is lock without waiting: false where somebody holds it.
func (s *place) tryLock(st *stripe) (bool, error) {
	select {
	case st.slot <- struct{}{}:
	default:
		return false, nil
	}
	ok, err := s.tryFile(st)
	if !ok {
		<-st.slot
	}
	return ok, err
}

// tryFile tries the stripe's file; its caller has the slot. No lock and no error: try again.
func (s *place) tryFile(st *stripe) (bool, error) {
	ok, err := st.file.TryLock()
	switch {
	case errors.Is(err, syscall.EINTR): // gofrs/flock hands it to its caller
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		s.follow(st)
		return false, s.makeLock(st)
	case err != nil:
		if fi, statErr := s.dir.root.Lstat(st.path()); statErr == nil && !fi.Mode().IsRegular() {
			err = errLockFile
		}
		return false, err
	case !ok:
		return false, nil
	}
	fi, err := st.file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errLockFile
	}
	if err == nil && (!os.SameFile(fi, st.fi) || !fi.ModTime().Equal(st.fi.ModTime())) {
		st.fi = nil
		err = s.meet(st, fi)
	}
	if err == nil {
		st.fi = fi
		return true, nil
	}
	st.release()
	if errors.Is(err, errLockLost) && !s.dir.gone() { // between its opening and its locking, or it is another directory's
		s.follow(st)
		return false, nil
	}
	return false, err
}

var (
	errLockFile = fmt.Errorf("lock: %w: not a regular file", ErrUnsafeFile)
	errLockLost = fmt.Errorf("lock: %w: the file was replaced", ErrUnsafeFile)
)

// meet looks at a lock file that is locked for the first time. Its path alone does not tell that it is
// in our directory.
func (s *place) meet(st *stripe, fi fs.FileInfo) error {
	at, err := s.dir.root.Lstat(st.path())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(at, fi) {
		return errLockLost
	}
	return err
}

// stands fails where the locked file is no longer the one that others would lock. It is asked at the
// last moment before a change takes effect.
func (s *place) stands(st *stripe) error {
	same, err := s.dir.same(st.path(), st.fi)
	if err == nil && !same || errors.Is(err, fs.ErrNotExist) {
		return errLockLost
	}
	return err
}

func (st *stripe) unlock() {
	st.release()
	st.freed = time.Now()
	<-st.slot
}

// release frees the file and keeps the slot. gofrs/flock keeps lock and descriptor when its unlock
// fails, by an interruption; if it goes on failing, a new Flock lets the runtime close the old
// one's descriptor, which frees the lock.
func (st *stripe) release() {
	for range 100 {
		if st.file.Unlock() == nil {
			return
		}
	}
	st.file = newFlock(st.file.Path())
}
