package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

// lives has, by name, options of a Store, a session, and how long it lives with them.
var lives = map[string]struct {
	o    filestore.Options
	sess filestore.Session
	life time.Duration
}{
	"ttl of a second":    {filestore.Options{TTL: time.Second}, filestore.Session{}, time.Second},
	"ttl of two seconds": {filestore.Options{TTL: 2 * time.Second, TouchAfter: -1}, filestore.Session{}, 2 * time.Second},
	"ttl of an hour":     {filestore.Options{}, filestore.Session{}, time.Hour},
	"touches spared":     {filestore.Options{TTL: time.Minute, TouchAfter: 29 * time.Second}, filestore.Session{}, time.Minute},
	"maxAge":             {filestore.Options{}, filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 5 * time.Second, Path: "/"}}, 5 * time.Second},
}

// A request that is under way keeps its session alive. An event stream logged its user out, because
// the session was only touched when the stream closed.
func TestStreamKeepsItsSession(t *testing.T) {
	for name, l := range lives {
		for _, age := range storetest.Brief([]float64{0.3, 0.99}, []float64{0, 0.3, 0.75, 0.99}) { // how much of the life has passed at the arrival
			t.Run(fmt.Sprint(name, " ", age), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, l.o)
					if err := s.Set(ctx, "id", &l.sess); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(age * float64(l.life)))
					w := request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
						w.(http.Flusher).Flush()
						for range storetest.Brief(22, 100) {
							time.Sleep(l.life / 20)
							if _, err := s.Reap(ctx); err != nil {
								t.Fatal(err)
							}
							if _, err := s.Get(ctx, "id"); err != nil {
								t.Fatalf("the session ended beside the stream: Get = %v", err)
							}
						}
					})
					if w.Code != 200 {
						t.Errorf("status %d, want 200", w.Code)
					}
				})
			})
		}
	}
}

// The changes of a request that came in time are stored, however long it takes. The answer was 500, or,
// if the reaper came first, 200 although nothing was stored.
func TestSlowRequestIsStored(t *testing.T) {
	for name, l := range lives {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, l.o)
				if err := s.Set(ctx, "id", &l.sess); err != nil {
					t.Fatal(err)
				}
				time.Sleep(l.life * 3 / 4)
				w := request(manager(s), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
					for range storetest.Brief(15, 50) {
						time.Sleep(l.life / 10)
						s.Reap(ctx)
					}
					put(w, r)
				})
				sess, err := s.Get(ctx, "id")
				if w.Code != 200 || err != nil || string(sess.Values["a"]) != `"1"` {
					t.Errorf("status %d, stored %v, %v, want 200 and a = \"1\"", w.Code, sess, err)
				}
			})
		})
	}
}

// The arrival is the access: an hour's work on one page does not prolong the session by an hour.
func TestArrivalIsTheAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TouchAfter: -1})
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		arrived := time.Now()
		request(manager(s), "id", "/", func(http.ResponseWriter, *http.Request) { time.Sleep(40 * time.Minute) })
		sess, err := s.Get(ctx, "id")
		if err != nil {
			t.Fatal(err)
		}
		if d := sess.LastAccess.Sub(arrived); d < 0 || d > time.Second {
			t.Errorf("the last access is %v after the arrival, want at most a second", d)
		}
	})
}

// A logout beside a slow request wins, however often that request has kept the session alive.
func TestLogoutBesideStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: 2 * time.Second})
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		m := manager(s)
		w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(7 * time.Second)
			request(m, "id", "/", destroy)
			time.Sleep(7 * time.Second)
			put(w, r)
		})
		if _, err := s.Get(ctx, "id"); w.Code != 200 || !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("status %d, Get = %v, want 200 and ErrNotFound: the logout stands", w.Code, err)
		}
	})
}

