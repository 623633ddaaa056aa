package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// Each Index is closed: no goroutine may outlive the tests.
func TestMain(m *testing.M) {
	goroutines := runtime.NumGoroutine()
	code := m.Run()
	for i := 0; code == 0 && runtime.NumGoroutine() > goroutines; i++ {
		if i == 100 {
			fmt.Fprintf(os.Stderr, "FAIL: %d goroutines at the end, %d at the start\n", runtime.NumGoroutine(), goroutines)
			code = 1
		}
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(code)
}

// A yard is a directory whose files are told by a map, and whose callbacks tests change.
type yard struct {
	t    *testing.T
	dir  string
	src  Source
	ix   *Index
	mu   sync.Mutex
	docs map[string]doc
}

// A doc has one member, "user".
type doc string

func (d doc) Key(member string) (string, bool) { return string(d), member == "user" && d != "" }

func newYard(t *testing.T, change func(y *yard)) *yard {
	t.Helper()
	if !Supported {
		skip.Test(t, "not on this system")
	}
	y := &yard{t: t, dir: t.TempDir(), docs: make(map[string]doc)}
	y.src = Source{
		Path: func() (string, error) { return y.dir, nil },
		Names: func() iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				entries, err := os.ReadDir(y.dir)
				for _, e := range entries {
					if !yield(e.Name(), nil) {
						return
					}
				}
				if err != nil {
					yield("", err)
				}
			}
		},
		ID: func(name string) (string, bool) { return strings.CutSuffix(name, ".x") },
		Mark: func(name string) error {
			y.file(name)
			return os.Remove(filepath.Join(y.dir, name))
		},
		Read: func(_ context.Context, id string) (Doc, error) {
			y.mu.Lock()
			defer y.mu.Unlock()
			if d, ok := y.docs[id]; ok {
				return d, nil
			}
			return nil, ErrGone
		},
	}
	if change != nil {
		change(y)
	}
	y.ix = New(y.src)
	t.Cleanup(y.ix.Close)
	return y
}

func (y *yard) file(name string) {
	if err := os.WriteFile(filepath.Join(y.dir, name), nil, 0o600); err != nil {
		y.t.Error(err)
	}
}

func (y *yard) set(id string, d doc) {
	y.mu.Lock()
	y.docs[id] = d
	y.mu.Unlock()
	y.file(id + ".x")
}

// forget makes the file unreadable before its removal is an event.
func (y *yard) forget(id string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.docs, id)
}

func (y *yard) find(key string) (ids []string, again bool) {
	y.t.Helper()
	ids, again, err := y.ix.Find(context.Background(), "user", []string{key})
	if err != nil {
		y.t.Errorf("Find(%s) = %v", key, err)
	}
	slices.Sort(ids)
	return ids, again
}

func (y *yard) want(key string, want ...string) {
	y.t.Helper()
	got, again := y.find(key)
	if again {
		got, again = y.find(key)
	}
	if !slices.Equal(got, want) || again {
		y.t.Errorf("Find(%s) = %q, again: %v, want %q", key, got, again, want)
	}
}

func TestIndex(t *testing.T) {
	y := newYard(t, nil)
	y.set("a", "anna")
	y.set("b", "bob")
	y.want("anna", "a")
	y.set("c", "anna")
	y.want("anna", "a", "c")
	y.set("a", "bob")
	y.want("anna", "c")
	y.want("bob", "a", "b")
	y.set("b", "")
	y.want("bob", "a")
	y.forget("a")
	y.want("bob", "a") // its removal has not been told: a candidate too many
	y.ix.Look("a")
	y.want("carl") // a mark later
	y.want("bob")
}

