// Package filestore keeps web sessions in a directory, one JSON file per session, in the format of
// the npm package session-file-store: a Go program and an Express program can share one directory,
// one secret and one cookie.
//
// A Store is safe for concurrent use, by goroutines and, on one machine, by any number of processes
// on the same directory of a local file system. Readers take no lock: a file is only ever replaced
// whole. Writers of one session wait for each other, between processes with the operating system's
// file locks. Node takes no lock: beside a Node writer each file is still whole, but the last of two
// writers wins.
//
// Files must be regular files with one link, owned by the process's user or by root (a root process
// takes anybody's). Symbolic links are never followed, and nothing outside the directory is read,
// written or removed. Network file systems are not supported.
//
// A file that another program writes in place, as an editor may, can be found half-written for a moment:
// then it is ErrCorrupt.
//
// Lock files that somebody deletes are made again. Of two writers of one session at that moment the one
// whose lock file was deleted fails, unless it has already looked for the last time: then its write may
// be lost. Leave .locks alone while programs run.
package filestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Options are a Store's settings. The zero value of each field, and a nil *Options, stand for the
// default, which is session-file-store's where it has the option.
type Options struct {
	// TTL is how long a session lives after its last access if its cookie has no maxAge: at least a
	// second. 0 = 1 h. A negative TTL makes such sessions expire immediately. All programs on a
	// directory should have the same: each Get goes by its own, and the reapers by the longest, see Reap.
	TTL time.Duration

	// TouchAfter is how old the last access must be for Touch to rewrite the file. 0 = 1 % of the
	// session's life, negative = always. It is never more than half of the session's life.
	TouchAfter time.Duration

	// ReapInterval is the time between passes of the background reaper. The first pass comes after a
	// tenth of it. 0 = 1 h, negative = no background reaper.
	ReapInterval time.Duration

	// LockTimeout is the longest wait for a session's lock, then ErrLockTimeout. 0 = 5 s.
	LockTimeout time.Duration

	// MaxSize is the most bytes that one session file may have, written or read, then ErrTooLarge.
	// 0 = 1 MiB, at most 1 GiB. A larger file of up to 16 MiB is read to see whether it has expired.
	MaxSize int64

	// Extension ends the names of session files: a dot and 1 to 16 of A-Z a-z 0-9 - _, once or twice.
	// "" = ".json". Beside a store with ".admin.json" one with ".json" has no ids that end in ".admin".
	Extension string

	// Mode is that of the files written, whatever the umask. The owner must be able to read and write.
	// 0 = 0600.
	Mode fs.FileMode

	// ReadOnly opens an existing directory without changing it. There is no reaper, writes fail with
	// fs.ErrPermission, and files owned by the directory's owner are readable too.
	ReadOnly bool

	// NoSync spares the flush to the disk: a finished write survives kill -9, but maybe not a power cut.
	NoSync bool

	// CacheSize is the number of decoded sessions held in memory, of files of up to 16 KiB. Each use
	// looks whether the file has changed. 0 = 10,000, negative = no cache.
	CacheSize int

	// Codec stands between the JSON of a session and the bytes of its file. nil = plain JSON.
	Codec Codec

	// Logger receives what no caller can: errors of the background reaper, and warnings from Open.
	// nil = slog.Default().
	Logger *slog.Logger
}

// A Store keeps sessions in one directory. Make one with Open.
type Store struct {
	opts Options

	mu     sync.Mutex // guards at and closed, and each Add against its Wait
	at     *place
	closed bool
	own    sync.WaitGroup     // the Store's goroutines
	done   context.Context    // cancelled by Close
	stop   context.CancelFunc // cancels done

	reopening sync.Mutex // held by reopen
}

// A place is an opened directory with all that goes with it. Where it was deleted, another one takes its
// place in the Store; what is under way in the old one ends there.
type place struct {
	*Store
	path  string // absolute and free of symbolic links, as it was at Open
	dir   directory
	cache *lru.Cache[string, *document] // nil: none

	swaps bool // see swap
	fold  bool // the file system takes "A" and "a" for one name
	owner ids  // for a root process: who owns the directory, and shall own what is made in it

	stripes [stripes]stripe

	ops   sync.WaitGroup // the operations under way
	moved sync.Once      // tells of it
}

