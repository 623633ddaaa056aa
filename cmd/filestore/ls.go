package main

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type lsFlags struct {
	show    []string
	where   []string
	sort    string
	expired bool
	older   age
	limit   int
}

func (a *app) lsCommand() *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:        "ls [DIR]",
		Aliases:    []string{"list"},
		SuggestFor: []string{"find", "search", "grep", "dir"},
		Short:      "List the sessions",
		Long: `ls lists the sessions: the id, when the session ends, its last access, the size of its file, and the
members named with --show. A "-" stands for a member that a session does not have. Expired sessions that
were not reaped yet are in red. "destroyed" is what package scsstore leaves of a session for a while.

Without --sort rows come in the directory's order, as the files are read.

` + pathHelp + `

Session files that cannot be read are counted on stderr, and the exit code is then 1; check names them.`,
		Example: `  filestore ls --show user,email
  filestore ls --where user=anna --where 'role!=guest'
  filestore ls --sort -size --limit 10
  filestore ls --older 2d --json --full | jq -r .id
  filestore ls --expired`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.ls(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.show, "show", nil, "`PATHS` of members to show: user,email")
	fs.StringArrayVar(&f.where, "where", nil, whereHelp)
	fs.StringVar(&f.sort, "sort", "", "`ORDER`: id, ends, access or size; a minus in front puts the largest or latest first")
	fs.BoolVar(&f.expired, "expired", false, "only sessions that have expired")
	fs.Var(&f.older, "older", "only sessions whose last access is at least this `AGE` ago: 90m, 36h, 2d, 1w")
	fs.IntVar(&f.limit, "limit", 0, "at most `N` sessions; 0 = all")
	return cmd
}

// A row is the part of a session that ls keeps.
type row struct {
	id           string
	ends, access int64 // milliseconds since 1970
	size         int64
	expired      bool
	destroyed    bool     // what is left of a session
	shown        []string // the values of --show, as they are printed
}

func (a *app) ls(ctx context.Context, f lsFlags) error {
	conditions, err := parseConditions(f.where)
	if err != nil {
		return err
	}
	if f.show, err = splitPaths(f.show); err != nil {
		return err
	}
	order, err := rowOrder(f.sort)
	if err != nil {
		return err
	}
	if f.limit < 0 {
		return fmt.Errorf("--limit %d: it is below zero", f.limit)
	}
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	p := a.newLister(f.show)
	var k *keeper
	put := p.print
	bar := noBar
	if order != nil {
		k = &keeper{limit: f.limit, order: order}
		put = k.put
		bar = a.progress(ctx, r, "reading")
	}
	printed, unread, others := 0, 0, ""
	for e, err := range r.all(ctx) {
		bar.add()
		if err != nil && e.id == "" {
			bar.done()
			return err
		}
		if err != nil {
			unread++
			continue
		}
		if !f.wants(a.now(), conditions, &e) {
			others = "such "
			continue
		}
		if err := put(a.row(&e, f.show)); err != nil {
			return err
		}
		if printed++; order == nil && printed == f.limit {
			break
		}
	}
	bar.done()
	if k != nil {
		for _, row := range k.sorted() {
			if err := p.print(row); err != nil {
				return err
			}
		}
	}
	if err := p.table.flush(); err != nil {
		return err
	}
	if printed+unread == 0 && a.paints && !a.json { // a person may have taken another directory for that of the sessions
		fmt.Fprintf(a.err, "no %ssessions in %s\n", others, given(a.dir))
	}
	if unread > 0 {
		return wrong("%s could not be read; filestore check says which", plural(unread, "session file"))
	}
	return nil
}

func (f *lsFlags) wants(now time.Time, conditions []condition, e *entry) bool {
	if f.expired && (!e.expired || e.destroyed()) || f.older > 0 && now.Sub(e.lastAccess) < time.Duration(f.older) {
		return false
	}
	return len(conditions) == 0 || holds(conditions, e.document())
}

func (a *app) row(e *entry, show []string) row {
	w := row{id: e.id, ends: e.ends.UnixMilli(), access: e.lastAccess.UnixMilli(), size: e.info.Size, expired: e.expired && !e.destroyed(), destroyed: e.destroyed()}
	if len(show) == 0 {
		return w
	}
	doc := e.document()
	for _, path := range show {
		if a.json {
			w.shown = append(w.shown, strings.Clone(string(raw(doc, path)))) // a part of doc would keep all of it
		} else {
			w.shown = append(w.shown, strings.Clone(a.value(doc, path)))
		}
	}
	return w
}

