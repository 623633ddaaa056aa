package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/skip"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/sealed"
)

// What the disk of whoever runs the tests is like must not matter, in scripts neither.
func init() {
	statVolume = func(string) (disk.Volume, error) {
		return disk.Volume{Blocks: 100, FreeBlocks: 50, BlockSize: 4096, Inodes: 100, FreeInodes: 50}, nil
	}
}

// checked runs check on dir and returns its findings.
func checked(t *testing.T, dir string, args ...string) (findings []finding, code int) {
	t.Helper()
	r := command(t, "", append([]string{"check", "--json", "--full", "--dir", dir}, args...)...)
	if r.stderr != "" {
		t.Errorf("check on stderr: %s", r.stderr)
	}
	for line := range strings.Lines(r.out) {
		var f finding
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("check printed %q: %v", line, err)
		}
		if f.Detail == "" || strings.Contains(line, "%!") || !slices.Contains([]string{severityError, severityWarning, severityNote}, f.Severity) {
			t.Errorf("check printed %q", line)
		}
		findings = append(findings, f)
	}
	if last := findings[len(findings)-1]; last.Kind != "summary" {
		t.Errorf("the last line is %+v, want the summary", last)
	}
	bad := slices.ContainsFunc(findings, func(f finding) bool { return f.Severity != severityNote })
	if want := map[bool]int{false: 0, true: 1}[bad]; r.code != want {
		t.Errorf("exit code %d, want %d", r.code, want)
	}
	findings = findings[:len(findings)-1]
	if disk.Modes { // the line before says how often a write is flushed, and does not count
		flush := findings[len(findings)-1]
		if flush.Severity+" "+flush.Kind != "note flush" {
			t.Errorf("the line before the summary is %+v", flush)
		}
		findings = findings[:len(findings)-1]
	}
	return findings, r.code
}

// of returns "severity kind" of the findings on the file name, in order.
func of(findings []finding, name string) []string {
	var all []string
	for _, f := range findings {
		if f.File == name {
			all = append(all, f.Severity+" "+f.Kind)
		}
	}
	slices.Sort(all)
	return all
}

func wantFindings(t *testing.T, findings []finding, name string, want ...string) {
	t.Helper()
	if got := of(findings, name); !slices.Equal(got, want) {
		t.Errorf("on %q check says %q, want %q", name, got, want)
	}
}

func TestCheckHealthy(t *testing.T) {
	dir, _ := sessions(t, nil)
	before := manifest(t, dir)
	findings, code := checked(t, dir)
	if len(findings) != 0 || code != 0 {
		t.Errorf("check of a healthy directory: %d, %+v", code, findings)
	}
	findings, _ = checked(t, dir, "--fix")
	if len(findings) != 0 {
		t.Errorf("check --fix of a healthy directory: %+v", findings)
	}
	wantSame(t, "check", before, manifest(t, dir))
	r := command(t, "", "check", "--dir", dir)
	if want := "1 session, 1 of them live, 0 expired, 0 unusable; 0 other files: 0 errors, 0 warnings, 0 notes.\n"; !strings.HasSuffix(r.out, want) || strings.Count(r.out, "\n") > 2 {
		t.Errorf("check printed %q", r.out)
	}
}

