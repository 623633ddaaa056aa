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

// tick is the resolution of time stamps on a file system that takes them from the clock interrupt of the
// kernel. Newer kernels take fine stamps of a file that somebody has looked at.
const tick = 10 * time.Millisecond

// A coarse node is a file of another file system with coarse time stamps.
type coarse struct{ *fs.LoopbackNode }

func (n *coarse) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &coarse{ops.(*fs.LoopbackNode)}
}

func (n *coarse) Getattr(c context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	errno := n.LoopbackNode.Getattr(c, f, out)
	out.Ctimensec -= out.Ctimensec % uint32(tick)
	return errno
}

// E16: the cache sees changes on a file system that stamps in whole seconds.
func TestStampsOfSeconds(t *testing.T) {
	s := storetest.Open(t, image(t, "-O", "has_journal", "-I", "128"), nil)
	for n := 10; n < storetest.Long(13, 30); n++ {
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1005 * time.Millisecond)))
		for i, pause := range []time.Duration{40 * time.Millisecond, 0, 0} {
			_, err := operate(s, ask{Op: "set", ID: "id", N: 10*n + i})
			must(err)
			time.Sleep(pause)
			if i == 1 {
				continue // the next file gets its inode
			}
			if got, err := read(s, "id"); err != nil || got != 10*n+i {
				t.Fatalf("%d is read as %d, %v", 10*n+i, got, err)
			}
		}
	}
}

// E16: if a file system uses the inode of a removed file again at once, and its clock has not ticked, the
// new file looks the same. The cache does not take it for the old one.
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
			// The life is so long that its end cannot be a time stamp, so that the modification time is
			// always the same.
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
	t.Logf("the stamps of %d of 1000 new files were the same", same)
	if same == 0 {
		t.Error("all stamps differed: the test tests nothing")
	}
	w.must(t, ask{Op: "close"})
}
