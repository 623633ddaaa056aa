package format_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
)

// A document that nobody changes is written as it was read, in its order.
func TestDocument(t *testing.T) {
	const doc = "{\"b\" : 1e21 ,\"__lastAccess\":1795249098866.5,\"a\":[ 1, \"\\ud800\" ],\n \"cookie\":{\"path\" :\"/\"},\"__created\":1,\"\\u00e9\":null}"
	d, p, err := format.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	want := format.Parts{Cookie: `{"path" :"/"}`, LastAccess: time.UnixMilli(1_795_249_098_866), Created: time.UnixMilli(1)}
	if p != want {
		t.Errorf("Parse = %v, want %v", p, want)
	}
	values := d.Values()
	if got := slices.Sorted(maps.Keys(values)); !slices.Equal(got, []string{"a", "b", "é"}) {
		t.Errorf("members %q", got)
	}
	got, err := d.Join(p, values)
	if want := `{"b":1e21,"__lastAccess":1795249098866,"a":[ 1, "\ud800" ],"cookie":{"path" :"/"},"__created":1,"é":null}`; string(got) != want || err != nil {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	// The values belong to the caller.
	copy(values["b"], "9999")
	if again := d.Values(); string(again["b"]) != "1e21" {
		t.Errorf("b = %s after the caller wrote into its copy", again["b"])
	}
	// New members come last, in the order of their names. Removed members are not written.
	delete(values, "a")
	values["y"], values["x"], values["b"] = json.RawMessage("2"), nil, json.RawMessage("1")
	p.Cookie = "{}"
	got, _ = d.Join(p, values)
	if want := `{"b":1,"__lastAccess":1795249098866,"cookie":{},"__created":1,"é":null,"x":null,"y":2}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	// The document of a new session.
	got, _ = (*format.Document)(nil).Join(p, map[string]json.RawMessage{"n": json.RawMessage("1")})
	if want := `{"cookie":{},"n":1,"__created":1,"__lastAccess":1795249098866}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for doc, want := range map[string]string{
		"": "not JSON", "{": "not JSON", "[]": "not an object", "null": "not an object", `"x"`: "not an object",
		"{}": "no cookie object", `{"cookie":null}`: "no cookie object", `{"cookie":[]}`: "no cookie object", `{"Cookie":{}}`: "no cookie object",
		`{"cookie":{},"\ud800":1,"\udfff":2}`: "names that are not Unicode, and alike",
	} {
		if _, _, err := format.Parse([]byte(doc)); err == nil || err.Error() != want {
			t.Errorf("Parse(%s) = %v, want %s", doc, err, want)
		}
	}
	// A time that is not a sane number counts as missing.
	for _, raw := range []string{"null", `"1"`, "-1", "1e16", "1e400", "[1]", "true"} {
		_, p, err := format.Parse([]byte(`{"cookie":{},"__lastAccess":` + raw + `,"__created":` + raw + "}"))
		if err != nil || !p.LastAccess.IsZero() || !p.Created.IsZero() {
			t.Errorf("times %s: %v, %v", raw, p, err)
		}
	}
}

// A document that could not be read again is not written.
func TestJoinRefusesDepth(t *testing.T) {
	deep := json.RawMessage(strings.Repeat("[", 9999) + strings.Repeat("]", 9999))
	p := format.Parts{Cookie: "{}"}
	if _, err := (*format.Document)(nil).Join(p, map[string]json.RawMessage{"v": deep}); err != nil {
		t.Errorf("10,000 deep: %v", err)
	}
	deep = json.RawMessage("[" + string(deep) + "]")
	if got, err := (*format.Document)(nil).Join(p, map[string]json.RawMessage{"v": deep}); err == nil {
		t.Errorf("written, and can be read: %v", json.Valid(got))
	}
}

func TestEncode(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{
		{"<&>\u2028", "\"<&>\\u2028\""}, {[]byte{0xff}, `"/w=="`}, {"\ufffd", "\"\ufffd\""},
		{"a\xff", ""}, {map[string]any{"k": []any{"\xc3"}}, ""}, {map[string]int{"\xff": 1}, ""}, {struct{ S *string }{new("\xff")}, ""},
		{make(chan int), ""},
	} {
		got, err := format.Encode(tt.v)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Encode(%#v) = %s, %v, want %s", tt.v, got, err, tt.want)
		}
	}
}

// Parse finds the members of any JSON object that encoding/json accepts, and each value is JSON.
func FuzzMembers(f *testing.F) {
	for _, doc := range []string{"{}", `{"a":{"b":[1,"}"]},"c":-1.5e3 }`, ` { "\u0061" : "\\\"" , "a":null}`, `{"":[[]],"x":true}`} {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var want map[string]json.RawMessage
		if !strings.HasPrefix(strings.TrimLeft(doc, " \t\r\n"), "{") || json.Unmarshal([]byte(doc), &want) != nil {
			return
		}
		got := make(map[string]string)
		for m := range format.Members(doc) {
			got[m.Name] = m.Raw
		}
		if len(got) != len(want) {
			t.Fatalf("%d members, want %d: %q", len(got), len(want), doc)
		}
		for name, raw := range want {
			if got[name] != string(raw) {
				t.Errorf("%q is %q, want %q", name, got[name], raw)
			}
		}
	})
}
