package mongostore

import (
	"context"
	"time"
)

// A clock tells the server's time by this host's clock.
type clock struct {
	ask func(context.Context) (time.Time, error) // the server's time

	held   chan struct{} // guards the rest, also while the server is asked
	at     time.Time     // when it was asked, by this host's monotonic clock
	wall   time.Time     // the same by its wall clock; zero = never
	server time.Time     // the same by the server's clock
}

func newClock(ask func(context.Context) (time.Time, error)) *clock {
	return &clock{ask: ask, held: make(chan struct{}, 1)}
}

const (
	clockAge  = time.Minute            // after which two clocks may differ, by some milliseconds
	clockTrip = 100 * time.Millisecond // an answer that takes longer tells little
)

// now returns the server's time.
func (c *clock) now(ctx context.Context) (time.Time, error) {
	select {
	case c.held <- struct{}{}:
		defer func() { <-c.held }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	if c.old() {
		if err := c.measure(ctx); err != nil {
			return time.Time{}, err
		}
	}
	return c.server.Add(time.Since(c.at)), nil
}

// old reports whether to ask the server. Between two questions only the monotonic clock counts, which nobody sets;
// but it stands still while the host sleeps, and then the wall clock has gone further.
func (c *clock) old() bool {
	passed := time.Since(c.at)
	return passed >= clockAge || (time.Now().Round(0).Sub(c.wall)-passed).Abs() > time.Second
}

// measure asks the server, again if the answer takes long, as the first one does that opens a connection.
func (c *clock) measure(ctx context.Context) error {
	best := time.Duration(-1)
	for range 3 {
		began := time.Now()
		server, err := c.ask(ctx)
		if err != nil {
			return err
		}
		if took := time.Since(began); best < 0 || took < best {
			best, c.at, c.server = took, began.Add(took/2), server
			c.wall = c.at.Round(0)
		}
		if best < clockTrip {
			break
		}
	}
	return nil
}
