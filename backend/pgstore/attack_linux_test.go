package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var workers = map[string]func(args []string){
	// update url n adds 1 to the session n times, and prints how often it has failed.
	"update": func(args []string) {
		s := worker(args[0])
		n, _ := strconv.Atoi(args[1])
		failed := 0
		for range n {
			if err := s.Update(ctx, id, add); err != nil {
				fmt.Fprintln(os.Stderr, err)
				failed++
			}
		}
		fmt.Println(failed)
	},
	// reap url reaps until it is killed.
	"reap": func(args []string) {
		s := worker(args[0])
		fmt.Println("begins")
		for {
			if _, err := s.Reap(ctx); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
		}
	},
}

// worker returns a Store for the rest of the process.
func worker(url string) *pgstore.Store {
	pool, err := pgxpool.New(ctx, url)
	if err == nil {
		var s *pgstore.Store
		if s, err = pgstore.New(pool, &pgstore.Options{Timeout: time.Minute, CreateTable: true}); err == nil {
			return s
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
	return nil
}

// No Update is lost, between processes either.
func TestProcesses(t *testing.T) {
	const processes = 8
	rounds := storetest.Long(500, 5000)
	url := database(t)
	s := open(t, connect(t, url), nil)
	must(t, s.Create(ctx, id, with(0, 0)))
	var all []*storetest.Process
	for range processes {
		all = append(all, storetest.Start(t, "update", url, strconv.Itoa(rounds)))
	}
	for _, p := range all {
		if failed := p.Line(t); failed != "0" {
			t.Errorf("%s Updates of a process failed", failed)
		}
	}
	if n := value(t, s, id); n != processes*rounds {
		t.Errorf("after %d Updates that each add 1: %d", processes*rounds, n)
	}
}

// works waits until the Store works again by itself, and fails unless it then goes on doing so.
func works(t *testing.T, s *pgstore.Store) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := s.Set(ctx, "works", with(1, 0))
		if err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("the Store does not work again: %v", err)
		}
	}
	failed := 0
	for range 50 {
		if _, err := s.Get(ctx, "works"); err != nil {
			failed++
		}
	}
	if failed > 10 { // each of the pool's connections can be dead
		t.Errorf("when the Store works again, %d of 50 calls fail", failed)
	}
}

// What was acknowledged is there after kill -9.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := storetest.Postgres(t)
	s := open(t, connect(t, server.URL("")), nil)
	storetest.Kill(t, server, s, storetest.Long(3, 20), func() { works(t, s) })
}

// operations are all that a Store can do.
func operations(s *pgstore.Store) map[string]func() error {
	return map[string]func() error{
		"Get":     func() error { _, err := s.Get(ctx, id); return err },
		"Set":     func() error { return s.Set(ctx, id, with(1, 0)) },
		"Create":  func() error { return s.Create(ctx, "other", with(1, 0)) },
		"Update":  func() error { return s.Update(ctx, id, add) },
		"Touch":   func() error { return s.Touch(ctx, id, nil) },
		"Destroy": func() error { return s.Destroy(ctx, id) },
		"Reap":    func() error { _, err := s.Reap(ctx); return err },
		"Clear":   func() error { return s.Clear(ctx) },
		"Len":     func() error { _, err := s.Len(ctx); return err },
		"IDs": func() (err error) {
			for _, err = range s.IDs(ctx) {
			}
			return err
		},
		"All": func() (err error) {
			for _, err = range s.All(ctx) {
			}
			return err
		},
		"Find": func() (err error) {
			for _, err = range s.Find(ctx, "n", "1") {
			}
			return err
		},
	}
}

// bounded fails unless each operation fails, and does so within timeout.
func bounded(t *testing.T, ops map[string]func() error, timeout time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	for name, op := range ops {
		wg.Go(func() {
			began := time.Now()
			err := op()
			if took := time.Since(began); err == nil || took > timeout+20*time.Second { // the machine is busy
				t.Errorf("%s takes %v, with a Timeout of %v, and returns %v", name, took, timeout, err)
			}
		})
	}
	wg.Wait()
}

