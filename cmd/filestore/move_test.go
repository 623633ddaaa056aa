package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// From one directory to another a session keeps its last access too.
func TestMoveDirectories(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	now := time.Now().Truncate(time.Millisecond)
	docs := make(map[string]string)
	for i, members := range odd {
		id := fmt.Sprintf("-id.%d~x", i)
		docs[id] = document(now.Add(-time.Duration(i)*time.Minute), []string{"null", "86400000"}[i%2], members)
		put(t, from, id+".json", docs[id])
	}
	put(t, from, "README", "")
	r := command(t, "", "move", "--from", "file:"+from, "--to", "file:"+to)
	if want := fmt.Sprintf("%d sessions moved, 0 there already; skipped: 0 expired, 0 newer than there; 0 unreadable, 0 refused\n", len(docs)); r.code != 0 || r.out != want || r.stderr != "" {
		t.Fatalf("move = %+v", r)
	}
	for id, doc := range docs {
		got, err := os.ReadFile(filepath.Join(to, id+".json"))
		if want := strings.Replace(doc, `"a":1,"a":2`, `"a":2`, 1); err != nil || string(got) != want {
			t.Errorf("%s is %.200s, %v\nwant %.200s", id, got, err, want)
		}
	}
	if left := storetest.Files(t, from); len(left) != 0 {
		t.Errorf("at the source stay %q", left)
	}
	if _, err := os.Stat(filepath.Join(from, "README")); err != nil {
		t.Error(err)
	}
	storetest.Tidy(t, to)

	// The way back, in which both sides name the same directory.
	link := filepath.Join(t.TempDir(), "link")
	others := []string{to, to + "/."}
	os.Symlink(to, link)
	if _, err := os.Stat(link); err == nil { // not every system lets anybody make one
		others = append(others, link)
	}
	for _, other := range others {
		r := command(t, "", "move", "--from", "file:"+to, "--to", "file:"+other)
		if r.code != exitRefused || r.stderr != "filestore: --from and --to are the same place\n" || r.out != "" {
			t.Errorf("move to itself = %+v", r)
		}
	}
	if left := storetest.Files(t, to); len(left) != len(docs) {
		t.Errorf("after a move to itself there are %d sessions", len(left))
	}
	if r := command(t, "", "move", "--from", "file:"+to, "--to", "file:"+from, "--json"); r.code != 0 || !strings.HasPrefix(r.out, fmt.Sprintf(`{"moved":%d,`, len(docs))) {
		t.Errorf("move = %+v", r)
	}
	if left := storetest.Files(t, from); len(left) != len(docs) { // nothing else, such as what move puts there to look
		t.Errorf("after the way back there are %d sessions", len(left))
	}
}

// moverBetween returns a mover between two directories, and what it prints.
func moverBetween(t *testing.T, from, to string) (*mover, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	a := &app{now: time.Now, ext: ".json", ttl: time.Hour, in: strings.NewReader(""), out: &out, err: &out, ctx: t.Context()}
	m := &mover{a: a, batchSize: 10}
	open := func(dir string) side {
		own := *a
		own.dir = dir
		w, err := own.writer(many)
		if err != nil {
			t.Fatal(err)
		}
		s := &dirSide{w.reader, w}
		t.Cleanup(func() { s.close() })
		return s
	}
	m.from, m.to = open(from), open(to)
	return m, &out
}

// A meddler is a target with which something happens when it has stored sessions.
type meddler struct {
	side
	then func(items []item, results []error) error
}

func (m meddler) store(ctx context.Context, items []item) ([]error, error) {
	results, err := m.side.store(ctx, items)
	if err == nil {
		err = m.then(items, results)
	}
	return results, err
}

func writeSessions(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		put(t, dir, fmt.Sprintf("session%04d-0123456789.json", i), document(time.Now(), "null", `,"by":"before"`))
	}
}

