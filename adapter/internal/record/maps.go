package record

// This file is for the adapters whose frameworks hand over a map of values, not bytes.

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"reflect"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Maps are sessions whose bytes encode a map. Each request has a copy of it, and stores only what it has
// changed there: the rest stays as other requests have it by then.
//
// The member "generation" of a file tells a session from a later one of the same id. A file without it
// is somebody else's, and is neither read nor written.
type Maps[K comparable] struct {
	Files  *filestore.Store
	Encode func(map[K]any) ([]byte, error)
	Decode func([]byte) (map[K]any, error)
}

const generationMember = "generation"

// A Copy says which session a request's map belongs to. It is not safe for concurrent use.
type Copy struct {
	Key  string
	Life time.Duration // as it was when the session was loaded; 0 is the store's TTL

	generation string // "" if it has no file yet
	data       []byte // encodes the map as it was loaded or last stored
}

// Stored reports that the session was loaded, or has been stored since.
func (c *Copy) Stored() bool { return c.generation != "" }

// Load returns the session key. The error is ErrNotFound if there is none, or if the file is somebody
// else's, and ErrCorrupt also if the bytes do not encode a map.
func (m *Maps[K]) Load(ctx context.Context, key string) (map[K]any, *Copy, error) {
	c, err := m.read(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	values, err := m.decode(key, c.data)
	return values, c, err
}

// read is Load without looking into the bytes.
func (m *Maps[K]) read(ctx context.Context, key string) (*Copy, error) {
	sess, err := m.Files.Get(ctx, ID(key))
	if err != nil {
		return nil, err
	}
	data, generation, err := generationOf(sess, key)
	if err == nil && generation == "" {
		err = errForeign
	}
	return &Copy{Key: key, Life: sess.Cookie.OriginalMaxAge, generation: generation, data: data}, err
}

var errForeign = fmt.Errorf("the file is somebody else's: %w", filestore.ErrNotFound)

func (m *Maps[K]) decode(key string, data []byte) (map[K]any, error) {
	if data == nil {
		return make(map[K]any), nil
	}
	values, err := m.Decode(data)
	if err != nil {
		return nil, corrupt(key, err)
	}
	if values == nil {
		values = make(map[K]any)
	}
	return values, nil
}

// generationOf returns key's bytes in sess, and "" if sess is not a session of Maps.
func generationOf(sess *filestore.Session, key string) (data []byte, generation string, err error) {
	generation, err = filestore.Value[string](sess, generationMember)
	if generation == "" || err != nil {
		return nil, "", nil
	}
	bare := filestore.Session{Values: maps.Clone(sess.Values)}
	delete(bare.Values, generationMember)
	data, ok, err := Data(&bare, key)
	if !ok {
		return nil, "", err
	}
	return data, generation, nil
}

// Present returns ErrNotFound if the session of c is gone.
func (m *Maps[K]) Present(ctx context.Context, c *Copy) error {
	now, err := m.read(ctx, c.Key)
	if err == nil && now.generation != c.generation {
		err = filestore.ErrNotFound // another one has its id
	}
	return err
}

// Create stores mine as a new session, and makes c its copy. The error is fs.ErrExist if the key is taken.
func (m *Maps[K]) Create(ctx context.Context, c *Copy, mine map[K]any, life time.Duration) error {
	data, err := m.Encode(mine)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return m.create(ctx, c, data, life)
}

func (m *Maps[K]) create(ctx context.Context, c *Copy, data []byte, life time.Duration) error {
	sess, generation := new(filestore.Session), rand.Text()
	if err := Put(sess, c.Key, data, life); err != nil {
		return err
	}
	if err := sess.Put(generationMember, generation); err != nil {
		return err
	}
	if err := m.Files.Create(ctx, ID(c.Key), sess); err != nil {
		return err
	}
	c.generation, c.data = generation, data
	return nil
}

// Save stores what has changed in mine since c was loaded or last saved, also in place, and starts the
// session's life again. If nothing has changed it only does the latter, and spares most writes as Touch does. The
// error is ErrNotFound if the session is gone, and it stays gone.
//
// A session that has no file yet gets one once mine holds a value. If another request has just made it,
// mine is merged into that.
func (m *Maps[K]) Save(ctx context.Context, c *Copy, mine map[K]any, life time.Duration) error {
	if !c.Stored() && len(mine) == 0 {
		return nil
	}
	data, err := m.Encode(mine)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	var taken error
	if !c.Stored() {
		if taken = m.create(ctx, c, data, life); !errors.Is(taken, fs.ErrExist) {
			return taken
		}
	}
	change, changed, err := m.change(c, data)
	if err != nil {
		return err
	}
	if !changed {
		return Touch(ctx, m.Files, c.Key, life)
	}
	var generation string
	err = m.Files.Update(ctx, ID(c.Key), func(sess *filestore.Session) error {
		now, found, err := generationOf(sess, c.Key)
		if err != nil {
			return err
		}
		if found == "" || c.Stored() && found != c.generation {
			return cmp.Or(taken, filestore.ErrNotFound)
		}
		generation = found
		return m.put(sess, c.Key, now, change, life)
	})
	if err != nil {
		return err
	}
	c.generation, c.data = generation, data
	return nil
}

// Now returns what the session of c holds by now. The error is ErrNotFound if it is gone. If c has no file yet, but
// another request has made one, c becomes its copy.
func (m *Maps[K]) Now(ctx context.Context, c *Copy) (map[K]any, error) {
	values, now, err := m.Load(ctx, c.Key)
	if err == nil && c.Stored() && now.generation != c.generation {
		err = filestore.ErrNotFound // another one has its id
	}
	if err != nil {
		return nil, err
	}
	*c = *now
	return values, nil
}

// Edit stores what change makes of the values that the session of c holds by now; change may be called more than
// once. If it reports that it has changed nothing, nothing is written. The session ends when it would have ended, and
// one that has no file yet gets one for life. The errors are those of Save.
func (m *Maps[K]) Edit(ctx context.Context, c *Copy, life time.Duration, change func(map[K]any) bool) error {
	err := fs.ErrExist
	for i := 0; i < 3 && errors.Is(err, fs.ErrExist); i++ { // another request may have just made it
		var values map[K]any
		values, err = m.Now(ctx, c)
		switch {
		case err == nil:
			if !change(values) {
				return nil
			}
			return m.edit(ctx, c, change)
		case c.Stored() || !errors.Is(err, filestore.ErrNotFound):
			return err
		}
		if values = make(map[K]any); !change(values) {
			return nil
		}
		err = m.Create(ctx, c, values, life)
	}
	return err
}

func (m *Maps[K]) edit(ctx context.Context, c *Copy, change func(map[K]any) bool) error {
	return m.Files.Update(ctx, ID(c.Key), func(sess *filestore.Session) error {
		now, generation, err := generationOf(sess, c.Key)
		if err == nil && generation != c.generation {
			err = filestore.ErrNotFound
		}
		if err != nil {
			return err
		}
		life := sess.Cookie.OriginalMaxAge
		if life != 0 {
			life = max(time.Until(sess.ExpiresAt(0)), time.Millisecond)
		}
		return m.put(sess, c.Key, now, func(values map[K]any) { change(values) }, life)
	})
}

// Changed reports that data encodes another map than that of c.
func (m *Maps[K]) Changed(c *Copy, data []byte) (bool, error) {
	_, changed, err := m.change(c, data)
	return changed, err
}

// change returns what turns the map of c into the map that data encodes, and whether they differ.
func (m *Maps[K]) change(c *Copy, data []byte) (apply func(map[K]any), changed bool, err error) {
	if bytes.Equal(c.data, data) {
		return func(map[K]any) {}, false, nil
	}
	// The bytes cannot be compared, as gob takes a map's members in any order, nor can the request's own map, as
	// values of other types may encode to the same.
	old, err := m.decode(c.Key, c.data)
	if err != nil {
		return nil, false, err
	}
	mine, err := m.decode(c.Key, data)
	if err != nil {
		return nil, false, err
	}
	for k, v := range old {
		if now, ok := mine[k]; ok {
			delete(old, k)
			if reflect.DeepEqual(now, v) {
				delete(mine, k)
			}
		}
	}
	return func(values map[K]any) {
		for k := range old { // mine does not have these any more
			delete(values, k)
		}
		maps.Copy(values, mine)
	}, len(old)+len(mine) > 0, nil
}

// put stores in sess what change makes of data, and leaves the generation as it is.
func (m *Maps[K]) put(sess *filestore.Session, key string, data []byte, change func(map[K]any), life time.Duration) error {
	values, err := m.decode(key, data)
	if err != nil {
		return err
	}
	change(values)
	if data, err = m.Encode(values); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return Put(sess, key, data, life)
}

// Move stores mine as the session key, which must be free, and then removes the session of c. What others have
// changed there meanwhile is kept. If the session of c is gone, as after a logout, the error is ErrNotFound, and
// there is no session key either. If several requests move one session, one succeeds.
func (m *Maps[K]) Move(ctx context.Context, c *Copy, key string, mine map[K]any, life time.Duration) error {
	next := &Copy{Key: key}
	if err := m.Create(ctx, next, mine, life); err != nil { // first, so that the values are always in one of them
		return err
	}
	if err := m.Supersede(ctx, c, next, life); err != nil {
		return err
	}
	*c = *next
	return nil
}

// Supersede is the second half of Move: next has been created.
func (m *Maps[K]) Supersede(ctx context.Context, old, next *Copy, life time.Duration) error {
	now, err := m.take(ctx, old)
	if err == nil && !bytes.Equal(now, old.data) {
		var change func(map[K]any)
		if change, _, err = m.change(old, next.data); err == nil {
			err = m.Files.Update(ctx, ID(next.Key), func(sess *filestore.Session) error {
				return m.put(sess, next.Key, now, change, life)
			})
		}
	}
	if err != nil { // a session must not have two ids
		return errors.Join(err, Delete(ctx, m.Files, next.Key))
	}
	return nil
}

// Remove removes the session of c, even if the disk is full. If several callers do so at once, one succeeds, and
// the others get ErrNotFound.
func (m *Maps[K]) Remove(ctx context.Context, c *Copy) error {
	_, err := m.take(ctx, c)
	if err == nil || errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	return Delete(ctx, m.Files, c.Key)
}

// take removes the session of c and returns what it held. If several callers do so at once, one gets it: Get and
// Destroy could not promise that.
func (m *Maps[K]) take(ctx context.Context, c *Copy) (now []byte, err error) {
	err = m.Files.Update(ctx, ID(c.Key), func(sess *filestore.Session) (err error) {
		var generation string
		if now, generation, err = generationOf(sess, c.Key); err == nil && generation != c.generation {
			err = filestore.ErrNotFound
		}
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil // it has ended
		return err
	})
	if err != nil {
		return nil, err
	}
	m.Files.Destroy(ctx, ID(c.Key)) // what fails here is left to the reaper
	return now, nil
}

// All yields the sessions, in no order, and what could not be read as an error.
func (m *Maps[K]) All(ctx context.Context) iter.Seq2[Entry, error] {
	return all(ctx, m.Files, func(sess *filestore.Session, key string) ([]byte, bool, error) {
		data, generation, err := generationOf(sess, key)
		return data, generation != "", err
	})
}
