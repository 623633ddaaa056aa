package filestore

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const (
	openFlags = 0
	lockFlags = os.O_RDONLY
)

func links(f *os.File, _ fs.FileInfo) (n uint64, mine bool, err error) {
	var info syscall.ByHandleFileInformation
	err = syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &info)
	return uint64(info.NumberOfLinks), true, err
}

func owner(fs.FileInfo) (uid, gid int) { return -1, -1 }

// syncDir does nothing: Windows has no flush for directories.
func syncDir(*os.File) error { return nil }

// transient: a name cannot be replaced or removed while somebody has it open
// (another process of ours for microseconds, a virus scanner for longer).
func transient(err error) (time.Duration, bool) {
	const sharingViolation = syscall.Errno(32)
	return 5 * time.Millisecond, errors.Is(err, syscall.ERROR_ACCESS_DENIED) || errors.Is(err, sharingViolation)
}
