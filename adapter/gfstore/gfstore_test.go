package gfstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
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
	"github.com/sessionfilestore/filestore/internal/storetest"
)

var site = &adaptertest.Site{
	Name: "ghttp",
	Start: func(s *filestore.Store, answer adaptertest.Answer) (string, func()) {
		return serve(gfstore.New(s), func(r *ghttp.Request) { respond(r, answer) })
	},
	Cookie: "gfsessionid",
	Life:   24 * time.Hour,
	Values: map[any]any{
		"big": json.Number("4611686018427387905"), "bool": true, "string": "é<&>\x00", "map": map[string]any{"a": []any{json.Number("1"), "x"}}, "cookie": "c", "data": "d", "": "",
	},
	Garbage: []string{`"Z29i"`, `"bnVsbA=="`},
	Visitor: adaptertest.Nameless,
	Adopts:  []string{"mine", "../../etc/passwd", "..", strings.Repeat("x", 3000)},
	Late:    true,
	PutOnly: true,
}

// serve serves all paths.
func serve(storage gsession.Storage, handler func(r *ghttp.Request)) (url string, stop func()) {
	s := g.Server(guid.S())
	s.SetDumpRouterMap(false)
	s.SetErrorLogEnabled(false)
	s.Logger().SetStdoutPrint(false)
	s.SetAddr("127.0.0.1:0")
	s.SetSessionStorage(storage)
	s.BindHandler("/*", handler)
	if err := s.Start(); err != nil {
		panic(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", s.GetListenedPort()), func() { s.Shutdown() }
}

func respond(r *ghttp.Request, answer adaptertest.Answer) {
	s := r.Session
	code, body := answer(r.URL.Path, func(name string) string { return r.GetQuery(name).String() }, adaptertest.Session{
		ID:     s.MustId,
		Get:    func(key any) any { return s.MustGet(key.(string)).Val() },
		Set:    func(key, value any) { s.MustSet(key.(string), value) },
		Delete: func(key any) { s.MustRemove(key.(string)) },
		Renew: func() error {
			_, err := s.RegenerateId(true)
			return err
		},
		End: s.RemoveAll,
	})
	r.Response.WriteHeader(code)
	r.Response.Write(body)
}

func TestMain(m *testing.M) { adaptertest.Main(m, site) }

func TestSite(t *testing.T) { adaptertest.Run(t, site) }

func TestReadme(t *testing.T) { adaptertest.Readme(t) }

var (
	ctx  = context.Background()
	none context.Context
)

func open(t *testing.T, dir string) (gsession.Storage, *filestore.Store) {
	t.Helper()
	s := storetest.Open(t, dir, nil)
	return gfstore.New(s), s
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

	storetest.Age(t, storetest.Files(t, dir)[0], 99*time.Hour)
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
	if n := len(storetest.Files(t, dir)); n != 2 {
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
	if n := len(storetest.Files(t, dir)); n != 0 {
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
	storetest.Age(t, name, time.Hour)
	if err := s.UpdateTTL(ctx, "id", 2*time.Hour); err != nil {
		t.Error(err)
	}
	if sess, err := store.Get(ctx, "id"); err != nil || time.Since(sess.LastAccess) > time.Minute {
		t.Errorf("%+v, %v", sess, err)
	}
	get(t, s, "id", g.Map{"a": 1})
	storetest.Age(t, storetest.Files(t, dir)[0], 99*time.Hour)
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
	if n := len(storetest.Files(t, dir)); n != len(hostile) {
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

// A site that has more than the suite's: a request that removes all and logs in another, and one that asks for
// an id that is taken.
func startSite(t *testing.T, storage gsession.Storage) *storetest.Browser {
	t.Helper()
	url, stop := serve(storage, func(r *ghttp.Request) {
		s, user := r.Session, r.GetQuery("user").String()
		switch r.URL.Path {
		case "/login":
			s.MustRegenerateId(true)
			s.MustSet("user", user)
		case "/logout":
			_ = s.RemoveAll()
		case "/swap":
			_ = s.RemoveAll()
			s.MustSet("user", user)
		case "/count":
			n := s.MustGet("n").Int() + 1
			s.MustSet("n", n)
			r.Response.Write(n)
		case "/take":
			_ = s.SetIdFunc(func(time.Duration) string { return r.GetQuery("id").String() })
			_, err := s.RegenerateId(r.GetQuery("delete").Bool())
			r.Response.Write("taken: ", errors.Is(err, os.ErrExist))
		default:
			r.Response.Write(s.MustGet("user").String())
		}
	})
	t.Cleanup(stop)
	return storetest.NewBrowser(t, url)
}

const cookie = "gfsessionid"

// slowSteps calls before when a session is about to be stored, or removed.
type slowSteps struct {
	gsession.Storage
	beforeSet, beforeRemoval func()
}

func once(fn *func()) {
	if before := *fn; before != nil {
		*fn = nil
		before()
	}
}

func (s *slowSteps) SetSession(ctx context.Context, id string, data *gmap.StrAnyMap, ttl time.Duration) error {
	once(&s.beforeSet)
	return s.Storage.SetSession(ctx, id, data, ttl)
}

func (s *slowSteps) RemoveAll(ctx context.Context, id string) error {
	once(&s.beforeRemoval)
	return s.Storage.RemoveAll(ctx, id)
}

// What a request that removes all sets afterwards is a new session of the same id, which a slow request does
// not overwrite.
func TestSwap(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	slow := &slowSteps{Storage: storage}
	b := startSite(t, slow)
	b.Get("/login?user=asta")
	id := b.Cookie(cookie)
	slow.beforeSet = func() { b.With(cookie, id).Get("/swap?user=other") }
	b.Want("/count", "1")
	b.Want("/user", "other")
	b.Want("/count", "1")
	slow.beforeSet = func() { b.With(cookie, id).Get("/swap?user=third") }
	if code, _ := b.With(cookie, id).Do("/login?user=asta"); code != 500 {
		t.Errorf("the login beside /swap = %d", code)
	}
	b.Want("/user", "third")
	if b.Cookie(cookie) != id || len(storetest.Files(t, dir)) != 1 {
		t.Errorf("the id is the same: %v; files %q", b.Cookie(cookie) == id, storetest.Files(t, dir))
	}
}

// RegenerateId takes the old session once: what comes between its steps is not undone, and what is
// changed there is kept.
func TestBetweenSteps(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	slow := &slowSteps{Storage: storage}
	stranger := startSite(t, slow)
	login := func() *storetest.Browser {
		b := storetest.NewBrowser(t, stranger.URL)
		b.Want("/count", "1")
		b.Get("/login?user=asta")
		return b
	}
	for _, path := range []string{"/logout", "/login?user=other"} {
		b := login()
		other := b.With(cookie, b.Cookie(cookie))
		before := len(storetest.Files(t, dir))
		slow.beforeRemoval = func() { other.Do(path) }
		if code, _ := b.Do("/login?user=asta"); code != 500 {
			t.Errorf("the login beside %s = %d", path, code)
		}
		want := map[string]string{"/logout": "", "/login?user=other": "other"}[path]
		other.Want("/user", want)
		b.Want("/user", "")
		if after, gone := len(storetest.Files(t, dir)), map[string]int{"": 1}[want]; after != before-gone {
			t.Errorf("beside %s: %d files, before %d", path, after, before)
		}
	}
	b := login()
	slow.beforeRemoval = func() { b.With(cookie, b.Cookie(cookie)).Want("/count", "2") }
	b.Get("/login?user=other")
	b.Want("/user", "other")
	b.Want("/count", "3")

	// The logout comes after the second step, with the id of before: it finds none, and nothing breaks.
	late := b.With(cookie, b.Cookie(cookie))
	b.Get("/login?user=third")
	late.Get("/logout")
	b.Want("/user", "third")
}

// A new id that is taken is nobody's: no session is overwritten, and none is shared.
func TestTakenID(t *testing.T) {
	storage, _ := open(t, t.TempDir())
	victim := startSite(t, storage)
	victim.Get("/login?user=asta")
	id := victim.Cookie(cookie)
	for _, query := range []string{"", "&delete=1"} {
		b := storetest.NewBrowser(t, victim.URL)
		b.Want("/count", "1")
		b.Want("/take?id="+id+query, "taken: true")
		b.Want("/user", "")
		b.Want("/count", "2")
		b = b.With(cookie, "mine") // of a session that holds nothing
		b.Want("/take?id="+id+query, "taken: true")
		b.Want("/user", "")
	}
	if err := storage.SetSession(ctx, id, mapOf("user", "other"), time.Hour); !errors.Is(err, os.ErrExist) {
		t.Errorf("SetSession of a new session = %v", err)
	}
	victim.Want("/user", "asta")
	victim.Want("/count", "1")
}

// What SetSession says of files that are damaged, or of other programs; they stay.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	storage, _ := open(t, dir)
	soon := time.Now().UnixMilli()
	for id, content := range map[string]string{
		"damaged": `{"cookie":`,
		"null":    fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"bnVsbA==","generation":"x","__lastAccess":%d}`, soon),
		"gob":     fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":"Z29i","__lastAccess":%d}`, soon), // of another adapter
		"json":    fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"data":{"user":"tj"},"__lastAccess":%d}`, soon),
		"express": fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},"user":"tj","__lastAccess":%d}`, soon),
	} {
		name := filepath.Join(dir, id+".json")
		storetest.Write(t, name, []byte(content))
		if err := storage.SetSession(ctx, id, mapOf("a", 1), time.Hour); !errors.Is(err, os.ErrExist) || strings.Contains(err.Error(), id+" ") {
			t.Errorf("SetSession(%s) of a new session = %v", id, err)
		}
		get(t, storage, id, nil)
		err := storage.SetSession(ctx, id, mapOf("a", 1), time.Hour)
		if corrupt := id == "damaged" || id == "null"; errors.Is(err, filestore.ErrCorrupt) != corrupt || errors.Is(err, os.ErrExist) == corrupt {
			t.Errorf("SetSession(%s) = %v", id, err)
		}
		if err := storage.RemoveAll(ctx, id); err != nil {
			t.Errorf("RemoveAll(%s) = %v", id, err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("the file of %s is now %q, %v", id, got, err)
		}
		os.Remove(name)
	}
}