// A server that does not answer keeps nobody waiting for longer than Timeout.
func TestServerHangs(t *testing.T) {
	server := storetest.Postgres(t)
	const timeout = time.Second
	pool := connect(t, server.URL(""), func(c *pgxpool.Config) { c.MaxConns = 20 })
	s, patient := open(t, pool, &pgstore.Options{Timeout: timeout}), open(t, pool, &pgstore.Options{Timeout: time.Minute})
	must(t, patient.Set(ctx, id, with(1, 0)))
	var warm sync.WaitGroup // connections that are idle are other ones than those to be made
	for range 5 {
		warm.Go(func() { patient.Len(ctx) })
	}
	warm.Wait()
	server.Hang()
	defer server.Continue()
	for range 2 {
		bounded(t, operations(s), timeout)
	}
	if _, err := s.Get(ctx, id); err == nil || !strings.Contains(err.Error(), "no answer within 1s") {
		t.Errorf("Get on a server that hangs = %v, want an error that tells its Timeout", err)
	}
	if _, err := pgstore.New(pool, &pgstore.Options{Timeout: timeout}); err == nil {
		t.Error("New on a server that hangs = nil")
	}
	server.Continue()
	works(t, s)
}

// A Close ends what waits for the server.
func TestCloseWhileHanging(t *testing.T) {
	t.Parallel()
	server := storetest.Postgres(t)
	pool := connect(t, server.URL(""))
	s := open(t, pool, &pgstore.Options{Timeout: time.Hour})
	server.Hang()
	defer server.Continue()
	ended := make(chan error)
	go func() { ended <- s.Update(ctx, id, add) }()
	for pool.Stat().AcquiredConns() == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, s.Close())
	if err := <-ended; !errors.Is(err, filestore.ErrClosed) {
		t.Errorf("Update = %v, want ErrClosed", err)
	}
}

// A lock that somebody else has keeps nobody waiting for longer than Timeout. What has timed out is not done later.
func TestLocked(t *testing.T) {
	url := database(t)
	const timeout = time.Second
	pool := connect(t, url, func(c *pgxpool.Config) { c.MaxConns = 20 })
	s := open(t, pool, &pgstore.Options{Timeout: timeout, TouchAfter: -1})
	must(t, s.Create(ctx, id, with(7, 0)))
	other, err := pgx.Connect(ctx, url)
	must(t, err)
	defer other.Close(ctx)
	for _, lock := range []string{"SELECT * FROM session FOR UPDATE", "LOCK TABLE session IN ACCESS EXCLUSIVE MODE"} {
		tx, err := other.Begin(ctx)
		must(t, err)
		_, err = tx.Exec(ctx, lock)
		must(t, err)
		ops := operations(s)
		if strings.HasPrefix(lock, "SELECT") {
			for _, name := range []string{"Get", "Len", "IDs", "All", "Find", "Reap", "Create"} { // they need not wait
				if err := ops[name](); err != nil {
					t.Errorf("%s beside a row that somebody has locked = %v", name, err)
				}
				delete(ops, name)
			}
			delete(ops, "Clear") // it removes the other one, and then waits
		}
		bounded(t, ops, timeout)
		for began := time.Now(); ask[int](t, pool, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0; {
			if time.Since(began) > 10*time.Second {
				t.Fatal("what has timed out waits on")
			}
		}
		must(t, tx.Commit(ctx))
		if n := value(t, s, id); n != 7 {
			t.Errorf("after operations that have timed out: %d, want 7", n)
		}
		must(t, s.Destroy(ctx, "other"))
	}
	works(t, s)
}

// The server ends one of two transactions that wait for each other. The Store's is begun again.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	url := database(t)
	pool := connect(t, url)
	s := open(t, pool, &pgstore.Options{Timeout: 20 * time.Second})
	must(t, s.Create(ctx, "a", with(1, 0)))
	must(t, s.Create(ctx, "b", with(1, 0)))
	other, err := pgx.Connect(ctx, url)
	must(t, err)
	defer other.Close(ctx)
	_, err = other.Exec(ctx, "SET deadlock_timeout = '1min'") // so that the server chooses the Store
	must(t, err)
	tx, err := other.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, "SELECT * FROM session WHERE sid = 'b' FOR UPDATE")
	must(t, err)
	cleared := make(chan error)
	go func() { cleared <- s.Clear(ctx) }()
	for ask[int](t, pool, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 0 {
		time.Sleep(time.Millisecond)
	}
	_, err = tx.Exec(ctx, "UPDATE session SET expire = expire WHERE sid = 'a'") // which Clear has
	must(t, err)
	must(t, tx.Commit(ctx))
	if err := <-cleared; err != nil {
		t.Errorf("Clear = %v", err)
	}
	if n := ask[int](t, pool, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"); n == 0 {
		t.Log("the server does not tell of a deadlock yet")
	}
	if n, err := s.Len(ctx); n != 0 || err != nil {
		t.Errorf("Len = %d, %v, want 0", n, err)
	}
}

