package interop

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/redisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var redisEngine = &engine{
	name: "Redis", npm: "redis", staleSaveEnds: true,
	start: func(t testing.TB) string { return storetest.Redis(t).Addr },
	node:  func(addr string) object { return object{"url": "redis://" + addr} },
	open: func(addr string) (db, error) {
		c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
		return db{
			open: func(touchAfter time.Duration) (store, error) {
				return redisstore.New(c, &redisstore.Options{TouchAfter: touchAfter})
			},
			row: func(id string) (doc string, end time.Time, err error) {
				doc, err = c.Get(ctx, "sess:"+id).Result()
				if errors.Is(err, redis.Nil) {
					return "", end, filestore.ErrNotFound
				}
				if err == nil {
					end, err = time.Now(), nil
					left, pttlErr := c.PTTL(ctx, "sess:"+id).Result()
					end, err = end.Add(left), pttlErr
				}
				return doc, end, err
			},
			close: func() { c.Close() },
		}, nil
	},
}
