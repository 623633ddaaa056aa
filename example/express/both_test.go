package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/interop"
	"github.com/sessionfilestore/filestore/internal/skip"
)

// This file tests the program that starts both sides.

// A pair is that program.
type pair struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer // read them after Wait only
	goes, express  *process     // without a cmd
}

// startPair starts both sides, and waits until both are there.
func startPair(t *testing.T, at place) *pair {
	t.Helper()
	interop.NPM(t, ".")
	p := &pair{Cmd: exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-express", "127.0.0.1:0", "-dir", at.dir)}
	p.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=")
	said := make(chan []string, 1)
	p.Stdout = writer(func(b []byte) (int, error) {
		p.stdout.Write(b)
		if urls := listening.FindAllString(p.stdout.String(), -1); len(urls) == 3 {
			said <- urls
		}
		return len(b), nil
	})
	p.Stderr = &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait() // fails if the test has waited
	})
	select {
	case urls := <-said:
		if urls[0] != urls[2] {
			t.Fatalf("the program says %q", urls)
		}
		p.goes, p.express = &process{name: "Go", url: urls[0]}, &process{name: "Express", url: urls[1]}
	case <-time.After(timeout):
		p.Process.Kill()
		p.Wait()
		t.Fatalf("the program says %s%s", p.stdout.Bytes(), p.stderr.Bytes())
	}
	return p
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// gone waits until nobody listens on either side.
func (p *pair) gone(t *testing.T) {
	t.Helper()
	for _, side := range []*process{p.goes, p.express} {
		for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
			resp, err := http.Get(side.url + "/style.css")
			if err != nil {
				break
			}
			resp.Body.Close()
			if time.Now().After(end) {
				t.Fatalf("%s still listens", side.name)
			}
		}
	}
}

// One page has both sides in frames, and the file between them; each side allows that page to frame it, and nobody else.
func TestBothOnOnePage(t *testing.T) {
	p := startPair(t, place{dir: filepath.Join(t.TempDir(), "sessions")})
	b := newBrowser(t)
	body := b.get(p.goes, "/")
	for _, want := range []string{`<iframe src="/column"`, `<iframe src="` + p.express.url + `/column"`, "Nothing is kept about you."} {
		if !strings.Contains(body, want) {
			t.Errorf("the page has no %s:\n%s", want, body)
		}
	}
	if c := b.cookie(p.goes); c != "" {
		t.Errorf("a look sets the cookie %q", c)
	}
	b.login(p.express, "mypassword")
	if n := b.visit(p.goes); n != 1 {
		t.Errorf("the number is %d", n)
	}
	body = b.get(p.goes, "/")
	if id := b.id(p.goes); !strings.Contains(body, id[:8]) || strings.Contains(body, id) || !strings.Contains(body, "&#34;user1&#34;") {
		t.Errorf("the page does not show the session of Express's login, or shows its whole id:\n%s", body)
	}
	for _, want := range []struct{ url, policy string }{
		{p.goes.url, "frame-ancestors 'none'; frame-src 'self' " + p.express.url}, {p.goes.url + "/column", "frame-ancestors 'self'"}, {p.express.url + "/column", "frame-ancestors " + p.goes.url},
	} {
		resp, err := b.Get(want.url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Content-Security-Policy"); !strings.HasSuffix(got, want.policy) || strings.Contains(got, "unsafe") {
			t.Errorf("%s: the policy is %q, want %q at its end", want.url, got, want.policy)
		}
	}
	// By another name of this host the frames would have another cookie.
	other := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := other.Get(strings.Replace(p.goes.url, "127.0.0.1", "localhost", 1))
	if err == nil { // it may have no such name
		resp.Body.Close()
		if got := resp.Header.Get("Location"); got != p.goes.url {
			t.Errorf("by another name there is a redirect to %q", got)
		}
	}
}

