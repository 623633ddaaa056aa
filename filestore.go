// Package filestore keeps web sessions in a directory, one JSON file per session, in the format of
// the npm package session-file-store: a Go program and an Express program can share one directory,
// one secret and one cookie. Package session has the middleware for net/http; a Store can also be used alone:
//
//	store, err := filestore.Open("./sessions", nil)
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer store.Close()
//	s := new(filestore.Session)
//	s.Put("user", "anna")
//	err = store.Set(ctx, id, s) // id is a secret, as rand.Text makes it
//
// Goroutines may share a Store. Any number of processes may have the same directory open, if they run on one
// machine and the file system is local. Readers take no lock, because a file is only ever replaced whole.
// Writers take the operating system's file locks, for the moment of the change only, so that a slow writer
// keeps nobody waiting. Node takes no lock: beside a Node writer each file is still whole, but of two
// changes at once the later wins.
//
// Files must be regular files with one link, owned by the process's user or by root (a root process
// takes anybody's). Symbolic links are never followed, and nothing outside the directory is read,
// written or removed. Network file systems are not supported.
//
// A file that another program writes in place, as an editor may, can be found half-written for a moment:
// then it is ErrCorrupt.
//
// Leave the folder .locks alone while programs run. Lock files that somebody deletes are made again, and a
// writer that finds its own deleted fails; docs/OPERATING.md has the rest.
package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// Options are the settings of a Store. nil, and the zero value of each field, mean the default. Many
// programs set nothing but TTL. The defaults are those of session-file-store, if it has the option.
type Options struct {
	// TTL is how long a session lives after its last access if its cookie has no maxAge: at least a
	// second. 0 = 1 h. A negative TTL makes such sessions expire immediately. All programs on a
	// directory should have the same: each Get goes by its own, and the reapers by the longest, see Reap.
	TTL time.Duration

	// Lifetime is the longest life of a session since Session.Created, however much it is used. 0 = none.
	// A session that only Node has written has no such limit until Go writes it. All programs on a directory
	// should have the same, as with TTL.
	Lifetime time.Duration

	// TouchAfter is how old the last access must be for Touch to rewrite the file. 0 = 1 % of the
	// session's life, negative = always. It is never more than half of the session's life.
	TouchAfter time.Duration

	// ReapInterval is the time between passes of the background reaper. The first pass comes after a
	// tenth of it. 0 = 1 h, negative = no background reaper.
	ReapInterval time.Duration

	// LockTimeout is the longest wait for a session's lock, and the longest that Update tries again because
	// others change its session, then ErrLockTimeout. 0 = 5 s.
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

	// NoSync spares the flushes to the disk: a finished write survives kill -9, but maybe not a power cut.
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

	mu     sync.Mutex // guards at, closed and onReap, and each Add against its Wait
	at     *place
	closed bool
	onReap []func(removed int) // only ever appended to
	own    sync.WaitGroup      // the Store's goroutines
	done   context.Context     // cancelled by Close
	stop   context.CancelFunc  // cancels done

	reopening sync.Mutex // held by reopen

	counts counts
}

// Open opens the store in dir, which it makes, with mode 0700, if it is not there. It also makes the
// lock files in dir/.locks, and starts the background reaper: a Store must be closed. If dir is a
// symbolic link, it is resolved once. From then on the Store stays in the directory that it opened, also
// if that is moved. If it is deleted, the next operation opens the directory that has its path by then,
// and makes it, as Open does, if there is none; it refuses a link or another user's directory. Open
// fails if the directory cannot be written, unless ReadOnly is set; if there is no room it only warns.
func Open(dir string, opts *Options) (*Store, error) {
	s := new(Store)
	if opts != nil {
		s.opts = *opts
	}
	err := s.opts.complete()
	if err != nil {
		return nil, &Error{Op: "open", Err: err}
	}
	d, err := disk.Open(dir, disk.Options{ReadOnly: s.opts.ReadOnly, NoSync: s.opts.NoSync, Flushes: &s.counts.flushes})
	if err != nil {
		return nil, &Error{Op: "open", Err: err} // with the directory's name, which is no secret
	}
	if s.at, err = s.newPlace(d); err != nil {
		return nil, err
	}
	s.done, s.stop = context.WithCancel(context.Background())
	if s.opts.ReapInterval > 0 && !s.opts.ReadOnly {
		s.own.Go(s.reapLoop)
	}
	return s, nil
}

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
	case o.Lifetime < 0 || 0 < o.Lifetime && o.Lifetime < time.Second:
		return fmt.Errorf("Options.Lifetime is %v, and must be at least a second, or 0", o.Lifetime)
	case o.LockTimeout < 0:
		return errors.New("Options.LockTimeout is negative")
	case o.MaxSize < 0 || o.MaxSize > 1<<30:
		return errors.New("Options.MaxSize is negative or more than 1 GiB")
	case !format.Extension(o.Extension).Valid():
		return errors.New("Options.Extension is not " + format.ExtensionRule)
	case o.Mode&^fs.ModePerm != 0 || o.Mode&0o600 != 0o600:
		return errors.New("Options.Mode must be permissions, with the owner's to read and write")
	}
	return nil
}

