package sessionui

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/words"
	"github.com/sessionfilestore/filestore/session"
)

// This file ends sessions.

// ByOperator is the Reason of an event about a session that was ended on the operator's page.
const ByOperator = "sessionui.Operator"

const enders = 8 // to end a session is mostly waiting for the disk

var errOther = errors.New("the session is not one of those meant any more")

// post answers a POST.
func (o *operator) post(w http.ResponseWriter, r *http.Request) {
	if !o.opts.Write {
		http.Error(w, "This page is read-only.", http.StatusForbidden)
		return
	}
	f, wrong := parseFilter(r.URL.Query(), o.opts.Show)
	if wrong != "" {
		http.Error(w, wrong, http.StatusBadRequest)
		return
	}
	switch r.PostForm.Get("do") {
	case "end":
		o.endOne(w, r, f)
	case "end-matching":
		o.endMatching(w, r, f)
	default:
		http.Error(w, "There is no such action.", http.StatusBadRequest)
	}
}

// endOne ends the session that the form names.
func (o *operator) endOne(w http.ResponseWriter, r *http.Request, f filter) {
	patient(w)
	row := o.find(r.Context(), r.PostForm.Get("handle"), f)
	if row == nil {
		o.fail(w, r, http.StatusNotFound, "There is no such session, or it has ended.")
		return
	}
	user, err := o.end(r.Context(), row, func(*filestore.Session) bool { return true })
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		o.fail(w, r, http.StatusNotFound, "There is no such session, or it has ended.")
	case err != nil && row.trouble != nil:
		o.fail(w, r, http.StatusConflict, "It could not be ended: it "+row.trouble.Text+". "+row.trouble.Advice)
	case err != nil:
		o.opts.Logger.ErrorContext(r.Context(), "sessionui: a session could not be ended", "who", o.opts.Who(r), "session", o.handle(row.id), "err", err)
		o.fail(w, r, http.StatusInternalServerError, "The session could not be ended. The log says why.")
	default:
		o.ended(r, end{row.id, user})
		redirect(w, f.With("said", o.say(1, 0, 0)))
	}
}

// endMatching ends the sessions that the filter means by now. If many more match than the visitor was asked about, it
// ends none and asks again.
func (o *operator) endMatching(w http.ResponseWriter, r *http.Request, f filter) {
	asked, err := strconv.Atoi(r.PostForm.Get("n"))
	if err != nil {
		http.Error(w, "The form has no number.", http.StatusBadRequest)
		return
	}
	http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as long as it takes; an error means that there is none
	ctx := r.Context()
	rows, _ := o.matching(ctx, f, o.again(ctx))
	rows = endable(rows)
	if len(rows) > 2*asked+10 {
		o.ask(w, r, http.StatusConflict, f, len(rows))
		return
	}
	now := time.Now()
	var mu sync.Mutex
	var ended []end
	failed := 0
	var first error
	var wg sync.WaitGroup
	slots := make(chan struct{}, enders)
	for _, target := range rows {
		if ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer o.guard()
			user, err := o.end(ctx, target, func(sess *filestore.Session) bool {
				return f.matches(o.row(filestore.Entry{ID: target.id, Session: sess}, nil), sess, now)
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ended = append(ended, end{target.id, user})
			case err != errOther && !errors.Is(err, filestore.ErrNotFound):
				failed++
				first = cmp.Or(first, err)
			}
		})
	}
	wg.Wait()
	o.ended(r, ended...)
	o.opts.Logger.InfoContext(ctx, "sessionui: a filter's sessions were ended", "who", o.opts.Who(r), "which", f.Words(), "sessions", len(ended), "failed", failed, "err", first)
	f.Page = 1
	redirect(w, f.With("said", o.say(len(ended), asked, failed)))
}

// endable leaves out what cannot be read: it may be somebody's session that nobody meant.
func endable(rows []*row) (out []*row) {
	for _, r := range rows {
		if r.trouble == nil {
			out = append(out, r)
		}
	}
	return out
}

// An end is a session that has ended, and whose it was: "" if that was not read.
type end struct{ id, user string }

