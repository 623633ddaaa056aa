package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// What check says of the directory itself, of .locks, and what --fix does.

const (
	lockDir = ".locks" // as the store's
	stripes = 64
)

// directory looks at the directory and what it is in.
func (c *checker) directory() {
	if path, err := filepath.Abs(c.a.dir); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			c.parents(real)
		}
	}
	mode := c.info.Mode()
	if !hasModes {
		return
	}
	text := fmt.Sprintf("%04o", mode.Perm())
	switch write := mode&0o022 != 0; {
	case write && mode&fs.ModeSticky != 0:
		c.warn("directory", c.a.dir, "chmod 700", "others can put files into it (%s, sticky: they cannot remove yours)", text)
	case write:
		c.errorf("directory", c.a.dir, "chmod 700; then look through the files, as others could make and remove sessions", "others can write to it (%s)", text)
	case mode&0o055 != 0:
		c.warn("directory", c.a.dir, "chmod 700; run the programs that share it as one user", "others can list or enter it (%s), and the names of the files are the sessions' ids", text)
	}
	if uid, _, ok := owner(c.info); ok && uid != os.Geteuid() && os.Geteuid() != 0 {
		c.note("owner", c.a.dir, "To see all, run check as that user", "it is user %d's, and you are user %d", uid, os.Geteuid())
	}
}

// parents looks who could put another directory in the place of path.
func (c *checker) parents(path string) {
	for dir := filepath.Dir(path); hasModes && dir != path; path, dir = dir, filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err == nil && fi.Mode()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			c.errorf("parent", dir, "chmod o-w", "everybody can write to it (%04o), and so put another directory in the place of the sessions'", fi.Mode().Perm())
		}
	}
}

// inPlace looks whether the directory still has its name.
func (c *checker) inPlace() {
	fi, err := os.Stat(c.a.dir)
	if err == nil && os.SameFile(fi, c.info) {
		return
	}
	c.errorf("replaced", c.a.dir, "Restart the programs that have opened the old one, and run check again", "while it was checked the name came to lead elsewhere")
}

// A volume is the file system that the directory is on.
type volume struct {
	blocks, freeBlocks, blockSize uint64
	inodes, freeInodes            uint64 // 0, 0: it does not count them
	network                       string // the kind, if other machines may write to it
}

var statVolume = volumeOf // tests have another

func (c *checker) volume() {
	v, err := statVolume(c.dir)
	if err != nil {
		return // not every system tells
	}
	switch v.network {
	case "":
	case "FUSE":
		c.note("network", c.a.dir, "If other machines write to it, move the sessions to a local disk", "its file system is made by a program (FUSE); its locks may not hold")
	default:
		c.warn("network", c.a.dir, "Move the sessions to a local disk", "it is on a network file system (%s), whose locks are not trusted", v.network)
	}
	c.room("space", "Make room; a session cannot be written without", v.freeBlocks, v.blocks, size(int64(v.freeBlocks*v.blockSize)))
	c.room("inodes", "Remove files, or reap more often; no session can be written without", v.freeInodes, v.inodes, fmt.Sprint(v.freeInodes))
}

func (c *checker) room(kind, advice string, free, all uint64, text string) {
	if all == 0 {
		return
	}
	percent := float64(free) * 100 / float64(all)
	severity := severityWarning
	if percent < 1 {
		severity = severityError
	}
	if percent < 5 {
		what := map[string]string{"space": "of the file system's space", "inodes": "of the file system's inodes"}[kind]
		c.find(severity, kind, c.a.dir, fmt.Sprintf("only %.1f %% %s are free (%s)", percent, what, text), advice)
	}
}

const remakeLocks = "Stop the programs, remove it (rm -r .locks), and start them: they make it anew"

// lockFiles looks at .locks.
func (c *checker) lockFiles() {
	before, err := c.r.root.Lstat(lockDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.note("locks", lockDir, "Nothing to do: filestore makes it at Open, Node needs none", "there is no .locks, so no Go program has written here")
		return
	case err != nil:
		c.errorf("locks", lockDir, "Run check as the directory's owner", "%v", cause(err))
		return
	case !before.IsDir():
		kind := kindOf(before)
		if before.Mode().IsRegular() {
			kind = "a file"
		}
		c.errorf("locks", lockDir, remakeLocks, "it is %s: no Go program can open the directory", kind)
		return
	}
	c.lockOwner(lockDir, before)
	c.lockMode(c.r.root, lockDir, lockDir, before, 0o700)
	root, err := c.r.root.OpenRoot(lockDir)
	if err != nil {
		c.errorf("locks", lockDir, "Run check as the directory's owner", "it cannot be opened: %v", cause(err))
		return
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		c.errorf("locks", lockDir, "Run check as the directory's owner", "it cannot be listed: %v", cause(err))
		return
	}
	defer dir.Close()
	if fi, err := dir.Stat(); err != nil || !os.SameFile(fi, before) {
		c.errorf("locks", lockDir, "Look who does that, and run check again", "it was replaced while it was checked")
		return
	}
	c.locks = true
	found := 0
	for {
		batch, err := dir.Readdirnames(1024)
		for _, name := range batch {
			if lockName.MatchString(name) {
				found++
			}
			c.lockFile(root, name)
		}
		if err != nil || c.err != nil {
			break
		}
	}
	if missing := stripes - found; missing > 0 {
		c.note("locks", lockDir, "Nothing to do: they are made anew when they are needed", "%s of %d missing", plural(missing, "lock file"), stripes)
	}
}

