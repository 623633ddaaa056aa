package disk_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
)

// An object that is not a regular file is not followed or opened, nothing waits for it, and the error says
// what it is.
func TestPlanted(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, disk.Options{})
	path := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, err := range []error{
		os.Symlink(outside, path("symlink")), os.Symlink("nowhere", path("dangling")), os.Link(outside, path("hardlink")),
		syscall.Mkfifo(path("fifo"), 0o600), os.Mkdir(path("directory"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"symlink": "a symbolic link", "dangling": "a symbolic link", "hardlink": "it has 2 links",
		"fifo": "a FIFO", "socket": "a socket", "directory": "a directory",
	} {
		start := time.Now()
		data, i, err := d.Read(name, 1<<20)
		if data != nil || !errors.Is(err, disk.ErrUnsafe) || !strings.Contains(err.Error(), want) {
			t.Errorf("Read of %s = %q, %v", name, data, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("Read of %s took %v", name, took)
		}
		if err := d.SetTime(name, i.Version, time.Now()); err == nil {
			t.Errorf("SetTime of %s", name)
		}
		if name == "directory" {
			continue
		}
		create(t, d, "new", "new")
		if err := d.Rename("new", name); err != nil {
			t.Errorf("Rename over %s = %v", name, err)
		}
		if got := read(t, d, name); got != "new" {
			t.Errorf("%s holds %q", name, got)
		}
		if err := d.Remove(name); err != nil {
			t.Errorf("Remove of %s = %v", name, err)
		}
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "secret" {
		t.Errorf("outside: %q, %v", data, err)
	}
}

// A Dir stays in its directory, wherever that is moved. If the directory was deleted, the Dir opens the one
// at its path, unless that could belong to somebody else.
func TestMovedAndDeleted(t *testing.T) {
	parent := t.TempDir()
	dir, moved := filepath.Join(parent, "dir"), filepath.Join(parent, "moved")
	d := open(t, dir, disk.Options{})
	if !d.InPlace() || d.Gone() {
		t.Errorf("a new directory is in place: %v, gone: %v", d.InPlace(), d.Gone())
	}
	if err := errors.Join(os.Rename(dir, moved), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	create(t, d, "id", "1")
	if _, err := os.Stat(filepath.Join(moved, "id")); err != nil || d.InPlace() {
		t.Errorf("after it was moved: %v, in place: %v", err, d.InPlace())
	}
	if now, ok := d.PathNow(); ok {
		if _, err := os.Stat(now + "/id"); err != nil {
			t.Errorf("the path now leads elsewhere: %v", err)
		}
	}
	if err := errors.Join(os.RemoveAll(moved), os.Remove(dir)); err != nil {
		t.Fatal(err)
	}
	if names, err := list(d); len(names) > 0 || err != nil || !d.Gone() {
		t.Errorf("after it was deleted: names %q, %v, gone: %v", names, err, d.Gone())
	}
	if err := d.MakeDir("sub"); !errors.Is(err, disk.ErrGone) {
		t.Errorf("MakeDir in a deleted directory = %v", err)
	}
	next, err := d.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	create(t, next, "id", "2")
	if err := errors.Join(os.Remove(filepath.Join(dir, "id")), os.Remove(dir), os.Symlink(parent, dir)); err != nil {
		t.Fatal(err)
	}
	if again, err := next.Reopen(); !errors.Is(err, disk.ErrUnsafe) {
		t.Errorf("Reopen through a link = %v, %v", again, err)
	}
}