func tooShort(d time.Duration) bool { return 0 < d && d < time.Millisecond }

// Close ends the background reaper, waits for it and for the operations under way, and releases the
// directory. It must not be called from the function given to Update. Every use after it fails with
// ErrClosed; a second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	first, p := !s.closed, s.at
	s.closed = true
	s.mu.Unlock()
	s.stop()
	p.index.Close()
	p.ops.Wait()
	s.own.Wait()
	if first {
		return p.dir.Close()
	}
	return nil
}

// TTL returns how long a session lives after its last access if its cookie has no maxAge.
func (s *Store) TTL() time.Duration { return s.opts.TTL }

// Lifetime returns how long a session lives at most since it was created, 0 if there is no limit.
func (s *Store) Lifetime() time.Duration { return s.opts.Lifetime }

// ValidID reports whether id can name a session: 1 to 200 of A-Z a-z 0-9 - _ and, but for the first
// and the last, also . , and ~. The names that Windows reserves are refused everywhere, so that a
// directory can move. On a file system that folds case, ids that differ in case only are one session.
// A Store also refuses ids that end in its extension, or as the temporary files of Node's
// write-file-atomic do, or whose file another store's longer extension claims, and with an extension of at
// most three letters those whose file Windows could take for another one by its short name.
func ValidID(id string) bool { return format.ValidID(id) }

// Get returns the session id. It takes no lock and writes nothing: beside any writer it returns one
// complete version. ErrNotFound if there is none, ErrExpired (an ErrNotFound too) if its time is
// over, ErrCorrupt, ErrDecrypt, ErrTooLarge or ErrUnsafeFile if its file cannot be used; the file
// stays in each case.
func (s *Store) Get(ctx context.Context, id string) (*Session, error) {
	var sess *Session
	hit := false
	err := s.do(ctx, "get", id, func(p *place, t target) (err error) {
		sess, err = p.load(ctx, t, true)
		hit = err == nil && sess.from == t.cached
		return err
	})
	s.counts.got(hit, err)
	return sess, err
}

// Set stores sess as the session id, accessed now, whether or not there is one. It does not change
// sess. To change a session that others may change too, or may have destroyed, use Update.
func (s *Store) Set(ctx context.Context, id string, sess *Session) error {
	return counted(&s.counts.sets, s.put(ctx, "set", id, sess, false))
}

// Create is Set for a new session: it fails with fs.ErrExist if the id is taken, by a session that is
// alive or by a file that cannot be read.
func (s *Store) Create(ctx context.Context, id string, sess *Session) error {
	return counted(&s.counts.sets, s.put(ctx, "create", id, sess, true))
}

func (s *Store) put(ctx context.Context, op, id string, sess *Session, create bool) error {
	return s.write(ctx, op, id, func(p *place, t target) error {
		var old *document
		if sess != nil && sess.from != nil && sess.from.origin.name == t.name { // as Get returned it
			old = sess.from
		}
		data, mtime, err := p.encode(ctx, t, sess, old) // a session that has no JSON fails before anything is touched
		if err != nil {
			return err
		}
		if !create { // in turn, so that not all of many are ahead of an Update, each with a temporary file
			return p.locks.InTurn(ctx, setTurn(t.id), p.opts.LockTimeout, func() error { return p.save(ctx, t, anything, data, mtime) })
		}
		return p.locks.Again(ctx, p.opts.LockTimeout, func() error {
			was, err := p.free(ctx, t)
			if err != nil {
				return err
			}
			return p.save(ctx, t, was, data, mtime)
		})
	})
}