// A session that changes, or ends, between its reading and its removal is not removed.
func TestMoveBesideAProgram(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	writeSessions(t, from, 10)
	m, out := moverBetween(t, from, to)
	m.to = meddler{m.to, func(items []item, _ []error) error {
		put(t, from, "session0003-0123456789.json", document(time.Now(), "null", `,"by":"after!"`)) // of the same size
		os.Remove(filepath.Join(from, "session0004-0123456789.json"))
		return nil
	}}
	if err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Moved != 9 || m.Newer != 1 || out.String() != "filestore: session0…: it has changed meanwhile: both stay\n" {
		t.Errorf("move counts %+v and says %s", m, out)
	}
	left := storetest.Files(t, from)
	if len(left) != 1 || filepath.Base(left[0]) != "session0003-0123456789.json" {
		t.Fatalf("at the source stay %q", left)
	}
	if data, err := os.ReadFile(left[0]); err != nil || !strings.Contains(string(data), "after!") {
		t.Errorf("the session is %s, %v", data, err)
	}
}

// After an error of the target nothing is removed that is not there, and what is there is.
func TestMoveTargetFails(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	writeSessions(t, from, 30)
	m, _ := moverBetween(t, from, to)
	gone := errors.New("the target is gone")
	batches := 0
	m.to = meddler{m.to, func(items []item, results []error) error {
		if batches++; batches < 2 {
			return nil
		}
		for i, it := range items[5:] { // as if it had not come to these
			os.Remove(filepath.Join(to, it.id+".json"))
			results[5+i] = errLeft
		}
		return gone
	}}
	if err := m.run(t.Context()); err != gone || m.Moved != 15 {
		t.Errorf("move = %v, %+v", err, m)
	}
	if here, there := len(storetest.Files(t, from)), len(storetest.Files(t, to)); here != 15 || there != 15 {
		t.Errorf("at the source are %d sessions and at the target %d, want 15 and 15", here, there)
	}
}

// A target that refuses one session after the other is not asked for ever. That some ids are too long is not such a
// refusal.
func TestMoveRefusedAll(t *testing.T) {
	for _, c := range []struct {
		err            error
		refused, moved int
		fails          bool
	}{
		{errors.New("the disk is full"), named, 0, true},
		{filestore.ErrInvalidID, 250, 50, false},
		{filestore.ErrTooLarge, 250, 50, false},
	} {
		from, to := t.TempDir(), t.TempDir()
		writeSessions(t, from, 300)
		m, out := moverBetween(t, from, to)
		n := 0
		m.to = meddler{m.to, func(items []item, results []error) error {
			for i, it := range items {
				if n++; n <= 250 {
					os.Remove(filepath.Join(to, it.id+".json"))
					results[i] = c.err
				}
			}
			return nil
		}}
		if err := m.run(t.Context()); (err != nil) != c.fails || err != nil && !errors.Is(err, c.err) || m.Refused != c.refused || m.Moved != c.moved {
			t.Errorf("%v: move = %v, %+v", c.err, err, m)
		}
		if lines := strings.Count(out.String(), "\n"); lines != min(c.refused, named+1) {
			t.Errorf("%v: move prints %d lines", c.err, lines)
		}
		if left := len(storetest.Files(t, from)); left != 300-c.moved {
			t.Errorf("%v: at the source are %d sessions", c.err, left)
		}
	}
}

// brokenSource is a source that cannot be listed to its end.
type brokenSource struct{ side }