// Whatever the moment at which the server ends a connection: what was acknowledged is there, once.
func TestTerminated(t *testing.T) {
	t.Parallel()
	url := database(t)
	s := open(t, connect(t, url), nil)
	n := 0
	storetest.Besides(s, "s", func(*storetest.Ledger) {
		killer, err := pgx.Connect(ctx, url)
		must(t, err)
		defer killer.Close(ctx)
		for began := time.Now(); n < 100 && time.Since(began) < 5*time.Minute; { // the machine can be busy
			var some int
			must(t, killer.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&some))
			n += some
			time.Sleep(rand.N(20 * time.Millisecond))
		}
	}).Check(t)
	if n < 100 {
		t.Errorf("only %d connections were ended", n)
	}
	works(t, s)
}

// Whatever answer gets lost: what was acknowledged is there, once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			url := database(t)
			server := storetest.SharedPostgres(t)
			proxy := storetest.NewProxy(t)
			s := open(t, connect(t, strings.Replace(url, server.Addr, proxy.To(server.Addr), 1), in(mode)), nil)
			l := storetest.Besides(s, "s", func(*storetest.Ledger) {
				proxy.LoseAnswers(10)
				for began := time.Now(); proxy.Lost() < 30 && time.Since(began) < 5*time.Minute; { // the machine can be busy
					time.Sleep(10 * time.Millisecond)
				}
				proxy.Lose(storetest.Nothing, "")
			})
			l.Check(t)
			done, failed := l.Acknowledged()
			t.Logf("%d answers lost, %d calls acknowledged, %d failed", proxy.Lost(), done, failed)
			if proxy.Lost() < 30 || done == 0 {
				t.Error("that is not an attack")
			}
		})
	}
}

// The same for several that change one session: of two that make the same of it, none takes the other's change for its own.
func TestLostAnswersOfOneSession(t *testing.T) {
	t.Parallel()
	url := database(t)
	server := storetest.SharedPostgres(t)
	proxy := storetest.NewProxy(t)
	s := open(t, connect(t, strings.Replace(url, server.Addr, proxy.To(server.Addr), 1)), nil)
	must(t, s.Create(ctx, id, with(0, 0)))
	proxy.LoseAnswers(10)
	var done, unknown atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range storetest.Long(20, 200) {
				if s.Update(ctx, id, add) == nil {
					done.Add(1)
				} else {
					unknown.Add(1)
				}
			}
		})
	}
	wg.Wait()
	proxy.Lose(storetest.Nothing, "")
	t.Logf("%d answers lost, %d Updates acknowledged, of %d it is unknown", proxy.Lost(), done.Load(), unknown.Load())
	if n := int64(value(t, s, id)); n < done.Load() || n > done.Load()+unknown.Load() {
		t.Errorf("%d Updates were acknowledged and %d not, and %d are there", done.Load(), unknown.Load(), n)
	}
	if proxy.Lost() < 30 || done.Load() == 0 {
		t.Error("that is not an attack")
	}
}

