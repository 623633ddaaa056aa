package adaptertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Run tells all stories of x.
func Run(t *testing.T, x *Site) {
	for _, story := range []struct {
		name string
		tell func(t *testing.T, x *Site)
	}{
		{"Visitor", visitor}, {"Values", values}, {"Login", login}, {"Logout", logout}, {"LogoutRace", logoutRace}, {"LoginRace", loginRace},
		{"TwoLogins", twoLogins}, {"Merge", merge}, {"Pending", pending}, {"Parallel", parallel}, {"Restart", restart}, {"Expiry", expiry},
		{"Processes", processes}, {"Kill", kill}, {"Torn", torn}, {"Forged", forged}, {"Damaged", damaged}, {"Foreign", foreign},
		{"Writes", writes}, {"Closed", closed},
	} {
		t.Run(x.Name+"/"+story.name, func(t *testing.T) { story.tell(t, x) })
	}
}

// A visitor who leaves nothing leaves no file.
func visitor(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b := p.browser()
	b.Want("/get?k=user", "")
	first := b.Cookie(x.Cookie)
	for range 9 {
		p.browser().Want("/get?k=user", "")
		b.Want("/get?k=user", "")
	}
	if (first == "") != (x.Visitor == Nameless) || b.Cookie(x.Cookie) != first {
		t.Errorf("the visitor's cookie is %q, and then %q", first, b.Cookie(x.Cookie))
	}
	before := map[Visitor]int{Stored: 10}[x.Visitor]
	p.wantSessions(before)
	b.Want("/set?k=user&v=alice", "")
	if first != "" && b.Cookie(x.Cookie) != first {
		t.Errorf("the visitor's cookie is %q, and with a value %q", first, b.Cookie(x.Cookie))
	}
	b.Want("/get?k=user", "alice")
	p.wantSessions(max(before, 1))
}

// The session is a file of the plain store's.
func values(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b := p.browser()
	b.Get("/set?k=user&v=alice")
	b.Get("/set?k=colour&v=red")
	b.Want("/get?k=user", "alice")
	b.Want("/get?k=colour", "red")
	id := b.Get("/id")
	if !x.signs() && b.Cookie(x.Cookie) != id {
		t.Errorf("the cookie is %q, the id %q", b.Cookie(x.Cookie), id)
	}
	b.Get("/unset?k=colour")
	b.Want("/get?k=colour", "")
	b.Want("/count", "1")
	b.Want("/count", "2")
	p.browser().Want("/get?k=user", "")
	b.Want("/id", id)

	n := 0
	for e, err := range p.store.All(ctx) {
		if err != nil {
			t.Error(err)
		}
		if e.ID == id {
			n++
		}
	}
	sess, err := p.store.Get(ctx, id)
	if err != nil || n != 1 {
		t.Fatalf("%d sessions have the id; Get = %v", n, err)
	}
	if life := sess.ExpiresAt(0).Sub(sess.LastAccess); life > x.Life || life < x.Life-time.Second {
		t.Errorf("the session lives for %v, want %v", life, x.Life)
	}
}

// A login gives a new id, and keeps what the session holds.
func login(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b := p.browser()
	b.Get("/set?k=colour&v=red")
	planted := b.Cookie(x.Cookie)
	for _, user := range []string{"alice", "bob"} {
		before, old := b.Cookie(x.Cookie), b.Get("/id")
		b.Get("/login?before=shape&user=" + user) // what the request has put in before comes along
		b.Want("/get?k=user", user)
		b.Want("/get?k=colour", "red")
		b.Want("/get?k=shape", "before")
		if id := b.Get("/id"); id == old || b.Cookie(x.Cookie) == before {
			t.Error("the login has left the id as it was")
		}
		p.wantSessions(1)
	}
	b.With(x.Cookie, planted).Want("/get?k=user", "")
	b.With(x.Cookie, planted).Want("/get?k=colour", "")

	// The first request of a client may be a logout, or a login.
	c := p.browser()
	c.Get("/logout")
	c.Want("/get?k=user", "")
	c.Get("/login?user=carol")
	c.Want("/get?k=user", "carol")
	b.Want("/get?k=user", "bob")
}

