package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// completions returns what TAB offers at the end of a command line, without the descriptions, and the directive.
func completions(t *testing.T, args ...string) (all []string, directive string) {
	t.Helper()
	r := command(t, "", append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	for _, line := range lines[:len(lines)-1] {
		word, _, _ := strings.Cut(line, "\t")
		all = append(all, word)
	}
	return all, lines[len(lines)-1]
}

// patient lets TAB offer all that a slow machine finds.
func patient(t *testing.T) {
	old := hurry
	hurry = time.Minute
	t.Cleanup(func() { hurry = old })
}

// TAB completes commands, flags, shortened ids and members, and writes nothing.
func TestCompletion(t *testing.T) {
	patient(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "sessions")
	evil := `"a\u001b[2J\ta\n":1,"q\"uo'te":1,"sp ace":1,"$(id)":1,"dot.ted":1,"` + "\u009b" + `":1`
	mustWrite(t, nodeSession{dir: dir, id: "alike0001anna", members: `"user":"an\u001b[2J\tna\nx","mail":{"to":"x","two words":1},` + evil})
	mustWrite(t, nodeSession{dir: dir, id: "alike0002bert", members: `"passport":{"user":"bert"},"email":"b"`})
	mustWrite(t, nodeSession{dir: dir, id: "other0001carl", age: 3 * time.Hour, members: `"user":"carl"`})
	mustWrite(t, nodeSession{dir: dir, id: "-dash0001dora", members: `"user":"dora"`})
	mustWrite(t, nodeSession{dir: dir, id: "gone00001emil", maxAge: time.Hour, members: `"destroyed":true`})
	put(t, dir, "broken001.json", "{")
	before, err := snapshot(parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"sho", "show"},
		{"ls --sh", "--show"},
		{"show ", "alike0001 alike0002 broken00 other000"},
		{"show al", "alike0001 alike0002"},
		{"show alike0002b", "alike0002b"}, // a shell drops what does not begin so
		{"show gone", ""},
		{"show -- -", "-dash000"},
		{"show alike0001 ", ""},
		{"rm alike0001 ", "alike0002 broken00 other000"},
		{"set alike0002 ", "email passport"},
		{"unset alike0001 u", "user"},
		{"unset alike0001 user ", ""},
		{"ls --show ", "email mail mail.to passport passport.user user"},
		{"ls --show user,m", "user,mail user,mail.to"},
		{"ls --where us", "user="},
		{"ls --where __", "__lastAccess="},
		{"rm --where pass", "passport= passport.user="},
		{"stat --by e", "email"},
		{"watch --show e", "email"},
		{"serve --show e", "email"},
		{"ls --sort ", "id ends access size -id -ends -access -size"},
		{"move --to po", "file: redis:// rediss:// postgres:// mysql:// mongodb:// env:"},
		{"ls --limit ", ""},
		{"sign ", ""},
	} {
		all, directive := completions(t, append([]string{"--dir", dir}, strings.Split(c.args, " ")...)...)
		if got := strings.Join(all, " "); got != c.want {
			t.Errorf("TAB after %q: %q, want %q", c.args, got, c.want)
		}
		if directive == ":0" {
			t.Errorf("TAB after %q offers files", c.args)
		}
	}
	// The directory may be an argument, or wrong.
	if all, _ := completions(t, "ls", dir, "--show", "e"); !slices.Equal(all, []string{"email"}) {
		t.Errorf("TAB after ls DIR --show: %q", all)
	}
	if all, directive := completions(t, "ls", ""); len(all) > 0 || directive != ":16" {
		t.Errorf("TAB after ls: %q, %s, want directories", all, directive)
	}
	for _, args := range [][]string{{"show", "--dir", dir + "/none", ""}, {"ls", dir, "--dir", parent, "--show", ""}, {"show", "--dir", dir, "--secret-file", dir + "/none", ""}} {
		if all, _ := completions(t, args...); len(all) > 0 {
			t.Errorf("TAB after %q: %q", args, all)
		}
	}
	// Nothing that a session holds reaches the shell as more than text.
	r := command(t, "", "__complete", "show", "--dir", dir, "")
	if !strings.Contains(r.out, "alike0001\t\"an\\x1b[2J\\tna\\nx\"\n") || !strings.Contains(r.out, "other000\texpired\n") || strings.Contains(r.out, "\x1b") {
		t.Errorf("TAB after show: %q", r.out)
	}
	after, err := snapshot(parent)
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("TAB has changed the directory: %v\n%q\n%q", err, before, after)
	}
}

// Of many sessions TAB offers some, from everywhere, and soon.
func TestCompletionOfMany(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	for i := range 3000 {
		mustWrite(t, nodeSession{dir: dir, id: fmt.Sprintf("%c%02d-%05d-of-many", 'a'+i%26, i%100, i), members: fmt.Sprintf(`"user":"u%d","m%d":1`, i, i)})
	}
	began := time.Now()
	completions(t, "show", "--dir", dir, "")
	if took := time.Since(began); took > hurry+10*time.Second { // a bound that a busy machine keeps
		t.Errorf("TAB took %v", took)
	}
	patient(t)
	all, _ := completions(t, "show", "--dir", dir, "")
	if n := len(all); n != offered+1 || all[0][0] != 'a' || all[n-2][0] != 'z' || !strings.HasPrefix(all[n-1], "_activeHelp_ ") {
		t.Errorf("TAB offers %d, from %q to %q", n, all[0], all[n-2:])
	}
	for _, id := range all[:len(all)-1] {
		if r := command(t, "", "show", "--dir", dir, id); r.code != exitDone {
			t.Errorf("show %s, as TAB offers it: %+v", id, r)
		}
	}
	if all, _ := completions(t, "ls", dir, "--show", "m"); len(all) == 0 || len(all) > offered {
		t.Errorf("TAB offers %d members", len(all))
	}
}
