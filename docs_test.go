package filestore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/sealed"
	middleware "github.com/sessionfilestore/filestore/session"
)

// vectors are those of docs/FORMAT.md. A field that is missing is empty.
type vectors struct {
	TTLMs int64
	Names []struct{ Name, What, ID string }
	// Folded is the lock file on a file system that folds case, if it is another one.
	Stripes   []struct{ ID, Hash, Stripe, Folded string }
	Documents []struct {
		Document, Dated, Why string
		Ends                 int64
		Corrupt              bool
	}
	Cookies []struct{ Secret, ID, Value string }
	Sealed  struct{ Key, Nonce, ID, Document, File, Passphrase, Salt, FromPassphrase string }
	AAD     []struct {
		ID, AAD string
		Bytes   int
	}
	Kruptein struct {
		Secret string
		Files  []struct{ File, Document string }
	}
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, "testdata", "vectors.json")), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Names) < 10 || len(v.Stripes) < 5 || len(v.Documents) < 20 || len(v.Cookies) < 4 || len(v.Kruptein.Files) < 9 || len(v.AAD) < 2 {
		t.Fatalf("vectors are missing: %+v", v)
	}
	return v
}

// FORMAT.md prints each vector in a row of its own.
func TestFormatVectorsPrinted(t *testing.T) {
	v := readVectors(t)
	page := strings.Split(readFile(t, "docs", "FORMAT.md"), "\n")
	printed := func(cells ...string) {
		t.Helper()
		row := "| " + strings.Join(cells, " | ") + " |"
		if !slices.Contains(page, row) {
			t.Errorf("docs/FORMAT.md has no row\n%s", row)
		}
	}
	code := func(s string) string { return "`" + s + "`" }
	for _, n := range v.Names {
		what := n.What
		if n.ID != "" {
			what += " " + code(n.ID)
		}
		printed(code(n.Name), what)
	}
	for _, s := range v.Stripes {
		folded := "the same"
		if s.Folded != "" {
			folded = code(s.Folded)
		}
		printed(code(s.ID), code(s.Hash), code(s.Stripe), folded)
	}
	for _, d := range v.Documents {
		doc, ends := code(d.Document), code(fmt.Sprint(d.Ends))
		switch {
		case d.Corrupt:
			ends = "corrupt"
		case d.Dated != "":
			ends = "by the file's time"
		}
		if d.Document == "" {
			doc = "(no bytes)"
		}
		printed(doc, ends, d.Why)
	}
	for _, c := range v.Cookies {
		printed(code(c.Secret), code(c.ID), code(c.Value))
	}
	s := v.Sealed
	printed("key, in hexadecimal", code(s.Key))
	printed("nonce, in hexadecimal", code(s.Nonce))
	printed("id", code(s.ID))
	printed("document", code(s.Document))
	printed("file", code(s.File))
	printed("passphrase", code(s.Passphrase))
	printed("salt", code(s.Salt))
	printed("key of these two, in hexadecimal", code(s.FromPassphrase))
	for _, a := range v.AAD {
		if !slices.Contains(page, "  - "+code(a.AAD)) {
			t.Errorf("docs/FORMAT.md does not print the additional data %s", a.AAD)
		}
	}
}

// IDs yields the names that are those of sessions.
func TestFormatNames(t *testing.T) {
	v := readVectors(t)
	dir := t.TempDir()
	s := open(t, dir, quick())
	var want []string
	for _, n := range v.Names {
		if runtime.GOOS == "windows" && !filestore.ValidID(strings.TrimSuffix(n.Name, ".json")) {
			continue // some cannot be made there
		}
		write(t, dir, n.Name, doc(nowMs(), ""))
		if n.ID != "" {
			want = append(want, n.ID)
		}
	}
	var got []string
	for id, err := range s.IDs(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("IDs are %q, want %q", got, want)
	}
	if _, err := s.Reap(ctx); err != nil {
		t.Error(err)
	}
	for _, n := range v.Names {
		temporary := strings.HasPrefix(n.What, "a temporary file") // Reap may remove it
		if _, err := os.Lstat(filepath.Join(dir, n.Name)); err != nil && !temporary && runtime.GOOS != "windows" {
			t.Errorf("Reap removed %s: %v", n.Name, err)
		}
		os.Remove(filepath.Join(dir, n.Name)) // for the check at the end
	}
}

