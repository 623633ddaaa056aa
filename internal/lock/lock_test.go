package lock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
	"github.com/sessionfilestore/filestore/internal/skip"
)

var ctx = context.Background()

const holderVar = "FILESTORE_TEST_HOLDER"

// TestMain can also be another process, which holds the lock of "id" until its input ends.
func TestMain(m *testing.M) {
	dir := os.Getenv(holderVar)
	if dir == "" {
		os.Exit(m.Run())
	}
	d, err := disk.Open(dir, disk.Options{})
	if err != nil {
		panic(err)
	}
	table, err := lock.Open(d, ".json", slog.Default())
	if err != nil {
		panic(err)
	}
	l, err := table.Lock(ctx, "id", 5*time.Second)
	if err != nil {
		panic(err)
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	l.Unlock()
}

func open(t *testing.T, dir string) (*lock.Table, *disk.Dir) {
	t.Helper()
	d, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	table, err := lock.Open(d, ".json", slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	return table, d
}

func take(t *testing.T, table *lock.Table, id string) *lock.Stripe {
	t.Helper()
	l, err := table.Lock(ctx, id, 10*time.Second)
	if err != nil {
		t.Fatalf("Lock = %v", err)
	}
	return l
}

// No two goroutines hold a lock at once, be it for one id or for several that share it, through one Table or
// several, which stand for processes.
func TestExcludes(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	b, _ := open(t, dir)
	var wg sync.WaitGroup
	inside, total := 0, 0
	var mu sync.Mutex
	var ids []string
	for i := 0; len(ids) < 3; i++ {
		if id := fmt.Sprint("id", i); a.Index(id) == 0 {
			ids = append(ids, id)
		}
	}
	for i, table := range []*lock.Table{a, a, a, b, b} {
		wg.Go(func() {
			for range 200 {
				l := take(t, table, ids[i/2])
				mu.Lock()
				inside++
				if inside != 1 {
					t.Errorf("%d hold the lock", inside)
				}
				mu.Unlock()
				if err := l.Check(); err != nil {
					t.Errorf("Check = %v", err)
				}
				mu.Lock()
				inside--
				total++
				mu.Unlock()
				l.Unlock()
			}
		})
	}
	wg.Wait()
	if total != 1000 {
		t.Errorf("%d turns", total)
	}
}

// A wait ends with its timeout or its context, and leaves the queue in order.
func TestWaitEnds(t *testing.T) {
	table, _ := open(t, t.TempDir())
	held := take(t, table, "id")
	start := time.Now()
	if _, err := table.Lock(ctx, "id", 50*time.Millisecond); !errors.Is(err, lock.ErrTimeout) {
		t.Errorf("Lock = %v", err)
	}
	c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := table.Lock(c, "id", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock = %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("they took %v", took)
	}
	if l, err := table.Try(table.Index("id")); l != nil || err != nil {
		t.Errorf("Try = %v, %v", l, err)
	}
	held.Unlock()
	l, err := table.Try(table.Index("id"))
	if l == nil || err != nil {
		t.Fatalf("Try of a free lock = %v, %v", l, err)
	}
	l.Unlock()
}

// A lock of another process excludes, and its death frees the lock.
func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	table, _ := open(t, dir)
	for _, end := range []string{"unlock", "kill"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), holderVar+"="+dir)
		cmd.Stderr = os.Stderr
		in, _ := cmd.StdinPipe()
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
			t.Fatalf("the holder says %q, %v", line, err)
		}
		if _, err := table.Lock(ctx, "id", 50*time.Millisecond); !errors.Is(err, lock.ErrTimeout) {
			t.Errorf("%s: Lock beside the holder = %v", end, err)
		}
		if end == "kill" {
			cmd.Process.Kill()
		}
		in.Close()
		take(t, table, "id").Unlock()
		cmd.Wait()
	}
}

