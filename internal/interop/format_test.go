package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

func TestVersions(t *testing.T) {
	t.Parallel()
	got := call[map[string]string](t, driver(t), "versions", nil)
	for name, want := range map[string]string{"express": "5.3.0", "express-session": "1.19.0", "session-file-store": "1.5.0"} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
}

// No call of Node waits for ever.
func TestNode(t *testing.T) {
	t.Parallel()
	n := driver(t)
	if err := n.Call("get", object{"store": 5, "sid": "x"}, nil); !IsCode(err, "TypeError") {
		t.Errorf("Call() that throws = %v, want a TypeError", err)
	}
	if err := n.Call("no such op", nil, nil); !IsCode(err, "TypeError") {
		t.Errorf("Call() of no op = %v, want a TypeError", err)
	}
	if err := n.Call("exit", nil, nil); err == nil || IsCode(err, "TypeError") {
		t.Errorf("Call() of a dying process = %v, want an error", err)
	}
	if err := n.Call("versions", nil, nil); err == nil {
		t.Error("Call() of a dead process = nil, want an error")
	}
}

// Go reads the session of an Express site, and would write the same bytes.
func TestNodeWritesGoReads(t *testing.T) {
	t.Parallel()
	n := driver(t)
	minute := 60_000
	for _, test := range []struct {
		name   string
		cookie object
		steps  []step
		want   filestore.Cookie // without Expires
	}{
		{"01 no maxAge", nil, nil, filestore.Cookie{HTTPOnly: true, Path: "/"}},
		{"02 maxAge", object{"maxAge": minute}, nil, filestore.Cookie{OriginalMaxAge: time.Minute, HTTPOnly: true, Path: "/"}},
		{"02 all attributes", object{"maxAge": minute, "domain": "example.com", "httpOnly": false, "secure": true, "sameSite": "lax", "partitioned": true, "priority": "high"}, nil,
			filestore.Cookie{OriginalMaxAge: time.Minute, Secure: true, Partitioned: true, Path: "/", Domain: "example.com", SameSite: "lax", Priority: "high"}},
		{"02 sameSite true", object{"sameSite": true}, nil, filestore.Cookie{HTTPOnly: true, Path: "/", SameSite: "strict"}},
		{"02 sameSite false", object{"sameSite": false}, nil, filestore.Cookie{HTTPOnly: true, Path: "/"}},
		{"02 sameSite and secure auto", object{"sameSite": "auto", "secure": "auto"}, nil, filestore.Cookie{HTTPOnly: true, Path: "/", SameSite: "lax"}},
		{"02 expires false", nil, steps(step{"expires", false}), filestore.Cookie{HTTPOnly: true, Path: "/"}},
		{"02 maxAge of a fraction", object{"maxAge": 60_000.75}, nil, filestore.Cookie{OriginalMaxAge: time.Minute, HTTPOnly: true, Path: "/"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			o := object{}
			if test.cookie != nil {
				o["cookie"] = test.cookie
			}
			site := nodeSite(t, n, object{"options": object{"path": dir}, "session": o})
			before := time.Now().Truncate(time.Millisecond)
			a := site.run(t, "", append(test.steps, step{"put", "views", 1})...)
			store := open(t, dir, nil)
			sess, err := store.Get(ctx, a.ID)
			if err != nil {
				t.Fatalf("Get() = %v", err)
			}
			if sess.LastAccess.Before(before) || time.Since(sess.LastAccess) > time.Minute {
				t.Errorf("LastAccess = %v, want now", sess.LastAccess)
			}
			got := sess.Cookie
			if (got.OriginalMaxAge != 0) != !got.Expires.IsZero() {
				t.Errorf("Expires = %v with OriginalMaxAge %v", got.Expires, got.OriginalMaxAge)
			}
			if d := test.want.OriginalMaxAge - got.OriginalMaxAge; 0 <= d && d <= time.Second { // Node computes it from Expires each time
				got.OriginalMaxAge = test.want.OriginalMaxAge
			}
			got.Expires = time.Time{}
			if !sameCookie(got, test.want) {
				t.Errorf("Cookie = %+v, want %+v", got, test.want)
			}
			if views, err := filestore.Value[int](sess, "views"); views != 1 || err != nil {
				t.Errorf("Value(views) = %d, %v, want 1", views, err)
			}
			checkText(t, read(t, dir, a.ID+".json"))
		})
	}
}

