package mongostore

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sessionfilestore/filestore"
)

func raw(t *testing.T, v any) bson.RawValue {
	t.Helper()
	typ, b, err := bson.MarshalValue(v)
	if err != nil {
		t.Fatal(err)
	}
	return bson.RawValue{Type: typ, Value: b}
}

// made returns the object for doc in the place of old.
func made(t *testing.T, doc string, old bson.RawValue) bson.RawValue {
	t.Helper()
	v, err := object(doc, old)
	if err != nil {
		t.Fatalf("object(%s) = %v", doc, err)
	}
	return raw(t, v)
}

// The objects that Node wrote are read as JSON.stringify has them, and Go makes the same bytes of that.
func TestObjectSamples(t *testing.T) {
	lines, err := os.ReadFile("testdata/object.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":{"id":7,"name":"Ærøskøbing <b> & \"é\" 😀"},"views":1}`,
		`{"cookie":{"originalMaxAge":3600000,"expires":"2026-11-28T13:52:45.816Z","httpOnly":true,"path":"/","sameSite":"lax"},"user":{"id":7,"name":"Ærøskøbing <b> & \"é\" 😀"},"views":1}`,
	}
	for i, line := range strings.Split(strings.TrimSpace(string(lines)), "\n")[1:] {
		var doc bson.Raw
		if err := bson.UnmarshalExtJSON([]byte(line), false, &doc); err != nil {
			t.Fatal(err)
		}
		node := doc.Lookup("session")
		got, err := text(node)
		if got != want[i] || err != nil {
			t.Errorf("text = %s, %v, want %s", got, err, want[i])
		}
		for name, old := range map[string]bson.RawValue{"a new one": {}, "the same": node} {
			if again := made(t, got, old); !again.Equal(node) {
				t.Errorf("as %s: %v, want %v", name, again, node)
			}
		}
	}
}

// What JSON does not tell stays, as long as nobody changes it as JSON.
func TestObjectKeeps(t *testing.T) {
	oid := bson.NewObjectID()
	day := bson.NewDateTimeFromTime(time.UnixMilli(1_795_249_098_866))
	old := raw(t, bson.D{
		{Key: "z", Value: bson.D{{Key: "when", Value: day}, {Key: "n", Value: int64(7)}, {Key: "o", Value: oid}}},
		{Key: "cookie", Value: bson.D{{Key: "secure", Value: nil}, {Key: "path", Value: "/"}, {Key: "extra", Value: nil}}},
		{Key: "list", Value: bson.A{day, math.NaN(), bson.A{math.Copysign(0, -1)}, int64(1) << 60}},
		{Key: "", Value: 1.0}, {Key: "$set", Value: int32(1)}, {Key: "a.b", Value: "x"}, {Key: "0", Value: nil},
	})
	const doc = `{"z":{"when":"2026-11-21T08:18:18.866Z","n":7,"o":"OID"},"cookie":{"path":"/","extra":null},"list":["2026-11-21T08:18:18.866Z",null,[0],1152921504606846976],"":1,"$set":1,"a.b":"x","0":null}`
	want := strings.Replace(doc, "OID", oid.Hex(), 1)
	got, err := text(old)
	if got != want || err != nil {
		t.Fatalf("text = %s, %v, want %s", got, err, want)
	}
	if same := made(t, got, old); !same.Equal(old) {
		t.Errorf("unchanged: %v, want %v", same, old)
	}
	// One member changes, and one is new: all others stay.
	changed := made(t, strings.Replace(strings.Replace(got, `"n":7`, `"n":8`, 1), `,"":1`, `,"new":true,"":1`, 1), old)
	for _, path := range [][]string{{"z", "when"}, {"z", "o"}, {"cookie"}, {"list"}, {""}, {"$set"}, {"a.b"}, {"0"}} {
		if was, is := old.Document().Lookup(path...), changed.Document().Lookup(path...); !is.Equal(was) {
			t.Errorf("%q is %v, want %v as before", path, is, was)
		}
	}
	if n := changed.Document().Lookup("z", "n"); n.Type != bson.TypeInt32 || n.Int32() != 8 {
		t.Errorf("the changed number is %v, want 8", n)
	}
	// A list that gets longer keeps what it had.
	longer := made(t, strings.Replace(got, "1152921504606846976]", "1152921504606846976,2]", 1), old)
	if list, _ := longer.Document().Lookup("list").Array().Values(); len(list) != 5 || list[0].Type != bson.TypeDateTime || !math.IsNaN(list[1].Double()) || list[3].Int64() != 1<<60 {
		t.Errorf("the longer list is %v", list)
	}
	// A changed cookie has what Node's would have, and in its order.
	const cookie = `{"originalMaxAge":1000,"expires":"2026-11-21T08:18:18.866Z","httpOnly":true,"path":"/"}`
	renewed := made(t, strings.Replace(got, `{"path":"/","extra":null}`, cookie, 1), old)
	wantCookie := raw(t, bson.D{
		{Key: "originalMaxAge", Value: int32(1000)}, {Key: "partitioned", Value: nil}, {Key: "priority", Value: nil}, {Key: "expires", Value: day},
		{Key: "secure", Value: nil}, {Key: "httpOnly", Value: true}, {Key: "domain", Value: nil}, {Key: "path", Value: "/"}, {Key: "sameSite", Value: nil},
	})
	if is := renewed.Document().Lookup("cookie"); !is.Equal(wantCookie) {
		t.Errorf("the changed cookie is %v, want %v", is, wantCookie)
	}
	if again, _ := text(renewed); !strings.Contains(again, cookie) {
		t.Errorf("the changed cookie is read as part of %s", again)
	}
}

// A session that cannot be read whole is ErrCorrupt, so that nobody writes the rest of it.
func TestObjectRefuses(t *testing.T) {
	with := func(v any) bson.RawValue {
		return raw(t, bson.D{{Key: "cookie", Value: bson.D{}}, {Key: "v", Value: bson.A{bson.D{{Key: "v", Value: v}}}}})
	}
	for name, v := range map[string]bson.RawValue{
		"null": {Type: bson.TypeNull}, "a number": raw(t, 3), "a list": raw(t, bson.A{}), "nothing": {},
		"binary": with(bson.Binary{Data: []byte("x")}), "a regular expression": with(bson.Regex{Pattern: "x"}), "a decimal": with(bson.NewDecimal128(1, 1)),
		"a timestamp": with(bson.Timestamp{T: 1}), "undefined": with(bson.Undefined{}), "no Unicode": with("\xff"), "a name without Unicode": with(bson.D{{Key: "\xff"}}),
		"a name twice": with(bson.D{{Key: "a", Value: 1}, {Key: "a", Value: 2}}),
		"cut off":      {Type: bson.TypeEmbeddedDocument, Value: []byte{9, 0, 0, 0, 2, 'a', 0, 9, 0}},
	} {
		if got, err := text(v); !errors.Is(err, filestore.ErrCorrupt) {
			t.Errorf("text of %s = %s, %v, want ErrCorrupt", name, got, err)
		}
	}
	for _, v := range []string{`"\ud800"`, "\"\xff\"", "12345678901234567890", "0.1000000000000000000001", "1e999"} {
		if got, err := object(`{"cookie":{},"v":[{"v":`+v+`}]}`, bson.RawValue{}); err == nil {
			t.Errorf("object with %s = %v, want an error", v, got)
		}
	}
	doc, err := object(`{"cookie":{},"a\u0000b":1}`, bson.RawValue{})
	if err == nil {
		_, err = bson.Marshal(bson.D{{Key: "session", Value: doc}})
	}
	if err == nil {
		t.Error("a name with a NUL can be sent")
	}
}

// Numbers and dates as JSON.stringify of Node 20 prints them; Node's driver stores numbers with these types.
func TestObjectNumbers(t *testing.T) {
	for v, want := range map[any]string{
		1.0: "1", 0.1: "0.1", 1e20: "100000000000000000000", 1e21: "1e+21", 1e-6: "0.000001", 1e-7: "1e-7", -1.5e300: "-1.5e+300", 5e-324: "5e-324",
		math.Copysign(0, -1): "0", math.Inf(1): "null", 9007199254740993.0: "9007199254740992", int32(-7): "-7", int64(math.MinInt64): "-9223372036854775808",
		bson.DateTime(0): `"1970-01-01T00:00:00.000Z"`, bson.DateTime(253402300800000): `"+010000-01-01T00:00:00.000Z"`, bson.DateTime(-62167219200001): `"-000001-12-31T23:59:59.999Z"`,
		bson.DateTime(8.64e15): `"+275760-09-13T00:00:00.000Z"`, bson.DateTime(8.64e15 + 1): "null", bson.DateTime(-62167219200000): `"0000-01-01T00:00:00.000Z"`,
	} {
		if got, err := appendValue(nil, raw(t, v)); string(got) != want || err != nil {
			t.Errorf("%T %v is %s, %v, want %s", v, v, got, err, want)
		}
	}
	for doc, want := range map[string]any{
		"0": int32(0), "-2147483648": int32(math.MinInt32), "2147483648": 2147483648.0, "1.0": int32(1), "1e3": int32(1000), "1.5": 1.5, "0.1": 0.1,
		"9007199254740992": 9007199254740992.0, "9007199254740993": int64(9007199254740993), "1e21": 1e21, "-9223372036854775807": int64(-9223372036854775807),
	} {
		if got, err := numberOf(doc); got != want || err != nil {
			t.Errorf("numberOf(%s) = %T %v, %v, want %T %v", doc, got, got, err, want, want)
		}
	}
}

// What is read is what is written.
func FuzzObject(f *testing.F) {
	for _, doc := range []string{`{}`, `{"cookie":{}}`, `{"cookie":{"expires":"2026-11-28T13:52:45.816Z","secure":false},"a":[{"b":[1,2.5e3,"\u00e9",null]}],"":{"":true}}`,
		`{"a":1,"a":{"b":2},"cookie":{"path":null}}`, ` { "cookie" : [ ] , "n" : -0 , "big" : 9007199254740993 } `} {
		f.Add(doc, `{"cookie":{},"a":[{}]}`)
	}
	f.Fuzz(func(t *testing.T, doc, then string) {
		session := func(doc string, old bson.RawValue) (bson.RawValue, bool) {
			if !strings.HasPrefix(strings.TrimLeft(doc, " \t\r\n"), "{") {
				return bson.RawValue{}, false
			}
			v, err := object(doc, old)
			if err != nil {
				return bson.RawValue{}, false
			}
			b, err := bson.Marshal(bson.D{{Key: "session", Value: v}})
			return bson.Raw(b).Lookup("session"), err == nil
		}
		first, ok := session(doc, bson.RawValue{})
		if !ok {
			return
		}
		read, err := text(first)
		if err != nil {
			t.Fatalf("%q is stored and cannot be read: %v", doc, err)
		}
		if again, ok := session(read, first); !ok || !again.Equal(first) {
			t.Errorf("%q is not stored again as it was", read)
		}
		alone, ok := session(read, bson.RawValue{})
		if got, err := text(alone); !ok || err != nil || got != read {
			t.Errorf("%q becomes %q", read, got)
		}
		if fresh, ok := session(then, bson.RawValue{}); ok { // what was there before does not show
			want, _ := text(fresh)
			over, ok := session(then, first)
			if got, err := text(over); !ok || err != nil || got != want {
				t.Errorf("%q in the place of %q becomes %q, want %q", then, doc, got, want)
			}
		}
	})
}
