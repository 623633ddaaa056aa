package storetest

import (
	"crypto/rand"
	"strings"
	"sync"
	"testing"
)

// An Engine is a kind of server that package backend/open knows.
type Engine struct {
	Name string // the scheme of its URLs

	// URL returns the URL of a place that nothing else uses, on a server that all tests of a package share, until Main
	// ends it. Tests must not stop that. It skips the test if the server is not installed, see Need.
	URL func(testing.TB) string
}

// Engines has all engines.
var Engines = []Engine{
	{"redis", func(t testing.TB) string { return "redis://" + sharedRedis(t).Addr + "/0?prefix=" + newName() + ":" }},
	{"postgres", func(t testing.TB) string {
		t.Helper()
		p, name := SharedPostgres(t), newName()
		RunProgram(t, nil, Need(t, "createdb")[0], "-h", "127.0.0.1", "-p", p.Port, "-U", "postgres", name)
		return p.URL(name)
	}},
	{"mysql", func(t testing.TB) string {
		t.Helper()
		s, name := sharedMariaDB(t), newName()
		RunProgram(t, nil, Need(t, "mariadb")[0], "--no-defaults", "-h", "127.0.0.1", "-P", s.Port, "-u", "root", "-e", "CREATE DATABASE "+name)
		return "mysql://root@" + s.Addr + "/" + name
	}},
	{"mongodb", func(t testing.TB) string {
		server, query, _ := strings.Cut(sharedMongo(t).URI, "?")
		return server + newName() + "?" + query
	}},
}

var (
	sharedRedis   = share(func(t testing.TB) *Server { return Redis(t) })
	sharedMariaDB = share(func(t testing.TB) *Server { return MariaDB(t, "", "--innodb-flush-log-at-trx-commit=0") })
	sharedMongo   = share(Mongo)
)

// newName returns a name for a database.
func newName() string { return "test" + strings.ToLower(rand.Text()) }

// share lets all tests of a package have one server, until Main ends it.
func share[S any](start func(testing.TB) S) func(testing.TB) S {
	var mu sync.Mutex
	var server S
	started := false
	return func(t testing.TB) S {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !started {
			server = start(Lasting(t)) // which may skip the test
			started = true
		}
		return server
	}
}
