package filestore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"net"
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
	"github.com/sessionfilestore/filestore/internal/interop"
)

// B: whatever somebody plants in the directory, it is not followed, not read,
// not blocked on, and nothing outside changes.
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
				interop.Skip(t, "making a device needs root")
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
			// These never wait for anything; a FIFO or a terabyte would show.
			if d := time.Since(start); d > 2*time.Second {
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
				y.check("id.json", "outside.json", "other.json") // the link counts of the linked change
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

// A constant is no source of random numbers.
type constant byte

func (c constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c)
	}
	return len(b), nil
}

// B11: where somebody has guessed the name of a temporary file, what is there is neither written to nor
// removed.
func TestPlantedTemporaryFile(t *testing.T) {
	y := newYard(t, nil)
	set(t, y.s, "id", "n", 1)
	var tmp []string
	for i := range 64 {
		tmp = append(tmp, fmt.Sprintf(".%02x-%s~", i, strings.Repeat("A", 26)))
	}
	for what, plant := range map[string]func(name string) error{
		"symlink": func(name string) error { return os.Symlink("../outside.json", filepath.Join(y.dir, name)) },
		"file":    func(name string) error { return os.WriteFile(filepath.Join(y.dir, name), []byte("mine"), 0o600) },
	} {
		for _, name := range tmp {
			if err := plant(name); err != nil {
				t.Fatal(err)
			}
		}
		y.mark()
		random := rand.Reader
		rand.Reader = constant(0)
		err := y.s.Set(ctx, "id", session(t, "n", 2))
		rand.Reader = random
		wantErr(t, "Set over a planted "+what, err, fs.ErrExist)
		y.check()
		for _, name := range tmp {
			if err := os.Remove(filepath.Join(y.dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	// A name that is taken once is no matter.
	if err := plantOne(y.dir, tmp); err != nil {
		t.Fatal(err)
	}
	y.mark()
	random := rand.Reader
	rand.Reader = &once{then: random}
	err := y.s.Set(ctx, "id", session(t, "n", 3))
	rand.Reader = random
	if err != nil {
		t.Errorf("Set beside a planted file of its first temporary name: %v", err)
	}
	y.check("id.json")
	for _, name := range tmp {
		os.Remove(filepath.Join(y.dir, name))
	}
}

func plantOne(dir string, names []string) (err error) {
	for _, name := range names {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	return err
}

// once is a constant, then random.
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

// P7: .locks that has become a link to another store's is refused each time.
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
				interop.Skip(t, "making a device needs root")
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
				if d := time.Since(start); d > 2*time.Second {
					t.Fatalf("Set took %v", d)
				}
				if err == nil { // the one sound stripe
					set++
					os.Remove(filepath.Join(y.dir, id+".json"))
				} else {
					wantErr(t, "Set", err, filestore.ErrUnsafeFile)
				}
			}
			if set == 200 || set == 0 {
				t.Errorf("%d of 200 Sets succeeded, want those of one stripe", set)
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

// B9 and H8: another user's files and directories.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		interop.Skip(t, "becoming another user needs root")
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
		out, err := worker(t, "other user", dir, mode...).Output()
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
	// What may not even be opened is unsafe, too, and no failure of the store: its visitor can be told so.
	for id, uid := range map[string]int{"closed": 1234, "shut": 65534, "kept": 0} {
		path := filepath.Join(dir, id+".json")
		if err := os.WriteFile(path, []byte(doc(nowMs(), "")), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chown(path, uid, uid)
	}
	os.Chmod(filepath.Join(dir, "shut.json"), 0)
	// A root process gives what it makes to the directory's owner, locks included.
	os.RemoveAll(filepath.Join(dir, ".locks"))
	set(t, open(t, dir, quick()), "given", "n", 1)
	run("roots: ok third: unsafe given: ok closed: unsafe shut: unsafe kept: unsafe set: ok")
	get(t, s, "third") // root takes anybody's

	// Who may read everything, but owns nothing, may look on: at the owner's files and at root's.
	os.Chown(dir, 4321, 4321)
	os.Chmod(dir, 0o755)
	os.Chown(filepath.Join(dir, "given.json"), 4321, 4321)
	os.Chmod(filepath.Join(dir, "given.json"), 0o644)
	run("roots: ok third: unsafe given: ok closed: unsafe shut: unsafe kept: unsafe set: denied", "read only")
	run("open: denied") // its lock files are there, and may be locked
}

func init() {
	workers["other user"] = func(dir string, args []string) {
		must(syscall.Setgid(65534))
		must(syscall.Setuid(65534))
		o := quick()
		o.ReadOnly = len(args) > 0
		s, err := filestore.Open(dir, o)
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

// A directory that can only be read is refused by Open, whether its lock files are there or not, unless
// ReadOnly says that nobody wants to write; then it serves reads.
func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		interop.Skip(t, "mounting needs root")
	}
	if runtime.GOOS != "linux" {
		return
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	os.Mkdir(dir, 0o700)
	write(t, dir, "id.json", doc(nowMs(), `,"n":1`))
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		interop.Skip(t, "no mounts here: "+err.Error())
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

// B12: an immutable file is kept, and no temporary file is left.
func TestImmutableFile(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		interop.Skip(t, "chattr needs root on Linux")
	}
	y := newYard(t, nil)
	set(t, y.s, "id", "n", 1)
	path := filepath.Join(y.dir, "id.json")
	if err := chattr(path, true); err != nil {
		interop.Skip(t, "no immutable files here: "+err.Error())
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

// B14: the store stays in the directory that it opened.
func TestDirectoryReplaced(t *testing.T) {
	parent := t.TempDir()
	real, link := filepath.Join(parent, "real"), filepath.Join(parent, "link")
	os.Mkdir(real, 0o700)
	os.Symlink("real", link)
	s := open(t, link, quick())
	set(t, s, "a", "n", 1)
	readFile(t, real, "a.json")

	// The link leads elsewhere now; then the directory itself moves.
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
	// Removed: clear errors, nothing elsewhere.
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

// B14: a directory that was deleted is reopened at its path by the next operation, whichever it is, and
// made if it is not there. What was in the cache is gone with it.
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
				t.Errorf("n = %s, of the deleted directory", value(t, sess, "n"))
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

// On an overlay, as in a container, a deleted directory of the image shows its links as before, and an
// empty list.
func TestDirectoryDeletedOnOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		interop.Skip(t, "mounting needs root")
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
				interop.Skip(t, "no overlays here: "+err.Error())
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

// The descriptors of deleted directories are not kept, and who may only look on makes nothing.
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
	before := openFiles()
	for range 50 {
		os.RemoveAll(dir)
		_, err := reader.Get(ctx, "id")
		wantErr(t, "Get of what only reads", err, filestore.ErrNotFound)
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("a Get of what only reads made the directory")
		}
		set(t, s, "id")
		get(t, reader, "id")
	}
	for n := 0; openFiles() > before+2; n++ {
		if n == 100 {
			t.Fatalf("%d open files, %d before", openFiles(), before)
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

// What has the path of a deleted directory and is not safe is not opened.
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
				interop.Skip(t, "to give files away needs root")
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

// What is under way while the directory is deleted and made again, by rm -rf or by mv and rm, in two
// stores and another process, succeeds in the old one or in the new one; and whoever has a lock in the old
// one excludes nobody in the new one, but nobody is at work there without its lock.
func TestDirectoryDeletedUnderLoad(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	stores := []*filestore.Store{open(t, dir, patient()), open(t, dir, patient())}
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := worker(t, "through deletions", dir)
	in, err := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(err, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has opened its store
		t.Fatal(err)
	}
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
			for os.RemoveAll(dir) != nil { // they put files there meanwhile
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
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	// From here on all are in one directory, with one lock.
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

// Who holds a lock of a deleted directory excludes nobody in the new one, and writes nothing there.
func TestLockOfADeletedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	a, b := open(t, dir, patient()), open(t, dir, patient())
	set(t, a, "id", "n", 1)
	release := hold(t, a, "id")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	set(t, b, "id", "n", 2)
	if err := increment(b, "id"); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("waited %v for a lock of the deleted directory", d)
	}
	wantErr(t, "Update of a session of the deleted directory", release(), filestore.ErrNotFound)
	if sess := get(t, a, "id"); value(t, sess, "n") != "3" || len(sess.Values) != 1 {
		t.Errorf("the new directory's session is %v", sess.Values)
	}
}

// anyOp does one of the operations. Beside deletions each succeeds or finds nothing, unless rm takes its
// temporary file or its lock file while the directory is still there.
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
	workers["through deletions"] = func(dir string, _ []string) {
		s, err := filestore.Open(dir, patient())
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

// B14: of a directory that was moved away the reaper tells, once, and all stays in it.
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

// B16: while the name is replaced by a file, a link outside and a directory,
// Get returns one whole version or says that it cannot.
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

// P7: while somebody who may write to the directory puts hard links of a file outside in the place of
// whatever gets a time, the file outside keeps its own.
func TestRacingHardLink(t *testing.T) {
	y := newYard(t, nil)
	outside := filepath.Join(y.parent, "outside.json")
	old := time.Now().Add(-time.Minute).Truncate(time.Second)
	os.Chtimes(outside, old, old)
	const id = "node.json"
	node := doc(nowMs(), "")
	deadline := time.Now().Add(time.Duration(long(1000, 20_000)) * time.Millisecond)
	var wg sync.WaitGroup
	link := filepath.Join(y.parent, "link")
	put := func(name string) {
		os.Link(outside, link)
		os.Rename(link, filepath.Join(y.dir, name))
		os.Remove(link) // where it was the same file
	}
	wg.Go(func() { // in the place of what the reaper marks
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
	deadline = time.Now().Add(time.Duration(long(1000, 20_000)) * time.Millisecond)
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

// B16: a file that is written in place is read whole, or found corrupt.
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
