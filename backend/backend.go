// Package backend is what the Stores on Redis, PostgreSQL, MySQL and MongoDB have in common. Their packages
// are below it, each in a module of its own; applications use those. Package backend is for who writes a
// Store for another engine: New makes a Store of an Engine, which need not know what a session is.
//
// The engine holds a session's document and, beside it, when the session ends, as Express's stores for
// these engines do. The document is that of a session file without __lastAccess, see
// filestore.Session.Document.
//
// Time is the engine's wherever it has a clock to ask: an Engine says how long a session still lives, so that
// programs whose clocks differ agree on whether it does.
package backend

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

// Forever is the Left of a session whose end the engine does not hold. Its first access gives it one.
const Forever time.Duration = math.MaxInt64

// A Row is a session as an Engine holds it.
type Row struct {
	ID   string
	Doc  string        // the document, or what the Codec made of it
	Left time.Duration // how long it lives from now on; not positive: its time is over
}

// An Engine keeps rows. A row is live until the engine's clock says that its time is over; Get, Swap and
// Page know live rows only. All methods must be safe for concurrent use, end when their context is done, and
// change a row in one step. An id given to them is one of filestore.ValidID.
//
// If the server has answered that it has not done what was asked, the error must be made by Refused, which
// also keeps ids and documents out of its text. After any other error it is unknown what was done.
type Engine interface {
	// Get returns the row id, or filestore.ErrNotFound.
	Get(ctx context.Context, id string) (Row, error)

	// Insert stores the rows whose id no live row has, and says of each whether it did.
	Insert(ctx context.Context, rows []Row) (stored []bool, err error)

	// Put stores the row, whether or not there is one.
	Put(ctx context.Context, r Row) error

	// Swap puts now in the place of the live row was, which Get has returned, and makes none. It reports
	// whether it did: it does not if the row is gone, or has another document by now. If now.Left is
	// was.Left, the row's end stays as it is.
	Swap(ctx context.Context, was, now Row) (bool, error)

	// Delete removes the rows that are there, live or not.
	Delete(ctx context.Context, ids []string) error

	// Page returns some rows, and the cursor of the next page. The first page has the cursor "". After the last
	// page next is "". A row that is there from the first to the last page is on one of them, maybe more than once.
	// Without docs the rows need only have their ids.
	Page(ctx context.Context, cursor string, docs bool) (rows []Row, next string, err error)
}

// A Snapshotter is an Engine that can tell all rows of one moment.
type Snapshotter interface {
	// Snapshot calls visit for each live row of one moment. It calls alive whenever the server has answered.
	Snapshot(ctx context.Context, alive func(), visit func(Row)) error
}

// Options are a Store's settings. The packages of the engines say what the defaults are.
type Options struct {
	TTL, Lifetime, TouchAfter, Timeout, ReapInterval time.Duration

	MaxSize int64
	Codec   filestore.Codec
	Logger  *slog.Logger

	// Check asks the server whether sessions are safe there. New calls it, with Timeout as its bound, and fails if it
	// does. nil = nothing to ask.
	Check func(context.Context) error
}

// A Store keeps sessions in an Engine. It is a session.Store with all optional methods but Watch and OnReap, and safe
// for concurrent use. Errors are a *filestore.Error.
type Store struct {
	engine Engine
	opts   Options

	mu     sync.Mutex // guards the rest, and each Add against its Wait
	closed bool
	ops    sync.WaitGroup // operations, and the reaper
	done   context.Context
	stop   context.CancelFunc
}

