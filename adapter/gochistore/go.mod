module github.com/sessionfilestore/filestore/adapter/gochistore

go 1.26.0

require (
	gitea.com/go-chi/session v0.0.0-20260708011333-ebced8a7a2d6
	github.com/go-chi/chi/v5 v5.5.0
	github.com/sessionfilestore/filestore v0.0.0
)

require (
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/sessionfilestore/filestore => ../..
