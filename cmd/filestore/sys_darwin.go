package main

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime is when the file was changed last, which nobody can set.
func changeTime(fi fs.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctimespec.Unix())
	}
	return fi.ModTime()
}
