package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/interop"
)

// The commands understand a directory that the npm packages write, and Node goes on with the files that
// they have changed.
func TestNode(t *testing.T) {
	interop.NPM(t, "../../internal/interop")
	script, err := filepath.Abs("../../internal/interop/driver.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"plain", "kruptein"} {
		t.Run(kind, func(t *testing.T) { testNode(t, kind, interop.StartNode(t, t.TempDir(), script)) })
	}
}

type object = map[string]any

func testNode(t *testing.T, kind string, n *interop.Node) {
	call := func(op string, args, result any) {
		t.Helper()
		if err := n.Call(op, args, result); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
	node := func(dir string) (store int) {
		t.Helper()
		options := object{"path": dir}
		if kind == "kruptein" {
			options["secret"] = "keyboard cat"
		}
		call("open", options, &store)
		return store
	}
	get := func(store int, id string) (v object) {
		t.Helper()
		call("get", object{"store": store, "sid": id}, &v)
		return v
	}
	flags := keyFiles(t)[kind].flags
	with := func(dir, name string, args ...string) []string {
		return slices.Concat([]string{name, "--dir", dir}, flags, args)
	}

	dir := filepath.Join(t.TempDir(), "sessions")
	call("umask", 0o022, nil)
	store := node(dir) // makes it
	const count = 2
	ids := []string{}
	for i := range count {
		ids = append(ids, fmt.Sprintf("2o7sOpgMqMGWem0IxddjE0DkR3-jqU%02d", i))
		call("set", object{"store": store, "sid": ids[i], "session": object{
			"cookie": object{"originalMaxAge": 3_600_000, "expires": "2030-01-01T00:00:00.000Z", "httpOnly": true, "path": "/"},
			"user":   fmt.Sprint("user", i), "text": "é☂\u2028</script>", "n": []any{1, nil, "x"},
		}}, nil)
	}
	call("umask", 0o077, nil)
	call("set", object{"store": store, "sid": "private", "session": object{"cookie": object{"originalMaxAge": nil}}}, nil)
	ids = append(ids, "private")
	put(t, dir, ids[0]+".json.3998329561", "{") // of a Node that was killed
	past := time.Now().Add(-2 * time.Hour)
	os.Chtimes(filepath.Join(dir, ids[0]+".json.3998329561"), past, past)

	before := manifest(t, dir)
	findings, code := checked(t, dir, flags...)
	wantSame(t, "check", before, manifest(t, dir))
	for _, id := range ids[:count] {
		wantFindings(t, findings, id+".json", "warning modes")
	}
	wantFindings(t, findings, "private.json")
	wantFindings(t, findings, ids[0]+".json.3998329561", "warning temporary")
	wantFindings(t, findings, ".locks", "note locks")
	wantFindings(t, findings, dir, "warning directory") // 0755
	if code != 1 || len(findings) != count+3 {
		t.Errorf("check = %d, %+v", code, findings)
	}
	checked(t, dir, append(flags, "--fix")...)
	os.Chmod(dir, 0o700)
	if findings, code = checked(t, dir, flags...); code != 0 || len(findings) != 1 {
		t.Errorf("after --fix check = %d, %+v", code, findings)
	}

	// Moving house: Node finds its sessions in the new directory, and they end when they would have.
	first := command(t, "", with(dir, "export")...)
	if first.code != 0 || strings.Count(first.out, "\n") != len(ids) || first.stderr != "" {
		t.Fatalf("export = %+v", first)
	}
	to := filepath.Join(t.TempDir(), "moved")
	os.Mkdir(to, 0o700)
	if r := command(t, first.out, with(to, "import")...); r.code != 0 || !strings.HasPrefix(r.out, fmt.Sprintf("%d sessions imported; 0", len(ids))) {
		t.Fatalf("import = %+v", r)
	}
	if again := command(t, "", with(to, "export")...); !slices.Equal(sorted(again.out), sorted(first.out)) {
		t.Errorf("after import the export is %s\nbefore it was %s", again.out, first.out)
	}
	moved := node(to)
	for _, id := range ids {
		was, is := get(store, id), get(moved, id)
		if a, b := mustJSON(t, was), mustJSON(t, is); a != b || was == nil {
			t.Errorf("Node gets %s\nand got  %s", b, a)
		}
	}
	// Node changes one, and all is still well.
	call("set", object{"store": moved, "sid": ids[1], "session": object{"cookie": object{"originalMaxAge": nil}, "by": "node"}}, nil)
	if findings, code := checked(t, to, flags...); code != 0 || len(findings) != 0 {
		t.Errorf("check of the new directory = %d, %+v", code, findings)
	}
	if kind == "kruptein" {
		findings, code := checked(t, to)
		if code != 1 || len(findings) != 1 || findings[0].Kind != "encrypted" {
			t.Errorf("check without the secret = %d, %+v", code, findings)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
