package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TCP as it is seen in the wild, and as an attacker would send it who wants to confuse a
// firewall: what books leave out.

// A conn is a connection of a lab from host to web, whose ends send arbitrary segments. Its
// methods differ by the sender, and by whether the segment is to pass.
type conn struct {
	*lab
	port uint16 // external
}

func newConn(t *testing.T, edit func(*ruleset.Policy)) *conn {
	return &conn{lab: newLabWith(t, edit, "accept egress", established)}
}

func bytesOf(n int) func(*pkt)     { return func(p *pkt) { p.data = make([]byte, n) } }
func window(n uint16) func(*pkt)   { return func(p *pkt) { p.win = n } }
func options(o ...byte) func(*pkt) { return func(p *pkt) { p.opts = o } }

func (c *conn) client(flags uint8, seq, ack uint32, more ...func(*pkt)) {
	c.t.Helper()
	p := tcpSeg(host, 4000, web, 80, flags, seq, ack)
	for _, f := range more {
		f(&p)
	}
	c.port = c.one(lan, p).SrcPort
}

func (c *conn) clientNot(flags uint8, seq, ack uint32, more ...func(*pkt)) {
	c.t.Helper()
	p := tcpSeg(host, 4000, web, 80, flags, seq, ack)
	for _, f := range more {
		f(&p)
	}
	c.dropped(lan, p, verdict.ConntrackInvalid)
}

func (c *conn) answer(flags uint8, seq, ack uint32, more ...func(*pkt)) pkt {
	p := tcpSeg(web, 80, ours, c.port, flags, seq, ack)
	for _, f := range more {
		f(&p)
	}
	return p
}

func (c *conn) server(flags uint8, seq, ack uint32, more ...func(*pkt)) {
	c.t.Helper()
	c.one(wan, c.answer(flags, seq, ack, more...))
}

func (c *conn) serverNot(flags uint8, seq, ack uint32, more ...func(*pkt)) {
	c.t.Helper()
	c.dropped(wan, c.answer(flags, seq, ack, more...), verdict.ConntrackInvalid)
}

// TestRFC7413_SYNRepeatedWithoutData: a client whose fast open has had no answer yet
// retransmits its SYN without the data. That is not a new attempt, and the server's
// retransmitted answer, which may acknowledge the SYN alone, is not an answer to one.
func TestRFC7413_SYNRepeatedWithoutData(t *testing.T) {
	for _, ack := range []uint32{1001, 1101} {
		c := newConn(t, nil)
		c.client(fSYN, 1000, 0, bytesOf(100))
		c.server(fSYN|fACK, 5000, ack) // is lost on its way to the client
		c.client(fSYN, 1000, 0)
		c.server(fSYN|fACK, 5000, ack)
		c.state("syn_recv")
		c.client(fACK, ack, 5001, bytesOf(int(1101-ack)))
		c.state("established")
	}
}

// TestRFC7413_SYNACKRepeatedAfterData: the server may send data before the
// handshake ends, and repeats its SYN-ACK if all of it was lost.
func TestRFC7413_SYNACKRepeatedAfterData(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0, bytesOf(100))
	c.server(fSYN|fACK, 5000, 1101)
	c.server(fACK, 5001, 1101, bytesOf(500))
	c.server(fSYN|fACK, 5000, 1101)
	c.client(fACK, 1101, 5001)
	c.server(fACK, 5001, 1101, bytesOf(500))
	c.client(fACK, 1101, 5501)
	c.state("established")
}

// TestRFC7413_BothForgot: as TestRFC9293_S3_10_4_BothForgot, when the new SYN is a
// fast open's, whose data the server takes or not.
func TestRFC7413_BothForgot(t *testing.T) {
	for _, ack := range []uint32{700_001, 700_101} {
		c := newConn(t, nil)
		c.port = c.handshake(host, 4000, web, 80)
		c.client(fSYN, 700_000, 0, bytesOf(100))
		c.serverNot(fSYN|fACK, 9000, ack)
		c.state("close")
		c.client(fSYN, 700_000, 0)
		c.server(fSYN|fACK, 9000, 700_001)
		c.client(fACK, 700_001, 9001)
		c.state("established")
	}
}

