package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
	"github.com/spf13/cobra"
)

const importLong = `import reads JSON lines as export prints them, from FILE or standard input, and stores the sessions.

A session keeps its members byte for byte, and its last access, so that it ends when it would have
ended. If its __lastAccess is missing or not a time, it counts as accessed now. Expired sessions are
skipped; those without a maxAge go by --ttl, so give the TTL that the programs have. If an id is taken by
a live session, or by a file that cannot be read, that stays, unless --overwrite is given. A file that
is replaced keeps its mode, others get 0600. A bad line is named by its number and passed over; the exit
code is then 1.

A line may have up to 16 MiB. If an import is interrupted, its last sessions are missing: do it again.`

func (a *app) importCommand() *cobra.Command {
	overwrite := false
	cmd := &cobra.Command{
		Use:        "import [FILE]",
		SuggestFor: []string{"restore", "load"},
		Short:      "Store the sessions of an export",
		Long:       importLong,
		Example: `  filestore import sessions.jsonl
  filestore export --dir plain | filestore import --dir encrypted --secret-file site.secret`,
		Args: takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := a.in
			if len(args) == 1 && args[0] != "-" {
				f, err := await(cmd.Context(), func() (*os.File, error) { return os.Open(args[0]) }) // maybe a pipe
				if err != nil {
					return fmt.Errorf("%s: %w", given(args[0]), cause(err))
				}
				defer f.Close()
				if isDir(args[0]) {
					return fmt.Errorf("%s is a directory, and import reads a file; to import into it: filestore import FILE --dir %[1]s", given(args[0]))
				}
				in = f
			}
			return a.importFrom(cmd.Context(), in, overwrite)
		},
	}
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace sessions that are there already")
	return cmd
}

// An importer stores sessions as they stand in an export. It locks and replaces files as the store does.
// The store itself would mark the sessions as accessed now.
type importer struct {
	*writer
	overwrite bool
	settle    func(at int, err error) // is told what became of a staged session: nil or fs.ErrExist, or why it is not stored
	at        int                     // the number of the present line
	staged    []staged
	bytes     int       // of the staged files
	since     time.Time // when the first of them was staged

	Imported int `json:"imported"`
	Expired  int `json:"expired"`
	Kept     int `json:"kept"`
	Bad      int `json:"bad"`
}

func (a *app) importFrom(ctx context.Context, in io.Reader, overwrite bool) error {
	w, err := a.writer(many)
	if err != nil {
		return err
	}
	defer w.close()
	m := &importer{writer: w, overwrite: overwrite}
	m.settle = m.count
	err = m.lines(ctx, in)
	if printErr := m.report(); err == nil {
		err = printErr
	}
	if err == nil && m.Bad > 0 {
		err = wrong("%s bad", plural(m.Bad, "line"))
	}
	return err
}

// A textLine is one line of the input, or the error that it is.
type textLine struct {
	text []byte
	err  error
}

var errTooLong = errors.New("longer than 16 MiB")

// lines stores one session for each line. If it ends with an error, the lines before the one that the error
// names are stored.
func (m *importer) lines(ctx context.Context, in io.Reader) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	for chunks := m.chunks(reading, in); ; {
		var idle <-chan time.Time // what has been staged does not wait for a slow input
		if len(m.staged) > 0 {
			idle = time.After(time.Until(m.since.Add(time.Second)))
		}
		var c chunk
		var err error
		select {
		case c = <-chunks:
			err = m.chunk(ctx, c.lines)
		case <-idle:
			err = m.commit(ctx)
		case <-ctx.Done():
			c.err = ctx.Err()
		}
		if err == nil && c.err == nil {
			continue
		}
		if ctx.Err() != nil { // interrupted: what came before is stored, but not at any cost
			var cancel func()
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
			defer cancel()
		}
		err = cmp.Or(m.commit(ctx), err, m.flush())
		if err == nil && c.err != io.EOF {
			err = fmt.Errorf("line %d: %w", m.at+1, cause(c.err))
		}
		return err
	}
}

// A chunk is some lines, and the error that comes after them.
type chunk struct {
	lines []textLine
	err   error
}

// chunks reads in until an error, or until ctx is done. A terminal or a pipe may never end: then its
// goroutine is left behind, as the process is about to end.
func (m *importer) chunks(ctx context.Context, in io.Reader) <-chan chunk {
	chunks := make(chan chunk)
	go func() {
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			c := readLines(r)
			select {
			case chunks <- c:
			case <-ctx.Done():
				return
			}
			if c.err != nil {
				return
			}
		}
	}()
	return chunks
}

