package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A session that is another's by the time of the answer stays. So does one whose file cannot be read by then, which is
// said: it may still be the user's.
func TestRmLooksAgain(t *testing.T) {
	dir := t.TempDir()
	for i := range 4 {
		mustWrite(t, nodeSession{dir: dir, id: fmt.Sprintf("anna%04d", i), members: `"user":"anna"`})
	}
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: new(bytes.Buffer), err: new(bytes.Buffer)}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	conditions, _ := parseConditions([]string{"user=anna"})
	all, unread, err := a.matching(t.Context(), r, conditions)
	if len(all) != 4 || unread != 0 || err != nil {
		t.Fatalf("matching = %v, %d, %v", all, unread, err)
	}
	mustWrite(t, nodeSession{dir: dir, id: "anna0001", members: `"user":"bert"`})
	put(t, dir, "anna0002.json", "{")
	os.Remove(filepath.Join(dir, "anna0003.json"))
	n, failed, err := a.end(t.Context(), r, all, conditions)
	if n != 1 || failed != 1 || !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("end = %d, %d, %v, want 1, 1, %v", n, failed, err, filestore.ErrCorrupt)
	}
	for _, id := range []string{"anna0001", "anna0002"} {
		if _, err := os.Stat(filepath.Join(dir, id+".json")); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// A session that has been destroyed by the time of the answer leaves what it must leave.
func TestRmLeavesWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, nodeSession{dir: dir, id: "anna0001", members: `"user":"anna"`})
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: new(bytes.Buffer), err: new(bytes.Buffer)}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	all, missed, err := a.named(t.Context(), r, []string{"anna0001"}, false)
	if len(all) != 1 || missed != 0 || err != nil {
		t.Fatalf("named = %v, %d, %v", all, missed, err)
	}
	mustWrite(t, nodeSession{dir: dir, id: "anna0001", members: `"destroyed":true`})
	if n, failed, err := a.end(t.Context(), r, all, nil); n != 1 || failed != 0 || err != nil {
		t.Errorf("end = %d, %d, %v, want 1", n, failed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "anna0001.json")); err != nil {
		t.Error(err)
	}
}
