package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// P6: an expired session is gone within two intervals, a renewed one never is, and other files stay.
func TestReaper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := filestore.Open(dir, &filestore.Options{NoSync: true, TTL: 10 * time.Minute, ReapInterval: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		keep := []string{"foreign.json", "corrupt.json", "empty.json", "README", "dir.json", "young.json.123", "x.json.bak"}
		write(t, dir, "foreign.json", `{"name":"x"}`)
		write(t, dir, "corrupt.json", `{"cookie":{},`)
		write(t, dir, "empty.json", "")
		write(t, dir, "README", "")
		write(t, dir, "young.json.123", "half of a docu") // the kernel's clock is not in the bubble: for the store the file is from the future
		write(t, dir, "x.json.bak", doc(1, ""))
		os.Mkdir(filepath.Join(dir, "dir.json"), 0o700)
		write(t, dir, "nodes.json", doc(time.Now().UnixMilli(), "")) // as Node writes it: the mtime is not the expiry

		set(t, s, "dies")
		set(t, s, "touched")
		set(t, s, "updated")
		short := session(t)
		short.Cookie.OriginalMaxAge = 90 * time.Second
		if err := s.Set(ctx, "short", short); err != nil {
			t.Fatal(err)
		}
		exists := func(id string) bool {
			_, err := os.Lstat(filepath.Join(dir, id+".json"))
			return err == nil
		}
		for minute := 1; minute <= 40; minute++ {
			time.Sleep(time.Minute)
			synctest.Wait()
			if err := s.Touch(ctx, "touched", nil); err != nil {
				t.Fatalf("minute %d: Touch = %v", minute, err)
			}
			if err := increment(s, "updated"); err != nil {
				t.Fatalf("minute %d: Update = %v", minute, err)
			}
			for id, life := range map[string]int{"dies": 10, "nodes": 10, "short": 1} {
				if minute <= life && !exists(id) {
					t.Errorf("minute %d: %s was reaped alive", minute, id)
				}
				if minute > life+2 && exists(id) {
					t.Errorf("minute %d: %s is still there", minute, id)
				}
			}
		}
		for _, name := range keep {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				t.Errorf("%s is gone", name)
			}
		}
		if got := value(t, get(t, s, "updated"), "n"); got != "40" {
			t.Errorf("n = %s", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		storetest.Tidy(t, dir)
	})
}

// Close of an idle store returns at once, whatever the interval.
func TestCloseStopsTheReaper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := filestore.Open(t.TempDir(), &filestore.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close = %v after %v", err, time.Since(start))
		}
	})
}

func TestReap(t *testing.T) {
	y := newYard(t, nil)
	all := storetest.Brief(200, 1500)
	for i := range all {
		write(t, y.dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
		write(t, y.dir, fmt.Sprintf("new%d.json", i), doc(nowMs(), ""))
	}
	if n, err := y.s.Reap(ctx); n != all || err != nil {
		t.Errorf("Reap = %d, %v, want %d", n, err, all)
	}
	if n, err := y.s.Len(ctx); n != all+1 || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, all+1)
	}
	if n, err := y.s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("second Reap = %d, %v", n, err)
	}
}

