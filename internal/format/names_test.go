package format_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore/internal/format"
)

// No two kinds of names overlap, whatever the extension.
func TestNamesAreOneKind(t *testing.T) {
	names := []string{
		"a.json", "a.sess", "x.admin.json", "a.json.1234567890", "a.json.json", "a.json.1234567890.json", ".json", "json",
		format.Temp(), ".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", ".ABCDEFGHIJKLMNOPQRSTUVWXY1~", ".ABCDEFGHIJKLMNOPQRSTUVWXY~", "ABCDEFGHIJKLMNOPQRSTUVWXYZ~",
		".locks", "a.admin.json.1234567890", "1234567890", "1234567890.json", "-.json", "~a.json", "a~.json", "con.json", "CON.x.json", "a.", ".a", "", "a\x00.json", "ä.json",
	}
	for _, ext := range []format.Extension{".json", ".sess", ".admin.json", ".1", ".9.json"} {
		for _, name := range names {
			id, session := ext.ID(name)
			ours := format.IsTemp(name)
			_, node := ext.NodeTemp(name)
			kinds := 0
			for _, is := range []bool{session, ours, node, name == format.LockDir} {
				if is {
					kinds++
				}
			}
			if kinds > 1 {
				t.Errorf("%s: %q is a session: %v, ours: %v, Node's: %v", ext, name, session, ours, node)
			}
			if session && (ext.File(id) != name || !ext.ValidID(id) || !format.ValidID(id)) {
				t.Errorf("%s: %q is the session %q, whose file is %q", ext, name, id, ext.File(id))
			}
		}
	}
}

func TestExtension(t *testing.T) {
	for ext, want := range map[format.Extension]bool{
		".json": true, ".admin.json": true, "._-9": true, ".1234567890123456": true,
		"": false, "json": false, ".": false, ".a.b.c": false, ".12345678901234567": false, "..json": false, ".a/b": false, ".ä": false, ".json\n": false, ".json~": false,
	} {
		if got := ext.Valid(); got != want {
			t.Errorf("%q.Valid() = %v, %s", ext, got, format.ExtensionRule)
		}
	}
}

// What Windows could take for the short name of another file is not a session.
func TestShortNames(t *testing.T) {
	for name, want := range map[struct {
		id  string
		ext format.Extension
	}]bool{
		{"abcdef~1", ".ses"}: false, {"ABCDEF~1", ".SES"}: false, {"a~1", ".ses"}: false, {"gi7eba~1", ".ses"}: false, {"abcdef~1", ".s"}: false,
		{"abcdefg~1", ".ses"}: true, {"abcdefgh", ".ses"}: true, {"abc.d~1", ".ses"}: true,
		{"abcdef~1", ".sess"}: true, {"abcdef~1", ".json"}: true, {"abcdef~1", ".a.b"}: true,
	} {
		if got := name.ext.ValidID(name.id); got != want {
			t.Errorf("with the extension %s ValidID(%q) = %v, want %v", name.ext, name.id, got, want)
		}
	}
}

// A file in a directory of two stores belongs to one of them.
func TestClaim(t *testing.T) {
	const short, long = format.Extension(".json"), format.Extension(".admin.json")
	if short.Mark() != "" || long.Mark() != ".locks/ext.admin.json" {
		t.Errorf("marks %q, %q", short.Mark(), long.Mark())
	}
	for id, want := range map[string]string{"x.admin": long.Mark(), "a.b.admin": long.Mark(), "x": "", "admin": "", "x.other": ".locks/ext.other.json"} {
		if got := short.Claim(id); got != want {
			t.Errorf("Claim(%q) = %q, want %q", id, got, want)
		}
	}
}

// The lock files and the hash belong to the format: other programs rely on them.
func TestStripes(t *testing.T) {
	for id, want := range map[string]int{"": 0x05, "a": 0x2c, "foobar": 0x28} { // FNV-1a: 811c9dc5, e40c292c, bf9cf968
		if got := format.Stripe(id); got != want {
			t.Errorf("Stripe(%q) = %#x, want %#x", id, got, want)
		}
	}
	if first, last := format.LockFile(0), format.LockFile(format.Stripes-1); first != ".locks/00" || last != ".locks/3f" {
		t.Errorf("lock files %q to %q", first, last)
	}
}

// A temporary file is swept only if nobody can miss it.
func TestLeftover(t *testing.T) {
	now := time.Unix(1_795_000_000, 0)
	old, fresh, ahead := now.Add(-time.Hour), now.Add(-time.Hour+time.Second), now.Add(time.Hour)
	for _, tt := range []struct {
		name         string
		mtime, ctime time.Time
		want         bool
	}{
		{".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", ahead, old, true},
		{".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", old, fresh, false},
		{".ABCDEFGHIJKLMNOPQRSTUVWXYZ~", old, ahead, false},
		{".ABCDEFGHIJKLMNOPQRSTUVWXYZ", old, old, false},
		{".abcdefghijklmnopqrstuvwxyz~", old, old, false},
		{"id.json", old, old, false},
		{"id.json.3141592653", old, old, true},
		{"id.json.100000000", old, old, true},
		{"id.json.3141592653", fresh, old, false},   // its writer may live
		{"id.json.99999999", old, old, false},       // somebody's number
		{"id.json.0314159265", old, old, false},     // not a hash: those have no zero in front
		{"id.json.4294967296", old, old, false},     // more than 32 bits
		{"id.json.1795000000", old, old, false},     // dated
		{"id.json.1794920000", old, old, false},     // dated
		{"id.json.1794900000", old, old, true},      // more than a day off
		{"id.json.3141592653x", old, old, false},    // not a number
		{"id.sess.3141592653", old, old, false},     // another store's
		{"-/id.json.3141592653", old, old, false},   // not an id
		{"id.json.bak.3141592653", old, old, false}, // another extension
		{"id.json.", old, old, false},
		{".json.3141592653", old, old, false},
	} {
		if got := format.Extension(".json").Leftover(tt.name, tt.mtime, tt.ctime, now); got != tt.want {
			t.Errorf("Leftover(%q, %v ago) = %v", tt.name, now.Sub(tt.mtime), got)
		}
	}
}

func FuzzValidID(f *testing.F) {
	f.Add("2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx")
	f.Add("../etc/passwd")
	f.Add("aux.x")
	f.Fuzz(func(t *testing.T, id string) {
		if !format.ValidID(id) {
			return
		}
		if strings.ContainsAny(id, "/\\:*?\"<>|\x00") || strings.HasPrefix(id, ".") || strings.HasSuffix(id, ".") || len(id) > 200 || id == "" {
			t.Errorf("%q is valid", id)
		}
	})
}
