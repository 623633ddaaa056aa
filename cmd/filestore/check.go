package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
)

const checkLong = `check looks at the directory and at everything in it, and prints one finding a line: how bad it is, what
kind, which file, what it means, and what to do. Of each kind it prints the first thousand.

  error    sessions are lost to their users, or somebody can do harm
  warning  something is not as it should be
  note     to know; it does not change the exit code

It changes nothing, unless --fix is given. --fix takes from others the right to read or change sessions
and lock files, and removes temporary files that a dead writer has left. It touches only files of its own
user; as root also those of the directory's owner.

With --secret-file it needs a tenth of a second for each file that Node wrote.`

func (a *app) checkCommand() *cobra.Command {
	fix := false
	cmd := &cobra.Command{
		Use:        "check [DIR]",
		SuggestFor: []string{"verify", "fsck", "doctor", "fix", "repair"},
		Short:      "Look for trouble in the directory",
		Long:       checkLong,
		Example: `  filestore check --dir /var/lib/site/sessions
  filestore check --json | jq -r 'select(.severity == "error").file'
  filestore check --fix --secret-file site.secret`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context(), fix) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "repair what can be repaired safely: modes and stale temporary files")
	return cmd
}

// A finding is one line of check's.
type finding struct {
	Severity string `json:"severity"`
	Kind     string `json:"kind"`
	File     string `json:"file"`
	Detail   string `json:"detail"` // what it means
	Advice   string `json:"advice"` // what to do
}

// printed is how many findings of each kind are printed.
const printed = 1000

// defaultMaxSize is Options.MaxSize if a program sets none.
const defaultMaxSize = 1 << 20

// A checker is one run of check. What it holds does not grow with the number of files.
type checker struct {
	*reader
	fix   bool
	now   time.Time
	owner int // of the directory

	sieve  sieve
	counts map[string]int // of findings: by severity, and by severity and kind
	err    error          // of the output

	sessions, live, unusable, others int
	linked, linkedLocks              int       // sessions and lock files that have more than one hard link
	linkedName                       string    // the last of them
	expired, due                     int       // due: those of the expired that a reaper would remove
	waiting                          time.Time // since when the first of them could have been removed
	plain                            int       // that could be looked into
	encrypted, untried               int
	beyond                           int // sessions whose modification time --ttl does not allow
}

// check is the command. Its error tells of findings only by the exit code.
func (a *app) check(ctx context.Context, fix bool) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	c := &checker{reader: r, fix: fix, now: a.now(), owner: r.dir.Info().UID, counts: make(map[string]int)}
	c.directory()
	c.volume()
	c.lockFiles()
	if err := c.files(ctx); err != nil {
		return err
	}
	if err := c.cases(ctx); err != nil {
		return err
	}
	c.totals()
	c.inPlace()
	c.flushes()
	c.summary()
	if c.counts[severityError]+c.counts[severityWarning] > 0 { // also if nobody reads on
		return &exitError{exitWrong, errors.New("")} // the findings say it
	}
	return c.err
}

// find counts and prints a finding. The name of a file is shortened.
func (c *checker) find(t trouble, name string, args ...any) {
	c.counts[t.severity]++
	key := t.severity + " " + t.kind
	c.counts[key]++
	if c.counts[key] <= printed {
		c.say(t, name, args...)
	}
}

// say prints a finding that does not count.
func (c *checker) say(t trouble, name string, args ...any) {
	c.print(finding{t.severity, t.kind, c.name(name), fmt.Sprintf(t.detail, args...), t.advice})
}

func (c *checker) print(f finding) {
	if c.err != nil {
		return
	}
	if c.a.json {
		c.err = c.a.printJSON(f)
		return
	}
	colour := map[string]string{severityError: red, severityWarning: bold, severityNote: grey}[f.Severity]
	text := c.a.paint(colour, fmt.Sprintf("%-7s  %-12s", f.Severity, f.Kind)) + "  "
	if f.File != "" {
		text += show(f.File) + ": "
	}
	if text += f.Detail + "."; f.Advice != "" {
		text += " " + f.Advice + "."
	}
	_, c.err = fmt.Fprintln(c.a.out, text)
}

