package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// An engineServer is a server that a test has started.
type engineServer struct {
	name  string
	param string // of a URL, which chooses a part of the server
	base  string
	n     int

	bytes bool // it keeps bytes that are not UTF-8
	maxID int
}

// part returns the URL of a part of the server that nobody has used.
func (s *engineServer) part() string {
	s.n++
	u, err := url.Parse(s.base)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q.Set(s.param, fmt.Sprint("part", s.n))
	u.RawQuery = q.Encode()
	return u.String()
}

func TestMoveRedis(t *testing.T) {
	s := storetest.Redis(t)
	t.Run("Ends", func(t *testing.T) { testMoveEnds(t, s.Addr) })
	t.Run("Nested", func(t *testing.T) { testMoveNested(t, s.Addr) })
	testMoves(t, &engineServer{name: "Redis", param: "prefix", base: "redis://" + s.Addr, bytes: true})
}

func TestMovePostgreSQL(t *testing.T) {
	s := storetest.Postgres(t)
	e := &engineServer{name: "PostgreSQL", param: "table", base: s.URL("")}
	t.Run("NoTable", func(t *testing.T) { testMoveNoTable(t, e) })
	t.Run("ServerDies", func(t *testing.T) { testMoveServerDies(t, s, e) })
	testMoves(t, e)
}

func TestMoveMySQL(t *testing.T) {
	s := storetest.MariaDB(t, "")
	e := &engineServer{name: "MySQL", param: "table", base: "mysql://root@" + s.Addr + "/mysql", maxID: 128}
	t.Run("NoTable", func(t *testing.T) { testMoveNoTable(t, e) })
	testMoves(t, e)
}

func TestMoveMongoDB(t *testing.T) {
	s := storetest.Mongo(t)
	testMoves(t, &engineServer{name: "MongoDB", param: "collection", base: s.URI})
}

func testMoves(t *testing.T, s *engineServer) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *engineServer)
	}{
		{"BothWays", testMoveBothWays},
		{"Killed", testMoveKilled},
		{"Interrupted", testMoveInterrupted},
		{"Newer", testMoveNewer},
		{"Unreadable", testMoveUnreadable},
		{"DryRun", testMoveDryRun},
		{"LongIDs", testMoveLongIDs},
		{"Same", testMoveSame},
		{"Scale", testMoveScale},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

const (
	siteTTL = 24 * time.Hour // of the programs

	anyEnd = time.Hour // for wantKept
)

// move runs the command.
func move(t *testing.T, from, to string, more ...string) result {
	t.Helper()
	return command(t, "", append([]string{"move", "--from", from, "--to", to, "--ttl", siteTTL.String(), "--create-table"}, more...)...)
}

// moved is what the command says of this.
func moved(n, there, expired, newer, unreadable, refused int) string {
	return fmt.Sprintf("%s moved, %d there already; skipped: %d expired, %d newer than there; %d unreadable, %d refused\n",
		plural(n, "session"), there, expired, newer, unreadable, refused)
}

// wantMoved fails the test if the command has not said want, and the code that goes with it.
func wantMoved(t *testing.T, what string, r result, want string) {
	t.Helper()
	code := exitDone
	if !strings.Contains(want, " 0 newer than there; 0 unreadable, 0 refused") {
		code = exitWrong
	}
	if r.out != want || r.code != code {
		t.Fatalf("%s = %d %s%s\nwant %d %s", what, r.code, r.out, cut(r.stderr, 2000), code, want)
	}
}

// A kept is a session as a store has it.
type kept struct {
	doc  string // without __lastAccess
	ends time.Time
}

// watcher remembers the documents that go through it, as they are.
type watcher struct {
	mu   sync.Mutex
	docs map[string]string
}

func (w *watcher) Encode(_ string, doc []byte) ([]byte, error) { return doc, nil }

func (w *watcher) Decode(id string, doc []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.docs[id] = string(doc)
	return doc, nil
}

// program opens the engine as a site's program does.
func program(t *testing.T, url string, codec filestore.Codec) *open.Store {
	t.Helper()
	s, err := open.Open(t.Context(), url, &open.Options{TTL: siteTTL, Timeout: time.Minute, ReapInterval: -1, MaxSize: maxSize, Codec: codec, CreateTable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// atEngine returns what the engine has.
func atEngine(t *testing.T, url string) map[string]kept {
	t.Helper()
	w := &watcher{docs: make(map[string]string)}
	all := make(map[string]kept)
	for e, err := range program(t, url, w).Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[e.ID] = kept{w.docs[e.ID], e.Session.ExpiresAt(siteTTL)}
	}
	return all
}

// inDir returns what the directory has, without what is not a session.
func inDir(t *testing.T, dir string, codec filestore.Codec) map[string]kept {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]kept)
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && codec != nil {
			data, err = codec.Decode(id, data)
		}
		sess := new(filestore.Session)
		if err == nil {
			err = sess.UnmarshalJSON(data)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, filestore.ErrCorrupt) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		doc, _, ok := strings.Cut(string(data), `,"__lastAccess":`)
		if !ok {
			t.Fatalf("%s has no last access", e.Name())
		}
		all[id] = kept{doc + "}", sess.ExpiresAt(siteTTL)}
	}
	return all
}

