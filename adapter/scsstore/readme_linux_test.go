package scsstore_test

import (
	"encoding/gob"
	"encoding/json"
	"io"
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
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/sessionfilestore/filestore/adapter/scsstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

func source(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	ok(t, err)
	return string(text[strings.Index(string(text), "package main"):])
}

// The README's diffs make an ordinary scs application one with scsstore, and that one with session.Manager.
func TestDiffs(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	ok(t, err)
	diffs := regexp.MustCompile("(?s)```diff\n@@\n(.*?)```\n").FindAllStringSubmatch(string(readme), -1)
	if len(diffs) != 2 {
		t.Fatalf("%d diffs", len(diffs))
	}
	program := source(t, "example/before/main.go")
	for i, want := range []string{"example/main.go", "example/manager/main.go"} {
		done, rest := "", program
		for hunk := range strings.SplitSeq(diffs[i][1], "@@\n") {
			var before, after string
			for line := range strings.Lines(hunk) {
				if line[0] != '+' {
					before += line[1:]
				}
				if line[0] != '-' {
					after += line[1:]
				}
			}
			head, tail, found := strings.Cut(rest, before)
			if !found {
				t.Fatalf("the program before %s does not have\n%s", want, before)
			}
			done, rest = done+head+after, tail
		}
		if program = done + rest; program != source(t, want) {
			t.Errorf("the diff to %s makes\n%s", want, program)
		}
	}
}

// All three run, and do the same, until a restart.
func TestPrograms(t *testing.T) {
	for name, survives := range map[string]bool{"before": false, ".": true, "manager": true} {
		t.Run(name, func(t *testing.T) {
			addr, dir := "127.0.0.1:"+storetest.SitePort(t), t.TempDir()
			from, err := filepath.Abs(filepath.Join("example", name, "main.go"))
			ok(t, err)
			to := filepath.Join(dir, "main.go")
			storetest.Write(t, to, []byte(strings.Replace(source(t, from), "localhost:8080", addr, 1)))
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {from: to}})
			ok(t, err)
			storetest.Write(t, filepath.Join(dir, "overlay.json"), overlay)
			build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "site"), "./"+filepath.Join("example", name))
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			jar, _ := cookiejar.New(nil)
			client := &http.Client{Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			start := func() *storetest.Process {
				cmd := exec.Command(filepath.Join(dir, "site"))
				cmd.Dir = dir
				p := storetest.Run(t, cmd)
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					if conn, err := net.Dial("tcp", addr); err == nil {
						conn.Close()
						return p
					}
					if time.Now().After(deadline) {
						t.Fatal("it does not start")
					}
				}
			}
			want := func(body string) {
				t.Helper()
				res, err := client.Get("http://" + addr)
				ok(t, err)
				defer res.Body.Close()
				if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(got) != body {
					t.Errorf("%d %q, want %q", res.StatusCode, got, body)
				}
			}
			post := func(path string) {
				t.Helper()
				res, err := client.PostForm("http://"+addr+path, url.Values{"user": {"anna"}})
				ok(t, err)
				if res.Body.Close(); res.StatusCode != 200 {
					t.Errorf("%s = %d", path, res.StatusCode)
				}
			}
			p := start()
			want("Hello , you have been here 1 times.\n")
			post("/login")
			want("Hello anna, you have been here 2 times.\n")
			p.Kill()
			p = start()
			if survives {
				want("Hello anna, you have been here 3 times.\n")
			} else {
				want("Hello , you have been here 1 times.\n")
			}
			post("/logout")
			want("Hello , you have been here 1 times.\n")
			p.Kill()
		})
	}
}

// What the README says of JSONCodec: it answers 500 to a struct.
func TestStruct(t *testing.T) {
	type visits struct{ Count int }
	for codec, want := range map[scs.Codec]int{scs.GobCodec{}: http.StatusOK, scsstore.JSONCodec{}: http.StatusInternalServerError} {
		m := scs.New()
		m.Store, m.Codec = scsstore.New(open(t, t.TempDir())), codec
		m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		gob.Register(visits{})
		w := httptest.NewRecorder()
		m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			m.Put(r.Context(), "visits", visits{1})
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != want {
			t.Errorf("with %T the answer is %d", codec, w.Code)
		}
	}
}
