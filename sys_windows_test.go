package filestore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func setUmask(int) {}

func inode(fs.FileInfo) string { return "" }

// A virus scanner opens each file for itself alone, for 50 ms, the lock files too. No call fails.
func TestScanner(t *testing.T) {
	dir := t.TempDir()
	opts := patient()
	opts.CacheSize = -1
	s := open(t, dir, opts)
	const sessions = 20
	id := func(i int) string { return fmt.Sprintf("session-%02d", i) }
	for i := range sessions {
		set(t, s, id(i), "n", 0)
	}
	var scanned atomic.Int64
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				if scan(filepath.Join(dir, id(rand.N(sessions))+".json")) {
					scanned.Add(1)
				}
				if locks, _ := filepath.Glob(filepath.Join(dir, ".locks", "[0-9]*")); len(locks) > 0 && scan(locks[rand.N(len(locks))]) {
					scanned.Add(1)
				}
			}
		}
	}()
	for i := range storetest.Brief(200, 1000) {
		id := id(rand.N(sessions))
		err := s.Set(ctx, id, session(t, "n", i))
		if err == nil {
			_, err = s.Get(ctx, id)
		}
		if err == nil {
			err = s.Touch(ctx, id, nil)
		}
		if err == nil {
			err = s.Destroy(ctx, id)
		}
		if err == nil {
			if _, err = s.Get(ctx, id); errors.Is(err, filestore.ErrNotFound) {
				err = s.Set(ctx, id, session(t, "n", i))
			}
		}
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	close(end)
	<-ended
	if scanned.Load() < 5 {
		t.Errorf("only %d files were open meanwhile", scanned.Load())
	}
}

// scan keeps a file for itself alone for 50 ms, and reports whether it could.
func scan(name string) bool {
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return false
	}
	h, err := windows.CreateFile(name16, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return false
	}
	time.Sleep(50 * time.Millisecond)
	windows.CloseHandle(h)
	return true
}

// No call leaves a handle open, whatever comes of it.
func TestHandles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	write(t, dir, "corrupt.json", "{")
	os.Mkdir(filepath.Join(dir, "dir.json"), 0o700)
	set(t, s, "two")
	os.Link(filepath.Join(dir, "two.json"), filepath.Join(dir, "names.json"))
	round := func() {
		set(t, s, "id", "user", "anna")
		for _, id := range []string{"id", "none", "corrupt", "dir", "two"} {
			s.Get(ctx, id)
			s.Touch(ctx, id, &filestore.Cookie{Path: fmt.Sprint("/", time.Now().UnixNano())})
			s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("user", "bert") })
		}
		found(s, "user", "bert")
		s.Reap(ctx)
		s.Destroy(ctx, "id")
	}
	count := func() (n uint32) {
		proc := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetProcessHandleCount")
		if ok, _, err := proc.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&n))); ok == 0 {
			t.Fatal(err)
		}
		return n
	}
	round()
	const rounds, room = 200, 100 // the runtime's threads have handles too
	before := count()
	for range rounds {
		round()
	}
	if after := count(); after > before+room {
		t.Errorf("%d handles after %d rounds, %d before", after, rounds, before)
	}
}

// A file that is missing for a moment, as on NTFS now and then one that is being replaced, is there for all who ask.
func TestMissingForAMoment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	set(t, s, "id", "n", 1)
	end, ended := make(chan struct{}), make(chan struct{})
	moves := 0
	var longest atomic.Int64 // that it was missing
	go func() {
		defer close(ended)
		here, there := filepath.Join(dir, "id.json"), filepath.Join(dir, "moved")
		for {
			select {
			case <-end:
				return
			default:
			}
			if err := os.Rename(here, there); err != nil { // somebody reads it
				continue
			}
			moves++
			start := time.Now()
			for os.Rename(there, here) != nil {
			}
			longest.Store(max(longest.Load(), int64(time.Since(start))))
			time.Sleep(3 * time.Millisecond)
		}
	}()
	for range 300 {
		longest.Store(0)
		if _, err := s.Get(ctx, "id"); err != nil {
			time.Sleep(20 * time.Millisecond)
			if d := time.Duration(longest.Load()); d < 2*time.Millisecond { // more is not a moment
				t.Errorf("Get = %v, but the file was missing for %v", err, d)
			}
		}
	}
	close(end)
	<-ended
	if moves < 10 {
		t.Errorf("the file was missing %d times only", moves)
	}
}

// The second name that Windows gives to a file is not another session.
func TestShortName(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.Extension = ".ses"
	s := open(t, dir, o)
	set(t, s, "abcdefghijkl")
	path, err := windows.UTF16PtrFromString(filepath.Join(dir, "abcdefghijkl.ses"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]uint16, windows.MAX_LONG_PATH)
	if _, err := windows.GetShortPathName(path, &buf[0], uint32(len(buf))); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(windows.UTF16ToString(buf))
	if !strings.Contains(name, "~") {
		skip.Test(t, "this volume has no short names")
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSuffix(strings.ToLower(name), ".ses")
	_, err = s.Get(ctx, id)
	wantErr(t, "Get", err, filestore.ErrInvalidID)
	wantErr(t, "Destroy", s.Destroy(ctx, id), filestore.ErrInvalidID)
	get(t, s, "abcdefghijkl")
}

// The read-only attribute, as a file may have that was copied back, keeps no session from being written and removed.
func TestReadOnlyAttribute(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	set(t, s, "id", "n", 1)
	for name, op := range map[string]func() error{
		"Set":     func() error { return s.Set(ctx, "id", session(t, "n", 1)) },
		"Update":  func() error { return increment(s, "id") },
		"Touch":   func() error { return s.Touch(ctx, "id", &filestore.Cookie{Path: "/touched"}) },
		"Destroy": func() error { return s.Destroy(ctx, "id") },
	} {
		set(t, s, "id", "n", 1)
		if err := os.Chmod(filepath.Join(dir, "id.json"), 0o444); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := op(); err != nil || time.Since(start) > time.Second {
			t.Errorf("%s = %v after %v", name, err, time.Since(start))
		}
	}
}
