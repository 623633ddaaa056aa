package live

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

func TestMain(m *testing.M) { storetest.Main(m, nil) }

const patience = 20 * time.Second

// A site counts at POST /, and has a Feed at /changes.
type site struct {
	*httptest.Server
	t     *testing.T
	dir   string
	store *filestore.Store
	quit  context.CancelFunc
}

// silent hides that a Store can tell of changes.
type silent struct{ session.Store }

func newSite(t *testing.T, watch bool) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "sessions")}
	var err error
	if s.store, err = filestore.Open(s.dir, nil); err != nil {
		t.Fatal(err)
	}
	var store session.Store = s.store
	if !watch {
		store = silent{store}
	}
	ctx, quit := context.WithCancel(context.Background())
	s.quit = quit
	feed := New(store, Options{Where: s.dir, Files: true, Cookie: "connect.sid", TTL: time.Hour, Quit: ctx})
	ran := make(chan struct{})
	go func() {
		feed.Run(ctx)
		close(ran)
	}()
	mux := http.NewServeMux()
	mux.Handle("GET /changes", feed)
	mux.HandleFunc("GET /look", func(w http.ResponseWriter, r *http.Request) {
		f, err := feed.Look(r)
		if err != nil {
			t.Error(err)
			return
		}
		w.Write([]byte(f.State + " " + f.Name))
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		n, _ := session.Value[int](session.From(r), "n")
		session.From(r).Put("n", n+1)
	})
	mux.HandleFunc("POST /out", func(w http.ResponseWriter, r *http.Request) { session.From(r).Destroy() })
	m := &session.Manager{Store: store, Secrets: []string{"a secret of the tests"}, Prolongs: func(r *http.Request) bool { return r.URL.Path != "/changes" }}
	s.Server = httptest.NewServer(m.Handler(mux))
	t.Cleanup(func() {
		quit()
		s.Close()
		<-ran
		s.store.Close()
	})
	return s
}

// visitor returns a client with a session.
func (s *site) visitor() *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{}}
	s.t.Cleanup(c.CloseIdleConnections)
	s.post(c, "/")
	return c
}

func (s *site) post(c *http.Client, path string) {
	s.t.Helper()
	resp, err := c.Post(s.URL+path, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
}

// follow opens a stream. Its events, one string each, come from the channel, which is closed at its end.
func (s *site) follow(c *http.Client) (events <-chan string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	req, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/changes", nil)
	resp, err := c.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header["Set-Cookie"] != nil {
		s.t.Fatalf("the stream: %v, %v", resp, err)
	}
	all := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(all)
		defer resp.Body.Close()
		event := ""
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			if line := scan.Text(); line != "" {
				event += line + "\n"
			} else {
				all <- event
				event = ""
			}
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	if first := <-all; !strings.HasSuffix(first, "data: look\n") {
		s.t.Fatalf("the stream begins with %q", first)
	}
	return all
}

// ask asks for a stream that ends by itself.
func (s *site) ask(c *http.Client) *http.Response {
	s.t.Helper()
	resp, err := c.Get(s.URL + "/changes")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		s.t.Error(err)
	}
	return resp
}

// wait returns the next event, "" if the stream has ended.
func (s *site) wait(events <-chan string) string {
	s.t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		s.t.Fatal("no event")
		return ""
	}
}

func each(t *testing.T, test func(t *testing.T, s *site)) {
	for name, watch := range map[string]bool{"watches": true, "polls": false} {
		t.Run(name, func(t *testing.T) { test(t, newSite(t, watch)) })
	}
}

// A stream tells of the changes of its own session, and of no other's.
func TestOwnChangesOnly(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		a, b := s.visitor(), s.visitor()
		of := map[*http.Client]<-chan string{a: s.follow(a), b: s.follow(b)}
		time.Sleep(2 * poll) // what was before
		for _, events := range of {
			for len(events) > 0 {
				<-events
			}
		}
		s.post(a, "/")
		if got := s.wait(of[a]); got != "data: look\n" {
			t.Errorf("the event is %q", got)
		}
		time.Sleep(2 * poll)
		if n := len(of[b]); n != 0 {
			t.Errorf("another visitor got %d events", n)
		}
	})
}

