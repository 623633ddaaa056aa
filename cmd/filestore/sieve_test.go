package main

import (
	"fmt"
	"testing"
)

func TestSieve(t *testing.T) {
	var s sieve
	for i := range 10_000 {
		s.add(fmt.Sprint("id", i))
	}
	for _, id := range []string{"AbC", "aBc", "x"} {
		s.add(id)
	}
	if !s.twice || !s.maybe("abc") || s.maybe("x") {
		t.Errorf("the sieve says %v %v %v", s.twice, s.maybe("abc"), s.maybe("x"))
	}
	alike := 0
	for i := range 10_000 {
		if s.maybe(fmt.Sprint("id", i)) {
			alike++
		}
	}
	if alike > 10 {
		t.Errorf("%d of 10,000 ids seem alike", alike)
	}
}
