package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore/session"
	"github.com/sessionfilestore/filestore/sessionui"
)

// This file lets users see and end their sessions, and the admin those of all. A handle is all that a page shows of one:
// it opens nothing, and ends a session only for its own user, or the admin.

// note is what a login keeps for the list: the browser, and the network, but not the address.
func (s *site) note(r *http.Request) session.Note {
	addr := r.RemoteAddr
	if s.trustProxy { // the last is the proxy's; those before may be the client's invention
		all := strings.Join(r.Header["X-Forwarded-For"], ",")
		addr = cmp.Or(strings.TrimSpace(all[strings.LastIndex(all, ",")+1:]), addr)
	}
	return session.Note{Agent: r.UserAgent(), Addr: session.Network(addr)}
}

const (
	devicesPath  = "/account/devices/"
	operatorPath = "/admin/sessions/"
)

// devices is the page on which users see their sessions and end one, or all others. Whoever has stolen a cookie could
// log out its owner, if it did not ask for the password.
func (s *site) devices() http.Handler {
	h := sessionui.Devices(s.sessions, &sessionui.DevicesOptions{
		Confirm: func(r *http.Request) bool { return session.From(r).Fresh(freshFor) },
		Login:   "/confirm?next=" + devicesPath,
		Layout:  pages.Lookup("devices"),
		Words:   map[string]string{"Address": "Network"}, // which is what note keeps
	})
	return forUsers(func(w http.ResponseWriter, r *http.Request, _ string) error {
		h.ServeHTTP(w, r)
		return nil
	})
}

// operator is the page on which the admin sees everybody's sessions, and ends them.
func (s *site) operator() http.Handler {
	key := sha256.Sum256([]byte("operator\n" + s.secret)) // the same in all programs that share the sessions
	h := sessionui.Operator(s.store, &sessionui.Options{
		Show:    []string{userMember, viewsMember},
		Write:   true,
		Who:     func(r *http.Request) string { return session.From(r).User() },
		Key:     key[:],
		OnEvent: audit,
		Context: s.quit,
		Nav:     navOf,
	})
	return forUsers(func(w http.ResponseWriter, r *http.Request, user string) error {
		if user != admin {
			return render(w, r, http.StatusForbidden, "refused", admin)
		}
		h.ServeHTTP(w, r)
		return nil
	})
}

// navOf is the site's header, for a page that is not the site's.
func navOf(r *http.Request) template.HTML {
	var buf bytes.Buffer
	if err := pages.ExecuteTemplate(&buf, "nav", &view{Path: r.URL.Path, User: session.From(r).User(), Admin: admin}); err != nil {
		slog.ErrorContext(r.Context(), "the header could not be made", "err", err)
	}
	return template.HTML(buf.String())
}

// logoutEverywhere ends this session too. It asks for the password, as the buttons of devices do.
func (s *site) logoutEverywhere(w http.ResponseWriter, r *http.Request, user string) error {
	if !session.From(r).Fresh(freshFor) {
		return redirect(w, r, "/confirm?next="+devicesPath)
	}
	if _, err := s.sessions.EndAll(r.Context(), user); err != nil {
		return err
	}
	return s.logout(w, r, user) // for the cookie
}

// freshFor is how long a password counts for the steps that matter.
const freshFor = 5 * time.Minute

// recovery is such a step.
func (s *site) recovery(w http.ResponseWriter, r *http.Request, user string) error {
	if !session.From(r).Fresh(freshFor) {
		return redirect(w, r, "/confirm?next=/recovery")
	}
	return render(w, r, http.StatusOK, "recovery", recoveryCodes[user])
}

// The pages that a second password leads to.
var afterConfirm = []string{"/recovery", devicesPath}

func (s *site) confirm(w http.ResponseWriter, r *http.Request, _ string) error {
	return render(w, r, http.StatusOK, "confirm", next(r, afterConfirm))
}

// postConfirm is a second login of the same user: the session gets a new id and keeps its values. In your program limit
// the attempts, as at the login.
func (s *site) postConfirm(w http.ResponseWriter, r *http.Request, user string) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	to := next(r, afterConfirm)
	if !authenticate(user, r.PostForm.Get("password")) {
		// A user has a session already, so that a message for the next page makes no file.
		if err := session.From(r).Flash("error", "Wrong password."); err != nil {
			return err
		}
		return redirect(w, r, "/confirm?next="+to)
	}
	if err := login(r, user); err != nil {
		return err
	}
	return redirect(w, r, to)
}

// live sends the time until the session ends: by a logout here, by a button of another browser, by its lifetime, in
// whatever process. Browsers get a page that goes on loading, which needs no JavaScript.
func (s *site) live(w http.ResponseWriter, r *http.Request, _ string) error {
	format, bye := "<li>%s</li>\n", "</ol><p role=\"status\">Your session has ended, or has a new id. <a href=\"/live\">Again</a></p>\n"
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.Header().Set("Content-Type", "text/event-stream")
		format, bye = "data: %s\n\n", "event: end\ndata: the session has ended, or has a new id\n\n"
	} else if err := render(w, r, http.StatusOK, "live", nil); err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		return nil // whoever asks for no content must not wait for its end
	}
	rc := http.NewResponseController(w)
	done := session.From(r).Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		rc.SetWriteDeadline(time.Now().Add(10 * time.Second)) // instead of the server's, which is for whole answers
		fmt.Fprintf(w, format, time.Now().UTC().Format(time.TimeOnly))
		if err := rc.Flush(); err != nil {
			return nil // the client has gone
		}
		select {
		case <-tick.C:
		case <-done:
			fmt.Fprint(w, bye)
			return nil
		case <-r.Context().Done():
			return nil
		case <-s.quit.Done():
			return nil
		}
	}
}
