package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func increment(s *filestore.Store, id string) error {
	return s.Update(ctx, id, func(sess *filestore.Session) error {
		n, err := filestore.Value[int](sess, "n")
		if err != nil {
			return err
		}
		return sess.Put("n", n+1)
	})
}

func patient() *filestore.Options {
	o := quick()
	o.LockTimeout = time.Minute
	return o
}

// P4, E8: 8 processes do 1,000 Updates each of one session, and none is lost.
func TestNoLostUpdateBetweenProcesses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	set(t, s, "id", "n", 0)
	var others []*storetest.Process
	for range 8 {
		others = append(others, storetest.Start(t, "increment", dir, "1000"))
	}
	for _, p := range others {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := value(t, get(t, s, "id"), "n"); got != "8000" {
		t.Errorf("n = %s after 8 x 1,000 Updates", got)
	}
}

// P4, E9: 32 goroutines do 250 Updates each through one Store, and none is lost.
func TestNoLostUpdateBetweenGoroutines(t *testing.T) {
	s := open(t, t.TempDir(), patient())
	set(t, s, "id", "n", 0)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 250 {
				if err := increment(s, "id"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := value(t, get(t, s, "id"), "n"); got != "8000" {
		t.Errorf("n = %s after 32 x 250 Updates", got)
	}
}

func init() {
	workers["increment"] = func(args []string) {
		s, err := filestore.Open(args[0], patient())
		must(err)
		n, _ := strconv.Atoi(args[1])
		for range n {
			must(increment(s, "id"))
		}
		must(s.Close())
	}
}

func init() {
	// The worker writes until its standard input ends.
	workers["writer"] = func(args []string) {
		s, err := filestore.Open(args[0], patient())
		must(err)
		end := make(chan struct{})
		go func() { io.Copy(io.Discard, os.Stdin); close(end) }()
		for n := 0; ; n++ {
			select {
			case <-end:
				must(s.Close())
				return
			default:
			}
			sess := new(filestore.Session)
			must(sess.Put("n", n))
			must(sess.Put("v", strings.Repeat(string(rune('a'+n%26)), 1+n*37%20_000)))
			must(s.Set(ctx, "id", sess))
		}
	}
}

func init() {
	workers["mutate"] = func(args []string) {
		o := patient()
		o.NoSync = false
		s, err := filestore.Open(args[0], o)
		must(err)
		base, _ := strconv.Atoi(args[1])
		fill := func(sess *filestore.Session, n int) error {
			if err := sess.Put("pad", strings.Repeat("x", n%5000)); err != nil {
				return err
			}
			return sess.Put("n", n)
		}
		for i := base; ; i++ {
			id := "s" + strconv.Itoa(i%5)
			v := i
			if i%7 == 6 {
				v = -1
			}
			fmt.Println("begin", id, v)
			switch {
			case v < 0:
				err = s.Destroy(ctx, id)
			case i%3 == 0:
				err = s.Update(ctx, id, func(sess *filestore.Session) error { return fill(sess, v) })
				if !errors.Is(err, filestore.ErrNotFound) {
					break
				}
				fallthrough
			default:
				sess := new(filestore.Session)
				must(fill(sess, v))
				err = s.Set(ctx, id, sess)
			}
			must(err)
			fmt.Println("done", id, v)
		}
	}
}

// hold starts an Update of id that waits until release is called.
func hold(t *testing.T, s *filestore.Store, id string) (release func() error) {
	t.Helper()
	held, free, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		result <- s.Update(ctx, id, func(sess *filestore.Session) error {
			close(held)
			<-free
			return sess.Put("held", true)
		})
	}()
	select {
	case <-held:
	case err := <-result:
		t.Fatalf("Update = %v", err)
	}
	return sync.OnceValue(func() error { close(free); return <-result })
}

// P9, E10, E11: others wait for a stopped holder no longer than LockTimeout, and only for sessions of the
// same lock. When the holder dies the lock is free.
func TestStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 300 * time.Millisecond
	s := open(t, dir, o)
	set(t, s, "id", "n", 1)
	holder := storetest.Start(t, "hold", dir, "id")
	holder.Line(t)
	start := time.Now()
	wantErr(t, "Set beside a holder", s.Set(ctx, "id", session(t)), filestore.ErrLockTimeout)
	if d := time.Since(start); d < 250*time.Millisecond || d > 2*time.Second {
		t.Errorf("waited %v, want 300ms", d)
	}
	wantErr(t, "Destroy beside a holder", s.Destroy(ctx, "id"), filestore.ErrLockTimeout)
	get(t, s, "id") // takes no lock
	// E15: a context that ends during the wait; the lock is not held afterwards.
	c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	wantErr(t, "Set", s.Set(c, "id", session(t)), context.DeadlineExceeded)
	cancel()
	free := 0
	for i := range 64 {
		if s.Set(ctx, fmt.Sprintf("other%d", i), session(t)) == nil {
			free++
		}
	}
	if free < 55 {
		t.Errorf("%d of 64 other sessions could be set", free)
	}
	holder.Kill()
	if err := s.Set(ctx, "id", session(t)); err != nil {
		t.Errorf("Set after the holder died: %v", err)
	}
}

