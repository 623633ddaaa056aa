// Package redisstore keeps sessions in Redis or Valkey, in the format of the npm package connect-redis, so that a
// Go program and an Express program share sessions and cookie:
//
//	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
//	store, err := redisstore.New(client, nil)
//	…
//	defer store.Close()
//	sessions := &session.Manager{Store: store, Secrets: secrets}
//
// A session is one string, Prefix and its id, which holds the document, and the key's time to live says when the
// session ends. There is nothing else: no index, no set of ids. All times are the server's.
//
// What Redis has acknowledged is on its disk as its appendfsync says, and on a replica some time later: see the
// README for which promises are weaker than those of filestore's files.
package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
)

// Options are a Store's settings. The zero value of each field, and a nil *Options, stand for the default: that of
// connect-redis, if it has the option.
type Options struct {
	// Prefix begins the names of the keys. "" = "sess:". It can hold any characters; connect-redis lists no session
	// if one of them is special in a pattern.
	Prefix string

	// TTL is how long a session lives after its last access if its cookie has no maxAge. 0 = 24 h, otherwise at
	// least a second. All programs on the sessions should have the same: each access counts by its own.
	TTL time.Duration

	// Lifetime is the longest life of a session since Session.Created, however much it is used. 0 = none. A session
	// that only Node has written has no such limit until Go writes it.
	Lifetime time.Duration

	// TouchAfter is how old the last access must be for Touch to write. 0 = 1 % of the session's life, negative =
	// always, as connect-redis. It is never more than half of the session's life.
	TouchAfter time.Duration

	// Timeout is the longest that an operation takes. 0 = 5 s. If the client's ContextTimeoutEnabled is not set, it
	// can be exceeded by the client's ReadTimeout. A loop over many sessions takes so long at most for each step.
	Timeout time.Duration

	// MaxSize is the most bytes that a document may have, written or read, then filestore.ErrTooLarge.
	// 0 = 1 MiB, at most 1 GiB.
	MaxSize int64

	// Codec stands between the document and the value. nil = plain JSON, as connect-redis has it.
	Codec filestore.Codec

	// Logger receives what no caller can: a warning of New about the client. nil = slog.Default().
	Logger *slog.Logger
}

// A Store keeps sessions in Redis. Make one with New.
type Store struct{ *backend.Store }

// New returns a Store on client, which stays the caller's to close. It asks the server, and fails if that does not answer,
// or does not let client run the script that Update and Touch need. It also fails if client reads from replicas, which lag,
// so that a user who has just logged in would not be known; and for a redis.Ring. New writes nothing.
func New(client redis.UniversalClient, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	e := newEngine(client, cmp.Or(o.Prefix, "sess:"))
	s, err := backend.New(e, backend.Options{
		TTL: cmp.Or(o.TTL, 24*time.Hour), Lifetime: o.Lifetime, TouchAfter: o.TouchAfter, Timeout: o.Timeout,
		MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger, Check: e.check,
	})
	if err != nil {
		return nil, err
	}
	if timeout := cmp.Or(o.Timeout, 5*time.Second); e.waitsLong(timeout) {
		cmp.Or(o.Logger, slog.Default()).Warn("filestore: the Redis client can keep requests waiting longer than Options.Timeout: set its ContextTimeoutEnabled", "timeout", timeout)
	}
	return &Store{s}, nil
}

type engine struct {
	client redis.UniversalClient
	prefix string
	swap   *redis.Script
}

func newEngine(client redis.UniversalClient, prefix string) *engine {
	return &engine{client: client, prefix: prefix, swap: redis.NewScript(swap)}
}

// check refuses a client on which sessions would not be safe, and one that is not allowed what Swap needs.
func (e *engine) check(ctx context.Context) error {
	errReplica := errors.New("the client reads from replicas, which lag behind: set neither ReadOnly nor RouteByLatency nor RouteRandomly nor ReplicaOnly")
	switch c := e.client.(type) {
	case *redis.Ring:
		return errors.New("a redis.Ring looks for a key elsewhere while its server is down, and what was destroyed meanwhile comes back: use a cluster")
	case *redis.ClusterClient: // it asks masters only, unless told otherwise
		if o := c.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errReplica
		}
	default:
		role, err := e.client.Do(ctx, "ROLE").Slice()
		if err == nil && len(role) > 0 && role[0] == "slave" {
			return errReplica
		}
		if err != nil && !isCode(err, "NOPERM") { // whoever forbids ROLE knows who is master
			return e.refused("ROLE", err)
		}
	}
	same := backend.Row{Left: time.Hour} // Swap writes nothing, whatever the key Prefix holds
	_, err := e.Swap(ctx, same, same)
	return err
}

// waitsLong reports whether the client's own bound is longer than timeout.
func (e *engine) waitsLong(timeout time.Duration) bool {
	var enabled bool
	var read time.Duration
	switch c := e.client.(type) {
	case *redis.Client:
		enabled, read = c.Options().ContextTimeoutEnabled, c.Options().ReadTimeout
	case *redis.ClusterClient:
		enabled, read = c.Options().ContextTimeoutEnabled, c.Options().ReadTimeout
	default:
		return false
	}
	return !enabled && (read <= 0 || read > timeout)
}

