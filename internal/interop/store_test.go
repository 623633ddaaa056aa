package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// Find has what Node has written when Node's call returns, and no longer what Node has destroyed.
func TestFindWhatNodeWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, file := open(t, dir, nil), nodeOpen(t, driver(t), dir, nil)
	find := func(member, value string) (ids []string) {
		for e, err := range store.Find(ctx, member, value) {
			must(t, err)
			ids = append(ids, e.ID)
		}
		return ids
	}
	for round := range 100 {
		id := fmt.Sprintf("node-%d", round)
		user := fmt.Sprintf("user%d", round%3)
		must(t, file.set(id, object{"cookie": object{"originalMaxAge": nil}, "passport": object{"user": user}, "n": round}))
		if got := find("passport.user", user); !slices.Equal(got, []string{id}) {
			t.Fatalf("round %d: after Node's set Find finds %q, want %q", round, got, id)
		}
		if got := find("n", fmt.Sprint(round)); !slices.Equal(got, []string{id}) {
			t.Fatalf("round %d: Find finds %q by a number, want %q", round, got, id)
		}
		must(t, file.set(id, object{"cookie": object{"originalMaxAge": nil}, "passport": object{"user": "another"}}))
		if got := find("passport.user", user); len(got) != 0 {
			t.Fatalf("round %d: after Node has given it another user Find finds %q", round, got)
		}
		must(t, file.destroy(id))
		if got := find("passport.user", "another"); len(got) != 0 {
			t.Fatalf("round %d: after Node's destroy Find finds %q", round, got)
		}
	}
}

