package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets a test start this binary as the command, with childEnv; testscript has its own way.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if os.Getenv(impatientEnv) != "" {
			patience = 0
		}
		code := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		if file := os.Getenv(peakEnv); file != "" {
			status, _ := os.ReadFile("/proc/self/status")
			os.WriteFile(file, status, 0o600)
		}
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"filestore": main})
}

const (
	childEnv     = "FILESTORE_TEST_COMMAND"
	impatientEnv = "FILESTORE_TEST_IMPATIENT" // bars come at once
	noPause      = "atexit_sleep_ms=0"        // for GORACE: else each process sleeps for a second at its end
	peakEnv      = "FILESTORE_TEST_PEAK"      // names a file for what the system says of the process at its end
)

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("NO_COLOR", "")
			env.Setenv("GORACE", noPause)
			here, err := os.Getwd()
			env.Setenv("REPO", filepath.Join(here, "..", ".."))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"session":   scriptSession,
			"snapshot":  scriptSnapshot,
			"unchanged": scriptUnchanged,
			"age":       scriptAge,
			"?":         scriptAny,
		},
	})
}

// session DIR ID [-age=D] [-maxage=D] [MEMBERS] writes a session's file as Node would.
func scriptSession(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: session dir id [-age=d] [-maxage=d] [members]")
	}
	s := nodeSession{dir: ts.MkAbs(args[0]), id: args[1]}
	for _, arg := range args[2:] {
		var err error
		if v, ok := strings.CutPrefix(arg, "-age="); ok {
			s.age, err = time.ParseDuration(v)
		} else if v, ok := strings.CutPrefix(arg, "-maxage="); ok {
			s.maxAge, err = time.ParseDuration(v)
		} else {
			s.members = arg
		}
		ts.Check(err)
	}
	ts.Check(s.write())
}

// ? exec is exec where the exit code may be any.
func scriptAny(ts *testscript.TestScript, neg bool, args []string) {
	ts.Exec(args[1], args[2:]...)
}

// age FILE D sets a file's modification time.
func scriptAge(ts *testscript.TestScript, neg bool, args []string) {
	d, err := time.ParseDuration(args[1])
	ts.Check(err)
	at := time.Now().Add(-d)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
}

// A nodeSession is one as session-file-store writes it.
type nodeSession struct {
	dir, id     string
	age, maxAge time.Duration
	members     string // `"user":"anna"`
}

func (s nodeSession) write() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	maxAge := "null"
	if s.maxAge != 0 {
		maxAge = fmt.Sprint(s.maxAge.Milliseconds())
	}
	members := s.members
	if members != "" {
		members += ","
	}
	doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":null,"httpOnly":true,"path":"/"},%s"__lastAccess":%d}`,
		maxAge, members, time.Now().Add(-s.age).UnixMilli())
	if !json.Valid([]byte(doc)) {
		return fmt.Errorf("not JSON: %s", doc)
	}
	return os.WriteFile(filepath.Join(s.dir, s.id+".json"), []byte(doc), 0o600)
}

// snapshot NAME DIR remembers all that can be seen of a directory, and unchanged NAME DIR compares.
func scriptSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	all, err := snapshot(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(all, "\n")), 0o600))
}

func scriptUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	all, err := snapshot(ts.MkAbs(args[1]))
	ts.Check(err)
	before, after := strings.Split(ts.ReadFile(args[0]), "\n"), all
	if same := slices.Equal(before, after); same == neg {
		ts.Fatalf("gone: %s\nnew: %s", missingIn(after, before), missingIn(before, after))
	}
}

// missingIn returns the first lines of b that a has not.
func missingIn(a, b []string) string {
	b = slices.DeleteFunc(slices.Clone(b), func(line string) bool { return slices.Contains(a, line) })
	return strings.Join(b[:min(4, len(b))], "\n")
}
