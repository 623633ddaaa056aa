package lock

import "sync/atomic"

// Counts count what the users of a Table met. Several Tables may have one Counts.
type Counts struct {
	Waits     atomic.Int64 // for a lock or a turn that was not free, however they ended; of one Lock or InTurn together
	Waited    atomic.Int64 // how long, in nanoseconds
	Timeouts  atomic.Int64 // ErrTimeout
	Conflicts atomic.Int64 // ErrConflict
}
