package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sessionfilestore/filestore"
)

// process returns the command as a process of its own.
func process(t *testing.T, ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), childEnv+"=1", "TERM=xterm", "NO_COLOR=", "TZ=UTC", "GORACE="+noPause)
	return cmd
}

// interrupt interrupts cmd as Ctrl-C does. On Windows, which sends no other process a signal, it kills cmd and
// returns false.
func interrupt(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	end := func() error { return cmd.Process.Signal(os.Interrupt) }
	if isWindows {
		end = cmd.Process.Kill
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	return !isWindows
}

// commandOutput is command without input.
func commandOutput(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	r := command(t, "", args...)
	return r.code, r.out, r.stderr
}

func mustWrite(t *testing.T, s nodeSession) {
	t.Helper()
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
}

const isWindows = os.PathSeparator == '\\'

// result is the outcome of a run of the command.
type result struct {
	code        int
	out, stderr string
}

// command runs filestore with args in this process. It must not take long, whatever the directory holds.
func command(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(args, strings.NewReader(stdin), &out, &stderr) }()
	select {
	case code := <-done:
		return result{code, out.String(), stderr.String()}
	case <-time.After(4 * time.Minute):
		t.Fatalf("filestore %q hangs", args)
		panic("unreached")
	}
}

// sessions makes a directory with the healthy session "healthy", and .locks.
func sessions(t *testing.T, codec filestore.Codec) (dir string, store *filestore.Store) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "sessions")
	store, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1, NoSync: true, Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	sess := new(filestore.Session)
	sess.Put("user", "anna")
	if err := store.Set(t.Context(), "healthy", sess); err != nil {
		t.Fatal(err)
	}
	return dir, store
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// document is a session last used at that time.
func document(at time.Time, maxAge, members string) string {
	return fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":null,"httpOnly":true,"path":"/"}%s,"__lastAccess":%d}`, maxAge, members, at.UnixMilli())
}

// manifest describes everything below dir, with all that a command could change.
func manifest(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		sum := [sha256.Size]byte{}
		if fi.Mode().IsRegular() && fi.Size() < 1<<20 {
			if data, err := os.ReadFile(path); err == nil {
				sum = sha256.Sum256(data)
			}
		}
		target, _ := os.Readlink(path)
		i, err := infoOf(path)
		all[path] = fmt.Sprintf("%+v %s %x", i, target, sum)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for path := range before {
		if after[path] != before[path] {
			t.Errorf("%s: %q has changed\nfrom %s\nto   %s", what, path, before[path], after[path])
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s: %q is new", what, path)
		}
	}
}

// TestMain lets a test start this binary as the command, with childEnv; testscript has its own way.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if os.Getenv(impatientEnv) != "" {
			patience = 0
		}
		code := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		if file := os.Getenv(peakEnv); file != "" {
			status, _ := os.ReadFile("/proc/self/status")
			os.WriteFile(file, status, 0o600)
		}
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"filestore": main})
}

const (
	childEnv     = "FILESTORE_TEST_COMMAND"
	impatientEnv = "FILESTORE_TEST_IMPATIENT" // bars come at once
	noPause      = "atexit_sleep_ms=0"        // for GORACE: else each process sleeps for a second at its end
	peakEnv      = "FILESTORE_TEST_PEAK"      // names a file for the system's status of the process at its end
)

// A nodeSession is one as session-file-store writes it.
type nodeSession struct {
	dir, id     string
	age, maxAge time.Duration
	members     string // `"user":"anna"`
}

func (s nodeSession) write() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	maxAge := "null"
	if s.maxAge != 0 {
		maxAge = fmt.Sprint(s.maxAge.Milliseconds())
	}
	members := s.members
	if members != "" {
		members += ","
	}
	doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":null,"httpOnly":true,"path":"/"},%s"__lastAccess":%d}`,
		maxAge, members, time.Now().Add(-s.age).UnixMilli())
	if !json.Valid([]byte(doc)) {
		return fmt.Errorf("not JSON: %s", doc)
	}
	return os.WriteFile(filepath.Join(s.dir, s.id+".json"), []byte(doc), 0o600)
}
