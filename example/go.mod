module github.com/sessionfilestore/filestore/example

go 1.26.0

ignore ./express/node_modules

require (
	github.com/sessionfilestore/filestore v0.0.0
	github.com/sessionfilestore/filestore/backend/open v0.0.0
	golang.org/x/crypto v0.59.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/go-sql-driver/mysql v1.10.1 // indirect
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.13.0 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	github.com/sessionfilestore/filestore/backend/mongostore v0.0.0 // indirect
	github.com/sessionfilestore/filestore/backend/mysqlstore v0.0.0 // indirect
	github.com/sessionfilestore/filestore/backend/pgstore v0.0.0 // indirect
	github.com/sessionfilestore/filestore/backend/redisstore v0.0.0 // indirect
	github.com/xdg-go/scram v1.4.0 // indirect
	github.com/xdg-go/stringprep v1.0.4 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	go.mongodb.org/mongo-driver/v2 v2.10.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sync v0.25.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
	golang.org/x/text v0.44.0 // indirect
)

replace (
	github.com/sessionfilestore/filestore => ../
	github.com/sessionfilestore/filestore/backend/mongostore => ../backend/mongostore
	github.com/sessionfilestore/filestore/backend/mysqlstore => ../backend/mysqlstore
	github.com/sessionfilestore/filestore/backend/open => ../backend/open
	github.com/sessionfilestore/filestore/backend/pgstore => ../backend/pgstore
	github.com/sessionfilestore/filestore/backend/redisstore => ../backend/redisstore
)
