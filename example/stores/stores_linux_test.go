package stores_test

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m, nil) }

// What the examples print says where the sessions are, and has nothing of a password, nor has an error.
func TestWhere(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "sessions")
	s, where, err := stores.Open(ctx, dir, "", 0, nil)
	if err != nil || where != dir {
		t.Fatalf("files: %q, %v", where, err)
	}
	s.Close()

	server := storetest.Redis(t, "--user", "anna", "on", ">secret1", "~*", "&*", "+@all", "--user", "default", "off")
	for user, ok := range map[string]bool{"anna:secret1": true, "anna:secret2": false} {
		s, where, err := stores.Open(ctx, dir, "redis://"+user+"@"+server.Addr+"/3?prefix=secret3:", 0, nil)
		if ok != (err == nil) {
			t.Fatalf("%s: %v", user, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error is %v", err)
			}
			continue
		}
		if want := "redis://" + server.Addr + "/3"; where != want {
			t.Errorf("where = %q, want %q", where, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, wrong := range []string{"ftp://x:secret@y", "secret", "redis://x:secret%zz@y", "postgres://x:secret@127.0.0.1:port/"} {
		if _, where, err := stores.Open(ctx, dir, wrong, 0, nil); err == nil || where != "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v", wrong, where, err)
		}
	}
}

// Each engine has no sessions at first, and makes its table.
func TestEngines(t *testing.T) {
	for _, e := range storetest.Engines {
		t.Run(e.Name, func(t *testing.T) {
			a, b := e.URL(t), e.URL(t)
			if a == b {
				t.Errorf("the place %s is given twice", a)
			}
			s, where, err := stores.Open(context.Background(), "", a, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if u, err := url.Parse(where); err != nil || u.Scheme != e.Name || u.User != nil || u.RawQuery != "" {
				t.Errorf("where = %q, %v", where, err)
			}
		})
	}
}
