package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fsnotify/fsnotify"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// tmpfs mounts a small file system.
func tmpfs(t *testing.T, options string) (point string) {
	t.Helper()
	need(t, "root", "mount")
	point = t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", options, "tmpfs", point)
	t.Cleanup(func() { run(t, "umount", point) })
	return point
}

// wants fails unless the error of the reply is errno.
func wants(t testing.TB, call string, r reply, errno syscall.Errno) {
	t.Helper()
	if r.Kind != errno.Error() {
		t.Errorf("%s = %q, want %v", call, r.Err, errno)
	}
}

// P3, G1, G2: if no blocks or no inodes are left, Get and Destroy work, and nothing is half done. When there
// is room again the same store goes on.
func TestFullDisk(t *testing.T) {
	places := map[string]func(t *testing.T) string{
		"tmpfs, no blocks":    func(t *testing.T) string { return tmpfs(t, "size=1m") },
		"tmpfs, no inodes":    func(t *testing.T) string { return tmpfs(t, "nr_inodes=90") },
		"ext4, no blocks":     func(t *testing.T) string { return image(t, "-O", "^has_journal", "-m", "0", "-N", "400") },
		"tmpfs, a few blocks": func(t *testing.T) string { return tmpfs(t, "size=1m") },
		"ext4, no inodes":     func(t *testing.T) string { return image(t, "-O", "^has_journal", "-m", "0", "-N", "96") },
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			point := place(t)
			w := newServer(t, point)
			w.must(t, ask{Op: "open", ID: "sessions", Options: filestore.Options{TouchAfter: -1}})
			for _, id := range []string{"a", "b", "c"} {
				w.must(t, ask{Op: "set", ID: id, N: 1, Size: 3000})
			}
			free := fill(t, point, strings.HasSuffix(name, "inodes"))
			if strings.HasSuffix(name, "few blocks") { // room for a part of a file
				run(t, "truncate", "--size=-20K", filepath.Join(point, "fill/0"))
			}
			for range 3 {
				wants(t, "Set over", w.do(t, ask{Op: "set", ID: "a", N: 2, Size: 60_000}), syscall.ENOSPC)
				wants(t, "Set new", w.do(t, ask{Op: "set", ID: "new", N: 2, Size: 60_000}), syscall.ENOSPC)
				wants(t, "Update", w.do(t, ask{Op: "update", ID: "b", N: 2, Size: 60_000}), syscall.ENOSPC)
				if r := w.do(t, ask{Op: "touch", ID: "b"}); !strings.HasSuffix(name, "few blocks") {
					wants(t, "Touch", r, syscall.ENOSPC)
				}
				for _, id := range []string{"a", "b"} {
					if r := w.must(t, ask{Op: "get", ID: id}); r.N != 1 {
						t.Errorf("Get %s = %d", id, r.N)
					}
				}
				if n := temps(filepath.Join(point, "sessions")); n > 0 {
					t.Errorf("%d temporary files", n)
				}
			}
			w.must(t, ask{Op: "destroy", ID: "c"})
			if r := w.must(t, ask{Op: "get", ID: "c"}); r.N != 0 {
				t.Error("Destroy did nothing")
			}
			w.must(t, ask{Op: "reap"})
			w.must(t, ask{Op: "close"})
			w.must(t, ask{Op: "open", ID: "sessions", Options: filestore.Options{TouchAfter: -1}})
			if r := w.must(t, ask{Op: "get", ID: "a"}); r.N != 1 {
				t.Errorf("Get a = %d", r.N)
			}
			free()
			w.must(t, ask{Op: "set", ID: "a", N: 3, Size: 60_000})
			w.must(t, ask{Op: "update", ID: "b", N: 3, Size: 60_000})
			for _, id := range []string{"a", "b"} {
				if r := w.must(t, ask{Op: "get", ID: id}); r.N != 3 {
					t.Errorf("Get %s = %d", id, r.N)
				}
			}
			w.must(t, ask{Op: "close"})
		})
	}
}

// B12: an operation on an immutable file, or in a directory from which nothing may be removed, fails if it
// must. The files that it leaves are removed when they may be.
func TestAppendOnly(t *testing.T) {
	need(t, "root", "chattr")
	dir := image(t)
	w := newServer(t, dir)
	w.must(t, ask{Op: "open", ID: "sessions"})
	w.must(t, ask{Op: "set", ID: "a", N: 1})
	sessions := filepath.Join(dir, "sessions")
	run(t, "chattr", "+a", sessions)
	wants(t, "Destroy", w.do(t, ask{Op: "destroy", ID: "a"}), syscall.EPERM)
	if r := w.must(t, ask{Op: "get", ID: "a"}); r.N != 1 {
		t.Errorf("Get = %d", r.N)
	}
	run(t, "chattr", "-a", sessions)
	w.must(t, ask{Op: "reap"})
	if n := temps(sessions); n > 0 {
		t.Errorf("%d temporary files", n)
	}
	w.must(t, ask{Op: "set", ID: "a", N: 3})
	w.must(t, ask{Op: "close"})
}

