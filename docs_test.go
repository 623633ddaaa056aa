package filestore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
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
