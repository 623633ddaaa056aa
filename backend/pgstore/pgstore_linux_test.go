package pgstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

func TestMain(m *testing.M) { storetest.Main(m, workers) }

var workers = map[string]func(args []string){}

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

// database makes an empty database on the shared server, and returns its connection string.
func database(t testing.TB) string {
	t.Helper()
	server := storetest.SharedPostgres(t)
	name := fmt.Sprint("test", databases.Add(1))
	run(t, server.URL(""), "CREATE DATABASE "+name)
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

// open returns a Store until the end of the test, and makes its table.
func open(t testing.TB, pool *pgxpool.Pool, o *pgstore.Options) *pgstore.Store {
	t.Helper()
	if o == nil {
		o = new(pgstore.Options)
	}
	own := *o
	own.CreateTable = true
	s, err := pgstore.New(pool, &own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// modes are the ways in which pgx can send a statement.
var modes = map[string]pgx.QueryExecMode{
	"CacheStatement": pgx.QueryExecModeCacheStatement,
	"CacheDescribe":  pgx.QueryExecModeCacheDescribe,
	"DescribeExec":   pgx.QueryExecModeDescribeExec,
	"Exec":           pgx.QueryExecModeExec,
	"SimpleProtocol": pgx.QueryExecModeSimpleProtocol,
}

func in(mode pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }
}

// Every promise of session.Store, on a real server, however pgx sends the statements, and with a jsonb column.
func TestStore(t *testing.T) {
	for name, mode := range modes {
		for _, kind := range []string{"json", "jsonb", "text"} {
			if kind != "json" && mode != pgx.QueryExecModeCacheStatement && mode != pgx.QueryExecModeSimpleProtocol {
				continue
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				pool := connect(t, database(t), in(mode))
				var n atomic.Int64
				sessiontest.Run(t, func(t *testing.T) session.Store {
					table := fmt.Sprint("session", n.Add(1))
					s := open(t, pool, &pgstore.Options{Table: table})
					if kind != "json" {
						if _, err := pool.Exec(ctx, "ALTER TABLE "+table+" ALTER sess TYPE "+kind); err != nil {
							t.Fatal(err)
						}
					}
					return s
				})
			})
		}
	}
}
