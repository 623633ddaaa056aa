// Package open opens a Store by a URL, for programs whose user chooses the engine. A program that has chosen uses the
// engine's package alone, and does not link the others' clients.
//
// With nil Options no table is made in PostgreSQL or MySQL: see Options.CreateTable.
package open

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/mongostore"
	"github.com/sessionfilestore/filestore/backend/mysqlstore"
	"github.com/sessionfilestore/filestore/backend/pgstore"
	"github.com/sessionfilestore/filestore/backend/redisstore"
)

// Options are the settings that all engines have; the zero value stands for the engine's default. With it no table is
// made: see CreateTable.
type Options struct {
	TTL, Lifetime, Timeout, ReapInterval time.Duration

	MaxSize     int64
	Codec       filestore.Codec
	Logger      *slog.Logger
	CreateTable bool // PostgreSQL, MySQL: makes the table if there is none; otherwise Open fails then
	NoIndex     bool // MongoDB: makes no index
}

// A Store is one of the engines' Stores together with its client: Close closes both.
type Store struct {
	*backend.Store
	reaping *backend.ReapingStore // Store itself, if it reaps
	close   func() error
}

// OnReap is that of the engine's Store. Redis removes sessions by itself, and tells nobody: then fn is not called.
func (s *Store) OnReap(fn func(removed int)) {
	if s.reaping != nil {
		s.reaping.OnReap(fn)
	}
}

// Close closes the Store, then the client. A second Close does nothing, and returns what the first has.
func (s *Store) Close() error { return s.close() }

// newStore returns the Store whose Close closes s, then the client.
func newStore(s *backend.Store, reaping *backend.ReapingStore, closeClient func() error) *Store {
	return &Store{s, reaping, sync.OnceValue(func() error { return errors.Join(s.Close(), closeClient()) })}
}

// Usage says what URLs there are, for a program's help.
const Usage = `redis://[user:password@]host[:port][/number][?prefix=sess:]
redis://host:port?addr=host:port&…   a cluster
redis://host:port?master_name=name   by Sentinel, which has that address
postgres://[user:password@]host[:port]/database[?table=session]
mysql://[user:password@]host[:port]/database[?table=sessions]
mongodb://[user:password@]host[:port]/database[?collection=sessions]`

// ErrScheme says that a URL is not one of an engine.
var ErrScheme = errors.New("the URL does not begin with redis://, postgres://, mysql:// or mongodb://")

// Open opens the Store that rawURL names; see Usage. Other parameters of a URL go to the client. It asks the server,
// and fails if there is no answer. A nil *Options stands for its zero value. Errors do not show the URL, which can have a password.
func Open(ctx context.Context, rawURL string, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	u, err := url.Parse(rawURL)
	if err == nil {
		_, err = url.ParseQuery(u.RawQuery) // or else a prefix or a table that is misspelt would be another one
	}
	if err != nil {
		return nil, errors.New("the URL of the Store cannot be read")
	}
	var s *Store
	switch u.Scheme {
	case "redis", "rediss":
		s, err = openRedis(u, o)
	case "postgres", "postgresql":
		s, err = openPostgres(ctx, u, o)
	case "mysql":
		s, err = openMySQL(u, o)
	case "mongodb", "mongodb+srv":
		s, err = openMongo(ctx, u, o)
	default:
		return nil, ErrScheme
	}
	return s, err
}

// own takes a parameter of ours out of the URL.
func own(u *url.URL, name string) string {
	q := u.Query()
	value := q.Get(name)
	q.Del(name)
	u.RawQuery = q.Encode()
	return value
}

func unreadable(kind string) error { return fmt.Errorf("the %s URL cannot be read", kind) }

func openRedis(u *url.URL, o *Options) (*Store, error) {
	prefix := own(u, "prefix")
	var client redis.UniversalClient
	var err error
	switch q := u.Query(); {
	case q.Has("master_name"):
		var f *redis.FailoverOptions
		if f, err = redis.ParseFailoverURL(u.String()); err == nil {
			f.ContextTimeoutEnabled = true
			client = redis.NewFailoverClient(f)
		}
	case q.Has("addr"):
		var c *redis.ClusterOptions
		if c, err = redis.ParseClusterURL(u.String()); err == nil {
			c.ContextTimeoutEnabled = true
			client = redis.NewClusterClient(c)
		}
	default:
		var c *redis.Options
		if c, err = redis.ParseURL(u.String()); err == nil {
			c.ContextTimeoutEnabled = true
			client = redis.NewClient(c)
		}
	}
	if err != nil {
		return nil, unreadable("Redis")
	}
	s, err := redisstore.New(client, &redisstore.Options{Prefix: prefix, TTL: o.TTL, Lifetime: o.Lifetime, Timeout: o.Timeout,
		MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return newStore(s.Store, nil, client.Close), nil
}

func openPostgres(ctx context.Context, u *url.URL, o *Options) (*Store, error) {
	table := own(u, "table")
	config, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, unreadable("PostgreSQL")
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, errors.New("the PostgreSQL pool cannot be opened")
	}
	s, err := pgstore.New(pool, &pgstore.Options{Table: table, CreateTable: o.CreateTable, TTL: o.TTL, Lifetime: o.Lifetime,
		Timeout: o.Timeout, ReapInterval: o.ReapInterval, MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return newStore(s.Store, s.ReapingStore, func() error { pool.Close(); return nil }), nil
}

func openMySQL(u *url.URL, o *Options) (*Store, error) {
	table := own(u, "table")
	host := u.Host
	if u.Port() == "" {
		host += ":3306"
	}
	user := ""
	if u.User != nil {
		password, _ := u.User.Password()
		user = u.User.Username() + ":" + password + "@"
	}
	// The driver's own form has the same parameters.
	c, err := mysql.ParseDSN(user + "tcp(" + host + ")/" + strings.TrimPrefix(u.EscapedPath(), "/") + "?" + u.RawQuery)
	if err != nil {
		return nil, unreadable("MySQL")
	}
	c.ClientFoundRows = true
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	if c.Params["innodb_lock_wait_timeout"] == "" {
		if c.Params == nil {
			c.Params = make(map[string]string)
		}
		c.Params["innodb_lock_wait_timeout"] = "4"
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, unreadable("MySQL")
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	s, err := mysqlstore.New(db, &mysqlstore.Options{Table: table, CreateTable: o.CreateTable, TTL: o.TTL, Lifetime: o.Lifetime,
		Timeout: o.Timeout, ReapInterval: o.ReapInterval, MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return newStore(s.Store, s.ReapingStore, db.Close), nil
}

func openMongo(ctx context.Context, u *url.URL, o *Options) (*Store, error) {
	collection := cmp.Or(own(u, "collection"), "sessions")
	database := cmp.Or(strings.TrimPrefix(u.Path, "/"), "test") // as the Node driver
	config := options.Client().ApplyURI(u.String())
	if config.Validate() != nil {
		return nil, unreadable("MongoDB")
	}
	client, err := mongo.Connect(config)
	if err != nil {
		return nil, errors.New("the MongoDB client cannot be opened")
	}
	closeClient := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return client.Disconnect(ctx)
	}
	s, err := mongostore.New(client.Database(database).Collection(collection), &mongostore.Options{NoIndex: o.NoIndex, TTL: o.TTL, Lifetime: o.Lifetime,
		Timeout: o.Timeout, ReapInterval: o.ReapInterval, MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger})
	if err != nil {
		return nil, errors.Join(err, closeClient())
	}
	return newStore(s.Store, s.ReapingStore, closeClient), nil
}
