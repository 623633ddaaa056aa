package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
)

// watch prints the changes by other processes, writes nothing, and ends with SIGINT.
func TestWatch(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001"})
		before, _ := snapshot(parent)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		args := []string{"watch", "--dir", dir}
		made, ended := "  made     bert0001…", "  ended    bert0001…"
		if asJSON {
			args = append(args, "--json")
			made, ended = `Z","op":"made","id":"bert0001…"}`, `Z","op":"ended","id":"bert0001…"}`
		}
		cmd := process(t, ctx, args...)
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for s := bufio.NewScanner(out); s.Scan(); {
				lines <- s.Text()
			}
		}()
		// Nothing tells when it has begun to watch, so change until it says so.
		file := filepath.Join(dir, "bert0001bert0001.json")
		change := func() {
			os.Remove(file)
			mustWrite(t, nodeSession{dir: dir, id: "bert0001bert0001"})
		}
		await := func(want string, change func()) {
			t.Helper()
			for {
				change()
				select {
				case line, ok := <-lines:
					if !ok {
						t.Fatalf("watch ended: %s", errOut.String())
					}
					if strings.HasSuffix(line, want) {
						return
					}
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
		await(made, change)
		await(ended, func() { change(); os.Remove(file) })
		clean := interrupt(t, cmd)
		for range lines {
		}
		if err := cmd.Wait(); clean && (err != nil || errOut.Len() > 0) {
			t.Errorf("watch after SIGINT: %v, %q", err, errOut.String())
		}
		os.Remove(file)
		after, _ := snapshot(parent)
		if len(after) != len(before) {
			t.Errorf("watch left something: %v, before %v", after, before)
		}
	}
}

// What watch says of each change, and whose session it was.
func TestWatchSays(t *testing.T) {
	dir, store := sessions(t, nil)
	ctx := t.Context()
	var out bytes.Buffer
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: ctx, out: &out, err: &out}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	mustWrite(t, nodeSession{dir: dir, id: "before00", maxAge: time.Hour, members: `"user":"carl"`})
	mustWrite(t, nodeSession{dir: dir, id: "over0000", age: 2 * time.Hour, maxAge: time.Hour, members: `"user":"dora"`})
	mustWrite(t, nodeSession{dir: dir, id: "grave000", maxAge: time.Hour, members: `"destroyed":true`})
	w, err := r.follow(ctx, []string{"user"})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.all(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		w.learn(&e)
	}
	set := func(id string, sess *filestore.Session) {
		t.Helper()
		if err := store.Set(ctx, id, sess); err != nil {
			t.Fatal(err)
		}
	}
	anna := new(filestore.Session)
	anna.Put("user", "anna")
	node := func(members string) func(id string) {
		return func(id string) { mustWrite(t, nodeSession{dir: dir, id: id, maxAge: time.Hour, members: members}) }
	}
	gone := func(id string) { os.Remove(filepath.Join(dir, id+".json")) }
	const changed, destroyed = filestore.Changed, filestore.Destroyed
	for _, c := range []struct {
		what, id string
		do       func(id string)
		op       filestore.Op
		want     string
	}{
		{"a new one", "new00000", func(id string) { set(id, anna) }, changed, "made     new00000  anna"},
		{"an Update", "new00000", func(id string) {
			time.Sleep(2 * time.Millisecond)
			store.Update(ctx, id, func(s *filestore.Session) error { return s.Put("user", "bert") })
		}, changed, "changed  new00000  bert"},
		{"an Update before it has been read", "twice000", func(id string) {
			set(id, anna)
			time.Sleep(2 * time.Millisecond)
			store.Update(ctx, id, func(s *filestore.Session) error { return s.Put("user", "bert") })
		}, changed, "made     twice000  bert"},
		{"a new id for it", "renewed0", func(id string) {
			sess, err := store.Get(ctx, "new00000")
			if err != nil {
				t.Fatal(err)
			}
			sess.Created = sess.Created.Add(-2 * time.Second)
			set(id, sess)
		}, changed, "renewed  renewed0  bert"},
		{"its old one", "new00000", gone, destroyed, "ended    new00000  bert"},
		{"the old one again", "new00000", gone, destroyed, ""},
		{"one of Node's", "node0000", node(`"user":"emil"`), changed, "made     node0000  emil"},
		{"without the member", "node0000", node(""), changed, "changed  node0000  -"},
		{"one that was there", "before00", node(`"user":"fred"`), changed, "changed  before00  fred"},
		{"one that cannot be read", "before00", func(id string) { put(t, dir, id+".json", "{") }, changed, "changed  before00  fred"},
		{"and its end", "before00", gone, destroyed, "ended    before00  fred"},
		{"one that had expired", "over0000", gone, destroyed, "expired  over0000  dora"},
		{"what a destroyed one has left, at last", "grave000", gone, destroyed, ""},
		{"scs destroys", "node0000", node(`"destroyed":true`), changed, "ended    node0000  -"},
		{"and again", "node0000", node(`"destroyed":true`), changed, ""},
		{"and what is left goes", "node0000", gone, destroyed, ""},
		{"scs destroys what has expired", "grave001", node(`"destroyed":true`), changed, ""},
		{"one that came and went", "quick000", gone, changed, "made     quick000  -"},
		{"and its end too", "quick000", gone, destroyed, "ended    quick000  -"},
		{"an imported one", "import00", func(id string) {
			now := time.Now().UnixMilli()
			put(t, dir, id+".json", fmt.Sprintf(`{"cookie":{},"user":"gerd","__created":%d,"__lastAccess":%d}`, now-100_000, now-50_000))
		}, changed, "made     import00  gerd"},
	} {
		out.Reset()
		c.do(c.id)
		if err := w.change(filestore.Event{Op: c.op, ID: c.id}); err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSuffix(out.String(), "\n")
		if _, after, ok := strings.Cut(got, "  "); ok { // without the time, and the space that fills columns
			got = strings.Join(strings.Fields(after), " ")
		}
		if want := strings.Join(strings.Fields(c.want), " "); got != want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// A directory that is large does not keep watch from telling of a change: it reads between the changes, and what a
// change has told is newer than what it reads.
func TestWatchBesideReading(t *testing.T) {
	dir := t.TempDir()
	for i := range 500 {
		mustWrite(t, nodeSession{dir: dir, id: fmt.Sprintf("id%06d", i), maxAge: time.Hour, members: `"user":"anna"`})
	}
	var out bytes.Buffer
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: &out, err: &out}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	w, err := r.follow(t.Context(), []string{"user"})
	if err != nil {
		t.Fatal(err)
	}
	events := func(yield func(filestore.Event, error) bool) {
		for i := range 500 {
			id := fmt.Sprintf("id%06d", i)
			if i%2 == 0 {
				os.Remove(filepath.Join(dir, id+".json"))
				yield(filestore.Event{Op: filestore.Destroyed, ID: id}, nil)
				continue
			}
			mustWrite(t, nodeSession{dir: dir, id: id, maxAge: time.Hour, members: `"user":"bert"`})
			yield(filestore.Event{Op: filestore.Changed, ID: id}, nil)
		}
		yield(filestore.Event{}, fsnotify.ErrEventOverflow)
	}
	if err := w.run(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if changed, ended := strings.Count(text, "  changed  "), strings.Count(text, "  ended    "); changed != 250 || ended != 250 ||
		strings.Count(text, "  bert\n") != 250 || strings.Count(text, "the system dropped events") != 1 || strings.Count(text, "\n") != 501 {
		t.Errorf("%d changed, %d ended: %.2000s", changed, ended, text)
	}
	if len(w.known) != 250 {
		t.Errorf("%d sessions are known, want 250", len(w.known))
	}
}

// A replaced directory ends watch with an error.
func TestWatchReplaced(t *testing.T) {
	if isWindows {
		skip.Test(t, "an open directory cannot be removed")
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	os.Mkdir(dir, 0o700)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := process(t, ctx, "watch", "--dir", dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for { // until the command has opened the one that is then replaced, in one step, so that there always is one
		os.Mkdir(dir+"-new", 0o700)
		if err := syscall.Rename(dir+"-new", dir); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitRefused || !strings.HasPrefix(errOut.String(), "filestore: watch: ") {
				t.Errorf("watch: %v, %q", err, errOut.String())
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