// If a change is lost, the answer is not 200, unless somebody logged out. Here nothing keeps the session
// alive, because the Store cannot touch it, or fails to.
func TestLostChangeIsTold(t *testing.T) {
	for _, how := range []string{"no Toucher", "failing Touch", "maxAge, no Lifer"} {
		for _, reap := range []bool{false, true} {
			for _, change := range []bool{false, true} {
				t.Run(fmt.Sprint(how, " reap ", reap, " change ", change), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := openStore(t, filestore.Options{TTL: time.Minute})
						sess := new(filestore.Session)
						var store session.Store = struct {
							session.Store
							session.Lifer
						}{s, s}
						switch how {
						case "failing Touch":
							rec := &recorder{Store: s}
							rec.failOn("touch", errors.New("no"))
							store = rec
						case "maxAge, no Lifer":
							store = three{s}
							sess.Cookie.OriginalMaxAge = time.Minute
						}
						if err := s.Set(ctx, "id", sess); err != nil {
							t.Fatal(err)
						}
						w := request(manager(store), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
							time.Sleep(2 * time.Minute)
							if reap {
								s.Reap(ctx)
							}
							if change {
								put(w, r)
							}
						})
						if want := map[bool]int{true: 500, false: 200}[change]; w.Code != want || w.Header().Get("Set-Cookie") != "" {
							t.Errorf("status %d, want %d, cookie %q", w.Code, want, w.Header().Get("Set-Cookie"))
						}
					})
				})
			}
		}
	}
}

// The beats of a request end with it, even if it panics.
func TestBeatsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &recorder{Store: openStore(t, filestore.Options{TTL: time.Second})}
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { recover() }()
			request(manager(s), "id", "/", func(http.ResponseWriter, *http.Request) {
				time.Sleep(3 * time.Second)
				panic(http.ErrAbortHandler)
			})
		}()
		s.take()
		time.Sleep(time.Minute)
		if calls := s.take(); calls != "" {
			t.Errorf("the store is called after the request: %s", calls)
		}
	})
}

// A session is kept alive, whatever happens to it under the request.
func TestWhoIsKeptAlive(t *testing.T) {
	type tc struct {
		o      filestore.Options
		sess   *filestore.Session // nil if the request brings none
		maxAge time.Duration
		act    func(w http.ResponseWriter, r *http.Request, m *session.Manager)
		life   time.Duration
	}
	for name, tt := range map[string]tc{
		"new session": {filestore.Options{TTL: time.Minute}, nil, 0, func(w http.ResponseWriter, r *http.Request, _ *session.Manager) { put(w, r) }, time.Minute},
		"new session, regenerate": {filestore.Options{TTL: time.Minute}, nil, 0, func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			put(w, r)
			session.From(r).Save()
			regenerate(w, r)
		}, time.Minute},
		"regenerate to a shorter life": {filestore.Options{}, &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 30 * 24 * time.Hour, Path: "/"}}, time.Minute,
			func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
				time.Sleep(2 * time.Second)
				regenerate(w, r)
				put(w, r)
			}, time.Minute},
		"regenerate, same life": {filestore.Options{TTL: time.Minute}, &filestore.Session{}, 0,
			func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
				time.Sleep(20 * time.Second)
				regenerate(w, r)
				put(w, r)
			}, time.Minute},
		"destroy, beat, regenerate": {filestore.Options{TTL: time.Minute}, &filestore.Session{}, 0,
			func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
				destroy(w, r)
				time.Sleep(5 * time.Second)
				regenerate(w, r)
				put(w, r)
			}, time.Minute},
		"handler shortens": {filestore.Options{}, &filestore.Session{}, 0,
			func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
				time.Sleep(2 * time.Second)
				session.From(r).Cookie.OriginalMaxAge = 10 * time.Second
				put(w, r)
			}, 10 * time.Second},
		"another shortens": {filestore.Options{}, &filestore.Session{}, 0,
			func(w http.ResponseWriter, r *http.Request, m *session.Manager) {
				time.Sleep(2 * time.Second)
				request(m, session.From(r).ID(), "/", func(w http.ResponseWriter, r *http.Request) {
					session.From(r).Cookie.OriginalMaxAge = 10 * time.Second
				})
			}, 10 * time.Second},
		"reload": {filestore.Options{TTL: time.Minute}, &filestore.Session{}, 0,
			func(w http.ResponseWriter, r *http.Request, m *session.Manager) { session.From(r).Reload() }, time.Minute},
	} {
		for _, flush := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " flush ", flush), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, tt.o)
					m := manager(s)
					m.Cookie.MaxAge = tt.maxAge
					var told []error
					m.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) { told = append(told, err) }
					r := httptest.NewRequest("GET", "/?a=1", nil)
					if tt.sess != nil {
						s.Set(ctx, "id", tt.sess)
						r.Header.Set("Cookie", signed("id"))
					}
					w := httptest.NewRecorder()
					died := ""
					m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						tt.act(w, r, m)
						if flush {
							w.(http.Flusher).Flush()
						} else if err := session.From(r).Save(); err != nil {
							t.Errorf("Save = %v", err)
						}
						id := session.From(r).ID()
						start := time.Now()
						for range storetest.Brief(22, 100) {
							time.Sleep(tt.life / 10)
							s.Reap(ctx)
							if _, err := s.Get(ctx, id); err != nil && died == "" {
								died = fmt.Sprint(time.Since(start), " ", err)
							}
						}
						session.From(r).Put("late", 1)
					})).ServeHTTP(w, r)
					if died != "" {
						t.Errorf("the session died under the request after %s; then a Put: status %d, ErrorFunc got %v", died, w.Code, told)
					}
				})
			})
		}
	}
}

