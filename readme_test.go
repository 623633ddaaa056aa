package filestore_test

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
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
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

// block returns the one code block of the README that begins with start.
func block(t *testing.T, lang, start string) string {
	t.Helper()
	var found []string
	for _, b := range blocks(readFile(t, ".", "README.md"), lang) {
		if strings.HasPrefix(b, start) {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the README has %d blocks that begin with %q, want 1", len(found), start)
	}
	return found[0]
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
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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
func start(t *testing.T, program, dir, addr string) {
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
			return
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the program does not listen: %v\n%s", err, stderr.String())
		}
	}
}

const listens = `"localhost:8080"`

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
	tidy, run, _ := strings.Cut(block(t, "", "go mod tidy"), " && ")
	if run != "go run .\n" {
		t.Fatalf("the README runs %q", run)
	}
	if out, err := shell(t, site, "", tidy, outside...).CombinedOutput(); err != nil {
		if regexp.MustCompile(`dial tcp|no such host|module lookup disabled`).Match(out) {
			skip.Test(t, fmt.Sprintf("no module proxy: %s", out))
		}
		t.Fatalf("%s: %v\n%s", tidy, err, out)
	}
	if out, err := shell(t, site, "", "go build -o program.exe .", outside...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	start(t, filepath.Join(site, "program.exe"), site, addr)
	transcript(t, site, "", block(t, "", "$ curl"), func(s string) string {
		s = strings.Replace(s, "curl", "curl -s", 1)
		s = strings.Replace(s, "localhost:8080", addr, 1)
		return stamps.ReplaceAllString(s, "$1")
	})
}

