package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/mongostore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.Parallel(16)
	storetest.Main(m, workers)
}

var workers = map[string]func(args []string){"add": add}

func connect(t testing.TB, uri string) *mongo.Client {
	t.Helper()
	c, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(ctx) })
	return c
}

func open(t testing.TB, c *mongo.Collection, o *mongostore.Options) *mongostore.Store {
	t.Helper()
	s, err := mongostore.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Every promise of session.Store, on a server, with either form of the sessions.
func TestStore(t *testing.T) {
	t.Parallel()
	for _, objects := range []bool{false, true} {
		t.Run(fmt.Sprint("objects=", objects), func(t *testing.T) {
			t.Parallel()
			c := connect(t, storetest.Mongo(t).URI)
			var n atomic.Int64
			sessiontest.Run(t, func(t *testing.T) session.Store { // an empty Store each time, on one server
				// Objects have no number of 20 digits, and FerretDB has no lists in lists; see TestObject.
				objects := objects && !strings.HasSuffix(t.Name(), "/Values")
				return open(t, c.Database("test").Collection(fmt.Sprint("sessions", n.Add(1))), &mongostore.Options{
					Objects: objects,
					Timeout: time.Minute, // all the tests' messages go one by one
				})
			})
		})
	}
}

const id = "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx"

// with returns a session that lives for an hour after its last access, with n.
func with(t testing.TB, n int) *filestore.Session {
	t.Helper()
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: time.Hour, HTTPOnly: true, Path: "/"}}
	if err := sess.Put("n", n); err != nil {
		t.Fatal(err)
	}
	return sess
}

var plus1 = storetest.Add

func holds(t testing.TB, s *mongostore.Store, id string, want int) {
	t.Helper()
	sess, err := s.Get(ctx, id)
	if err != nil {
		t.Errorf("Get(%q) = %v", id, err)
		return
	}
	if n, err := filestore.Value[int](sess, "n"); n != want || err != nil {
		t.Errorf("Get(%q) has n = %d, %v, want %d", id, n, err, want)
	}
}

func plant(t testing.TB, c *mongo.Collection, docs ...any) {
	t.Helper()
	if _, err := c.InsertMany(ctx, docs); err != nil {
		t.Fatal(err)
	}
}

// document returns the document id, with its members in the order that the server has.
func document(t testing.TB, c *mongo.Collection, id any) bson.Raw {
	t.Helper()
	doc, err := c.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Raw()
	if err != nil {
		t.Fatalf("the document %v: %v", id, err)
	}
	return doc
}

// samples plants the documents that connect-mongo wrote, as if it had done so just now, and returns them as they were.
func samples(t *testing.T, c *mongo.Collection, file string) (docs []bson.Raw) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
		var doc bson.D
		if err := bson.UnmarshalExtJSON([]byte(line), false, &doc); err != nil {
			t.Fatal(err)
		}
		for i := range doc {
			if doc[i].Key == "expires" {
				doc[i].Value = time.Now().Add(time.Hour).Truncate(time.Millisecond)
			}
		}
		plant(t, c, doc)
		docs = append(docs, document(t, c, doc[0].Value))
	}
	return docs
}