type failOnce struct {
	*filestore.Store
	n, at int
}

func (s *failOnce) Touch(ctx context.Context, id string, c *filestore.Cookie) error {
	if s.n++; s.n == s.at {
		return filestore.ErrLockTimeout
	}
	return s.Store.Touch(ctx, id, c)
}

// The session survives one Touch that fails.
func TestTouchFailsOnce(t *testing.T) {
	for _, at := range []int{1, 2, 3, 5} {
		for _, life := range []time.Duration{time.Second, time.Hour} {
			for _, age := range storetest.Brief([]float64{.75}, []float64{0, .75}) {
				t.Run(fmt.Sprint(at, life, age), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := &failOnce{Store: openStore(t, filestore.Options{TTL: life}), at: at}
						s.Set(ctx, "id", new(filestore.Session))
						time.Sleep(time.Duration(float64(life) * age))
						w := request(manager(s), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
							for range storetest.Brief(22, 100) {
								time.Sleep(life / 20)
								s.Reap(ctx)
							}
							put(w, r)
						})
						if _, err := s.Get(ctx, "id"); err != nil {
							t.Errorf("the session ended under the request: status %d, Get = %v", w.Code, err)
						}
					})
				})
			}
		}
	}
}

// TouchAfter may be longer than a session's life: the Store does not spare such a touch.
func TestTouchAfterIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TouchAfter: 5 * time.Minute})
		s.Set(ctx, "id", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: 6 * time.Minute, Path: "/"}})
		time.Sleep(4 * time.Minute)
		w := request(manager(s), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			for range storetest.Brief(22, 100) {
				time.Sleep(time.Minute / 2)
				s.Reap(ctx)
			}
			put(w, r)
		})
		if _, err := s.Get(ctx, "id"); err != nil {
			t.Errorf("the session ended under the request: status %d, Get = %v", w.Code, err)
		}
	})
}

// The Store is not a Lifer, and returns ErrNotFound, not ErrExpired, for an expired session.
func TestLostChangeOfASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: time.Minute})
		s.Set(ctx, "id", new(filestore.Session))
		w := request(manager(silent(s)), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Minute)
			put(w, r)
		})
		if w.Code == 200 {
			t.Errorf("status %d although the change is lost", w.Code)
		}
	})
}

// The middleware works with a Store that does not fill in LastAccess.
func TestNoLastAccess(t *testing.T) {
	s := filtered{&MemoryStore{TTL: time.Hour}, func(_ string, sess *filestore.Session, err error) (*filestore.Session, error) {
		if err != nil {
			return nil, err
		}
		undated := *sess
		undated.LastAccess = time.Time{}
		return &undated, nil
	}}
	s.Set(ctx, "id", &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: time.Hour, Path: "/"}, LastAccess: time.Now()})
	m := manager(s)
	w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
		request(m, "id", "/", destroy)
		put(w, r)
	})
	if w.Code != 200 {
		t.Errorf("status %d beside a logout, want 200", w.Code)
	}
}

