package redisstore

import (
	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore/backend"
)

// OpenEngine returns what a Store on client is made of: what Stores do not show can be attacked there.
func OpenEngine(client redis.UniversalClient, prefix string) backend.Engine {
	return newEngine(client, prefix)
}