// P6: no reaper removes a session that the longer TTL of another program keeps alive, whoever has renewed it
// since. After that TTL it is removed.
func TestReapBesideLongerTTL(t *testing.T) {
	type pair struct{ long, short *filestore.Store }
	all := make(map[string]pair)
	for name, renew := range map[string]func(s *filestore.Store) error{
		"as it was": func(s *filestore.Store) error { return nil },
		"Touch":     func(s *filestore.Store) error { return s.Touch(ctx, "id", nil) },
		"Update":    func(s *filestore.Store) error { return increment(s, "id") },
		"Update to another": func(s *filestore.Store) error {
			return s.Update(ctx, "id", func(sess *filestore.Session) error { *sess = filestore.Session{}; return nil })
		},
		"Get and Set": func(s *filestore.Store) error {
			sess, err := s.Get(ctx, "id")
			if err != nil {
				return err
			}
			return s.Set(ctx, "id", sess)
		},
		"Get and Reap": func(s *filestore.Store) error { // which may not shorten the life that the mtime tells
			get(t, s, "id")
			_, err := s.Reap(ctx)
			return err
		},
	} {
		dir := t.TempDir()
		o := quick()
		o.TTL, o.TouchAfter = 12*time.Second, -1
		long := open(t, dir, o)
		o.TTL = 3 * time.Second
		short := open(t, dir, o)
		set(t, long, "id", "n", 0)
		fi, _ := os.Stat(filepath.Join(dir, "id.json"))
		if err := renew(short); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if now, _ := os.Stat(filepath.Join(dir, "id.json")); now.ModTime().Before(fi.ModTime()) {
			t.Errorf("%s: the mtime was set back by %v", name, fi.ModTime().Sub(now.ModTime()))
		}
		all[name] = pair{long, short}
	}
	time.Sleep(3500 * time.Millisecond)
	for name, s := range all {
		_, err := s.short.Get(ctx, "id")
		wantErr(t, name+": Get with the shorter TTL", err, filestore.ErrExpired)
		if n, err := s.short.Reap(ctx); n != 0 || err != nil {
			t.Errorf("%s: Reap = %d, %v, want 0", name, n, err)
		}
		if _, err := s.long.Get(ctx, "id"); err != nil {
			t.Errorf("%s: Get with the longer TTL = %v", name, err)
		}
	}
	time.Sleep(10 * time.Second)
	for name, s := range all {
		if n, err := s.short.Reap(ctx); n != 1 || err != nil {
			t.Errorf("%s: Reap after its end = %d, %v, want 1", name, n, err)
		}
	}
}

// The mtime of a session with a maxAge follows that maxAge, also when it becomes shorter.
func TestMtimeFollowsOwnLife(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	end := func(age time.Duration, want time.Duration) {
		t.Helper()
		err := s.Update(ctx, "id", func(sess *filestore.Session) error {
			sess.Cookie = filestore.Cookie{OriginalMaxAge: age, HTTPOnly: true, Path: "/"}
			return nil
		})
		fi, statErr := os.Stat(filepath.Join(dir, "id.json"))
		if err != nil || statErr != nil {
			t.Fatal(err, statErr)
		}
		if left := time.Until(fi.ModTime()); left > want || left < want-time.Minute {
			t.Errorf("with a maxAge of %v the mtime is %v ahead, want %v", age, left, want)
		}
	}
	set(t, s, "id")
	end(24*time.Hour, 24*time.Hour)
	end(2*time.Hour, 2*time.Hour)
	end(0, time.Hour)
}

// A session that looked due to the reaper may end later by the time the reaper has the lock: somebody has
// put a copy in its place, or used touch -d.
func TestReaperSeesALaterEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "id.json")
	later := time.Now().Add(time.Hour)
	s := hooked(t, dir, 1, func() { os.Chtimes(path, later, later) })
	write(t, dir, "id.json", doc(1, ""))
	old := time.Now().Add(-time.Minute) // older than a file that is just being written
	os.Chtimes(path, old, old)
	time.Sleep(30 * time.Millisecond)
	for range 2 {
		if n, err := s.Reap(ctx); n != 0 || err != nil {
			t.Errorf("Reap = %d, %v", n, err)
		}
	}
	readFile(t, dir, "id.json")
}

