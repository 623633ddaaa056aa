// Package mongostore keeps sessions in MongoDB, in the format of the npm package connect-mongo, so that a Go program
// and an Express program share sessions and cookie:
//
//	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
//	…
//	store, err := mongostore.New(client.Database("test").Collection("sessions"), nil)
//	…
//	defer store.Close()
//	sessions := &session.Manager{Store: store, Secrets: secrets}
//
// A session is one document: its _id is the session's, session holds the document of package filestore as a string
// or as an object, and expires says when the session ends. All writes ask for the majority of the servers, and all
// reads go to the primary.
//
// # Time
//
// MongoDB knows only absolute ends. New asks the server what time it is, and the Store asks again each minute, and
// when this host's clock jumps. So programs whose clocks differ agree on when a session ends, to within half of what
// the answer takes. connect-mongo goes by the clock of its own host.
package mongostore

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
)

// Options are a Store's settings. The zero value of each field, and a nil *Options, stand for the default: that of
// connect-mongo, if it has the option.
type Options struct {
	// TTL is how long a session lives after its last access if its cookie has no maxAge. 0 = 14 days, otherwise at
	// least a second. All programs on the sessions should have the same: each access counts by its own.
	TTL time.Duration

	// Lifetime is the longest life of a session since Session.Created, however much it is used. 0 = none. A session
	// that only Node has written has no such limit until Go writes it.
	Lifetime time.Duration

	// TouchAfter is how old the last access must be for Touch to write. 0 = 1 % of the session's life, negative =
	// always, as connect-mongo. It is never more than half of the session's life.
	TouchAfter time.Duration

	// Timeout is the longest that an operation takes. 0 = 5 s. A loop over many sessions takes so long at most for
	// each step.
	Timeout time.Duration

	// ReapInterval is the time between two passes of the background reaper. 0 = 10 minutes, negative = no reaper.
	// MongoDB removes the sessions by itself if it has the index that New makes; OnReap tells of the reaper's only.
	ReapInterval time.Duration

	// MaxSize is the most bytes that a session may have as JSON, written or read, then filestore.ErrTooLarge.
	// 0 = 1 MiB, at most 1 GiB. MongoDB refuses documents of more than 16 MiB.
	MaxSize int64

	// Codec stands between the document and the string. It must return UTF-8. nil = plain JSON, as connect-mongo
	// has it without its option crypto. With it, take a kruptein.Codec with ASN1, PBKDF2 and the EncodeAs "base64".
	Codec filestore.Codec

	// Objects makes new sessions objects of MongoDB and not strings, as connect-mongo does with stringify: false.
	// Set it if Node has that option, because Node can then read nothing else. Go reads both, and a session that is
	// there keeps its form, unless Set replaces it. Objects exclude a Codec, lone surrogates, names with a NUL, and
	// numbers that neither a double nor 64 bits hold exactly: storing these is an error.
	Objects bool

	// NoIndex makes New leave the indexes alone. The background reaper then removes the sessions whose time is over.
	NoIndex bool

	// Logger receives what no caller can: that the server refuses the index, and errors of the background reaper.
	// nil = slog.Default().
	Logger *slog.Logger
}

// A Store keeps sessions in MongoDB. Make one with New.
type Store struct{ *backend.ReapingStore }

// New returns the Store on c, whose client stays the caller's to disconnect. Read preference and write concern of c do
// not matter. New makes the index expires_1, by which MongoDB removes sessions whose time is over, as connect-mongo
// does; that the server refuses it is logged only. New fails if the server does not answer, or if c has a collation:
// ids and documents that differ would then count as the same.
func New(c *mongo.Collection, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	e := &engine{
		c:       c.Clone(options.Collection().SetReadPreference(readpref.Primary()).SetWriteConcern(writeconcern.Majority())),
		objects: o.Objects,
	}
	e.clock = newClock(e.serverTime)
	s, err := backend.NewReaping(e, backend.Options{
		TTL: cmp.Or(o.TTL, 14*24*time.Hour), Lifetime: o.Lifetime, TouchAfter: o.TouchAfter, Timeout: o.Timeout,
		ReapInterval: cmp.Or(o.ReapInterval, 10*time.Minute), MaxSize: o.MaxSize, Codec: o.Codec, Logger: o.Logger,
		Check: func(ctx context.Context) error { return e.prepare(ctx, o) },
	})
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

type engine struct {
	c       *mongo.Collection
	clock   *clock
	objects bool
}

// prepare checks the collection and makes the index.
func (e *engine) prepare(ctx context.Context, o *Options) error {
	if o.Objects && o.Codec != nil {
		return errors.New("Options.Objects and Options.Codec exclude each other: what a Codec returns is not an object")
	}
	if _, err := e.clock.now(ctx); err != nil {
		return err
	}
	all, err := e.c.Database().ListCollectionSpecifications(ctx, is("name", e.c.Name()))
	if err = whole(err); err != nil && !errors.As(err, new(answer)) { // who may not ask may still use it
		return err
	}
	for _, spec := range all {
		if _, err := spec.Options.LookupErr("collation"); err == nil {
			return errors.New("the collection has a collation, by which ids that differ can be the same")
		}
	}
	if o.NoIndex {
		return nil
	}
	_, err = e.c.Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys:    is("expires", 1),
		Options: options.Index().SetName("expires_1").SetExpireAfterSeconds(0),
	})
	if err = whole(err); errors.As(err, new(answer)) {
		cmp.Or(o.Logger, slog.Default()).Warn("filestore: MongoDB makes no index that removes sessions; the Store's reaper does", "err", err)
		return nil
	}
	return err
}

