package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
)

const checkLong = `check looks at everything in the directory, and at the directory itself, and prints one finding a
line: how bad it is, what kind, which file, what it means, and what to do.

  error    sessions are lost to their users, or somebody can do harm
  warning  something is not as it should be
  note     to know; it does not change the exit code

With --secret-file a file that Node wrote takes it a tenth of a second.

It follows no link, opens no pipe or device, takes no lock and changes nothing, unless --fix is given.
Of each kind it prints the first thousand and counts the rest.

--fix does only what cannot harm: it takes from others the right to read or change sessions and lock
files (mode 0600, of .locks 0700), and removes temporary files that a dead writer has left. It touches
regular files of its own user alone; as root also those of the directory's owner.`

func (a *app) checkCommand() *cobra.Command {
	fix := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for trouble in the directory",
		Long:  checkLong,
		Example: `  filestore check --dir /var/lib/site/sessions
  filestore check --json | jq -r 'select(.severity == "error").file'
  filestore check --fix --secret-file site.secret`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context(), fix) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "repair what can be repaired safely: modes and stale temporary files")
	return cmd
}

// A finding is one line of check's.
type finding struct {
	Severity string `json:"severity"` // severityError, …
	Kind     string `json:"kind"`
	File     string `json:"file"`
	Detail   string `json:"detail"` // what it means
	Advice   string `json:"advice"` // what to do
}

const (
	severityError   = "error"
	severityWarning = "warning"
	severityNote    = "note"
)

// printed is of how many findings of one kind each is printed.
const printed = 1000

// defaultMaxSize is Options.MaxSize where a program sets none.
const defaultMaxSize = 1 << 20

// A checker is one run of check. What it holds does not grow with the number of files.
type checker struct {
	a     *app
	r     *reader
	dir   *os.File    // r.root's
	info  fs.FileInfo // what it was at the start
	fix   bool
	now   time.Time
	locks bool // .locks is a directory of ours

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

// check is the command. Its error says what it found only by the exit code.
func (a *app) check(ctx context.Context, fix bool) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	c := &checker{a: a, r: r, fix: fix, now: a.now(), counts: make(map[string]int)}
	if c.dir, err = r.root.Open("."); err != nil {
		return a.noDir(err)
	}
	defer c.dir.Close()
	if c.info, err = c.dir.Stat(); err != nil {
		return a.noDir(err)
	}
	c.directory()
	c.volume()
	c.lockFiles()
	if err = c.files(ctx); err == nil {
		err = c.cases(ctx)
	}
	if err != nil {
		return err
	}
	c.totals()
	c.inPlace()
	c.summary()
	switch {
	case c.counts[severityError]+c.counts[severityWarning] > 0: // also where nobody reads on
		return &exitError{exitWrong, errors.New("")} // the findings say it
	case c.err != nil:
		return c.err
	}
	return nil
}

// find notes and prints a finding. The name of a file is shortened.
func (c *checker) find(severity, kind, name, detail, advice string) {
	c.counts[severity]++
	key := severity + " " + kind
	c.counts[key]++
	if c.counts[key] <= printed {
		c.print(finding{severity, kind, c.name(name), detail, advice})
	}
}

func (c *checker) errorf(kind, name, advice, format string, args ...any) {
	c.find(severityError, kind, name, fmt.Sprintf(format, args...), advice)
}

func (c *checker) warn(kind, name, advice, format string, args ...any) {
	c.find(severityWarning, kind, name, fmt.Sprintf(format, args...), advice)
}

