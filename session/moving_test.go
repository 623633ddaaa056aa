package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

func TestMovingStore(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store {
		return session.Moving(sessiontest.NewStore(), sessiontest.NewStore())
	})
}

// A stepper calls before ahead of each operation on its Store that changes something.
type stepper struct {
	*sessiontest.Store
	before func()
}

func (s stepper) Create(ctx context.Context, id string, sess *filestore.Session) error {
	s.before()
	return s.Store.Create(ctx, id, sess)
}

func (s stepper) Update(ctx context.Context, id string, fn func(*filestore.Session) error) error {
	s.before()
	return s.Store.Update(ctx, id, fn)
}

func (s stepper) Destroy(ctx context.Context, id string) error {
	s.before()
	return s.Store.Destroy(ctx, id)
}

var errKilled = errors.New("killed")

// Whatever step of a move others come between, or somebody dies at: a session that was destroyed stays destroyed, a
// change that was acknowledged stays, and nobody who has not logged out is logged out.
func TestMovingSteps(t *testing.T) {
	for _, tt := range []struct {
		what      string
		do        func(others *session.MovingStore, from, to *sessiontest.Store) error
		n         string // the member at the end
		destroyed bool
	}{
		{"Destroy", func(s *session.MovingStore, _, _ *sessiontest.Store) error { return s.Destroy(ctx, "a") }, "", true},
		{"Get", func(s *session.MovingStore, _, _ *sessiontest.Store) error {
			_, err := s.Get(ctx, "a")
			return err
		}, "1", false},
		{"Touch", func(s *session.MovingStore, _, _ *sessiontest.Store) error { return s.Touch(ctx, "a", nil) }, "1", false},
		{"Update", func(s *session.MovingStore, _, _ *sessiontest.Store) error {
			return s.Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("n", 2) })
		}, "2", false},
		{"Set", func(s *session.MovingStore, _, _ *sessiontest.Store) error {
			sess := new(filestore.Session)
			sess.Put("user", "anna")
			sess.Put("n", 3)
			return s.Set(ctx, "a", sess)
		}, "3", false},
		{"Get and Destroy", func(s *session.MovingStore, _, _ *sessiontest.Store) error {
			_, err := s.Get(ctx, "a")
			return errors.Join(err, s.Destroy(ctx, "a"))
		}, "", true},
		{"Find", func(s *session.MovingStore, _, _ *sessiontest.Store) error {
			if ids := foundIDs(s, "anna"); !slices.Equal(ids, []string{"a"}) {
				return fmt.Errorf("Find finds %q", ids)
			}
			return nil
		}, "1", false},
		{"nothing", func(*session.MovingStore, *sessiontest.Store, *sessiontest.Store) error { return nil }, "1", false},
	} {
		for _, dies := range []bool{false, true} {
			for pause := 1; ; pause++ {
				from, to := sessiontest.NewStore(), sessiontest.NewStore()
				old := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/"}, LastAccess: time.Now().Add(-30 * time.Minute), NoTouch: true}
				old.Put("user", "anna")
				old.Put("n", 1)
				if err := from.Set(ctx, "a", old); err != nil {
					t.Fatal(err)
				}
				others := session.Moving(to, from)
				name := fmt.Sprintf("%s at step %d, dies: %v", tt.what, pause, dies)
				check := func(when string) {
					t.Helper()
					sess, err := others.Get(ctx, "a")
					if tt.destroyed {
						if !errors.Is(err, filestore.ErrNotFound) || len(foundIDs(others, "anna")) > 0 {
							t.Errorf("%s, %s: Get = %v, %v; Find = %q", name, when, sess, err, foundIDs(others, "anna"))
						}
						return
					}
					if err != nil || string(sess.Values["n"]) != tt.n || string(sess.Values["user"]) != `"anna"` || len(sess.Values) != 2 {
						t.Errorf("%s, %s: Get = %+v, %v", name, when, sess, err)
						return
					}
					if ends := time.Until(sess.ExpiresAt(time.Hour)); (tt.n == "1" && tt.what != "Touch") != (ends < 31*time.Minute) {
						t.Errorf("%s, %s: it ends in %v", name, when, ends)
					}
				}
				steps := 0
				mover := session.Moving(stepper{to, nil}, stepper{from, nil})
				step := func() {
					if steps++; steps != pause {
						return
					}
					if err := tt.do(others, from, to); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					if tt.what != "nothing" {
						check("before it goes on")
					}
					if dies {
						panic(errKilled)
					}
				}
				mover = session.Moving(stepper{to, step}, stepper{from, step})
				func() {
					defer func() {
						if v := recover(); v != nil && v != errKilled {
							panic(v)
						}
					}()
					if _, err := mover.Get(ctx, "a"); err != nil && !tt.destroyed {
						t.Errorf("%s: the mover's Get = %v", name, err)
					}
				}()
				if steps < pause {
					if pause != 5 {
						t.Errorf("%s: a move has %d steps", tt.what, steps)
					}
					break
				}
				check("at the end")
				if sess, err := from.Get(ctx, "a"); err == nil && len(sess.Values) > 1 {
					t.Errorf("%s: the old Store still has %s", name, sess.Values)
				}
				// Whoever uses the new Store alone from now on sees no user who has logged out.
				if sess, err := to.Get(ctx, "a"); tt.destroyed && err == nil && (sess.Values["user"] != nil || !dies) {
					t.Errorf("%s: the new Store has %s", name, sess.Values)
				}
			}
		}
	}
}

