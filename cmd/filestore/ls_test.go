package main

import (
	"fmt"
	"testing"
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
