package fault

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// An injection makes one system call of an operation fail, or kills the process there.
type injection struct {
	call  string
	nth   int    // of that name, in the worker's main thread
	what  string // an errno's name, or KILL
	twice bool   // each later unlinkat, which cleans up, fails too
}

func (i injection) String() string {
	s := fmt.Sprintf("%s %d %s", i.call, i.nth, i.what)
	if i.twice {
		s += ", then unlinkat"
	}
	return s
}

func (i injection) args() []string {
	what := "error=" + i.what
	if i.what == "KILL" {
		what = "signal=SIGKILL"
	}
	args := []string{"-e", fmt.Sprintf("inject=%s:%s:when=%d", i.call, what, i.nth)}
	if i.twice {
		args = append(args, "-e", "inject=unlinkat:error=EIO:when=1+")
	}
	return args
}

// One of stride injections is tried.
var stride = 1

// sweeps are the operations, with the value of the session before and after. 0 means that there is not a
// session.
var sweeps = []struct {
	name, op string
	options  filestore.Options
	old, new int
	ordered  bool // on a file system where one flush is enough, see disk.Dir.Ordered
}{
	{"Get", "get", filestore.Options{}, 1, 1, false},
	{"Set new", "set", filestore.Options{}, 0, 2, false},
	{"Set over", "set", filestore.Options{}, 1, 2, false},
	{"Set over, one flush", "set", filestore.Options{}, 1, 2, true},
	{"Set over, NoSync", "set", filestore.Options{NoSync: true}, 1, 2, false},
	{"Create", "create", filestore.Options{}, 0, 2, false},
	{"Update", "update", filestore.Options{}, 1, 2, false},
	{"Touch", "touch", filestore.Options{TouchAfter: -1}, 1, 1, false},
	{"Touch, one flush", "touch", filestore.Options{TouchAfter: -1}, 1, 1, true},
	{"Destroy", "destroy", filestore.Options{}, 1, 0, false},
	{"Reap", "reap", filestore.Options{TTL: -1}, 1, 0, false},
	{"Open", "open", filestore.Options{}, 1, 1, false},
	{"Open new", "open", filestore.Options{}, 0, 0, false},
}

// interruptible are the calls that a signal can interrupt. The others do not wait.
var interruptible = map[string]bool{"openat": true, "read": true, "write": true, "fsync": true, "sync_file_range": true, "flock": true,
	"renameat": true, "renameat2": true, "unlinkat": true, "ftruncate": true}

// calls are the calls that are made to fail: all that a store uses, except futex, which cannot fail, and
// those of the runtime.
const calls = "openat,close,read,write,fstat,newfstatat,statfs,fstatfs,fchown,fchownat,fchmod,fchmodat,utimensat,fsync,sync_file_range,ftruncate," +
	"renameat,renameat2,unlinkat,mkdirat,flock,getdents64,lseek,readlinkat"

// P1 to P3, G1, G3, G5, G7, H1: any system call of an operation fails, or the process is killed at it. The
// session is the old one or the new one, the error is reported, and the next operation works.
func TestCalls(t *testing.T) {
	need(t, "root", "strace")
	whats := []string{"EIO", "KILL"}
	if storetest.Long(0, 1) == 1 {
		whats = []string{"EIO", "ENOSPC", "EDQUOT", "EMFILE", "EACCES", "EROFS", "EEXIST", "KILL"}
	}
	for _, sw := range sweeps {
		t.Run(sw.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if sw.ordered {
				dir = imageOf(t, 64<<20, "-O", "has_journal", "-N", "30000")
			}
			c := caller{t: t, dir: dir, name: sw.name, op: sw.op, options: sw.options, old: sw.old, new: sw.new}
			found := c.record()
			var all []injection
			for _, name := range slices.Sorted(maps.Keys(found)) {
				nths := found[name]
				if most := storetest.Long(4, len(nths)); len(nths) > most { // Open looks at each lock file
					nths = slices.Concat(nths[:most/2], nths[len(nths)-most/2:])
				}
				for _, nth := range nths {
					for _, what := range whats {
						if what == "KILL" && sw.op == "open" && len(nths) > 2 && storetest.Long(0, 1) == 0 {
							continue
						}
						all = append(all, injection{name, nth, what, false})
					}
					if interruptible[name] {
						all = append(all, injection{name, nth, "EINTR", false})
					}
					if sw.op == "set" && name != "unlinkat" {
						all = append(all, injection{name, nth, "EIO", true})
					}
				}
			}
			for i := range all { // each stride-th one
				if i*stride < len(all) {
					all[i] = all[i*stride]
				}
			}
			all = all[:(len(all)+stride-1)/stride]
			reported := 0
			for _, i := range all {
				if c.try(i) {
					reported++
				}
			}
			t.Logf("%d calls made to fail in %d ways, %d reported, %d did not happen", len(found), len(all), reported, c.missed)
			if hit := len(all) - c.missed; hit < 3 || hit < len(all)/2 {
				t.Errorf("only %d of %d injections: the test tests nothing", hit, len(all))
			}
		})
	}
}

