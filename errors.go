package filestore

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/sessionfilestore/filestore/internal/disk"
	"github.com/sessionfilestore/filestore/internal/format"
	"github.com/sessionfilestore/filestore/internal/lock"
)

// The errors that callers act on; use errors.Is. A system's own error stays wrapped beside them, so
// that errors.Is(err, syscall.ENOSPC) holds on Unix.
var (
	// ErrNotFound says that there is no such session. It is an fs.ErrNotExist.
	ErrNotFound error = &sentinel{"no such session", fs.ErrNotExist}

	// ErrExpired says that the session's time is over. It is an ErrNotFound.
	ErrExpired error = &sentinel{"session has expired", ErrNotFound}

	// ErrInvalidID is about an id that cannot name a session. It is an ErrNotFound.
	ErrInvalidID error = &sentinel{"invalid session id", ErrNotFound}

	// ErrCorrupt says that the file does not hold a session. The file is kept.
	ErrCorrupt error = &sentinel{"file holds no session", nil}

	// ErrDecrypt is a Codec's: the file was encrypted otherwise, or changed, or is plain. It is kept.
	ErrDecrypt error = &sentinel{"file cannot be decrypted", nil}

	// ErrTooLarge is about a session above Options.MaxSize.
	ErrTooLarge = disk.ErrTooLarge

	// ErrUnsafeFile is about an object that is not a file to read: a link, a directory, a device, another
	// user's file; or about a directory in the place of a file, or a damaged lock file.
	ErrUnsafeFile = disk.ErrUnsafe

	// ErrLockTimeout says that others held or changed the session for all of Options.LockTimeout.
	ErrLockTimeout = lock.ErrTimeout

	// ErrClosed says that the Store is closed. It is an fs.ErrClosed.
	ErrClosed error = &sentinel{"store is closed", fs.ErrClosed}
)

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
	ID  string // the first 8 hex digits of the id's SHA-256, as ids are credentials; "" if it is not about one session
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
		return e // long work has wrapped it: it is about one session
	case *fs.PathError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	case *os.LinkError:
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	e := &Error{Op: op, Err: err}
	if id != "" {
		e.ID = format.ShortID(id)
	}
	return e
}
