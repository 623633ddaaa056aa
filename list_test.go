package filestore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestIterators(t *testing.T) {
	y := newYard(t, nil)
	want := []string{healthy}
	for i := range 3000 { // more than a batch
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
