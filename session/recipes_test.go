package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// This file has the recipes of docs/RECIPES.md, to the letter, and runs them.

func loginAndRemember(s *session.Session, user string, remember bool) error {
	if err := s.Login(user); err != nil {
		return err
	}
	if remember {
		s.Cookie.OriginalMaxAge = 30 * 24 * time.Hour // after Login, which begins a new cookie
	}
	return nil
}

func noCrossOrigin(m *session.Manager, mux http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(m.Handler(mux))
}

func hostOnly(store session.Store, secret string) *session.Manager {
	return &session.Manager{
		Store: store, Secrets: []string{secret},
		Name:   "__Host-sid",
		Cookie: session.CookieOptions{Secure: session.SecureAlways},
	}
}

func TestAccount(t *testing.T) {
	m := &session.Manager{Store: sessiontest.NewStore(), Secrets: []string{"only for tests"}}
	r := sessiontest.Login(httptest.NewRequest("GET", "/account", nil), m, "anna", nil)
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(account)).ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Body.String() != "Hello, anna." {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func account(w http.ResponseWriter, r *http.Request) {
	user := session.From(r).User()
	if user == "" {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	fmt.Fprintf(w, "Hello, %s.", user)
}

func countExactly(r *http.Request, store *filestore.Store) error {
	return store.Update(r.Context(), session.From(r).ID(), func(s *filestore.Session) error { // it may run more than once
		n, err := filestore.Value[int](s, "views")
		if err != nil {
			return err
		}
		return s.Put("views", n+1)
	})
}

func recoveryCode(w http.ResponseWriter, r *http.Request) {
	if !session.From(r).Fresh(5 * time.Minute) {
		http.Redirect(w, r, "/confirm", http.StatusSeeOther) // a form; if the password is right it calls Login again
		return
	}
	fmt.Fprintln(w, "Your recovery code is 1234-5678.")
}

func afterPasswordChange(s *session.Session, user string) error {
	if err := s.Login(user); err != nil { // a new id: a copy of the cookie is worth nothing any more
		return err
	}
	_, err := s.EndOthers()
	return err
}

func ban(ctx context.Context, m *session.Manager, user string, markBanned func(string) error) error {
	if err := markBanned(user); err != nil { // first, so that nobody logs in behind EndAll
		return err
	}
	_, err := m.EndAll(ctx, user)
	return err
}

func loginUnlessBanned(s *session.Session, user string, isBanned func(string) bool) error {
	if err := s.Login(user); err != nil {
		return err
	}
	if isBanned(user) { // looked up after Login: before it, a ban could come between
		return errors.Join(errors.New("you cannot log in"), s.Logout())
	}
	return nil
}

func changeRole(s *session.Session, role string) error {
	if err := s.Put("role", role); err != nil {
		return err
	}
	return s.Renew() // a new id for the new rights; the values stay
}

func timeLeft(ttl time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		s.NoTouch() // to ask is not a use of the session
		left := time.Until(s.ExpiresAt(ttl))
		fmt.Fprintf(w, "%.0f seconds", max(0, left.Seconds()))
	}
}

func pollingDoesNotCount(r *http.Request) bool { // Manager.Prolongs
	return !strings.HasPrefix(r.URL.Path, "/poll/")
}

func stream(messages <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		s.NoTouch() // or an open page keeps its user logged in
		done := s.Done()
		w.Header().Set("Content-Type", "text/event-stream")
		for http.NewResponseController(w).Flush() == nil {
			select {
			case msg := <-messages:
				fmt.Fprintf(w, "data: %s\n\n", msg)
			case <-done: // the session has ended, or got a new id
				return
			case <-r.Context().Done():
				return
			}
		}
	}
}

func audit(ctx context.Context, e session.Event) { // Manager.OnEvent
	slog.InfoContext(ctx, "session "+string(e.Kind), "session", e.Handle, "user", e.User, "reason", e.Reason)
}

func besidePassport(store session.Store, secret string) *session.Manager {
	return &session.Manager{Store: store, Secrets: []string{secret}, User: "passport.user"}
}

func behindProxy(store session.Store, secret string) *session.Manager {
	return &session.Manager{
		Store: store, Secrets: []string{secret},
		TrustProxy: true,                                // X-Forwarded-Proto says whether the client came over TLS
		Path:       "/",                                 // the path here,
		Cookie:     session.CookieOptions{Path: "/app"}, // and in the browser
		Note: func(r *http.Request) session.Note {
			return session.Note{Agent: r.UserAgent(), Addr: session.Network(r.Header.Get("X-Real-IP"))}
		},
	}
}

