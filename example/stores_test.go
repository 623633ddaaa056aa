package main

import (
	"context"
	"io"
	"iter"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/live"
	"github.com/sessionfilestore/filestore/example/stores"
)

// A place is where the sessions of a test are. Nobody else has any there.
type place struct {
	dir string // of the files; the secret is beside it in any case
	url string // of the server; "" = in files
}

func files(t *testing.T) place { return place{dir: filepath.Join(t.TempDir(), "sessions")} }

// servers returns a new place on each kind of server that the tests can start.
var servers []struct {
	name string
	url  func(testing.TB) string
}

// onEach runs a test on files and on each server.
func onEach(t *testing.T, test func(t *testing.T, at place)) {
	t.Run("files", func(t *testing.T) { test(t, files(t)) })
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			at := files(t)
			at.url = s.url(t)
			test(t, at)
		})
	}
}

// open opens the Store as the program does, without a lifetime. codec can be nil.
func (at place) open(t *testing.T, codec filestore.Codec) (s stores.Store, where string) {
	t.Helper()
	s, where, err := stores.Open(context.Background(), at.dir, at.url, 0, codec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, where
}

// serve starts the site and returns its URL. At the end the files are checked.
func (at place) serve(t *testing.T, trustProxy bool) (base string) {
	t.Helper()
	return at.serveWithin(t, trustProxy, 0)
}

// serveWithin is serve with a WriteTimeout.
func (at place) serveWithin(t *testing.T, trustProxy bool, timeout time.Duration) (base string) {
	t.Helper()
	if at.url == "" {
		t.Cleanup(func() { checkDir(t, at.dir) })
	}
	store, where := at.open(t, nil)
	feed := live.New(store, live.Options{Where: where, Files: at.url == "", Cookie: cookieName, TTL: stores.TTL, Quit: t.Context()})
	go feed.Run(t.Context()) // it also ends with the Store
	srv := httptest.NewUnstartedServer((&site{store: store, feed: feed, secret: testSecret, trustProxy: trustProxy, quit: t.Context()}).handler())
	srv.Config.WriteTimeout = timeout
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// start starts the program there; see start.
func (at place) start(t *testing.T, args ...string) *process {
	t.Helper()
	if at.url != "" {
		args = append(args, "-store", at.url)
	}
	return start(t, at.dir, args...)
}

// has reports whether anything is stored for the session.
func (at place) has(t *testing.T, id string) bool {
	t.Helper()
	return at.stored(t, id) != ""
}

// ids returns the ids of all sessions.
func (at place) ids(t *testing.T) (all []string) {
	t.Helper()
	s, _ := at.open(t, nil)
	for id, err := range s.(interface {
		IDs(context.Context) iter.Seq2[string, error]
	}).IDs(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	return all
}

// update changes a session, as another program on the same Store does.
func (at place) update(t *testing.T, id string, fn func(*filestore.Session) error) {
	t.Helper()
	s, _ := at.open(t, nil)
	if err := s.Update(context.Background(), id, fn); err != nil {
		t.Fatal(err)
	}
}

// stored returns what is stored for a session, byte for byte.
func (at place) stored(t *testing.T, id string) string {
	t.Helper()
	var c spy
	s, _ := at.open(t, &c)
	c.stored = ""
	s.Get(context.Background(), id) // it may not be readable
	return c.stored
}

// A spy is a Codec that keeps what it is given to decode.
type spy struct{ stored string }

func (c *spy) Decode(_ string, data []byte) ([]byte, error) {
	c.stored = string(data)
	return data, nil
}
func (c *spy) Encode(_ string, data []byte) ([]byte, error) { return data, nil }

// -store takes the URL of a server only, and what it says does not show the password.
func TestStoreFlag(t *testing.T) {
	t.Setenv("SESSION_SECRET", testSecret)
	for _, url := range []string{"http://x:hidden@127.0.0.1/", "postgres://x:hidden@127.0.0.1:1/", "sessions"} {
		if err := run([]string{"-dir", t.TempDir(), "-store", url}, io.Discard); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
