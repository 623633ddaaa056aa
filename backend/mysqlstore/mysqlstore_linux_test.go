package mysqlstore_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.Parallel(16)
	mysql.SetLogger(discard{}) // it tells of each connection that a test breaks
	storetest.Main(m, workers)
}

type discard struct{}

func (discard) Print(...any) {}

// dsn returns the name of a database of the server, with more parameters.
func dsn(addr, database, params string) string {
	return "root@tcp(" + addr + ")/" + database + "?clientFoundRows=true&innodb_lock_wait_timeout=4" + params
}

func connect(t testing.TB, name string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t testing.TB, db *sql.DB, text string, args ...any) {
	t.Helper()
	if _, err := db.Exec(text, args...); err != nil {
		t.Fatal(err)
	}
}

// one returns the value that the query finds.
func one[T any](t testing.TB, db *sql.DB, text string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(text, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

var databases atomic.Int64

// database makes one on the server, and returns its name.
func database(t testing.TB, s *storetest.Server) string {
	t.Helper()
	name := fmt.Sprint("db", databases.Add(1))
	execute(t, connect(t, dsn(s.Addr, "", "")), "CREATE DATABASE "+name)
	return name
}

func open(t testing.TB, db *sql.DB, o *mysqlstore.Options) *mysqlstore.Store {
	t.Helper()
	s, err := mysqlstore.New(db, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fresh returns a Store on a table of its own. Its Timeout is one for a busy machine.
func fresh(t testing.TB, server *storetest.Server, params string) (*mysqlstore.Store, *sql.DB) {
	t.Helper()
	db := connect(t, dsn(server.Addr, database(t, server), params))
	return open(t, db, &mysqlstore.Options{CreateTable: true, TouchAfter: -1, Timeout: time.Minute}), db
}

var (
	with  = storetest.With
	add   = storetest.Add
	count = storetest.Count[session.Store]
)

// TestOnOne has the tests that share a server, as it takes seconds to make one.
func TestOnOne(t *testing.T) {
	server := storetest.MariaDB(t, "")
	for _, tt := range []struct {
		name string
		test func(*testing.T, *storetest.Server)
	}{
		{"Store", testStore}, {"Samples", testSamples}, {"Refused", testRefused}, {"Server", testServer}, {"Rights", testRights},
		{"CreateTable", testCreateTable}, {"Names", testNames}, {"JSON", testJSON}, {"UTF8", testUTF8}, {"Case", testCase}, {"NULL", testNULL}, {"NotStrict", testNotStrict},
		{"IDs", testIDs}, {"Exact", testExact}, {"Clock", testClock}, {"Zones", testZones}, {"Insert", testInsert}, {"Errors", testErrors},

		{"Workers", testWorkers}, {"Creators", testCreators}, {"Reapers", testReapers}, {"ReaperLooksTwice", testReaperLooksTwice}, {"Transaction", testTransaction},
		{"Touches", testTouches}, {"Inserts", testInserts},
		{"HeldLock", testHeldLock}, {"KilledConnections", testKilledConnections}, {"LostAnswers", testLostAnswers},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, server) })
	}
}

// Every promise of session.Store, with statements that are prepared and with such that are not.
func testStore(t *testing.T, server *storetest.Server) {
	for _, params := range []string{"", "&interpolateParams=true"} {
		t.Run("DSN"+params, func(t *testing.T) {
			t.Parallel()
			sessiontest.Run(t, func(t *testing.T) session.Store {
				db := connect(t, dsn(server.Addr, database(t, server), params))
				s := open(t, db, &mysqlstore.Options{CreateTable: true, Lifetime: time.Minute, Timeout: time.Minute})
				if strings.HasSuffix(t.Name(), "/IDs") { // which wants ids of 200 characters
					execute(t, db, "ALTER TABLE sessions MODIFY session_id varchar(200) COLLATE utf8mb4_bin NOT NULL")
					s = open(t, db, nil)
				}
				return s
			})
		})
	}
}

var created = regexp.MustCompile(`,"__created":\d+`)

// What Node wrote is read, and written back as it was, byte for byte.
func testSamples(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	samples, err := os.Open("testdata/mysql.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer samples.Close()
	n := 0
	for lines := bufio.NewScanner(samples); lines.Scan(); {
		id, rest, _ := strings.Cut(lines.Text(), "\t")
		_, doc, _ := strings.Cut(rest, "\t")
		if !strings.HasPrefix(doc, `{"cookie"`) {
			continue
		}
		n++
		execute(t, db, "INSERT INTO sessions VALUES (?, UNIX_TIMESTAMP() + 100, ?)", id, doc)
		sess, err := s.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(sess.Values["user"]); got != `{"id":7,"name":"Ærøskøbing <b> & \"é\" 😀"}` {
			t.Errorf("the user is %s", got)
		}
		if got, err := sess.Document(); string(got) != doc {
			t.Errorf("Document = %s, %v, want %s", got, err, doc)
		}
		if err := s.Set(ctx, id, sess); err != nil {
			t.Fatal(err)
		}
		written := one[string](t, db, "SELECT data FROM sessions WHERE session_id = ?", id)
		if got := created.ReplaceAllString(written, ""); got != doc {
			t.Errorf("Set writes %s, want %s and when it was created", written, doc)
		}
		execute(t, db, "UPDATE sessions SET expires = expires - 50")
		if err := s.Touch(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
		if got := one[string](t, db, "SELECT data FROM sessions WHERE session_id = ?", id); sess.Cookie.OriginalMaxAge == 0 && got != written {
			t.Errorf("Touch writes %s, want %s as before", got, written)
		}
	}
	if n != 2 {
		t.Errorf("%d samples, want 2", n)
	}
	_, table, _ := strings.Cut(string(read(t, "testdata/mysql.txt")), "# SHOW CREATE TABLE\nsessions\t")
	columns := func(table string) string { table, _, _ = strings.Cut(table, "ENGINE="); return table } // not the database's default
	var name, got string
	if err := db.QueryRow("SHOW CREATE TABLE sessions").Scan(&name, &got); err != nil {
		t.Fatal(err)
	}
	if columns(got) != columns(table) || !strings.Contains(got, "ENGINE=InnoDB") {
		t.Errorf("CreateTable makes %s\nwant that of Node: %s", got, table)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// New refuses what sessions would not be safe on, and says how to cure it. It leaves nothing behind.
func testRefused(t *testing.T, server *storetest.Server) {
	const node = "CREATE TABLE sessions (session_id varchar(128) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, expires int(11) unsigned NOT NULL, data mediumtext COLLATE utf8mb4_bin)"
	plain := "root@tcp(" + server.Addr + ")/"
	for _, tt := range []struct{ name, table, params, want string }{
		{"FoundRows", node, "clientFoundRows=false", "clientFoundRows=true"},
		{"Charset", node, "clientFoundRows=true&charset=latin1", "charset=utf8mb4"},
		{"Utf8mb3", node, "clientFoundRows=true&charset=utf8mb3", "charset=utf8mb4"},
		{"Autocommit", node, "clientFoundRows=true&autocommit=0", "autocommit"},
		{"NoTable", "", "clientFoundRows=true", "CreateTable"},
		{"Case", strings.Replace(node, "utf8mb4_bin", "utf8mb4_general_ci", 1), "clientFoundRows=true", "utf8mb4_general_ci, which takes different ids for the same: ALTER TABLE"},
		{"Latin1", strings.Replace(node, "mediumtext COLLATE utf8mb4_bin", "mediumtext CHARACTER SET latin1", 1), "clientFoundRows=true", "ALTER TABLE … MODIFY data"},
		{"NoKey", strings.Replace(node, "PRIMARY KEY", "", 1), "clientFoundRows=true", "primary key"},
		{"KeyOfTwo", strings.Replace(strings.Replace(node, "PRIMARY KEY", "", 1), "utf8mb4_bin)", "utf8mb4_bin, app int NOT NULL DEFAULT 0, PRIMARY KEY (session_id, app))", 1), "clientFoundRows=true", "primary key"},
		{"KeyOfAPart", strings.Replace(strings.Replace(node, "PRIMARY KEY", "", 1), "utf8mb4_bin)", "utf8mb4_bin, UNIQUE KEY (session_id(8)))", 1), "clientFoundRows=true", "primary key"},
		{"KeyOfAPartToo", strings.Replace(node, "utf8mb4_bin)", "utf8mb4_bin, UNIQUE KEY (session_id(8)))", 1), "clientFoundRows=true", "share a row"},
		{"KeyOfExpires", strings.Replace(node, "utf8mb4_bin)", "utf8mb4_bin, UNIQUE KEY (expires))", 1), "clientFoundRows=true", "share a row"},
		{"SignedExpires", strings.Replace(node, "int(11) unsigned", "int(11)", 1), "clientFoundRows=true", "MODIFY expires int unsigned"},
		{"SmallExpires", strings.Replace(node, "int(11) unsigned", "mediumint unsigned", 1), "clientFoundRows=true", "MODIFY expires int unsigned"},
		{"DateExpires", strings.Replace(node, "int(11) unsigned", "datetime", 1), "clientFoundRows=true", "MODIFY expires int unsigned"},
		{"MyISAM", node + " ENGINE=MyISAM", "clientFoundRows=true", "ENGINE=InnoDB"},
		{"Columns", strings.Replace(node, "expires", "expired", 1), "clientFoundRows=true", "no column expires"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := database(t, server)
			db := connect(t, plain+base+"?"+tt.params)
			if tt.table != "" {
				execute(t, connect(t, dsn(server.Addr, base, "")), tt.table)
			}
			s, err := mysqlstore.New(db, nil)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want an error with %q", err, tt.want)
			}
			if tt.table != "" {
				if n := one[int](t, connect(t, dsn(server.Addr, base, "")), "SELECT COUNT(*) FROM sessions"); n != 0 {
					t.Errorf("New leaves %d rows", n)
				}
			}
		})
	}
	for _, table := range []string{
		strings.Replace(node, "int(11) unsigned", "bigint", 1),
		strings.Replace(node, "utf8mb4_bin)", "utf8mb4_bin, KEY (session_id(8)), UNIQUE KEY (session_id, expires))", 1),
		strings.Replace(strings.Replace(node, "PRIMARY KEY", "UNIQUE", 1), "utf8mb4_bin)", "utf8mb4_bin, id int AUTO_INCREMENT PRIMARY KEY)", 1),
	} {
		db := connect(t, dsn(server.Addr, database(t, server), ""))
		execute(t, db, table)
		s := open(t, db, nil)
		if err := s.Set(ctx, "a", with("n", 0)); err != nil {
			t.Errorf("Set in %s: %v", table, err)
		}
	}
	for _, table := range []string{".", "a.", ".b"} {
		if _, err := mysqlstore.New(connect(t, plain), &mysqlstore.Options{Table: table}); err == nil || !strings.Contains(err.Error(), "Options.Table") {
			t.Errorf("New with the table %q = %v, want an error about Options.Table", table, err)
		}
	}
	if _, err := mysqlstore.New(connect(t, plain), &mysqlstore.Options{TTL: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "Options.TTL") {
		t.Errorf("New with a TTL of a millisecond = %v", err)
	}
}

// New refuses a server that takes no writes, and one that is not there. It warns of a long wait for locks.
func testServer(t *testing.T, server *storetest.Server) {
	base := database(t, server)
	admin := connect(t, dsn(server.Addr, base, ""))
	open(t, admin, &mysqlstore.Options{CreateTable: true})
	execute(t, admin, "SET GLOBAL read_only = 1")
	_, err := mysqlstore.New(admin, nil)
	execute(t, admin, "SET GLOBAL read_only = 0")
	if err == nil || !strings.Contains(err.Error(), "read-only, as a replica is") {
		t.Errorf("New on a read-only server = %v", err)
	}
	began := time.Now()
	if _, err := mysqlstore.New(connect(t, dsn("127.0.0.1:"+storetest.FreePort(t), base, "")), nil); err == nil || time.Since(began) > 4*time.Second {
		t.Errorf("New on no server = %v after %v", err, time.Since(began))
	}
	log := storetest.Log(t)
	open(t, admin, nil)
	if log.String() != "" {
		t.Errorf("New logs %s, want nothing", log)
	}
	open(t, connect(t, strings.Replace(dsn(server.Addr, base, ""), "innodb_lock_wait_timeout=4", "innodb_lock_wait_timeout=50", 1)), nil)
	if !strings.Contains(log.String(), "innodb_lock_wait_timeout=4") {
		t.Errorf("New on connections that wait 50 s for a lock logs %q", log)
	}
}

// A user needs rights to the rows, and to make a table only if there is none.
func testRights(t *testing.T, server *storetest.Server) {
	s, admin := fresh(t, server, "")
	if err := s.Set(ctx, "a", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	base := one[string](t, admin, "SELECT DATABASE()")
	execute(t, admin, "CREATE USER app@127.0.0.1 IDENTIFIED BY 'secret'")
	execute(t, admin, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+base+".sessions TO app@127.0.0.1")
	app := connect(t, strings.Replace(dsn(server.Addr, base, ""), "root@", "app:secret@", 1))
	own := open(t, app, &mysqlstore.Options{CreateTable: true})
	if err := own.Update(ctx, "a", add); err != nil || count(t, own, "a") != 1 {
		t.Errorf("Update = %v", err)
	}
	execute(t, admin, "REVOKE UPDATE ON "+base+".sessions FROM app@127.0.0.1")
	if _, err := mysqlstore.New(app, nil); err == nil || !strings.Contains(err.Error(), "the server refuses: error 1142") {
		t.Errorf("New without the right to UPDATE = %v, want error 1142", err)
	}
	if err := own.Update(ctx, "a", add); err == nil || !strings.Contains(err.Error(), "the server refuses: error 1142") || strings.Contains(err.Error(), "UPDATE") {
		t.Errorf("Update without the right = %v, want error 1142 and no statement", err)
	}
}

// Any number of programs can make the table at once.
func testCreateTable(t *testing.T, server *storetest.Server) {
	for range 5 {
		db := connect(t, dsn(server.Addr, database(t, server), ""))
		errs := make(chan error)
		for range 8 {
			go func() {
				s, err := mysqlstore.New(db, &mysqlstore.Options{CreateTable: true})
				if err == nil {
					s.Close()
				}
				errs <- err
			}()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Errorf("one of 8 New at once = %v", err)
			}
		}
	}
}

// A table may have any name, and be in another database.
func testNames(t *testing.T, server *storetest.Server) {
	base := database(t, server)
	db := connect(t, dsn(server.Addr, "", "")) // without a database
	for _, name := range []string{"t` (x int); --", "{live} ?", "select"} {
		s := open(t, db, &mysqlstore.Options{Table: base + "." + name, CreateTable: true})
		if err := s.Set(ctx, "a", with("n", 0)); err != nil {
			t.Errorf("table %q: %v", name, err)
		}
		if err := s.Update(ctx, "a", add); err != nil || count(t, s, "a") != 1 {
			t.Errorf("table %q: %v", name, err)
		}
		if n := one[int](t, db, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = ? AND table_name = ?", base, name); n != 1 {
			t.Errorf("there is no table %q", name)
		}
	}
}

// A column of MariaDB's type JSON is a text, and holds documents as they are.
func testJSON(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	execute(t, db, "ALTER TABLE sessions MODIFY data JSON")
	s := open(t, db, nil)
	const doc = `{ "cookie" : {"originalMaxAge":null,"expires":null,"path":"/"}, "n":0, "n":0, "s":"\u00e9é" }`
	execute(t, db, "INSERT INTO sessions VALUES ('a', UNIX_TIMESTAMP() + 100, ?)", doc)
	if err := s.Update(ctx, "a", add); err != nil || count(t, s, "a") != 1 {
		t.Errorf("Update = %v", err)
	}
	if err := s.Touch(ctx, "a", nil); err != nil {
		t.Errorf("Touch = %v", err)
	}
	const hint = "the server refuses: error 4025: "
	if _, err := mysqlstore.New(db, &mysqlstore.Options{Codec: reversed{}}); err == nil || !strings.Contains(err.Error(), hint) || strings.Contains(err.Error(), "cookie") {
		t.Errorf("New with a Codec that does not make JSON = %v, want %q", err, hint)
	}
	for value, ok := range map[string]bool{
		strings.Repeat("[", 30) + strings.Repeat("]", 30): true,
		strings.Repeat("[", 31) + strings.Repeat("]", 31): false,
		`"\ud83d\ude00"`: true,
		`"\ud83d"`:       false,
	} {
		err := s.Set(ctx, "b", with("n", json.RawMessage(value)))
		if ok && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), hint)) {
			t.Errorf("Set of %s = %v, and not whether the column takes it: %v", value, err, ok)
		}
	}
}

// reversed is a Codec whose documents are not JSON.
type reversed struct{}

func (reversed) Encode(_ string, doc []byte) ([]byte, error) {
	doc = bytes.Clone(doc)
	slices.Reverse(doc)
	return doc, nil
}
func (r reversed) Decode(id string, file []byte) ([]byte, error) { return r.Encode(id, file) }

// raw is a Codec whose documents are not UTF-8.
type raw struct{}

func (raw) Encode(_ string, doc []byte) ([]byte, error) { return append([]byte("\xff"), doc...), nil }
func (raw) Decode(_ string, file []byte) ([]byte, error) {
	return bytes.TrimPrefix(file, []byte("\xff")), nil
}

// A server without strict mode changes bytes that are not UTF-8, and says nothing. No Store lets it.
func testUTF8(t *testing.T, server *storetest.Server) {
	for _, params := range []string{"", "&sql_mode=''", "&sql_mode=''&interpolateParams=true"} {
		s, db := fresh(t, server, params)
		if _, err := mysqlstore.New(db, &mysqlstore.Options{Codec: raw{}}); err == nil || !strings.Contains(err.Error(), "Options.Codec makes something that is not UTF-8") {
			t.Errorf("%s: New with a Codec of bytes = %v", params, err)
		}
		for _, id := range []string{"a", "b"} {
			if err := s.Set(ctx, id, with("n", 0)); err != nil {
				t.Fatal(err)
			}
		}
		bad := with("n", 0)
		bad.Values["s"] = json.RawMessage("\"hunter\xff2\"")
		for name, err := range map[string]error{
			"Set": s.Set(ctx, "a", bad), "Create": s.Create(ctx, "new", bad),
			"Update": s.Update(ctx, "b", func(sess *filestore.Session) error { sess.Values = bad.Values; return nil }),
		} {
			if err == nil || !strings.Contains(err.Error(), "not UTF-8") || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%s: %s of a document that is not UTF-8 = %v", params, name, err)
			}
		}
		if n := one[int](t, db, "SELECT COUNT(*) FROM sessions WHERE data NOT LIKE '%hunter%'"); n != 2 {
			t.Errorf("%s: %d sessions as they were, want 2", params, n)
		}

		execute(t, db, "ALTER TABLE sessions MODIFY data mediumblob") // which holds any bytes
		b := open(t, db, &mysqlstore.Options{Codec: raw{}, TouchAfter: -1})
		if err := b.Set(ctx, "c", with("n", 0)); err != nil {
			t.Errorf("%s: Set into a blob = %v", params, err)
		}
		if err := b.Update(ctx, "c", add); err != nil || count(t, b, "c") != 1 {
			t.Errorf("%s: Update in a blob = %v", params, err)
		}
	}
}

