package main

import (
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/sealed"
)

// encrypted measures the Codecs beside session-file-store with a secret. They flush, as it does. A cold
// Codec has never seen the key of the file: the program has just started, or Node wrote the file.
func (t *table) encrypted(e *env) error {
	if !opsOnly.MatchString("Get, encrypted") && !opsOnly.MatchString("Set over, encrypted, durable") {
		return nil
	}
	const secret = "keyboard cat"
	key, err := sealed.KeyFromPassphrase(secret, "filestore bench")
	if err != nil {
		return err
	}
	box, err := sealed.New(key)
	if err != nil {
		return err
	}
	warm := kruptein.New(secret)
	all := ids(0, 64)
	both, err := e.newDir() // for kruptein and Node
	if err != nil {
		return err
	}
	own, err := e.newDir()
	if err != nil {
		return err
	}
	var gets, sets []*entry
	for _, c := range []struct {
		name, dir string
		opts      filestore.Options
	}{
		{"kruptein", both, filestore.Options{Codec: warm}},
		{"kruptein, no cache", both, filestore.Options{Codec: warm, CacheSize: -1}},
		{"kruptein NoSync", both, filestore.Options{Codec: warm, NoSync: true}},
		{"sealed", own, filestore.Options{Codec: box}},
		{"sealed, no cache", own, filestore.Options{Codec: box, CacheSize: -1}},
	} {
		s, err := filestoreWith(c.dir, c.opts)
		if err != nil {
			return err
		}
		defer s.close()
		if _, err := s.do("set", all); err != nil {
			return err
		}
		time.Sleep(settled)
		if _, err := s.do("get", all); err != nil {
			return err
		}
		if !c.opts.NoSync {
			gets = append(gets, &entry{name: c.name, run: func(n int) (time.Duration, error) { return s.do("get", pick(all, n)) }})
		}
		if c.opts.CacheSize == 0 {
			sets = append(sets, &entry{name: c.name, run: func(n int) (time.Duration, error) { return s.do("set", pick(all, n)) }})
		}
	}
	cold := func(op string) func(int) (time.Duration, error) {
		return func(n int) (total time.Duration, err error) {
			for range n {
				s, err := filestoreWith(both, filestore.Options{Codec: kruptein.New(secret), CacheSize: -1})
				if err != nil {
					return 0, err
				}
				took, err := s.do(op, pick(all, 1))
				s.close()
				if err != nil {
					return 0, err
				}
				total += took
			}
			return total, nil
		}
	}
	gets = append(gets, &entry{name: "kruptein, cold", run: cold("get"), max: 4})
	sets = append(sets, &entry{name: "kruptein, cold", run: cold("set"), max: 4})
	if peersOnly.MatchString("session-file-store") {
		node, err := nodeIn(both, secret)
		if err != nil {
			return err
		}
		defer node.close()
		gets = append(gets, &entry{name: "session-file-store", max: 4, run: func(n int) (time.Duration, error) { return node.do("get", pick(all, n)) }})
		sets = append(sets, &entry{name: "session-file-store", max: 4, run: func(n int) (time.Duration, error) { return node.do("set", pick(all, n)) }})
	}
	t.batches("Get, encrypted", "kruptein, no cache", gets)
	t.batches("Set over, encrypted, durable", "kruptein", sets)
	return nil
}
