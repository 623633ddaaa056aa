package main

import (
	"fmt"
	"log"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/session"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/fiberstore"
)

func main() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	app := fiber.New()
	app.Use(session.New(session.Config{Storage: fiberstore.New(store), CookieHTTPOnly: true}))
	app.Get("/", func(c fiber.Ctx) error {
		s := session.FromContext(c)
		views, _ := s.Get("views").(int)
		s.Set("views", views+1)
		return c.SendString(fmt.Sprintf("You have been here %d times.\n", views+1))
	})
	log.Fatal(app.Listen("localhost:8080"))
}