// Tables and databases whose names differ in case are different ones, if the server says so.
func testCase(t *testing.T, server *storetest.Server) {
	for _, params := range []string{"", "&interpolateParams=true"} {
		_, db := fresh(t, server, params)
		execute(t, db, "CREATE TABLE SESSIONS (session_id varchar(10) PRIMARY KEY, data tinytext, expires int) ENGINE=MyISAM")
		execute(t, db, "CREATE TABLE Sessions (session_id varchar(128), UNIQUE KEY (session_id(8)))")
		base := one[string](t, db, "SELECT DATABASE()")
		execute(t, db, "CREATE DATABASE "+strings.ToUpper(base))
		execute(t, db, "CREATE TABLE "+strings.ToUpper(base)+".sessions (session_id varchar(10), data tinytext, expires int) ENGINE=MyISAM")
		for _, table := range []string{"", base + ".sessions"} {
			s := open(t, db, &mysqlstore.Options{Table: table})
			if err := s.Set(ctx, strings.Repeat("a", 128), with("n", 0)); err != nil {
				t.Errorf("Set beside a table with another case = %v", err)
			}
		}
		execute(t, db, "DROP TABLE sessions")
		if _, err := mysqlstore.New(db, nil); err == nil || !strings.Contains(err.Error(), "CreateTable") {
			t.Errorf("New with tables of another case only = %v, want an error that names CreateTable", err)
		}
	}
}

