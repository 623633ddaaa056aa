package filestore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// Two loads of one cookie are equal with ==, in whatever zone its date is written.
func TestCookieZone(t *testing.T) {
	const zoned = `{"cookie":{"expires":"2030-01-01T05:30:00+05:30"}}`
	a, b := decode(t, zoned), decode(t, zoned)
	if a.Cookie != b.Cookie || !a.Cookie.Expires.Equal(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)) || encode(t, a) != zoned {
		t.Errorf("%+v, %+v", a.Cookie, b.Cookie)
	}
}

// A date counts as missing if its zone moves it out of the years with four digits. FuzzSession found it.
func TestCookieOddities(t *testing.T) {
	const far = `{"cookie":{"expires":"9999-12-31T23:59:59-23:59"}}`
	if s := decode(t, far); !s.Cookie.Expires.IsZero() || encode(t, s) != far {
		t.Errorf("%+v, written %s", s.Cookie, encode(t, s))
	}
}

// A cookie that has changed reads as what it was changed to, whatever text it was loaded from.
func TestChangedCookieReadsTheSame(t *testing.T) {
	fields := func(c filestore.Cookie) filestore.Cookie {
		return filestore.Cookie{OriginalMaxAge: c.OriginalMaxAge, Expires: c.Expires, HTTPOnly: c.HTTPOnly, Secure: c.Secure,
			Partitioned: c.Partitioned, Path: c.Path, Domain: c.Domain, SameSite: c.SameSite, Priority: c.Priority}
	}
	for _, text := range []string{
		`{}`, `{"path":null}`, `{"path":""}`, `{"path":false}`, `{"path":"/a","path":"/b"}`, `{ "path" : "\u002f" }`,
		`{"sameSite":true}`, `{"sameSite":false}`, `{"sameSite":"LAX"}`, `{"httpOnly":null}`, `{"httpOnly":0,"secure":1,"partitioned":"x"}`,
		`{"domain":null,"priority":7}`, `{"originalMaxAge":true}`, `{"originalMaxAge":60000,"path":null}`, `{"originalMaxAge":-1}`,
		`{"originalMaxAge":"5"}`, `{"expires":"soon"}`, `{"foo":[1]}`,
	} {
		s := decode(t, `{"cookie":`+text+`}`)
		if got := encode(t, s); !strings.Contains(got, text) {
			t.Errorf("%s is written as %s, though nothing has changed", text, got)
		}
		s.Cookie.Expires = time.UnixMilli(1_795_249_098_866).UTC()
		if got, want := fields(decode(t, encode(t, s)).Cookie), fields(s.Cookie); got != want {
			t.Errorf("%s, changed, is read as %+v, want %+v", text, got, want)
		}
	}
}

// C10: when a session expires, as "When a session ends" in docs/FORMAT.md says.
func TestExpiry(t *testing.T) {
	const ttl = 1000
	for _, tt := range []struct {
		maxAge string
		life   float64 // milliseconds after the last access; 0 = expired at once
	}{
		{"null", ttl}, {"false", ttl}, {"0", ttl}, {"-0", ttl}, {`"5000"`, ttl}, {`""`, ttl}, {"{}", ttl}, {"[]", ttl},
		{"5000", 5000}, {"1", 1}, {"1500.75", 1500.75}, {"true", 1}, {"-1", 0}, {"-1e300", 0}, {"-0.5", 0},
		{"1e18", 9.2e12}, {"1e400", 9.2e12}, {"9223372036854775807", 9.2e12}, {"9223372036854.775807", 9.2e12},
	} {
		base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		s := decode(t, fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":"2000-01-01T00:00:00.000Z"},"__lastAccess":%d}`, tt.maxAge, base.UnixMilli()))
		got := float64(s.ExpiresAt(ttl*time.Millisecond).Sub(base)) / 1e6
		switch {
		case tt.life == 0 && got >= 0, tt.life > 9e12 && got < 9e12, tt.life > 0 && tt.life < 9e12 && got != tt.life:
			t.Errorf("originalMaxAge %s: lives %v ms, want %v", tt.maxAge, got, tt.life)
		}
	}
	// At its very end a session is alive, and a millisecond later it is not.
	dir := t.TempDir()
	opts := quick()
	opts.TTL = 10 * time.Second
	s := open(t, dir, opts)
	for range 20 {
		ms := nowMs()
		write(t, dir, "id.json", doc(ms-10_000, ""))
		_, err := s.Get(ctx, "id")
		if now := nowMs(); now == ms && err != nil {
			t.Errorf("exactly the TTL after the last access: %v", err)
		}
		write(t, dir, "id.json", doc(nowMs()-10_001, ""))
		_, err = s.Get(ctx, "id")
		wantErr(t, "Get a millisecond later", err, filestore.ErrExpired)
	}
	// A negative TTL ends sessions without a maxAge at once.
	opts.TTL = -1
	s = open(t, dir, opts)
	write(t, dir, "ttl.json", doc(nowMs()+1000, ""))
	_, err := s.Get(ctx, "ttl")
	wantErr(t, "Get with a negative TTL", err, filestore.ErrExpired)
	write(t, dir, "own.json", strings.Replace(doc(nowMs(), ""), "null", "60000", 1))
	get(t, s, "own")
	readFile(t, dir, "ttl.json") // the file stays
}
