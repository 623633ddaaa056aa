package backend_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

// memory is an Engine in memory, whose answers a test can lose.
type memory struct {
	mu   sync.Mutex
	rows map[string]row

	lose func(op string) (before, after bool) // whether the request or the answer gets lost
	late func(op string) bool                 // of a lost request: whether it arrives after the next Get
	held func(now time.Time) error
}

type row struct {
	doc string
	end time.Time
}

func (m *memory) do(ctx context.Context, op string, fn func(now time.Time) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	before, after := false, false
	if m.lose != nil {
		before, after = m.lose(op)
	}
	if before {
		if m.late != nil && m.late(op) {
			m.held = fn
		}
		return io.ErrUnexpectedEOF
	}
	if m.held != nil && op != "get" {
		m.held(time.Now())
		m.held = nil
	}
	err := fn(time.Now())
	if after {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (m *memory) live(id string, now time.Time) (row, bool) {
	r, ok := m.rows[id]
	return r, ok && r.end.After(now)
}

func (m *memory) put(r backend.Row, now time.Time) { m.rows[r.ID] = row{r.Doc, now.Add(r.Left)} }

func (m *memory) Get(ctx context.Context, id string) (r backend.Row, err error) {
	err = m.do(ctx, "get", func(now time.Time) error {
		was, ok := m.live(id, now)
		if !ok {
			return filestore.ErrNotFound
		}
		r = backend.Row{ID: id, Doc: was.doc, Left: was.end.Sub(now)}
		return nil
	})
	return r, err
}

func (m *memory) Insert(ctx context.Context, rows []backend.Row) (stored []bool, err error) {
	err = m.do(ctx, "insert", func(now time.Time) error {
		for _, r := range rows {
			_, taken := m.live(r.ID, now)
			if stored = append(stored, !taken); !taken {
				m.put(r, now)
			}
		}
		return nil
	})
	return stored, err
}

func (m *memory) Put(ctx context.Context, r backend.Row) error {
	return m.do(ctx, "put", func(now time.Time) error {
		m.put(r, now)
		return nil
	})
}

func (m *memory) Swap(ctx context.Context, was, now backend.Row) (bool, error) {
	done := false
	err := m.do(ctx, "swap", func(at time.Time) error {
		is, ok := m.live(was.ID, at)
		if done = ok && is.doc == was.Doc; done {
			m.put(now, at)
			if now.Left == was.Left {
				m.rows[was.ID] = row{now.Doc, is.end}
			}
		}
		return nil
	})
	if err != nil {
		return false, err // done may change later: see late
	}
	return done, nil
}

func (m *memory) Delete(ctx context.Context, ids []string) error {
	return m.do(ctx, "delete", func(now time.Time) error {
		for _, id := range ids {
			delete(m.rows, id)
		}
		return nil
	})
}

func (m *memory) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	err = m.do(ctx, "page", func(now time.Time) error {
		for _, id := range slices.Sorted(maps.Keys(m.rows)) {
			if r, ok := m.live(id, now); ok && id > cursor {
				rows = append(rows, backend.Row{ID: id, Doc: r.doc, Left: r.end.Sub(now)})
				if len(rows) == 3 {
					next = id
					break
				}
			}
		}
		return nil
	})
	return rows, next, err
}

func (m *memory) Reap(ctx context.Context, alive func()) (n int, err error) {
	err = m.do(ctx, "reap", func(now time.Time) error {
		for id := range m.rows {
			if _, ok := m.live(id, now); !ok {
				delete(m.rows, id)
				n++
			}
		}
		return nil
	})
	return n, err
}

// shown is a memory that can show all rows of one moment.
type shown struct{ *memory }

func (m shown) Snapshot(ctx context.Context, alive func(), visit func(backend.Row)) error {
	return m.do(ctx, "snapshot", func(now time.Time) error {
		for id := range m.rows {
			alive()
			if r, ok := m.live(id, now); ok {
				visit(backend.Row{ID: id, Doc: r.doc, Left: r.end.Sub(now)})
			}
		}
		return nil
	})
}

func newMemory() *memory { return &memory{rows: make(map[string]row)} }

func open(t testing.TB, e backend.Engine, o backend.Options) *backend.Store {
	t.Helper()
	o.TTL = cmp.Or(o.TTL, time.Hour)
	s, err := backend.New(e, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *backend.Store, id string, values ...any) {
	t.Helper()
	if err := s.Set(ctx, id, with(values...)); err != nil {
		t.Fatal(err)
	}
}

func with(values ...any) *filestore.Session {
	sess := new(filestore.Session)
	for i := 0; i < len(values); i += 2 {
		if err := sess.Put(values[i].(string), values[i+1]); err != nil {
			panic(err)
		}
	}
	return sess
}

func TestStore(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, newMemory(), backend.Options{Lifetime: time.Minute}) })
}

