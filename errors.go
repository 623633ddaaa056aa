package filestore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The errors that callers act on; use errors.Is. A system's own error stays wrapped beside them, so
// that errors.Is(err, syscall.ENOSPC) holds.
var (
	ErrNotFound    error = &sentinel{"no such session", fs.ErrNotExist}
	ErrExpired     error = &sentinel{"session has expired", ErrNotFound}
	ErrInvalidID   error = &sentinel{"invalid session id", ErrNotFound} // an id that can name no session names none
	ErrCorrupt     error = &sentinel{"file holds no session", nil}      // the file is kept
	ErrDecrypt     error = &sentinel{"file cannot be decrypted", nil}   // says a Codec: encrypted otherwise, changed, or plain; the file is kept
	ErrTooLarge    error = &sentinel{"session is too large", nil}       // see Options.MaxSize
	ErrUnsafeFile  error = &sentinel{"unsafe file", nil}                // a link, a directory, a device, another user's file, a damaged lock file
	ErrLockTimeout error = &sentinel{"timeout waiting for the session's lock", nil}
	ErrClosed      error = &sentinel{"store is closed", fs.ErrClosed}
)

var errGone error = &sentinel{"the session directory was deleted", fs.ErrNotExist}

var errReadOnly error = &sentinel{"store is read-only", fs.ErrPermission}

type sentinel struct {
	text   string
	parent error
}

func (e *sentinel) Error() string { return e.text }
func (e *sentinel) Unwrap() error { return e.parent }

// An Error describes a failed operation on a Store. (An error from Update's fn is returned unchanged.)
type Error struct {
	Op  string // the operation: "get", "set", …
	ID  string // the first 8 hex digits of the id's SHA-256, as ids are credentials; "" where there is none
	Err error
}

func (e *Error) Error() string {
	return "filestore: " + strings.TrimSpace(e.Op+" "+e.ID) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// wrap makes the error that leaves the package. The os package's errors name the file, and so the
// id: only their cause goes on.
func wrap(op, id string, err error) error {
	if err == nil {
		return nil
	}
	switch e := err.(type) { // only the os package's own: a Codec's errors go on whole
	case *Error:
		return e // long work's, of one session
	case *fs.PathError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	case *os.LinkError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	e := &Error{Op: op, Err: err}
	if id != "" {
		sum := sha256.Sum256([]byte(id))
		e.ID = hex.EncodeToString(sum[:4])
	}
	return e
}
