package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A session that is another's by the time of the answer stays.
func TestRmLooksAgain(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001", members: `"user":"anna"`})
	mustWrite(t, nodeSession{dir: dir, id: "anna0002anna0002", members: `"user":"anna"`})
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: new(bytes.Buffer), err: new(bytes.Buffer)}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	conditions, _ := parseConditions([]string{"user=anna"})
	all, unread, err := a.matching(t.Context(), r, conditions)
	if len(all) != 2 || unread != 0 || err != nil {
		t.Fatalf("matching = %v, %d, %v", all, unread, err)
	}
	mustWrite(t, nodeSession{dir: dir, id: "anna0002anna0002", members: `"user":"bert"`})
	n, failed, err := a.end(t.Context(), r, all, conditions)
	if n != 1 || failed != 0 || err != nil {
		t.Errorf("end = %d, %d, %v, want 1", n, failed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "anna0002anna0002.json")); err != nil {
		t.Errorf("bert's session: %v", err)
	}
}
