package sealed_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/sealed"
)

func Example() {
	dir, err := os.MkdirTemp("", "sessions-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	key := make([]byte, sealed.KeySize) // keep it away from the sessions
	rand.Read(key)
	codec, err := sealed.New(key)
	if err != nil {
		panic(err)
	}
	store, err := filestore.Open(dir, &filestore.Options{Codec: codec})
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