func threeEach(store session.Store, secret string) *session.Manager {
	return &session.Manager{Store: store, Secrets: []string{secret}, MaxPerUser: 3}
}

func save(w http.ResponseWriter, r *http.Request) {
	if err := session.From(r).Flash("info", "Saved."); err != nil {
		http.Error(w, "Please try again.", http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther) // the session is stored before this leaves
}

func home(w http.ResponseWriter, r *http.Request) {
	messages, err := session.From(r).Flashes("info") // and they are gone
	if err != nil {
		http.Error(w, "Please try again.", http.StatusInternalServerError)
		return
	}
	for _, m := range messages {
		fmt.Fprintln(w, m)
	}
}

// visit runs h in a request of the session id, or of a new visitor if id is "". It returns
// the answer and the id that the session has then.
func visit(m *session.Manager, id string, h func(w http.ResponseWriter, r *http.Request)) (*httptest.ResponseRecorder, string) {
	r, w, after := httptest.NewRequest("GET", "https://example.com/", nil), httptest.NewRecorder(), ""
	if id != "" {
		r.AddCookie(&http.Cookie{Name: m.Name, Value: strings.TrimPrefix(signed(id), "connect.sid=")})
	}
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(w, r)
		after = session.From(r).ID()
	})).ServeHTTP(w, r)
	return w, after
}

// named is manager with a name, which visit wants.
func named(s session.Store) *session.Manager {
	m := manager(s)
	m.Name = "connect.sid"
	return m
}

func TestRecipeRemember(t *testing.T) {
	for remember, want := range map[bool]int{false: 0, true: 30 * 24 * 3600} {
		w, _ := visit(named(sessiontest.NewStore()), "", func(_ http.ResponseWriter, r *http.Request) {
			if err := loginAndRemember(session.From(r), "anna", remember); err != nil {
				t.Error(err)
			}
		})
		if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge != want {
			t.Errorf("remember %v: cookies %v", remember, c)
		}
	}
}

// visitsUntil logs anna in at m, and visits every so often, as a browser that drops a cookie when its time is over. It
// returns the time from the login to the last visit at which she is logged in, at most long, and the login's cookie.
func visitsUntil(t *testing.T, m *session.Manager, remember bool, every, long time.Duration) (time.Duration, *http.Cookie) {
	t.Helper()
	var cookie, first *http.Cookie
	var dropped time.Time
	var do http.HandlerFunc
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { do(w, r) })) // once, as in a program
	send := func(next http.HandlerFunc) {
		do = next
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		if cookie != nil && (dropped.IsZero() || time.Now().Before(dropped)) {
			r.AddCookie(cookie)
		}
		h.ServeHTTP(w, r)
		for _, c := range w.Result().Cookies() {
			if cookie, dropped = c, (time.Time{}); c.MaxAge > 0 {
				dropped = time.Now().Add(time.Duration(c.MaxAge) * time.Second)
			}
		}
	}
	began := time.Now()
	send(func(_ http.ResponseWriter, r *http.Request) {
		if err := loginAndRemember(session.From(r), "anna", remember); err != nil {
			t.Error(err)
		}
	})
	first = cookie
	for last := began; ; last = time.Now() {
		if time.Since(began) >= long {
			return last.Sub(began), first
		}
		time.Sleep(every)
		user := ""
		send(func(_ http.ResponseWriter, r *http.Request) { user = session.From(r).User() })
		if user == "" {
			return last.Sub(began), first
		}
	}
}

