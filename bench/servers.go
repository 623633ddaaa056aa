package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	startTime = time.Minute // for a server to answer
	stopTime  = 20 * time.Second
)

// program returns the path of a server's program. Debian keeps some out of the PATH.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, errNotHere)
}

var errNotHere = errors.New("not on this machine")

// A process is one that the program has started. It ends with it.
type process struct {
	cmd   *exec.Cmd
	out   bytes.Buffer
	ended chan struct{}
}

// start starts a program as that user, nil = this one, in the directory dir. When this program ends, the signal end
// lets that one end, too.
func start(dir string, as *syscall.Credential, end syscall.Signal, args ...string) (*process, error) {
	path, err := program(args[0])
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(path, args[1:]...), ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// Its own group, since a Ctrl-C is for this program, which then ends the others in turn.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: end}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.cmd.Wait(); close(p.ended) }()
	atExit(func() { p.stop(end) })
	return p, nil
}

func (p *process) stop(by syscall.Signal) {
	select {
	case <-p.ended:
		return
	default:
	}
	syscall.Kill(-p.cmd.Process.Pid, by)
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// failed returns the error of a process that has ended.
func (p *process) failed() error {
	return fmt.Errorf("%s: %s: %s", p.cmd.Path, p.cmd.ProcessState, &p.out)
}

// setUp runs a program that makes a server's data.
func setUp(dir string, as *syscall.Credential, args ...string) error {
	p, err := start(dir, as, syscall.SIGKILL, args...)
	if err != nil {
		return err
	}
	if <-p.ended; !p.cmd.ProcessState.Success() {
		return p.failed()
	}
	return nil
}

// startServer starts a server, which must stay in the foreground, and waits until ping succeeds. The signal end lets it
// end in good order.
func startServer(ping func() error, end syscall.Signal, dir string, as *syscall.Credential, args ...string) error {
	p, err := start(dir, as, end, args...)
	if err != nil {
		return err
	}
	for from := time.Now(); ; {
		err := ping()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.failed()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(from) > startTime {
			return fmt.Errorf("%s does not answer: %w", args[0], err)
		}
	}
}

// freePort returns a port of loopback that nobody has.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// give lets the user owner have dir if this is a process of root, and returns that user. PostgreSQL refuses to be root's.
func give(dir, owner string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	err = cmp.Or(errors.Join(err1, err2), os.Chown(dir, int(uid), int(gid)))
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// startRedis starts a redis-server with these options, and returns its port.
func startRedis(dir string, options ...string) (port int, err error) {
	if port, err = freePort(); err != nil {
		return 0, err
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", port)})
	defer client.Close()
	return port, startServer(func() error { return client.Ping(context.Background()).Err() }, syscall.SIGTERM, dir, nil,
		append([]string{"redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", ""}, options...)...)
}
