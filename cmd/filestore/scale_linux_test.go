package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// Any number of sessions takes the same memory: the peak of the process, as the system counts it,
// stays below 100 MiB. With FILESTORE_LONG there are 1,000,000.
func TestScale(t *testing.T) {
	if testing.Short() {
		skip.Test(t, "makes 100,000 files")
	}
	t.Parallel()
	n := 100_000
	if raceDetector {
		n = 10_000
	}
	if os.Getenv("FILESTORE_LONG") != "" {
		n = 1_000_000
	}
	dir := roomFor(t, n)
	began := time.Now()
	var makers sync.WaitGroup
	for half := range 2 {
		makers.Go(func() {
			now := time.Now().UnixMilli()
			for i := half; i < n; i += 2 {
				// Nearly each has a user of its own, and one has a thousand.
				user := i
				if i%100 == 0 {
					user = 0
				}
				doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":86400000,"expires":null,"httpOnly":true,"path":"/"},"user":"user%07d","__lastAccess":%d}`,
					user, now-int64(i)*10)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%07d-%016d.json", i, i*7919)), []byte(doc), 0o600); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	makers.Wait()
	t.Logf("%d sessions made in %v", n, time.Since(began))
	for _, c := range []struct {
		args  []string
		lines int
		want  string // a pattern
	}{
		{[]string{"ls", "--show", "user"}, n + 1, "0000001-… .* user0000001\n"},
		{[]string{"ls", "--sort", "ends", "--limit", "10", "--show", "user", "--json"}, 10, fmt.Sprintf(`"user":"user%07d"`, n-1)},
		{[]string{"stat", "--by", "user"}, 0, fmt.Sprintf("\nuser0000000 +%d  █{40}\nuser.* 1  [▏▎▍▌]\n", n/100)},
	} {
		code, out, peak := withPeak(t, append(c.args, "--dir", dir)...)
		if code != exitDone || c.lines > 0 && strings.Count(out, "\n") != c.lines || !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%q: exit code %d, %d lines, without %q: %.1000s", c.args, code, strings.Count(out, "\n"), c.want, out)
		}
		if peak > 100<<10 && !raceDetector {
			t.Errorf("%q took %d KiB", c.args, peak)
		}
	}
}

// roomFor returns a directory for n sessions, in memory if there is plenty: a disk takes ten times as
// long to make them.
func roomFor(t *testing.T, n int) string {
	t.Helper()
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) == nil && st.Bavail*uint64(st.Bsize) > uint64(n)*8<<10 && (st.Files == 0 || st.Ffree > uint64(2*n)) {
		if dir, err := os.MkdirTemp("/dev/shm", "filestore-test-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// withPeak runs the command as a process of its own and returns the most memory that it had, in KiB.
// (What wait tells would be the larger of its own and this process's, from which it was forked.)
func withPeak(t *testing.T, args ...string) (code int, out string, peak int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := process(t, ctx, args...)
	file := filepath.Join(t.TempDir(), "peak")
	cmd.Env = append(cmd.Env, peakEnv+"="+file)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	began := time.Now()
	if err := cmd.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
		t.Errorf("%q: %v, %s", args, err, e.String())
	}
	status, _ := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		t.Fatalf("no peak in %q", status)
	}
	peak, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.Logf("%q: %v, %v of it at work, %d KiB", args[:len(args)-2], time.Since(began).Round(time.Millisecond), cpu.Round(time.Millisecond), peak)
	return cmd.ProcessState.ExitCode(), o.String(), peak
}