// The methods of both stores work on one directory.
func TestMethods(t *testing.T) {
	t.Parallel()
	n := driver(t)

	t.Run("13 get of an expired file", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		text := doc(time.Now().Add(-time.Hour-time.Second), `"views":1`)
		plant(t, dir, anID+".json", text)
		if _, err := store.Get(ctx, anID); !errors.Is(err, filestore.ErrExpired) || !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get() = %v, want ErrExpired", err)
		}
		if got, err := file.get(anID); string(got) != "null" || err != nil {
			t.Errorf("Node's get = %s, %v, want null", got, err)
		}
		if got := call[bool](t, n, "expired", object{"store": file.num, "sid": anID}); !got {
			t.Error("Node's expired = false")
		}
		if got := read(t, dir, anID+".json"); got != text {
			t.Errorf("the file is now %s", got)
		}
	})

	// Node deletes a file that it cannot parse. Go keeps it.
	for _, text := range []string{"", "{", `{"cookie":{}}}`, "\ufeff{}", `{"cookie":{"a":NaN}}`, "{'cookie':{}}", doc(time.Now(), "") + "x"} {
		t.Run(fmt.Sprintf("14 get of the corrupt file %.20q", text), func(t *testing.T) {
			dir := t.TempDir()
			store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
			plant(t, dir, anID+".json", text)
			_, err := store.Get(ctx, anID)
			touchErr := store.Touch(ctx, anID, nil)
			updateErr := store.Update(ctx, anID, func(*filestore.Session) error { return nil })
			for op, err := range map[string]error{"Get": err, "Touch": touchErr, "Update": updateErr} {
				if !errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrNotFound) {
					t.Errorf("%s() = %v, want ErrCorrupt", op, err)
				}
			}
			if _, err := store.Reap(ctx); err != nil {
				t.Errorf("Reap() = %v", err)
			}
			if got := read(t, dir, anID+".json"); got != text {
				t.Errorf("the file is now %q, want it kept", got)
			}
			if _, err := file.get(anID); !IsCode(err, "SyntaxError") {
				t.Errorf("Node's get: %v, want a SyntaxError", err)
			}
			if exists(dir, anID+".json") {
				t.Error("Node has kept the file")
			}
			// Neither store has suffered.
			plant(t, dir, anID+".json", text)
			must(t, store.Set(ctx, anID, goValues(t)))
			if _, err := file.get(anID); err != nil {
				t.Errorf("Node's get after Go's Set: %v", err)
			}
		})
	}

	t.Run("14 documents that are not sessions", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		for _, text := range []string{"null", "true", "5", `"x"`, "[]", "{}", `{"cookie":null}`, `{"cookie":5}`, `{"cookie":[]}`} {
			plant(t, dir, anID+".json", text)
			if _, err := store.Get(ctx, anID); !errors.Is(err, filestore.ErrCorrupt) {
				t.Errorf("Get() of %s = %v, want ErrCorrupt", text, err)
			}
			if got, err := file.get(anID); string(got) != text || err != nil {
				t.Errorf("Node's get of %s = %s, %v, want it back", text, got, err)
			}
			if got := read(t, dir, anID+".json"); got != text {
				t.Errorf("the file is now %s, want %s", got, text)
			}
		}
	})

	t.Run("15 a missing file", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		file := nodeOpen(t, n, dir, object{"retries": 5}) // the default
		begin := time.Now()
		if _, err := file.get(anID); !IsCode(err, "ENOENT") {
			t.Errorf("Node's get: %v, want ENOENT", err)
		}
		if d := time.Since(begin); d < 200*time.Millisecond {
			t.Errorf("Node has answered after %v, want its five waits of 50 ms", d)
		}
		if _, err := store.Get(ctx, anID); !errors.Is(err, filestore.ErrNotFound) || errors.Is(err, filestore.ErrExpired) {
			t.Errorf("Get() = %v, want ErrNotFound", err)
		}
	})

	t.Run("16 touch changes the cookie and the last access only", func(t *testing.T) {
		text := `{"a":1,"cookie":{"originalMaxAge":60000,"expires":"2026-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"b":{"y":[1.5],"x":2},"__lastAccess":%d,"c":"\u2028 é"}`
		text = fmt.Sprintf(strings.Replace(text, `\u2028`, "\u2028", 1), time.Now().Add(-time.Second).UnixMilli())
		expires := time.Now().Add(time.Minute).Truncate(time.Millisecond)
		dir := t.TempDir()
		store, file := open(t, dir, &filestore.Options{TouchAfter: -1}), nodeOpen(t, n, dir, nil)
		touched := make(map[string]string)
		begin := time.Now().Truncate(time.Millisecond)
		for who, touch := range map[string]func() error{
			"Go": func() error {
				sess, err := store.Get(ctx, anID)
				if err != nil {
					return err
				}
				sess.Cookie.Expires = expires
				return store.Touch(ctx, anID, &sess.Cookie)
			},
			"Node": func() error {
				cookie := json.RawMessage(expires.UTC().Format(`{"originalMaxAge":60000,"expires":"2006-01-02T15:04:05.000Z","httpOnly":true,"path":"/"}`))
				return file.touch(anID, object{"cookie": cookie, "a": "not this", "more": "nor this"})
			},
		} {
			plant(t, dir, anID+".json", text)
			must(t, touch())
			got := read(t, dir, anID+".json")
			got = regexp.MustCompile(`,"__created":\d+`).ReplaceAllString(got, "") // Go's first write adds it
			sameValues(t, who+"'s touch", []byte(got), []byte(text))
			sess := checkText(t, got)
			if !sess.Cookie.Expires.Equal(expires) || sess.Cookie.OriginalMaxAge != time.Minute {
				t.Errorf("%s's touch left the cookie %+v", who, sess.Cookie)
			}
			if sess.LastAccess.Before(begin) {
				t.Errorf("%s's touch left the last access at %v", who, sess.LastAccess)
			}
			touched[who] = regexp.MustCompile(`"__lastAccess":\d+`).ReplaceAllString(got, "")
		}
		if touched["Go"] != touched["Node"] {
			t.Errorf("touched by Go\n%s\nby Node\n%s", touched["Go"], touched["Node"])
		}
	})

	// Node brings an expired session back, without its values. Go must not.
	t.Run("17 touch of an expired file", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		text := doc(time.Now().Add(-2*time.Hour), `"user":"user1"`)
		plant(t, dir, anID+".json", text)
		cookie := filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/"}
		if err := store.Touch(ctx, anID, &cookie); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Touch() = %v, want ErrNotFound", err)
		}
		if got := read(t, dir, anID+".json"); got != text {
			t.Errorf("after Go's Touch: %s, want the file as it was", got)
		}
		must(t, file.touch(anID, object{"cookie": object{"path": "/"}}))
		if sess, err := store.Get(ctx, anID); err != nil || len(sess.Values) != 0 {
			t.Errorf("after Node's touch Get() = %v, %v, want an empty session", sess, err)
		}
	})

	t.Run("18 touch of a missing file", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		if err := store.Touch(ctx, anID, &filestore.Cookie{}); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Touch() = %v, want ErrNotFound", err)
		}
		if err := file.touch(anID, object{"cookie": object{}}); !IsCode(err, "ENOENT") {
			t.Errorf("Node's touch: %v, want ENOENT", err)
		}
		if got := names(t, dir); !slices.Equal(got, []string{".locks"}) {
			t.Errorf("the directory holds %q", got)
		}
	})

	t.Run("19 destroy", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		for range 2 { // the second time nothing is there
			must(t, store.Destroy(ctx, anID))
			must(t, file.destroy(anID))
		}
		must(t, file.set(anID, object{"cookie": object{}}))
		must(t, store.Destroy(ctx, anID))
		if _, err := file.get(anID); !IsCode(err, "ENOENT") {
			t.Errorf("Node's get after Go's Destroy: %v", err)
		}
		must(t, store.Set(ctx, anID, new(filestore.Session)))
		must(t, file.destroy(anID))
		if _, err := store.Get(ctx, anID); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("Get() after Node's destroy = %v", err)
		}
	})

	t.Run("34 an extension of one's own", func(t *testing.T) {
		for _, ext := range []string{".sess", ".s-n", ".session.json"} {
			dir := t.TempDir()
			store := open(t, dir, &filestore.Options{Extension: ext})
			file := nodeOpen(t, n, dir, object{"fileExtension": ext})
			plant(t, dir, "other.JSON", doc(time.Now(), ""))
			must(t, store.Set(ctx, "a", goValues(t)))
			must(t, file.set("b", object{"cookie": object{}, "by": "node"}))
			if got := names(t, dir); !slices.Equal(got, []string{".locks", "a" + ext, "b" + ext, "other.JSON"}) {
				t.Errorf("%s: the directory holds %q", ext, got)
			}
			if _, err := file.get("a"); err != nil {
				t.Errorf("%s: Node's get: %v", ext, err)
			}
			if _, err := store.Get(ctx, "b"); err != nil {
				t.Errorf("%s: Get() = %v", ext, err)
			}
			if got := call[[]string](t, n, "list", object{"store": file.num}); !slices.Equal(got, []string{"a" + ext, "b" + ext}) {
				t.Errorf("%s: Node's list = %q", ext, got)
			}
			if n, err := store.Len(ctx); n != 2 || err != nil {
				t.Errorf("%s: Len() = %d, %v, want 2", ext, n, err)
			}
			must(t, store.Clear(ctx))
			if got := call[int](t, n, "length", object{"store": file.num}); got != 0 {
				t.Errorf("%s: Node's length after Clear = %d", ext, got)
			}
			if !exists(dir, "other.JSON") {
				t.Errorf("%s: Clear took a file of another extension", ext)
			}
		}
	})

	t.Run("47 length and list", func(t *testing.T) {
		dir := t.TempDir()
		store, file := open(t, dir, nil), nodeOpen(t, n, dir, nil)
		for i := range 20 {
			must(t, store.Set(ctx, fmt.Sprintf("go-%d", i), goValues(t)))
			must(t, file.set(fmt.Sprintf("node-%d", i), object{"cookie": object{}}))
		}
		for _, name := range []string{"README", "a.json.bak", "a.json.123", "b.JSON"} {
			plant(t, dir, name, "x")
		}
		check := func(want int) {
			t.Helper()
			if got, err := store.Len(ctx); got != want || err != nil {
				t.Errorf("Len() = %d, %v, want %d", got, err, want)
			}
			if got := call[int](t, n, "length", object{"store": file.num}); got != want {
				t.Errorf("Node's length = %d, want %d", got, want)
			}
			var ids []string
			for id, err := range store.IDs(ctx) {
				must(t, err)
				ids = append(ids, id+".json")
			}
			slices.Sort(ids)
			list := call[[]string](t, n, "list", object{"store": file.num})
			slices.Sort(list)
			if !slices.Equal(ids, list) {
				t.Errorf("IDs() are %q, Node's list is %q", ids, list)
			}
		}
		check(40)
		must(t, store.Destroy(ctx, "node-3"))
		must(t, file.destroy("go-3"))
		check(38)
		call[any](t, n, "clear", object{"store": file.num})
		// Node calls back after the last name, when others may still be at work.
		for deadline := time.Now().Add(20 * time.Second); call[int](t, n, "length", object{"store": file.num}) > 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
		check(0)
		must(t, store.Set(ctx, anID, goValues(t))) // Node has left the locks
		check(1)
		must(t, store.Clear(ctx))
		check(0)
		if got := names(t, dir); !slices.Equal(got, []string{".locks", "README", "a.json.123", "a.json.bak", "b.JSON"}) {
			t.Errorf("after both have cleared the directory holds %q", got)
		}
	})
}

