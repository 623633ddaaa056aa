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

// A site is a middleware with handlers behind wrap. One logs in, by storing the values, one only reads a value, and
// one reads it and changes another one.
type site struct {
	wrap  func(http.Handler) http.Handler
	login func(w http.ResponseWriter, r *http.Request) error
	read  func(r *http.Request) string
	write func(r *http.Request) error // nil = not measured
	close func()

	addr string // if it is set, another process serves the same
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
	s := managerSite(st)
	s.close = func() { st.Close() }
	return s, nil
}

// managerSite is filestore's middleware on one of its stores, which stays the caller's.
func managerSite(st filesession.Store) site {
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
		write: func(r *http.Request) error { return filesession.From(r).Put("visits", visits()) },
	}
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
		read: func(r *http.Request) string { return m.GetString(r.Context(), "userId") },
		write: func(r *http.Request) error {
			m.Put(r.Context(), "visits", visits())
			return nil
		},
		close: close,
	}
}

// A running is a site that listens, with users who are logged in.
type running struct {
	addr    string
	cookies []string // the lines of each user's request
	close   func()
}

// start lets the site listen and so many users log in.
func (s *site) start(users int) (*running, error) {
	run := &running{addr: s.addr, close: func() {}}
	if run.addr == "" {
		if err := run.listen(s); err != nil {
			return nil, err
		}
	}
	for range users {
		resp, err := http.Get("http://" + run.addr + "/login")
		if err != nil {
			run.close()
			return nil, err
		}
		resp.Body.Close()
		lines := ""
		for _, c := range resp.Cookies() {
			lines += "Cookie: " + c.Name + "=" + c.Value + "\r\n"
		}
		run.cookies = append(run.cookies, lines)
	}
	time.Sleep(settled)
	return run, nil
}

func (run *running) listen(s *site) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fail := func(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusInternalServerError) }
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := s.login(w, r); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(s.read(r), "user") {
			fail(w, errors.New("logged out"))
			return
		}
		io.WriteString(w, "ok")
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(s.read(r), "user") {
			fail(w, errors.New("logged out"))
			return
		}
		if err := s.write(r); err != nil {
			fail(w, err)
			return
		}
		io.WriteString(w, "ok")
	})
	server := &http.Server{Handler: s.wrap(mux)}
	go server.Serve(l)
	run.addr, run.close = l.Addr().String(), func() { server.Close() }
	return nil
}

// load sends requests over some connections, and adds how many a second were answered to a row. The client does as
// little as it can, because it runs on the processors of the server.
func (t *table) load(row, name string, run *running, path string, connections int) error {
	ctx, stop := context.WithTimeout(context.Background(), httpTime)
	defer stop()
	counts := make([]int, connections)
	from := time.Now()
	err := atOnce(connections, func(i int) (err error) {
		counts[i], err = run.ask(ctx, path, run.cookies[i%len(run.cookies)])
		return err
	})
	n := 0
	for _, count := range counts {
		n += count
	}
	t.add(row, name, rate, float64(n)/time.Since(from).Seconds())
	return err
}

// ask sends one request after the other, with the lines of a user, until ctx is done.
func (run *running) ask(ctx context.Context, path, lines string) (n int, err error) {
	conn, err := net.Dial("tcp", run.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + run.addr + "\r\n" + lines + "\r\n")
	r := bufio.NewReader(conn)
	for ; ctx.Err() == nil; n++ {
		if _, err := conn.Write(request); err != nil {
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
			sites[m.name], err = s.start(1)
		}
		if err != nil {
			fmt.Printf("%s: %s: %s: left out: %v\n", t.fs, row, m.name, err)
			continue
		}
		defer sites[m.name].close()
		entries = append(entries, &entry{name: m.name})
	}
	t.lay(row, "scs memory", rate, entries)
	t.rotate(row, entries, func(e *entry) error { return t.load(row, e.name, sites[e.name], "/read", connections) })
}
