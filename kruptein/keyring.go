package kruptein

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"runtime"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/crypto/scrypt"
)

const (
	saltSize  = 128     // of kruptein, in bytes
	filesEach = 100_000 // files that get one salt; random nonces of 96 bits allow for far more
	maxKeys   = 10_000  // remembered
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
	keys    *simplelru.LRU[[saltSize]byte, *[maxKey]byte] // those that have fitted a file, by salt
	refused *simplelru.LRU[[sha256.Size]byte, struct{}]   // files that no key fits, by digest

	// A derivation holds the one that its salt falls to: those of one salt wait for the first, as after
	// a restart many files have one, and there are not many at once.
	deriving []sync.Mutex

	renewing sync.Mutex // held while the salt for new files is renewed
	salt     [saltSize]byte
	key      [maxKey]byte
	left     int // files that may still get it
}

func newKeyring() *keyring {
	k := &keyring{deriving: make([]sync.Mutex, runtime.GOMAXPROCS(0))}
	// The one error is of a size below 1.
	k.keys, _ = simplelru.NewLRU(maxKeys, func(_ [saltSize]byte, key *[maxKey]byte) { clear(key[:]) })
	k.refused, _ = simplelru.NewLRU[[sha256.Size]byte, struct{}](maxKeys, nil)
	return k
}

// known returns a copy: the key itself is wiped when it is dropped.
func (k *keyring) known(salt [saltSize]byte) (key [maxKey]byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.keys.Get(salt)
	if ok {
		key = *p
	}
	return key, ok
}

func (k *keyring) remember(salt [saltSize]byte, key [maxKey]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys.Remove(salt)
	k.keys.Add(salt, &key)
}

// turn returns what to hold while the key for salt is derived.
func (k *keyring) turn(salt [saltSize]byte) *sync.Mutex {
	return &k.deriving[int(salt[0])%len(k.deriving)]
}

// reading returns the key for salt that fits, from memory or out of tries. Only keys that have fitted
// are remembered: hostile files drive none out, and where a salt's key is known no other is tried. A
// file that none fits is remembered too, lest each look at it cost as much as the first.
func (k *keyring) reading(salt [saltSize]byte, file []byte, tries func() []try, fits func(*[maxKey]byte) bool) (key [maxKey]byte, ok bool) {
	if key, ok = k.known(salt); ok {
		return key, fits(&key)
	}
	turn := k.turn(salt)
	turn.Lock()
	defer turn.Unlock()
	if key, ok = k.known(salt); ok {
		return key, fits(&key)
	}
	digest := sha256.Sum256(file)
	if k.isRefused(digest) {
		return key, false
	}
	for _, t := range tries() {
		derived, err := t.derive(salt[:])
		if err != nil {
			continue
		}
		copy(key[:], derived)
		clear(derived)
		if fits(&key) {
			k.remember(salt, key)
			return key, true
		}
	}
	k.refuse(digest)
	return key, false
}

func (k *keyring) isRefused(digest [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.refused.Get(digest)
	return ok
}

func (k *keyring) refuse(digest [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused.Add(digest, struct{}{})
}

// writing returns a salt and its key for one new file.
func (k *keyring) writing(t try) (salt [saltSize]byte, key [maxKey]byte, err error) {
	k.renewing.Lock()
	defer k.renewing.Unlock()
	if k.left == 0 {
		rand.Read(k.salt[:]) // never fails
		turn := k.turn(k.salt)
		turn.Lock()
		derived, err := t.derive(k.salt[:])
		turn.Unlock()
		if err != nil {
			return salt, key, err
		}
		copy(k.key[:], derived)
		clear(derived)
		k.remember(k.salt, k.key)
		k.left = filesEach
	}
	k.left--
	return k.salt, k.key, nil
}