func (m *importer) chunk(ctx context.Context, lines []textLine) error {
	for _, line := range lines {
		m.at++
		if err := m.line(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// line stages the session of a line. Its error is one that ends the import.
func (m *importer) line(ctx context.Context, line textLine) error {
	err := line.err
	if err == nil && len(bytes.TrimSpace(line.text)) > 0 {
		err = m.session(ctx, line.text)
	}
	var earlier *lineError
	switch {
	case errors.As(err, &earlier): // it was staged, and took no name
		return earlier
	case fatal(err):
		return &lineError{m.at, err}
	case err != nil:
		m.settle(m.at, err)
	}
	if len(m.staged) < atOnce && m.bytes < bytesAtOnce {
		return nil
	}
	return m.commit(ctx)
}

// A lineError ends an import.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string {
	return fmt.Sprintf("line %d: %v; it and what follows was not imported", e.line, readOnlyHere(cause(e.err)))
}

func (e *lineError) Unwrap() error { return readOnlyHere(cause(e.err)) }

// count counts what became of a line.
func (m *importer) count(line int, err error) {
	switch {
	case err == nil:
		m.Imported++
	case errors.Is(err, fs.ErrExist):
		m.Kept++
	default:
		m.Bad++
		m.a.complain(m.Bad, "line %d: %v", line, cause(err))
	}
}

// readLines returns the next line, and those after it that need not be waited for.
func readLines(r *bufio.Reader) (c chunk) {
	for {
		text, err := readLine(r)
		switch {
		case err == errTooLong:
			c.lines = append(c.lines, textLine{err: err})
		case err != nil:
			c.err = err
			return c
		default:
			c.lines = append(c.lines, textLine{text: text})
		}
		if rest, _ := r.Peek(r.Buffered()); bytes.IndexByte(rest, '\n') < 0 {
			return c
		}
	}
}

// readLine returns the next line. If it is too long, readLine reads to its end and returns errTooLong.
func readLine(r *bufio.Reader) (line []byte, err error) {
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxSize {
			long, line = true, nil
		}
		if !long {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF && (long || len(line) > 0) {
			err = nil // the last line has no end
		}
		if err == nil && long {
			err = errTooLong
		}
		return line, err
	}
}

// fatal reports whether err would meet the next line too.
func fatal(err error) bool {
	for _, is := range []error{fs.ErrPermission, disk.ErrGone, context.Canceled, context.DeadlineExceeded, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, is) {
			return true
		}
	}
	return disk.Full(err) || disk.WriteProtected(err)
}

// session stages one session. Its errors do not show the line.
func (m *importer) session(ctx context.Context, text []byte) error {
	var members map[string]json.RawMessage // not a struct: its names would match in any case
	var id string
	if json.Unmarshal(text, &members) != nil || json.Unmarshal(members["id"], &id) != nil || members["session"] == nil {
		return errors.New(`not an object with "id" and "session"`)
	}
	if _, ok := m.idOf(m.a.ext.File(id)); !ok {
		return filestore.ErrInvalidID
	}
	doc, sess := []byte(members["session"]), new(filestore.Session)
	if err := sess.UnmarshalJSON(doc); err != nil {
		return errors.New("the session is " + notSession(err))
	}
	now, maxAge := m.a.now(), sess.Cookie.OriginalMaxAge
	undated := sess.LastAccess.IsZero()
	sess.LastAccess, _ = format.LastAccess(sess.LastAccess, now, now, now) // as the store will see it
	sess.Created = format.Created(sess.Created, now)
	if format.Expired(sess.LastAccess, m.a.life(sess, maxAge), now) {
		m.Expired++
		return nil
	}
	if undated { // else it would never end for Node
		var err error
		if doc, err = sess.MarshalJSON(); err != nil {
			return err
		}
	}
	// How long a session without a maxAge lives is for each program's TTL to say. Its file gets a time
	// that has passed, so that a program's reaper looks at it and gives it the right one.
	mtime := now
	if maxAge != 0 {
		mtime = sess.LastAccess.Add(maxAge)
	}
	return m.stage(ctx, id, doc, format.Mtime(mtime))
}

// notSession completes the sentence "the session is …".
func notSession(err error) string {
	if errors.Is(err, filestore.ErrCorrupt) {
		return reason(err)
	}
	return "not a session"
}

// So many files are written before they are flushed, all at once, and take their names.
var atOnce = 4096 // tests change it

const bytesAtOnce = 16 << 20

// A staged file has been written, and waits for its flush and its name.
type staged struct {
	line           int
	id, name, temp string
	seen           disk.Seen // what has the name and may be replaced
}

// stage writes doc to a temporary file. If the id is taken it fails with fs.ErrExist.
func (m *importer) stage(ctx context.Context, id string, doc []byte, mtime time.Time) error {
	name := m.a.ext.File(id)
	seen, err := m.free(name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if m.overwrite || seen.Version != (disk.Version{}) {
		mode = m.mode(name)
	}
	data, err := m.encode(ctx, id, doc)
	if err != nil {
		return err
	}
	temp, err := m.dir.CreateTemp(format.Temp, data, mode, mtime)
	if disk.Full(err) && len(m.staged) > 0 {
		if err := m.commit(ctx); err != nil { // it may replace files, and make room
			return err
		}
		temp, err = m.dir.CreateTemp(format.Temp, data, mode, mtime)
	}
	if err != nil {
		return err
	}
	if len(m.staged) == 0 {
		m.since = time.Now()
	}
	m.staged, m.bytes = append(m.staged, staged{m.at, id, name, temp, seen}), m.bytes+len(data)
	return nil
}

// commit gives the staged files their names. No rename may be committed before the bytes, so these are flushed
// first. It goes on after an error that is about one session; another one ends it, and what is left is removed.
func (m *importer) commit(ctx context.Context) error {
	todo := m.staged
	m.staged, m.bytes = nil, 0
	if len(todo) == 0 {
		return nil
	}
	err := m.dir.SyncAll()
	if err != nil {
		err = &lineError{todo[0].line, err}
	}
	for _, s := range todo {
		if err != nil {
			m.dir.Remove(s.temp)
			continue
		}
		putErr := m.put(ctx, s)
		if putErr != nil {
			m.dir.Remove(s.temp)
		}
		if fatal(putErr) {
			err = &lineError{s.line, putErr}
		} else {
			m.settle(s.line, putErr)
		}
	}
	return err
}

// put gives a staged file its name, in one step for every reader.
func (m *importer) put(ctx context.Context, s staged) error {
	again := false
	return lock.Again(ctx, lockTimeout, func() (err error) {
		if again { // others have changed it since
			if s.seen, err = m.free(s.name); err != nil {
				return err
			}
		}
		again = true
		l, err := m.lock(ctx, s.id)
		if err != nil {
			return err
		}
		defer l.Unlock()
		if !m.overwrite {
			if same, err := m.dir.Still(s.name, s.seen); err != nil || !same {
				return cmp.Or(err, lock.ErrConflict)
			}
		}
		return l.Rename(s.temp, s.name)
	})
}

// encode returns the bytes of the file for doc.
func (m *importer) encode(ctx context.Context, id string, doc []byte) (data []byte, err error) {
	switch c := m.codec.(type) {
	case nil:
		data = doc
	case filestore.ContextCodec:
		data, err = c.EncodeContext(ctx, id, doc)
	default:
		data, err = c.Encode(id, doc)
	}
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%w: %s", filestore.ErrTooLarge, size(int64(len(data))))
	}
	return data, err
}

// free returns what has the name and may be replaced. It fails with fs.ErrExist if that is a session that is
// alive, or a file that cannot be read, unless all is to be replaced.
func (m *importer) free(name string) (disk.Seen, error) {
	if m.overwrite {
		return disk.Seen{}, nil
	}
	e, err := m.read(name)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return disk.Seen{}, nil
	case err == nil && format.Expired(e.lastAccess, m.a.life(e.sess, e.sess.Cookie.OriginalMaxAge), m.a.now()):
		return e.info.Seen(e.file), nil
	case err == nil, noSession(err), errors.Is(err, filestore.ErrTooLarge), errors.Is(err, fs.ErrPermission):
		return disk.Seen{}, fs.ErrExist
	}
	return disk.Seen{}, err
}

func (m *importer) report() error {
	if m.a.json {
		return m.a.printJSON(m)
	}
	_, err := fmt.Fprintf(m.a.out, "%s imported; %d expired and skipped, %d there already and kept, %s bad\n",
		plural(m.Imported, "session"), m.Expired, m.Kept, plural(m.Bad, "line"))
	return err
}
