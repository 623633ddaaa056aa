// Package fault tests filestore while system calls, disks, power, descriptors, clocks and processes
// fail. The tests need Linux, root and strace; those of fault/model need Spin. The package is in the
// workspace, so that
//
//	go test work
//
// runs a short form of each test. The long form is
//
//	FILESTORE_LONG=1 go test -v -timeout 3h work
//
// A test with random choices prints its seed, and takes it from FILESTORE_SEED.
package fault
