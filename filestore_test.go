package filestore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func TestSetGetDestroy(t *testing.T) {
	for name, opts := range map[string]*filestore.Options{"durable": nil, "NoSync": quick()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "sessions")
			s := open(t, dir, opts)
			_, err := s.Get(ctx, "id")
			wantErr(t, "Get of none", err, filestore.ErrNotFound, fs.ErrNotExist)

			before := time.Now().Truncate(time.Millisecond)
			in := session(t, "user", "anna <&>", "n", 1)
			in.Cookie = filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/", HTTPOnly: true, SameSite: "lax"}
			if err := s.Set(ctx, "id", in); err != nil {
				t.Fatal(err)
			}
			if !in.LastAccess.IsZero() {
				t.Error("Set changed its argument")
			}
			out := get(t, s, "id")
			if out.Cookie != in.Cookie || value(t, out, "user") != "anna <&>" || len(out.Values) != 2 {
				t.Errorf("Get = %+v, want %+v", out, in)
			}
			if out.LastAccess.Before(before) || out.LastAccess.After(time.Now()) {
				t.Errorf("LastAccess = %v, want now", out.LastAccess)
			}
			fi, err := os.Stat(filepath.Join(dir, "id.json"))
			if err != nil {
				t.Fatal(err)
			}
			if want := out.ExpiresAt(time.Hour); !fi.ModTime().Truncate(time.Millisecond).Equal(want) {
				t.Errorf("mtime = %v, want the expiry %v", fi.ModTime(), want)
			}
			if runtime.GOOS != "windows" && fi.Mode() != 0o600 {
				t.Errorf("mode = %v, want 0600", fi.Mode())
			}
			if err := s.Destroy(ctx, "id"); err != nil {
				t.Fatal(err)
			}
			_, err = s.Get(ctx, "id")
			wantErr(t, "Get after Destroy", err, filestore.ErrNotFound)
			if err := s.Destroy(ctx, "id"); err != nil {
				t.Errorf("second Destroy = %v", err)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	err := s.Update(ctx, "id", func(*filestore.Session) error { t.Error("fn called"); return nil })
	wantErr(t, "Update of none", err, filestore.ErrNotFound)
	set(t, s, "id", "n", 1)
	mine := errors.New("mine")
	if err := s.Update(ctx, "id", func(sess *filestore.Session) error { sess.Put("n", 2); return mine }); err != mine {
		t.Errorf("Update = %v, want fn's error itself", err)
	}
	if got := value(t, get(t, s, "id"), "n"); got != "1" {
		t.Errorf("n = %s after a refused Update", got)
	}
	func() { // a panic frees the lock
		defer func() { recover() }()
		s.Update(ctx, "id", func(*filestore.Session) error { panic("fn") })
	}()
	if err := s.Update(ctx, "id", func(sess *filestore.Session) error { return sess.Put("n", 3) }); err != nil {
		t.Fatal(err)
	}
	if got := value(t, get(t, s, "id"), "n"); got != "3" {
		t.Errorf("n = %s, want 3", got)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	if err := s.Create(ctx, "id", session(t, "n", 1)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "Create of a live id", s.Create(ctx, "id", session(t, "n", 2)), fs.ErrExist)
	if got := value(t, get(t, s, "id"), "n"); got != "1" {
		t.Errorf("n = %s, want 1", got)
	}
	write(t, dir, "corrupt.json", "{")
	wantErr(t, "Create over a corrupt file", s.Create(ctx, "corrupt", session(t)), fs.ErrExist)
	write(t, dir, "old.json", doc(1, ""))
	if err := s.Create(ctx, "old", session(t)); err != nil {
		t.Errorf("Create over an expired session = %v", err)
	}
	var wg sync.WaitGroup
	won := make(chan int, 32)
	for i := range 32 {
		wg.Go(func() {
			if s.Create(ctx, "race", session(t, "n", i)) == nil {
				won <- i
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d of 32 created the same id", len(won))
	}
	if got, want := value(t, get(t, s, "race"), "n"), fmt.Sprint(<-won); got != want {
		t.Errorf("n = %s, want the winner's %s", got, want)
	}
}

func TestTouch(t *testing.T) {
	dir := t.TempDir()
	opts := quick()
	opts.TouchAfter = time.Minute
	s := open(t, dir, opts)
	ms := nowMs()
	fresh, stale := doc(ms-1000, `,"n":1`), doc(ms-61_000, `,"n":1,"big":12345678901234567890,"e":1.0`)
	write(t, dir, "fresh.json", fresh)
	write(t, dir, "stale.json", stale)
	if err := s.Touch(ctx, "fresh", nil); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "fresh.json"); got != fresh {
		t.Errorf("Touch rewrote a session accessed a second ago: %s", got)
	}
	if err := s.Touch(ctx, "stale", nil); err != nil {
		t.Fatal(err)
	}
	sess := get(t, s, "stale")
	if time.Since(sess.LastAccess) > time.Minute/2 {
		t.Errorf("LastAccess = %v, want now", sess.LastAccess)
	}
	if d := sess.LastAccess.Sub(sess.Created); d < 0 || d > time.Minute/2 {
		t.Errorf("created %v before the last access", d)
	}
	now, created := fmt.Sprint(sess.LastAccess.UnixMilli()), fmt.Sprint(sess.Created.UnixMilli()) // a millisecond may lie between them
	if got, want := readFile(t, dir, "stale.json"), strings.Replace(stale, fmt.Sprint(ms-61_000), now, 1); got != strings.TrimSuffix(want, "}")+`,"__created":`+created+"}" {
		t.Errorf("Touch changed more than the last access, and added when it was created:\n got %s\nwant %s", got, want)
	}
	// A change of the cookie is written at once. An Expires that moves with the time is not a change.
	c := filestore.Cookie{HTTPOnly: true, Path: "/", OriginalMaxAge: time.Hour, Expires: time.Now().Add(time.Hour)}
	if err := s.Touch(ctx, "fresh", &c); err != nil {
		t.Fatal(err)
	}
	written := readFile(t, dir, "fresh.json")
	if got := get(t, s, "fresh"); got.Cookie.OriginalMaxAge != time.Hour || value(t, got, "n") != "1" {
		t.Errorf("after Touch with a cookie: %+v", got)
	}
	c.Expires = c.Expires.Add(time.Second)
	if err := s.Touch(ctx, "fresh", &c); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "fresh.json"); got != written {
		t.Error("Touch wrote for a running Expires")
	}
	wantErr(t, "Touch of none", s.Touch(ctx, "none", &c), filestore.ErrNotFound)
	write(t, dir, "old.json", doc(ms-3_700_000, ""))
	wantErr(t, "Touch of an expired session", s.Touch(ctx, "old", &c), filestore.ErrExpired, filestore.ErrNotFound)
	if got := readFile(t, dir, "old.json"); got != doc(ms-3_700_000, "") {
		t.Errorf("Touch wrote an expired session: %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "none.json")); err == nil {
		t.Error("Touch made a session")
	}

	always := quick()
	always.TouchAfter = -1
	s2 := open(t, dir, always)
	mtime := func() time.Time {
		fi, err := os.Stat(filepath.Join(dir, "fresh.json"))
		if err != nil {
			t.Fatal(err)
		}
		return fi.ModTime()
	}
	was := mtime()
	time.Sleep(5 * time.Millisecond)
	if err := s2.Touch(ctx, "fresh", nil); err != nil {
		t.Fatal(err)
	}
	if !mtime().After(was) {
		t.Error("Touch with TouchAfter < 0 did not write")
	}
}

// A session that is used does not end, even if TouchAfter is longer than its life.
func TestTouchAfterLongerThanLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quick()
		o.TTL, o.TouchAfter = 10*time.Minute, time.Hour
		s, err := filestore.Open(t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		own := session(t)
		own.Cookie = filestore.Cookie{OriginalMaxAge: 4 * time.Minute, HTTPOnly: true, Path: "/"}
		if err := errors.Join(s.Set(ctx, "ttl", session(t)), s.Set(ctx, "own", own)); err != nil {
			t.Fatal(err)
		}
		for minute := range 60 {
			time.Sleep(time.Minute)
			for _, id := range []string{"ttl", "own"} {
				if err := s.Touch(ctx, id, nil); err != nil {
					t.Fatalf("minute %d: Touch of %s = %v", minute, id, err)
				}
			}
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "file", "")
	for name, tt := range map[string]struct {
		dir  string
		opts filestore.Options
	}{
		"empty name":           {"", filestore.Options{}},
		"a file":               {filepath.Join(dir, "file"), filestore.Options{}},
		"below a file":         {filepath.Join(dir, "file", "x"), filestore.Options{}},
		"LockTimeout":          {dir, filestore.Options{LockTimeout: -1}},
		"MaxSize":              {dir, filestore.Options{MaxSize: -1}},
		"TTL in seconds":       {dir, filestore.Options{TTL: 604_800}},
		"TTL of half a second": {dir, filestore.Options{TTL: time.Second / 2}},
		"touch in seconds":     {dir, filestore.Options{TouchAfter: 60}},
		"reap in seconds":      {dir, filestore.Options{ReapInterval: 3600}},
		"timeout in seconds":   {dir, filestore.Options{LockTimeout: 5}},
		"extension no dot":     {dir, filestore.Options{Extension: "json"}},
		"extension dot":        {dir, filestore.Options{Extension: "."}},
		"extension slash":      {dir, filestore.Options{Extension: "./x"}},
		"mode unreadable":      {dir, filestore.Options{Mode: 0o200}},
		"mode with type":       {dir, filestore.Options{Mode: fs.ModeSetuid | 0o600}},
		"extension with NUL":   {dir, filestore.Options{Extension: ".a\x00"}},
	} {
		if s, err := filestore.Open(tt.dir, &tt.opts); err == nil {
			s.Close()
			t.Errorf("Open with %s succeeded", name)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("a refused Open left %d entries, want 1", len(entries))
	}
}

func TestExtension(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, &filestore.Options{NoSync: true, ReapInterval: -1, Extension: ".sess"})
	b := open(t, dir, quick())
	set(t, a, "id", "n", 1)
	set(t, b, "id", "n", 2)
	if value(t, get(t, a, "id"), "n") != "1" || value(t, get(t, b, "id"), "n") != "2" {
		t.Error("two extensions share sessions")
	}
	if err := a.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	get(t, b, "id")
	readFile(t, dir, "id.json")
	if n, err := a.Len(ctx); n != 0 || err != nil {
		t.Errorf("Len = %d, %v", n, err)
	}
}

// Two stores with the extensions ".json" and ".admin.json" share a directory. Neither takes a file of the
// other for a session, whichever was opened first: the session would have another id there, and another
// lock.
func TestExtensionOfTwoParts(t *testing.T) {
	for _, first := range []string{".json", ".admin.json"} {
		t.Run(first+" first", func(t *testing.T) {
			dir := t.TempDir()
			o := quick()
			o.Extension = first
			stores := map[string]*filestore.Store{first: open(t, dir, o)}
			if first == ".json" { // alone, it may take the file for a session
				set(t, stores[first], "x.admin", "n", 0)
				time.Sleep(30 * time.Millisecond)
				get(t, stores[first], "x.admin")
			}
			o.Extension = map[string]string{".json": ".admin.json", ".admin.json": ".json"}[first]
			stores[o.Extension] = open(t, dir, o)
			plain, admin := stores[".json"], stores[".admin.json"]
			set(t, admin, "x", "n", 1)
			set(t, admin, "a.b", "n", 1)
			for _, id := range []string{"x", "a.b", "x.admins", "x.admin.b", "admin"} {
				set(t, plain, id, "n", 2)
			}
			before := readFile(t, dir, "x.admin.json")
			for name, op := range ops(plain) {
				wantErr(t, name, op("x.admin"), filestore.ErrInvalidID)
				wantErr(t, name, op("a.b.admin"), filestore.ErrInvalidID)
			}
			if readFile(t, dir, "x.admin.json") != before || value(t, get(t, admin, "x"), "n") != "1" {
				t.Error("the other store's session has changed")
			}
			var ids []string
			for e, err := range plain.All(ctx) {
				if ids = append(ids, e.ID); err != nil || value(t, e.Session, "n") != "2" {
					t.Errorf("%s: %v, %v", e.ID, e.Session, err)
				}
			}
			if n := len(slices.Collect(maps.Keys(maps.Collect(plain.IDs(ctx))))); len(ids) != 5 || n != 5 {
				t.Errorf("All = %q, %d IDs, want 5", ids, n)
			}
			// Neither the reaper nor Clear takes a file of the other store.
			write(t, dir, "old.admin.json", doc(1, ""))
			left := "x.admin.json.1374059317"
			write(t, dir, left, "x")
			past := time.Now().Add(-2 * time.Hour)
			os.Chtimes(filepath.Join(dir, left), past, past)
			if n, err := plain.Reap(ctx); n != 0 || err != nil {
				t.Errorf("Reap = %d, %v", n, err)
			}
			readFile(t, dir, left)
			if err := plain.Clear(ctx); err != nil {
				t.Error(err)
			}
			if n, err := admin.Reap(ctx); n != 1 || err != nil {
				t.Errorf("Reap of its own store = %d, %v", n, err)
			}
			if n, err := admin.Len(ctx); n != 2 || err != nil {
				t.Errorf("Len = %d, %v, want 2", n, err)
			}
			if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
				t.Error("its own store left the temporary file")
			}
		})
	}
}

// H7: the modes hold whatever the umask is.
func TestUmask(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // there is no umask
	}
	for _, umask := range []string{"0000", "0777", "0022"} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		if err := storetest.Start(t, "umask", dir, umask).Wait(); err != nil {
			t.Fatalf("umask %s: %v", umask, err)
		}
		for name, want := range map[string]fs.FileMode{".": 0o700, "id.json": 0o600, "wide.sess": 0o640, ".locks": 0o700, ".locks/00": 0o600, ".locks/3f": 0o600} {
			fi, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := fi.Mode().Perm(); got != want {
				t.Errorf("umask %s: %s has mode %v, want %v", umask, name, got, want)
			}
		}
	}
}

func init() {
	workers["umask"] = func(args []string) {
		mask, err := strconv.ParseInt(args[1], 8, 32)
		must(err)
		setUmask(int(mask))
		for ext, o := range map[string]filestore.Options{"id": {}, "wide": {Mode: 0o640, Extension: ".sess"}} {
			s, err := filestore.Open(args[0], &o)
			must(err)
			must(s.Set(ctx, ext, new(filestore.Session)))
			must(s.Close())
		}
	}
}

// A: no id leads anywhere but to its own file. Every operation refuses an invalid id before any system call.
func TestInvalidIDs(t *testing.T) {
	y := newYard(t, nil)
	bad := []string{
		"..", "../outside", "../../etc/passwd", "a/../../b", "/etc/passwd", // A1
		"",                                // A2
		"a/b", `a\b`, "a//b", "a/", "a\\", // A3
		"a\x00", "a\x00.json", // A4
		strings.Repeat("a", 201), strings.Repeat("a", 256), strings.Repeat("a", 4096), strings.Repeat("a", 1<<20), // A5
		".lock", ".tmp-x", ".", ".locks", ".hidden.json", // A6
		"é", "é", "\u202Eabc", "／", "😀", "\xff\xfe", "a\u00a0", // A7
		"CON", "nul", "Com1", "LPT9", "aux.x", "PRN", "com0.a.b", "a:b", "x.", "x ", " x", "x~", "x,", "~x", ",x", // A9
		"%2e%2e%2f", "..%c0%af", "%00", // A10
		"a\nb", "a\tb", "a\x1b[31m", "a\x7f", "a\r", // A11
		"x.json.1374059317", "x.json.1", ".x.lock", // A12
		"x.json", "x.json.json", // A13
		"a*b", "a?b", "a b", `a"b`, "a<b", "a|b", "a;b", "a$b", "a'b", "a`b", "a&b", "-\x00",
	}
	y.mark()
	for _, id := range bad {
		for name, op := range ops(y.s) {
			err := op(id)
			call := fmt.Sprintf("%s(%.20q)", name, id)
			wantErr(t, call, err, filestore.ErrInvalidID, filestore.ErrNotFound)
			if text := err.Error(); strings.ContainsAny(text, "\n\t\x1b\x00") || len(text) > 100 || len(id) > 3 && strings.Contains(text, id) {
				t.Errorf("%s: %q", call, text)
			}
		}
	}
	y.check()
	closed, _ := filestore.Open(t.TempDir(), quick())
	closed.Close()
	_, err := closed.Get(ctx, "../x")
	wantErr(t, "Get of a bad id from a closed store, which could make no system call,", err, filestore.ErrInvalidID)
}

func TestValidIDs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	good := []string{
		"-rf", "--", "-", "_", "0", "a.b", "a,b~c", "a..b", // A6
		"AbC",                    // A8: see TestCase
		strings.Repeat("Z", 200), // A5
		"2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", "CONSOLE", "COM", "COM10", "nulL0", "x.jsonx", "json",
	}
	for _, id := range good {
		if !filestore.ValidID(id) {
			t.Errorf("ValidID(%q) = false", id)
		}
		set(t, s, id, "id", id)
	}
	for _, id := range good {
		if got := value(t, get(t, s, id), "id"); got != id {
			t.Errorf("Get(%q) has the session of %q", id, got)
		}
	}
	if n, err := s.Len(ctx); n != len(good) || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, len(good))
	}
	for _, id := range good {
		if err := s.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy(%q) = %v", id, err)
		}
	}
	if n, err := s.Len(ctx); n != 0 || err != nil {
		t.Errorf("Len = %d, %v, want 0", n, err)
	}
}

