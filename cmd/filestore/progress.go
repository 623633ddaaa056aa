package main

import (
	"context"
	"time"

	"github.com/schollz/progressbar/v3"
)

// patience is how long work runs before a progress bar appears.
var patience = 500 * time.Millisecond

// A bar shows how far a walk over the sessions has come, on stderr if that is a terminal.
type bar struct {
	start time.Time
	n     int
	total func() int
	text  string
	a     *app
	shown *progressbar.ProgressBar
}

var noBar = (*bar)(nil)

// progress returns a bar for one walk of r. It counts the sessions only if the walk takes long.
func (a *app) progress(ctx context.Context, r *reader, text string) *bar {
	return a.progressOf(text, func() int {
		n, _ := r.count(ctx) // the walk will meet an error too
		return n
	})
}

func (a *app) progressOf(text string, total func() int) *bar {
	if !isTerminal(a.err) {
		return noBar
	}
	return &bar{start: time.Now(), total: total, text: text, a: a}
}

// add counts one more session.
func (b *bar) add() {
	if b == nil {
		return
	}
	b.n++
	if b.shown == nil {
		if time.Since(b.start) < patience {
			return
		}
		b.shown = progressbar.NewOptions(max(1, b.total()), b.a.barOptions(b.text)...)
	}
	if b.n%16 == 0 {
		b.shown.Set(min(b.n, b.shown.GetMax()-1)) // only done fills it; sessions may come meanwhile
	}
}

// done removes the bar. It may be called again.
func (b *bar) done() {
	if b == nil || b.shown == nil {
		return
	}
	b.shown.Finish()
	b.shown, b.start = nil, time.Now().Add(time.Hour)
}

func (a *app) barOptions(text string) []progressbar.Option {
	return []progressbar.Option{
		progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription(text), progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true),
	}
}

// spin shows that work of unknown length goes on, until stop is called.
func (a *app) spin(text string) (stop func()) {
	if !isTerminal(a.err) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
			return
		case <-time.After(patience):
		}
		b := progressbar.NewOptions(-1, append(a.barOptions(text), progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(true))...)
		b.RenderBlank()
		<-done
		b.Finish()
	}()
	return func() {
		close(done)
		<-ended
	}
}