// serverTime returns the server's time. It needs no rights.
func (e *engine) serverTime(ctx context.Context) (time.Time, error) {
	raw, err := e.c.Database().Client().Database("admin").RunCommand(ctx, is("hello", 1), options.RunCmd().SetReadPreference(readpref.Primary())).Raw()
	if err != nil {
		return time.Time{}, whole(err)
	}
	t, ok := raw.Lookup("localTime").TimeOK()
	if !ok {
		return time.Time{}, errors.New("the server does not tell its time")
	}
	return t, nil
}

// An answer is the server's own error. Its text is only what the server calls it, because err may quote ids and
// documents.
type answer struct {
	code string
	err  error
}

func (e answer) Error() string { return "the server answers: " + e.code }
func (e answer) Unwrap() error { return e.err }

// whole returns err as the engine returns it: a server's answer as a refusal if nothing has been done, or else as an
// answer.
func whole(err error) error {
	server, ok := errors.AsType[mongo.ServerError](err)
	if !ok || mongo.IsNetworkError(err) {
		return err
	}
	sure := !mongo.IsTimeout(err) && !server.HasErrorLabel("RetryableWriteError")
	code := ""
	name := func(name string, number int) { code = cmp.Or(name, strconv.Itoa(number)) }
	var errs []mongo.WriteError
	var concern *mongo.WriteConcernError
	switch e := server.(type) {
	case mongo.CommandError:
		name(e.Name, int(e.Code))
	case mongo.WriteException:
		errs, concern = e.WriteErrors, e.WriteConcernError
	case mongo.BulkWriteException:
		for _, w := range e.WriteErrors {
			errs = append(errs, w.WriteError)
		}
		concern = e.WriteConcernError
	}
	if len(errs) > 0 {
		name("", errs[0].Code)
	}
	if concern != nil { // the primary has done it, and may lose it
		name(concern.Name, concern.Code)
		sure = false
	}
	if !sure {
		return answer{code, err}
	}
	return backend.Refused(code, answer{code, err})
}

func is(key string, value any) bson.D { return bson.D{{Key: key, Value: value}} }

// live is the condition that connect-mongo has for a session to be there.
func live(now time.Time) bson.E {
	return bson.E{Key: "$or", Value: bson.A{is("expires", is("$exists", false)), is("expires", is("$gt", now))}}
}

// dead is the opposite of live.
func dead(now time.Time) bson.E { return bson.E{Key: "$nor", Value: live(now).Value} }

func id(id string) bson.E { return bson.E{Key: "_id", Value: id} }

// end is a row's end as MongoDB has it, in whole milliseconds: not earlier than it is.
func end(now time.Time, left time.Duration) time.Time {
	return now.Add(left).Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// row returns the row that the document doc is. Its Doc is empty if the error is filestore.ErrCorrupt.
func row(doc bson.Raw, now time.Time) (r backend.Row, err error) {
	r.ID, _ = doc.Lookup("_id").StringValueOK()
	r.Left = backend.Forever
	if end, ok := doc.Lookup("expires").TimeOK(); ok {
		r.Left = min(end.Sub(now), backend.Forever-1)
	}
	r.Doc, err = text(doc.Lookup("session"))
	return r, err
}

func (e *engine) Get(ctx context.Context, sid string) (r backend.Row, err error) {
	now, err := e.clock.now(ctx)
	if err != nil {
		return r, err
	}
	doc, err := e.get(ctx, sid, live(now))
	if err != nil {
		return r, err
	}
	return row(doc, now)
}

// get returns the document sid if it is as what says.
func (e *engine) get(ctx context.Context, sid string, what ...bson.E) (bson.Raw, error) {
	doc, err := e.c.FindOne(ctx, append(bson.D{id(sid)}, what...)).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, filestore.ErrNotFound
	}
	return doc, whole(err)
}

