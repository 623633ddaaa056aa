package open_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

const id = "a-session"

// openURL opens a Store, which it expects to work, and stores the session id.
func openURL(t *testing.T, url string, o *open.Options) *open.Store {
	t.Helper()
	s, err := open.Open(t.Context(), url, o)
	if err != nil {
		t.Fatalf("Open(%q) = %v", url, err)
	}
	t.Cleanup(func() { s.Close() })
	sess := new(filestore.Session)
	if err := sess.Put("user", "anna"); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(t.Context(), id, sess); err != nil {
		t.Fatalf("Open(%q): Set = %v", url, err)
	}
	if _, err := s.Get(t.Context(), id); err != nil {
		t.Errorf("Open(%q): Get = %v", url, err)
	}
	return s
}

// try calls fn until it succeeds.
func try(t *testing.T, fn func() error) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := fn()
		if err == nil {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal(err)
		}
	}
}

func TestRedis(t *testing.T) {
	server := storetest.Redis(t, "--requirepass", secret)
	client := func(db int) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: server.Addr, Password: secret, DB: db})
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, c := range []struct {
		url string
		db  int
		key string
	}{
		{"redis://:hunter2@HOST", 0, "sess:" + id},
		{"redis://default:hunter2@HOST/3", 3, "sess:" + id},
		{"redis://:hunter2@HOST/4?prefix=site%2F%3F%26*:", 4, "site/?&*:" + id},
		{"redis://:hunter2@HOST?db=5&prefix=a&pool_size=3", 5, "a" + id},
	} {
		openURL(t, strings.ReplaceAll(c.url, "HOST", server.Addr), nil)
		keys, err := client(c.db).Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 1 || keys[0] != c.key {
			t.Errorf("Open(%q) stores %q, %v, want %q", c.url, keys, err, c.key)
		}
	}
	wantError(t, "redis://:not-hunter2@"+server.Addr, 10*time.Second)
	wantError(t, "redis://hunter2:hunter2@"+server.Addr, 10*time.Second)
}

func TestRedisCluster(t *testing.T) {
	server := storetest.Redis(t, "--cluster-enabled", "yes")
	c := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer c.Close()
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	try(t, func() error { return c.Set(t.Context(), "x", "", time.Second).Err() })
	s := openURL(t, fmt.Sprintf("redis://%s?addr=%[1]s&prefix=s:", server.Addr), nil)
	if n, err := c.Exists(t.Context(), "s:"+id).Result(); n != 1 || err != nil {
		t.Errorf("the session's key is there %d times, %v", n, err)
	}
	if err := s.DestroyAll(t.Context(), []string{id, "another-slot", "a-third"}); err != nil {
		t.Error(err)
	}
}

func TestRedisSentinel(t *testing.T) {
	master := storetest.Redis(t)
	dir, port := t.TempDir(), storetest.FreePort(t)
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor site 127.0.0.1 %s 1\n", port, dir, master.Port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := storetest.StartServer(t, dir, port, nil, storetest.Need(t, "redis-server")[0], conf, "--sentinel")
	openURL(t, "redis://"+sentinel.Addr+"/2?master_name=site&prefix=p:", nil)
	c := redis.NewClient(&redis.Options{Addr: master.Addr, DB: 2})
	defer c.Close()
	if n, err := c.Exists(t.Context(), "p:"+id).Result(); n != 1 || err != nil {
		t.Errorf("the session's key is there %d times, %v", n, err)
	}
	wantError(t, "redis://"+sentinel.Addr+"?master_name=hunter2", 15*time.Second)
}

func TestPostgres(t *testing.T) {
	server := storetest.SharedPostgres(t)
	conn, err := pgx.Connect(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "CREATE SCHEMA other"); err != nil {
		t.Fatal(err)
	}
	plain := server.URL("")
	for query, table := range map[string]string{"": "session", "&table=Site": `"Site"`, "&table=other.session": "other.session", "&table=a%22b&pool_max_conns=3": `"a""b"`} {
		wantError(t, plain+query, 10*time.Second) // there is no table
		openURL(t, plain+query, &open.Options{CreateTable: true, ReapInterval: -1})
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); n != 1 || err != nil {
			t.Errorf("%q: the table %s has %d sessions, %v", query, table, n, err)
		}
		openURL(t, strings.Replace(plain, "postgres:", "postgresql:", 1)+query, nil)
	}
	wantError(t, strings.Replace(server.URL("hunter3"), "postgres@", "postgres:hunter2@", 1), 10*time.Second)
}

func TestMySQL(t *testing.T) {
	server := storetest.MariaDB(t, "")
	db, err := sql.Open("mysql", "root@tcp("+server.Addr+")/mysql")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	hard := secret + `p@ss/w:rd?#%&) ` // all that a URL or a data source name could take for its own
	for _, text := range []string{
		"CREATE DATABASE site", "CREATE DATABASE `a-b c`",
		"CREATE USER 'anna'@'%' IDENTIFIED BY '" + hard + "'", "GRANT ALL ON site.* TO 'anna'@'%'", "GRANT ALL ON `a-b c`.* TO 'anna'@'%'",
	} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	user := url.UserPassword("anna", hard)
	for _, c := range []struct{ user, rest, table string }{
		{"root", "/site", "site.sessions"},
		{user.String(), "/site?table=of_anna", "site.of_anna"},
		{user.String(), "/site?table=a-b%20c.x&maxAllowedPacket=4194304", "`a-b c`.x"},
		{user.String(), "/a-b%20c", "`a-b c`.sessions"},
	} {
		u := "mysql://" + c.user + "@" + server.Addr + c.rest
		wantError(t, u, 10*time.Second) // there is no table
		openURL(t, u, &open.Options{CreateTable: true, ReapInterval: -1})
		var n int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+c.table).Scan(&n); n != 1 || err != nil {
			t.Errorf("%q: the table %s has %d sessions, %v", u, c.table, n, err)
		}
	}
	mysql.SetLogger(new(mysql.NopLogger))
	wantError(t, "mysql://anna:hunter2@"+server.Addr+"/site", 10*time.Second)
	wantError(t, "mysql://"+user.String()+"@"+server.Addr+"/mysql", 10*time.Second)
	wantError(t, "mysql://"+user.String()+"@"+server.Addr+"/site?hunter2=1", 10*time.Second)
}