func (e *engine) key(id string) string { return e.prefix + id }

// refused returns the error of command without what a server or the client quotes in it. A server's own answer is a
// refusal. After any other error a cluster may have a new master, for which the client looks only once a minute by itself.
func (e *engine) refused(command string, err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[redis.Error](err); ok && !errors.Is(err, redis.Nil) {
		code, _, _ := strings.Cut(answer.Error(), " ")
		return backend.Refused(code+" ("+command+")", err)
	}
	if strings.Contains(err.Error(), "can't parse") || strings.Contains(err.Error(), "invalid reply") {
		err = notRedis(command)
	}
	if c, ok := e.client.(*redis.ClusterClient); ok && !errors.Is(err, redis.Nil) {
		c.ReloadState(context.Background()) // it does not wait
	}
	return err
}

func notRedis(command string) error {
	return errors.New("the answer to " + strings.ToUpper(command) + " is not one of Redis")
}

func isCode(err error, code string) bool {
	answer, ok := errors.AsType[redis.Error](err)
	return ok && strings.HasPrefix(answer.Error(), code)
}

func (e *engine) Get(ctx context.Context, id string) (row backend.Row, err error) {
	rows, err := e.read(ctx, e.client, []string{e.key(id)})
	if err == nil && len(rows) == 0 {
		err = filestore.ErrNotFound
	}
	if err != nil {
		return row, err
	}
	if row = rows[0]; row.Left == wrongType {
		return row, fmt.Errorf("%w: its key is not a string", filestore.ErrCorrupt)
	}
	return row, nil
}

// wrongType is the Left of a key that is not a string.
const wrongType = backend.Forever - 1

