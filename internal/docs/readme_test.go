package docs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// blocks returns the code blocks of a page that begin with ```lang.
func blocks(page, lang string) (all []string) {
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		if m[1] == lang {
			all = append(all, m[2])
		}
	}
	return all
}

// block returns the one code block of the README and docs/ that begins with start.
func block(t *testing.T, lang, start string) string {
	t.Helper()
	var found []string
	for _, page := range pages(t) {
		for _, b := range blocks(page, lang) {
			if strings.HasPrefix(b, start) {
				found = append(found, b)
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("the pages have %d blocks that begin with %q, want 1", len(found), start)
	}
	return found[0]
}

// The README stays short: what a newcomer does not need belongs into docs/.
func TestReadmeIsShort(t *testing.T) {
	if n := len(strings.Fields(readFile(t, ".", "README.md"))); n >= 1200 || n < 600 {
		t.Errorf("the README has %d words, want about 900, code and tables included, and fewer than 1,200", n)
	}
}

// shell returns the command that runs script in dir, with the programs in bin before those of the system.
func shell(t *testing.T, dir, bin, script string, env ...string) *exec.Cmd {
	t.Helper()
	if runtime.GOOS == "windows" {
		skip.Test(t, "the README's commands are a Unix shell's")
	}
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip.Test(t, "the README's commands need "+tool)
		}
	}
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH")), env...)
	return cmd
}

// transcript runs the commands of a block, which are the lines that begin with "$ ". It compares their
// output with the lines below, after edit has changed both.
func transcript(t *testing.T, dir, bin, block string, edit func(string) string) {
	t.Helper()
	n := 0
	for part := range strings.SplitSeq("\n"+block, "\n$ ") {
		command, want, _ := strings.Cut(part, "\n")
		if command == "" {
			continue
		}
		n++
		cmd := shell(t, dir, bin, edit(command))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		got, want := edit(strings.TrimSpace(string(out))), edit(strings.TrimSpace(want))
		if err != nil || got != want {
			t.Errorf("$ %s: %v %s\ngot\n%s\nthe README has\n%s", command, err, stderr.String(), got, want)
		}
	}
	if n == 0 {
		t.Errorf("no command in\n%s", block)
	}
}

var stamps = regexp.MustCompile(`"(__created|__lastAccess)":[0-9]{13}`)

// freeAddr returns an address where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	return "127.0.0.1:" + storetest.SitePort(t)
}

// build makes the program of source, in a folder of its own in the workspace, and returns its path.
func build(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "main.go", source)
	program := filepath.Join(dir, "program.exe")
	if out, err := exec.Command("go", "build", "-o", program, filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s\n%s", err, out, source)
	}
	return program
}

// start starts a program that listens on addr, in dir, until the test ends.
func start(t *testing.T, program, dir, addr string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return cmd
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the program does not listen: %v\n%s", err, stderr.String())
		}
	}
}

const listens = `"localhost:8000"`

