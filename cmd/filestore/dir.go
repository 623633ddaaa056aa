package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
)

// The store passes over expired sessions and says little of broken files, so the commands that look
// have a reader of their own. It is as careful: it follows no link, waits for no pipe, and reads no
// file of a stranger's and none that is too large.

// maxSize bounds the bytes of one session file, and so the memory for a planted one.
const maxSize = 16 << 20

// openRoot opens the directory to read it.
func (a *app) openRoot() (*os.Root, error) {
	fi, err := os.Stat(a.dir)
	if err != nil || !fi.IsDir() {
		return nil, a.noDir(err)
	}
	if !extension.MatchString(a.ext) {
		return nil, errors.New("--ext: not a dot and up to 16 letters or digits")
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return nil, a.noDir(err)
	}
	a.longer = a.longerExtensions(root)
	return root, nil
}

// longerExtensions returns those that end in ours and are another store's: what a file in .locks says.
func (a *app) longerExtensions(root *os.Root) (all []string) {
	dir, err := root.OpenFile(lockDir, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(10_000)
	for _, name := range names {
		if ext, ok := strings.CutPrefix(name, "ext"); ok && ext != a.ext && extension.MatchString(ext) && strings.HasSuffix(ext, a.ext) {
			all = append(all, ext)
		}
	}
	return all
}

// others reports that the file name is of a store with a longer extension.
func (a *app) others(name string) bool {
	return slices.ContainsFunc(a.longer, func(ext string) bool { return strings.HasSuffix(name, ext) })
}

// As the store's.
var (
	extension = regexp.MustCompile(`^(\.[A-Za-z0-9_-]{1,16}){1,2}$`)
	ourTemp   = regexp.MustCompile(`^\.[0-3][0-9a-f]-[A-Z2-7]{26}~$`)
)

// An entry is one session file. Where it could not be read only id and name are set.
type entry struct {
	id, name         string
	info             fs.FileInfo
	doc              []byte // JSON as in the file, decrypted
	sess             *filestore.Session
	lastAccess, ends time.Time
	expired          bool
}

// idOf returns the id of the session that the file name belongs to; false for other names.
func (a *app) idOf(name string) (string, bool) {
	id, ok := strings.CutSuffix(name, a.ext)
	_, _, temp := a.nodeTemp(id)
	return id, ok && filestore.ValidID(id) && !strings.HasSuffix(id, a.ext) && !temp && !a.others(name)
}

// nodeTemp takes apart the name of a temporary file of Node's: <id><extension>.<a number>. One of another
// store's is none.
func (a *app) nodeTemp(name string) (id, number string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || i == len(name)-1 || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", "", false
	}
	id, ok = strings.CutSuffix(name[:i], a.ext)
	return id, name[i+1:], ok && !a.others(name[:i])
}

// names yields the names in the directory, in its own order, holding a batch of them at a time. It
// ends after an error, and with ctx.
func names(ctx context.Context, root *os.Root) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir, err := root.Open(".")
		if err == nil {
			defer dir.Close()
		}
		for err == nil {
			var batch []string
			batch, err = dir.Readdirnames(1024)
			for _, name := range batch {
				if ctx.Err() != nil {
					err = ctx.Err()
					break
				}
				if !yield(name, nil) {
					return
				}
			}
		}
		if err != io.EOF {
			yield("", fmt.Errorf("the directory cannot be listed: %w", cause(err)))
		}
	}
}

// A reader reads the session files of one directory.
type reader struct {
	a     *app
	root  *os.Root
	codec filestore.Codec
	us    int // the process's user
	owner int // of the directory, whose files may be read too
}

func (a *app) reader() (*reader, error) {
	codec, err := a.codec()
	if err != nil {
		return nil, err
	}
	root, err := a.openRoot()
	if err != nil {
		return nil, err
	}
	r := &reader{a: a, root: root, codec: codec, us: os.Geteuid(), owner: -1}
	if fi, err := root.Stat("."); err == nil {
		if uid, _, ok := owner(fi); ok {
			r.owner = uid
		}
	}
	return r, nil
}

func (r *reader) close() { r.root.Close() }

// all yields the sessions in the directory's order, the expired ones too; for one that cannot be read
// an entry without a session and the error. An error without an id ends the listing.
func (r *reader) all(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for name, err := range names(ctx, r.root) {
			if err != nil {
				yield(entry{}, err)
				return
			}
			if _, ok := r.a.idOf(name); !ok {
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
	for name, err := range names(ctx, r.root) {
		if err != nil {
			return n, err
		}
		if _, ok := r.a.idOf(name); ok {
			n++
		}
	}
	return n, nil
}

var errChanging = fmt.Errorf("%w: it is replaced or written all the time", filestore.ErrUnsafeFile)

// read reads one session file. It writes nothing and takes no lock: a file is only ever replaced whole.
func (r *reader) read(name string) (entry, error) {
	e := entry{name: name}
	e.id, _ = r.a.idOf(name)
	for range 100 { // as often as the store looks again at a file that is being replaced
		data, info, err := r.bytes(name)
		if errors.Is(err, errChanging) {
			continue
		}
		if err != nil {
			return e, err
		}
		e.info = info
		return e, r.decode(&e, data)
	}
	return e, errChanging
}

// bytes returns what is in the file, and what the file was when it was read.
func (r *reader) bytes(name string) ([]byte, fs.FileInfo, error) {
	at, err := r.root.Lstat(name)
	if err == nil {
		err = r.safe(at) // before it is opened: to open a device may be all that it waits for
	}
	if err != nil {
		return nil, nil, gone(err)
	}
	f, err := r.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, nil, cause(err)
		}
		if _, statErr := r.root.Lstat(name); statErr != nil {
			return nil, nil, gone(err)
		}
		return nil, nil, fmt.Errorf("%w (%w)", errChanging, cause(err)) // it has become something else since
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, cause(err)
	}
	if !os.SameFile(at, fi) {
		return nil, nil, errChanging
	}
	if err := r.safe(fi); err != nil {
		return nil, nil, err
	}
	data := make([]byte, fi.Size()+1)
	n, err := f.Read(data) // of a file the system gives all there is
	if err != nil && err != io.EOF {
		return nil, nil, cause(err)
	}
	after, err := f.Stat()
	if err != nil || int64(n) != fi.Size() || after.Size() != fi.Size() || !after.ModTime().Equal(fi.ModTime()) {
		return nil, nil, errChanging
	}
	return data[:n], fi, nil
}

