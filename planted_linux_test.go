package filestore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// B: an object that somebody plants in the directory is not followed or read, nothing waits for it, and
// nothing outside changes.
func TestPlantedObjects(t *testing.T) {
	type row struct {
		name  string
		plant func(y *yard, path string) error
		get   error // of Get, Touch and Update
		set   bool  // Set replaces it
		gone  bool  // Destroy removes it
	}
	for _, r := range []row{
		{"B1 absolute symlink outside", func(y *yard, p string) error { return os.Symlink(filepath.Join(y.parent, "outside.json"), p) }, filestore.ErrUnsafeFile, true, true},
		{"B1 relative symlink outside", func(y *yard, p string) error { return os.Symlink("../outside.json", p) }, filestore.ErrUnsafeFile, true, true},
		{"B2 symlink to another session", func(y *yard, p string) error { return os.Symlink(healthy+".json", p) }, filestore.ErrUnsafeFile, true, true},
		{"B3 dangling symlink", func(y *yard, p string) error { return os.Symlink("../created.json", p) }, filestore.ErrUnsafeFile, true, true},
		{"B3 symlink loop", func(y *yard, p string) error { return os.Symlink(filepath.Base(p), p) }, filestore.ErrUnsafeFile, true, true},
		{"B4 hard link of a file outside", func(y *yard, p string) error { return os.Link(filepath.Join(y.parent, "outside.json"), p) }, filestore.ErrUnsafeFile, true, true},
		{"B4 hard link of another session", func(y *yard, p string) error {
			write(y.t, y.dir, "other.json", doc(nowMs(), `,"user":"other"`))
			return os.Link(filepath.Join(y.dir, "other.json"), p)
		}, filestore.ErrUnsafeFile, true, true},
		{"B5 FIFO", func(y *yard, p string) error { return syscall.Mkfifo(p, 0o666) }, filestore.ErrUnsafeFile, true, true},
		{"B7 socket", func(y *yard, p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				y.t.Cleanup(func() { l.Close() })
			}
			return err
		}, filestore.ErrUnsafeFile, true, true},
		{"B7 /dev/zero", func(y *yard, p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o666, 1<<8|5) }, filestore.ErrUnsafeFile, true, true},
		{"B8 empty directory", func(y *yard, p string) error { return os.Mkdir(p, 0o700) }, filestore.ErrUnsafeFile, false, false},
		{"B8 directory with contents", func(y *yard, p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o700) }, filestore.ErrUnsafeFile, false, false},
		{"B13 sparse file of 1 TiB", func(y *yard, p string) error {
			write(y.t, y.dir, filepath.Base(p), "{")
			return os.Truncate(p, 1<<40)
		}, filestore.ErrTooLarge, true, true},
		{"C1 corrupt file", func(y *yard, p string) error { return os.WriteFile(p, []byte("{"), 0o644) }, filestore.ErrCorrupt, true, true},
	} {
		t.Run(r.name, func(t *testing.T) {
			if strings.Contains(r.name, "/dev/zero") && os.Geteuid() != 0 {
				skip.Test(t, "making a device needs root")
			}
			y := newYard(t, nil)
			path := filepath.Join(y.dir, "id.json")
			plant := func() {
				t.Helper()
				os.RemoveAll(path)
				if err := r.plant(y, path); err != nil {
					t.Fatal(err)
				}
				y.mark()
			}
			plant()
			start := time.Now()
			_, err := y.s.Get(ctx, "id")
			wantErr(t, "Get", err, r.get)
			wantErr(t, "Touch", y.s.Touch(ctx, "id", new(filestore.Cookie)), r.get)
			wantErr(t, "Update", y.s.Update(ctx, "id", func(*filestore.Session) error { return nil }), r.get)
			if _, err := y.s.Reap(ctx); err != nil {
				t.Errorf("Reap = %v", err)
			}
			if n, err := y.s.Len(ctx); n < 1 || n > 2 || err != nil {
				t.Errorf("Len = %d, %v", n, err)
			}
			// None of these waits. A FIFO or a terabyte would show.
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
			y.check()

			err = y.s.Set(ctx, "id", session(t, "user", "new"))
			if r.set != (err == nil) || !r.set && !errors.Is(err, filestore.ErrUnsafeFile) {
				t.Errorf("Set = %v", err)
			}
			if r.set {
				if got := value(t, get(t, y.s, "id"), "user"); got != "new" {
					t.Errorf("user = %s", got)
				}
				y.check("id.json", "outside.json", "other.json") // the number of links changes
			} else {
				y.check()
			}
			if got := readFile(t, y.parent, "outside.json"); !strings.Contains(got, `"outside"`) {
				t.Errorf("the file outside is now %s", got)
			}

			plant()
			err = y.s.Destroy(ctx, "id")
			if (err == nil) != r.gone {
				t.Errorf("Destroy = %v", err)
			}
			if r.gone {
				if _, err := os.Lstat(path); err == nil {
					t.Error("Destroy left it")
				}
				y.check("id.json", "outside.json", "other.json")
			} else {
				wantErr(t, "Destroy", err, filestore.ErrUnsafeFile)
				y.check()
			}
			if got := readFile(t, y.parent, "outside.json"); !strings.Contains(got, `"outside"`) {
				t.Errorf("the file outside is now %s", got)
			}
			plant()
			if err := y.s.Clear(ctx); err != nil {
				t.Errorf("Clear = %v", err)
			}
			set(t, y.s, healthy, "user", "anna")
			y.check(healthy+".json", "other.json")
		})
	}
}

