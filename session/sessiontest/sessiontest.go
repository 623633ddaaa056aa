// Package sessiontest helps with tests. An application tests its handlers with NewStore, a Store in
// memory, and Request, a request with a session. A new session.Store is tested with Run:
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
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// A Store keeps sessions in memory for tests. It never removes expired sessions. It is a session.Store
// with all optional methods, and safe for concurrent use.
type Store struct {
	mu       sync.Mutex
	sessions map[string]*filestore.Session
}

// NewStore returns an empty Store.
func NewStore() *Store { return &Store{sessions: make(map[string]*filestore.Session)} }

// TTL returns an hour, filestore's default.
func (s *Store) TTL() time.Duration { return time.Hour }

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
	if !sess.ExpiresAt(s.TTL()).After(time.Now()) {
		return nil, fmt.Errorf("sessiontest: %w", filestore.ErrExpired)
	}
	return clone(sess), nil
}

// set stores a copy of sess with the last access set to now. Its caller holds mu.
func (s *Store) set(id string, sess *filestore.Session) error {
	if !filestore.ValidID(id) {
		return fmt.Errorf("sessiontest: %w", filestore.ErrInvalidID)
	}
	own := clone(sess)
	own.LastAccess = time.Now()
	s.sessions[id] = own
	return nil
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
			sess.Cookie.Expires = time.Now().Add(age).Truncate(time.Millisecond)
		}
		return nil
	})
}

// Destroy removes the session id, if there is one.
func (s *Store) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
	return nil
}

// Request stores a new session with values, and returns r with its cookie: for example, a request of
// a user who is logged in. It changes r. It panics if m does not store such a session.
func Request(r *http.Request, m *session.Manager, values map[string]any) *http.Request {
	first := httptest.NewRequest("GET", "https://"+r.Host+"/", nil) // TLS, because some cookies need it
	first.RequestURI = r.URL.Path
	if first.RequestURI == "" {
		first.RequestURI = "/"
	}
	w := httptest.NewRecorder()
	var err error
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := m.From(r)
		err = s.Regenerate() // so that it is stored even without values
		for key, v := range values {
			if err == nil {
				err = s.Put(key, v)
			}
		}
	})).ServeHTTP(w, first)
	cookies := w.Result().Cookies()
	if err != nil || w.Code != http.StatusOK || len(cookies) != 1 {
		panic(fmt.Sprintf("sessiontest: Request: the Manager stored no session: status %d, %d cookies, %v", w.Code, len(cookies), err))
	}
	r.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: cookies[0].Value})
	return r
}
