//go:build unix && !linux

package disk

import (
	"time"

	"golang.org/x/sys/unix"
)

// futimes sets the mtime of an open file.
func futimes(fd int, mtime time.Time) error {
	return unix.Futimes(fd, []unix.Timeval{unix.NsecToTimeval(time.Now().UnixNano()), unix.NsecToTimeval(mtime.UnixNano())})
}
