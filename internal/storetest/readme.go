package storetest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Readme is for a module that has a README of its own. It checks that the first program in README.md is
// example/main.go, which is compiled, and that the versions that it names are those of go.mod.
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

	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	tested := regexp.MustCompile(`(?m)^Tested with (.+) \(Go ([\d.]+)\)\.$`).FindStringSubmatch(string(readme))
	if tested == nil {
		t.Fatal("the README has no line Tested with")
	}
	if !strings.Contains(string(mod), "\ngo "+tested[2]+".") {
		t.Errorf("go.mod has another Go than %s", tested[2])
	}
	named := strings.Split(tested[1], ", ")
	for _, m := range regexp.MustCompile(`-require=(\S+)@(\S+)`).FindAllStringSubmatch(string(readme), -1) {
		named = append(named, m[1]+" "+m[2])
	}
	for _, module := range named {
		if !strings.HasSuffix(module, " v0.0.0") && !strings.Contains(string(mod), "\t"+module+"\n") { // the former is of this repository
			t.Errorf("go.mod does not require %s", module)
		}
	}
}
