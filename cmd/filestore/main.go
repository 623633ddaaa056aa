// Command filestore looks into a directory of sessions, and ends, changes, checks and moves them.
// See README.md, or filestore help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the command with args. It returns the exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)   // the second Ctrl-C ends the process, whatever it does
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is a write's error, and ends rm between two sessions
	a := &app{now: time.Now, in: in, out: &output{w: out}, err: errOut, ctx: ctx}
	a.paints = isTerminal(out)
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(a.out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if broken := a.out.(*output).err; broken != nil && (err == nil || errors.Is(err, broken)) {
		err = broken
	}
	return a.exitCode(err)
}

// exitCode prints err on stderr, in one line, and returns the exit code for it.
func (a *app) exitCode(err error) int {
	if err == nil || brokenPipe(err) { // whoever reads our output has seen enough
		return exitDone
	}
	text := oneLine(strings.TrimPrefix(err.Error(), "filestore: "))
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	code := exitRefused
	var e *exitError
	if errors.As(err, &e) {
		code = e.code
	}
	if text != "" {
		fmt.Fprintln(a.err, "filestore: "+text)
	}
	return code
}

const long = `filestore looks into a directory of sessions that filestore or the npm package session-file-store
keeps, and ends, changes, checks and moves them.

ls, show, check, watch, stat, export, serve, reap --dry-run and move --dry-run only read: they write nothing
into the directory, take no lock, and work where it can only be read. The others take the same locks as the
programs that use the directory, which need not be stopped.

The directory is ./sessions, or the one that is given: filestore ls DIR, or --dir DIR with a command that takes other
arguments.

A session's id is a credential. It is shown shortened unless --full is given. A shortened id of 6
characters or more can be given wherever a session is named, if only one session's id begins with it.
An id that begins with a dash goes after two dashes: filestore show -- -x8sOpgM

Exit codes:
  0  done
  1  check found something wrong; a session asked for is not there; a cookie's signature is wrong;
     some of several failed
  2  the command could not be carried out: a bad flag, no such directory, refused at the prompt`

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "filestore",
		Short: "See, search, end and check sessions",
		Long:  long,
		Example: `  filestore ls ./sessions --show user --sort ends
  filestore rm --where user=anna
  filestore check && echo all is well`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(cmd, args[0])
			}
			return nil
		},
		Version: version(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.ttlGiven = cmd.Flags().Changed("ttl")
			switch {
			case a.ttl < time.Second: // below 0 it would mean something else to the store
				return fmt.Errorf("--ttl %v: it must be at least a second", a.ttl)
			case a.lifetime < 0 || 0 < a.lifetime && a.lifetime < time.Second:
				return fmt.Errorf("--lifetime %v: it must be at least a second, or 0", a.lifetime)
			}
			return nil
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("filestore {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	a.dir = "./sessions"
	f.Var(dirFlag{a}, "dir", "the directory of the sessions")
	f.StringVar((*string)(&a.ext), "ext", ".json", "the `EXT` that ends the names of session files")
	f.DurationVar(&a.ttl, "ttl", time.Hour, "the store's TTL: the `TIME` that a session without a maxAge lives")
	f.DurationVar(&a.lifetime, "lifetime", 0, "the store's Lifetime: the `TIME` since its creation after which any session ends; 0 = none")
	f.BoolVar(&a.json, "json", false, "print JSON; a list is one object a line")
	f.BoolVar(&a.full, "full", false, "show ids whole: they are credentials")
	f.BoolVar(&a.noColor, "no-color", false, "no colours on a terminal; NO_COLOR does the same")
	f.StringVar(&a.secretFile, "secret-file", "", "`FILE` with the secrets that encrypt the sessions, one a line, the newest first")
	f.StringVar(&a.sealedKeyFile, "key-file", "", "`FILE` with the key of package sealed: 32 bytes, or 64 hex digits")
	root.AddCommand(a.lsCommand(), a.showCommand(), a.setCommand(), a.unsetCommand(), a.rmCommand(), a.reapCommand(),
		a.checkCommand(), a.watchCommand(), a.statCommand(), a.signCommand(), a.unsignCommand(), a.exportCommand(), a.importCommand(),
		a.moveCommand(), a.serveCommand())
	a.completeFlags(root)
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Args = func(_ *cobra.Command, args []string) error {
		if cmd, _, _ := root.Find(args); len(args) > 0 && cmd == root {
			return noCommand(root, args[0])
		}
		return nil
	}
	return root
}

// version says which filestore this is: the module's version or, in a checkout, the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return versionOf(info) + ", " + info.GoVersion
}

func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+dirty"
		}
	}
	if revision == "" {
		return "(devel)"
	}
	return revision + changed
}

// output remembers the first error of a write: most printing does not look at errors.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}
