package filestore

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"

	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/index"
)

// Find yields the live sessions whose member is the string or the number value, in no order, each once. A dot in
// member goes into objects: "passport.user" is the member user of the object passport. (So Find finds no member whose
// own name has a dot.) It looks at the application's members only, not at the cookie. Names are matched to the
// letter, and of members that occur twice the last counts. A string equals value byte for byte, a number if value is
// the JSON of exactly the same number: "42" finds "42", 42 and 4.2e1. Nothing else has a value. A member that is
// empty, or has an empty name at a dot, is an error.
//
// Find is exact. It yields each session whose Set, Create or Update has returned before the loop starts, in any
// process, also Node's, unless somebody changes or ends it meanwhile. A session that others move to a new id meanwhile
// (they create the new one first) is among them under one of its ids. Each session was read after the loop has
// started, and matched then. One that could not be read for another reason than its contents is yielded as an error,
// with an Entry that has its ID and no Session, and the loop goes on, as in All. If sessions with the value go faster
// than they can be read, Find ends with an error after a hundred attempts.
//
// The first Find of a member reads all files, and begins an index that is kept until Close: about 33 bytes for each
// session that has the member, if its id is of 32 characters. From then on each change of a session's file costs one
// more read of it. There are at most four such indexes, of the members that were used last. All share one of the
// system's watches. Each Find makes an empty file in the directory and removes it.
//
// With ReadOnly, on systems other than Linux, and if such a file cannot be made or the system has used up its watches,
// each Find lists the directory and reads all files. It lists again until no name is new, at most ten times. So it can miss a
// session that others move to new ids all the time. A change that the system tells of no directory can be found later:
// one by a memory map, or by another name of the file.
func (s *Store) Find(ctx context.Context, member, value string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if !format.ValidMember(member) {
			yield(Entry{}, wrap("find", "", errors.New("a member's name is empty")))
			return
		}
		if err := s.find(ctx, sought{member, format.Keys(value)}, yield); err != nil {
			yield(Entry{}, wrap("find", "", err))
		}
	}
}

// sought is what a Find looks for.
type sought struct {
	member string
	keys   []string
}

func (f sought) is(d *document) bool {
	key, ok := d.Key(f.member)
	return ok && slices.Contains(f.keys, key)
}

// Key makes a document an index.Doc.
func (d *document) Key(member string) (string, bool) { return d.members.Key(member) }

const (
	findRounds = 100
	scanRounds = 10 // each lists the directory
)

var errRestless = errors.New("sessions were replaced faster than they could be read")

// find returns nil also if yield has ended the loop.
func (s *Store) find(ctx context.Context, f sought, yield func(Entry, error) bool) error {
	looked := make(map[string]bool)
	scan := false
	for round := 1; ; round++ {
		var ids []string
		var again bool
		if !scan {
			err := s.within(ctx, func(p *place) (err error) {
				if err = p.there(); err == nil {
					ids, again, err = p.index.Find(ctx, f.member, f.keys)
				}
				return err
			})
			if stop := s.interrupted(ctx); stop != nil {
				return stop
			}
			if scan = err != nil; scan {
				s.tellScan(err)
				round = 1
			}
		}
		names := slices.Values(ids)
		var listErr error
		if scan {
			names = s.list(ctx, &listErr)
		}
		for id := range names {
			if looked[id] {
				continue
			}
			looked[id] = true
			again = again || scan
			sess, err := s.match(ctx, id, f)
			if stop := s.interrupted(ctx); stop != nil {
				return stop
			}
			again = again || errors.Is(err, ErrNotFound) || err == nil && sess == nil // it may have a successor
			if sess == nil && !scan {
				s.here().index.Look(id)
			}
			if err == nil && sess == nil || noSession(err) {
				continue
			}
			if !yield(Entry{id, sess}, wrap("find", id, err)) {
				return nil
			}
		}
		switch {
		case listErr != nil:
			return listErr
		case !again, scan && round == scanRounds:
			return nil
		case round == findRounds:
			return errRestless
		}
	}
}

// tellScan logs once why Find has no index, unless that was to be expected.
func (s *Store) tellScan(err error) {
	if p := s.here(); p.index != nil && errors.Is(err, index.ErrUnavailable) {
		p.scans.Do(func() {
			s.opts.Logger.Warn("filestore: find reads all sessions, as it has no index", "dir", p.dir.Path(), "err", wrap("find", "", err))
		})
	}
}

// list yields all ids.
func (s *Store) list(ctx context.Context, err *error) iter.Seq[string] {
	return func(yield func(string) bool) {
		for t, listErr := range s.targets(ctx, "find") {
			if *err = listErr; listErr != nil || !yield(t.id) {
				return
			}
		}
	}
}

// match returns the session id, or nil if it is not what f seeks.
func (s *Store) match(ctx context.Context, id string, f sought) (*Session, error) {
	p, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer p.ops.Done()
	d, err := p.peek(ctx, id)
	if err != nil || !f.is(d) {
		return nil, err
	}
	return p.session(d)
}

// peek is document for a session that may be cached, and leaves the cache as it is: a scan must not empty it.
func (p *place) peek(ctx context.Context, id string) (*document, error) {
	if err := p.claimed(id); err != nil {
		return nil, err
	}
	t := target{id: id, name: p.ext.File(id)}
	if p.cache != nil {
		t.cached, _ = p.cache.Peek(id)
	}
	return p.document(ctx, t, false)
}

// newIndex returns the place's index, which costs nothing until the first Find; nil if there cannot be one.
func (p *place) newIndex() *index.Index {
	if !index.Supported {
		return nil
	}
	return index.New(index.Source{
		Path: func() (string, error) {
			if path, ok := p.dir.PathNow(); ok {
				return path, nil
			}
			if !p.dir.InPlace() {
				return "", errReplacedDir
			}
			return p.dir.Path(), nil
		},
		Names: p.dir.Names,
		ID:    p.ext.ID,
		Mark: func(name string) error {
			if err := p.dir.MakeFile(name); err != nil {
				return err
			}
			if err := p.dir.Remove(name); !errors.Is(err, fs.ErrNotExist) { // a cleaner may have been faster
				return err
			}
			return nil
		},
		Read: func(ctx context.Context, id string) (index.Doc, error) {
			d, err := p.peek(ctx, id)
			switch {
			case err == nil && d.cookie.OriginalMaxAge < 0: // it was emptied before it goes, and may have a successor
				return nil, index.ErrGone
			case err == nil:
				return d, nil
			case err == ErrNotFound:
				return nil, index.ErrGone
			case noSession(err) && !errors.Is(err, ErrUnsafeFile): // a file may become safe by what happens elsewhere, as to another link
				return nil, nil
			}
			return nil, err
		},
	})
}