// This test is not parallel: all tests share the working directory.
func TestRelativePath(t *testing.T) {
	n := driver(t)
	t.Run("35 a relative path and the working directory", func(t *testing.T) {
		one, two := t.TempDir(), t.TempDir()
		t.Chdir(one)
		call[any](t, n, "chdir", one)
		store := open(t, "sess", nil)
		file := nodeOpen(t, n, "./sess", nil)
		must(t, store.Set(ctx, "a", goValues(t)))
		if _, err := file.get("a"); err != nil {
			t.Errorf("Node's get: %v", err)
		}
		must(t, file.set("b", object{"cookie": object{}}))
		if _, err := store.Get(ctx, "b"); err != nil {
			t.Errorf("Get() = %v", err)
		}
		// Node resolves the path at each operation, and Go once.
		must(t, os.Mkdir(filepath.Join(two, "sess"), 0o700))
		t.Chdir(two)
		call[any](t, n, "chdir", two)
		must(t, store.Set(ctx, "c", goValues(t)))
		must(t, file.set("d", object{"cookie": object{}}))
		if !exists(filepath.Join(one, "sess"), "c.json") || !exists(filepath.Join(two, "sess"), "d.json") {
			t.Errorf("after chdir %q and %q", names(t, filepath.Join(one, "sess")), names(t, filepath.Join(two, "sess")))
		}
		t.Chdir(one)
	})
}

