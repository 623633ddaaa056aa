package filestore_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// destroyed says how the n-th round of TestCacheIsCoherent ends.
func destroyed(n int64) bool { return n%7 == 3 }

// A cache must not show: while another process sets, edits in place, removes and
// destroys, no read is older than what was acknowledged before it began, newer
// than what was begun when it ended, or anything between two versions.
func TestCacheIsCoherent(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	decodes := new(counter)
	o.Codec = decodes
	s := open(t, dir, o)
	cmd := worker(t, "changer", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var begun, ended atomic.Int64 // the rounds
	lines := bufio.NewReader(out)
	round := func() {
		fmt.Fprintln(in, begun.Add(1))
		if _, err := lines.ReadString('\n'); err != nil {
			t.Error("the other process has ended")
		}
		ended.Add(1)
	}
	round()
	const reads = 500_000 // by each of two readers
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range reads {
				from := ended.Load()
				sess, err := s.Get(ctx, "id")
				to := begun.Load()
				switch {
				case errors.Is(err, filestore.ErrNotFound):
					ok := false
					for n := from; n <= to; n++ {
						ok = ok || destroyed(n)
					}
					if !ok {
						t.Errorf("not found, between rounds %d and %d", from, to)
						return
					}
				case err != nil:
					t.Errorf("Get = %v", err)
					return
				default:
					n, _ := filestore.Value[int64](sess, "n")
					again, _ := filestore.Value[int64](sess, "again")
					if n -= 1e6; n != again-1e6 || n < from || n > to || destroyed(n) {
						t.Errorf("read %d and %d, between rounds %d and %d", n, again-1e6, from, to)
						return
					}
				}
			}
		})
	}
	readers := make(chan struct{})
	go func() { wg.Wait(); close(readers) }()
	for reading := true; reading; {
		round()
		pause := time.Duration(0)
		if begun.Load()%3 == 0 { // long enough for it to be cached
			pause = rand.N(60 * time.Millisecond)
		}
		select {
		case <-readers:
			reading = false
		case <-time.After(pause):
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if n := decodes.Load(); n > reads || begun.Load() < 50 {
		t.Errorf("%d of %d reads decoded the file, %d rounds: nothing was tested", n, 2*reads, begun.Load())
	}
}

func init() {
	workers["changer"] = func(dir string, _ []string) {
		s, err := filestore.Open(dir, quick())
		must(err)
		path := filepath.Join(dir, "id.json")
		sess := new(filestore.Session)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println() {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			must(err)
			must(sess.Put("n", 1e6+n)) // of one length
			must(sess.Put("again", 1e6+n))
			switch {
			case n%14 == 3: // an operator's rm
				must(os.Remove(path))
			case destroyed(n):
				must(s.Destroy(ctx, "id"))
			case n%7 == 5: // in place, the mtime set back
				fi, err := os.Stat(path)
				must(err)
				sess.LastAccess = time.Now()
				data, err := sess.MarshalJSON()
				must(err)
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				must(err)
				_, err = f.WriteAt(data, 0)
				must(errors.Join(err, f.Close()))
				must(os.Chtimes(path, fi.ModTime(), fi.ModTime()))
			default:
				must(s.Set(ctx, "id", sess))
			}
		}
		must(s.Close())
	}
}

// What a caller gets is its own, to the last byte.
func TestCacheKeepsToItself(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	set(t, s, "id", "a", "text", "b", 2)
	time.Sleep(30 * time.Millisecond)
	for range 3 {
		sess := get(t, s, "id")
		if len(sess.Values) != 2 || string(sess.Values["a"]) != `"text"` || string(sess.Values["b"]) != "2" || sess.Cookie.Path != "/" {
			t.Fatalf("somebody else's: %+v", sess)
		}
		copy(sess.Values["a"], "######")
		_ = append(sess.Values["a"], "overflow"...)
		delete(sess.Values, "b")
		sess.Put("c", 3)
		sess.Cookie.Path = "/else"
		sess.LastAccess = time.Time{}
	}
}

// A bloat makes something large of a small file.
type bloat struct{ *counter }

func (b bloat) Decode(id string, file []byte) ([]byte, error) {
	b.Add(1)
	return []byte(doc(nowMs(), fmt.Sprintf(`,"v":%q`, strings.Repeat("x", 20<<10)))), nil
}

// What is held in memory is bounded by what it takes there.
func TestCacheOfLargeSessions(t *testing.T) {
	b := bloat{new(counter)}
	o := quick()
	o.Codec = b
	s := open(t, t.TempDir(), o)
	set(t, s, "id")
	time.Sleep(30 * time.Millisecond)
	for range 3 {
		get(t, s, "id")
	}
	if n := b.Load(); n != 3 {
		t.Errorf("a session of 20 KiB was decoded %d times, not 3: it is held", n)
	}
}

func TestCacheSize(t *testing.T) {
	dir := t.TempDir()
	maker := open(t, dir, quick())
	for i := range 20 {
		set(t, maker, fmt.Sprint("id", i), "n", i)
	}
	set(t, maker, "large", "v", strings.Repeat("x", 20<<10))
	time.Sleep(30 * time.Millisecond)
	for size, want := range map[int][3]int64{
		-1: {20, 20, 5},
		10: {20, 20, 0}, // in turn, each has been pushed out by the time it is read again
		50: {20, 0, 0},
		0:  {20, 0, 0},
	} {
		decodes := new(counter)
		o := quick()
		o.CacheSize, o.Codec = size, decodes
		s := open(t, dir, o)
		round := func(what string, want int64, ids int, first int) {
			t.Helper()
			before := decodes.Load()
			for i := range ids {
				get(t, s, fmt.Sprint("id", first+i))
			}
			if n := decodes.Load() - before; n != want {
				t.Errorf("CacheSize %d, %s: %d files decoded, want %d", size, what, n, want)
			}
		}
		round("first", want[0], 20, 0)
		round("second", want[1], 20, 0)
		// A walk through all does not push the used ones out.
		if n, err := s.Len(ctx); n != 21 || err != nil {
			t.Error(n, err)
		}
		if _, err := s.Reap(ctx); err != nil {
			t.Error(err)
		}
		round("after a walk", want[2], 5, 15)
		for range 2 { // too large to be held
			before := decodes.Load()
			if get(t, s, "large"); decodes.Load() != before+1 {
				t.Errorf("CacheSize %d: a file of 20 KiB was held", size)
			}
		}
	}
}

// What other processes have ended or changed is held no longer than until a pass of the reaper.
func TestReapForgets(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir, quick()), open(t, dir, quick())
	const n, size = 1000, 10 << 10
	id := func(i int) string { return fmt.Sprint("id", i) }
	for i := range n {
		set(t, other, id(i), "v", strings.Repeat("x", size))
	}
	time.Sleep(30 * time.Millisecond)
	for i := range n {
		get(t, s, id(i))
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range n - 100 {
		if i%2 == 0 {
			set(t, other, id(i))
		} else if err := other.Destroy(ctx, id(i)); err != nil {
			t.Fatal(err)
		}
	}
	if freed := before - heap(); freed > n*size/10 {
		t.Errorf("%d KiB were freed before the pass: nothing is tested", freed>>10)
	}
	if _, err := s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if freed := before - heap(); freed < n*size*8/10 {
		t.Errorf("a pass freed %d KiB of %d", freed>>10, n*size>>10)
	}
	get(t, s, id(n-1))
}

// E16: with a cached version too, another file of the same size and mtime is seen.
func TestCacheSeesSameStamps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	stamp := time.Now().Add(time.Hour)
	path := filepath.Join(dir, "id.json")
	ms := nowMs()
	for i := range 5 {
		write(t, dir, "tmp", doc(ms, fmt.Sprintf(`,"n":%d`, 2*i)))
		os.Chtimes(filepath.Join(dir, "tmp"), stamp, stamp)
		os.Rename(filepath.Join(dir, "tmp"), path)
		for range 2 {
			time.Sleep(25 * time.Millisecond)
			if got := value(t, get(t, s, "id"), "n"); got != fmt.Sprint(2*i) {
				t.Fatalf("n = %s, want %d", got, 2*i)
			}
		}
		write(t, dir, "id.json", doc(ms, fmt.Sprintf(`,"n":%d`, 2*i+1))) // in place
		os.Chtimes(path, stamp, stamp)
		if got := value(t, get(t, s, "id"), "n"); got != fmt.Sprint(2*i+1) {
			t.Fatalf("in place: n = %s, want %d", got, 2*i+1)
		}
	}
}
