package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9/logging"
	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/backend/open"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/lock"
	"github.com/spf13/cobra"
)

const moveLong = `move moves the live sessions of a directory into Redis, PostgreSQL, MySQL or MongoDB, or back, or from one of
these to another. Nobody is logged out: a session keeps its id, its members byte for byte, and its end to
the second. Stop the site first. (One that cannot stop uses session.Moving of the package session.)

The URLs:

env:NAME   the environment variable NAME has the URL: other users of the host would see a password in it
file:DIR
` + open.Usage + `

Other parameters of a URL are the client's.

A session is removed from the source when the target has it on its disk. move can be interrupted or killed
at any moment: do it again, and it goes on. If the target has a live session with the id, that one stays.
The one at the source is then removed, unless it ends later than that.

What has expired, cannot be read, or is refused by the target stays at the source. All but the expired is
named on stderr, and the exit code is then 1. --dry-run only reads, and does not know what the target would
refuse.

--ttl is for the sessions without a maxAge in a directory: give the TTL that its programs have.
--secret-file and --key-file are the directory's. The engines' sessions are plain.`

type moveFlags struct {
	from, to         string
	dry, createTable bool
}

func (a *app) moveCommand() *cobra.Command {
	var f moveFlags
	cmd := &cobra.Command{
		Use:   "move --from URL --to URL",
		Short: "Move all sessions to another store",
		Long:  moveLong,
		Example: `  filestore move --from file:./sessions --to redis://127.0.0.1 --ttl 24h --dry-run
  SITE=postgres://site:password@db/site filestore move --from env:SITE --to file:/var/lib/site/sessions`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.move(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.from, "from", "", "the `URL` where the sessions are")
	cmd.Flags().StringVar(&f.to, "to", "", "the `URL` where they go")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "count what would be moved, and change nothing")
	cmd.Flags().BoolVar(&f.createTable, "create-table", false, "make the table in PostgreSQL or MySQL if there is none; not with --dry-run")
	return cmd
}

// A mover moves the sessions of one side to the other.
type mover struct {
	a         *app
	from, to  side
	batchSize int // so many sessions are stored at once, and then removed at the source
	read      int // so many are read
	told      int // so many are named on stderr
	inRow     int // so many were refused, and none was stored since

	Moved      int `json:"moved"`
	There      int `json:"there"`
	Expired    int `json:"expired"`
	Newer      int `json:"newer"`
	Unreadable int `json:"unreadable"`
	Refused    int `json:"refused"`
}

// An item is a live session, with its LastAccess.
type item struct {
	id   string
	sess *filestore.Session
	ends time.Time
	none bool      // the engine knows no end, and ends is one that --ttl gives it
	seen disk.Seen // of a file
}

// covers reports whether it can stay in the place of other, since it ends as late. If it has the same document, it is
// other's copy, whose end has gone through two clocks, or was given to it.
func (it item) covers(other item) bool {
	if !it.ends.Before(other.ends) {
		return true
	}
	a, errA := it.sess.Document()
	b, errB := other.sess.Document()
	return (other.none || other.ends.Sub(it.ends) < 2*time.Second) && errA == nil && errB == nil && bytes.Equal(a, b)
}

// aboutSession reports whether err is about one session, so that others may do better.
func aboutSession(err error) bool {
	return noSession(err) || errors.Is(err, filestore.ErrNotFound) || errors.Is(err, filestore.ErrTooLarge)
}