// A stream ends with its session: by a logout, and by rm.
func TestEndsWithItsSession(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for name, end := range map[string]func(*http.Client){
			"logout": func(c *http.Client) { s.post(c, "/out") },
			"rm": func(*http.Client) {
				files, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
				if err != nil || len(files) != 1 {
					t.Fatalf("the files are %q, %v", files, err)
				}
				if err := os.Remove(files[0]); err != nil {
					t.Fatal(err)
				}
			},
		} {
			c := s.visitor()
			events := s.follow(c)
			end(c)
			got := s.wait(events)
			for got == "data: look\n" {
				got = s.wait(events)
			}
			if got != "event: end\ndata: look\n" || s.wait(events) != "" {
				t.Errorf("%s: the last event is %q", name, got)
			}
			if resp := s.ask(c); resp.StatusCode != http.StatusNoContent {
				t.Errorf("%s: a stream of no session: %v", name, resp.Status)
			}
		}
	})
}

// The answer to a HEAD is at its end, so that its connection can be used again.
func TestHead(t *testing.T) {
	s := newSite(t, true)
	c := s.visitor()
	c.Timeout = patience
	for _, path := range []string{"/changes", "/look"} {
		resp, err := c.Head(s.URL + path)
		if err != nil {
			t.Fatalf("HEAD %s: %v", path, err)
		}
		resp.Body.Close()
	}
}

// A session has a few streams, and a page that goes makes room. All end when the program does.
func TestStreamsAreBounded(t *testing.T) {
	s := newSite(t, true)
	c, other := s.visitor(), s.visitor()
	var all []<-chan string
	for range maxPerSession {
		all = append(all, s.follow(c))
	}
	if resp := s.ask(c); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %v", resp.Status)
	}
	all = append(all, s.follow(other))
	s.quit()
	for _, events := range all {
		for e := range events {
			if strings.HasPrefix(e, "event: end") {
				t.Error("the end of the program is told as the end of the session")
			}
		}
	}
	if resp := s.ask(c); resp.StatusCode != http.StatusOK { // it ends at once
		t.Errorf("after the others have ended: %v", resp.Status)
	}
}

func TestStates(t *testing.T) {
	s := newSite(t, true)
	look := func(c *http.Client) string {
		t.Helper()
		resp, err := c.Get(s.URL + "/look")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := bufio.NewReader(resp.Body).ReadString('\n')
		return text
	}
	nobody := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(nobody.CloseIdleConnections)
	if got := look(nobody); got != None+" " {
		t.Errorf("without a cookie: %q", got)
	}
	c := s.visitor()
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if len(files) != 1 {
		t.Fatalf("the files are %q", files)
	}
	id := strings.TrimSuffix(filepath.Base(files[0]), ".json")
	if got := look(c); got != Stored+" "+filepath.Join(s.dir, id[:8]+"….json") {
		t.Errorf("with a session: %q", got)
	}
	if err := s.store.Destroy(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if got := look(c); got != Out+" " {
		t.Errorf("after its end: %q", got)
	}
}

// The pattern names the one file for a shell, whatever the directory is called.
func TestPattern(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		skip.Test(t, "the patterns were not tried: there is no sh")
	}
	for _, dir := range []string{".", "sessions", "./sessions/", "a b", "it's", "$(exit)", "*", "a;b"} {
		at := t.TempDir()
		if err := os.MkdirAll(filepath.Join(at, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"-rf45678rest.json", "other678rest.json"} {
			if err := os.WriteFile(filepath.Join(at, dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("sh", "-c", (&File{Pattern: pattern(dir, "-rf45678")}).Remove())
		cmd.Dir = at
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", dir, err, out)
		}
		left, _ := os.ReadDir(filepath.Join(at, dir))
		if len(left) != 1 || left[0].Name() != "other678rest.json" {
			t.Errorf("%q: left are %v", dir, left)
		}
	}
}

func TestMembers(t *testing.T) {
	got, err := members([]byte(`{"a": 1, "b\"": {"c":[true,null]}, "d": "x"}`))
	want := []Member{{`"a"`, "1", true, false}, {`"b\""`, "{\n    \"c\": [\n      true,\n      null\n    ]\n  }", false, false}, {`"d"`, `"x"`, true, true}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("members = %v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("member %d is %v, want %v", i, got[i], want[i])
		}
	}
	for _, bad := range []string{"", `{"a"`, `{"a":`} {
		if _, err := members([]byte(bad)); err == nil {
			t.Errorf("members(%q) succeeds", bad)
		}
	}
	if all, err := members([]byte("{}")); err != nil || len(all) != 0 {
		t.Errorf("members({}) = %v, %v", all, err)
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes", 24 * time.Hour: "24 hours"} {
		if got := words(d); got != want {
			t.Errorf("words(%v) = %q, want %q", d, got, want)
		}
	}
}
