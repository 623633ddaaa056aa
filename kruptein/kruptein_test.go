package kruptein_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/kruptein"
)

var ctx = context.Background()

const (
	secret = "squirrel" // the samples were written with it
	doc    = `{"cookie":{"originalMaxAge":3600000,"expires":"2026-11-21T09:18:23.539Z","httpOnly":true,"path":"/"},"views":1,"name":"açaí 日本 😀","__lastAccess":1795249103539}`
)

// A sample is a file that session-file-store wrote, and a Codec that writes files like it.
type sample struct {
	name, id string
	file     []byte
	codec    kruptein.Codec
}

func samples(t testing.TB) (all []sample) {
	t.Helper()
	for _, s := range []struct {
		name  string
		codec kruptein.Codec
	}{
		{"13-encrypted-default", kruptein.Codec{}},
		{"14-encrypted-touched", kruptein.Codec{}},
		{"15-encrypted-pbkdf2", kruptein.Codec{PBKDF2: true}},
		{"16-encrypted-pbkdf2-sha256-aes128gcm", kruptein.Codec{Algorithm: "aes-128-gcm", Hashing: "sha256", PBKDF2: true}},
		{"17-encrypted-cbc-scrypt", kruptein.Codec{Algorithm: "aes-256-cbc"}},
		{"18-encrypted-hex", kruptein.Codec{EncodeAs: "hex"}},
		{"19-encrypted-base64", kruptein.Codec{EncodeAs: "base64"}},
		{"20-encrypted-asn1-base64", kruptein.Codec{EncodeAs: "base64", ASN1: true}},
	} {
		files, err := filepath.Glob(filepath.Join("testdata", s.name, "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatal(s.name, files, err)
		}
		all = append(all, sample{s.name, strings.TrimSuffix(filepath.Base(files[0]), ".json"), readFile(t, files[0]), s.codec})
	}
	return all
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with returns a Codec that shares c's keys and has other's fields.
func with(c *kruptein.Codec, other kruptein.Codec) *kruptein.Codec {
	mine := *c
	mine.Algorithm, mine.Hashing, mine.PBKDF2, mine.EncodeAs, mine.ASN1 = other.Algorithm, other.Hashing, other.PBKDF2, other.EncodeAs, other.ASN1
	return &mine
}

func encode(t testing.TB, c *kruptein.Codec, id, doc string) []byte {
	t.Helper()
	file, err := c.Encode(id, []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func decode(t testing.TB, c *kruptein.Codec, id string, file []byte) string {
	t.Helper()
	doc, err := c.Decode(id, file)
	if err != nil {
		t.Fatalf("Decode = %v", err)
	}
	return string(doc)
}

// refused checks that c does not decode file, and that the error reveals nothing.
func refused(t testing.TB, c *kruptein.Codec, id string, file []byte, what string) {
	t.Helper()
	doc, err := c.Decode(id, file)
	if doc != nil || !errors.Is(err, filestore.ErrDecrypt) {
		t.Fatalf("%s: Decode = %q, %v, want ErrDecrypt", what, doc, err)
	}
	if strings.Contains(err.Error(), id) || strings.Contains(err.Error(), secret) {
		t.Fatalf("%s: the error %q shows the id or the secret", what, err)
	}
}

// A Codec reads Node's files without being told how they were written, and writes files of the same shape.
func TestSamples(t *testing.T) {
	t.Parallel()
	c := kruptein.New(secret)
	for _, s := range samples(t) {
		got := decode(t, c, s.id, s.file)
		if s.name[:2] == "13" && got != doc {
			t.Errorf("%s: %s\nwant %s", s.name, got, doc)
		}
		sess := new(filestore.Session)
		if err := sess.UnmarshalJSON([]byte(got)); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if views, err := filestore.Value[int](sess, "views"); views != 1 || err != nil {
			t.Errorf("%s: views = %d, %v", s.name, views, err)
		}
		file := encode(t, with(kruptein.New(secret), s.codec), s.id, got)
		if mine, node := shape(t, file), shape(t, s.file); mine != node {
			t.Errorf("%s: written as\n%s\nwant\n%s", s.name, mine, node)
		}
	}
}

// shape returns file with lengths in place of the random parts.
func shape(t *testing.T, file []byte) string {
	t.Helper()
	if file[0] != '{' {
		return fmt.Sprint("DER of ", len(file))
	}
	dec := json.NewDecoder(bytes.NewReader(file))
	var b strings.Builder
	for dec.More() || b.Len() == 0 {
		token, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		switch v := token.(type) {
		case string:
			if n := len([]rune(v)); n > 6 {
				fmt.Fprint(&b, n, " ")
			} else {
				b.WriteString(v + " ")
			}
		case float64:
			b.WriteString("# ")
		default:
			fmt.Fprint(&b, v, " ")
		}
		for !dec.More() && b.Len() > 0 { // closing brackets
			if token, err = dec.Token(); err != nil {
				return b.String()
			}
			fmt.Fprint(&b, token, " ")
		}
	}
	return b.String()
}

// A Codec reads every variant that can be written, without being told which.
func TestVariants(t *testing.T) {
	t.Parallel()
	for _, hashing := range []string{"", "sha256", "sha384", "sha512"} {
		for _, pbkdf2 := range []bool{false, true} {
			writer, reader := kruptein.New(secret), kruptein.New(secret)
			for _, algorithm := range []string{"", "aes-128-gcm", "aes-192-gcm", "aes-256-gcm", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc"} {
				for _, encodeAs := range []string{"", "binary", "hex", "base64"} {
					for _, asn1 := range []bool{false, true} {
						v := kruptein.Codec{Algorithm: algorithm, Hashing: hashing, PBKDF2: pbkdf2, EncodeAs: encodeAs, ASN1: asn1}
						lengths := 1
						if strings.HasSuffix(algorithm, "cbc") {
							lengths = 17 // so that every length of the padding occurs
						}
						for n := range lengths {
							doc := fmt.Sprintf(`{"cookie":{},"é\"\\\n\u0001":"%s"}`, strings.Repeat("x", n))
							file := encode(t, with(writer, v), "id", doc)
							if got := decode(t, reader, "id", file); got != doc {
								t.Errorf("%+v: %q, want %q", v, got, doc)
							}
						}
					}
				}
			}
		}
	}
	for _, bad := range []kruptein.Codec{{Algorithm: "aes-256-ccm"}, {Algorithm: "des"}, {Hashing: "md4"}, {EncodeAs: "utf8"}} {
		c := with(kruptein.New(secret), bad)
		if _, err := c.Encode("id", []byte(doc)); err == nil {
			t.Errorf("%+v: Encode succeeds", bad)
		}
		if _, err := c.Decode("id", samples(t)[0].file); err == nil || errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("%+v: Decode = %v, want an error about the Codec", bad, err)
		}
	}
	for _, c := range []*kruptein.Codec{kruptein.New(), kruptein.New(""), kruptein.New(secret, "")} {
		_, err := c.Encode("id", []byte(doc))
		_, err2 := c.Decode("id", samples(t)[0].file)
		if err == nil || err2 == nil || errors.Is(err2, filestore.ErrDecrypt) {
			t.Errorf("without a secret Encode and Decode = %v, %v", err, err2)
		}
	}
}

// Files of session-file-store 1.3.1 are read only with Legacy.
func TestLegacy(t *testing.T) {
	t.Parallel()
	const id = "OldEncryption_0123456789-abcdefg"
	file := readFile(t, "testdata/23-old-encryption-1.3.1/"+id+".json")
	c := kruptein.New("new one", secret)
	refused(t, c, id, file, "without Legacy")
	c.Legacy = true
	if got := decode(t, c, id, file); !strings.HasPrefix(got, `{"cookie":{"originalMaxAge":null`) {
		t.Errorf("Decode = %s", got)
	}
	refused(t, c, "another", file, "another session's")
	refused(t, c, id, file[:40], "truncated")
	for _, bad := range []string{"IV;", "IV;00", "IV;" + strings.Repeat("0", 32), "IV;" + strings.Repeat("0", 33), "IV;" + strings.Repeat("x", 64)} {
		refused(t, c, id, []byte(bad), bad)
	}
	if got := decode(t, c, "id", encode(t, c, "id", doc)); got != doc {
		t.Errorf("Decode = %s", got)
	}
}

// TestAltered flips one of stride bits of a salt.
var stride = 151

// No bit of a file can be changed unnoticed. A changed bit in the salt costs derivations,
// so that the short form tries only some of them.
func TestAltered(t *testing.T) {
	t.Parallel()
	stride := stride
	if os.Getenv("FILESTORE_LONG") != "" {
		stride = 1
	}
	all := samples(t)
	for i := range all {
		all = append(all, sample{all[i].name + ", Go", all[i].id, encode(t, with(kruptein.New(secret), all[i].codec), all[i].id, doc), all[i].codec})
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := kruptein.New(secret)
			decode(t, c, s.id, s.file)
			from, to := salt(s.file)
			n := 0
			for i := range s.file {
				for bit := range 8 {
					if from <= i && i < to {
						if n++; n%stride != 0 {
							continue
						}
					}
					bad := bytes.Clone(s.file)
					bad[i] ^= 1 << bit
					refused(t, c, s.id, bad, fmt.Sprintf("bit %d of byte %d flipped", bit, i))
				}
				refused(t, c, s.id, s.file[:i], fmt.Sprintf("cut off at %d", i))
			}
		})
	}
}

// salt returns the place of the salt in a file. For DER, which is base64 here, the place is rough.
func salt(file []byte) (from, to int) {
	if i := bytes.Index(file, []byte(`"salt"`)); i >= 0 {
		return i, i + bytes.IndexByte(file[i:], ']')
	}
	raw, _ := base64.StdEncoding.DecodeString(string(file))
	i := bytes.Index(raw, []byte{4, 0x81, 0x80}) // an octet string of 128
	return i * 4 / 3, (i+132)*4/3 + 2
}

// Decode reads all that Node reads, not only what it writes.
func TestSpellings(t *testing.T) {
	t.Parallel()
	c := kruptein.New(secret)
	s := samples(t)[0]
	var e map[string]any
	if err := json.Unmarshal(s.file, &e); err != nil {
		t.Fatal(err)
	}
	again := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	spellings := map[string][]byte{"members in another order": again(e)}
	var pretty bytes.Buffer
	json.Indent(&pretty, s.file, "\t", "  ")
	spellings["pretty"] = pretty.Bytes()
	var ascii strings.Builder
	for _, r := range string(s.file) {
		if r < 0x80 {
			ascii.WriteRune(r)
		} else {
			fmt.Fprintf(&ascii, `\u%04x`, r)
		}
	}
	spellings["all escaped"] = []byte(ascii.String())
	for _, name := range []string{"iv", "at", "salt"} {
		e[name] = e[name].(map[string]any)["data"]
	}
	spellings["arrays"] = again(e)
	for _, name := range []string{"iv", "at"} {
		var text []rune
		for _, n := range e[name].([]any) {
			text = append(text, rune(n.(float64)))
		}
		e[name] = string(text)
	}
	e["extra"] = object{"hmac": 1}
	spellings["texts, and one more member"] = again(e)
	for name, file := range spellings {
		if got, err := c.Decode(s.id, file); string(got) != doc || err != nil {
			t.Errorf("%s: Decode = %q, %v", name, got, err)
		}
	}
}

type object = map[string]any

func TestRotation(t *testing.T) {
	t.Parallel()
	before, during, after := kruptein.New("old"), kruptein.New("new", "old"), kruptein.New("new")
	file := encode(t, before, "id", doc)
	if got := decode(t, during, "id", file); got != doc {
		t.Errorf("with both secrets: %q", got)
	}
	refused(t, after, "id", file, "the old secret is gone")
	file = encode(t, during, "id", doc)
	if got := decode(t, after, "id", file); got != doc {
		t.Errorf("written with the first of two secrets: %q", got)
	}
	refused(t, before, "id", file, "the new secret is not there yet")
}

// A file that we wrote belongs to its session; a file that Node wrote opens under any id.
func TestSwap(t *testing.T) {
	t.Parallel()
	c := kruptein.New(secret)
	for _, hashing := range []string{"sha256", "sha384", "sha512"} {
		mine := with(c, kruptein.Codec{Hashing: hashing})
		refused(t, mine, "berta", encode(t, mine, "anna", doc), "another session's")
	}
	decode(t, c, "anybody", samples(t)[0].file)
	cbc := with(c, kruptein.Codec{Algorithm: "aes-256-cbc"})
	decode(t, c, "anybody", encode(t, cbc, "anna", doc))
}

// A salt serves 100,000 files, and an iv only one.
func TestNonces(t *testing.T) {
	t.Parallel()
	c := kruptein.New(secret)
	seen, salts := make(map[string]bool), make(map[string]int)
	part := func(file []byte, name string) string {
		_, rest, _ := strings.Cut(string(file), name+`":{"type":"Buffer","data":[`)
		part, _, _ := strings.Cut(rest, "]")
		return part
	}
	const files = 100_000
	for range files + 1 {
		file := encode(t, c, "id", "{}")
		seen[part(file, "iv")] = true
		salts[part(file, "salt")]++
	}
	if len(seen) != files+1 {
		t.Errorf("%d ivs in %d files", len(seen), files+1)
	}
	if len(salts) != 2 {
		t.Errorf("%d salts in %d files, want 2", len(salts), files+1)
	}
	for _, n := range salts {
		if n != 1 && n != files {
			t.Errorf("a salt serves %d files, want 1 or %d", n, files)
		}
	}
}

// Printing a Codec shows no secret.
func TestPrint(t *testing.T) {
	c := kruptein.New(secret)
	if _, err := c.Encode("id", []byte("{}")); err != nil { // so that it holds a key too
		t.Fatal(err)
	}
	copied := *c
	copied.PBKDF2 = true
	held := struct {
		Value   kruptein.Codec
		Pointer *kruptein.Codec
		value   kruptein.Codec
		pointer *kruptein.Codec
		codec   filestore.Codec
		options filestore.Options
	}{*c, c, *c, c, c, filestore.Options{Codec: c}}
	store, err := filestore.Open(t.TempDir(), &filestore.Options{Codec: c, ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for what, v := range map[string]any{"value": *c, "copy": copied, "slice": []kruptein.Codec{*c}, "map": map[string]kruptein.Codec{"c": *c}, "struct": held, "pointer to one": &held,
		"Options": filestore.Options{Codec: c}, "Store": store, "pointers": []*kruptein.Codec{c}, "zero": kruptein.Codec{}, "nil": (*kruptein.Codec)(nil)} {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("codec", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("codec", "v", v)
		for _, hidden := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(out.String(), hidden) {
				t.Errorf("a %s prints the secret: %s", what, out.String())
			}
		}
	}
	if file, err := copied.Encode("id", []byte(`{"cookie":{}}`)); err != nil || decode(t, c, "id", file) != `{"cookie":{}}` {
		t.Errorf("a copy encodes as %q, %v", file, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if s := fmt.Sprintf(verb, c); s != "kruptein.Codec" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

// A Store with a Codec does all that a Store with plain files does, with files of both
// sides and of all variants in one directory.
func TestStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(id string) string { return filepath.Join(dir, id+".json") }
	opts := filestore.Options{Codec: kruptein.New("new", secret), ReapInterval: -1, NoSync: true, Logger: slog.New(slog.DiscardHandler)}
	s, err := filestore.Open(dir, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, sample := range samples(t) {
		if err := os.WriteFile(path(sample.id), sample.file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put := func(id string, life time.Duration) {
		t.Helper()
		sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: life, HTTPOnly: true, Path: "/"}}
		if err := errors.Join(sess.Put("user", id), s.Set(ctx, id, sess)); err != nil {
			t.Fatal(err)
		}
	}
	put("anna", time.Hour)
	put("gone", time.Millisecond)
	err = s.Update(ctx, "anna", func(sess *filestore.Session) error { return sess.Put("n", 2) })
	if err := errors.Join(err, s.Touch(ctx, "anna", nil)); err != nil {
		t.Fatal(err)
	}
	if file := readFile(t, path("anna")); bytes.Contains(file, []byte("anna")) || bytes.Contains(file, []byte("cookie")) {
		t.Errorf("the file is plain: %s", file)
	}
	plain := map[string][]byte{"plain": []byte(doc), "swapped": readFile(t, path("anna"))}
	for id, file := range plain {
		if err := os.WriteFile(path(id), file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("Get(%s) = %v, want ErrDecrypt", id, err)
		}
	}
	time.Sleep(5 * time.Millisecond) // gone has expired
	live := make(map[string]bool)
	for e, err := range s.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		live[e.ID] = true
	}
	if !live["anna"] || live["gone"] || live["plain"] || live["swapped"] {
		t.Errorf("All = %v", live)
	}
	if n, err := s.Reap(ctx); n < 1 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	if n, err := s.Len(ctx); n != len(live) || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, len(live))
	}
	if err := s.Clear(ctx); err != nil {
		t.Error(err)
	}
	left, _ := filepath.Glob(path("*"))
	if len(left) != len(plain) {
		t.Errorf("left after Clear: %q", left)
	}

	// A Store without the Codec reads no encrypted file.
	put("anna", time.Hour)
	opts.Codec = nil
	p, err := filestore.Open(dir, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Get(ctx, "anna"); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("Get without the Codec = %v, want ErrCorrupt", err)
	}
}

// Many goroutines use one Codec, for many salts.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	c := kruptein.New(secret)
	all := samples(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				s := all[i%len(all)]
				if _, err := c.Decode(s.id, s.file); err != nil {
					t.Error(err)
				}
				file, err := c.Encode("id", []byte(doc))
				if err != nil {
					t.Error(err)
				}
				if got, err := c.Decode("id", file); string(got) != doc || err != nil {
					t.Errorf("Decode = %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzDecode(f *testing.F) {
	c := kruptein.New(secret)
	c.Legacy = true
	for _, s := range samples(f) {
		f.Add(s.file)
	}
	f.Add([]byte(doc))
	f.Add(readFile(f, "testdata/23-old-encryption-1.3.1/OldEncryption_0123456789-abcdefg.json"))
	for _, s := range []string{`{"hmac":"","ct":"","iv":[],"salt":[]}`, "308204", "MIIC", "0\u0082", "IV;00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if _, err := c.Decode("id", file); err != nil && !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("Decode = %v, want ErrDecrypt", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := kruptein.New(secret)
	for b.Loop() {
		c.Encode("2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx", []byte(doc))
	}
}

func BenchmarkDecode(b *testing.B) {
	c := kruptein.New(secret)
	file := encode(b, c, "id", doc)
	for b.Loop() {
		c.Decode("id", file)
	}
}

func BenchmarkDecodeCold(b *testing.B) {
	file := encode(b, kruptein.New(secret), "id", doc)
	for b.Loop() {
		kruptein.New(secret).Decode("id", file)
	}
}
