// Package sealed encrypts session files, where Node need not read them:
//
//	codec, err := sealed.New(key) // 32 random bytes that you keep elsewhere
//	store, err := filestore.Open(dir, &filestore.Options{Codec: codec})
//
// # What it protects from, and what not
//
// Without the key nobody can read a file, change one, or make one. A file belongs to its session:
// under another session's name it is refused. What is refused is a [filestore.ErrDecrypt], and the
// file is kept. Nothing is ever read as plain text.
//
//   - Who can write to the directory can put an older file of the same session back, or remove one.
//     That cannot be noticed.
//   - Ids, which are the files' names, times, sizes and the number of sessions are there to see. An id
//     is a credential: it takes the secret of the cookies as well to make a cookie of it.
//   - The key, and the sessions that the store caches, are in the memory of the process.
//
// # Key management
//
// Keep the key out of the session directory and its backups: 32 bytes of
//
//	head -c 32 /dev/urandom >session.key
//
// or, from a passphrase, KeyFromPassphrase. To change it, give New the new key first and the old one
// after it; files are written with the first, and read with whichever they name. An old key can go
// when the sessions that were last written with it have ended.
//
// # Format
//
// A file is one JSON object, without space, so that a reaper of Node's that meets one keeps it:
//
//	{"sealed":1,"key":"<16 digits>","box":"<base64url, no padding>"}
//
// box is the nonce of 24 random bytes and the ciphertext with its tag, of XChaCha20-Poly1305; its
// additional data are the file's bytes up to and with the quotation mark before box's text, and the
// session's id. The cipher's key, 32 bytes, and the digits in "key", 8 bytes in small hexadecimal, are
// HKDF-Expand with SHA-256 of the key given to New with the info "filestore sealed 1 cipher" and
// "filestore sealed 1 id". Files of this form will be read by any later version.
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

// A Codec is a [filestore.Codec]. Make one with New. It is safe for concurrent use. A random nonce
// of 24 bytes is new for any number of files.
type Codec struct{ *hidden }

// What is hidden stands behind two pointers, of which aead's is one: as an unexported field of something
// else fmt prints a Codec without its Format method, and follows one pointer, with a verb that is wrong
// for pointers.
type hidden struct {
	keys []key // the first encrypts
}

type key struct {
	prefix []byte // of a file; names the key
	aead   cipher.AEAD
}

const suffix = `"}`

var encoding = base64.RawURLEncoding.Strict()

// New returns a Codec that encrypts with the first key and decrypts with all. A key is KeySize
// bytes of chance, not text; New refuses one of another length, and one of zeros.
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

// KeyFromPassphrase derives a key with Argon2id, as RFC 9106 recommends where memory is short: it
// takes about a tenth of a second and 64 MiB. The salt, of at least 8 bytes, is no secret, but of
// this site alone, such as its domain name; with another salt the key is another. A passphrase that
// can be guessed is no key: who has a file can try as many as the tenth of a second allows.
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
	errNotSealed = fmt.Errorf("%w: not sealed, or with an unknown key", filestore.ErrDecrypt)
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
		// The length leaves out line ends, which the decoder skips.
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