func TestReapingStore(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store {
		s, err := backend.NewReaping(shown{newMemory()}, backend.Options{TTL: time.Hour, Codec: rot{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

type rot struct{}

func (rot) Encode(id string, doc []byte) ([]byte, error) { return turn(doc), nil }

func (rot) Decode(id string, file []byte) ([]byte, error) {
	if doc := turn(file); len(doc) > 0 && doc[0] == '{' {
		return doc, nil
	}
	return nil, filestore.ErrDecrypt
}

func turn(data []byte) []byte {
	out := slices.Clone(data)
	for i := range out {
		out[i] ^= 0x80
	}
	return out
}

// Each change is made once and acknowledged, whatever gets lost, as long as nobody else changes the session.
func TestLostAnswers(t *testing.T) {
	for _, part := range []string{"request", "answer", "late request"} {
		t.Run(part, func(t *testing.T) {
			m := newMemory()
			n := 0
			m.lose = func(op string) (before, after bool) {
				n++
				lost := n%4 == 1
				return lost && part != "answer", lost && part == "answer"
			}
			m.late = func(op string) bool { return part == "late request" && op == "swap" }
			s := open(t, m, backend.Options{})
			if err := s.Create(ctx, "a", with("n", 0)); err != nil {
				t.Fatalf("Create = %v", err)
			}
			if err := s.Create(ctx, "a", with("n", 1)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Create again = %v", err)
			}
			calls := 0
			for range 20 {
				if err := s.Update(ctx, "a", add(&calls)); err != nil {
					t.Fatalf("Update = %v", err)
				}
				if err := s.Touch(ctx, "a", &filestore.Cookie{Path: fmt.Sprint("/", n)}); err != nil {
					t.Fatalf("Touch = %v", err)
				}
			}
			sess, err := s.Get(ctx, "a")
			if err != nil || string(sess.Values["n"]) != "20" || calls != 20 {
				t.Errorf("Get = %v, %v, after %d calls of 20 Updates", sess, err, calls)
			}
			if doc := m.rows["a"].doc; len(doc) > 200 {
				t.Errorf("the document grows: %s", doc)
			}
			if err := s.Destroy(ctx, "a"); err != nil {
				t.Errorf("Destroy = %v", err)
			}
			if err := s.Touch(ctx, "a", nil); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Touch = %v", err)
			}
		})
	}
}

// add returns what adds 1 to the member n.
func add(calls *int) func(*filestore.Session) error {
	return func(sess *filestore.Session) error {
		*calls++
		n, err := filestore.Value[int](sess, "n")
		return errors.Join(err, sess.Put("n", n+1))
	}
}

// An Update that changes nothing leaves the document as it is, also with a Codec that writes each time another.
func TestUpdateNothing(t *testing.T) {
	m := newMemory()
	s := open(t, m, backend.Options{Codec: new(salted)})
	put(t, s, "a", "n", 0)
	was := m.rows["a"]
	m.rows["a"] = row{was.doc, was.end.Add(-time.Minute)}
	if err := s.Update(ctx, "a", func(*filestore.Session) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got := m.rows["a"]; got.doc != was.doc || got.end.Before(was.end) {
		t.Errorf("the row is %v, want %v or with a later end", got, was)
	}
}

// A salted Codec writes the same document each time otherwise.
type salted struct{ n byte }

func (c *salted) Encode(id string, doc []byte) ([]byte, error) {
	c.n++
	return append([]byte{c.n}, doc...), nil
}

func (*salted) Decode(id string, file []byte) ([]byte, error) { return file[1:], nil }

// After a lost answer a change of somebody else's is not taken for one's own: each Update that returns nil has counted
// once. Requests that arrive late make it no worse.
func TestLostAnswersBesideOthers(t *testing.T) {
	m := newMemory()
	var n atomic.Int64
	m.lose = func(op string) (before, after bool) {
		if op != "swap" {
			return false, false
		}
		i := n.Add(1)
		return i%7 == 3, i%7 == 5
	}
	m.late = func(string) bool { return n.Load()%2 == 0 }
	s := open(t, m, backend.Options{})
	put(t, s, "a", "n", 0)
	var counted, unknown atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := s.Update(ctx, "a", add(new(int))); err == nil { // many write the same
					counted.Add(1)
				} else {
					unknown.Add(1)
				}
			}
		})
	}
	wg.Wait()
	sess, err := s.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := filestore.Value[int64](sess, "n")
	if got < counted.Load() || got > counted.Load()+unknown.Load() {
		t.Errorf("the count is %d after %d Updates that returned nil, and %d that did not", got, counted.Load(), unknown.Load())
	}
}

// Errors show neither ids nor documents, and match their sentinels.
func TestErrors(t *testing.T) {
	m := newMemory()
	s := open(t, m, backend.Options{MaxSize: 200, Timeout: 500 * time.Millisecond})
	m.rows["corrupt"] = row{"[secret]", time.Now().Add(time.Hour)}
	m.rows["large"] = row{`{"cookie":{},"a":"` + strings.Repeat("secret", 100) + `"}`, time.Now().Add(time.Hour)}
	put(t, s, "busy", "n", 0)
	check := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("the error is %v, want %v", err, want)
		}
		if e, ok := errors.AsType[*filestore.Error](err); !ok || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "busy") && e.ID != "" {
			t.Errorf("the error is %v", err)
		}
	}
	get := func(id string) error {
		_, err := s.Get(ctx, id)
		return err
	}
	check(get("corrupt"), filestore.ErrCorrupt)
	check(get("large"), filestore.ErrTooLarge)
	check(get("../secret"), filestore.ErrInvalidID)
	check(get("none"), filestore.ErrNotFound)
	check(s.Set(ctx, "a", with("a", strings.Repeat("secret", 100))), filestore.ErrTooLarge)
	check(s.Update(ctx, "corrupt", nil), filestore.ErrCorrupt)
	check(s.Update(ctx, "busy", func(sess *filestore.Session) error {
		put(t, s, "busy", "n", time.Now().UnixNano()) // somebody is always faster
		return sess.Put("n", 1)
	}), filestore.ErrLockTimeout)
	refused := backend.Refused("OOM", errors.New("secret"))
	if err := fmt.Errorf("x: %w", refused); strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Get(done, "a")
	check(err, context.Canceled)
	s.Close()
	check(get("busy"), filestore.ErrClosed)
	for _, err := range s.IDs(ctx) {
		check(err, filestore.ErrClosed)
	}
	if _, ok := m.rows["corrupt"]; !ok {
		t.Error("what cannot be read was removed")
	}
}