// A lister prints rows.
type lister struct {
	a     *app
	show  []string
	table *table
}

func (a *app) newLister(paths []string) *lister {
	heads := []string{"ID", ">ENDS IN", ">LAST ACCESS", ">SIZE"}
	for _, path := range paths {
		heads = append(heads, strings.ToUpper(show(path)))
	}
	return &lister{a, paths, a.newTable(heads...)}
}

// jsonTime formats a time for --json.
func jsonTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// shownJSON returns the values of the paths for --json; nil if there are none to show.
func shownJSON(paths, values []string) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	all := make(map[string]json.RawMessage)
	for i, v := range values {
		if v != "" {
			all[paths[i]] = json.RawMessage(v)
		}
	}
	return all
}

func (p *lister) print(w row) error {
	if p.a.json {
		out := struct {
			ID         string                     `json:"id"`
			Ends       string                     `json:"ends"`
			LastAccess string                     `json:"lastAccess"`
			Size       int64                      `json:"size"`
			Expired    bool                       `json:"expired"`
			Destroyed  bool                       `json:"destroyed,omitempty"`
			Show       map[string]json.RawMessage `json:"show,omitempty"`
		}{ID: p.a.id(w.id), Ends: jsonTime(w.ends), LastAccess: jsonTime(w.access), Size: w.size, Expired: w.expired, Destroyed: w.destroyed, Show: shownJSON(p.show, w.shown)}
		return p.a.printJSON(out)
	}
	now := p.a.now()
	ends := "expired"
	switch {
	case w.destroyed:
		ends = "destroyed"
	case !w.expired:
		ends = short(time.UnixMilli(w.ends).Sub(now))
	}
	cells := append([]string{p.a.id(w.id), ends, short(now.Sub(time.UnixMilli(w.access))) + " ago", size(w.size)}, w.shown...)
	return p.table.add(w.expired, cells...)
}

// rowOrder returns the order for --sort; nil if none was asked for. The id decides between equals.
func rowOrder(by string) (func(a, b row) int, error) {
	key, down := strings.CutPrefix(by, "-")
	var compare func(a, b row) int
	switch key {
	case "":
		if down {
			break
		}
		return nil, nil
	case "id":
		compare = func(a, b row) int { return strings.Compare(a.id, b.id) }
	case "ends":
		compare = func(a, b row) int { return cmp.Compare(a.ends, b.ends) }
	case "access":
		compare = func(a, b row) int { return cmp.Compare(a.access, b.access) }
	case "size":
		compare = func(a, b row) int { return cmp.Compare(a.size, b.size) }
	}
	if compare == nil {
		return nil, fmt.Errorf("--sort %s: it is not id, ends, access or size", given(by))
	}
	return func(a, b row) int {
		c := compare(a, b)
		if down {
			c = -c
		}
		return cmp.Or(c, strings.Compare(a.id, b.id))
	}, nil
}

// A keeper keeps the first rows in an order: limit of them, in a heap with the last on top; all if limit
// is 0.
type keeper struct {
	limit int
	order func(a, b row) int
	rows  []row
}

func (k *keeper) put(w row) error {
	switch {
	case k.limit == 0:
		k.rows = append(k.rows, w)
	case len(k.rows) < k.limit:
		heap.Push(k, w)
	case k.order(w, k.rows[0]) < 0:
		k.rows[0] = w
		heap.Fix(k, 0)
	}
	return nil
}

func (k *keeper) sorted() []row {
	slices.SortFunc(k.rows, k.order)
	return k.rows
}

func (k *keeper) Len() int           { return len(k.rows) }
func (k *keeper) Less(i, j int) bool { return k.order(k.rows[i], k.rows[j]) > 0 }
func (k *keeper) Swap(i, j int)      { k.rows[i], k.rows[j] = k.rows[j], k.rows[i] }
func (k *keeper) Push(w any)         { k.rows = append(k.rows, w.(row)) }
func (k *keeper) Pop() any {
	last := k.rows[len(k.rows)-1]
	k.rows = k.rows[:len(k.rows)-1]
	return last
}
