//go:build unix

package filestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The calls of the busy paths name a file of the opened directory by its descriptor. They cost half
// of what os.Root's do, and are as safe: a name is one component, of a valid id or our own, and none
// follows a link.

// lockFlags open a lock file: never made, never followed, never waited for.
const lockFlags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK

func newMeta(st *unix.Stat_t) meta {
	return meta{
		version: version{uint64(st.Ino), st.Size, nanos(st.Mtim.Unix()), nanos(st.Ctim.Unix())},
		regular: st.Mode&unix.S_IFMT == unix.S_IFREG,
		dir:     st.Mode&unix.S_IFMT == unix.S_IFDIR,
		links:   uint64(st.Nlink),
		uid:     int(st.Uid),
	}
}

// nanos is the time of a file since 1970; far times are cut, as they do not fit.
func nanos(sec, nsec int64) int64 {
	const far = 1 << 33
	return max(-far, min(sec, far))*int64(time.Second) + nsec
}

// retry repeats what a signal interrupted, as the os package does.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// writable says why files cannot be made in the directory name.
func (d *directory) writable(name string) error {
	err := retry(func() error { return unix.Faccessat(d.fd, name, unix.W_OK|unix.X_OK, unix.AT_EACCESS) })
	if errors.Is(err, fs.ErrNotExist) { // no room for it
		return nil
	}
	return err
}

// gone reports that the directory was deleted.
func (d *directory) gone() bool {
	var st unix.Stat_t
	return unix.Fstat(d.fd, &st) == nil && st.Nlink == 0
}

// stat describes name without following it.
func (d *directory) stat(name string) (meta, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return meta{}, err
	}
	return newMeta(&st), nil
}

// same reports whether name, whose directory it trusts, is the file of fi.
func (d *directory) same(name string, fi fs.FileInfo) (bool, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	old := fi.Sys().(*syscall.Stat_t)
	return err == nil && st.Ino == old.Ino && st.Dev == old.Dev, err
}

// open opens name, which stat has found to be a regular file, to read it, and says what it is.
func (d *directory) open(name string) (fd int, m meta, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	switch err {
	case nil:
	case unix.ENOENT, unix.ELOOP, unix.EMLINK, unix.ENXIO: // by now it is gone, or a link (as FreeBSD says it), or a socket
		return -1, m, errReplaced
	case unix.EACCES, unix.EPERM: // the directory lets us in: it is about this file
		return -1, m, fmt.Errorf("%w: %w", ErrUnsafeFile, err)
	default:
		return -1, m, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, m, err
	}
	return fd, newMeta(&st), nil
}

// read returns the contents of name, which stat has found to be a regular file, and what the file
// was when it was opened.
func (d *directory) read(name string, limit int64) (data []byte, m meta, err error) {
	fd, m, err := d.open(name)
	if err != nil {
		return nil, m, err
	}
	defer unix.Close(fd)
	if err := m.check(limit, d.trusted); err != nil {
		return nil, m, err
	}
	data = make([]byte, m.size+1)
	n := 0
	err = retry(func() (err error) {
		n, err = unix.Read(fd, data)
		return err
	})
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && (int64(n) != m.size || newMeta(&st).version != m.version) { // written in place meanwhile
		err = errReplaced
	}
	return data[:max(n, 0)], m, err
}

// write makes the file name, which must not be there.
func (d *directory) write(name string, data []byte, mode fs.FileMode, owner ids, mtime time.Time, flush bool) (err error) {
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode))
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil && closeErr != unix.EINTR {
			err = closeErr
		}
	}()
	for len(data) > 0 && err == nil {
		var n int
		err = retry(func() (err error) {
			n, err = unix.Write(fd, data)
			return err
		})
		if n == 0 && err == nil {
			err = io.ErrShortWrite
		}
		data = data[max(n, 0):]
	}
	if err == nil && owner.given {
		err = unix.Fchown(fd, owner.uid, owner.gid)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && fs.FileMode(st.Mode)&fs.ModePerm != mode { // the umask's doing
		err = unix.Fchmod(fd, uint32(mode))
	}
	if err == nil {
		err = futimes(fd, mtime)
	}
	if err == nil && flush {
		err = retry(func() error { return fsync(fd) })
	}
	return err
}

var fsync = unix.Fsync

// setTime sets the mtime of name, if it still is the file of v. Never by name: where a hard link has
// come to have it, root would set the time of a file outside.
func (d *directory) setTime(name string, v version, mtime time.Time) error {
	fd, m, err := d.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.version != v || !m.regular || m.links != 1 {
		return errReplaced
	}
	return futimes(fd, mtime)
}

func (d *directory) rename(from, to string) error {
	return retry(func() error { return unix.Renameat(d.fd, from, d.fd, to) })
}

// unlink removes name, whatever it is, unless it is a directory.
func (d *directory) unlink(name string) error {
	return retry(func() error { return unix.Unlinkat(d.fd, name, 0) })
}

// sync flushes the directory.
func (d *directory) sync() error {
	err := d.file.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // a file system that has no such thing
	}
	return err
}

// owner returns whose fi is, if that is somebody else.
func owner(fi fs.FileInfo) ids {
	st := fi.Sys().(*syscall.Stat_t)
	o := ids{true, int(st.Uid), int(st.Gid)}
	o.given = o.uid != os.Geteuid() || o.gid != os.Getegid()
	return o
}
