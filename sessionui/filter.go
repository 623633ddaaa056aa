package sessionui

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/words"
)

// The states of a session, as the filter has them.
const (
	alive      = "alive"
	expired    = "expired"
	unreadable = "unreadable"
)

// A filter says which sessions a page shows, and in which order. The URL holds it.
type filter struct {
	Member, Value string // Member "" = any
	State         string // "" = any
	Idle, Ends    string // as the visitor wrote them
	Sort          string
	Page          int // from 1

	idle, ends time.Duration
	keys       []string // of Value
}

const (
	pageSize    = 50
	defaultSort = "-access"
)

var sorts = []string{"access", "created", "ends", "size"}

// parseFilter returns the filter of a query, or what is wrong with it in words for the visitor. Members that are not shown
// cannot be asked for: the answer would tell their values.
func parseFilter(q url.Values, show []string) (f filter, wrong string) {
	f = filter{
		Member: q.Get("member"), Value: q.Get("value"), State: q.Get("state"), Idle: strings.TrimSpace(q.Get("idle")), Ends: strings.TrimSpace(q.Get("ends")),
		Sort: cmp.Or(q.Get("sort"), defaultSort), Page: 1,
	}
	if f.Value == "" {
		f.Member = ""
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 0 {
		f.Page = n
	}
	var age words.Age
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{f.Idle, &f.idle}, {f.Ends, &f.ends}} {
		if d.text == "" {
			continue
		}
		if age.Set(d.text) != nil {
			return f, "A time is written as 90m, 36h, 2d or 1w."
		}
		*d.to = time.Duration(age)
		age = 0
	}
	switch {
	case f.Member != "" && !slices.Contains(show, f.Member):
		return f, "This member is not shown here."
	case f.State != "" && f.State != alive && f.State != expired && f.State != unreadable:
		return f, "A session is alive, expired or unreadable."
	case !slices.Contains(sorts, strings.TrimPrefix(f.Sort, "-")):
		return f, "Sessions cannot be sorted by that."
	}
	f.keys = format.Keys(f.Value)
	return f, ""
}

// values returns the filter as a query, without what is the default.
func (f filter) values() url.Values {
	q := url.Values{}
	set := func(name, value, usual string) {
		if value != usual {
			q.Set(name, value)
		}
	}
	if f.Member != "" {
		q.Set("member", f.Member)
		q.Set("value", f.Value)
	}
	set("state", f.State, "")
	set("idle", f.Idle, "")
	set("ends", f.Ends, "")
	set("sort", f.Sort, defaultSort)
	set("page", strconv.Itoa(f.Page), "1")
	return q
}

// Query returns the filter as a relative URL.
func (f filter) Query() string { return "?" + f.values().Encode() }

// With returns the URL of the filter with something else in it.
func (f filter) With(name, value string) string {
	q := f.values()
	if name != "page" && name != "session" {
		q.Del("page")
	}
	q.Set(name, value)
	return "?" + q.Encode()
}

// SortBy returns the URL of the filter in another order; by the same column it turns the order around.
func (f filter) SortBy(column string) string {
	if f.Sort == "-"+column {
		return f.With("sort", column)
	}
	return f.With("sort", "-"+column)
}

// Order returns how the page is sorted by a column, in the words of aria-sort.
func (f filter) Order(column string) string {
	switch f.Sort {
	case column:
		return "ascending"
	case "-" + column:
		return "descending"
	}
	return "none"
}

// Narrows reports whether the filter leaves out any session.
func (f filter) Narrows() bool {
	return f.Member != "" || f.State != "" || f.Idle != "" || f.Ends != ""
}

// Words says which sessions the filter means.
func (f filter) Words() string {
	var parts []string
	if f.Member != "" {
		parts = append(parts, fmt.Sprintf("%s = %s", words.Line(f.Member), words.Cut(words.Line(f.Value), maxShown)))
	}
	if f.State != "" {
		parts = append(parts, f.State)
	}
	if f.Idle != "" {
		parts = append(parts, "idle for longer than "+words.Line(f.Idle))
	}
	if f.Ends != "" {
		parts = append(parts, "ends within "+words.Line(f.Ends))
	}
	if len(parts) == 0 {
		return "all sessions"
	}
	return strings.Join(parts, ", ")
}

var seed = maphash.MakeSeed()

// keyHash stands for a key of package format in memory: values can be long. Zero is no key.
func keyHash(key string) uint64 { return max(maphash.String(seed, key), 1) }

// prepare returns whether a row matches at a moment.
func (f filter) prepare(show []string, now time.Time) func(*row) bool {
	at := slices.Index(show, f.Member)
	var hashes []uint64
	for _, key := range f.keys {
		hashes = append(hashes, keyHash(key))
	}
	return func(r *row) bool {
		state := r.state(now)
		if f.State != "" && state != f.State || (f.Idle != "" || f.Ends != "") && state == unreadable {
			return false
		}
		if f.Idle != "" && (r.access == 0 || now.Sub(r.accessed()) <= f.idle) {
			return false
		}
		if f.Ends != "" && (state != alive || r.ends == 0 || r.endsAt().Sub(now) > f.ends) {
			return false
		}
		return f.Member == "" || state != unreadable && slices.Contains(hashes, r.shown[at].hash)
	}
}

// matches says of the session itself whether the filter means it: it is what counts when a session is to end.
func (f filter) matches(r *row, sess *filestore.Session, now time.Time) bool {
	if f.Member != "" {
		key, ok := format.KeyOf(format.MemberOf(sess.Values, f.Member))
		if !ok || !slices.Contains(f.keys, key) {
			return false
		}
	}
	f.Member = ""
	return f.prepare(nil, now)(r)
}

// order compares rows by the filter's order. The id decides between equals, so that pages do not overlap.
func (f filter) order() func(a, b *row) int {
	column, down := strings.CutPrefix(f.Sort, "-")
	key := map[string]func(*row) int64{
		"access":  func(r *row) int64 { return r.access },
		"created": func(r *row) int64 { return r.created },
		"ends":    func(r *row) int64 { return r.ends },
		"size":    func(r *row) int64 { return int64(r.size) },
	}[column]
	return func(a, b *row) int {
		c := cmp.Compare(key(a), key(b))
		if down {
			c = -c
		}
		return cmp.Or(c, strings.Compare(a.id, b.id))
	}
}
