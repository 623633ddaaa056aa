package disk

// A Volume is the file system that a directory is on.
type Volume struct {
	Blocks, FreeBlocks, BlockSize uint64
	Inodes, FreeInodes            uint64 // 0, 0: it does not count them
	Network                       string // the kind, if other machines may write to it
}
