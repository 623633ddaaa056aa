// Package promstats shows the counters of a filestore.Store to Prometheus.
package promstats

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sessionfilestore/filestore"
)

// New returns a Collector of the Stats of s, for a prometheus.Registerer. Each scrape reads them once and takes no
// lock of the Store; filestore.Stats says what is counted. The four filestore_last_reap metrics are there from the
// first pass of the reaper on.
//
// All metrics carry labels. Several Stores in one registry need labels with the same names and other values, such as
// {"store": "users"} and {"store": "admin"}; nil is enough for one. A name that is not a label's makes Register fail.
//
// The Collector may be used by several goroutines at once, and after the Store is closed.
func New(s *filestore.Store, labels prometheus.Labels) prometheus.Collector {
	c := &collector{store: s}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc("filestore_"+m.name, m.help, nil, labels))
	}
	return c
}

type collector struct {
	store *filestore.Store
	descs []*prometheus.Desc // of metrics, in the same order
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.store.Stats()
	for i, m := range metrics {
		if m.ofPass && st.LastReap.IsZero() { // a time in 1970 would look as if the reaper had stopped
			continue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[i], m.kind, m.value(st))
	}
}

type metric struct {
	name, help string
	kind       prometheus.ValueType
	ofPass     bool // there is none before the first pass of the reaper
	value      func(filestore.Stats) float64
}

var metrics = []metric{
	counter("gets_total", "Calls of Get.", func(s filestore.Stats) int64 { return s.Gets }),
	counter("get_hits_total", "Calls of Get that returned a session from memory.", func(s filestore.Stats) int64 { return s.Hits }),
	counter("get_missing_total", "Calls of Get that found no session, or an expired one.", func(s filestore.Stats) int64 { return s.Missing }),
	counter("get_unreadable_total", "Calls of Get that met a file that holds no session.", func(s filestore.Stats) int64 { return s.Unreadable }),
	counter("sets_total", "Calls of Set and Create that succeeded.", func(s filestore.Stats) int64 { return s.Sets }),
	counter("updates_total", "Calls of Update that succeeded.", func(s filestore.Stats) int64 { return s.Updates }),
	counter("touches_total", "Calls of Touch that wrote the session.", func(s filestore.Stats) int64 { return s.Touches }),
	counter("touches_spared_total", "Calls of Touch that had nothing to write.", func(s filestore.Stats) int64 { return s.TouchesSpared }),
	counter("destroys_total", "Sessions removed by Destroy and Clear.", func(s filestore.Stats) int64 { return s.Destroys }),
	counter("conflicts_total", "Times that a write found that others had changed the session.", func(s filestore.Stats) int64 { return s.Conflicts }),
	counter("lock_waits_total", "Waits of writes for a lock or a turn that was not free.", func(s filestore.Stats) int64 { return s.LockWaits }),
	{"lock_wait_seconds_total", "Time that writes have waited for locks and turns.", prometheus.CounterValue, false,
		func(s filestore.Stats) float64 { return s.LockWait.Seconds() }},
	counter("lock_timeouts_total", "Writes that ended with ErrLockTimeout.", func(s filestore.Stats) int64 { return s.Timeouts }),
	counter("flushes_total", "Flushes of the disk that writes have waited for.", func(s filestore.Stats) int64 { return s.Flushes }),
	counter("reaped_total", "Sessions removed by the reaper.", func(s filestore.Stats) int64 { return s.Reaped }),
	ofPass("timestamp_seconds", "End of the last pass of the reaper, in seconds since 1970.",
		func(s filestore.Stats) float64 { return float64(s.LastReap.UnixMilli()) / 1000 }),
	ofPass("duration_seconds", "Time that the last pass of the reaper took.",
		func(s filestore.Stats) float64 { return s.LastReapTook.Seconds() }),
	ofPass("failed", "1 if the last pass of the reaper ended with an error, else 0.", func(s filestore.Stats) float64 {
		if s.LastReapError != "" {
			return 1
		}
		return 0
	}),
	ofPass("unreadable_files", "Files that hold no session, which the last pass of the reaper passed over.",
		func(s filestore.Stats) float64 { return float64(s.LastReapUnreadable) }),
}

func counter(name, help string, value func(filestore.Stats) int64) metric {
	return metric{name, help, prometheus.CounterValue, false, func(s filestore.Stats) float64 { return float64(value(s)) }}
}

func ofPass(name, help string, value func(filestore.Stats) float64) metric {
	return metric{"last_reap_" + name, help, prometheus.GaugeValue, true, value}
}