// wantKept fails the test unless got are the sessions want, and end at most so much later. An engine's end is told to
// the second.
func wantKept(t *testing.T, where string, got, want map[string]kept, late time.Duration) {
	t.Helper()
	for id, w := range want {
		g, ok := got[id]
		if !ok {
			t.Errorf("%s: %.20s is missing", where, id)
			continue
		}
		if g.doc != w.doc {
			t.Errorf("%s: %.20s is %.200s\nwant %.200s", where, id, g.doc, w.doc)
		}
		if off := g.ends.Sub(w.ends); off < -time.Second || off > late {
			t.Errorf("%s: %.20s ends %v late", where, id, off)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			t.Errorf("%s: %.20s is too much", where, id)
		}
	}
}

// plantSessions writes sessions into the directory, and returns them.
func plantSessions(t *testing.T, dir string, n int) map[string]kept {
	t.Helper()
	now := time.Now().Truncate(time.Millisecond)
	all := make(map[string]kept, n)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		at, maxAge, life := now.Add(-time.Duration(i%3600)*time.Second), "null", siteTTL
		if i%2 == 0 {
			maxAge, life = "7200000", 2*time.Hour
		}
		id := fmt.Sprintf("s%07d-%016x", i, rand.Uint64())
		doc := document(at, maxAge, fmt.Sprintf(`,"user":"user%d","pad":"%s"`, i, strings.Repeat("x", 200)))
		if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		doc, _, _ = strings.Cut(doc, `,"__lastAccess":`)
		all[id] = kept{doc + "}", at.Add(life)}
	}
	return all
}