// A pass reads only files that may have expired. A file that Node or a person wrote looks due. It is read
// once, and then its mtime is its expiry.
func TestReapReadsWhatIsDue(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	reads := new(counter)
	o.Codec = reads
	s := open(t, dir, o)
	set(t, s, "ours")
	write(t, dir, "node.json", doc(nowMs(), ""))
	write(t, dir, "undated.json", `{"cookie":{}}`) // its mtime is its date and must stay
	write(t, dir, "own.json", fmt.Sprintf(`{"cookie":{"originalMaxAge":7200000},"__lastAccess":%d}`, nowMs()))
	undated, _ := os.Stat(filepath.Join(dir, "undated.json"))
	before := map[string]string{"node.json": readFile(t, dir, "node.json"), "own.json": readFile(t, dir, "own.json")}
	for pass, want := range []int64{3, 1, 1} {
		reads.Store(0)
		if n, err := s.Reap(ctx); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if reads.Load() != want {
			t.Errorf("pass %d read %d files, want %d", pass, reads.Load(), want)
		}
	}
	for name, life := range map[string]time.Duration{"node.json": time.Hour, "own.json": 2 * time.Hour} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if end := time.Until(fi.ModTime()); end < life-time.Minute || end > life {
			t.Errorf("%s ends in %v by its mtime", name, end)
		}
		if readFile(t, dir, name) != before[name] {
			t.Errorf("%s has changed", name)
		}
	}
	if fi, _ := os.Stat(filepath.Join(dir, "undated.json")); !fi.ModTime().Equal(undated.ModTime()) {
		t.Error("the date of an undated session was changed: it would never end")
	}
	// If Node or a person writes it again, it looks due again.
	write(t, dir, "node.json", doc(0, ""))
	if n, err := s.Reap(ctx); n != 1 || err != nil {
		t.Errorf("Reap = %d, %v after Node expired a session", n, err)
	}
}

// E5: a session that the reaper has found expired is renewed before it is removed, exactly between the two
// looks of the reaper.
func TestReaperLooksTwice(t *testing.T) {
	for name, renew := range map[string]func(s *filestore.Store, dir string) error{
		"Set": func(s *filestore.Store, dir string) error { return s.Set(ctx, "id", new(filestore.Session)) },
		"Node": func(_ *filestore.Store, dir string) error {
			tmp := filepath.Join(dir, "id.json.1374059317")
			if err := os.WriteFile(tmp, []byte(doc(nowMs(), "")), 0o644); err != nil {
				return err
			}
			return os.Rename(tmp, filepath.Join(dir, "id.json"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			other := open(t, dir, quick())
			s := hooked(t, dir, 1, func() {
				if err := renew(other, dir); err != nil {
					t.Error(err)
				}
			})
			write(t, dir, "id.json", doc(1, ""))
			if n, err := s.Reap(ctx); n != 0 || err != nil {
				t.Errorf("Reap = %d, %v", n, err)
			}
			get(t, other, "id")
		})
	}
	// A session that is gone before the second look is not an error and is not counted.
	dir := t.TempDir()
	s := hooked(t, dir, 1, func() { os.Remove(filepath.Join(dir, "id.json")) })
	write(t, dir, "id.json", doc(1, ""))
	if n, err := s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
}

// E6: reapers in four processes and four goroutines remove each session once.
func TestManyReapers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	n := storetest.Brief(200, 800)
	for i := range n {
		write(t, dir, fmt.Sprintf("old%d.json", i), doc(1, ""))
	}
	var wg sync.WaitGroup
	var removed atomic.Int64
	for range 4 {
		wg.Go(func() {
			out, err := storetest.Command("reap", dir).Output()
			var k int64
			fmt.Sscan(string(out), &k)
			removed.Add(k)
			if err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			k, err := s.Reap(ctx)
			removed.Add(int64(k))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if removed.Load() != int64(n) {
		t.Errorf("removed %d, want %d", removed.Load(), n)
	}
	for id := range s.IDs(ctx) {
		t.Errorf("%s is left", id)
	}
}

func init() {
	workers["reap"] = func(args []string) {
		s, err := filestore.Open(args[0], patient())
		must(err)
		n, err := s.Reap(ctx)
		must(err)
		fmt.Println(n)
		must(s.Close())
	}
}

// E7, H10: temporary files are removed after an hour. Nobody can set when ours was last changed, so the clock
// goes ahead.
func TestSweep(t *testing.T) {
	y := newYard(t, nil)
	old := time.Now().Add(-2 * time.Hour)
	const ours, young = ".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", "id.json.1374059317"
	stays := []string{
		"id.json.12x", "id.json.", "app.json.1", "a.json.20260101", fmt.Sprintf("a.json.%d", time.Now().Unix()), "a.json.4294967296", "a.json.0374059317", "my notes.json.1374059317", ".config.json.1374059317", "x.json.99999999999999999999", ".json.123", "../x.json.123", "README.123",
		".short~", ".zyxwvutsrqponmlkjihgfedcba~", ".ABCDEFGHIJKLMNOPQRSTUVWXYZA~", ".00-ABCDEFGHIJKLMNOPQRSTUVWXYZ~", "~", ".~", "dir.json.1374059317", ".DIRECTORYDIRECTORYDIRECTOR~",
	}
	for _, name := range append(stays, "id.json.999999999", "a.b.json.4294967295", ours, young) {
		if strings.Contains(strings.ToLower(name), "dir") {
			os.Mkdir(filepath.Join(y.dir, name), 0o700)
		} else {
			write(t, y.dir, name, "x")
		}
		if name != young {
			os.Chtimes(filepath.Join(y.dir, name), old, old)
		}
	}
	made := time.Now().Round(0)
	left := func(when string, sweeps ...string) {
		t.Helper()
		for _, name := range append(slices.Concat(stays, sweeps), ours, young) {
			_, err := os.Lstat(filepath.Join(y.dir, name))
			if gone := slices.Contains(sweeps, name); (err != nil) != gone {
				t.Errorf("%s: %s: %v, want gone: %v", when, name, err, gone)
			}
		}
	}
	left("first")
	for _, later := range []struct {
		by     time.Duration
		sweeps []string
	}{
		{0, []string{"id.json.999999999", "a.b.json.4294967295"}},
		{time.Hour - 10*time.Second, []string{"id.json.999999999", "a.b.json.4294967295"}},
		{time.Hour + 10*time.Second, []string{"id.json.999999999", "a.b.json.4294967295", ours, young}},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(made.Add(later.by)))
			o := quick()
			o.TTL = 9 * time.Hour
			s, err := filestore.Open(y.dir, o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Reap(ctx); err != nil {
				t.Error(err)
			}
		})
		left(later.by.String(), later.sweeps...)
	}
	for _, name := range stays {
		os.Remove(filepath.Join(y.dir, name)) // for the check at the end
	}
}

// The reaper logs how many files it passed over, and names no session.
func TestReapLogs(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	o := quick()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, dir, o)
	write(t, dir, "corruptID.json", "{")
	write(t, dir, "hugeID.json", strings.Repeat(" ", 2<<20))
	if _, err := s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "files=2") || strings.Contains(got, "ID") || strings.Count(got, "\n") != 1 {
		t.Errorf("log: %q", got)
	}
	if _, err := s.Get(ctx, "corruptID"); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("Get = %v", err)
	}
}

