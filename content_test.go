package filestore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// C: what a file holds that is no session is ErrCorrupt for every operation
// that reads, stays as it is, and is no session to Reap, Len and Clear.
func TestCorruptFiles(t *testing.T) {
	deep := func(n int) string { return doc(nowMs(), `,"d":`+strings.Repeat("[", n)+strings.Repeat("]", n)) }
	whole := doc(nowMs(), `,"s":"aé\"}{","n":[1,{"x":null}]`)
	files := map[string]string{
		"empty": "", "space": " ", "byte": "{", "bom": "\ufeff" + whole,
		"null": "null", "array": "[]", "string": `"s"`, "number": "5", "true": "true", // C7
		"no-cookie": `{}`, "cookie-null": `{"cookie":null}`, "cookie-string": `{"cookie":"x","__lastAccess":1}`, // C8
		"cookie-array": `{"cookie":[]}`, "cookie-number": `{"cookie":5}`, "Cookie": `{"Cookie":{}}`,
		"garbage": whole + "x", "two": whole + whole, "comment": "/**/" + whole, "comma": strings.TrimSuffix(whole, "}") + ",}", // C13
		"single": strings.ReplaceAll(whole, `"`, "'"), "nan": doc(nowMs(), `,"n":NaN`), "zero": whole + "\x00",
		"surrogates": `{"cookie":{},"\ud800":1,"\ud801":2}`, "deep-10001": deep(10_001), "deep-100000": deep(100_000), // C2
		"last-cookie-wins": `{"cookie":{},"cookie":1}`, // C3
	}
	var s filestore.Session
	if err := s.UnmarshalJSON([]byte(deep(1_000_000))); !errors.Is(err, filestore.ErrCorrupt) {
		t.Errorf("nested a million deep: %v", err)
	}
	y := newYard(t, nil)
	for name, data := range files {
		write(t, y.dir, name+".json", data)
	}
	y.mark()
	for name := range files {
		_, err := y.s.Get(ctx, name)
		wantErr(t, "Get of "+name, err, filestore.ErrCorrupt)
		wantErr(t, "Touch of "+name, y.s.Touch(ctx, name, nil), filestore.ErrCorrupt)
		wantErr(t, "Update of "+name, y.s.Update(ctx, name, func(*filestore.Session) error { return nil }), filestore.ErrCorrupt)
	}
	if n, err := y.s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	if n, err := y.s.Len(ctx); n != 1 || err != nil {
		t.Errorf("Len = %d, %v, want 1", n, err)
	}
	y.check()
	if err := y.s.Clear(ctx); err != nil {
		t.Errorf("Clear = %v", err)
	}
	set(t, y.s, healthy, "user", "anna")
	y.check(healthy + ".json")
	// Set and Destroy are ways out.
	set(t, y.s, "garbage", "n", 1)
	get(t, y.s, "garbage")
	if err := y.s.Destroy(ctx, "empty"); err != nil {
		t.Error(err)
	}
}

// C1: a file cut at any byte is corrupt.
func TestTruncatedAtEveryByte(t *testing.T) {
	whole := doc(int64(1795249098866), `,"s":"aé\u00e9\"}{","n":[1,{"x":null}],"f":1.5e3`)
	var s filestore.Session
	if err := s.UnmarshalJSON([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) {
		var s filestore.Session
		if err := s.UnmarshalJSON([]byte(whole[:i])); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("cut at %d: %v, want ErrCorrupt", i, err)
		}
	}
}

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

// What a load finds is written back byte for byte where nothing changed.
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
	// C3: of duplicates the last wins, as in Node.
	s = decode(t, `{"cookie":{"path":"/1","path":"/2"},"a":1,"__lastAccess":1,"a":2,"__lastAccess":2,"cookie":{"path":"/3","path":"/4"}}`)
	if s.Cookie.Path != "/4" || string(s.Values["a"]) != "2" || s.LastAccess.UnixMilli() != 2 {
		t.Errorf("duplicates: %+v", s)
	}
	if got, want := encode(t, s), `{"cookie":{"path":"/4"},"a":2,"__lastAccess":2}`; got != want {
		t.Errorf("duplicates written back: %s, want %s", got, want)
	}
	// C4
	s = decode(t, `{"cookie":{"Path":"/x","ORIGINALMAXAGE":5},"Cookie":{},"__LASTACCESS":7,"__lastAccess":1}`)
	if s.Cookie.Path != "/" || s.Cookie.OriginalMaxAge != 0 || s.LastAccess.UnixMilli() != 1 || len(s.Values) != 2 {
		t.Errorf("case variants: %+v", s)
	}
	// What express-session's Cookie would supply.
	if c := decode(t, `{"cookie":{}}`).Cookie; !c.HTTPOnly || c.Path != "/" || c.Secure {
		t.Errorf("defaults of a bare cookie: %+v", c)
	}
}

