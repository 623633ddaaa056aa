package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flushesRename tells ext4 (auto_da_alloc): a rename over a file flushes the new one.
func (d *Dir) flushesRename() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.fd, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// Ordered reports whether the file system commits a rename not before the bytes that were written out
// earlier, so that one flush of the directory commits both: xfs, and ext4 with a journal and barriers. In
// doubt, as on overlayfs, it is false. (btrfs commits a rename of a file that is still empty.)
func (d *Dir) Ordered() bool {
	var st unix.Statfs_t
	if unix.Fstatfs(d.fd, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.XFS_SUPER_MAGIC:
		return true
	case unix.EXT4_SUPER_MAGIC:
		options := d.ext4Options()
		return slices.Contains(options, "barrier") && journalled(options)
	}
	return false
}

// Unjournalled reports whether the file system is an ext4 without a journal, which keeps no promise across
// a power cut.
func (d *Dir) Unjournalled() bool {
	options := d.ext4Options()
	return options != nil && !journalled(options)
}

// journalled tells an ext4 with a journal: the others have no such mode.
func journalled(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "data=") })
}

// ext4Options returns the options in force, the defaults too; nil if the system does not tell, or if it is
// another file system.
func (d *Dir) ext4Options() []string {
	var st unix.Stat_t
	if unix.Fstat(d.fd, &st) != nil {
		return nil
	}
	dev, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return nil
	}
	text, err := os.ReadFile("/proc/fs/ext4/" + filepath.Base(dev) + "/options")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// writeOut waits until the bytes of the file are on their way to the disk's cache, before all that follows. It
// does not flush that.
func writeOut(fd int) error {
	const flags = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return retry(func() error { return unix.SyncFileRange(fd, 0, 0, flags) })
}

// SyncsAll reports whether SyncAll does something.
const SyncsAll = true

// SyncAll flushes all that was written to the directory's file system, whatever the options: for many files
// it takes far less time than a flush of each.
func (d *Dir) SyncAll() error {
	return retry(func() error { return unix.Syncfs(d.fd) })
}

// exchange lets two files take each other's name in one step.
func (d *Dir) exchange(a, b string) error {
	return retry(func() error { return unix.Renameat2(d.fd, a, d.fd, b, unix.RENAME_EXCHANGE) })
}

// futimes sets the mtime of an open file. The unix package's goes by a path in /proc, which may not be there.
func futimes(fd int, mtime time.Time) error {
	ts := [2]unix.Timespec{unix.NsecToTimespec(time.Now().UnixNano()), unix.NsecToTimespec(mtime.UnixNano())}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
