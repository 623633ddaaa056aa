//go:build !windows && (!unix || aix)

package supported

// The store needs calls relative to an opened directory, and file locks that end with their process.
var _ = filestore_runs_on_Linux_macOS_BSD_illumos_and_Windows_only