// A session cannot be set while its lock file is locked, and can be set while all others are.
func TestFormatLocks(t *testing.T) {
	v := readVectors(t)
	dir := t.TempDir()
	o := quick()
	o.LockTimeout = 150 * time.Millisecond
	s := open(t, dir, o)
	upper, upperErr := os.Lstat(filepath.Join(dir, ".LOCKS"))
	lower, lowerErr := os.Lstat(filepath.Join(dir, ".locks"))
	folds := upperErr == nil && lowerErr == nil && os.SameFile(upper, lower)
	for _, row := range v.Stripes {
		h := uint32(2166136261)
		for _, b := range []byte(row.ID) {
			h = (h ^ uint32(b)) * 16777619
		}
		if hash, stripe := fmt.Sprintf("%08x", h), fmt.Sprintf("%02x", h%64); hash != row.Hash || stripe != row.Stripe {
			t.Errorf("%q: FNV-1a is %s, of the stripe %s; the vector says %s, %s", row.ID, hash, stripe, row.Hash, row.Stripe)
		}
		stripe := row.Stripe
		if folds && row.Folded != "" {
			stripe = row.Folded
		}
		held := make(map[string]*flock.Flock)
		for i := range 64 {
			name := fmt.Sprintf("%02x", i)
			held[name] = flock.New(filepath.Join(dir, ".locks", name), flock.SetFlag(os.O_RDONLY))
			if ok, err := held[name].TryLock(); !ok || err != nil {
				t.Fatalf("the lock %s: %v, %v", name, ok, err)
			}
		}
		wantErr(t, fmt.Sprintf("Set(%q) while all locks are held", row.ID), s.Set(ctx, row.ID, session(t)), filestore.ErrLockTimeout)
		held[stripe].Unlock()
		if err := s.Set(ctx, row.ID, session(t)); err != nil {
			t.Errorf("Set(%q) while all locks but %s are held: %v", row.ID, stripe, err)
		}
		for _, l := range held {
			l.Unlock()
		}
	}
}

// The documents are read, and their sessions end, as FORMAT.md says.
func TestFormatDocuments(t *testing.T) {
	v := readVectors(t)
	for _, d := range v.Documents {
		var s filestore.Session
		err := s.UnmarshalJSON([]byte(d.Document))
		switch {
		case d.Corrupt:
			wantErr(t, d.Document, err, filestore.ErrCorrupt)
		case err != nil:
			t.Errorf("%s: %v", d.Document, err)
		case d.Dated != "":
			if !s.LastAccess.IsZero() {
				t.Errorf("%s is dated %v", d.Document, s.LastAccess)
			}
		default:
			if got := s.ExpiresAt(time.Duration(v.TTLMs) * time.Millisecond).UnixMilli(); got != d.Ends {
				t.Errorf("%s ends at %d, want %d", d.Document, got, d.Ends)
			}
		}
	}
}

// The modification time of a file is the end of its session.
func TestFormatModificationTime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick()) // a TTL of an hour
	for id, life := range map[string]time.Duration{"none": 0, "minute": time.Minute, "days": 30 * 24 * time.Hour} {
		sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: life, HTTPOnly: true, Path: "/"}}
		if err := s.Set(ctx, id, sess); err != nil {
			t.Fatal(err)
		}
		if life == 0 {
			life = s.TTL()
		}
		fi, err := os.Stat(filepath.Join(dir, id+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if want := get(t, s, id).LastAccess.Add(life); !fi.ModTime().Equal(want) {
			t.Errorf("%s: the mtime is %v, want %v", id, fi.ModTime(), want)
		}
	}
}

// While a session is written its temporary file has the name that FORMAT.md describes.
func TestFormatTemporaryName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	form := regexp.MustCompile(`^\.[A-Z2-7]{26}~$`)
	c, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for c.Err() == nil {
			if err := s.Set(ctx, "id", session(t, "pad", strings.Repeat("x", 500_000))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	seen := 0
	for deadline := time.Now().Add(20 * time.Second); seen < 3 && time.Now().Before(deadline); {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
			break
		}
		for _, e := range entries {
			switch name := e.Name(); {
			case name == ".locks", name == "id.json":
			case form.MatchString(name):
				seen++
			default:
				t.Errorf("there is a file %s", name)
			}
		}
	}
	cancel()
	if err := <-done; err != nil || seen == 0 {
		t.Errorf("%d temporary files seen, %v", seen, err)
	}
}

func TestFormatCookies(t *testing.T) {
	for _, c := range readVectors(t).Cookies {
		plain, err := url.PathUnescape(c.Value)
		if want := "s:" + middleware.Sign(c.ID, c.Secret); err != nil || plain != want {
			t.Errorf("%s is %q, %v, want %q", c.Value, plain, err, want)
		}
		if id, ok := middleware.Unsign(strings.TrimPrefix(plain, "s:"), "another", c.Secret); id != c.ID || !ok {
			t.Errorf("Unsign(%q) = %q, %v", plain, id, ok)
		}
	}
}

