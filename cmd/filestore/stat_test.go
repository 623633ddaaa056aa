package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessionfilestore/filestore"
)

// stat --by keeps no more values than it says, of no more bytes, and loses no session.
func TestByBounded(t *testing.T) {
	c := &counts{life: newHistogram(lives...), size: newHistogram(sizes...), by: make(map[string]int)}
	add := func(user string) {
		e := entry{sess: new(filestore.Session), doc: fmt.Appendf(nil, `{"cookie":{},"user":%q}`, user)}
		if err := e.sess.UnmarshalJSON(e.doc); err != nil {
			t.Fatal(err)
		}
		c.add(time.Now(), &e, "user")
	}
	add(strings.Repeat("ä", 1<<20))
	for i := range distinct + 9 {
		add(fmt.Sprint(i))
	}
	add("0")
	longestSeen, n := 0, 0
	for v, count := range c.by {
		longestSeen, n = max(longestSeen, len(v)), n+count
	}
	if len(c.by) != distinct || c.more != 10 || c.by["0"] != 2 || n+c.more != c.live || longestSeen > longest+len(ellipsis) {
		t.Errorf("%d values, of %d bytes at most, %d more, %d of %d sessions", len(c.by), longestSeen, c.more, n+c.more, c.live)
	}
}
