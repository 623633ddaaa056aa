package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/sessionfilestore/filestore/session"
	"github.com/spf13/cobra"
)

const cookieSecretHelp = `Here --secret-file is the file with the secret that signs the cookies (express-session's option
secret, Manager.Secrets), one a line; the first one signs. In the other commands it is the file with the
secret that encrypts the sessions' files.`

func (a *app) signCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sign SID",
		Short: "Make the value of a session's cookie",
		Long: `sign prints the value of the cookie connect.sid for the session id SID, as express-session sends it.
Whoever has it is the session's user. The directory is not looked at.

` + cookieSecretHelp,
		Example:           `  filestore sign 2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx --secret-file cookie.secret`,
		Args:              takes(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			secrets, err := a.cookieSecrets()
			if err != nil {
				return err
			}
			if args[0] == "" || strings.HasSuffix(args[0], ellipsis) {
				return errors.New("sign needs the whole id; --full shows it")
			}
			cookie := encodeURIComponent("s:" + session.Sign(args[0], secrets[0]))
			if a.json {
				return a.printJSON(map[string]string{"cookie": cookie})
			}
			_, err = fmt.Fprintln(a.out, cookie)
			return err
		},
	}
}

func (a *app) unsignCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unsign COOKIE",
		Short: "Check the value of a session's cookie and print the id",
		Long: `unsign checks the value of a cookie connect.sid, percent-encoded or not, and prints the session id in it,
whole. If none of the secrets has signed it, the exit code is 1. The directory is not looked at: the
session may have ended.

` + cookieSecretHelp,
		Example: `  filestore unsign 's%3A2o7sOpgMqMGWem0IxddjE0DkR3-jqUPx.o1ec9kD5…' --secret-file cookie.secret
  filestore show "$(filestore unsign "$cookie" --secret-file cookie.secret)"`,
		Args:              takes(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			secrets, err := a.cookieSecrets()
			if err != nil {
				return err
			}
			value := args[0]
			if decoded, err := url.PathUnescape(value); err == nil {
				value = decoded
			}
			signed, ok := strings.CutPrefix(value, "s:")
			if !ok {
				return wrong("not a signed cookie: its value begins with s:")
			}
			id, ok := session.Unsign(signed, secrets...)
			if !ok || id == "" {
				return wrong("none of the secrets made the signature")
			}
			if a.json {
				return a.printJSON(map[string]string{"id": id})
			}
			_, err = fmt.Fprintln(a.out, show(id))
			return err
		},
	}
}

func (a *app) cookieSecrets() ([]string, error) {
	if a.secretFile == "" {
		return nil, errors.New("--secret-file is missing: the file with the cookies' secret")
	}
	return a.secrets()
}

// encodeURIComponent is the function of JavaScript.
func encodeURIComponent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.!~*'()", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
