package interop

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var pgEngine = &engine{
	name: "PostgreSQL", npm: "pg",
	start: func(t testing.TB) string { return storetest.Postgres(t, "fsync=off").URL("") },
	node:  func(addr string) object { return object{"url": addr} },
	open: func(addr string) (db, error) {
		pool, err := pgxpool.New(ctx, addr)
		return db{
			open: func(touchAfter time.Duration) (store, error) {
				return pgstore.New(pool, &pgstore.Options{CreateTable: true, TouchAfter: touchAfter})
			},
			row: func(id string) (doc string, end time.Time, err error) {
				var seconds int64
				err = pool.QueryRow(ctx, `SELECT sess::text, extract(epoch FROM expire::timestamptz)::bigint FROM session WHERE sid = $1`, id).Scan(&doc, &seconds)
				if errors.Is(err, pgx.ErrNoRows) {
					err = filestore.ErrNotFound
				}
				return doc, time.Unix(seconds, 0), err
			},
			close: func() { pool.Close() },
		}, err
	},
}
