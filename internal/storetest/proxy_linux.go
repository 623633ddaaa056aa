package storetest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A Proxy stands between a client and a server, and can lose what they tell each other.
type Proxy struct {
	Addr string // where it listens, on loopback
	Port string

	// Lose is called whenever the server has said something. If it returns true, the client does not hear it: both
	// connections end. nil = never. It must be set before the first connection, and be safe for concurrent use.
	Lose func() bool

	Lost atomic.Int64 // how often Lose returned true

	to    string
	mu    sync.Mutex
	ended bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// NewProxy returns a Proxy for the server at addr, until the end of the test.
func NewProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: ln.Addr().String(), to: addr, conns: make(map[net.Conn]bool)}
	_, p.Port, _ = net.SplitHostPort(p.Addr)
	p.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Cut ends all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// keep reports whether c may go on; Cut then ends it.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.ended
}

// close ends c.
func (p *Proxy) close(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(client net.Conn) {
	defer p.close(client)
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer p.close(server)
	if !p.keep(client) || !p.keep(server) {
		return
	}
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		io.Copy(struct{ io.Writer }{server}, client) // no splice, as its pipes stay open for the next one
		server.Close()
	})
	defer func() { client.Close(); server.Close() }() // so that Copy ends
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if n > 0 && p.Lose != nil && p.Lose() {
			p.Lost.Add(1)
			return
		}
		if _, writeErr := client.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}