func init() {
	workers["hold"] = func(args []string) {
		s, err := filestore.Open(args[0], quick())
		must(err)
		s.Update(ctx, args[1], func(*filestore.Session) error {
			fmt.Println("held")
			io.Copy(io.Discard, os.Stdin)
			return nil
		})
	}
	workers["sleep"] = func([]string) { io.Copy(io.Discard, os.Stdin) }
}

// Waits within one Store end in the same way, and leave the queue in order.
func TestWaitWithinAStore(t *testing.T) {
	o := quick()
	o.LockTimeout = 100 * time.Millisecond
	s := open(t, t.TempDir(), o)
	set(t, s, "id")
	release := hold(t, s, "id")
	wantErr(t, "Set", s.Set(ctx, "id", session(t)), filestore.ErrLockTimeout)
	c, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	wantErr(t, "Touch", s.Update(c, "id", func(*filestore.Session) error { return nil }), context.Canceled)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(ctx, "id", session(t)); err != nil {
		t.Error(err)
	}
}

// E12: an operator deletes the lock files while one is held. A holder that finds its lock lost fails.
// Afterwards the holders exclude each other again.
func TestLockFilesDeleted(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, patient()), open(t, dir, patient())
	set(t, a, "id", "n", 0)
	for name, remove := range map[string]func() error{
		"files":     func() error { return removeAll(filepath.Join(dir, ".locks", "*")) },
		"directory": func() error { return os.RemoveAll(filepath.Join(dir, ".locks")) },
	} {
		release := hold(t, a, "id")
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if err := increment(b, "id"); err != nil {
			t.Errorf("%s: Update after the lock files were deleted: %v", name, err)
		}
		before := value(t, get(t, b, "id"), "n")
		wantErr(t, name+": Update of the holder", release(), filestore.ErrUnsafeFile)
		if got := get(t, b, "id"); value(t, got, "n") != before || got.Values["held"] != nil {
			t.Errorf("%s: a holder that had lost its lock wrote: %v", name, got.Values)
		}
	}
	// Under load an Update may be lost at that moment. No Update fails for another reason.
	old := time.Now().Add(-time.Hour)
	set(t, a, "id", "n", 0)
	c, cancel := context.WithTimeout(ctx, storetest.Long(2*time.Second, time.Minute))
	defer cancel()
	var wg sync.WaitGroup
	var stores []*filestore.Store
	for i := range 4 {
		s := open(t, dir, patient())
		stores = append(stores, s)
		wg.Go(func() {
			for c.Err() == nil {
				if err := increment(s, "id"); err != nil && !errors.Is(err, filestore.ErrUnsafeFile) {
					t.Errorf("Update = %v", err)
				}
			}
		})
		if i == 0 {
			wg.Go(func() {
				for c.Err() == nil {
					time.Sleep(rand.N(60 * time.Millisecond))
					if rand.N(2) == 0 {
						removeAll(filepath.Join(dir, ".locks", "*"))
						continue
					}
					for i := range 64 { // as cp -p or rsync -t put an old one there
						tmp := filepath.Join(dir, "tmp")
						os.WriteFile(tmp, nil, 0o600)
						os.Chtimes(tmp, old, old)
						os.Rename(tmp, filepath.Join(dir, ".locks", fmt.Sprintf("%02x", i)))
					}
				}
			})
		}
	}
	wg.Wait()
	// As soon as the deletions are over the stores exclude each other again.
	set(t, a, "id", "n", 0)
	for _, s := range stores {
		wg.Go(func() {
			for range 500 {
				if err := increment(s, "id"); err != nil {
					t.Errorf("Update = %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := value(t, get(t, a, "id"), "n"); got != "2000" {
		t.Errorf("n = %s after 2,000 Updates", got)
	}
	for i := range 200 { // make all lock files again, for the check at the end
		a.Destroy(ctx, fmt.Sprint("make", i))
	}
	open(t, dir, quick())
}

func removeAll(pattern string) error {
	names, err := filepath.Glob(pattern)
	for _, name := range names {
		os.Remove(name)
	}
	return err
}

// E13: a child process inherits no lock, and starting one releases none.
func TestLockAndChildren(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, quick())
	o := quick()
	o.LockTimeout = 100 * time.Millisecond
	b := open(t, dir, o)
	set(t, a, "id")
	release := hold(t, a, "id")
	storetest.Start(t, "sleep")
	wantErr(t, "Set while held", b.Set(ctx, "id", session(t)), filestore.ErrLockTimeout)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := b.Set(ctx, "id", session(t)); err != nil {
		t.Errorf("Set while the child lives: %v", err)
	}
}

// A hook runs fn in the middle of the n-th load of a session: after its file was read, and before its expiry
// is checked.
type hook struct {
	n  atomic.Int32
	fn func()
}

func (h *hook) Encode(_ string, doc []byte) ([]byte, error) { return doc, nil }
func (h *hook) Decode(_ string, file []byte) ([]byte, error) {
	if h.n.Add(-1) == 0 {
		h.fn()
	}
	return file, nil
}

// A counter counts how many files are decoded.
type counter struct{ atomic.Int64 }

func (*counter) Encode(_ string, doc []byte) ([]byte, error) { return doc, nil }
func (c *counter) Decode(_ string, file []byte) ([]byte, error) {
	c.Add(1)
	return file, nil
}

func hooked(t *testing.T, dir string, n int32, fn func()) *filestore.Store {
	o := quick()
	h := &hook{fn: fn}
	h.n.Store(n)
	o.Codec = h
	return open(t, dir, o)
}

// A busy process does not starve another one, which polls: its wait is far shorter than the timeout.
func TestFairBetweenProcesses(t *testing.T) {
	dir := t.TempDir()
	hog, other := open(t, dir, patient()), open(t, dir, patient())
	set(t, hog, "id")
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 8 {
		wg.Go(func() {
			for c.Err() == nil {
				hog.Update(ctx, "id", func(*filestore.Session) error { time.Sleep(5 * time.Millisecond); return nil })
			}
		})
	}
	for range 20 {
		c, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := other.Update(c, "id", func(*filestore.Session) error { return nil })
		cancel()
		if err != nil {
			t.Fatalf("Update beside a busy process = %v", err)
		}
	}
}

// If a caller ends a wait, the error is that of the context, whatever the cause.
func TestWaitEndsWithContext(t *testing.T) {
	s := open(t, t.TempDir(), patient())
	set(t, s, "id")
	release := hold(t, s, "id")
	c, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("client left")) })
	wantErr(t, "Set", s.Set(c, "id", session(t)), context.Canceled)
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

// A stopped holder costs a pass of the reaper one timeout, not one for each session of its lock.
func TestReapBesideAStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 300 * time.Millisecond
	s := open(t, dir, o)
	set(t, s, "id")
	release := hold(t, open(t, dir, patient()), "id")
	const all = 4000 // some 60 share the lock
	for i := range all {
		write(t, dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
	}
	start := time.Now()
	n, err := s.Reap(ctx)
	wantErr(t, "Reap", err, filestore.ErrLockTimeout)
	if d := time.Since(start); n < all*9/10 || d > 5*time.Second {
		t.Errorf("Reap removed %d of %d in %v", n, all, d)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Reap(ctx); n+k != all || err != nil {
		t.Errorf("the second Reap = %d, %v, want %d", k, err, all-n)
	}
}

// P9: Clear waits once for a stopped holder. Close does not wait for all the locks of a pass.
func TestLongWorkBesideAStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 300 * time.Millisecond
	s := open(t, dir, o)
	set(t, s, "id")
	release := hold(t, open(t, dir, patient()), "id")
	for i := range 1000 {
		write(t, dir, fmt.Sprintf("s%d.json", i), doc(nowMs(), ""))
	}
	start := time.Now()
	wantErr(t, "Clear", s.Clear(ctx), filestore.ErrLockTimeout)
	if n, err := s.Len(ctx); n > 100 || err != nil || time.Since(start) > 2*time.Second {
		t.Errorf("Clear left %d, %v, and took %v", n, err, time.Since(start))
	}

	o.LockTimeout = time.Hour
	for _, work := range []func(*filestore.Store) error{
		func(s *filestore.Store) error { return s.Clear(ctx) },
		func(s *filestore.Store) error { _, err := s.Reap(ctx); return err },
	} {
		for i := range 100 {
			write(t, dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
		}
		s := open(t, dir, o)
		result := make(chan error, 1)
		go func() { result <- work(s) }()
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		if err := s.Close(); err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Close = %v and took %v", err, time.Since(start))
		}
		if err := <-result; !errors.Is(err, filestore.ErrClosed) && !errors.Is(err, context.Canceled) {
			t.Errorf("ended by Close: %v", err)
		}
	}
	if err := release(); err != nil && !errors.Is(err, filestore.ErrNotFound) {
		t.Fatal(err)
	}
}
