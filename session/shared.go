package session

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file holds what the requests of a Manager share: the Store's TTL, the warnings
// already given, and which ids have just replaced which.

// A shared belongs to one Manager, for all its Handlers.
type shared struct {
	ttl      time.Duration // the life of a session whose cookie has no maxAge
	ttlKnown bool          // else ttl is a guess
	lifetime time.Duration // of the Store; 0 = none
	key      []byte        // of the handles
	doors    doors
	begun    sync.Once // asks the Store

	mu       sync.Mutex
	warned   map[string]bool          // warnings that were given
	replaced map[string][]replacement // by the old id
	order    []string                 // the old ids, oldest first
}

// A replacement is the new id of a session. One session can have several for a
// moment: only one of the requests that replace it succeeds.
type replacement struct {
	id string
	at time.Time
}

const (
	// noCookieFor is how long answers to the old id set no cookie. The browser must have
	// received the new id by then.
	noCookieFor = 10 * time.Second

	// rememberFor is how long a logout with the old id also destroys the new session.
	rememberFor = time.Hour

	// maxReplaced bounds the memory: with two ids of 32 bytes each, some 2 MB.
	maxReplaced = 10_000
)

// sharedMu guards Manager.shared while Handlers are made.
var sharedMu sync.Mutex

// initShared makes m.shared, unless that has been done. Whoever comes meanwhile waits.
func (m *Manager) initShared() {
	sharedMu.Lock()
	if m.shared == nil {
		m.shared = &shared{
			ttl: unknownLife, warned: make(map[string]bool), replaced: make(map[string][]replacement), key: handleKey(m.Secrets[0]),
		}
	}
	s := m.shared
	sharedMu.Unlock() // the Store may use another Manager
	s.begun.Do(m.askStore)
}

func (m *Manager) askStore() {
	if l, ok := m.Store.(Lifer); ok {
		m.shared.ttl, m.shared.ttlKnown = l.TTL(), true
	}
	if l, ok := m.Store.(Limiter); ok {
		m.shared.lifetime = l.Lifetime()
	}
	m.tellReaped()
}

// ready makes m.shared for those who come without a request. It fails if m cannot work.
func (m *Manager) ready() error {
	if err := m.check(); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	m.initShared()
	return nil
}

// noteReplaced remembers that the session id is replacing the session old, and drops
// what is too old or too much.
func (s *shared) noteReplaced(old, id string) {
	now := time.Now()
	old = strings.Clone(old) // it may be part of a large header
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 {
		first := s.replaced[s.order[0]]
		if len(s.order) < maxReplaced && len(first) > 0 && now.Sub(first[len(first)-1].at) < rememberFor {
			break
		}
		delete(s.replaced, s.order[0])
		s.order = s.order[1:]
	}
	if _, ok := s.replaced[old]; !ok {
		s.order = append(s.order, old)
	}
	s.replaced[old] = append(s.replaced[old], replacement{id, now})
}

// forgetReplaced takes noteReplaced back. The old id stays in order, where it does no
// harm.
func (s *shared) forgetReplaced(old, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaced[old] = slices.DeleteFunc(s.replaced[old], func(r replacement) bool { return r.id == id })
}

// successors returns the ids that have replaced ids, the ids that have replaced those,
// and so on.
func (s *shared) successors(ids ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	seen := make(map[string]bool) // so that a GenID that repeats ids makes no endless loop
	for len(ids) > 0 {
		next := s.replaced[ids[0]]
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
	return len(s.replaced[id]) > 0
}

// justReplaced reports whether the session id was replaced within noCookieFor.
func (s *shared) justReplaced(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.replaced[id], func(r replacement) bool { return time.Since(r.at) < noCookieFor })
}

// warnOnce logs a warning about the settings, the first time only.
func (m *Manager) warnOnce(warning error) {
	text := warning.Error()
	m.shared.mu.Lock()
	first := !m.shared.warned[text]
	m.shared.warned[text] = true
	m.shared.mu.Unlock()
	if first {
		slog.Warn(text)
	}
}
