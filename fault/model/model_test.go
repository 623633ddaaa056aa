// Package model has the write protocol as a model, writers.pml. The tests let the model checker Spin try every
// order of its steps. They need spin and a C compiler.
package model

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

//go:embed writers.pml
var writers string

// sound are the settings of searches that must find nothing. Beside Node only P1 is promised.
var sound = storetest.Long([]string{
	"-DOPERATIONS=5",
	"-DOPERATIONS=3 -DTICKS=2",
	"-DOPERATIONS=4 -DPOWER -DTICKS=0",
	"-DOPERATIONS=4 -DPOWER -DTICKS=0 -DORDERED=0",
	"-DOPERATIONS=3 -DPOWER",
	"-DOPERATIONS=3 -DNODE -DONLY=1",
}, []string{
	"-DOPERATIONS=6",
	"-DOPERATIONS=4 -DTICKS=3",
	"-DOPERATIONS=5 -DPOWER -DTICKS=0",
	"-DOPERATIONS=5 -DPOWER -DTICKS=0 -DORDERED=0",
	"-DOPERATIONS=4 -DPOWER",
	"-DOPERATIONS=4 -DPOWER -DORDERED=0",
	"-DOPERATIONS=4 -DNODE -DONLY=1",
	"-DOPERATIONS=4 -DNODE -DONLY=1 -DPOWER -DTICKS=0",
})

// unsafe has the rules of the protocol by the switch that leaves each out, with the promises that break without it.
// The short form of the test looks for the first.
var unsafe = []struct{ rule, promises, settings string }{
	{"NO_COMPARE", "P4 P2 P5", ""},
	{"VERSION_ONLY", "P4 P2 P5 P6", ""},
	{"LATE_CLOCK", "P1 P2 P4 P5 P6", ""},
	{"CACHE_UNSETTLED", "P1", ""},
	{"GIVE_UP", "P4 P2", ""},
	{"CREATE_WITHOUT_LOOK", "P2", ""},
	{"REAP_WITHOUT_LOOK", "P6", ""},
	{"NO_LOCK", "P4 P2 P5 P6", ""},
	{"SET_WITHOUT_LOCK", "P2 P6", ""},
	{"TOUCH_WITHOUT_LOCK", "P4 P2 P5 P6", ""},
	{"DESTROY_WITHOUT_LOCK", "P5", ""},
	{"REAP_WITHOUT_LOCK", "P6 P5", ""},
	{"LOCK_OUTLIVES_KILL", "P9", ""},
	{"IN_PLACE", "P1", ""},
	{"NO_WRITE_OUT", "P1", "-DPOWER"},
	{"NO_WRITE_OUT", "P1", "-DPOWER -DORDERED=0"},
	{"FLUSH_LATE", "P1", "-DPOWER"},
	{"FLUSH_LATE", "P1", "-DPOWER -DORDERED=0"},
	{"TOUCH_UNORDERED", "P1", "-DPOWER"},
	{"TOUCH_UNORDERED", "P1", "-DPOWER -DORDERED=0"},
	{"ONE_FLUSH_ON_BTRFS", "P1", "-DPOWER -DORDERED=0"},
	{"NO_DIR_FLUSH", "P2 P5", "-DPOWER"},
	{"DESTROY_WITHOUT_FLUSH", "P5", "-DPOWER"},
	{"FLUSH_OWN_ONLY", "P5", "-DPOWER"},
}

var (
	violation = regexp.MustCompile(`assertion violated (\S+)`)
	figures   = regexp.MustCompile(`(\d+) states, stored`)
	took      = regexp.MustCompile(`elapsed time (\S+) seconds`)
	memory    = regexp.MustCompile(`(\S+)\ttotal actual memory usage`)
)

// P1, P2, P4 to P6, P9: no order of the steps breaks a promise.
func TestNoOrderBreaksAPromise(t *testing.T) {
	t.Parallel()
	need(t)
	for _, settings := range sound {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			report := search(t, writers, settings, "-O1")
			for text, want := range map[string]bool{
				"Full statespace search":     true, // no approximation
				"assertion violations\t+":    true,
				"invalid end states\t+":      true,
				"errors: 0\n":                true,
				"Search not completed":       false,
				"max search depth too small": false,
			} {
				if strings.Contains(report, text) != want {
					t.Errorf("the report has %q: %v", text, !want)
				}
			}
			states := find(figures, report)
			if n, _ := strconv.Atoi(states); n < 50_000 {
				t.Errorf("only %d states", n)
			}
			if t.Failed() {
				t.Log(report)
			}
			t.Logf("%s states, %s s, %s MB", states, find(took, report), find(memory, report))
		})
	}
}

