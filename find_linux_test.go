package filestore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// What happened while events were lost is found. The other process is stopped until the system's queue is full.
func TestFindOverflow(t *testing.T) {
	queue := 16384
	if data, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		queue, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	if queue > 100_000 {
		skip.Test(t, "the system's queue is too long to fill")
	}
	dir := t.TempDir()
	s := open(t, dir, nil)
	for i := range 20 {
		set(t, s, fmt.Sprint("old", i), "user", "anna")
	}
	p := storetest.Start(t, "find", dir)
	ask := func() []string {
		fmt.Fprintln(p.Stdin, "user anna")
		return strings.Fields(p.Line(t))
	}
	if got := ask(); len(got) != 20 {
		t.Errorf("Find = %q", got)
	}
	signal(t, p, syscall.SIGSTOP)
	for i := range queue + 10_000 { // each is at least one event, and the process may hold some already
		write(t, dir, fmt.Sprintf("x%d", i%10), "")
	}
	for i := range 20 {
		set(t, s, fmt.Sprint("new", i), "user", "anna")
		if err := s.Destroy(ctx, fmt.Sprint("old", i)); err != nil {
			t.Fatal(err)
		}
	}
	signal(t, p, syscall.SIGCONT)
	for range 3 {
		if got := ask(); len(got) != 20 || !strings.HasPrefix(got[0], "new") {
			t.Errorf("Find after an overflow = %q", got)
		}
	}
}

func signal(t *testing.T, p *storetest.Process, sig os.Signal) {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// What is named like a session and is not one is passed over, without waiting. When it becomes one it is found, also
// if no event tells: another name of a file may go somewhere else.
func TestFindPlantedObjects(t *testing.T) {
	y := newYard(t, nil)
	write(t, y.parent, "linked", doc(nowMs(), `,"user":"anna"`))
	for name, err := range map[string]error{
		"fifo": syscall.Mkfifo(filepath.Join(y.dir, "fifo.json"), 0o600),
		"dir":  os.Mkdir(filepath.Join(y.dir, "dir.json"), 0o700),
		"link": os.Symlink(filepath.Join(y.parent, "outside.json"), filepath.Join(y.dir, "link.json")),
		"self": os.Symlink(healthy+".json", filepath.Join(y.dir, "self.json")),
		"hard": os.Link(filepath.Join(y.parent, "linked"), filepath.Join(y.dir, "hard.json")),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	y.mark()
	for range 3 {
		wantFound(t, y.s, "user", "anna", healthy)
		wantFound(t, y.s, "user", "outside")
	}
	y.check()
	if err := os.Remove(filepath.Join(y.parent, "linked")); err != nil {
		t.Fatal(err)
	}
	wantFound(t, y.s, "user", "anna", "hard", healthy)
	os.Remove(filepath.Join(y.dir, "fifo.json"))
	set(t, y.s, "fifo", "user", "anna")
	wantFound(t, y.s, "user", "anna", "fifo", "hard", healthy)
}
