//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/skip"
)

// A planted object is named, nothing hangs, and nothing changes: neither with --fix, nor outside.
func TestCheckPlanted(t *testing.T) {
	dir, _ := sessions(t, nil)
	parent := filepath.Dir(dir)
	put(t, parent, "outside.json", document(time.Now(), "null", `,"user":"outside"`))
	put(t, parent, "linked.json", document(time.Now(), "null", ""))
	os.Chmod(filepath.Join(parent, "outside.json"), 0o644)
	os.Chmod(filepath.Join(parent, "linked.json"), 0o644)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket.json")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	plant := map[string]func(string) error{
		"absolute": func(p string) error { return os.Symlink(filepath.Join(parent, "outside.json"), p) },
		"relative": func(p string) error { return os.Symlink("../outside.json", p) },
		"inside":   func(p string) error { return os.Symlink("healthy.json", p) },
		"dangling": func(p string) error { return os.Symlink("../created.json", p) },
		"loop":     func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"zero":     func(p string) error { return os.Symlink("/dev/zero", p) },
		"tofifo":   func(p string) error { return os.Symlink("fifo.json", p) },
		"hard":     func(p string) error { return os.Link(filepath.Join(parent, "linked.json"), p) },
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o666) },
		"empty":    func(p string) error { return os.Mkdir(p, 0o777) },
		"full":     func(p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o777) },
	}
	want := map[string][]string{"socket.json": {"error unsafe"}}
	for id := range plant {
		want[id+".json"] = []string{"error unsafe"}
	}
	plant["sparse"] = func(p string) error {
		put(t, dir, "sparse.json", "{")
		return os.Truncate(p, 1<<40)
	}
	want["sparse.json"] = []string{"error too large"}
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		plant["device"] = func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, 1<<8|5) }
		want["device.json"] = []string{"error unsafe"}
	}
	for id, fn := range plant {
		if err := fn(filepath.Join(dir, id+".json")); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	for i, name := range []string{".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", ".BBCDEFGHIJKLMNOPQRSTUVWXYZ~", "x.json.3998329561", "y.json.3998329561"} {
		path := filepath.Join(dir, name)
		err := os.Symlink("../outside.json", path)
		if i%2 == 1 {
			os.Remove(path)
			err = syscall.Mkfifo(path, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		want[name] = []string{"warning unsafe"}
	}
	for _, err := range []error{syscall.Mkfifo(filepath.Join(dir, "FIFO"), 0o666), os.Symlink("/", filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "folder"), 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"FIFO", "link", "folder"} {
		want[name] = []string{"note foreign"}
	}
	old := time.Now().Add(-48 * time.Hour)
	for name := range want { // age excuses nothing
		unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), []unix.Timespec{unix.NsecToTimespec(old.UnixNano()), unix.NsecToTimespec(old.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW)
	}
	before := manifest(t, parent)
	for _, args := range [][]string{nil, {"--fix"}} {
		findings, _ := checked(t, dir, args...)
		for name, kinds := range want {
			wantFindings(t, findings, name, kinds...)
		}
		wantFindings(t, findings, "healthy.json")
		if len(findings) != len(want) {
			t.Errorf("%d findings, want %d: %+v", len(findings), len(want), findings)
		}
		wantSame(t, fmt.Sprintf("check %q", args), before, manifest(t, parent))
	}
	if strings.Contains(command(t, "", "check", "--dir", dir, "--full").out, "outside") {
		t.Error("check has read what a link leads to")
	}
}

func TestCheckModes(t *testing.T) {
	dir, _ := sessions(t, nil)
	now := time.Now()
	modes := map[fs.FileMode][]string{
		0o600: nil, 0o400: nil, 0o644: {"warning modes"}, 0o666: {"warning modes"}, 0o602: {"warning modes"},
		0o640: {"note modes"}, 0o660: {"note modes"}, 0o200: {"error unreadable"}, 0o000: {"error unreadable"},
	}
	name := func(mode fs.FileMode) string { return fmt.Sprintf("id%04o.json", mode) }
	for mode := range modes {
		put(t, dir, name(mode), document(now, "null", ""))
		os.Chmod(filepath.Join(dir, name(mode)), mode)
	}
	put(t, dir, "corrupt.json", "{")
	os.Chmod(filepath.Join(dir, "corrupt.json"), 0o644)
	before := manifest(t, dir)
	findings, _ := checked(t, dir)
	wantSame(t, "check", before, manifest(t, dir))
	for mode, kinds := range modes {
		wantFindings(t, findings, name(mode), kinds...)
	}
	wantFindings(t, findings, "corrupt.json", "error corrupt", "warning modes")

	findings, _ = checked(t, dir, "--fix")
	after := manifest(t, dir)
	for mode, kinds := range modes {
		path := filepath.Join(dir, name(mode))
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode&0o007 == 0 {
			if after[path] != before[path] {
				t.Errorf("--fix changed a file of mode %04o", mode)
			}
			wantFindings(t, findings, name(mode), kinds...)
			continue
		}
		wantFindings(t, findings, name(mode), "note modes")
		if fi.Mode() != 0o600 {
			t.Errorf("--fix made the mode %v of %04o", fi.Mode(), mode)
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != document(now, "null", "") {
			t.Errorf("--fix changed the contents of %s", path)
		}
		if !strings.Contains(fmt.Sprint(findings), fmt.Sprintf("fixed: mode set to 0600, it was %04o", mode)) {
			t.Errorf("--fix does not say what it did to %04o", mode)
		}
	}
	findings, _ = checked(t, dir)
	for mode := range modes {
		if mode&0o007 != 0 {
			wantFindings(t, findings, name(mode))
		}
	}
}

func TestCheckDirectory(t *testing.T) {
	dir, _ := sessions(t, nil)
	for mode, want := range map[fs.FileMode][]string{
		0o700: nil, 0o755: {"warning directory"}, 0o750: {"warning directory"}, 0o710: {"warning directory"},
		0o777: {"error directory"}, 0o770: {"error directory"}, 0o777 | fs.ModeSticky: {"warning directory"},
	} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		findings, _ := checked(t, dir, "--fix") // which is not for directories
		wantFindings(t, findings, dir, want...)
		if fi, err := os.Stat(dir); err != nil || fi.Mode()&^fs.ModeDir != mode {
			t.Errorf("the mode is %v, want %v", fi.Mode(), mode)
		}
	}
	os.Chmod(dir, 0o700)
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode][]string{0o777: {"error parent"}, 0o777 | fs.ModeSticky: nil, 0o775: nil} {
		os.Chmod(parent, mode)
		for _, name := range []string{dir, link} {
			findings, _ := checked(t, name)
			wantFindings(t, findings, parent, want...)
		}
	}
}

func TestCheckTemporaries(t *testing.T) {
	dir, _ := sessions(t, nil)
	const ours, node = ".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", "x.json.3998329561"
	keep := []string{"x.json.1234", "x.json.0998329561", "x.json.99999999999", "x.json.bak", "README"}
	for _, name := range append(keep, ours, node) {
		put(t, dir, name, "{")
	}
	dated := fmt.Sprintf("x.json.%d", time.Now().Unix())
	put(t, dir, dated, "{")
	past := time.Now().Add(-2 * time.Hour)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !e.IsDir() && e.Name() != "healthy.json" {
			os.Chtimes(filepath.Join(dir, e.Name()), past, past)
		}
	}
	// Nobody can set when a file was last changed, so the clock of the command goes ahead.
	check := func(ahead time.Duration, args ...string) []finding {
		t.Helper()
		var out, stderr bytes.Buffer
		a := &app{now: func() time.Time { return time.Now().Add(ahead) }, in: strings.NewReader(""), out: &output{w: &out}, err: &stderr, ctx: t.Context()}
		root := a.rootCommand()
		root.SetArgs(append([]string{"check", "--json", "--full", "--ttl", "9h", "--dir", dir}, args...))
		root.ExecuteContext(t.Context())
		var findings []finding
		for line := range strings.Lines(out.String()) {
			var f finding
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatal(err)
			}
			findings = append(findings, f)
		}
		return findings
	}
	before := manifest(t, dir)
	findings := check(0)
	wantFindings(t, findings, ours)
	wantFindings(t, findings, node, "warning temporary")
	findings = check(2 * time.Hour)
	for _, name := range []string{ours, node} {
		wantFindings(t, findings, name, "warning temporary")
	}
	for _, name := range append(keep, dated) {
		wantFindings(t, findings, name, "note foreign")
	}
	wantSame(t, "check", before, manifest(t, dir))

	findings = check(2*time.Hour, "--fix")
	wantFindings(t, findings, ours, "note temporary")
	wantFindings(t, findings, node, "note temporary")
	after := manifest(t, dir)
	for _, name := range []string{ours, node} {
		delete(before, filepath.Join(dir, name))
	}
	before[dir] = after[dir]
	wantSame(t, "check --fix", before, after)
}

