package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A disk is a block device whose power can fail. It is the only file of a FUSE file system. A loop device
// lies on it, and a real file system on that. Writes since the last flush are in the cache of the disk, and
// a power cut keeps any part of them.
type disk struct {
	fs.Inode
	dev   string // /dev/loop…
	point string // where the file system is mounted

	mu      sync.Mutex
	now     []byte  // what a read sees
	stable  []byte  // as it was at the last flush
	cache   []write // the writes since the last flush
	flushes int
}

type write struct {
	off  int64
	data []byte
}

// sector is the size that a disk writes as a whole.
const sector = 512

// newDisk makes a disk, makes a file system on it with mkfs, and mounts that with the options.
func newDisk(t *testing.T, size int, options string, mkfs ...string) *disk {
	t.Helper()
	d := &disk{now: make([]byte, size), stable: make([]byte, size), point: t.TempDir()}
	host := t.TempDir()
	server, err := fs.Mount(host, &root{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "filestore-fault", MaxWrite: 1 << 20,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	d.dev = loop(t, filepath.Join(host, "disk"))
	run(t, mkfs[0], append(mkfs[1:], d.dev)...)
	mount(t, d.dev, d.point, options)
	return d
}

// loop makes a loop device of the file.
func loop(t *testing.T, file string) (dev string) {
	t.Helper()
	dev = strings.TrimSpace(run(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

func mount(t *testing.T, dev, point, options string) (unmount func()) {
	t.Helper()
	run(t, "mount", "-o", options, dev, point)
	unmount = sync.OnceFunc(func() { umount(t, point) })
	t.Cleanup(unmount)
	return unmount
}

// umount waits for a worker that was killed with its strace, and is just ending.
func umount(t *testing.T, point string) {
	t.Helper()
	for range 100 {
		if exec.Command("umount", point).Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	run(t, "umount", point)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%s %v: %v %s", name, args, err, exit.Stderr)
	}
	return string(out)
}

// cut writes the state of the disk after a power cut at this moment to the file image. All flushed sectors
// are in it. Each sector that was written since has its old or its new state.
func (d *disk) cut(image string, rnd *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := append([]byte(nil), d.stable...)
	keep := rnd.Float64() // from nothing to all
	for _, w := range d.cache {
		for i := 0; i < len(w.data); i += sector {
			if end := min(i+sector, len(w.data)); rnd.Float64() < keep {
				copy(left[w.off+int64(i):], w.data[i:end])
			}
		}
	}
	return os.WriteFile(image, left, 0o600)
}

type root struct {
	fs.Inode
	disk *disk
}

func (r *root) OnAdd(ctx context.Context) {
	r.AddChild("disk", r.NewPersistentInode(ctx, r.disk, fs.StableAttr{Mode: syscall.S_IFREG}), true)
}

func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(len(d.now))
	return 0
}

func (d *disk) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return 0 // only times change, which nobody reads
}

func (d *disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (d *disk) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(dest, d.now[min(off, int64(len(d.now))):])
	return fuse.ReadResultData(dest[:n]), 0
}

func (d *disk) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off+int64(len(data)) > int64(len(d.now)) {
		return 0, syscall.ENOSPC
	}
	copy(d.now[off:], data)
	d.cache = append(d.cache, write{off, append([]byte(nil), data...)})
	return uint32(len(data)), 0
}

func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.cache {
		copy(d.stable[w.off:], w.data)
	}
	d.cache = nil
	d.flushes++
	return 0
}
