package pgstore_test

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.Parallel(16)
	storetest.Main(m, workers)
}

// connect returns a pool until the end of the test.
func connect(t testing.TB, url string, set ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range set {
		set(c)
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

var databases atomic.Int64

// database makes a database on the shared server, in which it executes statements, and returns its connection string.
// {} in a statement is the database's name.
func database(t testing.TB, statements ...string) string {
	t.Helper()
	server := storetest.SharedPostgres(t)
	name := fmt.Sprint("test", databases.Add(1))
	run(t, server.URL(""), "CREATE DATABASE "+name)
	for _, s := range statements {
		run(t, server.URL(name), strings.ReplaceAll(s, "{}", name))
	}
	return server.URL(name)
}

// run executes statements on a connection of its own.
func run(t testing.TB, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// open returns a Store until the end of the test, and makes its table. Its Timeout is one for a busy machine.
func open(t testing.TB, pool *pgxpool.Pool, o *pgstore.Options) *pgstore.Store {
	t.Helper()
	if o == nil {
		o = new(pgstore.Options)
	}
	own := *o
	own.CreateTable, own.Timeout = true, cmp.Or(own.Timeout, time.Minute)
	s, err := pgstore.New(pool, &own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// in sets how pgx sends statements.
func in(mode pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) {
		c.ConnConfig.DefaultQueryExecMode = cmp.Or(mode, pgx.QueryExecModeCacheStatement)
	}
}

// Every promise of session.Store, on a real server: however pgx sends the statements, whatever the database's time zone,
// and whatever the server's clock says, which is an hour off. Serializable transactions fail if others are in their way.
func TestStore(t *testing.T) {
	clock := func(by string) []string {
		return []string{
			"CREATE SCHEMA skew",
			"CREATE FUNCTION skew.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT pg_catalog.statement_timestamp() + interval '" + by + "' $$",
			"ALTER DATABASE {} SET search_path = skew, pg_catalog",
		}
	}
	for name, v := range map[string]struct {
		mode  pgx.QueryExecMode
		setup []string
	}{
		"CacheStatement": {},
		"CacheDescribe":  {mode: pgx.QueryExecModeCacheDescribe},
		"DescribeExec":   {mode: pgx.QueryExecModeDescribeExec},
		"Exec":           {mode: pgx.QueryExecModeExec},
		"SimpleProtocol": {mode: pgx.QueryExecModeSimpleProtocol},
		"Tokyo":          {setup: []string{"ALTER DATABASE {} SET timezone = 'Asia/Tokyo'"}},
		"New York":       {setup: []string{"ALTER DATABASE {} SET timezone = 'America/New_York'"}},
		"clock behind":   {setup: clock("-1 hour")},
		"clock ahead":    {setup: clock("1 hour")},
		"serializable":   {setup: []string{"ALTER DATABASE {} SET default_transaction_isolation = serializable"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := connect(t, database(t, v.setup...), in(v.mode))
			var n atomic.Int64
			sessiontest.Run(t, func(t *testing.T) session.Store { // an empty Store each time
				return open(t, pool, &pgstore.Options{Table: fmt.Sprint("session", n.Add(1))})
			})
		})
	}
}

func TestReadme(t *testing.T) { storetest.Readme(t) }
