package storetest

import (
	"os"

	"golang.org/x/sys/unix"
)

// InMemory is for TestMain, before Main. It puts the tests' directories into a file system in memory, which takes half of
// the time, if the machine has one with 2 GiB of room, and TMPDIR does not say where they shall be. With CI=true it leaves
// them on the disk, whose renames and flushes are others.
func InMemory() {
	const dir, room = "/dev/shm", 2 << 30
	var fs unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && os.Getenv("CI") != "true" &&
		unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC && fs.Bavail*uint64(fs.Bsize) >= room && unix.Access(dir, unix.W_OK) == nil {
		os.Setenv("TMPDIR", dir)
	}
}
