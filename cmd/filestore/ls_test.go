package main

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// The heap of --limit keeps the rows that sorting all would put first.
func TestKeeper(t *testing.T) {
	for _, by := range []string{"id", "-id", "ends", "-ends", "access", "-access", "size", "-size"} {
		order, err := rowOrder(by)
		if err != nil {
			t.Fatal(err)
		}
		all, few := &keeper{order: order}, &keeper{order: order, limit: 7}
		for i := range 100 {
			w := row{id: fmt.Sprint(i * 37 % 100), ends: int64(i * 7 % 13), access: int64(i * 11 % 17), size: int64(i * 5 % 9)}
			all.put(w)
			few.put(w)
		}
		if got, want := fmt.Sprint(few.sorted()), fmt.Sprint(all.sorted()[:7]); got != want {
			t.Errorf("--sort %s --limit 7: %s, want %s", by, got, want)
		}
	}
}

// On a terminal an empty list says so, or nobody knows whether the directory is the right one.
func TestLsOfNothing(t *testing.T) {
	dir := t.TempDir()
	list := func(paints bool, f lsFlags) string {
		t.Helper()
		var out, errOut bytes.Buffer
		a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: &out, err: &errOut, paints: paints}
		if err := a.ls(t.Context(), f); err != nil || out.Len() > 0 {
			t.Errorf("ls: %v, %q", err, out.String())
		}
		return errOut.String()
	}
	if got, want := list(true, lsFlags{}), "no sessions in "+given(dir)+"\n"; got != want {
		t.Errorf("ls of an empty directory says %q, want %q", got, want)
	}
	mustWrite(t, nodeSession{dir: dir, id: "anna0001"})
	if got := list(true, lsFlags{where: []string{"user=bert"}}); got != "no such sessions in "+given(dir)+"\n" {
		t.Errorf("ls of nobody's sessions says %q", got)
	}
	if got := list(false, lsFlags{expired: true}); got != "" {
		t.Errorf("without a terminal it says %q", got)
	}
}
