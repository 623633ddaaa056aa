package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The members of a document that are not the application's.
const (
	CookieMember     = "cookie"
	LastAccessMember = "__lastAccess"
	CreatedMember    = "__created"
)

const maxDepth = 10_000 // encoding/json reads no deeper

// A Document is a session's document taken apart: its names in order, and the application's values. It
// is never changed. Many are held in memory, so it is packed.
type Document struct {
	names, values string // of the members in order, each once, with nothing between; reserved ones have an empty value
	ends          []end
}

// An end is where a member's name and value end in those of its document; the next begin there.
type end struct{ name, value uint32 }

// The Parts of a document are its members that are not the application's: the cookie's JSON, which is an object,
// and times, which are zero if the document has none that is a sane number.
type Parts struct {
	Cookie              string
	LastAccess, Created time.Time
}

// Parse takes doc apart. Of members that occur twice the last counts.
func Parse(doc []byte) (d Document, p Parts, err error) {
	if !json.Valid(doc) {
		return d, p, errors.New("not JSON")
	}
	if bytes.TrimLeft(doc, space)[0] != '{' {
		return d, p, errors.New("not an object")
	}
	var room [16]Member
	order := room[:0]
	at := make(map[string]int)
	for m := range Members(string(doc)) {
		i, twice := at[m.Name]
		if twice && strings.Contains(m.Name, "\ufffd") {
			return d, p, errors.New("names that are not Unicode, and alike") // one would be lost
		}
		if !twice {
			i = len(order)
			at[m.Name] = i
			order = append(order, m)
		}
		order[i] = m
	}
	take := func(name string) (raw string) {
		if i, ok := at[name]; ok {
			raw, order[i].Raw = order[i].Raw, ""
		}
		return raw
	}
	p.Cookie = take(CookieMember)
	if !strings.HasPrefix(p.Cookie, "{") {
		return d, Parts{}, errors.New("no cookie object")
	}
	p.LastAccess, p.Created = parseTime(take(LastAccessMember)), parseTime(take(CreatedMember))
	return pack(order), p, nil
}

func pack(order []Member) Document {
	d := Document{ends: make([]end, len(order))}
	var names, values int
	for i, m := range order {
		names, values = names+len(m.Name), values+len(m.Raw)
		d.ends[i] = end{uint32(names), uint32(values)}
	}
	var b strings.Builder
	b.Grow(names + values)
	for _, m := range order {
		b.WriteString(m.Name)
	}
	for _, m := range order {
		b.WriteString(m.Raw)
	}
	d.names, d.values = b.String()[:names], b.String()[names:]
	return d
}

// members yields the names of the members, and where their values are in d.values.
func (d *Document) members() iter.Seq2[string, [2]uint32] {
	return func(yield func(string, [2]uint32) bool) {
		var at end
		for _, next := range d.ends {
			if !yield(d.names[at.name:next.name], [2]uint32{at.value, next.value}) {
				return
			}
			at = next
		}
	}
}

// Size returns d's approximate memory use in bytes.
func (d *Document) Size() int { return len(d.names) + len(d.values) + 8*len(d.ends) }

// Values returns the application's members, in bytes of their own.
func (d *Document) Values() map[string]json.RawMessage {
	b := []byte(d.values)
	values := make(map[string]json.RawMessage, max(0, len(d.ends)-2)) // up to 8 a map is half as large
	for name, at := range d.members() {
		if at[0] < at[1] {
			values[name] = b[at[0]:at[1]:at[1]]
		}
	}
	return values
}

// A new session's file begins with the cookie.
var newDocument = &Document{names: CookieMember, ends: []end{{name: uint32(len(CookieMember))}}}

// Join makes a document of these parts: without space between the members, in the order of d, new
// members last. In a new session, which has no d, the last access is last, as Node writes it. A time that
// is zero is left out. The values must be JSON; nil stands for null.
func (d *Document) Join(p Parts, values map[string]json.RawMessage) ([]byte, error) {
	if d == nil {
		d = newDocument
	}
	size := len(p.Cookie) + 96 // and the times
	for name, raw := range values {
		size += len(name) + len(raw) + 8
	}
	buf := append(make([]byte, 0, size), '{')
	addName := func(name string) {
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = append(AppendString(buf, name), ':')
	}
	add := func(name string, raw []byte) {
		addName(name)
		if raw == nil {
			raw = []byte("null")
		}
		buf = append(buf, raw...)
	}
	addTime := func(name string, at *time.Time) {
		if !at.IsZero() {
			addName(name)
			buf = strconv.AppendInt(buf, at.UnixMilli(), 10)
			*at = time.Time{} // once
		}
	}
	fresh := len(values)
	for name := range d.members() {
		raw, ok := values[name]
		switch {
		case name == CookieMember:
			addName(name)
			buf = append(buf, p.Cookie...)
		case name == LastAccessMember:
			addTime(name, &p.LastAccess)
		case name == CreatedMember:
			addTime(name, &p.Created)
		case ok:
			add(name, raw)
			fresh--
		}
	}
	if fresh > 0 {
		old := make(map[string]bool, len(d.ends))
		for name := range d.members() {
			old[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if !old[name] {
				add(name, values[name])
			}
		}
	}
	addTime(CreatedMember, &p.Created)
	addTime(LastAccessMember, &p.LastAccess)
	buf = append(buf, '}')
	// Values that are sound alone can nest too deep together with the document. A document that cannot
	// be read again must not be written.
	if len(buf) > 2*maxDepth && !json.Valid(buf) {
		return nil, fmt.Errorf("filestore: values nest deeper than %d", maxDepth)
	}
	return buf, nil
}
