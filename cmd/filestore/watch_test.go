package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// watch prints the changes by other processes, writes nothing, and ends with SIGINT.
func TestWatch(t *testing.T) {
	if isWindows {
		skip.Test(t, "no signals")
	}
	for _, asJSON := range []bool{false, true} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001"})
		before, _ := snapshot(parent)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		args := []string{"watch", "--dir", dir}
		changed, destroyed := "  changed    bert0001…", "  destroyed  bert0001…"
		if asJSON {
			args = append(args, "--json")
			changed, destroyed = `Z","op":"changed","id":"bert0001…"}`, `Z","op":"destroyed","id":"bert0001…"}`
		}
		cmd := process(t, ctx, args...)
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for s := bufio.NewScanner(out); s.Scan(); {
				lines <- s.Text()
			}
		}()
		// Nothing tells when it has begun to watch, so change until it says so.
		file := filepath.Join(dir, "bert0001bert0001.json")
		change := func() {
			os.Remove(file)
			mustWrite(t, nodeSession{dir: dir, id: "bert0001bert0001"})
		}
		await := func(want string, change func()) {
			t.Helper()
			for {
				change()
				select {
				case line, ok := <-lines:
					if !ok {
						t.Fatalf("watch ended: %s", errOut.String())
					}
					if strings.HasSuffix(line, want) {
						return
					}
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
		await(changed, change)
		await(destroyed, func() { change(); os.Remove(file) })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		for range lines {
		}
		if err := cmd.Wait(); err != nil || errOut.Len() > 0 {
			t.Errorf("watch after SIGINT: %v, %q", err, errOut.String())
		}
		os.Remove(file)
		after, _ := snapshot(parent)
		if len(after) != len(before) {
			t.Errorf("watch left something: %v, before %v", after, before)
		}
	}
}

// A replaced directory ends watch with an error.
func TestWatchReplaced(t *testing.T) {
	if isWindows {
		skip.Test(t, "an open directory cannot be removed")
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	os.Mkdir(dir, 0o700)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := process(t, ctx, "watch", "--dir", dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		os.Rename(dir, dir+"-old")
		os.Mkdir(dir, 0o700) // until the command has opened the one that is then replaced
		select {
		case err := <-done:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitRefused || !strings.HasPrefix(errOut.String(), "filestore: watch: ") {
				t.Errorf("watch: %v, %q", err, errOut.String())
			}
			return
		case <-time.After(100 * time.Millisecond):
			os.RemoveAll(dir + "-old")
		}
	}
}