// image mounts an ext4 of 8 MiB.
func image(t *testing.T, mkfs ...string) (point string) { return imageOf(t, 8<<20, mkfs...) }

func imageOf(t *testing.T, size int, mkfs ...string) (point string) {
	t.Helper()
	need(t, "root", "losetup", "mkfs.ext4")
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", append(append([]string{"-q"}, mkfs...), file)...)
	point = t.TempDir()
	mount(t, file, point, "loop")
	return point
}

// fill uses up all blocks, or all inodes, until free is called.
func fill(t *testing.T, point string, inodes bool) (free func()) {
	t.Helper()
	dir := filepath.Join(point, "fill")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil; i++ {
		var f *os.File
		if f, err = os.Create(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			break
		}
		for size := 64 << 10; !inodes && size > 0; size /= 2 {
			for err == nil {
				_, err = f.Write(make([]byte, size))
			}
			if size > 1 {
				err = nil
			}
		}
		f.Close()
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { run(t, "rm", "-r", dir) }
}

// P3, G4: on a file system that has become read-only Get works, and writers get an error that says so. Open
// fails, too, unless ReadOnly is set.
func TestReadOnly(t *testing.T) {
	point := tmpfs(t, "size=1m")
	w := newServer(t, point)
	w.must(t, ask{Op: "open", ID: "sessions", Options: filestore.Options{TouchAfter: -1}})
	w.must(t, ask{Op: "set", ID: "a", N: 1})
	run(t, "mount", "-o", "remount,ro", point)
	for range 2 {
		if r := w.must(t, ask{Op: "get", ID: "a"}); r.N != 1 {
			t.Errorf("Get = %d", r.N)
		}
		wants(t, "Set", w.do(t, ask{Op: "set", ID: "a", N: 2}), syscall.EROFS)
		wants(t, "Update", w.do(t, ask{Op: "update", ID: "a", N: 2}), syscall.EROFS)
		wants(t, "Touch", w.do(t, ask{Op: "touch", ID: "a"}), syscall.EROFS)
		wants(t, "Destroy", w.do(t, ask{Op: "destroy", ID: "a"}), syscall.EROFS)
	}
	w.must(t, ask{Op: "close"})
	wants(t, "Open", w.do(t, ask{Op: "open", ID: "sessions"}), syscall.EROFS)
	w.must(t, ask{Op: "open", ID: "sessions", Options: filestore.Options{ReadOnly: true}})
	if r := w.must(t, ask{Op: "get", ID: "a"}); r.N != 1 {
		t.Errorf("Get = %d", r.N)
	}
	w.must(t, ask{Op: "close"})
	run(t, "mount", "-o", "remount,rw", point)
	w.must(t, ask{Op: "open", ID: "sessions"})
	w.must(t, ask{Op: "set", ID: "a", N: 3})
	w.must(t, ask{Op: "destroy", ID: "a"})
	w.must(t, ask{Op: "close"})
}

// P3, G3: a write that the system cuts short, because of RLIMIT_FSIZE, leaves the old session.
func TestFileSizeLimit(t *testing.T) {
	need(t, "prlimit")
	dir := t.TempDir()
	w := newServer(t, dir, "prlimit", "--fsize=4096")
	w.must(t, ask{Op: "open"})
	w.must(t, ask{Op: "set", ID: "a", N: 1, Size: 1000})
	wants(t, "Set", w.do(t, ask{Op: "set", ID: "a", N: 2, Size: 9000}), syscall.EFBIG)
	wants(t, "Update", w.do(t, ask{Op: "update", ID: "a", N: 2, Size: 9000}), syscall.EFBIG)
	if r := w.must(t, ask{Op: "get", ID: "a"}); r.N != 1 {
		t.Errorf("Get = %d", r.N)
	}
	if n := temps(dir); n > 0 {
		t.Errorf("%d temporary files", n)
	}
	w.must(t, ask{Op: "set", ID: "a", N: 3, Size: 1000})
	w.must(t, ask{Op: "close"})
}

// P3, G5: with 0 to 8 free descriptors an operation works or fails with EMFILE, and nothing is half done.
// When there are descriptors again it works as before.
func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	cmd := newServer(t, dir)
	starved := 0
	for k := range 9 {
		cmd.must(t, ask{Op: "open"})
		for _, op := range []string{"set", "update", "touch", "get", "destroy", "reap", "len", "create"} {
			cmd.must(t, ask{Op: "set", ID: "a", N: 1, Size: 100})
			cmd.must(t, ask{Op: "destroy", ID: "new"})
			id := "a"
			if op == "create" {
				id = "new"
			}
			r := cmd.do(t, ask{Op: "starve", ID: id, N: 2, Size: k, Of: op})
			if r.Err != "" {
				wants(t, fmt.Sprintf("%s with %d descriptors", op, k), r, syscall.EMFILE)
				starved++
			}
			if k == 8 && r.Err != "" {
				t.Errorf("%s fails with %d descriptors: %s", op, k, r.Err)
			}
			n := cmd.must(t, ask{Op: "get", ID: "a"}).N
			want := []int{1}
			switch {
			case (op == "set" || op == "update") && r.Err == "":
				want = []int{2}
			case op == "destroy" && r.Err == "":
				want = []int{0}
			}
			if !slices.Contains(want, n) {
				t.Errorf("%s with %d descriptors: %q, and the session is %d", op, k, r.Err, n)
			}
			if n := temps(dir); n > 0 {
				t.Errorf("%s with %d descriptors: %d temporary files", op, k, n)
			}
		}
		cmd.must(t, ask{Op: "close"})
	}
	if starved < 9 {
		t.Errorf("only %d operations lacked a descriptor: the test tests nothing", starved)
	}
}

