package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/skip"
)

func open(t *testing.T, path string, o disk.Options) *disk.Dir {
	t.Helper()
	d, err := disk.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return d
}

func create(t *testing.T, d *disk.Dir, name, text string) {
	t.Helper()
	if err := d.Create(name, []byte(text), 0o600, time.Now().Add(time.Hour)); err != nil {
		t.Fatalf("Create(%q) = %v", name, err)
	}
}

func read(t *testing.T, d *disk.Dir, name string) string {
	t.Helper()
	data, info, err := d.Read(name, 1<<20)
	if err != nil {
		t.Fatalf("Read(%q) = %v", name, err)
	}
	if at, err := d.Stat(name); err != nil || at != (disk.Info{Version: info.Version, Mode: info.Mode, Links: at.Links, UID: at.UID, GID: at.GID}) {
		t.Errorf("Read(%q) found %+v, Stat %+v, %v", name, info, at, err)
	}
	return string(data)
}

// A new file has the given contents, mode and time. A name that is taken is not used again, and a file is
// replaced as a whole.
func TestReplace(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "a", "b")
		d := open(t, dir, disk.Options{NoSync: noSync})
		end := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		if err := d.Create("one", []byte("1"), 0o640, end); err != nil {
			t.Fatal(err)
		}
		if err := d.Create("one", []byte("2"), 0o600, end); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create of a name that is taken = %v", err)
		}
		if i, err := d.Stat("one"); err != nil || !i.ModTime().Equal(end) || disk.Modes && i.Mode != 0o640 {
			t.Errorf("Stat = %+v, %v", i, err)
		}
		create(t, d, "two", "2")
		if err := d.Rename("two", "one"); err != nil {
			t.Fatal(err)
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, d, "one"); got != "2" {
			t.Errorf("one holds %q", got)
		}
		if _, err := d.Stat("two"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("two is still there: %v", err)
		}
		if err := d.Remove("one"); err != nil {
			t.Errorf("Remove = %v", err)
		}
		if err := d.Remove("one"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Remove of nothing = %v", err)
		}
		if _, _, err := d.Read("one", 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read of nothing = %v", err)
		}
	}
}

// A directory with the name of a file is neither replaced nor removed, and its contents stay.
func TestDirectoryInTheWay(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		dir := t.TempDir()
		d := open(t, dir, disk.Options{NoSync: noSync})
		for _, name := range []string{"empty", "full"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "full", "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		create(t, d, "new", "")
		for _, name := range []string{"empty", "full"} {
			if err := d.Rename("new", name); !errors.Is(err, disk.ErrUnsafe) {
				t.Errorf("Rename over a directory = %v", err)
			}
			if err := d.Remove(name); !errors.Is(err, disk.ErrUnsafe) {
				t.Errorf("Remove of a directory = %v", err)
			}
			if _, _, err := d.Read(name, 1); !errors.Is(err, disk.ErrUnsafe) {
				t.Errorf("Read of a directory = %v", err)
			}
		}
		names, err := list(d)
		if want := []string{"empty", "full", "new"}; err != nil || !slices.Equal(names, want) {
			t.Errorf("names %q, %v, want %q", names, err, want)
		}
	}
}

func list(d *disk.Dir) (names []string, err error) {
	for name, err := range d.Names() {
		if err != nil {
			return names, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// A reader beside writers gets one whole version.
func TestReadBesideReplacement(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		d := open(t, t.TempDir(), disk.Options{NoSync: noSync})
		version := func(n int) string { return strings.Repeat(string(rune('a'+n%26)), 1+n%26*1000) }
		create(t, d, "id", version(0))
		stop := make(chan bool)
		var writer sync.WaitGroup
		writer.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
					create(t, d, "tmp", version(n))
					if err := d.Rename("tmp", "id"); err != nil {
						t.Errorf("Rename = %v", err)
						return
					}
				}
			}
		})
		for range 2000 {
			data, _, err := d.Read("id", 1<<20)
			if err != nil || string(data) != version(int(data[0]-'a')) {
				t.Errorf("Read = %d bytes, %v", len(data), err)
				break
			}
		}
		close(stop)
		writer.Wait()
	}
}

