//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// program is the site, as TestMain has built it.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "site")
	build := exec.Command("go", "build", "-o", program, ".") // as in the Dockerfile; see TestDocker
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// block returns the one code block of docs/RECIPES.md that is of the language lang and begins with start.
func block(t *testing.T, lang, start string) string {
	t.Helper()
	all := regexp.MustCompile("(?ms)^```"+lang+"\n("+regexp.QuoteMeta(start)+".*?)^```$").FindAllStringSubmatch(readFile(t, "../../docs/RECIPES.md"), -1)
	if len(all) != 1 {
		t.Fatalf("docs/RECIPES.md has %d blocks that begin with %q, want 1", len(all), start)
	}
	return all[0][1]
}

// The recipes' pieces of this program are its own, to the letter. They have tildes: in the blocks with backticks
// internal/docs expects the functions of session/recipes_test.go.
func TestPieces(t *testing.T) {
	all := regexp.MustCompile("(?ms)^~~~go\n(.*?)^~~~$").FindAllStringSubmatch(readFile(t, "../../docs/RECIPES.md"), -1)
	if len(all) != 2 {
		t.Errorf("docs/RECIPES.md has %d pieces of this program, want 2", len(all))
	}
	indent := regexp.MustCompile(`(?m)^\t`)
	source := readFile(t, "main.go")
	for _, m := range all {
		// A piece of a function has lost one tab in each line.
		if !strings.Contains(source, m[1]) && !strings.Contains(indent.ReplaceAllString(source, ""), m[1]) {
			t.Errorf("main.go does not have\n%s", m[1])
		}
	}
}

// What the recipes say in words of the site's flags is of flags that it has.
func TestFlags(t *testing.T) {
	_, run, _ := strings.Cut(readFile(t, "../../docs/RECIPES.md"), "\n## Run it\n")
	named := 0
	for _, line := range regexp.MustCompile("`-[^`\n]*`").FindAllString(run, -1) {
		for _, name := range regexp.MustCompile("[ `]-([a-z-]{2,})").FindAllStringSubmatch(line, -1) {
			if named++; flag.Lookup(name[1]) == nil {
				t.Errorf("docs/RECIPES.md names the flag -%s", name[1])
			}
		}
	}
	if named < 4 {
		t.Errorf("docs/RECIPES.md names only %d flags", named)
	}
}

// A wrong password gets the form again, and leaves no session. The right one logs in, and counts for five minutes.
func TestForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := sessiontest.NewStore()
		m := &session.Manager{Store: store, Secrets: []string{"only for tests"}}
		mux := http.NewServeMux()
		routes(mux)
		cookie := ""
		send := func(method, path, body string) *httptest.ResponseRecorder {
			r, w := httptest.NewRequest(method, path, strings.NewReader(body)), httptest.NewRecorder()
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Cookie", cookie)
			m.Handler(mux).ServeHTTP(w, r)
			for _, c := range w.Result().Cookies() {
				cookie = c.Name + "=" + c.Value
			}
			return w
		}
		want := func(w *httptest.ResponseRecorder, code int, location, body string) {
			t.Helper()
			if w.Code != code || w.Header().Get("Location") != location || !strings.Contains(w.Body.String(), body) {
				t.Errorf("%d to %q, want %d to %q with %q\n%s", w.Code, w.Header().Get("Location"), code, location, body, w.Body)
			}
		}
		for _, path := range []string{"/", "/code", "/confirm"} {
			want(send("GET", path, ""), 303, "/login", "")
		}
		want(send("POST", "/confirm", "password=correct+horse"), 303, "/login", "")
		want(send("GET", "/login", ""), 200, "", `name="user"`)
		for _, form := range []string{"user=anna&password=wrong", "user=bert&password=correct+horse", "user=%22%3E&password=", "user=bert&password=", ""} {
			w := send("POST", "/login", form)
			want(w, 422, "", "That was not right.")
			want(w, 422, "", `<input name="user"`)
			if strings.Contains(w.Body.String(), `"">`) {
				t.Errorf("the name is not escaped in\n%s", w.Body)
			}
		}
		if cookie != "" {
			t.Errorf("a wrong password sets the cookie %s", cookie)
		}
		want(send("POST", "/login", "user=anna&password=correct+horse"), 303, "/", "")
		want(send("GET", "/", ""), 200, "", "Hello, anna.")
		want(send("GET", "/code", ""), 200, "", "1234-5678")

		time.Sleep(6 * time.Minute)
		want(send("GET", "/code", ""), 303, "/confirm", "")
		if w := send("GET", "/confirm", ""); w.Code != 200 || strings.Contains(w.Body.String(), `name="user"`) {
			t.Errorf("%d, want a form without a name\n%s", w.Code, w.Body)
		}
		want(send("POST", "/confirm", "password=wrong&user=anna"), 422, "", "That was not right.")
		want(send("GET", "/code", ""), 303, "/confirm", "")
		before := cookie
		want(send("POST", "/confirm", "password=correct+horse"), 303, "/code", "")
		want(send("GET", "/code", ""), 200, "", "1234-5678")
		if cookie == before {
			t.Error("the second login keeps the id")
		}
	})
}

