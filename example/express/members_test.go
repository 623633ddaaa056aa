package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/example/stores"
	"github.com/sessionfilestore/filestore/session"
)

// This file tests what Node does to the members that only the Go side knows: docs/EXPRESS.md says it.

// id returns the id in the browser's cookie.
func (b *browser) id(p *process) string {
	b.t.Helper()
	value, err := url.PathUnescape(b.cookie(p))
	id, _, ok := strings.Cut(strings.TrimPrefix(value, "s:"), ".")
	if err != nil || !ok {
		b.t.Fatalf("the cookie %q, %v", value, err)
	}
	return id
}

var endRE = regexp.MustCompile(`name="handle" value="([^"]+)"`)

// devices returns the list of the user's sessions, and the handles on it.
func (b *browser) devices(p *process) (page string, handles []string) {
	b.t.Helper()
	page = b.get(p, "/devices")
	for _, m := range endRE.FindAllStringSubmatch(page, -1) {
		handles = append(handles, m[1])
	}
	return page, handles
}

// endOthers ends all sessions of the user but the browser's own, from the list.
func (b *browser) endOthers(p *process) (n int) {
	b.t.Helper()
	page, _ := b.devices(p)
	for item := range strings.SplitSeq(page, "<section ") {
		if m := endRE.FindStringSubmatch(item); m != nil && !strings.Contains(item, "This one") {
			n++
			b.read(b.PostForm(p.url+"/devices/end", url.Values{"handle": {m[1]}}))
		}
	}
	return n
}

