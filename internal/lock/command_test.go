package lock

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
)

// Existing tries the locks that others use, and makes no file.
func TestExisting(t *testing.T) {
	path := t.TempDir()
	d, err := disk.Open(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if l, err := Existing(d).Try(7); l != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Try without .locks = %v, %v", l, err)
	}
	if names, err := os.ReadDir(path); len(names) != 0 || err != nil {
		t.Errorf("Existing has made %v, %v", names, err)
	}
	writers, err := Open(d, ".json", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	held, err := writers.Try(7)
	if held == nil {
		t.Fatal(err)
	}
	table := Existing(d)
	if l, err := table.Try(7); l != nil || err != nil {
		t.Errorf("Try of a held lock = %v, %v", l, err)
	}
	held.Unlock()
	l, err := table.Try(7)
	if l == nil {
		t.Fatal(err)
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
	if other, err := writers.Try(7); other != nil || err != nil {
		t.Errorf("beside it a writer gets %v, %v", other, err)
	}
	l.Unlock()
	file := filepath.Join(path, filepath.FromSlash(format.LockFile(7)))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if l, err := table.Try(7); l != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Try of a lock whose file is missing = %v, %v", l, err)
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("Try has made the file")
	}
}
