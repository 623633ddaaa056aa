// Package sessiontest helps with tests. An application tests its handlers with NewStore, a Store in
// memory, and Request and Login, which make a request with a session. A new session.Store is tested with Run:
//
//	func TestStore(t *testing.T) {
//		sessiontest.Run(t, func(t *testing.T) session.Store { return newEmptyStore(t) })
//	}
package sessiontest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/session"
)

// A Store keeps sessions in memory for tests. Only Reap removes expired sessions. It is a session.Store
// with all optional methods, and safe for concurrent use. Make one with NewStore.
type Store struct {
	// Limit is what Lifetime returns, 0 = no limit. It must not be changed after the first use.
	Limit time.Duration

	mu       sync.Mutex
	sessions map[string]*filestore.Session
	watchers map[*watcher]bool
	onReap   []func(removed int)
}

// A watcher is a loop over Watch. The Store's mu guards its queue.
type watcher struct {
	queue []filestore.Event
	wake  chan struct{} // has a token if there is something in the queue
}

// NewStore returns an empty Store.
func NewStore() *Store {
	return &Store{sessions: make(map[string]*filestore.Session), watchers: make(map[*watcher]bool)}
}

// TTL returns an hour, filestore's default.
func (s *Store) TTL() time.Duration { return time.Hour }

// Lifetime returns s.Limit: how long a session lives at most since it was created.
func (s *Store) Lifetime() time.Duration { return s.Limit }

// Get returns a copy of the session id. It fails with filestore.ErrNotFound if there is none, or if it
// has expired; then the error is also filestore.ErrExpired.
func (s *Store) Get(_ context.Context, id string) (*filestore.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id)
}

// get is Get. Its caller holds mu.
func (s *Store) get(id string) (*filestore.Session, error) {
	sess, ok := s.sessions[id]
	if !ok {
		return nil, fmt.Errorf("sessiontest: %w", filestore.ErrNotFound)
	}
	now := time.Now()
	if !sess.ExpiresAt(s.TTL()).After(now) || s.Limit > 0 && !sess.Created.Add(s.Limit).After(now) {
		return nil, fmt.Errorf("sessiontest: %w", filestore.ErrExpired)
	}
	return clone(sess), nil
}

// set stores a copy of sess with the last access set to now. Its caller holds mu.
func (s *Store) set(id string, sess *filestore.Session) error {
	if !filestore.ValidID(id) {
		return fmt.Errorf("sessiontest: %w", filestore.ErrInvalidID)
	}
	own, now := clone(sess), time.Now()
	if !own.NoTouch || own.LastAccess.IsZero() {
		own.LastAccess = now
	}
	if own.Created.IsZero() {
		own.Created = now
	}
	own.NoTouch = false
	s.sessions[id] = own
	s.tell(filestore.Event{Op: filestore.Changed, ID: id})
	return nil
}

// tell hands e to those who watch. Its caller holds mu.
func (s *Store) tell(e filestore.Event) {
	for w := range s.watchers {
		w.queue = append(w.queue, e)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func clone(sess *filestore.Session) *filestore.Session {
	own := *sess
	own.Values = maps.Clone(sess.Values)
	for key, raw := range own.Values {
		own.Values[key] = bytes.Clone(raw)
	}
	return &own
}

// Set stores a copy of sess as the session id, whether or not there is one. It fails with
// filestore.ErrInvalidID if filestore would not accept the id.
func (s *Store) Set(_ context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(id, sess)
}

// Create is Set for a new session. It fails with fs.ErrExist if there is one.
func (s *Store) Create(_ context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(id); err == nil {
		return fmt.Errorf("sessiontest: %w", fs.ErrExist)
	}
	return s.set(id, sess)
}

// Update stores what fn makes of the session id; see session.Updater. As filestore's, it runs fn without a
// lock, and again if the session has changed meanwhile.
func (s *Store) Update(_ context.Context, id string, fn func(*filestore.Session) error) error {
	for {
		s.mu.Lock()
		was := s.sessions[id]
		sess, err := s.get(id)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if err := fn(sess); err != nil {
			return err
		}
		if done, err := s.setIf(id, was, sess); done {
			return err
		}
	}
}

// setIf is set if the session id still is was.
func (s *Store) setIf(id string, was, sess *filestore.Session) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[id] != was {
		return false, nil
	}
	return true, s.set(id, sess)
}

// Touch marks the session id as accessed now; see session.Toucher.
func (s *Store) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	return s.Update(ctx, id, func(sess *filestore.Session) error {
		if c != nil {
			sess.Cookie = *c
		} else if age := sess.Cookie.OriginalMaxAge; age != 0 {
			life := format.Capped(age, time.Now(), sess.Created, s.Limit)
			sess.Cookie.Expires = time.Now().Add(life).Truncate(time.Millisecond)
		}
		return nil
	})
}