// All documents and ends come through, there and back, from encrypted directories and plain ones. One that the engine
// cannot hold keeps none of the others out.
func testMoveBothWays(t *testing.T, s *engineServer) {
	now := time.Now().Truncate(time.Millisecond)
	var took time.Duration // by which the end can be later: how long a session lives on is said at the beginning
	moves := func(what, want string, args ...string) {
		t.Helper()
		start := time.Now()
		r := command(t, "", append([]string{"move", "--create-table"}, args...)...)
		took += time.Since(start)
		wantMoved(t, what, r, want)
	}
	for kind, store := range keyFiles(t) {
		took = 0
		from, to, part := t.TempDir(), t.TempDir(), s.part()
		want := make(map[string]kept)
		refused := 0
		write := func(id, doc string) {
			t.Helper()
			data := []byte(doc)
			if store.codec != nil {
				var err error
				if data, err = store.codec.Encode(id, data); err != nil {
					t.Fatal(err)
				}
			}
			put(t, from, id+".json", string(data))
		}
		for i, members := range append(odd, `,"__created":1700000000000,"__proto":{"__lastAccess":1}`) {
			life := []time.Duration{siteTTL, 24 * time.Hour, siteTTL, 2*time.Hour + 500*time.Microsecond}[i%4]
			maxAge := []string{"null", "86400000", "false", "7200000.5"}[i%4]
			at := now.Add(-time.Duration(i) * time.Minute)
			id, doc := fmt.Sprintf("-id.%d~x", i), document(at, maxAge, members)
			write(id, doc)
			if strings.Contains(members, "\xff") && !s.bytes && kind != "kruptein" { // what goes through kruptein is UTF-8
				refused++
				continue
			}
			if kind == "kruptein" {
				doc = string([]rune(doc))
			}
			doc, _, _ = strings.Cut(doc, `,"__lastAccess":`+fmt.Sprint(at.UnixMilli()))
			doc = strings.Replace(doc, `"a":1,"a":2`, `"a":2`, 1)
			want[id] = kept{doc + "}", at.Add(life)}
		}
		write("expired", document(now.Add(-25*time.Hour), "null", ""))
		write("dead", document(now, "-5", ""))
		put(t, from, "README", "")

		flags := append(store.flags, "--ttl", siteTTL.String())
		moves(kind+": to the engine", moved(len(want), 0, 2, 0, 0, refused), append(flags, "--from", "file:"+from, "--to", part)...)
		wantKept(t, kind+": the engine", atEngine(t, part), want, time.Second+took)
		if left := storetest.Files(t, from); len(left) != 2+refused {
			t.Errorf("%s: at the source there are %d files, want %d: %q", kind, len(left), 2+refused, left)
		}
		moves(kind+": again", moved(0, 0, 2, 0, 0, refused), append(flags, "--from", "file:"+from, "--to", part)...)

		// To another part, for which the TTL does not matter, and into a directory.
		next := s.part()
		moves(kind+": to another part", moved(len(want), 0, 0, 0, 0, 0), "--from", part, "--to", next)
		if left := atEngine(t, part); len(left) > 0 {
			t.Errorf("%s: the engine still has %d sessions", kind, len(left))
		}
		moves(kind+": back", moved(len(want), 0, 0, 0, 0, 0), append(flags, "--from", next, "--to", "file:"+to)...)
		got := inDir(t, to, store.codec)
		wantKept(t, kind+": the directory", got, want, 2*time.Second+took)
		for id, g := range got {
			fi, err := os.Stat(filepath.Join(to, id+".json"))
			if err != nil || fi.Mode() != 0o600 {
				t.Errorf("%s: %s has the mode %v, %v", kind, id, fi.Mode(), err)
			}
			if off := fi.ModTime().Sub(g.ends).Abs(); off > 2*time.Second+took { // no last access lies ahead
				t.Errorf("%s: to the reaper %s ends %v off", kind, id, off)
			}
		}
		storetest.Tidy(t, to)
	}
}

// Killed in the middle, again and again, move loses no session and doubles none.
func testMoveKilled(t *testing.T, s *engineServer) {
	n, kills := 3*atOnce, 3
	if s.name == "MongoDB" { // FerretDB is slow
		n, kills = 2*engineBatch, 1
	}
	dir, part := filepath.Join(roomFor(t, n), "sessions"), s.part()
	want := plantSessions(t, dir, n)
	files := func() int { return len(storetest.Files(t, dir)) }
	for _, way := range [][]string{{"file:" + dir, part}, {part, "file:" + dir}} {
		args := []string{"move", "--from", way[0], "--to", way[1], "--ttl", siteTTL.String(), "--create-table"}
		midway := 0
		for range kills {
			cmd := process(t, t.Context(), args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			before := files()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			began := false
			for start := time.Now(); !began && time.Since(start) < 20*time.Second; time.Sleep(time.Millisecond) {
				began = files() != before || len(ended) > 0
			}
			if kills > 1 {
				time.Sleep(rand.N(30 * time.Millisecond))
			}
			cmd.Process.Kill()
			if err := <-ended; err == nil {
				break
			} else if !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%q: %v, %s", way, err, stderr.String())
			}
			there := atEngine(t, part)
			here := inDir(t, dir, nil)
			if len(there) > 0 && len(here) > 0 {
				midway++
			}
			union := maps.Clone(here)
			maps.Copy(union, there)
			wantKept(t, "source and target", union, want, anyEnd)
			wantMovedKept(t, here, want)
		}
		if midway == 0 {
			t.Error("move was never killed in the middle: the test tests nothing")
		}
		r := command(t, "", args...)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("move = %+v", r)
		}
		t.Logf("%d times killed in the middle; at the end %s", midway, strings.TrimSpace(r.out))
		there, here := atEngine(t, part), inDir(t, dir, nil)
		if way[0] == part {
			there, here = here, there
		}
		wantKept(t, "the target", there, want, anyEnd)
		if len(here) > 0 {
			t.Errorf("at the source are %d sessions", len(here))
		}
	}
	storetest.Sweep(t, dir)
}