// New returns the Store on e, which removes rows by itself when their time is over. See also NewReaping. A Store must be
// closed; that does not close e.
func New(e Engine, o Options) (*Store, error) {
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.MaxSize = cmp.Or(o.MaxSize, 1<<20)
	o.ReapInterval = cmp.Or(o.ReapInterval, 15*time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	s := &Store{engine: e, opts: o}
	if err := o.check(); err != nil {
		return nil, s.wrap("open", "", err)
	}
	s.done, s.stop = context.WithCancel(context.Background())
	if o.Check != nil {
		if err := s.do(context.Background(), "open", "", o.Check); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (o *Options) check() error {
	short := func(d, least time.Duration) bool { return 0 < d && d < least }
	switch { // what was meant in seconds is nanoseconds
	case o.TTL < time.Second:
		return fmt.Errorf("Options.TTL is %v, and must be at least a second: for seconds write 3600*time.Second", o.TTL)
	case o.Lifetime < 0 || short(o.Lifetime, time.Second):
		return fmt.Errorf("Options.Lifetime is %v, and must be at least a second, or 0", o.Lifetime)
	case o.Timeout < time.Millisecond, short(o.TouchAfter, time.Millisecond), short(o.ReapInterval, time.Millisecond):
		return errors.New("Options.Timeout, TouchAfter or ReapInterval is shorter than a millisecond: for seconds write 5*time.Second")
	case o.MaxSize < 0 || o.MaxSize > 1<<30:
		return errors.New("Options.MaxSize is negative or more than 1 GiB")
	}
	return nil
}

// Close ends the background reaper, and waits for it and for the operations under way. Every use after it
// fails with filestore.ErrClosed; a second Close does nothing. The client of the engine stays open: it is the
// caller's. Close must not be called from a function given to Update or OnReap.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.ops.Wait()
	return nil
}

// TTL returns how long a session lives after its last access if its cookie has no maxAge.
func (s *Store) TTL() time.Duration { return s.opts.TTL }

// Lifetime returns how long a session lives at most since it was created. 0 = no limit.
func (s *Store) Lifetime() time.Duration { return s.opts.Lifetime }

// on runs an operation on the session id, which ends with Options.Timeout at the latest.
func (s *Store) on(ctx context.Context, op, id string, fn func(context.Context) error) error {
	if !filestore.ValidID(id) {
		return s.wrap(op, id, filestore.ErrInvalidID)
	}
	return s.do(ctx, op, id, fn)
}

// do is on for any id, "" if it is not about one session.
func (s *Store) do(ctx context.Context, op, id string, fn func(context.Context) error) error {
	own, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return s.until(own, ctx, op, id, fn)
}

// until runs an operation that ends with own, which ends with ctx or if the engine keeps it waiting.
func (s *Store) until(own, ctx context.Context, op, id string, fn func(context.Context) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.wrap(op, id, filestore.ErrClosed)
	}
	s.ops.Add(1)
	s.mu.Unlock()
	defer s.ops.Done()
	own, cancel := context.WithCancel(own)
	defer cancel()
	defer context.AfterFunc(s.done, cancel)()
	err := fn(own)
	_, whole := err.(fnError)
	switch {
	case err == nil, whole, isRefused(err), ctx.Err() != nil: // the caller's context says enough
	case s.done.Err() != nil:
		err = filestore.ErrClosed
	case own.Err() != nil && !errors.Is(err, filestore.ErrLockTimeout) && err != errSlow:
		err = fmt.Errorf("no answer within %v: %w", s.opts.Timeout, err)
	}
	return s.wrap(op, id, err)
}

// patient runs an operation of many steps, which ends with ctx or if the engine is silent for Options.Timeout. fn calls
// alive whenever the engine has answered.
func (s *Store) patient(ctx context.Context, op string, fn func(ctx context.Context, alive func()) error) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(s.opts.Timeout, cancel)
	defer late.Stop()
	return s.until(own, ctx, op, "", func(running context.Context) error {
		err := fn(running, func() { late.Reset(s.opts.Timeout) })
		if err != nil && own.Err() != nil && ctx.Err() == nil {
			err = lateError{err}
		}
		return err
	})
}

// wrap makes the error that leaves the package, unless it is Update's fn's own.
func (s *Store) wrap(op, id string, err error) error {
	if own, ok := err.(fnError); ok {
		return own.error
	}
	if err == nil {
		return nil
	}
	if e, ok := err.(*filestore.Error); ok { // it is about one of many
		return e
	}
	e := &filestore.Error{Op: op, Err: err}
	if id != "" {
		e.ID = format.ShortID(id)
	}
	return e
}

// A lateError is one of patient's deadline, which is a cancellation for those that it ends.
type lateError struct{ error }

