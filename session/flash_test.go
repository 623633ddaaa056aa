package session_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/session"
)

func TestFlash(t *testing.T) {
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{"/flash": func(w http.ResponseWriter, r *http.Request) {
		sess := session.From(r)
		for _, msg := range r.URL.Query()["m"] {
			if err := sess.Flash("error", msg); err != nil {
				t.Error(err)
			}
		}
		if err := sess.Flash("info", "i"); err != nil {
			t.Error(err)
		}
	}, "/read": func(w http.ResponseWriter, r *http.Request) {
		msgs, err := session.From(r).Flashes(r.URL.Query().Get("kind"))
		fmt.Fprint(w, msgs, " ", err)
	}})
	b := newBrowser(t, srv)
	b.get("/flash?m=one&m=two")
	if data, _ := os.ReadFile(storetest.Files(t, s.dir)[0]); !strings.Contains(string(data), `"flash":{"error":["one","two"],"info":["i"]}`) {
		t.Errorf("the file is %s", data)
	}
	b.get("/flash?m=three")
	for _, tt := range []struct{ kind, want string }{{"error", "[one two three] <nil>"}, {"error", "[] <nil>"}, {"none", "[] <nil>"}, {"info", "[i i] <nil>"}} {
		if got := b.get("/read?kind=" + tt.kind).body; got != tt.want {
			t.Errorf("Flashes(%q) = %s, want %s", tt.kind, got, tt.want)
		}
	}
	if data, _ := os.ReadFile(storetest.Files(t, s.dir)[0]); !strings.Contains(string(data), `"flash":{}`) {
		t.Errorf("the file is %s, want no messages", data)
	}
}

// A kind that is not a list of strings does not harm the others. It made all of them unusable.
func TestFlashOfOthers(t *testing.T) {
	for member, tt := range map[string]struct{ read, after string }{
		`{"errors":[{"field":"name"},"and so on"],"info":["i"]}`: {`["{\"field\":\"name\"}" "and so on"]`, `{"info":["i","new"]}`},
		`{"errors":{"msg":"<b>"},"info":["i"]}`:                  {`["{\"msg\":\"<b>\"}"]`, `{"info":["i","new"]}`},
		`{"errors":"one","info":"i"}`:                            {`["one"]`, `{"info":["i","new"]}`},
		`{"errors":7,"info":null}`:                               {`["7"]`, `{"info":["new"]}`},
		`{"errors":[],"type":"info","message":"hello"}`:          {`[]`, `{"info":["new"],"message":"hello","type":"info"}`},
		`null`: {`[]`, `{"info":["new"]}`},
		// A member that connect-flash did not write is an error, and stays as it is.
		`["a"]`:     {"error", `["a"]`},
		`"a flash"`: {"error", `"a flash"`},
	} {
		s := newStore(t)
		srv := serve(t, manager(s), map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			msgs, err := sess.Flashes("errors")
			addErr := sess.Flash("info", "new")
			if (err == nil) != (addErr == nil) {
				t.Errorf("%s: Flashes = %v, Flash = %v, want both or neither to fail", member, err, addErr)
			}
			if err != nil {
				fmt.Fprint(w, "error")
				return
			}
			fmt.Fprintf(w, "%q", msgs)
		}})
		doc := fmt.Sprintf(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"flash":%s,"__lastAccess":%d}`, member, time.Now().UnixMilli())
		os.WriteFile(s.dir+"/id.json", []byte(doc), 0o600)
		if got := do(t, srv, "/", signed("id")).body; got != tt.read {
			t.Errorf("%s: Flashes = %s, want %s", member, got, tt.read)
		}
		sess, err := s.Store.Get(ctx, "id")
		if err != nil || string(sess.Values["flash"]) != tt.after {
			t.Errorf("%s: the member is now %s, %v", member, sess.Values["flash"], err)
		}
	}
}

func TestFlashesAs(t *testing.T) {
	type problem struct{ Field, Msg string }
	s := newStore(t)
	srv := serve(t, manager(s), map[string]http.HandlerFunc{
		"/put": func(w http.ResponseWriter, r *http.Request) {
			session.From(r).Put("flash", map[string]any{"errors": []problem{{"a", "1"}, {"b", "2"}}, "mixed": []any{"s", problem{}}})
		},
		"/read": func(w http.ResponseWriter, r *http.Request) {
			sess := session.From(r)
			if msgs, err := session.FlashesAs[problem](sess, "mixed"); err == nil || strings.Contains(err.Error(), "\"s\"") {
				t.Errorf("FlashesAs of another type = %v, %v, want an error that does not show the message", msgs, err)
			}
			if msgs, err := sess.Flashes("mixed"); err != nil || len(msgs) != 2 {
				t.Errorf("Flashes after a failed FlashesAs = %q, %v, want both messages", msgs, err)
			}
			msgs, err := session.FlashesAs[problem](sess, "errors")
			if err != nil || fmt.Sprint(msgs) != "[{a 1} {b 2}]" {
				t.Errorf("FlashesAs = %v, %v", msgs, err)
			}
			if msgs, err := session.FlashesAs[problem](sess, "errors"); err != nil || msgs != nil {
				t.Errorf("FlashesAs again = %v, %v, want nil", msgs, err)
			}
		},
	})
	b := newBrowser(t, srv)
	b.get("/put")
	b.get("/read")
	if data, _ := os.ReadFile(storetest.Files(t, s.dir)[0]); !strings.Contains(string(data), `"flash":{}`) {
		t.Errorf("the file is %s, want no messages", data)
	}
}

// The messages of parallel requests are united. One was lost, or shown again.
func TestParallelFlash(t *testing.T) {
	for name, tt := range map[string]struct{ before, first, second, want string }{
		"two of one kind":          {"", "+a1", "+a2", `{"a":["1","2"]}`},
		"two kinds":                {"", "+a1", "+b2", `{"a":["1"],"b":["2"]}`},
		"behind others":            {"+a0", "+a1", "+a2", `{"a":["0","1","2"]}`},
		"read beside another kind": {"+a0", "-a", "+b2", `{"b":["2"]}`},
		"read beside one more":     {"+a0", "-a", "+a2", `{"a":["2"]}`},
		"one more beside a read":   {"+a0", "+a1", "-a", `{"a":["1"]}`},
		"both read":                {"+a0 +b0", "-a", "-b", `{}`},
		"both read the same":       {"+a0", "-a", "-a", `{}`},
		"read, and one more":       {"+a0", "-a +a1", "-a +a2", `{"a":["1","2"]}`},
		"the same text twice":      {"+a0", "+a0", "+a0", `{"a":["0","0","0"]}`},
		"added and read at once":   {"", "+a1", "+a2 -a", `{"a":["1"]}`},
		"other members beside":     {"+a0", "-a", "=x", `{}`},
		"nothing":                  {"+a0", "+a1", "", `{"a":["0","1"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			stores(t, func(t *testing.T, s session.Store) {
				act := func(r *http.Request, what string) {
					sess := session.From(r)
					for part := range strings.FieldsSeq(what) {
						var err error
						switch kind := part[1:2]; part[0] {
						case '+':
							err = sess.Flash(kind, part[2:])
						case '-':
							_, err = sess.Flashes(kind)
						case '=':
							err = sess.Put(kind, 1)
						}
						if err != nil {
							t.Error(err)
						}
					}
				}
				m := manager(s)
				var id string
				srv := serve(t, m, map[string]http.HandlerFunc{
					"/first": func(w http.ResponseWriter, r *http.Request) { session.From(r).Put("k", 1); act(r, tt.before) },
					"/slow": func(w http.ResponseWriter, r *http.Request) {
						request(m, id, "/", func(w http.ResponseWriter, r *http.Request) { act(r, tt.first) })
						act(r, tt.second)
					},
				})
				cookie := cookieOf(do(t, srv, "/first", ""))
				id = idOf(t, cookie)
				do(t, srv, "/slow", cookie)
				sess, err := s.Get(ctx, id)
				if err != nil || string(sess.Values["flash"]) != tt.want {
					t.Errorf("the member is %s, %v, want %s", sess.Values["flash"], err, tt.want)
				}
			})
		})
	}
}

