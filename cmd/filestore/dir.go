package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// The store passes over expired sessions and says little about broken files. So the commands that look
// read the directory themselves, through the same packages as the store.

// maxSize is the most bytes that are read of one file, and so bounds the memory for a planted one.
const maxSize = 16 << 20

// A reader reads the sessions of one directory.
type reader struct {
	a     *app
	dir   *disk.Dir
	codec filestore.Codec // nil: plain
}

// reader opens the directory to read it.
func (a *app) reader() (*reader, error) { return a.openReader(disk.Options{ReadOnly: true}) }

func (a *app) openReader(o disk.Options) (*reader, error) {
	codec, err := a.codec()
	if err != nil {
		return nil, err
	}
	if err := a.checkDir(); err != nil {
		return nil, err
	}
	dir, err := disk.Open(a.dir, o)
	if err != nil {
		return nil, a.noDir(err)
	}
	return &reader{a, dir, codec}, nil
}

func (r *reader) close() { r.dir.Close() }

// A writer also changes the files of a directory, under their sessions' locks, as the store does.
type writer struct {
	*reader
	locks *lock.Table
	stuck map[int]bool // the locks of a stopped holder: to wait once is enough
}

// writer opens the directory to change it.
func (a *app) writer(o disk.Options) (*writer, error) {
	r, err := a.openReader(o)
	if err != nil {
		return nil, err
	}
	locks, err := lock.Open(r.dir, a.ext, slog.New(slog.DiscardHandler))
	if err != nil {
		r.close()
		return nil, readOnlyHere(err)
	}
	return &writer{r, locks, make(map[int]bool)}, nil
}

// many are the options to store many files. What is written is on the disk after a flush.
var many = disk.Options{NoSync: disk.SyncsAll}

// flush flushes what has been changed.
func (w *writer) flush() error { return cmp.Or(w.dir.SyncAll(), w.dir.Sync()) }

const lockTimeout = 5 * time.Second // the store's default

func (w *writer) lock(ctx context.Context, id string) (*lock.Stripe, error) {
	i := w.locks.Index(id)
	if w.stuck[i] {
		return nil, lock.ErrTimeout
	}
	l, err := w.locks.Lock(ctx, id, lockTimeout)
	w.stuck[i] = errors.Is(err, lock.ErrTimeout)
	return l, err
}

