package kruptein

import (
	"context"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A file that is not an envelope is refused before any key is derived.
func TestHostileEnvelopes(t *testing.T) {
	c := New("secret")
	good := func() map[string]any {
		return map[string]any{
			"hmac": strings.Repeat("é", 64), "ct": "ct", "aad": "aad",
			"iv": slices.Repeat([]int{1}, 12), "salt": slices.Repeat([]int{1}, saltSize), "at": slices.Repeat([]int{1}, tagSize),
		}
	}
	bad := []string{
		"", " ", "{", "{}", "[]", "null", `"x"`, "0", "IV;", "IV;00", "MIIC", "3082", "308202", "0\u0082", "\xff", "{\xff}",
		`{"cookie":{},"__lastAccess":1}`, strings.Repeat("[", 1<<20), strings.Repeat(`{"hmac":`, 1<<17), strings.Repeat("A", 1<<20), strings.Repeat("30", 1<<19),
	}
	add := func(m map[string]any) {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		bad = append(bad, string(b))
	}
	for _, name := range slices.Sorted(maps.Keys(good())) {
		m := good()
		delete(m, name)
		add(m)
		for _, v := range []any{nil, 1, 1.5, true, map[string]any{}, map[string]any{"type": "Buffer"}, map[string]any{"type": "buffer", "data": []int{1}},
			[]any{}, []any{256}, []any{-1}, []any{1.5}, []any{"1"}, []any{[]int{1}}, map[string]any{"type": "Buffer", "data": "x"}, make([]int, 1<<20)} {
			m[name] = v
			add(m)
		}
		if name != "iv" && name != "at" && name != "salt" {
			continue
		}
		for _, n := range []int{1, 11, 13, 15, 17, 127, 129, 1 << 16} {
			m[name] = strings.Repeat("x", n)
			add(m)
		}
	}
	for _, hmac := range []string{"", "x", strings.Repeat("x", 63), strings.Repeat("é", 65), strings.Repeat("z", 128), strings.Repeat("日", 64)} {
		m := good()
		m["hmac"] = hmac
		add(m)
	}
	for n := range 8 { // DER with too few parts, with a short salt
		parts := slices.Repeat([][]byte{[]byte(strings.Repeat("x", 64))}, n)
		der, err := asn1.Marshal(parts)
		if err != nil {
			t.Fatal(err)
		}
		for _, enc := range encodings {
			bad = append(bad, enc.encode(der))
		}
	}
	for _, file := range bad {
		if doc, err := c.Decode("id", []byte(file)); doc != nil || !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("Decode(%.200q) = %q, %v, want ErrDecrypt", file, doc, err)
		}
	}
	if n := len(c.keys.refused) + c.keys.keys.Len(); n > 0 {
		t.Errorf("%d of these files had a key derived", n)
	}
}

