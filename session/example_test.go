package session_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/session/sessiontest"
)

// MemoryStore has the three methods that the middleware needs.
type MemoryStore struct {
	TTL time.Duration

	mu       sync.Mutex
	sessions map[string]*filestore.Session
}

func (m *MemoryStore) Get(_ context.Context, id string) (*filestore.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	if !ok || s.ExpiresAt(m.TTL).Before(time.Now()) {
		delete(m.sessions, id)
		return nil, filestore.ErrNotFound
	}
	return s, nil
}

func (m *MemoryStore) Set(_ context.Context, id string, s *filestore.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions == nil {
		m.sessions = make(map[string]*filestore.Session)
	}
	m.sessions[id] = s
	return nil
}

func (m *MemoryStore) Destroy(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, id)
	return nil
}

func ExampleStore() {
	sessions := &session.Manager{Store: &MemoryStore{TTL: time.Hour}, Secrets: []string{"keyboard cat"}}
	_ = sessions.Handler(http.NotFoundHandler())
}

// A site with a login, "remember me", a flash message and a logout.
func ExampleManager() {
	store, err := filestore.Open("./sessions", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	sessions := &session.Manager{Store: store, Secrets: []string{"keyboard cat"}}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		if err := s.Login("anna"); err != nil { // under a new id
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		if r.FormValue("remember") != "" {
			s.Cookie.OriginalMaxAge = 30 * 24 * time.Hour
		}
		s.Flash("info", "Welcome back.")
		http.Redirect(w, r, "/", http.StatusSeeOther) // the session is stored before this leaves
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Logout(); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		messages, _ := s.Flashes("info")
		fmt.Fprintln(w, s.User(), messages)
	})
	log.Fatal(http.ListenAndServe("localhost:8000", sessions.Handler(mux)))
}

// newVisitor returns a function that sends requests to h with a browser's cookies.
func newVisitor(h http.Handler) func(method, path string) string {
	var cookies []*http.Cookie
	return func(method, path string) string {
		r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
		for _, c := range cookies {
			r.AddCookie(c)
		}
		h.ServeHTTP(w, r)
		if set := w.Result().Cookies(); len(set) > 0 {
			cookies = set
		}
		return w.Body.String()
	}
}

// Login gives the session a new id, so that nobody can have planted it, and keeps its values.
func ExampleSession_Login() {
	sessions := &session.Manager{Store: sessiontest.NewStore(), Secrets: []string{"keyboard cat"}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		session.From(r).Put("cart", []string{"tea"})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		was := s.ID()
		if err := s.Login("anna"); err != nil { // after the password was checked
			http.Error(w, "Please try again.", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "a new id: %v", s.ID() != was)
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r)
		cart, _ := session.Value[[]string](s, "cart")
		fmt.Fprintf(w, "user %q, cart %q", s.User(), cart)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Logout(); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
		}
	})
	send := newVisitor(sessions.Handler(mux))
	send("POST", "/cart")
	fmt.Println(send("GET", "/"))
	fmt.Println(send("POST", "/login"))
	fmt.Println(send("GET", "/"))
	send("POST", "/logout")
	fmt.Println(send("GET", "/"))
	// Output:
	// user "", cart ["tea"]
	// a new id: true
	// user "anna", cart ["tea"]
	// user "", cart []
}

// A page "your devices": the sessions of a user in all browsers, and a way to end them.
func ExampleManager_Sessions() {
	sessions := &session.Manager{
		Store: sessiontest.NewStore(), Secrets: []string{"keyboard cat"},
		Note: func(r *http.Request) session.Note { return session.Note{Agent: r.FormValue("agent")} }, // a real site takes r.UserAgent()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r).Login("anna"); err != nil {
			http.Error(w, "Please try again.", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /devices", func(w http.ResponseWriter, r *http.Request) {
		list, err := sessions.Sessions(r.Context(), session.From(r).User())
		if err != nil {
			http.Error(w, "Please log in.", http.StatusUnauthorized)
			return
		}
		for _, s := range list {
			fmt.Fprintf(w, "%s (this one: %v)\n", s.Note.Agent, s.Current)
		}
	})
	mux.HandleFunc("POST /others/end", func(w http.ResponseWriter, r *http.Request) {
		n, err := session.From(r).EndOthers()
		fmt.Fprintln(w, "ended:", n, err)
	})
	phone, laptop := newVisitor(sessions.Handler(mux)), newVisitor(sessions.Handler(mux))
	phone("POST", "/login?agent=phone")
	time.Sleep(5 * time.Millisecond) // the list is in the order of the logins, by the millisecond
	laptop("POST", "/login?agent=laptop")
	fmt.Print(phone("GET", "/devices"))
	fmt.Print(laptop("POST", "/others/end"))
	fmt.Print(laptop("GET", "/devices"))
	fmt.Print(phone("GET", "/devices"))
	// Output:
	// laptop (this one: false)
	// phone (this one: true)
	// ended: 1 <nil>
	// laptop (this one: true)
	// Please log in.
}
