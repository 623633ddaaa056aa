package supported_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Whoever builds for another system reads one sentence, and not what is missing in package disk.
func TestOtherSystems(t *testing.T) {
	for _, system := range []string{"plan9/amd64", "js/wasm", "wasip1/wasm", "aix/ppc64"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			goos, goarch, _ := strings.Cut(system, "/")
			cmd := exec.Command("go", "build", ".")
			cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
			out, err := cmd.CombinedOutput()
			if err == nil || strings.Count(string(out), "\n") != 2 || !strings.Contains(string(out), "undefined: filestore_runs_on_Linux") {
				t.Errorf("go build = %v\n%s", err, out)
			}
		})
	}
	out, err := exec.Command("go", "list", "-deps", "../disk").Output()
	if err != nil || !strings.Contains(string(out), "/internal/supported\n") {
		t.Errorf("package disk does not depend on it: %v\n%s", err, out)
	}
}