// goValues returns a session with all kinds of values that a Go program may put in.
func goValues(t *testing.T) *filestore.Session {
	t.Helper()
	s := new(filestore.Session)
	for key, v := range map[string]any{
		"views":    1,
		"user":     "user1",
		"unicode":  "açaí 日本 😀",
		"ls":       "\u2028\u2029",
		"ctl":      "\x00\x01\b\t\n\f\r\x1f\x7f",
		"html":     `<script>&"\/'</script>`,
		"float":    1.5,
		"big":      int64(9007199254740991),
		"small":    1e-7,
		"huge":     1e21,
		"negative": -1,
		"null":     nil,
		"false":    false,
		"list":     []any{1, "two", nil, []int{}},
		"nested":   object{"b": []int{1}, "a": object{"cookie": object{"originalMaxAge": 1}}},
		"passport": object{"user": "42"},
		"7":        "seven",
		"":         "empty name",
		"наме":     1,
	} {
		if err := s.Put(key, v); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestGoWritesNodeReads(t *testing.T) {
	t.Parallel()
	n := driver(t)
	dir := t.TempDir()
	store := open(t, dir, nil)
	file := nodeOpen(t, n, dir, nil)
	want := goValues(t)
	must(t, store.Set(ctx, anID, want))
	text := read(t, dir, anID+".json")

	t.Run("03 get returns what was put in", func(t *testing.T) {
		got, err := file.get(anID)
		must(t, err)
		sameValues(t, "get", got, []byte(text))
		v := decode(t, got)
		if len(v) != len(want.Values)+3 { // and the cookie, the last access, and when it was created
			t.Errorf("get has %d members, want %d", len(v), len(want.Values)+3)
		}
		if c, ok := v["cookie"].(object); !ok || fmt.Sprint(c) != "map[expires:<nil> httpOnly:true originalMaxAge:<nil> path:/]" {
			t.Errorf("get has the cookie %v, want express-session's default", v["cookie"])
		}
		ms, err := v["__lastAccess"].(json.Number).Int64()
		if err != nil || time.Since(time.UnixMilli(ms)) > time.Minute {
			t.Errorf("get has __lastAccess %v, want whole milliseconds", v["__lastAccess"])
		}
	})

	t.Run("03 express-session serves it", func(t *testing.T) {
		a := nodeSite(t, n, object{"options": object{"path": dir}}).run(t, signed(anID, secret))
		if a.ID != anID || len(a.SetCookie) != 0 {
			t.Fatalf("id = %s with Set-Cookie %q, want %s and none", a.ID, a.SetCookie, anID)
		}
		got, err := json.Marshal(a.Session)
		must(t, err)
		sameValues(t, "req.session", got, []byte(text))
	})

	t.Run("06 Go writes as JSON.stringify does", func(t *testing.T) {
		must(t, store.Set(ctx, anID, want))
		text := read(t, dir, anID+".json")
		got, err := file.get(anID)
		must(t, err)
		// Node writes the same bytes with two exceptions. It moves names that are integers to the front.
		// JSON.stringify does not escape two characters that encoding/json escapes.
		text = strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(text)
		text = strings.Replace(text, `"7":"seven",`, "", 1)
		text = strings.Replace(text, `{`, `{"7":"seven",`, 1)
		if string(got) != text {
			t.Errorf("Go writes\n%s\nwant, as Node does,\n%s", text, got)
		}
	})
}

// The members of the cookie keep their types in Node.
func TestCookieTypes(t *testing.T) {
	t.Parallel()
	n := driver(t)
	for _, test := range []struct {
		name, cookie string // in the file; "" = Go made the session
		maxAge       time.Duration
		wantMaxAge   string // JavaScript's type and value after Node's touch and save
		wantExpires  string
	}{
		{"04 none", "", 0, "null", "null"},
		{"04 an hour", "", time.Hour, "number", "string"},
		{"04 false", `{"originalMaxAge":false,"expires":false,"httpOnly":true,"path":"/"}`, 0, "false", "false"},
		{"04 null", `{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`, 0, "null", "null"},
		{"04 a member without a field in Go", `{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","sameSite":true,"foo":[1]}`, 0, "null", "null"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			store := open(t, dir, &filestore.Options{TouchAfter: -1})
			if test.cookie == "" {
				s := &filestore.Session{}
				if test.maxAge != 0 {
					s.Cookie = filestore.Cookie{OriginalMaxAge: test.maxAge, Expires: time.Now().Add(test.maxAge), HTTPOnly: true, Path: "/"}
				}
				must(t, store.Set(ctx, anID, s))
			} else {
				plant(t, dir, anID+".json", fmt.Sprintf(`{"cookie":%s,"__lastAccess":%d}`, test.cookie, time.Now().UnixMilli()))
				must(t, store.Update(ctx, anID, func(s *filestore.Session) error { return s.Put("by", "go") }))
				if text := read(t, dir, anID+".json"); !strings.Contains(text, `"cookie":`+test.cookie) {
					t.Errorf("after Update: %s, want its cookie unchanged", text)
				}
			}
			check := func(after string) {
				t.Helper()
				text := read(t, dir, anID+".json")
				var v struct {
					Cookie     map[string]json.RawMessage
					LastAccess json.RawMessage `json:"__lastAccess"`
				}
				must(t, json.Unmarshal([]byte(text), &v))
				for key, want := range map[string]string{"originalMaxAge": test.wantMaxAge, "expires": test.wantExpires} {
					raw := string(v.Cookie[key])
					switch got := jsType(raw); {
					case got != want:
						t.Errorf("%s: %s is %s, a %s, want %s", after, key, raw, got, want)
					case key == "expires" && got == "string":
						if _, err := time.Parse(`"2006-01-02T15:04:05.000Z"`, raw); err != nil {
							t.Errorf("%s: expires: %v", after, err)
						}
					}
				}
				if jsType(string(v.LastAccess)) != "number" || strings.ContainsAny(string(v.LastAccess), ".eE") {
					t.Errorf("%s: __lastAccess is %s, want whole milliseconds", after, v.LastAccess)
				}
				checkText(t, text)
			}
			check("written by Go")
			site := nodeSite(t, n, object{"options": object{"path": dir}})
			if a := site.run(t, signed(anID, secret)); a.ID != anID { // touches
				t.Fatalf("Node does not know the session: %+v", a)
			}
			check("touched by Node")
			site.run(t, signed(anID, secret), step{"put", "by", "node"})
			check("saved by Node")
			must(t, store.Touch(ctx, anID, nil))
			check("touched by Go")
			m := &session.Manager{Store: store}
			if a := goSite(t, m).run(t, signed(anID, secret), step{"put", "by", "go"}); a.value("by") != `"go"` {
				t.Fatalf("Go does not know the session: %+v", a)
			}
			check("saved by Go")
		})
	}
}

// jsType returns the type of a JSON value, and null and booleans as they are.
func jsType(raw string) string {
	switch {
	case raw == "" || raw == "null" || raw == "true" || raw == "false":
		return raw
	case raw[0] == '"':
		return "string"
	case raw[0] == '{' || raw[0] == '[':
		return "object"
	}
	return "number"
}

func TestUnknownMembers(t *testing.T) {
	t.Parallel()
	n := driver(t)

	t.Run("05 unknown members survive a Go save", func(t *testing.T) {
		dir := t.TempDir()
		site := nodeSite(t, n, object{"options": object{"path": dir}})
		a := site.run(t, "",
			step{"put", "z", 1}, step{"put", "a", object{"y": 1, "x": []any{1.5, math.Copysign(0, -1), 1e21}}},
			step{"put", "stamp", int64(1795249098866)}, step{"put", "max", int64(9007199254740991)}, step{"put", "e12", 1e12},
			step{"put", "10", "ten"}, step{"put", "2", "two"}, step{"put", "t", "\u2028<>&"})
		before := read(t, dir, a.ID+".json")
		store := open(t, dir, nil)
		must(t, store.Update(ctx, a.ID, func(s *filestore.Session) error { return s.Put("go", 1) }))
		after := read(t, dir, a.ID+".json")
		cut := func(text string) string { return text[:strings.Index(text, `,"__lastAccess":`)] }
		if got, want := cut(after), cut(before); got != want {
			t.Errorf("Update changed what it did not know:\n%s\nwant\n%s", got, want)
		}
		created := regexp.MustCompile(`,"go":1(,"__created":\d+)}$`).FindStringSubmatch(after)
		if created == nil {
			t.Fatalf("after Update: %s, want the new members last", after)
		}
		got, err := nodeOpen(t, n, dir, nil).get(a.ID)
		must(t, err)
		sameValues(t, "Node's get after Go's Update", got, []byte(strings.Replace(before, `,"__lastAccess"`, `,"go":1`+created[1]+`,"__lastAccess"`, 1)))
	})

	t.Run("05 numbers that JavaScript cannot hold", func(t *testing.T) {
		dir := t.TempDir()
		members := `"n":12345678901234567890,"f":1.0,"e":1E400,"z":-0,"s":"\u00e9\/\ud800"`
		plant(t, dir, anID+".json", doc(time.Now(), members))
		store := open(t, dir, &filestore.Options{TouchAfter: -1})
		must(t, store.Touch(ctx, anID, nil))
		must(t, store.Update(ctx, anID, func(s *filestore.Session) error { return s.Put("go", 1) }))
		if text := read(t, dir, anID+".json"); !strings.Contains(text, members) {
			t.Errorf("after Touch and Update: %s, want the members as they stood: %s", text, members)
		}
	})

	t.Run("06 Node's escapes", func(t *testing.T) {
		dir := t.TempDir()
		site := nodeSite(t, n, object{"options": object{"path": dir}})
		lone := json.RawMessage(`"\ud800 \udc00"`)
		a := site.run(t, "", step{"put", "lone", lone}, step{"put", "s", "açaí 日本 😀\u2028\u2029<>&\x00\x1f\x7f\"\\/"})
		store := open(t, dir, nil)
		sess, err := store.Get(ctx, a.ID)
		if err != nil {
			t.Fatalf("Get() = %v", err)
		}
		if got, err := filestore.Value[string](sess, "s"); got != "açaí 日本 😀\u2028\u2029<>&\x00\x1f\x7f\"\\/" || err != nil {
			t.Errorf("Value(s) = %q, %v", got, err)
		}
		must(t, store.Update(ctx, a.ID, func(s *filestore.Session) error { return s.Put("go", 1) }))
		if got := site.run(t, signed(a.ID, secret)).value("lone"); got != string(lone) {
			t.Errorf("Node reads the lone surrogates as %s, want %s", got, lone)
		}
	})

	t.Run("46 names that are Session's own", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		sess := new(filestore.Session)
		reserved := []string{"req", "id", "touch", "save", "reload", "destroy", "regenerate", "resetMaxAge", "constructor", "toString", "valueOf", "hasOwnProperty", "__proto__"}
		for _, key := range append(reserved, "mine", "prototype") {
			must(t, sess.Put(key, "go"))
		}
		must(t, store.Set(ctx, anID, sess))
		keeps := func(after string) {
			t.Helper()
			got, err := store.Get(ctx, anID)
			if err != nil {
				t.Fatalf("%s: Get() = %v", after, err)
			}
			for key := range sess.Values {
				if v, err := filestore.Value[string](got, key); v != "go" || err != nil {
					t.Errorf("%s: Value(%s) = %q, %v", after, key, v, err)
				}
			}
		}
		keeps("written by Go")
		must(t, nodeOpen(t, n, dir, nil).touch(anID, object{"cookie": object{"path": "/"}}))
		keeps("touched by FileStore")
		if a := goSite(t, &session.Manager{Store: store}).run(t, signed(anID, secret), step{"put", "mine", "go"}); a.ID != anID {
			t.Errorf("Go does not serve the session: %+v", a)
		}
		keeps("served by Go")

		a := nodeSite(t, n, object{"options": object{"path": dir}}).run(t, signed(anID, secret))
		if a.ID != anID || a.Status != 200 {
			t.Fatalf("Node does not serve the session: %+v", a)
		}
		for _, key := range reserved {
			if got := a.value(key); got != "" {
				t.Errorf("Node has %s = %s, want it dropped", key, got)
			}
		}
		for _, key := range []string{"mine", "prototype"} {
			if got := a.value(key); got != `"go"` {
				t.Errorf("Node has %s = %s, want it kept", key, got)
			}
		}
		// For express-session that is a change, and it has stored the session.
		got, err := store.Get(ctx, anID)
		if err != nil || len(got.Values) != 2 {
			t.Errorf("after Node's request Get() = %v, %v, want the two members that are left", got, err)
		}
	})

	t.Run("46 reserved names", func(t *testing.T) {
		for _, key := range []string{"cookie", "__lastAccess"} {
			if err := new(filestore.Session).Put(key, 1); err == nil {
				t.Errorf("Put(%q) = nil, want an error", key)
			}
		}
	})
}

