package filestore_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
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
	each := storetest.Brief(20, 1000)
	for range 8 {
		others = append(others, storetest.Start(t, "increment", dir, strconv.Itoa(each)))
	}
	for _, p := range others {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := value(t, get(t, s, "id"), "n"); got != strconv.Itoa(8*each) {
		t.Errorf("n = %s after 8 x %d Updates", got, each)
	}
}

// P4, E9: 32 goroutines do 250 Updates each through one Store, and none is lost.
func TestNoLostUpdateBetweenGoroutines(t *testing.T) {
	s := open(t, t.TempDir(), patient())
	set(t, s, "id", "n", 0)
	var wg sync.WaitGroup
	each := storetest.Brief(20, 250)
	for range 32 {
		wg.Go(func() {
			for range each {
				if err := increment(s, "id"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := value(t, get(t, s, "id"), "n"); got != strconv.Itoa(32*each) {
		t.Errorf("n = %s after 32 x %d Updates", got, each)
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
	if d := time.Since(start); d < 250*time.Millisecond || d > 20*time.Second {
		t.Errorf("waited %v, want 300ms", d)
	}
	wantErr(t, "Destroy beside a holder", s.Destroy(ctx, "id"), filestore.ErrLockTimeout)
	get(t, s, "id") // takes no lock
	// E15: a context that ends during the wait; the lock is not held afterwards.
	late := open(t, dir, patient())
	c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	wantErr(t, "Set", late.Set(c, "id", session(t)), context.DeadlineExceeded)
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
	for _, s := range []*filestore.Store{s, late} {
		if err := s.Set(ctx, "id", session(t)); err != nil {
			t.Errorf("Set after the holder died: %v", err)
		}
	}
}

func init() {
	workers["hold"] = func(args []string) {
		d, err := disk.Open(args[0], disk.Options{})
		must(err)
		locks, err := lock.Open(d, ".json", slog.Default())
		must(err)
		_, err = locks.Lock(ctx, args[1], time.Minute)
		must(err)
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
	}
	workers["sleep"] = func([]string) { io.Copy(io.Discard, os.Stdin) }
}

// P9: nobody waits for the function of somebody's Update: neither other sessions nor Set, Create, Touch and
// Destroy of the same one. Only an Update of the same session does, until LockTimeout.
func TestSlowUpdate(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout, o.TouchAfter = 300*time.Millisecond, -1
	for name, s := range map[string]*filestore.Store{"the same process": nil, "another process": open(t, dir, o)} {
		slow := open(t, dir, o)
		if s == nil {
			s = slow
		}
		set(t, slow, "id", "n", 1)
		inside, leave, result := make(chan bool, 10), make(chan bool), make(chan error, 1)
		go func() {
			result <- slow.Update(ctx, "id", func(sess *filestore.Session) error {
				inside <- true
				<-leave
				return sess.Put("slow", true)
			})
		}()
		<-inside
		for i := range 200 { // three of each stripe
			id := fmt.Sprint("other", i)
			for op, err := range map[string]error{"Set": s.Set(ctx, id, session(t)), "Update": increment(s, id), "Touch": s.Touch(ctx, id, nil)} {
				if err != nil {
					t.Fatalf("%s: %s of another session = %v", name, op, err)
				}
			}
		}
		err := increment(s, "id")
		if s == slow {
			wantErr(t, name+": Update", err, filestore.ErrLockTimeout)
		} else if err != nil {
			t.Errorf("%s: Update = %v", name, err)
		}
		for op, err := range map[string]error{
			"Touch": s.Touch(ctx, "id", nil), "Destroy": s.Destroy(ctx, "id"), "Create": s.Create(ctx, "id", session(t)), "Set": s.Set(ctx, "id", session(t, "n", 2)),
		} {
			if err != nil && !errors.Is(err, filestore.ErrNotFound) && !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %s = %v", name, op, err)
			}
		}
		set(t, s, "id", "n", 3)
		close(leave)
		// It runs again with what the others have made of the session.
		if err := <-result; err != nil {
			t.Errorf("%s: the slow Update = %v", name, err)
		}
		if sess := get(t, s, "id"); value(t, sess, "n") != "3" || value(t, sess, "slow") != "true" || len(inside) != 1 {
			t.Errorf("%s: %v, and %d more runs, want n, slow and 1", name, sess.Values, len(inside))
		}
	}
}

// The function of an Update may use the Store. If it changes the session itself, there is no end but
// LockTimeout.
func TestUpdateUsesTheStore(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 300 * time.Millisecond
	s := open(t, dir, o)
	set(t, s, "id", "n", 1)
	for name, tt := range map[string]struct {
		fn   func() error
		want error
	}{
		"Get":                    {func() error { _, err := s.Get(ctx, "id"); return err }, nil},
		"Reap":                   {func() error { _, err := s.Reap(ctx); return err }, nil},
		"Set of another":         {func() error { return s.Set(ctx, "other", session(t)) }, nil},
		"Update of another":      {func() error { return increment(s, "other") }, nil},
		"Create":                 {func() error { return s.Create(ctx, "new", session(t)) }, nil},
		"Touch that is spared":   {func() error { return s.Touch(ctx, "id", nil) }, nil},
		"Set of the session":     {func() error { return s.Set(ctx, "id", session(t, "n", 1)) }, filestore.ErrLockTimeout},
		"Update of the session":  {func() error { return increment(s, "id") }, filestore.ErrLockTimeout},
		"Destroy of the session": {func() error { return s.Destroy(ctx, "id") }, filestore.ErrNotFound},
	} {
		set(t, s, "id", "n", 1)
		set(t, s, "other", "n", 1)
		start := time.Now()
		err := s.Update(ctx, "id", func(*filestore.Session) error { return tt.fn() })
		if !errors.Is(err, tt.want) || err == nil && tt.want != nil || time.Since(start) > 20*time.Second {
			t.Errorf("%s = %v after %v, want %v", name, err, time.Since(start), tt.want)
		}
	}
	if _, err := s.Get(ctx, "id"); err == nil {
		s.Destroy(ctx, "id")
	}
}

// An Update that meets others ends with what it finds: a session that is destroyed meanwhile stays away, an error
// of the function's second run is returned, and so is that of the context.
func TestUpdateAgain(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, quick()), open(t, dir, quick())
	mine := errors.New("mine")
	c, cancel := context.WithCancel(ctx)
	for name, tt := range map[string]struct {
		meanwhile func()
		second    error
		want      error
		runs      int
	}{
		"nothing":   {func() {}, nil, nil, 1},
		"changed":   {func() { set(t, other, "id", "n", 2) }, nil, nil, 2},
		"the same":  {func() { set(t, other, "id", "n", 1) }, nil, nil, 2},
		"touched":   {func() { other.Update(ctx, "id", func(*filestore.Session) error { return nil }) }, nil, nil, 2},
		"destroyed": {func() { other.Destroy(ctx, "id") }, nil, filestore.ErrNotFound, 1},
		"expired":   {func() { write(t, dir, "id.json", doc(1, "")) }, nil, filestore.ErrExpired, 1},
		"damaged":   {func() { write(t, dir, "id.json", "{") }, nil, filestore.ErrCorrupt, 1},
		"refused":   {func() { set(t, other, "id", "n", 2) }, mine, mine, 2},
		"cancelled": {func() { set(t, other, "id", "n", 2); cancel() }, nil, context.Canceled, 1},
	} {
		set(t, s, "id", "n", 1)
		if name == "the same" {
			time.Sleep(2 * time.Millisecond) // for another last access
		}
		runs := 0
		err := s.Update(c, "id", func(sess *filestore.Session) error {
			if runs++; runs == 1 {
				tt.meanwhile()
				return sess.Put("n", 3)
			}
			return cmp.Or(tt.second, sess.Put("second", true))
		})
		if name == "cancelled" {
			c, cancel = context.WithCancel(ctx)
		}
		if !errors.Is(err, tt.want) || runs != tt.runs {
			t.Errorf("%s: %v after %d runs, want %v after %d", name, err, runs, tt.want, tt.runs)
		}
		sess, err := s.Get(ctx, "id")
		switch {
		case tt.want == nil && tt.runs == 2 && (err != nil || value(t, sess, "second") != "true" || value(t, sess, "n") == "3"):
			t.Errorf("%s: %v, %v", name, sess, err)
		case name == "destroyed" && !errors.Is(err, filestore.ErrNotFound), tt.want == mine && value(t, sess, "n") != "2":
			t.Errorf("%s: %v, %v", name, sess, err)
		}
	}
	cancel()
}

// Update's turn is free again after a panic, and so is its wait after a time-out: nothing is left of either.
func TestUpdatePanics(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	set(t, s, "id", "n", 1)
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of the function is lost")
				}
			}()
			s.Update(ctx, "id", func(*filestore.Session) error { panic("mine") })
		}()
		if err := increment(s, "id"); err != nil {
			t.Error(err)
		}
	}
	if got := value(t, get(t, s, "id"), "n"); got != "4" {
		t.Errorf("n = %s", got)
	}
}

