package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

const (
	batchTime = 20 * time.Millisecond // for one contender in one round
	batchMin  = 16                    // operations, if they take long
	batchMax  = 100_000

	mixedTime = 100 * time.Millisecond
	rowTime   = 20 * time.Second // after it a row with three rounds ends
	fillTime  = time.Minute      // then a contender is left out

	// filestore does not cache a file that was changed less than 20 ms before it is read.
	settled = 50 * time.Millisecond

	// It does not lock a file that was made less than 50 ms before.
	newLock = 60 * time.Millisecond
)

// id returns the id of a session. It looks as random as a real one.
func id(i int) string {
	x := uint64(i+1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return fmt.Sprintf("%016x%016x", x^x>>31, x)
}

func ids(from, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = id(from + i)
	}
	return s
}

// pick returns n of all, each chosen at random.
func pick(all []string, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = all[rand.IntN(len(all))]
	}
	return s
}

// An entry is a contender in one row. run does n operations and returns how long they took.
type entry struct {
	name string
	run  func(n int) (time.Duration, error) // nil = has no such operation

	max    int // operations in a batch; 0 = batchMax
	n      int // operations in a batch, as many as take batchTime
	failed bool
}

// batches measures a row. best is the name of the entry that the others are compared with.
func (t *table) batches(row, best string, entries []*entry) {
	if !opsOnly.MatchString(row) {
		return
	}
	t.lay(row, best, perOp, entries)
	for _, e := range entries {
		if e.run == nil {
			e.failed = true
			continue
		}
		most := cmp.Or(e.max, batchMax)
		for e.n = min(4, most); ; e.n = min(4*e.n, most) {
			d, err := e.run(e.n)
			if err != nil {
				t.drop(row, e.name, err)
				e.failed = true
				break
			}
			if d > batchTime/4 || e.n == most {
				e.n = min(max(int(float64(e.n)*float64(batchTime)/float64(d)), batchMin), most)
				break
			}
		}
	}
	t.rotate(row, entries, func(e *entry) error {
		d, err := e.run(e.n)
		t.add(row, e.name, perOp, float64(d)/float64(e.n))
		return err
	})
}

// lay makes the lines of a row, in the order of the entries.
func (t *table) lay(row, best string, u unit, entries []*entry) {
	t.best[row] = best
	for _, e := range entries {
		e.failed = false
		t.lines = append(t.lines, &line{row: row, name: e.name, unit: u})
	}
}

// rotate runs the entries in turn. Each round begins with another one, so that a disturbance of the machine,
// or by the entry before, affects all alike.
func (t *table) rotate(row string, entries []*entry, one func(e *entry) error) {
	start := time.Now()
	for round := range *rounds {
		if round >= 3 && time.Since(start) > rowTime {
			return
		}
		for i := range entries {
			e := entries[(i+round)%len(entries)]
			if e.failed {
				continue
			}
			runtime.GC() // so that no entry pays for the garbage of the one before
			if err := one(e); err != nil {
				t.drop(row, e.name, err)
				e.failed = true
			}
		}
	}
}

func loop(ids []string, fn func(string) error) (time.Duration, error) {
	from := time.Now()
	for _, id := range ids {
		if err := fn(id); err != nil {
			return 0, err
		}
	}
	return time.Since(from), nil
}

// borrow returns s with a close that does nothing.
func (s *store) borrow() *store {
	b := *s
	b.close = func() {}
	return &b
}

// do does op for each of ids. It returns errNone if s does not have op.
func (s *store) do(op string, ids []string) (time.Duration, error) {
	if s.child != nil {
		a, err := s.child.do(request{Op: op, IDs: ids})
		return a.NS, err
	}
	fn := s.operation(op)
	if fn == nil {
		return 0, errNone
	}
	return loop(ids, fn)
}

// operation returns the one with that name, nil if there is none.
func (s *store) operation(op string) func(id string) error {
	get := func(want bool) func(string) error {
		if s.get == nil {
			return nil
		}
		return func(id string) error {
			found, err := s.get(id)
			if err == nil && found != want {
				err = fmt.Errorf("get: found is %v", found)
			}
			return err
		}
	}
	return map[string]func(string) error{"get": get(true), "missing": get(false), "set": s.set, "touch": s.touch,
		"update": s.update, "destroy": s.destroy}[op]
}

