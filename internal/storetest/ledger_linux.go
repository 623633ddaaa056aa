package storetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A Changer is the part of a store that a Ledger watches.
type Changer interface {
	getter
	Create(ctx context.Context, id string, sess *filestore.Session) error
	Update(ctx context.Context, id string, fn func(*filestore.Session) error) error
	Destroy(ctx context.Context, id string) error
}

// A Ledger holds what a store has acknowledged to some goroutines. Each of them has sessions of its own.
type Ledger struct {
	store    Changer
	accounts [8][]*account
	done     atomic.Int64 // calls that succeeded
	failed   atomic.Int64
}

// An account is what is known of one session.
type account struct {
	id        string
	low, high int  // the Updates that it must have, and those that it can have
	made      bool // Create was acknowledged
	doubtful  bool // an Update was not acknowledged since the last look
	ended     bool // Destroy was called
	gone      bool // and acknowledged
}

// Besides lets goroutines change sessions for as long as attack runs. A call that fails does not stop them.
func Besides(s Changer, prefix string, attack func(*Ledger)) *Ledger {
	l := &Ledger{store: s}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range l.accounts {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				a := &account{id: fmt.Sprint(prefix, i, "-", n)}
				l.accounts[i] = append(l.accounts[i], a)
				for !stop.Load() && !a.ended {
					l.step(a)
				}
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	attack(l)
	return l
}

// A Victim is a server that can be killed and started again.
type Victim interface {
	Kill()
	Start(t testing.TB)
}

// Kill kills the server beside goroutines that change sessions, and fails unless all that was acknowledged is there
// when it is back. works must return when the store works again.
func Kill(t testing.TB, server Victim, s Changer, rounds int, works func()) {
	t.Helper()
	for round := range rounds {
		prefix := fmt.Sprint("r", round, "-")
		l := Besides(s, prefix, func(l *Ledger) {
			Eventually(t, "enough was acknowledged for a test", func() bool { return l.done.Load() > 100 })
			time.Sleep(rand.N(500 * time.Millisecond))
			server.Kill()
			if _, err := s.Get(context.Background(), prefix+"0-0"); err == nil || errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Get without a server = %v", err)
			}
			server.Start(t)
			works()
		})
		l.Check(t)
	}
}

// step does something to the session, and puts down what is then known of it.
func (l *Ledger) step(a *account) {
	ctx := context.Background()
	var err error
	switch {
	case !a.made:
		err = l.store.Create(ctx, a.id, With("n", 0))
		a.made = err == nil || errors.Is(err, fs.ErrExist) // made by an earlier one, whose answer was lost
	case a.doubtful: // a look first: else each failure while the server is away would raise high
		var n int
		if n, err = count(l.store, a.id); err == nil && a.low <= n && n <= a.high {
			a.low, a.doubtful = n, false
		}
	case a.low > 10 && rand.N(50) == 0:
		err = l.store.Destroy(ctx, a.id)
		a.ended, a.gone = true, err == nil
	default:
		a.high++
		if err = l.store.Update(ctx, a.id, Add); err == nil {
			a.low++
		} else {
			a.doubtful = true
		}
	}
	if err != nil {
		l.failed.Add(1)
		time.Sleep(10 * time.Millisecond)
		return
	}
	l.done.Add(1)
}

// Acknowledged returns how many calls succeeded so far, and how many failed.
func (l *Ledger) Acknowledged() (done, failed int) { return int(l.done.Load()), int(l.failed.Load()) }

// Check fails unless each session is as acknowledged. The store must be able to answer.
func (l *Ledger) Check(t testing.TB) {
	t.Helper()
	for _, some := range l.accounts {
		for _, a := range some {
			n, err := count(l.store, a.id)
			switch gone := errors.Is(err, filestore.ErrNotFound); {
			case gone && (a.ended || !a.made):
			case a.gone:
				t.Errorf("a destroyed session is there, or Get = %v", err)
			case err != nil:
				t.Errorf("Get of an acknowledged session = %v", err)
			case n < a.low || n > a.high:
				t.Errorf("a session has %d Updates, want %d to %d", n, a.low, a.high)
			}
		}
	}
}
