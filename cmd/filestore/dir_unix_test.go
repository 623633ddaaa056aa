//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

var looking = [][]string{
	{"ls"}, {"ls", "--show", "user", "--sort", "ends"}, {"ls", "--where", "user", "--json"}, {"ls", "--expired"}, {"stat", "--by", "user"},
	{"reap", "--dry-run"}, {"check"}, {"export"}, {"show", "healthy1healthy1"}, {"show", "dead0001dead0001"},
}

// Whatever somebody plants in the directory: the commands that look end, read nothing outside it, write
// nothing, and show the healthy session.
func TestPlanted(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	mustWrite(t, nodeSession{dir: dir, id: "healthy1healthy1", members: `"user":"anna"`})
	mustWrite(t, nodeSession{dir: dir, id: "dead0001dead0001", age: 3 * time.Hour})
	outside := filepath.Join(parent, "outside")
	mustWrite(t, nodeSession{dir: outside, id: "secret01secret01", members: `"user":"OUTSIDE"`})
	secret := filepath.Join(outside, "secret01secret01.json")
	at := func(name string) string { return filepath.Join(dir, name+".json") }
	plant := map[string]func(path string) error{
		"absolute": func(p string) error { return os.Symlink(secret, p) },
		"relative": func(p string) error { return os.Symlink("../outside/secret01secret01.json", p) },
		"inside":   func(p string) error { return os.Symlink("healthy1healthy1.json", p) },
		"dangling": func(p string) error { return os.Symlink(filepath.Join(outside, "made"), p) },
		"loop":     func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"hardlink": func(p string) error { return os.Link(secret, p) },
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"directory": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(filepath.Join(p, "x.json"), nil, 0o600))
		},
		"socket": func(p string) error {
			l, err := net.Listen("unix", p)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
		"huge": func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<40))
		},
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"deep":      func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("["), 1<<20), 0o600) },
		"array":     func(p string) error { return os.WriteFile(p, []byte("[]"), 0o600) },
		"cookie":    func(p string) error { return os.WriteFile(p, []byte(`{"cookie":null,"user":"x"}`), 0o600) },
		"bom":       func(p string) error { return os.WriteFile(p, []byte("\ufeff"+`{"cookie":{}}`), 0o600) },
		"encrypted": func(p string) error { return os.WriteFile(p, []byte(`{"sealed":1,"key":"0","box":""}`), 0o600) },
	}
	if os.Geteuid() == 0 {
		plant["device"] = func(p string) error { return mkdev(p, 1, 5) }
	}
	ids := []string{}
	for name, make := range plant {
		id := fmt.Sprintf("p-%s-planted", name)
		ids = append(ids, id)
		if err := make(at(id)); errors.Is(err, fs.ErrPermission) && name == "device" {
			t.Log("no devices may be made here")
			ids = ids[:len(ids)-1]
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	before, err := snapshot(parent)
	if err != nil {
		t.Fatal(err)
	}
	commands := slices.Clone(looking)
	for _, id := range ids {
		commands = append(commands, []string{"show", id})
	}
	for _, args := range commands {
		code, out, errOut := commandOutput(t, append([]string{"--dir", dir}, args...)...)
		if strings.Contains(out+errOut, "OUTSIDE") || strings.Contains(out+errOut, "goroutine") {
			t.Errorf("%q: %q %q", args, out, errOut)
		}
		planted := args[0] == "show" && strings.HasPrefix(args[1], "p-")
		if want := planted || args[0] == "ls" || args[0] == "check" || args[0] == "export"; want != (code == exitWrong) || code == exitRefused {
			t.Errorf("%q: exit code %d, %q", args, code, errOut)
		}
		if args[0] == "ls" && len(args) < 2 && (!strings.Contains(out, "healthy1") || !strings.Contains(errOut, fmt.Sprintf("%d session files could not be read", len(ids)))) {
			t.Errorf("%q: %q %q", args, out, errOut)
		}
		if planted && (out != "" || strings.Count(errOut, "\n") != 1) {
			t.Errorf("%q: %q %q", args, out, errOut)
		}
	}
	wantSnapshot(t, parent, before)

	// Commands that change remove only the sessions that they are told to.
	if code, out, errOut := commandOutput(t, "rm", "--dir", dir, "--all", "--yes"); code != exitWrong || !strings.HasPrefix(out, "ended 2 sessions\n") {
		t.Errorf("rm --all: %d, %q, %q", code, out, errOut)
	}
	for _, id := range ids {
		if _, err := os.Lstat(at(id)); err != nil {
			t.Errorf("rm --all took %s", id)
		}
		commandOutput(t, "set", "--dir", dir, id, "x", "1")
		commandOutput(t, "rm", "--dir", dir, id, "--yes")
		if _, err := os.Lstat(at(id)); (err == nil) != strings.Contains(id, "directory") {
			t.Errorf("rm %s: %v", id, err)
		}
	}
	if data, err := os.ReadFile(secret); err != nil || !strings.Contains(string(data), "OUTSIDE") {
		t.Errorf("the file outside: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "made")); err == nil {
		t.Error("the target of a dangling link was made")
	}
}

func wantSnapshot(t *testing.T, dir string, before []string) {
	t.Helper()
	after, err := snapshot(dir)
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("changed, %v: gone: %s\nnew: %s", err, missingIn(after, before), missingIn(before, after))
	}
}

// A file that is replaced all the time is read whole or not at all, never as a mixture.
func TestReadBesideWriter(t *testing.T) {
	dir := t.TempDir()
	contents := func(c string) string {
		return `"a":"` + strings.Repeat(c, 3000) + `","b":"` + strings.Repeat(c, 3000) + `"`
	}
	mustWrite(t, nodeSession{dir: dir, id: "busy0001busy0001", members: contents("x")})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			nodeSession{dir: dir + "/tmp", id: "t", members: contents(string("xyz"[i%3]))}.write()
			os.Rename(filepath.Join(dir, "tmp", "t.json"), filepath.Join(dir, "busy0001busy0001.json"))
		}
	}()
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context()}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for range 500 {
		e, err := r.read("busy0001busy0001.json")
		if err != nil {
			t.Errorf("read: %v", err)
			break
		}
		if va, vb := a.value(e.document(), "a"), a.value(e.document(), "b"); va != vb {
			t.Errorf("a is %q and b is %q", va, vb)
		}
	}
	close(stop)
	<-stopped
}