// A constant is a source of random numbers that are all the same.
type constant byte

func (c constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c)
	}
	return len(b), nil
}

// B11: if somebody has guessed the name of a temporary file, the object there is neither written to nor
// removed.
func TestPlantedTemporaryFile(t *testing.T) {
	y := newYard(t, nil)
	set(t, y.s, "id", "n", 1)
	tmp := "." + strings.Repeat("A", 26) + "~"
	for what, plant := range map[string]func(name string) error{
		"symlink": func(name string) error { return os.Symlink("../outside.json", filepath.Join(y.dir, name)) },
		"file":    func(name string) error { return os.WriteFile(filepath.Join(y.dir, name), []byte("mine"), 0o600) },
	} {
		if err := plant(tmp); err != nil {
			t.Fatal(err)
		}
		y.mark()
		random := rand.Reader
		rand.Reader = constant(0)
		err := y.s.Set(ctx, "id", session(t, "n", 2))
		rand.Reader = random
		wantErr(t, "Set over a planted "+what, err, fs.ErrExist)
		y.check()
		if err := os.Remove(filepath.Join(y.dir, tmp)); err != nil {
			t.Error(err)
		}
	}
	// If only the first name is taken, another is tried.
	write(t, y.dir, tmp, "mine")
	y.mark()
	random := rand.Reader
	rand.Reader = &once{then: random}
	err := y.s.Set(ctx, "id", session(t, "n", 3))
	rand.Reader = random
	if err != nil {
		t.Errorf("Set beside a planted file of its first temporary name: %v", err)
	}
	y.check("id.json")
	os.Remove(filepath.Join(y.dir, tmp))
}

// once reads like a constant the first time, then like then.
type once struct {
	read bool
	then io.Reader
}

func (o *once) Read(b []byte) (int, error) {
	if o.read {
		return o.then.Read(b)
	}
	o.read = true
	return constant(0).Read(b)
}

// P7: if .locks has become a link to that of another store, each operation that locks is refused.
func TestLocksReplacedByLink(t *testing.T) {
	y := newYard(t, nil)
	open(t, filepath.Join(y.parent, "neighbour"), nil)
	set(t, y.s, "id", "n", 1)
	locks := filepath.Join(y.dir, ".locks")
	if err := errors.Join(os.Rename(locks, locks+"-gone"), os.Symlink("../neighbour/.locks", locks)); err != nil {
		t.Fatal(err)
	}
	y.mark()
	for range 3 {
		if err := y.s.Set(ctx, "id", session(t, "n", 2)); err == nil {
			t.Error("Set took a lock outside")
		}
	}
	y.check()
	if err := errors.Join(os.Remove(locks), os.Rename(locks+"-gone", locks)); err != nil {
		t.Fatal(err)
	}
	set(t, y.s, "id", "n", 3)
}