// TestRFC4987_S3_6_SYNACKWithAnotherCookie: a server with SYN cookies remembers
// nothing, and answers a repeated SYN with another number. As long as the
// client has not acknowledged the first answer, the second one counts.
func TestRFC4987_S3_6_SYNACKWithAnotherCookie(t *testing.T) {
	for _, isn := range []uint32{900_000, 5000 + 1<<31, 4000, 5001} {
		c := newConn(t, nil)
		c.client(fSYN, 1000, 0, options(3, 3, 7, 1))
		c.server(fSYN|fACK, 5000, 1001, options(3, 3, 7, 1)) // is lost on its way to the client
		c.client(fSYN, 1000, 0, options(3, 3, 7, 1))
		c.serverNot(fSYN|fACK, isn, 999) // no answer to this SYN
		c.server(fSYN|fACK, isn, 1001, options(3, 3, 7, 1))
		c.client(fACK, 1001, isn+1, window(8192))
		c.state("established")
		c.server(fACK, isn+1+1_000_000, 1001, bytesOf(100)) // within the scaled window
		c.serverNot(fACK, isn+1+1_100_000, 1001, bytesOf(100))
	}
}

// TestRFC9293_S3_10_7_3_RefusedAfterASYNACK: the server's answer is lost, and when the SYN
// is retransmitted the server no longer listens. The client is in SYN-SENT and accepts a
// RST that acknowledges its SYN, whatever its sequence number, which is 0 (section
// 3.10.7.1).
func TestRFC9293_S3_10_7_3_RefusedAfterASYNACK(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.server(fSYN|fACK, 5000, 1001)
	c.client(fSYN, 1000, 0)
	c.serverNot(fRST|fACK, 0, 1002)
	c.serverNot(fRST|fACK, 0, 1000)
	c.serverNot(fRST, 0, 1001)
	c.state("syn_recv")
	c.server(fRST|fACK, 0, 1001)
	c.state("close")
	// The client has had the SYN-ACK after all, and does not take that RST.
	c.client(fACK, 1001, 5001)
	c.state("established")
	c.serverNot(fRST|fACK, 0, 1001)
}

// TestRFC9293_S3_10_7_3_AnswerAfterGivingUp: a client that has abandoned its attempt
// answers a late SYN-ACK with a RST, which frees the server. Both pass, whatever the
// server's sequence number.
func TestRFC9293_S3_10_7_3_AnswerAfterGivingUp(t *testing.T) {
	for _, isn := range []uint32{0, 5000, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		c := newConn(t, nil)
		c.client(fSYN, 1000, 0)
		c.client(fRST, 1001, 0)
		c.serverNot(fSYN|fACK, isn, 1000)
		c.serverNot(fSYN|fACK, isn, 1002)
		c.server(fSYN|fACK, isn, 1001)
		c.client(fRST, 1001, 0)
		c.state("close")
	}
}

// TestRFC9293_S3_10_7_4_HandshakeNeedsItsACK: in SYN-RECEIVED an end accepts only an
// acknowledgement of its SYN. Numbers close to it, as one of 65,536 blind segments has,
// establish nothing.
func TestRFC9293_S3_10_7_4_HandshakeNeedsItsACK(t *testing.T) {
	for _, early := range [][2]int{{0, 0}, {0, 300}, {100, 300}} { // data in the SYN-ACK and after it
		c := newConn(t, nil)
		c.client(fSYN, 1000, 0)
		c.server(fSYN|fACK, 5000, 1001, bytesOf(early[0]))
		c.server(fSYN|fACK, 5000, 1001, bytesOf(early[0]))
		c.server(fACK, uint32(5001+early[0]), 1001, bytesOf(early[1]))
		for _, ack := range []uint32{5000, 4000, 0xffff1389, uint32(5002 + early[0] + early[1]), 0} {
			c.clientNot(fACK, 1001, ack)
		}
		c.state("syn_recv")
		c.client(fACK, 1001, 5001)
		c.state("established")
	}
}

