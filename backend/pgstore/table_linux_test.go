package pgstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/sealed"
)

const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"

// with returns a session with one value, which lives for life, or the TTL if that is 0.
func with(n int, life time.Duration) *filestore.Session {
	return &filestore.Session{
		Cookie: filestore.Cookie{OriginalMaxAge: life, Path: "/", HTTPOnly: true},
		Values: map[string]json.RawMessage{"n": json.RawMessage(fmt.Sprint(n))},
	}
}

var add = storetest.Add

var value = storetest.Count[*pgstore.Store]

// ask returns what a statement with one result returns.
func ask[T any](t testing.TB, pool *pgxpool.Pool, statement string, args ...any) (v T) {
	t.Helper()
	if err := pool.QueryRow(ctx, statement, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What connect-pg-simple has written is read, and written back byte for byte.
func TestSamples(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, nil)
	data, err := os.ReadFile("testdata/pg.txt")
	must(t, err)
	n := 0
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSpace(line), " | ")
		if len(fields) != 3 || !strings.HasPrefix(fields[1], "{") {
			continue
		}
		n++
		id, doc := fields[0], fields[1]
		if _, err := pool.Exec(ctx, `INSERT INTO session (sid, sess, expire) VALUES ($1, $2, to_timestamp(ceil(extract(epoch FROM now()) + 3600)))`, id, doc); err != nil {
			t.Fatal(err)
		}
		sess, err := s.Get(ctx, id)
		if err != nil {
			t.Fatalf("Get = %v", err)
		}
		if name, err := filestore.Value[struct{ Name string }](sess, "user"); err != nil || name.Name != `Ærøskøbing <b> & "é" 😀` {
			t.Errorf("the user is %+v, and the error %v", name, err)
		}
		if sess.Cookie.OriginalMaxAge == 0 { // else Touch renews the Expires in the document
			must(t, s.Touch(ctx, id, nil))
			if got := ask[string](t, pool, "SELECT sess::text FROM session WHERE sid = $1", id); got != doc {
				t.Errorf("after Touch\n%s, was\n%s", got, doc)
			}
		}
		must(t, s.Set(ctx, id, sess)) // which adds when the session was created, as it does not say so
		got := ask[string](t, pool, "SELECT sess::text FROM session WHERE sid = $1", id)
		if i := strings.Index(got, `,"__created":`); i < 0 || got[:i]+"}" != doc {
			t.Errorf("after Set\n%s, was\n%s and no __created", got, doc)
		}
	}
	if n != 2 {
		t.Errorf("%d samples, want 2", n)
	}
}

// The table is the one that connect-pg-simple makes.
func TestCreateTable(t *testing.T) {
	t.Parallel()
	describe := func(pool *pgxpool.Pool) string {
		return ask[string](t, pool, `SELECT string_agg(concat_ws(' ', attname, atttypid::regtype, atttypmod, attnotnull, attcollation::regcollation), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = 'session'::regclass AND attnum > 0`) + "; " +
			ask[string](t, pool, `SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = 'session'::regclass`) + "; " +
			ask[string](t, pool, `SELECT string_agg(concat_ws(' ', conname, contype, condeferrable, pg_get_constraintdef(oid)), '; ') FROM pg_constraint WHERE conrelid = 'session'::regclass`)
	}
	node := connect(t, database(t, `CREATE TABLE "session" (
  "sid" varchar NOT NULL COLLATE "default",
  "sess" json NOT NULL,
  "expire" timestamp(6) NOT NULL
)
WITH (OIDS=FALSE);
ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid") NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE INDEX "IDX_session_expire" ON "session" ("expire");`))
	own := connect(t, database(t, `CREATE SCHEMA "My ""schema"`))
	open(t, node, nil) // finds it
	open(t, own, nil)
	if got, want := describe(own), describe(node); got != want {
		t.Errorf("the table is\n%s, want\n%s", got, want)
	}

	// Others fit beside it, whatever they are called.
	for _, name := range []string{"sessions", "Session", `My "schema.a "table"`, "TABLE", "$1", strings.Repeat("a", 63), strings.Repeat("a", 62) + "b", strings.Repeat("é", 31), "a'b"} {
		s := open(t, own, &pgstore.Options{Table: name})
		must(t, s.Create(ctx, id, with(1, 0)))
		must(t, s.Update(ctx, id, add))
		if _, err := s.Reap(ctx); err != nil {
			t.Errorf("%s: Reap = %v", name, err)
		}
		if n := value(t, s, id); n != 2 {
			t.Errorf("%s: %d, want 2", name, n)
		}
	}
	for _, name := range []string{"a.b.c", ".", "a.", ".b", strings.Repeat("a", 64), strings.Repeat("é", 32), "a\x00b"} {
		if _, err := pgstore.New(own, &pgstore.Options{Table: name, CreateTable: true}); err == nil {
			t.Errorf("New with the table %q = nil", name)
		}
	}
}

