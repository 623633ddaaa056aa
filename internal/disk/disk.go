// Package disk is one opened directory: a safe read of a file, and its replacement as a whole. It
// follows no link, waits for no device, and reaches nothing outside the directory. It knows nothing of
// sessions. All system calls of the store are here, but for those of the lock and the watch.
//
// A name is one component, which the caller has checked; only Lstat, Same, MakeDir and MakeFile also
// take one below a directory that the caller has made. A Dir is safe for concurrent use. Beside Close and
// after it only Path, Info, InPlace, Names and Lstat may be called.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	_ "github.com/sessionfilestore/filestore/internal/supported"
)

var (
	// ErrUnsafe is about an object that is not a file to read, or a directory in the place of a file.
	ErrUnsafe = errors.New("unsafe file")

	// ErrTooLarge is about a file above Read's limit.
	ErrTooLarge = errors.New("too large")

	// ErrChanging says that a file was not the one any more that had been looked at.
	ErrChanging = fmt.Errorf("%w: it is replaced or written all the time", ErrUnsafe)

	// ErrGone says that the directory was deleted.
	ErrGone = fmt.Errorf("the session directory was deleted: %w", fs.ErrNotExist)
)

// Options are a Dir's settings.
type Options struct {
	ReadOnly bool // Open and Reopen make nothing, and Read also takes the files of the directory's owner
	NoSync   bool // flush nothing

	// Flushes, if not nil, counts the flushes of files and of the directory that Create and Sync have waited for, also
	// those that failed.
	Flushes *atomic.Int64
}

// A Dir is an open directory. All access goes through it, so renaming or replacing its path changes
// nothing.
type Dir struct {
	path string // absolute and free of symbolic links, as it was when it was opened
	opts Options

	root *os.Root // the second wall behind the check of names
	file *os.File // the same directory
	fd   int      // and file's descriptor
	info Info     // of the directory, when it was opened

	exchanges bool // see Rename
	ordered   bool // see Create
}

// Open opens the directory at path. Unless o.ReadOnly is set it makes the directory, with mode 0700,
// if it is missing. If path is a symbolic link it is resolved now, once.
func Open(path string, o Options) (*Dir, error) {
	if !o.ReadOnly {
		if err := makeAll(path, o.NoSync); err != nil {
			return nil, err
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	return open(path, o, nil)
}

// open opens the directory at path, and fails with ErrGone if that is not want, which may be nil.
func open(path string, o Options, want fs.FileInfo) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return newDir(root, path, o, want)
}

// newDir takes over root, and closes it if it fails.
func newDir(root *os.Root, path string, o Options, want fs.FileInfo) (_ *Dir, err error) {
	d := &Dir{path: path, opts: o, root: root}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.file, err = d.root.Open("."); err != nil {
		return nil, err
	}
	d.fd = int(d.file.Fd())
	fi, err := d.file.Stat()
	if err != nil {
		return nil, err
	}
	if want != nil && !os.SameFile(fi, want) {
		return nil, ErrGone // a link was faster
	}
	if d.info, err = d.Stat("."); err != nil {
		return nil, err
	}
	d.exchanges = o.NoSync && d.flushesRename()
	d.ordered = !o.NoSync && !o.ReadOnly && d.Ordered()
	return d, nil
}

// Reopen opens the directory that has the path of d, which was deleted. It makes one as Open does if
// there is none, for the same owner. A link, or another user's directory, it refuses with ErrUnsafe.
// With ErrGone it can be called again.
func (d *Dir) Reopen() (*Dir, error) {
	made := false
	fi, err := os.Lstat(d.path)
	if errors.Is(err, fs.ErrNotExist) && !d.opts.ReadOnly {
		if err := makeAll(d.path, d.opts.NoSync); err != nil {
			return nil, err
		}
		made = true
		if fi, err = os.Lstat(d.path); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrGone
		}
	}
	if err != nil {
		return nil, err
	}
	// Whoever could delete the directory could put one of their own there.
	if uid := owner(fi); !fi.IsDir() || uid != os.Geteuid() && uid != 0 && uid != d.info.UID {
		return nil, fmt.Errorf("the session directory was deleted: %w: at its path is something else, or another user's", ErrUnsafe)
	}
	next, err := open(d.path, d.opts, fi)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	if made && d.gives() {
		if err := next.file.Chown(d.info.UID, d.info.GID); err != nil {
			next.Close()
			return nil, err
		}
		next.info.UID, next.info.GID = d.info.UID, d.info.GID
	}
	return next, nil
}

