package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// Whoever reads no more of the output, as head does, has seen enough: that is not an error.
func TestBrokenPipe(t *testing.T) {
	dir, _ := sessions(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	if code := run([]string{"ls", "--dir", dir}, strings.NewReader(""), w, &stderr); code != exitDone || stderr.Len() > 0 {
		t.Errorf("ls into a broken pipe = %d, %q", code, stderr.String())
	}
}
