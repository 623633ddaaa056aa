package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	chisession "gitea.com/go-chi/session"
	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/sqlite3store"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gorilla/sessions"
	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	filesession "github.com/sessionfilestore/filestore/session"
)

const (
	httpTime    = 250 * time.Millisecond // for one middleware in one round
	connections = 8
)

// A site is a middleware with two handlers behind wrap. One logs in, by storing the values, and one only
// reads a value.
type site struct {
	wrap  func(http.Handler) http.Handler
	login func(w http.ResponseWriter, r *http.Request) error
	read  func(r *http.Request) string
	close func()
}

var siteMakers = []struct {
	name string
	make func(e *env) (site, error)
}{
	{"no session", func(*env) (site, error) {
		return site{
			wrap:  func(h http.Handler) http.Handler { return h },
			login: func(http.ResponseWriter, *http.Request) error { return nil },
			read:  func(*http.Request) string { return "user" },
		}, nil
	}},
	{"filestore NoSync", func(e *env) (site, error) { return filestoreSite(e, true) }},
	{"filestore", func(e *env) (site, error) { return filestoreSite(e, false) }},
	{"gorilla", gorillaSite},
	{"go-chi", chiSite},
	{"scs memory", func(*env) (site, error) { return scsSite(memstore.NewWithCleanupInterval(0), nil), nil }},
	{"scs sqlite", func(e *env) (site, error) {
		db, err := newSQLite(e, "NORMAL")
		if err != nil {
			return site{}, err
		}
		return scsSite(sqlite3store.NewWithCleanupInterval(db, 0), func() { db.Close() }), nil
	}},
	{"scs redis", func(e *env) (site, error) {
		if e.redis == "" {
			return site{}, errors.New("no redis-server here")
		}
		client := redis.NewClient(&redis.Options{Addr: e.redis})
		return scsSite(goredisstore.New(client), func() { client.Close() }), nil
	}},
}

func filestoreSite(e *env, noSync bool) (site, error) {
	dir := filepath.Join(e.dir, fmt.Sprintf("http-%v", noSync))
	st, err := filestore.Open(dir, &filestore.Options{TTL: ttl, ReapInterval: -1, NoSync: noSync})
	if err != nil {
		return site{}, err
	}
	m := &filesession.Manager{Store: st, Secrets: []string{"keyboard cat"}}
	return site{
		wrap: m.Handler,
		login: func(_ http.ResponseWriter, r *http.Request) (err error) {
			for key, v := range values(*payload) {
				err = errors.Join(err, filesession.From(r).Put(key, v))
			}
			return err
		},
		read: func(r *http.Request) string {
			user, _ := filesession.Value[string](filesession.From(r), "userId")
			return user
		},
		close: func() { st.Close() },
	}, nil
}

func gorillaSite(e *env) (site, error) {
	dir, err := e.newDir()
	fs := sessions.NewFilesystemStore(dir, gorillaKey)
	fs.MaxLength(0)
	return site{
		wrap: func(h http.Handler) http.Handler { return h },
		login: func(w http.ResponseWriter, r *http.Request) error {
			sess, _ := fs.Get(r, "session")
			for key, v := range values(*payload) {
				sess.Values[key] = v
			}
			return sess.Save(r, w)
		},
		read: func(r *http.Request) string {
			sess, err := fs.Get(r, "session")
			if err != nil {
				return ""
			}
			user, _ := sess.Values["userId"].(string)
			return user
		},
	}, err
}

func chiSite(e *env) (site, error) {
	dir, err := e.newDir()
	if err != nil {
		return site{}, err
	}
	wrap, err := chisession.Sessioner(chisession.Options{Provider: "file", ProviderConfig: dir, IDLength: 32})
	return site{
		wrap: wrap,
		login: func(_ http.ResponseWriter, r *http.Request) (err error) {
			for key, v := range values(*payload) {
				err = errors.Join(err, chisession.GetSession(r).Set(key, v))
			}
			return err
		},
		read: func(r *http.Request) string {
			user, _ := chisession.GetSession(r).Get("userId").(string)
			return user
		},
	}, err
}

func scsSite(st scs.Store, close func()) site {
	m := scs.New()
	m.Store = st
	return site{
		wrap: m.LoadAndSave,
		login: func(_ http.ResponseWriter, r *http.Request) error {
			for key, v := range values(*payload) {
				m.Put(r.Context(), key, v)
			}
			return nil
		},
		read:  func(r *http.Request) string { return m.GetString(r.Context(), "userId") },
		close: close,
	}
}

// A running is a site that listens, with one user, who is logged in.
type running struct {
	addr    string
	request []byte
	server  *http.Server
}

func (s *site) start() (*running, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := s.login(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(s.read(r), "user") {
			http.Error(w, "logged out", http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "ok")
	})
	run := &running{addr: l.Addr().String(), server: &http.Server{Handler: s.wrap(mux)}}
	go run.server.Serve(l)
	resp, err := http.Get("http://" + run.addr + "/login")
	if err != nil {
		run.server.Close()
		return nil, err
	}
	resp.Body.Close()
	req := "GET / HTTP/1.1\r\nHost: " + run.addr + "\r\n"
	for _, c := range resp.Cookies() {
		req += "Cookie: " + c.Name + "=" + c.Value + "\r\n"
	}
	run.request = []byte(req + "\r\n")
	time.Sleep(settled)
	return run, nil
}

// load sends requests over some connections. Its client does as little as it can, because it runs on the
// processors of the server.
func (run *running) load() (n int, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx, stop := context.WithTimeout(context.Background(), httpTime)
	defer stop()
	for range connections {
		wg.Go(func() {
			my, myErr := run.ask(ctx)
			mu.Lock()
			defer mu.Unlock()
			n, err = n+my, errors.Join(err, myErr)
		})
	}
	wg.Wait()
	return n, err
}

func (run *running) ask(ctx context.Context) (n int, err error) {
	conn, err := net.Dial("tcp", run.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	for ; ctx.Err() == nil; n++ {
		if _, err := conn.Write(run.request); err != nil {
			return n, err
		}
		for i := 0; ; i++ {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return n, err
			}
			if i == 0 && !strings.HasPrefix(string(line), "HTTP/1.1 200 ") {
				return n, fmt.Errorf("answer: %s", line)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(len("ok")); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (t *table) http(e *env) {
	const row = "HTTP, read only"
	if !opsOnly.MatchString(row) {
		return
	}
	var entries []*entry
	sites := make(map[string]*running)
	for _, m := range siteMakers {
		if m.name != "no session" && !peersOnly.MatchString(m.name) {
			continue
		}
		s, err := m.make(e)
		if s.close != nil {
			defer s.close()
		}
		if err == nil {
			sites[m.name], err = s.start()
		}
		if err != nil {
			fmt.Printf("%s: %s: %s: left out: %v\n", t.fs, row, m.name, err)
			continue
		}
		defer sites[m.name].server.Close()
		entries = append(entries, &entry{name: m.name})
	}
	t.lay(row, "scs memory", rate, entries)
	t.rotate(row, entries, func(e *entry) error {
		from := time.Now()
		n, err := sites[e.name].load()
		t.add(row, e.name, rate, float64(n)/time.Since(from).Seconds())
		return err
	})
}