// Many writers of one session do not keep those of another waiting that shares its lock: in front of the
// lock each session has one place.
func TestManyWritersOfOneSession(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	stranger := "stranger"
	for i := 0; format.Stripe(stranger) != format.Stripe("id"); i++ {
		stranger = fmt.Sprint("stranger", i)
	}
	set(t, s, stranger, "n", 0)
	release := storetest.Hold(t, dir, "id")
	const all = 1000
	var begun, done atomic.Int64
	var wg sync.WaitGroup
	for range all {
		wg.Go(func() {
			begun.Add(1)
			if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
				t.Error(err)
			}
			done.Add(1)
		})
	}
	was, same := 0, 0
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until those that come to the lock wait there
		temps, err := filepath.Glob(filepath.Join(dir, ".*~"))
		if err != nil {
			t.Fatal(err)
		}
		if same++; len(temps) != was {
			was, same = len(temps), 0
		}
		if len(temps) > 0 && begun.Load() == all && same >= 100 {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("after 20 s %d of %d have begun, and there are %d temporary files", begun.Load(), all, len(temps))
		}
	}
	time.Sleep(50 * time.Millisecond)
	time.AfterFunc(500*time.Millisecond, release)
	if err := increment(s, stranger); err != nil {
		t.Error(err)
	}
	if n := done.Load(); n > all/2 {
		t.Errorf("the writer of another session had to wait for %d of %d", n, all)
	}
	wg.Wait()
}