// A touch moves the end and leaves the document alone, unless its cookie expires soon.
func TestTouch(t *testing.T) {
	m := newMemory()
	s := open(t, m, backend.Options{TouchAfter: -1})
	sess := with("a", 1)
	sess.Cookie = filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/"}
	sess.Cookie.Expires = time.Now().Add(time.Hour).Truncate(time.Millisecond)
	if err := s.Set(ctx, "a", sess); err != nil {
		t.Fatal(err)
	}
	set := func(expires time.Duration) (doc string) {
		t.Helper()
		sess.Cookie.Expires = time.Now().Add(expires).Truncate(time.Millisecond)
		row, _ := m.Get(ctx, "a")
		raw, err := sess.Document()
		if err != nil {
			t.Fatal(err)
		}
		m.Put(ctx, backend.Row{ID: "a", Doc: string(raw), Left: time.Minute})
		return cmp.Or(string(raw), row.Doc)
	}
	touch := func(c *filestore.Cookie) (doc string) {
		t.Helper()
		if err := s.Touch(ctx, "a", c); err != nil {
			t.Fatal(err)
		}
		row, err := m.Get(ctx, "a")
		if err != nil || row.Left < 59*time.Minute {
			t.Fatalf("the row after Touch is %v, %v", row, err)
		}
		return row.Doc
	}
	if was := set(40 * time.Minute); touch(nil) != was {
		t.Error("Touch has changed the document")
	}
	c := sess.Cookie
	c.Expires = time.Now().Add(time.Hour)
	if was := set(40 * time.Minute); touch(&c) != was {
		t.Error("Touch with another Expires has changed the document")
	}
	for _, expires := range []time.Duration{20 * time.Minute, -time.Hour} {
		was := set(expires)
		touch(nil)
		sess, err := s.Get(ctx, "a")
		if err != nil || time.Until(sess.Cookie.Expires) < 59*time.Minute || string(sess.Values["a"]) != "1" {
			t.Errorf("after Touch the session of %s is %+v, %v", was, sess, err)
		}
	}
	set(40 * time.Minute) // and an end that is later than that of a Touch, as one in whole seconds can be
	if row, err := m.Get(ctx, "a"); err == nil {
		row.Left = 2 * time.Hour
		m.Put(ctx, row)
	}
	touch(nil)
	if row, err := m.Get(ctx, "a"); err != nil || row.Left > time.Hour {
		t.Errorf("after Touch with a negative TouchAfter the session lives for %v, %v, want an hour", row.Left, err)
	}
	c.Path = "/x"
	set(40 * time.Minute)
	touch(&c)
	if sess, err := s.Get(ctx, "a"); err != nil || sess.Cookie.Path != "/x" {
		t.Errorf("after Touch with a cookie the session is %+v, %v", sess, err)
	}
}

