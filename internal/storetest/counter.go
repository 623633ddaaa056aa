package storetest

import (
	"context"
	"testing"

	"github.com/sessionfilestore/filestore"
)

// With returns a session with a member.
func With(member string, value any) *filestore.Session {
	sess := &filestore.Session{Cookie: filestore.Cookie{Path: "/"}}
	if err := sess.Put(member, value); err != nil {
		panic(err)
	}
	return sess
}

// Add is a function for Update that adds 1 to the member n.
func Add(sess *filestore.Session) error {
	n, err := filestore.Value[int](sess, "n")
	if err != nil {
		return err
	}
	return sess.Put("n", n+1)
}

// Count returns the member n of the session id.
func Count[S getter](t testing.TB, s S, id string) int {
	t.Helper()
	n, err := count(s, id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

type getter interface {
	Get(ctx context.Context, id string) (*filestore.Session, error)
}

func count(s getter, id string) (int, error) {
	sess, err := s.Get(context.Background(), id)
	if err != nil {
		return 0, err
	}
	return filestore.Value[int](sess, "n")
}
