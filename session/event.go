package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"

	"github.com/sessionfilestore/filestore"
)

// This file tells the application what happens to sessions, without showing an id.

// An Event says what has happened to a session. It is for an audit log: it has nothing
// that opens a session. It is sent once, after the Store has answered. (Destroy does not
// learn whether another request was faster, so that one logout can give two events: use
// Logout.)
type Event struct {
	Kind EventKind

	// Handle is the session's Info.Handle, that of the new id if it has one; "" if the
	// event is not about one session.
	Handle string

	// User says whose the session is, as Manager.User has it; "" if nobody has logged in,
	// and in an event that is not about one session.
	User string

	// Reason says by what a session has ended, or why it cannot be read.
	Reason string

	// Sessions is their number: more than 1 only if the Store's reaper has removed them.
	Sessions int
}

// EventKind is what has happened.
type EventKind string

const (
	Created    EventKind = "created"    // a new session was stored
	Renewed    EventKind = "renewed"    // Regenerate or Renew has given it another id
	LoggedIn   EventKind = "logged in"  // by Login, which has given it another id
	LoggedOut  EventKind = "logged out" // by Logout or Destroy
	Ended      EventKind = "ended"      // not by its own request: Reason is one of the next six
	Unreadable EventKind = "unreadable" // its visitor got a new one; Reason is the error's
)

// The reasons of Ended.
const (
	ByEnd    = "Manager.End"
	ByEndAll = "Manager.EndAll"
	ByOthers = "Session.EndOthers"
	ByLimit  = "Manager.MaxPerUser"
	ByLogout = "Session.Logout" // another process had given it a new id
	ByExpiry = "expired"        // the Store has removed what had expired; see filestore.Store.Reap
)

const handleLen = 16 // bytes

// note keeps an event about a session that holds v until the turn ends. Its caller holds mu.
func (s *Session) note(kind EventKind, id string, v values) {
	if s.m.OnEvent != nil {
		s.events = append(s.events, Event{Kind: kind, Handle: s.m.handle(id, v), User: s.m.userOf(v), Sessions: 1})
	}
}

// noteEnded keeps events about other sessions.
func (s *Session) noteEnded(events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
}

// tell sends what was noted. Its caller holds neither mu nor the turn.
func (s *Session) tell() {
	s.mu.Lock()
	events := s.events
	s.events = nil
	s.mu.Unlock()
	s.m.tell(s.ctx, events...)
}

func (m *Manager) tell(ctx context.Context, events ...Event) {
	if m.OnEvent == nil {
		return
	}
	for _, e := range events {
		m.OnEvent(ctx, e)
	}
}

// tellReaped lets the Store tell what its reaper removes. It is called once.
func (m *Manager) tellReaped() {
	r, ok := m.Store.(Reaper)
	if !ok || m.OnEvent == nil {
		return
	}
	r.OnReap(func(removed int) {
		defer logPanic(context.Background()) // the Store's goroutine has nobody who recovers
		m.tell(context.Background(), Event{Kind: Ended, Reason: ByExpiry, Sessions: removed})
	})
}

// reasonOf returns the text of an unreadable's sentinel: the error itself names an id.
func reasonOf(err error) string {
	for _, sentinel := range []error{filestore.ErrCorrupt, filestore.ErrDecrypt, filestore.ErrTooLarge, filestore.ErrUnsafeFile} {
		if errors.Is(err, sentinel) {
			return sentinel.Error()
		}
	}
	return "unknown"
}

// handleKey returns the key of the handles. All programs that share the secrets have the
// same, and no file shows it.
func handleKey(secret string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("filestore: the handles of sessions"))
	return mac.Sum(nil)
}

// handle returns the handle of the session id with these values.
func (m *Manager) handle(id string, v values) string {
	mac := hmac.New(sha256.New, m.shared.key)
	mac.Write([]byte(origin(id, v)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:handleLen])
}

// origin names a session whatever id it has by now: by a hash of the id that it had after
// its Login, which Renew keeps.
func origin(id string, v values) string {
	if raw, ok := v[originMember]; ok {
		return string(raw)
	}
	sum := sha256.Sum256([]byte(id))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:handleLen]) + `"`
}
