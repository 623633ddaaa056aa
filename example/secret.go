package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const minSecret = 16 // bytes: 128 bits, if they are random

// loadSecret returns the secret that signs the cookies: $SESSION_SECRET, else
// the contents of <dir>.secret, which the first process to need it makes. It is
// beside the directory, not in it: in there is nothing but sessions.
func loadSecret(dir string) (string, error) {
	if secret := os.Getenv("SESSION_SECRET"); secret != "" {
		return checkSecret("$SESSION_SECRET", secret)
	}
	path := strings.TrimRight(dir, "/") + ".secret"
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeSecret(path); err != nil {
			return "", fmt.Errorf("make secret: %w", err)
		}
		secret, err = os.ReadFile(path) // another process may have been first
	}
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return checkSecret(path, string(secret))
}

func checkSecret(from, secret string) (string, error) {
	secret = strings.TrimSpace(secret)
	if len(secret) < minSecret {
		return "", fmt.Errorf("the secret in %s is shorter than %d bytes", from, minSecret)
	}
	return secret, nil
}

// makeSecret writes a new secret to path unless there is one. A link appears
// with its contents, and never in place of another: of two processes that start
// at once the second reads the first one's secret, and neither reads half of it.
func makeSecret(path string) (err error) {
	random := make([]byte, 32)
	rand.Read(random)                                                       // never fails
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.WriteString(base64.RawURLEncoding.EncodeToString(random) + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
