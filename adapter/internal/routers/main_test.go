// Package routers_test tells the stories of routertest in the routers that people use, each in its newest version, and
// has the pieces of docs/FRAMEWORKS.md, to the letter.
package routers_test

import (
	"testing"

	"github.com/sessionfilestore/filestore/adapter/internal/routertest"
)

var sites = []*routertest.Site{
	serveMux, chiRouter, gorillaMux, echo4, echo5, fiber3, fiber3Mounted, fiber3Middleware,
	humaAPI, fuegoServer, templPages, datastarEvents, connectService,
}

func TestMain(m *testing.M) { routertest.Main(m, true, sites...) }

func TestSites(t *testing.T) {
	for _, x := range sites {
		t.Run(x.Name, func(t *testing.T) { routertest.Run(t, x) })
	}
}
