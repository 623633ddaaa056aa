package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
)

// The way from a file to a session: look, read, decode, remember, check whether it has expired. No step
// takes a lock.

const (
	// A larger file is read each time, so that the cache's size in bytes has a bound too.
	maxCached = 16 << 10

	// A file that is larger than Options.MaxSize, as Node may write it, is read up to this size: to see
	// whether it has expired, so that it ends like others.
	maxRead = 16 << 20
)

// load returns a fresh copy that the caller owns; keep is as for document.
func (p *place) load(ctx context.Context, t target, keep bool) (*Session, error) {
	d, err := p.document(ctx, t, keep)
	if err != nil {
		return nil, err
	}
	return p.session(d)
}

// session returns a copy of d as the session that it is, if it is alive.
func (p *place) session(d *document) (*Session, error) {
	sess := new(Session)
	if err := p.check(d, sess); err != nil {
		return nil, err
	}
	sess.Values = d.members.Values()
	return sess, nil
}

// document returns the decoded file of a session, also if it has expired or is too large, which check
// tells. A cached one is served only after a look at the file. keep says whether to cache one that is
// read.
func (p *place) document(ctx context.Context, t target, keep bool) (*document, error) {
	if t.cached != nil {
		if i, err := p.dir.Stat(t.name); err == nil && i.Version == t.cached.origin.Version {
			return t.cached, nil
		}
	}
	raw, i, err := p.dir.Read(t.name, max(p.opts.MaxSize, maxRead))
	if errors.Is(err, fs.ErrNotExist) {
		p.uncache(t.id)
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	data, err := p.code(ctx, t.id, raw, Codec.Decode, ContextCodec.DecodeContext)
	if err != nil {
		return nil, err
	}
	d, err := decode(data)
	if err != nil {
		return nil, err
	}
	d.origin = origin{t.name, i.Seen(raw)}
	if keep && p.cache != nil && i.Settled && max(i.Size, int64(d.members.Size()+len(d.cookie.raw))) <= maxCached {
		p.cache.Add(strings.Clone(t.id), d) // the id may be part of something large
	}
	return d, nil
}

// check makes *sess the session of d, without its Values. It returns ErrExpired if its time is over, or
// else ErrTooLarge if it is.
func (p *place) check(d *document, sess *Session) error {
	now := time.Now()
	v := d.origin.Version
	*sess = Session{Cookie: d.cookie, Created: format.Created(d.created, now), from: d, lifetime: p.opts.Lifetime}
	sess.LastAccess, sess.assumed = format.LastAccess(d.lastAccess, v.ModTime(), v.ChangeTime(), now)
	if format.Expired(sess.LastAccess, sess.life(p.opts.TTL), now) {
		return ErrExpired
	}
	if v.Size > p.opts.MaxSize {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, v.Size)
	}
	return nil
}

// noSession reports whether err is about the file's contents, so that it will fail again, rather than
// about reading it.
func noSession(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrDecrypt) ||
		errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsafeFile)
}

func (p *place) uncache(id string) {
	if p.cache != nil {
		p.cache.Remove(id)
	}
}

// forget drops from the cache the files that are gone or have changed since: a logout by another
// process must not leave the session in memory until as many others are used.
func (p *place) forget(ctx context.Context) {
	if p.cache == nil {
		return
	}
	for _, id := range p.cache.Keys() {
		if p.interrupted(ctx) != nil {
			return
		}
		if d, ok := p.cache.Peek(id); ok {
			if i, err := p.dir.Stat(d.origin.name); err != nil || i.Version != d.origin.Version {
				p.cache.Remove(id)
			}
		}
	}
}
