package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Odd segments of connections that are open: windows, RSTs, bits, FINs.

// TestRFC7323_S2_2_Scales: the windows of both ends are scaled if both sent the option, by
// no more than 14, and not in a SYN. Of two options the last one counts, as in TCP
// implementations.
func TestRFC7323_S2_2_Scales(t *testing.T) {
	for _, x := range []struct {
		client, server []byte
		window         uint32 // that 65535 of the client's is
	}{
		{[]byte{3, 3, 14, 1}, []byte{3, 3, 0, 1}, 65535 << 14},
		{[]byte{3, 3, 255, 1}, []byte{3, 3, 0, 1}, 65535 << 14},
		{[]byte{3, 3, 1, 3, 3, 7, 0, 0}, []byte{1, 1, 3, 3, 2, 0, 0, 0}, 65535 << 7},
		{[]byte{3, 3, 14, 1}, nil, 65535},
		{nil, []byte{3, 3, 14, 1}, 65535},
		{[]byte{0, 3, 3, 14}, []byte{3, 3, 14, 1}, 65535}, // behind the end of the list
		{[]byte{3, 4, 14, 1}, []byte{3, 3, 14, 1}, 65535}, // no such option
	} {
		c := newConn(t, nil)
		c.client(fSYN, 1<<32-1, 0, options(x.client...), window(65535))
		c.server(fSYN|fACK, 1<<32-2, 0, options(x.server...))
		c.serverNot(fACK, 65535, 0, bytesOf(1)) // the SYN's window is not scaled
		c.client(fACK, 0, 1<<32-1, window(65535))
		edge := x.window - 1
		c.serverNot(fACK, edge, 0, bytesOf(1))
		c.server(fACK, edge-1, 0, bytesOf(1))
		c.server(fACK, 1<<32-1, 0, bytesOf(1000)) // what came before was lost
		c.client(fACK, 0, 1<<32-1, window(0))     // it shrinks, and what is under way may come
		c.server(fACK, edge-1, 0, bytesOf(1))
		c.client(fACK, 0, edge, window(65535))
		c.server(fACK, edge, 0, bytesOf(1000))
	}
}

// TestRFC9293_S3_8_6_1_ClosedWindow: into a closed window only a probe of one byte, or a
// FIN, passes. It may be closed from the beginning.
func TestRFC9293_S3_8_6_1_ClosedWindow(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.server(fSYN|fACK, 5000, 1001, window(0))
	c.client(fACK, 1001, 5001)
	c.clientNot(fACK, 1001, 5001, bytesOf(2))
	c.client(fACK, 1001, 5001, bytesOf(1))
	c.server(fACK, 5001, 1001, window(0)) // not taken
	c.client(fACK, 1000, 5001)            // Linux probes with what is old
	c.client(fACK, 1001, 5001, bytesOf(1))
	c.server(fACK, 5001, 1002, window(0)) // taken
	c.clientNot(fACK, 1002, 5001, bytesOf(2))
	c.client(fFIN|fACK, 1002, 5001)
	c.clientNot(fACK, 1003, 5001, bytesOf(1))
	c.server(fACK, 5001, 1003, window(0))
	c.state("close_wait")

	c = newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.server(fSYN|fACK, 5000, 1001, window(0))
	c.server(fSYN|fACK, 5000, 1001, window(500)) // it has opened meanwhile
	c.client(fACK, 1001, 5001, bytesOf(500))
}

// TestRFC9293_S3_6_HalfClosedForHours: after one end has closed, the other may go on
// sending for any time; only the timeout ends it.
func TestRFC9293_S3_6_HalfClosedForHours(t *testing.T) {
	for _, first := range []int{lan, wan} {
		c := newConn(t, nil)
		c.port = c.handshake(host, 4000, web, 80)
		if first == lan {
			c.client(fFIN|fACK, 1001, 5001)
		} else {
			c.server(fFIN|fACK, 5001, 1001)
		}
		seq := uint32(0)
		for range 200 { // 11 hours
			c.pass(200)
			if first == lan {
				c.server(fACK, 5001+seq, 1002, bytesOf(100))
			} else {
				c.client(fACK, 1001+seq, 5002, bytesOf(100))
			}
			c.pass(100)
			if seq += 100; first == lan {
				c.client(fACK, 1002, 5001+seq)
			} else {
				c.server(fACK, 5002, 1001+seq)
			}
			c.state("close_wait")
		}
		c.pass(241)
		if c.e.flows.Len() != 0 {
			t.Fatal("still there")
		}
	}
}

// TestRFC5961_S3_2_RSTInEveryState: a RST that ends an established connection ends one that
// is being opened or closed, in both directions, and no other does; a RST may carry data
// (RFC 9293 section 3.5.3).
func TestRFC5961_S3_2_RSTInEveryState(t *testing.T) {
	for steps, state := range []string{"syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait"} {
		for _, from := range []int{lan, wan} {
			open := func() (c *conn, next [2]uint32) {
				c = newConn(t, nil)
				c.client(fSYN, 0xfffffffe, 0) // its numbers wrap on the way
				c.server(fSYN|fACK, 5000, 0xffffffff)
				for i, f := range []func(){
					func() { c.client(fACK, 0xffffffff, 5001) },
					func() { c.client(fFIN|fACK, 0xffffffff, 5001) },
					func() { c.server(fACK, 5001, 0) },
					func() { c.server(fFIN|fACK, 5001, 0) },
					func() { c.client(fACK, 0, 5002) },
				} {
					if i < steps {
						f()
					}
				}
				c.state(state)
				next = [2]uint32{0xffffffff, 5001}
				if steps > 1 {
					next[lan]++
				}
				if steps > 3 {
					next[wan]++
				}
				return c, next
			}
			say := func(c *conn) func(uint8, uint32, uint32, ...func(*pkt)) {
				if from == lan {
					return c.client
				}
				return c.server
			}
			c, next := open()
			not := c.serverNot
			if from == lan {
				not = c.clientNot
			}
			not(fRST, next[from]-100, 0)
			not(fRST, next[from]+8192+100, 0)
			c.state(state)
			if from == lan || steps > 0 { // of a client that has acknowledged nothing no window is known
				say(c)(fRST, next[from]+1, 0)
				c.state(state)
			}
			say(c)(fRST, next[from], 0, bytesOf(20))
			c.state("close")
			c, next = open()
			say(c)(fRST|fACK, next[from], next[1-from])
			c.state("close")
		}
	}
}

