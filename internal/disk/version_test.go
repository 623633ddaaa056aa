package disk_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
)

// A file that was seen is recognized. If its version does not tell whether it has changed since, its bytes do.
func TestStill(t *testing.T) {
	path := t.TempDir()
	d, err := disk.Open(path, disk.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	file := filepath.Join(path, "name")
	still := func(what string, seen disk.Seen, want bool) {
		t.Helper()
		if got, err := d.Still("name", seen); got != want || err != nil {
			t.Errorf("%s: Still = %v, %v, want %v", what, got, err, want)
		}
	}
	read := func() ([]byte, disk.Info) {
		t.Helper()
		data, i, err := d.Read("name", 100)
		if err != nil {
			t.Fatal(err)
		}
		return data, i
	}
	write := func(name, data string) {
		t.Helper()
		if err := d.Create(name, []byte(data), 0o600, time.Now()); err != nil {
			t.Fatal(err)
		}
	}

	still("none then and now", disk.Seen{}, true)
	write("name", "one")
	still("none then", disk.Seen{}, false)
	data, i := read()
	if i.Settled {
		t.Error("a new file is settled")
	}
	fresh := i.Seen(data)
	still("the same", fresh, true)

	// Another file of the same version: only the bytes differ. A clock that ticks coarsely makes such a one.
	still("other bytes", i.Seen([]byte("two")), false)
	i.Settled = true
	still("a settled version", i.Seen([]byte("two")), true)

	i.Settled = false
	for _, size := range []int{0, 1, 4, 1000} { // a writer without the lock puts it in between
		seen := i.Seen(data)
		seen.Size = int64(size)
		still("another size", seen, false)
	}

	write("next", "two")
	if err := d.Rename("next", "name"); err != nil {
		t.Fatal(err)
	}
	still("replaced", fresh, false)
	time.Sleep(100 * time.Millisecond)
	data, i = read()
	settled := i.Seen(data)
	if !i.Settled && i.Inode != 0 {
		t.Error("an old file is not settled")
	}
	still("settled", settled, true)
	if err := os.Chmod(file, 0o400); err != nil {
		t.Fatal(err)
	}
	if disk.Modes {
		still("its ctime has changed", settled, false)
	}
	if err := d.Remove("name"); err != nil {
		t.Fatal(err)
	}
	still("removed", settled, false)
	still("removed, and not settled", fresh, false)
}

// An object that cannot be read is an error, or another version.
func TestStillPlanted(t *testing.T) {
	path := t.TempDir()
	d, err := disk.Open(path, disk.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.Mkdir(filepath.Join(path, "name"), 0o700); err != nil {
		t.Fatal(err)
	}
	i, err := d.Stat("name")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Still("name", disk.Info{Version: i.Version}.Seen([]byte("x"))); got || err == nil {
		t.Errorf("Still of a directory = %v, %v", got, err)
	}
	if got, _ := d.Still("name", disk.Seen{}); got {
		t.Error("a directory is taken for no file")
	}
}
