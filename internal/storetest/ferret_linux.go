package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// A MongoServer is FerretDB, which speaks MongoDB's protocol, behind a proxy that passes one message and its answer at
// a time. MongoDB changes a document in one step; FerretDB 1 does so only if nobody else asks it meanwhile.
type MongoServer struct {
	*Server
	URI string // of the proxy

	mu   sync.Mutex // held until a message has its answer
	lose func(command string) (before, after bool)
	skew time.Duration
}

// Mongo starts a MongoServer without data. It skips the test if FerretDB cannot be built, for want of the network; see
// skip.Test.
func Mongo(t testing.TB) *MongoServer {
	t.Helper()
	program, err := ferret()
	if err != nil {
		skip.Test(t, err.Error())
	}
	dir, port := t.TempDir(), FreePort(t)
	m := &MongoServer{Server: StartServer(t, dir, port, nil, fmt.Sprint("/proc/self/fd/", program.Fd()), "127.0.0.1:"+port, dir)}
	m.URI = "mongodb://" + newProxy(t, m.serve).To(m.Addr) + "/?directConnection=true"
	return m
}

// Lose lets fn decide for each command, by its name, whether the connection breaks before the server gets it, or when
// the server has answered. nil = neither.
func (m *MongoServer) Lose(fn func(command string) (before, after bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose = fn
}

// Skew makes the server's clock seem to be ahead by d, in the answers of hello.
func (m *MongoServer) Skew(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skew = d
}

// ferret builds the server once for all tests of the process. The file has no name any more, so that nothing is left
// when the process ends, however it ends.
var ferret = sync.OnceValues(func() (*os.File, error) {
	_, file, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "ferret-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "ferret")
	out, err := Download(context.Background(), func() *exec.Cmd {
		cmd := exec.Command("go", "build", "-tags", "ferretdb_no_postgresql,ferretdb_no_mysql,ferretdb_no_hana", "-o", program, ".")
		cmd.Dir = filepath.Join(filepath.Dir(file), "..", "..", "backend", "mongostore", "ferret")
		cmd.Env = append(os.Environ(), "GOWORK=off")
		return cmd
	})
	if err != nil {
		return nil, fmt.Errorf("FerretDB cannot be built: %w\n%s", err, bytes.TrimSpace(out))
	}
	return os.Open(program)
})

// serve passes the messages of one client, until a connection breaks.
func (m *MongoServer) serve(client, server net.Conn) {
	for {
		message, err := readMessage(client)
		if err != nil || !m.pass(server, client, message) {
			return
		}
	}
}

func (m *MongoServer) pass(server, client net.Conn, message []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, after := false, false
	if m.lose != nil {
		before, after = m.lose(commandOf(message))
	}
	if before {
		return false
	}
	if _, err := server.Write(message); err != nil {
		return false
	}
	answer, err := readMessage(server)
	if err != nil || after {
		return false
	}
	name := []byte("\x09localTime\x00") // a Date, whose milliseconds follow
	if i := bytes.Index(answer, name); i >= 0 && commandOf(message) == "hello" {
		ms := answer[i+len(name):]
		binary.LittleEndian.PutUint64(ms, binary.LittleEndian.Uint64(ms)+uint64(m.skew.Milliseconds()))
	}
	_, err = client.Write(answer)
	return err == nil
}

// readMessage reads a message, whose first four bytes are its length.
func readMessage(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if n < 16 || n > 64<<20 {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := append(head, make([]byte, n-4)...)
	_, err := io.ReadFull(r, message[4:])
	return message, err
}

// command returns the name of the command in an OP_MSG: that of the first member of the document in its first section.
func commandOf(message []byte) string {
	const opMsg, first = 2013, 16 + 4 + 1 + 4 + 1
	if len(message) < first || binary.LittleEndian.Uint32(message[12:]) != opMsg {
		return ""
	}
	name, _, _ := bytes.Cut(message[first:], []byte{0})
	return string(name)
}