// makeAll makes the directory path, and those that it is in, if they are missing, and flushes the new
// entries.
func makeAll(path string, noSync bool) error {
	_, err := os.Stat(path)
	parent := filepath.Dir(filepath.Clean(path))
	if !errors.Is(err, fs.ErrNotExist) || path == "" || parent == filepath.Clean(path) { // stop at the root
		return err
	}
	if err := makeAll(parent, noSync); err != nil {
		return err
	}
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody else just made it
	}
	if err != nil {
		return err
	}
	// The umask may have taken more. Only then: by this name it could be another's by now.
	if fi, err := os.Lstat(path); err == nil && fi.IsDir() && fi.Mode().Perm() != 0o700 {
		if err := os.Chmod(path, 0o700); err != nil {
			return err
		}
	}
	if noSync {
		return nil
	}
	f, err := os.Open(parent)
	if errors.Is(err, fs.ErrPermission) {
		return nil // without permission to open the parent we cannot flush it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return syncDir(f)
}

// Close releases the directory.
func (d *Dir) Close() error {
	var err error
	if d.file != nil {
		err = d.file.Close()
	}
	return errors.Join(err, d.root.Close())
}

// Sub opens the directory name in d. Anything else that has the name is ErrUnsafe.
func (d *Dir) Sub(name string) (*Dir, error) {
	fi, err := d.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, notRegular(fi.Mode())
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	sub, err := newDir(root, filepath.Join(d.path, name), d.opts, fi)
	if errors.Is(err, ErrGone) {
		return nil, ErrChanging
	}
	return sub, err
}

// Path returns the directory's path, absolute and free of symbolic links, as it was when it was opened.
func (d *Dir) Path() string { return d.path }

// Info describes the directory as it was when it was opened.
func (d *Dir) Info() Info { return d.info }

// InPlace reports whether the directory still has its path, as far as this process may look.
func (d *Dir) InPlace() bool {
	here, err := d.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(d.path)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	return os.SameFile(here, there)
}

// PathNow returns a path to the directory that holds wherever it was moved, false if the system has
// none.
func (d *Dir) PathNow() (string, bool) {
	self := fmt.Sprintf("/proc/self/fd/%d", d.fd)
	fi, err := os.Stat(self)
	here, hereErr := d.file.Stat()
	return self, err == nil && hereErr == nil && os.SameFile(fi, here)
}

// Names yields the names in the directory, in its own order, holding a batch of them at a time. It
// ends after an error. A directory that was deleted, or is closed meanwhile, has none.
func (d *Dir) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir, err := d.root.Open(".") // of its own: a descriptor has one position
		if err == nil {
			defer dir.Close()
		}
		for err == nil {
			var batch []string
			batch, err = dir.Readdirnames(1024) // ReadDir would look at each file
			for _, name := range batch {
				if !yield(name, nil) {
					return
				}
			}
		}
		if err != io.EOF && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, fs.ErrClosed) {
			yield("", err)
		}
	}
}

// Read returns the contents of name, and what the file was when they were read: one complete version
// of a regular file that has one link, is owned by this process's user or by root (or is read by root),
// and has at most limit bytes. Other objects are not even opened, and are ErrUnsafe or ErrTooLarge.
// Read takes no lock: a name that is replaced while it looks is read again.
func (d *Dir) Read(name string, limit int64) (data []byte, info Info, err error) {
	now := time.Now()    // before the first look, to be on the safe side
	for i := range 100 { // to lose this race a hundred times in a row is not load but an attack
		if i >= 10 { // whoever replaces or removes it is half-way, and waits for the journal or a processor
			time.Sleep(min(time.Duration(i-9), 10) * time.Millisecond)
		}
		if info, err = d.Stat(name); err != nil {
			return nil, info, err
		}
		if err = d.check(info, limit); err == nil {
			data, info, err = d.read(name, limit)
		}
		if err != ErrChanging {
			info.Settled = info.Inode != 0 && info.settledAt(now)
			return data, info, err
		}
	}
	return nil, info, ErrChanging
}

// check says why a file is not to be read.
func (d *Dir) check(i Info, limit int64) error {
	us := os.Geteuid()
	switch {
	case i.Links == 0:
		return ErrChanging
	case !i.Mode.IsRegular():
		return notRegular(i.Mode)
	case i.Links > 1:
		return fmt.Errorf("%w: it has %d links", ErrUnsafe, i.Links)
	case i.UID != 0 && i.UID != us && us != 0 && !(d.opts.ReadOnly && i.UID == d.info.UID):
		return fmt.Errorf("%w: it is another user's", ErrUnsafe)
	case i.Size > limit:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, i.Size)
	}
	return nil
}

