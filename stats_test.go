package filestore_test

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func ExampleStore_Stats() {
	store, remove := tempStore()
	defer remove()
	expvar.Publish("sessions", expvar.Func(func() any { return store.Stats() }))
	site := httptest.NewServer(http.DefaultServeMux) // where package expvar serves /debug/vars
	defer site.Close()

	store.Get(context.Background(), "nobody")
	resp, err := http.Get(site.URL + "/debug/vars")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var vars struct{ Sessions filestore.Stats }
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil {
		log.Fatal(err)
	}
	fmt.Println("gets:", vars.Sessions.Gets, "missing:", vars.Sessions.Missing)
	// Output: gets: 1 missing: 1
}

// plus returns a + b, member by member, of the counters of writes and reads.
func plus(a, b filestore.Stats) filestore.Stats {
	sum := reflect.ValueOf(&a).Elem()
	for i := range sum.NumField() {
		if f := sum.Field(i); f.CanInt() && !strings.HasPrefix(sum.Type().Field(i).Name, "LastReap") {
			f.SetInt(f.Int() + reflect.ValueOf(b).Field(i).Int())
		}
	}
	return a
}

// Each operation adds what Stats promises, and nothing else.
func TestStats(t *testing.T) {
	type stats = filestore.Stats
	dir := t.TempDir()
	s := open(t, dir, nil)
	if got := s.Stats(); got != (stats{}) {
		t.Errorf("after Open the Stats are %+v", got)
	}
	set(t, s, "id", "n", 1) // is not read from memory: that would need a file that has not just changed
	write(t, dir, "corrupt.json", "{")
	write(t, dir, "expired.json", doc(1, ""))
	write(t, dir, "large.json", doc(nowMs(), `,"pad":"`+strings.Repeat("x", 1<<20)+`"`))
	os.Mkdir(filepath.Join(dir, "unsafe.json"), 0o700)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	mine := errors.New("mine")
	read := func(id string) func() error { return func() error { _, err := s.Get(ctx, id); return err } }
	update := func(id string, err error) func() error {
		return func() error { return s.Update(ctx, id, func(*filestore.Session) error { return err }) }
	}
	now := stats{Sets: 1}
	for _, tt := range []struct {
		name string
		do   func() error
		want error
		add  stats
	}{
		{"Get", read("id"), nil, stats{Gets: 1}},
		{"Get of none", read("none"), filestore.ErrNotFound, stats{Gets: 1, Missing: 1}},
		{"Get of an expired one", read("expired"), filestore.ErrExpired, stats{Gets: 1, Missing: 1}},
		{"Get of no id", read("../id"), filestore.ErrInvalidID, stats{Gets: 1, Missing: 1}},
		{"Get of a damaged one", read("corrupt"), filestore.ErrCorrupt, stats{Gets: 1, Unreadable: 1}},
		{"Get of a large one", read("large"), filestore.ErrTooLarge, stats{Gets: 1, Unreadable: 1}},
		{"Get of a directory", read("unsafe"), filestore.ErrUnsafeFile, stats{Gets: 1, Unreadable: 1}},
		{"Get that is given up", func() error { _, err := s.Get(ended, "id"); return err }, ended.Err(), stats{Gets: 1}},
		{"Set", func() error { return s.Set(ctx, "id", session(t)) }, nil, stats{Sets: 1}},
		{"Set of no id", func() error { return s.Set(ctx, "", session(t)) }, filestore.ErrInvalidID, stats{}},
		{"Create", func() error { return s.Create(ctx, "new", session(t)) }, nil, stats{Sets: 1}},
		{"Create of one that is there", func() error { return s.Create(ctx, "new", session(t)) }, os.ErrExist, stats{}},
		{"Update", update("id", nil), nil, stats{Updates: 1}},
		{"Update that fails", update("id", mine), mine, stats{}},
		{"Update of none", update("none", nil), filestore.ErrNotFound, stats{}},
		{"Touch", func() error { return s.Touch(ctx, "id", nil) }, nil, stats{TouchesSpared: 1}},
		{"Touch with a cookie", func() error { return s.Touch(ctx, "id", &filestore.Cookie{Path: "/app"}) }, nil, stats{Touches: 1}},
		{"Touch of none", func() error { return s.Touch(ctx, "none", nil) }, filestore.ErrNotFound, stats{}},
		{"Destroy", func() error { return s.Destroy(ctx, "id") }, nil, stats{Destroys: 1}},
		{"Destroy of none", func() error { return s.Destroy(ctx, "id") }, nil, stats{}},
		{"Len", func() error { _, err := s.Len(ctx); return err }, nil, stats{}},
		{"Clear", func() error { return s.Clear(ctx) }, nil, stats{Destroys: 3}}, // new, expired, large
	} {
		err := tt.do()
		if tt.want == nil && err != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s = %v, want %v", tt.name, err, tt.want)
		}
		now = plus(now, tt.add)
		if got := s.Stats(); got != now {
			t.Fatalf("after %s the Stats are\n%+v, want\n%+v", tt.name, got, now)
		}
	}
}

