package storetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Redis starts a redis-server with these options.
func Redis(t testing.TB, options ...string) *Server {
	t.Helper()
	return redis(t, FreePort(t), options...)
}

func redis(t testing.TB, port string, options ...string) *Server {
	t.Helper()
	path := Need(t, "redis-server")[0]
	dir := t.TempDir()
	return StartServer(t, dir, port, nil, path, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "",
		"--repl-diskless-sync-delay", "0"}, options...)...)
}

// RedisCLI returns what redis-cli prints for a command to the server.
func RedisCLI(t testing.TB, s *Server, args ...string) string {
	t.Helper()
	return RunProgram(t, nil, Need(t, "redis-cli")[0], append([]string{"-p", s.Port}, args...)...)
}

// RedisCluster starts six servers, and makes them a cluster of three masters with a replica each, which are in sync. A
// server that pauses for a second or two, as on a busy machine, is not taken for dead.
func RedisCluster(t testing.TB, options ...string) []*Server {
	t.Helper()
	var all []*Server
	create := []string{"--cluster", "create"}
	for range 6 {
		s := redis(t, FreePort(t), append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "3000"}, options...)...)
		all = append(all, s)
		create = append(create, s.Addr)
	}
	RunProgram(t, nil, Need(t, "redis-cli")[0], append(create, "--cluster-replicas", "1", "--cluster-yes")...)
	for _, s := range all {
		Eventually(t, "the cluster is complete", func() bool {
			role := RedisCLI(t, s, "INFO", "replication")
			return strings.Contains(RedisCLI(t, s, "CLUSTER", "INFO"), "cluster_state:ok") && strings.Count(RedisCLI(t, s, "CLUSTER", "NODES"), " slave ")+
				strings.Count(RedisCLI(t, s, "CLUSTER", "NODES"), ",slave ") == 3 &&
				(strings.Contains(role, "master_link_status:up") || strings.Contains(role, "connected_slaves:1"))
		})
	}
	return all
}

// RedisSentinel starts a master and a replica, which is in sync, and three Sentinels, which watch over them as "mymaster".
func RedisSentinel(t testing.TB, options ...string) (master, replica *Server, sentinels []string) {
	t.Helper()
	master = Redis(t, options...)
	replica = Redis(t, append(options, "--replicaof", "127.0.0.1 "+master.Port)...)
	Eventually(t, "the replica is in sync", func() bool {
		return strings.Contains(RedisCLI(t, replica, "INFO", "replication"), "master_link_status:up")
	})
	path := Need(t, "redis-server")[0]
	var all []*Server
	for range 3 {
		dir, port := t.TempDir(), FreePort(t)
		conf := filepath.Join(dir, "sentinel.conf")
		if err := os.WriteFile(conf, []byte("port "+port+"\nbind 127.0.0.1\ndir "+dir+"\nsentinel monitor mymaster 127.0.0.1 "+master.Port+" 2\n"+
			"sentinel down-after-milliseconds mymaster 2000\nsentinel failover-timeout mymaster 2000\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, StartServer(t, dir, port, nil, path, conf, "--sentinel"))
	}
	for _, s := range all {
		sentinels = append(sentinels, s.Addr)
		Eventually(t, "the Sentinels know each other and the replica", func() bool {
			known := RedisCLI(t, s, "SENTINEL", "MASTER", "mymaster")
			return strings.Contains(known, "num-other-sentinels\n2\n") && strings.Contains(known, "num-slaves\n1\n")
		})
	}
	return master, replica, sentinels
}
