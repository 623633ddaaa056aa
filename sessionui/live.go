package sessionui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessionfilestore/filestore"
)

// This file tells browsers that a page has changed. They get it again by a GET of its own, so that whatever the caller
// of Operator asks of a visitor is asked each time.

const (
	gather     = 500 * time.Millisecond // what happens within it is told at once
	maxPending = 10_000                 // ids; if more change, all sessions are read again
	maxStreams = 32

	// A stream ends after streamLife, and the browser asks for another one.
	streamLife = 5 * time.Minute

	// What a client has not taken in by then it will not.
	writeTimeout = 10 * time.Second
	heartbeat    = 15 * time.Second

	// How often all sessions are read again for a Source that does not tell of changes, and for one that does: a hint
	// may get lost. What takes long is done less often.
	rescan, recheck = 5 * time.Second, time.Minute
)

// A hub keeps the picture up to date while somebody looks: one watch for all.
type hub struct {
	mu      sync.Mutex
	viewers map[chan struct{}]bool
	stop    context.CancelFunc
	done    chan struct{}

	watching atomic.Bool

	pending sync.Mutex
	ids     map[string]bool
	missed  bool
	dirty   chan struct{} // one slot
}

func (h *hub) isWatching() bool { return h.watching.Load() }

// join begins to watch for the first viewer. The channel gets a value when something has changed.
func (o *operator) join() chan struct{} {
	h := &o.hub
	c := make(chan struct{}, 1)
	c <- struct{}{} // what has changed since the viewer got the page
	h.mu.Lock()
	defer h.mu.Unlock()
	h.viewers[c] = true
	if h.stop == nil {
		var ctx context.Context
		ctx, h.stop = context.WithCancel(context.Background())
		h.done = make(chan struct{})
		go o.keep(ctx, h.done)
	}
	return c
}

// leave waits for the watch to end, if it is the last viewer's.
func (o *operator) leave(c chan struct{}) {
	h := &o.hub
	h.mu.Lock()
	delete(h.viewers, c)
	if len(h.viewers) > 0 {
		h.mu.Unlock()
		return
	}
	stop, done := h.stop, h.done
	h.stop = nil
	h.mu.Unlock()
	stop()
	<-done
}

func (h *hub) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.viewers {
		select {
		case c <- struct{}{}:
		default: // it has not seen the last one yet
		}
	}
}

// keep keeps the picture up to date until ctx is done, also after a panic of the Source.
func (o *operator) keep(ctx context.Context, done chan struct{}) {
	defer close(done)
	for ctx.Err() == nil {
		o.follow(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(rescan):
		}
	}
}

// follow keeps the picture up to date until ctx is done or the Source panics.
func (o *operator) follow(ctx context.Context) {
	defer o.guard()
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	every := rescan
	if o.watcher != nil && o.getter != nil {
		every = recheck
		watch.Go(func() {
			defer o.guard()
			o.watch(ctx)
		})
	}
	counting := time.NewTicker(gap / 2)
	defer counting.Stop()
	for ctx.Err() == nil {
		p := o.again(ctx)
		if errors.Is(p.err, filestore.ErrClosed) {
			<-ctx.Done() // there is nothing more to see
			return
		}
		o.sample()
		o.hub.tell()
		next := time.NewTimer(max(every, 50*p.took))
		for again := false; !again; {
			select {
			case <-ctx.Done():
				again = true
			case <-next.C:
				again = true
			case <-counting.C: // also if looks are further apart
				o.sample()
			case <-o.hub.dirty:
				select {
				case <-ctx.Done():
				case <-time.After(gather):
				}
				ids, missed := o.hub.changes()
				if again = missed; !again && o.take(ctx) {
					o.apply(ctx, ids)
					o.give()
					o.sample()
					o.hub.tell()
				}
			}
		}
		next.Stop()
	}
}

// guard keeps a panic of the Source from ending the program: net/http would have caught it.
func (o *operator) guard() {
	if v := recover(); v != nil {
		o.opts.Logger.Error("sessionui: panic", "panic", v, "stack", string(debug.Stack()))
	}
}

// watch collects ids until ctx is done.
func (o *operator) watch(ctx context.Context) {
	defer o.hub.watching.Store(false)
	for ctx.Err() == nil {
		o.hub.watching.Store(true)
		for e, err := range o.watcher.Watch(ctx) {
			if errors.Is(err, filestore.ErrClosed) {
				return
			}
			if err != nil {
				o.opts.Logger.WarnContext(ctx, "sessionui: some changes were missed", "err", err)
			}
			o.hub.note(e.ID, err != nil)
		}
		o.hub.watching.Store(false)
		if ctx.Err() != nil {
			return
		}
		o.hub.note("", true)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// note remembers a change.
func (h *hub) note(id string, missed bool) {
	h.pending.Lock()
	if h.ids == nil {
		h.ids = make(map[string]bool)
	}
	if h.missed = h.missed || missed || len(h.ids) >= maxPending; !h.missed {
		h.ids[id] = true
	}
	h.pending.Unlock()
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// changes returns what was noted, and forgets it.
func (h *hub) changes() (ids map[string]bool, missed bool) {
	h.pending.Lock()
	defer h.pending.Unlock()
	ids, missed = h.ids, h.missed
	h.ids, h.missed = nil, false
	return ids, missed
}

func (o *operator) sample() {
	if o.counts() {
		o.history.sample(o.statser.Stats())
	}
}

// servers tells when one of them shuts down: http.Server.Shutdown waits for requests that do not end by themselves.
type servers struct {
	mu  sync.Mutex
	all map[*http.Server]context.Context
}

// down returns a context that is done when the server of r shuts down.
func (s *servers) down(r *http.Request) context.Context {
	srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok { // as in a test
		return context.Background()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := s.all[srv]
	if ctx == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(context.Background())
		srv.RegisterOnShutdown(cancel)
		if s.all == nil {
			s.all = make(map[*http.Server]context.Context)
		}
		s.all[srv] = ctx
	}
	return ctx
}

// stream tells one browser of changes.
func (o *operator) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case o.streams <- struct{}{}:
		defer func() { <-o.streams }()
	default:
		w.Header().Set("Retry-After", "60")
		http.Error(w, "Too many people look at this page.", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()
	down := o.servers.down(r)
	for _, end := range []context.Context{o.opts.Context, down} {
		defer context.AfterFunc(end, cancel)()
	}
	if ctx.Err() != nil || o.opts.Context.Err() != nil || down.Err() != nil {
		http.Error(w, "The program ends.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	changed := o.join()
	defer o.leave(changed)
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		// The server's deadline is for a whole answer, and some writers have none.
		if err := rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		_, err := io.WriteString(w, text)
		return err == nil && rc.Flush() == nil
	}
	if !send("retry: 3000\n\n") {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if !send(":\n\n") {
				return
			}
		case <-changed:
			if !send(fmt.Sprintf("data: %d\n\n", n)) {
				return
			}
			n++
			select { // so that a busy store does not keep the browser busy
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
		}
	}
}
