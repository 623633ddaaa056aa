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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/skip"
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
	if c.Path != d.path || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Value == d.key || strings.Contains(d.url(), c.Value) || strings.Contains(d.url(), c.Path) {
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

// serve shows the directory, ends sessions only with --write, and ends with SIGINT.
func TestServe(t *testing.T) {
	if isWindows {
		skip.Test(t, "no signals")
	}
	for _, write := range []bool{false, true} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "sessions")
		mustWrite(t, nodeSession{dir: dir, id: "anna0001anna0001", members: `"user":"anna"`})
		before, _ := snapshot(parent)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		args := []string{"serve", "--dir", dir, "--json", "--show", "user"}
		if write {
			args = append(args, "--write")
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
		line, _ := bufio.NewReader(out).ReadBytes('\n')
		var said struct{ URL string }
		if err := json.Unmarshal(line, &said); err != nil || !strings.HasPrefix(said.URL, "http://127.0.0.1:") {
			t.Fatalf("it says %q, %v, %s", line, err, errOut.String())
		}
		jar, _ := cookiejar.New(nil)
		client := &http.Client{Jar: jar}
		t.Cleanup(client.CloseIdleConnections)
		res, err := client.Get(said.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		page := res.Request.URL.String()
		_, rest, _ := strings.Cut(string(body), `<tr role="row" data-session="`)
		handle, _, _ := strings.Cut(rest, `"`)
		if res.StatusCode != 200 || !strings.Contains(string(body), `data-figure="live">1<`) || !strings.Contains(rest, "anna") || strings.Contains(string(body), "anna0001") || strings.Contains(string(body), "none yet") {
			t.Fatalf("the page %s = %d %s", page, res.StatusCode, body)
		}
		stream, err := client.Get(page + "?stream=1") // which does not keep it from ending
		if err != nil || stream.StatusCode != 200 {
			t.Fatalf("the stream = %v, %v", stream, err)
		}
		defer stream.Body.Close()
		r, _ := http.NewRequest("POST", page, strings.NewReader(url.Values{"do": {"end"}, "handle": {handle}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		res, err = client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if want := map[bool]int{false: 403, true: 200}[write]; res.StatusCode != want {
			t.Errorf("with --write=%v a POST = %d, want %d", write, res.StatusCode, want)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := cmd.Wait(); err != nil || time.Since(began) > 4*time.Second {
			t.Errorf("serve after SIGINT: %v, %q, after %v", err, errOut.String(), time.Since(began))
		}
		after, _ := snapshot(parent)
		switch _, err := os.Stat(filepath.Join(dir, "anna0001anna0001.json")); {
		case !write && strings.Join(after, "\n") != strings.Join(before, "\n"):
			t.Errorf("without --write it has changed the directory: %v, before %v", after, before)
		case write && (err == nil || !strings.Contains(errOut.String(), "a session was ended")):
			t.Errorf("with --write the session is there: %v; the log: %s", err, errOut.String())
		}
	}
}