// A beat must not look at the cookie, which belongs to the handler.
func TestCookieBesideBeats(t *testing.T) {
	s := openStore(t, filestore.Options{TTL: time.Second, TouchAfter: -1})
	s.Set(ctx, "id", new(filestore.Session))
	request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
			sess.Cookie.OriginalMaxAge = 2 * time.Hour
			time.Sleep(time.Millisecond)
		}
	})
}

// A beat must not look at the request, which belongs to the handler.
func TestRequestBesideBeats(t *testing.T) {
	s := openStore(t, filestore.Options{TTL: time.Second, TouchAfter: -1})
	s.Set(ctx, "id", new(filestore.Session))
	request(manager(s), "id", "/", func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
			*r = *r.WithContext(context.WithValue(r.Context(), cancelKey{}, 1))
			time.Sleep(10 * time.Millisecond)
		}
	})
}

type panicTouch struct{ *filestore.Store }

func (panicTouch) Touch(context.Context, string, *filestore.Cookie) error { panic("defect") }

// A Store that panics in a beat, where no server recovers, does not end the program.
func TestPanicInABeat(t *testing.T) {
	if os.Getenv("ATTACK_CHILD") != "" {
		s := openStore(t, filestore.Options{TTL: time.Second})
		s.Set(ctx, "id", new(filestore.Session))
		srv := httptest.NewServer(manager(panicTouch{s}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(500 * time.Millisecond)
		})))
		req, _ := http.NewRequest("GET", srv.URL, nil)
		req.Header.Set("Cookie", signed("id"))
		http.DefaultTransport.RoundTrip(req)
		fmt.Println("SURVIVED")
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPanicInABeat$")
	cmd.Env = append(os.Environ(), "ATTACK_CHILD=1", "TMPDIR="+t.TempDir()) // it leaves its directory behind
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "SURVIVED") {
		t.Errorf("the process died of a panic in a beat: %.300s", out)
	}
}

// A rolling cookie is not sent for a session that is gone. After a beat nobody looked.
func TestRollingSetsNoDeadCookie(t *testing.T) {
	for name, other := range map[string]http.HandlerFunc{"destroy": destroy, "regenerate": regenerate} {
		for _, wait := range []time.Duration{500 * time.Millisecond, 2 * time.Second} {
			t.Run(fmt.Sprint(name, wait), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, filestore.Options{})
					m := manager(s)
					m.Rolling = true
					s.Set(ctx, "id", new(filestore.Session))
					w := request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(wait)
						request(m, "id", "/", other)
					})
					if c := w.Header().Get("Set-Cookie"); c != "" {
						t.Errorf("the late answer sets the cookie %q, want none", c)
					}
				})
			})
		}
	}
}

type slowFailTouch struct{ *filestore.Store }

func (s slowFailTouch) Touch(context.Context, string, *filestore.Cookie) error {
	time.Sleep(2 * time.Second)
	return errors.New("disk")
}

// ErrorFunc gets the error of a beat that is under way at the end.
func TestBeatAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{})
		m := manager(slowFailTouch{s})
		m.Rolling = true
		var told []error
		m.ErrorFunc = func(_ http.ResponseWriter, _ *http.Request, err error) { told = append(told, err) }
		s.Set(ctx, "id", new(filestore.Session))
		begun := time.Now()
		w := request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { time.Sleep(1500 * time.Millisecond) })
		if len(told) == 0 || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("ErrorFunc got %v, want an error; cookie %.20q, want none; the request took %v", told, w.Header().Get("Set-Cookie"), time.Since(begun))
		}
	})
}

type slowDestroy struct{ *filestore.Store }

func (s slowDestroy) Destroy(ctx context.Context, id string) error {
	time.Sleep(2 * time.Second)
	return s.Store.Destroy(ctx, id)
}