// Any number of programs may make the table at once.
func TestCreateTableAtOnce(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t), func(c *pgxpool.Config) { c.MaxConns = 16 })
	for n := range 10 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				s, err := pgstore.New(pool, &pgstore.Options{Table: fmt.Sprint("session", n), CreateTable: true})
				if err != nil {
					t.Errorf("New = %v", err)
					return
				}
				s.Close()
			})
		}
		wg.Wait()
	}
}

// New refuses what the Store cannot work with, and the error names the cure.
func TestNew(t *testing.T) {
	t.Parallel()
	const table = "CREATE TABLE session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)"
	icu := "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
	set := func(name, value string) func(c *pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[name] = value }
	}
	key := sealedCodec(t)
	for name, tt := range map[string]struct {
		setup  []string
		config func(*pgxpool.Config)
		o      pgstore.Options
		want   string // "" = no error
	}{
		"no table":                 {want: "CreateTable"},
		"a table":                  {setup: []string{table}},
		"timezone in the URL":      {config: set("timezone", "Asia/Tokyo"), o: pgstore.Options{CreateTable: true}, want: "ALTER DATABASE"},
		"timezone of a hook":       {setup: []string{table}, config: func(c *pgxpool.Config) { c.AfterConnect = setZone }, want: "ALTER DATABASE"},
		"timezone of the database": {setup: []string{table, "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'"}},
		"read-only":                {setup: []string{table}, config: set("default_transaction_read_only", "on"), want: "default_transaction_read_only"},
		"another collation":        {setup: []string{strings.Replace(table, "sid varchar", `sid varchar COLLATE "C"`, 1)}},
		"upper case is lower case": {setup: []string{icu, strings.Replace(table, "sid varchar", "sid varchar COLLATE any_case", 1)}, want: "deterministic"},
		"sid as char":              {setup: []string{strings.Replace(table, "sid varchar", "sid char(40)", 1)}, want: "sid must be"},
		"sid as a name":            {setup: []string{strings.Replace(table, "sid varchar", "sid name", 1)}, want: "sid must be"},
		"sid as text":              {setup: []string{strings.Replace(table, "sid varchar", "sid text", 1)}},
		"no primary key":           {setup: []string{strings.Replace(table, "PRIMARY KEY", "", 1)}, want: "primary key"},
		"a key of two":             {setup: []string{strings.Replace(strings.Replace(table, "PRIMARY KEY", "", 1), "NULL)", "NULL, PRIMARY KEY (sid, expire))", 1)}, want: "primary key"},
		"no expire":                {setup: []string{"CREATE TABLE session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL)"}, want: "columns sid, sess and expire"},
		"expire as a date":         {setup: []string{strings.Replace(table, "timestamp(6)", "date", 1)}, want: "expire must be"},
		"expire with a zone":       {setup: []string{strings.Replace(table, "timestamp(6)", "timestamptz", 1)}},
		"expire may be NULL":       {setup: []string{strings.Replace(table, "timestamp(6) NOT NULL", "timestamp(6)", 1)}, want: "SET NOT NULL"},
		"a view":                   {setup: []string{strings.Replace(table, "session", "sessions", 1), "CREATE VIEW session AS SELECT * FROM sessions"}},
		"sess as bytes":            {setup: []string{strings.Replace(table, "json", "bytea", 1)}, want: "sess must be"},
		"sess as jsonb":            {setup: []string{strings.Replace(table, "json", "jsonb", 1)}},
		"no privilege":             {setup: []string{table, "DROP ROLE IF EXISTS visitor", "CREATE ROLE visitor", "GRANT SELECT ON session TO visitor"}, config: set("role", "visitor"), want: "42501"},
		"not JSON":                 {setup: []string{table}, o: pgstore.Options{Codec: reverse{}}, want: "JSON string"},
		"sealed":                   {setup: []string{table}, o: pgstore.Options{Codec: key}},
		"sealed, jsonb":            {setup: []string{strings.Replace(table, "json", "jsonb", 1)}, o: pgstore.Options{Codec: key}, want: "ALTER"},
		"a name that is taken":     {setup: []string{"CREATE TABLE old (expire int)", `CREATE INDEX "IDX_session_expire" ON old (expire)`}, o: pgstore.Options{CreateTable: true}, want: "42P07"},
		"a TTL of nanoseconds":     {setup: []string{table}, o: pgstore.Options{TTL: 3600}, want: "3600*time.Second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.config == nil {
				tt.config = func(*pgxpool.Config) {}
			}
			pool := connect(t, database(t, tt.setup...), tt.config)
			s, err := pgstore.New(pool, &tt.o)
			if err == nil {
				s.Close()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("New = %v, want %q", err, tt.want)
			}
		})
	}
}

