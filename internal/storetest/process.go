package storetest

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Main is for TestMain. It runs the tests without the log of slog, and fails if goroutines or descriptors
// outlive them. In a process that Start has started it runs the worker instead.
func Main(m *testing.M, workers map[string]func(args []string)) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	Work(workers)
	goroutines, files := runtime.NumGoroutine(), OpenFiles()
	code := m.Run()
	for _, fn := range slices.Backward(atEnd) {
		fn()
	}
	http.DefaultClient.CloseIdleConnections()
	if code == 0 && !slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") }) {
		if err := leaks(goroutines, files); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// atEnd is what Main calls, the last one first, when the tests have ended.
var (
	atEnd   []func()
	atEndMu sync.Mutex
)

// Lasting returns t for what other tests use too, such as a server: its Cleanup and the end of its TempDir wait for the
// end of Main.
func Lasting(t testing.TB) testing.TB { return lasting{t} }

type lasting struct{ testing.TB }

func (lasting) Cleanup(fn func()) {
	atEndMu.Lock()
	defer atEndMu.Unlock()
	atEnd = append(atEnd, fn)
}

// Logf does not log: at the end of Main the test is over.
func (lasting) Logf(string, ...any) {}

func (l lasting) TempDir() string {
	dir, err := os.MkdirTemp("", "lasting-")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// leaks returns an error if more goroutines or descriptors than these stay.
func leaks(goroutines, files int) error {
	var err error
	for range 500 {
		err = nil
		if n := runtime.NumGoroutine(); n > goroutines {
			buf := make([]byte, 1<<20)
			err = fmt.Errorf("%d goroutines at the end, %d at the start\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
		}
		if n := OpenFiles(); err == nil && n > files+2 { // the runtime's poller
			err = fmt.Errorf("%d open files at the end, %d at the start", n, files)
		}
		if err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// OpenFiles returns the number of open descriptors, or 0 on a system without /proc.
func OpenFiles() int {
	if runtime.GOOS == "windows" { // Wine has its host's /proc
		return 0
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// WorkerVar is the environment variable that names the worker of a process.
const WorkerVar = "FILESTORE_TEST_WORKER"

// Work is for a TestMain that does not call Main. In a process that Start has started it runs the worker and
// does not return.
func Work(workers map[string]func(args []string)) {
	if name := os.Getenv(WorkerVar); name != "" {
		workers[name](os.Args[1:])
		os.Exit(0)
	}
}

// A Process is the test binary as another process.
type Process struct {
	*exec.Cmd
	Stdin io.WriteCloser // it is closed when the test binary ends, however that ends
	Out   *bufio.Reader  // the standard output
}

// Start runs a worker until Kill, or the end of the test.
func Start(t testing.TB, worker string, args ...string) *Process {
	t.Helper()
	return Run(t, Command(worker, args...))
}

// Command returns the command that runs a worker.
func Command(worker string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), WorkerVar+"="+worker)
	cmd.Stderr = os.Stderr
	return cmd
}

// Run is Start for any command.
func Run(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd}
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
	p.Out = bufio.NewReader(out)
	t.Cleanup(p.Kill)
	return p
}

// Line returns the next line that the process prints.
func (p *Process) Line(t testing.TB) string {
	t.Helper()
	line, err := p.Out.ReadString('\n')
	if err != nil {
		t.Fatalf("the other process has ended: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// Kill ends the process as kill -9 does.
func (p *Process) Kill() {
	p.Process.Kill()
	p.Wait()
}
