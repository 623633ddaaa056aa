//go:build !linux

package storetest

// InMemory does nothing.
func InMemory() {}