// A file is settled only if it was read long enough after its change.
func TestSettled(t *testing.T) {
	d := open(t, t.TempDir(), disk.Options{NoSync: true}) // a flush may take longer than it is new
	began := time.Now()
	create(t, d, "id", "1")
	if _, i, err := d.Read("id", 1); err != nil || i.Settled && time.Since(began) < 10*time.Millisecond { // the file system's clock may be 10 ms behind
		t.Errorf("a new file is settled: %+v, %v", i, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, i, err := d.Read("id", 1)
		if err != nil {
			t.Fatal(err)
		}
		if i.Settled {
			if age := time.Since(i.ChangeTime()); age < 20*time.Millisecond {
				t.Errorf("settled after %v", age)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not settled after 5 s: %+v", i)
		}
	}
}

// The limit counts bytes. SetTime fails if the file has changed since it was looked at.
func TestLimitAndTime(t *testing.T) {
	d := open(t, t.TempDir(), disk.Options{})
	create(t, d, "id", "12345")
	if _, _, err := d.Read("id", 4); !errors.Is(err, disk.ErrTooLarge) {
		t.Errorf("Read with a limit of 4 = %v", err)
	}
	_, i, err := d.Read("id", 5)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	if err := d.SetTime("id", i.Version, end); err != nil {
		t.Fatal(err)
	}
	if now, err := d.Stat("id"); err != nil || !now.ModTime().Equal(end) {
		t.Errorf("after SetTime: %+v, %v", now, err)
	}
	if err := d.SetTime("id", i.Version, end.Add(time.Hour)); err == nil {
		t.Error("SetTime of a file that has changed succeeded")
	}
	if now, _ := d.Stat("id"); !now.ModTime().Equal(end) {
		t.Errorf("its time is %v", now.ModTime())
	}
}

// ReadOnly makes nothing.
func TestReadOnly(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := disk.Open(missing, disk.Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v", err)
	}
	if _, err := os.Lstat(missing); err == nil {
		t.Error("it was made")
	}
}

// MakeDir and MakeFile make a missing directory or file, and leave one that is there as it is.
func TestMake(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, disk.Options{})
	for range 2 {
		if err := d.MakeDir("sub"); err != nil {
			t.Errorf("MakeDir = %v", err)
		}
		if err := d.MakeFile("sub/file"); err != nil {
			t.Errorf("MakeFile = %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "sub", "file"))
	if err != nil || !bytes.Equal(data, []byte("x")) {
		t.Errorf("MakeFile emptied it: %q, %v", data, err)
	}
	if fi, err := d.Lstat("sub/file"); err != nil || fi.Size() != 1 {
		t.Errorf("Lstat = %v, %v", fi, err)
	} else if same, err := d.Same("sub/file", fi); !same || err != nil {
		t.Errorf("Same = %v, %v", same, err)
	}
}

// Names yields all names, also of a directory that takes several reads, and stops after the loop ends.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, disk.Options{NoSync: true})
	var want []string
	for n := range 3000 {
		want = append(want, fmt.Sprintf("%04d", n))
		if err := os.WriteFile(filepath.Join(dir, want[n]), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := list(d)
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%d names, %v", len(names), err)
	}
	n := 0
	for range d.Names() {
		if n++; n == 3 {
			break
		}
	}
}

// The command lists .locks as a directory of its own, and nothing that merely has its name.
func TestSub(t *testing.T) {
	path := t.TempDir()
	d, err := disk.Open(path, disk.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := errors.Join(os.Mkdir(filepath.Join(path, "sub"), 0o700), os.WriteFile(filepath.Join(path, "sub", "x"), nil, 0o600), os.WriteFile(filepath.Join(path, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	sub, err := d.Sub("sub")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var names []string
	for name, err := range sub.Names() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if len(names) != 1 || names[0] != "x" {
		t.Errorf("Names are %q", names)
	}
	if _, err := d.Sub("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sub of nothing: %v", err)
	}
	if _, err := d.Sub("file"); !errors.Is(err, disk.ErrUnsafe) {
		t.Errorf("Sub of a file: %v", err)
	}
	link := filepath.Join(path, "link")
	err = os.Symlink("sub", link)
	if _, statErr := os.Lstat(link); errors.Join(err, statErr) != nil { // Wine only says that it makes one
		skip.Test(t, fmt.Sprintf("no links here: %v, %v", err, statErr))
	}
	if _, err := d.Sub("link"); !errors.Is(err, disk.ErrUnsafe) {
		t.Errorf("Sub of a link: %v", err)
	}
}

// Permissions are set on the file that was looked at, or on none.
func TestSetMode(t *testing.T) {
	if !disk.Modes {
		skip.Test(t, "this system has no modes")
	}
	path := t.TempDir()
	d, err := disk.Open(path, disk.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	at := func(name string) string { return filepath.Join(path, name) }
	for _, name := range []string{"a", "b", "c"} {
		if err := errors.Join(os.WriteFile(at(name), nil, 0o600), os.Chmod(at(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(at("dir"), 0o700), os.Chmod(at("dir"), 0o755), os.Link(at("c"), at("c2"))); err != nil {
		t.Fatal(err)
	}
	set := func(name string, mode fs.FileMode, change func() error) error {
		t.Helper()
		i, err := d.Stat(name)
		if err == nil && change != nil {
			err = change()
		}
		if err != nil {
			t.Fatal(err)
		}
		return d.SetMode(name, i.Version, mode)
	}
	mode := func(name string) fs.FileMode {
		t.Helper()
		fi, err := os.Lstat(at(name))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode().Perm()
	}
	for name, want := range map[string]fs.FileMode{"a": 0o600, "dir": 0o700} {
		if err := set(name, want, nil); err != nil || mode(name) != want {
			t.Errorf("SetMode(%s): %v, %v", name, err, mode(name))
		}
	}
	if err := set("c", 0o600, nil); !errors.Is(err, disk.ErrUnsafe) || mode("c") != 0o644 {
		t.Errorf("SetMode of a file with two names: %v, %v", err, mode("c"))
	}
	replace := func() error { return os.Rename(at("b"), at("a")) }
	if err := set("a", 0o640, replace); err != disk.ErrChanging || mode("a") != 0o644 {
		t.Errorf("SetMode of a file that was replaced: %v, %v", err, mode("a"))
	}
	link := func() error { return errors.Join(os.Rename(at("a"), at("b")), os.Symlink("b", at("a"))) }
	if err := set("a", 0o640, link); !errors.Is(err, disk.ErrUnsafe) || mode("b") != 0o644 {
		t.Errorf("SetMode of what has become a link: %v, %v", err, mode("b"))
	}
}

func TestKind(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{
		0o600: "a file", fs.ModeDir | 0o700: "a directory", fs.ModeSymlink | 0o777: "a symbolic link", fs.ModeNamedPipe: "a FIFO",
		fs.ModeSocket: "a socket", fs.ModeDevice: "a device", fs.ModeDevice | fs.ModeCharDevice: "a device",
	} {
		if got := disk.Kind(mode); got != want {
			t.Errorf("disk.Kind(%v) = %q, want %q", mode, got, want)
		}
	}
}

// Flushes counts those of Create and Sync: of the directory, and of the file unless its bytes are only written out.
func TestFlushes(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		var n atomic.Int64
		d := open(t, t.TempDir(), disk.Options{NoSync: noSync, Flushes: &n})
		ofFile, ofDir := int64(1), int64(1)
		if noSync {
			ofFile, ofDir = 0, 0
		} else if d.Ordered() {
			ofFile = 0
		}
		for range 3 {
			n.Store(0)
			if err := d.Create("name", nil, 0o600, time.Now()); err != nil || n.Load() != ofFile {
				t.Errorf("Create: %v, and %d flushes, want %d", err, n.Load(), ofFile)
			}
			if err := d.Sync(); err != nil || n.Load() != ofFile+ofDir {
				t.Errorf("Sync: %v, and %d flushes, want %d", err, n.Load(), ofFile+ofDir)
			}
			if err := d.Remove("name"); err != nil || n.Load() != ofFile+ofDir {
				t.Errorf("Remove: %v, and %d flushes, want none", err, n.Load())
			}
		}
	}
}
