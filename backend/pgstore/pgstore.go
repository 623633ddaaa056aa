// Package pgstore keeps sessions in PostgreSQL, in the format of the npm package connect-pg-simple, so that a Go program
// and an Express program share sessions and cookie:
//
//	pool, err := pgxpool.New(ctx, "postgres://user:password@127.0.0.1/site")
//	…
//	store, err := pgstore.New(pool, nil)
//	…
//	defer store.Close()
//	sessions := &session.Manager{Store: store, Secrets: secrets}
//
// A session is one row: its id in sid, the document in sess, and in expire the second until which it lives. All times
// are the server's.
//
// What PostgreSQL has acknowledged is on its disk as its synchronous_commit says, and on an asynchronous standby some
// time later: see the README for which promises are weaker than those of filestore's files.
package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
)

// Options are a Store's settings. The zero value of each field, and a nil *Options, stand for the default: that of
// connect-pg-simple, if it has the option.
type Options struct {
	// Table is the name of the table, or the names of a schema and a table with a dot between them. Upper and lower
	// case differ. "" = "session". Its columns are sid, sess and expire.
	Table string

	// CreateTable lets New make the table if there is none, as connect-pg-simple's createTableIfMissing does.
	CreateTable bool

	// TTL is how long a session lives after its last access if its cookie has no maxAge. 0 = 24 h, otherwise at
	// least a second. All programs on the sessions should have the same: each access counts by its own.
	TTL time.Duration

	// Lifetime is the longest life of a session since Session.Created, however much it is used. 0 = none. A session
	// that only Node has written has no such limit until Go writes it.
	Lifetime time.Duration

	// TouchAfter is how old the last access must be for Touch to write. 0 = 1 % of the session's life, negative =
	// always, as connect-pg-simple. It is never more than half of the session's life.
	TouchAfter time.Duration

	// Timeout is the longest that an operation takes. 0 = 5 s. A loop over many sessions takes so long at most for
	// each step.
	Timeout time.Duration

	// ReapInterval is how often expired sessions are removed in the background. 0 = 15 min, negative = never.
	ReapInterval time.Duration

	// MaxSize is the most bytes that a document may have, written or read, then filestore.ErrTooLarge.
	// 0 = 1 MiB, at most 1 GiB.
	MaxSize int64

	// Codec stands between the document and the value. What it makes must be JSON. nil = the document itself, as
	// connect-pg-simple has it.
	Codec filestore.Codec

	// Logger receives what no caller can: errors of the background reaper. nil = slog.Default().
	Logger *slog.Logger
}

// A Store keeps sessions in a table. Make one with New.
type Store struct{ *backend.ReapingStore }

