// Package adaptertest has what the tests of all adapters ask.
package adaptertest

import (
	"os"
	"strings"
	"testing"
)

// Readme checks that the first program in README.md is example/main.go, which is compiled.
func Readme(t *testing.T) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("example/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```go\n")
	if block, _, _ = strings.Cut(block, "```\n"); block != string(program) {
		t.Error("the README's program is not example/main.go")
	}
}
