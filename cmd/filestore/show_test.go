package main

import (
	"strings"
	"testing"
	"time"
)

// A session that nests deep is not indented: it would be thousands of times as large.
func TestShowDeep(t *testing.T) {
	dir, _ := sessions(t, nil)
	put(t, dir, "deep.json", document(time.Now(), "null", `,"x":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)))
	r := command(t, "", "show", "deep", "--dir", dir)
	if r.code != 0 || len(r.out) > 30_000 {
		t.Errorf("show = %d, %d bytes, %s", r.code, len(r.out), r.stderr)
	}
}
