// Package index knows which files of a directory have a member with a value, exactly, without reading them all. It
// knows nothing of sessions: what a file holds it is told by callbacks.
//
// Inotify queues an event before the system call that causes it returns. So an Index makes a file of a new name, the
// mark, and has seen all earlier changes when it has seen the mark. A hint of what may have changed thus becomes a
// complete answer. An Index hands out candidates: too many do no harm, as their user reads each, but one that is
// missing is a bug.
package index

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sessionfilestore/filestore/internal/format"
)

// Supported reports whether the system promises the order of events that an Index counts on. (kqueue opens each file
// of the directory, and Windows may drop events without the order.)
const Supported = runtime.GOOS == "linux"

// ErrUnavailable says that an Index cannot answer now: the system has no watch left, a mark could not be made or did
// not come by, or the Index is closed. Its user can read all files instead.
var ErrUnavailable = errors.New("no index")

// ErrGone is Source.Read's for a file that is not there.
var ErrGone = errors.New("no such file")

// A Doc is what a file holds. Key returns the key of a member, see format.Keys.
type Doc interface {
	Key(member string) (key string, ok bool)
}

// A Source is the directory of an Index. Its functions are called by several goroutines at once, until Close.
type Source struct {
	Path  func() (string, error)          // a path to watch; called in Find only
	Names func() iter.Seq2[string, error] // all names in the directory
	ID    func(name string) (id string, ok bool)
	Mark  func(name string) error // makes a file of that name and removes it; called in Find only

	// Read returns what the file of id holds. It returns neither a Doc nor an error if that will not be a Doc until
	// the file changes, and exactly ErrGone if there is no file, or none that counts any more. After any other error the id is a candidate for
	// all that is sought until it could be read.
	Read func(ctx context.Context, id string) (Doc, error)
}

const (
	maxMembers = 4       // that have an index at once
	maxQueue   = 1 << 16 // ids that wait to be read: beyond that it is faster to begin again
	scanners   = 2       // reading a file is mostly waiting for system calls
	idle       = 5 * time.Second
	longest    = time.Minute
)

// An Index is one directory's. It takes nothing, no goroutine, watch or memory, until the first Find. A nil Index is
// unavailable.
type Index struct {
	src    Source
	mu     sync.Mutex // guards the rest
	watch  *watch     // nil: none yet
	closed bool
	own    sync.WaitGroup // all goroutines
}

// New returns the Index of src.
func New(src Source) *Index { return &Index{src: src} }

// Close ends the goroutines and waits for them. A Find that is waiting ends with ErrUnavailable.
func (ix *Index) Close() {
	if ix == nil {
		return
	}
	ix.mu.Lock()
	ix.closed = true
	if ix.watch != nil {
		ix.watch.kill()
	}
	ix.mu.Unlock()
	ix.own.Wait()
}

// Find returns the ids of the files that may have one of the keys as that member. All that had it when Find was called,
// and were left alone until it returns, are among them. Others may be. again says that a file that had it may have gone
// meanwhile: if there was a new file for it before, that may be missing. The first Find of a member reads all files. If
// err is not ctx's it is ErrUnavailable.
func (ix *Index) Find(ctx context.Context, member string, keys []string) (ids []string, again bool, err error) {
	if ix == nil {
		return nil, false, ErrUnavailable
	}
	for range 10 { // another one is enough, unless events are lost all the time
		var w *watch
		if w, err = ix.start(); err == nil {
			ids, again, err = w.find(ctx, member, keys)
		}
		if err != errOver {
			break
		}
	}
	switch {
	case err == nil, ctx.Err() != nil && err == ctx.Err():
		return ids, again, err
	case err == ErrUnavailable:
		return nil, false, err
	}
	return nil, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Look reads the file of id again, as somebody has found that it does not hold what the Index says.
func (ix *Index) Look(id string) {
	if ix == nil {
		return
	}
	ix.mu.Lock()
	w := ix.watch
	ix.mu.Unlock()
	if w != nil {
		w.push(item{id: id})
	}
}

// goes starts a goroutine, unless the Index is closed.
func (ix *Index) goes(fn func()) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if !ix.closed {
		ix.own.Go(fn)
	}
	return !ix.closed
}

