package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func TestClose(t *testing.T) {
	dir := t.TempDir()
	s, err := filestore.Open(dir, quick())
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, "id")
	// E14: Close beside every operation. An operation that has begun succeeds or fails with ErrClosed.
	var wg sync.WaitGroup
	for name, op := range ops(s) {
		wg.Go(func() {
			for {
				if err := op("id"); errors.Is(err, filestore.ErrClosed) {
					return
				} else if err != nil && !errors.Is(err, filestore.ErrNotFound) && !errors.Is(err, fs.ErrExist) {
					t.Errorf("%s beside Close = %v", name, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for {
			if _, err := s.Reap(ctx); errors.Is(err, filestore.ErrClosed) {
				return
			} else if err != nil {
				t.Errorf("Reap beside Close = %v", err)
				return
			}
		}
	})
	watching := make(chan error, 1)
	wg.Go(func() {
		for _, err := range s.Watch(ctx) {
			if err != nil {
				watching <- err
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	for range 3 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		})
	}
	wg.Wait()
	wantErr(t, "Watch at Close", <-watching, filestore.ErrClosed)
	storetest.Tidy(t, dir)

	for name, op := range ops(s) {
		wantErr(t, name+" after Close", op("id"), filestore.ErrClosed, fs.ErrClosed)
	}
	_, err = s.Len(ctx)
	wantErr(t, "Len after Close", err, filestore.ErrClosed)
	wantErr(t, "Clear after Close", s.Clear(ctx), filestore.ErrClosed)
	_, err = s.Reap(ctx)
	wantErr(t, "Reap after Close", err, filestore.ErrClosed)
	for _, err := range s.Watch(ctx) {
		wantErr(t, "Watch after Close", err, filestore.ErrClosed)
	}
}

// Close waits for operations that have begun, but not for a loop over the sessions.
func TestCloseDoesNotWaitForLoops(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	set(t, s, "a")
	set(t, s, "b")
	n := 0
	var last error
	for _, err := range s.All(ctx) {
		n++
		last = err
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n != 2 || !errors.Is(last, filestore.ErrClosed) {
		t.Errorf("All beside Close gave %d entries, the last with %v, want an ErrClosed after the first", n, last)
	}
}

func TestCanceledContext(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	set(t, s, "id")
	c, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Get(c, "id")
	wantErr(t, "Get", err, context.Canceled)
	wantErr(t, "Set", s.Set(c, "id", session(t)), context.Canceled)
	wantErr(t, "Destroy", s.Destroy(c, "id"), context.Canceled)
	_, err = s.Reap(c)
	wantErr(t, "Reap", err, context.Canceled)
	_, err = s.Len(c)
	wantErr(t, "Len", err, context.Canceled)
	for _, err := range s.IDs(c) {
		wantErr(t, "IDs", err, context.Canceled)
	}
	for _, err := range s.Watch(c) {
		t.Errorf("Watch = %v, want no iteration", err)
	}
	get(t, s, "id")
}

// B10: Open warns of a directory that others may write to.
func TestOpenDirectoryWarns(t *testing.T) {
	if !disk.Modes {
		skip.Test(t, "this system has no modes")
	}
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]int{0o777: 1, 0o770: 1, 0o755: 0, 0o700: 0} {
		os.Chmod(dir, mode)
		var log bytes.Buffer
		o := quick()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		open(t, dir, o)
		if got := strings.Count(log.String(), "others may write"); got != want {
			t.Errorf("mode %v: %d warnings, want %d", mode, got, want)
		}
	}
}
