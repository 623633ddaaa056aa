package promstats_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/storetest"
	"github.com/sessionfilestore/filestore/metrics/promstats"
)

var ctx = context.Background()

func TestReadme(t *testing.T) { storetest.Readme(t) }

// scrape gets the metrics of reg as Prometheus does, and returns those of filestore by name.
func scrape(t *testing.T, reg prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	site := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	defer site.Close()
	resp, err := http.Get(site.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics: %s, %v", resp.Status, err)
	}
	for name := range all {
		if !strings.HasPrefix(name, "filestore_") {
			t.Errorf("a metric %s", name)
		}
	}
	return all
}

// value returns the value of the metric with the label store="…", or of the only one if store is "".
func value(t *testing.T, all map[string]*dto.MetricFamily, name, store string) float64 {
	t.Helper()
	for _, m := range all["filestore_"+name].GetMetric() {
		if store == "" || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "store" && l.GetValue() == store }) {
			if m.GetCounter() != nil {
				return m.GetCounter().GetValue()
			}
			return m.GetGauge().GetValue()
		}
	}
	t.Errorf("no metric filestore_%s of %q", name, store)
	return math.NaN()
}

// What the store has done is what a scrape shows.
func TestScrape(t *testing.T) {
	dir := t.TempDir()
	o := storetest.Quick()
	o.NoSync, o.LockTimeout = false, 2*time.Second // much longer than the context below, so that it never ends first
	s := storetest.OpenDamaged(t, dir, o)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(promstats.New(s, nil))

	const counters, ofPass = 15, 4
	before := scrape(t, reg)
	for name := range before {
		if got := value(t, before, strings.TrimPrefix(name, "filestore_"), ""); got != 0 || strings.Contains(name, "last_reap") {
			t.Errorf("at first there is %s = %v", name, got)
		}
	}
	if len(before) != counters {
		t.Errorf("%d metrics at first, want %d", len(before), counters)
	}

	try := func(call string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s = %v, want %v", call, err, want)
		}
	}
	get := func(id string, want error) {
		t.Helper()
		_, err := s.Get(ctx, id)
		try("Get", err, want)
	}
	// Each is done another number of times, so that no metric can show another one's counter.
	times := func(n int, do func(i int)) {
		for i := range n {
			do(i)
		}
	}
	const old, damaged = `{"cookie":{},"__lastAccess":1}`, "{"
	id := func(i int) string { return fmt.Sprint("id", i) }
	times(8, func(i int) { try("Set", s.Set(ctx, id(i), new(filestore.Session)), nil) })
	times(12, func(i int) { storetest.Write(t, filepath.Join(dir, fmt.Sprint("old", i, ".json")), []byte(old)) })
	storetest.Write(t, filepath.Join(dir, "damaged.json"), []byte(damaged))
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Hits < 10; { // a file that has just changed is not kept in memory
		get(id(0), nil)
		if time.Now().After(deadline) {
			t.Fatalf("too few hits: %+v", s.Stats())
		}
	}
	get("none", filestore.ErrNotFound)
	times(2, func(i int) { get("old0", filestore.ErrExpired) })
	times(9, func(int) { get("damaged", filestore.ErrCorrupt) })
	times(6, func(int) { try("Touch", s.Touch(ctx, id(0), nil), nil) })
	times(5, func(i int) { try("Touch", s.Touch(ctx, id(0), &filestore.Cookie{Path: "/" + id(i)}), nil) })
	times(7, func(int) { try("Update", s.Update(ctx, id(0), func(*filestore.Session) error { return nil }), nil) })
	times(4, func(i int) { try("Destroy", s.Destroy(ctx, id(i)), nil) })
	release := storetest.Hold(t, dir, id(5))
	try("Destroy", s.Destroy(ctx, id(5)), filestore.ErrLockTimeout)
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	try("Destroy", s.Destroy(short, id(5)), context.DeadlineExceeded)
	release()
	started := time.Now()
	n, err := s.Reap(ctx)
	if n != 12 || err != nil {
		t.Errorf("Reap = %d, %v, want 12", n, err)
	}

	st, after := s.Stats(), scrape(t, reg)
	if len(after) != counters+ofPass {
		t.Errorf("%d metrics, want %d", len(after), counters+ofPass)
	}
	for name, want := range map[string]float64{
		"gets_total":                 float64(st.Gets),
		"get_hits_total":             10,
		"get_missing_total":          3,
		"get_unreadable_total":       9,
		"sets_total":                 8,
		"updates_total":              7,
		"touches_total":              5,
		"touches_spared_total":       6,
		"destroys_total":             4,
		"conflicts_total":            0,
		"lock_waits_total":           2,
		"lock_wait_seconds_total":    st.LockWait.Seconds(),
		"lock_timeouts_total":        1,
		"flushes_total":              float64(st.Flushes),
		"reaped_total":               12,
		"last_reap_failed":           0,
		"last_reap_unreadable_files": 1,
		"last_reap_duration_seconds": st.LastReapTook.Seconds(),
	} {
		if got := value(t, after, name, ""); got != want {
			t.Errorf("filestore_%s = %v, want %v", name, got, want)
		}
	}
	if st.Gets <= 10+3+9 || st.Flushes < 8+7+4 || st.LockWait < o.LockTimeout || st.LockWait > time.Minute || st.LastReapTook <= 0 {
		t.Errorf("the Stats are %+v", st)
	}
	at := value(t, after, "last_reap_timestamp_seconds", "")
	if first, last := float64(started.UnixMilli())/1000, float64(time.Now().UnixMilli())/1000; at < first || at > last {
		t.Errorf("the last pass was at %f, not from %f to %f", at, first, last)
	}

	storetest.Write(t, filepath.Join(dir, "old.json"), []byte(old))
	storetest.Hold(t, dir, "old")
	_, err = s.Reap(ctx)
	try("Reap", err, filestore.ErrLockTimeout)
	again := scrape(t, reg)
	if got := value(t, again, "last_reap_failed", ""); got != 1 {
		t.Errorf("after %v filestore_last_reap_failed = %v", err, got)
	}
	if got := value(t, again, "lock_timeouts_total", ""); got != 2 {
		t.Errorf("after another time-out filestore_lock_timeouts_total = %v", got)
	}
}

