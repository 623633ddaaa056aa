package kruptein

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"runtime"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/crypto/scrypt"
)

const (
	saltSize   = 128     // bytes, as kruptein writes and wants it
	filesEach  = 100_000 // files with the same salt, and so key; random nonces of 96 bits allow 2^32
	maxKeys    = 10_000  // keys remembered, of some 500 bytes each with their salts
	maxRefused = 10_000  // digests remembered of files that no key fits
)

// A try is one way to derive a salt's key.
type try struct {
	secret  string
	pbkdf2  bool // else scrypt
	hashing int  // for PBKDF2: an index into hashes
}

// derive uses the parameters of Node's scrypt, and kruptein's iteration count for PBKDF2. With both, a
// shorter key is the beginning of a longer one.
func (t try) derive(salt []byte) (key []byte, err error) {
	if t.pbkdf2 {
		return pbkdf2.Key(hashes[t.hashing].new, t.secret, salt, 15_000, maxKey)
	}
	return scrypt.Key([]byte(t.secret), salt, 16_384, 8, 1, maxKey)
}

// A keyring derives keys and remembers them.
type keyring struct {
	mu      sync.Mutex
	keys    *simplelru.LRU[slot, *[maxKey]byte] // keys that have fitted a file
	refused map[[sha256.Size]byte]struct{}      // digests of files that no key fits

	// deriving has a turn for each processor. A derivation holds the turn of its salt. So few run at
	// once, and of many files with one salt, as after a restart, the first derives the key for all.
	deriving []turn

	renewing turn // held while the salt for new files is renewed
	salt     [saltSize]byte
	key      [maxKey]byte
	made     try // how key was derived
	left     int // how many more files may use salt and key
}

// A slot identifies a remembered key. The secret is part of it: whoever knows an old secret that is still
// read could copy a salt from another file, and must not push that file's key out.
type slot struct {
	salt   [saltSize]byte
	secret string
}

// A turn is a lock. A context can end the wait for it.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) leave() { <-t }

func newKeyring() *keyring {
	k := &keyring{renewing: newTurn(), refused: make(map[[sha256.Size]byte]struct{})}
	for range runtime.GOMAXPROCS(0) {
		k.deriving = append(k.deriving, newTurn())
	}
	// NewLRU fails only for a size below 1.
	k.keys, _ = simplelru.NewLRU(maxKeys, func(_ slot, key *[maxKey]byte) { clear(key[:]) })
	return k
}

// recall looks for a remembered key that fits. If there is none, untried has the secrets whose key for
// salt is not remembered. The key is a copy, because a dropped key is wiped.
func (k *keyring) recall(salt [saltSize]byte, secrets []string, fits func(*[maxKey]byte) bool) (key [maxKey]byte, untried []string, ok bool) {
	for _, secret := range secrets {
		k.mu.Lock()
		p, known := k.keys.Get(slot{salt, secret})
		if known {
			key = *p
		}
		k.mu.Unlock()
		if known && fits(&key) {
			return key, nil, true
		}
		if !known {
			untried = append(untried, secret)
		}
	}
	return key, untried, false
}

func (k *keyring) remember(s slot, key [maxKey]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys.Remove(s)
	k.keys.Add(s, &key)
}

// reading returns the key for salt that fits, from memory or by the tries for each secret. Only keys
// that have fitted are remembered, so that hostile files push none out. A file that no key fits is
// remembered too, so that it costs only once. If ctx ends, reading stops waiting, or stops before the
// next derivation, and returns ctx's error.
func (k *keyring) reading(ctx context.Context, salt [saltSize]byte, file []byte, secrets []string, tries func(secret string) []try, fits func(*[maxKey]byte) bool) (key [maxKey]byte, ok bool, err error) {
	key, untried, ok := k.recall(salt, secrets, fits)
	if ok || len(untried) == 0 {
		return key, ok, nil
	}
	digest := sha256.Sum256(file)
	if k.isRefused(digest) {
		return key, false, nil
	}
	turn := k.deriving[int(salt[0])%len(k.deriving)]
	if err := turn.take(ctx); err != nil {
		return key, false, err
	}
	defer turn.leave()
	key, untried, ok = k.recall(salt, secrets, fits) // the holder before may have found it
	if ok || k.isRefused(digest) {
		return key, ok, nil
	}
	for _, secret := range untried {
		for _, t := range tries(secret) {
			if err := ctx.Err(); err != nil {
				return key, false, err
			}
			derived, err := t.derive(salt[:])
			if err != nil {
				continue
			}
			copy(key[:], derived)
			clear(derived)
			if fits(&key) {
				k.remember(slot{salt, secret}, key)
				return key, true, nil
			}
		}
	}
	k.refuse(digest)
	return key, false, nil
}

func (k *keyring) isRefused(digest [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.refused[digest]
	return ok
}

func (k *keyring) refuse(digest [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.refused) == maxRefused {
		for any := range k.refused { // not the oldest: the reaper reads all in the same order, and would always miss
			delete(k.refused, any)
			break
		}
	}
	k.refused[digest] = struct{}{}
}

// writing returns a salt and its key for one new file. Its error is ctx's, or derive's.
func (k *keyring) writing(ctx context.Context, t try) (salt [saltSize]byte, key [maxKey]byte, err error) {
	if err := k.renewing.take(ctx); err != nil {
		return salt, key, err
	}
	defer k.renewing.leave()
	if k.left == 0 || k.made != t {
		rand.Read(k.salt[:]) // never fails
		derived, err := t.derive(k.salt[:])
		if err != nil {
			k.left = 0
			return salt, key, err
		}
		copy(k.key[:], derived)
		clear(derived)
		k.remember(slot{k.salt, t.secret}, k.key)
		k.made, k.left = t, filesEach
	}
	k.left--
	return k.salt, k.key, nil
}