// After a beat beside Regenerate the new session is still kept alive.
func TestBeatDuringRegenerate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: time.Minute})
		s.Set(ctx, "id", new(filestore.Session))
		var id string
		request(manager(slowDestroy{s}), "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			regenerate(w, r)
			put(w, r)
			w.(http.Flusher).Flush()
			time.Sleep(3 * time.Minute)
			id = session.From(r).ID()
		})
		if _, err := s.Get(ctx, id); err != nil {
			t.Errorf("the new session was not kept alive: %v", err)
		}
	})
}

// A handler that was given up on uses the session beside the beats and the end of the request.
func TestGivenUpBesideBeats(t *testing.T) {
	s := openStore(t, filestore.Options{TTL: time.Second, TouchAfter: -1})
	m := manager(s)
	m.Rolling = true
	done := make(chan bool)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		sess := session.From(r)
		for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			sess.Put("a", sess.ID())
			sess.Delete("b")
			session.Value[string](sess, "a")
			sess.Flash("k", "m")
			sess.Flashes("k")
			sess.Save()
			sess.Reload()
		}
		sess.Regenerate()
		sess.Destroy()
	})
	s.Set(ctx, "id", new(filestore.Session))
	request(m, "id", "/", http.TimeoutHandler(slow, 700*time.Millisecond, "").ServeHTTP)
	<-done
}

// A request that does not count as an access leaves the session's end where it is, in the Store and in the browser,
// however long it takes, also if it changes the session.
func TestNoTouch(t *testing.T) {
	for name, o := range map[string]filestore.Options{"ttl": {TTL: time.Hour, TouchAfter: -1}, "spared": {TTL: time.Hour}} {
		for _, age := range []time.Duration{0, time.Hour} {
			for _, how := range []string{"NoTouch", "Prolongs"} {
				for _, does := range []string{"nothing", "a change", "a save", "a flash", "the cookie's life", "two secrets"} {
					t.Run(fmt.Sprint(name, age, how, does), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							s := openStore(t, o)
							m := manager(s)
							m.Rolling = true
							sess := &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: age, Path: "/", HTTPOnly: true}}
							if age != 0 {
								sess.Cookie.Expires = time.Now().Add(age).Truncate(time.Millisecond)
							}
							if err := s.Set(ctx, "id", sess); err != nil {
								t.Fatal(err)
							}
							was, err := s.Get(ctx, "id")
							if err != nil {
								t.Fatal(err)
							}
							time.Sleep(20 * time.Minute)
							poll := func(w http.ResponseWriter, r *http.Request) {
								sess := session.From(r)
								if how == "NoTouch" {
									sess.NoTouch()
								}
								switch does {
								case "a change":
									sess.Put("a", 1)
								case "a save":
									sess.Put("a", 1)
									if err := sess.Save(); err != nil {
										t.Error(err)
									}
								case "a flash":
									sess.Flash("info", "hello")
								case "the cookie's life":
									sess.Cookie.OriginalMaxAge = 3 * time.Hour
								}
								time.Sleep(5 * time.Minute)
							}
							if how == "Prolongs" {
								m.Prolongs = func(r *http.Request) bool { return m.From(r).ID() == "" || r.URL.Path != "/" }
							}
							if does == "two secrets" {
								m.Secrets = []string{"a newer secret", secret}
							}
							w := request(m, "id", "/", poll)
							got, err := s.Get(ctx, "id")
							if err != nil || w.Code != 200 {
								t.Fatal(w.Code, err)
							}
							if !got.LastAccess.Equal(was.LastAccess) {
								t.Errorf("the last access was %v, and is %v later", was.LastAccess, got.LastAccess.Sub(was.LastAccess))
							}
							if does != "the cookie's life" && !got.Cookie.Expires.Equal(was.Cookie.Expires) {
								t.Errorf("the cookie expired at %v, and expires at %v", was.Cookie.Expires, got.Cookie.Expires)
							}
							changes := does == "a change" || does == "a save" || does == "a flash"
							if changes != (len(got.Values) == 1) {
								t.Errorf("the values are %s", got.Values)
							}
							for _, c := range w.Result().Cookies() {
								if does == "nothing" || age == 0 && changes || does != "the cookie's life" && !c.Expires.IsZero() && !c.Expires.Equal(was.Cookie.Expires.Truncate(time.Second)) {
									t.Errorf("the response moves the cookie: %v", c)
								}
							}
							if n := len(w.Result().Cookies()); does == "two secrets" && n != 1 {
								t.Errorf("%d cookies, want one that is signed again", n)
							}
							// The others prolong it as ever.
							request(m, "id", "/other", none)
							if again, err := s.Get(ctx, "id"); err != nil || !again.LastAccess.After(was.LastAccess) {
								t.Errorf("another request: %v, %v", again, err)
							}
						})
					})
				}
			}
		}
	}
}

