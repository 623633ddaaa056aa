package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/session"
)

const fileSecret = "squirrel ☂ açaí"

// encrypting returns the Codec that writes like Node with the option crypto.
func encrypting(crypto object) *kruptein.Codec {
	c := kruptein.New(fileSecret)
	text := func(name string) string { s, _ := crypto[name].(string); return s }
	c.Algorithm, c.Hashing, c.EncodeAs = text("algorithm"), text("hashing"), text("encodeas")
	c.PBKDF2 = crypto != nil && crypto["use_scrypt"] != true
	c.ASN1 = crypto["use_asn1"] == true
	return c
}

// Both sides read files that the other has written, changed and touched, whatever the options. Go is not told them.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	n := driver(t)
	variants := []object{nil}
	// Every pair of two options' values is in one of them.
	for a, algorithm := range []string{"aes-256-gcm", "aes-192-gcm", "aes-128-gcm", "aes-256-cbc", "aes-192-cbc", "aes-128-cbc"} {
		for e, encodeas := range []string{"binary", "hex", "base64"} {
			v := object{"algorithm": algorithm, "encodeas": encodeas, "hashing": []string{"sha512", "sha256", "sha384"}[(a+e)%3], "use_asn1": (a/3+e)%2 == 1}
			if (a+e)%2 == 0 {
				v["use_scrypt"] = true
			}
			variants = append(variants, v)
		}
	}
	for i, crypto := range variants {
		dir := t.TempDir()
		options := object{"secret": fileSecret}
		if crypto != nil {
			options["crypto"] = crypto
		}
		node := nodeOpen(t, n, dir, options)
		writes := open(t, dir, &filestore.Options{Codec: encrypting(crypto)})
		reads := open(t, dir, &filestore.Options{Codec: kruptein.New("another", fileSecret)})
		what := fmt.Sprint(crypto)

		// Node writes.
		text := doc(time.Now(), `"name":"açaí 日本 😀\u2028","esc":"\"\\\n\u0001\u007f<&>","n":`+fmt.Sprint(i))
		must(t, node.set("fromnode", json.RawMessage(text)))
		got, err := reads.Get(ctx, "fromnode")
		if err != nil {
			t.Fatalf("%s: Get = %v", what, err)
		}
		raw, _ := got.MarshalJSON()
		sameValues(t, what+": Node to Go", raw, []byte(text))

		// Go changes it, Node reads and touches that, Go reads.
		must(t, writes.Update(ctx, "fromnode", func(s *filestore.Session) error { return s.Put("go", "é") }))
		raw, err = node.get("fromnode")
		if err != nil {
			t.Fatalf("%s: Node's get = %v", what, err)
		}
		if decode(t, raw)["go"] != "é" || decode(t, raw)["name"] != "açaí 日本 😀\u2028" {
			t.Errorf("%s: Node reads %s", what, raw)
		}
		must(t, node.touch("fromnode", decode(t, raw)))
		if got, err = reads.Get(ctx, "fromnode"); err != nil || string(got.Values["go"]) != `"é"` {
			t.Errorf("%s: after Node's touch: %v, %v", what, got, err)
		}

		// Go writes a new one.
		fresh := new(filestore.Session)
		must(t, errors.Join(fresh.Put("name", "日本\u2028\"\\\n"), writes.Set(ctx, "fromgo", fresh)))
		raw, err = node.get("fromgo")
		if err != nil || decode(t, raw)["name"] != "日本\u2028\"\\\n" {
			t.Errorf("%s: Node reads %s, %v", what, raw, err)
		}
		if file := read(t, dir, "fromgo.json"); strings.Contains(file, "cookie") {
			t.Errorf("%s: the file is plain: %s", what, file)
		}
	}
}

// With a site of each side on one directory of encrypted sessions, one login counts on both.
func TestEncryptedSites(t *testing.T) {
	t.Parallel()
	n := driver(t)
	dir := t.TempDir()
	store := open(t, dir, &filestore.Options{Codec: kruptein.New(fileSecret)})
	g := goSite(t, &session.Manager{Store: store})
	node := nodeSite(t, n, object{"options": object{"path": dir, "secret": fileSecret}})
	a := node.run(t, "", step{"put", "user", "açaí"})
	cookie := a.pair(t)
	for i, s := range []site{g, node, g, node} {
		a := s.run(t, cookie, step{"count", "n"})
		if a.value("user") != `"açaí"` || a.value("n") != fmt.Sprint(i+1) {
			t.Errorf("%s, request %d: session %s", s.name, i, a.Session)
		}
	}
	if a := g.run(t, cookie, step{"destroy"}); a.Status != 200 {
		t.Errorf("logout: %+v", a)
	}
	if a := node.run(t, cookie); a.value("user") != "" {
		t.Errorf("after the logout Node has %s", a.Session)
	}
}

