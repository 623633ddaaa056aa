package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every mutant still finds its code. To show that a test catches each takes minutes: go run ./fault/mutants.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		texts := make(map[string]string)
		for _, e := range m.edits {
			text, ok := texts[e.file]
			if !ok {
				data, err := os.ReadFile(filepath.Join("../..", e.file))
				if err != nil {
					t.Fatal(err)
				}
				text = string(data)
			}
			if n := strings.Count(text, e.old); n != 1 {
				t.Errorf("mutant %q no longer applies, update fault/mutants/list.go: %d times %q in %s", m.name, n, e.old, e.file)
			}
			texts[e.file] = strings.Replace(text, e.old, e.new, 1)
		}
	}
}