// destroy removes the session's file, whatever it holds, but not what a destroyed session has left: then it fails with
// fs.ErrNotExist.
func (w *writer) destroy(ctx context.Context, id string) error {
	l, err := w.lock(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	name := w.a.ext.File(id)
	if e, err := w.read(name); err == nil && e.destroyed() { // while rm was asking
		return fs.ErrNotExist
	}
	return l.Remove(name)
}

// remove removes the session's file if it is still the one that was seen, and else fails with lock.ErrConflict.
func (w *writer) remove(ctx context.Context, id string, seen disk.Seen) error {
	l, err := w.lock(ctx, id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	name := w.a.ext.File(id)
	if same, err := w.dir.Still(name, seen); err != nil || !same {
		return cmp.Or(err, lock.ErrConflict)
	}
	return l.Remove(name)
}

// idOf returns the id of the session that the file name belongs to; false for other names.
func (r *reader) idOf(name string) (string, bool) {
	id, ok := r.a.ext.ID(name)
	return id, ok && !r.claimed(id)
}

// claimed reports whether the name of the session id belongs to a store with a longer extension.
func (r *reader) claimed(id string) bool {
	mark := r.a.ext.Claim(id)
	if mark == "" {
		return false
	}
	_, err := r.dir.Lstat(mark)
	return err == nil
}

// names yields the names in the directory, in the directory's order. It ends after an error, and with
// ctx.
func (r *reader) names(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range r.dir.Names() {
			if err != nil {
				err = fmt.Errorf("the directory cannot be listed: %w", cause(err))
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// all yields the sessions in the directory's order, the expired ones too; for one that cannot be read
// an entry without a session and the error. An error without an id ends the listing.
func (r *reader) all(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for name, err := range r.names(ctx) {
			if err != nil {
				yield(entry{}, err)
				return
			}
			if _, ok := r.idOf(name); !ok {
				continue
			}
			e, err := r.read(name)
			if errors.Is(err, filestore.ErrNotFound) { // ended since it was listed
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// count returns how many names of sessions there are.
func (r *reader) count(ctx context.Context) (n int, err error) {
	for name, err := range r.names(ctx) {
		if err != nil {
			return n, err
		}
		if _, ok := r.idOf(name); ok {
			n++
		}
	}
	return n, nil
}

// An entry is one session file. Of a file that could not be read only id and name are set; of one that
// holds no session also info and file.
type entry struct {
	id, name         string
	info             disk.Info
	file             []byte // its bytes
	doc              []byte // JSON as in the file, decrypted
	sess             *filestore.Session
	said             time.Time // the last access in the file; zero if it has none
	lastAccess, ends time.Time
	expired          bool
}

// read reads one session file. It writes nothing and takes no lock: a file is only ever replaced whole.
func (r *reader) read(name string) (entry, error) {
	e := entry{name: name}
	e.id, _ = r.idOf(name)
	data, info, err := r.dir.Read(name, maxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return e, filestore.ErrNotFound
	case errors.Is(err, fs.ErrPermission): // others may be able to read the file
		return e, fs.ErrPermission
	case errors.Is(err, filestore.ErrTooLarge):
		return e, fmt.Errorf("%w: %s", filestore.ErrTooLarge, size(info.Size))
	case err != nil:
		return e, cause(err)
	}
	e.info, e.file = info, data
	if e.doc, e.sess, err = r.decode(e.id, data); err != nil {
		return e, err
	}
	e.date(r.a)
	return e, nil
}

// destroyed reports whether the file is what the adapter scsstore leaves of a session that was destroyed, until no request
// can be under way any more that would bring it back.
func (e *entry) destroyed() bool {
	return len(e.sess.Values) == 1 && string(e.sess.Values["destroyed"]) == "true"
}

// decode returns the document and the session of a file's bytes.
func (r *reader) decode(id string, data []byte) (doc []byte, _ *filestore.Session, err error) {
	if r.codec != nil {
		if data, err = r.codec.Decode(id, data); err != nil {
			return nil, nil, err
		}
	}
	sess := new(filestore.Session)
	err = sess.UnmarshalJSON(data)
	if err != nil && r.codec == nil && encrypted(data) {
		err = fmt.Errorf("%w: it is encrypted; see --secret-file and --key-file", filestore.ErrDecrypt)
	}
	return data, sess, err
}

// date says when the session was accessed last and when it ends. If the file's time tells of a later
// end, that counts, unless --ttl is given: a program with a longer TTL wrote it.
func (e *entry) date(a *app) {
	now, mtime, ctime, maxAge := a.now(), e.info.ModTime(), e.info.ChangeTime(), e.sess.Cookie.OriginalMaxAge
	e.said = e.sess.LastAccess
	e.lastAccess, _ = format.LastAccess(e.said, mtime, ctime, now)
	e.sess.LastAccess = e.lastAccess
	e.sess.Created = format.Created(e.sess.Created, now)
	life := a.life(e.sess, maxAge)
	e.ends, e.expired = e.lastAccess.Add(life), format.Expired(e.lastAccess, life, now)
	if !a.ttlGiven && maxAge == 0 && format.Dated(e.said, now) && e.notDue(now) {
		if later := e.lastAccess.Add(a.life(e.sess, mtime.Sub(e.lastAccess))); later.After(e.ends) && later.After(now) {
			e.ends, e.expired = later, false
		}
	}
}

// life returns how long the session lives after its last access: maxAge, or if that is 0 the TTL, and not
// beyond its Lifetime.
func (a *app) life(sess *filestore.Session, maxAge time.Duration) time.Duration {
	return format.Capped(format.Life(maxAge, a.ttl), sess.LastAccess, sess.Created, a.lifetime)
}

// notDue reports whether the file's times tell of an end to come, so that no reaper removes it.
func (e *entry) notDue(now time.Time) bool {
	return format.NotDue(e.info.ModTime(), e.info.ChangeTime(), now)
}

var envelope = regexp.MustCompile(`^(\{"sealed":|"?\{\\?"(hmac|ct|at|aad|iv|salt)\\?":)`)

// encrypted reports whether data looks like a file of package sealed or kruptein.
func encrypted(data []byte) bool { return envelope.Match(data[:min(len(data), 64)]) }

// mode returns the mode for a file that replaces name: that of name, in which the owner may read and
// write; 0600 if there is none.
func (r *reader) mode(name string) fs.FileMode {
	i, err := r.dir.Stat(name)
	if err != nil || !i.Mode.IsRegular() || !disk.Modes {
		return 0o600
	}
	return i.Mode.Perm() | 0o600
}

// least is how many characters of an id name it.
const least = 6

// find returns the id that arg, whole or shortened, names in the directory.
func (r *reader) find(ctx context.Context, arg string) (string, error) {
	if name := r.a.ext.File(arg); r.exists(name) {
		return arg, nil
	}
	prefix := strings.TrimSuffix(arg, ellipsis)
	if len(prefix) < least {
		return "", r.missing(arg)
	}
	found := ""
	for name, err := range r.names(ctx) {
		if err != nil {
			return "", err
		}
		id, ok := r.idOf(name)
		if !ok || !strings.HasPrefix(id, prefix) || id == found {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s names more than one session; give more of the id", show(r.a.id(prefix)))
		}
		found = id
	}
	if found == "" {
		return "", r.missing(arg)
	}
	return found, nil
}

// exists reports whether name is there and can be a session's.
func (r *reader) exists(name string) bool {
	if _, ok := r.idOf(name); !ok {
		return false
	}
	_, err := r.dir.Stat(name)
	return err == nil
}

func (r *reader) missing(arg string) error {
	hint := ""
	switch {
	case isDir(arg):
		return wrong("%w: %s, which is a directory; the sessions in it are those of --dir %[2]s", filestore.ErrNotFound, given(arg))
	case strings.HasSuffix(arg, string(r.a.ext)):
		hint = "; an id is the name of the file without " + string(r.a.ext)
	case len(strings.TrimSuffix(arg, ellipsis)) < least:
		hint = fmt.Sprintf("; a shortened id needs %d characters or more", least)
	}
	return wrong("%w: %s%s", filestore.ErrNotFound, show(r.a.id(arg)), hint)
}

// checkDir fails if --dir or --ext cannot be used. A mistyped --dir must not create a directory.
func (a *app) checkDir() error {
	fi, err := os.Stat(a.dir)
	switch {
	case err != nil:
		return a.noDir(err)
	case !fi.IsDir():
		return fmt.Errorf("%s is not a directory", given(a.dir))
	case !a.ext.Valid():
		return fmt.Errorf("--ext %s: not %s", given(string(a.ext)), format.ExtensionRule)
	}
	return nil
}

// noDir says why the directory cannot be used.
func (a *app) noDir(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", given(a.dir), cause(err))
	}
	name, hint := given(a.dir), ""
	switch {
	case a.dirNamed == "":
		hint = "; name yours: filestore ls DIR, or --dir DIR"
	case !strings.HasPrefix(a.dirNamed, "--dir") && format.ValidID(a.dir) && len(a.dir) >= least:
		hint = "; if it is a session's id: filestore show ID"
	}
	return fmt.Errorf("there is no directory %s%s", name, hint)
}

// readOnlyHere tells an operator why a directory cannot be changed.
func readOnlyHere(err error) error {
	if errors.Is(err, fs.ErrPermission) && runtime.GOOS != "windows" {
		return fmt.Errorf("%w; run as the directory's owner", bare(err))
	}
	return bare(err)
}
