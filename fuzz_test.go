package filestore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A document that can be read can be written, and then reads the same. Any other is ErrCorrupt.
func FuzzSession(f *testing.F) {
	files, err := filepath.Glob("testdata/npm/*/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil && len(data) < 4096 {
			f.Add(data)
		}
	}
	f.Add([]byte(doc(1, `,"a":[{"b":"\ud800"}]`)))
	f.Add([]byte(`{"cookie":{"originalMaxAge":1e400,"expires":"x","path":null,"foo":1,"foo":2},"\u0063ookie":{},"__lastAccess":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s filestore.Session
		if err := s.UnmarshalJSON(data); err != nil {
			if !errors.Is(err, filestore.ErrCorrupt) {
				t.Fatalf("UnmarshalJSON = %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("a document that is not JSON was read")
		}
		s.ExpiresAt(time.Hour)
		out, err := s.MarshalJSON()
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		var again filestore.Session
		if err := again.UnmarshalJSON(out); err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, out)
		}
		if again.Cookie != s.Cookie || !again.LastAccess.Equal(s.LastAccess) ||
			!maps.EqualFunc(again.Values, s.Values, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("reads otherwise:\n%s\n%+v\n%+v", out, s, again)
		}
		if twice, err := again.MarshalJSON(); err != nil || !bytes.Equal(twice, out) {
			t.Fatalf("writes otherwise: %v\n%s\n%s", err, out, twice)
		}
		// Compare with the standard library: of members with one name it also keeps the last.
		var std map[string]json.RawMessage
		if err := json.Unmarshal(data, &std); err != nil {
			t.Fatal(err)
		}
		for key, raw := range s.Values {
			if !bytes.Equal(raw, std[key]) {
				t.Fatalf("member %q is %s, encoding/json says %s", key, raw, std[key])
			}
		}
	})
}

// No id leads out of the directory, and no two valid ones share a file.
func FuzzID(f *testing.F) {
	for _, id := range []string{"a", "../x", "CON", "a.b", "x.json", "x.json.12", strings.Repeat("a", 200), ".locks", "a\x00", "é"} {
		f.Add(id)
	}
	parent := f.TempDir()
	dir := filepath.Join(parent, "sessions")
	s := open(f, dir, quick())
	f.Fuzz(func(t *testing.T, id string) {
		sess := session(t, "id", []byte(id))
		err := s.Set(ctx, id, sess)
		if err != nil {
			if !errors.Is(err, filestore.ErrInvalidID) {
				t.Fatalf("Set(%q) = %v", id, err)
			}
			if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrInvalidID) {
				t.Fatalf("Get(%q) = %v", id, err)
			}
			return
		}
		if !filestore.ValidID(id) {
			t.Fatalf("Set(%q) succeeded", id)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 || entries[1].Name() != id+".json" && entries[0].Name() != id+".json" {
			t.Fatalf("Set(%q) made %v, %v", id, entries, err)
		}
		if err := s.Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
		if entries, _ := os.ReadDir(parent); len(entries) != 1 {
			t.Fatalf("Set(%q) made something outside", id)
		}
	})
}