// A wrong secret, a plain file or a changed file is an error in Go, and the file stays. Node crashes on each
// of them, which a file that Go writes must never cause.
func TestEncryptedOtherwise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := driver(t)
	must(t, nodeOpen(t, n, dir, object{"secret": "another"}).set("other", json.RawMessage(doc(time.Now(), `"n":1`))))
	plant(t, dir, "plain.json", doc(time.Now(), `"n":1`))
	c := kruptein.New(fileSecret)
	file, err := c.Encode("changed", []byte(doc(time.Now(), `"n":1`)))
	must(t, err)
	plant(t, dir, "changed.json", strings.Replace(string(file), `"iv":{"type":"Buffer","data":[`, `"iv":{"type":"Buffer","data":[1`, 1))
	store := open(t, dir, &filestore.Options{Codec: c})
	for _, id := range []string{"other", "plain", "changed"} {
		before := read(t, dir, id+".json")
		if _, err := store.Get(ctx, id); !errors.Is(err, filestore.ErrDecrypt) {
			t.Errorf("Get(%s) = %v, want ErrDecrypt", id, err)
		}
		if removed, err := store.Reap(ctx); removed != 0 || err != nil {
			t.Errorf("Reap = %d, %v", removed, err)
		}
		if read(t, dir, id+".json") != before {
			t.Errorf("%s was changed", id)
		}
		n := driver(t)
		s := nodeOpen(t, n, dir, object{"secret": fileSecret})
		if _, err := s.get(id); err == nil {
			t.Errorf("Node reads %s", id)
		} else if nodeErr := (*NodeError)(nil); errors.As(err, &nodeErr) {
			t.Errorf("Node's get(%s) = %v; it used to die", id, err)
		}
		select {
		case <-n.exited:
		case <-time.After(exitTimeout):
			t.Errorf("Node survives %s", id)
		}
	}
}

// The reaper of each side removes expired sessions of the other, and keeps live ones.
func TestEncryptedReap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := driver(t)
	node := nodeOpen(t, n, dir, object{"secret": fileSecret, "reapMaxConcurrent": 1})
	store := open(t, dir, &filestore.Options{Codec: kruptein.New(fileSecret)})
	brief := func(ms int) string {
		return fmt.Sprintf(`{"cookie":{"originalMaxAge":%d,"expires":null,"httpOnly":true,"path":"/"}}`, ms)
	}
	for _, by := range []string{"go", "node"} {
		for id, ms := range map[string]int{"nodelive": 600_000, "nodegone": 1} {
			must(t, node.set(id, json.RawMessage(brief(ms))))
		}
		for id, ms := range map[string]int{"golive": 600_000, "gogone": 1} {
			s := new(filestore.Session)
			must(t, errors.Join(s.UnmarshalJSON([]byte(brief(ms))), store.Set(ctx, id, s)))
		}
		time.Sleep(10 * time.Millisecond)
		if by == "go" {
			if removed, err := store.Reap(ctx); removed != 2 || err != nil {
				t.Errorf("Reap = %d, %v, want 2", removed, err)
			}
			if fi, err := os.Stat(filepath.Join(dir, "nodelive.json")); err != nil || !fi.ModTime().After(time.Now()) {
				t.Errorf("after Reap the mtime of Node's file is not when it expires: %v", err)
			}
		} else {
			must(t, node.reap())
		}
		left, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		if len(left) != 2 || !exists(dir, "golive.json") || !exists(dir, "nodelive.json") {
			t.Errorf("after a reap by %s there are %q", by, left)
		}
		for _, id := range []string{"golive", "nodelive"} {
			if _, err := store.Get(ctx, id); err != nil {
				t.Error(id, err)
			}
		}
	}
	if n, err := store.Len(ctx); n != 2 || err != nil {
		t.Errorf("Len = %d, %v", n, err)
	}
}