// PGTZ is timezone in the URL, which pgx reads from the environment.
func TestZoneOfTheEnvironment(t *testing.T) {
	url := database(t)
	t.Setenv("PGTZ", "Asia/Tokyo")
	if _, err := pgstore.New(connect(t, url), &pgstore.Options{CreateTable: true}); err == nil || !strings.Contains(err.Error(), "PGTZ") {
		t.Errorf("New = %v, want an error that names PGTZ", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	pool := connect(t, "postgres://postgres@127.0.0.1:"+storetest.FreePort(t)+"/postgres?sslmode=disable")
	if _, err := pgstore.New(pool, nil); err == nil {
		t.Error("New without a server = nil")
	}
}

// reverse makes something that is not JSON.
type reverse struct{}

func (reverse) Encode(_ string, doc []byte) ([]byte, error) { slices.Reverse(doc); return doc, nil }
func (reverse) Decode(_ string, v []byte) ([]byte, error)   { slices.Reverse(v); return v, nil }

func sealedCodec(t testing.TB) filestore.Codec {
	codec, err := sealed.New(bytes.Repeat([]byte{7}, sealed.KeySize))
	must(t, err)
	return codec
}

func setZone(_ context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "SET timezone = 'Asia/Tokyo'")
	return err
}

// The value is what the Codec makes, and comes back.
func TestCodec(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, &pgstore.Options{Codec: sealedCodec(t)})
	must(t, s.Create(ctx, id, with(1, 0)))
	must(t, s.Update(ctx, id, add))
	if n := value(t, s, id); n != 2 {
		t.Errorf("%d, want 2", n)
	}
	if v := ask[string](t, pool, "SELECT sess::text FROM session"); !strings.HasPrefix(v, `{"sealed":1`) {
		t.Errorf("the value is %.20s…", v)
	}
	for e, err := range s.Find(ctx, "n", "2") {
		if e.ID != id || err != nil {
			t.Errorf("Find yields %v, %v", e.ID, err)
		}
	}
}

