package sessionui_test

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/sessionui"
)

// A watched counts the loops over Watch.
type watched struct {
	*filestore.Store
	now, most atomic.Int32
}

func (w *watched) Watch(ctx context.Context) iter.Seq2[filestore.Event, error] {
	return func(yield func(filestore.Event, error) bool) {
		n := w.now.Add(1)
		for most := w.most.Load(); n > most && !w.most.CompareAndSwap(most, n); most = w.most.Load() {
		}
		defer w.now.Add(-1)
		for e, err := range w.Store.Watch(ctx) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// A stream is one that a browser has open.
type stream struct {
	t      testing.TB
	cancel context.CancelFunc
	events chan string // closed when it has ended
}

func listen(t testing.TB, url string) *stream {
	t.Helper()
	own, cancel := context.WithCancel(ctx)
	r, _ := http.NewRequestWithContext(own, "GET", url+"?stream=1", nil)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("a stream = %s, of type %q", res.Status, got)
	}
	s := &stream{t, cancel, make(chan string, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.events)
		defer res.Body.Close()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				s.events <- data
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// until waits for an event after which ok holds.
func (s *stream) until(what string, ok func() bool) {
	s.t.Helper()
	end := time.After(30 * time.Second)
	for !ok() {
		select {
		case _, open := <-s.events:
			if !open {
				s.t.Fatalf("the stream ended before: %s", what)
			}
		case <-end:
			s.t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// eventually waits for ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// Every viewer is told of what any process does; all have one watch; and when nobody looks nothing runs.
func TestLive(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	w := &watched{Store: y.s}
	before := runtime.NumGoroutine()
	srv := httptest.NewUnstartedServer(sessionui.Operator(w, y.options(sessionui.Options{Show: []string{"user"}, Write: true})))
	srv.Config.WriteTimeout = time.Second // which a stream outlives
	srv.Start()
	t.Cleanup(srv.Close)
	other, err := filestore.Open(y.dir, &filestore.Options{ReapInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	page := func() answer { return get(srv.Config.Handler, "/") }
	a, b := listen(t, srv.URL), listen(t, srv.URL)
	for _, s := range []*stream{a, b} {
		s.until("the first event", func() bool { return w.now.Load() == 1 })
	}
	time.Sleep(1100 * time.Millisecond) // longer than WriteTimeout
	put(t, other, "one", map[string]any{"user": "anna"})
	for _, s := range []*stream{a, b} {
		s.until("anna is there", func() bool {
			return strings.Contains(page().body, `</a> <span class="kind">made</span> <bdi class="who">anna`)
		})
	}
	other.Destroy(ctx, "one")
	a.until("anna has gone", func() bool {
		return strings.Contains(page().body, `</span> <span class="kind">ended</span> <bdi class="who">anna`)
	})
	put(t, other, "two", map[string]any{"user": "bert"})
	a.until("bert is there", func() bool { return page().handleOf("bert") != "" })
	do(srv.Config.Handler, form("/", url.Values{"do": {"end"}, "handle": {page().handleOf("bert")}}))
	a.until("bert was ended", func() bool {
		return strings.Contains(page().body, `<span class="kind">ended here</span> <bdi class="who">bert`)
	})
	y.file("torn", "{")
	a.until("the torn file is there", func() bool { return page().figure("unreadable") == "1" })
	if n := w.most.Load(); n != 1 {
		t.Errorf("%d watches at a time for two viewers", n)
	}
	if body := page().body; !strings.Contains(body, `class="name">Errors a minute</span><span class="now">0`) {
		t.Error("the page counts what it has met itself as an error of the site")
	}
	a.cancel()
	b.cancel()
	eventually(t, "the watch has ended", func() bool { return w.now.Load() == 0 })
	c := listen(t, srv.URL)
	c.until("another watch begins", func() bool { return w.now.Load() == 1 })
	c.cancel()
	srv.Close()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+1 }) // other's watch may take one
}

// A server that shuts down does not wait for the streams, whether or not there is a Context.
func TestStreamsEndAtShutdown(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	w := &watched{Store: y.s}
	page := sessionui.Operator(w, y.options(sessionui.Options{}))
	srv, other := httptest.NewServer(page), httptest.NewServer(page)
	t.Cleanup(srv.Close)
	t.Cleanup(other.Close)
	streams := []*stream{listen(t, srv.URL), listen(t, srv.URL)}
	stays := listen(t, other.URL)
	soon, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for range 2 {
		if err := srv.Config.Shutdown(soon); err != nil {
			t.Fatalf("Shutdown = %v", err)
		}
	}
	for _, s := range streams {
		for range s.events { // until it ends
		}
	}
	for len(stays.events) > 0 {
		<-stays.events
	}
	y.put("one", nil)
	if _, open := <-stays.events; !open {
		t.Error("the stream of another server has ended")
	}
	stays.cancel()
	eventually(t, "the watch has ended", func() bool { return w.now.Load() == 0 })
}

// Streams are bounded, and end at once when Options.Context does: Shutdown waits for requests.
func TestStreamsEnd(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	own, stop := context.WithCancel(ctx)
	defer stop()
	w := &watched{Store: y.s}
	srv := httptest.NewServer(sessionui.Operator(w, y.options(sessionui.Options{Context: own})))
	t.Cleanup(srv.Close)
	eventually(t, "the watch has begun though nobody looks", func() bool { return w.now.Load() == 1 })
	var streams []*stream
	for range 32 {
		streams = append(streams, listen(t, srv.URL))
	}
	res, err := http.Get(srv.URL + "?stream=1")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more stream = %s", res.Status)
	}
	if res, err := http.Head(srv.URL + "?stream=1"); err != nil || res.StatusCode != 200 {
		t.Errorf("HEAD of a stream = %v, %v", res, err)
	}
	streams[0].cancel()
	eventually(t, "a place is free", func() bool {
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		r, _ := http.NewRequestWithContext(own, "GET", srv.URL+"?stream=1", nil)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
	stop()
	for _, s := range streams {
		for range s.events { // until it ends
		}
	}
	eventually(t, "the watch has ended", func() bool { return w.now.Load() == 0 })
	if a := get(srv.Config.Handler, "/?stream=1"); a.Code != 503 {
		t.Errorf("a stream after the end = %d", a.Code)
	}
}

// A Source that does not tell of changes is read again and again while somebody looks, and then not any more.
func TestLiveWithoutWatch(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	page := sessionui.Operator(poor{y.s}, y.options(sessionui.Options{Show: []string{"user"}}))
	srv := httptest.NewServer(page)
	t.Cleanup(srv.Close)
	s := listen(t, srv.URL)
	s.until("the first event", func() bool { return true })
	put(t, y.s, "one", map[string]any{"user": "anna"})
	<-s.events
	s.until("anna is there", func() bool { return get(page, "/").handleOf("anna") != "" })
}

// A panicking Source does not end the program.
type panicking struct{ *filestore.Store }

func (panicking) Watch(context.Context) iter.Seq2[filestore.Event, error] { panic("no watch") }

func TestLivePanic(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	srv := httptest.NewServer(sessionui.Operator(panicking{y.s}, y.options(sessionui.Options{})))
	t.Cleanup(srv.Close)
	s := listen(t, srv.URL)
	s.until("the first event", func() bool { return true })
	eventually(t, "the log says so", func() bool { return strings.Contains(y.logged(), "no watch") })
	s.cancel()
}

// A stumbling Source panics at the first look.
type stumbling struct {
	*filestore.Store
	looks *atomic.Int32
}

func (s stumbling) Scan(ctx context.Context) iter.Seq2[filestore.Entry, error] {
	if s.looks.Add(1) == 1 {
		panic("no look")
	}
	return s.Store.Scan(ctx)
}

// A panic is told at once, and does not end the live page for ever.
func TestLiveAfterPanic(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	own, stop := context.WithCancel(ctx)
	defer stop()
	srv := httptest.NewServer(sessionui.Operator(stumbling{y.s, new(atomic.Int32)}, y.options(sessionui.Options{Context: own})))
	t.Cleanup(srv.Close)
	eventually(t, "the log says so", func() bool { return strings.Contains(y.logged(), "no look") })
	s := listen(t, srv.URL)
	for range 2 { // the first one comes always
		select {
		case <-s.events:
		case <-time.After(30 * time.Second):
			t.Fatal("nobody is told of anything any more")
		}
	}
	s.cancel()
}

// Ten thousand changes at once come as few events.
func TestLiveBurst(t *testing.T) {
	y := newYard(t, sessionui.Options{})
	srv := httptest.NewServer(y.page)
	t.Cleanup(srv.Close)
	s := listen(t, srv.URL)
	<-s.events
	for i := range 3000 {
		y.file(fmt.Sprint("id", i), old(0, ""))
	}
	n := 0
	end := time.After(30 * time.Second)
	for get(y.page, "/").figure("live") != "3000" {
		select {
		case <-s.events:
			n++
		case <-end:
			t.Fatalf("the page shows %s", get(y.page, "/").figure("live"))
		}
	}
	if n > 60 {
		t.Errorf("%d events for 3000 changes", n)
	}
}
