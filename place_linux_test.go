package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Open refuses a directory that it can only read, whether its lock files are there or not. With ReadOnly it
// opens the directory, and reads work.
func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "mounting needs root")
	}
	if runtime.GOOS != "linux" {
		return
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	os.Mkdir(dir, 0o700)
	write(t, dir, "id.json", doc(nowMs(), `,"n":1`))
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		skip.Test(t, "no mounts here: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused := func() {
		t.Helper()
		s, err := filestore.Open(dir, quick())
		if err == nil {
			s.Close()
		}
		wantErr(t, "Open", err, syscall.EROFS)
	}
	refused()
	o := quick()
	o.ReadOnly = true
	s := open(t, dir, o)
	if got := value(t, get(t, s, "id"), "n"); got != "1" {
		t.Errorf("n = %s", got)
	}
	for name, op := range ops(s) {
		if name != "Get" && name != "Create" && name != "Touch" {
			wantErr(t, name, op("id"), fs.ErrPermission)
		}
	}
	if n, err := s.Len(ctx); n != 1 || err != nil {
		t.Errorf("Len = %d, %v", n, err)
	}
	const writable = syscall.MS_BIND | syscall.MS_REMOUNT
	if err := syscall.Mount("", dir, "", writable, ""); err != nil {
		t.Fatal(err)
	}
	set(t, open(t, dir, quick()), "locks")
	if err := syscall.Mount("", dir, "", writable|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused()
}

// B14: the store stays in the directory that it opened.
func TestDirectoryReplaced(t *testing.T) {
	parent := t.TempDir()
	real, link := filepath.Join(parent, "real"), filepath.Join(parent, "link")
	os.Mkdir(real, 0o700)
	os.Symlink("real", link)
	s := open(t, link, quick())
	set(t, s, "a", "n", 1)
	readFile(t, real, "a.json")

	// The link now leads elsewhere. Then the directory itself moves.
	evil := filepath.Join(parent, "evil")
	os.Mkdir(evil, 0o700)
	os.Remove(link)
	os.Symlink("evil", link)
	set(t, s, "b", "n", 2)
	moved := filepath.Join(parent, "moved")
	os.Rename(real, moved)
	os.Symlink("evil", real)
	err := s.Set(ctx, "c", session(t, "n", 3))
	if runtime.GOOS == "linux" && err != nil {
		t.Errorf("Set in the moved directory = %v", err)
	}
	if err := s.Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("n", 4) }); runtime.GOOS == "linux" && err != nil {
		t.Errorf("Update in the moved directory = %v", err)
	}
	readFile(t, moved, "b.json")
	if entries, _ := os.ReadDir(evil); len(entries) != 0 {
		t.Errorf("%d entries in the directory that took the name", len(entries))
	}
	// If the directory is removed, the errors are clear, and nothing is made elsewhere.
	os.RemoveAll(moved)
	if err := s.Set(ctx, "d", session(t)); err == nil {
		t.Error("Set in a removed directory succeeded")
	}
	_, err = s.Get(ctx, "a")
	wantErr(t, "Get in a removed directory", err, filestore.ErrNotFound)
	if entries, _ := os.ReadDir(evil); len(entries) != 0 {
		t.Errorf("%d entries in the directory that took the name", len(entries))
	}
}