// A table that somebody alters to jsonb, while the Store is open and its statements are prepared, works as before.
func TestJSONB(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			pool := connect(t, database(t), in(mode))
			s := open(t, pool, &pgstore.Options{TouchAfter: -1})
			all := func() {
				t.Helper()
				must(t, s.Set(ctx, "a", with(0, time.Hour)))
				must(t, s.Destroy(ctx, "b"))
				must(t, s.Create(ctx, "b", with(0, 0)))
				if err := s.Create(ctx, "b", with(0, 0)); !errors.Is(err, fs.ErrExist) {
					t.Errorf("Create = %v, want fs.ErrExist", err)
				}
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for range 25 {
							if err := s.Update(ctx, "a", add); err != nil {
								t.Errorf("Update = %v", err)
							}
							if err := s.Touch(ctx, "a", nil); err != nil {
								t.Errorf("Touch = %v", err)
							}
						}
					})
				}
				wg.Wait()
				if n := value(t, s, "a"); n != 100 {
					t.Errorf("after 100 Updates that each add 1: %d", n)
				}
				n := 0
				for e, err := range s.Find(ctx, "n", "100") {
					must(t, err)
					if n++; e.ID != "a" {
						t.Errorf("Find yields another session than a")
					}
				}
				if n != 1 {
					t.Errorf("Find yields %d sessions, want 1", n)
				}
			}
			all()
			for range 4 { // so that the connections have the statements
				ask[bool](t, pool, "SELECT true")
			}
			if _, err := pool.Exec(ctx, "ALTER TABLE session ALTER sess TYPE jsonb"); err != nil {
				t.Fatal(err)
			}
			all()
			for value, want := range map[string]string{`"\u0000"`: "22P05", `"\ud800"`: "22P02"} {
				sess := with(1, 0)
				sess.Values["secret"] = json.RawMessage(value)
				for name, err := range map[string]error{
					"Set": s.Set(ctx, "c", sess), "Create": s.Create(ctx, "c", sess),
					"Update": s.Update(ctx, "a", func(s *filestore.Session) error { s.Values = sess.Values; return nil }),
				} {
					if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "jsonb") || strings.Contains(err.Error(), "secret") {
						t.Errorf("%s of %s = %v, want an error with %s and jsonb", name, value, err, want)
					}
				}
			}
			if n := value(t, s, "a"); n != 100 {
				t.Errorf("after Updates that the column refuses: %d, want 100 as before", n)
			}
		})
	}
}

