//go:build unix

package filestore

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// openFlags keep a named pipe that slipped in after the look from blocking.
const openFlags = syscall.O_NONBLOCK

// lockFlags open a lock file: never made, never followed, never waited for.
const lockFlags = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// links returns the number of names that f has, and whether it is ours or root's; to root all are.
func links(_ *os.File, fi fs.FileInfo) (n uint64, mine bool, err error) {
	st := fi.Sys().(*syscall.Stat_t)
	me := os.Geteuid()
	return uint64(st.Nlink), me == 0 || st.Uid == 0 || int(st.Uid) == me, nil
}

func owner(fi fs.FileInfo) (uid, gid int) {
	st := fi.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

func syncDir(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // a file system that has no such thing
	}
	return err
}

// transient says whether and after what pause to try an operation again. The
// os package retries interrupted calls, but not in os.Root.Rename.
func transient(err error) (time.Duration, bool) {
	return 0, errors.Is(err, syscall.EINTR)
}