// The table "How long a login lasts" is true.
func TestRecipeLife(t *testing.T) {
	data, err := os.ReadFile("../docs/RECIPES.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "\n## How long a login lasts\n")
	table, _, _ = strings.Cut(table, "\n## ")
	const day, always = 24 * time.Hour, -1 // always: until the test has seen enough
	month, week := 30*day, 7*day
	for _, tt := range []struct {
		says     string // in the table
		store    filestore.Options
		manager  session.Manager
		remember bool
		every    time.Duration
		want     time.Duration // from the login to the last visit
		maxAge   time.Duration // of the login's cookie; 0 = it ends with the browser
	}{
		{says: "after an hour without a visit, or with the browser", every: 59 * time.Minute, want: always},
		{says: "after an hour without a visit, or with the browser", every: 61 * time.Minute},
		{says: `"a working day": ` + "`10 * time.Hour`", store: filestore.Options{TTL: 10 * time.Hour}, every: 9 * time.Hour, want: always},
		{says: `"a working day": ` + "`10 * time.Hour`", store: filestore.Options{TTL: 10 * time.Hour}, every: 11 * time.Hour},
		{says: "the time without a visit, in place of `TTL`", store: filestore.Options{TTL: time.Hour}, manager: session.Manager{Cookie: session.CookieOptions{MaxAge: month}, Rolling: true}, every: 29 * day, want: always, maxAge: month},
		{says: "the time without a visit, in place of `TTL`", store: filestore.Options{TTL: 100 * day}, manager: session.Manager{Cookie: session.CookieOptions{MaxAge: month}, Rolling: true}, every: 31 * day, maxAge: month},
		{says: "the `MaxAge` above", manager: session.Manager{Cookie: session.CookieOptions{MaxAge: 2 * day}}, every: day, want: day, maxAge: 2 * day},
		{says: `"30 days remembered", for who ticks a box`, manager: session.Manager{Rolling: true}, remember: true, every: 29 * day, want: always, maxAge: month},
		{says: "a cookie with a `MaxAge` is sent at the login, and when the session has changed", remember: true, every: day, want: 29 * day, maxAge: month},
		{says: `"at most a week however much it is used": ` + "`7 * 24 * time.Hour`", store: filestore.Options{Lifetime: week}, every: 45 * time.Minute, want: week - 45*time.Minute},
		{says: "No cookie outlives it", store: filestore.Options{Lifetime: week}, manager: session.Manager{Rolling: true}, remember: true, every: 2 * day, want: 6 * day, maxAge: week},
		{says: "Use moves the end on, past the date", manager: session.Manager{Rolling: true, Cookie: session.CookieOptions{Expires: time.Date(2000, 1, 11, 0, 0, 0, 0, time.UTC)}}, every: 9 * day, want: always, maxAge: 10 * day},
	} {
		if !strings.Contains(table, tt.says) {
			t.Errorf("the table does not say %q", tt.says)
		}
		synctest.Test(t, func(t *testing.T) { // which begins on January 1, 2000
			m := tt.manager
			m.Store, m.Secrets = openStore(t, tt.store), []string{secret}
			enough := max(3*tt.want, 5*tt.every)
			got, c := visitsUntil(t, &m, tt.remember, tt.every, enough)
			// The store may wait some milliseconds for a lock.
			if want := tt.want; want != got.Round(time.Minute) && (want != always || got < enough) {
				t.Errorf("%s: with a visit every %v the last is %v after the login, want %v", tt.says, tt.every, got, want)
			}
			if c.MaxAge != int(tt.maxAge.Seconds()) {
				t.Errorf("%s: the cookie is %v", tt.says, c)
			}
		})
	}
}

// A visit soon after the one before is not written, unless TouchAfter is negative.
func TestRecipeTouchAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "", -1: "anna"} {
		synctest.Test(t, func(t *testing.T) {
			m := named(openStore(t, filestore.Options{TouchAfter: after}))
			id := logIn(t, m, "anna")
			time.Sleep(35 * time.Second) // less than 1 % of an hour
			visit(m, id, none)
			time.Sleep(time.Hour - 10*time.Second)
			user := ""
			visit(m, id, func(_ http.ResponseWriter, r *http.Request) { user = session.From(r).User() })
			if user != want {
				t.Errorf("TouchAfter %v: 10 seconds before an hour after the last visit the user is %q, want %q", after, user, want)
			}
		})
	}
}

func TestRecipeCount(t *testing.T) {
	store, err := filestore.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	m := named(store)
	id := logIn(t, m, "anna")
	var requests sync.WaitGroup
	for range 10 {
		requests.Go(func() {
			visit(m, id, func(_ http.ResponseWriter, r *http.Request) {
				if err := countExactly(r, store); err != nil {
					t.Error(err)
				}
			})
		})
	}
	requests.Wait()
	if got := kept(t, store, id).Values["views"]; string(got) != "10" {
		t.Errorf("10 requests at once have counted %s", got)
	}
	visit(m, "", func(_ http.ResponseWriter, r *http.Request) {
		if err := countExactly(r, store); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("for a visitor: %v", err)
		}
	})
}

