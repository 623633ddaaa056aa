//go:build unix

package disk

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
// of what os.Root's do, and are as safe: a name is one component, and none follows a link.

// Modes reports whether permissions mean something here.
const Modes = true

// LockFlags open a lock file: never made, never followed, never waited for.
const LockFlags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK

func newInfo(st *unix.Stat_t) Info {
	return Info{
		Version: Version{uint64(st.Ino), st.Size, nanos(st.Mtim.Unix()), nanos(st.Ctim.Unix())},
		Mode:    fileMode(uint32(st.Mode)),
		Links:   uint64(st.Nlink),
		UID:     int(st.Uid),
		GID:     int(st.Gid),
	}
}

// owner returns the user that fi belongs to.
func owner(fi fs.FileInfo) int { return int(fi.Sys().(*syscall.Stat_t).Uid) }

func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return m
	case unix.S_IFDIR:
		return m | fs.ModeDir
	case unix.S_IFLNK:
		return m | fs.ModeSymlink
	case unix.S_IFIFO:
		return m | fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return m | fs.ModeSocket
	}
	return m | fs.ModeDevice
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

// Writable returns why files cannot be made in the directory name, or nil.
func (d *Dir) Writable(name string) error {
	err := retry(func() error { return unix.Faccessat(d.fd, name, unix.W_OK|unix.X_OK, unix.AT_EACCESS) })
	if errors.Is(err, fs.ErrNotExist) { // there was no room to make it
		return nil
	}
	return err
}

// Gone reports whether the directory was deleted, as far as its number of links tells.
func (d *Dir) Gone() bool {
	var st unix.Stat_t
	return unix.Fstat(d.fd, &st) == nil && st.Nlink == 0
}

// Stat describes name without following it.
func (d *Dir) Stat(name string) (Info, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return Info{}, err
	}
	return newInfo(&st), nil
}

// Lstat describes name, which may be below another directory, without following it.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

// Full reports whether err says that the file system has no room for a file.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// WriteProtected reports whether err says that nothing can be written to the file system.
func WriteProtected(err error) bool { return errors.Is(err, unix.EROFS) }

// Busy is false: nobody can keep a file for themselves alone here.
func Busy(error) bool { return false }

// Same reports whether name is the file of fi.
func (d *Dir) Same(name string, fi fs.FileInfo) (bool, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return false, err
	}
	old := fi.Sys().(*syscall.Stat_t)
	return st.Ino == old.Ino && st.Dev == old.Dev, nil
}

// open opens name, which Stat has found to be a regular file, to read it, and says what it is.
func (d *Dir) open(name string) (fd int, i Info, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	switch err {
	case nil:
	case unix.ENOENT, unix.ELOOP, unix.EMLINK, unix.ENXIO: // by now it is gone, or a link (as FreeBSD says it), or a socket
		return -1, i, ErrChanging
	case unix.EACCES, unix.EPERM: // the directory lets us in: it is about this file
		return -1, i, fmt.Errorf("%w: %w", ErrUnsafe, err)
	default:
		return -1, i, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, i, err
	}
	return fd, newInfo(&st), nil
}

// read reads name once. ErrChanging: look again.
func (d *Dir) read(name string, limit int64) ([]byte, Info, error) {
	fd, i, err := d.open(name)
	if err != nil {
		return nil, i, err
	}
	defer unix.Close(fd)
	if err := d.check(i, limit); err != nil {
		return nil, i, err
	}
	data := make([]byte, i.Size+1)
	n := 0
	err = retry(func() (err error) {
		n, err = unix.Read(fd, data)
		return err
	})
	if err != nil {
		return nil, i, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, i, err
	}
	if int64(n) != i.Size || newInfo(&st).Version != i.Version { // written in place meanwhile
		return nil, i, ErrChanging
	}
	return data[:n], i, nil
}

func (d *Dir) create(name string, data []byte, mode fs.FileMode, mtime time.Time) (made bool, err error) {
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode))
		return err
	})
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil && closeErr != unix.EINTR {
			err = closeErr
		}
	}()
	return true, d.fill(fd, data, mode, mtime)
}

func (d *Dir) fill(fd int, data []byte, mode fs.FileMode, mtime time.Time) error {
	if err := write(fd, data); err != nil {
		return err
	}
	if d.gives() {
		if err := unix.Fchown(fd, d.info.UID, d.info.GID); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if fs.FileMode(st.Mode)&fs.ModePerm != mode { // the umask's doing
		if err := unix.Fchmod(fd, uint32(mode)); err != nil {
			return err
		}
	}
	if err := futimes(fd, mtime); err != nil {
		return err
	}
	switch {
	case d.opts.NoSync:
		return nil
	case d.ordered:
		return writeOut(fd)
	}
	d.countFlush()
	return retry(func() error { return fsync(fd) })
}

func write(fd int, data []byte) error {
	for len(data) > 0 {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Write(fd, data)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		data = data[n:]
	}
	return nil
}

var fsync = unix.Fsync

// SetTime sets the mtime of name, if it still is the file of v. It uses the descriptor, not the name: if
// that has become a hard link, root would set the time of a file outside.
func (d *Dir) SetTime(name string, v Version, mtime time.Time) error {
	fd, i, err := d.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if i.Version != v || !i.Mode.IsRegular() || i.Links != 1 {
		return ErrChanging
	}
	return futimes(fd, mtime)
}

// SetMode sets the permissions of name, a file or a directory, if it still is the one of v. It uses the
// descriptor, as SetTime does.
func (d *Dir) SetMode(name string, v Version, mode fs.FileMode) error {
	fd, i, err := d.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if i.Version != v || !i.Mode.IsDir() && (!i.Mode.IsRegular() || i.Links != 1) {
		return ErrChanging
	}
	return retry(func() error { return unix.Fchmod(fd, uint32(mode.Perm())) })
}

func (d *Dir) rename(from, to string) error {
	return retry(func() error { return unix.Renameat(d.fd, from, d.fd, to) })
}

// unlink never removes a directory.
func (d *Dir) unlink(name string) error {
	return retry(func() error { return unix.Unlinkat(d.fd, name, 0) })
}

func syncDir(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // a file system that has no such thing
	}
	return err
}
