package sessionui

import (
	"context"
	"fmt"
	"iter"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessionfilestore/filestore"
)

// A shelf is a Source in memory.
type shelf struct {
	mu    sync.Mutex
	all   map[string]*filestore.Session
	stats filestore.Stats
}

func (s *shelf) All(context.Context) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, sess := range s.all {
			if !yield(filestore.Entry{ID: id, Session: sess}, nil) {
				return
			}
		}
	}
}

func (s *shelf) Destroy(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
	return nil
}

func (s *shelf) Stats() filestore.Stats { return s.stats }

func (s *shelf) put(id string, life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[id] = &filestore.Session{Created: time.Now(), LastAccess: time.Now(), Cookie: filestore.Cookie{OriginalMaxAge: life}}
}

func (o *operator) chart(name string) chart {
	o.again(context.Background())
	o.sample()
	for _, c := range o.history.charts(o.picture.Load(), time.Now(), true) {
		if c.Title == name {
			return c
		}
	}
	return chart{}
}

// The charts tell what happened in which minute, and what is not known.
func TestCharts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{all: make(map[string]*filestore.Session)}
		o := Operator(s, nil).(*operator)
		for i := range 30 { // one a minute, before anybody looks
			s.put(fmt.Sprint("early", i), 10*time.Hour)
			time.Sleep(time.Minute)
		}
		live, made, ended := o.chart("Live sessions"), o.chart("Made a minute"), o.chart("Ended a minute")
		if live.Now != "30" || made.Now != "30" || len(made.Bars) != 30 || made.Top != 1 || made.Unknown != 0 {
			t.Errorf("before: %s live, %s made in %d minutes", live.Now, made.Now, len(made.Bars))
		}
		if ended.Now != "0" || ended.Unknown != 59*step || !strings.Contains(ended.Note, "known since") || !strings.Contains(live.Foot, "at least 0") {
			t.Errorf("before: ended %s, %q, unknown to %d; %q", ended.Now, ended.Note, ended.Unknown, live.Foot)
		}
		look := func() { o.again(context.Background()); o.sample() }
		s.put("short", 90*time.Second)
		look()
		time.Sleep(time.Minute)
		s.Destroy(context.Background(), "early3")
		s.put("renewed", time.Hour)
		look()
		s.all["other"] = s.all["renewed"] // another id, the same session
		delete(s.all, "renewed")
		look()
		o.history.ending("early4")
		s.Destroy(context.Background(), "early4")
		time.Sleep(time.Minute) // short has expired
		look()
		delete(s.all, "short") // reaped
		s.stats.Unreadable, s.stats.Timeouts = 3, 2
		time.Sleep(time.Second)
		look()
		ended = o.chart("Ended a minute")
		var got []string
		for _, l := range ended.Legend {
			got = append(got, fmt.Sprintf("%s %d", l.Name, l.Count))
		}
		if want := "expired 1, here 1, otherwise 1"; strings.Join(got, ", ") != want {
			t.Errorf("ended: %s, want %s", strings.Join(got, ", "), want)
		}
		if live, made := o.chart("Live sessions"), o.chart("Made a minute"); live.Now != "29" || made.Now != "32" {
			t.Errorf("%s live, %s made", live.Now, made.Now)
		}
		if errs := o.chart("Errors a minute"); errs.Now != "5" || len(errs.Bars) != 1 {
			t.Errorf("errors %s in %d minutes", errs.Now, len(errs.Bars))
		}
		var kinds []string
		for _, e := range o.history.recent() {
			kinds = append(kinds, e.kind)
		}
		if got, want := strings.Join(kinds, ", "), "expired, removed, ended here, given a new id, made, ended, made"; !sameWords(got, want) {
			t.Errorf("events: %s, want %s", got, want)
		}
		// An hour later all that has left the charts, and what nobody saw is not in them.
		s.stats.Unreadable = 1000
		for id := range s.all {
			if strings.HasPrefix(id, "early1") {
				delete(s.all, id)
			}
		}
		time.Sleep(time.Hour)
		if c := o.chart("Made a minute"); c.Now != "0" {
			t.Errorf("an hour later %s were made", c.Now)
		}
		if c := o.chart("Ended a minute"); c.Now != "1" || c.Unknown != 59*step { // other, whose hour is over, is still there
			t.Errorf("an hour later %s ended, unknown to %d", c.Now, c.Unknown)
		}
		if c := o.chart("Errors a minute"); c.Now != "0" {
			t.Errorf("an hour later there were %s errors", c.Now)
		}
	})
}

func sameWords(a, b string) bool {
	count := func(s string) map[string]int {
		m := make(map[string]int)
		for w := range strings.SplitSeq(s, ", ") {
			m[w]++
		}
		return m
	}
	x, y := count(a), count(b)
	if len(x) != len(y) {
		return false
	}
	for w, n := range x {
		if y[w] != n {
			return false
		}
	}
	return true
}

// The list of events and the rows have a bound.
func TestBounds(t *testing.T) {
	s := &shelf{all: make(map[string]*filestore.Session)}
	o := Operator(s, nil).(*operator)
	o.again(context.Background())
	for i := range maxRows + 10 {
		s.put(fmt.Sprint(i), time.Hour)
	}
	o.again(context.Background())
	p := o.picture.Load()
	if f := p.figures(time.Now()); len(p.rows) != maxRows || f.Live != maxRows+10 || p.count() != maxRows+10 || !p.whole {
		t.Errorf("%d rows, %d live, %d counted", len(p.rows), f.Live, p.count())
	}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if body := w.Body.String(); !strings.Contains(body, "10 more sessions are in the figures") || !strings.Contains(body, "At least") {
		t.Error("the page does not say what it does not list")
	}
	clear(s.all)
	for i := range 100 {
		s.put(fmt.Sprint(i), time.Hour)
	}
	o.again(context.Background())
	clear(s.all)
	o.again(context.Background())
	if n := len(o.history.recent()); n != maxEvents {
		t.Errorf("%d events", n)
	}
}

