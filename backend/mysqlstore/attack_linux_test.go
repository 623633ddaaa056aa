package mysqlstore_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var workers = map[string]func(args []string){"add": adds}

// adds adds to n of the session a.
func adds(args []string) {
	times, _ := strconv.Atoi(args[1])
	db, err := sql.Open("mysql", args[0])
	if err != nil {
		panic(err)
	}
	defer db.Close()
	s, err := mysqlstore.New(db, &mysqlstore.Options{Timeout: time.Minute})
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

// No Update is lost, between processes.
func testWorkers(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	if err := s.Create(ctx, "a", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	const processes = 8
	const times = 500
	var all []*storetest.Process
	for i := range processes {
		all = append(all, storetest.Start(t, "add", dsn(server.Addr, one[string](t, db, "SELECT DATABASE()"), []string{"", "&interpolateParams=true"}[i%2]), strconv.Itoa(times)))
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
	for _, p := range all {
		if line := p.Line(t); line != "done" {
			t.Error(line)
		}
	}
	t.Logf("%d Updates in %v", processes*times, time.Since(began))
	if n := count(t, s, "a"); n != processes*times {
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

// Of many that create one id at once, exactly one succeeds, also in the place of an expired session that reapers are
// about to remove.
func testCreators(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	stop := make(chan struct{})
	var reapers sync.WaitGroup
	defer reapers.Wait()
	defer close(stop)
	for range 2 {
		reapers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Reap(ctx); err != nil {
					t.Errorf("Reap = %v", err)
				}
			}
		})
	}
	rounds := storetest.Long(40, 1000)
	for round := range rounds {
		id := fmt.Sprint("id", round)
		if round%2 == 0 {
			execute(t, db, "INSERT INTO sessions VALUES (?, 1, '{}')", id)
		}
		var made atomic.Int64
		var by atomic.Int64
		creators := []int{1, 12}[round/2%2]
		together(creators, func(i int) {
			switch err := s.Create(ctx, id, with("n", i)); {
			case err == nil:
				made.Add(1)
				by.Store(int64(i))
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("Create = %v", err)
			}
		})
		if made.Load() != 1 {
			t.Fatalf("round %d: %d of %d creators of one id succeeded", round, made.Load(), creators)
		}
		if n := count(t, s, id); int64(n) != by.Load() {
			t.Errorf("the session is of creator %d, but %d was told that it succeeded", n, by.Load())
		}
	}
}

// A session that was just touched is never reaped. What has expired never comes back by a Touch.
func testReapers(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	began, least := time.Now(), storetest.Long(3*time.Second, time.Minute)
	var reaped, touched, late atomic.Int64
	goOn := func() bool { // until all has happened: the machine can be busy
		all := reaped.Load() > 0 && touched.Load() > 0 && late.Load() > 0
		return time.Since(began) < least || !all && time.Since(began) < least+time.Minute
	}
	doc := `{"cookie":{"originalMaxAge":60000,"expires":"2100-01-01T00:00:00.000Z","path":"/"}}`
	together(6, func(i int) {
		for n := 0; goOn(); n++ {
			if i < 2 {
				removed, err := s.Reap(ctx)
				if err != nil {
					t.Errorf("Reap = %v", err)
				}
				reaped.Add(int64(removed))
				continue
			}
			// It ends within a moment, in which it is touched.
			id := fmt.Sprint("id", i, "-", n)
			if _, err := db.Exec("INSERT INTO sessions VALUES (?, UNIX_TIMESTAMP() + 1, ?)", id, doc); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)) * time.Duration(rand.N(3)) / 2)
			for range 3 {
				switch err := s.Touch(ctx, id, nil); {
				case err == nil:
					touched.Add(1)
					if _, err := s.Get(ctx, id); err != nil {
						t.Errorf("Get of what was just touched = %v", err)
					}
				case errors.Is(err, filestore.ErrNotFound):
					late.Add(1)
					if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
						t.Errorf("Get of what a Touch did not find = %v", err)
					}
				default:
					t.Errorf("Touch = %v", err)
				}
			}
		}
	})
	t.Logf("%d touches in time, %d too late, %d reaped", touched.Load(), late.Load(), reaped.Load())
	if touched.Load() == 0 || late.Load() == 0 || reaped.Load() == 0 {
		t.Error("the test met only one side")
	}
}

