package main

import "testing"

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{show("ä"), "ä"}, {show(""), `""`}, {show("a\x1bb"), `"a\x1bb"`}, {show("a\xff"), `"a\xff"`}, {show("\ufffd"), "\ufffd"}, {show("\u202e"), `"\u202e"`},
		{string(safeJSON([]byte("\"ä\u009b\U000e0001\xff\""))), `"ä\u009b\udb40\udc01\ufffd"`},
		{encodeURIComponent("é!"), "%C3%A9!"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