// A write of a session with NoTouch leaves its end as it is.
func TestNoTouch(t *testing.T) {
	m := newMemory()
	s := open(t, m, backend.Options{})
	put(t, s, "a", "n", 0)
	m.rows["a"] = row{m.rows["a"].doc, time.Now().Add(time.Minute)}
	end := m.rows["a"].end
	if err := s.Update(ctx, "a", func(sess *filestore.Session) error {
		sess.NoTouch = true
		return sess.Put("n", 1)
	}); err != nil {
		t.Fatal(err)
	}
	if got := m.rows["a"]; !got.end.Equal(end) || !strings.Contains(got.doc, `"n":1`) {
		t.Errorf("the row is %v, want the end %v", got, end)
	}
	put(t, s, "b")
	sess, _ := s.Get(ctx, "a")
	sess.NoTouch = true
	if err := s.Set(ctx, "b", sess); err != nil {
		t.Fatal(err)
	}
	if got := m.rows["b"].end.Sub(end).Abs(); got > time.Second {
		t.Errorf("Set with NoTouch has moved the end by %v", got)
	}
}

// A session whose times are further apart than a Duration can say is over.
func TestSetOfLongAgo(t *testing.T) {
	s := open(t, newMemory(), backend.Options{Lifetime: time.Hour})
	for _, year := range []int{1600, 2000} {
		sess := with("n", 0)
		sess.NoTouch, sess.LastAccess = true, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		sess.Created = time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := s.Set(ctx, "a", sess); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "a"); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get of one that was last accessed in %d = %v, want ErrNotFound", year, err)
		}
	}
}