// P1 in small: the file holds the bytes of MarshalJSON.
func TestFileIsTheDocument(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	in := session(t, "html", "<script>&\u2028</script>", "z", 1, "a", []int{1})
	set(t, s, "id")
	if err := s.Set(ctx, "id", in); err != nil {
		t.Fatal(err)
	}
	out := get(t, s, "id")
	want, err := out.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "id.json"); got != string(want) {
		t.Errorf("file:\n got %s\nwant %s", got, want)
	}
	var compact bytes.Buffer
	if json.Compact(&compact, want); compact.String() != string(want) {
		t.Errorf("not compact: %s", want)
	}
}

// A store with ReadOnly changes nothing, not even an mtime, and says so of operations that would.
func TestReadOnly(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	o := quick()
	o.ReadOnly, o.ReapInterval = true, time.Millisecond
	_, err := filestore.Open(dir, o)
	wantErr(t, "Open of a missing directory", err, fs.ErrNotExist)
	os.Mkdir(dir, 0o700)
	write(t, dir, "id.json", doc(nowMs(), `,"n":1`)) // like a file of Node's: a reaper would give it another mtime
	write(t, dir, "over.json", doc(1, ""))
	write(t, dir, "broken.json", "x")
	write(t, dir, "id.json.3998329561", "a leftover of Node's")
	os.Chtimes(filepath.Join(dir, "id.json.3998329561"), time.Unix(1, 0), time.Unix(1, 0))
	look := func() string {
		t.Helper()
		var b strings.Builder
		err := filepath.WalkDir(parent, func(path string, _ fs.DirEntry, err error) error {
			fi, statErr := os.Lstat(path)
			if err := errors.Join(err, statErr); err != nil {
				return err
			}
			fmt.Fprintln(&b, path, fi.Mode(), fi.Size(), fi.ModTime())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	before := look()
	s := open(t, dir, o)
	for range 2 {
		if got := value(t, get(t, s, "id"), "n"); got != "1" {
			t.Errorf("n = %s", got)
		}
	}
	if n, err := s.Len(ctx); n != 1 || err != nil {
		t.Errorf("Len = %d, %v, want 1", n, err)
	}
	_, err = s.Reap(ctx)
	wantErr(t, "Reap", err, fs.ErrPermission)
	wantErr(t, "Clear", s.Clear(ctx), fs.ErrPermission)
	for name, op := range ops(s) {
		if name != "Get" && name != "Touch" { // a Touch within TouchAfter writes nothing
			wantErr(t, name, op("id"), fs.ErrPermission)
		}
	}
	wantErr(t, "Touch", s.Touch(ctx, "id", &filestore.Cookie{Path: "/x"}), fs.ErrPermission)
	time.Sleep(10 * time.Millisecond) // long enough for ten passes of a reaper
	if after := look(); after != before {
		t.Errorf("there was\n%s\nthere is\n%s", before, after)
	}
	// The store sees what others write.
	other := open(t, dir, quick())
	set(t, other, "new", "n", 2)
	if got := value(t, get(t, s, "new"), "n"); got != "2" {
		t.Errorf("n = %s", got)
	}
}

// B10: a file that Node wrote with 0644 becomes 0600, or what Mode says.
func TestMode(t *testing.T) {
	if !disk.Modes {
		skip.Test(t, "this system has no modes")
	}
	dir := t.TempDir()
	s := open(t, dir, quick())
	path := filepath.Join(dir, "id.json")
	os.WriteFile(path, []byte(doc(nowMs(), "")), 0o644)
	os.Chmod(path, 0o644)
	get(t, s, "id")
	set(t, s, "id")
	if fi, _ := os.Stat(path); fi.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	opts := quick()
	opts.Mode = 0o664
	set(t, open(t, dir, opts), "id")
	if fi, _ := os.Stat(path); fi.Mode() != 0o664 {
		t.Errorf("mode %v, want 0664", fi.Mode())
	}
}

// C14: a session that has no JSON form fails before any lock.
func TestUnwritableBeforeLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	set(t, s, "id", "n", 1)
	storetest.Hold(t, dir, "id")
	start := time.Now()
	err := s.Set(ctx, "id", &filestore.Session{Values: map[string]json.RawMessage{"n": json.RawMessage("{")}})
	if err == nil || errors.Is(err, filestore.ErrLockTimeout) || time.Since(start) > 20*time.Second {
		t.Errorf("Set of no JSON beside a holder = %v after %v", err, time.Since(start))
	}
}

// P1: a reader beside writers sees one of the values written, whole, and never misses a live session. There
// is no third possibility.
func TestReadersSeeWholeValues(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, patient())
	fill := func(n int) *filestore.Session {
		return session(t, "n", n, "v", strings.Repeat(string(rune('a'+n%26)), 1+n*37%20_000))
	}
	if err := s.Set(ctx, "id", fill(0)); err != nil {
		t.Fatal(err)
	}
	var writers []*storetest.Process
	for range 2 {
		writers = append(writers, storetest.Start(t, "writer", dir))
	}
	c, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var reads atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for n := 0; c.Err() == nil; n++ {
				if i < 2 {
					if err := s.Set(ctx, "id", fill(n)); err != nil {
						t.Errorf("Set = %v", err)
					}
					continue
				}
				sess, err := s.Get(ctx, "id")
				if err != nil {
					t.Errorf("Get of a live session = %v", err)
					return
				}
				n, _ := filestore.Value[int](sess, "n")
				v, _ := filestore.Value[string](sess, "v")
				if len(v) != 1+n*37%20_000 || strings.Trim(v, string(rune('a'+n%26))) != "" {
					t.Errorf("a third possibility: n = %d, %d bytes of %.3q", n, len(v), v)
					return
				}
				reads.Add(1)
			}
		})
	}
	wg.Wait()
	for _, p := range writers {
		p.Stdin.Close()
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if reads.Load() < 100 {
		t.Errorf("only %d reads: the test tests nothing", reads.Load())
	}
}