func (a *app) move(ctx context.Context, f moveFlags) (err error) {
	m := &mover{a: a, batchSize: engineBatch}
	fromURL, fromErr := locate("--from", f.from)
	toURL, toErr := locate("--to", f.to)
	if err := cmp.Or(fromErr, toErr); err != nil {
		return err
	}
	fromDir, isFromDir, fromErr := directory("--from", fromURL)
	toDir, isToDir, toErr := directory("--to", toURL)
	if err := cmp.Or(fromErr, toErr); err != nil {
		return err
	}
	if isToDir {
		m.batchSize = atOnce // a flush takes long
	}
	switch {
	case fromURL == toURL || isFromDir && isToDir && sameFile(fromDir, toDir):
		return errSame
	case !isFromDir && !isToDir && (a.secretFile != "" || a.sealedKeyFile != ""):
		return errors.New("--secret-file and --key-file are a directory's, and neither side is one")
	}
	if err := apartByURL(fromURL, toURL); err != nil { // a dry run has no other way to know
		return err
	}
	silenceClients()
	o := open.Options{TTL: anyTTL, Lifetime: a.lifetime, Timeout: engineTimeout, ReapInterval: -1, MaxSize: maxSize,
		Logger: slog.New(slog.DiscardHandler), NoIndex: true} // the source stays as it is
	if m.from, err = a.side(ctx, "--from", fromURL, fromDir, f.dry, o); err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, m.from.close()) }()
	o.NoIndex, o.CreateTable = f.dry, f.createTable && !f.dry
	if m.to, err = a.side(ctx, "--to", toURL, toDir, f.dry, o); err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, m.to.close()) }()
	if isFromDir == isToDir && !f.dry {
		if err := m.apart(ctx, isRedis(fromURL) && isRedis(toURL)); err != nil {
			return err
		}
	}
	err = m.run(ctx)
	if reportErr := m.report(f.dry); err == nil {
		err = reportErr
	}
	if stay := m.Newer + m.Unreadable + m.Refused; err == nil && stay > 0 {
		err = wrong("%s left where they were", plural(stay, "session"))
	}
	return err
}

// silenceClients lets the engines' clients print nothing: what they meet comes back as an error.
func silenceClients() {
	logging.Disable()
	mysql.SetLogger(new(mysql.NopLogger))
}

// locate returns the URL that a flag names.
func locate(flag, value string) (string, error) {
	if value == "" {
		return "", fmt.Errorf("move needs --from and --to, and %s is missing; filestore help move lists the URLs", flag)
	}
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		if value = os.Getenv(name); value == "" {
			return "", fmt.Errorf("%s: the environment has no such variable", flag) // it may be a password
		}
	}
	return value, nil
}

// directory returns the directory that a URL names, if it is one of a directory.
func directory(flag, url string) (dir string, ok bool, err error) {
	if dir, ok = strings.CutPrefix(url, "file:"); !ok {
		return "", false, nil
	}
	if strings.HasPrefix(dir, "//") && !strings.HasPrefix(dir, "///") { // to the system it would be in the root directory
		return "", true, fmt.Errorf("%s: a directory's URL is file:DIR, without a host", flag)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", true, fmt.Errorf("%s: there is no directory %s", flag, show(dir))
	}
	return dir, true, nil
}

// isRedis reports whether open.Open opens the URL as one of Redis.
func isRedis(rawURL string) bool {
	u, err := url.Parse(rawURL)
	return err == nil && (u.Scheme == "redis" || u.Scheme == "rediss")
}

// apartByURL fails if the URLs themselves show what mover.apart looks for.
func apartByURL(from, to string) error {
	fromServer, fromPart := partOf(from)
	toServer, toPart := partOf(to)
	switch {
	case fromServer != toServer:
	case fromPart == toPart:
		return errSame
	case isRedis(from) && (strings.HasPrefix(fromPart, toPart) || strings.HasPrefix(toPart, fromPart)):
		return errNested
	}
	return nil
}

// partOf splits the URL of an engine into that of the server and the part of it that the sessions are in.
func partOf(rawURL string) (server, part string) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL, ""
	}
	var param, usual, port string
	switch u.Scheme {
	case "redis", "rediss":
		param, usual, port = "prefix", "sess:", ":6379"
	case "postgres", "postgresql":
		param, usual, port = "table", "session", ":5432"
	case "mysql":
		param, usual, port = "table", "sessions", ":3306"
	case "mongodb", "mongodb+srv":
		param, usual, port = "collection", "sessions", ":27017"
	default:
		return rawURL, ""
	}
	q := u.Query()
	part = cmp.Or(q.Get(param), usual)
	q.Del(param)
	u.RawQuery = q.Encode()
	u.Host = strings.TrimSuffix(u.Host, port)
	return u.String(), part
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

var (
	errSame   = errors.New("--from and --to are the same place")
	errNested = errors.New("the prefix of one side begins with the other's, so a session of one can be a session of the other")
)