// slowly is an Engine whose pages take long to come.
type slowly struct{ *memory }

func (e slowly) Page(ctx context.Context, cursor string, docs bool) ([]backend.Row, string, error) {
	rows, next, err := e.memory.Page(ctx, cursor, docs)
	time.Sleep(500 * time.Millisecond)
	return rows, next, err
}

// Scan tells what is not a session, and neither a slow engine nor a slow loop moves the sessions' ends.
func TestScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newMemory()
		s := open(t, slowly{e}, backend.Options{TTL: time.Hour})
		for _, id := range []string{"a", "b", "c", "d"} { // more than a page
			put(t, s, id, "user", id)
		}
		e.rows["broken"] = row{"{", time.Now().Add(time.Hour)}
		ends := make(map[string]time.Time)
		broken := 0
		for entry, err := range s.Scan(ctx) {
			if entry.ID == "broken" {
				if entry.Session != nil || !errors.Is(err, filestore.ErrCorrupt) {
					t.Errorf("what is not a session is %v, %v", entry.Session, err)
				}
				broken++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if ends[entry.ID] = entry.Session.ExpiresAt(time.Hour); len(ends) == 1 {
				time.Sleep(500 * time.Millisecond)
			}
		}
		if len(ends) != 4 || broken != 1 {
			t.Errorf("Scan yields %d sessions and %d others, want 4 and 1", len(ends), broken)
		}
		for id, end := range ends {
			if off := end.Sub(e.rows[id].end).Abs(); off > time.Millisecond {
				t.Errorf("the session ends %v off", off)
			}
		}
		all := 0
		for _, err := range s.All(ctx) {
			if all++; err != nil {
				t.Error(err)
			}
		}
		if all != 4 {
			t.Errorf("All yields %d sessions, want 4", all)
		}
	})
}

// A slowReaper needs longer than Options.Timeout, but each of its steps is short.
type slowReaper struct{ *memory }

func (e slowReaper) Reap(ctx context.Context, alive func()) (int, error) {
	for range 10 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
			alive()
		}
	}
	return e.memory.Reap(ctx, alive)
}

// A reap with much to remove ends when all is removed, and not before.
func TestLongReap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s, err := backend.NewReaping(slowReaper{m}, backend.Options{TTL: time.Hour, Timeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		m.rows["a"] = row{"", time.Now().Add(-time.Hour)}
		if n, err := s.Reap(ctx); n != 1 || err != nil {
			t.Errorf("Reap = %d, %v, want 1", n, err)
		}
		short, err := backend.NewReaping(slowReaper{m}, backend.Options{TTL: time.Hour, Timeout: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer short.Close()
		if _, err := short.Reap(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reap of a server that is silent = %v, want DeadlineExceeded", err)
		}
	})
}

// An Update whose function is too slow says so, and not that the engine has not answered.
func TestSlowUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newMemory(), backend.Options{Timeout: 20 * time.Millisecond})
		put(t, s, "a", "n", 0)
		err := s.Update(ctx, "a", func(sess *filestore.Session) error {
			time.Sleep(40 * time.Millisecond)
			return sess.Put("n", 1)
		})
		if err == nil || !strings.Contains(err.Error(), "the function of the Update took longer") || errors.Is(err, filestore.ErrLockTimeout) {
			t.Errorf("Update = %v", err)
		}
	})
}