func (s brokenSource) all(ctx context.Context) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		n := 0
		for it, err := range s.side.all(ctx) {
			if n++; n > 15 {
				yield(item{}, fs.ErrPermission)
				return
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

func TestMoveSourceFails(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	writeSessions(t, from, 30)
	m, _ := moverBetween(t, from, to)
	m.from = brokenSource{m.from}
	if err := m.run(t.Context()); !errors.Is(err, fs.ErrPermission) || m.Moved != 10 {
		t.Errorf("move = %v, %+v", err, m)
	}
	if here, there := len(storetest.Files(t, from)), len(storetest.Files(t, to)); here != 20 || there != 10 {
		t.Errorf("at the source are %d sessions and at the target %d, want 20 and 10", here, there)
	}
}

// A session whose lock is held stays, and goes when move is run again.
func TestMoveBesideALock(t *testing.T) {
	dir, _ := sessions(t, nil)
	to := t.TempDir()
	release := storetest.Hold(t, dir, "healthy")
	r := command(t, "", "move", "--from", "file:"+dir, "--to", "file:"+to)
	if r.code != exitWrong || !strings.Contains(r.out, "0 unreadable, 1 refused") || !strings.Contains(r.stderr, "filestore: healthy: stored, but not removed: timeout") {
		t.Errorf("move beside a held lock = %+v", r)
	}
	release()
	r = command(t, "", "move", "--from", "file:"+dir, "--to", "file:"+to)
	if r.code != 0 || !strings.HasPrefix(r.out, "0 sessions moved, 1 there already; ") || len(storetest.Files(t, dir)) != 0 {
		t.Errorf("move = %+v", r)
	}
}

func TestApartByURL(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     error
	}{
		{"redis://h", "redis://h:6379?prefix=sess%3A", errSame},
		{"redis://h/1?pool_size=5&prefix=a", "redis://h/1?prefix=a&pool_size=5", errSame},
		{"redis://h?prefix=sess-", "redis://h?prefix=sess", errNested},
		{"redis://h?prefix=sess", "redis://h?prefix=sess-", errNested},
		{"redis://h?prefix=sess-", "redis://h?prefix=site", nil},
		{"redis://h/1?prefix=sess-", "redis://h/2?prefix=sess", nil},
		{"redis://h?db=1", "redis://h?db=2", nil},
		{"redis://h", "redis://g", nil},
		{"postgres://h/site", "postgres://h:5432/site?table=session", errSame},
		{"postgres://h/site?table=session", "postgres://h/site?table=session2", nil},
		{"mysql://h/site", "mysql://h:3306/site?table=sessions", errSame},
		{"mongodb://h/site?collection=sessions", "mongodb://h:27017/site", errSame},
		{"mongodb://h/site", "mysql://h/site", nil},
		{"file:a", "file:b", nil},
		{"file:a", "redis://h", nil},
	} {
		for range 2 {
			if err := apartByURL(test.from, test.to); err != test.want {
				t.Errorf("from %s to %s: %v, want %v", test.from, test.to, err, test.want)
			}
			test.from, test.to = test.to, test.from
		}
	}
}

// What move cannot do it refuses in one line, which shows no URL.
func TestMoveRefuses(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	put(t, dir, "healthy.json", document(time.Now(), "null", ""))
	put(t, other, "key", strings.Repeat("07", 32))
	t.Setenv("FILESTORE_TEST_URL", "redis://anna:hunter2@127.0.0.1:1")
	for _, args := range [][]string{
		{}, {"--from", "file:" + dir}, {"--to", "file:" + dir}, {"--from", "file:" + dir, "--to", "file:" + other, "more"},
		{"--from", "file:" + dir, "--to", "env:hunter2"},
		{"--from", "file:" + dir, "--to", "file:" + filepath.Join(other, "none")},
		{"--from", "file:", "--to", "file:" + other},
		{"--from", "file://host" + dir, "--to", "file:" + other},
		{"--from", dir, "--to", "file:" + other},
		{"--from", "ftp://anna:hunter2@127.0.0.1", "--to", "file:" + other},
		{"--from", "redis://anna:hunter2@127.0.0.1:x", "--to", "file:" + other},
		{"--from", "redis://a", "--to", "redis://b", "--key-file", filepath.Join(other, "key")},
		{"--from", "env:FILESTORE_TEST_URL", "--to", "file:" + other},
		{"--from", "file:" + dir, "--to", "redis://anna:hunter2@127.0.0.1:1"},
		{"--from", "file:" + dir, "--to", "postgres://anna:hunter2@127.0.0.1:1/site"},
		{"--from", "file:" + dir, "--to", "mysql://anna:hunter2@127.0.0.1:1/site"},
		{"--from", "file:" + dir, "--to", "mongodb://anna:hunter2@127.0.0.1:1/site?serverSelectionTimeoutMS=500"},
	} {
		r := command(t, "", append([]string{"move"}, args...)...)
		if r.code != exitRefused || r.out != "" || strings.Count(r.stderr, "\n") != 1 || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("move %q = %+v", args, r)
		}
	}
	if left := len(storetest.Files(t, dir)); left != 1 {
		t.Errorf("at the source are %d sessions", left)
	}
	// A key that is missing is said once.
	sealed := t.TempDir()
	for i := range named + 5 {
		put(t, sealed, fmt.Sprintf("id%d.json", i), `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	}
	r := command(t, "", "move", "--from", "file:"+sealed, "--to", "file:"+other)
	if r.code != exitRefused || !strings.HasSuffix(r.stderr, errNoKey.Error()+"\n") || !strings.Contains(r.out, "100 unreadable") {
		t.Errorf("move = %+v", r)
	}
}
