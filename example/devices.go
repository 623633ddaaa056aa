package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/session"
)

// This file lets users see and end their sessions. A handle is all that a page shows of one: it opens nothing, and
// ends a session only for its own user.

// note is what a login keeps for the list: the browser, and the network, but not the address.
func (s *site) note(r *http.Request) session.Note {
	addr := r.RemoteAddr
	if s.trustProxy { // the last is the proxy's; those before may be the client's invention
		all := strings.Join(r.Header["X-Forwarded-For"], ",")
		addr = cmp.Or(strings.TrimSpace(all[strings.LastIndex(all, ",")+1:]), addr)
	}
	return session.Note{Agent: r.UserAgent(), Addr: session.Network(addr)}
}

func (s *site) devices(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return redirect(w, r, "/")
	}
	list, err := s.sessions.Sessions(r.Context(), user)
	if err != nil {
		slog.ErrorContext(r.Context(), "the list of sessions is not complete", "err", err)
	}
	return render(w, r, http.StatusOK, "devices", object{
		"List": list, "Complete": err == nil, "Fresh": session.From(r).Fresh(freshFor),
	})
}

func (s *site) endDevice(w http.ResponseWriter, r *http.Request, user string) error {
	if ok, err := mayEnd(w, r, user); !ok {
		return err
	}
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	err := s.sessions.End(r.Context(), user, r.PostForm.Get("handle"))
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return tell(w, r, "error", "This is not one of your sessions, or it has ended already.")
	case err != nil:
		return err
	}
	return tell(w, r, "info", "The session has ended.")
}

func (s *site) endOthers(w http.ResponseWriter, r *http.Request, user string) error {
	if ok, err := mayEnd(w, r, user); !ok {
		return err
	}
	n, err := session.From(r).EndOthers()
	if err != nil {
		return err
	}
	return tell(w, r, "info", fmt.Sprintf("Logged out everywhere else. Sessions ended: %d.", n))
}

func (s *site) endAll(w http.ResponseWriter, r *http.Request, user string) error {
	if ok, err := mayEnd(w, r, user); !ok {
		return err
	}
	if _, err := s.sessions.EndAll(r.Context(), user); err != nil {
		return err
	}
	return s.logout(w, r, user) // for the cookie
}

// tell shows a message on the list.
func tell(w http.ResponseWriter, r *http.Request, kind, message string) error {
	if err := session.From(r).Flash(kind, message); err != nil {
		return err
	}
	return redirect(w, r, "/devices")
}

// mayEnd reports whether the user has given the password lately. If not, it has answered. Whoever has stolen a cookie
// could log out its owner otherwise.
func mayEnd(w http.ResponseWriter, r *http.Request, user string) (bool, error) {
	switch {
	case user == "":
		return false, redirect(w, r, "/")
	case !session.From(r).Fresh(freshFor):
		return false, redirect(w, r, "/confirm?next=/devices")
	}
	return true, nil
}

// freshFor is how long a password counts for the steps that matter.
const freshFor = 5 * time.Minute

// recovery is such a step.
func (s *site) recovery(w http.ResponseWriter, r *http.Request, user string) error {
	switch {
	case user == "":
		return redirect(w, r, "/")
	case !session.From(r).Fresh(freshFor):
		return redirect(w, r, "/confirm?next=/recovery")
	}
	return render(w, r, http.StatusOK, "recovery", recoveryCodes[user])
}

// next is where a user wanted to go. It must not lead to another site.
func next(r *http.Request) string {
	if r.FormValue("next") == "/devices" {
		return "/devices"
	}
	return "/recovery"
}

func (s *site) confirm(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return redirect(w, r, "/")
	}
	return render(w, r, http.StatusOK, "confirm", next(r))
}

// postConfirm is a second login of the same user: the session gets a new id and keeps its values. In your program limit
// the attempts, as at the login.
func (s *site) postConfirm(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return redirect(w, r, "/")
	}
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	if !authenticate(user, r.PostForm.Get("password")) {
		if err := session.From(r).Flash("error", "Wrong password."); err != nil {
			return err
		}
		return redirect(w, r, "/confirm?next="+next(r))
	}
	if err := login(r, user); err != nil {
		return err
	}
	return redirect(w, r, next(r))
}

// live sends the time until the session ends: by a logout here, by a button of another browser, by its lifetime, in
// whatever process. Browsers get a page that goes on loading, which needs no JavaScript.
func (s *site) live(w http.ResponseWriter, r *http.Request, user string) error {
	if user == "" {
		return redirect(w, r, "/")
	}
	format, bye := "<li>%s</li>\n", "</ol><p role=\"status\">Your session has ended, or has begun anew. <a href=\"/live\">Again</a></p>\n"
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.Header().Set("Content-Type", "text/event-stream")
		format, bye = "data: %s\n\n", "event: end\ndata: the session has ended, or has begun anew\n\n"
	} else if err := render(w, r, http.StatusOK, "live", nil); err != nil {
		return err
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
		case <-s.quit:
			return nil
		}
	}
}

// device names a browser for the list: "Firefox on Linux". Most agents name others too, so that the order counts.
func device(agent string) string {
	find := func(names ...string) string {
		for _, name := range names {
			word, show, _ := strings.Cut(name, "=")
			if strings.Contains(agent, word) {
				return show
			}
		}
		return ""
	}
	browser := find("Edg/=Edge", "OPR/=Opera", "Firefox/=Firefox", "FxiOS/=Firefox", "Chrome/=Chrome", "CriOS/=Chrome", "Safari/=Safari", "curl/=curl")
	system := find("iPhone=iPhone", "iPad=iPad", "Android=Android", "Windows=Windows", "Mac OS X=macOS", "CrOS=ChromeOS", "Linux=Linux")
	if browser != "" && system != "" {
		return browser + " on " + system
	}
	return cmp.Or(browser, system, "Unknown browser")
}
