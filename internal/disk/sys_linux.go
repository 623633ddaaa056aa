package disk

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flushesRename tells ext4 (auto_da_alloc): a rename over a file flushes the new one.
func (d *Dir) flushesRename() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.fd, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
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
