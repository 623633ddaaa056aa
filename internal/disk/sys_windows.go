package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The calls of the busy paths name a file of the opened directory by its handle, as os.Root does. They
// differ in what they ask for: whoever only looks at a file or sets its time is not refused by a program
// that has it open for itself alone, and they tell the file's index and when it was changed.

// Modes reports whether permissions mean something here.
const Modes = false

// LockFlags open a lock file.
const LockFlags = os.O_RDONLY

const (
	toLook    = windows.FILE_READ_ATTRIBUTES
	toSetTime = toLook | windows.FILE_WRITE_ATTRIBUTES
	toRead    = windows.FILE_GENERIC_READ

	// What a look must not follow, and what is to be read must not be.
	notFollowed = windows.FILE_OPEN_REPARSE_POINT
	notADir     = windows.FILE_NON_DIRECTORY_FILE
)

// open opens name, and says what it is. The names that it takes are relative, so that "nul" is a file
// like others.
func (d *Dir) open(name string, access, options uint32) (windows.Handle, Info, error) {
	if name == "." {
		name = ""
	}
	ntName, err := windows.NewNTUnicodeString(name)
	if err != nil {
		return 0, Info{}, err
	}
	attributes := windows.OBJECT_ATTRIBUTES{
		RootDirectory: windows.Handle(d.fd),
		ObjectName:    ntName,
		Attributes:    windows.OBJ_CASE_INSENSITIVE | windows.OBJ_DONT_REPARSE,
	}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	var h windows.Handle
	err = again(func() error {
		return winError(windows.NtCreateFile(&h, access|windows.SYNCHRONIZE, &attributes, new(windows.IO_STATUS_BLOCK), nil, 0,
			windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, windows.FILE_OPEN,
			windows.FILE_SYNCHRONOUS_IO_NONALERT|windows.FILE_OPEN_FOR_BACKUP_INTENT|options, 0, 0))
	})
	if err != nil {
		return 0, Info{}, err
	}
	i, err := info(h)
	if err != nil {
		windows.CloseHandle(h)
		return 0, Info{}, err
	}
	return h, i, nil
}

// winError returns the system's error for a status of the kernel's. One of them it translates to another: a
// file that is deleted as soon as its last user closes it is gone.
func winError(err error) error {
	switch status, ok := err.(windows.NTStatus); {
	case !ok:
		return err
	case status == windows.STATUS_DELETE_PENDING:
		return fs.ErrNotExist
	case status == windows.STATUS_REPARSE_POINT_ENCOUNTERED: // who looked before did not find it
		return ErrChanging
	case status == windows.STATUS_FILE_IS_A_DIRECTORY:
		return notRegular(fs.ModeDir)
	default:
		return status.Errno()
	}
}

// info describes the open file h. Every change of the file sets the change time, which is not the write time, and which no
// program sets by accident. File systems without one, such as FAT, have no inode here: nothing is cached.
func info(h windows.Handle) (Info, error) {
	var data windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &data); err != nil {
		return Info{}, err
	}
	var basic struct { // FILE_BASIC_INFO
		creation, access, write, change int64
		attributes, _                   uint32
	}
	err := windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic)))
	if err != nil {
		return Info{}, err
	}
	mode, err := fileMode(h, data.FileAttributes)
	if err != nil {
		return Info{}, err
	}
	i := Info{
		Version: Version{
			Inode: uint64(data.FileIndexHigh)<<32 | uint64(data.FileIndexLow),
			Size:  int64(data.FileSizeHigh)<<32 | int64(data.FileSizeLow),
			Mtime: nanos(basic.write),
			Ctime: nanos(basic.change),
		},
		Mode:  mode,
		Links: uint64(data.NumberOfLinks),
		UID:   -1,
		GID:   -1,
	}
	if basic.change == 0 {
		i.Inode, i.Ctime = 0, nanos(basic.creation) // every write of ours makes a new file
	}
	return i, nil
}

// fileMode says what the open file h with these attributes is, as the os package does.
func fileMode(h windows.Handle, attributes uint32) (fs.FileMode, error) {
	mode := fs.FileMode(0o666)
	if attributes&windows.FILE_ATTRIBUTE_READONLY != 0 {
		mode = 0o444
	}
	if attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		var tag struct{ attributes, tag uint32 } // FILE_ATTRIBUTE_TAG_INFO
		err := windows.GetFileInformationByHandleEx(h, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&tag)), uint32(unsafe.Sizeof(tag)))
		const deduplicated = 0x80000013 // by Windows Server, which reads and writes it like any other
		switch {
		case err != nil:
			return 0, err
		case tag.tag == windows.IO_REPARSE_TAG_SYMLINK:
			return mode | fs.ModeSymlink, nil
		case tag.tag != deduplicated:
			return mode | fs.ModeIrregular, nil
		}
	}
	if attributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 {
		mode |= fs.ModeDir | 0o111
	}
	return mode, nil
}

// nanos turns the system's time, 100 ns since 1601, into nanoseconds since 1970; far times are cut, as they
// do not fit.
func nanos(ticks int64) int64 {
	const epoch, far = 116444736000000000, math.MaxInt64 / 100
	return max(-far, min(ticks-epoch, far)) * 100
}

func owner(fs.FileInfo) int { return -1 }

// Writable fails if this process may make no files in the directory name. What is missing is not its matter.
func (d *Dir) Writable(name string) error {
	const addFile = windows.FILE_WRITE_DATA // for a directory
	h, _, err := d.open(name, toLook|addFile, windows.FILE_DIRECTORY_FILE)
	switch {
	case err == nil:
		return windows.CloseHandle(h)
	case errors.Is(err, fs.ErrPermission), WriteProtected(err):
		return err
	}
	return nil
}

