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

// New returns a Store on client, which stays the caller's to close. It asks the server once, and fails if it does not
// answer, or if client reads from replicas: they lag, and a user who has just logged in would not be known.
func New(client redis.UniversalClient, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	e := &engine{client: client, prefix: cmp.Or(o.Prefix, "sess:"), swap: redis.NewScript(swap)}
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

// check refuses a client that reads from replicas.
func (e *engine) check(ctx context.Context) error {
	errReplica := errors.New("the client reads from replicas, which lag behind: set neither ReadOnly nor RouteByLatency nor RouteRandomly nor ReplicaOnly")
	if c, ok := e.client.(*redis.ClusterClient); ok {
		if o := c.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errReplica
		}
		return refused(e.client.Ping(ctx).Err())
	}
	if _, ok := e.client.(*redis.Ring); ok {
		return refused(e.client.Ping(ctx).Err())
	}
	role, err := e.client.Do(ctx, "ROLE").Slice()
	switch {
	case err == nil && len(role) > 0 && role[0] == "slave":
		return errReplica
	case isCode(err, "NOPERM"): // then it is the operator's business
		return nil
	}
	return refused(err)
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

// refused makes a server's own answer a refusal: its text can quote what was sent.
func refused(err error) error {
	if answer, ok := errors.AsType[redis.Error](err); ok && !errors.Is(err, redis.Nil) {
		code, _, _ := strings.Cut(answer.Error(), " ")
		return backend.Refused(code, err)
	}
	return err
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

// read returns the live rows of keys.
func (e *engine) read(ctx context.Context, client redis.Cmdable, keys []string) ([]backend.Row, error) {
	pipe := client.Pipeline()
	docs, lefts := make([]*redis.StringCmd, len(keys)), make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		docs[i], lefts[i] = pipe.Get(ctx, key), pipe.PTTL(ctx, key)
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
		left, leftErr := lefts[i].Result()
		if err = cmp.Or(err, leftErr); err != nil {
			return nil, refused(err)
		}
		switch left { // which go-redis does not make a time
		case -2:
			continue // it has ended between the two
		case -1:
			row.Left = backend.Forever
		default:
			row.Left = left
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// ms is a time to live in what PX takes: not less than it is, so that no session ends early.
func ms(left time.Duration) int64 { return int64((left + time.Millisecond - 1) / time.Millisecond) }

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
			return nil, refused(err)
		default:
			stored[i] = n != int64(1) // OK, or what EXISTS says
		}
	}
	return stored, nil
}

func (e *engine) Put(ctx context.Context, r backend.Row) error {
	if r.Left <= 0 {
		return e.Delete(ctx, []string{r.ID})
	}
	return refused(e.client.Do(ctx, e.args(r)...).Err())
}

// KEYS[1] the key; ARGV: the document as it was, the document, the time to live: "", which keeps it, or milliseconds,
// or "none".
const swap = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local left = ARGV[3]
if left == '' then
	if ARGV[2] ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
elseif left == 'none' then
	redis.call('SET', KEYS[1], ARGV[2])
elseif tonumber(left) <= 0 then
	redis.call('DEL', KEYS[1])
elseif ARGV[2] == ARGV[1] then
	redis.call('PEXPIRE', KEYS[1], left)
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
end
return 1`

func (e *engine) Swap(ctx context.Context, was, now backend.Row) (bool, error) {
	left := strconv.FormatInt(ms(now.Left), 10)
	switch now.Left {
	case was.Left:
		left = ""
	case backend.Forever:
		left = "none"
	}
	n, err := e.eval(ctx, "EVALSHA", e.swap.Hash(), was, now, left)
	if isCode(err, "NOSCRIPT") {
		n, err = e.eval(ctx, "EVAL", swap, was, now, left)
	}
	if isCode(err, "WRONGTYPE") {
		return false, nil // it is not what it was
	}
	return n == 1, refused(err)
}

func (e *engine) eval(ctx context.Context, command, script string, was, now backend.Row, left string) (int64, error) {
	cmd := once{redis.NewCmd(ctx, command, script, 1, e.key(was.ID), was.Doc, now.Doc, left)}
	cmd.SetFirstKeyPos(3)
	e.client.Process(ctx, cmd)
	return cmd.Int64()
}

func (e *engine) Delete(ctx context.Context, ids []string) error {
	if len(ids) == 1 {
		return refused(e.client.Del(ctx, e.key(ids[0])).Err())
	}
	pipe := e.client.Pipeline() // in a cluster one DEL cannot name keys of several slots
	for _, id := range ids {
		pipe.Del(ctx, e.key(id))
	}
	_, err := pipe.Exec(ctx)
	return refused(err)
}

const pageSize = 1000

// escapes what is special in a pattern.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// Page scans the masters one after the other. The cursor is a master's number and what it said last.
func (e *engine) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	masters, err := e.masters(ctx)
	if err != nil {
		return nil, "", refused(err)
	}
	addr, at, _ := strings.Cut(cursor, " ")
	i := slices.IndexFunc(masters, func(m master) bool { return cursor == "" || m.addr == addr })
	if i < 0 {
		return nil, "", errors.New("the cluster has other masters by now")
	}
	from, _ := strconv.ParseUint(cmp.Or(at, "0"), 10, 64)
	keys, to, err := masters[i].client.ScanType(ctx, from, escape.Replace(e.prefix)+"*", pageSize, "string").Result()
	if err != nil {
		return nil, "", refused(err)
	}
	switch {
	case to != 0:
		next = masters[i].addr + " " + strconv.FormatUint(to, 10)
	case i+1 < len(masters):
		next = masters[i+1].addr + " 0"
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
	switch c := e.client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, add)
	case *redis.Ring:
		err = c.ForEachShard(ctx, add)
	default:
		all = []master{{"", c}}
	}
	slices.SortFunc(all, func(a, b master) int { return cmp.Compare(a.addr, b.addr) })
	return all, err
}