// What is renewed after the reaper has looked at it, and before it removes it, stays.
func testReaperLooksTwice(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	execute(t, db, "INSERT INTO sessions VALUES ('a', 1, '{}'), ('b', 1, '{}')")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("UPDATE sessions SET expires = UNIX_TIMESTAMP() + 100 WHERE session_id = 'b'"); err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	go func() {
		n, err := s.Reap(ctx)
		if err != nil {
			t.Errorf("Reap = %v", err)
		}
		done <- n
	}()
	for began := time.Now(); one[int](t, db, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'DELETE%' AND time_ms > 50") == 0; {
		if time.Since(began) > time.Minute {
			t.Fatal("the reaper does not wait for a row that is being renewed")
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := <-done; n != 1 {
		t.Errorf("Reap removes %d, want 1", n)
	}
	if id := one[string](t, db, "SELECT session_id FROM sessions"); id != "b" {
		t.Errorf("%s is left, want what was renewed", id)
	}
}

// A transaction whose context ends between two statements is not open any more, and its connection serves nobody.
func testTransaction(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	db.SetMaxOpenConns(1)
	e := engine(t, db)
	for _, failed := range []error{nil, errors.New("failed")} {
		own, cancel := context.WithCancel(ctx)
		err := mysqlstore.Transaction(own, e, func(conn *sql.Conn) error {
			_, err := conn.ExecContext(own, "INSERT INTO sessions VALUES ('a', 1, '{}')")
			cancel()
			return cmp.Or(err, failed)
		})
		if err == nil {
			t.Error("the transaction succeeds although its context is done")
		}
		if n := one[int](t, db, "SELECT COUNT(*) FROM sessions"); n != 0 {
			t.Error("the next one on the connection is in the transaction")
		}
		execute(t, db, "INSERT INTO sessions VALUES ('a', 1, '{}')") // for which the server must have ended it
		execute(t, db, "DELETE FROM sessions")
	}
}

// A Touch in the second of the last one finds the session.
func testTouches(t *testing.T, server *storetest.Server) {
	for _, params := range []string{"", "&interpolateParams=true"} {
		s, db := fresh(t, server, params)
		if err := s.Create(ctx, "a", with("n", 0)); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := s.Touch(ctx, "a", nil); err != nil {
				t.Fatalf("Touch = %v", err)
			}
			if err := s.Update(ctx, "a", func(*filestore.Session) error { return nil }); err != nil {
				t.Fatalf("Update without a change = %v", err)
			}
		}
		execute(t, db, "UPDATE sessions SET expires = 1")
		if err := s.Touch(ctx, "a", nil); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Touch of an expired session = %v", err)
		}
		if got := one[int](t, db, "SELECT expires FROM sessions"); got != 1 {
			t.Error("Touch has revived an expired session")
		}
	}
}

// Inserts of the same rows in other orders wait for each other, also when they form a deadlock. Each row is stored once,
// and by the one that was told so.
func testInserts(t *testing.T, server *storetest.Server) {
	for _, level := range []string{"REPEATABLE-READ", "READ-COMMITTED"} {
		_, db := fresh(t, server, "&tx_isolation='"+level+"'")
		insertsAtOnce(t, db)
	}
}

