package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sessionfilestore/filestore"
	"github.com/tidwall/gjson"
)

// A condition is one --where. ls, rm and others share it.
type condition struct {
	path, value string
	op          string // "=", "!=", or "" if the path need only exist
}

const whereHelp = "only sessions for which `PATH=VALUE` holds, or PATH!=VALUE (it is there and has another value), or PATH (it is there); all of several"

const pathHelp = `A PATH leads to a member of the session's document, such as user, user.name or cart.0.price. The syntax
is that of github.com/tidwall/gjson, without modifiers, lists of paths and literals. "cookie" and
"__lastAccess" are members too. Values are compared as text: 1.0 is 1, null is empty.`

func parseConditions(args []string) ([]condition, error) {
	var all []condition
	for _, arg := range args {
		at, err := outside(arg, '=')
		if err != nil {
			return nil, fmt.Errorf("--where %s: %w", given(arg), err)
		}
		c := condition{path: arg}
		if len(at) > 0 {
			c = condition{arg[:at[0]], arg[at[0]+1:], "="}
			if path, not := strings.CutSuffix(c.path, "!"); not {
				c.path, c.op = path, "!="
			}
		}
		if err := checkPath(c.path); err != nil {
			return nil, fmt.Errorf("--where %s: %w", given(arg), err)
		}
		all = append(all, c)
	}
	return all, nil
}

// outside returns the positions of c in path that are outside of brackets, quotes and escapes. It refuses
// a path whose brackets do not match: it would not mean what it seems to mean.
func outside(path string, c byte) (at []int, err error) {
	var open []byte
	quoted := false
	for i := 0; i < len(path); i++ {
		switch b := path[i]; {
		case b == '\\':
			i++
		case b == '"' && len(open) > 0:
			quoted = !quoted
		case quoted:
		case b == c && len(open) == 0:
			at = append(at, i)
			if c == '=' { // the rest is the value
				return at, nil
			}
		case b == '(' || b == '[' || b == '{':
			open = append(open, b)
		case b == ')' || b == ']' || b == '}':
			if len(open) == 0 || open[len(open)-1] != map[byte]byte{')': '(', ']': '[', '}': '{'}[b] {
				return nil, errors.New("a path whose brackets do not match")
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || quoted {
		return nil, errors.New("a path whose brackets do not match")
	}
	return at, nil
}

// splitPaths splits lists of paths at the commas that are not part of a path.
func splitPaths(lists []string) (paths []string, err error) {
	for _, list := range lists {
		commas, err := outside(list, ',')
		if err != nil {
			return nil, fmt.Errorf("--show %s: %w", given(list), err)
		}
		from := 0
		for _, at := range append(commas, len(list)) {
			if path := strings.TrimLeft(list[from:at], " "); path != "" {
				paths = append(paths, path)
			}
			from = at + 1
		}
	}
	return paths, nil
}

// checkPath refuses paths whose results gjson makes up: every session would have them, and rm would end
// all sessions.
func checkPath(path string) error {
	if path == "" {
		return errors.New("no path before the value")
	}
	if strings.HasPrefix(path, " ") || strings.HasSuffix(path, " ") && !strings.HasSuffix(path, `\ `) {
		return errors.New(`the path begins or ends with a space; write PATH=VALUE without spaces, or "\ " for one that the name has`)
	}
	starts := append([]int{-1}, func() []int { at, _ := outside(path, '.'); return at }()...)
	pipes, err := outside(path, '|')
	if err != nil {
		return err
	}
	for _, at := range append(starts, pipes...) {
		if rest := path[at+1:]; rest == "" || strings.ContainsRune("@!{[.|", rune(rest[0])) {
			return errors.New("a path that names no member: modifiers, lists of paths and literals are not allowed here")
		}
	}
	return nil
}

// holds reports whether all conditions hold for doc. A member that is missing is neither equal nor
// unequal to a value: a misspelt path means no session, not all of them.
func holds(conditions []condition, doc string) bool {
	for _, c := range conditions {
		v := gjson.Get(doc, c.path)
		if !v.Exists() || c.op != "" && (v.String() == c.value) != (c.op == "=") {
			return false
		}
	}
	return true
}

// document returns the session's JSON to look up paths in. If a member occurs twice, gjson takes the
// first and the programs that load the session take the last. document then returns what they would see.
func (e *entry) document() string {
	count := 0
	seen := make(map[string]bool, 2)
	gjson.ParseBytes(e.doc).ForEach(func(key, _ gjson.Result) bool {
		if name := key.String(); name != "cookie" && name != "__lastAccess" {
			count++
		} else if seen[name] {
			count = -1
			return false
		} else {
			seen[name] = true
		}
		return true
	})
	if count == len(e.sess.Values) {
		return string(e.doc)
	}
	doc, err := e.sess.MarshalJSON()
	if err != nil {
		return "{}"
	}
	return string(doc)
}

// raw returns the value at path as JSON, nil if there is none.
func raw(doc, path string) json.RawMessage {
	v := gjson.Get(doc, path)
	if !v.Exists() || !json.Valid([]byte(v.Raw)) { // gjson makes up some results
		return nil
	}
	return json.RawMessage(v.Raw)
}

// widest is the number of characters of a value in a table.
const widest = 48

// value returns the value at path for a table.
func (a *app) value(doc, path string) string {
	v := gjson.Get(doc, path)
	if !v.Exists() {
		return "-"
	}
	s := v.String()
	if !a.full {
		s = cut(s, widest)
	}
	return show(s)
}

// whyUnread says in a few words why a file holds no session.
func whyUnread(err error) string {
	for _, known := range []error{filestore.ErrCorrupt, filestore.ErrDecrypt, filestore.ErrTooLarge, filestore.ErrUnsafeFile} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "file cannot be read"
}