// A Get that was served from memory is a hit; those before, and those after the file has changed, are not.
func TestStatsHits(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	for round := int64(1); round <= 3; round++ {
		set(t, s, "id")
		before := s.Stats()
		for deadline := time.Now().Add(10 * time.Second); s.Stats().Hits == before.Hits; {
			get(t, s, "id")
			if time.Now().After(deadline) {
				t.Fatal("no hit")
			}
		}
		misses := s.Stats().Gets - before.Gets - 1
		if misses == 0 {
			t.Error("the first Get of a changed file is a hit")
		}
		for range 100 {
			get(t, s, "id")
		}
		if got := s.Stats(); got.Hits-before.Hits != 101 || got.Gets-before.Gets != misses+101 {
			t.Errorf("%+v, want 101 hits more, of %d Gets more than\n%+v", got, misses+101, before)
		}
	}
}

// While others work Gets is never less than the sum of its kinds, and no counter goes back. In the end each is exact.
func TestStatsBesideWork(t *testing.T) {
	const workers = 4
	rounds := storetest.Brief(50, 500)
	dir := t.TempDir()
	s := open(t, dir, patient())
	write(t, dir, "corrupt.json", "{")
	set(t, s, "id", "n", 0)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for i := range rounds {
				get(t, s, "id")
				s.Get(ctx, "none")
				s.Get(ctx, "corrupt")
				if i%10 == 0 {
					if err := increment(s, "id"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	looked := make(chan int)
	go func() {
		looks, last := 0, reflect.ValueOf(filestore.Stats{})
		for ended := false; !ended; looks++ {
			select {
			case <-done:
				ended = true
			default:
			}
			st := s.Stats()
			if st.Gets < st.Hits+st.Missing+st.Unreadable {
				t.Errorf("more kinds of Get than Gets: %+v", st)
			}
			now := reflect.ValueOf(st)
			for i := range now.NumField() {
				if now.Field(i).CanInt() && now.Field(i).Int() < last.Field(i).Int() {
					t.Errorf("%s went from %d to %d", now.Type().Field(i).Name, last.Field(i).Int(), now.Field(i).Int())
				}
			}
			last = now
		}
		looked <- looks
	}()
	work.Wait()
	close(done)
	if n := <-looked; n < 10 {
		t.Errorf("only %d looks", n)
	}
	st := s.Stats()
	each := int64(workers * rounds)
	if st.Gets != 3*each || st.Missing != each || st.Unreadable != each || st.Updates != each/10 || st.Sets != 1 {
		t.Errorf("%+v; want %d of each kind of Get, %d Updates", st, each, each/10)
	}
}

// Waits for a lock that another process holds are counted, with their time. Who finds it free has not waited.
func TestStatsLocks(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 60 * time.Millisecond
	s := open(t, dir, o)
	set(t, s, "id")
	release := storetest.Hold(t, dir, "id")
	for name, op := range ops(s) {
		before := s.Stats()
		if name == "Get" || name == "Create" || name == "Touch" { // of them none wants the lock
			op("id")
			if got := s.Stats(); got.LockWaits != before.LockWaits {
				t.Errorf("%s has waited", name)
			}
			continue
		}
		wantErr(t, name, op("id"), filestore.ErrLockTimeout)
		got := s.Stats()
		if got.LockWaits != before.LockWaits+1 || got.Timeouts != before.Timeouts+1 {
			t.Errorf("%s: %d waits and %d time-outs more, want one of each", name, got.LockWaits-before.LockWaits, got.Timeouts-before.Timeouts)
		}
		if wait := got.LockWait - before.LockWait; wait < o.LockTimeout {
			t.Errorf("%s has waited for %v, want at least %v", name, wait, o.LockTimeout)
		}
	}
	release()
	before := s.Stats()
	for _, op := range ops(s) {
		op("id")
	}
	if got := s.Stats(); got.LockWaits != before.LockWaits || got.LockWait != before.LockWait || got.Timeouts != before.Timeouts {
		t.Errorf("waits for a free lock: %+v, before %+v", got, before)
	}
	if got := s.Stats(); got.Sets < 2 || got.Destroys != 1 {
		t.Errorf("nothing was done: %+v", got)
	}
}

// An Update that has to run again is one Update and one conflict.
func TestStatsConflicts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storetest.Contested(dir, nil))
	set(t, s, "id")
	set(t, s, "id")
	runs := int64(0)
	for range 10 {
		if err := s.Update(ctx, "id", func(*filestore.Session) error { runs++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); runs == 10 || st.Updates != 10 || st.Conflicts != runs-10 || st.Timeouts != 0 {
		t.Errorf("%d runs; the Stats are %+v", runs, st)
	}
	o := quick()
	o.LockTimeout = 30 * time.Millisecond
	late := open(t, dir, o)
	err := late.Update(ctx, "id", func(*filestore.Session) error { set(t, s, "id"); return nil }) // changes it each time
	wantErr(t, "Update", err, filestore.ErrLockTimeout)
	if st := late.Stats(); st.Conflicts == 0 || st.Timeouts != 1 || st.Updates != 0 || st.LockWaits != 0 {
		t.Errorf("after an Update that gave up: %+v", st)
	}
}

// A flush that a write waits for is counted; Get and NoSync know none.
func TestStatsFlushes(t *testing.T) {
	o := quick()
	o.NoSync = false
	s := open(t, t.TempDir(), o)
	if got := s.Stats().Flushes; got != 0 {
		t.Errorf("%d flushes at first", got)
	}
	set(t, s, "id")
	one := s.Stats().Flushes // of the directory; of the file too unless the file system is ordered
	if one != 1 && one != 2 {
		t.Errorf("Set flushes %d times", one)
	}
	get(t, s, "id")
	if got := s.Stats().Flushes; got != one {
		t.Errorf("Get flushes %d times", got-one)
	}
	if err := increment(s, "id"); err != nil || s.Stats().Flushes != 2*one {
		t.Errorf("Update: %v, and %d flushes, want %d", err, s.Stats().Flushes-one, one)
	}
	if err := s.Destroy(ctx, "id"); err != nil || s.Stats().Flushes != 2*one+1 {
		t.Errorf("Destroy: %v, and %d flushes, want 1", err, s.Stats().Flushes-2*one)
	}
	fast := open(t, t.TempDir(), quick())
	set(t, fast, "id")
	if got := fast.Stats().Flushes; got != 0 {
		t.Errorf("with NoSync there are %d flushes", got)
	}
}

// The counters are the Store's: they go on in the directory that succeeds a deleted one.
func TestStatsOfADeletedDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		skip.Test(t, "an open directory cannot be deleted there")
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	o := quick()
	o.NoSync, o.LockTimeout = false, 30*time.Millisecond
	s := open(t, dir, o)
	for round := range int64(3) {
		before := s.Stats()
		if round > 0 {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		set(t, s, "id")
		storetest.Hold(t, dir, "id")
		wantErr(t, "Set", s.Set(ctx, "id", session(t)), filestore.ErrLockTimeout)
		if st := s.Stats(); st.Sets != round+1 || st.Timeouts != round+1 || st.LockWaits != round+1 || st.Flushes <= before.Flushes {
			t.Errorf("round %d: %+v, before\n%+v", round, st, before)
		}
	}
}

// The last pass is that of the background reaper, or of Reap, and is told whole.
func TestStatsOfTheReaper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := quick()
		o.ReapInterval = time.Hour
		s, err := filestore.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var told []int
		s.OnReap(func(n int) { told = append(told, n) })
		opened := time.Now()
		if !s.Stats().LastReap.IsZero() {
			t.Error("there was a pass already")
		}
		write(t, dir, "corrupt.json", "{")
		write(t, dir, "a.json", doc(1, ""))
		write(t, dir, "b.json", doc(1, ""))
		time.Sleep(6*time.Minute + time.Second) // the first is after a tenth of the interval
		synctest.Wait()
		want := filestore.Stats{Reaped: 2, LastReap: opened.Add(6 * time.Minute), LastReapRemoved: 2, LastReapUnreadable: 1}
		if got := s.Stats(); got != want {
			t.Errorf("the Stats are\n%+v, want\n%+v", got, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want.LastReap, want.LastReapRemoved = want.LastReap.Add(time.Hour), 0
		if got := s.Stats(); got != want {
			t.Errorf("after another pass the Stats are\n%+v, want\n%+v", got, want)
		}
		if !slices.Equal(told, []int{2}) {
			t.Errorf("OnReap told of %v, want of 2 once", told)
		}
	})
}

// A pass that failed says so until the next.
func TestStatsOfAFailedReap(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 50 * time.Millisecond
	s := open(t, dir, o)
	write(t, dir, "id.json", doc(1, ""))
	release := storetest.Hold(t, dir, "id")
	start := time.Now()
	_, err := s.Reap(ctx)
	wantErr(t, "Reap", err, filestore.ErrLockTimeout)
	st := s.Stats()
	if st.LastReapError != err.Error() || st.Timeouts != 1 || st.LockWaits != 1 || st.Reaped != 0 {
		t.Errorf("after %v: %+v", err, st)
	}
	if st.LastReapTook < o.LockTimeout || st.LastReap.Before(start.Add(st.LastReapTook)) || st.LastReap.After(time.Now()) {
		t.Errorf("the pass began after %v, took %v and ended at %v", start, st.LastReapTook, st.LastReap)
	}
	release()
	if n, err := s.Reap(ctx); n != 1 || err != nil {
		t.Fatalf("Reap = %d, %v", n, err)
	}
	if st := s.Stats(); st.LastReapError != "" || st.Reaped != 1 || st.LastReapRemoved != 1 {
		t.Errorf("after a pass without an error: %+v", st)
	}
}

// All functions are told, in order, of each pass that has removed sessions, also of one that ended with an error.
// They may use the Store: no lock is held.
func TestOnReap(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 50 * time.Millisecond
	s := open(t, dir, o)
	var told []string
	for _, name := range []string{"a", "b"} {
		s.OnReap(func(n int) {
			told = append(told, fmt.Sprint(name, n))
			if got := s.Stats(); got.Reaped != int64(n) {
				t.Errorf("told of %d before Stats: %+v", n, got)
			}
			for _, op := range ops(s) {
				op("id")
			}
			if n, err := s.Reap(ctx); n != 0 || err != nil && !errors.Is(err, filestore.ErrLockTimeout) {
				t.Errorf("Reap in fn = %d, %v", n, err)
			}
			s.OnReap(func(int) {})
		})
	}
	s.Reap(ctx)
	if len(told) != 0 {
		t.Errorf("told of a pass that has removed nothing: %v", told)
	}
	for i := range 3 {
		write(t, dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
	}
	held := "held"
	storetest.Hold(t, dir, held)
	write(t, dir, held+".json", doc(1, ""))
	n, err := s.Reap(ctx)
	if n != 3 {
		t.Errorf("Reap = %d, want 3", n)
	}
	wantErr(t, "Reap", err, filestore.ErrLockTimeout)
	if want := []string{"a3", "b3"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// Functions are registered beside passes; each session that is removed is told of once.
func TestOnReapBesidePasses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	var told, removed atomic.Int64
	s.OnReap(func(n int) { told.Add(int64(n)) })
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 50 {
				write(t, dir, fmt.Sprintf("old%d-%d.json", w, i), doc(1, ""))
				n, err := s.Reap(ctx)
				if err != nil {
					t.Error(err)
				}
				removed.Add(int64(n))
				s.OnReap(func(int) {})
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); told.Load() != 150 || removed.Load() != 150 || st.Reaped != 150 {
		t.Errorf("%d removed, told of %d, and the Stats have %d; want 150", removed.Load(), told.Load(), st.Reaped)
	}
}

// A panic in a function of OnReap reaches the caller of Reap. The pass is counted, and the Store goes on.
func TestOnReapPanics(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	s.OnReap(func(n int) { panic(fmt.Sprint("told of ", n)) })
	for i := range int64(2) {
		write(t, dir, "old.json", doc(1, ""))
		func() {
			defer func() {
				if v := recover(); v != "told of 1" {
					t.Errorf("Reap panics with %v", v)
				}
			}()
			s.Reap(ctx)
		}()
		if st := s.Stats(); st.Reaped != i+1 {
			t.Errorf("after the panic: %+v", st)
		}
		set(t, s, "id")
	}
}

func init() {
	workers["panics in OnReap"] = func(args []string) {
		s, err := filestore.Open(args[0], &filestore.Options{ReapInterval: time.Second})
		must(err)
		s.OnReap(func(int) { panic("heard") })
		io.Copy(io.Discard, os.Stdin)
	}
}

// In the background it ends the program, as any panic that nobody recovers. It is not swallowed.
func TestOnReapPanicsInTheBackground(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "old.json", doc(1, ""))
	cmd := storetest.Command("panics in OnReap", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe() // ends the worker if this test ends first
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	stop := time.AfterFunc(30*time.Second, func() { in.Close() })
	defer stop.Stop()
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "panic: heard") {
		t.Errorf("the program ended with %v:\n%s", err, stderr.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "old.json")); err == nil {
		t.Error("the pass was not finished")
	}
}

// BenchmarkGet is of sessions in memory.
func BenchmarkGet(b *testing.B) {
	s := open(b, b.TempDir(), quick())
	set(b, s, "id", "user", "anna")
	time.Sleep(30 * time.Millisecond) // a file that has just changed is not kept in memory
	get(b, s, "id")
	b.ReportAllocs()
	for b.Loop() {
		get(b, s, "id")
	}
}

func BenchmarkGetParallel(b *testing.B) {
	s := open(b, b.TempDir(), quick())
	for i := range 64 {
		set(b, s, fmt.Sprint("id", i), "user", "anna")
	}
	time.Sleep(30 * time.Millisecond)
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprint("id", n.Add(1))
		for pb.Next() {
			get(b, s, id)
		}
	})
}

func BenchmarkGetMissing(b *testing.B) {
	s := open(b, b.TempDir(), quick())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(ctx, "id"); err == nil {
			b.Fatal("there is one")
		}
	}
}

// BenchmarkSet replaces a session, without flushes.
func BenchmarkSet(b *testing.B) {
	s := open(b, b.TempDir(), quick())
	sess := session(b, "user", "anna")
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Set(ctx, "id", sess); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSpace(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	sp, err := s.Space(ctx)
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		wantErr(t, "Space, which this system is not asked for,", err, errors.ErrUnsupported)
		return
	}
	if err != nil || sp.Total <= 0 || sp.Free < 0 || sp.Free > sp.Total || sp.FreeFiles > sp.Files {
		t.Errorf("Space = %+v, %v", sp, err)
	}
	s.Close()
	if _, err := s.Space(ctx); !errors.Is(err, filestore.ErrClosed) {
		t.Errorf("on a closed store Space = %v", err)
	}
}
