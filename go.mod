module github.com/sessionfilestore/filestore

go 1.26.0

ignore ./internal/interop/node_modules

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/gofrs/flock v0.13.2
	github.com/hashicorp/golang-lru/v2 v2.0.7
	golang.org/x/crypto v0.59.0
	golang.org/x/sys v0.50.0
)