// The README's routes for logging in and out do what its comments say.
func TestReadmeLogin(t *testing.T) {
	t.Parallel()
	addr, dir := freeAddr(t), t.TempDir()
	start(t, build(t, `package main

import (
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

func main() {
	store, err := filestore.Open("sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}}
	mux := http.NewServeMux()
	routes(mux)
	mount(mux, store, sessions)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		s.Put("seen", true)
		user, _ := session.Value[string](s, "user")
		messages, _ := s.Flashes("info")
		fmt.Fprintf(w, "%q %q", user, messages)
	})
	mux.HandleFunc("GET /handle", func(w http.ResponseWriter, r *http.Request) {
		list, _ := sessions.Sessions(r.Context(), "anna")
		for _, s := range list {
			if s.Current {
				fmt.Fprint(w, s.Handle)
			}
		}
	})
	mux.HandleFunc("POST /devices", func(w http.ResponseWriter, r *http.Request) {
		ctx, user, handle := r.Context(), "anna", r.FormValue("handle")
		`+block(t, "go", "list, err := sessions.Sessions")+`
		fmt.Fprint(w, len(list), " ", n, " ", fresh, " ", err)
	})
	log.Fatal(http.ListenAndServe("`+addr+`", sessions.Handler(mux)))
}

`+block(t, "go", "func routes")+block(t, "go", "func mount")), dir, addr)
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
	do("GET", "/", "", `"" []`)
	before := files()
	do("POST", "/login", "username=anna", `"anna" ["Welcome back."]`)
	after := files()
	if len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("the files were %q, and are %q after the login: the id must change, and the old session end", before, after)
	}
	do("GET", "/", "", `"anna" []`)

	// Anna sees her devices, and olga, who is an operator, everybody's sessions.
	if code, body := send(&client, "GET", "/account/devices/", ""); code != 200 || strings.Count(body, "data-session") != 1 || !strings.Contains(body, "data-current") {
		t.Errorf("anna's devices: %d\n%s", code, body)
	}
	if code, body := send(&client, "GET", "/admin/sessions/", ""); code != http.StatusForbidden || strings.Contains(body, "data-session") {
		t.Errorf("the operator's page for anna: %d\n%s", code, body)
	}
	olgas, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	olga := &http.Client{Jar: olgas}
	send(olga, "POST", "/login", "username=olga")
	if code, body := send(olga, "GET", "/admin/sessions/", ""); code != 200 || !strings.Contains(body, `data-figure="live">2<`) || !strings.Contains(body, `data-action="end"`) {
		t.Errorf("the operator's page: %d\n%s", code, body)
	}
	send(olga, "POST", "/logout", "")
	for _, id := range files() { // the visit after the logout
		if id != after[0] {
			os.Remove(id)
		}
	}

	// Of anna's two other browsers one is ended by its handle, the other with all others. Bert's stays.
	var others []*http.Client
	for _, user := range []string{"anna", "anna", "bert"} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &http.Client{Jar: jar}
		send(c, "POST", "/login", "username="+user)
		others = append(others, c)
	}
	_, handle := send(others[0], "GET", "/handle", "")
	do("POST", "/devices", url.Values{"handle": {handle}}.Encode(), "3 1 true <nil>")
	for i, want := range []string{`"" []`, `"" []`, `"bert" []`} {
		if _, got := send(others[i], "GET", "/", ""); got != want {
			t.Errorf("browser %d: %s, want %s", i+1, got, want)
		}
		send(others[i], "POST", "/logout", "")
	}
	for _, id := range files() { // what the two have left as visitors
		if id != after[0] {
			os.Remove(id)
		}
	}

	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Post(site.String()+"/logout", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if left := files(); res.StatusCode != http.StatusSeeOther || len(left) != 0 || len(jar.Cookies(site)) != 0 {
		t.Errorf("after the logout: %d, files %q, cookies %v", res.StatusCode, left, jar.Cookies(site))
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
	put(dir, "JkqtbLbdHMk1bUT5S9Xb7R2v3eQnOzaW", "null", 0, `"views":1`)
	write(t, dir, "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.json", fmt.Sprintf(
		`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","sameSite":"lax"},"user":"anna","__created":%d,"__lastAccess":%[1]d}`, nowMs()))
	transcript(t, parent, bin, block(t, "", "$ ls sessions"), func(s string) string { return stamps.ReplaceAllString(s, "$1") })
	if left, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(left) != 1 {
		t.Errorf("after rm there are %q", left)
	}

	parent, dir = sessions()
	const day = 24 * time.Hour
	put(dir, "WmcDb5tUHMk1bUT5S9Xb7R2v3eQnOzaW", "null", 90*time.Minute, `"user":"carl"`)
	put(dir, "JkqtbLbdHMk1bUT5S9Xb7R2v3eQnOzaW", "null", 11*time.Minute+20*time.Second, `"views":1`)
	put(dir, "OLTmUuRNHMk1bUT5S9Xb7R2v3eQnOzaW", "86400000", 3*time.Minute+20*time.Second, `"user":"anna","email":"anna@example.com","cart":[{"sku":"A-17","n":2}]`)
	put(dir, "dQTZDpRdHMk1bUT5S9Xb7R2v3eQnOzaW", "86400000", 35*time.Second, `"user":"bert","email":"bert@example.com","role":"admin"`)
	put(dir, "My-LEiQIHMk1bUT5S9Xb7R2v3eQnOzaW", "604800000", 2*day+3*time.Hour, `"user":"anna","email":"anna@example.com"`)
	seconds := regexp.MustCompile(`[0-9]+s ago`)
	transcript(t, parent, bin, block(t, "", "$ filestore ls"), func(s string) string { return seconds.ReplaceAllString(s, "Ns ago") })
	serves(t, parent, bin, block(t, "", "$ filestore se"))
}

// serves runs a block that shows the five sessions of a directory in a browser until Ctrl-C.
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
	if err != nil || res.StatusCode != http.StatusOK || strings.Count(string(page), `<tr role="row" data-session=`) != 5 || strings.Contains(string(page), "<form method=\"post\"") {
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
		"$ ls sessions":  nil, // TestReadmeCommand
		"$ filestore ls": nil,
		"$ filestore se": nil,
		"mkdir site":     nil, // TestReadmeTwoMinutes
		"go mod tidy":    nil,
		"filestore move": nil, // TestDatabasesMove
		"$ curl":         nil,
		// Both commands have tests of their own, and go test work runs this test.
		"go run ./example ": func(t *testing.T, block string) {
			if !strings.Contains(block, "\ngo test work ") {
				t.Errorf("another command in %s", block)
			}
			compiles(t, "./example")
			if out, err := exec.Command("go", "list", "work").CombinedOutput(); err != nil || !strings.Contains(string(out), "/session\n") {
				t.Errorf("go list work: %v\n%s", err, out)
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
			s := open(t, t.TempDir(), quick())
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
		"go test .": func(t *testing.T, block string) { // CONTRIBUTING
			if _, err := os.Stat("fault/mutants/main.go"); err != nil || !regexp.MustCompile(`^go test \. .*\ngo test work .*\ngo run \./fault/mutants .*\nbash \.ci/run .*\n$`).MatchString(block) {
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

// Each piece of Go in the pages compiles.
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
	for page, text := range pages(t) {
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
			if !strings.HasPrefix(b, "func ") {
				// The block is a part of a function: the names that it does not declare become parameters,
				// and those that it does not use are used.
				use := ""
				for _, m := range regexp.MustCompile(`(?m)^([a-z][a-zA-Z, ]*) := `).FindAllStringSubmatch(b, -1) {
					for name := range strings.SplitSeq(m[1], ", ") {
						use += "_ = " + name + "\n"
					}
				}
				code = "func _(ctx context.Context, store *filestore.Store, id string, key []byte,\n" +
					"sessions *session.Manager, r *http.Request, user, handle string) {\n{\n" + b + use + "}\n}\n"
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
	all := blocks(readFile(t, "docs", "RECIPES.md"), "go")
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