func insertsAtOnce(t *testing.T, db *sql.DB) {
	e := engine(t, db)
	for round := range storetest.Long(5, 100) {
		execute(t, db, "DELETE FROM sessions")
		var mu sync.Mutex
		owner := make(map[string]string)
		for i := range 50 * (round % 2) {
			execute(t, db, "INSERT INTO sessions VALUES (?, 1, '{}')", fmt.Sprint("id", i*7))
		}
		for i := range 6 { // so that none of them has all rows for itself, and only each one's own is locked
			owner[fmt.Sprint("own", i)] = "before"
			execute(t, db, "INSERT INTO sessions VALUES (?, UNIX_TIMESTAMP() + 100, 'before')", fmt.Sprint("own", i))
		}
		together(6, func(i int) {
			rows := []backend.Row{{ID: fmt.Sprint("own", i), Doc: fmt.Sprint(i), Left: time.Hour}}
			for _, n := range rand.Perm(200) {
				rows = append(rows, backend.Row{ID: fmt.Sprint("id", n+rand.N(20)), Doc: fmt.Sprint(i), Left: time.Hour})
			}
			own, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			stored, err := e.Insert(own, rows)
			if err != nil {
				t.Errorf("Insert = %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for j, ok := range stored {
				if ok {
					if owner[rows[j].ID] != "" {
						t.Errorf("round %d: two were told that they have stored one row", round)
					}
					owner[rows[j].ID] = rows[j].Doc
				}
			}
		})
		found := 0
		err := e.Snapshot(ctx, func() {}, func(r backend.Row) {
			found++
			if owner[r.ID] != r.Doc {
				t.Errorf("a row is of %s, and %q was told so", r.Doc, owner[r.ID])
			}
		})
		if err != nil || found != len(owner) {
			t.Errorf("%d rows, want %d, %v", found, len(owner), err)
		}
	}
}

// Who waits for the lock of another transaction waits for Options.Timeout at most, and goes on if it is freed before.
func testHeldLock(t *testing.T, server *storetest.Server) {
	for _, wait := range []string{"1", "50"} {
		s, db := fresh(t, server, "")
		base := one[string](t, db, "SELECT DATABASE()")
		short := open(t, connect(t, strings.Replace(dsn(server.Addr, base, ""), "wait_timeout=4", "wait_timeout="+wait, 1)), &mysqlstore.Options{Timeout: 4 * time.Second, TouchAfter: -1})
		patient := open(t, connect(t, strings.Replace(dsn(server.Addr, base, ""), "wait_timeout=4", "wait_timeout="+wait, 1)), &mysqlstore.Options{Timeout: 20 * time.Second})
		if err := s.Create(ctx, "a", with("n", 0)); err != nil {
			t.Fatal(err)
		}
		execute(t, db, "INSERT INTO sessions VALUES ('old', 1, '{}')")
		execute(t, db, "UPDATE sessions SET expires = expires - 5 WHERE session_id = 'a'") // so that a Touch writes
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("SELECT * FROM sessions FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for name, fn := range map[string]func() error{
			"Update":  func() error { return short.Update(ctx, "a", add) },
			"Touch":   func() error { return short.Touch(ctx, "a", nil) },
			"Destroy": func() error { return short.Destroy(ctx, "old") },
			"Create":  func() error { return short.Create(ctx, "old", with("n", 0)) },
			"Reap":    func() error { _, err := short.Reap(ctx); return err },
		} {
			wg.Go(func() {
				began := time.Now()
				err := fn()
				if d := time.Since(began); err == nil || !errors.Is(err, context.DeadlineExceeded) || wait == "1" && !errors.Is(err, filestore.ErrLockTimeout) || d > 30*time.Second {
					t.Errorf("%s of a row that is locked = %v after %v, want ErrLockTimeout after 4 s", name, err, d)
				}
			})
		}
		wg.Wait()
		if n := count(t, short, "a"); n != 0 {
			t.Errorf("n = %d, want 0", n)
		}
		if wait == "50" { // what has ended here goes on there: New warns of it
			tx.Rollback()
			continue
		}
		done := make(chan error)
		go func() { done <- patient.Update(ctx, "a", add) }()
		time.Sleep(1500 * time.Millisecond) // longer than the server lets it wait once
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("Update of a row that was locked for 1.5 s = %v", err)
		}
		if n := count(t, s, "a"); n != 1 {
			t.Errorf("n = %d, want 1, of the one Update that succeeded", n)
		}
	}
}

