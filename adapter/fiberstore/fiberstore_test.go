package fiberstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	fiber2 "github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v3"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/fiberstore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var (
	_ fiber.Storage  = (*fiberstore.Storage)(nil)
	_ fiber2.Storage = (*fiberstore.Storage)(nil)
)

var ctx = context.Background()

func open(t testing.TB, dir string, opts *filestore.Options) (*fiberstore.Storage, *filestore.Store) {
	t.Helper()
	store := storetest.Open(t, dir, opts)
	s := fiberstore.New(store)
	s.Logger = slog.New(slog.DiscardHandler)
	return s, store
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, s fiber2.Storage, key string) string {
	t.Helper()
	val, err := s.Get(key)
	must(t, err)
	return string(val)
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// What each storage of gofiber/storage is tested for, and its three benchmarks. Keys, which Fiber does
// not ask for, are the live sessions; Conn is the filestore.Store.
func TestGofiberStorage(t *testing.T) {
	val := []byte("doe")
	for name, check := range map[string]func(t *testing.T, s *fiberstore.Storage, keys func() int){
		"Set": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john", val, 0))
			if n := keys(); n != 1 {
				t.Errorf("%d keys, want 1", n)
			}
		},
		"Set_Override": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john", val, 0))
			must(t, s.Set("john", val, 0))
			must(t, s.Set("john", []byte("other"), 0))
			if n := keys(); n != 1 || get(t, s, "john") != "other" {
				t.Errorf("%d keys, %q", n, get(t, s, "john"))
			}
		},
		"Get": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john", val, 0))
			if got, n := get(t, s, "john"), keys(); got != "doe" || n != 1 {
				t.Errorf("Get = %q, %d keys", got, n)
			}
		},
		"Set_Expiration": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john", val, time.Second))
			time.Sleep(1100 * time.Millisecond)
			if got, err := s.Get("john"); got != nil || err != nil || keys() != 0 {
				t.Errorf("Get = %q, %v, %d keys", got, err, keys())
			}
		},
		"Set_Long_Expiration_with_Keys": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			if n := keys(); n != 0 {
				t.Errorf("%d keys at the start", n)
			}
			must(t, s.Set("john", val, 5*time.Second))
			time.Sleep(1100 * time.Millisecond)
			if n := keys(); n != 1 {
				t.Errorf("%d keys, want 1", n)
			}
			time.Sleep(4 * time.Second)
			if got, err := s.Get("john"); got != nil || err != nil || keys() != 0 {
				t.Errorf("Get = %q, %v, %d keys", got, err, keys())
			}
		},
		"Get_NotExist": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			if got, err := s.Get("notexist"); got != nil || err != nil || keys() != 0 {
				t.Errorf("Get = %q, %v, %d keys", got, err, keys())
			}
		},
		"Delete": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john", val, 0))
			must(t, s.Delete("john"))
			must(t, s.Delete("john"))
			if got, err := s.Get("john"); got != nil || err != nil || keys() != 0 {
				t.Errorf("Get = %q, %v, %d keys", got, err, keys())
			}
		},
		"Reset": func(t *testing.T, s *fiberstore.Storage, keys func() int) {
			must(t, s.Set("john1", val, 0))
			must(t, s.Set("john2", val, 0))
			if n := keys(); n != 2 {
				t.Errorf("%d keys, want 2", n)
			}
			must(t, s.Reset())
			if got := get(t, s, "john1") + get(t, s, "john2"); got != "" || keys() != 0 {
				t.Errorf("Get = %q, %d keys", got, keys())
			}
		},
		"Close": func(t *testing.T, s *fiberstore.Storage, _ func() int) { must(t, s.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, store := open(t, t.TempDir(), storetest.Quick())
				check(t, s, func() int {
					n, err := store.Len(ctx)
					must(t, err)
					return n
				})
			})
		})
	}
}

func BenchmarkSet(b *testing.B) {
	s, _ := open(b, b.TempDir(), storetest.Quick())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		must(b, s.Set("john", []byte{'d', 'o', 'e', byte(i)}, 0)) // the same bytes would not be written
	}
}