// Both sites serve the samples as they are, apart from their age.
func TestSamplesServed(t *testing.T) {
	t.Parallel()
	n := driver(t)
	all, _ := manifest(t)
	dir := t.TempDir()
	store := open(t, dir, nil)
	sites := []site{nodeSite(t, n, object{"options": object{"path": dir}}), goSite(t, &session.Manager{Store: store})}
	for _, s := range all {
		if strings.HasPrefix(s.Dir, "12") || strings.HasPrefix(s.Dir, "21") { // no extension; a life of 200 ms
			continue
		}
		t.Run("48 "+s.Dir, func(t *testing.T) {
			old := read(t, samples, s.File)
			text := strings.Replace(old, fmt.Sprint(s.LastAccess), fmt.Sprint(time.Now().UnixMilli()), 1)
			plant(t, dir, s.SID+".json", text)
			for _, site := range sites {
				a := site.run(t, signed(s.SID, secret), step{"count", "n"})
				if a.ID != s.SID {
					t.Fatalf("%s: %+v, want the session %s", site.name, a, s.SID)
				}
				got, err := json.Marshal(a.Session)
				must(t, err)
				want := strings.Replace(text, `,"__lastAccess"`, `,"n":`+a.value("n")+`,"__lastAccess"`, 1)
				sameValues(t, site.name, got, []byte(want))
			}
			if got := sites[0].run(t, signed(s.SID, secret)).value("n"); got != "2" {
				t.Errorf("n = %s after both have counted, want 2", got)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	n := driver(t)
	parent := t.TempDir()
	dir := parent + "/sessions"
	store := open(t, dir, nil)
	file := nodeOpen(t, n, dir, nil)

	t.Run("31 ids that Go refuses", func(t *testing.T) {
		before := fmt.Sprint(names(t, parent), names(t, dir))
		for _, id := range []string{"../x", "a/b", `a\b`, "", ".", "..", "a\x00b", ".hidden", "x.json", "x.json.123", "é", "a b", "a:b", "CON", "nul.x", "x.",
			strings.Repeat("x", 201), strings.Repeat("x", 240), strings.Repeat("x", 300)} {
			_, err := store.Get(ctx, id)
			for op, err := range map[string]error{
				"Get":     err,
				"Set":     store.Set(ctx, id, new(filestore.Session)),
				"Touch":   store.Touch(ctx, id, nil),
				"Destroy": store.Destroy(ctx, id),
			} {
				if !errors.Is(err, filestore.ErrInvalidID) {
					t.Errorf("%s(%q) = %v, want ErrInvalidID", op, id, err)
				}
			}
		}
		if after := fmt.Sprint(names(t, parent), names(t, dir)); after != before {
			t.Errorf("the directory has changed from %s to %s", before, after)
		}
	})

	t.Run("31 ids that both take name the same file", func(t *testing.T) {
		for _, id := range []string{"a", "-rf", "_", "a.b,c~d", "A-Z_09", strings.Repeat("x", 200)} {
			must(t, store.Set(ctx, id, goValues(t)))
			if _, err := file.get(id); err != nil {
				t.Errorf("Node's get(%q) = %v", id, err)
			}
			must(t, file.set(id, object{"cookie": object{"path": "/"}, "by": "node"}))
			s, err := store.Get(ctx, id)
			if err != nil {
				t.Errorf("Get(%q) = %v", id, err)
			} else if got, err := filestore.Value[string](s, "by"); got != "node" || err != nil {
				t.Errorf("Get(%q) has by = %q, %v, want node", id, got, err)
			}
			must(t, store.Destroy(ctx, id))
			if exists(dir, id+".json") {
				t.Errorf("Destroy(%q) left the file", id)
			}
		}
	})

	t.Run("31 files of ids that only Node takes are left alone", func(t *testing.T) {
		dir := t.TempDir()
		store := open(t, dir, nil)
		file := nodeOpen(t, n, dir, nil)
		ids := []string{"a b", "é", ".hidden", strings.Repeat("x", 239), "a.json"}
		for _, id := range ids {
			plant(t, dir, id+".json", doc(time.Now().Add(-2*time.Hour), ""))
		}
		if n, err := store.Len(ctx); n != 0 || err != nil {
			t.Errorf("Len() = %d, %v, want 0", n, err)
		}
		must(t, store.Clear(ctx))
		if n, err := store.Reap(ctx); n != 0 || err != nil {
			t.Errorf("Reap() = %d, %v, want 0", n, err)
		}
		if got := call[int](t, n, "length", object{"store": file.num}); got != len(ids) {
			t.Errorf("%d files are left of %d", got, len(ids))
		}
	})

	t.Run("31 ids that GenID makes", func(t *testing.T) {
		before := fmt.Sprint(names(t, parent), names(t, dir))
		gen := func(id string) site {
			return goSite(t, &session.Manager{Store: store, GenID: func(*http.Request) (string, error) { return id, nil }})
		}
		for _, id := range []string{"../x", "a/b", "", "a b", strings.Repeat("x", 201)} {
			a := gen(id).run(t, "", step{"put", "views", 1})
			if a.Status != http.StatusInternalServerError || len(a.SetCookie) != 0 {
				t.Errorf("with the id %q: status %d, Set-Cookie %q, want 500 and none", id, a.Status, a.SetCookie)
			}
		}
		if after := fmt.Sprint(names(t, parent), names(t, dir)); after != before {
			t.Errorf("the directory has changed from %s to %s", before, after)
		}
		// Two users never get one session.
		a := gen("user-1.a,b~c").run(t, "", step{"put", "views", 1})
		if b := nodeSite(t, n, object{"options": object{"path": dir}}).run(t, a.pair(t)); b.ID != "user-1.a,b~c" || b.value("views") != "1" {
			t.Errorf("Node finds %+v", b)
		}
		if b := gen("user-1.a,b~c").run(t, "", step{"put", "views", 2}); b.Status != http.StatusInternalServerError {
			t.Errorf("a second session of the same id: status %d, want 500", b.Status)
		}
		must(t, store.Destroy(ctx, "user-1.a,b~c"))
	})

	t.Run("31 a signed id that leads out of the directory opens nothing", func(t *testing.T) {
		plant(t, parent, "x.json", doc(time.Now(), `"views":1`))
		before := read(t, parent, "x.json")
		site := goSite(t, &session.Manager{Store: store})
		a := site.run(t, signed("../x", secret), step{"count", "views"})
		if a.ID == "../x" || a.value("views") != "1" {
			t.Errorf("got %+v, want a new session", a)
		}
		if after := read(t, parent, "x.json"); after != before {
			t.Errorf("the file outside has changed to %s", after)
		}
	})
}
