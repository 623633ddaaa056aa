package main

import "golang.org/x/sys/unix"

func mkdev(path string, major, minor uint32) error {
	return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))
}
