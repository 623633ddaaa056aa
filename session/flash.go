package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sessionfilestore/filestore"
)

const flashMember = "flash" // as in the npm package connect-flash

// Flash keeps msg under kind until Flashes reads it, most often in a later request. The
// messages are stored as by the npm package connect-flash: in the member "flash", as
// lists by kind. If an application has put something else under kind, that becomes the
// first message of the list. The messages of parallel requests are united.
func (s *Session) Flash(kind string, msg string) error {
	if s == nil {
		return lost("Flash")
	}
	var text filestore.Session
	if err := text.Put(flashMember, map[string]string{kind: msg}); err != nil {
		return err // the kind or the message is not UTF-8
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds, err := s.flash()
	if err != nil {
		return err
	}
	var one map[string]json.RawMessage
	if err := json.Unmarshal(text.Values[flashMember], &one); err != nil {
		return err
	}
	kinds[kind], err = encode(append(list(kinds[kind]), one[kind]))
	if err != nil {
		return err
	}
	return s.putFlash(kinds)
}

// Flashes returns the messages of kind, oldest first, and removes them. If a message is
// not a string, its JSON is returned; see FlashesAs.
func (s *Session) Flashes(kind string) ([]string, error) {
	raws, err := FlashesAs[json.RawMessage](s, kind)
	if raws == nil || err != nil {
		return nil, err
	}
	msgs := make([]string, len(raws))
	for i, raw := range raws {
		if raw[0] != '"' || json.Unmarshal(raw, &msgs[i]) != nil {
			msgs[i] = string(raw)
		}
	}
	return msgs, nil
}

// FlashesAs is like Session.Flashes, for messages of other types than string, which other
// code has put there. If a message is not a T, FlashesAs returns an error and removes
// none.
func FlashesAs[T any](s *Session, kind string) ([]T, error) {
	if s == nil {
		return nil, ErrNoSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		kinds, err := s.flash()
		raw, ok := kinds[kind]
		if !ok || err != nil {
			return nil, err
		}
		msgs := []T{}
		s.mu.Unlock() // T may have an UnmarshalJSON
		for _, raw := range list(raw) {
			var msg T
			if err = json.Unmarshal(raw, &msg); err != nil {
				err = fmt.Errorf("session: a flash message of kind %q is not a %T", kind, msg)
				break
			}
			msgs = append(msgs, msg)
		}
		s.mu.Lock()
		if err != nil {
			return nil, err
		}
		if kinds, err = s.flash(); err != nil || !equalJSON(kinds[kind], raw) {
			continue // the messages were changed meanwhile: start again
		}
		delete(kinds, kind)
		if s.read == nil {
			s.read = make(map[string]bool)
		}
		s.read[kind] = true
		return msgs, s.putFlash(kinds)
	}
}

// flash returns the lists by kind. Its caller holds mu.
func (s *Session) flash() (values, error) {
	kinds, ok := flashKinds(s.Values[flashMember])
	if !ok {
		return nil, fmt.Errorf("session: the member %q is not an object of lists, as connect-flash writes it, and is left alone", flashMember)
	}
	return kinds, nil
}

// flashKinds returns the lists in a flash member by kind, or false if connect-flash did
// not write it. A missing member, or null, has none.
func flashKinds(raw json.RawMessage) (values, bool) {
	kinds := values{}
	if raw != nil && json.Unmarshal(raw, &kinds) != nil {
		return nil, false
	}
	if kinds == nil {
		kinds = values{}
	}
	return kinds, true
}

func (s *Session) putFlash(kinds values) error {
	raw, err := encode(kinds)
	if err != nil {
		return err
	}
	s.put(flashMember, raw)
	return nil
}

// list returns the elements of a list. Any other value counts as a list of itself.
func list(raw json.RawMessage) []json.RawMessage {
	if raw == nil {
		return nil
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil {
		return []json.RawMessage{raw}
	}
	return elements
}

// encode returns v as JSON without escaping <, > and &, as Node writes it. Raw JSON in v
// changes in white space only.
func encode(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(buf.Bytes()), err
}

// uniteFlash merges flash members: this request has loaded base and made it mine, and
// meanwhile other requests have made it now. What this request read is removed from now,
// and what it added is appended. If connect-flash did not write one of them, the result
// is mine. read has the kinds that this request read.
func uniteFlash(base, mine, now json.RawMessage, read map[string]bool) json.RawMessage {
	b, okB := flashKinds(base)
	m, okM := flashKinds(mine)
	united, okN := flashKinds(now)
	if !okB || !okM || !okN {
		return mine
	}
	both := maps.Clone(m)
	maps.Copy(both, b)
	for kind := range both {
		if !read[kind] && equalJSON(b[kind], m[kind]) {
			continue
		}
		was, is, all := list(b[kind]), list(m[kind]), list(united[kind])
		if !read[kind] && len(is) >= len(was) && slices.EqualFunc(was, is[:len(was)], equalJSON) {
			is = is[len(was):]
		} else {
			for _, msg := range was {
				if i := slices.IndexFunc(all, func(other json.RawMessage) bool { return equalJSON(other, msg) }); i >= 0 {
					all = slices.Delete(all, i, i+1)
				}
			}
		}
		all = append(all, is...)
		raw, err := encode(all)
		if err != nil {
			return mine
		}
		united[kind] = raw
		if len(all) == 0 {
			delete(united, kind)
		}
	}
	raw, err := encode(united)
	if err != nil {
		return mine
	}
	return raw
}
