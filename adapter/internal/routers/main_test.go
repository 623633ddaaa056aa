// Package routers_test tells the stories of routertest in the routers that people use, each in its newest version, and
// has the pieces of docs/FRAMEWORKS.md, to the letter.
package routers_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
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

// The page has a row for each site, and what each row says is so. It has the pieces of the tests, to the letter.
func TestPage(t *testing.T) {
	const page = "../../../docs/FRAMEWORKS.md"
	for _, name := range routertest.Page(t, page, sites...) {
		known := slices.ContainsFunc(sites, func(x *routertest.Site) bool { return x.Name == name })
		if !known && name != "framework" && !strings.HasPrefix(name, "gin") { // gin's are ginsession's
			t.Errorf("the page has a row for %s, which no test tries", name)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	source := routertest.Source(t)
	pieces := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	for _, m := range pieces {
		if !strings.Contains(source, "\n"+m[1]) {
			t.Errorf("the tests do not have\n%s", m[1])
		}
		for _, f := range regexp.MustCompile(`(?m)^func (\w+)`).FindAllStringSubmatch(m[1], -1) {
			if len(regexp.MustCompile(`\b`+f[1]+`\b`).FindAllString(source, -1)) < 2 {
				t.Errorf("the tests do not use %s", f[1])
			}
		}
	}
	if len(pieces) < 8 {
		t.Errorf("only %d pieces", len(pieces))
	}
}
