module github.com/sessionfilestore/filestore/internal/docs

go 1.26.0

require github.com/sessionfilestore/filestore v0.0.0

require (
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/sessionfilestore/filestore => ../..
