package fault

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	fsdisk "github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// fileSystems are the file systems on which the power is cut.
var fileSystems = []struct {
	name  string
	size  int
	mkfs  []string
	mount string // options
	twin  string // the option to mount a copy beside the original
	over  bool   // with an overlayfs on top
	long  bool   // in the long form only
}{
	{"ext4", 32 << 20, []string{"mkfs.ext4", "-q", "-O", "has_journal"}, "noatime", "", false, false},
	{"ext4, noauto_da_alloc", 32 << 20, []string{"mkfs.ext4", "-q", "-O", "has_journal"}, "noatime,noauto_da_alloc", "", false, true},
	{"ext4, data=writeback", 32 << 20, []string{"mkfs.ext4", "-q", "-O", "has_journal"}, "noatime,data=writeback", "", false, true},
	{"btrfs", 128 << 20, []string{"mkfs.btrfs", "-q"}, "noatime", "", false, true},
	{"xfs", 320 << 20, []string{"mkfs.xfs", "-q"}, "noatime", ",nouuid", false, true},
	{"overlay on ext4", 32 << 20, []string{"mkfs.ext4", "-q", "-O", "has_journal"}, "noatime", "", true, false},
}

// onEach runs test on each file system.
func onEach(t *testing.T, test func(t *testing.T, p *plant)) {
	for _, f := range fileSystems {
		if f.long && storetest.Long(0, 1) == 0 {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			need(t, "root", "losetup", "/dev/fuse", "strace", f.mkfs[0])
			p := &plant{t: t, rnd: dice(t), known: make(map[string]int), options: "loop,noatime" + f.twin}
			p.opts.TouchAfter = -1
			p.disk = newDisk(t, f.size, f.mount, f.mkfs...)
			p.point = p.disk.point
			if f.over {
				p.point, p.under = overlay(t, p.disk.point), "upper"
			}
			neighbour(t, p.point)
			p.worker = newServer(t, p.point)
			test(t, p)
		})
	}
}

// P1 to P3, H2 to H4: after a power cut at any moment each session is the one that was acknowledged last, or
// the one that was being written. A logout stays. A store that was made just before is there.
func TestPowerCut(t *testing.T) {
	onEach(t, func(t *testing.T, p *plant) {
		rounds := storetest.Long(40, 400)
		for i := range rounds {
			if i == rounds/2 {
				p.slow()
			}
			if err := p.round(); err != nil {
				t.Fatal(err)
			}
		}
		p.disk.mu.Lock()
		defer p.disk.mu.Unlock()
		t.Logf("%d power cuts, %d in the middle of an operation; %d operations acknowledged, %d flushes",
			p.cuts, p.amid, p.acked, p.disk.flushes)
	})
}

// Clear flushes once, at its end. After a power cut in the middle what it came to first is gone, and each other session
// is whole; a Clear that has returned stays. The next one works.
func TestPowerCutClear(t *testing.T) {
	onEach(t, func(t *testing.T, p *plant) {
		const sessions = 60
		partly := 0
		p.worker = newServer(t, p.point, "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=unlinkat",
			"-e", "inject=unlinkat:delay_exit=1000") // so that the neighbour's flushes commit some of the removals
		for round := 0; round < storetest.Long(12, 120) || partly == 0 && round < 100; round++ {
			p.dir = fmt.Sprintf("clear-%d", round)
			p.worker.must(t, ask{Op: "open", ID: p.dir})
			for i := range sessions {
				p.worker.must(t, ask{Op: "set", ID: fmt.Sprint("s", i), N: 1 + i, Size: 300})
			}
			dir, err := os.Open(filepath.Join(p.point, p.dir))
			must(err)
			names, err := dir.Readdirnames(-1) // in the order of Clear
			must(errors.Join(err, dir.Close()))
			p.worker.begin(t, ask{Op: "clear"})
			done := round%4 == 3
			if done {
				if r := p.worker.end(t); r.Err != "" {
					t.Fatal(r.Err)
				}
			} else {
				time.Sleep(time.Duration(p.rnd.IntN(100)) * time.Millisecond)
			}
			image := filepath.Join(t.TempDir(), "image")
			must(p.disk.cut(image, p.rnd))
			left, err := p.cleared(image, names)
			if err != nil {
				t.Fatal(err)
			}
			if done && left > 0 {
				t.Errorf("%d sessions came back after Clear had returned", left)
			}
			if 0 < left && left < sessions {
				partly++
			}
			if !done {
				if r := p.worker.end(t); r.Err != "" {
					t.Fatal(r.Err)
				}
			}
			p.worker.must(t, ask{Op: "close"})
			must(errors.Join(os.Remove(image), os.RemoveAll(filepath.Join(p.point, p.dir)))) // the disk is small
		}
		t.Logf("%d cuts were in the middle of the removals", partly)
		if partly == 0 {
			t.Error("no cut was in the middle of the removals: the test sees nothing")
		}
	})
}

