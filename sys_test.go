//go:build unix

package filestore_test

import (
	"fmt"
	"io/fs"
	"syscall"
)

func setUmask(mask int) { syscall.Umask(mask) }

func inode(fi fs.FileInfo) string {
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf(" uid %d inode %d links %d", st.Uid, st.Ino, st.Nlink)
}