// open opens the Store as the Go side does, with another lifetime.
func (at place) open(t *testing.T, lifetime time.Duration) store {
	t.Helper()
	var codec filestore.Codec
	if at.encrypt {
		var err error
		if codec, err = newCodec(at.url, readSecret(t, at.dir)); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := stores.Open(context.Background(), at.dir, at.url, lifetime, codec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(store)
}

// A store is what the tests use of one.
type store interface {
	stores.Store
	session.Finder
}

func readSecret(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(dir + ".secret")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// own returns the members of a session that are the Go side's own, in JSON.
func own(t *testing.T, s store, id string) string {
	t.Helper()
	sess, err := s.Get(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sess.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		if !strings.HasPrefix(name, "__") || name == "__lastAccess" {
			delete(all, name)
		}
	}
	text, err = json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func testMembers(t *testing.T, at place, goes, node *process) {
	ctx := context.Background()
	store := at.open(t, 0)

	t.Run("Node keeps the members that it does not know", func(t *testing.T) {
		b := newBrowser(t)
		b.login(goes, "mypassword")
		id := b.id(goes)
		want := own(t, store, id)
		for _, name := range []string{"__created", "__authenticated", "__note"} {
			if !strings.Contains(want, name) {
				t.Fatalf("a login leaves %s", want)
			}
		}
		for _, step := range []func(*process){
			func(p *process) { b.visit(p) }, // saves
			func(p *process) { b.views(p) }, // touches
		} {
			before := time.Now().Add(-time.Hour)
			err := store.Update(ctx, id, func(s *filestore.Session) error {
				s.NoTouch, s.LastAccess = true, before
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			step(node)
			after, err := store.Get(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if got := own(t, store, id); got != want || after.LastAccess.Sub(before) < time.Hour/2 {
				t.Errorf("Node made %s of %s, and the last access %v of %v", got, want, after.LastAccess, before)
			}
		}
		if page, _ := b.devices(goes); !strings.Contains(page, "This one, fresh") {
			t.Errorf("after Node had the session, it is not fresh:\n%s", page)
		}
	})

	t.Run("a page that looks by itself does not prolong the session", func(t *testing.T) {
		for _, p := range []*process{goes, node} {
			b := newBrowser(t)
			b.login(p, "mypassword")
			id := b.id(p)
			before := time.Now().Add(-12 * time.Hour).Truncate(time.Second)
			err := store.Update(ctx, id, func(s *filestore.Session) error {
				s.NoTouch, s.LastAccess = true, before
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			ends := func() time.Time {
				t.Helper()
				sess, err := store.Get(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				return sess.ExpiresAt(time.Hour)
			}
			end := ends()
			r, err := http.NewRequest("GET", p.url+"/column", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Requested-With", "live.js")
			resp, err := b.Do(r)
			if status, body := b.read(resp, err); status != http.StatusOK || !strings.Contains(body, "user1") || resp.Header["Set-Cookie"] != nil {
				t.Errorf("%s: a look = %d, cookies %q\n%s", p.name, status, resp.Header["Set-Cookie"], body)
			}
			const rounding = 2 * time.Second // servers keep the end in seconds
			if now := ends(); now.Sub(end).Abs() > rounding {
				t.Errorf("%s: a look moves the end from %v to %v", p.name, end, now)
			}
			b.get(p, "/column")
			if now := ends(); now.Sub(end) < 11*time.Hour {
				t.Errorf("%s: a visit does not: nothing is tested", p.name)
			}
		}
	})

	t.Run("Node's regenerate drops them", func(t *testing.T) {
		b := newBrowser(t)
		b.login(goes, "mypassword")
		old := b.id(goes)
		b.login(node, "mypassword")
		if got := own(t, store, b.id(node)); got != "{}" {
			t.Errorf("after a login at Node the session has %s", got)
		}
		if _, err := store.Get(ctx, old); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("the old session: %v", err)
		}
		if page, _ := b.devices(goes); !strings.Contains(page, "This one, not fresh") {
			t.Errorf("a login at Node is fresh:\n%s", page)
		}
		b.visit(goes) // the first write of the Go side
		if got := own(t, store, b.id(goes)); !regexp.MustCompile(`^\{"__created":\d+\}$`).MatchString(got) {
			t.Errorf("after a write of the Go side the session has %s", got)
		}
	})

	t.Run("a session of Node is in the list and can be ended there", func(t *testing.T) {
		here, there := newBrowser(t), newBrowser(t)
		here.login(goes, "mypassword")
		here.endOthers(goes) // of the tests before
		there.login(node, "mypassword")
		stolen := as(t, node, there.cookie(node))
		page, handles := here.devices(goes)
		if len(handles) != 2 || strings.Count(page, "Logged in by Express.") != 1 || strings.Count(page, "Logged in by Go,") != 1 {
			t.Fatalf("the list is\n%s", page)
		}
		if n := here.endOthers(goes); n != 1 {
			t.Errorf("%d others", n)
		}
		for _, b := range []*browser{there, stolen} {
			if got := b.views(node); got.User != "" || got.Views != 0 {
				t.Errorf("at Node's next request the session is %+v", got)
			}
		}
		// It stays away after a request that saves.
		there.visit(node)
		if _, handles := here.devices(goes); len(handles) != 1 {
			t.Errorf("%d sessions", len(handles))
		}

		// A session of the Go side that it ends is gone for Node too.
		there.login(goes, "mypassword")
		if got := there.views(node).User; got != "user1" {
			t.Errorf("the user is %q", got)
		}
		here.endOthers(goes)
		if got := there.views(node).User; got != "" {
			t.Errorf("at Node's next request the user is %q", got)
		}
	})

	// To the Go side a session ends with its lifetime, whatever Node does. To Node a file lives until a Go reaper comes by,
	// and a session on a server for ever: what reaps there goes by the end that Node moves.
	t.Run("the lifetime", func(t *testing.T) {
		b := newBrowser(t)
		b.login(goes, "mypassword")
		id := b.id(goes)
		weekAgo := time.Now().Add(-lifetime - time.Minute).Truncate(time.Millisecond)
		if err := store.Update(ctx, id, func(s *filestore.Session) error { s.Created = weekAgo; return nil }); err != nil {
			t.Fatal(err)
		}
		limited := at.open(t, lifetime)
		if _, err := limited.Get(ctx, id); !errors.Is(err, filestore.ErrExpired) {
			t.Fatalf("Get = %v", err)
		}
		wait := as(t, node, b.cookie(node))
		for _, step := range []func(){func() { b.visit(node) }, func() { b.views(node) }} {
			step() // saves, then touches
			if got := b.views(node).User; got != "user1" {
				t.Errorf("to Node the user is %q", got)
			}
			if got := as(t, goes, b.cookie(goes)).views(goes).User; got != "" {
				t.Errorf("to Go the user is %q", got)
			}
			if sess, err := store.Get(ctx, id); err != nil || !sess.Created.Equal(weekAgo) {
				t.Errorf("the file: %+v, %v", sess, err)
			}
			if page := as(t, goes, b.cookie(goes)).get(goes, "/devices"); strings.Contains(page, "user1") {
				t.Errorf("the list has it:\n%s", page)
			}
		}
		reaper, ok := limited.(*filestore.Store)
		if ok != (at.url == "") {
			t.Fatalf("the Store is a %T", limited)
		}
		if ok {
			if _, err := reaper.Reap(ctx); err != nil {
				t.Fatal(err)
			}
			if got := wait.views(node); got.User != "" || got.Views != 0 {
				t.Errorf("after Reap Node has %+v", got)
			}
			wait.visit(node)
			if _, err := store.Get(ctx, id); !errors.Is(err, filestore.ErrNotFound) {
				t.Errorf("after Reap and a visit: %v", err)
			}
		}

		// A login at Node begins a session without a time of creation. The lifetime begins with Go's first write.
		b = newBrowser(t)
		b.login(node, "mypassword")
		b.visit(goes)
		if sess, err := store.Get(ctx, b.id(goes)); err != nil || time.Since(sess.Created) > time.Minute {
			t.Errorf("%+v, %v", sess, err)
		}
	})

	t.Run("a logout at Node ends what is open on the Go side", func(t *testing.T) {
		b := newBrowser(t)
		b.login(goes, "mypassword")
		m := &session.Manager{Store: store, Secrets: []string{readSecret(t, at.dir)}}
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: b.cookie(goes)})
		waits, done := make(chan struct{}), make(chan bool, 1)
		go m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			over := session.From(r).Done()
			close(waits)
			select {
			case <-over:
				done <- true
			case <-time.After(timeout):
				done <- false
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		<-waits
		b.visit(node) // a change does not end it
		select {
		case <-done:
			t.Fatal("Done was closed before the logout")
		default:
		}
		b.logout(node)
		if !<-done {
			t.Error("Done was not closed")
		}
	})

	// Node knows of no limit, and a login there ends nothing. The next login of the Go side ends what is too much, and
	// Node's sessions before its own.
	t.Run("the limit", func(t *testing.T) {
		first, second := newBrowser(t), newBrowser(t)
		first.login(goes, "mypassword")
		first.endOthers(goes)
		second.login(node, "mypassword")
		third := newBrowser(t)
		third.login(node, "mypassword")
		if _, handles := first.devices(goes); len(handles) != 3 {
			t.Fatalf("%d sessions, want 3", len(handles))
		}
		m := &session.Manager{Store: store, Secrets: []string{readSecret(t, at.dir)}, MaxPerUser: 2}
		r := httptest.NewRequest("POST", "/", nil)
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := session.From(r).Login("user1"); err != nil {
				t.Error(err)
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		var left []string
		for e, err := range store.Find(ctx, "user", "user1") {
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, e.ID)
		}
		if len(left) != 2 || !slices.Contains(left, first.id(goes)) {
			t.Errorf("after a login with MaxPerUser 2 there are %d sessions, the first login's among them: %v", len(left), slices.Contains(left, first.id(goes)))
		}
		for _, b := range []*browser{second, third} {
			if got := b.views(node).User; got != "" {
				t.Errorf("a session of Node is there: %q", got)
			}
		}
	})
}