// cleared looks at what is left of a Clear of the files of names, in their order, and clears that.
func (p *plant) cleared(image string, names []string) (left int, err error) {
	mounted := p.t.TempDir()
	defer mount(p.t, image, mounted, p.options)()
	s, err := filestore.Open(filepath.Join(mounted, p.under, p.dir), &filestore.Options{ReapInterval: -1})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".json")
		if !ok {
			continue
		}
		n, err := read(s, id)
		switch {
		case err != nil:
			return left, fmt.Errorf("%s: %w", id, err)
		case n == 0 && left > 0:
			return left, fmt.Errorf("%s is gone, and %d before it are not", id, left)
		case n != 0 && fmt.Sprint("s", n-1) != id:
			return left, fmt.Errorf("%s is %d", id, n)
		case n != 0:
			left++
		}
	}
	if err := s.Clear(ctx); err != nil {
		return left, err
	}
	if n, err := s.Len(ctx); n != 0 || err != nil {
		return left, fmt.Errorf("after the next Clear there are %d: %w", n, err)
	}
	return left, s.Set(ctx, "next", new(filestore.Session))
}

// The test of power cuts has teeth: if nothing is flushed, they lose acknowledged sessions.
func TestPowerCutHasTeeth(t *testing.T) {
	onEach(t, func(t *testing.T, p *plant) {
		p.dir = "sessions"
		p.worker.must(t, ask{Op: "open", ID: p.dir})
		p.worker.must(t, ask{Op: "close"})
		p.opts.NoSync = true
		p.worker.must(t, ask{Op: "open", ID: p.dir, Options: p.opts})
		for range 40 {
			if err := p.round(); err != nil {
				t.Log("as it must:", err)
				return
			}
		}
		t.Error("40 power cuts have lost nothing of what was never flushed: the test sees nothing")
	})
}

// overlay mounts an overlayfs whose upper directory is the directory upper in dir.
func overlay(t *testing.T, dir string) (point string) {
	t.Helper()
	for _, name := range []string{"lower", "upper", "work"} {
		must(os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	point = t.TempDir()
	run(t, "mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir), "overlay", point)
	t.Cleanup(func() { umount(t, point) })
	return point
}

// neighbour writes and flushes files of its own beside the stores, until the end of the test. A flush can
// commit everybody's work: without it a test never sees the worker's operations committed when they are
// half done.
func neighbour(t *testing.T, point string) {
	dir := filepath.Join(point, "neighbour")
	must(os.Mkdir(dir, 0o700))
	stop := make(chan bool)
	var done sync.WaitGroup
	done.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
			}
			if err := flushed(filepath.Join(dir, fmt.Sprint(n%4)), []byte(fmt.Sprint(n))); err != nil {
				t.Errorf("the neighbour: %v", err)
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); done.Wait() })
}

// flushed replaces the file name, and flushes it and its directory.
func flushed(name string, data []byte) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// A plant is a worker on a disk whose power is cut again and again.
type plant struct {
	t    *testing.T
	rnd  *rand.Rand
	disk *disk

	options string // to mount the disk after a cut
	point   string // where the worker is
	under   string // the same directory, below the disk's
	worker  *server
	opts    filestore.Options
	known   map[string]int // the n acknowledged last, by directory and id
	dir     string         // the directory of the worker's store
	old     string         // the one before
	slowed  bool           // see slow
	n       int

	cuts, amid, acked int
}

// slow goes on with a worker that sleeps after each rename. So the neighbour's flushes commit the rename, and
// the power is cut, before the worker does what comes next. Most of its sessions are new: ext4 writes out by
// itself what is renamed over another file.
func (p *plant) slow() {
	p.slowed = true
	p.worker.must(p.t, ask{Op: "close"})
	p.dir = ""
	p.worker = newServer(p.t, p.point, "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=renameat,renameat2",
		"-e", "inject=renameat,renameat2:delay_exit=10000")
}

// round waits for some operations, may begin another, and cuts the power.
func (p *plant) round() error {
	if p.dir == "" || p.rnd.IntN(10) == 0 {
		if p.dir != "" {
			p.worker.must(p.t, ask{Op: "close"})
		}
		// Only the sessions of the last two directories are checked.
		maps.DeleteFunc(p.known, func(key string, _ int) bool { return !strings.HasPrefix(key, p.dir+"/") })
		p.n++
		if p.old != "" { // the disk is small
			must(os.RemoveAll(filepath.Join(p.point, filepath.Dir(p.old))))
		}
		p.old, p.dir = p.dir, fmt.Sprintf("new-%d/sessions", p.n)
		p.worker.must(p.t, ask{Op: "open", ID: p.dir, Options: p.opts})
		if p.rnd.IntN(2) == 0 {
			return p.cut(ask{})
		}
	}
	for range 1 + p.rnd.IntN(6) {
		a := p.next()
		p.worker.must(p.t, a)
		p.acked++
		p.known[p.dir+"/"+a.ID] = a.N
	}
	var amid ask
	if p.slowed || p.rnd.IntN(2) == 0 {
		amid = p.next()
		p.worker.begin(p.t, amid)
		within := 3000
		if p.slowed {
			within = 15_000
		}
		time.Sleep(time.Duration(p.rnd.IntN(within)) * time.Microsecond)
		p.amid++
	}
	err := p.cut(amid)
	if amid.Op != "" {
		if r := p.worker.end(p.t); r.Err != "" {
			p.t.Fatal(r.Err)
		}
		p.known[p.dir+"/"+amid.ID] = amid.N
	}
	return err
}

