package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/kruptein"
	"github.com/sessionfilestore/filestore/sealed"
	"golang.org/x/term"
)

// The exit codes, as the command's help lists them.
const (
	exitDone    = 0
	exitWrong   = 1
	exitRefused = 2
)

// app is what all commands share: the common flags, and where to read and write.
type app struct {
	dir, dirNamed             string // dirNamed: as it was typed; "" = not at all
	ext                       format.Extension
	json, full, noColor       bool
	secretFile, sealedKeyFile string
	ttl, lifetime             time.Duration
	ttlGiven                  bool // if not, the files' times may tell of a longer one
	now                       func() time.Time
	in                        io.Reader
	out, err                  io.Writer

	ctx    context.Context // ends with SIGINT
	paints bool            // out is a terminal
}

// An exitError ends the command with a code other than 2.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// wrong is an error with the exit code 1.
func wrong(format string, args ...any) error {
	return &exitError{exitWrong, fmt.Errorf(format, args...)}
}

// open opens the store with o and what the flags say. If it is ReadOnly nothing in the directory changes.
func (a *app) open(o filestore.Options) (*filestore.Store, error) {
	codec, err := a.codec()
	if err != nil {
		return nil, err
	}
	if err := a.checkDir(); err != nil {
		return nil, err
	}
	o.Lifetime, o.TTL, o.Extension, o.ReapInterval, o.CacheSize = a.lifetime, a.ttl, string(a.ext), -1, -1
	o.MaxSize, o.Codec, o.Logger = maxSize, codec, slog.New(slog.DiscardHandler)
	s, err := filestore.Open(a.dir, &o)
	return s, readOnlyHere(err)
}

// codec returns the Codec that --secret-file or --key-file asks for, nil for plain files.
func (a *app) codec() (filestore.Codec, error) {
	switch {
	case a.secretFile != "" && a.sealedKeyFile != "":
		return nil, errors.New("--secret-file and --key-file exclude each other")
	case a.secretFile != "":
		secrets, err := a.secrets()
		if err != nil {
			return nil, err
		}
		return kruptein.New(secrets...), nil
	case a.sealedKeyFile != "":
		data, err := a.readSmall("--key-file", a.sealedKeyFile)
		if err != nil {
			return nil, err
		}
		key := data
		if len(data) != sealed.KeySize {
			if key, err = hex.DecodeString(strings.TrimSpace(string(data))); err != nil || len(key) != sealed.KeySize {
				return nil, errors.New("--key-file: not a key of 32 bytes or 64 hex digits")
			}
		}
		return sealed.New(key)
	}
	return nil, nil
}

// secrets returns the lines of --secret-file.
func (a *app) secrets() ([]string, error) {
	data, err := a.readSmall("--secret-file", a.secretFile)
	if err != nil {
		return nil, err
	}
	var secrets []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			secrets = append(secrets, line)
		}
	}
	if len(secrets) == 0 {
		return nil, errors.New("--secret-file: the file is empty")
	}
	return secrets, nil
}

// readSmall reads the file of secrets that flag names. It may be a pipe; if nobody writes to it, SIGINT ends the wait.
func (a *app) readSmall(flag, name string) ([]byte, error) {
	const limit = 64 << 10
	data, err := await(a.ctx, func() ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, given(name), cause(err))
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, limit+1))
	})
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s %s: too large for a file of secrets", flag, given(name))
	}
	return data, err
}

// await calls read, but returns when ctx is done. It then leaves read behind, as the process is about to
// end.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	c := make(chan result, 1)
	go func() {
		v, err := read()
		c <- result{v, err}
	}()
	select {
	case r := <-c:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// id returns id as it is shown: shortened unless --full is given.
func (a *app) id(id string) string {
	if !a.full && len(id) > 8 {
		return id[:8] + ellipsis
	}
	return id
}

// printJSON prints v as one line.
func (a *app) printJSON(v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := a.out.Write(safeJSON(buf.Bytes()))
	return err
}

// safeJSON escapes characters in doc that JSON allows and a terminal obeys, such as U+009B, and bytes
// that are not UTF-8. doc must be JSON.
func safeJSON(doc []byte) []byte {
	safe := func(r rune) bool { return r == '\n' || strconv.IsPrint(r) }
	if i := bytes.IndexFunc(doc, func(r rune) bool { return r == utf8.RuneError || !safe(r) }); i < 0 {
		return doc
	}
	out := make([]byte, 0, len(doc)+64)
	for len(doc) > 0 {
		r, n := utf8.DecodeRune(doc)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case safe(r):
			out = append(out, doc[:n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		doc = doc[n:]
	}
	return out
}

// show returns s for a terminal: unchanged if it is harmless and not empty, else quoted.
func show(s string) string {
	if s == "" {
		return `""`
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
		i += n
	}
	return s
}

// cause strips from err the operation and the name that the os package adds. The name may be an id.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

// bare strips the "filestore: " from an error of the core; exitCode adds it.
func bare(err error) error {
	var e *filestore.Error
	if errors.As(err, &e) {
		if e.Op == "open" {
			return fmt.Errorf("open: %w", e.Err)
		}
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}

// The colours of a terminal.
const (
	bold = "1"
	red  = "31"
	grey = "2"
)

// paint returns s in the colour if colours are wanted.
func (a *app) paint(colour, s string) string {
	if !a.colours() || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (a *app) colours() bool {
	return a.paints && !a.noColor && !a.json && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// isTerminal reports whether v, a reader or writer, is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
