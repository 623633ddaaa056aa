package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

type rmFlags struct {
	where    []string
	all, yes bool
}

func (a *app) rmCommand() *cobra.Command {
	var f rmFlags
	cmd := &cobra.Command{
		Use:        "rm {ID... | --where PATH=VALUE | --all}",
		SuggestFor: []string{"delete", "del", "remove", "destroy", "end", "kill", "logout", "clear"},
		Short:      "End sessions",
		Long: `rm ends sessions: it removes their files, under their locks. The user is logged out at the next request.
--where and --all also remove expired sessions that were not reaped yet, as a Node program could bring
them back; files that hold no session stay. A session that is made meanwhile may survive: switch off the
login before rm --all.

On a terminal rm asks first. Elsewhere it needs --yes, and then a shortened id must have 8 characters or
more. It says how many sessions it has ended. The exit code is 1 if a session was not there or could not
be ended. With --where and --all it is also 1 if there are session files that cannot be read: they may be
among those that were meant.

` + pathHelp,
		Example: `  filestore rm 2o7sOpgM
  filestore rm --where user=anna
  filestore rm --all --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				if isDir(arg) && strings.ContainsAny(arg, `./\`) {
					return notID(cmd, arg)
				}
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.rm(cmd.Context(), args, f) },
	}
	cmd.Flags().StringArrayVar(&f.where, "where", nil, whereHelp)
	cmd.Flags().BoolVar(&f.all, "all", false, "end all sessions")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) rm(ctx context.Context, args []string, f rmFlags) error {
	conditions, err := parseConditions(f.where)
	if err != nil {
		return err
	}
	ways := 0
	for _, given := range []bool{len(args) > 0, len(f.where) > 0, f.all} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("rm needs ids, or --where, or --all, and only one of them")
	}
	if !f.yes && !isTerminal(a.in) {
		return errors.New("rm cannot ask here, as this is not a terminal; --yes ends the sessions without asking")
	}
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	var ids []string
	var missed int
	if len(args) > 0 {
		ids, missed, err = a.named(ctx, r, args, f.yes)
	} else {
		ids, missed, err = a.matching(ctx, r, conditions)
	}
	if err != nil {
		return err
	}
	if len(ids) > 0 && !f.yes {
		if err := a.ask(ctx, fmt.Sprintf("End %s? [y/N] ", plural(len(ids), "session"))); err != nil {
			return err
		}
	}
	still := func(string) bool { return true }
	if len(args) == 0 {
		still = func(id string) bool { return a.still(r, id, conditions) }
	}
	ended, failed, err := a.end(ctx, r, ids, still)
	if a.json {
		a.printJSON(map[string]int{"ended": ended, "failed": failed + missed})
	} else {
		fmt.Fprintf(a.out, "ended %s\n", plural(ended, "session"))
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && ended == 0:
		return err
	case err != nil:
		return wrong("%s could not be ended: %w", plural(failed, "session"), err)
	case missed > 0 && len(args) == 0:
		return wrong("%s could not be read and may be among those meant; filestore check says which", plural(missed, "session file"))
	case missed > 0:
		return &exitError{exitWrong, errors.New("")} // each has been printed
	}
	return nil
}

// named returns the ids that args name, and how many args name no session.
func (a *app) named(ctx context.Context, r *reader, args []string, unasked bool) (ids []string, missed int, err error) {
	seen := make(map[string]bool)
	for _, arg := range args {
		id, err := r.find(ctx, arg)
		if given := strings.TrimSuffix(arg, ellipsis); err == nil && unasked && id != given && len(given) < 8 {
			err = r.missing(arg) // it may be the whole id of a session that is gone, and begin another's
		}
		var e *exitError
		if errors.As(err, &e) {
			a.exitCode(err) // prints it
			missed++
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, missed, nil
}

// matching returns the ids of the sessions that the conditions mean, and how many files could not be read.
func (a *app) matching(ctx context.Context, r *reader, conditions []condition) (ids []string, unread int, err error) {
	bar := a.progress(ctx, r, "reading")
	defer bar.done()
	for e, err := range r.all(ctx) {
		bar.add()
		switch {
		case err != nil && e.id == "":
			return nil, 0, err
		case err != nil:
			unread++
		case len(conditions) == 0 || holds(conditions, e.document()):
			ids = append(ids, strings.Clone(e.id))
		}
	}
	return ids, unread, nil
}

// still reads a listed session again: meanwhile it may have ended, or become another user's.
func (a *app) still(r *reader, id string, conditions []condition) bool {
	e, err := r.read(a.ext.File(id))
	return err == nil && holds(conditions, e.document())
}

// ask returns nil for yes.
func (a *app) ask(ctx context.Context, question string) error {
	fmt.Fprint(a.err, question)
	answer, err := await(ctx, func() (string, error) { return bufio.NewReader(a.in).ReadString('\n') })
	if err != nil {
		fmt.Fprintln(a.err) // after Ctrl-C and Ctrl-D the cursor is still behind the question
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was ended")
}

// end destroys the sessions for which still holds. It goes on after an error and returns the first. One flush
// at the end commits all removals.
func (a *app) end(ctx context.Context, r *reader, ids []string, still func(id string) bool) (ended, failed int, first error) {
	if len(ids) == 0 {
		return 0, 0, nil
	}
	s, err := a.open(filestore.Options{NoSync: true})
	if err != nil {
		return 0, len(ids), err
	}
	defer s.Close()
	defer func() {
		if err := r.dir.Sync(); err != nil && first == nil {
			first = fmt.Errorf("a power cut may undo this: %w", cause(err))
		}
	}()
	bar := a.progressOf("ending", func() int { return len(ids) })
	defer bar.done()
	for i, id := range ids {
		if ctx.Err() != nil {
			return ended, failed + len(ids) - i, ctx.Err()
		}
		bar.add()
		if !still(id) {
			continue
		}
		if err := s.Destroy(ctx, id); err != nil {
			failed++
			if first == nil {
				first = fmt.Errorf("%s: %w", a.id(id), readOnlyHere(err))
			}
			if errors.Is(err, filestore.ErrClosed) {
				return ended, failed, first
			}
			continue
		}
		ended++
	}
	return ended, failed, first
}