// Go reads what connect-mongo wrote, in all its forms. Each write keeps the form and whatever it does not change.
func TestSamples(t *testing.T) {
	c := connect(t, storetest.Mongo(t).URI).Database("test")
	for name, codec := range map[string]filestore.Codec{"string": nil, "object": nil, "kruptein": kruptein.New("squirrel squirrel")} {
		t.Run(name, func(t *testing.T) {
			c := c.Collection(name)
			docs := samples(t, c, "testdata/"+name+".txt")
			s := open(t, c, &mongostore.Options{Codec: codec, TouchAfter: -1})
			for i, was := range docs {
				id := was.Lookup("_id").StringValue()
				sess, err := s.Get(ctx, id)
				if err != nil {
					t.Fatalf("Get = %v", err)
				}
				if got, want := string(sess.Values["user"]), `{"id":7,"name":"Ærøskøbing <b> & \"é\" 😀"}`; got != want || string(sess.Values["views"]) != "1" {
					t.Errorf("the sample has user %s and views %s, want %s and 1", got, sess.Values["views"], want)
				}
				if c, lax := sess.Cookie, []string{"", "lax"}[i]; c.OriginalMaxAge != time.Duration(i)*time.Hour || c.SameSite != lax || !c.HTTPOnly || c.Path != "/" || c.Expires.IsZero() != (i == 0) {
					t.Errorf("the sample has the cookie %+v", c)
				}

				if err := s.Touch(ctx, id, nil); err != nil {
					t.Errorf("Touch = %v", err)
				}
				touched := document(t, c, id)
				if i == 0 { // else the cookie in the document has expired, and is written too
					same(t, "after Touch", was, touched, "expires", "lastModified", "updatedAt")
				}
				if end := touched.Lookup("expires").Time(); (i == 0) != (time.Until(end) > 13*24*time.Hour) {
					t.Errorf("after Touch the session ends in %v", time.Until(end))
				}
				for _, views := range []int{2, 1} {
					if err := s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("views", views) }); err != nil {
						t.Errorf("Update = %v", err)
					}
				}
				updated := document(t, c, id)
				if name != "kruptein" { // which is different each time
					first, second := withoutCreated(t, touched.Lookup("session")), withoutCreated(t, updated.Lookup("session"))
					if !second.Equal(first) {
						t.Errorf("after two Updates the session is\n%v, want\n%v", second, first)
					}
				}
				same(t, "after two Updates", was, updated, "expires", "lastModified", "updatedAt", "session")
				for _, member := range []string{"lastModified", "updatedAt"} {
					if before, err := was.LookupErr(member); err == nil && !updated.Lookup(member).Time().After(before.Time()) {
						t.Errorf("%s is %v, want the time of the write", member, updated.Lookup(member))
					}
				}
				if sess, err = s.Get(ctx, id); err != nil || string(sess.Values["views"]) != "1" || sess.Created.IsZero() {
					t.Errorf("after two Updates Get = %v, %v", sess, err)
				}
			}
			n := 0
			for e, err := range s.Find(ctx, "user.id", "7") {
				if n++; err != nil || e.Session == nil {
					t.Errorf("Find = %v", err)
				}
			}
			if n != len(docs) {
				t.Errorf("Find has %d sessions, want %d", n, len(docs))
			}
		})
	}
}

// same fails unless both documents have the same members, and but for these the same values.
func same(t *testing.T, when string, was, is bson.Raw, but ...string) {
	t.Helper()
	members := func(doc bson.Raw) (names []string) {
		all, _ := doc.Elements()
		for _, m := range all {
			names = append(names, m.Key())
		}
		return names
	}
	if fmt.Sprint(members(was)) != fmt.Sprint(members(is)) {
		t.Errorf("%s the document has the members %q, want %q", when, members(is), members(was))
	}
	for _, name := range members(was) {
		if before, after := was.Lookup(name), is.Lookup(name); !strings.Contains(fmt.Sprint(but), name) && !after.Equal(before) {
			t.Errorf("%s %s is %v, want %v", when, name, after, before)
		}
	}
}

// withoutCreated returns the session without its last member if that is __created, which Go's first write adds.
func withoutCreated(t *testing.T, v bson.RawValue) bson.RawValue {
	t.Helper()
	if v.Type == bson.TypeString {
		text, _, _ := strings.Cut(strings.TrimSuffix(v.StringValue(), "}"), `,"__created":`)
		typ, b, _ := bson.MarshalValue(text + "}")
		return bson.RawValue{Type: typ, Value: b}
	}
	var doc bson.D
	if err := v.Unmarshal(&doc); err != nil {
		t.Fatal(err)
	}
	if last := len(doc) - 1; doc[last].Key == "__created" {
		doc = doc[:last]
	}
	b, _ := bson.Marshal(doc)
	return bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: b}
}

