package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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

// ? exec is exec with any exit code.
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