// Somebody who knows the secret could write an envelope in which only one size is wrong. No cipher panics,
// even if the key is known and fits.
func TestSizes(t *testing.T) {
	c := New("secret")
	good, err := c.Encode("id", []byte(`{"cookie":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	cbc := *c
	cbc.Algorithm = "aes-256-cbc"
	block, err := cbc.Encode("id", []byte(`{"cookie":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(e *envelope, what string) {
		t.Helper()
		if doc, err := c.Decode("id", e.marshalJSON()); !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("%s: Decode = %q, %v, want ErrDecrypt", what, doc, err)
		}
	}
	signed := func(e *envelope, ct string) {
		e.ct = binary{}.encode([]byte(ct))
		key, _, _ := c.keys.recall(e.salt, c.secrets, func(*[maxKey]byte) bool { return true })
		e.hmac = binary{}.encode(sum(sha512.New, key[:], e.ct))
	}
	for n := range 40 {
		for _, file := range [][]byte{good, block} {
			e, err := parse(file)
			if err != nil {
				t.Fatal(err)
			}
			tag, iv := e.at, e.iv
			if n != tagSize {
				e.at = make([]byte, n)
				copy(e.at, tag)
				if tag != nil || n > 0 {
					refused(e, fmt.Sprint("a tag of ", n))
				}
				e.at = tag
			}
			if n != len(iv) {
				e.iv = make([]byte, n)
				copy(e.iv, iv)
				refused(e, fmt.Sprint("an iv of ", n))
				e.iv = iv
			}
			signed(e, strings.Repeat("x", n))
			refused(e, fmt.Sprint("a ciphertext of ", n))
		}
	}
	e, _ := parse(good)
	e.aad = ""
	refused(e, "no aad")
	e, _ = parse(good)
	e.at, e.aad = nil, ""
	e.iv = make([]byte, 16)
	refused(e, "GCM given out as CBC")
}

// Many readers of one file share one derivation. A refused file is derived for once.
func TestDerivesOnce(t *testing.T) {
	k := newKeyring()
	var derived atomic.Int32
	tries := func(secret string) []try {
		derived.Add(1)
		return []try{{secret: secret}}
	}
	yes := func(*[maxKey]byte) bool { return true }
	no := func(*[maxKey]byte) bool { return false }
	read := func(salt byte, file string, fits func(*[maxKey]byte) bool, secrets ...string) bool {
		_, ok, err := k.reading(context.Background(), [saltSize]byte{salt}, []byte(file), secrets, tries, fits)
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	herd := func(salt byte, fits func(*[maxKey]byte) bool) {
		t.Helper()
		derived.Store(0)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if read(salt, string(rune(salt)), fits, "secret") != fits(nil) {
					t.Error("not all readers agree")
				}
			})
		}
		wg.Wait()
		if n := derived.Load(); n != 1 {
			t.Errorf("%d derivations, want 1", n)
		}
	}
	herd(1, yes)
	herd(2, no)
	if !read(2, "other", yes, "secret") {
		t.Error("a bad file has spoilt its salt")
	}
	derived.Store(0)
	if read(1, "other", no, "secret") || derived.Load() != 0 {
		t.Error("a bad file with a known salt had keys derived")
	}
	// A read that needs no new key waits for no turn.
	busy(k)
	if !read(1, "third", yes, "secret") || read(2, "\x02", no, "another", "secret") {
		t.Error("known files are not known")
	}
}

// busy derives keys in other goroutines all the time.
func busy(k *keyring) (end func()) {
	for _, turn := range k.deriving {
		turn <- struct{}{}
	}
	k.renewing <- struct{}{}
	return func() {
		for _, turn := range k.deriving {
			turn.leave()
		}
		k.renewing.leave()
	}
}

// The wait for a turn ends with the context, and the error says nothing about the file.
func TestWaitEndsWithContext(t *testing.T) {
	const doc = `{"cookie":{},"n":1}`
	file, err := New("secret").Encode("id", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	c := New("secret")
	end := busy(c.keys)
	start := time.Now()
	for name, call := range map[string]func(ctx context.Context) error{
		"Encode": func(ctx context.Context) error { _, err := c.EncodeContext(ctx, "id", []byte(doc)); return err },
		"Decode": func(ctx context.Context) error { _, err := c.DecodeContext(ctx, "id", file); return err },
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("%s past its deadline = %v", name, err)
		}
		cancel()
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("waited %v", d)
	}
	end()
	if got, err := c.Decode("id", file); err != nil || string(got) != doc {
		t.Errorf("Decode later = %q, %v", got, err)
	}
}

// When the context has ended nothing more is derived, and the file does not count as bad.
func TestDerivesForSomebody(t *testing.T) {
	k := newKeyring()
	ctx, cancel := context.WithCancel(context.Background())
	tries := func(secret string) []try { return []try{{secret, true, 0}, {secret, true, 1}} }
	tried := 0
	_, ok, err := k.reading(ctx, [saltSize]byte{1}, []byte("file"), []string{"a", "b"}, tries, func(*[maxKey]byte) bool {
		tried++
		cancel()
		return false
	})
	if ok || err != context.Canceled || tried != 1 {
		t.Errorf("%v, %v after %d derivations, want 1", ok, err, tried)
	}
	if _, ok, err := k.reading(context.Background(), [saltSize]byte{1}, []byte("file"), []string{"a"}, tries, func(*[maxKey]byte) bool { return true }); !ok || err != nil {
		t.Errorf("later %v, %v", ok, err)
	}
}