// Gone returns false: an opened directory cannot be deleted here.
func (d *Dir) Gone() bool { return false }

// look is open for what others may be replacing. NTFS sometimes says of a name that is just being replaced that it does
// not exist, or refuses to open it: look believes neither before it has heard it for two milliseconds.
func (d *Dir) look(name string, access, options uint32) (h windows.Handle, i Info, err error) {
	for pause := time.Duration(0); ; pause = 2*pause + time.Millisecond/2 {
		time.Sleep(pause)
		h, i, err = d.open(name, access, options)
		denied := errors.Is(err, fs.ErrPermission)
		switch {
		case (denied || errors.Is(err, fs.ErrNotExist)) && pause < time.Millisecond:
		case denied && name != ".": // the directory lets us in: it is about this file
			return h, i, fmt.Errorf("%w: %w", ErrUnsafe, err)
		default:
			return h, i, err
		}
	}
}

// Stat describes name without following it.
func (d *Dir) Stat(name string) (Info, error) {
	h, i, err := d.look(name, toLook, notFollowed)
	if err != nil {
		return Info{}, err
	}
	return i, windows.CloseHandle(h)
}

// Lstat describes name, which may be below another directory, without following it.
func (d *Dir) Lstat(name string) (fi fs.FileInfo, err error) {
	err = again(func() (err error) {
		fi, err = d.root.Lstat(name)
		return err
	})
	return fi, err
}

// Same reports whether name is the file of fi.
func (d *Dir) Same(name string, fi fs.FileInfo) (bool, error) {
	at, err := d.Lstat(name)
	return err == nil && os.SameFile(at, fi), err
}

// read reads name once. ErrChanging: look again.
func (d *Dir) read(name string, limit int64) ([]byte, Info, error) {
	h, i, err := d.look(name, toRead, notADir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, i, ErrChanging
	case err != nil:
		return nil, i, err
	}
	defer windows.CloseHandle(h)
	if err := d.check(i, limit); err != nil {
		return nil, i, err
	}
	data := make([]byte, i.Size+1)
	n := 0
	err = again(func() (err error) { // a part of it may be locked
		n, err = windows.Read(h, data)
		return err
	})
	if err != nil {
		return nil, i, err
	}
	if now, err := info(h); err != nil {
		return nil, i, err
	} else if int64(n) != i.Size || now.Version != i.Version { // written in place meanwhile
		return nil, i, ErrChanging
	}
	return data[:n], i, nil
}

func (d *Dir) create(name string, data []byte, mode fs.FileMode, mtime time.Time) (made bool, err error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return false, err
	}
	err = d.fill(f, data, mtime)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return true, err
}

func (d *Dir) fill(f *os.File, data []byte, mtime time.Time) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := chtime(windows.Handle(f.Fd()), mtime); err != nil || d.opts.NoSync {
		return err
	}
	d.countFlush()
	return f.Sync()
}

func chtime(h windows.Handle, mtime time.Time) error {
	t := windows.NsecToFiletime(mtime.UnixNano())
	return windows.SetFileTime(h, nil, nil, &t)
}

// SetTime sets the mtime of name, if it still is the file of v.
func (d *Dir) SetTime(name string, v Version, mtime time.Time) error {
	h, i, err := d.open(name, toSetTime, notFollowed)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	if i.Version != v || !i.Mode.IsRegular() || i.Links != 1 {
		return ErrChanging
	}
	return chtime(h, mtime)
}

// SetMode fails: see Modes.
func (d *Dir) SetMode(string, Version, fs.FileMode) error { return errors.ErrUnsupported }

// rename also replaces a file that has the read-only attribute, as one may that was copied back. On other systems no mode
// of a file keeps it from being replaced.
func (d *Dir) rename(from, to string) error {
	return againOrDenied(func() error {
		err := d.root.Rename(from, to)
		if errors.Is(err, fs.ErrPermission) {
			if i, statErr := d.Stat(to); statErr == nil && i.Mode.IsRegular() && i.Mode&0o200 == 0 {
				d.root.Chmod(to, 0o600)
			}
		}
		return err
	})
}

// unlink never removes a directory.
func (d *Dir) unlink(name string) error {
	if i, err := d.Stat(name); err == nil && i.Mode.IsDir() { // Remove would take an empty one
		return syscall.ERROR_ACCESS_DENIED
	}
	return againOrDenied(func() error { return d.root.Remove(name) })
}

// syncDir does nothing: Windows has no flush for directories.
func syncDir(*os.File) error { return nil }

// Full reports whether err says that the volume has no room for a file.
func Full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// WriteProtected reports whether err says that nothing can be written to the volume.
func WriteProtected(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// Busy reports whether err says that another program has the file open, or a part of it locked, for itself
// alone. Virus scanners and backup programs do so, for some milliseconds.
func Busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}

// again repeats what is Busy, for two seconds at most.
func again(op func() error) error { return repeat(op, Busy) }

// againOrDenied is again for a file that is to go. Some systems and file systems refuse that as long as anybody
// has it open, a reader of ours too, and say that access is denied.
func againOrDenied(op func() error) error {
	return repeat(op, func(err error) bool { return Busy(err) || errors.Is(err, windows.ERROR_ACCESS_DENIED) })
}

func repeat(op func() error, passes func(error) bool) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := op(); err == nil || !passes(err) || time.Now().After(deadline) {
			return err
		}
	}
}
