package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/interop"
)

// process returns the command as a process of its own.
func process(t *testing.T, ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), childEnv+"=1", "TERM=xterm", "NO_COLOR=", "TZ=UTC", "GORACE="+noPause)
	return cmd
}

// commandOutput runs the command in this process. It must end in time: what hangs on a planted file fails.
func commandOutput(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(args, strings.NewReader(""), &o, &e) }()
	select {
	case code = <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("filestore %s: hangs", strings.Join(args, " "))
	}
	return code, o.String(), e.String()
}

func mustWrite(t *testing.T, s nodeSession) {
	t.Helper()
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
}

// Nothing that a session holds, and no name of a file, may reach a terminal as more than text, and each
// row stays one line.
func TestTerminalText(t *testing.T) {
	dir := t.TempDir()
	evil := "\x1b[2J\u009b31m\x07\r\n\u202etxt"
	quoted, _ := json.Marshal(evil)
	// Inside JSON U+009B and U+202E need no escape, and Node writes none.
	mustWrite(t, nodeSession{dir: dir, id: "evil0001evil0001", members: `"user":` + string(quoted) + `,"raw":"` + "\u009b31m\u202e\x7f" + `",` + string(quoted) + `:1`})
	os.WriteFile(filepath.Join(dir, "evil\x1b[2J\n0002.json"), []byte("{}"), 0o600)
	os.WriteFile(filepath.Join(dir, "invalid\xff.json"), []byte("\"\xff\x1b\""), 0o600)
	os.WriteFile(filepath.Join(dir, "evil0003evil0003.json"), []byte("{\"cookie\":{},\"user\":\"\xff\xfe\u009b\"}"), 0o600)
	for _, args := range [][]string{
		{"ls", "--show", "user,raw"}, {"ls", "--show", "user,raw", "--json", "--full"}, {"ls", "--show", evil}, {"ls", "--sort", evil},
		{"show", "evil0001evil0001"}, {"show", "evil0001evil0001", "--json"}, {"show", "evil0003evil0003"}, {"show", evil}, {"show", "\xff\xff\xff\xff\xff\xff\xff"},
		{"stat", "--by", "user"}, {"stat", "--by", "user", "--json"}, {"stat", "--by", "raw"}, {"reap", "--dry-run", "--ttl", "1ns"},
		{"check"}, {"check", "--json"}, {evil}, {"ls", "--" + evil}, {"ls", "--older", evil}, {"ls", "--ext", evil}, {"ls", "--dir", evil},
		{"unset", "evil0001evil0001", evil + "x"}, {"rm", "--yes", evil + "xxxx"}, {"unsign", evil, "--secret-file", evil},
	} {
		_, out, errOut := commandOutput(t, append([]string{"--dir", dir}, args...)...)
		for _, text := range []string{out, errOut} {
			for _, r := range text {
				if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == '\ufffd') {
					t.Errorf("%q prints %q in %q", args, r, text)
					break
				}
			}
		}
		if strings.Count(errOut, "\n") > 1 {
			t.Errorf("%q says more than one line: %q", args, errOut)
		}
	}
	_, out, _ := commandOutput(t, "ls", "--dir", dir, "--show", "user", "--where", "raw")
	if strings.Count(out, "\n") != 2 {
		t.Errorf("ls: a row is more than a line: %q", out)
	}
	// --json still says what is there.
	_, out, _ = commandOutput(t, "ls", "--dir", dir, "--show", "user", "--json", "--where", "raw")
	var row struct{ Show struct{ User string } }
	if err := json.Unmarshal([]byte(out), &row); err != nil || row.Show.User != evil {
		t.Errorf("ls --json: %q, %v, want %q", row.Show.User, err, evil)
	}
}

