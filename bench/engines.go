package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	scsmysql "github.com/alexedwards/scs/mysqlstore"
	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/backend/redisstore"
)

// many is how many goroutines there are in the rows for many at once, and how many connections to a server each
// contender may have.
const many = 16

// An engine is a server that one of the backends keeps sessions on.
type engine struct {
	name    string // begins its rows
	promise string // its promise of durability, as it is started here
	ours    string // the backend, with which the others are compared

	// start starts the server, with its data in the directory dir, and returns the Go contenders on it and its port.
	start func(dir string) (rivals []rival, port int, err error)
	node  string // the store of express-session
}

var engines = []engine{
	{"Redis", "appendonly, flushed each second: a crash of the machine takes back the last second",
		"redisstore", startRedisFor, "connect-redis"},
	{"PostgreSQL", "its defaults: each commit is flushed", "pgstore", startPostgres, "connect-pg-simple"},
	{"MariaDB", "its defaults: each commit is flushed", "mysqlstore", startMariaDB, "express-mysql-session"},
}

// A rival is a contender on a server, or filestore's files beside those.
type rival struct {
	name  string
	store *store
	site  func() (site, error)
}

// alwaysTouch is added to the name of a backend with a negative TouchAfter, by which each Touch writes.
const alwaysTouch = ", TouchAfter -1"

// ours returns a backend, and the same one with a negative TouchAfter, which has nothing but Touch.
func ours[S ourStore](name string, open func(touchAfter time.Duration) (S, error)) ([]rival, error) {
	s, err1 := open(0)
	always, err2 := open(-1)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return []rival{
		{name, storeOf(s), func() (site, error) { return managerSite(s), nil }},
		{name + alwaysTouch, &store{touch: storeOf(always).touch}, nil},
	}, nil
}

// scsRival returns a store of scs. Its Get and Set are no Update, as a change between them is lost.
func scsRival(name string, s *store, st scs.Store) rival {
	s.update = nil
	return rival{name, s, func() (site, error) { return scsSite(st, nil), nil }}
}

// nodeRival returns a store of express-session.
func nodeRival(name string, port int) (rival, error) {
	c, _, err := startNode("peers/engines.js")
	if err == nil {
		_, err = c.do(request{Op: "open", Store: name, Port: port, Conns: many, Doc: document(values(*payload))})
	}
	if err != nil {
		return rival{}, err
	}
	return rival{name, &store{child: c}, func() (site, error) {
		a, err := c.do(request{Op: "listen"})
		return site{addr: fmt.Sprint("127.0.0.1:", a.N)}, err
	}}, nil
}

// filesRival returns filestore's files, whose Touch always writes here.
func filesRival(dir string) (rival, error) {
	spread(dir)
	e := &env{dir: dir, shared: dir}
	s, err := openFilestore(filestore.Options{TouchAfter: -1})(e)
	return rival{"filestore", s, func() (site, error) { return filestoreSite(e, false) }}, err
}

// has reports whether the contender has an operation.
func (r rival) has(op string) bool {
	if r.store.child != nil {
		return op != "update"
	}
	return r.store.operation(op) != nil
}

