package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
)

func (a *app) statCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:        "stat [DIR]",
		Aliases:    []string{"stats"},
		SuggestFor: []string{"count", "status", "info"},
		Short:      "Count the sessions",
		Long: fmt.Sprintf(`stat counts the sessions: how many are alive, how many have expired and wait for the reaper, how many
files cannot be read, how large they are, and for how long they will live. With --by it counts the live
sessions for each value of a member, and prints the %d values that most sessions have.

To save memory, --by tells only the first %d values apart, by their first %d bytes; it counts the
sessions with other values together.

`, top, distinct, longest) + pathHelp,
		Example: `  filestore stat
  filestore stat --by user
  filestore stat --json | jq .expired`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.stat(cmd.Context(), by) },
	}
	cmd.Flags().StringVar(&by, "by", "", "count by the values of the member with this `PATH`")
	return cmd
}

const (
	top      = 20
	distinct = 50_000
	longest  = 200 // bytes of a value; with distinct this bounds the memory
)

// A histogram counts in ranges. Each range ends before its limit; the last has no limit.
type histogram struct {
	limits []int64
	counts []int
}

func newHistogram(limits ...int64) *histogram {
	return &histogram{limits, make([]int, len(limits)+1)}
}

func (h *histogram) add(v int64) {
	i, _ := slices.BinarySearchFunc(h.limits, v, func(limit, v int64) int {
		if limit <= v {
			return -1
		}
		return 1
	})
	h.counts[i]++
}

var (
	lives = []int64{int64(time.Minute), int64(10 * time.Minute), int64(time.Hour), int64(6 * time.Hour), int64(day), int64(7 * day), int64(30 * day), int64(365 * day)}
	sizes = []int64{256, 512, 1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}
)

// counts is the result of stat.
type counts struct {
	live, expired  int
	destroyed      int // files that destroyed sessions have left
	bytes, largest int64
	unreadable     map[string]int // by reason
	life, size     *histogram

	// For --by: the values told apart, the sessions that have no such member, and those with other values.
	by            map[string]int
	without, more int
}

func (a *app) stat(ctx context.Context, by string) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	c := &counts{unreadable: make(map[string]int), life: newHistogram(lives...), size: newHistogram(sizes...), by: make(map[string]int)}
	bar := a.progress(ctx, r, "reading")
	defer bar.done()
	for e, err := range r.all(ctx) {
		bar.add()
		switch {
		case err != nil && e.id == "":
			return err
		case err != nil:
			c.unreadable[whyUnread(err)]++
		default:
			c.add(a.now(), &e, by)
		}
	}
	bar.done()
	if a.json {
		return a.printJSON(c.object(by))
	}
	return a.printCounts(c, by)
}

func (c *counts) add(now time.Time, e *entry, by string) {
	if e.destroyed() {
		c.destroyed++
		return
	}
	n := e.info.Size
	c.bytes += n
	c.largest = max(c.largest, n)
	c.size.add(n)
	if e.expired {
		c.expired++
		return
	}
	c.live++
	c.life.add(int64(e.ends.Sub(now)))
	if by == "" {
		return
	}
	v := gjson.Get(e.document(), by)
	if !v.Exists() {
		c.without++
		return
	}
	s := v.String()
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + ellipsis
	}
	if _, known := c.by[s]; known || len(c.by) < distinct {
		c.by[strings.Clone(s)]++
	} else {
		c.more++
	}
}

// most returns the values that the most sessions have.
func (c *counts) most() []string {
	values := slices.SortedFunc(maps.Keys(c.by), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.by[b], c.by[a]), strings.Compare(a, b))
	})
	return values[:min(top, len(values))]
}

type valueCount struct {
	Value    string `json:"value"`
	Sessions int    `json:"sessions"`
}

type rangeCount struct {
	Below    *int64 `json:"below"` // null: the rest
	Sessions int    `json:"sessions"`
}

func (h *histogram) object(unit int64) (out []rangeCount) {
	for i, n := range h.counts {
		var below *int64
		if i < len(h.limits) {
			limit := h.limits[i] / unit
			below = &limit
		}
		out = append(out, rangeCount{below, n})
	}
	return out
}

