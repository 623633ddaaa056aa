//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/sessionfilestore/filestore"
)

// A terminal is one with a shell in it that runs the command.
type terminal struct {
	t    *testing.T
	file *os.File
	done chan struct{} // closed when there is no more to read

	mu   sync.Mutex
	text string
	news chan struct{}
}

// shell runs the command, says how it ended, and stays until the terminal is closed. The terminal belongs to it
// as to a user's shell: Linux drops what nobody has read yet when the process that a terminal belongs to ends.
const shell = `trap : INT; "$@"; echo "exit code $?"; cat`

var shellSays = regexp.MustCompile(`exit code ([0-9]+)\r\n$`)

// inTerminal starts the command with all three files a terminal. Bars come at once.
func inTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	command := process(t, ctx, args...)
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", shell, "sh"}, command.Args...)...)
	cmd.Env = append(append(command.Env, impatientEnv+"=1"), env...)
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, file: file, done: make(chan struct{}), news: make(chan struct{}, 1)}
	go func() {
		defer close(term.done)
		buf := make([]byte, 4096)
		for {
			n, err := file.Read(buf)
			term.mu.Lock()
			term.text += string(buf[:n])
			term.mu.Unlock()
			select {
			case term.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { file.Close(); <-term.done; cmd.Wait() })
	return term
}

func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text
}

// await waits until the terminal shows a match.
func (term *terminal) await(re *regexp.Regexp) {
	term.t.Helper()
	for !re.MatchString(term.shown()) {
		select {
		case <-term.news:
		case <-term.done:
			if !re.MatchString(term.shown()) {
				term.t.Fatalf("ended without %s: %q", re, term.shown())
			}
		}
	}
}

func (term *terminal) types(s string) {
	term.t.Helper()
	if _, err := term.file.WriteString(s); err != nil {
		term.t.Fatal(err)
	}
}

// end waits for the command and returns its exit code and all it printed.
func (term *terminal) end() (code int, text string) {
	term.t.Helper()
	term.await(shellSays)
	text = term.shown()
	at := shellSays.FindStringSubmatchIndex(text)
	code, err := strconv.Atoi(text[at[2]:at[3]])
	if err != nil {
		term.t.Fatal(err)
	}
	return code, strings.ReplaceAll(text[:at[0]], "\r\n", "\n")
}

func three(t *testing.T) (dir string, left func() int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "sessions")
	for i := range 3 {
		mustWrite(t, nodeSession{dir: dir, id: fmt.Sprintf("anna%04danna0000", i), age: time.Duration(i) * 50 * time.Minute, members: `"user":"anna"`})
	}
	return dir, func() int {
		files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		return len(files)
	}
}

// rm asks, and only yes is yes.
func TestPrompt(t *testing.T) {
	for _, c := range []struct {
		answer     string
		code, left int
		says       string
	}{
		{"y\n", exitDone, 0, "ended 3 sessions"},
		{"YES\n", exitDone, 0, "ended 3 sessions"},
		{"n\n", exitRefused, 3, "filestore: nothing was ended"},
		{"\n", exitRefused, 3, "filestore: nothing was ended"},
		{"yy\n", exitRefused, 3, "filestore: nothing was ended"},
		{"\x04", exitRefused, 3, "filestore: nothing was ended"}, // Ctrl-D
		{"\x03", exitRefused, 3, "filestore: interrupted"},       // Ctrl-C
		{"y\x03", exitRefused, 3, "filestore: interrupted"},
	} {
		dir, left := three(t)
		term := inTerminal(t, nil, "rm", "--dir", dir, "--where", "user=anna")
		term.await(regexp.MustCompile(`End 3 sessions\? \[y/N\] `))
		if left() != 3 {
			t.Fatalf("%d sessions are left before the answer", left())
		}
		term.types(c.answer)
		if code, text := term.end(); code != c.code || left() != c.left || !strings.Contains(text, c.says) {
			t.Errorf("answer %q: exit code %d, %d left, %q, want %d, %d, %q", c.answer, code, left(), text, c.code, c.left, c.says)
		}
	}
	// No question if there is nothing to end, or with --yes.
	dir, left := three(t)
	if code, text := inTerminal(t, nil, "rm", "--dir", dir, "--where", "user=bert").end(); code != exitDone || strings.Contains(text, "?") {
		t.Errorf("rm of none: %d, %q", code, text)
	}
	if code, text := inTerminal(t, nil, "rm", "--dir", dir, "--all", "--yes").end(); code != exitDone || strings.Contains(text, "?") || left() != 0 {
		t.Errorf("rm --yes: %d, %q", code, text)
	}
}

