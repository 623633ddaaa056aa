// Package filestore keeps web sessions in a directory, one JSON file per
// session, in the format of the npm package session-file-store: a Go program
// and an Express program can share one directory, one secret and one cookie.
//
// A Store is safe for concurrent use, by goroutines and, on one machine, by any
// number of processes on the same directory of a local file system. Readers
// take no lock: a file is only ever replaced whole. Writers of one session wait
// for each other, with the operating system's file locks between processes.
// Node takes no lock: beside a Node writer each file is still whole, but the
// last of two writers wins.
//
// Files must be regular files with one link, owned by the process's user or by
// root (a root process takes anybody's). Symbolic links are never followed, and
// nothing outside the directory is read, written or removed. Network file
// systems are not supported.
package filestore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Options are a Store's settings. The zero value of each field, and a nil
// *Options, stand for the default, which is session-file-store's where it has
// the option.
type Options struct {
	// TTL is a session's life after its last access where its cookie has no
	// maxAge. 0 = 1 hour; negative = such a session has expired at once.
	TTL time.Duration

	// TouchAfter spares writes: Touch rewrites a file only if the last access
	// is at least this old. 0 = 1 % of the session's life, so a session may end
	// up to 1 % early; negative = always.
	TouchAfter time.Duration

	// ReapInterval is the time between passes of the background reaper, which
	// removes expired sessions. 0 = 1 hour; negative = no background reaper.
	ReapInterval time.Duration

	// LockTimeout bounds the wait for a session's lock; after it an operation
	// fails with ErrLockTimeout. 0 = 5 seconds.
	LockTimeout time.Duration

	// MaxSize bounds the bytes of one session's file, written or read; beyond
	// it an operation fails with ErrTooLarge. 0 = 1 MiB.
	MaxSize int64

	// Extension ends the names of session files, with its dot. "" = ".json".
	Extension string

	// Mode is that of the files that the Store writes, whatever the umask; it
	// must let the owner read and write. 0 = 0600.
	Mode fs.FileMode

	// NoSync leaves out the flush to the disk: a finished write then survives
	// kill -9, but maybe not a power cut.
	NoSync bool

	// CacheSize is the number of decoded sessions held in memory. 0 = 10,000;
	// negative = none. Reserved: there is no cache yet.
	CacheSize int

	// Codec turns the JSON of a session into the bytes of its file and back.
	// nil = the file is the JSON.
	Codec Codec

	// Logger receives what the background reaper could tell no caller.
	// nil = slog.Default().
	Logger *slog.Logger
}

// The errors that callers act on; use errors.Is. A system's own error stays
// wrapped beside them, so that errors.Is(err, syscall.ENOSPC) holds.
var (
	ErrNotFound    error = &sentinel{"no such session", fs.ErrNotExist}
	ErrExpired     error = &sentinel{"session has expired", ErrNotFound}
	ErrInvalidID   error = &sentinel{"invalid session id", ErrNotFound} // an id that can name no session names none
	ErrCorrupt     error = &sentinel{"file holds no session", nil}      // the file is kept
	ErrTooLarge    error = &sentinel{"session is too large", nil}       // Options.MaxSize
	ErrUnsafeFile  error = &sentinel{"unsafe file", nil}                // a link, a directory, a device, somebody else's file; also a damaged lock file
	ErrLockTimeout error = &sentinel{"timeout waiting for the session's lock", nil}
	ErrClosed      error = &sentinel{"store is closed", fs.ErrClosed}
)

type sentinel struct {
	text   string
	parent error
}

func (e *sentinel) Error() string { return e.text }
func (e *sentinel) Unwrap() error { return e.parent }

// An Error is what every operation of a Store returns for a failure of its own.
type Error struct {
	Op  string // the operation: "get", "set", …
	ID  string // the first 8 hex digits of the id's SHA-256, "" where there is no id: ids are credentials
	Err error
}

func (e *Error) Error() string {
	if e.ID == "" {
		return "filestore: " + e.Op + ": " + e.Err.Error()
	}
	return "filestore: " + e.Op + " " + e.ID + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// wrap makes the error that leaves the package. The os package's errors name
// the file, and so the id: only their cause goes on.
func wrap(op, id string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Err: bare(err)}
	if id != "" {
		sum := sha256.Sum256([]byte(id))
		e.ID = fmt.Sprintf("%x", sum[:4])
	}
	return e
}

func bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}

// A Store keeps sessions in one directory. Make one with Open.
type Store struct {
	opts Options
	path string   // absolute and free of symbolic links, as it was at Open
	root *os.Root // all file access goes through it: the second wall behind ValidID
	dir  *os.File // the same directory, for fsync, listing and the lock files' paths

	// fold says that the file system takes "A" and "a" for one name.
	fold bool
	// The owner of what a root process writes here; -1 where we are not root.
	uid, gid int

	stripes [stripes]stripe
	reaping chan struct{} // one slot: a pass at a time

	mu     sync.Mutex // guards closed, and ops.Add against ops.Wait
	closed bool
	ops    sync.WaitGroup     // operations under way, and the reaper
	done   context.Context    // cancelled by Close
	stop   context.CancelFunc // cancels done
}

// Open opens the store in dir, which it makes, with mode 0700, if it is not
// there. It also makes the lock files in dir/.locks, and starts the background
// reaper: a Store must be closed. A dir that is a symbolic link is resolved
// once; from then on the Store stays in the directory that it opened, whatever
// happens to its name. Where the directory can be read but not written, Open
// succeeds with a warning and the operations that write fail.
func Open(dir string, opts *Options) (_ *Store, err error) {
	s := &Store{uid: -1, gid: -1, reaping: make(chan struct{}, 1)}
	if opts != nil {
		s.opts = *opts
	}
	if err := s.opts.complete(); err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if err := makeDir(dir, s.opts.NoSync); err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if s.path, err = filepath.Abs(dir); err == nil {
		s.path, err = filepath.EvalSymlinks(s.path)
	}
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if s.root, err = os.OpenRoot(s.path); err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if s.dir, err = s.root.Open("."); err != nil {
		s.root.Close()
		return nil, &Error{Op: "open", Err: err}
	}
	defer func() {
		if err != nil {
			s.dir.Close()
			s.root.Close()
		}
	}()
	fi, err := s.dir.Stat()
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	if os.Geteuid() == 0 {
		s.uid, s.gid = owner(fi)
	}
	if fi.Mode().Perm()&0o022 != 0 && runtime.GOOS != "windows" {
		s.opts.Logger.Warn("filestore: others may write to the session directory", "dir", s.path, "mode", fi.Mode())
	}
	if err := s.openLocks(); err != nil {
		return nil, wrap("open", "", err)
	}
	s.done, s.stop = context.WithCancel(context.Background())
	if s.opts.ReapInterval > 0 {
		s.ops.Go(s.reapLoop)
	}
	return s, nil
}

var extension = regexp.MustCompile(`^(\.[A-Za-z0-9_-]{1,16}){1,2}$`)

// complete puts the defaults in and refuses what cannot be meant.
func (o *Options) complete() error {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&o.TTL, time.Hour)
	def(&o.ReapInterval, time.Hour)
	def(&o.LockTimeout, 5*time.Second)
	if o.MaxSize == 0 {
		o.MaxSize = 1 << 20
	}
	if o.Extension == "" {
		o.Extension = ".json"
	}
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.LockTimeout < 0:
		return errors.New("Options.LockTimeout is negative")
	case o.MaxSize < 0:
		return errors.New("Options.MaxSize is negative")
	case !extension.MatchString(o.Extension):
		return errors.New("Options.Extension is not a dot and up to 16 letters or digits")
	case o.Mode&^fs.ModePerm != 0 || o.Mode&0o600 != 0o600:
		return errors.New("Options.Mode must be permissions, with the owner's to read and write")
	}
	return nil
}

// makeDir makes dir where it is missing and flushes its parent's entry for it.
func makeDir(dir string, noSync bool) error {
	if _, err := os.Stat(dir); err == nil {
		return nil // not a directory: opening it says so
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil || noSync { // the umask may have taken more
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	defer parent.Close()
	return syncDir(parent)
}

// ValidID reports whether id can name a session: 1 to 200 of A-Z a-z 0-9 - _,
// and, but for the first and the last, also . , and ~. The names that Windows
// reserves are refused everywhere, so that a directory can move. An id that
// ends in the Store's extension, or looks like a temporary file of
// write-file-atomic, is refused by the Store as well.
func ValidID(id string) bool {
	if len(id) < 1 || len(id) > 200 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case (c == '.' || c == ',' || c == '~') && i > 0 && i < len(id)-1:
		default:
			return false
		}
	}
	device, _, _ := strings.Cut(strings.ToUpper(id), ".")
	switch device {
	case "CON", "PRN", "AUX", "NUL":
		return false
	}
	return !(len(device) == 4 && (device[:3] == "COM" || device[:3] == "LPT") && device[3] >= '0' && device[3] <= '9')
}

