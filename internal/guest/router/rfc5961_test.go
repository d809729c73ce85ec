package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// RFC 5961 speaks to the ends of a connection. A firewall between them must
// neither be deceived by blind segments, nor take away those by which the ends
// defend themselves.

func (l *lab) state(want string) {
	l.t.Helper()
	if s := l.e.flows.Dir(0).State.String(); s != want {
		l.t.Fatalf("state %s, want %s", s, want)
	}
}

func TestRFC5961_S3_2_OnlyTheExactRSTEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		seq   uint32
		pass  bool
		state string
	}{
		{"before the window", 4000, false, "established"},
		{"exact", 5001, true, "close"},
		{"in the window", 5002, true, "established"},
		{"at its end", 5001 + 8192, true, "established"},
		{"beyond", 5001 + 8193, false, "established"},
	} {
		l := newLab(t, "accept egress", established)
		port := l.handshake(host, 4000, web, 80)
		p := tcpSeg(web, 80, ours, port, packet.RST, c.seq, 0)
		if c.pass {
			l.one(wan, p)
		} else {
			l.dropped(wan, p, verdict.ConntrackInvalid)
		}
		l.state(c.state)
	}
}

// TestRFC5961_S3_2_RSTAfterDataUnderWay: what follows data that has not been
// acknowledged yet is exact as well.
func TestRFC5961_S3_2_RSTAfterDataUnderWay(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	d := tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001)
	d.data = make([]byte, 100)
	l.one(wan, d)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.RST, 5101, 0))
	l.state("close")
}

func TestRFC5961_S4_2_SYNInAConnectionPassesAndChangesNothing(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN, 77, 0))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 88, 0))
	l.state("established")
	// The challenge, in either direction, and what it leads to.
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
	l.state("established")
	if l.e.flows.Len() != 1 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
}

// TestRFC5961_S4_2_HalfOpenConnectionRecovers: a client that has restarted, and
// a firewall that remembers (RFC 9293 section 3.5.1).
func TestRFC5961_S4_2_HalfOpenConnectionRecovers(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0))
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001)) // the challenge
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.RST, 1001, 0))
	l.state("close")
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0))
	l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 9000, 700_001))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 700_001, 9001))
	l.state("established")
}

// TestRFC9293_S3_10_4_BothForgot: client and server know nothing of a
// connection that the firewall remembers: both have started again, or the last
// acknowledgement was lost. The client's second SYN begins a new flow.
func TestRFC9293_S3_10_4_BothForgot(t *testing.T) {
	for _, last := range []string{"established", "last_ack", "syn_recv"} {
		for _, isn := range []uint32{9000, 4000} { // after the old numbers, and before them
			l := newLab(t, "accept egress", established)
			port := l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0)).SrcPort
			l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1001))
			if last != "syn_recv" {
				l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
			}
			if last == "last_ack" {
				l.one(lan, tcpSeg(host, 4000, web, 80, packet.FIN|packet.ACK, 1001, 5001))
				l.one(wan, tcpSeg(web, 80, ours, port, packet.FIN|packet.ACK, 5001, 1002))
			}
			l.state(last)
			again := tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0)
			l.one(lan, again)
			answer := tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, isn, 700_001)
			l.dropped(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 9000, 600_001), verdict.ConntrackInvalid)
			l.state(last)
			l.dropped(wan, answer, verdict.ConntrackInvalid)
			l.state("close")
			if p := l.one(lan, again).SrcPort; p != port {
				t.Errorf("%s: the new flow has port %d, the old one had %d", last, p, port)
			}
			l.one(wan, answer)
			l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 700_001, isn+1))
			l.state("established")
		}
	}
}

// TestRFC5961_ForgedAnswerToASYN: who guesses what a SYN in a connection wants
// as its answer has not ended the connection.
func TestRFC5961_ForgedAnswerToASYN(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0))
	l.dropped(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 9000, 700_001), verdict.ConntrackInvalid)
	d := tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001)
	d.data = []byte("hello")
	l.one(wan, d)
	l.state("established")
}

// TestRFC5961_S9_3_ChallengeACKIsNotEaten: also when the firewall has forgotten
// the connection that the server still knows.
func TestRFC5961_S9_3_ChallengeACKIsNotEaten(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0)).SrcPort
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001)) // of the old connection
	l.state("syn_sent")
	l.dropped(lan, tcpSeg(host, 4000, web, 80, packet.RST, 1002, 0), verdict.ConntrackInvalid)
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.RST, 1001, 0))
	l.state("syn_sent")
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 700_000, 0))
	l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 9000, 700_001))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 700_001, 9001))
	l.state("established")
}

// TestRFC5961_S9_3_ChallengeDoesNotProlong: a half-open flow is not kept alive with such
// ACKs.
func TestRFC5961_S9_3_ChallengeDoesNotProlong(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.one(lan, syn(host, 4000, web, 80)).SrcPort
	for range 6 {
		l.pass(39)
		l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
	}
	l.pass(7)
	if l.e.flows.Len() != 0 {
		t.Fatal("still there")
	}
}

func TestRFC5961_S5_2_ACKRange(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	d := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	d.data = make([]byte, 1000)
	l.one(lan, d)
	ack := func(n uint32) pkt { return tcpSeg(web, 80, ours, port, packet.ACK, 5001, n) }
	l.one(wan, ack(2001))
	l.dropped(wan, ack(2002), verdict.ConntrackInvalid) // of what has not been sent
	l.one(wan, ack(1001))                               // an old one
	const slack = 1 << 16                               // the largest window without scaling
	n := uint32(2001)
	l.one(wan, ack(n-slack-1))
	l.dropped(wan, ack(n-slack-2), verdict.ConntrackInvalid)
	l.dropped(wan, ack(n+1<<31), verdict.ConntrackInvalid)
}

// TestRFC5961_BlindSYNDoesNotSpoilAHandshake: a SYN that may be forged is not taken for the
// server's.
func TestRFC5961_BlindSYNDoesNotSpoilAHandshake(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0)).SrcPort
	l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN, 666, 0)) // might be a simultaneous open
	l.dropped(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 999), verdict.ConntrackInvalid)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1001))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
	l.state("established")
	d := tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001)
	d.data = []byte("hello")
	l.one(wan, d)
}

// TestRFC7413_FastOpen: a SYN's data may be acknowledged or not.
func TestRFC7413_FastOpen(t *testing.T) {
	for _, ack := range []uint32{1001, 1006} {
		l := newLab(t, "accept egress", established)
		s := tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0)
		s.data = []byte("hello")
		port := l.one(lan, s).SrcPort
		l.dropped(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1000), verdict.ConntrackInvalid)
		l.dropped(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1007), verdict.ConntrackInvalid)
		l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, ack))
		l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1006, 5001))
		l.state("established")
	}
}
