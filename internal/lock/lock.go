// Package lock says who may write a session: one holder at a time, between the goroutines of a process
// and between processes.
//
// A session's lock is one of a fixed set of files in .locks, chosen by a hash of its id, made at Open
// and never unlinked. (A lock file per session would have to be deleted some day, and then one process
// locks the deleted file and another its successor.)
//
// Between processes the system's flock excludes, and a crash frees it. Between goroutines it does not,
// so a channel of one slot queues them, in order; only the head of the queue polls the file. Nothing
// holds two locks. A lock is held for microseconds: what takes longer is done before and after.
package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
)

const (
	pollMin = 100 * time.Microsecond
	pollMax = time.Millisecond

	// Goroutines that hand a lock to each other leave other processes, which poll, no moment to get
	// it. After maxTurn they let one go by.
	maxTurn = 50 * time.Millisecond
)

var (
	// ErrTimeout says that others had the lock, or were in the turn, all the time; see also Again.
	ErrTimeout = errors.New("timeout waiting for others that write the session")

	errNotRegular = fmt.Errorf("lock: %w: not a regular file", disk.ErrUnsafe)
	errReplaced   = fmt.Errorf("lock: %w: the file was replaced", disk.ErrUnsafe)
)

// A Table has the locks of one directory. It is safe for concurrent use.
type Table struct {
	dir     *disk.Dir
	mark    string // see format.Extension.Mark; "" = none
	folds   bool   // the file system takes "A" and "a" for one name
	stripes [format.Stripes]Stripe

	waiting, turns queue // by id

	// Counts is where the Table counts: its own, unless another one is put here before the first use.
	Counts *Counts
}

// A Stripe is one lock file, and the lock of all ids with its hash.
type Stripe struct {
	table *Table
	index int
	name  string        // of its file
	queue chan struct{} // whoever has put a token in may use the rest

	holder string // the id that it is locked for
	file   *flock.Flock

	fi           fs.FileInfo // the file last locked, found to be the directory's
	began, freed time.Time   // of the present turn of this process, and its last unlock
}

// Open makes the lock files that are missing, and tries one, so that a file system without locks is an
// error here and not unlocked work later, as is a directory that cannot be written. If there is no room
// for them it warns: a writer will get the error again, unless by then there is room.
func Open(d *disk.Dir, ext format.Extension, log *slog.Logger) (*Table, error) {
	t := newTable(d)
	t.mark = ext.Mark()
	err := t.makeAll()
	if disk.Full(err) {
		log.Warn("filestore: sessions can only be read here", "dir", d.Path(), "err", err)
		err = nil
	}
	for _, name := range []string{".", format.LockDir} { // the lock files may all be there
		if err == nil {
			err = d.Writable(name)
		}
	}
	if errors.Is(err, fs.ErrPermission) || disk.WriteProtected(err) {
		err = fmt.Errorf("the directory cannot be written: %w", err)
	}
	if err != nil {
		return nil, err
	}
	upper, upperErr := d.Lstat(strings.ToUpper(format.LockDir))
	lower, lowerErr := d.Lstat(format.LockDir)
	t.folds = upperErr == nil && lowerErr == nil && os.SameFile(upper, lower)
	return t, nil
}

func newTable(d *disk.Dir) *Table {
	t := &Table{dir: d, Counts: new(Counts)}
	for i := range t.stripes {
		name := format.LockFile(i)
		t.stripes[i] = Stripe{
			table: t, index: i, name: name, queue: make(chan struct{}, 1),
			file: newFlock(filepath.Join(d.Path(), filepath.FromSlash(name))),
		}
	}
	return t
}

// makeAll makes what is missing, and tries one lock.
func (t *Table) makeAll() error {
	if fi, err := t.dir.Lstat(format.LockDir); err == nil && !fi.IsDir() {
		return errNotRegular
	}
	for i := range t.stripes {
		if err := t.stripes[i].make(); err != nil {
			return err
		}
	}
	if err := t.makeMark(); err != nil {
		return err
	}
	s, err := t.Try(0)
	if s != nil {
		s.Unlock()
	}
	return err
}

func (t *Table) makeMark() error {
	if t.mark == "" {
		return nil
	}
	return t.dir.MakeFile(t.mark)
}

// Remake makes the first lock file again if it is missing. It fails with disk.ErrGone if the directory
// was deleted, also if nothing else tells of that.
func (t *Table) Remake() error { return t.stripes[0].make() }

func newFlock(path string) *flock.Flock { return flock.New(path, flock.SetFlag(disk.LockFlags)) }