func (e lateError) Unwrap() error      { return e.error }
func (lateError) Is(target error) bool { return target == context.DeadlineExceeded }

var errSlow = errors.New("the function of the Update took longer than Options.Timeout")

// An fnError is what Update's fn has returned.
type fnError struct{ error }

// A refusal is a server's own error.
type refusal struct {
	code string
	err  error
}

// Refused returns the error of a server that has not done what was asked. Its text is code, because err may
// quote ids and documents; errors.As still finds err.
func Refused(code string, err error) error { return &refusal{code, err} }

func (e *refusal) Error() string { return "the server refuses: " + e.code }
func (e *refusal) Unwrap() error { return e.err }

func isRefused(err error) bool {
	_, ok := errors.AsType[*refusal](err)
	return ok
}

// Get returns the session id. It fails with filestore.ErrNotFound if the engine does not have it or its time is over.
// If it is known that its time is over, the error is also ErrExpired. ErrCorrupt, ErrDecrypt or ErrTooLarge say that
// what the engine has is not a session to use; it stays there.
func (s *Store) Get(ctx context.Context, id string) (sess *filestore.Session, err error) {
	err = s.on(ctx, "get", id, func(ctx context.Context) error {
		_, sess, err = s.load(ctx, id)
		return err
	})
	return sess, err
}

// load returns the row id and the session in it.
func (s *Store) load(ctx context.Context, id string) (Row, *filestore.Session, error) {
	row, err := s.get(ctx, id)
	if err != nil {
		return row, nil, err
	}
	sess, err := s.decode(ctx, row)
	return row, sess, err
}

// get returns the row id.
func (s *Store) get(ctx context.Context, id string) (Row, error) {
	row, err := s.engine.Get(ctx, id)
	if s.again(ctx, err) {
		row, err = s.engine.Get(ctx, id)
	}
	row.ID = id
	return row, err
}

// again reports whether to repeat, once, what does no harm twice: a server that was started again has closed
// the client's connections.
func (s *Store) again(ctx context.Context, err error) bool {
	return err != nil && !errors.Is(err, filestore.ErrNotFound) && !isRefused(err) && ctx.Err() == nil
}

// decode returns the session in row.
func (s *Store) decode(ctx context.Context, row Row) (*filestore.Session, error) {
	if int64(len(row.Doc)) > s.opts.MaxSize+markSpace {
		return nil, fmt.Errorf("%w: %d bytes", filestore.ErrTooLarge, len(row.Doc))
	}
	doc, err := s.code(ctx, row.ID, []byte(row.Doc), filestore.Codec.Decode, filestore.ContextCodec.DecodeContext)
	if err != nil {
		return nil, err
	}
	sess := new(filestore.Session)
	if err := sess.UnmarshalJSON(doc); err != nil {
		return nil, err
	}
	now := time.Now()
	sess.Created, sess.LastAccess = format.Created(sess.Created, now), now
	if life := format.Life(sess.Cookie.OriginalMaxAge, s.opts.TTL); row.Left < life { // or else another TTL stands behind it
		sess.LastAccess = now.Add(row.Left - life)
	}
	if s.opts.Lifetime > 0 && format.Expired(sess.LastAccess, format.Capped(Forever, sess.LastAccess, sess.Created, s.opts.Lifetime), now) {
		return nil, filestore.ErrExpired
	}
	return sess, nil
}

// code lets data go through the Codec.
func (s *Store) code(ctx context.Context, id string, data []byte, plain func(filestore.Codec, string, []byte) ([]byte, error),
	waits func(filestore.ContextCodec, context.Context, string, []byte) ([]byte, error)) ([]byte, error) {
	switch c := s.opts.Codec.(type) {
	case nil:
		return data, nil
	case filestore.ContextCodec:
		return waits(c, ctx, id, data)
	default:
		return plain(c, id, data)
	}
}

// left returns how long a session lives from now on that is accessed now.
func (s *Store) left(c *filestore.Cookie, created, now time.Time) time.Duration {
	return format.Capped(format.Life(c.OriginalMaxAge, s.opts.TTL), now, created, s.opts.Lifetime)
}