// No whole id may be printed unless --full, or on stderr at all.
func TestIDsShortened(t *testing.T) {
	dir := t.TempDir()
	ids := []string{"aaaaaaaabbbbbbbb", "ccccccccdddddddd", "eeeeeeeeffffffff"}
	mustWrite(t, nodeSession{dir: dir, id: ids[0]})
	mustWrite(t, nodeSession{dir: dir, id: ids[1], age: 3 * time.Hour})
	os.WriteFile(filepath.Join(dir, ids[2]+".json"), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(dir, ids[0]+".json.3374059317"), nil, 0o600)
	for _, args := range [][]string{
		{"ls"}, {"ls", "--json"}, {"show", ids[0]}, {"show", ids[0], "--json"}, {"show", ids[2]}, {"show", "ccccccccddddddde"}, {"stat"},
		{"check"}, {"check", "--json"}, {"reap", "--dry-run"}, {"set", ids[0], "a", "1"}, {"set", ids[1], "a", "1"}, {"set", ids[2], "a", "1"},
		{"unset", ids[0], "b"}, {"rm", ids[0]}, {"rm", "--yes", ids[2] + "x"}, {"rm", "--yes", ids[2]}, {"reap"},
	} {
		for _, full := range []bool{false, true} {
			if full && args[0] != "ls" {
				continue
			}
			all := append([]string{"--dir", dir}, args...)
			if full {
				all = append(all, "--full")
			}
			_, out, errOut := commandOutput(t, all...)
			for _, id := range ids {
				if strings.Contains(errOut, id) || !full && strings.Contains(out, id) {
					t.Errorf("%q shows an id: %q %q", args, out, errOut)
				}
			}
			if full && !strings.Contains(out, ids[0]) {
				t.Errorf("%q --full shows no id: %q", args, out)
			}
		}
	}
}

// Of members that occur twice the last counts, as for the programs that load the session: a session
// cannot show an operator one user and be another's.
func TestTwice(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, nodeSession{dir: dir, id: "twice001twice001", members: `"user":"bert","x":1,"user":"anna"`})
	for where, want := range map[string]bool{"user=anna": true, "user=bert": false, "user!=anna": false} {
		_, out, errOut := commandOutput(t, "ls", "--dir", dir, "--where", where, "--show", "user")
		if got := strings.Contains(out, "twice001"); got != want || strings.Contains(out, "bert") || errOut != "" {
			t.Errorf("ls --where %s: %q %q, want listed: %v", where, out, errOut, want)
		}
	}
	_, out, _ := commandOutput(t, "stat", "--dir", dir, "--by", "user")
	if !strings.Contains(out, "anna") || strings.Contains(out, "bert") {
		t.Errorf("stat --by user: %q", out)
	}
}

