package record_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
)

func maps(s *filestore.Store) *record.Maps[string] {
	return &record.Maps[string]{
		Files:  s,
		Encode: func(m map[string]any) ([]byte, error) { return json.Marshal(m) },
		Decode: func(b []byte) (m map[string]any, err error) { return m, json.Unmarshal(b, &m) },
	}
}

type values = map[string]any

func put(t *testing.T, m *record.Maps[string], key string, v values) {
	t.Helper()
	if err := m.Create(ctx, &record.Copy{Key: key}, v, time.Hour); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, m *record.Maps[string], key string) (values, *record.Copy) {
	t.Helper()
	v, c, err := m.Load(ctx, key)
	if err != nil {
		t.Fatalf("Load(%s) = %v", key, err)
	}
	return v, c
}

func wantValues(t *testing.T, m *record.Maps[string], key string, want values) {
	t.Helper()
	if got, _ := load(t, m, key); !reflect.DeepEqual(got, want) {
		t.Errorf("%s has %v, want %v", key, got, want)
	}
}

// A Save stores what has changed in its copy, and undoes nothing that others have changed.
func TestMerge(t *testing.T) {
	s, _ := open(t)
	m := maps(s)
	for _, key := range []string{"id", "a/b"} {
		put(t, m, key, values{"user": "ann", "n": 1.0, "cart": values{"tea": 1.0}, "old": true})
		slow, c := load(t, m, key)
		fast, c2 := load(t, m, key)
		delete(fast, "user")
		fast["n"], fast["new"] = 2.0, "x"
		if err := m.Save(ctx, c2, fast, time.Hour); err != nil {
			t.Fatal(err)
		}
		slow["cart"].(values)["tea"] = 2.0 // in place
		delete(slow, "old")
		if err := m.Save(ctx, c, slow, time.Hour); err != nil {
			t.Fatal(err)
		}
		wantValues(t, m, key, values{"n": 2.0, "cart": values{"tea": 2.0}, "new": "x"})
		// The same copy again: what counts is what has changed since its last Save.
		slow["n"] = 3.0
		if err := m.Save(ctx, c, slow, time.Hour); err != nil {
			t.Fatal(err)
		}
		wantValues(t, m, key, values{"n": 3.0, "cart": values{"tea": 2.0}, "new": "x"})
	}
}