// B6: objects in place of a lock file.
func TestPlantedLockFiles(t *testing.T) {
	for name, plant := range map[string]func(y *yard, path string) error{
		"FIFO":                 func(y *yard, p string) error { return syscall.Mkfifo(p, 0o666) },
		"directory":            func(y *yard, p string) error { return os.Mkdir(p, 0o700) },
		"device":               func(y *yard, p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o666, 1<<8|5) },
		"dangling symlink":     func(y *yard, p string) error { return os.Symlink(filepath.Join(y.parent, "made"), p) },
		"symlink to a file":    func(y *yard, p string) error { return os.Symlink(filepath.Join(y.parent, "passwd"), p) },
		"symlink to a sibling": func(y *yard, p string) error { return os.Symlink("00", p) },
		"socket": func(y *yard, p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				y.t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "device" && os.Geteuid() != 0 {
				skip.Test(t, "making a device needs root")
			}
			y := newYard(t, nil)
			for i := 1; i < 64; i++ {
				path := filepath.Join(y.dir, ".locks", fmt.Sprintf("%02x", i))
				os.Remove(path)
				if err := plant(y, path); err != nil {
					t.Fatal(err)
				}
			}
			set := 0
			y.mark()
			for i := range 200 {
				id := fmt.Sprintf("id%d", i)
				start := time.Now()
				err := y.s.Set(ctx, id, new(filestore.Session))
				if d := time.Since(start); d > 20*time.Second {
					t.Fatalf("Set took %v", d)
				}
				if err == nil { // its lock file is the one that is left
					set++
					os.Remove(filepath.Join(y.dir, id+".json"))
				} else {
					wantErr(t, "Set", err, filestore.ErrUnsafeFile)
				}
			}
			if set == 200 || set == 0 {
				t.Errorf("%d of 200 Sets succeeded, want those of one lock file", set)
			}
			y.check()
			s, err := filestore.Open(y.dir, quick())
			if err == nil {
				s.Close()
			}
			wantErr(t, "Open", err, filestore.ErrUnsafeFile)
			y.check()
			for i := 1; i < 64; i++ { // for the check at the end
				path := filepath.Join(y.dir, ".locks", fmt.Sprintf("%02x", i))
				os.Remove(path)
			}
			again := open(t, y.dir, quick())
			if err := again.Set(ctx, "id", new(filestore.Session)); err != nil {
				t.Error(err)
			}
		})
	}
	for _, target := range []string{"../elsewhere", "inside"} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		os.Mkdir(dir, 0o700)
		os.Mkdir(filepath.Join(dir, target), 0o700)
		os.Symlink(target, filepath.Join(dir, ".locks"))
		s, err := filestore.Open(dir, nil)
		if err == nil {
			s.Close()
		}
		wantErr(t, "Open with .locks a symlink to "+target, err, filestore.ErrUnsafeFile)
		if entries, _ := os.ReadDir(filepath.Join(dir, target)); len(entries) != 0 {
			t.Errorf("Open made %d files in %s", len(entries), target)
		}
	}
}