// wantMovedKept fails the test unless the sessions got are as they were.
func wantMovedKept(t *testing.T, got, want map[string]kept) {
	t.Helper()
	for id, g := range got {
		if g.doc != want[id].doc {
			t.Errorf("%.20s is %.200s\nwant %.200s", id, g.doc, want[id].doc)
		}
	}
}

// Ctrl-C ends it after the batch: no session is at two places, and the report says how many have moved.
func testMoveInterrupted(t *testing.T, s *engineServer) {
	n := 2*atOnce + 1
	if s.name == "MongoDB" {
		n = engineBatch + 1
	}
	dir, part := filepath.Join(roomFor(t, n), "sessions"), s.part()
	want := plantSessions(t, dir, n)
	for _, way := range [][]string{{"file:" + dir, part}, {part, "file:" + dir}} {
		all := func() (here, there map[string]kept) { return inDir(t, dir, nil), atEngine(t, part) }
		if way[0] == part {
			if r := move(t, "file:"+dir, part); r.code != 0 {
				t.Fatalf("move = %+v", r)
			}
		}
		cmd := process(t, t.Context(), "move", "--from", way[0], "--to", way[1], "--ttl", siteTTL.String(), "--create-table", "--json")
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		before := len(storetest.Files(t, dir))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); len(storetest.Files(t, dir)) == before && time.Since(start) < 20*time.Second; {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		var report mover
		if json.Unmarshal(out.Bytes(), &report) != nil || report.Moved == 0 {
			t.Errorf("%q: %v, %s%s", way, err, out.String(), stderr.String())
		}
		if report.Moved < n && (cmd.ProcessState.ExitCode() != exitRefused || stderr.String() != "filestore: interrupted\n") {
			t.Errorf("%q: %v, %s", way, err, stderr.String())
		}
		here, there := all()
		if len(here)+len(there) != n {
			t.Errorf("%q: %d sessions in the directory and %d in the engine, want %d together", way, len(here), len(there), n)
		}
		arrived := there
		if way[0] == part {
			arrived = here
		}
		if len(arrived) != report.Moved {
			t.Errorf("%q: %d sessions have moved, and the report says %d", way, len(arrived), report.Moved)
		}
		maps.Copy(here, there)
		wantKept(t, "source and target", here, want, anyEnd)
	}
}

