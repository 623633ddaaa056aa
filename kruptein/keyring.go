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
	saltSize   = 128     // of kruptein, in bytes
	filesEach  = 100_000 // files that get one salt; random nonces of 96 bits allow for far more
	maxKeys    = 10_000  // remembered
	maxRefused = 10_000  // files
)

// A try is one of the ways to a salt's key.
type try struct {
	secret  string
	pbkdf2  bool // else scrypt
	hashing int  // of PBKDF2
}

// derive takes the parameters of Node's scrypt, and kruptein's count. A shorter key is the start of a
// longer one, in both.
func (t try) derive(salt []byte) (key []byte, err error) {
	if t.pbkdf2 {
		return pbkdf2.Key(hashes[t.hashing].new, t.secret, salt, 15_000, maxKey)
	}
	return scrypt.Key([]byte(t.secret), salt, 16_384, 8, 1, maxKey)
}

// A keyring derives keys and remembers them.
type keyring struct {
	mu      sync.Mutex
	keys    *simplelru.LRU[slot, *[maxKey]byte] // those that have fitted a file
	refused map[[sha256.Size]byte]struct{}      // files that no key fits, by digest

	// A derivation holds the one that its salt falls to: those of one salt wait for the first, as after
	// a restart many files have one, and there are not many at once.
	deriving []turn

	renewing turn // held while the salt for new files is renewed
	salt     [saltSize]byte
	key      [maxKey]byte
	made     try
	left     int // files that may still get it
}

// A slot is what a key is remembered by. Who knows a secret that is still read could write a file with
// a salt of others: it must not stand in the way of theirs.
type slot struct {
	salt   [saltSize]byte
	secret string
}

// A turn is a lock that can be waited for with a context.
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
	// The one error is of a size below 1.
	k.keys, _ = simplelru.NewLRU(maxKeys, func(_ slot, key *[maxKey]byte) { clear(key[:]) })
	return k
}

// recall looks among the remembered keys for one that fits; else untried are the secrets whose key
// for salt is not known. It returns a copy: the key itself is wiped when it is dropped.
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

// reading returns the key for salt that fits, from memory or out of the tries with each secret. Only
// keys that have fitted are remembered: hostile files drive none out, and with a secret whose key is
// known no other is derived. A file that none fits is remembered too, lest each look at it cost as
// much as the first. Its error is ctx's, which ends the wait, and stops before the next derivation.
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
	key, untried, ok = k.recall(salt, secrets, fits) // whoever had the turn may have found it
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
		for any := range k.refused { // not the oldest: the reaper comes round to all in the same order
			delete(k.refused, any)
			break
		}
	}
	k.refused[digest] = struct{}{}
}

// writing returns a salt and its key for one new file.
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
