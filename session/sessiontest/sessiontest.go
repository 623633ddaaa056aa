// Package sessiontest is for tests: a Store in memory, a request of somebody who is logged in, and
// what every session.Store must pass.
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

// A Store keeps sessions in memory, until they are destroyed or the program ends: for tests. It is a
// session.Store with all that a Store may also be, and safe for concurrent use.
type Store struct {
	mu       sync.Mutex
	sessions map[string]*filestore.Session
}

// NewStore returns an empty Store.
func NewStore() *Store { return &Store{sessions: make(map[string]*filestore.Session)} }

// TTL is an hour, as filestore's default.
func (s *Store) TTL() time.Duration { return time.Hour }

// Get returns a copy of the session id. It is a filestore.ErrNotFound if there is none or it has
// expired.
func (s *Store) Get(_ context.Context, id string) (*filestore.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id)
}

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

// set stores a copy of sess, accessed now. Its caller has mu.
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

// Set stores a copy of sess as the session id, whether or not there is one.
func (s *Store) Set(_ context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(id, sess)
}

// Create is Set for a new session: it fails with fs.ErrExist if the id is taken.
func (s *Store) Create(_ context.Context, id string, sess *filestore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(id); err == nil {
		return fmt.Errorf("sessiontest: %w", fs.ErrExist)
	}
	return s.set(id, sess)
}

// Update lets fn change the session id. fn must not use the Store.
func (s *Store) Update(_ context.Context, id string, fn func(*filestore.Session) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess, err := s.get(id)
	if err == nil {
		err = fn(sess)
	}
	if err != nil {
		return err
	}
	return s.set(id, sess)
}

// Touch marks the session id as accessed now, with the cookie c; see session.Toucher.
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

// Destroy removes the session id. There need not be one.
func (s *Store) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
	return nil
}

// Request returns r with the cookie of a new session of m that holds values: a request of somebody
// who is logged in, say. It changes r, and panics if m stores no session with these values.
func Request(r *http.Request, m *session.Manager, values map[string]any) *http.Request {
	first := httptest.NewRequest("GET", "https://"+r.Host+"/", nil) // over TLS, where each cookie may be set
	first.RequestURI = r.URL.Path
	if first.RequestURI == "" {
		first.RequestURI = "/"
	}
	w := httptest.NewRecorder()
	var err error
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := m.From(r)
		err = s.Regenerate() // so that it is stored without values too
		for key, v := range values {
			if err == nil {
				err = s.Put(key, v)
			}
		}
	})).ServeHTTP(w, first)
	cookies := w.Result().Cookies()
	if err != nil || w.Code != http.StatusOK || len(cookies) != 1 {
		panic(fmt.Sprintf("sessiontest: no session: status %d, %d cookies, %v", w.Code, len(cookies), err))
	}
	r.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: cookies[0].Value})
	return r
}