// A session that is there already stays if it ends as late, and else both stay.
func testMoveNewer(t *testing.T, s *engineServer) {
	now := time.Now().Truncate(time.Millisecond)
	dir, part := t.TempDir(), s.part()
	newerID, olderID, overID := "newer-there-0123456789", "older-there-0123456789", "over-there-0123456789"
	there := program(t, part, nil)
	store := func(id string, at time.Time, by string) {
		t.Helper()
		sess := new(filestore.Session)
		if err := sess.UnmarshalJSON([]byte(document(at, "3600000", `,"by":"`+by+`"`))); err != nil {
			t.Fatal(err)
		}
		stored, err := there.Import(t.Context(), []filestore.Entry{{ID: id, Session: sess}})
		if err != nil || !stored[0] {
			t.Fatal(stored, err)
		}
	}
	by := func(id string) (here, other string) {
		t.Helper()
		if sess, err := there.Get(t.Context(), id); err == nil {
			other = string(sess.Values["by"])
		}
		data, _ := os.ReadFile(filepath.Join(dir, id+".json"))
		sess := new(filestore.Session)
		if len(data) > 0 {
			if err := sess.UnmarshalJSON(data); err != nil {
				t.Fatal(err)
			}
		}
		return string(sess.Values["by"]), other
	}
	store(newerID, now.Add(-time.Minute), "engine")
	store(olderID, now.Add(-30*time.Minute), "engine")
	put(t, dir, newerID+".json", document(now.Add(-10*time.Minute), "3600000", `,"by":"file"`))
	put(t, dir, olderID+".json", document(now.Add(-10*time.Minute), "3600000", `,"by":"file"`))
	r := move(t, "file:"+dir, part)
	wantMoved(t, "to the engine", r, moved(0, 1, 0, 1, 0, 0))
	if r.stderr != "filestore: older-th…: newer than the one at the target: both stay\nfilestore: 1 session left where they were\n" {
		t.Errorf("move says %s", r.stderr)
	}
	if here, other := by(newerID); here != "" || other != `"engine"` {
		t.Errorf("what was newer at the target is %s, %s", here, other)
	}
	if here, other := by(olderID); here != `"file"` || other != `"engine"` {
		t.Errorf("what was newer at the source is %s, %s", here, other)
	}

	// Back. In the directory the older one is the newer one now, and an expired one does not count.
	put(t, dir, newerID+".json", document(now.Add(-20*time.Minute), "3600000", `,"by":"file"`))
	put(t, dir, overID+".json", document(now.Add(-2*time.Hour), "3600000", `,"by":"file"`))
	store(overID, now.Add(-time.Minute), "engine")
	r = move(t, part, "file:"+dir)
	wantMoved(t, "to the directory", r, moved(1, 1, 0, 1, 0, 0))
	if here, other := by(olderID); here != `"file"` || other != "" {
		t.Errorf("what was newer at the target is %s, %s", here, other)
	}
	if here, other := by(newerID); here != `"file"` || other != `"engine"` {
		t.Errorf("what was newer at the source is %s, %s", here, other)
	}
	if here, other := by(overID); here != `"engine"` || other != "" {
		t.Errorf("what had expired at the target is %s, %s", here, other)
	}

	// The same document with an end that went through two clocks is a copy.
	put(t, dir, "copy-0123456789.json", document(now, "3600000", `,"by":"both"`))
	store("copy-0123456789", now.Add(time.Second/2), "both") // the engine may round it up to 1.5 s, which is still a copy
	wantMoved(t, "a copy", move(t, part, "file:"+dir), moved(0, 1, 0, 1, 0, 0))
}

// If the server dies in the middle, move says so and loses nothing, and goes on when it is there again.
func testMoveServerDies(t *testing.T, s *storetest.PostgresServer, e *engineServer) {
	n := 2 * atOnce
	dir, part := filepath.Join(roomFor(t, n), "sessions"), e.part()
	want := plantSessions(t, dir, n)
	for _, way := range [][]string{{"file:" + dir, part}, {part, "file:" + dir}} {
		args := []string{"move", "--from", way[0], "--to", way[1], "--ttl", siteTTL.String(), "--create-table"}
		cmd := process(t, t.Context(), args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		before := len(storetest.Files(t, dir))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); len(storetest.Files(t, dir)) == before && time.Since(start) < 20*time.Second; {
			time.Sleep(time.Millisecond)
		}
		s.Kill()
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitRefused || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("when the server dies: %d, %s", code, stderr.String())
		}
		s.Start(t)
		union := inDir(t, dir, nil)
		maps.Copy(union, atEngine(t, part))
		wantKept(t, "source and target", union, want, anyEnd)
		if r := command(t, "", args...); r.code != 0 {
			t.Fatalf("move = %+v", r)
		}
		there, here := atEngine(t, part), inDir(t, dir, nil)
		if way[0] == part {
			there, here = here, there
		}
		wantKept(t, "the target", there, want, anyEnd)
		if len(here) > 0 {
			t.Errorf("at the source are %d sessions", len(here))
		}
	}
}

