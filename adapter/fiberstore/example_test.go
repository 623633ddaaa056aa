package fiberstore_test

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/fiberstore"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := filestore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	app := fiber.New()
	app.Use(session.New(session.Config{Storage: fiberstore.New(store)}))
	app.Get("/", func(c fiber.Ctx) error {
		s := session.FromContext(c)
		views, _ := s.Get("views").(int)
		s.Set("views", views+1)
		return c.SendString(fmt.Sprintf("You have been here %d times.\n", views+1))
	})

	r := httptest.NewRequest("GET", "/", nil)
	for range 2 {
		res, err := app.Test(r)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		fmt.Print(string(body))
		r.AddCookie(res.Cookies()[0])
	}
	// Output:
	// You have been here 1 times.
	// You have been here 2 times.
}
