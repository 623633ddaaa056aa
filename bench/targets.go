package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A target is a bound for the ratio of two lines, which filestore must keep.
type target struct {
	fs       string // or "" for any
	row, of  string // row may be the beginning of a name
	to       string
	atLeast  bool
	want     float64
	longest  bool    // in place of a ratio of's greatest figure, in milliseconds
	orMillis float64 // whatever the ratio, it may take this long
}

var targets = []target{
	{row: "Get hot", of: "filestore NoSync", to: "limit", want: 1.6},
	{row: "Get uniform", of: "filestore NoSync", to: "limit", want: 2},
	{row: "Get cache off", of: "filestore, no cache", to: "limit", want: 1.6},
	{row: "Get missing", of: "filestore NoSync", to: "limit", want: 2},
	{fs: "ext4", row: "Set over", of: "filestore NoSync", to: "limit", want: 0.7},
	{fs: "tmpfs", row: "Set over", of: "filestore NoSync", to: "limit", want: 1.8},
	{fs: "ext4", row: "Set over, durable", of: "filestore", to: "limit", want: 1.15},
	{fs: "ext4", row: "Set over, 8 at once, durable", of: "filestore", to: "scs sqlite FULL", want: 1},
	{fs: "ext4", row: "Set over, 64 at once, durable", of: "filestore", to: "scs sqlite FULL", want: 1},
	{fs: "ext4", row: "Set over, durable", of: "session-file-store", to: "filestore", atLeast: true, want: 1.8},
	{fs: "ext4", row: "Set new", of: "filestore NoSync", to: "limit", want: 1.5},
	{fs: "tmpfs", row: "Set new", of: "filestore NoSync", to: "limit", want: 1.8},
	{row: "Touch", of: "filestore NoSync", to: "filestore NoSync, Get", want: 1.2},
	{fs: "ext4", row: touchWrites + ", durable", of: "filestore", to: "limit", want: 1.15},
	{fs: "ext4", row: "Destroy", of: "filestore NoSync", to: "limit", want: 1.6},
	{fs: "ext4", row: destroyOld, of: "filestore NoSync", to: "limit", want: 1.6},
	{fs: "tmpfs", row: "Destroy", of: "filestore NoSync", to: "limit", want: 2.4},
	{row: "mixed, 8 at once", of: "filestore NoSync", to: "gorilla", atLeast: true, want: 3},
	{row: "mixed, 64 at once, longest wait", of: "filestore NoSync", longest: true, want: 50},
	{fs: "ext4", row: "mixed, 64 at once, durable, longest wait", of: "filestore", longest: true, want: 50},
	{row: "longest wait beside an Update of 2 s", of: "filestore NoSync", longest: true, want: 100},
	{row: "longest wait beside 3000 Updates", of: "filestore NoSync", longest: true, want: 100},
	{row: "longest wait beside 3000 Sets", of: "filestore NoSync", longest: true, want: 100},
	{row: "import, per session", of: "filestore", longest: true, want: 0.1},
	{row: "Get, encrypted", of: "session-file-store", to: "kruptein, no cache", atLeast: true, want: 100},
	{row: "Set over, encrypted, durable", of: "session-file-store", to: "kruptein", atLeast: true, want: 100},
	{row: "Reap *, 1 % expired", of: "filestore NoSync", to: "limit", want: 1.3},
	{row: "Reap *, all expired", of: "filestore NoSync", to: "limit", want: 1.3},
	{row: "Set p99 beside a Reap", of: "filestore NoSync, while reaping", to: "filestore NoSync", want: 2,
		orMillis: 10},
	{row: "memory: heap per session", of: "filestore NoSync", to: "scs memory", want: 1.25},
	{row: "Redis, Get", of: "redisstore", to: "scs goredisstore", want: 1.3},
	{row: "Redis, Set", of: "redisstore", to: "scs goredisstore", want: 1.3},
	{row: "PostgreSQL, Get", of: "pgstore", to: "scs pgxstore", want: 1.3},
	{row: "PostgreSQL, Set", of: "pgstore", to: "scs pgxstore", want: 1.3},
	{row: "MariaDB, Get", of: "mysqlstore", to: "scs mysqlstore", want: 1.3},
	{row: "MariaDB, Set", of: "mysqlstore", to: "scs mysqlstore", want: 1.3},
	{row: "HTTP, read only", of: "filestore NoSync", to: "scs memory", atLeast: true, want: 0.9},
}

func (t *table) printTargets() {
	fmt.Printf("\ntargets, %s:\n", t.fs)
	for _, g := range targets {
		if g.fs != "" && g.fs != t.fs {
			continue
		}
		row := g.row
		for _, l := range t.lines { // the row names the number of sessions, which varies
			head, tail, ok := strings.Cut(g.row, "*")
			if ok && strings.HasPrefix(l.row, head) && strings.HasSuffix(l.row, tail) {
				row = l.row
			}
		}
		of, to := t.find(row, g.of), t.find(row, g.to)
		got, unit := ratio(of, to), "x "+g.to
		if g.fs == "ext4" && row == "Set over" {
			// With the mount option noauto_da_alloc ext4 flushes no rename, and there is nothing to gain.
			swap := t.find(row, "limit, exchange")
			if ratio(to, swap) < 1.5 {
				got, unit, g.want = ratio(of, swap), "x "+swap.name+" (the rename flushes nothing)", 1.4
			}
		}
		if g.longest && of != nil {
			got, unit = slices.Max(of.rounds)/1e6, "ms"
		}
		if math.IsNaN(got) || g.longest && of == nil {
			continue // not measured
		}
		ok, sign := got <= g.want, "<="
		if g.atLeast {
			ok, sign = got >= g.want, ">="
		}
		if g.orMillis > 0 {
			took := median(of.rounds) / 1e6
			ok = ok || took <= g.orMillis
			unit += fmt.Sprintf(" or <= %.0f ms (took %.2f)", g.orMillis, took)
		}
		verdict := "ok"
		if !ok {
			verdict = "MISSED"
		}
		fmt.Printf("%-6s  %-40s %-31s %6.2f  %s %.2f %s\n", verdict, row, g.of, got, sign, g.want, unit)
	}
}
