package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/redisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func cluster(t testing.TB, o *redis.ClusterOptions, servers []*storetest.Server) *redis.ClusterClient {
	t.Helper()
	o.ContextTimeoutEnabled = true
	for _, s := range servers {
		o.Addrs = append(o.Addrs, s.Addr)
	}
	c := redis.NewClusterClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCluster(t *testing.T) {
	servers := storetest.RedisCluster(t)
	c := cluster(t, &redis.ClusterOptions{}, servers)
	t.Run("Store", func(t *testing.T) { testStore(t, c, redisstore.Options{Lifetime: time.Minute}) })
	t.Run("Prefixes", func(t *testing.T) { testPrefixes(t, c) })
	t.Run("Pipelines", func(t *testing.T) { testPipelines(t, c) })
	t.Run("LostAnswers", func(t *testing.T) {
		p := storetest.NewProxy(t)
		testLostAnswers(t, cluster(t, &redis.ClusterOptions{Dialer: p.Dial}, servers), p)
	})
	t.Run("NoScript", func(t *testing.T) {
		s := open(t, c, always)
		for _, server := range servers {
			storetest.RedisCLI(t, server, "SCRIPT", "FLUSH")
		}
		for i := range 20 { // on all masters
			id := fmt.Sprint("script", i)
			if err := errors.Join(s.Create(ctx, id, with("n", 0)), s.Update(ctx, id, add)); err != nil || count(t, s, id) != 1 {
				t.Errorf("Update after SCRIPT FLUSH = %v", err)
			}
		}
	})
	t.Run("Rights", func(t *testing.T) { // those of the README
		for _, server := range servers {
			do(t, client(t, server.Addr), append(rights(t), "+cluster|slots")...)
		}
		if err := use(open(t, cluster(t, &redis.ClusterOptions{Username: "site", Password: "password"}, servers), always)); err != nil {
			t.Errorf("with the README's rights = %v", err)
		}
	})
	t.Run("Plain", func(t *testing.T) { // a client that does not know of the cluster is refused by New or by the server
		for _, server := range servers {
			s, err := redisstore.New(client(t, server.Addr), nil)
			for i := 0; err == nil && i < 100; i++ {
				err = s.Set(ctx, fmt.Sprint("sesame", i), with("hunter2", i))
			}
			if err == nil || secret.MatchString(err.Error()) {
				t.Errorf("with a client that is not of a cluster = %v", err)
			}
		}
	})
	t.Run("Kill", func(t *testing.T) { testKilledMaster(t, servers) }) // the last
}

// What goes in pipelines reaches the master of each key, also if the client has to be told who that is.
func testPipelines(t *testing.T, c *redis.ClusterClient) {
	e := redisstore.OpenEngine(c, "pipelines:")
	var rows []backend.Row
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprint("id", i))
		rows = append(rows, backend.Row{ID: all[i], Doc: fmt.Sprint(i), Left: time.Hour})
	}
	rows[7].Left = -1 // that of a session which has ended
	for round := range 2 {
		stored, err := e.Insert(ctx, rows)
		if err != nil {
			t.Fatal(err)
		}
		for i, ok := range stored {
			if ok != (round == 0 || i == 7) {
				t.Errorf("Insert %d of %d = %v", round, i, ok)
			}
		}
	}
	for i, r := range rows {
		got, err := e.Get(ctx, r.ID)
		if i == 7 {
			if !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Get of what has ended = %v", err)
			}
			continue
		}
		if err != nil || got.Doc != r.Doc {
			t.Errorf("Get = %q, %v, want %q", got.Doc, err, r.Doc)
		}
		if done, err := e.Swap(ctx, r, backend.Row{ID: r.ID, Doc: "x", Left: time.Hour}); !done || err != nil {
			t.Errorf("Swap = %v, %v", done, err)
		}
	}
	if err := e.Delete(ctx, all); err != nil {
		t.Fatal(err)
	}
	for cursor, more := "", true; more; more = cursor != "" {
		rows, next, err := e.Page(ctx, cursor, true)
		if err != nil || len(rows) != 0 {
			t.Fatalf("after Delete there are %d rows, %v", len(rows), err)
		}
		cursor = next
	}
}

// complete fails unless all that lists has what want has.
func complete(t *testing.T, s *redisstore.Store, want map[string]bool) {
	t.Helper()
	got := ids(t, s)
	if len(got) != len(want) {
		t.Errorf("IDs yields %d, want %d", len(got), len(want))
	}
	for _, id := range got {
		if !want[id] {
			t.Errorf("IDs yields %q", id)
		}
	}
	if n, err := s.Len(ctx); n != len(want) || err != nil {
		t.Errorf("Len = %d, %v, want %d", n, err, len(want))
	}
	for what, seq := range map[string]func(func(filestore.Entry, error) bool){"All": s.All(ctx), "Find": s.Find(ctx, "n", "0")} {
		n := 0
		for e, err := range seq {
			if n++; err != nil || !want[e.ID] {
				t.Errorf("%s yields %q, %v", what, e.ID, err)
			}
		}
		if n != len(want) {
			t.Errorf("%s yields %d, want %d", what, n, len(want))
		}
	}
}

