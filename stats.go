package filestore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// Stats count what one Store has done since Open. What other Stores and processes do in the same directory is not
// in them. All but the five of the last pass only ever grow, also if the directory is deleted and opened again.
// In JSON the durations are nanoseconds. So a Store is published for /debug/vars, to those who may see it, by
//
//	expvar.Publish("sessions", expvar.Func(func() any { return store.Stats() }))
type Stats struct {
	Gets       int64 // calls of Get, whatever came of them
	Hits       int64 // Gets that returned a session from memory, after a look at its file
	Missing    int64 // Gets that were ErrNotFound: no such session, an expired one, an id that cannot name one
	Unreadable int64 // Gets that met a file that holds no session: ErrCorrupt, ErrDecrypt, ErrTooLarge, ErrUnsafeFile

	Sets          int64 // calls of Set and Create that succeeded
	Updates       int64 // calls of Update that succeeded, each once, however often its fn ran
	Touches       int64 // calls of Touch that wrote the session
	TouchesSpared int64 // calls of Touch that succeeded and wrote nothing, see Options.TouchAfter
	Destroys      int64 // sessions that Destroy and Clear removed; not the calls of Destroy that found none

	// Conflicts is how often a write found that others had changed the session since it was read. It then began
	// again, or gave up. The writes of Clear and of the reaper count here and below too.
	Conflicts int64

	// LockWaits is how often a write had to wait for a session's lock, or for its turn among those of this process,
	// and LockWait is how long these waits were in all. A lock that is free is not waited for. A wait counts when it
	// is over, however it ended. One write may wait twice: for its turn, and for the lock.
	LockWaits int64
	LockWait  time.Duration

	Timeouts int64 // writes that ended with ErrLockTimeout
	Flushes  int64 // flushes of a file or of the directory that a write waited for, also those that failed; 0 with NoSync

	Reaped int64 // sessions that the reaper removed, in the background or in a call of Reap

	// The last pass of the reaper that has ended, in the background or in a call of Reap, however it ended.
	LastReap           time.Time     // its end; zero = none yet
	LastReapTook       time.Duration // from its beginning to its end
	LastReapRemoved    int64         // the sessions that it removed
	LastReapUnreadable int64         // the files that hold no session, which it passed over
	LastReapError      string        // what Reap returned; "" = no error
}

// Stats returns the counters. It takes no lock and may be called at any time, also after Close. While others
// work, the counters are not of one moment; but Gets is never less than the sum of its kinds.
func (s *Store) Stats() Stats {
	c := &s.counts
	st := Stats{
		Hits:          c.hits.Load(),
		Missing:       c.missing.Load(),
		Unreadable:    c.unreadable.Load(),
		Sets:          c.sets.Load(),
		Updates:       c.updates.Load(),
		Touches:       c.touches.Load(),
		TouchesSpared: c.spared.Load(),
		Destroys:      c.destroys.Load(),
		Conflicts:     c.locks.Conflicts.Load(),
		LockWaits:     c.locks.Waits.Load(),
		LockWait:      time.Duration(c.locks.Waited.Load()),
		Timeouts:      c.locks.Timeouts.Load(),
		Flushes:       c.flushes.Load(),
		Reaped:        c.reaped.Load(),
	}
	st.Gets = st.Hits + st.Missing + st.Unreadable + c.otherGets.Load()
	if r := c.lastReap.Load(); r != nil {
		st.LastReap, st.LastReapTook, st.LastReapError = r.ended, r.took, r.err
		st.LastReapRemoved, st.LastReapUnreadable = r.removed, r.unreadable
	}
	return st
}

// Space is the room on the file system of a Store's directory, for its owner: what only root may use is not free.
type Space struct {
	Free, Total      int64 // bytes
	FreeFiles, Files int64 // files that it has room for; 0 and 0 if it does not count them
}

// Space asks the system how much room there is. The error is errors.ErrUnsupported on systems that are not asked.
func (s *Store) Space(ctx context.Context) (sp Space, err error) {
	err = s.within(ctx, func(p *place) error {
		path, ok := p.dir.PathNow()
		if !ok {
			path = p.dir.Path()
		}
		v, err := disk.VolumeOf(path)
		sp = Space{int64(v.FreeBlocks * v.BlockSize), int64(v.Blocks * v.BlockSize), int64(v.FreeInodes), int64(v.Inodes)}
		return err
	})
	return sp, wrap("space", "", err)
}

// counts are a Store's counters. A place has none of its own, as another one may succeed it.
type counts struct {
	// Each Get adds to one of these only.
	hits, missing, unreadable, otherGets atomic.Int64

	_ [64]byte // readers and writers share no cache line: beside a busy writer an Add takes 9 ns, and not 35

	sets, updates, touches, spared, destroys atomic.Int64

	locks   lock.Counts
	flushes atomic.Int64

	reaped   atomic.Int64
	lastReap atomic.Pointer[lastReap]
}

// A lastReap does not change any more: so Stats tells of one pass.
type lastReap struct {
	ended               time.Time
	took                time.Duration
	removed, unreadable int64
	err                 string
}

// counted adds 1 to c if err is nil, and returns err.
func counted(c *atomic.Int64, err error) error {
	if err == nil {
		c.Add(1)
	}
	return err
}

// got counts a Get.
func (c *counts) got(hit bool, err error) {
	switch {
	case hit:
		c.hits.Add(1)
	case err == nil:
		c.otherGets.Add(1)
	case errors.Is(err, ErrNotFound):
		c.missing.Add(1)
	case noSession(err):
		c.unreadable.Add(1)
	default:
		c.otherGets.Add(1)
	}
}

// touched counts a Touch that wanted to write, or did not.
func (c *counts) touched(wanted bool, err error) {
	switch {
	case err != nil:
	case wanted:
		c.touches.Add(1)
	default:
		c.spared.Add(1)
	}
}

// passed counts a pass of the reaper.
func (c *counts) passed(began time.Time, removed, unreadable int, err error) {
	now := time.Now()
	r := &lastReap{ended: now, took: now.Sub(began), removed: int64(removed), unreadable: int64(unreadable)}
	if err != nil {
		r.err = err.Error()
	}
	c.reaped.Add(int64(removed))
	c.lastReap.Store(r)
}