// However the program ends, no Node stays behind.
func TestNoOrphan(t *testing.T) {
	for name, test := range map[string]struct {
		end func(*pair) error
		ok  bool
	}{
		"interrupt": {func(p *pair) error { return p.Process.Signal(os.Interrupt) }, true},
		"kill":      {func(p *pair) error { return p.Process.Kill() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPair(t, place{dir: filepath.Join(t.TempDir(), "sessions")})
			if err := test.end(p); err != nil {
				skip.Test(t, err.Error())
			}
			if err := p.Wait(); (err == nil) != test.ok {
				t.Errorf("the program ends with %v\n%s", err, p.stderr.Bytes())
			}
			p.gone(t)
		})
	}
}

// A child that does not start is an error, and one that ends says so.
func TestChild(t *testing.T) {
	interop.NPM(t, ".")
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "sessions")
	t.Setenv("SESSION_SECRET", "a secret of the tests")
	if c, err := startExpress(ctx, "--addr", "127.0.0.1:0", "--dir", dir, "--store", "nothing://"); err == nil {
		c.stop()
		t.Error("a store that there is not is taken")
	}
	c, err := startExpress(ctx, "--addr", "127.0.0.1:0", "--dir", dir, "--beside", "http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Process.Kill()
	select {
	case <-c.ended:
	case <-time.After(timeout):
		t.Error("nobody is told that it has ended")
	}
	c.stop() // again does no harm
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if c, err := startExpress(ctx, "--addr", "127.0.0.1:0", "--dir", dir, "--beside", "http://127.0.0.1:1"); err == nil {
		c.stop()
		t.Error("a program that has been told to end starts a child")
	}
}

// If the port of Express is taken, the program says so in a line, and ends.
func TestPortTaken(t *testing.T) {
	interop.NPM(t, ".")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-express", ln.Addr().String(), "-dir", filepath.Join(t.TempDir(), "sessions"))
	cmd.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("EADDRINUSE")) || bytes.Count(out, []byte("\n")) != 2 {
		t.Errorf("the program ends with %v\n%s", err, out)
	}
}

// Without Node the program says what to do.
func TestWithoutNode(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-dir", filepath.Join(t.TempDir(), "sessions"))
	cmd.Env = append(os.Environ(), serveEnv+"=1", "SESSION_SECRET=", "PATH="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("https://nodejs.org")) || !bytes.Contains(out, []byte(`-express ""`)) {
		t.Errorf("the program ends with %v\n%s", err, out)
	}
}

// install lets npm work once, and says so. The npm of this test only says that it was there.
func TestInstall(t *testing.T) {
	if os.PathSeparator != '/' {
		skip.Test(t, "a script for npm")
	}
	bin, dir := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" = ci ] && mkdir -p node_modules && echo >>node_modules/.package-lock.json\n"
	for path, text := range map[string]string{filepath.Join(bin, "npm"): script, filepath.Join(dir, "package-lock.json"): "{}"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for range 2 {
		if err := install(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil || string(text) != "\n" {
		t.Errorf("npm has run %d times, %v", len(text), err)
	}
	t.Setenv("PATH", t.TempDir())
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "package-lock.json"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := install(context.Background(), dir); err == nil || !strings.Contains(err.Error(), "npm is not installed") {
		t.Errorf("without npm: %v", err)
	}
}

// The README's command and addresses are the program's.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("\ngo run ./example/express\n")) {
		t.Error("the README does not say how to start")
	}
	for _, addr := range regexp.MustCompile(`127\.0\.0\.1:80\d\d`).FindAll(text, -1) {
		if !bytes.Contains(source, append([]byte{'"'}, addr...)) {
			t.Errorf("the program has no address %s", addr)
		}
	}
	for _, flag := range regexp.MustCompile("`-([a-z]+)").FindAllSubmatch(text, -1) {
		if !bytes.Contains(source, append(append([]byte(`("`), flag[1]...), '"')) {
			t.Errorf("the program has no flag -%s", flag[1])
		}
	}
}
