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
// is none of these sessions, and is neither read nor written.
type Maps[K comparable] struct {
	Files  *filestore.Store
	Encode func(map[K]any) ([]byte, error)
	Decode func([]byte) (map[K]any, error)
}

const generationMember = "generation"

// A Copy says what session a request's map is of. It is not safe for concurrent use.
type Copy struct {
	Key  string
	Life time.Duration // as it was when the session was loaded; 0 is the store's TTL

	generation string // "" where there is no file of it yet
	data       []byte // encodes the map as it was loaded or last stored
}

// Stored reports that the session was loaded, or has been stored since.
func (c *Copy) Stored() bool { return c.generation != "" }

// Load returns the session key. It is an ErrNotFound where there is none, and where the file is
// somebody else's, and ErrCorrupt also if its bytes do not encode a map.
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

// generationOf returns key's bytes in sess, and "" if sess is no session of Maps.
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

// Present is an ErrNotFound if the session of c is gone.
func (m *Maps[K]) Present(ctx context.Context, c *Copy) error {
	now, err := m.read(ctx, c.Key)
	if err == nil && now.generation != c.generation {
		err = filestore.ErrNotFound // another one has its id
	}
	return err
}

// Create stores mine as a new session, of which c is from then on a copy. It is an fs.ErrExist where the
// key is taken.
func (m *Maps[K]) Create(ctx context.Context, c *Copy, mine map[K]any, life time.Duration) error {
	data, err := m.Encode(mine)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return m.create(ctx, c, data, life)
}

func (m *Maps[K]) create(ctx context.Context, c *Copy, data []byte, life time.Duration) error {
	sess, generation := new(filestore.Session), rand.Text()
	err := Put(sess, c.Key, data, life)
	if err == nil {
		err = sess.Put(generationMember, generation)
	}
	if err == nil {
		err = m.Files.Create(ctx, ID(c.Key), sess)
	}
	if err == nil {
		c.generation, c.data = generation, data
	}
	return err
}

// Save stores what has changed in mine since c was loaded or last saved, also in place, and gives the
// session the life anew; where nothing has changed that is all, and is spared as by Touch. It is an
// ErrNotFound if the session is gone, which stays so.
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
	if err == nil {
		c.generation, c.data = generation, data
	}
	return err
}

// Changed reports that data encode another map than that of c.
func (m *Maps[K]) Changed(c *Copy, data []byte) (bool, error) {
	_, changed, err := m.change(c, data)
	return changed, err
}

// change returns what makes the map that data encode of that of c, and whether that is anything.
func (m *Maps[K]) change(c *Copy, data []byte) (apply func(map[K]any), changed bool, err error) {
	if bytes.Equal(c.data, data) {
		return func(map[K]any) {}, false, nil
	}
	// Not the bytes are compared, as gob takes a map's members in any order, nor the request's own map,
	// whose values may be of types that encode to the same.
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
		for k := range old { // which mine has no more
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

// Move stores mine, which c is a copy of, as the session key, which must be free, and then removes c's.
// What others have changed there meanwhile is kept. If c's is gone, as by a logout, it is an ErrNotFound,
// and there is no session key either. Of several moves of one session one succeeds.
func (m *Maps[K]) Move(ctx context.Context, c *Copy, key string, mine map[K]any, life time.Duration) error {
	next := &Copy{Key: key}
	err := m.Create(ctx, next, mine, life) // first, so that whatever happens the values are in one of them
	if err == nil {
		err = m.Supersede(ctx, c, next, life)
	}
	if err == nil {
		*c = *next
	}
	return err
}

// Supersede is the second half of Move, where next has been created.
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
	if err != nil { // two ids for one session are one too many
		return errors.Join(err, Delete(ctx, m.Files, next.Key))
	}
	return nil
}

// Remove removes the session of c, be the disk full. Of several callers one does, the others get an ErrNotFound.
func (m *Maps[K]) Remove(ctx context.Context, c *Copy) error {
	_, err := m.take(ctx, c)
	if err == nil || errors.Is(err, filestore.ErrNotFound) {
		return err
	}
	return Delete(ctx, m.Files, c.Key)
}

// take removes the session of c and returns what it held: of several callers one gets it, which Get and
// Destroy could not promise.
func (m *Maps[K]) take(ctx context.Context, c *Copy) (now []byte, err error) {
	err = m.Files.Update(ctx, ID(c.Key), func(sess *filestore.Session) (err error) {
		var generation string
		if now, generation, err = generationOf(sess, c.Key); err == nil && generation != c.generation {
			err = filestore.ErrNotFound
		}
		sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil // it has ended
		return err
	})
	if err == nil {
		m.Files.Destroy(ctx, ID(c.Key)) // what fails here is left to the reaper
	}
	return now, err
}

// All yields the sessions, in no order, and what could not be read as an error.
func (m *Maps[K]) All(ctx context.Context) iter.Seq2[Entry, error] {
	return all(ctx, m.Files, func(sess *filestore.Session, key string) ([]byte, bool, error) {
		data, generation, err := generationOf(sess, key)
		return data, generation != "", err
	})
}
