package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Modes reports whether permissions mean something here.
const Modes = false

// LockFlags open a lock file.
const LockFlags = os.O_RDONLY

// newInfo has no inode, so that nothing is cached. The os package does not tell when a file was changed
// last. The time when it was made stands for that: every write makes a new file.
func newInfo(fi fs.FileInfo) Info {
	made := fi.ModTime()
	if data, ok := fi.Sys().(*syscall.Win32FileAttributeData); ok {
		made = time.Unix(0, data.CreationTime.Nanoseconds())
	}
	return Info{
		Version: Version{Size: fi.Size(), Mtime: fi.ModTime().UnixNano(), Ctime: made.UnixNano()},
		Mode:    fi.Mode(),
		Links:   1,
		UID:     -1,
		GID:     -1,
	}
}

func owner(fs.FileInfo) int { return -1 }

// Writable returns nil: only the attempt would tell.
func (d *Dir) Writable(string) error { return nil }

// Gone returns false: an opened directory cannot be deleted here.
func (d *Dir) Gone() bool { return false }

// Stat describes name without following it.
func (d *Dir) Stat(name string) (Info, error) {
	fi, err := d.root.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	return newInfo(fi), nil
}

// Same reports whether name is the file of fi.
func (d *Dir) Same(name string, fi fs.FileInfo) (bool, error) {
	at, err := d.root.Lstat(name)
	return err == nil && os.SameFile(at, fi), err
}

// read reads name once. ErrChanging: look again.
func (d *Dir) read(name string, limit int64) ([]byte, Info, error) {
	before, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Info{}, ErrChanging
	}
	if err != nil {
		return nil, Info{}, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, Info{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, Info{}, err
	}
	if !os.SameFile(before, fi) { // os.Root follows links within the directory
		return nil, Info{}, ErrChanging
	}
	var handle syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &handle); err != nil {
		return nil, Info{}, err
	}
	i := newInfo(fi)
	i.Links = uint64(handle.NumberOfLinks)
	if err := d.check(i, limit); err != nil {
		return nil, i, err
	}
	data, err := io.ReadAll(io.LimitReader(f, i.Size+1))
	if err != nil {
		return nil, i, err
	}
	if int64(len(data)) != i.Size { // written in place meanwhile
		return nil, i, ErrChanging
	}
	return data, i, nil
}

func (d *Dir) create(name string, data []byte, mode fs.FileMode, mtime time.Time) (made bool, err error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return false, err
	}
	if !d.opts.NoSync {
		d.countFlush()
	}
	if err := fill(f, data, !d.opts.NoSync); err != nil {
		f.Close()
		return true, err
	}
	if err := f.Close(); err != nil {
		return true, err
	}
	return true, d.root.Chtimes(name, time.Time{}, mtime)
}

func fill(f *os.File, data []byte, flush bool) error {
	if _, err := f.Write(data); err != nil || !flush {
		return err
	}
	return f.Sync()
}

// SetTime sets the mtime of name, if it still is the file of v.
func (d *Dir) SetTime(name string, v Version, mtime time.Time) error {
	if i, err := d.Stat(name); err != nil || i.Version != v {
		return ErrChanging
	}
	return d.root.Chtimes(name, time.Time{}, mtime)
}

// SetMode fails: see Modes.
func (d *Dir) SetMode(string, Version, fs.FileMode) error { return errors.ErrUnsupported }

func (d *Dir) rename(from, to string) error {
	return again(func() error { return d.root.Rename(from, to) })
}

// unlink never removes a directory.
func (d *Dir) unlink(name string) error {
	if fi, err := d.root.Lstat(name); err == nil && fi.IsDir() { // Remove would take an empty one
		return syscall.ERROR_ACCESS_DENIED
	}
	return again(func() error { return d.root.Remove(name) })
}

// syncDir does nothing: Windows has no flush for directories.
func syncDir(*os.File) error { return nil }

// again repeats what somebody's open handle has stopped: another process of ours has one for
// microseconds, a virus scanner for longer.
func again(op func() error) error {
	const sharingViolation = syscall.Errno(32)
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := op()
		if !errors.Is(err, syscall.ERROR_ACCESS_DENIED) && !errors.Is(err, sharingViolation) || time.Now().After(deadline) {
			return err
		}
	}
}