// B9, H8: files and directories of another user.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "becoming another user needs root")
	}
	base, err := os.MkdirTemp("", "filestore")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	os.Chmod(base, 0o755)
	dir := filepath.Join(base, "sessions")
	s := open(t, dir, quick())
	set(t, s, "roots", "n", 1)
	run := func(want string, mode ...string) {
		t.Helper()
		out, err := storetest.Command("other user", append([]string{dir}, mode...)...).Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("as another user: %s (%v), want %s", got, err, want)
		}
	}
	run("open: denied") // H8: no fallback anywhere
	os.Chown(dir, 65534, 65534)
	os.Chmod(filepath.Join(dir, "roots.json"), 0o644)
	if err := os.WriteFile(filepath.Join(dir, "third.json"), []byte(doc(nowMs(), "")), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chown(filepath.Join(dir, "third.json"), 1234, 1234)
	// A file that may not even be opened is unsafe, too, and not a failure of the store: its visitor gets a
	// new session.
	for id, uid := range map[string]int{"closed": 1234, "shut": 65534, "kept": 0} {
		path := filepath.Join(dir, id+".json")
		if err := os.WriteFile(path, []byte(doc(nowMs(), "")), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chown(path, uid, uid)
	}
	os.Chmod(filepath.Join(dir, "shut.json"), 0)
	// A root process gives its new files to the owner of the directory, lock files included.
	os.RemoveAll(filepath.Join(dir, ".locks"))
	set(t, open(t, dir, quick()), "given", "n", 1)
	run("roots: ok third: unsafe given: ok closed: unsafe shut: unsafe kept: unsafe set: ok")
	get(t, s, "third") // root reads anybody's

	// A user who may read everything but owns nothing can use ReadOnly. The files of the directory's owner
	// and of root count.
	os.Chown(dir, 4321, 4321)
	os.Chmod(dir, 0o755)
	os.Chown(filepath.Join(dir, "given.json"), 4321, 4321)
	os.Chmod(filepath.Join(dir, "given.json"), 0o644)
	run("roots: ok third: unsafe given: ok closed: unsafe shut: unsafe kept: unsafe set: denied", "read only")
	run("open: denied") // its lock files are there, and may be locked
}

func init() {
	workers["other user"] = func(args []string) {
		must(syscall.Setgid(65534))
		must(syscall.Setuid(65534))
		o := quick()
		o.ReadOnly = len(args) > 1
		s, err := filestore.Open(args[0], o)
		if errors.Is(err, os.ErrPermission) {
			fmt.Println("open: denied")
			return
		}
		must(err)
		say := func(err error) string {
			switch {
			case err == nil:
				return "ok"
			case errors.Is(err, filestore.ErrUnsafeFile):
				return "unsafe"
			case errors.Is(err, os.ErrPermission):
				return "denied"
			}
			return err.Error()
		}
		for _, id := range []string{"roots", "third", "given", "closed", "shut", "kept"} {
			_, err := s.Get(ctx, id)
			fmt.Printf("%s: %s ", id, say(err))
		}
		fmt.Println("set:", say(s.Set(ctx, "mine", new(filestore.Session))))
		must(s.Close())
	}
}

// B12: an immutable file stays, and no temporary file is left.
func TestImmutableFile(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		skip.Test(t, "chattr needs root on Linux")
	}
	y := newYard(t, nil)
	set(t, y.s, "id", "n", 1)
	path := filepath.Join(y.dir, "id.json")
	if err := chattr(path, true); err != nil {
		skip.Test(t, "no immutable files here: "+err.Error())
	}
	defer chattr(path, false)
	y.mark()
	wantErr(t, "Set", y.s.Set(ctx, "id", session(t, "n", 2)), syscall.EPERM)
	wantErr(t, "Destroy", y.s.Destroy(ctx, "id"), syscall.EPERM)
	y.check()
	if got := value(t, get(t, y.s, "id"), "n"); got != "1" {
		t.Errorf("n = %s", got)
	}
	chattr(path, false)
	set(t, y.s, "id", "n", 3)
}

// B16: while the name is a file, a link outside and a directory in turn, Get returns one whole version or an
// error.
func TestRacingReplacement(t *testing.T) {
	y := newYard(t, nil)
	path := filepath.Join(y.dir, "id.json")
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for i := 0; c.Err() == nil; i++ {
			tmp := filepath.Join(y.parent, "tmp")
			switch i % 4 {
			case 0:
				os.WriteFile(tmp, []byte(doc(nowMs(), `,"user":"eve"`)), 0o600)
			case 1:
				os.WriteFile(tmp, []byte(doc(nowMs(), fmt.Sprintf(`,"user":"eve","pad":%q`, strings.Repeat("x", 9000)))), 0o600)
			case 2:
				os.Symlink(filepath.Join(y.parent, "outside.json"), tmp)
			case 3:
				os.Symlink(healthy+".json", tmp)
			}
			os.Rename(tmp, path)
		}
	})
	unsafe := 0
	for n := 0; n < 100_000 || unsafe == 0 && n < 1_000_000; n++ {
		sess, err := y.s.Get(ctx, "id")
		switch {
		case err == nil && value(t, sess, "user") != "eve":
			t.Fatalf("read the session of %s", value(t, sess, "user"))
		case errors.Is(err, filestore.ErrUnsafeFile):
			unsafe++
		case err != nil && !errors.Is(err, filestore.ErrNotFound):
			t.Fatalf("Get = %v", err)
		}
	}
	cancel()
	wg.Wait()
	if unsafe == 0 {
		t.Error("never met the link: the test tests nothing")
	}
}