// What is not a session is kept, and told of.
func testNULL(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	for id, data := range map[string]any{"null": nil, "empty": "", "torn": `{"cookie":{`, "number": "3", "list": "[1]", "bare": `{"user":"anna"}`} {
		execute(t, db, "INSERT INTO sessions VALUES (?, UNIX_TIMESTAMP() + 100, ?)", id, data)
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("Get(%s) = %v, want ErrCorrupt", id, err)
		}
		if err := s.Update(ctx, id, add); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("Update(%s) = %v, want ErrCorrupt", id, err)
		}
		if err := s.Touch(ctx, id, nil); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("Touch(%s) = %v, want ErrCorrupt", id, err)
		}
		if err := s.Create(ctx, id, with("n", 0)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create(%s) = %v, want fs.ErrExist", id, err)
		}
	}
	for e, err := range s.All(ctx) {
		t.Errorf("All yields %v, %v", e, err)
	}
	for e, err := range s.Find(ctx, "user", "anna") {
		t.Errorf("Find yields %v, %v", e, err)
	}
	if n, err := s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	if n := one[int](t, db, "SELECT COUNT(*) FROM sessions"); n != 6 {
		t.Errorf("%d rows are left, want 6", n)
	}
	if err := s.Set(ctx, "null", with("n", 0)); err != nil || count(t, s, "null") != 0 {
		t.Errorf("Set over NULL = %v", err)
	}
}