var errNil = errors.New("nil session")

// access marks sess as accessed now.
func access(sess *filestore.Session, now time.Time) {
	if !sess.NoTouch || sess.LastAccess.IsZero() || sess.LastAccess.After(now) {
		sess.LastAccess = now
	}
	if sess.Created = format.Created(sess.Created, now); sess.Created.IsZero() {
		sess.Created = now
	}
}

// rest returns how long sess still lives. It is not positive if its time is over.
func (s *Store) rest(sess *filestore.Session, now time.Time) time.Duration {
	life, age := s.left(&sess.Cookie, sess.Created, sess.LastAccess), max(now.Sub(sess.LastAccess), 0)
	if life > 0 { // else the difference can be more than a Duration holds
		life -= age
	}
	return max(life, -time.Hour) // for how long it has been over does not matter
}

// encode returns the row to store for sess. It does not change sess.
func (s *Store) encode(ctx context.Context, id string, sess *filestore.Session) (Row, error) {
	if sess == nil {
		return Row{}, errNil
	}
	own, now := *sess, time.Now()
	access(&own, now)
	return s.row(ctx, id, &own, now)
}

// row returns the row of sess as it is.
func (s *Store) row(ctx context.Context, id string, sess *filestore.Session, now time.Time) (Row, error) {
	row := Row{ID: id, Left: s.rest(sess, now)}
	doc, err := sess.Document()
	if err == nil {
		row.Doc, err = s.seal(ctx, id, doc, s.opts.MaxSize)
	}
	return row, err
}

// seal returns what the engine is to hold for a document.
func (s *Store) seal(ctx context.Context, id string, doc []byte, maxSize int64) (string, error) {
	doc, err := s.code(ctx, id, doc, filestore.Codec.Encode, filestore.ContextCodec.EncodeContext)
	if err == nil && int64(len(doc)) > maxSize {
		err = fmt.Errorf("%w: %d bytes", filestore.ErrTooLarge, len(doc))
	}
	return string(doc), err
}

// Set stores sess as the session id, accessed now, whether or not there is one. It does not change sess. To
// change a session that others may change too, or may have destroyed, use Update.
func (s *Store) Set(ctx context.Context, id string, sess *filestore.Session) error {
	return s.on(ctx, "set", id, func(ctx context.Context) error {
		row, err := s.encode(ctx, id, sess)
		if err != nil {
			return err
		}
		err = s.engine.Put(ctx, row)
		if s.again(ctx, err) {
			err = s.engine.Put(ctx, row)
		}
		return err
	})
}

// Create is Set for a new session: it fails with fs.ErrExist if the id is taken by a live one.
func (s *Store) Create(ctx context.Context, id string, sess *filestore.Session) error {
	return s.on(ctx, "create", id, func(ctx context.Context) error {
		row, err := s.encode(ctx, id, sess)
		if err != nil {
			return err
		}
		stored, err := s.insert(ctx, []Row{row})
		if err == nil && !stored[0] {
			err = fs.ErrExist
		}
		return err
	})
}

// Import stores sessions as they are: their LastAccess, and with it their end, and Created stay. One without a LastAccess
// counts as accessed now. Each is stored whose id no live session has, and whose time is not over; stored says of each
// whether it was. After an error it is unknown which were; to do it again does no harm.
func (s *Store) Import(ctx context.Context, sessions []filestore.Entry) (stored []bool, err error) {
	stored = make([]bool, len(sessions))
	err = s.do(ctx, "import", "", func(ctx context.Context) error {
		var rows []Row
		var at []int // of each row in sessions
		for i, e := range sessions {
			switch {
			case !filestore.ValidID(e.ID):
				return s.wrap("import", e.ID, filestore.ErrInvalidID)
			case e.Session == nil:
				return s.wrap("import", e.ID, errNil)
			}
			sess, now := *e.Session, time.Now()
			if sess.LastAccess.IsZero() {
				sess.LastAccess = now
			}
			row, err := s.row(ctx, e.ID, &sess, now)
			if err != nil {
				return s.wrap("import", e.ID, err)
			}
			if row.Left > 0 {
				rows, at = append(rows, row), append(at, i)
			}
		}
		if len(rows) == 0 {
			return nil
		}
		done, err := s.insert(ctx, rows)
		for i, ok := range done {
			stored[at[i]] = ok
		}
		return err
	})
	return stored, err
}