// together is do by some goroutines at once, each with its share of ids.
func (s *store) together(op string, ids []string, workers int) (time.Duration, error) {
	if workers == 1 {
		return s.do(op, ids)
	}
	if s.child != nil {
		a, err := s.child.do(request{Op: op, IDs: ids, Workers: workers})
		return a.NS, err
	}
	from := time.Now()
	err := atOnce(workers, func(i int) error {
		_, err := s.do(op, ids[i*len(ids)/workers:(i+1)*len(ids)/workers])
		return err
	})
	return time.Since(from), err
}

// atOnce runs fn in n goroutines.
func atOnce(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

var errNone = errors.New("has no such operation")

// A peer is an open contender in an env.
type peer struct {
	contender
	*store
}

// measure does all rows. The memory of processes does not depend on the file system, so it is measured once.
func (t *table) measure(e *env, memory bool) error {
	spread(e.dir)
	e.shared = filepath.Join(e.dir, "shared")
	filler, err := filestoreIn(e.shared, true, -1)
	if err != nil {
		return err
	}
	defer filler.close()
	all := ids(0, *sessionCount)
	if _, err := filler.do("set", all); err != nil {
		return err
	}
	limit, err := openBare(e.shared)
	if err != nil {
		return err
	}
	defer limit.close()
	var peers []peer
	for _, c := range slices.Concat(limits, contenders) {
		if !peersOnly.MatchString(c.name) && !c.limit() {
			continue
		}
		s, err := c.open(e)
		if err != nil {
			fmt.Printf("%s: %s: left out: %v\n", t.fs, c.name, err)
			continue
		}
		defer s.close()
		if !c.shared {
			if err := fill(s, all); err != nil {
				fmt.Printf("%s: %s: left out: fill: %v\n", t.fs, c.name, err)
				continue
			}
		}
		peers = append(peers, peer{c, s})
	}
	if err := limit.settle(); err != nil {
		return err
	}
	time.Sleep(settled)
	for _, p := range peers { // fills the caches
		if p.name == "filestore NoSync" {
			if _, err := p.do("get", all); err != nil {
				return err
			}
		}
	}
	t.reads(limit, peers, all)
	t.scans(e, limit, peers)
	t.writes(e, limit, filler, peers, all)
	t.mixed(e, filler, peers, all)
	if err := t.encrypted(e); err != nil {
		return err
	}
	t.contention(e)
	if *importCount > 0 {
		if err := t.imports(e); err != nil {
			return err
		}
	}
	if *reapCount > 0 {
		if err := t.reaps(e); err != nil {
			return err
		}
	}
	if *withHTTP {
		t.http(e)
	}
	if memory && *memoryCount > 0 {
		t.memory()
	}
	return nil
}

func (c contender) limit() bool { return strings.HasPrefix(c.name, "limit") }

func fill(s *store, all []string) error {
	from := time.Now()
	for _, id := range all {
		if err := s.set(id); err != nil {
			return err
		}
		if time.Since(from) > fillTime {
			return fmt.Errorf("takes longer than %v", fillTime)
		}
	}
	return nil
}

// row makes the entries of a row: the given ones, and the peers that belong in it.
func row(entries []*entry, peers []peer, belongs func(peer) bool,
	run func(peer, int) (time.Duration, error)) []*entry {
	for _, p := range peers {
		if belongs(p) {
			one := func(n int) (time.Duration, error) { return run(p, n) }
			entries = append(entries, &entry{name: p.name, run: one})
		}
	}
	return entries
}

func (t *table) reads(limit *bare, peers []peer, all []string) {
	bareOn := func(ids []string, fn func(string) error) []*entry {
		return []*entry{{name: "limit", run: func(n int) (time.Duration, error) { return loop(pick(ids, n), fn) }}}
	}
	// Stores that flush read like those that do not.
	reads := func(p peer) bool {
		return !p.limit() && (!p.durable || p.child != nil) && p.name != "filestore, no cache"
	}
	files := func(p peer) bool { // reads a file each time
		return p.name == "filestore, no cache" || reads(p) && p.name != "filestore NoSync" && p.files()
	}
	get := func(op string, ids []string) func(peer, int) (time.Duration, error) {
		return func(p peer, n int) (time.Duration, error) { return p.do(op, pick(ids, n)) }
	}
	missing := ids(*sessionCount, 1000)
	hot := func(ids []string) []*entry {
		return append(bareOn(ids, limit.stat), &entry{name: "limit, copy", run: func(n int) (time.Duration, error) {
			return loop(pick(ids, n), limit.statCopy)
		}})
	}
	t.batches("Get hot", "limit", row(hot(all[:1]), peers, reads, get("get", all[:1])))
	t.batches("Get uniform", "limit", row(hot(all), peers, reads, get("get", all)))
	t.batches("Get missing", "limit", row(bareOn(missing, limit.missing), peers, reads, get("missing", missing)))
	t.batches("Get cache off", "limit", row(bareOn(all, limit.read), peers, files, get("get", all)))

	// Touch is compared with the Get of the same store.
	touches := bareOn(all, limit.stat)
	for _, p := range peers {
		if p.name == "filestore NoSync" {
			touches = append(touches, &entry{name: "filestore NoSync, Get", run: func(n int) (time.Duration, error) {
				return p.do("get", pick(all, n))
			}})
		}
	}
	t.batches("Touch", "limit", row(touches, peers,
		func(p peer) bool { return reads(p) && (p.touch != nil || p.child != nil) }, get("touch", all)))
}

// files reports whether the contender has a file for each session.
func (c contender) files() bool { return !strings.HasPrefix(c.name, "scs") }

// scans measures the operations on the whole directory. All is given per session.
func (t *table) scans(e *env, limit *bare, peers []peer) {
	whole := func(fn func() (int, error)) func(n int) (time.Duration, error) {
		return func(n int) (time.Duration, error) {
			var d time.Duration
			done := 0
			for done < n {
				from := time.Now()
				m, err := fn()
				d += time.Since(from)
				if err != nil || m < *sessionCount {
					return 0, fmt.Errorf("all: %d sessions, %v", m, err)
				}
				done += m
			}
			return d * time.Duration(n) / time.Duration(done), nil
		}
	}
	t.batches("All, per session", "limit", row([]*entry{{name: "limit", run: whole(limit.all)}}, peers,
		func(p peer) bool { return p.all != nil && !p.durable && p.name != "filestore, no cache" },
		func(p peer, n int) (time.Duration, error) { return whole(p.all)(n) }))

	const old, fresh = "filestore NoSync", "filestore NoSync, new directory"
	t.batches("Open and Close", old, []*entry{
		{name: old, run: func(n int) (time.Duration, error) {
			return loop(make([]string, n), func(string) error { return openClose(e.shared) })
		}},
		{name: fresh, max: 4, run: func(n int) (d time.Duration, err error) {
			for range n {
				dir, err := e.newDir()
				if err != nil {
					return 0, err
				}
				from := time.Now()
				if err := openClose(filepath.Join(dir, "new")); err != nil {
					return 0, err
				}
				d += time.Since(from)
				os.RemoveAll(dir)
			}
			return d, nil
		}},
	})
}

func openClose(dir string) error {
	s, err := filestore.Open(dir, &filestore.Options{TTL: ttl, ReapInterval: -1, NoSync: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// lot returns p at work on at least n sessions, their ids, and a store that does the work that is not timed.
//
// ext4 without a journal does not use an inode again for minutes. In a block group from which many files
// were removed, it looks at each of them, and a creation takes 700 µs in place of 15. So there each batch is
// short and gets a new directory, in its own block group.
func (t *table) lot(e *env, filler *store, p peer, all []string, n int) (peer, *store, []string, error) {
	if t.fs == "tmpfs" || !p.files() {
		p.store = p.borrow()
		quick := p.store
		if p.shared {
			quick = filler.borrow()
		}
		return p, quick, all, nil
	}
	e, err := e.fresh()
	if err != nil {
		return p, nil, nil, err
	}
	all = all[:min(n, len(all))]
	quick, err := filestoreIn(e.shared, true, -1) // makes .locks, too
	if err != nil {
		return p, nil, nil, err
	}
	if p.child != nil {
		err = p.move(e.shared)
		p.store = p.borrow()
	} else {
		p.store, err = p.open(e)
	}
	if err != nil {
		quick.close()
		return p, nil, nil, err
	}
	if !p.shared {
		quick.close()
		quick = p.borrow()
	}
	_, err = quick.do("set", all)
	if p.shared {
		time.Sleep(newLock)
	}
	return p, quick, all, err
}

const (
	// destroyOld removes files whose bytes are on the disk. Destroy removes files that were just written, but
	// for the durable one: those of a store that flushes are always on the disk.
	destroyOld = "Destroy, on disk"

	touchWrites = "Touch that writes"
)

// writes measures each operation in two rows, with a flush and without. A flush is not measured on tmpfs,
// which does not have a disk.
func (t *table) writes(e *env, limit *bare, filler *store, peers []peer, all []string) {
	next := 10_000_000 // each batch of new sessions has other ids
	batch := func(row string, p peer, n, workers int) (d time.Duration, err error) {
		lot := 100
		if workers > 1 {
			lot = 1000 // so that few want the same one
		}
		p, quick, all, err := t.lot(e, filler, p, all, lot)
		if err != nil {
			return 0, err
		}
		defer p.close()
		defer quick.close()
		next += n
		fresh := ids(next, n)
		if strings.HasPrefix(row, "Destroy") {
			if _, err := quick.do("set", fresh); err != nil {
				return 0, err
			}
		}
		if p.durable || row == destroyOld { // no flush must write what was not measured
			if err := limit.settle(); err != nil {
				return 0, err
			}
		}
		switch row {
		case "Set over":
			return p.together("set", pick(all, n), workers)
		case "Update":
			return p.together("update", pick(all, n), workers)
		case touchWrites:
			if p.get != nil { // a request has read its session before
				if _, err := p.do("get", all); err != nil {
					return 0, err
				}
			}
			return p.do("touch", pick(all, n))
		case "Set new":
			d, err = p.do("set", fresh)
			if err == nil {
				_, err = quick.do("destroy", fresh)
			}
		case "Destroy", destroyOld:
			d, err = p.together("destroy", fresh, workers)
		}
		return d, err
	}
	for _, durable := range []bool{false, true} {
		for _, op := range []string{"Set over", "Set new", "Update", touchWrites, "Destroy", destroyOld} {
			if op == destroyOld && (durable || t.fs == "tmpfs") || op == touchWrites && !durable {
				continue
			}
			belongs := func(p peer) bool {
				if strings.HasPrefix(op, "Destroy") && (p.child != nil || p.name == "limit, exchange") {
					return p.child != nil && !durable // it does not flush a destroy
				}
				if op == touchWrites && p.touch == nil && p.child == nil {
					return false
				}
				if op == "Set new" && p.name == "limit, exchange" {
					return false
				}
				return p.name != "filestore, no cache" && p.durable == durable
			}
			name := op
			if durable {
				name += ", durable"
			}
			if durable && t.fs == "tmpfs" {
				continue
			}
			entries := row(nil, peers, belongs,
				func(p peer, n int) (time.Duration, error) { return batch(op, p, n, 1) })
			for _, e := range entries {
				if e.max = 0; t.fs != "tmpfs" {
					e.max = 128
				}
			}
			t.batches(name, "limit", entries)
		}
	}
	if t.fs == "tmpfs" {
		return
	}
	for _, op := range []string{"Set over", "Update", "Destroy"} {
		for _, workers := range []int{8, 64} {
			entries := row(nil, peers,
				func(p peer) bool { return p.durable && !p.limit() && p.child == nil },
				func(p peer, n int) (time.Duration, error) { // n each, and the time for n of all
					d, err := batch(op, p, n*workers, workers)
					return d / time.Duration(workers), err
				})
			for _, e := range entries {
				e.max = max(128/workers, 4)
			}
			t.batches(fmt.Sprintf("%s, %d at once, durable", op, workers), "scs sqlite FULL", entries)
		}
	}
}

// mixed measures 90 % Get, 9 % Set and 1 % Destroy, of random sessions.
func (t *table) mixed(e *env, filler *store, peers []peer, all []string) {
	for _, durable := range []bool{false, true} {
		for _, workers := range []int{1, 8, 64} {
			name := fmt.Sprintf("mixed, %d at once", workers)
			best := "gorilla"
			if durable {
				name, best = name+", durable", "session-file-store"
			}
			if durable && t.fs == "tmpfs" || !opsOnly.MatchString(name) {
				continue
			}
			wait := name + ", longest wait"
			byName := make(map[string]peer)
			entries := row(nil, peers, func(p peer) bool {
				return p.durable == durable && p.name != "filestore, no cache" && !p.limit()
			}, nil)
			for _, p := range peers {
				if p.durable == durable {
					byName[p.name] = p
				}
			}
			t.lay(name, best, rate, entries)
			t.lay(wait, best, perOp, entries)
			t.rotate(name, entries, func(en *entry) error {
				p, quick, all, err := t.lot(e, filler, byName[en.name], all, 1000)
				if err != nil {
					return err
				}
				defer p.close()
				defer quick.close()
				n, longest, err := p.mix(all, workers)
				if err != nil {
					t.drop(wait, en.name, err)
					return err
				}
				t.add(name, en.name, rate, float64(n)/mixedTime.Seconds())
				t.add(wait, en.name, perOp, float64(longest))
				return nil
			})
		}
	}
}

func (s *store) mix(all []string, workers int) (n int, longest time.Duration, err error) {
	if s.child != nil {
		a, err := s.child.do(request{Op: "mixed", IDs: all, Workers: workers, MS: mixedTime.Milliseconds()})
		return a.N, a.Longest, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(mixedTime)
	for range workers {
		wg.Go(func() {
			var my int
			var myLongest time.Duration
			var myErr error
			for from := time.Now(); from.Before(end) && myErr == nil; from = time.Now() {
				id := all[rand.IntN(len(all))]
				switch dice := rand.IntN(100); {
				case dice < 90:
					_, myErr = s.get(id)
				case dice < 99:
					myErr = s.set(id)
				default:
					myErr = s.destroy(id)
				}
				my++
				myLongest = max(myLongest, time.Since(from))
				// Yield, as a server does between two requests. Otherwise a goroutine would go on for 10 ms,
				// and only the waits for the scheduler would be measured.
				runtime.Gosched()
			}
			mu.Lock()
			defer mu.Unlock()
			n, longest, err = n+my, max(longest, myLongest), errors.Join(err, myErr)
		})
	}
	wg.Wait()
	return n, longest, err
}

// A den is a directory of sessions to reap.
type den struct {
	*env
	*bare
	store *store // filestore in it
}

func newDen(e *env) (*den, error) {
	e, err := e.fresh()
	if err != nil {
		return nil, err
	}
	s, err := filestoreIn(e.shared, true, 0)
	if err != nil {
		return nil, err
	}
	b, err := openBare(e.shared)
	return &den{e, b, s}, err
}

func (d *den) close() {
	d.bare.close()
	d.store.close()
	os.RemoveAll(d.dir)
}

// expired makes files of expired sessions, and waits until all are on the disk.
func (d *den) expired(due []string) error {
	old := session(values(*payload))
	old.LastAccess = time.Now().Add(-2 * ttl)
	doc, err := old.MarshalJSON()
	return errors.Join(err, d.expire(due, doc), d.settle())
}

// reaps measures a pass over a directory. It is made again for each pass if all sessions have expired, and
// stays the same if nearly all live.
func (t *table) reaps(e *env) error {
	n := *reapCount
	all, few := ids(0, n), ids(0, n/100)
	entries := []*entry{{name: "limit"}, {name: "filestore NoSync"}}
	var node *store
	if peersOnly.MatchString("session-file-store") {
		var err error
		if node, err = openNode(e); err == nil { // if not, measure has said why
			defer node.close()
			entries = append(entries, &entry{name: "session-file-store"})
		}
	}
	pass := func(d *den, row, name string, due []string) error {
		err := d.expired(due)
		reap := d.store.reap
		switch name {
		case "limit":
			reap = d.bare.reap
		case "session-file-store":
			err, reap = errors.Join(err, node.move(d.shared)), node.reap
		}
		if err != nil {
			return err
		}
		from := time.Now()
		err = reap()
		t.add(row, name, perOp, float64(time.Since(from)))
		for _, id := range due {
			if d.stat(id) == nil {
				return errors.Join(err, errors.New("expired sessions are still there"))
			}
		}
		return err
	}
	if row := fmt.Sprintf("Reap %d, all expired", n); opsOnly.MatchString(row) {
		t.lay(row, "limit", perOp, entries)
		t.rotate(row, entries, func(en *entry) error {
			d, err := newDen(e)
			if err != nil {
				return err
			}
			defer d.close()
			return pass(d, row, en.name, all)
		})
	}
	if row := fmt.Sprintf("Reap %d, 1 %% expired", n); opsOnly.MatchString(row) {
		d, err := newDen(e)
		if err != nil {
			return err
		}
		defer d.close()
		if _, err := d.store.do("set", ids(n, n-n/100)); err != nil {
			return err
		}
		t.lay(row, "limit", perOp, entries)
		t.rotate(row, entries, func(en *entry) error { return pass(d, row, en.name, few) })
	}
	const beside, alone = "filestore NoSync, while reaping", "filestore NoSync"
	if row := "Set p99 beside a Reap"; opsOnly.MatchString(row) {
		t.lay(row, alone, perOp, []*entry{{name: alone}, {name: beside}})
		start := time.Now()
		for round := 0; round < *rounds && (round < 3 || time.Since(start) < rowTime); round++ {
			d, err := newDen(e)
			if err != nil {
				return err
			}
			with, without, err := d.setWhileReaping(all)
			d.close()
			if err != nil {
				return err
			}
			t.add(row, alone, perOp, without)
			t.add(row, beside, perOp, with)
		}
	}
	return nil
}

// setWhileReaping returns the 99th percentile of the times of single Sets during a Reap of due, and of as
// many Sets before it.
func (d *den) setWhileReaping(due []string) (with, without float64, err error) {
	live := ids(20_000_000, 1000)
	if _, err := d.store.do("set", live); err != nil {
		return 0, 0, err
	}
	if err := d.expired(due); err != nil {
		return 0, 0, err
	}
	sets := func(until func(done int) bool) (p99 float64, n int, err error) {
		var took []float64
		for !until(len(took)) {
			from := time.Now()
			if err := d.store.set(live[rand.IntN(len(live))]); err != nil {
				return 0, 0, err
			}
			took = append(took, float64(time.Since(from)))
			time.Sleep(50 * time.Microsecond) // a server does not write all the time
		}
		return quantile(took, 0.99), len(took), nil
	}
	runtime.GC()
	if without, _, err = sets(func(done int) bool { return done == 1000 }); err != nil {
		return 0, 0, err
	}
	result := make(chan error, 1)
	go func() { result <- d.store.reap() }()
	with, _, err = sets(func(int) bool { return len(result) > 0 })
	return with, without, errors.Join(err, <-result)
}

// memoryChild is the variable with the name of the contender whose memory a process of its own shows.
const memoryChild = "FILESTORE_BENCH_MEMORY"

func (t *table) memory() {
	const heapRow, rssRow = "memory: heap per session", "memory: RSS of the process"
	if !opsOnly.MatchString(heapRow) && !opsOnly.MatchString(rssRow) {
		return
	}
	entries := []*entry{{name: "scs memory"}, {name: "filestore NoSync"}}
	t.lay(heapRow, "scs memory", amount, entries)
	t.lay(rssRow, "scs memory", amount, entries)
	self, err := os.Executable()
	for _, e := range entries {
		name := e.name
		dir, dirErr := os.MkdirTemp("/dev/shm", "filestore-bench-")
		atExit(func() { os.RemoveAll(dir) })
		cmd := exec.Command(self, os.Args[1:]...)
		cmd.Env = append(os.Environ(), memoryChild+"="+name, "FILESTORE_BENCH_DIR="+dir)
		cmd.Stderr = os.Stderr
		var heap, rss float64
		out, runErr := cmd.Output()
		err := errors.Join(err, dirErr, runErr)
		if err == nil {
			_, err = fmt.Sscan(string(out), &heap, &rss)
		}
		os.RemoveAll(dir)
		if err != nil {
			t.drop(heapRow, name, err)
			t.drop(rssRow, name, err)
			continue
		}
		t.add(heapRow, name, amount, heap)
		t.add(rssRow, name, amount, rss)
	}
}

// holdSessions prints the heap that each session takes, and the resident set of this process.
func holdSessions(name string) (err error) {
	n := *memoryCount
	*sessionCount = n
	var s *store
	if name == "filestore NoSync" {
		s, err = filestoreIn(os.Getenv("FILESTORE_BENCH_DIR"), true, n)
	} else {
		s, err = openMemstore(nil)
	}
	if err != nil {
		return err
	}
	defer s.close()
	before := heap()
	for i := range n { // each id has its own bytes, like one from a request
		if err := s.set(id(i)); err != nil {
			return err
		}
	}
	time.Sleep(settled)
	for i := range n { // fills the caches
		if found, err := s.get(id(i)); err != nil || !found {
			return fmt.Errorf("get: found is %v, %v", found, err)
		}
	}
	after := heap()
	debug.FreeOSMemory()
	runtime.KeepAlive(s)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	fmt.Println((after-before)/float64(n), pages*os.Getpagesize())
	return err
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
