package interop

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// A request of Go's that is under way does not bring back a session that either side has destroyed meanwhile. One of
// Node's does so if it has changed the session: that is the limit of sharing with express-session, which stores whole
// sessions whether or not there is one.
func TestLogoutBesideSlowRequest(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, 0)
		sites := v.sites(t, s, secret)
		for _, slow := range sites {
			for _, quick := range sites {
				for _, then := range [][]step{nil, {{"put", "late", 1}}, {{"put", "late", 1}, {"save"}}, {{"count", "views"}}, {{"maxAge", 60_000}}, {{"delete", "user"}}} {
					id, cookie := sites[0].begin(t, step{"put", "user", "anna"}, step{"put", "views", 1})
					what := fmt.Sprintf("a logout by %s, beside a request of %s that then does %v", quick.name, slow.name, then)
					steps := append([]step{{"meanwhile", quick.address(step{"destroy"}), cookie}}, then...)
					a, err := slow.try(cookie, steps...)
					if len(then) == 2 && slow.name == "Go" { // Save
						if a.Status != http.StatusInternalServerError || !strings.Contains(a.Error, filestore.ErrNotFound.Error()) {
							t.Errorf("after %s Save says %d %q, want ErrNotFound", what, a.Status, a.Error)
						}
					} else if err != nil || a.Status != http.StatusOK {
						t.Errorf("after %s: %d %s, %v", what, a.Status, a.Error, err)
					}
					_, err = s.Get(ctx, id)
					if err != nil && !errors.Is(err, filestore.ErrNotFound) {
						t.Fatal(err)
					}
					revives := slow.name == "Node" && then != nil && then[0][0] != "maxAge" // which Node does not store alone
					if lives := err == nil; lives != revives {
						t.Errorf("after %s the session is there: %v, want %v", what, lives, revives)
					}
				}
			}
		}
	})
}

var workers = map[string]func(args []string){"slow requests": slowRequests}

// What a slow request does with its session after it was ended elsewhere.
var late = map[string]func(s *session.Session) error{
	"nothing":    func(*session.Session) error { return nil },
	"Put":        func(s *session.Session) error { return s.Put("late", 1) },
	"Save":       func(s *session.Session) error { return errors.Join(s.Put("late", 1), s.Save()) },
	"maxAge":     func(s *session.Session) error { s.Cookie.OriginalMaxAge = time.Minute; return nil },
	"Renew":      (*session.Session).Renew,
	"Regenerate": (*session.Session).Regenerate,
}

// request serves one request with the session id.
func request(m *session.Manager, id string, fn http.HandlerFunc) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "connect.sid="+url.QueryEscape("s:"+session.Sign(id, secret)))
	m.Handler(fn).ServeHTTP(httptest.NewRecorder(), r)
}

// slowRequests is another process, on the engine and the server that args name. A line has an id and a key of late. It
// answers when the session is loaded, and, when it was told to go on and the request is over, with the session's id.
func slowRequests(args []string) {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	for _, e := range engines {
		if e.name != args[0] {
			continue
		}
		db, err := e.open(args[1])
		fatal(err)
		s, err := db.open(-1)
		fatal(err)
		m := &session.Manager{Store: s, Secrets: []string{secret}}
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			id, does, _ := strings.Cut(in.Text(), " ")
			request(m, id, func(w http.ResponseWriter, r *http.Request) {
				fmt.Println("loaded")
				in.Scan()
				if err := late[does](session.From(r)); !errors.Is(err, filestore.ErrNotFound) {
					fatal(err)
				}
				id = session.From(r).ID()
			})
			fmt.Println(id)
		}
	}
}

// No slow request, in this process or in another, brings back what a logout has ended, nor its values under a new id, in
// whatever order their steps come.
func TestLogoutsBesideSlowRequests(t *testing.T) {
	each(t, func(t *testing.T, v *env) {
		s := v.goStore(t, -1)
		m := &session.Manager{Store: s, Secrets: []string{secret}}
		near := &session.Manager{Store: v.goStore(t, -1), Secrets: []string{secret}}
		far := storetest.Start(t, "slow requests", v.name, v.addr)
		does := slices.Sorted(maps.Keys(late))
		over := make(map[string]bool) // users that have logged out
		rounds := storetest.Long(200, 2000)
		for round := range rounds {
			user, id := fmt.Sprint("user", round), ""
			request(m, "", func(_ http.ResponseWriter, r *http.Request) {
				must(t, session.From(r).Login(user))
				id = session.From(r).ID()
			})
			farDoes, nearDoes := does[round%len(does)], does[round/len(does)%len(does)]
			fmt.Fprintln(far.Stdin, id, farDoes)
			if got := far.Line(t); got != "loaded" {
				t.Fatalf("the other process says %q", got)
			}
			loaded, goOn, nearID := make(chan bool), make(chan bool), ""
			var wg sync.WaitGroup
			wg.Go(func() {
				request(near, id, func(_ http.ResponseWriter, r *http.Request) {
					loaded <- true
					<-goOn
					if err := late[nearDoes](session.From(r)); err != nil && !errors.Is(err, filestore.ErrNotFound) {
						t.Errorf("%s = %v", nearDoes, err)
					}
					nearID = session.From(r).ID()
				})
			})
			<-loaded
			fmt.Fprintln(far.Stdin, "go on")
			goOn <- true
			pause := time.Duration(round%20) * 50 * time.Microsecond
			for begun := time.Now(); time.Since(begun) < pause; { // a timer would be too slow
			}
			loggedOut := false
			request(m, id, func(_ http.ResponseWriter, r *http.Request) {
				if own := session.From(r); own.ID() == id { // or else it has another id already
					must(t, own.Logout())
					loggedOut = true
				}
			})
			farID := far.Line(t)
			wg.Wait()
			for _, id := range []string{id, farID, nearID} {
				if sess, err := s.Get(ctx, id); err == nil && loggedOut && sess.Values["user"] != nil {
					t.Fatalf("round %d: beside a logout and slow requests (%s and %s) a session stays: %s", round, farDoes, nearDoes, sess.Values)
				} else if err != nil && !errors.Is(err, filestore.ErrNotFound) {
					t.Fatal(err)
				}
				must(t, s.Destroy(ctx, id))
			}
			if loggedOut {
				over[user] = true
			}
		}
		if len(over) < rounds/2 {
			t.Errorf("%d logouts in %d rounds: that tells little", len(over), rounds)
		}
		for e, err := range s.All(ctx) {
			must(t, err)
			if user, _ := filestore.Value[string](e.Session, "user"); over[user] {
				t.Errorf("a session of %s is there", user)
			}
		}
		t.Logf("%d logouts", len(over))
	})
}
