package filestore_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// The error for a member of the wrong type does not have its value. An error of the Codec is returned whole.
func TestNoDataInErrors(t *testing.T) {
	s := session(t, "password", "hunter2", "card", int64(4111111111111111))
	_, err := filestore.Value[time.Time](s, "password")
	_, err2 := filestore.Value[int8](s, "card")
	for _, err := range []error{err, err2} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4111") {
			t.Errorf("Value = %v", err)
		}
	}
	dir := t.TempDir()
	var log bytes.Buffer
	o := quick()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.Codec = keyless{}
	store := open(t, dir, o)
	write(t, dir, "id.json", "x")
	_, err = store.Get(ctx, "id")
	if err == nil || !strings.Contains(err.Error(), "the key of the store") {
		t.Errorf("Get = %v, want the codec's words", err)
	}
	if n, err := store.Reap(ctx); n != 0 || err == nil {
		t.Errorf("Reap = %d, %v, want the codec's error", n, err)
	}
	readFile(t, dir, "id.json")
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ err, is error }{
		{filestore.ErrNotFound, fs.ErrNotExist},
		{filestore.ErrExpired, filestore.ErrNotFound},
		{filestore.ErrExpired, fs.ErrNotExist},
		{filestore.ErrInvalidID, filestore.ErrNotFound},
		{filestore.ErrClosed, fs.ErrClosed},
	} {
		if !errors.Is(tt.err, tt.is) {
			t.Errorf("%v is not %v", tt.err, tt.is)
		}
	}
	if errors.Is(filestore.ErrNotFound, filestore.ErrExpired) || errors.Is(filestore.ErrCorrupt, filestore.ErrNotFound) {
		t.Error("relations hold that must not")
	}
	// The text has no id, no path, no data.
	dir := t.TempDir()
	s := open(t, dir, quick())
	const id = "secretID_0123456789abcdefghijkl"
	write(t, dir, id+".json", `{"cookie":{},"password":"hunter2"`)
	os.Mkdir(filepath.Join(dir, id+"X.json"), 0o700)
	write(t, dir, id+"X.json/f", "")
	for name, op := range ops(s) {
		for _, id := range []string{id, id + "X"} {
			err := op(id)
			if err == nil {
				continue // Set and Destroy of a corrupt file succeed
			}
			var e *filestore.Error
			if !errors.As(err, &e) || len(e.ID) != 8 || !strings.EqualFold(e.Op, name) {
				t.Errorf("%s = %#v, want an *Error of it with an ID of 8 digits", name, err)
			}
			for _, leak := range []string{id[:6], "hunter2", dir} {
				if strings.Contains(err.Error(), leak) {
					t.Errorf("%s: %q leaks %q", name, err, leak)
				}
			}
		}
	}
}
