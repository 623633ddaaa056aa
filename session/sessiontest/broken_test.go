package sessiontest_test

import (
	"context"
	"encoding/json"
	"iter"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// defective are Stores that each break one promise of an optional interface.
var defective = map[string]func() session.Store{
	"Create begins anew":        func() session.Store { return createAnew{limited()} },
	"Update keeps no Created":   func() session.Store { return updateAnew{limited()} },
	"Touch keeps no Created":    func() session.Store { return touchAnew{limited()} },
	"Set keeps no Created":      func() session.Store { return setAnew{limited()} },
	"Touch ignores Lifetime":    func() session.Store { return touchLong{limited()} },
	"Find ignores Lifetime":     func() session.Store { return findAll{limited(), false} },
	"Find yields expired":       func() session.Store { return findAll{sessiontest.NewStore(), true} },
	"Find goes on after false":  func() session.Store { return findOn{sessiontest.NewStore()} },
	"Find without Created":      func() session.Store { return findBare{sessiontest.NewStore(), "created"} },
	"Find without other values": func() session.Store { return findBare{sessiontest.NewStore(), "values"} },
	"Find without cookie":       func() session.Store { return findBare{sessiontest.NewStore(), "cookie"} },
	"Find twice":                func() session.Store { return findTwice{sessiontest.NewStore()} },
	"Find folds case":           func() session.Store { return findFold{sessiontest.NewStore()} },
	"Find lags":                 func() session.Store { return &findLag{Store: sessiontest.NewStore()} },
	"NoTouch stays":             func() session.Store { return noTouchStays{sessiontest.NewStore()} },
	"NoTouch touches":           func() session.Store { return noTouchTouches{sessiontest.NewStore()} },
	"Watch knows no Destroy":    func() session.Store { return watchSome{sessiontest.NewStore(), filestore.Destroyed} },
	"Watch knows no change":     func() session.Store { return watchSome{sessiontest.NewStore(), filestore.Changed} },
	"Watch ends at once":        func() session.Store { return watchEnds{sessiontest.NewStore()} },
	"Watch after false":         func() session.Store { return watchOn{sessiontest.NewStore()} },
	"Lifetime is negative":      func() session.Store { s := sessiontest.NewStore(); s.Limit = -1; return s },
}

func limited() *sessiontest.Store {
	s := sessiontest.NewStore()
	s.Limit = time.Hour
	return s
}

type createAnew struct{ *sessiontest.Store }

func (s createAnew) Create(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess
	own.Created = time.Time{}
	return s.Store.Create(ctx, id, &own)
}

type setAnew struct{ *sessiontest.Store }

func (s setAnew) Set(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess
	own.Created = time.Time{}
	return s.Store.Set(ctx, id, &own)
}

type updateAnew struct{ *sessiontest.Store }

func (s updateAnew) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	return s.Store.Update(ctx, id, func(sess *filestore.Session) error {
		sess.Created = time.Time{}
		return fn(sess)
	})
}

type touchAnew struct{ *sessiontest.Store }

func (s touchAnew) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	return s.Store.Update(ctx, id, func(sess *filestore.Session) error {
		sess.Created = time.Time{}
		if c != nil {
			sess.Cookie = *c
		} else if sess.Cookie.OriginalMaxAge != 0 {
			sess.Cookie.Expires = time.Now().Add(sess.Cookie.OriginalMaxAge)
		}
		return nil
	})
}

// touchLong gives the cookie more than the Lifetime.
type touchLong struct{ *sessiontest.Store }

func (s touchLong) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	return s.Store.Update(ctx, id, func(sess *filestore.Session) error {
		if c != nil {
			sess.Cookie = *c
		} else if sess.Cookie.OriginalMaxAge != 0 {
			sess.Cookie.Expires = time.Now().Add(sess.Cookie.OriginalMaxAge)
		}
		return nil
	})
}

var seen sync.Map // *sessiontest.Store: map of what was ever stored

// findAll also yields what has expired, or only what is over its Lifetime.
type findAll struct {
	*sessiontest.Store
	expired bool
}

func (s findAll) Set(ctx context.Context, id string, sess *filestore.Session) error {
	own := *sess
	m, _ := seen.LoadOrStore(s.Store, new(sync.Map))
	m.(*sync.Map).Store(id, &own)
	return s.Store.Set(ctx, id, sess)
}

