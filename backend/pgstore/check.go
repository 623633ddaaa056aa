package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sessionfilestore/filestore"
)

// check refuses what the Store cannot work with. create makes the table if there is none, unless it is "".
func (e *engine) check(ctx context.Context, create string, codec filestore.Codec) error {
	if err := e.checkServer(ctx); err != nil {
		return err
	}
	columns, err := e.columns(ctx)
	if err != nil {
		return err
	}
	if len(columns) == 0 && create != "" {
		_, createErr := e.pool.Exec(ctx, create)
		if columns, err = e.columns(ctx); err != nil {
			return err
		}
		if len(columns) == 0 { // else another program has made it at the same moment
			return refused(createErr)
		}
	}
	if err := checkTable(columns); err != nil {
		return err
	}
	// To plan a statement needs all that the statement needs: the primary key, the privileges, the columns' types.
	if _, err := e.exec(ctx, "EXPLAIN "+putRow, "", "{}", 0); err != nil {
		return err
	}
	if _, err := e.exec(ctx, "EXPLAIN "+reapRows); err != nil {
		return err
	}
	return e.checkCodec(ctx, columns["sess"].kind, codec)
}

// checkServer refuses a server that is not to be written to or read from, and a connection that would mean other times.
func (e *engine) checkServer(ctx context.Context) error {
	var standby, readOnly bool
	var source string
	err := e.pool.QueryRow(ctx, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool,"+
		" (SELECT source FROM pg_settings WHERE name = 'TimeZone')").Scan(&standby, &readOnly, &source)
	switch {
	case err != nil:
		return refused(err)
	case standby:
		return errors.New("the server is a standby, which lags behind: name the primary, or all servers and target_session_attrs=read-write")
	case readOnly:
		return errors.New("transactions are read-only: set default_transaction_read_only=off for the role or the connection")
	case source == "client" || source == "session":
		return errors.New("the connection has a TimeZone of its own, so that it takes expire for another time than others do:" +
			" remove timezone from the connection string and its hooks, and PGTZ from the environment," +
			" and set it for all by ALTER DATABASE … SET timezone")
	}
	return nil
}

// A column is one of the table.
type column struct {
	kind    string // its type
	exact   bool   // whether only equal bytes are equal
	notNull bool   // or of a view, which does not say
}

// columns returns those of the table that the Store uses, none if there is no table.
func (e *engine) columns(ctx context.Context) (map[string]column, error) {
	rows, err := e.pool.Query(ctx, "SELECT attname::text, atttypid::regtype::text, coalesce(collisdeterministic, true),"+
		" attnotnull OR (SELECT relkind = 'v' FROM pg_class WHERE oid = attrelid)"+
		" FROM pg_attribute LEFT JOIN pg_collation c ON c.oid = attcollation"+
		" WHERE attrelid = to_regclass($1::text) AND NOT attisdropped AND attname IN ('sid', 'sess', 'expire')", e.table)
	if err != nil {
		return nil, refused(err)
	}
	columns := make(map[string]column)
	var name string
	var c column
	_, err = pgx.ForEachRow(rows, []any{&name, &c.kind, &c.exact, &c.notNull}, func() error {
		columns[name] = c
		return nil
	})
	return columns, refused(err)
}

func checkTable(columns map[string]column) error {
	sid, sess, expire := columns["sid"], columns["sess"], columns["expire"]
	switch {
	case len(columns) == 0:
		return errors.New("there is no such table: create it, or set Options.CreateTable")
	case len(columns) < 3:
		return errors.New("the table does not have the columns sid, sess and expire")
	case sid.kind != "character varying" && sid.kind != "text", !sid.exact:
		return errors.New("the column sid must be a varchar or text, and its collation deterministic: else ids that differ are one")
	case sess.kind != "json" && sess.kind != "jsonb" && sess.kind != "text":
		return errors.New("the column sess must be json")
	case expire.kind != "timestamp without time zone" && expire.kind != "timestamp with time zone":
		return errors.New("the column expire must be a timestamp")
	case !expire.notNull:
		return errors.New("the column expire may be NULL, so that a session need not have an end and is never removed:" +
			" DELETE the rows that have NULL there, and ALTER TABLE … ALTER expire SET NOT NULL")
	}
	return nil
}

// checkCodec refuses a Codec whose values the column sess, which is of this type, does not give back.
func (e *engine) checkCodec(ctx context.Context, kind string, codec filestore.Codec) error {
	if codec == nil {
		return nil
	}
	const id = "probe"
	encode, decode := codec.Encode, codec.Decode
	if c, ok := codec.(filestore.ContextCodec); ok {
		encode = func(id string, doc []byte) ([]byte, error) { return c.EncodeContext(ctx, id, doc) }
		decode = func(id string, value []byte) ([]byte, error) { return c.DecodeContext(ctx, id, value) }
	}
	value, err := encode(id, []byte(`{"cookie":{"originalMaxAge":null,"expires":null}}`))
	if err != nil {
		return err
	}
	if !json.Valid(value) {
		return errors.New("Options.Codec makes something that is not JSON, which the column does not take: let it make a JSON string of it")
	}
	var stored string
	if err := e.pool.QueryRow(ctx, fmt.Sprintf("SELECT ($1::json)::%s::text", kind), string(value)).Scan(&stored); err != nil {
		return refused(err)
	}
	if _, err := decode(id, []byte(stored)); err != nil {
		return fmt.Errorf("Options.Codec cannot read its values in a column that is %s, which spells JSON in its own way: ALTER it to json: %w", kind, err)
	}
	return nil
}