// The names and help texts are by Prometheus' rules.
func TestLint(t *testing.T) {
	s := storetest.Open(t, t.TempDir(), nil)
	if _, err := s.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.CollectAndLint(promstats.New(s, prometheus.Labels{"store": "users"}))
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Two stores are in one registry if their labels differ. The same ones, and other names of labels, are refused.
func TestTwoStores(t *testing.T) {
	users, admin := storetest.Open(t, t.TempDir(), nil), storetest.Open(t, t.TempDir(), nil)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(promstats.New(users, prometheus.Labels{"store": "users"}), promstats.New(admin, prometheus.Labels{"store": "admin"}))
	for range 2 {
		if err := users.Set(ctx, "id", new(filestore.Session)); err != nil {
			t.Fatal(err)
		}
	}
	if err := admin.Set(ctx, "id", new(filestore.Session)); err != nil {
		t.Fatal(err)
	}
	all := scrape(t, reg)
	if u, a := value(t, all, "sets_total", "users"), value(t, all, "sets_total", "admin"); u != 2 || a != 1 {
		t.Errorf("filestore_sets_total = %v and %v, want 2 and 1", u, a)
	}
	for _, labels := range []prometheus.Labels{{"store": "users"}, {"other": "users"}, nil, {"no label": "x"}} {
		if err := reg.Register(promstats.New(admin, labels)); err == nil {
			t.Errorf("another Collector was registered with %v", labels)
		}
	}
}

// A closed store is still scraped, also beside its Close.
func TestScrapeBesideClose(t *testing.T) {
	s, err := filestore.Open(filepath.Join(t.TempDir(), "sessions"), storetest.Quick())
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(promstats.New(s, nil))
	closed := make(chan error)
	go func() {
		err := s.Set(ctx, "id", new(filestore.Session))
		closed <- errors.Join(err, s.Close())
	}()
	for range 5 {
		scrape(t, reg)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := value(t, scrape(t, reg), "sets_total", ""); got != 1 {
		t.Errorf("filestore_sets_total = %v, want 1", got)
	}
}