// Without strict mode the server cuts off what is too long. The Store does not let it.
func testNotStrict(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "&sql_mode=''")
	execute(t, db, "ALTER TABLE sessions MODIFY data text COLLATE utf8mb4_bin")
	s := open(t, db, nil)
	long := strings.Repeat("a", 129)
	for name, err := range map[string]error{
		"Create": s.Create(ctx, long, with("n", 0)), "Set": s.Set(ctx, long, with("n", 0)),
		"Update": s.Update(ctx, long, add), "Touch": s.Touch(ctx, long, nil),
	} {
		if !errors.Is(err, filestore.ErrNotFound) || (name == "Create" || name == "Set") && !errors.Is(err, filestore.ErrInvalidID) {
			t.Errorf("%s with an id of 129 characters = %v", name, err)
		}
	}
	if err := s.Destroy(ctx, long); err != nil {
		t.Errorf("Destroy with an id of 129 characters = %v", err)
	}
	if err := s.Create(ctx, long[1:], with("n", 0)); err != nil {
		t.Errorf("Create with an id of 128 characters = %v", err)
	}
	if _, err := s.Get(ctx, long); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Get with an id that begins as another = %v", err)
	}
	big := with("n", strings.Repeat("é", 40_000))
	if err := s.Set(ctx, "big", big); !errors.Is(err, filestore.ErrTooLarge) {
		t.Errorf("Set of what the column does not hold = %v, want ErrTooLarge", err)
	}
	if err := s.Create(ctx, "big", big); !errors.Is(err, filestore.ErrTooLarge) {
		t.Errorf("Create of what the column does not hold = %v, want ErrTooLarge", err)
	}
	if err := s.Update(ctx, long[1:], func(sess *filestore.Session) error { sess.Values = big.Values; return nil }); !errors.Is(err, filestore.ErrTooLarge) {
		t.Errorf("Update to what the column does not hold = %v, want ErrTooLarge", err)
	}
	if count(t, s, long[1:]) != 0 || one[int](t, db, "SELECT COUNT(*) FROM sessions") != 1 {
		t.Error("a row has changed, or there is another one")
	}
}

