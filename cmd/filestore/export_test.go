package main

import (
	"bytes"
	"encoding/json"
	"errors"
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
	"github.com/sessionfilestore/filestore/internal/interop"
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
		interop.Skip(t, err.Error())
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

// A line that is no session is named by its number, shows nothing of itself, and the next is read.
func TestImportBadLines(t *testing.T) {
	dir, _ := sessions(t, nil)
	good := document(time.Now(), "null", "")
	line := func(id, doc string) string { return fmt.Sprintf(`{"id":%q,"session":%s}`, id, doc) }
	bad := []string{
		`hunter2`, `{`, `[]`, `null`, `5`, `"hunter2"`, `{}`, `{"id":"hunter2"}`, `{"session":` + good + `}`,
		`{"id":5,"session":` + good + `}`, `{"id":null,"session":` + good + `}`, `{"ID":"x","Session":` + good + `}`,
		line("x", `null`), line("x", `[]`), line("x", `{}`), line("x", `{"cookie":null}`), line("x", `{"cookie":"hunter2"}`), line("x", `"hunter2"`),
		line("", good), line("../hunter2", good), line("/hunter2", good), line("a/b", good), line("con", good), line("x.json", good), line(".x", good),
		line("x.json.1234567890", good), line("hunter2 ", good), line(strings.Repeat("x", 201), good), `{"id":"a\u0000","session":` + good + `}`,
		line("x", good) + line("x", good), line("x", strings.Repeat("[", 100_000)),
		line("x", document(time.Now(), "null", `,"hunter2":"`+strings.Repeat("x", maxSize)+`"`)), // too long a line
		line("x", document(time.Now(), "null", `,"hunter2":"`+strings.Repeat("\xff", 100)+`","\ud800":1,"\ud801":2`)),
	}
	in := strings.Join(bad, "\n") + "\n\n" + line("last", good) // without a line end
	before := manifest(t, filepath.Dir(dir))
	r := command(t, in, "import", "--dir", dir)
	if r.code != 1 || r.out != fmt.Sprintf("1 session imported; 0 expired and skipped, 0 there already and kept, %d lines bad\n", len(bad)) {
		t.Errorf("import = %d, %s", r.code, r.out)
	}
	for i := range bad {
		if !strings.Contains(r.stderr, fmt.Sprintf("filestore: line %d: ", i+1)) {
			t.Errorf("line %d is not named: %.100s", i+1, bad[i])
		}
	}
	if strings.Count(r.stderr, ": longer than 16 MiB\n") != 1 {
		t.Errorf("import says %s", r.stderr)
	}
	if strings.Contains(r.stderr, "hunter2") || strings.Count(r.stderr, "\n") != len(bad)+1 {
		t.Errorf("import says %s", r.stderr)
	}
	after := manifest(t, filepath.Dir(dir))
	delete(after, filepath.Join(dir, "last.json"))
	for _, path := range []string{dir} {
		before[path] = after[path]
	}
	wantSame(t, "import", before, after)

	// As large as a line may be, and a session.
	whole := line("large", document(time.Now(), "null", `,"a":""`))
	whole = strings.Replace(whole, `"a":""`, `"a":"`+strings.Repeat("x", maxSize-len(whole)-1)+`"`, 1) + "\n"
	if r := command(t, whole, "import", "--dir", dir); r.code != 0 || len(whole) != maxSize {
		t.Errorf("import of a line of %d bytes = %+v", len(whole), r)
	}
	// Of many bad lines the first are named.
	if r := command(t, strings.Repeat("x\n", 1000), "import", "--dir", dir); r.code != 1 || strings.Count(r.stderr, "\n") != named+2 {
		t.Errorf("import = %d with %d lines on stderr", r.code, strings.Count(r.stderr, "\n"))
	}
}

func TestImportKeeps(t *testing.T) {
	dir, store := sessions(t, nil)
	now := time.Now()
	put(t, dir, "over.json", document(now.Add(-3*time.Hour), "null", `,"by":"old"`)) // expired, so its id is free
	put(t, dir, "corrupt.json", "{")
	var in strings.Builder
	for _, id := range []string{"healthy", "over", "corrupt", "fresh", "fresh"} {
		fmt.Fprintf(&in, `{"id":%q,"session":%s}`+"\n", id, document(now, "null", `,"by":"import"`))
	}
	by := func(id string) string {
		t.Helper()
		sess, err := store.Get(t.Context(), id)
		if err != nil {
			return err.Error()
		}
		text, err := filestore.Value[string](sess, "by")
		if err != nil {
			t.Error(err)
		}
		return text
	}
	r := command(t, in.String(), "import", "--dir", dir)
	if r.out != "2 sessions imported; 0 expired and skipped, 3 there already and kept, 0 lines bad\n" || r.code != 0 {
		t.Errorf("import = %+v", r)
	}
	if by("healthy") != "" || by("over") != "import" || by("fresh") != "import" || !strings.Contains(by("corrupt"), "holds no session") {
		t.Errorf("after import: %q %q %q %q", by("healthy"), by("over"), by("fresh"), by("corrupt"))
	}
	r = command(t, in.String(), "import", "--dir", dir, "--overwrite", "--json")
	if r.out != `{"imported":5,"expired":0,"kept":0,"bad":0}`+"\n" || r.code != 0 {
		t.Errorf("import --overwrite = %+v", r)
	}
	if by("healthy") != "import" || by("corrupt") != "import" {
		t.Errorf("after import --overwrite: %q %q", by("healthy"), by("corrupt"))
	}
}

// Without a last access a session would be immortal to Node; one of the future counts from now.
func TestImportDates(t *testing.T) {
	dir, store := sessions(t, nil)
	now := time.Now()
	in := `{"id":"ahead","session":` + document(now.Add(24*time.Hour), "null", "") + "}\n" +
		`{"id":"none","session":{"cookie":{},"by":1}}` + "\n" + `{"id":"text","session":{"cookie":{},"__lastAccess":"x","by":1}}` + "\n"
	if r := command(t, in, "import", "--dir", dir); r.code != 0 || !strings.HasPrefix(r.out, "3 sessions") {
		t.Errorf("import = %+v", r)
	}
	for _, id := range []string{"none", "text", "ahead"} {
		sess, err := store.Get(t.Context(), id)
		if err != nil {
			t.Errorf("Get(%q) = %v", id, err)
			continue
		}
		if age := time.Since(sess.LastAccess); age < -time.Second || age > time.Since(now)+time.Second {
			t.Errorf("%q was accessed %v ago", id, age)
		}
	}
	for _, id := range []string{"none", "text"} {
		data, err := os.ReadFile(filepath.Join(dir, id+".json"))
		var v struct {
			LastAccess float64 `json:"__lastAccess"`
			By         int
		}
		if err = errors.Join(err, json.Unmarshal(data, &v)); err != nil || v.LastAccess == 0 || v.By != 1 {
			t.Errorf("%q is %s, %v: Node would never end it", id, data, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	dir, _ := sessions(t, nil)
	none := filepath.Join(dir, "none")
	for _, args := range [][]string{{"--dir", none}, {"--dir", dir, none}, {"--dir", dir, "a", "b"}, {"--dir", dir, "--ext", "x"}} {
		if r := command(t, "", append([]string{"import"}, args...)...); r.code != 2 || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("import %q = %+v", args, r)
		}
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("import made the directory")
	}
	file := filepath.Join(t.TempDir(), "in")
	put(t, filepath.Dir(file), "in", `{"id":"x","session":`+document(time.Now(), "null", "")+`}`)
	for i, args := range [][]string{{file}, {"-", "--overwrite"}} {
		if r := command(t, `{"id":"y","session":`+document(time.Now(), "null", "")+`}`, append([]string{"import", "--dir", dir}, args...)...); r.code != 0 {
			t.Errorf("import %q = %+v", args, r)
		}
		if _, err := os.Stat(filepath.Join(dir, []string{"x", "y"}[i]+".json")); err != nil {
			t.Error(err)
		}
	}
}
