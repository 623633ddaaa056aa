package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// start starts a worker that prints its result as JSON.
func start(t *testing.T, name string, args ...string) (wait func(result any)) {
	t.Helper()
	p := storetest.Start(t, name, args...)
	return func(result any) {
		t.Helper()
		if err := json.NewDecoder(p.Out).Decode(result); err != nil {
			t.Fatalf("a %s: %v", name, err)
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func quantile(waits []time.Duration, q float64) time.Duration {
	slices.Sort(waits)
	return waits[int(q*float64(len(waits)-1))]
}

// P4, P9, E8, E9: 8 processes of 4 goroutines each update one session without a pause. No Update is lost,
// and none waits for long while others come and go.
func TestContention(t *testing.T) {
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	must(s.Set(ctx, "id", new(filestore.Session)))
	each := storetest.Long(250, 5000)
	var waits []func(any)
	for range 8 {
		waits = append(waits, start(t, "contend", dir, strconv.Itoa(each)))
	}
	var all []time.Duration
	var ends []time.Duration
	for _, wait := range waits {
		var r contended
		wait(&r)
		all, ends = append(all, r.Waits...), append(ends, r.Took)
	}
	sess, err := s.Get(ctx, "id")
	must(err)
	n, err := filestore.Value[int](sess, "n")
	if want := 8 * 4 * each; n != want || err != nil {
		t.Errorf("n = %d, %v after %d Updates", n, err, want)
	}
	longest := quantile(all, 1)
	t.Logf("%d Updates by 8 processes: waited %v in the median, %v at p99, %v at most; the first process took %v, the last %v",
		len(all), quantile(all, 0.5), quantile(all, 0.99), longest, quantile(ends, 0), quantile(ends, 1))
	if longest > 5*time.Second {
		t.Errorf("an Update waited for %v, longer than LockTimeout", longest)
	}
}

type contended struct {
	Waits []time.Duration
	Took  time.Duration
}

func init() {
	workers["contend"] = func(args []string) {
		s, err := filestore.Open(args[0], storetest.Quick())
		must(err)
		each, err := strconv.Atoi(args[1])
		must(err)
		r := contended{Waits: make([]time.Duration, 4*each)}
		begin := time.Now()
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range each {
					from := time.Now()
					must(s.Update(ctx, "id", func(sess *filestore.Session) error {
						n, err := filestore.Value[int](sess, "n")
						return errors.Join(err, sess.Put("n", n+1))
					}))
					r.Waits[g*each+i] = time.Since(from)
				}
			})
		}
		wg.Wait()
		r.Took = time.Since(begin)
		must(json.NewEncoder(os.Stdout).Encode(r))
	}
}

// P1, B16: readers see only whole values beside two processes that write values of 1 byte to 256 KiB.
func TestTornReads(t *testing.T) {
	dir := t.TempDir()
	cached, err := filestore.Open(dir, storetest.Quick())
	must(err)
	defer cached.Close()
	bare, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1, CacheSize: -1})
	must(err)
	defer bare.Close()
	sess := new(filestore.Session)
	must(put(sess, newValue(1, 1)))
	for i := range 4 {
		must(cached.Set(ctx, fmt.Sprint("id", i), sess))
	}
	for i := range 2 {
		start(t, "scribble", dir, strconv.Itoa(i))
	}
	var reads, values atomic.Int64
	want := int64(storetest.Long(20_000, 200_000)) // at least: a process that writes needs its time to start
	began := time.Now()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			s, last := cached, 0
			if g%2 == 1 {
				s = bare
			}
			for reads.Add(1) <= want || values.Load() < want/100 && time.Since(began) < 20*time.Second {
				n, err := read(s, fmt.Sprint("id", rand.IntN(4)))
				if err != nil || n == 0 {
					t.Errorf("read %d, %v", n, err)
					return
				}
				if n != last {
					values.Add(1)
				}
				last = n
			}
		})
	}
	wg.Wait()
	t.Logf("%d reads, of %d times another value; 0 torn", reads.Load(), values.Load())
	if values.Load() < want/100 {
		t.Error("the values did not change: the test tests nothing")
	}
}

func init() {
	workers["scribble"] = func(args []string) {
		s, err := filestore.Open(args[0], storetest.Quick())
		must(err)
		first, err := strconv.Atoi(args[1])
		must(err)
		for n := 2 + first; ; n += 2 {
			sess := new(filestore.Session)
			must(put(sess, newValue(n, 1<<rand.IntN(19)-rand.IntN(2))))
			must(s.Set(ctx, fmt.Sprint("id", rand.IntN(4)), sess))
		}
	}
}