// Ids are told apart by each character.
func testIDs(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	ids := []string{"abc", "ABC", "aBc", "abc-", "ab.c", "ab_c", "ab,c", "ab~c", "-abc", "a", "A", "0", strings.Repeat("z", 128)}
	for i, id := range ids {
		if err := s.Create(ctx, id, with("n", i)); err != nil {
			t.Fatalf("Create(%q) = %v", id, err)
		}
	}
	for i, id := range ids {
		if n := count(t, s, id); n != i {
			t.Errorf("%q has %d, want %d", id, n, i)
		}
	}
	for _, id := range []string{"abc ", " abc", "abc\x00", "' OR ''='", "x'; DROP TABLE sessions; --", `\`, "`", "ａｂｃ", "%", ""} {
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get(%q) = %v", id, err)
		}
		if err := s.Set(ctx, id, with("n", 0)); !errors.Is(err, filestore.ErrInvalidID) {
			t.Errorf("Set(%q) = %v", id, err)
		}
		if err := s.Destroy(ctx, id); err != nil && !errors.Is(err, filestore.ErrInvalidID) {
			t.Errorf("Destroy(%q) = %v", id, err)
		}
	}
	doc := one[string](t, db, "SELECT data FROM sessions WHERE session_id = 'abc'")
	for _, id := range []string{"", " ", "sp ace ", "ü", "a'b", "\x01", "😀"} { // as a genid of Node may make them
		execute(t, db, "INSERT INTO sessions VALUES (?, UNIX_TIMESTAMP() + 100, ?) ON DUPLICATE KEY UPDATE expires = expires", id, doc)
	}
	var got []string
	for id, err := range s.IDs(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("IDs yields %q, want %q", got, ids)
	}
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, db, "SELECT COUNT(*) FROM sessions"); n != 6 { // '' and ' ' are the same
		t.Errorf("Clear leaves %d rows, want the 6 that are not filestore's", n)
	}
}

