package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/mongostore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// With stringify: false connect-mongo stores objects of MongoDB.
var (
	mongoEngine   = mongoEngineOf("MongoDB", false)
	objectsEngine = mongoEngineOf("MongoDB objects", true)
)

func mongoEngineOf(name string, objects bool) *engine {
	return &engine{
		name: name, npm: "mongo", objects: objects,
		start: func(t testing.TB) string { return storetest.Mongo(t).URI },
		node: func(addr string) object {
			return object{"url": addr, "collectionName": "sessions", "stringify": !objects}
		},
		open: func(addr string) (db, error) {
			c, err := mongo.Connect(options.Client().ApplyURI(addr))
			if err != nil {
				return db{}, err
			}
			sessions := c.Database("test").Collection("sessions")
			return db{
				open: func(touchAfter time.Duration) (store, error) {
					return mongostore.New(sessions, &mongostore.Options{
						TouchAfter: touchAfter, Objects: objects, NoIndex: true,
						Timeout: time.Minute, // all the tests' messages go one by one
					})
				},
				row: func(id string) (doc string, end time.Time, err error) {
					raw, err := sessions.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Raw()
					if errors.Is(err, mongo.ErrNoDocuments) {
						return "", end, filestore.ErrNotFound
					}
					if err != nil {
						return "", end, err
					}
					doc, _ = raw.Lookup("session").StringValueOK()
					if objects {
						var b bytes.Buffer
						err = json.Compact(&b, []byte(raw.Lookup("session").String())) // extended JSON, which tells the types
						doc = b.String()
					}
					return doc, raw.Lookup("expires").Time(), err
				},
				close: func() { c.Disconnect(ctx) },
			}, nil
		},
	}
}