// end ends one session if match returns true for what it is by then, and returns whose it was. It fails with errOther if
// match does not, and with filestore.ErrNotFound if the session is gone.
func (o *operator) end(ctx context.Context, r *row, match func(*filestore.Session) bool) (user string, err error) {
	check := func(sess *filestore.Session) error {
		user = o.userOf(sess)
		if !match(sess) {
			return errOther
		}
		return nil
	}
	o.history.ending(r.id)
	if err = o.destroy(ctx, r, check); err != nil {
		o.history.stays(r.id)
	}
	return user, err
}

// ended takes sessions that the page has ended out of the picture, and tells the log and OnEvent. If somebody looks at
// all sessions just now, that look leaves them out.
func (o *operator) ended(r *http.Request, ends ...end) {
	ctx := r.Context()
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstPage)
	defer cancel()
	if o.take(own) {
		gone := make(map[string]*row, len(ends))
		for _, e := range ends {
			gone[e.id] = nil
		}
		o.replace(o.picture.Load(), gone)
		o.give()
	}
	o.hub.tell()
	who := o.opts.Who(r)
	for _, e := range ends {
		o.opts.Logger.InfoContext(ctx, "sessionui: a session was ended", "who", who, "session", o.handle(e.id), "sessions", len(ends))
		if o.opts.OnEvent != nil {
			o.opts.OnEvent(ctx, session.Event{Kind: session.Ended, Handle: o.handle(e.id), User: e.user, Reason: ByOperator, Sessions: 1})
		}
	}
}

// destroy removes a session that passes check. If the Source can update, it first makes the session one that has
// expired, so that the check is about what is removed, no request that is under way brings it back, and of several who
// end it one only succeeds.
func (o *operator) destroy(ctx context.Context, r *row, check func(*filestore.Session) error) error {
	if r.trouble != nil {
		return o.source.Destroy(ctx, r.id)
	}
	if o.updater != nil {
		var refused error
		err := o.updater.Update(ctx, r.id, func(sess *filestore.Session) error {
			if refused = check(sess); refused == nil {
				sess.Cookie.OriginalMaxAge, sess.Values = -time.Second, nil
			}
			return refused
		})
		switch {
		case refused != nil:
			return refused
		case err == nil: // it has ended, whatever becomes of what is left, and also if the visitor goes away now
			own, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			defer cancel()
			if err := o.source.Destroy(own, r.id); err != nil {
				o.opts.Logger.WarnContext(ctx, "sessionui: a session that has ended could not be removed, and is left to be reaped", "session", o.handle(r.id), "err", err)
			}
			return nil
		case errors.Is(err, filestore.ErrExpired) && r.state(time.Now()) == expired:
			return o.source.Destroy(ctx, r.id)
		case errors.Is(err, filestore.ErrNotFound): // also if it has expired before its time: somebody else ends it
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	// There is no Update, or it fails, as on a disk that is full: what is removed needs no room.
	if o.getter != nil {
		sess, err := o.get(ctx, r.id)
		if err == nil {
			err = check(sess)
		}
		if err != nil && !errors.Is(err, filestore.ErrExpired) {
			return err
		}
	}
	return o.source.Destroy(ctx, r.id)
}

// say packs what was done into a query, signed: a link on another site must not tell tales.
func (o *operator) say(ended, asked, failed int) string {
	text := fmt.Sprintf("%d.%d.%d", ended, asked, failed)
	return text + "." + o.mac("said", text)[:16]
}

// said returns what say has packed, in words.
func (o *operator) said(text string) string {
	i := strings.LastIndexByte(text, '.')
	if i < 0 || !hmac.Equal([]byte(o.mac("said", text[:i])[:16]), []byte(text[i+1:])) {
		return ""
	}
	var ended, asked, failed int
	fmt.Sscanf(text[:i], "%d.%d.%d", &ended, &asked, &failed)
	s := words.Plural(ended, "session") + " ended."
	if asked > 0 && asked != ended {
		s += fmt.Sprintf(" You were asked about %d.", asked)
	}
	if failed > 0 {
		s += fmt.Sprintf(" %d could not be ended; the log says why.", failed)
	}
	return s
}