// P6, E5: some processes renew sessions at the last moment, and others reap without a pause. No session that
// was renewed in time is lost, and those that nobody renews are removed.
func TestReapersBesideRenewers(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		start(t, "reapers", dir)
	}
	var waits []func(any)
	for i := range 4 {
		waits = append(waits, start(t, "renew", dir, strconv.Itoa(i), fmt.Sprint(storetest.Long(6, 120))))
	}
	var total renewed
	for _, wait := range waits {
		var r renewed
		wait(&r)
		total.Renewed += r.Renewed
		total.Late += r.Late
		total.Lost += r.Lost
	}
	t.Logf("%d renewed, %d times too late, %d lost", total.Renewed, total.Late, total.Lost)
	if total.Lost > 0 || total.Renewed < storetest.Long(100, 10_000) || total.Late == 0 {
		t.Error("a session was lost, or the test tests nothing")
	}
	s, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1})
	must(err)
	defer s.Close()
	time.Sleep(700 * time.Millisecond)
	_, err = s.Reap(ctx)
	must(err)
	for id := range s.IDs(ctx) {
		t.Errorf("%s is still there", id)
	}
}

type renewed struct{ Renewed, Late, Lost int }

func init() {
	workers["reapers"] = func(args []string) {
		s, err := filestore.Open(args[0], storetest.Quick())
		must(err)
		for {
			_, err := s.Reap(ctx)
			must(err)
		}
	}
	workers["renew"] = func(args []string) {
		s, err := filestore.Open(args[0], &filestore.Options{NoSync: true, ReapInterval: -1, TouchAfter: -1})
		must(err)
		seconds, err := strconv.Atoi(args[2])
		must(err)
		const life = 500 * time.Millisecond
		end := time.Now().Add(time.Duration(seconds) * time.Second)
		var mu sync.Mutex
		var r renewed
		var wg sync.WaitGroup
		for g := range 25 {
			wg.Go(func() {
				id := fmt.Sprintf("s%s-%d", args[1], g)
				cookie := filestore.Cookie{OriginalMaxAge: life, HTTPOnly: true, Path: "/"}
				var accessed time.Time // at the earliest; zero if the session is gone
				var my renewed
				for time.Now().Before(end) {
					before := time.Now()
					if accessed.IsZero() {
						must(s.Set(ctx, id, &filestore.Session{Cookie: cookie}))
						accessed = before
					} else {
						time.Sleep(life - time.Duration(rand.IntN(120))*time.Millisecond)
						before = time.Now()
						err := s.Touch(ctx, id, nil)
						switch {
						case err == nil:
							my.Renewed++
							accessed = before
						case !errors.Is(err, filestore.ErrNotFound):
							must(err)
						case time.Now().Before(accessed.Add(life - time.Millisecond)):
							my.Lost++
							accessed = time.Time{}
						default:
							my.Late++
							accessed = time.Time{}
						}
					}
				}
				mu.Lock()
				defer mu.Unlock()
				r.Renewed, r.Late, r.Lost = r.Renewed+my.Renewed, r.Late+my.Late, r.Lost+my.Lost
			})
		}
		wg.Wait()
		must(json.NewEncoder(os.Stdout).Encode(r))
	}
}

// After 10,000 mixed operations no goroutine and no descriptor is left.
func TestLeaks(t *testing.T) {
	count := func() (goroutines, files int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(err)
		return runtime.NumGoroutine(), len(entries)
	}
	goroutines, files := count()
	s, err := filestore.Open(t.TempDir(), &filestore.Options{NoSync: true, TouchAfter: -1})
	must(err)
	openGoroutines, openFiles := count()
	ops := []string{"get", "set", "update", "touch", "destroy", "create", "reap", "len"}
	weights := []int{0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5}
	for i := range 10_000 {
		op := ops[weights[rand.IntN(len(weights))]]
		if i%500 == 0 {
			op = ops[6+i/500%2]
		}
		id := fmt.Sprint("id", rand.IntN(50))
		if i%100 == 0 {
			id = "not/an/id"
		}
		operate(s, ask{Op: op, ID: id, N: i, Size: 100}) // it may fail
	}
	g, f := openGoroutines+1, openFiles+1
	for range 100 {
		if g, f = count(); g <= openGoroutines && f <= openFiles+1 { // the runtime's poller
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if g > openGoroutines || f > openFiles+1 {
		t.Errorf("%d goroutines and %d descriptors after 10,000 operations, %d and %d before", g, f, openGoroutines, openFiles)
	}
	must(s.Close())
	for range 100 { // one that has ended may still be counted
		if g, f = count(); g <= goroutines && f <= files+1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if g > goroutines || f > files+1 {
		t.Errorf("%d goroutines and %d descriptors after Close, %d and %d before Open", g, f, goroutines, files)
	}
}
