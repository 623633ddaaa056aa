package filestore

import "golang.org/x/sys/unix"

// flushesRename tells ext4 (auto_da_alloc): a rename over a file flushes the new one.
func (d *directory) flushesRename() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.fd, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// exchange lets two files take each other's name in one step.
func (d *directory) exchange(a, b string) error {
	return retry(func() error { return unix.Renameat2(d.fd, a, d.fd, b, unix.RENAME_EXCHANGE) })
}
