// Command mutants puts faults into filestore's source, one at a time, and shows which test fails. A
// fault that no test notices shows that a test is missing:
//
//	go run ./fault/mutants [-run regexp]
//
// The fault is put into a copy of the tree.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A mutant is a fault in the source, and the tests that must notice it.
type mutant struct {
	name  string
	edits []edit
	pkg   string // directory
	tests string // regular expression
}

// An edit replaces old, which occurs once in the file.
type edit struct{ file, old, new string }

func main() {
	log.SetFlags(0)
	only := flag.String("run", "", "only the mutants whose names match this regular expression")
	flag.Parse()
	chosen, err := regexp.Compile(*only)
	if err != nil {
		log.Fatal(err)
	}
	survivors, err := run(chosen)
	if err != nil {
		log.Fatal(err)
	}
	if survivors > 0 {
		os.Exit(1)
	}
}

func run(chosen *regexp.Regexp) (survivors int, err error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/sessionfilestore/filestore").Output()
	if err != nil {
		return 0, err
	}
	source := strings.TrimSpace(string(out))
	temp, err := os.MkdirTemp("", "filestore-mutants-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(temp)

	var todo []mutant
	for _, m := range mutants {
		if chosen.MatchString(m.name) {
			todo = append(todo, m)
		}
	}
	results := make([]string, len(todo))
	next := make(chan int)
	var failed sync.Map
	var wg sync.WaitGroup
	for worker := range 2 { // many tests use several processors themselves
		tree := filepath.Join(temp, fmt.Sprint(worker))
		if err := copyTree(source, tree); err != nil {
			return 0, err
		}
		wg.Go(func() {
			for i := range next {
				start := time.Now()
				caught, err := try(tree, todo[i])
				if err != nil {
					failed.Store(i, true)
					caught = err.Error()
				}
				results[i] = fmt.Sprintf("%-40s %s (%.0f s)", todo[i].name, caught, time.Since(start).Seconds())
				fmt.Println(results[i])
			}
		})
	}
	for i := range todo {
		next <- i
	}
	close(next)
	wg.Wait()
	failed.Range(func(any, any) bool { survivors++; return true })
	fmt.Printf("%d mutants, %d caught, %d not\n", len(todo), len(todo)-survivors, survivors)
	return survivors, nil
}

// copyTree copies the files that are needed to build and test.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "bench"}, d.Name()) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	})
}

var failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// try returns the test that catches the mutant.
func try(tree string, m mutant) (caught string, err error) {
	for _, e := range m.edits {
		path := filepath.Join(tree, e.file)
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		defer os.WriteFile(path, data, 0o644)
		// An edit sees the earlier edits of the same file.
		if n := strings.Count(string(data), e.old); n != 1 {
			return "", fmt.Errorf("NO SUCH CODE: %d times %q in %s", n, e.old, e.file)
		}
		if err := os.WriteFile(path, bytes.Replace(data, []byte(e.old), []byte(e.new), 1), 0o644); err != nil {
			return "", err
		}
	}
	for range 3 { // a race does not always show
		cmd := exec.Command("go", "test", "-count=1", "-timeout=1m", "-run", m.tests, ".")
		cmd.Dir = filepath.Join(tree, m.pkg)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil && bytes.Contains(out, []byte("no tests to run")):
			return "", fmt.Errorf("NO SUCH TEST: %s", m.tests)
		case err == nil:
			continue
		case !errors.As(err, &exit):
			return "", err
		case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
			return "", fmt.Errorf("DOES NOT COMPILE: %s", out)
		}
		var names []string
		for _, m := range failure.FindAllSubmatch(out, -1) {
			names = append(names, string(m[1]))
		}
		if names == nil {
			names = []string{m.tests + " (ended by a time limit or a crash)"}
		}
		return "is caught by " + strings.Join(names, ", "), nil
	}
	return "", fmt.Errorf("SURVIVES %s", m.tests)
}
