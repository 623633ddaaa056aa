package main

import (
	"context"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// serve shows the sessions of an engine, and says what an engine does not tell.
func TestServeEngine(t *testing.T) {
	server := storetest.Redis(t)
	url := "redis://" + server.Addr
	store, err := open.Open(context.Background(), url, &open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, user := range []string{"anna", "bert"} {
		sess := new(filestore.Session)
		sess.Put("user", user)
		if err := store.Set(context.Background(), "id-of-"+user, sess); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SERVE_URL", url)
	s := startServe(t, "--store", "env:SERVE_URL", "--write")
	body, handle := s.get()
	if !strings.Contains(body, `data-figure="live">2<`) || !strings.Contains(body, `data-figure="unreadable">0<`) || !strings.Contains(body, `data-figure="expired"><span class="none">not known<`) || strings.Contains(body, "id-of") {
		t.Errorf("the page is %s", body)
	}
	if got := s.end(handle); got != 200 {
		t.Errorf("the end = %d", got)
	}
	if n, err := store.Len(context.Background()); n != 1 || err != nil {
		t.Errorf("left: %d, %v", n, err)
	}
	s.stop()
}