// Destroy removes the session id, if there is one.
func (s *Store) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[id]; ok {
		delete(s.sessions, id)
		s.tell(filestore.Event{Op: filestore.Destroyed, ID: id})
	}
	return nil
}

// Find yields the sessions whose member is value; see session.Finder.
func (s *Store) Find(_ context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	var found []filestore.Entry
	keys := format.Keys(value)
	s.mu.Lock()
	for id := range s.sessions {
		sess, err := s.get(id)
		if err != nil {
			continue
		}
		if key, ok := format.KeyOf(format.MemberOf(sess.Values, member)); ok && slices.Contains(keys, key) {
			found = append(found, filestore.Entry{ID: id, Session: sess})
		}
	}
	s.mu.Unlock()
	return func(yield func(filestore.Entry, error) bool) {
		for _, e := range found {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Watch yields the changes of sessions until ctx is done; see session.Watcher.
func (s *Store) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {
		w := &watcher{wake: make(chan struct{}, 1)}
		s.mu.Lock()
		s.watchers[w] = true
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.watchers, w)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			s.mu.Lock()
			queue := w.queue
			w.queue = nil
			s.mu.Unlock()
			for _, e := range queue {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Reap removes the sessions that have expired, and returns their number.
func (s *Store) Reap(context.Context) (n int, err error) {
	s.mu.Lock()
	for id := range s.sessions {
		if _, err := s.get(id); err != nil {
			delete(s.sessions, id)
			s.tell(filestore.Event{Op: filestore.Destroyed, ID: id})
			n++
		}
	}
	told := slices.Clone(s.onReap)
	s.mu.Unlock()
	for _, fn := range told {
		if n > 0 {
			fn(n)
		}
	}
	return n, nil
}

// OnReap lets Reap call fn if it has removed sessions; see session.Reaper.
func (s *Store) OnReap(fn func(removed int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onReap = append(s.onReap, fn)
}

// Request stores a new session with values, and returns r with its cookie. It changes r. It panics if m
// does not store such a session. See also Login.
func Request(r *http.Request, m *session.Manager, values map[string]any) *http.Request {
	return request(r, m, values, (*session.Session).Regenerate) // so that it is stored even without values
}

// Login is Request for a session in which user has just logged in.
func Login(r *http.Request, m *session.Manager, user string, values map[string]any) *http.Request {
	return request(r, m, values, func(s *session.Session) error { return s.Login(user) })
}

func request(r *http.Request, m *session.Manager, values map[string]any, begin func(*session.Session) error) *http.Request {
	first := httptest.NewRequest("GET", "https://"+r.Host+"/", nil) // TLS, because some cookies need it
	first.RequestURI = r.URL.Path
	if first.RequestURI == "" {
		first.RequestURI = "/"
	}
	w := httptest.NewRecorder()
	var err error
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := m.From(r)
		err = begin(s)
		for key, v := range values {
			if err == nil {
				err = s.Put(key, v)
			}
		}
	})).ServeHTTP(w, first)
	cookies := w.Result().Cookies()
	if err != nil || w.Code != http.StatusOK || len(cookies) != 1 {
		panic(fmt.Sprintf("sessiontest: the Manager stored no session: status %d, %d cookies, %v", w.Code, len(cookies), err))
	}
	r.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: cookies[0].Value})
	return r
}
