package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	chisession "gitea.com/go-chi/session"
	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/sqlite3store"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/gogf/gf/v2/container/gmap"
	"github.com/gogf/gf/v2/os/gsession"
	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
	_ "github.com/mattn/go-sqlite3"
	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	filesession "github.com/sessionfilestore/filestore/session"
)

const ttl = 24 * time.Hour // no session expires by itself during a run

// A contender is a session store.
type contender struct {
	name    string
	promise string // its promise of durability, as found in its source
	durable bool   // a write that has returned survives a power cut, or is at least meant to
	shared  bool   // works on filestore's directory, and so need not be filled
	open    func(e *env) (*store, error)
}

// An env is the place of the contenders in one file system.
type env struct {
	dir    string // used by this run alone
	shared string // in dir, with filestore's format
	redis  string // the address, or ""
}

func (e *env) newDir() (string, error) { return os.MkdirTemp(e.dir, "peer-") }

// fresh returns an env in a new directory.
func (e *env) fresh() (*env, error) {
	dir, err := e.newDir()
	return &env{dir: dir, shared: dir, redis: e.redis}, err
}

// A store is an open contender. An operation that it does not have is nil.
type store struct {
	get     func(id string) (found bool, err error)
	set     func(id string) error
	touch   func(id string) error
	update  func(id string) error
	destroy func(id string) error
	all     func() (n int, err error)
	reap    func() error
	close   func()

	child *child // the process that does the work, if it is another one
	move  func(dir string) error
}

// The limits of the rows that write are contenders, too.
var limits = []contender{
	{name: "limit", shared: true, open: openLimit((*bare).rename, false)},
	{name: "limit, exchange", shared: true, open: openLimit((*bare).exchange, false)},
	{name: "limit", shared: true, durable: true, open: openLimit((*bare).flush, true)},
}

var contenders = []contender{
	{"filestore NoSync", "whole files, no flush; flock between processes; no Update is lost",
		false, true, openFilestore(filestore.Options{NoSync: true})},
	{"filestore", "whole files, on the disk with the directory; flock between processes; no Update is lost",
		true, true, openFilestore(filestore.Options{TouchAfter: -1})}, // each Touch writes
	{"filestore, no cache", "as filestore NoSync, with CacheSize -1",
		false, true, openFilestore(filestore.Options{NoSync: true, CacheSize: -1})},
	{"session-file-store", "whole files, only the file flushed, no destroy; no lock; updates can be lost",
		true, true, openNode},
	{"gorilla", "writes in place: a crash leaves half a file; no flush; lock in the process; updates can be lost",
		false, false, openGorilla},
	{"go-chi", "writes in place: half a file is read as empty; no flush; lock in the process; updates can be lost",
		false, false, openChi},
	{"GoFrame", "writes in place, and readers see it; no flush; no lock; updates can be lost",
		false, false, openGoFrame},
	{"scs memory", "gone with the process; one process; updates can be lost",
		false, false, openMemstore},
	{"scs sqlite", "transactions, WAL, synchronous=NORMAL: no flush per commit; processes; updates can be lost",
		false, false, openSQLite("NORMAL")},
	{"scs sqlite FULL", "the same with synchronous=FULL: the log flushed per commit",
		true, false, openSQLite("FULL")},
	{"scs redis", "a redis-server on loopback, gone with it: no persistence; processes; updates can be lost",
		false, false, openRedis},
}

// An item is one line of a shopping cart.
type item struct {
	SKU   string  `json:"sku"`
	Name  string  `json:"name"`
	Qty   int     `json:"qty"`
	Price float64 `json:"price"`
}

func init() { gob.Register([]item(nil)) }

