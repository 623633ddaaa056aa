// Package skip says how a test is skipped, so that nobody overlooks it. Only tests import it.
package skip

import (
	"os"
	"testing"
)

// Test skips a test and says why. With CI=true in the environment the test fails instead, because everything
// must be installed there.
func Test(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal("CI must not skip: " + why)
	}
	tb.Skip("SKIPPED, " + why)
}
