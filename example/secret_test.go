package main

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
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
			if secrets[i], err = loadSecret(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, secret := range secrets {
		if secret != secrets[0] || len(secret) != 43 {
			t.Fatalf("secrets %q and %q, want the same 43 characters", secrets[0], secret)
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
		t.Errorf("its mode is %v", fi.Mode())
	}
}

func TestSecretThatIsGiven(t *testing.T) {
	for _, test := range []struct{ name, env, file, want string }{
		{"file", "", "0123456789abcdef", "0123456789abcdef"},
		{"file with newline", "", "0123456789abcdef\r\n", "0123456789abcdef"},
		{"environment first", "fedcba9876543210", "0123456789abcdef", "fedcba9876543210"},
		{"short file", "", "0123456789abcde\n", ""},
		{"empty file", "", "", ""},
		{"short environment", "0123456789abcde", "0123456789abcdef", ""},
		{"blank environment", "                ", "0123456789abcdef", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("SESSION_SECRET", test.env)
			dir := filepath.Join(t.TempDir(), "sessions")
			if err := os.WriteFile(dir+".secret", []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := loadSecret(dir)
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("loadSecret = %q, %v, want %q", got, err, test.want)
			}
			if after, err := os.ReadFile(dir + ".secret"); err != nil || string(after) != test.file {
				t.Errorf("the file is now %q, %v", after, err)
			}
		})
	}
}