// start returns the watch, or begins another one if it is over.
func (ix *Index) start() (*watch, error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.closed {
		return nil, ErrUnavailable
	}
	if ix.watch != nil && ix.watch.ctx.Err() == nil {
		return ix.watch, nil
	}
	path, err := ix.src.Path()
	if err != nil {
		return nil, err
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := notify.Add(path); err != nil {
		notify.Close()
		return nil, err
	}
	w := &watch{Index: ix, notify: notify, path: path, seed: maphash.MakeSeed(), doubts: make(map[string]bool),
		waits: make(map[string]uint64), marks: make(map[string]*mark), wake: make(chan struct{}, 1)}
	w.ctx, w.kill = context.WithCancel(context.Background())
	ix.watch = w
	ix.own.Go(w.read)
	ix.own.Go(w.work)
	return w, nil
}

// A watch is what an Index knows, for as long as it has heard of all changes. When events were lost it is over, and
// another one begins with nothing.
type watch struct {
	*Index
	notify *fsnotify.Watcher
	path   string
	seed   maphash.Seed
	ctx    context.Context // done: it is over
	kill   context.CancelFunc
	steps  atomic.Uint64 // all that the goroutines have done: who waits sees whether something goes on

	known   sync.RWMutex
	members []*member       // that have been used last is the last
	doubts  map[string]bool // the ids of files that could not be read
	unseen  uint32          // how many files have gone before they could be read

	queued sync.Mutex
	queue  []item            // in the order of the events
	popped uint64            // how many have left the queue
	waits  map[string]uint64 // of each id in the queue, how many had been queued before
	marks  map[string]*mark  // on their way, by name
	next   *mark             // not made yet
	wake   chan struct{}     // there is something in the queue

	making sync.Mutex // held while a mark is made
}

// An item of the queue is an id whose file may have changed, or a mark.
type item struct {
	id    string
	wrote bool // it was made or written, not only removed
	mark  *mark
}

// A member is the index of one.
type member struct {
	name  string
	table table
	out   bool // it made room for another one, and hears of nothing any more

	ready chan struct{} // closed when all files have been read
	err   error         // why they could not, valid from then on
}

// A mark is a file whose creation says that all earlier events have come by.
type mark struct {
	name string
	met  chan struct{} // closed by the worker, or when it could not be made
	err  error         // why
}

var errOver = errors.New("events were lost")

func (w *watch) find(ctx context.Context, name string, keys []string) (ids []string, again bool, err error) {
	m := w.member(name)
	if err := w.wait(ctx, m.ready, 0); err != nil {
		return nil, false, err
	}
	if m.err != nil {
		return nil, false, m.err
	}
	hashes := make([]uint32, len(keys))
	for i, key := range keys {
		hashes[i] = w.hash(key)
	}
	w.known.RLock()
	before := w.losses(m, hashes)
	var doubts []string
	for id := range w.doubts {
		doubts = append(doubts, id)
	}
	w.known.RUnlock()
	for _, id := range doubts {
		w.push(item{id: id})
	}
	if err := w.pass(ctx); err != nil {
		return nil, false, err
	}
	w.known.RLock()
	defer w.known.RUnlock()
	if m.out || w.ctx.Err() != nil {
		return nil, false, errOver
	}
	for _, h := range hashes {
		ids = m.table.find(ids, h)
	}
	for id := range w.doubts {
		ids = append(ids, id)
	}
	return ids, w.losses(m, hashes) != before, nil
}

func (w *watch) hash(key string) uint32 { return uint32(maphash.String(w.seed, key)) }

// losses counts what may have been a file with one of the hashes and is none any more.
func (w *watch) losses(m *member, hashes []uint32) uint32 {
	n := w.unseen
	for _, h := range hashes {
		n += *m.table.losses(h)
	}
	return n
}

// member returns the index of a member, which may not be ready. A new one takes the place of that which was not used
// for the longest time.
func (w *watch) member(name string) *member {
	w.known.Lock()
	defer w.known.Unlock()
	i := slices.IndexFunc(w.members, func(m *member) bool { return m.name == name })
	if i >= 0 {
		m := w.members[i]
		w.members = append(slices.Delete(w.members, i, i+1), m)
		return m
	}
	if len(w.members) == maxMembers {
		w.members[0].out = true
		w.members = slices.Delete(w.members, 0, 1)
	}
	m := &member{name: strings.Clone(name), table: table{seed: w.seed}, ready: make(chan struct{})}
	w.members = append(w.members, m) // from now on it hears of changes
	if !w.goes(func() { w.scan(m) }) {
		m.err = ErrUnavailable
		close(m.ready)
	}
	return m
}

// scan reads all files for m. What the worker knows of one is newer.
func (w *watch) scan(m *member) {
	defer close(m.ready)
	ids := make(chan string, 64)
	var group sync.WaitGroup
	for range scanners {
		group.Go(func() {
			for id := range ids {
				doc, err := w.src.Read(w.ctx, id)
				w.known.Lock()
				if err != nil && err != ErrGone {
					w.doubts[id] = true
				} else if doc != nil {
					if key, ok := doc.Key(m.name); ok {
						m.table.set(id, w.hash(key), true)
					}
				}
				w.known.Unlock()
				w.steps.Add(1)
			}
		})
	}
	for name, err := range w.src.Names() {
		if m.err = err; err != nil || w.ctx.Err() != nil {
			break
		}
		if id, ok := w.src.ID(name); ok {
			ids <- id
		}
	}
	close(ids)
	group.Wait()
	if m.err != nil {
		w.known.Lock()
		m.out = true
		w.members = slices.DeleteFunc(w.members, func(other *member) bool { return other == m }) // the next Find tries again
		w.known.Unlock()
	}
}

// pass waits until all events of what has happened before the call have been dealt with. Those who call it at once
// share a mark, if it was not made before they called.
func (w *watch) pass(ctx context.Context) error {
	w.queued.Lock()
	m := w.next
	first := m == nil
	if first {
		m = &mark{name: format.Temp(), met: make(chan struct{})}
		w.next = m
	}
	w.queued.Unlock()
	if first {
		w.make(m)
	}
	if err := w.wait(ctx, m.met, longest); err != nil {
		return err
	}
	return m.err
}

func (w *watch) make(m *mark) {
	w.making.Lock() // whoever comes until the one before is made can share m
	defer w.making.Unlock()
	w.queued.Lock()
	w.next = nil
	w.marks[m.name] = m
	w.queued.Unlock()
	if err := w.src.Mark(m.name); err != nil {
		w.queued.Lock()
		defer w.queued.Unlock()
		if w.marks[m.name] == m { // or else it is in the queue: it was made, if not removed
			delete(w.marks, m.name)
			m.err = err
			close(m.met)
		}
	}
}

// wait waits for ch. It gives up, and the watch with it, when the goroutines have done nothing for some seconds, or,
// if limit is not 0, when that has passed.
func (w *watch) wait(ctx context.Context, ch <-chan struct{}, limit time.Duration) error {
	select { // the usual case takes no timer
	case <-ch:
		return nil
	default:
	}
	tick := time.NewTicker(idle)
	defer tick.Stop()
	began, steps := time.Now(), w.steps.Load()
	for {
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ctx.Done():
			return errOver
		case <-tick.C:
			now := w.steps.Load()
			if now == steps || limit > 0 && time.Since(began) > limit {
				w.kill()
				return fmt.Errorf("%w: the directory's events do not come by", ErrUnavailable)
			}
			steps = now
		}
	}
}