// A change that a program with the old Store alone makes while the session is copied moves too.
func TestMovingChanged(t *testing.T) {
	from, to := sessiontest.NewStore(), sessiontest.NewStore()
	set := func(n int) {
		sess := new(filestore.Session)
		sess.Put("n", n)
		if err := from.Set(ctx, "a", sess); err != nil {
			t.Fatal(err)
		}
	}
	set(1)
	steps := 0
	mover := session.Moving(to, stepper{from, func() {
		if steps++; steps <= 2 {
			set(1 + steps)
		}
	}})
	if sess, err := mover.Get(ctx, "a"); err != nil || string(sess.Values["n"]) != "3" || len(sess.Values) != 1 {
		t.Errorf("Get = %v, %v", sess, err)
	}
}

// A move between the two steps of a Destroy does not bring the session back.
func TestMovingWithinDestroy(t *testing.T) {
	for pause := 1; pause <= 2; pause++ {
		from, to := sessiontest.NewStore(), sessiontest.NewStore()
		if err := from.Set(ctx, "a", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		others := session.Moving(to, from)
		steps := 0
		step := func() {
			if steps++; steps == pause {
				others.Get(ctx, "a")
			}
		}
		if err := session.Moving(stepper{to, step}, stepper{from, step}).Destroy(ctx, "a"); err != nil || steps != 2 {
			t.Errorf("Destroy = %v, in %d steps", err, steps)
		}
		if sess, err := others.Get(ctx, "a"); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("after a Destroy with a move at step %d: %v, %v", pause, sess, err)
		}
	}
}

func foundIDs(s session.Finder, user string) (ids []string) {
	for e, err := range s.Find(ctx, "user", user) {
		if err != nil {
			return []string{err.Error()}
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// Beside many who move at once, and log out, and change, from files to another Store, each change counts once.
func TestMovingBeside(t *testing.T) {
	for round := range storetest.Brief(5, 20) {
		from, to := newStore(t), newStore(t)
		sess := new(filestore.Session)
		sess.Put("n", 0)
		if err := from.Set(ctx, "a", sess); err != nil {
			t.Fatal(err)
		}
		movers := []*session.MovingStore{session.Moving(to, from), session.Moving(to, from)}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for range 5 {
					if err := movers[i%2].Update(ctx, "a", func(sess *filestore.Session) error {
						n, err := filestore.Value[int](sess, "n")
						return errors.Join(err, sess.Put("n", n+1))
					}); err != nil {
						t.Errorf("Update = %v", err)
					}
				}
			})
		}
		wg.Wait()
		if sess, err := to.Get(ctx, "a"); err != nil || string(sess.Values["n"]) != "40" {
			t.Fatalf("round %d: after 40 Updates the session is %v, %v", round, sess, err)
		}
		if _, err := from.Get(ctx, "a"); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("round %d: the old Store: %v", round, err)
		}
		wg.Go(func() { movers[0].Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("n", 0) }) })
		if err := movers[1].Destroy(ctx, "a"); err != nil {
			t.Errorf("Destroy = %v", err)
		}
		wg.Wait()
		if _, err := movers[0].Get(ctx, "a"); !errors.Is(err, filestore.ErrNotFound) {
			t.Fatalf("round %d: after Destroy: %v", round, err)
		}
	}
}
