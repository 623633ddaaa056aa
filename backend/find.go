package backend

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

const findRounds = 10

// Find yields the live sessions whose member is the string or the number value, each once, as
// filestore.Store.Find does. It reads all sessions each time: the engines' formats have no room for an index.
//
// If the engine can show all sessions of one moment, as PostgreSQL and MySQL can, Find is exact. If it cannot,
// Find looks again until no id is new, at most ten times, so it can miss a session that others move to new
// ids all the time.
func (s *Store) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		if !format.ValidMember(member) {
			yield(filestore.Entry{}, s.wrap("find", "", errors.New("a member's name is empty")))
			return
		}
		keys := format.Keys(value)
		all := s.rounds
		if _, ok := s.engine.(Snapshotter); ok {
			all = s.snapshot
		}
		found, err := all(ctx, func(r Row) *result {
			sess, err := s.decode(ctx, r)
			if err == nil {
				key, ok := format.KeyOf(format.MemberOf(sess.Values, member))
				if !ok || !slices.Contains(keys, key) {
					return nil
				}
			}
			if noSession(err) {
				return nil
			}
			return &result{filestore.Entry{ID: r.ID, Session: sess}, s.wrap("find", r.ID, err)}
		})
		for _, f := range found {
			if !yield(f.Entry, f.err) {
				return
			}
		}
		if err != nil {
			yield(filestore.Entry{}, err)
		}
	}
}

// A result is what Find yields.
type result struct {
	filestore.Entry
	err error
}

// rounds returns what match makes of all sessions, page by page, without nils.
func (s *Store) rounds(ctx context.Context, match func(Row) *result) (found []*result, err error) {
	looked := make(map[string]bool)
	for round := range findRounds {
		fresh := false
		for rows, err := range s.pages(ctx, "find", round == 0) {
			if err != nil {
				return found, err
			}
			for _, r := range rows {
				if looked[r.ID] {
					continue
				}
				looked[r.ID], fresh = true, true
				if round > 0 {
					err := s.do(ctx, "find", r.ID, func(ctx context.Context) (err error) {
						r, err = s.get(ctx, r.ID)
						return err
					})
					if noSession(err) {
						continue
					}
					if err != nil {
						return found, err
					}
				}
				if f := match(r); f != nil {
					found = append(found, f)
				}
			}
		}
		if !fresh {
			break
		}
	}
	return found, nil
}

// snapshot is rounds for a Snapshotter. Not the whole has a bound, which depends on how many sessions there are,
// but each wait for the server.
func (s *Store) snapshot(ctx context.Context, match func(Row) *result) (found []*result, err error) {
	var encoded []Row // a Codec may wait for something, and the server must not wait for that
	err = s.patient(ctx, "find", func(ctx context.Context, alive func()) error {
		return s.engine.(Snapshotter).Snapshot(ctx, alive, func(r Row) {
			if !filestore.ValidID(r.ID) {
				return
			}
			if s.opts.Codec != nil {
				encoded = append(encoded, r)
			} else if f := match(r); f != nil {
				found = append(found, f)
			}
		})
	})
	if err != nil {
		return found, err
	}
	for _, r := range encoded {
		if f := match(r); f != nil {
			found = append(found, f)
		}
	}
	return found, nil
}