// B14: after the directory was deleted, the next operation, whichever it is, opens the directory at its
// path, or makes it. The cached sessions of the deleted one are gone.
func TestDirectoryDeleted(t *testing.T) {
	ids := func(s *filestore.Store) (all []string, err error) {
		for id, err := range s.IDs(ctx) {
			if err != nil {
				return all, err
			}
			all = append(all, id)
		}
		return all, nil
	}
	for name, try := range map[string]func(t *testing.T, s *filestore.Store, there bool) error{
		"Get": func(t *testing.T, s *filestore.Store, there bool) error {
			sess, err := s.Get(ctx, "id")
			if there && err == nil && value(t, sess, "n") != "2" {
				t.Errorf("n = %s, as in the deleted directory", value(t, sess, "n"))
			}
			if !there && errors.Is(err, filestore.ErrNotFound) {
				return nil
			}
			return err
		},
		"Set":    func(t *testing.T, s *filestore.Store, _ bool) error { return s.Set(ctx, "set", session(t)) },
		"Create": func(t *testing.T, s *filestore.Store, _ bool) error { return s.Create(ctx, "set", session(t)) },
		"Touch": func(t *testing.T, s *filestore.Store, there bool) error {
			if err := s.Touch(ctx, "id", nil); there || !errors.Is(err, filestore.ErrNotFound) {
				return err
			}
			return nil
		},
		"Update": func(t *testing.T, s *filestore.Store, there bool) error {
			if err := increment(s, "id"); there || !errors.Is(err, filestore.ErrNotFound) {
				return err
			}
			return nil
		},
		"Destroy": func(t *testing.T, s *filestore.Store, _ bool) error {
			err := s.Destroy(ctx, "id")
			if all, _ := ids(s); slices.Contains(all, "id") {
				t.Error("it is still there")
			}
			return err
		},
		"IDs": func(t *testing.T, s *filestore.Store, there bool) error {
			all, err := ids(s)
			if want := 2; there && len(all) != want || !there && len(all) != 0 {
				t.Errorf("IDs = %q", all)
			}
			return err
		},
		"Len": func(t *testing.T, s *filestore.Store, there bool) error {
			n, err := s.Len(ctx)
			if there && n != 1 || !there && n != 0 {
				t.Errorf("Len = %d", n)
			}
			return err
		},
		"Clear": func(t *testing.T, s *filestore.Store, _ bool) error {
			err := s.Clear(ctx)
			if all, _ := ids(s); len(all) != 0 {
				t.Errorf("Clear left %q", all)
			}
			return err
		},
		"Reap": func(t *testing.T, s *filestore.Store, there bool) error {
			n, err := s.Reap(ctx)
			if there != (n == 1) {
				t.Errorf("Reap = %d", n)
			}
			return err
		},
	} {
		for _, there := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, there %v", name, there), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "a", "sessions")
				o := quick()
				o.TouchAfter = -1
				s := open(t, dir, o)
				set(t, s, "id", "n", 1)
				set(t, s, "gone", "n", 1)
				time.Sleep(30 * time.Millisecond)
				get(t, s, "id")
				get(t, s, "gone")
				for range 2 { // and again
					if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
						t.Fatal(err)
					}
					if there {
						os.MkdirAll(dir, 0o700)
						write(t, dir, "id.json", doc(nowMs(), `,"n":2`))
						write(t, dir, "old.json", doc(1, ""))
					}
					if err := try(t, s, there); err != nil {
						t.Fatalf("%s = %v", name, err)
					}
					if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
						t.Errorf("the directory: %v, %v", fi, err)
					}
					if _, err := s.Get(ctx, "gone"); !errors.Is(err, filestore.ErrNotFound) {
						t.Errorf("Get of a session of the deleted directory = %v", err)
					}
					set(t, open(t, dir, quick()), "other", "n", 3)
					if got := value(t, get(t, s, "other"), "n"); got != "3" {
						t.Errorf("n = %s", got)
					}
				}
			})
		}
	}
}

// On an overlay, as in a container, a deleted directory of the image still has its link count, but lists no
// files.
func TestDirectoryDeletedOnOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "mounting needs root")
	}
	for name, op := range map[string]func(s *filestore.Store) error{
		"Set":  func(s *filestore.Store) error { return s.Set(ctx, "id", new(filestore.Session)) },
		"Reap": func(s *filestore.Store) error { _, err := s.Reap(ctx); return err },
		"Len":  func(s *filestore.Store) error { _, err := s.Len(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			for _, name := range []string{"lower/sessions", "upper", "work", "merged"} {
				os.MkdirAll(filepath.Join(parent, name), 0o700)
			}
			merged := filepath.Join(parent, "merged")
			options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", parent)
			if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
				skip.Test(t, "no overlays here: "+err.Error())
			}
			t.Cleanup(func() { syscall.Unmount(merged, syscall.MNT_DETACH) })
			dir := filepath.Join(merged, "sessions")
			s := open(t, dir, quick())
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
				t.Fatal(err)
			}
			if err := op(s); err != nil {
				t.Errorf("%s = %v", name, err)
			}
			set(t, open(t, dir, quick()), "other")
			get(t, s, "other")
		})
	}
}

