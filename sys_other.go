//go:build !linux

package filestore

import "errors"

func (*directory) flushesRename() bool { return false }

func (*directory) exchange(a, b string) error { return errors.ErrUnsupported }