// Two loads of one cookie are equal with ==, whatever the zone of its date.
func TestCookieZone(t *testing.T) {
	const zoned = `{"cookie":{"expires":"2030-01-01T05:30:00+05:30"}}`
	a, b := decode(t, zoned), decode(t, zoned)
	if a.Cookie != b.Cookie || !a.Cookie.Expires.Equal(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) || encode(t, a) != zoned {
		t.Errorf("%+v, %+v", a.Cookie, b.Cookie)
	}
}

// Found by FuzzSession: of a cookie's unknown members that occur twice the last
// counts too; a date whose zone moves it out of the four-digit years is none.
func TestCookieOddities(t *testing.T) {
	a, b := decode(t, `{"cookie":{"":true,"":""}}`), decode(t, `{"cookie":{"":""}}`)
	if a.Cookie != b.Cookie {
		t.Errorf("%+v is not %+v", a.Cookie, b.Cookie)
	}
	const far = `{"cookie":{"expires":"9999-12-31T23:59:59-23:59"}}`
	if s := decode(t, far); !s.Cookie.Expires.IsZero() || encode(t, s) != far {
		t.Errorf("%+v, written %s", s.Cookie, encode(t, s))
	}
}

func TestEncode(t *testing.T) {
	// The zero cookie is express-session's default.
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
	// A changed field is written, the others keep their text.
	s = decode(t, `{"cookie":{"foo":1,"originalMaxAge":false,"expires":false,"httpOnly":true,"path":null},"x":1,"gone":2,"__lastAccess":1,"y":2}`)
	s.Cookie.SameSite = "lax"
	s.Cookie.Expires = time.UnixMilli(0)
	delete(s.Values, "gone")
	s.Put("new", 3)
	s.Put("x", 4)
	want = `{"cookie":{"foo":1,"originalMaxAge":false,"expires":"1970-01-01T00:00:00.000Z","httpOnly":true,"path":null,"sameSite":"lax"},"x":4,"__lastAccess":1,"y":2,"new":3}`
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.Cookie.HTTPOnly, s.Cookie.OriginalMaxAge, s.Cookie.Path = false, time.Microsecond, "/p"
	want = strings.Replace(want, `"originalMaxAge":false,"expires":"1970-01-01T00:00:00.000Z","httpOnly":true,"path":null`, `"originalMaxAge":1,"expires":"1970-01-01T00:00:00.000Z","httpOnly":false,"path":"/p"`, 1)
	if got := encode(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// C14: what cannot be written is refused before anything is touched.
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
			t.Error("Put of what cannot be succeeded")
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

// C14: what has no JSON form fails before any lock.
func TestUnwritableBeforeLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	set(t, s, "id", "n", 1)
	release := hold(t, open(t, dir, patient()), "id")
	start := time.Now()
	err := s.Set(ctx, "id", &filestore.Session{Values: map[string]json.RawMessage{"n": json.RawMessage("{")}})
	if err == nil || errors.Is(err, filestore.ErrLockTimeout) || time.Since(start) > time.Second {
		t.Errorf("Set of no JSON beside a holder = %v after %v", err, time.Since(start))
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// H5, H6: what a copy (cp -p, rsync -t) has kept of a time when the clock was ahead is believed by the
// reaper, which leaves the file alone until then, and not by Get.
func TestReapOfCopies(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	ahead := time.Now().Add(10 * 365 * 24 * time.Hour)
	write(t, dir, "id.json", strings.Replace(doc(ahead.UnixMilli(), ""), "null", "100", 1))
	os.Chtimes(filepath.Join(dir, "id.json"), ahead, ahead)
	get(t, s, "id") // it counts as accessed when it was copied
	time.Sleep(200 * time.Millisecond)
	_, err := s.Get(ctx, "id")
	wantErr(t, "Get", err, filestore.ErrExpired)
	if n, err := s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
}

// C9: a date far ahead makes no session immortal, also where nobody reaps or writes.
func TestDateAheadWithoutReaper(t *testing.T) {
	dir := t.TempDir()
	o := quick()
	o.TTL = time.Second
	s := open(t, dir, o)
	write(t, dir, "id.json", doc(nowMs()+1_000*365*86_400_000, ""))
	get(t, s, "id")
	time.Sleep(1100 * time.Millisecond)
	_, err := s.Get(ctx, "id")
	wantErr(t, "Get", err, filestore.ErrExpired)
}

func TestTooLarge(t *testing.T) {
	opts := quick()
	opts.MaxSize = 1000
	y := newYard(t, opts)
	fits := &filestore.Session{}
	fits.Put("k", strings.Repeat("x", 1000-len(doc(nowMs(), `,"k":""`))))
	if err := y.s.Set(ctx, "id", fits); err != nil {
		t.Fatalf("Set of exactly MaxSize: %v", err)
	}
	get(t, y.s, "id")
	y.mark()
	err := y.s.Update(ctx, "id", func(s *filestore.Session) error { return s.Put("l", 1) })
	wantErr(t, "Update beyond MaxSize", err, filestore.ErrTooLarge)
	wantErr(t, "Set beyond MaxSize", y.s.Set(ctx, "id", session(t, "k", strings.Repeat("x", 1000))), filestore.ErrTooLarge)
	y.check()
	write(t, y.dir, "big.json", doc(nowMs(), `,"k":"`+strings.Repeat("x", 1000)+`"`))
	y.mark()
	_, err = y.s.Get(ctx, "big")
	wantErr(t, "Get of a file beyond MaxSize", err, filestore.ErrTooLarge)
	wantErr(t, "Create over it", y.s.Create(ctx, "big", session(t)), fs.ErrExist)
	wantErr(t, "Touch", y.s.Touch(ctx, "big", nil), filestore.ErrTooLarge)
	if n, err := y.s.Reap(ctx); n != 0 || err != nil {
		t.Errorf("Reap = %d, %v", n, err)
	}
	y.check()
}

// A session that was too large when it ended has ended, and goes like others: too large for ever it would
// be for its visitor, and its file would stay. Dead or alive Clear takes it, but nothing of that size that
// is no session.
func TestTooLargeEnds(t *testing.T) {
	for name, codec := range map[string]filestore.Codec{"plain": nil, "Codec": rot{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := quick()
			opts.Codec, opts.MaxSize = codec, 16<<20
			node := open(t, dir, opts)
			opts.MaxSize = 1000
			s := open(t, dir, opts)
			plant := func(id string, age time.Duration) {
				t.Helper()
				sess := session(t, "k", strings.Repeat("x", 2<<20))
				sess.LastAccess = time.Now().Add(-age)
				data, err := sess.MarshalJSON()
				if err == nil && codec != nil {
					data, err = codec.Encode(id, data)
				}
				if err != nil {
					t.Fatal(err)
				}
				write(t, dir, id+".json", string(data))
			}
			plant("dead", 2*time.Hour)
			plant("ahead", -24*time.Hour)
			plant("live", 0)
			write(t, dir, "other.json", strings.Repeat("x", 2000))
			write(t, dir, "sparse.json", "{")
			os.Truncate(filepath.Join(dir, "sparse.json"), 1<<40)
			for id, want := range map[string]error{"dead": filestore.ErrExpired, "live": filestore.ErrTooLarge, "ahead": filestore.ErrTooLarge, "sparse": filestore.ErrTooLarge} {
				for range 2 {
					_, err := s.Get(ctx, id)
					wantErr(t, "Get of "+id, err, want)
				}
				wantErr(t, "Touch of "+id, s.Touch(ctx, id, nil), want)
				wantErr(t, "Update of "+id, s.Update(ctx, id, func(*filestore.Session) error { return nil }), want)
			}
			if n, err := s.Len(ctx); n != 0 || codec == nil && err != nil { // rot's error is no verdict on other.json
				t.Errorf("Len = %d, %v", n, err)
			}
			if err := s.Create(ctx, "dead", session(t)); err != nil {
				t.Errorf("Create over an expired one = %v", err)
			}
			plant("dead", 2*time.Hour)
			if n, err := s.Reap(ctx); n != 1 || codec == nil && err != nil {
				t.Errorf("Reap = %d, %v, want 1", n, err)
			}
			get(t, node, "live")
			plant("dead", 2*time.Hour)
			if err := s.Clear(ctx); codec == nil && err != nil {
				t.Errorf("Clear = %v", err)
			}
			for _, name := range []string{"dead", "live", "ahead"} {
				if _, err := os.Lstat(filepath.Join(dir, name+".json")); err == nil {
					t.Errorf("Clear left %s", name)
				}
			}
			readFile(t, dir, "other.json")
			if _, err := os.Lstat(filepath.Join(dir, "sparse.json")); err != nil {
				t.Error("Clear removed what holds no session")
			}
		})
	}
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

// C10 and FORMAT 1.7: the rule of expiry. "at" is milliseconds since the last access.
func TestExpiry(t *testing.T) {
	const ttl = 1000
	for _, tt := range []struct {
		maxAge string
		life   float64 // ms; 0 = expired at once
	}{
		{"null", ttl}, {"false", ttl}, {"0", ttl}, {"-0", ttl}, {`"5000"`, ttl}, {`""`, ttl}, {"{}", ttl}, {"[]", ttl},
		{"5000", 5000}, {"1", 1}, {"1500.75", 1500.75}, {"true", 1}, {"-1", 0}, {"-1e300", 0}, {"-0.5", 0},
		{"1e18", 9.2e12}, {"1e400", 9.2e12}, {"9223372036854775807", 9.2e12}, {"9223372036854.775807", 9.2e12},
	} {
		base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		s := decode(t, fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":"2000-01-01T00:00:00.000Z"},"__lastAccess":%d}`, tt.maxAge, base.UnixMilli()))
		got := float64(s.ExpiresAt(ttl*time.Millisecond).Sub(base)) / 1e6
		switch {
		case tt.life == 0 && got >= 0, tt.life > 9e12 && got < 9e12, tt.life > 0 && tt.life < 9e12 && got != tt.life:
			t.Errorf("originalMaxAge %s: lives %v ms, want %v", tt.maxAge, got, tt.life)
		}
	}
	// Equal is alive, one millisecond more is not.
	dir := t.TempDir()
	opts := quick()
	opts.TTL = 10 * time.Second
	s := open(t, dir, opts)
	for range 20 {
		ms := nowMs()
		write(t, dir, "id.json", doc(ms-10_000, ""))
		_, err := s.Get(ctx, "id")
		if now := nowMs(); now == ms && err != nil {
			t.Errorf("exactly the TTL after the last access: %v", err)
		}
		write(t, dir, "id.json", doc(nowMs()-10_001, ""))
		_, err = s.Get(ctx, "id")
		wantErr(t, "Get a millisecond later", err, filestore.ErrExpired)
	}
	// 12: a TTL that is nothing.
	opts.TTL = -1
	s = open(t, dir, opts)
	write(t, dir, "ttl.json", doc(nowMs()+1000, ""))
	_, err := s.Get(ctx, "ttl")
	wantErr(t, "Get with a negative TTL", err, filestore.ErrExpired)
	write(t, dir, "own.json", strings.Replace(doc(nowMs(), ""), "null", "60000", 1))
	get(t, s, "own")
	readFile(t, dir, "ttl.json") // kept
}

// C9, H5, H6: whatever stands for the last access, no session is immortal.
func TestLastAccess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick()) // TTL 1 h
	old, recent := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
	bad := []string{`"1795249098866"`, "-1", "1e400", "-1e400", "null", "true", "{}", "[1]", "8.64e15e", "9e15"}
	for i, v := range bad {
		file := fmt.Sprintf(`{"cookie":{},"__lastAccess":%s}`, v)
		if v == "8.64e15e" {
			file = `{"cookie":{}}` // missing
		}
		id := "bad" + strconv.Itoa(i)
		path := filepath.Join(dir, id+".json")
		write(t, dir, id+".json", file)
		os.Chtimes(path, old, old)
		_, err := s.Get(ctx, id)
		wantErr(t, "Get of an old file with __lastAccess "+v, err, filestore.ErrExpired)
		os.Chtimes(path, recent, recent)
		if got := get(t, s, id).LastAccess; !got.Equal(recent) {
			t.Errorf("__lastAccess %s: dated %v, want the mtime %v", v, got, recent)
		}
	}
	// The content decides, not the mtime.
	write(t, dir, "c.json", doc(nowMs(), ""))
	os.Chtimes(filepath.Join(dir, "c.json"), old, old)
	get(t, s, "c")
	write(t, dir, "e.json", doc(old.UnixMilli(), ""))
	os.Chtimes(filepath.Join(dir, "e.json"), recent, recent.Add(24*time.Hour))
	_, err := s.Get(ctx, "e")
	wantErr(t, "Get of an expired session in a new file", err, filestore.ErrExpired)

	// To be dated by the file is no reason to write: the session would live longer.
	write(t, dir, "undated.json", `{"cookie":{}}`)
	os.Chtimes(filepath.Join(dir, "undated.json"), recent, recent)
	if _, err := s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, "undated.json"); got != `{"cookie":{}}` {
		t.Errorf("Reap wrote %s", got)
	}

	// A little ahead is as it is, much ahead is now, and Reap or Touch write that down.
	ahead := nowMs() + 240_000
	write(t, dir, "skew.json", doc(ahead, ""))
	if got := get(t, s, "skew").LastAccess.UnixMilli(); got != ahead {
		t.Errorf("4 minutes ahead: %d, want %d", got, ahead)
	}
	for _, ms := range []int64{nowMs() + 400_000, 32503680000000} {
		for name, anchor := range map[string]func() error{
			"Reap":  func() error { _, err := s.Reap(ctx); return err },
			"Touch": func() error { return s.Touch(ctx, "future", nil) },
		} {
			write(t, dir, "future.json", doc(ms, `,"n":1`))
			if name == "Touch" { // Reap leaves alone what the mtime says to end in a time to come
				future := time.UnixMilli(ms).Add(time.Hour)
				os.Chtimes(filepath.Join(dir, "future.json"), future, future)
			}
			if got := get(t, s, "future").LastAccess; time.Since(got).Abs() > time.Minute {
				t.Errorf("dated %v, want now", got)
			}
			if err := anchor(); err != nil {
				t.Fatal(err)
			}
			disk := decode(t, readFile(t, dir, "future.json"))
			if time.Since(disk.LastAccess).Abs() > time.Minute || value(t, disk, "n") != "1" {
				t.Errorf("%s left a session of the future: %v", name, disk.LastAccess)
			}
		}
	}
}

// B10 and 23: what Node wrote 0644 becomes 0600, or what Mode says.
func TestMode(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, quick())
	path := filepath.Join(dir, "id.json")
	os.WriteFile(path, []byte(doc(nowMs(), "")), 0o644)
	os.Chmod(path, 0o644)
	get(t, s, "id")
	set(t, s, "id")
	if fi, _ := os.Stat(path); fi.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	opts := quick()
	opts.Mode = 0o664
	set(t, open(t, dir, opts), "id")
	if fi, _ := os.Stat(path); fi.Mode() != 0o664 {
		t.Errorf("mode %v, want 0664", fi.Mode())
	}
}