// As another user who may read, if the test may become one.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "only root can become another user")
	}
	// Not in the test's own directory: nobody may enter that.
	parent, err := os.MkdirTemp("", "filestore")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir := filepath.Join(parent, "sessions")
	mustWrite(t, nodeSession{dir: dir, id: "healthy1healthy1", members: `"user":"anna"`})
	mustWrite(t, nodeSession{dir: dir, id: "dead0001dead0001", age: 3 * time.Hour})
	mustWrite(t, nodeSession{dir: dir, id: "private1private1", members: `"user":"bert"`})
	mustWrite(t, nodeSession{dir: dir, id: "foreign1foreign1", members: `"user":"carl"`})
	const site, stranger, operator = 54321, 54322, 54323
	binary := filepath.Join(parent, "filestore") // go test's binary is in a directory that nobody else may enter
	self, _ := os.Executable()
	data, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(binary, data, 0o755)
	}
	for _, step := range []error{
		err, os.Chmod(parent, 0o755), os.Chmod(dir, 0o555), os.Chmod(binary, 0o755), os.Chown(dir, site, site),
		os.Chmod(filepath.Join(dir, "healthy1healthy1.json"), 0o644), os.Chown(filepath.Join(dir, "healthy1healthy1.json"), site, site),
		os.Chmod(filepath.Join(dir, "dead0001dead0001.json"), 0o644), os.Chown(filepath.Join(dir, "dead0001dead0001.json"), site, site),
		os.Chown(filepath.Join(dir, "private1private1.json"), site, site),
		os.Chmod(filepath.Join(dir, "foreign1foreign1.json"), 0o644), os.Chown(filepath.Join(dir, "foreign1foreign1.json"), stranger, stranger),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	before, err := snapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	as := func(args ...string) (out, errOut string, code int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := process(t, ctx, append(args, "--dir", dir)...)
		cmd.Path = binary
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: operator, Gid: operator}}
		cmd.Dir = "/"
		var o, e bytes.Buffer
		cmd.Stdout, cmd.Stderr = &o, &e
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return o.String(), e.String(), cmd.ProcessState.ExitCode()
	}
	for _, args := range looking {
		as(args...)
	}
	// Of four two are readable and the directory owner's.
	out, errOut, code := as("ls", "--full", "--show", "user")
	if !strings.Contains(out, "healthy1healthy1") || !strings.Contains(out, "dead0001dead0001") || strings.Contains(out, "bert") || strings.Contains(out, "carl") ||
		code != exitWrong || !strings.HasPrefix(errOut, "filestore: 2 session files could not be read") {
		t.Errorf("ls: %q, %q, %d", out, errOut, code)
	}
	if out, errOut, code := as("show", "private1"); code != exitWrong || errOut != "filestore: private1…: permission denied\n" {
		t.Errorf("show: %q, %q, %d", out, errOut, code)
	}
	if out, errOut, code := as("show", "foreign1"); code != exitWrong || errOut != "filestore: foreign1…: unsafe file: it is another user's\n" {
		t.Errorf("show: %q, %q, %d", out, errOut, code)
	}
	// What would change fails, in words.
	for _, args := range [][]string{{"set", "healthy1", "x", "1"}, {"unset", "healthy1", "user"}, {"rm", "healthy1", "--yes"}, {"rm", "--all", "--yes"}, {"reap"}} {
		out, errOut, code := as(args...)
		if code != exitRefused || !strings.Contains(errOut, "permission denied; run as the directory's owner") {
			t.Errorf("%q: %q, %q, %d", args, out, errOut, code)
		}
	}
	wantSnapshot(t, dir, before)
	// And without the right to list it.
	os.Chmod(dir, 0o711)
	if out, errOut, code := as("ls"); code != exitRefused || !strings.Contains(errOut, "permission denied") {
		t.Errorf("ls: %q, %q, %d", out, errOut, code)
	}
}