// read returns the live rows of keys. Left can be that of a version after Doc, if another one is stored between the two
// commands. Then only Session.LastAccess is not exact, as Swap compares Doc; a transaction would take a tenth longer.
func (e *engine) read(ctx context.Context, client redis.Cmdable, keys []string) ([]backend.Row, error) {
	pipe := client.Pipeline()
	docs, lefts := make([]*redis.StringCmd, len(keys)), make([]*redis.IntCmd, len(keys))
	for i, key := range keys {
		docs[i], lefts[i] = pipe.Get(ctx, key), redis.NewIntCmd(ctx, "PTTL", key) // pipe.PTTL overflows after 292 years
		pipe.Process(ctx, lefts[i])
	}
	pipe.Exec(ctx) // each command has its own error
	rows := make([]backend.Row, 0, len(keys))
	for i, key := range keys {
		row := backend.Row{ID: strings.TrimPrefix(key, e.prefix)}
		var err error
		if row.Doc, err = docs[i].Result(); isCode(err, "WRONGTYPE") {
			row.Left = wrongType
			rows = append(rows, row)
			continue
		}
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, e.refused("GET", err)
		}
		left, err := lefts[i].Result()
		if err != nil {
			return nil, e.refused("PTTL", err)
		}
		switch left {
		case -2:
			continue // it has ended between the two
		case -1:
			row.Left = backend.Forever
		default:
			row.Left = time.Duration(min(left, maxLeft)) * time.Millisecond
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// maxLeft is the longest Left in milliseconds that is less than backend.Forever.
const maxLeft = int64(backend.Forever / time.Millisecond)

// ms is a positive time to live in what PX takes: not less than it is, so that no session ends early.
func ms(left time.Duration) int64 { return int64((left-1)/time.Millisecond) + 1 }

// args returns SET's arguments for r.
func (e *engine) args(r backend.Row, more ...any) []any {
	args := []any{"SET", e.key(r.ID), r.Doc}
	if r.Left != backend.Forever {
		args = append(args, "PX", ms(r.Left))
	}
	return append(args, more...)
}

// once is a command that the client does not repeat: the second time it would find its own change and take it for
// another one's.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

func (e *engine) Insert(ctx context.Context, rows []backend.Row) (stored []bool, err error) {
	pipe := e.client.Pipeline()
	cmds := make([]once, len(rows))
	for i, r := range rows {
		args := e.args(r, "NX")
		if r.Left <= 0 {
			args = []any{"EXISTS", e.key(r.ID)}
		}
		cmds[i] = once{redis.NewCmd(ctx, args...)}
		pipe.Process(ctx, cmds[i])
	}
	pipe.Exec(ctx) // each command has its own error
	stored = make([]bool, len(rows))
	for i, cmd := range cmds {
		switch n, err := cmd.Result(); {
		case errors.Is(err, redis.Nil):
		case err != nil:
			return nil, e.refused(strings.ToUpper(cmd.Name()), err)
		case n == "OK", n == int64(0): // the answer of SET, or of EXISTS
			stored[i] = true
		case n != int64(1):
			return nil, notRedis(cmd.Name())
		}
	}
	return stored, nil
}

func (e *engine) Put(ctx context.Context, r backend.Row) error {
	if r.Left <= 0 {
		return e.Delete(ctx, []string{r.ID})
	}
	return e.refused("SET", e.client.Do(ctx, e.args(r)...).Err())
}

// KEYS[1] the key; ARGV: the document as it was, the document, the time to live: "", which keeps it, or milliseconds, or
// "none". If both are as they were, it writes nothing.
const swap = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = ARGV[3]
if left == '' then
	if ARGV[2] ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
elseif left == 'none' then
	redis.call('SET', KEYS[1], ARGV[2])
elseif left == '0' then
	redis.call('DEL', KEYS[1])
elseif ARGV[2] == ARGV[1] then
	redis.call('PEXPIRE', KEYS[1], left)
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
end
return 1`

func (e *engine) Swap(ctx context.Context, was, now backend.Row) (bool, error) {
	left := "0"
	switch {
	case now.Left == was.Left:
		left = ""
	case now.Left == backend.Forever:
		left = "none"
	case now.Left > 0:
		left = strconv.FormatInt(ms(now.Left), 10)
	}
	command := "EVALSHA"
	n, err := e.eval(ctx, command, e.swap.Hash(), was, now, left)
	if isCode(err, "NOSCRIPT") {
		command = "EVAL"
		n, err = e.eval(ctx, command, swap, was, now, left)
	}
	if isCode(err, "WRONGTYPE") {
		return false, nil // it is not what it was
	}
	return n == 1, e.refused(command, err)
}

func (e *engine) eval(ctx context.Context, command, script string, was, now backend.Row, left string) (int64, error) {
	cmd := once{redis.NewCmd(ctx, command, script, 1, e.key(was.ID), was.Doc, now.Doc, left)}
	cmd.SetFirstKeyPos(3)
	e.client.Process(ctx, cmd)
	return cmd.Int64()
}

func (e *engine) Delete(ctx context.Context, ids []string) error {
	if len(ids) == 1 {
		return e.refused("DEL", e.client.Del(ctx, e.key(ids[0])).Err())
	}
	pipe := e.client.Pipeline() // in a cluster one DEL cannot name keys of several slots
	for _, id := range ids {
		pipe.Del(ctx, e.key(id))
	}
	_, err := pipe.Exec(ctx)
	return e.refused("DEL", err)
}

// A page is about so many keys. With documents it is less, as each may have Options.MaxSize.
const pageSize, docsPageSize = 1000, 100

// escapes what is special in a pattern.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// Page scans the masters one after the other. The cursor is what SCAN has said, the number of the master, its run, and
// who the masters are. What SCAN says means nothing to a replica that has taken over, and nothing after a restart; and if
// others are masters by now, one that has not had its turn could be passed over.
func (e *engine) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	masters, err := e.masters(ctx)
	if err != nil {
		return nil, "", e.refused("CLUSTER", err)
	}
	var who strings.Builder
	for _, m := range masters {
		who.WriteString(m.addr + " ")
	}
	errOthers := errors.New("another server is master by now, or was started again: list from the beginning")
	var from uint64
	var i int
	var was string
	if cursor != "" {
		part := strings.SplitN(cursor, ",", 4)
		from, _ = strconv.ParseUint(part[0], 10, 64)
		i, _ = strconv.Atoi(part[1])
		was = part[2]
		if part[3] != who.String() {
			return nil, "", errOthers
		}
	}
	count := int64(pageSize)
	if docs {
		count = docsPageSize
	}
	pipe := masters[i].client.Pipeline() // one connection, so one server
	info := pipe.Info(ctx, "server")
	scan := pipe.ScanType(ctx, from, escape.Replace(e.prefix)+"*", count, "string")
	pipe.Exec(ctx) // each command has its own error
	keys, to, err := scan.Result()
	if err != nil {
		return nil, "", e.refused("SCAN", err)
	}
	_, run, _ := strings.Cut(info.Val(), "run_id:") // "" if INFO is forbidden
	run, _, _ = strings.Cut(run, "\r\n")
	if from != 0 && run != was {
		return nil, "", errOthers
	}
	if to == 0 {
		i++
	}
	if i < len(masters) {
		next = fmt.Sprintf("%d,%d,%s,%s", to, i, run, who.String())
	}
	if docs {
		rows, err = e.read(ctx, e.client, keys)
		rows = slices.DeleteFunc(rows, func(r backend.Row) bool { return r.Left == wrongType })
		return rows, next, err
	}
	for _, key := range keys {
		rows = append(rows, backend.Row{ID: strings.TrimPrefix(key, e.prefix)})
	}
	return rows, next, nil
}

// A master is a server that has a part of the keys.
type master struct {
	addr   string
	client redis.Cmdable
}

// masters returns all, always in the same order.
func (e *engine) masters(ctx context.Context) (all []master, err error) {
	var mu sync.Mutex
	add := func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, master{c.Options().Addr, c})
		return nil
	}
	c, ok := e.client.(*redis.ClusterClient)
	if !ok {
		return []master{{"", e.client}}, nil
	}
	if err = c.ForEachMaster(ctx, add); err == nil && len(all) == 0 {
		err = errors.New("the cluster has no masters")
	}
	slices.SortFunc(all, func(a, b master) int { return cmp.Compare(a.addr, b.addr) })
	return all, err
}
