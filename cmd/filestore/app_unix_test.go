//go:build unix

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A pipe of secrets that nobody writes to ends with SIGINT.
func TestSecretsPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "secret")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		cmd := process(t, ctx, "ls", "--dir", dir, "--secret-file", pipe)
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if cmd.ProcessState.Exited() { // else the signal came before it was awaited
			if code := cmd.ProcessState.ExitCode(); code != exitRefused || errOut.String() != "filestore: interrupted\n" {
				t.Errorf("exit code %d, %q", code, errOut.String())
			}
			return
		}
	}
	t.Fatal("it hangs")
}