func notRegular(mode fs.FileMode) error { return fmt.Errorf("%w: %s", ErrUnsafe, Kind(mode)) }

// Kind says what an object of the mode is: "a file", "a directory", and so on.
func Kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// gives reports whether what is made goes to the directory's owner: if we are root, and they are not.
func (d *Dir) gives() bool {
	return !d.opts.ReadOnly && os.Geteuid() == 0 && (d.info.UID != 0 || d.info.GID != os.Getegid())
}

// Create makes the file name with these contents, mode and mtime. It fails with fs.ErrExist if the name is
// taken, and with ErrGone if d was deleted; after another error nothing is left. The bytes are flushed, or, if the file system is Ordered,
// written out: no rename that comes later can be committed before them.
func (d *Dir) Create(name string, data []byte, mode fs.FileMode, mtime time.Time) error {
	made, err := d.create(name, data, mode, mtime)
	switch {
	case made && err != nil: // also after a failed flush: the kernel may have dropped the pages
		d.unlink(name)
	case errors.Is(err, fs.ErrNotExist): // some file systems show it by nothing else
		return ErrGone
	}
	return err
}

// CreateTemp is Create under a name that the function name makes, and returns it. The name must be
// random: if it is taken, somebody planted a file, and CreateTemp tries another one.
func (d *Dir) CreateTemp(name func() string, data []byte, mode fs.FileMode, mtime time.Time) (temp string, err error) {
	for range 3 { // the next one is free, unless somebody knows it
		temp = name()
		if err = d.Create(temp, data, mode, mtime); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return temp, err
}

// Rename gives the file from the name to, in one step for every reader. It does not flush: see Sync.
// A directory that has the name to is ErrUnsafe.
//
// If nothing is flushed the two exchange their names on ext4, which over an existing file would flush
// the new one first, and that takes longer than all else. Then from names the old contents until they
// are unlinked: if we crash in between, they are a temporary file like any other orphan.
func (d *Dir) Rename(from, to string) error {
	if d.exchanges {
		if i, err := d.Stat(to); err == nil && !i.Mode.IsDir() && d.exchange(from, to) == nil {
			return d.unlinkExchanged(from, to)
		}
	}
	if err := d.rename(from, to); err != nil {
		return d.explain(to, err)
	}
	return nil
}

func (d *Dir) unlinkExchanged(from, to string) error {
	if d.unlink(from) == nil {
		return nil
	}
	if i, err := d.Stat(from); err == nil && i.Mode.IsDir() { // made since we looked: put it back
		d.exchange(from, to)
		return notRegular(i.Mode)
	}
	return nil
}

// Remove unlinks name, whatever it is, unless it is a directory, which is ErrUnsafe. It does not flush:
// see Sync.
func (d *Dir) Remove(name string) error {
	if err := d.unlink(name); err != nil {
		return d.explain(name, err)
	}
	return nil
}

// explain returns err, from a failed rename or unlink of name, or says that name is a directory.
func (d *Dir) explain(name string, err error) error {
	if i, statErr := d.Stat(name); statErr == nil && i.Mode.IsDir() {
		return notRegular(i.Mode)
	}
	return err
}

// Sync flushes the directory: without it a power cut can undo a rename or removal that has returned.
func (d *Dir) Sync() error {
	if d.opts.NoSync {
		return nil
	}
	d.countFlush()
	return syncDir(d.file)
}

func (d *Dir) countFlush() {
	if d.opts.Flushes != nil {
		d.opts.Flushes.Add(1)
	}
}

// MakeDir makes the directory name with mode 0700 if there is none. It fails with ErrGone if d was
// deleted: some file systems show that by nothing else.
func (d *Dir) MakeDir(name string) error {
	switch err := d.root.Mkdir(name, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, syscall.ENOENT):
		return ErrGone
	case err != nil:
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != io.EOF {
		return nil // it is not what we made
	}
	return d.adopt(f, 0o700)
}

// MakeFile makes the empty file name with mode 0600, unless the name is taken.
func (d *Dir) MakeFile(name string) error {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return d.adopt(f, 0o600)
}

// adopt gives what we made the mode, whatever the umask, and the directory's owner if we are root. It
// uses the descriptor, not the name: the owner could have put a link to a file of root's there.
func (d *Dir) adopt(f *os.File, mode fs.FileMode) error {
	if d.gives() {
		if err := f.Chown(d.info.UID, d.info.GID); err != nil {
			return err
		}
	}
	if !Modes {
		return nil
	}
	return f.Chmod(mode)
}