func TestCheckLocks(t *testing.T) {
	for what, c := range map[string]struct {
		plant func(locks string) error
		on    string
		want  []string
		fixes bool
	}{
		"missing":     {func(l string) error { return os.RemoveAll(l) }, "", []string{"note locks"}, false},
		"file":        {func(l string) error { return errors.Join(os.RemoveAll(l), os.WriteFile(l, nil, 0o600)) }, "", []string{"error locks"}, false},
		"link":        {func(l string) error { return errors.Join(os.Rename(l, l+"2"), os.Symlink(".locks2", l)) }, "", []string{"error locks"}, false},
		"dangling":    {func(l string) error { return errors.Join(os.RemoveAll(l), os.Symlink("none", l)) }, "", []string{"error locks"}, false},
		"fifo":        {func(l string) error { return errors.Join(os.RemoveAll(l), syscall.Mkfifo(l, 0o600)) }, "", []string{"error locks"}, false},
		"mode":        {func(l string) error { return os.Chmod(l, 0o755) }, "", []string{"warning locks"}, true},
		"less":        {func(l string) error { return os.Remove(l + "/3f") }, "", []string{"note locks"}, false},
		"extra":       {func(l string) error { return os.WriteFile(l+"/40", nil, 0o600) }, "/40", []string{"note locks"}, false},
		"a directory": {func(l string) error { return errors.Join(os.Remove(l+"/00"), os.Mkdir(l+"/00", 0o700)) }, "/00", []string{"error locks"}, false},
		"a FIFO":      {func(l string) error { return errors.Join(os.Remove(l+"/00"), syscall.Mkfifo(l+"/00", 0o600)) }, "/00", []string{"error locks"}, false},
		"a link":      {func(l string) error { return errors.Join(os.Remove(l+"/00"), os.Symlink("01", l+"/00")) }, "/00", []string{"error locks"}, false},
		"linked":      {func(l string) error { return os.Link(l+"/00", l+"/../../name") }, "/00", []string{"error locks"}, false},
		"full":        {func(l string) error { return os.WriteFile(l+"/00", []byte("x"), 0o600) }, "/00", []string{"note locks"}, false},
		"file's mode": {func(l string) error { return os.Chmod(l+"/00", 0o644) }, "/00", []string{"warning locks"}, true},
	} {
		t.Run(what, func(t *testing.T) {
			dir, _ := sessions(t, nil)
			if err := c.plant(filepath.Join(dir, format.LockDir)); err != nil {
				t.Fatal(err)
			}
			before := manifest(t, filepath.Dir(dir))
			findings, _ := checked(t, dir)
			wantFindings(t, findings, format.LockDir+c.on, c.want...)
			wantSame(t, "check", before, manifest(t, filepath.Dir(dir)))
			findings, _ = checked(t, dir, "--fix")
			if !c.fixes {
				wantFindings(t, findings, format.LockDir+c.on, c.want...)
				wantSame(t, "check --fix", before, manifest(t, filepath.Dir(dir)))
				return
			}
			wantFindings(t, findings, format.LockDir+c.on, "note locks")
			findings, _ = checked(t, dir)
			if len(findings) != 0 {
				t.Errorf("after --fix: %+v", findings)
			}
		})
	}
}