// name returns the file name of the session id.
func (s *Store) name(id string) (string, error) {
	ext := s.opts.Extension
	if !ValidID(id) || strings.HasSuffix(id, ext) || nodeTemp(id, ext) {
		return "", ErrInvalidID
	}
	return id + ext, nil
}

// id returns the session that the file name belongs to; false for other names.
func (s *Store) id(name string) (string, bool) {
	id, ok := strings.CutSuffix(name, s.opts.Extension)
	if ok {
		_, err := s.name(id)
		ok = err == nil
	}
	return id, ok
}

// enter admits an operation, unless the Store is closed or ctx is done; leave
// must follow. Close waits for all that have entered.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.ops.Add(1)
	return nil
}

func (s *Store) leave() { s.ops.Done() }

// begin is enter for an operation on one session; it also checks the id, before
// any system call.
func (s *Store) begin(ctx context.Context, id string) (name string, err error) {
	if name, err = s.name(id); err != nil {
		return "", err
	}
	return name, s.enter(ctx)
}

// Get returns the session id. It takes no lock and writes nothing: beside any
// writer it returns one complete version. ErrNotFound if there is none,
// ErrExpired (an ErrNotFound too) if its time is over, ErrCorrupt, ErrTooLarge
// or ErrUnsafeFile if its file cannot be used; the file stays in each case.
func (s *Store) Get(ctx context.Context, id string) (*Session, error) {
	name, err := s.begin(ctx, id)
	if err != nil {
		return nil, wrap("get", id, err)
	}
	defer s.leave()
	sess, err := s.load(id, name)
	if err != nil {
		return nil, wrap("get", id, err)
	}
	return sess, nil
}

// Set stores sess as the session id, whether or not there is one, accessed now.
// It does not change sess. To change a session that others may change too, or
// that may have been destroyed, use Update.
func (s *Store) Set(ctx context.Context, id string, sess *Session) error {
	return s.put(ctx, "set", id, sess, nil)
}

// Create is Set for a new session: it fails with fs.ErrExist where the id is
// taken, by a session that is alive or by a file that cannot be read.
func (s *Store) Create(ctx context.Context, id string, sess *Session) error {
	return s.put(ctx, "create", id, sess, func(name string) error {
		if _, err := s.load(id, name); !errors.Is(err, ErrNotFound) {
			return fs.ErrExist
		}
		return nil
	})
}

func (s *Store) put(ctx context.Context, op, id string, sess *Session, check func(name string) error) error {
	name, err := s.begin(ctx, id)
	if err != nil {
		return wrap(op, id, err)
	}
	defer s.leave()
	data, expires, err := s.encode(id, sess) // what has no JSON form fails before anything is touched
	if err != nil {
		return wrap(op, id, err)
	}
	l, err := s.lock(ctx, id)
	if err != nil {
		return wrap(op, id, err)
	}
	defer l.unlock()
	if check != nil {
		if err := check(name); err != nil {
			return wrap(op, id, err)
		}
	}
	return wrap(op, id, s.replace(l, name, data, expires))
}

// Touch marks the session id as accessed now and gives it the cookie c, or
// leaves it its own where c is nil. Its values are those of the file. It writes
// only if the last access is at least Options.TouchAfter old or the cookie has
// changed in more than its running Expires. ErrNotFound if the session is gone
// or has expired: Touch never brings one back.
func (s *Store) Touch(ctx context.Context, id string, c *Cookie) error {
	name, err := s.begin(ctx, id)
	if err != nil {
		return wrap("touch", id, err)
	}
	defer s.leave()
	sess, err := s.load(id, name)
	if err != nil {
		return wrap("touch", id, err)
	}
	if !s.wantsTouch(sess, c) {
		return nil
	}
	return s.update(ctx, "touch", id, name, func(sess *Session) error {
		if c != nil {
			sess.Cookie = *c
		}
		return nil
	})
}