// An Edit changes what the session holds by then, and neither its end nor another session of its id.
func TestEdit(t *testing.T) {
	s, _ := open(t)
	m := maps(s)
	set := func(key string, v any) func(values) bool {
		return func(values values) bool { values[key] = v; return true }
	}
	nothing := func(values) bool { return false }
	c := &record.Copy{Key: "id"}
	if err := m.Edit(ctx, c, time.Hour, nothing); err != nil || c.Stored() {
		t.Errorf("an Edit that changes nothing = %v, and there is a session: %v", err, c.Stored())
	}
	if _, err := m.Now(ctx, c); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Now = %v", err)
	}
	var wg sync.WaitGroup
	want := values{}
	for i := range 8 { // of several that begin it each adds what it has
		k := string(rune('a' + i))
		want[k] = k
		wg.Go(func() {
			if err := m.Edit(ctx, &record.Copy{Key: "id"}, time.Hour, set(k, k)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantValues(t, m, "id", want)
	before, err := s.Get(ctx, "id")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Now(ctx, c); err != nil || !reflect.DeepEqual(got, map[string]any(want)) || !c.Stored() {
		t.Errorf("Now = %v, %v", got, err)
	}
	if err := m.Edit(ctx, c, time.Minute, set("a", "x")); err != nil {
		t.Error(err)
	}
	if after, err := s.Get(ctx, "id"); err != nil || after.ExpiresAt(0).Sub(before.ExpiresAt(0)).Abs() > 2*time.Millisecond {
		t.Errorf("the session ends at %v, before at %v, %v", after.ExpiresAt(0), before.ExpiresAt(0), err)
	}

	if err := record.Delete(ctx, s, "id"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := m.Now(ctx, c)
		if err2 := m.Edit(ctx, c, time.Hour, set("a", "y")); !errors.Is(err, filestore.ErrNotFound) || !errors.Is(err2, filestore.ErrNotFound) {
			t.Errorf("of what is gone: Now = %v, Edit = %v", err, err2)
		}
		if _, _, err := m.Load(ctx, "id"); errors.Is(err, filestore.ErrNotFound) {
			put(t, m, "id", values{"user": "bob"}) // another session
		}
	}
	wantValues(t, m, "id", values{"user": "bob"})

	if err := s.Set(ctx, "express", &filestore.Session{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Edit(ctx, &record.Copy{Key: "express"}, time.Hour, set("a", 1)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Edit of somebody else's = %v", err)
	}
}

// What is gone stays so, and another session of its id is left alone.
func TestGeneration(t *testing.T) {
	s, dir := open(t)
	m := maps(s)
	put(t, m, "id", values{"user": "ann"})
	mine, c := load(t, m, "id")
	mine["views"] = 1.0
	if err := record.Delete(ctx, s, "id"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for what, err := range map[string]error{
			"Save": m.Save(ctx, c, mine, time.Hour), "Move": m.Move(ctx, c, "next", mine, time.Hour), "Remove": m.Remove(ctx, c), "Present": m.Present(ctx, c),
		} {
			if !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("%s = %v", what, err)
			}
		}
		if _, _, err := m.Load(ctx, "id"); errors.Is(err, filestore.ErrNotFound) {
			put(t, m, "id", values{"user": "bob"}) // to which nothing of this is to be done either
		}
	}
	wantValues(t, m, "id", values{"user": "bob"})
	if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(names) != 1 {
		t.Errorf("left: %q", names)
	}
}

// A session without a file gets one with its first value; of several requests each adds what it has. A file
// that is not a session of ours, or cannot be read, stays as it is.
func TestFirstSave(t *testing.T) {
	s, dir := open(t)
	m := maps(s)
	if err := m.Save(ctx, &record.Copy{Key: "id"}, values{}, time.Hour); err != nil {
		t.Error(err)
	}
	if _, _, err := m.Load(ctx, "id"); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Load = %v", err)
	}
	var wg sync.WaitGroup
	want := values{}
	for i := range 8 {
		k := string(rune('a' + i))
		want[k] = k
		wg.Go(func() {
			if err := m.Save(ctx, &record.Copy{Key: "id"}, values{k: k}, time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantValues(t, m, "id", want)
	if err := m.Create(ctx, &record.Copy{Key: "id"}, want, time.Hour); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what is there = %v", err)
	}

	name := filepath.Join(dir, "other.json")
	for _, text := range []string{"", `{"cookie":{},"data":{"a":1},"__lastAccess":99999999999999}`, `{"cookie":{},"data":{"a":1},"generation":"x","b":2,"__lastAccess":99999999999999}`,
		`{"cookie":{},"data":"?","generation":"x","__lastAccess":99999999999999}`, `{"cookie":{},"data":"eA==","generation":"x","__lastAccess":99999999999999}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.Load(ctx, "other"); !errors.Is(err, filestore.ErrNotFound) && !record.Unreadable(err) {
			t.Errorf("Load of %q = %v", text, err)
		}
		c := record.Copy{Key: "other"}
		if err := m.Save(ctx, &c, values{"x": 1}, time.Hour); !errors.Is(err, fs.ErrExist) && !record.Unreadable(err) || c.Stored() {
			t.Errorf("Save over %q = %v", text, err)
		}
		if now, err := os.ReadFile(name); string(now) != text {
			t.Errorf("%q has become %q, %v", text, now, err)
		}
	}
}

// Of several moves one succeeds, and what others have changed meanwhile comes along.
func TestMove(t *testing.T) {
	s, dir := open(t)
	m := maps(s)
	for _, key := range []string{"id", "a/b"} {
		put(t, m, key, values{"user": "ann", "n": 1.0})
		var moved atomic.Int32
		var wg sync.WaitGroup
		start := make(chan bool)
		for i := range 8 {
			mine, c := load(t, m, key)
			wg.Go(func() {
				<-start
				mine["i"] = float64(i)
				next := fmt.Sprint("next", i)
				err := m.Move(ctx, c, next, mine, time.Hour)
				if err == nil {
					moved.Add(1)
					wantValues(t, m, next, values{"user": "ann", "n": 1.0, "i": float64(i)})
					record.Delete(ctx, s, next)
				} else if !errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("Move = %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); moved.Load() != 1 || len(names) > 0 {
			t.Errorf("%d have moved it, left: %q", moved.Load(), names)
		}
	}
	put(t, m, "id", values{"user": "ann", "n": 1.0})
	put(t, m, "taken", values{"user": "bob"})
	mine, c := load(t, m, "id")
	theirs, c2 := load(t, m, "id")
	delete(theirs, "user")
	theirs["n"] = 2.0
	mine["n"], mine["m"] = 3.0, 3.0
	if err := m.Save(ctx, c2, theirs, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(ctx, c, "taken", mine, time.Hour); !errors.Is(err, fs.ErrExist) || c.Key != "id" {
		t.Errorf("Move to what is taken = %v", err)
	}
	wantValues(t, m, "taken", values{"user": "bob"})
	if err := m.Move(ctx, c, "next", mine, time.Hour); err != nil || c.Key != "next" {
		t.Errorf("Move = %v", err)
	}
	wantValues(t, m, "next", values{"n": 3.0, "m": 3.0})
	mine["m"] = 4.0
	if err := m.Save(ctx, c, mine, time.Hour); err != nil {
		t.Error(err)
	}
	wantValues(t, m, "next", values{"n": 3.0, "m": 4.0})
}

func sessions(s *filestore.Store) *record.Sessions {
	return record.NewSessions(record.Maps[any]{
		Files: s,
		Encode: func(m map[any]any) ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(m)
			return b.Bytes(), err
		},
		Decode: func(b []byte) (m map[any]any, err error) { return m, gob.NewDecoder(bytes.NewReader(b)).Decode(&m) },
	}, func(error) {})
}

// A pending session exists until 10,000 others have begun, and takes no memory when it is forgotten.
func TestPending(t *testing.T) {
	s, _ := open(t)
	p := sessions(s)
	exist := func(id string, want bool) {
		t.Helper()
		if ok, err := p.Exist(ctx, id); ok != want || err != nil {
			t.Errorf("Exist(%s) = %v, %v, want %v", id, ok, err, want)
		}
	}
	exist("first", false)
	p.Begin("first")
	mine, held := p.Begin("held")
	for i := range 10_000 {
		exist("first", true)
		p.Begin(fmt.Sprint("id", i))
	}
	for range 100 {
		runtime.GC()
		if ok, _ := p.Exist(ctx, "first"); !ok {
			break
		}
		time.Sleep(time.Millisecond)
	}
	exist("first", false)
	exist("id9999", true)
	exist("held", true) // as a request has it
	mine["user"] = "ann"
	if err := p.Save(ctx, held, mine, time.Hour); err != nil {
		t.Error(err)
	}
	exist("held", true)
	if err := p.Destroy(ctx, "held"); err != nil {
		t.Error(err)
	}
	exist("held", false)
	if err := p.Save(ctx, held, mine, time.Hour); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Save of what was destroyed = %v", err)
	}
}

// Saves of a pending session and its Destroy: whatever the order, it stays away.
func TestDestroyPending(t *testing.T) {
	s, dir := open(t)
	p := sessions(s)
	for i := range 200 {
		id := fmt.Sprint("id", i)
		var wg sync.WaitGroup
		for range 2 {
			mine, held := p.Begin(id)
			mine["user"] = "ann"
			wg.Go(func() {
				if err := p.Save(ctx, held, mine, time.Hour); err != nil && !errors.Is(err, filestore.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := p.Destroy(ctx, id); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(names) > 0 {
		t.Errorf("left: %q", names)
	}
}