func TestReap(t *testing.T) {
	t.Parallel()
	n := driver(t)
	const ttl = 3600
	cookie := func(maxAge string) string {
		return fmt.Sprintf(`{"originalMaxAge":%s,"expires":null,"httpOnly":true,"path":"/"}`, maxAge)
	}
	// Both sides remove and keep the same sessions, whichever side wrote them.
	now := time.Now()
	dead, live := map[string]string{}, map[string]string{}
	add := func(set map[string]string, id, maxAge string, lastAccess time.Time) {
		set[id+".json"] = fmt.Sprintf(`{"cookie":%s,"user":"user1","__lastAccess":%d}`, cookie(maxAge), lastAccess.UnixMilli())
	}
	add(dead, "dead-ttl", "null", now.Add(-ttl*time.Second-time.Second))
	add(dead, "dead-false", "false", now.Add(-ttl*time.Second-time.Second))
	add(dead, "dead-maxage", "1000", now.Add(-2*time.Second))
	add(dead, "dead-negative", "-1", now)
	add(dead, "dead-long-ago", "null", time.UnixMilli(1))
	add(live, "live-ttl", "null", now.Add(-ttl*time.Second/2))
	add(live, "live-maxage", "86400000", now.Add(-2*ttl*time.Second))
	add(live, "live-now", "0", now)
	foreign := map[string]string{
		"config.json":      `{"name":"x"}`,
		"list.json":        `[]`,
		"x.json.1234":      "{",
		"x.json.bak":       doc(time.UnixMilli(1), ""),
		"x.JSON":           doc(time.UnixMilli(1), ""),
		"README":           "read me",
		"not.json.session": "",
	}

	t.Run("20 Node removes Go's expired files and keeps the rest", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		file := nodeOpen(t, n, dir, object{"ttl": ttl, "reapMaxConcurrent": 1})
		// Go writes the session, and only then it is made old: Set marks it as accessed.
		rewrite := func(name, text string) {
			sess := new(filestore.Session)
			must(t, sess.UnmarshalJSON([]byte(text)))
			must(t, store.Set(ctx, strings.TrimSuffix(name, ".json"), sess))
			now := regexp.MustCompile(`"__lastAccess":\d+`)
			plant(t, dir, name, now.ReplaceAllString(read(t, dir, name), now.FindString(text)))
		}
		for name, text := range dead {
			rewrite(name, text)
		}
		for name, text := range live {
			rewrite(name, text)
		}
		must(t, file.reap())
		for name := range dead {
			if exists(dir, name) {
				t.Errorf("%s is left", name)
			}
		}
		for name := range live {
			if got, err := file.get(strings.TrimSuffix(name, ".json")); string(got) == "null" || err != nil {
				t.Errorf("get(%s) = %s, %v, want the session", name, got, err)
			}
		}
		must(t, store.Set(ctx, anID, goValues(t))) // the locks are left
	})

	t.Run("20 Go removes Node's expired files and keeps the rest", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		file := nodeOpen(t, n, dir, object{"ttl": ttl})
		for _, set := range []map[string]string{dead, live, foreign} {
			for name, text := range set {
				plant(t, dir, name, text)
			}
		}
		must(t, os.MkdirAll(filepath.Join(dir, "dir.json", "sub"), 0o700))
		must(t, os.Mkdir(filepath.Join(dir, "empty.json"), 0o700))
		must(t, file.set("by-node", object{"cookie": object{}}))
		removed, err := store.Reap(ctx)
		if removed != len(dead) || err != nil {
			t.Errorf("Reap() = %d, %v, want %d", removed, err, len(dead))
		}
		want := []string{".locks", "by-node.json", "dir.json", "empty.json"}
		for _, set := range []map[string]string{live, foreign} {
			for name, text := range set {
				want = append(want, name)
				if exists(dir, name) && read(t, dir, name) != text {
					t.Errorf("%s has changed to %s", name, read(t, dir, name))
				}
			}
		}
		slices.Sort(want)
		if got := names(t, dir); !slices.Equal(got, want) {
			t.Errorf("left are %q\nwant     %q", got, want)
		}
		// Node agrees that the sessions that are left live.
		if err := file.reap(); !IsCode(err, "EISDIR") {
			t.Errorf("Node's reap: %v, want EISDIR of the directories alone", err)
		}
		for name := range live {
			if !exists(dir, name) {
				t.Errorf("Node has removed %s", name)
			}
		}
	})
}

