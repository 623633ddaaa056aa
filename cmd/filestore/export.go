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
	"github.com/spf13/cobra"
)

const exportLong = `export prints the live sessions as JSON lines, {"id":…,"session":…}, decrypted and with their ids
whole: keep what it prints as you keep the directory. import reads it.

What names a session but holds none that can be read is left out, named on stderr, and makes the exit
code 1. Sessions that come or go meanwhile may or may not be among them.`

func (a *app) exportCommand() *cobra.Command {
	var withExpired, yes bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all sessions as JSON lines, as a backup",
		Long:  exportLong,
		Example: `  filestore export >sessions.jsonl
  filestore export --dir old | filestore import --dir new --key-file new.key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.paints && !yes {
				return errors.New("this would show all sessions on the terminal: send it to a file, or say --yes")
			}
			return a.export(cmd.Context(), withExpired)
		},
	}
	cmd.Flags().BoolVar(&withExpired, "expired", false, "also those that have expired")
	cmd.Flags().BoolVar(&yes, "yes", false, "also to a terminal")
	return cmd
}

// named is how many troubles are named one by one on stderr.
const named = 100

func (a *app) export(ctx context.Context, withExpired bool) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	out := bufio.NewWriterSize(a.out, 64<<10)
	var line bytes.Buffer
	left, done := 0, 0
	for e, err := range r.all(ctx) {
		if err != nil && e.id == "" {
			return errors.Join(err, out.Flush())
		}
		if err != nil {
			left++
			a.complain(left, "%s: left out: %v", a.id(e.id), err)
			if done == 0 && left == named && errors.Is(err, filestore.ErrDecrypt) { // to try one may take a tenth of a second
				return fmt.Errorf("none of the first %d files can be decrypted: give the right --secret-file or --key-file", named)
			}
			continue
		}
		if e.expired && !withExpired {
			continue
		}
		done++
		line.Reset()
		fmt.Fprintf(&line, `{"id":%q,"session":`, e.id) // an id needs no escapes
		json.Compact(&line, e.doc)                      // which is JSON, and keeps all but space between tokens
		line.WriteString("}\n")
		text := line.Bytes()
		if a.paints {
			text = safeJSON(text)
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if left > 0 {
		return wrong("%s left out; filestore check says what to do", plural(left, "file"))
	}
	return nil
}

// complain says one of many troubles on stderr.
func (a *app) complain(nth int, format string, args ...any) {
	switch {
	case nth <= named:
		fmt.Fprintln(a.err, "filestore: "+oneLine(fmt.Sprintf(format, args...)))
	case nth == named+1:
		fmt.Fprintln(a.err, "filestore: more of these are not named")
	}
}

const importLong = `import reads JSON lines as export prints them, from FILE or standard input, and stores the sessions.

A session keeps its members byte for byte, and its last access, so that it ends when it would have
ended. One whose __lastAccess is missing or no time counts as accessed now. Expired sessions are
skipped, by --ttl where they have no maxAge of their own: give it as the programs have it. Where the
id is taken by a live session, or by a file that cannot be read, that stays, unless --overwrite is
given. A file that is replaced keeps its mode, others get 0600. A bad line is named by its number and
passed over; the exit code is then 1.

Lines may have up to 16 MiB. The last lines of an import that was interrupted are missing; do it again.`

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

// An importer stores sessions as they stand in an export. It does so through the store, for its locks
// and its flushes, which would date them anew: but a Codec has the last word on what a file holds.
type importer struct {
	a         *app
	root      *os.Root
	stores    map[fs.FileMode]*filestore.Store // by the mode that they give to files
	codec     filestore.Codec                  // nil: plain
	overwrite bool

	doc []byte // what Encode is to write; nil: what the store says

	Imported int `json:"imported"`
	Expired  int `json:"expired"`
	Kept     int `json:"kept"`
	Bad      int `json:"bad"`
}

// Encode writes the exported document in the place of the store's.
func (m *importer) Encode(id string, doc []byte) ([]byte, error) {
	if m.doc != nil {
		doc = m.doc
	}
	if m.codec == nil {
		return doc, nil
	}
	return m.codec.Encode(id, doc)
}

func (m *importer) Decode(id string, file []byte) ([]byte, error) {
	if m.codec == nil {
		return file, nil
	}
	return m.codec.Decode(id, file)
}

func (a *app) importFrom(ctx context.Context, in io.Reader, overwrite bool) error {
	codec, err := a.codec()
	if err != nil {
		return err
	}
	if fi, err := os.Stat(a.dir); err != nil || !fi.IsDir() { // as for open
		return a.noDir(err)
	}
	m := &importer{a: a, codec: codec, overwrite: overwrite, stores: make(map[fs.FileMode]*filestore.Store)}
	if m.root, err = os.OpenRoot(a.dir); err != nil {
		return a.noDir(err)
	}
	defer m.root.Close()
	defer func() {
		for _, s := range m.stores {
			s.Close()
		}
	}()
	if _, err := m.store(0); err != nil { // before the first line is read
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

// store returns the store whose files have the mode.
func (m *importer) store(mode fs.FileMode) (s *filestore.Store, err error) {
	if s = m.stores[mode]; s == nil {
		s, err = filestore.Open(m.a.dir, &filestore.Options{
			TTL: m.a.ttl, Extension: m.a.ext, ReapInterval: -1, CacheSize: -1,
			MaxSize: maxSize, Codec: m, Logger: slog.New(slog.DiscardHandler), Mode: mode,
		})
		if err == nil {
			m.stores[mode] = s
		}
	}
	return s, err
}

// A textLine is one line of the input, or why it is none.
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
			return fmt.Errorf("line %d: %w; it and what follows was not imported", n, readOnlyHere(line.err))
		}
		if line.err != nil {
			m.Bad++
			m.a.complain(m.Bad, "line %d: %v", n, bare(line.err))
		}
	}
}

// readLine returns the next line; of one that is too long it reads the rest and keeps nothing.
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
			err = nil // the last one, without its end
		}
		if err == nil && long {
			err = errTooLong
		}
		return line, err
	}
}

// fatal tells the errors that the next line would have too.
func fatal(err error) bool {
	for _, is := range []error{fs.ErrPermission, fs.ErrClosed, context.Canceled, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// line imports one session. Its errors show nothing of the line.
func (m *importer) line(ctx context.Context, text []byte) error {
	var members map[string]json.RawMessage // of a struct the names would be matched in any case
	var id string
	if json.Unmarshal(text, &members) != nil || json.Unmarshal(members["id"], &id) != nil || members["session"] == nil {
		return errors.New(`not an object with "id" and "session"`)
	}
	if _, ok := m.a.idOf(id + m.a.ext); !ok {
		return filestore.ErrInvalidID
	}
	doc, sess := members["session"], new(filestore.Session)
	if err := sess.UnmarshalJSON(doc); err != nil {
		return errors.New("the session is " + notSession(err))
	}
	now := m.a.now()
	dated := !sess.LastAccess.IsZero()
	if !dated || sess.LastAccess.After(now.Add(clockSkew)) {
		sess.LastAccess = now // as the store will see it
	}
	lives, ends := sess.Cookie.OriginalMaxAge, sess.ExpiresAt(m.a.ttl)
	if lives == 0 {
		lives = m.a.ttl
	}
	if lives <= 0 || ends.UnixMilli() < now.UnixMilli() {
		m.Expired++
		return nil
	}
	err := m.put(ctx, id, doc, sess, dated, ends.Sub(now))
	switch {
	case err == nil:
		m.Imported++
	case errors.Is(err, fs.ErrExist):
		m.Kept++
		err = nil
	}
	return err
}

// notSession says what a document is not.
func notSession(err error) string {
	if errors.Is(err, filestore.ErrCorrupt) {
		return reason(err)
	}
	return "none"
}

// put stores the document of a session that has left to live.
func (m *importer) put(ctx context.Context, id string, doc []byte, sess *filestore.Session, dated bool, left time.Duration) error {
	if dated {
		// The store sees a session that lives for what is left, as it gives the file the time of its
		// end. How long one without a maxAge lives is for each program's TTL to say: to the reaper its
		// time seems to have come, and it looks at the session and gives it the right one.
		if sess.Cookie.OriginalMaxAge == 0 {
			left = time.Millisecond
		}
		sess = &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: max(left, time.Millisecond), HTTPOnly: true, Path: "/"}}
		m.doc = doc
		defer func() { m.doc = nil }()
	}
	s, err := m.store(mode(m.root, id+m.a.ext)) // what it replaces may be a session that has expired
	if err != nil {
		return err
	}
	if m.overwrite {
		return s.Set(ctx, id, sess)
	}
	return s.Create(ctx, id, sess)
}

func (m *importer) report() error {
	if m.a.json {
		return m.a.printJSON(m)
	}
	_, err := fmt.Fprintf(m.a.out, "%s imported; %d expired and skipped, %d there already and kept, %s bad\n",
		plural(m.Imported, "session"), m.Expired, m.Kept, plural(m.Bad, "line"))
	return err
}