func (c *checker) lockFile(root *os.Root, name string) {
	shown := lockDir + "/" + name
	fi, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		c.errorf("locks", shown, "Run check as the directory's owner", "%v", cause(err))
		return
	case strings.HasPrefix(name, "ext") && extension.MatchString(name[3:]) && fi.Mode().IsRegular():
		return // see longerExtensions
	case !lockName.MatchString(name):
		c.note("locks", shown, "If it is not needed, remove it", "it is no lock file")
		return
	case !fi.Mode().IsRegular():
		c.errorf("locks", shown, "Remove it: it is made anew", "it is %s: a 64th of the sessions cannot be written", kindOf(fi))
		return
	case links(fi) > 1:
		c.linkedLocks++
		c.linkedName = shown
	case fi.Size() > 0:
		c.note("locks", shown, "Nothing to do; programs do not read it", "it holds %s, and a lock file holds nothing", size(fi.Size()))
	}
	c.lockOwner(shown, fi)
	c.lockMode(root, name, shown, fi, 0o600)
}

func (c *checker) lockOwner(shown string, fi fs.FileInfo) {
	if uid, _, ok := owner(fi); ok && uid != c.r.owner {
		c.errorf("locks", shown, fmt.Sprintf("chown %d", c.r.owner), "it is user %d's, the directory is user %d's, whose programs cannot lock", uid, c.r.owner)
	}
}

func (c *checker) lockMode(root *os.Root, name, shown string, fi fs.FileInfo, want fs.FileMode) {
	is := fi.Mode().Perm()
	if !hasModes || is == want {
		return
	}
	text := fmt.Sprintf("%04o", is)
	if c.repair("locks", shown, fmt.Sprintf("mode set to %04o, it was %s", want, text), func() error { return c.setMode(root, name, fi, want) }) {
		return
	}
	why := "others who can open it can hold the lock, and stop every writer"
	if is&0o077 == 0 {
		why = "its owner cannot use it"
	}
	c.warn("locks", shown, fmt.Sprintf("chmod %o, or check --fix", want), "its mode is %s: %s", text, why)
}

// repair does what --fix is for and reports whether it has; a note says so.
func (c *checker) repair(kind, name, done string, do func() error) bool {
	if !c.fix {
		return false
	}
	if err := do(); err != nil {
		c.note(kind, name, "", "not fixed: %v", cause(err))
		return false
	}
	c.note(kind, name, "", "fixed: %s", done)
	return true
}

// mine reports whether a file is one that --fix may change.
func (c *checker) mine(fi fs.FileInfo) bool {
	uid, _, ok := owner(fi)
	us := os.Geteuid()
	return !ok || uid == us || us == 0 && uid == c.r.owner
}

// owners reports that the file is the directory owner's.
func (c *checker) owners(fi fs.FileInfo) bool {
	uid, _, ok := owner(fi)
	return !ok || uid == c.r.owner
}

var errOthers = errors.New("it is another user's")

// setMode changes the mode of a file, through its descriptor: a name could come to lead elsewhere.
func (c *checker) setMode(root *os.Root, name string, before fs.FileInfo, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(fi, before) || !fi.IsDir() && (!fi.Mode().IsRegular() || links(fi) != 1):
		return errChanging
	case !c.mine(fi):
		return errOthers
	case c.r.owner >= 0 && !c.owners(fi): // whom the mode lets read it, maybe
		return errors.New("it is not the directory owner's")
	}
	return f.Chmod(mode)
}

// remove removes a temporary file.
func (c *checker) remove(name string, before fs.FileInfo) error {
	fi, err := c.r.root.Lstat(name)
	switch {
	case err != nil:
		return err
	case !os.SameFile(fi, before) || !fi.Mode().IsRegular():
		return errChanging
	case !c.mine(fi):
		return errOthers
	}
	return unlink(c.dir, c.r.root, name)
}

// underLock calls do while no writer of the stripe can be at work.
func (c *checker) underLock(stripe string, do func() error) error {
	name := lockDir + "/" + stripe
	before, err := c.r.root.Lstat(name)
	if err != nil || !c.locks || !before.Mode().IsRegular() {
		return errors.New("its lock file is missing or no file; the next writer makes it anew")
	}
	lock := flock.New(filepath.Join(c.a.dir, lockDir, stripe), flock.SetFlag(os.O_RDONLY|openFlags))
	ok, err := lock.TryLock()
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("its lock is held, its writer may live")
	}
	defer lock.Unlock()
	fi, err := lock.Stat()
	now, nowErr := c.r.root.Lstat(name)
	if err != nil || nowErr != nil || !os.SameFile(fi, before) || !os.SameFile(now, before) {
		return errChanging // the lock is another directory's, or not the one that a writer would take
	}
	return do()
}
