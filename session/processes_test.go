package session_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// processes has the settings that two processes share.
func processes(dir string, perUser ...string) (*session.Manager, *filestore.Store) {
	o := storetest.Quick()
	o.TouchAfter, o.Lifetime = -1, time.Hour
	s, err := filestore.Open(dir, o)
	if err != nil {
		panic(err)
	}
	m := manager(s)
	m.MaxPerUser = 3
	if len(perUser) > 0 {
		m.MaxPerUser, _ = strconv.Atoi(perUser[0])
	}
	return m, s
}

// What a slow request does with its session after it was ended elsewhere.
var late = map[string]func(s *session.Session) error{
	"nothing": func(*session.Session) error { return nil },
	"Put":     func(s *session.Session) error { return s.Put("late", 1) },
	"Save":    func(s *session.Session) error { return errors.Join(s.Put("late", 1), s.Save()) },
	"Renew":   (*session.Session).Renew,
	"twice":   func(s *session.Session) error { return errors.Join(s.Renew(), s.Renew()) },
	"Login":   func(s *session.Session) error { return s.Login("anna") },
	"logins": func(s *session.Session) error { // of ten other browsers
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { logIn(failing{}, loginsOf, "anna") })
		}
		wg.Wait()
		return nil
	},
}

var loginsOf *session.Manager

// failing is a testing.TB for another process.
type failing struct{ testing.TB }

func (failing) Helper() {}

func (failing) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// slowRequests is the other process. A line has an id and a key of late. It answers when the session is
// loaded, and, when it is told to go on, when the request is over.
func slowRequests(args []string) {
	m, s := processes(args[0], args[1:]...)
	defer s.Close()
	loginsOf = m
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		id, does, _ := strings.Cut(in.Text(), " ")
		request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("loaded")
			in.Scan()
			if err := late[does](session.From(r)); err != nil && !errors.Is(err, filestore.ErrNotFound) {
				fmt.Fprintln(os.Stderr, does, err)
			}
		})
		fmt.Println("over")
	}
}

// No slow request in another process brings back what End, EndAll, EndOthers, MaxPerUser, Lifetime or Logout has
// ended, nor its values under a new id, in whatever order their steps come.
func TestSlowRequestBesideAnEnd(t *testing.T) {
	t.Parallel() // it waits more than it runs
	dir := t.TempDir()
	m, s := processes(dir)
	defer s.Close()
	others := map[int]*storetest.Process{3: storetest.Start(t, "slow requests", dir), 1: storetest.Start(t, "slow requests", dir, "1")}
	var handle string // of the session that is to end
	for name, end := range map[string]func(id string) (keep string, err error){
		"End":    func(string) (string, error) { return "", m.End(ctx, "anna", handle) },
		"EndAll": func(string) (string, error) { _, err := m.EndAll(ctx, "anna"); return "", err },
		"EndOthers": func(string) (keep string, err error) {
			keep = logIn(t, m, "anna")
			request(m, keep, "/", func(w http.ResponseWriter, r *http.Request) { _, err = session.From(r).EndOthers() })
			return keep, err
		},
		"MaxPerUser": func(string) (string, error) { return logIn(t, m, "anna"), nil },
		"Logout": func(id string) (_ string, err error) {
			request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
				if session.From(r).ID() != id { // nobody is logged in under this id any more
					err = filestore.ErrNotFound
					return
				}
				err = session.From(r).Logout()
			})
			return "", err
		},
		"Lifetime": func(id string) (string, error) {
			for {
				if _, err := s.Get(ctx, id); err != nil {
					return "", nil
				}
			}
		},
	} {
		for _, does := range []string{"nothing", "Put", "Save", "Renew", "twice", "Login"} {
			if does == "Login" && (name == "Logout" || name == "Lifetime" || name == "End") {
				continue // a login, with a password, that comes to the other process first is one of its own
			}
			t.Run(name+" "+does, func(t *testing.T) {
				m.MaxPerUser = 3
				if name == "MaxPerUser" {
					m.MaxPerUser = 1
				}
				other := others[m.MaxPerUser]
				for round := range storetest.Brief(2, storetest.Long(20, 400)) {
					if err := s.Clear(ctx); err != nil {
						t.Fatal(err)
					}
					id := logIn(t, m, "anna")
					if name == "Lifetime" { // which is over in a moment
						if err := s.Update(ctx, id, func(sess *filestore.Session) error {
							sess.Created = time.Now().Add(3*time.Millisecond - time.Hour)
							return nil
						}); err != nil {
							t.Fatal(err)
						}
					}
					if name == "End" {
						handle = handleOf(t, m, id)
					}
					fmt.Fprintln(other.Stdin, id, does)
					if other.Line(t) != "loaded" {
						t.Fatal("the other process does not load the session")
					}
					fmt.Fprintln(other.Stdin, "go on")
					pause := time.Duration(round%20) * 20 * time.Microsecond
					for begun := time.Now(); time.Since(begun) < pause; { // a timer would be too slow
					}
					keep, err := end(id)
					if err != nil && !errors.Is(err, filestore.ErrNotFound) {
						t.Fatalf("%s = %v", name, err)
					}
					if other.Line(t) != "over" {
						t.Fatal("the other process does not end the request")
					}
					if name == "Lifetime" {
						time.Sleep(4 * time.Millisecond)
					}
					// The session had another id already: it was not ended, and is not brought back.
					renewed := errors.Is(err, filestore.ErrNotFound)
					users := 0
					for e, err := range s.All(ctx) {
						if err != nil {
							t.Fatal(err)
						}
						if e.Session.Values["user"] == nil { // somebody without a session came, and put something in
							continue
						}
						users++
						if e.ID != keep && !renewed && name != "MaxPerUser" {
							t.Fatalf("round %d: beside %s and a slow request (%s) a session stays: %s", round, name, does, e.Session.Values)
						}
					}
					if users > 1 || keep != "" && users != 1 {
						t.Fatalf("round %d: beside %s and a slow request (%s) anna has %d sessions", round, name, does, users)
					}
				}
			})
		}
	}
}

// Logins of one user in two processes at once leave as many sessions as MaxPerUser says.
func TestManyLoginsInTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	m, s := processes(dir)
	defer s.Close()
	loginsOf = m
	other := storetest.Start(t, "slow requests", dir)
	for round := range storetest.Brief(2, storetest.Long(20, 2000)) {
		fmt.Fprintln(other.Stdin, "nobody", "logins")
		other.Line(t)
		fmt.Fprintln(other.Stdin, "go on")
		late["logins"](nil)
		other.Line(t)
		if n := len(handles(t, m, "anna")); n != 3 {
			t.Fatalf("round %d: after 20 logins in two processes anna has %d sessions, want 3", round, n)
		}
	}
}
