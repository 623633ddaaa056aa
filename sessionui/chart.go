package sessionui

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file remembers what happened in the last hour and draws it.

const (
	minutes   = 60
	maxEvents = 20

	// What happened between two pictures that are further apart is not known by the minute. But looks that take long
	// are further apart.
	gap, slowGap = 2 * time.Minute, 60
)

// The ways in which a session can end, in the order of the chart.
const (
	byExpiry = iota
	byPage
	otherwise
	ways
)

// A minute is what the pictures since do not show any more: of the sessions that are gone.
type minute struct {
	at     int64 // minutes since 1970
	made   int
	ended  [ways]int
	errors int64
}

// An event is a line of the list.
type event struct {
	at   time.Time
	kind string
	row  *row
	gone bool
}

// A history is the last hour. What is alive says itself when it was made, so that the first picture knows that; what has
// ended is known from then on only.
type history struct {
	mu     sync.Mutex
	since  time.Time // from when on it is known what has ended
	ring   [minutes]minute
	events []event // the newest first

	errorsSince time.Time
	sampled     time.Time
	errors      int64
	own         int64           // of the page's own reads, which are no errors of the site
	ours        map[string]bool // ids that the page has ended and that a picture may still show
}

func (h *history) minute(t time.Time) *minute {
	at := t.Unix() / 60
	m := &h.ring[at%minutes]
	if m.at != at {
		*m = minute{at: at}
	}
	return m
}

// compare notes what is different in the next picture.
func (h *history) compare(was, next *picture) {
	complete := func(p *picture) bool { return p.whole && p.count() == len(p.rows) }
	if !complete(next) {
		return
	}
	if !complete(was) || next.at.Sub(was.at) > max(gap, slowGap*was.took) {
		h.mu.Lock()
		h.since = next.at
		h.mu.Unlock()
		return
	}
	gone := make(map[string]*row, len(was.rows))
	for _, r := range was.rows {
		gone[r.id] = r
	}
	now := make(map[string]*row)
	for _, r := range next.rows {
		if old := gone[r.id]; old == nil || r.usedSince(old) || old.trouble != r.trouble {
			now[r.id] = r
		} else {
			delete(gone, r.id)
		}
	}
	h.change(gone, now)
}

// change notes that some rows have others in their place, or none.
func (h *history) change(gone, now map[string]*row) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Now()
	fresh := make(map[int64]*row) // by when it was created, which stays if a session gets another id
	var events []event
	for id, r := range now {
		switch old := gone[id]; {
		case r == nil:
		case old == nil:
			if r.created != 0 {
				fresh[r.created] = r
			}
			events = append(events, event{at, "made", r, false})
		case r.trouble != nil && old.trouble == nil:
			events = append(events, event{at, "not readable", r, false})
		case r.usedSince(old):
			events = append(events, event{at, "used", r, false})
		}
	}
	for id, r := range gone {
		if now[id] != nil {
			continue
		}
		if next := fresh[r.created]; r.created != 0 && next != nil {
			delete(fresh, r.created)
			for i := range events {
				if events[i].row == next {
					events[i].kind = "given a new id"
				}
			}
			continue
		}
		kind, way, when := "ended", otherwise, at
		switch {
		case h.ours[id]:
			kind, way = "ended here", byPage
			delete(h.ours, id)
		case r.state(at) == expired:
			kind, way, when = "expired, removed", byExpiry, r.endsAt()
		}
		if within(at, when) {
			h.minute(when).ended[way]++
		}
		if made := moment(r.created); within(at, made) {
			h.minute(made).made++
		}
		events = append(events, event{at, kind, r, true})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(max(min(b.row.access-a.row.access, 1), -1)) })
	h.events = append(events, h.events...)
	h.events = slices.Clip(h.events[:min(len(h.events), maxEvents)])
}

// within reports whether t is in the hour before now.
func within(now, t time.Time) bool {
	return now.Unix()/60-t.Unix()/60 < minutes && !t.After(now)
}

// ending says that the page ends a session.
func (h *history) ending(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ours == nil || len(h.ours) > maxRows {
		h.ours = make(map[string]bool)
	}
	h.ours[id] = true
}

// sample counts errors. What came while nobody looked is not known by the minute, and left out.
func (h *history) sample(st filestore.Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, n := time.Now(), st.Unreadable+st.Timeouts-h.own
	if now.Sub(h.sampled) > gap {
		h.errorsSince = now
	} else {
		h.minute(now).errors += n - h.errors
	}
	h.sampled, h.errors = now, n
}

// met says that the page itself has met an unreadable session, which the store counts like any other.
func (h *history) met(err error) {
	if slices.ContainsFunc(troubles, func(t *trouble) bool { return errors.Is(err, t.is) }) {
		h.mu.Lock()
		h.own++
		h.mu.Unlock()
	}
}

// recent returns the last events.
func (h *history) recent() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// A chart is drawn in 240 times 60 units: four for a minute.
type chart struct {
	Title, Now, Unit string
	Says             string // for those who do not see it
	Area, Line       string // paths
	Bars             []bar
	Legend           []legend
	Unknown          int    // the width of what is not known, from the left
	Note             string // why there is nothing to see, or since when
	Foot             string
	Top              int // the value at the top
}

// Top64 is Top for the template's rough.
func (c chart) Top64() int64 { return int64(c.Top) }

type (
	bar    struct{ X, Y, Height, Way int }
	legend struct {
		Name  string
		Count int
		Way   int
	}
)

const (
	chartHeight = 60
	step        = 4
)

