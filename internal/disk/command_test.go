package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The command lists .locks as a directory of its own, and nothing that merely has its name.
func TestSub(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path, Options{ReadOnly: true})
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
	if _, err := d.Sub("file"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("Sub of a file: %v", err)
	}
	if err := os.Symlink("sub", filepath.Join(path, "link")); err != nil {
		t.Skip(err)
	}
	if _, err := d.Sub("link"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("Sub of a link: %v", err)
	}
}

// Permissions are set on the file that was looked at, or on none.
func TestSetMode(t *testing.T) {
	if !Modes {
		t.Skip("no modes")
	}
	path := t.TempDir()
	d, err := Open(path, Options{ReadOnly: true})
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
	if err := set("c", 0o600, nil); !errors.Is(err, ErrUnsafe) || mode("c") != 0o644 {
		t.Errorf("SetMode of a file with two names: %v, %v", err, mode("c"))
	}
	replace := func() error { return os.Rename(at("b"), at("a")) }
	if err := set("a", 0o640, replace); err != ErrChanging || mode("a") != 0o644 {
		t.Errorf("SetMode of a file that was replaced: %v, %v", err, mode("a"))
	}
	link := func() error { return errors.Join(os.Rename(at("a"), at("b")), os.Symlink("b", at("a"))) }
	if err := set("a", 0o640, link); !errors.Is(err, ErrUnsafe) || mode("b") != 0o644 {
		t.Errorf("SetMode of what has become a link: %v, %v", err, mode("b"))
	}
}

func TestKind(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{
		0o600: "a file", fs.ModeDir | 0o700: "a directory", fs.ModeSymlink | 0o777: "a symbolic link", fs.ModeNamedPipe: "a FIFO",
		fs.ModeSocket: "a socket", fs.ModeDevice: "a device", fs.ModeDevice | fs.ModeCharDevice: "a device",
	} {
		if got := Kind(mode); got != want {
			t.Errorf("Kind(%v) = %q, want %q", mode, got, want)
		}
	}
}