// side opens the directory dir, or if dir is "" the engine that url names.
func (a *app) side(ctx context.Context, flag, url, dir string, dry bool, o open.Options) (s side, err error) {
	if dir != "" {
		own := *a
		own.dir = dir
		if dry {
			r, err := own.reader()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", flag, err)
			}
			return dryRun{&dirSide{reader: r}}, nil
		}
		w, err := own.writer(many)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		return &dirSide{w.reader, w}, nil
	}
	e, err := await(ctx, func() (*open.Store, error) { return open.Open(ctx, url, &o) })
	switch {
	case errors.Is(err, open.ErrScheme):
		return nil, fmt.Errorf("%s: neither file:DIR nor the URL of an engine; filestore help move lists them", flag)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, inFlags(bare(err), flag, dry))
	case dry:
		return dryRun{engineSide{a, e}}, nil
	}
	return engineSide{a, e}, nil
}

// inFlags returns err with the words of the command in the place of those of the engines' packages.
func inFlags(err error, flag string, dry bool) error {
	create, table := ": create it, or give --create-table", ": see ?table= and --create-table"
	switch {
	case flag == "--from": // there it makes none
		create, table = "", ": see ?table="
	case dry:
		create, table = create+", without --dry-run", table+", without --dry-run"
	}
	text := err.Error()
	words := strings.NewReplacer(": create it, or set Options.CreateTable", create, ": see Options.Table and CreateTable", table,
		"Options.Table", "?table=").Replace(text)
	if words == text {
		return err
	}
	return errors.New(words)
}

// apart fails if both sides are the same place, by whatever names: the sessions would then be removed. In Redis it also
// fails if one side's prefix begins with the other's, since a session of one can then be a session of the other, with
// another id. Only there it looks in both directions: elsewhere the source's user need not have the right to insert.
func (m *mover) apart(ctx context.Context, inRedis bool) error {
	if err := m.seen(ctx, "--to", m.to, m.from); err != nil || !inRedis {
		return err
	}
	return m.seen(ctx, "--from", m.from, m.to)
}

// seen fails if what is stored at the side at, which flag names, is at the other one too. It puts a session there for a
// moment, and looks for it.
func (m *mover) seen(ctx context.Context, flag string, at, other side) (err error) {
	const life = time.Minute
	now := m.a.now()
	mark := item{
		id:   "move-" + rand.Text(),
		sess: &filestore.Session{Cookie: filestore.Cookie{OriginalMaxAge: life}, LastAccess: now},
		ends: now.Add(life),
	}
	results, err := at.store(ctx, []item{mark})
	if err = cmp.Or(err, results[0]); err != nil {
		return fmt.Errorf("%s: %w", flag, bare(err))
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		found, findErr := at.find(ctx, mark.id)
		if findErr == nil {
			_, findErr = at.remove(ctx, []item{found})
		}
		err = cmp.Or(err, findErr)
	}()
	for id, err := range other.ids(ctx) {
		switch {
		case err != nil:
			return err
		case id == mark.id:
			return errSame
		case strings.HasSuffix(id, mark.id): // with a shorter prefix it has a longer id
			return errNested
		}
	}
	return nil
}

const (
	engineBatch = 1000
	batchBytes  = 8 << 20
)

// run moves the sessions. If ctx ends, it does so between two batches.
func (m *mover) run(ctx context.Context) error {
	bar := m.a.progressOf("moving", func() int { return m.read + m.count(ctx) })
	defer bar.done()
	var batch []item
	bytes := 0
	for it, err := range m.ahead(ctx) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && it.id == "" {
			return bare(err)
		}
		bar.add()
		m.read++
		switch {
		case errors.Is(err, filestore.ErrExpired):
			m.Expired++
		case err != nil:
			m.Unreadable++
			m.tell(it.id, "unreadable: %s", reasonAt(m.from, err))
			if m.Unreadable == named && m.read == named && errors.Is(err, filestore.ErrDecrypt) {
				return errNoKey
			}
		default:
			batch = append(batch, it)
			for _, raw := range it.sess.Values {
				bytes += len(raw)
			}
		}
		if len(batch) == m.batchSize || bytes >= batchBytes {
			if err := m.batch(ctx, batch); err != nil {
				return err
			}
			batch, bytes = nil, 0
		}
	}
	if ctx.Err() != nil { // which has ended the reading
		return ctx.Err()
	}
	return m.batch(ctx, batch)
}

