package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

func (a *app) watchCommand() *cobra.Command {
	var show []string
	cmd := &cobra.Command{
		Use:        "watch [DIR]",
		SuggestFor: []string{"tail", "follow", "monitor", "events"},
		Short:      "Print changes of sessions as they happen",
		Long: `watch prints a line for each change of a session by any process, until Ctrl-C: the time, what has happened, the id,
and the members named with --show.

  made     there is a new session
  changed  it was written, or only used
  renewed  it goes on under this new id; the old one ends
  ended    it was destroyed, or somebody has removed its file
  expired  its time was over, and it was removed

Of a session that is gone, --show prints what it had when it was read last. One change may give several lines, and
several changes one line. Under load the system drops some; watch then says so on stderr. It takes about 100
bytes for each session in the directory.`,
		Example: `  filestore watch ./sessions --show user
  filestore watch --json | jq 'select(.op == "ended")'`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.watch(cmd.Context(), show) },
	}
	cmd.Flags().StringArrayVar(&show, "show", nil, "`PATHS` of members to show: user,email")
	return cmd
}

// What watch says has happened.
const (
	opMade    = "made"
	opChanged = "changed"
	opRenewed = "renewed"
	opEnded   = "ended"
	opExpired = "expired"
)

// A follower tells what a change was: the store's events say only which file has changed, or is gone. So it knows which
// sessions there are, and when they end.
type follower struct {
	*reader
	show  []string
	seed  maphash.Seed
	known map[uint64]known // by the hash of the id: it need not keep a million ids
}

// known is what is known of a session.
type known struct {
	ends      int64 // milliseconds since 1970; 0 if its file was not read yet
	destroyed bool  // it has ended, and this is what is left
	shown     []string
}

func (a *app) watch(ctx context.Context, show []string) error {
	show, err := splitPaths(show)
	if err != nil {
		return err
	}
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	s, err := a.open(filestore.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	w, err := r.follow(ctx, show)
	if err != nil {
		return err
	}
	return w.run(ctx, s.Watch(ctx))
}

// follow returns a follower that knows of the sessions that there are. It lists them only, which is quick: what comes
// after that is new.
func (r *reader) follow(ctx context.Context, show []string) (*follower, error) {
	w := &follower{reader: r, show: show, seed: maphash.MakeSeed(), known: make(map[uint64]known)}
	for name, err := range r.names(ctx) {
		if err != nil {
			return nil, err
		}
		if id, ok := r.idOf(name); ok {
			w.known[w.hash(id)] = known{}
		}
	}
	return w, nil
}

// A change is one element of Store.Watch.
type change struct {
	filestore.Event
	err error
}

// run prints the changes. Between them it reads the sessions that were there before.
func (w *follower) run(ctx context.Context, watch iter.Seq2[filestore.Event, error]) error {
	ctx, stop := context.WithCancel(ctx)
	changes := make(chan change, 1024)
	ended := make(chan struct{})
	defer func() { stop(); <-ended }()
	go func() {
		defer close(ended)
		defer close(changes)
		for ev, err := range watch {
			select {
			case changes <- change{ev, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	next, done := iter.Pull2(w.all(ctx))
	defer done()
	for reading := true; ; {
		var c change
		var more bool
		if reading {
			select {
			case c, more = <-changes:
			default:
				e, err, ok := next()
				if reading = ok; ok && err == nil {
					w.learn(&e)
				}
				continue
			}
		} else {
			c, more = <-changes
		}
		if !more {
			return nil
		}
		if errors.Is(c.err, fsnotify.ErrEventOverflow) {
			fmt.Fprintln(w.a.err, "filestore: watch: the system dropped events; some changes were not printed")
			continue
		}
		if c.err != nil {
			return bare(c.err)
		}
		if err := w.change(c.Event); err != nil {
			return err
		}
	}
}

func (w *follower) hash(id string) uint64 { return maphash.String(w.seed, id) }

// learn notes a session that was there before, unless a change has told of it by now.
func (w *follower) learn(e *entry) {
	h := w.hash(e.id)
	if k, ok := w.known[h]; ok && k.ends == 0 {
		w.known[h] = w.of(e)
	}
}

// of returns what is to be known of a session.
func (w *follower) of(e *entry) known {
	k := known{ends: max(1, e.ends.UnixMilli()), destroyed: e.destroyed()}
	if len(w.show) > 0 && !k.destroyed {
		k.shown = w.a.row(e, w.show).shown
	}
	return k
}

// change prints what has happened.
func (w *follower) change(ev filestore.Event) error {
	h := w.hash(ev.ID)
	was, there := w.known[h]
	now := w.a.now()
	if ev.Op == filestore.Destroyed {
		delete(w.known, h)
		switch {
		case !there, was.destroyed: // it came and went unseen, or has been told
			return nil
		case was.ends > 0 && was.ends <= now.UnixMilli():
			return w.print(opExpired, ev.ID, was)
		}
		return w.print(opEnded, ev.ID, was)
	}
	e, err := w.read(w.a.ext.File(ev.ID))
	switch {
	case errors.Is(err, filestore.ErrNotFound): // its end is an event of its own
		if there {
			return w.print(opChanged, ev.ID, was)
		}
		w.known[h] = known{}
		return w.print(opMade, ev.ID, known{})
	case err != nil: // it cannot be read, and what it was stays
		w.known[h] = was
		if there {
			return w.print(opChanged, ev.ID, was)
		}
		return w.print(opMade, ev.ID, was)
	}
	is := w.of(&e)
	w.known[h] = is
	switch {
	case is.destroyed && (!there || was.destroyed):
		return nil
	case is.destroyed:
		return w.print(opEnded, ev.ID, was)
	case there && !was.destroyed:
		return w.print(opChanged, ev.ID, is)
	case e.renewed(now):
		return w.print(opRenewed, ev.ID, is)
	}
	return w.print(opMade, ev.ID, is)
}

// renewed reports whether a session that has just come is older than its file: a new one was created when it was used
// last, or a moment before if it was used again before watch has read it. One that was imported was used before.
func (e *entry) renewed(now time.Time) bool {
	at := e.sess.Created
	return !at.IsZero() && e.said.Sub(at) > time.Second && now.Sub(e.said) < 10*time.Second
}

func (w *follower) print(op, id string, k known) error {
	now := w.a.now()
	if w.a.json {
		line := struct {
			Time string                     `json:"time"`
			Op   string                     `json:"op"`
			ID   string                     `json:"id"`
			Show map[string]json.RawMessage `json:"show,omitempty"`
		}{jsonTime(now.UnixMilli()), op, w.a.id(id), shownJSON(w.show, k.shown)}
		return w.a.printJSON(line)
	}
	id = w.a.id(id)
	if len(w.show) > 0 {
		shown := k.shown
		for range len(w.show) - len(shown) {
			shown = append(shown, "-")
		}
		id = fmt.Sprintf("%-9s  %s", id, strings.Join(shown, "  "))
	}
	text := fmt.Sprintf("%-7s", op)
	if op == opEnded || op == opExpired {
		text = w.a.paint(red, text)
	}
	_, err := fmt.Fprintf(w.a.out, "%s  %s  %s\n", now.Local().Format("15:04:05.000"), text, id)
	return err
}
