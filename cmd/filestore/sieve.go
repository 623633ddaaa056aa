package main

import (
	"context"
	"slices"
	"strings"
)

// cases looks for ids that differ in case only.
func (c *checker) cases(ctx context.Context) error {
	if !c.sieve.twice {
		return nil
	}
	const most = 100_000 // beyond chance: somebody makes them
	groups := make(map[string][]string)
	for name, err := range c.names(ctx) {
		if err != nil {
			return err
		}
		if id, ok := c.idOf(name); ok && c.sieve.maybe(id) && len(groups) < most {
			groups[strings.ToLower(id)] = append(groups[strings.ToLower(id)], name)
		}
	}
	for _, group := range groups {
		slices.Sort(group)
		for _, name := range group[:len(group)-1] {
			c.find(alike, name)
		}
	}
	return nil
}

// A sieve tells which ids may differ from another in case only. It takes 16 MiB for any number of ids.
type sieve struct {
	seen  []uint64 // two bits for each of slots
	twice bool
}

const slots = 1 << 26

func (s *sieve) slot(id string) (word int, shift uint) {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(id) {
		c := id[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	n := (h >> 32) % slots
	return int(n / 32), uint(n % 32 * 2)
}

func (s *sieve) add(id string) {
	if s.seen == nil {
		s.seen = make([]uint64, slots/32)
	}
	word, shift := s.slot(id)
	if s.seen[word]>>shift&1 == 1 {
		s.seen[word] |= 2 << shift
		s.twice = true
	}
	s.seen[word] |= 1 << shift
}

// maybe reports whether another id differs from id in case only, or seems to by chance.
func (s *sieve) maybe(id string) bool {
	if s.seen == nil {
		return false
	}
	word, shift := s.slot(id)
	return s.seen[word]>>shift&2 != 0
}
