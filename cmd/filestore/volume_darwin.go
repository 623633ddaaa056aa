package main

import (
	"os"

	"golang.org/x/sys/unix"
)

func volumeOf(dir *os.File) (v volume, err error) {
	var st unix.Statfs_t
	if err = unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return v, err
	}
	v = volume{
		blocks: st.Blocks, freeBlocks: st.Bavail, blockSize: uint64(st.Bsize),
		inodes: st.Files, freeInodes: st.Ffree,
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		v.network = unix.ByteSliceToString(st.Fstypename[:])
	}
	return v, nil
}