// What could be stored can be changed: the mark of an Update does not count.
func TestMaxSize(t *testing.T) {
	for name, codec := range map[string]filestore.Codec{"plain": nil, "Codec": rot{}} {
		m := newMemory()
		put(t, open(t, m, backend.Options{Codec: codec}), "a", "n", 0)
		s := open(t, m, backend.Options{Codec: codec, MaxSize: int64(len(m.rows["a"].doc))})
		if err := s.Update(ctx, "a", add(new(int))); err != nil {
			t.Errorf("%s: Update = %v", name, err)
		}
		sess, err := s.Get(ctx, "a")
		if err != nil {
			t.Fatalf("%s: Get = %v", name, err)
		}
		if err := s.Set(ctx, "a", sess); err != nil {
			t.Errorf("%s: Set = %v", name, err)
		}
		if err := s.Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("more", strings.Repeat("x", 100)) }); !errors.Is(err, filestore.ErrTooLarge) {
			t.Errorf("%s: Update with more = %v, want ErrTooLarge", name, err)
		}
	}
}

// Import and DestroyAll take what they get apart before they change anything.
func TestManyAtOnce(t *testing.T) {
	m := newMemory()
	s := open(t, m, backend.Options{})
	if _, err := s.Import(ctx, []filestore.Entry{{ID: "a", Session: with()}, {ID: "b"}}); err == nil || len(m.rows) != 0 {
		t.Errorf("Import of nil = %v, and %d rows", err, len(m.rows))
	}
	if stored, err := s.Import(ctx, []filestore.Entry{{ID: "a", Session: with()}}); err != nil || !stored[0] {
		t.Errorf("Import without a LastAccess = %v, %v", stored, err)
	}
	if err := s.DestroyAll(ctx, []string{"a", "../b"}); !errors.Is(err, filestore.ErrInvalidID) || len(m.rows) != 1 {
		t.Errorf("DestroyAll = %v, and %d rows", err, len(m.rows))
	}
	m.lose = func(op string) (before, after bool) { return true, true }
	if err := s.DestroyAll(ctx, nil); err != nil {
		t.Errorf("DestroyAll of none = %v", err)
	}
}

// A late engine has one more row each time that its ids are asked for, which is not a session.
type late struct {
	*memory
	n int
}

func (e *late) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	rows, next, err = e.memory.Page(ctx, cursor, docs)
	if e.n++; !docs {
		rows = append(rows, backend.Row{ID: fmt.Sprint("late", e.n)})
	}
	return rows, next, err
}

func (e *late) Get(ctx context.Context, id string) (backend.Row, error) {
	if strings.HasPrefix(id, "late") {
		return backend.Row{}, filestore.ErrCorrupt
	}
	return e.memory.Get(ctx, id)
}

// What is not a session does not fail Find, also if it comes while Find looks.
func TestFindAmongDamaged(t *testing.T) {
	s := open(t, &late{memory: newMemory()}, backend.Options{})
	put(t, s, "a", "user", "anna")
	var found []string
	for e, err := range s.Find(ctx, "user", "anna") {
		if err != nil {
			t.Errorf("Find = %v", err)
		}
		found = append(found, e.ID)
	}
	if !slices.Equal(found, []string{"a"}) {
		t.Errorf("Find has %q, want a", found)
	}
}

// What New refuses.
func TestOptions(t *testing.T) {
	for name, o := range map[string]backend.Options{
		"TTL": {TTL: 3600}, "no TTL": {}, "Lifetime": {TTL: time.Hour, Lifetime: -1}, "Timeout": {TTL: time.Hour, Timeout: 5},
		"negative Timeout": {TTL: time.Hour, Timeout: -1}, "TouchAfter": {TTL: time.Hour, TouchAfter: 60},
		"ReapInterval": {TTL: time.Hour, ReapInterval: 60}, "MaxSize": {TTL: time.Hour, MaxSize: -1},
	} {
		if s, err := backend.New(newMemory(), o); err == nil || !strings.HasPrefix(err.Error(), "filestore: open: Options.") {
			t.Errorf("%s: New = %v, %v", name, s, err)
		}
	}
}