// B10: a directory that others may write to is worth a warning.
func TestOpenDirectoryWarns(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]int{0o777: 1, 0o770: 1, 0o755: 0, 0o700: 0} {
		os.Chmod(dir, mode)
		var log bytes.Buffer
		o := quick()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		open(t, dir, o)
		if got := strings.Count(log.String(), "others may write"); got != want {
			t.Errorf("mode %v: %d warnings, want %d", mode, got, want)
		}
	}
}

// A member of the wrong type is told without its value, and an error of the
// Codec whole.
func TestNoDataInErrors(t *testing.T) {
	s := session(t, "password", "hunter2", "card", int64(4111111111111111))
	_, err := filestore.Value[time.Time](s, "password")
	_, err2 := filestore.Value[int8](s, "card")
	for _, err := range []error{err, err2} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4111") {
			t.Errorf("Value = %v", err)
		}
	}
	dir := t.TempDir()
	var log bytes.Buffer
	o := quick()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Codec = keyless{}
	store := open(t, dir, o)
	write(t, dir, "id.json", "x")
	_, err = store.Get(ctx, "id")
	if err == nil || !strings.Contains(err.Error(), "the key of the store") {
		t.Errorf("Get = %v, want the codec's words", err)
	}
	if n, err := store.Reap(ctx); n != 0 || err == nil {
		t.Errorf("Reap = %d, %v, want the codec's error", n, err)
	}
	readFile(t, dir, "id.json")
}

// keyless has lost its key file.
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

// A named is a string, and a string is what a map may have for keys.
type named string

// loud has a JSON form of its own, in which U+FFFD is meant.
type loud struct{ text string }

func (l loud) MarshalJSON() ([]byte, error) { return []byte(`"\ufffd"`), nil }

// spelled is the text of a TextMarshaler.
type spelled struct{ text string }

func (s spelled) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// A string that JSON cannot hold was stored as another one, without a word.
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