// TestRFC5961_S3_2_RSTAfterAGap: a RST after data that were lost before the firewall
// passes, and so do the receiver's challenge and its answer.
func TestRFC5961_S3_2_RSTAfterAGap(t *testing.T) {
	c := newConn(t, nil)
	c.port = c.handshake(host, 4000, web, 80)
	c.server(fACK, 5101, 1001, bytesOf(100)) // 100 bytes before it are missing
	c.server(fRST, 5301, 0)                  // and 100 behind it
	c.state("established")
	c.client(fACK, 1001, 5001)
	c.server(fRST, 5001, 0)
	c.state("close")
}

// TestRFC5961_S5_2_ForgedDataDoNotRefresh: acknowledgements of data that were never sent,
// and segments outside of the window, neither change a connection nor refresh it, however
// many there are.
func TestRFC5961_S5_2_ForgedDataDoNotRefresh(t *testing.T) {
	c := newConn(t, func(p *ruleset.Policy) { p.Settings.TCPEstablished = 100 })
	c.port = c.handshake(host, 4000, web, 80)
	before := *c.e.flows.Shared(0)
	for range 10 {
		c.pass(9)
		c.serverNot(fACK, 5001, 1002)
		c.serverNot(fACK, 5001, 1001+1<<31, bytesOf(10))
		c.serverNot(fACK, 5001+8192, 1001, bytesOf(1))
		c.serverNot(fACK, 0xffff1388, 1001)
		c.serverNot(fFIN|fACK, 5001+8192, 1001)
		c.clientNot(fACK, 1001, 5002)
	}
	if *c.e.flows.Shared(0) != before {
		t.Fatalf("%+v, was %+v", *c.e.flows.Shared(0), before)
	}
	c.pass(11)
	if c.e.flows.Len() != 0 {
		t.Fatal("still there")
	}
}

// TestRFC9293_S3_1_BitsThatAreNotOurs: ECN (RFC 3168), its accurate kind (RFC 9768), the
// reserved bits and the urgent pointer are not interpreted, and pass unchanged, in SYNs and
// in data.
func TestRFC9293_S3_1_BitsThatAreNotOurs(t *testing.T) {
	const cwr, ece, urg = 0x80, 0x40, 0x20
	c := newConn(t, nil)
	send := func(from int, p pkt) {
		t.Helper()
		f := p.frame([...][6]byte{lanMAC, wanMAC}[from])
		f[34+12] |= 0x0f // reserved bits, and AE
		f[34+18], f[34+19] = 0x12, 0x34
		makeSums(f)
		across, _ := c.raw(from, f)
		if len(across) != 1 {
			t.Fatalf("flags %02x: %d crossed; drops: %s", p.flags, len(across), c.drops())
		}
		if g := across[0].frame; g[34+12] != f[34+12] || g[34+13] != f[34+13] || g[34+18] != 0x12 || g[34+19] != 0x34 {
			t.Fatalf("flags %02x became %x", p.flags, g[34:54])
		}
		c.port = c.e.flows.Shared(0).Port
	}
	send(lan, tcpSeg(host, 4000, web, 80, fSYN|cwr|ece, 1000, 0))
	send(wan, c.answer(fSYN|fACK|ece|cwr, 5000, 1001))
	for n := uint32(5001); n < 5031; n += 10 { // from the second time on by the fast path
		send(lan, tcpSeg(host, 4000, web, 80, fACK|ece|urg, 1001, n))
		send(wan, c.answer(fACK|cwr|urg, n, 1001, bytesOf(10)))
	}
	c.state("established")
	send(lan, tcpSeg(host, 4000, web, 80, fFIN|fACK|cwr|urg, 1001, 5031))
	send(wan, c.answer(fRST|ece, 5031, 0))
	c.state("close")
}

// TestRFC9293_S3_10_7_4_FINAgainWithMore: a FIN is retransmitted together with the data
// before it, in one segment or several.
func TestRFC9293_S3_10_7_4_FINAgainWithMore(t *testing.T) {
	c := newConn(t, nil)
	c.port = c.handshake(host, 4000, web, 80)
	c.server(fFIN|fACK, 5401, 1001, bytesOf(100)) // 400 bytes before it are missing
	c.client(fACK, 1001, 5001)
	c.state("fin_wait")
	c.server(fACK, 5001, 1001, bytesOf(200))
	c.server(fFIN|fACK, 5201, 1001, bytesOf(300))
	c.client(fACK, 1001, 5501)
	c.state("fin_wait")
	c.client(fFIN|fACK, 1001, 5502)
	c.state("last_ack")
	c.server(fACK, 5502, 1002)
	c.state("time_wait")
}