// insert is Engine.Insert, but finds out what became of the rows if the answer was lost.
func (s *Store) insert(ctx context.Context, rows []Row) ([]bool, error) {
	stored, err := s.engine.Insert(ctx, rows)
	if !s.again(ctx, err) {
		return stored, err
	}
	again, err := s.engine.Insert(ctx, rows)
	if err != nil {
		return nil, err
	}
	for i, ok := range again {
		if ok {
			continue
		}
		is, err := s.engine.Get(ctx, rows[i].ID)
		if err != nil && !errors.Is(err, filestore.ErrNotFound) {
			return nil, err
		}
		again[i] = err == nil && is.Doc == rows[i].Doc // ours, of the first time: ids are not guessed
	}
	return again, nil
}

// Update reads the session id, calls fn with it and stores the result if nobody has changed the session
// meanwhile; if somebody has, it begins again, so fn can be called more than once. Nothing is locked while fn
// runs. If there is no such session, Update fails with filestore.ErrNotFound and does not call fn. It never
// makes a session. If fn returns an error, Update returns it and stores nothing. An Update takes Options.Timeout at most,
// with its function's time. filestore.ErrLockTimeout says that the time is over and others have changed the session
// meanwhile.
//
// If the server's answer gets lost, Update looks whether the change is there; nil says that it is. Any error but
// those above can mean that the change is there: others may have changed the session since, or the engine cannot
// be reached, or holds documents in a form of its own.
func (s *Store) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	return s.on(ctx, "update", id, func(ctx context.Context) error {
		return s.change(ctx, id, func(was Row, sess *filestore.Session) (doc []byte, left time.Duration, err error) {
			before, err := sess.Document()
			if err != nil {
				return nil, 0, err
			}
			at, life := sess.LastAccess, s.left(&sess.Cookie, sess.Created, sess.LastAccess)
			if err := fn(sess); err != nil {
				return nil, 0, fnError{err}
			}
			if ctx.Err() == context.DeadlineExceeded {
				return nil, 0, errSlow
			}
			now := time.Now()
			if left = was.Left; !sess.NoTouch || !sess.LastAccess.Equal(at) || life != s.left(&sess.Cookie, sess.Created, at) {
				access(sess, now)
				left = s.rest(sess, now)
			}
			if doc, err = sess.Document(); bytes.Equal(doc, before) {
				doc = nil
			}
			return doc, left, err
		})
	})
}

// change puts what next makes of the session id in its place: a document, nil if it stays as it is, and how long the
// session still lives.
func (s *Store) change(ctx context.Context, id string, next func(Row, *filestore.Session) ([]byte, time.Duration, error)) error {
	for try := 0; ; try++ {
		was, sess, err := s.load(ctx, id)
		if err != nil {
			return s.busy(ctx, try, err)
		}
		now := was
		doc, left, err := next(was, sess)
		if now.Left = left; err == nil && doc != nil {
			now.Doc, err = s.seal(ctx, id, mark(doc), s.opts.MaxSize+markSpace)
		}
		if err != nil || now == was {
			return err
		}
		done, err := s.swap(ctx, was, now)
		if err != nil {
			return s.busy(ctx, try, err)
		}
		if done {
			return nil
		}
		select { // the more conflicts, the longer, so that one of many gets through
		case <-ctx.Done():
			return s.busy(ctx, try+1, ctx.Err())
		case <-time.After(rand.N(time.Millisecond << min(try, 5))):
		}
	}
}

// mark returns doc with white space before its last brace that nobody else puts there. JSON gives it no meaning, and a
// reader drops it. It tells a change from another's that makes the same document, as two do that add 1 to a number. Between
// the members it would hide "user":"anna" from who looks for that in the text.
func mark(doc []byte) []byte {
	end, bits := len(doc)-1, rand.Uint32()
	marked := append(make([]byte, 0, len(doc)+markSize), doc[:end]...)
	for i := range markSize {
		marked = append(marked, " \t"[bits>>i&1])
	}
	return append(marked, doc[end])
}

