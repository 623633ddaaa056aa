package interop

import (
	"database/sql"
	"errors"
	"net"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var mysqlEngine = &engine{
	name: "MySQL", npm: "mysql",
	start: func(t testing.TB) string {
		addr := storetest.MariaDB(t, "", "--innodb-flush-log-at-trx-commit=0").Addr
		db, err := sql.Open("mysql", "root@tcp("+addr+")/")
		must(t, err)
		defer db.Close()
		_, err = db.Exec("CREATE DATABASE site CHARACTER SET utf8mb4")
		must(t, err)
		return addr
	},
	node: func(addr string) object {
		host, port, _ := net.SplitHostPort(addr)
		return object{"host": host, "port": port, "user": "root", "database": "site"}
	},
	open: func(addr string) (db, error) {
		pool, err := sql.Open("mysql", "root@tcp("+addr+")/site?clientFoundRows=true&innodb_lock_wait_timeout=4")
		return db{
			open: func(touchAfter time.Duration) (store, error) {
				return mysqlstore.New(pool, &mysqlstore.Options{CreateTable: true, TouchAfter: touchAfter})
			},
			row: func(id string) (doc string, end time.Time, err error) {
				var seconds int64
				err = pool.QueryRow("SELECT data, expires FROM sessions WHERE session_id = ?", id).Scan(&doc, &seconds)
				if errors.Is(err, sql.ErrNoRows) {
					err = filestore.ErrNotFound
				}
				return doc, time.Unix(seconds, 0), err
			},
			close: func() { pool.Close() },
		}, err
	},
}
