package index

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// An id comes out of the table as it went in.
func TestPack(t *testing.T) {
	ids := []string{"a", "-", "_", "A", "a.b", "a,b", "a~b", "x.admin", strings.Repeat("z", 200), strings.Repeat("z", 199) + ".z"}
	for n := 1; n <= 64; n++ {
		ids = append(ids, strings.Repeat(alphabet, 4)[n:2*n])
	}
	for _, id := range ids {
		b := pack(id)
		if got := unpack(b); got != id || size(append(slices.Clone(b), 1, 2, 3, 4)) != len(b) {
			t.Errorf("%q becomes %q, %d bytes", id, got, len(b))
		}
	}
	if got := len(pack(strings.Repeat("x", 32))); got != 25 {
		t.Errorf("32 characters take %d bytes, want 25", got)
	}
}

// A table is a map of ids to hashes, whatever happens in whatever order, and counts each loss.
func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := &table{seed: maphash.MakeSeed()}
	want := make(map[string]uint32)
	var lost uint32
	for i := range 100_000 {
		id := fmt.Sprint(r.IntN(2000))
		if i%3 == 0 {
			id += ".x"
		}
		h := uint32(r.IntN(50))
		old, had := want[id]
		switch n := r.IntN(10); {
		case n < 4:
			tab.set(id, h, false)
			want[id] = h
			if had && old != h {
				lost++
			}
		case n < 6:
			tab.set(id, h, true)
			if !had {
				want[id] = h
			}
		default:
			tab.drop(id)
			delete(want, id)
			if had {
				lost++
			}
		}
	}
	var n uint32
	for h := range uint32(50) {
		var ids []string
		for id, hash := range want {
			if hash == h {
				ids = append(ids, id)
			}
		}
		got := tab.find(nil, h)
		slices.Sort(ids)
		if slices.Sort(got); !slices.Equal(got, ids) {
			t.Errorf("find(%d) = %q, want %q", h, got, ids)
		}
		n += *tab.losses(h)
	}
	if n != lost {
		t.Errorf("%d losses are counted, want %d", n, lost)
	}
	for id := range want {
		tab.drop(id)
	}
	for _, b := range tab.shards {
		if len(b) != 0 || cap(b) > 32 {
			t.Fatalf("an empty shard has %d bytes, and room for %d", len(b), cap(b))
		}
	}
}

// A session with an id of 32 characters takes at most 40 bytes, also after many have come and gone, and also if all
// have the same value.
func TestMemory(t *testing.T) {
	const n = 100_000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	r := rand.New(rand.NewPCG(3, 4))
	ids := make([]string, n)
	fresh := func() string {
		b := make([]byte, 32)
		for i := range b {
			b[i] = alphabet[r.IntN(64)]
		}
		return string(b)
	}
	for i := range ids {
		ids[i] = fresh()
	}
	before := heap()
	tab := &table{seed: maphash.MakeSeed()}
	for i, id := range ids {
		tab.set(id, uint32(i/3), false)
	}
	first := float64(heap()-before) / n
	for i := range n {
		at := r.IntN(n)
		tab.drop(ids[at])
		ids[at] = fresh()
		tab.set(ids[at], uint32(i), false)
	}
	then := float64(heap()-before) / n
	if got := len(tab.find(nil, 7)); got == 0 {
		t.Error("nothing is found")
	}
	t.Logf("%.1f bytes a session, %.1f after churn", first, then)
	if first > 40 || then > 40 || first < 29 {
		t.Errorf("%.1f bytes a session, %.1f after churn, want 29 to 40", first, then)
	}
	runtime.KeepAlive(ids)
}

func BenchmarkTable(b *testing.B) {
	tab := &table{seed: maphash.MakeSeed()}
	for i := range 100_000 {
		tab.set(fmt.Sprintf("%032d", i), uint32(i/3), false)
	}
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			if len(tab.find(nil, 7)) != 3 {
				b.Fatal("not three")
			}
		}
	})
	b.Run("set", func(b *testing.B) {
		for b.Loop() {
			tab.set("00000000000000000000000000001234", 7, false)
		}
	})
}
