package main

import (
	"strings"
	"testing"
)

// Of members that occur twice the last counts, as for the programs that load the session: a session
// cannot show an operator one user and be another's.
func TestTwice(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, nodeSession{dir: dir, id: "twice001twice001", members: `"user":"bert","x":1,"user":"anna"`})
	for where, want := range map[string]bool{"user=anna": true, "user=bert": false, "user!=anna": false} {
		_, out, errOut := commandOutput(t, "ls", "--dir", dir, "--where", where, "--show", "user")
		if got := strings.Contains(out, "twice001"); got != want || strings.Contains(out, "bert") || errOut != "" {
			t.Errorf("ls --where %s: %q %q, want listed: %v", where, out, errOut, want)
		}
	}
	_, out, _ := commandOutput(t, "stat", "--dir", dir, "--by", "user")
	if !strings.Contains(out, "anna") || strings.Contains(out, "bert") {
		t.Errorf("stat --by user: %q", out)
	}
}
