//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// If Express dies, the program says so and ends.
func TestExpressDies(t *testing.T) {
	p := startPair(t, place{dir: filepath.Join(t.TempDir(), "sessions")})
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(p.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("the children are %q", out)
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(p.stderr.String(), "app.js has ended, and so does this program: signal: killed") {
		t.Errorf("the program ends with %v\n%s", err, p.stderr.Bytes())
	}
	p.gone(t)
}