// A Store's operations pass their contexts on, and its Close ends the waits.
func TestWaitEndsWithClose(t *testing.T) {
	dir := t.TempDir()
	file, err := New("secret").Encode("id", []byte(fmt.Sprintf(`{"cookie":{},"__lastAccess":%d}`, time.Now().UnixMilli())))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "id.json"), file, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := New("secret")
	s, err := filestore.Open(dir, &filestore.Options{Codec: c, ReapInterval: -1, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	end := busy(c.keys)
	calls := map[string]func(ctx context.Context) error{
		"Get":   func(ctx context.Context) error { _, err := s.Get(ctx, "id"); return err },
		"Touch": func(ctx context.Context) error { return s.Touch(ctx, "id", nil) },
		"Update": func(ctx context.Context) error {
			return s.Update(ctx, "id", func(*filestore.Session) error { return nil })
		},
		"Set":    func(ctx context.Context) error { return s.Set(ctx, "new", new(filestore.Session)) },
		"Create": func(ctx context.Context) error { return s.Create(ctx, "new", new(filestore.Session)) },
		"Len":    func(ctx context.Context) error { _, err := s.Len(ctx); return err },
		"Reap":   func(ctx context.Context) error { _, err := s.Reap(ctx); return err },
		"Clear":  func(ctx context.Context) error { return s.Clear(ctx) },
	}
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("%s past its deadline = %v", name, err)
		}
		cancel()
	}
	results := make(chan error, len(calls))
	for name, call := range calls {
		go func() {
			err := call(context.Background())
			if !errors.Is(err, filestore.ErrClosed) {
				err = fmt.Errorf("%s ended by Close = %w", name, err)
			} else {
				err = nil
			}
			results <- err
		}()
	}
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if err := s.Close(); err != nil || time.Since(start) > 20*time.Second {
		t.Errorf("Close = %v after %v", err, time.Since(start))
	}
	for range calls {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	end()
	if got, err := os.ReadFile(filepath.Join(dir, "id.json")); err != nil || string(got) != string(file) {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

// Somebody who knows the old secret writes a file with the salt of other files. Those are
// still read.
func TestForgedSalt(t *testing.T) {
	reader, writer := New("new", "old"), New("new")
	theirs, err := writer.Encode("id", []byte(`{"cookie":{},"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	forger := New("old")
	forger.keys.salt = writer.keys.salt
	derived, err := try{secret: "old"}.derive(writer.keys.salt[:])
	if err != nil {
		t.Fatal(err)
	}
	forger.keys.key, forger.keys.made, forger.keys.left = [maxKey]byte(derived), try{secret: "old"}, 1
	forgery, err := forger.Encode("other", []byte(`{"cookie":{},"a":2}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := reader.Decode("other", forgery); err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Decode("id", theirs); err != nil {
			t.Errorf("after the forgery: %v", err)
		}
	}
}

// A salt belongs to one way of deriving, even if somebody changes the fields.
func TestChangedFields(t *testing.T) {
	a := New("secret")
	b := *a
	b.PBKDF2 = true
	for range 2 {
		for _, c := range []*Codec{a, &b} {
			file, err := c.Encode("id", []byte(`{"cookie":{}}`))
			if err != nil {
				t.Fatal(err)
			}
			e, err := parse(file)
			if err != nil {
				t.Fatal(err)
			}
			key, err := try{"secret", c.PBKDF2, 0}.derive(e.salt[:])
			if err != nil || e.hmac != (binary{}).encode(sum(sha512.New, key, e.ct)) {
				t.Errorf("PBKDF2 %v: the key is another, %v", c.PBKDF2, err)
			}
		}
	}
}

// The number of keys has a bound, and a key that is dropped is wiped.
func TestForget(t *testing.T) {
	k := newKeyring()
	salt := func(i int) (s [saltSize]byte) {
		s[0], s[1], s[2] = byte(i), byte(i>>8), byte(i>>16)
		return s
	}
	k.remember(slot{salt(0), ""}, [maxKey]byte{1, 2, 3})
	first, _ := k.keys.Peek(slot{salt(0), ""})
	for i := range maxKeys {
		if *first == [maxKey]byte{} {
			t.Fatalf("wiped after %d others", i)
		}
		k.remember(slot{salt(i + 1), ""}, [maxKey]byte{1})
		for _, n := range []int{i, i + maxKeys} {
			digest := salt(n)
			k.refuse([32]byte(digest[:32]))
		}
	}
	if *first != [maxKey]byte{} {
		t.Error("a forgotten key is not wiped")
	}
	if k.keys.Len() != maxKeys || len(k.refused) != maxRefused {
		t.Errorf("%d keys and %d refused files, want %d", k.keys.Len(), len(k.refused), maxKeys)
	}
}