// A logout ends the session, although the framework may save it afterwards.
func logout(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b, stolen, file := p.login("alice")
	b.Get("/logout")
	p.wantSessions(0)
	if _, err := os.Stat(file); (err == nil) != x.Buries {
		t.Errorf("the file is there: %v", err)
	}
	b.Want("/get?k=user", "")
	late := b.With(x.Cookie, stolen)
	late.Want("/get?k=user", "")
	late.Get("/logout")
	late = b.With(x.Cookie, stolen)
	late.Get("/set?k=colour&v=red")
	if same := late.Cookie(x.Cookie) == stolen; same != (x.Adopts != nil) {
		t.Errorf("the id of a session that was destroyed is adopted: %v", same)
	}
	late.Want("/get?k=user", "")
	b.Get("/login?user=bob")
	b.Want("/get?k=user", "bob")
}

// A slow request does not bring back a session that ended while it ran, however that ended.
func logoutRace(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	there, _ := p.another()
	for end, fn := range map[string]func(b *storetest.Browser, file string){
		"logout":       func(b *storetest.Browser, _ string) { b.Get("/logout") },
		"logout there": func(b *storetest.Browser, _ string) { at(b, there).Get("/logout") },
		"login":        func(b *storetest.Browser, _ string) { b.Get("/login?user=bob") },
		"Destroy": func(_ *storetest.Browser, file string) {
			if err := p.store.Destroy(ctx, strings.TrimSuffix(filepath.Base(file), ".json")); err != nil {
				t.Error(err)
			}
		},
		"rm": func(_ *storetest.Browser, file string) {
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		},
		"expiry": func(_ *storetest.Browser, file string) { storetest.Age(t, file, x.Life+time.Minute) },
	} {
		for _, path := range []string{"/get?k=user", "/set?k=colour&v=slow"} {
			t.Run(end+path[:4], func(t *testing.T) {
				b, cookie, file := p.login("alice")
				var sessions int
				var after string
				code, body := slowly(b, path, func() {
					fn(b, file)
					sessions, after = p.sessions(), b.Cookie(x.Cookie)
				})
				if code != http.StatusOK {
					t.Errorf("GET %s = %d %q", path, code, body)
				}
				destroyed := end == "logout" || end == "logout there" || end == "login"
				stays := x.SaveRenews && path == "/get?k=user" // which saves nothing
				if back := p.alive(file); back != (!stays && (x.Returns || x.Buries && !destroyed)) {
					t.Errorf("the session is back: %v", back)
				} else if back {
					b.With(x.Cookie, cookie).Want("/get?k=user", "alice")
					return
				}
				p.wantSessions(sessions)
				if !x.Buries && b.Cookie(x.Cookie) != after {
					t.Error("the slow request has set the cookie again")
				}
				b.With(x.Cookie, cookie).Want("/get?k=user", "")
				if end == "login" && !x.Buries {
					b.Want("/get?k=user", "bob")
				}
			})
		}
	}
}

// A slow login does not bring back a session that was destroyed, or moved by another login, while it ran.
func loginRace(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	there, _ := p.another()
	for _, meanwhile := range []string{"/logout", "/login?user=carol"} {
		for _, url := range []string{p.url, there} {
			b, old, _ := p.login("alice")
			slow := b
			if x.Unsets {
				slow = b.With(x.Cookie, old)
			}
			var sessions int
			code, body := slowly(slow, "/login?before=colour&user=eve", func() {
				at(b, url).Get(meanwhile)
				b.With(x.Cookie, old).Want("/get?k=user", "")
				if meanwhile == "/logout" {
					b.Get("/set?k=user&v=carol") // if the framework adopts ids, under the same one
				}
				sessions = p.sessions()
				if x.Unsets { // as the browser has another cookie by then
					u, _ := neturl.Parse(slow.URL)
					slow.Client.Jar.SetCookies(u, []*http.Cookie{{Name: x.Cookie, Value: "newer", Path: "/"}})
				}
			})
			if x.Unsets && slow.Cookie(x.Cookie) == "newer" {
				t.Error("the answer to the slow login leaves the browser's cookie alone: the site does not need Unsets")
			}
			if want := http.StatusConflict; code != want && !x.Quiet && !x.Returns || code != http.StatusOK && (x.Quiet || x.Returns) {
				t.Errorf("the slow login beside %s = %d %q", meanwhile, code, body)
			}
			if x.Returns {
				p.wantSessions(sessions + 1)
				b.Want("/get?k=user", "eve")
				continue
			}
			p.wantSessions(sessions)
			b.Want("/get?k=user", "carol")
			b.Want("/get?k=colour", map[bool]string{true: "before"}[x.ByValue && meanwhile != "/logout"]) // set before the other came
		}
	}
}