// The end of a session is never early, for Go and for connect-pg-simple, and less than a second late. What ends by the
// server's clock does so in whatever zone.
func TestEnds(t *testing.T) {
	t.Parallel()
	const nodeGet = "SELECT count(*) FROM session WHERE sid = $1 AND expire >= to_timestamp($2)"
	for _, zone := range []string{"UTC", "Asia/Tokyo", "America/New_York", "Asia/Kathmandu"} {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			pool := connect(t, database(t, "ALTER DATABASE {} SET timezone = '"+zone+"'"))
			s := open(t, pool, &pgstore.Options{TouchAfter: -1})
			check := func(what string, before time.Time, life time.Duration) {
				t.Helper()
				after := time.Now() // the server's clock is this one
				end := ask[float64](t, pool, "SELECT extract(epoch FROM expire::timestamptz)::float8 FROM session WHERE sid = $1", id)
				if end != float64(int64(end)) {
					t.Errorf("%s: expire is %f, want a whole second", what, end)
				}
				if least, most := float64(before.Add(life).UnixMicro())/1e6, float64(after.Add(life).UnixMicro())/1e6+1; end < least || end >= most {
					t.Errorf("%s: the session ends at %f, want between %f and %f", what, end, least, most)
				}
				if ask[int](t, pool, nodeGet, id, end) != 1 || ask[int](t, pool, nodeGet, id, end+1) != 0 {
					t.Errorf("%s: connect-pg-simple has another end", what)
				}
			}
			for range 5 {
				before := time.Now()
				must(t, s.Set(ctx, id, with(1, time.Hour)))
				check("Set", before, time.Hour)
				before = time.Now()
				must(t, s.Touch(ctx, id, nil))
				check("Touch", before, time.Hour)
				before = time.Now()
				must(t, s.Update(ctx, id, func(s *filestore.Session) error { s.Cookie.OriginalMaxAge = time.Minute; return nil }))
				check("Update", before, time.Minute)
				must(t, s.Destroy(ctx, id))
				before = time.Now()
				must(t, s.Create(ctx, id, with(1, 1500*time.Millisecond)))
				check("Create", before, 1500*time.Millisecond)
			}
			// A session of connect-pg-simple, as it writes one.
			_, err := pool.Exec(ctx, "INSERT INTO session (sess, expire, sid) SELECT $1, to_timestamp($2), $3 ON CONFLICT (sid) DO UPDATE SET sess=$1, expire=to_timestamp($2) RETURNING sid",
				`{"cookie":{"originalMaxAge":null,"expires":null}}`, time.Now().Unix()+3600, id)
			must(t, err)
			sess, err := s.Get(ctx, id)
			must(t, err)
			if d := time.Until(sess.LastAccess.Add(24 * time.Hour)); d < 3595*time.Second || d > 3601*time.Second {
				t.Errorf("a session that connect-pg-simple lets live for an hour lives for %v", d)
			}
		})
	}
}

// A session is never ended early by a change to or from summer time. In the hour that comes twice it is late by one.
func TestSummerTime(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t, "CREATE SCHEMA skew",
		"CREATE FUNCTION skew.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT coalesce(nullif(current_setting('test.now', true), '')::timestamptz, now()) $$",
		"ALTER DATABASE {} SET search_path = skew, pg_catalog", "ALTER DATABASE {} SET timezone = 'America/New_York'"),
		func(c *pgxpool.Config) { c.MaxConns = 1 })
	s := open(t, pool, nil)
	const life = 10 * time.Minute
	late := 0
	for _, night := range []time.Time{time.Date(2026, 3, 8, 5, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC)} {
		for now := night; now.Before(night.Add(4 * time.Hour)); now = now.Add(5 * time.Minute) {
			_, err := pool.Exec(ctx, "SET test.now = '"+now.Format(time.RFC3339)+"'")
			must(t, err)
			must(t, s.Set(ctx, id, with(1, life)))
			value(t, s, id)
			left := time.Duration(ask[float64](t, pool, "SELECT extract(epoch FROM expire::timestamptz - statement_timestamp())::float8 FROM session")) * time.Second
			switch {
			case left < life:
				t.Errorf("at %v a session lives for %v, want %v", now, left, life)
			case left > life+time.Hour:
				t.Errorf("at %v a session lives for %v, want at most an hour more than %v", now, left, life)
			case left > life+time.Second:
				late++
			}
		}
	}
	if late == 0 || late > 12 {
		t.Errorf("at %d of 96 moments a session lives longer than it should, want those of one hour", late)
	}
}

// A session that ends while Update's function runs, or that Destroy has removed, is not brought back.
func TestEndsMeanwhile(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, nil)
	for _, end := range []string{"UPDATE session SET expire = expire - interval '2 days'", "DELETE FROM session"} {
		must(t, s.Set(ctx, id, with(1, 0)))
		calls := 0
		err := s.Update(ctx, id, func(sess *filestore.Session) error {
			calls++
			_, err := pool.Exec(ctx, end)
			return errors.Join(err, add(sess))
		})
		if !errors.Is(err, filestore.ErrNotFound) || calls != 1 {
			t.Errorf("Update beside %s = %v after %d calls, want ErrNotFound after one", end, err, calls)
		}
		if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("then Get = %v", err)
		}
	}
}