// New returns a Store on pool, which stays the caller's to close, on PostgreSQL 12 or newer. It fails if the server does
// not answer or takes no writes, as a standby, if there is no table or one in which sessions would not be safe, if the
// connection has a time zone of its own, or if the table cannot hold what the Codec makes; the error says which, and the
// cure.
func New(pool *pgxpool.Pool, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	name, err := tableName(cmp.Or(o.Table, "session"))
	if err != nil {
		return nil, &filestore.Error{Op: "open", Err: err}
	}
	create := ""
	if o.CreateTable {
		create = createTable(name)
	}
	e := &engine{pool: pool, table: name.Sanitize()}
	s, err := backend.NewReaping(e, backend.Options{
		TTL: cmp.Or(o.TTL, 24*time.Hour), Lifetime: o.Lifetime, TouchAfter: o.TouchAfter, Timeout: o.Timeout,
		ReapInterval: o.ReapInterval, MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger,
		Check: func(ctx context.Context) error { return e.check(ctx, create, o.Codec) },
	})
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// tableName returns the parts of Options.Table.
func tableName(table string) (pgx.Identifier, error) {
	name := pgx.Identifier(strings.Split(table, "."))
	if len(name) > 2 {
		return nil, errors.New("Options.Table has more than one dot: it must be a table, or a schema and a table")
	}
	for _, part := range name {
		if part == "" || len(part) > maxName || strings.ContainsRune(part, 0) {
			return nil, fmt.Errorf("Options.Table must be a name of 1 to %d bytes, or two with a dot between them", maxName)
		}
	}
	return name, nil
}

// maxName is where PostgreSQL cuts a name off, so that two tables would be one.
const maxName = 63

// createTable returns the statements that make connect-pg-simple's table. There the constraint and the index are
// called as for "session" whatever the table is called, so that a schema cannot have a second one. Here PostgreSQL
// chooses the constraint's name, which is session_pkey for "session", and the index has the table's name in its own.
func createTable(name pgx.Identifier) string {
	index := "IDX_" + name[len(name)-1] + "_expire"
	if len(index) > maxName {
		index = ""
	} else {
		index = pgx.Identifier{index}.Sanitize()
	}
	table := name.Sanitize()
	return "CREATE TABLE " + table + " (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);" +
		" CREATE INDEX " + index + " ON " + table + " (expire)"
}

type engine struct {
	pool  *pgxpool.Pool
	table string // quoted
}

// sql completes a statement.
func (e *engine) sql(statement string) string { return strings.ReplaceAll(statement, "TABLE", e.table) }

const (
	// now is the server's time. It is constant in a statement, so that the index on expire can be used.
	now  = "statement_timestamp()"
	live = "expire >= " + now

	// expire has no time zone: it is a time in the zone of the connection, as connect-pg-simple has it. So pgx must
	// not make a time of it. An infinite one is an infinite number.
	left = "extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM " + now + ")::float8"

	columns = "sid, coalesce(sess::text, ''), " + left

	getRow = "SELECT " + columns + " FROM TABLE WHERE sid = $1"

	deleteRows = "DELETE FROM TABLE WHERE sid = ANY($1::text[])"

	pageIDs = "SELECT sid, '', 0::float8 FROM TABLE WHERE sid > $1 AND " + live + " ORDER BY sid LIMIT $2"
	page    = "SELECT " + columns + " FROM TABLE WHERE sid > $1 AND " + live + " ORDER BY sid LIMIT $2"
	all     = "SELECT " + columns + " FROM TABLE WHERE " + live
)

// end returns the expression for the end of a session that lives for so many seconds. It is a whole second, as
// connect-pg-simple writes and reads it, and never too early.
func end(seconds string) string {
	return "to_timestamp(ceil(extract(epoch FROM " + now + ")::float8 + " + seconds + "::float8))"
}

// seconds is Row.Left as end takes it. A session whose time is over must not live until the next whole second.
func seconds(left time.Duration) float64 {
	if left <= 0 {
		left = min(left, -time.Second)
	}
	return left.Seconds()
}

// refused makes a server's own answer a refusal, as its text can quote what was sent. A server that ends the connection
// need not have refused.
func refused(err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || answer.SeverityUnlocalized == "FATAL" || answer.SeverityUnlocalized == "PANIC" {
		return err
	}
	text := "SQLSTATE " + answer.Code
	if hint := hints[answer.Code]; hint != "" {
		text += ": " + hint
	}
	return backend.Refused(text, err)
}

// hints are for the SQLSTATEs that the operator, or the application, can do something about.
var hints = map[string]string{
	"22021": "the document has bytes that are not UTF-8",
	"22P02": "the document is not JSON, or the column is jsonb, which does not take half of a surrogate pair",
	"22P05": "the document has a character that the column does not take, as \\u0000 if it is jsonb",
	"25006": "the server is read-only, as a standby is",
	"42501": "the role must have SELECT, INSERT, UPDATE and DELETE on the table, and to make it CREATE on its schema",
	"42P01": "there is no such table: create it, or set Options.CreateTable",
	"42P10": "the table has no primary key of sid alone",
	"53100": "the server's disk is full",
}

// try calls fn again if the server has ended it for the sake of another transaction, until ctx is done.
func try(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		answer, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || answer.Code != "40001" && answer.Code != "40P01" {
			return refused(err)
		}
		select {
		case <-ctx.Done():
			return refused(err)
		case <-time.After(rand.N(10 * time.Millisecond)):
		}
	}
}

// exec runs a statement and returns how many rows it has changed.
func (e *engine) exec(ctx context.Context, statement string, args ...any) (n int, err error) {
	err = try(ctx, func() error {
		tag, err := e.pool.Exec(ctx, e.sql(statement), args...)
		n = int(tag.RowsAffected())
		return err
	})
	return n, err
}

// A querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// each calls visit for each row that a statement returns.
func (e *engine) each(ctx context.Context, q querier, visit func(backend.Row), statement string, args ...any) error {
	rows, err := q.Query(ctx, e.sql(statement), args...)
	if err != nil {
		return err
	}
	var r backend.Row
	var left float64
	_, err = pgx.ForEachRow(rows, []any{&r.ID, &r.Doc, &left}, func() error {
		r.Left = duration(left)
		visit(r)
		return nil
	})
	return err
}

// duration returns Row.Left. A column can hold times that a Duration cannot.
func duration(seconds float64) time.Duration {
	const most = float64(backend.Forever)
	switch d := seconds * float64(time.Second); {
	case d >= most:
		return backend.Forever
	case d <= -most:
		return -backend.Forever
	default:
		return time.Duration(d)
	}
}

func (e *engine) Get(ctx context.Context, id string) (row backend.Row, err error) {
	err = try(ctx, func() error {
		row = backend.Row{}
		return e.each(ctx, e.pool, func(r backend.Row) { row = r }, getRow, id)
	})
	switch {
	case err != nil:
	case row.ID == "":
		err = filestore.ErrNotFound
	case row.Left < 0:
		err = filestore.ErrExpired
	}
	return row, err
}