// tempNames sets a session with the store and returns the names that were
// created in dir meanwhile.
func tempNames(t *testing.T, dir string, set func()) []string {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	must(t, w.Add(dir))
	var mu sync.Mutex
	var created []string
	seen := make(chan struct{})
	go func() {
		for e := range w.Events {
			name := filepath.Base(e.Name)
			if name == "last" {
				close(seen)
				return
			}
			if e.Has(fsnotify.Create) {
				mu.Lock()
				created = append(created, name)
				mu.Unlock()
			}
		}
	}()
	set()
	plant(t, dir, "last", "") // events come in order
	select {
	case <-seen:
	case <-time.After(20 * time.Second):
		t.Fatal("the watcher has missed the last event")
	}
	must(t, w.Close())
	must(t, os.Remove(filepath.Join(dir, "last")))
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(created)
	return slices.Compact(created) // two files that exchange their names are both created once more
}

var npmTemp = regexp.MustCompile(`\.json\.\d+$`)

func TestTemporaryFiles(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		skip.Test(t, "other systems' watchers do not tell of each file")
	}
	n := driver(t)
	dir := t.TempDir()
	store := open(t, dir, nil)
	file := nodeOpen(t, n, dir, object{"reapMaxConcurrent": 1})
	var ours, theirs []string
	for _, name := range tempNames(t, dir, func() {
		for range 10 {
			must(t, store.Set(ctx, anID, goValues(t)))
		}
	}) {
		if name != anID+".json" {
			ours = append(ours, name)
		}
	}
	for _, name := range tempNames(t, dir, func() {
		for range 10 {
			must(t, file.set(anID, object{"cookie": object{}}))
		}
	}) {
		if name != anID+".json" {
			theirs = append(theirs, name)
		}
	}
	if len(ours) != 10 || len(theirs) != 10 {
		t.Fatalf("temporary files are %q and %q, want ten of each", ours, theirs)
	}

	t.Run("21 Node takes no file of Go's for a session", func(t *testing.T) {
		for _, name := range ours {
			if strings.HasSuffix(name, ".json") {
				t.Errorf("temporary file %q", name)
			}
			plant(t, dir, name, "{") // as if its writer had been killed
		}
		list := call[[]string](t, n, "list", object{"store": file.num})
		if !slices.Equal(list, []string{anID + ".json"}) {
			t.Errorf("Node's list = %q", list)
		}
		if got := call[int](t, n, "length", object{"store": file.num}); got != 1 {
			t.Errorf("Node's length = %d, want 1", got)
		}
		must(t, file.reap())
		for _, name := range append(ours, ".locks") {
			if !exists(dir, name) {
				t.Errorf("Node has removed %q", name)
			}
		}
		storetest.Sweep(t, dir) // Go removes the files of its dead writers
		if got := names(t, dir); !slices.Equal(got, []string{".locks", anID + ".json"}) {
			t.Errorf("an hour later the directory holds %q", got)
		}
	})

	t.Run("22 temporary names cannot collide", func(t *testing.T) {
		for _, name := range ours {
			if npmTemp.MatchString(name) {
				t.Errorf("Go's temporary file %q could be Node's", name)
			}
		}
		for _, name := range theirs {
			if !npmTemp.MatchString(name) {
				t.Errorf("Node's temporary file is %q: Go must learn its new form", name)
			}
			id, _, _ := strings.Cut(name, ".json.")
			if id != anID {
				t.Errorf("Node's temporary file is %q", name)
			}
			if err := store.Set(ctx, name, new(filestore.Session)); !errors.Is(err, filestore.ErrInvalidID) {
				t.Errorf("Set(%q) = %v, want ErrInvalidID", name, err)
			}
		}
	})

	t.Run("22 Node's are swept only when old", func(t *testing.T) {
		fresh, old := theirs[0], theirs[1]
		for _, name := range []string{fresh, old} {
			plant(t, dir, name, "{")
		}
		past := time.Now().Add(-2 * time.Hour)
		must(t, os.Chtimes(filepath.Join(dir, old), past, past))
		if _, err := store.Reap(ctx); err != nil {
			t.Errorf("Reap() = %v", err)
		}
		if !exists(dir, fresh) || exists(dir, old) {
			t.Errorf("an hour later the directory holds %q, want the fresh %q and not the old %q", names(t, dir), fresh, old)
		}
		must(t, os.Remove(filepath.Join(dir, fresh)))
	})
}

