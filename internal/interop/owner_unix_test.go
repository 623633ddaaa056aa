//go:build unix

package interop

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// A root process that uses the directory of another user does not lock its owner out.
func TestOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		skip.Test(t, "only root can give files away")
	}
	const uid = 65534
	n := driver(t)
	dir := t.TempDir()
	must(t, os.Chown(dir, uid, uid))
	store := open(t, dir, nil)
	file := nodeOpen(t, n, dir, nil)
	owner := func() int {
		t.Helper()
		fi, err := os.Stat(filepath.Join(dir, anID+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return int(fi.Sys().(*syscall.Stat_t).Uid)
	}
	t.Run("24 root's writing leaves a file to the directory's owner", func(t *testing.T) {
		must(t, store.Set(ctx, anID, goValues(t)))
		if got := owner(); got != uid {
			t.Errorf("after Go's Set the owner is %d, want %d", got, uid)
		}
		must(t, file.touch(anID, object{"cookie": object{}}))
		if got := owner(); got != uid {
			t.Errorf("after Node's touch the owner is %d, want %d", got, uid)
		}
		must(t, store.Destroy(ctx, anID))
		must(t, file.set(anID, object{"cookie": object{}})) // the file is root's
		if _, err := store.Get(ctx, anID); err != nil {
			t.Errorf("Get() of root's file = %v", err)
		}
	})
}
