package interop

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// Lives of a session in random steps. A short one is long enough for a request to come in time on a busy machine.
const (
	long  = time.Hour
	short = 3 * time.Second
)

// A walk is one browser that goes through both sites at random, and a model of what it must see. The browser keeps a
// cookie that was cleared or that has expired, as a thief would.
type walk struct {
	t      *testing.T
	rnd    *rand.Rand
	v      *env
	store  store
	sites  [2]site
	log    []string // the steps
	cookie string

	id      string // "" = there is no session
	values  map[string]any
	user    string
	life    time.Duration // of the cookie, 0 = it has no maxAge
	secrets []string

	seen   map[string]bool // all ids of sessions
	dead   []string        // those of sessions that are over
	access time.Time       // when the last request began
	stood  bool            // the machine has stood still for so long that a short session may have ended
	stands int
}

var seed = flag.Uint64("seed", rand.Uint64(), "of TestRandomSteps")

// Whatever a browser does at either site, both sites and the model always see the same session.
func TestRandomSteps(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("again: go test -run '%s$' -seed %d", t.Name(), *seed)
			}
		})
		w := &walk{t: t, rnd: rand.New(rand.NewPCG(*seed, 0)), v: v, store: v.goStore(t, 0), seen: make(map[string]bool),
			secrets: []string{secret}}
		w.sites = v.sites(t, w.store, w.secrets...)
		const steps = 300
		for range steps {
			w.step()
			w.check()
		}
		if len(w.dead) < 20 || w.stands > 5 {
			t.Errorf("%d sessions have ended, and the machine has stood still %d times: that tells little", len(w.dead), w.stands)
		}
		t.Logf("%d ids, %d sessions have ended", len(w.seen), len(w.dead))
	})
}

// fail says that the model and a site differ, after which nothing can be compared.
func (w *walk) fail(format string, args ...any) {
	w.t.Helper()
	if !w.stood {
		w.t.Fatalf("%s\nthe last steps: %s", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-12):], ", "))
	}
}

// run sends the steps with the browser's cookie, and keeps the one that comes back.
func (w *walk) run(s site, steps ...step) answer {
	began := time.Now()
	a := s.run(w.t, w.cookie, steps...)
	if w.life == short && time.Since(w.access) > short/2 {
		w.stood = true
	}
	w.access = began
	if pair := a.pair(); pair != "" {
		w.cookie = pair
	}
	return a
}

// end notes that the session is over.
func (w *walk) end() {
	if w.id != "" {
		w.dead = append(w.dead, w.id)
	}
	w.id, w.values, w.user, w.life = "", nil, "", 0
}

// begin notes that the answer has a new session.
func (w *walk) begin(s site, a answer) {
	w.end()
	if w.seen[a.ID] || a.pair() == "" {
		w.fail("%s begins a session with an id that is not new, or without a cookie", s.name)
	}
	w.id, w.values, w.seen[a.ID] = a.ID, make(map[string]any), true
}

// lives runs steps that put something in, and notes a session if there was none.
func (w *walk) lives(s site, steps ...step) {
	if a := w.run(s, steps...); w.id == "" {
		w.begin(s, a)
	}
}

// someValues have no list in a list, which FerretDB does not store.
var someValues = []any{
	nil, true, 0, -1, 1.5, 1e21, 1 << 53, "", "Ærøskøbing <b> & \"é\" 😀 \u2028 \\", []any{}, []any{1, "two", nil},
	object{}, object{"id": 7, "name": "anna", "more": object{"a": []any{object{"b": 1}}}},
}

