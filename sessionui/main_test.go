package sessionui_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

var ctx = context.Background()

// A yard is a store with an operator's page in front, and what the page has told.
type yard struct {
	t    testing.TB
	dir  string
	s    *filestore.Store
	page http.Handler

	mu     sync.Mutex
	log    bytes.Buffer
	events []session.Event
}

func newYard(t testing.TB, o sessionui.Options) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir()}
	var err error
	if y.s, err = filestore.Open(y.dir, &filestore.Options{ReapInterval: -1, NoSync: true, MaxSize: 4000}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.s.Close() })
	y.page = sessionui.Operator(y.s, y.options(o))
	return y
}

func (y *yard) options(o sessionui.Options) *sessionui.Options {
	o.Logger = slog.New(slog.NewTextHandler(y, nil))
	o.OnEvent = func(_ context.Context, e session.Event) {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.events = append(y.events, e)
	}
	return &o
}

// Write keeps the log.
func (y *yard) Write(p []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.log.Write(p)
}

func (y *yard) logged() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.log.String()
}

func (y *yard) told() []session.Event {
	y.mu.Lock()
	defer y.mu.Unlock()
	return slices.Clone(y.events)
}

// put stores a session that lives for a day.
func (y *yard) put(id string, members map[string]any) {
	y.t.Helper()
	put(y.t, y.s, id, members)
}

func put(t testing.TB, s session.Store, id string, members map[string]any) {
	t.Helper()
	sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 24 * time.Hour, HTTPOnly: true, Path: "/", SameSite: "lax"}}
	for name, v := range members {
		if err := sess.Put(name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Set(ctx, id, sess); err != nil {
		t.Fatal(err)
	}
}

// file writes what is no session, or a session that was accessed some time ago.
func (y *yard) file(id, data string) {
	y.t.Helper()
	if err := os.WriteFile(filepath.Join(y.dir, id+".json"), []byte(data), 0o600); err != nil {
		y.t.Fatal(err)
	}
}

func old(age time.Duration, members string) string {
	return fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000,"expires":null,"httpOnly":true,"path":"/"}%s,"__lastAccess":%d}`, members, time.Now().Add(-age).UnixMilli())
}

// An answer is what a handler has answered.
type answer struct {
	*httptest.ResponseRecorder
	body string
}

func do(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w, w.Body.String()}
}

func get(h http.Handler, target string) answer {
	return do(h, httptest.NewRequest("GET", target, nil))
}

// form is a POST as a browser sends it from the page itself.
func form(target string, values url.Values) *http.Request {
	r := httptest.NewRequest("POST", target, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// figure is what the page shows for a figure.
func (a answer) figure(name string) string {
	m := regexp.MustCompile(`data-figure="` + name + `">(.*?)</dd>`).FindStringSubmatch(a.body)
	if m == nil {
		return "no such figure"
	}
	return regexp.MustCompile(`<[^>]*>`).ReplaceAllString(m[1], "")
}

var handles = regexp.MustCompile(`<(?:tr|li)[^>]* data-session="([^"]*)"`)

// handles are those of the rows, in their order.
func (a answer) handles() (all []string) {
	for _, m := range handles.FindAllStringSubmatch(a.body, -1) {
		all = append(all, m[1])
	}
	return all
}

// row is the row or card of a session that holds a text, "" if there is none.
func (a answer) row(text string) string {
	for _, part := range regexp.MustCompile(`(?s)<(?:tr|li)[^>]* data-session=.*?</(?:tr|li)>`).FindAllString(a.body, -1) {
		if strings.Contains(part, text) {
			return part
		}
	}
	return ""
}

// handleOf is the handle of the session whose row holds a text.
func (a answer) handleOf(text string) string {
	if m := handles.FindStringSubmatch(a.row(text)); m != nil {
		return m[1]
	}
	return ""
}

// ids are the ids of the store's files.
func (y *yard) ids() (ids []string) {
	y.t.Helper()
	for id, err := range y.s.IDs(ctx) {
		if err != nil {
			y.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
