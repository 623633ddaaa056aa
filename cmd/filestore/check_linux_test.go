package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/interop"
)

// A directory that nothing can be written to, as a check of a read-only mount sees it.
func TestCheckReadOnlyMount(t *testing.T) {
	if os.Geteuid() != 0 {
		interop.Skip(t, "mounting needs root")
	}
	dir, _ := sessions(t, nil)
	put(t, dir, "open.json", document(time.Now(), "null", ""))
	os.Chmod(filepath.Join(dir, "open.json"), 0o644)
	if err := mountReadOnly(dir); err != nil {
		interop.Skip(t, "no mounts here: "+err.Error())
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