// ids is the owner to give to new files. The zero value leaves them to the process.
type ids struct {
	given    bool
	uid, gid int
}

// A directory is the open session directory. All file access goes through it, so renaming or replacing
// its path changes nothing.
type directory struct {
	root *os.Root // the second wall behind ValidID
	file *os.File // the same directory
	fd   int      // and file's descriptor

	trusted int // a user whose files are read, beside root and the process's own
}

// Open opens the store in dir, which it makes, with mode 0700, if it is not there. It also makes the
// lock files in dir/.locks, and starts the background reaper: a Store must be closed. A dir that is
// a symbolic link is resolved once; from then on the Store stays in the directory that it opened, also
// where it was moved. Where it was deleted the next operation opens the one that has its path by then,
// and if there is none makes it, as Open does; a link or another user's directory it refuses. Open fails
// where the directory cannot be written, unless ReadOnly is set; where there is no room it only warns.
func Open(dir string, opts *Options) (_ *Store, err error) {
	s := new(Store)
	defer func() {
		if _, ok := err.(*Error); err != nil && !ok { // the directory's name is no secret
			err = &Error{Op: "open", Err: err}
		}
	}()
	if opts != nil {
		s.opts = *opts
	}
	if err = s.opts.complete(); err == nil && !s.opts.ReadOnly {
		err = makeDir(dir, s.opts.NoSync)
	}
	path := ""
	if err == nil {
		path, err = filepath.Abs(dir)
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		s.at, err = s.open(path, nil, ids{})
	}
	if err != nil {
		return nil, err
	}
	s.done, s.stop = context.WithCancel(context.Background())
	if s.opts.ReapInterval > 0 && !s.opts.ReadOnly {
		s.own.Go(s.reapLoop)
	}
	return s, nil
}

// open opens the directory at path, errGone if that is not want, which may be nil. It becomes give's if
// that is given.
func (s *Store) open(path string, want fs.FileInfo, give ids) (_ *place, err error) {
	p := &place{Store: s, path: path, cache: newCache(s.opts.CacheSize)}
	defer func() {
		if err != nil {
			p.dir.close()
		}
	}()
	if p.dir.root, err = os.OpenRoot(path); err == nil {
		p.dir.file, err = p.dir.root.Open(".")
	}
	if err != nil {
		return nil, err
	}
	p.dir.fd = int(p.dir.file.Fd())
	fi, err := p.dir.file.Stat()
	if err == nil && want != nil && !os.SameFile(fi, want) { // before anything is done to it: a link was faster
		err = errGone
	}
	if err == nil && give.given {
		if err = p.dir.file.Chown(give.uid, give.gid); err == nil {
			fi, err = p.dir.file.Stat()
		}
	}
	if err != nil {
		return nil, err
	}
	switch {
	case s.opts.ReadOnly:
		p.dir.trusted = owner(fi).uid
	case os.Geteuid() == 0:
		p.owner = owner(fi)
	}
	if fi.Mode()&0o022 != 0 && runtime.GOOS != "windows" {
		s.opts.Logger.Warn("filestore: others may write to the session directory", "dir", path, "mode", fi.Mode())
	}
	if !s.opts.ReadOnly {
		if err = p.openLocks(); err != nil {
			return nil, wrap("open", "", err)
		}
	}
	p.swaps = s.opts.NoSync && p.dir.flushesRename()
	return p, nil
}

