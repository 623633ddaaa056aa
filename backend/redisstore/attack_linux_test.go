package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/redisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var workers = map[string]func(args []string){"add": adds}

// adds adds to n of the session a.
func adds(args []string) {
	times, _ := strconv.Atoi(args[1])
	c := redis.NewClient(&redis.Options{Addr: args[0], ContextTimeoutEnabled: true})
	defer c.Close()
	s, err := redisstore.New(c, &redisstore.Options{Timeout: time.Minute})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	for range times {
		if err := s.Update(ctx, "a", add); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("done")
}

// No Update is lost between processes, while the server forgets its scripts.
func TestWorkers(t *testing.T) {
	server := storetest.Redis(t)
	c := client(t, server.Addr)
	s := open(t, c, always)
	if err := s.Create(ctx, "a", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	const processes = 8
	const times = 500
	var all []*storetest.Process
	for range processes {
		all = append(all, storetest.Start(t, "add", server.Addr, strconv.Itoa(times)))
	}
	for _, p := range all {
		if line := p.Line(t); line != "ready" {
			t.Fatal(line)
		}
	}
	began := time.Now()
	for _, p := range all {
		p.Stdin.Write([]byte("\n"))
	}
	stop := make(chan struct{})
	var flusher sync.WaitGroup
	flushes := 0
	flusher.Go(func() {
		for ; ; flushes++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				if err := c.ScriptFlush(ctx).Err(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for _, p := range all {
		if line := p.Line(t); line != "done" {
			t.Error(line)
		}
	}
	close(stop)
	flusher.Wait()
	t.Logf("%d Updates in %v, and %d times SCRIPT FLUSH", processes*times, time.Since(began), flushes)
	if n := count(t, s, "a"); n != processes*times || flushes == 0 {
		t.Errorf("n = %d, want %d", n, processes*times)
	}
}

// together calls fn n times at once.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// What was destroyed stays destroyed, whatever slow requests do that began before.
func TestLogouts(t *testing.T) {
	s, c := fresh(t)
	const sessions = 20
	var late, early atomic.Int64
	for round := range storetest.Long(200, 2000) / sessions {
		var wg sync.WaitGroup
		for i := range sessions {
			id := fmt.Sprint("id", round, "-", i)
			if err := s.Create(ctx, id, with("n", 0)); err != nil {
				t.Fatal(err)
			}
			loaded := make(chan struct{}, 1)
			destroyed := make(chan struct{})
			wg.Go(func() { // has read the session before the logout, and stores after it
				err := s.Update(ctx, id, func(sess *filestore.Session) error {
					select {
					case loaded <- struct{}{}:
						<-destroyed
					default:
					}
					return sess.Put("n", 1)
				})
				if !errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("Update beside a logout = %v, want ErrNotFound", err)
				}
			})
			<-loaded
			for k := range 2 {
				wg.Go(func() {
					err := error(nil)
					for range 5 {
						if k == 0 {
							err = s.Touch(ctx, id, nil)
						} else if err = s.Touch(ctx, id, &filestore.Cookie{Path: "/", OriginalMaxAge: time.Hour + time.Duration(rand.N(1000))*time.Millisecond}); errors.Is(err, filestore.ErrLockTimeout) {
							err = nil
						}
						if err != nil {
							break
						}
						early.Add(1)
					}
					if errors.Is(err, filestore.ErrNotFound) {
						late.Add(1)
					} else if err != nil {
						t.Errorf("Touch beside a logout = %v", err)
					}
				})
			}
			wg.Go(func() {
				time.Sleep(rand.N(2 * time.Millisecond))
				if err := s.Destroy(ctx, id); err != nil {
					t.Errorf("Destroy = %v", err)
				}
				close(destroyed)
			})
		}
		wg.Wait()
		if n := c.DBSize(ctx).Val(); n != 0 {
			t.Fatalf("%d sessions are back", n)
		}
	}
	t.Logf("%d touches before the logout, %d after it", early.Load(), late.Load())
	if early.Load() == 0 || late.Load() == 0 {
		t.Error("the touches met only one side")
	}
}

// A Touch beside an Update loses nothing of it, also when it writes the document.
func TestTouches(t *testing.T) {
	s, _ := fresh(t)
	if err := s.Create(ctx, "a", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	const each = 100
	together(6, func(i int) {
		for n := range each {
			var err error
			switch {
			case i < 3:
				err = s.Update(ctx, "a", add)
			case i < 5:
				err = s.Touch(ctx, "a", nil)
			default:
				err = s.Touch(ctx, "a", &filestore.Cookie{Path: "/", OriginalMaxAge: time.Hour + time.Duration(n)*time.Second})
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	if n := count(t, s, "a"); n != 3*each {
		t.Errorf("n = %d after %d Updates beside Touches", n, 3*each)
	}
	if sess, err := s.Get(ctx, "a"); err != nil || sess.Cookie.OriginalMaxAge != time.Hour+(each-1)*time.Second {
		t.Errorf("the cookie is not the last Touch's: %v", err)
	}
}

// If a request or an answer is lost, the Store finds out what was done: nothing is done twice, and nothing is taken for
// another one's. The client repeats no Swap by itself.
func TestLostAnswers(t *testing.T) {
	p := storetest.NewProxy(t)
	c := client(t, p.To(storetest.Redis(t).Addr))
	testLostAnswers(t, c, p)
}

func testLostAnswers(t *testing.T, c redis.UniversalClient, p *storetest.Proxy) {
	s := open(t, c, always)
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	const rounds = 10
	for _, how := range []storetest.Loss{storetest.Request, storetest.Answer} {
		for i := range rounds {
			id := fmt.Sprint("lost", how, "-", i)
			check := func(op, word string, seen int, err error) {
				t.Helper()
				if n := p.Seen(); err != nil || n != seen {
					t.Errorf("%s with loss %d = %v after %d × %s, want %d", op, how, err, n, word, seen)
				}
			}
			p.Lose(how, "\r\nNX\r\n")
			check("Create", "NX", 2, s.Create(ctx, id, with("n", 0)))
			swaps := 1 // after a lost answer the Store reads, and knows
			if how == storetest.Request {
				swaps = 2
			}
			p.Lose(how, "\r\nEVALSHA\r\n")
			check("Update", "EVALSHA", swaps, s.Update(ctx, id, add))
			if n := count(t, s, id); n != 1 {
				t.Errorf("n = %d after an Update with loss %d, want 1", n, how)
			}
			do(t, c, "PEXPIRE", "sess:"+id, 1_000_000) // so that Touch writes
			p.Lose(how, "\r\nEVALSHA\r\n")
			check("Touch", "EVALSHA", 2, s.Touch(ctx, id, nil))
			p.Lose(how, "\r\nget\r\n")
			if n := count(t, s, id); n != 1 {
				t.Errorf("n = %d, want 1", n)
			}
			p.Lose(how, "\r\nSET\r\n")
			check("Set", "SET", 2, s.Set(ctx, id, with("n", 5)))
			p.Lose(how, "\r\nscan\r\n")
			if n, err := s.Len(ctx); n != 1 || err != nil {
				t.Errorf("Len with loss %d = %d, %v", how, n, err)
			}
			p.Lose(how, "\r\ndel\r\n")
			check("Destroy", "DEL", 2, s.Destroy(ctx, id))
			if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Get after Destroy = %v", err)
			}
		}
	}
	// Another one's session is not taken for one's own.
	if err := s.Create(ctx, "taken", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	p.Lose(storetest.Answer, "\r\nNX\r\n")
	if err := s.Create(ctx, "taken", with("n", 1)); !errors.Is(err, fs.ErrExist) || p.Seen() != 2 {
		t.Errorf("Create of what is there, whose answer is lost = %v", err)
	}
	// The client repeats neither a Swap nor an Insert.
	e := redisstore.OpenEngine(c, "sess:")
	row := backend.Row{ID: "sesame", Doc: "hunter2", Left: time.Hour}
	for word, fn := range map[string]func() error{
		"EVALSHA": func() error { _, err := e.Swap(ctx, row, row); return err },
		"\r\nNX":  func() error { _, err := e.Insert(ctx, []backend.Row{row}); return err },
	} {
		for _, how := range []storetest.Loss{storetest.Request, storetest.Answer, storetest.Garbage} {
			p.Lose(how, word)
			if err := fn(); err == nil || p.Seen() != 1 || secret.MatchString(err.Error()) {
				t.Errorf("with loss %d the engine's %q = %v, sent %d times, want an error without secret, and once", how, word, err, p.Seen())
			}
		}
	}
	p.Lose(storetest.Nothing, "")
	if _, err := e.Get(ctx, "sesame"); err != nil { // after which the client has a connection that works
		t.Error(err)
	}
	p.Lose(storetest.Garbage, "\r\nget\r\n")
	if _, err := e.Get(ctx, "sesame"); err == nil || secret.MatchString(err.Error()) {
		t.Errorf("Get with garbage for an answer = %v, want an error without secret", err)
	}
	p.Lose(storetest.Nothing, "")
}

// What was acknowledged is there after kill -9 of the server with appendfsync always, and the Store goes on by itself.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, client(t, server.Addr), always)
	storetest.Kill(t, server, s, storetest.Long(2, 50), func() {
		back := time.Now()
		storetest.Eventually(t, "the Store goes on", func() bool { return s.Set(ctx, "works", with("n", 0)) == nil })
		if d := time.Since(back); d > 20*time.Second { // the client asks once a second, and the machine can be busy
			t.Errorf("the Store goes on after %v", d)
		}
	})
}

// A listing in whose middle the server is started again fails: it could miss some.
func TestListingAcrossRestart(t *testing.T) {
	server := storetest.Redis(t, "--appendonly", "yes")
	c := client(t, server.Addr)
	e := redisstore.OpenEngine(c, "sess:")
	var rows []backend.Row
	for i := range 5000 {
		rows = append(rows, backend.Row{ID: fmt.Sprint("id", i), Doc: `{"cookie":{"path":"/"}}`, Left: time.Hour})
	}
	if _, err := e.Insert(ctx, rows); err != nil {
		t.Fatal(err)
	}
	s := open(t, c, nil)
	for _, docs := range []bool{false, true} {
		_, next, err := e.Page(ctx, "", docs)
		if err != nil || next == "" {
			t.Fatalf("Page = %q, %v, want a next one", next, err)
		}
		server.Kill()
		server.Start(t)
		storetest.Eventually(t, "the server has read its file", func() bool { return c.Get(ctx, "sess:id0").Err() == nil })
		if rows, _, err := e.Page(ctx, next, docs); err == nil {
			t.Errorf("Page goes on after a restart, and returns %d rows", len(rows))
		}
		if n, err := s.Len(ctx); n != len(rows) || err != nil {
			t.Errorf("Len = %d, %v", n, err)
		}
	}
}

// While the server hangs each operation ends with Options.Timeout, without ContextTimeoutEnabled with ReadTimeout after it
// at the latest. Then the Store goes on by itself.
func TestHangingServer(t *testing.T) {
	server := storetest.Redis(t)
	const timeout = time.Second
	for _, enabled := range []bool{true, false} {
		c := connect(t, &redis.Options{Addr: server.Addr, ContextTimeoutEnabled: enabled, ReadTimeout: 1500 * time.Millisecond, PoolSize: 40, MinIdleConns: 20})
		var log bytes.Buffer
		o := &redisstore.Options{Timeout: timeout, TouchAfter: -1, Logger: logger(&log)}
		s := open(t, c, o)
		if warned := log.Len() > 0; warned == enabled {
			t.Errorf("with ContextTimeoutEnabled %v New logs %q", enabled, log.String())
		}
		patient := open(t, c, &redisstore.Options{Timeout: time.Minute, Logger: o.Logger})
		if err := patient.Set(ctx, "a", with("n", 0)); err != nil {
			t.Fatal(err)
		}
		most := timeout + 20*time.Second // the machine can be busy
		if !enabled {
			most += 1500 * time.Millisecond
		}
		bound := func(name string, fn func() error) {
			began := time.Now()
			if err := fn(); err == nil || time.Since(began) > most || secret.MatchString(err.Error()) || errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("%s on a server that hangs = %v after %v, want an error within %v", name, err, time.Since(began), most)
			}
		}
		server.Hang()
		var wg sync.WaitGroup
		for name, fn := range map[string]func() error{
			"Get":     func() error { _, err := s.Get(ctx, "a"); return err },
			"Set":     func() error { return s.Set(ctx, "b", with("n", 0)) },
			"Create":  func() error { return s.Create(ctx, "c", with("n", 0)) },
			"Touch":   func() error { return s.Touch(ctx, "a", nil) },
			"Update":  func() error { return s.Update(ctx, "a", add) },
			"Destroy": func() error { return s.Destroy(ctx, "d") },
			"Len":     func() error { _, err := s.Len(ctx); return err },
			"Clear":   func() error { return s.Clear(ctx) },
			"IDs":     func() error { _, err := first(s.IDs(ctx)); return err },
			"All":     func() error { _, err := first(s.All(ctx)); return err },
			"Find":    func() error { _, err := first(s.Find(ctx, "n", "0")); return err },
			"New":     func() error { _, err := redisstore.New(c, o); return err },
		} {
			wg.Go(func() { bound(name, fn) })
		}
		wg.Wait()
		if _, err := s.Get(ctx, "a"); enabled && (err == nil || !strings.Contains(err.Error(), "no answer within 1s")) {
			t.Errorf("Get on a server that hangs = %v, want an error that tells its Timeout", err)
		}
		server.Continue()
		storetest.Eventually(t, "a Set is done when the server goes on", func() bool { return s.Set(ctx, "a", with("n", 0)) == nil })
		bound("Update, which hangs after fn,", func() error { // between the read and the change
			return s.Update(ctx, "a", func(sess *filestore.Session) error { server.Hang(); return add(sess) })
		})
		server.Continue()
		storetest.Eventually(t, "a Get is done when the server goes on", func() bool { _, err := s.Get(ctx, "a"); return err == nil })
	}
}

// first returns what a loop yields first.
func first[T any](seq func(func(T, error) bool)) (v T, err error) {
	for v, err := range seq {
		return v, err
	}
	return v, err
}

// A Get beside writers of whole versions returns a document that somebody wrote; LastAccess can be that of the next
// version, as Redis is asked for both one after the other, and nothing is stored from that.
func TestMixedVersions(t *testing.T) {
	t.Parallel()
	s, c := fresh(t)
	e := redisstore.OpenEngine(c, "sess:")
	rows := []backend.Row{{ID: "a", Doc: `{"cookie":{"originalMaxAge":100000,"path":"/"},"n":0}`, Left: 100 * time.Second}, {ID: "a", Doc: `{"cookie":{"originalMaxAge":10000000,"path":"/"},"n":0}`, Left: 10_000 * time.Second}}
	if err := e.Put(ctx, rows[0]); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := e.Put(ctx, rows[n%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	mixed := 0
	reads := storetest.Long(500, 5000)
	for range reads {
		row, err := e.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if (row.Left > time.Hour) != (row.Doc == rows[1].Doc) {
			mixed++
		}
		if err := s.Touch(ctx, "a", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(ctx, "a", func(sess *filestore.Session) error { sess.NoTouch = true; return sess.Put("n", 0) }); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d of %d reads are mixed", mixed, reads)
	row, err := e.Get(ctx, "a")
	if err != nil || (row.Left > time.Hour) != bytes.Contains([]byte(row.Doc), []byte("10000000")) {
		t.Errorf("in the end the document %s has %v left, %v", row.Doc, row.Left, err)
	}
}