func engine(t testing.TB, db *sql.DB) mysqlstore.Engine {
	t.Helper()
	e, err := mysqlstore.OpenEngine(ctx, db, "sessions")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Swap tells documents apart byte by byte, whatever the column's collation takes for equal.
func testExact(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	for _, column := range []string{"mediumtext COLLATE utf8mb4_bin", "mediumtext COLLATE utf8mb4_general_ci", "longtext COLLATE utf8mb4_unicode_520_ci", "JSON", "mediumblob"} {
		execute(t, db, "TRUNCATE sessions")
		execute(t, db, "ALTER TABLE sessions MODIFY data "+column)
		e := engine(t, db)
		now := backend.Row{ID: "a", Doc: `{"s":"aé😀"}`, Left: time.Hour}
		if err := e.Put(ctx, now); err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{`{"s":"Aé😀"}`, `{"s":"ae😀"}`, `{"s":"aé😀"} `, ` {"s":"aé😀"}`, `{"s":"aé😃"}`, `{"s":"aé"}`, `{"s":"a` + "e\u0301" + `😀"}`, ""} {
			if done, err := e.Swap(ctx, backend.Row{ID: "a", Doc: other, Left: time.Hour}, now); done || err != nil {
				t.Errorf("%s: Swap of %q = %v, %v, want false: there is %q", column, other, done, err, now.Doc)
			}
		}
		next := now
		next.Doc = `{"s":"aé😀"}  `
		for range 2 {
			if done, err := e.Swap(ctx, now, next); !done || err != nil {
				t.Errorf("%s: Swap = %v, %v", column, done, err)
			}
			now, next = next, now
		}
		if got, err := e.Get(ctx, "a"); got.Doc != now.Doc || err != nil {
			t.Errorf("%s: Get = %q, %v, want %q", column, got.Doc, err, now.Doc)
		}
	}
}

// at returns a pool for which the server's clock stands still.
func at(t testing.TB, server *storetest.Server, base string, seconds float64, params string) *sql.DB {
	db := connect(t, dsn(server.Addr, base, "&timestamp="+strconv.FormatFloat(seconds, 'f', 6, 64)+params))
	db.SetMaxIdleConns(0) // a test makes more than the server takes
	return db
}

// No session ends early, and none a second late.
func testClock(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	base := one[string](t, db, "SELECT DATABASE()")
	for _, start := range []float64{1_800_000_000, 1_800_000_000.000001, 1_800_000_000.4, 1_800_000_000.5, 1_800_000_000.999999} {
		e := engine(t, at(t, server, base, start, ""))
		for _, life := range []time.Duration{time.Microsecond, 999_999 * time.Microsecond, time.Second, time.Second + time.Microsecond, 1500 * time.Millisecond, 24 * time.Hour} {
			if err := e.Put(ctx, backend.Row{ID: "a", Doc: "{}", Left: life}); err != nil {
				t.Fatal(err)
			}
			end := start + life.Seconds()
			expires := one[float64](t, db, "SELECT expires FROM sessions")
			if late := expires - end; late < -2e-7 || late >= 1 {
				t.Errorf("a life of %v from %f ends at %f, %f s late", life, start, expires, late)
			}
			row, err := e.Get(ctx, "a")
			if want := expires - start; err != nil || math.Abs(row.Left.Seconds()-want) > 2e-6 {
				t.Errorf("Get at %f of what expires at %f: Left = %v, %v", start, expires, row.Left, err)
			}
		}
		// What has ended, or ends now, is not live, in whatever second.
		for _, life := range []time.Duration{0, -1, -time.Microsecond, -time.Second, -time.Hour, math.MinInt64} {
			if err := e.Put(ctx, backend.Row{ID: "a", Doc: "{}", Left: life}); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Get(ctx, "a"); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("Get at %f with a life of %v = %v, want ErrNotFound", start, life, err)
			}
			stored, err := e.Insert(ctx, []backend.Row{{ID: "a", Doc: "{}", Left: time.Hour}})
			if err != nil || !stored[0] {
				t.Errorf("Insert in the place of what ended %v ago = %v, %v", life, stored, err)
			}
			if n, err := e.Reap(ctx, func() {}); n != 0 || err != nil {
				t.Errorf("Reap = %d, %v", n, err)
			}
		}
	}
	// The last moment, and the first after it, are the same for all.
	execute(t, db, "UPDATE sessions SET expires = 1800000000")
	for moment, want := range map[float64]bool{1_799_999_999.999999: true, 1_800_000_000: true, 1_800_000_000.000001: false, 1_800_000_000.5: false, 1_800_000_001: false} {
		e := engine(t, at(t, server, base, moment, ""))
		row, err := e.Get(ctx, "a")
		if got := err == nil; got != want || row.Left < 0 {
			t.Errorf("Get at %f of what expires at 1800000000 = %v, %v, want %v", moment, row.Left, err, want)
		}
		rows, _, err := e.Page(ctx, "", false)
		if got := len(rows) == 1; got != want || err != nil {
			t.Errorf("Page at %f has %d rows, %v", moment, len(rows), err)
		}
		if done, err := e.Swap(ctx, backend.Row{ID: "a", Doc: "{}", Left: 1}, backend.Row{ID: "a", Doc: "{}", Left: 1}); done != want || err != nil {
			t.Errorf("Swap at %f = %v, %v", moment, done, err)
		}
		stored, err := e.Insert(ctx, []backend.Row{{ID: "a", Doc: "{}", Left: time.Hour}})
		if err != nil || stored[0] == want {
			t.Errorf("Insert at %f = %v, %v", moment, stored, err)
		}
		execute(t, db, "UPDATE sessions SET expires = 1800000000")
		n, err := e.Reap(ctx, func() {})
		if got := n == 0; got != want || err != nil {
			t.Errorf("Reap at %f = %d, %v", moment, n, err)
		}
		execute(t, db, "REPLACE sessions VALUES ('a', 1800000000, '{}')")
	}
	// The column's end.
	e := engine(t, db)
	for _, life := range []time.Duration{100 * 365 * 24 * time.Hour, backend.Forever, backend.Forever - 1} {
		if err := e.Put(ctx, backend.Row{ID: "a", Doc: "{}", Left: life}); err != nil {
			t.Fatal(err)
		}
		if got := one[int64](t, db, "SELECT expires FROM sessions"); got != math.MaxUint32 {
			t.Errorf("a life of %v ends at %d, want the column's greatest", life, got)
		}
	}
	// A change that is not an access leaves the end alone, to the second.
	if err := e.Put(ctx, backend.Row{ID: "a", Doc: "{}", Left: time.Hour}); err != nil {
		t.Fatal(err)
	}
	was, err := e.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	expires := one[int64](t, db, "SELECT expires FROM sessions")
	later := engine(t, at(t, server, base, float64(time.Now().Unix()+600), ""))
	if done, err := later.Swap(ctx, was, backend.Row{ID: "a", Doc: `{"n":1}`, Left: was.Left}); !done || err != nil {
		t.Errorf("Swap = %v, %v", done, err)
	}
	if got := one[int64](t, db, "SELECT expires FROM sessions"); got != expires {
		t.Errorf("a Swap that keeps Left moves the end by %d s", got-expires)
	}
}