// free returns what has the id and has expired, or nothing; it fails with fs.ErrExist if the id is taken.
func (p *place) free(ctx context.Context, t target) (*document, error) {
	d, err := p.document(ctx, t, true)
	if err == nil {
		err = p.check(d, new(Session))
	}
	switch {
	case errors.Is(err, ErrExpired):
		return d, nil
	case errors.Is(err, ErrNotFound):
		return nothing, nil
	case err == nil, noSession(err):
		return nil, fs.ErrExist
	}
	return nil, err
}

// Touch says that the session id was used: its life starts again now. The values in its file stay as they
// are. The session gets the cookie c; if c is nil it keeps its own, whose Expires starts again.
//
// Most calls write nothing: Touch writes if the last access is as old as Options.TouchAfter, or if c differs
// from the stored cookie in more than Expires. It does not wait for the disk: a write survives kill -9, but
// a power cut may take back the touches of the last half minute. It never takes back a session.
//
// Touch fails with ErrNotFound if the session is gone or has expired: it never brings one back. It fails with
// ErrLockTimeout as Update does, but does not wait for the function of an Update.
func (s *Store) Touch(ctx context.Context, id string, c *Cookie) error {
	var wants bool
	err := s.do(ctx, "touch", id, func(p *place, t target) (err error) {
		if wants, err = p.wantsTouch(ctx, t, c); !wants {
			return err
		}
		if p.locks == nil {
			return errReadOnly
		}
		// Of many that come at once one writes. None of them waits for an Update.
		return p.inTurn(ctx, "touch "+t.id, t.id, func(t target) (err error) {
			if wants, err = p.wantsTouch(ctx, t, c); !wants {
				return err
			}
			return p.update(ctx, t, func(sess *Session) error {
				if c != nil {
					sess.Cookie = *c
				} else if sess.Cookie.OriginalMaxAge != 0 {
					sess.LastAccess = time.Now()
					sess.Cookie.Expires = sess.ExpiresAt(0).Truncate(time.Millisecond)
				}
				return nil
			})
		})
	})
	s.counts.touched(wants, err)
	return err
}

func (p *place) wantsTouch(ctx context.Context, t target, c *Cookie) (bool, error) {
	d, err := p.document(ctx, t, true)
	if err != nil {
		return false, err
	}
	var sess Session
	if err := p.check(d, &sess); err != nil {
		return false, err
	}
	life := format.Life(sess.Cookie.OriginalMaxAge, p.opts.TTL) // near the end of its Lifetime too: what is left then would be written often
	after := min(cmp.Or(p.opts.TouchAfter, life/100), life/2)   // longer would log out who is active
	if after < 0 || sess.assumed || time.Since(sess.LastAccess) >= after {
		return true, nil
	}
	if c == nil {
		return false, nil
	}
	was, is := sess.Cookie, *c
	if was.OriginalMaxAge != 0 || was.Expires.Equal(is.Expires) { // a running Expires is not a change
		is.Expires = was.Expires
	}
	return was != is, nil
}

// Update reads the session id, lets fn change it, and stores it, accessed now. No change by another Update
// is lost: if somebody changes the session meanwhile, Update runs fn again, with the session as it is by then.
//
// So fn may run more than once. It must not count on what an earlier run has done. No lock is held while it
// runs: a slow fn keeps nobody waiting but the other Updates of its session in this process and, from its second
// run on, its Sets for a twentieth of a second. It may use the Store. But an Update of its own session in it ends
// with ErrLockTimeout, and so does an Update whose fn changes its own session by Set or Touch each time. Two
// Updates that update each other's session in fn wait for each other until LockTimeout.
//
// An error of fn is returned as it is, and nothing is written. ErrNotFound if the session is gone or has
// expired. ErrLockTimeout if its lock, or its other Updates in this process, are not free within
// Options.LockTimeout, or if others change it again and again: when LockTimeout has passed since they first
// did, Update gives up. Another process that changes it without a pause can do that to a slow fn or Codec.
func (s *Store) Update(ctx context.Context, id string, fn func(*Session) error) error {
	var fnErr error
	err := s.write(ctx, "update", id, func(p *place, t target) error {
		return p.inTurn(ctx, t.id, t.id, func(t target) error {
			return p.update(ctx, t, func(sess *Session) error {
				if fnErr == nil {
					fnErr = fn(sess)
				}
				if fnErr != nil {
					return errors.New("fn has failed") // its own could be taken for one of the Store's
				}
				return nil
			})
		})
	})
	return counted(&s.counts.updates, cmp.Or(fnErr, err))
}