// starve does an operation while only a.Size descriptors are free.
func starve(s *filestore.Store, a ask) (n int, err error) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return 0, err
	}
	low := old
	low.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		return 0, err
	}
	var taken []int
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for _, fd := range taken[:a.Size] {
		syscall.Close(fd)
	}
	n, err = operate(s, ask{Op: a.Of, ID: a.ID, N: a.N, Size: 100})
	for _, fd := range taken[a.Size:] {
		syscall.Close(fd)
	}
	return n, errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
}

// G8: Open fails on a file system without locks. If a lock fails later, the operation fails. Nothing is ever
// done without a lock.
func TestNoLocks(t *testing.T) {
	need(t, "root", "strace")
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		name := map[syscall.Errno]string{syscall.ENOLCK: "ENOLCK", syscall.ENOSYS: "ENOSYS", syscall.EOPNOTSUPP: "EOPNOTSUPP"}[errno]
		strace := []string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=flock", "-e", "inject=flock:error=" + name}
		dir := t.TempDir()
		w := newServer(t, dir, strace...)
		wants(t, "Open", w.do(t, ask{Op: "open"}), errno)

		strace[len(strace)-1] += ":when=3+" // not yet at Open
		w = newServer(t, dir, strace...)
		w.must(t, ask{Op: "open"})
		r := w.do(t, ask{Op: "set", ID: "a", N: 1})
		for range 1000 { // strace counts for each thread
			if r.Err != "" {
				break
			}
			r = w.do(t, ask{Op: "set", ID: "a", N: 2})
		}
		wants(t, "Set", r, errno)
	}
}

// G6: if the system has no watches left, Open works, and Watch says why it does not.
func TestNoWatches(t *testing.T) {
	need(t, "root", "strace")
	for call, errno := range map[string]syscall.Errno{"inotify_init1": syscall.EMFILE, "inotify_add_watch": syscall.ENOSPC} {
		name := map[syscall.Errno]string{syscall.EMFILE: "EMFILE", syscall.ENOSPC: "ENOSPC"}[errno]
		w := newServer(t, t.TempDir(), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":error="+name)
		w.must(t, ask{Op: "open"})
		w.must(t, ask{Op: "set", ID: "a", N: 1})
		wants(t, "Watch", w.do(t, ask{Op: "watch"}), errno)
		w.must(t, ask{Op: "close"})
	}
}

// G6: a Watch that is too slow yields an error that says so, and goes on.
func TestWatchOverflow(t *testing.T) {
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	var queue int
	if err := json.Unmarshal(data, &queue); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := storetest.OpenDamaged(t, dir, nil)
	// The loop's body blocks the watch, as a slow one would.
	set := func(id string) {
		if err := s.Set(ctx, id, new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // the watch may just be starting
		for range 100 {
			if os.WriteFile(filepath.Join(dir, "first.json"), []byte("{}"), 0o600) != nil {
				return
			}
		}
	})
	blocked, overflow := false, false
	for ev, err := range s.Watch(ctx) {
		switch {
		case errors.Is(err, fsnotify.ErrEventOverflow):
			overflow = true
			set("last")
		case err != nil:
			t.Fatal(err)
		case !blocked:
			blocked = true
			for i := range queue + 5000 { // each is at least one event
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("x%d", i%10)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		case ev.ID == "last":
			if !overflow {
				t.Error("no overflow was told")
			}
			return
		}
	}
	t.Error("Watch ended")
}
