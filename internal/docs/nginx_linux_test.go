package docs_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
)

// The README's four lines for nginx and its two fields of Manager say over what and from where a client comes, whatever
// the client says itself.
func TestReadmeNginx(t *testing.T) {
	t.Parallel()
	site := freeAddr(t)
	start(t, build(t, `package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

func main() {
	store, err := filestore.Open("sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	secrets := []string{"keyboard cat"}
	`+block(t, "go", "sessions := &session.Manager{")+`
	http.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login("anna"); err != nil {
			log.Print(err)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		list, err := sessions.Sessions(r.Context(), session.From(r).User())
		if err != nil {
			log.Print(err)
		}
		for _, s := range list {
			if s.Current {
				fmt.Fprint(w, s.Note.Agent, " ", s.Note.Addr, " ", r.Host)
			}
		}
	})
	log.Fatal(http.ListenAndServe("`+site+`", sessions.Handler(http.DefaultServeMux)))
}
`), t.TempDir(), site)
	plain, overTLS, client := nginx(t, strings.Replace(block(t, "nginx", "proxy_pass"), "127.0.0.1:8000", site, 1))
	for url, secure := range map[string]bool{"http://" + plain: false, "https://" + overTLS: true} {
		get := func(path string, cookies []*http.Cookie) (*http.Response, string) {
			t.Helper()
			r, err := http.NewRequest("GET", url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "example.com"
			r.Header.Set("User-Agent", "browser")
			r.Header.Set("X-Forwarded-Proto", map[bool]string{false: "https", true: "http"}[secure]) // the client lies
			r.Header.Set("X-Real-IP", "203.0.113.77")
			for _, c := range cookies {
				r.AddCookie(c)
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res, string(body)
		}
		res, _ := get("/login", nil)
		c := res.Cookies()
		if len(c) != 1 || c[0].Secure != secure {
			t.Errorf("%s: %s, cookies %v", url, res.Status, c)
			continue
		}
		if _, body := get("/", c); body != "browser 127.0.0.0/24 example.com" {
			t.Errorf("%s: the device is %q", url, body)
		}
	}
}

// nginx runs one with the lines in its location / until the test ends, and returns its addresses without and with TLS,
// and a client that trusts it.
func nginx(t *testing.T, lines string) (plain, overTLS string, client *http.Client) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			skip.Test(t, "no nginx")
		}
	}
	trusted := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(trusted.Close)
	dir, cert := t.TempDir(), trusted.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	plain, overTLS = freeAddr(t), freeAddr(t)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else the workers are somebody who may not enter the directory
	}
	write(t, dir, "nginx.conf", fmt.Sprintf(`daemon off; pid nginx.pid; error_log stderr; %s
events {}
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	ssl_certificate cert.pem;
	ssl_certificate_key key.pem;
	server {
		listen %s;
		listen %s ssl;
		location / {
			%s
		}
	}
}
`, user, plain, overTLS, lines))
	cmd := exec.Command(program, "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // a killed one leaves its workers
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-ended
			t.Error("nginx does not end")
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", overTLS)
		if err == nil {
			c.Close()
			return plain, overTLS, trusted.Client()
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("nginx has ended: %v\n%s", err, stderr.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("nginx does not listen")
		}
	}
}