func (s *Store) wantsTouch(sess *Session, c *Cookie) bool {
	age, after := time.Since(sess.LastAccess), s.opts.TouchAfter
	if after == 0 {
		after = sess.life(s.opts.TTL) / 100
	}
	if age >= after || sess.assumed {
		return true
	}
	if c == nil {
		return false
	}
	a, b := sess.Cookie, *c
	if a.OriginalMaxAge != 0 { // then Expires only says when that runs out
		a.Expires, b.Expires = time.Time{}, time.Time{}
	}
	return a != b
}

// Update reads the session id, lets fn change it, and stores it, accessed now,
// all under the session's lock: no change by another Update is lost. It returns
// what fn returns, and then writes nothing. ErrNotFound if the session is gone
// or has expired; fn is then not called. fn must not use the same Store.
func (s *Store) Update(ctx context.Context, id string, fn func(*Session) error) error {
	name, err := s.begin(ctx, id)
	if err != nil {
		return wrap("update", id, err)
	}
	defer s.leave()
	return s.update(ctx, "update", id, name, fn)
}

func (s *Store) update(ctx context.Context, op, id, name string, fn func(*Session) error) error {
	l, err := s.lock(ctx, id)
	if err != nil {
		return wrap(op, id, err)
	}
	defer l.unlock()
	sess, err := s.load(id, name)
	if err != nil {
		return wrap(op, id, err)
	}
	if err := fn(sess); err != nil {
		return err
	}
	data, expires, err := s.encode(id, sess)
	if err != nil {
		return wrap(op, id, err)
	}
	return wrap(op, id, s.replace(l, name, data, expires))
}

// Destroy removes the session id. It succeeds where there is none. Without
// NoSync the session stays away after a power cut too.
func (s *Store) Destroy(ctx context.Context, id string) error {
	name, err := s.begin(ctx, id)
	if err != nil {
		return wrap("destroy", id, err)
	}
	defer s.leave()
	l, err := s.lock(ctx, id)
	if err != nil {
		return wrap("destroy", id, err)
	}
	defer l.unlock()
	if err := s.remove(l, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap("destroy", id, err)
	}
	// Even where the name was gone: whoever removed it may not have flushed.
	return wrap("destroy", id, s.sync())
}

// Close ends the background reaper, waits for it and for the operations under
// way, and releases the directory. It must not be called from the function
// given to Update. Every use after it fails with ErrClosed. Calling it again
// does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.ops.Wait()
	if !first {
		return nil
	}
	return errors.Join(s.dir.Close(), s.root.Close())
}

