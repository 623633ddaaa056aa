package filestore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// Node's temporary files do not show whether their writer lives. It keeps one for milliseconds.
	staleAfter = time.Hour

	// Two workers: checking a due session is mostly waiting for system calls.
	reapers = 2
)

// reapLoop is the background reaper. It runs until Close. Every process on a directory has one: a
// lock to have but one at work would let a stopped process stop them all.
func (s *Store) reapLoop() {
	wait := s.opts.ReapInterval / 10 // the first pass is early, for programs that often start anew
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-s.done.Done():
			return
		case <-time.After(wait):
			wait = s.opts.ReapInterval
		}
		// After a step ahead everything may seem to have expired. If the clock stays there the next pass
		// will remove it, if it is set right in time nobody is logged out.
		if step := clockStep(last, time.Now()); step > clockSkew {
			s.opts.Logger.Warn("filestore: reap left out, the clock was set ahead", "dir", s.here().path, "by", step)
			continue
		}
		if _, err := s.Reap(s.done); err != nil && s.done.Err() == nil {
			s.opts.Logger.Error("filestore: reap", "dir", s.here().path, "err", err)
		}
	}
}

// clockStep returns by how much the clock was set between two instants: what has passed by it, less
// what has passed by the steady one.
func clockStep(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// Reap makes one pass over the directory: it removes the sessions that have expired and the
// temporary files of dead writers, and returns the number of sessions removed. A session that is
// renewed before its removal stays. What cannot be read, and what is not ours, stays. Reap goes on after
// an error and returns the first. Any number of processes may reap at once. A pass also drops from the
// cache the sessions that others have ended or changed.
//
// A file's modification time says when its session ends, by the TTL of the program that wrote it: a
// file is read once that time has passed, and given a later one if the session lives, as those that
// Node wrote. A file whose time lies ahead stays, so that a program with a short TTL, or with none set,
// ends no session that another one's keeps alive. So does what was written before a TTL was shortened.
func (s *Store) Reap(ctx context.Context) (n int, err error) {
	err = s.within(ctx, func(p *place) error {
		if s.opts.ReadOnly {
			return errReadOnly
		}
		removed, err := p.reap(ctx)
		n += removed
		return err
	})
	return n, wrap("reap", "", err)
}

// A pass is what one Reap has found. Its reapers share it.
type pass struct {
	mu         sync.Mutex
	removed    int
	unreadable int
	stuck      map[*stripe]bool // whose holder is stopped: to wait once is enough
	err        error            // the first
}

func (s *place) reap(ctx context.Context) (n int, err error) {
	if err := s.there(); err != nil {
		return 0, err
	}
	if _, err := os.Lstat(s.path); (err == nil || errors.Is(err, fs.ErrNotExist)) && !s.inPlace() {
		s.moved.Do(func() {
			s.opts.Logger.Warn("filestore: the session directory was moved; this program goes on in it", "dir", s.path)
		})
	}
	ctx, cancel := s.untilClose(ctx)
	defer cancel()
	p := &pass{stuck: make(map[*stripe]bool)}
	due := make(chan key, 64)
	var workers sync.WaitGroup
	for range reapers {
		workers.Go(func() {
			for k := range due {
				s.visit(ctx, p, k)
			}
		})
	}
	var later []string // temporary files whose lock is held, maybe by a reaper of ours
	var listErr error
	for name, err := range s.list() {
		if listErr = wrap("reap", "", cmp.Or(s.interrupted(ctx), err)); listErr != nil {
			break
		}
		if k, ok := s.keyOf(name); !ok {
			busy, err := s.sweep(name)
			p.fail(wrap("reap", "", err))
			if busy {
				later = append(later, name)
			}
		} else if m, err := s.dir.stat(name); err != nil || !ahead(m.version) {
			due <- k
		}
	}
	close(due)
	workers.Wait()
	for _, name := range later {
		_, err := s.sweep(name)
		p.fail(wrap("reap", "", err))
	}
	s.forget(ctx)
	if p.unreadable > 0 {
		s.opts.Logger.Warn("filestore: reap passed over files that hold no session", "dir", s.path, "files", p.unreadable)
	}
	return p.removed, cmp.Or(p.err, listErr)
}

// untilClose is ctx for long work: Close does not wait for all the locks that it would take.
func (s *Store) untilClose(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.done, cancel)
	return ctx, func() { stop(); cancel() }
}

func (p *pass) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = cmp.Or(p.err, err)
}

