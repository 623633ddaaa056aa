// Package storetest is what the tests of several folders share: stores whose end is checked, session files,
// other processes and browsers. Only tests import it.
package storetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Long is long in the long form of a test, with FILESTORE_LONG set, else short.
func Long[T any](short, long T) T {
	if os.Getenv("FILESTORE_LONG") != "" {
		return long
	}
	return short
}

// Quick returns Options without flushes, reaper and log, which most tests do not need.
func Quick() *filestore.Options {
	return &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)}
}

// Open opens a store until the end of the test, which then checks what every test must leave: files that
// decode, no temporary file, and 64 lock files. If opts is nil they are Quick's.
func Open(t testing.TB, dir string, opts *filestore.Options) *filestore.Store {
	t.Helper()
	if opts == nil {
		opts = Quick()
	}
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		check(t, dir, opts)
	})
	return s
}

func check(t testing.TB, dir string, opts *filestore.Options) {
	if _, err := os.Stat(dir); err != nil {
		return // the test has removed it
	}
	for _, name := range glob(t, dir, ".*~") {
		t.Errorf("a temporary file is left: %s", name)
	}
	if n := len(glob(t, filepath.Join(dir, ".locks"), "[0-9a-f][0-9a-f]")); n != 0 && n != 64 {
		t.Errorf("%d lock files, want 64", n)
	}
	s, err := filestore.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, err := range s.All(context.Background()) {
		if err != nil {
			t.Errorf("at the end: %v", err)
		}
	}
}

// Files returns the session files in dir.
func Files(t testing.TB, dir string) []string {
	t.Helper()
	return glob(t, dir, "*.json")
}

func glob(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var lastAccess = regexp.MustCompile(`"__lastAccess":(\d+)`)

// Age makes the last access of the session in file earlier by d. The file is another one then, as after a
// write of a store: see Store's cache.
func Age(t testing.TB, file string, d time.Duration) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := lastAccess.FindSubmatch(data)
	if m == nil {
		t.Fatalf("no session with a last access: %s", data)
	}
	ms, _ := strconv.ParseInt(string(m[1]), 10, 64)
	Write(t, file, lastAccess.ReplaceAll(data, fmt.Appendf(nil, `"__lastAccess":%d`, ms-d.Milliseconds())))
}

// Write replaces file by one with data.
func Write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

const workerVar = "FILESTORE_TEST_WORKER"

// Work is for TestMain: in a process that Start has started it runs the worker, and does not return.
func Work(workers map[string]func(args []string)) {
	if name := os.Getenv(workerVar); name != "" {
		workers[name](os.Args[1:])
		os.Exit(0)
	}
}

// A Process is the test binary as another process.
type Process struct {
	*exec.Cmd
	Stdin io.Writer // it is closed when the test binary ends, however that ends
	Lines *bufio.Scanner
}

// Start runs a worker until Kill, or the end of the test.
func Start(t testing.TB, worker string, args ...string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(os.Args[0], args...)}
	p.Env = append(os.Environ(), workerVar+"="+worker)
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.Stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Lines = bufio.NewScanner(out)
	t.Cleanup(p.Kill)
	return p
}

// Line returns the next line that the process prints.
func (p *Process) Line(t testing.TB) string {
	t.Helper()
	if !p.Lines.Scan() {
		t.Fatalf("the other process has ended: %v", p.Lines.Err())
	}
	return p.Lines.Text()
}

// Kill ends the process as kill -9 does.
func (p *Process) Kill() {
	p.Process.Kill()
	p.Wait()
}

// A Browser is a visitor of URL: it keeps cookies, and follows no redirects.
type Browser struct {
	t      testing.TB
	URL    string
	Client http.Client
}

// NewBrowser returns one without cookies.
func NewBrowser(t testing.TB, url string) *Browser {
	jar, _ := cookiejar.New(nil)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &Browser{t, url, http.Client{
		Jar: jar, Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do returns the answer to a GET, and fails the test if there is none.
func (b *Browser) Do(path string) (code int, body string) {
	b.t.Helper()
	res, err := b.Client.Get(b.URL + path)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body) // to its end: some frameworks store the session after the answer
	if err != nil {
		b.t.Errorf("GET %s: %v", path, err)
	}
	return res.StatusCode, string(text)
}

// Get is a GET whose answer must be 200.
func (b *Browser) Get(path string) (body string) {
	b.t.Helper()
	code, body := b.Do(path)
	if code != http.StatusOK {
		b.t.Errorf("GET %s = %d %q", path, code, body)
	}
	return body
}

// Want is a GET whose answer must be 200 and body.
func (b *Browser) Want(path, body string) {
	b.t.Helper()
	if code, got := b.Do(path); code != http.StatusOK || got != body {
		b.t.Errorf("GET %s = %d %q, want %q", path, code, got, body)
	}
}

func (b *Browser) site() *url.URL {
	u, err := url.Parse(b.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// Cookie returns the value of a cookie, "" if there is none.
func (b *Browser) Cookie(name string) string {
	for _, c := range b.Client.Jar.Cookies(b.site()) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// With returns another browser, which has only this cookie.
func (b *Browser) With(name, value string) *Browser {
	b.t.Helper()
	other := NewBrowser(b.t, b.URL)
	other.Client.Jar.SetCookies(b.site(), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
	return other
}

// Logged is what slog's default logger, and package log, have been told.
type Logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Log redirects slog's default logger, and package log, to the end of the test.
func Log(t testing.TB) *Logged {
	l, before, out, flags := new(Logged), slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	return l
}

func (l *Logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
