package open_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func TestMain(m *testing.M) {
	logging.Disable()
	storetest.Main(m, nil)
}

// secret is in each URL, and must be in no error.
const secret = "hunter2"

// wantError fails the test unless the URL is refused within the time, by an error that does not show it.
func wantError(t *testing.T, url string, within time.Duration) error {
	t.Helper()
	start := time.Now()
	s, err := open.Open(t.Context(), url, &open.Options{Timeout: time.Second, ReapInterval: -1})
	if err == nil {
		s.Close()
		t.Errorf("Open(%q) opens a Store", url)
		return nil
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("Open(%q) = %q", url, err)
	}
	if took := time.Since(start); took > within {
		t.Errorf("Open(%q) takes %v", url, took)
	}
	return err
}

func TestHostileURLs(t *testing.T) {
	for _, url := range []string{
		"", "x", "://", "hunter2", "hunter2://h", "file:/tmp", "http://anna:hunter2@h", "sqlite:hunter2", "REDIS", "redis",
	} {
		if err := wantError(t, url, 5*time.Second); err != nil && !errors.Is(err, open.ErrScheme) && url != "://" {
			t.Errorf("Open(%q) = %v, want ErrScheme", url, err)
		}
	}
	for _, url := range []string{
		"redis://anna:hunter2@127.0.0.1:x", "redis://anna:hunter2@127.0.0.1/hunter2", "redis://anna:hunter2@127.0.0.1/1/2",
		"redis://anna:hunter2@127.0.0.1?hunter2=1", "redis://anna:hunter2@127.0.0.1?prefix=%zz", "redis://anna:hunter2@127.0.0.1?prefix=a;b",
		"redis://anna:hunter2@127.0.0.1?pool_size=hunter2", "redis://anna:hunter2@127.0.0.1?addr=hunter2&pool_size=hunter2", "redis://anna:hunter2@[::1",
		"redis://anna:hunter2@127.0.0.1?master_name=m&pool_size=hunter2", "redis://anna:hunter2@127.0.0.1\x00", "redis://anna:hunter2\x1b@127.0.0.1",
		"postgres://anna:hunter2@127.0.0.1:x/site", "postgres://anna:hunter2@127.0.0.1/site?sslmode=hunter2", "postgres://anna:hunter2@127.0.0.1/site?pool_max_conns=hunter2",
		"postgres://anna:hunter2@127.0.0.1/site?connect_timeout=hunter2", "postgres://anna:%zz@hunter2/site", "postgres://anna:hunter2@127.0.0.1:1/site?table=a.b.c",
		"mysql://anna:hunter2@127.0.0.1:x/site", "mysql://anna:hunter2@127.0.0.1/site?timeout=hunter2", "mysql://anna:hunter2@127.0.0.1/site?tls=hunter2",
		"mysql://anna:hunter2@127.0.0.1:1/site?table=.b", "mysql://anna:hunter2@127.0.0.1/site?collation=hunter2;x", "mysql://anna:hunter2@127.0.0.1:1/%2fhunter2",
		"mongodb://anna:hunter2@127.0.0.1:x/site", "mongodb://anna:hunter2@/site", "mongodb://anna:hunter2@127.0.0.1/site?authMechanism=hunter2",
		"mongodb://anna:hunter2@127.0.0.1/site?connectTimeoutMS=hunter2", "mongodb://127.0.0.1:1/site?replicaSet=&w=hunter2&journal=hunter2",
	} {
		wantError(t, url, 10*time.Second)
	}
}

// everyKind are the URLs of a server, without the host.
var everyKind = []string{
	"redis://anna:hunter2@HOST", "redis://anna:hunter2@HOST?addr=HOST", "redis://anna:hunter2@HOST?master_name=m&sentinel_password=hunter2",
	"postgres://anna:hunter2@HOST/site", "mysql://anna:hunter2@HOST/site", "mongodb://anna:hunter2@HOST/site",
}

// A server that is not there, or says nothing, keeps nobody waiting.
func TestUnreachable(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
		}
	})
	defer func() {
		mute.Close()
		conns.Wait()
		for _, c := range open {
			c.Close()
		}
	}()
	for _, kind := range everyKind {
		wantError(t, strings.ReplaceAll(kind, "HOST", "127.0.0.1:1"), 15*time.Second)
		wantError(t, strings.ReplaceAll(kind, "HOST", mute.Addr().String()), 15*time.Second)
	}
}
