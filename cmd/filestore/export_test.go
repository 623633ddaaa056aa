package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/sealed"
)

// odd are the members of sessions that a careless copy would change.
var odd = []string{
	``,
	`,"user":"anna","views":3`,
	`,"n":[9007199254740993,1e400,-0,1.0,12345678901234567890]`,
	`,"s":"\u00e9\/\ud800</script>\u2028é☂"`,
	`,"10":1,"9":2,"__proto__":{"a":1},"constructor":null,"id":"x","req":{}`,
	`,"a":1,"a":2`,
	",\"bytes\":\"\xff\xfe\"",
	`,"space":[ 1 , {"a" : "b c"} ]`,
	`,"deep":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
	`,"long":"` + strings.Repeat("x", 300_000) + `"`,
}

func sorted(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return lines
}

// keyFiles returns the kinds of stores, each with the flags that open it.
func keyFiles(t *testing.T) map[string]struct {
	flags []string
	codec filestore.Codec
} {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "secret", "keyboard cat\n")
	put(t, dir, "key", strings.Repeat("07", sealed.KeySize))
	seal, err := sealed.New(bytes.Repeat([]byte{7}, sealed.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]struct {
		flags []string
		codec filestore.Codec
	}{
		"plain":    {nil, nil},
		"kruptein": {[]string{"--secret-file", filepath.Join(dir, "secret")}, kruptein.New("keyboard cat")},
		"sealed":   {[]string{"--key-file", filepath.Join(dir, "key")}, seal},
	}
}

// Through three directories, two of them encrypted, and back: each document is the same to the byte,
// and each session ends when it would have.
func TestExportImport(t *testing.T) {
	from := filepath.Join(t.TempDir(), "from")
	os.Mkdir(from, 0o700)
	now := time.Now().Truncate(time.Millisecond)
	docs := make(map[string]string)
	for i, members := range odd {
		id, maxAge := fmt.Sprintf("-id.%d~x", i), []string{"null", "86400000", "false", "7200000.5"}[i%4]
		docs[id] = document(now.Add(-time.Duration(i)*time.Minute), maxAge, members)
		put(t, from, id+".json", docs[id])
	}
	docs["pretty"] = "{\n  \"__lastAccess\": " + fmt.Sprint(now.UnixMilli()) + ",\n  \"cookie\": {}\n}"
	put(t, from, "pretty.json", docs["pretty"])
	docs["pretty"] = `{"__lastAccess":` + fmt.Sprint(now.UnixMilli()) + `,"cookie":{}}`
	put(t, from, "expired.json", document(now.Add(-3*time.Hour), "null", ""))
	put(t, from, "dead.json", document(now, "-5", ""))
	put(t, from, "README", "")

	before := manifest(t, from)
	first := command(t, "", "export", "--dir", from, "--ttl", "2h")
	if first.code != 0 || first.stderr != "" || strings.Count(first.out, "\n") != len(docs) {
		t.Fatalf("export = %d, %q, %d lines, want %d", first.code, first.stderr, strings.Count(first.out, "\n"), len(docs))
	}
	wantSame(t, "export", before, manifest(t, from))
	for line := range strings.Lines(first.out) {
		var v struct {
			ID      string
			Session json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		want := docs[v.ID]
		if strings.Contains(want, `"space"`) {
			want = strings.NewReplacer("[ 1 , {", "[1,{", `"a" : "b`, `"a":"b`, "} ]", "}]").Replace(want)
		}
		if string(v.Session) != want {
			t.Errorf("%s is exported as %.200s\nwant %.200s", v.ID, v.Session, want)
		}
	}

	lines := first.out
	stores := keyFiles(t)
	for _, kind := range []string{"plain", "sealed", "plain", "kruptein", "plain"} {
		dir := filepath.Join(t.TempDir(), kind)
		os.Mkdir(dir, 0o700)
		flags := append(stores[kind].flags, "--dir", dir)
		r := command(t, lines, append([]string{"import", "--json", "--ttl", "48h"}, flags...)...) // the TTL is the program's to know
		if want := fmt.Sprintf(`{"imported":%d,"expired":0,"kept":0,"bad":0}`+"\n", len(docs)); r.out != want || r.code != 0 || r.stderr != "" {
			t.Fatalf("import into %s = %+v, want %s", kind, r, want)
		}
		again := command(t, "", append([]string{"export", "--ttl", "2h"}, flags...)...)
		if kind == "kruptein" { // which is text twice over, as Node writes it, and so has no other bytes
			first.out = string([]rune(first.out))
		}
		if !slices.Equal(sorted(again.out), sorted(first.out)) || again.code != 0 {
			t.Fatalf("from %s comes something else: %d %s", kind, again.code, again.stderr)
		}
		lines = again.out
		if kind != "plain" {
			if data, err := os.ReadFile(filepath.Join(dir, "pretty.json")); err != nil || bytes.Contains(data, []byte("cookie")) {
				t.Errorf("in %s: %q, %v", kind, data, err)
			}
		}

		// What a program does with them: it reads them as they were, and reaps them in time.
		store, err := filestore.Open(dir, &filestore.Options{TTL: 2 * time.Hour, ReapInterval: -1, Codec: stores[kind].codec})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if n, err := store.Reap(t.Context()); n != 0 || err != nil {
			t.Errorf("Reap() = %d, %v", n, err)
		}
		for id := range docs {
			sess, err := store.Get(t.Context(), id)
			if err != nil {
				t.Errorf("Get(%q) = %v", id, err)
				continue
			}
			fi, err := os.Stat(filepath.Join(dir, id+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if off := fi.ModTime().Sub(sess.ExpiresAt(2 * time.Hour)).Abs(); off > time.Second {
				t.Errorf("to the reaper %q ends %v off", id, off)
			}
			if runtime.GOOS != "windows" && fi.Mode() != 0o600 {
				t.Errorf("the mode of %q is %v", id, fi.Mode())
			}
		}
	}

	all := command(t, "", "export", "--dir", from, "--ttl", "2h", "--expired")
	if n := strings.Count(all.out, "\n"); n != len(docs)+2 {
		t.Errorf("export --expired prints %d lines, want %d", n, len(docs)+2)
	}
	to := t.TempDir()
	r := command(t, all.out, "import", "--dir", to, "--ttl", "2h")
	if want := fmt.Sprintf("%d sessions imported; 2 expired and skipped, 0 there already and kept, 0 lines bad\n", len(docs)); r.out != want || r.code != 0 {
		t.Errorf("import = %+v, want %s", r, want)
	}
}

// What export cannot read it names, and goes on.
func TestExportLeavesOut(t *testing.T) {
	dir, _ := sessions(t, nil)
	put(t, dir, "corrupt-is-this-one.json", `{"secret":`)
	put(t, dir, "sealed.json", `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	os.Mkdir(filepath.Join(dir, "folder.json"), 0o700)
	r := command(t, "", "export", "--dir", dir)
	if r.code != 1 || strings.Count(r.out, "\n") != 1 || !strings.HasPrefix(r.out, `{"id":"healthy","session":{"cookie":`) {
		t.Errorf("export = %+v", r)
	}
	if strings.Count(r.stderr, "\n") != 4 || !strings.Contains(r.stderr, "filestore: corrupt-…: left out") || !strings.Contains(r.stderr, "filestore: 3 files left out") || strings.Contains(r.stderr, "secret\"") {
		t.Errorf("export says %s", r.stderr)
	}
	// Where nothing can be decrypted it gives up.
	sealed := t.TempDir()
	for i := range named + 5 {
		put(t, sealed, fmt.Sprintf("id%d.json", i), `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	}
	if r := command(t, "", "export", "--dir", sealed); r.code != 2 || strings.Count(r.stderr, "\n") != named+1 || !strings.Contains(r.stderr, "none of the first 100 files") {
		t.Errorf("export = %d, %s", r.code, r.stderr)
	}
	for _, args := range [][]string{{"--dir", filepath.Join(dir, "none")}, {"--dir", dir, "more"}} {
		if r := command(t, "", append([]string{"export"}, args...)...); r.code != 2 || strings.Count(r.stderr, "\n") != 1 || r.out != "" {
			t.Errorf("export %q = %+v", args, r)
		}
	}
}

func TestExportTerminal(t *testing.T) {
	dir, _ := sessions(t, nil)
	screen, tty, err := pty.Open()
	if err != nil {
		skip.Test(t, err.Error())
	}
	defer screen.Close()
	var stderr bytes.Buffer
	if code := run([]string{"export", "--dir", dir}, strings.NewReader(""), tty, &stderr); code != 2 || !strings.Contains(stderr.String(), "--yes") {
		t.Errorf("export to a terminal = %d, %s", code, &stderr)
	}
	if code := run([]string{"export", "--dir", dir, "--yes"}, strings.NewReader(""), tty, &stderr); code != 0 {
		t.Errorf("export --yes to a terminal = %d, %s", code, &stderr)
	}
	tty.Close()
	shown, _ := io.ReadAll(screen) // ends with EIO
	if strings.Count(string(shown), `"session"`) != 1 {
		t.Errorf("the terminal shows %q", shown)
	}
}