// name shortens what may be an id in the name of a file: whatever stands before the first dot.
func (c *checker) name(name string) string {
	if id, ok := c.idOf(name); ok {
		return c.a.ext.File(c.a.id(id))
	}
	if c.a.full || format.IsTemp(name) || name == c.a.dir || strings.HasPrefix(name, format.LockDir) || strings.HasPrefix(name, "/") {
		return name
	}
	stem, rest := name, ""
	if i := strings.IndexByte(name, '.'); i > 0 {
		stem, rest = name[:i], name[i:]
	}
	return cut(stem, 8) + cut(rest, 24)
}

// files looks at each file of the directory.
func (c *checker) files(ctx context.Context) error {
	for name, err := range c.names(ctx) {
		if err = errors.Join(err, c.err); err != nil {
			return err
		}
		if id, ok := c.idOf(name); ok {
			c.sieve.add(id)
			c.session(name)
		} else if name != format.LockDir {
			c.others++
			c.other(name)
		}
	}
	return nil
}

// other looks at a file that is not a session's.
func (c *checker) other(name string) {
	nodeID, nodeTemp := c.a.ext.NodeTemp(name)
	id, ours := strings.CutSuffix(name, string(c.a.ext))
	switch {
	case format.IsTemp(name):
		c.temporary(name)
	case nodeTemp && !c.claimed(nodeID):
		c.nodeTemporary(name)
	case ours && c.claimed(id): // check --ext looks at it
	case ours:
		c.find(badName, name, c.a.ext)
	default:
		if i, err := c.dir.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			c.find(foreign, name, disk.Kind(i.Mode))
		}
	}
}

// session looks at one session file, first from outside.
func (c *checker) session(name string) {
	i, err := c.dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return // it has ended since it was listed
	}
	c.sessions++
	if err != nil {
		c.find(systemFails, name, cause(err))
		c.unusable++
		return
	}
	if !c.outside(name, i) || !c.content(name) {
		c.unusable++
	}
}

// outside reports whether the file is one to look into.
func (c *checker) outside(name string, i disk.Info) bool {
	switch {
	case i.Mode.IsDir():
		c.find(aDirectory, name, disk.Kind(i.Mode))
	case !i.Mode.IsRegular():
		c.find(notAFile, name, disk.Kind(i.Mode))
	case i.Links > 1:
		c.linked++
		c.linkedName = name
	case !c.usersOwn(name, i):
	case disk.Modes && i.Mode&0o400 == 0:
		c.find(ownerMayNot, name, i.Mode.Perm())
	default:
		return true
	}
	return false
}

// usersOwn reports whether the file belongs to the directory's user, or to another whose files a
// program may read.
func (c *checker) usersOwn(name string, i disk.Info) bool {
	switch {
	case i.UID == c.owner:
	case i.UID == 0:
		c.find(rootsFile, name, c.owner)
	case c.owner == 0:
		c.find(inRootsDir, name, i.UID)
	default:
		c.find(strangers, name, i.UID, c.owner)
		return false
	}
	return true
}

// enough files that no secret opens: to try one takes a tenth of a second and more.
const enough = 20

// content looks into a session file, and reports whether a program would find a session there.
func (c *checker) content(name string) bool {
	if c.plain == 0 && c.counts[severityError+" "+otherKey.kind] >= enough {
		c.untried++
		return false
	}
	e, err := c.read(name)
	if errors.Is(err, filestore.ErrNotFound) {
		c.sessions--
		return true
	}
	if err != nil {
		if i, statErr := c.dir.Stat(name); statErr == nil {
			c.mode(name, i, !errors.Is(err, filestore.ErrCorrupt)) // it may never have been a session
		}
		c.unread(e, err)
		return false
	}
	c.plain++
	c.mode(name, e.info, true)
	c.times(e)
	if e.info.Size > defaultMaxSize {
		c.find(largerThanDefault, name, size(e.info.Size))
	}
	return true
}

