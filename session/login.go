package session

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

// This file logs users in and out.

// The members that Login writes.
const (
	authenticatedMember = "__authenticated"
	noteMember          = "__note"
	originMember        = "__origin" // Renew's; see origin
)

// ErrNoUser is returned if no user is named, or if nobody has logged in.
var ErrNoUser = errors.New("session: no user")

// A Note is what Login keeps so that users recognise their sessions in a list. It is
// personal data: say so in your privacy notice.
type Note struct {
	Agent string `json:"agent,omitempty"` // for example http.Request.UserAgent; the first 256 bytes are kept
	Addr  string `json:"addr,omitempty"`  // for example Network(r.RemoteAddr)
}

const maxNote = 256 // bytes of each field

// Network returns the network of an address with or without a port: the first 24 bits of
// an IPv4 address, the first 48 of an IPv6 one. It tells a town, perhaps, and not a
// household. It returns "" for what is not an address.
func Network(addr string) string {
	ip, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		port, portErr := netip.ParseAddrPort(addr)
		if portErr != nil {
			return ""
		}
		ip = port.Addr()
	}
	ip = ip.Unmap().WithZone("")
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	prefix, _ := ip.Prefix(bits) // it fails only if there are too many bits
	return prefix.String()
}

// Login makes s the session of user, which it writes into the member Manager.User. Call it
// when the user's password or the like was checked, also a second time, for Fresh. The
// session gets a new id, and keeps its values, unless they were another user's: then it
// begins empty. All else begins again: when it was created, its cookie, its note. Set
// the cookie's life after Login. When Login returns nil the session is stored, and
// Manager.Sessions has it.
//
// If another request has destroyed or replaced the session meanwhile, as a logout does,
// Login fails with filestore.ErrNotFound. Its other errors are those of Regenerate. After
// each of them nobody has logged in, and the old session is as it was. It may be gone only
// if Login fails in its last step, which removes the old session. Login fails
// with ErrNoUser if user is "", with errors.ErrUnsupported if there is a
// Manager.MaxPerUser and the Store is not a Finder, and if Manager.User is in a member
// that is not an object.
//
// With Manager.MaxPerUser, Login ends the sessions of user that have logged in first, of
// as many as are too many by then. Times are in milliseconds: of two logins in one either
// counts as the first. If many log in at the same moment, one of those that end can be the
// session itself. An error in this step goes to Manager.ErrorFunc.
func (s *Session) Login(user string) error {
	switch {
	case s == nil:
		return ErrNoSession
	case user == "":
		return fmt.Errorf("session: login: %w", ErrNoUser)
	}
	if _, ok := s.m.Store.(Finder); !ok && s.m.MaxPerUser > 0 {
		return fmt.Errorf("session: login: %w", errNoFinder)
	}
	var one filestore.Session
	if err := one.Put("user", user); err != nil {
		return err
	}
	var note Note
	if s.m.Note != nil {
		note = s.m.Note(s.r)
		note = Note{cut(note.Agent), cut(note.Addr)}
	}
	return s.succeed("login", successor{values: true, login: func(v values) (err error) {
		if was := s.m.userOf(v); was != "" && !s.m.isOf(v, user) {
			clear(v) // a cart, a role, an address: they are not this user's
		}
		v[authenticatedMember] = strconv.AppendInt(nil, time.Now().UnixMilli(), 10)
		delete(v, noteMember)
		delete(v, originMember)
		if note != (Note{}) {
			v[noteMember], _ = json.Marshal(note) // strings that are UTF-8 always have a JSON form
		}
		path := s.m.userPath()
		v[path[0]], err = setMember(v[path[0]], path[1:], one.Values["user"])
		return err
	}})
}

// cut returns what is kept of a field of a Note.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxNote {
		s = strings.ToValidUTF8(s[:maxNote], "")
	}
	return s
}

// setMember returns the JSON raw with the member at path set to v.
func setMember(raw json.RawMessage, path []string, v json.RawMessage) (json.RawMessage, error) {
	if len(path) == 0 {
		return v, nil
	}
	if raw == nil || string(raw) == "null" {
		raw = json.RawMessage("{}")
	}
	if !json.Valid(raw) {
		return nil, errors.New("a value of the session is not JSON")
	}
	if text := strings.TrimLeft(string(raw), " \t\r\n"); text[0] != '{' {
		return nil, errors.New("Manager.User leads into a member that is not an object")
	}
	var names []string
	members := values{}
	for m := range format.Members(string(raw)) {
		if _, twice := members[m.Name]; !twice {
			names = append(names, m.Name)
		}
		members[m.Name] = json.RawMessage(m.Raw)
	}
	inner, err := setMember(members[path[0]], path[1:], v)
	if err != nil {
		return nil, err
	}
	if _, ok := members[path[0]]; !ok {
		names = append(names, path[0])
	}
	members[path[0]] = inner
	b := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(format.AppendString(b, name), ':'), members[name]...)
	}
	return append(b, '}'), nil
}

