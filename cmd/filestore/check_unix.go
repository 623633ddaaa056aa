//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasModes: permissions mean something here.
const hasModes = true

// unlink removes a file. Never a directory, which os.Root.Remove would.
func unlink(dir *os.File, _ *os.Root, name string) error {
	return unix.Unlinkat(int(dir.Fd()), name, 0)
}
