package filestore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

func decode(t testing.TB, doc string) *filestore.Session {
	t.Helper()
	s := new(filestore.Session)
	if err := s.UnmarshalJSON([]byte(doc)); err != nil {
		t.Fatalf("UnmarshalJSON(%s): %v", doc, err)
	}
	return s
}

func encode(t testing.TB, s *filestore.Session) string {
	t.Helper()
	data, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// An unchanged document is written back byte for byte.
func TestRoundTrip(t *testing.T) {
	for _, doc := range []string{
		`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"views":1,"__lastAccess":1795249098866}`,
		`{"cookie":{"originalMaxAge":3600000,"expires":"2026-11-21T09:18:18.902Z","httpOnly":true,"path":"/"},"__lastAccess":1795249098902,"later":{"b":[ 1, 2 ],"a":"é\u00e9"}}`,
		`{"cookie":{"originalMaxAge":86400000,"partitioned":true,"priority":"high","expires":"2026-11-22T08:18:18.928Z","secure":false,"httpOnly":true,"domain":"example.com","path":"/","sameSite":"lax"},"__lastAccess":1}`,
		`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":false,"path":"/","sameSite":true},"__lastAccess":1}`,
		`{"cookie":{"originalMaxAge":false,"expires":false,"httpOnly":true,"path":"/"},"__lastAccess":1}`,
		`{"cookie":{"originalMaxAge":0,"expires":"garbage","foo":[1],"httpOnly":1,"path":null,"domain":5,"secure":null,"sameSite":{},"priority":0,"partitioned":"yes"},"__lastAccess":1}`,
		`{"cookie":{},"__lastAccess":1}`,
		`{"cookie":{"path":"/x"},"__lastAccess":1}`,
		`{"10":1,"2":2,"__lastAccess":5,"cookie":{"originalMaxAge":1500.75},"":"empty key"}`,
		`{"cookie":{"originalMaxAge":1e18},"n":9007199254740993,"e":1e400,"z":-0,"o":1.0,"s":"\ud800\u0000</script>","l":"` + "\u2028" + `","__lastAccess":1}`, // C5, C11
		`{"cookie":{},"Cookie":1,"COOKIE":2,"__LASTACCESS":3,"__lastAcce` + "ſſ" + `":4,"__lastAccess":1}`,                                                     // C4
		`{"cookie":{},"__proto__":1,"constructor":2,"prototype":{},"toString":3,"hasOwnProperty":4,"req":5,"id":6,"__lastAccess":1}`,                           // C6
		`{"cookie":{},"__lastAccess":1,"invalid":"` + "\xff\xfe" + `"}`,
	} {
		s := decode(t, doc)
		if got := encode(t, s); got != doc {
			t.Errorf("round trip:\n got %s\nwant %s", got, doc)
		}
		again := decode(t, encode(t, s))
		if again.Cookie != s.Cookie || !maps.EqualFunc(again.Values, s.Values, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("reads otherwise the second time: %s", doc)
		}
	}
}

// The members are found whatever the layout, and only under their exact names.
func TestDecode(t *testing.T) {
	s := decode(t, " \n{ \"cookie\" : {\r\n\"path\" : \"/a\\\"b\" , \"originalMaxAge\" :\t2000 } ,\"a\" : [ {\"cookie\":\"]}\"} , \"\\\\\" ],\n\"__lastAccess\" : 1.5e3 } \n")
	if s.Cookie.Path != `/a"b` || s.Cookie.OriginalMaxAge != 2*time.Second || !s.LastAccess.Equal(time.UnixMilli(1500)) || len(s.Values) != 1 {
		t.Errorf("decoded %+v", s)
	}
	if got := string(s.Values["a"]); got != `[ {"cookie":"]}"} , "\\" ]` {
		t.Errorf("a = %s", got)
	}
	// C3: the last of several members with one name counts, as in Node.
	s = decode(t, `{"cookie":{"path":"/1","path":"/2"},"a":1,"__lastAccess":1,"a":2,"__lastAccess":2,"cookie":{"path":"/3","path":"/4"}}`)
	if s.Cookie.Path != "/4" || string(s.Values["a"]) != "2" || s.LastAccess.UnixMilli() != 2 {
		t.Errorf("duplicates: %+v", s)
	}
	if got, want := encode(t, s), `{"cookie":{"path":"/3","path":"/4"},"a":2,"__lastAccess":2}`; got != want {
		t.Errorf("duplicates written back: %s, want %s", got, want)
	}
	// C4: other spellings are members of the application.
	s = decode(t, `{"cookie":{"Path":"/x","ORIGINALMAXAGE":5},"Cookie":{},"__LASTACCESS":7,"__lastAccess":1}`)
	if s.Cookie.Path != "/" || s.Cookie.OriginalMaxAge != 0 || s.LastAccess.UnixMilli() != 1 || len(s.Values) != 2 {
		t.Errorf("case variants: %+v", s)
	}
	// A cookie without members has the defaults of express-session.
	if c := decode(t, `{"cookie":{}}`).Cookie; !c.HTTPOnly || c.Path != "/" || c.Secure {
		t.Errorf("defaults of a bare cookie: %+v", c)
	}
}

func TestEncode(t *testing.T) {
	// The zero Cookie is written as express-session's default.
	s := new(filestore.Session)
	s.Put("b", 1)
	s.Put("a", "<&>")
	want := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"a":"<&>","b":1}`
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.LastAccess = time.UnixMilli(5)
	s.Cookie = filestore.Cookie{OriginalMaxAge: time.Minute, Expires: time.UnixMilli(1795249098902), Secure: true, Partitioned: true, Path: "/x", Domain: "d", SameSite: "none", Priority: "low"}
	want = `{"cookie":{"originalMaxAge":60000,"partitioned":true,"priority":"low","expires":"2026-11-21T08:18:18.902Z","secure":true,"httpOnly":false,"domain":"d","path":"/x","sameSite":"none"},"a":"<&>","b":1,"__lastAccess":5}`
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// The cookie keeps its text as long as no field changes. A changed one is written as express-session
	// writes it.
	const odd = `{"foo":1,"originalMaxAge":false,"expires":false, "httpOnly":true,"path":null}`
	s = decode(t, `{"cookie":`+odd+`,"x":1,"gone":2,"__lastAccess":1,"y":2}`)
	delete(s.Values, "gone")
	s.Put("new", 3)
	s.Put("x", 4)
	want = `{"cookie":` + odd + `,"x":4,"__lastAccess":1,"y":2,"new":3}`
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.Cookie.SameSite = "lax"
	s.Cookie.Expires = time.UnixMilli(0)
	want = strings.Replace(want, odd, `{"originalMaxAge":null,"expires":"1970-01-01T00:00:00.000Z","httpOnly":true,"path":null,"sameSite":"lax"}`, 1)
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.Cookie.OriginalMaxAge = time.Microsecond // less than a millisecond must not become "none"
	want = strings.Replace(want, `"originalMaxAge":null`, `"originalMaxAge":1`, 1)
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// C14: a session that cannot be written is refused before anything is touched.
func TestUnwritable(t *testing.T) {
	y := newYard(t, nil)
	set(t, y.s, "id", "n", 1)
	y.mark()
	for name, v := range map[string]any{"chan": make(chan int), "NaN": math.NaN(), "func": func() {}, "raw": json.RawMessage("{")} {
		if err := new(filestore.Session).Put("k", v); err == nil {
			t.Errorf("Put of a %s succeeded", name)
		}
	}
	cyclic := map[string]any{}
	cyclic["self"] = cyclic
	for _, err := range []error{new(filestore.Session).Put("k", cyclic), new(filestore.Session).Put("cookie", 1), new(filestore.Session).Put("__lastAccess", 1), new(filestore.Session).Put("\xff", 1)} {
		if err == nil {
			t.Error("Put of a value or name that cannot be stored succeeded")
		}
	}
	for name, values := range map[string]map[string]json.RawMessage{
		"broken":       {"k": json.RawMessage("{")},
		"two values":   {"k": json.RawMessage(`1,"__lastAccess":9`)},
		"cookie":       {"cookie": json.RawMessage("{}")},
		"last access":  {"__lastAccess": json.RawMessage("1")},
		"key not UTF8": {"\xff": json.RawMessage("1")},
		"too deep":     {"k": json.RawMessage(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))},
		"too large":    {"k": json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}, // C12
		"huge key":     {strings.Repeat("k", 1<<20): json.RawMessage("1")},
	} {
		sess := &filestore.Session{Values: values}
		if err := y.s.Set(ctx, "id", sess); err == nil {
			t.Errorf("Set of a session with %s succeeded", name)
		}
		if err := y.s.Update(ctx, "id", func(s *filestore.Session) error { s.Values = values; return nil }); err == nil {
			t.Errorf("Update to a session with %s succeeded", name)
		}
	}
	if err := y.s.Set(ctx, "id", &filestore.Session{Cookie: filestore.Cookie{Expires: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}}); err == nil {
		t.Error("Set of a cookie that expires in the year 12000 succeeded")
	}
	if err := y.s.Set(ctx, "id", nil); err == nil {
		t.Error("Set of nil succeeded")
	}
	y.check()
}

func TestValue(t *testing.T) {
	s := session(t, "n", 5, "s", "x", "null", nil, "big", json.RawMessage("9007199254740993"))
	if v, err := filestore.Value[int](s, "n"); v != 5 || err != nil {
		t.Errorf("n = %v, %v", v, err)
	}
	if v, err := filestore.Value[int64](s, "big"); v != 9007199254740993 || err != nil {
		t.Errorf("big = %v, %v", v, err)
	}
	if v, err := filestore.Value[[]string](s, "missing"); v != nil || err != nil {
		t.Errorf("missing = %v, %v", v, err)
	}
	if v, err := filestore.Value[*int](s, "null"); v != nil || err != nil {
		t.Errorf("null = %v, %v", v, err)
	}
	if v, err := filestore.Value[int](s, "s"); v != 0 || err == nil {
		t.Errorf("s as int = %v, %v", v, err)
	}
}

// A keyless Codec has lost its key file.
type keyless struct{ rot }

func (keyless) Decode(string, []byte) ([]byte, error) {
	return nil, fmt.Errorf("the key of the store: %w", &fs.PathError{Op: "open", Path: "key", Err: fs.ErrNotExist})
}

type rot struct{}

func (rot) Encode(id string, doc []byte) ([]byte, error) { return append([]byte(id+"\n"), doc...), nil }
func (rot) Decode(id string, file []byte) ([]byte, error) {
	doc, ok := bytes.CutPrefix(file, []byte(id+"\n"))
	if !ok {
		return nil, errNotMine
	}
	return doc, nil
}

var errNotMine = errors.New("not this session's file")

// The Codec stands between every document and its file.
func TestCodec(t *testing.T) {
	dir := t.TempDir()
	opts := quick()
	opts.Codec = rot{}
	s := open(t, dir, opts)
	set(t, s, "a", "n", 1)
	set(t, s, "b", "n", 2)
	if got := readFile(t, dir, "a.json"); !strings.HasPrefix(got, "a\n{") {
		t.Errorf("file = %q", got)
	}
	if err := s.Update(ctx, "a", func(sess *filestore.Session) error { return sess.Put("m", 3) }); err != nil {
		t.Fatal(err)
	}
	if sess := get(t, s, "a"); value(t, sess, "n") != "1" || value(t, sess, "m") != "3" {
		t.Errorf("a = %v", sess.Values)
	}
	os.Rename(filepath.Join(dir, "b.json"), filepath.Join(dir, "a.json"))
	_, err := s.Get(ctx, "a")
	wantErr(t, "Get of another's file", err, errNotMine)
	if n, _ := s.Reap(ctx); n != 0 {
		t.Error("Reap removed what the codec refused")
	}
	readFile(t, dir, "a.json")
}

// A named is a string type, as the keys of a map may be.
type named string

// loud has its own JSON form, with a U+FFFD that is meant.
type loud struct{ text string }

func (l loud) MarshalJSON() ([]byte, error) { return []byte(`"\ufffd"`), nil }

// spelled is a TextMarshaler.
type spelled struct{ text string }

func (s spelled) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// Put refuses a string that JSON cannot hold. It stored another string and said nothing.
func TestPutOfBytes(t *testing.T) {
	const bad = "\xff\x00\xfe"
	bads := map[string]any{
		"a string":       bad,
		"a named string": named("a" + bad),
		"in a slice":     []string{"a", bad},
		"in an array":    [2]string{bad},
		"in a map":       map[string]any{"a": []any{1, bad}},
		"a map's key":    map[string]int{bad: 1},
		"a named key":    map[named]int{bad: 1},
		"in a struct":    struct{ A struct{ B string } }{struct{ B string }{bad}},
		"behind a pointer": func() any {
			s := bad
			p := &s
			return &p
		}(),
		"in an interface":       []any{any(struct{ A any }{bad})},
		"a text":                spelled{bad},
		"a text as key":         map[spelled]int{{bad}: 1},
		"half of a character":   "ü"[:1],
		"a surrogate":           "\xed\xa0\x80",
		"in JSON":               json.RawMessage(`"` + bad[:1] + `"`),
		"beside U+FFFD in JSON": []any{json.RawMessage(`"\ufffd"`), bad},
		"embedded":              struct{ spelledOut }{spelledOut{bad}},
	}
	for name, v := range bads {
		s := &filestore.Session{Values: map[string]json.RawMessage{"k": json.RawMessage("1")}}
		err := s.Put("k", v)
		if err == nil || strings.Contains(err.Error(), "\xff") || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%s: Put = %v", name, err)
		}
		if string(s.Values["k"]) != "1" {
			t.Errorf("%s: the member is now %q", name, s.Values["k"])
		}
	}
	for name, v := range map[string]any{
		"U+FFFD":          "a\ufffdb",
		"its escape":      `\ufffd`,
		"in JSON":         json.RawMessage(`"\ufffd"`),
		"JSON of its own": []loud{{bad}},
		"bytes":           []byte(bad),
		"all of Unicode":  "\x00\x1f\u2028\U0001f511",
		"nil":             nil,
		"a nil pointer":   (*string)(nil),
		"a field left out": struct {
			A string `json:"-"`
			B any
		}{bad, json.RawMessage(`"\ufffd"`)},
	} {
		var s filestore.Session
		if err := s.Put("k", v); err != nil {
			t.Errorf("%s: Put = %v", name, err)
		}
	}
	var s filestore.Session
	if err := s.Put(bad, 1); err == nil || len(s.Values) != 0 {
		t.Errorf("a name that is not UTF-8: Put = %v", err)
	}
	s.Cookie = filestore.Cookie{Path: "/" + bad}
	if doc, err := s.MarshalJSON(); err == nil {
		t.Errorf("a path that is not UTF-8: %s", doc)
	}
}

type spelledOut struct{ Text string }