func (s findAll) Destroy(ctx context.Context, id string) error {
	if m, ok := seen.Load(s.Store); ok {
		m.(*sync.Map).Delete(id)
	}
	return s.Store.Destroy(ctx, id)
}

func (s findAll) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Find(ctx, member, value) {
			if !yield(e, err) {
				return
			}
		}
		m, ok := seen.Load(s.Store)
		if !ok {
			return
		}
		m.(*sync.Map).Range(func(id, v any) bool {
			sess := v.(*filestore.Session)
			over := sess.Cookie.OriginalMaxAge < 0
			if !s.expired {
				over = !over && !sess.Created.IsZero() && time.Since(sess.Created) > s.Limit
			}
			if over && string(sess.Values[member]) == `"`+value+`"` {
				return yield(filestore.Entry{ID: id.(string), Session: sess}, nil)
			}
			return true
		})
	}
}

type findOn struct{ *sessiontest.Store }

func (s findOn) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Find(ctx, member, value) {
			yield(e, err)
		}
		for e, err := range s.Store.Find(ctx, "no", "no") {
			yield(e, err)
		}
	}
}

type findBare struct {
	*sessiontest.Store
	without string
}

func (s findBare) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for e, err := range s.Store.Find(ctx, member, value) {
			switch s.without {
			case "created":
				e.Session.Created = time.Time{}
			case "cookie":
				e.Session.Cookie = filestore.Cookie{OriginalMaxAge: e.Session.Cookie.OriginalMaxAge}
			default:
				head, _, _ := strings.Cut(member, ".")
				e.Session.Values = map[string]json.RawMessage{head: e.Session.Values[head]}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

type findTwice struct{ *sessiontest.Store }

func (s findTwice) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		for range 2 {
			for e, err := range s.Store.Find(ctx, member, value) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

type findFold struct{ *sessiontest.Store }

func (s findFold) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		values := map[string]bool{value: true, strings.ToLower(value): true, strings.ToUpper(value[:1]) + value[1:]: true}
		for v := range values {
			for e, err := range s.Store.Find(ctx, member, v) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// findLag answers with what the last Find of this member and value, if any, knew.
type findLag struct {
	*sessiontest.Store
	last sync.Map
}

func (s *findLag) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	var now []filestore.Entry
	for e := range s.Store.Find(ctx, member, value) {
		now = append(now, e)
	}
	was, ok := s.last.Swap(member+" "+value, now)
	return func(yield func(filestore.Entry, error) bool) {
		if ok {
			now = was.([]filestore.Entry)
		}
		for _, e := range now {
			if !yield(e, nil) {
				return
			}
		}
	}
}

type noTouchStays struct{ *sessiontest.Store }

func (s noTouchStays) Get(ctx context.Context, id string) (*filestore.Session, error) {
	sess, err := s.Store.Get(ctx, id)
	if err == nil {
		sess.NoTouch = true
	}
	return sess, err
}

type noTouchTouches struct{ *sessiontest.Store }

func (s noTouchTouches) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	return s.Store.Update(ctx, id, func(sess *filestore.Session) error {
		err := fn(sess)
		sess.NoTouch = false
		return err
	})
}

type watchSome struct {
	*sessiontest.Store
	not filestore.Op
}

func (s watchSome) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {
		for e, err := range s.Store.Watch(ctx) {
			if e.Op != s.not && !yield(e, err) {
				return
			}
		}
	}
}

type watchEnds struct{ *sessiontest.Store }

func (s watchEnds) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {}
}

type watchOn struct{ *sessiontest.Store }

func (s watchOn) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {
		for e, err := range s.Store.Watch(ctx) {
			yield(e, err)
		}
	}
}

// Run finds a defect in each of the broken Stores.
func TestRunFindsDefects(t *testing.T) {
	if name := os.Getenv("BROKEN"); name != "" {
		sessiontest.Run(t, func(t *testing.T) session.Store { return defective[name]() })
		return
	}
	t.Parallel()
	var all sync.WaitGroup // not as parallel tests, of which few run at once: these mostly sleep
	for name := range defective {
		all.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRunFindsDefects$", "-test.timeout=60s", "-test.parallel=100")
			cmd.Env = append(os.Environ(), "BROKEN="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("Run passes a Store of which is true: %s\n%s", name, out)
			}
		})
	}
	all.Wait()
}
