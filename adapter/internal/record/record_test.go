package record_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/internal/record"
	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var ctx = context.Background()

func open(t *testing.T) (*filestore.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := filestore.Open(dir, storetest.Contested(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dir
}

var keys = []string{
	"2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", "A", "", ".", "..", "../up", "a/b", "v2|GET|/x|q=..%2F", "a.json", "x.json.1234567890",
	"con", "NUL", "127.0.0.1", "a,b", "a~b", "\x00", "\xff\xfe", "açaí 日本 😀", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("/", 100_000),
	record.ID("a/b"), "sha256-", "sha256-x",
}

// Any key has a session of its own, whatever it is, and gets its bytes back.
func TestKeys(t *testing.T) {
	s, dir := open(t)
	for i, key := range keys {
		if data, ok, err := record.Get(ctx, s, key); ok || err != nil {
			t.Fatalf("Get(%.40q) = %q, %v, %v before Set", key, data, ok, err)
		}
		if err := record.Free(ctx, s, key); err != nil {
			t.Errorf("Free(%.40q) = %v before Set", key, err)
		}
		if err := record.Set(ctx, s, key, []byte{byte(i)}, time.Hour); err != nil {
			t.Fatalf("Set(%.40q) = %v", key, err)
		}
		if create, free := record.Create(ctx, s, key, nil, time.Hour), record.Free(ctx, s, key); !errors.Is(create, fs.ErrExist) || !errors.Is(free, fs.ErrExist) {
			t.Errorf("Create(%.40q) = %v, Free = %v after Set", key, create, free)
		}
	}
	all := make(map[string]string)
	for e, err := range record.All(ctx, s) {
		if err != nil {
			t.Fatal(err)
		}
		all[e.Key] = string(e.Data)
	}
	for i, key := range keys {
		data, ok, err := record.Get(ctx, s, key)
		if !ok || err != nil || !bytes.Equal(data, []byte{byte(i)}) || all[key] != string(data) {
			t.Errorf("Get(%.40q) = %q, %v, %v; in All %q; want %d", key, data, ok, err, all[key], i)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(names) != len(keys) || len(all) != len(keys) {
		t.Errorf("%d files and %d of All, want %d", len(names), len(all), len(keys))
	}
	for _, key := range keys {
		if err := errors.Join(record.Delete(ctx, s, key), record.Delete(ctx, s, key)); err != nil {
			t.Errorf("Delete(%.40q) = %v", key, err)
		}
		if _, ok, err := record.Get(ctx, s, key); ok || err != nil {
			t.Errorf("Get(%.40q) = %v, %v after Delete", key, ok, err)
		}
	}
}

// Bytes come back as they were; an object is to be read in the file.
func TestData(t *testing.T) {
	s, dir := open(t)
	for text, readable := range map[string]bool{
		"": false, "x": false, "\x00\xff": false, "null": false, `"x"`: false, "[1]": false, "{": false, "{x}": false, "{\"\xff\":1}": false, ` {"a":1}`: false,
		`{}`: true, `{"a":1}`: true, `{ "é<&>" :  [1.0, 1e3, "\u00e9\/"] , "a":1,"a":2 }`: true, `{"cookie":1,"__lastAccess":null}`: true,
		strings.Repeat("x", 100_000): false,
	} {
		if err := record.Set(ctx, s, "id", []byte(text), time.Hour); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			data, ok, err := record.Get(ctx, s, "id")
			if !ok || err != nil || string(data) != text {
				t.Fatalf("Get = %q, %v, %v, want %q", data, ok, err, text)
			}
			clear(data) // it is ours
		}
		file, err := os.ReadFile(filepath.Join(dir, "id.json"))
		if err != nil || len(text) > 1 && bytes.Contains(file, []byte(`"data":`+text)) != readable {
			t.Errorf("%q is in the file as %s, %v", text, file, err)
		}
		// And a rewrite by others keeps them.
		if err := s.Update(ctx, "id", func(*filestore.Session) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if data, ok, err := record.Get(ctx, s, "id"); !ok || err != nil || string(data) != text {
			t.Fatalf("Get after Update = %q, %v, %v", data, ok, err)
		}
	}
}

func TestLife(t *testing.T) {
	s, _ := open(t)
	life := func(d time.Duration) time.Duration {
		t.Helper()
		if err := record.Set(ctx, s, "id", nil, d); err != nil {
			t.Fatal(err)
		}
		sess, err := s.Get(ctx, "id")
		if err != nil {
			t.Fatal(err)
		}
		return sess.ExpiresAt(time.Minute).Sub(sess.LastAccess)
	}
	for d, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Hour: time.Hour, time.Hour + 1: time.Hour + time.Millisecond, 1<<63 - 1: record.Forever,
	} {
		if got := life(d); got != want {
			t.Errorf("Set for %v lives for %v, want %v", d, got, want)
		}
	}
	if err := record.Set(ctx, s, "id", nil, time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	if _, ok, err := record.Get(ctx, s, "id"); ok || err != nil {
		t.Errorf("Get of what has ended = %v, %v", ok, err)
	}
}

func TestUnchanged(t *testing.T) {
	s, _ := open(t)
	if err := record.Set(ctx, s, "id", []byte("x"), time.Hour); err != nil {
		t.Fatal(err)
	}
	sess, err := s.Get(ctx, "id")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key, data string
		life      time.Duration
		want      bool
	}{
		{"id", "x", time.Hour, true}, {"id", "x", time.Hour + 30*time.Second, true}, {"id", "x", time.Hour + time.Minute, false},
		{"id", "x", time.Hour - time.Minute, false}, {"id", "y", time.Hour, false}, {"other/", "x", time.Hour, false},
	} {
		if got := record.Unchanged(sess, test.key, []byte(test.data), test.life, bytes.Equal); got != test.want {
			t.Errorf("Unchanged(%v) = %v", test, got)
		}
	}
	if err := record.Touch(ctx, s, "id", 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	if sess, err := s.Get(ctx, "id"); err != nil || sess.Cookie.OriginalMaxAge != 2*time.Hour || string(sess.Values["data"]) != `"eA=="` {
		t.Errorf("after Touch: %+v, %v", sess, err)
	}
}

// Somebody else's session in the directory is not a record; damaged bytes are an error.
func TestForeign(t *testing.T) {
	s, dir := open(t)
	write := func(id, members string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(`{"cookie":{}`+members+`,"__lastAccess":`+"99999999999999"+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("id", `,"views":1`)
	write("express", `,"data":{"a":1},"views":1`)
	write(record.ID("a/b"), `,"data":"","key":"YS9j"`)
	for _, key := range []string{"id", "a/b", "express"} {
		if _, ok, err := record.Get(ctx, s, key); ok || err != nil {
			t.Errorf("Get(%s) of a foreign session = %v, %v", key, ok, err)
		}
	}
	for e, err := range record.All(ctx, s) {
		t.Errorf("All yields %v, %v", e, err)
	}
	for _, data := range []string{`"?"`, `[]`, `1`, `null`} {
		write("id", `,"data":`+data)
		for e, err := range record.All(ctx, s) {
			t.Errorf("All yields %v, %v", e, err)
		}
		if _, ok, err := record.Get(ctx, s, "id"); ok || !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("Get of data %s = %v, %v, want ErrCorrupt", data, ok, err)
		}
	}
}

// To Node such a file is a session: its reaper keeps it until its time is over.
func TestBesideNode(t *testing.T) {
	const folder = "../../../internal/interop"
	interop.NPM(t, folder)
	s, dir := open(t)
	for key, life := range map[string]time.Duration{"live": time.Hour, "a/b": record.Forever, "over": time.Millisecond} {
		for _, data := range []string{`{"a":1}`, "\x00\xff"} {
			if err := record.Set(ctx, s, key+data[:1], []byte(data), life); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(5 * time.Millisecond)
	script, err := filepath.Abs(filepath.Join(folder, "driver.js"))
	if err != nil {
		t.Fatal(err)
	}
	n := interop.StartNode(t, dir, script)
	var store int
	if err := n.Call("open", map[string]any{"path": dir, "reapMaxConcurrent": 1}, &store); err != nil {
		t.Fatal(err)
	}
	if err := n.Call("reap", map[string]any{"store": store}, nil); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(names) != 4 {
		t.Errorf("Node's reaper has left %q, want the 4 that live", names)
	}
	for _, key := range []string{"live{", "a/b{", "live\x00", "a/b\x00"} {
		if _, ok, err := record.Get(ctx, s, key); !ok || err != nil {
			t.Errorf("Get(%q) = %v, %v", key, ok, err)
		}
	}
}
