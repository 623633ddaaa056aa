// Package irisstore keeps the sessions of github.com/kataras/iris/v12 in files:
//
//	man := sessions.New(sessions.Config{Cookie: "session", Expires: 24 * time.Hour, AllowReclaim: true})
//	man.UseDatabase(irisstore.New(store))
//	app.Use(man.Handler())
//
// They survive restarts and kill -9, and any number of processes may share the directory. Values are kept as
// sessions.DefaultTranscoder encodes them. By default that is JSON, which can be read in the file: an int comes back as
// a float64, which Session.GetInt converts, and Session.Decode gives back a struct.
//
// Iris reads and writes a session value by value, at once. So a request stores only the keys that it sets or deletes,
// and a slow request does not undo a logout that deletes a key; but two values that one request sets are two writes,
// and another request may see the one without the other. Set with what is there already writes nothing. A visitor who
// leaves nothing has an id, but no file.
//
// A session ends Config.Expires after it began, or after the last Sessions.ShiftExpiration, which an application calls
// in each request if a session is to live on with its use: at the end of the handler, before the first byte of the
// answer, so that the answer to a slow request does not set the cookie again after a logout. With Expires 0 a session
// ends in 100 years. With a negative one the browser drops the cookie when it ends, and the file lives for the Store's
// TTL after its last request.
//
// A session that has ended does not come back, however and in whatever process it ended: what a slow request sets
// afterwards is dropped, and the Logger is not told, as that is not an error. The process learns of another's logout at
// the end of the session's next request, and then calls the listeners of Sessions.OnDestroy. For that the middleware
// must be Sessions.Handler.
//
// No Database can help these, as Iris does not ask it:
//
//   - Iris adopts an unknown id from the client. An attacker who plants a cookie knows the id of the session
//     that begins under it: call [Database.Renew] at a login. With Config.Encoding, such as gorilla's securecookie, Iris
//     takes only ids that it has signed.
//   - Iris has no method for a new id: Renew is ours. (In v12.2.11 Sessions.Start after Sessions.Destroy in one request begins
//     a session under the old id again, also with Config.AllowReclaim.)
//   - Iris drops errors of a Database. They are logged by Config.Logger, and the answer is the handler's. A handler that must
//     know, as a login, calls [Database.Set] and [Database.Release] itself, which return them; Renew and
//     ShiftExpiration return them too.
//   - Sessions.DestroyByID, Sessions.DestroyAll and Session.Destroy end sessions that this process has used since its start.
//     [Database.Release] ends any.
//   - If a client sends the id of a session that has ended again while a slow request of that is still running, what the
//     latter sets goes into the new session of this id, which nobody is logged in to.
//   - Iris calls Release under the lock of all sessions: while a logout waits for the lock of a session's file, which
//     [filestore.Options.LockTimeout] bounds, no request of this process gets its session.
//   - Iris, and with it the Database, remembers each session that was used until it ends, that is with
//     Expires 0 for good. Flash messages are in Iris's memory only.
//
// A session that cannot be read, as its file is damaged or encrypted otherwise, counts as none: the file stays, also if
// the session is destroyed, and the Logger is told each time. As Iris adopts its id, what its visitor puts in is not
// stored, until Renew gives them another.
package irisstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/kataras/golog"
	"github.com/kataras/iris/v12"
	"github.com/kataras/iris/v12/core/memstore"
	"github.com/kataras/iris/v12/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

// A Database is a sessions.Database. It is safe for concurrent use.
type Database struct {
	maps   record.Maps[string]
	logger *golog.Logger

	mu   sync.Mutex
	used map[string]*state // by id, of the sessions that Iris has

	// Ids of sessions that have been released: if a request still has the session of before, it has ended.
	released *lru.Cache[string, struct{}]
}