func BenchmarkGet(b *testing.B) {
	s, _ := open(b, b.TempDir(), storetest.Quick())
	must(b, s.Set("john", []byte("doe"), 0))
	time.Sleep(50 * time.Millisecond) // before, no file is cached
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get("john"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetAndDelete(b *testing.B) {
	s, _ := open(b, b.TempDir(), storetest.Quick())
	b.ReportAllocs()
	for b.Loop() {
		must(b, errors.Join(s.Set("john", []byte("doe"), 0), s.Delete("john")))
	}
}

// The edges of Fiber's contract.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	s, store := open(t, dir, storetest.Quick())
	for _, err := range []error{s.Set("", []byte("x"), 0), s.Set("x", nil, 0), s.Set("x", []byte{}, 0), s.Delete("")} {
		must(t, err)
	}
	if got, err := s.Get(""); got != nil || err != nil || len(storetest.Files(t, dir)) != 0 {
		t.Errorf("Get of the empty key = %q, %v; %d files", got, err, len(storetest.Files(t, dir)))
	}
	must(t, s.Set("kept", []byte("x"), 0))
	must(t, s.Set("kept", nil, 0)) // is not a Delete
	if got := get(t, s, "kept"); got != "x" {
		t.Errorf("Get after a Set of nothing = %q", got)
	}

	for _, exp := range []time.Duration{0, -1, math.MinInt64, math.MaxInt64} {
		must(t, s.Set("long", fmt.Append(nil, exp), exp))
		sess, err := store.Get(ctx, "long")
		must(t, err)
		if left := time.Until(sess.ExpiresAt(0)); left < 99*365*24*time.Hour || get(t, s, "long") != fmt.Sprint(exp) {
			t.Errorf("Set for %v lives for %v and is %q", exp, left, get(t, s, "long"))
		}
	}

	var none context.Context
	must(t, s.SetWithContext(none, "a", []byte("x"), time.Hour))
	if got, err := s.GetWithContext(none, "a"); string(got) != "x" || err != nil {
		t.Errorf("GetWithContext(nil) = %q, %v", got, err)
	}
	must(t, s.DeleteWithContext(none, "a"))
	done, cancel := context.WithCancel(ctx)
	cancel()
	for name, err := range calls(s, done) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that is done = %v", name, err)
		}
	}
	if got := get(t, s, "kept"); got != "x" {
		t.Errorf("a Reset with a context that is done has left %q", got)
	}

	must(t, s.Close())
	must(t, s.Close())
	for _, err := range calls(s, nil) {
		if !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("after Close %v", err)
		}
	}
	other := fiberstore.New(store) // whose owner has not closed it
	if got := get(t, other, "kept"); got != "x" {
		t.Errorf("another Storage has %q", got)
	}
	must(t, store.Close())
	for name, err := range calls(other, ctx) {
		if !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("%s after the owner's Close = %v", name, err)
		}
	}
}

// calls makes each call that can fail.
func calls(s *fiberstore.Storage, ctx context.Context) map[string]error {
	_, err := s.GetWithContext(ctx, "kept")
	errs := map[string]error{
		"Get": err, "Set": s.SetWithContext(ctx, "kept", []byte("y"), 0), "Delete": s.DeleteWithContext(ctx, "kept"), "Reset": s.ResetWithContext(ctx),
	}
	if ctx != nil {
		return errs
	}
	_, errs["get"] = s.Get("kept")
	errs["set"], errs["delete"], errs["reset"] = s.Set("kept", []byte("y"), 0), s.Delete("kept"), s.Reset()
	errs["empty"] = s.Set("", nil, 0)
	return errs
}

// A wait for another process's lock ends with the context, and without one with LockTimeout.
func TestBoundedWait(t *testing.T) {
	opts := storetest.Quick()
	opts.LockTimeout = 50 * time.Millisecond
	dir := t.TempDir()
	s, _ := open(t, dir, opts)
	must(t, s.Set("id", []byte("old"), time.Hour))
	storetest.Hold(t, dir, "id")
	var none context.Context
	if err := s.SetWithContext(none, "id", []byte("new"), time.Hour); !errors.Is(err, filestore.ErrLockTimeout) {
		t.Errorf("Set beside a holder = %v", err)
	}
	opts.LockTimeout = time.Minute // so that the context ends first
	patient, _ := open(t, dir, opts)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := patient.DeleteWithContext(short, "id"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete beside a holder = %v", err)
	}
	if got := get(t, s, "id"); got != "old" {
		t.Errorf("Get beside a holder = %q", got)
	}
}

var keys = []string{
	"v2|GET|/x|q=..%2F", "../../etc/passwd", "/etc/passwd", "..", ".", "\x00", "a\x00b", "127.0.0.1", "::1", "GET|/x_body", "NUL", "x.json", ".locks/00",
	"\xff\xfe", "日本", strings.Repeat("x", 10_000), strings.Repeat("../", 5_000), "plain", "PLAIN", "sha256-" + strings.Repeat("0", 64),
}

// Any key has a value of its own and no file outside the directory. Fiber's keys and values lie in
// buffers that it uses again.
func TestKeys(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	s, _ := open(t, dir, storetest.Quick())
	var buf [1 << 15]byte
	borrow := func(key string) string { return unsafe.String(&buf[0], copy(buf[:], key)) }
	for range 2 {
		for i, key := range keys {
			val := []byte(key + strconv.Itoa(i))
			must(t, s.Set(borrow(key), val, time.Hour))
			clear(val)
			clear(buf[:])
		}
		time.Sleep(30 * time.Millisecond) // so that the files are settled, and cached
		for range 2 {
			for i, key := range keys {
				got, err := s.Get(borrow(key))
				clear(buf[:])
				if err != nil || string(got) != key+strconv.Itoa(i) {
					t.Errorf("Get(%.40q) = %.40q, %v", key, got, err)
				}
				clear(got) // it is ours
			}
		}
	}
	if n := len(storetest.Files(t, dir)); n != len(keys) {
		t.Errorf("%d files for %d keys", n, len(keys))
	}
	if all, _ := os.ReadDir(parent); len(all) != 1 {
		t.Errorf("outside the directory there are %v", all)
	}
	for _, key := range keys {
		must(t, s.Delete(borrow(key)))
		clear(buf[:])
	}
	if n := len(storetest.Files(t, dir)); n != 0 {
		t.Errorf("%d files after the Deletes", n)
	}
}

