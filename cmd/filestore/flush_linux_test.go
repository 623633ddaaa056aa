package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// import and rm flush once for many sessions: what strace counts does not grow with them.
func TestFlushesOnce(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip.Test(t, "strace counts the flushes")
	}
	const n = 300
	dir := t.TempDir()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, `{"id":"session-%05d","session":%s}`+"\n", i, document(time.Now(), "3600000", `,"user":"anna"`))
	}
	put(t, dir, "in", lines.String())
	sessions := filepath.Join(dir, "sessions")
	if err := os.Mkdir(sessions, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "", "import", "--dir", sessions, os.DevNull) // makes the lock files, and flushes them
	for _, c := range []struct {
		args    []string
		says    string
		flushes int // for n sessions as for one
	}{
		{[]string{"import", filepath.Join(dir, "in")}, "300 sessions imported; ", 3}, // the bytes before the names, then the names
		{[]string{"rm", "--where", "user=anna", "--yes"}, "ended 300 sessions", 1},
		{[]string{"import", filepath.Join(dir, "in")}, "300 sessions imported; ", 3},
		{[]string{"rm", "--all", "--yes"}, "ended 300 sessions", 1},
	} {
		log := filepath.Join(dir, "log")
		cmd := process(t, t.Context(), append(c.args, "--dir", sessions)...)
		cmd.Args = append([]string{strace, "-f", "-qq", "-o", log, "-e", "trace=fsync,fdatasync,syncfs,sync_file_range,sync", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = strace
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), c.says) {
			t.Fatalf("%q: %v %s", c.args, err, out)
		}
		calls, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(calls), "sync") - strings.Count(string(calls), "resumed>"); got < 1 || got > c.flushes {
			t.Errorf("%q flushes %d times, want %d at most:\n%.2000s", c.args, got, c.flushes, calls)
		}
	}
}

// An import whose files cannot be flushed, or take no name on a full disk, names the first line that is not stored.
func TestImportNamesTheLine(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip.Test(t, "strace makes system calls fail")
	}
	if os.Geteuid() != 0 {
		skip.Test(t, "mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "nr_inodes=100,mode=0700"); err != nil {
		skip.Test(t, "no mounts here: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	command(t, "", "import", "--dir", dir, os.DevNull) // makes the lock files
	for _, c := range []struct {
		inject string
		lines  int
	}{{"syncfs:error=EIO", 10}, {"renameat,renameat2:error=ENOSPC", 100}} {
		var lines strings.Builder
		for i := range c.lines {
			lines.WriteString(importLine(fmt.Sprintf("session-%05d", i), ""))
		}
		cmd := process(t, t.Context(), "import", "--dir", dir)
		cmd.Args = append([]string{strace, "-f", "-qq", "-o", os.DevNull, "-e", "inject=" + c.inject, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = strace
		cmd.Stdin = strings.NewReader(lines.String())
		var errOut strings.Builder
		cmd.Stderr = &errOut
		cmd.Run()
		if got := errOut.String(); !strings.HasPrefix(got, "filestore: line 1: ") || strings.Count(got, "line") != 1 {
			t.Errorf("%s: %q, want line 1", c.inject, got)
		}
		if files := storetest.Files(t, dir); len(files) != 0 {
			t.Errorf("%s: %d sessions, want none", c.inject, len(files))
		}
		storetest.Tidy(t, dir)
	}
}

// Sessions whose removal cannot be flushed have ended, and may come back.
func TestRmCannotFlush(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip.Test(t, "strace makes system calls fail")
	}
	dir := t.TempDir()
	command(t, "", "import", "--dir", dir, os.DevNull) // makes the lock files
	mustWrite(t, nodeSession{dir: dir, id: "anna0001", members: `"user":"anna"`})
	cmd := process(t, t.Context(), "rm", "--all", "--yes", "--dir", dir)
	cmd.Args = append([]string{strace, "-f", "-qq", "-o", os.DevNull, "-e", "inject=fsync,fdatasync:error=EIO", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
	out, err := cmd.CombinedOutput()
	if want := "ended 1 session\nfilestore: a power cut may undo this: input/output error\n"; err == nil || string(out) != want {
		t.Errorf("rm: %v, %q, want %q", err, out, want)
	}
}