// Headings are bold and the expired red, on a terminal that wants it, and nowhere else.
func TestColours(t *testing.T) {
	dir, _ := three(t)
	code, text := inTerminal(t, nil, "ls", "--dir", dir, "--sort", "id").end()
	if !strings.Contains(text, "\x1b[1mID ") || !regexp.MustCompile(`\x1b\[31manna0002… +expired .*\x1b\[0m\n`).MatchString(text) ||
		!regexp.MustCompile(`\nanna0000… +59m`).MatchString(text) || code != exitDone {
		t.Errorf("ls: %d, %q", code, text)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"show", "anna0002"}, "\x1b[31m40 minutes ago, "},
		{[]string{"stat"}, "\x1b[31m1 session, to be reaped\x1b[0m"},
		{[]string{"reap", "--dry-run"}, "\x1b[1mID "},
	} {
		if _, text := inTerminal(t, nil, append(c.args, "--dir", dir)...).end(); !strings.Contains(text, c.want) {
			t.Errorf("%q: %q, want %q", c.args, text, c.want)
		}
		for _, plain := range []struct{ env, flag string }{{"NO_COLOR=1", "--full"}, {"TERM=dumb", "--full"}, {"", "--no-color"}, {"", "--json"}} {
			if plain.flag == "--json" && c.args[0] == "reap" {
				continue
			}
			_, text := inTerminal(t, []string{plain.env}, append(c.args, "--dir", dir, plain.flag)...).end()
			if regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(text) {
				t.Errorf("%q %q: %q", plain, c.args, text)
			}
		}
	}
}

// Long work shows how far it has come, and leaves nothing of that behind.
func TestProgress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	for i := range 300 {
		mustWrite(t, nodeSession{dir: dir, id: fmt.Sprintf("anna%04danna0000", i)})
	}
	to := t.TempDir()
	code, text := inTerminal(t, nil, "move", "--from", "file:"+dir, "--to", "file:"+to).end()
	if !regexp.MustCompile(`\rmoving +[0-9]+% \|.*\| \([0-9]+/300\)`).MatchString(text) || !strings.Contains(text, "300 sessions moved, ") || code != exitDone {
		t.Errorf("move: %d, %q", code, text)
	}
	if strings.LastIndex(text, "\x1b[2K") < strings.LastIndex(text, "moving") {
		t.Errorf("move: the bar stays: %q", text)
	}
	dir = to
	for _, args := range [][]string{{"stat"}, {"ls", "--sort", "id", "--limit", "1"}, {"reap", "--dry-run"}, {"rm", "--where", "user=bert"}} {
		code, text := inTerminal(t, nil, append(args, "--dir", dir)...).end()
		bar := regexp.MustCompile(`\rreading +[0-9]+% \|.*\| \([0-9]+/300\)`).FindString(text)
		if code != exitDone || bar == "" {
			t.Errorf("%q: %d, %q", args, code, text)
		}
		clear := strings.LastIndex(text, "\x1b[2K")
		if last := strings.LastIndex(text, "reading"); clear < last {
			t.Errorf("%q: the bar stays: %q", args, text)
		}
		// Not for who reads the output.
		if _, out, errOut := commandOutput(t, append(args, "--dir", dir, "--yes")[:len(args)+2]...); strings.Contains(out+errOut, "reading") {
			t.Errorf("%q: %q %q", args, out, errOut)
		}
	}
}

// reap shows that it works while it waits for a lock.
func TestReapSpins(t *testing.T) {
	dir, left := three(t)
	s, err := filestore.Open(dir, &filestore.Options{ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	live := "anna0000anna0000"
	held, hold, released := make(chan struct{}), make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release() // before Close, which waits
	go func() {
		defer close(released)
		s.Update(context.Background(), live, func(*filestore.Session) error {
			close(held)
			<-hold
			return nil
		})
	}()
	<-held
	// By a TTL of a second the one that is held has expired as well.
	time.Sleep(1100 * time.Millisecond)
	term := inTerminal(t, nil, "reap", "--dir", dir, "--ttl", "1s")
	term.await(regexp.MustCompile(`reaping`))
	release()
	<-released
	code, text := term.end()
	if code != exitDone || !regexp.MustCompile(`reaped [23] sessions\n$`).MatchString(text) || left() > 1 {
		t.Errorf("reap: %d, %q, %d left", code, text, left())
	}
	if strings.LastIndex(text, "\x1b[2K") < strings.LastIndex(text, "reaping") {
		t.Errorf("the bar stays: %q", text)
	}
}
