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
			wait := &patience{timeout: timeout}
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
		if err := q.enter(c, &patience{timeout: time.Hour}, "a"); !errors.Is(err, context.DeadlineExceeded) {
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
