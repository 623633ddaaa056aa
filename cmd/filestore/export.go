package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sessionfilestore/filestore"
	"github.com/spf13/cobra"
)

const exportLong = `export prints the live sessions as JSON lines, {"id":…,"session":…}, decrypted and with their ids
whole: keep the output as safe as the directory. import reads it.

A file that is named like a session but cannot be read is left out and named on stderr; the exit code is
then 1. Sessions that come or go meanwhile may or may not be among them.`

func (a *app) exportCommand() *cobra.Command {
	var withExpired, yes bool
	cmd := &cobra.Command{
		Use:        "export [DIR]",
		SuggestFor: []string{"backup", "dump"},
		Short:      "Print all sessions as JSON lines, as a backup",
		Long:       exportLong,
		Example: `  filestore export >sessions.jsonl
  filestore export --dir old | filestore import --dir new --key-file new.key`,
		Args:              a.dirArg,
		ValidArgsFunction: completeDir,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.paints && !yes {
				return errors.New("this would show all sessions on the terminal: send it to a file, or give --yes")
			}
			return a.export(cmd.Context(), withExpired)
		},
	}
	cmd.Flags().BoolVar(&withExpired, "expired", false, "also those that have expired")
	cmd.Flags().BoolVar(&yes, "yes", false, "also to a terminal")
	return cmd
}

// named is how many errors are printed one by one on stderr.
const named = 100

var errNoKey = fmt.Errorf("none of the first %d files can be decrypted: give the right --secret-file or --key-file", named)

func (a *app) export(ctx context.Context, withExpired bool) error {
	r, err := a.reader()
	if err != nil {
		return err
	}
	defer r.close()
	out := bufio.NewWriterSize(a.out, 64<<10)
	var line bytes.Buffer
	left, done := 0, 0
	for e, err := range r.all(ctx) {
		if err != nil && e.id == "" {
			return errors.Join(err, out.Flush())
		}
		if err != nil {
			left++
			a.complain(left, "%s: left out: %v", a.id(e.id), err)
			if done == 0 && left == named && errors.Is(err, filestore.ErrDecrypt) { // each attempt may take a tenth of a second
				return errNoKey
			}
			continue
		}
		if e.expired && !withExpired {
			continue
		}
		done++
		line.Reset()
		fmt.Fprintf(&line, `{"id":%q,"session":`, e.id) // an id needs no escapes
		json.Compact(&line, e.doc)                      // removes only the space between tokens
		line.WriteString("}\n")
		text := line.Bytes()
		if a.paints {
			text = safeJSON(text)
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if left > 0 {
		return wrong("%s left out; filestore check says what to do", plural(left, "file"))
	}
	return nil
}

// complain prints the nth error on stderr, unless there are too many.
func (a *app) complain(nth int, format string, args ...any) {
	switch {
	case nth <= named:
		fmt.Fprintln(a.err, "filestore: "+oneLine(fmt.Sprintf(format, args...)))
	case nth == named+1:
		fmt.Fprintln(a.err, "filestore: more of these are not named")
	}
}