// P2, P3, H1: kill -9 at any moment, 100 times (500 in the long form). Every file is whole. Acknowledged
// sessions are there, and destroyed ones are not. No lock is held, and an hour later the reaper removes the
// temporary files of the dead writers.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	acked := make(map[string]int) // id -> the value known to be there; -1 = destroyed
	temps := 0
	for cycle := range storetest.Brief(20, storetest.Long(100, 500)) {
		p := storetest.Start(t, "mutate", dir, strconv.Itoa(cycle*1_000_000))
		begun := make(map[string]int) // announced, maybe done
		lines := bufio.NewScanner(p.Out)
		for n := 0; lines.Scan(); n++ {
			var id, what string
			var v int
			if _, err := fmt.Sscan(lines.Text(), &what, &id, &v); err != nil {
				break // the line that the kill cut
			}
			if what == "begin" {
				begun[id] = v
			} else {
				acked[id] = v
				delete(begun, id)
			}
			if n == 3+cycle%40 {
				time.Sleep(rand.N(2 * time.Millisecond))
				p.Process.Kill() // what it has printed is still to be read
			}
		}
		p.Wait()

		for id, want := range acked {
			start := time.Now()
			sess, err := s.Get(ctx, id)
			got := -1
			if err == nil {
				got, _ = filestore.Value[int](sess, "n")
				if pad, _ := filestore.Value[string](sess, "pad"); len(pad) != got%5000 {
					t.Fatalf("cycle %d: %s is mixed: n %d, pad %d", cycle, id, got, len(pad))
				}
			} else if !errors.Is(err, filestore.ErrNotFound) {
				t.Fatalf("cycle %d: Get = %v", cycle, err)
			}
			if maybe, ok := begun[id]; got != want && (!ok || got != maybe) {
				t.Fatalf("cycle %d: %s is %d, acknowledged %d, begun %v", cycle, id, got, want, begun)
			}
			acked[id] = got
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("Get took %v", d)
			}
		}
		for i := range 8 { // E11: no lock outlives its holder
			c, cancel := context.WithTimeout(ctx, 20*time.Second)
			if err := s.Destroy(c, "lock"+strconv.Itoa(i)); err != nil {
				t.Fatalf("cycle %d: a lock is still held: %v", cycle, err)
			}
			cancel()
		}
		left, _ := filepath.Glob(filepath.Join(dir, ".*~"))
		temps = max(temps, len(left))
		if cycle%10 == 9 {
			if _, err := s.Reap(ctx); err != nil {
				t.Fatal(err)
			}
			if now, _ := filepath.Glob(filepath.Join(dir, ".*~")); len(now) != len(left) {
				t.Errorf("Reap removed %d young temporary files", len(left)-len(now))
			}
			storetest.Sweep(t, dir)
		}
	}
	if len(acked) < 4 {
		t.Errorf("only %d sessions: the test tests nothing", len(acked))
	}
	t.Logf("%d sessions, %d orphaned temporary files seen", len(acked), temps)
}