var insertRows = "INSERT INTO TABLE AS is_there (sid, sess, expire) SELECT DISTINCT ON (id) id, doc::json, " + end("seconds") +
	" FROM unnest($1::text[], $2::text[], $3::float8[]) WITH ORDINALITY AS given (id, doc, seconds, n) ORDER BY id, n" + // in one order, so that two do not wait for each other
	" ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire WHERE is_there.expire < " + now +
	" RETURNING sid, '', 0::float8"

func (e *engine) Insert(ctx context.Context, rows []backend.Row) ([]bool, error) {
	ids, docs, lives := make([]string, len(rows)), make([]string, len(rows)), make([]float64, len(rows))
	for i, r := range rows {
		ids[i], docs[i], lives[i] = r.ID, r.Doc, seconds(r.Left)
	}
	var inserted map[string]bool
	err := try(ctx, func() error {
		inserted = make(map[string]bool, len(rows))
		return e.each(ctx, e.pool, func(r backend.Row) { inserted[r.ID] = true }, insertRows, ids, docs, lives)
	})
	if err != nil {
		return nil, err
	}
	stored := make([]bool, len(rows))
	for i, r := range rows {
		stored[i] = inserted[r.ID]
		delete(inserted, r.ID) // of several with one id the first is stored
	}
	return stored, nil
}

var putRow = "INSERT INTO TABLE (sid, sess, expire) VALUES ($1, $2::json, " + end("$3") + ")" +
	" ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire"

func (e *engine) Put(ctx context.Context, r backend.Row) error {
	_, err := e.exec(ctx, putRow, r.ID, r.Doc, seconds(r.Left))
	return err
}

var (
	same     = " WHERE sid = $1 AND sess::text = $2 AND " + live // json has no equality
	swapDoc  = "UPDATE TABLE SET sess = $3::json" + same
	swapEnd  = "UPDATE TABLE SET expire = " + end("$3") + same
	swapBoth = "UPDATE TABLE SET sess = $3::json, expire = " + end("$4") + same
)

func (e *engine) Swap(ctx context.Context, was, now backend.Row) (bool, error) {
	statement, args := swapBoth, []any{was.ID, was.Doc, now.Doc, seconds(now.Left)}
	switch {
	case now.Left == was.Left:
		statement, args = swapDoc, args[:3]
	case now.Doc == was.Doc:
		statement, args = swapEnd, []any{was.ID, was.Doc, seconds(now.Left)}
	}
	n, err := e.exec(ctx, statement, args...)
	return n == 1, err
}

func (e *engine) Delete(ctx context.Context, ids []string) error {
	_, err := e.exec(ctx, deleteRows, ids)
	return err
}

const pageSize, docsPageSize = 1000, 200 // documents can be large

// Page returns the rows behind the id cursor. In which order they are is the column's collation's business: it is the
// same for the comparison, the order and the primary key.
func (e *engine) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	statement, size := pageIDs, pageSize
	if docs {
		statement, size = page, docsPageSize
	}
	err = try(ctx, func() error {
		rows = nil
		return e.each(ctx, e.pool, func(r backend.Row) { rows = append(rows, r) }, statement, cursor, size)
	})
	if len(rows) == size {
		next = rows[size-1].ID
	}
	return rows, next, err
}

// Snapshot is one statement, which sees the rows of one moment. It cannot begin again when rows were visited, so it must
// not be serializable, whatever the default is: then the server could end it for the sake of others.
func (e *engine) Snapshot(ctx context.Context, alive func(), visit func(backend.Row)) error {
	o := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return refused(pgx.BeginTxFunc(ctx, e.pool, o, func(tx pgx.Tx) error {
		return e.each(ctx, tx, func(r backend.Row) { alive(); visit(r) }, all)
	}))
}

const reapSize = 1000

// reapRows leaves a row that somebody has locked for the next time: it may be about to live on. One that was about to
// before it is locked here is compared again when it is. ARRAY makes the server select once. With IN it may do so for
// each row, and then LIMIT means nothing: it does if its statistics are of a time when no session was over.
var reapRows = "DELETE FROM TABLE WHERE sid = ANY (ARRAY (SELECT sid FROM TABLE WHERE expire < " + now +
	fmt.Sprintf(" LIMIT %d FOR UPDATE SKIP LOCKED))", reapSize)

// Reap removes the rows some at a time, so that what is done when ctx ends is done.
func (e *engine) Reap(ctx context.Context, alive func()) (n int, err error) {
	for {
		some, err := e.exec(ctx, reapRows)
		alive()
		n += some
		if err != nil || some < reapSize {
			return n, err
		}
	}
}
