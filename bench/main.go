// Command bench measures filestore beside bare system calls and other session stores. It runs on Linux, in
// its own directory: go run . -h
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

var (
	sessionCount = flag.Int("n", 1000, "sessions in each store, up to 1,000,000")
	payload      = flag.Int("size", 326, "bytes of a session's JSON, up to 16000")
	rounds       = flag.Int("rounds", 9, "rounds; in each every contender runs one batch")
	opsFlag      = flag.String("ops", "", "only the rows that match this regular expression")
	peersFlag    = flag.String("peers", "", "only the contenders that match this one; the limits always run")
	fsFlag       = flag.String("fs", "both", "ext4 (whatever -dir is on), tmpfs (/dev/shm) or both")
	dirFlag      = flag.String("dir", os.TempDir(), "where the temporary directory is made for -fs ext4")
	withHTTP     = flag.Bool("http", true, "also measure the middlewares over HTTP")
	reapCount    = flag.Int("reap", 10_000, "sessions in the directory of the Reap rows; 0 = leave them out")
	importCount  = flag.Int("import", 10_000, "sessions of the import row; 0 = leave it out")
	memoryCount  = flag.Int("memory", 100_000, "sessions held for the memory rows; 0 = leave them out")

	withEngines = flag.Bool("engines", false, "instead of all else measure the backends on Redis, PostgreSQL and MariaDB")

	profile = flag.String("cpuprofile", "", "write a CPU profile of the whole run to this file")

	opsOnly, peersOnly *regexp.Regexp
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if name := os.Getenv(memoryChild); name != "" {
		if err := holdSessions(name); err != nil {
			log.Fatal(err)
		}
		return
	}
	if n := os.Getenv(updateChild); n != "" {
		if err := updateSessions(n); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := cmp.Or(compile(&opsOnly, *opsFlag), compile(&peersOnly, *peersFlag)); err != nil {
		log.Fatal(err)
	}
	var places []string
	switch *fsFlag {
	case "ext4":
		places = []string{*dirFlag}
	case "tmpfs":
		places = []string{"/dev/shm"}
	case "both":
		places = []string{*dirFlag, "/dev/shm"}
	}
	if len(places) == 0 || *sessionCount < 1 || *sessionCount > 1e6 || *payload > 16000 || *rounds < 1 ||
		flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupt
		cleanUp()
		os.Exit(1)
	}()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	err := run(places)
	pprof.StopCPUProfile()
	cleanUp()
	if err != nil {
		log.Fatal(err)
	}
}

func compile(re **regexp.Regexp, text string) (err error) {
	*re, err = regexp.Compile(text)
	return err
}

func run(places []string) error {
	defer func(start time.Time) { fmt.Printf("\nin %.0f s\n", time.Since(start).Seconds()) }(time.Now())
	fmt.Printf("%s, GOMAXPROCS %d, %d sessions of %d bytes, %d rounds\n\n", runtime.Version(),
		runtime.GOMAXPROCS(0), *sessionCount, len(document(values(*payload))), *rounds)
	if *withEngines {
		return runEngines()
	}
	fmt.Println("limit: the system calls alone; README.md says which")
	for _, c := range contenders {
		if peersOnly.MatchString(c.name) {
			fmt.Printf("%s: %s\n", c.name, c.promise)
		}
	}
	fmt.Println()
	redis := ""
	if port, err := startRedis("", "--appendonly", "no"); err == nil {
		redis = fmt.Sprint("127.0.0.1:", port)
	}
	var tables []*table
	for i, place := range places {
		dir, err := os.MkdirTemp(place, "filestore-bench-")
		if err != nil {
			return err
		}
		atExit(func() { os.RemoveAll(dir) })
		t := &table{fs: fsName(dir), best: make(map[string]string)}
		if err := t.measure(&env{dir: dir, redis: redis}, i == len(places)-1); err != nil {
			return err
		}
		os.RemoveAll(dir)
		t.print()
		tables = append(tables, t)
	}
	for _, t := range tables {
		t.printTargets()
	}
	return nil
}

// runEngines measures the backends. Unlike a contender in the other rows, one that fails makes the run fail: all are
// set up here.
func runEngines() error {
	for _, e := range engines {
		fmt.Printf("%s: %s\n", e.name, e.promise)
	}
	fmt.Printf("filestore: on %s, each write is flushed\n\n", fsName(*dirFlag))
	t := &table{fs: "servers", best: make(map[string]string)}
	if err := t.measureEngines(); err != nil {
		return err
	}
	t.print()
	t.printTargets()
	return errors.Join(t.dropped...)
}

