package index

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// A table gives each id a hash of 32 bits. It takes 29 bytes for an id of 32 letters, digits, - and _, and a few
// more of room to grow. It lies in many small pieces, so that a change of one moves little.
type table struct {
	seed   maphash.Seed
	shards [1024][]byte // records of the ids whose hash is the shard's number, with nothing between
	lost   [1024]uint32 // how often an id has lost a hash that ends in these bits
}

// A record is the id, as pack returns it, and its hash.

const hashSize = 4

// pack returns id in a form of which the first bytes tell the length: one byte and six bits a character, or, if
// it has characters for which that is not enough, a zero, a length and the id.
func pack(id string) []byte {
	b := append(make([]byte, 0, 64), byte(len(id)))
	var bits uint32
	var n int
	for i := range len(id) {
		c := code[id[i]]
		if c == 0 {
			return append(append(b[:0], 0, byte(len(id))), id...)
		}
		bits, n = bits<<6|uint32(c-1), n+6
		if n >= 8 {
			n -= 8
			b = append(b, byte(bits>>n))
		}
	}
	if n > 0 {
		b = append(b, byte(bits<<(8-n)))
	}
	return b
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// The number of each character in alphabet, and 1; 0 for all others.
var code = func() (code [256]byte) {
	for i := range len(alphabet) {
		code[alphabet[i]] = byte(i + 1)
	}
	return code
}()

// size returns how many bytes the packed id at the beginning of b has.
func size(b []byte) int {
	if b[0] == 0 {
		return 2 + int(b[1])
	}
	return 1 + (int(b[0])*6+7)/8
}

func unpack(b []byte) string {
	if b[0] == 0 {
		return string(b[2:])
	}
	id := make([]byte, 0, 256)
	var bits uint32
	var n int
	for _, c := range b[1:] {
		bits, n = bits<<8|uint32(c), n+8
		for n >= 6 && len(id) < int(b[0]) {
			n -= 6
			id = append(id, alphabet[bits>>n&63])
		}
	}
	return string(id)
}

// at returns the shard of an id, and where its hash is there; -1 if it has none.
func (t *table) at(packed []byte) (shard *[]byte, at int) {
	shard = &t.shards[maphash.Bytes(t.seed, packed)%uint64(len(t.shards))]
	for i := 0; i < len(*shard); {
		end := i + size((*shard)[i:])
		if bytes.Equal((*shard)[i:end], packed) {
			return shard, end
		}
		i = end + hashSize
	}
	return shard, -1
}

// set gives the id the hash. With keep it leaves the hash of an id that has one.
func (t *table) set(id string, hash uint32, keep bool) {
	packed := pack(id)
	shard, at := t.at(packed)
	if at >= 0 {
		if b := (*shard)[at:]; !keep && binary.NativeEndian.Uint32(b) != hash {
			t.lose(b)
			binary.NativeEndian.PutUint32(b, hash)
		}
		return
	}
	b := *shard
	if need := len(b) + len(packed) + hashSize; need > cap(b) {
		b = append(slices.Grow([]byte(nil), need+need/16), b...) // append alone would double it
	}
	*shard = binary.NativeEndian.AppendUint32(append(b, packed...), hash)
}

// drop removes the id.
func (t *table) drop(id string) {
	packed := pack(id)
	shard, at := t.at(packed)
	if at < 0 {
		return
	}
	b := *shard
	t.lose(b[at:])
	b = slices.Delete(b, at-len(packed), at+hashSize)
	if len(b) < cap(b)/4*3 {
		b = slices.Clone(b)
	}
	*shard = b
}

func (t *table) lose(hash []byte) { *t.losses(binary.NativeEndian.Uint32(hash))++ }

// losses returns the counter of the ids that have lost a hash like this one.
func (t *table) losses(hash uint32) *uint32 { return &t.lost[hash%uint32(len(t.lost))] }

// find appends the ids that have the hash.
func (t *table) find(ids []string, hash uint32) []string {
	kind, length := byte(0), 0 // of the last id: most are alike, and then the next record's place is known before this one is read
	for _, b := range &t.shards {
		for i := 0; i < len(b); {
			if b[i] != kind || kind == 0 {
				kind, length = b[i], size(b[i:])
			}
			end := i + length
			if binary.NativeEndian.Uint32(b[end:end+hashSize]) == hash {
				ids = append(ids, unpack(b[i:end]))
			}
			i = end + hashSize
		}
	}
	return ids
}
