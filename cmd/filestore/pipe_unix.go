//go:build unix

package main

import (
	"errors"
	"syscall"
)

// brokenPipe reports whether err says that nobody reads what is written any more.
func brokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