const (
	markSize  = 16
	markSpace = 2 * markSize // beyond MaxSize, also if a Codec writes in base64
)

// busy returns the error of a change that has met conflicts until its time was over.
func (s *Store) busy(ctx context.Context, conflicts int, err error) error {
	// A client can give up just before ctx does.
	if conflicts > 0 && (errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) && err != errSlow {
		return fmt.Errorf("%w: others have changed the session %d times", filestore.ErrLockTimeout, conflicts)
	}
	return err
}

// swap is Engine.Swap, but if the answer gets lost it looks what became of the change. A new document is marked, so if
// the row holds it the change was made. If the row is as it was, swap tries again. If it is neither, the change may
// have been made and then changed again: the error stays.
func (s *Store) swap(ctx context.Context, was, now Row) (bool, error) {
	done, lost := s.engine.Swap(ctx, was, now)
	if !s.again(ctx, lost) {
		return done, lost
	}
	for range 3 {
		is, err := s.get(ctx, was.ID)
		switch {
		case errors.Is(err, filestore.ErrNotFound), err == nil && was.Doc == now.Doc && is.Doc != was.Doc:
			return false, nil // a conflict, whatever became of a change that is over
		case err != nil:
			return false, lost
		case is.Doc == now.Doc && now.Doc != was.Doc:
			return true, nil
		case is.Doc != was.Doc:
			return false, lost
		}
		// The first request can still be under way: of the two only one will find the row as it was.
		if done, err = s.engine.Swap(ctx, was, now); done || isRefused(err) {
			return done, err
		}
	}
	return false, lost
}

// Touch marks the session id as accessed now. c nil, or different from its cookie in Expires only, moves the
// session's end and leaves the document alone, as Express's stores do; but if less than half of its life is
// left until the cookie in the document expires, the document gets a new Expires too. (connect-redis's save()
// destroys a session whose cookie has expired by its document.) Any other c becomes its cookie. Touch writes
// only if the last access is as old as Options.TouchAfter says, or the document changes.
// filestore.ErrNotFound if the session is gone or its time is over: Touch never brings one back.
func (s *Store) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	return s.on(ctx, "touch", id, func(ctx context.Context) error {
		return s.change(ctx, id, func(was Row, sess *filestore.Session) ([]byte, time.Duration, error) {
			return s.touch(was, sess, c)
		})
	})
}

// touch is Touch on what change gives.
func (s *Store) touch(was Row, sess *filestore.Session, c *filestore.Cookie) (doc []byte, left time.Duration, err error) {
	now := time.Now()
	next := sess.Cookie
	if c != nil {
		same := *c
		same.Expires = next.Expires
		if same != next {
			next = *c
		}
	}
	left = s.left(&next, sess.Created, now)
	if next == sess.Cookie && next.OriginalMaxAge > 0 && next.Expires.Before(now.Add(left/2)) {
		next.Expires = now.Add(left).Truncate(time.Millisecond)
	}
	if next != sess.Cookie {
		sess.Cookie, sess.NoTouch = next, false
		access(sess, now)
		doc, err = sess.Document()
		return doc, left, err
	}
	life := format.Life(next.OriginalMaxAge, s.opts.TTL)
	after := min(cmp.Or(s.opts.TouchAfter, life/100), life/2) // longer would log out who is active
	if was.Left != Forever && s.opts.TouchAfter >= 0 && left-was.Left < after {
		left = was.Left
	}
	return nil, left, nil
}

// Destroy removes the session id. It also succeeds if the engine does not have it.
func (s *Store) Destroy(ctx context.Context, id string) error {
	return s.on(ctx, "destroy", id, func(ctx context.Context) error { return s.remove(ctx, id) })
}

