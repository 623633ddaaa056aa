package interop

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Go and Node give a session the same end, to the second, whoever has made it and whoever uses it.
func TestEnds(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, -1)
		sites := v.sites(t, s, secret)
		for _, maxAge := range []time.Duration{0, 90*time.Second + 500*time.Millisecond, time.Hour} {
			for i, maker := range sites {
				t.Run(fmt.Sprintf("maxAge %v of %s", maxAge, maker.name), func(t *testing.T) {
					begin := []step{{"put", "views", 1}}
					life := s.TTL()
					if maxAge > 0 {
						begin, life = append(begin, step{"maxAge", maxAge.Milliseconds()}), maxAge
					}
					cookie := ""
					access := func(s site, steps ...step) {
						t.Helper()
						before := time.Now()
						a := s.run(t, cookie, steps...)
						after := time.Now()
						if cookie == "" {
							cookie = a.pair()
						}
						_, end, err := v.row(a.ID)
						if err != nil {
							t.Fatalf("after %s's %v: %v", s.name, steps, err)
						}
						if end.Before(before.Add(life-time.Second)) || end.After(after.Add(life+time.Second)) {
							t.Errorf("after %s's %v the session ends in %v, want %v", s.name, steps, end.Sub(after), life)
						}
					}
					access(maker, begin...)
					for k := range 6 {
						user := sites[(i+k+k/2)%2]
						access(user)
						access(user, step{"count", "views"})
					}
				})
			}
		}
	})
}

// keepAlive lets the site touch the session for so long. It returns when the last touch began, and whether the pauses
// between the touches have been short against its life. What follows the last one is for the caller to judge.
func (s site) keepAlive(t *testing.T, cookie string, life, during time.Duration) (last time.Time, ok bool) {
	t.Helper()
	last = time.Now()
	for begun := last; time.Since(begun) < during; time.Sleep(life / 10) {
		at := time.Now()
		s.run(t, cookie)
		if time.Since(last) > life/2 {
			return last, false
		}
		last = at
	}
	return last, true
}

// again calls fn until it reports that the machine was fast enough for sessions of that life, which gets longer.
func again(t *testing.T, fn func(life time.Duration) bool) {
	t.Helper()
	for life := 2 * time.Second; life <= 32*time.Second; life *= 2 {
		if fn(life) {
			return
		}
	}
	t.Error("the machine is too slow")
}

// A session that one side alone touches stays alive for the other, and ends when it does so no more.
func TestTouchedByOne(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		sites := v.sites(t, v.goStore(t, 0), secret)
		for i, toucher := range sites {
			other := sites[1-i]
			t.Run(toucher.name, func(t *testing.T) {
				t.Parallel()
				again(t, func(life time.Duration) bool {
					id, cookie := other.begin(t, step{"put", "user", "anna"}, step{"maxAge", life.Milliseconds()})
					last, ok := toucher.keepAlive(t, cookie, life, 2*life)
					got := other.run(t, cookie)
					if !ok || time.Since(last) > life/2 {
						return false
					}
					if got.ID != id || got.values(t)["user"] != "anna" {
						t.Errorf("%s does not know a session that %s has touched", other.name, toucher.name)
					}
					time.Sleep(life + 1600*time.Millisecond)
					for _, s := range sites {
						if got := s.run(t, cookie); got.ID == id {
							t.Errorf("%s knows a session that has ended", s.name)
						}
					}
					return true
				})
			})
		}
	})
}

// A session that was only read for longer than its maxAge has a cookie that has expired by its document. If Node then
// saves it explicitly, connect-redis destroys it. If Go has read it too, that does not happen, because Store.Touch
// renews the document.
func TestStaleExpires(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		store := v.goStore(t, 0)
		sites := v.sites(t, store, secret)
		for _, toucher := range sites {
			t.Run(toucher.name, func(t *testing.T) {
				t.Parallel()
				again(t, func(life time.Duration) bool {
					id, cookie := sites[0].begin(t, step{"put", "user", "anna"}, step{"maxAge", life.Milliseconds()})
					last, ok := toucher.keepAlive(t, cookie, life, life+life/2)
					if !ok {
						return false
					}
					before := time.Now()
					sites[0].run(t, cookie, step{"save"})
					if time.Since(before) > life/4 {
						return false
					}
					_, err := store.Get(ctx, id)
					if time.Since(last) > life/2 {
						return false
					}
					if ended := errors.Is(err, filestore.ErrNotFound); ended != (v.staleSaveEnds && toucher.name == "Node") {
						t.Errorf("after %s's touches, and a save of Node's, the session has ended: %v", toucher.name, ended)
					}
					return true
				})
			})
		}
	})
}
