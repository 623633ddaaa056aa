package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
)

// A bare is the limit: the system calls that no store can do without, and nothing else. It works on the
// session files of one directory, in one goroutine.
type bare struct {
	path string
	fd   int
	data []byte // the contents of a session file
	buf  []byte
	temp int

	ordered bool // see disk.Dir.Ordered

	// statCopy uses these: a session, its values one after another, and where each ends.
	sess, out *filestore.Session
	names     []string
	values    string
	ends      []int
}

func openBare(dir string) (*bare, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &bare{path: dir, fd: fd, data: document(values(*payload)), buf: make([]byte, 64<<10)}
	if b.ordered, err = ordered(dir); err != nil {
		b.close()
		return nil, err
	}
	b.sess = session(values(*payload))
	for name, raw := range b.sess.Values {
		b.names, b.values = append(b.names, name), b.values+string(raw)
		b.ends = append(b.ends, len(b.values))
	}
	return b, nil
}

// ordered asks the store's own code, so that the limit makes the calls that the store makes.
func ordered(dir string) (bool, error) {
	d, err := disk.Open(dir, disk.Options{ReadOnly: true})
	if err != nil {
		return false, err
	}
	defer d.Close()
	return d.Ordered(), nil
}

// openLimit makes a contender of the calls that write. set puts the file of a session in place.
func openLimit(set func(*bare, string) error, flush bool) func(*env) (*store, error) {
	return func(e *env) (*store, error) {
		b, err := openBare(e.shared)
		if err != nil {
			return nil, err
		}
		return &store{
			set:   func(id string) error { return set(b, id) },
			touch: b.rewrite,
			update: func(id string) error {
				if err := b.read(id); err != nil {
					return err
				}
				return set(b, id)
			},
			destroy: func(id string) error {
				err := b.unlink(id)
				if err == nil && flush {
					err = unix.Fsync(b.fd)
				}
				return err
			},
			reap:  b.reap,
			close: b.close,
		}, nil
	}
}

func (b *bare) close() { unix.Close(b.fd) }

func (b *bare) stat(id string) error {
	var st unix.Stat_t
	return unix.Fstatat(b.fd, id+".json", &st, unix.AT_SYMLINK_NOFOLLOW)
}

// statCopy also makes what a caller owns: a session, and values with their own bytes.
func (b *bare) statCopy(id string) error {
	sess := new(filestore.Session)
	sess.Cookie, sess.LastAccess = b.sess.Cookie, b.sess.LastAccess
	sess.Values = make(map[string]json.RawMessage, len(b.names))
	all, from := []byte(b.values), 0
	for i, name := range b.names {
		sess.Values[name] = all[from:b.ends[i]:b.ends[i]]
		from = b.ends[i]
	}
	b.out = sess
	return b.stat(id)
}

func (b *bare) missing(id string) error {
	if err := b.stat(id); err != unix.ENOENT {
		return fmt.Errorf("fstatat of a missing file: %v", err)
	}
	return nil
}

func (b *bare) read(id string) error {
	_, err := b.parse(id + ".json")
	return err
}

func (b *bare) parse(name string) (doc map[string]json.RawMessage, err error) {
	fd, err := unix.Openat(b.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, b.buf)
	unix.Close(fd)
	if err == nil {
		err = json.Unmarshal(b.buf[:n], &doc)
	}
	return doc, err
}

// write makes the temporary file, which the other methods put in place. With flush no rename that comes later
// can be committed before its bytes.
func (b *bare) write(flush bool) (name string, err error) {
	b.temp++
	name = fmt.Sprintf(".bench-%d~", b.temp)
	fd, err := unix.Openat(b.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = unix.Write(fd, b.data)
	switch {
	case err == nil && flush && b.ordered:
		const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		err = unix.SyncFileRange(fd, 0, 0, all)
	case err == nil && flush:
		err = unix.Fsync(fd)
	}
	return name, errors.Join(err, unix.Close(fd))
}

func (b *bare) rename(id string) error { return b.replace(id, false) }

// rewrite is what a Touch cannot do without: no power cut may find the name with half of the bytes.
func (b *bare) rewrite(id string) error { return b.replace(id, true) }

func (b *bare) replace(id string, flush bool) error {
	name, err := b.write(flush)
	if err != nil {
		return err
	}
	return unix.Renameat(b.fd, name, b.fd, id+".json")
}

// exchange is rename for a file system that would flush the new file when it replaces an old one.
func (b *bare) exchange(id string) error {
	name, err := b.write(false)
	if err != nil {
		return err
	}
	if err := unix.Renameat2(b.fd, name, b.fd, id+".json", unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return unix.Unlinkat(b.fd, name, 0)
}

func (b *bare) flush(id string) error {
	if err := b.rewrite(id); err != nil {
		return err
	}
	return unix.Fsync(b.fd)
}

func (b *bare) unlink(id string) error { return unix.Unlinkat(b.fd, id+".json", 0) }

// walk calls fn for the name of each session file.
func (b *bare) walk(fn func(name string) error) error {
	dir, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		if len(entries) == 0 {
			return nil // at the end err is io.EOF
		}
		for _, entry := range entries {
			if name := entry.Name(); strings.HasSuffix(name, ".json") && err == nil {
				err = fn(name)
			}
		}
		if err != nil {
			return err
		}
	}
}

// all reads every session.
func (b *bare) all() (n int, err error) {
	err = b.walk(func(name string) error {
		n++
		_, err := b.parse(name)
		return err
	})
	return n, err
}

// reap looks at each file. If its mtime has passed, reap reads it, takes a lock and unlinks it.
func (b *bare) reap() error {
	now := time.Now()
	return b.walk(func(name string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(b.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mtim.Nano() > now.UnixNano() {
			return nil
		}
		doc, err := b.parse(name)
		if err != nil {
			return err
		}
		var last int64
		if err := json.Unmarshal(doc["__lastAccess"], &last); err != nil || last > now.Add(-ttl).UnixMilli() {
			return fmt.Errorf("a session that is due has not expired: %v", err)
		}
		lock, err := unix.Openat(b.fd, ".locks/00", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(lock)
		if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		return unix.Unlinkat(b.fd, name, 0)
	})
}

// expire makes files of expired sessions, as they look a day later.
func (b *bare) expire(ids []string, data []byte) error {
	then := unix.NsecToTimespec(time.Now().Add(-ttl).UnixNano())
	for _, id := range ids {
		fd, err := unix.Openat(b.fd, id+".json", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, data)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
		if err := unix.UtimesNanoAt(b.fd, id+".json", []unix.Timespec{then, then}, 0); err != nil {
			return err
		}
	}
	return nil
}

// settle flushes all dirty pages, so that no write-back disturbs the measurement.
func (b *bare) settle() error { return unix.Syncfs(b.fd) }

// spread makes ext4 put each new directory in dir into its own block group (chattr +T).
func spread(dir string) {
	const topDir = 0x20000 // FS_TOPDIR_FL
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topDir))
	}
}

// fsName returns the name of the file system of dir.
func fsName(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err.Error()
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
