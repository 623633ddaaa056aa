module github.com/sessionfilestore/filestore/fault

go 1.26.0

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/sessionfilestore/filestore v0.0.0-00010101000000-000000000000
)

require (
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/sessionfilestore/filestore => ../
