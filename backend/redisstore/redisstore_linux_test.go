package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore/backend/redisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

func TestMain(m *testing.M) { storetest.Main(m, workers) }

var workers = map[string]func(args []string){}

func client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, c redis.UniversalClient, o *redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Every promise of session.Store, on a real server.
func TestStore(t *testing.T) {
	server := storetest.Redis(t)
	c := client(t, server.Addr)
	var n atomic.Int64
	sessiontest.Run(t, func(t *testing.T) session.Store { // an empty Store each time, on one server
		return open(t, c, &redisstore.Options{Prefix: fmt.Sprint("sess", n.Add(1), ":")})
	})
}