// Whatever expire holds, no time overflows.
func TestStrangeEnds(t *testing.T) {
	t.Parallel()
	pool := connect(t, database(t))
	s := open(t, pool, &pgstore.Options{TTL: 1<<63 - 1, Lifetime: 0})
	const left = "SELECT extract(epoch FROM expire - now()::timestamp)::float8 FROM session"
	for _, end := range []string{"infinity", "294276-12-31 23:59:59", "2400-01-01", "2318-01-01"} {
		_, err := pool.Exec(ctx, "INSERT INTO session (sid, sess, expire) VALUES ('x', '{\"cookie\":{\"originalMaxAge\":60000},\"n\":1}', $1::text::timestamp)", end)
		must(t, err)
		sess, err := s.Get(ctx, "x")
		if err != nil || time.Since(sess.LastAccess) > time.Minute {
			t.Errorf("expire %s: Get = %v", end, err)
		}
		must(t, s.Update(ctx, "x", add))
		if got := ask[float64](t, pool, left); got > 61 {
			t.Errorf("expire %s: after Update the session lives for %v s, want 60", end, got)
		}
		must(t, s.Destroy(ctx, "x"))
	}
	for _, end := range []string{"-infinity", "4713-01-01 00:00:00 BC", "1700-01-01"} {
		_, err := pool.Exec(ctx, "INSERT INTO session (sid, sess, expire) VALUES ('x', '{\"cookie\":{},\"n\":1}', $1::text::timestamp)", end)
		must(t, err)
		if _, err := s.Get(ctx, "x"); !errors.Is(err, filestore.ErrExpired) {
			t.Errorf("expire %s: Get = %v, want ErrExpired", end, err)
		}
		if err := s.Touch(ctx, "x", nil); !errors.Is(err, filestore.ErrExpired) {
			t.Errorf("expire %s: Touch = %v, want ErrExpired", end, err)
		}
		if n, err := s.Reap(ctx); n != 1 || err != nil {
			t.Errorf("expire %s: Reap = %d, %v, want 1", end, n, err)
		}
	}
	must(t, s.Set(ctx, "long", with(1, 0))) // the longest life that there is
	if n := value(t, s, "long"); n != 1 {
		t.Error("a session with the longest life is not there")
	}
	if got := ask[float64](t, pool, left); got < 290*365*86400 {
		t.Errorf("a session with the longest life lives for %v s", got)
	}
	must(t, s.Update(ctx, "long", add))
	must(t, s.Touch(ctx, "long", nil))
}

