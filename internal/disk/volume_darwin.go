package disk

import "golang.org/x/sys/unix"

// VolumeOf returns the volume of the directory at path. Not every system tells.
func VolumeOf(dir string) (v Volume, err error) {
	var st unix.Statfs_t
	if err = unix.Statfs(dir, &st); err != nil {
		return v, err
	}
	v = Volume{
		Blocks: st.Blocks, FreeBlocks: st.Bavail, BlockSize: uint64(st.Bsize),
		Inodes: st.Files, FreeInodes: st.Ffree,
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		v.Network = unix.ByteSliceToString(st.Fstypename[:])
	}
	return v, nil
}
