package session_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// MemoryStore has the three methods that the middleware needs.
type MemoryStore struct {
	TTL time.Duration

	mu       sync.Mutex
	sessions map[string]*filestore.Session
}

func (m *MemoryStore) Get(_ context.Context, id string) (*filestore.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok || s.ExpiresAt(m.TTL).Before(time.Now()) {
		delete(m.sessions, id)
		return nil, filestore.ErrNotFound
	}
	return s, nil
}

func (m *MemoryStore) Set(_ context.Context, id string, s *filestore.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions == nil {
		m.sessions = make(map[string]*filestore.Session)
	}
	m.sessions[id] = s
	return nil
}

func (m *MemoryStore) Destroy(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, id)
	return nil
}

func ExampleStore() {
	sessions := &session.Manager{Store: &MemoryStore{TTL: time.Hour}, Secrets: []string{"keyboard cat"}}
	_ = sessions.Handler(http.NotFoundHandler())
}

func ExampleManager() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		if err := s.Login("anna"); err != nil { // under a new id
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		if r.FormValue("remember") != "" {
			s.Cookie.OriginalMaxAge = 30 * 24 * time.Hour
		}
		s.Flash("info", "Welcome back.")
		http.Redirect(w, r, "/", http.StatusSeeOther) // the session is stored before this leaves
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Logout(); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		user, _ := session.Value[string](s, "user")
		messages, _ := s.Flashes("info")
		fmt.Fprintln(w, user, messages)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(mux)))
}
