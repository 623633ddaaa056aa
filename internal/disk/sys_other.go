//go:build !linux

package disk

import "errors"

func (*Dir) flushesRename() bool { return false }

func (*Dir) exchange(a, b string) error { return errors.ErrUnsupported }
