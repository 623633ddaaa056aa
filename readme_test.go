package filestore_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The program of the README builds, serves and counts.
func TestReadmeProgram(t *testing.T) {
	readme := readFile(t, ".", "README.md")
	m := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(readme)
	if m == nil {
		t.Fatal("no program in the README")
	}
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	if !strings.Contains(m[1], `"localhost:8080"`) {
		t.Fatal("the program listens elsewhere")
	}
	write(t, dir, "main.go", strings.Replace(m[1], "localhost:8080", addr, 1))
	program := filepath.Join(dir, "program")
	if out, err := exec.Command("go", "build", "-o", program, filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar}
	for i := 1; i <= 3; i++ {
		var res *http.Response
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if res, err = client.Get("http://" + addr); err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := fmt.Sprintf("You have been here %d times.\n", i); err != nil || string(body) != want {
			t.Errorf("%q, %v, want %q", body, err, want)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "sessions", "*.json"))
	if len(files) != 1 {
		t.Fatalf("files %q", files)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	// The file that the README shows, but for its numbers.
	shown := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindStringSubmatch(readme)
	digits := regexp.MustCompile(`[0-9]+`)
	if got, want := digits.ReplaceAllString(string(data), "N"), digits.ReplaceAllString(shown[1], "N"); got != want {
		t.Errorf("file %s\nREADME %s", got, want)
	}
}

// What the README names exists.
func TestReadmeNames(t *testing.T) {
	readme := readFile(t, ".", "README.md")
	var source strings.Builder
	for _, pattern := range []string{"*.go", "*/*.go", "internal/*/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			source.WriteString(readFile(t, ".", name))
		}
	}
	for _, name := range regexp.MustCompile(`(Test|Fuzz)[A-Z]\w+`).FindAllString(readme, -1) {
		if !strings.Contains(source.String(), "func "+name+"(") {
			t.Errorf("the README names %s, which is no test", name)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([a-zA-Z][a-zA-Z/.]*)\)`).FindAllStringSubmatch(readme, -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("the README links to %s: %v", m[1], err)
		}
	}
}
