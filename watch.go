package filestore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Op is what happened to a session.
type Op string

const (
	Changed   Op = "changed"   // made or written
	Destroyed Op = "destroyed" // removed, by Destroy, a reaper or anybody else
)

// An Event says that a session may have changed. It is a hint: look before you act on it.
type Event struct {
	Op Op
	ID string
}

// Watch yields changes of sessions, by any process, from when the loop starts until ctx is done,
// which ends it without an error. One change may give several events, and several changes one. Under
// load the system drops events: Watch then yields an error that is fsnotify.ErrEventOverflow and goes
// on. After any other error it ends, as when the Store is closed or the directory is replaced. Each loop
// takes one of the system's watches; see fsnotify for their limits.
func (s *Store) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := s.watch(ctx, yield); err != nil {
			yield(Event{}, wrap("watch", "", err))
		}
	}
}

var errReplacedDir = errors.New("the directory was removed or replaced")

// watch returns nil when there is nothing more to yield. It has not entered: Close does not wait for
// a loop that may wait for ever, but ends it.
func (s *Store) watch(ctx context.Context, yield func(Event, error) bool) error {
	if s.done.Err() != nil {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return nil
	}
	p := s.here()
	if err := s.within(ctx, func(in *place) error { p = in; return in.there() }); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(p.dir.Path()); err != nil {
		return err
	}
	// The watch is on the directory's inode and goes silent when another one takes its name.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for p.dir.InPlace() {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done.Done():
			return ErrClosed
		case <-look.C:
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			if !yield(Event{}, wrap("watch", "", err)) {
				return nil
			}
		case ev := <-w.Events:
			if e, ok := p.event(ev); ok && !yield(e, nil) {
				return nil
			}
		}
	}
	return cmp.Or(s.interrupted(ctx), errReplacedDir)
}

// event translates what concerns a session file.
func (p *place) event(ev fsnotify.Event) (Event, bool) {
	name := filepath.Base(ev.Name)
	t, ok := p.sessionOf(name)
	switch {
	case ev.Has(fsnotify.Create), ev.Has(fsnotify.Write):
		return Event{Changed, t.id}, ok
	case ev.Has(fsnotify.Remove), ev.Has(fsnotify.Rename):
		if _, err := p.dir.Lstat(name); err == nil { // another file has the name: see disk.Dir.Rename
			return Event{Changed, t.id}, ok
		}
		return Event{Destroyed, t.id}, ok
	}
	return Event{}, false
}
