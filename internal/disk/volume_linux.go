package disk

import "golang.org/x/sys/unix"

// The file systems that other machines may write to, by their magic numbers.
var networks = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", 0xff534d42: "CIFS", 0xfe534d42: "SMB", 0x517b: "SMB", 0x00c36400: "Ceph",
	0x5346414f: "AFS", 0x6b414653: "AFS", 0x01021997: "9P", 0x73757245: "Coda", 0x0bd00bd0: "Lustre",
	0x01161970: "GFS2", 0x7461636f: "OCFS2", 0x47504653: "GPFS", 0x19830326: "BeeGFS", 0xaad7aaea: "PanFS",
	0x65735546: "FUSE",
}

// VolumeOf returns the volume of the directory at path. Not every system tells.
func VolumeOf(dir string) (v Volume, err error) {
	var st unix.Statfs_t
	if err = unix.Statfs(dir, &st); err != nil {
		return v, err
	}
	return Volume{
		Blocks: st.Blocks, FreeBlocks: st.Bavail, BlockSize: uint64(st.Bsize),
		Inodes: st.Files, FreeInodes: st.Ffree, Network: networks[int64(uint32(st.Type))],
	}, nil
}
