package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

func TestIterators(t *testing.T) {
	y := newYard(t, nil)
	want := []string{healthy}
	for i := range 1100 { // more than a batch
		id := fmt.Sprintf("id%d", i)
		write(t, y.dir, id+".json", doc(nowMs(), ""))
		want = append(want, id)
	}
	// B15: foreign files are not counted, listed or removed.
	write(t, y.dir, "expired.json", doc(1, ""))
	write(t, y.dir, "corrupt.json", "{")
	write(t, y.dir, "foreign.json", `{"name":"x"}`)
	for _, name := range []string{"README", "x.txt", "y.json.bak", ".hidden.json", "a b.json", "z.json.123456", "Y.JSON"} {
		write(t, y.dir, name, doc(1, ""))
	}
	os.MkdirAll(filepath.Join(y.dir, "dir.json", "sub"), 0o700)
	os.MkdirAll(filepath.Join(y.dir, "sub"), 0o700)
	write(t, y.dir, "sub/in.json", doc(1, ""))
	y.mark()

	var ids []string
	for id, err := range y.s.IDs(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	all := append(slices.Clone(want), "expired", "corrupt", "foreign")
	slices.Sort(all)
	if !slices.Equal(ids, all) {
		t.Errorf("IDs gave %d, want %d", len(ids), len(all))
	}
	var live []string
	for e, err := range y.s.All(ctx) {
		if err != nil || e.Session == nil {
			t.Fatalf("All: %v %v", e, err)
		}
		live = append(live, e.ID)
	}
	slices.Sort(live)
	slices.Sort(want)
	if !slices.Equal(live, want) {
		t.Errorf("All gave %d, want %d", len(live), len(want))
	}
	if n, err := y.s.Len(ctx); n != len(want) || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, len(want))
	}
	for range y.s.IDs(ctx) {
		break
	}
	for range y.s.All(ctx) {
		break
	}
	y.check()

	if err := y.s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	set(t, y.s, healthy, "user", "anna")
	gone := []string{"expired.json", healthy + ".json"}
	for _, id := range want {
		gone = append(gone, id+".json")
	}
	y.check(gone...)
	if n, err := y.s.Len(ctx); n != 1 || err != nil {
		t.Errorf("Len after Clear = %d, %v", n, err)
	}
}

// Clear flushes the directory once, however many sessions there are.
func TestClearFlushesOnce(t *testing.T) {
	o := quick()
	o.NoSync = false
	s := open(t, t.TempDir(), o)
	for _, n := range []int{0, 1, 200} {
		for i := range n {
			set(t, s, fmt.Sprintf("id%d", i))
		}
		before := s.Stats()
		if err := s.Clear(ctx); err != nil {
			t.Fatal(err)
		}
		after := s.Stats()
		if flushes, destroys := after.Flushes-before.Flushes, after.Destroys-before.Destroys; flushes != 1 || destroys != int64(n) {
			t.Errorf("Clear of %d sessions has flushed %d times, and counts %d", n, flushes, destroys)
		}
	}
}

// Scan leaves nothing out: what All passes over comes with the reason, and what is gone meanwhile does not come.
func TestScan(t *testing.T) {
	y := newYard(t, &filestore.Options{MaxSize: 2000, Lifetime: time.Hour})
	for i := range 1000 {
		write(t, y.dir, fmt.Sprintf("id%d.json", i), doc(nowMs(), ""))
	}
	write(t, y.dir, "expired.json", doc(1, `,"user":"bert"`))
	write(t, y.dir, "corrupt.json", "{")
	write(t, y.dir, "large.json", doc(nowMs(), `,"x":"`+strings.Repeat("x", 2000)+`"`))
	write(t, y.dir, "z.txt", doc(1, ""))
	os.Mkdir(filepath.Join(y.dir, "dir.json"), 0o700)
	y.mark()
	want := map[string]error{"expired": filestore.ErrExpired, "corrupt": filestore.ErrCorrupt, "large": filestore.ErrTooLarge, "dir": filestore.ErrUnsafeFile}
	seen := make(map[string]bool)
	for e, err := range y.s.Scan(ctx) {
		if seen[e.ID] || !errors.Is(err, want[e.ID]) || (e.Session == nil) != (err != nil && e.ID != "expired") {
			t.Errorf("Scan gave %q, %v, %v", e.ID, e.Session, err)
		}
		seen[e.ID] = true
		if e.ID == "expired" && (string(e.Session.Values["user"]) != `"bert"` || !e.Session.ExpiresAt(time.Hour).Equal(time.UnixMilli(1).Add(time.Hour))) {
			t.Errorf("the expired session is %s and ended at %v", e.Session.Values, e.Session.ExpiresAt(time.Hour))
		}
		if data, err := os.ReadFile(filepath.Join(y.dir, e.ID+".json")); e.Session != nil && (err != nil || e.Session.Size() != len(data)) {
			t.Errorf("the size of %s is %d, and its file has %d bytes", e.ID, e.Session.Size(), len(data))
		}
	}
	if len(seen) != 1000+5 {
		t.Errorf("Scan gave %d", len(seen))
	}
	y.check()

	own, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	var last error
	for _, err := range y.s.Scan(own) {
		if n++; n == 3 {
			cancel()
		}
		last = err
	}
	if n > 4 || !errors.Is(last, context.Canceled) {
		t.Errorf("after its context was done Scan gave %d, at last %v", n, last)
	}
	for range y.s.Scan(ctx) {
		break
	}
	y.s.Close()
	for e, err := range y.s.Scan(ctx) {
		if e.ID != "" || !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("on a closed store Scan gave %q, %v", e.ID, err)
		}
	}
}