// visit deals with one session that may have expired, and notes the outcome.
func (s *place) visit(ctx context.Context, p *pass, k key) {
	st := s.stripe(k.id)
	p.mu.Lock()
	stuck := p.stuck[st]
	p.mu.Unlock()
	if stuck || ctx.Err() != nil { // of which the listing tells
		return
	}
	removed, err := s.reapOne(ctx, k)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case removed:
		p.removed++
	case errors.Is(err, ErrNotFound): // somebody else was faster
	case noSession(err):
		p.unreadable++
	default:
		p.stuck[st] = errors.Is(err, ErrLockTimeout)
		if s.done.Err() != nil {
			err = ErrClosed
		}
		p.err = cmp.Or(p.err, wrap("reap", k.id, err))
	}
}

// reapOne removes a session if it has expired. It looks twice, the second time under the lock:
// a session that is renewed in between must stay.
func (s *place) reapOne(ctx context.Context, k key) (removed bool, err error) {
	d, err := s.document(ctx, k, false)
	if err != nil {
		return false, err
	}
	var sess Session
	switch err := s.judge(d, &sess); {
	case errors.Is(err, ErrExpired):
		return s.removeIf(ctx, k, d, false)
	case err != nil:
		return false, err
	case sess.assumed: // see date
		return false, s.update(ctx, k, func(*Session) error { return nil })
	}
	if stamp := s.stamp(&sess, nil); !d.lastAccess.IsZero() && stamp.UnixNano() > d.mtime {
		// So that the next pass need not read it. Only the owner may: else it is read each time. It takes
		// no lock, as it is the file that was read or none.
		s.dir.setTime(k.name, d.version, stamp)
	}
	return false, nil
}

// stamp returns the mtime for the file of sess: when it expires. Where neither sess nor the document
// that it takes the place of has a life of its own, the later of the two ends counts: another program's
// longer TTL may stand behind it.
func (s *place) stamp(sess *Session, old *document) time.Time {
	const latest = min(1<<33, math.MaxInt) // seconds, the year 2242; beyond 2262 the os package overflows, a 32-bit system in 2038
	at := sess.ExpiresAt(s.opts.TTL)
	if at.Unix() > latest {
		at = time.Unix(latest, 0)
	}
	if old != nil && sess.Cookie.OriginalMaxAge == 0 && old.cookie.OriginalMaxAge == 0 && old.dated() && ahead(old.version) {
		at = time.Unix(0, max(at.UnixNano(), old.mtime))
	}
	return at.Truncate(time.Millisecond)
}

// dated reports that the file itself says when the session was accessed, and not while the clock was
// ahead: its mtime then is no end either.
func (d *document) dated() bool {
	return !d.lastAccess.IsZero() && !d.lastAccess.After(time.Now().Add(clockSkew))
}

// ahead reports that the mtime tells of an end to come: the reaper neither reads nor removes the file.
// What was changed in a time to come, as the ctime shows, was so while the clock was ahead.
func ahead(v version) bool {
	now := time.Now()
	return v.mtime > now.UnixNano() && v.ctime <= now.Add(clockSkew).UnixNano()
}

var ourTemp = regexp.MustCompile(`^\.([0-3][0-9a-f])-[A-Z2-7]{26}~$`) // see replace

// sweep removes a temporary file whose writer is dead. A busy one's may live.
func (s *place) sweep(name string) (busy bool, err error) {
	if m := ourTemp.FindStringSubmatch(name); m != nil {
		// Its writer holds the stripe's lock until it has renamed or removed it.
		i, _ := strconv.ParseUint(m[1], 16, 8)
		st := &s.stripes[i]
		if ok, err := s.tryLock(st); !ok {
			return err == nil, err
		}
		defer st.unlock()
		if err := s.stands(st); err != nil {
			return false, err
		}
	} else if !s.nodeLeftover(name) {
		return false, nil
	}
	if m, err := s.dir.stat(name); err != nil || !m.regular {
		return false, nil
	}
	if err := s.dir.unlink(name); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return false, nil
}

// nodeTemp takes apart what write-file-atomic calls the temporary file of a session:
// <id><extension>.<a hash of 32 bits, in decimal>.
func nodeTemp(name, extension string) (id, hash string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || i == len(name)-1 || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", "", false
	}
	id, ok = strings.CutSuffix(name[:i], extension)
	return id, name[i+1:], ok
}

// nodeLeftover reports whether name is a temporary file of Node's that nobody will miss. Numbers that
// are short for a hash, which few are, or the time when the file was made, it leaves to those who
// rotate or date their files.
func (s *place) nodeLeftover(name string) bool {
	id, hash, ok := nodeTemp(name, s.opts.Extension)
	n, err := strconv.ParseUint(hash, 10, 32)
	if !ok || !ValidID(id) || s.others(id) || err != nil || n < 1e8 || hash[0] == '0' {
		return false
	}
	m, err := s.dir.stat(name)
	dated := time.Unix(0, m.ctime).Sub(time.Unix(int64(n), 0)).Abs() < 24*time.Hour
	return err == nil && !dated && time.Since(time.Unix(0, m.mtime)) >= staleAfter
}