// The time zones of the server and of connections have no say, summer time neither.
func testZones(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	base := one[string](t, db, "SELECT DATABASE()")
	if _, err := os.Stat("/usr/share/zoneinfo/America/New_York"); err == nil {
		load := storetest.RunProgram(t, nil, storetest.Need(t, "mariadb-tzinfo-to-sql")[0], "/usr/share/zoneinfo/America/New_York", "America/New_York")
		zones := connect(t, "root@tcp("+server.Addr+")/mysql?multiStatements=true")
		zones.SetMaxOpenConns(1)
		execute(t, zones, load)
	} else {
		skip.Test(t, "there are no time zones")
	}
	zones := []string{"SYSTEM", "'%2B00:00'", "'%2B09:00'", "'-12:00'", "'America%2FNew_York'"}
	// Summer time ends at 1793512800, 2 o'clock in New York, and begins at 1805007600.
	for _, start := range []float64{1793512800 - 3600.5, 1793512800 - 0.5, 1793512800, 1793512800 + 1800.25, 1793512800 + 3600, 1805007600 - 0.25, 1805007600, 1805007600 + 1} {
		for _, writer := range zones {
			e := engine(t, at(t, server, base, start, "&time_zone="+writer))
			if err := e.Put(ctx, backend.Row{ID: "a", Doc: "{}", Left: 3600 * time.Second}); err != nil {
				t.Fatal(err)
			}
			if got, want := one[float64](t, db, "SELECT expires FROM sessions"), math.Ceil(start+3600); got != want {
				t.Errorf("in the zone %s at %f an hour ends at %f, want %f", writer, start, got, want)
			}
			for _, reader := range zones {
				row, err := engine(t, at(t, server, base, start+1, "&time_zone="+reader)).Get(ctx, "a")
				if want := math.Ceil(start+3600) - start - 1; err != nil || math.Abs(row.Left.Seconds()-want) > 2e-6 {
					t.Errorf("written in the zone %s at %f, read in %s a second later: Left = %v, %v, want %f s", writer, start, reader, row.Left, err, want)
				}
			}
		}
	}
}

