package filestore_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
)

// Watch yields no events of a store with another extension.
func TestWatchBesideAnotherExtension(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	plain := open(t, dir, o)
	o.Extension = ".admin.json"
	admin := open(t, dir, o)
	c, cancel := context.WithCancel(ctx)
	seen := make(chan string, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ev, err := range plain.Watch(c) {
			if err != nil {
				t.Error(err)
			}
			seen <- ev.ID
		}
	})
	defer wg.Wait()
	defer cancel()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		set(t, admin, "x")
		set(t, plain, "last")
		select {
		case id := <-seen:
			if id != "last" {
				t.Errorf("Watch yields %q", id)
			}
			return
		default:
		}
	}
	t.Error("Watch yields nothing")
}

func TestWatch(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	s := open(t, dir, quick())
	other := open(t, dir, quick())
	c, cancel := context.WithCancel(ctx)
	events := make(chan filestore.Event)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ev, err := range s.Watch(c) {
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
			select {
			case events <- ev:
			case <-c.Done():
			}
		}
	}()
	// until repeats do until the event comes: the watch may just be starting.
	until := func(want filestore.Event, do func()) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			do()
			retry := time.After(100 * time.Millisecond)
		wait:
			for {
				select {
				case ev := <-events:
					if ev == want {
						return
					}
					if !filestore.ValidID(ev.ID) {
						t.Errorf("event %v", ev)
					}
				case <-retry:
					break wait
				case <-deadline:
					t.Fatalf("no event %v", want)
				}
			}
		}
	}
	until(filestore.Event{Op: filestore.Changed, ID: "a"}, func() { set(t, other, "a") })
	until(filestore.Event{Op: filestore.Changed, ID: "b"}, func() { write(t, dir, "b.json", doc(nowMs(), "")) })
	until(filestore.Event{Op: filestore.Destroyed, ID: "a"}, func() { set(t, other, "a"); other.Destroy(ctx, "a") })
	until(filestore.Event{Op: filestore.Destroyed, ID: "b"}, func() {
		write(t, dir, "b.json", "")
		os.Rename(filepath.Join(dir, "b.json"), filepath.Join(parent, "b"))
	})
	cancel()
	<-done
}

// B14: Watch ends when the directory is replaced.
func TestWatchReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	s := open(t, dir, quick())
	ended := make(chan error, 1)
	go func() {
		for _, err := range s.Watch(ctx) {
			if err != nil {
				ended <- err
			}
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if err := os.Rename(dir, dir+".old"); err != nil {
		skip.Test(t, "an open directory cannot be moved here: "+err.Error())
	}
	os.Mkdir(dir, 0o700)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("Watch goes on although the directory was replaced")
	}
}