func (c *counts) object(by string) any {
	type byObject struct {
		Path    string       `json:"path"`
		Values  int          `json:"values"` // told apart
		Top     []valueCount `json:"top"`
		Without int          `json:"without"`
		More    int          `json:"more"`
	}
	out := struct {
		Sessions   int            `json:"sessions"`
		Expired    int            `json:"expired"`
		Destroyed  int            `json:"destroyed,omitempty"`
		Bytes      int64          `json:"bytes"`
		Largest    int64          `json:"largest"`
		Unreadable map[string]int `json:"unreadable"`
		Seconds    []rangeCount   `json:"remainingSeconds"`
		Sizes      []rangeCount   `json:"sizes"`
		By         *byObject      `json:"by,omitempty"`
	}{c.live, c.expired, c.destroyed, c.bytes, c.largest, c.unreadable, c.life.object(int64(time.Second)), c.size.object(1), nil}
	if by != "" {
		out.By = &byObject{by, len(c.by), []valueCount{}, c.without, c.more}
		for _, v := range c.most() {
			out.By.Top = append(out.By.Top, valueCount{v, c.by[v]})
		}
	}
	return out
}

func (a *app) printCounts(c *counts, by string) error {
	line := func(name, text string) {
		fmt.Fprintf(a.out, "%-10s  %s\n", name, text)
	}
	line("alive", plural(c.live, "session"))
	if c.expired > 0 {
		line("expired", a.paint(red, plural(c.expired, "session")+", to be reaped"))
	}
	if c.destroyed > 0 {
		line("destroyed", plural(c.destroyed, "session")+", of which a mark is left for a while")
	}
	for _, why := range slices.Sorted(maps.Keys(c.unreadable)) {
		line("unreadable", a.paint(red, plural(c.unreadable[why], "file")+": "+why))
	}
	if n := c.live + c.expired; n > 0 {
		line("size", fmt.Sprintf("%s in all, %s on average, the largest %s", size(c.bytes), size(c.bytes/int64(n)), size(c.largest)))
	}
	a.printHistogram("ENDS IN", c.life, func(n int64) string { return short(time.Duration(n)) })
	a.printHistogram("SIZE", c.size, size)
	if by == "" {
		return nil
	}
	fmt.Fprintf(a.out, "\n%s\n", a.paint(bold, "BY "+strings.ToUpper(show(by))))
	var bars []barLine
	for _, v := range c.most() {
		bars = append(bars, barLine{show(cut(v, widest)), c.by[v], true})
	}
	rest := func(name string, n int) {
		if n > 0 {
			bars = append(bars, barLine{name, n, false})
		}
	}
	rest(fmt.Sprintf("(%d more values)", len(c.by)-len(bars)), c.live-c.without-c.more-sum(bars))
	rest("(values not told apart)", c.more)
	rest("(no such member)", c.without)
	a.printBars(bars)
	return nil
}

// printHistogram leaves out the empty ranges at both ends.
func (a *app) printHistogram(head string, h *histogram, label func(int64) string) {
	first, last := -1, -1
	for i, n := range h.counts {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return
	}
	fmt.Fprintf(a.out, "\n%s\n", a.paint(bold, head))
	var bars []barLine
	for i := first; i <= last; i++ {
		name := "less than "
		n := i
		if i == len(h.limits) {
			name, n = "at least ", i-1
		}
		bars = append(bars, barLine{name + label(h.limits[n]), h.counts[i], true})
	}
	a.printBars(bars)
}

type barLine struct {
	name  string
	n     int
	drawn bool // false: only counted
}

func sum(bars []barLine) (n int) {
	for _, b := range bars {
		n += b.n
	}
	return n
}

const barWidth = 40

// printBars draws each number beside the others, in eighths of a character.
func (a *app) printBars(bars []barLine) {
	name, digits, most := 0, 0, 1
	for _, b := range bars {
		name = max(name, utf8.RuneCountInString(b.name))
		digits = max(digits, len(fmt.Sprint(b.n)))
		if b.drawn {
			most = max(most, b.n)
		}
	}
	for _, b := range bars {
		eighths := 0
		if b.drawn {
			eighths = (b.n*barWidth*8 + most - 1) / most // every number above 0 gets a mark
		}
		block := strings.Repeat("█", eighths/8)
		if eighths%8 > 0 {
			block += string([]rune("▏▎▍▌▋▊▉")[eighths%8-1])
		}
		pad := strings.Repeat(" ", name-utf8.RuneCountInString(b.name))
		fmt.Fprintln(a.out, strings.TrimRight(fmt.Sprintf("%s%s  %*d  %s", b.name, pad, digits, b.n, block), " "))
	}
}