// A state is what this process knows of a session. It is guarded by Database.mu.
type state struct {
	copy     record.Copy   // with the Key alone until the session has a file
	expires  time.Duration // Config.Expires
	deadline time.Time     // when Iris's timer fires; zero if there is none

	// If the first requests come at once, Iris makes two Sessions of one id, each with a timer, and prolongs one of
	// them. The other's fires between these.
	stale, staleEnd time.Time

	forget   bool // the next Release ends nothing: the session has ended already, or gets a new id
	released bool
}

// The interface has no context; waits are bound by Options.LockTimeout.
var ctx = context.Background()

// New returns a Database on s, which stays its owner's to close.
func New(s *filestore.Store) *Database {
	released, err := lru.New[string, struct{}](10_000)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Database{
		maps:     record.Maps[string]{Files: s, Encode: encode, Decode: decode},
		logger:   golog.Default,
		used:     make(map[string]*state),
		released: released,
	}
}

// SetLogger is called by UseDatabase, with Config.Logger.
func (d *Database) SetLogger(l *golog.Logger) { d.logger = l }

// Acquire returns when the session ends. If there is no such session it returns the zero LifeTime, and Iris begins one.
func (d *Database) Acquire(sid string, expires time.Duration) memstore.LifeTime {
	st := &state{copy: record.Copy{Key: sid}, expires: expires}
	var ends time.Time
	if expires > 0 {
		st.deadline = time.Now().Add(expires)
		if sess, err := d.maps.Files.Get(ctx, record.ID(sid)); err == nil {
			if _, err := d.maps.Now(ctx, &st.copy); err == nil {
				ends = sess.ExpiresAt(0)
				st.deadline = ends
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if first := d.used[sid]; first != nil { // two requests have come at once: to us the session is one
		first.stale, first.staleEnd = first.deadline, st.deadline
	} else {
		d.used[sid] = st
	}
	return memstore.LifeTime{Time: ends}
}

// look returns a copy of what is known of the session sid, and false if it has ended.
func (d *Database) look(sid string) (st *state, c record.Copy, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if st = d.used[sid]; st == nil {
		return nil, c, false
	}
	return st, st.copy, true
}

// learn notes that the session has a file. It reports false if the session has been released meanwhile.
func (d *Database) learn(st *state, c record.Copy) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !st.copy.Stored() {
		st.copy = c
	}
	return !st.released
}

// values returns what the session holds: nothing if it has ended, or cannot be read.
func (d *Database) values(sid string) (map[string]any, error) {
	st, c, ok := d.look(sid)
	if !ok {
		return nil, nil
	}
	values, err := d.maps.Now(ctx, &c)
	if err == nil {
		d.learn(st, c)
	}
	return values, d.report(err)
}

// report logs err, and returns what remains of it for a caller.
func (d *Database) report(err error) error {
	switch {
	case err == nil, errors.Is(err, filestore.ErrNotFound):
		return nil
	case record.Unreadable(err):
		d.logger.Warnf("irisstore: a session that cannot be read counts as none: %v", err)
		return nil
	}
	err = fmt.Errorf("irisstore: %w", err)
	d.logger.Error(err)
	return err
}

// Get returns a value, or nil.
func (d *Database) Get(sid, key string) (value any) {
	d.Decode(sid, key, &value)
	return value
}

// Decode stores a value in what outPtr points to. If there is no such value, that stays as it is.
func (d *Database) Decode(sid, key string, outPtr any) error {
	values, err := d.values(sid)
	if b, ok := values[key]; ok && err == nil {
		if err = unwrap(b, outPtr); err != nil {
			d.logger.Errorf("irisstore: %v", err)
		}
	}
	return err
}

// Visit calls cb with each value.
func (d *Database) Visit(sid string, cb func(key string, value any)) error {
	values, err := d.values(sid)
	for key, b := range values {
		var value any
		if err2 := unwrap(b, &value); err2 != nil {
			err = errors.Join(err, err2)
			d.logger.Errorf("irisstore: %v", err2)
			continue
		}
		cb(key, value)
	}
	return err
}

// Len returns the number of values.
func (d *Database) Len(sid string) int {
	values, _ := d.values(sid)
	return len(values)
}

// Set stores a value. If the session has ended it does nothing. A session without a file gets one, which ends after ttl;
// no other Set changes the end.
func (d *Database) Set(sid, key string, value any, ttl time.Duration, _ bool) error {
	b, err := wrap(value)
	if err != nil {
		d.logger.Errorf("irisstore: %v", err)
		return err
	}
	return d.edit(sid, ttl, func(values map[string]any) bool {
		old, ok := values[key].(json.RawMessage)
		values[key] = b
		return !ok || !bytes.Equal(old, b)
	})
}

// Delete removes a value, and reports that there was one.
func (d *Database) Delete(sid, key string) (deleted bool) {
	err := d.edit(sid, 0, func(values map[string]any) bool {
		_, deleted = values[key]
		delete(values, key)
		return deleted
	})
	return deleted && err == nil
}

// Clear removes all values. The session goes on.
func (d *Database) Clear(sid string) error {
	return d.edit(sid, 0, func(values map[string]any) bool {
		had := len(values) > 0
		clear(values)
		return had
	})
}

func (d *Database) edit(sid string, ttl time.Duration, change func(map[string]any) bool) error {
	st, c, ok := d.look(sid)
	if !ok {
		return nil
	}
	err := d.maps.Edit(ctx, &c, st.life(max(ttl, time.Millisecond)), change)
	if err == nil && c.Stored() && !d.learn(st, c) { // Release may have come before there was a file
		err = d.maps.Remove(ctx, &c)
	}
	if record.Unreadable(err) {
		err = fmt.Errorf("irisstore: %w", err) // there is no file that could take it
		d.logger.Error(err)
		return err
	}
	return d.report(err)
}

// OnUpdateExpiration starts the life of the session again. It writes only if the end moves ahead by 1 % of newExpires or
// more, or moves back. It is sessions.ErrNotFound if the session has ended or cannot be read.
func (d *Database) OnUpdateExpiration(sid string, newExpires time.Duration) error {
	st, c, ok := d.look(sid)
	if !ok {
		return sessions.ErrNotFound
	}
	_, err := d.maps.Now(ctx, &c)
	if err == nil {
		err = d.prolong(sid, newExpires)
	} else if errors.Is(err, filestore.ErrNotFound) && !c.Stored() {
		err = nil // it has no file yet
	}
	switch {
	case err == nil:
		d.mu.Lock()
		st.deadline = time.Now().Add(newExpires)
		d.mu.Unlock()
		return nil
	case errors.Is(err, filestore.ErrNotFound), record.Unreadable(err):
		d.report(err)
		return sessions.ErrNotFound
	}
	return d.report(err)
}

func (d *Database) prolong(sid string, life time.Duration) error {
	sess, err := d.maps.Files.Get(ctx, record.ID(sid))
	if err != nil {
		return err
	}
	if later := life - time.Until(sess.ExpiresAt(0)); -time.Millisecond <= later && later < life/100 { // files have milliseconds
		return nil
	}
	return record.Touch(ctx, d.maps.Files, sid, life)
}

// life is what a file gets for a session that is to live for d, if its lives end.
func (st *state) life(d time.Duration) time.Duration {
	switch {
	case st.expires == 0:
		return record.Forever
	case st.expires < 0:
		return 0 // the Store's TTL
	}
	return d
}

// over reports that it is Iris's timer that calls Release now.
func (st *state) over(now time.Time) bool {
	const early, late = 50 * time.Millisecond, time.Second // it was set a moment before, and may wait for Iris's lock
	if st.deadline.IsZero() {
		return false
	}
	return st.deadline.Sub(now) < early || st.stale.Sub(now) < early && now.Sub(st.staleEnd) < late
}

// Release ends a session; there need not be one. Iris calls it at a logout, and also when the time of a session is over as
// far as this process knows: another may have prolonged it, so that the session is only forgotten here, and goes on.
func (d *Database) Release(sid string) error {
	d.mu.Lock()
	st := d.used[sid]
	if st == nil {
		st = &state{copy: record.Copy{Key: sid}}
	}
	delete(d.used, sid)
	over := st.over(time.Now())
	if !over {
		st.released = true
		d.released.Add(sid, struct{}{})
	}
	c, forget := st.copy, st.forget
	d.mu.Unlock()
	if over || forget {
		return nil
	}
	_, err := d.maps.Now(ctx, &c)
	if err == nil {
		err = d.maps.Remove(ctx, &c)
	}
	return d.report(err) // a file that cannot be read stays, and so does somebody else's
}

// Close does nothing. Iris calls it at an interrupt, when requests are still running.
func (d *Database) Close() error { return nil }

// EndRequest is called by Sessions.Handler. If the session has ended in another process, Iris learns of that.
func (d *Database) EndRequest(_ iris.Context, session *sessions.Session) {
	st, c, ok := d.look(session.ID())
	if !ok || !c.Stored() {
		return
	}
	err := d.maps.Present(ctx, &c)
	if err == nil && st.expires < 0 {
		err = d.maps.Files.Touch(ctx, record.ID(c.Key), nil)
	}
	if errors.Is(err, filestore.ErrNotFound) {
		d.forget(st)
		session.Destroy()
	}
}

func (d *Database) forget(st *state) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st.forget = true
}

// Renew gives the request's session a new id, as at a login, and returns the session under that, as sessions.Get does from
// then on. What it holds stays, also what other requests set meanwhile. If the session has ended since the request
// got it, as by a logout, or was renewed by another request, the error is [filestore.ErrNotFound], and nothing is stored.
//
// Without Config.AllowReclaim the manager goes by the id of before in the rest of the request.
func (d *Database) Renew(c iris.Context, man *sessions.Sessions) (*sessions.Session, error) {
	old := sessions.Get(c)
	if old == nil { // the request has destroyed it
		return d.start(c, man), nil
	}
	ended := fmt.Errorf("irisstore: the session has ended: %w", filestore.ErrNotFound)
	if d.released.Contains(old.ID()) && man.Start(c) != old { // then another session has its id
		return nil, ended
	}
	st, was, ok := d.look(old.ID())
	if !ok {
		return nil, ended
	}
	values, err := d.maps.Now(ctx, &was)
	moves := err == nil
	if errors.Is(err, filestore.ErrNotFound) && was.Stored() {
		return nil, ended
	}
	if err = d.report(err); err != nil {
		return nil, err
	}
	sent, set := c.Request().Header, c.ResponseWriter().Header()
	cookies, setCookies := slices.Clone(sent["Cookie"]), slices.Clone(set["Set-Cookie"])
	next := d.start(c, man)
	if moves {
		nextState, _, _ := d.look(next.ID())
		if err = d.maps.Move(ctx, &was, next.ID(), values, st.life(st.expires)); err != nil {
			next.Destroy()
			sent["Cookie"], set["Set-Cookie"] = cookies, setCookies // the browser goes on as before
			return nil, fmt.Errorf("irisstore: %w", err)
		}
		d.learn(nextState, was)
	}
	d.forget(st)
	old.Destroy()
	c.Values().Visit(func(key string, v any) {
		if v == any(old) {
			c.Values().Set(key, next)
		}
	})
	return next, nil
}

// start begins a session with a new id, whatever cookies the request has. (AllowReclaim should do that, but
// Context.RemoveCookie applies it before the cookie has its name.)
func (d *Database) start(c iris.Context, man *sessions.Sessions) *sessions.Session {
	h := c.Request().Header
	before := h["Cookie"]
	h.Del("Cookie")
	next := man.Start(c)
	h.Set("Cookie", strings.Join(append(h["Cookie"], before...), "; ")) // of two with one name the first counts
	return next
}
