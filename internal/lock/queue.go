package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrConflict says that what was read before the lock was taken is not there any more.
var ErrConflict = errors.New("others change the session all the time")

// Again runs fn until it meets no ErrConflict. When timeout has passed since the first it gives up, so that also
// a slow fn has a second chance; the error is an ErrTimeout and an ErrConflict.
func Again(ctx context.Context, timeout time.Duration, fn func() error) error {
	var end time.Time
	for {
		err := fn()
		if err != ErrConflict {
			return err
		}
		if end.IsZero() {
			end = time.Now().Add(timeout)
		} else if !time.Now().Before(end) {
			return fmt.Errorf("%w: %w", ErrTimeout, ErrConflict)
		}
		select {
		case <-time.After(rand.N(time.Millisecond)): // the processes must not keep step
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Again is the function Again, and counts.
func (t *Table) Again(ctx context.Context, timeout time.Duration, fn func() error) error {
	err := Again(ctx, timeout, func() error {
		err := fn()
		if err == ErrConflict {
			t.Counts.Conflicts.Add(1)
		}
		return err
	})
	if errors.Is(err, ErrConflict) { // it gave up
		t.Counts.Timeouts.Add(1)
	}
	return err
}

// InTurn is Again while no other goroutine of this process is in the turn of key, for which it waits as Lock
// does. It locks nothing, so that fn may take its time, and may lock.
func (t *Table) InTurn(ctx context.Context, key string, timeout time.Duration, fn func() error) error {
	key = t.fold(key)
	if err := t.enterTurn(ctx, key, timeout); err != nil {
		return err
	}
	defer t.turns.leave(key)
	return t.Again(ctx, timeout, fn)
}

// enterTurn waits for the turn of key, which is folded, as Lock waits. t.turns.leave must follow.
func (t *Table) enterTurn(ctx context.Context, key string, timeout time.Duration) error {
	wait := &patience{timeout: timeout, counts: t.Counts}
	defer wait.stop() // what is done in the turn is not waited for
	return t.turns.enter(ctx, wait, key)
}

// Ahead returns an fn for InTurn. From its second run on it is in the turn of the other key too, so that those who
// change the session in that turn, without reading it before, let it go first. They do so for maxTurn at most: an fn
// that takes longer runs on beside them.
func (t *Table) Ahead(ctx context.Context, other string, timeout time.Duration, fn func() error) func() error {
	other = t.fold(other)
	again := false
	return func() error {
		if !again {
			again = true
			return fn()
		}
		if err := t.enterTurn(ctx, other, timeout); err != nil {
			return err
		}
		leave := sync.OnceFunc(func() { t.turns.leave(other) })
		defer leave()
		defer time.AfterFunc(maxTurn, leave).Stop()
		return fn()
	}
}

// A patience ends waits, all together after timeout, and counts them as one. It makes a timer, and looks at the
// clock, only if there is something to wait for: a timer wakes up the scheduler.
type patience struct {
	timeout time.Duration
	counts  *Counts
	timer   *time.Timer
	began   time.Time
}

func (p *patience) over() <-chan time.Time {
	if p.timer == nil {
		p.began = time.Now()
		p.timer = time.NewTimer(p.timeout)
	}
	return p.timer.C
}

// expired returns the error of a wait that is over without success.
func (p *patience) expired() error {
	p.counts.Timeouts.Add(1)
	return ErrTimeout
}

// stop must follow the last wait.
func (p *patience) stop() {
	if p.timer != nil {
		p.timer.Stop()
		p.counts.Waits.Add(1)
		p.counts.Waited.Add(int64(time.Since(p.began)))
	}
}

// A queue lets the goroutines of this process through one at a time for each key, in the order in which they
// came. The zero queue is empty. It holds nothing of a key for which nobody waits.
type queue struct {
	mu    sync.Mutex
	lines map[string]*line
}

// A line is the one who was let through for a key, and those who wait for it.
type line struct {
	slot  chan struct{} // holds a token while somebody is through
	count int
}

// enter waits until it is let through; leave must follow. It fails if wait ends or ctx is done before.
func (q *queue) enter(ctx context.Context, wait *patience, key string) error {
	l := q.join(key)
	select {
	case l.slot <- struct{}{}: // if it is free there is no wait to end
		return nil
	default:
	}
	select {
	case l.slot <- struct{}{}:
		return nil
	case <-wait.over():
		q.quit(key, l)
		return wait.expired()
	case <-ctx.Done():
		q.quit(key, l)
		return ctx.Err()
	}
}

func (q *queue) leave(key string) {
	q.mu.Lock()
	l := q.lines[key]
	q.mu.Unlock()
	<-l.slot
	q.quit(key, l)
}

func (q *queue) join(key string) *line {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key]
	if l == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		l = &line{slot: make(chan struct{}, 1)}
		q.lines[key] = l
	}
	l.count++
	return l
}

func (q *queue) quit(key string, l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.count--; l.count == 0 {
		delete(q.lines, key)
	}
}
