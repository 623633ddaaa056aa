package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What a user has typed: which directory is meant, and what is wrong with the rest. A message names what it is about,
// but an argument may be an id, so that given shortens it.

// given returns s, which somebody has typed, for a message. It may be, or be a path with, an id; the value of a cookie; or a
// URL with a password.
func given(s string) string {
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return show(cut(scheme, 8) + "://" + ellipsis)
	}
	return show(longWord.ReplaceAllStringFunc(s, func(word string) string { return cut(word, 8) }))
}

// A longWord may be what express-session makes, or the signature of its cookie.
var longWord = regexp.MustCompile(`[^./\\ ]{17,}`)

// A dirFlag is the value of --dir, which can be given once.
type dirFlag struct{ a *app }

func (f dirFlag) String() string {
	if f.a == nil {
		return ""
	}
	return f.a.dir
}

func (f dirFlag) Type() string { return "DIR" }

func (f dirFlag) Set(dir string) error { return f.a.useDir(dir, "--dir ") }

// useDir makes dir the directory of the sessions. as is what was typed in front of it.
func (a *app) useDir(dir, as string) error {
	if dir == "" {
		return errors.New("no directory has an empty name")
	}
	now := as + given(dir)
	if a.dirNamed != "" && filepath.Clean(dir) != filepath.Clean(a.dir) {
		return fmt.Errorf("two directories are named, %s and %s", a.dirNamed, now)
	}
	a.dir, a.dirNamed = dir, now
	return nil
}

// dirArg is for a command that takes a directory as its only argument.
func (a *app) dirArg(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return fmt.Errorf("%s takes one argument, the directory of the sessions, and not %d; filestore help %[1]s lists the flags", cmd.Name(), len(args))
	case len(args) == 0:
		return nil
	}
	return a.useDir(args[0], "")
}

// noArgs is for a command that takes flags only.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes flags only, and not %s; filestore help %[1]s lists them", cmd.Name(), given(args[0]))
	}
	return nil
}

// takes is for a command that takes from least to most arguments.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("usage: filestore %s; filestore help %s says more", cmd.Use, cmd.Name())
		}
		return nil
	}
}

// idArgs is for a command whose first argument is a session's id, of n in all.
func (a *app) idArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if err := a.noPath(cmd, args[0]); err != nil {
				return err
			}
		}
		if i := slices.IndexFunc(args, isDir); i >= 0 && len(args) != n {
			return isDirectory(cmd, args[i])
		}
		return takes(n, n)(cmd, args)
	}
}

// noPath fails if arg is a path, and so no session's id.
func (a *app) noPath(cmd *cobra.Command, arg string) error {
	dir, name := filepath.Split(arg)
	switch {
	case dir == "" && name != "." && name != "..":
		return nil
	case isDir(arg):
		return isDirectory(cmd, arg)
	}
	id := strings.TrimSuffix(name, string(a.ext))
	id = id[:min(len(id), 8)]
	if strings.HasPrefix(id, "-") {
		id = "-- " + id
	}
	return fmt.Errorf("%s takes a session's id, and not the path of its file: filestore %[1]s --dir %s %s", cmd.Name(), given(dir), show(id))
}

// isDirectory says that a directory was given in the place of an id.
func isDirectory(cmd *cobra.Command, dir string) error {
	return fmt.Errorf("%s is a directory, and %s takes that as --dir %[1]s; filestore ls %[1]s lists the sessions in it", given(dir), cmd.Name())
}

func isDir(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}

// noCommand says that arg is not a command.
func noCommand(root *cobra.Command, arg string) error {
	if isDir(arg) {
		return fmt.Errorf("no such command: %s; to list the sessions of a directory: filestore ls %[1]s", given(arg))
	}
	var names []string
	commands := make(map[string]string)
	for _, c := range root.Commands() {
		for _, name := range slices.Concat([]string{c.Name()}, c.Aliases, c.SuggestFor) {
			names = append(names, name)
			commands[name] = c.Name()
		}
	}
	names, commands["version"] = append(names, "version"), "--version"
	if near := nearest(arg, names); near != "" {
		return fmt.Errorf("no such command: %s; did you mean %s?", given(arg), commands[near])
	}
	return fmt.Errorf("no such command: %s; filestore help lists them", given(arg))
}

// flagError says what is wrong with a flag, and which. The messages of pflag show the whole argument, which may be an id.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var syntax *pflag.InvalidSyntaxError
	name := ""
	switch {
	case errors.As(err, &value):
		f := value.GetFlag()
		switch f.Value.(type) {
		case dirFlag:
			return fmt.Errorf("--%s: %w", f.Name, errors.Unwrap(value))
		case *age:
			return fmt.Errorf("--%s %s: %w", f.Name, given(value.GetValue()), errors.Unwrap(value))
		}
		return fmt.Errorf("--%s %s: not %s", f.Name, given(value.GetValue()), kinds[f.Value.Type()])
	case errors.As(err, &missing):
		return fmt.Errorf("--%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		name, _, _ = strings.Cut("-"+unknown.GetSpecifiedShortnames(), "=")
	case errors.As(err, &unknown):
		name = "--" + unknown.GetSpecifiedName()
	case errors.As(err, &syntax):
		name, _, _ = strings.Cut(syntax.GetSpecifiedFlag(), "=")
	default:
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	near := nearest(strings.TrimLeft(name, "-"), names)
	name = given(name)
	switch {
	case near != "":
		return fmt.Errorf("no such flag: %s; did you mean --%s?", name, near)
	case strings.Contains(cmd.Use, "ID"): // one in 64 ids begins with a dash
		return fmt.Errorf("no such flag: %s; an id that begins with - goes after --", name)
	case !cmd.HasParent():
		return fmt.Errorf("no such flag: %s; a command comes first: filestore help lists them", name)
	}
	return fmt.Errorf("no such flag: %s; filestore help %s lists them", name, cmd.Name())
}

// kinds says what the values of a type of flag are.
var kinds = map[string]string{
	"bool":     "true or false",
	"duration": "a duration such as 90m or 36h",
	"int":      "a whole number",
	"uint16":   "a number from 0 to 65535",
}

// nearest returns the name that word was probably meant to be, "" if none is near.
func nearest(word string, names []string) (near string) {
	word = strings.ToLower(word)
	least := 1 + min(2, len(word)/2)
	if len(word) > 32 { // an id
		return ""
	}
	for _, name := range names {
		if len(word) >= 3 && strings.HasPrefix(name, word) {
			return name
		}
		if d := distance(word, name); d < least && d < len(name) {
			near, least = name, d
		}
	}
	return near
}

// distance returns how many letters must be typed, left out or replaced to make b of a. Two that changed places are one.
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := []int{i + 1}
		for j := range len(b) {
			d := min(last[j+1], row[j]) + 1
			if a[i] == b[j] {
				d = min(d, last[j])
			} else {
				d = min(d, last[j]+1)
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row = append(row, d)
		}
		before, last = last, row
	}
	return last[len(b)]
}