func (c *checker) note(kind, name, advice, format string, args ...any) {
	c.find(severityNote, kind, name, fmt.Sprintf(format, args...), advice)
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
	if id, ok := c.a.idOf(name); ok {
		return c.a.id(id) + c.a.ext
	}
	if c.a.full || name == c.a.dir || ourTemp.MatchString(name) || strings.HasPrefix(name, lockDir) || strings.HasPrefix(name, "/") {
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
	for name, err := range names(ctx, c.r.root) {
		if err = errors.Join(err, c.err); err != nil {
			return err
		}
		id, isSession := c.a.idOf(name)
		nodeID, _, isNodeTemp := c.a.nodeTemp(name)
		switch {
		case name == lockDir:
		case isSession:
			c.sieve.add(id)
			c.session(name)
		case ourTemp.MatchString(name):
			c.others++
			c.ourTemporary(name)
		case isNodeTemp && filestore.ValidID(nodeID):
			c.others++
			c.nodeTemporary(name)
		case c.a.others(name):
			c.others++ // check --ext looks at them
		case strings.HasSuffix(name, c.a.ext):
			c.others++
			c.warn("name", name, "If it is a session of Node's, its id is one that Go refuses: let its user log in again; else move it elsewhere, as Node's reaper removes such files",
				"ends in %s, but no session can have this name", c.a.ext)
		default:
			c.others++
			c.foreign(name)
		}
	}
	return nil
}

func (c *checker) foreign(name string) {
	fi, err := c.r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	kind := "a file"
	if err == nil && !fi.Mode().IsRegular() {
		kind = kindOf(fi)
	}
	c.note("foreign", name, "Nothing here reads or removes it; if it is not needed, you can", "%s that is neither filestore's nor Node's", kind)
}

// kindOf says what a file is that is not regular.
func kindOf(fi fs.FileInfo) string {
	switch m := fi.Mode(); {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "not a regular file"
}

// session looks at one session file, first from outside.
func (c *checker) session(name string) {
	fi, err := c.r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return // it has ended since it was listed
	}
	c.sessions++
	ok := false
	switch {
	case err != nil:
		c.errorf("unreadable", name, "Run check as the directory's owner", "%v", cause(err))
	case !fi.Mode().IsRegular():
		advice := "Find out who put it there, then remove it; rm removes it and not what it leads to"
		if fi.IsDir() {
			advice = "Find out who put it there, then remove it; beware of Node, whose destroy and reaper remove it with all that is in it"
		}
		c.errorf("unsafe", name, advice, "%s, which no program takes for a session", kindOf(fi))
	case links(fi) > 1:
		c.linked++
		c.linkedName = name
	case c.strangers(name, fi):
	case hasModes && fi.Mode()&0o400 == 0:
		c.errorf("unreadable", name, "chmod 600", "its owner may not read it (%04o)", fi.Mode().Perm())
	default:
		ok = c.content(name)
	}
	if !ok {
		c.unusable++
	}
}

// strangers looks whose the file is, and reports whether it is of no use therefore.
func (c *checker) strangers(name string, fi fs.FileInfo) bool {
	uid, _, known := owner(fi)
	if !known || uid == c.r.owner {
		return false
	}
	advice := fmt.Sprintf("Find out who wrote it; if it is a session of yours, chown %d", c.r.owner)
	switch {
	case uid == 0:
		c.warn("owner", name, advice, "it is root's, the directory is user %d's, whose programs can read it only if its mode lets them", c.r.owner)
	case c.r.owner == 0:
		c.warn("owner", name, advice, "it is user %d's, the directory is root's: only programs of these two users read it", uid)
	default:
		c.errorf("unsafe", name, advice, "it is user %d's, the directory is user %d's, whose programs refuse it", uid, c.r.owner)
		return true
	}
	return false
}

// content looks into a session file, and reports whether a program would find a session there.
func (c *checker) content(name string) bool {
	if c.plain == 0 && c.counts[severityError+" undecryptable"] >= enough {
		c.untried++
		return false
	}
	e, err := c.r.read(name)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		c.sessions--
		return true
	case err == nil:
		c.plain++
		c.mode(name, e.info, true)
		c.times(e)
		if n := e.info.Size(); n > defaultMaxSize {
			c.warn("too large", name, "Raise Options.MaxSize in all programs, or keep less in a session", "%s; programs refuse more than 1 MiB, unless Options.MaxSize says otherwise", size(n))
		}
		return true
	}
	if fi, statErr := c.r.root.Lstat(name); statErr == nil {
		c.mode(name, fi, !errors.Is(err, filestore.ErrCorrupt)) // which may be no session at all
	}
	c.unread(name, err)
	return false
}