// A session that is another's by the time of the answer stays.
func TestRmLooksAgain(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001", members: `"user":"anna"`})
	mustWrite(t, nodeSession{dir: dir, id: "anna0002anna0002", members: `"user":"anna"`})
	a := &app{dir: dir, ext: ".json", ttl: time.Hour, now: time.Now, ctx: t.Context(), out: new(bytes.Buffer), err: new(bytes.Buffer)}
	r, err := a.reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	conditions, _ := parseConditions([]string{"user=anna"})
	ids, unread, err := a.matching(t.Context(), r, conditions)
	if len(ids) != 2 || unread != 0 || err != nil {
		t.Fatalf("matching = %v, %d, %v", ids, unread, err)
	}
	mustWrite(t, nodeSession{dir: dir, id: "anna0002anna0002", members: `"user":"bert"`})
	n, failed, err := a.end(t.Context(), ids, func(id string) bool { return a.still(r, id, conditions) })
	if n != 1 || failed != 0 || err != nil {
		t.Errorf("end = %d, %d, %v, want 1", n, failed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "anna0002anna0002.json")); err != nil {
		t.Errorf("bert's session: %v", err)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(999), "999 B"}, {size(1000), "1.0 KiB"}, {size(1024), "1 KiB"}, {size(1536), "1.5 KiB"},
		{size(10 << 10), "10 KiB"}, {size(1000 << 10), "1.0 MiB"}, {size(1 << 20), "1 MiB"}, {size(1 << 62), "4096 PiB"},
		{inWords(0), "less than a second"}, {inWords(time.Second), "1 second"}, {inWords(59 * time.Second), "59 seconds"},
		{inWords(119 * time.Minute), "1 hour"}, {inWords(23*time.Hour + 59*time.Minute), "23 hours"}, {inWords(48 * time.Hour), "2 days"},
		{inWords(400 * day), "1 year"}, {inWords(-time.Hour), "less than a second"},
		{short(0), "0s"}, {short(90 * time.Second), "1m"}, {short(36 * time.Hour), "1d"}, {short(800 * day), "800d"},
		{plural(0, "session"), "0 sessions"}, {plural(1, "session"), "1 session"},
		{cut("añb", 2), "añ…"}, {cut("añ", 2), "añ"}, {cut("\xff\xff\xff", 2), "\xff\xff…"},
		{show("ä"), "ä"}, {show(""), `""`}, {show("a\x1bb"), `"a\x1bb"`}, {show("a\xff"), `"a\xff"`}, {show("\ufffd"), "\ufffd"}, {show("\u202e"), `"\u202e"`},
		{oneLine("a\nb \"c\" ä"), `a\nb "c" ä`},
		{string(safeJSON([]byte("\"ä\u009b\U000e0001\xff\""))), `"ä\u009b\udb40\udc01\ufffd"`},
		{encodeURIComponent("é!"), "%C3%A9!"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2d": 2 * day, "1w": 7 * day, "1w2d3h": 9*day + 3*time.Hour, "1d30m": day + 30*time.Minute, "0": 0,
	} {
		var a age
		if err := a.Set(in); err != nil || time.Duration(a) != want {
			t.Errorf("age %q = %v, %v, want %v", in, time.Duration(a), err, want)
		}
	}
	for _, in := range []string{"", "d", "-1d", "1d-2h", "1.5d", "1d1w", "2x", "1", "9999999w", "99999999h", "2dd"} {
		var a age
		if err := a.Set(in); err == nil {
			t.Errorf("age %q = %v, want an error", in, time.Duration(a))
		}
	}
}

