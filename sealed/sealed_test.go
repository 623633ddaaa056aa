package sealed_test

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/sealed"
)

var ctx = context.Background()

// newKey returns random bytes.
func newKey() []byte {
	key := make([]byte, sealed.KeySize)
	rand.Read(key)
	return key
}

func newCodec(t testing.TB, keys ...[]byte) *sealed.Codec {
	t.Helper()
	c, err := sealed.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encode(t testing.TB, c *sealed.Codec, id, doc string) []byte {
	t.Helper()
	file, err := c.Encode(id, []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// refused checks that c does not decode file, and that the error reveals nothing.
func refused(t testing.TB, c *sealed.Codec, id string, file []byte, what string) {
	t.Helper()
	doc, err := c.Decode(id, file)
	if doc != nil || !errors.Is(err, filestore.ErrDecrypt) {
		t.Fatalf("%s: Decode = %q, %v, want ErrDecrypt", what, doc, err)
	}
	if strings.Contains(err.Error(), id) {
		t.Fatalf("%s: the error %q shows the id", what, err)
	}
}

const doc = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"name":"açaí 日本 😀","__lastAccess":1795249103539}`

func TestRoundTrip(t *testing.T) {
	c := newCodec(t, newKey())
	for _, doc := range []string{doc, "", "x", "\x00\xff", strings.Repeat("long", 1<<18)} {
		file := encode(t, c, "id", doc)
		if !json.Valid(file) {
			t.Errorf("%.100q is not JSON: Node's reaper would delete it", file)
		}
		if len(doc) > 1 && bytes.Contains(file, []byte(doc)) {
			t.Error("the file is plain")
		}
		got, err := c.Decode("id", file)
		if err != nil || string(got) != doc {
			t.Errorf("Decode = %.100q, %v, want %.100q", got, err, doc)
		}
	}
}

// The format is promised. Key and file are from its first version.
func TestFormat(t *testing.T) {
	key := []byte("0123456789abcdef0123456789ABCDEF")
	const file = `{"sealed":1,"key":"67210d61bbe23392","box":"TlyCNV5eraAmgS1fpuvhynqBV2qhJKw-lnp4MMpwXCI6Wk93qt3hR0yFjzkNqAJ_Op_wkvpxR2AyHZ5BL6-LdChzDZ6h6lrxdyD6tn5jWmwrWTRtEQooK6Dy4HEInkW5piFl1K761m0K05P_5q1V6Nq0-P-Rr1CBghiPzKqLBXeXFOC16IKmLwjZnupQajp6w3ceuOuYy9YpPa0qxJ0UQWv2MMxnhfhzWdUB7BY"}`
	got, err := newCodec(t, key).Decode("anID", []byte(file))
	if err != nil || string(got) != doc {
		t.Errorf("Decode = %q, %v", got, err)
	}
}

// No bit of a file can be changed, and no byte can be cut off or inserted, whatever the
// length of the last group of base64.
func TestAltered(t *testing.T) {
	c := newCodec(t, newKey())
	for _, doc := range []string{doc, doc + "x", doc + "xx"} {
		file := encode(t, c, "id", doc)
		for i := range file {
			for bit := range 8 {
				bad := bytes.Clone(file)
				bad[i] ^= 1 << bit
				refused(t, c, "id", bad, fmt.Sprintf("bit %d of byte %d flipped", bit, i))
			}
			refused(t, c, "id", file[:i], "truncated")
			refused(t, c, "id", file[i+1:], "beheaded")
			for _, s := range []string{"\n", "\r", " ", "=", "A", "\x00", "\r\n"} {
				bad := append(append(bytes.Clone(file[:i]), s...), file[i:]...)
				refused(t, c, "id", bad, fmt.Sprintf("%q put in at %d", s, i))
			}
		}
		refused(t, c, "id", append(bytes.Clone(file), '\n'), "longer")
	}
}

func TestForeign(t *testing.T) {
	c := newCodec(t, newKey())
	refused(t, c, "id", nil, "empty")
	refused(t, c, "id", []byte(doc), "plain")
	refused(t, c, "id", encode(t, newCodec(t, newKey()), "id", doc), "of another key")
	refused(t, c, "id", encode(t, c, "other", doc), "of another session")
	refused(t, c, "anna", encode(t, c, "anna2", doc), "of a session whose id goes on")
	sealed := string(encode(t, c, "id", doc))
	for old, new := range map[string]string{`"sealed":1`: `"sealed":0`, `"key":"`: `"key":"0`, `"box"`: `"Box"`, `,`: `, `} {
		refused(t, c, "id", []byte(strings.Replace(sealed, old, new, 1)), new)
	}
	prefix := sealed[:strings.Index(sealed, `"box":"`)+len(`"box":"`)]
	for n := range 60 { // shorter than a nonce and a tag
		refused(t, c, "id", []byte(prefix+strings.Repeat("A", n)+`"}`), "short")
	}
}

