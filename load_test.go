package filestore_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// destroyed reports whether the n-th round of TestCacheIsCoherent leaves no session.
func destroyed(n int64) bool { return n%7 == 3 }

// The cache does not show. While another process sets, edits in place, removes and destroys a session, each
// read gives one whole version. It is not older than the last one that was acknowledged before the read
// began, and not newer than the last one that was begun before it ended.
func TestCacheIsCoherent(t *testing.T) {
	storetest.NeedRenameOverOpen(t)
	dir := t.TempDir()
	o := quick()
	decodes := new(counter)
	o.Codec = decodes
	s := open(t, dir, o)
	changer := storetest.Start(t, "changer", dir)
	var begun, ended atomic.Int64 // the rounds
	var total atomic.Int64        // the reads
	round := func() {
		fmt.Fprintln(changer.Stdin, begun.Add(1))
		if _, err := changer.Out.ReadString('\n'); err != nil { // not Line: the readers are at work
			t.Error("the other process has ended")
		}
		ended.Add(1)
	}
	round()
	reads := storetest.Long(200_000, 500_000) // of each of two readers, at least
	const rounds = 50                         // beside them, at least
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; n < reads || begun.Load() < rounds; n++ {
				total.Add(1)
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
	changer.Stdin.Close()
	if err := changer.Wait(); err != nil {
		t.Error(err)
	}
	if n, all := decodes.Load(), total.Load(); all-n < int64(reads)/5 {
		t.Errorf("%d of %d reads decoded the file, %d rounds: nothing was tested", n, all, begun.Load())
	}
}

func init() {
	workers["changer"] = func(args []string) {
		dir := args[0]
		s, err := filestore.Open(dir, quick())
		must(err)
		path := filepath.Join(dir, "id.json")
		sess := &filestore.Session{Created: time.Now()}
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println() {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			must(err)
			must(sess.Put("n", 1e6+n)) // always of the same length
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

// A caller owns every byte of the session that it gets.
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

// A bloat makes a large document of a small file.
type bloat struct{ *counter }

func (b bloat) Decode(id string, file []byte) ([]byte, error) {
	b.Add(1)
	return []byte(doc(nowMs(), fmt.Sprintf(`,"v":%q`, strings.Repeat("x", 20<<10)))), nil
}

// The memory of the cache is bounded by the size that the documents have there.
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
		10: {20, 20, 0}, // each is pushed out before its turn comes again
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
		// A walk through all sessions does not push out those in use.
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

// The next pass of the reaper drops sessions that other processes have ended or changed.
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

// E16: another file of the same size and mtime is seen, even if a version is cached.
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

// C: a file that does not hold a session is ErrCorrupt for every operation that reads it. It stays as it is,
// and Reap, Len and Clear pass over it.
func TestCorruptFiles(t *testing.T) {
	deep := func(n int) string { return doc(nowMs(), `,"d":`+strings.Repeat("[", n)+strings.Repeat("]", n)) }
	whole := doc(nowMs(), `,"s":"aé\"}{","n":[1,{"x":null}]`)
	files := map[string]string{
		"empty": "", "space": " ", "byte": "{", "bom": "\ufeff" + whole,
		"null": "null", "array": "[]", "string": `"s"`, "number": "5", "true": "true", // C7
		"no-cookie": `{}`, "cookie-null": `{"cookie":null}`, "cookie-string": `{"cookie":"x","__lastAccess":1}`, // C8
		"cookie-array": `{"cookie":[]}`, "cookie-number": `{"cookie":5}`, "Cookie": `{"Cookie":{}}`,
		"garbage": whole + "x", "two": whole + whole, "comment": "/**/" + whole, "comma": strings.TrimSuffix(whole, "}") + ",}", // C13
		"single": strings.ReplaceAll(whole, `"`, "'"), "nan": doc(nowMs(), `,"n":NaN`), "zero": whole + "\x00",
		"surrogates": `{"cookie":{},"\ud800":1,"\ud801":2}`, "deep-10001": deep(10_001), "deep-100000": deep(100_000), // C2
		"last-cookie-wins": `{"cookie":{},"cookie":1}`, // C3
	}
	var s filestore.Session
	if err := s.UnmarshalJSON([]byte(deep(1_000_000))); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("nested a million deep: %v", err)
	}
	y := newYard(t, nil)
	for name, data := range files {
		write(t, y.dir, name+".json", data)
	}
	y.mark()
	for name := range files {
		_, err := y.s.Get(ctx, name)
		wantErr(t, "Get of "+name, err, filestore.ErrCorrupt)
		wantErr(t, "Touch of "+name, y.s.Touch(ctx, name, nil), filestore.ErrCorrupt)
		wantErr(t, "Update of "+name, y.s.Update(ctx, name, func(*filestore.Session) error { return nil }), filestore.ErrCorrupt)
	}
	if n, err := y.s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	if n, err := y.s.Len(ctx); n != 1 || err != nil {
		t.Errorf("Len = %d, %v, want 1", n, err)
	}
	y.check()
	if err := y.s.Clear(ctx); err != nil {
		t.Errorf("Clear = %v", err)
	}
	set(t, y.s, healthy, "user", "anna")
	y.check(healthy + ".json")
	// Set and Destroy still work on such a file.
	set(t, y.s, "garbage", "n", 1)
	get(t, y.s, "garbage")
	if err := y.s.Destroy(ctx, "empty"); err != nil {
		t.Error(err)
	}
}

// C1: a file cut at any byte is corrupt.
func TestTruncatedAtEveryByte(t *testing.T) {
	whole := doc(int64(1795249098866), `,"s":"aé\u00e9\"}{","n":[1,{"x":null}],"f":1.5e3`)
	var s filestore.Session
	if err := s.UnmarshalJSON([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) {
		var s filestore.Session
		if err := s.UnmarshalJSON([]byte(whole[:i])); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("cut at %d: %v, want ErrCorrupt", i, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	opts := quick()
	opts.MaxSize = 1000
	y := newYard(t, opts)
	fits := &filestore.Session{}
	fits.Put("k", strings.Repeat("x", 1000-len(doc(nowMs(), fmt.Sprintf(`,"k":"","__created":%d`, nowMs())))))
	if err := y.s.Set(ctx, "id", fits); err != nil {
		t.Fatalf("Set of exactly MaxSize: %v", err)
	}
	get(t, y.s, "id")
	y.mark()
	err := y.s.Update(ctx, "id", func(s *filestore.Session) error { return s.Put("l", 1) })
	wantErr(t, "Update beyond MaxSize", err, filestore.ErrTooLarge)
	wantErr(t, "Set beyond MaxSize", y.s.Set(ctx, "id", session(t, "k", strings.Repeat("x", 1000))), filestore.ErrTooLarge)
	y.check()
	write(t, y.dir, "big.json", doc(nowMs(), `,"k":"`+strings.Repeat("x", 1000)+`"`))
	y.mark()
	_, err = y.s.Get(ctx, "big")
	wantErr(t, "Get of a file beyond MaxSize", err, filestore.ErrTooLarge)
	wantErr(t, "Create over it", y.s.Create(ctx, "big", session(t)), fs.ErrExist)
	wantErr(t, "Touch", y.s.Touch(ctx, "big", nil), filestore.ErrTooLarge)
	if n, err := y.s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	y.check()
}

// An expired session ends even if its file is too large: otherwise the file would stay for ever. Clear
// removes such a session, dead or alive, but not a large file that does not hold a session.
func TestTooLargeEnds(t *testing.T) {
	for name, codec := range map[string]filestore.Codec{"plain": nil, "Codec": rot{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := quick()
			opts.Codec, opts.MaxSize = codec, 16<<20
			node := open(t, dir, opts)
			opts.MaxSize = 1000
			s := open(t, dir, opts)
			plant := func(id string, age time.Duration) {
				t.Helper()
				sess := session(t, "k", strings.Repeat("x", 2<<20))
				sess.LastAccess = time.Now().Add(-age)
				data, err := sess.MarshalJSON()
				if err == nil && codec != nil {
					data, err = codec.Encode(id, data)
				}
				if err != nil {
					t.Fatal(err)
				}
				write(t, dir, id+".json", string(data))
			}
			plant("dead", 2*time.Hour)
			plant("ahead", -24*time.Hour)
			plant("live", 0)
			write(t, dir, "other.json", strings.Repeat("x", 2000))
			write(t, dir, "sparse.json", "{")
			os.Truncate(filepath.Join(dir, "sparse.json"), 1<<40)
			for id, want := range map[string]error{"dead": filestore.ErrExpired, "live": filestore.ErrTooLarge, "ahead": filestore.ErrTooLarge, "sparse": filestore.ErrTooLarge} {
				for range 2 {
					_, err := s.Get(ctx, id)
					wantErr(t, "Get of "+id, err, want)
				}
				wantErr(t, "Touch of "+id, s.Touch(ctx, id, nil), want)
				wantErr(t, "Update of "+id, s.Update(ctx, id, func(*filestore.Session) error { return nil }), want)
			}
			if n, err := s.Len(ctx); n != 0 || codec == nil && err != nil { // the error of rot does not say what other.json holds
				t.Errorf("Len = %d, %v", n, err)
			}
			if err := s.Create(ctx, "dead", session(t)); err != nil {
				t.Errorf("Create over an expired one = %v", err)
			}
			plant("dead", 2*time.Hour)
			if n, err := s.Reap(ctx); n != 1 || codec == nil && err != nil {
				t.Errorf("Reap = %d, %v, want 1", n, err)
			}
			get(t, node, "live")
			plant("dead", 2*time.Hour)
			if err := s.Clear(ctx); codec == nil && err != nil {
				t.Errorf("Clear = %v", err)
			}
			for _, name := range []string{"dead", "live", "ahead"} {
				if _, err := os.Lstat(filepath.Join(dir, name+".json")); err == nil {
					t.Errorf("Clear left %s", name)
				}
			}
			readFile(t, dir, "other.json")
			if _, err := os.Lstat(filepath.Join(dir, "sparse.json")); err != nil {
				t.Error("Clear removed what holds no session")
			}
		})
	}
}

// C9: a session whose date is far ahead ends all the same, even if nobody reaps or writes.
func TestDateAheadWithoutReaper(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.TTL = 3 * time.Second
	s := open(t, dir, o)
	write(t, dir, "id.json", doc(nowMs()+1_000*365*86_400_000, ""))
	get(t, s, "id")
	time.Sleep(3100 * time.Millisecond)
	_, err := s.Get(ctx, "id")
	wantErr(t, "Get", err, filestore.ErrExpired)
}

// C9, H5, H6: no session lives for ever, whatever the file has as its last access.
func TestLastAccess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick()) // TTL 1 h
	old, recent := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
	bad := []string{`"1795249098866"`, "-1", "1e400", "-1e400", "null", "true", "{}", "[1]", "8.64e15e", "9e15"}
	for i, v := range bad {
		file := fmt.Sprintf(`{"cookie":{},"__lastAccess":%s}`, v)
		if v == "8.64e15e" {
			file = `{"cookie":{}}` // missing
		}
		id := "bad" + strconv.Itoa(i)
		path := filepath.Join(dir, id+".json")
		write(t, dir, id+".json", file)
		os.Chtimes(path, old, old)
		_, err := s.Get(ctx, id)
		wantErr(t, "Get of an old file with __lastAccess "+v, err, filestore.ErrExpired)
		os.Chtimes(path, recent, recent)
		if got := get(t, s, id).LastAccess; !got.Equal(recent) {
			t.Errorf("__lastAccess %s: dated %v, want the mtime %v", v, got, recent)
		}
	}
	// The content counts, not the mtime.
	write(t, dir, "c.json", doc(nowMs(), ""))
	os.Chtimes(filepath.Join(dir, "c.json"), old, old)
	get(t, s, "c")
	write(t, dir, "e.json", doc(old.UnixMilli(), ""))
	os.Chtimes(filepath.Join(dir, "e.json"), recent, recent.Add(24*time.Hour))
	_, err := s.Get(ctx, "e")
	wantErr(t, "Get of an expired session in a new file", err, filestore.ErrExpired)

	// A session without a last access is not written because of that: it would live longer.
	write(t, dir, "undated.json", `{"cookie":{}}`)
	os.Chtimes(filepath.Join(dir, "undated.json"), recent, recent)
	if _, err := s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "undated.json"); got != `{"cookie":{}}` {
		t.Errorf("Reap wrote %s", got)
	}

	// A date a little ahead stays. A date far ahead becomes now, and Reap or Touch write that down.
	ahead := nowMs() + 240_000
	write(t, dir, "skew.json", doc(ahead, ""))
	if got := get(t, s, "skew").LastAccess.UnixMilli(); got != ahead {
		t.Errorf("4 minutes ahead: %d, want %d", got, ahead)
	}
	for _, ms := range []int64{nowMs() + 400_000, 32503680000000} {
		for name, anchor := range map[string]func() error{
			"Reap":  func() error { _, err := s.Reap(ctx); return err },
			"Touch": func() error { return s.Touch(ctx, "future", nil) },
		} {
			write(t, dir, "future.json", doc(ms, `,"n":1`))
			if name == "Touch" { // Reap does not read a file whose mtime is in the future
				future := time.UnixMilli(ms).Add(time.Hour)
				os.Chtimes(filepath.Join(dir, "future.json"), future, future)
			}
			if got := get(t, s, "future").LastAccess; time.Since(got).Abs() > time.Minute {
				t.Errorf("dated %v, want now", got)
			}
			if err := anchor(); err != nil {
				t.Fatal(err)
			}
			disk := decode(t, readFile(t, dir, "future.json"))
			if time.Since(disk.LastAccess).Abs() > time.Minute || value(t, disk, "n") != "1" {
				t.Errorf("%s left a session of the future: %v", name, disk.LastAccess)
			}
		}
	}
}

// E16: the cache sees a file with the same size, the same mtime and other contents.
func TestSameStamps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	path := filepath.Join(dir, "id.json")
	stamp := time.Now().Add(time.Hour)
	ms := nowMs()
	for i := range 100 {
		write(t, dir, "tmp", doc(ms, fmt.Sprintf(`,"n":%03d`, 100+i)))
		os.Chtimes(filepath.Join(dir, "tmp"), stamp, stamp)
		os.Rename(filepath.Join(dir, "tmp"), path)
		if got := value(t, get(t, s, "id"), "n"); got != fmt.Sprint(100+i) {
			t.Fatalf("n = %s, want %d", got, 100+i)
		}
	}
}
