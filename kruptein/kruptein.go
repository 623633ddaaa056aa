// Package kruptein reads and writes the encrypted files of the npm package session-file-store. With
// its option secret, that package encrypts by the npm package kruptein 2.
//
//	store, err := filestore.Open(dir, &filestore.Options{Codec: kruptein.New("the secret")})
//
// Use it if Node shares the directory. If only Go uses it, package sealed is better: see there.
//
// # What it protects from, and what not
//
// Without a secret nobody can read a file, or change one unnoticed, but:
//
//   - Node does not tie a file to its session. Whoever can write to the directory can rename one
//     session's file to another's name, and so log in as somebody else. This package notices that, and
//     refuses the file, if it wrote the file itself with a GCM algorithm and Node has not written it
//     since.
//   - If somebody puts an older file of the same session back, nobody notices.
//   - Ids, times, sizes and the number of sessions are visible. An id is a credential, but to make a
//     cookie of it takes the cookie secret as well.
//   - With a CBC algorithm nothing authenticates the initialization vector, and so the first 16 bytes
//     of the session. Use GCM.
//
// # Keys
//
// kruptein derives a file's key from the secret and the file's salt, and this is slow on purpose: it
// takes some 40 ms, and 16 MiB with scrypt. Node does so in every get and every set, because each of
// its files has a salt of its own. A Codec uses one salt for 100,000 files, and remembers the keys of
// the 10,000 salts last used, some 5 MB. For reading it derives at most as many keys at once as there
// are processors. A read that needs a new key waits for its turn, or until its context ends, so that
// the first reads after a start on many files of Node's take seconds. A forgotten key is overwritten,
// as far as Go allows. Whoever can read the memory of the process finds the secrets there in any case.
package kruptein

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/sessionfilestore/filestore"
)

// A Codec is a [filestore.Codec]. Make one with New. It is safe for concurrent use, but its fields
// must not be changed after the first use.
//
// The fields say how Encode writes. Each is an option of the Node side's crypto, and its zero value is
// session-file-store's default. (There a crypto option without use_scrypt: true turns scrypt off.)
// Decode reads all variants, whatever the fields say.
type Codec struct {
	// Algorithm is algorithm: "aes-128-gcm", "aes-192-gcm", "aes-256-gcm", or the same with cbc.
	// "" means "aes-256-gcm".
	Algorithm string

	// Hashing is hashing: "sha256", "sha384" or "sha512". "" means "sha512".
	Hashing string

	// PBKDF2 is use_scrypt: false.
	PBKDF2 bool

	// EncodeAs is encodeas: "binary", "hex" or "base64". "" means "binary".
	EncodeAs string

	// ASN1 is use_asn1: true.
	ASN1 bool

	// Legacy lets Decode also read the files of session-file-store 1.0 to 1.3.1; the next write
	// replaces them with new ones. Nothing authenticates such a file: while Legacy is on, whoever can
	// write to the directory can change the session in one, and can forge one for any session whose old
	// file they have seen.
	Legacy bool

	*hidden
}

// hidden keeps the secrets behind two pointers. If a Codec is an unexported field of another struct, fmt
// prints it without its Format method, and a verb that is wrong for pointers makes it follow one pointer.
type hidden struct{ *inner }

type inner struct {
	secrets []string
	keys    *keyring
}

// New returns a Codec that encrypts with the first secret and decrypts with all. To change the
// secret, put the new one first, and keep the old one until its sessions have ended. Without a
// secret, or with an empty one, Encode and Decode fail.
func New(secrets ...string) *Codec {
	return &Codec{hidden: &hidden{&inner{slices.Clone(secrets), newKeyring()}}}
}

// Format prints no secrets, whatever the verb.
func (c Codec) Format(f fmt.State, _ rune) { io.WriteString(f, "kruptein.Codec") }

// hashes are the values of hashing, the most likely first.
var hashes = []struct {
	name string
	new  func() hash.Hash
	size int
}{
	{"sha512", sha512.New, sha512.Size},
	{"sha256", sha256.New, sha256.Size},
	{"sha384", sha512.New384, sha512.Size384},
}

const (
	gcmIV   = 12
	tagSize = 16
	maxKey  = 32

	// bound begins the additional data by which Encode ties a file to its session. Node accepts any
	// data and writes random bytes, which begin like this once in 2^64 files.
	bound = "fs:id/1:"
)

// aad returns n bytes of additional data that stand for id.
func aad(id string, n int) []byte {
	sum := sha512.Sum512([]byte(id))
	return append([]byte(bound), sum[:n-len(bound)]...)
}

// A cipherOf describes an algorithm.
type cipherOf struct {
	keySize int
	gcm     bool
}

