package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// A line that is not a session is named by its number and not shown, and the next one is read.
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

// import waits for the lock that programs take, and leaves no temporary file, whether it succeeds or not.
func TestImportLocks(t *testing.T) {
	dir, _ := sessions(t, nil)
	release := storetest.Hold(t, dir, "busy")
	in := `{"id":"busy","session":` + document(time.Now(), "null", "") + "}\n"
	done := make(chan result, 1)
	go func() {
		var out, stderr bytes.Buffer
		code := run([]string{"import", "--dir", dir}, strings.NewReader(in), &out, &stderr)
		done <- result{code, out.String(), stderr.String()}
	}()
	select {
	case r := <-done:
		t.Errorf("import beside a held lock = %+v", r)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := os.Stat(filepath.Join(dir, "busy.json")); err == nil {
		t.Error("import wrote without the lock")
	}
	release()
	if r := <-done; r.code != 0 {
		t.Errorf("import = %+v", r)
	}

	os.Mkdir(filepath.Join(dir, "folder.json"), 0o700)
	r := command(t, strings.Replace(in, "busy", "folder", 1), "import", "--dir", dir, "--overwrite")
	if r.code != 1 || !strings.Contains(r.stderr, "line 1: unsafe file: a directory\n") {
		t.Errorf("import over a directory = %+v", r)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if format.IsTemp(e.Name()) {
			t.Errorf("import left %s", e.Name())
		}
	}
}

// The time of a file is the session's end, or has passed if each program's TTL is to say.
func TestImportTimes(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().Truncate(time.Millisecond)
	in := `{"id":"own","session":` + document(now.Add(-time.Minute), "3600000", "") + "}\n" +
		`{"id":"programs","session":` + document(now.Add(-time.Minute), "null", "") + "}\n" + `{"id":"undated","session":{"cookie":{}}}` + "\n"
	if r := command(t, in, "import", "--dir", dir); r.code != 0 {
		t.Fatalf("import = %+v", r)
	}
	mtime := func(id string) time.Time {
		t.Helper()
		fi, err := os.Stat(filepath.Join(dir, id+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return fi.ModTime()
	}
	if got, want := mtime("own"), now.Add(59*time.Minute); !got.Equal(want) {
		t.Errorf("the time of a session with a maxAge is %v, want %v", got, want)
	}
	for _, id := range []string{"programs", "undated"} {
		if got := mtime(id); got.After(time.Now()) || got.Before(now.Add(-time.Second)) {
			t.Errorf("the time of %q is %v, want one that has just passed", id, got)
		}
	}
}

func importLine(id, members string) string {
	return `{"id":"` + id + `","session":` + document(time.Now(), "null", members) + "}\n"
}

// Many sessions are flushed and named together. Of an id that comes twice the first stays, or, with --overwrite,
// the last.
func TestImportMany(t *testing.T) {
	fewAtOnce(t)
	dir, _ := sessions(t, nil)
	all := atOnce + 905
	var in strings.Builder
	for round := range 2 {
		for i := range all {
			in.WriteString(importLine(fmt.Sprintf("s%d", i), fmt.Sprintf(`,"n":%d`, round)))
			if i%1000 == 0 {
				in.WriteString(importLine("twice", fmt.Sprintf(`,"n":%d`, round*1_000_000+i)))
			}
		}
	}
	in.WriteString("{\n")
	twice := 2 * (all/1000 + 1)
	n := func(id string) string {
		t.Helper()
		sess := new(filestore.Session)
		data, err := os.ReadFile(filepath.Join(dir, id+".json"))
		if err == nil {
			err = sess.UnmarshalJSON(data)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(sess.Values["n"])
	}
	r := command(t, in.String(), "import", "--dir", dir)
	if want := fmt.Sprintf("%d sessions imported; 0 expired and skipped, %d there already and kept, 1 line bad\n", all+1, all+twice-1); r.code != 1 || r.out != want {
		t.Errorf("import = %+v, want %q", r, want)
	}
	if n("s77") != "0" || n("twice") != "0" {
		t.Errorf("n = %s, %s", n("s77"), n("twice"))
	}
	r = command(t, in.String(), "import", "--dir", dir, "--overwrite")
	if want := fmt.Sprintf("%d sessions imported; 0 expired and skipped, 0 there already and kept, 1 line bad\n", 2*all+twice); r.code != 1 || r.out != want {
		t.Errorf("import --overwrite = %+v, want %q", r, want)
	}
	if want := fmt.Sprint(1_000_000 + all/1000*1000); n("s77") != "1" || n("twice") != want {
		t.Errorf("n = %s, %s, want 1, %s", n("s77"), n("twice"), want)
	}
	storetest.Tidy(t, dir)
}

// A slow input keeps no session waiting that it has brought. If it is interrupted, what it has brought is
// stored.
func TestImportSlowInput(t *testing.T) {
	dir, _ := sessions(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := process(t, ctx, "import", "--dir", dir)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	there := func(id string) bool {
		_, err := os.Stat(filepath.Join(dir, id+".json"))
		return err == nil
	}
	io.WriteString(in, importLine("first", ""))
	for start := time.Now(); !there("first"); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the first session is not there while the input waits")
		}
	}
	entries := func() int {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := entries()
	io.WriteString(in, importLine("second", ""))
	for start := time.Now(); entries() == before; time.Sleep(10 * time.Millisecond) { // it has a file before it has its name
		if time.Since(start) > 20*time.Second {
			t.Fatal("the second session has no file")
		}
	}
	time.Sleep(200 * time.Millisecond)
	clean := interrupt(t, cmd)
	if err := cmd.Wait(); err == nil {
		t.Error("an import that was interrupted ends with success")
	}
	if clean && !there("second") {
		t.Error("a session that came before the interruption is not stored")
	}
	if clean {
		storetest.Tidy(t, dir)
	}
}

// Nor does one that brings a line again and again.
func TestImportSteadyInput(t *testing.T) {
	dir, _ := sessions(t, nil)
	in, out := io.Pipe()
	lines := 0
	go func() {
		defer out.Close()
		for start := time.Now(); len(storetest.Files(t, dir)) < 5; lines++ {
			if time.Since(start) > 20*time.Second {
				t.Errorf("after %d lines there are fewer than 5 sessions", lines)
				return
			}
			io.WriteString(out, importLine(fmt.Sprint("s", lines), ""))
			time.Sleep(300 * time.Millisecond)
		}
	}()
	var stdout, stderr bytes.Buffer
	if code := run([]string{"import", "--dir", dir}, in, &stdout, &stderr); code != 0 || !strings.HasPrefix(stdout.String(), fmt.Sprint(lines, " sessions imported")) {
		t.Errorf("import = %d, %s%s", code, stdout.String(), stderr.String())
	}
}

// A stopped holder costs an import one timeout, and one that is interrupted not more.
func TestImportBesideAStoppedHolder(t *testing.T) {
	dir, _ := sessions(t, nil)
	release := storetest.Hold(t, dir, "held")
	var in strings.Builder
	held := 0
	all := storetest.Brief(300, 1000)
	for i := range all {
		id := fmt.Sprint("s", i)
		if format.Stripe(id) == format.Stripe("held") {
			held++
		}
		in.WriteString(importLine(id, ""))
	}
	start := time.Now()
	r := command(t, in.String(), "import", "--dir", dir)
	if want := fmt.Sprintf("%d sessions imported; 0 expired and skipped, 0 there already and kept, %d lines bad\n", all-held, held); r.code != 1 || r.out != want {
		t.Errorf("import beside a stopped holder = %+v, want %q", r, want)
	}
	// Without a memory of the lock that is held it takes a timeout for each of its sessions.
	if d := time.Since(start); held < 4 || d > time.Duration(max(3, held/2))*lockTimeout {
		t.Errorf("with %d sessions of its lock it took %v", held, d)
	}
	release()
	storetest.Tidy(t, dir)
}

// fewAtOnce lets few files be flushed at once with go test -short.
func fewAtOnce(t *testing.T) {
	old := atOnce
	atOnce = storetest.Brief(100, old)
	t.Cleanup(func() { atOnce = old })
}

// An import that is killed leaves whole sessions, and temporary files for the reaper.
func TestImportKilled(t *testing.T) {
	fewAtOnce(t)
	dir, _ := sessions(t, nil)
	var in bytes.Buffer
	for i := range 3 * atOnce {
		in.WriteString(importLine(fmt.Sprintf("s%d", i), `,"pad":"`+strings.Repeat("x", i%2000)+`"`))
	}
	for range 5 {
		cmd := process(t, t.Context(), "import", "--overwrite", "--dir", dir)
		cmd.Stdin = bytes.NewReader(in.Bytes())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); len(storetest.Files(t, dir)) < 2 && time.Since(start) < 20*time.Second; {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(rand.N(500 * time.Millisecond))
		cmd.Process.Kill()
		cmd.Wait()
	}
	files := storetest.Files(t, dir)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = new(filestore.Session).UnmarshalJSON(data)
		}
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	if len(files) < 2 {
		t.Error("nothing was imported: the test tests nothing")
	}
	storetest.Sweep(t, dir)
}