// A Set of the same bytes is not written, unless the deadline would move by 1 % of the life.
func TestSkip(t *testing.T) {
	dir := t.TempDir()
	s, store := open(t, dir, storetest.Quick())
	path := filepath.Join(dir, "id.json")
	written := func(val string, exp time.Duration) bool {
		t.Helper()
		before, err := os.Stat(path)
		must(t, err)
		must(t, s.Set("id", []byte(val), exp))
		after, err := os.Stat(path)
		must(t, err)
		sess, err := store.Get(ctx, "id")
		must(t, err)
		if left := time.Until(sess.ExpiresAt(0)); left < exp*99/100 || left > exp+time.Second || get(t, s, "id") != val {
			t.Errorf("Set for %v leaves %v of %q", exp, left, get(t, s, "id"))
		}
		// A name that is replaced has another inode, or the same one anew.
		return !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime())
	}
	must(t, s.Set("id", []byte("a"), time.Hour))
	for _, c := range []struct {
		val     string
		exp     time.Duration
		ago     time.Duration
		written bool
	}{
		{"a", time.Hour, 0, false},
		{"b", time.Hour, 0, true},
		{"b", time.Hour, 30 * time.Second, false},
		{"b", time.Hour, 10 * time.Second, true}, // 40 in all
		{"b", time.Hour - time.Second, 0, true},  // a deadline never moves back
		{"b", 2 * time.Hour, 0, true},
		{"b", time.Hour, -2 * time.Minute, true}, // the clock was set back
		{"b", time.Hour, 2 * time.Hour, true},    // it had expired
	} {
		storetest.Age(t, path, c.ago)
		if got := written(c.val, c.exp); got != c.written {
			t.Errorf("Set(%q, %v) after %v: written %v", c.val, c.exp, c.ago, got)
		}
	}
	must(t, s.Delete("id"))
	must(t, s.Set("id", []byte("b"), time.Hour))
	if got := get(t, s, "id"); got != "b" {
		t.Errorf("Set after Delete: Get = %q", got)
	}
}

// live is the document of a session that has not expired.
func live(members string) []byte {
	return fmt.Appendf(nil, `{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},%s,"__lastAccess":%d}`, members, time.Now().UnixMilli())
}

// What cannot be read counts as none, is logged without its id, and stays until it is set anew.
func TestUnreadable(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"corrupt":   func(path string) error { return os.WriteFile(path, []byte(`{"cookie":`), 0o600) },
		"no base64": func(path string) error { return os.WriteFile(path, live(`"data":"?"`), 0o600) },
		"too large": func(path string) error { return os.WriteFile(path, make([]byte, 2<<20), 0o600) },
		"directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"link": func(path string) error {
			return errors.Join(os.Rename(path, path+".target"), os.Symlink(path+".target", path))
		},
		"second link": func(path string) error { return os.Link(path, path+".link") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir, nil)
			var log bytes.Buffer
			s.Logger = slog.New(slog.NewTextHandler(&log, nil))
			path := filepath.Join(dir, "secretid.json")
			must(t, s.Set("secretid", []byte("old"), time.Hour))
			must(t, damage(path))
			for range 2 {
				if got, err := s.Get("secretid"); got != nil || err != nil {
					t.Errorf("Get = %q, %v", got, err)
				}
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 2 || strings.Contains(log.String(), "secretid") {
				t.Errorf("the log is %s", log.String())
			}
			err := s.Set("secretid", []byte("new"), time.Hour)
			if name == "directory" {
				if !errors.Is(err, filestore.ErrUnsafeFile) {
					t.Errorf("Set over a directory = %v", err)
				}
				must(t, os.Remove(path))
				return
			}
			must(t, err)
			if got := get(t, s, "secretid"); got != "new" {
				t.Errorf("Get after Set = %q", got)
			}
			if name == "link" && !strings.Contains(read(t, path+".target"), `"data":"b2xk"`) {
				t.Error("Set has followed the link")
			}
		})
	}
}

// Sessions of others in the directory are not ours, nor is a value without bytes.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, storetest.Quick())
	for id, members := range map[string]string{"express": `"user":"ann"`, "empty": `"data":""`} {
		must(t, os.WriteFile(filepath.Join(dir, id+".json"), live(members), 0o600))
		if got, err := s.Get(id); got != nil || err != nil {
			t.Errorf("Get(%s) = %q, %v", id, got, err)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "damaged.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600))
	must(t, s.Reset())
	if names := storetest.Files(t, dir); len(names) != 1 || filepath.Base(names[0]) != "damaged.json" || read(t, filepath.Join(dir, "notes.txt")) != "mine" {
		t.Errorf("after Reset there are %q", names)
	}
	must(t, os.Remove(filepath.Join(dir, "damaged.json")))
}

// The program of the README is the example.
func TestReadme(t *testing.T) { adaptertest.Readme(t) }