// ahead yields what from.all does, until ctx ends. A goroutine of its own reads on meanwhile: that takes as long as to
// store.
func (m *mover) ahead(ctx context.Context) iter.Seq2[item, error] {
	type result struct {
		item
		err error
	}
	return func(yield func(item, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		read := make(chan result, m.batchSize/2)
		var reader sync.WaitGroup
		reader.Go(func() {
			defer close(read)
			for it, err := range m.from.all(ctx) {
				select {
				case read <- result{it, err}:
				case <-ctx.Done():
					return
				}
			}
		})
		defer reader.Wait()
		defer stop()
		for r := range read {
			if !yield(r.item, r.err) {
				return
			}
		}
	}
}

// count returns how many sessions are at the source, for the bar.
func (m *mover) count(ctx context.Context) (n int) {
	for _, err := range m.from.ids(ctx) {
		if err != nil { // which run meets too
			break
		}
		n++
	}
	return n
}

// batch moves some sessions. It is not interrupted, as each step has a bound.
func (m *mover) batch(ctx context.Context, items []item) error {
	if len(items) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	results, err := m.to.store(ctx, items)
	var stored, there []item
	for i, result := range results {
		it := items[i]
		var is item
		if errors.Is(result, fs.ErrExist) {
			if is, result = m.to.find(ctx, it.id); result == nil {
				if is.covers(it) {
					there = append(there, it)
				} else {
					m.Newer++
					m.tell(it.id, "newer than the one at the target: both stay")
				}
				continue
			}
			if !aboutSession(result) {
				err = cmp.Or(err, result)
				break
			}
		}
		switch {
		case result == nil:
			m.inRow = 0
			stored = append(stored, it)
		case result == errLeft:
		case errors.Is(result, filestore.ErrExpired):
			m.Expired++
		default:
			m.Refused++
			m.tell(it.id, "refused: %s", reasonAt(m.to, result))
			if !aboutSession(result) {
				m.inRow++
			}
			if m.inRow >= named && err == nil {
				err = fmt.Errorf("the target refuses all: %w", bare(result))
			}
		}
	}
	return cmp.Or(m.remove(ctx, stored, &m.Moved), m.remove(ctx, there, &m.There), err)
}

// remove removes sessions that are at the target from the source, and counts them.
func (m *mover) remove(ctx context.Context, items []item, count *int) error {
	if len(items) == 0 {
		return nil
	}
	results, err := m.from.remove(ctx, items)
	for i, result := range results {
		switch {
		case result == nil:
			*count++
		case result == lock.ErrConflict:
			m.Newer++
			m.tell(items[i].id, "it has changed meanwhile: both stay")
		case result != errLeft:
			m.Refused++
			m.tell(items[i].id, "stored, but not removed: %s", reasonAt(m.from, result))
		}
	}
	return err
}

// reasonAt is the text of reasonOf(err), an error of the side s: what an engine has is not a file.
func reasonAt(s side, err error) string {
	text := reasonOf(err).Error()
	if d, ok := s.(dryRun); ok {
		s = d.side
	}
	if _, ok := s.(engineSide); !ok {
		return text
	}
	if rest, ok := strings.CutPrefix(text, "file "); ok {
		return "the document " + rest
	}
	return text
}

// reasonOf returns err without the operation and the id.
func reasonOf(err error) error {
	if e, ok := errors.AsType[*filestore.Error](err); ok {
		err = e.Err
	}
	return cause(err)
}

func (m *mover) tell(id, format string, args ...any) {
	m.told++
	m.a.complain(m.told, "%s: "+format, append([]any{m.a.id(id)}, args...)...)
}

func (m *mover) report(dry bool) error {
	if m.a.json {
		return m.a.printJSON(m)
	}
	done, unknown := "moved", ""
	if dry {
		done, unknown = "would be moved", " (a dry run does not ask the target what it refuses)"
	}
	_, err := fmt.Fprintf(m.a.out, "%s %s, %d there already; skipped: %d expired, %d newer than there; %d unreadable, %d refused%s\n",
		plural(m.Moved, "session"), done, m.There, m.Expired, m.Newer, m.Unreadable, m.Refused, unknown)
	return err
}