func TestRotation(t *testing.T) {
	old, new := newKey(), newKey()
	before, during, after := newCodec(t, old), newCodec(t, new, old), newCodec(t, new)
	file := encode(t, before, "id", doc)
	if got, err := during.Decode("id", file); err != nil || string(got) != doc {
		t.Errorf("with both keys: %q, %v", got, err)
	}
	refused(t, after, "id", file, "the old key is gone")
	file = encode(t, during, "id", doc)
	if got, err := after.Decode("id", file); err != nil || string(got) != doc {
		t.Errorf("written with the first of two keys: %q, %v", got, err)
	}
	refused(t, before, "id", file, "the new key is not there yet")
}

func TestNew(t *testing.T) {
	for name, keys := range map[string][][]byte{
		"none": nil, "nil": {nil}, "short": {make([]byte, 31)}, "long": {make([]byte, 33)}, "zeros": {make([]byte, 32)},
		"second": {newKey(), {1}},
	} {
		if c, err := sealed.New(keys...); c != nil || err == nil {
			t.Errorf("New(%s) = %v, %v, want an error", name, c, err)
		}
	}
	if _, err := new(sealed.Codec).Encode("id", nil); err == nil {
		t.Error("a Codec without a key encodes")
	}
	refused(t, new(sealed.Codec), "id", []byte(doc), "no key")
	key := []byte("a key that must never be printed")
	c := newCodec(t, key)
	held := struct {
		Value   sealed.Codec
		value   sealed.Codec
		pointer *sealed.Codec
		codec   filestore.Codec
		options filestore.Options
	}{*c, *c, c, c, filestore.Options{Codec: c}}
	for what, v := range map[string]any{"value": *c, "slice": []sealed.Codec{*c}, "struct": held, "pointer to one": &held,
		"Options": filestore.Options{Codec: c}, "zero": sealed.Codec{}, "nil": (*sealed.Codec)(nil)} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("codec", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("codec", "v", v)
		own, err := hkdf.Expand(sha256.New, key, "filestore sealed 1 cipher", sealed.KeySize)
		if err != nil {
			t.Fatal(err)
		}
		for _, hidden := range [][]byte{key, own} {
			for _, text := range []string{string(hidden), fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), strings.Trim(fmt.Sprint(hidden), "[]")} {
				if strings.Contains(out.String(), text) {
					t.Errorf("a %s prints the key: %s", what, out.String())
				}
			}
		}
	}
	copied := *c
	if file, err := copied.Encode("id", []byte("x")); err != nil {
		t.Errorf("Encode of a copy = %v", err)
	} else if doc, err := c.Decode("id", file); string(doc) != "x" {
		t.Errorf("Decode = %q, %v", doc, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if s := fmt.Sprintf(verb, c); s != "sealed.Codec" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

func TestKeyFromPassphrase(t *testing.T) {
	a, err := sealed.KeyFromPassphrase("correct horse", "example.com")
	if err != nil || len(a) != sealed.KeySize {
		t.Fatal(a, err)
	}
	b, _ := sealed.KeyFromPassphrase("correct horse", "example.com")
	c, _ := sealed.KeyFromPassphrase("correct horse", "example.org")
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("the key does not depend on passphrase and salt alone")
	}
	for _, bad := range [][2]string{{"", "example.com"}, {"x", "short"}} {
		if _, err := sealed.KeyFromPassphrase(bad[0], bad[1]); err == nil {
			t.Errorf("KeyFromPassphrase(%q) succeeds", bad)
		}
	}
}

func TestNonces(t *testing.T) {
	c := newCodec(t, newKey())
	seen := make(map[string]bool)
	for range 100_000 {
		_, box, _ := strings.Cut(string(encode(t, c, "id", "")), `"box":"`)
		nonce := box[:32]
		if seen[nonce] {
			t.Fatal("two files have the same nonce")
		}
		seen[nonce] = true
	}
}

// A Store with sealed files does all that a Store with plain files does.
func TestStore(t *testing.T) {
	dir := t.TempDir()
	key := newKey()
	open := func(keys ...[]byte) *filestore.Store {
		t.Helper()
		s, err := filestore.Open(dir, &filestore.Options{Codec: newCodec(t, keys...), ReapInterval: -1, NoSync: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open(key)
	put := func(id string, life time.Duration) {
		t.Helper()
		sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: life, HTTPOnly: true, Path: "/"}}
		if err := errors.Join(sess.Put("user", id), s.Set(ctx, id, sess)); err != nil {
			t.Fatal(err)
		}
	}
	put("anna", time.Hour)
	put("berta", time.Hour)
	put("gone", time.Millisecond)
	path := func(id string) string { return filepath.Join(dir, id+".json") }
	if file, err := os.ReadFile(path("anna")); err != nil || bytes.Contains(file, []byte("anna")) || bytes.Contains(file, []byte("cookie")) {
		t.Errorf("file = %s, %v", file, err)
	}
	err := s.Update(ctx, "anna", func(sess *filestore.Session) error { return sess.Put("n", 2) })
	if err := errors.Join(err, s.Touch(ctx, "anna", nil)); err != nil {
		t.Fatal(err)
	}
	user := func(s *filestore.Store, id string) (string, error) {
		sess, err := s.Get(ctx, id)
		if err != nil {
			return "", err
		}
		return filestore.Value[string](sess, "user")
	}
	if got, err := user(open(newKey(), key), "anna"); got != "anna" || err != nil {
		t.Errorf("Get with a new key before the old = %q, %v", got, err)
	}

	// Files that cannot be decrypted are kept and skipped, and harm no other file.
	time.Sleep(5 * time.Millisecond) // gone has expired
	plain := []byte(doc)
	file, _ := os.ReadFile(path("berta"))
	for name, bytes := range map[string][]byte{"plain": plain, "swapped": file} {
		if err := os.WriteFile(path(name), bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, name); !errors.Is(err, filestore.ErrDecrypt) || errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get(%s) = %v, want ErrDecrypt", name, err)
		}
		if err := s.Create(ctx, name, new(filestore.Session)); err == nil {
			t.Errorf("Create(%s) = nil: it replaced a file that it cannot read", name)
		}
	}
	if n, err := s.Len(ctx); n != 2 || err != nil {
		t.Errorf("Len = %d, %v, want 2", n, err)
	}
	if n, err := s.Reap(ctx); n != 1 || err != nil {
		t.Errorf("Reap = %d, %v, want 1", n, err)
	}
	if err := s.Clear(ctx); err != nil {
		t.Error(err)
	}
	names, _ := filepath.Glob(path("*"))
	if len(names) != 2 {
		t.Errorf("left after Clear: %q, want plain and swapped", names)
	}
}

func FuzzDecode(f *testing.F) {
	c := newCodec(f, []byte("0123456789abcdef0123456789ABCDEF"))
	f.Add(encode(f, c, "id", doc))
	f.Add([]byte(doc))
	f.Fuzz(func(t *testing.T, file []byte) {
		if doc, err := c.Decode("id", file); err == nil {
			if again, err := c.Decode("other", file); err == nil || again != nil {
				t.Errorf("%q opens as two sessions: %q", file, doc)
			}
		} else if !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("Decode = %v, want ErrDecrypt", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := newCodec(b, newKey())
	for b.Loop() {
		c.Encode("2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", []byte(doc))
	}
}

func BenchmarkDecode(b *testing.B) {
	c := newCodec(b, newKey())
	file := encode(b, c, "id", doc)
	for b.Loop() {
		c.Decode("id", file)
	}
}
