package filestore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A session ends when its Lifetime has passed since it was created, however much it is used: for all operations, and
// for its file's time.
func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := quick()
		o.TTL, o.Lifetime, o.TouchAfter = 10*time.Minute, time.Hour, -1
		s, err := filestore.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		own := session(t)
		own.Cookie = filestore.Cookie{OriginalMaxAge: 20 * time.Minute, HTTPOnly: true, Path: "/"}
		created := time.Now()
		set(t, s, "touched")
		set(t, s, "updated", "n", 0)
		if err := s.Set(ctx, "own", own); err != nil {
			t.Fatal(err)
		}
		for minute := 1; minute <= 59; minute++ {
			time.Sleep(time.Minute)
			if err := errors.Join(s.Touch(ctx, "touched", nil), s.Touch(ctx, "own", nil), increment(s, "updated")); err != nil {
				t.Fatalf("minute %d: %v", minute, err)
			}
			if n, err := s.Reap(ctx); n != 0 || err != nil {
				t.Fatalf("minute %d: Reap = %d, %v", minute, n, err)
			}
			set(t, s, "again", "n", minute) // each time a new session
			kept := get(t, s, "updated")
			if err := s.Set(ctx, "updated", kept); err != nil { // the same session
				t.Fatal(err)
			}
		}
		end := created.Add(time.Hour)
		for _, id := range []string{"touched", "own", "updated"} {
			sess := get(t, s, id)
			if !sess.Created.Equal(created) || !sess.ExpiresAt(s.TTL()).Equal(end) {
				t.Errorf("%s was created at %v and ends at %v, want %v and %v", id, sess.Created, sess.ExpiresAt(s.TTL()), created, end)
			}
			if fi, err := os.Stat(filepath.Join(dir, id+".json")); err != nil || !fi.ModTime().Equal(end) {
				t.Errorf("%s: the file's time is %v, want %v", id, fi.ModTime(), end)
			}
			if c := sess.Cookie; c.OriginalMaxAge != 0 && !c.Expires.Equal(end) {
				t.Errorf("%s: its cookie expires at %v, want %v", id, c.Expires, end)
			}
		}
		time.Sleep(time.Minute + 2*time.Millisecond)
		for _, id := range []string{"touched", "own", "updated"} {
			for op, err := range map[string]error{"Touch": s.Touch(ctx, id, nil), "Update": increment(s, id)} {
				wantErr(t, op+" after the Lifetime", err, filestore.ErrExpired)
			}
			_, err := s.Get(ctx, id)
			wantErr(t, "Get after the Lifetime", err, filestore.ErrExpired)
		}
		get(t, s, "again")
		if n, err := s.Len(ctx); n != 1 || err != nil {
			t.Errorf("Len = %d, %v, want 1", n, err)
		}
		if n, err := s.Reap(ctx); n != 3 || err != nil {
			t.Errorf("Reap = %d, %v, want 3", n, err)
		}
	})
}

// When a session was created stays in its file, and is no member of the application's. A file that only Node has
// written does not say it until Go writes it. A time in the future says nothing.
func TestCreated(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.Lifetime = time.Hour
	s := open(t, dir, o)
	before := time.Now().Truncate(time.Millisecond)
	set(t, s, "new", "n", 1)
	sess := get(t, s, "new")
	if sess.Created.Before(before) || !sess.Created.Equal(sess.LastAccess) || len(sess.Values) != 1 {
		t.Errorf("created at %v, accessed at %v, %v", sess.Created, sess.LastAccess, sess.Values)
	}
	if text := readFile(t, dir, "new.json"); !strings.HasSuffix(text, fmt.Sprintf(`"n":1,"__created":%d,"__lastAccess":%d}`, sess.Created.UnixMilli(), sess.LastAccess.UnixMilli())) {
		t.Errorf("the file is %s", text)
	}
	old := nowMs() - 3*time.Hour.Milliseconds()
	write(t, dir, "node.json", doc(nowMs(), `,"n":1`))
	write(t, dir, "ended.json", doc(nowMs(), fmt.Sprintf(`,"__created":%d`, old)))
	write(t, dir, "future.json", doc(nowMs(), fmt.Sprintf(`,"__created":%d`, nowMs()+time.Hour.Milliseconds())))
	write(t, dir, "text.json", doc(nowMs(), `,"__created":"yesterday"`))
	for _, id := range []string{"node", "future", "text"} {
		if sess := get(t, s, id); !sess.Created.IsZero() || sess.ExpiresAt(time.Hour).Sub(sess.LastAccess) != time.Hour {
			t.Errorf("%s: created at %v", id, sess.Created)
		}
		if err := s.Update(ctx, id, func(*filestore.Session) error { return nil }); err != nil {
			t.Error(err)
		}
		if sess := get(t, s, id); sess.Created.Before(before) || sess.Values["__created"] != nil {
			t.Errorf("%s: after an Update created at %v, %v", id, sess.Created, sess.Values)
		}
	}
	_, err := s.Get(ctx, "ended")
	wantErr(t, "Get", err, filestore.ErrExpired)
	get(t, open(t, dir, quick()), "ended") // to a program without a Lifetime it is alive
	if err := new(filestore.Session).Put("__created", 1); err == nil {
		t.Error("Put takes the name __created")
	}
}