// kills ends all connections to the database but its own, again and again, until the returned function is called.
func kills(t *testing.T, server *storetest.Server, base string) (stop func() int) {
	admin := connect(t, dsn(server.Addr, "", ""))
	admin.SetMaxOpenConns(1)
	quit, n := make(chan struct{}), 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(rand.N(20 * time.Millisecond)):
			}
			rows, err := admin.Query("SELECT id FROM information_schema.processlist WHERE db = ?", base)
			if err != nil {
				t.Error(err)
				return
			}
			var ids []int
			for rows.Next() {
				var id int
				rows.Scan(&id)
				ids = append(ids, id)
			}
			for _, id := range ids {
				if _, err := admin.Exec("KILL " + strconv.Itoa(id)); err == nil {
					n++
				}
			}
		}
	})
	return func() int { close(quit); wg.Wait(); return n }
}

// If a connection is killed, an Update that returned nil has happened once, and one that failed once at most.
func testKilledConnections(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	const goroutines = 4
	for i := range goroutines {
		if err := s.Create(ctx, fmt.Sprint("id", i), with("n", 0)); err != nil {
			t.Fatal(err)
		}
	}
	stop := kills(t, server, one[string](t, db, "SELECT DATABASE()"))
	end := time.Now().Add(storetest.Long(2*time.Second, time.Minute))
	var done, failed [goroutines]int
	together(goroutines, func(i int) {
		for time.Now().Before(end) {
			if err := s.Update(ctx, fmt.Sprint("id", i), add); err == nil {
				done[i]++
			} else {
				failed[i]++
				if errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("Update = %v", err)
				}
			}
		}
	})
	killed := stop()
	t.Logf("%d connections killed, %d Updates done, %d failed", killed, done, failed)
	if killed < 10 {
		t.Errorf("%d connections killed, want 10 and more", killed)
	}
	for i := range goroutines {
		if n := count(t, s, fmt.Sprint("id", i)); n < done[i] || n > done[i]+failed[i] {
			t.Errorf("n = %d after %d Updates that succeeded and %d that failed", n, done[i], failed[i])
		}
	}
	together(8, func(int) {
		if err := s.Update(ctx, "id0", add); err != nil {
			t.Errorf("Update, when nobody kills any more, = %v", err)
		}
	})
}