// unread says why a session could not be read.
func (c *checker) unread(e entry, err error) {
	switch {
	case errors.Is(err, disk.ErrChanging):
		c.find(alwaysWritten, e.name)
	case errors.Is(err, filestore.ErrUnsafeFile):
		c.find(unsafeFile, e.name, reason(err))
	case errors.Is(err, filestore.ErrTooLarge):
		c.find(tooLarge, e.name, reason(err))
	case errors.Is(err, filestore.ErrDecrypt) && c.codec == nil:
		c.encrypted++
	case errors.Is(err, filestore.ErrDecrypt) && new(filestore.Session).UnmarshalJSON(e.file) == nil:
		c.find(notEncrypted, e.name)
	case errors.Is(err, filestore.ErrDecrypt):
		c.find(otherKey, e.name)
	case errors.Is(err, filestore.ErrCorrupt) && c.codec == nil && otherEnvelope.Match(e.file[:min(len(e.file), 64)]):
		c.encrypted++
	case errors.Is(err, filestore.ErrCorrupt):
		c.find(corrupt, e.name, reason(err))
	case errors.Is(err, fs.ErrPermission):
		c.find(notPermitted, e.name)
	default:
		c.find(diskFails, e.name, cause(err))
	}
}

// What session-file-store writes with use_asn1, and wrote before 1.4, begins like this.
var otherEnvelope = regexp.MustCompile(`^(3082|MII|0\x{82}|IV;)`)

// reason is err without the sentinel in front.
func reason(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, ": "); ok {
		return after
	}
	return text
}

// mode says who else may read and write a session. mend tells whether --fix may change that.
func (c *checker) mode(name string, i disk.Info, mend bool) {
	mode := i.Mode.Perm()
	others, group := mode&0o007, mode&0o070
	switch {
	case !disk.Modes || !i.Mode.IsRegular() || others|group == 0:
	case others == 0:
		c.find(groupMay, name, deeds(group>>3), mode)
	case mend && c.repairMode(othersMay.kind, c.dir, name, name, i, 0o600):
	default:
		c.find(othersMay, name, deeds(others), mode)
	}
}

// deeds says what three bits of a mode allow.
func deeds(bits fs.FileMode) string {
	switch bits & 6 {
	case 6:
		return "read and change"
	case 4:
		return "read"
	case 2:
		return "change"
	}
	return "execute"
}

const longestLife = 400 * day

// times looks at when a session was used and when it ends.
func (c *checker) times(e entry) {
	maxAge, mtime := e.sess.Cookie.OriginalMaxAge, e.info.ModTime()
	life := c.a.life(e.sess, maxAge)
	if e.said.IsZero() {
		c.find(undated, e.name)
	} else if !format.Dated(e.said, c.now) {
		c.find(usedAhead, e.name, inWords(e.said.Sub(c.now)))
	}
	if maxAge == 0 && gjson.GetBytes(e.doc, "cookie.originalMaxAge").Type == gjson.String {
		c.find(textAge, e.name)
	}
	if maxAge > longestLife {
		c.find(longAge, e.name, inWords(maxAge))
	}
	ahead := mtime.Sub(c.now)
	switch {
	case ahead-format.ClockSkew <= max(0, life):
	case maxAge == 0:
		c.beyond++
	default:
		c.find(endsAhead, e.name, inWords(ahead))
	}
	if !e.expired {
		c.live++
		return
	}
	c.expired++
	if !e.notDue(c.now) {
		c.countDue(e, life)
	}
}

// countDue counts a session that a reaper would remove.
func (c *checker) countDue(e entry, life time.Duration) {
	c.due++
	since := e.ends
	if life <= 0 {
		since = e.lastAccess
	}
	if at := e.info.ModTime(); at.After(since) && at.After(e.info.ChangeTime()) { // an end that the reaper has waited for
		since = at
	}
	if c.waiting.IsZero() || since.Before(c.waiting) {
		c.waiting = since
	}
}

