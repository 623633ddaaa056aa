package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/lock"
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
them back. Files that hold no session stay, and so does what a destroyed session has left. A session that
is made meanwhile may survive: switch off the login before rm --all.

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
				if err := a.noPath(cmd, arg); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: a.completeIDs(0, nil),
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
	var all []found
	var missed int
	if len(args) > 0 {
		all, missed, err = a.named(ctx, r, args, f.yes)
	} else {
		all, missed, err = a.matching(ctx, r, conditions)
	}
	if err != nil {
		return err
	}
	if len(all) > 0 && !f.yes {
		if err := a.ask(ctx, fmt.Sprintf("End %s? [y/N] ", plural(len(all), "session"))); err != nil {
			return err
		}
	}
	ended, failed, err := a.end(ctx, r, all, conditions)
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
	case failed > 0:
		return wrong("%s could not be ended: %w", plural(failed, "session"), err)
	case err != nil:
		return wrong("%w", err)
	case missed > 0 && len(args) == 0:
		return wrong("%s could not be read and may be among those meant; filestore check says which", plural(missed, "session file"))
	case missed > 0:
		return &exitError{exitWrong, errors.New("")} // each has been printed
	}
	return nil
}

// A found is a session to end.
type found struct {
	id    string
	named bool      // by its id: it ends whatever its file holds
	seen  disk.Seen // the file that was read, if it is not named
}

// named returns the sessions that args name, and how many args name none.
func (a *app) named(ctx context.Context, r *reader, args []string, unasked bool) (all []found, missed int, err error) {
	seen := make(map[string]bool)
	for _, arg := range args {
		id, err := r.find(ctx, arg)
		if given := strings.TrimSuffix(arg, ellipsis); err == nil && unasked && id != given && len(given) < 8 {
			// It may be the whole id of a session that is gone, and begin another's.
			err = wrong("%w: %s; unasked, a shortened id needs 8 characters or more", filestore.ErrNotFound, show(given))
		}
		if err == nil && !seen[id] {
			if e, readErr := r.read(a.ext.File(id)); readErr == nil && e.destroyed() { // a slow request would bring it back
				err = wrong("%s: destroyed already; what is left goes by itself", a.id(id))
			}
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
			all = append(all, found{id: id, named: true})
		}
	}
	return all, missed, nil
}

// matching returns the sessions that the conditions mean, and how many files could not be read.
func (a *app) matching(ctx context.Context, r *reader, conditions []condition) (all []found, unread int, err error) {
	bar := a.progress(ctx, r, "reading")
	defer bar.done()
	for e, err := range r.all(ctx) {
		bar.add()
		switch {
		case err != nil && e.id == "":
			return nil, 0, err
		case err != nil:
			unread++
		case e.means(conditions):
			all = append(all, found{id: strings.Clone(e.id), seen: e.info.Seen(e.file)})
		}
	}
	return all, unread, nil
}

// means reports whether the session is one of those that the conditions mean.
func (e *entry) means(conditions []condition) bool {
	return !e.destroyed() && (len(conditions) == 0 || holds(conditions, e.document()))
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

// end ends the sessions, but for those that have become others since they were found. It goes on after an error and
// returns the first. One flush of the directory at the end commits all removals.
func (a *app) end(ctx context.Context, r *reader, all []found, conditions []condition) (ended, failed int, first error) {
	if len(all) == 0 {
		return 0, 0, nil
	}
	w, err := a.writer(disk.Options{})
	if err != nil {
		return 0, len(all), err
	}
	defer w.close()
	defer func() {
		if err := w.dir.Sync(); err != nil && first == nil {
			first = fmt.Errorf("a power cut may undo this: %w", cause(err))
		}
	}()
	bar := a.progressOf("ending", func() int { return len(all) })
	defer bar.done()
	for i, f := range all {
		if ctx.Err() != nil {
			return ended, failed + len(all) - i, ctx.Err()
		}
		bar.add()
		switch err := a.endOne(ctx, r, w, f, conditions); {
		case err == nil:
			ended++
		case errors.Is(err, fs.ErrNotExist):
		default:
			failed++
			if first == nil {
				first = fmt.Errorf("%s: %w", a.id(f.id), readOnlyHere(cause(err)))
			}
		}
	}
	return ended, failed, first
}

// endOne ends one session. The error is fs.ErrNotExist if it has ended meanwhile, or become another user's. A file that
// has not changed since is not read again.
func (a *app) endOne(ctx context.Context, r *reader, w *writer, f found, conditions []condition) error {
	if f.named {
		err := w.destroy(ctx, f.id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	again := false
	return lock.Again(ctx, lockTimeout, func() error {
		if again {
			e, err := r.read(a.ext.File(f.id))
			switch {
			case errors.Is(err, filestore.ErrNotFound):
				return fs.ErrNotExist
			case err != nil: // it was meant, and may still be
				return err
			case !e.means(conditions):
				return fs.ErrNotExist
			}
			f.seen = e.info.Seen(e.file)
		}
		again = true
		return w.remove(ctx, f.id, f.seen)
	})
}
