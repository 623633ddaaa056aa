package sessiontest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(*testing.T) session.Store { return sessiontest.NewStore() })
}

func TestFilestore(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]filestore.Options{"": {}, " without flush and cache": {NoSync: true, CacheSize: -1}} {
		t.Run("filestore"+name, func(t *testing.T) {
			t.Parallel()
			sessiontest.Run(t, func(t *testing.T) session.Store {
				s, err := filestore.Open(t.TempDir(), &o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			})
		})
	}
}

// three has only what a session.Store must have.
type three struct{ s *sessiontest.Store }

func (s three) Get(ctx context.Context, id string) (*filestore.Session, error) {
	return s.s.Get(ctx, id)
}
func (s three) Set(ctx context.Context, id string, sess *filestore.Session) error {
	return s.s.Set(ctx, id, sess)
}
func (s three) Destroy(ctx context.Context, id string) error { return s.s.Destroy(ctx, id) }

func TestThreeMethods(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(*testing.T) session.Store { return three{sessiontest.NewStore()} })
}

// Request serves any Manager: whatever its name, its path and its cookie.
func TestRequest(t *testing.T) {
	for name, m := range map[string]*session.Manager{
		"plain":  {},
		"secure": {Name: "__Host-sid", Cookie: session.CookieOptions{Secure: session.SecureAlways, SameSite: http.SameSiteStrictMode}},
		"path":   {Cookie: session.CookieOptions{Path: "/app", MaxAge: time.Hour}},
		"served": {Path: "/app", Cookie: session.CookieOptions{Path: "/x"}},
	} {
		m.Store, m.Secrets = sessiontest.NewStore(), []string{"keyboard cat", "an older one"}
		for _, values := range []map[string]any{{"user": "anna", "n": 1}, nil} {
			r := sessiontest.Request(httptest.NewRequest("POST", "/app/x", nil), m, values)
			w := httptest.NewRecorder()
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r)
				user, err := session.Value[string](s, "user")
				_, saved := m.Store.Get(r.Context(), s.ID())
				fmt.Fprint(w, user, " ", len(s.Values), " ", err, " ", saved)
			})).ServeHTTP(w, r)
			want := "anna 2 <nil> <nil>"
			if values == nil {
				want = " 0 <nil> <nil>"
			}
			if w.Body.String() != want {
				t.Errorf("%s: %q, want %q", name, w.Body, want)
			}
		}
	}
}