// Of two logins at once in one session one gets it.
func twoLogins(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b := p.browser()
	b.Get("/set?k=shape&v=round")
	slow := b
	if x.Unsets {
		slow = b.With(x.Cookie, b.Cookie(x.Cookie))
	}
	codes := make(map[int]int)
	first, _ := slowly(slow, "/login?user=alice", func() {
		second, _ := slowly(b, "/login?user=bob", func() {})
		codes[second]++
	})
	codes[first]++
	failed := 1
	if x.Quiet || x.Returns {
		failed = 0
	}
	if codes[http.StatusConflict] != failed || codes[http.StatusOK] != 2-failed {
		t.Errorf("the answers are %v", codes)
	}
	if x.Returns {
		p.wantSessions(2)
		return
	}
	p.wantSessions(1)
	b.Want("/get?k=user", "bob")
	b.Want("/get?k=shape", "round")
}

// Of two requests each stores what it has changed, so that a logout that deletes a key stays.
func merge(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	there, _ := p.another()
	for _, url := range []string{p.url, there} {
		for _, path := range []string{"/get?k=user", "/set?k=colour&v=slow"} {
			b, _, _ := p.login("alice")
			b.Get("/set?k=shape&v=round")
			slowly(b, path, func() {
				at(b, url).Get("/unset?k=user")
				at(b, url).Get("/set?k=shape&v=square")
			})
			want := map[string]string{"user": "", "shape": "square", "colour": ""}
			if x.NoMerge {
				want["user"], want["shape"] = "alice", "round"
			}
			if path != "/get?k=user" {
				want["colour"] = "slow"
			}
			for k, v := range want {
				at(b, url).Want("/get?k="+k, v)
			}
		}
	}
}

// A session has an id before it has a file: its requests are of one session all the same.
func pending(t *testing.T, x *Site) {
	if x.Visitor != Pending {
		return // visitor tells of the others
	}
	p := x.open(t, t.TempDir(), nil)
	b := p.browser()
	b.Want("/get?k=user", "")
	cookie := b.Cookie(x.Cookie)
	slowly(b, "/set?k=a&v=1", func() {
		slowly(b, "/set?k=b&v=2", func() { b.Get("/set?k=c&v=3") })
	})
	for k, v := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		b.Want("/get?k="+k, v)
	}
	if b.Cookie(x.Cookie) != cookie {
		t.Error("the session has got another id")
	}
	p.wantSessions(1)

	// What a login's request has put in before comes along.
	b = p.browser()
	b.Want("/get?k=user", "")
	cookie = b.Cookie(x.Cookie)
	b.Get("/login?before=colour&user=alice")
	b.Want("/get?k=user", "alice")
	b.Want("/get?k=colour", "before")
	if b.Cookie(x.Cookie) == cookie {
		t.Error("the login has left the id as it was")
	}
	p.wantSessions(2)

	// A logout destroys it for its other requests too.
	b = p.browser()
	b.Want("/get?k=user", "")
	slowly(b, "/set?k=user&v=bob", func() { b.Get("/logout") })
	b.Want("/get?k=user", "")
	p.wantSessions(2)

	// Another process does not know it, and gives another id.
	there, _ := p.another()
	b = p.browser()
	b.Want("/get?k=user", "")
	cookie = b.Cookie(x.Cookie)
	b = at(b, there)
	b.Get("/login?user=carol")
	if b.Cookie(x.Cookie) == cookie {
		t.Error("the other process has adopted the id")
	}
	at(b, p.url).Want("/get?k=user", "carol")
}

