package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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
		Use:   "import [FILE]",
		Short: "Store the sessions of an export",
		Long:  importLong,
		Example: `  filestore import sessions.jsonl
  filestore export --dir plain | filestore import --dir encrypted --secret-file site.secret`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := a.in
			if len(args) == 1 && args[0] != "-" {
				f, err := await(cmd.Context(), func() (*os.File, error) { return os.Open(args[0]) }) // maybe a pipe
				if err != nil {
					return fmt.Errorf("%s: %w", show(args[0]), cause(err))
				}
				defer f.Close()
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
	*reader
	locks     *lock.Table
	overwrite bool

	Imported int `json:"imported"`
	Expired  int `json:"expired"`
	Kept     int `json:"kept"`
	Bad      int `json:"bad"`
}

func (a *app) importFrom(ctx context.Context, in io.Reader, overwrite bool) error {
	r, err := a.openReader(disk.Options{})
	if err != nil {
		return err
	}
	defer r.close()
	m := &importer{reader: r, overwrite: overwrite}
	if m.locks, err = lock.Open(r.dir, a.ext, slog.New(slog.DiscardHandler)); err != nil {
		return readOnlyHere(err)
	}
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

func (m *importer) lines(ctx context.Context, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for n := 1; ; n++ {
		line, err := await(ctx, func() (textLine, error) { // a terminal or a pipe may never end
			text, err := readLine(r)
			if err == errTooLong {
				return textLine{err: err}, nil
			}
			return textLine{text: text}, err
		})
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, cause(err))
		}
		if len(bytes.TrimSpace(line.text)) == 0 && line.err == nil {
			continue
		}
		if line.err == nil {
			line.err = m.line(ctx, line.text)
		}
		if fatal(line.err) {
			return fmt.Errorf("line %d: %w; it and what follows was not imported", n, readOnlyHere(cause(line.err)))
		}
		if line.err != nil {
			m.Bad++
			m.a.complain(m.Bad, "line %d: %v", n, cause(line.err))
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
	for _, is := range []error{fs.ErrPermission, disk.ErrGone, context.Canceled, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// line imports one session. Its errors do not show the line.
func (m *importer) line(ctx context.Context, text []byte) error {
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
	if format.Expired(sess.LastAccess, format.Life(maxAge, m.a.ttl), now) {
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
	err := m.put(ctx, id, doc, format.Mtime(mtime))
	if errors.Is(err, fs.ErrExist) {
		m.Kept++
		return nil
	}
	if err == nil {
		m.Imported++
	}
	return err
}

// notSession completes the sentence "the session is …".
func notSession(err error) string {
	if errors.Is(err, filestore.ErrCorrupt) {
		return reason(err)
	}
	return "not a session"
}

const lockTimeout = 5 * time.Second // the store's default

// put makes doc the session id, in one step for every reader. It fails with fs.ErrExist if the id is
// taken, unless m.overwrite is set.
func (m *importer) put(ctx context.Context, id string, doc []byte, mtime time.Time) error {
	data, err := m.encode(ctx, id, doc)
	if err != nil {
		return err
	}
	l, err := m.locks.Lock(ctx, id, lockTimeout)
	if err != nil {
		return err
	}
	defer l.Unlock()
	name := m.a.ext.File(id)
	if !m.overwrite {
		if err := m.free(name); err != nil {
			return err
		}
	}
	temp, err := m.dir.CreateTemp(l.Temp, data, m.mode(name), mtime)
	if err != nil {
		return err
	}
	if err := l.Rename(temp, name); err != nil {
		return err
	}
	return m.dir.Sync()
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

// free fails with fs.ErrExist if a file has the name, unless its session has expired: a session that is
// alive keeps its place, and so does a file that cannot be read.
func (m *importer) free(name string) error {
	e, err := m.read(name)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return nil
	case err == nil && format.Expired(e.lastAccess, format.Life(e.sess.Cookie.OriginalMaxAge, m.a.ttl), m.a.now()):
		return nil
	case err == nil, noSession(err), errors.Is(err, filestore.ErrTooLarge), errors.Is(err, fs.ErrPermission):
		return fs.ErrExist
	}
	return err
}

func (m *importer) report() error {
	if m.a.json {
		return m.a.printJSON(m)
	}
	_, err := fmt.Fprintf(m.a.out, "%s imported; %d expired and skipped, %d there already and kept, %s bad\n",
		plural(m.Imported, "session"), m.Expired, m.Kept, plural(m.Bad, "line"))
	return err
}