// The time of an answer does not tell whether a name is that of a user.
func TestUnknownNameTakesAsLong(t *testing.T) {
	took := func(user string) time.Duration {
		began := time.Now()
		if right(user, "wrong") {
			t.Errorf("the password of %s is right", user)
		}
		return time.Since(began)
	}
	known, unknown := time.Hour, time.Hour
	for range 20 { // in turn, so that both see the same load
		known, unknown = min(known, took("anna")), min(unknown, took("bert"))
		if unknown >= known/2 {
			return
		}
	}
	t.Errorf("a known name takes %v, an unknown one %v", known, unknown)
}

// start runs the site until the test ends, and waits until it listens on addr. stop ends it as systemd does.
func start(t *testing.T, addr string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = t.TempDir()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() {
		t.Helper()
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after SIGTERM: %v\n%s", err, &stderr)
			}
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			t.Errorf("after SIGTERM it goes on: %v", <-ended)
		}
	}
	t.Cleanup(func() {
		if !stopped {
			stop()
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return stop
		}
		select {
		case err := <-ended:
			stopped = true
			t.Fatalf("%q: %v\n%s", args, err, &stderr)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q: it does not listen: %v", args, err)
		}
	}
}

// visitor is a browser that is at the site.
type visitor struct {
	http.Client
	base string
}

func newVisitor(t *testing.T, base string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{http.Client{Jar: jar}, base}
}

// logIn returns the cookies that the login has set.
func (v *visitor) logIn(t *testing.T, header ...string) []*http.Cookie {
	t.Helper()
	req, err := http.NewRequest("POST", v.base+"/login", strings.NewReader("user=anna&password=correct+horse"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	own := v.Client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := own.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("login: %s", res.Status)
	}
	return res.Cookies()
}

// home returns the site's first page.
func (v *visitor) home(t *testing.T) (string, []*http.Cookie) {
	t.Helper()
	res, err := v.Get(v.base + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), res.Cookies()
}

const greeting = "Hello, anna.\n"

// newSecret puts a secret on top of the file in dir, by the recipe.
func newSecret(t *testing.T, dir string) (file string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		skip.Test(t, "openssl is not installed")
	}
	sh := exec.Command("sh", "-ec", block(t, "sh", "umask"))
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file = filepath.Join(dir, "secrets")
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o600 {
		t.Errorf("the file of secrets: %v, %v", fi, err)
	}
	return file
}

// replace exchanges what stands in a recipe for what a test can have.
func replace(t *testing.T, args []string, pairs ...string) []string {
	t.Helper()
	all := strings.Join(args, "\n")
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(all, pairs[i]) != 1 {
			t.Fatalf("%q does not have %q once", args, pairs[i])
		}
		all = strings.Replace(all, pairs[i], pairs[i+1], 1)
	}
	return strings.Split(all, "\n")
}

// setting returns the value of a line of a unit, or of an instruction of a Dockerfile.
func setting(t *testing.T, text, name, sep string) string {
	t.Helper()
	all := regexp.MustCompile(`(?m)^`+name+sep+`(.*)$`).FindAllStringSubmatch(text, -1)
	if len(all) != 1 {
		t.Fatalf("%s stands there %d times, want once", name, len(all))
	}
	return all[0][1]
}

