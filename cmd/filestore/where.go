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
	op          string // "=", "!=", or "" where the path need only be there
}

const whereHelp = `PATH=VALUE, PATH!=VALUE, or PATH for sessions that have it; may be given several times, and all must hold`

const pathHelp = `A PATH is that of a member in the session's document, such as user, user.name or cart.0.price; the syntax
is that of github.com/tidwall/gjson. "cookie" and "__lastAccess" are members too.`

func parseConditions(args []string) ([]condition, error) {
	var all []condition
	for _, arg := range args {
		path, value, found := strings.Cut(arg, "=")
		c := condition{path: path, value: value}
		if found {
			c.op = "="
			if strings.HasSuffix(path, "!") {
				c.path, c.op = path[:len(path)-1], "!="
			}
		}
		if c.path == "" {
			return nil, fmt.Errorf("--where: no path before the value")
		}
		all = append(all, c)
	}
	return all, nil
}

// holds reports whether the session in doc is meant. What is not there is not equal to anything.
func holds(conditions []condition, doc string) bool {
	for _, c := range conditions {
		v := gjson.Get(doc, c.path)
		equal := v.Exists() && v.String() == c.value
		if c.op == "" && !v.Exists() || c.op == "=" && !equal || c.op == "!=" && equal {
			return false
		}
	}
	return true
}

// document returns the session's JSON for paths. Of members that occur twice gjson takes the first,
// and the programs that load the session the last: then it is what they would see.
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
	if !v.Exists() || !json.Valid([]byte(v.Raw)) { // gjson makes some results up
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

// whyUnread says in few words why a file holds no session.
func whyUnread(err error) string {
	for _, known := range []error{filestore.ErrCorrupt, filestore.ErrDecrypt, filestore.ErrTooLarge, filestore.ErrUnsafeFile} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "file cannot be read"
}
