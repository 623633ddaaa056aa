package storetest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// A Server is a database server that a test has started, on loopback. It ends with the test.
type Server struct {
	Addr string // host:port
	Port string
	Dir  string // its data, of its own

	args []string
	env  *syscall.Credential // whose process it is; nil = the test's
	cmd  *exec.Cmd
	log  *Logged
}

const serverTimeout = 60 * time.Second

// Need skips the test if a program of a server is not installed; see skip.Test. It returns its path. Debian keeps
// some of them out of the PATH.
func Need(t testing.TB, programs ...string) (paths []string) {
	t.Helper()
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
			found2, _ := filepath.Glob("/usr/sbin/" + name)
			if found = append(found, found2...); len(found) == 0 {
				skip.Test(t, name+" is not installed")
			}
			path = found[len(found)-1]
		}
		paths = append(paths, path)
	}
	return paths
}

// StartServer starts the program and waits until it takes connections on the port. The program must stay in the
// foreground.
func StartServer(t testing.TB, dir, port string, as *syscall.Credential, program string, args ...string) *Server {
	t.Helper()
	s := &Server{Addr: "127.0.0.1:" + port, Port: port, Dir: dir, args: append([]string{program}, args...), env: as}
	t.Cleanup(s.Kill)
	s.Start(t)
	return s
}

// Start starts the server again, after Kill.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir = s.Dir
	s.log = new(Logged)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: s.env}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Since(began) > serverTimeout || onlyIn(s.cmd.Process.Pid, "Z") {
			t.Fatalf("%s takes no connections: %v\n%s", filepath.Base(s.args[0]), err, s.log)
		}
	}
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT)
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		s.cmd.Wait()
		s.cmd = nil
	}
}

// Hang stops the server, so that it answers nobody, until Continue.
func (s *Server) Hang() { halt(s.cmd.Process.Pid) }

// halt stops a process, and waits until all its threads have stopped: on a busy machine they go on for some time after
// the signal, and can still answer.
func halt(pid int) {
	syscall.Kill(pid, syscall.SIGSTOP)
	for began := time.Now(); !onlyIn(pid, "TZX") && time.Since(began) < serverTimeout; {
		time.Sleep(100 * time.Microsecond)
	}
}

// onlyIn reports whether all threads of a process are in one of these states; see proc_pid_stat(5).
func onlyIn(pid int, states string) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range stats {
		if stat := readStat(path); len(stat) > 0 && !strings.Contains(states, stat[0]) {
			return false
		}
	}
	return true
}

// readStat returns what follows a process's name in its stat: state, parent and so on. It is nil if the process is gone.
func readStat(path string) []string {
	stat, _ := os.ReadFile(path)
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// Continue lets the server go on.
func (s *Server) Continue() { syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT) }

// Eventually waits until is is true.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > serverTimeout {
			t.Fatalf("after %v it is not so that %s", serverTimeout, what)
		}
	}
}

// RunProgram runs a program of a server to its end and returns what it prints.
func RunProgram(t testing.TB, as *syscall.Credential, program string, args ...string) string {
	t.Helper()
	cmd := command(as, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out.String())
	}
	return out.String()
}

func command(as *syscall.Credential, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = os.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: as}
	return cmd
}
