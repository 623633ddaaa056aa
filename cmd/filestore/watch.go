package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/fsnotify/fsnotify"
	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "watch [DIR]",
		SuggestFor: []string{"tail", "follow", "monitor", "events"},
		Short:      "Print changes of sessions as they happen",
		Long: `watch prints a line for each change of a session by any process, until Ctrl-C: the time, "changed"
(made or written) or "destroyed" (ended, or removed by anybody), and the id. One change may give
several lines, and several changes one line. Under load the system drops some; watch then says so on
stderr.`,
		Example: `  filestore watch
  filestore watch --json | jq 'select(.op == "destroyed")'`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.watch(cmd.Context()) },
	}
}

func (a *app) watch(ctx context.Context) error {
	s, err := a.open(filestore.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	for ev, err := range s.Watch(ctx) {
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			fmt.Fprintln(a.err, "filestore: watch: the system dropped events; some changes were not printed")
			continue
		}
		if err != nil {
			return bare(err)
		}
		if err := a.event(ev); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) event(ev filestore.Event) error {
	now := a.now()
	if a.json {
		return a.printJSON(struct {
			Time string       `json:"time"`
			Op   filestore.Op `json:"op"`
			ID   string       `json:"id"`
		}{jsonTime(now.UnixMilli()), ev.Op, a.id(ev.ID)})
	}
	op := fmt.Sprintf("%-9s", ev.Op)
	if ev.Op == filestore.Destroyed {
		op = a.paint(red, op)
	}
	_, err := fmt.Fprintf(a.out, "%s  %s  %s\n", now.Local().Format("15:04:05.000"), op, a.id(ev.ID))
	return err
}
