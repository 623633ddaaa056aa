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
)

// A directory that nothing can be written to, as a check of a read-only mount sees it.
func TestCheckReadOnlyMount(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "mounting needs root")
	}
	dir, _ := sessions(t, nil)
	put(t, dir, "open.json", document(time.Now(), "null", ""))
	os.Chmod(filepath.Join(dir, "open.json"), 0o644)
	if err := mountReadOnly(dir); err != nil {
		skip.Test(t, "no mounts here: "+err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	before := manifest(t, dir)
	findings, _ := checked(t, dir, "--fix")
	wantFindings(t, findings, "open.json", "note modes", "warning modes")
	if !strings.Contains(fmt.Sprint(findings), "not fixed: read-only file system") {
		t.Errorf("findings are %+v", findings)
	}
	wantSame(t, "check", before, manifest(t, dir))
}

func mountReadOnly(dir string) error {
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	return syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
}

// check says how often a write waits for the disk, and that an ext4 without a journal keeps no promise.
func TestCheckFlush(t *testing.T) {
	for _, tool := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			skip.Test(t, "mounting an image needs root and "+tool)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	for _, tt := range []struct{ journal, options, want string }{
		{"has_journal", "loop", "a write waits for one flush of the disk"},
		{"has_journal", "loop,barrier=0", "a write waits for two flushes of the disk"},
		{"^has_journal", "loop", "no journal: a power cut may take sessions"},
	} {
		image, point := filepath.Join(t.TempDir(), "image"), t.TempDir()
		if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		run("mkfs.ext4", "-q", "-O", tt.journal, image)
		run("mount", "-o", tt.options, image, point)
		dir := filepath.Join(point, "sessions")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Error(err)
		}
		out := command(t, "", "check", "--dir", dir).out
		if !strings.Contains(out, "note     flush         "+dir+": ") || !strings.Contains(out, tt.want) || strings.Count(out, " flush ") > 2 {
			t.Errorf("%s, %s: check printed %q, want %q", tt.journal, tt.options, out, tt.want)
		}
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}
