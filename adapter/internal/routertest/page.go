package routertest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lost returns the words of docs/FRAMEWORKS.md for what a Site cannot do.
func (x *Site) lost() []string {
	var all []string
	for _, w := range []struct {
		lost bool
		word string
	}{
		{x.ReadOnly, "[all writes](#fiber)"},
		{x.NoRedirect, "redirects"},
		{x.RecoversInside, "[panics](#panics)"},
		{x.Late, "[streams and upgrades](#fiber)"},
		{x.LeavesUploads, "[temporary files](#temporary-files)"},
		{x.FailsHard, "[ErrorFunc](#fuego)"},
	} {
		if w.lost {
			all = append(all, w.word)
		}
	}
	return append(all, x.AlsoLost...)
}

// Page checks that docs/FRAMEWORKS.md has a row for each Site: its version is that of go.mod, its code is in the tests of
// this folder, and what is lost is what the Site says. It returns the names of all rows.
func Page(t *testing.T, page string, sites ...*Site) (names []string) {
	t.Helper()
	text := read(t, page)
	source := Source(t)
	mod := read(t, "go.mod")
	rows := make(map[string][]string)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 5 {
			continue
		}
		name := regexp.MustCompile(`\[(.*?)\].*`).ReplaceAllString(strings.TrimPrefix(cells[0], "| "), "$1")
		rows[name] = cells
		names = append(names, name)
	}
	for _, x := range sites {
		cells := rows[x.Name]
		if cells == nil {
			t.Errorf("%s has no row for %s", page, x.Name)
			continue
		}
		if x.Module != "" && !strings.Contains(mod, "\t"+x.Module+" "+cells[1]+"\n") {
			t.Errorf("%s names version %s of %s, which is not that of go.mod", page, cells[1], x.Name)
		}
		for _, cell := range cells[2:4] {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				if !strings.Contains(source, m[1]) {
					t.Errorf("the tests of %s do not have %s", x.Name, m[1])
				}
			}
		}
		want := strings.Join(x.lost(), ", ")
		if got := strings.TrimSpace(strings.TrimSuffix(cells[4], "|")); got != want {
			t.Errorf("%s says that %s loses %q, and its stories are told for %q", page, x.Name, got, want)
		}
	}
	return names
}

// Source returns the tests of this folder.
func Source(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var all strings.Builder
	for _, file := range files {
		all.WriteString(read(t, file))
	}
	return all.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