// As root --fix leaves alone the files that are neither root's nor the directory's owner's.
func TestCheckOthersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "only root can give files away")
	}
	dir, _ := sessions(t, nil)
	const node = "x.json.3998329561"
	for _, name := range []string{"eves.json", node} {
		path := filepath.Join(dir, name)
		put(t, dir, name, document(time.Now(), "null", ""))
		past := time.Now().Add(-2 * time.Hour)
		if err := errors.Join(os.Chmod(path, 0o644), os.Chtimes(path, past, past), os.Chown(path, 65533, 65533)); err != nil {
			t.Fatal(err)
		}
	}
	before := manifest(t, dir)
	findings, _ := checked(t, dir, "--fix")
	wantFindings(t, findings, "eves.json", "note modes", "warning modes", "warning owner")
	wantFindings(t, findings, node, "note temporary", "warning temporary")
	wantSame(t, "check --fix", before, manifest(t, dir))
}

// What a user who may only read sees, and whom root's check speaks of.
func TestCheckOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		skip.Test(t, "only root can give files away")
	}
	const www, eve = 65534, 65533
	dir, _ := sessions(t, nil)
	put(t, dir, "unreadable.json", document(time.Now(), "null", ""))
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chown(path, www, www)) })
	put(t, dir, "roots.json", document(time.Now(), "null", ""))
	put(t, dir, "eves.json", document(time.Now(), "null", ""))
	os.Chmod(filepath.Join(dir, "eves.json"), 0o644)
	put(t, dir, format.LockDir+"/00", "")
	err = errors.Join(err, os.Chown(filepath.Join(dir, "eves.json"), eve, eve), os.Chown(filepath.Join(dir, format.LockDir, "00"), eve, eve))
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(dir, "healthy.json"), 0o644)
	before := manifest(t, filepath.Dir(dir))
	findings, _ := checked(t, dir)
	wantFindings(t, findings, "healthy.json", "warning modes")
	wantFindings(t, findings, "roots.json", "warning owner")
	wantFindings(t, findings, "eves.json", "error unsafe")
	wantFindings(t, findings, format.LockDir+"/00", "error locks")
	wantFindings(t, findings, "unreadable.json")
	wantSame(t, "check", before, manifest(t, filepath.Dir(dir)))
	if !strings.Contains(fmt.Sprint(findings), "it is user 65533's, the directory is user 65534's") {
		t.Errorf("check does not say whose: %+v", findings)
	}

	// As another user, from a copy of this program that they may run.
	bin := filepath.Join(t.TempDir(), "filestore")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", self, bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{bin, filepath.Dir(bin), filepath.Dir(filepath.Dir(bin)), dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before = manifest(t, dir)
	as := func(uid uint32, args ...string) []finding {
		t.Helper()
		cmd := exec.Command(bin, append([]string{"check", "--json", "--full", "--dir", dir}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			t.Fatalf("check as user %d: %v\n%s", uid, err, out)
		}
		var findings []finding
		for line := range strings.Lines(string(out)) {
			var f finding
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatal(err)
			}
			findings = append(findings, f)
		}
		return findings
	}
	findings = as(eve, "--fix")
	wantFindings(t, findings, "unreadable.json", "error unreadable")
	wantFindings(t, findings, "healthy.json", "note modes", "warning modes") // it is not theirs to change
	wantFindings(t, findings, dir, "note flush", "note owner", "warning directory")
	wantFindings(t, findings, format.LockDir, "error locks")
	wantSame(t, "check --fix as another user", before, manifest(t, dir))
	findings = as(www, "--fix")
	wantFindings(t, findings, "healthy.json", "note modes")
	wantFindings(t, findings, "roots.json", "error unreadable", "warning owner")
	wantFindings(t, findings, "eves.json", "error unsafe")
	after := manifest(t, dir)
	changed := slices.Collect(maps.Keys(after))
	changed = slices.DeleteFunc(changed, func(path string) bool { return after[path] == before[path] })
	if !slices.Equal(changed, []string{filepath.Join(dir, "healthy.json")}) || len(after) != len(before) {
		t.Errorf("check --fix as the owner changed %q", changed)
	}
}