// The README's program runs in a module that is made as the README says, and answers its curl.
func TestReadmeTwoMinutes(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	if err := os.Symlink(root, filepath.Join(parent, "filestore")); err != nil {
		skip.Test(t, err.Error())
	}
	addr := freeAddr(t)
	outside := []string{"GOWORK=off", "GOFLAGS="}
	if out, err := shell(t, parent, "", block(t, "", "mkdir site"), outside...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	site := filepath.Join(parent, "site")
	program := block(t, "go", "package main")
	if strings.Count(program, listens) != 1 {
		t.Fatal("the program listens elsewhere")
	}
	write(t, site, "main.go", strings.Replace(program, listens, `"`+addr+`"`, 1))
	const tidy = "go mod tidy"
	if !strings.Contains(readFile(t, ".", "README.md"), "`"+tidy+" && go run .`") {
		t.Fatal("the README starts the program otherwise")
	}
	if out, err := storetest.Download(t.Context(), func() *exec.Cmd { return shell(t, site, "", tidy, outside...) }); err != nil {
		if regexp.MustCompile(`dial tcp|no such host|module lookup disabled`).Match(out) {
			skip.Test(t, fmt.Sprintf("no module proxy: %s", out))
		}
		t.Fatalf("%s: %v\n%s", tidy, err, out)
	}
	if out, err := shell(t, site, "", "go build -o program.exe .", outside...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	running := start(t, filepath.Join(site, "program.exe"), site, addr)
	visits := block(t, "", "$ curl -b")
	local := localCurl(addr)
	transcript(t, site, "", visits, local)

	// It shuts down properly: without an error, and the next visit is the third.
	if err := running.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := running.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	start(t, filepath.Join(site, "program.exe"), site, addr)
	command, _, _ := strings.Cut(visits, "\n")
	transcript(t, site, "", command+"\nVisit 3\n", local)
}

// localCurl returns a function that lets a transcript of curl ask addr.
func localCurl(addr string) func(string) string {
	return func(s string) string {
		s = strings.ReplaceAll(s, "curl", "curl -s")
		return strings.ReplaceAll(s, "localhost:8000", addr)
	}
}

// wholeSite returns the README's first program with all that the README puts into it, as a reader would, so that it listens on
// addr, and with the pages that docs/OPERATING.md mounts, below /mounted.
func wholeSite(t *testing.T, addr string) string {
	t.Helper()
	functions := block(t, "go", "// http.HandleFunc(\"POST /login") + block(t, "go", "type Cart") + block(t, "go", "// http.HandleFunc(\"POST /logout-others")
	var routes strings.Builder
	for _, m := range regexp.MustCompile(`(?m)^// (http\.HandleFunc\(.*\))$`).FindAllStringSubmatch(functions, -1) {
		routes.WriteString(m[1] + "\n")
	}
	devices := "http.Handle(\"/account/devices/\", sessionui.Devices(sessions, nil))"
	if !strings.Contains(readFile(t, ".", "README.md"), "`"+devices+"`") || strings.Count(routes.String(), "\n") != 5 {
		t.Fatalf("the README has other routes than\n%s%s", routes.String(), devices)
	}
	program := block(t, "go", "package main")
	for old, new := range map[string]string{
		listens:                      `"` + addr + `"`,
		"import (\n":                 "import (\n\"time\"\n\"github.com/sessionfilestore/filestore/sessionui\"\n",
		"\n\tserver := &http.Server": "\n" + routes.String() + devices + "\nmounted := http.NewServeMux()\nmount(mounted, store, sessions)\nhttp.Handle(\"/mounted/\", http.StripPrefix(\"/mounted\", mounted))\n\n\tserver := &http.Server",
	} {
		if strings.Count(program, old) != 1 {
			t.Fatalf("the program has not one %q", old)
		}
		program = strings.Replace(program, old, new, 1)
	}
	return program + "\n" + functions + block(t, "go", "func mount")
}

// The README's functions do what is said of them, in one program: log in and out, remember, flash, keep a struct, end the
// others.
func TestReadmeLogin(t *testing.T) {
	t.Parallel()
	addr, dir := freeAddr(t), t.TempDir()
	start(t, build(t, wholeSite(t, addr)), dir, addr)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar}
	site, _ := url.Parse("http://" + addr)
	send := func(client *http.Client, method, path, form string) (int, string) {
		t.Helper()
		req, _ := http.NewRequest(method, site.String()+path, strings.NewReader(form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res.StatusCode, string(body)
	}
	do := func(method, path, form, want string) {
		t.Helper()
		if code, body := send(&client, method, path, form); code != 200 || body != want {
			t.Errorf("%s %s: %d %s, want %s", method, path, code, body, want)
		}
	}
	files := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "sessions", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	do("GET", "/hello", "", "Hello, \"\". []\n")
	if code, _ := send(&client, "POST", "/login", "username=anna&password=wrong"); code != http.StatusUnprocessableEntity {
		t.Errorf("a wrong password: %d", code)
	}
	if left := files(); len(left) != 0 {
		t.Errorf("a visit that puts nothing in and a wrong password leave %q", left)
	}
	do("POST", "/cart", "item=tea", "")
	before := files()
	do("POST", "/login", "username=anna&password=secret", "Hello, \"anna\". [Welcome back.]\n")
	after := files()
	if len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("the files were %q, and are %q after the login: the id must change, and the old session end", before, after)
	}
	do("GET", "/hello", "", "Hello, \"anna\". []\n")
	do("POST", "/cart", "item=cake", "")
	if data := readFile(t, "", after[0]); !strings.Contains(data, `"cart":{"Items":["tea","cake"]}`) {
		t.Errorf("the cart in %s", data)
	}

	// Anna sees her devices, and olga, who is an operator, everybody's sessions.
	for _, path := range []string{"/account/devices/", "/mounted/account/devices/"} {
		if code, body := send(&client, "GET", path, ""); code != 200 || strings.Count(body, "data-session") != 1 || !strings.Contains(body, "data-current") {
			t.Errorf("anna's devices at %s: %d\n%s", path, code, body)
		}
	}
	if code, body := send(&client, "GET", "/mounted/admin/sessions/", ""); code != http.StatusForbidden || strings.Contains(body, "data-session") {
		t.Errorf("the operator's page for anna: %d\n%s", code, body)
	}
	olgas, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	olga := &http.Client{Jar: olgas}
	send(olga, "POST", "/login", "username=olga&password=secret")
	if code, body := send(olga, "GET", "/mounted/admin/sessions/", ""); code != 200 || !strings.Contains(body, `data-figure="live">2<`) || !strings.Contains(body, `data-action="end"`) {
		t.Errorf("the operator's page: %d\n%s", code, body)
	}
	send(olga, "POST", "/logout", "")
	for _, id := range files() { // the visit after the logout
		if id != after[0] {
			os.Remove(id)
		}
	}

	// "Remember me" makes a cookie that stays.
	remembered := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for form, want := range map[string]int{"username=carl&password=secret": 0, "username=carl&password=secret&remember=on": 30 * 24 * 3600} {
		res, err := remembered.Post(site.String()+"/login", "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if c := res.Cookies(); res.StatusCode != http.StatusSeeOther || len(c) != 1 || c[0].MaxAge != want {
			t.Errorf("%s: %d, cookies %v, want a MaxAge of %d", form, res.StatusCode, c, want)
		}
	}

	// Anna ends her two other browsers. Bert's stays, and so does her own.
	var others []*http.Client
	for _, user := range []string{"anna", "anna", "bert"} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &http.Client{Jar: jar}
		send(c, "POST", "/login", "username="+user+"&password=secret")
		others = append(others, c)
	}
	do("POST", "/logout-others", "", "Ended: 2\n")
	for i, want := range []string{"", "", "bert"} {
		if _, got := send(others[i], "GET", "/hello", ""); got != fmt.Sprintf("Hello, %q. []\n", want) {
			t.Errorf("browser %d: %s, want %q", i+1, got, want)
		}
	}
	do("GET", "/hello", "", "Hello, \"anna\". []\n")

	transcript(t, dir, "", block(t, "", "$ curl -L"), localCurl(addr))

	bert := others[2]
	bert.CheckRedirect = remembered.CheckRedirect
	was := len(files())
	res, err := bert.Post(site.String()+"/logout", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if left := files(); res.StatusCode != http.StatusSeeOther || len(left) != was-1 || len(bert.Jar.Cookies(site)) != 0 {
		t.Errorf("after the logout: %d, files %q, cookies %v", res.StatusCode, left, bert.Jar.Cookies(site))
	}
}

// The README's transcripts of the command are true. The command is installed as the README says.
func TestReadmeCommand(t *testing.T) {
	t.Parallel()
	readme, bin := readFile(t, ".", "README.md"), t.TempDir()
	const install = "go install ./cmd/filestore"
	if !strings.Contains(readme, "`"+install+"`") {
		t.Fatalf("the README does not say %s", install)
	}
	if out, err := shell(t, ".", "", install, "GOBIN="+bin).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", install, err, out)
	}
	put := func(dir, id, maxAge string, ago time.Duration, members string) {
		t.Helper()
		at := time.Now().Add(-ago).UnixMilli()
		write(t, dir, id+".json", fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":null,"httpOnly":true,"path":"/"},%s,"__lastAccess":%d}`, maxAge, members, at))
	}
	sessions := func() (parent, dir string) {
		parent = t.TempDir()
		dir = filepath.Join(parent, "sessions")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return parent, dir
	}

	parent, dir := sessions()
	write(t, dir, "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.json", fmt.Sprintf(
		`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","sameSite":"lax"},"user":"anna","__created":%d,"__lastAccess":%[1]d}`, nowMs()))
	transcript(t, parent, bin, block(t, "", "$ cat sessions")+block(t, "", "$ filestore rm"), func(s string) string { return stamps.ReplaceAllString(s, "$1") })
	if left, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(left) != 0 {
		t.Errorf("after rm there are %q", left)
	}

	parent, dir = sessions()
	put(dir, "WmcDb5tUHMk1bUT5S9Xb7R2v3eQnOzaW", "null", 90*time.Minute, `"user":"carl"`)
	put(dir, "JkqtbLbdHMk1bUT5S9Xb7R2v3eQnOzaW", "null", 11*time.Minute+20*time.Second, `"views":1`)
	put(dir, "OLTmUuRNHMk1bUT5S9Xb7R2v3eQnOzaW", "86400000", 3*time.Minute+20*time.Second, `"user":"anna","email":"anna@example.com","cart":[{"sku":"A-17","n":2}]`)
	transcript(t, parent, bin, block(t, "", "$ filestore ls"), func(s string) string { return s })
	serves(t, parent, bin, block(t, "", "$ filestore se"))
}

// serves runs a block that shows the three sessions of a directory in a browser until Ctrl-C.
func serves(t *testing.T, dir, bin, block string) {
	t.Helper()
	command, want, _ := strings.Cut(strings.TrimPrefix(block, "$ "), "\n")
	cmd := shell(t, dir, bin, "exec "+command)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer late.Stop()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)
	first, _ := lines.ReadString('\n')
	second, err := lines.ReadString('\n')
	random := regexp.MustCompile(`:[0-9]+/\?key=[A-Z2-7]{26}\n`)
	if got := first + second; err != nil || random.ReplaceAllString(got, "") != random.ReplaceAllString(want, "") || !random.MatchString(got) || !random.MatchString(want) {
		t.Fatalf("$ %s: %v\ngot\n%s\nthe README has\n%s", command, err, got, want)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 30 * time.Second}
	res, err := client.Get(strings.TrimSpace(first))
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(res.Body)
	res.Body.Close()
	client.CloseIdleConnections()
	if err != nil || res.StatusCode != http.StatusOK || strings.Count(string(page), `<tr role="row" data-session=`) != 3 || strings.Contains(string(page), "<form method=\"post\"") {
		t.Errorf("%s shows %s, %v\n%s", command, res.Status, err, page)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s after Ctrl-C: %v", command, err)
	}
}

// A test runs each block of commands in the README and docs/, or checks that it can be run.
func TestDocsCommands(t *testing.T) {
	known := map[string]func(t *testing.T, block string){
		"$ cat sessions": nil, // TestReadmeCommand
		"$ filestore rm": nil,
		"$ filestore ls": nil,
		"$ filestore se": nil,
		"mkdir site":     nil, // TestReadmeTwoMinutes
		"filestore move": nil, // TestDatabasesMove
		"$ curl":         nil,
		// The example has tests of its own, and the other command is what it says.
		"go run ./example ": func(t *testing.T, block string) {
			if !strings.Contains(block, "\ngo test ./... ") {
				t.Errorf("another command in %s", block)
			}
			compiles(t, "./example")
			out, err := exec.Command("go", "list", "./...").CombinedOutput()
			for _, pkg := range []string{"", "/session", "/kruptein", "/sealed", "/internal/interop"} {
				if err != nil || !strings.Contains(string(out), "github.com/sessionfilestore/filestore"+pkg+"\n") {
					t.Errorf("go list ./...: %v, and without %q\n%s", err, pkg, out)
				}
			}
		},
		"go run ./example/express ": func(t *testing.T, block string) { // TestBothOnOnePage runs it
			if strings.Contains(block, "-store") { // TestSites runs both sides on each server
				return
			}
			if !strings.Contains(readFile(t, ".", "example/express/main.go"), `"`+strings.TrimSpace(block[strings.Index(block, "//")+2:])+`"`) {
				t.Errorf("another address in %s", block)
			}
			compiles(t, "./example/express")
		},
		"printf %s": func(t *testing.T, block string) {
			if _, err := exec.LookPath("sha256sum"); err != nil && runtime.GOOS != "linux" {
				return
			}
			s := storetest.OpenDamaged(t, t.TempDir(), storetest.Quick())
			_, err := s.Get(ctx, "some-id")
			out, shErr := shell(t, ".", "", "id=some-id\n"+block).Output()
			if hash := strings.TrimSpace(string(out)); shErr != nil || len(hash) != 8 || !strings.Contains(err.Error(), " "+hash+":") {
				t.Errorf("%s prints %q, %v; the error is %v", block, hash, shErr, err)
			}
		},
		"find sessions": func(t *testing.T, block string) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "sessions")
			os.Mkdir(dir, 0o700)
			for name, age := range map[string]int{"old.json": 40, "young.json": 20, "other": 40} {
				write(t, dir, name, "")
				at := time.Now().AddDate(0, 0, -age)
				os.Chtimes(filepath.Join(dir, name), at, at)
			}
			if out, err := shell(t, parent, "", block).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			var left []string
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if !slices.Equal(left, []string{"other", "young.json"}) {
				t.Errorf("left are %q", left)
			}
		},
		"GOOS=windows ": func(t *testing.T, block string) { // Wine runs what it makes
			build, _, _ := strings.Cut(block, " && ")
			test := filepath.Join(t.TempDir(), "x.exe")
			out, err := shell(t, "internal/words", "", strings.Replace(build, "/tmp/x.test.exe", "'"+test+"'", 1)).CombinedOutput()
			if binary, readErr := os.ReadFile(test); err != nil || readErr != nil || !bytes.HasPrefix(binary, []byte("MZ")) {
				t.Errorf("%s: %v, %v\n%s", block, err, readErr, out)
			}
		},
		"go test ./...": func(t *testing.T, block string) { // CONTRIBUTING
			if _, err := os.Stat("fault/mutants/main.go"); err != nil || !regexp.MustCompile(`^go test \./\.\.\. .*\ngo test work .*\ngo run \./fault/mutants .*\nbash \.ci/run .*\n$`).MatchString(block) {
				t.Errorf("%v in\n%s", err, block)
			}
		},
	}
	// These blocks are not commands: the layout of the packages, and examples in FORMAT.md.
	show := regexp.MustCompile(`^(cmd/filestore  |life    = |encodeURIComponent|\{"(hmac|sealed)")`)
	used := make(map[string]bool)
	for page, text := range pages(t) {
		for _, b := range blocks(text, "") {
			if show.MatchString(b) {
				continue
			}
			n := 0
			for start, run := range known {
				if strings.HasPrefix(b, start) {
					n++
					if used[start] = true; run != nil {
						run(t, b)
					}
				}
			}
			if n != 1 {
				t.Errorf("%s has commands that %d tests run:\n%s", page, n, b)
			}
		}
	}
	for start := range known {
		if !used[start] {
			t.Errorf("no page has commands that begin with %q", start)
		}
	}
}

