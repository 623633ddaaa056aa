package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/sessionfilestore/filestore"
)

// tempStore is Open in a directory of its own.
func tempStore() (s *filestore.Store, remove func()) {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Fatal(err)
	}
	s, err = filestore.Open(dir, &filestore.Options{TTL: 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	return s, func() { s.Close(); os.RemoveAll(dir) }
}

// putUsers stores a session for each id, with its user.
func putUsers(store *filestore.Store, users map[string]string) {
	for id, user := range users {
		s := new(filestore.Session)
		if err := s.Put("user", user); err != nil {
			log.Fatal(err)
		}
		if err := store.Set(context.Background(), id, s); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleStore_Update() {
	store, remove := tempStore()
	defer remove()
	ctx := context.Background()
	if err := store.Set(ctx, "some-id", new(filestore.Session)); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		err := store.Update(ctx, "some-id", func(s *filestore.Session) error { // may run again, if others change it meanwhile
			n, err := filestore.Value[int](s, "views")
			if err != nil {
				return err
			}
			return s.Put("views", n+1)
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	s, err := store.Get(ctx, "some-id")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("views:", string(s.Values["views"]))

	if err := store.Destroy(ctx, "some-id"); err != nil {
		log.Fatal(err)
	}
	err = store.Update(ctx, "some-id", func(*filestore.Session) error { return nil })
	fmt.Println("gone:", errors.Is(err, filestore.ErrNotFound))
	// Output:
	// views: 3
	// gone: true
}

// To find the sessions of a user, by any program on the directory.
func ExampleStore_Find() {
	store, remove := tempStore()
	defer remove()
	ctx := context.Background()
	putUsers(store, map[string]string{"a": "anna", "b": "bert", "c": "anna"})
	for e, err := range store.Find(ctx, "user", "anna") {
		if err != nil { // about one session; the loop goes on
			log.Print(err)
			continue
		}
		fmt.Println(e.ID, string(e.Session.Values["user"]))
	}
	// Unordered output:
	// a "anna"
	// c "anna"
}

// To follow what any program does to the sessions. The loop ends with its context.
func ExampleStore_Watch() {
	store, remove := tempStore()
	defer remove()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() {
		for ctx.Err() == nil { // what happens before the loop begins is not seen
			if err := store.Set(ctx, "some-id", new(filestore.Session)); err != nil {
				return
			}
		}
	}()
	for event, err := range store.Watch(ctx) {
		if err != nil { // events may be missing: look at all sessions again
			log.Print(err)
			continue
		}
		fmt.Println(event.Op, event.ID)
		break
	}
	// Output: changed some-id
}

// To look through all sessions: here, to end those of a user. See Find for a faster way.
func ExampleStore_All() {
	store, remove := tempStore()
	defer remove()
	ctx := context.Background()
	putUsers(store, map[string]string{"a": "anna", "b": "bert", "c": "anna"})
	for e, err := range store.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if user, _ := filestore.Value[string](e.Session, "user"); user == "anna" {
			if err := store.Destroy(ctx, e.ID); err != nil {
				log.Fatal(err)
			}
		}
	}
	n, err := store.Len(ctx)
	fmt.Println(n, err)
	// Output: 1 <nil>
}