// A holder finds out that its lock file has been removed or replaced, and the next holder locks the new
// file.
func TestLockFileReplaced(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"directory deleted": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		dir := t.TempDir()
		a, d := open(t, dir)
		b, _ := open(t, dir)
		held := take(t, a, "id")
		if err := held.Check(); err != nil {
			t.Errorf("%s: Check before = %v", name, err)
		}
		if err := replace(filepath.Join(dir, format.LockFile(a.Index("id")))); err != nil {
			held.Unlock() // a file that is locked cannot be removed here
			skip.Test(t, fmt.Sprintf("%s: %v", name, err))
		}
		next := take(t, b, "id")
		for _, file := range []string{"old", "new"} {
			if err := d.Create(file, []byte(file), 0o600, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		for what, err := range map[string]error{"Check": held.Check(), "Remove": held.Remove("old"), "Rename": held.Rename("new", "old")} {
			if !errors.Is(err, disk.ErrUnsafe) {
				t.Errorf("%s: %s of the one that lost it = %v", name, what, err)
			}
		}
		if data, _, err := d.Read("old", 10); string(data) != "old" {
			t.Errorf("%s: the one that lost it wrote %q, %v", name, data, err)
		}
		if _, err := d.Stat("new"); err != nil {
			t.Errorf("%s: the other file: %v", name, err)
		}
		if err := next.Check(); err != nil {
			t.Errorf("%s: Check of the next = %v", name, err)
		}
		held.Unlock()
		if _, err := a.Lock(ctx, "id", 50*time.Millisecond); !errors.Is(err, lock.ErrTimeout) {
			t.Errorf("%s: Lock beside the next = %v", name, err)
		}
		next.Unlock()
		take(t, a, "id").Unlock()
	}
}

// A lock file that is not a regular file is an error, at Open and later.
func TestLockFileIsNot(t *testing.T) {
	dir := t.TempDir()
	table, d := open(t, dir)
	path := filepath.Join(dir, format.LockFile(table.Index("id")))
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Lock(ctx, "id", time.Second); !errors.Is(err, disk.ErrUnsafe) {
		t.Errorf("Lock = %v", err)
	}
	if _, err := lock.Open(d, ".json", slog.Default()); !errors.Is(err, disk.ErrUnsafe) {
		t.Errorf("Open = %v", err)
	}
}

// After the directory was moved the same files are locked.
func TestMoved(t *testing.T) {
	parent := t.TempDir()
	dir, moved := filepath.Join(parent, "dir"), filepath.Join(parent, "moved")
	a, _ := open(t, dir)
	if err := os.Rename(dir, moved); err != nil {
		skip.Test(t, err.Error())
	}
	b, _ := open(t, moved)
	held := take(t, b, "id")
	if _, err := a.Lock(ctx, "id", 50*time.Millisecond); !errors.Is(err, lock.ErrTimeout) {
		t.Errorf("Lock = %v", err)
	}
	held.Unlock()
	l := take(t, a, "id")
	if err := l.Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
	l.Unlock()
}

// Ids with one session file share a lock. Other ids have the lock of their hash; see format.
func TestCase(t *testing.T) {
	dir := t.TempDir()
	table, _ := open(t, dir)
	_, err := os.Stat(filepath.Join(dir, ".LOCKS"))
	folds := err == nil
	if same := table.Index("Abc") == table.Index("aBC"); same != folds {
		t.Errorf("the file system folds case: %v, and the lock is one: %v", folds, same)
	}
	if !folds && table.Index("Abc") != format.Stripe("Abc") {
		t.Error("the lock is not that of the id's hash")
	}
}

// The mark of a longer extension is there again as soon as its store locks something, even if another store
// has made .locks again.
func TestMark(t *testing.T) {
	dir := t.TempDir()
	short, d := open(t, dir)
	long, err := lock.Open(d, ".admin.json", slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(dir, format.Extension(".admin.json").Mark())
	for range 2 {
		if _, err := os.Stat(mark); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Dir(mark)); err != nil {
			skip.Test(t, err.Error())
		}
		for i := range format.Stripes {
			for l := (*lock.Stripe)(nil); l == nil; { // the first attempt makes the file
				if l, err = short.Try(i); err != nil {
					t.Fatal(err)
				}
				if l != nil {
					l.Unlock()
				}
			}
		}
		take(t, long, "id").Unlock()
	}
}

// Try takes a free lock, and does not wait for one that is held.
func TestTry(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	b, _ := open(t, dir)
	held, err := a.Try(7)
	if held == nil {
		t.Fatal(err)
	}
	for _, table := range []*lock.Table{a, b} {
		if l, err := table.Try(7); l != nil || err != nil {
			t.Errorf("Try of a held lock = %v, %v", l, err)
		}
	}
	held.Unlock()
	l, err := b.Try(7)
	if l == nil {
		t.Fatal(err)
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
	l.Unlock()
}

// However many queues a Lock waits in, it counts as one wait, and a time-out as one. A free lock counts nothing.
func TestCounts(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	b, _ := open(t, dir)
	b.Counts = a.Counts // as those of one store that has opened its directory again
	for range 3 {
		take(t, a, "id").Unlock()
	}
	c := a.Counts
	if c.Waits.Load() != 0 || c.Waited.Load() != 0 {
		t.Errorf("%d waits for a free lock, of %d ns", c.Waits.Load(), c.Waited.Load())
	}
	held := take(t, a, "id")
	const each = 40 * time.Millisecond
	var wg sync.WaitGroup
	for _, table := range []*lock.Table{a, b, b, b} {
		wg.Go(func() {
			if _, err := table.Lock(ctx, "id", each); !errors.Is(err, lock.ErrTimeout) {
				t.Errorf("Lock = %v", err)
			}
		})
	}
	wg.Wait()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Lock(canceled, "id", each); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock = %v", err)
	}
	held.Unlock()
	if c.Waits.Load() != 5 || c.Timeouts.Load() != 4 || time.Duration(c.Waited.Load()) < 4*each {
		t.Errorf("%d waits of %v, %d time-outs; want 5 of at least %v, 4", c.Waits.Load(), time.Duration(c.Waited.Load()), c.Timeouts.Load(), 4*each)
	}
}
