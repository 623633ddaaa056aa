// Package docs_test tests the README and docs/: what they name exists, and what they show runs. It is a module of
// its own, because it builds programs with all that the pages show.
package docs_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	middleware "github.com/sessionfilestore/filestore/session"
)

// The tests run in the root: the pages' paths and commands are relative to it.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	storetest.Main(m, nil)
}

var ctx = context.Background()

func write(t *testing.T, dir, name, data string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func nowMs() int64 { return time.Now().UnixMilli() }

// pages returns the pages at the top and in docs/, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all[filepath.ToSlash(name)] = readFile(t, ".", name)
		}
	}
	if len(all) < 6 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

// testFiles returns the sources of all tests of the repository, by path.
func testFiles(t *testing.T) map[string]string {
	t.Helper()
	all := files(t, "_test.go")
	if len(all) < 50 {
		t.Fatalf("only %d test files", len(all))
	}
	return all
}

// files returns the files of the repository whose names end in suffix, by path.
func files(t *testing.T, suffix string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case strings.HasSuffix(path, suffix):
			all[filepath.ToSlash(path)] = readFile(t, ".", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The tests that the pages name exist.
func TestDocsNames(t *testing.T) {
	tests := make(map[string]bool)
	for _, source := range testFiles(t) {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`).FindAllStringSubmatch(source, -1) {
			tests[m[1]] = true
		}
	}
	named := 0
	for page, text := range pages(t) {
		for _, name := range regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1) {
			if named++; !tests[name] {
				t.Errorf("%s names %s, which is not a test", page, name)
			}
		}
	}
	if named < 50 {
		t.Errorf("the pages name only %d tests", named)
	}
}

// The files, pictures and headings that documents link to exist, in all of the repository.
func TestDocsLinks(t *testing.T) {
	documents, links := files(t, ".md"), 0
	for page, text := range documents {
		text = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "") // Go's f[T](x) looks like a link
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			link, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(link, "://") {
				continue
			}
			links++
			target := filepath.Join(filepath.Dir(page), link)
			if link == "" {
				target = page
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(readFile(t, ".", target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if len(documents) < 30 || links < 100 {
		t.Errorf("only %d documents with %d links", len(documents), links)
	}
}

// The README's table has each adapter, with a function that it has, and lines of our middleware as docs/FRAMEWORKS.md, which
// is tested, has them.
func TestReadmeFrameworks(t *testing.T) {
	_, table, _ := strings.Cut(readFile(t, ".", "README.md"), "## Does it work with")
	table, _, _ = strings.Cut(table, "\n## ")
	frameworks := readFile(t, ".", "docs/FRAMEWORKS.md")
	rows := 0
	for _, m := range regexp.MustCompile("(?m)^\\|([^|]+)\\|`([^`]+)`\\|$").FindAllStringSubmatch(table, -1) {
		rows++
		have, line := m[1], m[2]
		call := regexp.MustCompile(`^(\w+store)\.(\w+)\(`).FindStringSubmatch(line)
		if call == nil {
			if !strings.Contains(frameworks, "`"+line+"`") {
				t.Errorf("docs/FRAMEWORKS.md does not have %s", line)
			}
			continue
		}
		if !strings.Contains(have, "](adapter/"+call[1]+")") {
			t.Errorf("the row of %s does not lead to its adapter", line)
			continue
		}
		if !strings.Contains(readFile(t, ".", "adapter/"+call[1]+"/"+call[1]+".go"), "\nfunc "+call[2]+"(") {
			t.Errorf("adapter/%s has no %s", call[1], call[2])
		}
	}
	adapters, err := filepath.Glob("adapter/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, mod := range adapters {
		if dir := filepath.ToSlash(filepath.Dir(mod)); !strings.Contains(table, "]("+dir+")") {
			t.Errorf("the table does not lead to %s", dir)
		}
	}
	if rows < 16 || len(adapters) < 11 {
		t.Errorf("%d rows and %d adapters", rows, len(adapters))
	}
}

// anchors returns the names of a page's headings in links.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// HAZARDS.md lists each hazard that a test cites, and DESIGN.md each promise.
func TestHazardNumbers(t *testing.T) {
	listed := make(map[string]bool)
	for _, page := range []string{"HAZARDS.md", "DESIGN.md"} {
		for _, m := range regexp.MustCompile(`(?m)^(?:\| |### )([A-HP][0-9]{1,2})\b`).FindAllStringSubmatch(readFile(t, "docs", page), -1) {
			listed[m[1]] = true
		}
	}
	cited := make(map[string]string)
	for path, source := range testFiles(t) {
		for _, where := range regexp.MustCompile(`//.*|"[A-H][0-9]{1,2} [^"]*"`).FindAllString(source, -1) {
			for _, n := range regexp.MustCompile(`\b[A-HP][0-9]{1,2}\b`).FindAllString(where, -1) {
				cited[n] = path
			}
		}
	}
	for n, path := range cited {
		if !listed[n] {
			t.Errorf("%s cites %s, which neither docs/HAZARDS.md nor docs/DESIGN.md explains", path, n)
		}
	}
	if len(cited) < 60 || len(listed) < 100 {
		t.Errorf("only %d hazards are cited, and %d listed", len(cited), len(listed))
	}
}

// OPERATING.md explains every finding of filestore check.
func TestCheckFindings(t *testing.T) {
	rows := make(map[string]string) // severities by kind
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\| ([a-z, ]+) \\|").FindAllStringSubmatch(readFile(t, "docs", "OPERATING.md"), -1) {
		for kind := range strings.SplitSeq(m[1], ", ") {
			rows[strings.Trim(kind, "`")] = m[2]
		}
	}
	found := 0
	for _, m := range regexp.MustCompile(`trouble\{severity(Error|Warning|Note), "([a-z ]+)"`).FindAllStringSubmatch(readFile(t, "cmd/filestore", "findings.go"), -1) {
		found++
		if severity := strings.ToLower(m[1]); !strings.Contains(rows[m[2]], severity) {
			t.Errorf("check finds %s %q; docs/OPERATING.md has that kind as %q", severity, m[2], rows[m[2]])
		}
	}
	if found < 40 {
		t.Errorf("only %d findings: nothing is tested", found)
	}
}

// SECURITY.md has each requirement of ASVS 5.0.0, chapter V7, with its level, in order.
func TestASVS(t *testing.T) {
	want := strings.Fields("V7.1.1=2 V7.1.2=2 V7.1.3=2 V7.2.1=1 V7.2.2=1 V7.2.3=1 V7.2.4=1 V7.3.1=2 V7.3.2=2 " +
		"V7.4.1=1 V7.4.2=1 V7.4.3=2 V7.4.4=2 V7.4.5=2 V7.5.1=2 V7.5.2=2 V7.5.3=3 V7.6.1=2 V7.6.2=2")
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\| (V7\.\d+\.\d+) \| (\d) \| [^|]{20,} \| [^|]{10,} \|$`).FindAllStringSubmatch(readFile(t, ".", "SECURITY.md"), -1) {
		got = append(got, m[1]+"="+m[2])
	}
	if !slices.Equal(got, want) {
		t.Errorf("SECURITY.md has the requirements\n%q\nwant\n%q", got, want)
	}
}

// The fields and methods that the pages name exist.
func TestDocsFields(t *testing.T) {
	types := map[string]reflect.Type{
		"Options": reflect.TypeFor[filestore.Options](), "Store": reflect.TypeFor[*filestore.Store](),
		"Manager": reflect.TypeFor[*middleware.Manager](), "Session": reflect.TypeFor[*middleware.Session](),
		"CookieOptions": reflect.TypeFor[middleware.CookieOptions](),
	}
	named := 0
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile("`(?:session\\.|filestore\\.)?([A-Z]\\w+)\\.([A-Z]\\w*)").FindAllStringSubmatch(text, -1) {
			of, ok := types[m[1]]
			if !ok {
				continue
			}
			named++
			_, has := of.MethodByName(m[2])
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if _, field := of.FieldByName(m[2]); !has && !field {
				t.Errorf("%s names %s.%s, which does not exist", page, m[1], m[2])
			}
		}
	}
	if named < 60 {
		t.Errorf("the pages name only %d fields and methods", named)
	}
}

// The recipes begin with a list of all of them, in order.
func TestRecipesContents(t *testing.T) {
	page := readFile(t, "docs", "RECIPES.md")
	top, _, _ := strings.Cut(page, "\n## ")
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(page, -1) {
		want = append(want, "- ["+m[1]+"](#"+anchors(m[0])[0]+")")
	}
	if got := regexp.MustCompile(`(?m)^- .*$`).FindAllString(top, -1); !slices.Equal(got, want) || len(want) < 15 {
		t.Errorf("the contents are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