func TestCheckRefuses(t *testing.T) {
	dir, _ := sessions(t, nil)
	for _, args := range [][]string{
		{"--dir", filepath.Join(dir, "none")},
		{"--dir", filepath.Join(dir, "healthy.json")},
		{"--dir", dir, "--ext", "json"},
		{"--dir", dir, "--secret-file", filepath.Join(dir, "none")},
		{"--dir", dir, "more"},
	} {
		r := command(t, "", append([]string{"check"}, args...)...)
		if r.code != 2 || strings.Count(r.stderr, "\n") != 1 || r.out != "" {
			t.Errorf("check %q = %+v, want exit code 2 and one line", args, r)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("check made the directory")
	}
}

// Every prefix of a file is corrupt, or of an encrypted one cannot be decrypted.
func TestCheckTruncated(t *testing.T) {
	seal, err := sealed.New(bytes.Repeat([]byte{7}, sealed.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	put(t, filepath.Dir(key), "key", strings.Repeat("07", sealed.KeySize))
	for kind, codec := range map[string]filestore.Codec{"corrupt": nil, "undecryptable": seal} {
		dir, _ := sessions(t, codec)
		args := []string{}
		if codec != nil {
			args = []string{"--key-file", key}
		}
		whole, err := os.ReadFile(filepath.Join(dir, "healthy.json"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			put(t, dir, fmt.Sprintf("cut%d.json", i), string(whole[:i]))
		}
		before := manifest(t, dir)
		findings, _ := checked(t, dir, append(args, "--fix")...)
		wantSame(t, "check", before, manifest(t, dir))
		if codec == nil {
			for i := range whole {
				wantFindings(t, findings, fmt.Sprintf("cut%d.json", i), "error "+kind)
			}
		}
		found := len(of(findings, dir)) // check has given up on the rest
		for _, f := range findings {
			if f.Kind == kind {
				found++
			}
		}
		if found < min(len(whole), enough) {
			t.Errorf("%d findings are %s, want %d", found, kind, len(whole))
		}
		wantFindings(t, findings, "healthy.json")
	}
}

func TestCheckContents(t *testing.T) {
	dir, _ := sessions(t, nil)
	now := time.Now()
	want := map[string][]string{}
	add := func(id, text string, findings ...string) {
		put(t, dir, id+".json", text)
		want[id+".json"] = findings
	}
	add("null", "null", "error corrupt")
	add("list", "[]", "error corrupt")
	add("number", "5", "error corrupt")
	add("nocookie", `{"a":1}`, "error corrupt")
	add("textcookie", `{"cookie":"a"}`, "error corrupt")
	add("casecookie", `{"Cookie":{}}`, "error corrupt")
	add("bom", "\ufeff"+document(now, "null", ""), "error corrupt")
	add("two", document(now, "null", "")+"{}", "error corrupt")
	add("deep", strings.Repeat("[", 1_000_000), "error corrupt")
	add("deepvalue", document(now, "null", `,"a":`+strings.Repeat("[", 10_001)+strings.Repeat("]", 10_001)), "error corrupt")
	add("large", document(now, "null", `,"a":"`+strings.Repeat("x", 2<<20)+`"`), "warning too large")
	add("invalid-utf8", document(now, "null", ",\"a\":\"\xff\""))
	add("undated", `{"cookie":{}}`, "warning undated")
	add("textdate", `{"cookie":{},"__lastAccess":"5"}`, "warning undated")
	add("textage", document(now, `"1000"`, ""), "warning undated")
	add("future", document(now.Add(time.Hour), "null", ""), "warning future")
	add("skew", document(now.Add(4*time.Minute), "null", ""))
	add("long", document(now, "86400000000", ""), "note future")
	add("huge", document(now, "1e300", ""), "note future")
	add("expired", document(now.Add(-2*time.Hour), "null", ""))
	add("negative", document(now, "-1", ""))
	add("ahead", document(now, "60000", ""), "warning future")
	os.Chtimes(filepath.Join(dir, "ahead.json"), time.Time{}, now.Add(time.Hour))
	add("otherttl", document(now, "null", "")) // a program's TTL may be longer
	os.Chtimes(filepath.Join(dir, "otherttl.json"), time.Time{}, now.Add(24*time.Hour))
	add("sealed", `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	add("kruptein", `{"hmac":"a","ct":"b","iv":{"type":"Buffer","data":[1]},"salt":{"type":"Buffer","data":[1]}}`)
	add("asn1", "3082010004")
	add("legacy", "IV;00112233445566778899aabbccddeeff00")
	add("abc", document(now, "null", ""))
	if _, err := os.Lstat(filepath.Join(dir, "ABC.json")); err != nil { // the file system does not fold case
		add("AbC", document(now, "null", ""), "warning case")
		add("aBC", document(now, "null", ""), "warning case")
	}
	for _, id := range []string{"undated", "future"} { // the mtime is not the ctime
		os.Chtimes(filepath.Join(dir, id+".json"), time.Time{}, now.Add(-time.Minute))
	}
	before := manifest(t, dir)
	findings, _ := checked(t, dir, "--fix")
	wantSame(t, "check", before, manifest(t, dir))
	for name, kinds := range want {
		wantFindings(t, findings, name, kinds...)
	}
	wantFindings(t, findings, dir, "note expired", "note future", "warning encrypted")

	put(t, dir, "late.json", document(now.Add(-27*time.Hour), "null", ""))
	findings, _ = checked(t, dir)
	wantFindings(t, findings, dir, "note future", "warning encrypted", "warning expired")
	findings, _ = checked(t, dir, "--ttl", "48h")
	wantFindings(t, findings, dir, "note expired", "warning encrypted") // the one with the negative maxAge
}

func TestCheckNames(t *testing.T) {
	dir, _ := sessions(t, nil)
	now := time.Now()
	want := map[string][]string{}
	add := func(name string, findings ...string) {
		put(t, dir, name, document(now, "null", ""))
		want[string([]rune(name))] = findings // in JSON each byte that is not UTF-8 is U+FFFD
	}
	add(".json", "warning name")
	add("a b.json", "warning name")
	add("a.json.json", "warning name")
	if !isWindows { // which has no such files
		add("con.json", "warning name")
		add("new\nline.json", "warning name")
		add("esc\x1b[31m.json", "warning name")
		add("bell\a", "note foreign")
		add("\xff\xfe.json", "warning name")
	}
	add(strings.Repeat("x", 250)+".json", "warning name")
	add(strings.Repeat("x", 255), "note foreign")
	add("README", "note foreign")
	add("x.json.bak", "note foreign")
	add("x.JSON", "note foreign")
	add("x.json.1234", "note foreign")
	add("x.json.0123456789", "note foreign")
	add(fmt.Sprintf("x.json.%d", now.Unix()), "note foreign")
	add("x.json.99999999999", "note foreign")
	add("x.json.3998329561") // of a writer that may live
	add(".ABCDEFGHIJKLMNOPQRSTUVWXYZ~")
	add(".00-ABCDEFGHIJKLMNOPQRSTUVWXYZ~", "note foreign")
	before := manifest(t, dir)
	findings, _ := checked(t, dir, "--fix")
	wantSame(t, "check", before, manifest(t, dir))
	for name, kinds := range want {
		wantFindings(t, findings, name, kinds...)
	}
	// On a terminal the names have no power, and an id is not shown.
	put(t, dir, "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.json", "")
	put(t, dir, "2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.json.bak", "")
	r := command(t, "", "check", "--dir", dir)
	for line := range strings.Lines(r.out) {
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }); i >= 0 {
			t.Errorf("check printed %q", line)
		}
	}
	if strings.Contains(r.out, "2o7sOpgMq") || !strings.Contains(r.out, "2o7sOpgM….json: ") || !strings.Contains(r.out, "2o7sOpgM….json.bak: ") {
		t.Errorf("check printed\n%s", r.out)
	}
}

// Of findings that are many the first are printed and the others counted, and so is the exit code.
func TestCheckMany(t *testing.T) {
	dir, _ := sessions(t, nil)
	const n = printed + 234
	for i := range n {
		put(t, dir, fmt.Sprintf("id%d.json", i), "{")
	}
	r := command(t, "", "check", "--dir", dir)
	if got := strings.Count(r.out, "\nerror    corrupt") + 1; got != printed+1 || r.code != 1 {
		t.Errorf("exit code %d and %d lines, want 1 and %d", r.code, got, printed+1)
	}
	for _, want := range []string{"234 more like these are not shown.", fmt.Sprintf("%d errors", n), fmt.Sprintf("%d unusable", n)} {
		if !strings.Contains(r.out, want) {
			t.Errorf("check does not say %q", want)
		}
	}
}

func TestCheckDecrypts(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	put(t, filepath.Dir(secret), "secret", "keyboard cat\n")
	other := filepath.Join(t.TempDir(), "secret")
	put(t, filepath.Dir(other), "secret", "another\n")
	dir, store := sessions(t, kruptein.New("keyboard cat"))
	if err := store.Set(t.Context(), "id0", new(filestore.Session)); err != nil {
		t.Fatal(err)
	}
	os.Rename(filepath.Join(dir, "id0.json"), filepath.Join(dir, "id9.json")) // is tied to its name
	put(t, dir, "plain.json", document(time.Now(), "null", ""))
	findings, _ := checked(t, dir, "--secret-file", secret)
	if len(findings) != 2 {
		t.Errorf("findings are %+v", findings)
	}
	wantFindings(t, findings, "id9.json", "error undecryptable")
	wantFindings(t, findings, "plain.json", "error undecryptable")
	findings, _ = checked(t, dir)
	if len(findings) != 1 || findings[0].Kind != "encrypted" || !strings.Contains(findings[0].Detail, "2 files") || !strings.Contains(findings[0].Detail, "while 1 are not") {
		t.Errorf("without the secret findings are %+v", findings)
	}
	r := command(t, "", "check", "--dir", dir, "--secret-file", other)
	if r.code != 1 || strings.Count(r.out, "undecryptable") != 3 || strings.Contains(r.out, "another\n") || strings.Contains(r.out, "keyboard") {
		t.Errorf("with another secret: %+v", r)
	}
}

// With the wrong key check does not try each of a million files.
func TestCheckGivesUp(t *testing.T) {
	dir, key := t.TempDir(), filepath.Join(t.TempDir(), "key")
	put(t, filepath.Dir(key), "key", strings.Repeat("07", sealed.KeySize))
	for i := range enough + 10 {
		put(t, dir, fmt.Sprintf("id%d.json", i), `{"sealed":1,"key":"0000000000000000","box":"AAAA"}`)
	}
	findings, _ := checked(t, dir, "--key-file", key)
	tried := 0
	for _, f := range findings {
		if f.Kind == "undecryptable" && f.File != dir {
			tried++
		} else if f.File == dir && f.Kind == "undecryptable" && !strings.Contains(f.Detail, "10 others were not tried") {
			t.Errorf("check says %+v", f)
		}
	}
	if tried != enough || !slices.Contains(of(findings, dir), "error undecryptable") {
		t.Errorf("check tried %d: %+v", tried, findings)
	}
}

func TestCheckVolume(t *testing.T) {
	dir, _ := sessions(t, nil)
	defer func(old func(string) (disk.Volume, error)) { statVolume = old }(statVolume)
	for _, v := range []struct {
		disk.Volume
		want []string
	}{
		{disk.Volume{Blocks: 1000, FreeBlocks: 50, Inodes: 1000, FreeInodes: 50}, nil},
		{disk.Volume{Blocks: 1000, FreeBlocks: 49, Inodes: 1000, FreeInodes: 50}, []string{"warning space"}},
		{disk.Volume{Blocks: 1000, FreeBlocks: 9, Inodes: 1000, FreeInodes: 0}, []string{"error inodes", "error space"}},
		{disk.Volume{Blocks: 1000, FreeBlocks: 50, Network: "NFS"}, []string{"warning network"}},
		{disk.Volume{Blocks: 1000, FreeBlocks: 50, Network: "FUSE"}, []string{"note network"}},
		{disk.Volume{}, nil},
	} {
		statVolume = func(string) (disk.Volume, error) { return v.Volume, nil }
		findings, _ := checked(t, dir)
		wantFindings(t, findings, dir, v.want...)
	}
	statVolume = func(string) (disk.Volume, error) { return disk.Volume{}, errors.ErrUnsupported }
	findings, _ := checked(t, dir)
	wantFindings(t, findings, dir)
	// The real one.
	if v, err := disk.VolumeOf(dir); err == nil && (v.Blocks == 0 || v.FreeBlocks > v.Blocks || v.FreeInodes > v.Inodes || v.BlockSize == 0) || err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("VolumeOf(%s) = %+v, %v", dir, v, err)
	}
}

func TestCheckReplaced(t *testing.T) {
	dir, _ := sessions(t, nil)
	put(t, dir, "old.json", "{")
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Rename(dir+".old", dir)); err != nil {
		skip.Test(t, "an open directory cannot be moved here: "+err.Error())
	}
	defer func(old func(string) (disk.Volume, error)) { statVolume = old }(statVolume)
	statVolume = func(string) (disk.Volume, error) { // a moment after it was opened
		if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700)); err != nil {
			t.Error(err)
		}
		put(t, dir, "new.json", "{")
		return disk.Volume{}, nil
	}
	findings, _ := checked(t, dir)
	wantFindings(t, findings, dir, "error replaced")
	wantFindings(t, findings, "old.json", "error corrupt")
	wantFindings(t, findings, "new.json")
}

// Everything that check can say fits in one line, and ends in a way that can be printed.
func TestCheckLines(t *testing.T) {
	dir, _ := sessions(t, nil)
	put(t, dir, "a.json", "{")
	put(t, dir, "b.json", `{"cookie":{}}`)
	kinds := map[string]bool{}
	for line := range strings.Lines(command(t, "", "check", "--dir", dir).out) {
		fields := strings.Fields(line)
		kinds[fields[1]] = true
		if !strings.HasSuffix(line, ".\n") || strings.Contains(line, "%!") {
			t.Errorf("check printed %q", line)
		}
	}
	want := []string{"corrupt", "flush", "summary", "undated"}
	if isWindows { // which has no flush for directories
		want = []string{"corrupt", "summary", "undated"}
	}
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, want) {
		t.Errorf("kinds are %q", got)
	}
}
