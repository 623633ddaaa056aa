package fault

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

// A clocked worker is a process with its own clock.
type clocked struct {
	t *testing.T
	*storetest.Process
}

// buildClocked builds the worker with a time package whose clock can be set. A test cannot set the clock of
// the system.
func buildClocked(t *testing.T) (binary string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(strings.TrimSpace(run(t, "go", "env", "GOROOT")), "src/time/time.go")
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const call = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(data), call) != 1 {
		t.Fatal("the time package has changed")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		source: strings.Replace(string(data), call, call+"sec += clockAhead.Load()\n", 1),
		filepath.Join(filepath.Dir(source), "clock.go"): "package time\nimport \"internal/runtime/atomic\"\n" +
			"var clockAhead atomic.Int64\nfunc SetClock(d Duration) { clockAhead.Store(int64(d / Second)) }\n",
		filepath.Join(here, "clock/overlay.go"): "package main\nimport \"time\"\nfunc init() { setClock = time.SetClock }\n",
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for name, text := range files {
		file := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay.Replace)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[name] = file
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "clock")
	run(t, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./clock")
	return binary
}

func newClocked(t *testing.T, binary, dir string) *clocked {
	t.Helper()
	return &clocked{t, storetest.Run(t, exec.Command(binary, dir))}
}

// does sends a command and compares the answer.
func (c *clocked) does(what, want string) {
	c.t.Helper()
	fmt.Fprintln(c.Stdin, what)
	if got := c.Line(c.t); got != want {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// H5: whatever the clock is set to, no session outlives its life by more than five minutes of the new clock,
// and one step ahead does not log everybody out. The TTL is an hour.
func TestClock(t *testing.T) {
	binary := buildClocked(t)
	for _, back := range []string{"-1h", "-24h", "-8760h"} {
		t.Run("set "+back, func(t *testing.T) {
			c := newClocked(t, binary, t.TempDir())
			at := func(after time.Duration) {
				t.Helper()
				d, _ := time.ParseDuration(back)
				c.does("clock "+(d+after).String(), "ok")
			}
			c.does("open -1s", "ok")
			for _, id := range []string{"seen", "reaped", "touched", "idle"} {
				c.does("set "+id, "ok")
			}
			at(0)
			c.does("get seen", "ok")
			c.does("touch touched", "ok")
			c.does("reap", "ok") // writes down that they count as accessed now
			at(50 * time.Minute)
			c.does("get idle", "ok")
			c.does("touch touched", "ok")
			at(66 * time.Minute)
			c.does("get seen", "gone")
			c.does("get reaped", "gone")
			c.does("touch idle", "gone")
			c.does("get touched", "ok")
			at(120 * time.Minute)
			c.does("get touched", "gone")
			c.does("reap", "ok")
			c.does("close", "ok")
		})
	}
	t.Run("set ahead and back", func(t *testing.T) {
		c := newClocked(t, binary, t.TempDir())
		c.does("open -1s", "ok")
		c.does("set before", "ok")
		c.does("clock 87600h", "ok")
		c.does("set then", "ok") // ten years ahead
		c.does("get before", "gone")
		c.does("clock 0s", "ok")
		c.does("get before", "ok") // it was not removed
		c.does("get then", "ok")   // counts as accessed now
		c.does("reap", "ok")
		c.does("clock 66m", "ok")
		c.does("get then", "gone")
		c.does("get before", "gone")
		c.does("close", "ok")
	})
	t.Run("the background reaper", func(t *testing.T) {
		dir := t.TempDir()
		c := newClocked(t, binary, dir)
		c.does("open 4s", "ok")
		c.does("set id", "ok")
		time.Sleep(6 * time.Second) // some passes of the reaper
		c.does("clock 87600h", "ok")
		time.Sleep(4800 * time.Millisecond) // the next pass is left out
		c.does("clock 0s", "ok")
		c.does("get id", "ok")
		time.Sleep(4800 * time.Millisecond)
		c.does("get id", "ok")
		c.does("clock 87600h", "ok") // the clock stays there
		time.Sleep(10 * time.Second)
		if _, err := os.Stat(filepath.Join(dir, "id.json")); err == nil {
			t.Error("an expired session is there after two intervals")
		}
		c.does("close", "ok")
		c.does("log", "filestore: reap left out, the clock was set ahead; filestore: reap left out, the clock was set ahead")
	})
}