// encode returns the bytes of the file for sess, accessed now, and when it expires.
func (s *Store) encode(id string, sess *Session) (data []byte, expires time.Time, err error) {
	if sess == nil {
		return nil, expires, errors.New("nil session")
	}
	now := *sess
	now.LastAccess = time.Now().Truncate(time.Millisecond)
	if data, err = now.MarshalJSON(); err != nil {
		return nil, expires, err
	}
	if s.opts.Codec != nil {
		if data, err = s.opts.Codec.Encode(id, data); err != nil {
			return nil, expires, err
		}
	}
	if int64(len(data)) > s.opts.MaxSize {
		return nil, expires, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	return data, now.ExpiresAt(s.opts.TTL), nil
}

// replace makes data the contents of name, in one step for every reader: a
// temporary file in the same directory takes the name over.
func (s *Store) replace(l *lock, name string, data []byte, expires time.Time) (err error) {
	if s.fold {
		if _, err := s.lstat(name); errors.Is(err, errFolded) {
			return err
		}
	}
	// The name says whose lock its writer holds (see sweep); it is random, so
	// that nobody can put something there first, and its ending is in no
	// extension, so that Node's reaper does not take it for a session.
	tmp := fmt.Sprintf(".%s-%s~", l.stripe.name, rand.Text())
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil { // after a failed fsync too: the kernel may have dropped the pages
			f.Close()
			s.root.Remove(tmp)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if s.uid >= 0 { // what root writes stays the directory owner's
		if err = f.Chown(s.uid, s.gid); err != nil {
			return err
		}
	}
	if err = f.Chmod(s.opts.Mode); err != nil {
		return err
	}
	// A hint for the reaper, and for whoever runs ls -l: when it expires.
	if err = s.root.Chtimes(tmp, time.Time{}, expires.Truncate(time.Millisecond)); err != nil {
		return err
	}
	if !s.opts.NoSync {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = l.stands(); err != nil {
		return err
	}
	if err = again(func() error { return s.root.Rename(tmp, name) }); err != nil {
		return err
	}
	return s.sync()
}

// sync makes the directory's entries durable. Without it a rename or a removal
// that has returned can be undone by a power cut.
func (s *Store) sync() error {
	if s.opts.NoSync {
		return nil
	}
	return syncDir(s.dir)
}

// remove unlinks name, whatever it is, unless it is a directory.
func (s *Store) remove(l *lock, name string) error {
	fi, err := s.lstat(name)
	if err != nil {
		return err
	}
	if fi.IsDir() { // os.Root.Remove would take an empty one
		return fmt.Errorf("%w: a directory", ErrUnsafeFile)
	}
	if err := l.stands(); err != nil {
		return err
	}
	return again(func() error { return s.root.Remove(name) })
}

// lstat is root.Lstat, but on a file system that folds case it does not find
// one session under another's name.
func (s *Store) lstat(name string) (fs.FileInfo, error) {
	fi, err := s.root.Lstat(name)
	if err != nil || !s.fold {
		return fi, err
	}
	for entry, err := range s.list() { // slow, but such systems are where people develop
		if err != nil {
			return nil, err
		}
		if entry.Name() == name {
			return fi, nil
		}
	}
	return nil, errFolded
}

var errFolded error = &sentinel{"differs from another session's id by case only", ErrInvalidID}

// load reads, decodes and judges the session id. It needs no lock.
func (s *Store) load(id, name string) (*Session, error) {
	data, mtime, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if s.opts.Codec != nil {
		if data, err = s.opts.Codec.Decode(id, data); err != nil {
			return nil, err
		}
	}
	sess := new(Session)
	if err := sess.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	now := time.Now()
	sess.date(now, mtime)
	if sess.expired(now, s.opts.TTL) {
		return nil, ErrExpired
	}
	return sess, nil
}

// read returns the bytes of the regular file name. What is not such a file is
// neither followed nor, where that can be helped, opened.
func (s *Store) read(name string) ([]byte, time.Time, error) {
	var none time.Time
	// A name that is replaced between two looks is looked at again. A hundred
	// losses in a row are not a busy session but somebody's attack.
	for range 100 {
		before, err := s.lstat(name)
		if err != nil {
			return nil, none, err
		}
		if !before.Mode().IsRegular() { // before opening: opening a device can act
			return nil, none, fmt.Errorf("%w: %s", ErrUnsafeFile, kind(before.Mode()))
		}
		f, err := s.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, none, err
		}
		data, fi, err := s.readFile(f)
		f.Close()
		if err == nil && !os.SameFile(before, fi) || errors.Is(err, errReplaced) {
			continue
		}
		if err != nil {
			return nil, none, err
		}
		return data, fi.ModTime(), nil
	}
	return nil, none, fmt.Errorf("%w: it is replaced all the time", ErrUnsafeFile)
}

var errReplaced = errors.New("replaced")

func (s *Store) readFile(f *os.File) ([]byte, fs.FileInfo, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	links, mine, err := links(f, fi)
	switch {
	case err != nil:
		return nil, nil, err
	case !fi.Mode().IsRegular(): // os.Root follows links inside the directory
		return nil, nil, fmt.Errorf("%w: %s", ErrUnsafeFile, kind(fi.Mode()))
	case links == 0:
		return nil, nil, errReplaced
	case links > 1:
		return nil, nil, fmt.Errorf("%w: it has %d links", ErrUnsafeFile, links)
	case !mine:
		return nil, nil, fmt.Errorf("%w: it belongs to another user", ErrUnsafeFile)
	case fi.Size() > s.opts.MaxSize:
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, fi.Size())
	}
	data := make([]byte, 0, fi.Size()+1)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, fi, nil
		case err != nil:
			return nil, nil, err
		case len(data) == cap(data): // it grew while we read: no writer of ours does that
			return nil, nil, fmt.Errorf("%w: it is being written in place", ErrCorrupt)
		}
	}
}

func kind(m fs.FileMode) string {
	switch m.Type() {
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	}
	return "not a regular file"
}

// again retries what only an interruption or, on Windows, a reader's open
// handle has stopped, for two seconds at most.
func again(op func() error) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := op()
		pause, retry := transient(err)
		if !retry || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}
