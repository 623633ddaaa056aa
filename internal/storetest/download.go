package storetest

import (
	"context"
	"os/exec"
	"time"
)

// Download runs a command that downloads, up to three times, as the network can fail for a moment. It returns what the last
// run printed. It ends with ctx.
func Download(ctx context.Context, command func() *exec.Cmd) (out []byte, err error) {
	for try := 1; ; try++ {
		out, err = command().CombinedOutput()
		if err == nil || try == 3 {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(5 * time.Second):
		}
	}
}
