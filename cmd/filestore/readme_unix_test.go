//go:build unix

package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const readmeID = "HMk1bUT5S9Xb7R2v3eQnOzaW" // what follows the 8 characters that the README shows

// readmeSessions makes the directory that the README looks into, and the file of secrets beside it. It has a file that
// holds no session if broken is true.
func readmeSessions(t *testing.T, broken bool) (parent string) {
	t.Helper()
	parent = t.TempDir()
	dir := filepath.Join(parent, "sessions")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		id, maxAge string
		ago        time.Duration
		members    string
	}{
		{"WmcDb5tU", "null", 90*time.Minute + 5*time.Second, `"user":"carl"`},
		{"JkqtbLbd", "null", 11*time.Minute + 20*time.Second, `"views":1`},
		{"OLTmUuRN", "86400000", 3*time.Minute + 20*time.Second, `"user":"anna","email":"anna@example.com","cart":[{"sku":"A-17","n":2}]`},
		{"dQTZDpRd", "86400000", 35 * time.Second, `"user":"bert","email":"bert@example.com","role":"admin"`},
		{"My-LEiQI", "604800000", 2*day + 3*time.Hour, `"user":"anna","email":"anna@example.com"`},
	} {
		put(t, dir, s.id+readmeID+".json", document(time.Now().Add(-s.ago), s.maxAge, ","+s.members))
	}
	put(t, parent, "cookie.secret", "keyboard cat\n")
	if broken {
		put(t, dir, "broken00"+readmeID+".json", "{")
		if err := os.Chmod(filepath.Join(dir, "My-LEiQI"+readmeID+".json"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return parent
}

// readmeShell returns a shell's script in dir as a command. To it, filestore is this binary.
func readmeShell(t *testing.T, dir, script string) *exec.Cmd {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "filestore"), []byte("#!/bin/sh\n"+childEnv+"=1 exec '"+self+"' \"$@\"\n"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := process(t, t.Context())
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script}
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	return cmd
}

// changing is what differs from run to run, and from one file system to another.
var changing = regexp.MustCompile(`[0-9]+s ago|"20[0-9-]+T[0-9:.]+Z"|20[0-9-]+ [0-9:]+ UTC|"__lastAccess": [0-9]+|owner [a-z]+|(a write waits for|this ext4 has no journal).*`)

// readmeLines returns the lines of a transcript without what changes. Lines that come in the directory's order are sorted.
func readmeLines(text string) []string {
	lines := strings.Split(strings.TrimSpace(changing.ReplaceAllString(text, "…")), "\n")
	if unordered := regexp.MustCompile(`^({"id"|(note|warning|error) )`); unordered.MatchString(lines[0]) {
		slices.Sort(lines)
	}
	return lines
}

// The README's transcripts are true: each section's commands, one after the other, say what stands below them.
func TestReadme(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]string{
		"watch": "TestReadmeWatch",
		"serve": "TestServe, and TestReadmeCommand of the root",
		"move":  "TestMoveRedis and its neighbours",
	}
	ran := 0
	for section := range strings.SplitSeq(string(page), "\n## ") {
		head, rest, _ := strings.Cut(section, "\n")
		_, block, ok := strings.Cut(rest, "\n```\n$ ")
		if elsewhere[head] != "" || !ok {
			continue
		}
		t.Run(head, func(t *testing.T) {
			dir := readmeSessions(t, head == "check" || head == "export, import")
			if head == "export, import" {
				if err := os.Mkdir(filepath.Join(dir, "new"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			block, _, _ = strings.Cut(block, "```")
			for part := range strings.SplitSeq(block, "\n$ ") {
				line, want, _ := strings.Cut(part, "\n")
				out, err := readmeShell(t, dir, line).CombinedOutput()
				if err != nil && err.Error() != "exit status 1" {
					t.Fatalf("$ %s: %v", line, err)
				}
				if got, want := readmeLines(string(out)), readmeLines(want); !slices.Equal(got, want) {
					t.Errorf("$ %s\n%s\nthe README has\n%s", line, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				ran++
			}
		})
	}
	if ran < 15 {
		t.Errorf("only %d commands were run", ran)
	}
}

// The README's transcript of watch is true.
func TestReadmeWatch(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "\n```\n$ filestore watch ")
	block, _, _ = strings.Cut(block, "\n```")
	args, want, _ := strings.Cut(block, "\n")
	if !ok {
		t.Fatal("the README does not show watch")
	}
	parent := readmeSessions(t, false)
	dir := filepath.Join(parent, "sessions")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := process(t, ctx, append([]string{"watch"}, strings.Fields(args)...)...)
	cmd.Dir = parent
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	file := func(id string) string { return filepath.Join(dir, id+readmeID+".json") }
	ready := make(chan struct{})
	go func() { // nothing tells when it has begun to watch
		for {
			put(t, dir, "probe000.json", document(time.Now(), "null", ""))
			select {
			case <-ready:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	lines.Scan()
	ready <- struct{}{}
	time.Sleep(3 * time.Second) // until it has read what was there before
	replace := func(id, members string) {
		put(t, parent, "next", document(time.Now(), "3600000", members))
		if err := os.Rename(filepath.Join(parent, "next"), file(id)); err != nil {
			t.Fatal(err)
		}
	}
	replace("x8sOpgMq", "")
	var got []string
	next := func() {
		for lines.Scan() {
			if line := lines.Text(); !strings.Contains(line, "probe000") {
				got = append(got, line)
				return
			}
		}
		t.Fatalf("watch has ended after %q", got)
	}
	next()
	replace("x8sOpgMq", `,"user":"dora"`)
	next()
	os.Remove(file("dQTZDpRd"))
	next()
	os.Remove(file("WmcDb5tU"))
	next()
	cmd.Process.Kill()
	cmd.Wait()
	clocks := regexp.MustCompile(`(?m)^[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}`)
	if got := clocks.ReplaceAllString(strings.Join(got, "\n"), "T"); got != clocks.ReplaceAllString(want, "T") {
		t.Errorf("watch prints\n%s\nthe README has\n%s", got, want)
	}
}
