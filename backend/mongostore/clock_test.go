package mongostore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The server's time is told for a minute without a question, and to within half of what an answer takes.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = time.Hour
		const usual = 20 * time.Millisecond
		var asked int
		var slow []time.Duration // how long the next answers take
		var failure error
		c := newClock(func(context.Context) (time.Time, error) {
			asked++
			trip := usual
			if len(slow) > 0 {
				trip, slow = slow[0], slow[1:]
			}
			time.Sleep(trip / 4)
			server := time.Now().Add(ahead)
			time.Sleep(trip - trip/4)
			return server, failure
		})
		now := func(wantAsked int) {
			t.Helper()
			asked = 0
			got, err := c.now(t.Context())
			if off := got.Sub(time.Now().Add(ahead)).Abs(); off > usual/4 || err != nil {
				t.Errorf("now is off by %v, %v", off, err)
			}
			if asked != wantAsked {
				t.Errorf("the server was asked %d times, want %d", asked, wantAsked)
			}
		}
		now(1)
		time.Sleep(clockAge - time.Second)
		now(0)
		time.Sleep(time.Second)
		now(1)
		// An answer that takes long does not count if another comes sooner.
		time.Sleep(clockAge)
		slow = []time.Duration{clockTrip}
		now(2)
		time.Sleep(clockAge)
		slow = []time.Duration{2 * clockTrip, usual + clockTrip, 2 * clockTrip}
		asked = 0
		got, err := c.now(t.Context())
		if off := got.Sub(time.Now().Add(ahead)).Abs(); off != (usual+clockTrip)/4 || err != nil || asked != 3 {
			t.Errorf("of three slow answers now is off by %v, %v", off, err)
		}
		// This host's clock was set, or the host has slept, which the monotonic clock does not tell.
		for _, jump := range []time.Duration{-time.Hour, 2 * time.Second} {
			c.wall = c.wall.Add(jump)
			now(1)
		}
		// If the server does not answer, there is no time.
		time.Sleep(clockAge)
		failure = errors.New("no")
		if _, err := c.now(t.Context()); !errors.Is(err, failure) {
			t.Errorf("now = %v, want the error of the question", err)
		}
	})
}

// Who waits for another's question waits no longer than its own context says.
func TestClockWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock(func(ctx context.Context) (time.Time, error) {
			<-ctx.Done()
			return time.Time{}, ctx.Err()
		})
		done := make(chan error)
		for _, d := range []time.Duration{time.Minute, time.Second} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, err := c.now(ctx)
				done <- err
			}()
			synctest.Wait() // the first one asks
		}
		began := time.Now()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("now = %v after %v, want the end of the context after 1 s", err, time.Since(began))
		}
		<-done
	})
}
