package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessionfilestore/filestore/internal/storetest"
)

// The README's first program does the same on a server with the one line that the README changes.
func TestReadmeOnAServer(t *testing.T) {
	t.Parallel()
	server, addr, dir := storetest.Redis(t), freeAddr(t), t.TempDir()
	program := block(t, "go", "package main")
	for was, is := range map[string]string{
		`	store, err := filestore.Open("./sessions", nil)` + "\n": "\t" + block(t, "go", "store, err := redisstore"),
		`	"github.com/sessionfilestore/filestore"` + "\n": `
	"github.com/redis/go-redis/v9"
	"github.com/sessionfilestore/filestore/backend/redisstore"
`,
		listens: `"` + addr + `"`,
	} {
		if strings.Count(program, was) != 1 {
			t.Fatalf("the program has not one %s", was)
		}
		program = strings.Replace(program, was, is, 1)
	}
	const redisAddr = `"127.0.0.1:6379"`
	if strings.Count(program, redisAddr) != 1 {
		t.Fatal("the program asks another server")
	}
	start(t, build(t, strings.Replace(program, redisAddr, `"`+server.Addr+`"`, 1)), dir, addr)
	transcript(t, dir, "", block(t, "", "$ curl -b"), localCurl(addr))
	if _, err := os.Stat(filepath.Join(dir, "sessions")); err == nil {
		t.Error("there is a directory of sessions")
	}
}
