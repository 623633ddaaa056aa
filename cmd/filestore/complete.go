package main

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
)

// What the shell's TAB completes. It looks into the directory as the commands that only look do, and never for long: of
// many sessions it sees some.

var hurry = 400 * time.Millisecond // tests change it

const (
	offered = 100    // so many are offered
	listed  = 10_000 // so many ids are compared with each other
	sampled = 200    // so many sessions are asked for their members
)

type completer = cobra.CompletionFunc

const nothingElse = cobra.ShellCompDirectiveNoFileComp

// completeDir completes the directory of a command that takes no other argument.
func completeDir(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, nothingElse
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// completeFlags completes the values of the flags of all commands.
func (a *app) completeFlags(root *cobra.Command) {
	urls := []cobra.Completion{"redis://", "rediss://", "postgres://", "mysql://", "mongodb://", "env:"}
	sorts := []cobra.Completion{"id", "ends", "access", "size", "-id", "-ends", "-access", "-size"}
	fixed := func(all ...cobra.Completion) completer {
		return cobra.FixedCompletions(all, nothingElse|cobra.ShellCompDirectiveNoSpace)
	}
	for name, complete := range map[string]completer{
		"show":  a.completeList,
		"where": a.completeMembers("="),
		"by":    a.completeMembers(""),
		"sort":  cobra.FixedCompletions(sorts, nothingElse),
		"from":  fixed(append([]cobra.Completion{"file:"}, urls...)...),
		"to":    fixed(append([]cobra.Completion{"file:"}, urls...)...),
		"store": fixed(urls...),
		"ext":   cobra.NoFileCompletions, "ttl": cobra.NoFileCompletions, "lifetime": cobra.NoFileCompletions,
		"older": cobra.NoFileCompletions, "limit": cobra.NoFileCompletions, "port": cobra.NoFileCompletions,
	} {
		for _, c := range append(root.Commands(), root) {
			if c.LocalNonPersistentFlags().Lookup(name) != nil || c == root && c.PersistentFlags().Lookup(name) != nil {
				c.RegisterFlagCompletionFunc(name, complete)
			}
		}
	}
	root.MarkPersistentFlagDirname("dir")
}

// hurried calls look with a reader of the directory that the command line names so far. Whatever look has found when the
// time is over is what there is to offer.
func (a *app) hurried(cmd *cobra.Command, args []string, look func(context.Context, *reader)) {
	if strings.Contains(cmd.Use, "[DIR]") && len(args) > 0 && a.useDir(args[0], "") != nil {
		return
	}
	ctx, stop := context.WithTimeout(cmd.Context(), hurry)
	defer stop()
	hasty := *a
	hasty.ctx = ctx // a file of secrets may be a pipe
	r, err := hasty.reader()
	if err != nil {
		return
	}
	defer r.close()
	look(ctx, r)
}

// completeIDs completes the ids of a command that takes up to most of them, 0 for any number. What follows them is
// completed by next, which may be nil.
func (a *app) completeIDs(most int, next completer) completer {
	return func(cmd *cobra.Command, args []string, begun string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			if next == nil {
				return nil, nothingElse
			}
			return next(cmd, args, begun)
		}
		a.hurried(cmd, args, func(ctx context.Context, r *reader) { all = r.offerIDs(ctx, args, begun) })
		return all, nothingElse
	}
}

// offerIDs returns shortened ids that begin so, and whose sessions they are. Those that begin with a dash are for whoever
// has typed one, behind two dashes.
func (r *reader) offerIDs(ctx context.Context, given []string, begun string) (all []cobra.Completion) {
	var ids []string
	for name, err := range r.names(ctx) {
		if err != nil || len(ids) == listed {
			break
		}
		id, ok := r.idOf(name)
		if ok && strings.HasPrefix(id, begun) && (begun != "" || id[0] != '-') {
			ids = append(ids, strings.Clone(id))
		}
	}
	slices.Sort(ids)
	// If they are too many, then some from everywhere: a shell types what all that are offered begin with.
	n := min(len(ids), offered)
	for i := range n {
		at := i
		if n > 1 {
			at = i * (len(ids) - 1) / (n - 1)
		}
		if slices.ContainsFunc(given, func(arg string) bool { return strings.HasPrefix(ids[at], arg) }) {
			continue
		}
		if text, ok := r.describe(ctx, ids[at]); ok {
			all = append(all, cobra.CompletionWithDesc(shortest(ids, at, len(begun)), text))
		}
	}
	if len(ids) > n {
		all = cobra.AppendActiveHelp(all, "These are some of the sessions: type more of the id")
	}
	return all
}