// cut cuts the power, maybe in the middle of an operation, and checks what is left.
func (p *plant) cut(amid ask) error {
	p.cuts++
	image := filepath.Join(p.t.TempDir(), "image")
	defer os.Remove(image)
	if err := p.disk.cut(image, p.rnd); err != nil {
		return err
	}
	return p.check(image, amid)
}

// next returns a random operation that succeeds. N is 0 for a destroy.
func (p *plant) next() ask {
	p.n++
	a := ask{Op: "set", ID: fmt.Sprint("s", p.rnd.IntN(8)), N: p.n, Size: p.rnd.IntN(6000)}
	there := p.known[p.dir+"/"+a.ID] != 0
	switch dice := p.rnd.IntN(10); {
	case there && dice < 4:
		a.Op = "update"
	case there && dice < 6:
		a.Op, a.N = "destroy", 0
	case there && dice < 8: // it may be undone, but the session stays
		a.Op, a.N = "touch", p.known[p.dir+"/"+a.ID]
	case dice == 9, p.slowed:
		a.ID = fmt.Sprint("new", p.n)
	}
	return a
}

// check mounts the image, as after a restart of the machine, and checks the sessions.
func (p *plant) check(image string, amid ask) error {
	mounted := p.t.TempDir()
	unmount := mount(p.t, image, mounted, p.options)
	defer unmount()
	point := filepath.Join(mounted, p.under)
	if _, err := os.Stat(filepath.Join(point, p.dir)); err != nil {
		return fmt.Errorf("the store is gone: %w", err)
	}
	stores := make(map[string]*filestore.Store)
	known := maps.Clone(p.known)
	if key := p.dir + "/" + amid.ID; amid.Op != "" && known[key] == 0 { // a new session is whole, or not there
		known[key] = 0
	}
	for key, want := range known {
		dir, id := filepath.Split(key)
		s := stores[dir]
		if s == nil {
			var err error
			if s, err = filestore.Open(filepath.Join(point, dir), &filestore.Options{ReapInterval: -1}); err != nil {
				return err
			}
			defer s.Close()
			stores[dir] = s
		}
		got, err := read(s, id)
		if err != nil {
			return fmt.Errorf("after cut %d: %s: %w", p.cuts, id, err)
		}
		now := strings.TrimSuffix(dir, "/") == p.dir && id == amid.ID
		if got != want && !(now && got == amid.N) {
			return fmt.Errorf("after cut %d: %s is %d, acknowledged was %d; under way: %s %s %d", p.cuts, id, got, want, amid.Op, amid.ID, amid.N)
		}
	}
	for dir, s := range stores {
		if _, err := s.Reap(ctx); err != nil {
			return err
		}
		storetest.Sweep(p.t, filepath.Join(point, dir))
		if err := s.Set(ctx, "next", new(filestore.Session)); err != nil {
			return err
		}
	}
	return nil
}

// One flush commits a write only if the file system is known to commit in order. In doubt there are two.
func TestOrdered(t *testing.T) {
	need(t, "root", "losetup", "mkfs.ext4")
	ext4 := func(options string, mkfs ...string) string {
		point := image(t, mkfs...)
		if options != "" {
			run(t, "mount", "-o", "remount,"+options, point)
		}
		return point
	}
	for _, tt := range []struct {
		what, point           string
		ordered, unjournalled bool
	}{
		{"ext4", ext4("", "-O", "has_journal"), true, false},
		{"ext4 without barriers", ext4("barrier=0", "-O", "has_journal"), false, false},
		{"ext4 without a journal", ext4("", "-O", "^has_journal"), false, true},
		{"tmpfs", "/dev/shm", false, false},
		{"overlayfs on ext4", overlay(t, image(t, "-O", "has_journal")), false, false},
	} {
		d, err := fsdisk.Open(tt.point, fsdisk.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Ordered(); got != tt.ordered {
			t.Errorf("%s commits in order: %v", tt.what, got)
		}
		if got := d.Unjournalled(); got != tt.unjournalled {
			t.Errorf("%s has no journal: %v", tt.what, got)
		}
		d.Close()
	}
}
