package gfstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gogf/gf/v2/container/gmap"
	"github.com/gogf/gf/v2/errors/gerror"
	"github.com/gogf/gf/v2/frame/g"
	"github.com/gogf/gf/v2/net/ghttp"
	"github.com/gogf/gf/v2/os/gsession"
	"github.com/gogf/gf/v2/util/guid"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gfstore"
	"github.com/sessionfilestore/filestore/adapter/internal/adaptertest"
)

// With this variable set the test binary is another process on the directory that GFSTORE_TEST_DIR
// names: a site, or a writer of one session by gfstore or by StorageFile.
const (
	child    = "GFSTORE_TEST_CHILD"
	childDir = "GFSTORE_TEST_DIR"
)

func TestMain(m *testing.M) {
	mode, dir := os.Getenv(child), os.Getenv(childDir)
	if mode == "" {
		os.Exit(m.Run())
	}
	var storage gsession.Storage
	if mode == "file" {
		storage = gsession.NewStorageFile(dir, time.Hour)
	} else {
		s, err := filestore.Open(dir, options)
		if err != nil {
			panic(err)
		}
		storage = gfstore.New(s)
	}
	if mode == "site" {
		fmt.Println(newSite(storage).url)
	} else {
		fmt.Println("ready")
		go func() {
			for i := 0; ; i++ {
				write(storage, i)
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin) // until it is closed, or we are killed
	os.Exit(0)
}

// start starts the test binary as another process, and returns its first line.
func start(t *testing.T, mode, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+mode, childDir+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(string(line[:n]))
}

var options = &filestore.Options{NoSync: true, ReapInterval: -1, Logger: slog.New(slog.DiscardHandler)}

var (
	ctx  = context.Background()
	none context.Context
)

func open(t *testing.T, dir string) (gsession.Storage, *filestore.Store) {
	t.Helper()
	s, err := filestore.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return gfstore.New(s), s
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// expire makes the sessions in dir as old as if nobody had used them for hours.
func expire(t *testing.T, dir string) {
	t.Helper()
	for _, name := range files(t, dir) {
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.LastIndex(old, []byte(`"__lastAccess":`))
		if i < 0 {
			t.Fatalf("%s", old)
		}
		ago := time.Now().Add(-99 * time.Hour).UnixMilli()
		if err := os.WriteFile(name, fmt.Appendf(old[:i:i], `"__lastAccess":%d}`, ago), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func get(t *testing.T, s gsession.Storage, id string, want map[string]any) *gmap.StrAnyMap {
	t.Helper()
	data, err := s.GetSession(ctx, id, time.Hour)
	if err != nil || (data == nil) != (want == nil) || data != nil && fmt.Sprint(data.Map()) != fmt.Sprint(want) {
		t.Errorf("GetSession(%.20q) = %v, %v, want %v", id, data, err, want)
	}
	return data
}

func set(t *testing.T, s gsession.Storage, id string, data *gmap.StrAnyMap) {
	t.Helper()
	if err := s.SetSession(ctx, id, data, time.Hour); err != nil {
		t.Errorf("SetSession(%.20q) = %v", id, err)
	}
}

func mapOf(kv ...any) *gmap.StrAnyMap {
	m := gmap.NewStrAnyMap(true)
	for i := 0; i < len(kv); i += 2 {
		m.Set(kv[i].(string), kv[i+1])
	}
	return m
}

// What Test_StorageFile and Test_StorageMemory of gsession ask.
func TestGoFramesOwn(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	manager := gsession.New(time.Hour, storage)
	assert := func(ok bool) {
		t.Helper()
		if !ok {
			t.Error("does not hold")
		}
	}

	s := manager.New(ctx)
	_ = s.Set("k1", "v1")
	s.MustSet("k2", "v2")
	_ = s.SetMap(g.Map{"kmap1": "kval1"})
	s.MustSetMap(g.Map{"k4": "v4"})
	assert(s.IsDirty())
	id := s.MustId()
	assert(s.Close() == nil)

	s = manager.New(ctx, id)
	assert(s.MustGet("k1").String() == "v1" && s.MustGet("k2").String() == "v2" && s.MustGet("k4").String() == "v4")
	assert(len(s.MustData()) == 4 && s.MustData()["k1"] == "v1")
	assert(s.MustId() == id && s.MustSize() == 4)
	assert(s.MustContains("k1") && !s.MustContains("k5"))
	assert(s.Remove("k4") == nil)
	s.MustRemove("k4")
	assert(s.MustSize() == 3 && s.MustContains("k1") && !s.MustContains("k4"))
	assert(s.RemoveAll() == nil)
	assert(s.MustSize() == 0 && !s.MustContains("k1") && !s.MustContains("k2"))
	_ = s.SetMap(g.Map{"k5": "v5", "k6": "v6"})
	assert(s.MustSize() == 2 && s.MustContains("k5") && s.MustContains("k6"))
	assert(s.Close() == nil)

	s = manager.New(ctx, id) // what was set after RemoveAll is there
	assert(s.MustSize() == 2 && s.MustGet("k5").String() == "v5")
	s.MustSet("k7", "v7")
	assert(s.Close() == nil)
	assert(manager.New(ctx, id).MustSize() == 3)

	expire(t, dir)
	s = manager.New(ctx, id)
	assert(s.MustSize() == 0 && s.MustGet("k5").IsNil())
	assert(s.MustGet("k5", "default").String() == "default")
}

// What Test_Session_RegenerateId of gsession asks.
func TestRegenerateID(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	manager := gsession.New(time.Hour, storage)
	s := manager.New(ctx)
	s.MustSet("key", "value")
	old := s.MustId()
	id1 := s.MustRegenerateId(true)
	if id1 == old || s.MustGet("key").String() != "value" {
		t.Errorf("after RegenerateId: %v", s.MustData())
	}
	get(t, storage, old, nil)
	id2 := s.MustRegenerateId(false)
	get(t, storage, id1, g.Map{"key": "value"})
	s.MustSet("more", 1)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	get(t, storage, id1, g.Map{"key": "value"})
	get(t, storage, id2, g.Map{"key": "value", "more": 1})

	// Of a loaded one, an emptied one, and one that is removed first.
	s = manager.New(ctx, id2)
	s.MustRemove("key", "more")
	id3 := s.MustRegenerateId(true)
	s.MustSet("user", "asta")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	get(t, storage, id2, nil)
	get(t, storage, id3, g.Map{"user": "asta"})
	s = manager.New(ctx, id3)
	if err := s.RemoveAll(); err != nil {
		t.Error(err)
	}
	id4 := s.MustRegenerateId(true)
	s.MustSet("user", "other")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	get(t, storage, id3, nil)
	get(t, storage, id4, g.Map{"user": "other"})
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}

// Values come back as by StorageFile, and can be read in the file.
func TestValues(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	theirs := gsession.NewStorageFile(t.TempDir(), time.Hour)
	values := g.Map{
		"int": 1, "big": int64(1)<<62 + 1, "float": 1.5, "bool": true, "nil": nil, "string": "é<&>\x00", "bytes": []byte{0, 255},
		"map": g.Map{"a": g.Slice{1, "x"}}, "struct": struct{ Name string }{"asta"}, "cookie": "c", "__lastAccess": 0, "data": 1, "": "",
	}
	var got [2]map[string]any
	for i, s := range []gsession.Storage{storage, theirs} {
		set(t, s, "id", gmap.NewStrAnyMapFrom(values, true))
		data, err := s.GetSession(ctx, "id", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got[i] = data.Map()
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		t.Errorf("got  %#v\nwant %#v", got[0], got[1])
	}
	s := gsession.New(time.Hour, storage).New(ctx, "id")
	if s.MustGet("big").Int64() != 1<<62+1 || s.MustGet("map").Map()["a"] == nil {
		t.Errorf("%v", s.MustData())
	}
	if file, err := os.ReadFile(filepath.Join(dir, "id.json")); err != nil || !bytes.Contains(file, []byte(`"big":4611686018427387905,`)) {
		t.Errorf("the file is %s, %v", file, err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "id.json"))
	if err := storage.SetSession(ctx, "id", mapOf("f", func() {}), time.Hour); err == nil || strings.Contains(err.Error(), `"id"`) {
		t.Errorf("SetSession of a function = %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "id.json")); !bytes.Equal(before, after) {
		t.Errorf("the file became %s", after)
	}
}

func TestDisabled(t *testing.T) {
	s, _ := open(t, t.TempDir())
	_, err1 := s.Get(ctx, "id", "k")
	_, err2 := s.GetSize(ctx, "id")
	_, err3 := s.Data(ctx, "id")
	for _, err := range []error{err1, err2, err3, s.Set(ctx, "id", "k", 1, 0), s.SetMap(ctx, "id", nil, 0), s.Remove(ctx, "id", "k")} {
		if !gerror.Is(err, gsession.ErrorDisabled) {
			t.Errorf("%v, want ErrorDisabled", err)
		}
	}
	a, _ := s.New(ctx, 0)
	if b, err := s.New(ctx, 0); err != nil || a == b || len(a) < 22 || !filestore.ValidID(a) {
		t.Errorf("New = %q, then %q, %v", a, b, err)
	}
}

// A session that was removed stays away, whatever others had loaded, and a later one of its id is not
// overwritten by what was loaded before.
func TestRemoved(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	login := func(user string) { set(t, s, "id", mapOf("user", user)) }
	remove := func() {
		t.Helper()
		if err := errors.Join(s.RemoveAll(ctx, "id"), s.RemoveAll(ctx, "id")); err != nil {
			t.Error(err)
		}
	}
	login("asta")
	slow := get(t, s, "id", g.Map{"user": "asta"})
	out := get(t, s, "id", g.Map{"user": "asta"})
	remove()
	out.Clear() // as Session.RemoveAll does
	set(t, s, "id", out)
	get(t, s, "id", nil)
	slow.Set("slow", true)
	set(t, s, "id", slow)
	get(t, s, "id", nil)
	if err := s.UpdateTTL(ctx, "id", time.Hour); err != nil {
		t.Error(err)
	}
	if n := len(files(t, dir)); n != 0 {
		t.Errorf("%d files, want none", n)
	}
	if err := s.SetSession(ctx, "new", slow, time.Hour); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("SetSession under another id = %v, want ErrNotFound", err)
	}
	get(t, s, "new", nil)

	// GoFrame keeps the client's id after a logout, and the next user logs in under it.
	login("other")
	set(t, s, "id", slow)
	get(t, s, "id", g.Map{"user": "other"})
	if err := s.SetSession(ctx, "new", slow, time.Hour); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("SetSession under another id = %v, want ErrNotFound", err)
	}
	// Or in the request that removed all.
	out = get(t, s, "id", g.Map{"user": "other"})
	slow = get(t, s, "id", g.Map{"user": "other"})
	remove()
	out.Clear()
	out.Set("user", "third")
	set(t, s, "id", out)
	set(t, s, "id", slow)
	get(t, s, "id", g.Map{"user": "third"})
	out.Set("more", 1)
	set(t, s, "id", out)
	get(t, s, "id", g.Map{"user": "third", "more": 1})
	remove()
	set(t, s, "id", out)
	get(t, s, "id", nil)

	// Of two that found none each adds its own.
	get(t, s, "id", nil)
	a, b := mapOf("a", 1), mapOf("b", 1)
	set(t, s, "id", a)
	set(t, s, "id", b)
	a.Set("c", 1)
	set(t, s, "id", a)
	b.Remove("b")
	set(t, s, "id", b)
	get(t, s, "id", g.Map{"a": 1, "c": 1})

	// Nothing is stored for who has nothing.
	set(t, s, "empty", mapOf())
	get(t, s, "empty", nil)
	m := mapOf("x", 1)
	set(t, s, "emptied", m)
	m.Remove("x")
	set(t, s, "emptied", m)
	get(t, s, "emptied", g.Map{})
}

// The storage forgets the maps of requests that are over.
func TestForgets(t *testing.T) {
	s, _ := open(t, t.TempDir())
	set(t, s, "id", mapOf("a", 1))
	kept := get(t, s, "id", g.Map{"a": 1})
	for range 1000 {
		get(t, s, "id", g.Map{"a": 1})
	}
	for i := 0; ; i++ {
		runtime.GC()
		time.Sleep(time.Millisecond) // the cleanups have a goroutine of the runtime's own
		if n := gfstore.Remembered(s); n == 1 {
			break
		} else if i == 1000 {
			t.Fatalf("%d maps are remembered", n)
		}
	}
	if err := s.RemoveAll(ctx, "id"); err != nil {
		t.Error(err)
	}
	set(t, s, "id", kept)
	get(t, s, "id", nil)
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	s, store := open(t, dir)
	life := func() time.Duration {
		t.Helper()
		sess, err := store.Get(ctx, "id")
		if err != nil {
			t.Fatal(err)
		}
		return sess.ExpiresAt(time.Hour).Sub(sess.LastAccess)
	}
	m := mapOf("a", 1)
	for ttl, want := range map[time.Duration]time.Duration{
		3 * time.Minute: 3 * time.Minute, 0: time.Hour, time.Second + 1: time.Second + time.Millisecond, 1<<63 - 1: 100 * 365 * 24 * time.Hour,
	} {
		if err := s.SetSession(ctx, "id", m, ttl); err != nil {
			t.Error(err)
		}
		if got := life(); got != want {
			t.Errorf("SetSession for %v lives for %v, want %v", ttl, got, want)
		}
	}
	// A use moves the deadline if that is far enough, or the life has changed.
	set(t, s, "id", m)
	name := filepath.Join(dir, "id.json")
	before, _ := os.Stat(name)
	for range 5 {
		if err := s.UpdateTTL(none, "id", time.Hour); err != nil {
			t.Error(err)
		}
	}
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("the file was replaced, %v", err)
	}
	if err := s.UpdateTTL(ctx, "id", 2*time.Hour); err != nil || life() != 2*time.Hour {
		t.Errorf("UpdateTTL = %v, and the life is %v", err, life())
	}
	data, _ := os.ReadFile(name)
	i := bytes.LastIndex(data, []byte(`"__lastAccess":`))
	ago := time.Now().Add(-time.Hour).UnixMilli()
	if err := os.WriteFile(name, fmt.Appendf(data[:i:i], `"__lastAccess":%d}`, ago), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateTTL(ctx, "id", 2*time.Hour); err != nil {
		t.Error(err)
	}
	if sess, err := store.Get(ctx, "id"); err != nil || time.Since(sess.LastAccess) > time.Minute {
		t.Errorf("%+v, %v", sess, err)
	}
	get(t, s, "id", g.Map{"a": 1})
	expire(t, dir)
	if err := s.UpdateTTL(ctx, "id", time.Hour); err != nil {
		t.Error(err)
	}
	get(t, s, "id", nil)
}

var hostile = []string{"../../up", "/etc/passwd", "a/b", "..", ".", "x", "\x00", "con", "a.json", strings.Repeat("x", 10_000), "\xff\xfe", ""}

// Any id has a session of its own, and none leaves the directory.
func TestIDs(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	for _, id := range hostile {
		get(t, s, id, nil)
		if err := errors.Join(s.RemoveAll(ctx, id), s.UpdateTTL(ctx, id, time.Hour)); err != nil {
			t.Error(err)
		}
		set(t, s, id, mapOf("id", "of "+strconv.Itoa(len(id))))
	}
	for _, id := range hostile {
		get(t, s, id, g.Map{"id": "of " + strconv.Itoa(len(id))})
	}
	if n := len(files(t, dir)); n != len(hostile) {
		t.Errorf("%d files, want %d", n, len(hostile))
	}
	if around, _ := os.ReadDir(filepath.Dir(dir)); len(around) != 1 {
		t.Errorf("beside the directory are %v", around)
	}

	parent := t.TempDir()
	inner := filepath.Join(parent, "a", "b")
	os.MkdirAll(inner, 0o700)
	theirs := gsession.NewStorageFile(inner, time.Hour)
	_ = theirs.SetSession(ctx, "../../up", mapOf("a", 1), time.Hour)
	_, err := os.Stat(filepath.Join(parent, "up.session"))
	t.Logf("StorageFile wrote outside its directory for the id ../../up: %v", err == nil)
}

// Closed stores, clients that have gone, and no contexts.
func TestContexts(t *testing.T) {
	s, store := open(t, t.TempDir())
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.SetSession(gone, "id", mapOf("a", 1), time.Hour); err != nil {
		t.Error(err)
	}
	if err := s.UpdateTTL(gone, "id", time.Minute); err != nil {
		t.Error(err)
	}
	data, err := s.GetSession(none, "id", time.Hour)
	if err != nil || data.Size() != 1 {
		t.Errorf("GetSession = %v, %v", data, err)
	}
	if err := s.RemoveAll(gone, "id"); err != nil {
		t.Error(err)
	}
	get(t, s, "id", nil)
	set(t, s, "id", mapOf("a", 1))
	loaded := get(t, s, "id", g.Map{"a": 1})
	store.Close()
	_, err = s.GetSession(ctx, "id", time.Hour)
	for _, err := range []error{
		err, s.RemoveAll(none, "id"), s.UpdateTTL(none, "id", time.Hour), s.SetSession(none, "id", loaded, 0),
		s.SetSession(none, "id", mapOf("a", 1), 0), s.SetSession(none, "new", loaded, 0),
	} {
		if !errors.Is(err, filestore.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
}

// A site is ghttp's server on a storage.
type site struct {
	*ghttp.Server
	url             string
	started, resume chan struct{} // of /slow
}

func newSite(storage gsession.Storage) *site {
	s := &site{Server: g.Server(guid.S()), started: make(chan struct{}), resume: make(chan struct{})}
	s.SetDumpRouterMap(false)
	s.SetErrorLogEnabled(false)
	s.Logger().SetStdoutPrint(false)
	s.SetAddr("127.0.0.1:0")
	s.SetSessionStorage(storage)
	handle := func(path string, fn func(s *gsession.Session, r *ghttp.Request) string) {
		s.BindHandler(path, func(r *ghttp.Request) { r.Response.Write(fn(r.Session, r)) })
	}
	handle("/count", func(s *gsession.Session, r *ghttp.Request) string {
		n := s.MustGet("n").Int() + 1
		s.MustSet("n", n)
		return strconv.Itoa(n)
	})
	handle("/user", func(s *gsession.Session, r *ghttp.Request) string {
		if user := s.MustGet("user").String(); user != "" { // a default is only for who has a session
			return user
		}
		return "nobody"
	})
	handle("/login", func(s *gsession.Session, r *ghttp.Request) string {
		s.MustRegenerateId(true)
		s.MustSet("user", r.Get("user").String())
		return "welcome"
	})
	handle("/forget", func(s *gsession.Session, r *ghttp.Request) string {
		s.MustRemove("user")
		return "bye"
	})
	handle("/seen", func(s *gsession.Session, r *ghttp.Request) string { return s.MustGet("slow").String() })
	handle("/take", func(s *gsession.Session, r *ghttp.Request) string { // a new id that may be taken
		if err := s.SetIdFunc(func(time.Duration) string { return r.Get("id").String() }); err != nil {
			panic(err)
		}
		if _, err := s.RegenerateId(r.Get("delete").Bool()); !errors.Is(err, os.ErrExist) {
			return fmt.Sprint("RegenerateId = ", err)
		}
		return "taken"
	})
	handle("/logout", func(s *gsession.Session, r *ghttp.Request) string {
		if err := s.RemoveAll(); err != nil {
			panic(err)
		}
		return "bye"
	})
	handle("/swap", func(s *gsession.Session, r *ghttp.Request) string {
		if err := s.RemoveAll(); err != nil {
			panic(err)
		}
		s.MustSet("user", r.Get("user").String())
		return "welcome"
	})
	handle("/slow", func(session *gsession.Session, r *ghttp.Request) string {
		session.MustSet("slow", true)
		s.started <- struct{}{}
		<-s.resume
		if r.Get("regenerate").Bool() {
			if _, err := session.RegenerateId(true); !errors.Is(err, filestore.ErrNotFound) {
				return fmt.Sprint(err)
			}
		}
		return session.MustGet("user").String()
	})
	if err := s.Start(); err != nil {
		panic(err)
	}
	s.url = fmt.Sprintf("http://127.0.0.1:%d", s.GetListenedPort())
	return s
}

func openSite(t *testing.T, dir string) (*site, gsession.Storage, *filestore.Store) {
	t.Helper()
	storage, store := open(t, dir)
	s := newSite(storage)
	t.Cleanup(func() { s.Shutdown() })
	return s, storage, store
}

// A browser keeps the session's cookie, also from one port to another.
type browser struct {
	t        *testing.T
	site, id string
}

func (b *browser) do(path string) (int, string, error) {
	r, err := http.NewRequest("GET", b.site+path, nil)
	if err != nil {
		return 0, "", err
	}
	if b.id != "" {
		r.Header.Set("Cookie", "gfsessionid="+b.id)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == "gfsessionid" {
			b.id = c.Value
		}
	}
	body, err := io.ReadAll(resp.Body) // to the end, which comes after the session is stored
	return resp.StatusCode, string(body), err
}

func (b *browser) get(path, want string) {
	b.t.Helper()
	if code, got, err := b.do(path); err != nil || code != 200 || got != want {
		b.t.Errorf("GET %s = %d %q, %v, want %q", path, code, got, err, want)
	}
}

func TestSite(t *testing.T) {
	dir := t.TempDir()
	site, _, store := openSite(t, dir)
	b := &browser{t: t, site: site.url}
	b.get("/user", "nobody")
	if b.id != "" || len(files(t, dir)) != 0 {
		t.Error("who has no session was given one")
	}
	b.get("/count", "1")
	planted := b.id
	b.get("/login?user=asta", "welcome")
	if b.id == planted || b.id == "" {
		t.Error("the login left the id as it was")
	}
	b.get("/user", "asta")
	b.get("/count", "2")
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
	(&browser{t, site.url, planted}).get("/user", "nobody")

	// A restart.
	site.Shutdown()
	store.Close()
	site, storage, _ := openSite(t, dir)
	b.site = site.url
	b.get("/user", "asta")
	b.get("/count", "3")

	b.get("/logout", "bye")
	get(t, storage, b.id, nil)
	if n := len(files(t, dir)); n != 0 {
		t.Errorf("%d files after the logout, want none", n)
	}
	b.get("/user", "nobody")
	b.get("/login?user=other", "welcome")
	b.get("/user", "other")
	b.get("/swap?user=third", "welcome")
	b.get("/user", "third")
	b.get("/count", "1")
	expire(t, dir)
	b.get("/user", "nobody")
	b.get("/count", "1")
}

// A slow request does not bring back what was removed, or moved by a login, while it ran, under any
// id, and does not overwrite what came after it.
func TestLogoutDuringSlowRequest(t *testing.T) {
	for _, slowPath := range []string{"/slow", "/slow?regenerate=1"} {
		for path, want := range map[string]string{"/logout": "nobody", "/login?user=other": "nobody", "/swap?user=other": "other"} {
			t.Run(slowPath[1:]+path[1:5], func(t *testing.T) {
				dir := t.TempDir()
				site, _, store := openSite(t, dir)
				b := &browser{t: t, site: site.url}
				b.get("/login?user=asta", "welcome")
				old := b.id
				slow := &browser{t, site.url, old}
				done := make(chan struct{})
				go func() {
					defer close(done)
					slow.get(slowPath, "asta")
				}()
				<-site.started
				if code, _, err := b.do(path); code != 200 || err != nil {
					t.Errorf("GET %s = %d, %v", path, code, err)
				}
				site.resume <- struct{}{}
				<-done
				(&browser{t, site.url, old}).get("/user", want)
				if slow.id != old {
					t.Error("the slow request was given another id")
				}
				for e, err := range store.All(ctx) {
					if err != nil || bytes.Contains(e.Session.Values["data"], []byte("slow")) {
						t.Errorf("the session is back: %v", err)
					}
				}
				if _, err := os.Stat(filepath.Join(dir, old+".json")); want == "nobody" && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("its file is back: %v", err)
				}
			})
		}
	}
}

// A logout that removes a key is undone by no slow request.
func TestMerge(t *testing.T) {
	site, _, _ := openSite(t, t.TempDir())
	b := &browser{t: t, site: site.url}
	b.get("/login?user=asta", "welcome")
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&browser{t, site.url, b.id}).get("/slow", "asta")
	}()
	<-site.started
	b.get("/forget", "bye")
	b.get("/count", "1")
	site.resume <- struct{}{}
	<-done
	b.get("/user", "nobody")
	b.get("/count", "2")
	b.get("/seen", "true")
}

// slowRemoval calls before between the two steps of RegenerateId.
type slowRemoval struct {
	gsession.Storage
	before func()
}

func (s *slowRemoval) RemoveAll(ctx context.Context, id string) error {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Storage.RemoveAll(ctx, id)
}

// RegenerateId takes the old session once: what comes between its steps is not undone, and what is
// changed there is kept.
func TestBetweenSteps(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	slow := &slowRemoval{Storage: storage}
	site := newSite(slow)
	defer site.Shutdown()
	login := func() *browser {
		b := &browser{t: t, site: site.url}
		b.get("/count", "1")
		b.get("/login?user=asta", "welcome")
		return b
	}
	for _, path := range []string{"/logout", "/login?user=other"} {
		b := login()
		other := &browser{t, site.url, b.id}
		before := len(files(t, dir))
		slow.before = func() { other.do(path) }
		if code, _, err := b.do("/login?user=asta"); code != 500 || err != nil {
			t.Errorf("the login beside %s = %d, %v", path, code, err)
		}
		want := map[string]string{"/logout": "nobody", "/login?user=other": "other"}[path]
		other.get("/user", want)
		b.get("/user", "nobody")
		if after, gone := len(files(t, dir)), map[string]int{"nobody": 1}[want]; after != before-gone {
			t.Errorf("beside %s: %d files, before %d", path, after, before)
		}
	}
	b := login()
	slow.before = func() { (&browser{t, site.url, b.id}).get("/count", "2") }
	b.get("/login?user=other", "welcome")
	b.get("/user", "other")
	b.get("/count", "3")

	// The logout comes after the second step, with the id of before: it finds none, and nothing breaks.
	late := &browser{t, site.url, b.id}
	b.get("/login?user=third", "welcome")
	late.get("/logout", "bye")
	b.get("/user", "third")
}

// A new id that is taken is nobody's: no session is overwritten, and none is shared.
func TestTakenID(t *testing.T) {
	site, storage, _ := openSite(t, t.TempDir())
	victim := &browser{t: t, site: site.url}
	victim.get("/login?user=asta", "welcome")
	for _, query := range []string{"", "&delete=1"} {
		b := &browser{t: t, site: site.url}
		b.get("/count", "1")
		b.get("/take?id="+victim.id+query, "taken")
		b.get("/user", "nobody")
		b.get("/count", "2")
		b = &browser{t, site.url, "mine"} // of a session that holds nothing
		b.get("/take?id="+victim.id+query, "taken")
		b.get("/user", "nobody")
	}
	if err := storage.SetSession(ctx, victim.id, mapOf("user", "other"), time.Hour); !errors.Is(err, os.ErrExist) {
		t.Errorf("SetSession of a new session = %v", err)
	}
	victim.get("/user", "asta")
	victim.get("/count", "1")
}

// Parallel requests on one session lose no login and see no half of a session.
func TestParallel(t *testing.T) {
	site, _, _ := openSite(t, t.TempDir())
	b := &browser{t: t, site: site.url}
	b.get("/count", "1")
	b.get("/login?user=asta", "welcome")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b := &browser{t, b.site, b.id}
			for range 25 {
				b.get("/user", "asta")
				if code, n, err := b.do("/count"); err != nil || code != 200 || n == "1" {
					t.Errorf("GET /count = %d %q, %v", code, n, err)
				}
			}
		})
	}
	wg.Wait()
}

// GoFrame adopts the client's id: what holds is that it opens nobody's session, is in no path, and
// ends with the login.
func TestClientsIDs(t *testing.T) {
	dir := t.TempDir()
	site, storage, _ := openSite(t, dir)
	for _, id := range []string{"mine", "../../etc/passwd", "..", strings.Repeat("x", 10_000)} {
		b := &browser{t, site.url, id}
		b.get("/user", "nobody")
		get(t, storage, id, nil)
		b.get("/count", "1")
		if b.id != id {
			t.Errorf("GoFrame has learnt not to adopt the id %.20q: say so in the package's comment", id)
		}
		b.get("/login?user=asta", "welcome")
		if b.id == id {
			t.Error("the login left the id as it was")
		}
		get(t, storage, id, nil)
		b.get("/count", "2")
	}
	if n := len(files(t, dir)); n != 4 {
		t.Errorf("%d files, want 4", n)
	}
	if around, _ := os.ReadDir(filepath.Dir(dir)); len(around) != 1 {
		t.Errorf("beside the directory are %v", around)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logged returns what the default logger is told from now on, to the end of the test.
func logged(t *testing.T) *lockedBuffer {
	l, before := new(lockedBuffer), slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return l
}

// A damaged file counts as none, and stays; a session of Express is none of ours.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	site, storage, _ := openSite(t, dir)
	soon := time.Now().UnixMilli()
	for id, content := range map[string]string{
		"aacorrupt": `{"cookie":`,
		"bbcorrupt": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"?","generation":"x","__lastAccess":%d}`, soon),
		"cccorrupt": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"Z29i","generation":"x","__lastAccess":%d}`, soon), // gob's, say
		"ddcorrupt": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"bnVsbA==","generation":"x","__lastAccess":%d}`, soon),
	} {
		name := filepath.Join(dir, id+".json")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		log := logged(t)
		b := &browser{t, site.url, id}
		b.get("/user", "nobody")
		b.get("/count", "1")
		b.get("/count", "1") // it is not stored
		b.get("/logout", "bye")
		b.get("/login?user=asta", "welcome")
		b.get("/user", "asta")
		if b.id == id {
			t.Error("the login left the id as it was")
		}
		if text := log.String(); !strings.Contains(text, "a session that cannot be read counts as none") || strings.Contains(text, id) {
			t.Errorf("logged %q", text)
		}
		if err := storage.SetSession(ctx, id, mapOf("a", 1), time.Hour); !errors.Is(err, os.ErrExist) {
			t.Errorf("SetSession(%s) of a new session = %v", id, err)
		}
		get(t, storage, id, nil)
		if err := storage.SetSession(ctx, id, mapOf("a", 1), time.Hour); !errors.Is(err, filestore.ErrCorrupt) || strings.Contains(err.Error(), id) {
			t.Errorf("SetSession(%s) = %v", id, err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("the file of %s is now %q, %v", id, got, err)
		}
		os.Remove(name)
	}

	for id, content := range map[string]string{ // of another adapter
		"gob":  fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"Z29i","__lastAccess":%d}`, soon),
		"json": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":{"user":"tj"},"__lastAccess":%d}`, soon),
	} {
		if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b := &browser{t, site.url, id}
		b.get("/user", "nobody")
		b.get("/count", "1")
		b.get("/logout", "bye")
		if got, err := os.ReadFile(filepath.Join(dir, id+".json")); err != nil || string(got) != content {
			t.Errorf("the file of %s is now %q, %v", id, got, err)
		}
	}

	express := fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},"user":"tj","__lastAccess":%d}`, soon)
	name := filepath.Join(dir, "express.json")
	if err := os.WriteFile(name, []byte(express), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &browser{t, site.url, "express"}
	b.get("/user", "nobody")
	b.get("/logout", "bye")
	b.get("/count", "1") // and is not stored
	b.get("/count", "1")
	if err := storage.SetSession(ctx, "express", mapOf("a", 1), time.Hour); !errors.Is(err, os.ErrExist) || strings.Contains(err.Error(), "express") {
		t.Errorf("SetSession = %v", err)
	}
	b.get("/login?user=x", "welcome") // which brings a new id
	b.get("/user", "x")
	if got, err := os.ReadFile(name); err != nil || string(got) != express {
		t.Errorf("the file of Express is now %q, %v", got, err)
	}
}

// Two processes are one site, and what one has answered outlives its kill -9.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	site, _, _ := openSite(t, dir)
	cmd, theirs := start(t, "site", dir)
	b := &browser{t: t, site: site.url}
	b.get("/login?user=asta", "welcome")
	for i := range 20 {
		b.site = []string{site.url, theirs}[i%2]
		b.get("/count", strconv.Itoa(i+1))
		b.get("/user", "asta")
	}

	rounds := 5
	if os.Getenv("FILESTORE_LONG") != "" {
		rounds = 100
	}
	for round := range rounds {
		var last atomic.Int64
		var wg sync.WaitGroup
		w := &browser{t: t, site: theirs}
		w.get("/count", "1")
		last.Store(1)
		for range 4 { // sessions beside, so that it dies in the middle of some write
			wg.Go(func() {
				b := &browser{t: t, site: theirs}
				for {
					if _, _, err := b.do("/count"); err != nil {
						return
					}
				}
			})
		}
		wg.Go(func() {
			for {
				_, body, err := w.do("/count")
				if err != nil {
					return
				}
				if n, _ := strconv.ParseInt(body, 10, 64); n > 0 {
					last.Store(n)
				}
			}
		})
		for last.Load() < int64(10+round) {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Kill()
		cmd.Wait()
		wg.Wait()
		w.site = site.url
		if _, body, err := w.do("/count"); err != nil || body != strconv.FormatInt(last.Load()+1, 10) && body != strconv.FormatInt(last.Load()+2, 10) {
			t.Errorf("GET /count = %s, %v, of which %d was answered", body, err, last.Load())
		}
		b.site = site.url
		b.get("/user", "asta")
		cmd, theirs = start(t, "site", dir)
	}
	for _, name := range files(t, dir) {
		data, err := os.ReadFile(name)
		if err == nil {
			err = new(filestore.Session).UnmarshalJSON(data)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const tortured = "0123456789abcdef"

func write(s gsession.Storage, i int) {
	data, err := s.GetSession(ctx, tortured, time.Hour)
	if err != nil || data == nil { // the readers count those
		data = gmap.NewStrAnyMap(true)
	}
	data.Set("v", strings.Repeat(string(rune('a'+i%26)), 20_000))
	_ = s.SetSession(ctx, tortured, data, time.Hour)
}

// torture reads a session beside writers of it.
func torture(s gsession.Storage, writers int, d time.Duration) (reads, failed, torn, lost int64) {
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for w := range writers {
		wg.Go(func() {
			for i := w; time.Now().Before(end); i++ {
				write(s, i)
			}
		})
	}
	var r, f, x, l atomic.Int64
	for range 3 {
		wg.Go(func() {
			for time.Now().Before(end) {
				r.Add(1)
				data, err := s.GetSession(ctx, tortured, time.Hour)
				if err != nil {
					f.Add(1)
					continue
				}
				if data == nil {
					l.Add(1)
				} else if v, _ := data.Get("v").(string); len(v) != 20_000 || strings.Trim(v, v[:1]) != "" {
					x.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return r.Load(), f.Load(), x.Load(), l.Load()
}

// No read beside writers fails, is torn or finds nothing; StorageFile is counted beside it.
func TestTorture(t *testing.T) {
	d := 500 * time.Millisecond
	if os.Getenv("FILESTORE_LONG") != "" {
		d = 30 * time.Second
	}
	for _, writers := range []int{3, 0} {
		name := "goroutines"
		if writers == 0 {
			name = "another process"
		}
		dir := t.TempDir()
		s, _ := open(t, dir)
		write(s, 0)
		if writers == 0 {
			start(t, "gfstore", dir)
		}
		reads, failed, torn, lost := torture(s, writers, d)
		t.Logf("gfstore beside writers in %s: %d reads, %d failed, %d torn, %d lost", name, reads, failed, torn, lost)
		if failed+torn+lost > 0 || reads == 0 {
			t.Error("want none")
		}

		dir = t.TempDir()
		s = gsession.NewStorageFile(dir, time.Hour)
		write(s, 0)
		if writers == 0 {
			start(t, "file", dir)
		}
		reads, failed, torn, lost = torture(s, writers, d)
		t.Logf("StorageFile beside writers in %s: %d reads, %d failed, %d torn, %d lost", name, reads, failed, torn, lost)
	}
}

// StorageFile beside a logout.
func TestTheirLogout(t *testing.T) {
	manager := gsession.New(time.Hour, gsession.NewStorageFile(t.TempDir(), time.Hour))
	back := 0
	for range 100 {
		s := manager.New(ctx)
		s.MustSet("user", "asta")
		id := s.MustId()
		s.Close()
		slow, out := manager.New(ctx, id), manager.New(ctx, id)
		slow.MustSet("slow", true)
		out.RemoveAll()
		out.Close()
		slow.Close()
		if manager.New(ctx, id).MustContains("user") {
			back++
		}
	}
	t.Logf("StorageFile brought %d of 100 sessions back", back)
}

func TestReadme(t *testing.T) { adaptertest.Readme(t) }
