// Package format is the format of a session directory: which names are whose, when a session ends,
// what the times of a file say of that, and JSON whose members are cut out unchanged. It does no I/O.
// docs/FORMAT.md says the same in prose.
package format

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// LockDir holds the lock files, one for each of Stripes. Their number, their names and the hash that
// chooses one are part of the format: all processes on a directory must agree.
const (
	LockDir = ".locks"
	Stripes = 64
)

// LockFile returns the name of a stripe's lock file: ".locks/00" to ".locks/3f".
func LockFile(stripe int) string { return LockDir + "/" + hex[stripe] }

// The numbers of the stripes in two hexadecimal digits.
var hex = func() (all [Stripes]string) {
	for i := range all {
		all[i] = fmt.Sprintf("%02x", i)
	}
	return all
}()

// Stripe returns the stripe of the session id, by the 32-bit FNV-1a hash.
func Stripe(id string) int {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return int(h % Stripes)
}

// ValidID is filestore.ValidID, which says what it promises.
func ValidID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case (c == '.' || c == ',' || c == '~') && 0 < i && i < len(id)-1:
		default:
			return false
		}
	}
	first, _, _ := strings.Cut(id, ".")
	return 1 <= len(id) && len(id) <= 200 && (len(first) < 3 || len(first) > 4 || !reserved.MatchString(first))
}

// ShortID stands for id in errors, as ids are credentials: the first 8 hex digits of its SHA-256.
func ShortID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%x", sum[:4])
}

// What Windows takes for devices, whatever stands behind the dot.
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|(com|lpt)[0-9])$`)

// An Extension ends the names of a store's session files: ".json".
type Extension string

var extension = regexp.MustCompile(`^(\.[A-Za-z0-9_-]{1,16}){1,2}$`)

// ExtensionRule says in an error what Valid asks for.
const ExtensionRule = "a dot and 1 to 16 of A-Z a-z 0-9 - _, once or twice"

// Valid reports whether e follows ExtensionRule.
func (e Extension) Valid() bool { return extension.MatchString(string(e)) }

// File returns the name of the session id's file.
func (e Extension) File(id string) string { return id + string(e) }

// ValidID reports whether id can name a session of a store with the extension: its file's name must
// not be read as something else.
func (e Extension) ValidID(id string) bool {
	_, _, temp := e.nodeTemp(id)
	return !temp && ValidID(id) && !strings.HasSuffix(id, string(e)) && !e.alias(id)
}

// alias reports whether the session id's file has a name of the form that Windows gives to a longer one too:
// "ABCDEF~1.SES" to "abcdefghijkl.ses". To whoever asks for it there, the session with the long id would answer.
func (e Extension) alias(id string) bool {
	return strings.LastIndexByte(string(e), '.') == 0 && len(e) <= len(".ses") &&
		len(id) <= len("abcdef~1") && strings.Contains(id, "~") && !strings.Contains(id, ".")
}

// ID returns the id of the session that the file name belongs to, and false for other names. See also
// Claim.
func (e Extension) ID(file string) (id string, ok bool) {
	id, ok = strings.CutSuffix(file, string(e))
	return id, ok && e.ValidID(id)
}

// Mark returns the name of the file that a store leaves in LockDir if its extension has two parts, as
// ".admin.json"; "" for others. It tells a store with ".json" that "x.admin.json" is not a file of its
// own: it would be x.admin there, under another lock than x here.
func (e Extension) Mark() string {
	if strings.Count(string(e), ".") < 2 {
		return ""
	}
	return LockDir + "/ext" + string(e)
}

// Claim returns the Mark of the store that has the session id's file for its own, if there is such a
// store; "" if there cannot be one.
func (e Extension) Claim(id string) string {
	i := strings.LastIndexByte(id, '.')
	if i < 0 {
		return ""
	}
	return (Extension(id[i:]) + e).Mark()
}

// Temp returns a random name for a temporary file. No extension ends like it: Node's reaper deletes what
// looks like a session and is not.
func Temp() string { return "." + rand.Text() + "~" }

var temp = regexp.MustCompile(`^\.[A-Z2-7]{26}~$`)

// IsTemp reports whether name is one that Temp makes.
func IsTemp(name string) bool { return temp.MatchString(name) }

// NodeTemp returns the id of the session that the temporary file name of Node belongs to, and false
// for other names.
func (e Extension) NodeTemp(name string) (id string, ok bool) {
	id, _, ok = e.nodeTemp(name)
	return id, ok && ValidID(id)
}

// nodeTemp takes apart what write-file-atomic calls the temporary file of a session:
// <id><extension>.<a hash of 32 bits, in decimal>.
func (e Extension) nodeTemp(name string) (id, hash string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || i == len(name)-1 || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", "", false
	}
	id, ok = strings.CutSuffix(name[:i], string(e))
	return id, name[i+1:], ok
}

// Leftover reports whether name, a file of these times, is a temporary file that nobody will miss: its writer
// must have died, as one keeps it for milliseconds, and waits for a lock for seconds. Ours have an mtime that
// lies ahead, so that their ctime counts. Node's have the form of a dated or rotated copy too: short numbers,
// and numbers close to the file's own time, are left alone.
func (e Extension) Leftover(name string, mtime, ctime, now time.Time) bool {
	const age = time.Hour
	if IsTemp(name) {
		return now.Sub(ctime) >= age
	}
	id, hash, ok := e.nodeTemp(name)
	n, err := strconv.ParseUint(hash, 10, 32)
	if !ok || !ValidID(id) || err != nil || n < 1e8 || hash[0] == '0' {
		return false
	}
	dated := ctime.Sub(time.Unix(int64(n), 0)).Abs() < 24*time.Hour
	return !dated && now.Sub(mtime) >= age
}
