package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
)

// The command with which docs/DATABASES.md moves a site's sessions moves them, and back.
func TestDatabasesMove(t *testing.T) {
	t.Parallel()
	server, parent, bin := storetest.Redis(t), t.TempDir(), t.TempDir()
	if out, err := shell(t, ".", "", "go install ./cmd/filestore", "GOBIN="+bin).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(parent, "sessions", "JkqtbLbdHMk1bUT5S9Xb7R2v3eQnOzaW.json")
	s := storetest.OpenDamaged(t, filepath.Dir(file), storetest.Quick())
	sess := new(filestore.Session)
	if err := sess.Put("user", "anna"); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(ctx, "JkqtbLbdHMk1bUT5S9Xb7R2v3eQnOzaW", sess); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = "file:./sessions", "redis://127.0.0.1:6379"
	text := readFile(t, "docs", "DATABASES.md")
	command := "filestore move --from " + from + " --to " + to
	if !strings.Contains(text, "\n"+command+"\n") {
		t.Fatalf("docs/DATABASES.md does not say %s", command)
	}
	run := func(names *strings.Replacer) {
		t.Helper()
		if out, err := shell(t, parent, bin, names.Replace(command)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	addr := "redis://" + server.Addr
	run(strings.NewReplacer(to, addr))
	if _, err := os.Stat(file); err == nil {
		t.Error("the session is still in the directory")
	}
	run(strings.NewReplacer(from, addr, to, from))
	is, err := os.ReadFile(file)
	if cut := `,"__lastAccess"`; err != nil || strings.Split(string(is), cut)[0] != strings.Split(string(was), cut)[0] {
		t.Errorf("back in the directory is %s, %v\nwas %s", is, err, was)
	}
}