// values returns the values of a session whose JSON document has about size bytes.
func values(size int) map[string]any {
	cart := []item{{"A-1001", "", 2, 19.9}}
	v := map[string]any{
		"userId": "user-000123", "email": "someone@example.com", "csrfToken": "3f9c0b7e5a1d48c2",
		"visits": 17, "flash": []string{"Welcome"}, "cart": cart,
	}
	for len(document(v)) < size {
		rest := size - len(document(v))
		if rest < 80 {
			cart[len(cart)-1].Name += strings.Repeat("x", rest)
		} else {
			cart = append(cart, item{fmt.Sprintf("A-%d", 1001+len(cart)), "product", 1, 4.5})
		}
		v["cart"] = cart
	}
	return v
}

// session returns v as filestore has it.
func session(v map[string]any) *filestore.Session {
	sess := &filestore.Session{LastAccess: time.Now()}
	for key, value := range v {
		if err := sess.Put(key, value); err != nil {
			panic(err)
		}
	}
	return sess
}

// document returns v as express-session writes it.
func document(v map[string]any) []byte {
	doc, err := session(v).MarshalJSON()
	if err != nil {
		panic(err)
	}
	return doc
}

func openFilestore(o filestore.Options) func(*env) (*store, error) {
	return func(e *env) (*store, error) { return filestoreWith(e.shared, o) }
}

func filestoreIn(dir string, noSync bool, cache int) (*store, error) {
	return filestoreWith(dir, filestore.Options{NoSync: noSync, CacheSize: cache})
}

func filestoreWith(dir string, o filestore.Options) (*store, error) {
	o.TTL, o.ReapInterval = ttl, -1
	o.CacheSize = cmp.Or(o.CacheSize, max(10_000, 2**sessionCount))
	s, err := filestore.Open(dir, &o)
	if err != nil {
		return nil, err
	}
	own := storeOf(s)
	own.all = func() (n int, err error) {
		for _, err := range s.All(context.Background()) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	own.reap = func() error { _, err := s.Reap(context.Background()); return err }
	own.close = func() { s.Close() }
	return own, nil
}

// An ourStore is one of filestore's own stores, on files or a server.
type ourStore interface {
	filesession.Store
	filesession.Toucher
	filesession.Updater
}

func storeOf(s ourStore) *store {
	ctx := context.Background()
	var all []*filestore.Session // which differ, as MySQL does not write what is there already
	for range 90 {
		sess := session(values(*payload))
		sess.Put("visits", visits())
		all = append(all, sess)
	}
	return &store{
		get: func(id string) (bool, error) {
			_, err := s.Get(ctx, id)
			if errors.Is(err, filestore.ErrNotFound) {
				return false, nil
			}
			return err == nil, err
		},
		set:   func(id string) error { return s.Set(ctx, id, all[visits()%len(all)]) },
		touch: func(id string) error { return s.Touch(ctx, id, nil) },
		update: func(id string) error {
			return s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("visits", visits()) })
		},
		destroy: func(id string) error { return s.Destroy(ctx, id) },
		close:   func() {},
	}
}

var visitCount atomic.Int64

// visits returns a number of two digits, which differs from the one before.
func visits() int { return 10 + int(visitCount.Add(1)%90) }

// getSet is update for stores without that operation.
func (s *store) getSet(id string) error {
	if found, err := s.get(id); err != nil || !found {
		return fmt.Errorf("update: found is %v: %w", found, err)
	}
	return s.set(id)
}

var gorillaKey = []byte("0123456789abcdef0123456789abcdef")

