package filestore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const lockFlags = os.O_RDONLY

// newMeta has no inode, so that nothing is cached. For the time of the last change, which the os
// package does not tell, stands that of the file's making: every write makes a new one.
func newMeta(fi fs.FileInfo) meta {
	made := fi.ModTime()
	if data, ok := fi.Sys().(*syscall.Win32FileAttributeData); ok {
		made = time.Unix(0, data.CreationTime.Nanoseconds())
	}
	return meta{
		version: version{size: fi.Size(), mtime: fi.ModTime().UnixNano(), ctime: made.UnixNano()},
		regular: fi.Mode().IsRegular(),
		dir:     fi.IsDir(),
		links:   1,
		uid:     os.Geteuid(),
	}
}

func (d *directory) writable(string) error { return nil }

// gone: an opened directory cannot be deleted here.
func (d *directory) gone() bool { return false }

func (d *directory) stat(name string) (meta, error) {
	fi, err := d.root.Lstat(name)
	if err != nil {
		return meta{}, err
	}
	return newMeta(fi), nil
}

func (d *directory) same(name string, fi fs.FileInfo) (bool, error) {
	at, err := d.root.Lstat(name)
	return err == nil && os.SameFile(at, fi), err
}

func (d *directory) read(name string, limit int64) (data []byte, m meta, err error) {
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, m, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, m, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, m, err
	}
	if !os.SameFile(before, fi) { // os.Root follows links within the directory
		return nil, m, errReplaced
	}
	var info syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &info); err != nil {
		return nil, m, err
	}
	m = newMeta(fi)
	m.links = uint64(info.NumberOfLinks)
	if err := m.check(limit, d.trusted); err != nil {
		return nil, m, err
	}
	data, err = io.ReadAll(io.LimitReader(f, m.size+1))
	if err == nil && int64(len(data)) != m.size { // written in place meanwhile
		err = errReplaced
	}
	return data, m, err
}

func (d *directory) write(name string, data []byte, mode fs.FileMode, _ ids, mtime time.Time, flush bool) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && flush {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = d.root.Chtimes(name, time.Time{}, mtime)
	}
	return err
}

func (d *directory) setTime(name string, v version, mtime time.Time) error {
	if m, err := d.stat(name); err != nil || m.version != v {
		return errReplaced
	}
	return d.root.Chtimes(name, time.Time{}, mtime)
}

func (d *directory) rename(from, to string) error {
	return again(func() error { return d.root.Rename(from, to) })
}

func (d *directory) unlink(name string) error {
	if fi, err := d.root.Lstat(name); err == nil && fi.IsDir() { // Remove would take an empty one
		return errNotRegular
	}
	return again(func() error { return d.root.Remove(name) })
}

// sync does nothing: Windows has no flush for directories.
func (d *directory) sync() error { return nil }

func owner(fs.FileInfo) ids { return ids{} }

// again repeats what somebody's open handle has stopped: another process's of ours for
// microseconds, a virus scanner's for longer.
func again(op func() error) error {
	const sharingViolation = syscall.Errno(32)
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := op()
		if !errors.Is(err, syscall.ERROR_ACCESS_DENIED) && !errors.Is(err, sharingViolation) || time.Now().After(deadline) {
			return err
		}
	}
}
