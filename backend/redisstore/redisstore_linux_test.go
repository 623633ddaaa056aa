package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend"
	"github.com/sessionfilestore/filestore/backend/redisstore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

var ctx = context.Background()

func TestMain(m *testing.M) {
	storetest.Parallel(16)
	redis.SetLogger(discard{}) // it tells of each connection that a test breaks
	storetest.Main(m, workers)
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

func client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	return connect(t, &redis.Options{Addr: addr, ContextTimeoutEnabled: true})
}

func connect(t testing.TB, o *redis.Options) *redis.Client {
	t.Helper()
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, c redis.UniversalClient, o *redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// always lets each Touch write. Its Timeout is one for a busy machine.
var always = &redisstore.Options{TouchAfter: -1, Timeout: time.Minute}

// do sends a command that must succeed.
func do(t testing.TB, c redis.UniversalClient, args ...any) any {
	t.Helper()
	v, err := c.Do(ctx, args...).Result()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fresh returns a Store on a server of its own, and its client.
func fresh(t testing.TB, options ...string) (*redisstore.Store, *redis.Client) {
	t.Helper()
	c := client(t, storetest.Redis(t, options...).Addr)
	return open(t, c, always), c
}

var (
	with  = storetest.With
	add   = storetest.Add
	count = storetest.Count[session.Store]
)

// ids returns what IDs yields, sorted.
func ids(t testing.TB, s *redisstore.Store) (all []string) {
	t.Helper()
	for id, err := range s.IDs(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// The tests' ids have "sesame" in them and their documents "hunter2", if an error can come of them.
var secret = regexp.MustCompile("sesame|hunter2|sess:")

// refuses fails unless err says want, and no secret.
func refuses(t testing.TB, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || secret.MatchString(err.Error()) {
		t.Errorf("%s = %v, want an error with %q, without id, key and document", what, err, want)
		return
	}
	if _, ok := errors.AsType[*filestore.Error](err); !ok {
		t.Errorf("%s = %T, want a *filestore.Error", what, err)
	}
	for _, wrong := range []error{filestore.ErrNotFound, filestore.ErrCorrupt, filestore.ErrTooLarge, filestore.ErrInvalidID, filestore.ErrClosed, filestore.ErrLockTimeout, fs.ErrExist} {
		if errors.Is(err, wrong) {
			t.Errorf("%s = %v, which is a %v", what, err, wrong)
		}
	}
}

// Every promise of session.Store, on a real server, without and with a Lifetime.
func TestStore(t *testing.T) {
	t.Parallel()
	c := client(t, storetest.Redis(t).Addr)
	for name, o := range map[string]redisstore.Options{"Plain": {}, "Lifetime": {Lifetime: time.Minute}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStore(t, c, o)
		})
	}
}

var stores atomic.Int64

func testStore(t *testing.T, c redis.UniversalClient, o redisstore.Options) {
	sessiontest.Run(t, func(t *testing.T) session.Store { // an empty Store each time, on one server
		own := o
		own.Prefix, own.Timeout = fmt.Sprint("sess", stores.Add(1), ":"), time.Minute
		return open(t, c, &own)
	})
}

var created = regexp.MustCompile(`,"__created":\d+`)

// What Node wrote is read, and written back as it was, byte for byte.
func TestSamples(t *testing.T) {
	s, c := fresh(t)
	samples, err := os.Open("testdata/redis.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer samples.Close()
	n := 0
	key := ""
	for lines := bufio.NewScanner(samples); lines.Scan(); {
		doc := lines.Text()
		if words := strings.Fields(doc); words[0] == "KEY" {
			key = words[1]
		}
		if !strings.HasPrefix(doc, `{"cookie"`) {
			continue
		}
		n++
		id := strings.TrimPrefix(key, "sess:")
		do(t, c, "SET", key, doc, "EX", 100)
		sess, err := s.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(sess.Values["user"]); got != `{"id":7,"name":"Ærøskøbing <b> & \"é\" 😀"}` {
			t.Errorf("the user is %s", got)
		}
		if err := s.Set(ctx, id, sess); err != nil {
			t.Fatal(err)
		}
		written := c.Get(ctx, key).Val()
		if got := created.ReplaceAllString(written, ""); got != doc {
			t.Errorf("Set writes %s, want %s and when it was created", written, doc)
		}
		do(t, c, "PEXPIRE", key, 100_000)
		if err := s.Touch(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
		if got := c.Get(ctx, key).Val(); sess.Cookie.OriginalMaxAge == 0 && got != written {
			t.Errorf("Touch writes %s, want %s as before", got, written)
		}
		life := 24 * time.Hour
		if sess.Cookie.OriginalMaxAge != 0 {
			life = sess.Cookie.OriginalMaxAge
		}
		if left := c.PTTL(ctx, key).Val(); left > life || left < life-10*time.Second {
			t.Errorf("after Touch %v are left, want %v", left, life)
		}
	}
	if n != 2 {
		t.Errorf("%d samples, want 2", n)
	}
}

// A session whose cookie has nearly expired by its document gets a new one with Touch, so that save() of connect-redis
// does not destroy it.
func TestTouchForNode(t *testing.T) {
	s, c := fresh(t)
	for left, rewritten := range map[time.Duration]bool{-time.Second: true, 29 * time.Minute: true, 31 * time.Minute: false, 59 * time.Minute: false} {
		expires := time.Now().Add(left).UTC().Format("2006-01-02T15:04:05.000Z")
		doc := `{"cookie":{"originalMaxAge":3600000,"expires":"` + expires + `","httpOnly":true,"path":"/"},"n":1}`
		do(t, c, "SET", "sess:a", doc, "EX", 100)
		if err := s.Touch(ctx, "a", nil); err != nil {
			t.Fatal(err)
		}
		got := c.Get(ctx, "sess:a").Val()
		if (got != doc) != rewritten {
			t.Errorf("%v before the cookie expires Touch leaves %s of %s", left, got, doc)
		}
		var node struct{ Cookie struct{ Expires time.Time } }
		if err := json.Unmarshal([]byte(got), &node); err != nil {
			t.Fatal(err)
		}
		if d := time.Until(node.Cookie.Expires); d < 30*time.Minute {
			t.Errorf("after Touch the cookie expires in %v", d)
		}
	}
}

// A key without time to live gets one at the first access that writes, and lives as long as Redis says if it is longer
// than Go can say.
func TestTimeToLive(t *testing.T) {
	s, c := fresh(t)
	doc := `{"cookie":{"originalMaxAge":null,"expires":null,"path":"/"},"n":1}`
	do(t, c, "SET", "sess:a", doc)
	do(t, c, "SET", "sess:b", doc)
	do(t, c, "SET", "sess:c", doc, "EX", int64(1000*365*24*3600))
	for _, id := range []string{"a", "b", "c"} {
		sess, err := s.Get(ctx, id)
		if err != nil || time.Since(sess.LastAccess) > time.Minute {
			t.Fatalf("Get(%q) = %+v, %v", id, sess, err)
		}
	}
	if left := c.TTL(ctx, "sess:a").Val(); left != -1 {
		t.Errorf("after Get %v are left, want no end as before", left)
	}
	if err := s.Update(ctx, "b", add); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "c"} { // the latter lives longer than after an access, and keeps that
		if err := s.Touch(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"a", "b"} {
		if left := c.TTL(ctx, "sess:"+id).Val(); left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("after an access of %q %v are left, want a day", id, left)
		}
	}
	// The longest life, and the shortest.
	for _, life := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 - 999_999, time.Nanosecond, 1500 * time.Microsecond} {
		sess := with("n", 1)
		sess.Cookie.OriginalMaxAge = life
		if err := s.Set(ctx, "d", sess); err != nil {
			t.Errorf("Set with a maxAge of %v = %v", life, err)
		}
		if _, err := s.Get(ctx, "d"); err != nil && life > time.Second {
			t.Errorf("Get of a session with a maxAge of %v = %v", life, err)
		}
		if err := s.Touch(ctx, "d", nil); err != nil && life > time.Second {
			t.Errorf("Touch of a session with a maxAge of %v = %v", life, err)
		}
	}
	e := redisstore.OpenEngine(c, "engine:")
	for _, left := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, time.Hour + 1, time.Nanosecond, 0, -1, math.MinInt64} {
		for _, was := range []time.Duration{backend.Forever, time.Minute} {
			if err := e.Put(ctx, backend.Row{ID: "a", Doc: "1", Left: was}); err != nil {
				t.Fatal(err)
			}
			if done, err := e.Swap(ctx, backend.Row{ID: "a", Doc: "1", Left: was}, backend.Row{ID: "a", Doc: "1", Left: left}); !done || err != nil {
				t.Errorf("Swap to %v = %v, %v", left, done, err)
			}
			if err := e.Put(ctx, backend.Row{ID: "a", Doc: "1", Left: left}); err != nil {
				t.Errorf("Put with %v = %v", left, err)
			}
			if got, want := do(t, c, "PTTL", "engine:a").(int64), left.Milliseconds(); left > 0 && left != backend.Forever && (got < want-1000 || got > want+1) {
				t.Errorf("Put with %v: %d ms are left", left, got)
			}
			c.Del(ctx, "engine:a")
			if stored, err := e.Insert(ctx, []backend.Row{{ID: "a", Doc: "1", Left: left}}); err != nil || !stored[0] {
				t.Errorf("Insert with %v = %v, %v", left, stored, err)
			}
		}
	}
}

// What is not a session is an error, stays as it is, and is passed over.
func TestNotSessions(t *testing.T) {
	s, c := fresh(t)
	if err := s.Set(ctx, "good", with("user", "anna")); err != nil {
		t.Fatal(err)
	}
	big := `{"cookie":{"path":"/"},"user":"anna","hunter2":"` + strings.Repeat("x", 17<<20) + `"}`
	for name, doc := range map[string]string{"empty": "", "text": "hunter2", "object": `{"user":"anna","hunter2":1}`, "null": "null", "number": "3", "array": `[1,"hunter2"]`,
		"cut": `{"cookie":{"path":"/"},"user":"an`, "cookie": `{"cookie":"hunter2","user":"anna"}`, "two": `{"cookie":{}}{"cookie":{}}`, "zero": "\x00", "utf8": "{\"cookie\":{},\"\xff\":\xff}", "big": big} {
		do(t, c, "SET", "sess:sesame-"+name, doc, "EX", 100)
	}
	do(t, c, "RPUSH", "sess:sesame-list", "hunter2")
	do(t, c, "HSET", "sess:sesame-hash", "cookie", "hunter2")
	do(t, c, "EXPIRE", "sess:sesame-hash", 100)
	keys := c.Keys(ctx, "sess:sesame-*").Val()
	if len(keys) != 14 {
		t.Fatalf("%d keys, want 14", len(keys))
	}
	for _, key := range keys {
		before := c.Dump(ctx, key).Val()
		left := c.TTL(ctx, key).Val()
		id := strings.TrimPrefix(key, "sess:")
		want := filestore.ErrCorrupt
		if id == "sesame-big" {
			want = filestore.ErrTooLarge
		}
		_, err := s.Get(ctx, id)
		for op, err := range map[string]error{
			"Get": err, "Touch": s.Touch(ctx, id, nil), "Touch with a cookie": s.Touch(ctx, id, &filestore.Cookie{Path: "/", OriginalMaxAge: time.Minute}),
			"Update": s.Update(ctx, id, func(*filestore.Session) error { t.Error("Update has a session"); return nil }),
		} {
			if !errors.Is(err, want) || secret.MatchString(err.Error()) {
				t.Errorf("%s of %s = %v, want %v", op, id, err, want)
			}
		}
		if err := s.Create(ctx, id, with("n", 1)); !errors.Is(err, fs.ErrExist) || secret.MatchString(err.Error()) {
			t.Errorf("Create of %s = %v, want fs.ErrExist", id, err)
		}
		if c.Dump(ctx, key).Val() != before || c.TTL(ctx, key).Val() < left-5*time.Second {
			t.Errorf("%s was changed", id)
		}
	}
	n := 0
	for e, err := range s.All(ctx) {
		if n++; err != nil || e.ID != "good" {
			t.Errorf("All yields %q, %v", e.ID, err)
		}
	}
	for e, err := range s.Find(ctx, "user", "anna") {
		if n++; err != nil || e.ID != "good" {
			t.Errorf("Find yields %q, %v", e.ID, err)
		}
	}
	if n != 2 {
		t.Errorf("All and Find yield %d, want 2", n)
	}
	for _, id := range []string{"sesame-list", "sesame-text"} { // Set and Destroy have the last word
		if err := s.Set(ctx, id, with("n", 1)); err != nil || count(t, s, id) != 1 {
			t.Errorf("Set of %s = %v", id, err)
		}
	}
	for _, id := range []string{"sesame-hash", "sesame-null"} {
		if err := s.Destroy(ctx, id); err != nil || c.Exists(ctx, "sess:"+id).Val() != 0 {
			t.Errorf("Destroy of %s = %v", id, err)
		}
	}
	// Swap finds another type if it comes between.
	if err := s.Update(ctx, "good", func(sess *filestore.Session) error {
		c.Del(ctx, "sess:good")
		c.RPush(ctx, "sess:good", "hunter2")
		return sess.Put("n", 1)
	}); !errors.Is(err, filestore.ErrCorrupt) || c.LLen(ctx, "sess:good").Val() != 1 {
		t.Errorf("Update of what becomes a list = %v, want ErrCorrupt", err)
	}
}

var prefixes = []string{`[ab]*?\`, "*", "?", `\`, `[^a]`, "a-b:", " sp ace ", "ü😀:", "{x}", "{", "}{", "{}", "%", "'\"", "\r\n", "\x00", "\xff", "s*", "se?s:"}

// A Store lists and clears what is under its prefix, whatever characters that has, and of it only what can be an id of
// filestore.
func TestPrefixes(t *testing.T) {
	_, c := fresh(t)
	testPrefixes(t, c)
}

func testPrefixes(t *testing.T, c redis.UniversalClient) {
	var all []*redisstore.Store
	var foreign []string
	plant := func(keys ...string) {
		for _, key := range keys {
			foreign = append(foreign, key)
			do(t, c, "SET", key, `{"cookie":{"path":"/"},"user":"anna"}`, "EX", 1000)
		}
	}
	plant("abcd", "a", "b", "aX", "xx1", "sXs:abc", "seXs:a", "x", "sess:a")
	for i, prefix := range prefixes {
		s := open(t, c, &redisstore.Options{Prefix: prefix})
		all = append(all, s)
		for _, id := range []string{fmt.Sprint("A", i), fmt.Sprint("B.", i)} {
			if err := s.Create(ctx, id, with("user", "anna")); err != nil {
				t.Errorf("Create with the prefix %q = %v", prefix, err)
			}
			if n := c.Exists(ctx, prefix+id).Val(); n != 1 {
				t.Errorf("there is no key %q", prefix+id)
			}
		}
		if prefix != "{" && prefix != "}{" { // those end in what makes a hash tag of an id, but an id has no brace
			plant(prefix+"a:b", prefix+"ü", prefix+" x", prefix, prefix+"a b", prefix+".a", prefix+strings.Repeat("x", 201), "x"+prefix+"A")
		}
	}
	for i, s := range all {
		want := []string{fmt.Sprint("A", i), fmt.Sprint("B.", i)}
		if got := ids(t, s); !slices.Equal(got, want) {
			t.Errorf("with the prefix %q IDs yields %q, want %q", prefixes[i], got, want)
		}
		n := 0
		for e, err := range s.Find(ctx, "user", "anna") {
			if n++; err != nil || !slices.Contains(want, e.ID) {
				t.Errorf("with the prefix %q Find yields %q, %v", prefixes[i], e.ID, err)
			}
		}
		if n != 2 {
			t.Errorf("with the prefix %q Find yields %d, want 2", prefixes[i], n)
		}
	}
	for i, s := range all {
		if err := s.Clear(ctx); err != nil {
			t.Errorf("Clear with the prefix %q = %v", prefixes[i], err)
		}
		for j := range all {
			if n, err := all[j].Len(ctx); err != nil || (n == 2) != (j > i) {
				t.Errorf("after Clear with the prefix %q there are %d with the prefix %q, %v", prefixes[i], n, prefixes[j], err)
			}
		}
	}
	for _, key := range foreign {
		if c.Exists(ctx, key).Val() != 1 {
			t.Errorf("Clear removes %q, which is not filestore's", key)
		}
	}
}

// Each id is one session, and what is not an id is none.
func TestIDs(t *testing.T) {
	s, c := fresh(t)
	all := []string{"abc", "ABC", "Abc", "a.b", "a,b", "a~b", "-", "_", "a", "A", "0", strings.Repeat("z", 200)}
	for i, id := range all {
		if err := s.Create(ctx, id, with("n", i)); err != nil {
			t.Fatalf("Create(%q) = %v", id, err)
		}
	}
	for i, id := range all {
		if n := count(t, s, id); n != i {
			t.Errorf("%q has %d, want %d", id, n, i)
		}
	}
	slices.Sort(all)
	if got := ids(t, s); !slices.Equal(got, all) {
		t.Errorf("IDs yields %q, want %q", got, all)
	}
	for _, id := range []string{"", "abc ", " abc", "abc\x00", "*", "ab?", "[a]bc", `\abc`, "a:b", "{a}", "abc\r\nDEL sess:abc", "ａｂｃ", "../abc", strings.Repeat("z", 201)} {
		do(t, c, "SET", "sess:"+id, `{"cookie":{"path":"/"}}`)
		_, err := s.Get(ctx, id)
		for op, err := range map[string]error{"Get": err, "Set": s.Set(ctx, id, with("n", 0)), "Create": s.Create(ctx, id, with("n", 0)), "Touch": s.Touch(ctx, id, nil), "Update": s.Update(ctx, id, add)} {
			if !errors.Is(err, filestore.ErrInvalidID) {
				t.Errorf("%s(%q) = %v, want ErrInvalidID", op, id, err)
			}
		}
		if err := s.Destroy(ctx, id); !errors.Is(err, filestore.ErrInvalidID) || c.Exists(ctx, "sess:"+id).Val() != 1 {
			t.Errorf("Destroy(%q) = %v, want ErrInvalidID", id, err)
		}
	}
}

// New refuses clients that read from replicas, and says why.
func TestRefused(t *testing.T) {
	master := storetest.Redis(t)
	replica := storetest.Redis(t, "--replicaof", "127.0.0.1 "+master.Port)
	storetest.Eventually(t, "the replica is in sync", func() bool {
		return strings.Contains(storetest.RedisCLI(t, replica, "INFO", "replication"), "master_link_status:up")
	})
	_, err := redisstore.New(client(t, replica.Addr), nil)
	refuses(t, "New on a replica", err, "replicas")
	for name, o := range map[string]redis.ClusterOptions{"ReadOnly": {ReadOnly: true}, "RouteByLatency": {RouteByLatency: true}, "RouteRandomly": {RouteRandomly: true}} {
		o.Addrs = []string{master.Addr}
		c := redis.NewClusterClient(&o)
		_, err := redisstore.New(c, nil)
		refuses(t, "New with "+name, err, "replicas")
		c.Close()
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": master.Addr}})
	_, err = redisstore.New(ring, nil)
	refuses(t, "New on a Ring", err, "Ring")
	ring.Close()
	_, err = redisstore.New(client(t, "127.0.0.1:"+storetest.FreePort(t)), nil)
	refuses(t, "New without a server", err, "connection refused")
	_, err = redisstore.New(client(t, master.Addr), &redisstore.Options{TTL: 3600})
	refuses(t, "New with a TTL of 3600 ns", err, "Options.TTL")
	if n := client(t, master.Addr).DBSize(ctx).Val(); n != 0 {
		t.Errorf("New leaves %d keys", n)
	}
}

// rights returns the README's ACL SETUSER.
func rights(t testing.TB) (args []any) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(regexp.MustCompile("(?m)^ACL SETUSER site .*$").FindString(string(readme))) {
		args = append(args, word)
	}
	if args == nil {
		t.Fatal("the README has no ACL SETUSER")
	}
	return args
}

// use does all that a Store can.
func use(s *redisstore.Store) error {
	if err := errors.Join(s.Clear(ctx), s.Create(ctx, "sesame", with("hunter2", 1))); err != nil {
		return err
	}
	_, errGet := s.Get(ctx, "sesame")
	_, errLen := s.Len(ctx)
	return errors.Join(errGet, errLen, s.Set(ctx, "sesame", with("n", 1)), s.Update(ctx, "sesame", add), s.Touch(ctx, "sesame", nil), s.Destroy(ctx, "sesame"), s.Clear(ctx))
}

// The README's rights are enough, and which one is missing is said.
func TestRights(t *testing.T) {
	server := storetest.Redis(t)
	root := client(t, server.Addr)
	args := rights(t)
	do(t, root, args...)
	site := func() *redis.Client {
		return connect(t, &redis.Options{Addr: server.Addr, Username: "site", Password: "password", ContextTimeoutEnabled: true})
	}
	s := open(t, site(), always)
	if err := use(s); err != nil {
		t.Errorf("with the README's rights = %v", err)
	}
	do(t, root, "ACL", "SETUSER", "site", "-role", "-info")
	if err := use(s); err != nil {
		t.Errorf("without ROLE and INFO = %v", err)
	}
	open(t, site(), nil)
	if err := s.Create(ctx, "sesame", with("n", 1)); err != nil {
		t.Fatal(err)
	}
	for _, right := range []string{"evalsha", "get", "pttl", "set", "del", "scan"} {
		do(t, root, "ACL", "SETUSER", "site", "-"+right)
		err := errors.Join(s.Update(ctx, "sesame", add), s.Set(ctx, "sesame", with("n", 1)), s.Destroy(ctx, "sesame"), s.Clear(ctx))
		if err == nil || !strings.Contains(err.Error(), "the server refuses: NOPERM ("+strings.ToUpper(right)+")") && right != "pttl" || secret.MatchString(err.Error()) {
			t.Errorf("without %s = %v", right, err)
		}
		do(t, root, "ACL", "SETUSER", "site", "+"+right)
	}
	do(t, root, "ACL", "SETUSER", "site", "-evalsha")
	_, err := redisstore.New(site(), nil)
	refuses(t, "New without EVALSHA", err, "NOPERM (EVALSHA)")
	do(t, root, "ACL", "SETUSER", "site", "+evalsha", "-eval")
	do(t, root, "SCRIPT", "FLUSH")
	_, err = redisstore.New(site(), nil)
	refuses(t, "New without EVAL", err, "NOPERM (EVAL)")
	do(t, root, "ACL", "SETUSER", "site", "+eval", "resetkeys", "~other:*")
	_, err = redisstore.New(site(), nil)
	refuses(t, "New without the prefix", err, "NOPERM")

	renamed := storetest.Redis(t, "--rename-command", "EVALSHA", "")
	_, err = redisstore.New(client(t, renamed.Addr), nil)
	refuses(t, "New on a server without EVALSHA", err, "ERR (EVALSHA)")
	locked := storetest.Redis(t, "--requirepass", "hunter2")
	_, err = redisstore.New(client(t, locked.Addr), nil)
	refuses(t, "New without a password", err, "NOAUTH")
}

// No write is lost in a server that has no memory or no replica left, and none is said to be done.
func TestServerRefusesWrites(t *testing.T) {
	s, c := fresh(t)
	if err := s.Set(ctx, "sesame", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(ctx, "logout", with("n", 0)); err != nil {
		t.Fatal(err)
	}
	writes := func(code string) {
		t.Helper()
		for op, err := range map[string]error{
			"Set": s.Set(ctx, "sesame", with("hunter2", 1)), "Create": s.Create(ctx, "sesame2", with("hunter2", 1)), "Update": s.Update(ctx, "sesame", add),
			"Touch": s.Touch(ctx, "sesame", &filestore.Cookie{Path: "/hunter2"}),
		} {
			refuses(t, op, err, "the server refuses: "+code+" (")
		}
		if n := count(t, s, "sesame"); n != 0 {
			t.Errorf("n = %d after an Update that was refused", n)
		}
		if got := ids(t, s); !slices.Contains(got, "sesame") || slices.Contains(got, "sesame2") {
			t.Errorf("IDs yields %q", got)
		}
	}
	do(t, c, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	do(t, c, "CONFIG", "SET", "maxmemory", "1")
	writes("OOM")
	if err := s.Touch(ctx, "sesame", nil); err != nil { // it needs no memory
		t.Errorf("Touch without memory = %v", err)
	}
	if err := s.Destroy(ctx, "logout"); err != nil {
		t.Errorf("Destroy without memory = %v", err)
	}
	if _, err := s.Get(ctx, "logout"); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("Get after Destroy without memory = %v", err)
	}
	open(t, c, nil)
	do(t, c, "CONFIG", "SET", "maxmemory", "0")

	do(t, c, "CONFIG", "SET", "min-replicas-to-write", "1")
	writes("NOREPLICAS")
	refuses(t, "Destroy without a replica", s.Destroy(ctx, "sesame"), "NOREPLICAS (DEL)") // nobody is told that he is logged out
	do(t, c, "CONFIG", "SET", "min-replicas-to-write", "0")
	if err := s.Update(ctx, "sesame", add); err != nil || count(t, s, "sesame") != 1 {
		t.Errorf("Update afterwards = %v", err)
	}
}

func TestReadme(t *testing.T) { storetest.Readme(t) }

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