// TestRFC5961_BlindSYNDoesNotSpoilTheWindow: nor does a SYN without options, which may be
// forged, make the windows of a handshake unscaled.
func TestRFC5961_BlindSYNDoesNotSpoilTheWindow(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0, options(3, 3, 7, 1))
	c.server(fSYN, 666, 0)
	c.server(fSYN|fACK, 5000, 1001, options(3, 3, 2, 1))
	c.client(fACK, 1001, 5001, window(2000)) // 256,000
	c.server(fACK, 5001+200_000, 1001, bytesOf(100), window(8192))
	c.client(fACK, 1001+30_000, 5001, bytesOf(100))
	c.clientNot(fACK, 1001+33_000, 5001, bytesOf(100))
}

// TestRFC5382_REQ1_MappingOutlivesTheConnection: in TIME-WAIT an endpoint still
// has its external port, and a new connection from there uses it.
func TestRFC5382_REQ1_MappingOutlivesTheConnection(t *testing.T) {
	for _, last := range []string{"time_wait", "close"} {
		l := newLab(t, "accept egress", established)
		p := l.flowOut(tcpSeg(host, 4000, web, 80, fSYN, 1000, 0)).SrcPort
		l.one(wan, tcpSeg(web, 80, ours, p, fSYN|fACK, 5000, 1001))
		l.one(lan, tcpSeg(host, 4000, web, 80, fACK, 1001, 5001))
		if last == "close" {
			l.one(wan, tcpSeg(web, 80, ours, p, fRST, 5001, 0))
		} else {
			l.one(lan, tcpSeg(host, 4000, web, 80, fFIN|fACK, 1001, 5001))
			l.one(wan, tcpSeg(web, 80, ours, p, fFIN|fACK, 5001, 1002))
			l.one(lan, tcpSeg(host, 4000, web, 80, fACK, 1002, 5002))
		}
		if s := l.e.flows.Dir(2).State.String(); s != last {
			t.Fatalf("state %s, want %s", s, last)
		}
		for range 3 {
			l.one(lan, tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0)).is(t, ours, p, web, 80)
			l.one(wan, tcpSeg(web, 80, ours, p, fRST|fACK, 0, 700_001))
		}
		l.pass(241)
		if n := l.e.nat.Pools()[0].InUse(packet.TCP); n != 0 {
			t.Fatalf("%d ports in use", n)
		}
	}
}

// close closes a connection of handshake's numbers, its client first.
func (c *conn) close() {
	c.t.Helper()
	c.client(fFIN|fACK, 1001, 5001)
	c.server(fFIN|fACK, 5001, 1002)
	c.client(fACK, 1002, 5002)
	c.state("time_wait")
}

// TestRFC9293_S3_6_1_OldSYNInTimeWait: a SYN that is not newer than what the
// connection has sent does not reopen it: it is old, and changes nothing.
func TestRFC9293_S3_6_1_OldSYNInTimeWait(t *testing.T) {
	c := newConn(t, nil)
	c.port = c.handshake(host, 4000, web, 80)
	c.close()
	c.client(fSYN, 1000, 0)
	c.server(fSYN|fACK, 5000, 1001) // as late
	c.state("time_wait")
	c.server(fFIN|fACK, 5001, 1002) // the last acknowledgement was lost
	c.client(fACK, 1002, 5002)
}

// TestRFC9293_S3_6_1_LowerNumberInTimeWait: if it is a new attempt all the same, because
// its numbers are random, the connection is established.
func TestRFC9293_S3_6_1_LowerNumberInTimeWait(t *testing.T) {
	for _, isn := range []uint32{900, 0xffff83e8, 1<<32 - 1<<20, 1<<31 + 1000, 2000} {
		for _, waits := range []bool{true, false} { // the server is in TIME-WAIT, too
			c := newConn(t, nil)
			c.port = c.handshake(host, 4000, web, 80)
			c.close()
			c.client(fSYN, isn, 0)
			if waits {
				c.server(fACK, 5002, 1002) // a challenge
				c.client(fRST, 1002, 0)
			} else if c.e.flows.Dir(0).State == conntrack.TimeWait {
				c.serverNot(fSYN|fACK, 77_000, isn+1)
			}
			c.client(fSYN, isn, 0)
			c.server(fSYN|fACK, 77_000, isn+1)
			c.client(fACK, isn+1, 77_001)
			c.state("established")
		}
	}
}