func TestFormatSealed(t *testing.T) {
	s := readVectors(t).Sealed
	unhex := func(text string) []byte {
		t.Helper()
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	codec, err := sealed.New(unhex(s.Key))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := codec.Decode(s.ID, []byte(s.File)); err != nil || string(got) != s.Document {
		t.Errorf("Decode = %s, %v", got, err)
	}
	_, err = codec.Decode(s.ID+"2", []byte(s.File))
	wantErr(t, "Decode under another id", err, filestore.ErrDecrypt)
	random := rand.Reader
	rand.Reader = bytes.NewReader(unhex(s.Nonce))
	got, err := codec.Encode(s.ID, []byte(s.Document))
	rand.Reader = random
	if err != nil || string(got) != s.File {
		t.Errorf("Encode = %s, %v", got, err)
	}
	if key, err := sealed.KeyFromPassphrase(s.Passphrase, s.Salt); err != nil || hex.EncodeToString(key) != s.FromPassphrase {
		t.Errorf("KeyFromPassphrase = %x, %v, want %s", key, err, s.FromPassphrase)
	}
}

func TestFormatKruptein(t *testing.T) {
	v := readVectors(t)
	codec := kruptein.New(v.Kruptein.Secret)
	codec.Legacy = true
	for _, f := range v.Kruptein.Files {
		id := strings.TrimSuffix(filepath.Base(f.File), ".json")
		if got, err := codec.Decode(id, []byte(readFile(t, ".", f.File))); err != nil || string(got) != f.Document {
			t.Errorf("%s is %s, %v", f.File, got, err)
		}
	}
	for _, a := range v.AAD {
		hashing := map[int]string{64: "sha512", 48: "sha384", 32: "sha256"}[a.Bytes]
		hexed := kruptein.New("secret")
		hexed.EncodeAs, hexed.Hashing = "hex", hashing
		file, err := hexed.Encode(a.ID, []byte(v.Sealed.Document))
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ AAD string }
		if err := json.Unmarshal(file, &e); err != nil || e.AAD != a.AAD {
			t.Errorf("the additional data of %s with %s are %s, %v, want %s", a.ID, hashing, e.AAD, err, a.AAD)
		}
		_, err = hexed.Decode("bert", file)
		wantErr(t, "Decode under another id", err, filestore.ErrDecrypt)
	}
}

// pages returns the pages at the top and in docs/, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all[filepath.ToSlash(name)] = readFile(t, ".", name)
		}
	}
	if len(all) < 6 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

// testFiles returns the sources of all tests of the repository, by path.
func testFiles(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			all[filepath.ToSlash(path)] = readFile(t, ".", path)
		}
		return nil
	})
	if err != nil || len(all) < 50 {
		t.Fatalf("%d test files, %v", len(all), err)
	}
	return all
}