// A session that lives on is not reaped, not even if it is renewed while the reaper looks at it.
func TestReaper(t *testing.T) {
	t.Parallel()
	url := database(t)
	pool := connect(t, url)
	s := open(t, pool, &pgstore.Options{TouchAfter: -1})
	must(t, s.Set(ctx, id, with(1, -time.Second)))
	must(t, s.Set(ctx, "over", with(1, -time.Second)))
	tx, err := pool.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, "UPDATE session SET expire = to_timestamp(extract(epoch FROM now()) + 3600) WHERE sid = $1", id) // as Node revives it
	must(t, err)
	if n, err := s.Reap(ctx); n != 1 || err != nil {
		t.Errorf("Reap beside one that is renewed = %d, %v, want 1, the other one", n, err)
	}
	must(t, tx.Commit(ctx))
	value(t, s, id)

	p := storetest.Start(t, "reap", url)
	p.Line(t)
	const life = 2 * time.Second
	var touched [20]time.Time // when each was accessed last
	slow := 0
	for began := time.Now(); time.Since(began) < 4*life; {
		for i := range touched {
			id, before := fmt.Sprint("s", i), time.Now()
			err := s.Touch(ctx, id, nil)
			if errors.Is(err, filestore.ErrNotFound) && time.Since(touched[i]) > life { // at first, and if the machine is busy
				slow++
				err = s.Set(ctx, id, with(i, life))
			}
			if err != nil {
				t.Fatalf("Touch of a session of %v, %v after the last one, = %v", life, time.Since(touched[i]), err)
			}
			touched[i] = before
		}
	}
	t.Logf("%d sessions ended, as the machine is too slow", slow-len(touched))

	// Many are reaped at once.
	p.Kill()
	_, err = pool.Exec(ctx, `INSERT INTO session SELECT 'x' || n, '{}', to_timestamp(extract(epoch FROM now()) - 10) FROM generate_series(1, 4321) n`)
	must(t, err)
	var mu sync.Mutex
	told := 0
	s.OnReap(func(n int) { mu.Lock(); told += n; mu.Unlock() })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.Reap(ctx); err != nil {
				t.Errorf("Reap beside others = %v", err)
			}
		})
	}
	wg.Wait()
	s.Reap(ctx)
	if told < 4321 || ask[int](t, pool, "SELECT count(*) FROM session WHERE sess::text = '{}'") != 0 {
		t.Errorf("%d of 4,321 rows were reaped", told)
	}
}

// The work of the reaper grows with what it removes and not faster, also if the server plans for a table in which no
// session is over.
func TestReaperPlan(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, &pgstore.Options{Timeout: 20 * time.Second})
	const over = 20_000
	insert := func(prefix string, n, left int) {
		_, err := pool.Exec(ctx, `INSERT INTO session SELECT $1 || n, '{"cookie":{}}', to_timestamp(extract(epoch FROM now()) + $2) FROM generate_series(1, $3) n`, prefix, left, n)
		must(t, err)
	}
	insert("live", 100, 1000)
	_, err := pool.Exec(ctx, "ANALYZE session")
	must(t, err)
	insert("over", over, -10)
	if n, err := s.Reap(ctx); n != over || err != nil {
		t.Errorf("Reap = %d, %v, want %d", n, err, over)
	}
	if n, err := s.Len(ctx); n != 100 || err != nil {
		t.Errorf("Len = %d, %v, want those that live", n, err)
	}
}