// gone is filestore.ErrNotFound where err says that there is no such file.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return filestore.ErrNotFound
	}
	return cause(err)
}

// safe says why a file is not to be read.
func (r *reader) safe(fi fs.FileInfo) error {
	unsafe := filestore.ErrUnsafeFile
	switch m := fi.Mode(); {
	case m&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: a symbolic link", unsafe)
	case m.IsDir():
		return fmt.Errorf("%w: a directory", unsafe)
	case !m.IsRegular():
		return fmt.Errorf("%w: a device, pipe or socket", unsafe)
	}
	uid, _, known := owner(fi)
	switch n := links(fi); {
	case n == 0:
		return errChanging
	case n > 1:
		return fmt.Errorf("%w: it has %d links", unsafe, n)
	case known && r.us != 0 && uid != 0 && uid != r.us && uid != r.owner:
		return fmt.Errorf("%w: it is another user's", unsafe)
	case fi.Size() > maxSize:
		return fmt.Errorf("%w: %s", filestore.ErrTooLarge, size(fi.Size()))
	}
	return nil
}

// mode returns the mode of a session's file, which what replaces it is to have, so far as the store
// writes such; 0, the store's own, if there is none.
func mode(root *os.Root, name string) fs.FileMode {
	if fi, err := root.Lstat(name); err == nil && fi.Mode().IsRegular() && hasModes {
		return fi.Mode().Perm() | 0o600
	}
	return 0
}

// decode makes the session of a file's bytes, and dates it as the store does.
func (r *reader) decode(e *entry, data []byte) (err error) {
	if r.codec != nil {
		if data, err = r.codec.Decode(e.id, data); err != nil {
			return err
		}
	}
	sess := new(filestore.Session)
	if err := sess.UnmarshalJSON(data); err != nil {
		if r.codec == nil && encrypted(data) {
			return fmt.Errorf("%w: it is encrypted; see --secret-file and --key-file", filestore.ErrDecrypt)
		}
		return err
	}
	e.doc, e.sess = data, sess
	now, said := r.a.now(), sess.LastAccess
	if sess.LastAccess.IsZero() {
		sess.LastAccess = e.info.ModTime()
	}
	if sess.LastAccess.After(now.Add(clockSkew)) { // nobody accesses in the future
		sess.LastAccess = now
		if at := changeTime(e.info); at.Before(now) {
			sess.LastAccess = at
		}
	}
	e.lastAccess, e.ends = sess.LastAccess, sess.ExpiresAt(r.a.ttl)
	life := e.ends.Sub(e.lastAccess)
	e.expired = life <= 0 || e.ends.UnixMilli() < now.UnixMilli()
	if !r.a.ttlGiven && sess.Cookie.OriginalMaxAge == 0 && said.Equal(sess.LastAccess) && e.stays(now) && e.ends.Before(e.info.ModTime()) {
		e.ends, e.expired = e.info.ModTime(), false // by the TTL of the program that wrote it
	}
	return nil
}

// stays reports that the file's time tells of an end to come, so that no reaper removes it: the store's
// rule, as is the tolerance.
func (e *entry) stays(now time.Time) bool {
	return e.info.ModTime().After(now) && !changeTime(e.info).After(now.Add(clockSkew))
}

var envelope = regexp.MustCompile(`^(\{"sealed":|"?\{\\?"(hmac|ct|at|aad|iv|salt)\\?":)`)

// encrypted tells the envelopes of packages sealed and kruptein, to say what is missing.
func encrypted(data []byte) bool { return envelope.Match(data[:min(len(data), 64)]) }

// find returns the id that arg, whole or shortened, names in the directory.
func (r *reader) find(ctx context.Context, arg string) (string, error) {
	if _, ok := r.a.idOf(arg + r.a.ext); ok {
		if _, err := r.root.Lstat(arg + r.a.ext); err == nil {
			return arg, nil
		}
	}
	const least = 6
	prefix := strings.TrimSuffix(arg, ellipsis)
	if len(prefix) < least {
		return "", r.missing(arg)
	}
	found := ""
	for name, err := range names(ctx, r.root) {
		if err != nil {
			return "", err
		}
		if id, ok := r.a.idOf(name); ok && strings.HasPrefix(id, prefix) && id != found {
			if found != "" {
				return "", fmt.Errorf("%s names more than one session; give more of the id", show(r.a.id(prefix)))
			}
			found = id
		}
	}
	if found == "" {
		return "", r.missing(arg)
	}
	return found, nil
}

func (r *reader) missing(arg string) error {
	return wrong("%w: %s", filestore.ErrNotFound, show(r.a.id(arg)))
}

// readOnlyHere tells an operator why a directory cannot be changed.
func readOnlyHere(err error) error {
	if errors.Is(err, fs.ErrPermission) && runtime.GOOS != "windows" {
		return fmt.Errorf("%w; run as the directory's owner", bare(err))
	}
	return bare(err)
}