func compiles(t *testing.T, pkg string) {
	t.Helper()
	if out, err := exec.Command("go", "vet", pkg).CombinedOutput(); err != nil {
		t.Errorf("go vet %s: %v\n%s", pkg, err, out)
	}
}

// Each piece of Go in the pages, and in the comments of the two packages, compiles.
func TestDocsGo(t *testing.T) {
	t.Parallel()
	imports := map[string]string{"context": "context", "fmt": "fmt", "log": "log", "http": "net/http", "time": "time", "expvar": "expvar",
		"errors": "errors", "slog": "log/slog", "strings": "strings", "testing": "testing", "httptest": "net/http/httptest",
		"prometheus": "github.com/prometheus/client_golang/prometheus", "promhttp": "github.com/prometheus/client_golang/prometheus/promhttp",
		"filestore": "github.com/sessionfilestore/filestore", "promstats": "github.com/sessionfilestore/filestore/metrics/promstats"}
	for _, name := range []string{"session", "sessionui", "kruptein", "sealed"} {
		imports[name] = imports["filestore"] + "/" + name
	}
	imports["sessiontest"] = imports["session"] + "/sessiontest"
	imports["redis"], imports["redisstore"] = "github.com/redis/go-redis/v9", imports["filestore"]+"/backend/redisstore"
	dir := t.TempDir()
	write(t, dir, "main.go", "package main\n\nfunc main() {}\n")
	args := []string{"vet", filepath.Join(dir, "main.go")}
	n := 0
	all := pages(t)
	for _, source := range []string{"filestore.go", "session/session.go"} { // the use in the package's comment
		comment, _, _ := strings.Cut(readFile(t, ".", source), "\npackage ")
		use := strings.Join(regexp.MustCompile(`(?m)^//\t.*\n`).FindAllString(comment, -1), "")
		if lines := strings.Count(use, "\n"); lines < 5 || lines > 10 {
			t.Errorf("%s begins with a use of %d lines, want about 8", source, lines)
		}
		all[source] = "```go\n" + strings.ReplaceAll(use, "//\t", "") + "```\n"
	}
	for page, text := range all {
		if page == "docs/FRAMEWORKS.md" { // adapter/internal/routers has its pieces, and what they import
			continue
		}
		for _, b := range blocks(text, "go") {
			n++
			if strings.HasPrefix(b, "package main\n") {
				compiles(t, filepath.Join(filepath.Dir(build(t, b)), "main.go"))
				continue
			}
			code := b
			if !regexp.MustCompile(`\A(//.*\n)?(func|type) `).MatchString(b) {
				// The block is a part of a function: the names that it does not declare become parameters,
				// and those that it does not use are used.
				use := ""
				for _, m := range regexp.MustCompile(`(?m)^([a-z][a-zA-Z, ]*) := `).FindAllStringSubmatch(b, -1) {
					for name := range strings.SplitSeq(m[1], ", ") {
						use += "_ = " + name + "\n"
					}
				}
				code = "func _(ctx context.Context, store *filestore.Store, id, secret string, key []byte,\n" +
					"sessions *session.Manager, mux *http.ServeMux, r *http.Request, user string, secrets []string) {\n{\n" + b + use + "}\n}\n"
			}
			source := "package main\n\nimport (\n"
			for name, path := range imports {
				if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(code) {
					source += fmt.Sprintf("\t%q\n", path)
				}
			}
			name := fmt.Sprintf("piece%d.go", n)
			write(t, dir, name, source+")\n\n// "+page+"\n"+code)
			args = append(args, filepath.Join(dir, name))
		}
	}
	if n < 5 {
		t.Errorf("only %d pieces of Go", n)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}

// The test file of the recipes has each of them, to the letter.
func TestRecipesAreRun(t *testing.T) {
	source := readFile(t, "session", "recipes_test.go")
	all := append(blocks(readFile(t, "docs", "RECIPES.md"), "go"), block(t, "go", "func TestAccount"))
	for _, b := range all {
		if !strings.Contains(source, "\n"+b) {
			t.Errorf("session/recipes_test.go does not have\n%s", b)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (\w+)`).FindAllStringSubmatch(b, -1) {
			if n := len(regexp.MustCompile(`\b`+m[1]+`\b`).FindAllString(source, -1)); n < 2 && !strings.HasPrefix(m[1], "Test") {
				t.Errorf("session/recipes_test.go does not use %s", m[1])
			}
		}
	}
	if len(all) < 10 {
		t.Errorf("only %d recipes", len(all))
	}
}
