package storetest

import (
	"os"
	"path/filepath"
	"testing"
)

// MariaDB starts a mariadbd with these options, and its data in dir, or in a directory of its own if dir is "". Its
// user root has no password. To make the data takes some seconds.
func MariaDB(t testing.TB, dir string, options ...string) *Server {
	t.Helper()
	paths := Need(t, "mariadbd", "mariadb-install-db")
	if dir == "" {
		dir = t.TempDir()
	}
	// Of a tmpdir that several share, each one that starts removes the others' temporary tables.
	own := []string{"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + dir, "--innodb-log-file-size=8M"}
	if os.Geteuid() == 0 {
		own = append(own, "--user=root")
	}
	RunProgram(t, nil, paths[1], append(own, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")...)
	port := FreePort(t)
	own = append(own, "--bind-address=127.0.0.1", "--port="+port, "--skip-name-resolve", "--innodb-buffer-pool-size=32M",
		"--socket="+filepath.Base(dir), "--pid-file=pid") // relative, as the path of a socket must be short
	return StartServer(t, dir, port, nil, paths[0], append(own, options...)...)
}
