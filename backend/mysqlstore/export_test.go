package mysqlstore

import (
	"context"
	"database/sql"

	"github.com/sessionfilestore/filestore/backend"
)

// Engine is what a Store on the table is made of: what Stores do not show can be attacked there.
type Engine interface {
	backend.Snapshotter
	backend.Reaper
}

// OpenEngine returns one after the checks of New.
func OpenEngine(ctx context.Context, db *sql.DB, table string) (Engine, error) {
	e := newEngine(db, "", table)
	_, err := e.check(ctx, true, nil)
	return e, err
}

// Transaction is the transaction of e.
func Transaction(ctx context.Context, e Engine, fn func(*sql.Conn) error) error {
	return e.(*engine).transaction(ctx, fn)
}