// temporary looks at a temporary file of a Go program. Its modification time is the end of its session,
// so its age is that of its last change.
func (c *checker) temporary(name string) {
	i, ok := c.temporaryFile(name)
	if !ok || !c.a.ext.Leftover(name, i.ModTime(), i.ChangeTime(), c.now) {
		return
	}
	if !c.repair(deadWriter.kind, name, "removed, "+byDeadWriter, func() error { return c.remove(name, i) }) {
		c.find(deadWriter, name, inWords(c.now.Sub(i.ChangeTime())))
	}
}

// nodeTemporary looks at what is named like a temporary file of Node's.
func (c *checker) nodeTemporary(name string) {
	i, ok := c.temporaryFile(name)
	if !ok {
		return
	}
	leftover := func(mtime time.Time) bool { return c.a.ext.Leftover(name, mtime, i.ChangeTime(), c.now) }
	switch {
	case !leftover(time.Time{}): // however old it gets
		c.find(datedCopy, name)
	case !leftover(i.ModTime()): // its writer may live
	case c.repair(deadNode.kind, name, "removed, "+byDeadNode, func() error { return c.remove(name, i) }):
	default:
		c.find(deadNode, name, inWords(c.now.Sub(i.ModTime())))
	}
}

// temporaryFile describes what is named like a temporary file, and reports whether it is a file.
func (c *checker) temporaryFile(name string) (disk.Info, bool) {
	i, err := c.dir.Stat(name)
	if err != nil {
		return i, false
	}
	if !i.Mode.IsRegular() {
		c.find(unsafeTemporary, name, disk.Kind(i.Mode))
	}
	return i, i.Mode.IsRegular()
}

// totals says what concerns many files, in one line each.
func (c *checker) totals() {
	c.links()
	files := plural(c.encrypted, "file")
	switch {
	case c.encrypted > 0 && c.plain > 0:
		c.find(mixed, c.a.dir, files, c.plain)
	case c.encrypted > 0:
		c.find(noKey, c.a.dir, files)
	}
	if c.untried > 0 {
		c.find(notTried, c.a.dir, enough, c.untried)
	}
	if c.beyond > 0 {
		c.find(longerTTL, c.a.dir, plural(c.beyond, "session"), c.a.ttl)
	}
	if c.due > 0 {
		t, late := due, c.now.Sub(c.waiting)
		if late > day {
			t = overdue
		}
		c.find(t, c.a.dir, plural(c.due, "session"), inWords(late))
	}
}

// links says what has more than one hard link: a single file is somebody's doing, many are a copy.
func (c *checker) links() {
	sessions := plural(c.linked, "session")
	switch {
	case c.linked+c.linkedLocks > 1 && c.linkedLocks > 0:
		c.find(linkedCopy, c.a.dir, sessions+" and "+plural(c.linkedLocks, "lock file"))
	case c.linked > 1:
		c.find(linkedCopy, c.a.dir, sessions)
	case c.linked == 1:
		c.find(linked, c.linkedName)
	case c.linkedLocks == 1:
		c.find(lockLinked, c.linkedName)
	}
}

// summary prints how many findings were not shown, and the last line.
func (c *checker) summary() {
	for _, key := range slices.Sorted(maps.Keys(c.counts)) {
		severity, kind, ok := strings.Cut(key, " ")
		if more := c.counts[key] - printed; ok && more > 0 {
			c.print(finding{severity, kind, "", fmt.Sprintf("%d more like these are not shown", more), ""})
		}
	}
	detail := fmt.Sprintf("%s, %d of them live, %d expired, %d unusable; %s: %s, %s, %s",
		plural(c.sessions, "session"), c.live, c.expired, c.unusable, plural(c.others, "other file"),
		plural(c.counts[severityError], "error"), plural(c.counts[severityWarning], "warning"), plural(c.counts[severityNote], "note"))
	c.print(finding{severityNote, "summary", "", detail, ""})
}