// The descriptors of deleted directories are closed, and a store with ReadOnly does not make the directory.
func TestDirectoryDeletedOften(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	var log bytes.Buffer
	o := quick()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, dir, o)
	set(t, s, "id")
	o = quick()
	o.ReadOnly = true
	reader := open(t, dir, o)
	before := storetest.OpenFiles()
	for range 50 {
		os.RemoveAll(dir)
		_, err := reader.Get(ctx, "id")
		wantErr(t, "Get with ReadOnly", err, filestore.ErrNotFound)
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("Get with ReadOnly made the directory")
		}
		set(t, s, "id")
		get(t, reader, "id")
	}
	for n := 0; storetest.OpenFiles() > before+2; n++ {
		if n == 100 {
			t.Fatalf("%d open files, %d before", storetest.OpenFiles(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "was deleted"); n != 50 {
		t.Errorf("told %d times of 50", n)
	}
}

// Anything unsafe at the path of a deleted directory is not opened.
func TestDirectoryDeletedForAnother(t *testing.T) {
	for name, plant := range map[string]func(y *yard) error{
		"a link":       func(y *yard) error { return os.Symlink("elsewhere", y.dir) },
		"a file":       func(y *yard) error { return os.WriteFile(y.dir, nil, 0o600) },
		"a FIFO":       func(y *yard) error { return syscall.Mkfifo(y.dir, 0o600) },
		"a stranger's": func(y *yard) error { return errors.Join(os.Mkdir(y.dir, 0o777), os.Chown(y.dir, 1234, 1234)) },
		"one with a bad .locks": func(y *yard) error {
			return errors.Join(os.Mkdir(y.dir, 0o700), os.Symlink("../elsewhere", filepath.Join(y.dir, ".locks")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && name == "a stranger's" {
				skip.Test(t, "to give files away needs root")
			}
			y := newYard(t, nil)
			os.Mkdir(filepath.Join(y.parent, "elsewhere"), 0o700)
			write(t, filepath.Join(y.parent, "elsewhere"), "id.json", doc(nowMs(), ""))
			if err := errors.Join(os.RemoveAll(y.dir), plant(y)); err != nil {
				t.Fatal(err)
			}
			y.mark()
			wantErr(t, "Set", y.s.Set(ctx, "id", session(t)), filestore.ErrUnsafeFile)
			_, err := y.s.Get(ctx, "id")
			wantErr(t, "Get", err, filestore.ErrNotFound)
			_, err = y.s.Reap(ctx)
			wantErr(t, "Reap", err, filestore.ErrUnsafeFile)
			after := y.manifest()
			for name := range merge(y.before, after) {
				if y.before[name] != after[name] {
					t.Errorf("%q was %q, is %q", name, y.before[name], after[name])
				}
			}
			if err := errors.Join(os.RemoveAll(y.dir), os.Mkdir(y.dir, 0o700)); err != nil {
				t.Fatal(err)
			}
			set(t, y.s, healthy, "user", "anna")
		})
	}
}

// The directory is deleted and made again, by rm -rf or by mv and rm, while two stores and another process
// work. Each operation succeeds in the old directory or in the new one. A lock in the old one does not count
// in the new one, where nobody works without its own lock.
func TestDirectoryDeletedUnderLoad(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	stores := []*filestore.Store{open(t, dir, patient()), open(t, dir, patient())}
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	other := storetest.Start(t, "through deletions", dir)
	other.Line(t) // it has opened its store
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := 0; c.Err() == nil; n++ {
				if err := anyOp(stores[g%2], fmt.Sprint("id", n%4), n+g); err != nil {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	for n := range 60 {
		time.Sleep(mrand.N(20 * time.Millisecond))
		if n%2 == 0 {
			for os.RemoveAll(dir) != nil { // the stores make files there meanwhile
			}
			continue
		}
		old := filepath.Join(parent, fmt.Sprint("old", n))
		os.Rename(dir, old)
		os.Mkdir(dir, 0o700)
		for os.RemoveAll(old) != nil {
		}
	}
	cancel()
	wg.Wait()
	other.Stdin.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	// From here on all stores are in one directory and use the same lock.
	set(t, stores[0], "id", "n", 0)
	for _, s := range stores {
		for range 4 {
			wg.Go(func() {
				for range 100 {
					if err := increment(s, "id"); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := value(t, get(t, stores[1], "id"), "n"); got != "800" {
		t.Errorf("n = %s, want 800", got)
	}
}

// An error of Update's function is its error, even if the directory is deleted meanwhile, or if it looks as if that
// were so. The function does not run again.
func TestUpdateFailsInADeletedDirectory(t *testing.T) {
	for name, mine := range map[string]error{"own": errors.New("mine"), "looks like it": fmt.Errorf("mine: %w", disk.ErrGone)} {
		for _, deletes := range []bool{true, false} {
			dir := filepath.Join(t.TempDir(), "sessions")
			s := open(t, dir, patient())
			set(t, s, "id", "n", 1)
			runs := 0
			err := s.Update(ctx, "id", func(*filestore.Session) error {
				runs++
				if deletes {
					if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
						t.Error(err)
					}
					write(t, dir, "id.json", doc(nowMs(), ""))
				}
				return mine
			})
			if err != mine || runs != 1 {
				t.Errorf("%s, %v: Update = %v after %d runs", name, deletes, err, runs)
			}
		}
	}
}

// A holder of a lock in a deleted directory excludes nobody in the new one. An Update that was under way in the
// old one finds what there is in the new one.
func TestLockOfADeletedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	a, b := open(t, dir, patient()), open(t, dir, patient())
	for _, id := range []string{"id", "gone"} {
		set(t, a, id, "n", 1)
	}
	storetest.Hold(t, dir, "id")
	started, free := make(chan bool, 10), make(chan bool)
	var wg sync.WaitGroup
	defer wg.Wait()
	for id, want := range map[string]error{"id": nil, "gone": filestore.ErrNotFound} {
		wg.Go(func() {
			err := a.Update(ctx, id, func(sess *filestore.Session) error {
				started <- true
				<-free
				return sess.Put("late", true)
			})
			if !errors.Is(err, want) {
				t.Errorf("Update of %s in a deleted directory = %v, want %v", id, err, want)
			}
		})
		<-started
	}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	set(t, b, "id", "n", 2)
	if err := increment(b, "id"); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("waited %v for a lock of the deleted directory", d)
	}
	close(free)
	wg.Wait()
	if sess := get(t, a, "id"); value(t, sess, "n") != "3" || value(t, sess, "late") != "true" {
		t.Errorf("the new directory's session is %v", sess.Values)
	}
}

// anyOp does one of the operations. Beside deletions it succeeds or finds nothing. It may also fail because
// rm takes its temporary file or its lock file while the directory is still there.
func anyOp(s *filestore.Store, id string, n int) error {
	var err error
	switch n % 9 {
	case 0, 1:
		err = s.Set(ctx, id, new(filestore.Session))
	case 2:
		err = increment(s, id)
	case 3:
		err = s.Touch(ctx, id, nil)
	case 4:
		err = s.Destroy(ctx, id)
	case 5:
		_, err = s.Len(ctx)
	case 6:
		_, err = s.Reap(ctx)
	case 7:
		err = s.Create(ctx, id, new(filestore.Session))
	case 8:
		_, err = s.Get(ctx, id)
	}
	for _, allowed := range []error{filestore.ErrNotFound, fs.ErrExist, syscall.ENOENT, filestore.ErrUnsafeFile} {
		if errors.Is(err, allowed) {
			return nil
		}
	}
	return err
}

func init() {
	workers["through deletions"] = func(args []string) {
		s, err := filestore.Open(args[0], patient())
		must(err)
		fmt.Println("open")
		done := make(chan bool)
		go func() { io.Copy(io.Discard, os.Stdin); close(done) }()
		for n := 0; ; n++ {
			select {
			case <-done:
				must(s.Close())
				return
			default:
				must(anyOp(s, fmt.Sprint("id", n%4), n))
			}
		}
	}
}

// A background reaper finds the new directory by itself.
func TestReaperAfterDeletion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	open(t, dir, &filestore.Options{NoSync: true, ReapInterval: 50 * time.Millisecond})
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "old.json", doc(1, ""))
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "old.json")); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an expired session in the new directory is not reaped")
		}
	}
}

// B14: the reaper says once that the directory was moved away. The sessions stay in it.
func TestDirectoryMovedIsTold(t *testing.T) {
	parent := t.TempDir()
	dir, moved := filepath.Join(parent, "sessions"), filepath.Join(parent, "moved")
	var log bytes.Buffer
	o := quick()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, dir, o)
	set(t, s, "id")
	if _, err := s.Reap(ctx); err != nil || log.Len() > 0 {
		t.Errorf("Reap = %v, and told %q", err, log.String())
	}
	if err := errors.Join(os.Rename(dir, moved), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		set(t, s, "new")
		if _, err := s.Reap(ctx); err != nil {
			t.Error(err)
		}
	}
	readFile(t, moved, "new.json")
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("%d entries in the new directory", len(entries))
	}
	if got := log.String(); strings.Count(got, "was moved") != 1 || strings.Count(got, "\n") != 1 {
		t.Errorf("told %q", got)
	}
}