// make makes the stripe's lock file if it is missing.
func (s *Stripe) make() error {
	d := s.table.dir
	fi, err := d.Lstat(s.name)
	if err == nil && !fi.Mode().IsRegular() {
		return errNotRegular
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.MakeDir(format.LockDir); err != nil {
		return err
	}
	return d.MakeFile(s.name)
}

// Index returns the index of the session id's stripe.
func (t *Table) Index(id string) int { return format.Stripe(t.fold(id)) }

// fold makes ids equal that share a file, and so must share a lock.
func (t *Table) fold(id string) string {
	if t.folds {
		return strings.ToLower(id)
	}
	return id
}

// Lock waits for the lock of the session id, until ctx is done or timeout has passed, which is
// ErrTimeout. Of the goroutines that want one id only the first stands in the stripe's queue: who wants
// another id of the stripe does not wait for all of them.
func (t *Table) Lock(ctx context.Context, id string, timeout time.Duration) (*Stripe, error) {
	wait := &patience{timeout: timeout, counts: t.Counts}
	defer wait.stop()
	id = t.fold(id)
	if err := t.waiting.enter(ctx, wait, id); err != nil {
		return nil, err
	}
	s := &t.stripes[format.Stripe(id)]
	if err := s.enter(ctx, wait); err != nil {
		t.waiting.leave(id)
		return nil, err
	}
	s.holder = id
	return s, nil
}

// enter waits for the stripe's queue, and at its head for the file.
func (s *Stripe) enter(ctx context.Context, wait *patience) error {
	select {
	case s.queue <- struct{}{}: // if it is free there is no wait to end
	default:
		select {
		case s.queue <- struct{}{}:
		case <-wait.over():
			return wait.expired()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.wait(ctx, wait)
	if err != nil {
		<-s.queue
	}
	return err
}

// wait waits for the file; its caller is the head of the queue.
func (s *Stripe) wait(ctx context.Context, wait *patience) error {
	if now := time.Now(); now.Sub(s.freed) > time.Millisecond {
		s.began = now
	} else if now.Sub(s.began) > maxTurn {
		time.Sleep(pollMax * 3 / 2)
		s.began = time.Now()
	}
	for pause := pollMin; ; pause = min(2*pause, pollMax) {
		if ok, err := s.try(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(pause/2 + mrand.N(pause)): // the processes must not keep step
		case <-wait.over():
			return wait.expired()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Try takes one stripe without waiting: nil and no error if somebody holds it.
func (t *Table) Try(index int) (*Stripe, error) {
	s := &t.stripes[index]
	select {
	case s.queue <- struct{}{}:
	default:
		return nil, nil
	}
	if ok, err := s.try(); !ok {
		<-s.queue
		return nil, err
	}
	return s, nil
}

// try tries the file; its caller is the head of the queue. No lock and no error: try again.
func (s *Stripe) try() (bool, error) {
	ok, err := s.file.TryLock()
	switch {
	case errors.Is(err, syscall.EINTR): // gofrs/flock hands it to its caller
		return false, nil
	case disk.Busy(err): // a scanner has it
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		s.reopen()
		return false, s.make()
	case err != nil:
		if fi, statErr := s.table.dir.Lstat(s.name); statErr == nil && !fi.Mode().IsRegular() {
			err = errNotRegular
		}
		return false, err
	case !ok:
		return false, nil
	}
	err = s.verify()
	if err == nil {
		return true, nil
	}
	s.release()
	if errors.Is(err, errReplaced) && !s.table.dir.Gone() { // between its opening and its locking, or it is another directory's
		s.reopen()
		return false, nil
	}
	return false, err
}

// verify looks at a lock file that was not locked before: its path alone does not tell that it is in our
// directory.
func (s *Stripe) verify() error {
	fi, err := s.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errNotRegular
	}
	if s.fi != nil && os.SameFile(fi, s.fi) && fi.ModTime().Equal(s.fi.ModTime()) {
		return nil
	}
	s.fi = nil
	at, err := s.table.dir.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(at, fi) {
		return errReplaced
	}
	if err != nil {
		return err
	}
	if err := s.table.makeMark(); err != nil { // .locks may be new, and made by another store
		return err
	}
	s.fi = fi
	return nil
}

// reopen reaches the lock file by another path if the directory was moved. It is not always used,
// because to open it so takes twice as long.
func (s *Stripe) reopen() {
	if path, ok := s.table.dir.PathNow(); ok && !s.table.dir.InPlace() {
		s.file = newFlock(path + "/" + s.name)
	}
}

// Rename gives the file from the name to, if its caller still holds the lock. It does not flush: see
// disk.Dir.Sync.
func (s *Stripe) Rename(from, to string) error {
	if err := s.Check(); err != nil {
		return err
	}
	return s.table.dir.Rename(from, to)
}

// Remove unlinks name, if its caller still holds the lock. It does not flush: see disk.Dir.Sync.
func (s *Stripe) Remove(name string) error {
	if err := s.Check(); err != nil {
		return err
	}
	return s.table.dir.Remove(name)
}

// Check fails if the locked file is not the one any more that others would lock. Rename and Remove call
// it at the last moment before the change takes effect.
func (s *Stripe) Check() error {
	same, err := s.table.dir.Same(s.name, s.fi)
	if err == nil && !same || errors.Is(err, fs.ErrNotExist) {
		return errReplaced
	}
	return err
}

// Unlock gives the lock back.
func (s *Stripe) Unlock() {
	s.release()
	s.freed = time.Now()
	id := s.holder
	s.holder = ""
	<-s.queue
	if id != "" { // "": by Try
		s.table.waiting.leave(id)
	}
}

// release frees the file. gofrs/flock keeps lock and descriptor when its unlock fails, by an
// interruption; if it goes on failing, a new Flock lets the runtime close the old one's descriptor,
// which frees the lock.
func (s *Stripe) release() {
	for range 100 {
		if s.file.Unlock() == nil {
			return
		}
	}
	s.file = newFlock(s.file.Path())
}