func TestModes(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		skip.Test(t, "no modes here")
	}
	n := driver(t)
	dir := t.TempDir()
	store := open(t, dir, nil)
	file := nodeOpen(t, n, dir, nil)
	mode := func() fs.FileMode {
		t.Helper()
		fi, err := os.Stat(filepath.Join(dir, anID+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode()
	}
	check := func(after string, want fs.FileMode) {
		t.Helper()
		if got := mode(); got != want {
			t.Errorf("%s the mode is %v, want %v", after, got, want)
		}
	}

	t.Run("23 file modes", func(t *testing.T) {
		call[any](t, n, "umask", 0o022)
		must(t, file.set(anID, object{"cookie": object{}}))
		check("of a new file of Node's", 0o644)
		must(t, store.Touch(ctx, anID, &filestore.Cookie{Path: "/x"}))
		check("after Go's Touch", 0o600) // a session that everybody can read is an accident
		must(t, file.touch(anID, object{"cookie": object{}}))
		check("after Node's touch", 0o600)
		must(t, file.set(anID, object{"cookie": object{}}))
		check("after Node's set", 0o600)

		call[any](t, n, "umask", 0o077)
		must(t, store.Destroy(ctx, anID))
		must(t, file.set(anID, object{"cookie": object{}}))
		check("of a new file of Node's under umask 077", 0o600)
	})

	t.Run("23 a mode for a Node of another user", func(t *testing.T) {
		shared := open(t, dir, &filestore.Options{Mode: 0o660})
		must(t, shared.Set(ctx, anID, goValues(t)))
		check("after Go's Set with Options.Mode", 0o660)
		must(t, file.touch(anID, object{"cookie": object{}}))
		check("after Node's touch", 0o660)
	})

	t.Run("24 each reads and replaces the other's files", func(t *testing.T) {
		for i := range 3 {
			must(t, store.Set(ctx, anID, goValues(t)))
			got, err := file.get(anID)
			if err != nil || !strings.Contains(string(got), "user1") {
				t.Errorf("Node's get = %s, %v", got, err)
			}
			must(t, file.set(anID, object{"cookie": object{}, "i": i}))
			sess, err := store.Get(ctx, anID)
			if err != nil {
				t.Fatalf("Get() = %v", err)
			}
			if got, err := filestore.Value[int](sess, "i"); got != i || err != nil {
				t.Errorf("Value(i) = %d, %v, want %d", got, err, i)
			}
		}
	})
}
