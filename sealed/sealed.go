// Package sealed encrypts session files that Node need not read:
//
//	codec, err := sealed.New(key) // 32 random bytes that you keep elsewhere
//	store, err := filestore.Open(dir, &filestore.Options{Codec: codec})
//
// # What it protects from, and what not
//
// Without the key nobody can read a file, change one, or make one. A file belongs to its session:
// under another session's name it is refused. The error is then a [filestore.ErrDecrypt], and the
// file is kept. A plain file is never accepted.
//
//   - Whoever can write to the directory can put an older file of the same session back, or remove
//     one. Nobody can notice that.
//   - Ids (the files' names), times, sizes and the number of sessions are visible. An id is a
//     credential, but to make a cookie of it takes the cookie secret as well.
//   - The key, and the sessions that the store caches, are in the memory of the process.
//
// # Key management
//
// Keep the key out of the session directory and its backups. Make 32 bytes with
//
//	head -c 32 /dev/urandom >session.key
//
// or, from a passphrase, with KeyFromPassphrase. To change the key, give New the new key first and the
// old one after it: files are written with the first, and read with the key that they name. Drop an old
// key when the sessions that were last written with it have ended.
//
// # Format
//
// A file is one JSON object without white space. As it is JSON, Node's reaper does not delete it.
//
//	{"sealed":1,"key":"<16 digits>","box":"<base64url, no padding>"}
//
// box is a nonce of 24 random bytes, followed by ciphertext and tag of XChaCha20-Poly1305. The
// additional data are the file's bytes up to and including the quotation mark before box's text,
// followed by the session's id. The cipher's key (32 bytes) and the digits in "key" (8 bytes in lower
// case hexadecimal) are HKDF-Expand with SHA-256 of the key given to New, with the info "filestore
// sealed 1 cipher" and "filestore sealed 1 id". All later versions will read this form.
package sealed

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sessionfilestore/filestore"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// A Codec is a [filestore.Codec]. Make one with New. It is safe for concurrent use. Its nonces of 24
// random bytes do not repeat, however many files it writes.
type Codec struct{ *hidden }

// hidden keeps the keys behind two pointers; the second is aead's. If a Codec is an unexported field of
// another struct, fmt prints it without its Format method, and a verb that is wrong for pointers makes it
// follow one pointer.
type hidden struct {
	keys []key // the first encrypts
}

type key struct {
	prefix []byte // the beginning of a file, which names the key
	aead   cipher.AEAD
}

const suffix = `"}`

var encoding = base64.RawURLEncoding.Strict()

// New returns a Codec that encrypts with the first key and decrypts with all. A key is KeySize
// random bytes, not text. New refuses a key of another length, and a key of zeros.
func New(keys ...[]byte) (*Codec, error) {
	if len(keys) == 0 {
		return nil, errors.New("sealed: no key")
	}
	c := &Codec{new(hidden)}
	for _, secret := range keys {
		if len(secret) != KeySize {
			return nil, fmt.Errorf("sealed: a key of %d bytes, want %d", len(secret), KeySize)
		}
		if bytes.Count(secret, []byte{0}) == KeySize {
			return nil, errors.New("sealed: a key of zeros")
		}
		own, err := hkdf.Expand(sha256.New, secret, "filestore sealed 1 cipher", chacha20poly1305.KeySize)
		if err != nil {
			return nil, err
		}
		id, err := hkdf.Expand(sha256.New, secret, "filestore sealed 1 id", 8)
		if err != nil {
			return nil, err
		}
		aead, err := chacha20poly1305.NewX(own)
		if err != nil {
			return nil, err
		}
		prefix := fmt.Appendf(nil, `{"sealed":1,"key":%q,"box":"`, hex.EncodeToString(id))
		c.keys = append(c.keys, key{prefix, aead})
	}
	return c, nil
}

// KeyFromPassphrase derives a key with Argon2id, with the parameters that RFC 9106 recommends if memory
// is short: it takes about a tenth of a second and 64 MiB. The salt has at least 8 bytes. It is not a
// secret, but should be unique to the site, such as its domain name; another salt makes another key. Do
// not use a passphrase that can be guessed: whoever has a file can try one in each tenth of a second.
func KeyFromPassphrase(passphrase, salt string) ([]byte, error) {
	if passphrase == "" || len(salt) < 8 {
		return nil, errors.New("sealed: no passphrase, or a salt of less than 8 bytes")
	}
	return argon2.IDKey([]byte(passphrase), []byte(salt), 3, 64<<10, 4, KeySize), nil
}

// Format prints no keys, whatever the verb.
func (c Codec) Format(f fmt.State, _ rune) { io.WriteString(f, "sealed.Codec") }

// Encode encrypts doc for the session id.
func (c *Codec) Encode(id string, doc []byte) ([]byte, error) {
	if c.hidden == nil {
		return nil, errors.New("sealed: no key") // not made with New
	}
	k := c.keys[0]
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(doc)+k.aead.Overhead())
	rand.Read(nonce) // never fails
	box := k.aead.Seal(nonce, nonce, doc, k.additional(id))
	file := make([]byte, 0, len(k.prefix)+encoding.EncodedLen(len(box))+len(suffix))
	return append(encoding.AppendEncode(append(file, k.prefix...), box), suffix...), nil
}

func (k key) additional(id string) []byte { return append(bytes.Clone(k.prefix), id...) }

var (
	errNotSealed = fmt.Errorf("%w: not sealed, or sealed with an unknown key", filestore.ErrDecrypt)
	errChanged   = fmt.Errorf("%w: it was changed, or is another session's", filestore.ErrDecrypt)
)

// Decode decrypts the file of the session id. Every failure is a [filestore.ErrDecrypt].
func (c *Codec) Decode(id string, file []byte) ([]byte, error) {
	if c.hidden == nil {
		return nil, errNotSealed
	}
	for _, k := range c.keys {
		text, ok := bytes.CutPrefix(file, k.prefix)
		if !ok {
			continue
		}
		text, ok = bytes.CutSuffix(text, []byte(suffix))
		box, err := encoding.AppendDecode(nil, text)
		// Compare the lengths, because the decoder skips line ends.
		if !ok || err != nil || encoding.EncodedLen(len(box)) != len(text) || len(box) < k.aead.NonceSize() {
			return nil, errChanged
		}
		doc, err := k.aead.Open(nil, box[:k.aead.NonceSize()], box[k.aead.NonceSize():], k.additional(id))
		if err != nil {
			return nil, errChanged
		}
		return doc, nil
	}
	return nil, errNotSealed
}