func TestRecipeCrossOrigin(t *testing.T) {
	h := noCrossOrigin(manager(sessiontest.NewStore()), http.HandlerFunc(none))
	for site, want := range map[string]int{"same-origin": 200, "cross-site": 403, "none": 200} {
		for method, want := range map[string]int{"POST": want, "GET": 200} {
			r, w := httptest.NewRequest(method, "/", nil), httptest.NewRecorder()
			r.Header.Set("Sec-Fetch-Site", site)
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s from %s = %d, want %d", method, site, w.Code, want)
			}
		}
	}
}

func TestRecipeManagers(t *testing.T) {
	store := sessiontest.NewStore()
	w, _ := visit(hostOnly(store, secret), "", func(_ http.ResponseWriter, r *http.Request) { session.From(r).Login("anna") })
	if c := w.Result().Cookies(); len(c) != 1 || c[0].Name != "__Host-sid" || !c[0].Secure || c[0].Path != "/" || c[0].Domain != "" {
		t.Errorf("cookies %v", c)
	}
	m := hostOnly(store, secret)
	m.Cookie.Path = "/app"
	if refused(m) == "" {
		t.Error("Handler does not panic")
	}

	// What Passport writes is found, and Login writes there.
	m = besidePassport(sessiontest.NewStore(), secret)
	sessiontest.Request(httptest.NewRequest("GET", "/", nil), m, map[string]any{"passport": map[string]any{"user": "anna"}})
	logIn(t, m, "anna")
	if got, err := m.Sessions(ctx, "anna"); err != nil || len(got) != 2 {
		t.Errorf("Sessions = %v, %v", got, err)
	}

	m = behindProxy(sessiontest.NewStore(), secret)
	r, rec := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	r.Header.Set("X-Forwarded-Proto", "https")
	r.Header.Set("X-Real-IP", "203.0.113.77")
	m.Handler(http.HandlerFunc(login)).ServeHTTP(rec, withQuery(r, "user=anna"))
	if c := rec.Result().Cookies(); len(c) != 1 || !c[0].Secure || c[0].Path != "/app" {
		t.Errorf("cookies %v", c)
	}
	if got, err := m.Sessions(ctx, "anna"); err != nil || len(got) != 1 || got[0].Note.Addr != "203.0.113.0/24" {
		t.Errorf("Sessions = %v, %v", got, err)
	}

	synctest.Test(t, func(t *testing.T) {
		m := threeEach(sessiontest.NewStore(), secret)
		first := logIn(t, m, "anna")
		for range 3 {
			time.Sleep(time.Second) // of two logins in one millisecond either can be the first
			logIn(t, m, "anna")
		}
		if got, err := m.Sessions(ctx, "anna"); err != nil || len(got) != 3 {
			t.Errorf("Sessions = %v, %v", got, err)
		}
		ended(t, m.Store, first, "after three more logins")
	})
}

func withQuery(r *http.Request, query string) *http.Request {
	r.URL.RawQuery = query
	return r
}

func TestRecipeFresh(t *testing.T) {
	m := named(sessiontest.NewStore())
	id := logIn(t, m, "anna")
	if w, _ := visit(m, id, recoveryCode); w.Code != http.StatusOK {
		t.Errorf("right after the login: %d", w.Code)
	}
	sess := kept(t, m.Store, id)
	sess.Put("__authenticated", time.Now().Add(-6*time.Minute).UnixMilli())
	if err := m.Store.Set(ctx, id, sess); err != nil {
		t.Fatal(err)
	}
	if w, _ := visit(m, id, recoveryCode); w.Code != http.StatusSeeOther {
		t.Errorf("six minutes after the login: %d", w.Code)
	}
}

func TestRecipePasswordChanged(t *testing.T) {
	m := named(sessiontest.NewStore())
	id, other, bert := logIn(t, m, "anna"), logIn(t, m, "anna"), logIn(t, m, "bert")
	_, after := visit(m, id, func(_ http.ResponseWriter, r *http.Request) {
		if err := afterPasswordChange(session.From(r), "anna"); err != nil {
			t.Error(err)
		}
	})
	ended(t, m.Store, id, "this session's old id")
	ended(t, m.Store, other, "another browser")
	kept(t, m.Store, after)
	kept(t, m.Store, bert)
}