// A document that is not a session of connect-mongo is kept as it is, and harms no other session.
func TestPlanted(t *testing.T) {
	c := connect(t, storetest.Mongo(t).URI).Database("test").Collection("sessions")
	soon := time.Now().Add(time.Hour)
	const good = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"anna"}`
	corrupt := map[string]any{"null": nil, "number": 3, "list": bson.A{good}, "text": "{", "nocookie": `{"a":1}`, "object": bson.D{{Key: "a", Value: 1}},
		"binary": bson.D{{Key: "cookie", Value: bson.D{}}, {Key: "b", Value: bson.Binary{Data: []byte("x")}}}}
	for id, session := range corrupt {
		plant(t, c, bson.D{{Key: "_id", Value: id}, {Key: "expires", Value: soon}, {Key: "session", Value: session}})
	}
	plant(t, c, bson.D{{Key: "_id", Value: "missing"}, {Key: "expires", Value: soon}})
	corrupt["missing"] = nil
	for _, id := range []any{int32(7), bson.NewObjectID(), "not/ours", "live"} {
		plant(t, c, bson.D{{Key: "_id", Value: id}, {Key: "expires", Value: soon}, {Key: "session", Value: good}})
	}
	plant(t, c, bson.D{{Key: "_id", Value: "endless"}, {Key: "session", Value: good}})
	dead := map[string]any{"nullend": nil, "textend": soon.Format(time.RFC3339), "numberend": soon.UnixMilli(), "past": time.Now().Add(-time.Second)}
	for id, end := range dead {
		plant(t, c, bson.D{{Key: "_id", Value: id}, {Key: "expires", Value: end}, {Key: "session", Value: good}})
	}

	s := open(t, c, nil)
	never := func(*filestore.Session) error { t.Error("Update calls fn"); return nil }
	for id := range corrupt {
		was := document(t, c, id)
		_, err := s.Get(ctx, id)
		for _, err := range []error{err, s.Update(ctx, id, never), s.Touch(ctx, id, nil)} {
			if !errors.Is(err, filestore.ErrCorrupt) {
				t.Errorf("%s: %v, want ErrCorrupt", id, err)
			}
		}
		if err := s.Create(ctx, id, with(t, 1)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: Create = %v, want fs.ErrExist", id, err)
		}
		if is := document(t, c, id); string(is) != string(was) {
			t.Errorf("%s is %v, want %v as it was", id, is, was)
		}
	}
	for id := range dead {
		_, err := s.Get(ctx, id)
		for _, err := range []error{err, s.Update(ctx, id, never), s.Touch(ctx, id, nil)} {
			if !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", id, err)
			}
		}
	}
	found := func(when string, want ...string) {
		t.Helper()
		got := make(map[string]bool)
		for e, err := range s.Find(ctx, "user", "anna") {
			if got[e.ID] = true; err != nil {
				t.Errorf("%s: Find = %v", when, err)
			}
		}
		for e, err := range s.All(ctx) {
			if !got[e.ID] || err != nil {
				t.Errorf("%s: All has %q, %v, which Find has not", when, e.ID, err)
			}
		}
		if len(got) != len(want) || !got[want[0]] || !got[want[len(want)-1]] {
			t.Errorf("%s: Find has %v, want %q", when, got, want)
		}
	}
	found("among damaged ones", "endless", "live")
	if _, err := document(t, c, "endless").LookupErr("expires"); err == nil {
		t.Error("a Find has given the endless session an end")
	}
	if err := s.Touch(ctx, "endless", nil); err != nil {
		t.Errorf("Touch of the endless session = %v", err)
	}
	if end := time.Until(document(t, c, "endless").Lookup("expires").Time()); end < 13*24*time.Hour || end > 14*24*time.Hour {
		t.Errorf("the endless session ends in %v after Touch, want 14 days", end)
	}
	if n, err := s.Reap(ctx); n != 1 || err != nil { // what connect-mongo does not remove stays too
		t.Errorf("Reap = %d, %v, want 1", n, err)
	}
	for id := range dead {
		if err := s.Create(ctx, id, with(t, 2)); err != nil {
			t.Errorf("%s: Create = %v, want nil: it is not live", id, err)
		}
		holds(t, s, id, 2)
	}
	if err := s.Clear(ctx); err != nil {
		t.Errorf("Clear = %v", err)
	}
	if n, err := c.CountDocuments(ctx, bson.D{}); n != 3 || err != nil {
		t.Errorf("Clear leaves %d documents, %v, want the 3 whose ids are not ours", n, err)
	}
}

// A session that ends while Update's fn runs, by its time or by a Destroy, is not brought back.
func TestEndedMeanwhile(t *testing.T) {
	c := connect(t, storetest.Mongo(t).URI).Database("test").Collection("sessions")
	for _, objects := range []bool{false, true} {
		s := open(t, c, &mongostore.Options{Objects: objects})
		for name, end := range map[string]func() error{
			"its time": func() error {
				_, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: bson.D{{Key: "expires", Value: time.Now().Add(-time.Second)}}}})
				return err
			},
			"Destroy": func() error { return s.Destroy(ctx, id) },
		} {
			if err := s.Set(ctx, id, with(t, 1)); err != nil {
				t.Fatal(err)
			}
			err := s.Update(ctx, id, func(sess *filestore.Session) error {
				if err := end(); err != nil {
					return err
				}
				return plus1(sess)
			})
			if !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("objects %v, ended by %s: Update = %v, want ErrNotFound", objects, name, err)
			}
			if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("objects %v, ended by %s: Get = %v, want ErrNotFound", objects, name, err)
			}
		}
	}
}

// The times that connect-mongo adds with touchAfter and timestamps are kept right by each write, and never added.
func TestTimes(t *testing.T) {
	c := connect(t, storetest.Mongo(t).URI).Database("test").Collection("sessions")
	past := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for _, objects := range []bool{false, true} {
		s := open(t, c, &mongostore.Options{Objects: objects, TouchAfter: -1})
		for i, there := range [][]string{nil, {"lastModified"}, {"createdAt", "updatedAt"}} { // neither, touchAfter, timestamps
			id := fmt.Sprintf("%v-%d", objects, i)
			if err := s.Create(ctx, id, with(t, 1)); err != nil {
				t.Fatal(err)
			}
			for name, write := range map[string]func() error{
				"Update": func() error { return s.Update(ctx, id, plus1) },
				"Touch":  func() error { return s.Touch(ctx, id, nil) },
				"Set":    func() error { return s.Set(ctx, id, with(t, 1)) },
			} {
				for _, member := range there {
					if _, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: bson.D{{Key: member, Value: past}}}}); err != nil {
						t.Fatal(err)
					}
				}
				if err := write(); err != nil {
					t.Errorf("%s = %v", name, err)
				}
				doc := document(t, c, id)
				for _, member := range []string{"createdAt", "lastModified", "updatedAt"} {
					at, ok := doc.Lookup(member).TimeOK()
					if ok != slices.Contains(there, member) || ok && at.Equal(past) != (member == "createdAt") {
						t.Errorf("objects %v, with %q: after %s %s is %v, %v", objects, there, name, member, at, ok)
					}
				}
			}
		}
	}
}

// The pages of many sessions have each one, large ones too.
func TestPages(t *testing.T) {
	t.Parallel()
	c := connect(t, storetest.Mongo(t).URI).Database("test").Collection("sessions")
	s := open(t, c, &mongostore.Options{Timeout: time.Minute})
	docs := make([]any, 2500)
	for i := range docs {
		session := fmt.Sprintf(`{"cookie":{},"n":%d}`, i)
		if i%100 == 0 {
			session = fmt.Sprintf(`{"cookie":{},"n":%d,"fill":%q}`, i, strings.Repeat("x", 900_000))
		}
		docs[i] = bson.D{{Key: "_id", Value: fmt.Sprint("s", i)}, {Key: "expires", Value: time.Now().Add(time.Hour)}, {Key: "session", Value: session}}
	}
	for part := range 25 {
		plant(t, c, docs[part*100:part*100+100]...)
	}
	seen := make(map[string]bool)
	for e, err := range s.All(ctx) {
		if err != nil {
			t.Fatalf("All = %v", err)
		}
		seen[e.ID] = true
	}
	if n, err := s.Len(ctx); len(seen) != len(docs) || n != len(docs) || err != nil {
		t.Errorf("All has %d, Len = %d, %v, want %d", len(seen), n, err, len(docs))
	}
}

// A server that was killed and started again has what it acknowledged, and its clients need not know.
func TestRestart(t *testing.T) {
	t.Parallel()
	server := storetest.Mongo(t)
	c := connect(t, server.URI).Database("test").Collection("sessions")
	s, hasty := open(t, c, &mongostore.Options{Timeout: time.Minute}), open(t, c, &mongostore.Options{Timeout: 2 * time.Second})
	n := 0
	if err := s.Create(ctx, id, with(t, n)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for range 5 {
			if err := s.Update(ctx, id, plus1); err != nil {
				t.Fatalf("Update = %v", err)
			}
			n++
		}
		server.Kill()
		if _, err := hasty.Get(ctx, id); err == nil || errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get without a server = %v, want an error that is not ErrNotFound", err)
		}
		server.Start(t)
		holds(t, s, id, n)
	}
}

// Each operation ends within Options.Timeout if the server hangs, and works when it goes on.
func TestHang(t *testing.T) {
	server := storetest.Mongo(t)
	const timeout = 2 * time.Second
	c := connect(t, server.URI).Database("test").Collection("sessions")
	s := open(t, c, &mongostore.Options{Timeout: timeout})
	if err := open(t, c, &mongostore.Options{Timeout: time.Minute}).Create(ctx, id, with(t, 1)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	server.Hang()
	for name, op := range map[string]func() error{
		"Get":    func() error { _, err := s.Get(ctx, id); return err },
		"Set":    func() error { return s.Set(ctx, "other", with(t, 1)) },
		"Create": func() error { return s.Create(ctx, "another", with(t, 1)) },
		"Update": func() error { return s.Update(ctx, id, func(*filestore.Session) error { return nil }) },
		"Touch":  func() error { return s.Touch(ctx, id, nil) },
		"Delete": func() error { return s.Destroy(ctx, "other") },
		"Reap":   func() error { _, err := s.Reap(ctx); return err },
		"Clear":  func() error { return s.Clear(ctx) },
		"IDs": func() (err error) {
			for _, err = range s.IDs(ctx) {
			}
			return err
		},
		"Find": func() (err error) {
			for _, err = range s.Find(ctx, "n", "1") {
			}
			return err
		},
		"New": func() error { _, err := mongostore.New(c, &mongostore.Options{Timeout: timeout}); return err },
	} {
		wg.Go(func() {
			began := time.Now()
			err := op()
			if took := time.Since(began); err == nil || !errors.Is(err, context.DeadlineExceeded) || took > timeout+20*time.Second { // of a busy machine
				t.Errorf("%s on a hung server = %v after %v, want context.DeadlineExceeded after %v", name, err, took, timeout)
			}
		})
	}
	wg.Wait()
	_, err := s.Get(ctx, id)
	if err == nil || !strings.Contains(err.Error(), "no answer within 2s") {
		t.Errorf("Get on a hung server = %v, want an error that tells its Timeout", err)
	}
	server.Continue()
	for range 20 { // the server first does what nobody waits for any more; Clear may be part of it
		if _, err = s.Get(ctx, id); err == nil || errors.Is(err, filestore.ErrNotFound) {
			break
		}
	}
	if err != nil && !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Get when the server goes on = %v", err)
	}
}

// If a request or an answer is lost, the operation is done once all the same. But an object has no room for a mark: of an
// Update whose answer is lost it is not known whether the change that is there is its own.
func TestLost(t *testing.T) {
	for _, objects := range []bool{false, true} {
		t.Run(fmt.Sprint("objects=", objects), func(t *testing.T) {
			t.Parallel() // after a lost connection the driver waits up to half a second
			server := storetest.Mongo(t)
			s := open(t, connect(t, server.URI).Database("test").Collection("sessions"), &mongostore.Options{Objects: objects})
			for _, command := range []string{"find", "insert", "update", "delete"} {
				for _, after := range []bool{false, true} {
					if command == "find" && !after {
						continue // it is the same
					}
					var lostChange error
					if objects && after && command == "update" {
						lostChange = io.EOF
					}
					lost := 0
					check := func(op string, do func() error, want error) {
						t.Helper()
						once := false // the proxy asks one by one
						server.Lose(func(name string) (bool, bool) {
							if once || name != command {
								return false, false
							}
							once = true
							return !after, after
						})
						err := do()
						server.Lose(nil)
						if once {
							lost++
						}
						if !errors.Is(err, want) {
							t.Errorf("%s with a lost %s (after it was done: %v) = %v, want %v", op, command, after, err, want)
						}
					}
					check("Create", func() error { return s.Create(ctx, id, with(t, 1)) }, nil)
					check("Create of one that is there", func() error { return s.Create(ctx, id, with(t, 2)) }, fs.ErrExist)
					check("Update", func() error { return s.Update(ctx, id, plus1) }, lostChange)
					holds(t, s, id, 2)
					check("Touch", func() error {
						return s.Touch(ctx, id, &filestore.Cookie{OriginalMaxAge: time.Minute, HTTPOnly: true, Path: "/"})
					}, lostChange)
					check("Set", func() error { return s.Set(ctx, id, with(t, 7)) }, nil)
					holds(t, s, id, 7)
					check("Destroy", func() error { return s.Destroy(ctx, id) }, nil)
					if _, err := s.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
						t.Errorf("after Destroy Get = %v", err)
					}
					if lost == 0 {
						t.Errorf("no %s was lost", command)
					}
				}
			}
		})
	}
}

// add is a process that adds 1 to the sessions n times.
func add(args []string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	c, err := mongo.Connect(options.Client().ApplyURI(args[0]))
	fail(err)
	defer c.Disconnect(ctx)
	n, err := strconv.Atoi(args[1])
	fail(err)
	s, err := mongostore.New(c.Database("test").Collection("sessions"), &mongostore.Options{Timeout: 2 * time.Minute, NoIndex: true})
	fail(err)
	defer s.Close()
	for range n {
		fail(s.Update(ctx, "string", plus1))
		fail(s.Update(ctx, "object", plus1))
	}
	fmt.Println("done")
}

// No Update of any process is lost, with either form.
func TestProcesses(t *testing.T) {
	t.Parallel()
	server := storetest.Mongo(t)
	c := connect(t, server.URI).Database("test").Collection("sessions")
	if err := open(t, c, nil).Create(ctx, "string", with(t, 0)); err != nil {
		t.Fatal(err)
	}
	s := open(t, c, &mongostore.Options{Objects: true})
	if err := s.Create(ctx, "object", with(t, 0)); err != nil {
		t.Fatal(err)
	}
	const processes = 8
	each := storetest.Long(25, 500)
	var all []*storetest.Process
	for range processes {
		all = append(all, storetest.Start(t, "add", server.URI, strconv.Itoa(each)))
	}
	for _, p := range all {
		if line := p.Line(t); line != "done" {
			t.Errorf("a process: %s", line)
		}
	}
	for _, id := range []string{"string", "object"} {
		holds(t, s, id, processes*each)
		if typ, want := document(t, c, id).Lookup("session").Type, map[string]bson.Type{"string": bson.TypeString, "object": bson.TypeEmbeddedDocument}[id]; typ != want {
			t.Errorf("the session %s is a %v by now", id, typ)
		}
	}
}

// Of many that create one id, exactly one succeeds, also if the id is that of a session whose time is over.
func TestCreators(t *testing.T) {
	server := storetest.Mongo(t)
	var stores []*mongostore.Store
	for range 3 {
		stores = append(stores, open(t, connect(t, server.URI).Database("test").Collection("sessions"), &mongostore.Options{Timeout: time.Minute}))
	}
	for round, before := range []func() error{
		func() error { return nil },
		func() error {
			sess := with(t, -1)
			sess.Cookie.OriginalMaxAge = -time.Second
			return stores[0].Set(ctx, id, sess)
		},
	} {
		if err := before(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var made, by atomic.Int64
		for i := range 24 {
			wg.Go(func() {
				switch err := stores[i%len(stores)].Create(ctx, id, with(t, i)); {
				case err == nil:
					made.Add(1)
					by.Store(int64(i))
				case !errors.Is(err, fs.ErrExist):
					t.Errorf("Create = %v, want nil or fs.ErrExist", err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 {
			t.Errorf("round %d: %d creators succeeded, want 1", round, made.Load())
		}
		holds(t, stores[0], id, int(by.Load()))
		if err := stores[0].Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
}

// The server's clock decides, whatever this host's says.
func TestSkew(t *testing.T) {
	server := storetest.Mongo(t)
	c := connect(t, server.URI).Database("test").Collection("sessions")
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		server.Skew(skew)
		s := open(t, c, nil)
		sess := with(t, 1)
		sess.Cookie.OriginalMaxAge = time.Minute
		if err := s.Set(ctx, id, sess); err != nil {
			t.Fatal(err)
		}
		if off := time.Until(document(t, c, id).Lookup("expires").Time()) - time.Minute - skew; off.Abs() > 5*time.Second {
			t.Errorf("with a server %v ahead a session of a minute ends %v too late", skew, off)
		}
		sess, err := s.Get(ctx, id)
		if err != nil {
			t.Fatalf("with a server %v ahead Get = %v", skew, err)
		}
		if off := time.Since(sess.LastAccess); off.Abs() > 5*time.Second {
			t.Errorf("with a server %v ahead the last access was %v ago", skew, off)
		}
		if n, err := s.Reap(ctx); n != 0 || err != nil {
			t.Errorf("with a server %v ahead Reap = %d, %v", skew, n, err)
		}
		server.Skew(skew + 2*time.Minute) // which is past the session's end
		late := open(t, c, nil)
		if _, err := late.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("two minutes later Get = %v", err)
		}
		if n, err := late.Reap(ctx); n != 1 || err != nil {
			t.Errorf("two minutes later Reap = %d, %v, want 1", n, err)
		}
	}
}

// What the server refuses shows neither id nor document, and the reason why there is no index is logged.
func TestRefused(t *testing.T) {
	server := storetest.Mongo(t)
	c := connect(t, server.URI).Database("test").Collection("sessions")
	log := new(storetest.Logged)
	s := open(t, c, &mongostore.Options{Objects: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "NotImplemented") {
		t.Errorf("FerretDB makes no such index, and the log is %q", got)
	}
	log = new(storetest.Logged)
	open(t, c, &mongostore.Options{NoIndex: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if got := log.String(); got != "" {
		t.Errorf("with NoIndex the log is %q", got)
	}
	if err := s.Create(ctx, id, with(t, 1)); err != nil {
		t.Fatal(err)
	}
	// FerretDB refuses a name with a dot, which MongoDB has taken since version 5.
	err := s.Update(ctx, id, func(sess *filestore.Session) error { return sess.Put("secret.dot", 1) })
	if err == nil || err.Error() != "filestore: update 3a65c280: the server refuses: 2" {
		t.Errorf("Update = %v, want an error with the server's code and nothing else", err)
	}
	holds(t, s, id, 1)
	if _, err := mongostore.New(c, &mongostore.Options{Objects: true, Codec: kruptein.New("x")}); err == nil {
		t.Error("New with Objects and a Codec = nil, want an error")
	}
}
