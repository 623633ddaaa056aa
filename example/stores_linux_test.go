package main

import (
	"testing"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

func init() {
	for _, e := range storetest.Engines {
		servers = append(servers, struct {
			name string
			url  func(testing.TB) string
		}{e.Name, e.URL})
	}
}