// --fix leaves the mode of a file that is not the directory owner's, and of one that is not a session:
// somebody may need it.
func TestFixSpares(t *testing.T) {
	dir, _ := sessions(t, nil)
	mode := func(name string) fs.FileMode {
		t.Helper()
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode().Perm()
	}
	put(t, dir, "package.json", `{"name":"x","private":true}`)
	want := map[string]fs.FileMode{"healthy.json": 0o600, "package.json": 0o644}
	if os.Geteuid() == 0 {
		put(t, dir, "roots.json", document(time.Now(), "null", ""))
		want["roots.json"] = 0o644
		for _, name := range []string{".", "healthy.json", "package.json"} {
			if err := os.Chown(filepath.Join(dir, name), 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range want {
		os.Chmod(filepath.Join(dir, name), 0o644)
	}
	checked(t, dir, "--fix")
	for name, want := range want {
		if got := mode(name); got != want {
			t.Errorf("%s has the mode %04o, want %04o", name, got, want)
		}
	}
}

// A copy by hard links is one finding, which says what it is, and not one for each file.
func TestCheckLinkedCopy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	s, err := filestore.Open(dir, &filestore.Options{NoSync: true, ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 20 {
		if err := s.Set(t.Context(), fmt.Sprint("session-number-", i), new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "-al", dir, dir+".copy").CombinedOutput(); err != nil {
		skip.Test(t, fmt.Sprintf("cp -al: %v %s", err, out))
	}
	findings, code := checked(t, dir)
	n := 0
	for _, f := range findings {
		if f.Severity == severityError {
			n++
			if !strings.Contains(f.Detail, "20 sessions and 64 lock files") || !strings.Contains(f.Detail, "cp -al") || !strings.Contains(f.Advice, "cp -a,") {
				t.Errorf("%+v", f)
			}
		}
	}
	if n != 1 || code != exitWrong {
		t.Errorf("%d errors, exit code %d", n, code)
	}
	if err := os.RemoveAll(dir + ".copy"); err != nil {
		t.Fatal(err)
	}
	if findings, code := checked(t, dir); code != exitDone {
		t.Errorf("once the copy is removed: %+v", findings)
	}
}