// The tests that the pages name exist, and so do the files and headings that they link to.
func TestDocsNames(t *testing.T) {
	tests := make(map[string]bool)
	for _, source := range testFiles(t) {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`).FindAllStringSubmatch(source, -1) {
			tests[m[1]] = true
		}
	}
	named := 0
	for page, text := range pages(t) {
		for _, name := range regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1) {
			if named++; !tests[name] {
				t.Errorf("%s names %s, which is not a test", page, name)
			}
		}
		text = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "") // Go's f[T](x) looks like a link
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			link, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(link, "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(page), link)
			if link == "" {
				target = page
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(readFile(t, ".", target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("the pages name only %d tests", named)
	}
}

// The README's table has each adapter, and lines that docs/FRAMEWORKS.md, which is tested, and the adapters have too.
func TestReadmeFrameworks(t *testing.T) {
	_, table, _ := strings.Cut(readFile(t, ".", "README.md"), "## Does it work with")
	frameworks := readFile(t, ".", "docs/FRAMEWORKS.md")
	rows := 0
	for _, m := range regexp.MustCompile("(?m)^\\| [^|]+ \\| `([^`]+)` \\| (middleware|files)([^|]*) \\|$").FindAllStringSubmatch(table, -1) {
		rows++
		line, way, rest := m[1], m[2], m[3]
		if way == "middleware" {
			if !strings.Contains(frameworks, "`"+line+"`") {
				t.Errorf("docs/FRAMEWORKS.md does not have %s", line)
			}
			continue
		}
		call := regexp.MustCompile(`(\w+store)\.(\w+)\(`).FindStringSubmatch(line)
		if call == nil || !strings.Contains(rest, "["+call[1]+"](adapter/"+call[1]+")") {
			t.Errorf("the row of %s does not lead to its adapter", line)
			continue
		}
		if !strings.Contains(readFile(t, ".", "adapter/"+call[1]+"/"+call[1]+".go"), "\nfunc "+call[2]+"(") {
			t.Errorf("adapter/%s has no %s", call[1], call[2])
		}
	}
	adapters, err := filepath.Glob("adapter/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, mod := range adapters {
		if dir := filepath.ToSlash(filepath.Dir(mod)); !strings.Contains(table, "]("+dir+")") {
			t.Errorf("the table does not lead to %s", dir)
		}
	}
	if rows < 16 || len(adapters) < 11 {
		t.Errorf("%d rows and %d adapters", rows, len(adapters))
	}
}

// anchors returns the names of a page's headings in links.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// HAZARDS.md lists each hazard that a test cites, and DESIGN.md each promise.
func TestHazardNumbers(t *testing.T) {
	listed := make(map[string]bool)
	for _, page := range []string{"HAZARDS.md", "DESIGN.md"} {
		for _, m := range regexp.MustCompile(`(?m)^(?:\| |### )([A-HP][0-9]{1,2})\b`).FindAllStringSubmatch(readFile(t, "docs", page), -1) {
			listed[m[1]] = true
		}
	}
	cited := make(map[string]string)
	for path, source := range testFiles(t) {
		for _, where := range regexp.MustCompile(`//.*|"[A-H][0-9]{1,2} [^"]*"`).FindAllString(source, -1) {
			for _, n := range regexp.MustCompile(`\b[A-HP][0-9]{1,2}\b`).FindAllString(where, -1) {
				cited[n] = path
			}
		}
	}
	for n, path := range cited {
		if !listed[n] {
			t.Errorf("%s cites %s, which neither docs/HAZARDS.md nor docs/DESIGN.md explains", path, n)
		}
	}
	if len(cited) < 60 || len(listed) < 100 {
		t.Errorf("only %d hazards are cited, and %d listed", len(cited), len(listed))
	}
}

// OPERATING.md explains every finding of filestore check.
func TestCheckFindings(t *testing.T) {
	rows := make(map[string]string) // severities by kind
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\| ([a-z, ]+) \\|").FindAllStringSubmatch(readFile(t, "docs", "OPERATING.md"), -1) {
		for kind := range strings.SplitSeq(m[1], ", ") {
			rows[strings.Trim(kind, "`")] = m[2]
		}
	}
	found := 0
	for _, m := range regexp.MustCompile(`trouble\{severity(Error|Warning|Note), "([a-z ]+)"`).FindAllStringSubmatch(readFile(t, "cmd/filestore", "findings.go"), -1) {
		found++
		if severity := strings.ToLower(m[1]); !strings.Contains(rows[m[2]], severity) {
			t.Errorf("check finds %s %q; docs/OPERATING.md has that kind as %q", severity, m[2], rows[m[2]])
		}
	}
	if found < 40 {
		t.Errorf("only %d findings: nothing is tested", found)
	}
}

// SECURITY.md has each requirement of ASVS 5.0.0, chapter V7, with its level, in order.
func TestASVS(t *testing.T) {
	want := strings.Fields("V7.1.1=2 V7.1.2=2 V7.1.3=2 V7.2.1=1 V7.2.2=1 V7.2.3=1 V7.2.4=1 V7.3.1=2 V7.3.2=2 " +
		"V7.4.1=1 V7.4.2=1 V7.4.3=2 V7.4.4=2 V7.4.5=2 V7.5.1=2 V7.5.2=2 V7.5.3=3 V7.6.1=2 V7.6.2=2")
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\| (V7\.\d+\.\d+) \| (\d) \| [^|]{20,} \| [^|]{10,} \|$`).FindAllStringSubmatch(readFile(t, ".", "SECURITY.md"), -1) {
		got = append(got, m[1]+"="+m[2])
	}
	if !slices.Equal(got, want) {
		t.Errorf("SECURITY.md has the requirements\n%q\nwant\n%q", got, want)
	}
}

// The fields and methods that the pages name exist.
func TestDocsFields(t *testing.T) {
	types := map[string]reflect.Type{
		"Options": reflect.TypeFor[filestore.Options](), "Store": reflect.TypeFor[*filestore.Store](),
		"Manager": reflect.TypeFor[*middleware.Manager](), "Session": reflect.TypeFor[*middleware.Session](),
		"CookieOptions": reflect.TypeFor[middleware.CookieOptions](),
	}
	named := 0
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile("`(?:session\\.|filestore\\.)?([A-Z]\\w+)\\.([A-Z]\\w*)").FindAllStringSubmatch(text, -1) {
			of, ok := types[m[1]]
			if !ok {
				continue
			}
			named++
			_, has := of.MethodByName(m[2])
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if _, field := of.FieldByName(m[2]); !has && !field {
				t.Errorf("%s names %s.%s, which does not exist", page, m[1], m[2])
			}
		}
	}
	if named < 60 {
		t.Errorf("the pages name only %d fields and methods", named)
	}
}
