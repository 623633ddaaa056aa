package filestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

func hostileFind(t *testing.T, s *filestore.Store, user string) (ids []string) {
	t.Helper()
	for e, err := range s.Find(context.Background(), "user", user) {
		if err != nil {
			t.Fatalf("Find(%s) = %v", user, err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

func hostileUser(user string) *filestore.Session {
	s := new(filestore.Session)
	s.Put("user", user)
	return s
}

// Find is exact in a directory that is deleted, moved, and made again, while it is used.
func TestHostileFindInADirectoryThatGoes(t *testing.T) {
	ctx := context.Background()
	base := t.TempDir()
	dir := filepath.Join(base, "a")
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range 30 {
		id, user := fmt.Sprintf("id%d", n), fmt.Sprintf("u%d", n)
		if err := s.Set(ctx, id, hostileUser(user)); err != nil {
			t.Fatal(err)
		}
		if got := hostileFind(t, s, user); len(got) != 1 {
			t.Fatalf("round %d: Find = %q", n, got)
		}
		switch n % 3 {
		case 0:
			os.RemoveAll(dir)
		case 1:
			os.Rename(dir, filepath.Join(base, fmt.Sprint("moved", n)))
			if n%2 == 0 {
				os.Mkdir(dir, 0o700)
			}
			if got := hostileFind(t, s, user); len(got) != 1 {
				t.Fatalf("round %d: after a move Find = %q", n, got)
			}
			id2 := id + "b"
			if err := s.Set(ctx, id2, hostileUser(user)); err != nil {
				t.Fatal(err)
			}
			if got := hostileFind(t, s, user); len(got) != 2 {
				t.Fatalf("round %d: after a move and a Set Find = %q", n, got)
			}
			dir = filepath.Join(base, fmt.Sprint("moved", n))
		}
	}
}

// Close beside Finds ends soon, and every Find ends too.
func TestHostileFindBesideClose(t *testing.T) {
	ctx := context.Background()
	for range 30 {
		s, err := filestore.Open(t.TempDir(), &filestore.Options{NoSync: true, ReapInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 50 {
			s.Set(ctx, fmt.Sprint("id", n), hostileUser("anna"))
		}
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				for range 5 {
					for range s.Find(ctx, fmt.Sprintf("user%d", n%6), "anna") {
					}
					for range s.Find(ctx, "user", "anna") {
						if n == 0 {
							s.Close()
						}
					}
				}
			})
		}
		begun := time.Now()
		s.Close()
		wg.Wait()
		if d := time.Since(begun); d > 20*time.Second {
			t.Errorf("Close beside Finds takes %v", d)
		}
	}
}
