// Package mysqlstore keeps sessions in MySQL or MariaDB, in the format of the npm package express-mysql-session, so that
// a Go program and an Express program share sessions and cookie:
//
//	db, err := sql.Open("mysql", "user:password@tcp(127.0.0.1:3306)/site?clientFoundRows=true&innodb_lock_wait_timeout=4")
//	…
//	store, err := mysqlstore.New(db, nil)
//	…
//	defer store.Close()
//	sessions := &session.Manager{Store: store, Secrets: secrets}
//
// A session is one row: session_id, the document in data, and in expires the second until which it lives. All times are
// the server's, and no time zone has a say in them.
//
// What MySQL has acknowledged is on its disk as its innodb_flush_log_at_trx_commit says, and on a replica some time
// later: see the README for which promises are weaker than those of filestore's files.
package mysqlstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
)

// Options are a Store's settings. The zero value of each field, and a nil *Options, stand for the default: that of
// express-mysql-session, if it has the option.
type Options struct {
	// Table is the name of the table, or the names of a database and a table with a dot between them.
	// "" = "sessions". Its columns are session_id, expires and data.
	Table string

	// CreateTable lets New make the table if there is none, as express-mysql-session does.
	CreateTable bool

	// TTL is how long a session lives after its last access if its cookie has no maxAge. 0 = 24 h, otherwise at
	// least a second. All programs on the sessions should have the same: each access counts by its own.
	TTL time.Duration

	// Lifetime is the longest life of a session since Session.Created, however much it is used. 0 = none. A session
	// that only Node has written has no such limit until Go writes it.
	Lifetime time.Duration

	// TouchAfter is how old the last access must be for Touch to write. 0 = 1 % of the session's life, negative =
	// always, as express-mysql-session. It is never more than half of the session's life.
	TouchAfter time.Duration

	// Timeout is the longest that an operation takes. 0 = 5 s. A loop over many sessions takes so long at most for
	// each step. A statement that it ends while it waits for a lock can still take effect, until the server's
	// innodb_lock_wait_timeout: set that to less.
	Timeout time.Duration

	// ReapInterval is how often expired sessions are removed in the background. 0 = 15 min, negative = never.
	ReapInterval time.Duration

	// MaxSize is the most bytes that a document may have, written or read, then filestore.ErrTooLarge. 0 = 1 MiB, at
	// most 1 GiB. To be written it must also fit into the column and into a fourth of the server's
	// max_allowed_packet.
	MaxSize int64

	// Codec stands between the document and the value. What it makes must be UTF-8, as text, unless the column is one
	// of bytes. nil = plain JSON, as express-mysql-session has it.
	Codec filestore.Codec

	// Logger receives what no caller can: errors of the background reaper, and a warning of New about the
	// connection. nil = slog.Default().
	Logger *slog.Logger
}

// A Store keeps sessions in a table. Make one with New.
type Store struct{ *backend.ReapingStore }