var algorithms = map[string]cipherOf{
	"":            {32, true},
	"aes-256-gcm": {32, true}, "aes-192-gcm": {24, true}, "aes-128-gcm": {16, true},
	"aes-256-cbc": {32, false}, "aes-192-cbc": {24, false}, "aes-128-cbc": {16, false},
}

// check returns what the fields mean, or an error if a field has an unknown value.
func (c *Codec) check() (algo cipherOf, hashing int, enc encoding, err error) {
	if c.hidden == nil || len(c.secrets) == 0 {
		return algo, 0, nil, errors.New("kruptein: no secret")
	}
	for _, s := range c.secrets {
		if s == "" {
			err = errors.New("kruptein: an empty secret")
		}
	}
	algo, ok := algorithms[c.Algorithm]
	if !ok {
		err = fmt.Errorf("kruptein: unknown Algorithm %q", c.Algorithm)
	}
	enc = encodings[c.EncodeAs]
	if enc == nil {
		err = fmt.Errorf("kruptein: unknown EncodeAs %q", c.EncodeAs)
	}
	for hashing = range hashes {
		if name := hashes[hashing].name; name == c.Hashing || c.Hashing == "" {
			return algo, hashing, enc, err
		}
	}
	return algo, 0, enc, fmt.Errorf("kruptein: unknown Hashing %q", c.Hashing)
}

// Encode encrypts doc. It fails if the Codec has no secret or a field has an unknown value.
func (c *Codec) Encode(id string, doc []byte) ([]byte, error) {
	return c.EncodeContext(context.Background(), id, doc)
}

// EncodeContext is like Encode, but ctx ends the wait for a key that another call derives.
func (c *Codec) EncodeContext(ctx context.Context, id string, doc []byte) ([]byte, error) {
	algo, hashing, enc, err := c.check()
	if err != nil {
		return nil, err
	}
	h := hashes[hashing]
	salt, key, err := c.keys.writing(ctx, try{c.secrets[0], c.PBKDF2, hashing})
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	block, err := aes.NewCipher(key[:algo.keySize])
	if err != nil {
		return nil, err
	}
	text := quote(nil, doc) // JSON within JSON, as Node writes it
	e := envelope{salt: salt}
	var ct []byte
	if algo.gcm {
		e.iv = make([]byte, gcmIV)
		rand.Read(e.iv) // never fails
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		data := aad(id, h.size)
		ct = gcm.Seal(text[:0], e.iv, text, data)
		e.aad, e.at = enc.encode(data), ct[len(ct)-tagSize:]
		ct = ct[:len(ct)-tagSize]
	} else {
		e.iv = make([]byte, aes.BlockSize)
		rand.Read(e.iv)
		pad := aes.BlockSize - len(text)%aes.BlockSize // PKCS #7
		for range pad {
			text = append(text, byte(pad))
		}
		ct = text
		cipher.NewCBCEncrypter(block, e.iv).CryptBlocks(ct, text)
	}
	e.ct = enc.encode(ct)
	e.hmac = enc.encode(sum(h.new, key[:algo.keySize], e.ct))
	if c.ASN1 {
		return e.marshalASN1(enc)
	}
	return e.marshalJSON(), nil
}

// sum returns kruptein's HMAC, which is over the encoded ciphertext, not over its bytes.
func sum(h func() hash.Hash, key []byte, text string) []byte {
	mac := hmac.New(h, key)
	io.WriteString(mac, text)
	return mac.Sum(nil)
}

// Decode decrypts a file. Every failure is a [filestore.ErrDecrypt]: kruptein did not write the file,
// no secret fits, or it was changed. A plain file is refused too. (With CBC a change of the
// initialization vector is noticed only if the result is not a session.) Decode derives at most four
// keys per secret, one of them with scrypt. It remembers 10,000 bad files, and derives nothing for them
// again.
func (c *Codec) Decode(id string, file []byte) ([]byte, error) {
	return c.DecodeContext(context.Background(), id, file)
}

// DecodeContext is like Decode, but ctx ends the wait for a turn to derive the key. The error is then
// ctx's and not an ErrDecrypt, because nothing is known about the file. A derivation that has begun runs
// to its end, and the next call finds its key.
func (c *Codec) DecodeContext(ctx context.Context, id string, file []byte) ([]byte, error) {
	if _, _, _, err := c.check(); err != nil {
		return nil, err
	}
	if iv, ok := strings.CutPrefix(string(file), "IV;"); ok && c.Legacy {
		return c.decodeLegacy(id, iv)
	}
	e, err := parse(file)
	if err != nil {
		return nil, err
	}
	key, v, err := c.open(ctx, e, file)
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	text, err := e.decrypt(key[:v.keySize], v.encoding, id)
	if err != nil {
		return nil, err
	}
	var doc string
	if text[0] != '"' || json.Unmarshal(text, &doc) != nil {
		return nil, errAltered
	}
	if e.at == nil { // with CBC only the result can show that the iv was changed
		if new(filestore.Session).UnmarshalJSON([]byte(doc)) != nil {
			return nil, errAltered
		}
	}
	return []byte(doc), nil
}

