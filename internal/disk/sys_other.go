//go:build !linux

package disk

import "errors"

func (*Dir) flushesRename() bool { return false }

func (*Dir) exchange(a, b string) error { return errors.ErrUnsupported }

// Ordered is false: it is not known of these systems.
func (*Dir) Ordered() bool { return false }

// Unjournalled is false: it is not known of these systems.
func (*Dir) Unjournalled() bool { return false }

// SyncsAll is false: Create must flush.
const SyncsAll = false

// SyncAll does nothing.
func (*Dir) SyncAll() error { return nil }

func writeOut(int) error { return errors.ErrUnsupported }