func TestMongo(t *testing.T) {
	server := storetest.Mongo(t)
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.WithoutCancel(t.Context()))
	base, query, _ := strings.Cut(server.URI, "?")
	for _, c := range []struct{ rest, database, collection string }{
		{"?" + query, "test", "sessions"},
		{"site?" + query, "site", "sessions"},
		{"site?collection=of%20anna&" + query, "site", "of anna"},
	} {
		openURL(t, base+c.rest, &open.Options{ReapInterval: -1, NoIndex: true})
		n, err := client.Database(c.database).Collection(c.collection).CountDocuments(t.Context(), bson.D{})
		if n != 1 || err != nil {
			t.Errorf("%q: the collection has %d sessions, %v", c.rest, n, err)
		}
	}
}

// The engine gets what Options say.
func TestOptions(t *testing.T) {
	server := storetest.Redis(t)
	o := &open.Options{TTL: time.Hour, Lifetime: 2 * time.Hour, Timeout: 2 * time.Second, MaxSize: 300}
	s := openURL(t, "redis://"+server.Addr, o)
	if s.TTL() != o.TTL || s.Lifetime() != o.Lifetime {
		t.Errorf("TTL() = %v, Lifetime() = %v", s.TTL(), s.Lifetime())
	}
	large := new(filestore.Session)
	large.Put("x", strings.Repeat("x", 300))
	if err := s.Set(t.Context(), "large", large); err == nil {
		t.Error("MaxSize does not count")
	}
	server.Hang()
	defer server.Continue()
	start := time.Now()
	if _, err := s.Get(t.Context(), id); err == nil || !strings.Contains(err.Error(), "no answer within 2s") || time.Since(start) > 30*time.Second {
		t.Errorf("a server that hangs: %v after %v", err, time.Since(start))
	}
}

// A relay passes what comes to a server, and counts the connections that are open.
type relay struct {
	ln   net.Listener
	open atomic.Int64
	done sync.WaitGroup
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln}
	t.Cleanup(func() { ln.Close(); r.done.Wait() })
	r.done.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			r.open.Add(1)
			r.done.Go(func() {
				defer r.open.Add(-1)
				defer client.Close()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				r.done.Go(func() { io.Copy(client, server); client.Close() })
				io.Copy(server, client)
				server.Close()
			})
		}
	})
	return r
}

// Close closes the client, too: it leaves no connection.
func TestClose(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (addr, url string){
		"Redis": func(t *testing.T) (string, string) {
			s := storetest.Redis(t)
			return s.Addr, "redis://HOST"
		},
		"PostgreSQL": func(t *testing.T) (string, string) {
			s := storetest.SharedPostgres(t)
			return s.Addr, strings.Replace(s.URL(""), s.Addr, "HOST", 1) + "&table=of_close"
		},
		"MySQL": func(t *testing.T) (string, string) {
			return storetest.MariaDB(t, "").Addr, "mysql://root@HOST/mysql"
		},
		"MongoDB": func(t *testing.T) (string, string) {
			s := storetest.Mongo(t)
			u, err := url.Parse(s.URI)
			if err != nil {
				t.Fatal(err)
			}
			return u.Host, "mongodb://HOST/?directConnection=true"
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr, u := start(t)
			r := startRelay(t, addr)
			s := openURL(t, strings.Replace(u, "HOST", r.ln.Addr().String(), 1), &open.Options{CreateTable: true, NoIndex: true})
			if r.open.Load() == 0 {
				t.Fatal("there is no connection: the test tests nothing")
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("a second Close() = %v", err)
			}
			try(t, func() error {
				if n := r.open.Load(); n > 0 {
					return fmt.Errorf("%d connections are open after Close", n)
				}
				return nil
			})
			if _, err := s.Get(t.Context(), id); err == nil {
				t.Error("Get after Close succeeds")
			}
		})
	}
}

// The Manager hears of what the reaper of an engine removes.
func TestOnReap(t *testing.T) {
	t.Parallel()
	for _, e := range storetest.Engines {
		if e.Name == "redis" {
			continue // it has no reaper
		}
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			s := openURL(t, e.URL(t), &open.Options{CreateTable: true, TTL: 5 * time.Second, ReapInterval: 100 * time.Millisecond, NoIndex: true})
			removed := make(chan int, 1)
			s.OnReap(func(n int) { removed <- n })
			select {
			case n := <-removed:
				if n != 1 {
					t.Errorf("the reaper has removed %d sessions, want 1", n)
				}
			case <-time.After(30 * time.Second):
				t.Error("the reaper has told nothing")
			}
		})
	}
}
