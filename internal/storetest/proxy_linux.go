package storetest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A Proxy stands before servers, and loses messages. It ends with the test.
type Proxy struct {
	t     testing.TB
	serve func(client, server net.Conn) // until one of them ends
	wg    sync.WaitGroup

	mu     sync.Mutex        // guards the rest
	fronts map[string]string // where it listens, by the server's address
	open   map[io.Closer]bool
	ended  bool
	judge  func(request []byte) Loss
	seen   int
	lost   int
}

// A Loss says what a Proxy does to a request. It ends the connection afterwards. A request is what the client has
// written at once.
type Loss int

const (
	Nothing Loss = iota // and does not end the connection
	Request             // the server does not get it
	Answer              // the server gets it, and the client no answer
	Garbage             // the server gets it, and the client the request instead of the answer
)

// NewProxy returns a Proxy that loses nothing yet.
func NewProxy(t testing.TB) *Proxy {
	p := newProxy(t, nil)
	p.serve = p.relay
	p.Lose(Nothing, "")
	return p
}

func newProxy(t testing.TB, serve func(client, server net.Conn)) *Proxy {
	p := &Proxy{t: t, serve: serve, fronts: make(map[string]string), open: make(map[io.Closer]bool)}
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// Lose makes the Proxy do so to the next request in which the word is, and begins to count such requests.
func (p *Proxy) Lose(how Loss, word string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = 0
	p.judge = func(request []byte) Loss {
		if !bytes.Contains(request, []byte(word)) {
			return Nothing
		}
		if p.seen++; p.seen > 1 {
			return Nothing
		}
		return how
	}
}

// Seen returns how many requests with the word there were since Lose.
func (p *Proxy) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// LoseAnswers makes the Proxy lose the answer to one of n requests, at random.
func (p *Proxy) LoseAnswers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = func([]byte) Loss {
		if rand.N(n) == 0 {
			return Answer
		}
		return Nothing
	}
}

// Lost returns how many messages were lost since NewProxy.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Dial connects to the server addr by way of the Proxy.
func (p *Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, p.To(addr))
}

// To returns the address that leads to the server addr.
func (p *Proxy) To(addr string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if front := p.fronts[addr]; front != "" {
		return front
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Error(err)
		return ""
	}
	p.fronts[addr] = ln.Addr().String()
	p.open[ln] = true
	p.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.connect(client, addr) })
		}
	})
	return p.fronts[addr]
}

func (p *Proxy) connect(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return // the server is down
	}
	defer server.Close()
	if p.keep(client, server) {
		p.serve(client, server)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, client)
	delete(p.open, server)
}

// keep reports whether the connections may go on, until the end of the test.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = true
	}
	return !p.ended
}

// relay passes the messages of one client.
func (p *Proxy) relay(client, server net.Conn) {
	var last atomic.Pointer[[]byte] // what the client gets instead of the next answer
	var up sync.WaitGroup
	up.Go(func() {
		pass(client, server, func(b []byte) []byte {
			switch p.look(b) {
			case Request:
				p.count()
				return nil
			case Answer:
				last.Store(new([]byte))
			case Garbage:
				garbage := bytes.Clone(b)
				last.Store(&garbage)
			}
			return b
		})
	})
	pass(server, client, func(b []byte) []byte {
		instead := last.Load()
		if instead == nil {
			return b
		}
		p.count()
		client.Write(*instead)
		return nil
	})
	up.Wait()
}

// look returns what to do to a request.
func (p *Proxy) look(request []byte) Loss {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge(request)
}

func (p *Proxy) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost++
}

// pass lets through what look makes of each message, until that is nil.
func pass(from, to net.Conn, look func([]byte) []byte) {
	defer from.Close()
	defer to.Close()
	for b := make([]byte, 1<<16); ; {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		message := look(b[:n])
		if message == nil {
			return
		}
		if _, err := to.Write(message); err != nil {
			return
		}
	}
}
