package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Only who has the printed address gets in, only under that address, and the cookie goes to one path only.
func TestDoor(t *testing.T) {
	d := newDoor("127.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the page") }))
	ask := func(method, host, target, cookie string) *http.Response {
		r := httptest.NewRequest(method, target, nil)
		r.Host = host
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		return w.Result()
	}
	first := "/?key=" + d.key
	in := ask("GET", d.addr, first, "")
	if in.StatusCode != 303 || in.Header.Get("Location") != d.path || len(in.Cookies()) != 1 {
		t.Fatalf("the first request = %d, %v", in.StatusCode, in.Header)
	}
	c := in.Cookies()[0]
	if c.Path != d.path || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Value == d.key || strings.Contains(d.url(), c.Value) || strings.Contains(d.url(), c.Path) {
		t.Errorf("the cookie is %v", c)
	}
	ticket := c.Name + "=" + c.Value
	for _, tt := range []struct {
		method, host, target, cookie string
		want                         int
	}{
		{"GET", d.addr, d.path, ticket, 200}, {"GET", "localhost:8080", d.path, ticket, 200}, {"POST", d.addr, d.path, ticket, 200}, {"GET", d.addr, first, "", 303},
		{"GET", "evil.example", d.path, ticket, 421}, {"GET", "evil.example:8080", first, "", 421}, {"GET", "127.0.0.1", d.path, ticket, 421}, {"GET", "127.0.0.1:80", d.path, ticket, 421},
		{"GET", "", d.path, ticket, 421}, {"GET", "127.0.0.1.evil.example:8080", d.path, ticket, 421}, {"GET", "[::1]:8080", d.path, ticket, 421},
		{"GET", d.addr, d.path, "", 403}, {"GET", d.addr, d.path, c.Name + "=x", 403}, {"GET", d.addr, d.path, c.Name + "=", 403}, {"GET", d.addr, d.path, c.Name + "=" + d.key, 403},
		{"GET", d.addr, "/", ticket, 403}, {"GET", d.addr, "/?key=", "", 403}, {"GET", d.addr, "/?key=x", ticket, 403}, {"GET", d.addr, "/x", ticket, 403}, {"POST", d.addr, first, "", 403},
		{"GET", d.addr, d.path + "?key=" + d.key, "", 403},
	} {
		if got := ask(tt.method, tt.host, tt.target, tt.cookie); got.StatusCode != tt.want || (got.StatusCode >= 400) != (len(got.Cookies()) == 0 && got.StatusCode != 200) {
			t.Errorf("%s %s %s with %q = %d, want %d", tt.method, tt.host, tt.target, tt.cookie, got.StatusCode, tt.want)
		}
	}
}

// Browsers leave out the port 80.
func TestDoorPort80(t *testing.T) {
	d := newDoor("127.0.0.1:80", http.NotFoundHandler())
	for host, want := range map[string]int{"127.0.0.1": 303, "127.0.0.1:80": 303, "localhost": 303, "": 421, "evil.example": 421, "127.0.0.1:8080": 421, "[::1]": 421} {
		r := httptest.NewRequest("GET", "/?key="+d.key, nil)
		r.Host = host
		w := httptest.NewRecorder()
		if d.ServeHTTP(w, r); w.Code != want {
			t.Errorf("Host %q = %d, want %d", host, w.Code, want)
		}
	}
}

// A served is a serve that runs in another process.
type served struct {
	t      *testing.T
	cmd    *exec.Cmd
	errOut bytes.Buffer
	client *http.Client
	page   string // its URL, after the first
}

func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{t: t}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	s.cmd = process(t, ctx, append([]string{"serve", "--json", "--show", "user"}, args...)...)
	s.cmd.Stderr = &s.errOut
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadBytes('\n')
	var said struct{ URL string }
	if err := json.Unmarshal(line, &said); err != nil || !strings.HasPrefix(said.URL, "http://127.0.0.1:") {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		t.Fatalf("it says %q, %v, %s", line, err, s.errOut.String())
	}
	jar, _ := cookiejar.New(nil)
	s.client = &http.Client{Jar: jar}
	t.Cleanup(s.client.CloseIdleConnections)
	res, err := s.client.Get(said.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	s.page = res.Request.URL.String()
	return s
}

// get returns the page, and the handle of the first session on it.
func (s *served) get() (body, handle string) {
	s.t.Helper()
	res, err := s.client.Get(s.page)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		s.t.Fatalf("the page = %s, %v, %s", res.Status, err, text)
	}
	_, rest, _ := strings.Cut(string(text), `<tr role="row" data-session="`)
	handle, _, _ = strings.Cut(rest, `"`)
	return string(text), handle
}

// end ends a session, and returns the status.
func (s *served) end(handle string) int {
	s.t.Helper()
	r, _ := http.NewRequest("POST", s.page, strings.NewReader(url.Values{"do": {"end"}, "handle": {handle}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// stop ends it as Ctrl-C does.
func (s *served) stop() {
	s.t.Helper()
	began := time.Now()
	clean := interrupt(s.t, s.cmd)
	if err := s.cmd.Wait(); clean && err != nil || time.Since(began) > 20*time.Second { // a stream lasts for minutes
		s.t.Errorf("serve after SIGINT: %v, %q, after %v", err, s.errOut.String(), time.Since(began))
	}
}

// serve shows the directory, ends sessions only with --write, and ends with SIGINT.
func TestServe(t *testing.T) {
	for _, write := range []bool{false, true} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001", members: `"user":"anna"`})
		before, _ := snapshot(parent)
		args, want := []string{"--dir", dir}, 403
		if write {
			args, want = append(args, "--write"), 200 // after the redirect
		}
		s := startServe(t, args...)
		body, handle := s.get()
		if !strings.Contains(body, `data-figure="live">1<`) || !strings.Contains(body, "anna") || strings.Contains(body, "anna0001") || strings.Contains(body, "none yet") {
			t.Errorf("the page is %s", body)
		}
		stream, err := s.client.Get(s.page + "?stream=1") // which does not keep it from ending
		if err != nil || stream.StatusCode != 200 {
			t.Fatalf("the stream = %v, %v", stream, err)
		}
		defer stream.Body.Close()
		if got := s.end(handle); got != want {
			t.Errorf("with --write=%v a POST = %d, want %d", write, got, want)
		}
		s.stop()
		after, _ := snapshot(parent)
		switch _, err := os.Stat(filepath.Join(dir, "anna0001anna0001.json")); {
		case !write && strings.Join(after, "\n") != strings.Join(before, "\n"):
			t.Errorf("without --write it has changed the directory: %v, before %v", after, before)
		case write && (err == nil || !strings.Contains(s.errOut.String(), "a session was ended")):
			t.Errorf("with --write the session is there: %v; the log: %s", err, s.errOut.String())
		}
	}
}

// Without --ttl a session without a maxAge has not expired: a program with a longer TTL may have written it.
func TestServeWithoutTTL(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001", members: `"user":"anna"`, age: 2 * time.Hour})
	for _, tt := range []struct{ ttl, live string }{{"", "1"}, {"1h", "0"}, {"3h", "1"}} {
		args := []string{"--dir", dir}
		if tt.ttl != "" {
			args = append(args, "--ttl", tt.ttl)
		}
		s := startServe(t, args...)
		if body, _ := s.get(); !strings.Contains(body, `data-figure="live">`+tt.live+`<`) {
			t.Errorf("with --ttl %q there are not %s live", tt.ttl, tt.live)
		}
		s.stop()
	}
}