// A file that has gone since Find began, and was read only then, may have had a successor that Find does not know yet.
// So Find says that its user must look again.
func TestAgain(t *testing.T) {
	for what, before := range map[string]doc{"new": "", "known": "anna", "known otherwise": "bob"} {
		t.Run(what, func(t *testing.T) {
			held, asked := make(chan bool), make(chan bool)
			var hold atomic.Bool
			var marked func()
			y := newYard(t, func(y *yard) {
				read, mark := y.src.Read, y.src.Mark
				y.src.Read = func(ctx context.Context, id string) (Doc, error) {
					if id == "old" && hold.Load() {
						<-held
					}
					if id == "new" {
						<-asked
					}
					return read(ctx, id)
				}
				y.src.Mark = func(name string) error {
					err := mark(name)
					if marked != nil {
						marked()
					}
					return err
				}
			})
			if before != "" {
				y.set("old", before)
			}
			y.want("anna", slices.Collect(func(yield func(string) bool) {
				if before == "anna" {
					yield("old")
				}
			})...)
			y.want("carl")
			hold.Store(true)
			if before == "anna" {
				y.ix.Look("old")
			} else {
				y.set("old", "anna")
			} // and the worker waits
			marked = func() {
				marked = nil
				y.set("new", "anna")
				y.forget("old")
				close(held)
			}
			ids, again := y.find("anna")
			if !again && !slices.Contains(ids, "old") {
				t.Errorf("Find = %q, again: %v: the session is missed", ids, again)
			}
			close(asked)
			if ids, _ := y.find("anna"); !slices.Contains(ids, "new") {
				t.Errorf("the next Find = %q", ids)
			}
		})
	}
}

// What a scan has read before a change does not take the place of what was read after it.
func TestScanIsOlder(t *testing.T) {
	held, reads := make(chan bool), make(chan string, 10)
	var scanned atomic.Bool
	y := newYard(t, func(y *yard) {
		read := y.src.Read
		y.src.Read = func(ctx context.Context, id string) (Doc, error) {
			d, err := read(ctx, id)
			reads <- id
			if scanned.CompareAndSwap(false, true) {
				<-held
			}
			return d, err
		}
	})
	y.set("a", "bob")
	done := make(chan bool)
	go func() {
		defer close(done)
		y.want("anna", "a", "b")
	}()
	<-reads // by the scan
	y.set("a", "anna")
	y.set("b", "anna")
	for id := range reads {
		if id == "b" { // so the worker has dealt with a
			break
		}
	}
	close(held)
	<-done
}

// A member that loses its index while somebody looks for it gets another one.
func TestOut(t *testing.T) {
	held := make(chan bool)
	var marked func()
	y := newYard(t, func(y *yard) {
		read, mark := y.src.Read, y.src.Mark
		y.src.Read = func(ctx context.Context, id string) (Doc, error) {
			if id == "late" {
				<-held
			}
			return read(ctx, id)
		}
		y.src.Mark = func(name string) error {
			if marked != nil {
				marked()
			}
			return mark(name)
		}
	})
	y.want("anna")
	y.set("late", "anna") // and the worker waits
	marked = func() {
		marked = nil
		for i := range maxMembers {
			y.ix.watch.member(fmt.Sprint("other", i))
		}
		close(held)
	}
	y.want("anna", "late")
}

// What could not be read is a candidate for everything, until it could.
func TestDoubt(t *testing.T) {
	bad := errors.New("input/output error")
	var broken bool
	y := newYard(t, func(y *yard) {
		read := y.src.Read
		y.src.Read = func(ctx context.Context, id string) (Doc, error) {
			y.mu.Lock()
			b := broken && id == "a"
			y.mu.Unlock()
			if b {
				return nil, bad
			}
			return read(ctx, id)
		}
	})
	set := func(b bool) {
		y.mu.Lock()
		defer y.mu.Unlock()
		broken = b
	}
	y.set("a", "anna")
	y.set("b", "bob")
	set(true)
	y.want("bob", "a", "b")
	y.want("carl", "a")
	set(false)
	y.want("carl")
	y.want("anna", "a")
	set(true)
	y.set("a", "bob")
	y.want("bob", "a", "b")
	set(false)
	y.want("anna")
	y.want("bob", "a", "b")
}

