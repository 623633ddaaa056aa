// Command clock is the worker of the clock test. It has a store, and its clock can be set. The test builds
// it with a time package that has SetClock.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
)

// setClock sets the clock ahead or back, relative to that of the system. The test supplies it.
var setClock func(time.Duration)

// logged counts the messages of the store.
type logged struct {
	slog.Handler
	lines []string
}

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.lines = append(l.lines, r.Message) // only the reaper logs
	return nil
}

func main() {
	if setClock == nil {
		fmt.Println("not built by the test")
		os.Exit(2)
	}
	l := &logged{Handler: slog.Default().Handler()}
	ctx := context.Background()
	var s *filestore.Store
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		op, arg, _ := strings.Cut(in.Text(), " ")
		d, _ := time.ParseDuration(arg)
		var err error
		switch op {
		case "open": // with the interval of its reaper
			o := &filestore.Options{TTL: time.Hour, TouchAfter: -1, NoSync: true, ReapInterval: d, Logger: slog.New(l)}
			s, err = filestore.Open(os.Args[1], o)
		case "close":
			err = s.Close()
		case "clock":
			setClock(d)
		case "set":
			err = s.Set(ctx, arg, new(filestore.Session))
		case "touch":
			err = s.Touch(ctx, arg, nil)
		case "get":
			_, err = s.Get(ctx, arg)
		case "reap":
			_, err = s.Reap(ctx)
		case "log": // once the store is closed
			fmt.Println(strings.Join(l.lines, "; "))
			continue
		}
		switch {
		case errors.Is(err, filestore.ErrNotFound):
			fmt.Println("gone")
		case err != nil:
			fmt.Println("error:", err)
		default:
			fmt.Println("ok")
		}
	}
}
