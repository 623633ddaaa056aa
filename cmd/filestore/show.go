package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "show ID",
		SuggestFor: []string{"get", "cat", "print", "view"},
		Short:      "Print one session",
		Long: `show prints a session, even if it has expired: its members in the order of the file, then when it
ends, its last access, and its file. With --json it prints an object with the id and the session.

It does not count as an access.`,
		Example: `  filestore show 2o7sOpgM
  filestore show 2o7sOpgM --secret-file /etc/site/session.secret
  filestore show 2o7sOpgM --json | jq .session.cart`,
		Args:              a.idArgs(1),
		ValidArgsFunction: a.completeIDs(1, nil),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.show(cmd.Context(), args[0]) },
	}
}

func (a *app) show(ctx context.Context, arg string) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	id, err := r.find(ctx, arg)
	if err != nil {
		return err
	}
	e, err := r.read(a.ext.File(id))
	if err != nil {
		return wrong("%s: %w", a.id(id), err)
	}
	if a.json {
		return a.printJSON(struct {
			ID      string          `json:"id"`
			Session json.RawMessage `json:"session"`
		}{a.id(id), e.doc})
	}
	var buf bytes.Buffer
	doc := bytes.TrimSpace(e.doc)
	if depth(doc) > 100 { // with indents it would be many times as large
		buf.Write(doc)
	} else if err := json.Indent(&buf, doc, "", "  "); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s\n\n", safeJSON(buf.Bytes()))
	now := a.now()
	line := func(name, text string) {
		fmt.Fprintf(a.out, "%s  %s\n", a.paint(bold, fmt.Sprintf("%-11s", name)), text)
	}
	line("id", a.id(id))
	switch {
	case e.destroyed():
		line("destroyed", "what is left goes in "+inWords(max(0, e.ends.Sub(now)))+", "+clock(e.ends))
	case e.expired:
		line("ended", a.paint(red, inWords(now.Sub(e.ends))+" ago, "+clock(e.ends)))
	default:
		line("ends", "in "+inWords(e.ends.Sub(now))+", "+clock(e.ends))
	}
	if at := e.sess.Created; !at.IsZero() {
		line("created", inWords(now.Sub(at))+" ago, "+clock(at))
	}
	line("last access", inWords(now.Sub(e.lastAccess))+" ago, "+clock(e.lastAccess))
	line("file", fmt.Sprintf("%s, mode %04o%s", size(e.info.Size), e.info.Mode.Perm(), ownerName(e.info.UID)))
	return nil
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// ownerName names the file's owner, if the system has owners.
func ownerName(uid int) string {
	if uid < 0 {
		return ""
	}
	name := "user " + strconv.Itoa(uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = show(u.Username)
	}
	return ", owner " + name
}

const accessHelp = `The session counts as accessed now, and so lives on. If a program changes it at the same time, no
change is lost.`

func (a *app) setCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "set ID KEY JSON",
		SuggestFor: []string{"put", "edit"},
		Short:      "Change one member of a session",
		Long: `set gives the member KEY of a session the value JSON, whether or not there is such a member, under the
session's lock. KEY is a name, not a path. The names "cookie", "__lastAccess" and "__created" are reserved.
The file keeps its mode.

` + accessHelp,
		Example: `  filestore set 2o7sOpgM role '"guest"'
  filestore set 2o7sOpgM cart '[]'`,
		Args:              a.idArgs(3),
		ValidArgsFunction: a.completeIDs(1, a.completeKey),
		RunE: func(cmd *cobra.Command, args []string) error {
			value := []byte(args[2])
			if !json.Valid(value) {
				return errors.New(`the value is not JSON; a string needs its quotation marks, as in '"anna"'`)
			}
			return a.change(cmd.Context(), args[0], args[1], func(s *filestore.Session) error {
				return s.Put(args[1], json.RawMessage(value))
			})
		},
	}
}

func (a *app) unsetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unset ID KEY",
		Short: "Remove one member of a session",
		Long: `unset removes the member KEY of a session, under the session's lock. KEY is a name, not a path.
The names "cookie", "__lastAccess" and "__created" are reserved. If there is no such member, nothing is written, and the
exit code is 1.

` + accessHelp,
		Example:           `  filestore unset 2o7sOpgM role`,
		Args:              a.idArgs(2),
		ValidArgsFunction: a.completeIDs(1, a.completeKey),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), args[0], args[1], func(s *filestore.Session) error {
				if _, ok := s.Values[args[1]]; !ok {
					return wrong("the session has no member %s", show(args[1]))
				}
				delete(s.Values, args[1])
				return nil
			})
		},
	}
}

// change updates one session; fn changes its member key.
func (a *app) change(ctx context.Context, arg, key string, fn func(*filestore.Session) error) error {
	if err := new(filestore.Session).Put(key, nil); err != nil { // checks the name before anything is opened
		return err
	}
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	id, err := r.find(ctx, arg)
	if err != nil {
		return err
	}
	s, err := a.open(filestore.Options{Mode: r.mode(a.ext.File(id))})
	if err != nil {
		return err
	}
	defer s.Close()
	err = s.Update(ctx, id, fn)
	switch {
	case errors.Is(err, filestore.ErrNotFound), noSession(err):
		return wrong("%s: %w", a.id(id), cause(bare(err)))
	default:
		return readOnlyHere(err)
	}
}

// noSession reports whether err is about the file rather than about the attempt to use it.
func noSession(err error) bool {
	return errors.Is(err, filestore.ErrCorrupt) || errors.Is(err, filestore.ErrDecrypt) || errors.Is(err, filestore.ErrUnsafeFile)
}

// depth returns how deep the values in doc nest. doc must be JSON.
func depth(doc []byte) (deepest int) {
	now, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