// read takes the events, and queues what they are about. It does nothing else: the system holds few.
func (w *watch) read() {
	defer w.notify.Close()
	defer w.kill()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.notify.Errors: // also that events were lost
			return
		case ev, ok := <-w.notify.Events:
			if !ok {
				return
			}
			w.steps.Add(1)
			name, below := strings.CutPrefix(ev.Name, w.path+"/")
			if !below {
				if ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename) { // the directory itself: the watch ends with that
					return
				}
				continue
			}
			if id, ok := w.src.ID(name); ok {
				w.push(item{id: id, wrote: ev.Has(fsnotify.Create) || ev.Has(fsnotify.Write) || ev.Has(fsnotify.Chmod)})
			} else if ev.Has(fsnotify.Create) {
				w.come(name)
			}
		}
	}
}

// come queues the mark of that name, if it is one.
func (w *watch) come(name string) {
	w.queued.Lock()
	m := w.marks[name]
	delete(w.marks, name)
	w.queued.Unlock()
	if m != nil {
		w.push(item{mark: m})
	}
}

// push queues it. An id that waits already stays where it is: it will be read later than now.
func (w *watch) push(it item) {
	w.queued.Lock()
	defer w.queued.Unlock()
	if it.mark == nil {
		if n, ok := w.waits[it.id]; ok {
			w.queue[n-w.popped].wrote = w.queue[n-w.popped].wrote || it.wrote
			return
		}
		if len(w.waits) == maxQueue {
			w.kill()
			return
		}
		it.id = strings.Clone(it.id)
		w.waits[it.id] = w.popped + uint64(len(w.queue))
	}
	w.queue = append(w.queue, it)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// pop takes the next one off the queue.
func (w *watch) pop() (it item, ok bool) {
	w.queued.Lock()
	defer w.queued.Unlock()
	if len(w.queue) == 0 {
		if w.popped > 1<<14 { // leave nothing of a flood in memory
			w.queue, w.popped, w.waits = nil, 0, make(map[string]uint64)
		}
		return it, false
	}
	it = w.queue[0]
	w.queue[0] = item{}
	w.queue = w.queue[1:]
	w.popped++
	delete(w.waits, it.id)
	return it, true
}

// work deals with the queue. It alone changes what is known of a file that a scan has found.
func (w *watch) work() {
	for {
		it, ok := w.pop()
		switch {
		case w.ctx.Err() != nil:
			return
		case !ok:
			select {
			case <-w.ctx.Done():
			case <-w.wake:
			}
		case it.mark != nil:
			close(it.mark.met)
		default:
			w.look(it)
		}
		w.steps.Add(1)
	}
}

// look reads a file and learns what it holds.
func (w *watch) look(it item) {
	doc, err := w.src.Read(w.ctx, it.id)
	w.known.Lock()
	defer w.known.Unlock()
	if err != nil && err != ErrGone {
		w.doubts[it.id] = true
		return
	}
	// What has gone since somebody counted the losses could be what he looks for, under a name that has a successor.
	// If it went before it was read, it could be what anybody looks for.
	if err == ErrGone && (it.wrote || w.doubts[it.id]) {
		w.unseen++
	}
	delete(w.doubts, it.id)
	for _, m := range w.members {
		key, ok := "", false
		if doc != nil {
			key, ok = doc.Key(m.name)
		}
		if ok {
			m.table.set(it.id, w.hash(key), false)
		} else {
			m.table.drop(it.id)
		}
	}
}