// In gorilla only the signed cookie holds the id, so each Get also verifies a cookie.
func openGorilla(e *env) (*store, error) {
	dir, err := e.newDir()
	if err != nil {
		return nil, err
	}
	fs := sessions.NewFilesystemStore(dir, gorillaKey)
	fs.MaxLength(0)
	data := make(map[any]any)
	for key, value := range values(*payload) {
		data[key] = value
	}
	var cookies sync.Map // cookies by id
	request := func(id string) (*http.Request, error) {
		c, ok := cookies.Load(id)
		if !ok {
			signed, err := securecookie.EncodeMulti("session", id, fs.Codecs...)
			if err != nil {
				return nil, err
			}
			c = "session=" + signed
			cookies.Store(id, c)
		}
		return &http.Request{Header: http.Header{"Cookie": {c.(string)}}}, nil
	}
	save := func(id string, maxAge int) error {
		sess := sessions.NewSession(fs, "session")
		sess.ID, sess.Values, sess.Options = id, data, &sessions.Options{MaxAge: maxAge}
		return fs.Save(nil, discard{}, sess)
	}
	s := &store{
		get: func(id string) (bool, error) {
			r, err := request(id)
			if err != nil {
				return false, err
			}
			sess, err := fs.New(r, "session")
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return !sess.IsNew, err
		},
		set:     func(id string) error { return save(id, 86400) },
		destroy: func(id string) error { return save(id, -1) },
		close:   func() {},
	}
	s.update = s.getSet
	return s, nil
}

// discard is a response writer that keeps nothing.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

func openChi(e *env) (*store, error) {
	dir, err := e.newDir()
	if err != nil {
		return nil, err
	}
	p := new(chisession.FileProvider)
	if err := p.Init(int64(ttl/time.Second), dir); err != nil {
		return nil, err
	}
	data := make(map[any]any)
	for key, value := range values(*payload) {
		data[key] = value
	}
	s := &store{
		get: func(id string) (bool, error) { // as its middleware does it
			if found, err := p.Exist(id); err != nil || !found {
				return false, err
			}
			_, err := p.Read(id)
			return err == nil, err
		},
		set: func(id string) error {
			err := chisession.NewFileStore(p, id, data).Release()
			if errors.Is(err, os.ErrNotExist) { // only Read makes the directories
				if _, err := p.Read(id); err != nil {
					return err
				}
				err = chisession.NewFileStore(p, id, data).Release()
			}
			return err
		},
		destroy: func(id string) error {
			if err := p.Destroy(id); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		},
		close: func() {},
	}
	s.update = s.getSet
	return s, nil
}

func openGoFrame(e *env) (*store, error) {
	dir, err := e.newDir()
	if err != nil {
		return nil, err
	}
	f := gsession.NewStorageFile(dir, ttl)
	ctx, data := context.Background(), gmap.NewStrAnyMapFrom(values(*payload), true)
	s := &store{
		get: func(id string) (bool, error) {
			m, err := f.GetSession(ctx, id, ttl)
			return m != nil, err
		},
		set:     func(id string) error { return f.SetSession(ctx, id, data, ttl) },
		touch:   func(id string) error { return f.UpdateTTL(ctx, id, ttl) },
		destroy: func(id string) error { return f.RemoveAll(ctx, id) },
		close:   func() {},
	}
	s.update = s.getSet
	return s, nil
}

// newSCS returns a store of scs with the codec of its middleware.
func newSCS(find func(string) ([]byte, bool, error), commit func(string, []byte, time.Time) error,
	remove func(string) error, all func() (map[string][]byte, error)) *store {
	var codec scs.GobCodec
	data := values(*payload)
	s := &store{
		get: func(id string) (bool, error) {
			b, found, err := find(id)
			if found {
				_, _, err = codec.Decode(b)
			}
			return found, err
		},
		set: func(id string) error {
			deadline := time.Now().Add(ttl)
			b, err := codec.Encode(deadline, data)
			if err != nil {
				return err
			}
			return commit(id, b, deadline)
		},
		destroy: remove,
		all: func() (int, error) {
			docs, err := all()
			for _, b := range docs {
				if _, _, err := codec.Decode(b); err != nil {
					return 0, err
				}
			}
			return len(docs), err
		},
		close: func() {},
	}
	s.update = s.getSet
	return s
}

func openMemstore(*env) (*store, error) {
	m := memstore.NewWithCleanupInterval(0)
	return newSCS(m.Find, m.Commit, m.Delete, m.All), nil
}

func openSQLite(synchronous string) func(*env) (*store, error) {
	return func(e *env) (*store, error) {
		db, err := newSQLite(e, synchronous)
		if err != nil {
			return nil, err
		}
		m := sqlite3store.NewWithCleanupInterval(db, 0)
		s := newSCS(m.Find, m.Commit, m.Delete, m.All)
		s.close = func() { db.Close() }
		return s, nil
	}
}