// When its context ends, a pass stops reading.
func TestReapEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	c := &canceller{cancel: cancel}
	o := quick()
	o.Codec = c
	s := open(t, dir, o)
	for i := range 300 {
		write(t, dir, fmt.Sprintf("id%d.json", i), "x")
	}
	if _, err := s.Reap(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Reap = %v, want that it was cancelled", err)
	}
	if n := c.Load(); n > 12 { // two workers read, and each looks several times at a file that was just written
		t.Errorf("%d reads in a pass that ended with the first", n)
	}
}

// A canceller ends the context when a file is decoded, and counts the files.
type canceller struct {
	counter
	cancel func()
}

func (c *canceller) Decode(id string, file []byte) ([]byte, error) {
	c.cancel()
	return c.counter.Decode(id, file)
}

// H5, H6: a copy (cp -p, rsync -t) has kept an mtime from when the clock was ahead. The reaper leaves the
// file alone until then, but Get does not return the session.
func TestReapOfCopies(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	ahead := time.Now().Add(10 * 365 * 24 * time.Hour)
	for life := 100 * time.Millisecond; ; life *= 4 { // a slow machine needs longer to come to Get
		copied := time.Now()
		write(t, dir, "id.json", strings.Replace(doc(ahead.UnixMilli(), ""), "null", fmt.Sprint(life.Milliseconds()), 1))
		os.Chtimes(filepath.Join(dir, "id.json"), ahead, ahead)
		_, err := s.Get(ctx, "id")
		switch {
		case err == nil: // it counts as accessed when it was copied
		case time.Since(copied) < life || life > time.Minute:
			t.Fatal(err)
		default:
			continue
		}
		time.Sleep(2 * life)
		_, err = s.Get(ctx, "id")
		wantErr(t, "Get", err, filestore.ErrExpired)
		break
	}
	if n, err := s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
}