// An end that the engine does not tell, or that --ttl does not explain, logs nobody out, and the next run knows its
// session again.
func testMoveEnds(t *testing.T, addr string) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	from, dir := "redis://"+addr+"?prefix=ends:", t.TempDir()
	plant := func() {
		t.Helper()
		doc := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"anna"}`
		for id, left := range map[string]time.Duration{"never": 0, "later": 20 * time.Hour, "sooner": 10 * time.Minute} {
			if err := c.Set(t.Context(), "ends:"+id, doc, left).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range 2 { // in the second all are there already, as after a kill
		plant()
		if round > 0 {
			time.Sleep(3 * time.Second) // "never" is to end later now
		}
		now := time.Now()
		r := command(t, "", "move", "--from", from, "--to", "file:"+dir)
		if round == 0 {
			wantMoved(t, "move", r, moved(3, 0, 0, 0, 0, 0))
		} else {
			wantMoved(t, "move again", r, moved(0, 3, 0, 0, 0, 0))
		}
		for id, want := range map[string]struct{ access, mtime time.Duration }{
			"never": {0, time.Hour}, "later": {0, 20 * time.Hour}, "sooner": {-50 * time.Minute, 10 * time.Minute},
		} {
			data, err := os.ReadFile(filepath.Join(dir, id+".json"))
			sess := new(filestore.Session)
			if err == nil {
				err = sess.UnmarshalJSON(data)
			}
			if err != nil {
				t.Fatal(err)
			}
			fi, err := os.Stat(filepath.Join(dir, id+".json"))
			if err != nil {
				t.Fatal(err)
			}
			access, mtime := sess.LastAccess.Sub(now.Add(want.access)), fi.ModTime().Sub(now.Add(want.mtime))
			if access.Abs() > 10*time.Second || mtime.Abs() > 10*time.Second {
				t.Errorf("%s: the last access is %v off, the file's time %v", id, access, mtime)
			}
		}
	}

	// To another place in Redis.
	r := command(t, "", "move", "--from", "file:"+dir, "--to", from+"x-")
	wantMoved(t, "back", r, moved(3, 0, 0, 0, 0, 0))
	for id, want := range map[string]time.Duration{"never": time.Hour, "later": 20 * time.Hour, "sooner": 10 * time.Minute} {
		left, err := c.PTTL(t.Context(), "ends:x-"+id).Result()
		if off := left - want; err != nil || off.Abs() > 10*time.Second {
			t.Errorf("%s lives for %v, %v, want %v", id, left, err, want)
		}
	}
}

// A hollow codec stores what is not a session.
type hollow struct{}

func (hollow) Encode(string, []byte) ([]byte, error)        { return []byte("[]"), nil }
func (hollow) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

// What cannot be read stays.
func testMoveUnreadable(t *testing.T, s *engineServer) {
	dir, part := filepath.Join(t.TempDir(), "sessions"), s.part()
	want := plantSessions(t, dir, 20)
	put(t, dir, "corrupt-0123456789.json", `{"secret":"hunter2"`)
	put(t, dir, "sealed.json", `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	r := move(t, "file:"+dir, part)
	wantMoved(t, "to the engine", r, moved(20, 0, 0, 0, 2, 0))
	if strings.Contains(r.stderr, "hunter2") || !strings.Contains(r.stderr, "filestore: corrupt-…: unreadable: ") || strings.Count(r.stderr, "\n") != 3 {
		t.Errorf("move says %s", r.stderr)
	}
	if files := storetest.Files(t, dir); len(files) != 2 {
		t.Errorf("in the directory are %q", files)
	}
	if err := program(t, part, hollow{}).Set(t.Context(), "hollow-0123456789", new(filestore.Session)); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(dir)
	os.Mkdir(dir, 0o700)
	r = move(t, part, "file:"+dir)
	wantMoved(t, "to the directory", r, moved(20, 0, 0, 0, 1, 0))
	if !strings.Contains(r.stderr, "filestore: hollow-0…: unreadable: the document holds no session") {
		t.Errorf("move says %s", r.stderr)
	}
	wantKept(t, "the directory", inDir(t, dir, nil), want, anyEnd)
	if _, err := program(t, part, nil).Get(t.Context(), "hollow-0123456789"); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("what was unreadable is %v", err)
	}

	// Nothing takes its place either.
	put(t, dir, "hollow-0123456789.json", document(time.Now(), "null", ""))
	r = move(t, "file:"+dir, part)
	wantMoved(t, "over what is unreadable", r, moved(20, 0, 0, 0, 0, 1))
	if !strings.Contains(r.stderr, "filestore: hollow-0…: refused: the document holds no session") {
		t.Errorf("move says %s", r.stderr)
	}
}