// If an answer is lost, the Store finds out what was done: nothing is done twice, and nothing is taken for another one's.
func testLostAnswers(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	p := storetest.NewProxy(t)
	s := open(t, connect(t, dsn(p.To(server.Addr), one[string](t, db, "SELECT DATABASE()"), "&interpolateParams=true")), &mysqlstore.Options{TouchAfter: -1})
	const rounds = 20
	for i := range rounds {
		id := fmt.Sprint("id", i)
		p.Lose(storetest.Answer, "INSERT")
		if err := s.Create(ctx, id, with("n", 0)); err != nil {
			t.Errorf("Create whose answer is lost = %v", err)
		}
		p.Lose(storetest.Answer, "UPDATE")
		if err := s.Update(ctx, id, add); err != nil {
			t.Errorf("Update whose answer is lost = %v", err)
		}
		if n := count(t, s, id); n != 1 {
			t.Errorf("n = %d after an Update whose answer was lost, want 1", n)
		}
		p.Lose(storetest.Answer, "SELECT")
		if n := count(t, s, id); n != 1 {
			t.Errorf("n = %d, want 1", n)
		}
		execute(t, db, "UPDATE sessions SET expires = expires - 5") // so that Touch writes
		p.Lose(storetest.Answer, "UPDATE")
		if err := s.Touch(ctx, id, nil); err != nil {
			t.Errorf("Touch whose answer is lost = %v", err)
		}
		p.Lose(storetest.Answer, "INSERT")
		if err := s.Set(ctx, id, with("n", 5)); err != nil {
			t.Errorf("Set whose answer is lost = %v", err)
		}
		p.Lose(storetest.Answer, "DELETE")
		if err := s.Destroy(ctx, id); err != nil {
			t.Errorf("Destroy whose answer is lost = %v", err)
		}
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get after Destroy = %v", err)
		}
	}
	// A COMMIT too.
	for i := range rounds {
		execute(t, db, "INSERT INTO sessions VALUES (?, 1, '{}')", fmt.Sprint("old", i))
		p.Lose(storetest.Answer, "COMMIT")
		if err := s.Create(ctx, fmt.Sprint("old", i), with("n", i)); err != nil {
			t.Errorf("Create in the place of an expired session, whose answer is lost, = %v", err)
		}
	}
	if p.Lost() != 7*rounds {
		t.Errorf("%d answers were lost, want %d", p.Lost(), 7*rounds)
	}
	if n, err := s.Len(ctx); n != rounds || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, rounds)
	}
}

// What was acknowledged is there after kill -9 of the server, and the Store goes on by itself.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	server := storetest.MariaDB(t, "")
	s, _ := fresh(t, server, "")
	storetest.Kill(t, server, s, storetest.Long(4, 50), func() {
		if err := s.Set(ctx, "works", with("n", 0)); err != nil {
			t.Errorf("Set when the server is back = %v", err)
		}
	})
}

// While the server hangs each operation ends with Options.Timeout. Then the Store goes on by itself.
func TestHangingServer(t *testing.T) {
	server := storetest.MariaDB(t, "")
	patient, db := fresh(t, server, "")
	base := one[string](t, db, "SELECT DATABASE()")
	const timeout, busy = time.Second, 20 * time.Second // the machine can be busy
	for _, params := range []string{"", "&interpolateParams=true"} {
		pool := connect(t, dsn(server.Addr, base, params))
		s := open(t, pool, &mysqlstore.Options{Timeout: timeout, TouchAfter: -1})
		e := engine(t, pool)
		if err := patient.Set(ctx, "a", with("n", 0)); err != nil {
			t.Fatal(err)
		}
		execute(t, db, "INSERT IGNORE INTO sessions VALUES ('old', 1, '{}')")
		late := func(err error, began time.Time) bool {
			return err == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) || time.Since(began) > timeout+busy
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
			"Reap":    func() error { _, err := s.Reap(ctx); return err },
			"Len":     func() error { _, err := s.Len(ctx); return err },
			"Clear":   func() error { return s.Clear(ctx) },
			"IDs":     func() error { _, err := first(s.IDs(ctx)); return err },
			"All":     func() error { _, err := first(s.All(ctx)); return err },
			"Find":    func() error { _, err := first(s.Find(ctx, "n", "0")); return err },
			"New":     func() error { _, err := mysqlstore.New(pool, &mysqlstore.Options{Timeout: timeout}); return err },
		} {
			wg.Go(func() {
				began := time.Now()
				if err := fn(); late(err, began) {
					t.Errorf("%s on a server that hangs = %v after %v, want an error after %v", name, err, time.Since(began), timeout)
				}
			})
		}
		wg.Wait()
		if _, err := s.Get(ctx, "a"); err == nil || !strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("Get on a server that hangs = %v, want an error that tells its Timeout", err)
		}
		server.Continue()
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // it carries out what was sent meanwhile
			if n := one[int](t, db, "SELECT COUNT(*) FROM information_schema.processlist WHERE db = ? AND command <> 'Sleep'", base); n == 1 {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatal("the server is still busy")
			}
		}
		goesOn := func(fn func() error) { // a busy machine can need longer than the Timeout for it
			storetest.Eventually(t, "the Store goes on", func() bool { return fn() == nil })
		}
		goesOn(func() error { return s.Set(ctx, "a", with("n", 0)) })

		// In the middle of a transaction, before its COMMIT, and of a Snapshot.
		own, cancel := context.WithTimeout(ctx, timeout)
		began := time.Now()
		hung := make(chan struct{})
		go func() { time.Sleep(20 * time.Millisecond); server.Hang(); close(hung) }()
		for n := 0; own.Err() == nil; n++ {
			rows := []backend.Row{{ID: "old", Doc: "{}", Left: -1}, {ID: fmt.Sprint("x", n), Doc: "{}", Left: -1}} // which always conflict
			if _, err := e.Insert(own, rows); err != nil && own.Err() == nil {
				t.Errorf("Insert = %v", err)
			}
		}
		if d := time.Since(began); d > timeout+busy {
			t.Errorf("Insert on a server that hangs ends after %v", d)
		}
		cancel()
		<-hung
		server.Continue()
		var rows []backend.Row
		for n := range 1000 {
			rows = append(rows, backend.Row{ID: fmt.Sprint("big", n), Doc: `{"cookie":{},"fill":"` + strings.Repeat("x", 20_000) + `"}`, Left: time.Hour})
		}
		own, cancel = context.WithTimeout(ctx, 30*time.Second)
		if _, err := e.Insert(own, rows); err != nil {
			t.Fatal(err)
		}
		cancel()
		own, cancel = context.WithCancel(ctx)
		var stopped time.Time
		err := e.Snapshot(own, func() {}, func(backend.Row) {
			if stopped.IsZero() {
				server.Hang()
				stopped = time.Now()
				time.AfterFunc(timeout, cancel)
			}
		})
		if late(err, stopped) {
			t.Errorf("Snapshot on a server that hangs in the middle = %v %v later", err, time.Since(stopped))
		}
		server.Continue()
		cancel()
		goesOn(func() error { return s.Clear(ctx) })
	}
}

