package interop

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

const samples = "../../testdata/npm"

// A sample is a file that the npm packages wrote, with the facts that were seen at the same time.
type sample struct {
	Dir      string
	File     string
	SID      string
	Captures []struct {
		Step      string
		SetCookie []string
		File      []byte // base64 in the manifest
	}
	LastAccess int64 `json:"__lastAccess"`
	ExpiresAt  int64 `json:"expiresAtMsWithTtl3600"`
	Express    struct {
		Cookie map[string]any
	} `json:"expressSessionOptions"`
}

func manifest(t *testing.T) (all []sample, cookieSecret string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(samples, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		CookieSecret string
		Samples      []sample
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m.Samples, m.CookieSecret
}

// Go reads every file that Node wrote, judges it by the rule of Node, and writes it again byte for byte.
// This needs no Node.
func TestSamples(t *testing.T) {
	t.Parallel()
	all, _ := manifest(t)
	if len(all) != 14 {
		t.Errorf("%d samples in the manifest, want 14", len(all))
	}
	for _, s := range all {
		t.Run(s.Dir, func(t *testing.T) {
			text := read(t, samples, s.File)
			sess := checkText(t, text)
			if got := sess.LastAccess.UnixMilli(); got != s.LastAccess {
				t.Errorf("LastAccess = %d, want %d", got, s.LastAccess)
			}
			if got := sess.ExpiresAt(time.Hour).UnixMilli(); got != s.ExpiresAt {
				t.Errorf("ExpiresAt(1h) = %d, want %d", got, s.ExpiresAt)
			}
			for _, c := range s.Captures {
				checkText(t, string(c.File))
			}
			if c := s.Captures; len(c) > 0 && string(c[len(c)-1].File) != text {
				t.Errorf("the file differs from its last capture")
			}
		})
	}
	baks, err := filepath.Glob(filepath.Join(samples, "*", "*.bak"))
	if err != nil || len(baks) != 4 {
		t.Errorf("Glob(*.bak) = %q, %v, want 4 names", baks, err)
	}
	for _, name := range baks {
		checkText(t, read(t, filepath.Dir(name), filepath.Base(name)))
	}
}

// checkText decodes text, encodes it again and compares.
func checkText(t *testing.T, text string) *filestore.Session {
	t.Helper()
	sess := new(filestore.Session)
	if err := sess.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatalf("UnmarshalJSON(%s) = %v", text, err)
	}
	got, err := sess.MarshalJSON()
	if err != nil {
		t.Fatalf("MarshalJSON() = %v", err)
	}
	if string(got) != text {
		t.Errorf("MarshalJSON() = %s\nwant %s", got, text)
	}
	return sess
}

// The samples have these values for a Go program.
func TestSampleValues(t *testing.T) {
	t.Parallel()
	get := func(dir string) *filestore.Session {
		t.Helper()
		all, _ := manifest(t)
		for _, s := range all {
			if strings.HasPrefix(s.Dir, dir) {
				return checkText(t, read(t, samples, s.File))
			}
		}
		t.Fatalf("no sample %s", dir)
		return nil
	}
	day := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	plain := filestore.Cookie{HTTPOnly: true, Path: "/"}
	for _, test := range []struct {
		name, sample string
		want         filestore.Cookie
	}{
		{"01 no maxAge", "01", plain},
		{"02 maxAge", "02", filestore.Cookie{OriginalMaxAge: time.Hour, Expires: day("2026-11-21T09:18:18.902Z"), HTTPOnly: true, Path: "/"}},
		{"02 all attributes", "03", filestore.Cookie{OriginalMaxAge: 24 * time.Hour, Expires: day("2026-11-22T08:18:18.928Z"), HTTPOnly: true,
			Partitioned: true, Path: "/", Domain: "example.com", SameSite: "lax", Priority: "high"}},
		{"02 sameSite true", "04", filestore.Cookie{Path: "/", SameSite: "strict"}},
		{"02 expires false", "05", plain},
		{"34 without an extension", "12", plain}, // Options.Extension "" means ".json": such a file can only be decoded
		{"48 express-session 1.17", "22", filestore.Cookie{OriginalMaxAge: time.Minute, Expires: day("2026-11-21T08:19:24.768Z"), HTTPOnly: true,
			Secure: true, Path: "/", Domain: "example.com", SameSite: "lax"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sess := get(test.sample)
			if !sameCookie(sess.Cookie, test.want) {
				t.Errorf("Cookie = %+v, want %+v", sess.Cookie, test.want)
			}
			if views, err := filestore.Value[int](sess, "views"); views != 1 || err != nil {
				t.Errorf("Value(views) = %d, %v, want 1", views, err)
			}
		})
	}
	t.Run("06 rich values", func(t *testing.T) {
		sess := get("10")
		for key, want := range map[string]string{
			"unicode": "açaí 日本 😀",
			"ls":      "\u2028\u2029",
			"ctl":     "\x00\x01\b\t\n\f\r\x1f\x7f",
			"html":    `<script>&"\/'`,
			"lone":    "\ufffd", // strings in Go cannot hold surrogates; the file keeps it
			"date":    "1970-01-01T00:00:00.000Z",
			"2":       "two",
			"empty":   "",
		} {
			if got, err := filestore.Value[string](sess, key); got != want || err != nil {
				t.Errorf("Value(%s) = %q, %v, want %q", key, got, err, want)
			}
		}
		for key, want := range map[string]float64{"f": 1.5, "big": 9007199254740991, "e21": 1e21, "small": 1e-7, "neg": 0} {
			if got, err := filestore.Value[float64](sess, key); got != want || err != nil {
				t.Errorf("Value(%s) = %v, %v, want %v", key, got, err, want)
			}
		}
		if got := string(sess.Values["lone"]); got != `"\ud800"` {
			t.Errorf("Values[lone] = %s, want the escape as it stood", got)
		}
		if got := string(sess.Values["cookieInside"]); got != `{"cookie":{"originalMaxAge":1}}` || sess.Cookie.OriginalMaxAge != 0 {
			t.Errorf("a nested cookie was taken for the session's: %s, %+v", got, sess.Cookie)
		}
	})
}

// sameCookie compares the fields that Go has.
func sameCookie(a, b filestore.Cookie) bool {
	return a.OriginalMaxAge == b.OriginalMaxAge && a.Expires.Equal(b.Expires) && a.HTTPOnly == b.HTTPOnly && a.Secure == b.Secure &&
		a.Partitioned == b.Partitioned && a.Path == b.Path && a.Domain == b.Domain && a.SameSite == b.SameSite && a.Priority == b.Priority
}