// A table that is not there is spoken of in the command's words.
func testMoveNoTable(t *testing.T, s *engineServer) {
	dir, none := t.TempDir(), s.part()
	for _, args := range [][]string{
		{"--from", "file:" + dir, "--to", none}, {"--from", none, "--to", "file:" + dir},
		{"--from", "file:" + dir, "--to", none, "--create-table", "--dry-run"},
		{"--from", none, "--to", "file:" + dir, "--create-table", "--dry-run"},
		{"--from", "file:" + dir, "--to", none + "."},
	} {
		r := command(t, "", append([]string{"move"}, args...)...)
		if r.code != exitRefused || strings.Contains(r.stderr, "Options") || strings.Contains(r.stderr, "CreateTable") {
			t.Errorf("move %q = %+v", args, r)
		}
		toTable := args[3] == none
		if got := strings.Contains(r.stderr, "--create-table"); got != toTable {
			t.Errorf("move %q = %+v", args, r)
		}
		if got := strings.Contains(r.stderr, "without --dry-run"); got != (toTable && len(args) == 6) {
			t.Errorf("move %q = %+v", args, r)
		}
	}
}

// A dry run counts as move does, and changes nothing.
func testMoveDryRun(t *testing.T, s *engineServer) {
	dir, empty, part, other := filepath.Join(t.TempDir(), "sessions"), t.TempDir(), s.part(), s.part()
	plantSessions(t, dir, 50)
	program(t, part, nil)
	program(t, other, nil)
	put(t, dir, "corrupt.json", "{")
	mustWrite(t, nodeSession{dir: dir, id: "expired", age: 25 * time.Hour})
	check := func(from, to, want string) {
		t.Helper()
		here, nothing, there := manifest(t, dir), manifest(t, empty), atEngine(t, part)
		r := move(t, from, to, "--dry-run", "--json")
		if r.out != want+"\n" {
			t.Errorf("move --dry-run = %+v\nwant %s", r, want)
		}
		wantSame(t, "a dry run", here, manifest(t, dir))
		wantSame(t, "a dry run", nothing, manifest(t, empty))
		wantKept(t, "after a dry run", atEngine(t, part), there, anyEnd)
		if n := len(atEngine(t, other)); n > 0 {
			t.Errorf("a dry run has moved %d sessions", n)
		}
	}
	check("file:"+dir, part, `{"moved":50,"there":0,"expired":1,"newer":0,"unreadable":1,"refused":0}`)
	wantMoved(t, "move", move(t, "file:"+dir, part), moved(50, 0, 1, 0, 1, 0))
	check(part, "file:"+empty, `{"moved":50,"there":0,"expired":0,"newer":0,"unreadable":0,"refused":0}`)
	check(part, other, `{"moved":50,"there":0,"expired":0,"newer":0,"unreadable":0,"refused":0}`)
	if r := move(t, part, "file:"+empty, "--dry-run"); r.code != 0 || !strings.HasPrefix(r.out, "50 sessions would be moved, 0 there already; ") {
		t.Errorf("move --dry-run = %+v", r)
	}
}

// An id that is too long for the engine keeps no other one out, and no dozen of them does.
func testMoveLongIDs(t *testing.T, s *engineServer) {
	dir, part := filepath.Join(t.TempDir(), "sessions"), s.part()
	want := plantSessions(t, dir, 300)
	var long int
	for i := range 150 {
		id := fmt.Sprintf("%s%03d", strings.Repeat("x", 180), i)
		put(t, dir, id+".json", document(time.Now(), "null", ""))
		long++
	}
	refused := 0
	if s.maxID > 0 {
		refused = long
	}
	r := move(t, "file:"+dir, part)
	wantMoved(t, "move", r, moved(300+long-refused, 0, 0, 0, 0, refused))
	if strings.Contains(r.stderr, strings.Repeat("x", 20)) {
		t.Errorf("move shows an id: %s", r.stderr)
	}
	got := atEngine(t, part)
	maps.DeleteFunc(got, func(id string, _ kept) bool { return strings.HasPrefix(id, "xxx") })
	wantKept(t, "the engine", got, want, anyEnd)
	if left := len(storetest.Files(t, dir)); left != refused {
		t.Errorf("in the directory are %d sessions, want %d", left, refused)
	}
}

