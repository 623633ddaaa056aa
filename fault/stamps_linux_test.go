package fault

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// tick is that of a file system whose stamps are those of the kernel's clock interrupt. Newer kernels
// stamp finely what somebody has looked at.
const tick = 10 * time.Millisecond

// A coarse node is a file of another file system, stamped coarsely.
type coarse struct{ *fs.LoopbackNode }

func (n *coarse) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &coarse{ops.(*fs.LoopbackNode)}
}

func (n *coarse) Getattr(c context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	errno := n.LoopbackNode.Getattr(c, f, out)
	out.Ctimensec -= out.Ctimensec % uint32(tick)
	return errno
}

// E16: some file systems stamp in whole seconds.
func TestStampsOfSeconds(t *testing.T) {
	s := storetest.Open(t, image(t, "-O", "has_journal", "-I", "128"), nil)
	for n := 10; n < storetest.Long(13, 30); n++ {
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1005 * time.Millisecond)))
		for i, pause := range []time.Duration{40 * time.Millisecond, 0, 0} {
			_, err := operate(s, ask{Op: "set", ID: "id", N: 10*n + i})
			must(err)
			time.Sleep(pause)
			if i == 1 {
				continue // its file's inode is used again
			}
			if got, err := read(s, "id"); err != nil || got != 10*n+i {
				t.Fatalf("%d is read as %d, %v", 10*n+i, got, err)
			}
		}
	}
}

// E16: where a file system uses a removed file's inode again at once, and its clock has not ticked, the
// successor looks the same, but is not taken for it.
func TestSameStamps(t *testing.T) {
	need(t, "root", "losetup", "mkfs.ext4", "/dev/fuse")
	disk, point := image(t, "-O", "has_journal"), t.TempDir()
	root := &fs.LoopbackRoot{Path: disk}
	root.RootNode = &coarse{&fs.LoopbackNode{RootData: root}}
	server, err := fs.Mount(point, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Unmount() })

	w := newServer(t, point)
	defer w.Process.Kill() // before the file system goes
	w.must(t, ask{Op: "open", Options: filestore.Options{NoSync: true}})
	type look struct {
		inode        uint64
		mtime, ctime syscall.Timespec
	}
	file := func() look {
		var st syscall.Stat_t
		if err := syscall.Stat(disk+"/id.json", &st); err != nil {
			t.Fatal(err)
		}
		st.Ctim.Nsec -= st.Ctim.Nsec % int64(tick)
		return look{st.Ino, st.Mtim, st.Ctim}
	}
	same := 0
	for n := 100_000; n < 103_000; n += 3 {
		var before look
		for i := range 3 {
			// With a life so long that its end has no stamp, the modification time is always the same.
			w.must(t, ask{Op: "set", ID: "id", N: n + i, Age: 1<<63 - 1})
			if i == 1 {
				continue
			}
			if got := w.must(t, ask{Op: "get", ID: "id"}).N; got != n+i {
				t.Fatalf("%d is read as %d", n+i, got)
			}
			if i == 0 {
				before = file()
			} else if file() == before {
				same++
			}
		}
	}
	t.Logf("%d of 1000 successors could not be told by their stamps", same)
	if same == 0 {
		t.Error("all could be told by their stamps: the test tests nothing")
	}
	w.must(t, ask{Op: "close"})
}
