package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
)

// snapshot returns a line for dir and for each thing in it: name, mode, owner, links, times and contents.
func snapshot(dir string) (all []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		i, err := infoOf(path)
		if err != nil {
			return err
		}
		contents := ""
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			contents, err = os.Readlink(path)
		case fi.Mode().IsRegular() && fi.Size() < 64<<20:
			var data []byte
			data, err = os.ReadFile(path)
			contents = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		all = append(all, fmt.Sprintf("%s %v %d:%d %d links, %d bytes, modified %v, changed %v: %s", path, fi.Mode(), i.UID, i.GID, i.Links,
			i.Size, i.ModTime().Format(time.RFC3339Nano), i.ChangeTime().Format(time.RFC3339Nano), contents))
		return err
	})
	return all, err
}

// infoOf describes path.
func infoOf(path string) (disk.Info, error) {
	d, err := disk.Open(filepath.Dir(path), disk.Options{ReadOnly: true})
	if err != nil {
		return disk.Info{}, err
	}
	defer d.Close()
	return d.Stat(filepath.Base(path))
}

// A snapshot must see each kind of change, or "unchanged" would say nothing.
func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	look := func() string {
		t.Helper()
		all, err := snapshot(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(all)
	}
	old := time.Now().Add(-time.Hour)
	last := look()
	for name, change := range map[string]func() error{
		"make": func() error { return os.WriteFile(file, []byte("a"), 0o600) },
	} {
		if err := change(); err != nil || look() == last {
			t.Errorf("%s: not seen, %v", name, err)
		}
	}
	for _, step := range []struct {
		name   string
		change func() error
	}{
		{"write", func() error { return os.WriteFile(file, []byte("b"), 0o600) }},
		{"mode", func() error { return os.Chmod(file, 0o400) }},
		{"mtime", func() error { return os.Chtimes(file, old, old) }},
		{"directory", func() error { return os.Mkdir(filepath.Join(dir, ".locks"), 0o700) }},
		{"remove", func() error { return os.Remove(file) }},
	} {
		last = look()
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		if look() == last {
			t.Errorf("%s: not seen", step.name)
		}
	}
}
