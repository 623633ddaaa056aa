//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A request that is under way when the signal comes is answered, and its effect is
// stored. New connections are refused, and the program ends with status 0.
func TestShutdown(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sessions")
			p := start(t, dir)
			addr := strings.TrimPrefix(p.url, "http://")
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			const body = "username=user1&password=mypassword"
			fmt.Fprintf(conn, "POST /user HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
				"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", addr, len(body))
			r := bufio.NewReader(conn)
			// The server asks for the body when the handler reads it: now the request is under way.
			if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("got %q, %v", line, err)
			}
			if line, err := r.ReadString('\n'); err != nil || line != "\r\n" {
				t.Fatalf("got %q, %v", line, err)
			}

			began := time.Now()
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for {
				c, err := net.Dial("tcp", addr)
				if errors.Is(err, syscall.ECONNREFUSED) {
					break
				}
				if err == nil {
					c.Close()
				}
				if time.Since(began) > 10*time.Second {
					t.Fatalf("the program still listens: %v", err)
				}
				time.Sleep(5 * time.Millisecond)
			}
			if _, err := conn.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			cookies := resp.Cookies()
			if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" || len(cookies) != 1 {
				t.Fatalf("the request under way got %d %v", resp.StatusCode, resp.Header)
			}
			if err := p.Wait(); err != nil {
				t.Errorf("the program ended with %v", err)
			}
			if took := time.Since(began); took > shutdownTimeout {
				t.Errorf("the shutdown took %v", took)
			}
			checkDir(t, dir)

			p = start(t, dir)
			b := newBrowser(t, p.url)
			b.want(b.get("/user", "Cookie", cookieName+"="+cookies[0].Value), http.StatusOK, "")
		})
	}
}