// reopen puts another place in that of old, whose directory was deleted: the one at its path. It makes
// that as Open does.
func (s *Store) reopen(old *place) error {
	s.reopening.Lock()
	defer s.reopening.Unlock()
	if s.here() != old {
		return nil // somebody else has just done so
	}
	var give ids
	fi, err := os.Lstat(old.path)
	if errors.Is(err, fs.ErrNotExist) && !s.opts.ReadOnly {
		give = old.owner
		if err = makeDir(old.path, s.opts.NoSync); err == nil {
			fi, err = os.Lstat(old.path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return errGone // again
		}
	}
	if err != nil {
		return err
	}
	was, err := old.dir.file.Stat()
	if err != nil {
		return err
	}
	// Who could delete the directory could put one of his own there.
	if uid := owner(fi).uid; !fi.IsDir() || uid != os.Geteuid() && uid != 0 && uid != owner(was).uid {
		return fmt.Errorf("the session directory was deleted: %w: at its path is another's or none", ErrUnsafeFile)
	}
	p, err := s.open(old.path, fi, give)
	if errors.Is(err, fs.ErrNotExist) {
		return errGone // again
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return p.dir.close()
	}
	s.at = p
	s.own.Go(func() {
		s.opts.Logger.Warn("filestore: the session directory was deleted; opened the one at its path", "dir", p.path)
		old.ops.Wait()
		old.dir.close()
	})
	return nil
}

// here returns the present place, for those who have not entered: they may use its root, its file and
// its path only.
func (s *Store) here() *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

var extension = regexp.MustCompile(`^(\.[A-Za-z0-9_-]{1,16}){1,2}$`)

// complete fills in defaults and rejects invalid options.
func (o *Options) complete() error {
	o.TTL = cmp.Or(o.TTL, time.Hour)
	o.ReapInterval = cmp.Or(o.ReapInterval, time.Hour)
	o.LockTimeout = cmp.Or(o.LockTimeout, 5*time.Second)
	o.MaxSize = cmp.Or(o.MaxSize, 1<<20)
	o.CacheSize = cmp.Or(o.CacheSize, 10_000)
	o.Extension = cmp.Or(o.Extension, ".json")
	o.Mode = cmp.Or(o.Mode, 0o600)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	switch {
	// What was meant in seconds is nanoseconds: 604800 is 0.6 ms.
	case 0 < o.TTL && o.TTL < time.Second:
		return fmt.Errorf("Options.TTL is %v, and must be at least a second: for seconds write 3600*time.Second", o.TTL)
	case tooShort(o.TouchAfter) || tooShort(o.ReapInterval) || tooShort(o.LockTimeout):
		return errors.New("Options.TouchAfter, ReapInterval or LockTimeout is shorter than a millisecond: for seconds write 60*time.Second")
	case o.LockTimeout < 0:
		return errors.New("Options.LockTimeout is negative")
	case o.MaxSize < 0 || o.MaxSize > 1<<30:
		return errors.New("Options.MaxSize is negative or more than 1 GiB")
	case !extension.MatchString(o.Extension):
		return errors.New("Options.Extension is not a dot and up to 16 letters or digits")
	case o.Mode&^fs.ModePerm != 0 || o.Mode&0o600 != 0o600:
		return errors.New("Options.Mode must be permissions, with the owner's to read and write")
	}
	return nil
}

func tooShort(d time.Duration) bool { return 0 < d && d < time.Millisecond }

// makeDir makes dir, and what it is in, where they are missing, and flushes the new entries.
func makeDir(dir string, noSync bool) error {
	_, err := os.Stat(dir)
	parent := filepath.Dir(filepath.Clean(dir))
	if !errors.Is(err, fs.ErrNotExist) || dir == "" || parent == filepath.Clean(dir) { // at the latest a root ends it
		return err
	}
	if err := makeDir(parent, noSync); err != nil {
		return err
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody else just made it
	}
	if err == nil {
		// The umask may have taken more. Only then: by name it could be another's by now.
		if fi, statErr := os.Lstat(dir); statErr == nil && fi.IsDir() && fi.Mode().Perm() != 0o700 {
			err = os.Chmod(dir, 0o700)
		}
	}
	if err != nil || noSync {
		return err
	}
	d := directory{}
	d.file, err = os.Open(parent)
	if errors.Is(err, fs.ErrPermission) {
		return nil // one that may not be read cannot be flushed
	}
	if err != nil {
		return err
	}
	defer d.file.Close()
	return d.sync()
}

// Close ends the background reaper, waits for it and for the operations under way, and releases the
// directory. It must not be called from the function given to Update. Every use after it fails with
// ErrClosed; a second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	first, p := !s.closed, s.at
	s.closed = true
	s.mu.Unlock()
	s.stop()
	p.ops.Wait()
	s.own.Wait()
	if first {
		return p.dir.close()
	}
	return nil
}