// A last access that differs by milliseconds from read to read, as that of Redis, is not a use.
func TestUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{all: make(map[string]*filestore.Session)}
		o := Operator(s, nil).(*operator)
		s.put("one", time.Hour)
		o.again(t.Context())
		for _, shift := range []time.Duration{2, -3, 900, -900} {
			time.Sleep(time.Minute)
			s.all["one"].LastAccess = s.all["one"].LastAccess.Add(shift * time.Millisecond)
			if o.again(t.Context()); len(o.history.recent()) != 0 {
				t.Fatalf("events after %d ms: %v", shift, o.history.recent())
			}
		}
		s.put("one", time.Hour)
		if o.again(t.Context()); len(o.history.recent()) != 1 || o.history.recent()[0].kind != "used" {
			t.Errorf("events after a use: %v", o.history.recent())
		}
	})
}

// A full shelf also finds what a page does not list.
type full struct {
	*shelf
	extra filestore.Entry
}

func (f full) Find(_ context.Context, _, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		if value == "anna" {
			yield(f.extra, nil)
		}
	}
}

func (f full) Get(context.Context, string) (*filestore.Session, error) { return f.extra.Session, nil }

// What a filter has found can be looked at and ended, also if it is not listed.
func TestBeyondBounds(t *testing.T) {
	sess := new(filestore.Session)
	sess.Put("user", "anna")
	f := full{&shelf{all: make(map[string]*filestore.Session)}, filestore.Entry{ID: "extra", Session: sess}}
	o := Operator(f, &Options{Show: []string{"user"}, Write: true}).(*operator)
	o.picture.Store(&picture{rest: figures{Live: 1}, whole: true, took: time.Hour, at: time.Now()})
	const query = "/?member=user&value=anna"
	w := httptest.NewRecorder()
	o.ServeHTTP(w, httptest.NewRequest("GET", query, nil))
	handle := o.handle("extra")
	if !strings.Contains(w.Body.String(), handle) {
		t.Fatal("the filter does not find it")
	}
	w = httptest.NewRecorder()
	o.ServeHTTP(w, httptest.NewRequest("GET", query+"&session="+handle, nil))
	if w.Code != 200 {
		t.Errorf("its page = %d", w.Code)
	}
	r := httptest.NewRequest("POST", query, strings.NewReader("do=end&handle="+handle))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	w = httptest.NewRecorder()
	if o.ServeHTTP(w, r); w.Code != 303 {
		t.Errorf("its end = %d", w.Code)
	}
}

// A slow Source takes four seconds for a look.
type slow struct{ *shelf }

func (s slow) All(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	time.Sleep(4 * time.Second)
	return s.shelf.All(ctx)
}

// The charts of somebody who looks all the time know the whole hour, also if a look takes long.
func TestChartsOfSlowLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := slow{&shelf{all: make(map[string]*filestore.Session)}}
		s.put("one", 10*time.Hour)
		o := Operator(s, &Options{Context: ctx}).(*operator)
		time.Sleep(30 * time.Minute)
		s.Destroy(ctx, "one")
		time.Sleep(29 * time.Minute)
		for _, c := range o.history.charts(o.picture.Load(), time.Now(), true) {
			if c.Unknown > 2*step {
				t.Errorf("%s: known %s", c.Title, c.Note)
			}
			if c.Title == "Ended a minute" && c.Now != "1" {
				t.Errorf("%s ended", c.Now)
			}
		}
		stop()
		synctest.Wait()
	})
}

// A page says of when the picture is that it shows.
func TestAsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Operator(slow{&shelf{all: make(map[string]*filestore.Session)}}, nil)
		began := time.Now()
		for range 2 { // the second one shows the picture of the first
			w := httptest.NewRecorder()
			o.ServeHTTP(w, httptest.NewRequest("GET", "/?whole=1", nil))
			if !strings.Contains(w.Body.String(), "As of "+clock(began)) {
				t.Errorf("%v later the page has another time", time.Since(began))
			}
			time.Sleep(20 * time.Second)
		}
	})
}

// A slowFinder takes a minute to find what is not listed.
type slowFinder struct{ full }

func (f slowFinder) Find(ctx context.Context, member, value string) iter.Seq2[filestore.Entry, error] {
	return func(yield func(filestore.Entry, error) bool) {
		select {
		case <-time.After(time.Minute):
			f.full.Find(ctx, member, value)(yield)
		case <-ctx.Done():
			yield(filestore.Entry{}, ctx.Err())
		}
	}
}

// A page does not wait for what is not listed, unless it is asked to.
func TestSlowFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sess := new(filestore.Session)
		sess.Put("user", "anna")
		o := Operator(slowFinder{full{&shelf{all: make(map[string]*filestore.Session)}, filestore.Entry{ID: "extra", Session: sess}}}, &Options{Show: []string{"user"}}).(*operator)
		o.picture.Store(&picture{rest: figures{Live: 1}, whole: true, took: time.Hour, at: time.Now()})
		const query = "/?member=user&value=anna"
		for _, tt := range []struct {
			target, want string
			took         time.Duration
		}{{query, "Search all of them", firstPage}, {query + "&whole=1", o.handle("extra"), time.Minute}} {
			began := time.Now()
			w := httptest.NewRecorder()
			o.ServeHTTP(w, httptest.NewRequest("GET", tt.target, nil))
			if took := time.Since(began); took != tt.took || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%s after %v lacks %q", tt.target, took, tt.want)
			}
		}
	})
}