// charts draws the hour that ends now.
func (h *history) charts(p *picture, now time.Time, counts bool) []chart {
	var made, errs [minutes]int
	var ended [ways][minutes]int
	index := func(t time.Time) int { return minutes - 1 - int(now.Unix()/60-t.Unix()/60) }
	live := 0
	for _, r := range p.rows {
		state := r.state(now)
		if state == alive {
			live++
		}
		if t := moment(r.created); within(now, t) {
			made[index(t)]++
		}
		if t := r.endsAt(); state == expired && within(now, t) {
			ended[byExpiry][index(t)]++
		}
	}
	live += p.rest.Live
	h.mu.Lock()
	since, errorsSince := h.since, h.errorsSince
	for _, m := range h.ring {
		if i := minutes - 1 - int(now.Unix()/60-m.at); 0 <= i && i < minutes {
			made[i] += m.made
			errs[i] += int(m.errors)
			for way, n := range m.ended {
				ended[way][i] += n
			}
		}
	}
	h.mu.Unlock()

	var lives [minutes]int
	lives[minutes-1] = live
	for i := minutes - 2; i >= 0; i-- {
		lives[i] = lives[i+1] - made[i+1]
		for way := range ways {
			lives[i] += ended[way][i+1]
		}
		lives[i] = max(lives[i], 0)
	}
	unknownTo := func(t time.Time) int { // units from the left
		if t.IsZero() {
			return minutes * step
		}
		return min(max(index(t), 0), minutes) * step
	}
	sinceNote := func(t time.Time) string {
		if unknownTo(t) == 0 {
			return ""
		}
		return "known since " + t.UTC().Format("15:04 UTC")
	}
	charts := []chart{
		{Title: "Live sessions", Now: fmt.Sprint(live), Says: fmt.Sprintf("%d now, %d an hour ago of those that are known", live, lives[0]), Foot: fmt.Sprintf("%d an hour ago", lives[0])},
		{Title: "Made a minute", Now: fmt.Sprint(total(made)), Unit: "in the hour", Says: fmt.Sprintf("%d in the last hour, at most %d in a minute", total(made), slices.Max(made[:])),
			Foot: fmt.Sprintf("%.1f a minute on average", float64(total(made))/minutes)},
		{Title: "Ended a minute", Unit: "in the hour", Unknown: unknownTo(since), Note: sinceNote(since)},
		{Title: "Errors a minute", Now: fmt.Sprint(total(errs)), Unit: "in the hour", Unknown: unknownTo(errorsSince), Note: sinceNote(errorsSince),
			Says: fmt.Sprintf("%d in the last hour: sessions that could not be read, and locks that were not free in time", total(errs)), Foot: "unreadable, or lock not free"},
	}
	charts[0].line(lives[:], unknownTo(since))
	charts[0].Note = sinceNote(since)
	if charts[0].Note != "" {
		charts[0].Foot = fmt.Sprintf("at least %d an hour ago", lives[0])
	}
	charts[1].bars(made)
	all := 0
	for way, name := range []string{"expired", "here", "otherwise"} {
		n := total(ended[way])
		all += n
		charts[2].Legend = append(charts[2].Legend, legend{name, n, way})
	}
	charts[2].Now = fmt.Sprint(all)
	charts[2].Says = fmt.Sprintf("%d in the last hour: %d expired, %d were ended here, %d otherwise, as by a logout", all, charts[2].Legend[0].Count, charts[2].Legend[1].Count, charts[2].Legend[2].Count)
	charts[2].bars(ended[:]...)
	charts[3].bars(errs)
	if !counts {
		charts[3] = chart{Title: "Errors a minute", Now: unknown, Says: "Errors are not counted here.", Note: "not counted here"}
	}
	return charts
}

func total(values [minutes]int) (n int) {
	for _, v := range values {
		n += v
	}
	return n
}

// line draws the values, the known ones as an area too.
func (c *chart) line(values []int, from int) {
	c.Top = max(slices.Max(values), 1)
	var line, area strings.Builder
	for i, v := range values {
		x, y := i*step+step/2, chartHeight-v*(chartHeight-4)/c.Top
		fmt.Fprintf(&line, "%c%d %d", "ML"[min(i, 1)], x, y)
		if x >= from {
			if area.Len() == 0 {
				fmt.Fprintf(&area, "M%d %d", x, chartHeight)
			}
			fmt.Fprintf(&area, "L%d %d", x, y)
		}
	}
	if area.Len() > 0 {
		fmt.Fprintf(&area, "L%d %dZ", (minutes-1)*step+step/2, chartHeight)
	}
	c.Line, c.Area = line.String(), area.String()
}

// bars draws series on top of each other.
func (c *chart) bars(series ...[minutes]int) {
	c.Top = 1
	for i := range minutes {
		sum := 0
		for _, s := range series {
			sum += s[i]
		}
		c.Top = max(c.Top, sum)
	}
	for i := range minutes {
		foot := chartHeight
		for way, s := range series {
			if s[i] == 0 {
				continue
			}
			height := max(s[i]*(chartHeight-4)/c.Top, 2) // what is there is seen
			foot -= height
			c.Bars = append(c.Bars, bar{i*step + 1, foot, height, way})
		}
	}
}

// left returns the rows without those that the page has ended: a look may have read their files before.
func (h *history) left(rows []*row) []*row {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ours) == 0 {
		return rows
	}
	return slices.DeleteFunc(rows, func(r *row) bool { return h.ours[r.id] })
}

// stays takes back ending.
func (h *history) stays(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ours, id)
}