// P5, E2: a session that is destroyed between the look of a Touch and its write stays away.
func TestTouchDoesNotResurrect(t *testing.T) {
	dir := t.TempDir()
	other := open(t, dir, quick())
	c := filestore.Cookie{OriginalMaxAge: time.Hour}
	s := hooked(t, dir, 1, func() {
		if err := other.Destroy(ctx, "id"); err != nil {
			t.Error(err)
		}
	})
	set(t, other, "id")
	wantErr(t, "Touch of a session destroyed meanwhile", s.Touch(ctx, "id", &c), filestore.ErrNotFound)
	_, err := other.Get(ctx, "id")
	wantErr(t, "Get", err, filestore.ErrNotFound)
}

// P5 with real concurrency: one process destroys, others touch and update.
func TestDestroyedStaysDestroyed(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	for i := range storetest.Long(300, 5000) {
		id := fmt.Sprintf("id%d", i)
		set(t, s, id)
		var wg sync.WaitGroup
		destroyed := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				for n := 0; ; n++ {
					c := filestore.Cookie{OriginalMaxAge: time.Hour + time.Duration(n)}
					err := s.Touch(ctx, id, &c)
					err2 := increment(s, id)
					select {
					case <-destroyed:
						if !errors.Is(err2, filestore.ErrNotFound) && err2 != nil || err != nil && !errors.Is(err, filestore.ErrNotFound) {
							t.Errorf("Touch = %v, Update = %v", err, err2)
						}
						return
					default:
					}
				}
			})
		}
		runtime.Gosched()
		if err := s.Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
		close(destroyed)
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) { // E4: no writer brings it back
			t.Fatalf("round %d: Get after Destroy = %v", i, err)
		}
		wg.Wait()
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
			t.Fatalf("round %d: it came back: %v", i, err)
		}
	}
}

// E4: a Get beside a Destroy gives the old value or ErrNotFound.
func TestGetBesideDestroy(t *testing.T) {
	s := open(t, t.TempDir(), quick())
	for range 300 {
		set(t, s, "id", "n", 1)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				sess, err := s.Get(ctx, "id")
				if err == nil && value(t, sess, "n") != "1" || err != nil && !errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("Get = %v, %v", sess, err)
				}
			})
		}
		wg.Go(func() { s.Destroy(ctx, "id") })
		wg.Wait()
	}
}

// Ids that differ in case only are one session if the file system folds case, otherwise two.
func TestCase(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	set(t, s, "Abc", "n", 1)
	_, err := os.Stat(filepath.Join(dir, "aBC.json"))
	folds := err == nil
	sess, err := s.Get(ctx, "aBC")
	if folds {
		if err != nil || value(t, sess, "n") != "1" {
			t.Errorf("the file system folds case, and Get = %v, %v", sess, err)
		}
		return
	}
	wantErr(t, "Get of the other id", err, filestore.ErrNotFound)
	set(t, s, "aBC", "n", 2)
	if got := value(t, get(t, s, "Abc"), "n"); got != "1" {
		t.Errorf("n = %s", got)
	}
}