// Parallel requests lose neither the session nor what each has put in.
func parallel(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b, cookie, _ := p.login("alice")
	b.Want("/count", "1")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b := b.With(x.Cookie, cookie)
			for range 20 {
				b.Want("/get?k=user", "alice")
				if n := b.Get("/count"); n == "1" {
					t.Error("a request has found no count")
				}
				b.Get(fmt.Sprint("/set?k=k", i, "&v=x"))
			}
			if now := b.Get("/get?k=user"); now != "alice" || !x.signs() && b.Cookie(x.Cookie) != cookie {
				t.Errorf("a request was given another session, of user %q", now)
			}
		})
	}
	wg.Wait()
	p.wantSessions(1)
	for i := range 8 {
		if !x.NoMerge {
			b.Want(fmt.Sprint("/get?k=k", i), "x")
		}
	}
}

// After a restart all is as it was, also the types of values.
func restart(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b, _, _ := p.login("alice")
	b.Get("/fill")
	b.Want("/compare", "the same")
	for range 2 {
		p.close()
		p = x.open(t, p.dir, nil)
		b = at(b, p.url)
		b.Want("/get?k=user", "alice")
		b.Want("/compare", "the same")
		b.Get("/set?k=colour&v=red")
	}
	there, _ := p.another()
	at(b, there).Want("/compare", "the same")
}

// A session ends its time after it was last used, not earlier.
func expiry(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b, cookie, file := p.login("alice")
	almost := x.Life - 10*time.Second
	for range 2 {
		storetest.Age(t, file, almost)
		b.Get("/set?k=colour&v=red")
		p.wantRenewed(file)
		b.Want("/get?k=user", "alice")
	}
	storetest.Age(t, file, almost)
	b.Want("/get?k=user", "alice")
	if !x.SaveRenews {
		p.wantRenewed(file)
	}
	storetest.Age(t, file, almost)
	if !x.SaveRenews {
		b.Want("/get?k=user", "alice")
		p.wantRenewed(file)
		storetest.Age(t, file, x.Life+time.Second)
	}
	b.Want("/get?k=user", "")
	b.Get("/set?k=colour&v=blue")
	if same := b.Cookie(x.Cookie) == cookie; same != (x.Adopts != nil) {
		t.Errorf("the id of a session that has expired is adopted: %v", same)
	}
}