func (d *directory) close() error {
	if d.root == nil {
		return nil
	}
	return errors.Join(d.file.Close(), d.root.Close())
}

// TTL returns how long a session lives after its last access if its cookie has no maxAge.
func (s *Store) TTL() time.Duration { return s.opts.TTL }

// ValidID reports whether id can name a session: 1 to 200 of A-Z a-z 0-9 - _ and, but for the first
// and the last, also . , and ~. The names that Windows reserves are refused everywhere, so that a
// directory can move. On a file system that folds case, ids that differ in case only are one session.
// A Store also refuses ids that end in its extension, or as the temporary files of Node's
// write-file-atomic do, or whose file another store's longer extension claims.
func ValidID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case (c == '.' || c == ',' || c == '~') && 0 < i && i < len(id)-1:
		default:
			return false
		}
	}
	first, _, _ := strings.Cut(id, ".")
	return 1 <= len(id) && len(id) <= 200 && (len(first) < 3 || len(first) > 4 || !reserved.MatchString(first))
}

var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|(com|lpt)[0-9])$`)

// A key is an id that is valid, and what goes with it.
type key struct {
	id, name string    // name is the file's
	cached   *document // maybe
}

func (s *place) key(id string) key {
	if s.cache != nil {
		if d, ok := s.cache.Get(id); ok {
			return key{id, d.file, d}
		}
	}
	return key{id: id, name: id + s.opts.Extension}
}

func (s *Store) validID(id string) bool {
	ext := s.opts.Extension
	_, _, temp := nodeTemp(id, ext)
	return !temp && ValidID(id) && !strings.HasSuffix(id, ext)
}

// keyOf returns the session that the file name belongs to; false for other names.
func (s *place) keyOf(name string) (key, bool) {
	id, ok := strings.CutSuffix(name, s.opts.Extension)
	return key{id: id, name: name}, ok && s.validID(id) && !s.others(id)
}

// enter admits an operation, unless the Store is closed or ctx is done; ops.Done of the place must
// follow. Close waits for all that have entered.
func (s *Store) enter(ctx context.Context) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.at.ops.Add(1)
	return s.at, nil
}

// within runs fn in the opened directory, and if it fails as that was deleted, in its successor.
func (s *Store) within(ctx context.Context, fn func(p *place) error) (err error) {
	for range 100 { // one more is enough, unless somebody deletes all the time
		var gone bool
		p, enterErr := s.enter(ctx)
		if enterErr != nil {
			return enterErr
		}
		if gone, err = p.attempt(fn); !gone {
			return err
		}
		openErr := s.reopen(p)
		if openErr != nil && err == ErrNotFound { // true in any case
			return err
		}
		if openErr != nil && openErr != errGone {
			return openErr
		}
	}
	return err
}

// attempt looks after each failure, as a deleted directory gives many.
func (s *place) attempt(fn func(p *place) error) (gone bool, err error) {
	defer s.ops.Done()
	err = fn(s)
	return err != nil && (s.dir.gone() || errors.Is(err, errGone)), err
}

// do is the frame of an operation on one session; the id is checked before any system call.
func (s *Store) do(ctx context.Context, op, id string, fn func(p *place, k key) error) error {
	err := ErrInvalidID
	if s.validID(id) {
		err = s.within(ctx, func(p *place) error {
			if p.others(id) {
				return ErrInvalidID
			}
			return fn(p, p.key(id))
		})
	}
	return wrap(op, id, err)
}

// Get returns the session id. It takes no lock and writes nothing: beside any writer it returns one
// complete version. ErrNotFound if there is none, ErrExpired (an ErrNotFound too) if its time is
// over, ErrCorrupt, ErrDecrypt, ErrTooLarge or ErrUnsafeFile if its file cannot be used; the file
// stays in each case.
func (s *Store) Get(ctx context.Context, id string) (sess *Session, err error) {
	err = s.do(ctx, "get", id, func(p *place, k key) error {
		sess, err = p.load(ctx, k, true)
		return err
	})
	return sess, err
}

// Set stores sess as the session id, accessed now, whether or not there is one. It does not change
// sess. To change a session that others may change too, or may have destroyed, use Update.
func (s *Store) Set(ctx context.Context, id string, sess *Session) error {
	return s.put(ctx, "set", id, sess)
}

// Create is Set for a new session: it fails with fs.ErrExist where the id is taken, by a session
// that is alive or by a file that cannot be read.
func (s *Store) Create(ctx context.Context, id string, sess *Session) error {
	return s.put(ctx, "create", id, sess)
}

func (s *Store) put(ctx context.Context, op, id string, sess *Session) error {
	return s.do(ctx, op, id, func(p *place, k key) error {
		var old *document
		if sess != nil && sess.from != nil && sess.from.file == k.name { // as Get returned it
			old = sess.from
		}
		data, stamp, err := p.encode(ctx, k.id, sess, old) // what has no JSON form fails before anything is touched
		if err != nil {
			return err
		}
		st, err := p.lock(ctx, k.id)
		if err != nil {
			return err
		}
		defer st.unlock()
		if op == "create" {
			_, err := p.load(ctx, k, true)
			if err == nil || noSession(err) && !errors.Is(err, ErrNotFound) {
				return fs.ErrExist
			}
			if !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		return p.replace(st, k.name, data, stamp)
	})
}

// Touch marks the session id as accessed now and gives it the cookie c; with nil it keeps its own,
// whose Expires runs anew. Its values stay those of the file. It writes only if the last access is as
// old as Options.TouchAfter says, or the cookie has changed in more than its running Expires.
// ErrNotFound if the session is gone or has expired: Touch never brings one back.
func (s *Store) Touch(ctx context.Context, id string, c *Cookie) error {
	return s.do(ctx, "touch", id, func(p *place, k key) error {
		d, err := p.document(ctx, k, true)
		if err != nil {
			return err
		}
		var sess Session
		if err := p.judge(d, &sess); err != nil || !p.wantsTouch(&sess, c) {
			return err
		}
		return p.update(ctx, k, func(sess *Session) error {
			if c != nil {
				sess.Cookie = *c
			} else if age := sess.Cookie.OriginalMaxAge; age != 0 {
				sess.Cookie.Expires = time.Now().Add(age).Truncate(time.Millisecond)
			}
			return nil
		})
	})
}

func (s *place) wantsTouch(sess *Session, c *Cookie) bool {
	life := sess.life(s.opts.TTL)
	after := min(cmp.Or(s.opts.TouchAfter, life/100), life/2) // longer would log out who is active
	if after < 0 || sess.assumed || time.Since(sess.LastAccess) >= after {
		return true
	}
	if c == nil {
		return false
	}
	was, is := sess.Cookie, *c
	if was.OriginalMaxAge != 0 || was.Expires.Equal(is.Expires) { // a running Expires is no change
		is.Expires = was.Expires
	}
	return was != is
}

// Update reads the session id, lets fn change it, and stores it, accessed now, all under the
// session's lock: no change by another Update is lost. An error of fn is returned as it is, and
// nothing written. ErrNotFound if the session is gone or has expired; fn is then not called. fn must
// not use the same Store.
func (s *Store) Update(ctx context.Context, id string, fn func(*Session) error) error {
	var own error
	called := false
	err := s.do(ctx, "update", id, func(p *place, k key) error {
		if called { // the session is gone with its directory
			return ErrNotFound
		}
		return p.update(ctx, k, func(sess *Session) error {
			called = true
			own = fn(sess)
			return own
		})
	})
	return cmp.Or(own, err)
}

func (s *place) update(ctx context.Context, k key, fn func(*Session) error) error {
	st, err := s.lock(ctx, k.id)
	if err != nil {
		return err
	}
	defer st.unlock()
	sess, err := s.load(ctx, k, true)
	if err != nil {
		return err
	}
	old := sess.from
	if err := fn(sess); err != nil {
		return err
	}
	data, stamp, err := s.encode(ctx, k.id, sess, old)
	if err != nil {
		return err
	}
	return s.replace(st, k.name, data, stamp)
}

// Destroy removes the session id. It succeeds where there is none. Without NoSync the session stays
// away after a power cut too.
func (s *Store) Destroy(ctx context.Context, id string) error {
	return s.do(ctx, "destroy", id, func(p *place, k key) error {
		st, err := p.lock(ctx, k.id)
		if err != nil {
			return err
		}
		defer st.unlock()
		if err := p.remove(st, k); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return p.sync() // even where it was gone: whoever removed it may not have flushed
	})
}

// encode returns the bytes of the file for sess, accessed now, and its mtime; old may be nil.
func (s *place) encode(ctx context.Context, id string, sess *Session, old *document) (data []byte, stamp time.Time, err error) {
	if sess == nil {
		return nil, stamp, errors.New("nil session")
	}
	now := *sess
	now.LastAccess = time.Now().Truncate(time.Millisecond)
	if data, err = now.MarshalJSON(); err == nil {
		data, err = s.code(ctx, id, data, Codec.Encode, ContextCodec.EncodeContext)
	}
	if err == nil && int64(len(data)) > s.opts.MaxSize {
		err = fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	return data, s.stamp(&now, old), err
}

// replace makes data the contents of name, in one step for every reader: a temporary file in the
// same directory takes the name over.
func (s *place) replace(st *stripe, name string, data []byte, stamp time.Time) (err error) {
	var tmp string
	for range 3 { // nobody can have put something there first; if so it is not ours
		// The name tells whose lock its writer holds, for sweep, and is random. No extension ends like
		// it: Node's reaper deletes what looks like a session and is none.
		tmp = "." + st.name + "-" + rand.Text() + "~"
		// The mtime says when the session expires: to the reaper a hint, and to whoever runs ls -l.
		err = s.dir.write(tmp, data, s.opts.Mode, s.owner, stamp, !s.opts.NoSync)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	defer func() {
		if err != nil { // also after a failed fsync: the kernel may have dropped the pages
			s.dir.unlink(tmp)
		}
	}()
	if err == nil {
		err = s.stands(st)
	}
	if err != nil {
		return err
	}
	if s.swaps {
		return s.swap(tmp, name)
	}
	if err = s.dir.rename(tmp, name); err != nil {
		return s.explain(name, err)
	}
	return s.sync()
}

// explain returns err, from a failed rename or unlink of name, or errNotRegular if name is a directory.
func (s *place) explain(name string, err error) error {
	if m, statErr := s.dir.stat(name); statErr == nil && m.dir {
		return errNotRegular
	}
	return err
}

// swap is rename for contents that have not been flushed: over an existing file ext4 would flush them
// first, which takes longer than all else. After the exchange the old contents have the temporary name.
// If we crash before unlinking them, the reaper removes them like any other orphan.
func (s *place) swap(tmp, name string) error {
	m, err := s.dir.stat(name)
	if err != nil || m.dir || s.dir.exchange(tmp, name) != nil {
		if err = s.dir.rename(tmp, name); err != nil {
			return s.explain(name, err)
		}
		return nil
	}
	if s.dir.unlink(tmp) != nil {
		if m, err := s.dir.stat(tmp); err == nil && m.dir { // made since we looked: put it back
			s.dir.exchange(tmp, name)
			return errNotRegular
		}
	}
	return nil
}

// sync flushes the directory: without it a power cut can undo a rename or removal that has returned.
func (s *place) sync() error {
	if s.opts.NoSync {
		return nil
	}
	return s.dir.sync()
}

// remove unlinks name, whatever it is, unless it is a directory.
func (s *place) remove(st *stripe, k key) error {
	err := s.stands(st)
	if err == nil {
		err = s.dir.unlink(k.name)
	}
	if s.cache != nil {
		s.cache.Remove(k.id) // do not keep a destroyed session in memory
	}
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return s.explain(k.name, err)
	}
	return nil
}