// A page that polls does not keep its session alive.
func TestPollingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: time.Hour})
		m := manager(s)
		m.Prolongs = func(r *http.Request) bool { return r.URL.Path != "/poll" }
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		polls := 0
		for range 120 {
			time.Sleep(time.Minute)
			request(m, "id", "/poll", func(w http.ResponseWriter, r *http.Request) {
				if session.From(r).ID() == "id" {
					polls++
					session.From(r).Put("polls", polls)
				}
			})
		}
		if polls < 58 || polls > 60 {
			t.Errorf("the session lived for %d minutes, want an hour", polls)
		}
	})
}

// A session with a Lifetime ends when that is over, whatever its requests do, and the browser is not told of a
// later end. Login and Regenerate begin anew, Renew does not.
func TestLifetime(t *testing.T) {
	for _, how := range []string{"use", "Renew", "Regenerate", "Login"} {
		for _, age := range []time.Duration{0, 2 * time.Hour} {
			t.Run(fmt.Sprint(how, age), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := openStore(t, filestore.Options{TTL: time.Hour, Lifetime: 8 * time.Hour})
					m := manager(s)
					m.Rolling, m.Cookie.MaxAge = true, age
					id := ""
					w := httptest.NewRecorder()
					m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						session.From(r).Put("a", 1)
						id = session.From(r).ID()
					})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
					begun := time.Now()
					for half := 1; ; half++ {
						time.Sleep(30 * time.Minute)
						alive := false
						w := request(m, id, "/", func(w http.ResponseWriter, r *http.Request) {
							sess := session.From(r)
							if alive = sess.ID() == id; !alive {
								return
							}
							var err error
							if half == 4 {
								switch how {
								case "Renew":
									err = sess.Renew()
								case "Regenerate":
									err = sess.Regenerate()
								case "Login":
									err = sess.Login("anna")
								}
							}
							if err != nil {
								t.Error(err)
							}
							sess.Put("a", int(time.Since(begun)))
							id = sess.ID()
						})
						if !alive {
							break
						}
						for _, c := range w.Result().Cookies() {
							if end := begun.Add(8 * time.Hour); age != 0 && (how == "use" || how == "Renew") && (c.Expires.After(end) || c.MaxAge > int(time.Until(end)/time.Second)+1) {
								t.Errorf("after %v the cookie expires at %v, which is after the session's end at %v", time.Since(begun), c.Expires, end)
							}
						}
					}
					want := 8 * time.Hour
					if how == "Regenerate" || how == "Login" {
						want += 2 * time.Hour
					}
					if d := time.Since(begun); d < want || d > want+31*time.Minute {
						t.Errorf("the session ended within the half hour before %v, want after %v", d, want)
					}
				})
			})
		}
	}
}

// A request that outlives its session's Lifetime is told that its change is lost.
func TestLifetimeEndsInARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, filestore.Options{TTL: time.Hour, Lifetime: 2 * time.Hour})
		m := manager(s)
		if err := s.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
		w := request(m, "id", "/?a=1", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Hour)
			put(w, r)
		})
		if _, err := s.Get(ctx, "id"); w.Code != 500 || !errors.Is(err, filestore.ErrExpired) {
			t.Errorf("status %d, Get = %v, want 500 and ErrExpired", w.Code, err)
		}
	})
}
