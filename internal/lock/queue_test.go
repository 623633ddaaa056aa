package lock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Those who wait for one key go through one at a time, in the order in which they came. Those of another key
// do not wait. Nothing is left of either.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := new(queue)
		enter := func(key string, timeout time.Duration) error {
			wait := &patience{timeout: timeout, counts: new(Counts)}
			defer wait.stop()
			return q.enter(t.Context(), wait, key)
		}
		var wg sync.WaitGroup
		var order []int
		for i := range 10 {
			wg.Go(func() {
				if err := enter("a", time.Hour); err != nil {
					t.Error(err)
				}
				order = append(order, i) // the race detector sees two at once
				time.Sleep(time.Second)
				q.leave("a")
			})
			synctest.Wait()
		}
		start := time.Now()
		if err := enter("b", time.Hour); err != nil || time.Since(start) != 0 {
			t.Errorf("another key waits: %v, %v", err, time.Since(start))
		}
		q.leave("b")
		if err := enter("a", 5*time.Second); !errors.Is(err, ErrTimeout) || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v, want a time-out after 5s", err, time.Since(start))
		}
		c, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.enter(c, &patience{timeout: time.Hour, counts: new(Counts)}, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
		wg.Wait()
		for i, got := range order {
			if got != i {
				t.Errorf("the order is %v", order)
				break
			}
		}
		if len(order) != 10 || len(q.lines) != 0 {
			t.Errorf("%d went through, and %d keys are left", len(order), len(q.lines))
		}
	})
}

// Again ends with what fn says, with the time, or with the context. A slow fn has a second chance.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine := errors.New("mine")
		for name, tt := range map[string]struct {
			conflicts int // then mine
			takes     time.Duration
			want      error
			runs      int
		}{
			"none":      {0, time.Hour, mine, 1},
			"some":      {20, 0, mine, 21},
			"slow":      {1, time.Hour, mine, 2},
			"too slow":  {2, time.Hour, ErrTimeout, 2},
			"too many":  {1 << 30, time.Second, ErrTimeout, 6},
			"cancelled": {1 << 30, time.Minute, context.DeadlineExceeded, 2},
		} {
			c, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			timeout := 5 * time.Second
			if name == "cancelled" {
				c, cancel = context.WithTimeout(t.Context(), 90*time.Second)
				timeout = time.Hour
			}
			runs := 0
			err := Again(c, timeout, func() error {
				time.Sleep(tt.takes)
				if runs++; runs <= tt.conflicts {
					return ErrConflict
				}
				return mine
			})
			cancel()
			if !errors.Is(err, tt.want) || runs != tt.runs {
				t.Errorf("%s: %v after %d runs, want %v after %d", name, err, runs, tt.want, tt.runs)
			}
		}
	})
}

// What has met a conflict keeps those of the other key waiting until it is over, but not longer than maxTurn: by a
// slow fn, one that panics, or one that enters the other turn itself.
func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			second func(other func()) // run
			waits  time.Duration      // so long another one of the other key waits for it
		}{
			"fast":   {func(func()) { time.Sleep(time.Millisecond) }, time.Millisecond},
			"slow":   {func(func()) { time.Sleep(time.Hour) }, maxTurn},
			"panics": {func(func()) { panic("fn") }, 0},
			"enters": {func(other func()) { other() }, maxTurn},
		} {
			table := &Table{Counts: new(Counts)}
			var waited time.Duration
			other := func() {
				start := time.Now()
				err := table.InTurn(t.Context(), "other", 2*maxTurn, func() error { waited = time.Since(start); return nil })
				if err != nil {
					t.Errorf("%s: the other: %v", name, err)
				}
			}
			var wg sync.WaitGroup
			runs := 0
			func() {
				defer func() { recover() }()
				err := table.InTurn(t.Context(), "a", time.Hour, table.Ahead(t.Context(), "other", time.Hour, func() error {
					runs++
					if runs == 1 {
						if other(); waited != 0 {
							t.Errorf("%s: before a conflict the other waits for %v", name, waited)
						}
						return ErrConflict
					}
					if name != "enters" {
						wg.Go(other)
						synctest.Wait()
					}
					tt.second(other)
					return nil
				}))
				if err != nil || runs != 2 {
					t.Errorf("%s: %v after %d runs", name, err, runs)
				}
			}()
			wg.Wait()
			if waited != tt.waits || len(table.turns.lines) != 0 {
				t.Errorf("%s: the other has waited for %v, want %v; %d turns are left", name, waited, tt.waits, len(table.turns.lines))
			}
		}
	})
}

// A wait for a turn is counted, and how long it was; what fn takes is no wait. A free turn costs no look at the clock
// and no timer, so it counts nothing.
func TestCountsOfTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &Table{Counts: new(Counts)}
		counts := func() [4]int64 {
			c := table.Counts
			return [4]int64{c.Waits.Load(), c.Waited.Load(), c.Timeouts.Load(), c.Conflicts.Load()}
		}
		turn := func(timeout time.Duration, fn func() error) error { return table.InTurn(t.Context(), "a", timeout, fn) }
		slow := func() error { time.Sleep(time.Second); return nil }
		if err := turn(time.Hour, slow); err != nil || counts() != [4]int64{} {
			t.Errorf("a free turn: %v, %v", err, counts())
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := turn(time.Hour, slow); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := turn(time.Second/2, slow); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v, want a time-out", err)
		}
		wg.Wait()
		if got, want := counts(), ([4]int64{3, int64(time.Second + 2*time.Second + time.Second/2), 1, 0}); got != want {
			t.Errorf("the counts are %v, want %v", got, want)
		}
		before, runs := counts(), int64(0)
		err := turn(time.Second, func() error { time.Sleep(time.Second); runs++; return ErrConflict })
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("%v, want a time-out", err)
		}
		before[2]++
		before[3] += runs
		if got := counts(); got != before || runs != 2 {
			t.Errorf("%d conflicts: the counts are %v, want %v", runs, got, before)
		}
	})
}