// The unit is one that systemd understands, and the site runs as it says. Nobody is logged out by a deploy, nor by a new
// secret, until the old one is removed.
func TestSystemd(t *testing.T) {
	unit := block(t, "ini", "[Unit]")
	dir := t.TempDir()
	secrets, port := newSecret(t, dir), storetest.SitePort(t)
	exe, args, _ := strings.Cut(setting(t, unit, "ExecStart", "="), " ")
	state := "/var/lib/" + setting(t, unit, "StateDirectory", "=")
	name, _, _ := strings.Cut(setting(t, unit, "LoadCredential", "="), ":")
	run := replace(t, strings.Fields(args), ":8000", ":"+port, state, dir, "${CREDENTIALS_DIRECTORY}/"+name, secrets)
	addr := "localhost:" + port
	if wait, err := time.ParseDuration(setting(t, unit, "TimeoutStopSec", "=") + "s"); err != nil || wait < shutdownTimeout+5*time.Second {
		t.Errorf("TimeoutStopSec is %v, %v, and the site waits for %v", wait, err, shutdownTimeout)
	}

	stop := start(t, addr, run...)
	v := newVisitor(t, "http://"+addr)
	if c := v.logIn(t); len(c) != 1 || c[0].Secure {
		t.Errorf("over plain HTTP the cookies are %v", c)
	}
	if c := newVisitor(t, "http://"+addr).logIn(t, "X-Forwarded-Proto", "https"); len(c) != 1 || !c[0].Secure {
		t.Errorf("behind a proxy with TLS the cookies are %v", c)
	}
	stop()
	old := readFile(t, secrets)
	newSecret(t, dir)
	if both := readFile(t, secrets); !strings.HasSuffix(both, "\n"+old) || strings.Count(both, "\n") != 2 {
		t.Errorf("the new file does not have a new secret above the old one")
	}
	stop = start(t, addr, run...)
	if page, c := v.home(t); page != greeting || len(c) != 1 {
		t.Errorf("after a deploy with a new secret: %q, cookies %v", page, c)
	}
	stop()
	if err := os.WriteFile(secrets, []byte(strings.TrimSuffix(readFile(t, secrets), old)), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, addr, run...)
	if page, _ := v.home(t); page != greeting {
		t.Errorf("without the old secret: %q", page)
	}

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		skip.Test(t, "systemd-analyze is not installed")
	}
	file := filepath.Join(dir, "site.service")
	if err := os.WriteFile(file, []byte(strings.Replace(unit, exe, program, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	// It says what it does not know, and exits with 0.
	if out, err := exec.Command("systemd-analyze", "verify", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// In the container the site listens on all addresses, keeps its sessions in the volume, and is not root.
func TestDocker(t *testing.T) {
	file := block(t, "dockerfile", "FROM")
	var entry []string
	if err := json.Unmarshal([]byte(setting(t, file, "ENTRYPOINT", " ")), &entry); err != nil {
		t.Fatal(err)
	}
	port, volume, exposed := storetest.SitePort(t), setting(t, file, "VOLUME", " "), setting(t, file, "EXPOSE", " ")
	dir := t.TempDir()
	run := replace(t, entry[1:], ":"+exposed, ":"+port, volume+"/", dir+"/", "/run/secrets/site", newSecret(t, dir))
	start(t, "127.0.0.1:"+port, run...)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	others := 0
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		others++
		if page, _ := newVisitor(t, "http://"+ip.IP.String()+":"+port).home(t); !strings.Contains(page, "<form") {
			t.Errorf("at %v: %q", ip.IP, page)
		}
	}
	if others == 0 {
		skip.Test(t, "this machine has only loopback addresses")
	}
	newVisitor(t, "http://127.0.0.1:"+port).logIn(t)
	if kept, err := filepath.Glob(filepath.Join(dir, "sessions", "*.json")); err != nil || len(kept) != 1 {
		t.Errorf("the volume has the sessions %q, %v", kept, err)
	}

	user := setting(t, file, "USER", " ")
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) || !strings.Contains(file, "--chown="+user+" ") {
		t.Errorf("the user %s is root, or owns no files", user)
	}
	for _, want := range []string{"CGO_ENABLED=0 go build -o /out" + entry[0] + " .", "install -d -m 0700 /out" + volume} {
		if !strings.Contains(file, want) {
			t.Errorf("the Dockerfile does not have %q", want)
		}
	}
	uid, _, _ := strings.Cut(user, ":")
	commands := block(t, "sh", "go mod vendor")
	for _, want := range []string{"chown " + uid + " secrets\n", ":" + exposed + " ", ":" + volume + " ", "./secrets:/run/secrets/site:ro "} {
		if !strings.Contains(commands, want) {
			t.Errorf("the commands do not have %q:\n%s", want, commands)
		}
	}
}

// With a domain the site serves TLS with the certificate that autocert keeps for it, and the cookie is Secure without a
// setting. It would ask Let's Encrypt for one only if it kept none.
func TestTLS(t *testing.T) {
	const host = "www.example.com"
	dir, port := t.TempDir(), storetest.SitePort(t)
	certs := filepath.Join(dir, "certs")
	root := keepCertificate(t, certs, host)
	start(t, "127.0.0.1:"+port, "-domain", host, "-addr", ":"+port, "-certs", certs, "-sessions", filepath.Join(dir, "sessions"), "-secrets", newSecret(t, dir))
	v := newVisitor(t, "https://"+host+":"+port)
	v.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: root},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	defer v.CloseIdleConnections()
	if c := v.logIn(t); len(c) != 1 || !c[0].Secure {
		t.Errorf("the cookies are %v", c)
	}
	if page, _ := v.home(t); page != greeting {
		t.Errorf("the page is %q", page)
	}
	v.base = "https://other.example.com:" + port
	var refused *url.Error
	if _, err := v.Get(v.base); !errors.As(err, &refused) {
		t.Errorf("for another host: %v", err)
	}
}

// keepCertificate puts a certificate for host where autocert looks, and returns who has signed it.
func keepCertificate(t *testing.T, dir, host string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 2, 0), // autocert renews in the last month
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, own, own, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	kept := append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, host), kept, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	root := x509.NewCertPool()
	root.AddCert(cert)
	return root
}