// P7: somebody who may write to the directory puts hard links of a file outside in the place of files that
// get a new mtime. The file outside keeps its own.
func TestRacingHardLink(t *testing.T) {
	y := newYard(t, nil)
	outside := filepath.Join(y.parent, "outside.json")
	old := time.Now().Add(-time.Minute).Truncate(time.Second)
	os.Chtimes(outside, old, old)
	const id = "node.json"
	node := doc(nowMs(), "")
	deadline := time.Now().Add(storetest.Long(time.Second, 20*time.Second))
	var wg sync.WaitGroup
	link := filepath.Join(y.parent, "link")
	put := func(name string) {
		os.Link(outside, link)
		os.Rename(link, filepath.Join(y.dir, name))
		os.Remove(link) // if it was the same file
	}
	wg.Go(func() { // in the place of a file whose mtime the reaper sets
		for time.Now().Before(deadline) {
			tmp := filepath.Join(y.parent, "tmp")
			os.WriteFile(tmp, []byte(node), 0o600)
			os.Rename(tmp, filepath.Join(y.dir, id))
			for at := time.Now().Add(mrand.N(300 * time.Microsecond)); time.Now().Before(at); {
			}
			put(id)
		}
	})
	wg.Go(func() {
		for time.Now().Before(deadline) {
			y.s.Reap(ctx)
		}
	})
	wg.Wait()
	os.Remove(filepath.Join(y.dir, id))
	deadline = time.Now().Add(storetest.Long(time.Second, 20*time.Second))
	wg.Go(func() { // in the place of a temporary file
		for time.Now().Before(deadline) {
			dir, err := os.Open(y.dir)
			if err != nil {
				t.Error(err)
				return
			}
			names, _ := dir.Readdirnames(-1)
			dir.Close()
			for _, name := range names {
				if strings.HasSuffix(name, "~") {
					put(name)
				}
			}
		}
	})
	wg.Go(func() {
		for time.Now().Before(deadline) {
			y.s.Set(ctx, "id", session(t, "pad", strings.Repeat("x", 100_000)))
		}
	})
	wg.Wait()
	if fi, err := os.Stat(outside); err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("the time of the file outside was %v, is %v, %v", old, fi.ModTime(), err)
	}
	for _, pattern := range []string{"id.json", "*~", ".*~"} {
		removeAll(filepath.Join(y.dir, pattern))
	}
}

// B16: a file that is written in place is read whole, or is ErrCorrupt.
func TestWrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	a := doc(nowMs(), `,"v":"`+strings.Repeat("a", 5000)+`"`)
	b := doc(nowMs(), `,"v":"`+strings.Repeat("b", 70_000)+`"`)
	write(t, dir, "id.json", a)
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; c.Err() == nil; i++ {
			f, err := os.OpenFile(filepath.Join(dir, "id.json"), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			f.WriteString([]string{a, b}[i%2])
			f.Close()
		}
	})
	for range 500 {
		sess, err := s.Get(ctx, "id")
		if err == nil {
			if v := value(t, sess, "v"); strings.Trim(v, v[:1]) != "" {
				t.Fatal("a mixture")
			}
		} else if !errors.Is(err, filestore.ErrCorrupt) {
			t.Fatalf("Get = %v", err)
		}
	}
	cancel()
	wg.Wait()
}
