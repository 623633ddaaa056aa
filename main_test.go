package filestore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Other processes are this test binary again: see storetest.Start.
var workers = map[string]func(args []string){}

func TestMain(m *testing.M) {
	storetest.InMemory()
	storetest.Main(m, workers)
}

// must ends a worker, which has no testing.T, if there is an error.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

var ctx = context.Background()

// quick returns the Options of most of these tests.
var quick = storetest.Quick

// open opens a store whose end is checked. Many of these tests leave files that do not hold a session.
var open = storetest.OpenDamaged

// session returns a session with the values of pairs, each a key and a value.
func session(t testing.TB, pairs ...any) *filestore.Session {
	t.Helper()
	s := new(filestore.Session)
	for i := 0; i < len(pairs); i += 2 {
		if err := s.Put(pairs[i].(string), pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func set(t testing.TB, s *filestore.Store, id string, pairs ...any) {
	t.Helper()
	if err := s.Set(ctx, id, session(t, pairs...)); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

func get(t testing.TB, s *filestore.Store, id string) *filestore.Session {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil {
		t.Fatalf("Get(%q): %v", id, err)
	}
	return sess
}

func value(t testing.TB, s *filestore.Session, key string) string {
	t.Helper()
	v, err := filestore.Value[any](s, key)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(v)
}

func wantErr(t testing.TB, call string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s = %v, want %v", call, err, w)
		}
	}
}

func write(t testing.TB, dir, name, data string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// doc returns the document of a session. lastAccess is JSON.
func doc(lastAccess any, members string) string {
	return fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}%s,"__lastAccess":%v}`, members, lastAccess)
}

func nowMs() int64 { return time.Now().UnixMilli() }

// A yard is a directory with a store in it and files around it that nothing may touch. check compares all of
// it with its state at mark.
type yard struct {
	t      testing.TB
	parent string
	dir    string
	s      *filestore.Store
	before map[string]string
}

const healthy = "healthy_0123456789"

func newYard(t testing.TB, opts *filestore.Options) *yard {
	t.Helper()
	y := &yard{t: t, parent: t.TempDir()}
	y.dir = filepath.Join(y.parent, "sessions")
	write(t, y.parent, "outside.json", doc(nowMs(), `,"user":"outside"`))
	write(t, y.parent, "passwd", "root:x:0:0")
	y.s = open(t, y.dir, opts)
	set(t, y.s, healthy, "user", "anna")
	return y
}

// mark remembers the present state for check.
func (y *yard) mark() { y.before = y.manifest() }

// check fails the test if anything has changed since mark, except the allowed names in the directory of the
// store, or if the healthy session cannot be read.
func (y *yard) check(allowed ...string) {
	y.t.Helper()
	after := y.manifest()
	for name := range merge(y.before, after) {
		if slices.Contains(allowed, strings.TrimPrefix(filepath.ToSlash(name), "sessions/")) {
			continue
		}
		if y.before[name] != after[name] {
			y.t.Errorf("%q was %q, is %q", name, y.before[name], after[name])
		}
	}
	if got := value(y.t, get(y.t, y.s, healthy), "user"); got != "anna" {
		y.t.Errorf("the healthy session's user = %q", got)
	}
}

func merge(a, b map[string]string) map[string]string {
	all := make(map[string]string)
	for k := range a {
		all[k] = ""
	}
	for k := range b {
		all[k] = ""
	}
	return all
}

func (y *yard) manifest() map[string]string {
	y.t.Helper()
	m := make(map[string]string)
	err := filepath.WalkDir(y.parent, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(y.parent, path)
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		line := fi.Mode().String()
		if !fi.IsDir() {
			line += inode(fi)
		}
		if fi.Mode().IsRegular() && fi.Size() < 1<<20 {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		m[rel] = line
		return nil
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return m
}

// ops returns the operations on one session, by name.
func ops(s *filestore.Store) map[string]func(id string) error {
	return map[string]func(id string) error{
		"Get":     func(id string) error { _, err := s.Get(ctx, id); return err },
		"Set":     func(id string) error { return s.Set(ctx, id, new(filestore.Session)) },
		"Create":  func(id string) error { return s.Create(ctx, id, new(filestore.Session)) },
		"Touch":   func(id string) error { return s.Touch(ctx, id, nil) },
		"Update":  func(id string) error { return s.Update(ctx, id, func(*filestore.Session) error { return nil }) },
		"Destroy": func(id string) error { return s.Destroy(ctx, id) },
	}
}