// update is lock.ErrConflict if somebody else has changed the session meanwhile.
func (p *place) update(ctx context.Context, t target, fn func(*Session) error) error {
	sess, err := p.load(ctx, t, true)
	if err != nil {
		return err
	}
	old := sess.from
	if sess.Created.IsZero() { // so that fn sees what will be written
		sess.Created = time.Now().Truncate(time.Millisecond)
	}
	if err := fn(sess); err != nil {
		return err
	}
	data, mtime, err := p.encode(ctx, t, sess, old)
	if err != nil {
		return err
	}
	if same, err := p.dir.Still(t.name, disk.Seen{Version: old.origin.Version}); err != nil || !same {
		return cmp.Or(err, lock.ErrConflict) // before a file is written for nothing
	}
	return p.save(ctx, t, old, data, mtime)
}

// Destroy removes the session id. It succeeds if there is none. Without NoSync the session stays away
// after a power cut too.
func (s *Store) Destroy(ctx context.Context, id string) error {
	return s.write(ctx, "destroy", id, func(p *place, t target) error {
		if err := counted(&s.counts.destroys, p.remove(ctx, t, anything)); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil // whoever removed it may not have flushed: that is done in any case
	})
}

// encode returns the bytes of the file for sess, accessed now unless it is NoTouch, and its mtime; old may be nil.
func (p *place) encode(ctx context.Context, t target, sess *Session, old *document) (data []byte, mtime time.Time, err error) {
	if sess == nil {
		return nil, mtime, errors.New("nil session")
	}
	at := time.Now().Truncate(time.Millisecond)
	now := *sess
	now.lifetime = p.opts.Lifetime
	if !now.NoTouch || now.assumed || !format.Dated(now.LastAccess, at) {
		now.LastAccess = at
	}
	if now.Created = format.Created(now.Created, at); now.Created.IsZero() {
		now.Created = at
	}
	if data, err = now.MarshalJSON(); err != nil {
		return nil, mtime, err
	}
	if data, err = p.code(ctx, t.id, data, Codec.Encode, ContextCodec.EncodeContext); err != nil {
		return nil, mtime, err
	}
	if int64(len(data)) > p.opts.MaxSize {
		return nil, mtime, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	return data, p.mtime(&now, old), nil
}

// mtime returns the mtime to give the file of sess: the time when it ends. If neither sess nor the
// document that it replaces has a life of its own, the later of their ends counts: another program's
// longer TTL may stand behind it.
func (p *place) mtime(sess *Session, old *document) time.Time {
	at := format.Mtime(sess.ExpiresAt(p.opts.TTL))
	if old == nil || sess.Cookie.OriginalMaxAge != 0 || old.cookie.OriginalMaxAge != 0 {
		return at
	}
	now, v := time.Now(), old.origin.Version
	if was := v.ModTime(); was.After(at) && format.Dated(old.lastAccess, now) && format.NotDue(was, v.ChangeTime(), now) {
		return format.Mtime(was)
	}
	return at
}

// save makes data the contents of the session's file, in one step for every reader: a temporary file takes
// the name over. Only that happens under the lock. was is as for locked.
func (p *place) save(ctx context.Context, t target, was *document, data []byte, mtime time.Time) error {
	temp, err := p.dir.CreateTemp(format.Temp, data, p.opts.Mode, mtime)
	if err != nil {
		return err
	}
	err = p.locked(ctx, t, was, func(l *lock.Stripe) error { return l.Rename(temp, t.name) })
	if errors.Is(err, fs.ErrNotExist) { // swept after an hour's wait, or the directory is gone
		return lock.ErrConflict
	}
	if err != nil {
		p.dir.Remove(temp)
	}
	return err
}

// remove unlinks the session's file, whatever it is, unless it is a directory. was is as for locked.
func (p *place) remove(ctx context.Context, t target, was *document) error {
	return p.locked(ctx, t, was, func(l *lock.Stripe) error {
		err := l.Remove(t.name)
		p.uncache(t.id) // do not keep a destroyed session in memory
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNotFound
		}
		return err
	})
}
