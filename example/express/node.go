package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"
)

// This file starts and ends the Express side.

// A child is the Express side, a process that ends with this one.
type child struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // is closed when it has ended; then cmd.ProcessState says how
}

const (
	startTimeout = time.Minute      // of node on a machine that is busy
	stopTimeout  = 10 * time.Second // longer than app.js waits for its requests
)

// folder is where app.js is: beside this file.
func folder() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Dir(file)
	if _, err := os.Stat(filepath.Join(dir, "app.js")); err != nil {
		return "", errors.New("app.js is not where this program was built: start it with go run ./example/express")
	}
	return dir, nil
}

const noNode = `%s is not installed, and the Express side needs it. Get Node from https://nodejs.org, or with
	apt install nodejs npm        (Debian, Ubuntu)
	brew install node             (macOS)
	winget install OpenJS.NodeJS  (Windows)
or start the Go side alone: go run ./example/express -express ""`

// startExpress starts app.js with args, and waits until it listens. It installs first what app.js needs.
func startExpress(ctx context.Context, args ...string) (*child, error) {
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf(noNode, "node")
	}
	if err := install(ctx, dir); err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(node, append([]string{filepath.Join(dir, "app.js")}, args...)...), ended: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe() // app.js ends when this pipe does, also if this process is killed
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		first, _ := r.ReadString('\n')
		line <- first
		io.Copy(os.Stdout, r)
		c.cmd.Wait() // ProcessState tells more than its error
		close(c.ended)
	}()
	select {
	case first := <-line:
		if c.url = regexp.MustCompile(`http://\S+`).FindString(first); c.url == "" {
			c.stop()
			return nil, errors.New("app.js does not start: see above")
		}
		return c, nil
	case <-ctx.Done():
		c.stop()
		return nil, ctx.Err()
	case <-time.After(startTimeout):
		c.stop()
		return nil, errors.New("app.js does not start")
	}
}

// stop ends the process, and waits for it.
func (c *child) stop() {
	c.stdin.Close()
	kill := time.AfterFunc(stopTimeout, func() { c.cmd.Process.Kill() })
	defer kill.Stop()
	<-c.ended
}

// install lets npm install what package-lock.json says, unless it is there.
func install(ctx context.Context, dir string) error {
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	// npm writes this file last.
	if last, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err == nil && !last.ModTime().Before(lock.ModTime()) {
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf(noNode, "npm")
	}
	fmt.Fprintf(os.Stderr, "npm ci: installing Express in %s, once …\n", filepath.Join(dir, "node_modules"))
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	cmd.WaitDelay = stopTimeout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm ci in %s: %w", dir, err)
	}
	return nil
}