// Two processes are one site.
func processes(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	there, kill := p.another()
	b, stolen, _ := p.login("alice")
	for i := range 20 {
		b.URL = []string{p.url, there}[i%2]
		b.Want("/count", strconv.Itoa(i+1))
		b.Want("/get?k=user", "alice")
	}
	var wg sync.WaitGroup
	for i, url := range []string{p.url, there, p.url, there} {
		wg.Go(func() {
			b := at(b, url)
			for n := range 25 {
				b.Get(fmt.Sprintf("/set?k=k%d&v=%d", i, n))
				b.Want("/get?k=user", "alice")
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		if !x.NoMerge {
			b.Want(fmt.Sprint("/get?k=k", i), "24")
		}
	}

	at(b, there).Get("/logout")
	at(b, p.url).Want("/get?k=user", "")
	b.With(x.Cookie, stolen).Want("/get?k=user", "")
	at(b, there).Get("/login?user=bob")
	kill()
	at(b, p.url).Want("/get?k=user", "bob")
	there, _ = p.another()
	at(b, there).Want("/get?k=user", "bob")
}

// What a process has answered outlives its kill -9, whole.
func kill(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	kept, _, _ := p.login("alice")
	for round := range storetest.Long(3, 50) {
		there, kill := p.another()
		var wg sync.WaitGroup
		get := func(b *storetest.Browser, path string) (body string, err error) {
			res, err := b.Client.Get(b.URL + path)
			if err != nil {
				return "", err
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err == nil && res.StatusCode != http.StatusOK {
				t.Errorf("GET %s = %d %q", path, res.StatusCode, text)
			}
			return string(text), err
		}
		for i := range 3 { // sessions beside, so that it dies in the middle of some write
			wg.Go(func() {
				b := at(p.browser(), there)
				for n := i; ; n++ {
					if _, err := get(b, fmt.Sprint("/write?n=", n)); err != nil {
						return
					}
				}
			})
		}
		b := at(p.browser(), there)
		b.Want("/count", "1")
		var last atomic.Int64
		last.Store(1)
		wg.Go(func() {
			for {
				body, err := get(b, "/count")
				if err != nil {
					return
				}
				n, _ := strconv.ParseInt(body, 10, 64)
				last.Store(n)
			}
		})
		for end := time.Now().Add(20 * time.Second); last.Load() < int64(20+rand.N(100)+round) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		kill()
		wg.Wait()
		if n, _ := strconv.ParseInt(at(b, p.url).Get("/get?k=n"), 10, 64); n != last.Load() && n != last.Load()+1 || n < 2 {
			t.Errorf("the count is %d, after %d was answered", n, last.Load())
		}
		kept.Want("/get?k=user", "alice")
		for _, file := range storetest.Files(t, p.dir) {
			p.alive(file) // which can be read
		}
	}
	storetest.Sweep(t, p.dir) // the temporary files of the dead
}

// Beside writers, in this process and in another, each reader finds the session, and finds it whole.
func torn(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	there, _ := p.another()
	b, cookie, _ := p.login("alice")
	b.Get("/write?n=1")
	var reads, writes atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(storetest.Long(time.Second, 20*time.Second))
	enough := func() bool { return reads.Load() >= 10 && writes.Load() >= 10 }
	over := func() bool { // on a busy machine, later
		late := time.Since(end)
		return late > 0 && enough() || late > 20*time.Second
	}
	for i, url := range []string{p.url, there, p.url, there} {
		wg.Go(func() {
			b := at(b.With(x.Cookie, cookie), url)
			for !over() {
				writes.Add(1)
				b.Want(fmt.Sprint("/write?n=", rand.N(1_000_000)), "")
			}
		})
		if i < 3 {
			wg.Go(func() {
				b := at(b.With(x.Cookie, cookie), url)
				for !over() {
					reads.Add(1)
					b.Want("/read", "whole")
				}
			})
		}
	}
	wg.Wait()
	if !enough() {
		t.Errorf("%d reads and %d writes are too few to tell", reads.Load(), writes.Load())
	}
	b.Want("/read", "whole")
}

// raw sends a cookie that net/http would not, and returns the code, 0 if the server hangs up, and the cookie
// that it sets.
func (p *place) raw(path, value string) (code int, set string) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: %s=%s\r\n\r\n", path, p.Cookie, value)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	for _, c := range res.Cookies() {
		if c.Name == p.Cookie {
			set = c.Value
		}
	}
	return res.StatusCode, set
}

// similar returns an id that is like those of the framework.
func similar(id string) string {
	return id[:len(id)-1] + map[bool]string{true: "b", false: "a"}[strings.HasSuffix(id, "a")]
}

// A cookie that the client has made up opens no session, names no file, and is not adopted.
func forged(t *testing.T, x *Site) {
	parent := t.TempDir()
	p := x.open(t, filepath.Join(parent, "sessions"), nil)
	b, cookie, file := p.login("alice")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Write(t, filepath.Join(parent, "up.json"), data)
	id := b.Get("/id")
	ids := []string{
		"", ".", "..", "../up", "../up.json", "..%2Fup", "/etc/passwd", "a/b", `a\b`, "mine", "con", "NUL.json", "x.json", ".locks", ".locks/00", id + ".json", " ", "a b", `"q"`,
		"a%00b", "\x00", "a\x00b", "\xff\xfe", "é", similar(id), strings.ToUpper(similar(id)), strings.Repeat("a", 16), strings.Repeat("0", 32), "sha256-" + strings.Repeat("0", 64),
		strings.Repeat("x", 200), strings.Repeat("y", 3000), strings.Repeat("z", 10_000), strings.Repeat("/", 10_000),
	}
	want := 1
	try := func(value string, signed bool) {
		t.Helper()
		code, set := p.raw("/get?k=user", value)
		if x.Visitor == Stored && set != "" { // Fiber does that also with a request that it refuses
			want++
		}
		if code == x.BadCookie && code != 0 && !signed {
			return
		}
		if strings.Contains(value, "\x00") && (code == 0 || code == http.StatusBadRequest) || len(value) > 3500 && (code == 0 || code == http.StatusRequestHeaderFieldsTooLarge) {
			return // the server's own limits
		}
		if code != http.StatusOK {
			t.Errorf("the answer to %.40q is %d", value, code)
			return
		}
		if x.Unescapes && strings.Contains(value, "%") {
			return // it is another id, which is in the list too or is not the cookie that is set for it
		}
		code, set = p.raw("/set?k=user&v=mallory", value)
		want++
		if x.Adopts != nil && (set == "" || set == value) && value != "" {
			return // see adopted
		}
		if code != http.StatusOK || set == "" || set == value {
			t.Errorf("for %.40q: %d, and the cookie %.40q", value, code, set)
			return
		}
		b.With(x.Cookie, set).Want("/get?k=user", "mallory")
	}
	for _, value := range ids {
		if value == id {
			continue // by chance
		}
		try(value, false)
		if x.signs() && len(value) < 2000 { // browsers hold 4 kB
			try(x.Sign(value), true)
		}
	}
	if x.signs() { // and what is not quite a cookie of the site's
		for _, value := range []string{cookie[:len(cookie)-4], "AA" + cookie[2:], id} {
			try(value, false)
		}
	}
	p.wantSessions(want)
	b.Want("/get?k=user", "alice")
	if all, err := os.ReadDir(parent); len(all) != 2 || err != nil {
		t.Errorf("outside of the directory there are %v, %v", all, err)
	}
	adopted(p)
}

// An id that is adopted opens nobody's session, and ends with the login.
func adopted(p *place) {
	for _, id := range p.Adopts {
		p.with(id).Get("/logout")
		b := p.with(id)
		b.Want("/get?k=user", "")
		b.Get("/set?k=colour&v=red")
		if b.Cookie(p.Cookie) != p.cookie(id) {
			p.t.Errorf("the framework has learnt not to adopt the id %.20q: say so in the package's comment", id)
		}
		b.Get("/login?user=alice")
		b.Want("/get?k=colour", "red")
		if b.Cookie(p.Cookie) == p.cookie(id) {
			p.t.Error("the login has left the id as it was")
		}
		p.with(id).Want("/get?k=user", "")
	}
}

// sealed is a Codec that can read only what it has written.
type sealed struct{}

func (sealed) Encode(_ string, doc []byte) ([]byte, error) {
	return append([]byte("sealed"), doc...), nil
}

func (sealed) Decode(_ string, file []byte) ([]byte, error) {
	if string(file) == "denied" {
		return nil, fs.ErrPermission
	}
	doc, ok := bytes.CutPrefix(file, []byte("sealed"))
	if !ok {
		return nil, filestore.ErrDecrypt
	}
	return doc, nil
}

// withData returns the session in doc with another member "data".
func withData(t *testing.T, doc []byte, data string) []byte {
	t.Helper()
	var members map[string]json.RawMessage
	err := json.Unmarshal(doc, &members)
	if members["data"] == nil {
		t.Errorf("no data in %s", doc)
	}
	members["data"] = json.RawMessage(data)
	doc, err2 := json.Marshal(members)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return doc
}

// A session that cannot be read counts as none: its visitor gets another, and may log in. Its file stays, and is
// logged without its id.
func damaged(t *testing.T, x *Site) {
	write := func(fn func(t *testing.T, doc []byte) []byte) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			t.Helper()
			doc, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			storetest.Write(t, file, fn(t, doc))
		}
	}
	text := func(s string) func(t *testing.T, file string) {
		return write(func(*testing.T, []byte) []byte { return []byte(s) })
	}
	must := func(t *testing.T, errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	damages := map[string]func(t *testing.T, file string){
		"empty": text(""), "not JSON": text("hello"),
		"too large":  func(t *testing.T, file string) { must(t, os.Truncate(file, 20<<20)) },
		"half":       write(func(_ *testing.T, doc []byte) []byte { return doc[:len(doc)/2] }),
		"not base64": write(func(t *testing.T, doc []byte) []byte { return withData(t, doc, `"?"`) }),
		"directory":  func(t *testing.T, file string) { must(t, os.Remove(file), os.Mkdir(file, 0o700)) },
		"link": func(t *testing.T, file string) {
			must(t, os.Rename(file, file+".target"), os.Symlink(file+".target", file))
		},
		"second link":   func(t *testing.T, file string) { must(t, os.Link(file, file+".link")) },
		"not decrypted": write(func(_ *testing.T, doc []byte) []byte { return bytes.TrimPrefix(doc, []byte("sealed")) }),
		"no permission": func(t *testing.T, file string) {
			must(t, os.Chmod(file, 0))
			if _, err := os.ReadFile(file); err == nil { // as root we may read anything: then the codec says it
				text("denied")(t, file)
			}
		},
	}
	if runtime.GOOS == "windows" { // it has neither
		delete(damages, "link")
		delete(damages, "no permission")
	}
	for i, data := range x.Garbage {
		damages[fmt.Sprint("garbage", i)] = write(func(t *testing.T, doc []byte) []byte { return withData(t, doc, data) })
	}
	told := storetest.Log(t)
	for _, codec := range []filestore.Codec{nil, sealed{}} {
		opts := storetest.Quick()
		opts.Codec = codec
		p := x.open(t, t.TempDir(), opts) // one after the other: beego's sites have one manager
		for name, damage := range damages {
			if (codec != nil) != (name == "not decrypted" || name == "no permission") {
				continue
			}
			t.Run(name, func(t *testing.T) {
				_, cookie, file := p.login("alice")
				damage(t, file)
				before, err := os.Lstat(file)
				must(t, err)
				data, _ := os.ReadFile(file)
				cause := map[string]error{
					"too large": filestore.ErrTooLarge, "directory": filestore.ErrUnsafeFile, "link": filestore.ErrUnsafeFile, "second link": filestore.ErrUnsafeFile,
					"not decrypted": filestore.ErrDecrypt, "no permission": fs.ErrPermission,
				}[name]
				if cause == nil {
					cause = filestore.ErrCorrupt
				}
				for path, user := range map[string]string{"/get?k=user": "", "/set?k=colour&v=red": "", "/login?user=bob": "bob", "/logout": ""} {
					b, logged := p.browser().With(x.Cookie, cookie), len(told.String())
					code, body := b.Do(path)
					lost := x.Adopts != nil && path == "/set?k=colour&v=red" // under the old id, where nothing can be stored
					if want := map[bool]int{true: http.StatusInternalServerError, false: http.StatusOK}[lost && !x.Late]; code != want {
						t.Errorf("GET %s = %d %q", path, code, body)
					}
					if same := b.Cookie(x.Cookie) == cookie; same && x.Adopts == nil && (user != "" || x.Visitor != Nameless) || same && user != "" {
						t.Errorf("the id is the same after %s", path)
					}
					if text := told.String()[logged:]; !strings.Contains(text, "cannot be read counts as none") || !strings.Contains(text, cause.Error()) {
						t.Errorf("for %s what is logged is %q", path, text)
					}
					b.Want("/get?k=user", user)
					if path == "/set?k=colour&v=red" {
						b.Want("/get?k=colour", map[bool]string{false: "red"}[lost])
					}
				}
				after, err := os.Lstat(file)
				if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) {
					t.Errorf("the file has not stayed as it was: %v", err)
				}
				if _, err := p.store.Reap(ctx); err != nil && !errors.Is(err, fs.ErrPermission) {
					t.Error(err)
				}
				if now, _ := os.ReadFile(file); !bytes.Equal(now, data) {
					t.Errorf("the file has become %.100q", now)
				}
				if id := strings.TrimSuffix(filepath.Base(file), ".json"); strings.Contains(told.String(), id) {
					t.Error("the id is logged")
				}
				must(t, os.RemoveAll(file))
			})
		}
		p.close()
	}
}