func newSQLite(e *env, synchronous string) (*sql.DB, error) {
	dir, err := e.newDir()
	if err != nil {
		return nil, err
	}
	const options = "?_journal_mode=WAL&_busy_timeout=10000&_synchronous="
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "sessions.db")+options+synchronous)
	if err != nil {
		return nil, err
	}
	_, err = db.Exec(`CREATE TABLE sessions (token TEXT PRIMARY KEY, data BLOB NOT NULL, expiry REAL NOT NULL);
		CREATE INDEX sessions_expiry_idx ON sessions(expiry);`)
	return db, err
}

func openRedis(e *env) (*store, error) {
	if e.redis == "" {
		return nil, errors.New("no redis-server here")
	}
	client := redis.NewClient(&redis.Options{Addr: e.redis})
	if err := client.FlushDB(context.Background()).Err(); err != nil {
		return nil, err
	}
	s := newRedis(client)
	s.close = func() { client.Close() }
	return s, nil
}

// newRedis returns the store of scs on client, which stays the caller's.
func newRedis(client *redis.Client) *store {
	ctx, m := context.Background(), goredisstore.New(client)
	return newSCS(
		func(id string) ([]byte, bool, error) { return m.FindCtx(ctx, id) },
		func(id string, b []byte, expiry time.Time) error { return m.CommitCtx(ctx, id, b, expiry) },
		func(id string) error { return m.DeleteCtx(ctx, id) },
		func() (map[string][]byte, error) { return m.AllCtx(ctx) })
}

// A child is the Node process.
type child struct {
	in  io.WriteCloser
	out *bufio.Reader
}

type request struct {
	Op      string          `json:"op"`
	IDs     []string        `json:"ids,omitempty"`
	Dir     string          `json:"dir,omitempty"`
	Store   string          `json:"store,omitempty"`
	Port    int             `json:"port,omitempty"`
	Conns   int             `json:"conns,omitempty"`
	Secret  string          `json:"secret,omitempty"`
	Doc     json.RawMessage `json:"doc,omitempty"`
	Workers int             `json:"workers,omitempty"`
	MS      int64           `json:"ms,omitempty"`
}

type answer struct {
	NS      time.Duration `json:"ns"`
	N       int           `json:"n"`
	Longest time.Duration `json:"longest"`
	Error   string        `json:"error"`
}

func (c *child) do(req request) (a answer, err error) {
	line, err := json.Marshal(req)
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	if err == nil {
		line, err = c.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

func openNode(e *env) (*store, error) { return nodeIn(e.shared, "") }

// nodeIn opens session-file-store, which encrypts if there is a secret.
func nodeIn(dir, secret string) (*store, error) {
	c, end, err := startNode("peers/session-file-store.js")
	if err != nil {
		return nil, err
	}
	move := func(dir string) error {
		_, err := c.do(request{Op: "open", Dir: dir, Secret: secret, Doc: document(values(*payload))})
		return err
	}
	if err := move(dir); err != nil {
		end()
		return nil, err
	}
	return &store{
		child: c, move: move, close: end,
		reap: func() error { _, err := c.do(request{Op: "reap"}); return err },
	}, nil
}

// startNode starts a script of peers, with its packages.
func startNode(script string) (c *child, end func(), err error) {
	if _, err := os.Stat("peers/node_modules/express-session"); err != nil {
		npm := exec.Command("npm", "ci", "--no-audit", "--no-fund")
		npm.Dir = "peers"
		if out, err := npm.CombinedOutput(); err != nil {
			return nil, nil, fmt.Errorf("npm ci: %w %s", err, out)
		}
	}
	cmd := exec.Command("node", script)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	end = sync.OnceFunc(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	atExit(end)
	return &child{in, bufio.NewReader(out)}, end, nil
}