// Nor do they keep an Update or a Touch of the same session from getting through.
func TestUpdateBesideManySets(t *testing.T) {
	s := open(t, t.TempDir(), patient())
	set(t, s, "id", "n", 0)
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 16 {
		wg.Go(func() {
			for c.Err() == nil {
				if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		start := time.Now()
		for op, err := range map[string]error{
			"Update":        s.Update(ctx, "id", func(*filestore.Session) error { return nil }),
			"A slow Update": s.Update(ctx, "id", func(*filestore.Session) error { time.Sleep(10 * time.Millisecond); return nil }),
			"Touch":         s.Touch(ctx, "id", &filestore.Cookie{Path: fmt.Sprint("/", start.UnixNano())}),
		} {
			if err != nil || time.Since(start) > 20*time.Second {
				t.Fatalf("%s beside many Sets of the session = %v after %v", op, err, time.Since(start))
			}
		}
	}
}

// What is free is not waited for: neither a context that has ended nor the shortest LockTimeout is noticed.
func TestNoWaitNoTimeout(t *testing.T) {
	o := quick()
	o.LockTimeout = time.Millisecond
	s := open(t, t.TempDir(), o)
	set(t, s, "id", "n", 0)
	for range 50 {
		c, cancel := context.WithCancel(ctx)
		if err := s.Update(c, "id", func(*filestore.Session) error { time.Sleep(2 * time.Millisecond); cancel(); return nil }); err != nil {
			t.Fatalf("Update whose context ends in its function = %v", err)
		}
		cancel()
	}
}

// A wait for the lock longer than an hour, after which the reaper has swept the temporary file, ends well.
func TestSweptWhileItWaits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	release := storetest.Hold(t, dir, "id")
	time.AfterFunc(100*time.Millisecond, func() {
		if err := removeAll(filepath.Join(dir, ".*~")); err != nil {
			t.Error(err)
		}
		release()
	})
	set(t, s, "id", "n", 1)
	if got := value(t, get(t, s, "id"), "n"); got != "1" {
		t.Errorf("n = %s", got)
	}
}

// Clear and the reaper do not take a session that is written all the time for a stopped holder of its lock.
func TestClearBesideWriters(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 20 * time.Millisecond
	codec := new(restless)
	o.Codec = codec
	s := open(t, dir, o)
	busy := ""
	for i := range 1000 { // some 15 of each lock
		id := fmt.Sprint("s", i)
		write(t, dir, id+".json", doc(nowMs(), ""))
		if format.Stripe(id) == 0 {
			busy = id
		}
	}
	codec.file = filepath.Join(dir, busy+".json")
	wantErr(t, "Clear", s.Clear(ctx), filestore.ErrLockTimeout)
	if left := storetest.Files(t, dir); len(left) != 1 || left[0] != codec.file {
		t.Errorf("%d sessions are left, want the one that changes all the time", len(left))
	}
}

// A restless changes a file whenever a session is decoded.
type restless struct{ file string }

func (*restless) Encode(_ string, doc []byte) ([]byte, error) { return doc, nil }
func (r *restless) Decode(_ string, file []byte) ([]byte, error) {
	if r.file != "" {
		time.Sleep(5 * time.Millisecond) // a tick of the file system's clock
		os.Chmod(r.file, 0o600)
	}
	return file, nil
}

// E12: an operator deletes the lock files. A holder that finds its lock lost fails. Afterwards the holders
// exclude each other again.
func TestLockFilesDeleted(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, patient())
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
	each := storetest.Brief(50, 500)
	for _, s := range stores {
		wg.Go(func() {
			for range each {
				if err := increment(s, "id"); err != nil {
					t.Errorf("Update = %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := value(t, get(t, a, "id"), "n"); got != strconv.Itoa(4*each) {
		t.Errorf("n = %s after 4 x %d Updates", got, each)
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
	release := storetest.Hold(t, dir, "id")
	storetest.Start(t, "sleep")
	wantErr(t, "Set while held", b.Set(ctx, "id", session(t)), filestore.ErrLockTimeout)
	release()
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
	var ids []string // of one lock
	for i := 0; len(ids) < 9; i++ {
		if id := fmt.Sprint("id", i); format.Stripe(id) == 0 {
			ids = append(ids, id)
		}
	}
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, id := range ids[1:] {
		wg.Go(func() {
			for c.Err() == nil {
				hog.Set(ctx, id, new(filestore.Session))
			}
		})
	}
	set(t, other, ids[0])
	for range 20 {
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := increment(other, ids[0])
		late := c.Err()
		cancel()
		if err != nil || late != nil {
			t.Fatalf("Update beside a busy process = %v, %v", err, late)
		}
	}
}

// If a caller ends a wait, the error is that of the context, whatever the cause.
func TestWaitEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	set(t, s, "id")
	release := storetest.Hold(t, dir, "id")
	for name, op := range map[string]func(context.Context) error{
		"Set":     func(c context.Context) error { return s.Set(c, "id", session(t)) },
		"Create":  func(c context.Context) error { return s.Create(c, "new", session(t)) },
		"Update":  func(c context.Context) error { return s.Update(c, "id", func(*filestore.Session) error { return nil }) },
		"Destroy": func(c context.Context) error { return s.Destroy(c, "id") },
	} {
		if name == "Create" {
			defer storetest.Hold(t, dir, "new")()
		}
		c, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("client left")) })
		wantErr(t, name, op(c), context.Canceled)
	}
	storetest.Tidy(t, dir)
	release()
	if err := s.Set(ctx, "id", session(t)); err != nil {
		t.Error(err)
	}
}

// A stopped holder costs a pass of the reaper one timeout, not one for each session of its lock.
func TestReapBesideAStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = time.Second
	s := open(t, dir, o)
	set(t, s, "id")
	release := storetest.Hold(t, dir, "id")
	all := storetest.Brief(640, 4000) // some 10 or 60 share the lock
	for i := range all {
		write(t, dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
	}
	start := time.Now()
	n, err := s.Reap(ctx)
	wantErr(t, "Reap", err, filestore.ErrLockTimeout)
	if d := time.Since(start); n < all*9/10 || d > 20*time.Second {
		t.Errorf("Reap removed %d of %d in %v", n, all, d)
	}
	release()
	if k, err := s.Reap(ctx); n+k != all || err != nil {
		t.Errorf("the second Reap = %d, %v, want %d", k, err, all-n)
	}
}

// P9: Clear waits once for a stopped holder. Close does not wait for all the locks of a pass.
func TestLongWorkBesideAStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = time.Second
	s := open(t, dir, o)
	set(t, s, "id")
	storetest.Hold(t, dir, "id")
	all := storetest.Brief(128, 1000)
	for i := range all {
		write(t, dir, fmt.Sprintf("s%d.json", i), doc(nowMs(), ""))
	}
	start := time.Now()
	wantErr(t, "Clear", s.Clear(ctx), filestore.ErrLockTimeout)
	if n, err := s.Len(ctx); n > all/10 || err != nil || time.Since(start) > 10*time.Second {
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
		if err := s.Close(); err != nil || time.Since(start) > 20*time.Second {
			t.Errorf("Close = %v and took %v", err, time.Since(start))
		}
		if err := <-result; !errors.Is(err, filestore.ErrClosed) && !errors.Is(err, context.Canceled) {
			t.Errorf("ended by Close: %v", err)
		}
	}
}
