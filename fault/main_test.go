//go:build linux

package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var ctx = context.Background()

// Other processes are this test binary again: see storetest.Start. Their first argument is the directory of
// the store.
var workers = map[string]func(args []string){"serve": serve}

// TestMain does not look for leaks, as storetest.Main does: go-fuse keeps pipes open.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	storetest.Work(workers)
	os.Exit(m.Run())
}

func dice(t testing.TB) *rand.Rand {
	seed, err := strconv.ParseUint(os.Getenv("FILESTORE_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("FILESTORE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// need skips a test and says what is missing; see skip.Test.
func need(t testing.TB, what ...string) {
	t.Helper()
	for _, name := range what {
		_, err := exec.LookPath(name)
		if name == "root" {
			err = nil
			if os.Geteuid() != 0 {
				err = errors.New("not root")
			}
		}
		if strings.HasPrefix(name, "/") {
			_, err = os.Stat(name)
		}
		if err != nil {
			skip.Test(t, err.Error())
		}
	}
}

// A value is the contents of a session in these tests. It shows whether it is whole.
type value struct {
	N   int    `json:"n"` // 0: no session
	Pad string `json:"pad"`
}

func newValue(n, size int) value {
	return value{n, strings.Repeat(string(rune('a'+n%26)), size)}
}

func put(sess *filestore.Session, v value) error {
	return errors.Join(sess.Put("n", v.N), sess.Put("size", len(v.Pad)), sess.Put("pad", v.Pad))
}

// read returns the n of the session id, or 0 if there is not a session. It fails if the value is not whole.
func read(s *filestore.Store, id string) (n int, err error) {
	sess, err := s.Get(ctx, id)
	if errors.Is(err, filestore.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err = filestore.Value[int](sess, "n")
	size, sizeErr := filestore.Value[int](sess, "size")
	pad, padErr := filestore.Value[string](sess, "pad")
	if err := errors.Join(err, sizeErr, padErr); err != nil {
		return 0, err
	}
	if pad != newValue(n, size).Pad {
		return 0, fmt.Errorf("a third possibility: n %d, size %d, pad of %d", n, size, len(pad))
	}
	return n, nil
}

// An ask is an operation for a serving worker. A reply is its outcome.
type ask struct {
	Op, ID  string
	N, Size int
	Options filestore.Options // for open
	Of      string            // the operation of starve
	Age     time.Duration     // the cookie's maxAge, unless 0
}

type reply struct {
	N    int
	Err  string
	Kind string // the text of the sentinel or system error in Err
}

// serve does the operations that it is asked for, on one store after another.
func serve(args []string) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var s *filestore.Store
	for {
		var a ask
		if in.Decode(&a) != nil {
			return
		}
		var r reply
		var err error
		switch a.Op {
		case "open": // ID is a directory in dir
			o := a.Options
			o.ReapInterval = -1
			s, err = filestore.Open(args[0]+"/"+a.ID, &o)
		case "close":
			err = s.Close()
		case "starve":
			r.N, err = starve(s, a)
		case "watch":
			for _, err = range s.Watch(ctx) {
				break
			}
		default:
			r.N, err = operate(s, a)
		}
		if err != nil {
			r.Err, r.Kind = err.Error(), kind(err)
		}
		out.Encode(r)
	}
}

// operate does one operation on s.
func operate(s *filestore.Store, a ask) (n int, err error) {
	v := newValue(a.N, a.Size)
	switch a.Op {
	case "get":
		return read(s, a.ID)
	case "set", "create":
		sess := new(filestore.Session)
		if err := put(sess, v); err != nil {
			return 0, err
		}
		if a.Age != 0 {
			sess.Cookie = filestore.Cookie{OriginalMaxAge: a.Age, HTTPOnly: true, Path: "/"}
		}
		if a.Op == "create" {
			return 0, s.Create(ctx, a.ID, sess)
		}
		return 0, s.Set(ctx, a.ID, sess)
	case "update":
		return 0, s.Update(ctx, a.ID, func(sess *filestore.Session) error { return put(sess, v) })
	case "increment":
		return 0, s.Update(ctx, a.ID, func(sess *filestore.Session) error {
			n, err := filestore.Value[int](sess, "n")
			return errors.Join(err, put(sess, newValue(n+1, 0)))
		})
	case "touch":
		return 0, s.Touch(ctx, a.ID, nil)
	case "destroy":
		return 0, s.Destroy(ctx, a.ID)
	case "reap":
		return s.Reap(ctx)
	case "len":
		return s.Len(ctx)
	case "clear":
		return 0, s.Clear(ctx)
	}
	return 0, errors.New("no such operation")
}

// kind names the error that a caller could act on.
func kind(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	for _, e := range []error{filestore.ErrLockTimeout, filestore.ErrExpired, filestore.ErrInvalidID, filestore.ErrNotFound,
		filestore.ErrCorrupt, filestore.ErrTooLarge, filestore.ErrUnsafeFile, filestore.ErrClosed} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return ""
}

// A server is a serving worker.
type server struct {
	*storetest.Process
	in  *json.Encoder
	out *json.Decoder
}

// newServer starts a serving worker, as the last arguments of the command before, if any.
func newServer(t testing.TB, dir string, before ...string) *server {
	t.Helper()
	p := storetest.Run(t, behind(before, storetest.Command("serve", dir)))
	return &server{p, json.NewEncoder(p.Stdin), json.NewDecoder(p.Out)}
}

// behind returns the command before with cmd as its last arguments.
func behind(before []string, cmd *exec.Cmd) *exec.Cmd {
	if len(before) == 0 {
		return cmd
	}
	all := exec.Command(before[0], slices.Concat(before[1:], cmd.Args)...)
	all.Env, all.Stderr = cmd.Env, cmd.Stderr
	return all
}

// begin asks, and does not wait for the reply, which end returns.
func (s *server) begin(t testing.TB, a ask) {
	t.Helper()
	if err := s.in.Encode(a); err != nil {
		t.Fatal(err)
	}
}

func (s *server) end(t testing.TB) (r reply) {
	t.Helper()
	if err := s.out.Decode(&r); err != nil {
		t.Fatalf("the worker is gone: %v", err)
	}
	return r
}

func (s *server) do(t testing.TB, a ask) reply {
	t.Helper()
	s.begin(t, a)
	return s.end(t)
}

// must is do for an operation that must succeed.
func (s *server) must(t testing.TB, a ask) reply {
	t.Helper()
	r := s.do(t, a)
	if r.Err != "" {
		t.Fatalf("%s %s: %s", a.Op, a.ID, r.Err)
	}
	return r
}