// first returns what a loop yields first.
func first[T any](seq func(func(T, error) bool)) (v T, err error) {
	for v, err := range seq {
		return v, err
	}
	return v, err
}

// On a full disk a write fails, what was acknowledged stays, and when there is room again the next one succeeds.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"); err != nil {
		skip.Test(t, "no file system can be mounted: "+err.Error())
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	server := storetest.MariaDB(t, dir)
	_, db := fresh(t, server, "")
	s := open(t, db, nil)
	if err := s.Set(ctx, "a", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); ; { // but for what is smaller than a block
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	f.Close()
	stored := 0
	for ; stored < 1000; stored++ {
		began := time.Now()
		err := s.Create(ctx, fmt.Sprint("id", stored), with("fill", strings.Repeat("x", 500_000)))
		if d := time.Since(began); d > 7*time.Second {
			t.Errorf("Create on a full disk takes %v", d)
		}
		if err != nil {
			t.Logf("after %d sessions: %v", stored, err)
			break
		}
	}
	if stored == 1000 {
		t.Fatal("the disk is never full")
	}
	for i := range stored {
		if _, err := s.Get(ctx, fmt.Sprint("id", i)); err != nil {
			t.Errorf("Get of what was stored before = %v", err)
		}
	}
	if _, err := s.Get(ctx, fmt.Sprint("id", stored)); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Get of what was not stored = %v", err)
	}
	os.Remove(filler)
	if err := s.Create(ctx, "new", with("fill", strings.Repeat("x", 500_000))); err != nil {
		t.Errorf("Create when there is room again = %v", err)
	}
	if err := s.Update(ctx, "a", add); err != nil || count(t, s, "a") != 1 {
		t.Errorf("Update when there is room again = %v", err)
	}
	db.Close()
	server.Kill()
}