// A session of Express in the directory is not the site's, and stays as it is.
func foreign(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	for _, members := range []string{`"user":"ann"`, `"data":{"user":"ann"},"user":"ann"`} {
		b, _, _ := p.login("alice")
		id := similar(b.Get("/id"))
		file := filepath.Join(p.dir, id+".json")
		doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},%s,"__lastAccess":%d}`, members, time.Now().UnixMilli())
		storetest.Write(t, file, []byte(doc))
		for path, user := range map[string]string{"/get?k=user": "", "/set?k=colour&v=red": "", "/login?user=bob": "bob", "/logout": ""} {
			b := p.with(id)
			code, body := b.Do(path)
			lost := x.Adopts != nil && path == "/set?k=colour&v=red"
			if want := map[bool]int{true: http.StatusInternalServerError, false: http.StatusOK}[lost && !x.Late]; code != want {
				t.Errorf("GET %s = %d %q", path, code, body)
			}
			b.Want("/get?k=user", user)
			if now, err := os.ReadFile(file); err != nil || string(now) != doc {
				t.Errorf("after %s the file is %q, %v", path, now, err)
			}
		}
	}
}

// A counter counts the writes of a store.
type counter struct{ n atomic.Int64 }

func (c *counter) Encode(_ string, doc []byte) ([]byte, error)  { c.n.Add(1); return doc, nil }
func (c *counter) Decode(_ string, file []byte) ([]byte, error) { return file, nil }

// A request writes if it has changed something, or if the deadline is to move.
func writes(t *testing.T, x *Site) {
	count, opts := new(counter), storetest.Quick()
	opts.Codec = count
	p := x.open(t, t.TempDir(), opts)
	b := p.browser()
	step := func(path string, want int64) {
		t.Helper()
		before := count.n.Load()
		b.Get(path)
		if got := count.n.Load() - before; got != want {
			t.Errorf("%s: %d writes, want %d", path, got, want)
		}
	}
	step("/get?k=user", map[Visitor]int64{Stored: 1}[x.Visitor])
	step("/set?k=user&v=alice", 1)
	for range 10 {
		step("/get?k=user", 0)
		step("/set?k=user&v=alice", 0)
	}
	step("/set?k=user&v=bobby", 1) // of the same length
	storetest.Age(t, filepath.Join(p.dir, b.Get("/id")+".json"), x.Life/10)
	if x.SaveRenews {
		step("/get?k=user", 0)
	} else {
		step("/get?k=user", 1)
	}
	storetest.Age(t, filepath.Join(p.dir, b.Get("/id")+".json"), x.Life/10)
	step("/set?k=user&v=bobby", 1)
	step("/unset?k=user", 1)
	step("/list", 1)
	want := int64(1)
	if x.PutOnly {
		want = 0
	}
	step("/inplace", want)
	b.Want("/get?k=list", map[bool]string{true: "[tea]", false: "[mug]"}[x.PutOnly])
}

// An error of the store is an error of the site, and ends no server.
func closed(t *testing.T, x *Site) {
	p := x.open(t, t.TempDir(), nil)
	b, cookie, file := p.login("alice")
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		code, body := b.With(x.Cookie, cookie).Do("/set?k=colour&v=red")
		if code < 500 || strings.Contains(body, strings.TrimSuffix(filepath.Base(file), ".json")) {
			t.Errorf("with a session the answer is %d %q", code, body)
		}
		if code, body := p.browser().Do("/set?k=colour&v=red"); code < 500 && !x.Late {
			t.Errorf("without a session the answer is %d %q", code, body)
		}
	}
}