// enough files that no secret opens: to try one takes a tenth of a second and more.
const enough = 20

// unread says why a session could not be read.
func (c *checker) unread(name string, err error) {
	const again = "Its user is stuck with it until it is removed: rm it, and he can log in again"
	switch {
	case errors.Is(err, errChanging):
		c.warn("unreadable", name, "Look who does that, and run check again", "it is replaced or written all the time")
	case errors.Is(err, filestore.ErrUnsafeFile):
		c.errorf("unsafe", name, "Find out who put it there, then remove it", "%s", reason(err))
	case errors.Is(err, filestore.ErrTooLarge):
		c.errorf("too large", name, again, "it was not read, as it is larger than 16 MiB (%s)", reason(err))
	case errors.Is(err, filestore.ErrDecrypt) && c.r.codec == nil:
		c.encrypted++
	case errors.Is(err, filestore.ErrDecrypt):
		if data, _, err := c.r.bytes(name); err == nil && new(filestore.Session).UnmarshalJSON(data) == nil {
			c.errorf("undecryptable", name, again+"; nothing is ever read as plain text", "it is not encrypted, but the others are: programs refuse it")
			return
		}
		c.errorf("undecryptable", name, "Give its older secret or key if there is one. "+again, "it was encrypted with another secret or key, or changed since, or is another session's file")
	case errors.Is(err, filestore.ErrCorrupt):
		if data, _, err := c.r.bytes(name); err == nil && c.r.codec == nil && otherEnvelope.Match(data[:min(len(data), 64)]) {
			c.encrypted++
			return
		}
		c.errorf("corrupt", name, again+"; if it never was a session, move it elsewhere, as Node's reaper removes what is not JSON", "it holds no session: %s", reason(err))
	case errors.Is(err, fs.ErrPermission):
		c.errorf("unreadable", name, "Run check as the directory's owner", "you may not read it")
	default:
		c.errorf("unreadable", name, "Look at the system's log: the disk may be failing", "%v", cause(err))
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

// mode looks who may read and write a session.
func (c *checker) mode(name string, fi fs.FileInfo, mend bool) {
	mode := fi.Mode()
	others, group := mode.Perm()&0o007, mode.Perm()&0o070
	text := fmt.Sprintf("%04o", mode.Perm())
	if !hasModes || !fi.Mode().IsRegular() || others|group == 0 {
		return
	}
	if others == 0 {
		c.note("modes", name, "Keep it so only if Node runs as another user of this group", "the group can %s it (%s)", deeds(group>>3), text)
		return
	}
	if mend && c.repair("modes", name, "mode set to 0600, it was "+text, func() error { return c.setMode(c.r.root, name, fi, 0o600) }) {
		return
	}
	c.warn("modes", name, "chmod 600, or check --fix; run Node with umask 077, as it makes 0644", "others can %s it (%s)", deeds(others), text)
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

// times looks at when a session was used and when it ends.
func (c *checker) times(e entry) {
	said, own := c.said(e), e.sess.Cookie.OriginalMaxAge
	lives := own
	if own == 0 {
		lives = c.a.ttl
	}
	switch {
	case said.IsZero():
		c.warn("undated", e.name, "Have Go's programs, which date it by its file, write or reap it", "it has no usable __lastAccess: to Node it never ends")
	case said.After(c.now.Add(clockSkew)):
		c.warn("future", e.name, "Set the clock right; Go counts it from when its file was changed, Node from that time", "it was last used %s ahead of now", inWords(said.Sub(c.now)))
	}
	if own == 0 && gjson.GetBytes(e.doc, "cookie.originalMaxAge").Type == gjson.String {
		c.warn("undated", e.name, "Have the program that writes cookie.maxAge set a number", "its originalMaxAge is text: Go takes it for none, to Node it never ends")
	}
	if own > longestLife {
		c.note("future", e.name, "Set a shorter maxAge, or expect it to stay", "its maxAge is %s; browsers keep no cookie for longer than 400 days", inWords(own))
	}
	if ahead := e.info.ModTime().Sub(c.now) - clockSkew; ahead > max(0, lives) {
		if own == 0 {
			c.beyond++
		} else {
			c.warn("future", e.name, "Set the clock right if it is wrong; no reaper removes the file until then, the session's next use puts its time right", "its modification time is %s ahead, and so further than it can live", inWords(ahead+clockSkew))
		}
	}
	if !e.expired {
		c.live++
		return
	}
	c.expired++
	if e.stays(c.now) {
		return
	}
	c.due++
	since := e.ends
	if lives <= 0 {
		since = e.lastAccess
	}
	if at := e.info.ModTime(); at.After(since) && at.After(changeTime(e.info)) { // an end that the reaper has waited for
		since = at
	}
	if c.waiting.IsZero() || since.Before(c.waiting) {
		c.waiting = since
	}
}

const (
	clockSkew   = 5 * time.Minute // as the store's
	longestLife = 400 * 24 * time.Hour
)

// said returns the last access that the file tells, not the one that the store would assume.
func (c *checker) said(e entry) time.Time {
	if at := e.lastAccess; !at.Equal(e.info.ModTime()) && !at.Equal(changeTime(e.info)) && at.Before(c.now) {
		return at // which is none of those that the store assumes
	}
	var s filestore.Session
	s.UnmarshalJSON(e.doc) // which has succeeded before
	return s.LastAccess
}

// A temporary file's modification time is the end of its session: its age is that of its last change.
func (c *checker) ourTemporary(name string) {
	fi, ok := c.temporary(name)
	if !ok || c.now.Sub(changeTime(fi)) < staleAfter {
		return
	}
	const what = "a writer that died has left it"
	if c.repair("temporary", name, "removed, "+what, func() error {
		return c.underLock(name[1:3], func() error { return c.remove(name, fi) })
	}) {
		return
	}
	c.warn("temporary", name, "filestore reap, or check --fix; no reaper seems to run here", "%s %s ago", what, inWords(c.now.Sub(changeTime(fi))))
}

const staleAfter = time.Hour // as the store's

// nodeTemporary goes by the rule of the store's reaper: a number that is short for a hash, or the
// time when the file was made, may be somebody's own.
func (c *checker) nodeTemporary(name string) {
	fi, ok := c.temporary(name)
	if !ok {
		return
	}
	_, hash, _ := c.a.nodeTemp(name)
	n, err := strconv.ParseUint(hash, 10, 32)
	dated := changeTime(fi).Sub(time.Unix(int64(n), 0)).Abs() < 24*time.Hour
	if err != nil || n < 1e8 || hash[0] == '0' || dated {
		c.note("foreign", name, "If it is not yours, and older than an hour, you can remove it", "it may be a temporary file of Node's, or a dated copy of a session")
		return
	}
	if c.now.Sub(fi.ModTime()) < staleAfter {
		return
	}
	const what = "a Node process that died has left it"
	if c.repair("temporary", name, "removed, "+what, func() error { return c.remove(name, fi) }) {
		return
	}
	c.warn("temporary", name, "filestore reap, or check --fix", "%s %s ago", what, inWords(c.now.Sub(fi.ModTime())))
}

// temporary looks at what is named like a temporary file.
func (c *checker) temporary(name string) (fs.FileInfo, bool) {
	fi, err := c.r.root.Lstat(name)
	if err == nil && !fi.Mode().IsRegular() {
		c.warn("unsafe", name, "Find out who put it there, then remove it", "it is named like a temporary file, but is %s", kindOf(fi))
	}
	return fi, err == nil && fi.Mode().IsRegular()
}

// cases looks for ids that differ in case only.
func (c *checker) cases(ctx context.Context) error {
	if !c.sieve.twice {
		return nil
	}
	const most = 100_000 // beyond chance: somebody makes them
	alike := make(map[string][]string)
	for name, err := range names(ctx, c.r.root) {
		if err != nil {
			return err
		}
		if id, ok := c.a.idOf(name); ok && c.sieve.maybe(id) && len(alike) < most {
			alike[strings.ToLower(id)] = append(alike[strings.ToLower(id)], name)
		}
	}
	for _, group := range alike {
		slices.Sort(group)
		for _, name := range group[:len(group)-1] {
			c.warn("case", name, "Let one of the two users log in again", "another session's id differs from its id in case only: on macOS and Windows they would be one file")
		}
	}
	return nil
}

// totals says what concerns many files, in one line each.
func (c *checker) totals() {
	c.links()
	if c.encrypted > 0 {
		detail := plural(c.encrypted, "file") + " could not be looked into: they are encrypted"
		if c.plain > 0 {
			detail += ", while " + strconv.Itoa(c.plain) + " are not; no program reads both"
		}
		c.warn("encrypted", c.a.dir, "Give --secret-file (Node's and kruptein's) or --key-file (sealed)", "%s", detail)
	}
	if c.untried > 0 {
		c.errorf("undecryptable", c.a.dir, "Give the right --secret-file or --key-file", "the first %d files could not be decrypted, so %d others were not tried", enough, c.untried)
	}
	if c.beyond > 0 {
		c.note("future", c.a.dir, "If the programs' TTL is longer, give it with --ttl; else the clock was wrong", "the modification times of %s without a maxAge say that they live longer than %v", plural(c.beyond, "session"), c.a.ttl)
	}
	if c.due > 0 {
		late := c.now.Sub(c.waiting)
		detail := fmt.Sprintf("%s expired and not removed yet, the first %s ago", plural(c.due, "session"), inWords(late))
		if late > 24*time.Hour {
			c.warn("expired", c.a.dir, "filestore reap; and let one program reap (Options.ReapInterval)", "%s: no reaper seems to run here", detail)
		} else {
			c.note("expired", c.a.dir, "A reaper removes them", "%s", detail)
		}
	}
}

// links says what has more than one hard link: a single file is somebody's doing, of many there is a copy.
func (c *checker) links() {
	switch {
	case c.linked+c.linkedLocks > 1:
		detail := plural(c.linked, "session")
		if c.linkedLocks > 0 {
			detail += " and " + plural(c.linkedLocks, "lock file")
		}
		c.errorf("unsafe", c.a.dir, "Remove that copy, or with the programs stopped give each its own file (cp -p FILE FILE.new; mv FILE.new FILE); back up with cp -a, tar or rsync without --link-dest",
			"more than one hard link have %s, as a copy by cp -al or rsnapshot leaves them: who has the copy can write to them, so no program reads a session", detail)
	case c.linked == 1:
		c.errorf("unsafe", c.linkedName, "Find the other name (find / -xdev -samefile FILE), and remove one of the two", "it has more than one hard link, so that somebody else may write to it; no program reads it")
	case c.linkedLocks == 1:
		c.errorf("locks", c.linkedName, "Stop the programs, remove it, and start them: it is made anew", "it has more than one hard link: who has the other name can hold the lock")
	}
}

// summary is the last line.
func (c *checker) summary() {
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for key := range c.counts {
			if !yield(key) {
				return
			}
		}
	}) {
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

// A sieve tells which ids may differ from another in case only, in 16 MiB however many there are.
type sieve struct {
	seen  []uint64 // two bits for each of slots
	twice bool
}

const slots = 1 << 26

func (s *sieve) slot(id string) (word int, shift uint) {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(id) {
		c := id[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	n := (h >> 32) % slots
	return int(n / 32), uint(n % 32 * 2)
}

func (s *sieve) add(id string) {
	if s.seen == nil {
		s.seen = make([]uint64, slots/32)
	}
	word, shift := s.slot(id)
	if s.seen[word]>>shift&1 == 1 {
		s.seen[word] |= 2 << shift
		s.twice = true
	}
	s.seen[word] |= 1 << shift
}

func (s *sieve) maybe(id string) bool {
	if s.seen == nil {
		return false
	}
	word, shift := s.slot(id)
	return s.seen[word]>>shift&2 != 0
}

var lockName = regexp.MustCompile(`^[0-3][0-9a-f]$`)