// uniteFlash never panics, and returns JSON for JSON.
func FuzzUniteFlash(f *testing.F) {
	f.Add("{}", "{\"\":[\"\xae\"]}", "{}") // another program may have written bytes that are not UTF-8
	for _, seed := range []string{`{"a":["1"]}`, `{"a":"x","b":[{}]}`, `[]`, `null`, `{}`, `{"a":null}`} {
		f.Add(seed, `{"a":["2"]}`, `{"b":["3"]}`)
		f.Add(`{"a":["2"]}`, seed, `{"b":["3"]}`)
		f.Add(`{"b":["3"]}`, `{"a":["2"]}`, seed)
	}
	f.Fuzz(func(t *testing.T, base, mine, now string) {
		if !json.Valid([]byte(base)) || !json.Valid([]byte(mine)) || !json.Valid([]byte(now)) {
			return
		}
		united := session.UniteFlash([]byte(base), []byte(mine), []byte(now))
		if !json.Valid(united) {
			t.Fatalf("UniteFlash(%s, %s, %s) = %s, which is not JSON", base, mine, now, united)
		}
	})
}

// A new message with the text of one that was read survives another reader.
func TestFlashAgain(t *testing.T) {
	s := newStore(t)
	m := manager(s)
	sess := &filestore.Session{}
	sess.Put("flash", map[string][]string{"a": {"wrong password"}})
	s.Store.Set(ctx, "id", sess)
	request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) {
		request(m, "id", "/", func(w http.ResponseWriter, r *http.Request) { session.From(r).Flashes("a") })
		session.From(r).Flashes("a")
		session.From(r).Flash("a", "wrong password")
	})
	got, _ := s.Store.Get(ctx, "id")
	if string(got.Values["flash"]) != `{"a":["wrong password"]}` {
		t.Errorf("the new message is lost: %s", got.Values["flash"])
	}
}