func TestRecipeBan(t *testing.T) {
	m := named(sessiontest.NewStore())
	id := logIn(t, m, "anna")
	banned := false
	mark := func(string) error { banned = true; return nil }
	if err := ban(ctx, m, "anna", mark); err != nil {
		t.Fatal(err)
	}
	ended(t, m.Store, id, "after the ban")
	_, id = visit(m, "", func(_ http.ResponseWriter, r *http.Request) {
		if err := loginUnlessBanned(session.From(r), "anna", func(string) bool { return banned }); err == nil {
			t.Error("a banned user has logged in")
		}
	})
	ended(t, m.Store, id, "a login after the ban")
	_, id = visit(m, "", func(_ http.ResponseWriter, r *http.Request) {
		if err := loginUnlessBanned(session.From(r), "bert", func(string) bool { return false }); err != nil {
			t.Error(err)
		}
	})
	kept(t, m.Store, id)
}

// A ban that comes between the look and the login leaves no session either.
func TestRecipeBanDuringLogin(t *testing.T) {
	m := named(newStore(t))
	banned := false
	_, id := visit(m, "", func(_ http.ResponseWriter, r *http.Request) {
		loginUnlessBanned(session.From(r), "anna", func(string) bool {
			was := banned
			if err := ban(ctx, m, "anna", func(string) error { banned = true; return nil }); err != nil {
				t.Error(err)
			}
			return was
		})
	})
	ended(t, m.Store, id, "after a ban during the login")
}

func TestRecipeRole(t *testing.T) {
	m := named(sessiontest.NewStore())
	id := logIn(t, m, "anna")
	_, after := visit(m, id, func(_ http.ResponseWriter, r *http.Request) {
		if err := changeRole(session.From(r), "admin"); err != nil {
			t.Error(err)
		}
	})
	ended(t, m.Store, id, "the old id")
	if got := kept(t, m.Store, after).Values; string(got["role"]) != `"admin"` || string(got["user"]) != `"anna"` {
		t.Errorf("the session has %s", got)
	}
}

func TestRecipePolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessiontest.NewStore()
		m := named(s)
		m.Prolongs = pollingDoesNotCount
		id := logIn(t, m, "anna")
		time.Sleep(40 * time.Minute)
		for _, path := range []string{"/left", "/poll/left"} {
			h := timeLeft(s.TTL())
			if path == "/poll/left" {
				h = none
			}
			w := request(m, id, path, h)
			if path == "/left" && w.Body.String() != "1200 seconds" {
				t.Errorf("after 40 minutes of an hour: %s", w.Body)
			}
		}
		time.Sleep(20*time.Minute + time.Second)
		ended(t, s, id, "after an hour, in which only polls came")

		id = logIn(t, m, "anna")
		time.Sleep(40 * time.Minute)
		request(m, id, "/other", none)
		time.Sleep(40 * time.Minute)
		kept(t, s, id)
	})
}

func TestRecipeStream(t *testing.T) {
	m := named(newStore(t))
	id := logIn(t, m, "anna")
	messages := make(chan string)
	answered := make(chan string)
	go func() {
		w, _ := visit(m, id, stream(messages))
		answered <- w.Body.String()
	}()
	messages <- "one"
	if err := m.Store.Destroy(ctx, id); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-answered:
		if got != "data: one\n\n" {
			t.Errorf("the stream was %q", got)
		}
	case <-time.After(soon):
		t.Error("the stream does not end")
	}
}

func TestRecipeAudit(t *testing.T) {
	m := named(sessiontest.NewStore())
	m.OnEvent = audit
	got := logged(t, func() {
		id := logIn(t, m, "anna")
		visit(m, id, func(_ http.ResponseWriter, r *http.Request) { session.From(r).Logout() })
	})
	for _, want := range []string{"session logged in", "session logged out", "anna"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log has no %q:\n%s", want, got)
		}
	}
}

func TestRecipeFlash(t *testing.T) {
	m := named(sessiontest.NewStore())
	w, id := visit(m, logIn(t, m, "anna"), save)
	if w.Code != http.StatusSeeOther {
		t.Errorf("save = %d", w.Code)
	}
	for i, want := range []string{"Saved.\n", ""} {
		if w, _ := visit(m, id, home); w.Body.String() != want {
			t.Errorf("visit %d shows %q, want %q", i+1, w.Body, want)
		}
	}
}