// session returns what a new document has for r.Doc, or one whose session was old.
func (e *engine) session(r backend.Row, old bson.RawValue) (any, error) {
	if old.Type == bson.TypeEmbeddedDocument || old.IsZero() && e.objects {
		return object(r.Doc, old)
	}
	if !utf8.ValidString(r.Doc) {
		return nil, errors.New("the document is not UTF-8, which MongoDB cannot hold")
	}
	return r.Doc, nil
}

func (e *engine) document(r backend.Row, now time.Time) (bson.D, error) {
	session, err := e.session(r, bson.RawValue{})
	doc := bson.D{id(r.ID)}
	if r.Left != backend.Forever {
		doc = append(doc, bson.E{Key: "expires", Value: end(now, r.Left)})
	}
	return append(doc, bson.E{Key: "session", Value: session}), err
}

func (e *engine) Insert(ctx context.Context, rows []backend.Row) (stored []bool, err error) {
	now, err := e.clock.now(ctx)
	if err != nil {
		return nil, err
	}
	docs := make([]any, len(rows))
	stored = make([]bool, len(rows))
	for i, r := range rows {
		if docs[i], err = e.document(r, now); err != nil {
			return nil, err
		}
		stored[i] = true
	}
	_, err = e.c.InsertMany(ctx, docs, options.InsertMany().SetOrdered(false))
	bulk, ok := errors.AsType[mongo.BulkWriteException](err)
	if err != nil && (!ok || bulk.WriteConcernError != nil) {
		return nil, whole(err)
	}
	var taken []string
	for _, w := range bulk.WriteErrors {
		if w.Code != duplicate {
			return nil, whole(err)
		}
		taken = append(taken, rows[w.Index].ID)
	}
	alive, err := e.alive(ctx, taken, now)
	if err != nil {
		return nil, err
	}
	for _, w := range bulk.WriteErrors {
		if alive[rows[w.Index].ID] {
			stored[w.Index] = false
		} else if stored[w.Index], err = e.replace(ctx, rows[w.Index].ID, docs[w.Index], now); err != nil {
			return nil, err
		}
	}
	return stored, nil
}

const duplicate = 11000 // the code of an _id that is taken

// replace stores doc in the place of the document sid that is not live. It reports whether it did.
func (e *engine) replace(ctx context.Context, sid string, doc any, now time.Time) (bool, error) {
	for {
		res, err := e.c.ReplaceOne(ctx, bson.D{id(sid), dead(now)}, doc)
		if err != nil || res.MatchedCount > 0 {
			return err == nil, whole(err)
		}
		if _, err = e.get(ctx, sid, live(now)); err == nil || !errors.Is(err, filestore.ErrNotFound) {
			return false, err
		}
		if _, err = e.c.InsertOne(ctx, doc); err == nil || !mongo.IsDuplicateKeyError(err) { // it was removed meanwhile
			return err == nil, whole(err)
		}
	}
}

func (e *engine) Put(ctx context.Context, r backend.Row) error {
	now, err := e.clock.now(ctx)
	if err != nil {
		return err
	}
	session, err := e.session(r, bson.RawValue{})
	if err != nil {
		return err
	}
	for {
		was, err := e.get(ctx, r.ID)
		if err != nil && !errors.Is(err, filestore.ErrNotFound) {
			return err
		}
		_, err = e.c.UpdateOne(ctx, bson.D{id(r.ID)}, update(was, now, &r.Left, session), options.UpdateOne().SetUpsert(true))
		if !mongo.IsDuplicateKeyError(err) { // two that make one at the same moment
			return whole(err)
		}
	}
}

// update returns the command that sets end and session, unless they are nil, of a document that was such. It sets
// lastModified and updatedAt if they are there: connect-mongo has the former with touchAfter and the latter with
// timestamps.
func update(was bson.Raw, now time.Time, left *time.Duration, session any) bson.D {
	var set, change bson.D
	if session != nil {
		set = append(set, bson.E{Key: "session", Value: session})
	}
	switch {
	case left == nil:
	case *left == backend.Forever:
		change = append(change, bson.E{Key: "$unset", Value: is("expires", "")})
	default:
		set = append(set, bson.E{Key: "expires", Value: end(now, *left)})
	}
	if _, err := was.LookupErr("lastModified"); err == nil {
		set = append(set, bson.E{Key: "lastModified", Value: now})
	}
	if _, err := was.LookupErr("updatedAt"); err == nil {
		change = append(change, bson.E{Key: "$currentDate", Value: is("updatedAt", true)})
	}
	return append(change, bson.E{Key: "$set", Value: set})
}

