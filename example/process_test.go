package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

// If this variable is set, the test binary is the program.
const beProgram = "FILESTORE_EXAMPLE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
		os.Exit(0) // as after main
	}
	storetest.Main(m, nil)
}

// A process is a running program.
type process struct {
	*exec.Cmd
	url    string
	stderr bytes.Buffer // read it after Wait only
}

var startRE = regexp.MustCompile(`^filestore example: (http://127\.0\.0\.1:[1-9]\d*)  sessions in (.+)\n$`)

// start runs the program on dir and a free port, and kills it after a minute.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p := &process{Cmd: exec.CommandContext(ctx, os.Args[0], append([]string{"-addr", "127.0.0.1:0", "-dir", dir}, args...)...)}
	p.Env = append(os.Environ(), beProgram+"=1", "SESSION_SECRET=")
	p.Stderr = &p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		p.Wait() // fails if the test has waited
		if t.Failed() {
			t.Logf("the program's log:\n%s", p.stderr.Bytes())
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	m := startRE.FindStringSubmatch(line)
	if err != nil || m == nil || m[2] != dir && !slices.Contains(args, "-store") {
		t.Fatalf("the program printed %q, %v", line, err)
	}
	p.url = m[1]
	return p
}

func TestLoginsSurviveKill(t *testing.T) { onEach(t, testLoginsSurviveKill) }

func testLoginsSurviveKill(t *testing.T, at place) {
	p := at.start(t)
	b := newBrowser(t, p.url)
	b.want(b.login("mypassword"), http.StatusSeeOther, "/")
	count := 0
	for range 3 {
		for range 5 {
			count++
			if got := b.views(); got != count {
				t.Fatalf("visit %d: got %d", count, got)
			}
		}
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) {
			t.Fatalf("the killed program ended with %v", err)
		}
		p = at.start(t)
		b.base = p.url // another port, which cookies ignore
		b.want(b.get("/user"), http.StatusOK, "")
	}
	b.post("/logout", nil)
	b.want(b.get("/admin"), http.StatusForbidden, "")
	if at.url == "" {
		checkDir(t, at.dir)
	}
}

// With -encrypt logins survive a restart too, and what is stored shows nothing.
func TestEncrypt(t *testing.T) { onEach(t, testEncrypt) }

func testEncrypt(t *testing.T, at place) {
	p := at.start(t, "-encrypt")
	b := newBrowser(t, p.url)
	b.want(b.login("mypassword"), http.StatusSeeOther, "/")
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	ids := at.ids(t)
	if len(ids) != 1 {
		t.Fatalf("%d sessions, want one", len(ids))
	}
	text := at.stored(t, ids[0])
	if strings.Contains(text, "user") || strings.Contains(text, "cookie") || !strings.Contains(text, `"salt"`) {
		t.Errorf("the session is not encrypted: %s", text)
	}
	b.base = at.start(t, "-encrypt").url
	b.want(b.get("/user"), http.StatusOK, "")
	if a := b.want(b.get("/session"), http.StatusOK, ""); !strings.Contains(a.body, "user1") {
		t.Errorf("the session's page is\n%s", a.body)
	}

	// Without -encrypt the session cannot be read: its visitor has no session, and it stays.
	b.base = at.start(t).url
	b.want(b.get("/user"), http.StatusSeeOther, "/?next=/user")
	if !at.has(t, ids[0]) {
		t.Error("the session is gone")
	}
}

// Two programs on the same sessions share the secret, the login and the counter.
func TestTwoProcesses(t *testing.T) { onEach(t, testTwoProcesses) }

func testTwoProcesses(t *testing.T, at place) {
	p, q := at.start(t), at.start(t)
	b := newBrowser(t, p.url)
	b.want(b.login("mypassword"), http.StatusSeeOther, "/")
	for i := 1; i <= 20; i++ {
		b.base = p.url
		if i%2 == 0 {
			b.base = q.url
		}
		if got := b.views(); got != i {
			t.Fatalf("visit %d: got %d", i, got)
		}
	}
	b.post("/logout", nil)
	b.base = p.url
	b.want(b.get("/user"), http.StatusSeeOther, "/?next=/user")
}

func TestTrustProxyFlag(t *testing.T) {
	for flag, want := range map[string]bool{"-trust-proxy=false": false, "-trust-proxy": true} {
		p := start(t, filepath.Join(t.TempDir(), "sessions"), flag)
		b := newBrowser(t, p.url)
		a := b.do("POST", "/login", `{"username":"user1","password":"mypassword"}`, "Content-Type", "application/json", "X-Forwarded-Proto", "https")
		b.want(a, http.StatusOK, "")
		if got := a.Cookies(); len(got) != 1 || got[0].Secure != want {
			t.Errorf("%s: cookies %v, want Secure %v", flag, got, want)
		}
	}
}

func TestRefusesToStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "sessions")
	if err := os.WriteFile(short+".secret", []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SESSION_SECRET", "")
	for name, args := range map[string][]string{
		"a file for a directory": {"-dir", file},
		"a short secret":         {"-dir", short},
		"no such address":        {"-dir", filepath.Join(t.TempDir(), "s"), "-addr", "127.0.0.1:99999"},
		"a stray argument":       {"-dir", filepath.Join(t.TempDir(), "s"), "stray"},
	} {
		var out bytes.Buffer
		if err := run(args, &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: run = %v, printed %q", name, err, out.String())
		}
	}
}
