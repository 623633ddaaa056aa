package session

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// shared is what the requests of a Manager share.
type shared struct {
	ttl      time.Duration // how long a session lives whose cookie does not say
	ttlKnown bool

	mu    sync.Mutex
	said  map[string]bool
	next  map[string][]replacement // by the old id
	order []string                 // of the same, oldest first
}

type replacement struct {
	id string // the new one
	at time.Time
}

const (
	// How long an answer to the old id sets no cookie: longer than the browser needs to
	// hear of the new one.
	quiet = 10 * time.Second

	// How long a logout with the old id destroys the new session.
	rememberReplaced = time.Hour

	maxReplaced = 10_000 // remembered at a time
)

var sharing sync.Mutex // guards Manager.shared while Handlers are made

func (m *Manager) share() {
	sharing.Lock()
	defer sharing.Unlock()
	if m.shared != nil {
		return
	}
	m.shared = &shared{ttl: unknownLife, said: make(map[string]bool), next: make(map[string][]replacement)}
	if l, ok := m.Store.(Lifer); ok {
		m.shared.ttl, m.shared.ttlKnown = l.TTL(), true
	}
}

// replace notes that the session old is becoming the session id.
func (s *shared) replace(old, id string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 {
		first := s.next[s.order[0]]
		if len(s.order) < maxReplaced && len(first) > 0 && now.Sub(first[len(first)-1].at) < rememberReplaced {
			break
		}
		delete(s.next, s.order[0])
		s.order = s.order[1:]
	}
	if _, ok := s.next[old]; !ok {
		s.order = append(s.order, old)
	}
	s.next[old] = append(s.next[old], replacement{id, now})
}

// forget takes back what replace noted. (The id stays in order, where it does no harm.)
func (s *shared) forget(old, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next[old] = slices.DeleteFunc(s.next[old], func(r replacement) bool { return r.id == id })
}

// successors returns the ids that have replaced the sessions ids, and those that have
// replaced these in turn.
func (s *shared) successors(ids ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	seen := make(map[string]bool) // a GenID may go round in a circle
	for len(ids) > 0 {
		next := s.next[ids[0]]
		ids = ids[1:]
		for _, r := range next {
			if !seen[r.id] {
				seen[r.id] = true
				found, ids = append(found, r.id), append(ids, r.id)
			}
		}
	}
	return found
}

// wasReplaced reports whether the session id has been replaced.
func (s *shared) wasReplaced(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.next[id]) > 0
}

// justReplaced reports whether that was a moment ago.
func (s *shared) justReplaced(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.next[id], func(r replacement) bool { return time.Since(r.at) < quiet })
}

// say logs a warning about the settings once.
func (m *Manager) say(warning error) {
	text := warning.Error()
	m.shared.mu.Lock()
	first := !m.shared.said[text]
	m.shared.said[text] = true
	m.shared.mu.Unlock()
	if first {
		slog.Warn(text)
	}
}