var (
	errNoEnvelope = fmt.Errorf("%w: not written by kruptein", filestore.ErrDecrypt)
	errNoSecret   = fmt.Errorf("%w: no secret fits, or it was changed", filestore.ErrDecrypt)
	errAltered    = fmt.Errorf("%w: it was changed", filestore.ErrDecrypt)
	errOtherID    = fmt.Errorf("%w: it is another session's", filestore.ErrDecrypt)
)

// A variant is what an envelope does not say about how it was made.
type variant struct {
	hashing  int
	encoding encoding
	keySize  int
}

// open finds the key and the variant of e. The length of the HMAC leaves few variants.
func (c *Codec) open(ctx context.Context, e *envelope, file []byte) (key [maxKey]byte, v variant, err error) {
	variants := e.variants()
	if len(variants) == 0 {
		return key, v, errNoEnvelope
	}
	fits := func(key *[maxKey]byte) bool {
		for _, v = range variants {
			for _, v.keySize = range []int{32, 16, 24} {
				mac := v.encoding.encode(sum(hashes[v.hashing].new, key[:v.keySize], e.ct))
				if subtle.ConstantTimeCompare([]byte(mac), []byte(e.hmac)) == 1 {
					return true
				}
			}
		}
		return false
	}
	key, ok, err := c.keys.reading(ctx, e.salt, file, c.secrets, func(secret string) []try { return c.tries(secret, variants) }, fits)
	if err != nil {
		return key, v, err
	}
	if !ok {
		return key, v, errNoSecret
	}
	return key, v, nil
}

// tries returns the ways from a secret to the key, the most likely first.
func (c *Codec) tries(secret string, variants []variant) []try {
	var slow []try
	for i, v := range variants {
		if i == 0 || v.hashing != variants[i-1].hashing {
			slow = append(slow, try{secret, true, v.hashing})
		}
	}
	fast := try{secret: secret}
	if c.PBKDF2 {
		return append(slow, fast)
	}
	return append([]try{fast}, slow...)
}

// variants returns the variants that fit the HMAC of e.
func (e *envelope) variants() (all []variant) {
	for i, h := range hashes {
		for _, enc := range []encoding{binary{}, hexadecimal{}, base64ed{}} {
			if e.enc != nil && e.enc != enc {
				continue
			}
			if mac, ok := enc.decode(e.hmac); ok && len(mac) == h.size {
				all = append(all, variant{i, enc, 0})
			}
		}
	}
	return all
}

// decrypt returns the plaintext of e. The key fits it.
func (e *envelope) decrypt(key []byte, enc encoding, id string) ([]byte, error) {
	ct, ok := enc.decode(e.ct)
	block, err := aes.NewCipher(key)
	if !ok || err != nil {
		return nil, errAltered
	}
	if e.at == nil {
		if len(ct) == 0 || len(ct)%aes.BlockSize != 0 {
			return nil, errAltered
		}
		text := make([]byte, len(ct))
		cipher.NewCBCDecrypter(block, e.iv).CryptBlocks(text, ct)
		pad := int(text[len(text)-1]) // safe to judge: the HMAC was right, so this is not a padding oracle
		text, ok := bytes.CutSuffix(text, bytes.Repeat([]byte{byte(pad)}, pad))
		if !ok || pad == 0 || pad > aes.BlockSize || len(text) == 0 {
			return nil, errAltered
		}
		return text, nil
	}
	data, ok := enc.decode(e.aad)
	if !ok {
		return nil, errAltered
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errAltered
	}
	text, err := gcm.Open(nil, e.iv, append(ct, e.at...), data)
	if err != nil || len(text) == 0 {
		return nil, errAltered
	}
	if strings.HasPrefix(string(data), bound) && len(data) <= sha512.Size && string(data) != string(aad(id, len(data))) {
		return nil, errOtherID
	}
	return text, nil
}

// decodeLegacy decrypts AES-256-CTR with the SHA-256 of secret and id as the key.
func (c *Codec) decodeLegacy(id, text string) ([]byte, error) {
	raw, ok := hexadecimal{}.decode(text)
	if !ok || len(raw) < aes.BlockSize {
		return nil, errNoEnvelope
	}
	iv, ct := raw[:aes.BlockSize], raw[aes.BlockSize:]
	for _, secret := range c.secrets {
		key := sha256.Sum256([]byte(secret + id))
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		doc := make([]byte, len(ct))
		cipher.NewCTR(block, iv).XORKeyStream(doc, ct)
		if new(filestore.Session).UnmarshalJSON(doc) == nil { // if not, it was another secret
			return doc, nil
		}
	}
	return nil, errNoSecret
}