// A move of many sessions takes far fewer statements than sessions, also if all are there already.
func testInsert(t *testing.T, server *storetest.Server) {
	_, db := fresh(t, server, "")
	e := engine(t, db)
	all := storetest.Long(20_000, 100_000)
	doc := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"anna","fill":"` + strings.Repeat("x", 200) + `"}`
	statements := func() int {
		return one[int](t, db, "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'QUESTIONS'")
	}
	move := func(from, to int) (stored int) {
		began, before := time.Now(), statements()
		for i := from; i < to; i += 1000 {
			var rows []backend.Row
			for n := i; n < i+1000; n++ {
				rows = append(rows, backend.Row{ID: fmt.Sprintf("id-%06d", n), Doc: doc, Left: time.Hour})
			}
			ok, err := e.Insert(ctx, rows)
			if err != nil {
				t.Fatal(err)
			}
			for _, ok := range ok {
				if ok {
					stored++
				}
			}
		}
		n := statements() - before
		t.Logf("%d sessions in %v, with %d statements", to-from, time.Since(began), n)
		if n > (to-from)/10 {
			t.Errorf("%d sessions take %d statements", to-from, n)
		}
		return stored
	}
	if n := move(0, all); n != all {
		t.Errorf("Insert stores %d, want %d", n, all)
	}
	execute(t, db, "UPDATE sessions SET expires = 1 WHERE session_id < 'id-000100'")
	execute(t, db, "DELETE FROM sessions WHERE session_id >= 'id-000900' AND session_id < 'id-001100'")
	if n := move(0, all); n != 300 {
		t.Errorf("Insert once more stores %d, want the 300 whose ids were free", n)
	}
	began, n := time.Now(), 0
	if err := e.Snapshot(ctx, func() {}, func(backend.Row) { n++ }); err != nil || n != all {
		t.Errorf("Snapshot has %d, %v", n, err)
	}
	t.Logf("Snapshot: %v", time.Since(began))
	s := open(t, db, &mysqlstore.Options{Timeout: time.Minute})
	began = time.Now()
	if n, err := s.Len(ctx); n != all || err != nil {
		t.Errorf("Len = %d, %v", n, err)
	}
	t.Logf("Len: %v", time.Since(began))
	execute(t, db, "UPDATE sessions SET expires = 1 WHERE session_id >= ?", fmt.Sprintf("id-%06d", all/2))
	began = time.Now()
	if n, err := s.Reap(ctx); n != all/2 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	t.Logf("Reap of %d: %v", all/2, time.Since(began))
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, db, "SELECT COUNT(*) FROM sessions"); n != 0 {
		t.Errorf("Clear leaves %d", n)
	}
	// Of rows with one id the first counts; and big ones go in several statements, but all or none.
	big := strings.Repeat("x", 3<<20)
	rows := []backend.Row{{ID: "a", Doc: "1", Left: time.Hour}, {ID: "a", Doc: "2", Left: time.Hour}, {ID: "b", Doc: big, Left: time.Hour}, {ID: "c", Doc: big, Left: time.Hour}}
	if ok, err := e.Insert(ctx, rows); err != nil || !slices.Equal(ok, []bool{true, false, true, true}) {
		t.Errorf("Insert = %v, %v", ok, err)
	}
	if row, err := e.Get(ctx, "a"); row.Doc != "1" || err != nil {
		t.Errorf("Get = %q, %v", row.Doc, err)
	}
	if done, err := e.Swap(ctx, rows[2], backend.Row{ID: "b", Doc: big[1:], Left: time.Hour}); !done || err != nil {
		t.Errorf("Swap of 3 MiB = %v, %v", done, err)
	}
	if _, err := e.Insert(ctx, []backend.Row{{ID: "d", Doc: "1", Left: time.Hour}, {ID: strings.Repeat("d", 129), Doc: "1", Left: time.Hour}}); !errors.Is(err, filestore.ErrInvalidID) {
		t.Errorf("Insert with an id of 129 characters = %v", err)
	}
	if _, err := e.Get(ctx, "d"); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Get of a row beside a refused one = %v", err)
	}
}

// No error shows an id, a document or a statement.
func testErrors(t *testing.T, server *storetest.Server) {
	s, db := fresh(t, server, "")
	execute(t, db, "ALTER TABLE sessions ADD CONSTRAINT small CHECK (length(data) < 200)")
	sess := with("password", strings.Repeat("hunter2", 40))
	check := func(name string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "session_id") {
			t.Errorf("%s = %v, want an error with %q, without id, document and statement", name, err, want)
		}
		if _, ok := errors.AsType[*filestore.Error](err); !ok {
			t.Errorf("%s = %T, want a *filestore.Error", name, err)
		}
	}
	check("Set", s.Set(ctx, "sesame", sess), "the server refuses: error 4025: the table's CHECK")
	check("Create", s.Create(ctx, "sesame", sess), "the server refuses: error 4025")
	execute(t, db, "ALTER TABLE sessions DROP CONSTRAINT small, MODIFY expires int, MODIFY data mediumtext CHARACTER SET latin1")
	check("Set", s.Set(ctx, "sesame", with("n", "😀")), "error 1366: a text")
	check("Set", s.Set(ctx, "sesame", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 90 * 365 * 24 * time.Hour}}), "error 1264: a number")
	execute(t, db, "DROP TABLE sessions")
	_, err := s.Get(ctx, "sesame")
	check("Get", err, "error 1146: there is no table any more")
	check("Set", s.Set(ctx, "sesame", sess), "error 1146")
	check("Destroy", s.Destroy(ctx, "sesame"), "error 1146")
	_, err = s.Reap(ctx)
	check("Reap", err, "error 1146")
	for _, err := range s.Find(ctx, "user", "anna") {
		check("Find", err, "error 1146")
	}
	var answer *mysql.MySQLError
	if !errors.As(err, &answer) || answer.Number != 1146 {
		t.Errorf("errors.As does not find the server's error in %v", err)
	}
}

func TestReadme(t *testing.T) { storetest.Readme(t) }