// DestroyAll is Destroy for many sessions. If one of the ids is not one of filestore.ValidID, it removes none.
func (s *Store) DestroyAll(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if !filestore.ValidID(id) {
			return s.wrap("destroy", id, filestore.ErrInvalidID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return s.do(ctx, "destroy", "", func(ctx context.Context) error { return s.remove(ctx, ids...) })
}

func (s *Store) remove(ctx context.Context, ids ...string) error {
	err := s.engine.Delete(ctx, ids)
	if s.again(ctx, err) {
		err = s.engine.Delete(ctx, ids)
	}
	return err
}

// pages yields the engine's pages, without rows that filestore did not write: their ids are not ones of its own.
func (s *Store) pages(ctx context.Context, op string, docs bool) iter.Seq2[[]Row, error] {
	return func(yield func([]Row, error) bool) {
		cursor := ""
		for {
			var rows []Row
			var next string
			err := s.do(ctx, op, "", func(ctx context.Context) (err error) {
				asked := time.Now()
				rows, next, err = s.engine.Page(ctx, cursor, docs)
				if s.again(ctx, err) {
					asked = time.Now()
					rows, next, err = s.engine.Page(ctx, cursor, docs)
				}
				age(rows, asked)
				return err
			})
			rows = slices.DeleteFunc(rows, func(r Row) bool { return !filestore.ValidID(r.ID) })
			if !yield(rows, err) || err != nil || next == "" {
				return
			}
			cursor = next
		}
	}
}

// age makes rows, whose Left was told at the time then, rows of now. A page can take long to come.
func age(rows []Row, then time.Time) {
	for i := range rows {
		if rows[i].Left != Forever {
			rows[i].Left -= time.Since(then)
		}
	}
}

// IDs yields the ids of the live sessions, in no order, each once. One that is made or ended meanwhile may be
// among them.
func (s *Store) IDs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		seen := make(map[string]bool)
		for rows, err := range s.pages(ctx, "ids", false) {
			if err != nil {
				yield("", err)
				return
			}
			for _, r := range rows {
				if !seen[r.ID] && !yield(r.ID, nil) {
					return
				}
				seen[r.ID] = true
			}
		}
	}
}

// All yields the live sessions, in no order, each once, as filestore.Store.All does: what is not a session is
// passed over.
func (s *Store) All(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Scan(ctx) {
			if known := e.ID != "" && noSession(err); !known && !yield(e, err) {
				return
			}
		}
	}
}

// Scan is All, and also yields what is not a session: its ID, no Session, and the error. An error without an ID
// ends it.
func (s *Store) Scan(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		seen := make(map[string]bool)
		for rows, err := range s.pages(ctx, "all", true) {
			if err != nil {
				yield(filestore.Entry{}, err)
				return
			}
			read := time.Now()
			for i, r := range rows {
				if seen[r.ID] {
					continue
				}
				seen[r.ID] = true
				age(rows[i:i+1], read) // the loop's body can take long
				sess, err := s.decode(ctx, rows[i])
				if !yield(filestore.Entry{ID: r.ID, Session: sess}, s.wrap("all", r.ID, err)) {
					return
				}
			}
		}
	}
}

// noSession reports whether err is about what the engine holds, so that it will fail again.
func noSession(err error) bool {
	return errors.Is(err, filestore.ErrNotFound) || errors.Is(err, filestore.ErrCorrupt) ||
		errors.Is(err, filestore.ErrDecrypt) || errors.Is(err, filestore.ErrTooLarge)
}

// Len returns the number of live rows. It reads the id of each.
func (s *Store) Len(ctx context.Context) (n int, err error) {
	for _, err := range s.IDs(ctx) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// Clear destroys all sessions, and what else has an id that filestore could have written. A session that is made
// meanwhile may survive.
func (s *Store) Clear(ctx context.Context) error {
	for rows, err := range s.pages(ctx, "clear", false) {
		if err != nil {
			return err
		}
		ids := make([]string, len(rows))
		for i, r := range rows {
			ids[i] = r.ID
		}
		if len(ids) == 0 {
			continue
		}
		if err := s.do(ctx, "clear", "", func(ctx context.Context) error { return s.remove(ctx, ids...) }); err != nil {
			return err
		}
	}
	return nil
}