// The model has teeth: without any of its rules it breaks a promise.
func TestEachRuleIsNeeded(t *testing.T) {
	t.Parallel()
	need(t)
	for _, u := range unsafe {
		promises := strings.Fields(u.promises)
		for _, promise := range promises[:storetest.Long(1, len(promises))] {
			settings := strings.TrimSpace("-D" + u.rule + " -DONLY=" + promise[1:] + " " + u.settings)
			t.Run(settings, func(t *testing.T) {
				t.Parallel()
				report := search(t, writers, settings, "-O0")
				if got := find(violation, report); got != promise {
					t.Errorf("broken is %q, want %s\n%s", got, promise, report)
				}
			})
		}
	}
}

// Each switch is tested.
func TestSwitches(t *testing.T) {
	settings := []string{"OPERATIONS", "TICKS", "POWER", "ORDERED", "NODE", "ONLY"}
	used := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^#(if|elif).*`).FindAllString(writers, -1) {
		for _, name := range regexp.MustCompile(`[A-Z_]{4,}`).FindAllString(line, -1) {
			used[name] = true
			if !slices.Contains(settings, name) && !tested(name) {
				t.Errorf("no test sets %s", name)
			}
		}
	}
	for _, u := range unsafe {
		if !used[u.rule] || !strings.Contains(writers, " *\t"+u.rule+" ") {
			t.Errorf("the model does not have the switch %s, or its comment does not explain it", u.rule)
		}
	}
}

func tested(rule string) bool {
	for _, u := range unsafe {
		if u.rule == rule {
			return true
		}
	}
	return false
}

// Each step of the model is taken, and each of its branches.
func TestEachStepIsTaken(t *testing.T) {
	t.Parallel()
	need(t)
	branch := regexp.MustCompile(`^\s*:: .*?->`)
	missing := make(map[string]string)
	lines := strings.SplitAfter(writers, "\n")
	for i, line := range lines {
		if branch.MatchString(line) {
			n := strconv.Itoa(i + 1)
			missing[n] = line
			lines[i] = branch.ReplaceAllStringFunc(line, func(s string) string {
				return s + ` c_code { static int taken; if (!taken++) printf("taken ` + n + `\n"); };`
			})
		}
	}
	if len(missing) < 50 {
		t.Fatalf("only %d branches", len(missing))
	}
	// Some are taken only if the protocol is unsafe: those of the switches, and what notices.
	for _, settings := range []string{"", "-DPOWER -DTICKS=0", "-DLATE_CLOCK -DIN_PLACE -DGIVE_UP",
		"-DPOWER -DTICKS=0 -DNO_WRITE_OUT -DNO_DIR_FLUSH"} {
		report := search(t, strings.Join(lines, ""), "-DOPERATIONS=3 -DONLY=10 "+settings, "-O0")
		for _, m := range regexp.MustCompile(`taken (\d+)`).FindAllStringSubmatch(report, -1) {
			delete(missing, m[1])
		}
	}
	for n, line := range missing {
		t.Errorf("no search takes line %s: %s", n, line)
	}
}

// search lets Spin search all states of the model, and returns its report.
func search(t *testing.T, model, settings, optimize string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "writers.pml"), []byte(model), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil && name != "./pan" { // the report says more than pan's exit code
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("spin", append(strings.Fields(settings), "-a", "writers.pml")...)
	// Without the reduction of orders the result does not rest on its rules; here it would spare nothing.
	args := []string{"-w", optimize, "-DSAFETY", "-DNOREDUCE", "-DMEMLIM=1000", "-o", "pan", "pan.c"}
	run("cc", append(args, storetest.Long(nil, []string{"-DCOLLAPSE"})...)...)
	return run("./pan", "-m10000", "-w20")
}

func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		skip.Test(t, err.Error())
	}
	out, err := exec.Command("spin", "-V").Output()
	if err != nil {
		skip.Test(t, err.Error())
	}
	if !strings.HasPrefix(string(out), "Spin Version") { // others have the name too
		skip.Test(t, "spin is not the model checker")
	}
}

func find(re *regexp.Regexp, report string) string {
	if m := re.FindStringSubmatch(report); m != nil {
		return m[1]
	}
	return ""
}
