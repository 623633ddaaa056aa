package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Nothing that a session holds, and no name of a file, may reach a terminal as more than text, and each
// row stays one line.
func TestTerminalText(t *testing.T) {
	dir := t.TempDir()
	evil := "\x1b[2J\u009b31m\x07\r\n\u202etxt"
	quoted, _ := json.Marshal(evil)
	// Inside JSON U+009B and U+202E need no escape, and Node escapes neither.
	mustWrite(t, nodeSession{dir: dir, id: "evil0001evil0001", members: `"user":` + string(quoted) + `,"raw":"` + "\u009b31m\u202e\x7f" + `",` + string(quoted) + `:1`})
	os.WriteFile(filepath.Join(dir, "evil\x1b[2J\n0002.json"), []byte("{}"), 0o600)
	if !isWindows { // which makes another name of it
		os.WriteFile(filepath.Join(dir, "invalid\xff.json"), []byte("\"\xff\x1b\""), 0o600)
	}
	os.WriteFile(filepath.Join(dir, "evil0003evil0003.json"), []byte("{\"cookie\":{},\"user\":\"\xff\xfe\u009b\"}"), 0o600)
	for _, args := range [][]string{
		{"ls", "--show", "user,raw"}, {"ls", "--show", "user,raw", "--json", "--full"}, {"ls", "--show", evil}, {"ls", "--sort", evil},
		{"show", "evil0001evil0001"}, {"show", "evil0001evil0001", "--json"}, {"show", "evil0003evil0003"}, {"show", evil}, {"show", "\xff\xff\xff\xff\xff\xff\xff"},
		{"stat", "--by", "user"}, {"stat", "--by", "user", "--json"}, {"stat", "--by", "raw"}, {"reap", "--dry-run", "--ttl", "1ns"},
		{"check"}, {"check", "--json"}, {evil}, {"ls", "--" + evil}, {"ls", "--older", evil}, {"ls", "--ext", evil}, {"ls", "--dir", evil},
		{"unset", "evil0001evil0001", evil + "x"}, {"rm", "--yes", evil + "xxxx"}, {"unsign", evil, "--secret-file", evil},
	} {
		_, out, errOut := commandOutput(t, append([]string{"--dir", dir}, args...)...)
		for _, text := range []string{out, errOut} {
			for _, r := range text {
				if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == '\ufffd') {
					t.Errorf("%q prints %q in %q", args, r, text)
					break
				}
			}
		}
		if strings.Count(errOut, "\n") > 1 {
			t.Errorf("%q says more than one line: %q", args, errOut)
		}
	}
	_, out, _ := commandOutput(t, "ls", "--dir", dir, "--show", "user", "--where", "raw")
	if strings.Count(out, "\n") != 2 {
		t.Errorf("ls: a row is more than a line: %q", out)
	}
	// --json still says what is there.
	_, out, _ = commandOutput(t, "ls", "--dir", dir, "--show", "user", "--json", "--where", "raw")
	var row struct{ Show struct{ User string } }
	if err := json.Unmarshal([]byte(out), &row); err != nil || row.Show.User != evil {
		t.Errorf("ls --json: %q, %v, want %q", row.Show.User, err, evil)
	}
}

// No whole id may be printed unless --full, or on stderr at all.
func TestIDsShortened(t *testing.T) {
	dir := t.TempDir()
	ids := []string{"aaaaaaaabbbbbbbb", "ccccccccdddddddd", "eeeeeeeeffffffff"}
	mustWrite(t, nodeSession{dir: dir, id: ids[0]})
	mustWrite(t, nodeSession{dir: dir, id: ids[1], age: 3 * time.Hour})
	os.WriteFile(filepath.Join(dir, ids[2]+".json"), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(dir, ids[0]+".json.3374059317"), nil, 0o600)
	for _, args := range [][]string{
		{"ls"}, {"ls", "--json"}, {"show", ids[0]}, {"show", ids[0], "--json"}, {"show", ids[2]}, {"show", "ccccccccddddddde"}, {"stat"},
		{"check"}, {"check", "--json"}, {"reap", "--dry-run"}, {"set", ids[0], "a", "1"}, {"set", ids[1], "a", "1"}, {"set", ids[2], "a", "1"},
		{"unset", ids[0], "b"}, {"rm", ids[0]}, {"rm", "--yes", ids[2] + "x"}, {"rm", "--yes", ids[2]}, {"reap"},
	} {
		for _, full := range []bool{false, true} {
			if full && args[0] != "ls" {
				continue
			}
			all := append([]string{"--dir", dir}, args...)
			if full {
				all = append(all, "--full")
			}
			_, out, errOut := commandOutput(t, all...)
			for _, id := range ids {
				if strings.Contains(errOut, id) || !full && strings.Contains(out, id) {
					t.Errorf("%q shows an id: %q %q", args, out, errOut)
				}
			}
			if full && !strings.Contains(out, ids[0]) {
				t.Errorf("%q --full shows no id: %q", args, out)
			}
		}
	}
}

// FuzzSafeJSON: JSON stays the same JSON, and no terminal obeys it.
func FuzzSafeJSON(f *testing.F) {
	f.Add("a\u009b\U000e0001\ufffd\xff")
	f.Fuzz(func(t *testing.T, s string) {
		doc, _ := json.Marshal(s)
		raw := []byte(`"` + strings.NewReplacer(`"`, "", `\`, "", "\n", "").Replace(s) + `"`) // as others may write it
		for _, in := range [][]byte{doc, raw} {
			out := safeJSON(bytes.Clone(in))
			for _, r := range string(out) {
				if show(string(r)) != string(r) {
					t.Errorf("safeJSON(%q) = %q", in, out)
				}
			}
			var want, got string
			if json.Unmarshal(in, &want) == nil {
				if err := json.Unmarshal(out, &got); err != nil || got != want {
					t.Errorf("safeJSON(%q) = %q: %q, %v", in, out, got, err)
				}
			}
		}
	})
}
