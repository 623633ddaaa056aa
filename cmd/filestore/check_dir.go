package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
)

// What check says of the directory itself and of .locks, and what --fix does.

// directory looks at the directory and what it is in.
func (c *checker) directory() {
	if !disk.Modes {
		return
	}
	c.parents(c.dir.Path())
	mode := c.dir.Info().Mode
	switch write := mode&0o022 != 0; {
	case write && mode&fs.ModeSticky != 0:
		c.find(othersAdd, c.a.dir, mode.Perm())
	case write:
		c.find(othersWrite, c.a.dir, mode.Perm())
	case mode&0o055 != 0:
		c.find(othersEnter, c.a.dir, mode.Perm())
	}
	if us := os.Geteuid(); us != 0 && us != c.owner {
		c.find(notYours, c.a.dir, c.owner, us)
	}
}

// parents finds directories in which somebody could put another one in the place of path.
func (c *checker) parents(path string) {
	for dir := filepath.Dir(path); dir != path; path, dir = dir, filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err == nil && fi.Mode()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			c.find(openParent, dir, fi.Mode().Perm())
		}
	}
}

// inPlace looks whether --dir still names the directory.
func (c *checker) inPlace() {
	here, err := c.dir.Lstat(".")
	there, statErr := os.Stat(c.a.dir)
	if err != nil || statErr != nil || !os.SameFile(here, there) {
		c.find(replaced, c.a.dir)
	}
}

var statVolume = disk.VolumeOf // tests have another

func (c *checker) volume() {
	v, err := statVolume(c.dir.Path())
	if err != nil {
		return // not every system tells
	}
	switch v.Network {
	case "":
	case "FUSE":
		c.find(onFUSE, c.a.dir)
	default:
		c.find(onNetwork, c.a.dir, v.Network)
	}
	c.room(lowSpace, noSpace, v.FreeBlocks, v.Blocks, size(int64(v.FreeBlocks*v.BlockSize)))
	c.room(lowInodes, noInodes, v.FreeInodes, v.Inodes, fmt.Sprint(v.FreeInodes))
}

func (c *checker) room(low, none trouble, free, all uint64, text string) {
	if all == 0 {
		return
	}
	percent := float64(free) * 100 / float64(all)
	if percent < 1 {
		c.find(none, c.a.dir, percent, text)
	} else if percent < 5 {
		c.find(low, c.a.dir, percent, text)
	}
}

// flushes says how often a write waits for the disk.
func (c *checker) flushes() {
	switch {
	case !disk.Modes: // Windows has no flush for directories
	case c.dir.Unjournalled():
		c.say(noJournal, c.a.dir)
	case c.dir.Ordered():
		c.say(oneFlush, c.a.dir)
	default:
		c.say(twoFlushes, c.a.dir)
	}
}

// lockFiles looks at .locks.
func (c *checker) lockFiles() {
	i, err := c.dir.Stat(format.LockDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.find(noLocks, format.LockDir)
		return
	case err != nil:
		c.find(locksFail, format.LockDir, cause(err))
		return
	case !i.Mode.IsDir():
		c.find(locksNoDir, format.LockDir, disk.Kind(i.Mode))
		return
	}
	c.lockOwner(format.LockDir, i)
	c.lockMode(c.dir, format.LockDir, format.LockDir, i, 0o700)
	locks, err := c.dir.Sub(format.LockDir)
	switch {
	case errors.Is(err, disk.ErrUnsafe):
		c.find(locksReplaced, format.LockDir)
		return
	case err != nil:
		c.find(locksClosed, format.LockDir, cause(err))
		return
	}
	defer locks.Close()
	missing := make(map[string]bool)
	for i := range format.Stripes {
		missing[format.LockFile(i)] = true
	}
	for name, err := range locks.Names() {
		if err != nil {
			c.find(locksUnlisted, format.LockDir, cause(err))
			return
		}
		path := format.LockDir + "/" + name
		c.inLocks(locks, name, path, missing[path])
		delete(missing, path)
	}
	if n := len(missing); n > 0 {
		c.find(locksFewer, format.LockDir, plural(n, "lock file"), format.Stripes)
	}
}

// inLocks looks at the file name in .locks. isLock says that the name is a lock file's.
func (c *checker) inLocks(locks *disk.Dir, name, path string, isLock bool) {
	i, err := locks.Stat(name)
	ext := format.Extension(strings.TrimPrefix(name, "ext"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		c.find(locksFail, path, cause(err))
		return
	case ext.Valid() && ext.Mark() == path && i.Mode.IsRegular():
		return
	case !isLock:
		c.find(lockExtra, path)
		return
	case !i.Mode.IsRegular():
		c.find(lockNoFile, path, disk.Kind(i.Mode))
		return
	case i.Links > 1:
		c.linkedLocks++
		c.linkedName = path
	case i.Size > 0:
		c.find(lockFull, path, size(i.Size))
	}
	c.lockOwner(path, i)
	c.lockMode(locks, name, path, i, 0o600)
}

func (c *checker) lockOwner(path string, i disk.Info) {
	if i.UID != c.owner {
		c.find(lockStrange, path, i.UID, c.owner)
	}
}

// lockMode looks at the mode of name in dir, which is path in the session directory.
func (c *checker) lockMode(dir *disk.Dir, name, path string, i disk.Info, want fs.FileMode) {
	is := i.Mode.Perm()
	if !disk.Modes || is == want {
		return
	}
	switch {
	case c.repairMode(lockOpen.kind, dir, name, path, i, want):
	case is&0o077 == 0:
		c.find(lockShut, path, is)
	default:
		c.find(lockOpen, path, is)
	}
}

// repair does what --fix is for, and reports whether it has; a note says so.
func (c *checker) repair(kind, name, done string, do func() error) bool {
	if !c.fix {
		return false
	}
	if err := do(); err != nil {
		c.find(trouble{severityNote, kind, "not fixed: %v", ""}, name, cause(err))
		return false
	}
	c.find(trouble{severityNote, kind, "fixed: %s", ""}, name, done)
	return true
}

// repairMode is repair for the mode of name in dir; path is its path in the session directory.
func (c *checker) repairMode(kind string, dir *disk.Dir, name, path string, i disk.Info, want fs.FileMode) bool {
	done := fmt.Sprintf("mode set to %04o, it was %04o", want, i.Mode.Perm())
	return c.repair(kind, path, done, func() error { return c.setMode(dir, name, i, want) })
}

// errOthers says that a file is not one that --fix may change.
var errOthers = errors.New("it is another user's")

func (c *checker) mine(i disk.Info) bool {
	us := os.Geteuid()
	return i.UID < 0 || i.UID == us || us == 0 && i.UID == c.owner
}

// setMode changes the mode of name, if it still is the file of i.
func (c *checker) setMode(dir *disk.Dir, name string, i disk.Info, mode fs.FileMode) error {
	if !c.mine(i) {
		return errOthers
	}
	if i.UID != c.owner { // its mode may be what lets the owner read it
		return errors.New("it is not the directory owner's")
	}
	return dir.SetMode(name, i.Version, mode)
}

// remove removes a temporary file, if it still is the file of i.
func (c *checker) remove(name string, i disk.Info) error {
	now, err := c.dir.Stat(name)
	switch {
	case err != nil:
		return err
	case now.Version != i.Version || !now.Mode.IsRegular():
		return disk.ErrChanging
	case !c.mine(now):
		return errOthers
	}
	return c.dir.Remove(name)
}
