// Package stores opens the sessions of the examples: in files, or on a server.
package stores

import (
	"context"
	"io"
	"net/url"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

// A Store is what the examples use of a store. Files and servers have it alike.
type Store interface {
	session.Store
	session.Updater
	sessionui.Source
	io.Closer
}

// TTL is the life of sessions of other programs without a maxAge. It is the files' default. The defaults of the npm
// stores differ, and all programs on the same sessions should have the same.
const TTL = time.Hour

// Usage is the help of the examples' flag -store.
const Usage = "keep the sessions on a server, whose `URL` begins with redis://, postgres://, mysql:// or mongodb://; \"\" = in files"

// Open opens the Store that rawURL names, as package open says, or the one on the files in dir if rawURL is "". It also
// returns where the sessions are, for people: without the user, the password and the parameters of the URL.
func Open(ctx context.Context, dir, rawURL string, lifetime time.Duration, codec filestore.Codec) (s Store, where string, err error) {
	if rawURL == "" {
		s, err := filestore.Open(dir, &filestore.Options{TTL: TTL, Lifetime: lifetime, Codec: codec})
		if err != nil {
			return nil, "", err
		}
		return s, dir, nil
	}
	server, err := open.Open(ctx, rawURL, &open.Options{TTL: TTL, Lifetime: lifetime, Codec: codec, CreateTable: true})
	if err != nil {
		return nil, "", err
	}
	u, _ := url.Parse(rawURL) // Open has parsed it
	return server, u.Scheme + "://" + u.Host + u.Path, nil
}
