package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// fill is how often a document says who wrote it. That is more than a page, so that a torn file shows.
const fill = 1000

func goDoc(t *testing.T, n int64) *filestore.Session {
	t.Helper()
	by := fmt.Sprintf("go%d", n)
	s := new(filestore.Session)
	for key, v := range map[string]string{"by": by, "fill": strings.Repeat(by, fill), "end": by} {
		if err := s.Put(key, v); err != nil {
			t.Error(err)
		}
	}
	return s
}

// whole returns who wrote the session, and an error if it is mixed.
func whole(s *filestore.Session) (by string, err error) {
	by, err1 := filestore.Value[string](s, "by")
	text, err2 := filestore.Value[string](s, "fill")
	end, err3 := filestore.Value[string](s, "end")
	if err := errors.Join(err1, err2, err3); err != nil {
		return "", err
	}
	if by == "" || end != by || text != strings.Repeat(by, fill) {
		return "", fmt.Errorf("torn: by %q, end %q, %d bytes", by, end, len(text))
	}
	return by, nil
}

// A reader, in Go or in Node, sees one whole value that either side has written. There is no third
// possibility, and the session is never missing.
func TestRace(t *testing.T) {
	t.Parallel()
	t.Run("25 writers and readers of both on one session", func(t *testing.T) {
		const duration = 2 * time.Second
		dir := t.TempDir()
		store := open(t, dir, nil)
		must(t, store.Set(ctx, anID, goDoc(t, 0)))
		writer, reader := driver(t), driver(t)
		args := func(n *Node) object {
			return object{"store": nodeOpen(t, n, dir, nil).num, "sid": anID, "ms": duration.Milliseconds(), "fill": fill}
		}
		writerArgs, readerArgs := args(writer), args(reader)
		type seen struct {
			Node, Go int
			Errors   []string
		}
		var (
			wg         sync.WaitGroup
			nodeWrites int
			nodeReads  seen
			goWrites   atomic.Int64
			goReads    [2]atomic.Int64 // of values that Go wrote, and that Node wrote
			failures   atomic.Int64
			stop       = time.Now().Add(duration)
		)
		fail := func(format string, args ...any) {
			if failures.Add(1) <= 5 {
				t.Errorf(format, args...)
			}
		}
		wg.Go(func() {
			if err := writer.Call("write", writerArgs, &nodeWrites); err != nil {
				fail("Node's writer: %v", err)
			}
		})
		wg.Go(func() {
			if err := reader.Call("read", readerArgs, &nodeReads); err != nil {
				fail("Node's reader: %v", err)
			}
		})
		for range 2 {
			wg.Go(func() {
				for time.Now().Before(stop) {
					if err := store.Set(ctx, anID, goDoc(t, goWrites.Add(1))); err != nil {
						fail("Set() = %v", err)
					}
				}
			})
			wg.Go(func() {
				for time.Now().Before(stop) {
					s, err := store.Get(ctx, anID)
					if err != nil {
						fail("Get() = %v", err)
						continue
					}
					by, err := whole(s)
					if err != nil {
						fail("Get(): %v", err)
					}
					if strings.HasPrefix(by, "node") {
						goReads[1].Add(1)
					} else {
						goReads[0].Add(1)
					}
				}
			})
		}
		wg.Wait()
		for _, err := range nodeReads.Errors {
			t.Errorf("Node's get: %s", err)
		}
		t.Logf("writes: Go %d, Node %d; Go read %d of Go's and %d of Node's, Node %d and %d",
			goWrites.Load(), nodeWrites, goReads[0].Load(), goReads[1].Load(), nodeReads.Go, nodeReads.Node)
		if nodeWrites == 0 || goReads[0].Load() == 0 || goReads[1].Load() == 0 || nodeReads.Go == 0 || nodeReads.Node == 0 {
			t.Error("somebody has seen nothing of the other: the race did not take place")
		}
		s, err := store.Get(ctx, anID)
		if err != nil {
			t.Fatalf("Get() at the end = %v", err)
		}
		if _, err := whole(s); err != nil {
			t.Errorf("at the end: %v", err)
		}
	})

	t.Run("15 Go's replacing leaves no moment without the file", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		must(t, store.Set(ctx, anID, goDoc(t, 0)))
		reader := driver(t)
		args := object{"store": nodeOpen(t, reader, dir, object{"retries": 0}).num, "sid": anID, "ms": 500, "fill": fill}
		done := make(chan struct{})
		var got struct {
			Go     int
			Errors []string
		}
		var err error
		go func() {
			defer close(done)
			err = reader.Call("read", args, &got)
		}()
		for i := int64(1); ; i++ {
			select {
			case <-done:
				if err != nil || got.Go == 0 {
					t.Errorf("read = %+v, %v", got, err)
				}
				for _, err := range got.Errors {
					t.Errorf("Node's get: %s", err)
				}
				return
			default:
			}
			must(t, store.Set(ctx, anID, goDoc(t, i)))
		}
	})
}

// An Update of Go can be lost beside Node, which does not lock. The documentation says so.
func TestLostUpdate(t *testing.T) {
	t.Parallel()
	n := driver(t)
	dir, signals := t.TempDir(), t.TempDir()
	store := open(t, dir, &filestore.Options{TouchAfter: -1})
	plain := nodeOpen(t, n, dir, nil)
	views := func() int {
		t.Helper()
		s, err := store.Get(ctx, anID)
		if err != nil {
			t.Fatalf("Get() = %v", err)
		}
		v, err := filestore.Value[int](s, "views")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	set := func(v int) {
		t.Helper()
		s := new(filestore.Session)
		must(t, s.Put("views", v))
		must(t, store.Set(ctx, anID, s))
	}

	t.Run("26 one after the other loses nothing", func(t *testing.T) {
		set(1)
		must(t, plain.touch(anID, object{"cookie": object{"path": "/"}, "views": 7}))
		set(2)
		must(t, plain.touch(anID, object{"cookie": object{"path": "/"}}))
		must(t, store.Touch(ctx, anID, nil))
		if got := views(); got != 2 {
			t.Errorf("views = %d, want 2", got)
		}
	})

	t.Run("26 a Node touch undoes a Go set that it overlaps", func(t *testing.T) {
		set(1)
		reading, proceed := filepath.Join(signals, "reading"), filepath.Join(signals, "go")
		slow := nodeOpen(t, n, dir, object{"pause": object{"reading": reading, "go": proceed}})
		touched := make(chan error, 1)
		go func() { touched <- slow.touch(anID, object{"cookie": object{"path": "/"}}) }()
		for deadline := time.Now().Add(20 * time.Second); !exists(signals, "reading"); {
			if time.Now().After(deadline) {
				t.Fatal("Node does not read")
			}
			time.Sleep(time.Millisecond)
		}
		set(2) // takes the lock, which Node does not know
		must(t, os.WriteFile(proceed, nil, 0o600))
		must(t, <-touched)
		if got := views(); got != 1 {
			t.Errorf("views = %d, want Node's 1: has Node learnt to lock? Then the documentation is wrong", got)
		}
	})

	t.Run("26 a Go touch and a Node set: each whole", func(t *testing.T) {
		for i := range 20 {
			set(0)
			done := make(chan error, 1)
			go func() { done <- store.Touch(ctx, anID, nil) }()
			must(t, plain.set(anID, object{"cookie": object{"path": "/"}, "views": i}))
			must(t, <-done)
			if got := views(); got != i && got != 0 {
				t.Fatalf("views = %d, want %d or 0", got, i)
			}
		}
	})
}
