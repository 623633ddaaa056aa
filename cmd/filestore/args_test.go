package main

import (
	"runtime/debug"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"ls", "list", "show", "set", "stat", "watch", "secret-file", "no-color"}
	for word, want := range map[string]string{
		"lst": "ls", "l": "", "shwo": "show", "sho": "show", "SHOW": "show", "watching": "", "wath": "watch", "sat": "set",
		"secretfile": "secret-file", "nocolour": "no-color", "": "", "xyz": "", "zz": "",
		"2o7sOpgMqMGWem0IxddjE0DkR3-jqUPxx": "",
	} {
		if got := nearest(word, names); got != want && !(want == "ls" && got == "list") {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
	for _, d := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"show", "show", 0}, {"shwo", "show", 1}, {"sow", "show", 1}, {"shoow", "show", 1}, {"abc", "xyz", 3}} {
		if got := distance(d.a, d.b); got != d.want || distance(d.b, d.a) != d.want {
			t.Errorf("distance(%q, %q) = %d, want %d", d.a, d.b, got, d.want)
		}
	}
}

func TestVersion(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	for _, c := range []struct {
		module   string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.3", nil, "v1.2.3"},
		{"(devel)", nil, "(devel)"},
		{"", []debug.BuildSetting{setting("vcs.revision", "6e2ff32aaaaabbbbbccccc"), setting("vcs.modified", "false")}, "6e2ff32aaaaa"},
		{"(devel)", []debug.BuildSetting{setting("vcs.revision", "6e2ff32aaaaabbbbbccccc"), setting("vcs.modified", "true")}, "6e2ff32aaaaa+dirty"},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.module}, Settings: c.settings}
		if got := versionOf(info); got != c.want {
			t.Errorf("versionOf(%+v) = %q, want %q", info, got, c.want)
		}
	}
}
