// Package interop compares this module with express-session and session-file-store, the npm packages whose
// formats it shares. A real Node runs them, in the versions that package.json pins.
//
// Only tests import it. It exports helpers for the tests of other folders that also run Node.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Every wait has a bound, so that a Node that hangs fails its test and does not stop the run.
const (
	installTimeout = 5 * time.Minute
	callTimeout    = 20 * time.Second
	exitTimeout    = 20 * time.Second
)

// NPM makes sure that dir/node_modules holds the packages of dir/package-lock.json. It skips the test if
// node or npm is not installed, and on Windows; see package skip.
func NPM(tb testing.TB, dir string) {
	tb.Helper()
	if runtime.GOOS == "windows" {
		skip.Test(tb, "NOT COMPARED WITH NODE: this was never tried on Windows")
	}
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			skip.Test(tb, "NOT COMPARED WITH NODE: "+name+" is not installed")
		}
	}
	if err := install(dir); err != nil {
		tb.Fatal(err)
	}
}

func install(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if installed(dir) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	// go test runs the tests of two packages at once, and npm ci begins by deleting node_modules. The lock
	// file is outside of dir, where nobody commits it.
	l := flock.New(filepath.Join(os.TempDir(), fmt.Sprintf("filestore-npm-%x.lock", sha256.Sum224([]byte(dir)))))
	if _, err := l.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return fmt.Errorf("waiting for another npm ci in %s: %w", dir, err)
	}
	defer l.Unlock()
	if installed(dir) {
		return nil
	}
	out, err := storetest.Download(ctx, func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
		cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
		return cmd
	})
	if err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", dir, err, out)
	}
	return nil
}

// installed looks at the file in node_modules that npm writes last.
func installed(dir string) bool {
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return false
	}
	last, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	return err == nil && !last.ModTime().Before(lock.ModTime())
}

// A Node is a child process that answers requests, which are JSON lines {id, op, args}, with JSON lines {id,
// result} or {id, error}. See driver.js.
type Node struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr lockedBuffer
	exited chan struct{} // closed when stdout has ended

	mu      sync.Mutex // guards the fields below, and writes to stdin
	last    int
	waiting map[int]chan reply
}

type reply struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *NodeError      `json:"error"`
}

// A NodeError is an error that a call in Node threw or passed to its callback.
type NodeError struct {
	Name    string `json:"name"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *NodeError) Error() string { return "node: " + e.Name + ": " + e.Message }

// StartNode starts node with args in the working directory dir and kills it
// when the test ends. Call NPM first.
func StartNode(tb testing.TB, dir string, args ...string) *Node {
	tb.Helper()
	n := &Node{waiting: make(map[int]chan reply), exited: make(chan struct{})}
	n.cmd = exec.Command("node", args...)
	n.cmd.Dir = dir
	n.cmd.Env = append(os.Environ(), "NODE_ENV=test") // Express then prints no stack traces
	n.cmd.Stderr = &n.stderr
	stdin, err := n.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	n.stdin = stdin
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go n.read(stdout)
	tb.Cleanup(func() {
		n.stdin.Close() // the driver exits by itself, unless it hangs
		select {
		case <-n.exited:
		case <-time.After(exitTimeout):
			n.cmd.Process.Kill()
			<-n.exited
		}
		n.cmd.Wait()
		if text := n.stderr.String(); text != "" {
			tb.Logf("node's stderr:\n%s", text)
		}
	})
	return n
}

func (n *Node) read(stdout io.Reader) {
	defer close(n.exited)
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		var r reply
		if json.Unmarshal(line, &r) == nil {
			n.mu.Lock()
			if c, ok := n.waiting[r.ID]; ok {
				delete(n.waiting, r.ID)
				c <- r
			}
			n.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Call performs op and stores its result in result, unless that is nil. An error in JavaScript is a
// *NodeError. Call is safe for concurrent use.
func (n *Node) Call(op string, args, result any) error {
	c := make(chan reply, 1)
	n.mu.Lock()
	n.last++
	id := n.last
	n.waiting[id] = c
	line, err := json.Marshal(map[string]any{"id": id, "op": op, "args": args})
	if err == nil {
		_, err = n.stdin.Write(append(line, '\n'))
	}
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("node %s: %w", op, err)
	}
	select {
	case r := <-c:
		if r.Error != nil {
			return r.Error
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.Result, result)
	case <-n.exited:
		return fmt.Errorf("node %s: the process has died", op)
	case <-time.After(callTimeout):
		return fmt.Errorf("node %s: no answer in %v", op, callTimeout)
	}
}

// IsCode reports whether err is an error in Node with that code, such as "ENOENT". If the error does not
// have a code, its name counts, such as "SyntaxError".
func IsCode(err error, code string) bool {
	var e *NodeError
	return errors.As(err, &e) && (e.Code == code || e.Code == "" && e.Name == code)
}

// A lockedBuffer can be read while the process still writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
