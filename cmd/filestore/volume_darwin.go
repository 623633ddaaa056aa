package main

import "golang.org/x/sys/unix"

func volumeOf(dir string) (v volume, err error) {
	var st unix.Statfs_t
	if err = unix.Statfs(dir, &st); err != nil {
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