// Logout is Destroy, and the response also takes the cookie from the browser, unless it has
// left; see also Manager.ClearSiteData. If another process has given the session a new id
// meanwhile, by Renew, that session ends too, if it is a user's and the Store is a Finder.
// Logout succeeds if there is nothing to destroy. After an error nothing is taken from the
// browser: try again.
func (s *Session) Logout() error {
	end, err := s.takeTurn()
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	own := filestore.Entry{ID: s.id, Session: &filestore.Session{Created: s.born, Values: s.base}}
	s.mu.Unlock()
	gone := false
	err = s.destroy(func(id string) (held values, err error) {
		err = s.m.end(s.ctx, id, func(now *filestore.Session) error {
			held = maps.Clone(now.Values)
			return nil
		})
		if errors.Is(err, filestore.ErrNotFound) {
			gone = gone || id == own.ID
			return nil, s.m.Store.Destroy(s.ctx, id) // it can have expired
		}
		if held == nil {
			held = values{}
		}
		return held, err
	})
	if gone && err == nil {
		err = s.endElsewhere(own)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clears = true
	return nil
}

// endElsewhere ends what the session own may have become in another process.
func (s *Session) endElsewhere(own filestore.Entry) error {
	user := s.m.userOf(own.Session.Values)
	_, ok := s.m.Store.(Finder)
	if !ok || user == "" {
		return nil
	}
	_, events, err := s.m.endUntilNone(s.ctx, user, ByLogout, s.m.same(own, s.arrived))
	s.noteEnded(events)
	return err
}

// isLogout reports whether the response clears the cookie.
func (s *Session) isLogout() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clears
}

// User returns whose the session is, as Manager.User has it, in the request's copy of the session: "" if nobody has
// logged in. Manager.Sessions takes it.
func (s *Session) User() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.userOf(s.Values)
}

// AuthenticatedAt returns when Login was called, the zero time if it was not. The login of
// an Express program does not count: it leaves no time.
func (s *Session) AuthenticatedAt() time.Time {
	if s == nil {
		return time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, pending := authenticated(s.Values)
	if pending {
		return time.Time{}
	}
	return at
}

// Fresh reports whether Login was called less than d ago: ask for the password again before
// a step that matters if it was not. It is false for a time in the future.
func (s *Session) Fresh(d time.Duration) bool {
	at := s.AuthenticatedAt()
	ago := time.Since(at)
	return !at.IsZero() && 0 <= ago+time.Millisecond && ago < d
}

// authenticated returns the time of the login, or zero. pending says that the session it
// replaces may still be there, or may have ended, with which the login fails.
func authenticated(v values) (at time.Time, pending bool) {
	ms, err := strconv.ParseInt(string(v[authenticatedMember]), 10, 64)
	if pending = ms < 0; pending {
		ms = -ms
	}
	if err != nil || ms <= 0 || ms > time.Now().Add(format.ClockSkew).UnixMilli() {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), pending
}

// provisional returns v with a login that is pending: its time is negative. MaxPerUser
// does not count it: if it failed in the end, another session would have ended for it.
func provisional(v values) values {
	at, _ := authenticated(v)
	v = maps.Clone(v)
	v[authenticatedMember] = strconv.AppendInt(nil, -at.UnixMilli(), 10)
	return v
}

func noteOf(v values) (n Note) {
	if json.Unmarshal(v[noteMember], &n) != nil {
		return Note{}
	}
	return Note{cut(n.Agent), cut(n.Addr)}
}

func (m *Manager) user() string { return cmp.Or(m.User, "user") }

func (m *Manager) userPath() []string { return strings.Split(m.user(), ".") }

// userOf returns whose a session is, or "".
func (m *Manager) userOf(v values) string {
	raw := format.MemberOf(v, m.user())
	key, ok := format.KeyOf(raw)
	switch {
	case !ok:
		return ""
	case key[0] == 's':
		return key[1:]
	}
	return raw
}

// isOf reports whether a session is user's.
func (m *Manager) isOf(v values, user string) bool {
	key, ok := format.KeyOf(format.MemberOf(v, m.user()))
	return ok && slices.Contains(format.Keys(user), key)
}

// reserved reports whether a member is not the application's.
func reserved(name string) bool {
	return slices.Contains([]string{format.CookieMember, format.LastAccessMember, format.CreatedMember, authenticatedMember, noteMember, originMember}, name)
}