// Without a mark, a watch or a list of the names there is no answer, and when there is one again, so is the answer.
func TestUnavailable(t *testing.T) {
	bad := errors.New("no space left")
	var fail string
	y := newYard(t, func(y *yard) {
		src := y.src
		y.src.Mark = func(name string) error {
			if fail == "mark" {
				return bad
			}
			return src.Mark(name)
		}
		y.src.Path = func() (string, error) {
			if fail == "path" {
				return "", bad
			}
			if fail == "watch" {
				return filepath.Join(y.dir, "none"), nil
			}
			return y.dir, nil
		}
		y.src.Names = func() iter.Seq2[string, error] {
			if fail == "names" {
				return maps.All(map[string]error{"": bad})
			}
			return src.Names()
		}
	})
	y.set("a", "anna")
	for _, fail = range []string{"path", "watch", "names", "mark"} {
		if ids, _, err := y.ix.Find(context.Background(), "user", []string{"anna"}); !errors.Is(err, ErrUnavailable) || fail != "watch" && !errors.Is(err, bad) {
			t.Errorf("%s: Find = %q, %v", fail, ids, err)
		}
	}
	fail = ""
	y.want("anna", "a")
	c, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := y.ix.Find(c, "user", []string{"anna"}); err != nil && err != context.Canceled {
		t.Errorf("Find, cancelled, = %v", err)
	}
	y.ix.Close()
	if _, _, err := y.ix.Find(context.Background(), "user", []string{"anna"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Find after Close = %v", err)
	}
	var none *Index
	none.Look("a")
	none.Close()
	if _, _, err := none.Find(context.Background(), "user", nil); err != ErrUnavailable {
		t.Errorf("Find of no Index = %v", err)
	}
}

// If the mark does not come by, Find gives up.
func TestMarkLost(t *testing.T) {
	t.Parallel()
	lost := true
	y := newYard(t, func(y *yard) {
		mark := y.src.Mark
		y.src.Mark = func(name string) error {
			if lost {
				return nil
			}
			return mark(name)
		}
	})
	y.set("a", "anna")
	if ids, _, err := y.ix.Find(context.Background(), "user", []string{"anna"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Find = %q, %v", ids, err)
	}
	lost = false
	y.want("anna", "a")
}

// A queue that is too long is as good as none: everything is read again. A watch that was begun anew leaves no
// goroutine of the last one.
func TestFlood(t *testing.T) {
	y := newYard(t, nil)
	y.set("a", "anna")
	y.want("anna", "a")
	goroutines := runtime.NumGoroutine()
	for range 5 {
		w := y.ix.watch
		w.queued.Lock()
		for i := range maxQueue {
			w.waits[string(rune(i+0x10000))] = 0
		}
		w.queued.Unlock()
		y.set("b", "anna")
		<-w.ctx.Done()
		y.set("c", "anna")
		y.want("anna", "a", "b", "c")
	}
	for runtime.NumGoroutine() > goroutines { // the test ends by its timeout if they stay
		runtime.Gosched()
	}
}

// An id stands in the queue once, and what was queued leaves it in order.
func TestQueue(t *testing.T) {
	w := &watch{waits: make(map[string]uint64), wake: make(chan struct{}, 1), Index: new(Index)}
	m := new(mark)
	w.push(item{id: "a"})
	w.push(item{id: "b", wrote: true})
	w.push(item{mark: m})
	w.push(item{id: "a", wrote: true})
	w.push(item{id: "c"})
	w.push(item{id: "b"})
	for _, want := range []item{{id: "a", wrote: true}, {id: "b", wrote: true}, {mark: m}, {id: "c"}} {
		if got, ok := w.pop(); got != want || !ok {
			t.Errorf("pop() = %+v, %v, want %+v", got, ok, want)
		}
	}
	if got, ok := w.pop(); ok {
		t.Errorf("pop() = %+v of an empty queue", got)
	}
	w.push(item{id: "a"})
	if got, _ := w.pop(); got.id != "a" {
		t.Errorf("pop() = %+v", got)
	}
}
