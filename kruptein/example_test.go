package kruptein_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/kruptein"
)

func Example() {
	dir, err := os.MkdirTemp("", "sessions-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, &filestore.Options{Codec: kruptein.New("the secret of Node's store")})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	sess := new(filestore.Session)
	sess.Put("user", "anna")
	if err := store.Set(context.Background(), "id", sess); err != nil {
		panic(err)
	}
	got, err := store.Get(context.Background(), "id")
	if err != nil {
		panic(err)
	}
	fmt.Println(filestore.Value[string](got, "user"))
	// Output: anna <nil>
}