// New returns a Store on db, which stays the caller's to close. It fails if the server does not answer or is read-only,
// as a replica is, if there is no table or one in which sessions would not be safe, if db's connections have settings
// that the Store cannot work with, or if the table does not take what the Codec makes; the error says which, and the
// cure. The data source name must have clientFoundRows=true. New writes a row to find that out, and takes it back before
// anybody can see it.
func New(db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	schema, table, dot := strings.Cut(cmp.Or(o.Table, "sessions"), ".")
	if !dot {
		schema, table = "", schema
	}
	if table == "" || dot && schema == "" {
		return nil, &filestore.Error{Op: "open", Err: errors.New("Options.Table is not a name, or two with a dot between them")}
	}
	e := newEngine(db, schema, table)
	var lockWait time.Duration
	s, err := backend.NewReaping(e, backend.Options{
		TTL: cmp.Or(o.TTL, 24*time.Hour), Lifetime: o.Lifetime, TouchAfter: o.TouchAfter, Timeout: o.Timeout,
		ReapInterval: o.ReapInterval, MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger,
		Check: func(ctx context.Context) (err error) {
			lockWait, err = e.check(ctx, o.CreateTable, o.Codec)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if timeout := cmp.Or(o.Timeout, 5*time.Second); lockWait > timeout {
		cmp.Or(o.Logger, slog.Default()).Warn("filestore: a statement can take effect after Options.Timeout has ended it: "+
			"put innodb_lock_wait_timeout=4 into the data source name", "timeout", timeout, "innodb_lock_wait_timeout", lockWait)
	}
	return &Store{s}, nil
}

type engine struct {
	db            *sql.DB
	schema, table string
	sql           *strings.Replacer // completes the SQL below

	// What the table and the server take; check sets it.
	maxID, maxDoc int64 // in characters and bytes
	text          bool  // whether data is of characters, not of bytes
}

const (
	now  = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))" // of the server, in no zone
	live = "expires >= (" + now + " + 999999) DIV 1000000"
	left = "CAST(expires AS SIGNED) * 1000000 - " + now

	// What is given is micros(Left). The column ends in the year 2106.
	end = "LEAST(4294967295, GREATEST(0, (" + now + " + 999999 + ?) DIV 1000000))"

	// No collation: each takes documents for equal that differ in spaces at the end, and most in case.
	same = "CAST(data AS BINARY) = CAST(? AS BINARY)"
)

// micros returns left in microseconds, not less than it is, so that no session ends early. The end of a session whose
// time is over lies a whole second back, since it will be rounded up.
func micros(left time.Duration) int64 {
	if left <= 0 {
		return -1e6
	}
	return int64((min(left, backend.Forever-time.Microsecond) + time.Microsecond - 1) / time.Microsecond)
}

func newEngine(db *sql.DB, schema, table string) *engine {
	name := quote(table)
	if schema != "" {
		name = quote(schema) + "." + name
	}
	return &engine{db: db, schema: schema, table: table,
		sql: strings.NewReplacer("{table}", name, "{live}", live, "{left}", left, "{end}", end, "{same}", same)}
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// create is the table as express-mysql-session makes it.
const create = `CREATE TABLE IF NOT EXISTS {table} (
  ` + "`session_id` varchar(128) COLLATE utf8mb4_bin NOT NULL," + `
  ` + "`expires` int(11) unsigned NOT NULL," + `
  ` + "`data` mediumtext COLLATE utf8mb4_bin," + `
  ` + "PRIMARY KEY (`session_id`)" + `
) ENGINE=InnoDB`

// check finds out whether sessions are safe in the table and on db's connections. It returns how long the server lets a
// statement wait for a lock.
func (e *engine) check(ctx context.Context, mayCreate bool, codec filestore.Codec) (lockWait time.Duration, err error) {
	var charsets, readOnly string
	var autocommit bool
	var packet int64
	err = e.db.QueryRowContext(ctx, `SELECT CONCAT_WS(' ', @@character_set_client, @@character_set_connection, @@character_set_results),
		@@autocommit, @@global.read_only, @@max_allowed_packet, @@innodb_lock_wait_timeout`).Scan(&charsets, &autocommit, &readOnly, &packet, &lockWait)
	if err != nil {
		return 0, refused(err)
	}
	lockWait *= time.Second
	switch {
	case charsets != "utf8mb4 utf8mb4 utf8mb4":
		return 0, fmt.Errorf("the connection's character sets are %s, which would change documents: put charset=utf8mb4 into the data source name", charsets)
	case !autocommit:
		return 0, errors.New("the connection does not commit by itself: take autocommit out of the data source name")
	case readOnly != "0" && readOnly != "OFF":
		return 0, errors.New("the server is read-only, as a replica is: connect to the primary")
	}
	err = e.checkTable(ctx, packet/4) // an Update sends two documents, and quoting can double them
	if errors.Is(err, errNoTable) && mayCreate {
		if _, err = e.exec(ctx, e.db, create); err == nil {
			err = e.checkTable(ctx, packet/4)
		}
	}
	if err == nil {
		err = e.checkKeys(ctx)
	}
	if err == nil {
		err = e.checkRow(ctx, codec)
	}
	return lockWait, refused(err)
}

var errNoTable = errors.New("the table does not exist, or the user has no rights to it: see Options.Table and CreateTable")

// checkTable refuses a table whose columns or storage engine do not keep sessions. It compares names as bytes, since
// information_schema takes two for the same that differ in case.
func (e *engine) checkTable(ctx context.Context, packet int64) error {
	rows, err := e.db.QueryContext(ctx, `SELECT LOWER(c.column_name), c.data_type, COALESCE(c.character_set_name, ''), COALESCE(c.collation_name, ''),
			COALESCE(c.character_maximum_length, 0), COALESCE(c.character_octet_length, 0), c.column_type, COALESCE(e.transactions, 'NO')
		FROM information_schema.columns c
		JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
			AND CAST(CONCAT_WS('.', t.table_schema, t.table_name) AS BINARY) = CAST(CONCAT_WS('.', c.table_schema, c.table_name) AS BINARY)
		LEFT JOIN information_schema.engines e ON e.engine = t.engine
		WHERE c.table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND c.table_name = ?`, e.schema, e.table)
	if err != nil {
		return err
	}
	defer rows.Close()
	var columns []string
	for rows.Next() {
		var column, kind, charset, collation, columnType, transactions string
		var chars, bytes int64
		if err := rows.Scan(&column, &kind, &charset, &collation, &chars, &bytes, &columnType, &transactions); err != nil {
			return err
		}
		columns = append(columns, column)
		switch {
		case transactions != "YES":
			return errors.New("the table's storage engine has no transactions: ALTER TABLE … ENGINE=InnoDB")
		case column == "session_id" && collation != "" && !strings.HasSuffix(collation, "_bin"):
			return fmt.Errorf("session_id has the collation %s, which takes different ids for the same: "+
				"ALTER TABLE … MODIFY session_id varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL", collation)
		case column == "session_id":
			e.maxID = chars
		case column == "data" && (kind == "json" || charset != "" && charset != "utf8mb4"):
			return fmt.Errorf("data is of type %s %s, which would change documents: "+
				"ALTER TABLE … MODIFY data mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", kind, charset)
		case column == "data":
			e.maxDoc, e.text = min(bytes, packet), charset != ""
		case column == "expires" && kind != "bigint" && !(kind == "int" && strings.Contains(columnType, "unsigned")):
			return fmt.Errorf("expires is of type %s, which does not hold each second until 4294967295: "+
				"ALTER TABLE … MODIFY expires int unsigned NOT NULL", columnType)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(columns) == 0 {
		return errNoTable
	}
	for _, column := range []string{"session_id", "expires", "data"} {
		if !slices.Contains(columns, column) {
			return fmt.Errorf("the table has no column %s: it is not one of express-mysql-session", column)
		}
	}
	return nil
}

// checkKeys refuses a table in which one id can have two rows, or two sessions would share one.
func (e *engine) checkKeys(ctx context.Context) error {
	var alone, narrow int
	err := e.db.QueryRowContext(ctx, `SELECT COALESCE(SUM(n = 1 AND whole = 1), 0), COALESCE(SUM(whole = 0 AND own > 0), 0)
		FROM (SELECT COUNT(*) n, SUM(column_name = 'session_id' AND sub_part IS NULL) whole, SUM(column_name IN ('session_id', 'expires', 'data')) own
			FROM information_schema.statistics
			WHERE table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ? AND non_unique = 0
			GROUP BY index_name) i`, e.schema, e.table).Scan(&alone, &narrow)
	switch {
	case err != nil:
		return err
	case alone == 0:
		return errors.New("session_id is not the table's primary key, nor unique alone and in all its characters, so that one id " +
			"could have two rows: ALTER TABLE … ADD UNIQUE KEY (session_id)")
	case narrow > 0:
		return errors.New("a unique key is of expires, data or the first characters of session_id, so that two sessions would share a row: " +
			"ALTER TABLE … DROP KEY")
	}
	return nil
}

// checkRow refuses a table that does not take what the Codec makes, and connections on which the server counts the rows
// that a statement has changed, not those that it has found. A Touch in the second of the last one changes nothing, and
// would take the session for gone.
func (e *engine) checkRow(ctx context.Context, codec filestore.Codec) error {
	id, doc := rand.Text(), []byte(`{"cookie":{"originalMaxAge":null,"expires":null}}`) // of nobody, so that several programs can do this at once
	var err error
	switch c := codec.(type) {
	case nil:
	case filestore.ContextCodec:
		doc, err = c.EncodeContext(ctx, id, doc)
	default:
		doc, err = c.Encode(id, doc)
	}
	if err != nil {
		return err
	}
	if e.text && !utf8.Valid(doc) {
		return errors.New("Options.Codec makes something that is not UTF-8, which the column data does not take: let it make text, such as base64")
	}
	back := errors.New("roll back")
	var found int64
	err = retry(ctx, func() error {
		return e.transaction(ctx, func(conn *sql.Conn) error {
			if _, err := e.exec(ctx, conn, "INSERT INTO {table} (session_id, expires, data) VALUES (?, 0, ?)", id, string(doc)); err != nil {
				return err
			}
			var err error
			if found, err = e.exec(ctx, conn, "UPDATE {table} SET expires = 0 WHERE session_id = ?", id); err != nil {
				return err
			}
			return back
		})
	}, lockWaitTimeout, deadlock)
	if err == back && found != 1 {
		return errors.New("the connection does not count the rows that it finds: put clientFoundRows=true into the data source name")
	}
	if err == back {
		return nil
	}
	return err
}

// The numbers of errors.
const (
	duplicate       = 1062
	lockWaitTimeout = 1205
	deadlock        = 1213
)

// refused makes a server's own answer a refusal: its text can quote what was sent.
func refused(err error) error {
	answer, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return err
	}
	switch answer.Number {
	case 1053, 1180, 1927, 3169, 4031: // the server, the connection or the commit has ended: perhaps after the change
		return err
	}
	text := fmt.Sprint("error ", answer.Number)
	if hint := hints[answer.Number]; hint != "" {
		text += ": " + hint
	}
	return backend.Refused(text, err)
}

// hints are for the errors that the operator, or the application, can do something about.
var hints = map[uint16]string{
	1146: "there is no table any more",
	1264: "a number is outside of what its column holds: expires must be an int unsigned",
	1366: "a text has characters that its column does not hold: data must be utf8mb4",
	4025: "the table's CHECK does not take the row. That of MariaDB's JSON takes nothing but JSON, no arrays or objects in " +
		"each other 32 deep, and no half of a surrogate pair",
}

func isCode(err error, numbers ...uint16) bool {
	answer, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && slices.Contains(numbers, answer.Number)
}

// retry calls fn until it returns nil or an error with another number.
func retry(ctx context.Context, fn func() error, numbers ...uint16) error {
	for busy := false; ; busy = true {
		err := fn()
		if err != nil && busy && ctx.Err() != nil {
			return fmt.Errorf("%w: other transactions had the row: %w", filestore.ErrLockTimeout, ctx.Err())
		}
		if !isCode(err, numbers...) {
			return err
		}
		select {
		case <-ctx.Done(): // which fn returns
		case <-time.After(mathrand.N(10 * time.Millisecond)):
		}
	}
}

// An execer is a *sql.DB or a *sql.Conn.
type execer interface {
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
}

// exec executes a statement and returns how many rows it has found or made.
func (e *engine) exec(ctx context.Context, on execer, text string, args ...any) (int64, error) {
	res, err := on.ExecContext(ctx, e.sql.Replace(text), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// change is exec as a transaction of its own, which waits for those of others.
func (e *engine) change(ctx context.Context, text string, args ...any) (n int64, err error) {
	err = retry(ctx, func() error {
		n, err = e.exec(ctx, e.db, text, args...)
		return err
	}, lockWaitTimeout, deadlock)
	return n, refused(err)
}

// transaction calls fn in a transaction, which it commits unless fn fails. It is not a sql.Tx, since that has no bound:
// its Commit and Rollback would wait for a server that hangs.
func (e *engine) transaction(ctx context.Context, fn func(*sql.Conn) error) error {
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.ExecContext(ctx, "START TRANSACTION"); err == nil {
		err = fn(conn)
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		if _, backErr := conn.ExecContext(ctx, "ROLLBACK"); backErr != nil { // ctx is done, perhaps between two statements
			conn.Raw(func(any) error { return driver.ErrBadConn }) // ends the connection, and the transaction by that
		}
	}
	return err
}

// fits returns an error if the table does not take the row. Without its strict mode the server would cut it off, or put
// a ? in the place of a byte.
func (e *engine) fits(r backend.Row) error {
	switch {
	case int64(len(r.ID)) > e.maxID:
		return fmt.Errorf("%w: the table's have at most %d characters", filestore.ErrInvalidID, e.maxID)
	case int64(len(r.Doc)) > e.maxDoc:
		return fmt.Errorf("%w: %d bytes, and the table or the server takes %d", filestore.ErrTooLarge, len(r.Doc), e.maxDoc)
	case e.text && !utf8.ValidString(r.Doc):
		return backend.Refused("the document is not UTF-8", nil)
	}
	return nil
}

// list returns n times text with commas between them.
func list(text string, n int) string { return strings.TrimSuffix(strings.Repeat(text+",", n), ",") }

// args returns v as arguments.
func args[T any](v []T) []any {
	all := make([]any, len(v))
	for i := range v {
		all[i] = v[i]
	}
	return all
}

func (e *engine) Get(ctx context.Context, id string) (backend.Row, error) {
	row := backend.Row{ID: id}
	var us int64
	err := e.db.QueryRowContext(ctx, e.sql.Replace("SELECT COALESCE(data, ''), {left} FROM {table} WHERE session_id = ? AND {live}"), id).Scan(&row.Doc, &us)
	if errors.Is(err, sql.ErrNoRows) {
		err = filestore.ErrNotFound
	}
	row.Left = time.Duration(us) * time.Microsecond
	return row, refused(err)
}

const pageSize, docsPageSize = 1000, 200 // documents can be large

func (e *engine) Insert(ctx context.Context, rows []backend.Row) ([]bool, error) {
	for _, r := range rows {
		if err := e.fits(r); err != nil {
			return nil, err
		}
	}
	stored := make([]bool, len(rows))
	if parts := e.parts(rows); len(parts) == 1 {
		switch err := retry(ctx, func() error { return e.insert(ctx, e.db, rows) }, lockWaitTimeout, deadlock); {
		case err == nil:
			return slices.Repeat([]bool{true}, len(rows)), nil
		case !isCode(err, duplicate):
			return nil, refused(err)
		}
	}
	err := retry(ctx, func() error {
		return e.transaction(ctx, func(conn *sql.Conn) error {
			clear(stored)
			from := 0
			for _, part := range e.parts(rows) {
				if err := e.insertFree(ctx, conn, part, stored[from:]); err != nil {
					return err
				}
				from += len(part)
			}
			return nil
		})
	}, lockWaitTimeout, deadlock, duplicate) // the last with READ COMMITTED
	if err != nil {
		return nil, refused(err)
	}
	return stored, nil
}

// parts returns rows in parts that one statement can hold.
func (e *engine) parts(rows []backend.Row) (parts [][]backend.Row) {
	from, size := 0, int64(0)
	for i, r := range rows {
		if size += int64(len(r.Doc)); i > from && (size > e.maxDoc || i-from == pageSize) {
			parts = append(parts, rows[from:i])
			from, size = i, int64(len(r.Doc))
		}
	}
	return append(parts, rows[from:])
}

// insert stores all rows, or none.
func (e *engine) insert(ctx context.Context, on execer, rows []backend.Row) error {
	var all []any
	for _, r := range rows {
		all = append(all, r.ID, micros(r.Left), r.Doc)
	}
	_, err := e.exec(ctx, on, "INSERT INTO {table} (session_id, expires, data) VALUES "+list("(?, {end}, ?)", len(rows)), all...)
	return err
}

// insertFree stores the rows whose id no live row has.
func (e *engine) insertFree(ctx context.Context, conn *sql.Conn, rows []backend.Row, stored []bool) error {
	ids := make([]any, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	in := " FROM {table} WHERE session_id IN (" + list("?", len(ids)) + ")"
	if _, err := e.exec(ctx, conn, "DELETE"+in+" AND NOT ({live})", ids...); err != nil {
		return err
	}
	// With a lock, so that what is not there stays so until it is inserted, but for READ COMMITTED.
	found, err := conn.QueryContext(ctx, e.sql.Replace("SELECT session_id"+in+" FOR UPDATE"), ids...)
	if err != nil {
		return err
	}
	defer found.Close()
	taken := make(map[string]bool)
	for found.Next() {
		var id string
		if err := found.Scan(&id); err != nil {
			return err
		}
		taken[id] = true
	}
	if err := found.Err(); err != nil {
		return err
	}
	var free []backend.Row
	for i, r := range rows {
		if !taken[r.ID] {
			taken[r.ID], stored[i] = true, true
			free = append(free, r)
		}
	}
	if len(free) == 0 {
		return nil
	}
	return e.insert(ctx, conn, free)
}

func (e *engine) Put(ctx context.Context, r backend.Row) error {
	if err := e.fits(r); err != nil {
		return err
	}
	_, err := e.change(ctx, "INSERT INTO {table} (session_id, expires, data) VALUES (?, {end}, ?) ON DUPLICATE KEY UPDATE expires = VALUES(expires), data = VALUES(data)",
		r.ID, micros(r.Left), r.Doc)
	return err
}

func (e *engine) Swap(ctx context.Context, was, now backend.Row) (bool, error) {
	if err := e.fits(now); err != nil {
		return false, err
	}
	set, all := []string{"data = ?"}, []any{now.Doc}
	if now.Left != was.Left {
		set, all = append(set, "expires = {end}"), append(all, micros(now.Left))
		if now.Doc == was.Doc { // then the server need not store it again
			set, all = set[1:], all[1:]
		}
	}
	n, err := e.change(ctx, "UPDATE {table} SET "+strings.Join(set, ", ")+" WHERE session_id = ? AND {same} AND {live}", append(all, was.ID, was.Doc)...)
	return n == 1, err
}

func (e *engine) Delete(ctx context.Context, ids []string) error {
	_, err := e.change(ctx, "DELETE FROM {table} WHERE session_id IN ("+list("?", len(ids))+")", args(ids)...)
	return err
}

// Page goes through the table in the order of its key. The cursor is the last id.
func (e *engine) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	columns, size := "session_id, '', 0", pageSize
	if docs {
		columns, size = "session_id, COALESCE(data, ''), {left}", docsPageSize
	}
	err = e.query(ctx, func(r backend.Row) { rows = append(rows, r) },
		"SELECT "+columns+" FROM {table} WHERE session_id > ? AND {live} ORDER BY session_id LIMIT ?", cursor, size)
	if len(rows) == size {
		next = rows[size-1].ID
	}
	return rows, next, err
}

// query calls visit for each row.
func (e *engine) query(ctx context.Context, visit func(backend.Row), text string, args ...any) error {
	rows, err := e.db.QueryContext(ctx, e.sql.Replace(text), args...)
	if err != nil {
		return refused(err)
	}
	defer rows.Close()
	for rows.Next() {
		var row backend.Row
		var us int64
		if err := rows.Scan(&row.ID, &row.Doc, &us); err != nil {
			return err
		}
		row.Left = time.Duration(us) * time.Microsecond
		visit(row)
	}
	return refused(rows.Err())
}

// Snapshot is one SELECT: the server shows it the rows as they were when it began.
func (e *engine) Snapshot(ctx context.Context, alive func(), visit func(backend.Row)) error {
	return e.query(ctx, func(r backend.Row) { alive(); visit(r) }, "SELECT session_id, COALESCE(data, ''), {left} FROM {table} WHERE {live}")
}

// Reap looks for rows without a lock, and only then removes them, if their time is still over. A DELETE of all at once
// would lock each row that it looks at until its end, as there is no index on expires.
func (e *engine) Reap(ctx context.Context, alive func()) (removed int, err error) {
	for cursor, more := "", true; more; {
		var ids []string
		err := e.query(ctx, func(r backend.Row) { ids = append(ids, r.ID) },
			"SELECT session_id, '', 0 FROM {table} WHERE session_id > ? AND NOT ({live}) ORDER BY session_id LIMIT ?", cursor, pageSize)
		alive()
		if err != nil || len(ids) == 0 {
			return removed, err
		}
		n, err := e.change(ctx, "DELETE FROM {table} WHERE session_id IN ("+list("?", len(ids))+") AND NOT ({live})", args(ids)...)
		alive()
		removed += int(n)
		if err != nil {
			return removed, err
		}
		cursor, more = ids[len(ids)-1], len(ids) == pageSize
	}
	return removed, nil
}