// shortest returns what tells ids[at] from its neighbours: 8 characters, unless more are needed, or have been typed.
func shortest(ids []string, at, typed int) string {
	n := max(8, typed)
	for _, i := range []int{at - 1, at + 1} {
		if i < 0 || i >= len(ids) {
			continue
		}
		same := 0
		for same < min(len(ids[i]), len(ids[at])) && ids[i][same] == ids[at][same] {
			same++
		}
		n = max(n, same+1)
	}
	return ids[at][:min(n, len(ids[at]))]
}

// describe says whose session it is, if there is time. It returns false if it is not a session.
func (r *reader) describe(ctx context.Context, id string) (string, bool) {
	if ctx.Err() != nil {
		return "", true
	}
	e, err := r.read(r.a.ext.File(id))
	switch {
	case err != nil:
		return "cannot be read", true
	case e.destroyed():
		return "", false
	case e.expired:
		return "expired", true
	}
	doc := e.document()
	for _, path := range []string{"user", "passport.user", "email", "username"} {
		if v := gjson.Get(doc, path); v.Type == gjson.String || v.Type == gjson.Number {
			return show(cut(v.String(), widest)), true
		}
	}
	return "", true
}

// completeList completes the last of a list of members.
func (a *app) completeList(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	comma := strings.LastIndexByte(begun, ',') + 1
	all, _ := a.completeMembers("")(cmd, args, begun[comma:])
	for i := range all {
		all[i] = begun[:comma] + all[i]
	}
	return all, nothingElse | cobra.ShellCompDirectiveNoSpace
}

// completeMembers completes the path of a member, with end behind it.
func (a *app) completeMembers(end string) completer {
	return func(cmd *cobra.Command, args []string, begun string) (all []cobra.Completion, directive cobra.ShellCompDirective) {
		if directive = nothingElse; end != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		a.hurried(cmd, args, func(ctx context.Context, r *reader) {
			names := make(map[string]bool)
			n := 0
			for e, err := range r.all(ctx) {
				if n++; n > sampled || err != nil && e.id == "" {
					break
				}
				if err == nil && !e.destroyed() {
					gather(names, "", gjson.Parse(e.document()))
				}
			}
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if strings.HasPrefix(name, begun) && (begun != "" || own(name)) {
					all = append(all, name+end)
				}
			}
		})
		return all[:min(len(all), offered)], directive
	}
}

// completeKey completes the name of a member of the session that the first argument names.
func (a *app) completeKey(cmd *cobra.Command, args []string, begun string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, nothingElse
	}
	a.hurried(cmd, args, func(ctx context.Context, r *reader) {
		id, err := r.find(ctx, args[0])
		if err != nil {
			return
		}
		e, err := r.read(r.a.ext.File(id))
		if err != nil {
			return
		}
		for name := range e.sess.Values {
			if plainName.MatchString(name) && strings.HasPrefix(name, begun) && (begun != "" || own(name)) {
				all = append(all, name)
			}
		}
	})
	slices.Sort(all)
	return all[:min(len(all), offered)], nothingElse
}

// A plain name means the same to a path and to every shell.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

// own reports whether a member is the application's, which is what one looks for.
func own(name string) bool {
	return !strings.HasPrefix(name, "__") && name != "cookie" && !strings.HasPrefix(name, "cookie.")
}

// gather adds the paths of the members of doc, and of the objects in it.
func gather(names map[string]bool, path string, doc gjson.Result) {
	doc.ForEach(func(key, value gjson.Result) bool {
		name := key.String()
		if !plainName.MatchString(name) || len(names) > listed {
			return true
		}
		names[path+name] = true
		if path == "" && value.IsObject() {
			gather(names, name+".", value)
		}
		return true
	})
}