// The same place by another name is refused, and nothing is lost.
func testMoveSame(t *testing.T, s *engineServer) {
	dir, part := filepath.Join(t.TempDir(), "sessions"), s.part()
	want := plantSessions(t, dir, 10)
	if r := move(t, "file:"+dir, part); r.code != 0 {
		t.Fatalf("move = %+v", r)
	}
	for _, other := range []string{part, strings.Replace(part, "127.0.0.1", "localhost", 1)} {
		if r := move(t, part, other); r.code != exitRefused || r.stderr != "filestore: --from and --to are the same place\n" || r.out != "" {
			t.Errorf("move to the same place = %+v", r)
		}
		wantKept(t, "the engine", atEngine(t, part), want, anyEnd)
	}
}

// Between two prefixes of which one begins with the other no session is moved: it could be another one by its new id.
func testMoveNested(t *testing.T, addr string) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	const n = 2500 // more than a page of SCAN
	doc := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"anna"}`
	long, short := "redis://"+addr+"?prefix=nest-", strings.Replace("redis://"+addr+"?prefix=nest", "127.0.0.1", "localhost", 1)
	pipe := c.Pipeline()
	for i := range n {
		pipe.Set(t.Context(), fmt.Sprintf("nest--id%04d", i), doc, time.Hour) // the id "-id…" of long, "--id…" of short
		pipe.Set(t.Context(), fmt.Sprintf("nestid%04d", i), doc, time.Hour)   // of short only
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(c.Keys(t.Context(), "nest*").Val()))
	if len(want) != 2*n {
		t.Fatalf("there are %d keys", len(want))
	}
	for _, way := range [][]string{{long, short}, {short, long}} {
		r := move(t, way[0], way[1])
		if r.code != exitRefused || r.stderr != "filestore: "+errNested.Error()+"\n" || r.out != "" {
			t.Errorf("move from %s to %s = %+v", way[0], way[1], r)
		}
		if got := slices.Sorted(slices.Values(c.Keys(t.Context(), "nest*").Val())); !slices.Equal(got, want) { // no mark either
			t.Errorf("after a move from %s to %s there are %d keys, want the %d of before", way[0], way[1], len(got), len(want))
		}
	}

	// A dry run knows it by the URLs, if the server has one name.
	if r := move(t, long, "redis://"+addr+"?prefix=nest", "--dry-run"); r.code != exitRefused || r.stderr != "filestore: "+errNested.Error()+"\n" || r.out != "" {
		t.Errorf("move --dry-run = %+v", r)
	}

	// Prefixes that only look alike are two places, and no mark stays.
	r := move(t, long, "redis://"+addr+"?prefix=neST-")
	if r.code != exitDone || r.out != moved(n, 0, 0, 0, 0, 0) {
		t.Errorf("move = %+v", r)
	}
	if got := len(c.Keys(t.Context(), "neST--id*").Val()); got != n {
		t.Errorf("at the target are %d sessions, want %d", got, n)
	}
	if got := c.Keys(t.Context(), "*move-*").Val(); len(got) > 0 {
		t.Errorf("move leaves %d marks", len(got))
	}
}

// 100,000 sessions go there and back in 15 seconds each.
func testMoveScale(t *testing.T, s *engineServer) {
	n := 5000
	if os.Getenv("FILESTORE_LONG") != "" && s.name != "MongoDB" {
		n = 100_000
	}
	dir, part := filepath.Join(roomFor(t, n), "sessions"), s.part()
	plantSessions(t, dir, n)
	const most = 15 * time.Second
	fastest := []time.Duration{time.Hour, time.Hour}
	for range 3 { // others may use the machine
		for i, way := range [][]string{{"file:" + dir, part}, {part, "file:" + dir}} {
			start := time.Now()
			_, out, peak := withPeak(t, "move", "--from", way[0], "--to", way[1], "--ttl", siteTTL.String(), "--create-table")
			took := time.Since(start)
			if out != moved(n, 0, 0, 0, 0, 0) {
				t.Fatalf("move = %s", out)
			}
			t.Logf("%d sessions from %.6s to %.6s: %v, %d KiB", n, way[0], way[1], took.Round(10*time.Millisecond), peak)
			fastest[i] = min(fastest[i], took)
		}
		if slices.Max(fastest) <= most {
			return
		}
	}
	if s.name != "MongoDB" && !raceDetector { // FerretDB looks at all documents to remove one
		t.Errorf("there and back takes %v, want %v each at most", fastest, most)
	}
}