func (e *engine) Swap(ctx context.Context, was, next backend.Row) (bool, error) {
	now, err := e.clock.now(ctx)
	if err != nil {
		return false, err
	}
	var left *time.Duration
	if next.Left != was.Left {
		left = &next.Left
	}
	swap := func(doc bson.Raw, old bson.RawValue, more ...bson.E) (bool, error) {
		var session any
		if next.Doc != was.Doc {
			var err error
			if session, err = e.session(next, old); err != nil {
				return false, err
			}
		}
		what := append(bson.D{id(was.ID), {Key: "session", Value: is("$eq", old)}, live(now)}, more...)
		res, err := e.c.UpdateOne(ctx, what, update(doc, now, left, session))
		return err == nil && res.MatchedCount > 0, whole(err)
	}
	// Most documents are a string without times, for which no second question is needed.
	if !e.objects {
		none := is("$exists", false)
		done, err := swap(nil, rawString(was.Doc), bson.E{Key: "lastModified", Value: none}, bson.E{Key: "updatedAt", Value: none})
		if done || err != nil {
			return done, err
		}
	}
	doc, err := e.get(ctx, was.ID, live(now))
	if errors.Is(err, filestore.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r, err := row(doc, now); err != nil || r.Doc != was.Doc {
		return false, nil // another by now, or not a session any more
	}
	// The server compares the object as it is, and not what it is as JSON: so nothing that JSON cannot tell is lost.
	return swap(doc, doc.Lookup("session"))
}

func (e *engine) Delete(ctx context.Context, ids []string) (err error) {
	if len(ids) == 1 { // the driver repeats this one over a failover
		_, err = e.c.DeleteOne(ctx, bson.D{id(ids[0])})
	} else {
		_, err = e.c.DeleteMany(ctx, is("_id", is("$in", ids)))
	}
	return whole(err)
}

// alive returns which of the ids live documents have. To ask for each would take long if there are many.
func (e *engine) alive(ctx context.Context, ids []string, now time.Time) (map[string]bool, error) {
	found := make(map[string]bool)
	if len(ids) == 0 {
		return found, nil
	}
	all, err := e.c.Find(ctx, bson.D{{Key: "_id", Value: is("$in", ids)}, live(now)}, options.Find().SetProjection(is("_id", 1)))
	if err != nil {
		return nil, whole(err)
	}
	defer all.Close(ctx)
	for all.Next(ctx) {
		if id, ok := all.Current.Lookup("_id").StringValueOK(); ok {
			found[id] = true
		}
	}
	return found, whole(all.Err())
}

const (
	pageRows  = 1000
	pageBytes = 8 << 20 // or else a page of large sessions could take longer than Options.Timeout
)

// Page goes through the ids in their order. An _id that is not a string is not greater than "".
func (e *engine) Page(ctx context.Context, cursor string, docs bool) (rows []backend.Row, next string, err error) {
	now, err := e.clock.now(ctx)
	if err != nil {
		return nil, "", err
	}
	o := options.Find().SetSort(is("_id", 1)).SetLimit(pageRows)
	if !docs {
		o.SetProjection(is("_id", 1))
	}
	all, err := e.c.Find(ctx, bson.D{{Key: "_id", Value: is("$gt", cursor)}, live(now)}, o)
	if err != nil {
		return nil, "", whole(err)
	}
	defer all.Close(context.WithoutCancel(ctx))
	for size := 0; all.Next(ctx); {
		r, err := row(all.Current, now) // what is not a session has no Doc
		if err != nil && !errors.Is(err, filestore.ErrCorrupt) {
			return nil, "", err
		}
		rows = append(rows, r)
		if size += len(r.Doc); len(rows) == pageRows || size > pageBytes {
			return rows, r.ID, nil
		}
	}
	return rows, "", whole(all.Err())
}

func (e *engine) Reap(ctx context.Context, _ func()) (int, error) {
	now, err := e.clock.now(ctx)
	if err != nil {
		return 0, err
	}
	res, err := e.c.DeleteMany(ctx, is("expires", is("$lte", now)))
	if err != nil {
		return 0, whole(err)
	}
	return int(res.DeletedCount), nil
}
