//go:build !linux && !darwin && !windows

package main

import (
	"io/fs"
	"time"
)

// changeTime is the modification time, for want of better.
func changeTime(fi fs.FileInfo) time.Time { return fi.ModTime() }