// Each id is on a page, whatever its collation, and only ids that filestore could have written are told of.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, collation := range []string{"default", "C", "en-x-icu", "de-x-icu"} {
		t.Run(collation, func(t *testing.T) {
			t.Parallel()
			pool := connect(t, database(t, `CREATE TABLE session (sid varchar COLLATE "`+collation+`" NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)`))
			s := open(t, pool, nil)
			// Among them some that collations hardly tell apart.
			const rows = 2500
			_, err := pool.Exec(ctx, `INSERT INTO session SELECT (ARRAY['a','A','-a','_a'])[1 + n % 4] || n / 4 || CASE n % 3 WHEN 0 THEN '-' ELSE '' END,
				'{"cookie":{},"n":7}', to_timestamp(extract(epoch FROM now()) + 3600) FROM generate_series(1, $1) n`, rows)
			must(t, err)
			hostile := []string{"", " ", "a b", "../x", "a'b", "a\nb", "%", "_%", "ä", "\u2028", strings.Repeat("a", 300), `"; DROP TABLE session; --`}
			_, err = pool.Exec(ctx, `INSERT INTO session SELECT unnest($1::text[]), '{"cookie":{},"n":7}', to_timestamp(extract(epoch FROM now()) + 3600)`, hostile)
			must(t, err)
			_, err = pool.Exec(ctx, `INSERT INTO session VALUES ('expired', '{"cookie":{},"n":7}', to_timestamp(extract(epoch FROM now()) - 1)), ('list', '[1]', to_timestamp(extract(epoch FROM now()) + 3600))`)
			must(t, err)
			seen := make(map[string]int)
			for id, err := range s.IDs(ctx) {
				must(t, err)
				seen[id]++
			}
			for e, err := range s.All(ctx) {
				must(t, err)
				seen[e.ID]++
			}
			for e, err := range s.Find(ctx, "n", "7") {
				must(t, err)
				seen[e.ID]++
			}
			if len(seen) != rows+1 || seen["list"] != 1 || seen["expired"] != 0 {
				t.Errorf("%d ids, want %d and list", len(seen), rows)
			}
			for id, n := range seen {
				if n != 3 && id != "list" {
					t.Errorf("an id is seen %d times, want 3", n)
				}
			}
			for _, id := range hostile {
				if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) && !errors.Is(err, filestore.ErrInvalidID) {
					t.Errorf("Get(%.20q) = %v", id, err)
				}
				if err := s.Destroy(ctx, id); !errors.Is(err, filestore.ErrInvalidID) {
					t.Errorf("Destroy(%.20q) = %v", id, err)
				}
			}
			if _, err := s.Get(ctx, "list"); !errors.Is(err, filestore.ErrCorrupt) {
				t.Errorf("Get of what is not a session = %v, want ErrCorrupt", err)
			}
			must(t, s.Clear(ctx))
			if n := ask[int](t, pool, "SELECT count(*) FROM session"); n != len(hostile)+1 {
				t.Errorf("after Clear there are %d rows, want the %d that are not filestore's, and the expired one", n, len(hostile))
			}
		})
	}
}

// No error shows an id or what is in a session.
func TestErrorsTellNothing(t *testing.T) {
	t.Parallel()
	url := database(t)
	pool := connect(t, url)
	s := open(t, pool, nil)
	must(t, s.Create(ctx, id, with(1, 0)))
	// Each row is refused, with a message that quotes it.
	run(t, url, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no % %', OLD, NEW USING ERRCODE = '55P03', DETAIL = NEW::text; END $$`,
		"CREATE TRIGGER no BEFORE INSERT OR UPDATE ON session FOR EACH ROW EXECUTE FUNCTION no()")
	sess := with(1, 0)
	sess.Values["secret"] = json.RawMessage(`"hunter2"`)
	check := func(want string) {
		t.Helper()
		for name, err := range map[string]error{
			"Set": s.Set(ctx, id, sess), "Create": s.Create(ctx, "other", sess), "Touch": s.Touch(ctx, id, &filestore.Cookie{Path: "/x"}),
			"Update": s.Update(ctx, id, func(s *filestore.Session) error { s.Values = sess.Values; return nil }),
		} {
			switch {
			case err == nil || !strings.Contains(err.Error(), "the server refuses: SQLSTATE "+want):
				t.Errorf("%s = %v, want SQLSTATE %s", name, err, want)
			case strings.Contains(err.Error(), id) || strings.Contains(err.Error(), "other") || strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error of %s shows an id or the session: %v", name, err)
			}
			if _, ok := errors.AsType[*pgconn.PgError](err); !ok {
				t.Errorf("the error of %s does not wrap the server's", name)
			}
		}
	}
	check("55P03")
	run(t, url, "DROP TABLE session")
	check("42P01: there is no such table: create it, or set Options.CreateTable")
	run(t, url, "CREATE TABLE session (sid varchar NOT NULL PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)")
	if err := s.Create(ctx, id, with(1, 0)); err != nil {
		t.Errorf("Create with a table that has been made again = %v", err)
	}
	sess.Values["secret"] = json.RawMessage("\"hunter2\xff\"")
	if err := s.Set(ctx, id, sess); err == nil || !strings.Contains(err.Error(), "UTF-8") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Set of what is not UTF-8 = %v, want an error with UTF-8", err)
	}
}
