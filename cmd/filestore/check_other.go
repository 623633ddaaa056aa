//go:build !unix

package main

import "os"

const hasModes = false

func unlink(_ *os.File, root *os.Root, name string) error { return root.Remove(name) }
