// Package secret finds the secret that signs the examples' cookies.
package secret

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const minLen = 8 // bytes, as session.Manager wants them

// Load returns $SESSION_SECRET or, if that is not set, the content of <dir>.secret. The
// first process that needs the file makes it. It is beside the directory, because the
// directory has nothing but sessions. express/app.js does the same.
func Load(dir string) (string, error) {
	if secret := os.Getenv("SESSION_SECRET"); secret != "" {
		return check("$SESSION_SECRET", secret)
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path += ".secret"
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return "", fmt.Errorf("make secret: %w", err)
		}
		fi, err = os.Lstat(path) // another process may have been first
	}
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o077 != 0 && runtime.GOOS != "windows" {
		return "", fmt.Errorf("%s is not a file that only you can read and write (mode %v, want 0600)", path, fi.Mode())
	}
	var secret []byte
	err = again(func() (err error) {
		secret, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return check(path, strings.TrimSpace(string(secret)))
}

func check(from, secret string) (string, error) {
	if len(secret) < minLen {
		return "", fmt.Errorf("the secret in %s is shorter than %d bytes", from, minLen)
	}
	return secret, nil
}

// create writes a new secret to path, unless there is one. It makes a hard link, because
// a link appears with its whole content and never replaces another: if two processes
// start at once, the second reads the first one's secret, and neither reads half of it.
func create(path string) (err error) {
	random := make([]byte, 32)
	rand.Read(random) // never fails
	dir, base := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, base+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again(func() error { return os.Remove(tmp.Name()) })) }()
	_, err = tmp.WriteString(base64.RawURLEncoding.EncodeToString(random) + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// again repeats op on Windows, for a second at most: there, who removes one name of a file and who reads it by another
// keep each other out.
func again(op func() error) (err error) {
	for range 100 {
		if err = op(); err == nil || runtime.GOOS != "windows" {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