// If a master dies, what replicas have stays, and the Store goes on.
func testKilledMaster(t *testing.T, servers []*storetest.Server) {
	c := cluster(t, &redis.ClusterOptions{}, servers)
	s := open(t, c, &redisstore.Options{Prefix: "kill:", TouchAfter: -1})
	all := make(map[string]bool)
	for i := range 600 {
		id := fmt.Sprint("id", i)
		if err := s.Create(ctx, id, with("n", 0)); err != nil {
			t.Fatal(err)
		}
		if all[id] = i%2 == 0; !all[id] {
			delete(all, id)
			if err := s.Destroy(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	complete(t, s, all)
	var victim *storetest.Server
	for _, server := range servers {
		if strings.Contains(storetest.RedisCLI(t, server, "INFO", "replication"), "role:master") {
			if n := strings.TrimSpace(storetest.RedisCLI(t, server, "WAIT", "1", "5000")); n != "1" {
				t.Fatalf("a master is in sync with %s replicas", n)
			}
			victim = server
		}
	}
	e := redisstore.OpenEngine(c, "kill:")
	_, cursor, err := e.Page(ctx, "", false)
	if err != nil {
		t.Fatal(err)
	}
	victim.Kill()
	began := time.Now()
	for id := range all {
		storetest.Eventually(t, "the Store goes on", func() bool {
			err := s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("m", 1) })
			if errors.Is(err, filestore.ErrNotFound) {
				t.Fatal("a session that a replica had is lost")
			}
			return err == nil
		})
	}
	t.Logf("all sessions can be changed %v after kill -9 of a master", time.Since(began))
	if d := time.Since(began); d > 40*time.Second {
		t.Errorf("the Store goes on after %v", d)
	}
	storetest.Eventually(t, "the cluster lists", func() bool { _, err := s.Len(ctx); return err == nil })
	complete(t, s, all)
	if rows, _, err := e.Page(ctx, cursor, false); err == nil {
		t.Errorf("a listing goes on with other masters, and yields %d", len(rows))
	}
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	complete(t, s, nil)
}

// Through Sentinel a Store keeps all promises. After a failover what the replica had is there, and the Store goes on.
func TestSentinel(t *testing.T) {
	master, replica, sentinels := storetest.RedisSentinel(t)
	o := redis.FailoverOptions{MasterName: "mymaster", SentinelAddrs: sentinels, ContextTimeoutEnabled: true}
	only := o
	only.ReplicaOnly = true
	replicas := redis.NewFailoverClient(&only)
	_, err := redisstore.New(replicas, nil)
	refuses(t, "New with ReplicaOnly", err, "replicas")
	replicas.Close()
	c := redis.NewFailoverClient(&o)
	t.Cleanup(func() { c.Close() })
	t.Run("Store", func(t *testing.T) { testStore(t, c, redisstore.Options{}) })

	s := open(t, c, &redisstore.Options{Prefix: "kill:", TouchAfter: -1})
	all := make(map[string]bool)
	for i := range 2000 {
		id := fmt.Sprint("id", i)
		if err := s.Create(ctx, id, with("n", 0)); err != nil {
			t.Fatal(err)
		}
		all[id] = true
	}
	e := redisstore.OpenEngine(c, "kill:")
	_, cursor, err := e.Page(ctx, "", false)
	if err != nil || cursor == "" {
		t.Fatalf("Page = %q, %v", cursor, err)
	}
	if n := strings.TrimSpace(storetest.RedisCLI(t, master, "WAIT", "1", "5000")); n != "1" {
		t.Fatalf("the master is in sync with %s replicas", n)
	}
	master.Kill()
	began := time.Now()
	storetest.Eventually(t, "the Store goes on", func() bool { return s.Touch(ctx, "id0", nil) == nil })
	t.Logf("the Store goes on %v after kill -9 of the master", time.Since(began))
	if d := time.Since(began); d > 40*time.Second {
		t.Errorf("the Store goes on after %v", d)
	}
	if rows, _, err := e.Page(ctx, cursor, false); err == nil {
		t.Errorf("a listing goes on with another master, and yields %d", len(rows))
	}
	complete(t, s, all)
	if role := storetest.RedisCLI(t, replica, "ROLE"); !strings.HasPrefix(role, "master") {
		t.Errorf("the replica is %q", role)
	}
	master.Start(t) // empty, and for a moment not yet a replica
	for range 20 {
		if err := s.Update(ctx, "id0", func(sess *filestore.Session) error { return sess.Put("m", 1) }); err != nil {
			t.Errorf("Update beside the old master = %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	complete(t, s, all)
}
