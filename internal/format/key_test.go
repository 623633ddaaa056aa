package format_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore/internal/format"
)

// What a member equals.
func TestKey(t *testing.T) {
	big9 := strings.Repeat("9", 40)
	for _, tt := range []struct {
		members, member string
		equal           []string
		unequal         []string
	}{
		{`"user":"anna"`, "user", []string{"anna"}, []string{"", "Anna", "anna ", `"anna"`, "ann", "annaa"}},
		{`"user":""`, "user", []string{""}, []string{"0", "null"}},
		{`"user":"\u0061\n\"\\é\u00e9\ud83d\ude00"`, "user", []string{"a\n\"\\éé😀"}, []string{`\u0061`}},
		{`"user":"\ud800"`, "user", nil, []string{"\ufffd", "\xed\xa0\x80", ""}},
		{`"user":"\udc00\ud800"`, "user", nil, []string{"\ufffd\ufffd"}},
		{`"user":"\ud800\n\udc00"`, "user", nil, []string{"\ufffd\n\ufffd"}},
		{`"user":"\ufffd"`, "user", []string{"\ufffd"}, nil},
		{`"user":"�\\ud800\uFFFD"`, "user", []string{"\ufffd\\ud800\ufffd"}, nil},
		{"\"user\":\"\xff\"", "user", nil, []string{"\xff", "\ufffd"}},
		{`"user":"42"`, "user", []string{"42"}, []string{"42.0", "4.2e1", "042"}},
		{`"user":42`, "user", []string{"42", "42.0", "4.2e1", "420E-1", "0.42e+2"}, []string{"042", "+42", " 42", "42 ", "42\n", "42.", "", "4.20", "-42", "0x2a", "[42]"}},
		{`"user":4.2e1`, "user", []string{"42"}, []string{"4.2"}},
		{`"user":9007199254740993`, "user", []string{"9007199254740993", "9007199254740993.000"}, []string{"9007199254740992", "9007199254740994"}},
		{`"user":0.1`, "user", []string{"0.10", "1e-1"}, []string{"0.1000000000000000055511151231257827"}},
		{`"user":-0`, "user", []string{"0", "-0", "0.00", "0e99", "-0e-" + big9}, []string{"1", "-"}},
		{`"user":1e2`, "user", []string{"100", "1e2", "10e1", "1000e-1"}, []string{"1e3", "1e-2"}},
		{`"user":1e400`, "user", []string{"10e399", "0.1e401"}, []string{"1e401", "Infinity"}},
		{`"user":1e` + big9, "user", []string{"10e" + big9[1:] + "8", "0.1e1" + strings.Repeat("0", 40), "1e0" + big9}, nil},
		{`"user":10e-1` + strings.Repeat("0", 40), "user", []string{"1e-" + big9, "100e-1" + strings.Repeat("0", 39) + "1"}, []string{"1e" + big9, "1e-1" + strings.Repeat("0", 40)}},
		{`"user":1e999999999999999999`, "user", []string{"0.1e1000000000000000000", "10e999999999999999998"}, []string{"1e1000000000000000000"}},
		{`"user":null,"admin":true,"o":{"a":1},"l":["x"]`, "user", nil, []string{"", "null", "0"}},
		{`"admin":true`, "admin", nil, []string{"true", "1", ""}},
		{`"o":{"a":1}`, "o", nil, []string{`{"a":1}`, ""}},
		{`"l":["x"]`, "l", nil, []string{"x", `["x"]`}},
		{`"l":["x"]`, "l.0", nil, []string{"x"}},
		{`"passport":{"user":"anna","x":{"user":"bob"}}`, "passport.user", []string{"anna"}, []string{"bob"}},
		{`"passport":{"user":"anna","x":{"user":"bob"}}`, "passport.x.user", []string{"bob"}, []string{"anna"}},
		{`"passport":{"user":{"id":7}}`, "passport.user.id", []string{"7"}, nil},
		{`"passport":{"user":{"id":7}}`, "passport.user.id.x", nil, []string{"7", ""}},
		{`"passport":{ }`, "passport.user", nil, []string{""}},
		{`"passport":"x"`, "passport.user", nil, []string{"x"}},
		{`"passport.user":"anna"`, "passport.user", nil, []string{"anna"}},
		{`"user":"a","user":"b"`, "user", []string{"b"}, []string{"a"}},
		{`"o":{"u":"a","u":"b"}`, "o.u", []string{"b"}, []string{"a"}},
		{`"o":{"u":"a"},"o":{"v":"b"}`, "o.u", nil, []string{"a"}},
		{`"o":{"u":"a","u":null}`, "o.u", nil, []string{"a"}},
		{`"User":"a","o":{"U":"b"}`, "user", nil, []string{"a"}},
		{`"o":{"U":"b"}`, "o.u", nil, []string{"b"}},
		{`"\u0075ser":"a"`, "user", []string{"a"}, nil},
		{`"o":{"\u0075":"a"}`, "o.u", []string{"a"}, nil},
		{`"x":1`, "cookie", nil, []string{"", "1"}},
		{`"x":1`, "cookie.path", nil, []string{"/"}},
		{`"x":1`, "__lastAccess", nil, []string{"7"}},
	} {
		d, _, err := format.Parse([]byte(`{"cookie":{"path":"/"},` + tt.members + `,"__lastAccess":7}`))
		if err != nil {
			t.Fatalf("%s: %v", tt.members, err)
		}
		is := func(value string) bool {
			key, ok := d.Key(tt.member)
			for _, k := range format.Keys(value) {
				if ok && k == key {
					return true
				}
			}
			return false
		}
		for _, v := range tt.equal {
			if !is(v) {
				t.Errorf("%.80s: %s is not %.80q, key %v", tt.members, tt.member, v, format.Keys(v))
			}
		}
		for _, v := range tt.unequal {
			if is(v) {
				t.Errorf("%.80s: %s is %.80q", tt.members, tt.member, v)
			}
		}
	}
}

// A number as long as a document may be takes as little time as reading it.
func TestKeyOfHugeNumbers(t *testing.T) {
	long := strings.Repeat("9", 1<<20)
	for a, b := range map[string]string{
		"1e" + long:        "10e" + long[1:] + "8",
		"0.1e-" + long:     "1e-1" + strings.Repeat("0", 1<<20),
		long + "0e-1":      long,
		"0." + long + "e0": long + "e-1048576",
	} {
		if x, y := format.Keys(a), format.Keys(b); len(x) != 2 || x[1] != y[1] {
			t.Errorf("%.10s… and %.10s… differ", a, b)
		}
	}
}

// Two numbers have one key if and only if they are equal.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"42", "4.20e1", "-0.0e5", "1e-7", "100000", "1e5", "12.5e3", "0.00012", "9e17", "1e999999999999999999"} {
		f.Add(s, "42.0")
		f.Add("1e5", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := format.Keys(a), format.Keys(b)
		if len(x) < 2 || len(y) < 2 || len(a) > 50 || len(b) > 50 {
			return
		}
		p, okP := rat(a)
		q, okQ := rat(b)
		if okP && okQ && (x[1] == y[1]) != (p.Cmp(q) == 0) {
			t.Errorf("%s: %s, %s: %s", a, x[1], b, y[1])
		}
	})
}

func rat(s string) (*big.Rat, bool) {
	var exp int
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if n, err := fmt.Sscan(strings.TrimPrefix(s[i+1:], "+"), &exp); n != 1 || err != nil || exp > 1000 || exp < -1000 {
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}
