package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// load returns a fresh copy that the caller owns; keep as for document. It needs no lock.
func (s *place) load(ctx context.Context, k key, keep bool) (*Session, error) {
	d, err := s.document(ctx, k, keep)
	if err != nil {
		return nil, err
	}
	sess := new(Session)
	if err := s.judge(d, sess); err != nil {
		return nil, err
	}
	sess.Values = d.copyValues()
	return sess, nil
}

// document returns the decoded file of a session, also of one that has expired or is too large, of which
// judge tells. It needs no lock. A cached one is served only after a look at the file; keep says whether
// to cache one that is read.
func (s *place) document(ctx context.Context, k key, keep bool) (*document, error) {
	// A name that is replaced between two looks is looked at again. Losing this race a hundred times in a
	// row is not load but an attack.
	for i := range 100 {
		m, err := s.dir.stat(k.name)
		if errors.Is(err, fs.ErrNotExist) {
			if s.cache != nil {
				s.cache.Remove(k.id)
			}
			return nil, ErrNotFound
		}
		if err != nil {
			return nil, err
		}
		if k.cached != nil && k.cached.version == m.version {
			return k.cached, nil
		}
		if !m.regular { // not even opened: that may act on a device
			return nil, errNotRegular
		}
		if err := m.check(max(s.opts.MaxSize, maxRead), s.dir.trusted); err != nil && err != errReplaced { // an error of the opening would say less
			return nil, err
		}
		d, err := s.read(ctx, k, time.Now())
		if err == errReplaced {
			if i >= 10 { // whoever is replacing or removing it is half-way, and waits for the journal or a processor
				time.Sleep(min(time.Duration(i-9), 10) * time.Millisecond)
			}
			continue
		}
		if err == nil && keep && s.cache != nil && d.settled && m.inode != 0 && max(m.size, d.size()) <= maxCached {
			s.cache.Add(k.name[:len(k.id)], d) // not k.id, which may be part of something large
		}
		return d, err
	}
	return nil, errReplaced
}

// read reads and decodes a session's file.
func (s *place) read(ctx context.Context, k key, now time.Time) (d *document, err error) {
	limit := max(s.opts.MaxSize, maxRead)
	data, m, err := s.dir.read(k.name, limit)
	if err != nil {
		return nil, err
	}
	if data, err = s.code(ctx, k.id, data, Codec.Decode, ContextCodec.DecodeContext); err == nil {
		d, err = decode(data)
	}
	if err != nil {
		return nil, err
	}
	wait := settled
	if m.ctime%int64(time.Second) == 0 {
		wait = settledCoarse
	}
	d.file, d.version, d.settled = k.name, m.version, now.Sub(time.Unix(0, m.ctime)) > wait
	return d, nil
}

// judge makes *sess d's session, without its Values, and says whether it has expired by now, or else is
// too large.
func (s *place) judge(d *document, sess *Session) error {
	*sess = Session{Cookie: d.cookie, LastAccess: d.lastAccess, from: d}
	now := time.Now()
	sess.date(now, d.version)
	if sess.expired(now, s.opts.TTL) {
		return ErrExpired
	}
	if d.version.size > s.opts.MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, d.version.size)
	}
	return nil
}

// noSession reports whether err is about the file (it will fail again) rather than about reading it.
func noSession(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrDecrypt) ||
		errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsafeFile)
}

// A version tells the states of one file name from each other. Every change of a file changes its
// ctime or, where another file takes the name, the inode.
type version struct {
	inode        uint64 // 0 where the system does not tell
	size         int64
	mtime, ctime int64 // nanoseconds since 1970
}

// meta is what the system tells of a file.
type meta struct {
	version
	regular, dir bool
	links        uint64
	uid          int
}

var (
	errNotRegular = fmt.Errorf("%w: not a regular file", ErrUnsafeFile)
	errReplaced   = fmt.Errorf("%w: it is replaced or written all the time", ErrUnsafeFile)
)

// check says why an open file is not to be read.
func (m meta) check(limit int64, trusted int) error {
	switch {
	case m.links == 0:
		return errReplaced
	case !m.regular:
		return errNotRegular
	case m.links > 1:
		return fmt.Errorf("%w: it has %d links", ErrUnsafeFile, m.links)
	case m.uid != 0 && m.uid != os.Geteuid() && m.uid != trusted && os.Geteuid() != 0:
		return fmt.Errorf("%w: it is another user's", ErrUnsafeFile)
	case m.size > limit:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, m.size)
	}
	return nil
}

const (
	// File systems stamp with a clock that ticks every few milliseconds, and use inodes again at
	// once: a change soon after the last may show the same version. A file is cached only if it was
	// read later than that (git's rule for its index).
	settled = 20 * time.Millisecond

	// Some stamp in whole seconds, or in two.
	settledCoarse = 3 * time.Second

	// What is larger is read anew each time, so that the cache's size in bytes has a bound too.
	maxCached = 16 << 10

	// What is larger than Options.MaxSize, as Node may write it, is read up to this size: to say that
	// it has expired, so that it ends like others.
	maxRead = 16 << 20
)

func newCache(size int) *lru.Cache[string, *document] {
	if size < 0 {
		return nil
	}
	c, _ := lru.New[string, *document](size) // its only error is a size below 1
	return c
}

// forget drops what the cache holds of files that are gone or have changed since: other processes' logouts
// must not stay in memory until as many sessions are used.
func (s *place) forget(ctx context.Context) {
	if s.cache == nil {
		return
	}
	for _, id := range s.cache.Keys() {
		if s.interrupted(ctx) != nil {
			return
		}
		if d, ok := s.cache.Peek(id); ok {
			if m, err := s.dir.stat(d.file); err != nil || m.version != d.version {
				s.cache.Remove(id)
			}
		}
	}
}
