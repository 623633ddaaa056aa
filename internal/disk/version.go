package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"time"
)

// A Version tells the states of one file name from each other. Every change of a file changes its
// ctime or, if another file takes the name, the inode; but see Info.Settled.
type Version struct {
	Inode        uint64 // 0 if the system does not tell
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

// ModTime returns v.Mtime as a time.
func (v Version) ModTime() time.Time { return time.Unix(0, v.Mtime) }

// ChangeTime returns v.Ctime as a time: that of the file's last change, which nobody can set. (A program can on
// Windows, if it means to.)
func (v Version) ChangeTime() time.Time { return time.Unix(0, v.Ctime) }

// Info is what the system tells of a file.
type Info struct {
	Version
	Mode     fs.FileMode // the type and the permissions
	Links    uint64
	UID, GID int // -1 if the system does not tell

	// Settled says, of a file that was read, that no later change can show the same Version.
	Settled bool
}

const (
	// File systems stamp with a clock that ticks every few milliseconds, and use inodes again at
	// once: a change soon after the last may show the same version. A file is settled only if it was
	// read later than that (git's rule for its index).
	settled = 20 * time.Millisecond

	// Some stamp in whole seconds, or in two.
	settledCoarse = 3 * time.Second
)

func (v Version) settledAt(now time.Time) bool {
	wait := settled
	if v.Ctime%int64(time.Second) == 0 {
		wait = settledCoarse
	}
	return now.Sub(v.ChangeTime()) > wait
}

// A Seen is a version of a file that can be recognized later. The zero Seen stands for no file.
type Seen struct {
	Version
	data []byte // of a version that is not settled
}

// Seen returns the version that Read has returned with data.
func (i Info) Seen(data []byte) Seen {
	if i.Settled {
		data = nil
	}
	return Seen{i.Version, data}
}

// Still reports whether name still holds what was seen there. If the version alone cannot tell, it compares
// the bytes.
func (d *Dir) Still(name string, seen Seen) (bool, error) {
	i, err := d.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return seen.Version == Version{}, nil
	}
	if err != nil || i.Version != seen.Version || seen.data == nil {
		return err == nil && i.Version == seen.Version, err
	}
	data, _, err := d.read(name, i.Size) // once: its caller holds a lock
	if err == ErrChanging || errors.Is(err, ErrTooLarge) {
		return false, nil
	}
	return err == nil && bytes.Equal(data, seen.data), err
}