func (w *walk) step() {
	s := w.sites[w.rnd.IntN(2)]
	key := fmt.Sprint("k", w.rnd.IntN(4))
	value := someValues[w.rnd.IntN(len(someValues))]
	name := "put"
	switch n := w.rnd.IntN(100); {
	case w.life == short && n < 15:
		name = "expire"
	case n < 30:
	case n < 42:
		name = "count"
	case n < 50:
		name = "delete"
	case n < 57:
		name = "read"
	case n < 63:
		name = "regenerate"
	case n < 71:
		name = "save"
	case n < 77:
		name = "login"
	case n < 82:
		name = "destroy"
	case n < 97:
		name = "maxAge"
	default:
		name = "rotate"
	}
	w.log = append(w.log, s.name+" "+name)

	switch name {
	case "put":
		w.lives(s, step{"put", key, value})
		w.values[key] = value
	case "count":
		w.lives(s, step{"count", "views"})
		w.count()
	case "delete":
		w.run(s, step{"delete", key})
		delete(w.values, key)
	case "read":
		w.run(s)
	case "regenerate":
		more := w.rnd.IntN(2)
		w.begin(s, w.run(s, []step{{"regenerate"}, {"put", key, value}}[:1+more]...))
		if more > 0 {
			w.values[key] = value
		}
	case "save":
		more := w.rnd.IntN(2)
		w.lives(s, []step{{"put", key, value}, {"save"}, {"count", "views"}}[:2+more]...)
		w.values[key] = value
		if more > 0 {
			w.count()
		}
	case "login":
		user := []string{"anna", "bert"}[w.rnd.IntN(2)]
		was, values := w.user, w.values
		w.begin(s, w.run(s, step{"login", user}))
		if s.name == "Go" && (was == "" || was == user) {
			maps.Copy(w.values, values)
		}
		w.user, w.values["user"] = user, user
	case "destroy":
		if s.name == "Go" && w.rnd.IntN(2) == 0 {
			name = "logout"
		}
		w.run(s, step{name})
		w.end()
	case "maxAge":
		life := []time.Duration{0, long, short, short}[w.rnd.IntN(4)]
		age := step{"maxAge", nil}
		if life > 0 {
			age[1] = life.Milliseconds()
		}
		// Node stores a cookie only together with a value.
		if s.name == "Go" && w.id != "" && w.rnd.IntN(2) == 0 {
			w.run(s, age)
		} else {
			w.lives(s, age, step{"count", "views"})
			w.count()
		}
		w.life = life
	case "expire":
		time.Sleep(short + 1600*time.Millisecond) // the engines that count in seconds end it late
		w.end()
		w.stood = false
	case "rotate":
		w.secrets = []string{fmt.Sprint("secret ", w.rnd.Uint64()), w.secrets[0]}
		w.sites = w.v.sites(w.t, w.store, w.secrets...)
	}
}

func (w *walk) count() {
	n, _ := w.values["views"].(int)
	w.values["views"] = n + 1
}

// check looks at the session at both sites, and at one that is over.
func (w *walk) check() {
	var both [2]map[string]any
	for _, i := range w.rnd.Perm(2) {
		s := w.sites[i]
		a := w.run(s)
		values := a.values(w.t)
		cookie, _ := values["cookie"].(object)
		delete(values, "cookie")
		for _, name := range []string{"__lastAccess", "__created"} { // Node shows what Go has written
			delete(values, name)
		}
		both[i] = maps.Clone(values)
		maps.DeleteFunc(values, func(name string, _ any) bool { return strings.HasPrefix(name, "__") })
		want := plain(w.t, w.values)
		age, _ := cookie["originalMaxAge"].(float64)
		lost := w.life - time.Duration(age)*time.Millisecond
		switch {
		case w.id == "" && (w.seen[a.ID] || len(values) > 0 || a.pair() != ""):
			w.fail("%s shows the session %v, but it is over", s.name, values)
		case w.id == "":
		case a.ID != w.id:
			w.fail("%s shows another session %v, want %v", s.name, values, want)
		case !reflect.DeepEqual(values, want):
			w.fail("%s shows %v, want %v", s.name, values, want)
		case lost < 0 || lost > time.Second: // Node loses some milliseconds
			w.fail("%s: the session's maxAge is %v ms, want %v", s.name, age, w.life)
		}
	}
	switch value, _ := url.PathUnescape(w.cookie); {
	case w.id == "":
	case !reflect.DeepEqual(both[0], both[1]):
		w.fail("Node shows %v, and Go %v", both[0], both[1])
	case value != "connect.sid=s:"+session.Sign(w.id, w.secrets[0]): // after a rotation Go has signed it again
		w.fail("the cookie is not that of the session, signed with the first secret")
	}
	if len(w.dead) > 0 {
		id := w.dead[w.rnd.IntN(len(w.dead))]
		_, err := w.store.Get(ctx, id)
		var raw json.RawMessage
		must(w.t, w.v.n.Call("get", object{"engine": w.v.num, "id": id}, &raw))
		if !errors.Is(err, filestore.ErrNotFound) || string(raw) != "null" {
			w.t.Fatalf("a session that is over is there: Go %v, Node %s", err, raw)
		}
	}
	if w.stood { // nobody knows whether the session is over: begin again without it
		w.stands++
		w.stood, w.cookie, w.id = false, "", ""
		w.end()
	}
}

// values returns the session as plain JSON.
func (a answer) values(t testing.TB) map[string]any {
	t.Helper()
	return plain(t, a.Session)
}

// plain returns v as it is when it was JSON.
func plain(t testing.TB, v any) (m map[string]any) {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	must(t, json.Unmarshal(raw, &m))
	if m == nil {
		m = make(map[string]any)
	}
	return m
}