// startRedisFor starts a redis-server that keeps its data.
func startRedisFor(dir string) ([]rival, int, error) {
	port, err := startRedis(dir, "--appendonly", "yes", "--appendfsync", "everysec")
	if err != nil {
		return nil, 0, err
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", port), ContextTimeoutEnabled: true})
	atExit(func() { client.Close() })
	rivals, err := ours("redisstore", func(touchAfter time.Duration) (*redisstore.Store, error) {
		return redisstore.New(client, &redisstore.Options{TouchAfter: touchAfter})
	})
	return append(rivals, scsRival("scs goredisstore", newRedis(client), goredisstore.New(client))), port, err
}

func startPostgres(dir string) ([]rival, int, error) {
	as, err := give(dir, "postgres")
	if err != nil {
		return nil, 0, err
	}
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	err = setUp(dir, as,
		"initdb", "-D", "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if err != nil {
		return nil, 0, err
	}
	ctx := context.Background()
	pool, err := pgxpool.New(ctx,
		fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&pool_max_conns=%d", port, many))
	if err != nil {
		return nil, 0, err
	}
	err = startServer(func() error { return pool.Ping(ctx) }, syscall.SIGINT, dir, as,
		"postgres", "-D", "data", "-p", fmt.Sprint(port), "-h", "127.0.0.1", "-k", "")
	atExit(pool.Close)
	if err != nil {
		return nil, 0, err
	}
	_, err = pool.Exec(ctx, `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL);
		CREATE INDEX sessions_expiry_idx ON sessions (expiry);`)
	if err != nil {
		return nil, 0, err
	}
	rivals, err := ours("pgstore", func(touchAfter time.Duration) (*pgstore.Store, error) {
		return pgstore.New(pool, &pgstore.Options{
			Table: "ours", CreateTable: true, TouchAfter: touchAfter, ReapInterval: -1})
	})
	m := pgxstore.NewWithCleanupInterval(pool, 0)
	return append(rivals, scsRival("scs pgxstore", newSCS(m.Find, m.Commit, m.Delete, m.All), m)), port, err
}

func startMariaDB(dir string) ([]rival, int, error) {
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	own := []string{"--no-defaults", "--datadir=" + dir + "/data", "--skip-name-resolve"}
	if syscall.Getuid() == 0 {
		own = append(own, "--user=root")
	}
	install := []string{"mariadb-install-db", "--auth-root-authentication-method=normal", "--skip-test-db"}
	if err := setUp(dir, nil, append(install, own...)...); err != nil {
		return nil, 0, err
	}
	mysql.SetLogger(log.New(io.Discard, "", 0)) // of the attempts until the server is there
	dsn := func(database string) string {
		const options = "?clientFoundRows=true&innodb_lock_wait_timeout=4&interpolateParams=true"
		return fmt.Sprintf("root@tcp(127.0.0.1:%d)/%s%s", port, database, options)
	}
	admin, err := sql.Open("mysql", dsn(""))
	if err != nil {
		return nil, 0, err
	}
	defer admin.Close()
	err = startServer(admin.Ping, syscall.SIGTERM, dir, nil, append([]string{"mariadbd"}, append(own,
		"--bind-address=127.0.0.1", fmt.Sprint("--port=", port), "--socket=socket", "--pid-file=pid")...)...)
	if err == nil {
		_, err = admin.Exec("CREATE DATABASE bench")
	}
	if err != nil {
		return nil, 0, err
	}
	db, err := sql.Open("mysql", dsn("bench"))
	if err != nil {
		return nil, 0, err
	}
	atExit(func() { db.Close() })
	db.SetMaxOpenConns(many)
	db.SetMaxIdleConns(many)
	_, err1 := db.Exec("CREATE TABLE sessions (token CHAR(43) PRIMARY KEY, data BLOB NOT NULL, expiry TIMESTAMP(6) NOT NULL)")
	_, err2 := db.Exec("CREATE INDEX sessions_expiry_idx ON sessions (expiry)")
	if err := cmp.Or(err1, err2); err != nil {
		return nil, 0, err
	}
	rivals, err := ours("mysqlstore", func(touchAfter time.Duration) (*mysqlstore.Store, error) {
		return mysqlstore.New(db, &mysqlstore.Options{
			Table: "ours", CreateTable: true, TouchAfter: touchAfter, ReapInterval: -1})
	})
	m := scsmysql.NewWithCleanupInterval(db, 0)
	return append(rivals, scsRival("scs mysqlstore", newSCS(m.Find, m.Commit, m.Delete, m.All), m)), port, err
}

// measureEngines measures the backends, one server after the other.
func (t *table) measureEngines() error {
	for _, e := range engines {
		if err := t.measureEngine(e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		cleanUp() // the next one has the machine for itself
	}
	return nil
}

func (t *table) measureEngine(e engine) error {
	dir, err := os.MkdirTemp(*dirFlag, "filestore-bench-")
	if err != nil {
		return err
	}
	atExit(func() { os.RemoveAll(dir) })
	ofServer, ofFiles := filepath.Join(dir, "server"), filepath.Join(dir, "files")
	// Other users must get through to the server's.
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(ofServer, 0o700), os.Mkdir(ofFiles, 0o700)); err != nil {
		return err
	}
	rivals, port, err := e.start(ofServer)
	if errors.Is(err, errNotHere) {
		fmt.Printf("%s: left out: %v\n", e.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	if peersOnly.MatchString(e.node) {
		node, err := nodeRival(e.node, port)
		if err != nil {
			fmt.Printf("%s: left out: %v\n", e.node, err)
		} else {
			rivals = append(rivals, node)
		}
	}
	files, err := filesRival(ofFiles)
	if err != nil {
		return err
	}
	rivals = append(rivals, files)
	rivals = slices.DeleteFunc(rivals, func(r rival) bool { return !peersOnly.MatchString(r.name) })
	all := ids(0, *sessionCount)
	for _, r := range rivals {
		if r.has("set") {
			if _, err := r.store.together("set", all, many); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	time.Sleep(settled)
	for _, op := range []string{"Get", "Set", "Touch", "Update"} {
		best := e.ours
		if op == "Touch" {
			best += alwaysTouch
		}
		for _, workers := range []int{1, many} {
			t.batches(engineRow(e.name, op, workers), best, engineEntries(rivals, all, strings.ToLower(op), workers))
		}
	}
	if *withHTTP {
		return t.engineHTTP(e, rivals)
	}
	return nil
}

func engineRow(engine, op string, workers int) string {
	if workers > 1 {
		return fmt.Sprintf("%s, %s, %d at once", engine, op, workers)
	}
	return engine + ", " + op
}

// engineEntries returns the entries of a row. They take the sessions in turn, so that those at once are others.
func engineEntries(rivals []rival, all []string, op string, workers int) (entries []*entry) {
	for _, r := range rivals {
		en := &entry{name: r.name}
		entries = append(entries, en)
		if !r.has(op) {
			continue
		}
		at := 0
		en.run = func(n int) (time.Duration, error) {
			some := make([]string, n)
			if workers > 1 {
				some = make([]string, max(n, 4*workers)) // so that few wait for the last ones
			}
			for i := range some {
				some[i] = all[(at+i)%len(all)]
			}
			at += len(some)
			d, err := r.store.together(op, some, workers)
			return d * time.Duration(n) / time.Duration(len(some)), err
		}
	}
	if op != "touch" {
		entries = slices.DeleteFunc(entries, func(en *entry) bool { return strings.HasSuffix(en.name, alwaysTouch) })
	}
	return entries
}

// engineHTTP measures requests through the middlewares. Each connection is a user with a session of its own.
func (t *table) engineHTTP(e engine, rivals []rival) error {
	sites := make(map[string]*running)
	for _, r := range rivals {
		if r.site == nil {
			continue
		}
		s, err := r.site()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if s.close != nil {
			defer s.close()
		}
		if sites[r.name], err = s.start(many); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		defer sites[r.name].close()
	}
	for _, op := range []string{"read", "write"} {
		for _, workers := range []int{1, many} {
			row := engineRow(e.name, "HTTP "+op, workers)
			if !opsOnly.MatchString(row) {
				continue
			}
			var entries []*entry
			for _, r := range rivals {
				if r.site != nil {
					entries = append(entries, &entry{name: r.name})
				}
			}
			t.lay(row, e.ours, rate, entries)
			t.rotate(row, entries, func(en *entry) error { return t.load(row, en.name, sites[en.name], "/"+op, workers) })
		}
	}
	return nil
}
