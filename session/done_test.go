package session_test

import (
	"context"
	"iter"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// within a second, as Done promises; a slow machine has longer
const soon = 10 * time.Second

// waits runs a request of the session id whose handler waits for Done, and returns when that was closed.
func waits(m *session.Manager, id string, ready chan<- struct{}) (closed chan time.Time) {
	closed = make(chan time.Time, 1)
	go request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
		session.From(r).NoTouch() // or a beat would find out, after some seconds
		done := session.From(r).Done()
		ready <- struct{}{}
		select {
		case <-done:
			closed <- time.Now()
		case <-time.After(soon):
			close(closed)
		}
	})
	return closed
}

// The end of a session reaches its open connections, whoever ends it, and no others.
func TestDone(t *testing.T) {
	t.Parallel() // it waits more than it runs
	finders(t, func(t *testing.T, s session.Store) {
		ends := map[string]func(m *session.Manager, id string) error{
			"Destroy by another program": func(m *session.Manager, id string) error { return s.Destroy(ctx, id) },
			"Logout": func(m *session.Manager, id string) (err error) {
				request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Logout() })
				return err
			},
			"Renew": func(m *session.Manager, id string) (err error) {
				request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { err = session.From(r).Renew() })
				return err
			},
			"EndAll": func(m *session.Manager, id string) error { _, err := m.EndAll(ctx, "anna"); return err },
		}
		for name, end := range ends {
			for _, kind := range []string{"watched", "asked"} {
				t.Run(name+" "+kind, func(t *testing.T) {
					m := manager(s)
					if kind == "asked" {
						m.Store = unwatched{s, s.(session.Finder), s.(session.Updater)}
					}
					id, other := logIn(t, m, "anna"), logIn(t, m, "bert")
					ready := make(chan struct{}, 3)
					first, second, stays := waits(m, id, ready), waits(m, id, ready), waits(m, other, ready)
					for range 3 {
						<-ready
					}
					if err := end(m, id); err != nil {
						t.Fatal(err)
					}
					ended := time.Now()
					for _, closed := range []chan time.Time{first, second} {
						at, ok := <-closed
						if !ok {
							t.Fatal("Done was not closed")
						}
						t.Logf("after %v", at.Sub(ended))
					}
					select {
					case <-stays:
						t.Error("the end of anna's session has closed bert's Done")
					default:
					}
					if err := s.Destroy(ctx, other); err != nil {
						t.Fatal(err)
					}
					if _, ok := <-stays; !ok {
						t.Error("bert's Done was not closed")
					}
				})
			}
		}
	})
}

// An unwatched Store is not a Watcher.
type unwatched struct {
	session.Store
	session.Finder
	session.Updater
}

// Done is closed when the time of the session is over, and when its request is. A Done that nobody asks for costs
// nothing, and a new session that is not stored has not ended.
func TestDoneWithoutALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		s.Limit = 2 * time.Hour
		m := manager(s)
		id := logIn(t, m, "anna")
		begun := time.Now()
		closed := make(chan time.Time, 1)
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			<-session.From(r).Done()
			closed <- time.Now()
		})
		if d := (<-closed).Sub(begun); d < s.Limit || d > s.Limit+time.Second {
			t.Errorf("Done was closed after %v, want %v", d, s.Limit)
		}
		var done, again <-chan struct{}
		w := httptest.NewRecorder()
		var sess *session.Session
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sess = session.From(r)
			done = sess.Done()
			time.Sleep(time.Minute)
			select {
			case <-done:
				t.Error("the Done of a new session is closed")
			default:
			}
			sess.Put("a", 1)
			if err := sess.Save(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if err := sess.Renew(); err != nil { // its own Renew does not end it
				t.Error(err)
			}
			time.Sleep(time.Minute)
			select {
			case <-done:
				t.Error("the Done of a session that was stored and renewed is closed")
			default:
			}
			again = sess.Done()
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if done != again {
			t.Error("Done returns two channels")
		}
		<-done
		<-sess.Done()
		<-(*session.Session)(nil).Done()
		id = sess.ID()
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			done := session.From(r).Done()
			session.From(r).Destroy()
			<-done
		})
	})
}

// Many connections come and go beside logouts, and nothing stays behind: see TestMain.
func TestDoneManyTimes(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				id := logIn(t, m, "anna")
				ready := make(chan struct{}, 1)
				closed := waits(m, id, ready)
				<-ready
				request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Destroy() })
				if _, ok := <-closed; !ok {
					t.Error("Done was not closed")
				}
			}
		})
	}
	wg.Wait()
}

// A watch tells of an end at any time, and one that fails is made up for.
func TestDoneLater(t *testing.T) {
	s := newStore(t)
	for name, store := range map[string]session.Store{"filestore": s, "memory": sessiontest.NewStore(), "failing": failingWatch{s}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := manager(store)
			id := logIn(t, m, "anna")
			ready := make(chan struct{}, 1)
			closed := waits(m, id, ready)
			<-ready
			time.Sleep(3 * time.Second) // until the watch is trusted
			if err := store.Destroy(ctx, id); err != nil {
				t.Fatal(err)
			}
			if _, ok := <-closed; !ok {
				t.Error("Done was not closed")
			}
		})
	}
}

type failingWatch struct{ *recorder }

func (failingWatch) Watch(context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) { yield(filestore.Event{}, context.DeadlineExceeded) }
}
