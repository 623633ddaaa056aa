//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sessionfilestore/filestore/internal/interop"
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

// An interrupt before Express is there ends the program like any other. The node of this test never listens.
func TestInterruptAtStart(t *testing.T) {
	interop.NPM(t, ".")
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "node"), []byte("#!/bin/sh\necho here >&2\nexec cat >/dev/null\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-dir", filepath.Join(t.TempDir(), "sessions"))
	cmd.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=", "PATH="+bin+":"+os.Getenv("PATH"))
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // fails if it has ended
	here := make([]byte, len("here\n"))
	if _, err := io.ReadFull(stderr, here); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(stderr)
	if err := cmd.Wait(); err != nil || len(rest) > 0 {
		t.Errorf("the program ends with %v\n%s", err, rest)
	}
}