type caller struct {
	t        *testing.T
	dir      string
	name, op string
	options  filestore.Options
	old, new int
	runs     int
	missed   int      // the number of injections that did not happen
	locks    int      // the number of the first flock
	written  int      // the number of the close of the temporary file
	asks     []string // the calls that ask how the file system commits
}

// prepare makes a directory with the old session, and one that no operation uses.
func (c *caller) prepare() string {
	c.t.Helper()
	c.runs++
	dir := filepath.Join(c.dir, fmt.Sprint(c.runs), "sessions")
	if c.op == "open" && c.old == 0 {
		if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
			c.t.Fatal(err)
		}
		return dir
	}
	s, err := filestore.Open(dir, &filestore.Options{TTL: c.options.TTL, NoSync: true, ReapInterval: -1})
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	for id, n := range map[string]int{"id": c.old, "other": 7} {
		if n == 0 {
			continue
		}
		sess := new(filestore.Session)
		if id == "other" {
			sess.Cookie = filestore.Cookie{OriginalMaxAge: time.Hour, HTTPOnly: true, Path: "/"}
		}
		if err := put(sess, newValue(n, 300)); err != nil {
			c.t.Fatal(err)
		}
		if err := s.Set(ctx, id, sess); err != nil {
			c.t.Fatal(err)
		}
	}
	then := time.Now().Add(-time.Minute) // a new lock file would be waited for
	locks, _ := filepath.Glob(filepath.Join(dir, ".locks", "*"))
	for _, lock := range locks {
		if err := os.Chtimes(lock, then, then); err != nil {
			c.t.Fatal(err)
		}
	}
	return dir
}

// run has a worker do the operation in dir, under strace with args. It returns the report of the worker and
// the calls that strace has seen.
func (c *caller) run(dir string, args ...string) (r outcome, seen []seenCall, err error) {
	name := filepath.Join(c.dir, "log")
	options, _ := json.Marshal(c.options)
	trace := calls
	if len(args) > 0 { // trace only the call that fails: the fewer calls stop, the faster
		trace, _, _ = strings.Cut(strings.TrimPrefix(args[1], "inject="), ":")
	}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "SIGKILL") }) {
		args = append(args, "--seccomp-bpf") // faster, but then it sends no signal
	}
	args = append(args, "-f", "-y", "-qq", "-o", name, "-e", "signal=none", "-e", "trace=faccessat,faccessat2,"+trace)
	if c.op == "reap" { // it works in other threads: count only their calls for this session
		for _, path := range []string{"/begin", "/end", "id.json", dir + "/id.json", dir + "/.locks/20"} {
			args = append(args, "-P", path)
		}
	}
	worker := storetest.Command("call", dir, c.op, fmt.Sprint(c.new), string(options))
	out, err := behind(append([]string{"strace"}, args...), worker).Output()
	data, logErr := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if logErr != nil {
		err = logErr
	}
	return r, parse(string(data)), err
}

// A seenCall is a call that the worker made in its operation.
type seenCall struct {
	name     string
	nth      int  // of its thread
	asks     bool // how the file system commits: if there is no answer, there are two flushes
	injected bool
}

var logLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed)(.*)`)

// parse finds the calls between the marks of the worker.
func parse(log string) (seen []seenCall) {
	count := make(map[string]int)
	last := make(map[string]int) // of each thread, its index in seen
	main, inside := "", false
	for line := range strings.Lines(log) {
		m := logLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name, rest := m[1], m[2], m[4]
		main = cmp.Or(main, thread)
		if strings.HasPrefix(name, "faccessat") {
			if thread == main { // Open has one of its own
				inside = strings.Contains(rest, `"/begin"`) || inside && !strings.Contains(rest, `"/end"`)
			}
			continue
		}
		if m[3] == "(" {
			count[thread+name]++
			delete(last, thread)
			if inside {
				last[thread] = len(seen)
				asks := strings.Contains(rest, "/proc/fs/ext4/") || strings.Contains(rest, "/sys/dev/block/")
				seen = append(seen, seenCall{name: name, nth: count[thread+name], asks: asks})
			}
		}
		if i, ok := last[thread]; ok && strings.Contains(rest, "INJECTED") {
			seen[i].injected = true
		}
	}
	return seen
}

// record returns the numbers of the calls that the operation makes, by name.
func (c *caller) record() map[string][]int {
	c.t.Helper()
	r, seen, err := c.run(c.prepare())
	if err != nil || r.Err != "" {
		c.t.Fatalf("without a fault: %v, %+v", err, r)
	}
	found := make(map[string][]int)
	for _, call := range seen {
		if call.asks {
			c.asks = append(c.asks, fmt.Sprint(call.name, call.nth))
		}
		if !slices.Contains(found[call.name], call.nth) {
			found[call.name] = append(found[call.name], call.nth)
		}
	}
	if len(found) == 0 {
		c.t.Fatal("no calls seen")
	}
	if flocks := found["flock"]; len(flocks) > 0 {
		c.locks = slices.Min(flocks)
	}
	if i := slices.IndexFunc(seen, func(call seenCall) bool { return call.name == "write" }); i >= 0 && c.op != "reap" {
		j := slices.IndexFunc(seen[i:], func(call seenCall) bool { return call.name == "close" })
		c.written = seen[i+j].nth
	}
	return found
}

// harmless are the calls that may fail without failing the operation.
var harmless = map[string]map[string]bool{
	"Set over, NoSync": {"newfstatat": true, "renameat2": true, "unlinkat": true}, // renames then; Reap removes
	"Reap":             {"newfstatat": true},                                      // then it looks at the session itself
	"Touch":            {"newfstatat": true, "close": true},                       // it looks again in its turn, at a cached session or by reading it
	"Touch, one flush": {"newfstatat": true, "close": true},
	"Open":             {"newfstatat": true, "fstat": true, "getdents64": true, "fstatfs": true}, // it can do without these
	"Open new":         {"newfstatat": true, "fstat": true, "getdents64": true, "fstatfs": true},
}

// try reports whether the fault was reported.
func (c *caller) try(i injection) bool {
	c.t.Helper()
	fail := func(format string, args ...any) {
		c.t.Helper()
		c.t.Errorf("%v: "+format, append([]any{i}, args...)...)
	}
	var dir string
	var r outcome
	for attempt := 1; ; attempt++ {
		dir = c.prepare()
		var seen []seenCall
		var err error
		r, seen, err = c.run(dir, i.args()...)
		hit := slices.ContainsFunc(seen, func(call seenCall) bool { return call.injected && call.name == i.call })
		if i.what == "KILL" {
			hit = err != nil
		} else if err != nil {
			fail("the worker: %v", err)
			return false
		}
		if hit {
			break
		}
		if attempt == 3 { // an operation makes some calls only now and then
			c.missed++
			return false
		}
	}
	if i.what != "KILL" {
		switch {
		case i.what == "EINTR" && r.Err != "":
			fail("an interruption is reported: %s", r.Err)
		case r.Err != "" && r.Kind != errnos[i.what].Error():
			fail("reported as %q: %s", r.Kind, r.Err)
		case r.Err == "" && i.what != "EINTR" && !harmless[c.name][i.call] && !slices.Contains(c.asks, fmt.Sprint(i.call, i.nth)) &&
			!(i.call == "close" && i.nth != c.written) &&
			!(i.call == "flock" && i.nth > c.locks) && // an unlock; then the descriptor is closed
			!(i.call == "flock" && i.what == "EIO") && // gofrs/flock opens the file again and retries
			!(c.op == "open" && forReading[i.what]):
			fail("is not reported")
		case r.Err == "" && r.After != c.new && c.op != "open":
			fail("success, and the session is %d", r.After)
		case r.After != c.old && r.After != c.new && c.op != "open":
			fail("the session is %d", r.After)
		case r.Again != "" && c.op != "reap": // whose injections hit each thread that comes
			fail("the next call: %s", r.Again)
		case r.Temps > 0 && i.call != "unlinkat" && !i.twice:
			fail("%d temporary files left by a living process", r.Temps)
		}
	}
	c.again(dir, fail)
	return r.Err != ""
}

// again looks at the directory with another process's eyes.
func (c *caller) again(dir string, fail func(string, ...any)) {
	c.t.Helper()
	s, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1})
	if err != nil {
		fail("Open later: %v", err)
		return
	}
	defer s.Close()
	if c.op == "open" && c.old == 0 {
		return
	}
	if n, err := read(s, "id"); err != nil || n != c.old && n != c.new {
		fail("the session is %d, %v", n, err)
	}
	if n, err := read(s, "other"); err != nil || n != 7 {
		fail("the other session is %d, %v", n, err)
	}
	if _, err := s.Reap(ctx); err != nil {
		fail("Reap later: %v", err)
	}
	storetest.Sweep(c.t, dir)
	if err := s.Set(ctx, "next", new(filestore.Session)); err != nil {
		fail("Set later: %v", err)
	}
}

func temps(dir string) int {
	left, _ := filepath.Glob(filepath.Join(dir, ".*~"))
	return len(left)
}

var errnos = map[string]syscall.Errno{
	"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EDQUOT": syscall.EDQUOT, "EINTR": syscall.EINTR, "EMFILE": syscall.EMFILE,
	"EACCES": syscall.EACCES, "EROFS": syscall.EROFS, "EEXIST": syscall.EEXIST,
}

// forReading are the errors that make Open warn and open the directory for reading.
var forReading = map[string]bool{"ENOSPC": true, "EDQUOT": true,
	"EEXIST": true} // somebody else has just made it

// An outcome is the report of a worker: the error of the operation, the session after it, and the error when
// all was done once more.
type outcome struct {
	Err, Kind string
	After     int
	Again     string
	Temps     int
}

func init() {
	if os.Getenv(storetest.WorkerVar) == "call" {
		runtime.LockOSThread() // strace counts for each thread
	}
	workers["call"] = func(args []string) {
		dir := args[0]
		var o filestore.Options
		if err := json.Unmarshal([]byte(args[3]), &o); err != nil {
			panic(err)
		}
		o.ReapInterval = -1
		a := ask{Op: args[1], ID: "id", Size: 300}
		fmt.Sscan(args[2], &a.N)
		var s *filestore.Store
		var err error
		act := func() error {
			if a.Op == "open" {
				if s != nil {
					s.Close()
				}
				s, err = filestore.Open(dir, &o)
				return err
			}
			_, err := operate(s, a)
			return err
		}
		if a.Op != "open" {
			if s, err = filestore.Open(dir, &o); err != nil {
				panic(err)
			}
		}
		syscall.Access("/begin", 0)
		err = act()
		syscall.Access("/end", 0)
		var r outcome
		if err != nil {
			r.Err, r.Kind = err.Error(), kind(err)
		}
		r.Temps = temps(dir)
		if a.Op != "open" || s != nil { // the session is not expired for this one
			look, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1})
			if err != nil {
				r.Again = err.Error()
			} else if r.After, err = read(look, "id"); err != nil {
				r.Again = err.Error()
			}
		}
		if a.Op == "create" && r.After != 0 {
			a.Op = "set"
		}
		if err := act(); err != nil && kind(err) != filestore.ErrNotFound.Error() {
			r.Again = err.Error()
		}
		if _, err := operate(s, ask{Op: "set", ID: "next"}); err != nil {
			r.Again = err.Error()
		}
		if err := s.Close(); err != nil {
			r.Again = err.Error()
		}
		json.NewEncoder(os.Stdout).Encode(r)
	}
}