// The reaper runs by itself.
func TestBackgroundReaper(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, &pgstore.Options{ReapInterval: 50 * time.Millisecond})
	reaped := make(chan int, 1)
	s.OnReap(func(n int) { reaped <- n })
	must(t, s.Set(ctx, id, with(1, -time.Second)))
	select {
	case n := <-reaped:
		if n != 1 {
			t.Errorf("%d rows were reaped, want 1", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was reaped within 10 s")
	}
}

// A standby is not read from. When it is promoted, the sessions that it has got are there, and the Store goes on there.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := storetest.Postgres(t)
	standby := primary.Standby(t)
	if _, err := pgstore.New(connect(t, standby.URL("")), nil); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("New on a standby = %v, want an error that says so", err)
	}
	url := fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write", standby.Addr, primary.Addr)
	pool := connect(t, url)
	s := open(t, pool, nil)
	const sessions = 50
	for i := range sessions {
		must(t, s.Create(ctx, fmt.Sprint("s", i), with(i, 0)))
		must(t, s.Update(ctx, fmt.Sprint("s", i), add))
	}
	must(t, s.Destroy(ctx, "s0"))
	behind := "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= $1::text::pg_lsn"
	at := ask[string](t, pool, "SELECT pg_current_wal_lsn()::text")
	for began := time.Now(); ask[int](t, pool, behind, at) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the standby does not follow")
		}
	}
	primary.Kill()
	if err := s.Set(ctx, "s1", with(0, 0)); err == nil {
		t.Error("Set without a primary = nil")
	}
	conn, err := pgx.Connect(ctx, standby.URL(""))
	must(t, err)
	defer conn.Close(ctx)
	began := time.Now()
	_, err = conn.Exec(ctx, "SELECT pg_promote()")
	must(t, err)
	works(t, s)
	t.Logf("works %v after the promotion began", time.Since(began))
	for i := range sessions {
		if i == 0 {
			if _, err := s.Get(ctx, "s0"); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Get of a destroyed session = %v", err)
			}
		} else if n := value(t, s, fmt.Sprint("s", i)); n != i+1 {
			t.Errorf("session %d has %d, want %d", i, n, i+1)
		}
	}
	must(t, s.Update(ctx, "s1", add))
}

// A full disk is an error, which leaves what was there.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	server := storetest.Postgres(t)
	dir := server.Dir + "/small"
	must(t, os.Mkdir(dir, 0o700))
	fi, err := os.Stat(server.Dir)
	must(t, err)
	owner := fi.Sys().(*syscall.Stat_t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=5m,mode=700,uid=%d,gid=%d", owner.Uid, owner.Gid)); err != nil {
		skip.Test(t, "no file system can be mounted: "+err.Error())
	}
	t.Cleanup(func() { server.Kill(); syscall.Unmount(dir, 0) })
	must(t, os.WriteFile(dir+"/reserve", make([]byte, 1<<20), 0o600))
	run(t, server.URL(""), "CREATE TABLESPACE small LOCATION '"+dir+"'")
	run(t, server.URL(""), "CREATE DATABASE d", "ALTER DATABASE d SET default_tablespace = small")
	pool := connect(t, server.URL("d"))
	s := open(t, pool, nil)
	fill := func(sess *filestore.Session) *filestore.Session {
		bytes := make([]byte, 1500) // below what would be compressed
		for i := range bytes {
			bytes[i] = 'a' + byte(rand.N(26))
		}
		must(t, sess.Put("fill", string(bytes)))
		return sess
	}
	n := 0
	for err == nil && n < 10_000 {
		if err = s.Create(ctx, fmt.Sprint("s", n), fill(with(n, 0))); err == nil {
			n++
		}
	}
	if t.Logf("full after %d sessions", n); err == nil || !strings.Contains(err.Error(), "53100: the server's disk is full") {
		t.Fatalf("Create = %v, want an error that says so", err)
	}
	for i := range n {
		if v := value(t, s, fmt.Sprint("s", i)); v != i {
			t.Errorf("session %d has %d", i, v)
		}
	}
	for i := range n / 2 { // a logout needs no room
		must(t, s.Destroy(ctx, fmt.Sprint("s", i)))
	}
	must(t, os.Remove(dir+"/reserve"))
	must(t, s.Create(ctx, "again", fill(with(1, 0))))
	must(t, s.Update(ctx, "again", add))
}

// An operation ends with its context.
func TestContext(t *testing.T) {
	t.Parallel()
	s := open(t, connect(t, database(t)), nil)
	own, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Get(own, id); !errors.Is(err, context.Canceled) {
		t.Errorf("Get with a context that is done = %v", err)
	}
}