// FuzzSafeJSON: what is JSON stays the same JSON, and obeys no terminal.
func FuzzSafeJSON(f *testing.F) {
	f.Add("a\u009b\U000e0001\ufffd\xff")
	f.Fuzz(func(t *testing.T, s string) {
		doc, _ := json.Marshal(s)
		raw := []byte(`"` + strings.NewReplacer(`"`, "", `\`, "", "\n", "").Replace(s) + `"`) // as others may write it
		for _, in := range [][]byte{doc, raw} {
			out := safeJSON(bytes.Clone(in))
			for _, r := range string(out) {
				if show(string(r)) != string(r) {
					t.Errorf("safeJSON(%q) = %q", in, out)
				}
			}
			var want, got string
			if json.Unmarshal(in, &want) == nil {
				if err := json.Unmarshal(out, &got); err != nil || got != want {
					t.Errorf("safeJSON(%q) = %q: %q, %v", in, out, got, err)
				}
			}
		}
	})
}

// The heap of --limit keeps what sorting all would give.
func TestKeeper(t *testing.T) {
	for _, by := range []string{"id", "-id", "ends", "-ends", "access", "-access", "size", "-size"} {
		order, err := rowOrder(by)
		if err != nil {
			t.Fatal(err)
		}
		all, few := &keeper{order: order}, &keeper{order: order, limit: 7}
		for i := range 100 {
			w := row{id: fmt.Sprint(i * 37 % 100), ends: int64(i * 7 % 13), access: int64(i * 11 % 17), size: int64(i * 5 % 9)}
			all.put(w)
			few.put(w)
		}
		if got, want := fmt.Sprint(few.sorted()), fmt.Sprint(all.sorted()[:7]); got != want {
			t.Errorf("--sort %s --limit 7: %s, want %s", by, got, want)
		}
	}
}

// watch prints what other processes do, writes nothing, and ends with SIGINT.
func TestWatch(t *testing.T) {
	if isWindows {
		interop.Skip(t, "no signals")
	}
	for _, asJSON := range []bool{false, true} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001"})
		before, _ := snapshot(parent)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		args := []string{"watch", "--dir", dir}
		changed, destroyed := "  changed    bert0001…", "  destroyed  bert0001…"
		if asJSON {
			args = append(args, "--json")
			changed, destroyed = `Z","op":"changed","id":"bert0001…"}`, `Z","op":"destroyed","id":"bert0001…"}`
		}
		cmd := process(t, ctx, args...)
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for s := bufio.NewScanner(out); s.Scan(); {
				lines <- s.Text()
			}
		}()
		// Nothing tells when it has begun to watch, so change until it says so.
		file := filepath.Join(dir, "bert0001bert0001.json")
		change := func() {
			os.Remove(file)
			mustWrite(t, nodeSession{dir: dir, id: "bert0001bert0001"})
		}
		await := func(want string, change func()) {
			t.Helper()
			for {
				change()
				select {
				case line, ok := <-lines:
					if !ok {
						t.Fatalf("watch ended: %s", errOut.String())
					}
					if strings.HasSuffix(line, want) {
						return
					}
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
		await(changed, change)
		await(destroyed, func() { change(); os.Remove(file) })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		for range lines {
		}
		if err := cmd.Wait(); err != nil || errOut.Len() > 0 {
			t.Errorf("watch after SIGINT: %v, %q", err, errOut.String())
		}
		os.Remove(file)
		after, _ := snapshot(parent)
		if len(after) != len(before) {
			t.Errorf("watch left something: %v, before %v", after, before)
		}
	}
}

// A replaced directory ends watch with an error.
func TestWatchReplaced(t *testing.T) {
	if isWindows {
		interop.Skip(t, "an open directory cannot be removed")
	}
	dir := filepath.Join(t.TempDir(), "sessions")
	os.Mkdir(dir, 0o700)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := process(t, ctx, "watch", "--dir", dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		os.Rename(dir, dir+"-old")
		os.Mkdir(dir, 0o700) // until the command has opened what is then replaced
		select {
		case err := <-done:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitRefused || !strings.HasPrefix(errOut.String(), "filestore: watch: ") {
				t.Errorf("watch: %v, %q", err, errOut.String())
			}
			return
		case <-time.After(100 * time.Millisecond):
			os.RemoveAll(dir + "-old")
		}
	}
}

const isWindows = os.PathSeparator == '\\'

// stat --by keeps no more values than it says, of no more bytes, and loses no session.
func TestByBounded(t *testing.T) {
	c := &counts{life: newHistogram(lives...), size: newHistogram(sizes...), by: make(map[string]int)}
	add := func(user string) {
		e := entry{sess: new(filestore.Session), doc: fmt.Appendf(nil, `{"cookie":{},"user":%q}`, user)}
		if err := e.sess.UnmarshalJSON(e.doc); err != nil {
			t.Fatal(err)
		}
		c.add(time.Now(), &e, "user")
	}
	add(strings.Repeat("ä", 1<<20))
	for i := range distinct + 9 {
		add(fmt.Sprint(i))
	}
	add("0")
	longestSeen, n := 0, 0
	for v, count := range c.by {
		longestSeen, n = max(longestSeen, len(v)), n+count
	}
	if len(c.by) != distinct || c.more != 10 || c.by["0"] != 2 || n+c.more != c.live || longestSeen > longest+len(ellipsis) {
		t.Errorf("%d values, of %d bytes at most, %d more, %d of %d sessions", len(c.by), longestSeen, c.more, n+c.more, c.live)
	}
}
