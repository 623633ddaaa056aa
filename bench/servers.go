package main

import (
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
	"sync"
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

// command returns the command as that user, nil = this one, in the directory dir.
func command(dir string, as *syscall.Credential, args ...string) (*exec.Cmd, error) {
	path, err := program(args[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	return cmd, nil
}

// setUp runs a program that makes a server's data.
func setUp(dir string, as *syscall.Credential, args ...string) error {
	cmd, err := command(dir, as, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	return nil
}

// startServer starts a server, which must stay in the foreground, and waits until ping succeeds. It ends in good order
// by the signal end, when the program does.
func startServer(ping func() error, end syscall.Signal, dir string, as *syscall.Credential, args ...string) error {
	cmd, err := command(dir, as, args...)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C is for this program, which then ends the server
	cmd.SysProcAttr.Pdeathsig = end
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	atExit(sync.OnceFunc(func() {
		cmd.Process.Signal(end)
		select {
		case <-ended:
		case <-time.After(stopTime):
			cmd.Process.Kill()
			<-ended
		}
	}))
	for from := time.Now(); ; {
		err := ping()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s has ended: %s", args[0], cmd.ProcessState)
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

// serverDir makes a directory for a server's data. Of root's processes PostgreSQL refuses to be one: it gets another
// user's name, and the directory.
func serverDir(owner string) (dir string, as *syscall.Credential, err error) {
	if dir, err = os.MkdirTemp(*dirFlag, "filestore-bench-"); err != nil {
		return "", nil, err
	}
	atExit(func() { os.RemoveAll(dir) })
	if owner == "" || os.Getuid() != 0 {
		return dir, nil, nil
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return "", nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	err = cmp.Or(errors.Join(err1, err2), os.Chown(dir, int(uid), int(gid)))
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
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
