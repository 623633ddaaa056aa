package main

import (
	"context"
	"fmt"

	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

func (a *app) reapCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:        "reap [DIR]",
		SuggestFor: []string{"gc", "clean", "cleanup", "prune", "purge", "expire"},
		Short:      "Remove the sessions that have expired",
		Long: `reap makes one pass over the directory, as the background reaper of a program does: it removes the
sessions that have expired, and the temporary files of writers that died. Sessions without a maxAge go
by --ttl. If a file's modification time lies ahead, the session stays until then, whatever --ttl says:
the program that wrote it has a longer TTL. Files that cannot be read stay, and so does everything else.

With --dry-run it lists what it would remove, and changes nothing. More sessions may end before you run
it again.`,
		Example: `  filestore reap --dry-run
  filestore reap --ttl 24h`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry {
				return a.reapDry(cmd.Context())
			}
			return a.reap(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "list what would be removed")
	return cmd
}

func (a *app) reap(ctx context.Context) error {
	s, err := a.open(filestore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	stop := a.spin("reaping")
	n, err := s.Reap(ctx)
	stop()
	if err != nil && n == 0 {
		return readOnlyHere(err)
	}
	if a.json {
		a.printJSON(map[string]int{"reaped": n})
	} else {
		fmt.Fprintf(a.out, "reaped %s\n", plural(n, "session"))
	}
	if err != nil {
		return wrong("%w", readOnlyHere(err))
	}
	return nil
}

func (a *app) reapDry(ctx context.Context) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	t := a.newTable("ID", ">EXPIRED", ">SIZE")
	bar := a.progress(ctx, r, "reading")
	defer bar.done()
	sessions, temps := 0, 0
	for name, err := range r.names(ctx) {
		if err != nil {
			return err
		}
		if _, ok := r.idOf(name); !ok {
			if r.leftover(name) {
				temps++
			}
			continue
		}
		bar.add()
		e, err := r.read(name)
		if err != nil || !e.expired || e.notDue(a.now()) {
			continue
		}
		sessions++
		if a.json {
			err = a.printJSON(struct {
				ID      string `json:"id"`
				Expired string `json:"expired"`
				Size    int64  `json:"size"`
			}{a.id(e.id), jsonTime(e.ends.UnixMilli()), e.info.Size})
		} else {
			err = t.add(false, a.id(e.id), short(a.now().Sub(e.ends))+" ago", size(e.info.Size))
		}
		if err != nil {
			return err
		}
	}
	bar.done()
	if err := t.flush(); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]int{"sessions": sessions, "temporaries": temps})
	}
	fmt.Fprintf(a.out, "would reap %s and remove %s\n", plural(sessions, "session"), plural(temps, "temporary file"))
	return nil
}

// leftover reports whether name is a temporary file that a reaper would remove.
func (r *reader) leftover(name string) bool {
	i, err := r.dir.Stat(name)
	if err != nil || !i.Mode.IsRegular() {
		return false
	}
	id, node := r.a.ext.NodeTemp(name)
	return !(node && r.claimed(id)) && r.a.ext.Leftover(name, i.ModTime(), i.ChangeTime(), r.a.now())
}
