//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// openFlags: a link that took the name is not followed, and a pipe's writer not waited for.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func links(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// owner returns whose fi is; false where the system does not tell.
func owner(fi fs.FileInfo) (uid, gid int, ok bool) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid), true
	}
	return 0, 0, false
}
