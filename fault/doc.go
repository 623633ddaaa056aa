// Package fault holds the tests that break what filestore stands on: system calls, disks, power,
// descriptors, clocks, processes. They need Linux, root and strace, and are in the workspace, so that
//
//	go test work
//
// runs a short form of each. The long form is
//
//	FILESTORE_LONG=1 go test -v -timeout 3h work
//
// Random choices follow FILESTORE_SEED, which each test that makes some prints.
package fault
