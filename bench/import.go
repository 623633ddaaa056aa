package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// imports measures the command filestore import, which writes the sessions of an export into an empty
// directory, as a process of its own.
func (t *table) imports(e *env) error {
	const row = "import, per session"
	if !opsOnly.MatchString(row) {
		return nil
	}
	program, export := filepath.Join(e.dir, "filestore"), filepath.Join(e.dir, "export.jsonl")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Env = "../cmd/filestore", append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var lines bytes.Buffer
	all, doc := ids(0, *importCount), document(values(*payload))
	for _, id := range all {
		fmt.Fprintf(&lines, `{"id":%q,"session":%s}`+"\n", id, doc)
	}
	if err := os.WriteFile(export, lines.Bytes(), 0o600); err != nil {
		return err
	}
	entries := []*entry{{name: "limit"}, {name: "filestore"}}
	t.lay(row, "limit", perOp, entries)
	t.rotate(row, entries, func(en *entry) error {
		dir, err := e.newDir()
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		b, err := openBare(dir)
		if err != nil {
			return err
		}
		defer b.close()
		if err := b.settle(); err != nil {
			return err
		}
		from := time.Now()
		if en.name == "limit" {
			err = b.many(all)
		} else if out, runErr := exec.Command(program, "import", "--dir", dir, export).CombinedOutput(); runErr != nil {
			err = fmt.Errorf("%w: %s", runErr, out)
		}
		t.add(row, en.name, perOp, float64(time.Since(from))/float64(len(all)))
		return err
	})
	return nil
}

// many makes the files of new sessions, with a flush for many.
func (b *bare) many(ids []string) error {
	for some := range slices.Chunk(ids, 4096) {
		temps := make([]string, len(some))
		for i := range some {
			var err error
			if temps[i], err = b.write(false); err != nil {
				return err
			}
		}
		if err := b.settle(); err != nil {
			return err
		}
		for i, id := range some {
			if err := unix.Renameat(b.fd, temps[i], b.fd, id+".json"); err != nil {
				return err
			}
		}
		if err := b.settle(); err != nil {
			return err
		}
	}
	return nil
}
