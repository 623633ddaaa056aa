// Package storetest has helpers for the tests of several folders: stores whose end is checked, session
// files, other processes and browsers. Only tests import it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/lock"
	"github.com/sessionfilestore/filestore/internal/skip"
)

// Long returns long in the long form of a test, with FILESTORE_LONG set, or else short.
func Long[T any](short, long T) T {
	if os.Getenv("FILESTORE_LONG") != "" {
		return long
	}
	return short
}

// Brief returns brief with go test -short, or else usual. A system that is emulated needs a hundred times as long.
func Brief[T any](brief, usual T) T {
	if testing.Short() {
		return brief
	}
	return usual
}

// Parallel is for TestMain, if tests wait more than they run. It lets n of them run at once, unless go test -parallel says
// otherwise.
func Parallel(n int) { flag.Set("test.parallel", strconv.Itoa(n)) }

// NeedRenameOverOpen skips a test in which others read a file all the time while it is replaced. Windows without
// POSIX renames, some of its file systems, and Wine refuse that.
func NeedRenameOverOpen(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.WriteFile(name+"2", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := root.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := root.Rename("a2", "a"); err != nil {
		skip.Test(t, "an open file cannot be replaced here: "+err.Error())
	}
}

// Quick returns Options without flushes, reaper and log, which most tests do not need.
func Quick() *filestore.Options {
	return &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)}
}

// Open opens a store until the end of the test, which then checks what every test must leave: a directory as
// Tidy wants it, and sessions that can be read. Files that do not hold a session do not count, because many
// tests plant them. If opts is nil they are those of Quick.
func Open(t testing.TB, dir string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	return open(t, dir, opts, true)
}

// OpenDamaged is Open for a test that leaves a directory or files that cannot be read. The end of the test
// checks only that it is tidy.
func OpenDamaged(t testing.TB, dir string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	return open(t, dir, opts, false)
}

func open(t testing.TB, dir string, opts *filestore.Options, sound bool) *filestore.Store {
	t.Helper()
	if opts == nil {
		opts = Quick()
	}
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		Tidy(t, dir)
		if _, err := os.Stat(dir); err == nil && sound { // the test may have removed it
			decode(t, dir, opts)
		}
	})
	return s
}

// decode checks that each session in dir can be read.
func decode(t testing.TB, dir string, opts *filestore.Options) {
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatalf("Open at the end: %v", err)
	}
	defer s.Close()
	for _, err := range s.All(context.Background()) {
		if err != nil {
			t.Errorf("at the end: %v", err)
		}
	}
}

// Tidy checks that dir does not have a temporary file and that it has all 64 lock files or no .locks.
func Tidy(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the test has removed it
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "~") {
			t.Errorf("a temporary file is left: %s", e.Name())
		}
	}
	locks, err := os.ReadDir(filepath.Join(dir, ".locks"))
	locks = slices.DeleteFunc(locks, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "ext.") }) // of a store with another extension
	if err == nil && len(locks) != 64 {
		t.Errorf("%d lock files, want 64", len(locks))
	}
}

// Sweep makes a pass of the reaper over dir when an hour has passed, and checks that no temporary file is left:
// that is how old those of dead writers get. The sessions stay.
func Sweep(t *testing.T, dir string) {
	t.Helper()
	later := time.Now().Round(0).Add(time.Hour + time.Second)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(later))
		o := Quick()
		o.TTL = 1000 * time.Hour
		s, err := filestore.Open(dir, o)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		defer s.Close()
		if _, err := s.Reap(context.Background()); err != nil {
			t.Errorf("Reap an hour later = %v", err)
		}
		Tidy(t, dir)
	})
}

// Hold takes the lock of the session id, as another process would.
func Hold(t testing.TB, dir, id string) (release func()) {
	t.Helper()
	d, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	locks, err := lock.Open(d, ".json", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := locks.Lock(context.Background(), id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { l.Unlock(); d.Close() })
	t.Cleanup(release)
	return release
}

// Contested returns o with a Codec that changes nothing but the ctime of the file, as somebody else's write would,
// before every second write of a session in dir: a store then runs the function of an Update once more.
func Contested(dir string, o *filestore.Options) *filestore.Options {
	if o == nil {
		o = Quick()
	}
	own := *o
	if own.Codec == nil {
		own.Codec = &contested{dir: dir, odd: make(map[string]bool)}
	}
	return &own
}

type contested struct {
	dir string
	mu  sync.Mutex
	odd map[string]bool
}

func (c *contested) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

func (c *contested) Encode(id string, doc []byte) ([]byte, error) {
	c.mu.Lock()
	c.odd[id] = !c.odd[id]
	odd := c.odd[id]
	c.mu.Unlock()
	if odd {
		return doc, c.change(id + ".json")
	}
	return doc, nil
}

// change changes the ctime of a file, if it is there. On many file systems a file's times move only every 4 or 10 ms. Until
// then a chmod does not show. change does not sleep meanwhile: in a synctest that would move the clock of the test alone.
func (c *contested) change(name string) error {
	d, err := disk.Open(c.dir, disk.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	was, err := d.Stat(name)
	for n := 0; err == nil; n++ {
		os.Chmod(filepath.Join(c.dir, name), was.Mode)
		now, err := d.Stat(name)
		switch {
		case err != nil || now.Ctime != was.Ctime:
			return nil
		case n == 1_000_000: // seconds
			return fmt.Errorf("%s keeps its ctime, %d", name, now.Ctime)
		}
	}
	return nil
}

// Files returns the session files in dir.
func Files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var lastAccess = regexp.MustCompile(`"__lastAccess":(\d+)`)

// Age makes the last access of the session in file earlier by d. It replaces the file, as a store does.
func Age(t testing.TB, file string, d time.Duration) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := lastAccess.FindSubmatch(data)
	if m == nil {
		t.Fatalf("no session with a last access: %s", data)
	}
	ms, _ := strconv.ParseInt(string(m[1]), 10, 64)
	Write(t, file, lastAccess.ReplaceAll(data, fmt.Appendf(nil, `"__lastAccess":%d`, ms-d.Milliseconds())))
}

// Write replaces file by one with data.
func Write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// Logged holds the output of the default logger of slog, and of package log.
type Logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Log redirects the default logger of slog, and package log, until the end of the test.
func Log(t testing.TB) *Logged {
	l, before, out, flags := new(Logged), slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	return l
}

func (l *Logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
