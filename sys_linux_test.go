package filestore_test

import (
	"os"
	"syscall"
	"unsafe"
)

// chattr sets or clears the immutable flag, as chattr(1) does.
func chattr(path string, immutable bool) error {
	const getFlags, setFlags, immutableFlag = 0x80086601, 0x40086602, 0x10
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var flags int
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), getFlags, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return errno
	}
	flags &^= immutableFlag
	if immutable {
		flags |= immutableFlag
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), setFlags, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return errno
	}
	return nil
}
