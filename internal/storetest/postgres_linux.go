package storetest

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A PostgresServer is a PostgreSQL server that a test has started. Its superuser postgres has no password.
type PostgresServer struct{ *Server }

// Postgres starts a server with these lines in its configuration. It takes some seconds; see SharedPostgres.
func Postgres(t testing.TB, conf ...string) *PostgresServer {
	t.Helper()
	initdb := Need(t, "initdb", "postgres")[0]
	as, dir := postgresDir(t)
	RunProgram(t, as, initdb, "-D", filepath.Join(dir, "data"), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	return StartPostgres(t, as, dir, conf...)
}

// A Standby is a copy of p that follows it.
func (p *PostgresServer) Standby(t testing.TB, conf ...string) *PostgresServer {
	t.Helper()
	as, dir := postgresDir(t)
	RunProgram(t, as, Need(t, "pg_basebackup")[0], "-D", filepath.Join(dir, "data"), "-h", "127.0.0.1", "-p", p.Port, "-U", "postgres", "-R", "-c", "fast", "--no-sync")
	return StartPostgres(t, as, dir, conf...)
}

// StartPostgres starts a server on the data in dir, as that user.
func StartPostgres(t testing.TB, as *syscall.Credential, dir string, conf ...string) *PostgresServer {
	t.Helper()
	port := FreePort(t)
	args := []string{"-D", filepath.Join(dir, "data"), "-p", port, "-h", "127.0.0.1", "-k", dir}
	for _, c := range conf {
		args = append(args, "-c", c)
	}
	p := &PostgresServer{StartServer(t, dir, port, as, Need(t, "postgres")[0], args...)}
	t.Cleanup(p.end) // before StartServer's
	p.ready(t)
	return p
}

// postgresDir makes a directory for a server's data and socket. The server refuses to be root's process.
func postgresDir(t testing.TB) (*syscall.Credential, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg") // t.TempDir is a path that others may not enter, and too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Getuid() != 0 {
		return nil, dir
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, dir
}

// ready waits until the server has looked through its log, and lets users in: it takes connections before that.
func (p *PostgresServer) ready(t testing.TB) {
	t.Helper()
	isReady := Need(t, "pg_isready")[0]
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := command(nil, isReady, "-q", "-h", "127.0.0.1", "-p", p.Port).Run()
		if err == nil {
			return
		}
		if time.Since(began) > serverTimeout {
			t.Fatalf("PostgreSQL lets nobody in: %v\n%s", err, p.log)
		}
	}
}

// Start starts the server again, after Kill.
func (p *PostgresServer) Start(t testing.TB) {
	t.Helper()
	p.Server.Start(t)
	p.ready(t)
}

// URL returns the connection string of a database, "" = postgres.
func (p *PostgresServer) URL(database string) string {
	if database == "" {
		database = "postgres"
	}
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", p.Addr, database)
}

// children returns the server's processes but the first. Each has a group of its own.
func (p *PostgresServer) children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if stat := readStat(path); len(stat) > 1 && stat[1] == strconv.Itoa(p.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// end ends the server in a way that leaves no shared memory behind: the system has few segments for all tests.
func (p *PostgresServer) end() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.Continue()
	p.cmd.Process.Signal(syscall.SIGQUIT)
	for began := time.Now(); !onlyIn(p.cmd.Process.Pid, "ZX") && time.Since(began) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	p.Kill()
}

// Kill ends all of the server's processes at once, as a crash does.
func (p *PostgresServer) Kill() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.Hang() // so that none learns of the others' end
	children := p.children()
	for _, child := range children {
		syscall.Kill(child, syscall.SIGKILL)
	}
	p.Server.Kill()
	for _, child := range children { // another server on the data waits for them
		for range 1000 {
			if syscall.Kill(child, 0) != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Hang stops the server, so that it answers nobody, until Continue.
func (p *PostgresServer) Hang() {
	halt(p.cmd.Process.Pid) // first, so that there are no new ones
	for _, child := range p.children() {
		halt(child)
	}
}

// Continue lets the server go on.
func (p *PostgresServer) Continue() {
	for _, pid := range append(p.children(), p.cmd.Process.Pid) {
		syscall.Kill(pid, syscall.SIGCONT)
	}
}

// SharedPostgres returns a server that all tests of a package share, until Main ends it. They must not stop it.
var SharedPostgres = share(func(t testing.TB) *PostgresServer { return Postgres(t, "fsync=off", "max_connections=300") })
