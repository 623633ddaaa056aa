package filestore_test

import "io/fs"

func setUmask(int) {}

func inode(fs.FileInfo) string { return "" }
