package storetest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
)

// FreePort returns a port of loopback that nobody has, and that the system gives nobody who connects: those are above
// 32767. So nobody takes it before the server does. The port 10,000 above is as free: a Redis in a cluster needs it too.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.N(10_000)
		if free(port+10_000) && claim(t, port) {
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no port is free")
	return ""
}

// sites counts the ports of SitePort, from somewhere else in each process. So one process gets none of them twice.
var sites atomic.Int64

func init() { sites.Store(rand.N[int64](1 << 20)) }

// SitePort returns a port for a program that is not a server of a database. It is as free as one of FreePort. Its ports,
// 30000 to 32767, are neither FreePort's nor those that the system hands out.
func SitePort(t testing.TB) string {
	t.Helper()
	const first, beyond = 30_000, 32_768
	for range beyond - first {
		if port := first + int(sites.Add(1)%(beyond-first)); claim(t, port) {
			return strconv.Itoa(port)
		}
	}
	t.Fatal("no port is free")
	return ""
}

// claim takes a port that is free until the end of the test, also while its server is away: another process that wants it
// finds the UDP port of that number taken.
func claim(t testing.TB, port int) bool {
	c, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	if !free(port) {
		c.Close()
		return false
	}
	t.Cleanup(func() { c.Close() }) // after the end of the server, which starts later
	return true
}

func free(port int) bool {
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		ln.Close()
	}
	return err == nil
}
