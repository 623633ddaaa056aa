package secret_test

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/sessionfilestore/filestore/example/secret"
)

func TestSecretIsMadeOnce(t *testing.T) {
	t.Setenv("SESSION_SECRET", "")
	parent := t.TempDir()
	dir := filepath.ToSlash(filepath.Join(parent, "sessions")) + "/"
	secrets := make([]string, 20)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() {
			var err error
			if secrets[i], err = secret.Load(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range secrets {
		if s != secrets[0] || len(s) != 43 {
			t.Fatalf("secrets %q and %q, want the same 43 characters", secrets[0], s)
		}
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "sessions.secret" {
		t.Fatalf("made %v, want sessions.secret alone", entries)
	}
	fi, err := entries[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && fi.Mode() != 0o600 {
		t.Errorf("its mode is %v, want 0600", fi.Mode())
	}
}

func TestSecretThatIsGiven(t *testing.T) {
	for _, test := range []struct{ name, env, file, want string }{
		{"file", "", "0123456789abcdef", "0123456789abcdef"},
		{"file with newline", "", "0123456789abcdef\r\n", "0123456789abcdef"},
		{"environment first", "fedcba9876543210", "0123456789abcdef", "fedcba9876543210"},
		{"short file", "", "0123456\n", ""},
		{"empty file", "", "", ""},
		{"short environment", "0123456", "0123456789abcdef", ""},
		{"environment as it is", " keyboard cat ", "0123456789abcdef", " keyboard cat "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("SESSION_SECRET", test.env)
			dir := filepath.Join(t.TempDir(), "sessions")
			if err := os.WriteFile(dir+".secret", []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := secret.Load(dir)
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("Load = %q, %v, want %q", got, err, test.want)
			}
			if after, err := os.ReadFile(dir + ".secret"); err != nil || string(after) != test.file {
				t.Errorf("the file is now %q, %v", after, err)
			}
		})
	}
}

// A file that others may read or write is refused, and so is a link.
func TestSecretOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // which has no such modes
	}
	t.Setenv("SESSION_SECRET", "")
	dir := filepath.Join(t.TempDir(), "sessions")
	file := dir + ".secret"
	for _, plant := range []func() error{
		func() error { return os.WriteFile(file, []byte("0123456789abcdef"), 0o644) },
		func() error { return os.Chmod(file, 0o660) },
		func() error { os.Rename(file, file+"2"); os.Chmod(file+"2", 0o600); return os.Symlink(file+"2", file) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if got, err := secret.Load(dir); err == nil {
			t.Errorf("Load = %q, want an error", got)
		}
	}
}

// For "." and "sessions/." the file is beside the directory too.
func TestSecretBeside(t *testing.T) {
	t.Setenv("SESSION_SECRET", "")
	parent := t.TempDir()
	os.Mkdir(filepath.Join(parent, "sessions"), 0o700)
	t.Chdir(filepath.Join(parent, "sessions"))
	want, err := secret.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := secret.Load(parent + "/sessions/."); got != want || err != nil {
		t.Errorf("Load = %q, %v, want %q", got, err, want)
	}
	if _, err := os.Stat(filepath.Join(parent, "sessions.secret")); err != nil {
		t.Error(err)
	}
}