// exits undo what the program has started or made, the latest first, however it ends.
var (
	exitMu sync.Mutex
	exits  []func()
)

func atExit(fn func()) {
	exitMu.Lock()
	defer exitMu.Unlock()
	exits = append(exits, fn)
}

func cleanUp() {
	exitMu.Lock()
	defer exitMu.Unlock()
	for _, fn := range slices.Backward(exits) {
		fn()
	}
	exits = nil
}

// A table has the measurements on one file system.
type table struct {
	fs    string
	lines []*line
	best  map[string]string // by row, the name of the line that the others are compared with

	dropped []error
}

// A line has the figures of one contender in one row, a number for each round.
type line struct {
	row, name string
	unit      unit
	rounds    []float64
}

type unit int

const (
	perOp  unit = iota // nanoseconds
	rate               // operations a second
	amount             // bytes
)

func (t *table) add(row, name string, u unit, value float64) {
	l := t.find(row, name)
	if l == nil {
		l = &line{row: row, name: name, unit: u}
		t.lines = append(t.lines, l)
	}
	l.rounds = append(l.rounds, value)
}

func (t *table) find(row, name string) *line {
	for _, l := range t.lines {
		if l.row == row && l.name == name {
			return l
		}
	}
	return nil
}

// drop removes the line of a contender that has failed, and says so.
func (t *table) drop(row, name string, err error) {
	fmt.Printf("%s: %s: %s: left out: %v\n", t.fs, row, name, err)
	t.dropped = append(t.dropped, fmt.Errorf("%s: %s: %w", row, name, err))
	t.lines = slices.DeleteFunc(t.lines, func(l *line) bool { return l.row == row && l.name == name })
}

// quantile returns a quantile of values, sorted or not.
func quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return math.NaN()
	}
	at := q * float64(len(s)-1)
	low := int(at)
	high := min(low+1, len(s)-1)
	return s[low] + (s[high]-s[low])*(at-float64(low))
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// ratio returns the median over the rounds of a's figure divided by b's.
func ratio(a, b *line) float64 { return median(ratios(a, b)) }

// ratios returns a's figure divided by b's in each round.
func ratios(a, b *line) (r []float64) {
	if a == nil || b == nil {
		return nil
	}
	for i := range min(len(a.rounds), len(b.rounds)) {
		r = append(r, a.rounds[i]/b.rounds[i])
	}
	return r
}

func (u unit) format(v float64) string {
	switch u {
	case rate:
		return fmt.Sprintf("%.0f /s", v)
	case amount:
		return fmt.Sprintf("%.0f B", v)
	}
	switch {
	case v < 1e3:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e6:
		return fmt.Sprintf("%.2f µs", v/1e3)
	case v < 1e9:
		return fmt.Sprintf("%.2f ms", v/1e6)
	}
	return fmt.Sprintf("%.2f s", v/1e9)
}

// print writes the table as aligned Markdown.
func (t *table) print() {
	cells := [][]string{{t.fs, "contender", "median", "p25..p75", "ratio", "p25..p75"}, {"---", "---", "--:", "--:", "--:", "--:"}}
	last := ""
	for _, l := range t.lines {
		row := l.row
		if row == last {
			row = ""
		}
		last = l.row
		if len(l.rounds) == 0 { // it has no such operation
			cells = append(cells, []string{row, l.name, "–", "–", "–", "–"})
			continue
		}
		r, quartiles := ratios(l, t.find(l.row, t.best[l.row])), ""
		if len(r) > 0 {
			quartiles = number(quantile(r, 0.25)) + ".." + number(quantile(r, 0.75))
		}
		cells = append(cells, []string{row, l.name, l.unit.format(median(l.rounds)),
			l.unit.format(quantile(l.rounds, 0.25)) + ".." + l.unit.format(quantile(l.rounds, 0.75)),
			number(median(r)), quartiles})
	}
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Println()
	for n, row := range cells {
		for i, cell := range row {
			pad := widths[i] - utf8.RuneCountInString(cell)
			switch {
			case n == 1 && i < 2:
				cell = strings.Repeat("-", widths[i])
			case n == 1:
				cell = strings.Repeat("-", widths[i]-1) + ":"
			case i < 2:
				cell += strings.Repeat(" ", pad)
			default:
				cell = strings.Repeat(" ", pad) + cell
			}
			fmt.Print("| ", cell, " ")
		}
		fmt.Println("|")
	}
}

func number(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}
